/* What the files of the tiered cache share (cache*.c, level*.c, object*.c, tier*.c, load*.c); for nobody else.
 *
 *   cst_cache ─┬─ level 0 ─┬─ volume ──── cst_volume
 *              │           └─ volume
 *              └─ level 1 ─── …
 *   cst_cache_object ── places[level] ── cst_place: the entry of that version in the volume that this level would have it in
 *
 * Locks, outermost first: cst_cache.lock (table of objects, background work), cst_cache_object.lock (places, presence, saves),
 * cst_place.files (opening of descriptors), cst_cache_volume.slabs.lock. None is held while a function of volume.h, of src/fetch or a
 * callback is called: those answer at once and come back here. */
#pragma once

#include "base/metrics.h"
#include "base/pool.h"
#include "cache/cache.h"
#include "cache/volume.h"

#include <pthread.h>
#include <sys/queue.h>

#define CST_CACHE_MAGIC 0x43434143u
#define CST_CACHE_OBJECT_MAGIC 0x434f424au
#define CST_PLACE_MAGIC 0x43504c43u

#define CST_CACHE_INLINE (1u << 20) /* bytes that a read may copy on its caller's thread */
#define CST_CACHE_REFUSED_NS (10 * INT64_C(1000000000)) /* no room for an object: not asked for again so long */
#define CST_DEMOTE_BURST_S 4 /* seconds' worth of a level's rate that may come at once: the page cache takes it in */
#define CST_CACHE_SLABS 32   /* slab descriptors kept open for each volume */

struct cst_cache;

/* Descriptors of slabs, which many objects share. */
struct cst_slab_file {
	struct cst_ref ref; /* the table's and those who read */
	uint32_t slab;
	int fd;
	uint64_t used;
};
struct cst_slab_table {
	pthread_mutex_t lock;
	uint64_t clock;
	struct cst_slab_file *files[CST_CACHE_SLABS];
};

struct cst_cache_volume {
	struct cst_cache *cache;
	unsigned level;
	struct cst_volume *volume;
	char *path;
	uint64_t quota;	 /* bytes, as the volume got it */
	uint64_t weight; /* for the choice of a volume: doesn't change with what is free */
	uint64_t seed;	 /* hash of the path */
	bool memory;	 /* tmpfs: reading never waits for a disk */
	int out;	 /* atomic: errno of what took it out; why is written before */
	char why[160];
	struct cst_slab_table slabs;
};

struct cst_cache_counters {
	uint64_t hits, hit_bytes, saved_bytes, refused_bytes, promoted, corrupt; /* atomic */
};
struct cst_level_metrics {
	struct cst_metric *hits, *hit_bytes, *saved_bytes, *refused_bytes, *promoted, *corrupt;
	struct cst_metric *used, *quota, *entries, *evicted, *demoted, *stops_high, *stops_low,
		*out; /* gauges set by cst_cache_stats() */
};
struct cst_level {
	unsigned index;
	enum cst_cache_medium medium;
	double high, low;
	unsigned volume_count;
	struct cst_cache_volume volumes[CST_CACHE_PATHS];
	struct cst_pool *readers, *writers;
	struct cst_cache_counters counters;
	struct cst_level_metrics metrics;
	/* Demotion into this level, under `tokens_lock`: bytes that may be copied now; negative after a large entry. */
	pthread_mutex_t tokens_lock;
	double tokens, token_rate;
	int64_t tokens_at;
	bool behind; /* atomic: the tokens were used up when they were looked at last */
};

/* Which names were read from a lower level, and when, in bytes read from there: read again within the size of the upper one, they
 * belong into it. One slot a hash, the newest wins. Under cst_cache.lock. */
#define CST_GHOSTS 65536u
struct cst_ghost {
	uint32_t tag;
	uint64_t at;
};

struct cst_finish;
struct cst_cache {
	unsigned magic;
	enum cst_cache_policy policy;
	char *bucket;
	bool finish_partial;
	unsigned level_count;
	struct cst_level levels[CST_CACHE_LEVELS];
	struct cst_pool *background; /* promotion, giving up of files */
	uint64_t misses;	     /* atomic */
	struct cst_metric *misses_metric;

	pthread_mutex_t lock;
	pthread_cond_t quiet; /* something of the following ended */
	struct cst_cache_object **table;
	size_t table_mask, objects;
	size_t alive; /* objects not yet freed, those that nobody finds any more included */
	struct cst_ghost *ghosts;
	uint64_t ghost_clock;
	unsigned promoting;
	TAILQ_HEAD(cst_finish_list, cst_finish) finish_waiting, finish_running;
	unsigned finish_count, finish_active;
	bool stopping;	 /* atomic */
	bool ready;	 /* atomic: all levels are open */
	unsigned copies; /* demoted entries that are being made complete */
};

