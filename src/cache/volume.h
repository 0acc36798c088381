/* A volume: one cache directory, shared by all processes of its user that open it.
 *
 * One of them, elected by flock on DIR/lock, is the owner: only it has the index (index.h), writes the log, evicts, and hands out slots. The
 * others ask it over DIR/socket, but open, read and write the data files themselves (files.h). When the owner dies its connections
 * end; the next process to get the lock replays the log and takes over, the rest connect to it and open again what they have in
 * use. Calls under way meanwhile end with -EAGAIN, which callers take as "not cached".
 *
 *   DIR/                        0700, of the user; refused otherwise
 *     lock  socket  index.log  pins
 *     objects/HH/NAME-VERSION.data   sparse, exactly the object's size; never rewritten, truncated or punched once complete
 *     objects/HH/NAME-VERSION.map    identity and a checksum per block (files.h)
 *     slabs/NNNNNNNN.slab            slots of one size class
 *
 * This is what lies below tiers: it knows nothing of levels. Calls are asynchronous and any thread may make them; the owner answers
 * before the call returns. */
#pragma once

#include "base/buf.h"
#include "base/error.h"
#include "cache/files.h"
#include "cache/index.h"

struct cst_volume;
struct cst_volume_handle; /* an entry in use by this process: not evicted until closed */

struct cst_volume_config {
	const char *path;
	struct cst_index_limits limits;
	/* Owner: an entry is about to be evicted; may block and copy it elsewhere. Called on the evictor's thread without locks; the entry's files
	 * stay until it returns. Returns true when it was kept elsewhere (counted as demoted). NULL: entries are dropped. */
	bool (*demote)(void *arg, const struct cst_index_entry *entry);
	/* The disk failed (EIO, EROFS, ENODEV of data or log): the volume answers -EIO from now on. */
	void (*failed)(void *arg, int rc, const char *what);
	void *arg;
};
/* Blocks: creates the directory, elects, replays the log or connects. The directory itself stays usable by path when it is deleted and made
 * anew by others only after a new cst_volume_open(); until then the volume works on what it has open. */
struct cst_volume *cst_volume_open(const struct cst_volume_config *config, struct cst_error *err);
/* All handles closed. The owner writes a clean end to its log, so that the next one trusts everything. */
void cst_volume_close(struct cst_volume *v);
bool cst_volume_is_owner(const struct cst_volume *v);
int cst_volume_dir(const struct cst_volume *v);		 /* descriptor of DIR, borrowed: for files.h */
const char *cst_volume_path(const struct cst_volume *v); /* where it really is: DIR or DIR/cistern-UID */
/* The caller met EIO, EROFS or ENODEV in the data files (other codes are ignored): the volume is given up, as if it had found that itself. */
void cst_volume_fail(struct cst_volume *v, int rc, const char *what);

enum { CST_VOLUME_CREATE = 1, CST_VOLUME_PIN = 2 };
struct cst_volume_answer {
	int rc; /* 0; -ENOENT (not there, no CREATE); -ENOSPC (doesn't fit at all); -EIO (failed); -EAGAIN (owner changing, or just
		 * being put by another, or too many puts wait); -ENAMETOOLONG. All mean "not cached" */
	struct cst_volume_handle *handle; /* rc 0 */
	struct cst_index_entry entry;	  /* rc 0: a copy */
	bool created;
};
typedef void (*cst_volume_open_fn)(void *arg, const struct cst_volume_answer *answer);
/* Finds the entry of a version; with CREATE a large object (see CST_SLOT_MAX) gets an extent entry without blocks, and other versions of the same
 * name are dropped as soon as nobody uses them. A small one that is not there is -ENOENT: cst_volume_put() makes it. */
void cst_volume_entry_open(struct cst_volume *v, const struct cst_cache_identity *id, unsigned flags,
			   cst_volume_open_fn fn, void *arg);
void cst_volume_entry_close(struct cst_volume_handle *h);

typedef void (*cst_volume_done_fn)(void *arg, int rc);
/* Before `bytes` more are written into an extent's data file: room for them. -ENOSPC: nothing can be evicted for it; bytes that turned out not to be
 * written are given back with a negative number (fn may be NULL then). */
void cst_volume_charge(struct cst_volume_handle *h, int64_t bytes, cst_volume_done_fn fn, void *arg);
/* Every block is in the data file: the owner's thread syncs data, map, then the record with the boot id; fn: 0 once the file may be opened
 * passthrough. -EBADMSG: blocks were damaged; -ENODATA: others have made the files anew, and not all is there. Blocks whose checksum the caller has not just made or
 * checked itself: `verify`, they are read again first. */
void cst_volume_complete(struct cst_volume_handle *h, bool verify, cst_volume_done_fn fn, void *arg);
/* A small object, whole: one slot. fn gets the entry opened, as of cst_volume_entry_open(). The bytes are copied before it returns. */
void cst_volume_put(struct cst_volume *v, const struct cst_cache_identity *id, unsigned flags, const struct iovec *iov,
		    int iov_count, cst_volume_open_fn fn, void *arg);
/* It was read: counts for eviction; cheap, gathered and sent in batches. */
void cst_volume_touch(struct cst_volume_handle *h);
/* Its bytes are not what they should be: forget it now (extents: files are unlinked; open ones stay readable). */
void cst_volume_drop_entry(struct cst_volume_handle *h);

/* ---- administration; these block, so not from a callback of the volume (-EDEADLK) ---- */
int cst_volume_list(struct cst_volume *v, uint64_t *cursor, struct cst_index_entry *entries,
		    unsigned max); /* how many; 0: the end; start with *cursor 0 */
int cst_volume_drop(struct cst_volume *v, const struct cst_index_entry *entry);
int cst_volume_set_pin(struct cst_volume *v, const struct cst_index_entry *entry, bool pin);
/* Prefixes of "BUCKET/KEY" that are pinned when they come in; NUL-separated in `out`. */
int cst_volume_pin_rule(struct cst_volume *v, const char *prefix, bool add);
int cst_volume_pin_rules(struct cst_volume *v, struct cst_buf *out);
int cst_volume_stats(struct cst_volume *v, struct cst_index_stats *stats);
