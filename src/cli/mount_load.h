/* Loads that `cistern load MOUNT/path` asks a mount for, over its control socket; the mount runs them with its own cache.
 *
 *	POST /loads?pin=1&parallel=32   body: names below the mountpoint, each ended by a zero byte   → {"id": 3}
 *	GET  /loads/3?failures=20       progress, and the failures from number 20 on
 *	POST /loads/3/cancel
 *	GET  /loads                     all of them
 *
 * A load that nobody has asked about for a minute is cancelled: its command is gone. One that is finished goes away when that has been told, or
 * after a minute. Any thread; no lock of others is taken inside. */
#pragma once

#include "cache/load.h"

struct cst_mount_loads;

struct cst_mount_loads_config {
	struct cst_bucket *bucket; /* all borrowed */
	struct cst_fetch *fetch;
	struct cst_cache *cache; /* NULL: loads are refused */
	const char *prefix;	 /* of the mount: "" or "a/b/" */
	int64_t patience;	 /* ns; 0: a minute */
};
struct cst_mount_loads *cst_mount_loads_new(const struct cst_mount_loads_config *config);
void cst_mount_loads_free(struct cst_mount_loads *loads); /* cancels and waits */

/* As of struct cst_control_config: an HTTP status, and the answer in `json`. */
int cst_mount_loads_request(struct cst_mount_loads *loads, struct cst_slice method, struct cst_slice target,
			    struct cst_slice body, struct cst_buf *json);
void cst_mount_loads_json(struct cst_mount_loads *loads, struct cst_buf *json); /* what GET /loads answers */
/* The JSON of one load's progress, without the braces. Also what `cistern load --output json` prints. */
void cst_load_progress_json(const struct cst_load_progress *p, struct cst_buf *json);
