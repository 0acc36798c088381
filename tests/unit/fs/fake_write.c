/* The operations of the fake bucket that write. */
#include "fake_bucket_private.h"

#include "base/clock.h"

bool cst_bucket_has_if_match(const struct cst_bucket *b)
{
	(void)b;
	return true;
}

struct cst_object_limits cst_bucket_limits(const struct cst_bucket *b)
{
	return (struct cst_object_limits){.part_min = 1,
					  .part_max = UINT64_MAX,
					  .put_max = UINT64_MAX,
					  .copy_max = b->copy_max,
					  .parts_max = 10000};
}

void fake_copy_max(struct cst_bucket *b, uint64_t bytes)
{
	b->copy_max = bytes;
}

void fake_hold_write(struct cst_bucket *b, const char *key)
{
	pthread_mutex_lock(&b->lock);
	snprintf(b->hold_write, sizeof(b->hold_write), "%s", key);
	pthread_cond_broadcast(&b->work);
	pthread_mutex_unlock(&b->lock);
}

void fake_fail_next(struct cst_bucket *b, enum fake_kind kind, unsigned count, int rc, bool lost)
{
	pthread_mutex_lock(&b->lock);
	for (size_t i = 0; i < CST_ARRAY_LEN(b->failures); i++) {
		if (b->failures[i].count > 0)
			continue;
		b->failures[i] = (struct fake_failure){count, kind, rc, lost};
		break;
	}
	pthread_mutex_unlock(&b->lock);
}

bool fake_has(struct cst_bucket *b, const char *key, const char *text)
{
	pthread_mutex_lock(&b->lock);
	const struct item *item = fake_find(b, cst_slice_of(key));
	bool has = text ? item && item->size == strlen(text) && (item->size == 0 || item->text) &&
				   (item->size == 0 || memcmp(item->text, text, item->size) == 0)
			: !item;
	pthread_mutex_unlock(&b->lock);
	return has;
}

void fake_content(struct cst_bucket *b, struct cst_slice key, struct cst_buf *out)
{
	pthread_mutex_lock(&b->lock);
	const struct item *item = fake_find(b, key);
	for (uint64_t i = 0; item && i < item->size; i++)
		cst_buf_add_char(out, item->text ? item->text[i] : fake_byte(item->etag, i));
	pthread_mutex_unlock(&b->lock);
}

bool fake_has_meta(struct cst_bucket *b, const char *key, const char *meta)
{
	pthread_mutex_lock(&b->lock);
	const struct item *item = fake_find(b, cst_slice_of(key));
	bool has = item && strcmp(item->meta_text ? item->meta_text : "", meta) == 0;
	pthread_mutex_unlock(&b->lock);
	return has;
}

/* ---- at work; the lock is held ---- */

static int failure_of(struct cst_bucket *b, enum op_kind kind, bool *lost)
{
	enum fake_kind wanted = kind == OP_PUT				      ? FAKE_PUT
				: kind == OP_DELETE || kind == OP_DELETE_MANY ? FAKE_DELETE
									      : FAKE_COPY;
	for (size_t i = 0; i < CST_ARRAY_LEN(b->failures); i++) {
		struct fake_failure *f = &b->failures[i];
		if (f->count == 0 || f->kind != wanted)
			continue;
		f->count--;
		*lost = f->lost;
		return f->rc;
	}
	return 0;
}

static int check(const struct cst_object_op *op, const struct item *there)
{
	if (op->condition == CST_OBJECT_IF_ABSENT && there)
		return -EEXIST;
	if (op->condition == CST_OBJECT_IF_MATCH && (!there || strcmp(there->etag, op->if_match) != 0))
		return -ESTALE;
	return 0;
}

static struct item *item_of(struct cst_slice key, uint64_t size, const char *etag, const char *text, const char *meta)
{
	struct item *item = fake_item_new(key, size, etag, cst_wall() / CST_NS_PER_S, meta);
	if (text) {
		item->text = cst_xmalloc(size + 1);
		memcpy(item->text, text, size);
		item->text[size] = 0;
	}
	return item;
}

static int do_put(struct cst_object_op *op)
{
	struct cst_bucket *b = op->bucket;
	char etag[16];
	int rc = check(op, fake_find(b, cst_buf_slice(&op->key)));
	if (rc < 0)
		return rc;
	snprintf(etag, sizeof(etag), "w%07u", ++b->etags);
	fake_put_item(b, item_of(cst_buf_slice(&op->key), op->body.len, etag, op->body.len ? op->body.data : NULL,
				 op->source.len ? op->source.data : NULL));
	return 0;
}

static int do_copy(struct cst_object_op *op)
{
	struct cst_bucket *b = op->bucket;
	const struct item *from = fake_find(b, cst_buf_slice(&op->source));
	if (!from)
		return -ENOENT;
	if (op->if_match[0] && strcmp(from->etag, op->if_match) != 0)
		return -ESTALE;
	if (op->condition == CST_OBJECT_IF_ABSENT && fake_find(b, cst_buf_slice(&op->key)))
		return -EEXIST;
	fake_put_item(b, item_of(cst_buf_slice(&op->key), from->size, from->etag, from->text, from->meta_text));
	return 0;
}

static int do_delete(struct cst_object_op *op)
{
	struct cst_bucket *b = op->bucket;
	const struct item *there = fake_find(b, cst_buf_slice(&op->key));
	if (op->if_match[0] && there && strcmp(there->etag, op->if_match) != 0)
		return -ESTALE;
	fake_remove_item(b, cst_buf_slice(&op->key));
	return 0;
}

