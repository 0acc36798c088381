#define CST_LOG_AREA "load"
#include "cli/mount_load.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/pool.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/load_targets.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/queue.h>

#define LOADS_MAGIC 0x4c4f4453u
#define LOADS_MAX 64
#define FAILURES_MAX 100000	    /* kept; more are only counted */
#define FAILURES_TOLD UINT64_C(500) /* in one answer */
#define PATIENCE (60 * CST_NS_PER_S)
#define LOOK_EVERY_S 1

struct run {
	unsigned id;
	struct cst_load *load;
	struct cst_mount_loads *loads;
	int64_t asked;			 /* cst_now() of the last question */
	struct cst_option_list failures; /* JSON objects */
	uint64_t failed;		 /* all of them */
	bool told;			 /* that it is finished, with all its failures */
	unsigned busy;			 /* questions being answered: it may not be freed */
	TAILQ_ENTRY(run) link;
};

struct cst_mount_loads {
	unsigned magic;
	struct cst_mount_loads_config config;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	TAILQ_HEAD(, run) runs;
	unsigned count, last_id;
	bool thread_runs, ending;
	unsigned long thread;
};

static int refuse(struct cst_buf *json, int status, const char *what, const char *why, const char *hint)
{
	cst_buf_add_str(json, "{\"error\": {\"what\": ");
	cst_text_json_string(json, cst_slice_of(what));
	cst_buf_add_str(json, ", \"why\": ");
	cst_text_json_string(json, cst_slice_of(why));
	cst_buf_add_str(json, ", \"hint\": ");
	cst_text_json_string(json, cst_slice_of(hint));
	cst_buf_add_str(json, "}}\n");
	return status;
}

/* ---- the thread that ends what nobody asks for ---- */

static bool is_over(const struct cst_mount_loads *loads, struct run *r, int64_t now)
{
	struct cst_load_progress p;
	if (r->busy > 0)
		return false;
	cst_load_progress(r->load, &p);
	return (p.finished && r->told) || now - r->asked > loads->config.patience || loads->ending;
}

static struct run *take_over_run(struct cst_mount_loads *loads)
{
	struct run *r;
	int64_t now = cst_now();
	TAILQ_FOREACH (r, &loads->runs, link)
		if (is_over(loads, r, now))
			break;
	if (r) {
		TAILQ_REMOVE(&loads->runs, r, link);
		loads->count--;
	}
	return r;
}

static void free_run(struct run *r)
{
	struct cst_load_progress p;
	cst_load_progress(r->load, &p);
	if (p.finished)
		cst_log_info(
			"load %u ended: %llu of %llu objects are there, %llu were fetched for it or completed, %llu failed",
			r->id, (unsigned long long)p.objects_done, (unsigned long long)p.objects,
			(unsigned long long)(p.objects_done - p.objects_skipped),
			(unsigned long long)(p.objects_failed + p.objects_refused));
	else
		cst_log_info("load %u is cancelled: its command has gone", r->id);
	cst_load_free(r->load);
	cst_option_list_fini(&r->failures);
	free(r);
}

static void *main_of_thread(void *arg)
{
	struct cst_mount_loads *loads = arg;
	pthread_mutex_lock(&loads->lock);
	while (!loads->ending || loads->count > 0) {
		struct run *r = take_over_run(loads);
		if (r) {
			pthread_mutex_unlock(&loads->lock);
			free_run(r);
			pthread_mutex_lock(&loads->lock);
			continue;
		}
		struct timespec until;
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += LOOK_EVERY_S;
		pthread_cond_timedwait(&loads->wake, &loads->lock, &until);
	}
	pthread_mutex_unlock(&loads->lock);
	return NULL;
}

struct cst_mount_loads *cst_mount_loads_new(const struct cst_mount_loads_config *config)
{
	struct cst_mount_loads *loads = CST_NEW(struct cst_mount_loads);
	pthread_condattr_t attr;
	loads->magic = LOADS_MAGIC;
	loads->config = *config;
	if (loads->config.patience == 0)
		loads->config.patience = PATIENCE;
	TAILQ_INIT(&loads->runs);
	pthread_mutex_init(&loads->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&loads->wake, &attr);
	pthread_condattr_destroy(&attr);
	return loads;
}

void cst_mount_loads_free(struct cst_mount_loads *loads)
{
	if (!loads)
		return;
	CST_CHECK(loads, LOADS_MAGIC);
	pthread_mutex_lock(&loads->lock);
	loads->ending = true;
	pthread_cond_broadcast(&loads->wake);
	pthread_mutex_unlock(&loads->lock);
	if (loads->thread_runs)
		pthread_join(loads->thread, NULL);
	pthread_cond_destroy(&loads->wake);
	pthread_mutex_destroy(&loads->lock);
	loads->magic = 0;
	free(loads);
}

/* ---- starting one ---- */

