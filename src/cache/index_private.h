/* What the files of the index share (index*.c and their tests); for nobody else. The module's document is doc/cache-index.md.
 *
 * Locks, outermost first: cst_index.pin_io (file of the pin rules), log_io (writes and syncs of the log), lock (everything else). Functions in _locked need
 * cst_index.lock. Two threads of its own: the evictor (index_room.c) and the keeper (index_keep.c), which alone unlinks files.
 *
 * Life of an entry:
 *
 *   create / reserve ──> PENDING ──> findable ──(drop, superseded, evicted)──> DROPPED ──> freed
 *                           └──(failed, given up)──────────────────────────────────────────^
 *
 * PENDING and DROPPED ones stand in the table, so that nothing else gets their name and version, but are not found. A dropped
 * slot is free again when nobody uses it. A dropped extent goes to the keeper (LEAVING), which unlinks its files and then, when nobody uses
 * it any more, frees the entry; until then its bytes count as unlinked. */
#pragma once

#include "base/clock.h"
#include "cache/index.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#define INDEX_MAGIC 0x43494458u
#define SIZE_LIMIT (UINT64_C(1) << 48) /* sizes of objects are below this */

enum {
	F_SLOT = 1 << 0,
	F_COMPLETE = 1 << 1,
	F_PINNED = 1 << 2,
	F_PENDING = 1 << 3,
	F_DROPPED = 1 << 4,
	F_LEAVING = 1 << 5, /* in the keeper's list */
	F_DIRTY = 1 << 6,   /* the log's record of it is out of date */
	F_UNSURE = 1 << 7,  /* since an unclean stop: its files have not been looked at */
	F_PARKED = 1 << 8,  /* belongs to its queue, but was in use or pinned when its turn came */
	F_MAIN = 1 << 9,    /* its queue: main; else small */
	F_OPENED = 1 << 10, /* the last open counted as its use: the first touch doesn't */
	F_QUEUED = 1 << 11, /* linked into its queue */
	F_FREQ_SHIFT = 12,  /* two bits */
	F_GROWN = 1 << 14,  /* what is charged is not what the log says */
	F_FREQ = 3 << F_FREQ_SHIFT,
};
#define FREQ_MAX 3u

struct entry {
	uint64_t name, version;
	uint32_t size_low;
	uint32_t place_low; /* extents: bytes charged; slots: number of the slab */
	uint16_t size_high;
	uint16_t place_high; /* extents: bytes charged; slots: number in the slab */
	uint32_t chain;	     /* next of its hash chain, or of the free entries */
	uint32_t prev, next; /* in its queue, or the keeper's list */
	uint32_t minute;     /* of the last use, since 1970 */
	uint16_t uses;
	uint16_t flags;
};
_Static_assert(sizeof(struct entry) == 48, "an entry takes 48 bytes");
#define NIL 0u /* no entry has number 0 */

static inline uint64_t entry_size(const struct entry *e)
{
	return e->size_low | (uint64_t)e->size_high << 32;
}
static inline void entry_set_size(struct entry *e, uint64_t size)
{
	e->size_low = (uint32_t)size;
	e->size_high = (uint16_t)(size >> 32);
}
static inline uint64_t entry_charged(const struct entry *e)
{
	return e->place_low | (uint64_t)e->place_high << 32;
}
static inline void entry_set_charged(struct entry *e, uint64_t bytes)
{
	e->place_low = (uint32_t)bytes;
	e->place_high = (uint16_t)(bytes >> 32);
}
static inline unsigned entry_freq(const struct entry *e)
{
	return (e->flags & F_FREQ) >> F_FREQ_SHIFT;
}
static inline void entry_set_freq(struct entry *e, unsigned freq)
{
	e->flags = (uint16_t)((e->flags & ~F_FREQ) | cst_min(freq, FREQ_MAX) << F_FREQ_SHIFT);
}
static inline bool entry_found(const struct entry *e) /* others see it */
{
	return !(e->flags & (F_PENDING | F_DROPPED));
}
static inline bool entry_held(const struct entry *e) /* can't be evicted */
{
	return e->uses || e->flags & (F_PINNED | F_PENDING | F_DROPPED);
}

