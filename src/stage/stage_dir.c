/* The directory of a staging area: whose it is, and its lock. */
#define CST_LOG_AREA "stage"
#include "base/log.h"
#include "stage/stage_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

static int make_directories(const char *path)
{
	CST_AUTO_FREE char *copy = cst_xstrdup(path);
	for (char *at = copy + (*copy != '\0'); *at; at++) {
		if (*at != '/')
			continue;
		*at = '\0';
		if (mkdir(copy, 0777) < 0 && errno != EEXIST)
			return -errno;
		*at = '/';
	}
	return mkdir(copy, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int cannot_use(const char *path, int code, const char *why, struct cst_error *err)
{
	cst_error_set(err, code, "can't use the staging directory %s", path);
	cst_error_why(err, "%s", why);
	return -code;
}

static bool is_empty(int dir)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);
	bool empty = list != NULL;
	if (!list) {
		cst_close_fd(&fd);
		return false;
	}
	for (struct dirent *d; (d = readdir(list));)
		if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0 && strcmp(d->d_name, "lost+found") != 0)
			empty = false;
	closedir(list);
	return empty;
}

int cst_stage_dir_open(const char *path, struct cst_error *err)
{
	struct stat st;
	int rc = path[0] ? make_directories(path) : -ENOENT;
	CST_AUTO_CLOSE int dir = rc < 0 ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (rc == 0 && (dir < 0 || fstat(dir, &st) < 0))
		rc = -errno;
	if (rc < 0)
		return cannot_use(path, -rc, strerror(-rc), err);
	if (st.st_uid != geteuid()) {
		rc = cannot_use(path, EPERM, "it belongs to another user", err);
		cst_error_hint(err, "name a directory that doesn't exist yet, or one of this user");
		return rc;
	}
	if (st.st_mode & 0077) {
		/* What others could have put there isn't trusted. */
		if (!is_empty(dir)) {
			rc = cannot_use(path, EPERM, "others have access to it, and there is something in it", err);
			cst_error_hint(err, "name a directory inside it (%s/staging), or chmod 0700 it", path);
			return rc;
		}
		if (fchmod(dir, 0700) < 0)
			return cannot_use(path, errno, strerror(errno), err);
		cst_log_info("staging directory %s: mode %03o changed to 0700", path, (unsigned)st.st_mode & 0777);
	}
	return cst_steal_fd(&dir);
}

int cst_stage_dir_lock(int dir, const char *path, struct cst_error *err)
{
	CST_AUTO_CLOSE int fd = openat(dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return cannot_use(path, errno, strerror(errno), err);
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return cst_steal_fd(&fd);
	int rc = errno == EWOULDBLOCK ? cannot_use(path, EBUSY, "another mount has it", err)
				      : cannot_use(path, errno, strerror(errno), err);
	cst_error_hint(err, "each mount needs a staging directory of its own");
	return rc;
}
