/* What the owner does to the files of entries, on its pools. */
#include "cache/volume_private.h"

#include <errno.h>

#define VERIFY_BLOCKS 8u

static uint64_t block_bytes(const struct cst_extent *e, uint64_t block)
{
	return cst_min((uint64_t)CST_CACHE_BLOCK, e->size - block * CST_CACHE_BLOCK);
}

static int disk_outcome(struct cst_volume *v, int rc, const char *what)
{
	if (cst_volume_is_disk_error(rc)) {
		cst_volume_give_up(v, rc, what);
		return -EIO;
	}
	return rc;
}

/* The entry, which the caller keeps from being evicted; *epoch says by which index. */
static int look_up(struct cst_volume *v, uint64_t name, uint64_t version, struct cst_index_entry *entry,
		   uint64_t *epoch)
{
	struct cst_index *x = cst_volume_index_get(v);
	if (!x)
		return cst_volume_refusal(v);
	*epoch = v->epoch;
	int rc = cst_index_entry_get(x, name, version, entry);
	cst_volume_index_put(v);
	return rc == -ENOENT ? -EAGAIN : rc;
}

/* The index that was asked before, or NULL: then nothing is as it was. */
static struct cst_index *same_index(struct cst_volume *v, uint64_t epoch)
{
	struct cst_index *x = cst_volume_index_get(v);
	if (x && v->epoch == epoch)
		return x;
	if (x)
		cst_volume_index_put(v);
	return NULL;
}

/* A block is not what it should be: it is no longer there, and takes no room. */
static void drop_block(struct cst_volume *v, const struct cst_extent *e, uint64_t block, uint64_t epoch)
{
	uint8_t there = 0;
	struct cst_index *x;
	if (cst_extent_present(e, block, 1, &there) < 0 || !there || cst_extent_forget(e, block) < 0)
		return;
	x = same_index(v, epoch);
	if (!x)
		return;
	cst_index_charge(x, e->name, e->version, -(int64_t)block_bytes(e, block));
	cst_volume_index_put(v);
}

/* What could not be written back is still in the page cache and looks right, and the next sync would say nothing of it: so there must be no
 * next one. */
static void drop_entry(struct cst_volume *v, const struct cst_extent *e, uint64_t epoch)
{
	struct cst_index *x = same_index(v, epoch);
	if (!x)
		return;
	cst_index_drop(x, e->name, e->version);
	cst_volume_index_put(v);
}

/* Who asked for it is another process, and its connection is gone: all handles of this one are closed by then. */
static bool is_closing(struct cst_volume *v)
{
	pthread_mutex_lock(&v->lock);
	bool closing = v->stopping;
	pthread_mutex_unlock(&v->lock);
	return closing;
}

/* All blocks are read; the bad ones are dropped. */
static int verify_blocks(struct cst_volume *v, const struct cst_extent *e, uint64_t epoch)
{
	uint64_t count = cst_extent_blocks(e->size);
	CST_AUTO_FREE uint8_t *room = cst_xmalloc((size_t)VERIFY_BLOCKS * CST_CACHE_BLOCK);
	int result = 0;
	for (uint64_t first = 0; first < count;) {
		if (is_closing(v))
			return -EAGAIN;
		uint64_t n = cst_min(count - first, (uint64_t)VERIFY_BLOCKS), bad = 0;
		struct iovec iov = {room, (size_t)((n - 1) * CST_CACHE_BLOCK + block_bytes(e, first + n - 1))};
		int rc = cst_extent_read(e, first, &iov, 1, false, &bad);
		if (rc < 0 && rc != -EBADMSG)
			return rc;
		if (rc < 0) {
			drop_block(v, e, bad, epoch);
			result = rc;
		}
		first = rc < 0 ? bad + 1 : first + n;
	}
	return result;
}

