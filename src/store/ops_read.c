#include "store/ops.h"

#include "base/clock.h"
#include "base/text.h"

#include <errno.h>

/* The key that GET and HEAD mean, through one symbolic link. *link has the link's own record when there was one. */
static bool open_target(struct cst_store_request *r, struct cst_blob *blob, struct cst_record *link, bool *is_link)
{
	CST_AUTO_BUF target = CST_BUF_INIT;
	int rc = cst_blob_open(r->b, r->bucket_fd, r->key, blob);

	*is_link = rc == 0 && blob->record.type == CST_RECORD_SYMLINK;
	if (rc) {
		cst_answer_errno(r, rc);
		return false;
	}
	if (!*is_link)
		return true;
	*link = blob->record;
	blob->record = (struct cst_record)CST_RECORD_INIT;
	cst_buf_add_slice(&target, cst_buf_slice(&link->target));
	cst_blob_close(blob);
	rc = cst_blob_open(r->b, r->bucket_fd, cst_buf_slice(&target), blob);
	if (rc) {
		cst_answer_error(r, CST_STORE_ERR_SYMLINK_TARGET);
		return false;
	}
	if (blob->record.type == CST_RECORD_SYMLINK) {
		cst_answer_error(r, CST_STORE_ERR_INVALID_TARGET_TYPE);
		return false;
	}
	return true;
}

static void validators(struct cst_store_request *r, const struct cst_record *record)
{
	char when[CST_TIME_TEXT];

	cst_ops_etag_header(r, record);
	cst_time_http(record->mtime / CST_NS_PER_S, when);
	cst_http_response_header(r->x, "Last-Modified", when);
}

/* True when the request is answered by that: 304 or 412. */
static bool answer_conditions(struct cst_store_request *r, const struct cst_record *record)
{
	switch (cst_ops_conditions(r, record, false)) {
	case CST_CONDITION_HOLDS:
		return false;
	case CST_CONDITION_NOT_MODIFIED:
		cst_answer_common(r);
		validators(r, record);
		cst_http_response_start(r->x, 304, (int64_t)record->size);
		cst_http_response_end(r->x);
		return true;
	case CST_CONDITION_FAILED:
		cst_answer_error(r, CST_STORE_ERR_PRECONDITION);
		return true;
	}
	return true;
}

/* S3's partNumber: an object that came in one piece has one part, itself. */
static bool refuse_part(struct cst_store_request *r, const struct cst_record *record)
{
	struct cst_slice part = cst_request_param(r, "partNumber");

	if (!part.data || (cst_slice_is(part, "1") && record->type != CST_RECORD_MULTIPART))
		return false;
	cst_answer_errorf(r, CST_STORE_ERR_NOT_IMPLEMENTED, "Reading by part number is not implemented: use ranges.");
	return true;
}

static void send_range(struct cst_store_request *r, const struct cst_blob *blob, const struct cst_record *shown)
{
	uint64_t size = blob->record.size;
	uint64_t offset = 0;
	uint64_t length = size;
	bool strict = r->dialect == CST_STORE_S3 ||
		      cst_slice_ieq(cst_request_own(r, "range-behavior"), CST_SLICE("standard"));
	struct cst_slice range = cst_request_header(r, "range");
	struct cst_slice if_range = cst_request_header(r, "if-range");
	enum cst_range_kind kind;
	int status = 200;

	if (if_range.data && !cst_request_etag_listed(if_range, blob->record.etag))
		range = (struct cst_slice){NULL, 0};
	kind = cst_request_range(range, size, strict, &offset, &length);
	if (kind == CST_RANGE_UNSATISFIABLE) {
		CST_AUTO_BUF extra = CST_BUF_INIT;

		cst_http_response_headerf(r->x, "Content-Range", "bytes */%llu", (unsigned long long)size);
		cst_xml_printf(&extra, "ActualObjectSize", "%llu", (unsigned long long)size);
		cst_answer_error_with(r, CST_STORE_ERR_INVALID_RANGE, NULL, extra.data);
		return;
	}
	cst_answer_common(r);
	validators(r, &blob->record);
	cst_ops_headers(r, shown);
	cst_http_response_header(r->x, "Accept-Ranges", "bytes");
	if (kind == CST_RANGE_NONE && cst_slice_ieq(cst_request_own(r, "checksum-mode"), CST_SLICE("ENABLED")))
		cst_ops_checksum_header(r, &blob->record);
	if (kind == CST_RANGE_OK) {
		status = 206;
		cst_http_response_headerf(r->x, "Content-Range", "bytes %llu-%llu/%llu", (unsigned long long)offset,
					  (unsigned long long)(offset + length - 1), (unsigned long long)size);
	}
	if (cst_http_response_start(r->x, status, (int64_t)length) != 0)
		return;
	if (!r->is_head && length)
		cst_http_response_sendfile(r->x, blob->fd, (int64_t)offset, (int64_t)length);
	cst_http_response_end(r->x);
}

static void get_or_head(struct cst_store_request *r)
{
	CST_AUTO_BLOB blob = CST_BLOB_INIT;
	CST_AUTO_RECORD link = CST_RECORD_INIT;
	bool is_link;

	if (!open_target(r, &blob, &link, &is_link) || answer_conditions(r, &blob.record) ||
	    refuse_part(r, &blob.record))
		return;
	if (!r->is_head && cst_ops_is_archived(&blob.record)) {
		CST_AUTO_BUF extra = CST_BUF_INIT;

		cst_xml_text(&extra, "StorageClass", cst_slice_of(cst_answer_class(r, blob.record.class)));
		cst_answer_error_with(r, CST_STORE_ERR_INVALID_OBJECT_STATE, NULL, extra.data);
		return;
	}
	send_range(r, &blob, is_link ? &link : &blob.record);
}

void cst_op_get_object(struct cst_store_request *r)
{
	get_or_head(r);
}

void cst_op_head_object(struct cst_store_request *r)
{
	get_or_head(r);
}

void cst_op_get_object_meta(struct cst_store_request *r)
{
	CST_AUTO_BLOB blob = CST_BLOB_INIT;
	int rc = cst_blob_open(r->b, r->bucket_fd, r->key, &blob);

	if (rc) {
		cst_answer_errno(r, rc);
		return;
	}
	if (answer_conditions(r, &blob.record))
		return;
	cst_answer_common(r);
	validators(r, &blob.record);
	/* GET ?objectMeta is allowed too, and has no body either. */
	cst_http_response_start(r->x, 200, r->is_head ? (int64_t)blob.record.size : 0);
	cst_http_response_end(r->x);
}

void cst_op_get_symlink(struct cst_store_request *r)
{
	CST_AUTO_BLOB blob = CST_BLOB_INIT;
	CST_AUTO_BUF encoded = CST_BUF_INIT;
	int rc = cst_blob_open(r->b, r->bucket_fd, r->key, &blob);

	if (rc) {
		cst_answer_errno(r, rc);
		return;
	}
	if (blob.record.type != CST_RECORD_SYMLINK) {
		cst_answer_error(r, CST_STORE_ERR_NOT_SYMLINK);
		return;
	}
	cst_answer_common(r);
	validators(r, &blob.record);
	cst_text_url_encode(&encoded, cst_buf_slice(&blob.record.target), false);
	cst_http_response_header(r->x, "x-oss-symlink-target", encoded.data);
	cst_ops_headers(r, &blob.record);
	cst_http_response_send(r->x, 200, "", 0);
}
