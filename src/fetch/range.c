/* Ranges: blocks on their way into memory, from the origin or from the cache below. A range that can't be had from the cache becomes
 * one from the origin over the same blocks, and no read that waits for them notices. */
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
	if (r->local)
		r->local->ops->unref(r->local);
	r->magic = 0;
	free(r);
	object_put(o);
}

/* Counts a range in or out. */
static void account_locked(struct range *r, bool in)
{
	struct cst_fetch_object *o = r->object;
	struct cst_fetch *f = o->fetch;
	unsigned one = in ? 1u : -1u, blocks = in ? r->count : -r->count;
	f->ranges += one;
	switch (r->kind) {
	case RANGE_DEMAND:
		o->demand_flying += blocks;
		break;
	case RANGE_PREFETCH:
		f->prefetch_flying += blocks;
		if (!r->local)
			*(r->stream ? &f->prefetch_ranges : &f->ahead_ranges) += one;
		if (r->stream && !r->local)
			r->stream->gets += one;
		break;
	case RANGE_FILL:
		f->fill_ranges += one;
		f->fill_blocks += blocks;
		break;
	}
}

static struct range *range_new_locked(struct cst_fetch_object *o, uint64_t first, unsigned count, enum range_kind kind,
				      struct cst_fetch_local *local)
{
	struct range *r = cst_xmalloc(sizeof(*r) + count * (sizeof(r->blocks[0]) + sizeof(r->iov[0])));
	*r = (struct range){.magic = RANGE_MAGIC,
			    .object = o,
			    .kind = kind,
			    .local = local,
			    .offset = first * BLOCK_SIZE,
			    .started = cst_now(),
			    .count = count,
			    .iov = (struct iovec *)(void *)(r->blocks + count)};
	cst_ref_init(&r->ref);
	cst_ref_get(&r->ref);
	cst_ref_get(&o->ref);
	memcpy(r->etag, o->etag, sizeof(r->etag));
	if (local)
		local->ops->ref(local);
	TAILQ_INSERT_TAIL(&o->ranges, r, sibling);
	return r;
}

static void range_block(struct range *r, unsigned i, struct cst_fetch_block *b)
{
	r->blocks[i] = b;
	b->range = r;
	r->iov[i] = (struct iovec){b->data, block_length(r->object, b->index)};
	r->length += r->iov[i].iov_len;
}

/* Not what a read waits for: its stream will come for it. Readers that stop there must not hold everything. */
static bool is_ahead_locked(const struct cst_fetch *f, const struct range_plan *plan, uint64_t index)
{
	if (plan->kind == RANGE_PREFETCH)
		return true;
	return plan->kind == RANGE_DEMAND && (index < plan->own_first || index > plan->own_last) &&
	       f->prefetch_blocks < f->block_count / 2;
}

static void range_make_locked(struct cst_fetch_object *o, uint64_t first, unsigned count, const struct range_plan *plan,
			      struct cst_fetch_local *local, struct todo *todo)
{
	struct cst_fetch *f = o->fetch;
	struct range *r = range_new_locked(o, first, count, plan->kind, local);
	for (unsigned i = 0; i < count; i++) {
		struct cst_fetch_block *b = block_take_locked(f, o, first + i, is_ahead_locked(f, plan, first + i));
		b->cold = plan->kind == RANGE_FILL;
		range_block(r, i, b);
	}
	if (plan->stream) {
		r->stream = plan->stream;
		r->stream->ranges++;
	}
	r->fill = plan->fill;
	account_locked(r, true);
	f->stats.prefetched_ranges += plan->kind == RANGE_PREFETCH;
	f->stats.fill_ranges += plan->kind == RANGE_FILL;
	f->stats.local_ranges += local != NULL;
	STAILQ_INSERT_TAIL(&todo->ranges, r, link);
}

unsigned ranges_make_locked(struct cst_fetch_object *o, uint64_t first, uint64_t last, const struct range_plan *plan,
			    unsigned *gets, struct todo *todo)
{
	unsigned made = 0;
	for (uint64_t i = first; i <= last;) {
		unsigned count = 0, most = plan->most;
		while (i + count <= last && count < RANGE_BLOCKS_MAX && !block_find_locked(o->fetch, o, i + count))
			count++;
		if (count == 0) {
			i++;
			continue;
		}
		bool there = false;
		if (o->local && plan->kind != RANGE_FILL) {
			unsigned alike = o->local->ops->probe(o->local, i, count, &there);
			count = cst_min(count, cst_max(alike, 1u));
			most = there ? LOCAL_BLOCKS_MAX : most;
		}
		count = cst_min(count, most);
		range_make_locked(o, i, count, plan, there ? o->local : NULL, todo);
		if (gets)
			*gets += !there;
		made++;
		i += count;
	}
	return made;
}

