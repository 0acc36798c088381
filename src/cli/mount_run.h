/* A mount at work: makes the layers (loops, credentials, bucket, fetch, FUSE, file system) from a plan, keeps them until the
 * mount is gone, and takes them down in order. Runs on the process's main thread; starts all others. */
#pragma once

#include "cli/mount_options.h"
#include "supervisor/keeper.h"

struct cst_mount_ready {
	/* Called once, when the mount can be used. */
	void (*fn)(void *arg);
	void *arg;
};
/* Blocks until the mount is gone. 0: it was unmounted; -errno with err: it could not start, nothing is left behind. The log must be
 * open and signals blocked (signals.h). */
/* keeper: who holds the mount and was told that it is ready (ready is NULL); or NULL, and this process does all by itself. */
int cst_mount_run(struct cst_mount_plan *plan, const char *log_name, struct cst_keeper *keeper,
		  const struct cst_mount_ready *ready, struct cst_error *err);
