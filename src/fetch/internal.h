/* What the files of src/fetch share. Everything here is guarded by cst_fetch.lock unless it says otherwise.
 *
 * Memory is one arena of blocks of 128 KiB, each aligned to that size in its object. A block's life:
 *
 *   FREE ──reserve──▶ FETCHING ──range done──▶ READY ──evict, object gone──▶ FREE
 *                        └───────range failed───────────────────────────────▶ FREE
 *
 * A READY block without references waits in one of two queues: `used` (somebody read it: given up first, oldest first)
 * or `unread` (prefetched: given up only for demand; moved to the front of `used` when its stream has gone, or after long). The references of a FETCHING block are its waiting reads; they all
 * fail with its range. Blocks of an object that nobody uses are freed at once, FETCHING ones when their range ends.
 *
 * Callbacks and GETs are never made under the lock: what is to be done is collected in a struct todo and run after. */
#pragma once

#include "fetch/fetch.h"

#include <pthread.h>

#define BLOCK_SIZE (128u << 10)
#define RANGE_BLOCKS_MAX 128

#define FETCH_MAGIC 0x46455443u
#define OBJECT_MAGIC 0x464f424au
#define STREAM_MAGIC 0x46535452u
#define RANGE_MAGIC 0x46524e47u

enum block_state { BLOCK_FREE, BLOCK_FETCHING, BLOCK_READY };

struct cst_fetch_block {
	struct cst_fetch_object *object;
	uint64_t index; /* offset / BLOCK_SIZE */
	char *data;
	enum block_state state;
	unsigned refs;	  /* reads that use or wait for it */
	bool unread;	  /* prefetched and not asked for since */
	int64_t ready_at; /* of an unread one */
	struct cst_fetch_block *hash_next;
	TAILQ_ENTRY(cst_fetch_block) queue;   /* free, used or unread */
	TAILQ_ENTRY(cst_fetch_block) sibling; /* in its object */
	TAILQ_HEAD(slot_list, cst_fetch_slot) waiters;
};
TAILQ_HEAD(block_list, cst_fetch_block);

/* A GET under way. Two references: who started it, and its completion. */
struct range {
	unsigned magic;
	struct cst_ref ref; /* atomic */
	struct cst_fetch_object *object;
	bool prefetch;
	unsigned count;
	struct cst_fetch_block *blocks[RANGE_BLOCKS_MAX];
	struct iovec iov[RANGE_BLOCKS_MAX];
	uint64_t offset, length;
	int64_t started;
	char etag[CST_ETAG_MAX];
	struct cst_object_op *op; /* set once the start has returned */
	bool finished, cancelled;
	STAILQ_ENTRY(range) link;   /* in a todo */
	TAILQ_ENTRY(range) sibling; /* in its object */
};

struct todo {
	STAILQ_HEAD(, range) ranges;
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
	struct cst_fetch_block **hash;
	unsigned hash_mask;
	struct block_list free, used, unread;
	unsigned free_count, used_count, unread_count;
	unsigned prefetch_blocks; /* prefetched: FETCHING, or READY and unread */

	TAILQ_HEAD(, cst_fetch_read) waiting; /* for memory, first come first served */
	unsigned waiting_count;
	unsigned objects, ranges, prefetch_ranges;
	unsigned prefetch_flying; /* blocks of prefetching ranges under way, wanted by now or not */

	struct cst_fetch_stats stats; /* the counters of it */
};

struct cst_fetch_object {
	unsigned magic;
	struct cst_fetch *fetch;
	struct cst_ref ref; /* atomic; users and ranges */
	int users;	    /* references from outside; at 0 the blocks go */
	char *key;
	size_t key_len;
	char etag[CST_ETAG_MAX];
	int64_t mtime; /* of a store without ETags: the first answer's Last-Modified */
	uint64_t size;
	bool stale;
	struct cst_fetch_local *local; /* what a cache has of it; NULL: nothing */
	unsigned demand_flying; /* blocks of demand ranges under way */
	int64_t range_ns;	/* what a prefetched range takes, averaged over the last ones */
	struct block_list blocks;
	TAILQ_HEAD(, range) ranges;
};

struct cst_fetch_stream {
	unsigned magic;
	struct cst_fetch_object *object;
	uint64_t next;	     /* end of the furthest read of the current run */
	uint64_t run;	     /* bytes read in sequence */
	uint64_t window;     /* bytes to hold ahead of `next` */
	uint64_t grow_at;    /* the offset at which the window grows */
	uint64_t prefetched; /* everything before it has been asked for */
};

static inline uint64_t block_length(const struct cst_fetch_object *o, uint64_t index)
{
	uint64_t left = o->size - index * BLOCK_SIZE;
	return left < BLOCK_SIZE ? left : BLOCK_SIZE;
}

/* block.c: the arena. */
int arena_init(struct cst_fetch *f, struct cst_error *err);
void arena_fini(struct cst_fetch *f);
struct cst_fetch_block *block_find_locked(struct cst_fetch *f, const struct cst_fetch_object *o, uint64_t index);
/* How many blocks could be had, with or without giving up unread ones. */
unsigned blocks_available_locked(const struct cst_fetch *f, bool demand);
/* One block, FETCHING for (o, index); the caller has checked that there is one. */
struct cst_fetch_block *block_take_locked(struct cst_fetch *f, struct cst_fetch_object *o, uint64_t index,
					  bool prefetch);
void block_ref_locked(struct cst_fetch *f,
		      struct cst_fetch_block *b); /* a read uses it: out of the queues, not unread */
void block_unref_locked(struct cst_fetch *f, struct cst_fetch_block *b); /* back into a queue */
void block_ready_locked(struct cst_fetch *f, struct cst_fetch_block *b);
void block_unwanted_locked(struct cst_fetch *f, struct cst_fetch_block *b); /* unread, and nobody is coming for it */
void block_free_locked(struct cst_fetch *f, struct cst_fetch_block *b);	    /* no references */

/* range.c: GETs. */
/* Covers blocks [first, last] that are missing with ranges of at most `most` blocks each; the blocks are taken (there must be
 * enough). Returns the ranges made. */
unsigned ranges_make_locked(struct cst_fetch_object *o, uint64_t first, uint64_t last, unsigned most, bool prefetch,
			    struct todo *todo);
void range_start(struct range *r); /* not under the lock */
void range_put(struct range *r);
void object_put(struct cst_fetch_object *o); /* one reference to the memory; not under the lock */

/* read.c */
/* Ends a read: with its bytes, or (result < 0) giving up its blocks. */
void read_finish_locked(struct cst_fetch_read *r, int result, struct todo *todo);
void waiting_pump_locked(struct cst_fetch *f, struct todo *todo); /* memory may be free now */
void todo_init(struct todo *todo);
void todo_run(struct todo *todo); /* not under the lock */

/* stream.c */
/* Notes a read, decides what it may be extended to, and asks for what should be ahead of it. */
void stream_note_locked(struct cst_fetch_stream *s, struct cst_fetch_read *r);
void stream_leave_locked(struct cst_fetch_stream *s); /* nobody will read on: its window is free for others */
void stream_prefetch_locked(struct cst_fetch_stream *s, struct todo *todo);
bool object_prefetch_locked(struct cst_fetch_object *o, struct todo *todo); /* a small object ahead of its first read */
