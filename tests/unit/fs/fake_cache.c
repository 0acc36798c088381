#include "fake_cache.h"

#include <pthread.h>
#include <sys/queue.h>

struct version {
	LIST_ENTRY(version) link;
	char *key, *etag;
	int fd;
};

struct request {
	TAILQ_ENTRY(request) link;
	cst_cache_open_fn fn;
	void *arg;
	struct cst_cache_object *object;
};

struct cst_cache {
	pthread_mutex_t lock;
	LIST_HEAD(, version) versions;
	TAILQ_HEAD(, request) requests;
	bool hold, refuse;
	struct fake_cache_counts counts;
	void (*on_finish)(void *arg);
	void *on_finish_arg;
};

struct cst_cache_object {
	struct cst_fetch_local local; /* first */
	struct cst_ref ref;
	struct cst_cache *cache;
	char *key, *etag;
	uint64_t size;
};

static void local_ref(struct cst_fetch_local *l)
{
	cst_cache_object_ref((struct cst_cache_object *)l);
}

static void local_unref(struct cst_fetch_local *l)
{
	cst_cache_object_unref((struct cst_cache_object *)l);
}

static const struct cst_fetch_local_ops local_ops = {.ref = local_ref, .unref = local_unref};

struct cst_cache *fake_cache_new(void)
{
	struct cst_cache *cache = CST_NEW(struct cst_cache);
	pthread_mutex_init(&cache->lock, NULL);
	TAILQ_INIT(&cache->requests);
	return cache;
}

void fake_cache_free(struct cst_cache *cache)
{
	struct version *v;
	CST_ASSERT(cache->counts.objects == 0 && cache->counts.held == 0);
	while ((v = LIST_FIRST(&cache->versions)) != NULL) {
		LIST_REMOVE(v, link);
		free(v->key);
		free(v->etag);
		free(v);
	}
	pthread_mutex_destroy(&cache->lock);
	free(cache);
}

static struct version *find_locked(const struct cst_cache *cache, const char *key, const char *etag)
{
	struct version *v;
	LIST_FOREACH (v, &cache->versions, link)
		if (strcmp(v->key, key) == 0 && strcmp(v->etag, etag) == 0)
			return v;
	return NULL;
}

void fake_cache_complete(struct cst_cache *cache, const char *key, const char *etag, int fd)
{
	pthread_mutex_lock(&cache->lock);
	struct version *v = find_locked(cache, key, etag);
	if (!v) {
		v = CST_NEW(struct version);
		v->key = cst_xstrdup(key);
		v->etag = cst_xstrdup(etag);
		LIST_INSERT_HEAD(&cache->versions, v, link);
	}
	v->fd = fd;
	pthread_mutex_unlock(&cache->lock);
}

void fake_cache_refuse(struct cst_cache *cache, bool refuse)
{
	cache->refuse = refuse;
}

void fake_cache_hold(struct cst_cache *cache, bool hold)
{
	struct request *r;
	pthread_mutex_lock(&cache->lock);
	cache->hold = hold;
	while (!hold && (r = TAILQ_FIRST(&cache->requests)) != NULL) {
		TAILQ_REMOVE(&cache->requests, r, link);
		cache->counts.held--;
		pthread_mutex_unlock(&cache->lock);
		r->fn(r->arg, r->object);
		free(r);
		pthread_mutex_lock(&cache->lock);
	}
	pthread_mutex_unlock(&cache->lock);
}

struct fake_cache_counts fake_cache_counts(struct cst_cache *cache)
{
	pthread_mutex_lock(&cache->lock);
	struct fake_cache_counts counts = cache->counts;
	pthread_mutex_unlock(&cache->lock);
	return counts;
}

void cst_cache_open(struct cst_cache *cache, struct cst_slice key, const char *etag, uint64_t size,
		    cst_cache_open_fn fn, void *arg)
{
	char *text = cst_xstrndup(key.data, key.len);
	struct cst_cache_object *o = NULL;
	struct request *r = NULL;
	pthread_mutex_lock(&cache->lock);
	cache->counts.opens++;
	if (find_locked(cache, text, etag) || !cache->refuse) {
		o = CST_NEW(struct cst_cache_object);
		o->local.ops = &local_ops;
		cst_ref_init(&o->ref);
		o->cache = cache;
		o->key = cst_xstrdup(text);
		o->etag = cst_xstrdup(etag);
		o->size = size;
		cache->counts.objects++;
	}
	if (cache->hold) {
		r = CST_NEW(struct request);
		*r = (struct request){.fn = fn, .arg = arg, .object = o};
		TAILQ_INSERT_TAIL(&cache->requests, r, link);
		cache->counts.held++;
	}
	pthread_mutex_unlock(&cache->lock);
	free(text);
	if (!r)
		fn(arg, o);
}

struct cst_cache_object *cst_cache_object_ref(struct cst_cache_object *o)
{
	cst_ref_get(&o->ref);
	return o;
}

void cst_cache_object_unref(struct cst_cache_object *o)
{
	if (!cst_ref_put(&o->ref))
		return;
	pthread_mutex_lock(&o->cache->lock);
	o->cache->counts.objects--;
	pthread_mutex_unlock(&o->cache->lock);
	free(o->key);
	free(o->etag);
	free(o);
}

struct cst_fetch_local *cst_cache_object_local(struct cst_cache_object *o)
{
	return &o->local;
}

int cst_cache_object_file(struct cst_cache_object *o)
{
	pthread_mutex_lock(&o->cache->lock);
	const struct version *v = find_locked(o->cache, o->key, o->etag);
	int fd = v ? v->fd : -1;
	pthread_mutex_unlock(&o->cache->lock);
	return fd;
}

void cst_cache_object_finish(struct cst_cache_object *o, struct cst_fetch_object *data)
{
	(void)data;
	pthread_mutex_lock(&o->cache->lock);
	o->cache->counts.finished++;
	pthread_mutex_unlock(&o->cache->lock);
	if (o->cache->on_finish)
		o->cache->on_finish(o->cache->on_finish_arg);
}

void fake_cache_on_finish(struct cst_cache *cache, void (*fn)(void *arg), void *arg)
{
	cache->on_finish = fn;
	cache->on_finish_arg = arg;
}

uint64_t cst_cache_object_cached(const struct cst_cache_object *o)
{
	pthread_mutex_lock(&o->cache->lock);
	bool whole = find_locked(o->cache, o->key, o->etag) != NULL;
	pthread_mutex_unlock(&o->cache->lock);
	return whole ? o->size : 0;
}
