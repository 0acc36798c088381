/* Objects on disk: buckets are the folders of DIR, objects the files in them (keypath.h), what is remembered of them
 * beside their bytes is a record (record.h). No HTTP here.
 *
 *	DIR/BUCKET/…			objects
 *	DIR/.cistern/lock		held by the one store that serves DIR
 *	DIR/.cistern/tmp/		bodies being received; emptied at start
 *	DIR/.cistern/uploads/BUCKET/ID/	multipart uploads (upload.h)
 *	DIR/.cistern/appends/		what an append was about to do; replayed at start
 *	DIR/.cistern/records/		records that don't fit the file's extended attributes
 *
 * Writing: a body goes to a staged file, which is synced, given its record and renamed over the key's path; then the
 * directory is synced. So a key always has all of one version, and what was answered survives a crash.
 *
 * Locks, outermost first: the stripe of an upload (while it is completed or aborted), then the stripe of a key (shared: to open it with a matching record; exclusive: from checking
 * conditions to the commit), then `tree` (shared: making directories and renaming into them; exclusive: turning a file
 * "a" into the directory a/ with a/.%f). One thread holds at most one stripe of each sort. Any thread may call anything. */
#pragma once

#include "base/error.h"
#include "store/keypath.h"
#include "store/record.h"
#include "store/scan.h"

#include <pthread.h>

#define CST_BACKEND_MAGIC 0x53544247u
#define CST_BACKEND_STRIPES 1024
#define CST_BACKEND_UPLOAD_STRIPES 64
#define CST_BUCKET_NAME_MAX 64

struct cst_keys;

struct cst_store_backend {
	unsigned magic;
	int dir, sys, tmp, uploads, appends, lock;
	struct cst_record_store records;
	struct cst_scan_cache *scans;
	struct cst_keys *keys;
	uint64_t serial; /* atomic: names of staged files */
	uint64_t nonce;
	bool no_exchange; /* atomic: the file system can't exchange two names, or can't link */
	pthread_rwlock_t tree;
	pthread_rwlock_t stripes[CST_BACKEND_STRIPES];
	pthread_rwlock_t uploads_stripes[CST_BACKEND_UPLOAD_STRIPES];
};

int cst_backend_new(const char *dir, struct cst_store_backend **backend, struct cst_error *err);
void cst_backend_free(struct cst_store_backend *b);

/* ---- buckets ---- */
/* 3 to 63 of a-z 0-9 - . with a letter or digit at both ends. */
bool cst_backend_is_bucket_name(struct cst_slice name);
int cst_backend_bucket(struct cst_store_backend *b, struct cst_slice name);   /* descriptor, or -ENOENT */
int cst_backend_make_bucket(struct cst_store_backend *b, const char *name);   /* 0, -EEXIST, -errno */
int cst_backend_remove_bucket(struct cst_store_backend *b, const char *name); /* 0, -ENOENT, -ENOTEMPTY, -errno */

/* ---- keys ---- */
pthread_rwlock_t *cst_backend_stripe(struct cst_store_backend *b, struct cst_slice key);

/* An object opened for reading. */
struct cst_blob {
	int fd;
	struct stat st;
	struct cst_record record;
};
#define CST_BLOB_INIT    \
	{                \
		.fd = -1 \
	}
void cst_blob_close(struct cst_blob *blob);
#define CST_AUTO_BLOB CST_CLEANUP(cst_blob_close) struct cst_blob
/* 0, -ENOENT, -EINVAL and -ENAMETOOLONG (the key), -errno. Takes the stripe, or not when the caller has it. */
int cst_blob_open(struct cst_store_backend *b, int bucket, struct cst_slice key, struct cst_blob *blob);
int cst_blob_open_locked(struct cst_store_backend *b, int bucket, struct cst_slice key, struct cst_blob *blob);
/* The file at a path that a listing gave, with its record. */
int cst_blob_open_path(struct cst_store_backend *b, int bucket, const char *path, struct cst_blob *blob);

/* The same of a file that can't be read: what its inode tells. */
int cst_blob_look(int bucket, const char *path, struct cst_blob *blob);

struct cst_staged {
	int fd;
	char name[48];
};
#define CST_STAGED_INIT  \
	{                \
		.fd = -1 \
	}
int cst_staged_new(struct cst_store_backend *b, struct cst_staged *s);
void cst_staged_discard(struct cst_store_backend *b, struct cst_staged *s);
/* Gives the staged file its record and syncs it: the slow part, to be done before the stripe is taken. */
int cst_staged_seal(struct cst_store_backend *b, struct cst_staged *s, struct cst_record *record);
/* Copies bytes between files within the kernel (sharing extents where the file system can). Appends at the target's
 * position. -EIO when the source is too short. */
int cst_backend_copy_range(int from, uint64_t offset, uint64_t len, int to);

/* When a file is about to go: holds its inode (-1 when there is no record beside any file), so that its number can't be
 * another file's before the record is forgotten, which is the second step. */
int cst_backend_hold(struct cst_store_backend *b, int dir, const char *name);
void cst_backend_forget(struct cst_store_backend *b, int held);

/* Each wants the key's stripe held exclusively. -ESTALE: the bucket has been removed meanwhile. */
int cst_blob_commit_locked(struct cst_store_backend *b, int bucket, struct cst_slice key, struct cst_staged *s);
int cst_blob_delete_locked(struct cst_store_backend *b, int bucket, struct cst_slice key); /* -ENOENT */
/* Adds the staged bytes to an appendable object; `record` is what it shall have then. All or nothing, also in a crash. */
int cst_blob_append_locked(struct cst_store_backend *b, int bucket, const char *bucket_name, struct cst_slice key,
			   struct cst_staged *s, struct cst_record *record);
/* Changes the record, not the bytes; with `touch` the modification time becomes now. */
int cst_blob_rewrite_locked(struct cst_store_backend *b, struct cst_blob *blob, struct cst_record *record, bool touch);
