/* Taking bytes: blocks are granted under the lock, filled without it. */
#include "publish/internal.h"

#include "base/digest.h"

#include <string.h>

static struct chunk *open_chunk(const struct cst_publish_stream *s)
{
	struct chunk *c = TAILQ_LAST(&s->chunks, chunk_list);
	return c && c->state == CHUNK_MEMORY && c->part == 0 && c->skip + c->length < BLOCK_SIZE ? c : NULL;
}

static uint32_t room_in(const struct chunk *c)
{
	return c ? BLOCK_SIZE - c->skip - c->length : 0;
}

/* ---- the end of writes ---- */

static void end_locked(struct cst_publish_stream *s, struct cst_publish_write *w, int rc, const struct cst_error *err,
		       struct todo *todo)
{
	TAILQ_REMOVE(&s->writes, w, link);
	w->queued = false;
	w->result = rc;
	w->error = NULL;
	if (rc < 0) {
		w->error = cst_xmalloc(sizeof(*w->error));
		*w->error = *err;
	}
	TAILQ_INSERT_TAIL(&todo->writes, w, link);
}

/* All but the one whose bytes are being copied just now. */
void writes_fail_locked(struct cst_publish_stream *s, int rc, const struct cst_error *err, struct todo *todo)
{
	struct cst_publish_write *w = TAILQ_FIRST(&s->writes), *next;
	if (w && s->copying)
		w = TAILQ_NEXT(w, link);
	for (; w; w = next) {
		next = TAILQ_NEXT(w, link);
		end_locked(s, w, rc, err, todo);
	}
	if (!s->copying)
		memory_forget_locked(s);
}

static void misplaced_locked(struct cst_publish_stream *s, struct cst_publish_write *w, struct todo *todo)
{
	struct cst_error err = CST_ERROR_INIT;
	char name[NAME_MAX_TEXT];
	cst_error_set(&err, EINVAL, "can't write at byte %llu of %s", (unsigned long long)w->offset,
		      stream_name(s, name));
	cst_error_why(&err, "it is written from front to end, and has %llu bytes", (unsigned long long)s->size);
	end_locked(s, w, -EINVAL, &err, todo);
}

static void too_large_locked(struct cst_publish_stream *s, struct cst_publish_write *w, struct todo *todo)
{
	struct cst_error err = CST_ERROR_INIT;
	char name[NAME_MAX_TEXT];
	cst_error_set(&err, EFBIG, "can't write more than %llu bytes to %s", (unsigned long long)size_limit(s),
		      stream_name(s, name));
	cst_error_why(&err, s->mode == CST_PUBLISH_APPENDABLE ? "appendable objects end there"
							      : "that is what its parts hold");
	if (s->mode == CST_PUBLISH_WHOLE)
		cst_error_hint(&err, "more memory for uploads (upload_memory) makes larger parts");
	end_locked(s, w, -EFBIG, &err, todo);
}

/* ---- the front of a small object that is appended to ---- */

static bool front_missing(const struct cst_publish_stream *s)
{
	return s->source.size > 0 && s->source.size < s->publish->limits.part_min && s->mode == CST_PUBLISH_WHOLE &&
	       !s->upload_begun && s->part_count == 0;
}

/* Into blocks of the budget, like all else. */
static void load_front_locked(struct cst_publish_stream *s, struct todo *todo)
{
	uint64_t left = s->source.size;
	if (s->front_loading || s->waiting)
		return;
	if (s->grant_count < blocks_for(left) && !memory_ask_locked(s, (unsigned)blocks_for(left)))
		return;
	struct call *c = call_new_locked(s, CALL_FRONT, todo);
	s->front_loading = true;
	c->length = left;
	memcpy(c->etag, s->source.etag, sizeof(c->etag));
	c->iov = cst_xcalloc(blocks_for(left), sizeof(*c->iov));
	for (; left; c->iov_count++) {
		size_t n = (size_t)cst_min(left, (uint64_t)BLOCK_SIZE);
		c->iov[c->iov_count] = (struct iovec){s->grant[c->iov_count], n};
		left -= n;
	}
}

static void add_chunk_locked(struct cst_publish_stream *s, char *block, uint64_t offset, size_t n, uint64_t crc_before,
			     uint64_t crc)
{
	struct chunk *c = CST_NEW(struct chunk);
	c->block = block;
	c->offset = offset;
	c->length = (uint32_t)n;
	c->crc_before = crc_before;
	c->crc = crc;
	TAILQ_INSERT_TAIL(&s->chunks, c, link);
}

