#include "cli/load_job.h"

#include "cli/control.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <string.h>

struct cst_load_job {
	struct cst_load_job_config config;
	char end_text[CST_ERROR_TEXT_MAX];
	/* In this process. */
	struct cst_access access;
	struct cst_link link;
	struct cst_fetch *fetch;
	struct cst_cache *cache;
	struct cst_load *load;
	pthread_mutex_t lock;		 /* failures: they come on the load's thread */
	struct cst_option_list failures; /* key, why, key, why, … */
	/* In a mount. */
	long long id;
	uint64_t failures_seen;
};

/* ---- in this process ---- */

static void note_failure(void *arg, struct cst_slice key, const struct cst_error *err)
{
	struct cst_load_job *job = arg;
	char text[CST_ERROR_TEXT_MAX];
	cst_error_text(err, text, sizeof(text));
	pthread_mutex_lock(&job->lock);
	cst_option_list_add(&job->failures, cst_xstrndup(key.len > 0 ? key.data : "", key.len));
	cst_option_list_add(&job->failures, cst_xstrdup(text));
	pthread_mutex_unlock(&job->lock);
}

static int start_here(struct cst_load_job *job, struct cst_error *err)
{
	const struct cst_load_job_config *c = &job->config;
	char bucket[sizeof(c->group->url.bucket) + 8];
	job->access.url = c->group->url;
	cst_access_name(&job->access);
	int rc = cst_access_resolve(&job->access, c->o, false, err);
	if (rc == 0)
		rc = cst_link_open(&job->link, &job->access, c->o, err);
	if (rc != 0)
		return rc;
	struct cst_fetch_config fetch = {
		.bucket = job->link.bucket, .memory = c->o->memory, .keep_read = c->o->memory / 8};
	job->fetch = cst_fetch_new(&fetch, err);
	if (!job->fetch)
		return -1;
	cst_url_bucket_text(&c->group->url, bucket, sizeof(bucket));
	job->cache = cst_cache_choice_open(c->cache, bucket, CST_CACHE_S3FIFO, c->o, err);
	if (!job->cache)
		return -1;
	struct cst_load_config load = {.bucket = job->link.bucket,
				       .fetch = job->fetch,
				       .cache = job->cache,
				       .targets = (const char *const *)c->group->targets.items,
				       .target_count = (unsigned)c->group->targets.count,
				       .parallel = c->parallel,
				       .first_level = c->level,
				       .pin = c->pin,
				       .failure = note_failure,
				       .arg = job};
	job->load = cst_load_start(&load, err);
	return job->load ? 0 : -1;
}

static void tell_failures(struct cst_load_job *job)
{
	pthread_mutex_lock(&job->lock);
	struct cst_option_list list = job->failures;
	job->failures = (struct cst_option_list){0};
	pthread_mutex_unlock(&job->lock);
	for (size_t i = 0; i + 1 < list.count; i += 2)
		job->config.failure(job->config.arg, list.items[i], list.items[i + 1]);
	cst_option_list_fini(&list);
}

static int poll_here(struct cst_load_job *job, int64_t timeout, struct cst_load_progress *p)
{
	struct cst_error end = CST_ERROR_INIT;
	bool finished = cst_load_wait(job->load, timeout, &end);
	cst_load_progress(job->load, p);
	tell_failures(job);
	if (finished && p->rc != 0 && end.code != 0)
		cst_error_text(&end, job->end_text, sizeof(job->end_text));
	return 0;
}

/* ---- in a mount ---- */

static int start_there(struct cst_load_job *job, struct cst_error *err)
{
	const struct cst_load_job_config *c = &job->config;
	CST_AUTO_BUF names = CST_BUF_INIT;
	CST_AUTO_BUF answer = CST_BUF_INIT;
	for (size_t i = 0; i < c->group->targets.count; i++)
		cst_buf_add(&names, c->group->targets.items[i], strlen(c->group->targets.items[i]) + 1);
	CST_AUTO_FREE char *target =
		cst_xasprintf("/loads?parallel=%u&level=%u&pin=%d", c->parallel, c->level, c->pin ? 1 : 0);
	int rc = cst_control_call(c->group->mountpoint, "POST", target, cst_buf_slice(&names), &answer, err);
	if (rc != 0)
		return rc;
	json_t *root = json_loadb(answer.data, answer.len, 0, NULL);
	if (!root || json_unpack(root, "{s:I}", "id", &job->id) != 0)
		rc = cst_error_set(err, EBADMSG, "the mount on %s gave an answer that is not understood",
				   c->group->mountpoint);
	json_decref(root);
	return rc;
}

static uint64_t number(const json_t *root, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(root, name));
}

