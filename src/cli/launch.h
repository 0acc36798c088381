/* What the process of a file system is to do, as its supervisor keeps it: the command line as it was given, the directory it was given in, and the
 * text of the configuration file as it was then; the process parses them again, whenever it is started. It lies in a memory file that
 * is never mapped: arguments and environment of processes tell nothing of it, and core dumps neither.
 *
 * It also keeps the last credential that was in use, so that a mount whose source of credentials has gone goes on after a restart as it would have
 * without. One thread. */
#pragma once

#include "cli/mount_options.h"
#include "object/credentials.h"

/* Before argv is parsed, which overwrites secrets in it. A descriptor or -errno. */
int cst_launch_make(enum cst_persona persona, int argc, char **argv, struct cst_error *err);
/* What is known once it was parsed. */
int cst_launch_complete(int launch, const struct cst_mount_plan *plan, const char *log_name, struct cst_error *err);

/* In the process that serves: goes to the directory of the command, and parses. *log_name is the caller's to free. */
int cst_launch_plan(int launch, struct cst_mount_plan *plan, char **log_name, struct cst_error *err);

void cst_launch_save_credential(int launch, const struct cst_credential *credential);
/* False: none was saved. */
bool cst_launch_last_credential(int launch, struct cst_credential *credential);
