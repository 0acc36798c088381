#define CST_LOG_AREA "cache"
#include "cli/cache_choice.h"

#include "base/log.h"
#include "base/units.h"
#include "cli/mount_options.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

static int contradiction(struct cst_error *err, const char *a, const char *b, const char *why)
{
	cst_error_set(err, EINVAL, "%s and %s exclude each other", a, b);
	cst_error_why(err, "%s", why);
	cst_error_hint(err, "leave one of them out");
	return -EINVAL;
}

/* What shells do not expand behind an "=" or a ":" is expanded here. */
static char *absolute(const char *path)
{
	const char *home = getenv("HOME");
	if (strncmp(path, "~/", 2) == 0 && home && home[0] == '/')
		return cst_xasprintf("%s/%s", home, path + 2);
	CST_AUTO_FREE char *cwd = path[0] == '/' ? NULL : getcwd(NULL, 0);
	return cwd ? cst_xasprintf("%s/%s", cwd, path) : cst_xstrdup(path);
}

static int check_exists(const struct cst_cache_level *level, struct cst_error *err)
{
	for (unsigned i = 0; i < level->path_count; i++) {
		struct stat st;
		if (stat(level->paths[i].path, &st) == 0)
			continue;
		int code = errno;
		cst_error_set(err, code, "can't use the cache directory %s", level->paths[i].path);
		cst_error_why(err, "%s", strerror(code));
		cst_error_hint(
			err,
			"name the directory of a cache, or make it; a mount without check_cache_dir_exist makes it by itself");
		return -code;
	}
	return 0;
}

static int add_dir(struct cst_cache_choice *choice, const struct cst_mount_options *o, struct cst_error *err)
{
	/* The medium is found out from the path, so it must be the right one already. */
	CST_AUTO_FREE char *text = absolute(o->cache_dir);
	struct cst_cache_level *level = &choice->levels[0];
	int rc = cst_cache_dir_parse(text, level, err);
	if (rc != 0)
		return rc;
	choice->level_count = 1;
	if (level->quota == 0)
		level->quota = o->cache_quota;
	else if (o->given.cache_quota && o->cache_quota != level->quota)
		return contradiction(err, "the quota in cache_dir", "cache_quota", "they name different sizes");
	return 0;
}

static int add_levels(struct cst_cache_choice *choice, const struct cst_mount_options *o, struct cst_error *err)
{
	if (o->cache_level.count > CST_CACHE_LEVELS) {
		cst_error_set(err, EINVAL, "%zu cache levels are too many", o->cache_level.count);
		cst_error_hint(err, "at most %d; one level may have several paths", CST_CACHE_LEVELS);
		return -EINVAL;
	}
	for (size_t i = 0; i < o->cache_level.count; i++) {
		struct cst_cache_level *level = &choice->levels[choice->level_count];
		int rc = cst_cache_level_parse(o->cache_level.items[i], level, err);
		if (rc != 0)
			return rc;
		choice->level_count++;
		for (unsigned p = 0; p < level->path_count; p++) {
			char *path = absolute(level->paths[p].path);
			free(level->paths[p].path);
			level->paths[p].path = path;
		}
	}
	return 0;
}

int cst_cache_choice_resolve(struct cst_cache_choice *choice, const struct cst_mount_options *o, struct cst_error *err)
{
	*choice = (struct cst_cache_choice){.keep_free = o->cache_keep_free};
	if (!o->given.cache_keep_free && o->ensure_diskfree > 0)
		choice->keep_free = (uint64_t)o->ensure_diskfree << 20;
	bool dir = o->cache_dir && o->cache_dir[0] != '\0';
	if (dir && o->cache_level.count > 0)
		return contradiction(err, "cache_dir", "cache_level",
				     "one is a cache of one level, the other of several");
	int rc = dir ? add_dir(choice, o, err) : add_levels(choice, o, err);
	for (unsigned i = 0; i < choice->level_count && rc == 0 && o->check_cache_dir_exist; i++)
		rc = check_exists(&choice->levels[i], err);
	return rc;
}

void cst_cache_choice_fini(struct cst_cache_choice *choice)
{
	for (unsigned i = 0; i < choice->level_count; i++)
		cst_cache_level_fini(&choice->levels[i]);
	*choice = (struct cst_cache_choice){0};
}

int cst_cache_choice_none(struct cst_error *err)
{
	cst_error_set(err, EINVAL, "no cache was named");
	cst_error_hint(err, "give --cache-dir DIR, or --cache-level for each level as the mount has them");
	return -EINVAL;
}

struct cst_cache *cst_cache_choice_open(const struct cst_cache_choice *choice, const char *bucket,
					enum cst_cache_policy policy, const struct cst_mount_options *o,
					struct cst_error *err)
{
	struct cst_cache_config config = {.levels = choice->levels,
					  .level_count = choice->level_count,
					  .policy = policy,
					  .bucket = bucket,
					  .keep_free = choice->keep_free,
					  .memory = o->memory,
					  .finish_partial = o->cache_finish};
	return cst_cache_new(&config, err);
}

const char *cst_cli_medium_name(enum cst_cache_medium medium)
{
	static const char *const names[] = {"MEM", "SSD", "HDD"};
	return names[medium];
}

void cst_cache_describe(struct cst_cache *cache, struct cst_buf *out)
{
	struct cst_cache_stats stats = {0};
	cst_cache_stats(cache, &stats);
	for (unsigned i = 0; i < stats.level_count; i++) {
		const struct cst_cache_level_stats *l = &stats.levels[i];
		char quota[CST_SIZE_TEXT];
		cst_format_size(l->quota, quota);
		cst_buf_printf(out, "%s%s %s (%s%s%s)", i ? ", " : "", cst_cli_medium_name(l->medium), l->paths, quota,
			       strcmp(l->state, "ok") == 0 ? "" : "; ", strcmp(l->state, "ok") == 0 ? "" : l->state);
	}
}

void cst_cli_raise_nofile(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		cst_log_warn("can't raise the limit of open files: %s", strerror(errno));
}
