/* What the files of src/fetch share. Everything here is guarded by cst_fetch.lock unless it says otherwise.
 *
 * Memory is one arena of blocks of 128 KiB, each aligned to that size in its object. A block's life:
 *
 *   FREE ──reserve──▶ FETCHING ──its bytes came──▶ READY ──evict, object gone──▶ FREE
 *                        └──────range failed──────────────────────────────────▶ FREE
 *
 * A READY block that no read references and nothing pins is at rest, in one of three queues: `used` (somebody read it, or nobody is
 * coming for it: given up first, oldest first), `used_owed` (so, too, but the cache is still to get it: given up next) or `unread` (a stream is about to read it, or the rest of it: given up for demand that
 * has nothing else and only after a while; moved to the front of `used` when its stream has gone). The references of a FETCHING block are
 * its waiting reads; they fail with its range. A range pins its blocks until it ends, a save until it is done. Blocks of an object that
 * nobody uses are freed as soon as nothing holds them.
 *
 * Callbacks, GETs, and the cache's read and save are never called under the lock: what is to be done is collected in a struct todo and
 * run after. The cache's ref and probe are called under it. */
#pragma once

#include "fetch/adapt.h"
#include "fetch/fetch.h"
#include "fetch/pattern.h"

#include <pthread.h>

#define BLOCK_SIZE CST_FETCH_BLOCK
#define RANGE_BLOCKS_MAX 128
#define LOCAL_BLOCKS_MAX 16 /* of one read from the cache below: several threads share a stream's window */
#define MIB (UINT64_C(1) << 20)
#define BLOCKS_PER_MIB (MIB / BLOCK_SIZE)
#define SMALL_OBJECT (2 * MIB) /* fetched whole */

#define FETCH_MAGIC 0x46455443u
#define OBJECT_MAGIC 0x464f424au
#define STREAM_MAGIC 0x46535452u
#define RANGE_MAGIC 0x46524e47u
#define SAVE_MAGIC 0x46534156u
#define FILL_MAGIC 0x4646494cu

enum block_state { BLOCK_FREE, BLOCK_FETCHING, BLOCK_READY };

struct cst_fetch_block {
	struct cst_fetch_object *object;
	struct range *range; /* that brings or brought it, until its end; else NULL */
	uint64_t index;	     /* offset / BLOCK_SIZE */
	char *data;
	enum block_state state;
	unsigned refs;	  /* reads that use or wait for it */
	unsigned pins;	  /* its range, its save */
	bool unread;	  /* a stream is coming for it; counted in prefetch_blocks */
	bool cold;	  /* brought in for the cache alone: at rest it is the first to go */
	bool saving;	  /* the cache has it in hand */
	bool owed;	  /* READY; the cache gets it when it has less in hand: in the list `owed` */
	bool touched;	  /* its memory has pages */
	bool passed;	  /* a sequential reader went over it in an object too large to be kept */
	int64_t ready_at; /* of an unread one: since when it rests */
	struct cst_fetch_block *hash_next;
	TAILQ_ENTRY(cst_fetch_block) queue;	/* free, used, used_owed or unread */
	TAILQ_ENTRY(cst_fetch_block) sibling;	/* in its object */
	TAILQ_ENTRY(cst_fetch_block) owed_link; /* in `owed` */
	TAILQ_HEAD(slot_list, cst_fetch_slot) waiters;
};
TAILQ_HEAD(block_list, cst_fetch_block);

enum range_kind { RANGE_DEMAND, RANGE_PREFETCH, RANGE_FILL };

