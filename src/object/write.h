/* Writing to object storage: the operations of object.h that change a bucket.
 *
 * Same rules as there: asynchronous, callbacks once, retries inside until the deadline, cancel and release. What differs is what a
 * retry means. An operation whose answer was lost may have taken effect: the next attempt then may find its own work (409, 412, 404
 * NoSuchUpload). The outcome says so (`repeated`): the caller decides by the write id that it put into the object's metadata. A request in doubt is one
 * that was sent to its last byte and got no answer, or a 5xx that does not refuse it, or a 200 whose text is cut or says that it failed.
 *
 * Bodies are sent again from memory at each attempt. Unless the caller gives a deadline, an attempt that is under way then may take longer, the time that
 * its body needs at 8 KiB/s; a store that takes none of it for the request timeout ends the attempt earlier.
 *
 * Result codes besides those of object.h: -EEXIST (a condition IF_ABSENT failed: 409 FileAlreadyExists, 412 after If-None-Match),
 * -ESTALE (IF_MATCH failed; the source of a copy is another version), -ENOENT (NoSuchUpload, or no source), -EBADMSG (what arrived is not what
 * was sent, after retries), -ENOTSUP (this cloud has no such operation or condition), -EFBIG (over the store's size limit), -EPERM (409
 * ObjectNotAppendable), -ERANGE (409 PositionNotEqualToLength), -EROFS (FileImmutable: a retention policy), -EDQUOT (quota exceeded), -ENOSPC (the store's
 * disks are full), -E2BIG (too much metadata), -ENAMETOOLONG; -EINVAL also for metadata and ETags that no header can hold, and for empty keys.
 *
 * Integrity: OSS answers the CRC64 of what it has, which is compared; S3 is sent x-amz-checksum-crc32c, which it verifies.
 *
 * Sources: OSS API reference, PutObject, InitiateMultipartUpload, UploadPart, UploadPartCopy, CompleteMultipartUpload, AppendObject, CopyObject,
 * DeleteMultipleObjects, PutSymlink; Amazon S3 API reference, the same and conditional writes. */
#pragma once

#include "object/object.h"

enum cst_object_condition {
	CST_OBJECT_ANY,
	/* OSS: x-oss-forbid-overwrite, which buckets with versioning don't heed (they keep the old version); S3: If-None-Match: * */
	CST_OBJECT_IF_ABSENT,
	CST_OBJECT_IF_MATCH, /* S3 only: -ENOTSUP on OSS, which has no conditional PUT */
};
/* Can the store itself check IF_MATCH? */
bool cst_bucket_has_if_match(const struct cst_bucket *b);
/* Limits of the cloud, bytes: the smallest part but the last, the largest part, the largest PUT, the most that one copy takes (a whole object or the range
 * of a part); how many parts. */
struct cst_object_limits {
	uint64_t part_min, part_max, put_max, copy_max;
	unsigned parts_max;
	uint64_t append_max; /* size of an appendable object; 0: the cloud has none */
};
struct cst_object_limits cst_bucket_limits(const struct cst_bucket *b);

/* What goes along with an object; all pointers are copied. Metadata names without their x-oss-meta-/x-amz-meta- prefix, lower case. */
struct cst_object_properties {
	const struct cst_http_header *meta;
	size_t meta_count;
	struct cst_slice content_type;	/* "": application/octet-stream */
	struct cst_slice storage_class; /* "": the bucket's */
	struct cst_slice acl;		/* "": the bucket's */
	struct cst_slice
		extra; /* further header lines, "Name: value\r\n"… (x-oss-server-side-encryption and its like) */
};

/* A part of an upload; complete wants it as the outcome (or a listing) gave it. */
struct cst_object_part {
	unsigned number; /* from 1 */
	uint64_t size;
	char etag[CST_ETAG_MAX];
	uint64_t crc64;
	bool has_crc64;
	char crc32c[12]; /* S3, base64: what the store has verified; "" else */
};

/* The outcome. `info` has what the answer tells (etag, crc64; size is what was sent; mtime is the answer's Date where it has no Last-Modified: up to a
 * second off). Valid inside the callback only. */
struct cst_object_written {
	int rc;
	/* An attempt before the one that was answered may have taken effect; with no answer at last (-ETIMEDOUT, -ECANCELED, -EIO): any of them. */
	bool repeated;
	const struct cst_object_info *info; /* never NULL */
	const struct cst_object_part *part; /* of part_put and part_copy */
	struct cst_slice upload_id;	    /* of multipart_begin */
	uint64_t next_position;		    /* of append */
	const struct cst_error *err;
};
typedef void (*cst_object_written_fn)(void *arg, const struct cst_object_written *written);

/* The body stays the caller's and unchanged until the callback. crc64: of the body, if has_crc64; else it is computed (at sending) where it is needed. */
struct cst_object_body {
	const struct iovec *iov; /* copied */
	int iov_count;
	uint64_t length;
	uint64_t crc64;
	bool has_crc64;
	bool background; /* an upload behind others when the origin is rate limited */
};

struct cst_object_put {
	struct cst_slice key;
	struct cst_object_body body;
	enum cst_object_condition condition;
	const char *if_match;
	const struct cst_object_properties *properties; /* NULL: none */
	int64_t deadline;				/* cst_now(); 0: the bucket's */
};
struct cst_object_op *cst_object_put(struct cst_bucket *b, const struct cst_object_put *put, cst_object_written_fn fn,
				     void *arg);

/* ---- multipart ---- */

