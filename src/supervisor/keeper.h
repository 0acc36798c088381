/* The serving process's side of its supervisor: what it was handed when it was started, and what it asks for. One object a process.
 *
 * The supervisor may die: then a thread of this process starts another one and hands it all that it holds, and calls that were under way fail with
 * -EPIPE. Calls may come from any thread; one is under way at a time. */
#pragma once

#include "supervisor/state.h"

#define CST_KEEPER_CLONES 64u
/* The descriptors that a started process finds open. */
#define CST_KEEPER_CALLS_FD 3
#define CST_KEEPER_EVENTS_FD 4
/* argv[0] and argv[1] of the processes that are started; argv[2] is the mountpoint. */
#define CST_KEEPER_ARGV0 "cistern:"
#define CST_KEEPER_SERVES "file system of"
#define CST_KEEPER_KEEPS "supervisor of"

struct cst_keeper;

struct cst_keeper_ops {
	/* On a thread of the keeper's. */
	void (*stop)(void *arg);  /* unmount and end */
	void (*leave)(void *arg); /* end without unmounting */
	void *arg;
};

/* Takes the descriptors that the supervisor left open and waits for its message. NULL and err: it was not started by one, or its memory
 * is of another layout. */
struct cst_keeper *cst_keeper_connect(struct cst_error *err);
void cst_keeper_free(struct cst_keeper *keeper);
struct cst_state *cst_keeper_state(const struct cst_keeper *keeper); /* NULL while it stands by */
struct cst_state_header *cst_keeper_header(const struct cst_keeper *keeper);
int cst_keeper_launch(const struct cst_keeper *keeper); /* the launch record's descriptor, borrowed */
uint32_t cst_keeper_epoch(const struct cst_keeper *keeper);
bool cst_keeper_restarted(const struct cst_keeper *keeper); /* somebody served this mount before */
/* An upgrade: everything is prepared while the predecessor still serves, then this waits for its end. 0, or -errno: not wanted any more. */
bool cst_keeper_stands_by(const struct cst_keeper *keeper);
int cst_keeper_stand_by(struct cst_keeper *keeper, struct cst_error *err);

/* Starts the thread that listens to the supervisor. */
int cst_keeper_start(struct cst_keeper *keeper, const struct cst_keeper_ops *ops, struct cst_error *err);

/* Ends that thread: what it calls is not called any more. When nothing is left to stop or to hand over. */
void cst_keeper_silence(struct cst_keeper *keeper);
/* The same for who leaves the mount to another process: sees to it that somebody is there to start that. */
void cst_keeper_leave(struct cst_keeper *keeper);

/* The device: the one that is mounted, or mounts. Borrowed; -errno. */
int cst_keeper_device(struct cst_keeper *keeper, struct cst_error *err);
/* The clones that the supervisor holds; makes them when there are none. Borrowed. Returns how many. */
unsigned cst_keeper_clones(struct cst_keeper *keeper, unsigned wanted, int fds[CST_KEEPER_CLONES]);
int cst_keeper_backing_open(struct cst_keeper *keeper, int fd); /* an id > 0 or -errno */
void cst_keeper_backing_close(struct cst_keeper *keeper, int backing);
int cst_keeper_unmount(struct cst_keeper *keeper);
/* Nobody shall go on: the supervisor lets go of the descriptors and ends when this process does. */
void cst_keeper_end(struct cst_keeper *keeper);
void cst_keeper_ready(struct cst_keeper *keeper);
void cst_keeper_failed(struct cst_keeper *keeper, const struct cst_error *err);
int cst_keeper_stop_wish(struct cst_keeper *keeper); /* -EPIPE: nobody is there */
/* Asks to be replaced by the program at `path`. 0: it has begun; the header tells how it ended. */
int cst_keeper_upgrade(struct cst_keeper *keeper, const char *path, struct cst_error *err);
