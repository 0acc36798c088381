#define CST_LOG_AREA "load"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/control.h"
#include "cli/load_job.h"
#include "cli/load_show.h"
#include "cli/load_walk.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#define POLL_EVERY (100 * CST_NS_PER_MS)
#define PRELOAD_POLL (20 * CST_NS_PER_MS)

/* The options that mount has too are its members, so that its configuration files can be read (-c). */
struct load_options {
	struct cst_mount_options m;
#define OPTION CST_OPTION_MEMBER
#define SECTION(title)
#include "cli/load_options.def"
#undef OPTION
	struct {
#define OPTION CST_OPTION_GIVEN
#include "cli/load_options.def"
#undef OPTION
#undef SECTION
	} given;
};

static const struct cst_option load_rows[] = {
#define SECTION CST_OPTION_SECTION_ROW
#define OPTION(...) CST_OPTION_ROW(load_options, __VA_ARGS__)
#include "cli/load_options.def"
#undef OPTION
#define OPTION(...) CST_OPTION_ROW(cst_mount_options, __VA_ARGS__)
#include "cli/cache_options.def"
	OPTION(config, PATH, "c conf config_file", "FILE", 0, 0, NULL, 0,
	       "Configuration file of a mount: its store, credentials, limits and cache are used, the command line goes before it.")
#include "cli/access_options.def"
#undef OPTION
#undef SECTION
};
static const struct cst_option_table load_table = {load_rows, CST_ARRAY_LEN(load_rows), "cistern load", false};

struct load {
	struct load_options o;
	struct cst_option_set set;
	struct cst_cache_choice cache;
	struct cst_load_groups groups;
	FILE *report;
	struct cst_load_show show;
	struct cst_load_progress total; /* of the groups before */
	bool incomplete;
};

/* ---- interrupts ---- */

static volatile sig_atomic_t interrupted;

static void interrupt(int number)
{
	interrupted = 1;
	signal(number, SIG_DFL); /* the second one ends it at once */
}

