#define CST_LOG_AREA "preload"
#include "cli/mount_preload.h"

#include "base/log.h"
#include "base/text.h"
#include "base/digest.h"
#include "base/units.h"
#include "cli/mount_options.h"

#include <errno.h>
#include <pthread.h>
#include <sys/queue.h>

#define PRELOADS_MAGIC 0x93e10adbu
#define KEPT_MAX 64u
#define TARGET "/preloads"

struct run {
	unsigned id;
	struct cst_fs_preload *p;
	TAILQ_ENTRY(run) link;
};

struct cst_mount_preloads {
	unsigned magic;
	struct cst_fs *fs;
	struct cst_fs_preload *everything;
	pthread_mutex_t lock;
	TAILQ_HEAD(, run) runs; /* oldest first */
	unsigned count, last_id;
	bool ending;
};

static int refuse(struct cst_buf *json, int status, const char *what, const char *why)
{
	cst_buf_add_str(json, "{\"error\": {\"what\": ");
	cst_text_json_string(json, cst_slice_of(what));
	cst_buf_add_str(json, ", \"why\": ");
	cst_text_json_string(json, cst_slice_of(why));
	cst_buf_add_str(json, ", \"hint\": \"\"}}\n");
	return status;
}

char *cst_mount_snapshot_path(const struct cst_mount_plan *plan, char **identity)
{
	const struct cst_mount_options *o = &plan->o;
	const struct cst_cache_choice *cache = &plan->cache;
	const struct cst_url *url = &plan->access.url;
	const char *dir = o->metadata_snapshot;
	CST_AUTO_FREE char *beside = NULL;
	uint8_t digest[CST_SHA256_LEN];
	*identity = NULL;
	/* A new mount is expected to see the store as it is: what the one before knew is used where somebody asked for it. */
	if (!dir && o->metadata_snapshot_max_age > 0 && cache->level_count > 0 &&
	    cache->levels[cache->level_count - 1].path_count > 0)
		dir = beside = cst_xasprintf("%s/listings", cache->levels[cache->level_count - 1].paths[0].path);
	if (!dir || strcmp(dir, "off") == 0)
		return NULL;
	*identity = cst_xasprintf("%s://%s/%s at %s", url->cloud == CST_CLOUD_S3 ? "s3" : "oss", url->bucket,
				  url->prefix, plan->access.endpoint ? plan->access.endpoint : "");
	cst_sha256(*identity, strlen(*identity), digest);
	struct cst_buf path = CST_BUF_INIT;
	cst_buf_printf(&path, "%s/", dir);
	for (size_t i = 0; i < 16; i++)
		cst_buf_printf(&path, "%02x", digest[i]);
	return cst_buf_steal(&path);
}

struct cst_mount_preloads *cst_mount_preloads_new(struct cst_fs *fs, bool everything)
{
	struct cst_mount_preloads *m = CST_NEW(struct cst_mount_preloads);
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	m->magic = PRELOADS_MAGIC;
	m->fs = fs;
	pthread_mutex_init(&m->lock, NULL);
	TAILQ_INIT(&m->runs);
	m->everything = everything ? cst_fs_preload_start(fs, "", &err) : NULL;
	if (everything && !m->everything)
		cst_log_warn("preload_metadata: %s", cst_error_text(&err, text, sizeof(text)));
	return m;
}

static void run_free(struct run *r)
{
	cst_fs_preload_free(r->p);
	free(r);
}

static struct run *take_locked(struct cst_mount_preloads *m, struct run *r)
{
	TAILQ_REMOVE(&m->runs, r, link);
	m->count--;
	return r;
}

void cst_mount_preloads_free(struct cst_mount_preloads *m)
{
	struct run *r;
	if (!m)
		return;
	CST_CHECK(m, PRELOADS_MAGIC);
	pthread_mutex_lock(&m->lock);
	m->ending = true;
	pthread_mutex_unlock(&m->lock);
	while ((r = TAILQ_FIRST(&m->runs)) != NULL)
		run_free(take_locked(m, r));
	cst_fs_preload_free(m->everything);
	pthread_mutex_destroy(&m->lock);
	m->magic = 0;
	free(m);
}

static bool is_finished(struct run *r)
{
	struct cst_preload_progress progress;
	return cst_fs_preload_wait(r->p, 0, &progress, NULL);
}