/* ---- index_table.c: entries by number and by name. Neither ever moves, so growth stops nobody ---- */

#define CHUNK_SHIFT 14
#define CHUNK (1u << CHUNK_SHIFT)
struct table {
	struct entry **chunks; /* of CHUNK entries */
	uint32_t **heads;      /* of CHUNK heads of chains; the table grows by linear hashing */
	uint32_t chunk_count, head_chunks;
	uint32_t used;		 /* numbers given out so far, 0 included */
	uint32_t free;		 /* freed ones, by chain */
	uint32_t count;		 /* in the table */
	uint32_t buckets, level; /* level: a power of two, buckets in [level, 2·level) */
};
void table_init(struct table *t);
void table_fini(struct table *t);
static inline struct entry *table_at(const struct table *t, uint32_t n)
{
	return &t->chunks[n >> CHUNK_SHIFT][n & (CHUNK - 1)];
}
uint32_t table_add(struct table *t, uint64_t name, uint64_t version); /* zeroed but for the two; NIL: full */
void table_remove(struct table *t, uint32_t n);
uint32_t table_find(const struct table *t, uint64_t name, uint64_t version);
uint32_t table_first(const struct table *t, uint64_t name); /* the first of that name, then by table_same() */
uint32_t table_same(const struct table *t, uint32_t n);
uint64_t table_memory(const struct table *t);

/* ---- index_policy.c: S3-FIFO ---- */

struct queue {
	uint32_t head, tail; /* out at head, in at tail */
	uint32_t count;
	uint64_t bytes;
};
/* Names that were evicted lately: lines of 64 bytes, each a ring of 16-bit marks. When it grows, the old one is looked at until
 * the new one has taken as many. */
struct ghost {
	uint16_t *lines, *old;
	uint32_t line_count, old_count;
	uint32_t added; /* since it grew */
};
#define GHOST_MARKS 31u
struct policy {
	struct queue small, main;
	struct ghost ghost;
};

/* ---- index_slab.c ---- */

#define SLOT_CLASSES 25
#define SLAB_MOST_SLOTS 65535u
#define OWNER_FREE 0x80000000u
#define OWNER_END 0xFFFFFFFFu
struct slab {
	uint32_t number;	    /* of its file */
	uint32_t length;	    /* bytes */
	uint32_t slots, live, held; /* held: live ones that can't be evicted now */
	uint32_t first_free;	    /* a slot, or OWNER_END */
	uint8_t class;
	bool closed;		  /* gives out no slots: its file is being made, or it is being emptied */
	bool listed;		  /* among those of its class that have free slots */
	bool lost;		  /* its file is gone: gives out no slots any more */
	struct slab *prev, *next; /* of these */
	uint32_t owners[];	  /* of each slot: its entry, or OWNER_FREE + the next free slot, or OWNER_END */
};
struct slot_class {
	struct slab *first, *last; /* slabs with free slots */
	uint32_t live;
	bool creating; /* a slab */
};
struct slabs {
	struct slab **sorted; /* by number */
	uint32_t count, cap;
	uint32_t next_number;
	uint64_t quota_share; /* bytes of a slab, before it is made to hold whole slots */
	uint64_t whole;	      /* bytes of all slabs */
	uint64_t needed;      /* bytes of as many slabs as the live slots would fill */
	bool replaying;	      /* free slots are not listed yet */
	struct slot_class classes[SLOT_CLASSES];
};

/* ---- index_log.c ---- */