/* Neighbouring blocks on their way into memory: a GET, or a read from the cache below. Two references: who started it, and its end. */
struct range {
	unsigned magic;
	struct cst_ref ref; /* atomic */
	struct cst_fetch_object *object;
	enum range_kind kind;
	struct cst_fetch_local *local;	   /* counted: where from; NULL: the origin */
	struct cst_fetch_stream *stream;   /* counted: whose prefetching it is, or NULL */
	struct cst_fetch_fill_state *fill; /* kind FILL; it waits for the range's end */
	uint64_t offset, length;
	uint64_t told; /* bytes that the fill knows of */
	int64_t started;
	char etag[CST_ETAG_MAX];
	struct cst_object_op *op; /* set once the start has returned */
	bool finished, cancelled;
	bool wanted;		      /* a read waits for it, though it is none of kind DEMAND */
	STAILQ_ENTRY(range) link;     /* in a todo */
	STAILQ_ENTRY(range) hurrying; /* counted */
	TAILQ_ENTRY(range) sibling;   /* in its object */
	unsigned count, ready;	      /* blocks; the first ones, that are READY while the rest still comes */
	struct iovec *iov;
	struct cst_fetch_block *blocks[];
};

/* Blocks that the cache below is to keep; owned by who runs it. */
struct save {
	unsigned magic;
	struct cst_fetch_object *object;
	struct cst_fetch_local *local;	   /* counted */
	struct cst_fetch_fill_state *fill; /* whose it is; NULL: offered because it was read */
	STAILQ_ENTRY(save) link;
	uint64_t first, bytes;
	unsigned count;
	struct iovec *iov;
	struct cst_fetch_block *blocks[];
};

struct todo {
	STAILQ_HEAD(range_list, range) ranges;
	STAILQ_HEAD(, range) hurries; /* under way, and wanted now */
	STAILQ_HEAD(save_list, save) saves;
	TAILQ_HEAD(, cst_fetch_read) reads; /* finished: result is set */
	const struct cst_error *err;	    /* for those that failed with the range that just ended */
};

struct cst_fetch {
	unsigned magic;
	struct cst_fetch_config config;
	pthread_mutex_t lock;
	pthread_cond_t drained; /* objects fell to 0 */

	char *arena;
	struct cst_fetch_block *blocks;
	unsigned block_count, block_peak;
	unsigned keep_read; /* blocks at rest in `used` that don't make room while there is untouched memory */
	struct cst_fetch_block **hash;
	unsigned hash_mask;
	struct block_list free, used, used_owed, unread;
	unsigned free_count, used_count, unread_count; /* used_count: of used and used_owed */
	unsigned used_owed_count;
	unsigned prefetch_blocks; /* unread ones, FETCHING or READY */
	struct block_list owed;	  /* in the order in which they came */

	TAILQ_HEAD(, cst_fetch_read) waiting; /* for memory, first come first served */
	unsigned waiting_count;
	unsigned objects; /* atomic; falls under the lock */
	unsigned ranges, fill_ranges;
	unsigned prefetch_ranges; /* of streams, from the origin */
	unsigned ahead_ranges;	  /* of small objects before they are read, from the origin */
	unsigned prefetch_flying; /* blocks of prefetching ranges under way, wanted by now or not */
	unsigned save_blocks;	  /* offered, in the cache's hands */
	unsigned fill_blocks;	  /* of fills: coming or in the cache's hands */
	struct adapt adapt;	  /* how many prefetching GETs at a time */

	TAILQ_HEAD(, cst_fetch_stream) hungry; /* were refused prefetching, in turn */
	TAILQ_HEAD(, cst_fetch_stream) active; /* with a window, the one that read last at the end */
	unsigned active_count;
	TAILQ_HEAD(, cst_fetch_fill_state) fills;	/* that can go on */
	TAILQ_HEAD(, cst_fetch_fill_state) fills_ended; /* whose callers are to be told */

	/* The thread that tells how fills ended, and looks after reads that wait while nothing else happens. */
	pthread_t thread;
	pthread_cond_t wake;
	bool stopping, asleep;
	bool given_up; /* an object was: others may have room */

	struct cst_fetch_stats stats; /* the counters of it */
};

