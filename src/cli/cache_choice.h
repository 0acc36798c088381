/* Which cache levels an option set asks for (cache_options.def), and opening them. Shared by mount, load and cache. Used by the command's
 * main thread. */
#pragma once

#include "cache/cache.h"

struct cst_mount_options;

struct cst_cache_choice {
	struct cst_cache_level levels[CST_CACHE_LEVELS]; /* paths absolute, so that a daemon may change its directory */
	unsigned level_count;				 /* 0: no cache was asked for */
	uint64_t keep_free;				 /* bytes; 0: the cache's default */
};
/* -EINVAL with err. */
int cst_cache_choice_resolve(struct cst_cache_choice *choice, const struct cst_mount_options *o, struct cst_error *err);
void cst_cache_choice_fini(struct cst_cache_choice *choice);
/* "no cache was named", with the options that name one. -EINVAL. */
int cst_cache_choice_none(struct cst_error *err);
/* Blocks. bucket: "oss://NAME", or "" for all of them (administration). o: for cache_finish and memory. */
struct cst_cache *cst_cache_choice_open(const struct cst_cache_choice *choice, const char *bucket,
					enum cst_cache_policy policy, const struct cst_mount_options *o,
					struct cst_error *err);
/* "MEM /dev/shm/c (2.00GiB), HDD /data/c (1.00TiB)" of what is open. */
void cst_cache_describe(struct cst_cache *cache, struct cst_buf *out);
const char *cst_cli_medium_name(enum cst_cache_medium medium);
/* Descriptors are what open cache files cost: raises the limit of the process to what it may have. */
void cst_cli_raise_nofile(void);
