/* The file system: what a mount shows of a bucket prefix. Knows nothing of FUSE: the host (src/fuse, or a test) calls
 * cst_fs_*() with a call object and answers come through the reply functions of struct cst_fs_host; the host also carries
 * invalidations to the kernel.
 *
 * Every operation is asynchronous: it may reply before it returns (what is known locally) or later from a loop thread. Exactly one
 * reply per call. Operations never block, and a slow object never delays another. Any thread may call.
 *
 * Rules of node ids, versions and handles: meta/inode.h and doc/inode-states.md. */
#pragma once

#include "base/error.h"
#include "cache/cache.h"
#include "fetch/fetch.h"
#include "publish/publish.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

struct cst_fs;

#define CST_FS_ROOT UINT64_C(1)
#define CST_NAME_MAX 255

struct cst_fs_attr {
	struct stat st; /* st_ino is not the node id */
	int64_t ttl;	/* ns the kernel may keep it */
};
struct cst_fs_entry {
	uint64_t node; /* 0: a negative entry */
	uint64_t generation;
	int64_t entry_ttl; /* ns */
	struct cst_fs_attr attr;
};
struct cst_fs_dirent {
	uint64_t ino;
	uint64_t next; /* the offset that continues after this entry */
	uint32_t type; /* DT_* */
	struct cst_slice name;
	const struct cst_fs_entry *entry; /* readdirplus; node 0: not instantiated */
};
enum { /* open flags to the host */
       CST_FS_KEEP_CACHE = 1,
       CST_FS_DIRECT_IO = 2,
       CST_FS_CACHE_DIR = 4,
       CST_FS_PASSTHROUGH = 8,	    /* reads go to the backing file */
       CST_FS_PARALLEL_WRITES = 16, /* writes of several threads may come at once */
};
enum { /* cst_fs_setattr.valid */
       CST_FS_SET_MODE = 1,
       CST_FS_SET_UID = 2,
       CST_FS_SET_GID = 4,
       CST_FS_SET_SIZE = 8,
       CST_FS_SET_ATIME = 16,
       CST_FS_SET_MTIME = 32,
       CST_FS_SET_CTIME = 64,
       CST_FS_SET_KILL_SUIDGID = 128, /* with a size: as a write by someone without CAP_FSETID */
};
#define CST_FS_NOW INT64_MIN
struct cst_fs_setattr {
	unsigned valid;
	uint32_t mode, uid, gid;
	uint64_t size;
	int64_t atime, mtime, ctime; /* ns since 1970; CST_FS_NOW: the time of the call */
	uint64_t fh;		     /* of an ftruncate; 0: none */
};

/* One request. Embedded in the host's own; the host fills uid, gid, pid, umask. */
struct cst_fs_call {
	uint32_t uid, gid, pid;
	/* Set by the file system while the call waits; the host calls it at most once, on INTERRUPT, under `lock`. The call is then
	 * answered -EINTR soon (or with its result). */
	int lock;	  /* a spin lock: cst_fs_call_lock/unlock */
	bool interrupted; /* the file system's: an INTERRUPT that came before the call waited */
	void (*cancel)(struct cst_fs_call *call);
	void *private_data; /* the file system's */
	uint32_t flags;	    /* the file system's: of an open */
};

/* What the host provides. A reply consumes the call. `rc` are negative errno. Data is copied (written to the kernel) before the
 * function returns. */
struct cst_fs_host {
	void (*error)(struct cst_fs_call *call, int rc); /* 0 is a plain success */
	/* Returns 0, or -ENOENT when nobody took the answer (interrupted): the caller then undoes the lookup count. */
	int (*entry)(struct cst_fs_call *call, const struct cst_fs_entry *entry);
	void (*attr)(struct cst_fs_call *call, const struct cst_fs_attr *attr);
	/* As entry: undo on -ENOENT. backing: an id of backing_open with CST_FS_PASSTHROUGH, else 0. */
	int (*opened)(struct cst_fs_call *call, uint64_t fh, unsigned flags, int backing);
	/* CREATE: entry and open in one; as both. */
	int (*created)(struct cst_fs_call *call, const struct cst_fs_entry *entry, uint64_t fh, unsigned flags,
		       int backing);
	void (*written)(struct cst_fs_call *call, uint32_t size);
	void (*data)(struct cst_fs_call *call, const struct iovec *iov, int count);
	void (*text)(struct cst_fs_call *call, struct cst_slice text); /* readlink */
	void (*statfs)(struct cst_fs_call *call, const struct statvfs *st);
	void (*xattr)(struct cst_fs_call *call,
		      struct cst_slice value); /* get and list; the host handles size 0 and ERANGE */
	/* Directory entries: add returns 0, or -ENOSPC when the caller's buffer is full (stop; that entry was not taken). Then one
	 * dirents_end. It returns 0 or -ENOENT as entry does (undo every instantiated entry). */
	int (*dirent)(struct cst_fs_call *call, const struct cst_fs_dirent *entry);
	int (*dirents_end)(struct cst_fs_call *call);
	/* Tell the kernel; any thread, while some call is unanswered, perhaps under a directory's lock: the host only queues the
	 * message. */
	void (*invalidate_node)(void *host, uint64_t node, int64_t offset,
				int64_t length); /* offset -1: attributes only */
	void (*expire_name)(void *host, uint64_t parent, struct cst_slice name);
	/* Waits a moment, one second at most, until what was queued has reached the kernel; false: it hasn't. NULL: nothing is queued. */
	bool (*settle)(void *host);
	/* How many files are open whose reads come here: the host fits the kernel's read-ahead to it. NULL: the host has none. Cheap; any thread. */
	void (*open_files)(void *host, uint64_t count);
	/* A file that opens may be served from directly: an id > 0, or -errno (-EPERM no capability, -ELOOP stacked file system, -EOPNOTSUPP kernel). Both
	 * NULL: the host has none of it. The descriptor may be closed afterwards. */
	int (*backing_open)(void *host, int fd);
	void (*backing_close)(void *host, int backing);
	void *host;
};

