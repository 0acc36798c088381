/* One request to the store, taken apart: dialect, bucket, key, query, headers, who asks. Lives on the worker thread's
 * stack while the request is handled. Parsing is pure; it is fuzzed. */
#pragma once

#include "object/sign.h"
#include "store/backend.h"
#include "store/handler.h"

#define CST_REQUEST_MAGIC 0x53524551u
#define CST_REQUEST_PARAMS 64

struct cst_store_request {
	unsigned magic;
	struct cst_store *store;
	struct cst_store_backend *b;
	struct cst_http_exchange *x;
	const struct cst_http_head *head;
	enum cst_store_dialect dialect;
	bool is_head; /* HEAD: errors have no body */
	bool quiet;   /* answer nothing: only the outcome counts */
	bool path_style;
	struct cst_sign_param params[CST_REQUEST_PARAMS]; /* decoded */
	size_t param_count;
	struct cst_buf decoded;		   /* what bucket, key and params point into */
	struct cst_slice bucket_name, key; /* bucket_name.len 0: the service itself */
	char bucket[CST_BUCKET_NAME_MAX];  /* the same, terminated; "" when it isn't a valid name */
	int bucket_fd;			   /* opened once the request is admitted; -1 before */
	struct cst_buf lines;		   /* the headers as lines, for signatures */
	struct cst_sign_claim claim;
	bool checked; /* the signature was checked, with this credential: */
	struct cst_credential credential;
	char only_bucket[CST_BUCKET_NAME_MAX]; /* the credential is for this one; "": for all */
};

/* Takes the request apart. 0, or -EINVAL with *why (a bad escape, too many parameters, …). request_fini() always. */
int cst_request_init(struct cst_store_request *r, struct cst_store *store, struct cst_http_exchange *x,
		     const char **why);
void cst_request_fini(struct cst_store_request *r);

bool cst_request_is(const struct cst_store_request *r, const char *method);
/* data NULL: absent; "" for a parameter without a value. */
struct cst_slice cst_request_param(const struct cst_store_request *r, const char *name);
bool cst_request_has(const struct cst_store_request *r, const char *name);
struct cst_slice cst_request_header(const struct cst_store_request *r, const char *name);
/* x-oss-NAME or x-amz-NAME, as the dialect has it. */
struct cst_slice cst_request_own(const struct cst_store_request *r, const char *name);

/* Decimal digits only. 0, or -EINVAL (also when it doesn't fit). */
int cst_request_number(struct cst_slice text, uint64_t *value);
/* "/bucket/key" or "bucket/key", URL-encoded, with an optional ?versionId. The buffer holds the decoded text. */
int cst_request_copy_source(struct cst_slice text, struct cst_buf *decoded, struct cst_slice *bucket,
			    struct cst_slice *key);

enum cst_range_kind {
	CST_RANGE_NONE,		 /* none, or one to be ignored: the whole object */
	CST_RANGE_OK,		 /* *offset and *length */
	CST_RANGE_UNSATISFIABLE, /* 416 */
};
/* The Range header's "bytes=a-b" of an object of `size` bytes. `strict`: S3 and x-oss-range-behavior: standard; else
 * the rules of OSS, where a range that isn't wholly inside is ignored. */
enum cst_range_kind cst_request_range(struct cst_slice text, uint64_t size, bool strict, uint64_t *offset,
				      uint64_t *length);
/* One ETag of If-Match and its like: with or without quotes, in any case. "*" and lists are understood. */
bool cst_request_etag_listed(struct cst_slice list, const char *etag);
