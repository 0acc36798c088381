/* Loading: the thread that begins objects, follows them to their end, and counts.
 *
 *   found → OPENING (what has the cache of it?) ─ complete ─────────────────────────────▶ done
 *              │                                                                           ▲
 *              └─ FILLING (the rest, in ranges) → SETTLING (written and synced) ───────────┘
 *                    └─ changed meanwhile → ASKING (which version is it now?) → OPENING, once more */
#define CST_LOG_AREA "load"
#include "cache/load.h"

#include "base/clock.h"
#include "base/log.h"
#include "cache/load_private.h"

#include <errno.h>
#include <time.h>

#define PARALLEL 32u
#define SMALL_BYTES (UINT64_C(1) << 20)
#define LARGE_BYTES (UINT64_C(8) << 20)
#define LARGE_WEIGHT 4u
#define RANGES_MIN 4u
#define RANGES_MAX 16u
#define RANGES_ALL 64u	/* over all objects, about */
#define NAMES_LOW 1000u /* another page is asked for when fewer names wait */
#define REFUSED_MOST 16u

static void job_event(struct cst_load_job *job)
{
	struct cst_load *load = job->load;
	pthread_mutex_lock(&load->lock);
	STAILQ_INSERT_TAIL(&load->events, job, event);
	pthread_cond_signal(&load->wake);
	pthread_mutex_unlock(&load->lock);
}

/* Others look at it for the progress. */
static void set_state(struct cst_load_job *job, enum cst_load_state state)
{
	pthread_mutex_lock(&job->load->lock);
	job->state = state;
	pthread_mutex_unlock(&job->load->lock);
}

void cst_load_failed(struct cst_load *load, struct cst_slice key, const struct cst_error *err)
{
	pthread_mutex_lock(&load->lock);
	if (!load->first.code)
		load->first = *err;
	if (err->code == ENOENT && load->progress.rc == 0)
		load->progress.rc = -ENOENT;
	pthread_mutex_unlock(&load->lock);
	if (load->config.failure)
		load->config.failure(load->config.arg, key, err);
}

/* ---- one object ---- */

static struct cst_slice job_key(const struct cst_load_job *job)
{
	return (struct cst_slice){job->name->key, job->name->key_len};
}

enum outcome { DONE, SKIPPED, FAILED, REFUSED, VANISHED, CANCELLED };

static void count_outcome_locked(struct cst_load *load, struct cst_load_job *job, enum outcome outcome)
{
	struct cst_load_progress *p = &load->progress;
	uint64_t size = job->name->size;
	p->bytes_fetched += __atomic_load_n(&job->fill.bytes_fetched, __ATOMIC_RELAXED);
	switch (outcome) {
	case DONE:
	case SKIPPED:
		p->objects_done++;
		p->bytes_done += size;
		p->objects_skipped += outcome == SKIPPED;
		break;
	case FAILED:
		p->objects_failed++;
		break;
	case REFUSED:
		p->objects_refused++;
		break;
	case VANISHED:
		p->objects_vanished++;
		p->objects--;
		p->bytes -= size;
		break;
	case CANCELLED:
		break;
	}
}

static void job_end(struct cst_load_job *job, enum outcome outcome)
{
	struct cst_load *load = job->load;
	if (outcome == FAILED || outcome == REFUSED) {
		job->err.code = job->err.code == ENOENT ? EIO : job->err.code; /* of an object, not of a target */
		cst_load_failed(load, job_key(job), &job->err);
	}
	if (outcome == REFUSED)
		load->refused_in_a_row++;
	else if (outcome == DONE)
		load->refused_in_a_row = 0;
	if (job->planned && outcome != DONE && outcome != SKIPPED)
		load->planned[job->level] -= job->name->size;
	pthread_mutex_lock(&load->lock);
	count_outcome_locked(load, job, outcome);
	TAILQ_REMOVE(&load->jobs, job, link);
	pthread_mutex_unlock(&load->lock);
	load->weight -= job->weight;
	load->active--;
	if (job->data)
		cst_fetch_object_unref(job->data);
	cst_cache_object_unref(job->o);
	free(job->name);
	free(job);
}

