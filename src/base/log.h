/* Logging: one line an event, text or JSON, to standard error, a file or (through standard error, with <N> priority
 * prefixes when JOURNAL_STREAM names it) the journal. Any thread; a line is one write(2). Secrets never go in.
 *
 * Each .c file says `#define CST_LOG_AREA "net"` before it includes this header. */
#pragma once

#include "base/cleanup.h"
#include "base/error.h"

enum cst_log_level { CST_LOG_ERROR, CST_LOG_WARN, CST_LOG_INFO, CST_LOG_DEBUG, CST_LOG_TRACE };

struct cst_log_config {
	enum cst_log_level level;
	bool json;
	const char *path; /* NULL or "": standard error. Reopened on cst_log_reopen() (SIGHUP, for logrotate). */
};
/* 0 or -errno (the file can't be opened). Call before threads exist; may be called again. */
int cst_log_init(const struct cst_log_config *config, struct cst_error *err);
void cst_log_reopen(void);
void cst_log_set_level(enum cst_log_level level);
/* error|warn|warning|info|debug|trace, also crit and dbg (ossfs 1.0's dbglevel). 0 or -EINVAL. */
int cst_log_parse_level(const char *text, enum cst_log_level *level);

extern int cst_log_level_now; /* read without a lock */
void cst_log_write(enum cst_log_level level, const char *area, const char *fmt, ...) CST_PRINTF(3, 4);

#define cst_log_at(level, ...)                                                             \
	do {                                                                               \
		if (__atomic_load_n(&cst_log_level_now, __ATOMIC_RELAXED) >= (int)(level)) \
			cst_log_write((level), CST_LOG_AREA, __VA_ARGS__);                 \
	} while (0)
#define cst_log_error(...) cst_log_at(CST_LOG_ERROR, __VA_ARGS__)
#define cst_log_warn(...) cst_log_at(CST_LOG_WARN, __VA_ARGS__)
#define cst_log_info(...) cst_log_at(CST_LOG_INFO, __VA_ARGS__)
#define cst_log_debug(...) cst_log_at(CST_LOG_DEBUG, __VA_ARGS__)
#define cst_log_trace(...) cst_log_at(CST_LOG_TRACE, __VA_ARGS__)

/* For messages that a sick store or a strange bucket could repeat without end: true at most once each `interval_ns`
 * per call site; *suppressed (may be NULL) tells how many were left out since. */
struct cst_log_limit {
	int64_t next;
	uint64_t suppressed;
};
bool cst_log_allowed(struct cst_log_limit *limit, int64_t interval_ns, uint64_t *suppressed);
