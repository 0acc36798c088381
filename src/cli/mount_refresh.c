#define CST_LOG_AREA "refresh"
#include "cli/mount_refresh.h"

#include "base/log.h"
#include "base/pool.h"
#include "base/text.h"
#include "base/units.h"

#include <errno.h>
#include <pthread.h>
#include <sys/queue.h>

#define REFRESHES_MAGIC 0x5e5e5e51u
#define RUNNING_MAX 16u
#define KEPT_MAX 64u /* with those that are finished and nobody has asked about */
#define TARGET "/refreshes"

struct run {
	struct cst_mount_refreshes *m;
	unsigned id;
	char *path;
	unsigned long thread;
	bool finished; /* the lock; what follows is valid then */
	int rc;
	struct cst_fs_refresh_result result;
	struct cst_error err;
	TAILQ_ENTRY(run) link;
};

struct cst_mount_refreshes {
	unsigned magic;
	struct cst_fs *fs;
	pthread_mutex_t lock;
	TAILQ_HEAD(, run) runs; /* oldest first */
	unsigned count, running, last_id;
	bool ending;
};

static int refuse(struct cst_buf *json, int status, const char *what, const char *why)
{
	cst_buf_printf(json, "{\"error\": {\"what\": \"%s\", \"why\": \"%s\", \"hint\": \"\"}}\n", what, why);
	return status;
}

static void *run_main(void *arg)
{
	struct run *r = arg;
	char text[CST_ERROR_TEXT_MAX];
	int rc = cst_fs_refresh(r->m->fs, r->path, &r->result, &r->err);
	cst_log_info("refresh %u ended: %llu directories listed, %llu names changed, %llu new, %llu gone%s%s", r->id,
		     (unsigned long long)r->result.directories, (unsigned long long)r->result.changed,
		     (unsigned long long)r->result.added, (unsigned long long)r->result.gone, rc ? "; " : "",
		     rc ? cst_error_text(&r->err, text, sizeof(text)) : "");
	pthread_mutex_lock(&r->m->lock);
	r->rc = rc;
	r->finished = true;
	r->m->running--;
	pthread_mutex_unlock(&r->m->lock);
	return NULL;
}

/* Joins its thread, which has ended or is about to. Without the lock. */
static void run_free(struct run *r)
{
	pthread_join(r->thread, NULL);
	free(r->path);
	free(r);
}

static struct run *take_locked(struct cst_mount_refreshes *m, struct run *r)
{
	TAILQ_REMOVE(&m->runs, r, link);
	m->count--;
	return r;
}

static struct run *take_forgotten_locked(struct cst_mount_refreshes *m)
{
	struct run *r;
	if (m->count < KEPT_MAX)
		return NULL;
	TAILQ_FOREACH (r, &m->runs, link)
		if (r->finished)
			return take_locked(m, r);
	return NULL;
}

struct cst_mount_refreshes *cst_mount_refreshes_new(struct cst_fs *fs)
{
	struct cst_mount_refreshes *m = CST_NEW(struct cst_mount_refreshes);
	m->magic = REFRESHES_MAGIC;
	m->fs = fs;
	pthread_mutex_init(&m->lock, NULL);
	TAILQ_INIT(&m->runs);
	return m;
}

void cst_mount_refreshes_free(struct cst_mount_refreshes *m)
{
	if (!m)
		return;
	CST_CHECK(m, REFRESHES_MAGIC);
	pthread_mutex_lock(&m->lock);
	m->ending = true;
	pthread_mutex_unlock(&m->lock);
	cst_fs_refresh_stop(m->fs);
	struct run *r;
	while ((r = TAILQ_FIRST(&m->runs)) != NULL)
		run_free(take_locked(m, r));
	pthread_mutex_destroy(&m->lock);
	m->magic = 0;
	free(m);
}

static int start_run(struct cst_mount_refreshes *m, struct cst_slice path, struct cst_buf *json)
{
	static const char what[] = "the mount can't refresh";
	int status = 200;
	if (memchr(path.len ? path.data : "", '\0', path.len))
		return refuse(json, 400, what, "no path has a zero byte in it");
	struct run *r = CST_NEW(struct run);
	r->m = m;
	r->path = cst_xstrndup(path.len ? path.data : "", path.len);
	pthread_mutex_lock(&m->lock);
	struct run *old = take_forgotten_locked(m);
	r->id = m->last_id + 1;
	if (m->ending)
		status = refuse(json, 400, what, "it is being unmounted");
	else if (m->running >= RUNNING_MAX)
		status = refuse(json, 429, what, "16 refreshes are under way already");
	else if (cst_thread_start(&r->thread, "cst-refresh", 0, run_main, r) != 0)
		status = refuse(json, 500, what, "a thread could not be started");
	if (status == 200) {
		m->last_id++;
		m->running++;
		m->count++;
		TAILQ_INSERT_TAIL(&m->runs, r, link);
		cst_buf_printf(json, "{\"id\": %u}\n", r->id);
	}
	pthread_mutex_unlock(&m->lock);
	if (old)
		run_free(old);
	if (status != 200) {
		free(r->path);
		free(r);
	}
	return status;
}

static void add_text(struct cst_buf *json, const char *name, const char *text)
{
	cst_buf_printf(json, "\"%s\": ", name);
	cst_text_json_string(json, cst_slice_of(text));
}

static void tell(const struct run *r, struct cst_buf *json)
{
	cst_buf_printf(json, "{\"id\": %u, \"finished\": %s", r->id, r->finished ? "true" : "false");
	if (r->finished)
		cst_buf_printf(
			json,
			", \"directories\": %llu, \"changed\": %llu, \"new\": %llu, \"gone\": %llu, \"failed\": %llu, \"rc\": %d",
			(unsigned long long)r->result.directories, (unsigned long long)r->result.changed,
			(unsigned long long)r->result.added, (unsigned long long)r->result.gone,
			(unsigned long long)r->result.failed, r->rc);
	if (r->finished && r->rc != 0) {
		cst_buf_add_str(json, ", \"error\": {");
		add_text(json, "what", r->err.what);
		cst_buf_add_str(json, ", ");
		add_text(json, "why", r->err.why);
		cst_buf_add_str(json, ", ");
		add_text(json, "hint", r->err.hint);
		cst_buf_add_char(json, '}');
	}
	cst_buf_add_str(json, "}\n");
}

static int tell_run(struct cst_mount_refreshes *m, struct cst_slice id, struct cst_buf *json)
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
	if (r) {
		tell(r, json);
		over = r->finished ? take_locked(m, r) : NULL;
	}
	pthread_mutex_unlock(&m->lock);
	if (over)
		run_free(over);
	return r ? 200 : refuse(json, 404, "the refresh is not known", "it has ended, or the mount was made anew");
}

bool cst_mount_refreshes_is_target(struct cst_slice target)
{
	return cst_slice_is(target, TARGET) || cst_slice_starts(target, CST_SLICE(TARGET "/"));
}

int cst_mount_refreshes_request(struct cst_mount_refreshes *m, struct cst_slice method, struct cst_slice target,
				struct cst_slice body, struct cst_buf *json)
{
	CST_CHECK(m, REFRESHES_MAGIC);
	bool post = cst_slice_is(method, "POST");
	if (cst_slice_is(target, TARGET) && post)
		return start_run(m, body, json);
	size_t skip = sizeof(TARGET "/") - 1;
	if (post || target.len <= skip)
		return refuse(json, 404, "no such page", "");
	return tell_run(m, (struct cst_slice){target.data + skip, target.len - skip}, json);
}
