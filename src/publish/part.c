/* Parts: how large they are, and their way to the store. */
#define CST_LOG_AREA "publish"
#include "publish/internal.h"

#include "base/digest.h"
#include "base/log.h"

#include <string.h>

#define GROWTH 1000	     /* a part is at least this fraction of what is before it */
#define SMALL_PARTS_MAX 2000 /* so many may be smaller than they should, for want of memory */
#define SPARE_PARTS 64	     /* the last ones are as large as may be */
#define SPLIT_MIN MIB	     /* the last bytes go in several parts, none smaller than that */
#define SPLIT_MAX 8U
#define COPY_PIECE (UINT64_C(1) << 30) /* a copy takes its time: several at once */
#define RESTARTS_MAX 3

static unsigned parts_left(const struct cst_publish_stream *s)
{
	unsigned most = s->publish->limits.parts_max;
	return s->part_count < most ? most - (unsigned)s->part_count : 0;
}

uint64_t part_goal(const struct cst_publish_stream *s)
{
	const struct cst_publish *p = s->publish;
	uint64_t goal = cst_max(p->config.part_size, s->assigned / GROWTH / BLOCK_SIZE * BLOCK_SIZE);
	if (s->mode == CST_PUBLISH_APPENDABLE)
		return p->config.part_size;
	return parts_left(s) <= SPARE_PARTS ? p->part_cap : cst_min(goal, p->part_cap);
}

uint64_t part_least(const struct cst_publish_stream *s)
{
	if (s->mode == CST_PUBLISH_APPENDABLE)
		return 1;
	/* Without an upload it may be a file that never gets larger than one PUT: but what is there may go. */
	return s->part_count < SMALL_PARTS_MAX ? s->publish->limits.part_min : part_goal(s);
}

static unsigned copies_for(const struct cst_publish_stream *s, uint64_t *piece)
{
	uint64_t most = cst_min(s->publish->limits.copy_max, s->publish->limits.part_max);
	*piece = cst_min(most, s->source.size <= COPY_PIECE * 500 ? COPY_PIECE : most);
	return (unsigned)((s->source.size + *piece - 1) / *piece);
}

uint64_t size_limit(const struct cst_publish_stream *s)
{
	const struct cst_publish *p = s->publish;
	uint64_t piece;
	if (s->mode == CST_PUBLISH_APPENDABLE)
		return p->limits.append_max;
	unsigned left = parts_left(s), copies = s->part_count ? 0 : copies_for(s, &piece);
	return s->assigned + (uint64_t)(left > copies ? left - copies : 0) * p->part_cap;
}

/* What it has is about to go. A publication goes on to its end before that. */
static bool is_dropped(const struct cst_publish_stream *s)
{
	return s->reset_pending && s->pub.phase == PHASE_NONE;
}

/* ---- making ---- */

static struct part *add_part_locked(struct cst_publish_stream *s, uint64_t offset, uint64_t size, bool copy)
{
	if (s->part_count == s->part_room) {
		s->part_room = cst_max(2 * s->part_room, (size_t)16);
		s->parts = cst_xrealloc(s->parts, s->part_room * sizeof(*s->parts));
	}
	struct part *part = &s->parts[s->part_count++];
	memset(part, 0, sizeof(*part));
	part->part.number = (unsigned)s->part_count;
	part->part.size = size;
	part->offset = offset;
	part->copy = copy;
	return part;
}

/* The source's bytes come first, in pieces that are alike: none is too small. */
static void copy_source_locked(struct cst_publish_stream *s)
{
	uint64_t piece, at = 0;
	unsigned count = copies_for(s, &piece);
	for (unsigned i = 0; i < count; i++) {
		uint64_t end = i + 1 == count ? s->source.size : s->source.size / count * (i + 1);
		add_part_locked(s, at, end - at, true);
		at = end;
	}
}