static bool is_version_locked(const struct cst_fetch_object *o, const struct cst_object_info *info)
{
	bool same = o->etag[0] ? !info->etag[0] || strcmp(o->etag, info->etag) == 0 : o->mtime == info->mtime;
	return same && info->size == o->size;
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
	if (is_version_locked(o, info) && got == r->length)
		return 0;
	o->stale = true;
	cst_error_set(err, ESTALE, "can't read %.*s", (int)cst_min(o->key_len, (size_t)160), o->key);
	cst_error_why(err, "the object changed in the store: %llu bytes with ETag %s, now %llu bytes with ETag %s",
		      (unsigned long long)o->size, o->etag, (unsigned long long)info->size, info->etag);
	return -ESTALE;
}

static void came_locked(struct cst_fetch_block *b, struct todo *todo)
{
	struct cst_fetch_slot *slot;
	block_ready_locked(b);
	while ((slot = TAILQ_FIRST(&b->waiters))) {
		TAILQ_REMOVE(&b->waiters, slot, link);
		slot->waiting = false;
		if (--slot->read->pending == 0)
			read_finish_locked(slot->read, 0, todo);
	}
}

static void failed_locked(struct cst_fetch_block *b, int rc, struct todo *todo)
{
	struct cst_fetch_slot *slot;
	while ((slot = TAILQ_FIRST(&b->waiters)))
		read_finish_locked(slot->read, rc, todo);
}

/* Asks the origin for blocks [from, to) of a range that has just ended; their pins go on to the new one. */
static void again_locked(struct range *old, unsigned from, unsigned to, enum range_kind kind, struct todo *todo)
{
	struct range *r = range_new_locked(old->object, old->blocks[from]->index, to - from, kind, NULL);
	for (unsigned i = from; i < to; i++)
		range_block(r, i - from, old->blocks[i]);
	r->stream = old->stream;
	if (r->stream)
		r->stream->ranges++;
	for (unsigned i = 0; i < r->count && kind != RANGE_DEMAND; i++)
		r->wanted |= !TAILQ_EMPTY(&r->blocks[i]->waiters);
	account_locked(r, true);
	STAILQ_INSERT_TAIL(&todo->ranges, r, link);
}

/* A fill was cancelled, but others had come to wait for its blocks. */
static unsigned again_where_wanted_locked(struct range *r, unsigned i, struct todo *todo)
{
	unsigned to = i;
	while (to < r->count && !TAILQ_EMPTY(&r->blocks[to]->waiters))
		to++;
	if (to > i)
		again_locked(r, i, to, RANGE_DEMAND, todo);
	return to;
}

/* Wakes who waits, has the cache offered what came, and lets go of the blocks. */
static void finish_blocks_locked(struct range *r, int rc, bool ask_again, struct todo *todo)
{
	struct cst_fetch *f = r->object->fetch;
	for (unsigned i = r->ready; i < r->count && rc == 0; i++)
		came_locked(r->blocks[i], todo);
	if (r->fill)
		fill_range_ended_locked(r, rc, todo);
	else if (rc == 0 && !r->local)
		save_offer_locked(r, todo);
	if (ask_again && r->local) {
		again_locked(r, 0, r->count, r->kind, todo);
		return;
	}
	for (unsigned i = 0; i < r->count; i++) {
		if (r->blocks[i]->state == BLOCK_FETCHING) {
			unsigned to = ask_again ? again_where_wanted_locked(r, i, todo) : i;
			if (to > i) {
				i = to - 1;
				continue;
			}
			failed_locked(r->blocks[i], rc, todo);
		}
		r->blocks[i]->range = NULL;
		block_unpin_locked(f, r->blocks[i]);
	}
}

/* How much has come, for who shows progress; after a failure it may be less than it was. */
static void tell_fill_locked(struct range *r, uint64_t got)
{
	if (!r->fill)
		return;
	__atomic_fetch_add(&r->fill->fill->bytes_fetched, got - r->told, __ATOMIC_RELAXED);
	r->told = got;
}

/* The end of a range, however it came about; not under the lock. */
static void range_end(struct range *r, int rc, size_t got, const struct cst_object_info *info,
		      const struct cst_error *err)
{
	CST_CHECK(r, RANGE_MAGIC);
	struct cst_fetch_object *o = r->object;
	struct cst_fetch *f = o->fetch;
	struct cst_error changed = {.code = 0};
	struct todo todo;
	todo_init(&todo);

	pthread_mutex_lock(&f->lock);
	bool ask_again = false;
	if (r->local) {
		f->stats.local_failures += rc < 0;
		f->stats.bytes_local += rc < 0 ? 0 : r->length;
		ask_again = rc < 0 && object_used(o) && !o->stale;
		if (rc < 0 && o->stale)
			rc = -ESTALE;
	} else {
		rc = check_version_locked(r, rc, got, info, &changed);
		f->stats.bytes_fetched += got;
		tell_fill_locked(r, got);
		ask_again = rc == -ECANCELED && r->kind == RANGE_FILL && object_used(o) && !o->stale;
	}
	todo.err = changed.code ? &changed : err;
	account_locked(r, false);
	if (rc == 0 && !r->local) {
		int64_t now = cst_now(), took = now - r->started;
		if (r->kind == RANGE_PREFETCH)
			o->range_ns = o->range_ns ? o->range_ns + (took - o->range_ns) / 4 : took;
		if (r->length >= MIB)
			adapt_note(&f->adapt, now, got);
	}
	TAILQ_REMOVE(&o->ranges, r, sibling);
	r->finished = true;
	finish_blocks_locked(r, rc, ask_again, &todo);
	if (r->stream) {
		if (rc == 0)
			stream_prefetch_locked(r->stream, &todo);
		stream_put_locked(r->stream);
	}
	fills_wake_locked(o);
	pump_locked(f, &todo);
	pthread_mutex_unlock(&f->lock);

	if (rc < 0 && r->kind != RANGE_DEMAND && !ask_again)
		cst_log_debug("bytes of %.*s ahead at %llu failed: %s", (int)o->key_len, o->key,
			      (unsigned long long)r->offset, todo.err ? todo.err->why : strerror(-rc));
	todo_run(&todo);
	range_put(r);
}

