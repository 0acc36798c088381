/* Private to fs. Locks, outermost first: a handle's, a directory's (meta), a name shard's, a node shard's; the spin lock of a call and
 * a wait's mutex are leaves. Of files: an fs_file's, then a binding's, then the node shard's. The look-ahead's comes before a directory's. The host's functions are called without any of them, but for `dirent`, which only copies, and the notifications, which only
 * queue. */
#pragma once

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/pool.h"
#include "fs/fs.h"
#include "meta/absent.h"
#include "meta/dir.h"
#include "meta/inode.h"

#include <errno.h>
#include <pthread.h>

#define HANDLE_SHARDS 64
#define FS_BINDINGS 64
#define HANDLE_BUCKETS 64

struct fs_handle {
	unsigned magic;
	struct cst_ref ref;
	uint64_t fh;
	struct fs_handle *next;
	struct cst_fs *fs;
	struct cst_inode *inode;  /* counted */
	struct fs_file *file;	  /* counted; files of a mount with a cache or that writes, opened and not rebuilt */
	struct fs_stream *stream; /* files with bytes, but for those passed through; the handle's lock */
	struct fs_writer *writer; /* it was opened for writing: closed with the handle */
	bool append;		  /* O_APPEND */
	bool forget;		  /* nobody took the answer of the open */
	bool passthrough;
	bool was_read; /* atomic */
	/* directories */
	pthread_mutex_t lock; /* guards what follows */
	struct cst_dir *dir;  /* counted */
	struct cst_listing *listing;
	bool read_on; /* entries were read: a rewind takes a newer listing if this one is old */
};
#define FS_HANDLE_MAGIC 0xf54a0001u
/* In the number of a handle that writes: a process that didn't make it knows so much of it. */
#define FS_FH_WRITES (UINT64_C(1) << 62)

/* What a handle reads: one version of its file. */
struct fs_stream {
	struct cst_ref ref;
	struct cst_fetch_stream *stream; /* NULL: an empty file */
	uint64_t size;
	unsigned version; /* the fs_file's, or 0 */
};

struct fs_handle_shard {
	pthread_mutex_t lock;
	struct fs_handle *buckets[HANDLE_BUCKETS];
};

/* A flood of failures of one kind must not hide the first of another: each has a limit of its own in the log. */
#define FAILURE_KINDS 16

struct cst_fs {
	unsigned magic;
	struct cst_fs_config config;
	char *prefix;
	const struct cst_fs_host *host;
	struct cst_meta *meta;
	struct cst_absent *absent; /* NULL: single names' absence is not remembered */
	struct cst_inode_table *table;
	struct cst_pool *pool; /* interrupts: they must not run under the host's locks */
	struct fs_handle_shard handles[HANDLE_SHARDS];
	pthread_mutex_t live_lock; /* guards live */
	pthread_cond_t live_none;
	uint64_t live; /* fs_waits: their last steps come after the reply */
	uint64_t next_fh;
	uint64_t first_node; /* node ids below it were given by a process before this one */
	int64_t mounted;     /* ns since 1970: the time of directories that have none */
	uint64_t open_files, open_dirs, open_passthrough; /* atomic, as are all counters */
	uint64_t opens_passthrough, opens_cached, opens_direct;
	int passthrough_error;	      /* atomic */
	bool no_passthrough;	      /* atomic: the kernel never takes a backing file */
	pthread_mutex_t refused_lock; /* guards refused; a leaf */
	struct cst_fs_refused *refused, own_refused[CST_FS_REFUSED];
	/* Binding an inode's data to what the cache has of it, by node id; outside the inode's lock. */
	pthread_mutex_t bindings[FS_BINDINGS];
	pthread_mutex_t refresh_lock; /* a leaf: what refreshes wait for */
	pthread_cond_t refresh_wake;
	bool refresh_stopping;
	struct fs_ahead *ahead; /* NULL: no looking ahead */
	struct fs_preloads *preloads;
	struct fs_snapshot *snapshot; /* NULL: listings are not saved */
	/* Of a mount that writes. */
	struct cst_absent *missed; /* names that were not there a moment ago: what is made then needs no look */
	pthread_mutex_t writers_lock;
	pthread_cond_t writers_wake;
	TAILQ_HEAD(, fs_writer) writers; /* these four: the writers' lock */
	TAILQ_HEAD(, fs_end_wait) end_waits;
	TAILQ_HEAD(, fs_moving) moving; /* directories that are being renamed */
	TAILQ_HEAD(, fs_change) changes; /* under way: the names that they change */
	uint64_t open_writers;
	bool ending; /* atomic: what is not published now is kept */
	pthread_mutex_t timer_lock;
	pthread_cond_t timer_wake;
	TAILQ_HEAD(, fs_timer) timers; /* the timers' lock, as the next */
	bool timing;
	uint64_t writes, bytes_written, publish_failures;
	uint64_t skipped, lookups, lookups_local, reads, bytes_read;
	bool told_skipped, told_write;
	struct cst_log_limit failure_limits[FAILURE_KINDS], shadow_limit;
	struct cst_metric *metric_skipped, *metric_shadowed;
};
#define FS_MAGIC 0xf5000001u

