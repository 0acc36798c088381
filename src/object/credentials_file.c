/* Reading small files in one state, and noticing when they are replaced. */
#define CST_LOG_AREA "credentials"
#include "object/credentials_internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sys/inotify.h>
#include <sys/stat.h>

/* A file that changed this recently may still be being written. */
#define SETTLE_NS (100 * CST_NS_PER_MS)
#define SETTLE_TRIES 30

int64_t cst_cred_poll_interval = 10 * CST_NS_PER_S;
bool cst_cred_use_inotify = true;

bool cst_cred_stopped(const struct cst_cred_call *call)
{
	return (call->stop && __atomic_load_n(call->stop, __ATOMIC_ACQUIRE)) || cst_now() >= call->deadline;
}

bool cst_cred_pause(const struct cst_cred_call *call, int64_t ns)
{
	int64_t end = cst_now() + ns;
	while (!cst_cred_stopped(call)) {
		int64_t left = end - cst_now();
		if (left <= 0)
			return true;
		cst_sleep(cst_min(left, 20 * CST_NS_PER_MS));
	}
	return false;
}

const char *cst_cred_env(const char *name)
{
	const char *value = getenv(name);
	return value && *value ? value : NULL;
}

char *cst_cred_home_path(const char *rest)
{
	const char *home = cst_cred_env("HOME");
	if (home)
		return cst_xasprintf("%s/%s", home, rest);
	/* mount(8) and service managers start us without HOME. */
	struct passwd pw, *found = NULL;
	char text[4096];
	if (getpwuid_r(geteuid(), &pw, text, sizeof(text), &found) != 0 || !found || !found->pw_dir[0])
		return NULL;
	return cst_xasprintf("%s/%s", found->pw_dir, rest);
}

static int open_error(struct cst_error *err, const char *path, int code)
{
	cst_error_set(err, code, "can't read %s", path);
	cst_error_why(err, "%s", strerror(code));
	if (code == EACCES || code == EPERM)
		cst_error_hint(err, "run as a user who may read it, or change its owner");
	else if (code == ENOENT)
		cst_error_hint(err, "check the path");
	return -code;
}

static bool recent(const struct stat *st)
{
	int64_t changed = (int64_t)st->st_ctim.tv_sec * CST_NS_PER_S + st->st_ctim.tv_nsec;
	int64_t age = cst_wall() - changed;
	return age >= 0 && age < SETTLE_NS;
}

static int read_all(int fd, struct cst_secret_buf *out)
{
	char *chunk = out->data;
	cst_secret_buf_clear(out);
	for (;;) {
		size_t room = out->cap - out->len;
		ssize_t n = read(fd, chunk + out->len, room);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		out->len += (size_t)n;
		out->data[out->len] = '\0';
		if (n == 0)
			return 0;
		if (out->len == out->cap)
			return -EFBIG;
	}
}

int cst_cred_read_file(const struct cst_cred_call *call, const char *path, struct cst_secret_buf *out, unsigned *mode,
		       struct cst_error *err)
{
	for (int tries = 0;; tries++) {
		struct stat before, after;
		CST_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
		if (fd < 0)
			return open_error(err, path, errno);
		if (fstat(fd, &before) < 0)
			return open_error(err, path, errno);
		if (!S_ISREG(before.st_mode))
			return open_error(err, path, S_ISDIR(before.st_mode) ? EISDIR : EINVAL);
		int rc = read_all(fd, out);
		if (rc == -EFBIG) {
			cst_error_set(err, EFBIG, "can't read %s", path);
			cst_error_why(err, "it is larger than %d bytes", CST_SECRET_SOURCE_MAX);
			cst_error_hint(err, "this is no file of credentials");
			return rc;
		}
		if (rc < 0)
			return open_error(err, path, -rc);
		if (fstat(fd, &after) < 0)
			return open_error(err, path, errno);
		bool same = before.st_size == after.st_size && before.st_mtim.tv_sec == after.st_mtim.tv_sec &&
			    before.st_mtim.tv_nsec == after.st_mtim.tv_nsec;
		if ((same && !recent(&after)) || tries == SETTLE_TRIES || !cst_cred_pause(call, SETTLE_NS / 2)) {
			if (mode)
				*mode = after.st_mode & 07777;
			return 0;
		}
	}
}

/* ---- watching ---- */

struct watched {
	char *path;
	char *base; /* the name whose events count; NULL: any name (path is the directory itself) */
	int wd;
	uint64_t state;
};

struct cst_cred_watch {
	int fd;
	size_t count;
	struct watched items[CST_CRED_WATCH_MAX];
};

#define WATCH_EVENTS                                                                                         \
	(IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_CLOSE_WRITE | IN_DELETE | IN_ATTRIB | IN_DELETE_SELF | \
	 IN_MOVE_SELF)