static void front_failed_locked(struct call *c, int rc, const struct cst_error *err, struct todo *todo)
{
	struct cst_publish_stream *s = c->stream;
	memory_forget_locked(s);
	if (rc == -ENOENT || rc == -ESTALE) {
		struct cst_error stale = *err;
		stale.code = ESTALE;
		cst_error_hint(&stale, "another writer has changed or removed the object: nothing was overwritten");
		rc = -ESTALE;
		s->kept = true; /* there is nothing to keep */
		s->publish->stats.conflicts++;
		stream_fail_locked(s, rc, &stale);
		writes_fail_locked(s, rc, &stale, todo);
		return;
	}
	writes_fail_locked(s, rc, err, todo);
}

void front_answer_locked(struct call *c, int rc, size_t got, const struct cst_error *err, struct todo *todo)
{
	struct cst_publish_stream *s = c->stream;
	struct cst_error bad = CST_ERROR_INIT;
	char name[NAME_MAX_TEXT];
	uint64_t crc = 0;
	s->front_loading = false;
	if (s->reset_pending || s->closed) {
		memory_forget_locked(s);
		return;
	}
	for (int i = 0; i < c->iov_count && rc >= 0; i++)
		crc = cst_crc64(crc, c->iov[i].iov_base, c->iov[i].iov_len);
	bool known = s->anchor.known && s->anchor.offset == s->source.size;
	if (rc >= 0 && (got != c->length || (known && s->publish->config.verify_crc64 && crc != s->anchor.crc64))) {
		cst_error_set(&bad, EBADMSG, "can't go on writing %s", stream_name(s, name));
		cst_error_why(&bad, "the bytes that are there came back otherwise than they were");
		rc = -EBADMSG;
		err = &bad;
	}
	if (rc < 0) {
		front_failed_locked(c, rc, err, todo);
		return;
	}
	crc = 0;
	for (int i = 0; i < c->iov_count; i++) {
		uint64_t before = crc;
		crc = cst_crc64(crc, c->iov[i].iov_base, c->iov[i].iov_len);
		add_chunk_locked(s, s->grant[i], (uint64_t)i * BLOCK_SIZE, c->iov[i].iov_len, before, crc);
	}
	s->grant_count -= (unsigned)c->iov_count;
	memmove(s->grant, s->grant + c->iov_count, s->grant_count * sizeof(*s->grant));
	s->source.size = s->assigned = 0;
	s->retained = true;
	s->crc = crc;
	s->anchor.offset = s->size;
	s->anchor.run = s->anchor.crc64 = crc;
	s->anchor.known = true;
}

/* ---- taking ---- */

/* Can it begin? Room for what is taken next is then in the last chunk and the grant. */
static bool may_copy_locked(struct cst_publish_stream *s, struct cst_publish_write *w, struct todo *todo)
{
	size_t left = w->data.len - w->taken;
	uint32_t room = room_in(open_chunk(s));
	if (front_missing(s)) {
		load_front_locked(s, todo);
		return false;
	}
	size_t more = left > room ? cst_min(left - room, (size_t)(GRANT_WRITE - 1) * BLOCK_SIZE) : 0;
	unsigned blocks = (unsigned)blocks_for(more);
	if (s->grant_count >= blocks)
		return true;
	return !s->waiting && memory_ask_locked(s, blocks);
}

void writes_serve_locked(struct cst_publish_stream *s, struct todo *todo)
{
	struct cst_publish_write *w;
	if (s->copying || s->reset_pending || s->front_loading || s->finished)
		return;
	if (is_being_kept(s)) /* what came now would be in no record: it is refused after, with the rest */
		return;
	if (s->failed || s->stalled) {
		writes_fail_locked(s, s->failed ? s->failed : s->stalled, s->failed ? s->fail_err : s->stall_err, todo);
		return;
	}
	while ((w = TAILQ_FIRST(&s->writes))) {
		if (w->taken == 0 && w->offset != s->size)
			misplaced_locked(s, w, todo);
		else if (w->data.len == w->taken)
			end_locked(s, w, 0, NULL, todo);
		else if (w->taken == 0 && (s->size + w->data.len > size_limit(s) || s->size + w->data.len < s->size))
			too_large_locked(s, w, todo);
		else
			break;
	}
	if (!w) {
		memory_forget_locked(s);
		return;
	}
	if (!may_copy_locked(s, w, todo))
		return;
	s->copying = true;
	s->publish->copies++;
	stream_ref(s);
	STAILQ_INSERT_TAIL(&todo->copies, s, copy_link);
}

static uint64_t fill(char *to, const char *from, size_t n, bool sum, uint64_t crc)
{
	memcpy(to, from, n);
	return sum ? cst_crc64(crc, to, n) : 0;
}

/* What has been copied becomes the stream's. */
struct copied {
	struct chunk *last;
	uint32_t last_length;
	uint64_t last_crc;
	unsigned count;
	uint32_t lengths[GRANT_MAX];
	uint64_t crcs[GRANT_MAX];
	size_t bytes;
};

