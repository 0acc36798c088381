/* The kernel's FUSE protocol up to 7.45 (Linux 6.18), in our own names: numbers, bits and layouts of what passes through /dev/fuse.
 *
 * Only plain data; owned by nobody. All fields are in host byte order, every structure is a multiple of eight bytes. The oldest
 * kernel we serve speaks 7.31 (Linux 5.4), so the shorter forms of older protocols do not appear. The unit test test_abi.c compares
 * everything the system's header knows with what is written here. */
#pragma once

#include <stdint.h>

#define CST_KFUSE_MAJOR 7u
#define CST_KFUSE_MINOR 45u	/* newest we know */
#define CST_KFUSE_MINOR_MIN 31u /* oldest we serve */

/* A read(2) on the device with less room than this is refused. */
#define CST_KFUSE_READ_MIN 8192u

/* `unique`: bit 0 marks an interrupt, bit 63 a request that the kernel sends again after a restart of the server. */
#define CST_KFUSE_UNIQUE_INTERRUPT UINT64_C(1)
#define CST_KFUSE_UNIQUE_RESENT (UINT64_C(1) << 63)

/* ioctl on a fresh /dev/fuse descriptor: join the connection of another one (_IOR(229, 0, uint32_t)). */
#define CST_KFUSE_IOC_CLONE 0x8004e500u
/* A file that opens may be passed through to (_IOW(229, 1, struct cst_kfuse_backing_map)) gives an id > 0; _IOW(229, 2, uint32_t) gives
 * the id back. 7.40. */
#define CST_KFUSE_IOC_BACKING_OPEN 0x4010e501u
#define CST_KFUSE_IOC_BACKING_CLOSE 0x4004e502u
struct cst_kfuse_backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};

enum cst_kfuse_opcode {
	CST_KFUSE_LOOKUP = 1,
	CST_KFUSE_FORGET = 2,
	CST_KFUSE_GETATTR = 3,
	CST_KFUSE_SETATTR = 4,
	CST_KFUSE_READLINK = 5,
	CST_KFUSE_SYMLINK = 6,
	CST_KFUSE_MKNOD = 8,
	CST_KFUSE_MKDIR = 9,
	CST_KFUSE_UNLINK = 10,
	CST_KFUSE_RMDIR = 11,
	CST_KFUSE_RENAME = 12,
	CST_KFUSE_LINK = 13,
	CST_KFUSE_OPEN = 14,
	CST_KFUSE_READ = 15,
	CST_KFUSE_WRITE = 16,
	CST_KFUSE_STATFS = 17,
	CST_KFUSE_RELEASE = 18,
	CST_KFUSE_FSYNC = 20,
	CST_KFUSE_SETXATTR = 21,
	CST_KFUSE_GETXATTR = 22,
	CST_KFUSE_LISTXATTR = 23,
	CST_KFUSE_REMOVEXATTR = 24,
	CST_KFUSE_FLUSH = 25,
	CST_KFUSE_INIT = 26,
	CST_KFUSE_OPENDIR = 27,
	CST_KFUSE_READDIR = 28,
	CST_KFUSE_RELEASEDIR = 29,
	CST_KFUSE_FSYNCDIR = 30,
	CST_KFUSE_GETLK = 31,
	CST_KFUSE_SETLK = 32,
	CST_KFUSE_SETLKW = 33,
	CST_KFUSE_ACCESS = 34,
	CST_KFUSE_CREATE = 35,
	CST_KFUSE_INTERRUPT = 36,
	CST_KFUSE_BMAP = 37,
	CST_KFUSE_DESTROY = 38,
	CST_KFUSE_IOCTL = 39,
	CST_KFUSE_POLL = 40,
	CST_KFUSE_NOTIFY_REPLY = 41,
	CST_KFUSE_BATCH_FORGET = 42,
	CST_KFUSE_FALLOCATE = 43,
	CST_KFUSE_READDIRPLUS = 44,
	CST_KFUSE_RENAME2 = 45,
	CST_KFUSE_LSEEK = 46,
	CST_KFUSE_COPY_FILE_RANGE = 47,
	CST_KFUSE_SETUPMAPPING = 48,
	CST_KFUSE_REMOVEMAPPING = 49,
	CST_KFUSE_SYNCFS = 50,
	CST_KFUSE_TMPFILE = 51,
	CST_KFUSE_STATX = 52,		   /* 7.39 */
	CST_KFUSE_COPY_FILE_RANGE_64 = 53, /* 7.45 */
	CST_KFUSE_OPCODES,
};

