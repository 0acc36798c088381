/* What came from the origin goes into the cache below: the blocks stay pinned, READY and readable until the cache has them. What is offered
 * because it was read is bounded (a quarter of the memory). What is beyond that is owed: it is offered when the cache has less in hand, unless
 * its memory is needed before: a slow disk makes the cache lag, never the readers. What a fill brings is not dropped; the fill waits. */
#define CST_LOG_AREA "fetch"
#include "fetch/internal.h"

#include "base/log.h"

#include <errno.h>
#include <string.h>

#define SAVE_BLOCKS (8u * (unsigned)BLOCKS_PER_MIB)

void save_make_locked(struct cst_fetch_object *o, struct cst_fetch_local *local, uint64_t first, unsigned count,
		      struct cst_fetch_fill_state *fill, struct todo *todo)
{
	struct cst_fetch *f = o->fetch;
	struct save *s = cst_xmalloc(sizeof(*s) + count * (sizeof(s->blocks[0]) + sizeof(s->iov[0])));
	*s = (struct save){.magic = SAVE_MAGIC,
			   .object = o,
			   .local = local,
			   .fill = fill,
			   .first = first,
			   .count = count,
			   .iov = (struct iovec *)(void *)(s->blocks + count)};
	cst_ref_get(&o->ref);
	local->ops->ref(local);
	for (unsigned i = 0; i < count; i++) {
		struct cst_fetch_block *b = block_find_locked(f, o, first + i);
		CST_ASSERT(b && b->state == BLOCK_READY && !b->saving);
		block_pin_locked(f, b);
		block_owe_locked(f, b, false);
		b->saving = true;
		s->blocks[i] = b;
		s->iov[i] = (struct iovec){b->data, block_length(o, first + i)};
		s->bytes += s->iov[i].iov_len;
	}
	if (fill) {
		f->fill_blocks += count;
		fill->flying++;
	} else {
		f->save_blocks += count;
	}
	f->stats.bytes_offered += s->bytes;
	STAILQ_INSERT_TAIL(&todo->saves, s, link);
}

bool object_is_whole_locked(const struct cst_fetch_object *o)
{
	for (uint64_t i = 0; i <= object_last(o); i++) {
		const struct cst_fetch_block *b = block_find_locked(o->fetch, o, i);
		if (!b || b->state != BLOCK_READY || b->saving)
			return false;
	}
	return true;
}

static bool is_saved(const struct cst_fetch_object *o)
{
	return o->local && !o->fetch->config.no_save && !o->stale;
}

void save_offer_locked(struct range *r, struct todo *todo)
{
	struct cst_fetch_object *o = r->object;
	struct cst_fetch *f = o->fetch;
	uint64_t first = r->blocks[0]->index;
	unsigned count = r->count;
	if (!is_saved(o))
		return;
	if (object_saved_whole(o)) {
		if (!object_is_whole_locked(o))
			return;
		first = 0;
		count = (unsigned)object_last(o) + 1;
	}
	for (unsigned i = 0; i < count; i++)
		block_owe_locked(f, block_find_locked(f, o, first + i), true);
	saves_pump_locked(f, todo);
}

/* The first of those that are owed, and its neighbours behind it. */
static unsigned owed_run_locked(const struct cst_fetch_block *b)
{
	struct cst_fetch_object *o = b->object;
	unsigned count = 1;
	if (object_saved_whole(o))
		return b->index == 0 && object_is_whole_locked(o) ? (unsigned)object_last(o) + 1 : 0;
	while (count < SAVE_BLOCKS && (b = block_find_locked(o->fetch, o, b->index + 1)) && b->owed)
		count++;
	return count;
}

void saves_pump_locked(struct cst_fetch *f, struct todo *todo)
{
	struct cst_fetch_block *b;
	while ((b = TAILQ_FIRST(&f->owed))) {
		struct cst_fetch_object *o = b->object;
		unsigned count = is_saved(o) ? owed_run_locked(b) : 0;
		if (count == 0)
			block_owe_locked(f, b, false);
		else if (f->save_blocks + count <= f->block_count / 4)
			save_make_locked(o, o->local, b->index, count, NULL, todo);
		else
			return;
	}
}

static void save_end(struct save *s, int rc)
{
	CST_CHECK(s, SAVE_MAGIC);
	struct cst_fetch_object *o = s->object;
	struct cst_fetch *f = o->fetch;
	struct todo todo;
	todo_init(&todo);
	pthread_mutex_lock(&f->lock);
	for (unsigned i = 0; i < s->count; i++) {
		s->blocks[i]->saving = false;
		block_unpin_locked(f, s->blocks[i]);
	}
	f->stats.bytes_saved += rc == 0 ? s->bytes : 0;
	if (s->fill) {
		f->fill_blocks -= s->count;
		fill_save_ended_locked(s, rc);
	} else {
		f->save_blocks -= s->count;
		saves_pump_locked(f, &todo);
	}
	fills_wake_locked(o);
	pump_locked(f, &todo);
	pthread_mutex_unlock(&f->lock);
	if (rc < 0 && rc != -EAGAIN)
		cst_log_debug("the cache did not keep bytes of %.*s: %s", (int)o->key_len, o->key, strerror(-rc));
	todo_run(&todo);
	s->local->ops->unref(s->local);
	s->magic = 0;
	free(s);
	object_put(o);
}

static void save_done(void *arg, int rc)
{
	save_end(arg, rc);
}

void save_run(struct save *s)
{
	if (!s->local->ops->save(s->local, s->first, s->iov, (int)s->count, s->fill != NULL, save_done, s))
		save_end(s, s->fill ? -ENOSPC : -EAGAIN);
}
