/* What `cistern cache` does: going through all entries of all levels. The index knows hashes; names are in the headers of maps and slots. */
#define CST_LOG_AREA "cache"
#include "base/clock.h"
#include "base/log.h"
#include "cache/cache_private.h"

#include <errno.h>

#define PAGE 256u
#define VERIFY_BYTES (1u << 20)

/* The identity of an entry; its texts lie in `text`. */
static int identify(struct cst_cache_volume *v, const struct cst_index_entry *e, struct cst_cache_identity *id,
		    struct cst_buf *text)
{
	int rc;
	cst_buf_clear(text);
	if (e->kind == CST_ENTRY_SLOT) {
		struct cst_slab_file *f = cst_slab_get(v, e->slot.slab, false, &rc);
		if (!f)
			return rc;
		rc = cst_slot_identity(f->fd, &e->slot, id, text);
		if (rc == 0 && (id->name != e->name || id->version != e->version))
			rc = -EBADMSG;
		cst_slab_put(v, f, rc != 0);
		return rc;
	}
	struct cst_extent x = {-1, -1, e->name, e->version, e->size};
	rc = cst_extent_open(cst_volume_dir(v->volume), NULL, false, &x);
	if (rc != 0)
		return rc;
	rc = cst_extent_identity(&x, id, text);
	cst_extent_close(&x);
	return rc;
}

/* "BUCKET/KEY" begins with the prefix. */
static bool is_below(const struct cst_cache_identity *id, struct cst_slice prefix)
{
	if (prefix.len <= id->bucket.len)
		return cst_slice_starts(id->bucket, prefix);
	if (!cst_slice_starts(prefix, id->bucket) || prefix.data[id->bucket.len] != '/')
		return false;
	size_t skip = id->bucket.len + 1;
	return cst_slice_starts(id->key, (struct cst_slice){prefix.data + skip, prefix.len - skip});
}

/* What is done with one entry. Returns false to stop. */
typedef bool (*entry_fn)(void *arg, struct cst_cache_volume *v, const struct cst_index_entry *e,
			 const struct cst_cache_identity *id);

static int each_of_volume(struct cst_cache_volume *v, struct cst_slice prefix, entry_fn fn, void *arg, bool *stopped)
{
	CST_AUTO_FREE struct cst_index_entry *page = cst_xcalloc(PAGE, sizeof(*page));
	CST_AUTO_BUF text = CST_BUF_INIT;
	uint64_t cursor = 0;
	for (;;) {
		int count = cst_volume_list(v->volume, &cursor, page, PAGE);
		if (count <= 0)
			return count;
		for (int i = 0; i < count; i++) {
			struct cst_cache_identity id;
			/* Gone since, or being written: there is nothing to tell of it. */
			if (identify(v, &page[i], &id, &text) != 0 || !is_below(&id, prefix))
				continue;
			if (!fn(arg, v, &page[i], &id)) {
				*stopped = true;
				return 0;
			}
		}
	}
}

static int each(struct cst_cache *cache, const char *prefix, entry_fn fn, void *arg, struct cst_error *err)
{
	CST_CHECK(cache, CST_CACHE_MAGIC);
	bool stopped = false;
	for (unsigned i = 0; i < cache->level_count; i++) {
		for (unsigned k = 0; k < cache->levels[i].volume_count && !stopped; k++) {
			struct cst_cache_volume *v = &cache->levels[i].volumes[k];
			if (cst_cache_volume_is_out(v))
				continue;
			int rc = each_of_volume(v, cst_slice_of(prefix), fn, arg, &stopped);
			if (rc == 0)
				continue;
			cst_error_set(err, -rc, "can't list the cache directory %s", v->path);
			cst_error_why(err, "%s",
				      rc == -EAGAIN ? "the process that looks after it has just ended" : strerror(-rc));
			if (rc == -EAGAIN)
				cst_error_hint(err, "try again");
			return rc;
		}
	}
	return 0;
}

