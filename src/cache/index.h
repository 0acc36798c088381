/* The index of a volume: what is in it, how much it takes, who goes next. Exists in the owner only. Its document is doc/cache-index.md.
 *
 * In memory: less than 64 bytes an entry with all tables, hashed by name, so that the versions of an object stand in one chain. On
 * disk: DIR/index.log, records of one size with a CRC32C each: a snapshot, then what happened since; rewritten to a snapshot (new
 * file, fsync, rename) when it is twice the entries. A torn tail ends the replay. The log says what should be there; the data files prove what is
 * (files.h), so a lost record costs a file that is found and removed (or taken in again) in the background, never a wrong byte. A completeness
 * record is written and synced after the data was.
 *
 * Room: used = data blocks + maps + whole slabs + files unlinked while in use. Above high·quota the evictor's thread takes entries by
 * S3-FIFO (small queue a tenth, main, ghost) until low·quota; never pinned ones or those in use. For the two watermarks slabs count as if they were packed:
 * free slots are room for what has their size. A charge that would pass quota, or leave less than keep_free bytes or 1 % of
 * the inodes on the file system (looked at every second and after each 256 MiB), waits for the evictor at most a second, then is refused: -ENOSPC; at once when all
 * that is left is pinned or in use.
 *
 * One mutex; calls are short (no data is read or written; files are created, unlinked and synced outside the mutex). Any thread. */
#pragma once

#include "base/buf.h"
#include "base/error.h"
#include "cache/files.h"

struct cst_index;

struct cst_index_limits {
	uint64_t quota;	    /* bytes */
	double high, low;   /* shares of it */
	uint64_t keep_free; /* bytes of the file system */
};
struct cst_index_entry {
	uint64_t name, version, size;
	uint64_t cached; /* bytes charged for blocks; slots: the size */
	enum cst_entry_kind kind;
	struct cst_slot_place slot;
	bool complete; /* extents: verified and synced, passthrough may use it */
	bool pinned, in_use;
	int64_t used; /* wall clock s, to the minute */
};
struct cst_index_stats {
	uint64_t quota, used, unlinked; /* unlinked: part of used, files gone but in use */
	uint64_t entries, pinned, in_use;
	uint64_t evicted, demoted, refused_bytes, stops_high, stops_low;
	uint64_t replayed, lost; /* at the last start: records, entries whose files were missing or wrong */
	uint64_t memory;	 /* bytes of the index itself */
	bool full;		 /* the last one who asked for room was refused */
};
struct cst_index_config {
	int dir; /* borrowed */
	struct cst_index_limits limits;
	bool (*demote)(void *arg,
		       const struct cst_index_entry *entry); /* as in volume.h; the entry is in use meanwhile */
	/* Once, from any thread, also from within a call; without locks of the index. Everything answers -EIO from then on. */
	void (*failed)(void *arg, int rc, const char *what);
	void *arg;
};
/* Blocks: replays the log (0.6 s of CPU for a million entries) and starts the threads. The caller holds the volume's lock file. */
struct cst_index *cst_index_open(const struct cst_index_config *config, struct cst_error *err);
/* Writes the clean end. What is still in use counts as closed. */
void cst_index_close(struct cst_index *x);

/* What cst_volume_* ask for (volume.h); 0 or -errno; -EIO: the disk failed. open and put count one use, which close takes back.
 *
 * Opens an entry; with `create` an object larger than CST_SLOT_MAX gets an extent and its files, and other versions of it are dropped. *created: it has no
 * blocks (one whose record an unclean stop lost comes with what its files hold). -ENOENT: not there; -EAGAIN: of that name and version something is
 * being made or removed; -ENOSPC. Doesn't wait for room. An open counts as a use for eviction. */
int cst_index_entry_open(struct cst_index *x, const struct cst_cache_identity *id, bool create, bool pin,
			 struct cst_index_entry *entry, bool *created);
void cst_index_entry_close(struct cst_index *x, uint64_t name, uint64_t version);
/* What is known of an entry, without using it: no use is counted. -ENOENT. */
int cst_index_entry_get(struct cst_index *x, uint64_t name, uint64_t version, struct cst_index_entry *entry);
/* Waits up to a second for room. -ENOENT: it is not there, or was dropped: nothing more may be written into its files. */
int cst_index_charge(struct cst_index *x, uint64_t name, uint64_t version, int64_t bytes);
/* Reserves a slot: the caller writes it (files.h), then commits or gives up, always. Only a committed one is found by others. Waits up to a second
 * for room. -EEXIST: it is there; -EAGAIN: somebody else is putting or removing it; -ENOSPC. */
int cst_index_slot_reserve(struct cst_index *x, const struct cst_cache_identity *id, bool pin,
			   struct cst_index_entry *entry);
int cst_index_slot_commit(struct cst_index *x, const struct cst_index_entry *entry, bool written);
/* After the caller has verified and synced the files: writes and syncs the record. -ENOENT; -ENOSPC: no room for the record. */
int cst_index_complete(struct cst_index *x, uint64_t name, uint64_t version);
/* `count` reads since the last. The first one after an open doesn't count, the open did; of a large object each counts by its share. */
void cst_index_touch(struct cst_index *x, uint64_t name, uint64_t version, unsigned count);
/* No longer found, at once; files are unlinked soon after, a slot is free when nobody uses it any more. */
int cst_index_drop(struct cst_index *x, uint64_t name, uint64_t version);
int cst_index_pin(struct cst_index *x, uint64_t name, uint64_t version, bool pin);
int cst_index_pin_rule(struct cst_index *x, const char *prefix, bool add); /* on the disk when it returns */
void cst_index_pin_rules(struct cst_index *x, struct cst_buf *out);	   /* with a NUL after each */
/* How many; 0: the end. *cursor is 0 at first. What changes meanwhile may be missed or come twice. */
unsigned cst_index_list(struct cst_index *x, uint64_t *cursor, struct cst_index_entry *entries, unsigned max);
void cst_index_stats(struct cst_index *x, struct cst_index_stats *stats);
