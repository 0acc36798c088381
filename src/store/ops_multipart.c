#include "store/ops.h"

#include "base/clock.h"
#include "store/body.h"
#include "store/upload.h"

#include <errno.h>

void cst_op_initiate_upload(struct cst_store_request *r)
{
	CST_AUTO_RECORD record = CST_RECORD_INIT;
	CST_AUTO_BUF xml = CST_BUF_INIT;
	char id[CST_UPLOAD_ID_LEN + 1];
	bool encode = cst_slice_is(cst_request_param(r, "encoding-type"), "url");
	int rc;

	/* x-oss-forbid-overwrite counts here too, so that nobody uploads for nothing. */
	if (!cst_ops_check_key(r) || !cst_ops_may_write(r) || !cst_ops_collect(r, &record))
		return;
	record.type = CST_RECORD_MULTIPART;
	rc = cst_upload_begin(r->b, r->bucket, r->key, &record, id);
	if (rc) {
		cst_answer_errno(r, rc);
		return;
	}
	cst_xml_root(r, &xml, "InitiateMultipartUploadResult");
	cst_xml_text(&xml, "Bucket", r->bucket_name);
	cst_xml_key(&xml, "Key", r->key, encode);
	cst_xml_text(&xml, "UploadId", cst_slice_of(id));
	if (encode)
		cst_xml_text(&xml, "EncodingType", CST_SLICE("url"));
	cst_buf_add_str(&xml, "</InitiateMultipartUploadResult>");
	cst_answer_xml(r, &xml);
}

void cst_op_upload_part(struct cst_store_request *r)
{
	CST_AUTO_RECORD record = CST_RECORD_INIT;
	CST_AUTO_UPLOAD upload = CST_UPLOAD_INIT;
	CST_OPS_AUTO_STAGED staged = {r->b, CST_STAGED_INIT};
	struct cst_body_sums sums = {0};
	unsigned number;
	int rc;

	if (!cst_ops_part_number(r, &number) || !cst_ops_open_upload(r, &upload) || !cst_ops_stage(r, &staged.s) ||
	    !cst_body_receive(r, staged.s.fd, CST_OBJECT_MAX, &sums))
		return;
	cst_ops_set_sums(&record, &sums);
	rc = cst_staged_seal(r->b, &staged.s, &record);
	if (rc == 0)
		rc = cst_upload_add_part(r->b, &upload, number, &staged.s);
	if (rc == -ENOENT) {
		cst_answer_error(r, CST_STORE_ERR_NO_SUCH_UPLOAD);
	} else if (rc) {
		cst_answer_errno(r, rc);
	} else {
		cst_ops_etag_header(r, &record);
		cst_ops_checksum_header(r, &record);
		cst_answer_empty(r, 200);
	}
}

void cst_op_abort_upload(struct cst_store_request *r)
{
	CST_AUTO_UPLOAD upload = CST_UPLOAD_INIT;
	pthread_rwlock_t *stripe;
	int rc;

	if (!cst_ops_open_upload(r, &upload))
		return;
	stripe = cst_upload_stripe(r->b, &upload);
	pthread_rwlock_wrlock(stripe);
	rc = cst_upload_end(r->b, r->bucket, &upload);
	pthread_rwlock_unlock(stripe);
	if (rc == -ENOENT)
		cst_answer_error(r, CST_STORE_ERR_NO_SUCH_UPLOAD);
	else if (rc)
		cst_answer_errno(r, rc);
	else
		cst_answer_empty(r, 204);
}

/* A count in the query, at most `max`; absent: max. False: answered. */
static bool count_param(struct cst_store_request *r, const char *name, uint64_t max, uint64_t *value)
{
	struct cst_slice text = cst_request_param(r, name);

	*value = max;
	if (!text.data)
		return true;
	if (cst_request_number(text, value) != 0) {
		cst_answer_errorf(r, CST_STORE_ERR_INVALID_ARGUMENT, "%s must be a number.", name);
		return false;
	}
	*value = cst_min(*value, max);
	return true;
}