/* Chunks from `assigned` on become a part, at least `goal` bytes if there are so many. */
static void make_part_locked(struct cst_publish_stream *s, struct chunk **from, uint64_t goal, uint64_t upto)
{
	struct chunk *c = *from;
	uint64_t offset = c->offset, size = 0;
	uint64_t before = c->crc_before, crc = 0;
	struct part *part = add_part_locked(s, offset, 0, false);
	for (; c && c->offset < upto && size < goal; c = TAILQ_NEXT(c, link)) {
		c->part = part->part.number;
		size += c->length;
		crc = c->crc;
	}
	part->part.size = size;
	part->part.has_crc64 = s->publish->config.verify_crc64;
	part->part.crc64 = part->part.has_crc64 ? crc ^ cst_crc64_combine(before, 0, size) : 0;
	s->assigned = offset + size;
	*from = c;
}

static struct chunk *first_free(const struct cst_publish_stream *s)
{
	struct chunk *c = TAILQ_LAST(&s->chunks, chunk_list), *first = NULL;
	for (; c && c->part == 0; c = TAILQ_PREV(c, chunk_list, link))
		first = c;
	return first;
}

/* The last bytes: several smaller parts at once are there sooner than one. */
static uint64_t split_goal(const struct cst_publish_stream *s, uint64_t bytes)
{
	uint64_t least = cst_max(s->publish->limits.part_min, SPLIT_MIN);
	uint64_t pieces = cst_min(bytes / least, (uint64_t)SPLIT_MAX);
	if (pieces < 2 || parts_left(s) <= SPARE_PARTS || s->assigned / GROWTH > s->publish->config.part_size)
		return part_goal(s);
	uint64_t goal = blocks_for((bytes + pieces - 1) / pieces) * BLOCK_SIZE;
	return cst_min(goal, part_goal(s));
}

bool parts_rejoin_locked(struct cst_publish_stream *s)
{
	const struct part *last = s->part_count ? &s->parts[s->part_count - 1] : NULL;
	struct chunk *c;
	if (!last || last->copy || last->part.size >= s->publish->limits.part_min || s->size == s->assigned)
		return true;
	if (last->state == PART_FLYING)
		return false;
	TAILQ_FOREACH (c, &s->chunks, link)
		if (c->part == last->part.number)
			c->part = 0;
	s->assigned = last->offset;
	s->part_count--;
	s->next_part = cst_min(s->next_part, s->part_count);
	return true;
}

void parts_make_locked(struct cst_publish_stream *s, uint64_t upto, bool split)
{
	if (!parts_rejoin_locked(s))
		return;
	struct chunk *c = first_free(s);
	if (s->part_count == 0)
		copy_source_locked(s);
	s->retained = false;
	uint64_t last = 0; /* of those that the end is split into */
	while (c && c->offset < upto) {
		uint64_t left = upto - c->offset, goal = part_goal(s);
		if (!split && left < s->publish->limits.part_min)
			return;
		if (split && left < 2 * goal) {
			last = last ? last : split_goal(s, left);
			goal = last;
		}
		/* What would be left over is too small to be a part, unless it is the last. */
		if (left > goal && left - goal < s->publish->limits.part_min && !split && left <= s->publish->part_cap)
			goal = left;
		make_part_locked(s, &c, goal, upto);
	}
}

/* While nothing is published: of what is more than a part, as it comes. */
void parts_early_locked(struct cst_publish_stream *s)
{
	if (s->closed || s->reset_pending || s->source.size > s->assigned || !parts_rejoin_locked(s))
		return;
	for (;;) {
		uint64_t goal = part_goal(s);
		struct chunk *c = first_free(s);
		uint64_t rest = c ? s->size - c->offset : 0;
		/* The first one waits for a byte more: it may be all there is. */
		bool first = s->part_count == 0 && s->mode == CST_PUBLISH_WHOLE;
		if (!c || rest < goal || (first && rest == goal))
			return;
		if (s->mode == CST_PUBLISH_APPENDABLE) {
			publication_start_locked(s);
			return;
		}
		if (s->part_count == 0)
			copy_source_locked(s);
		s->retained = false;
		make_part_locked(s, &c, goal, s->size);
	}
}