struct cst_fetch_object {
	unsigned magic;
	struct cst_fetch *fetch;
	struct cst_ref ref; /* atomic: outside as a whole, ranges and saves */
	int users;	    /* atomic: references from outside; at 0 the blocks go */
	char *key;
	size_t key_len;
	enum pattern_hint hint;
	unsigned guesses; /* lanes that got a window for the file's name and have not proved it right */
	char etag[CST_ETAG_MAX];
	int64_t mtime; /* of a store without ETags: the first answer's Last-Modified */
	uint64_t size;
	bool stale;
	struct cst_fetch_local *local; /* what a cache has of it; NULL: nothing */
	unsigned demand_flying;	       /* blocks of demand ranges under way */
	int64_t range_ns;	       /* what a prefetched range takes, averaged over the last ones */
	struct block_list blocks;
	TAILQ_HEAD(, range) ranges;
	TAILQ_HEAD(, cst_fetch_fill_state) fills; /* all of them */
};

struct cst_fetch_stream {
	unsigned magic;
	struct cst_fetch_object *object;
	struct pattern pattern;
	bool closed, hungry, active;
	bool tail_asked;	 /* of a file that is read from its end */
	unsigned ranges;	 /* prefetching for it; it lives until they have ended */
	unsigned gets;		 /* those from the origin */
	int64_t seen;		 /* its last read, when active */
	uint64_t stride_ahead;	 /* records asked for ahead of the last one */
	unsigned stride_records; /* how many are to be */
	TAILQ_ENTRY(cst_fetch_stream) hungry_link, active_link;
};

static inline uint64_t block_length(const struct cst_fetch_object *o, uint64_t index)
{
	uint64_t left = o->size - index * BLOCK_SIZE;
	return left < BLOCK_SIZE ? left : BLOCK_SIZE;
}

static inline uint64_t object_last(const struct cst_fetch_object *o)
{
	return (o->size - 1) / BLOCK_SIZE;
}

static inline bool object_used(const struct cst_fetch_object *o)
{
	return __atomic_load_n(&o->users, __ATOMIC_ACQUIRE) > 0;
}

/* Objects that a cache takes only whole. */
static inline bool object_saved_whole(const struct cst_fetch_object *o)
{
	return o->size <= CST_FETCH_WHOLE;
}

/* block.c: the arena. */
int arena_init(struct cst_fetch *f, struct cst_error *err);
void arena_fini(struct cst_fetch *f);
struct cst_fetch_block *block_find_locked(struct cst_fetch *f, const struct cst_fetch_object *o, uint64_t index);
/* Can `count` blocks be had? Demand may give up what was prefetched and has rested for long. */
bool blocks_can_have_locked(const struct cst_fetch *f, unsigned count, bool demand);
/* One block, FETCHING for (o, index), pinned; the caller has checked that there is one. */
struct cst_fetch_block *block_take_locked(struct cst_fetch *f, struct cst_fetch_object *o, uint64_t index, bool unread);
void block_ref_locked(struct cst_fetch *f, struct cst_fetch_block *b);	 /* a read uses it: out of the queues */
void block_unref_locked(struct cst_fetch *f, struct cst_fetch_block *b); /* back into a queue */
/* A read takes bytes of it; with `more` a stream will come for the rest. */
void block_touch_locked(struct cst_fetch *f, struct cst_fetch_block *b, bool more);
void block_ready_locked(struct cst_fetch_block *b);
void block_pin_locked(struct cst_fetch *f, struct cst_fetch_block *b);
void block_unpin_locked(struct cst_fetch *f, struct cst_fetch_block *b);    /* a FETCHING one is freed */
void block_unwanted_locked(struct cst_fetch *f, struct cst_fetch_block *b); /* unread, and nobody is coming for it */
void block_owe_locked(struct cst_fetch *f, struct cst_fetch_block *b, bool owed);
void block_free_locked(struct cst_fetch *f, struct cst_fetch_block *b); /* at rest */
static inline bool block_at_rest(const struct cst_fetch_block *b)
{
	return b->state == BLOCK_READY && b->refs == 0 && b->pins == 0;
}

