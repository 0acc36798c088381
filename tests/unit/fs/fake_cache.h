/* A cache in memory behind the functions of cache.h that the file system uses: a test says which versions it has, whole or not, and can hold
 * its answers back. Objects count their references; fake_cache_free() checks that none is left. */
#pragma once

#include "cache/cache.h"

struct cst_cache *fake_cache_new(void);
void fake_cache_free(struct cst_cache *cache);
/* The version is there whole, in a file of its own (`fd` ≥ 0, stays the caller's) or in a slab (−1). */
void fake_cache_complete(struct cst_cache *cache, const char *key, const char *etag, int fd);
/* Whatever isn't there is not wanted either. */
void fake_cache_refuse(struct cst_cache *cache, bool refuse);
/* Answers wait from now on; false: those that wait come now, on this thread. */
void fake_cache_hold(struct cst_cache *cache, bool hold);

/* Called by cst_cache_object_finish(), which may run others' callbacks. NULL: none. */
void fake_cache_on_finish(struct cst_cache *cache, void (*fn)(void *arg), void *arg);

struct fake_cache_counts {
	unsigned opens, finished; /* calls */
	unsigned held, objects;	  /* now */
};
struct fake_cache_counts fake_cache_counts(struct cst_cache *cache);
