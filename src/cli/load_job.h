/* One load at work, seen from the command: either in this process (a bucket and a cache of its own) or in a mount, which is asked over its
 * control socket. Belongs to one thread. */
#pragma once

#include "cli/cache_choice.h"
#include "cli/load_targets.h"
#include "cache/load.h"
#include "cli/mount_options.h"

struct cst_load_job;

struct cst_load_job_config {
	struct cst_mount_options *o; /* a bucket's: store, credentials, limits, memory; may get a region */
	const struct cst_cache_choice *cache;
	const struct cst_load_group *group;
	unsigned parallel, level;
	bool pin;
	/* In the thread that polls. */
	void (*failure)(void *arg, const char *key, const char *why);
	void *arg;
};
/* NULL with err. */
struct cst_load_job *cst_load_job_start(const struct cst_load_job_config *config, struct cst_error *err);
/* Waits until it is finished, at most `timeout` ns; tells failures. -errno with err: the mount has gone. */
int cst_load_job_poll(struct cst_load_job *job, int64_t timeout, struct cst_load_progress *p, struct cst_error *err);
void cst_load_job_cancel(struct cst_load_job *job);
/* Why it ended as it did, when no failure has told: a listing's error, a name that is nothing. "" else. */
const char *cst_load_job_end_text(const struct cst_load_job *job);
void cst_load_job_free(struct cst_load_job *job);
