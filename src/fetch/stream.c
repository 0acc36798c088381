/* Prefetch: what is asked for ahead of a handle's reads (pattern.c says what they look like).
 *
 * The window of a lane (bytes kept asked for ahead of it) starts at 4 MiB and quadruples each time the reader has gone through a
 * quarter of it, so that at 20 ms a request and 90 MiB/s a connection a stream reaches network speed after three round trips and a
 * short file costs little; models start at 16 MiB with their first read. Reads from the back, and pieces of files that are read from their
 * directory at the end, double. It grows only as long as ranges come soon: over a thin line a larger window makes each of
 * them slower and nothing faster, until reads that wait for the first one pass their deadline. Ranges grow with it, from 1 MiB
 * to the configured size: many small ones at first fill the window soonest, few large ones later cost the fewest requests.
 *
 * Three quarters of the memory are for prefetching, shared evenly by the streams that have read in the last seconds. Who is refused
 * (by the share of GETs in flight, by memory, by reads that wait) stands in line, and is served in turn when something has ended. */
#include "fetch/internal.h"

#include "base/clock.h"

#define WINDOW_FIRST (4 * MIB)
#define WINDOW_MODEL (16 * MIB)
#define GUESSES 4u /* wrong ones: the object is no model, whatever its name */
#define WINDOW_BACKWARD (2 * MIB)
#define WINDOW_LOCAL (8 * MIB) /* what is in the cache below needs no more */
#define WINDOW_LEAST (2 * MIB)
#define TAIL_SIZE MIB
#define RECORDS_MOST 32u
#define LANE_IDLE 16u /* reads of the handle elsewhere, until a lane's window is given up */
#define STREAM_IDLE (2 * CST_NS_PER_S)

struct cst_fetch_stream *cst_fetch_stream_new(struct cst_fetch_object *o)
{
	struct cst_fetch_stream *s = CST_NEW(struct cst_fetch_stream);
	s->magic = STREAM_MAGIC;
	s->object = cst_fetch_object_ref(o);
	return s;
}

static void free_stream(struct cst_fetch_stream *s)
{
	s->magic = 0;
	free(s);
}

/* Is a lane coming for a block, other than `but`? */
static bool in_a_window(const struct cst_fetch_stream *s, const struct lane *but, uint64_t block)
{
	uint64_t at = block * BLOCK_SIZE;
	for (const struct lane *l = s->pattern.lanes; l < s->pattern.lanes + LANES; l++)
		if (l != but && l->kind == LANE_FORWARD && l->window && at + BLOCK_SIZE > l->hi &&
		    at < cst_max(l->ahead, l->hi + l->window))
			return true;
	return false;
}

/* Nobody will read blocks [from, to) on, unless another lane does: they are free for others. */
static void leave_blocks_locked(struct cst_fetch_stream *s, const struct lane *but, uint64_t from, uint64_t to)
{
	struct cst_fetch_object *o = s->object;
	for (uint64_t i = from; i < to && !TAILQ_EMPTY(&o->blocks); i++) {
		struct cst_fetch_block *b = block_find_locked(o->fetch, o, i);
		if (b && b->unread && !in_a_window(s, but, i))
			block_unwanted_locked(o->fetch, b);
	}
}

static void leave_lane_locked(struct cst_fetch_stream *s, const struct lane *l)
{
	uint64_t from = l->hi / BLOCK_SIZE;
	if (l->kind == LANE_BACKWARD && l->window)
		leave_blocks_locked(s, l, l->ahead / BLOCK_SIZE, l->lo / BLOCK_SIZE + 1);
	else if (l->kind == LANE_FORWARD) /* also what its last reads were extended to */
		leave_blocks_locked(s, l, from,
				    cst_max((l->ahead + BLOCK_SIZE - 1) / BLOCK_SIZE,
					    (from / BLOCKS_PER_MIB + 1) * BLOCKS_PER_MIB));
}

static uint64_t record_start(const struct pattern *p, uint64_t k)
{
	return (uint64_t)((int64_t)p->record + p->stride * (int64_t)k);
}

static void leave_strides_locked(struct cst_fetch_stream *s)
{
	const struct pattern *p = &s->pattern;
	uint64_t length = cst_max(p->record_length, p->record_end - p->record);
	for (uint64_t k = 1; k <= s->stride_ahead; k++) {
		uint64_t start = record_start(p, k) / BLOCK_SIZE;
		leave_blocks_locked(s, NULL, start, start + length / BLOCK_SIZE + 2);
	}
	s->stride_ahead = 0;
	s->stride_records = 0;
}

