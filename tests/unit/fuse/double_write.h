/* The writing half of the double (double.h): what both halves know of each other. In the server's process. */
#pragma once

#include "double.h"

enum { DOUBLE_NEW_DIR = DOUBLE_OUT + 1, DOUBLE_NEW_LINK, DOUBLE_NEW_FILE };

const struct cst_fs_host *double_host(const struct cst_fs *fs);
struct double_board *double_board_of(const struct cst_fs *fs);
void double_fill_entry(const struct cst_fs *fs, uint64_t node, struct cst_fs_entry *e);
/* A line of board->log. */
void double_log(const struct cst_fs *fs, const char *fmt, ...) CST_PRINTF(2, 3);