/* ---- listing ---- */

struct listing {
	bool (*fn)(void *arg, const struct cst_cache_entry *e);
	void *arg;
	struct cst_buf bucket, etag;
};

static struct cst_cache_entry entry_of(struct cst_cache_volume *v, const struct cst_index_entry *e,
				       const struct cst_cache_identity *id, struct cst_buf *bucket,
				       struct cst_buf *etag)
{
	cst_buf_clear(bucket);
	cst_buf_add_slice(bucket, id->bucket);
	cst_buf_add(bucket, "", 1);
	cst_buf_clear(etag);
	cst_buf_add_slice(etag, id->etag);
	cst_buf_add(etag, "", 1);
	bool slot = e->kind == CST_ENTRY_SLOT;
	return (struct cst_cache_entry){
		.bucket = bucket->data,
		.key = id->key,
		.etag = etag->data,
		.size = e->size,
		.cached = slot ? e->size : cst_min(e->cached, e->size),
		.level = v->level,
		.pinned = e->pinned,
		.complete = slot || e->complete,
		.in_use = e->in_use,
		.used = e->used,
	};
}

static bool list_one(void *arg, struct cst_cache_volume *v, const struct cst_index_entry *e,
		     const struct cst_cache_identity *id)
{
	struct listing *l = arg;
	struct cst_cache_entry entry = entry_of(v, e, id, &l->bucket, &l->etag);
	return l->fn(l->arg, &entry);
}

int cst_cache_list(struct cst_cache *cache, const char *prefix, bool (*fn)(void *arg, const struct cst_cache_entry *e),
		   void *arg, struct cst_error *err)
{
	struct listing l = {fn, arg, CST_BUF_INIT, CST_BUF_INIT};
	int rc = each(cache, prefix, list_one, &l, err);
	cst_buf_fini(&l.bucket);
	cst_buf_fini(&l.etag);
	return rc;
}

/* ---- dropping and pinning ---- */

struct change {
	int64_t count;
	int rc;
	bool pin;
};

static bool drop_one(void *arg, struct cst_cache_volume *v, const struct cst_index_entry *e,
		     const struct cst_cache_identity *id)
{
	struct change *c = arg;
	(void)id;
	int rc = cst_volume_drop(v->volume, e);
	if (rc == 0)
		c->count++;
	else if (rc != -ENOENT)
		c->rc = rc;
	return true;
}

static int64_t changed(const struct change *c, const char *verb, const char *prefix, struct cst_error *err)
{
	if (c->rc == 0)
		return c->count;
	cst_error_set(err, -c->rc, "can't %s everything below \"%s\"", verb, prefix);
	cst_error_why(err, "%s", strerror(-c->rc));
	return c->rc;
}

int64_t cst_cache_drop(struct cst_cache *cache, const char *prefix, struct cst_error *err)
{
	struct change all = {0}, c;
	/* Once more when something was there: what is dropped may move what stands behind it in the list. */
	for (int pass = 0; pass < 3; pass++) {
		c = (struct change){0};
		int rc = each(cache, prefix, drop_one, &c, err);
		if (rc != 0)
			return rc;
		/* Those in use are there until they no longer are. */
		all.count = cst_max(all.count, c.count);
		all.rc = c.rc;
		if (c.count == 0)
			break;
	}
	return changed(&all, "drop", prefix, err);
}

static bool pin_one(void *arg, struct cst_cache_volume *v, const struct cst_index_entry *e,
		    const struct cst_cache_identity *id)
{
	struct change *c = arg;
	(void)id;
	if (e->pinned == c->pin)
		return true;
	int rc = cst_volume_set_pin(v->volume, e, c->pin);
	if (rc == 0)
		c->count++;
	else if (rc != -ENOENT)
		c->rc = rc;
	return true;
}

