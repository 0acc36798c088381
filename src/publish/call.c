/* Requests: started without the lock, answered on a loop's thread (or while they are being started). */
#include "publish/internal.h"

#include <string.h>

static bool counts(const struct call *c)
{
	return c->kind == CALL_PART || c->kind == CALL_COPY || c->kind == CALL_PUT || c->kind == CALL_APPEND;
}

struct call *call_new_locked(struct cst_publish_stream *s, enum call_kind kind, struct todo *todo)
{
	struct call *c = CST_NEW(struct call);
	c->magic = CALL_MAGIC;
	c->ref.count = 2;
	c->kind = kind;
	c->stream = s;
	stream_ref(s);
	LIST_INSERT_HEAD(&s->calls, c, link);
	s->call_count++;
	s->publish->calls++;
	s->publish->flying += counts(c);
	STAILQ_INSERT_TAIL(&todo->calls, c, start);
	return c;
}

static bool is_in(const struct chunk *c, uint64_t from, uint64_t to)
{
	return c->offset >= from && c->offset < to;
}

/* The vectors point into the chunks: nothing is copied. A chunk may reach beyond `to`: bytes that came later. */
void call_body_locked(struct call *c, uint64_t from, uint64_t to)
{
	struct chunk *chunk;
	int count = 0;
	c->offset = from;
	c->length = to - from;
	TAILQ_FOREACH (chunk, &c->stream->chunks, link)
		count += is_in(chunk, from, to);
	c->iov = cst_xcalloc((size_t)cst_max(count, 1), sizeof(*c->iov));
	uint64_t at = from;
	TAILQ_FOREACH (chunk, &c->stream->chunks, link) {
		if (!is_in(chunk, from, to))
			continue;
		CST_ASSERT(chunk->state == CHUNK_MEMORY && chunk->offset == at);
		size_t n = (size_t)cst_min((uint64_t)chunk->length, to - at);
		c->iov[c->iov_count++] = (struct iovec){chunk->block + chunk->skip, n};
		chunk->pins++;
		at += n;
	}
	CST_ASSERT(at == to);
	c->pins = true;
	c->stream->publish->leaving += (unsigned)c->iov_count;
}

static void unpin_locked(struct call *c)
{
	struct chunk *chunk;
	if (!c->pins)
		return;
	c->stream->publish->leaving -= (unsigned)c->iov_count;
	TAILQ_FOREACH (chunk, &c->stream->chunks, link)
		if (is_in(chunk, c->offset, c->offset + c->length))
			chunk->pins--;
}

static void unref(struct call *c)
{
	if (!cst_ref_put(&c->ref))
		return;
	c->magic = 0;
	properties_unref(c->properties);
	cst_buf_fini(&c->upload_id);
	free(c->iov);
	free(c->parts);
	free(c);
}

void calls_cancel_locked(struct cst_publish_stream *s)
{
	struct call *c;
	LIST_FOREACH (c, &s->calls, link) {
		c->cancelled = c->kind != CALL_ABORT;
		if (c->op && c->cancelled)
			cst_object_cancel(c->op);
	}
}

void calls_stop_locked(struct cst_publish_stream *s)
{
	struct call *c;
	LIST_FOREACH (c, &s->calls, link)
		if (c->op)
			cst_object_cancel(c->op);
}

/* ---- the end of one ---- */

static struct cst_object_op *leave_locked(struct call *c)
{
	CST_CHECK(c, CALL_MAGIC);
	c->ended = true;
	LIST_REMOVE(c, link);
	c->stream->call_count--;
	c->stream->publish->calls--;
	c->stream->publish->flying -= counts(c);
	unpin_locked(c);
	return cst_steal(c->op);
}

static void finish(struct call *c, struct cst_object_op *op, struct todo *todo)
{
	struct cst_publish_stream *s = c->stream;
	struct cst_publish *p = s->publish;
	advance_locked(s, todo);
	memory_pump_locked(p, todo);
	pthread_mutex_unlock(&p->lock);
	publish_todo_run(p, todo);
	cst_object_release(op);
	pthread_mutex_lock(&p->lock);
	stream_unref_locked(s);
	pthread_mutex_unlock(&p->lock);
	unref(c);
}

static void on_written(void *arg, const struct cst_object_written *written)
{
	struct call *c = arg;
	struct todo todo;
	publish_todo_init(&todo);
	pthread_mutex_lock(&c->stream->publish->lock);
	struct cst_object_op *op = leave_locked(c);
	switch (c->kind) {
	case CALL_BEGIN:
		begin_answer_locked(c, written, &todo);
		break;
	case CALL_PART:
	case CALL_COPY:
		part_answer_locked(c, written, &todo);
		break;
	case CALL_ABORT:
		abort_answer_locked(c, written);
		break;
	default:
		publication_answer_locked(c, written);
	}
	finish(c, op, &todo);
}

static void on_head(void *arg, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct call *c = arg;
	struct todo todo;
	publish_todo_init(&todo);
	pthread_mutex_lock(&c->stream->publish->lock);
	struct cst_object_op *op = leave_locked(c);
	head_answer_locked(c, rc, info, err);
	finish(c, op, &todo);
}

