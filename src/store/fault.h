/* --fail RATE:KIND[:OPERATION]: parsing, and the decision which requests get which fault. Pure; any thread.
 *
 * The decision depends on the seed, the rule, the operation, what the request is about (`identity`: a hash of the
 * target and range) and how often the same was asked before (`attempt`), not on when it came: a run with the same
 * requests has the same faults, whatever its threads do. */
#pragma once

#include "store/handler.h"

enum cst_store_fault_kind {
	CST_STORE_FAULT_NONE,
	CST_STORE_FAULT_503,   /* refused before anything is done */
	CST_STORE_FAULT_RESET, /* connection reset: before anything is done, or instead of or within the answer */
	CST_STORE_FAULT_SHORT, /* the body ends early, or there is no answer at all when it has none */
	CST_STORE_FAULT_SLOW,  /* the body comes at 16 KiB/s */
	CST_STORE_FAULT_ETAG,  /* the answer carries another ETag */
	CST_STORE_FAULT_LOST,  /* all is done, and the connection closes without an answer */
	CST_STORE_FAULT_COUNT,
};
#define CST_STORE_FAULT_SLOW_RATE (16 * 1024)

struct cst_store_fault {
	uint64_t threshold; /* the fault strikes when a 64-bit draw is below it (all ones: always) */
	enum cst_store_fault_kind kind;
	int operation; /* enum cst_store_operation, or -1: every one */
};

/* 0, or -EINVAL with err filled in. RATE is a fraction (0.01) or a percentage (1%). */
int cst_store_fault_parse(const char *text, struct cst_store_fault *fault, struct cst_error *err);
const char *cst_store_fault_name(enum cst_store_fault_kind kind);

/* The first rule that strikes decides. *detail is random too: where to cut, what to write. */
enum cst_store_fault_kind cst_store_fault_decide(const struct cst_store_fault *faults, size_t count, uint64_t seed,
						 enum cst_store_operation op, uint64_t identity, uint32_t attempt,
						 uint64_t *detail);
/* A hash of what a request is about: method, target without what signing adds to it, range. */
uint64_t cst_store_fault_identity(const struct cst_http_head *head);
