#include "store/ops.h"

#include "base/clock.h"
#include "base/digest.h"
#include "base/text.h"
#include "store/body.h"
#include "store/checksum.h"
#include "store/upload.h"
#include "store/xml_in.h"

#include <errno.h>
#include <stdio.h>

#define XML_MAX (8u << 20)
#define OSS_PART_MIN (100u << 10)
#define S3_PART_MIN (5u << 20)

struct wanted_part {
	unsigned number;
	char etag[CST_RECORD_ETAG];
	char checksum[CST_RECORD_CHECKSUM];
};
struct wanted {
	struct wanted_part *parts;
	size_t count;
	struct wanted_part now;
};

static bool leaf(void *arg, const char *parent, const char *name, struct cst_slice text)
{
	struct wanted *w = arg;
	uint64_t number;

	if (strcmp(parent, "Part") != 0)
		return true;
	text = cst_slice_trim(text);
	if (strcmp(name, "PartNumber") == 0) {
		if (cst_request_number(text, &number) != 0 || number < 1 || number > CST_UPLOAD_PARTS_MAX)
			return false;
		w->now.number = (unsigned)number;
	} else if (strcmp(name, "ETag") == 0) {
		if (text.len >= 2 && text.data[0] == '"' && text.data[text.len - 1] == '"')
			text = (struct cst_slice){text.data + 1, text.len - 2};
		if (text.len >= sizeof(w->now.etag))
			return false;
		snprintf(w->now.etag, sizeof(w->now.etag), "%.*s", (int)text.len, text.data);
	} else if (strncmp(name, "Checksum", 8) == 0) {
		enum cst_checksum_kind kind = cst_checksum_parse(cst_slice_of(name + 8));

		if (kind != CST_CHECKSUM_NONE && text.len < 64)
			snprintf(w->now.checksum, sizeof(w->now.checksum), "%s:%.*s", cst_checksum_name(kind),
				 (int)text.len, text.data);
	}
	return true;
}

static bool end(void *arg, const char *name)
{
	struct wanted *w = arg;

	if (strcmp(name, "Part") != 0)
		return true;
	if (!w->now.number || !w->now.etag[0] || w->count == CST_UPLOAD_PARTS_MAX)
		return false;
	if (!w->parts)
		w->parts = cst_xcalloc(CST_UPLOAD_PARTS_MAX, sizeof(*w->parts));
	w->parts[w->count++] = w->now;
	w->now = (struct wanted_part){0};
	return true;
}

static void wanted_fini(struct wanted *w)
{
	free(w->parts);
}

/* x-oss-complete-all: yes takes all parts there are, without a list. */
static bool read_wanted(struct cst_store_request *r, struct wanted *w, bool *all)
{
	static const struct cst_xml_handler handler = {leaf, end};
	CST_AUTO_BUF body = CST_BUF_INIT;

	*all = cst_slice_ieq(cst_request_own(r, "complete-all"), CST_SLICE("yes"));
	if (!cst_body_receive_text(r, &body, XML_MAX))
		return false;
	if (*all && body.len == 0)
		return true;
	if (*all || cst_xml_read(cst_buf_slice(&body), "CompleteMultipartUpload", &handler, w) != 0 || w->count == 0) {
		cst_answer_error(r, CST_STORE_ERR_MALFORMED_XML);
		return false;
	}
	for (size_t i = 1; i < w->count; i++) {
		if (w->parts[i].number <= w->parts[i - 1].number) {
			cst_answer_error(r, CST_STORE_ERR_INVALID_PART_ORDER);
			return false;
		}
	}
	return true;
}

