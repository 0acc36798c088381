/* For the tests of the tiered cache: directories of their own on tmpfs, objects whose bytes follow from key and offset, and calls that wait
 * for their callbacks. */
#pragma once

#include "cache/cache_private.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#define KIB UINT64_C(1024)
#define MIB (KIB * KIB)
#define BLOCK ((uint64_t)CST_CACHE_BLOCK)

/* A private directory that fixture_end() removes; both are a setup and a teardown of cmocka, which look at no state. */
extern char fixture_dir[64];
int fixture_begin(void **state);
int fixture_end(void **state);

/* "%s" stands for fixture_dir. */
struct cst_cache *cache_make(enum cst_cache_policy policy, const char *level0, const char *level1);
struct cst_cache_object *object_open(struct cst_cache *cache, const char *key, const char *etag,
				     uint64_t size); /* may be NULL */
void settle(struct cst_cache_object *o);
/* Gives up the object, and waits until its files are closed. */
void object_close(struct cst_cache_object *o);

/* Waits until no object is in use any more, by callbacks on their way back either. */
void cache_quiet(struct cst_cache *cache);

void bytes_make(const char *key, uint64_t offset, char *to, size_t len);
/* Saves blocks [first, first + count) of the object as src/fetch would; 1: refused, else rc. */
int save_blocks(struct cst_cache_object *o, uint64_t first, uint64_t count, bool must);
int save_all(struct cst_cache_object *o);
/* Reads and compares. rc. */
int read_blocks_of(struct cst_cache_object *o, uint64_t first, uint64_t count);
int read_all_of(struct cst_cache_object *o);
bool is_there(struct cst_cache_object *o, uint64_t block);
/* Opens it; reads it all when it is cached, else saves it all; closes it. True: it was cached. */
bool use(struct cst_cache *cache, const char *key, const char *etag, uint64_t size);
bool is_cached(struct cst_cache *cache, const char *key, const char *etag, uint64_t size);
struct cst_cache_level_stats level_stats_of(struct cst_cache *cache, unsigned level);
/* Until it is so, or 30 s have passed. */
bool eventually(bool (*fn)(void *arg), void *arg);
/* All files below a directory whose name ends so; fn gets a descriptor open for writing. */
unsigned each_file(const char *dir, const char *suffix, void (*fn)(int fd));