/* An entry in use. Identity is its object's, which lives longer. */
struct cst_place {
	unsigned magic;
	struct cst_ref ref;
	struct cst_cache_volume *volume;
	struct cst_volume_handle *handle;
	struct cst_index_entry entry;
	const struct cst_cache_identity *id;
	pthread_mutex_t files; /* the extent's descriptors are opened once, and then stay as they are */
	struct cst_extent extent;
	int opened; /* atomic: extent is open */
	int bad;    /* atomic: damaged, and forgotten */

	/* Under the object's lock. */
	uint64_t blocks, present, own; /* own: written by this process since it opened the entry */
	uint64_t *bits;		       /* one a block; NULL: all are there */
	bool completing, complete;
};

struct cst_save;
struct cst_open_waiter {
	cst_cache_open_fn fn;
	void *arg;
	STAILQ_ENTRY(cst_open_waiter) link;
};
struct cst_settle_waiter {
	void (*fn)(void *arg);
	void *arg;
	STAILQ_ENTRY(cst_settle_waiter) link;
};
struct cst_cache_object {
	unsigned magic;
	int refs; /* atomic; the last goes under cst_cache.lock */
	struct cst_cache *cache;
	struct cst_fetch_local local;
	struct cst_cache_object *hash_next;
	bool finishing;		      /* under cst_cache.lock: its rest is being fetched, or will be */
	struct cst_cache_identity id; /* texts behind this struct */
	uint64_t blocks;
	unsigned lookups; /* atomic: volumes that haven't answered */
	int looking;	  /* atomic: the volumes are being asked again */
	int64_t looked;	  /* atomic: when they were last asked */

	pthread_mutex_t lock;
	bool ready;
	STAILQ_HEAD(, cst_open_waiter) openers;
	struct cst_place *places[CST_CACHE_LEVELS];
	unsigned first_level; /* for new entries */
	bool pin;
	bool creating; /* an entry is being made; saves wait */
	STAILQ_HEAD(cst_save_list, cst_save) saves;
	unsigned writing; /* saves and completions under way */
	STAILQ_HEAD(, cst_settle_waiter) settlers;
	int64_t refused_until;
	uint64_t lap;	  /* bytes read from the cache since the last access was counted */
	bool lap_pending; /* the next read is an access: entries were there when it was opened */
	uint64_t touched; /* bytes read or saved in this session */
	bool promoting;
	struct cst_place *file_place;
	int file;	 /* for passthrough; -1 */
	int64_t file_at; /* atomic: when it was last asked for as a use */
};

/* ---- level.c: what a level is made of ---- */
struct cst_level_plan { /* a path that was looked at */
	char *dir;
	uint64_t quota, weight, keep_free;
	bool memory;
};
/* Makes the directory and finds out quota and room. -errno: *err; `fatal`: the configuration is wrong. */
int cst_level_plan(const struct cst_cache_level *level, unsigned path, const struct cst_cache_config *config,
		   struct cst_level_plan *plan, bool *fatal, struct cst_error *err);
/* Bytes that the cgroup lets this process use, UINT64_MAX: no limit. */
uint64_t cst_level_cgroup_limit(void);
const char *cst_cache_medium_name(enum cst_cache_medium medium);

/* ---- cache.c ---- */
/* The volume of a level that would have this name, NULL: all are out. */
struct cst_cache_volume *cst_level_choose(struct cst_level *level, uint64_t name);
/* May an object of this size be kept there whole? */
bool cst_cache_volume_holds(const struct cst_cache_volume *v, uint64_t size);
static inline bool cst_cache_volume_is_out(const struct cst_cache_volume *v)
{
	return __atomic_load_n(&v->out, __ATOMIC_ACQUIRE) != 0;
}
/* Errors of a sick disk take the volume out (once, with a log line), others don't. Returns rc. */
int cst_cache_volume_error(struct cst_cache_volume *v, int rc, const char *doing);
static inline struct cst_level *cst_cache_volume_level(const struct cst_cache_volume *v)
{
	return &v->cache->levels[v->level];
}
/* A slab's descriptor; NULL with `only_open` and not open, or *rc. Put back after use; stale: not to be used again. */
struct cst_slab_file *cst_slab_get(struct cst_cache_volume *v, uint32_t slab, bool only_open, int *rc);
void cst_slab_put(struct cst_cache_volume *v, struct cst_slab_file *f, bool stale);

#define cst_count(counter, metric, n)                                 \
	do {                                                          \
		uint64_t _n = (n);                                    \
		__atomic_fetch_add(&(counter), _n, __ATOMIC_RELAXED); \
		cst_metric_add((metric), (int64_t)_n);                \
	} while (0)