static void on_front(void *arg, int rc, size_t got, const struct cst_object_info *info, const struct cst_error *err)
{
	struct call *c = arg;
	struct todo todo;
	(void)info;
	publish_todo_init(&todo);
	pthread_mutex_lock(&c->stream->publish->lock);
	struct cst_object_op *op = leave_locked(c);
	front_answer_locked(c, rc, got, err, &todo);
	finish(c, op, &todo);
}

/* ---- the start of one: what it reads of the stream doesn't change while it has requests ---- */

static struct cst_object_body body_of(const struct call *c)
{
	return (struct cst_object_body){.iov = c->iov,
					.iov_count = c->iov_count,
					.length = c->length,
					.crc64 = c->crc64,
					.has_crc64 = c->has_crc64,
					.background = c->stream->publish->config.background};
}

/* The caller's, and the write id. */
static struct cst_object_properties properties_of(const struct call *c, struct cst_http_header *meta)
{
	const struct properties *p = c->properties;
	memcpy(meta, p->meta, p->meta_count * sizeof(*meta));
	meta[p->meta_count] =
		(struct cst_http_header){.name = CST_SLICE(WRITE_ID_HEADER), .value = cst_slice_of(c->id)};
	return (struct cst_object_properties){.meta = meta,
					      .meta_count = p->meta_count + 1,
					      .content_type = p->content_type,
					      .storage_class = p->storage_class,
					      .acl = p->acl,
					      .extra = p->extra};
}

static struct cst_object_op *start_publishing(struct call *c, struct cst_bucket *b, struct cst_slice key)
{
	CST_AUTO_FREE struct cst_http_header *meta =
		cst_xcalloc(c->properties->meta_count + 1, sizeof(struct cst_http_header));
	struct cst_object_properties properties = properties_of(c, meta);
	if (c->kind == CALL_BEGIN)
		return cst_object_multipart_begin(b, key, &properties, on_written, c);
	if (c->kind == CALL_PUT) {
		struct cst_object_put put = {.key = key,
					     .body = body_of(c),
					     .condition = c->condition,
					     .if_match = c->etag,
					     .properties = &properties};
		return cst_object_put(b, &put, on_written, c);
	}
	struct cst_object_append append = {.key = key,
					   .position = c->offset,
					   .body = body_of(c),
					   .properties = c->offset == 0 ? &properties : NULL};
	append.has_crc64_before = c->has_before;
	append.crc64_before = c->before;
	return cst_object_append(b, &append, on_written, c);
}

static struct cst_object_op *start_part(struct call *c, struct cst_bucket *b, struct cst_slice key)
{
	struct cst_slice upload_id = cst_buf_slice(&c->stream->upload_id);
	struct cst_object_part_put put = {.key = key, .upload_id = upload_id, .number = c->number, .body = body_of(c)};
	struct cst_object_part_copy copy = {.key = key,
					    .upload_id = upload_id,
					    .number = c->number,
					    .source = key,
					    .if_match = c->etag,
					    .offset = c->offset,
					    .length = c->length};
	return c->kind == CALL_PART ? cst_object_part_put(b, &put, on_written, c)
				    : cst_object_part_copy(b, &copy, on_written, c);
}

static struct cst_object_op *start_complete(struct call *c, struct cst_bucket *b, struct cst_slice key)
{
	struct cst_object_complete complete = {.key = key,
					       .upload_id = cst_buf_slice(&c->stream->upload_id),
					       .parts = c->parts,
					       .part_count = c->part_count,
					       .crc64 = c->crc64,
					       .has_crc64 = c->has_crc64,
					       .condition = c->condition,
					       .if_match = c->etag};
	return cst_object_multipart_complete(b, &complete, on_written, c);
}

static struct cst_object_op *start_front(struct call *c, struct cst_bucket *b, struct cst_slice key)
{
	struct cst_object_get get = {.key = key,
				     .length = c->length,
				     .if_match = c->etag[0] ? c->etag : NULL,
				     .into = c->iov,
				     .into_count = c->iov_count};
	return cst_object_get(b, &get, on_front, c);
}

static struct cst_object_op *start(struct call *c)
{
	struct cst_bucket *b = c->stream->publish->config.bucket;
	struct cst_slice key = cst_buf_slice(&c->stream->key);
	switch (c->kind) {
	case CALL_BEGIN:
	case CALL_PUT:
	case CALL_APPEND:
		return start_publishing(c, b, key);
	case CALL_PART:
	case CALL_COPY:
		return start_part(c, b, key);
	case CALL_COMPLETE:
		return start_complete(c, b, key);
	case CALL_DELETE:
		return cst_object_delete(b, key, NULL, on_written, c);
	case CALL_HEAD:
		return cst_object_head(b, key, false, on_head, c);
	case CALL_FRONT:
		return start_front(c, b, key);
	case CALL_ABORT:
		return cst_object_multipart_abort(b, key, cst_buf_slice(&c->upload_id), on_written, c);
	}
	cst_panic(__FILE__, __LINE__, "no request %d", (int)c->kind);
}

void call_start(struct call *c)
{
	struct cst_publish *p = c->stream->publish;
	struct cst_object_op *op = start(c);
	/* Its answer may have come, and the stream may be gone. */
	pthread_mutex_lock(&p->lock);
	bool over = c->ended;
	if (!over) {
		c->op = op;
		if (c->cancelled || p->stopped)
			cst_object_cancel(op);
	}
	pthread_mutex_unlock(&p->lock);
	if (over)
		cst_object_release(op);
	unref(c);
}
