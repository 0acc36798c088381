/* What a mount tells of itself: the JSON of `cistern stats --json` and the metrics, from one list of fields. Reads the counters of the
 * layers, which any thread may do while they live. */
#pragma once

#include "cli/access.h"
#include "cli/mount_options.h"
#include "fuse/fuse.h"

struct cst_mount_loads;
struct cst_mount_writes;

/* All borrowed. cache is NULL without one. */
struct cst_mount_view {
	const struct cst_mount_plan *plan;
	const char *log_name;
	const struct cst_link *link;
	struct cst_fetch *fetch;
	struct cst_cache *cache;
	struct cst_fs *fs;
	struct cst_fuse *fuse;
	struct cst_keeper *keeper;
	struct cst_mount_loads *loads;
	struct cst_mount_writes *writes; /* NULL: read-only */
};
void cst_mount_stats_json(const struct cst_mount_view *v, struct cst_buf *out);
/* Brings the metrics of the process up to date. */
void cst_mount_stats_metrics(const struct cst_mount_view *v);
/* "on", or "off: why". */
void cst_mount_passthrough_text(const struct cst_mount_view *v, struct cst_buf *out);