/* INIT flags; from bit 32 on they travel in flags2, announced by INIT_EXT (7.36). */
#define CST_KFUSE_ASYNC_READ (UINT64_C(1) << 0)
#define CST_KFUSE_POSIX_LOCKS (UINT64_C(1) << 1)
#define CST_KFUSE_ATOMIC_O_TRUNC (UINT64_C(1) << 3)
#define CST_KFUSE_EXPORT_SUPPORT (UINT64_C(1) << 4)
#define CST_KFUSE_BIG_WRITES (UINT64_C(1) << 5)
#define CST_KFUSE_DONT_MASK (UINT64_C(1) << 6)
#define CST_KFUSE_FLOCK_LOCKS (UINT64_C(1) << 10)
#define CST_KFUSE_AUTO_INVAL_DATA (UINT64_C(1) << 12)
#define CST_KFUSE_DO_READDIRPLUS (UINT64_C(1) << 13)
#define CST_KFUSE_READDIRPLUS_AUTO (UINT64_C(1) << 14)
#define CST_KFUSE_ASYNC_DIO (UINT64_C(1) << 15)
#define CST_KFUSE_WRITEBACK_CACHE (UINT64_C(1) << 16)
#define CST_KFUSE_NO_OPEN_SUPPORT (UINT64_C(1) << 17)
#define CST_KFUSE_PARALLEL_DIROPS (UINT64_C(1) << 18)
#define CST_KFUSE_HANDLE_KILLPRIV (UINT64_C(1) << 19)
#define CST_KFUSE_ABORT_ERROR (UINT64_C(1) << 21)
#define CST_KFUSE_MAX_PAGES (UINT64_C(1) << 22)
#define CST_KFUSE_CACHE_SYMLINKS (UINT64_C(1) << 23)
#define CST_KFUSE_NO_OPENDIR_SUPPORT (UINT64_C(1) << 24)
#define CST_KFUSE_EXPLICIT_INVAL_DATA (UINT64_C(1) << 25)
#define CST_KFUSE_HANDLE_KILLPRIV_V2 (UINT64_C(1) << 28)
#define CST_KFUSE_SETXATTR_EXT (UINT64_C(1) << 29)
#define CST_KFUSE_INIT_EXT (UINT64_C(1) << 30)
#define CST_KFUSE_SECURITY_CTX (UINT64_C(1) << 32)
#define CST_KFUSE_HAS_EXPIRE_ONLY (UINT64_C(1) << 35)
#define CST_KFUSE_DIRECT_IO_ALLOW_MMAP (UINT64_C(1) << 36)
#define CST_KFUSE_PASSTHROUGH (UINT64_C(1) << 37)
#define CST_KFUSE_NO_EXPORT_SUPPORT (UINT64_C(1) << 38)
#define CST_KFUSE_HAS_RESEND (UINT64_C(1) << 39)
#define CST_KFUSE_OVER_IO_URING (UINT64_C(1) << 41)

/* Answer flags of OPEN and OPENDIR. */
#define CST_KFUSE_FOPEN_DIRECT_IO (1u << 0)
#define CST_KFUSE_FOPEN_KEEP_CACHE (1u << 1)
#define CST_KFUSE_FOPEN_CACHE_DIR (1u << 3)
#define CST_KFUSE_FOPEN_NOFLUSH (1u << 5)		 /* 7.35 */
#define CST_KFUSE_FOPEN_PARALLEL_DIRECT_WRITES (1u << 6) /* 7.36 */
#define CST_KFUSE_FOPEN_PASSTHROUGH (1u << 7)		 /* 7.40, with backing_id */

struct cst_kfuse_in_header {
	uint32_t len;
	uint32_t opcode;
	uint64_t unique;
	uint64_t nodeid;
	uint32_t uid, gid, pid;
	uint16_t total_extlen; /* 7.38: 8-byte units of extensions at the end */
	uint16_t padding;
};
struct cst_kfuse_out_header {
	uint32_t len;
	int32_t error;	 /* 0 or -errno; of a notification: its code */
	uint64_t unique; /* 0: notification */
};

