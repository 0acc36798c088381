/* What the staging area asks of a disk, as a table of functions: cst_stage_io_posix() is the real one, tests put one in its place that records
 * every write and sync, loses what was not synced, or fails. Directories and files are the numbers that `open` and its caller hand out.
 *
 * Any thread; all of them may block. 0 or a length, else -errno; interrupted calls are repeated inside. */
#pragma once

#include "base/cleanup.h"

#include <sys/types.h>

struct cst_stage_io {
	/* O_RDWR | O_CLOEXEC | O_NOFOLLOW and `flags` (0, or O_CREAT | O_EXCL), mode 0600, relative to the directory. */
	int (*open)(void *ctx, int dir, const char *name, int flags);
	void (*close)(void *ctx, int fd);
	ssize_t (*pread)(void *ctx, int fd, void *data, size_t len, uint64_t offset);
	ssize_t (*pwrite)(void *ctx, int fd, const void *data, size_t len, uint64_t offset);
	int (*datasync)(void *ctx, int fd);
	int (*dirsync)(void *ctx, int dir);
	/* Room for a range, which stays as it is (also what lies beyond the end). -EOPNOTSUPP: not on this file system. */
	int (*reserve)(void *ctx, int fd, uint64_t offset, uint64_t len);
	/* Gives the room of a range back; it reads as zeros. */
	int (*punch)(void *ctx, int fd, uint64_t offset, uint64_t len);
	int (*truncate)(void *ctx, int fd, uint64_t size);
	int (*size)(void *ctx, int fd, uint64_t *size);
	int (*unlink)(void *ctx, int dir, const char *name);
	/* Bytes that this user may still fill. */
	int (*space)(void *ctx, int dir, uint64_t *bytes);
	int (*each)(void *ctx, int dir, void (*each)(void *arg, const char *name), void *arg);
	void *ctx;
};
const struct cst_stage_io *cst_stage_io_posix(void);

/* All of it, however often that takes. A read that meets the end is -ENODATA, a write that goes no further -EIO. */
int cst_stage_io_read(const struct cst_stage_io *io, int fd, void *data, size_t len, uint64_t offset);
int cst_stage_io_write(const struct cst_stage_io *io, int fd, const void *data, size_t len, uint64_t offset);
