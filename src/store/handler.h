/* The inside of the store: the boundary between its front (front.c: life cycle, statistics, latency, faults) and its
 * backend (buckets, objects, signatures, XML).
 *
 * A request runs on one worker thread of the HTTP server from beginning to end. The front takes it first, answers
 * /-/... itself, and calls cst_store_handle() for the rest. That finds out which operation it is and says so with
 * cst_store_begin() before it does anything else (also before it checks the signature: what is refused counts too);
 * when that returns false the front has answered and the handler returns. Everything sent afterwards goes
 * through the plain functions of net/http_server.h; the front delays, spoils and counts it from there.
 *
 * A request's file descriptor may be sent with cst_http_response_sendfile(). No lock of the front is held while the
 * backend runs. */
#pragma once

#include "net/http_server.h"
#include "store/store.h"

#define CST_STORE_MAGIC 0x53544f52u /* "STOR" */

struct cst_store_front;
struct cst_store_backend; /* the backend's own */

struct cst_store {
	unsigned magic;
	struct cst_store_config config; /* a deep copy, unchanged while the store runs */
	struct cst_store_front *front;
	struct cst_store_backend *backend;
	struct cst_http_server *server;
};

/* The operations by the names that statistics and --fail use. ListObjects counts V1 and V2. */
#define CST_STORE_OPERATIONS(X)                                                                        \
	X(OTHER, "Other")                                                                              \
	X(GET_OBJECT, "GetObject")                                                                     \
	X(HEAD_OBJECT, "HeadObject")                                                                   \
	X(GET_OBJECT_META, "GetObjectMeta")                                                            \
	X(LIST_OBJECTS, "ListObjects")                                                                 \
	X(LIST_OBJECT_VERSIONS, "ListObjectVersions")                                                  \
	X(PUT_OBJECT, "PutObject")                                                                     \
	X(POST_OBJECT, "PostObject")                                                                   \
	X(APPEND_OBJECT, "AppendObject")                                                               \
	X(INITIATE_MULTIPART_UPLOAD, "InitiateMultipartUpload")                                        \
	X(UPLOAD_PART, "UploadPart")                                                                   \
	X(UPLOAD_PART_COPY, "UploadPartCopy")                                                          \
	X(COMPLETE_MULTIPART_UPLOAD, "CompleteMultipartUpload")                                        \
	X(ABORT_MULTIPART_UPLOAD, "AbortMultipartUpload")                                              \
	X(LIST_PARTS, "ListParts")                                                                     \
	X(LIST_MULTIPART_UPLOADS, "ListMultipartUploads")                                              \
	X(COPY_OBJECT, "CopyObject")                                                                   \
	X(DELETE_OBJECT, "DeleteObject")                                                               \
	X(DELETE_MULTIPLE_OBJECTS, "DeleteMultipleObjects")                                            \
	X(PUT_SYMLINK, "PutSymlink")                                                                   \
	X(GET_SYMLINK, "GetSymlink")                                                                   \
	X(RESTORE_OBJECT, "RestoreObject")                                                             \
	X(GET_OBJECT_ACL, "GetObjectAcl")                                                              \
	X(PUT_OBJECT_ACL, "PutObjectAcl")                                                              \
	X(GET_OBJECT_TAGGING, "GetObjectTagging")                                                      \
	X(PUT_OBJECT_TAGGING, "PutObjectTagging")                                                      \
	X(DELETE_OBJECT_TAGGING, "DeleteObjectTagging")                                                \
	X(PUT_BUCKET, "PutBucket")                                                                     \
	X(DELETE_BUCKET, "DeleteBucket")                                                               \
	X(HEAD_BUCKET, "HeadBucket")                                                                   \
	X(LIST_BUCKETS, "ListBuckets")                                                                 \
	X(GET_BUCKET_INFO, "GetBucketInfo")                                                            \
	X(GET_BUCKET_STAT, "GetBucketStat")                                                            \
	X(GET_BUCKET_LOCATION, "GetBucketLocation")                                                    \
	X(GET_BUCKET_ACL, "GetBucketAcl")                                                              \
	X(PUT_BUCKET_ACL, "PutBucketAcl")                                                              \
	X(GET_BUCKET_VERSIONING, "GetBucketVersioning")                                                \
	X(GET_BUCKET_CONFIG, "GetBucketConfig") /* any other ?sub-resource of a bucket that is read */ \
	X(PUT_BUCKET_CONFIG, "PutBucketConfig") /* … or written */

#define CST_STORE_OPERATION_ENUM(id, name) CST_STORE_OP_##id,
enum cst_store_operation { CST_STORE_OPERATIONS(CST_STORE_OPERATION_ENUM) CST_STORE_OP_COUNT };
#undef CST_STORE_OPERATION_ENUM

enum cst_store_dialect { CST_STORE_OSS, CST_STORE_S3 };

/* ---- the backend's ---- */
/* Opens the directory and the keys, sets store->backend. 0 or -errno. */
int cst_store_backend_open(struct cst_store *store, struct cst_error *err);
/* No request runs any more. */
void cst_store_backend_close(struct cst_store *store);
void cst_store_handle(struct cst_store *store, struct cst_http_exchange *x);
/* Does the request carry a valid signature? (For /-/stats of a store with keys, from other machines.) Answers nothing. */
bool cst_store_admits(struct cst_store *store, struct cst_http_exchange *x);

/* ---- the front's ---- */
/* Counts the operation, decides on a fault. False: the request has been answered (503) or its connection reset. The
 * latency and the other faults take effect when the response is started and sent. Once per request. */
CST_MUST_USE bool cst_store_begin(struct cst_store *store, struct cst_http_exchange *x, enum cst_store_operation op,
				  enum cst_store_dialect dialect);
/* 24 hex digits that name this request: for x-oss-request-id, x-amz-request-id and error bodies. */
const char *cst_store_request_id(const struct cst_http_exchange *x);
const char *cst_store_operation_name(enum cst_store_operation op);
