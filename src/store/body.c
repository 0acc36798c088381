#include "store/body.h"

#include "base/clock.h"
#include "base/digest.h"
#include "base/text.h"
#include "store/chunked.h"
#include "store/tree.h"

#include <errno.h>

#define CHUNK (256 * 1024)

struct receiver {
	struct cst_store_request *r;
	int fd; /* or -1: to text */
	struct cst_buf *text;
	uint64_t max, size;
	struct cst_digest *md5, *sha256;
	uint64_t crc64;
	struct cst_checksum checksum;
	struct cst_buf expected; /* of the checksum, base64 */
	/* aws-chunked */
	bool chunked, is_signed, has_trailer;
	struct cst_chunked decoder;
	struct cst_digest *chunk_sha256;
	uint8_t key[32];
	char previous[65];
	struct cst_buf trailer; /* the lines that are signed: "name:value\n" */
	char trailer_signature[65];
};

static struct cst_slice payload_hash(const struct cst_store_request *r)
{
	return cst_request_header(r, "x-amz-content-sha256");
}

static bool is_chunked(const struct cst_store_request *r)
{
	return cst_slice_starts(payload_hash(r), CST_SLICE("STREAMING-"));
}

int64_t cst_body_length(const struct cst_store_request *r)
{
	uint64_t n;

	if (is_chunked(r))
		return cst_request_number(cst_request_header(r, "x-amz-decoded-content-length"), &n) == 0 ? (int64_t)n
													  : -1;
	return r->head->content_length;
}

/* ---- before ---- */

static bool begin_checksum(struct receiver *v)
{
	struct cst_store_request *r = v->r;
	struct cst_slice trailer = cst_request_header(r, "x-amz-trailer");

	for (size_t i = 0; i < r->head->header_count; i++) {
		struct cst_slice name = r->head->headers[i].name;
		enum cst_checksum_kind kind;

		if (name.len <= 15 || !cst_slice_ieq((struct cst_slice){name.data, 15}, CST_SLICE("x-amz-checksum-")))
			continue;
		kind = cst_checksum_parse((struct cst_slice){name.data + 15, name.len - 15});
		if (kind == CST_CHECKSUM_NONE)
			continue;
		cst_checksum_init(&v->checksum, kind);
		cst_buf_add_slice(&v->expected, r->head->headers[i].value);
		return true;
	}
	if (v->has_trailer && trailer.len > 15) {
		enum cst_checksum_kind kind =
			cst_checksum_parse((struct cst_slice){trailer.data + 15, trailer.len - 15});

		if (kind == CST_CHECKSUM_NONE) {
			cst_answer_errorf(r, CST_STORE_ERR_INVALID_REQUEST,
					  "The checksum in x-amz-trailer is unknown.");
			return false;
		}
		cst_checksum_init(&v->checksum, kind);
	}
	return true;
}

