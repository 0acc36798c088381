/* Reading object bytes: ranges from the origin or from a cache below, single flight, prefetch windows and the memory budget.
 *
 * A cst_fetch_object is one immutable version (key, ETag, size) of an object; its blocks are shared by all who read it, so
 * a byte range is fetched once however many ask. A cst_fetch_stream is one open handle's read position memory. All buffers come
 * out of one hard budget: a range is asked for only after its bytes are reserved; a READ that must wait for memory holds none;
 * demand goes before prefetch and that before fills, first come first served; blocks that were read are given up first (LRU).
 *
 * Thread safe. Callbacks come on a loop thread (the cache's, when the bytes came from there) or, when everything is in memory, on the
 * caller's before cst_fetch_read() returns. */
#pragma once

#include "object/object.h"

struct cst_fetch;
struct cst_fetch_object;
struct cst_fetch_stream;

/* What a cache below the memory holds of one object version (src/cache fills it in). Any thread; no function blocks, and `done` may
 * come before the call returns. The vectors stay as they are until done. ref and probe are called under the lock of the cst_fetch, the
 * others without any. Blocks are CST_FETCH_BLOCK bytes, aligned in the object; the object's last one is short. */
#define CST_FETCH_BLOCK (128u << 10)
#define CST_FETCH_WHOLE (256u << 10) /* objects up to this size are offered to the cache whole, in one call */
struct cst_fetch_local;
typedef void (*cst_fetch_local_fn)(void *arg, int rc);
struct cst_fetch_local_ops {
	void (*ref)(struct cst_fetch_local *l);
	void (*unref)(struct cst_fetch_local *l);
	/* Looks at memory only. Of the `count` blocks from `first` on, how many leading ones are alike, and
	 * whether they are there. */
	unsigned (*probe)(struct cst_fetch_local *l, uint64_t first, unsigned count, bool *there);
	/* Whole blocks from block `first` on into memory. rc 0: all there and verified. Else (-EBADMSG, -EIO, …) what the vectors hold is
	 * worthless, and the cache no longer claims to have what was bad: the origin is asked. */
	void (*read)(struct cst_fetch_local *l, uint64_t first, const struct iovec *iov, int iov_count,
		     cst_fetch_local_fn done, void *arg);
	/* Keeps whole blocks that came from the origin; the memory stays as it is until done. False: not wanted (done does not come). How much
	 * is in its hands at a time is bounded by who calls. `must`: it is a fill's, and worth another try. rc: 0, -ENOSPC (no room), -EIO.
	 * Objects up to CST_FETCH_WHOLE come whole. */
	bool (*save)(struct cst_fetch_local *l, uint64_t first, const struct iovec *iov, int iov_count, bool must,
		     cst_fetch_local_fn done, void *arg);
};
struct cst_fetch_local {
	const struct cst_fetch_local_ops *ops;
};

/* In brackets: the option of `cistern mount` that sets it. */
struct cst_fetch_config {
	struct cst_bucket *bucket; /* borrowed */
	uint64_t memory;	   /* bytes, hard; the floor is 64 MiB [memory] */
	uint64_t window_max;	   /* bytes of prefetch for one stream; 0: half of memory [prefetch_window] */
	unsigned range_size;	   /* bytes of one streaming request; 0: 8 MiB [range_size] */
	/* Prefetching GETs in flight over all objects, at most; how many is measured; 0: 64. Demand has no such limit. [max_prefetch] */
	unsigned max_prefetch;
	unsigned stream_parallel; /* of them for one handle; 0: no limit of its own [parallel_count] */
	bool prefetch;		  /* [prefetch] */
	bool no_save;		  /* nothing read goes into the local cache (fills do) [direct_read] */
	uint64_t keep_read;  /* bytes at rest that were read; more make room before untouched memory is used; 0: all */
	int64_t keep_unread; /* ns; 0: 60 s. Prefetched bytes that wait longer may make room for other prefetching */
	int64_t keep_for_demand; /* ns; 0: 3 s. The same for a READ that waits for memory */
	int64_t calm_range; /* ns; 0: 2.5 s. Windows grow while ranges take no longer, and shrink when they take four times that */
};
struct cst_fetch *cst_fetch_new(const struct cst_fetch_config *config, struct cst_error *err);
/* All objects must have been given up and all reads released; waits for cancelled GETs to end (the bucket must still work). */
void cst_fetch_free(struct cst_fetch *f);

/* key and etag are copied. An empty etag means "unknown": the first answer's is adopted. */
struct cst_fetch_object *cst_fetch_object_new(struct cst_fetch *f, struct cst_slice key, const char *etag,
					      uint64_t size);
struct cst_fetch_object *cst_fetch_object_ref(struct cst_fetch_object *o);
void cst_fetch_object_unref(struct cst_fetch_object *o);
/* Binds the object to what a cache has of its version (NULL: nothing, any more); referenced as long as it is bound or in use. Before the first
 * read, or at any time: blocks are then looked for there first, and what comes from the origin is offered to it. */
