/* Loading: brings what a prefix, globs or a list of keys name into the cache, in parallel. What is complete already is skipped, what
 * is there in part is completed, so a load that was interrupted goes on where it was.
 *
 * One cst_load is one run; it works on its own thread and the loops of its bucket. Any thread may ask for its progress or cancel it. */
#pragma once

#include "cache/cache.h"

struct cst_load;

struct cst_load_config {
	struct cst_bucket *bucket; /* borrowed, all three */
	struct cst_fetch *fetch;
	struct cst_cache *cache;
	/* What to load: keys below `prefixes`; an entry with *, ? or [ is a glob over keys (* and ? don't cross "/", ** does); a name that is an object
	 * itself is that object; one that ends in "/" a prefix. A backslash makes the character after it an ordinary one,
	 * in all of them. */
	const char *const *targets;
	unsigned target_count;
	unsigned parallel; /* objects at a time; 0: 32 */
	bool pin;
	unsigned first_level; /* the fastest level to load into; what doesn't fit there goes below */
	/* One object could not be loaded. On the load's thread. */
	void (*failure)(void *arg, struct cst_slice key, const struct cst_error *err);
	void *arg;
};
struct cst_load_progress {
	uint64_t objects, bytes;	   /* found so far */
	uint64_t objects_done, bytes_done; /* in the cache now (bytes: or on their way into it), skipped ones included */
	uint64_t bytes_fetched;		   /* from the store by this run */
	uint64_t objects_skipped;	   /* were complete, or are empty */
	uint64_t objects_vanished;	   /* deleted after they were listed: no longer counted as found, no failure */
	uint64_t objects_failed, objects_refused; /* refused: no room (quota), or the policy */
	bool listed, finished;			  /* all names are known; all is over */
	int rc; /* finished: 0, -EIO (some failed), -ENOSPC (some were refused), -ENOENT (a target names nothing), -ECANCELED, a listing's error */
};
struct cst_load *cst_load_start(const struct cst_load_config *config, struct cst_error *err);
void cst_load_progress(struct cst_load *load, struct cst_load_progress *progress);
/* Waits until it is finished or `timeout` ns have passed; true when finished. err: the first failure's. */
bool cst_load_wait(struct cst_load *load, int64_t timeout, struct cst_error *err);
void cst_load_cancel(struct cst_load *load); /* soon finished; what is under way is kept as far as it came */
void cst_load_free(struct cst_load *load);   /* cancels and waits */
