#define CST_LOG_AREA "cache"
#include "base/log.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/cache_choice.h"
#include "cli/cli.h"
#include "cli/mount_options.h"

#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

/* More than any disk: commands that only look must not make room. */
#define NO_QUOTA (UINT64_C(1) << 60)

/* The options that mount has too are its members. */
struct cache_options {
	struct cst_mount_options m;
#define OPTION CST_OPTION_MEMBER
#define SECTION(title)
#include "cli/cache_cmd_options.def"
#undef OPTION
	struct {
#define OPTION CST_OPTION_GIVEN
#include "cli/cache_cmd_options.def"
#undef OPTION
#undef SECTION
	} given;
};

static const struct cst_option cache_rows[] = {
#define SECTION CST_OPTION_SECTION_ROW
#define OPTION(...) CST_OPTION_ROW(cache_options, __VA_ARGS__)
#include "cli/cache_cmd_options.def"
#undef OPTION
#define OPTION(...) CST_OPTION_ROW(cst_mount_options, __VA_ARGS__)
#include "cli/cache_options.def"
#undef OPTION
#undef SECTION
};
static const struct cst_option_table cache_table = {cache_rows, CST_ARRAY_LEN(cache_rows), "cistern cache", false};

struct totals {
	uint64_t entries, size, cached, pinned, complete, in_use;
};
struct work {
	struct cache_options o;
	struct cst_cache_choice choice;
	enum cst_cache_medium media[CST_CACHE_LEVELS]; /* as they were named */
	bool has_quota[CST_CACHE_LEVELS];
	struct cst_cache *cache;
	char *prefix; /* "" or "oss://BUCKET/…" */
	struct totals levels[CST_CACHE_LEVELS];
	uint64_t bad;
};

static bool as_json(const struct work *w)
{
	return w->o.output == 1;
}

static void add_json_text(struct cst_buf *out, const char *name, struct cst_slice text)
{
	cst_buf_printf(out, "\"%s\": ", name);
	cst_text_json_string(out, text);
}

/* ---- ls ---- */

static void add_name(struct cst_buf *out, const struct cst_cache_entry *e)
{
	cst_buf_printf(out, "%s/", e->bucket);
	cst_buf_add_slice(out, e->key);
}

static void print_json(const struct work *w, const struct cst_cache_entry *e)
{
	CST_AUTO_BUF out = CST_BUF_INIT;
	char used[CST_TIME_TEXT];
	cst_time_iso(e->used, used);
	cst_buf_add_char(&out, '{');
	add_json_text(&out, "bucket", cst_slice_of(e->bucket));
	cst_buf_add_str(&out, ", ");
	add_json_text(&out, "key", e->key);
	cst_buf_add_str(&out, ", ");
	add_json_text(&out, "etag", cst_slice_of(e->etag));
	printf("%s, \"size\": %llu, \"cached\": %llu, \"level\": %u, \"medium\": \"%s\", \"pinned\": %s, \"complete\": %s, "
	       "\"in_use\": %s, \"used\": \"%s\"}\n",
	       out.data, (unsigned long long)e->size, (unsigned long long)e->cached, e->level,
	       cst_cli_medium_name(w->media[e->level]), e->pinned ? "true" : "false", e->complete ? "true" : "false",
	       e->in_use ? "true" : "false", used);
}

static double percent(uint64_t part, uint64_t whole)
{
	return whole > 0 ? 100.0 * (double)cst_min(part, whole) / (double)whole : 100.0;
}

static bool print_entry(void *arg, const struct cst_cache_entry *e)
{
	const struct work *w = arg;
	CST_AUTO_BUF name = CST_BUF_INIT;
	CST_AUTO_BUF shown = CST_BUF_INIT;
	char size[CST_SIZE_TEXT], used[CST_TIME_TEXT];
	if (as_json(w)) {
		print_json(w, e);
		return !ferror(stdout);
	}
	add_name(&name, e);
	cst_text_printable(&shown, cst_buf_slice(&name));
	cst_format_size(e->size, size);
	printf("%11s %5.1f %% %u:%s %c%c%c ", size, percent(e->cached, e->size), e->level,
	       cst_cli_medium_name(w->media[e->level]), e->complete ? 'c' : '-', e->pinned ? 'p' : '-',
	       e->in_use ? 'u' : '-');
	cst_time_iso(e->used, used);
	if (w->o.details)
		printf("%.16sZ %-34s ", used, e->etag);
	printf("%s\n", shown.data);
	return !ferror(stdout);
}

static int list(struct work *w, struct cst_error *err)
{
	return cst_cache_list(w->cache, w->prefix, print_entry, w, err);
}

/* ---- stat ---- */

