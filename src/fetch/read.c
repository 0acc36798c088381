#include "fetch/internal.h"

#include <errno.h>
#include <string.h>

void todo_init(struct todo *todo)
{
	STAILQ_INIT(&todo->ranges);
	TAILQ_INIT(&todo->reads);
	todo->err = NULL;
}

/* Says why a read failed when no range's error does. */
static void describe(const struct cst_fetch_read *r, struct cst_error *err)
{
	cst_error_set(err, -r->result, "can't read %.*s", (int)cst_min(r->object->key_len, (size_t)160),
		      r->object->key);
	if (r->result == -ESTALE)
		cst_error_why(err, "the object was changed or deleted in the store after it was opened");
	else if (r->result == -EINTR)
		cst_error_why(err, "interrupted");
	else
		cst_error_why(err, "%s", strerror(-r->result));
}

void todo_run(struct todo *todo)
{
	struct range *range;
	while ((range = STAILQ_FIRST(&todo->ranges))) {
		STAILQ_REMOVE_HEAD(&todo->ranges, link);
		range_start(range);
	}
	struct cst_fetch_read *r;
	while ((r = TAILQ_FIRST(&todo->reads))) {
		TAILQ_REMOVE(&todo->reads, r, link);
		struct cst_error err = CST_ERROR_INIT;
		const struct cst_error *why = NULL;
		if (r->result < 0) {
			describe(r, &err);
			why = todo->err && todo->err->code == -r->result ? todo->err : &err;
		}
		r->done(r, r->result, why); /* r may be gone after it */
	}
}

static void drop_slots_locked(struct cst_fetch_read *r)
{
	for (int i = 0; i < r->slot_count; i++) {
		struct cst_fetch_slot *slot = &r->slots[i];
		if (slot->waiting)
			TAILQ_REMOVE(&slot->block->waiters, slot, link);
		slot->waiting = false;
		block_unref_locked(r->object->fetch, slot->block);
	}
	r->slot_count = 0;
	r->pending = 0;
}

/* The bytes of the read within its blocks; neighbours in memory become one vector. */
static int gather_locked(struct cst_fetch_read *r)
{
	uint64_t end = r->offset + r->length;
	r->iov_count = 0;
	for (int i = 0; i < r->slot_count; i++) {
		const struct cst_fetch_block *b = r->slots[i].block;
		uint64_t from = b->index * BLOCK_SIZE, skip = r->offset > from ? r->offset - from : 0;
		uint64_t len = cst_min(end - from, (uint64_t)BLOCK_SIZE) - skip;
		struct iovec *last = r->iov_count ? &r->iov[r->iov_count - 1] : NULL;
		if (last && (char *)last->iov_base + last->iov_len == b->data + skip)
			last->iov_len += len;
		else
			r->iov[r->iov_count++] = (struct iovec){b->data + skip, len};
	}
	return (int)r->length;
}

void read_finish_locked(struct cst_fetch_read *r, int result, struct todo *todo)
{
	struct cst_fetch *f = r->object->fetch;
	if (r->state == CST_FETCH_READ_QUEUED) {
		TAILQ_REMOVE(&f->waiting, r, link);
		f->waiting_count--;
	}
	if (result < 0)
		drop_slots_locked(r);
	else
		f->stats.bytes_read += r->length;
	r->result = result < 0 ? result : gather_locked(r);
	r->state = CST_FETCH_READ_DONE;
	TAILQ_INSERT_TAIL(&todo->reads, r, link);
}

/* The last block that the GET for a read should reach: the read's own end, or further where the bytes after it will surely be
 * wanted and memory is plentiful (small objects whole, sequential readers up to the next MiB). */
static uint64_t demand_end_locked(const struct cst_fetch_read *r, uint64_t last)
{
	const struct cst_fetch_object *o = r->object;
	const struct cst_fetch *f = o->fetch;
	if (!r->whole || f->free_count + f->used_count < f->block_count / 4)
		return last;
	const uint64_t per_mib = (1u << 20) / BLOCK_SIZE;
	uint64_t object_last = (o->size - 1) / BLOCK_SIZE;
	uint64_t end = o->size <= 2 * CST_FETCH_READ_MAX ? object_last
							 : cst_min((last / per_mib + 1) * per_mib - 1, object_last);
	/* A neighbour that is there or coming ends the stretch. */
	uint64_t reach = last;
	while (reach < end && !block_find_locked(o->fetch, o, reach + 1))
		reach++;
	return reach;
}

/* The last quarter of the memory is for objects that don't wait for the store already: those that it stalls must not take all. Such a
 * read is passed over in the queue until what its object waits for has come. */
static bool has_its_share_locked(const struct cst_fetch_object *o)
{
	const struct cst_fetch *f = o->fetch;
	return o->demand_flying > 0 && blocks_available_locked(f, true) < f->block_count / 4;
}