static void deactivate_locked(struct cst_fetch *f, struct cst_fetch_stream *s)
{
	if (!s->active)
		return;
	s->active = false;
	TAILQ_REMOVE(&f->active, s, active_link);
	f->active_count--;
}

static void activate_locked(struct cst_fetch *f, struct cst_fetch_stream *s)
{
	const struct cst_fetch_stream *oldest;
	deactivate_locked(f, s);
	s->seen = cst_now();
	s->active = true;
	TAILQ_INSERT_TAIL(&f->active, s, active_link);
	f->active_count++;
	while ((oldest = TAILQ_FIRST(&f->active)) && s->seen - oldest->seen > STREAM_IDLE)
		deactivate_locked(f, TAILQ_FIRST(&f->active));
}

void cst_fetch_stream_free(struct cst_fetch_stream *s)
{
	if (!s)
		return;
	CST_CHECK(s, STREAM_MAGIC);
	struct cst_fetch_object *o = s->object;
	struct cst_fetch *f = o->fetch;
	struct todo todo;
	todo_init(&todo);
	pthread_mutex_lock(&f->lock);
	if (!TAILQ_EMPTY(&o->blocks)) {
		for (struct lane *l = s->pattern.lanes; l < s->pattern.lanes + LANES; l++) {
			leave_lane_locked(s, l);
			l->window = 0;
		}
		leave_strides_locked(s);
	}
	deactivate_locked(f, s);
	if (s->hungry)
		TAILQ_REMOVE(&f->hungry, s, hungry_link);
	s->hungry = false;
	s->closed = true;
	bool last = s->ranges == 0;
	pump_locked(f, &todo); /* what was ahead of it is free for others */
	pthread_mutex_unlock(&f->lock);
	todo_run(&todo);
	if (last)
		free_stream(s);
	cst_fetch_object_unref(o);
}

void stream_put_locked(struct cst_fetch_stream *s)
{
	if (--s->ranges == 0 && s->closed)
		free_stream(s);
}

/* ---- a read ---- */

static enum pattern_hint hint_of(const struct cst_fetch_object *o)
{
	return o->hint == HINT_WHOLE && o->guesses >= GUESSES ? HINT_NONE : o->hint;
}

/* The blocks that the GET for a read should cover where memory is plentiful. */
static void extend_read_locked(struct cst_fetch_stream *s, struct cst_fetch_read *r)
{
	const struct cst_fetch_object *o = s->object;
	uint64_t end = r->offset + r->length, last = object_last(o);
	r->want_first = r->offset / BLOCK_SIZE;
	r->want_last = (end - 1) / BLOCK_SIZE;
	if (o->size <= SMALL_OBJECT / 2 || (o->size <= SMALL_OBJECT && r->sequential)) {
		r->want_first = 0;
		r->want_last = last;
	} else if (o->hint == HINT_TAIL && !s->tail_asked && r->offset + TAIL_SIZE >= o->size) {
		s->tail_asked = true; /* the directory at the end, in one request */
		r->want_first = (o->size - TAIL_SIZE) / BLOCK_SIZE;
		r->want_last = last;
	} else if (r->sequential && (o->hint != HINT_TAIL || r->offset == 0)) {
		r->want_last = cst_min((r->want_last / BLOCKS_PER_MIB + 1) * BLOCKS_PER_MIB - 1, last);
	}
}

/* A window for a lane that has proved itself by going past its first MiB; before that its prefetch could only be a guess, and slow
 * objects would fill the slots for prefetching with guesses. The names of models are proof enough, until it turns out that the object is read
 * in small pieces anywhere. */
static void grow_forward_locked(struct cst_fetch_stream *s, struct lane *l, const struct cst_fetch_read *r)
{
	const struct cst_fetch *f = s->object->fetch;
	uint64_t most = f->config.window_max;
	enum pattern_hint hint = hint_of(s->object);
	bool model = hint == HINT_WHOLE && r->length >= BLOCK_SIZE / 2;
	if (l->guessed && (l->bytes > MIB || l->hi == s->object->size)) {
		l->guessed = false;
		s->object->guesses--;
	}
	if (l->window == 0) {
		if (l->bytes <= MIB && !model)
			return;
		s->object->guesses += !l->guessed && l->bytes <= MIB;
		l->guessed = l->bytes <= MIB;
		l->window = cst_min(model ? WINDOW_MODEL : WINDOW_FIRST, most);
		l->grow_at = l->hi + l->window / 4;
		l->ahead = cst_max(l->ahead, l->hi);
	} else if (l->hi >= l->grow_at) {
		int64_t took = s->object->range_ns, calm = f->config.calm_range;
		if (took <= calm)
			l->window = cst_min(l->window * (hint == HINT_TAIL ? 2 : 4), most);
		else if (took > 4 * calm)
			l->window = cst_max(l->window / 4, cst_min(WINDOW_FIRST, most));
		l->grow_at = l->hi + l->window / 4;
	}
}

