/* Answers as the services give them: error documents, request ids, XML. Each function is called on the worker that
 * handles the request, and starts the response at most once. */
#pragma once

#include "store/request.h"

#define CST_STORE_ERRORS(X)                                                                                                    \
	X(ACCESS_DENIED, 403, "AccessDenied", "Access Denied.", "0003-00000001")                                               \
	X(AUTH_MALFORMED, 400, "AuthorizationHeaderMalformed", "The authorization header is malformed.", "")                   \
	X(AUTH_QUERY, 400, "AuthorizationQueryParametersError", "The signature in the query is malformed.", "")                \
	X(BAD_DIGEST, 400, "BadDigest", "The Content-MD5 you specified did not match what we received.", "")                   \
	X(BUCKET_EXISTS, 409, "BucketAlreadyExists", "The requested bucket name is not available.", "")                        \
	X(BUCKET_OWNED, 409, "BucketAlreadyOwnedByYou", "The bucket exists already and is yours.", "")                         \
	X(BUCKET_NOT_EMPTY, 409, "BucketNotEmpty", "The bucket you tried to delete is not empty.", "")                         \
	X(ENTITY_TOO_LARGE, 400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size.", "")               \
	X(ENTITY_TOO_SMALL, 400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size.",           \
	  "")                                                                                                                  \
	X(FILE_EXISTS, 409, "FileAlreadyExists",                                                                               \
	  "The object you specified already exists and can not be overwritten.", "")                                           \
	X(INCOMPLETE_BODY, 400, "IncompleteBody", "The request body is shorter than its Content-Length tells.", "")            \
	X(INTERNAL, 500, "InternalError", "We encountered an internal error. Please try again.", "")                           \
	X(INVALID_ACCESS_KEY, 403, "InvalidAccessKeyId",                                                                       \
	  "The access key id you provided does not exist in our records.", "0002-00000902")                                    \
	X(INVALID_ARGUMENT, 400, "InvalidArgument", "Invalid argument.", "")                                                   \
	X(INVALID_BUCKET_NAME, 400, "InvalidBucketName", "The specified bucket is not valid.", "")                             \
	X(INVALID_CHUNK_SIZE, 403, "InvalidChunkSizeError", "A chunk of the body is malformed.", "")                           \
	X(INVALID_DIGEST, 400, "InvalidDigest", "The Content-MD5 you specified is invalid.", "")                               \
	X(INVALID_KEY, 400, "InvalidObjectName", "The specified object is not valid.", "")                                     \
	X(INVALID_OBJECT_STATE, 403, "InvalidObjectState", "The operation is not valid for the object's state.", "")           \
	X(INVALID_PART, 400, "InvalidPart",                                                                                    \
	  "One or more of the specified parts could not be found or have another ETag.", "")                                   \
	X(INVALID_PART_ORDER, 400, "InvalidPartOrder", "The list of parts was not in ascending order.", "")                    \
	X(INVALID_RANGE, 416, "InvalidRange", "The requested range cannot be satisfied.", "")                                  \
	X(INVALID_REQUEST, 400, "InvalidRequest", "Invalid request.", "")                                                      \
	X(INVALID_TARGET_TYPE, 400, "InvalidTargetType", "The target of the symbolic link is a symbolic link.", "")            \
	X(INVALID_TOKEN, 403, "InvalidSecurityToken", "The security token you provided is invalid.", "")                       \
	X(KEY_TOO_LONG, 400, "KeyTooLongError", "Your key is too long.", "")                                                   \
	X(MALFORMED_XML, 400, "MalformedXML", "The XML you provided was not well-formed or did not validate.", "")             \
	X(METADATA_TOO_LARGE, 400, "MetadataTooLarge", "Your metadata headers exceed the maximum allowed size.", "")           \
	X(METHOD_NOT_ALLOWED, 405, "MethodNotAllowed", "The specified method is not allowed against this resource.",           \
	  "")                                                                                                                  \
	X(MISSING_LENGTH, 411, "MissingContentLength", "You must provide the Content-Length HTTP header.", "")                 \
	X(NOT_IMPLEMENTED, 501, "NotImplemented",                                                                              \
	  "A header or query you provided implies functionality that is not implemented.", "")                                 \
	X(NOT_IMPLEMENTED_400, 400, "NotImplemented",                                                                          \
	  "A header you provided implies functionality that is not implemented.", "")                                          \
	X(NOT_SYMLINK, 400, "NotSymlink", "The object is not a symbolic link.", "")                                            \
	X(NO_CONFIG_CORS, 404, "NoSuchCORSConfiguration", "The CORS configuration does not exist.", "")                        \
	X(NO_CONFIG_ENCRYPTION, 404, "ServerSideEncryptionConfigurationNotFoundError",                                         \
	  "The server side encryption configuration was not found.", "")                                                       \
	X(NO_CONFIG_ENCRYPTION_OSS, 404, "NoSuchServerSideEncryptionRule", "The encryption rule does not exist.", "")          \
	X(NO_CONFIG_LIFECYCLE_OSS, 404, "NoSuchLifecycle", "No lifecycle rule was set.", "")                                   \
	X(NO_CONFIG_LIFECYCLE, 404, "NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist.", "")         \
	X(NO_CONFIG_LOCK, 404, "ObjectLockConfigurationNotFoundError", "Object Lock is not configured.", "")                   \
	X(NO_CONFIG_POLICY, 404, "NoSuchBucketPolicy", "The bucket policy does not exist.", "")                                \
	X(NO_CONFIG_PUBLIC_ACCESS, 404, "NoSuchPublicAccessBlockConfiguration",                                                \
	  "The public access block configuration was not found.", "")                                                          \
	X(NO_CONFIG_OWNERSHIP, 404, "OwnershipControlsNotFoundError", "The bucket ownership controls were not found.",         \
	  "")                                                                                                                  \
	X(NO_CONFIG_REPLICATION, 404, "ReplicationConfigurationNotFoundError",                                                 \
	  "There is no replication configuration.", "")                                                                        \
	X(NO_CONFIG_TAGS, 404, "NoSuchTagSet", "There is no tag set.", "")                                                     \
	X(NO_CONFIG_WEBSITE, 404, "NoSuchWebsiteConfiguration", "The website configuration does not exist.", "")               \
	X(NO_SUCH_BUCKET, 404, "NoSuchBucket", "The specified bucket does not exist.", "0015-00000101")                        \
	X(NO_SUCH_KEY, 404, "NoSuchKey", "The specified key does not exist.", "0026-00000001")                                 \
	X(NO_SUCH_UPLOAD, 404, "NoSuchUpload", "The specified upload does not exist.", "")                                     \
	X(NOT_APPENDABLE, 409, "ObjectNotAppendable", "The object is not appendable.", "")                                     \
	X(PAYLOAD_HASH, 400, "XAmzContentSHA256Mismatch",                                                                      \
	  "The provided 'x-amz-content-sha256' header does not match what was computed.", "")                                  \
	X(OPERATION_NOT_SUPPORTED, 400, "OperationNotSupported", "The operation is not supported for this resource.",          \
	  "")                                                                                                                  \
	X(POSITION, 409, "PositionNotEqualToLength", "Position is not equal to file length.", "")                              \
	X(PRECONDITION, 412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.",           \
	  "")                                                                                                                  \
	X(SIGNATURE, 403, "SignatureDoesNotMatch",                                                                             \
	  "The request signature we calculated does not match the signature you provided. Check your key and signing method.", \
	  "0002-00000040")                                                                                                     \
	X(STORAGE_FULL, 507, "InsufficientStorage", "The disk of the store is full.", "")                                      \
	X(SYMLINK_TARGET, 404, "SymlinkTargetNotExist", "The target of the symbolic link does not exist.", "")                 \
	X(TIME_SKEWED, 403, "RequestTimeTooSkewed",                                                                            \
	  "The difference between the request time and the current time is too large.", "0002-00000504")

#define CST_STORE_ERROR_ENUM(id, status, code, text, ec) CST_STORE_ERR_##id,
enum cst_store_error { CST_STORE_ERRORS(CST_STORE_ERROR_ENUM) CST_STORE_ERR_COUNT };
#undef CST_STORE_ERROR_ENUM

/* An error document. `message` NULL: the usual text. `extra`: XML elements to add, or NULL. */
void cst_answer_error_with(struct cst_store_request *r, enum cst_store_error e, const char *message, const char *extra);
void cst_answer_error(struct cst_store_request *r, enum cst_store_error e);
void cst_answer_errorf(struct cst_store_request *r, enum cst_store_error e, const char *fmt, ...) CST_PRINTF(3, 4);
/* For a -errno of the backend in a request for r->key. */
void cst_answer_errno(struct cst_store_request *r, int rc);

/* The headers that every answer has. Called by all of the below; before cst_http_response_start() elsewhere. */
void cst_answer_common(struct cst_store_request *r);
/* No body. */
void cst_answer_empty(struct cst_store_request *r, int status);
/* 200 and a document, to which the declaration is added. */
void cst_answer_xml(struct cst_store_request *r, struct cst_buf *xml);

/* <NAME>text, escaped</NAME>. */
void cst_xml_text(struct cst_buf *out, const char *name, struct cst_slice text);
void cst_xml_printf(struct cst_buf *out, const char *name, const char *fmt, ...) CST_PRINTF(3, 4);
/* A key or prefix: URL-encoded when the client asked for encoding-type=url. */
void cst_xml_key(struct cst_buf *out, const char *name, struct cst_slice key, bool encode);
void cst_xml_time(struct cst_buf *out, const char *name, int64_t s);
/* The opening tag of a document's root: with S3's namespace in that dialect. */
void cst_xml_root(const struct cst_store_request *r, struct cst_buf *out, const char *name);
void cst_xml_owner(const struct cst_store_request *r, struct cst_buf *out, const char *element);

/* An ETag as this dialect writes it, quoted: upper case on OSS. */
#define CST_ANSWER_ETAG (CST_RECORD_ETAG + 8)
const char *cst_answer_etag(const struct cst_store_request *r, const char *etag, char out[CST_ANSWER_ETAG]);
const char *cst_answer_class(const struct cst_store_request *r, enum cst_record_class class);
/* Any spelling of either service. 0 or -EINVAL. */
int cst_answer_parse_class(struct cst_slice text, enum cst_record_class *class);
const char *cst_answer_type(enum cst_record_type type);
