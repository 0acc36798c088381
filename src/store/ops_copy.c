#include "store/ops.h"

#include "base/clock.h"
#include "base/digest.h"
#include "store/upload.h"

#include <errno.h>

/* Into the blob, whose bucket may be another one. False: answered. */
static bool open_source_key(struct cst_store_request *r, struct cst_slice bucket, struct cst_slice key,
			    struct cst_blob *blob)
{
	CST_AUTO_CLOSE int fd = -1;
	int rc;

	if (r->only_bucket[0] && !cst_slice_is(bucket, r->only_bucket)) {
		cst_answer_errorf(r, CST_STORE_ERR_ACCESS_DENIED, "The access key is for another bucket.");
		return false;
	}
	fd = cst_backend_bucket(r->b, bucket);
	if (fd < 0) {
		cst_answer_error(r, CST_STORE_ERR_NO_SUCH_BUCKET);
		return false;
	}
	rc = cst_blob_open(r->b, fd, key, blob);
	if (rc)
		cst_answer_errno(r, rc);
	return rc == 0;
}

bool cst_ops_open_source(struct cst_store_request *r, struct cst_blob *blob)
{
	CST_AUTO_BUF decoded = CST_BUF_INIT;
	struct cst_slice bucket;
	struct cst_slice key;

	if (cst_request_copy_source(cst_request_own(r, "copy-source"), &decoded, &bucket, &key) != 0) {
		cst_answer_errorf(r, CST_STORE_ERR_INVALID_ARGUMENT,
				  "The copy source must be /BUCKET/KEY, URL-encoded.");
		return false;
	}
	if (!open_source_key(r, bucket, key, blob))
		return false;
	if (cst_ops_is_archived(&blob->record)) {
		cst_answer_error(r, CST_STORE_ERR_INVALID_OBJECT_STATE);
		return false;
	}
	switch (cst_ops_conditions(r, &blob->record, true)) {
	case CST_CONDITION_HOLDS:
		return true;
	case CST_CONDITION_NOT_MODIFIED:
		if (r->dialect == CST_STORE_OSS) {
			cst_answer_empty(r, 304);
			return false;
		}
		break;
	case CST_CONDITION_FAILED:
		break;
	}
	cst_answer_error(r, CST_STORE_ERR_PRECONDITION);
	return false;
}

static bool is_replace(const struct cst_store_request *r)
{
	return cst_slice_ieq(cst_request_own(r, "metadata-directive"), CST_SLICE("REPLACE"));
}

static bool is_same_key(const struct cst_store_request *r, const struct cst_blob *blob)
{
	CST_AUTO_BLOB own = CST_BLOB_INIT;

	return cst_blob_open(r->b, r->bucket_fd, r->key, &own) == 0 && own.st.st_ino == blob->st.st_ino &&
	       own.st.st_dev == blob->st.st_dev;
}

/* What is the source's whatever the directive says. */
static void take_content(struct cst_record *record, const struct cst_record *source)
{
	record->type = source->type == CST_RECORD_SYMLINK ? CST_RECORD_SYMLINK : CST_RECORD_NORMAL;
	memcpy(record->etag, source->etag, sizeof(record->etag));
	record->has_crc64 = source->has_crc64;
	record->crc64 = source->crc64;
	memcpy(record->checksum, source->checksum, sizeof(record->checksum));
	cst_buf_clear(&record->target);
	cst_buf_add_slice(&record->target, cst_buf_slice(&source->target));
}

static bool make_record(struct cst_store_request *r, const struct cst_record *source, struct cst_record *record)
{
	enum cst_record_class class;

	if (!cst_ops_collect(r, record))
		return false;
	/* A copy has the class that is asked for, else the usual one; S3 wants it asked for, too. */
	class = record->class;
	if (!is_replace(r)) {
		cst_buf_clear(&record->headers);
		cst_buf_add_slice(&record->headers, cst_buf_slice(&source->headers));
	}
	record->class = class;
	take_content(record, source);
	return true;
}

static void answer_copy(struct cst_store_request *r, const char *root, const struct cst_record *record)
{
	CST_AUTO_BUF xml = CST_BUF_INIT;
	char etag[CST_ANSWER_ETAG];

	cst_xml_root(r, &xml, root);
	cst_xml_time(&xml, "LastModified", record->mtime / CST_NS_PER_S);
	cst_xml_text(&xml, "ETag", cst_slice_of(cst_answer_etag(r, record->etag, etag)));
	cst_buf_printf(&xml, "</%s>", root);
	if (r->dialect == CST_STORE_OSS) {
		/* Its clients read the header (ali-oss completes copies of parts with it), those of S3 the body. */
		cst_http_response_header(r->x, "ETag", cst_answer_etag(r, record->etag, etag));
		if (record->has_crc64)
			cst_http_response_headerf(r->x, "x-oss-hash-crc64ecma", "%llu",
						  (unsigned long long)record->crc64);
	}
	cst_answer_xml(r, &xml);
}

