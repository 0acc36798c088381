/* What `cistern conflicts` does in the store: publishing a kept file, aborting its upload. The functions block; they run on the command's
 * main thread. */
#pragma once

#include "cli/access.h"
#include "publish/keep.h"

struct cst_conflict_push {
	const char *dir; /* of the record */
	const struct cst_keep_record *record;
	const char *as;		/* another key; NULL: the record's, over what is there */
	const char *current_as; /* where the version that is there goes first; NULL: nowhere */
};
/* *size: what was published. -EEXIST: a key that must not be there is; -ESTALE: the version that was copied is not the one there any more. */
int cst_conflict_push(struct cst_bucket *bucket, const struct cst_conflict_push *push, uint64_t *size,
		      struct cst_error *err);
/* Nothing to do without one. */
int cst_conflict_abort(struct cst_bucket *bucket, const struct cst_keep_record *record, struct cst_error *err);
/* Bytes that lie in parts of the upload, where they can be published from and nothing else. */
uint64_t cst_conflict_in_store(const struct cst_keep_record *record);
/* The data file: from tail_from to the end, with holes where arrived parts are; data NULL: none. */
struct cst_conflict_data {
	void *data;
	size_t size;
};
int cst_conflict_map(const char *dir, const struct cst_keep_record *record, struct cst_conflict_data *data,
		     struct cst_error *err);
void cst_conflict_unmap(struct cst_conflict_data *data);
