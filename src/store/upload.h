/* Multipart uploads on disk: DIR/.cistern/uploads/BUCKET/ID/ holds `upload` (the key and the record that the object
 * shall have) and one file a part, named by its number in five digits, with a record of its own (MD5, CRC64, size). An
 * upload exists when its `upload` does. Part files come by rename, and completing copies them (sharing extents where
 * the file system can) into a staged file, so nothing half-done is ever seen. Any thread; completing and aborting take
 * a stripe by the upload's id. */
#pragma once

#include "store/backend.h"

#define CST_UPLOAD_ID_LEN 32
#define CST_UPLOAD_PARTS_MAX 10000

struct cst_upload {
	int dir;
	char id[CST_UPLOAD_ID_LEN + 1];
	struct cst_buf key;
	int64_t started; /* s */
	struct cst_record record;
};
#define CST_UPLOAD_INIT   \
	{                 \
		.dir = -1 \
	}
void cst_upload_close(struct cst_upload *u);
#define CST_AUTO_UPLOAD CST_CLEANUP(cst_upload_close) struct cst_upload

/* Makes one; the record's headers, class and type are kept for the object. id gets the new name. */
int cst_upload_begin(struct cst_store_backend *b, const char *bucket, struct cst_slice key,
		     const struct cst_record *record, char id[CST_UPLOAD_ID_LEN + 1]);
/* -ENOENT when there is none of that id for that key (key.data NULL: any key). */
int cst_upload_open(struct cst_store_backend *b, const char *bucket, struct cst_slice id, struct cst_slice key,
		    struct cst_upload *u);
/* Puts a sealed file in as that part, in place of an earlier one. -ENOENT when the upload has ended meanwhile. */
int cst_upload_add_part(struct cst_store_backend *b, struct cst_upload *u, unsigned number, struct cst_staged *s);
struct cst_upload_part {
	unsigned number;
	uint64_t size;
	int64_t mtime; /* s */
	char etag[CST_RECORD_ETAG];
	bool has_crc64;
	uint64_t crc64;
	char checksum[CST_RECORD_CHECKSUM];
};
/* All parts in order of their numbers; the caller frees *parts. */
int cst_upload_parts(struct cst_store_backend *b, struct cst_upload *u, struct cst_upload_part **parts, size_t *count);
/* Copies the parts one after another into the staged file. */
int cst_upload_join(struct cst_store_backend *b, struct cst_upload *u, const struct cst_upload_part *parts,
		    size_t count, struct cst_staged *s);
/* Ends it: its files go. 0 or -ENOENT. */
int cst_upload_end(struct cst_store_backend *b, const char *bucket, struct cst_upload *u);
/* Held around completing, so that two completions or an abort don't meet. */
pthread_rwlock_t *cst_upload_stripe(struct cst_store_backend *b, const struct cst_upload *u);

struct cst_upload_info {
	char *key;
	size_t key_len;
	char id[CST_UPLOAD_ID_LEN + 1];
	int64_t started;
	enum cst_record_class class;
};
/* All uploads of a bucket by key, then id; the caller frees with cst_upload_list_free(). */
int cst_upload_list(struct cst_store_backend *b, const char *bucket, struct cst_upload_info **uploads, size_t *count);
void cst_upload_list_free(struct cst_upload_info *uploads, size_t count);
