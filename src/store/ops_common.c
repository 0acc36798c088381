#include "store/ops.h"

#include "base/clock.h"
#include "base/text.h"
#include "store/body.h"
#include "store/upload.h"

#include <errno.h>
#include <stdio.h>

#define USER_METADATA_MAX 8192

static struct cst_slice condition_header(const struct cst_store_request *r, const char *name, bool source)
{
	char full[64];

	if (!source)
		return cst_request_header(r, name);
	snprintf(full, sizeof(full), "copy-source-%s", name);
	return cst_request_own(r, full);
}

enum cst_condition cst_ops_conditions(const struct cst_store_request *r, const struct cst_record *record, bool source)
{
	struct cst_slice match = condition_header(r, "if-match", source);
	struct cst_slice none = condition_header(r, "if-none-match", source);
	struct cst_slice since = condition_header(r, "if-modified-since", source);
	struct cst_slice unmodified = condition_header(r, "if-unmodified-since", source);
	int64_t mtime = record->mtime / CST_NS_PER_S;
	int64_t time;

	if (match.data && !cst_request_etag_listed(match, record->etag))
		return CST_CONDITION_FAILED;
	if (!match.data && unmodified.data && cst_time_parse(unmodified.data, unmodified.len, &time) == 0 &&
	    mtime > time)
		return CST_CONDITION_FAILED;
	if (none.data)
		return cst_request_etag_listed(none, record->etag) ? CST_CONDITION_NOT_MODIFIED : CST_CONDITION_HOLDS;
	if (since.data && cst_time_parse(since.data, since.len, &time) == 0 && mtime <= time)
		return CST_CONDITION_NOT_MODIFIED;
	return CST_CONDITION_HOLDS;
}

static void add_header(struct cst_record *record, struct cst_slice name, struct cst_slice value)
{
	for (size_t i = 0; i < name.len; i++) {
		char c = name.data[i];

		cst_buf_add_char(&record->headers, c >= 'A' && c <= 'Z' ? (char)(c + 32) : c);
	}
	cst_buf_add_char(&record->headers, ':');
	cst_buf_add_slice(&record->headers, value);
	cst_buf_add_char(&record->headers, '\n');
}

/* "aws-chunked" says how the body came, not what the object is. */
static void add_encoding(struct cst_record *record, struct cst_slice value)
{
	CST_AUTO_BUF kept = CST_BUF_INIT;

	while (value.len) {
		struct cst_slice one = cst_slice_trim(cst_slice_cut(&value, ','));

		if (one.len == 0 || cst_slice_ieq(one, CST_SLICE("aws-chunked")))
			continue;
		if (kept.len)
			cst_buf_add_char(&kept, ',');
		cst_buf_add_slice(&kept, one);
	}
	if (kept.len)
		add_header(record, CST_SLICE("content-encoding"), cst_buf_slice(&kept));
}

static const char *const kept_headers[] = {"content-type", "cache-control", "content-disposition", "content-language",
					   "expires"};

bool cst_ops_collect(struct cst_store_request *r, struct cst_record *record)
{
	struct cst_slice class = cst_request_own(r, "storage-class");
	struct cst_slice tags = cst_request_own(r, "tagging");
	const char *prefix = r->dialect == CST_STORE_OSS ? "x-oss-meta-" : "x-amz-meta-";
	size_t user = 0;

	cst_buf_clear(&record->headers);
	for (size_t i = 0; i < CST_ARRAY_LEN(kept_headers); i++) {
		struct cst_slice value = cst_request_header(r, kept_headers[i]);

		if (value.len)
			add_header(record, cst_slice_of(kept_headers[i]), value);
	}
	add_encoding(record, cst_request_header(r, "content-encoding"));
	for (size_t i = 0; i < r->head->header_count; i++) {
		struct cst_slice name = r->head->headers[i].name;

		if (name.len <= 11 || !cst_slice_ieq((struct cst_slice){name.data, 11}, cst_slice_of(prefix)))
			continue;
		/* Kept as "meta-NAME", whichever dialect reads it later. */
		name = (struct cst_slice){name.data + 6, name.len - 6};
		user += name.len + r->head->headers[i].value.len;
		add_header(record, name, r->head->headers[i].value);
	}
	if (tags.len)
		add_header(record, CST_SLICE("tagging"), tags);
	if (user > USER_METADATA_MAX) {
		cst_answer_error(r, CST_STORE_ERR_METADATA_TOO_LARGE);
		return false;
	}
	record->class = CST_CLASS_STANDARD;
	if (class.len && cst_answer_parse_class(class, &record->class) != 0) {
		cst_answer_errorf(r, CST_STORE_ERR_INVALID_ARGUMENT, "The storage class you specified is not valid.");
		return false;
	}
	return true;
}