static void job_refused(struct cst_load_job *job, const char *why, const char *hint)
{
	cst_error_set(&job->err, ENOSPC, "can't load %.*s", (int)cst_min(job->name->key_len, (size_t)160),
		      job->name->key);
	cst_error_why(&job->err, "%s", why);
	cst_error_hint(&job->err, "%s", hint);
	job_end(job, REFUSED);
}

static void opened(void *arg, struct cst_cache_object *o)
{
	struct cst_load_job *job = arg;
	job->o = o;
	job_event(job);
}

static void filled(struct cst_fetch_fill *fill, int rc, const struct cst_error *err)
{
	struct cst_load_job *job = fill->arg;
	job->rc = rc;
	if (rc < 0 && err)
		job->err = *err;
	job_event(job);
}

static void settled(void *arg)
{
	job_event(arg);
}

static void head_done(void *arg, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct cst_load_job *job = arg;
	job->rc = rc;
	if (rc == 0)
		job->info = *info;
	else if (err)
		job->err = *err;
	job_event(job);
}

/* Bytes that a level can keep without pushing out what this load brought before. */
static bool plan_level(struct cst_load *load, struct cst_load_job *job)
{
	struct cst_cache *cache = load->config.cache;
	for (unsigned i = load->config.first_level; i < cache->level_count; i++) {
		struct cst_level *l = &cache->levels[i];
		uint64_t room = 0;
		for (unsigned k = 0; k < l->volume_count; k++)
			room += cst_cache_volume_is_out(&l->volumes[k])
					? 0
					: (uint64_t)((double)l->volumes[k].quota * l->high);
		struct cst_cache_volume *v = cst_level_choose(l, job->o->id.name);
		if (!v || !cst_cache_volume_holds(v, job->name->size) || load->planned[i] + job->name->size > room)
			continue;
		load->planned[i] += job->name->size;
		job->level = i;
		job->planned = true;
		return true;
	}
	return false;
}

/* What is there already takes room where it is. */
static void plan_present(struct cst_load *load, struct cst_load_job *job)
{
	unsigned level = CST_CACHE_LEVELS;
	pthread_mutex_lock(&job->o->lock);
	for (unsigned i = 0; i < load->config.cache->level_count && level == CST_CACHE_LEVELS; i++) {
		if (job->o->places[i] && job->o->places[i]->present > 0)
			level = i;
	}
	pthread_mutex_unlock(&job->o->lock);
	if (level == CST_CACHE_LEVELS)
		return;
	load->planned[level] += job->name->size;
	job->level = level;
	job->planned = true;
}

static void start_fill(struct cst_load_job *job)
{
	struct cst_load *load = job->load;
	struct cst_load_config *c = &load->config;
	unsigned ranges = cst_min(cst_max(RANGES_ALL / load->active, RANGES_MIN), RANGES_MAX);
	cst_object_aim(job->o, job->level, c->pin);
	job->data = cst_fetch_object_new(c->fetch, job_key(job), job->name->etag, job->name->size);
	cst_fetch_object_set_local(job->data, cst_cache_object_local(job->o));
	pthread_mutex_lock(&load->lock);
	load->progress.bytes_fetched += job->fill.bytes_fetched; /* of an earlier version */
	job->fill = (struct cst_fetch_fill){.length = UINT64_MAX,
					    .parallel = job->name->size > LARGE_BYTES ? ranges : 1,
					    .done = filled,
					    .arg = job};
	pthread_mutex_unlock(&load->lock);
	set_state(job, LOAD_FILLING);
	cst_fetch_fill(job->data, &job->fill);
}