static void part_xml(struct cst_store_request *r, const struct cst_upload_part *part, struct cst_buf *xml)
{
	char etag[CST_ANSWER_ETAG];

	cst_buf_add_str(xml, "<Part>");
	cst_xml_printf(xml, "PartNumber", "%u", part->number);
	cst_xml_time(xml, "LastModified", part->mtime);
	cst_xml_text(xml, "ETag", cst_slice_of(cst_answer_etag(r, part->etag, etag)));
	if (r->dialect == CST_STORE_OSS && part->has_crc64)
		cst_xml_printf(xml, "HashCrc64ecma", "%llu", (unsigned long long)part->crc64);
	cst_xml_printf(xml, "Size", "%llu", (unsigned long long)part->size);
	cst_buf_add_str(xml, "</Part>");
}

void cst_op_list_parts(struct cst_store_request *r)
{
	CST_AUTO_UPLOAD upload = CST_UPLOAD_INIT;
	CST_AUTO_FREE struct cst_upload_part *parts = NULL;
	CST_AUTO_BUF xml = CST_BUF_INIT;
	CST_AUTO_BUF list = CST_BUF_INIT;
	uint64_t max;
	uint64_t after = 0;
	uint64_t shown = 0;
	unsigned last = 0;
	size_t count;
	size_t i;
	int rc;

	if (!count_param(r, "max-parts", 1000, &max) ||
	    (cst_request_has(r, "part-number-marker") && !count_param(r, "part-number-marker", UINT32_MAX, &after)) ||
	    !cst_ops_open_upload(r, &upload))
		return;
	rc = cst_upload_parts(r->b, &upload, &parts, &count);
	if (rc) {
		cst_answer_errno(r, rc);
		return;
	}
	for (i = 0; i < count && shown < max; i++) {
		if (parts[i].number <= after)
			continue;
		part_xml(r, &parts[i], &list);
		last = parts[i].number;
		shown++;
	}
	cst_xml_root(r, &xml, "ListPartsResult");
	cst_xml_text(&xml, "Bucket", r->bucket_name);
	cst_xml_key(&xml, "Key", r->key, cst_slice_is(cst_request_param(r, "encoding-type"), "url"));
	cst_xml_text(&xml, "UploadId", cst_slice_of(upload.id));
	cst_xml_owner(r, &xml, "Initiator");
	cst_xml_owner(r, &xml, "Owner");
	cst_xml_text(&xml, "StorageClass", cst_slice_of(cst_answer_class(r, upload.record.class)));
	cst_xml_printf(&xml, "PartNumberMarker", "%llu", (unsigned long long)after);
	if (last)
		cst_xml_printf(&xml, "NextPartNumberMarker", "%u", last);
	cst_xml_printf(&xml, "MaxParts", "%llu", (unsigned long long)max);
	cst_xml_text(&xml, "IsTruncated", i < count && max ? CST_SLICE("true") : CST_SLICE("false"));
	cst_buf_add_slice(&xml, cst_buf_slice(&list));
	cst_buf_add_str(&xml, "</ListPartsResult>");
	cst_answer_xml(r, &xml);
}

/* ---- ListMultipartUploads ---- */

struct uploads_page {
	struct cst_slice prefix, delimiter, key_marker, id_marker;
	uint64_t max, shown;
	bool encode, truncated;
	struct cst_buf list, prefixes, last_key;
	const char *last_id;
	struct cst_slice last_prefix;
};

static int compare_keys(struct cst_slice a, struct cst_slice b)
{
	size_t len = cst_min(a.len, b.len);
	int order = len ? memcmp(a.data, b.data, len) : 0;

	return order ? order : (a.len > b.len) - (a.len < b.len);
}

static bool is_behind_marker(const struct uploads_page *p, struct cst_slice key, const char *id)
{
	int order;

	if (!p->key_marker.len)
		return true;
	order = compare_keys(key, p->key_marker);
	if (order == 0)
		return p->id_marker.len && compare_keys(cst_slice_of(id), p->id_marker) > 0;
	return order > 0;
}

static void upload_xml(struct cst_store_request *r, struct uploads_page *p, const struct cst_upload_info *info)
{
	struct cst_slice key = {info->key, info->key_len};

	cst_buf_add_str(&p->list, "<Upload>");
	cst_xml_key(&p->list, "Key", key, p->encode);
	cst_xml_text(&p->list, "UploadId", cst_slice_of(info->id));
	cst_xml_owner(r, &p->list, "Initiator");
	cst_xml_owner(r, &p->list, "Owner");
	cst_xml_text(&p->list, "StorageClass", cst_slice_of(cst_answer_class(r, info->class)));
	cst_xml_time(&p->list, "Initiated", info->started);
	cst_buf_add_str(&p->list, "</Upload>");
}

