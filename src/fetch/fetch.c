#define CST_LOG_AREA "fetch"
#include "fetch/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"

#include <errno.h>
#include <string.h>

#define MEMORY_FLOOR (UINT64_C(64) << 20)
#define KEEP_UNREAD (60 * CST_NS_PER_S)
#define CALM_RANGE (5 * CST_NS_PER_S / 2)

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
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->drained, NULL);
	TAILQ_INIT(&f->waiting);
	if (arena_init(f, err) < 0) {
		pthread_cond_destroy(&f->drained);
		pthread_mutex_destroy(&f->lock);
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
	while (f->objects)
		pthread_cond_wait(&f->drained, &f->lock);
	pthread_mutex_unlock(&f->lock);
	CST_ASSERT(f->ranges == 0 && f->waiting_count == 0);
	f->magic = 0;
	arena_fini(f);
	pthread_cond_destroy(&f->drained);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

struct cst_fetch_object *cst_fetch_object_new(struct cst_fetch *f, struct cst_slice key, const char *etag,
					      uint64_t size)
{
	CST_CHECK(f, FETCH_MAGIC);
	struct cst_fetch_object *o = CST_NEW(struct cst_fetch_object);
	o->magic = OBJECT_MAGIC;
	o->fetch = f;
	cst_ref_init(&o->ref);
	o->users = 1;
	o->key = cst_xstrndup(key.data, key.len);
	o->key_len = key.len;
	snprintf(o->etag, sizeof(o->etag), "%s", etag ? etag : "");
	o->size = size;
	TAILQ_INIT(&o->blocks);
	TAILQ_INIT(&o->ranges);
	pthread_mutex_lock(&f->lock);
	f->objects++;
	pthread_mutex_unlock(&f->lock);
	return o;
}

struct cst_fetch_object *cst_fetch_object_ref(struct cst_fetch_object *o)
{
	CST_CHECK(o, OBJECT_MAGIC);
	pthread_mutex_lock(&o->fetch->lock);
	CST_ASSERT(o->users > 0);
	o->users++;
	pthread_mutex_unlock(&o->fetch->lock);
	return o;
}

void object_put(struct cst_fetch_object *o)
{
	if (!cst_ref_put(&o->ref))
		return;
	struct cst_fetch *f = o->fetch;
	CST_ASSERT(TAILQ_EMPTY(&o->blocks) && TAILQ_EMPTY(&o->ranges));
	if (o->local)
		o->local->ops->unref(o->local);
	o->magic = 0;
	free(o->key);
	free(o);
	pthread_mutex_lock(&f->lock);
	if (--f->objects == 0)
		pthread_cond_broadcast(&f->drained);
	pthread_mutex_unlock(&f->lock);
}

/* Nobody will want the bytes: frees the blocks at rest and cancels the GETs under way, whose blocks follow. */
static void abandon(struct cst_fetch_object *o)
{
	struct cst_fetch *f = o->fetch;
	struct cst_fetch_block *b, *next;
	struct todo todo;
	todo_init(&todo);
	pthread_mutex_lock(&f->lock);
	for (b = TAILQ_FIRST(&o->blocks); b; b = next) {
		next = TAILQ_NEXT(b, sibling);
		if (b->state == BLOCK_READY)
			block_free_locked(f, b);
	}
	struct range *ranges[16], *r;
	bool more;
	do {
		unsigned count = 0;
		TAILQ_FOREACH (r, &o->ranges, sibling) {
			if (r->op && !r->cancelled && count < CST_ARRAY_LEN(ranges)) {
				r->cancelled = true;
				cst_ref_get(&r->ref);
				ranges[count++] = r;
			}
		}
		more = count == CST_ARRAY_LEN(ranges);
		pthread_mutex_unlock(&f->lock);
		for (unsigned i = 0; i < count; i++) {
			cst_object_cancel(ranges[i]->op);
			range_put(ranges[i]);
		}
		pthread_mutex_lock(&f->lock);
	} while (more);
	waiting_pump_locked(f, &todo);
	pthread_mutex_unlock(&f->lock);
	todo_run(&todo);
}

void cst_fetch_object_unref(struct cst_fetch_object *o)
{
	if (!o)
		return;
	CST_CHECK(o, OBJECT_MAGIC);
	pthread_mutex_lock(&o->fetch->lock);
	CST_ASSERT(o->users > 0);
	bool last = --o->users == 0;
	pthread_mutex_unlock(&o->fetch->lock);
	if (last) {
		abandon(o);
		object_put(o);
	}
}

void cst_fetch_object_set_local(struct cst_fetch_object *o, struct cst_fetch_local *local)
{
	CST_CHECK(o, OBJECT_MAGIC);
	if (local)
		local->ops->ref(local);
	pthread_mutex_lock(&o->fetch->lock);
	struct cst_fetch_local *old = o->local;
	o->local = local;
	pthread_mutex_unlock(&o->fetch->lock);
	if (old)
		old->ops->unref(old);
}

bool cst_fetch_object_prefetch(struct cst_fetch_object *o)
{
	CST_CHECK(o, OBJECT_MAGIC);
	struct cst_fetch *f = o->fetch;
	struct todo todo;
	todo_init(&todo);
	pthread_mutex_lock(&f->lock);
	bool made = object_prefetch_locked(o, &todo);
	pthread_mutex_unlock(&f->lock);
	todo_run(&todo);
	return made;
}

/* Nothing is filled yet: the cache gets what is read. */
void cst_fetch_fill(struct cst_fetch_object *o, struct cst_fetch_fill *fill)
{
	CST_CHECK(o, OBJECT_MAGIC);
	struct cst_error err = CST_ERROR_INIT;
	cst_error_set(&err, ENOSPC, "can't load %.*s", (int)cst_min(o->key_len, (size_t)160), o->key);
	cst_error_why(&err, "the cache took no more");
	fill->done(fill, -ENOSPC, &err);
}

void cst_fetch_fill_cancel(struct cst_fetch_fill *fill)
{
	(void)fill;
}

bool cst_fetch_object_is_stale(const struct cst_fetch_object *o)
{
	CST_CHECK(o, OBJECT_MAGIC);
	pthread_mutex_lock(&o->fetch->lock);
	bool stale = o->stale;
	pthread_mutex_unlock(&o->fetch->lock);
	return stale;
}

void cst_fetch_stats(struct cst_fetch *f, struct cst_fetch_stats *stats)
{
	CST_CHECK(f, FETCH_MAGIC);
	pthread_mutex_lock(&f->lock);
	*stats = f->stats;
	stats->memory_limit = (uint64_t)f->block_count * BLOCK_SIZE;
	stats->memory_used = (uint64_t)(f->block_count - f->free_count) * BLOCK_SIZE;
	stats->memory_peak = (uint64_t)f->block_peak * BLOCK_SIZE;
	stats->requests_in_flight = f->ranges;
	stats->reads_waiting = f->waiting_count;
	pthread_mutex_unlock(&f->lock);
}