static bool count_entry(void *arg, const struct cst_cache_entry *e)
{
	struct work *w = arg;
	struct totals *t = &w->levels[e->level];
	t->entries++;
	t->size += e->size;
	t->cached += e->cached;
	t->pinned += e->pinned;
	t->complete += e->complete;
	t->in_use += e->in_use;
	return true;
}

static void print_level_json(const struct work *w, const struct cst_cache_level_stats *l, unsigned i)
{
	const struct totals *t = &w->levels[i];
	CST_AUTO_BUF out = CST_BUF_INIT;
	add_json_text(&out, "paths", cst_slice_of(l->paths));
	cst_buf_add_str(&out, ", ");
	add_json_text(&out, "state", cst_slice_of(l->state));
	printf("{\"level\": %u, \"medium\": \"%s\", %s, \"used\": %llu, \"entries\": %llu, \"bytes\": %llu, \"cached\": %llu, "
	       "\"pinned\": %llu, \"complete\": %llu, \"in_use\": %llu, \"owner\": %s",
	       i, cst_cli_medium_name(w->media[i]), out.data, (unsigned long long)l->used,
	       (unsigned long long)t->entries, (unsigned long long)t->size, (unsigned long long)t->cached,
	       (unsigned long long)t->pinned, (unsigned long long)t->complete, (unsigned long long)t->in_use,
	       l->owner ? "true" : "false");
	if (w->has_quota[i] || !l->owner)
		printf(", \"quota\": %llu", (unsigned long long)l->quota);
	printf("}\n");
}

static void print_level(const struct work *w, const struct cst_cache_level_stats *l, unsigned i)
{
	const struct totals *t = &w->levels[i];
	char used[CST_SIZE_TEXT], quota[CST_SIZE_TEXT], cached[CST_SIZE_TEXT], size[CST_SIZE_TEXT];
	cst_format_size(l->used, used);
	cst_format_size(l->quota, quota);
	cst_format_size(t->cached, cached);
	cst_format_size(t->size, size);
	/* A quota that nobody named is not the one that a mount will use. */
	bool known = w->has_quota[i] || !l->owner;
	printf("level %u  %s %s (%s)\n", i, cst_cli_medium_name(w->media[i]), l->paths, l->state);
	printf("  used      %s%s%s\n", used, known ? " of " : "", known ? quota : "");
	printf("  entries   %llu, %s of %s cached (%.1f %%)\n", (unsigned long long)t->entries, cached, size,
	       percent(t->cached, t->size));
	printf("  complete  %llu\n  pinned    %llu\n  in use    %llu\n", (unsigned long long)t->complete,
	       (unsigned long long)t->pinned, (unsigned long long)t->in_use);
	printf("  index     %s\n", l->owner ? "no other process has the cache open" : "another process keeps it");
}

static int stat_cache(struct work *w, struct cst_error *err)
{
	struct cst_cache_stats stats = {0};
	int rc = cst_cache_list(w->cache, w->prefix, count_entry, w, err);
	if (rc != 0)
		return rc;
	cst_cache_stats(w->cache, &stats);
	for (unsigned i = 0; i < stats.level_count; i++)
		(as_json(w) ? print_level_json : print_level)(w, &stats.levels[i], i);
	return 0;
}

/* ---- verify ---- */

static void print_bad(void *arg, const struct cst_cache_entry *e, uint64_t block)
{
	struct work *w = arg;
	CST_AUTO_BUF name = CST_BUF_INIT;
	CST_AUTO_BUF shown = CST_BUF_INIT;
	w->bad++;
	add_name(&name, e);
	if (as_json(w)) {
		add_json_text(&shown, "name", cst_buf_slice(&name));
		printf("{\"bad\": {%s, \"level\": %u, \"block\": %llu}}\n", shown.data, e->level,
		       (unsigned long long)block);
		return;
	}
	cst_text_printable(&shown, cst_buf_slice(&name));
	printf("bad: %s block %llu (level %u), dropped\n", shown.data, (unsigned long long)block, e->level);
}

static int verify(struct work *w, struct cst_error *err)
{
	struct cst_cache_verify v = {0};
	int rc = cst_cache_verify(w->cache, w->prefix, w->o.rate, print_bad, w, &v, err);
	if (rc != 0)
		return rc;
	char bytes[CST_SIZE_TEXT];
	cst_format_size(v.bytes, bytes);
	if (as_json(w))
		printf("{\"entries\": %llu, \"bytes\": %llu, \"bad_blocks\": %llu, \"bad_entries\": %llu}\n",
		       (unsigned long long)v.entries, (unsigned long long)v.bytes, (unsigned long long)v.bad_blocks,
		       (unsigned long long)v.bad_entries);
	else
		printf("Read %llu entries, %s: %llu bad blocks in %llu entries%s.\n", (unsigned long long)v.entries,
		       bytes, (unsigned long long)v.bad_blocks, (unsigned long long)v.bad_entries,
		       v.bad_blocks + v.bad_entries > 0 ? "; they are dropped and will be fetched again" : "");
	w->bad += v.bad_blocks + v.bad_entries;
	return 0;
}

