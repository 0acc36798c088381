/* A mount as two processes: the one that the user started keeps it (src/supervisor), a child of it serves it (mount_run.h). This is what
 * both need of the command line, and the glue between the layers. */
#pragma once

#include "cli/daemon.h"
#include "cli/mount_options.h"
#include "fuse/fuse.h"
#include "meta/inode.h"

/* Becomes the supervisor of the plan's mount; returns when that is gone. 0, or -errno with err; -EINTR: a signal came before it was mounted. */
int cst_mount_keep(const struct cst_mount_plan *plan, int launch, const char *log_path, struct cst_daemon *daemon,
		   struct cst_error *err);
/* Is this process one that a supervisor or a serving process started? Then *status is its exit status, once it has ended. */
bool cst_mount_keep_main(int argc, char **argv, int *status);

/* What follows from a plan for the kernel's side; its strings are the plan's. */
void cst_mount_fuse_config(const struct cst_mount_plan *plan, struct cst_fuse_config *config);

/* Of the process that serves: the identities in the keeper's memory. */
struct cst_mount_identities {
	struct cst_identity_memory memory;
	struct cst_identity **inherited;
	size_t count;
};
void cst_mount_identities_init(struct cst_mount_identities *ids, struct cst_keeper *keeper);
void cst_mount_identities_fini(struct cst_mount_identities *ids); /* the list */

/* Signs of life of the event loops, and the credential in use for the next process; from when all is made until before the loops are freed. */
struct cst_mount_beats;
struct cst_link;
struct cst_mount_beats *cst_mount_beats_start(struct cst_keeper *keeper, const struct cst_link *link);
void cst_mount_beats_stop(struct cst_mount_beats *beats); /* NULL is allowed */
