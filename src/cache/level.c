/* Levels: their text form, and what a path offers before a volume is opened on it. */
#define CST_LOG_AREA "cache"
#include "base/log.h"
#include "base/units.h"
#include "cache/cache_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#define FREE_MIN (UINT64_C(1) << 30)
#define FREE_MIN_MEM (UINT64_C(256) << 20)
#define SAMPLE_FILES 4096u
#define SAMPLE_FOLDERS 8u
/* A quota below this holds nothing worth the files. */
#define QUOTA_MIN (UINT64_C(1) << 20)

static const char *const medium_names[] = {[CST_CACHE_MEM] = "MEM", [CST_CACHE_SSD] = "SSD", [CST_CACHE_HDD] = "HDD"};

const char *cst_cache_medium_name(enum cst_cache_medium medium)
{
	return medium_names[medium];
}

void cst_cache_level_fini(struct cst_cache_level *level)
{
	for (unsigned i = 0; i < level->path_count; i++) {
		free(level->paths[i].path);
		level->paths[i].path = NULL;
	}
	level->path_count = 0;
}

/* ---- text ---- */

static int parse_medium(struct cst_slice text, enum cst_cache_medium *medium)
{
	for (unsigned i = 0; i < CST_ARRAY_LEN(medium_names); i++) {
		if (cst_slice_ieq(text, cst_slice_of(medium_names[i]))) {
			*medium = (enum cst_cache_medium)i;
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_bytes(struct cst_slice text, uint64_t *bytes)
{
	CST_AUTO_FREE char *copy = cst_xstrndup(text.data ? text.data : "", text.len);
	return cst_parse_size(copy, bytes);
}

/* A watermark: 0.95, 95 % or 95. */
static int parse_share(struct cst_slice text, double *share)
{
	CST_AUTO_FREE char *copy = cst_xstrndup(text.data ? text.data : "", text.len);
	char *end;
	*share = strtod(copy, &end);
	bool percent = *end == '%';
	if (percent)
		end++;
	if (end == copy || *end)
		return -EINVAL;
	if (percent || *share > 1)
		*share /= 100;
	return *share > 0 && *share <= 1 ? 0 : -EINVAL;
}

/* Without slashes at its end; a mount leaves the directory that a relative path begins in. */
static char *absolute(struct cst_slice path)
{
	while (path.len > 1 && path.data[path.len - 1] == '/')
		path.len--;
	if (path.data[0] == '/')
		return cst_xstrndup(path.data, path.len);
	CST_AUTO_FREE char *here = getcwd(NULL, 0);
	return cst_xasprintf("%s/%.*s", here ? here : "", (int)path.len, path.data);
}

static int parse_paths(struct cst_slice text, struct cst_cache_level *level, struct cst_error *err)
{
	while (text.len > 0) {
		struct cst_slice path = cst_slice_trim(cst_slice_cut(&text, ','));
		if (path.len == 0)
			continue;
		if (level->path_count == CST_CACHE_PATHS) {
			cst_error_why(err, "a level has at most %d paths", CST_CACHE_PATHS);
			return -EINVAL;
		}
		level->paths[level->path_count++].path = absolute(path);
	}
	if (level->path_count == 0)
		cst_error_why(err, "it names no path");
	return level->path_count ? 0 : -EINVAL;
}

/* One size is for the whole level; a list has one for each path. */
static int parse_quota(struct cst_slice text, struct cst_cache_level *level, struct cst_error *err)
{
	if (!memchr(text.data, ',', text.len)) {
		if (parse_bytes(text, &level->quota) == 0 && level->quota >= QUOTA_MIN)
			return 0;
		cst_error_why(err, "\"%.*s\" is not a quota (1MiB or more)", (int)text.len, text.data);
		return -EINVAL;
	}
	unsigned count = 0;
	for (struct cst_slice rest = text; rest.len > 0; count++) {
		struct cst_slice one = cst_slice_trim(cst_slice_cut(&rest, ','));
		if (count == level->path_count)
			break;
		if (parse_bytes(one, &level->paths[count].quota) != 0 || level->paths[count].quota < QUOTA_MIN) {
			cst_error_why(err, "\"%.*s\" is not a quota (1MiB or more)", (int)one.len, one.data);
			return -EINVAL;
		}
		level->quota += level->paths[count].quota;
		if (rest.len == 0 && count + 1 == level->path_count)
			return 0;
	}
	cst_error_why(err, "the number of quotas is not that of the %u paths", level->path_count);
	return -EINVAL;
}

static int parse_fields(struct cst_slice rest, struct cst_cache_level *level, struct cst_error *err)
{
	struct cst_slice medium = cst_slice_trim(cst_slice_cut(&rest, ':'));
	if (parse_medium(medium, &level->medium) != 0) {
		cst_error_why(err, "\"%.*s\" is none of MEM, SSD and HDD", (int)medium.len, medium.data);
		return -EINVAL;
	}
	if (parse_paths(cst_slice_cut(&rest, ':'), level, err) != 0)
		return -EINVAL;
	struct cst_slice field = cst_slice_trim(cst_slice_cut(&rest, ':'));
	if (field.len > 0 && parse_quota(field, level, err) != 0)
		return -EINVAL;
	struct cst_slice high = cst_slice_trim(cst_slice_cut(&rest, ':'));
	struct cst_slice low = cst_slice_trim(cst_slice_cut(&rest, ':'));
	if ((high.len > 0 && parse_share(high, &level->high) != 0) ||
	    (low.len > 0 && parse_share(low, &level->low) != 0)) {
		cst_error_why(err, "a watermark is a share of the quota between 0 and 1");
		return -EINVAL;
	}
	/* Only one of them given: the other stands in its usual distance. */
	if (high.len > 0 && low.len == 0 && level->low > level->high)
		level->low = level->high * 0.75;
	if (level->low > level->high) {
		cst_error_why(err, "the low watermark %g is above the high one %g", level->low, level->high);
		return -EINVAL;
	}
	if (rest.len > 0) {
		cst_error_why(err, "\"%.*s\" is too much", (int)rest.len, rest.data);
		return -EINVAL;
	}
	return 0;
}

int cst_cache_level_parse(const char *text, struct cst_cache_level *level, struct cst_error *err)
{
	*level = (struct cst_cache_level){.high = 0.8, .low = 0.6};
	cst_error_set(err, EINVAL, "\"%s\" is not a cache level", text);
	cst_error_hint(err, "MEDIUM:PATH[,PATH…][:QUOTA[,QUOTA…][:HIGH[:LOW]]], as in MEM:/dev/shm:2GiB:0.99:0.8");
	int rc = parse_fields(cst_slice_of(text), level, err);
	if (rc == 0)
		cst_error_clear(err);
	else
		cst_cache_level_fini(level);
	return rc;
}

/* The nearest directory that exists. */
static char *existing(const char *path)
{
	char *at = cst_xstrdup(path);
	struct stat st;
	while (stat(at, &st) != 0) {
		char *slash = strrchr(at, '/');
		if (!slash || slash == at) {
			strcpy(at, "/");
			break;
		}
		*slash = 0;
	}
	return at;
}

static bool is_memory(const char *path)
{
	struct statfs fs;
	return statfs(path, &fs) == 0 &&
	       ((unsigned long)fs.f_type == TMPFS_MAGIC || (unsigned long)fs.f_type == RAMFS_MAGIC);
}

static bool is_rotational(const char *path)
{
	struct stat st;
	if (stat(path, &st) != 0)
		return false;
	/* A partition has no queue of its own: it is its disk's. */
	static const char *const above[] = {"", "../"};
	for (unsigned i = 0; i < CST_ARRAY_LEN(above); i++) {
		char name[96], digit;
		snprintf(name, sizeof(name), "/sys/dev/block/%u:%u/%squeue/rotational", major(st.st_dev),
			 minor(st.st_dev), above[i]);
		CST_AUTO_CLOSE int fd = open(name, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && read(fd, &digit, 1) == 1)
			return digit == '1';
	}
	return false;
}

int cst_cache_dir_parse(const char *text, struct cst_cache_level *level, struct cst_error *err)
{
	*level = (struct cst_cache_level){.high = 0.95, .low = 0.9};
	size_t len = strlen(text);
	const char *colon = strrchr(text, ':');
	cst_error_set(err, EINVAL, "\"%s\" is not a cache directory", text);
	cst_error_hint(err, "DIR or DIR:QUOTA, as in /var/cache/cistern:100GiB");
	if (colon && !strchr(colon, '/')) {
		if (cst_parse_size(colon + 1, &level->quota) != 0 || level->quota < QUOTA_MIN) {
			cst_error_why(err, "\"%s\" is not a quota (1MiB or more)", colon + 1);
			return -EINVAL;
		}
		len = (size_t)(colon - text);
	}
	if (len == 0) {
		cst_error_why(err, "it is empty");
		return -EINVAL;
	}
	level->paths[0].path = absolute((struct cst_slice){text, len});
	level->path_count = 1;
	CST_AUTO_FREE char *at = existing(level->paths[0].path);
	level->medium = is_memory(at) ? CST_CACHE_MEM : is_rotational(at) ? CST_CACHE_HDD : CST_CACHE_SSD;
	cst_error_clear(err);
	return 0;
}

/* ---- the cgroup's memory ---- */

/* A number in a file; UINT64_MAX when there is none ("max"). */
static uint64_t read_limit(const char *path)
{
	CST_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[32];
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return UINT64_MAX;
	text[n] = 0;
	char *end;
	unsigned long long value = strtoull(text, &end, 10);
	/* v1 says "no limit" with a number near 2^63. */
	return end == text || value > (UINT64_C(1) << 60) ? UINT64_MAX : value;
}

/* The smallest limit of a cgroup and those above it. In a container the path may be that of the host: what is mounted is then the
 * container's own, at the root. */
static uint64_t walk_limits(const char *root, char *group, const char *file)
{
	uint64_t limit = UINT64_MAX;
	for (;;) {
		char path[640];
		snprintf(path, sizeof(path), "%s%s/%s", root, group, file);
		limit = cst_min(limit, read_limit(path));
		char *slash = strrchr(group, '/');
		if (!slash)
			return limit;
		*slash = 0;
	}
}

uint64_t cst_level_cgroup_limit(void)
{
	uint64_t limit = UINT64_MAX;
	FILE *f = fopen("/proc/self/cgroup", "re");
	if (!f)
		return limit;
	char line[512];
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		char *controllers = strchr(line, ':');
		char *group = controllers ? strchr(controllers + 1, ':') : NULL;
		if (!group)
			continue;
		*controllers++ = 0;
		*group++ = 0;
		if (strcmp(line, "0") == 0)
			limit = cst_min(limit, walk_limits("/sys/fs/cgroup", group, "memory.max"));
		else if (strstr(controllers, "memory"))
			limit = cst_min(limit, walk_limits("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes"));
	}
	fclose(f);
	return limit;
}

/* ---- a path ---- */

static int make_folders(const char *path)
{
	CST_AUTO_FREE char *at = cst_xstrdup(path);
	for (char *slash = strchr(at + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (mkdir(at, 0755) != 0 && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	return mkdir(at, 0700) == 0 || errno == EEXIST ? 0 : -errno;
}

static bool is_root_of_file_system(const char *path, const struct stat *st)
{
	CST_AUTO_FREE char *up = cst_xasprintf("%s/..", path);
	struct stat above;
	return stat(up, &above) == 0 && (above.st_dev != st->st_dev || above.st_ino == st->st_ino);
}

/* Nothing in it, or a cache: then it may be made private. */
static bool is_free_for_us(const char *path)
{
	DIR *d = opendir(path);
	if (!d)
		return false;
	bool empty = true, cache = false;
	struct dirent *entry;
	while ((entry = readdir(d)) && !cache) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		empty = false;
		cache = strcmp(entry->d_name, "index.log") == 0;
	}
	closedir(d);
	return empty || cache;
}

static bool is_ours_alone(const char *path, const struct stat *st)
{
	if (st->st_uid != geteuid() || (st->st_mode & (S_ISVTX | S_IWOTH)) || is_root_of_file_system(path, st))
		return false;
	return (st->st_mode & 077) == 0 || is_free_for_us(path);
}

/* The directory that the volume may have: `path` itself when it is, or becomes, private; else a subdirectory of it. */
static int private_folder(const char *path, char **dir, bool *fatal, struct cst_error *err)
{
	struct stat st;
	if (stat(path, &st) != 0) {
		int rc = errno == ENOENT ? make_folders(path) : -errno;
		if (rc != 0) {
			cst_error_why(err, "%s", strerror(-rc));
			return rc;
		}
		*dir = cst_xstrdup(path);
		return 0;
	}
	*fatal = true;
	if (!S_ISDIR(st.st_mode)) {
		cst_error_why(err, "it is not a directory");
		return -ENOTDIR;
	}
	if (st.st_uid != geteuid() && st.st_uid != 0 && !(st.st_mode & S_ISVTX)) {
		cst_error_why(err, "it belongs to user %u, who could replace what is in it", st.st_uid);
		cst_error_hint(err, "give a directory of your own, or one that root owns");
		return -EACCES;
	}
	if (is_ours_alone(path, &st)) {
		*dir = cst_xstrdup(path);
		return 0;
	}
	CST_AUTO_FREE char *below = cst_xasprintf("%s/cistern-%u", path, geteuid());
	int rc = make_folders(below);
	/* Where all may write somebody may have put a link there first. */
	if (rc == 0 && lstat(below, &st) != 0)
		rc = -errno;
	if (rc != 0) {
		*fatal = rc == -EACCES || rc == -EPERM;
		cst_error_why(err, "can't make %s: %s", below, strerror(-rc));
		return rc;
	}
	if (st.st_uid != geteuid() || !S_ISDIR(st.st_mode)) {
		cst_error_why(err, "%s is not a directory of this user", below);
		return -EACCES;
	}
	*dir = cst_steal(below);
	return 0;
}

/* Bytes of files in one folder; how many there are. */
static unsigned folder_bytes(int parent, const char *name, uint64_t *bytes)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	unsigned count = 0;
	struct dirent *entry;
	while ((entry = readdir(d))) {
		struct stat st;
		if (entry->d_name[0] != '.' && fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(st.st_mode)) {
			*bytes += (uint64_t)st.st_blocks * 512;
			count++;
		}
	}
	closedir(d);
	return count;
}

/* About what this cache has on the disk already: it counts as free when shares of the free room are computed, or each start would find less
 * than the one before. Entries lie in 256 folders by hash, so some of them tell the rest. */
static uint64_t own_bytes(const char *dir)
{
	CST_AUTO_CLOSE int top = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (top < 0)
		return 0;
	uint64_t slabs = 0, objects = 0;
	folder_bytes(top, "slabs", &slabs);
	CST_AUTO_CLOSE int folders = openat(top, "objects", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folders < 0)
		return slabs;
	unsigned files = 0, seen = 0;
	while (seen < 256 && (files < SAMPLE_FILES || seen < SAMPLE_FOLDERS)) {
		char name[16];
		snprintf(name, sizeof(name), "%02x", seen++);
		files += folder_bytes(folders, name, &objects);
	}
	return slabs + objects * 256 / seen;
}

/* What the paths of the level have together and each for itself, when it says so. */
static uint64_t asked_quota(const struct cst_cache_level *level, unsigned path)
{
	return level->paths[path].quota ? level->paths[path].quota : level->quota / level->path_count;
}

static int check_memory(const struct cst_cache_level *level, const struct cst_cache_config *config, uint64_t *quota,
			bool given, struct cst_error *err)
{
	uint64_t limit = cst_level_cgroup_limit();
	if (level->medium != CST_CACHE_MEM || limit == UINT64_MAX)
		return 0;
	uint64_t rest = limit > config->memory ? limit - config->memory : 0;
	/* Of all MEM levels and paths together. */
	uint64_t others = 0;
	for (unsigned i = 0; i < config->level_count; i++) {
		if (config->levels[i].medium == CST_CACHE_MEM && &config->levels[i] != level)
			others += config->levels[i].quota;
	}
	rest = rest > others ? rest - others : 0;
	uint64_t all = given ? level->quota : *quota * level->path_count;
	if (all <= rest)
		return 0;
	if (!given && rest / level->path_count * 4 / 5 >= QUOTA_MIN) {
		*quota = rest / level->path_count * 4 / 5;
		return 0;
	}
	char want[CST_SIZE_TEXT], has[CST_SIZE_TEXT], mine[CST_SIZE_TEXT];
	cst_format_size(all, want);
	cst_format_size(limit, has);
	cst_format_size(config->memory, mine);
	cst_error_why(err, "%s in memory don't fit into the cgroup's limit of %s beside %s of the process itself", want,
		      has, mine);
	cst_error_hint(err, "lower the level's quota or --memory, or raise the memory limit of the container or unit");
	return -EINVAL;
}

static int find_room(const struct cst_cache_level *level, unsigned path, const struct cst_cache_config *config,
		     struct cst_level_plan *plan, bool *fatal, struct cst_error *err)
{
	struct statvfs fs;
	if (statvfs(plan->dir, &fs) != 0) {
		cst_error_why(err, "%s", strerror(errno));
		return -errno;
	}
	uint64_t total = (uint64_t)fs.f_blocks * fs.f_frsize;
	uint64_t room = cst_min(total, (uint64_t)fs.f_bavail * fs.f_frsize + own_bytes(plan->dir));
	plan->memory = is_memory(plan->dir);
	uint64_t floor = plan->memory ? FREE_MIN_MEM : FREE_MIN;
	uint64_t share = total / 20;
	plan->keep_free = plan->memory ? cst_min(floor, share) : cst_max(floor, share);
	if (config->keep_free)
		plan->keep_free = config->keep_free;
	else
		plan->keep_free = cst_min(plan->keep_free, room / 2);
	uint64_t quota = asked_quota(level, path);
	plan->quota = quota ? quota : room / 5 * 4;
	plan->weight = quota ? quota : total / 5 * 4;
	if (check_memory(level, config, &plan->quota, quota > 0, err) != 0) {
		*fatal = true;
		return -EINVAL;
	}
	uint64_t most = total > plan->keep_free ? total - plan->keep_free : 0;
	if (quota > most) {
		char asked[CST_SIZE_TEXT], has[CST_SIZE_TEXT], kept[CST_SIZE_TEXT];
		cst_format_size(quota, asked);
		cst_format_size(most, has);
		cst_format_size(plan->keep_free, kept);
		cst_log_warn(
			"cache directory %s: the quota of %s is more than its file system has beside the %s that stay free; using %s",
			plan->dir, asked, kept, has);
		plan->quota = most;
	}
	if (plan->quota < QUOTA_MIN) {
		cst_error_why(err, "its file system has no room");
		return -ENOSPC;
	}
	return 0;
}

int cst_level_plan(const struct cst_cache_level *level, unsigned path, const struct cst_cache_config *config,
		   struct cst_level_plan *plan, bool *fatal, struct cst_error *err)
{
	*plan = (struct cst_level_plan){0};
	*fatal = false;
	cst_error_set(err, EIO, "can't use the cache directory %s", level->paths[path].path);
	int rc = private_folder(level->paths[path].path, &plan->dir, fatal, err);
	if (rc == 0) {
		*fatal = false;
		rc = find_room(level, path, config, plan, fatal, err);
	}
	if (rc == 0) {
		cst_error_clear(err);
		return 0;
	}
	err->code = -rc;
	free(cst_steal(plan->dir));
	return rc;
}
