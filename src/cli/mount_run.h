/* A mount at work: makes the layers (loops, credentials, bucket, fetch, FUSE, file system) from a plan, keeps them until the
 * mount is gone, and takes them down in order. Runs on the process's main thread; starts all others. */
#pragma once

#include "cli/mount_options.h"
#include "supervisor/keeper.h"

/* In the process that a supervisor started: blocks until the mount is gone, and tells the keeper when it can be used. 0: it was unmounted; -errno with
 * err: it could not start, nothing is left behind. When another process is to go on with the mount it doesn't return: the process ends. The log must be open and
 * signals blocked (signals.h). */
int cst_mount_run(struct cst_mount_plan *plan, const char *log_name, struct cst_keeper *keeper, struct cst_error *err);
