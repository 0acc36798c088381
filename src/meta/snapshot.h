/* Listings saved in a file, so that a mount that is made anew knows them at once.
 *
 * The file is a sequence of blocks, each with its length and CRC32C: what it is of, directories with their names in order, and an end that counts
 * them. It is read as a whole, and what is not exactly as it was written is not used at all. It is written under another name, synced and renamed.
 * Only whole listings are saved that nothing has contradicted. Saving takes a directory's lock for some thousand names at a time; loading belongs before
 * the first use. Any thread. */
#pragma once

#include "meta/meta.h"

struct cst_snapshot {
	const char *path;
	struct cst_slice identity; /* what the listings are of: a snapshot of anything else is not used */
	int64_t max_age; /* ns since the store was asked that a listing answers at most; no longer than list_ttl unless it is more than that */
};
struct cst_snapshot_counts {
	uint64_t directories, names, bytes;
	uint64_t old; /* directories that were too old */
};
/* -ENOENT: there is none; -EBADMSG with err: it is damaged, or not of this kind; -ESTALE with err: it is of something else. */
int cst_snapshot_load(struct cst_meta *meta, const struct cst_snapshot *s, struct cst_snapshot_counts *counts,
		      struct cst_error *err);
/* The directory of the file is made if it is missing (not those above it). */
int cst_snapshot_save(struct cst_meta *meta, const struct cst_snapshot *s, struct cst_snapshot_counts *counts,
		      struct cst_error *err);
/* It is not to be used once more, whatever happens. */
void cst_snapshot_remove(const struct cst_snapshot *s);
/* As load, of a file's bytes. meta NULL: only looks whether they are a snapshot. */
int cst_snapshot_read(struct cst_meta *meta, const struct cst_snapshot *s, struct cst_slice file,
		      struct cst_snapshot_counts *counts, struct cst_error *err);

struct cst_dir;
/* Its listing comes from a snapshot and is older than list_ttl may be, and nobody has been told so yet. */
bool cst_dir_take_unchecked(struct cst_dir *dir);
/* It can't be listed anew now: such a listing answers for list_ttl alone, as any other. */
void cst_dir_end_unchecked(struct cst_dir *dir);