/* NONE: a read-only mount. APPEND: files are written from front to end; they may be replaced, appended to, removed and renamed. */
enum cst_fs_write { CST_FS_WRITE_NONE, CST_FS_WRITE_APPEND };
enum cst_fs_attributes { CST_FS_ATTRIBUTES_LIST, CST_FS_ATTRIBUTES_OBJECT };

struct cst_identity;
struct cst_identity_memory;
struct cst_fs_config {
	struct cst_bucket *bucket; /* borrowed */
	struct cst_fetch *fetch;   /* borrowed */
	struct cst_cache *cache;   /* borrowed; NULL: none */
	bool passthrough;	   /* open wholly cached objects on their cache file */
	/* Listings are saved in this file (NULL: nowhere), and taken from there at the start if they are of `snapshot_identity`; they answer for
	 * list_ttl since the store was asked, or for snapshot_age, if that is longer. */
	const char *snapshot_path, *snapshot_identity;
	int64_t snapshot_age;
	bool path_probe; /* what is below a name that is looked up is asked for in one page with it */
	bool preload_walks;	   /* list ahead of programs that walk a tree */
	bool look_ahead;	   /* fetch small files ahead of programs that open them in the order of a listing */
	const char *prefix;	   /* "" or "a/b/" (with the slash) */
	enum cst_fs_attributes attributes;
	uint32_t uid, gid;
	uint32_t file_mode, dir_mode; /* permission bits of objects and prefixes without their own */
	uint32_t umask;		      /* taken away from all but the mountpoint */
	uint32_t mountpoint_umask;    /* mp_umask */
	bool uid_given, gid_given;    /* the option overrides what the object says */
	bool umask_given, mountpoint_umask_given, file_mode_given, dir_mode_given;
	int64_t attr_ttl, entry_ttl, negative_ttl; /* ns, told to the kernel */
	int64_t list_ttl;			   /* ns a listing answers lookups */
	uint64_t list_memory;			   /* bytes of the listings nobody reads; 0: 64 MiB */
	uint64_t list_names;			   /* names that these may hold; 0: no limit */
	int64_t absent_ttl;  /* ns that a single name's absence is remembered here; 0: not at all */
	uint64_t absent_max; /* of how many names */
	bool kernel_cache;   /* keep the page cache over opens */
	bool auto_cache;     /* keep it while size, mtime and ETag are the same */
	bool direct_io;
	int64_t kernel_list_ttl; /* ns the kernel may answer readdir by itself; 0: it never does */
	bool readdirplus;
	bool symlinks; /* OSS symlink objects appear as symbolic links; off: as the file they point to */
	enum cst_fs_write write;
	struct cst_publish *publish; /* borrowed; of a mount that writes */
	bool appendable;	     /* new files are appendable objects (OSS) */
	bool ignore_fsync;	     /* fsync succeeds at once; what counts is close */
	uint64_t
		rename_dir_limit; /* objects that renaming a directory may move at most; more: -EXDEV, so that mv(1) copies and tells; 0: 2,000,000 */
	/* Where the identities of inodes lie when they outlive this process (borrowed; NULL: they don't), and what the process before this one
	 * left there, in the order of its commits. */
	const struct cst_identity_memory *identities;
	struct cst_identity *const *inherited;
	size_t inherited_count;
	struct cst_fs_refused *refused; /* CST_FS_REFUSED of them, zero at first, there too (borrowed); NULL: the same */
	int64_t (*clock)(void);		/* NULL: cst_now */
};

