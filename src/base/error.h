/* Errors for people: what was tried, why it failed, what to do about it.
 *
 * A function returns 0 or -errno and, where a person may have to read the outcome, fills a struct cst_error that the
 * caller owns (often on its stack; NULL is allowed everywhere and means "not interested"). The texts never contain
 * secrets. Not thread safe: one struct belongs to one thread at a time. */
#pragma once

#include "base/cleanup.h"

#include <stdio.h>

struct cst_error {
	int code;	/* positive errno, 0: no error */
	int status;	/* HTTP status that caused it, or 0 */
	char api[64];	/* the store's error code ("NoSuchKey"), or "" */
	char what[256]; /* "can't mount oss://b/p on /mnt" */
	char why[640];	/* "the store answered 403 AccessDenied (request id …)" */
	char hint[384]; /* "check the policy of …", or "" */
};

#define CST_ERROR_INIT \
	{              \
		0      \
	}

void cst_error_clear(struct cst_error *err);
/* Sets code and `what`, clears why and hint; code is a positive errno. Returns -code. */
int cst_error_set(struct cst_error *err, int code, const char *fmt, ...) CST_PRINTF(3, 4);
/* Sets why / hint; err may be NULL. */
void cst_error_why(struct cst_error *err, const char *fmt, ...) CST_PRINTF(2, 3);
void cst_error_hint(struct cst_error *err, const char *fmt, ...) CST_PRINTF(2, 3);
/* Replaces `what` and keeps code, why and hint (the outer caller knows better what was being done); when why is empty
 * the old what becomes why. */
void cst_error_wrap(struct cst_error *err, const char *fmt, ...) CST_PRINTF(2, 3);
/* "what: why; hint" on one line, control characters replaced. Returns buf. */
const char *cst_error_text(const struct cst_error *err, char *buf, size_t size);
/* Room that any error text fits in. */
#define CST_ERROR_TEXT_MAX 1400
