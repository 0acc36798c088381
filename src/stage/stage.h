/* The staging area: objects that are being changed, on a local disk. One directory for each mount, of mode 0700, whose owner holds a lock on it.
 *
 *	lock, format, journal.0, journal.1	journal.h
 *	d00000001, …				staging files: the bytes of a file at their offsets, sparse
 *
 * A staged file has an image (image.h): which of its bytes are local, which are zeros, which are still those of its base version in the store. A write
 * into a range that isn't here fetches nothing. Reads tell which ranges the caller has to read from the base.
 *
 * Publication. seal() fixes the content: what the publisher reads with read_sealed() stays as it is while writes go on. Nothing is copied for that: a write
 * that would overwrite sealed bytes goes to the second staging file instead, at the same offset, and back to the first one when those of the second are
 * sealed. published() makes what has not changed since clean, with the new version as its base; unpublished() leaves it dirty. One publication
 * of a file at a time. cst_stage_plan() (plan.h) says which parts are uploaded and which are copied from the base.
 *
 * Durability. sync() returns 0 when all that came before it survives a power cut: data synced, then the journal's record. A sync of data that fails is final
 * for the file (the kernel may have dropped the pages), one of the journal for all: then nothing
 * is written any more either. Operations on names (rename, unlink, …) are journalled by op_begin()
 * before they start and op_done() after; what a restart finds undone is the caller's to finish. Until its first sync, seal or conflict a
 * file is not in the journal, and costs no sync.
 *
 * Room. A write is accepted when its blocks are reserved in the file system, within the quota and the room that is to stay free, and when its records will
 * fit into the journal; else -ENOSPC, and nothing has changed. What was accepted needs no more room to be synced, sealed or published.
 *
 * Any thread; functions that touch the disk block (read, write, sync, seal, published, forget, all of op_*): not for event loops. Of one file
 * reads run at once, writes one at a time, syncs of all files join. */
#pragma once

#include "stage/journal.h"

struct cst_stage;
struct cst_stage_file;

struct cst_stage_config {
	const char *path;      /* made when it isn't there */
	const char *owner;     /* what it is for: "oss://bucket/prefix"; a directory of another owner is refused */
	uint64_t quota;	       /* bytes of staging files and journal; 0: no limit */
	uint64_t keep_free;    /* bytes of the file system that stay free */
	uint64_t journal_size; /* bytes of each journal file at first; 0: 4 MiB */
	/* For tests: another disk, and its directory instead of a path. */
	const struct cst_stage_io *io;
	int dir;
};
/* -EBUSY: in use, or another owner's; -EBADMSG: damaged: nothing was changed and err says what to do; -EPERM: somebody else's directory. */
int cst_stage_open(const struct cst_stage_config *config, struct cst_stage **stage, struct cst_error *err);
/* What isn't forgotten is there again at the next open(), if it was synced. No call may be under way. */
void cst_stage_close(struct cst_stage *s);

/* ---- what a restart finds ---- */

struct cst_stage_info {
	uint64_t id;
	struct cst_slice key;
	struct cst_stage_base base;
	uint64_t size, dirty; /* bytes */
	bool changed;	      /* something is to be published */
	struct cst_slice attributes;
	bool sealed; /* a publication was begun and its end is not known: decide by the write id */
	uint64_t sealed_size;
	struct cst_slice write_id, upload_id; /* "": none */
	bool in_conflict;
	struct cst_slice conflict; /* its reason */
	int failed;		   /* 0, or why it takes nothing more */
};
/* Files in the order they were made; the texts are valid inside the callback, which may not call the stage. */
void cst_stage_each(struct cst_stage *s,
		    void (*each)(void *arg, struct cst_stage_file *f, const struct cst_stage_info *info), void *arg);
void cst_stage_file_info(struct cst_stage_file *f, void (*info)(void *arg, const struct cst_stage_info *info),
			 void *arg);

struct cst_stage_op {
	uint64_t id;
	enum cst_record_kind kind; /* CST_RECORD_RENAME … CST_RECORD_SET_ATTRIBUTES */
	uint32_t phase;		   /* the caller's */
	struct cst_slice path, to, data;
};
/* Operations that are not done, in the order they were begun; as above. */
void cst_stage_each_op(struct cst_stage *s, void (*each)(void *arg, const struct cst_stage_op *op), void *arg);

/* ---- operations on names ---- */

/* On the disk when it returns 0; op->id is filled in (0 before: a new one; else the same operation, in another phase or with other data). */
int cst_stage_op_begin(struct cst_stage *s, struct cst_stage_op *op);
/* Not synced: a restart may find the operation undone, and does it again. */
int cst_stage_op_done(struct cst_stage *s, uint64_t id);

/* ---- files ---- */