static void job_opened(struct cst_load_job *job)
{
	struct cst_load *load = job->load;
	if (load->stopped) {
		job_end(job, CANCELLED);
		return;
	}
	if (!job->o) {
		if (job->name->etag[0])
			job_refused(job, "the cache's policy is to admit nothing", "load with another --cache-policy");
		else
			job_refused(job, "the store gives no ETag for it, so versions can't be told apart", "");
		return;
	}
	uint64_t had = cst_cache_object_cached(job->o);
	pthread_mutex_lock(&load->lock);
	job->had = had;
	pthread_mutex_unlock(&load->lock);
	if (job->had > 0)
		plan_present(load, job);
	if (job->had == job->name->size) {
		if (load->config.pin)
			cst_object_aim(job->o, job->level, true);
		job_end(job, SKIPPED);
		return;
	}
	if (load->config.cache->policy == CST_CACHE_STREAM)
		job_refused(job, "the cache's policy is to admit nothing", "load with another --cache-policy");
	else if (load->refused_in_a_row >= REFUSED_MOST || (!job->planned && !plan_level(load, job)))
		job_refused(job, "it does not fit into the cache beside what was loaded before",
			    "raise the quota, or load less");
	else
		start_fill(job);
}

static void job_ask(struct cst_load_job *job)
{
	struct cst_load *load = job->load;
	job->tries++;
	if (job->planned)
		load->planned[job->level] -= job->name->size;
	job->planned = false;
	cst_fetch_object_unref(cst_steal(job->data));
	cst_cache_object_unref(cst_steal(job->o));
	set_state(job, LOAD_ASKING);
	job->op = cst_object_head(load->config.bucket, job_key(job), true, head_done, job);
}

static void job_filled(struct cst_load_job *job)
{
	set_state(job, LOAD_SETTLING); /* from here on there is nothing to cancel */
	if (job->load->stopped && job->rc != 0)
		job_end(job, CANCELLED);
	else if (job->rc == 0)
		cst_object_settle(job->o, settled, job);
	else if ((job->rc == -ESTALE || job->rc == -ENOENT) && job->tries == 0)
		job_ask(job);
	else if (job->rc == -ENOSPC)
		job_refused(job, "the cache took no more of it",
			    "see cistern cache stat; raise the quota, or unpin what is no longer needed");
	else
		job_end(job, FAILED);
}

static void job_settled(struct cst_load_job *job)
{
	uint64_t cached = cst_cache_object_cached(job->o);
	if (cached == job->name->size) {
		job_end(job, DONE);
		return;
	}
	cst_error_set(&job->err, EIO, "can't load %.*s", (int)cst_min(job->name->key_len, (size_t)160), job->name->key);
	cst_error_why(&job->err, "%llu of its %llu bytes did not stay in the cache",
		      (unsigned long long)(job->name->size - cached), (unsigned long long)job->name->size);
	cst_error_hint(&job->err, "the log tells whether a disk failed; load again");
	job_end(job, FAILED);
}

static void job_open(struct cst_load_job *job)
{
	set_state(job, LOAD_OPENING);
	cst_cache_open(job->load->config.cache, job_key(job), job->name->etag, job->name->size, opened, job);
}

static void job_asked(struct cst_load_job *job)
{
	struct cst_load *load = job->load;
	cst_object_release(cst_steal(job->op));
	if (load->stopped) {
		job_end(job, CANCELLED);
	} else if (job->rc == -ENOENT) {
		job_end(job, VANISHED);
	} else if (job->rc != 0) {
		job_end(job, FAILED);
	} else {
		pthread_mutex_lock(&load->lock);
		load->progress.bytes += job->info.size - job->name->size;
		job->name->size = job->info.size;
		pthread_mutex_unlock(&load->lock);
		memcpy(job->name->etag, job->info.etag, sizeof(job->name->etag));
		if (job->name->size == 0)
			job_end(job, SKIPPED);
		else
			job_open(job);
	}
}

static void job_step(struct cst_load_job *job)
{
	switch (job->state) {
	case LOAD_OPENING:
		job_opened(job);
		break;
	case LOAD_FILLING:
		job_filled(job);
		break;
	case LOAD_SETTLING:
		job_settled(job);
		break;
	case LOAD_ASKING:
		job_asked(job);
		break;
	}
}

/* ---- the thread ---- */

static void start_job(struct cst_load *load, struct cst_load_name *name)
{
	struct cst_load_job *job = CST_NEW(struct cst_load_job);
	job->load = load;
	job->name = name;
	job->weight = name->size > SMALL_BYTES ? LARGE_WEIGHT : 1;
	load->weight += job->weight;
	load->active++;
	pthread_mutex_lock(&load->lock);
	TAILQ_INSERT_TAIL(&load->jobs, job, link);
	load->names_waiting--;
	pthread_mutex_unlock(&load->lock);
	if (name->size == 0)
		job_end(job, SKIPPED);
	else
		job_open(job);
}

