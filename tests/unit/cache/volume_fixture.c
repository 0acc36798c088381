#include "volume_fixture.h"

#include <errno.h>
#include <pthread.h>

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	struct call call;
};
#define WAITER_INIT                                                                 \
	{                                                                           \
		.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER \
	}

static void opened(void *arg, const struct cst_volume_answer *answer)
{
	struct waiter *w = arg;
	pthread_mutex_lock(&w->lock);
	w->call = (struct call){answer->rc, answer->handle, answer->entry, answer->created};
	w->done = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

static void finished(void *arg, int rc)
{
	const struct cst_volume_answer answer = {.rc = rc};
	opened(arg, &answer);
}

static struct call wait_for(struct waiter *w)
{
	pthread_mutex_lock(&w->lock);
	while (!w->done)
		pthread_cond_wait(&w->cond, &w->lock);
	pthread_mutex_unlock(&w->lock);
	return w->call;
}

struct cst_volume *volume_at(const char *path, uint64_t quota, struct cst_error *err)
{
	const struct cst_volume_config config = {
		.path = path,
		.limits = {.quota = quota, .high = 0.95, .low = 0.9, .keep_free = 1 << 20},
	};
	return cst_volume_open(&config, err);
}

void identify(struct cst_cache_identity *id, const char *key, uint64_t size)
{
	cst_cache_identify(id, CST_SLICE("oss://test"), cst_slice_of(key), CST_SLICE("\"v1\""), size);
}

struct call entry_open(struct cst_volume *v, const char *key, uint64_t size, unsigned flags)
{
	struct waiter w = WAITER_INIT;
	struct cst_cache_identity id;
	identify(&id, key, size);
	cst_volume_entry_open(v, &id, flags, opened, &w);
	return wait_for(&w);
}

int charge(struct cst_volume_handle *h, int64_t bytes)
{
	struct waiter w = WAITER_INIT;
	cst_volume_charge(h, bytes, finished, &w);
	return wait_for(&w).rc;
}

int complete(struct cst_volume_handle *h, bool verify)
{
	struct waiter w = WAITER_INIT;
	cst_volume_complete(h, verify, finished, &w);
	return wait_for(&w).rc;
}

/* ---- bytes ---- */

static void make_bytes(const char *key, uint64_t at, uint8_t *out, size_t len)
{
	struct cst_cache_identity id;
	identify(&id, key, 1);
	for (size_t i = 0; i < len; i++)
		out[i] = (uint8_t)((id.name >> ((at + i) % 7 * 8)) + (at + i) * 31 + ((at + i) >> 9));
}

static bool right_bytes(const char *key, uint64_t at, const uint8_t *bytes, size_t len)
{
	CST_AUTO_FREE uint8_t *right = cst_xmalloc(len);
	make_bytes(key, at, right, len);
	return memcmp(right, bytes, len) == 0;
}

static size_t block_bytes(uint64_t size, uint64_t block)
{
	return (size_t)cst_min((uint64_t)CST_CACHE_BLOCK, size - block * CST_CACHE_BLOCK);
}

struct call put_small(struct cst_volume *v, const char *key, uint64_t size, unsigned flags)
{
	struct waiter w = WAITER_INIT;
	struct cst_cache_identity id;
	CST_AUTO_FREE uint8_t *bytes = cst_xmalloc(size);
	struct iovec iov = {bytes, size};
	identify(&id, key, size);
	make_bytes(key, 0, bytes, size);
	cst_volume_put(v, &id, flags, &iov, 1, opened, &w);
	/* They were copied. */
	memset(bytes, 0, size);
	return wait_for(&w);
}

int fill(struct cst_volume *v, const struct call *c, const char *key, uint64_t size, uint64_t first, uint64_t count)
{
	struct cst_cache_identity id;
	struct cst_extent e;
	CST_AUTO_FREE uint8_t *bytes = cst_xmalloc(CST_CACHE_BLOCK);
	identify(&id, key, size);
	int rc = cst_extent_open(cst_volume_dir(v), &id, true, &e);
	for (uint64_t block = first; rc == 0 && block < first + count; block++) {
		struct iovec iov = {bytes, block_bytes(size, block)};
		rc = charge(c->handle, (int64_t)iov.iov_len);
		if (rc < 0)
			break;
		make_bytes(key, block * CST_CACHE_BLOCK, bytes, iov.iov_len);
		rc = cst_extent_write(&e, block, &iov, 1);
		if (rc < 0)
			cst_volume_charge(c->handle, -(int64_t)iov.iov_len, NULL, NULL);
	}
	cst_extent_close(&e);
	return rc;
}

int fill_all(struct cst_volume *v, const struct call *c, const char *key, uint64_t size)
{
	return fill(v, c, key, size, 0, cst_extent_blocks(size));
}

int64_t check(struct cst_volume *v, const char *key, uint64_t size)
{
	struct cst_cache_identity id;
	struct cst_extent e;
	CST_AUTO_FREE uint8_t *bytes = cst_xmalloc(CST_CACHE_BLOCK);
	int64_t there = 0;
	identify(&id, key, size);
	int rc = cst_extent_open(cst_volume_dir(v), &id, false, &e);
	if (rc < 0)
		return rc;
	for (uint64_t block = 0; block < cst_extent_blocks(size); block++) {
		struct iovec iov = {bytes, block_bytes(size, block)};
		uint64_t bad;
		rc = cst_extent_read(&e, block, &iov, 1, false, &bad);
		if (rc == -EBADMSG)
			continue;
		if (rc == 0 && !right_bytes(key, block * CST_CACHE_BLOCK, bytes, iov.iov_len))
			rc = -EILSEQ;
		if (rc < 0)
			break;
		there++;
	}
	cst_extent_close(&e);
	return rc < 0 && rc != -EBADMSG ? rc : there;
}

int check_slot(struct cst_volume *v, const struct call *c, const char *key, uint64_t size)
{
	struct cst_cache_identity id;
	CST_AUTO_FREE uint8_t *bytes = cst_xmalloc(size);
	struct iovec iov = {bytes, size};
	identify(&id, key, size);
	CST_AUTO_CLOSE int slab = cst_slab_open(cst_volume_dir(v), c->entry.slot.slab, false, 0);
	if (slab < 0)
		return slab;
	int rc = cst_slot_read(slab, &c->entry.slot, &id, &iov, 1, false);
	if (rc == 0 && !right_bytes(key, 0, bytes, size))
		rc = -EILSEQ;
	return rc < 0 ? rc : 1;
}
