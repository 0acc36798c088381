#include "store/tree.h"

#include "base/buf.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>

static int open_beneath(int dir, const char *path, int flags)
{
	struct open_how how = {
		.flags = (unsigned)(flags | O_CLOEXEC),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	int fd;

	/* EAGAIN: the kernel couldn't prove that a path stayed beneath while something was renamed. */
	for (int i = 0; i < 100; i++) {
		fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
		if (fd >= 0)
			return fd;
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
	}
	return -EAGAIN;
}

int cst_tree_open(int dir, const char *path, int flags)
{
	int fd = open_beneath(dir, path, flags);

	if (fd == -ENOTDIR || fd == -ELOOP || fd == -EXDEV || fd == -ENXIO)
		return -ENOENT;
	return fd;
}

int cst_tree_open_file(int dir, const char *path, struct stat *st)
{
	/* O_NONBLOCK: a FIFO that somebody put there must not stop us. */
	CST_AUTO_CLOSE int fd = cst_tree_open(dir, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return cst_steal_fd(&fd);
	if (fstat(fd, st) != 0)
		return -errno;
	if (S_ISDIR(st->st_mode))
		return -EISDIR;
	if (!S_ISREG(st->st_mode))
		return -ENOENT;
	return cst_steal_fd(&fd);
}

int cst_tree_make_dir(int dir, const char *name)
{
	bool made = mkdirat(dir, name, 0755) == 0;
	int fd;

	if (!made && errno != EEXIST)
		return -errno;
	fd = open_beneath(dir, name, O_RDONLY | O_DIRECTORY);
	if (fd >= 0 && made && fsync(dir) != 0) {
		int rc = -errno;

		close(fd);
		return rc;
	}
	return fd;
}

/* Walks the parent's components one by one, making what is missing. */
static int make_parent(int dir, const char *path, size_t parent_len, size_t *blocker)
{
	CST_AUTO_CLOSE int fd = open_beneath(dir, ".", O_RDONLY | O_DIRECTORY);
	CST_AUTO_FREE char *copy = cst_xstrndup(path, parent_len);
	char *next;

	if (fd < 0)
		return cst_steal_fd(&fd);
	for (char *name = copy; name; name = next) {
		char *slash = strchr(name, '/');
		int sub;

		next = slash ? slash + 1 : NULL;
		if (slash)
			*slash = '\0';
		sub = cst_tree_make_dir(fd, name);
		if (sub < 0) {
			if (blocker)
				*blocker = (size_t)(name - copy) + strlen(name);
			return sub;
		}
		close(fd);
		fd = sub;
	}
	return cst_steal_fd(&fd);
}

int cst_tree_parent(int dir, const char *path, bool create, const char **leaf, size_t *blocker)
{
	const char *slash = strrchr(path, '/');
	CST_AUTO_FREE char *parent = slash ? cst_xstrndup(path, (size_t)(slash - path)) : cst_xstrdup(".");
	int fd;

	*leaf = slash ? slash + 1 : path;
	fd = open_beneath(dir, parent, O_RDONLY | O_DIRECTORY);
	if (create && slash && (fd == -ENOENT || fd == -ENOTDIR))
		return make_parent(dir, path, (size_t)(slash - path), blocker);
	if (!create && (fd == -ENOTDIR || fd == -ELOOP))
		return -ENOENT;
	return fd;
}

void cst_tree_prune(int dir, const char *path)
{
	CST_AUTO_FREE char *copy = cst_xstrdup(path);

	for (;;) {
		char *slash = strrchr(copy, '/');
		const char *leaf;
		int parent;
		int rc;

		if (!slash)
			return;
		*slash = '\0';
		parent = cst_tree_parent(dir, copy, false, &leaf, NULL);
		if (parent < 0)
			return;
		rc = unlinkat(parent, leaf, AT_REMOVEDIR);
		close(parent);
		if (rc != 0)
			return;
	}
}

static unsigned char type_of(int dir, const char *name)
{
	struct stat st;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return DT_LNK; /* gone: what is neither file nor directory is passed over */
	return (unsigned char)IFTODT(st.st_mode);
}

int cst_tree_each(int dir, cst_tree_entry_fn fn, void *arg)
{
	int copy = open_beneath(dir, ".", O_RDONLY | O_DIRECTORY);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;
	int rc = 0;

	if (copy < 0)
		return copy;
	if (!d) {
		rc = -errno;
		close(copy);
		return rc;
	}
	while (rc == 0) {
		errno = 0;
		e = readdir(d);
		if (!e) {
			rc = -errno;
			break;
		}
		if (e->d_name[0] == '.' && (!e->d_name[1] || (e->d_name[1] == '.' && !e->d_name[2])))
			continue;
		rc = fn(arg, copy, e->d_name, e->d_type == DT_UNKNOWN ? type_of(copy, e->d_name) : e->d_type);
	}
	closedir(d);
	return rc;
}

static int remove_entry(void *arg, int dir, const char *name, unsigned char type)
{
	(void)arg;
	if (type == DT_DIR)
		return cst_tree_remove(dir, name);
	return unlinkat(dir, name, 0) == 0 || errno == ENOENT ? 0 : -errno;
}

int cst_tree_remove(int dir, const char *name)
{
	CST_AUTO_CLOSE int fd = -1;
	int rc;

	if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	fd = open_beneath(dir, name, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return fd == -ENOENT ? 0 : cst_steal_fd(&fd);
	rc = cst_tree_each(fd, remove_entry, NULL);
	if (rc)
		return rc;
	return unlinkat(dir, name, AT_REMOVEDIR) == 0 || errno == ENOENT ? 0 : -errno;
}

int cst_tree_write_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}
