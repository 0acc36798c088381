#include "stage/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

/* Repeats a call that a signal interrupted; its value is a length or 0, or -errno. */
#define RETRY(call)                                 \
	({                                          \
		ssize_t _got;                       \
		do                                  \
			_got = (call);              \
		while (_got < 0 && errno == EINTR); \
		_got < 0 ? -(ssize_t)errno : _got;  \
	})

static int posix_open(void *ctx, int dir, const char *name, int flags)
{
	(void)ctx;
	return (int)RETRY(openat(dir, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600));
}

static void posix_close(void *ctx, int fd)
{
	(void)ctx;
	close(fd);
}

static ssize_t posix_pread(void *ctx, int fd, void *data, size_t len, uint64_t offset)
{
	(void)ctx;
	return RETRY(pread(fd, data, len, (off_t)offset));
}

static ssize_t posix_pwrite(void *ctx, int fd, const void *data, size_t len, uint64_t offset)
{
	(void)ctx;
	return RETRY(pwrite(fd, data, len, (off_t)offset));
}

static int posix_datasync(void *ctx, int fd)
{
	(void)ctx;
	return (int)RETRY(fdatasync(fd));
}

static int posix_dirsync(void *ctx, int dir)
{
	(void)ctx;
	return (int)RETRY(fsync(dir));
}

static int posix_reserve(void *ctx, int fd, uint64_t offset, uint64_t len)
{
	(void)ctx;
	int rc = (int)RETRY(fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len));
	return rc == -EDQUOT ? -ENOSPC : rc;
}

static int posix_punch(void *ctx, int fd, uint64_t offset, uint64_t len)
{
	(void)ctx;
	return (int)RETRY(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len));
}

static int posix_truncate(void *ctx, int fd, uint64_t size)
{
	(void)ctx;
	return (int)RETRY(ftruncate(fd, (off_t)size));
}

static int posix_size(void *ctx, int fd, uint64_t *size)
{
	struct stat st;
	(void)ctx;
	if (fstat(fd, &st) < 0)
		return -errno;
	*size = (uint64_t)st.st_size;
	return 0;
}

static int posix_unlink(void *ctx, int dir, const char *name)
{
	(void)ctx;
	return unlinkat(dir, name, 0) < 0 ? -errno : 0;
}

static int posix_space(void *ctx, int dir, uint64_t *bytes)
{
	struct statvfs st;
	(void)ctx;
	int rc = (int)RETRY(fstatvfs(dir, &st));
	if (rc < 0)
		return rc;
	*bytes = (uint64_t)st.f_bavail * st.f_frsize;
	return 0;
}

static int posix_each(void *ctx, int dir, void (*each)(void *arg, const char *name), void *arg)
{
	(void)ctx;
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);
	if (!list) {
		int rc = -errno;
		cst_close_fd(&fd);
		return rc;
	}
	errno = 0;
	for (struct dirent *d; (d = readdir(list)); errno = 0)
		each(arg, d->d_name);
	int rc = -errno;
	closedir(list);
	return rc;
}

const struct cst_stage_io *cst_stage_io_posix(void)
{
	static const struct cst_stage_io io = {
		.open = posix_open,
		.close = posix_close,
		.pread = posix_pread,
		.pwrite = posix_pwrite,
		.datasync = posix_datasync,
		.dirsync = posix_dirsync,
		.reserve = posix_reserve,
		.punch = posix_punch,
		.truncate = posix_truncate,
		.size = posix_size,
		.unlink = posix_unlink,
		.space = posix_space,
		.each = posix_each,
	};
	return &io;
}

int cst_stage_io_read(const struct cst_stage_io *io, int fd, void *data, size_t len, uint64_t offset)
{
	for (char *to = data; len;) {
		ssize_t n = io->pread(io->ctx, fd, to, len, offset);
		if (n <= 0)
			return n < 0 ? (int)n : -ENODATA;
		to += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

int cst_stage_io_write(const struct cst_stage_io *io, int fd, const void *data, size_t len, uint64_t offset)
{
	for (const char *from = data; len;) {
		ssize_t n = io->pwrite(io->ctx, fd, from, len, offset);
		if (n <= 0)
			return n == -EDQUOT ? -ENOSPC : n < 0 ? (int)n : -EIO;
		from += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}
