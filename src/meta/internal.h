/* Private to meta: the context, operations under way, directories, listings and probes. Locks: a directory's before meta's. */
#pragma once

#include "base/clock.h"
#include "meta/dir.h"

#include <errno.h>
#include <pthread.h>

/* A store operation under way, so that stop can end it and wait. */
struct cst_meta_op {
	TAILQ_ENTRY(cst_meta_op) link;
	struct cst_meta *meta;
	struct cst_object_op *op; /* NULL until the start call returned */
	bool finished, cancelled;
	const void *owner; /* NULL, or who may cancel it by itself */
};

struct head_job {
	STAILQ_ENTRY(head_job) link;
	struct cst_meta_op op;
	char *key;
	size_t key_len;
	bool light;
	cst_object_head_fn fn;
	void *arg;
};

/* Directories that nobody has, by prefix, and preloads under way: preload_park.c. The lock comes after a directory's. */
struct cst_preload;
struct cst_preloads {
	pthread_mutex_t lock;
	struct cst_dir **table;
	size_t size, count;
	TAILQ_HEAD(, cst_preload) active;
	unsigned active_count; /* atomic */
	uint32_t last_id;
	int64_t barrier; /* atomic: what was asked for until then is not put in place */
};

struct cst_meta {
	unsigned magic;
	struct cst_meta_config config;
	pthread_mutex_t lock; /* recursive: ending an operation may call back at once */
	pthread_cond_t idle;
	bool stopping;
	TAILQ_HEAD(, cst_meta_op) ops;
	STAILQ_HEAD(, head_job) queue; /* HEADs over the limit */
	unsigned heads_running;
	TAILQ_HEAD(cst_listing_lru,
		   cst_listing) lru; /* listings that are some directory's current one, least recently used first */
	uint64_t lru_count, lru_bytes, lru_names, heads, lists;
	struct cst_preloads preloads;
};
#define CST_META_MAGIC 0x3e7a0001u

enum step_state { STEP_NONE, STEP_RUNNING, STEP_OK, STEP_ABSENT, STEP_FAILED };

/* Counted by its directory while it is the current one, by readers, probes and the request under way. The directory's lock guards
 * all but the fields of the LRU. Whoever holds a reference holds one to the directory too; the directory's own counts for itself. */
struct cst_listing {
	unsigned magic;
	unsigned refs;
	struct cst_dir *dir;
	struct cst_names names;
	struct cst_buf token;
	uint64_t number;   /* among those of its directory */
	int64_t started;   /* of the first request: how old the news may be */
	int64_t refreshed; /* of the last page: list_ttl counts from here */
	unsigned pages, wanted_pages, readers;
	bool running;
	bool joined;	    /* a request of a preload is waited for instead of one of its own */
	bool unchecked;	    /* from a snapshot, and older than list_ttl */
	bool told;	    /* and who has the directory knows that */
	uint32_t preloaded; /* by which preload it was made, until it is opened; 0: none */
	bool resume;	    /* the store has forgotten the token: the next page begins after the last name */
	bool resumed;	    /* and so it was: a store may begin anew all the same */
	bool used;	    /* atomic: has answered since the eviction looked at it */
	int rc;		    /* of a page that failed */
	struct cst_error err;
	TAILQ_HEAD(, cst_listing_wait) waits;
	LIST_ENTRY(cst_listing) of_dir; /* all that there are of the directory */
	uint64_t own_first; /* own changes that it hasn't: the number at its first position after its entries, */
	uint64_t own_until; /* and the last one that is shown */
	bool moved;	    /* the directory was moved since it began: it tells of another time and place */
	struct cst_listing *before;   /* attributes that are still right are taken from there */
	TAILQ_ENTRY(cst_listing) lru; /* meta's lock */
	bool in_lru;
	uint64_t lru_bytes, lru_names;
};
#define CST_LISTING_MAGIC 0x11571001u

/* A name being asked for; the directory's lock guards it. Freed when it is answered and no request is under way. */
struct cst_dir_probe {
	TAILQ_ENTRY(cst_dir_probe) link;
	struct cst_dir *dir; /* counted */
	enum cst_dir_ask ask;
	bool own_requests; /* doesn't, or no longer, wait for the directory's listing */
	bool head_first;   /* most probably a file: a listing below it only if the HEAD says no */
	bool finished;
	bool own_change; /* the answer is one's own change, not the store's */
	bool moved; /* the directory was moved: what the store says is of another place, it must be asked once more */
	unsigned pending; /* requests under way and threads at work on it */
	enum step_state head, marker, folder, below_state;
	struct cst_entry file;
	struct cst_object_attr *dir_attr;
	struct cst_dir *below;		   /* counted */
	struct cst_listing *below_listing; /* counted; guarded by the lock of `below` */
	struct cst_listing_wait below_wait;
	int64_t started;
	int rc;
	struct cst_error err;
	TAILQ_HEAD(, cst_dir_wait) waits;
	struct cst_slice name;
	char text[];
};

/* Where a directory is; requests under way know by it whether it has been moved since they began. */
struct cst_prefix {
	struct cst_ref ref;
	size_t len;
	char text[];
};
static inline struct cst_slice cst_prefix_slice(const struct cst_prefix *prefix)
{
	return (struct cst_slice){prefix->text, prefix->len};
}
static inline void cst_prefix_unref(struct cst_prefix *prefix)
{
	if (prefix && cst_ref_put(&prefix->ref))
		free(prefix);
}