struct cst_kfuse_init_in {
	uint32_t major, minor, max_readahead, flags;
	uint32_t flags2; /* from here 7.36 */
	uint32_t unused[11];
};
struct cst_kfuse_init_out {
	uint32_t major, minor, max_readahead, flags;
	uint16_t max_background, congestion_threshold;
	uint32_t max_write;
	uint32_t time_gran;
	uint16_t max_pages, map_alignment;
	uint32_t flags2;
	uint32_t max_stack_depth;
	uint16_t request_timeout;
	uint16_t unused[11];
};

struct cst_kfuse_attr {
	uint64_t ino, size, blocks;
	uint64_t atime, mtime, ctime;
	uint32_t atimensec, mtimensec, ctimensec;
	uint32_t mode, nlink, uid, gid, rdev, blksize, flags;
};
struct cst_kfuse_entry_out {
	uint64_t nodeid, generation;
	uint64_t entry_valid, attr_valid;
	uint32_t entry_valid_nsec, attr_valid_nsec;
	struct cst_kfuse_attr attr;
};
struct cst_kfuse_attr_out {
	uint64_t attr_valid;
	uint32_t attr_valid_nsec, dummy;
	struct cst_kfuse_attr attr;
};

struct cst_kfuse_forget_in {
	uint64_t nlookup;
};
struct cst_kfuse_forget_one {
	uint64_t nodeid, nlookup;
};
struct cst_kfuse_batch_forget_in {
	uint32_t count, dummy;
};
struct cst_kfuse_getattr_in {
	uint32_t getattr_flags, dummy;
	uint64_t fh;
};
struct cst_kfuse_open_in {
	uint32_t flags, open_flags;
};
struct cst_kfuse_open_out {
	uint64_t fh;
	uint32_t open_flags;
	int32_t backing_id; /* 7.40 */
};
struct cst_kfuse_release_in {
	uint64_t fh;
	uint32_t flags, release_flags;
	uint64_t lock_owner;
};
struct cst_kfuse_read_in { /* READ, READDIR, READDIRPLUS */
	uint64_t fh, offset;
	uint32_t size, read_flags;
	uint64_t lock_owner;
	uint32_t flags, padding;
};
struct cst_kfuse_write_in {
	uint64_t fh, offset;
	uint32_t size, write_flags;
	uint64_t lock_owner;
	uint32_t flags, padding;
};
struct cst_kfuse_write_out {
	uint32_t size, padding;
};
struct cst_kfuse_flush_in {
	uint64_t fh;
	uint32_t unused, padding;
	uint64_t lock_owner;
};
#define CST_KFUSE_FSYNC_FDATASYNC (1u << 0)
struct cst_kfuse_fsync_in {
	uint64_t fh;
	uint32_t fsync_flags, padding;
};
struct cst_kfuse_mknod_in { /* followed by the name */
	uint32_t mode, rdev, umask, padding;
};
struct cst_kfuse_mkdir_in { /* followed by the name */
	uint32_t mode, umask;
};
struct cst_kfuse_rename_in { /* followed by the old and the new name */
	uint64_t newdir;
};
struct cst_kfuse_rename2_in { /* likewise */
	uint64_t newdir;
	uint32_t flags, padding;
};
struct cst_kfuse_link_in { /* followed by the name */
	uint64_t oldnodeid;
};
struct cst_kfuse_create_in { /* followed by the name; TMPFILE too */
	uint32_t flags, mode, umask, open_flags;
};
/* setattr_in.valid */
#define CST_KFUSE_FATTR_MODE (1u << 0)
#define CST_KFUSE_FATTR_UID (1u << 1)
#define CST_KFUSE_FATTR_GID (1u << 2)
#define CST_KFUSE_FATTR_SIZE (1u << 3)
#define CST_KFUSE_FATTR_ATIME (1u << 4)
#define CST_KFUSE_FATTR_MTIME (1u << 5)
#define CST_KFUSE_FATTR_FH (1u << 6)
#define CST_KFUSE_FATTR_ATIME_NOW (1u << 7)
#define CST_KFUSE_FATTR_MTIME_NOW (1u << 8)
#define CST_KFUSE_FATTR_CTIME (1u << 10)
#define CST_KFUSE_FATTR_KILL_SUIDGID (1u << 11)
struct cst_kfuse_setattr_in {
	uint32_t valid, padding;
	uint64_t fh, size, lock_owner;
	uint64_t atime, mtime, ctime;
	uint32_t atimensec, mtimensec, ctimensec;
	uint32_t mode, unused4, uid, gid, unused5;
};
struct cst_kfuse_setxattr_in { /* without SETXATTR_EXT; followed by the name and the value */
	uint32_t size, flags;
};
struct cst_kfuse_getxattr_in { /* also LISTXATTR */
	uint32_t size, padding;
};
struct cst_kfuse_getxattr_out {
	uint32_t size, padding;
};
struct cst_kfuse_access_in {
	uint32_t mask, padding;
};
struct cst_kfuse_interrupt_in {
	uint64_t unique;
};
struct cst_kfuse_lseek_in {
	uint64_t fh, offset;
	uint32_t whence, padding;
};
struct cst_kfuse_lseek_out {
	uint64_t offset;
};
struct cst_kfuse_kstatfs {
	uint64_t blocks, bfree, bavail, files, ffree;
	uint32_t bsize, namelen, frsize, padding;
	uint32_t spare[6];
};
struct cst_kfuse_dirent { /* followed by the name, padded to eight bytes */
	uint64_t ino, off;
	uint32_t namelen, type;
};
struct cst_kfuse_direntplus {
	struct cst_kfuse_entry_out entry;
	struct cst_kfuse_dirent dirent;
};
#define CST_KFUSE_ALIGN(x) (((x) + 7) & ~(size_t)7)