static void grow_backward_locked(struct cst_fetch_stream *s, struct lane *l)
{
	const struct cst_fetch *f = s->object->fetch;
	if (l->window == 0) {
		l->window = cst_min(WINDOW_BACKWARD, f->config.window_max);
		l->ahead = l->lo;
	} else if (l->lo <= l->grow_at) {
		if (s->object->range_ns <= f->config.calm_range)
			l->window = cst_min(l->window * 2, f->config.window_max);
	} else {
		return;
	}
	l->grow_at = l->lo > l->window / 4 ? l->lo - l->window / 4 : 0;
}

/* Windows of lanes that the handle has not come back to. */
static void leave_idle_lanes_locked(struct cst_fetch_stream *s)
{
	struct pattern *p = &s->pattern;
	for (struct lane *l = p->lanes; l < p->lanes + LANES; l++)
		if (l->window && p->reads - l->used > LANE_IDLE) {
			leave_lane_locked(s, l);
			l->window = l->ahead = l->bytes = 0;
			l->lo = l->hi;
		}
}

void stream_note_locked(struct cst_fetch_stream *s, struct cst_fetch_read *r)
{
	struct cst_fetch_object *o = s->object;
	struct pattern *p = &s->pattern, before = *p;
	struct lane left;
	bool was_strided = s->stride_records > 0;
	struct lane *l = pattern_note(p, r->offset, r->length, hint_of(o), &left);
	bool strided = pattern_is_strided(p);

	leave_lane_locked(s, &left);
	leave_idle_lanes_locked(s);
	if (was_strided && (!strided || p->stride != before.stride)) {
		struct pattern now = *p;
		*p = before;
		leave_strides_locked(s);
		*p = now;
	}
	r->sequential = !strided && l->kind == LANE_FORWARD;
	extend_read_locked(s, r);
	if (!o->fetch->config.prefetch)
		return;
	if (strided) {
		if (p->record != before.record) {
			uint64_t gone = (uint64_t)(((int64_t)p->record - (int64_t)before.record) / p->stride);
			s->stride_ahead -= cst_min(gone, s->stride_ahead);
			s->stride_records = cst_min(cst_max(2u, s->stride_records * 2), RECORDS_MOST);
		}
	} else if (l->kind == LANE_FORWARD) {
		enum lane_kind kind = before.lanes[l - p->lanes].kind;
		if (kind == LANE_BACKWARD)
			l->window = 0;
		grow_forward_locked(s, l, r);
	} else if (l->kind == LANE_BACKWARD) {
		if (before.lanes[l - p->lanes].kind != LANE_BACKWARD)
			l->window = 0;
		grow_backward_locked(s, l);
	}
	if (l->window || s->stride_records)
		activate_locked(o->fetch, s);
}

/* ---- asking ---- */

/* Memory for prefetching: not all of it, and not what other streams are about to read, unless they have paused for long. */
static bool has_room_locked(struct cst_fetch *f, unsigned blocks)
{
	const struct cst_fetch_block *oldest;
	int64_t now = 0;
	/* What is under way can't be taken back. Readers that the store stalls wait for it, which makes it demand, so it is counted apart:
	 * the other half is for demand. */
	if (f->prefetch_flying + blocks > f->block_count / 2)
		return false;
	/* What the cache is still to get is given up for windows that are short, not for long ones: it would be fetched again. */
	unsigned owed = f->prefetch_blocks + blocks > f->block_count / 4 ? f->used_owed_count : 0;
	while (!blocks_can_have_locked(f, blocks + owed, false) ||
	       f->prefetch_blocks + blocks > f->block_count / 4 * 3) {
		now = now ? now : cst_now();
		oldest = TAILQ_FIRST(&f->unread);
		if (!oldest || now - oldest->ready_at < f->config.keep_unread)
			return false;
		block_unwanted_locked(f, TAILQ_FIRST(&f->unread));
	}
	return true;
}

