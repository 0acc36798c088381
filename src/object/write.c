/* The entry points of write.h, and how its operations end. */
#include "object/write.h"

#include "object/backend.h"

#include "base/text.h"

#include <errno.h>

bool cst_bucket_has_if_match(const struct cst_bucket *b)
{
	CST_CHECK(b, CST_BUCKET_MAGIC);
	return b->backend->if_match;
}

struct cst_object_limits cst_bucket_limits(const struct cst_bucket *b)
{
	CST_CHECK(b, CST_BUCKET_MAGIC);
	return b->backend->limits;
}

/* ---- the life of what an operation has beside ---- */

void cst_write_free(struct cst_object_op *op)
{
	struct cst_write *w = cst_steal(op->write);
	if (!w)
		return;
	struct cst_buf *const bufs[] = {&w->lines, &w->upload_id, &w->after,  &w->document,
					&w->keys,  &w->answer,	  &w->new_id, &w->next_key};
	for (size_t i = 0; i < CST_ARRAY_LEN(bufs); i++)
		cst_buf_fini(bufs[i]);
	free(w->body);
	free(w->key);
	free(w);
}

static struct cst_object_op *write_new(struct cst_bucket *b, enum cst_op_kind kind, struct cst_slice key, void *fn,
				       void *arg)
{
	struct cst_object_op *op = cst_op_new(b, kind, key);
	op->write = CST_NEW(struct cst_write);
	op->fn = fn;
	op->arg = arg;
	return op;
}

static void set_deadline(struct cst_object_op *op, int64_t deadline)
{
	op->deadline_fixed = deadline != 0;
	if (deadline)
		op->deadline = deadline;
}

static void set_body(struct cst_object_op *op, const struct cst_object_body *body)
{
	struct cst_write *w = op->write;
	uint64_t left = body->length;
	w->body = cst_xcalloc((size_t)body->iov_count + 1, sizeof(*w->body));
	for (int i = 0; i < body->iov_count && left; i++) {
		size_t n = (size_t)cst_min((uint64_t)body->iov[i].iov_len, left);
		if (n)
			w->body[w->body_count++] = (struct iovec){body->iov[i].iov_base, n};
		left -= n;
	}
	CST_ASSERT(left == 0);
	w->length = w->size = body->length;
	w->body_crc64 = body->crc64;
	w->has_body_crc64 = body->has_crc64;
	op->background = body->background;
}

/* Without a name it would be a request about the bucket, without an upload one about the object. */
static const char *what_is_missing(const struct cst_object_op *op)
{
	const struct cst_write *w = op->write;
	switch (op->kind) {
	case CST_OP_LIST_UPLOADS:
		return NULL;
	case CST_OP_DELETE_MANY:
		for (size_t i = 0; i < w->key_count; i++)
			if (w->key[i].len == 0)
				return "a key is empty";
		return NULL;
	case CST_OP_PART:
	case CST_OP_PART_COPY:
	case CST_OP_COMPLETE:
	case CST_OP_ABORT:
	case CST_OP_LIST_PARTS:
		if (w->upload_id.len == 0)
			return "the upload has no id";
		break;
	default:
		break;
	}
	return op->key.len == 0 ? "the key is empty" : NULL;
}

/* Starts it, or refuses what can't be sent (error, why) before anything is. */
static struct cst_object_op *start(struct cst_object_op *op, int error, const char *why)
{
	const char *missing = what_is_missing(op);
	if (!error && missing) {
		error = EINVAL;
		why = missing;
	}
	if (!error) {
		cst_op_begin(op);
		return op;
	}
	cst_op_explain(op, error, 0, NULL);
	cst_error_why(&op->err, "%s", why);
	cst_ref_get(&op->ref);
	cst_op_finish(op, -error);
	return op;
}

static const char bad_text[] = "a header can't hold a name or value of the metadata or a condition";
static const char no_if_match[] = "OSS can't make a write depend on the version that it replaces";
static const char too_large[] = "it is larger than what the store takes in one request";

static int check(struct cst_object_op *op, bool ok, enum cst_object_condition condition, uint64_t max, const char **why)
{
	*why = bad_text;
	if (!ok)
		return EINVAL;
	*why = no_if_match;
	if (condition == CST_OBJECT_IF_MATCH && !op->bucket->backend->if_match)
		return ENOTSUP;
	*why = too_large;
	return op->write->length > max ? EFBIG : 0;
}

/* ---- objects ---- */

struct cst_object_op *cst_object_put(struct cst_bucket *b, const struct cst_object_put *put, cst_object_written_fn fn,
				     void *arg)
{
	struct cst_object_op *op = write_new(b, CST_OP_PUT, put->key, (void *)fn, arg);
	const char *why;
	set_deadline(op, put->deadline);
	set_body(op, &put->body);
	bool ok = cst_write_add_properties(op, put->properties);
	ok &= cst_write_add_condition(op, put->condition, put->if_match);
	int error = check(op, ok, put->condition, b->backend->limits.put_max, &why);
	return start(op, error, why);
}