struct cst_kfuse_sx_time {
	int64_t sec;
	uint32_t nsec;
	int32_t reserved;
};
struct cst_kfuse_statx { /* 7.39 */
	uint32_t mask, blksize;
	uint64_t attributes;
	uint32_t nlink, uid, gid;
	uint16_t mode, spare0;
	uint64_t ino, size, blocks, attributes_mask;
	struct cst_kfuse_sx_time atime, btime, ctime, mtime;
	uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
	uint64_t spare2[14];
};
struct cst_kfuse_statx_in {
	uint32_t getattr_flags, reserved;
	uint64_t fh;
	uint32_t sx_flags, sx_mask;
};
struct cst_kfuse_statx_out {
	uint64_t attr_valid;
	uint32_t attr_valid_nsec, flags;
	uint64_t spare[2];
	struct cst_kfuse_statx stat;
};

/* Notifications: server to kernel, unique 0, the code in `error`. */
enum cst_kfuse_notify {
	CST_KFUSE_NOTIFY_INVAL_INODE = 2,
	CST_KFUSE_NOTIFY_INVAL_ENTRY = 3,
	CST_KFUSE_NOTIFY_RESEND = 7,	/* 7.40 */
	CST_KFUSE_NOTIFY_INC_EPOCH = 8, /* 7.44 */
};
struct cst_kfuse_inval_inode_out {
	uint64_t ino;
	int64_t off, len;
};
#define CST_KFUSE_EXPIRE_ONLY (1u << 0) /* 7.38 */
struct cst_kfuse_inval_entry_out {	/* followed by the name and a NUL */
	uint64_t parent;
	uint32_t namelen, flags;
};

_Static_assert(sizeof(struct cst_kfuse_in_header) == 40, "in_header");
_Static_assert(sizeof(struct cst_kfuse_out_header) == 16, "out_header");
_Static_assert(sizeof(struct cst_kfuse_init_in) == 64, "init_in");
_Static_assert(sizeof(struct cst_kfuse_init_out) == 64, "init_out");
_Static_assert(sizeof(struct cst_kfuse_attr) == 88, "attr");
_Static_assert(sizeof(struct cst_kfuse_entry_out) == 128, "entry_out");
_Static_assert(sizeof(struct cst_kfuse_attr_out) == 104, "attr_out");
_Static_assert(sizeof(struct cst_kfuse_open_out) == 16, "open_out");
_Static_assert(sizeof(struct cst_kfuse_backing_map) == 16, "backing_map");
_Static_assert(sizeof(struct cst_kfuse_read_in) == 40, "read_in");
_Static_assert(sizeof(struct cst_kfuse_release_in) == 24, "release_in");
_Static_assert(sizeof(struct cst_kfuse_write_in) == 40, "write_in");
_Static_assert(sizeof(struct cst_kfuse_setattr_in) == 88, "setattr_in");
_Static_assert(sizeof(struct cst_kfuse_create_in) == 16, "create_in");
_Static_assert(sizeof(struct cst_kfuse_kstatfs) == 80, "kstatfs");
_Static_assert(sizeof(struct cst_kfuse_dirent) == 24, "dirent");
_Static_assert(sizeof(struct cst_kfuse_statx) == 256, "statx");
_Static_assert(sizeof(struct cst_kfuse_statx_out) == 288, "statx_out");