static struct run *take_forgotten_locked(struct cst_mount_preloads *m)
{
	struct run *r;
	TAILQ_FOREACH (r, &m->runs, link)
		if (m->count >= KEPT_MAX && is_finished(r))
			return take_locked(m, r);
	return NULL;
}

static int start_run(struct cst_mount_preloads *m, struct cst_slice path, struct cst_buf *json)
{
	static const char what[] = "the mount can't preload";
	struct cst_error err = CST_ERROR_INIT;
	int status = 200;
	if (memchr(path.len ? path.data : "", '\0', path.len))
		return refuse(json, 400, what, "no path has a zero byte in it");
	CST_AUTO_FREE char *text = cst_xstrndup(path.len ? path.data : "", path.len);
	pthread_mutex_lock(&m->lock);
	struct run *old = take_forgotten_locked(m);
	if (m->ending || m->count >= KEPT_MAX) {
		status = refuse(json, m->ending ? 400 : 429, what,
				m->ending ? "it is being unmounted" : "64 preloads are under way already");
	} else {
		struct cst_fs_preload *p = cst_fs_preload_start(m->fs, text, &err);
		struct run *r = p ? CST_NEW(struct run) : NULL;
		if (r) {
			*r = (struct run){.id = ++m->last_id, .p = p};
			TAILQ_INSERT_TAIL(&m->runs, r, link);
			m->count++;
			cst_buf_printf(json, "{\"id\": %u}\n", r->id);
		} else {
			status = refuse(json, 400, err.what, err.why);
		}
	}
	pthread_mutex_unlock(&m->lock);
	if (old)
		run_free(old);
	return status;
}

static bool tell(struct run *r, struct cst_buf *json)
{
	static const char *const ends[] = {"running", "whole", "memory", "large", "unsorted", "cancelled", "failed"};
	struct cst_preload_progress p;
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	bool finished = cst_fs_preload_wait(r->p, 0, &p, &err);
	cst_buf_printf(json,
		       "{\"id\": %u, \"finished\": %s, \"end\": \"%s\", \"requests\": %llu, \"keys\": %llu, "
		       "\"directories\": %llu",
		       r->id, finished ? "true" : "false", ends[p.end], (unsigned long long)p.pages,
		       (unsigned long long)p.keys, (unsigned long long)p.directories);
	if (finished && p.end == CST_PRELOAD_FAILED) {
		cst_buf_add_str(json, ", \"error\": ");
		cst_text_json_string(json, cst_slice_of(cst_error_text(&err, text, sizeof(text))));
	}
	cst_buf_add_str(json, "}\n");
	return finished;
}

/* A run that is told of may not be freed by another question meanwhile; ending one waits for requests under way, so that comes without the lock. */
static int with_run(struct cst_mount_preloads *m, struct cst_slice id, bool cancel, struct cst_buf *json)
{
	CST_AUTO_FREE char *text = cst_xstrndup(id.len ? id.data : "", id.len);
	struct run *r, *over = NULL;
	int64_t number = 0;
	if (cst_parse_int(text, 10, &number) != 0)
		number = 0;
	pthread_mutex_lock(&m->lock);
	TAILQ_FOREACH (r, &m->runs, link)
		if (r->id == number)
			break;
	bool found = r != NULL;
	if (found && (tell(r, json) || cancel))
		over = take_locked(m, r);
	pthread_mutex_unlock(&m->lock);
	if (over)
		run_free(over);
	return found ? 200 : refuse(json, 404, "the preload is not known", "it has ended, or the mount was made anew");
}

bool cst_mount_preloads_is_target(struct cst_slice target)
{
	return cst_slice_is(target, TARGET) || cst_slice_starts(target, CST_SLICE(TARGET "/"));
}

int cst_mount_preloads_request(struct cst_mount_preloads *m, struct cst_slice method, struct cst_slice target,
			       struct cst_slice body, struct cst_buf *json)
{
	CST_CHECK(m, PRELOADS_MAGIC);
	bool post = cst_slice_is(method, "POST");
	if (cst_slice_is(target, TARGET))
		return post ? start_run(m, body, json) : refuse(json, 404, "no such page", "");
	size_t len = sizeof(TARGET "/") - 1;
	struct cst_slice action = {target.data + len, target.len - len}, id = cst_slice_cut(&action, '/');
	if (action.len > 0 && (!post || !cst_slice_is(action, "cancel")))
		return refuse(json, 404, "no such page", "");
	return with_run(m, id, action.len > 0, json);
}
