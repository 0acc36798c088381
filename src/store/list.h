/* Listings: the keys of a bucket in byte order from any point, without reading more than the page needs. Directories on
 * the way are seen through sorted pictures (scan.h); a common prefix that is a directory is asked only whether anything
 * is in it. Any thread. */
#pragma once

#include "store/backend.h"

struct cst_list_query {
	struct cst_slice prefix, delimiter;
	/* Begin behind this key (or, with after_prefix, behind all that begins with it); "": at the start. */
	struct cst_slice after;
	bool after_prefix;
	unsigned max;
};
struct cst_list_item {
	struct cst_slice key; /* or a common prefix */
	bool is_prefix;
	const char *path; /* of the object in its bucket's folder */
};
struct cst_list_result {
	unsigned count;
	bool truncated;
	struct cst_buf last; /* where the next page begins: its `after` */
	bool last_is_prefix;
};
/* Called for each item. 1; 0: it is gone, don't count it; -errno ends the listing. */
typedef int (*cst_list_item_fn)(void *arg, const struct cst_list_item *item);
/* 0 or -errno. The caller frees result->last. */
int cst_list_run(struct cst_scan_cache *scans, int bucket, const struct cst_list_query *query, cst_list_item_fn fn,
		 void *arg, struct cst_list_result *result);