static uint64_t mix(uint64_t h, uint64_t v)
{
	for (int i = 0; i < 8; i++) {
		h = (h ^ (v & 0xff)) * UINT64_C(0x100000001b3);
		v >>= 8;
	}
	return h;
}

static uint64_t stat_state(int dir, const char *path, uint64_t h)
{
	struct stat st;
	if (fstatat(dir, path, &st, 0) < 0)
		return mix(h, (uint64_t)errno);
	h = mix(mix(h, st.st_dev), st.st_ino);
	h = mix(mix(h, (uint64_t)st.st_size), st.st_mode);
	h = mix(mix(h, (uint64_t)st.st_mtim.tv_sec), (uint64_t)st.st_mtim.tv_nsec);
	return mix(mix(h, (uint64_t)st.st_ctim.tv_sec), (uint64_t)st.st_ctim.tv_nsec);
}

static uint64_t path_state(const char *path)
{
	static const char *const files[] = {"akId",	     "akSecret",   "AccessKeyId", "AccessKeySecret",
					    "SecurityToken", "Expiration", "..data"};
	uint64_t h = stat_state(AT_FDCWD, path, UINT64_C(0xcbf29ce484222325));
	CST_AUTO_CLOSE int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; dir >= 0 && i < CST_ARRAY_LEN(files); i++)
		h = stat_state(dir, files[i], h);
	return h;
}

static void watch_item(struct cst_cred_watch *w, struct watched *item)
{
	char *dir = item->base ? cst_xstrndup(item->path, (size_t)(item->base - item->path)) : cst_xstrdup(item->path);
	item->wd = w->fd >= 0 ? inotify_add_watch(w->fd, *dir ? dir : ".", WATCH_EVENTS | IN_ONLYDIR) : -1;
	free(dir);
}

struct cst_cred_watch *cst_cred_watch_new(const char *const *paths, size_t count, bool use_inotify)
{
	struct cst_cred_watch *w = CST_NEW(struct cst_cred_watch);
	CST_ASSERT(count <= CST_CRED_WATCH_MAX);
	w->fd = use_inotify ? inotify_init1(IN_NONBLOCK | IN_CLOEXEC) : -1;
	if (use_inotify && w->fd < 0)
		cst_log_info("no inotify (errno %d): credential files are compared every %d s", errno,
			     (int)(cst_cred_poll_interval / CST_NS_PER_S));
	for (size_t i = 0; i < count; i++) {
		struct watched *item = &w->items[w->count++];
		struct stat st;
		item->path = cst_xstrdup(paths[i]);
		if (stat(paths[i], &st) < 0 || !S_ISDIR(st.st_mode)) {
			char *slash = strrchr(item->path, '/');
			item->base = slash ? slash + 1 : item->path;
		}
		watch_item(w, item);
		item->state = path_state(item->path);
	}
	return w;
}

void cst_cred_watch_free(struct cst_cred_watch *w)
{
	if (!w)
		return;
	for (size_t i = 0; i < w->count; i++)
		free(w->items[i].path);
	if (w->fd >= 0)
		close(w->fd);
	free(w);
}

int cst_cred_watch_fd(const struct cst_cred_watch *w)
{
	return w->fd;
}

static bool concerns(const struct cst_cred_watch *w, const struct inotify_event *ev)
{
	if (ev->mask & IN_Q_OVERFLOW)
		return true;
	for (size_t i = 0; i < w->count; i++) {
		const struct watched *item = &w->items[i];
		if (item->wd != ev->wd)
			continue;
		/* Kubernetes replaces a mounted secret by moving a new "..data" link into place. */
		if (!item->base || ev->len == 0 || strcmp(ev->name, item->base) == 0 || strcmp(ev->name, "..data") == 0)
			return true;
	}
	return false;
}

bool cst_cred_watch_drain(struct cst_cred_watch *w)
{
	_Alignas(struct inotify_event) char events[4096];
	bool hit = false, lost = false;
	ssize_t n;
	while (w->fd >= 0 && (n = read(w->fd, events, sizeof(events))) > 0) {
		for (ssize_t at = 0; at < n;) {
			const struct inotify_event *ev = (const struct inotify_event *)(const void *)(events + at);
			hit |= concerns(w, ev);
			lost |= (ev->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED)) != 0;
			at += (ssize_t)(sizeof(*ev) + ev->len);
		}
	}
	/* The directory itself went away: its successor is watched as soon as it is there (or by comparing). */
	for (size_t i = 0; lost && i < w->count; i++)
		watch_item(w, &w->items[i]);
	return hit;
}

bool cst_cred_watch_changed(struct cst_cred_watch *w)
{
	bool changed = false;
	for (size_t i = 0; i < w->count; i++) {
		struct watched *item = &w->items[i];
		uint64_t state = path_state(item->path);
		changed |= state != item->state;
		item->state = state;
		if (item->wd < 0)
			watch_item(w, item);
	}
	return changed;
}