/* ---- object.c ---- */
void cst_cache_object_hold(struct cst_cache_object *o);
/* Adopts an answer's handle as the object's entry in that level. Returns a reference, NULL: it was not a good one (closed). */
struct cst_place *cst_object_adopt(struct cst_cache_object *o, struct cst_cache_volume *v,
				   const struct cst_volume_answer *answer);
/* The entry is worthless: forgotten in the volume and by the object. */
void cst_object_forget(struct cst_cache_object *o, struct cst_place *p);
/* Takes it out of the object without a word to the volume. */
void cst_object_detach(struct cst_cache_object *o, struct cst_place *p);
struct cst_place *cst_place_ref(struct cst_place *p);
void cst_place_unref(struct cst_place *p); /* may close files */
/* Opens the descriptors; 0 or -errno. Blocks. */
int cst_place_files(struct cst_place *p);
/* Reads the map's records and adds what is there. Blocks. */
int cst_place_look(struct cst_cache_object *o, struct cst_place *p);
/* How many of the blocks from `block` on, at most `most`, are all there or (there false) all missing. */
uint64_t cst_place_run_locked(const struct cst_place *p, uint64_t block, uint64_t most, bool there);
bool cst_place_has_locked(const struct cst_place *p, uint64_t block);
/* Notes blocks as there; returns how many were not. */
uint64_t cst_place_add_locked(struct cst_place *p, uint64_t first, uint64_t count);
static inline uint64_t cst_block_length(uint64_t size, uint64_t block)
{
	uint64_t left = size - block * CST_CACHE_BLOCK;
	return left < CST_CACHE_BLOCK ? left : CST_CACHE_BLOCK;
}
/* The topmost usable entry that has the block, and how many following ones, at most `most`, it has too. */
struct cst_place *cst_object_find_locked(struct cst_cache_object *o, uint64_t block, uint64_t most, uint64_t *run);
/* How many of the blocks from `block` on, at most `most`, no level has. */
uint64_t cst_object_missing_locked(struct cst_cache_object *o, uint64_t block, uint64_t most);
/* The volumes are asked again, when that is due. Never blocks. */
void cst_object_look_again(struct cst_cache_object *o);
/* fn once nothing of the object is being written or completed. */
void cst_object_settle(struct cst_cache_object *o, void (*fn)(void *arg), void *arg);
/* Where new entries of it go, and whether they are pinned (and what is there already); for loading. */
void cst_object_aim(struct cst_cache_object *o, unsigned first_level, bool pin);

/* ---- object_io.c ---- */
extern const struct cst_fetch_local_ops cst_object_local_ops;
/* Whole blocks of one place into memory. nowait: -EAGAIN rather than waiting. Errors are dealt with (bad blocks forgotten, counted). */
int cst_object_read_place(struct cst_cache_object *o, struct cst_place *p, uint64_t first, const struct iovec *iov,
			  int iov_count, bool nowait);
/* [skip, skip + length) of the vectors. Returns how many there are in `out`, which has room for `count`. */
int cst_iov_cut(const struct iovec *iov, int count, uint64_t skip, uint64_t length, struct iovec *out);
/* All blocks of p are there: asks the volume to make it complete, unless that is done or under way. */
void cst_object_complete(struct cst_cache_object *o, struct cst_place *p);
void cst_object_write_begin(struct cst_cache_object *o);
void cst_object_write_end(struct cst_cache_object *o);

/* ---- tier.c ---- */
/* More goes down from `level` than the one below takes: what is new begins below it, and nothing is lost between them. */
bool cst_tier_is_behind(struct cst_cache *cache, unsigned level);
bool cst_tier_demote(void *volume,
		     const struct cst_index_entry *entry); /* struct cst_cache_volume; of cst_volume_config */
/* The object was read from p (a whole reading of it, or its first): counts for eviction and promotion. */
void cst_tier_access(struct cst_cache_object *o, struct cst_place *p);
/* One answer of a volume, waited for. */
struct cst_wait {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	int rc;
	struct cst_volume_answer answer;
};
void cst_wait_init(struct cst_wait *w);
int cst_wait_for(struct cst_wait *w); /* rc; the wait may be used for another call then */
void cst_wait_fini(struct cst_wait *w);
void cst_wait_opened(void *wait, const struct cst_volume_answer *answer); /* cst_volume_open_fn */
void cst_wait_done(void *wait, int rc);					  /* cst_volume_done_fn */

/* ---- cache_finish.c ---- */
void cst_finish_cancel_all(struct cst_cache *cache); /* waits */
