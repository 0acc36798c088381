/* Access patterns and prefetch.
 *
 * The kernel's own readahead sends several READs at once and two reader threads may swap them, so "sequential" means close to the
 * furthest byte read, not exactly after it. A run that starts at the object's beginning counts as sequential from its first read
 * (that is how files are copied and models loaded); elsewhere a second read in sequence is needed.
 *
 * The window (bytes kept asked for ahead of the reader) starts at 4 MiB and quadruples each time the reader has gone through a
 * quarter of it, so that at 20 ms a request and 90 MiB/s a connection a stream reaches network speed after three round trips and a
 * short file costs little. It grows only as long as ranges come soon: over a thin line a larger window makes each of them slower and
 * nothing faster, until reads that wait for the first one pass their deadline. Ranges grow with it, from 1 MiB to the configured size: many small ones at first fill the window
 * soonest, few large ones later cost the fewest requests. */
#include "fetch/internal.h"

#include "base/clock.h"

#define NEAR_LEAST (64u << 10)
#define WINDOW_FIRST (4u << 20)
#define BLOCKS_PER_MIB ((1u << 20) / BLOCK_SIZE)

struct cst_fetch_stream *cst_fetch_stream_new(struct cst_fetch_object *o)
{
	struct cst_fetch_stream *s = CST_NEW(struct cst_fetch_stream);
	s->magic = STREAM_MAGIC;
	s->object = cst_fetch_object_ref(o);
	return s;
}

void cst_fetch_stream_free(struct cst_fetch_stream *s)
{
	if (!s)
		return;
	CST_CHECK(s, STREAM_MAGIC);
	pthread_mutex_lock(&s->object->fetch->lock);
	stream_leave_locked(s);
	pthread_mutex_unlock(&s->object->fetch->lock);
	s->magic = 0;
	cst_fetch_object_unref(s->object);
	free(s);
}

void stream_leave_locked(struct cst_fetch_stream *s)
{
	struct cst_fetch_object *o = s->object;
	if (s->window == 0)
		return;
	for (uint64_t i = s->next / BLOCK_SIZE; i * BLOCK_SIZE < s->prefetched; i++) {
		struct cst_fetch_block *b = block_find_locked(o->fetch, o, i);
		if (b)
			block_unwanted_locked(o->fetch, b);
	}
}

void stream_note_locked(struct cst_fetch_stream *s, struct cst_fetch_read *r)
{
	uint64_t end = r->offset + r->length;
	/* Swapped READs come from the kernel's readahead, which makes them large; small random reads must not look close. */
	uint64_t near_by = cst_max(4 * (uint64_t)r->length, (uint64_t)NEAR_LEAST);
	bool near = r->offset + near_by >= s->next && r->offset <= s->next + near_by;
	/* At the very start `next` is 0: a first read further in is near only by accident. */
	bool follows = s->run ? near : r->offset == 0;
	if (follows) {
		s->run += r->length;
		s->next = cst_max(s->next, end);
	} else {
		stream_leave_locked(s);
		s->run = r->offset == 0 ? r->length : 0;
		s->next = end;
		s->window = 0;
		s->prefetched = end;
		if (s->run == 0)
			s->run = 1; /* the next one nearby continues it */
	}
	bool sequential = s->run > r->length || r->offset == 0;
	r->whole = sequential || s->object->size <= CST_FETCH_READ_MAX;
	if (sequential && r->offset == 0 && s->window == 0)
		s->prefetched = cst_max(s->prefetched, end);
}

/* The stream has proved itself when it went past its first MiB; before that its prefetch could only be a guess, and slow objects
 * would fill the slots for prefetching with guesses. */