static struct cst_ops_verdict decide_s3(struct cst_store_request *r, const struct cst_record *old)
{
	struct cst_slice match = cst_request_header(r, "if-match");
	struct cst_slice none = cst_request_header(r, "if-none-match");

	if (match.data && !old)
		return (struct cst_ops_verdict){.error = CST_STORE_ERR_NO_SUCH_KEY};
	if ((match.data && !cst_request_etag_listed(match, old->etag)) ||
	    (none.data && old && cst_request_etag_listed(none, old->etag)))
		return (struct cst_ops_verdict){.error = CST_STORE_ERR_PRECONDITION,
						.extra = match.data ? "<Condition>If-Match</Condition>"
								    : "<Condition>If-None-Match</Condition>"};
	return (struct cst_ops_verdict){.may = true};
}

static struct cst_ops_verdict decide(struct cst_store_request *r, bool locked)
{
	struct cst_slice forbid = cst_request_own(r, "forbid-overwrite");
	bool oss = r->dialect == CST_STORE_OSS;
	bool conditional = cst_request_header(r, "if-match").data || cst_request_header(r, "if-none-match").data;
	CST_AUTO_BLOB old = CST_BLOB_INIT;
	int rc;

	if (oss && conditional)
		return (struct cst_ops_verdict){.error = CST_STORE_ERR_NOT_IMPLEMENTED_400};
	if (!conditional && !cst_slice_ieq(forbid, CST_SLICE("true")))
		return (struct cst_ops_verdict){.may = true};
	rc = locked ? cst_blob_open_locked(r->b, r->bucket_fd, r->key, &old)
		    : cst_blob_open(r->b, r->bucket_fd, r->key, &old);
	if (rc && rc != -ENOENT)
		return (struct cst_ops_verdict){.rc = rc};
	if (!oss)
		return decide_s3(r, rc ? NULL : &old.record);
	return (struct cst_ops_verdict){.may = rc != 0, .error = CST_STORE_ERR_FILE_EXISTS};
}

struct cst_ops_verdict cst_ops_decide_locked(struct cst_store_request *r)
{
	return decide(r, true);
}

void cst_ops_tell(struct cst_store_request *r, const struct cst_ops_verdict *verdict)
{
	if (verdict->may)
		return;
	if (verdict->rc)
		cst_answer_errno(r, verdict->rc);
	else
		cst_answer_error_with(r, verdict->error, NULL, verdict->extra);
}

bool cst_ops_may_write(struct cst_store_request *r)
{
	struct cst_ops_verdict verdict = decide(r, false);

	cst_ops_tell(r, &verdict);
	return verdict.may;
}

bool cst_ops_store(struct cst_store_request *r, struct cst_staged *s, struct cst_record *record)
{
	pthread_rwlock_t *stripe = cst_backend_stripe(r->b, r->key);
	int rc = cst_staged_seal(r->b, s, record);
	struct cst_ops_verdict verdict;

	if (rc) {
		cst_answer_errno(r, rc);
		return false;
	}
	pthread_rwlock_wrlock(stripe);
	verdict = cst_ops_decide_locked(r);
	if (verdict.may)
		rc = cst_blob_commit_locked(r->b, r->bucket_fd, r->key, s);
	pthread_rwlock_unlock(stripe);
	cst_ops_tell(r, &verdict);
	if (rc)
		cst_answer_errno(r, rc);
	return verdict.may && rc == 0;
}

