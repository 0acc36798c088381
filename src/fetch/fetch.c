#define CST_LOG_AREA "fetch"
#include "fetch/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/pool.h"

#include <errno.h>
#include <string.h>

#define MEMORY_FLOOR (UINT64_C(64) << 20)
#define KEEP_UNREAD (60 * CST_NS_PER_S)
#define CALM_RANGE (5 * CST_NS_PER_S / 2)
#define KEEP_FOR_DEMAND (3 * CST_NS_PER_S)
#define LOOK_AGAIN (CST_NS_PER_S / 5)

static struct timespec from_now(int64_t ns)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	ns += at.tv_nsec;
	at.tv_sec += (time_t)(ns / CST_NS_PER_S);
	at.tv_nsec = (long)(ns % CST_NS_PER_S);
	return at;
}

/* Tells how fills ended: their callers start the next ones from there, so it is no thread that holds anything. For the same reason it starts what
 * has room once an object was given up. And a READ may wait for memory that only time frees (what was prefetched for readers that don't come). */
static void *watch(void *arg)
{
	struct cst_fetch *f = arg;
	struct todo todo;
	pthread_mutex_lock(&f->lock);
	while (!f->stopping) {
		fills_report(f);
		if (TAILQ_EMPTY(&f->waiting) && !f->given_up) {
			f->asleep = true;
			if (!f->stopping && TAILQ_EMPTY(&f->fills_ended))
				pthread_cond_wait(&f->wake, &f->lock);
			f->asleep = false;
			continue;
		}
		struct timespec at = from_now(LOOK_AGAIN);
		if (!f->given_up)
			pthread_cond_timedwait(&f->wake, &f->lock, &at);
		f->given_up = false;
		todo_init(&todo);
		pump_locked(f, &todo);
		pthread_mutex_unlock(&f->lock);
		todo_run(&todo);
		pthread_mutex_lock(&f->lock);
	}
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

static void init_wake(struct cst_fetch *f)
{
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&f->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

static void lock_fini(struct cst_fetch *f)
{
	pthread_cond_destroy(&f->wake);
	pthread_cond_destroy(&f->drained);
	pthread_mutex_destroy(&f->lock);
}

struct cst_fetch *cst_fetch_new(const struct cst_fetch_config *config, struct cst_error *err)
{
	if (config->memory < MEMORY_FLOOR) {
		cst_error_set(err, EINVAL, "can't use a memory budget of %llu bytes",
			      (unsigned long long)config->memory);
		cst_error_why(err, "the smallest that lets reads overlap is 64MiB");
		cst_error_hint(err, "set --memory 64MiB or more");
		return NULL;
	}
	struct cst_fetch *f = CST_NEW(struct cst_fetch);
	f->magic = FETCH_MAGIC;
	f->config = *config;
	f->config.window_max = config->window_max ? config->window_max : config->memory / 2;
	f->config.range_size = config->range_size ? config->range_size : 8u << 20;
	f->config.range_size = cst_min(f->config.range_size, RANGE_BLOCKS_MAX * BLOCK_SIZE) & ~((1u << 20) - 1);
	f->config.range_size = cst_max(f->config.range_size, 1u << 20);
	f->config.max_prefetch = config->max_prefetch ? config->max_prefetch : 64;
	f->config.keep_unread = config->keep_unread ? config->keep_unread : KEEP_UNREAD;
	f->config.calm_range = config->calm_range ? config->calm_range : CALM_RANGE;
	f->config.keep_read = config->keep_read ? config->keep_read : config->memory;
	f->config.keep_for_demand = config->keep_for_demand ? config->keep_for_demand : KEEP_FOR_DEMAND;
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->drained, NULL);
	init_wake(f);
	TAILQ_INIT(&f->waiting);
	TAILQ_INIT(&f->hungry);
	TAILQ_INIT(&f->active);
	TAILQ_INIT(&f->fills);
	TAILQ_INIT(&f->fills_ended);
	adapt_init(&f->adapt, f->config.max_prefetch);
	int rc = arena_init(f, err);
	if (rc == 0) {
		rc = cst_thread_start(&f->thread, "fetch", 0, watch, f);
		if (rc < 0) {
			cst_error_set(err, -rc, "can't start a thread");
			cst_error_why(err, "%s", strerror(-rc));
		}
	}
	if (rc < 0) {
		arena_fini(f);
		lock_fini(f);
		free(f);
		return NULL;
	}
	return f;
}

void cst_fetch_free(struct cst_fetch *f)
{
	if (!f)
		return;
	CST_CHECK(f, FETCH_MAGIC);
	/* Cancelled GETs of abandoned objects may still be ending on the loops. */
	pthread_mutex_lock(&f->lock);
	while (__atomic_load_n(&f->objects, __ATOMIC_RELAXED))
		pthread_cond_wait(&f->drained, &f->lock);
	f->stopping = true;
	pthread_cond_signal(&f->wake);
	pthread_mutex_unlock(&f->lock);
	pthread_join(f->thread, NULL);
	CST_ASSERT(f->ranges == 0 && f->waiting_count == 0 && f->free_count == f->block_count);
	CST_ASSERT(f->prefetch_blocks + f->prefetch_flying + f->save_blocks + f->fill_blocks == 0);
	CST_ASSERT(f->prefetch_ranges + f->ahead_ranges + f->fill_ranges + f->used_owed_count == 0);
	f->magic = 0;
	arena_fini(f);
	lock_fini(f);
	free(f);
}

void cst_fetch_stats(struct cst_fetch *f, struct cst_fetch_stats *stats)
{
	CST_CHECK(f, FETCH_MAGIC);
	pthread_mutex_lock(&f->lock);
	*stats = f->stats;
	stats->memory_limit = (uint64_t)f->block_count * BLOCK_SIZE;
	stats->memory_used = (uint64_t)(f->block_count - f->free_count) * BLOCK_SIZE;
	stats->memory_peak = (uint64_t)f->block_peak * BLOCK_SIZE;
	stats->parallel = f->adapt.limit;
	stats->requests_in_flight = f->ranges;
	stats->reads_waiting = f->waiting_count;
	pthread_mutex_unlock(&f->lock);
}