static void copied_locked(struct cst_publish_stream *s, const struct copied *done, struct todo *todo)
{
	struct cst_publish *p = s->publish;
	struct cst_publish_write *w = TAILQ_FIRST(&s->writes);
	if (done->last_length) {
		done->last->length += done->last_length;
		done->last->crc = s->crc = done->last_crc;
		s->size += done->last_length;
	}
	for (unsigned i = 0; i < done->count; i++) {
		add_chunk_locked(s, s->grant[i], s->size, done->lengths[i], s->crc, done->crcs[i]);
		s->crc = done->crcs[i];
		s->size += done->lengths[i];
	}
	CST_ASSERT(done->count <= s->grant_count);
	memmove(s->grant, s->grant + done->count, (s->grant_count - done->count) * sizeof(*s->grant));
	s->grant_count -= done->count;
	w->taken += done->bytes;
	p->stats.bytes_written += done->bytes;
	s->copying = false;
	p->copies--;
	if (w->taken == w->data.len)
		end_locked(s, w, 0, NULL, todo);
}

void write_copy(struct cst_publish_stream *s)
{
	struct cst_publish *p = s->publish;
	struct copied done = {0};
	struct todo todo;
	publish_todo_init(&todo);
	pthread_mutex_lock(&p->lock);
	const struct cst_publish_write *w = TAILQ_FIRST(&s->writes);
	const char *from = w->data.data + w->taken;
	size_t left = w->data.len - w->taken;
	unsigned granted = s->grant_count;
	uint64_t crc = s->crc;
	done.last = open_chunk(s);
	pthread_mutex_unlock(&p->lock);
	bool sum = p->config.verify_crc64;
	if (done.last) {
		done.last_length = (uint32_t)cst_min(left, (size_t)room_in(done.last));
		crc = fill(done.last->block + done.last->skip + done.last->length, from, done.last_length, sum, crc);
		done.last_crc = crc;
		done.bytes = done.last_length;
	}
	for (; done.count < granted && done.bytes < left; done.count++) {
		uint32_t n = (uint32_t)cst_min(left - done.bytes, (size_t)BLOCK_SIZE);
		crc = fill(s->grant[done.count], from + done.bytes, n, sum, crc);
		done.lengths[done.count] = n;
		done.crcs[done.count] = crc;
		done.bytes += n;
	}
	pthread_mutex_lock(&p->lock);
	copied_locked(s, &done, &todo);
	advance_locked(s, &todo);
	if (p->pump || !TAILQ_EMPTY(&p->waiting))
		memory_pump_locked(p, &todo);
	pthread_mutex_unlock(&p->lock);
	publish_todo_run(p, &todo);
	pthread_mutex_lock(&p->lock);
	stream_unref_locked(s);
	pthread_mutex_unlock(&p->lock);
}

/* Behind those that begin before it. */
static void queue_locked(struct cst_publish_stream *s, struct cst_publish_write *w)
{
	struct cst_publish_write *after = TAILQ_LAST(&s->writes, cst_publish_write_list);
	while (after && after->offset > w->offset && after->taken == 0 &&
	       !(s->copying && after == TAILQ_FIRST(&s->writes)))
		after = TAILQ_PREV(after, cst_publish_write_list, link);
	if (after)
		TAILQ_INSERT_AFTER(&s->writes, after, w, link);
	else
		TAILQ_INSERT_HEAD(&s->writes, w, link);
}

void cst_publish_write(struct cst_publish_stream *s, struct cst_publish_write *w)
{
	CST_CHECK(s, STREAM_MAGIC);
	struct cst_publish *p = s->publish;
	struct todo todo;
	publish_todo_init(&todo);
	w->stream = s;
	w->taken = 0;
	w->queued = true;
	pthread_mutex_lock(&p->lock);
	CST_ASSERT(!s->closed);
	queue_locked(s, w);
	writes_serve_locked(s, &todo);
	if (p->pump)
		memory_pump_locked(p, &todo);
	pthread_mutex_unlock(&p->lock);
	publish_todo_run(p, &todo);
}

bool cst_publish_write_leave(struct cst_publish_write *w)
{
	struct cst_publish_stream *s = w->stream;
	struct cst_publish *p = s->publish;
	struct todo todo;
	publish_todo_init(&todo);
	pthread_mutex_lock(&p->lock);
	bool first = w == TAILQ_FIRST(&s->writes);
	bool may = w->queued && w->taken == 0 && !(first && s->copying);
	if (may) {
		TAILQ_REMOVE(&s->writes, w, link);
		w->queued = false;
		/* Those behind it are looked at again: without it they don't fit any more. */
		if (first && !s->front_loading)
			memory_forget_locked(s);
		writes_serve_locked(s, &todo);
		memory_pump_locked(p, &todo);
	}
	pthread_mutex_unlock(&p->lock);
	publish_todo_run(p, &todo);
	return may;
}