int64_t cst_cache_pin(struct cst_cache *cache, const char *prefix, bool pin, struct cst_error *err)
{
	CST_CHECK(cache, CST_CACHE_MAGIC);
	struct change c = {.pin = pin};
	for (unsigned i = 0; i < cache->level_count; i++) {
		for (unsigned k = 0; k < cache->levels[i].volume_count; k++) {
			struct cst_cache_volume *v = &cache->levels[i].volumes[k];
			int rc = cst_cache_volume_is_out(v) ? 0 : cst_volume_pin_rule(v->volume, prefix, pin);
			if (rc == 0 || (rc == -ENOENT && !pin))
				continue;
			cst_error_set(err, -rc, "can't %s \"%s\" in %s", pin ? "pin" : "unpin", prefix, v->path);
			cst_error_why(err, "%s", strerror(-rc));
			return rc;
		}
	}
	int rc = each(cache, prefix, pin_one, &c, err);
	return rc != 0 ? rc : changed(&c, pin ? "pin" : "unpin", prefix, err);
}

/* ---- verifying ---- */

struct verifying {
	struct cst_cache_verify *result;
	void (*bad)(void *arg, const struct cst_cache_entry *e, uint64_t block);
	void *arg;
	uint64_t rate;
	int64_t begun;
	char *memory;
	struct cst_wait wait;
	struct cst_buf bucket, etag;
};

static void pace(struct verifying *x, uint64_t bytes)
{
	x->result->bytes += bytes;
	if (x->rate == 0)
		return;
	int64_t due = x->begun + (int64_t)((double)x->result->bytes / (double)x->rate * (double)CST_NS_PER_S);
	int64_t now = cst_now();
	if (due > now)
		cst_sleep(due - now);
}

static void tell_bad(struct verifying *x, struct cst_cache_volume *v, const struct cst_index_entry *e,
		     const struct cst_cache_identity *id, uint64_t block)
{
	struct cst_level *level = cst_cache_volume_level(v);
	cst_count(level->counters.corrupt, level->metrics.corrupt, 1);
	x->result->bad_blocks++;
	if (!x->bad)
		return;
	struct cst_cache_entry entry = entry_of(v, e, id, &x->bucket, &x->etag);
	x->bad(x->arg, &entry, block);
}

/* All blocks of an open extent; returns how many are bad, or -errno of a sick disk. *present: how many are there and right. */
static int64_t verify_blocks(struct verifying *x, struct cst_cache_volume *v, const struct cst_index_entry *e,
			     const struct cst_cache_identity *id, const struct cst_extent *extent,
			     const struct cst_volume_answer *a, uint64_t *present)
{
	uint64_t blocks = (id->size + CST_CACHE_BLOCK - 1) / CST_CACHE_BLOCK;
	bool complete = a->entry.complete;
	CST_AUTO_FREE uint8_t *map = cst_xcalloc(1, (blocks + 7) / 8);
	int64_t bad_blocks = 0;
	*present = 0;
	if (cst_extent_present(extent, 0, blocks, map) != 0)
		return 1;
	for (uint64_t b = 0, n; b < blocks; b += n) {
		n = 1;
		/* In a complete file each block must be there. */
		if (!complete && !(map[b / 8] >> (b % 8) & 1))
			continue;
		while (n < VERIFY_BYTES / CST_CACHE_BLOCK && b + n < blocks &&
		       (complete || (map[(b + n) / 8] >> ((b + n) % 8) & 1)))
			n++;
		struct iovec iov = {x->memory, cst_min(id->size, (b + n) * CST_CACHE_BLOCK) - b * CST_CACHE_BLOCK};
		uint64_t bad = b;
		int rc = cst_extent_read(extent, b, &iov, 1, false, &bad);
		pace(x, iov.iov_len);
		if (rc == -EBADMSG) {
			tell_bad(x, v, e, id, bad);
			bad_blocks++;
			if (!complete && cst_extent_forget(extent, bad) == 0)
				cst_volume_charge(a->handle, -(int64_t)cst_block_length(id->size, bad), NULL, NULL);
			*present += bad - b;
			n = bad - b + 1;
		} else if (rc != 0) {
			return cst_cache_volume_error(v, rc, "verifying");
		} else {
			*present += n;
		}
	}
	return bad_blocks;
}

