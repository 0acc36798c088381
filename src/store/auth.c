#include "store/auth.h"

#include "base/clock.h"
#include "base/text.h"
#include "store/keys.h"

#include <errno.h>
#include <inttypes.h>

#define MAX_SKEW 900
#define MAX_EXPIRES (7 * 24 * 3600)

static bool refuse(struct cst_store_request *r, enum cst_store_error e, const char *message)
{
	cst_answer_error_with(r, e, message, NULL);
	return false;
}

static bool check_presigned(struct cst_store_request *r, int64_t now)
{
	const struct cst_sign_claim *claim = &r->claim;
	CST_AUTO_BUF extra = CST_BUF_INIT;

	if (claim->kind != CST_SIGN_OSS_V1) {
		if (claim->expires_s < 1 || claim->expires_s > MAX_EXPIRES)
			return refuse(r,
				      r->dialect == CST_STORE_S3 ? CST_STORE_ERR_AUTH_QUERY
								 : CST_STORE_ERR_INVALID_ARGUMENT,
				      "The URL must be valid for 1 to 604800 seconds.");
		if (claim->time > now + MAX_SKEW)
			return refuse(r, CST_STORE_ERR_ACCESS_DENIED, "Request is not yet valid.");
	}
	if (now > claim->time + claim->expires_s) {
		cst_xml_time(&extra, "Expires", claim->time + claim->expires_s);
		cst_xml_time(&extra, "ServerTime", now);
		cst_answer_error_with(r, CST_STORE_ERR_ACCESS_DENIED, "Request has expired.", extra.data);
		return false;
	}
	return true;
}

static bool check_time(struct cst_store_request *r)
{
	int64_t now = cst_wall() / CST_NS_PER_S;
	CST_AUTO_BUF extra = CST_BUF_INIT;

	if (r->claim.presigned)
		return check_presigned(r, now);
	if (r->claim.time >= now - MAX_SKEW && r->claim.time <= now + MAX_SKEW)
		return true;
	cst_xml_printf(&extra, "MaxAllowedSkewMilliseconds", "%d", MAX_SKEW * 1000);
	cst_xml_time(&extra, "RequestTime", r->claim.time);
	cst_xml_time(&extra, "ServerTime", now);
	cst_answer_error_with(r, CST_STORE_ERR_TIME_SKEWED, NULL, extra.data);
	return false;
}

static bool check_region(struct cst_store_request *r)
{
	const char *region = r->store->config.region;
	CST_AUTO_BUF extra = CST_BUF_INIT;
	CST_AUTO_BUF message = CST_BUF_INIT;

	if (!region || r->claim.kind == CST_SIGN_OSS_V1 || cst_slice_is(r->claim.region, region))
		return true;
	cst_xml_text(&extra, "Region", cst_slice_of(region));
	cst_buf_printf(&message, "The region '%.*s' is wrong; expecting '%s'.", (int)r->claim.region.len,
		       r->claim.region.data, region);
	cst_answer_error_with(
		r, r->dialect == CST_STORE_S3 ? CST_STORE_ERR_AUTH_MALFORMED : CST_STORE_ERR_INVALID_ARGUMENT,
		message.data, extra.data);
	return false;
}

static bool verify(struct cst_store_request *r, struct cst_buf *text)
{
	CST_AUTO_BUF host = CST_BUF_INIT;
	struct cst_sign_request req = {
		.kind = r->claim.kind,
		.bucket = r->bucket_name,
		.key = r->key,
		.path_style = r->path_style,
		.params = r->params,
		.param_count = r->param_count,
		.headers = cst_buf_slice(&r->lines),
		.time = r->claim.time,
	};
	CST_AUTO_FREE char *method = cst_xstrndup(r->head->method.data, r->head->method.len);

	req.method = method;
	cst_buf_add_slice(&host, cst_request_header(r, "host"));
	req.host = host.len ? host.data : "";
	return cst_sign_verify(&req, &r->claim, &r->credential, text) == 0;
}

static bool check_signature(struct cst_store_request *r)
{
	CST_AUTO_BUF text = CST_BUF_INIT;
	CST_AUTO_BUF extra = CST_BUF_INIT;
	const char *key_name = r->dialect == CST_STORE_OSS ? "OSSAccessKeyId" : "AWSAccessKeyId";

	if (verify(r, &text))
		return true;
	cst_xml_text(&extra, key_name, r->claim.access_key);
	cst_xml_text(&extra, "SignatureProvided", r->claim.signature);
	cst_xml_text(&extra, "StringToSign", cst_buf_slice(&text));
	cst_buf_add_str(&extra, "<StringToSignBytes>");
	for (size_t i = 0; i < text.len; i++)
		cst_buf_printf(&extra, "%s%02X", i ? " " : "", (unsigned)(uint8_t)text.data[i]);
	cst_buf_add_str(&extra, "</StringToSignBytes>");
	cst_answer_error_with(r, CST_STORE_ERR_SIGNATURE, NULL, extra.data);
	return false;
}

static bool check_token(struct cst_store_request *r)
{
	if (cst_text_equal_secret(r->claim.token, cst_slice_of(r->credential.token)))
		return true;
	return refuse(r, CST_STORE_ERR_INVALID_TOKEN,
		      r->claim.token.len ? NULL
					 : "The access key is a temporary one: its requests need the security token.");
}

static bool check_bucket(struct cst_store_request *r)
{
	if (!r->only_bucket[0] || r->bucket_name.len == 0 || cst_slice_is(r->bucket_name, r->only_bucket))
		return true;
	return refuse(r, CST_STORE_ERR_ACCESS_DENIED, "The access key is for another bucket.");
}

bool cst_auth_check(struct cst_store_request *r)
{
	const struct cst_store_config *config = &r->store->config;
	const char *why = NULL;

	if (!r->b->keys)
		return true;
	if (cst_sign_read_claim(cst_buf_slice(&r->lines), r->params, r->param_count, &r->claim, &why) != 0) {
		cst_answer_errorf(
			r, r->dialect == CST_STORE_S3 ? CST_STORE_ERR_AUTH_MALFORMED : CST_STORE_ERR_INVALID_ARGUMENT,
			"The signature can't be read: %s.", why);
		return false;
	}
	if (r->claim.kind == CST_SIGN_NONE && cst_request_has(r, "AWSAccessKeyId"))
		return refuse(r, CST_STORE_ERR_INVALID_REQUEST,
			      "Signature version 2 is not supported. Please use AWS4-HMAC-SHA256.");
	if (r->claim.kind == CST_SIGN_NONE) {
		if (config->anonymous)
			return true;
		return refuse(r, CST_STORE_ERR_ACCESS_DENIED,
			      r->dialect == CST_STORE_OSS ? "Anonymous access is forbidden for this operation." : NULL);
	}
	if (!cst_keys_find(r->b->keys, r->claim.access_key, &r->credential, r->only_bucket)) {
		CST_AUTO_BUF extra = CST_BUF_INIT;

		cst_xml_text(&extra, r->dialect == CST_STORE_OSS ? "OSSAccessKeyId" : "AWSAccessKeyId",
			     r->claim.access_key);
		cst_answer_error_with(r, CST_STORE_ERR_INVALID_ACCESS_KEY, NULL, extra.data);
		return false;
	}
	if (!check_time(r) || !check_region(r) || !check_signature(r) || !check_token(r) || !check_bucket(r))
		return false;
	r->checked = true;
	return true;
}