static bool refuse_part(struct cst_store_request *r, enum cst_store_error e, const struct wanted_part *part,
			uint64_t size)
{
	CST_AUTO_BUF extra = CST_BUF_INIT;

	cst_xml_printf(&extra, "PartNumber", "%u", part->number);
	cst_xml_text(&extra, "ETag", cst_slice_of(part->etag));
	if (e == CST_STORE_ERR_ENTITY_TOO_SMALL) {
		cst_xml_printf(&extra, "ProposedSize", "%llu", (unsigned long long)size);
		cst_xml_printf(&extra, "MinSizeAllowed", "%u",
			       r->dialect == CST_STORE_OSS ? OSS_PART_MIN : S3_PART_MIN);
	}
	cst_answer_error_with(r, e, NULL, extra.data);
	return false;
}

/* Both lists are in order of the numbers. Leaves in `have` the parts that are wanted. False: answered. */
static bool choose(struct cst_store_request *r, const struct wanted *w, struct cst_upload_part *have, size_t *count)
{
	size_t at = 0;

	for (size_t i = 0; i < w->count; i++) {
		const struct wanted_part *want = &w->parts[i];

		while (at < *count && have[at].number < want->number)
			at++;
		if (at == *count || have[at].number != want->number ||
		    !cst_slice_ieq(cst_slice_of(have[at].etag), cst_slice_of(want->etag)) ||
		    (want->checksum[0] && have[at].checksum[0] && strcmp(want->checksum, have[at].checksum) != 0))
			return refuse_part(r, CST_STORE_ERR_INVALID_PART, want, 0);
		have[i] = have[at++]; /* i never gets ahead of at */
	}
	*count = w->count;
	return true;
}

static bool check_sizes(struct cst_store_request *r, const struct cst_upload_part *parts, size_t count)
{
	uint64_t min = r->dialect == CST_STORE_OSS ? OSS_PART_MIN : S3_PART_MIN;

	for (size_t i = 0; i + 1 < count; i++) {
		struct wanted_part part = {.number = parts[i].number};

		if (parts[i].size >= min)
			continue;
		memcpy(part.etag, parts[i].etag, sizeof(part.etag));
		return refuse_part(r, CST_STORE_ERR_ENTITY_TOO_SMALL, &part, parts[i].size);
	}
	return true;
}

/* "MD5 of the parts' MD5s, then -N", and the CRCs put together. */
static void sum_parts(const struct cst_upload_part *parts, size_t count, struct cst_record *record)
{
	struct cst_digest *md5 = cst_digest_new(CST_DIGEST_MD5);
	uint8_t sum[CST_SHA256_LEN];
	size_t len;

	record->has_crc64 = true;
	record->crc64 = 0;
	for (size_t i = 0; i < count; i++) {
		if (cst_text_unhex(cst_slice_of(parts[i].etag), sum, CST_MD5_LEN) == 0)
			cst_digest_update(md5, sum, CST_MD5_LEN);
		record->has_crc64 = record->has_crc64 && parts[i].has_crc64;
		record->crc64 = i ? cst_crc64_combine(record->crc64, parts[i].crc64, parts[i].size) : parts[i].crc64;
	}
	cst_digest_final(md5, sum);
	cst_digest_free(md5);
	cst_ops_md5_etag(sum, record->etag);
	len = strlen(record->etag);
	snprintf(record->etag + len, sizeof(record->etag) - len, "-%zu", count);
}

static void answer_complete(struct cst_store_request *r, const struct cst_record *record)
{
	CST_AUTO_BUF xml = CST_BUF_INIT;
	CST_AUTO_BUF encoded = CST_BUF_INIT;
	char etag[CST_ANSWER_ETAG];
	struct cst_slice host = cst_request_header(r, "host");

	cst_text_url_encode(&encoded, r->key, true);
	cst_xml_root(r, &xml, "CompleteMultipartUploadResult");
	cst_buf_printf(&xml, "<Location>%s://", cst_http_request_is_tls(r->x) ? "https" : "http");
	cst_text_xml_escape(&xml, host);
	cst_buf_printf(&xml, "/%s%s%s</Location>", r->path_style ? r->bucket : "", r->path_style ? "/" : "",
		       encoded.data);
	cst_xml_text(&xml, "Bucket", r->bucket_name);
	cst_xml_key(&xml, "Key", r->key, cst_slice_is(cst_request_param(r, "encoding-type"), "url"));
	cst_xml_text(&xml, "ETag", cst_slice_of(cst_answer_etag(r, record->etag, etag)));
	cst_buf_add_str(&xml, "</CompleteMultipartUploadResult>");
	if (r->dialect == CST_STORE_OSS && record->has_crc64)
		cst_http_response_headerf(r->x, "x-oss-hash-crc64ecma", "%llu", (unsigned long long)record->crc64);
	cst_answer_xml(r, &xml);
}

