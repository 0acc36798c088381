#include "cli/mount_options.h"

#include <errno.h>
#include <strings.h>
#include <sys/stat.h>

static const struct cst_option mount_rows[] = {
#define OPTION(...) CST_OPTION_ROW(cst_mount_options, __VA_ARGS__)
#define SECTION CST_OPTION_SECTION_ROW
#include "cli/mount_options.def"
#undef OPTION
#undef SECTION
};
const struct cst_option_table cst_mount_table = {mount_rows, CST_ARRAY_LEN(mount_rows), "cistern mount", true};

static bool by_user(uint8_t given)
{
	return given != CST_OPTION_FROM_DEFAULT;
}

/* ---- which bucket ---- */

static bool is_config_file(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* The argument before the mountpoint, if there is one. */
static int take_source(struct cst_mount_plan *plan, const char *source, bool *found, struct cst_error *err)
{
	*found = true;
	if (cst_url_is(source))
		return cst_url_parse(source, &plan->access.url, err);
	if (plan->persona == CST_PERSONA_CISTERN)
		return cst_url_parse(source, &plan->access.url, err); /* tells what is wrong with it */
	if (plan->persona == CST_PERSONA_OSSFS)
		return cst_url_parse_ossfs(source, &plan->access.url, err);
	/* A line of fstab needs a first column; with the bucket among the options any word will do there. */
	if (plan->o.bucket) {
		*found = false;
		return 0;
	}
	return cst_url_parse_ossfs(source, &plan->access.url, err);
}

static int no_bucket(struct cst_error *err)
{
	cst_error_set(err, EINVAL, "no bucket was named");
	cst_error_hint(err,
		       "cistern mount oss://BUCKET/PREFIX MOUNTPOINT, or bucket=NAME in -o or the configuration file");
	return -EINVAL;
}

static int resolve_bucket(struct cst_mount_plan *plan, const char *source, struct cst_error *err)
{
	struct cst_mount_options *o = &plan->o;
	bool found = false;
	int rc = source ? take_source(plan, source, &found, err) : 0;
	if (rc != 0)
		return rc;
	/* `url=` is ossfs 1.0's spelling of the endpoint; a bucket's URL is clear enough to be taken for what it is. */
	if (!found && o->endpoint && cst_url_is(o->endpoint)) {
		found = true;
		rc = cst_url_parse(o->endpoint, &plan->access.url, err);
		free(o->endpoint);
		o->endpoint = NULL;
	} else if (!found && o->bucket) {
		found = true;
		rc = cst_url_set_bucket(&plan->access.url, cst_slice_of(o->bucket), err);
	}
	if (rc == 0 && !found)
		rc = no_bucket(err);
	if (rc == 0 && o->prefix && plan->access.url.prefix[0] == '\0')
		rc = cst_url_set_prefix(&plan->access.url, cst_slice_of(o->prefix), err);
	if (rc != 0)
		return rc;
	cst_access_name(&plan->access);
	return 0;
}

static int resolve_arguments(struct cst_mount_plan *plan, const char **source, struct cst_error *err)
{
	struct cst_option_list *args = &plan->set.arguments;
	size_t at = 0;
	if (plan->persona == CST_PERSONA_OSSFS2 && args->count > 0 && strcmp(args->items[0], "mount") == 0)
		at = 1;
	size_t count = args->count - at;
	if (count < 1 || count > 2) {
		cst_error_set(err, EINVAL, count == 0 ? "no mountpoint was named" : "too many arguments");
		if (count > 2)
			cst_error_why(err, "\"%s\" is one more than URL and MOUNTPOINT", args->items[at + 2]);
		cst_error_hint(err, "cistern mount oss://BUCKET/PREFIX MOUNTPOINT -o OPTION,…");
		return -EINVAL;
	}
	*source = count == 2 ? args->items[at] : NULL;
	const char *mountpoint = args->items[at + count - 1];
	if (count == 1 && cst_url_is(mountpoint)) {
		cst_error_set(err, EINVAL, "no mountpoint was named");
		cst_error_hint(err, "cistern mount %s MOUNTPOINT", mountpoint);
		return -EINVAL;
	}
	/* The daemon changes to /, so it needs the whole path. The mountpoint itself is looked at when it is mounted. */
	CST_AUTO_FREE char *cwd = getcwd(NULL, 0);
	plan->mountpoint =
		mountpoint[0] == '/' || !cwd ? cst_xstrdup(mountpoint) : cst_xasprintf("%s/%s", cwd, mountpoint);
	for (size_t len = strlen(plan->mountpoint); len > 1 && plan->mountpoint[len - 1] == '/'; len--)
		plan->mountpoint[len - 1] = '\0';
	return 0;
}

/* ---- what the options mean together ---- */

enum { WRITE_NONE, WRITE_APPEND, WRITE_FULL }; /* the words of write= */

static int refuse_full(const struct cst_mount_plan *plan, bool explicit_mode, struct cst_error *err)
{
	cst_error_set(err, EINVAL, "can't mount %s for writing", plan->access.source);
	cst_error_why(err, "%swrite=full, which writes anywhere in a file, is not in this version",
		      explicit_mode ? "" : "rw means write=full: ");
	cst_error_hint(err, "write=append lets files be written from front to end; leave %s out to mount it read-only",
		       explicit_mode ? "write=" : "rw");
	return -EINVAL;
}

/* Which mode the words mean together: write= goes before all others; else rw and the name ossfs mean full, ossfs2 means append, ro neither. */
static int resolve_mode(struct cst_mount_plan *plan, struct cst_error *err)
{
	struct cst_mount_options *o = &plan->o;
	bool ro = by_user(o->given.ro) && o->ro, rw = by_user(o->given.ro) && !o->ro;
	if (by_user(o->given.write)) {
		if (o->write == WRITE_FULL)
			return refuse_full(plan, true, err);
		plan->write = o->write == WRITE_APPEND ? CST_FS_WRITE_APPEND : CST_FS_WRITE_NONE;
		plan->said_read_only = plan->write == CST_FS_WRITE_NONE;
		if (ro && plan->write != CST_FS_WRITE_NONE)
			cst_option_list_add(&plan->set.warnings,
					    cst_xstrdup("ro and write=append were both given; write=append is used"));
		return 0;
	}
	plan->said_read_only = ro;
	if (ro)
		return 0;
	if (plan->persona == CST_PERSONA_OSSFS2)
		plan->write = CST_FS_WRITE_APPEND;
	else if (plan->persona == CST_PERSONA_CISTERN && rw)
		return refuse_full(plan, false, err);
	else
		/* A program that writes here and there in a file would lose its work half-way: better none than half. */
		plan->asked_to_write = rw || plan->persona == CST_PERSONA_OSSFS;
	return 0;
}

static int check_part_size(const struct cst_mount_options *o, struct cst_error *err)
{
	if (o->upload_part_size <= o->upload_memory / 2)
		return 0;
	cst_error_set(err, EINVAL, "upload_part_size is more than half of upload_memory");
	cst_error_why(err, "two parts have to fit, so that one is sent while the next one fills");
	cst_error_hint(err, "make upload_memory larger, or parts smaller");
	return -EINVAL;
}

char *cst_mount_keep_dir_default(void)
{
	const char *data = getenv("XDG_DATA_HOME");
	const char *home = getenv("HOME");
	if (geteuid() == 0)
		return cst_xstrdup("/var/lib/cistern/kept");
	if (data && data[0] == '/')
		return cst_xasprintf("%s/cistern/kept", data);
	if (home && home[0] == '/')
		return cst_xasprintf("%s/.local/share/cistern/kept", home);
	return cst_xasprintf("/var/tmp/cistern-%u/kept", (unsigned)geteuid());
}

static int resolve_write(struct cst_mount_plan *plan, struct cst_error *err)
{
	struct cst_mount_options *o = &plan->o;
	int rc = resolve_mode(plan, err);
	if (rc != 0)
		return rc;
	o->ro = plan->write == CST_FS_WRITE_NONE;
	if (o->ro)
		return 0;
	if (by_user(o->given.storage_class)) {
		cst_error_set(err, EINVAL,
			      "storage_class, acl, default_acl, use_rrs and use_sse can't be used with write=append");
		cst_error_why(err, "objects get the bucket's own storage class, ACL and encryption");
		cst_error_hint(err, "set them for the bucket, and leave the option out");
		return -EINVAL;
	}
	if (by_user(o->given.multipart_size) && !by_user(o->given.upload_part_size))
		o->upload_part_size = (uint64_t)o->multipart_size << 20;
	if (plan->persona == CST_PERSONA_OSSFS2 && !by_user(o->given.ignore_fsync))
		cst_option_list_add(
			&plan->set.notes,
			cst_xstrdup(
				"ignore_fsync is off unless it is asked for: fsync publishes a file, so that it is a promise"));
	plan->keep_dir = o->keep_dir && o->keep_dir[0] ? cst_xstrdup(o->keep_dir) : cst_mount_keep_dir_default();
	return check_part_size(o, err);
}

const char *cst_mount_plan_mode(const struct cst_mount_plan *plan)
{
	return plan->write == CST_FS_WRITE_APPEND ? "write=append" : "read-only";
}

/* A daemon changes its directory. */
static void resolve_snapshot(struct cst_mount_options *o)
{
	CST_AUTO_FREE char *cwd = getcwd(NULL, 0);
	char *dir = o->metadata_snapshot;
	if (!dir || strcmp(dir, "off") == 0 || dir[0] == '/' || !cwd)
		return;
	o->metadata_snapshot = cst_xasprintf("%s/%s", cwd, dir);
	free(dir);
}

static void resolve_timeouts(struct cst_mount_options *o)
{
	bool uncached = o->close_to_open || (by_user(o->given.max_stat_cache_size) && o->max_stat_cache_size == 0);
	if (!uncached)
		return;
	/* A timeout that the user wrote goes before what only implies one. */
	if (!by_user(o->given.attr_timeout))
		o->attr_timeout = 0;
	if (!by_user(o->given.entry_timeout))
		o->entry_timeout = 0;
	if (!by_user(o->given.negative_timeout))
		o->negative_timeout = 0;
	if (!by_user(o->given.list_timeout))
		o->list_timeout = 0;
}

static int resolve_page_cache(struct cst_mount_plan *plan, struct cst_error *err)
{
	struct cst_mount_options *o = &plan->o;
	if (o->direct_io && (o->kernel_cache || (by_user(o->given.auto_cache) && o->auto_cache))) {
		cst_error_set(err, EINVAL, "direct_io and %s exclude each other",
			      o->kernel_cache ? "kernel_cache" : "auto_cache");
		cst_error_why(err, "one bypasses the page cache, the other keeps it");
		cst_error_hint(err, "leave one of them out");
		return -EINVAL;
	}
	if (o->kernel_cache && by_user(o->given.auto_cache) && o->auto_cache) {
		o->kernel_cache = false;
		cst_option_list_add(
			&plan->set.warnings,
			cst_xstrdup(
				"kernel_cache and auto_cache were both given; auto_cache is used, which is the careful one"));
	}
	if (o->kernel_cache || o->direct_io)
		o->auto_cache = false;
	return 0;
}

/* Chunks, windows and their cap as ossfs 1.0 counts them; our own options go before. */
static void resolve_direct_read(struct cst_mount_options *o)
{
	if (!o->direct_read)
		return;
	uint64_t limit = (uint64_t)o->direct_read_prefetch_limit << 20;
	if (!by_user(o->given.range_size))
		o->range_size = (uint64_t)o->direct_read_chunk_size << 20;
	if (!by_user(o->given.prefetch_window))
		o->prefetch_window = cst_min(o->range_size * (uint64_t)o->direct_read_prefetch_chunks, limit);
	if (by_user(o->given.direct_read_prefetch_limit) && !by_user(o->given.memory))
		o->memory = cst_max(limit, UINT64_C(64) << 20);
}

/* What the programs do whose names we were called by, where the user said nothing. */
static void apply_persona(struct cst_mount_plan *plan)
{
	struct cst_mount_options *o = &plan->o;
	if (plan->persona == CST_PERSONA_OSSFS && !by_user(o->given.attributes))
		o->attributes = o->readdir_optimize ? 0 : 1;
	if (plan->persona != CST_PERSONA_OSSFS2)
		return;
	/* There names have no timeout of their own: whoever asks for fresher or longer-lived attributes means both. */
	if (by_user(o->given.attr_timeout) && !by_user(o->given.entry_timeout))
		o->entry_timeout = o->attr_timeout;
	if (!by_user(o->given.symlinks))
		o->symlinks = false;
	if (!by_user(o->given.file_mode))
		o->file_mode = 0777;
	if (!by_user(o->given.dir_mode))
		o->dir_mode = 0777;
	/* There it is on for everybody; for other users than root that needs a line in /etc/fuse.conf, so it can't be the default. */
	if (!by_user(o->given.allow_other))
		o->allow_other = geteuid() == 0;
}

static int resolve(struct cst_mount_plan *plan, const char *source, struct cst_error *err)
{
	struct cst_mount_options *o = &plan->o;
	int rc = resolve_bucket(plan, source, err);
	if (rc == 0)
		rc = resolve_write(plan, err);
	if (rc == 0)
		rc = resolve_page_cache(plan, err);
	if (rc == 0)
		rc = cst_access_resolve(&plan->access, o, plan->persona == CST_PERSONA_OSSFS, err);
	if (rc == 0)
		rc = cst_cache_choice_resolve(&plan->cache, o, err);
	if (rc != 0)
		return rc;
	apply_persona(plan);
	resolve_snapshot(o);
	resolve_timeouts(o);
	resolve_direct_read(o);
	if (by_user(o->given.oss_request_timeout_ms) && !by_user(o->given.request_timeout))
		o->request_timeout = o->oss_request_timeout_ms;
	if (o->debug) {
		o->foreground = true;
		if (!by_user(o->given.log_level)) {
			free(o->log_level);
			o->log_level = cst_xstrdup("debug");
		}
	}
	return 0;
}

int cst_mount_plan_init(struct cst_mount_plan *plan, enum cst_persona persona, int argc, char **argv,
			struct cst_error *err)
{
	return cst_mount_plan_init_kept(plan, persona, argc, argv, NULL, err);
}

int cst_mount_plan_init_kept(struct cst_mount_plan *plan, enum cst_persona persona, int argc, char **argv,
			     const struct cst_mount_config_text *config, struct cst_error *err)
{
	*plan = (struct cst_mount_plan){.persona = persona};
	cst_option_set_init(&plan->set, &cst_mount_table, &plan->o, sizeof(plan->o));
	plan->set.accept_argv_secrets = persona == CST_PERSONA_OSSFS2;
	const char *source = NULL;
	int rc = cst_option_parse_argv(&plan->set, argc - 1, argv + 1, err);
	if (rc == 0)
		rc = resolve_arguments(plan, &source, err);
	/* ossfs2 in fstab: the configuration file may stand in the first column. */
	bool kept = config && source && strcmp(source, config->path) == 0;
	if (rc == 0 && persona == CST_PERSONA_OSSFS2 && source && !plan->o.config &&
	    (kept || is_config_file(source))) {
		plan->o.config = cst_xstrdup(source);
		source = NULL;
	}
	if (rc == 0 && config)
		rc = cst_option_parse_text(&plan->set, config->text, config->path, err);
	else if (rc == 0 && plan->o.config)
		rc = cst_option_parse_file(&plan->set, plan->o.config, err);
	return rc ? rc : resolve(plan, source, err);
}

void cst_mount_plan_fini(struct cst_mount_plan *plan)
{
	cst_option_set_fini(&plan->set);
	cst_access_fini(&plan->access);
	cst_cache_choice_fini(&plan->cache);
	free(plan->mountpoint);
	free(plan->keep_dir);
}