/* ---- drop, pin, unpin ---- */

static int report_count(const struct work *w, int64_t count, const char *json, const char *text)
{
	if (count < 0)
		return (int)count;
	if (as_json(w))
		printf("{\"%s\": %lld}\n", json, (long long)count);
	else
		printf("%s %lld %s.\n", text, (long long)count, count == 1 ? "entry" : "entries");
	return 0;
}

static int need_prefix(const struct work *w, struct cst_error *err)
{
	if (w->prefix[0] != '\0' || w->o.all)
		return 0;
	cst_error_set(err, EINVAL, "no prefix was named");
	cst_error_hint(err, "name one (oss://BUCKET/PREFIX), or say --all for the whole cache");
	return -EINVAL;
}

static int drop(struct work *w, struct cst_error *err)
{
	int rc = need_prefix(w, err);
	return rc ? rc : report_count(w, cst_cache_drop(w->cache, w->prefix, err), "dropped", "Dropped");
}

static int pin(struct work *w, struct cst_error *err)
{
	int rc = need_prefix(w, err);
	return rc ? rc : report_count(w, cst_cache_pin(w->cache, w->prefix, true, err), "pinned", "Pinned");
}

static int unpin(struct work *w, struct cst_error *err)
{
	int rc = need_prefix(w, err);
	return rc ? rc : report_count(w, cst_cache_pin(w->cache, w->prefix, false, err), "unpinned", "Unpinned");
}

/* ---- all of them ---- */

static const struct action {
	const char *name;
	int (*run)(struct work *w, struct cst_error *err);
} actions[] = {{"ls", list}, {"stat", stat_cache}, {"verify", verify}, {"drop", drop}, {"pin", pin}, {"unpin", unpin}};

static const struct action *find_action(const char *name, struct cst_error *err)
{
	const char *names[CST_ARRAY_LEN(actions)];
	for (size_t i = 0; i < CST_ARRAY_LEN(actions); i++) {
		names[i] = actions[i].name;
		if (strcmp(name, actions[i].name) == 0)
			return &actions[i];
	}
	const char *near = cst_option_nearest(cst_slice_of(name), names, CST_ARRAY_LEN(actions));
	cst_error_set(err, EINVAL, "cistern cache can't %s", name);
	cst_error_hint(err, "%s%s%sit can ls, stat, verify, drop, pin and unpin", near ? "did you mean " : "",
		       near ? near : "", near ? "? " : "");
	return NULL;
}