/* An open that was answered ESTALE and may come again, perhaps to the next process. */
#define CST_FS_REFUSED 256u
struct cst_fs_refused {
	uint32_t pid, by; /* who opens; the process that answered */
	uint64_t node;
	int64_t at; /* clock(); 0: none. Stored last. */
};
struct cst_fs *cst_fs_new(const struct cst_fs_config *config, const struct cst_fs_host *host, struct cst_error *err);
/* No call may be under way; the host must be there still: it is told of what closes. */
void cst_fs_free(struct cst_fs *fs);

void cst_fs_lookup(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name);
void cst_fs_forget(struct cst_fs *fs, uint64_t node, uint64_t count); /* no reply */
void cst_fs_getattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node);
void cst_fs_readlink(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node);
void cst_fs_open(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint32_t flags);
void cst_fs_read(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh, uint64_t offset,
		 uint32_t size);
void cst_fs_release(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh);
void cst_fs_opendir(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node);
void cst_fs_readdir(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh, uint64_t offset,
		    bool plus);
void cst_fs_releasedir(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh);
void cst_fs_statfs(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node);
void cst_fs_access(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint32_t mask);
void cst_fs_getxattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, const char *name);
void cst_fs_listxattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node);
/* What follows changes the bucket. Where the mount's write mode doesn't serve it the answer is -EROFS (mode NONE), -EINVAL, -EPERM or -ENOTSUP, logged
 * once a kind with the option that would allow it. */
void cst_fs_create(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, uint32_t mode,
		   uint32_t flags);
void cst_fs_mknod(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, uint32_t mode);
void cst_fs_mkdir(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, uint32_t mode);
void cst_fs_symlink(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, const char *target);
void cst_fs_unlink(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name);
void cst_fs_rmdir(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE (-EINVAL) of rename(2). */
void cst_fs_rename(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, uint64_t new_parent,
		   const char *new_name, uint32_t flags);
void cst_fs_setattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, const struct cst_fs_setattr *set);
void cst_fs_setxattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, const char *name,
		     struct cst_slice value, uint32_t flags);
void cst_fs_removexattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, const char *name);
/* The data stays valid until the reply. */
void cst_fs_write(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh, uint64_t offset,
		  struct cst_slice data);
/* Every close of a descriptor; the reply is what close() returns. */
void cst_fs_flush(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh);
void cst_fs_fsync(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh, bool data_only);
/* Blocks until what was written is published or `deadline` (cst_now(); 0: none) has passed: before an unmount. 0, -ETIMEDOUT. */
int cst_fs_settle_writes(struct cst_fs *fs, int64_t deadline, struct cst_error *err);
/* Everything else that would write: -EROFS, logged once with the option that would allow it (none yet). `what` is the operation's name. */
void cst_fs_refuse_write(struct cst_fs *fs, struct cst_fs_call *call, const char *what);

void cst_fs_call_lock(struct cst_fs_call *call);
void cst_fs_call_unlock(struct cst_fs_call *call);
/* Host, on INTERRUPT: runs call->cancel if the call still waits. */
void cst_fs_call_interrupt(struct cst_fs_call *call);

/* Asks the store again about what is known, tells the kernel what is not as it was, and blocks until that is done. `path`: below the mountpoint,
 * without a slash before or after it; a file, or a directory and all that is known below it; "" is everything. Requests of others that hang don't
 * delay it. 0, -ENOENT: neither the mount nor the store knows the path, or the first failure; then *result tells what was done all the same. Any
 * thread, several at once. */
struct cst_fs_refresh_result {
	uint64_t directories; /* listed */
	uint64_t changed, added,
		gone;	 /* names that were known otherwise, were known not to be there, are there no more */
	uint64_t failed; /* directories that could not be listed */
};
int cst_fs_refresh(struct cst_fs *fs, const char *path, struct cst_fs_refresh_result *result, struct cst_error *err);
/* Those under way end with -ECANCELED, later ones at once. */
void cst_fs_refresh_stop(struct cst_fs *fs);

struct cst_fs_stats {
	uint64_t inodes, open_files, open_dirs, cached_dirs, skipped_names;
	uint64_t lookups, lookups_local, reads, bytes_read;
	uint64_t opens_passthrough, opens_cached, opens_direct; /* by mode: backing file; page cache; FOPEN_DIRECT_IO */
	uint64_t looked_ahead;					/* small files fetched ahead */
	int passthrough_error; /* -errno of the last backing_open that failed; 0: none did */
	uint64_t writes, bytes_written, open_writers;
};
void cst_fs_stats(struct cst_fs *fs, struct cst_fs_stats *stats);
