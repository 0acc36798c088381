#include "fuse/mountpoint.h"

#define CST_LOG_AREA "fuse"
#include "base/log.h"
#include "fuse/device.h"
#include "fuse/fuse.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PROBE_TIMEOUT_MS 5000

char *cst_fuse_mountpoint_resolve(const char *path)
{
	CST_AUTO_FREE char *copy = cst_xstrdup(path);
	CST_AUTO_FREE char *parent = NULL;
	char *base, *slash, link[8];
	size_t len = strlen(copy);

	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = '\0';
	slash = strrchr(copy, '/');
	base = slash ? slash + 1 : copy;
	/* readlink(2) on the root of a mount fails without asking its server. */
	if (!*base || strcmp(base, ".") == 0 || strcmp(base, "..") == 0 || readlink(copy, link, sizeof(link)) >= 0)
		return realpath(copy, NULL);
	if (slash)
		*slash = '\0';
	parent = realpath(!slash ? "." : *copy ? copy : "/", NULL);
	if (!parent)
		return NULL;
	return cst_xasprintf("%s/%s", strcmp(parent, "/") == 0 ? "" : parent, base);
}

/* Asks the server of a mount, past what the kernel has cached; in a child, because that waits for ever when the server is stuck. 0 or
 * -errno, -ETIMEDOUT. */
static int probe(const char *path)
{
	pid_t pid = fork();
	int status = 0, pidfd, ready;
	struct pollfd p;

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		struct statx x;

		_exit(statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &x) < 0 ? errno & 0xff : 0);
	}
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	p = (struct pollfd){.fd = pidfd, .events = POLLIN};
	do {
		ready = pidfd < 0 ? 1 : poll(&p, 1, PROBE_TIMEOUT_MS);
	} while (ready < 0 && errno == EINTR);
	if (pidfd >= 0)
		close(pidfd);
	if (ready == 0) {
		kill(pid, SIGKILL); /* it ends when the server answers or is gone; init collects it */
		return -ETIMEDOUT;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}

static bool is_ours(const struct cst_fuse_mountinfo *m)
{
	return strcmp(m->type, "fuse.cistern") == 0;
}

static int check_present_mount(const char *path, struct cst_error *err)
{
	CST_CLEANUP(cst_fuse_mountinfo_fini) struct cst_fuse_mountinfo m = {0};
	int rc;

	if (cst_fuse_mountinfo_find(path, &m) < 0 || strncmp(m.type, "fuse", 4) != 0)
		return 0;
	rc = probe(path);
	if (rc == -ENOTCONN || rc == -ECONNABORTED) {
		rc = cst_error_set(err, ENOTCONN, "can't mount on %s", path);
		cst_error_why(err, "a mount of %s whose process has died is still there (%s)", m.source,
			      strerror(ENOTCONN));
		cst_error_hint(err, "remove it with `cistern umount %s` or `fusermount3 -u %s`", path, path);
		return rc;
	}
	if (rc == -ETIMEDOUT) {
		rc = cst_error_set(err, EBUSY, "can't mount on %s", path);
		cst_error_why(err, "%s is mounted there and its process does not answer", m.source);
		cst_error_hint(err, "end that process, then `cistern umount %s`", path);
		return rc;
	}
	if (is_ours(&m)) {
		rc = cst_error_set(err, EBUSY, "can't mount on %s", path);
		cst_error_why(err, "%s is mounted there already", m.source);
		cst_error_hint(err, "unmount it first with `cistern umount %s`, or choose another directory", path);
		return rc;
	}
	return 0;
}

static bool is_empty(const char *path)
{
	DIR *d = opendir(path);
	const struct dirent *e;
	bool empty = true;

	if (!d)
		return true; /* no right to look: whether it may be mounted on is for mount(2) or the helper to say */
	while (empty && (e = readdir(d)))
		empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
	closedir(d);
	return empty;
}

/* Two processes that mount on one directory at the same moment would both find it free. A lock on the directory below lets one go
 * first; where none can be had (no right to read it, a lock of somebody else) it goes without. */