enum record_type { R_HEADER = 1, R_SESSION, R_CLEAN, R_SLAB, R_SLAB_GONE, R_ENTRY, R_GONE };
#define RECORD_SIZE 64u
struct record { /* as it is in memory; on disk: see index_log.c */
	enum record_type type;
	uint16_t flags; /* of the entry: those of LOGGED_FLAGS */
	uint32_t minute;
	uint64_t name, version, size, place;
	uint64_t synced; /* records known to be on the disk when this one was made */
};
#define LOGGED_FLAGS (F_SLOT | F_COMPLETE | F_PINNED | F_MAIN | F_UNSURE | F_FREQ)
void record_encode(const struct record *r, uint64_t log_id, uint64_t seq, uint8_t out[RECORD_SIZE]);
bool record_decode(const uint8_t in[RECORD_SIZE], uint64_t log_id, uint64_t *seq, struct record *r);

struct log {
	int fd; /* -1: none */
	uint64_t id;
	uint64_t records;	 /* appended, and so the number of the next */
	uint64_t synced;	 /* of those: on the disk */
	uint64_t written;	 /* bytes in the file */
	uint64_t reserved;	 /* bytes that the file system keeps for it */
	struct cst_buf pending;	 /* under cst_index.lock */
	struct cst_buf flushing; /* under log_io: taken from pending, not yet in the file */
};

/* ---- the index ---- */

struct pin_rule {
	char *prefix;
	size_t len;
};

#define SCAN_DONE 257u
struct cst_index {
	unsigned magic;
	int dir;
	struct cst_index_config config;
	uint64_t high, low; /* bytes */
	uint64_t boot[2];

	pthread_mutex_t log_io;
	struct log log, next; /* next: the one that is being written to replace it; fd −1: none */

	pthread_mutex_t lock;
	pthread_cond_t evict_wake, keep_wake, room; /* room: bytes were freed, or the evictor has nothing left */
	pthread_t evictor, keeper;
	bool stopping;
	int rc; /* 0, or -EIO for good */

	struct table table;
	struct policy policy;
	struct slabs slabs;

	pthread_mutex_t pin_io; /* outside lock: one at a time changes the rules and their file */
	struct pin_rule *rules;
	unsigned rule_count;

	/* Bytes: what extents take that are in the table, dropped ones included; those of dropped ones in use; those the keeper is about to free. */
	uint64_t extents, unlinked, leaving_bytes;
	uint64_t dead_slabs; /* bytes of slabs whose file the keeper is about to unlink */
	uint32_t leaving;    /* extents for the keeper, by next */
	uint32_t leaving_last;
	struct slab *dead;
	unsigned reaping;      /* what the keeper has in hand of both */
	unsigned uncompleting; /* entries that are no longer complete, but are in the log on the disk */

	uint64_t found, pinned, in_use; /* entries */
	uint64_t wanted;		/* bytes the largest waiting charge lacks room for */
	unsigned waiters;
	bool evicting, guarding, stuck, refusing;
	int64_t fs_room;	/* bytes above keep_free, as of the last look, less what was charged since */
	uint64_t fs_size;	/* bytes */
	int64_t fs_inodes_room; /* likewise */
	uint64_t charged_since; /* the last look */
	bool look;		/* asked for */
	int64_t looked;
	bool no_log;   /* the log takes nothing now (disk full): nothing is admitted */
	bool log_void; /* and what it had was thrown away */
	bool kick;     /* the log has something to write */

	uint32_t rewrite_least; /* records: a log with fewer is left alone */
	uint32_t rewrite_at;	/* next entry to go into `next` */
	uint32_t check_at;	/* next entry to be checked after an unclean stop; 0: all are */
	unsigned scan_folder;	/* next folder of objects/ to be searched for unlogged files, SCAN_DONE: none */
	uint32_t scan_slabs;	/* unlogged slabs have numbers below this */

	uint64_t seed; /* of the counting of touches */
	struct cst_index_stats stats;
};

