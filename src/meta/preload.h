/* Listing all that is below a prefix with as few requests as its keys fill: pages without a delimiter, a thousand keys each whatever directories
 * they are in, cut into ranges that are asked for in parallel. Every directory that is met gets the listing that a request for it alone would have
 * brought, whole, as one that began when the first of its pages was asked for; so it obeys list_ttl, doubts and own changes as any other.
 *
 * Listings of directories that nobody has yet are parked: cst_dir_get() hands them out by prefix. They count against the memory for listings, and
 * those that have not answered for longest go first. A preload that finds that memory used up ends there.
 *
 * Who opens a directory that a running request of a preload may bring waits for that request instead of sending another one.
 *
 * A preload is counted: by who started it and by itself until it has ended. It asks on loop threads of the bucket and holds one mutex for short
 * computations. Locks: a directory's, then a preload's; nothing is called under the latter. Any thread. */
#pragma once

#include "meta/dir.h"

struct cst_preload;

enum cst_preload_end {
	CST_PRELOAD_RUNNING,
	CST_PRELOAD_WHOLE,     /* all of it was listed */
	CST_PRELOAD_FULL,      /* the memory for listings is used up */
	CST_PRELOAD_NO_GAIN,   /* of a walk: the directories are so large that pages of their own are as good */
	CST_PRELOAD_UNSORTED,  /* the store doesn't list in the order of keys */
	CST_PRELOAD_CANCELLED, /* by cst_preload_cancel() or cst_meta_stop() */
	CST_PRELOAD_FAILED,
};
struct cst_preload_progress {
	enum cst_preload_end end;
	uint64_t pages;	      /* requests sent */
	uint64_t keys;	      /* that they brought */
	uint64_t directories; /* whose listings were put in place */
	uint64_t hits;	      /* of them, opened since */
};
struct cst_preload_config {
	struct cst_dir *dir; /* below which: kept until the end */
	/* Ahead of a walk: only what comes after this key, and never more requests than directories that were opened thanks to it, but for two. */
	struct cst_slice after;
	bool ahead;
	unsigned parallel; /* requests at a time; 0: 16 */
	/* The directory of a prefix that somebody has, referenced, or NULL. NULL: nobody has any. */
	struct cst_dir *(*find)(void *find_arg, struct cst_slice prefix);
	void *find_arg;
	/* Once, on any thread, with the error of CST_PRELOAD_FAILED. NULL: not wanted. */
	void (*ended)(void *arg, struct cst_preload *p, const struct cst_error *err);
	void *arg;
};
/* The caller's reference. */
struct cst_preload *cst_preload_start(const struct cst_preload_config *config);
void cst_preload_cancel(struct cst_preload *p); /* `ended` comes soon */
void cst_preload_progress(struct cst_preload *p, struct cst_preload_progress *progress);
/* Is the directory below what this lists, after where it began? */
bool cst_preload_covers(const struct cst_preload *p, struct cst_slice prefix);
void cst_preload_unref(struct cst_preload *p);
/* Ahead of a walk: nobody has opened what it brought for some seconds. It goes on when somebody does, but counts for nothing meanwhile. */
bool cst_preload_is_idle(const struct cst_preload *p);
/* Does one of those under way, and not idle, list what is below this prefix? */
bool cst_preload_is_covered(struct cst_meta *meta, struct cst_slice prefix);

/* The parked directory of this prefix, or a new one; the caller's reference. */
struct cst_dir *cst_dir_get(struct cst_meta *meta, struct cst_slice prefix);
/* Does its listing answer for everything now? */
bool cst_dir_is_listed(struct cst_dir *dir);
/* Nobody has the directory any more: its listing waits for the next who does, if it is whole and young. */
void cst_dir_park(struct cst_dir *dir);
/* What is parked below the prefix ("": everything) is wrong, and so is what requests under way bring. */
void cst_parked_drop(struct cst_meta *meta, struct cst_slice prefix);