static void catch_interrupts(void)
{
	struct sigaction action = {.sa_handler = interrupt};
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* ---- what was asked for ---- */

static int no_target(struct cst_error *err)
{
	cst_error_set(err, EINVAL, "nothing to load was named");
	cst_error_hint(err, "cistern load oss://BUCKET/PREFIX --cache-dir DIR, or cistern load MOUNTPOINT/path");
	return -EINVAL;
}

static int take_targets(struct load *l, struct cst_error *err)
{
	const struct cst_option_list *args = &l->set.arguments;
	int rc = 0;
	if (l->o.list.count == 0) {
		for (size_t i = 0; i < args->count && rc == 0; i++)
			rc = cst_load_groups_add(&l->groups, args->items[i], err);
		return rc == 0 && args->count == 0 ? no_target(err) : rc;
	}
	if (args->count > 1) {
		cst_error_set(err, EINVAL, "too many arguments for --list");
		cst_error_why(err, "its lines are meant below one URL or path");
		cst_error_hint(err, "name one of them, or none and write URLs into the list");
		return -EINVAL;
	}
	for (size_t i = 0; i < l->o.list.count && rc == 0; i++)
		rc = cst_load_groups_add_list(&l->groups, l->o.list.items[i], l->o.null,
					      args->count ? args->items[0] : NULL, err);
	return rc;
}

/* What is wrong with the options shows before anything is opened. */
static int check_access(struct load *l, const struct cst_load_group *g, struct cst_error *err)
{
	struct cst_access a = {.url = g->url};
	cst_access_name(&a);
	int rc = cst_access_resolve(&a, &l->o.m, false, err);
	cst_access_fini(&a);
	return rc;
}

/* A mount loads as it was mounted: options that would say otherwise must not seem to have an effect. */
static int refuse_store_options(const struct load *l, const struct cst_load_group *g, struct cst_error *err)
{
	for (size_t i = 0; i < load_table.count; i++) {
		const struct cst_option *option = &load_rows[i];
		bool shared = option->type != CST_OPTION_SECTION && option->given < sizeof(l->o.m);
		if (!shared || ((const uint8_t *)&l->o)[option->given] != CST_OPTION_FROM_USER ||
		    strcmp(option->name, "config") == 0)
			continue;
		cst_error_set(err, EINVAL, "%s can't be used for the mount on %s", option->name, g->mountpoint);
		cst_error_why(err, "it loads into its own cache, from its own store, within its own limits");
		cst_error_hint(err, "leave it out, or load from the URL of the bucket");
		return -EINVAL;
	}
	return 0;
}

/* Loads of mounts go into their caches; those of URLs need one, and have no listings. */
static int check_groups(struct load *l, struct cst_error *err)
{
	for (size_t i = 0; i < l->groups.count; i++) {
		const struct cst_load_group *g = &l->groups.items[i];
		if (g->mountpoint && refuse_store_options(l, g, err) != 0)
			return -EINVAL;
		if (!g->mountpoint && l->o.metadata) {
			cst_error_set(err, EINVAL, "metadata of a URL can't be loaded");
			cst_error_why(err, "listings are kept by a mount, in its memory");
			cst_error_hint(err, "mount it and name the mountpoint, or leave --metadata out");
			return -EINVAL;
		}
		if (!g->mountpoint && l->cache.level_count == 0)
			return cst_cache_choice_none(err);
		int rc = g->mountpoint ? 0 : check_access(l, g, err);
		if (rc != 0)
			return rc;
	}
	return 0;
}

static int open_report(struct load *l, struct cst_error *err)
{
	if (!l->o.report)
		return 0;
	l->report = fopen(l->o.report, "we");
	if (l->report)
		return 0;
	int code = errno;
	cst_error_set(err, EINVAL, "can't write the report %s", l->o.report);
	cst_error_why(err, "%s", strerror(code));
	return -EINVAL;
}

static int start_log(const struct load *l, struct cst_error *err)
{
	struct cst_log_config log = {.json = false};
	if (cst_log_parse_level(l->o.log_level, &log.level) != 0) {
		cst_error_set(err, EINVAL, "bad value \"%s\" for --log-level", l->o.log_level);
		cst_error_hint(err, "one of error, warn, info, debug, trace");
		return -EINVAL;
	}
	return cst_log_init(&log, err);
}

static int read_config(struct load *l, struct cst_error *err)
{
	if (!l->o.m.config)
		return 0;
	CST_AUTO_FREE char *path = cst_xstrdup(l->o.m.config);
	l->set.table = &cst_mount_table;
	int rc = cst_option_parse_file(&l->set, path, err);
	l->set.table = &load_table;
	return rc;
}

static int prepare(struct load *l, struct cst_error *err)
{
	int rc = read_config(l, err);
	if (rc == 0)
		rc = start_log(l, err);
	if (rc == 0)
		rc = cst_cache_choice_resolve(&l->cache, &l->o.m, err);
	if (rc == 0)
		rc = take_targets(l, err);
	if (rc == 0)
		rc = check_groups(l, err);
	return rc ? rc : open_report(l, err);
}

/* ---- metadata ---- */

static void walk_failed(void *arg, const char *path, int code)
{
	struct load *l = arg;
	cst_load_show_failure(&l->show, path, strerror(code));
}

static json_t *ask_mount(const char *mountpoint, const char *method, const char *target, struct cst_slice body)
{
	CST_AUTO_BUF answer = CST_BUF_INIT;
	struct cst_error err = CST_ERROR_INIT;
	if (cst_control_call(mountpoint, method, target, body, &answer, &err) != 0)
		return NULL;
	return json_loadb(answer.data ? answer.data : "", answer.len, 0, NULL);
}

/* The mount lists what is below a directory, with few requests. What it doesn't bring, for whatever reason, the walk after it does. */
static void preload(struct load *l, const struct cst_load_group *g, const char *path)
{
	struct stat st;
	const char *below = path + strlen(g->mountpoint);
	if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
		return;
	below += strspn(below, "/");
	json_t *root = ask_mount(g->mountpoint, "POST", "/preloads", cst_slice_of(below));
	CST_AUTO_FREE char *target =
		cst_xasprintf("/preloads/%lld", (long long)json_integer_value(json_object_get(root, "id")));
	CST_AUTO_FREE char *cancel = cst_xasprintf("%s/cancel", target);
	bool cancelled = false;
	while (root && !json_is_true(json_object_get(root, "finished")) && !cancelled) {
		json_decref(root);
		cancelled = interrupted != 0;
		root = cancelled ? ask_mount(g->mountpoint, "POST", cancel, (struct cst_slice){0})
				 : ask_mount(g->mountpoint, "GET", target, (struct cst_slice){0});
		if (!root || json_is_true(json_object_get(root, "finished")) || cancelled)
			break;
		cst_load_show_metadata(&l->show, (uint64_t)json_integer_value(json_object_get(root, "directories")),
				       (uint64_t)json_integer_value(json_object_get(root, "keys")), false);
		cst_sleep(PRELOAD_POLL);
	}
	json_decref(root);
}

static void load_metadata(struct load *l, const struct cst_load_group *g)
{
	struct cst_load_walk_progress p = {0};
	for (size_t i = 0; i < g->paths.count && !interrupted; i++)
		preload(l, g, g->paths.items[i]);
	struct cst_load_walk *w = cst_load_walk_start(&g->paths, (unsigned)l->o.parallel, walk_failed, l);
	bool cancelled = false;
	while (!cst_load_walk_wait(w, POLL_EVERY, &p)) {
		cst_load_show_metadata(&l->show, p.dirs, p.names, false);
		if (interrupted && !cancelled)
			cst_load_walk_cancel(w);
		cancelled |= interrupted != 0;
	}
	cst_load_walk_free(w);
	cst_load_show_metadata(&l->show, p.dirs, p.names, true);
	l->incomplete |= p.failed > 0;
}

/* ---- data ---- */

static void add_progress(struct cst_load_progress *sum, const struct cst_load_progress *p)
{
	sum->objects += p->objects;
	sum->bytes += p->bytes;
	sum->objects_done += p->objects_done;
	sum->bytes_done += p->bytes_done;
	sum->bytes_fetched += p->bytes_fetched;
	sum->objects_skipped += p->objects_skipped;
	sum->objects_vanished += p->objects_vanished;
	sum->objects_failed += p->objects_failed;
	sum->objects_refused += p->objects_refused;
	sum->listed = p->listed;
	sum->finished = p->finished;
}

static void object_failed(void *arg, const char *key, const char *why)
{
	struct load *l = arg;
	cst_load_show_failure(&l->show, key, why);
}

static int wait_for_job(struct load *l, struct cst_load_job *job, struct cst_load_progress *p, struct cst_error *err)
{
	bool cancelled = false;
	for (;;) {
		int rc = cst_load_job_poll(job, POLL_EVERY, p, err);
		if (rc != 0)
			return rc;
		struct cst_load_progress sum = l->total;
		add_progress(&sum, p);
		cst_load_show_progress(&l->show, &sum);
		if (p->finished)
			return 0;
		if (interrupted && !cancelled)
			cst_load_job_cancel(job);
		cancelled |= interrupted != 0;
	}
}

/* 0, or -errno with err: it could not start, or the mount went away. */
static int load_group(struct load *l, const struct cst_load_group *g, struct cst_error *err)
{
	struct cst_load_progress p = {0};
	uint64_t told = l->show.failures;
	struct cst_load_job_config config = {.o = &l->o.m,
					     .cache = &l->cache,
					     .group = g,
					     .parallel = (unsigned)l->o.parallel,
					     .level = (unsigned)l->o.level,
					     .pin = l->o.pin,
					     .failure = object_failed,
					     .arg = l};
	struct cst_load_job *job = cst_load_job_start(&config, err);
	if (!job)
		return err->code ? -err->code : -EIO;
	int rc = wait_for_job(l, job, &p, err);
	add_progress(&l->total, &p);
	l->incomplete |= p.rc != 0 || p.objects_failed > 0 || p.objects_refused > 0;
	const char *end = cst_load_job_end_text(job);
	cst_load_show_clear(&l->show);
	if (end[0] && p.rc != -ECANCELED && l->show.failures == told)
		cst_cli_say("%s", end);
	cst_load_job_free(job);
	return rc;
}

static int run_groups(struct load *l)
{
	struct cst_error err = CST_ERROR_INIT;
	bool data = l->o.data || !l->o.metadata;
	int rc = 0;
	for (size_t i = 0; i < l->groups.count && rc == 0 && !interrupted; i++) {
		if (l->o.metadata)
			load_metadata(l, &l->groups.items[i]);
		if (data && !interrupted)
			rc = load_group(l, &l->groups.items[i], &err);
	}
	cst_load_show_clear(&l->show);
	if (rc != 0)
		return cst_cli_fail(&err, CST_EXIT_FAILED);
	if (data)
		cst_load_show_summary(&l->show, &l->total, interrupted != 0);
	return l->incomplete || interrupted ? CST_EXIT_FAILED : CST_EXIT_OK;
}

static int run_load(struct load *l)
{
	struct cst_error err = CST_ERROR_INIT;
	int rc = prepare(l, &err);
	for (size_t i = 0; i < l->set.warnings.count; i++)
		cst_cli_say("%s", l->set.warnings.items[i]);
	if (rc != 0)
		return cst_cli_fail(&err, rc == -EINVAL ? CST_EXIT_USAGE : CST_EXIT_FAILED);
	enum cst_load_show_mode mode = l->o.output == 1 ? CST_SHOW_JSON : l->o.quiet ? CST_SHOW_QUIET : CST_SHOW_BAR;
	cst_cli_raise_nofile();
	catch_interrupts();
	cst_load_show_init(&l->show, mode, l->report);
	int status = run_groups(l);
	if (l->report && fclose(l->report) != 0 && status == CST_EXIT_OK)
		status = CST_EXIT_FAILED;
	return status;
}

static int run(int argc, char **argv)
{
	struct load *l = CST_NEW(struct load);
	int status;
	if (cst_cli_parse(&cst_command_load, &l->set, &l->o, sizeof(l->o), argc, argv, 0, SIZE_MAX, &status))
		status = run_load(l);
	cst_access_forget_secrets(&l->o.m);
	cst_load_groups_fini(&l->groups);
	cst_cache_choice_fini(&l->cache);
	/* What only the table of mount knows came from a configuration file. */
	l->set.table = &load_table;
	cst_option_set_fini(&l->set);
	l->set.table = &cst_mount_table;
	cst_option_set_fini(&l->set);
	free(l);
	return status;
}

const struct cst_command cst_command_load = {
	.name = "load",
	.synopsis = "URL... --cache-dir DIR[:QUOTA] [--endpoint URL] [options]\n"
		    "URL... --cache-level MEDIUM:PATH:QUOTA:HIGH:LOW... [options]\n"
		    "MOUNTPOINT/path... [--metadata] [options]",
	.summary = "Bring objects into a cache on disk before they are read",
	.description =
		"URL is oss://BUCKET/KEY, oss://BUCKET/PREFIX/, or a pattern in quotes: * and ? match within one folder, ** across, [abc] one of "
		"them; a backslash hides such a character. A path names a file or directory of a mount (or a pattern there, if no such file "
		"exists), which then loads into its own cache.\n\n"
		"What is in the cache already is skipped, and what is there in part is completed; so a load that was interrupted, or lost "
		"some objects to errors, goes on when the same command is run again. Several loads and mounts may use one cache directory at the same "
		"time; the quota is that of the one which opened it first, until that ends.\n\n"
		"--metadata has a mount list all that is below the paths, a thousand names a request, and reads the directories, so that it can answer lookups and "
		"listings from memory for as long as --list-timeout says, within --metadata-memory.\n\n"
		"Exit status 0 means that everything that was named is in the cache. Otherwise the first failures are told on standard error, all "
		"of them in --report, and the status is 1. An object that doesn't fit into the quota is a failure. Objects that vanish from "
		"the store meanwhile are none.",
	.examples =
		"cistern load oss://models/llama/ --cache-dir /var/cache/cistern:200GiB --endpoint https://oss-cn-hangzhou.aliyuncs.com\n"
		"Loads a prefix; a mount with the same --cache-dir finds it there.\n\n"
		"cistern load 'oss://models/**/*.safetensors' --cache-dir /var/cache/cistern --pin\n"
		"Loads what matches and keeps it until it is unpinned.\n\n"
		"cistern load /mnt/models/llama /mnt/models/config.json --metadata --data\n"
		"Has the mount load a directory and a file, and their listings.\n\n"
		"cistern load oss://train --list epoch1.txt --cache-dir /nvme/c --origin-bandwidth 500MiB --report failed.txt\n"
		"Loads the keys in a list at no more than 500 MiB/s, and writes down what failed.\n",
	.options = &load_table,
	.run = run,
};
