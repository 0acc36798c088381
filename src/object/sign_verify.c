/* The server's side of request signatures: what a request claims, and whether that is true. */
#include "object/sign_private.h"

#include "base/clock.h"
#include "base/text.h"

#include <errno.h>
#include <stdio.h>

static struct cst_slice find_param(const struct cst_sign_param *params, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (cst_slice_is(params[i].name, name))
			return params[i].value.data ? params[i].value : CST_SLICE("");
	return (struct cst_slice){0};
}

static int fail(const char **why, const char *text)
{
	*why = text;
	return -EINVAL;
}

/* Cuts what stands after the last '/' off *s. */
static struct cst_slice cut_last(struct cst_slice *s)
{
	const char *slash = s->len ? memrchr(s->data, '/', s->len) : NULL;
	struct cst_slice tail = *s;
	if (!slash) {
		*s = (struct cst_slice){0};
		return tail;
	}
	tail.data = slash + 1;
	tail.len = s->len - (size_t)(slash - s->data) - 1;
	s->len = (size_t)(slash - s->data);
	return tail;
}

/* "AK/yyyymmdd/region/service/terminator" */
static int read_credential(struct cst_slice text, struct cst_sign_claim *claim, const char **why)
{
	bool s3 = claim->kind == CST_SIGN_S3_V4;
	struct cst_slice terminator = cut_last(&text);
	struct cst_slice service = cut_last(&text);
	if (!cst_slice_is(terminator, s3 ? "aws4_request" : "aliyun_v4_request") ||
	    !cst_slice_is(service, s3 ? "s3" : "oss"))
		return fail(why, s3 ? "the credential scope does not end with /s3/aws4_request"
				    : "the credential scope does not end with /oss/aliyun_v4_request");
	claim->region = cut_last(&text);
	claim->scope_date = cut_last(&text);
	claim->access_key = text;
	if (claim->region.len == 0 || claim->scope_date.len != 8 || text.len == 0)
		return fail(why, "the credential is not ACCESS-KEY/DATE/REGION/SERVICE/TERMINATOR");
	return 0;
}

static int read_v4_fields(struct cst_slice text, struct cst_sign_claim *claim, const char **why)
{
	bool s3 = claim->kind == CST_SIGN_S3_V4;
	struct cst_slice credential = {0};
	while (text.len) {
		struct cst_slice value = cst_slice_trim(cst_slice_cut(&text, ','));
		struct cst_slice name = cst_slice_cut(&value, '=');
		if (cst_slice_is(name, "Credential"))
			credential = value;
		else if (cst_slice_is(name, "Signature"))
			claim->signature = value;
		else if (cst_slice_is(name, s3 ? "SignedHeaders" : "AdditionalHeaders"))
			claim->signed_headers = value;
	}
	if (!credential.data || !claim->signature.len || (s3 && !claim->signed_headers.len))
		return fail(why, s3 ? "the Authorization header needs Credential, SignedHeaders and Signature"
				    : "the Authorization header needs Credential and Signature");
	return read_credential(credential, claim, why);
}

static struct cst_slice date_line(struct cst_slice headers, enum cst_sign_kind kind)
{
	struct cst_slice own = cst_sign_find_line(headers, kind == CST_SIGN_S3_V4 ? "x-amz-date" : "x-oss-date");
	return own.data ? own : cst_sign_find_line(headers, "date");
}