bool cst_ops_is_archived(const struct cst_record *record)
{
	bool cold = record->class == CST_CLASS_ARCHIVE || record->class == CST_CLASS_COLD_ARCHIVE ||
		    record->class == CST_CLASS_DEEP_COLD_ARCHIVE;

	return cold && record->restored_until < cst_wall() / CST_NS_PER_S;
}

void cst_ops_md5_etag(const uint8_t md5[16], char etag[CST_RECORD_ETAG])
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < 16; i++) {
		etag[2 * i] = digits[md5[i] >> 4];
		etag[2 * i + 1] = digits[md5[i] & 15];
	}
	etag[32] = '\0';
}

void cst_ops_etag_header(struct cst_store_request *r, const struct cst_record *record)
{
	char etag[CST_ANSWER_ETAG];

	cst_http_response_header(r->x, "ETag", cst_answer_etag(r, record->etag, etag));
	if (r->dialect == CST_STORE_OSS && record->has_crc64)
		cst_http_response_headerf(r->x, "x-oss-hash-crc64ecma", "%llu", (unsigned long long)record->crc64);
}

void cst_ops_checksum_header(struct cst_store_request *r, const struct cst_record *record)
{
	struct cst_slice checksum = cst_slice_of(record->checksum);
	struct cst_slice name = cst_slice_cut(&checksum, ':');
	char full[64];

	if (r->dialect != CST_STORE_S3 || !checksum.len)
		return;
	snprintf(full, sizeof(full), "x-amz-checksum-%.*s", (int)name.len, name.data);
	cst_http_response_header(r->x, full, checksum.data);
}

static void stored_header(struct cst_store_request *r, struct cst_slice name, struct cst_slice value)
{
	char full[USER_METADATA_MAX + 16];
	const char *service = r->dialect == CST_STORE_OSS ? "oss" : "amz";

	if (cst_slice_starts(name, CST_SLICE("meta-")))
		snprintf(full, sizeof(full), "x-%s-%.*s", service, (int)name.len, name.data);
	else if (cst_slice_is(name, "tagging"))
		return;
	else
		snprintf(full, sizeof(full), "%.*s", (int)name.len, name.data);
	cst_http_response_headerf(r->x, full, "%.*s", (int)value.len, value.data);
}

static const char *const overrides[] = {"content-type",	 "content-language",	"expires",
					"cache-control", "content-disposition", "content-encoding"};

static struct cst_slice override_of(struct cst_store_request *r, struct cst_slice name)
{
	char param[64];

	for (size_t i = 0; i < CST_ARRAY_LEN(overrides); i++) {
		if (!cst_slice_is(name, overrides[i]))
			continue;
		snprintf(param, sizeof(param), "response-%s", overrides[i]);
		return cst_request_param(r, param);
	}
	return (struct cst_slice){NULL, 0};
}

static size_t tag_count(struct cst_slice tags)
{
	size_t n = tags.len ? 1 : 0;

	for (size_t i = 0; i < tags.len; i++)
		n += tags.data[i] == '&';
	return n;
}

/* A value from the query may hold anything: what could end a header line is left out. */
static void override_header(struct cst_store_request *r, const char *name, struct cst_slice value)
{
	CST_AUTO_BUF clean = CST_BUF_INIT;

	for (size_t i = 0; i < value.len; i++) {
		if ((unsigned char)value.data[i] >= ' ' && value.data[i] != 0x7f)
			cst_buf_add_char(&clean, value.data[i]);
	}
	cst_http_response_header(r->x, name, clean.len ? clean.data : "");
}

static void restore_header(struct cst_store_request *r, const struct cst_record *record)
{
	char until[CST_TIME_TEXT];

	if (!record->restored_until || cst_ops_is_archived(record))
		return;
	cst_time_http(record->restored_until, until);
	cst_http_response_headerf(r->x, r->dialect == CST_STORE_OSS ? "x-oss-restore" : "x-amz-restore",
				  "ongoing-request=\"false\", expiry-date=\"%s\"", until);
}

