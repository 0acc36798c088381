/* The operations, one function each: they answer the request whatever happens. Called on the request's worker, after
 * cst_store_begin() and the signature check; those on a bucket find it open in r->bucket_fd. */
#pragma once

#include "store/answer.h"

/* ops_read.c */
void cst_op_get_object(struct cst_store_request *r);
void cst_op_head_object(struct cst_store_request *r);
void cst_op_get_object_meta(struct cst_store_request *r);
void cst_op_get_symlink(struct cst_store_request *r);
/* ops_write.c */
void cst_op_put_object(struct cst_store_request *r);
void cst_op_append_object(struct cst_store_request *r);
void cst_op_put_symlink(struct cst_store_request *r);
void cst_op_delete_object(struct cst_store_request *r);
void cst_op_delete_objects(struct cst_store_request *r);
/* ops_copy.c */
void cst_op_copy_object(struct cst_store_request *r);
void cst_op_upload_part_copy(struct cst_store_request *r);
/* ops_state.c */
void cst_op_restore_object(struct cst_store_request *r);
void cst_op_get_tagging(struct cst_store_request *r);
void cst_op_put_tagging(struct cst_store_request *r);
void cst_op_delete_tagging(struct cst_store_request *r);
void cst_op_get_acl(struct cst_store_request *r); /* of an object or a bucket */
void cst_op_put_acl(struct cst_store_request *r);
/* ops_multipart.c */
void cst_op_initiate_upload(struct cst_store_request *r);
void cst_op_upload_part(struct cst_store_request *r);
void cst_op_list_parts(struct cst_store_request *r);
void cst_op_list_uploads(struct cst_store_request *r);
void cst_op_abort_upload(struct cst_store_request *r);
/* ops_complete.c */
void cst_op_complete_upload(struct cst_store_request *r);
/* ops_list.c */
void cst_op_list_objects(struct cst_store_request *r);
void cst_op_list_versions(struct cst_store_request *r);
/* ops_bucket.c */
void cst_op_list_buckets(struct cst_store_request *r);
void cst_op_put_bucket(struct cst_store_request *r);
void cst_op_delete_bucket(struct cst_store_request *r);
void cst_op_head_bucket(struct cst_store_request *r);
void cst_op_get_bucket_info(struct cst_store_request *r);
void cst_op_get_bucket_stat(struct cst_store_request *r);
void cst_op_get_bucket_location(struct cst_store_request *r);
void cst_op_get_bucket_versioning(struct cst_store_request *r);
void cst_op_get_bucket_config(struct cst_store_request *r);

/* ---- shared (ops_common.c) ---- */
#define CST_OBJECT_MAX (UINT64_C(5) << 30) /* of one PUT, one part, one copy, one appendable object */

enum cst_condition { CST_CONDITION_HOLDS, CST_CONDITION_NOT_MODIFIED, CST_CONDITION_FAILED };
/* If-Match and its like; with `source` x-…-copy-source-if-match and its like. */
enum cst_condition cst_ops_conditions(const struct cst_store_request *r, const struct cst_record *record, bool source);
/* What a request that writes says about headers, class and tags goes into the record. False: answered. */
CST_MUST_USE bool cst_ops_collect(struct cst_store_request *r, struct cst_record *record);
/* May the key be written, as far as x-oss-forbid-overwrite, If-Match and If-None-Match are concerned? Asked early, so that
 * no body is read for nothing (false: answered), and for certain with the key's stripe: there the answer has to wait, since
 * it may take its time. */
struct cst_ops_verdict {
	bool may;
	int rc; /* or -errno, or: */
	enum cst_store_error error;
	const char *extra;
};
CST_MUST_USE bool cst_ops_may_write(struct cst_store_request *r);
struct cst_ops_verdict cst_ops_decide_locked(struct cst_store_request *r);
/* Answers unless it may. */
void cst_ops_tell(struct cst_store_request *r, const struct cst_ops_verdict *verdict);
/* Seals and commits the staged file as r->key. False: answered. */
CST_MUST_USE bool cst_ops_store(struct cst_store_request *r, struct cst_staged *s, struct cst_record *record);
/* Response headers from a record: type, user metadata, class, checksums. */
void cst_ops_headers(struct cst_store_request *r, const struct cst_record *record);
/* ETag, and on OSS the CRC64. */
void cst_ops_etag_header(struct cst_store_request *r, const struct cst_record *record);
/* S3's x-amz-checksum-…, if one is stored: of the whole object, so not for parts of it. */
void cst_ops_checksum_header(struct cst_store_request *r, const struct cst_record *record);
/* Archived and not restored? */
bool cst_ops_is_archived(const struct cst_record *record);
void cst_ops_md5_etag(const uint8_t md5[16], char etag[CST_RECORD_ETAG]);
/* The source of a copy, opened, conditions checked. False: answered. */
CST_MUST_USE bool cst_ops_open_source(struct cst_store_request *r, struct cst_blob *blob);
/* The query parameters uploadId and partNumber. False: answered. */
struct cst_upload;
CST_MUST_USE bool cst_ops_open_upload(struct cst_store_request *r, struct cst_upload *u);
CST_MUST_USE bool cst_ops_part_number(struct cst_store_request *r, unsigned *number);

/* A staged file that is discarded at the end of the scope, unless it was committed. */
struct cst_ops_staged {
	struct cst_store_backend *b;
	struct cst_staged s;
};
void cst_ops_discard(struct cst_ops_staged *staged);
#define CST_OPS_AUTO_STAGED CST_CLEANUP(cst_ops_discard) struct cst_ops_staged
CST_MUST_USE bool cst_ops_stage(struct cst_store_request *r, struct cst_staged *s); /* false: answered */
/* A key that can't be stored is refused before its body is read. False: answered. */
CST_MUST_USE bool cst_ops_check_key(struct cst_store_request *r);
struct cst_body_sums;
void cst_ops_set_sums(struct cst_record *record, const struct cst_body_sums *sums);