static void start_jobs(struct cst_load *load)
{
	unsigned most = (load->config.parallel ? load->config.parallel : PARALLEL) * LARGE_WEIGHT;
	struct cst_load_name *name;
	while (load->weight < most && (name = STAILQ_FIRST(&load->names))) {
		STAILQ_REMOVE_HEAD(&load->names, link);
		start_job(load, name);
	}
}

/* Nothing new; what is under way ends soon. */
static void stop(struct cst_load *load, int rc)
{
	if (load->stopped)
		return;
	load->stopped = true;
	load->lister.over = true;
	struct cst_load_name *name;
	while ((name = STAILQ_FIRST(&load->names))) {
		STAILQ_REMOVE_HEAD(&load->names, link);
		free(name);
	}
	if (load->lister.flying)
		cst_object_cancel(load->lister.op);
	struct cst_load_job *job;
	pthread_mutex_lock(&load->lock);
	load->names_waiting = 0;
	load->progress.rc = rc;
	pthread_mutex_unlock(&load->lock);
	/* The list is changed by this thread alone. */
	TAILQ_FOREACH (job, &load->jobs, link) {
		if (job->state == LOAD_FILLING)
			cst_fetch_fill_cancel(&job->fill);
		else if (job->state == LOAD_ASKING && job->op)
			cst_object_cancel(job->op);
	}
}

static void take_page(struct cst_load *load)
{
	struct cst_lister *l = &load->lister;
	if (load->stopped) {
		l->rc = -ECANCELED;
		l->over = true;
	}
	int rc = cst_lister_take(load);
	if (rc == 0 || load->stopped)
		return;
	cst_error_wrap(&l->err, "can't list what to load");
	pthread_mutex_lock(&load->lock);
	if (!load->first.code)
		load->first = l->err;
	pthread_mutex_unlock(&load->lock);
	/* Names that were found before are still loaded: the next run has less to do. */
	l->over = true;
	pthread_mutex_lock(&load->lock);
	load->progress.rc = rc;
	pthread_mutex_unlock(&load->lock);
}

/* Waits for something to do. False: all is over. */
static bool next_events(struct cst_load *load, struct cst_load_job **first, bool *page, bool *cancelled)
{
	pthread_mutex_lock(&load->lock);
	for (;;) {
		*first = STAILQ_FIRST(&load->events);
		if (*first)
			STAILQ_REMOVE_HEAD(&load->events, event);
		*page = load->page_done;
		load->page_done = false;
		*cancelled = load->cancelled && !load->stopped;
		bool idle =
			load->active == 0 && !load->lister.flying && load->lister.over && STAILQ_EMPTY(&load->names);
		if (*first || *page || *cancelled || idle) {
			pthread_mutex_unlock(&load->lock);
			return *first || *page || *cancelled;
		}
		pthread_cond_wait(&load->wake, &load->lock);
	}
}

static void finish(struct cst_load *load)
{
	pthread_mutex_lock(&load->lock);
	struct cst_load_progress *p = &load->progress;
	/* What says most: the listing ended early, objects failed, objects were refused, a target names nothing. */
	if (p->rc == 0 || p->rc == -ENOENT) {
		if (p->objects_failed)
			p->rc = -EIO;
		else if (p->objects_refused)
			p->rc = -ENOSPC;
	}
	p->listed = true;
	p->finished = true;
	pthread_cond_broadcast(&load->over);
	pthread_mutex_unlock(&load->lock);
}

static void *load_run(void *arg)
{
	struct cst_load *load = arg;
	struct cst_load_job *job;
	bool page, cancelled;
	cst_lister_step(load);
	while (next_events(load, &job, &page, &cancelled)) {
		if (cancelled)
			stop(load, -ECANCELED);
		if (page)
			take_page(load);
		if (job)
			job_step(job);
		start_jobs(load);
		if (load->names_waiting < NAMES_LOW)
			cst_lister_step(load);
		if (load->lister.over) {
			pthread_mutex_lock(&load->lock);
			load->progress.listed = true;
			pthread_mutex_unlock(&load->lock);
		}
	}
	finish(load);
	return NULL;
}

