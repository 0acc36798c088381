/* Which failures are tried again, how long after, and how many requests may run at once while the store is throttling. Pure
 * except for the limiter, which its owner (the bucket) guards with its lock. The table of doc/object.md is this file's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum cst_retry_action {
	CST_RETRY_FAIL,	    /* final */
	CST_RETRY_AGAIN,    /* after a pause */
	CST_RETRY_THROTTLE, /* after a pause, and with fewer requests at once */
	CST_RETRY_RENEW,    /* once, after renewing the credential */
	CST_RETRY_SKEW,	    /* at once, signed by the store's clock */
};
struct cst_retry_verdict {
	int error; /* positive errno if it is final */
	enum cst_retry_action action;
	unsigned max_attempts; /* 0: no limit of its own */
};
/* An answer that is no success: status and the store's code ("" when it gave none). */
struct cst_retry_verdict cst_retry_status(int status, const char *code);
/* No complete answer: -errno of the HTTP client. */
struct cst_retry_verdict cst_retry_transport(int rc);

#define CST_RETRY_BASE_NS INT64_C(200000000)
#define CST_RETRY_CAP_NS INT64_C(20000000000)
/* Full jitter: anything from 0 to the smaller of cap and base · 2^(attempt-1); random is any 64 bits. */
int64_t cst_retry_delay(unsigned attempt, int64_t base, int64_t cap, uint64_t random);

/* Additive increase, multiplicative decrease. limit 0 means none: no store has complained lately. */
struct cst_limiter {
	double limit;
	unsigned in_flight, peak; /* peak: in flight when it was last cut down */
	int64_t pause_until;	  /* cst_now() clock: the store asked for quiet */
	int64_t last_cut;
};
bool cst_limiter_may_start(const struct cst_limiter *l);
/* A request that began at `started` was throttled. True when the limit was cut (once for all that were under way). */
bool cst_limiter_throttled(struct cst_limiter *l, int64_t started, int64_t now);
void cst_limiter_succeeded(struct cst_limiter *l);
