#include "cli/load_targets.h"

#include "base/text.h"
#include "cli/control.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#define LIST_MAX (UINT64_C(1) << 30)

static const char glob_characters[] = "*?[\\";

void cst_load_escape(struct cst_buf *out, struct cst_slice text)
{
	for (size_t i = 0; i < text.len; i++) {
		if (strchr(glob_characters, text.data[i]))
			cst_buf_add_char(out, '\\');
		cst_buf_add_char(out, text.data[i]);
	}
}

static struct cst_load_group *new_group(struct cst_load_groups *groups)
{
	groups->items = cst_xrealloc(groups->items, (groups->count + 1) * sizeof(*groups->items));
	groups->items[groups->count] = (struct cst_load_group){0};
	return &groups->items[groups->count++];
}

/* ---- URLs ---- */

static struct cst_load_group *group_of_bucket(struct cst_load_groups *groups, const struct cst_url *url)
{
	for (size_t i = 0; i < groups->count; i++) {
		struct cst_load_group *g = &groups->items[i];
		if (!g->mountpoint && g->url.cloud == url->cloud && strcmp(g->url.bucket, url->bucket) == 0)
			return g;
	}
	struct cst_load_group *g = new_group(groups);
	g->url = *url;
	return g;
}

/* The key as it was written: unlike the prefix of a mount it may be an object's, and have slashes at its ends. */
static int add_url(struct cst_load_groups *groups, const char *text, struct cst_error *err)
{
	struct cst_url url;
	const char *bucket = strstr(text, "://") + 3;
	const char *slash = strchr(bucket, '/');
	const char *key = slash ? slash + 1 : "";
	CST_AUTO_FREE char *without_key = cst_xstrndup(text, slash ? (size_t)(slash - text) : strlen(text));
	int rc = cst_url_parse(without_key, &url, err);
	if (rc != 0)
		return rc;
	if (strlen(key) > CST_KEY_MAX) {
		cst_error_set(err, EINVAL, "bad URL %.60s…", text);
		cst_error_why(err, "keys have at most %d bytes", CST_KEY_MAX);
		return -EINVAL;
	}
	memcpy(url.prefix, key, strcspn(key, glob_characters));
	cst_option_list_add(&group_of_bucket(groups, &url)->targets, cst_xstrdup(key));
	return 0;
}

/* ---- paths of mounts ---- */

static struct cst_load_group *group_of_mount(struct cst_load_groups *groups, const char *mountpoint)
{
	for (size_t i = 0; i < groups->count; i++)
		if (groups->items[i].mountpoint && strcmp(groups->items[i].mountpoint, mountpoint) == 0)
			return &groups->items[i];
	struct cst_load_group *g = new_group(groups);
	g->mountpoint = cst_xstrdup(mountpoint);
	return g;
}

/* The longest part of a path that exists, without symbolic links; *rest: what is behind it, "" or without a slash at its start. */
static char *existing_part(const char *path, const char **rest)
{
	CST_AUTO_FREE char *cut = cst_xstrdup(path);
	for (size_t len = strlen(path);;) {
		char *real = realpath(len > 0 ? cut : path[0] == '/' ? "/" : ".", NULL);
		if (real || len == 0 || (errno != ENOENT && errno != ENOTDIR)) {
			*rest = path + len + strspn(path + len, "/");
			return real;
		}
		while (len > 0 && cut[len - 1] == '/')
			len--;
		while (len > 0 && cut[len - 1] != '/')
			len--;
		cut[len] = '\0';
	}
}

/* Asking sockets for each line of a list would take long. */
static char *known_mountpoint(const struct cst_load_groups *groups, const char *path)
{
	for (size_t i = 0; i < groups->count; i++) {
		const char *m = groups->items[i].mountpoint;
		size_t len = m ? strlen(m) : 0;
		if (len > 1 && strncmp(path, m, len) == 0 && (path[len] == '/' || path[len] == '\0'))
			return cst_xstrdup(m);
	}
	return NULL;
}

static int no_mount(const char *path, int code, struct cst_error *err)
{
	cst_error_set(err, EINVAL, "can't load %s", path);
	cst_error_why(err, "%s", code ? strerror(code) : "no mount of cistern that this user may ask has it");
	cst_error_hint(err,
		       "name a URL (oss://BUCKET/PREFIX) and --cache-dir, or a path below a mountpoint; findmnt -t "
		       "fuse.cistern lists the mounts");
	return -EINVAL;
}