static void take_progress(const json_t *root, struct cst_load_progress *p)
{
	*p = (struct cst_load_progress){
		.objects = number(root, "objects"),
		.bytes = number(root, "bytes"),
		.objects_done = number(root, "objects_done"),
		.bytes_done = number(root, "bytes_done"),
		.bytes_fetched = number(root, "bytes_fetched"),
		.objects_skipped = number(root, "objects_skipped"),
		.objects_vanished = number(root, "objects_vanished"),
		.objects_failed = number(root, "objects_failed"),
		.objects_refused = number(root, "objects_refused"),
		.listed = json_is_true(json_object_get(root, "listed")),
		.finished = json_is_true(json_object_get(root, "finished")),
		.rc = (int)json_integer_value(json_object_get(root, "rc")),
	};
}

static void take_failures(struct cst_load_job *job, const json_t *root)
{
	const json_t *list = json_object_get(root, "failures");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *item = json_array_get(list, i);
		const char *key = json_string_value(json_object_get(item, "key"));
		const char *why = json_string_value(json_object_get(item, "error"));
		job->config.failure(job->config.arg, key ? key : "", why ? why : "");
		job->failures_seen++;
	}
	const char *end = json_string_value(json_object_get(root, "error_text"));
	snprintf(job->end_text, sizeof(job->end_text), "%s", end ? end : "");
}

/* *more: there are failures that didn't fit. */
static int ask(struct cst_load_job *job, struct cst_load_progress *p, bool *more, struct cst_error *err)
{
	CST_AUTO_BUF answer = CST_BUF_INIT;
	CST_AUTO_FREE char *target =
		cst_xasprintf("/loads/%lld?failures=%llu", job->id, (unsigned long long)job->failures_seen);
	int rc = cst_control_get(job->config.group->mountpoint, target, &answer, err);
	if (rc != 0)
		return rc;
	json_t *root = json_loadb(answer.data, answer.len, 0, NULL);
	if (!root)
		return cst_error_set(err, EBADMSG, "the mount on %s gave an answer that is not JSON",
				     job->config.group->mountpoint);
	uint64_t seen = job->failures_seen;
	take_progress(root, p);
	take_failures(job, root);
	*more = job->failures_seen > seen && job->failures_seen < number(root, "failures_total");
	json_decref(root);
	return 0;
}

#define ASK_EVERY (100 * CST_NS_PER_MS)

static int poll_there(struct cst_load_job *job, int64_t timeout, struct cst_load_progress *p, struct cst_error *err)
{
	int64_t end = cst_now() + timeout;
	for (;;) {
		bool more = true;
		int rc = 0;
		while (more && rc == 0)
			rc = ask(job, p, &more, err);
		if (rc != 0 || p->finished || cst_now() >= end)
			return rc;
		cst_sleep(cst_min(ASK_EVERY, end - cst_now()));
	}
}

/* ---- both ---- */

struct cst_load_job *cst_load_job_start(const struct cst_load_job_config *config, struct cst_error *err)
{
	struct cst_load_job *job = CST_NEW(struct cst_load_job);
	job->config = *config;
	pthread_mutex_init(&job->lock, NULL);
	int rc = config->group->mountpoint ? start_there(job, err) : start_here(job, err);
	if (rc == 0)
		return job;
	cst_load_job_free(job);
	return NULL;
}

int cst_load_job_poll(struct cst_load_job *job, int64_t timeout, struct cst_load_progress *p, struct cst_error *err)
{
	return job->load ? poll_here(job, timeout, p) : poll_there(job, timeout, p, err);
}

void cst_load_job_cancel(struct cst_load_job *job)
{
	if (job->load) {
		cst_load_cancel(job->load);
		return;
	}
	CST_AUTO_BUF answer = CST_BUF_INIT;
	CST_AUTO_FREE char *target = cst_xasprintf("/loads/%lld/cancel", job->id);
	struct cst_error ignored = CST_ERROR_INIT;
	cst_control_call(job->config.group->mountpoint, "POST", target, (struct cst_slice){NULL, 0}, &answer, &ignored);
}

const char *cst_load_job_end_text(const struct cst_load_job *job)
{
	return job->end_text;
}

void cst_load_job_free(struct cst_load_job *job)
{
	if (!job)
		return;
	if (job->load)
		cst_load_free(job->load);
	if (job->cache)
		cst_cache_stop(job->cache);
	if (job->fetch)
		cst_fetch_free(job->fetch);
	if (job->cache)
		cst_cache_free(job->cache);
	cst_link_close(&job->link);
	cst_access_fini(&job->access);
	cst_option_list_fini(&job->failures);
	pthread_mutex_destroy(&job->lock);
	free(job);
}
