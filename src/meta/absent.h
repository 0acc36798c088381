/* Names of which a request has told that they don't exist, for as long as `ttl` says (oss_negative_cache_timeout) and at most `max` of them
 * (oss_negative_cache_size; those remembered for longest go first). Listings answer for their own names before and besides this.
 *
 * A cst_absent belongs to one file system. Any thread; one mutex, held for a search in a hash table. Nothing is allocated or locked while
 * the ttl is 0. Whoever learns of a name that it exists drops it here, so this never contradicts what was shown later. */
#pragma once

#include "base/buf.h"

struct cst_absent;
struct cst_absent *cst_absent_new(int64_t ttl, uint64_t max); /* ns; NULL: ttl or max is 0 */
void cst_absent_free(struct cst_absent *a);		      /* NULL is allowed here and below */

/* `dir` is the directory's key prefix ("" or with its slash); `at` is when the store was asked. */
void cst_absent_add(struct cst_absent *a, struct cst_slice dir, const char *name, int64_t at);
/* Is the name remembered, and for less than the ttl? *at: when the store was asked. */
bool cst_absent_find(struct cst_absent *a, struct cst_slice dir, const char *name, int64_t now, int64_t *at);
void cst_absent_drop(struct cst_absent *a, struct cst_slice dir, const char *name);
/* Forgets all names whose key begins with `prefix`; all for "". */
void cst_absent_clear(struct cst_absent *a, struct cst_slice prefix);
uint64_t cst_absent_count(struct cst_absent *a);
