/* What became of requests that may not be done twice (create, mkdir, unlink, rename, setattr, a publication), from before their reply is
 * written until it has been. A process that is killed between the two leaves the outcome; the kernel sends the request again to the
 * next one, which answers from here.
 *
 *     cst_outcome_log(BEGUN)  →  do it  →  cst_outcome_log()  →  write the reply  →  cst_outcome_done()
 *     it comes again: cst_outcome_find() says what to answer; when it was begun alone it is done again, and who does it must be able to tell
 *     from the store whether it was done before (a write id, a name that has gone).
 *
 * `unique` is the kernel's number of the request, without bit 63, which marks a second sending; it is never used again on a connection.
 * Any thread; one lock, held for a few instructions. */
#pragma once

#include "supervisor/state.h"

#define CST_OUTCOME_MAX 2048u /* bytes of an answer */
#define CST_OUTCOME_BEGUN 1   /* as rc: it was begun, and nobody knows how far it came */

struct cst_outcomes;
struct cst_outcomes *cst_outcomes_new(struct cst_state *state);
void cst_outcomes_free(struct cst_outcomes *outcomes); /* what is logged stays */

/* The request is done: rc (0 or -errno) and the bytes of its answer. It takes the place of what was logged before. */
void cst_outcome_log(struct cst_outcomes *outcomes, uint64_t unique, int rc, const void *answer, size_t len);
/* True: *rc, and the answer in `answer` (CST_OUTCOME_MAX bytes), *len of them. */
bool cst_outcome_find(struct cst_outcomes *outcomes, uint64_t unique, int *rc, void *answer, size_t *len);
/* The reply was written, or nobody waits for it. Nothing happens to one that was not logged. */
void cst_outcome_done(struct cst_outcomes *outcomes, uint64_t unique);
uint64_t cst_outcomes_count(const struct cst_outcomes *outcomes);
