/* Object storage behind one interface: a bucket handle with asynchronous operations.
 *
 * A cst_bucket is one bucket of one OSS- or S3-compatible service. Operations start on any thread and never block; their
 * callback comes exactly once on a loop thread of the HTTP client (or, for errors known at once, on the caller's thread before
 * the call returns) and must not block. Retries (full jitter from 200 ms to 20 s; 5xx, 408, 429, RequestTimeTooSkewed after
 * learning the server's clock, connection errors, short bodies, CRC mismatches; 401/403 once after renewing the credential;
 * Retry-After and x-oss-qos-delay-time are obeyed) happen inside, until the operation's deadline.
 *
 * Result codes: 0, -ENOENT (404 NoSuchKey), -ENXIO (NoSuchBucket), -EACCES (401, 403), -ESTALE (412: If-Match failed),
 * -EIO (InvalidObjectState: archived; err->api says so), -ERANGE (416), -ETIMEDOUT (deadline passed while retrying),
 * -ECANCELED, -EINVAL (400), -EIO (the rest). err is never NULL in a callback with rc < 0 and names bucket, key, status, code
 * and request id. */
#pragma once

#include "net/http_client.h"
#include "object/credentials.h"

struct cst_bucket;
struct cst_object_op; /* an operation under way */

enum cst_addressing { CST_ADDRESS_AUTO, CST_ADDRESS_VIRTUAL, CST_ADDRESS_PATH, CST_ADDRESS_CNAME };

struct cst_bucket_config {
	enum cst_cloud cloud;
	const char *bucket;
	/* "oss-cn-hangzhou.aliyuncs.com", "https://…", "http://127.0.0.1:9000", "[::1]:9000"; without a scheme https.
	 * NULL for S3: s3.REGION.amazonaws.com. AUTO addressing: path style for IP literals, localhost and bucket names with dots
	 * under TLS, virtual host otherwise; path style too for host names without
	 * dots. A host that starts with "BUCKET." is taken as the virtual host it is. */
	const char *endpoint;
	const char *region;	 /* NULL: derived from the endpoint */
	enum cst_sign_kind sign; /* NONE: default: OSS V4 when the region is known, else V1; S3 V4 */
	enum cst_addressing addressing;
	struct cst_credentials *credentials; /* borrowed */
	struct cst_http_client *http;	     /* borrowed */
	int64_t request_timeout;	     /* ns for one attempt without progress; 0: 60 s */
	int64_t deadline;      /* ns for an operation with its retries; 0: 300 s; the bytes of a range extend it */
	unsigned max_attempts; /* 0: bounded by the deadline alone */
	bool verify_crc64;     /* check x-oss-hash-crc64ecma of whole-object reads */
	/* What may be asked of the origin, over all operations, 0: no limit. A GET pays for its length before it starts; what goes at
	 * once is 100 ms worth, or one range. GETs with `background` wait behind all others, but one a second goes when
	 * others keep coming. Waiting here uses up no deadline but one that the caller gave. */
	uint64_t bandwidth; /* bytes of object data a second, downloads */
	uint64_t
		upload_bandwidth; /* the same of uploads: lines are as wide in both directions, and neither waits for the other */
	double requests; /* a second */
	/* Hedging: a GET whose head comes later than 95 of 100 do, or whose body is far slower than others, is sent a second time,
	 * for what is still missing; the first whole answer counts. At most one GET in twenty, none while the store throttles or
	 * operations wait for its limits. Needs if_match (so that both answers are the same bytes). */
	bool hedge;
};
struct cst_bucket *cst_bucket_new(const struct cst_bucket_config *config, struct cst_error *err);
/* All operations must have ended and been released (those that are just doing so are waited for). Not on a loop thread. */
void cst_bucket_free(struct cst_bucket *b);
const char *cst_bucket_name(const struct cst_bucket *b);
const char *cst_bucket_describe(const struct cst_bucket *b); /* "oss://name at https://host (V4, cn-hangzhou)" */

enum cst_object_type { CST_OBJECT_NORMAL, CST_OBJECT_MULTIPART, CST_OBJECT_APPENDABLE, CST_OBJECT_SYMLINK };

#define CST_ETAG_MAX 72
/* What is known of an object. `key` and `meta` are valid inside the callback only. */
struct cst_object_info {
	struct cst_slice key;
	uint64_t size;
	int64_t mtime;		 /* Last-Modified, s since 1970 */
	char etag[CST_ETAG_MAX]; /* without quotes */
	enum cst_object_type type;
	char storage_class[24];	    /* "Standard", "IA", "Archive", …; "" unknown */
	bool restoring_or_restored; /* HEAD of an archived object: x-oss-restore present */
	/* HEAD only: user metadata, names lower case without the x-oss-meta-/x-amz-meta- prefix, values as they came
	 * (other tools may have percent- or RFC 2047-encoded them). */
	const struct cst_http_header *meta;
	size_t meta_count;
	struct cst_slice content_type;
	uint64_t crc64;
	bool has_crc64;
};

