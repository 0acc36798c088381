/* Completing objects in the background: one that was used in good part is read to its end after its last close, a few at a time, after all
 * other reading. */
#define CST_LOG_AREA "cache"
#include "base/clock.h"
#include "base/log.h"
#include "cache/cache_private.h"

#include <errno.h>

#define FINISH_AT_ONCE 2u
#define FINISH_WAITING 1024u
#define FINISH_PARALLEL 2u
#define SEQUENTIAL_BYTES (UINT64_C(4) << 20) /* so much from its start in one piece: it was being read through */

struct cst_finish {
	struct cst_cache *cache;
	struct cst_cache_object *o;
	struct cst_fetch_object *data;
	struct cst_fetch_fill fill;
	struct cst_ref ref; /* its turn, and whoever starts or cancels it */
	bool started;	    /* under cst_cache.lock */
	TAILQ_ENTRY(cst_finish) link;
};

/* A quarter of it is there, or its start in one piece, and this session had a part in that. */
static bool is_worth_it(struct cst_cache_object *o)
{
	uint64_t present = 0, run = 0, from_start = 0;
	pthread_mutex_lock(&o->lock);
	bool open = o->touched > 0 && o->id.size > CST_SLOT_MAX && cst_now() >= o->refused_until;
	for (uint64_t b = 0; open && b < o->blocks; b += run) {
		run = 1;
		if (!cst_object_find_locked(o, b, o->blocks - b, &run))
			continue;
		present += run;
		if (from_start == b)
			from_start = b + run;
	}
	pthread_mutex_unlock(&o->lock);
	bool fits = false;
	for (unsigned i = 0; i < o->cache->level_count; i++) {
		struct cst_cache_volume *v = cst_level_choose(&o->cache->levels[i], o->id.name);
		fits = fits || (v && cst_cache_volume_holds(v, o->id.size));
	}
	return open && fits && present < o->blocks &&
	       (present * 4 >= o->blocks || from_start * CST_CACHE_BLOCK >= SEQUENTIAL_BYTES);
}

static void finish_put(struct cst_finish *f)
{
	if (cst_ref_put(&f->ref))
		free(f);
}

static void finish_next(struct cst_cache *cache);

static void finish_end(void *arg)
{
	struct cst_finish *f = arg;
	struct cst_cache *cache = f->cache;
	cst_fetch_object_unref(f->data);
	pthread_mutex_lock(&cache->lock);
	f->o->finishing = false;
	pthread_mutex_unlock(&cache->lock);
	cst_cache_object_unref(f->o);
	pthread_mutex_lock(&cache->lock);
	TAILQ_REMOVE(&cache->finish_running, f, link);
	cache->finish_active--;
	cache->finish_count--;
	bool stopping = cache->stopping;
	pthread_cond_broadcast(&cache->quiet);
	pthread_mutex_unlock(&cache->lock);
	finish_put(f);
	/* Once it is stopping, the cache may be gone by now. */
	if (!stopping)
		finish_next(cache);
}

static void filled(struct cst_fetch_fill *fill, int rc, const struct cst_error *err)
{
	struct cst_finish *f = fill->arg;
	(void)err;
	cst_log_debug("%.*s: rest fetched into the cache: %s, %llu bytes", (int)cst_min(f->o->id.key.len, (size_t)512),
		      f->o->id.key.data, rc == 0 ? "complete" : strerror(-rc),
		      (unsigned long long)__atomic_load_n(&fill->bytes_saved, __ATOMIC_RELAXED));
	/* Not here: giving up the data may end what just called us. */
	cst_pool_submit(f->cache->background, finish_end, f);
}

static void finish_next(struct cst_cache *cache)
{
	for (;;) {
		pthread_mutex_lock(&cache->lock);
		bool due = !cache->stopping && cache->finish_active < FINISH_AT_ONCE;
		struct cst_finish *f = due ? TAILQ_FIRST(&cache->finish_waiting) : NULL;
		if (f) {
			TAILQ_REMOVE(&cache->finish_waiting, f, link);
			TAILQ_INSERT_TAIL(&cache->finish_running, f, link);
			cache->finish_active++;
			cst_ref_get(&f->ref);
		}
		pthread_mutex_unlock(&cache->lock);
		if (!f)
			return;
		cst_fetch_fill(f->data, &f->fill);
		/* A stop that came before the fill had begun could not cancel it. */
		pthread_mutex_lock(&cache->lock);
		f->started = true;
		bool stopping = cache->stopping;
		pthread_mutex_unlock(&cache->lock);
		if (stopping)
			cst_fetch_fill_cancel(&f->fill);
		finish_put(f);
	}
}

void cst_cache_object_finish(struct cst_cache_object *o, struct cst_fetch_object *data)
{
	CST_CHECK(o, CST_CACHE_OBJECT_MAGIC);
	struct cst_cache *cache = o->cache;
	if (!cache->finish_partial || cache->policy == CST_CACHE_STREAM || cst_fetch_object_is_stale(data) ||
	    !is_worth_it(o))
		return;
	struct cst_finish *f = CST_NEW(struct cst_finish);
	*f = (struct cst_finish){.ref = {1}, .cache = cache, .o = o, .data = data};
	/* Named, since the data may be bound to nothing by the time its turn comes. */
	f->fill = (struct cst_fetch_fill){.length = UINT64_MAX,
					  .parallel = FINISH_PARALLEL,
					  .local = cst_cache_object_local(o),
					  .done = filled,
					  .arg = f};
	pthread_mutex_lock(&cache->lock);
	bool wanted = !cache->stopping && !o->finishing && cache->finish_count < FINISH_WAITING;
	if (wanted) {
		o->finishing = true;
		cst_cache_object_hold(o);
		cst_fetch_object_ref(data);
		TAILQ_INSERT_TAIL(&cache->finish_waiting, f, link);
		cache->finish_count++;
	}
	pthread_mutex_unlock(&cache->lock);
	if (wanted)
		finish_next(cache);
	else
		free(f);
}

void cst_finish_cancel_all(struct cst_cache *cache)
{
	struct cst_finish *f, *running[FINISH_AT_ONCE];
	unsigned count = 0;
	struct cst_finish_list waiting = TAILQ_HEAD_INITIALIZER(waiting);
	pthread_mutex_lock(&cache->lock);
	TAILQ_CONCAT(&waiting, &cache->finish_waiting, link);
	TAILQ_FOREACH (f, &cache->finish_running, link) {
		if (f->started) {
			cst_ref_get(&f->ref);
			running[count++] = f;
		}
	}
	pthread_mutex_unlock(&cache->lock);
	for (unsigned i = 0; i < count; i++) {
		cst_fetch_fill_cancel(&running[i]->fill);
		finish_put(running[i]);
	}
	while ((f = TAILQ_FIRST(&waiting))) {
		TAILQ_REMOVE(&waiting, f, link);
		cst_fetch_object_unref(f->data);
		cst_cache_object_unref(f->o);
		finish_put(f);
		pthread_mutex_lock(&cache->lock);
		cache->finish_count--;
		pthread_mutex_unlock(&cache->lock);
	}
	pthread_mutex_lock(&cache->lock);
	while (cache->finish_count > 0)
		pthread_cond_wait(&cache->quiet, &cache->lock);
	pthread_mutex_unlock(&cache->lock);
}