/* ---- sending ---- */

static void begin_locked(struct cst_publish_stream *s, struct todo *todo)
{
	if (s->upload_begun || s->upload_id.len)
		return;
	struct call *c = call_new_locked(s, CALL_BEGIN, todo);
	s->upload_begun = true;
	c->properties = properties_ref(s->properties);
	cst_write_id_new(s->upload_write_id);
	memcpy(c->id, s->upload_write_id, sizeof(c->id));
}

static bool may_send_locked(struct cst_publish_stream *s)
{
	struct cst_publish *p = s->publish;
	if (s->flying >= p->config.stream_parallel)
		return false;
	if (p->flying < p->config.parallel)
		return true;
	if (!s->hungry) {
		s->hungry = true;
		TAILQ_INSERT_TAIL(&p->hungry, s, hungry_link);
	}
	return false;
}

/* One whose own answers have made room for the rest of its parts may end while it still stands in the line. */
void hungry_forget_locked(struct cst_publish_stream *s)
{
	if (!s->hungry)
		return;
	s->hungry = false;
	TAILQ_REMOVE(&s->publish->hungry, s, hungry_link);
}

static void send_locked(struct cst_publish_stream *s, struct part *part, struct todo *todo)
{
	struct call *c = call_new_locked(s, part->copy ? CALL_COPY : CALL_PART, todo);
	part->state = PART_FLYING;
	s->flying++;
	c->number = part->part.number;
	c->offset = part->offset;
	c->length = part->part.size;
	if (part->copy) {
		memcpy(c->etag, s->source.etag, sizeof(c->etag));
		return;
	}
	call_body_locked(c, part->offset, part->offset + part->part.size);
	c->crc64 = part->part.crc64;
	c->has_crc64 = part->part.has_crc64;
}

void parts_send_locked(struct cst_publish_stream *s, struct todo *todo)
{
	if (s->part_count == 0 || s->stalled || s->failed || s->upload_gone || is_dropped(s))
		return;
	begin_locked(s, todo);
	if (!s->upload_id.len)
		return;
	while (s->next_part < s->part_count && s->parts[s->next_part].state != PART_WAITING)
		s->next_part++;
	for (size_t i = s->next_part; i < s->part_count; i++) {
		struct part *part = &s->parts[i];
		if (part->state != PART_WAITING)
			continue;
		if (!may_send_locked(s))
			return;
		if (part->copy || load_locked(s, part->offset, part->offset + part->part.size, todo))
			send_locked(s, part, todo);
	}
}

bool parts_done(const struct cst_publish_stream *s)
{
	if (!s->upload_id.len || s->flying)
		return false;
	for (size_t i = s->next_part; i < s->part_count; i++)
		if (s->parts[i].state != PART_DONE)
			return false;
	return true;
}

void parts_retry_locked(struct cst_publish_stream *s)
{
	for (size_t i = 0; i < s->part_count; i++)
		if (s->parts[i].state == PART_FAILED)
			s->parts[i].state = PART_WAITING;
	s->next_part = 0;
}

/* ---- answers ---- */

static void part_done_locked(struct cst_publish_stream *s, struct part *part, const struct cst_object_written *written)
{
	struct cst_publish *p = s->publish;
	struct chunk *c, *next;
	unsigned number = part->part.number;
	uint64_t size = part->part.size;
	part->state = PART_DONE;
	part->part = *written->part;
	part->part.number = number;
	part->part.size = size;
	if (part->copy) {
		p->stats.part_copies++;
		return;
	}
	p->stats.parts++;
	p->stats.bytes_sent += size;
	if (size <
	    p->limits
		    .part_min) /* only an upload's end may be that small, and more may come: see parts_rejoin_locked() */
		return;
	for (c = TAILQ_FIRST(&s->chunks); c && c->offset < part->offset + size; c = next) {
		next = TAILQ_NEXT(c, link);
		if (c->part == number)
			chunk_free_locked(s, c);
	}
}