/* ---- for the caller ---- */

struct cst_load *cst_load_start(const struct cst_load_config *config, struct cst_error *err)
{
	if (config->target_count == 0) {
		cst_error_set(err, EINVAL, "nothing to load");
		cst_error_why(err, "no prefix, pattern or key was given");
		return NULL;
	}
	if (config->first_level >= config->cache->level_count) {
		cst_error_set(err, EINVAL, "can't load into level %u", config->first_level);
		cst_error_why(err, "the cache has %u levels, counted from 0", config->cache->level_count);
		return NULL;
	}
	struct cst_load *load = CST_NEW(struct cst_load);
	load->magic = CST_LOAD_MAGIC;
	load->config = *config;
	load->targets = cst_xcalloc(config->target_count, sizeof(char *));
	for (unsigned i = 0; i < config->target_count; i++)
		load->targets[i] = cst_xstrdup(config->targets[i]);
	load->config.targets = NULL;
	cst_lister_init(load);
	STAILQ_INIT(&load->events);
	TAILQ_INIT(&load->jobs);
	pthread_mutex_init(&load->lock, NULL);
	pthread_cond_init(&load->wake, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&load->over, &attr);
	pthread_condattr_destroy(&attr);
	int rc = cst_thread_start(&load->thread, "load", 0, load_run, load);
	if (rc == 0)
		return load;
	cst_error_set(err, -rc, "can't start loading");
	cst_error_why(err, "no thread: %s", strerror(-rc));
	load->thread = 0;
	load->progress.finished = true;
	cst_load_free(load);
	return NULL;
}

void cst_load_progress(struct cst_load *load, struct cst_load_progress *progress)
{
	CST_CHECK(load, CST_LOAD_MAGIC);
	pthread_mutex_lock(&load->lock);
	*progress = load->progress;
	struct cst_load_job *job;
	TAILQ_FOREACH (job, &load->jobs, link) {
		if (job->state != LOAD_FILLING && job->state != LOAD_SETTLING)
			continue;
		uint64_t fetched = __atomic_load_n(&job->fill.bytes_fetched, __ATOMIC_RELAXED);
		progress->bytes_fetched += fetched;
		/* What has come is as good as saved to who looks at a bar: whole ranges are saved at a time. */
		uint64_t done = job->had + cst_max(fetched, __atomic_load_n(&job->fill.bytes_saved, __ATOMIC_RELAXED));
		progress->bytes_done += cst_min(done, job->name->size);
	}
	pthread_mutex_unlock(&load->lock);
}

bool cst_load_wait(struct cst_load *load, int64_t timeout, struct cst_error *err)
{
	CST_CHECK(load, CST_LOAD_MAGIC);
	int64_t until = cst_now() + cst_max(timeout, INT64_C(0));
	struct timespec ts = {until / CST_NS_PER_S, until % CST_NS_PER_S};
	pthread_mutex_lock(&load->lock);
	while (!load->progress.finished) {
		if (pthread_cond_timedwait(&load->over, &load->lock, &ts) == ETIMEDOUT)
			break;
	}
	bool finished = load->progress.finished;
	if (finished && err)
		*err = load->first;
	pthread_mutex_unlock(&load->lock);
	return finished;
}

void cst_load_cancel(struct cst_load *load)
{
	CST_CHECK(load, CST_LOAD_MAGIC);
	pthread_mutex_lock(&load->lock);
	load->cancelled = true;
	pthread_cond_signal(&load->wake);
	pthread_mutex_unlock(&load->lock);
}

void cst_load_free(struct cst_load *load)
{
	if (!load)
		return;
	cst_load_cancel(load);
	if (load->thread)
		pthread_join(load->thread, NULL);
	cst_lister_fini(load);
	for (unsigned i = 0; i < load->config.target_count; i++)
		free(load->targets[i]);
	free(load->targets);
	pthread_mutex_destroy(&load->lock);
	pthread_cond_destroy(&load->wake);
	pthread_cond_destroy(&load->over);
	load->magic = 0;
	free(load);
}
