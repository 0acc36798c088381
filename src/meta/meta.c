/* The context of a mount's metadata: operations under way, the limit on HEADs, the memory of listings. */
#include "meta/internal.h"

#include "meta/preload.h"

#define HEADS_MAX 112 /* of which the bucket lets 64 go at once, and more when some stall */
#define LOOKUP_PAGES 12
#define MISS_WINDOW (30 * CST_NS_PER_S)
#define LISTING_BYTES (UINT64_C(64) << 20)

struct cst_meta *cst_meta_new(const struct cst_meta_config *config)
{
	struct cst_meta *meta = CST_NEW(struct cst_meta);
	pthread_mutexattr_t recursive;
	meta->magic = CST_META_MAGIC;
	meta->config = *config;
	if (!meta->config.miss_window)
		meta->config.miss_window = MISS_WINDOW;
	if (!meta->config.heads_max)
		meta->config.heads_max = HEADS_MAX;
	if (!meta->config.lookup_pages)
		meta->config.lookup_pages = LOOKUP_PAGES;
	if (!meta->config.listing_bytes)
		meta->config.listing_bytes = LISTING_BYTES;
	if (!meta->config.clock)
		meta->config.clock = cst_now;
	pthread_mutexattr_init(&recursive);
	pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&meta->lock, &recursive);
	pthread_mutexattr_destroy(&recursive);
	pthread_cond_init(&meta->idle, NULL);
	TAILQ_INIT(&meta->ops);
	STAILQ_INIT(&meta->queue);
	TAILQ_INIT(&meta->lru);
	cst_preloads_init(meta);
	return meta;
}

int64_t cst_meta_now(const struct cst_meta *meta)
{
	return meta->config.clock();
}

bool cst_meta_is_stopping(struct cst_meta *meta)
{
	return __atomic_load_n(&meta->stopping, __ATOMIC_ACQUIRE);
}

void cst_meta_op_begin(struct cst_meta *meta, struct cst_meta_op *op)
{
	*op = (struct cst_meta_op){.meta = meta};
	pthread_mutex_lock(&meta->lock);
	TAILQ_INSERT_TAIL(&meta->ops, op, link);
	pthread_mutex_unlock(&meta->lock);
}

static void op_remove_locked(struct cst_meta_op *op)
{
	struct cst_meta *meta = op->meta;
	TAILQ_REMOVE(&meta->ops, op, link);
	if (TAILQ_EMPTY(&meta->ops))
		pthread_cond_broadcast(&meta->idle);
}

bool cst_meta_op_started(struct cst_meta_op *op, struct cst_object_op *object_op)
{
	struct cst_meta *meta = op->meta;
	pthread_mutex_lock(&meta->lock);
	bool finished = op->finished;
	op->op = object_op;
	if (finished)
		op_remove_locked(op);
	else if (meta->stopping) /* began before stop looked through the list */
		cst_object_cancel(object_op);
	pthread_mutex_unlock(&meta->lock);
	if (finished)
		cst_object_release(object_op);
	return !finished;
}

bool cst_meta_op_end(struct cst_meta_op *op)
{
	struct cst_meta *meta = op->meta;
	pthread_mutex_lock(&meta->lock);
	struct cst_object_op *object_op = op->op;
	if (object_op)
		op_remove_locked(op);
	else
		op->finished = true;
	pthread_mutex_unlock(&meta->lock);
	if (object_op)
		cst_object_release(object_op);
	return object_op != NULL;
}

static void head_start(struct head_job *job);

static void head_job_free(struct head_job *job)
{
	free(job->key);
	free(job);
}

static struct head_job *next_job(struct cst_meta *meta)
{
	pthread_mutex_lock(&meta->lock);
	struct head_job *job = STAILQ_FIRST(&meta->queue);
	if (job)
		STAILQ_REMOVE_HEAD(&meta->queue, link); /* takes over the place of the one that ended */
	else
		meta->heads_running--;
	pthread_mutex_unlock(&meta->lock);
	return job;
}

static void head_done(void *arg, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct head_job *job = arg;
	struct cst_meta *meta = job->op.meta;
	struct head_job *next = next_job(meta);
	if (next)
		head_start(next);
	job->fn(job->arg, rc, info, err);
	if (cst_meta_op_end(&job->op))
		head_job_free(job);
}

static void head_start(struct head_job *job)
{
	struct cst_meta *meta = job->op.meta;
	struct cst_object_op *op = cst_object_head(meta->config.bucket, (struct cst_slice){job->key, job->key_len},
						   job->light, head_done, job);
	if (!cst_meta_op_started(&job->op, op))
		head_job_free(job);
}

