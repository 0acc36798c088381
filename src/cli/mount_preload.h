/* Preloads of listings that a mount runs: of all it shows, when it was mounted so, and those that `cistern load --metadata` asks for over its control
 * socket.
 *
 *	POST /preloads      body: a path below the mountpoint, "" for everything   → {"id": 3}
 *	GET  /preloads/3    {"id": 3, "finished": true, "end": "whole", "requests": 101, "keys": 100000, "directories": 1000};
 *	                    end: running, whole, memory (that for listings is used up), unsorted, cancelled, failed, then with "error"
 *	POST /preloads/3/cancel
 *
 * They run in the background, and go on when their command goes away. One that is finished is forgotten when that has been told, or when room is
 * needed. Any thread. */
#pragma once

#include "fs/preload.h"

struct cst_mount_plan;
/* Where the mount saves its listings, NULL: nowhere; *identity: what they are of. The caller frees both. */
char *cst_mount_snapshot_path(const struct cst_mount_plan *plan, char **identity);

struct cst_mount_preloads;
struct cst_mount_preloads *cst_mount_preloads_new(struct cst_fs *fs,
						  bool everything); /* borrowed; begins with all there is */
void cst_mount_preloads_free(struct cst_mount_preloads *m);	    /* ends what is under way; NULL is allowed */

bool cst_mount_preloads_is_target(struct cst_slice target);
/* As of struct cst_control_config: an HTTP status, and the answer in `json`. */
int cst_mount_preloads_request(struct cst_mount_preloads *m, struct cst_slice method, struct cst_slice target,
			       struct cst_slice body, struct cst_buf *json);
