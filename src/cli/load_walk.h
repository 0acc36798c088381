/* Reads directories of a mount in parallel, with everything below them, so that the mount has their listings. Own threads; the functions here
 * belong to one. */
#pragma once

#include "base/option.h"

struct cst_load_walk;

struct cst_load_walk_progress {
	uint64_t dirs, names, failed;
	bool finished;
};
/* paths: borrowed until the end; files among them are only looked at. failure: on a thread of the walk, one at a time. */
struct cst_load_walk *cst_load_walk_start(const struct cst_option_list *paths, unsigned threads,
					  void (*failure)(void *arg, const char *path, int code), void *arg);
/* Waits until it is finished or `timeout` ns have passed; true when finished. */
bool cst_load_walk_wait(struct cst_load_walk *w, int64_t timeout, struct cst_load_walk_progress *p);
void cst_load_walk_cancel(struct cst_load_walk *w);
void cst_load_walk_free(struct cst_load_walk *w); /* cancels and waits */