static int add_path(struct cst_load_groups *groups, const char *path, struct cst_error *err)
{
	const char *rest;
	CST_AUTO_FREE char *real = existing_part(path, &rest);
	if (!real)
		return no_mount(path, errno, err);
	CST_AUTO_FREE char *mountpoint = known_mountpoint(groups, real);
	if (!mountpoint)
		mountpoint = cst_control_find(real);
	if (!mountpoint)
		return no_mount(path, 0, err);
	struct stat st;
	const char *below = real + strlen(mountpoint);
	below += strspn(below, "/");
	bool is_dir = stat(real, &st) == 0 && S_ISDIR(st.st_mode);
	CST_AUTO_BUF target = CST_BUF_INIT;
	cst_load_escape(&target, cst_slice_of(below));
	if (target.len > 0 && is_dir)
		cst_buf_add_char(&target, '/');
	cst_buf_add_str(&target, rest); /* a pattern, or what isn't there; the mount says so */
	struct cst_load_group *g = group_of_mount(groups, mountpoint);
	cst_option_list_add(&g->targets, cst_buf_steal(&target));
	cst_option_list_add(&g->paths, cst_steal(real));
	return 0;
}

int cst_load_groups_add(struct cst_load_groups *groups, const char *argument, struct cst_error *err)
{
	return cst_url_is(argument) ? add_url(groups, argument, err) : add_path(groups, argument, err);
}

/* ---- lists ---- */

static int read_all(int fd, struct cst_buf *out)
{
	for (;;) {
		ssize_t n = read(fd, cst_buf_room(out, 1 << 16), 1 << 16);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		out->len += (size_t)n;
		if (out->len > LIST_MAX)
			return -EFBIG;
	}
}

static int read_list(const char *file, struct cst_buf *out, struct cst_error *err)
{
	bool standard = strcmp(file, "-") == 0;
	CST_AUTO_CLOSE int fd = standard ? -1 : open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int rc = !standard && fd < 0 ? -errno : read_all(standard ? STDIN_FILENO : fd, out);
	if (rc == 0)
		return 0;
	cst_error_set(err, -rc, "can't read the list %s", standard ? "on standard input" : file);
	cst_error_why(err, "%s", strerror(-rc));
	return -EINVAL;
}

static int add_line(struct cst_load_groups *groups, const char *line, const char *base, struct cst_error *err)
{
	if (cst_url_is(line) || !base) {
		if (cst_url_is(line) || line[0] == '/')
			return cst_load_groups_add(groups, line, err);
		cst_error_set(err, EINVAL, "can't load %.100s", line);
		cst_error_why(err, "the list names it without a bucket or mount");
		cst_error_hint(
			err,
			"name the URL or the mount that the list belongs to: cistern load oss://BUCKET --list FILE");
		return -EINVAL;
	}
	size_t len = strlen(base);
	bool bucket_alone = cst_url_is(base) && !strchr(strstr(base, "://") + 3, '/');
	bool slash = len > 0 && base[len - 1] == '/' && !bucket_alone;
	CST_AUTO_FREE char *whole = cst_xasprintf("%s%s%s", base, slash ? "" : "/", line);
	return cst_load_groups_add(groups, whole, err);
}

int cst_load_groups_add_list(struct cst_load_groups *groups, const char *file, bool null, const char *base,
			     struct cst_error *err)
{
	CST_AUTO_BUF text = CST_BUF_INIT;
	int rc = read_list(file, &text, err);
	struct cst_slice rest = cst_buf_slice(&text);
	while (rest.len > 0 && rc == 0) {
		struct cst_slice line = cst_slice_cut(&rest, null ? '\0' : '\n');
		if (!null && line.len > 0 && line.data[line.len - 1] == '\r')
			line.len--;
		if (line.len == 0)
			continue;
		CST_AUTO_FREE char *copy = cst_xstrndup(line.data, line.len);
		rc = add_line(groups, copy, base, err);
	}
	return rc;
}

void cst_load_groups_fini(struct cst_load_groups *groups)
{
	for (size_t i = 0; i < groups->count; i++) {
		free(groups->items[i].mountpoint);
		cst_option_list_fini(&groups->items[i].targets);
		cst_option_list_fini(&groups->items[i].paths);
	}
	free(groups->items);
	*groups = (struct cst_load_groups){0};
}