void cst_meta_head(struct cst_meta *meta, struct cst_slice key, bool light, cst_object_head_fn fn, void *arg)
{
	struct head_job *job = CST_NEW(struct head_job);
	job->key = cst_xstrndup(key.data, key.len);
	job->key_len = key.len;
	job->light = light;
	job->fn = fn;
	job->arg = arg;
	cst_meta_op_begin(meta, &job->op);
	pthread_mutex_lock(&meta->lock);
	bool now = meta->heads_running < meta->config.heads_max;
	meta->heads++;
	if (now)
		meta->heads_running++;
	else
		STAILQ_INSERT_TAIL(&meta->queue, job, link);
	pthread_mutex_unlock(&meta->lock);
	if (now)
		head_start(job);
}

void cst_meta_cancel(struct cst_meta *meta, const void *owner)
{
	struct cst_meta_op *op;
	pthread_mutex_lock(&meta->lock);
again:
	TAILQ_FOREACH (op, &meta->ops, link) {
		if (op->owner != owner || !op->op || op->cancelled)
			continue;
		op->cancelled = true;
		cst_object_cancel(op->op);
		goto again; /* the list may have changed */
	}
	pthread_mutex_unlock(&meta->lock);
}

void cst_meta_stop(struct cst_meta *meta)
{
	struct cst_meta_op *op;
	CST_CHECK(meta, CST_META_MAGIC);
	cst_preloads_stop(meta);
	pthread_mutex_lock(&meta->lock);
	__atomic_store_n(&meta->stopping, true, __ATOMIC_RELEASE);
	/* What waits in the queue is started as the others end; cst_meta_op_started() then cancels it. */
again:
	TAILQ_FOREACH (op, &meta->ops, link) {
		if (!op->op || op->cancelled)
			continue;
		op->cancelled = true;
		cst_object_cancel(op->op);
		goto again; /* the list may have changed */
	}
	while (!TAILQ_EMPTY(&meta->ops))
		pthread_cond_wait(&meta->idle, &meta->lock);
	pthread_mutex_unlock(&meta->lock);
	cst_parked_drop(meta, CST_SLICE(""));
}

void cst_meta_free(struct cst_meta *meta)
{
	if (!meta)
		return;
	CST_CHECK(meta, CST_META_MAGIC);
	CST_ASSERT(TAILQ_EMPTY(&meta->ops) && TAILQ_EMPTY(&meta->lru));
	cst_preloads_fini(meta);
	meta->magic = 0;
	pthread_cond_destroy(&meta->idle);
	pthread_mutex_destroy(&meta->lock);
	free(meta);
}

static bool is_over_locked(const struct cst_meta *meta)
{
	return meta->lru_bytes > meta->config.listing_bytes ||
	       (meta->config.listing_names > 0 && meta->lru_names > meta->config.listing_names);
}

void cst_meta_touch(struct cst_meta *meta, struct cst_listing *listing, uint64_t bytes, uint64_t names)
{
	pthread_mutex_lock(&meta->lock);
	if (listing->in_lru) {
		TAILQ_REMOVE(&meta->lru, listing, lru);
		TAILQ_INSERT_TAIL(&meta->lru, listing, lru);
		meta->lru_bytes += bytes - listing->lru_bytes;
		listing->lru_bytes = bytes;
		meta->lru_names += names - listing->lru_names;
		listing->lru_names = names;
	}
	/* One that has answered since it was looked at last gets a second chance. Each round looks at another one, so listings in use don't
	 * make it endless. */
	for (uint64_t rounds = 2 * meta->lru_count; rounds > 0 && is_over_locked(meta); rounds--) {
		struct cst_listing *oldest = TAILQ_FIRST(&meta->lru);
		struct cst_dir *dir = NULL;
		if (!oldest)
			break;
		/* The one that grows stays, even when it is over the limit alone: it would be listed again for the next name. */
		if (oldest != listing && !__atomic_exchange_n(&oldest->used, false, __ATOMIC_RELAXED))
			dir = cst_dir_try_ref(oldest->dir);
		TAILQ_REMOVE(&meta->lru, oldest, lru);
		TAILQ_INSERT_TAIL(&meta->lru, oldest, lru);
		if (!dir)
			continue;
		pthread_mutex_unlock(&meta->lock);
		if (cst_dir_drop_listing(dir, oldest))
			cst_parked_forget(dir);
		cst_dir_unref(dir);
		pthread_mutex_lock(&meta->lock);
	}
	pthread_mutex_unlock(&meta->lock);
}

/* A directory's lock may be held. */
void cst_meta_untrack(struct cst_meta *meta, struct cst_listing *listing)
{
	pthread_mutex_lock(&meta->lock);
	if (listing->in_lru) {
		TAILQ_REMOVE(&meta->lru, listing, lru);
		listing->in_lru = false;
		meta->lru_count--;
		meta->lru_bytes -= listing->lru_bytes;
		meta->lru_names -= listing->lru_names;
	}
	pthread_mutex_unlock(&meta->lock);
}

void cst_meta_stats(struct cst_meta *meta, struct cst_meta_stats *stats)
{
	pthread_mutex_lock(&meta->lock);
	*stats = (struct cst_meta_stats){meta->heads, meta->lists, meta->lru_count, meta->lru_bytes, meta->lru_names};
	pthread_mutex_unlock(&meta->lock);
}
