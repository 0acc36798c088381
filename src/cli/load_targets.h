/* What `cistern load` is asked to load: arguments and lists, sorted into one group for each bucket (URLs) or mount (paths). */
#pragma once

#include "base/option.h"
#include "cli/url.h"

struct cst_load_group {
	char *mountpoint;   /* NULL: a bucket */
	struct cst_url url; /* of the bucket; prefix: what the first target begins with, for the check of the bucket */
	/* Of a bucket: keys, prefixes, globs. Of a mount: the same below the mountpoint. As cst_load_config takes them. */
	struct cst_option_list targets;
	struct cst_option_list paths; /* of a mount: the files and directories themselves */
};
struct cst_load_groups {
	struct cst_load_group *items;
	size_t count;
};
/* -EINVAL with err. */
int cst_load_groups_add(struct cst_load_groups *groups, const char *argument, struct cst_error *err);
/* Lines (or, with `null`, texts ended by zero bytes) of a file, "-": standard input. What is no URL is meant below `base` (an URL or a path of a
 * mount), which may be NULL. */
int cst_load_groups_add_list(struct cst_load_groups *groups, const char *file, bool null, const char *base,
			     struct cst_error *err);
void cst_load_groups_fini(struct cst_load_groups *groups);
/* Appends `text` such that no character of it is taken for a pattern. */
void cst_load_escape(struct cst_buf *out, struct cst_slice text);