struct cst_dir {
	unsigned magic;
	struct cst_ref ref;
	struct cst_meta *meta;
	pthread_mutex_t lock;
	struct cst_listing *listing; /* the current one, or NULL */
	TAILQ_HEAD(, cst_dir_probe) probes;
	LIST_HEAD(, cst_relist) relists; /* under way */
	LIST_HEAD(, cst_listing) all;
	struct cst_owns *owns; /* own.c; NULL: none */
	uint64_t own_last;     /* the last number of those there were */
	int64_t last_miss;
	unsigned misses;
	uint64_t listings;	     /* begun so far */
	uint64_t skipped, losers;    /* told already */
	struct cst_dir *parked_next; /* the lock of parked directories, and so: */
	bool parked;
	int64_t moved_at;	   /* what was asked for until then was of another place */
	int64_t changed_at;	   /* or lacks what this mount changed itself, which owns doesn't remember any more */
	struct cst_prefix *prefix; /* counted, replaced as a whole by a move; the lock */
};
#define CST_DIR_MAGIC 0xd1200001u

/* A listing that was not brought by the directory's own requests. */
struct cst_installed {
	struct cst_dir *dir;	    /* NULL: nobody has it */
	int64_t started, refreshed; /* of the listing */
	uint32_t preload;	    /* that brought it */
	bool partial;		    /* its first entries only; for one that waits for them */
	bool unchecked;		    /* it is older than list_ttl: who uses it has it listed anew */
	uint64_t bytes, names;	    /* what it takes: told */
};
/* Makes these names, all there are, the directory's listing, unless it has a young one; takes them then. */
bool cst_dir_install(struct cst_dir *dir, struct cst_names *names, struct cst_installed *what);
void cst_preloads_init(struct cst_meta *meta);
void cst_preloads_stop(struct cst_meta *meta);
/* What is under way is not put in place. */
void cst_preloads_doubt(struct cst_meta *meta);
void cst_preloads_fini(struct cst_meta *meta);
/* Will a request under way bring the listing, which has just begun? Then it comes by itself, or is kicked. The directory's lock is held. */
bool cst_preload_join(struct cst_dir *dir, struct cst_listing *listing);
/* Begins a listing that is joined already by a page without a delimiter. No locks. */
void cst_listing_begin_flat(struct cst_listing *listing);
/* A listing made by a preload was opened. */
void cst_preload_hit(struct cst_meta *meta, uint32_t id);
/* The directory, which this mount changed something in, is no more: what was asked for before must not come back. */
void cst_parked_doubt(struct cst_meta *meta, struct cst_slice prefix);
/* As stores sort: by bytes; preload_keys.c. */
int cst_key_compare(struct cst_slice a, struct cst_slice b);
/* The listing was given up: no need to keep the directory if nobody else does. */
void cst_parked_forget(struct cst_dir *dir);

void cst_meta_op_begin(struct cst_meta *meta, struct cst_meta_op *op);
/* Once the start call has returned. False: it has finished already and the caller frees what holds `op`. */
bool cst_meta_op_started(struct cst_meta_op *op, struct cst_object_op *object_op);
/* At the end of the callback. True: the caller frees what holds `op`; false: whoever started it will. */
bool cst_meta_op_end(struct cst_meta_op *op);
/* Ends those of one owner soon. No locks. */
void cst_meta_cancel(struct cst_meta *meta, const void *owner);
bool cst_meta_is_stopping(struct cst_meta *meta);

/* A HEAD through the limiter. fn runs once, without locks held. */
void cst_meta_head(struct cst_meta *meta, struct cst_slice key, bool light, cst_object_head_fn fn, void *arg);

/* The listing grew: moves it to the young end, gives up old ones, never this one, over the limits. Without a directory's lock. */
void cst_meta_touch(struct cst_meta *meta, struct cst_listing *listing, uint64_t bytes, uint64_t names);
void cst_meta_untrack(struct cst_meta *meta, struct cst_listing *listing);

/* NULL when the last reference has just gone: for the list of old listings, which counts nothing. */
struct cst_dir *cst_dir_try_ref(struct cst_dir *dir);
/* Gives up the directory's current listing if it is this one and nobody reads it. */
bool cst_dir_drop_listing(struct cst_dir *dir, const struct cst_listing *listing);
bool cst_listing_is_fresh_locked(const struct cst_listing *listing);
/* With what lies over it. */
uint64_t cst_listing_bytes_locked(const struct cst_listing *listing);
/* A listing of the directory that is not (yet) its current one; the caller's reference. */
struct cst_listing *cst_listing_new_locked(struct cst_dir *dir, unsigned wanted_pages);
/* Takes a reference of its own and gives that of the one before back. NULL: the directory has none. */
void cst_listing_make_current_locked(struct cst_dir *dir, struct cst_listing *listing);
/* News of `at` contradict what listings say of the name: those that run beside the current one must not bring it back. */
void cst_relist_doubt_locked(struct cst_dir *dir, struct cst_slice name, int64_t at);
/* Starts a listing that becomes the directory's current one; cst_listing_kick() sends the request. */
struct cst_listing *cst_listing_start_locked(struct cst_dir *dir, unsigned wanted_pages);
/* Sends the next page's request if one is due. The caller holds a reference to the listing; no locks. */
void cst_listing_kick(struct cst_listing *listing);
void cst_listing_ref_locked(struct cst_listing *listing);
void cst_listing_unref(
	struct cst_listing *listing); /* NULL is allowed; without locks, while the directory is referenced */
/* The directory's listing has news: answers or advances the probes that wait for it. Without locks. */
void cst_dir_advance_probes(struct cst_dir *dir);
/* What the listing says of a sealed entry. Returns false when the object's own HEAD must be asked (entry->kind is set). */
bool cst_listing_entry_locked(const struct cst_listing *listing, size_t i, struct cst_entry *entry);
