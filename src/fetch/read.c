#include "fetch/internal.h"

#include <errno.h>
#include <string.h>

/* Work that was found while work was being done waits for it: a cache that answers at once doesn't pile up the stack. */
static _Thread_local struct todo *running;

void todo_init(struct todo *todo)
{
	STAILQ_INIT(&todo->ranges);
	STAILQ_INIT(&todo->hurries);
	STAILQ_INIT(&todo->saves);
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

static void run_reads(struct todo *todo)
{
	struct cst_fetch_read *r;
	while ((r = TAILQ_FIRST(&todo->reads))) {
		TAILQ_REMOVE(&todo->reads, r, link);
		if (r->result >= 0) {
			r->done(r, r->result, NULL); /* r may be gone after it */
			continue;
		}
		struct cst_error err;
		describe(r, &err);
		r->done(r, r->result, todo->err && todo->err->code == -r->result ? todo->err : &err);
	}
}

static void run_hurries(struct todo *todo)
{
	struct range *r;
	while ((r = STAILQ_FIRST(&todo->hurries))) {
		STAILQ_REMOVE_HEAD(&todo->hurries, hurrying);
		range_hurry(r);
		range_put(r);
	}
}

void todo_run(struct todo *todo)
{
	run_hurries(todo);
	if (running) {
		STAILQ_CONCAT(&running->ranges, &todo->ranges);
		STAILQ_CONCAT(&running->saves, &todo->saves);
		run_reads(todo);
		return;
	}
	running = todo;
	do {
		struct range *range;
		while ((range = STAILQ_FIRST(&todo->ranges))) {
			STAILQ_REMOVE_HEAD(&todo->ranges, link);
			range_start(range);
		}
		run_reads(todo);
		struct save *save = STAILQ_FIRST(&todo->saves);
		if (save) {
			STAILQ_REMOVE_HEAD(&todo->saves, link);
			save_run(save);
		}
	} while (!STAILQ_EMPTY(&todo->ranges) || !STAILQ_EMPTY(&todo->saves));
	running = NULL;
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

/* What the GET for a read may be extended to where memory is plentiful: as far around it as nothing is there or coming. */
static void demand_extend_locked(const struct cst_fetch_read *r, unsigned missing, uint64_t *first, uint64_t *last)
{
	const struct cst_fetch_object *o = r->object;
	struct cst_fetch *f = o->fetch;
	uint64_t lo = *first, hi = *last;
	if (r->want_first >= lo && r->want_last <= hi)
		return;
	while (hi < r->want_last && !block_find_locked(f, o, hi + 1))
		hi++;
	while (lo > r->want_first && !block_find_locked(f, o, lo - 1))
		lo--;
	unsigned more = (unsigned)(hi - *last + *first - lo);
	if (f->free_count + f->used_count < cst_max(missing + more, f->block_count / 4))
		return;
	*first = lo;
	*last = hi;
}

/* The last quarter of the memory is for objects that don't wait for the store already: those that it stalls must not take all. Such a
 * read is passed over in the queue until what its object waits for has come. Where prefetched bytes hold the memory, half of that. */
static bool has_its_share_locked(const struct cst_fetch_object *o)
{
	const struct cst_fetch *f = o->fetch;
	if (o->demand_flying == 0)
		return false;
	return f->free_count + f->used_count + f->unread_count < f->block_count / 4 ||
	       !blocks_can_have_locked(f, f->block_count / 8, true);
}

/* Is everything that a read misses in the cache below? */
static bool local_has_locked(const struct cst_fetch_object *o, struct cst_fetch_block *const *found, uint64_t first,
			     unsigned count)
{
	bool there = true;
	for (unsigned i = 0; i < count && there; i++)
		if (!found[i])
			there = o->local && o->local->ops->probe(o->local, first + i, 1, &there) > 0 && there;
	return there;
}

static void wait_for_locked(struct cst_fetch_read *r, struct cst_fetch_block *b, struct todo *todo)
{
	uint64_t end = r->offset + r->length;
	struct cst_fetch_slot *slot = &r->slots[r->slot_count++];
	*slot = (struct cst_fetch_slot){.read = r, .block = b};
	block_touch_locked(r->object->fetch, b,
			   r->sequential && end < b->index * BLOCK_SIZE + block_length(r->object, b->index));
	b->passed = r->sequential && r->object->size > r->object->fetch->config.memory / 2;
	if (b->state == BLOCK_FETCHING) {
		slot->waiting = true;
		TAILQ_INSERT_TAIL(&b->waiters, slot, link);
		r->pending++;
		range_want_locked(b->range, todo);
	}
}

/* Tries to give a read all its blocks. False: there is not enough memory; it then holds none. */
static bool read_start_locked(struct cst_fetch_read *r, bool first_in_line, struct todo *todo)
{
	struct cst_fetch_object *o = r->object;
	struct cst_fetch *f = o->fetch;
	uint64_t first = r->offset / BLOCK_SIZE, last = (r->offset + r->length - 1) / BLOCK_SIZE;
	struct cst_fetch_block *found[CST_FETCH_IOV_MAX];
	unsigned count = (unsigned)(last - first + 1), missing = 0, gets = 0;

	for (unsigned i = 0; i < count; i++) {
		found[i] = block_find_locked(f, o, first + i);
		missing += found[i] == NULL;
	}
	if (missing && o->stale && !local_has_locked(o, found, first, count)) {
		read_finish_locked(r, -ESTALE, todo);
		return true;
	}
	if (missing && (!first_in_line || has_its_share_locked(o)))
		return false;
	/* What is there is referenced first, so that it is not given up to make room for the rest. */
	for (unsigned i = 0; i < count; i++)
		if (found[i])
			block_ref_locked(f, found[i]);
	if (missing && !blocks_can_have_locked(f, missing, true)) {
		for (unsigned i = 0; i < count; i++)
			if (found[i])
				block_unref_locked(f, found[i]);
		return false;
	}
	if (missing) {
		const struct range_plan plan = {
			.kind = RANGE_DEMAND, .most = RANGE_BLOCKS_MAX, .own_first = first, .own_last = last};
		uint64_t from = first, to = last;
		demand_extend_locked(r, missing, &from, &to);
		ranges_make_locked(o, from, to, &plan, &gets, todo);
	}
	for (unsigned i = 0; i < count; i++) {
		struct cst_fetch_block *b = found[i];
		if (!b) {
			b = block_find_locked(f, o, first + i);
			block_ref_locked(f, b);
		}
		wait_for_locked(r, b, todo);
	}

	if (r->state == CST_FETCH_READ_QUEUED) {
		TAILQ_REMOVE(&f->waiting, r, link);
		f->waiting_count--;
	}
	r->state = CST_FETCH_READ_WAITING;
	f->stats.hits += missing == 0;
	f->stats.hits_local += missing > 0 && gets == 0;
	f->stats.misses += gets > 0;
	if (r->pending == 0)
		read_finish_locked(r, 0, todo);
	return true;
}

static void waiting_pump_locked(struct cst_fetch *f, struct todo *todo)
{
	struct cst_fetch_read *r, *next;
	for (r = TAILQ_FIRST(&f->waiting); r; r = next) {
		next = TAILQ_NEXT(r, link);
		if (!read_start_locked(r, true, todo) && !has_its_share_locked(r->object))
			return;
	}
}

void pump_locked(struct cst_fetch *f, struct todo *todo)
{
	if (!TAILQ_EMPTY(&f->waiting))
		waiting_pump_locked(f, todo);
	if (!TAILQ_EMPTY(&f->hungry))
		streams_pump_locked(f, todo);
	if (!TAILQ_EMPTY(&f->fills))
		fills_pump_locked(f, todo);
}

static void enqueue_locked(struct cst_fetch *f, struct cst_fetch_read *r, struct todo *todo)
{
	r->state = CST_FETCH_READ_QUEUED;
	TAILQ_INSERT_TAIL(&f->waiting, r, link);
	f->waiting_count++;
	f->stats.waits_for_memory++;
	waiting_pump_locked(f, todo); /* those before it may all be passed over */
	if (f->asleep && !TAILQ_EMPTY(&f->waiting)) {
		f->asleep = false;
		pthread_cond_signal(&f->wake);
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
	r->sequential = false;
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
		if (!read_start_locked(r, TAILQ_EMPTY(&f->waiting), &todo))
			enqueue_locked(f, r, &todo);
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
		pump_locked(f, &todo);
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
	pump_locked(f, &todo);
	pthread_mutex_unlock(&f->lock);
	todo_run(&todo);
	cst_fetch_object_unref(o);
}