static void get_done(void *arg, int rc, size_t got, const struct cst_object_info *info, const struct cst_error *err)
{
	range_end(arg, rc, got, info, err);
}

static void local_done(void *arg, int rc)
{
	range_end(arg, rc, 0, NULL, NULL);
}

/* Blocks that are whole need not wait for the rest of the range. */
static void get_progress(void *arg, size_t got, const struct cst_object_info *info)
{
	struct range *r = arg;
	CST_CHECK(r, RANGE_MAGIC);
	struct cst_fetch *f = r->object->fetch;
	struct todo todo;
	todo_init(&todo);
	pthread_mutex_lock(&f->lock);
	if (!r->finished)
		tell_fill_locked(r, got);
	if (!r->finished && is_version_locked(r->object, info))
		while (r->ready < r->count - 1 && got >= (r->ready + 1) * (size_t)BLOCK_SIZE)
			came_locked(r->blocks[r->ready++], &todo);
	pthread_mutex_unlock(&f->lock);
	todo_run(&todo);
}

static bool is_unwanted(const struct range *r)
{
	return !object_used(r->object) || (r->fill && fill_is_over(r->fill));
}

void range_start(struct range *r)
{
	CST_CHECK(r, RANGE_MAGIC);
	struct cst_fetch_object *o = r->object;
	struct cst_fetch *f = o->fetch;
	if (r->local) {
		r->local->ops->read(r->local, r->offset / BLOCK_SIZE, r->iov, (int)r->count, local_done, r);
		range_put(r);
		return;
	}
	const struct cst_object_get get = {
		.key = {o->key, o->key_len},
		.offset = r->offset,
		.length = r->length,
		.if_match = r->etag[0] ? r->etag : NULL,
		.into = r->iov,
		.into_count = (int)r->count,
		.progress = r->etag[0] && r->count > 1 ? get_progress : NULL,
		.background = r->kind != RANGE_DEMAND,
	};
	struct cst_object_op *op = cst_object_get(f->config.bucket, &get, get_done, r);

	pthread_mutex_lock(&f->lock);
	r->op = op;
	/* It was given up before there was anything to cancel. */
	bool cancel = !r->finished && !r->cancelled && is_unwanted(r), wanted = r->wanted;
	r->cancelled |= cancel;
	pthread_mutex_unlock(&f->lock);
	if (cancel)
		cst_object_cancel(op);
	else if (wanted)
		range_hurry(r);
	range_put(r);
}

void range_want_locked(struct range *r, struct todo *todo)
{
	if (r->kind == RANGE_DEMAND || r->local || r->wanted)
		return;
	r->wanted = true;
	if (!r->op) /* its start sees to it */
		return;
	cst_ref_get(&r->ref);
	STAILQ_INSERT_TAIL(&todo->hurries, r, hurrying);
}

void range_hurry(struct range *r)
{
	struct cst_bucket_stats stats;
	cst_bucket_stats(r->object->fetch->config.bucket, &stats);
	/* Without limits nobody waits, and a large GET that many share is not to be sent twice for being late. */
	if (stats.limited)
		cst_object_hurry(r->op);
}

void ranges_cancel_locked(struct cst_fetch_object *o, bool (*which)(const struct range *r, const void *arg),
			  const void *arg)
{
	struct range *ranges[16], *r;
	unsigned count;
	do {
		count = 0;
		TAILQ_FOREACH (r, &o->ranges, sibling) {
			if (count == CST_ARRAY_LEN(ranges))
				break;
			if (r->op && !r->cancelled && which(r, arg)) {
				r->cancelled = true;
				cst_ref_get(&r->ref);
				ranges[count++] = r;
			}
		}
		if (count == 0)
			return;
		pthread_mutex_unlock(&o->fetch->lock);
		for (unsigned i = 0; i < count; i++) {
			cst_object_cancel(ranges[i]->op);
			range_put(ranges[i]);
		}
		pthread_mutex_lock(&o->fetch->lock);
	} while (true);
}
