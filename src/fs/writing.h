/* Private to fs: files that are open, files that are written, and calls that change the bucket.
 *
 * Turns. What must not happen to a file at the same time (a publication, a removal, a rename, a truncation) takes turns: an asynchronous mutex of the
 * struct fs_file, given in the order of asking. Nobody blocks: `ready` comes on the thread that asked, or on the one that gave its turn back.
 *
 * Locks: an fs_file's lock guards it and its writer. It comes after a directory's (a listing that is shown looks at sizes) and before an inode's; neither
 * src/publish nor the host nor a directory is called with it held. The list of writers has a lock of its own, a leaf. */
#pragma once

#include "fs/internal.h"

enum fs_mode { FS_MODE_NONE, FS_MODE_CACHED, FS_MODE_DIRECT, FS_MODE_PASSTHROUGH, FS_MODE_WRITING };

struct fs_turn {
	void (*ready)(struct fs_turn *turn);
	TAILQ_ENTRY(fs_turn) link;
};

/* Lives as long as its inode has handles, opens or changes under way; only where there is a cache or the mount writes: else all opens are of one mode. */
struct open_call;
struct fs_file {
	unsigned magic;
	unsigned users; /* handles, opens, a writer, changes; the inode's lock */
	bool writing;	/* the inode's lock: `size` and `mtime` are what stat shows */
	uint64_t size;
	int64_t mtime;	      /* ns */
	unsigned version;     /* atomic: how often the mount itself gave the inode another version or key */
	pthread_mutex_t lock; /* guards what follows */
	enum { CACHE_UNASKED, CACHE_ASKING, CACHE_ASKED } cache;
	TAILQ_HEAD(fs_open_calls, open_call) waits; /* for the cache's answer, or for a writer's last publication */
	struct cst_cache_object *cached;	    /* counted; NULL: not in the cache and not wanted there */
	bool outdated;				    /* `cached` is of a key that the inode had before */
	enum fs_mode mode;
	unsigned handles;		      /* in that mode */
	int backing;			      /* of FS_MODE_PASSTHROUGH */
	const struct cst_fetch_object *bound; /* to `cached`; only compared; the lock of the bindings */
	struct fs_writer *writer;	      /* NULL: none; it is alive as long as it stands here */
	bool late;			      /* a timer runs for a release that should come */
	bool taken;			      /* somebody has the turn */
	unsigned removing; /* its name is being removed or given to another: opens for writing wait */
	TAILQ_HEAD(, fs_turn) turns;
};
#define FS_FILE_MAGIC 0xf5f11e01u

/* A reference; the file is made if there is none. */
struct fs_file *fs_file_get(struct cst_fs *fs, struct cst_inode *inode);
void fs_file_put(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file);
void fs_turn_take(struct fs_file *file, struct fs_turn *turn);
void fs_turn_give(struct fs_file *file);
/* open.c: the opens that waited go on. Without locks; the caller holds references. */
void fs_file_wake_opens(struct cst_fs *fs, struct fs_file *file);
/* Its name is about to go: who opens it for writing waits for the outcome, as what he writes would go nowhere. With the turn. */
void fs_file_removing(struct cst_fs *fs, struct fs_file *file, bool begins);
/* The inode has another version or key: what was fetched of it is of the one before. */
void fs_file_renew(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file);

/* Calls `fn` on a thread of its own kind when the time has come; all of a file system's share one, so fn does little. What hasn't come when the file
 * system ends comes then. */
struct fs_timer {
	int64_t at; /* cst_now() */
	void (*fn)(struct fs_timer *timer);
	TAILQ_ENTRY(fs_timer) link;
};
void fs_timer_start(struct cst_fs *fs, struct fs_timer *timer, int64_t ns);

/* Someone who waits for a publication. */
struct fs_sync {
	void (*done)(struct fs_sync *sync, int rc);
	void *arg;
	uint64_t upto; /* private */
	TAILQ_ENTRY(fs_sync) link;
};

/* A file that is being written: from the open (or the creation) until its last publication has ended after the release. One a file. The file's lock
 * guards it. */
