/* What the store remembers of an object beside its bytes: ETag, CRC64, headers, type, storage class. It lies in the
 * extended attribute user.cistern of the object's file, or, when the file system has none or they don't fit, in
 * DIR/.cistern/records/INODE. Any thread; a record belongs to one.
 *
 * A record says which size and modification time it was made for. When somebody changed the file behind the store's
 * back they differ: ETag, CRC64, type and restoration are dropped then, the headers stay. */
#pragma once

#include "base/buf.h"

#include <sys/stat.h>

#define CST_RECORD_XATTR "user.cistern"
#define CST_RECORD_ETAG 72
#define CST_RECORD_CHECKSUM 96

enum cst_record_type { CST_RECORD_NORMAL, CST_RECORD_MULTIPART, CST_RECORD_APPENDABLE, CST_RECORD_SYMLINK };
enum cst_record_class {
	CST_CLASS_STANDARD,
	CST_CLASS_IA,
	CST_CLASS_ARCHIVE,
	CST_CLASS_COLD_ARCHIVE,
	CST_CLASS_DEEP_COLD_ARCHIVE,
	CST_CLASS_ONEZONE_IA,
	CST_CLASS_INTELLIGENT,
	CST_CLASS_GLACIER_IR,
	CST_CLASS_REDUCED,
	CST_CLASS_COUNT,
};

struct cst_record {
	uint64_t size;
	int64_t mtime, mtime_before; /* ns; `before`: a change of the time was under way */
	enum cst_record_type type;
	enum cst_record_class class;
	char etag[CST_RECORD_ETAG]; /* lower case, without quotes; "": none stored */
	bool has_crc64;
	uint64_t crc64;
	int64_t restored_until;		    /* s; 0: not restored */
	char checksum[CST_RECORD_CHECKSUM]; /* "crc32c:BASE64" as the client gave it, or "" */
	struct cst_buf headers; /* lines "name:value\n": content-type, …, and meta-NAME for user metadata */
	struct cst_buf target;	/* SYMLINK: the key it points to, decoded */
};
#define CST_RECORD_INIT \
	{               \
		0       \
	}
void cst_record_fini(struct cst_record *r);
#define CST_AUTO_RECORD CST_CLEANUP(cst_record_fini) struct cst_record

void cst_record_encode(const struct cst_record *r, struct cst_buf *out);
/* 0 or -EBADMSG; unknown fields are passed over. */
int cst_record_decode(struct cst_slice data, struct cst_record *r);

/* Where records go that don't fit their file. */
struct cst_record_store {
	int dir;     /* DIR/.cistern/records */
	bool in_use; /* there may be some (never reset); atomic */
};
/* Stores the record for the file as it is now (size and times are taken from `st`). Durable with the file's next fsync. */
int cst_record_store(struct cst_record_store *s, int fd, struct cst_record *r, const struct stat *st);
/* Loads what is remembered, or makes it up: a file that has no record is a Normal, Standard object with an ETag
 * derived from size, time and inode (32 hex digits and "-1": not to be taken for an MD5). */
int cst_record_load(struct cst_record_store *s, int fd, const struct stat *st, struct cst_record *r);
/* What was stored, whether it fits the file or not. -ENODATA: nothing; -EBADMSG. */
int cst_record_peek(struct cst_record_store *s, int fd, const struct stat *st, struct cst_record *r);
/* That of a file without a record, or of one that can't be opened. */
void cst_record_guess(const struct stat *st, struct cst_record *r);
/* The inode goes: forget its record. To be called while something still holds the inode, whose number could otherwise
 * be another file's already. */
void cst_record_forget(struct cst_record_store *s, ino_t ino);

/* The value of a header line, data NULL when absent. */
struct cst_slice cst_record_header(const struct cst_record *r, const char *name);
/* Walks the header lines: true with name and value, false at the end. *pos starts at 0. */
bool cst_record_each_header(const struct cst_record *r, size_t *pos, struct cst_slice *name, struct cst_slice *value);
static inline int64_t cst_record_time(const struct timespec *ts)
{
	return (int64_t)ts->tv_sec * 1000000000 + ts->tv_nsec;
}
