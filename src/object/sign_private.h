/* What the signer (sign.c) and the verifier (sign_verify.c) share: the canonical form of a request (sign_canonical.c).
 * Pure functions; any thread. */
#pragma once

#include "object/sign.h"

#define CST_SIGN_HEADERS_MAX 160

/* Both sides describe a request with this: the signer adds the lines and parameters that it is going to send, the verifier
 * finds them in what it received. Slices borrow. */
struct cst_sign_input {
	const struct cst_sign_request *req;
	enum cst_sign_kind kind;
	struct cst_slice added_headers;		   /* lines beside req->headers */
	const struct cst_sign_param *added_params; /* beside req->params */
	size_t added_param_count;
	struct cst_slice
		names; /* S3: SignedHeaders, data NULL: chosen and written to chosen_names; OSS V4: additional headers */
	struct cst_buf *chosen_names;  /* where the signer wants the names chosen; may be NULL */
	struct cst_slice payload_hash; /* V4 kinds */
	struct cst_slice date_slot;    /* V1: what stands in the place of the date */
	struct cst_slice scope_date;   /* V4 kinds: yyyymmdd */
	struct cst_slice region;
	int64_t time;
	bool presigned;	  /* the signature parameter itself is left out */
	bool bare_bucket; /* S3, path style: "/bucket", not "/bucket/" */
};

/* Canonical request of the V4 kinds; V1 has none. */
void cst_sign_canonical(const struct cst_sign_input *in, struct cst_buf *out);
void cst_sign_to_sign(const struct cst_sign_input *in, struct cst_slice canonical, struct cst_buf *out);
/* "20130524/us-east-1/s3/aws4_request" */
void cst_sign_scope(enum cst_sign_kind kind, struct cst_slice date, struct cst_slice region, struct cst_buf *out);
/* The signature as it is sent: base64 for V1, hex for the others. key NULL: derived from the secret. */
void cst_sign_compute(const struct cst_sign_input *in, const struct cst_credential *cred, const uint8_t *key,
		      struct cst_slice to_sign, struct cst_buf *out);

/* Cuts the next "Name: value" line off *rest; false at the end. The value is trimmed. */
bool cst_sign_next_line(struct cst_slice *rest, struct cst_slice *name, struct cst_slice *value);
/* The first line of that name (any case); data NULL when there is none. */
struct cst_slice cst_sign_find_line(struct cst_slice lines, const char *name);
