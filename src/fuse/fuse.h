/* The kernel's side of a mount: /dev/fuse descriptors, the protocol, mount(2) or fusermount3.
 *
 * One cst_fuse is one mount. cst_fuse_mount() opens and mounts; cst_fuse_run() reads requests with one thread per core, each on
 * its own cloned descriptor, until the mount is gone. Requests are answered asynchronously through struct cst_fs_host. Facts about the
 * protocol: linux/Documentation/filesystems/fuse*, include/uapi/linux/fuse.h (7.45); ours is fuse/abi.h. */
#pragma once

#include "fs/fs.h"
#include "supervisor/keeper.h"

struct cst_fuse;
struct cst_fuse_mountpoint;

struct cst_fuse_config {
	const char *mountpoint;
	const char *fsname;  /* source column of /proc/mounts: "oss://bucket/prefix" */
	const char *subtype; /* "cistern" */
	bool allow_other;    /* refused for users without user_allow_other in /etc/fuse.conf */
	bool allow_root;
	bool default_permissions;
	bool nonempty;		   /* allow mounting over a directory with entries */
	unsigned long mount_flags; /* MS_* as from ro, nosuid, nodev, noexec, noatime, nodiratime, dirsync, sync */
	unsigned threads;	   /* 0: one per core */
	unsigned max_background;   /* 0: from memory and read_ahead_kb */
	uint64_t
		memory; /* the mount's budget, to derive max_background (32…256) and how far read-ahead falls as files are opened */
	bool passthrough; /* negotiate FUSE_PASSTHROUGH where the kernel has it */
	const char *
		backing_dir; /* a directory on the file system of the files to pass through to, to try it at the start; NULL: not known */
	uint32_t max_read;	/* bytes; 0: 1 MiB */
	uint32_t max_write;	/* bytes of one write, up to 1 MiB; 0: a read-only mount */
	uint32_t read_ahead_kb; /* written to the mount's bdi; 0: leave */
	bool readdirplus;
	bool auto_cache; /* the kernel drops a file's pages when its mtime or size change */
	/* Who mounts, holds the descriptors and outlives this process; borrowed. NULL: this process does all that itself. */
	struct cst_keeper *keeper;
};

/* Checks the mountpoint, opens /dev/fuse, mounts. Error texts are for people (missing, not a directory, not empty, already
 * mounted, /dev/fuse missing, not permitted). */
struct cst_fuse *cst_fuse_mount(const struct cst_fuse_config *config, struct cst_error *err);
/* The same for a process that only keeps the mount: the descriptor of the connection, to be served by another process through its
 * keeper. *where is the caller's to free (where->path). */
int cst_fuse_mount_device(const struct cst_fuse_config *config, struct cst_fuse_mountpoint *where,
			  struct cst_error *err);
/* The vtable for cst_fs_new(). */
const struct cst_fs_host *cst_fuse_host(struct cst_fuse *fuse);
/* Starts the readers; returns after INIT was negotiated. */
int cst_fuse_start(struct cst_fuse *fuse, struct cst_fs *fs, struct cst_error *err);
/* Waits until the mount has gone (umount, abort) or cst_fuse_stop() was called. Returns 0. */
int cst_fuse_wait(struct cst_fuse *fuse);
/* Unmounts (lazily when busy) and lets cst_fuse_wait() return, also while it is used. Async-signal-unsafe: call from a thread that
 * sigwaits, which must be joined before cst_fuse_free(). */
void cst_fuse_stop(struct cst_fuse *fuse);
/* Another process goes on with the mount: takes no more requests, answers those that can be answered in a moment and lets cst_fuse_wait() return.
 * The kernel sends the others to the successor. With a keeper only; nothing may be freed after it. As cst_fuse_stop(). */
void cst_fuse_leave(struct cst_fuse *fuse);
/* After cst_fuse_wait(): ends outstanding calls; no more come. The file system may be freed then, and before the host, which it still tells of
 * what closes. False: a call is never answered. */
bool cst_fuse_drain(struct cst_fuse *fuse);
/* Frees, drained or not; after cst_fs_free(). */
void cst_fuse_free(struct cst_fuse *fuse);

/* Makes the kernel look every name up again at its next use; never waits. It costs what is mounted inside, and the pages of files that aren't open:
 * for emergencies. -EOPNOTSUPP before Linux 6.16. */
int cst_fuse_expire_all(struct cst_fuse *fuse);

struct cst_fuse_stats {
	/* "on"; else why not: "off", "kernel before 6.9", "kernel built without FUSE_PASSTHROUGH", "not permitted (CAP_SYS_ADMIN)",
	 * "cache directory on a stacked file system", "the kernel refused the cache file". The last backing file decides. */
	const char *passthrough;
	uint32_t kernel_major, kernel_minor; /* negotiated protocol */
	uint32_t max_background, max_write;
	uint32_t read_ahead_kb; /* now: it falls as the number of open files grows */
	uint64_t requests, in_flight, interrupts;
	uint64_t inherited_opens; /* passed through by a process before this one */
};
void cst_fuse_stats(const struct cst_fuse *fuse, struct cst_fuse_stats *stats);

/* umount(2) or fusermount3 -u; `lazy` detaches a busy one. 0 or -errno. */
int cst_fuse_unmount(const char *mountpoint, bool lazy, struct cst_error *err);