/* A file with this base; `keep`: its content is the base's, else empty. Nothing is journalled yet. -ENOSPC. The caller keeps two of one key apart. */
int cst_stage_file_new(struct cst_stage *s, struct cst_slice key, const struct cst_stage_base *base, bool keep,
		       struct cst_stage_file **f);
/* The file and all that is staged of it go; -EBUSY while sealed. f is gone, whatever is returned but -EBUSY. */
int cst_stage_file_forget(struct cst_stage_file *f);
/* Closes its descriptors until it is used again. */
void cst_stage_file_rest(struct cst_stage_file *f);
uint64_t cst_stage_file_id(const struct cst_stage_file *f);
uint64_t cst_stage_file_size(struct cst_stage_file *f);
int cst_stage_file_failed(struct cst_stage_file *f);

/* All or nothing: 0, -ENOSPC, -EFBIG, -EIO, or what the file has failed with. */
int cst_stage_write(struct cst_stage_file *f, uint64_t offset, const void *data, size_t len);
int cst_stage_truncate(struct cst_stage_file *f, uint64_t size);
/* The range becomes zeros; the size stays. */
int cst_stage_punch(struct cst_stage_file *f, uint64_t offset, uint64_t len);
/* Bytes of the base version, to keep them here: taken only where nothing is local yet and `base` is still the file's. */
int cst_stage_fill(struct cst_stage_file *f, const struct cst_stage_base *base, uint64_t offset, const void *data,
		   size_t len);
/* Gives up what the store has, too. Nothing while sealed. */
void cst_stage_drop_clean(struct cst_stage_file *f);
/* What belongs to the file besides its content, in the caller's format; at most CST_RECORD_DATA bytes. */
int cst_stage_set_attributes(struct cst_stage_file *f, struct cst_slice attributes);
/* It has another key now, and `base` there: where bytes of the base are in use it must have the same. -EBUSY while sealed. */
int cst_stage_move(struct cst_stage_file *f, struct cst_slice key, const struct cst_stage_base *base);

/* A range that the caller has to read from the version `base`, at the same offset, into the same place of its buffer. */
struct cst_stage_gap {
	uint64_t offset, length;
};
struct cst_stage_gaps {
	struct cst_stage_gap *gaps; /* the caller's; room for `room` */
	unsigned room, count;
	struct cst_stage_base base;
};
/* Bytes of [offset, offset + len) that the file has: less at its end, or where the gaps' room does not suffice; 0 behind the end. What is local is in
 * `data` then, the gaps are told. -errno. */
ssize_t cst_stage_read(struct cst_stage_file *f, uint64_t offset, void *data, size_t len, struct cst_stage_gaps *gaps);
/* The same of what is sealed; -EINVAL: nothing is. */
ssize_t cst_stage_read_sealed(struct cst_stage_file *f, uint64_t offset, void *data, size_t len,
			      struct cst_stage_gaps *gaps);

/* What has been written, truncated, … before this call survives. */
int cst_stage_sync(struct cst_stage_file *f);

/* Content and size are fixed for a publication under this write id (1 to 255 bytes). `durable`: journalled, so that a restart finds the publication
 * and its bytes; else only a file that is in the journal already is. -EBUSY: it is sealed; -EBADF: in conflict. */
int cst_stage_seal(struct cst_stage_file *f, struct cst_slice write_id, bool durable);
/* The upload of the publication; journalled, not synced. */
int cst_stage_set_upload(struct cst_stage_file *f, struct cst_slice upload_id);
/* The sealed content's map and size; the callback may not call the stage. -EINVAL: nothing is sealed. */
int cst_stage_sealed(struct cst_stage_file *f,
		     void (*sealed)(void *arg, const struct cst_extents *map, uint64_t size,
				    const struct cst_stage_base *base),
		     void *arg);
/* The store has it, as `version` (its size is the sealed one). On the disk when it returns 0; else the file stays sealed. */
int cst_stage_published(struct cst_stage_file *f, const struct cst_stage_base *version);
/* It is not there: what was sealed is dirty still. */
int cst_stage_unpublished(struct cst_stage_file *f);
/* The store has another version than the base: what is here is kept for its owner, synced, and takes no more writes. Ends a publication. */
int cst_stage_conflict(struct cst_stage_file *f, struct cst_slice reason);

struct cst_stage_stats {
	uint64_t files, ops;
	uint64_t used, quota;	   /* bytes reserved of staging files, and the journal's */
	uint64_t syncs, datasyncs; /* of files that were asked for; those of the disk they took */
	uint64_t writes, bytes_written, no_space;
	struct cst_journal_stats journal;
};
void cst_stage_stats(struct cst_stage *s, struct cst_stage_stats *stats);

/* Prints the journal of a directory that nobody has open, damaged or not, and changes nothing. */
int cst_stage_print(const char *path, void (*line)(void *arg, const char *text), void *arg, struct cst_error *err);