struct fs_write_call;
struct fs_writer {
	unsigned magic;
	struct cst_ref ref; /* the file's; its handle's; one for each thing under way */
	struct cst_fs *fs;
	struct cst_inode *inode; /* counted */
	struct fs_file *file;	 /* counted */
	struct cst_publish_stream *stream;
	uint32_t pid;  /* atomic: who wrote last; the kernel doesn't tell who closes */
	bool fresh;    /* the store has nothing of it yet: created here and never published */
	bool closing;  /* released: opens wait until it has ended */
	bool flushed;  /* a descriptor was closed, and nothing written since: its release may be on its way */
	bool ended;    /* nothing more comes of it; its stream closes with the last reference */
	bool keep;     /* then: what is left in the stream is kept */
	bool unlinked; /* what is written goes nowhere */
	bool forget;   /* nobody took the answer of its open: nothing to publish */
	bool replaced; /* its bytes are not those in the store and more: created or truncated, and not published since */
	int failed;    /* a conflict: takes no more */
	struct cst_publish_base base; /* what the store has of it as far as is known */
	/* Writes, one at a time into the stream. */
	uint64_t end;
	uint64_t changes, byte_changes, synced; /* counted; the last one that wrote bytes; the last one published */
	/* Appended to: the object's metadata and type are asked for by the first write, which waits. */
	enum { PROPERTIES_KNOWN, PROPERTIES_WANTED, PROPERTIES_ASKING } properties;
	struct fs_write_call *taking;
	TAILQ_HEAD(fs_write_calls, fs_write_call) parked; /* in the order of their coming */
	bool kicking, grace;
	struct fs_timer grace_timer;
	/* Publications, one at a time. */
	bool publishing, syncing; /* somebody waits for one; the stream is at it */
	uint64_t publishing_upto;
	struct cst_publish_sync sync;
	struct fs_turn turn;
	TAILQ_HEAD(fs_syncs, fs_sync) syncs;
	struct fs_sync last;
	struct fs_turn end_turn; /* when there is nothing to publish */
	int end_rc;
	TAILQ_ENTRY(fs_writer) link; /* fs->writers */
};
#define FS_WRITER_MAGIC 0xf5f11e02u

/* With the file's lock held; `entry`: the version that is there, NULL: created. The caller's reference goes to the handle. NULL: a directory above it is
 * being renamed. */
struct fs_writer *fs_writer_new_locked(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file,
				       const struct cst_entry *entry, bool truncate);
/* After it, without the lock: names it in its directory, shows its size. */
void fs_writer_begin(struct fs_writer *w);
void fs_writer_ref(struct fs_writer *w);
void fs_writer_unref(struct fs_writer *w);
/* The release: publishes what is left, then ends. Takes over the handle's reference. `forget`: drops it. */
void fs_writer_close(struct fs_writer *w, bool forget);
/* Publishes all changes so far (bytes alone with `bytes`: 1 when there are none, and done doesn't come). */
int fs_writer_sync(struct fs_writer *w, struct fs_sync *sync, bool bytes);
/* Begins anew with nothing; with the turn. */
void fs_writer_truncate(struct fs_writer *w);
/* Its name has been removed; with the turn. */
void fs_writer_unlink(struct fs_writer *w);
void fs_writer_set_base(struct fs_writer *w, const struct cst_publish_base *base);
/* It has another key; with the turn. base: what the store has there. */
int fs_writer_move(struct fs_writer *w, const struct cst_publish_base *base);
/* The version that is the inode's now: told to the table, the directory and the kernel. */
void fs_adopt(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file, const struct cst_object_info *info,
	      bool held);
/* Takes back what the directory was told of a name: the next lookup asks the store. */
void fs_disown(struct cst_fs *fs, struct cst_inode *inode, bool gone);
struct cst_publish_base fs_base_of(const struct cst_entry *entry);

void fs_writers_init(struct cst_fs *fs);
/* Publications under way are not waited for any more, and none begins: what they would have published is kept. */
void fs_writers_stop(struct cst_fs *fs);
void fs_writers_fini(struct cst_fs *fs);
uint64_t fs_writers_count(struct cst_fs *fs);

/* Is the file being written (and the store's news of it don't count)? */
bool fs_is_held(struct cst_fs *fs, struct cst_inode *inode);

/* Waits until one of the writers of the file system has ended. False: there is none below `dir`. */
struct fs_end_wait {
	void (*ready)(struct fs_end_wait *wait);
	TAILQ_ENTRY(fs_end_wait) link;
};
/* Is it at any depth below the directory? */
bool fs_is_below(struct cst_fs *fs, const struct cst_inode *inode, const struct cst_inode *dir);
enum fs_below { FS_BELOW_NONE, FS_BELOW_OPEN, FS_BELOW_CLOSING };
/* Files being written at any depth below a directory. CLOSING: all of them are, and `wait` is queued (when it isn't NULL). */
enum fs_below fs_writers_below(struct cst_fs *fs, const struct cst_inode *dir, struct fs_end_wait *wait);

/* ---- calls that change the bucket ----
 *
 * Once its request is under way such a call can't be taken back; an interrupt ends it all the same when the process is being killed, as nobody will use
 * the answer then: -EINTR, and the change goes on. Other signals wait for the outcome. */
struct fs_change {
	struct fs_wait w;
	pthread_mutex_t lock;
	bool answered; /* -EINTR */
	uint32_t pid;
	void (*free)(struct fs_change *c);
	/* the name that is changed */
	struct cst_inode *parent; /* counted */
	struct cst_dir *dir;	  /* counted */
	char name[CST_NAME_MAX + 1];
	struct cst_inode *other; /* borrowed: the directory that a rename leads to; NULL: none */
	bool listed;		 /* fs->changes */
	TAILQ_ENTRY(fs_change) link;
	struct cst_dir_wait wait;
	void (*found)(struct fs_change *c, int rc, const struct cst_entry *entry);
};
/* parent: NULL when it is no name that changes; other: the second directory of a rename, or NULL. */
void fs_change_begin(struct fs_change *c, struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *parent,
		     const char *name, struct cst_inode *other, void (*free_fn)(struct fs_change *c));