/* range.c: GETs and reads of the cache below. */
struct range_plan {
	enum range_kind kind;
	unsigned most;			   /* blocks of a GET */
	uint64_t own_first, own_last;	   /* kind DEMAND: what a read waits for; the rest is ahead of its stream */
	struct cst_fetch_stream *stream;   /* kind PREFETCH, or NULL */
	struct cst_fetch_fill_state *fill; /* kind FILL */
};
/* Covers blocks [first, last] that are missing with ranges; the blocks are taken (there must be enough). Returns the ranges made; *gets
 * (NULL allowed) grows by those from the origin. */
unsigned ranges_make_locked(struct cst_fetch_object *o, uint64_t first, uint64_t last, const struct range_plan *plan,
			    unsigned *gets, struct todo *todo);
void range_start(struct range *r); /* not under the lock */
/* A read waits for one that was asked for ahead: where the origin is rate limited it is no longer behind all others. */
void range_want_locked(struct range *r, struct todo *todo);
void range_hurry(struct range *r); /* not under the lock */
void range_put(struct range *r);   /* not under the lock */
/* Gives up GETs that `which` picks; the lock is let go meanwhile. */
void ranges_cancel_locked(struct cst_fetch_object *o, bool (*which)(const struct range *r, const void *arg),
			  const void *arg);

/* object.c */
void object_put(struct cst_fetch_object *o); /* one reference to the memory; not under the lock */

/* read.c */
/* Ends a read: with its bytes, or (result < 0) giving up its blocks. */
void read_finish_locked(struct cst_fetch_read *r, int result, struct todo *todo);
/* Memory may be free now, or a slot: goes on with reads that wait, then hungry streams, then fills. */
void pump_locked(struct cst_fetch *f, struct todo *todo);
void todo_init(struct todo *todo);
void todo_run(struct todo *todo); /* not under the lock */

/* stream.c */
/* Notes a read, decides what its GET may be extended to. */
void stream_note_locked(struct cst_fetch_stream *s, struct cst_fetch_read *r);
void stream_prefetch_locked(struct cst_fetch_stream *s, struct todo *todo); /* asks for what should be ahead of it */
void stream_put_locked(struct cst_fetch_stream *s);			    /* one of its ranges has ended */
void streams_pump_locked(struct cst_fetch *f, struct todo *todo);

/* save.c */
/* Has the cache keep READY blocks [first, first + count) when it wants to. */
void save_make_locked(struct cst_fetch_object *o, struct cst_fetch_local *local, uint64_t first, unsigned count,
		      struct cst_fetch_fill_state *fill, struct todo *todo);
void save_offer_locked(struct range *r, struct todo *todo); /* what came from the origin */
void saves_pump_locked(struct cst_fetch *f,
		       struct todo *todo); /* what is owed to the cache, as far as it may have it */
void save_run(struct save *s);		   /* not under the lock */
/* Is a small object all in memory, and not in the cache's hands? */
bool object_is_whole_locked(const struct cst_fetch_object *o);

/* fill.c */
struct cst_fetch_fill_state {
	unsigned magic;
	struct cst_fetch_fill *fill;	 /* the caller's */
	struct cst_fetch_object *object; /* used until the end */
	struct cst_fetch_local *local;	 /* counted; NULL: there is none */
	uint64_t next, last;		 /* blocks: those before `next` are there or in hand */
	unsigned flying;		 /* ranges and saves of it */
	int result;			 /* the first failure */
	struct cst_error *err;		 /* of it; NULL: described from the result */
	bool ready, ended;		 /* it is in the list `fills`, `fills_ended` */
	TAILQ_ENTRY(cst_fetch_fill_state) link, sibling;
};
void fills_pump_locked(struct cst_fetch *f, struct todo *todo);
void fills_wake_locked(struct cst_fetch_object *o); /* blocks of it have come to rest */
/* A range of a fill ended, and its blocks are READY when it was well: the cache gets them. */
void fill_range_ended_locked(struct range *r, int rc, struct todo *todo);
void fill_save_ended_locked(struct save *s, int rc);
bool fill_is_over(const struct cst_fetch_fill_state *s); /* failed or cancelled: its GETs need not go on */
void fills_report(struct cst_fetch *f);			 /* under the lock, which it lets go for each */