/* A call that waits for the store. Owned by its operation; an interrupt under way and the starter hold references. */
struct fs_wait {
	struct cst_ref ref;
	struct cst_fs *fs;
	struct cst_fs_call *call;
	pthread_mutex_t lock;
	bool started, abort_wanted;
	/* Withdraws or cancels the operation, on a pool thread. True: withdrawn, its end will not come; answered -EINTR then. */
	bool (*leave)(struct fs_wait *w);
	void (*free)(struct fs_wait *w);
};
/* Before the operation is started; from now on an interrupt reaches it. */
void fs_wait_arm(struct fs_wait *w, struct cst_fs *fs, struct cst_fs_call *call, bool (*leave)(struct fs_wait *),
		 void (*free)(struct fs_wait *));
/* After it was started (it may have ended already); gives the starter's reference back. */
void fs_wait_started(struct fs_wait *w);
/* At its end, before the reply: interrupts come too late now. Returns the call. */
struct cst_fs_call *fs_wait_end(struct fs_wait *w);
void fs_wait_unref(struct fs_wait *w);

/* What cst_fs_free() waits for besides calls. */
void fs_live_begin(struct cst_fs *fs);
void fs_live_end(struct cst_fs *fs);

struct fs_handle *fs_handle_new(struct cst_fs *fs, struct cst_inode *inode, uint64_t fh); /* 0: a new number */
/* Of an open in a mode; owns the caller's references to the file and the writer (or NULL). */
struct fs_handle *fs_handle_new_file(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file, bool passthrough,
				     struct fs_writer *writer, bool append);
/* Of a file, as it is in the store now; made anew when the mount itself has changed that. With a reference. */
struct fs_stream *fs_handle_stream(struct fs_handle *h);
void fs_stream_unref(struct fs_stream *s); /* NULL is allowed */
/* By number, referenced; NULL: there is none of that node. */
struct fs_handle *fs_handle_find(struct cst_fs *fs, uint64_t node, uint64_t fh);
/* Was an unknown number a handle that wrote? Logged: what it had not published is gone. */
bool fs_lost_handle(struct cst_fs *fs, uint64_t fh);
/* By number; rebuilt when it is unknown or another node's. Never NULL; referenced. */
struct fs_handle *fs_handle_get(struct cst_fs *fs, struct cst_inode *inode, uint64_t fh);
void fs_handle_unref(struct fs_handle *h);
void fs_handle_release(struct cst_fs *fs, uint64_t node, uint64_t fh);
/* Nobody took the answer of its open: what that would have published is not. */
void fs_handle_untaken(struct cst_fs *fs, uint64_t node, uint64_t fh);

/* open.c: the file's fetch object reads and saves through what the cache has. */
void fs_file_bind(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file, struct cst_fetch_object *data);
void fs_file_unbound(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file); /* its data is another now */
/* A handle has gone: leaves the mode, gives up the reference. */
void fs_file_leave(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file);