static void add_failure(void *arg, struct cst_slice key, const struct cst_error *err)
{
	struct run *r = arg;
	char text[CST_ERROR_TEXT_MAX];
	CST_AUTO_BUF json = CST_BUF_INIT;
	cst_buf_add_str(&json, "{\"key\": ");
	cst_text_json_string(&json, key);
	cst_buf_add_str(&json, ", \"error\": ");
	cst_text_json_string(&json, cst_slice_of(cst_error_text(err, text, sizeof(text))));
	cst_buf_add_char(&json, '}');
	pthread_mutex_lock(&r->loads->lock);
	r->failed++;
	if (r->failures.count < FAILURES_MAX)
		cst_option_list_add(&r->failures, cst_buf_steal(&json));
	pthread_mutex_unlock(&r->loads->lock);
}

/* "name=12" among the parameters of a target, or 0. */
static uint64_t parameter(struct cst_slice query, const char *name)
{
	while (query.len > 0) {
		struct cst_slice value = cst_slice_cut(&query, '&');
		struct cst_slice key = cst_slice_cut(&value, '=');
		CST_AUTO_FREE char *text = cst_xstrndup(value.len > 0 ? value.data : "", value.len);
		int64_t number = 0;
		if (cst_slice_is(key, name) && cst_parse_int(text, 10, &number) == 0 && number > 0)
			return (uint64_t)number;
	}
	return 0;
}

static void cut_targets(const struct cst_mount_loads *loads, struct cst_slice body, struct cst_option_list *targets)
{
	while (body.len > 0) {
		struct cst_slice name = cst_slice_cut(&body, '\0');
		CST_AUTO_BUF target = CST_BUF_INIT;
		cst_load_escape(&target, cst_slice_of(loads->config.prefix));
		cst_buf_add_slice(&target, name);
		cst_option_list_add(targets, cst_buf_steal(&target));
	}
}

/* Lock held. */
static int start_run(struct cst_mount_loads *loads, struct cst_slice query, const struct cst_option_list *targets,
		     struct cst_buf *json)
{
	struct run *r = CST_NEW(struct run);
	struct cst_error err = CST_ERROR_INIT;
	struct cst_load_config config = {.bucket = loads->config.bucket,
					 .fetch = loads->config.fetch,
					 .cache = loads->config.cache,
					 .targets = (const char *const *)targets->items,
					 .target_count = (unsigned)targets->count,
					 .parallel = (unsigned)cst_min(parameter(query, "parallel"), (uint64_t)4096),
					 .pin = parameter(query, "pin") != 0,
					 .first_level = (unsigned)cst_min(parameter(query, "level"), UINT64_C(16)),
					 .failure = add_failure,
					 .arg = r};
	r->loads = loads;
	r->id = ++loads->last_id;
	r->asked = cst_now();
	r->load = cst_load_start(&config, &err);
	if (!r->load) {
		free(r);
		return refuse(json, 500, err.what, err.why, err.hint);
	}
	TAILQ_INSERT_TAIL(&loads->runs, r, link);
	loads->count++;
	cst_log_info("load %u of %zu %s began", r->id, targets->count, targets->count == 1 ? "name" : "names");
	cst_buf_printf(json, "{\"id\": %u}\n", r->id);
	return 200;
}

static int start_loading(struct cst_mount_loads *loads, struct cst_slice query, struct cst_slice body,
			 struct cst_buf *json)
{
	static const char what[] = "the mount can't load";
	struct cst_option_list targets = {0};
	int status;
	if (!loads->config.cache)
		return refuse(json, 409, what, "it has no cache on disk",
			      "mount with --cache-dir DIR or --cache-level");
	cut_targets(loads, body, &targets);
	pthread_mutex_lock(&loads->lock);
	if (loads->ending || targets.count == 0)
		status = refuse(json, 400, what, loads->ending ? "it is being unmounted" : "no names were given", "");
	else if (loads->count >= LOADS_MAX)
		status = refuse(json, 429, what, "64 loads are under way already", "wait for one of them to end");
	else if (!loads->thread_runs && cst_thread_start(&loads->thread, "loads", 0, main_of_thread, loads) != 0)
		status = refuse(json, 500, what, "a thread could not be started", "");
	else {
		loads->thread_runs = true;
		status = start_run(loads, query, &targets, json);
	}
	pthread_mutex_unlock(&loads->lock);
	cst_option_list_fini(&targets);
	return status;
}

/* ---- asking ---- */

void cst_load_progress_json(const struct cst_load_progress *p, struct cst_buf *json)
{
	const struct {
		const char *name;
		uint64_t value;
	} fields[] = {
		{"objects", p->objects},
		{"bytes", p->bytes},
		{"objects_done", p->objects_done},
		{"bytes_done", p->bytes_done},
		{"bytes_fetched", p->bytes_fetched},
		{"objects_skipped", p->objects_skipped},
		{"objects_vanished", p->objects_vanished},
		{"objects_failed", p->objects_failed},
		{"objects_refused", p->objects_refused},
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(fields); i++)
		cst_buf_printf(json, "\"%s\": %llu, ", fields[i].name, (unsigned long long)fields[i].value);
	cst_buf_printf(json, "\"listed\": %s, \"finished\": %s, \"rc\": %d", p->listed ? "true" : "false",
		       p->finished ? "true" : "false", p->rc);
}