#define LOCK_TRIES 100
#define LOCK_PAUSE_US 20000
int cst_fuse_mountpoint_lock(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	for (int i = 0; fd >= 0 && i < LOCK_TRIES && flock(fd, LOCK_EX | LOCK_NB) < 0; i++)
		usleep(LOCK_PAUSE_US);
	return fd;
}

int cst_fuse_mountpoint_check(const char *path, bool nonempty, struct cst_error *err)
{
	struct stat st;
	int rc = check_present_mount(path, err);

	if (rc < 0)
		return rc;
	if (stat(path, &st) < 0) {
		int code = errno;

		cst_error_set(err, code, "can't mount on %s", path);
		cst_error_why(err, "%s", code == ENOENT ? "the mountpoint does not exist" : strerror(code));
		if (code == ENOENT)
			cst_error_hint(err, "create it with `mkdir -p %s`", path);
		return -code;
	}
	if (!S_ISDIR(st.st_mode)) {
		rc = cst_error_set(err, ENOTDIR, "can't mount on %s", path);
		cst_error_why(err, "it is not a directory");
		cst_error_hint(err, "choose an empty directory");
		return rc;
	}
	if (!nonempty && !is_empty(path)) {
		rc = cst_error_set(err, ENOTEMPTY, "can't mount on %s", path);
		cst_error_why(err, "the directory is not empty; its files would be hidden");
		cst_error_hint(err, "choose an empty directory, or mount over it with -o nonempty");
		return rc;
	}
	return 0;
}

static int mount_as_root(const struct cst_fuse_mount_request *req, struct cst_error *err)
{
	CST_AUTO_CLOSE int fd = -1;
	CST_AUTO_FREE char *type = NULL, *data = NULL;
	struct stat st;
	int code;

	fd = cst_fuse_device_open(err);
	if (fd < 0)
		return fd;
	if (stat(req->path, &st) < 0) {
		code = errno;
		cst_error_set(err, code, "can't mount on %s", req->path);
		cst_error_why(err, "%s", strerror(code));
		return -code;
	}
	type = cst_xasprintf("fuse.%s", req->subtype);
	data = cst_xasprintf("fd=%d,rootmode=%o,user_id=%u,group_id=%u,max_read=%u%s%s", fd, st.st_mode & S_IFMT,
			     geteuid(), getegid(), req->max_read, req->allow_other ? ",allow_other" : "",
			     req->default_permissions ? ",default_permissions" : "");
	if (mount(req->fsname, req->path, type, req->flags, data) == 0)
		return cst_steal_fd(&fd);
	code = errno;
	cst_error_set(err, code, "can't mount on %s", req->path);
	cst_error_why(err, "mount(2) says: %s", strerror(code));
	if (code == EPERM || code == EACCES)
		cst_error_hint(err,
			       "in a container it takes --cap-add SYS_ADMIN and an AppArmor profile that allows mounts "
			       "(--security-opt apparmor=unconfined), or securityContext.privileged");
	else if (code == ENODEV)
		cst_error_hint(err, "load the kernel module with `modprobe fuse`");
	return -code;
}

int cst_fuse_mountpoint_mount(const struct cst_fuse_mount_request *req, struct cst_fuse_mountpoint *m,
			      struct cst_error *err)
{
	CST_CLEANUP(cst_fuse_mountinfo_fini) struct cst_fuse_mountinfo info = {0};
	int fd;

	if (geteuid() != 0 && req->allow_other && !cst_fuse_helper_allows_other(CST_FUSE_CONF)) {
		int rc = cst_error_set(err, EPERM, "can't mount with allow_other or allow_root");

		cst_error_why(err, "only root may, unless " CST_FUSE_CONF " has the line user_allow_other");
		cst_error_hint(err, "add that line, or mount without the option");
		return rc;
	}
	fd = geteuid() == 0 ? mount_as_root(req, err) : cst_fuse_helper_mount(req, err);
	if (fd < 0)
		return fd;
	m->path = cst_xstrdup(req->path);
	m->mounted = true;
	if (cst_fuse_mountinfo_find(req->path, &info) == 0) {
		m->major = info.major;
		m->minor = info.minor;
	}
	return fd;
}

