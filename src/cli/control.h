/* The control socket of a mount: an HTTP server on a Unix socket that `cistern stats` and `cistern umount` talk to.
 *
 * Its path follows from the mountpoint alone: /run/cistern/HASH.sock for root, $XDG_RUNTIME_DIR/cistern/HASH.sock for others
 * (/tmp/cistern-UID/ without it). GET /stats answers JSON, GET /metrics Prometheus text; what else the mount answers (mount_load.h) comes to its
 * `request`, and only from the socket. The server runs on its own threads; start
 * and stop belong to one thread. */
#pragma once

#include "base/buf.h"
#include "base/error.h"

struct cst_control;

struct cst_control_config {
	const char *mountpoint;
	const char *metrics_address;			/* NULL: /metrics on the socket only */
	void (*stats)(void *arg, struct cst_buf *json); /* any thread; all three */
	void (*metrics)(void *arg);			/* brings the metrics up to date */
	/* Returns the status; an answer that is none of 200 is {"error": {"what", "why", "hint"}}. */
	int (*request)(void *arg, struct cst_slice method, struct cst_slice target, struct cst_slice body,
		       struct cst_buf *json);
	void *arg;
};
/* The socket of an earlier mount that is not served any more is replaced. */
struct cst_control *cst_control_start(const struct cst_control_config *config, struct cst_error *err);
void cst_control_stop(struct cst_control *control); /* NULL is allowed; removes the socket */

/* GET `path` from the mount on `mountpoint`. -ENOENT: nothing of ours serves it. Waits 10 s at most. */
int cst_control_get(const char *mountpoint, const char *path, struct cst_buf *body, struct cst_error *err);
/* Any request; `body` may hold any bytes. Answers of 4xx and 5xx become err and -EINVAL, -ENOENT (404) or -EIO (5xx). */
int cst_control_call(const char *mountpoint, const char *method, const char *target, struct cst_slice body,
		     struct cst_buf *answer, struct cst_error *err);
/* Is a process serving the control socket of this mountpoint? */
bool cst_control_alive(const char *mountpoint);
/* The mountpoint at or above an absolute path that a process serves; NULL: none. The caller frees it. */
char *cst_control_find(const char *path);
/* The absolute path of a mountpoint, found without touching what is mounted there. Never NULL. */
char *cst_control_canonical(const char *mountpoint);