static void verify_extent(struct verifying *x, struct cst_cache_volume *v, const struct cst_index_entry *e,
			  const struct cst_cache_identity *id, const struct cst_volume_answer *a)
{
	struct cst_extent extent = {-1, -1, id->name, id->version, id->size};
	bool complete = a->entry.complete;
	uint64_t present = 0;
	int rc = cst_extent_open(cst_volume_dir(v->volume), id, !complete, &extent);
	if (rc != 0) {
		x->result->bad_entries += rc == -EBADMSG || rc == -ENOENT;
		if (rc == -EBADMSG || rc == -ENOENT)
			cst_volume_drop_entry(a->handle);
		return;
	}
	int64_t bad = verify_blocks(x, v, e, id, &extent, a, &present);
	if (bad > 0 && complete) {
		/* It is never written to again, so it goes as a whole. */
		x->result->bad_entries++;
		cst_volume_drop_entry(a->handle);
	} else if (bad == 0 && !complete && present == (id->size + CST_CACHE_BLOCK - 1) / CST_CACHE_BLOCK) {
		cst_volume_complete(a->handle, false, cst_wait_done, &x->wait);
		cst_wait_for(&x->wait);
	}
	cst_extent_close(&extent);
}

static void verify_slot(struct verifying *x, struct cst_cache_volume *v, const struct cst_index_entry *e,
			const struct cst_cache_identity *id, const struct cst_volume_answer *a)
{
	struct iovec iov = {x->memory, id->size};
	int rc;
	struct cst_slab_file *f = cst_slab_get(v, a->entry.slot.slab, false, &rc);
	if (f) {
		rc = cst_slot_read(f->fd, &a->entry.slot, id, &iov, 1, false);
		cst_slab_put(v, f, rc != 0);
	}
	pace(x, id->size);
	if (rc == -EBADMSG || rc == -ENOENT) {
		tell_bad(x, v, e, id, 0);
		x->result->bad_entries++;
		cst_volume_drop_entry(a->handle);
	} else if (rc != 0) {
		cst_cache_volume_error(v, rc, "verifying");
	}
}

static bool verify_one(void *arg, struct cst_cache_volume *v, const struct cst_index_entry *e,
		       const struct cst_cache_identity *id)
{
	struct verifying *x = arg;
	/* In use, so that it isn't evicted meanwhile. */
	cst_volume_entry_open(v->volume, id, 0, cst_wait_opened, &x->wait);
	if (cst_wait_for(&x->wait) != 0)
		return true;
	struct cst_volume_answer a = x->wait.answer;
	x->result->entries++;
	if (a.entry.kind == CST_ENTRY_SLOT)
		verify_slot(x, v, e, id, &a);
	else
		verify_extent(x, v, e, id, &a);
	cst_volume_entry_close(a.handle);
	return !cst_cache_volume_is_out(v);
}

int cst_cache_verify(struct cst_cache *cache, const char *prefix, uint64_t rate,
		     void (*bad)(void *arg, const struct cst_cache_entry *e, uint64_t block), void *arg,
		     struct cst_cache_verify *result, struct cst_error *err)
{
	*result = (struct cst_cache_verify){0};
	struct verifying x = {.result = result, .bad = bad, .arg = arg, .rate = rate, .begun = cst_now()};
	x.memory = cst_xmalloc(VERIFY_BYTES);
	cst_wait_init(&x.wait);
	int rc = each(cache, prefix, verify_one, &x, err);
	cst_wait_fini(&x.wait);
	cst_buf_fini(&x.bucket);
	cst_buf_fini(&x.etag);
	free(x.memory);
	return rc;
}