/* Tries to give a read all its blocks. False: there is not enough memory; it then holds none. */
static bool read_start_locked(struct cst_fetch_read *r, bool first_in_line, struct todo *todo)
{
	struct cst_fetch_object *o = r->object;
	struct cst_fetch *f = o->fetch;
	uint64_t first = r->offset / BLOCK_SIZE, last = (r->offset + r->length - 1) / BLOCK_SIZE;
	unsigned missing = 0;

	for (uint64_t i = first; i <= last; i++)
		missing += block_find_locked(f, o, i) == NULL;
	if (missing && o->stale) {
		read_finish_locked(r, -ESTALE, todo);
		return true;
	}
	if (missing && (!first_in_line || has_its_share_locked(o)))
		return false;
	/* What is there is referenced first, so that it is not given up to make room for the rest. */
	struct cst_fetch_block *there[CST_FETCH_IOV_MAX];
	int held = 0;
	for (uint64_t i = first; i <= last; i++) {
		struct cst_fetch_block *b = block_find_locked(f, o, i);
		if (b) {
			block_ref_locked(f, b);
			there[held++] = b;
		}
	}
	bool enough = blocks_available_locked(f, true) >= missing;
	if (enough && missing) {
		uint64_t end = demand_end_locked(r, last);
		if (blocks_available_locked(f, true) < missing + (unsigned)(end - last))
			end = last;
		ranges_make_locked(o, first, end, RANGE_BLOCKS_MAX, false, todo);
	}
	if (enough) {
		for (uint64_t i = first; i <= last; i++) {
			struct cst_fetch_slot *slot = &r->slots[r->slot_count++];
			*slot = (struct cst_fetch_slot){.read = r, .block = block_find_locked(f, o, i)};
			block_ref_locked(f, slot->block);
			if (slot->block->state == BLOCK_FETCHING) {
				slot->waiting = true;
				TAILQ_INSERT_TAIL(&slot->block->waiters, slot, link);
				r->pending++;
			}
		}
	}
	for (int i = 0; i < held; i++)
		block_unref_locked(f, there[i]);
	if (!enough)
		return false;

	if (r->state == CST_FETCH_READ_QUEUED) {
		TAILQ_REMOVE(&f->waiting, r, link);
		f->waiting_count--;
	}
	r->state = CST_FETCH_READ_WAITING;
	if (missing)
		f->stats.misses++;
	else
		f->stats.hits++;
	if (r->pending == 0)
		read_finish_locked(r, 0, todo);
	return true;
}

void waiting_pump_locked(struct cst_fetch *f, struct todo *todo)
{
	struct cst_fetch_read *r, *next;
	for (r = TAILQ_FIRST(&f->waiting); r; r = next) {
		next = TAILQ_NEXT(r, link);
		if (!read_start_locked(r, true, todo) && !has_its_share_locked(r->object))
			return;
	}
}

void cst_fetch_read(struct cst_fetch_stream *s, struct cst_fetch_read *r)
{
	CST_CHECK(s, STREAM_MAGIC);
	CST_ASSERT(r->length <= CST_FETCH_READ_MAX);
	struct cst_fetch_object *o = s->object;
	struct cst_fetch *f = o->fetch;
	struct todo todo;
	todo_init(&todo);

	r->object = cst_fetch_object_ref(o);
	r->slot_count = r->pending = r->iov_count = 0;
	r->result = 0;
	r->whole = false;
	r->state = CST_FETCH_READ_NEW;

	pthread_mutex_lock(&f->lock);
	if (r->offset >= o->size)
		r->length = 0;
	else
		r->length = (uint32_t)cst_min((uint64_t)r->length, o->size - r->offset);
	if (r->length == 0) {
		read_finish_locked(r, 0, &todo);
	} else {
		stream_note_locked(s, r);
		if (!read_start_locked(r, TAILQ_EMPTY(&f->waiting), &todo)) {
			r->state = CST_FETCH_READ_QUEUED;
			TAILQ_INSERT_TAIL(&f->waiting, r, link);
			f->waiting_count++;
			f->stats.waits_for_memory++;
			waiting_pump_locked(f, &todo); /* those before it may all be passed over */
		}
		stream_prefetch_locked(s, &todo);
	}
	pthread_mutex_unlock(&f->lock);
	todo_run(&todo);
}

void cst_fetch_read_cancel(struct cst_fetch_read *r)
{
	struct cst_fetch *f = r->object->fetch;
	struct todo todo;
	todo_init(&todo);
	pthread_mutex_lock(&f->lock);
	if (r->state == CST_FETCH_READ_QUEUED || r->state == CST_FETCH_READ_WAITING) {
		read_finish_locked(r, -EINTR, &todo);
		waiting_pump_locked(f, &todo);
	}
	pthread_mutex_unlock(&f->lock);
	todo_run(&todo);
}

void cst_fetch_read_release(struct cst_fetch_read *r)
{
	struct cst_fetch_object *o = r->object;
	struct cst_fetch *f = o->fetch;
	struct todo todo;
	todo_init(&todo);
	pthread_mutex_lock(&f->lock);
	CST_ASSERT(r->state == CST_FETCH_READ_DONE);
	drop_slots_locked(r);
	waiting_pump_locked(f, &todo);
	pthread_mutex_unlock(&f->lock);
	todo_run(&todo);
	cst_fetch_object_unref(o);
}
