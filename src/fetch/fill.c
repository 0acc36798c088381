/* Filling the cache below: whatever an object lacks there is brought in, in order, a range at a time, behind everything that somebody waits
 * for or is about to read.
 *
 *   the block is            the fill
 *   in the cache            goes on
 *   READY in memory         has it saved
 *   on its way, or in the   waits: when that has ended it looks again (what was offered may have been dropped)
 *   cache's hands
 *   nowhere                 fetches it, with up to 8 MiB that follow, and has them saved
 *
 * A fill that can go on is in the list `fills`; it leaves the list when its ranges and saves are as many as it may have, when it waits, and
 * when all is asked for. Its end is told by the thread of the cst_fetch. */
#include "fetch/internal.h"

#include <errno.h>
#include <string.h>

#define PARALLEL 4u
#define FILL_BLOCKS (8u * (unsigned)BLOCKS_PER_MIB)
#define FILLS_WHEN_BUSY 4u
#define LOOK_AHEAD (1u << 16) /* blocks that the cache is asked about at a time */

static void set_ready_locked(struct cst_fetch_fill_state *s)
{
	if (s->ready || s->ended)
		return;
	s->ready = true;
	TAILQ_INSERT_TAIL(&s->object->fetch->fills, s, link);
}

static bool more_to_do(const struct cst_fetch_fill_state *s)
{
	return s->result == 0 && s->next <= s->last;
}

static void end_if_over_locked(struct cst_fetch_fill_state *s)
{
	struct cst_fetch *f = s->object->fetch;
	if (s->ended || s->flying || more_to_do(s))
		return;
	if (s->ready)
		TAILQ_REMOVE(&f->fills, s, link);
	s->ready = false;
	s->ended = true;
	TAILQ_REMOVE(&s->object->fills, s, sibling);
	TAILQ_INSERT_TAIL(&f->fills_ended, s, link);
	pthread_cond_signal(&f->wake);
}

static void fail_locked(struct cst_fetch_fill_state *s, int rc, const struct cst_error *err)
{
	if (s->result < 0 || rc == 0)
		return;
	s->result = rc;
	if (err && err->code == -rc) {
		s->err = CST_NEW(struct cst_error);
		*s->err = *err;
	}
}

bool fill_is_over(const struct cst_fetch_fill_state *s)
{
	return s->result < 0;
}

static unsigned limit_of(const struct cst_fetch_fill_state *s)
{
	return s->fill->parallel ? s->fill->parallel : PARALLEL;
}

/* Memory for a fill: what lies about unused and is owed to nobody, half of all at most, and never the last eighth. While others read, few at a
 * time over all. */
static bool has_room_locked(const struct cst_fetch *f, unsigned blocks, bool get)
{
	if (f->fill_blocks + blocks > f->block_count / 2)
		return false;
	if (!get)
		return true;
	bool busy = f->ranges > f->fill_ranges;
	return f->free_count + f->used_count - f->used_owed_count >= blocks + f->block_count / 8 &&
	       (!busy || f->fill_ranges < FILLS_WHEN_BUSY);
}

static bool in_hand(const struct cst_fetch_block *b)
{
	return b && (b->range || b->saving);
}

enum step { STEP_DONE, STEP_WAIT, STEP_NO_ROOM };

static enum step get_locked(struct cst_fetch_fill_state *s, unsigned count, struct todo *todo)
{
	const struct range_plan plan = {.kind = RANGE_FILL, .most = FILL_BLOCKS, .fill = s};
	if (!has_room_locked(s->object->fetch, count, true))
		return STEP_NO_ROOM;
	s->flying += ranges_make_locked(s->object, s->next, s->next + count - 1, &plan, NULL, todo);
	return STEP_DONE;
}

static enum step save_locked(struct cst_fetch_fill_state *s, unsigned count, struct todo *todo)
{
	if (!has_room_locked(s->object->fetch, count, false))
		return STEP_NO_ROOM;
	save_make_locked(s->object, s->local, s->next, count, s, todo);
	return STEP_DONE;
}

