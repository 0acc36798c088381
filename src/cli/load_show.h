/* What `cistern load` tells while it works and at the end: a bar on a terminal, lines elsewhere, JSON for programs, or nothing. Failures
 * come through here too, so that they don't stand in the middle of a bar. One thread. */
#pragma once

#include "cache/load.h"

#include <stdio.h>

enum cst_load_show_mode { CST_SHOW_BAR, CST_SHOW_LINES, CST_SHOW_JSON, CST_SHOW_QUIET };
struct cst_load_show {
	enum cst_load_show_mode mode;
	FILE *report;	 /* NULL: none; all failures, "KEY<tab>why" */
	int64_t started; /* cst_now() */
	int64_t drawn;	 /* when the last time; 0: never */
	bool on_line;	 /* a bar stands on the terminal's line */
	unsigned shown;	 /* failures on standard error */
	uint64_t failures;
	double rate;	 /* bytes a second, smoothed */
	int64_t rate_at; /* of the last measurement */
	uint64_t rate_bytes;
};
/* mode BAR becomes LINES when standard error is no terminal. */
void cst_load_show_init(struct cst_load_show *s, enum cst_load_show_mode mode, FILE *report);
/* Draws when it is due: five times a second on a terminal, every 5 s otherwise. */
void cst_load_show_progress(struct cst_load_show *s, const struct cst_load_progress *p);
void cst_load_show_metadata(struct cst_load_show *s, uint64_t dirs, uint64_t names, bool finished);
void cst_load_show_failure(struct cst_load_show *s, const char *key, const char *why);
/* The end: what was loaded, skipped, failed, how fast. `cancelled`: says how to go on. */
void cst_load_show_summary(struct cst_load_show *s, const struct cst_load_progress *p, bool cancelled);
/* Takes the bar away before other output. */
void cst_load_show_clear(struct cst_load_show *s);

/* One line without a line break: a bar when columns > 0. */
void cst_load_show_line(const struct cst_load_progress *p, double rate, unsigned columns, struct cst_buf *out);
