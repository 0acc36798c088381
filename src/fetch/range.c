#define CST_LOG_AREA "fetch"
#include "fetch/internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

void range_put(struct range *r)
{
	if (!cst_ref_put(&r->ref))
		return;
	struct cst_fetch_object *o = r->object;
	if (r->op)
		cst_object_release(r->op);
	r->magic = 0;
	free(r);
	object_put(o);
}

static struct range *range_new_locked(struct cst_fetch_object *o, uint64_t first, unsigned count, bool prefetch)
{
	struct range *r = CST_NEW(struct range);
	struct cst_fetch *f = o->fetch;
	r->magic = RANGE_MAGIC;
	cst_ref_init(&r->ref);
	cst_ref_get(&r->ref);
	cst_ref_get(&o->ref);
	r->object = o;
	r->prefetch = prefetch;
	r->count = count;
	r->offset = first * BLOCK_SIZE;
	memcpy(r->etag, o->etag, sizeof(r->etag));
	for (unsigned i = 0; i < count; i++) {
		struct cst_fetch_block *b = block_take_locked(f, o, first + i, prefetch);
		r->blocks[i] = b;
		r->iov[i] = (struct iovec){b->data, block_length(o, first + i)};
		r->length += r->iov[i].iov_len;
	}
	r->started = cst_now();
	TAILQ_INSERT_TAIL(&o->ranges, r, sibling);
	f->ranges++;
	f->prefetch_ranges += prefetch;
	f->prefetch_flying += prefetch ? count : 0;
	o->demand_flying += prefetch ? 0 : count;
	f->stats.prefetched_ranges += prefetch;
	return r;
}

unsigned ranges_make_locked(struct cst_fetch_object *o, uint64_t first, uint64_t last, unsigned most, bool prefetch,
			    struct todo *todo)
{
	unsigned made = 0;
	for (uint64_t i = first; i <= last;) {
		unsigned count = 0;
		while (i + count <= last && count < most && !block_find_locked(o->fetch, o, i + count))
			count++;
		if (count == 0) {
			i++;
			continue;
		}
		struct range *r = range_new_locked(o, i, count, prefetch);
		STAILQ_INSERT_TAIL(&todo->ranges, r, link);
		made++;
		i += count;
	}
	return made;
}

/* The answer must be of the version that was asked for: the first answer of an object whose ETag was unknown decides it. */
static int check_version_locked(struct range *r, int rc, size_t got, const struct cst_object_info *info,
				struct cst_error *err)
{
	struct cst_fetch_object *o = r->object;
	if (rc < 0) {
		/* No such range: it is shorter than it was. */
		if (rc == -ENOENT || rc == -ESTALE || rc == -ERANGE) {
			o->stale = true;
			return -ESTALE;
		}
		return rc;
	}
	if (!o->etag[0])
		memcpy(o->etag, info->etag, sizeof(o->etag));
	if (!o->etag[0] && !o->mtime)
		o->mtime = info->mtime;
	bool same = o->etag[0] ? !info->etag[0] || strcmp(o->etag, info->etag) == 0 : o->mtime == info->mtime;
	if (same && info->size == o->size && got == r->length)
		return 0;
	o->stale = true;
	cst_error_set(err, ESTALE, "can't read %.*s", (int)cst_min(o->key_len, (size_t)160), o->key);
	cst_error_why(err, "the object changed in the store: %llu bytes with ETag %s, now %llu bytes with ETag %s",
		      (unsigned long long)o->size, o->etag, (unsigned long long)info->size, info->etag);
	return -ESTALE;
}

static void finish_blocks_locked(struct range *r, int rc, struct todo *todo)
{
	struct cst_fetch *f = r->object->fetch;
	for (unsigned i = 0; i < r->count; i++) {
		struct cst_fetch_block *b = r->blocks[i];
		struct cst_fetch_slot *slot;
		if (rc == 0)
			block_ready_locked(f, b);
		while ((slot = TAILQ_FIRST(&b->waiters))) {
			if (rc < 0) {
				read_finish_locked(slot->read, rc, todo);
				continue;
			}
			TAILQ_REMOVE(&b->waiters, slot, link);
			slot->waiting = false;
			if (--slot->read->pending == 0)
				read_finish_locked(slot->read, 0, todo);
		}
		if (rc < 0)
			block_free_locked(f, b);
	}
}

static void range_done(void *arg, int rc, size_t got, const struct cst_object_info *info, const struct cst_error *err)
{
	struct range *r = arg;
	CST_CHECK(r, RANGE_MAGIC);
	struct cst_fetch_object *o = r->object;
	struct cst_fetch *f = o->fetch;
	struct cst_error changed = CST_ERROR_INIT;
	struct todo todo;
	todo_init(&todo);

	pthread_mutex_lock(&f->lock);
	rc = check_version_locked(r, rc, got, info, &changed);
	todo.err = changed.code ? &changed : err;
	f->ranges--;
	f->prefetch_ranges -= r->prefetch;
	f->prefetch_flying -= r->prefetch ? r->count : 0;
	o->demand_flying -= r->prefetch ? 0 : r->count;
	f->stats.bytes_fetched += got;
	if (rc == 0 && r->prefetch) {
		int64_t took = cst_now() - r->started;
		o->range_ns = o->range_ns ? o->range_ns + (took - o->range_ns) / 4 : took;
	}
	TAILQ_REMOVE(&o->ranges, r, sibling);
	r->finished = true;
	finish_blocks_locked(r, rc, &todo);
	waiting_pump_locked(f, &todo);
	pthread_mutex_unlock(&f->lock);

	if (rc < 0 && r->prefetch)
		cst_log_debug("prefetch of %.*s at %llu failed: %s", (int)o->key_len, o->key,
			      (unsigned long long)r->offset, todo.err ? todo.err->why : strerror(-rc));
	todo_run(&todo);
	range_put(r);
}

void range_start(struct range *r)
{
	CST_CHECK(r, RANGE_MAGIC);
	struct cst_fetch_object *o = r->object;
	struct cst_fetch *f = o->fetch;
	const struct cst_object_get get = {
		.key = {o->key, o->key_len},
		.offset = r->offset,
		.length = r->length,
		.if_match = r->etag[0] ? r->etag : NULL,
		.into = r->iov,
		.into_count = (int)r->count,
	};
	struct cst_object_op *op = cst_object_get(f->config.bucket, &get, range_done, r);

	pthread_mutex_lock(&f->lock);
	r->op = op;
	/* The object was given up before there was anything to cancel. */
	bool cancel = !r->finished && !r->cancelled && o->users == 0;
	r->cancelled |= cancel;
	pthread_mutex_unlock(&f->lock);
	if (cancel)
		cst_object_cancel(op);
	range_put(r);
}
