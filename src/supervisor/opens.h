/* Open files that are passed through to a backing file: which id each has. The kernel goes on reading them while the process that serves the mount is
 * replaced; an id must be given back after the last RELEASE, which may come to a later process than the OPEN.
 *
 * A record is written before the reply of the OPEN, under the request's `unique`: when the OPEN comes again because its reply was never
 * written, the new one takes the place of the old. Of handles that a process opened itself the file system counts the ids; here only those
 * of predecessors are. Any thread; one lock. */
#pragma once

#include "supervisor/state.h"

struct cst_open_record {
	uint64_t unique; /* of the OPEN, without the mark of a second sending */
	uint64_t node, fh;
	int32_t backing;
	uint32_t epoch; /* of the process that opened it */
};

struct cst_opens;
struct cst_opens *cst_opens_new(struct cst_state *state, uint32_t epoch);
void cst_opens_free(struct cst_opens *opens); /* the records stay */
/* Before the reply. Returns an inherited id that nothing uses any more, to be closed; else 0. */
int cst_opens_add(struct cst_opens *opens, uint64_t unique, uint64_t node, uint64_t fh, int backing);
/* RELEASE, or the reply was not taken. As above. */
int cst_opens_remove(struct cst_opens *opens, uint64_t fh);
uint64_t cst_opens_inherited(const struct cst_opens *opens); /* records of predecessors */