void cst_ops_headers(struct cst_store_request *r, const struct cst_record *record)
{
	struct cst_slice name;
	struct cst_slice value;
	struct cst_slice tags = cst_record_header(record, "tagging");
	const char *service = r->dialect == CST_STORE_OSS ? "oss" : "amz";
	char full[32];
	size_t pos = 0;

	while (cst_record_each_header(record, &pos, &name, &value)) {
		if (!override_of(r, name).data)
			stored_header(r, name, value);
	}
	for (size_t i = 0; i < CST_ARRAY_LEN(overrides); i++) {
		struct cst_slice override = override_of(r, cst_slice_of(overrides[i]));

		if (override.data)
			override_header(r, overrides[i], override);
	}
	if (!cst_record_header(record, "content-type").data && !cst_request_has(r, "response-content-type"))
		cst_http_response_header(r->x, "Content-Type",
					 r->dialect == CST_STORE_OSS ? "application/octet-stream"
								     : "binary/octet-stream");
	if (tags.len) {
		snprintf(full, sizeof(full), "x-%s-tagging-count", service);
		cst_http_response_headerf(r->x, full, "%zu", tag_count(tags));
	}
	/* S3 tells the class only when it isn't the usual one. */
	if (r->dialect == CST_STORE_OSS) {
		cst_http_response_header(r->x, "x-oss-storage-class", cst_answer_class(r, record->class));
		cst_http_response_header(r->x, "x-oss-object-type", cst_answer_type(record->type));
		if (record->type == CST_RECORD_APPENDABLE)
			cst_http_response_headerf(r->x, "x-oss-next-append-position", "%llu",
						  (unsigned long long)record->size);
	} else if (record->class != CST_CLASS_STANDARD) {
		cst_http_response_header(r->x, "x-amz-storage-class", cst_answer_class(r, record->class));
	}
	restore_header(r, record);
}

bool cst_ops_part_number(struct cst_store_request *r, unsigned *number)
{
	uint64_t n;

	if (cst_request_number(cst_request_param(r, "partNumber"), &n) != 0 || n < 1 || n > CST_UPLOAD_PARTS_MAX) {
		cst_answer_errorf(r, CST_STORE_ERR_INVALID_ARGUMENT,
				  "Part number must be an integer between 1 and 10000.");
		return false;
	}
	*number = (unsigned)n;
	return true;
}

bool cst_ops_open_upload(struct cst_store_request *r, struct cst_upload *u)
{
	int rc = cst_upload_open(r->b, r->bucket, cst_request_param(r, "uploadId"), r->key, u);

	if (rc == -ENOENT) {
		CST_AUTO_BUF extra = CST_BUF_INIT;

		cst_xml_text(&extra, "UploadId", cst_request_param(r, "uploadId"));
		cst_answer_error_with(r, CST_STORE_ERR_NO_SUCH_UPLOAD, NULL, extra.data);
	} else if (rc) {
		cst_answer_errno(r, rc);
	}
	return rc == 0;
}

bool cst_ops_stage(struct cst_store_request *r, struct cst_staged *s)
{
	int rc = cst_staged_new(r->b, s);

	if (rc)
		cst_answer_errno(r, rc);
	return rc == 0;
}

void cst_ops_discard(struct cst_ops_staged *staged)
{
	cst_staged_discard(staged->b, &staged->s);
}

bool cst_ops_check_key(struct cst_store_request *r)
{
	CST_AUTO_BUF path = CST_BUF_INIT;
	int rc = cst_keypath_of(r->key, &path);

	if (rc)
		cst_answer_errno(r, rc);
	return rc == 0;
}

void cst_ops_set_sums(struct cst_record *record, const struct cst_body_sums *sums)
{
	cst_ops_md5_etag(sums->md5, record->etag);
	record->crc64 = sums->crc64;
	record->has_crc64 = true;
	memcpy(record->checksum, sums->checksum, sizeof(record->checksum));
}