static bool begin_chunked(struct receiver *v)
{
	struct cst_store_request *r = v->r;
	struct cst_slice hash = payload_hash(r);

	v->is_signed = cst_slice_is(hash, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD") ||
		       cst_slice_is(hash, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER");
	v->has_trailer = cst_slice_is(hash, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER") ||
			 cst_slice_is(hash, "STREAMING-UNSIGNED-PAYLOAD-TRAILER");
	if (!v->is_signed && !v->has_trailer) {
		cst_answer_errorf(r, CST_STORE_ERR_NOT_IMPLEMENTED,
				  "This kind of x-amz-content-sha256 is not implemented.");
		return false;
	}
	if (cst_body_length(r) < 0) {
		cst_answer_errorf(r, CST_STORE_ERR_MISSING_LENGTH, "x-amz-decoded-content-length is missing.");
		return false;
	}
	v->decoder.size = 1; /* until the last chunk, which has none and is signed too, has come */
	v->is_signed = v->is_signed && r->checked;
	if (v->is_signed) {
		size_t len = cst_min(r->claim.signature.len, sizeof(v->previous) - 1);

		cst_sign_s3_signing_key(&r->credential, r->claim.scope_date, r->claim.region, v->key);
		memcpy(v->previous, r->claim.signature.data, len);
		v->chunk_sha256 = cst_digest_new(CST_DIGEST_SHA256);
	}
	return true;
}

static bool begin(struct receiver *v)
{
	struct cst_store_request *r = v->r;
	struct cst_slice hash = payload_hash(r);

	if (r->head->content_length < 0 && !r->head->chunked && v->fd >= 0) {
		cst_answer_error(r, CST_STORE_ERR_MISSING_LENGTH);
		return false;
	}
	if (cst_body_length(r) > 0 && (uint64_t)cst_body_length(r) > v->max) {
		cst_answer_error(r, v->fd >= 0 ? CST_STORE_ERR_ENTITY_TOO_LARGE : CST_STORE_ERR_MALFORMED_XML);
		return false;
	}
	v->md5 = cst_digest_new(CST_DIGEST_MD5);
	v->chunked = is_chunked(r);
	if (hash.len == 64)
		v->sha256 = cst_digest_new(CST_DIGEST_SHA256);
	if (v->chunked && !begin_chunked(v))
		return false;
	return begin_checksum(v);
}

/* ---- while ---- */

static bool take(struct receiver *v, struct cst_slice data)
{
	int rc = 0;

	if (data.len > v->max - v->size) {
		cst_answer_error(v->r, v->fd >= 0 ? CST_STORE_ERR_ENTITY_TOO_LARGE : CST_STORE_ERR_MALFORMED_XML);
		return false;
	}
	v->size += data.len;
	cst_digest_update(v->md5, data.data, data.len);
	if (v->sha256)
		cst_digest_update(v->sha256, data.data, data.len);
	if (v->chunk_sha256)
		cst_digest_update(v->chunk_sha256, data.data, data.len);
	v->crc64 = cst_crc64(v->crc64, data.data, data.len);
	cst_checksum_update(&v->checksum, data.data, data.len);
	if (v->fd >= 0)
		rc = cst_tree_write_all(v->fd, data.data, data.len);
	else
		cst_buf_add_slice(v->text, data);
	if (rc)
		cst_answer_errno(v->r, rc);
	return rc == 0;
}

/* The chunk whose signature is in the decoder has come whole. */
static bool check_chunk(struct receiver *v)
{
	uint8_t hash[CST_SHA256_LEN];
	char ours[65];

	if (!v->is_signed)
		return true;
	cst_digest_final(v->chunk_sha256, hash);
	cst_digest_free(v->chunk_sha256);
	v->chunk_sha256 = cst_digest_new(CST_DIGEST_SHA256);
	cst_sign_s3_chunk(v->key, v->r->claim.scope_date, v->r->claim.region, v->r->claim.time, v->previous, hash,
			  ours);
	if (!cst_text_equal_secret(cst_slice_of(ours), cst_slice_of(v->decoder.signature))) {
		cst_answer_errorf(v->r, CST_STORE_ERR_SIGNATURE, "The signature of a chunk does not match.");
		return false;
	}
	memcpy(v->previous, ours, sizeof(v->previous));
	return true;
}

static bool take_trailer(struct receiver *v)
{
	struct cst_slice value = v->decoder.line;
	struct cst_slice name = cst_slice_trim(cst_slice_cut(&value, ':'));

	value = cst_slice_trim(value);
	if (cst_slice_ieq(name, CST_SLICE("x-amz-trailer-signature"))) {
		if (value.len == 64) {
			memcpy(v->trailer_signature, value.data, 64);
			v->trailer_signature[64] = '\0';
		}
		return true;
	}
	if (v->trailer.len + name.len + value.len > CST_CHUNK_LINE_MAX) {
		cst_answer_error(v->r, CST_STORE_ERR_INVALID_CHUNK_SIZE);
		return false;
	}
	for (size_t i = 0; i < name.len; i++)
		cst_buf_add_char(&v->trailer,
				 (char)(name.data[i] >= 'A' && name.data[i] <= 'Z' ? name.data[i] + 32 : name.data[i]));
	cst_buf_printf(&v->trailer, ":%.*s\n", (int)value.len, value.len ? value.data : "");
	if (name.len > 15 && cst_slice_ieq((struct cst_slice){name.data, 15}, CST_SLICE("x-amz-checksum-")) &&
	    cst_checksum_parse((struct cst_slice){name.data + 15, name.len - 15}) == v->checksum.kind) {
		cst_buf_clear(&v->expected);
		cst_buf_add_slice(&v->expected, value);
	}
	return true;
}

/* 1: the body is complete, 0: more, -1: answered. */
static int decode(struct receiver *v, struct cst_slice in)
{
	for (;;) {
		switch (cst_chunked_next(&v->decoder, &in)) {
		case CST_CHUNK_MORE:
			return 0;
		case CST_CHUNK_BEGIN:
			/* The last chunk is signed too, over no bytes. */
			if (v->decoder.size == 0 && !check_chunk(v))
				return -1;
			break;
		case CST_CHUNK_DATA:
			if (!take(v, v->decoder.data))
				return -1;
			break;
		case CST_CHUNK_END:
			if (!check_chunk(v))
				return -1;
			break;
		case CST_CHUNK_TRAILER:
			if (!take_trailer(v))
				return -1;
			break;
		case CST_CHUNK_DONE:
			return 1;
		case CST_CHUNK_BAD:
			cst_answer_error(v->r, CST_STORE_ERR_INVALID_CHUNK_SIZE);
			return -1;
		}
	}
}

static bool receive(struct receiver *v)
{
	CST_AUTO_FREE char *buf = cst_xmalloc(CHUNK);
	int done = 0;

	for (;;) {
		ssize_t n = cst_http_request_read(v->r->x, buf, CHUNK);

		if (n == 0)
			break;
		if (n < 0) {
			cst_answer_error(v->r, CST_STORE_ERR_INCOMPLETE_BODY);
			return false;
		}
		if (!v->chunked) {
			if (!take(v, (struct cst_slice){buf, (size_t)n}))
				return false;
			continue;
		}
		done = decode(v, (struct cst_slice){buf, (size_t)n});
		if (done < 0)
			return false;
	}
	/* Some clients leave out the empty line behind the last chunk. */
	if (v->chunked && (v->size != (uint64_t)cst_body_length(v->r) || (!done && v->decoder.size != 0))) {
		cst_answer_error(v->r, CST_STORE_ERR_INCOMPLETE_BODY);
		return false;
	}
	return true;
}

/* ---- after ---- */

static bool check_md5(struct receiver *v, const uint8_t md5[CST_MD5_LEN])
{
	struct cst_slice header = cst_request_header(v->r, "content-md5");
	CST_AUTO_BUF raw = CST_BUF_INIT;

	if (!header.data)
		return true;
	if (cst_text_unbase64(&raw, header) != 0 || raw.len != CST_MD5_LEN) {
		cst_answer_error(v->r, CST_STORE_ERR_INVALID_DIGEST);
		return false;
	}
	if (memcmp(raw.data, md5, CST_MD5_LEN) == 0)
		return true;
	if (v->r->dialect == CST_STORE_S3)
		cst_answer_error(v->r, CST_STORE_ERR_BAD_DIGEST);
	else
		cst_answer_errorf(v->r, CST_STORE_ERR_INVALID_DIGEST,
				  "The Content-MD5 you specified did not match what we received.");
	return false;
}

static bool check_sha256(struct receiver *v)
{
	uint8_t sum[CST_SHA256_LEN];
	CST_AUTO_BUF hex = CST_BUF_INIT;

	if (!v->sha256)
		return true;
	cst_digest_final(v->sha256, sum);
	cst_text_hex(&hex, sum, sizeof(sum));
	if (cst_slice_ieq(cst_buf_slice(&hex), payload_hash(v->r)))
		return true;
	cst_answer_error(v->r, CST_STORE_ERR_PAYLOAD_HASH);
	return false;
}

static bool check_trailer(struct receiver *v)
{
	CST_AUTO_BUF text = CST_BUF_INIT;
	CST_AUTO_BUF hex = CST_BUF_INIT;
	uint8_t sum[CST_SHA256_LEN];
	char when[CST_TIME_TEXT];
	const struct cst_sign_claim *claim = &v->r->claim;

	if (!v->is_signed || !v->has_trailer)
		return true;
	cst_sha256(v->trailer.data, v->trailer.len, sum);
	cst_time_compact(claim->time, when);
	cst_buf_printf(&text, "AWS4-HMAC-SHA256-TRAILER\n%s\n%.*s/%.*s/s3/aws4_request\n%s\n", when,
		       (int)claim->scope_date.len, claim->scope_date.data, (int)claim->region.len, claim->region.data,
		       v->previous);
	cst_text_hex(&text, sum, sizeof(sum));
	cst_hmac_sha256(v->key, sizeof(v->key), text.data, text.len, sum);
	cst_text_hex(&hex, sum, sizeof(sum));
	if (cst_text_equal_secret(cst_buf_slice(&hex), cst_slice_of(v->trailer_signature)))
		return true;
	cst_answer_errorf(v->r, CST_STORE_ERR_SIGNATURE, "The signature of the trailer does not match.");
	return false;
}

static bool check_checksum(struct receiver *v, char out[CST_RECORD_CHECKSUM])
{
	CST_AUTO_BUF ours = CST_BUF_INIT;

	out[0] = '\0';
	if (v->checksum.kind == CST_CHECKSUM_NONE)
		return true;
	cst_checksum_base64(&v->checksum, &ours);
	if (!cst_slice_eq(cst_buf_slice(&ours), cst_buf_slice(&v->expected))) {
		cst_answer_errorf(v->r, CST_STORE_ERR_BAD_DIGEST,
				  "The %s you specified did not match the calculated checksum.",
				  cst_checksum_name(v->checksum.kind));
		return false;
	}
	snprintf(out, CST_RECORD_CHECKSUM, "%s:%s", cst_checksum_name(v->checksum.kind), ours.data);
	return true;
}

static bool run(struct receiver *v, struct cst_body_sums *sums)
{
	uint8_t md5[CST_SHA256_LEN];

	if (!begin(v) || !receive(v))
		return false;
	cst_digest_final(v->md5, md5);
	memcpy(sums->md5, md5, CST_MD5_LEN);
	sums->size = v->size;
	sums->crc64 = v->crc64;
	return check_md5(v, sums->md5) && check_sha256(v) && check_trailer(v) && check_checksum(v, sums->checksum);
}

static void fini(struct receiver *v)
{
	cst_digest_free(v->md5);
	cst_digest_free(v->sha256);
	cst_digest_free(v->chunk_sha256);
	cst_checksum_fini(&v->checksum);
	cst_buf_fini(&v->expected);
	cst_buf_fini(&v->trailer);
	cst_chunked_fini(&v->decoder);
	explicit_bzero(v->key, sizeof(v->key));
}

bool cst_body_receive(struct cst_store_request *r, int fd, uint64_t max, struct cst_body_sums *sums)
{
	struct receiver v = {.r = r, .fd = fd, .max = max};
	bool ok = run(&v, sums);

	fini(&v);
	return ok;
}

bool cst_body_receive_text(struct cst_store_request *r, struct cst_buf *out, size_t max)
{
	struct receiver v = {.r = r, .fd = -1, .text = out, .max = max};
	struct cst_body_sums sums;
	bool ok = run(&v, &sums);

	fini(&v);
	return ok;
}