/* A small object goes into the cache whole. When its range has come it is looked at once more. */
static enum step step_whole_locked(struct cst_fetch_fill_state *s, struct todo *todo)
{
	struct cst_fetch_object *o = s->object;
	unsigned count = (unsigned)object_last(o) + 1;
	if (s->flying)
		return STEP_WAIT;
	for (unsigned i = 0; i < count; i++)
		if (in_hand(block_find_locked(o->fetch, o, i)))
			return STEP_WAIT;
	s->next = 0;
	if (!object_is_whole_locked(o))
		return get_locked(s, count, todo);
	enum step step = save_locked(s, count, todo);
	if (step == STEP_DONE)
		s->next = s->last + 1;
	return step;
}

/* The next piece that the cache lacks: `most` blocks from s->next on. */
static enum step step_piece_locked(struct cst_fetch_fill_state *s, unsigned most, struct todo *todo)
{
	struct cst_fetch_object *o = s->object;
	struct cst_fetch_block *b = block_find_locked(o->fetch, o, s->next);
	if (in_hand(b))
		return STEP_WAIT;
	unsigned count = 1;
	unsigned piece = cst_min(FILL_BLOCKS, o->fetch->config.range_size / BLOCK_SIZE);
	most = cst_min(most, piece - (unsigned)(s->next % piece));
	for (bool there = b != NULL; count < most; count++) {
		b = block_find_locked(o->fetch, o, s->next + count);
		if (there != (b != NULL) || in_hand(b))
			break;
	}
	b = block_find_locked(o->fetch, o, s->next);
	enum step step = b ? save_locked(s, count, todo) : get_locked(s, count, todo);
	if (step == STEP_DONE)
		s->next += count;
	return step;
}

static enum step step_locked(struct cst_fetch_fill_state *s, struct todo *todo)
{
	while (more_to_do(s)) {
		bool there = false;
		unsigned most = (unsigned)cst_min(s->last - s->next + 1, (uint64_t)LOOK_AHEAD);
		unsigned alike = cst_max(1u, s->local->ops->probe(s->local, s->next, most, &there));
		if (there) {
			s->next += alike;
			continue;
		}
		if (s->object->stale) {
			fail_locked(s, -ESTALE, NULL);
			break;
		}
		if (s->flying >= limit_of(s))
			return STEP_WAIT;
		enum step step = object_saved_whole(s->object) ? step_whole_locked(s, todo)
							       : step_piece_locked(s, cst_min(alike, most), todo);
		if (step != STEP_DONE)
			return step;
	}
	return STEP_DONE;
}

void fills_pump_locked(struct cst_fetch *f, struct todo *todo)
{
	struct cst_fetch_fill_state *s;
	while ((s = TAILQ_FIRST(&f->fills)) && TAILQ_EMPTY(&f->waiting)) {
		if (step_locked(s, todo) == STEP_NO_ROOM)
			return;
		TAILQ_REMOVE(&f->fills, s, link);
		s->ready = false;
		end_if_over_locked(s);
	}
}

void fills_wake_locked(struct cst_fetch_object *o)
{
	struct cst_fetch_fill_state *s;
	TAILQ_FOREACH (s, &o->fills, sibling)
		if (more_to_do(s) && s->flying < limit_of(s))
			set_ready_locked(s);
}

void fill_range_ended_locked(struct range *r, int rc, struct todo *todo)
{
	struct cst_fetch_fill_state *s = r->fill;
	CST_CHECK(s, FILL_MAGIC);
	s->flying--;
	fail_locked(s, rc, todo->err);
	if (rc == 0 && !object_saved_whole(s->object))
		save_make_locked(s->object, s->local, r->blocks[0]->index, r->count, s, todo);
	end_if_over_locked(s);
}

void fill_save_ended_locked(struct save *save, int rc)
{
	struct cst_fetch_fill_state *s = save->fill;
	CST_CHECK(s, FILL_MAGIC);
	s->flying--;
	if (rc == 0)
		__atomic_fetch_add(&s->fill->bytes_saved, save->bytes, __ATOMIC_RELAXED);
	fail_locked(s, rc, NULL);
	end_if_over_locked(s);
}

