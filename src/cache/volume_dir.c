/* The directory of a volume: who may use it, its lock, its socket. */
#define CST_LOG_AREA "cache"
#include "base/log.h"

#include "cache/volume_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/vfs.h>

/* mkdir -p; only the last one is private. */
static int make_directories(const char *path)
{
	CST_AUTO_FREE char *copy = cst_xstrdup(path);
	for (char *at = copy + 1; *at; at++) {
		if (*at != '/')
			continue;
		*at = '\0';
		if (mkdir(copy, 0777) < 0 && errno != EEXIST)
			return -errno;
		*at = '/';
	}
	return mkdir(copy, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int open_directory(const char *path, int flags, struct stat *st)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags);
	if (fd < 0)
		return -errno;
	if (fstat(fd, st) == 0)
		return fd;
	int rc = -errno;
	close(fd);
	return rc;
}

static bool has_own_file(int dir, const char *name)
{
	struct stat st;
	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid();
}

/* Whether there is nothing in it, or a volume of this user: not one that somebody else has put there. */
static bool is_ours_to_close(int dir)
{
	if (has_own_file(dir, "lock") && has_own_file(dir, "index.log"))
		return true;
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);
	if (!list) {
		cst_close_fd(&fd);
		return false;
	}
	bool empty = true;
	for (struct dirent *d; (d = readdir(list));)
		if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0 && strcmp(d->d_name, "lost+found") != 0)
			empty = false;
	closedir(list);
	return empty;
}

/* /dev/shm, /tmp, an emptyDir with other things in it: the volume takes a directory of its own inside. */
static bool is_shared(int dir, const struct stat *st)
{
	if (st->st_mode & S_ISVTX)
		return true;
	return (st->st_mode & S_IWOTH) && (st->st_uid != geteuid() || !is_ours_to_close(dir));
}

/* 0: private now. */
static int take_private(int dir, const char *path, const struct stat *st, struct cst_error *err)
{
	if (st->st_uid != geteuid()) {
		cst_error_set(err, EPERM, "can't use the cache directory %s", path);
		cst_error_why(err, "it belongs to user %u, this process runs as %u", (unsigned)st->st_uid,
			      (unsigned)geteuid());
		cst_error_hint(err, "name a directory that doesn't exist yet, or one of this user");
		return -EPERM;
	}
	if ((st->st_mode & 0077) == 0)
		return 0;
	if (!is_ours_to_close(dir)) {
		cst_error_set(err, EPERM, "can't use the cache directory %s", path);
		cst_error_why(err, "others have access to it and it has other things than a cache in it");
		cst_error_hint(err, "name a directory inside it (%s/cistern), or chmod 0700 it", path);
		return -EPERM;
	}
	if (fchmod(dir, 0700) < 0) {
		int code = errno;
		cst_error_set(err, code, "can't make the cache directory %s private", path);
		cst_error_why(err, "%s", strerror(code));
		return -code;
	}
	cst_log_info("cache directory %s: mode %03o changed to 0700", path, (unsigned)st->st_mode & 0777);
	return 0;
}

static int cannot_open(const char *path, int rc, struct cst_error *err)
{
	cst_error_set(err, -rc, "can't open the cache directory %s", path);
	cst_error_why(err, "%s", strerror(-rc));
	return rc;
}

int cst_volume_dir_open(struct cst_volume *v, struct cst_error *err)
{
	struct stat st = {0};
	struct statfs fs;
	CST_AUTO_FREE char *path = cst_xstrdup(v->config.path);
	if (!path[0])
		return cannot_open(path, -ENOENT, err);
	for (size_t len = strlen(path); len > 1 && path[len - 1] == '/'; len--)
		path[len - 1] = '\0';
	int rc = make_directories(path);
	CST_AUTO_CLOSE int dir = rc < 0 ? rc : open_directory(path, 0, &st);
	if (dir < 0)
		return cannot_open(path, dir, err);
	if (is_shared(dir, &st)) {
		char *inside = cst_xasprintf("%s/cistern-%u", path, (unsigned)geteuid());
		free(path);
		path = inside;
		rc = mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
		cst_close_fd(&dir);
		/* Where all may write somebody may have put a link there first. */
		dir = rc < 0 ? rc : open_directory(path, O_NOFOLLOW, &st);
		if (dir < 0)
			return cannot_open(path, dir, err);
	}
	rc = take_private(dir, path, &st, err);
	if (rc < 0)
		return rc;
	v->memory = fstatfs(dir, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
	v->device = st.st_dev;
	v->inode = st.st_ino;
	v->dir = cst_steal_fd(&dir);
	v->path = cst_steal(path);
	return 0;
}

int cst_volume_dir_check(const struct cst_volume *v)
{
	struct stat st;
	if (fstat(v->dir, &st) < 0)
		return -errno;
	if (st.st_nlink == 0)
		return -ENOENT;
	if (stat(v->path, &st) < 0)
		return errno == ENOTDIR ? -ENOENT : -errno;
	return st.st_dev == v->device && st.st_ino == v->inode ? 0 : -ENOENT;
}

bool cst_volume_dir_locked(const struct cst_volume *v)
{
	struct stat mine, named;
	return fstat(v->lock_fd, &mine) == 0 && fstatat(v->dir, "lock", &named, AT_SYMLINK_NOFOLLOW) == 0 &&
	       mine.st_ino == named.st_ino && mine.st_dev == named.st_dev;
}

/* The directory is locked too: should somebody delete the lock file, there is still only one owner. File systems that lock no
 * directories (NFS) go without. */
int cst_volume_dir_lock(struct cst_volume *v)
{
	cst_volume_dir_unlock(v);
	v->lock_fd = openat(v->dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (v->lock_fd < 0)
		return -errno;
	int rc = flock(v->lock_fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
	if (rc == 0 && !cst_volume_dir_locked(v))
		rc = -EAGAIN;
	if (rc == 0 && flock(v->dir, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		rc = -EAGAIN;
	if (rc < 0)
		cst_volume_dir_unlock(v);
	return rc == -EWOULDBLOCK || rc == -EINTR ? -EAGAIN : rc;
}

void cst_volume_dir_unlock(struct cst_volume *v)
{
	if (v->lock_fd < 0)
		return;
	flock(v->dir, LOCK_UN);
	cst_close_fd(&v->lock_fd);
	v->lock_fd = -1;
}

/* By descriptor, so that a long path fits. */
static void socket_address(const struct cst_volume *v, struct sockaddr_un *address)
{
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d/socket", v->dir);
}

bool cst_volume_dir_has_socket(const struct cst_volume *v)
{
	struct stat st;
	return fstatat(v->dir, "socket", &st, AT_SYMLINK_NOFOLLOW) == 0;
}

int cst_volume_dir_listen(struct cst_volume *v)
{
	struct sockaddr_un address;
	CST_AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (unlinkat(v->dir, "socket", 0) < 0 && errno != ENOENT)
		return -errno;
	socket_address(v, &address);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 64) < 0)
		return -errno;
	return cst_steal_fd(&fd);
}

int cst_volume_dir_connect(struct cst_volume *v)
{
	struct sockaddr_un address;
	CST_AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	socket_address(v, &address);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	if (!cst_volume_peer_is_us(fd))
		return -EPERM;
	return cst_steal_fd(&fd);
}

bool cst_volume_peer_is_us(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.uid == geteuid();
}