enum answer { YES, LATER, NOT_NOW };

/* May these blocks be asked for? LATER: something of the whole is short, the stream stands in line. NOT_NOW: its own GETs will bring it
 * back here when they end. */
static enum answer may_ask_locked(struct cst_fetch_stream *s, unsigned blocks, bool local)
{
	struct cst_fetch *f = s->object->fetch;
	if (!local) {
		if (f->config.stream_parallel && s->gets >= f->config.stream_parallel)
			return NOT_NOW;
		if (f->prefetch_ranges + f->ahead_ranges >= f->config.max_prefetch)
			return LATER;
		if (f->prefetch_ranges >= f->adapt.limit) {
			adapt_bound(&f->adapt);
			return LATER;
		}
	}
	return TAILQ_EMPTY(&f->waiting) && has_room_locked(f, blocks) ? YES : LATER;
}

/* Is the block in the cache below? Then *count falls to those that are alike. */
static bool is_local_locked(const struct cst_fetch_object *o, uint64_t first, unsigned *count)
{
	bool there = false;
	if (o->local) {
		unsigned alike = o->local->ops->probe(o->local, first, *count, &there);
		*count = cst_min(*count, cst_max(alike, 1u));
	}
	return there;
}

static uint64_t share_locked(const struct cst_fetch *f)
{
	return cst_max((uint64_t)f->block_count * BLOCK_SIZE / 4 * 3 / cst_max(f->active_count, 1u), WINDOW_LEAST);
}

/* Asks for blocks [first, last], in pieces that are all in the cache below or all in the origin. *first: where it stopped. */
static enum answer ask_locked(struct cst_fetch_stream *s, uint64_t *first, uint64_t last, struct todo *todo)
{
	struct cst_fetch_object *o = s->object;
	const struct range_plan plan = {.kind = RANGE_PREFETCH, .most = RANGE_BLOCKS_MAX, .stream = s};
	while (*first <= last) {
		unsigned count = (unsigned)cst_min(last - *first + 1, (uint64_t)RANGE_BLOCKS_MAX);
		bool local = is_local_locked(o, *first, &count);
		enum answer answer = may_ask_locked(s, count, local);
		if (answer != YES)
			return answer;
		ranges_make_locked(o, *first, *first + count - 1, &plan, NULL, todo);
		*first += count;
	}
	return YES;
}

/* What was prefetched may have been given up meanwhile: the window is then filled again. */
static void check_ahead_locked(struct cst_fetch_stream *s, struct lane *l)
{
	struct cst_fetch_object *o = s->object;
	uint64_t next = (l->hi + BLOCK_SIZE - 1) / BLOCK_SIZE;
	if (next * BLOCK_SIZE < l->ahead && !block_find_locked(o->fetch, o, next))
		l->ahead = next * BLOCK_SIZE;
}

static uint64_t range_size(const struct cst_fetch *f, uint64_t window)
{
	return cst_min(cst_max(window / 4 & ~(MIB - 1), MIB), (uint64_t)f->config.range_size);
}

static enum answer ask_forward_locked(struct cst_fetch_stream *s, struct lane *l, struct todo *todo)
{
	struct cst_fetch_object *o = s->object;
	l->ahead = cst_max(l->ahead, l->hi);
	check_ahead_locked(s, l);
	uint64_t window = cst_min(l->window, share_locked(o->fetch));
	unsigned one = 1;
	if (window > WINDOW_LOCAL && l->ahead < o->size && is_local_locked(o, l->ahead / BLOCK_SIZE, &one))
		window = WINDOW_LOCAL;
	uint64_t range = range_size(o->fetch, window), target = cst_min(l->hi + window, o->size);
	while (l->ahead < target) {
		/* Ranges end on multiples of their size, so that streams over one object ask for the same ones. */
		uint64_t end = cst_min((l->ahead / range + 1) * range, o->size);
		if (end > target && end != o->size)
			break;
		uint64_t first = l->ahead / BLOCK_SIZE;
		enum answer answer = ask_locked(s, &first, (end - 1) / BLOCK_SIZE, todo);
		l->ahead = cst_max(l->ahead, cst_min(first * BLOCK_SIZE, end));
		if (answer != YES)
			return answer;
		l->ahead = end;
	}
	return YES;
}

