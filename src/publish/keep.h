/* What could not be published, kept for its owner: one JSON record, and perhaps a data file, per conflict in a directory (0700).
 *
 *	ID.json   {"id", "bucket" ("oss://name"), "key", "reason", "writer", "at" (s since 1970), "base_etag", "size", "crc64", "write_id",
 *	           "upload_id", "parts": [{"number", "size", "etag", "crc64", "crc32c"}…], "tail_from" (offset of the data file's first byte),
 *	           "content_type", "meta": {…}}
 *	ID.data   the bytes that are in no part yet
 *
 * Parts are listed in their order, from the object's front on. One without an ETag has not arrived: its bytes are in the data file, at its offset less
 * tail_from; where the parts behind it lie the file has holes. Numbers of 64 bits are decimal texts. A text that is not UTF-8 is under its name with
 * "_base64" added.
 *
 * Written to a temporary name, synced, renamed, directory synced: a record that is there is whole. Any thread; these functions block. */
#pragma once

#include "object/write.h"

struct cst_keep_record {
	char *id, *bucket, *key, *reason, *writer, *base_etag, *write_id, *upload_id, *content_type;
	int64_t at;
	uint64_t size, tail_from, crc64;
	struct cst_object_part *parts;
	size_t part_count;
	struct cst_http_header *meta; /* its texts are the record's, and end with a NUL */
	size_t meta_count;
	bool has_data;
};
void cst_keep_record_fini(struct cst_keep_record *record);
/* Makes the record (its id is filled in). `tail`: bytes after the parts, NULL: none; a piece without an address is a hole. 0 or -errno with err. */
int cst_keep_write(const char *dir, struct cst_keep_record *record, const struct iovec *tail, int tail_count,
		   struct cst_error *err);
/* Calls `each` for the records of a directory, oldest first; broken ones are reported as warnings and left. A directory that is not there has
 * none. */
int cst_keep_each(const char *dir, void (*each)(void *arg, const struct cst_keep_record *record), void *arg,
		  struct cst_error *err);
int cst_keep_read(const char *dir, const char *id, struct cst_keep_record *record, struct cst_error *err);
/* The text of a record. -EBADMSG: it is none; err->why tells. */
int cst_keep_parse(struct cst_slice text, struct cst_keep_record *record, struct cst_error *err);
/* Path of the data file into `path`. */
void cst_keep_data_path(const char *dir, const char *id, struct cst_buf *path);
/* Removes record and data; aborting the upload is the caller's. */
int cst_keep_remove(const char *dir, const char *id, struct cst_error *err);
