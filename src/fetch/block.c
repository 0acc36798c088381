#include "fetch/internal.h"

#include "base/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static struct cst_fetch_block **bucket(struct cst_fetch *f, const struct cst_fetch_object *o, uint64_t index)
{
	uint64_t h = ((uintptr_t)o >> 4) * UINT64_C(0x9e3779b97f4a7c15) + index * UINT64_C(0xc2b2ae3d27d4eb4f);
	return &f->hash[(h >> 32) & f->hash_mask];
}

int arena_init(struct cst_fetch *f, struct cst_error *err)
{
	f->block_count = (unsigned)(f->config.memory / BLOCK_SIZE);
	f->keep_read = (unsigned)cst_min(f->config.keep_read / BLOCK_SIZE, (uint64_t)f->block_count);
	size_t size = (size_t)f->block_count * BLOCK_SIZE;
	/* Pages come with use: an idle mount costs nothing. */
	f->arena = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (f->arena == MAP_FAILED) {
		int code = errno;
		f->arena = NULL;
		cst_error_set(err, code, "can't reserve %zu MiB for data", size >> 20);
		cst_error_why(err, "%s", strerror(code));
		cst_error_hint(err, "set a smaller --memory, or raise the limit on address space (ulimit -v)");
		return -code;
	}
	madvise(f->arena, size, MADV_HUGEPAGE); /* a matter of speed only */
	madvise(f->arena, size, MADV_DONTDUMP); /* user data stays out of core dumps, which it would make huge */

	unsigned buckets = 1;
	while (buckets < f->block_count * 2)
		buckets *= 2;
	f->hash_mask = buckets - 1;
	f->hash = cst_xcalloc(buckets, sizeof(f->hash[0]));
	f->blocks = cst_xcalloc(f->block_count, sizeof(f->blocks[0]));
	TAILQ_INIT(&f->free);
	TAILQ_INIT(&f->used);
	TAILQ_INIT(&f->used_owed);
	TAILQ_INIT(&f->unread);
	TAILQ_INIT(&f->owed);
	for (unsigned i = 0; i < f->block_count; i++) {
		f->blocks[i].data = f->arena + (size_t)i * BLOCK_SIZE;
		TAILQ_INIT(&f->blocks[i].waiters);
		TAILQ_INSERT_TAIL(&f->free, &f->blocks[i], queue);
	}
	f->free_count = f->block_count;
	return 0;
}

void arena_fini(struct cst_fetch *f)
{
	if (f->arena)
		munmap(f->arena, (size_t)f->block_count * BLOCK_SIZE);
	free(f->blocks);
	free(f->hash);
}

struct cst_fetch_block *block_find_locked(struct cst_fetch *f, const struct cst_fetch_object *o, uint64_t index)
{
	struct cst_fetch_block *b = *bucket(f, o, index);
	while (b && (b->object != o || b->index != index))
		b = b->hash_next;
	return b;
}

/* Unread blocks that have rested for long enough to be given up for demand, as far as `count`. */
static unsigned ripe_locked(const struct cst_fetch *f, unsigned count)
{
	const struct cst_fetch_block *b;
	unsigned found = 0;
	int64_t old = cst_now() - f->config.keep_for_demand;
	TAILQ_FOREACH (b, &f->unread, queue) {
		if (found == count || b->ready_at > old)
			break;
		found++;
	}
	return found;
}

bool blocks_can_have_locked(const struct cst_fetch *f, unsigned count, bool demand)
{
	unsigned there = f->free_count + f->used_count;
	return there >= count || (demand && ripe_locked(f, count - there) == count - there);
}

/* Leaves the queue that a block at rest is in. */
static void dequeue_locked(struct cst_fetch *f, struct cst_fetch_block *b)
{
	CST_ASSERT(block_at_rest(b));
	if (b->unread) {
		TAILQ_REMOVE(&f->unread, b, queue);
		f->unread_count--;
	} else {
		TAILQ_REMOVE(b->owed ? &f->used_owed : &f->used, b, queue);
		f->used_count--;
		f->used_owed_count -= b->owed;
	}
}

/* A block has come to rest. */
static void enqueue_locked(struct cst_fetch *f, struct cst_fetch_block *b)
{
	CST_ASSERT(block_at_rest(b));
	if (b->unread) {
		b->ready_at = cst_now();
		TAILQ_INSERT_TAIL(&f->unread, b, queue);
		f->unread_count++;
	} else {
		struct block_list *list = b->owed ? &f->used_owed : &f->used;
		if (b->cold)
			TAILQ_INSERT_HEAD(list, b, queue);
		else
			TAILQ_INSERT_TAIL(list, b, queue);
		f->used_count++;
		f->used_owed_count += b->owed;
	}
	if (!object_used(b->object))
		block_free_locked(f, b);
}

static void set_unread_locked(struct cst_fetch *f, struct cst_fetch_block *b, bool unread)
{
	if (b->unread != unread) {
		b->unread = unread;
		f->prefetch_blocks += unread ? 1u : -1u;
	}
}