/* HEADs go 64 at a time (those that have gone unanswered for a second don't count, up to 112), the others in order.
 * HEAD: everything. With meta_only_size (OSS GetObjectMeta) only size, mtime and etag, cheaper for the store. */
typedef void (*cst_object_head_fn)(void *arg, int rc, const struct cst_object_info *info, const struct cst_error *err);
struct cst_object_op *cst_object_head(struct cst_bucket *b, struct cst_slice key, bool light, cst_object_head_fn fn,
				      void *arg);

/* Progress: bytes [0, got) of the range are in memory and of the version that if_match names; on a loop thread, when a 128 KiB
 * block of the object is complete and about every 128 KiB, not for the last piece, never after the end. Only with if_match and
 * from stores that tell ETag and length: these bytes stay what they are whatever happens to the rest, nobody writes there
 * again. `got` only grows. Whole-object reads whose CRC64 is to be verified report nothing before that. */
typedef void (*cst_object_progress_fn)(void *arg, size_t got, const struct cst_object_info *info);
struct cst_object_get {
	struct cst_slice key;
	uint64_t offset;
	uint64_t length;	  /* bytes wanted; must be > 0; the range is clipped by the store at the object's end */
	const char *if_match;	  /* etag, or NULL. A different object gives -ESTALE. */
	const struct iovec *into; /* room for at least `length` bytes; copied, the memory itself stays the caller's */
	int into_count;
	int64_t deadline;		 /* cst_now() clock; 0: from the bucket's config */
	cst_object_progress_fn progress; /* with fn's arg; NULL: not wanted */
	bool no_retry;			 /* one attempt */
	bool background; /* prefetch, fill: hedged when it stalls, not for being late alone; behind others when the origin is rate limited */
};
/* got: bytes stored (≤ length, less only at the object's end). info: size (of the whole object), etag, mtime. */
typedef void (*cst_object_get_fn)(void *arg, int rc, size_t got, const struct cst_object_info *info,
				  const struct cst_error *err);
struct cst_object_op *cst_object_get(struct cst_bucket *b, const struct cst_object_get *get, cst_object_get_fn fn,
				     void *arg);

struct cst_object_list {
	struct cst_slice prefix;
	const char *delimiter;	      /* "/" or NULL */
	struct cst_slice start_after; /* "" none; first page only */
	struct cst_slice token;	      /* from the page before, "" for the first */
	unsigned max_keys;	      /* 0: 1000 */
};
/* Entries come while the page is parsed, in the order of the store: objects in key order, then common prefixes (is_prefix set)
 * in theirs. A store that names the encoding only at the end of the page has its entries held until then. */
struct cst_object_list_entry {
	bool is_prefix;
	struct cst_object_info info; /* is_prefix: only key */
};
struct cst_object_list_page {
	bool truncated;
	struct cst_slice next_token;
	unsigned count;
};
/* on_entry may be called again from the start of the page when a page is retried: restart(arg) comes first. */
struct cst_object_list_ops {
	void (*entry)(void *arg, const struct cst_object_list_entry *entry);
	void (*restart)(void *arg);
	void (*done)(void *arg, int rc, const struct cst_object_list_page *page, const struct cst_error *err);
};
struct cst_object_op *cst_object_list(struct cst_bucket *b, const struct cst_object_list *list,
				      const struct cst_object_list_ops *ops, void *arg);

/* The target of an OSS symlink object, decoded. -ENOTSUP on S3. */
typedef void (*cst_object_symlink_fn)(void *arg, int rc, struct cst_slice target, const struct cst_error *err);
struct cst_object_op *cst_object_get_symlink(struct cst_bucket *b, struct cst_slice key, cst_object_symlink_fn fn,
					     void *arg);

/* As in http_client.h: cancel ends it soon (the callback still comes), release gives the handle back; each started operation is
 * released exactly once. */
void cst_object_cancel(struct cst_object_op *op);
/* Somebody waits for a GET that was started with `background`: it is one of the others from now on. Before release. */
void cst_object_hurry(struct cst_object_op *op);
void cst_object_release(struct cst_object_op *op);

/* A synchronous check before mounting: lists one key under `prefix`. Its error texts are the ones a person sees when the endpoint,
 * host, key, bucket, region or clock is wrong. Not on a loop thread. */
int cst_bucket_probe(struct cst_bucket *b, struct cst_slice prefix, struct cst_error *err);

/* Requests made, by operation, for `stats`. */
struct cst_bucket_stats {
	uint64_t get, head, list, symlink, retries, throttled, bytes_in;
	uint64_t hedges, hedge_wins; /* second GETs sent; those that answered first */
	uint64_t limited;	     /* operations that waited for bandwidth or requests */
	/* Writing: PUTs of objects and symlinks, of parts, appends; copies of objects and parts; DELETEs (one may hold many keys);
	 * beginning, completing, aborting and listing uploads. bytes_out: of bodies, failed attempts included. */
	uint64_t put, part, append, copy, remove, upload, bytes_out;
};
void cst_bucket_stats(const struct cst_bucket *b, struct cst_bucket_stats *stats);