/* The upload is gone, but all of its bytes are still here. */
static bool may_restart(const struct cst_publish_stream *s)
{
	for (size_t i = 0; i < s->part_count; i++)
		if (!s->parts[i].copy && s->parts[i].state == PART_DONE)
			return false;
	return s->restarts < RESTARTS_MAX;
}

/* When all that was sent to it has been answered: an answer from the old one must not count for the new one. */
static void upload_lost_locked(struct cst_publish_stream *s, struct todo *todo)
{
	struct cst_error err = CST_ERROR_INIT;
	char name[NAME_MAX_TEXT];
	s->upload_gone = false;
	if (may_restart(s)) {
		s->restarts++;
		cst_buf_clear(&s->upload_id);
		for (size_t i = 0; i < s->part_count; i++)
			s->parts[i].state = PART_WAITING;
		s->next_part = 0;
		return;
	}
	cst_error_set(&err, EIO, "can't write %s", stream_name(s, name));
	cst_error_why(&err, "its upload is gone from the store, with the parts that were sent: another client or a "
			    "lifecycle rule of the bucket has aborted it");
	stream_fail_locked(s, -EIO, &err);
	publication_fail_locked(s, -EIO, &err, todo);
}

void part_answer_locked(struct call *c, const struct cst_object_written *written, struct todo *todo)
{
	struct cst_publish_stream *s = c->stream;
	struct part *part = &s->parts[c->number - 1];
	bool gone = written->rc == -ENOENT && strcmp(written->err->api, "NoSuchUpload") == 0;
	s->flying--;
	if (s->upload_gone || (gone && !is_dropped(s) && !c->cancelled)) {
		part->state = PART_WAITING; /* whatever came of it */
		s->upload_gone = true;
		if (s->flying == 0)
			upload_lost_locked(s, todo);
		return;
	}
	if (written->rc == 0) {
		part_done_locked(s, part, written);
		return;
	}
	part->state = PART_FAILED;
	if (is_dropped(s) || c->cancelled)
		return;
	if (part->copy && (written->rc == -ESTALE || written->rc == -ENOENT) && s->maybe_count == 0) {
		publication_conflict_locked(s, written->err, todo);
		return;
	}
	publication_fail_locked(s, written->rc, written->err, todo);
}

void begin_answer_locked(struct call *c, const struct cst_object_written *written, struct todo *todo)
{
	struct cst_publish_stream *s = c->stream;
	s->upload_begun = false;
	if (written->rc == 0)
		cst_buf_add_slice(&s->upload_id, written->upload_id);
	else if (!is_dropped(s) && !c->cancelled)
		publication_fail_locked(s, written->rc, written->err, todo);
}

/* ---- the end of an upload ---- */

void upload_forget_locked(struct cst_publish_stream *s)
{
	cst_buf_clear(&s->upload_id);
	s->part_count = s->next_part = 0;
	s->restarts = 0;
	s->upload_gone = false;
}

void upload_abort_locked(struct cst_publish_stream *s, struct todo *todo)
{
	if (s->upload_id.len) {
		struct call *c = call_new_locked(s, CALL_ABORT, todo);
		c->upload_id = s->upload_id;
		s->upload_id = (struct cst_buf)CST_BUF_INIT;
	}
	upload_forget_locked(s);
}

void abort_answer_locked(struct call *c, const struct cst_object_written *written)
{
	static struct cst_log_limit limit;
	char name[NAME_MAX_TEXT], text[CST_ERROR_TEXT_MAX];
	if (written->rc == 0)
		return;
	if (cst_log_allowed(&limit, 60 * CST_NS_PER_S, NULL))
		cst_log_warn(
			"the upload %.*s of %s stays behind in the store, where it takes room until it is aborted: %s",
			(int)cst_min(c->upload_id.len, (size_t)100), c->upload_id.data, stream_name(c->stream, name),
			cst_error_text(written->err, text, sizeof(text)));
}