/* ahead.c: fetches small files ahead of programs that open them in the order of a listing. */
struct fs_ahead *fs_ahead_new(struct cst_fs *fs);
void fs_ahead_clear(struct fs_ahead *a); /* gives up what was fetched ahead */
void fs_ahead_free(struct fs_ahead *a);	 /* NULL is allowed */
/* The file opens: takes over what was fetched ahead of it, and looks further ahead. */
void fs_ahead_open(struct fs_ahead *a, struct cst_inode *inode);
/* The first READ of a handle: the kernel doesn't have the file's pages. */
void fs_ahead_read(struct fs_ahead *a, struct cst_inode *inode);
uint64_t fs_ahead_count(const struct fs_ahead *a);

/* snapshot.c: listings that outlive the mount. */
struct fs_snapshot *fs_snapshot_new(struct cst_fs *fs);
void fs_snapshot_free(struct fs_snapshot *s); /* saves; before cst_meta_stop(); NULL is allowed */
/* A directory has got its cst_dir: what it has of it may have to be asked for anew. */
void fs_snapshot_adopted(struct fs_snapshot *s, const struct cst_inode *inode, struct cst_dir *dir);
/* refresh.c: asks again about these directories; takes the references. */
void fs_refresh_dirs(struct cst_fs *fs, struct cst_inode **inodes, size_t count);

/* preload.c: lists ahead of programs that walk a tree. */
struct fs_preloads *fs_preloads_new(struct cst_fs *fs);
void fs_preloads_free(struct fs_preloads *s);			 /* after cst_meta_stop() */
void fs_walk_opened(struct cst_fs *fs, struct cst_inode *inode); /* a directory, before its listing begins */
void fs_walk_read(struct cst_fs *fs, struct cst_inode *inode);	 /* to its end */

/* Returns for how long the kernel may keep it: not at all while the file is written. */
int64_t fs_fill_stat(const struct cst_fs *fs, struct cst_inode *inode, struct stat *st);
void fs_fill_entry(const struct cst_fs *fs, struct cst_inode *inode, struct cst_fs_entry *entry);
/* Of the inode's directory, made on first use; borrowed from the inode. */
struct cst_dir *fs_dir_of(struct cst_fs *fs, struct cst_inode *inode);
void fs_adopt_dir(struct cst_fs *fs, struct cst_inode *inode, struct cst_dir *dir);
/* The key prefix of a directory's inode, with its slash. */
void fs_dir_prefix(const struct cst_fs *fs, const struct cst_inode *inode, struct cst_buf *prefix);
/* Is the directory, or one above it, being renamed? */
bool fs_is_moving(struct cst_fs *fs, struct cst_inode *dir);
/* The object key of an inode. */
void fs_key(const struct cst_fs *fs, const struct cst_inode *inode, struct cst_buf *key);
/* Is what is known of the inode (as of `checked`) young enough? */
bool fs_is_fresh(const struct cst_fs *fs, int64_t checked);
/* Enters news; tells the kernel when they replace a version it holds. */
struct cst_inode *fs_enter(struct cst_fs *fs, struct cst_inode *parent, const char *name, const struct cst_entry *entry,
			   unsigned lookups);
void fs_gone(struct cst_fs *fs, struct cst_inode *parent, const char *name, int64_t at);
/* Something contradicts what is known of the inode: it must be asked for before its next use. */
void fs_doubt(struct cst_fs *fs, struct cst_inode *inode);
/* The errno of a failure as programs see it; logs what they can't see (rate limited). */
int fs_errno(struct cst_fs *fs, int rc, const char *what, struct cst_slice name, const struct cst_error *err);

/* Makes sure that the inode is the current version of its object, asking the store when what is known is too old (or `strict`), then
 * calls `then`: rc 0, -ESTALE (changed or gone) or an error. `handle` and `flags` are passed on. */
typedef void (*fs_checked_fn)(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *inode, int rc);
void fs_check_version(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *inode, bool strict,
		      fs_checked_fn then);
