#include "cache/cache.h"

/* A cache without levels keeps nothing. */
struct cst_cache {
	unsigned level_count;
};

int cst_cache_level_parse(const char *text, struct cst_cache_level *level, struct cst_error *err)
{
	(void)level;
	return cst_error_set(err, 22, "\"%s\" is not a cache level", text);
}

int cst_cache_dir_parse(const char *text, struct cst_cache_level *level, struct cst_error *err)
{
	(void)level;
	return cst_error_set(err, 22, "\"%s\" is not a cache directory", text);
}

void cst_cache_level_fini(struct cst_cache_level *level)
{
	for (unsigned i = 0; i < level->path_count; i++)
		free(level->paths[i].path);
	level->path_count = 0;
}

struct cst_cache *cst_cache_new(const struct cst_cache_config *config, struct cst_error *err)
{
	(void)config;
	(void)err;
	return CST_NEW(struct cst_cache);
}

void cst_cache_stop(struct cst_cache *cache)
{
	(void)cache;
}

void cst_cache_free(struct cst_cache *cache)
{
	free(cache);
}

void cst_cache_open(struct cst_cache *cache, struct cst_slice key, const char *etag, uint64_t size,
		    cst_cache_open_fn fn, void *arg)
{
	(void)cache;
	(void)key;
	(void)etag;
	(void)size;
	fn(arg, NULL);
}

struct cst_cache_object *cst_cache_object_ref(struct cst_cache_object *o)
{
	return o;
}

void cst_cache_object_unref(struct cst_cache_object *o)
{
	(void)o;
}

struct cst_fetch_local *cst_cache_object_local(struct cst_cache_object *o)
{
	(void)o;
	return NULL;
}

int cst_cache_object_file(struct cst_cache_object *o)
{
	(void)o;
	return -1;
}

void cst_cache_object_finish(struct cst_cache_object *o, struct cst_fetch_object *data)
{
	(void)o;
	(void)data;
}

uint64_t cst_cache_object_cached(const struct cst_cache_object *o)
{
	(void)o;
	return 0;
}

void cst_cache_stats(struct cst_cache *cache, struct cst_cache_stats *stats)
{
	(void)cache;
	*stats = (struct cst_cache_stats){0};
}

int cst_cache_list(struct cst_cache *cache, const char *prefix, bool (*fn)(void *arg, const struct cst_cache_entry *e),
		   void *arg, struct cst_error *err)
{
	(void)cache;
	(void)prefix;
	(void)fn;
	(void)arg;
	(void)err;
	return 0;
}

int64_t cst_cache_drop(struct cst_cache *cache, const char *prefix, struct cst_error *err)
{
	(void)cache;
	(void)prefix;
	(void)err;
	return 0;
}

int64_t cst_cache_pin(struct cst_cache *cache, const char *prefix, bool pin, struct cst_error *err)
{
	(void)cache;
	(void)prefix;
	(void)pin;
	(void)err;
	return 0;
}

int cst_cache_verify(struct cst_cache *cache, const char *prefix, uint64_t rate,
		     void (*bad)(void *arg, const struct cst_cache_entry *e, uint64_t block), void *arg,
		     struct cst_cache_verify *result, struct cst_error *err)
{
	(void)cache;
	(void)prefix;
	(void)rate;
	(void)bad;
	(void)arg;
	(void)err;
	*result = (struct cst_cache_verify){0};
	return 0;
}
