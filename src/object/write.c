/* The entry points of write.h. */
#include "object/write.h"

#include "object/backend.h"

#include <errno.h>

static struct cst_object_op *refuse(struct cst_bucket *b, struct cst_slice key, cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = cst_op_new(b, CST_OP_HEAD, key);
	struct cst_object_info info = {.key = key};
	cst_error_set(&op->err, ENOTSUP, "can't write %s://%s", b->backend->scheme, b->name);
	cst_error_why(&op->err, "not supported");
	fn(arg, &(struct cst_object_written){.rc = -ENOTSUP, .info = &info, .err = &op->err});
	return op;
}

bool cst_bucket_has_if_match(const struct cst_bucket *b)
{
	return b->backend == &cst_backend_s3;
}

struct cst_object_limits cst_bucket_limits(const struct cst_bucket *b)
{
	bool s3 = b->backend == &cst_backend_s3;
	uint64_t most = UINT64_C(5) << 30;
	return (struct cst_object_limits){.part_min = s3 ? UINT64_C(5) << 20 : UINT64_C(100) << 10,
					  .part_max = most,
					  .put_max = most,
					  .copy_max = most,
					  .parts_max = 10000,
					  .append_max = s3 ? 0 : most};
}

struct cst_object_op *cst_object_put(struct cst_bucket *b, const struct cst_object_put *put, cst_object_written_fn fn,
				     void *arg)
{
	return refuse(b, put->key, fn, arg);
}

struct cst_object_op *cst_object_multipart_begin(struct cst_bucket *b, struct cst_slice key,
						 const struct cst_object_properties *properties,
						 cst_object_written_fn fn, void *arg)
{
	(void)properties;
	return refuse(b, key, fn, arg);
}

struct cst_object_op *cst_object_part_put(struct cst_bucket *b, const struct cst_object_part_put *put,
					  cst_object_written_fn fn, void *arg)
{
	return refuse(b, put->key, fn, arg);
}

struct cst_object_op *cst_object_part_copy(struct cst_bucket *b, const struct cst_object_part_copy *copy,
					   cst_object_written_fn fn, void *arg)
{
	return refuse(b, copy->key, fn, arg);
}

struct cst_object_op *cst_object_multipart_complete(struct cst_bucket *b, const struct cst_object_complete *complete,
						    cst_object_written_fn fn, void *arg)
{
	return refuse(b, complete->key, fn, arg);
}

struct cst_object_op *cst_object_multipart_abort(struct cst_bucket *b, struct cst_slice key, struct cst_slice upload_id,
						 cst_object_written_fn fn, void *arg)
{
	(void)upload_id;
	return refuse(b, key, fn, arg);
}

struct cst_object_op *cst_object_list_parts(struct cst_bucket *b, struct cst_slice key, struct cst_slice upload_id,
					    unsigned after, const struct cst_object_parts_ops *ops, void *arg)
{
	struct cst_error err = CST_ERROR_INIT;
	(void)upload_id, (void)after;
	cst_error_set(&err, ENOTSUP, "can't list parts");
	ops->done(arg, -ENOTSUP, 0, &err);
	return cst_op_new(b, CST_OP_HEAD, key);
}

struct cst_object_op *cst_object_list_uploads(struct cst_bucket *b, struct cst_slice prefix, struct cst_slice after_key,
					      struct cst_slice after_upload, const struct cst_object_uploads_ops *ops,
					      void *arg)
{
	struct cst_error err = CST_ERROR_INIT;
	(void)after_key, (void)after_upload;
	cst_error_set(&err, ENOTSUP, "can't list uploads");
	ops->done(arg, -ENOTSUP, (struct cst_slice){0}, (struct cst_slice){0}, &err);
	return cst_op_new(b, CST_OP_HEAD, prefix);
}

struct cst_object_op *cst_object_append(struct cst_bucket *b, const struct cst_object_append *append,
					cst_object_written_fn fn, void *arg)
{
	return refuse(b, append->key, fn, arg);
}

struct cst_object_op *cst_object_copy(struct cst_bucket *b, const struct cst_object_copy *copy,
				      cst_object_written_fn fn, void *arg)
{
	return refuse(b, copy->key, fn, arg);
}

struct cst_object_op *cst_object_delete(struct cst_bucket *b, struct cst_slice key, const char *if_match,
					cst_object_written_fn fn, void *arg)
{
	(void)if_match;
	return refuse(b, key, fn, arg);
}

struct cst_object_op *cst_object_delete_many(struct cst_bucket *b, const struct cst_slice *keys, size_t count,
					     const struct cst_object_delete_ops *ops, void *arg)
{
	struct cst_error err = CST_ERROR_INIT;
	(void)keys, (void)count;
	cst_error_set(&err, ENOTSUP, "can't delete objects");
	ops->done(arg, -ENOTSUP, &err);
	return cst_op_new(b, CST_OP_HEAD, (struct cst_slice){0});
}

struct cst_object_op *cst_object_put_symlink(struct cst_bucket *b, struct cst_slice key, struct cst_slice target,
					     const struct cst_object_properties *properties,
					     enum cst_object_condition condition, cst_object_written_fn fn, void *arg)
{
	(void)target, (void)properties, (void)condition;
	return refuse(b, key, fn, arg);
}