static int do_delete_many(struct cst_object_op *op)
{
	struct cst_slice rest = cst_buf_slice(&op->source);
	while (rest.len > 0)
		fake_remove_item(op->bucket, cst_slice_cut(&rest, 0));
	return 0;
}

static int work(struct cst_object_op *op)
{
	switch (op->kind) {
	case OP_PUT:
		return do_put(op);
	case OP_COPY:
		return do_copy(op);
	case OP_DELETE:
		return do_delete(op);
	case OP_DELETE_MANY:
		return do_delete_many(op);
	default:
		return op->complete ? do_copy(op) : 0;
	}
}

void fake_run_write(struct cst_object_op *op, int fail, const char *api)
{
	struct cst_bucket *b = op->bucket;
	struct cst_error err = {.what = "the fake refuses", .why = "it was told to"};
	struct cst_object_info info = {0};
	struct cst_object_part part = {.number = op->part};
	bool lost = false;
	pthread_mutex_lock(&b->lock);
	int rc = fail ? fail : failure_of(b, op->kind, &lost);
	if (rc == 0 || lost) {
		int done = work(op);
		rc = rc ? rc : done;
	}
	const struct item *item = fake_find(b, cst_buf_slice(&op->key));
	if (rc == 0 && item) {
		info.size = item->size;
		info.mtime = item->mtime;
		memcpy(info.etag, item->etag, sizeof(info.etag));
	}
	pthread_mutex_unlock(&b->lock);
	err.code = -rc;
	snprintf(err.api, sizeof(err.api), "%s", api);
	if (op->kind == OP_DELETE_MANY) {
		op->fn.delete_many.done(op->arg, rc, &err);
		return;
	}
	struct cst_object_written written = {.rc = rc,
					     .info = &info,
					     .part = &part,
					     .upload_id = CST_SLICE("upload"),
					     .err = &err,
					     .repeated = lost};
	op->fn.written(op->arg, &written);
}

/* ---- as asked for ---- */

static struct cst_object_op *write_new(struct cst_bucket *b, enum op_kind kind, struct cst_slice key,
				       cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = fake_op_new(b, kind, key, arg);
	op->fn.written = fn;
	return op;
}

static struct cst_object_op *go(struct cst_object_op *op, const char *if_match)
{
	if (if_match)
		snprintf(op->if_match, sizeof(op->if_match), "%s", if_match);
	fake_op_queue(op);
	return op;
}

struct cst_object_op *cst_object_put(struct cst_bucket *b, const struct cst_object_put *put, cst_object_written_fn fn,
				     void *arg)
{
	struct cst_object_op *op = write_new(b, OP_PUT, put->key, fn, arg);
	op->condition = put->condition;
	if (put->properties && put->properties->meta_count == 1 && put->properties->meta->name.len == 0) {
		cst_buf_add_slice(&op->source, put->properties->meta->value);
		cst_buf_add_char(&op->source, 0);
	}
	for (int i = 0; i < put->body.iov_count; i++)
		cst_buf_add(&op->body, put->body.iov[i].iov_base, put->body.iov[i].iov_len);
	return go(op, put->if_match);
}

struct cst_object_op *cst_object_copy(struct cst_bucket *b, const struct cst_object_copy *copy,
				      cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = write_new(b, OP_COPY, copy->key, fn, arg);
	op->condition = copy->condition;
	cst_buf_add_slice(&op->source, copy->source);
	return go(op, copy->source_if_match);
}

struct cst_object_op *cst_object_delete(struct cst_bucket *b, struct cst_slice key, const char *if_match,
					cst_object_written_fn fn, void *arg)
{
	return go(write_new(b, OP_DELETE, key, fn, arg), if_match);
}

struct cst_object_op *cst_object_delete_many(struct cst_bucket *b, const struct cst_slice *keys, size_t count,
					     const struct cst_object_delete_ops *ops, void *arg)
{
	struct cst_object_op *op = fake_op_new(b, OP_DELETE_MANY, CST_SLICE(""), arg);
	op->fn.delete_many = *ops;
	for (size_t i = 0; i < count; i++) {
		cst_buf_add_slice(&op->source, keys[i]);
		cst_buf_add_char(&op->source, 0);
	}
	return go(op, NULL);
}

struct cst_object_op *cst_object_multipart_begin(struct cst_bucket *b, struct cst_slice key,
						 const struct cst_object_properties *properties,
						 cst_object_written_fn fn, void *arg)
{
	(void)properties;
	return go(write_new(b, OP_PART, key, fn, arg), NULL);
}

/* The last part's source is what complete makes of it. */
static char last_source[256];

struct cst_object_op *cst_object_part_copy(struct cst_bucket *b, const struct cst_object_part_copy *copy,
					   cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = write_new(b, OP_PART, copy->key, fn, arg);
	op->part = copy->number;
	pthread_mutex_lock(&b->lock);
	snprintf(last_source, sizeof(last_source), "%.*s", (int)copy->source.len, copy->source.data);
	pthread_mutex_unlock(&b->lock);
	return go(op, NULL);
}

struct cst_object_op *cst_object_multipart_complete(struct cst_bucket *b, const struct cst_object_complete *complete,
						    cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = write_new(b, OP_PART, complete->key, fn, arg);
	op->complete = true;
	op->condition = complete->condition;
	cst_buf_add_str(&op->source, last_source);
	return go(op, NULL);
}

struct cst_object_op *cst_object_multipart_abort(struct cst_bucket *b, struct cst_slice key, struct cst_slice upload_id,
						 cst_object_written_fn fn, void *arg)
{
	(void)upload_id;
	return go(write_new(b, OP_PART, key, fn, arg), NULL);
}