static void grow_locked(struct cst_fetch_stream *s)
{
	const struct cst_fetch *f = s->object->fetch;
	uint64_t most = f->config.window_max;
	if (s->run <= CST_FETCH_READ_MAX)
		return;
	if (s->window == 0) {
		s->window = cst_min((uint64_t)WINDOW_FIRST, most);
		s->grow_at = s->next + s->window / 4;
	} else if (s->next >= s->grow_at) {
		int64_t took = s->object->range_ns, calm = f->config.calm_range;
		if (took <= calm)
			s->window = cst_min(s->window * 4, most);
		else if (took > 4 * calm)
			s->window = cst_max(s->window / 4, cst_min((uint64_t)WINDOW_FIRST, most));
		s->grow_at = s->next + s->window / 4;
	}
}

/* Memory for prefetching: not all of it, and not what other streams are about to read, unless they have paused for long. */
static bool has_room_locked(struct cst_fetch *f, unsigned blocks)
{
	const struct cst_fetch_block *oldest;
	int64_t now = 0;
	/* What is under way can't be taken back. Readers that the store stalls wait for it, which makes it demand, so it is counted apart:
	 * the other half is for demand. */
	if (f->prefetch_flying + blocks > f->block_count / 2)
		return false;
	while (blocks_available_locked(f, false) < blocks || f->prefetch_blocks + blocks > f->block_count / 4 * 3) {
		now = now ? now : cst_now();
		oldest = TAILQ_FIRST(&f->unread);
		if (!oldest || now - oldest->ready_at < f->config.keep_unread)
			return false;
		block_unwanted_locked(f, TAILQ_FIRST(&f->unread));
	}
	return true;
}

/* What was prefetched may have been given up meanwhile: the window is then filled again. */
static void check_window_locked(struct cst_fetch_stream *s)
{
	struct cst_fetch_object *o = s->object;
	uint64_t next = (s->next + BLOCK_SIZE - 1) / BLOCK_SIZE;
	if (next * BLOCK_SIZE < s->prefetched && !block_find_locked(o->fetch, o, next))
		s->prefetched = next * BLOCK_SIZE;
}

void stream_prefetch_locked(struct cst_fetch_stream *s, struct todo *todo)
{
	struct cst_fetch_object *o = s->object;
	struct cst_fetch *f = o->fetch;
	if (!f->config.prefetch || o->stale)
		return;
	grow_locked(s);
	if (s->window == 0)
		return;

	uint64_t mib = 1u << 20;
	uint64_t range = cst_min(cst_max(s->window / 4 & ~(mib - 1), mib), (uint64_t)f->config.range_size);
	uint64_t target = cst_min(s->next + s->window, o->size);
	if (s->prefetched < s->next)
		s->prefetched = s->next;
	check_window_locked(s);
	while (s->prefetched < target) {
		/* Ranges end on multiples of their size, so that streams over one object ask for the same ones. */
		uint64_t end = cst_min((s->prefetched / range + 1) * range, o->size);
		if (end > target && end != o->size)
			return;
		unsigned blocks = (unsigned)((end - 1) / BLOCK_SIZE - s->prefetched / BLOCK_SIZE + 1);
		if (f->prefetch_ranges >= f->config.max_prefetch || !TAILQ_EMPTY(&f->waiting) ||
		    !has_room_locked(f, blocks))
			return;
		ranges_make_locked(o, s->prefetched / BLOCK_SIZE, (end - 1) / BLOCK_SIZE, RANGE_BLOCKS_MAX, true, todo);
		s->prefetched = end;
	}
}

bool object_prefetch_locked(struct cst_fetch_object *o, struct todo *todo)
{
	struct cst_fetch *f = o->fetch;
	if (o->size == 0 || o->size > 2 * CST_FETCH_READ_MAX || o->stale || !TAILQ_EMPTY(&o->blocks))
		return false;
	uint64_t last = (o->size - 1) / BLOCK_SIZE;
	if (f->prefetch_ranges >= f->config.max_prefetch || !TAILQ_EMPTY(&f->waiting) ||
	    !has_room_locked(f, (unsigned)last + 1))
		return false;
	return ranges_make_locked(o, 0, last, RANGE_BLOCKS_MAX, true, todo) > 0;
}