void cst_fetch_object_set_local(struct cst_fetch_object *o, struct cst_fetch_local *local);
/* Asks for a small object (up to 2 MiB) whole, ahead of its first read, with the rank of prefetching. False: it is large, there already, or there
 * is no room. The caller keeps the object until it is read, or gives it up. */
bool cst_fetch_object_prefetch(struct cst_fetch_object *o);
/* True once a GET has found another version in the store (If-Match failed or NoSuchKey): uncached reads give -ESTALE. */
bool cst_fetch_object_is_stale(const struct cst_fetch_object *o);

struct cst_fetch_stream *cst_fetch_stream_new(struct cst_fetch_object *o);
void cst_fetch_stream_free(struct cst_fetch_stream *s); /* reads under way go on */

#define CST_FETCH_READ_MAX (1u << 20) /* bytes; the kernel asks for no more */
#define CST_FETCH_IOV_MAX 9	      /* 128 KiB blocks that a read of that size may touch */

struct cst_fetch_read;
struct cst_fetch_block;
/* One block that a read uses. Private. */
struct cst_fetch_slot {
	struct cst_fetch_read *read;
	struct cst_fetch_block *block;
	bool waiting;
	TAILQ_ENTRY(cst_fetch_slot) link;
};

/* Embedded in the caller's request; the caller fills offset, length, done and arg. */
struct cst_fetch_read {
	uint64_t offset;
	uint32_t length; /* at most CST_FETCH_READ_MAX; clipped at the object's end */
	/* rc ≥ 0: bytes in iov[0..iov_count), valid until cst_fetch_read_release(). -errno: -ESTALE, -EIO, -EACCES, -ENOENT,
	 * -ETIMEDOUT, -EINTR (cancelled); err is then set. */
	void (*done)(struct cst_fetch_read *r, int rc, const struct cst_error *err);
	void *arg;
	struct iovec iov[CST_FETCH_IOV_MAX];
	int iov_count;

	/* private, under the lock of the cst_fetch */
	struct cst_fetch_object *object;
	struct cst_fetch_slot slots[CST_FETCH_IOV_MAX];
	int slot_count, pending;
	int result;
	enum { CST_FETCH_READ_NEW, CST_FETCH_READ_QUEUED, CST_FETCH_READ_WAITING, CST_FETCH_READ_DONE } state;
	bool sequential;		/* its stream goes on behind it */
	uint64_t want_first, want_last; /* blocks that its GET may be extended to */
	TAILQ_ENTRY(cst_fetch_read) link;
};
void cst_fetch_read(struct cst_fetch_stream *s, struct cst_fetch_read *r);
/* Asks for an early end: done comes with -EINTR unless it has come. Any thread. What other readers share goes on. */
void cst_fetch_read_cancel(struct cst_fetch_read *r);
/* Gives the blocks back; after done, exactly once, also after errors. */
void cst_fetch_read_release(struct cst_fetch_read *r);

/* Brings what is missing of an object into its local cache (cst_fetch_object_set_local), from memory or from the origin, ranges in order,
 * after all demand and prefetch. Embedded in the caller's; offset, length, parallel, done and arg are the caller's. */
struct cst_fetch_fill {
	uint64_t offset, length; /* 0, UINT64_MAX: all of it */
	unsigned parallel;	 /* ranges under way; 0: 4 */
	struct cst_fetch_local
		*local; /* where to, borrowed until done; NULL: what the object is bound to when it is started */
	/* Once, on the thread of the cst_fetch, after cst_fetch_fill() or while it returns: 0: all of it is there; -ENOSPC: the cache took no more,
	 * or there is none; -ECANCELED; -ESTALE, -EIO, … as a read's. May start the next one, may not block for long. */
	void (*done)(struct cst_fetch_fill *fill, int rc, const struct cst_error *err);
	void *arg;
	uint64_t bytes_fetched, bytes_saved; /* from the origin; into the cache; atomic, grow while it runs */

	struct cst_fetch *fetch; /* private, from here on; NULL before it is started */
	struct cst_fetch_fill_state *state;
};
void cst_fetch_fill(struct cst_fetch_object *o, struct cst_fetch_fill *fill);
void cst_fetch_fill_cancel(struct cst_fetch_fill *fill); /* done comes soon, or has come */

struct cst_fetch_stats {
	uint64_t memory_limit, memory_used, memory_peak;
	uint64_t bytes_local, local_ranges,
		local_failures; /* read from the cache below; ranges of it; those the origin was asked for again */
	uint64_t bytes_offered, bytes_saved; /* to that cache */
	uint64_t fill_ranges;
	unsigned parallel; /* prefetching GETs that are allowed at a time just now (measured) */
	/* READs by where their bytes were: all in memory (or on their way there); the rest in the cache below; some asked from the origin. */
	uint64_t hits, hits_local, misses;
	uint64_t bytes_read, bytes_fetched, prefetched_ranges, waits_for_memory;
	unsigned requests_in_flight, reads_waiting;
};
void cst_fetch_stats(struct cst_fetch *f, struct cst_fetch_stats *stats);
