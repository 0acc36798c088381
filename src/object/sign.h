/* Request signatures: OSS V1, OSS V4, S3 SigV4; header and presigned-URL form, made (client) and checked (store).
 *
 * Pure functions over a description of the request; the caller passes the time. Any thread. Vectors: doc/object.md;
 * sources: Alibaba "Include signatures in the Authorization header", "OSS4-HMAC-SHA256", AWS "Signature Version 4". */
#pragma once

#include "base/buf.h"

enum cst_sign_kind { CST_SIGN_NONE, CST_SIGN_OSS_V1, CST_SIGN_OSS_V4, CST_SIGN_S3_V4 };

struct cst_credential {
	char access_key[160];
	char secret_key[256];
	char token[4096];    /* STS session token, or "" */
	int64_t expires;     /* wall clock, s since 1970; 0: never */
	uint64_t generation; /* grows with each change; set by the credentials object */
};

struct cst_sign_param {
	struct cst_slice name, value;
	bool has_value; /* "?acl" against "?acl=" */
};

struct cst_sign_request {
	enum cst_sign_kind kind;
	const char *method;
	struct cst_slice bucket; /* "" when none */
	struct cst_slice key;	 /* raw bytes, not encoded; "" when none */
	/* S3: the canonical URI depends on the addressing, so it is told here: true when the URL path starts with the bucket. */
	bool path_style;
	const struct cst_sign_param *params; /* decoded query, not with what the signer itself adds */
	size_t param_count;
	/* Headers that go on the wire ("Name: value\r\n" lines), those to be signed chosen by kind. Host is passed apart. */
	struct cst_slice headers;
	const char *host; /* S3: signed; OSS V4: only when listed in additional_headers */
	const char *region;
	const char *additional_headers; /* OSS V4: "host;abc" or NULL */
	/* hex SHA-256 of the payload, "UNSIGNED-PAYLOAD" or "STREAMING-…"; NULL: UNSIGNED-PAYLOAD */
	const char *payload_hash;
	int64_t time; /* wall clock, s */
	/* V4 kinds: what cst_sign_key() gave for this day, region and credential; NULL: derived from the secret each time. */
	const uint8_t *key_for_date;
};

/* The key of the V4 kinds for one day (yyyymmdd, UTC), region and secret. Costs four HMACs. */
void cst_sign_key(enum cst_sign_kind kind, const struct cst_credential *cred, struct cst_slice date,
		  struct cst_slice region, uint8_t key[32]);

/* Appends the header lines that sign the request (Authorization, and those it needs: Date or x-oss-date, x-amz-date,
 * x-oss-content-sha256, the security token). req->headers must not hold them yet. */
void cst_sign_headers(const struct cst_sign_request *req, const struct cst_credential *cred, struct cst_buf *out);
/* Appends the query parameters ("&k=v…", encoded) of a presigned URL valid for expires_s seconds. */
void cst_sign_query(const struct cst_sign_request *req, const struct cst_credential *cred, int64_t expires_s,
		    struct cst_buf *out);

/* For tests and for the store's error answers. */
void cst_sign_string_to_sign(const struct cst_sign_request *req, const struct cst_credential *cred,
			     struct cst_buf *canonical, struct cst_buf *string_to_sign);

/* The server's side. What a request says about itself: which kind, which key, when, what scope. */
struct cst_sign_claim {
	enum cst_sign_kind kind; /* NONE: anonymous */
	bool presigned;
	struct cst_slice access_key;
	struct cst_slice token;
	struct cst_slice signature;
	struct cst_slice scope_date, region;
	struct cst_slice signed_headers; /* S3; OSS V4: additional headers */
	struct cst_slice payload_hash;
	int64_t time;	   /* s */
	int64_t expires_s; /* presigned: validity from `time` (V1: `time` is 0 and this is the absolute Expires) */
};
/* Reads the claim from header lines and query. 0, or -EINVAL with a constant text in *why (malformed Authorization). */
int cst_sign_read_claim(struct cst_slice headers, const struct cst_sign_param *params, size_t param_count,
			struct cst_sign_claim *claim, const char **why);
/* Recomputes the signature. 0, -EACCES (does not match; *string_to_sign tells ours). `req` describes the request as received;
 * its kind, region, payload_hash and time are taken from the claim. The caller checks skew, expiry and the token. */
int cst_sign_verify(const struct cst_sign_request *req, const struct cst_sign_claim *claim,
		    const struct cst_credential *cred, struct cst_buf *string_to_sign);
/* S3 aws-chunked uploads: the seed for chunk signatures and one chunk's expected signature (hex, 64 bytes + NUL). */
void cst_sign_s3_signing_key(const struct cst_credential *cred, struct cst_slice date, struct cst_slice region,
			     uint8_t key[32]);
void cst_sign_s3_chunk(const uint8_t key[32], struct cst_slice scope_date, struct cst_slice region, int64_t time,
		       const char previous[65], const uint8_t chunk_sha256[32], char out[65]);
