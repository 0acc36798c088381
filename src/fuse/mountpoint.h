/* Where a mount sits: finding it in the mount table, checking the directory, mount(2), umount(2) and fusermount3.
 *
 * A dead or stuck FUSE mount makes stat(2) on it fail or hang, so nothing here touches the last component of a path before the
 * mount table has said what is there. Calls block; not for request handlers. */
#pragma once

#include "base/error.h"

#include <stdint.h>

/* One line of /proc/self/mountinfo; strings unescaped, owned. */
struct cst_fuse_mountinfo {
	unsigned major, minor;
	char *path, *type, *source;
};
void cst_fuse_mountinfo_fini(struct cst_fuse_mountinfo *m);
/* 0 or -EINVAL. */
int cst_fuse_mountinfo_parse(const char *line, struct cst_fuse_mountinfo *m);
/* The topmost mount on exactly this absolute path: 0, -ENOENT (nothing mounted there) or -errno. */
int cst_fuse_mountinfo_find(const char *path, struct cst_fuse_mountinfo *m);

/* The absolute path without symbolic links, the caller frees; NULL when a directory on the way is missing (errno). */
char *cst_fuse_mountpoint_resolve(const char *path);
/* Is this a directory that we may mount on? */
int cst_fuse_mountpoint_check(const char *path, bool nonempty, struct cst_error *err);
/* Keeps other processes of ours from mounting there until the descriptor is closed; check again then. -1: could not be had. */
int cst_fuse_mountpoint_lock(const char *path);

struct cst_fuse_mount_request {
	const char *path; /* resolved */
	const char *fsname, *subtype;
	bool allow_other; /* also for allow_root */
	bool default_permissions;
	unsigned long flags; /* MS_* */
	uint32_t max_read;
};
struct cst_fuse_mountpoint {
	char *path;
	unsigned major, minor; /* of the mounted file system: tells ours from another one mounted there later */
	bool mounted;
};
/* Mounts; returns the descriptor of the connection, or -errno with an error for people. */
int cst_fuse_mountpoint_mount(const struct cst_fuse_mount_request *req, struct cst_fuse_mountpoint *m,
			      struct cst_error *err);
/* Unmounts ours (and not what someone else has mounted there since), lazily when busy. 0 or -errno. */
int cst_fuse_mountpoint_unmount(struct cst_fuse_mountpoint *m, struct cst_error *err);
/* Writes the bdi's read_ahead_kb; returns what the kernel has now, 0 when that can't be told. */
uint32_t cst_fuse_mountpoint_read_ahead(const struct cst_fuse_mountpoint *m, uint32_t kb);

/* fusermount.c: the same through the set-uid helper, for users that are not root. */
int cst_fuse_helper_mount(const struct cst_fuse_mount_request *req, struct cst_error *err);
int cst_fuse_helper_unmount(const char *path, bool lazy, struct cst_error *err);
/* May users ask for allow_other (user_allow_other in the helper's configuration)? */
bool cst_fuse_helper_allows_other(const char *fuse_conf);
#define CST_FUSE_CONF "/etc/fuse.conf"