/* The cache calls objects BUCKET/KEY, and a bucket's name must not stand for those that begin with it. */
static int take_prefix(struct work *w, const char *text, struct cst_error *err)
{
	bool url = cst_url_is(text);
	if (!url) {
		cst_error_set(err, EINVAL, "bad prefix %.200s", text);
		cst_error_why(err, "it begins with neither oss:// nor s3://");
		cst_error_hint(err, "write oss://BUCKET/KEY-PREFIX, as cistern cache ls shows them");
		return -EINVAL;
	}
	w->prefix = cst_xasprintf("%s%s", text, strchr(strstr(text, "://") + 3, '/') ? "" : "/");
	for (char *c = w->prefix; *c != ':'; c++)
		*c = (char)(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
	return 0;
}

static int start_log(const struct work *w, struct cst_error *err)
{
	struct cst_log_config log = {.json = false};
	if (cst_log_parse_level(w->o.log_level, &log.level) == 0)
		return cst_log_init(&log, err);
	cst_error_set(err, EINVAL, "bad value \"%s\" for --log-level", w->o.log_level);
	cst_error_hint(err, "one of error, warn, info, debug, trace");
	return -EINVAL;
}

static bool names_quota(const struct cst_cache_level *level)
{
	bool named = level->quota > 0;
	for (unsigned i = 0; i < level->path_count; i++)
		named |= level->paths[i].quota > 0;
	return named;
}

/* Half of what is free now: so nothing has to go for that, and a mount that joins meanwhile leaves room too. */
static uint64_t keep_free(const struct cst_cache_choice *choice)
{
	uint64_t least = UINT64_MAX;
	for (unsigned i = 0; i < choice->level_count; i++) {
		for (unsigned k = 0; k < choice->levels[i].path_count; k++) {
			struct statvfs fs;
			if (statvfs(choice->levels[i].paths[k].path, &fs) == 0)
				least = cst_min(least, (uint64_t)fs.f_bavail * fs.f_frsize);
		}
	}
	return least == UINT64_MAX ? 0 : cst_max(least / 2, UINT64_C(1));
}

/* This process may become the one that evicts, for as long as it runs. Where no quota was named it must not use one of its own making. */
static int open_cache(struct work *w, struct cst_error *err)
{
	if (w->choice.level_count == 0)
		return cst_cache_choice_none(err);
	for (unsigned i = 0; i < w->choice.level_count; i++) {
		struct cst_cache_level *level = &w->choice.levels[i];
		w->media[i] = level->medium;
		w->has_quota[i] = names_quota(level);
		if (w->has_quota[i])
			continue;
		level->quota = NO_QUOTA;
		level->medium = CST_CACHE_SSD; /* whose quota no memory limit is compared with */
	}
	if (w->choice.keep_free == 0)
		w->choice.keep_free = keep_free(&w->choice);
	w->cache = cst_cache_choice_open(&w->choice, "", CST_CACHE_STREAM, &w->o.m, err);
	return w->cache ? 0 : -EIO;
}

static int run_action(struct work *w, const struct cst_option_list *args)
{
	struct cst_error err = CST_ERROR_INIT;
	const struct action *action = find_action(args->items[0], &err);
	int rc = action ? start_log(w, &err) : -EINVAL;
	if (rc == 0 && args->count > 1)
		rc = take_prefix(w, args->items[1], &err);
	else
		w->prefix = cst_xstrdup("");
	w->o.m.check_cache_dir_exist = true;
	if (rc == 0)
		rc = cst_cache_choice_resolve(&w->choice, &w->o.m, &err);
	if (rc == 0)
		rc = open_cache(w, &err);
	if (rc == 0)
		rc = action->run(w, &err);
	if (w->cache)
		cst_cache_free(w->cache);
	if (rc != 0)
		return cst_cli_fail(&err, rc == -EINVAL ? CST_EXIT_USAGE : CST_EXIT_FAILED);
	return w->bad > 0 ? CST_EXIT_FAILED : CST_EXIT_OK;
}

static int run(int argc, char **argv)
{
	struct work *w = CST_NEW(struct work);
	struct cst_option_set set;
	int status;
	if (cst_cli_parse(&cst_command_cache, &set, &w->o, sizeof(w->o), argc, argv, 1, 2, &status))
		status = run_action(w, &set.arguments);
	cst_option_set_fini(&set);
	cst_cache_choice_fini(&w->choice);
	free(w->prefix);
	free(w);
	return status;
}

const struct cst_command cst_command_cache = {
	.name = "cache",
	.synopsis = "ls [PREFIX] --cache-dir DIR [-l]\n"
		    "stat [PREFIX] --cache-dir DIR\n"
		    "verify [PREFIX] --cache-dir DIR [--rate RATE]\n"
		    "drop PREFIX|--all --cache-dir DIR\n"
		    "pin|unpin PREFIX|--all --cache-dir DIR",
	.summary = "Look at a cache on disk, check it, drop or pin what is in it",
	.description =
		"PREFIX is oss://BUCKET or oss://BUCKET/KEY-PREFIX; without one all of the cache is meant. The cache is named as to mount, by "
		"--cache-dir or by a --cache-level for each level; quotas may be left out. It works while mounts and loads use the cache (through the process that "
		"keeps the index), and when none does.\n\n"
		"ls writes a line for each object: size, cached share, level, flags (c: complete and checked, p: pinned, u: in use), name; -l adds last use and "
		"ETag. An object that changed in the store while it was in use may show twice. stat adds up by level.\n\n"
		"verify reads everything again and compares checksums; what is bad is dropped and told, and fetched again when it is read. drop forgets objects; "
		"those in use stay readable for those who have them open. pin keeps objects from being evicted, also those that come below "
		"the prefix later; unpin undoes it.\n\n"
		"Exit status 1 means that it failed, or that verify found something bad; 2 that the command line is wrong.",
	.examples = "cistern cache ls oss://models/llama/ --cache-dir /var/cache/cistern\n"
		    "Shows what is there below a prefix.\n\n"
		    "cistern cache verify --cache-dir /var/cache/cistern --rate 200MiB\n"
		    "Checks all of it without taking the whole disk.\n\n"
		    "cistern cache drop oss://train/2023/ --cache-level MEM:/dev/shm/c --cache-level SSD:/nvme/c\n"
		    "Forgets a prefix in both levels.\n",
	.words = "ls stat verify drop pin unpin",
	.options = &cache_table,
	.run = run,
};