/* Retried freely: what a lost answer began is an upload that nobody completes. */
struct cst_object_op *cst_object_multipart_begin(struct cst_bucket *b, struct cst_slice key,
						 const struct cst_object_properties *properties,
						 cst_object_written_fn fn, void *arg);
struct cst_object_part_put {
	struct cst_slice key, upload_id;
	unsigned number;
	struct cst_object_body body;
	int64_t deadline;
};
struct cst_object_op *cst_object_part_put(struct cst_bucket *b, const struct cst_object_part_put *put,
					  cst_object_written_fn fn, void *arg);
/* A range of an object becomes a part. if_match: the version that is meant; another one is -ESTALE. */
struct cst_object_part_copy {
	struct cst_slice key, upload_id;
	unsigned number;
	struct cst_slice source; /* key in the same bucket */
	const char *if_match;	 /* NULL: whatever is there */
	uint64_t offset, length;
	int64_t deadline;
};
struct cst_object_op *cst_object_part_copy(struct cst_bucket *b, const struct cst_object_part_copy *copy,
					   cst_object_written_fn fn, void *arg);
struct cst_object_complete {
	struct cst_slice key, upload_id;
	const struct cst_object_part *parts; /* copied; ascending numbers */
	size_t part_count;
	/* Checked against the answer where it has one: of the whole object. */
	uint64_t crc64;
	bool has_crc64;
	enum cst_object_condition condition;
	const char *if_match;
	int64_t deadline;
};
struct cst_object_op *cst_object_multipart_complete(struct cst_bucket *b, const struct cst_object_complete *complete,
						    cst_object_written_fn fn, void *arg);
/* An upload that is not there is no error. */
struct cst_object_op *cst_object_multipart_abort(struct cst_bucket *b, struct cst_slice key, struct cst_slice upload_id,
						 cst_object_written_fn fn, void *arg);
/* What has arrived of an upload, one page: parts in ascending order, in `part`; then done. A page is handed out when it has come whole, never
 * twice. */
struct cst_object_parts_ops {
	void (*part)(void *arg, const struct cst_object_part *part);
	/* next: the number to go on after; 0: that was all. */
	void (*done)(void *arg, int rc, unsigned next, const struct cst_error *err);
};
struct cst_object_op *cst_object_list_parts(struct cst_bucket *b, struct cst_slice key, struct cst_slice upload_id,
					    unsigned after, const struct cst_object_parts_ops *ops, void *arg);
/* Uploads that were begun below a prefix and neither completed nor aborted, one page. */
struct cst_object_uploads_ops {
	void (*upload)(void *arg, struct cst_slice key, struct cst_slice upload_id,
		       int64_t initiated /* s since 1970 */);
	void (*done)(void *arg, int rc, struct cst_slice next_key, struct cst_slice next_upload,
		     const struct cst_error *err); /* next_key "": all */
};
struct cst_object_op *cst_object_list_uploads(struct cst_bucket *b, struct cst_slice prefix, struct cst_slice after_key,
					      struct cst_slice after_upload, const struct cst_object_uploads_ops *ops,
					      void *arg);

/* ---- others ---- */

/* OSS: the object is made appendable by the first append at position 0. -ERANGE: it is not that long; next_position tells how long it is, info.crc64
 * what it has. A repeated attempt whose first one took effect ends so, too, unless length and CRC64 prove that (crc64_before is known): that is a success. */
struct cst_object_append {
	struct cst_slice key;
	uint64_t position;
	struct cst_object_body body;
	const struct cst_object_properties *properties; /* at position 0 */
	uint64_t crc64_before;				/* of what is there, to check the answer */
	bool has_crc64_before;
	int64_t deadline;
};
struct cst_object_op *cst_object_append(struct cst_bucket *b, const struct cst_object_append *append,
					cst_object_written_fn fn, void *arg);

/* Up to copy_max bytes in one request; larger ones by parts. Without properties the source's go along, else they are replaced. Conditions of the target:
 * stores that are only compatible with S3 may not know them here and overwrite. */
struct cst_object_copy {
	struct cst_slice source, key;
	const char *source_if_match;
	enum cst_object_condition condition;
	const char *if_match;
	const struct cst_object_properties *properties; /* NULL: as the source's */
	int64_t deadline;
};
struct cst_object_op *cst_object_copy(struct cst_bucket *b, const struct cst_object_copy *copy,
				      cst_object_written_fn fn, void *arg);

/* A key that is not there is no error, as in the stores. if_match (S3 only, else -ENOTSUP): only this version; stores that are only compatible may not
 * know it. */
struct cst_object_op *cst_object_delete(struct cst_bucket *b, struct cst_slice key, const char *if_match,
					cst_object_written_fn fn, void *arg);
/* Up to 1000 keys, copied. `failed` comes for each that could not be deleted, before done. done, rc < 0: the request as a whole failed, and nothing is
 * known of the keys for which `failed` has not come. Keys that XML can't hold are deleted one by one. */
struct cst_object_delete_ops {
	void (*failed)(void *arg, struct cst_slice key, int rc, const struct cst_error *err);
	void (*done)(void *arg, int rc, const struct cst_error *err);
};
#define CST_OBJECT_DELETE_MAX 1000
struct cst_object_op *cst_object_delete_many(struct cst_bucket *b, const struct cst_slice *keys, size_t count,
					     const struct cst_object_delete_ops *ops, void *arg);

/* OSS: an object that points to another. -ENOTSUP on S3. */
struct cst_object_op *cst_object_put_symlink(struct cst_bucket *b, struct cst_slice key, struct cst_slice target,
					     const struct cst_object_properties *properties,
					     enum cst_object_condition condition, cst_object_written_fn fn, void *arg);