static enum answer ask_backward_locked(struct cst_fetch_stream *s, struct lane *l, struct todo *todo)
{
	const struct cst_fetch *f = s->object->fetch;
	uint64_t window = cst_min(l->window, share_locked(f)), range = range_size(f, window);
	l->ahead = cst_min(l->ahead, l->lo);
	uint64_t target = l->lo > window ? l->lo - window : 0;
	while (l->ahead > target) {
		uint64_t from = (l->ahead - 1) / range * range;
		if (from < target)
			break;
		uint64_t first = from / BLOCK_SIZE;
		/* All of it or nothing: what is nearest comes last. */
		enum answer answer = may_ask_locked(s, (unsigned)((l->ahead - 1) / BLOCK_SIZE - first + 1), false);
		if (answer == YES)
			answer = ask_locked(s, &first, (l->ahead - 1) / BLOCK_SIZE, todo);
		if (answer != YES)
			return answer;
		l->ahead = from;
	}
	return YES;
}

static enum answer ask_strided_locked(struct cst_fetch_stream *s, struct todo *todo)
{
	const struct cst_fetch_object *o = s->object;
	const struct pattern *p = &s->pattern;
	uint64_t length = cst_max(p->record_length, p->record_end - p->record);
	uint64_t most =
		cst_min(o->fetch->config.window_max, share_locked(o->fetch)) / cst_max(length, (uint64_t)BLOCK_SIZE);
	while (s->stride_ahead < cst_min((uint64_t)s->stride_records, most)) {
		int64_t at = (int64_t)p->record + p->stride * (int64_t)(s->stride_ahead + 1);
		if (at < 0 || (uint64_t)at >= o->size)
			break;
		uint64_t first = (uint64_t)at / BLOCK_SIZE;
		enum answer answer =
			ask_locked(s, &first, (cst_min((uint64_t)at + length, o->size) - 1) / BLOCK_SIZE, todo);
		if (answer != YES)
			return answer;
		s->stride_ahead++;
	}
	return YES;
}

void stream_prefetch_locked(struct cst_fetch_stream *s, struct todo *todo)
{
	struct cst_fetch *f = s->object->fetch;
	if (s->closed || s->object->stale)
		return;
	enum answer answer = s->stride_records ? ask_strided_locked(s, todo) : YES;
	for (struct lane *l = s->pattern.lanes; l < s->pattern.lanes + LANES && answer == YES; l++)
		if (l->window)
			answer = l->kind == LANE_FORWARD ? ask_forward_locked(s, l, todo)
							 : ask_backward_locked(s, l, todo);
	if (answer == LATER && !s->hungry) {
		s->hungry = true;
		TAILQ_INSERT_TAIL(&f->hungry, s, hungry_link);
	}
}

void streams_pump_locked(struct cst_fetch *f, struct todo *todo)
{
	unsigned turns = 0;
	struct cst_fetch_stream *s;
	while ((s = TAILQ_FIRST(&f->hungry)) && TAILQ_EMPTY(&f->waiting)) {
		unsigned before = f->ranges;
		TAILQ_REMOVE(&f->hungry, s, hungry_link);
		s->hungry = false;
		stream_prefetch_locked(s, todo);
		/* Nothing for this one: nor for the others, but it may want more than they do. */
		if (f->ranges == before && ++turns == 4)
			return;
	}
}

bool cst_fetch_object_prefetch(struct cst_fetch_object *o)
{
	CST_CHECK(o, OBJECT_MAGIC);
	struct cst_fetch *f = o->fetch;
	const struct range_plan plan = {.kind = RANGE_PREFETCH, .most = RANGE_BLOCKS_MAX};
	struct todo todo;
	todo_init(&todo);
	bool made = false;
	if (o->size == 0 || o->size > SMALL_OBJECT)
		return false;
	pthread_mutex_lock(&f->lock);
	/* Small GETs cost their time, not the line: they are not measured, nor held to what is. Half of all are left to streams that want them. */
	unsigned most = f->config.max_prefetch - cst_min(f->prefetch_ranges, f->config.max_prefetch);
	if (!TAILQ_EMPTY(&f->hungry))
		most = cst_min(most, f->config.max_prefetch / 2);
	if (!o->stale && TAILQ_EMPTY(&o->blocks) && TAILQ_EMPTY(&f->waiting) && f->ahead_ranges < most &&
	    has_room_locked(f, (unsigned)object_last(o) + 1))
		made = ranges_make_locked(o, 0, object_last(o), &plan, NULL, &todo) > 0;
	pthread_mutex_unlock(&f->lock);
	todo_run(&todo);
	return made;
}
