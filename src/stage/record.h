/* Records of the staging area's journal, as bytes. Little endian:
 *
 *	 0  4  CRC32C of the bytes from 4 to the record's length
 *	 4  4  tag of the file: a random number of each epoch, so that nothing older in the file is taken for new
 *	 8  4  length in bytes without the padding       12  2  kind       14  2  1: the next record belongs to it: both count, or neither; else 0
 *	16  8  number of the record in its file, from 0
 *	24  8  how many records of the file were known to be on the disk when this one was made
 *	32     the fields of its kind, in the order of struct cst_record; then zeros up to a multiple of 32
 *
 * A text has its length before it (2 bytes; 4 before `data`), extents their number (4 bytes), then start (8), length (8) and kind (1) of each.
 *
 * Any thread; makes no system call. */
#pragma once

#include "base/buf.h"
#include "stage/image.h"

#define CST_RECORD_HEAD 32u
#define CST_RECORD_ALIGN 32u
#define CST_RECORD_MAX (64u << 10)
#define CST_RECORD_EXTENTS_MAX 2048u /* in one record */
#define CST_RECORD_EXTENT 17u	     /* bytes */
#define CST_RECORD_TEXT 4096u	     /* longest key, path, write id, upload id */
#define CST_RECORD_DATA 49152u	     /* longest `data` */

/* What each kind carries. The names are what cst_journal_print() says. */
#define CST_RECORDS(X)                                                    \
	X(HEADER, "header", ID | SIZE | NEXT | PHASE | DATA)              \
	X(CHECKPOINT, "checkpoint", 0)                                    \
	X(CONTINUED, "continued", ID)                                     \
	X(CREATE, "create", ID | SIZE | SLOTS | BASE | KEY)               \
	X(EXTENTS, "write", ID | SLOTS | EXTENTS)                         \
	X(TRUNCATE, "truncate", ID | SIZE)                                \
	X(ATTRIBUTES, "attributes", ID | DATA)                            \
	X(MOVE, "move", ID | BASE | KEY)                                  \
	X(PUBLISH_BEGIN, "publish-begin", ID | KEY | TO)                  \
	X(PUBLISH_DONE, "publish-done", ID | BASE)                        \
	X(PUBLISH_FAILED, "publish-failed", ID)                           \
	X(CONFLICT, "conflict", ID | DATA)                                \
	X(FORGET, "forget", ID)                                           \
	X(RENAME, "rename", ID | PHASE | KEY | TO | DATA)                 \
	X(UNLINK, "unlink", ID | PHASE | KEY | TO | DATA)                 \
	X(MKDIR, "mkdir", ID | PHASE | KEY | TO | DATA)                   \
	X(RMDIR, "rmdir", ID | PHASE | KEY | TO | DATA)                   \
	X(SYMLINK, "symlink", ID | PHASE | KEY | TO | DATA)               \
	X(SET_ATTRIBUTES, "set-attributes", ID | PHASE | KEY | TO | DATA) \
	X(OP_DONE, "done", ID)
enum cst_record_kind {
#define X(name, text, fields) CST_RECORD_##name,
	CST_RECORDS(X)
#undef X
		CST_RECORD_KINDS
};

struct cst_record {
	enum cst_record_kind kind;
	bool more;		    /* the next one belongs to it */
	uint64_t id;		    /* of a file or an operation; the epoch of a header */
	uint64_t size;		    /* of a file; header: records of the checkpoint */
	uint64_t next;		    /* header: the first id that was never given */
	uint32_t phase;		    /* of an operation; header: the format */
	uint32_t slots[2];	    /* staging files, 0: none */
	struct cst_stage_base base; /* 1 byte exists, 8 size, text ETag */
	struct cst_slice key;	    /* key; path; publish-begin: write id */
	struct cst_slice to;	    /* second path, target; publish-begin: upload id */
	struct cst_slice data;	    /* attributes; reason; header: whose journal it is */
	const struct cst_extent *extents;
	size_t extent_count;
};
const char *cst_record_name(enum cst_record_kind kind);
/* Whether texts, data and extents fit: -EINVAL, else 0. */
int cst_record_check(const struct cst_record *r);
/* Bytes it takes, padding included. */
size_t cst_record_size(const struct cst_record *r);
void cst_record_encode(const struct cst_record *r, uint32_t tag, uint64_t number, uint64_t synced, struct cst_buf *out);

/* What stands at the head of `len` bytes. Texts point into them; `extents` has room for CST_RECORD_EXTENTS_MAX. 0, or -EBADMSG: no whole record
 * with this tag (NULL: with whichever; for headers). */
struct cst_record_place {
	uint64_t number, synced;
	uint32_t tag;
	size_t size; /* with padding */
};
int cst_record_decode(const void *bytes, size_t len, const uint32_t *tag, struct cst_record *r,
		      struct cst_extent extents[CST_RECORD_EXTENTS_MAX], struct cst_record_place *place);
