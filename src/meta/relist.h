/* Listing a directory once more, beside the listing that answers for it meanwhile; the new one takes its place when it is whole.
 *
 * So nothing waits for it and it waits for nobody: lookups go on being answered by what is known, and requests of others that hang
 * don't matter. What differs between the two listings is told name by name. News that arrive by HEADs while the listing runs are kept:
 * the new listing doesn't answer for names that it may have seen before them.
 *
 * One thread starts, steps and frees a relist; `ready` comes on any thread. */
#pragma once

#include "meta/dir.h"

enum cst_news { CST_NEWS_CHANGED, CST_NEWS_NEW, CST_NEWS_GONE };

struct cst_relist;
struct cst_relist_config {
	struct cst_dir *dir;
	void (*ready)(
		void *arg); /* cst_relist_step() can go on; once for each -EAGAIN of it, unless cst_relist_leave() was true */
	/* A name is not what the earlier listing said; under the directory's lock. What that had not reached is told by nobody. */
	void (*news)(void *arg, enum cst_news news, struct cst_slice name);
	void *arg;
};
struct cst_relist *cst_relist_start(const struct cst_relist_config *config);
/* Does some thousand names' work. 1: there is more to do; -EAGAIN: `ready` will come; 0: the new listing is the directory's; else it failed, err
 * is set, and the directory has what it had. Not to be called again after 0 and errors. */
int cst_relist_step(struct cst_relist *r, struct cst_error *err);
/* True: `ready` will not come. */
bool cst_relist_leave(struct cst_relist *r);
/* When its first request began: how old its news are at most. */
int64_t cst_relist_started(const struct cst_relist *r);
/* After step has returned 0: calls `each` for the entries from *next on, without locks, a thousand at most; false: that was all. `known`: the
 * entry is all there is to know; else the object's own HEAD must be asked. */
bool cst_relist_each(struct cst_relist *r, size_t *next,
		     void (*each)(void *arg, const char *name, const struct cst_entry *entry, bool known), void *arg);
/* Had the earlier listing passed the name? Then the news were told of it. */
bool cst_relist_covered(struct cst_relist *r, struct cst_slice name);
void cst_relist_free(struct cst_relist *r);

/* What the directory's listing has of the name by itself, whether it is young enough or not: 0, -ENOENT, or -EAGAIN: nothing. *entry
 * without attributes. */
int cst_dir_peek(struct cst_dir *dir, const char *name, struct cst_entry *entry);
/* Are names of it being asked for now? */
bool cst_dir_is_asking(struct cst_dir *dir);
/* The directory's listing is wrong: the next who asks begins another. */
void cst_dir_forget(struct cst_dir *dir);