/* A copy onto itself changes what is said about the bytes and leaves them alone. */
static void copy_in_place(struct cst_store_request *r)
{
	pthread_rwlock_t *stripe = cst_backend_stripe(r->b, r->key);
	CST_AUTO_BLOB blob = CST_BLOB_INIT;
	CST_AUTO_RECORD record = CST_RECORD_INIT;
	struct cst_ops_verdict verdict = {.may = true};
	enum cst_record_type type;
	bool may;
	int rc;

	/* What is wrong with the request itself is told before anybody waits for the key. */
	if (!cst_ops_collect(r, &record))
		return;
	pthread_rwlock_wrlock(stripe);
	rc = cst_blob_open_locked(r->b, r->bucket_fd, r->key, &blob);
	type = blob.record.type;
	if (rc == 0)
		verdict = cst_ops_decide_locked(r);
	may = rc == 0 && verdict.may && make_record(r, &blob.record, &record);
	if (may) {
		record.type = type;
		rc = cst_blob_rewrite_locked(r->b, &blob, &record, true);
	}
	pthread_rwlock_unlock(stripe);
	cst_ops_tell(r, &verdict);
	if (rc)
		cst_answer_errno(r, rc);
	else if (may)
		answer_copy(r, "CopyObjectResult", &record);
}

void cst_op_copy_object(struct cst_store_request *r)
{
	CST_AUTO_BLOB source = CST_BLOB_INIT;
	CST_AUTO_RECORD record = CST_RECORD_INIT;
	CST_OPS_AUTO_STAGED staged = {r->b, CST_STAGED_INIT};
	int rc;

	if (!cst_ops_check_key(r) || !cst_ops_may_write(r) || !cst_ops_open_source(r, &source))
		return;
	if (is_same_key(r, &source)) {
		if (r->dialect == CST_STORE_S3 && !is_replace(r) && !cst_request_own(r, "storage-class").data) {
			cst_answer_errorf(
				r, CST_STORE_ERR_INVALID_REQUEST,
				"This copy request is illegal because it is trying to copy an object to itself without "
				"changing the object's metadata or storage class.");
			return;
		}
		copy_in_place(r);
		return;
	}
	if (source.record.size > CST_OBJECT_MAX) {
		cst_answer_errorf(r, CST_STORE_ERR_INVALID_REQUEST,
				  "The copy source is larger than 5 GiB: copy it in parts.");
		return;
	}
	if (!make_record(r, &source.record, &record) || !cst_ops_stage(r, &staged.s))
		return;
	rc = cst_backend_copy_range(source.fd, 0, source.record.size, staged.s.fd);
	if (rc)
		cst_answer_errno(r, rc);
	else if (cst_ops_store(r, &staged.s, &record))
		answer_copy(r, "CopyObjectResult", &record);
}

/* ---- UploadPartCopy ---- */

static int sum_file(int fd, struct cst_record *record)
{
	CST_AUTO_FREE char *chunk = cst_xmalloc(1 << 20);
	struct cst_digest *md5 = cst_digest_new(CST_DIGEST_MD5);
	uint8_t sum[CST_SHA256_LEN];
	off_t at = 0;
	ssize_t n;

	record->crc64 = 0;
	while ((n = pread(fd, chunk, 1 << 20, at)) > 0) {
		cst_digest_update(md5, chunk, (size_t)n);
		record->crc64 = cst_crc64(record->crc64, chunk, (size_t)n);
		at += n;
	}
	cst_digest_final(md5, sum);
	cst_digest_free(md5);
	cst_ops_md5_etag(sum, record->etag);
	record->has_crc64 = true;
	return n < 0 ? -errno : 0;
}

static bool source_range(struct cst_store_request *r, uint64_t size, uint64_t *offset, uint64_t *length)
{
	struct cst_slice range = cst_request_own(r, "copy-source-range");

	*offset = 0;
	*length = size;
	if (range.data && cst_request_range(range, size, r->dialect == CST_STORE_S3, offset, length) != CST_RANGE_OK &&
	    r->dialect == CST_STORE_S3) {
		cst_answer_errorf(r, CST_STORE_ERR_INVALID_ARGUMENT,
				  "The copy source range is not valid for the source object.");
		return false;
	}
	if (*length > CST_OBJECT_MAX) {
		cst_answer_error(r, CST_STORE_ERR_ENTITY_TOO_LARGE);
		return false;
	}
	return true;
}

void cst_op_upload_part_copy(struct cst_store_request *r)
{
	CST_AUTO_BLOB source = CST_BLOB_INIT;
	CST_AUTO_RECORD record = CST_RECORD_INIT;
	CST_AUTO_UPLOAD upload = CST_UPLOAD_INIT;
	CST_OPS_AUTO_STAGED staged = {r->b, CST_STAGED_INIT};
	uint64_t offset;
	uint64_t length;
	unsigned number;
	int rc;

	if (!cst_ops_part_number(r, &number) || !cst_ops_open_upload(r, &upload) || !cst_ops_open_source(r, &source) ||
	    !source_range(r, source.record.size, &offset, &length) || !cst_ops_stage(r, &staged.s))
		return;
	rc = cst_backend_copy_range(source.fd, offset, length, staged.s.fd);
	if (rc == 0)
		rc = sum_file(staged.s.fd, &record);
	if (rc == 0)
		rc = cst_staged_seal(r->b, &staged.s, &record);
	if (rc == 0)
		rc = cst_upload_add_part(r->b, &upload, number, &staged.s);
	if (rc == -ENOENT)
		cst_answer_error(r, CST_STORE_ERR_NO_SUCH_UPLOAD);
	else if (rc)
		cst_answer_errno(r, rc);
	else
		answer_copy(r, "CopyPartResult", &record);
}
