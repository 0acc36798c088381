/* The process that keeps a mount: it holds the descriptors of the connection and the memory that outlives the process that serves the mount
 * (state.h), starts that process (keeper.h is its side), and starts it again when it dies or hangs. doc/supervisor.md has the states.
 *
 * It runs on one thread, in one loop, never touches the mount itself, and does what might block (unmounting) in a process of its own. It knows
 * nothing of FUSE: its caller passes what it needs done. */
#pragma once

#include "supervisor/state.h"

struct cst_supervisor_ops {
	/* Mounts and fills in the header's part about the mount. The descriptor of the connection, or -errno with err. May take a moment. */
	int (*mount)(void *arg, struct cst_state_header *header, struct cst_error *err);
	/* In a process of its own: unmounts what the header says, lazily when it is busy. 0 or -errno. */
	int (*unmount)(void *arg, const struct cst_state_header *header);
	int (*clone)(int device); /* a descriptor or -errno */
	int (*backing_open)(int device, int fd);
	void (*backing_close)(int device, int backing);
	/* The mount can be used, for the first time. */
	void (*ready)(void *arg);
	void *arg;
};

struct cst_supervisor_config {
	const char *mountpoint; /* for ps and the log */
	int launch;		/* what the serving process is to do: a record that it understands; borrowed */
	int memory;		/* of cst_state_make(); borrowed */
	struct cst_supervisor_ops ops;
};

/* Blocks until the mount is gone; signals must be blocked (SIGTERM and SIGINT unmount, SIGHUP reopens the logs). 0: it was unmounted.
 * -errno with err: it could not start and nothing is left behind, or it had to be given up. -EINTR: a signal ended it before it was mounted. */
int cst_supervisor_run(const struct cst_supervisor_config *config, struct cst_error *err);
/* The process that was started because a supervisor died: takes over from who started it. */
int cst_supervisor_adopt(const struct cst_supervisor_ops *ops, struct cst_error *err);