/* False: the page is full. */
static bool take_upload(struct cst_store_request *r, struct uploads_page *p, const struct cst_upload_info *info)
{
	struct cst_slice key = {info->key, info->key_len};
	const char *at = NULL;

	if (!cst_slice_starts(key, p->prefix) || !is_behind_marker(p, key, info->id))
		return true;
	if (p->delimiter.len)
		at = memmem(key.data + p->prefix.len, key.len - p->prefix.len, p->delimiter.data, p->delimiter.len);
	if (at) {
		struct cst_slice prefix = {key.data, (size_t)(at - key.data) + p->delimiter.len};

		if (cst_slice_eq(prefix, p->last_prefix) || cst_slice_eq(prefix, p->key_marker))
			return true;
		if (p->shown == p->max)
			return false;
		p->last_prefix = prefix;
		cst_buf_add_str(&p->prefixes, "<CommonPrefixes>");
		cst_xml_key(&p->prefixes, "Prefix", prefix, p->encode);
		cst_buf_add_str(&p->prefixes, "</CommonPrefixes>");
		key = prefix;
	} else {
		if (p->shown == p->max)
			return false;
		upload_xml(r, p, info);
	}
	p->shown++;
	p->last_id = at ? "" : info->id;
	cst_buf_clear(&p->last_key);
	cst_buf_add_slice(&p->last_key, key);
	return true;
}

static void uploads_xml(struct cst_store_request *r, struct uploads_page *p)
{
	CST_AUTO_BUF xml = CST_BUF_INIT;

	cst_xml_root(r, &xml, "ListMultipartUploadsResult");
	cst_xml_text(&xml, "Bucket", r->bucket_name);
	if (p->encode)
		cst_xml_text(&xml, "EncodingType", CST_SLICE("url"));
	cst_xml_key(&xml, "KeyMarker", p->key_marker, p->encode);
	cst_xml_text(&xml, "UploadIdMarker", p->id_marker);
	if (p->truncated) {
		cst_xml_key(&xml, "NextKeyMarker", cst_buf_slice(&p->last_key), p->encode);
		cst_xml_text(&xml, "NextUploadIdMarker", cst_slice_of(p->last_id));
	}
	cst_xml_key(&xml, "Delimiter", p->delimiter, p->encode);
	cst_xml_key(&xml, "Prefix", p->prefix, p->encode);
	cst_xml_printf(&xml, "MaxUploads", "%llu", (unsigned long long)p->max);
	cst_xml_text(&xml, "IsTruncated", p->truncated ? CST_SLICE("true") : CST_SLICE("false"));
	cst_buf_add_slice(&xml, cst_buf_slice(&p->list));
	cst_buf_add_slice(&xml, cst_buf_slice(&p->prefixes));
	cst_buf_add_str(&xml, "</ListMultipartUploadsResult>");
	cst_answer_xml(r, &xml);
}

void cst_op_list_uploads(struct cst_store_request *r)
{
	struct uploads_page page = {
		.prefix = cst_request_param(r, "prefix"),
		.delimiter = cst_request_param(r, "delimiter"),
		.key_marker = cst_request_param(r, "key-marker"),
		.id_marker = cst_request_param(r, "upload-id-marker"),
		.encode = cst_slice_is(cst_request_param(r, "encoding-type"), "url"),
		.last_id = "",
	};
	struct cst_upload_info *uploads;
	size_t count;
	int rc;

	if (!count_param(r, "max-uploads", 1000, &page.max))
		return;
	rc = cst_upload_list(r->b, r->bucket, &uploads, &count);
	if (rc) {
		cst_answer_errno(r, rc);
		return;
	}
	for (size_t i = 0; i < count && !page.truncated; i++)
		page.truncated = !take_upload(r, &page, &uploads[i]);
	page.truncated = page.truncated && page.max;
	uploads_xml(r, &page);
	cst_upload_list_free(uploads, count);
	cst_buf_fini(&page.list);
	cst_buf_fini(&page.prefixes);
	cst_buf_fini(&page.last_key);
}