static inline uint64_t extent_overhead(uint64_t size) /* bytes of a map */
{
	return (CST_MAP_HEADER + 8 * cst_extent_blocks(size) + 4095) & ~UINT64_C(4095);
}
static inline uint64_t extent_bytes(const struct entry *e)
{
	return entry_charged(e) + extent_overhead(entry_size(e));
}
static inline struct entry *at(const struct cst_index *x, uint32_t n)
{
	return table_at(&x->table, n);
}
uint64_t entry_bytes(const struct cst_index *x, const struct entry *e);
void index_entry_copy(const struct cst_index *x, const struct entry *e, struct cst_index_entry *out);

/* index.c: an index without a log and threads; what an entry goes through. */
struct cst_index *index_new(const struct cst_index_config *config);
void index_delete(struct cst_index *x);
uint32_t index_minute(void);
void index_show_locked(struct cst_index *x, uint32_t n); /* PENDING → findable; keeps its uses */
void index_drop_locked(struct cst_index *x, uint32_t n);
void index_free_locked(struct cst_index *x, uint32_t n); /* gives up its place */
void index_use_locked(struct cst_index *x, uint32_t n);
void index_unuse_locked(struct cst_index *x, uint32_t n);
void index_pin_locked(struct cst_index *x, uint32_t n, bool pin);
void index_charge_locked(struct cst_index *x, uint32_t n, int64_t bytes); /* extents; no questions asked */
/* The disk is no good: everything answers -EIO from now on. Not under the lock. */
void index_fail(struct cst_index *x, int rc, const char *what);
static inline bool index_is_disk_failure(int rc)
{
	return rc == -EIO || rc == -EROFS || rc == -ENODEV || rc == -ENXIO || rc == -EUCLEAN;
}

/* index_policy.c */
void policy_init(struct policy *p);
void policy_fini(struct policy *p);
void policy_insert_locked(struct cst_index *x, uint32_t n); /* a new one */
void policy_leave_locked(struct cst_index *x, uint32_t n);  /* it goes, or is held for long */
void policy_park_locked(struct cst_index *x, uint32_t n);
void policy_unpark_locked(struct cst_index *x, uint32_t n,
			  bool fresh); /* nothing holds it any more; fresh: to the end of its queue */
void policy_hit_locked(struct cst_index *x, uint32_t n, unsigned reads);
void policy_count_locked(struct cst_index *x, const struct entry *e, int64_t bytes); /* its size changed */
void policy_restore_locked(struct cst_index *x); /* queues of what came from the log */
/* The next victim, taken out of its queue; NIL: none after `steps`, which is what is left of them. `extents`: no slots. */
uint32_t policy_victim_locked(struct cst_index *x, bool extents, unsigned *steps);
void policy_remember_locked(struct cst_index *x, const struct entry *e); /* it was evicted from the small queue */
uint64_t policy_memory(const struct policy *p);

/* index_slab.c */
uint32_t slot_class_length(unsigned class);
int slot_class_of(uint32_t length); /* the smallest that holds it; −1: none */
struct slab *slab_find(const struct cst_index *x, uint32_t number);
struct slab *slab_from(const struct cst_index *x, uint32_t number); /* the first with that number or a larger one */
struct slab *slab_add_locked(struct cst_index *x, uint32_t number, unsigned class, uint32_t length);
uint32_t slab_length(const struct cst_index *x, unsigned class); /* of a new one */
void slab_remove_locked(struct cst_index *x, struct slab *s);	 /* frees it, all slots must be free */
void slab_close_locked(struct cst_index *x, struct slab *s);
void slab_open_locked(struct cst_index *x,
		      struct slab *s); /* its free slots may be taken; without live ones it goes to the keeper */
void slab_made_locked(struct cst_index *x, struct slab *s,
		      uint32_t n);		/* its file is there: a slot of its class for n */
void slabs_restore_locked(struct cst_index *x); /* the end of a replay */
/* A free slot of the class for entry n; false: none in any slab. */
bool slot_take_locked(struct cst_index *x, unsigned class, uint32_t n);
void slot_take_at_locked(struct cst_index *x, struct slab *s, uint32_t slot, uint32_t n); /* replay */
void slot_give_locked(struct cst_index *x, uint32_t n); /* the last one of a slab gives the slab to the keeper */
struct cst_slot_place slot_place(const struct cst_index *x, const struct entry *e);
void slot_held_locked(struct cst_index *x, const struct entry *e, int change);
struct slab *slab_emptiest_locked(struct cst_index *x); /* none of whose slots is held; NULL */
uint64_t slabs_memory(const struct slabs *s);
void slabs_fini(struct slabs *s);