void cst_fetch_fill(struct cst_fetch_object *o, struct cst_fetch_fill *fill)
{
	CST_CHECK(o, OBJECT_MAGIC);
	struct cst_fetch *f = o->fetch;
	struct todo todo;
	todo_init(&todo);
	struct cst_fetch_fill_state *s = CST_NEW(struct cst_fetch_fill_state);
	s->magic = FILL_MAGIC;
	s->fill = fill;
	s->object = cst_fetch_object_ref(o);
	__atomic_store_n(&fill->bytes_fetched, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&fill->bytes_saved, 0, __ATOMIC_RELAXED);

	pthread_mutex_lock(&f->lock);
	fill->fetch = f;
	fill->state = s;
	s->local = fill->local ? fill->local : o->local;
	if (s->local)
		s->local->ops->ref(s->local);
	else
		s->result = -ENOSPC;
	uint64_t end = fill->offset < o->size ? fill->offset + cst_min(fill->length, o->size - fill->offset) : 0;
	s->next = end ? fill->offset / BLOCK_SIZE : 1;
	s->last = end ? (end - 1) / BLOCK_SIZE : 0;
	if (end && object_saved_whole(o)) {
		s->next = 0;
		s->last = object_last(o);
	}
	TAILQ_INSERT_TAIL(&o->fills, s, sibling);
	set_ready_locked(s);
	fills_pump_locked(f, &todo);
	pthread_mutex_unlock(&f->lock);
	todo_run(&todo);
}

/* What readers wait for goes on. */
static bool only_for(const struct range *r, const void *arg)
{
	if (r->fill != arg)
		return false;
	for (unsigned i = r->ready; i < r->count; i++)
		if (!TAILQ_EMPTY(&r->blocks[i]->waiters))
			return false;
	return true;
}

void cst_fetch_fill_cancel(struct cst_fetch_fill *fill)
{
	struct cst_fetch *f = __atomic_load_n(&fill->fetch, __ATOMIC_ACQUIRE);
	if (!f)
		return;
	pthread_mutex_lock(&f->lock);
	struct cst_fetch_fill_state *s = fill->state;
	if (s && !s->ended && s->result == 0) {
		s->result = -ECANCELED;
		s->flying++; /* it doesn't end while the lock is let go */
		ranges_cancel_locked(s->object, only_for, s);
		s->flying--;
		end_if_over_locked(s);
	}
	pthread_mutex_unlock(&f->lock);
}

static void report(struct cst_fetch_fill_state *s)
{
	struct cst_fetch_object *o = s->object;
	struct cst_error err;
	if (s->result < 0 && !s->err) {
		cst_error_set(&err, -s->result, "can't load %.*s", (int)cst_min(o->key_len, (size_t)160), o->key);
		if (s->result == -ENOSPC)
			cst_error_why(&err, "the cache takes no more of it");
		else if (s->result == -ESTALE)
			cst_error_why(&err, "the object was changed or deleted in the store meanwhile");
		else if (s->result == -ECANCELED)
			cst_error_why(&err, "cancelled");
		else
			cst_error_why(&err, "the cache: %s", strerror(-s->result));
	}
	s->fill->done(s->fill, s->result, s->result == 0 ? NULL : s->err ? s->err : &err); /* the fill is gone */
	if (s->local)
		s->local->ops->unref(s->local);
	free(s->err);
	s->magic = 0;
	free(s);
	cst_fetch_object_unref(o);
}

void fills_report(struct cst_fetch *f)
{
	struct cst_fetch_fill_state *s;
	while ((s = TAILQ_FIRST(&f->fills_ended))) {
		TAILQ_REMOVE(&f->fills_ended, s, link);
		s->fill->state = NULL;
		pthread_mutex_unlock(&f->lock);
		report(s);
		pthread_mutex_lock(&f->lock);
	}
}