struct cst_object_op *cst_object_put_symlink(struct cst_bucket *b, struct cst_slice key, struct cst_slice target,
					     const struct cst_object_properties *properties,
					     enum cst_object_condition condition, cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = write_new(b, CST_OP_PUT_SYMLINK, key, (void *)fn, arg);
	const char *why;
	if (!b->backend->symlinks)
		return start(op, ENOTSUP, "only OSS has symlink objects");
	bool ok = cst_write_add_properties(op, properties);
	ok &= cst_write_add_condition(op, condition, NULL);
	cst_buf_add_str(&op->write->lines, "x-oss-symlink-target: ");
	cst_text_url_encode(&op->write->lines, target, true);
	cst_buf_add_str(&op->write->lines, "\r\n");
	int error = check(op, ok, condition, UINT64_MAX, &why);
	return start(op, error, why);
}

struct cst_object_op *cst_object_append(struct cst_bucket *b, const struct cst_object_append *append,
					cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = write_new(b, CST_OP_APPEND, append->key, (void *)fn, arg);
	struct cst_write *w = op->write;
	const char *why;
	set_deadline(op, append->deadline);
	set_body(op, &append->body);
	w->position = append->position;
	w->size = append->position + append->body.length;
	w->crc64 = append->position ? append->crc64_before : 0;
	w->has_crc64 = append->has_crc64_before || append->position == 0;
	if (!b->backend->appends)
		return start(op, ENOTSUP, "only OSS has appendable objects");
	bool ok = append->position || cst_write_add_properties(op, append->properties);
	int error = check(op, ok, CST_OBJECT_ANY, b->backend->limits.append_max, &why);
	if (!error && w->size > b->backend->limits.append_max) {
		error = EFBIG;
		why = "an appendable object can't get so large";
	}
	return start(op, error, why);
}

struct cst_object_op *cst_object_copy(struct cst_bucket *b, const struct cst_object_copy *copy,
				      cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = write_new(b, CST_OP_COPY, copy->key, (void *)fn, arg);
	const char *why;
	set_deadline(op, copy->deadline);
	bool ok = cst_write_add_source(op, copy->source, copy->source_if_match);
	ok &= cst_write_add_condition(op, copy->condition, copy->if_match);
	if (copy->properties) {
		cst_buf_printf(&op->write->lines, "%smetadata-directive: REPLACE\r\n", b->backend->header_prefix);
		ok &= cst_write_add_properties(op, copy->properties);
	}
	int error = check(op, ok, copy->condition, UINT64_MAX, &why);
	return start(op, error, why);
}

struct cst_object_op *cst_object_delete(struct cst_bucket *b, struct cst_slice key, const char *if_match,
					cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = write_new(b, CST_OP_DELETE, key, (void *)fn, arg);
	enum cst_object_condition condition = if_match && if_match[0] ? CST_OBJECT_IF_MATCH : CST_OBJECT_ANY;
	const char *why;
	bool ok = cst_write_add_condition(op, condition, if_match);
	int error = check(op, ok, condition, UINT64_MAX, &why);
	return start(op, error, why);
}

struct cst_object_op *cst_object_delete_many(struct cst_bucket *b, const struct cst_slice *keys, size_t count,
					     const struct cst_object_delete_ops *ops, void *arg)
{
	struct cst_object_op *op = write_new(b, CST_OP_DELETE_MANY, (struct cst_slice){0}, NULL, arg);
	struct cst_write *w = op->write;
	CST_ASSERT(count > 0 && count <= CST_OBJECT_DELETE_MAX);
	w->delete_ops = *ops;
	w->key = cst_xcalloc(count, sizeof(*w->key));
	w->key_count = w->single = count;
	for (size_t i = 0; i < count; i++) {
		w->key[i] = (struct cst_write_key){w->keys.len, keys[i].len,
						   cst_write_fits_xml(keys[i]) ? CST_KEY_IN_DOCUMENT : CST_KEY_SINGLE};
		cst_buf_add_slice(&w->keys, keys[i]);
	}
	return start(op, 0, NULL);
}

/* ---- uploads ---- */

struct cst_object_op *cst_object_multipart_begin(struct cst_bucket *b, struct cst_slice key,
						 const struct cst_object_properties *properties,
						 cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = write_new(b, CST_OP_BEGIN, key, (void *)fn, arg);
	bool ok = cst_write_add_properties(op, properties);
	return start(op, ok ? 0 : EINVAL, bad_text);
}

struct cst_object_op *cst_object_part_put(struct cst_bucket *b, const struct cst_object_part_put *put,
					  cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = write_new(b, CST_OP_PART, put->key, (void *)fn, arg);
	const char *why;
	set_deadline(op, put->deadline);
	set_body(op, &put->body);
	op->write->number = put->number;
	cst_buf_add_slice(&op->write->upload_id, put->upload_id);
	int error = check(op, true, CST_OBJECT_ANY, b->backend->limits.part_max, &why);
	return start(op, error, why);
}

