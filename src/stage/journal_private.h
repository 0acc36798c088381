/* What journal.c and journal_scan.c share. */
#pragma once

#include "stage/journal.h"

#define JOURNAL_SIZE (UINT64_C(4) << 20)
#define JOURNAL_SIZE_MAX (UINT64_C(4) << 30)
extern const char *const cst_journal_names[2];
#define FORMAT_NAME "format"
#define FORMAT_TEXT "cistern-staging 1\n"

/* The bytes of a journal file; a file that isn't there is empty. */
int cst_journal_load(const struct cst_stage_io *io, int dir, const char *name, struct cst_buf *bytes);
