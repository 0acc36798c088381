/* Refreshes that `cistern refresh` asks a mount for, over its control socket.
 *
 *	POST /refreshes      body: a path below the mountpoint, "" for everything   → {"id": 3}
 *	GET  /refreshes/3    {"id": 3, "finished": true, "directories": 4, "changed": 1, "new": 0, "gone": 2, "failed": 0, "rc": 0};
 *	                     with "error": {"what", "why", "hint"} when rc is not 0
 *
 * Each runs on a thread of its own, so a store that doesn't answer holds up nobody else; it goes on when its command goes away. One that is
 * finished is forgotten when that has been told, or when room is needed. Any thread. */
#pragma once

#include "fs/fs.h"

struct cst_mount_refreshes;
struct cst_mount_refreshes *cst_mount_refreshes_new(struct cst_fs *fs); /* borrowed */
void cst_mount_refreshes_free(struct cst_mount_refreshes *m);		/* ends what is under way; NULL is allowed */

bool cst_mount_refreshes_is_target(struct cst_slice target);
/* As of struct cst_control_config: an HTTP status, and the answer in `json`. */
int cst_mount_refreshes_request(struct cst_mount_refreshes *m, struct cst_slice method, struct cst_slice target,
				struct cst_slice body, struct cst_buf *json);