struct cst_object_op *cst_object_part_copy(struct cst_bucket *b, const struct cst_object_part_copy *copy,
					   cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = write_new(b, CST_OP_PART_COPY, copy->key, (void *)fn, arg);
	CST_ASSERT(copy->length > 0);
	set_deadline(op, copy->deadline);
	op->write->number = copy->number;
	op->write->size = copy->length;
	cst_buf_add_slice(&op->write->upload_id, copy->upload_id);
	bool ok = cst_write_add_source(op, copy->source, copy->if_match);
	cst_buf_printf(&op->write->lines, "%scopy-source-range: bytes=%llu-%llu\r\n", b->backend->header_prefix,
		       (unsigned long long)copy->offset, (unsigned long long)(copy->offset + copy->length - 1));
	if (ok && copy->length > b->backend->limits.copy_max)
		return start(op, EFBIG, too_large);
	return start(op, ok ? 0 : EINVAL, bad_text);
}

struct cst_object_op *cst_object_multipart_complete(struct cst_bucket *b, const struct cst_object_complete *complete,
						    cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = write_new(b, CST_OP_COMPLETE, complete->key, (void *)fn, arg);
	struct cst_write *w = op->write;
	const char *why;
	set_deadline(op, complete->deadline);
	cst_buf_add_slice(&w->upload_id, complete->upload_id);
	cst_write_parts_document(op, complete->parts, complete->part_count);
	for (size_t i = 0; i < complete->part_count; i++)
		w->size += complete->parts[i].size;
	w->crc64 = complete->crc64;
	w->has_crc64 = complete->has_crc64;
	bool ok = cst_write_add_condition(op, complete->condition, complete->if_match);
	int error = check(op, ok, complete->condition, UINT64_MAX, &why);
	return start(op, error, why);
}

struct cst_object_op *cst_object_multipart_abort(struct cst_bucket *b, struct cst_slice key, struct cst_slice upload_id,
						 cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = write_new(b, CST_OP_ABORT, key, (void *)fn, arg);
	cst_buf_add_slice(&op->write->upload_id, upload_id);
	return start(op, 0, NULL);
}

struct cst_object_op *cst_object_list_parts(struct cst_bucket *b, struct cst_slice key, struct cst_slice upload_id,
					    unsigned after, const struct cst_object_parts_ops *ops, void *arg)
{
	struct cst_object_op *op = write_new(b, CST_OP_LIST_PARTS, key, NULL, arg);
	op->write->parts_ops = *ops;
	op->write->number = after;
	cst_buf_add_slice(&op->write->upload_id, upload_id);
	return start(op, 0, NULL);
}

struct cst_object_op *cst_object_list_uploads(struct cst_bucket *b, struct cst_slice prefix, struct cst_slice after_key,
					      struct cst_slice after_upload, const struct cst_object_uploads_ops *ops,
					      void *arg)
{
	struct cst_object_op *op = write_new(b, CST_OP_LIST_UPLOADS, prefix, NULL, arg);
	op->write->uploads_ops = *ops;
	cst_buf_add_slice(&op->write->after, after_key);
	cst_buf_add_slice(&op->write->upload_id, after_upload);
	return start(op, 0, NULL);
}

/* ---- the end ---- */

static enum cst_object_type type_of(enum cst_op_kind kind)
{
	switch (kind) {
	case CST_OP_APPEND:
		return CST_OBJECT_APPENDABLE;
	case CST_OP_COMPLETE:
		return CST_OBJECT_MULTIPART;
	case CST_OP_PUT_SYMLINK:
		return CST_OBJECT_SYMLINK;
	default:
		return CST_OBJECT_NORMAL;
	}
}

void cst_write_call_back(struct cst_object_op *op, int rc, const struct cst_error *err)
{
	struct cst_write *w = op->write;
	switch (op->kind) {
	case CST_OP_LIST_PARTS:
		w->parts_ops.done(op->arg, rc, rc ? 0 : w->next_number, err);
		return;
	case CST_OP_LIST_UPLOADS:
		w->uploads_ops.done(op->arg, rc, cst_buf_slice(&w->next_key), cst_buf_slice(&w->new_id), err);
		return;
	case CST_OP_DELETE_MANY:
		w->delete_ops.done(op->arg, rc, err);
		return;
	default:
		break;
	}
	op->info.type = type_of(op->kind);
	op->info.size = w->size;
	struct cst_object_written written = {
		.rc = rc,
		.repeated = w->doubtful > 0,
		.info = &op->info,
		.part = &w->part,
		.upload_id = cst_buf_slice(&w->new_id),
		.next_position = w->next_position,
		.err = err,
	};
	((cst_object_written_fn)op->fn)(op->arg, &written);
}