/* index_log.c */
void log_init(struct log *log);
void log_fini(struct log *log);
void log_entry_locked(struct cst_index *x, uint32_t n);
void log_gone_locked(struct cst_index *x, const struct entry *e);
void log_slab_locked(struct cst_index *x, const struct slab *s, bool gone);
int log_flush(struct cst_index *x);
int log_sync(struct cst_index *x); /* everything appended before the call is on the disk */
/* The log could not take what must be on the disk before files go: it is emptied, so that it claims nothing. */
int log_forget(struct cst_index *x);
int log_end(struct cst_index *x); /* the clean end, of a stopped index */
bool log_due_locked(const struct cst_index *x);
/* A piece of the rewriting of the log; starts it when it isn't under way. 1: not finished yet. */
int log_rewrite_step(struct cst_index *x);
void log_rewrite_abort(struct cst_index *x);
int log_start(struct cst_index *x, struct cst_error *err); /* opens, replays, begins a session */

/* index_replay.c */
struct replay {
	struct cst_index *x;
	uint64_t log_id, records; /* good ones so far */
	uint64_t synced;	  /* the most that a record says to be on the disk */
	uint64_t boot[2];
	bool clean, scan; /* a clean end; but unlogged files may lie about */
	bool broken;	  /* after `records`; what follows is only looked at for `synced` */
	bool foreign;	  /* not a log of this format */
	struct cst_buf rest;
};
void replay_init(struct replay *r, struct cst_index *x);
void replay_feed(struct replay *r, const void *data, size_t len);
/* Queues, counts, what has to be looked at. Returns false when the log must be written anew. */
bool replay_finish(struct replay *r);

/* index_room.c */
uint64_t room_used_locked(const struct cst_index *x);
/* Is there room for `bytes` more, of which `data` will be written now? 1: yes; 0: lets go of the lock and waits for the evictor, ask
 * again; -ENOSPC: no, and not before `deadline` (0: doesn't wait); -EIO. */
int room_ask_locked(struct cst_index *x, uint64_t bytes, uint64_t data, int64_t deadline);
void room_take_locked(struct cst_index *x, uint64_t data, unsigned inodes); /* it will be written */
void room_look(struct cst_index *x);					    /* at the file system; not under the lock */
void room_changed_locked(struct cst_index *x); /* the evictor, if it was stuck, may find something again */
void room_wake_locked(struct cst_index *x);    /* the evictor looks anew at what there is to do */
void room_grown_locked(struct cst_index *x);   /* more is taken than before */
#define ROOM_WAIT CST_NS_PER_S
int64_t room_cond_wait_locked(struct cst_index *x, pthread_cond_t *cond, int64_t deadline);
void *room_evictor(void *arg);

/* index_keep.c */
void *keep_thread(void *arg);
void keep_reap(struct cst_index *x);	/* unlinks what has been dropped */
void keep_prepare(struct cst_index *x); /* before the threads run */
/* Looks at the files of an extent that is unsure; it must be in use by the caller. */
void keep_check(struct cst_index *x, uint32_t n);
/* Looks at the file of a slab; when it is gone or has another length, what is in it goes, too. */
void keep_check_slab(struct cst_index *x, uint32_t number);
/* Blocks of an extent on the disk in bytes; -errno. */
int keep_count(struct cst_index *x, uint64_t name, uint64_t version, uint64_t *size, uint64_t *bytes);

/* index_pins.c */
int pins_load(struct cst_index *x, struct cst_error *err);
bool pins_match_locked(const struct cst_index *x, const struct cst_cache_identity *id);
void pins_fini(struct cst_index *x);