/* After the first step was started. */
void fs_change_started(struct fs_change *c);
/* The call to answer, or NULL: it has been. Then, at the very end, fs_change_end(). */
struct cst_fs_call *fs_change_answer(struct fs_change *c);
void fs_change_end(struct fs_change *c);
/* Answers and ends. */
void fs_change_fail(struct fs_change *c, int rc);
/* What is the name? Asks the store if it isn't known; then c->found comes, perhaps before this returns: 0, -ENOENT, or an errno that was logged. */
void fs_change_find(struct fs_change *c, void (*found)(struct fs_change *c, int rc, const struct cst_entry *entry));
/* Parent's inode of a call, checked: 0 and a reference, or the errno. */
int fs_parent_of(struct cst_fs *fs, uint64_t node, const char *name, struct cst_inode **parent);
void fs_key_of(struct cst_fs *fs, struct cst_inode *parent, const char *name, struct cst_buf *key);
/* May this mount change the bucket? Refuses the call if not. */
bool fs_may_write(struct cst_fs *fs, struct cst_fs_call *call, const char *what);
/* The errno of a failed change as programs see it; logs. */
int fs_write_errno(struct cst_fs *fs, int rc, const char *what, struct cst_slice key, const struct cst_error *err);
/* What this write mode doesn't do: logged with the reason. Each reason at most once in 10 s. */
void fs_write_refused(struct cst_fs *fs, struct cst_inode *inode, const char *fmt, ...) CST_PRINTF(3, 4);
/* Is the caller being killed? */
bool fs_is_dying(uint32_t pid);
/* The name is not there any more, or never was: the table, the directory and what remembers absence hear of it. */
void fs_removed(struct cst_fs *fs, struct cst_inode *parent, const char *name, int64_t at);
/* The name was not there when the store was asked. */
void fs_missed(struct cst_fs *fs, struct cst_inode *parent, const char *name, int64_t at);
/* What is known of a name without asking the store (lookup.c). */
int fs_known_of(struct cst_fs *fs, struct cst_inode *parent, struct cst_dir *dir, const char *name,
		struct cst_entry *entry);

/* A directory that is being renamed: nothing is changed below it meanwhile (-EBUSY). Who changes something says so in the list of writers or of changes,
 * then looks for a rename above it; a rename does it the other way round: so one of the two sees the other. */
struct fs_moving {
	struct cst_inode *dir;
	TAILQ_ENTRY(fs_moving) link;
};
/* With the writers' lock. */
bool fs_is_moving_locked(struct cst_fs *fs, const struct cst_inode *inode);
/* Does a call other than this one change a name in the directory or at any depth below? */
bool fs_changes_below(struct cst_fs *fs, const struct cst_inode *dir, const struct fs_change *but);

/* ---- copies ---- */

struct fs_copy_parts;
struct fs_copy {
	struct cst_bucket *bucket;
	struct cst_buf from, to; /* keys */
	char etag[CST_ETAG_MAX]; /* of the version that is meant; "": whatever is there */
	uint64_t size;
	enum cst_object_condition condition;
	/* On a loop thread, once. -ESTALE: the source is another version; -ENOENT: there is none; -EEXIST: the condition. */
	void (*done)(struct fs_copy *c, int rc, const struct cst_object_info *info, const struct cst_error *err);
	bool has_crc64; /* private */
	uint64_t crc64;
	struct fs_copy_parts *parts;
};
void fs_copy_start(struct fs_copy *c);
void fs_copy_fini(struct fs_copy *c);

/* tree.c: renames a directory. The outcome is the change's answer. */
struct fs_rename {
	struct fs_change c;	     /* what is renamed */
	struct cst_inode *to_parent; /* counted */
	char to_name[CST_NAME_MAX + 1];
	uint32_t flags;
	struct cst_inode *inode;     /* counted: what is renamed */
	struct cst_entry entry;	     /* of it */
	struct fs_file *file;	     /* counted */
	struct cst_inode *target;    /* counted: what has the new name; NULL: nothing known */
	struct fs_file *target_file; /* counted */
	struct fs_turn turn, target_turn;
	bool turns;		  /* both are ours */
	bool target_fresh;	  /* it was never published */
	struct fs_writer *writer; /* counted: of the file */
	struct fs_sync sync;
	struct fs_copy copy;
	struct cst_object_info copied; /* strings gone */
	struct fs_tree *tree;
};
void fs_rename_tree(struct fs_rename *r);
void fs_rename_done(struct fs_rename *r, int rc);