void block_unwanted_locked(struct cst_fetch *f, struct cst_fetch_block *b)
{
	if (!b->unread)
		return;
	bool rests = block_at_rest(b);
	if (rests)
		dequeue_locked(f, b);
	set_unread_locked(f, b, false);
	b->cold = true;
	if (rests)
		enqueue_locked(f, b);
}

void block_owe_locked(struct cst_fetch *f, struct cst_fetch_block *b, bool owed)
{
	if (b->owed == owed)
		return;
	bool rests = block_at_rest(b);
	if (rests)
		dequeue_locked(f, b);
	b->owed = owed;
	if (owed)
		TAILQ_INSERT_TAIL(&f->owed, b, owed_link);
	else
		TAILQ_REMOVE(&f->owed, b, owed_link);
	if (rests)
		enqueue_locked(f, b);
}

void block_free_locked(struct cst_fetch *f, struct cst_fetch_block *b)
{
	CST_ASSERT(b->refs == 0 && b->pins == 0 && TAILQ_EMPTY(&b->waiters));
	if (b->state == BLOCK_READY)
		dequeue_locked(f, b);
	set_unread_locked(f, b, false);
	if (b->owed)
		TAILQ_REMOVE(&f->owed, b, owed_link);
	b->owed = false;

	struct cst_fetch_block **at = bucket(f, b->object, b->index);
	while (*at != b)
		at = &(*at)->hash_next;
	*at = b->hash_next;
	TAILQ_REMOVE(&b->object->blocks, b, sibling);
	b->object = NULL;
	b->state = BLOCK_FREE;
	/* Last in, first out: what was touched is used again before fresh pages. */
	TAILQ_INSERT_HEAD(&f->free, b, queue);
	f->free_count++;
}

/* Making the pages of a block costs more than filling it, and a block that was just in use is still in the CPU's cache. So some are
 * used again while there is untouched memory: those beyond what is to be kept, and those that a long stream has left behind, but for
 * an eighth of the memory for others who follow it. */
static bool reuses_locked(const struct cst_fetch *f)
{
	const struct cst_fetch_block *next = TAILQ_FIRST(&f->free), *oldest = TAILQ_FIRST(&f->used);
	if (!next || next->touched || !oldest)
		return !next;
	unsigned kept = f->used_count - f->used_owed_count;
	return kept > f->keep_read || (oldest->passed && kept > f->block_count / 8);
}

struct cst_fetch_block *block_take_locked(struct cst_fetch *f, struct cst_fetch_object *o, uint64_t index, bool unread)
{
	if (reuses_locked(f)) {
		struct cst_fetch_block *victim = TAILQ_FIRST(&f->used);
		if (!victim)
			victim = TAILQ_FIRST(&f->used_owed);
		if (!victim)
			victim = TAILQ_FIRST(&f->unread);
		CST_ASSERT(victim != NULL);
		block_free_locked(f, victim);
	}
	struct cst_fetch_block *b = TAILQ_FIRST(&f->free);
	TAILQ_REMOVE(&f->free, b, queue);
	f->free_count--;
	f->block_peak = cst_max(f->block_peak, f->block_count - f->free_count);

	b->object = o;
	b->index = index;
	b->state = BLOCK_FETCHING;
	b->pins = 1;
	b->cold = b->saving = b->passed = false;
	b->touched = true;
	set_unread_locked(f, b, unread);
	struct cst_fetch_block **at = bucket(f, o, index);
	b->hash_next = *at;
	*at = b;
	TAILQ_INSERT_TAIL(&o->blocks, b, sibling);
	return b;
}

void block_ref_locked(struct cst_fetch *f, struct cst_fetch_block *b)
{
	if (block_at_rest(b))
		dequeue_locked(f, b);
	b->refs++;
}

void block_unref_locked(struct cst_fetch *f, struct cst_fetch_block *b)
{
	CST_ASSERT(b->refs > 0);
	b->refs--;
	if (block_at_rest(b))
		enqueue_locked(f, b);
}

void block_touch_locked(struct cst_fetch *f, struct cst_fetch_block *b, bool more)
{
	CST_ASSERT(b->refs > 0);
	b->cold = false;
	/* Handles that read a little each must not hold everything. */
	if (!more || (!b->unread && f->prefetch_blocks < f->block_count / 2))
		set_unread_locked(f, b, more);
}

void block_ready_locked(struct cst_fetch_block *b)
{
	CST_ASSERT(b->state == BLOCK_FETCHING && b->pins > 0);
	b->state = BLOCK_READY;
}

void block_pin_locked(struct cst_fetch *f, struct cst_fetch_block *b)
{
	if (block_at_rest(b))
		dequeue_locked(f, b);
	b->pins++;
}

void block_unpin_locked(struct cst_fetch *f, struct cst_fetch_block *b)
{
	CST_ASSERT(b->pins > 0);
	b->pins--;
	if (b->state == BLOCK_FETCHING)
		block_free_locked(f, b);
	else if (block_at_rest(b))
		enqueue_locked(f, b);
}
