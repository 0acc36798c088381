/* What a journal's records amount to: the files that are staged with their images, the publications under way, the operations that are not done. A
 * record is applied when it is appended and again when it is replayed, by the same function; a checkpoint is the records that make this state out of
 * none. So what a restart finds is what is here.
 *
 * Guarded by the journal's lock. */
#pragma once

#include "stage/record.h"

#include <sys/queue.h>

struct cst_state_file {
	uint64_t id;
	struct cst_state_file *hash_next;
	TAILQ_ENTRY(cst_state_file) link;
	struct cst_buf key, attributes, write_id, upload_id, conflict;
	uint32_t slots[2];
	struct cst_stage_image image; /* holds no clean extents */
	bool in_conflict;
	uint64_t record_bytes; /* of its records in a checkpoint, extents counted whole */
};
struct cst_state_op {
	uint64_t id;
	enum cst_record_kind kind;
	uint32_t phase;
	struct cst_buf path, to, data;
	TAILQ_ENTRY(cst_state_op) link;
};
TAILQ_HEAD(cst_state_files, cst_state_file);
TAILQ_HEAD(cst_state_ops, cst_state_op);
struct cst_state {
	struct cst_state_files files;
	struct cst_state_ops ops;
	struct cst_state_file **table;
	size_t table_size, file_count;
	uint64_t next_id;
	uint64_t bytes; /* at most, of a checkpoint's records */
	struct cst_buf owner;
};
void cst_state_init(struct cst_state *state);
void cst_state_fini(struct cst_state *state);
struct cst_state_file *cst_state_find(const struct cst_state *state, uint64_t id);
struct cst_state_op *cst_state_find_op(const struct cst_state *state, uint64_t id);
bool cst_state_is_op(enum cst_record_kind kind);
/* -EBADMSG: the record makes no sense here, nothing was changed. */
int cst_state_apply(struct cst_state *state, const struct cst_record *r);
/* The records that make a file; clean extents of its image are left out. */
void cst_state_emit_file(const struct cst_state_file *f, void (*each)(void *arg, const struct cst_record *r),
			 void *arg);
/* The records of a checkpoint, the header and the end left out. */
void cst_state_each(const struct cst_state *state, void (*each)(void *arg, const struct cst_record *r), void *arg);