static int unmount(const char *path, bool lazy, struct cst_error *err)
{
	int code;

	if (geteuid() != 0)
		return cst_fuse_helper_unmount(path, lazy, err);
	if (umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return 0;
	code = errno;
	cst_error_set(err, code, "can't unmount %s", path);
	cst_error_why(err, "%s", code == EBUSY ? "it is in use (open files or working directories)" : strerror(code));
	if (code == EBUSY)
		cst_error_hint(err, "see who uses it with `fuser -vm %s`, or detach it with `cistern umount --lazy %s`",
			       path, path);
	return -code;
}

int cst_fuse_mountpoint_unmount(struct cst_fuse_mountpoint *m, struct cst_error *err)
{
	CST_CLEANUP(cst_fuse_mountinfo_fini) struct cst_fuse_mountinfo info = {0};
	int rc;

	if (!m->mounted)
		return 0;
	if (cst_fuse_mountinfo_find(m->path, &info) < 0) {
		m->mounted = false;
		return 0;
	}
	if (info.major != m->major || info.minor != m->minor) {
		cst_log_warn("%s is covered by a mount of %s: left as it is", m->path, info.source);
		return -EBUSY;
	}
	rc = unmount(m->path, false, err);
	if (rc < 0 && rc != -EINVAL) {
		cst_log_info("%s is in use: detaching it", m->path);
		rc = unmount(m->path, true, err);
	}
	if (rc == -EINVAL) /* someone was faster */
		rc = 0;
	m->mounted = rc < 0;
	return rc;
}

int cst_fuse_unmount(const char *mountpoint, bool lazy, struct cst_error *err)
{
	CST_CLEANUP(cst_fuse_mountinfo_fini) struct cst_fuse_mountinfo info = {0};
	CST_AUTO_FREE char *path = cst_fuse_mountpoint_resolve(mountpoint);
	int rc;

	if (!path) {
		rc = cst_error_set(err, errno, "can't unmount %s", mountpoint);
		cst_error_why(err, "%s", strerror(-rc));
		return rc;
	}
	rc = cst_fuse_mountinfo_find(path, &info);
	if (rc < 0) {
		rc = cst_error_set(err, rc == -ENOENT ? EINVAL : -rc, "can't unmount %s", path);
		cst_error_why(err, "%s", rc == -EINVAL ? "nothing is mounted there" : strerror(-rc));
		return rc;
	}
	if (strncmp(info.type, "fuse", 4) != 0) {
		rc = cst_error_set(err, EINVAL, "can't unmount %s", path);
		cst_error_why(err, "what is mounted there is %s, not a cistern mount", info.type);
		cst_error_hint(err, "use umount(8)");
		return rc;
	}
	return unmount(path, lazy, err);
}

uint32_t cst_fuse_mountpoint_read_ahead(const struct cst_fuse_mountpoint *m, uint32_t kb)
{
	CST_AUTO_FREE char *path = cst_xasprintf("/sys/class/bdi/%u:%u/read_ahead_kb", m->major, m->minor);
	char text[32];
	int len = snprintf(text, sizeof(text), "%u\n", kb);
	CST_AUTO_CLOSE int fd = -1;
	ssize_t got;

	if (kb) {
		CST_AUTO_CLOSE int out = open(path, O_WRONLY | O_CLOEXEC);

		if (out < 0 || write(out, text, (size_t)len) != len)
			cst_log_debug("read-ahead stays as the kernel has it: %s: %s", path, strerror(errno));
	}
	fd = open(path, O_RDONLY | O_CLOEXEC);
	got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (got <= 0)
		return 0;
	text[got] = '\0';
	return (uint32_t)strtoul(text, NULL, 10);
}