/* Lock held. `from`: the first failure to tell. */
static void tell_run(struct run *r, bool by_its_command, uint64_t from, struct cst_buf *json)
{
	struct cst_load_progress p;
	cst_load_progress(r->load, &p);
	cst_buf_printf(json, "{\"id\": %u, ", r->id);
	cst_load_progress_json(&p, json);
	cst_buf_printf(json, ", \"failures_total\": %llu", (unsigned long long)r->failed);
	if (by_its_command) {
		uint64_t end = cst_min(from + FAILURES_TOLD, (uint64_t)r->failures.count);
		cst_buf_add_str(json, ", \"failures\": [");
		for (uint64_t i = from; i < end; i++)
			cst_buf_printf(json, "%s%s", i > from ? ", " : "", r->failures.items[i]);
		cst_buf_add_char(json, ']');
		r->asked = cst_now();
		r->told = p.finished && end >= r->failures.count;
		if (r->told)
			pthread_cond_signal(&r->loads->wake);
	}
	cst_buf_add_char(json, '}');
}

void cst_mount_loads_json(struct cst_mount_loads *loads, struct cst_buf *json)
{
	struct run *r;
	const char *separator = "";
	CST_CHECK(loads, LOADS_MAGIC);
	cst_buf_add_char(json, '[');
	pthread_mutex_lock(&loads->lock);
	TAILQ_FOREACH (r, &loads->runs, link) {
		cst_buf_add_str(json, separator);
		tell_run(r, false, 0, json);
		separator = ", ";
	}
	pthread_mutex_unlock(&loads->lock);
	cst_buf_add_char(json, ']');
}

/* The first failure's whole text, for a load that ended without any object having failed (a listing, a name that is nothing). */
static void add_end_error(struct run *r, struct cst_buf *json)
{
	struct cst_error err = CST_ERROR_INIT;
	struct cst_load_progress p;
	char text[CST_ERROR_TEXT_MAX];
	cst_load_progress(r->load, &p);
	if (!p.finished || p.rc == 0 || !cst_load_wait(r->load, 0, &err) || err.code == 0)
		return;
	json->len--; /* the brace */
	cst_buf_add_str(json, ", \"error_text\": ");
	cst_text_json_string(json, cst_slice_of(cst_error_text(&err, text, sizeof(text))));
	cst_buf_add_char(json, '}');
}

static int with_run(struct cst_mount_loads *loads, struct cst_slice id, bool cancel, struct cst_slice query,
		    struct cst_buf *json)
{
	struct run *r;
	CST_AUTO_FREE char *text = cst_xstrndup(id.data, id.len);
	int64_t number = 0;
	if (cst_parse_int(text, 10, &number) != 0)
		number = 0;
	pthread_mutex_lock(&loads->lock);
	TAILQ_FOREACH (r, &loads->runs, link)
		if (r->id == number)
			break;
	if (r)
		r->busy++;
	pthread_mutex_unlock(&loads->lock);
	if (!r)
		return refuse(json, 404, "the load is not known", "it has ended, or the mount was made anew", "");
	if (cancel)
		cst_load_cancel(r->load);
	pthread_mutex_lock(&loads->lock);
	/* Who cancels still comes to hear how it ended. */
	tell_run(r, !cancel, parameter(query, "failures"), json);
	r->asked = cst_now();
	add_end_error(r, json);
	cst_buf_add_char(json, '\n');
	r->busy--;
	pthread_mutex_unlock(&loads->lock);
	return 200;
}

int cst_mount_loads_request(struct cst_mount_loads *loads, struct cst_slice method, struct cst_slice target,
			    struct cst_slice body, struct cst_buf *json)
{
	CST_CHECK(loads, LOADS_MAGIC);
	struct cst_slice query = target, path = cst_slice_cut(&query, '?');
	bool post = cst_slice_is(method, "POST");
	if (cst_slice_is(path, "/loads")) {
		if (post)
			return start_loading(loads, query, body, json);
		cst_mount_loads_json(loads, json);
		return 200;
	}
	if (!cst_slice_starts(path, CST_SLICE("/loads/")))
		return refuse(json, 404, "no such page", "", "");
	struct cst_slice action = {path.data + 7, path.len - 7}, id = cst_slice_cut(&action, '/');
	if (action.len > 0 && (!post || !cst_slice_is(action, "cancel")))
		return refuse(json, 404, "no such page", "", "");
	return with_run(loads, id, action.len > 0, query, json);
}