/* When the claim comes in the Authorization header. */
static int read_header_claim(struct cst_slice headers, struct cst_slice authorization, struct cst_sign_claim *claim,
			     const char **why)
{
	struct cst_slice rest = authorization;
	struct cst_slice scheme = cst_slice_cut(&rest, ' ');
	rest = cst_slice_trim(rest);
	if (cst_slice_is(scheme, "OSS"))
		claim->kind = CST_SIGN_OSS_V1;
	else if (cst_slice_is(scheme, "OSS4-HMAC-SHA256"))
		claim->kind = CST_SIGN_OSS_V4;
	else if (cst_slice_is(scheme, "AWS4-HMAC-SHA256"))
		claim->kind = CST_SIGN_S3_V4;
	else
		return fail(
			why,
			"unknown scheme in the Authorization header (known: OSS, OSS4-HMAC-SHA256, AWS4-HMAC-SHA256)");
	bool s3 = claim->kind == CST_SIGN_S3_V4;
	claim->token = cst_sign_find_line(headers, s3 ? "x-amz-security-token" : "x-oss-security-token");
	struct cst_slice date = date_line(headers, claim->kind);
	if (!date.data)
		return fail(why, "a signed request needs a date");
	if (cst_time_parse(date.data, date.len, &claim->time) < 0)
		return fail(why, "the date of the request is malformed");
	if (claim->kind == CST_SIGN_OSS_V1) {
		claim->signature = rest;
		claim->access_key = cst_slice_cut(&claim->signature, ':');
		return claim->access_key.len && claim->signature.len
			       ? 0
			       : fail(why, "the Authorization header is not \"OSS ACCESS-KEY:SIGNATURE\"");
	}
	claim->payload_hash = cst_sign_find_line(headers, s3 ? "x-amz-content-sha256" : "x-oss-content-sha256");
	if (!claim->payload_hash.len)
		claim->payload_hash = CST_SLICE("UNSIGNED-PAYLOAD");
	return read_v4_fields(rest, claim, why);
}

static int parse_seconds(struct cst_slice text, int64_t *out)
{
	int64_t value = 0;
	if (text.len == 0 || text.len > 15)
		return -EINVAL;
	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] < '0' || text.data[i] > '9')
			return -EINVAL;
		value = value * 10 + (text.data[i] - '0');
	}
	*out = value;
	return 0;
}

static int read_v1_query(const struct cst_sign_param *params, size_t count, struct cst_sign_claim *claim,
			 const char **why)
{
	claim->kind = CST_SIGN_OSS_V1;
	claim->access_key = find_param(params, count, "OSSAccessKeyId");
	claim->signature = find_param(params, count, "Signature");
	claim->token = find_param(params, count, "security-token");
	if (!claim->access_key.len || !claim->signature.len)
		return fail(why, "a presigned URL needs OSSAccessKeyId, Expires and Signature");
	if (parse_seconds(find_param(params, count, "Expires"), &claim->expires_s) < 0)
		return fail(why, "Expires is not a number of seconds");
	return 0;
}

static int read_v4_query(const struct cst_sign_param *params, size_t count, struct cst_slice headers,
			 struct cst_sign_claim *claim, const char **why)
{
	bool s3 = claim->kind == CST_SIGN_S3_V4;
	struct cst_slice version = find_param(params, count, s3 ? "X-Amz-Algorithm" : "x-oss-signature-version");
	struct cst_slice date = find_param(params, count, s3 ? "X-Amz-Date" : "x-oss-date");
	claim->signature = find_param(params, count, s3 ? "X-Amz-Signature" : "x-oss-signature");
	claim->token = find_param(params, count, s3 ? "X-Amz-Security-Token" : "x-oss-security-token");
	claim->signed_headers = find_param(params, count, s3 ? "X-Amz-SignedHeaders" : "x-oss-additional-headers");
	claim->payload_hash = s3 ? find_param(params, count, "X-Amz-Content-Sha256") : (struct cst_slice){0};
	if (!claim->payload_hash.len)
		claim->payload_hash = cst_sign_find_line(headers, s3 ? "x-amz-content-sha256" : "x-oss-content-sha256");
	if (!claim->payload_hash.len)
		claim->payload_hash = CST_SLICE("UNSIGNED-PAYLOAD");
	if (!cst_slice_is(version, s3 ? "AWS4-HMAC-SHA256" : "OSS4-HMAC-SHA256"))
		return fail(why, "unknown signature version of a presigned URL");
	if (!claim->signature.len || (s3 && !claim->signed_headers.len))
		return fail(why, "the presigned URL lacks its signature or its signed headers");
	if (!date.len || cst_time_parse(date.data, date.len, &claim->time) < 0)
		return fail(why, "the date of the presigned URL is missing or malformed");
	if (parse_seconds(find_param(params, count, s3 ? "X-Amz-Expires" : "x-oss-expires"), &claim->expires_s) < 0)
		return fail(why, "the validity of the presigned URL is not a number of seconds");
	return read_credential(find_param(params, count, s3 ? "X-Amz-Credential" : "x-oss-credential"), claim, why);
}