/* With the upload's stripe. */
static void complete_locked(struct cst_store_request *r, struct cst_upload *u, const struct wanted *w, bool all)
{
	CST_AUTO_FREE struct cst_upload_part *parts = NULL;
	CST_OPS_AUTO_STAGED staged = {r->b, CST_STAGED_INIT};
	size_t count;
	int rc = cst_upload_parts(r->b, u, &parts, &count);

	if (rc) {
		cst_answer_errno(r, rc);
		return;
	}
	if (all && count == 0) {
		cst_answer_error(r, CST_STORE_ERR_INVALID_PART);
		return;
	}
	if ((!all && !choose(r, w, parts, &count)) || !check_sizes(r, parts, count) || !cst_ops_stage(r, &staged.s))
		return;
	rc = cst_upload_join(r->b, u, parts, count, &staged.s);
	if (rc == -EAGAIN) {
		cst_answer_error(r, CST_STORE_ERR_INVALID_PART);
		return;
	}
	if (rc) {
		cst_answer_errno(r, rc);
		return;
	}
	sum_parts(parts, count, &u->record);
	if (!cst_ops_store(r, &staged.s, &u->record))
		return;
	cst_upload_end(r->b, r->bucket, u);
	answer_complete(r, &u->record);
}

/* S3 answers a completion that is sent again as the first one: the client gave up before a large object was joined, or the
 * answer got lost. True: the upload has ended, and the object is what these parts make; answered. */
static bool was_completed(struct cst_store_request *r, const struct wanted *w)
{
	CST_AUTO_UPLOAD upload = CST_UPLOAD_INIT;
	CST_AUTO_BLOB blob = CST_BLOB_INIT;
	CST_AUTO_RECORD record = CST_RECORD_INIT;
	CST_AUTO_FREE struct cst_upload_part *parts = NULL;

	if (r->dialect != CST_STORE_S3 || w->count == 0 ||
	    cst_upload_open(r->b, r->bucket, cst_request_param(r, "uploadId"), r->key, &upload) != -ENOENT ||
	    cst_blob_open(r->b, r->bucket_fd, r->key, &blob) != 0 || blob.record.type != CST_RECORD_MULTIPART)
		return false;
	parts = cst_xcalloc(w->count, sizeof(*parts));
	for (size_t i = 0; i < w->count; i++)
		memcpy(parts[i].etag, w->parts[i].etag, sizeof(parts[i].etag));
	sum_parts(parts, w->count, &record);
	if (strcmp(record.etag, blob.record.etag) != 0)
		return false;
	answer_complete(r, &blob.record);
	return true;
}

void cst_op_complete_upload(struct cst_store_request *r)
{
	CST_CLEANUP(wanted_fini) struct wanted w = {0};
	CST_AUTO_UPLOAD upload = CST_UPLOAD_INIT;
	pthread_rwlock_t *stripe;
	bool all;

	if (!read_wanted(r, &w, &all) || was_completed(r, &w) || !cst_ops_open_upload(r, &upload))
		return;
	stripe = cst_upload_stripe(r->b, &upload);
	pthread_rwlock_wrlock(stripe);
	/* Again, now that nobody else ends it. */
	if (!was_completed(r, &w) && cst_ops_open_upload(r, &upload))
		complete_locked(r, &upload, &w, all);
	pthread_rwlock_unlock(stripe);
}