static int verify_and_sync(struct cst_volume *v, struct cst_extent *e, bool verify, uint64_t epoch)
{
	int rc = cst_extent_open(v->dir, NULL, true, e);
	if (rc < 0)
		return rc == -ENOENT ? -ENODATA : rc;
	if (verify) {
		rc = verify_blocks(v, e, epoch);
	} else {
		uint64_t bytes = 0;
		rc = cst_extent_count(e, &bytes);
		if (rc == 0 && bytes != e->size)
			rc = -ENODATA;
	}
	if (rc == 0) {
		rc = cst_extent_sync(e);
		if (rc < 0)
			drop_entry(v, e, epoch);
	}
	cst_extent_close(e);
	return rc;
}

int cst_volume_work_complete(struct cst_volume *v, uint64_t name, uint64_t version, bool verify)
{
	struct cst_index_entry entry = {0};
	struct cst_extent e = {.data = -1, .map = -1, .name = name, .version = version};
	uint64_t epoch = 0;
	int rc = look_up(v, name, version, &entry, &epoch);
	if (rc < 0)
		return disk_outcome(v, rc, "completing an entry");
	if (entry.kind != CST_ENTRY_EXTENT)
		rc = -EINVAL;
	else if (!entry.complete)
		rc = verify_and_sync(v, &e, verify, epoch);
	if (rc == 0 && !entry.complete) {
		struct cst_index *x = same_index(v, epoch);
		rc = x ? cst_index_complete(x, name, version) : -EAGAIN;
		if (x)
			cst_volume_index_put(v);
		rc = rc == -ENOENT ? -EAGAIN : rc;
	}
	return disk_outcome(v, rc, "completing an entry");
}

void cst_volume_work_recount(struct cst_volume *v, uint64_t name, uint64_t version, uint64_t charged)
{
	struct cst_index_entry entry = {0};
	struct cst_extent e = {.data = -1, .map = -1, .name = name, .version = version};
	uint64_t epoch = 0;
	int rc = look_up(v, name, version, &entry, &epoch);
	if (rc < 0)
		return;
	if (entry.kind == CST_ENTRY_EXTENT && cst_extent_open(v->dir, NULL, false, &e) == 0) {
		uint64_t bytes = 0;
		rc = cst_extent_count(&e, &bytes);
		uint64_t excess = rc == 0 && entry.cached > bytes ? entry.cached - bytes : 0;
		struct cst_index *x = excess ? same_index(v, epoch) : NULL;
		if (x) {
			cst_index_charge(x, name, version, -(int64_t)cst_min(excess, charged));
			cst_volume_index_put(v);
		}
		cst_extent_close(&e);
	}
}

int cst_volume_work_charge(struct cst_index *x, uint64_t name, uint64_t version, int64_t bytes)
{
	struct cst_index_entry entry;
	int rc = cst_index_charge(x, name, version, bytes);
	if (rc == 0 && bytes > 0 && cst_index_entry_get(x, name, version, &entry) == 0 && entry.cached > entry.size)
		cst_index_charge(x, name, version, -(int64_t)(entry.cached - entry.size));
	return rc;
}

int cst_volume_work_reserve(struct cst_index *x, const struct cst_cache_identity *id, bool pin,
			    struct cst_index_entry *entry, bool *created)
{
	*created = false;
	int rc = cst_index_entry_open(x, id, false, pin, entry, created);
	if (rc != -ENOENT)
		return rc;
	rc = cst_index_slot_reserve(x, id, pin, entry);
	*created = rc == 0;
	/* Another process was quicker. */
	if (rc == -EEXIST) {
		bool ignored;
		rc = cst_index_entry_open(x, id, false, pin, entry, &ignored);
	}
	return rc;
}

int cst_volume_work_write_slot(struct cst_volume *v, const struct cst_index_entry *entry,
			       const struct cst_cache_identity *id, const struct iovec *iov, int iov_count)
{
	CST_AUTO_CLOSE int slab = cst_slab_open(v->dir, entry->slot.slab, false, 0);
	if (slab < 0)
		return disk_outcome(v, slab, "opening a slab");
	return disk_outcome(v, cst_slot_write(slab, &entry->slot, id, iov, iov_count), "writing a slab");
}