int cst_sign_read_claim(struct cst_slice headers, const struct cst_sign_param *params, size_t param_count,
			struct cst_sign_claim *claim, const char **why)
{
	struct cst_slice authorization = cst_sign_find_line(headers, "authorization");
	*claim = (struct cst_sign_claim){.kind = CST_SIGN_NONE};
	if (authorization.data)
		return read_header_claim(headers, authorization, claim, why);
	claim->presigned = true;
	if (find_param(params, param_count, "x-oss-signature-version").data) {
		claim->kind = CST_SIGN_OSS_V4;
		return read_v4_query(params, param_count, headers, claim, why);
	}
	if (find_param(params, param_count, "X-Amz-Algorithm").data) {
		claim->kind = CST_SIGN_S3_V4;
		return read_v4_query(params, param_count, headers, claim, why);
	}
	if (find_param(params, param_count, "OSSAccessKeyId").data)
		return read_v1_query(params, param_count, claim, why);
	claim->presigned = false;
	return 0;
}

static bool matches(const struct cst_sign_input *in, const struct cst_sign_claim *claim,
		    const struct cst_credential *cred, struct cst_buf *text)
{
	CST_AUTO_BUF canonical = CST_BUF_INIT, signature = CST_BUF_INIT;
	if (in->kind != CST_SIGN_OSS_V1)
		cst_sign_canonical(in, &canonical);
	size_t before = text->len;
	cst_sign_to_sign(in, cst_buf_slice(&canonical), text);
	cst_sign_compute(in, cred, in->req->key_for_date, (struct cst_slice){text->data + before, text->len - before},
			 &signature);
	return cst_text_equal_secret(cst_buf_slice(&signature), claim->signature);
}

int cst_sign_verify(const struct cst_sign_request *req, const struct cst_sign_claim *claim,
		    const struct cst_credential *cred, struct cst_buf *string_to_sign)
{
	CST_AUTO_BUF text = CST_BUF_INIT, other = CST_BUF_INIT;
	char expires[24];
	struct cst_sign_input in = {
		.req = req,
		.kind = claim->kind,
		.names = claim->signed_headers,
		.payload_hash = claim->payload_hash,
		.scope_date = claim->scope_date,
		.region = claim->region,
		.time = claim->time,
		.presigned = claim->presigned,
	};
	if (claim->kind == CST_SIGN_NONE)
		return -EACCES;
	if (claim->kind == CST_SIGN_OSS_V1) {
		snprintf(expires, sizeof(expires), "%lld", (long long)claim->expires_s);
		in.date_slot = claim->presigned ? cst_slice_of(expires) : date_line(req->headers, claim->kind);
	}
	bool ok = matches(&in, claim, cred, &text);
	if (!ok && in.kind == CST_SIGN_S3_V4 && req->path_style && req->key.len == 0) {
		/* Both "/bucket" and "/bucket/" reach a bucket, and the path is signed as the client wrote it. */
		in.bare_bucket = true;
		ok = matches(&in, claim, cred, &other);
	}
	if (string_to_sign)
		cst_buf_add_slice(string_to_sign, cst_buf_slice(&text));
	return ok ? 0 : -EACCES;
}
