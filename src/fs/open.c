/* Opening files: the mode an inode is open in, what the cache has of its version, backing files, writers. The states: doc/inode-states.md.
 *
 * A struct fs_file lives as long as its inode has handles, opens or changes under way, and only where there is a cache or the mount writes: without
 * them all opens of a mount are of one mode. */
#define CST_LOG_AREA "fs"
#include "fs/writing.h"

#include <fcntl.h>

/* An open that waits for the cache's answer, or for a writer's last publication. */
struct open_call {
	struct fs_wait w;
	struct cst_inode *inode; /* counted */
	struct fs_file *file;	 /* counted */
	bool queued;		 /* in file->waits */
	TAILQ_ENTRY(open_call) link;
};

/* The release of a file comes a moment after the close() that the program waited for: its next open for writing may overtake it. */
#define RELEASE_LATE CST_NS_PER_S

struct late_release {
	struct fs_timer timer;
	struct cst_fs *fs;
	struct cst_inode *inode; /* counted */
	struct fs_file *file;	 /* counted */
};

static pthread_mutex_t *binding_lock(struct cst_fs *fs, const struct cst_inode *inode)
{
	return &fs->bindings[inode->node % FS_BINDINGS];
}

struct fs_file *fs_file_get(struct cst_fs *fs, struct cst_inode *inode)
{
	cst_inode_lock(fs->table, inode);
	struct fs_file *file = cst_inode_peek(inode)->file;
	if (!file) {
		file = cst_inode_more(inode)->file = CST_NEW(struct fs_file);
		file->magic = FS_FILE_MAGIC;
		pthread_mutex_init(&file->lock, NULL);
		TAILQ_INIT(&file->waits);
		TAILQ_INIT(&file->turns);
	}
	file->users++;
	cst_inode_unlock(fs->table, inode);
	return file;
}

/* The last user has gone: what is missing may be completed now, and the cache may evict it. When the inode has been opened again meanwhile,
 * the new one binds the data. */
static void file_end(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file)
{
	pthread_mutex_t *lock = binding_lock(fs, inode);
	struct cst_fetch_object *data = NULL;
	bool stale;
	CST_ASSERT(file->handles == 0 && TAILQ_EMPTY(&file->waits) && !file->writer && TAILQ_EMPTY(&file->turns));
	pthread_mutex_lock(lock);
	cst_inode_lock(fs->table, inode);
	const struct cst_inode_more *more = cst_inode_peek(inode);
	if (!more->file && more->data && file->cached && !file->outdated)
		data = cst_fetch_object_ref(more->data);
	stale = inode->stale;
	cst_inode_unlock(fs->table, inode);
	if (data)
		cst_fetch_object_set_local(data, NULL);
	pthread_mutex_unlock(lock);
	/* These may start and end reads of others, which lets go of other files. */
	if (data && !stale)
		cst_cache_object_finish(file->cached, data);
	if (data)
		cst_fetch_object_unref(data);
	if (file->cached)
		cst_cache_object_unref(file->cached);
	pthread_mutex_destroy(&file->lock);
	file->magic = 0;
	free(file);
}

void fs_file_put(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file)
{
	CST_CHECK(file, FS_FILE_MAGIC);
	cst_inode_lock(fs->table, inode);
	bool last = --file->users == 0;
	if (last)
		cst_inode_more(inode)->file = NULL;
	cst_inode_unlock(fs->table, inode);
	if (last)
		file_end(fs, inode, file);
}

void fs_file_bind(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file, struct cst_fetch_object *data)
{
	pthread_mutex_t *lock = binding_lock(fs, inode);
	CST_CHECK(file, FS_FILE_MAGIC);
	pthread_mutex_lock(lock);
	bool cached = file->cached && !__atomic_load_n(&file->outdated, __ATOMIC_RELAXED);
	if (file->bound != data)
		cst_fetch_object_set_local(data, cached ? cst_cache_object_local(file->cached) : NULL);
	file->bound = data;
	pthread_mutex_unlock(lock);
}

void fs_file_unbound(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file)
{
	pthread_mutex_t *lock = binding_lock(fs, inode);
	pthread_mutex_lock(lock);
	file->bound = NULL;
	pthread_mutex_unlock(lock);
}

/* The file's lock is held. */
void fs_file_renew(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file)
{
	struct cst_fetch_object *data;
	cst_inode_lock(fs->table, inode);
	data = cst_steal(cst_inode_more(inode)->data);
	cst_inode_unlock(fs->table, inode);
	if (file->cached || file->cache == CACHE_ASKING)
		__atomic_store_n(&file->outdated, true, __ATOMIC_RELAXED);
	__atomic_fetch_add(&file->version, 1, __ATOMIC_RELAXED);
	fs_file_unbound(fs, inode, file);
	if (data)
		cst_fetch_object_unref(data);
}

/* Nobody reads through what the cache has. The file's lock is held; returns what is to be given up without it. */
static struct cst_cache_object *drop_cached(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file)
{
	struct cst_fetch_object *data = NULL;
	pthread_mutex_t *lock = binding_lock(fs, inode);
	pthread_mutex_lock(lock);
	cst_inode_lock(fs->table, inode);
	if (file->bound && cst_inode_peek(inode)->data == file->bound)
		data = cst_fetch_object_ref(cst_inode_peek(inode)->data);
	cst_inode_unlock(fs->table, inode);
	if (data)
		cst_fetch_object_set_local(data, NULL);
	file->bound = NULL;
	pthread_mutex_unlock(lock);
	if (data)
		cst_fetch_object_unref(data);
	if (file->cache == CACHE_ASKED)
		file->cache = CACHE_UNASKED;
	__atomic_store_n(&file->outdated, file->cache == CACHE_ASKING, __ATOMIC_RELAXED);
	return cst_steal(file->cached);
}

void fs_file_leave(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file)
{
	struct cst_cache_object *unused = NULL;
	CST_CHECK(file, FS_FILE_MAGIC);
	pthread_mutex_lock(&file->lock);
	if (--file->handles == 0) {
		if (file->mode == FS_MODE_PASSTHROUGH)
			fs->host->backing_close(fs->host->host, file->backing);
		if (file->mode == FS_MODE_WRITING || file->outdated)
			unused = drop_cached(fs, inode, file);
		file->mode = FS_MODE_NONE;
	}
	pthread_mutex_unlock(&file->lock);
	if (unused)
		cst_cache_object_unref(unused);
	fs_file_put(fs, inode, file);
}

static bool writes(uint32_t flags)
{
	return (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
}

/* O_DIRECT is never passed through: the cache file's file system would refuse what isn't aligned, which was served as long as the object
 * wasn't whole. Nor are other opens for a while after one, so that it finds the inode in a mode it can share when it comes again. */
#define AFTER_DIRECT (10 * CST_NS_PER_S)

static bool passes_through(const struct cst_fs *fs, const struct fs_file *file, uint32_t flags)
{
	return fs->config.passthrough && !fs->config.direct_io && fs->host->backing_open && file->cached &&
	       !(flags & O_DIRECT);
}

static bool was_direct(struct cst_fs *fs, struct cst_inode *inode, uint32_t flags)
{
	int64_t now = fs->config.clock();
	cst_inode_lock(fs->table, inode);
	if (flags & O_DIRECT)
		cst_inode_more(inode)->direct_at = now;
	int64_t direct_at = cst_inode_peek(inode)->direct_at;
	bool was = direct_at != 0 && now - direct_at < AFTER_DIRECT;
	cst_inode_unlock(fs->table, inode);
	return was;
}

/* Registers the file; false: it can't be had. The file's lock is held. */
static bool pass_through_locked(struct cst_fs *fs, struct fs_file *file)
{
	int fd = __atomic_load_n(&fs->no_passthrough, __ATOMIC_RELAXED) ? -1 : cst_cache_object_file(file->cached);
	if (fd < 0)
		return false;
	int backing = fs->host->backing_open(fs->host->host, fd);
	if (backing <= 0) {
		__atomic_store_n(&fs->passthrough_error, backing, __ATOMIC_RELAXED);
		/* These will not change; the others depend on where the file lies. */
		if (backing == -EPERM || backing == -EOPNOTSUPP)
			__atomic_store_n(&fs->no_passthrough, true, __ATOMIC_RELAXED);
		return false;
	}
	file->backing = backing;
	return true;
}

/* The kernel answers ESTALE by looking the name up and opening what it then finds, once. An open that comes again all the same, from
 * /proc/self/fd where no name leads elsewhere or because others were quicker, gets what there is. */
#define REFUSED_FOR (30 * CST_NS_PER_S)
/* The lookup in between may find what another had found a little before. */
#define LOOKED_UP_FOR (5 * CST_NS_PER_S)

#define REFUSED_WAYS 4u

/* The entry of who opens, or one that it may have. */
static struct cst_fs_refused *refused_locked(struct cst_fs *fs, const struct cst_fs_call *call)
{
	struct cst_fs_refused *ways = &fs->refused[call->pid * REFUSED_WAYS % CST_FS_REFUSED], *oldest = ways;
	for (unsigned i = 0; i < REFUSED_WAYS; i++) {
		if (ways[i].at != 0 && fs->config.clock() - ways[i].at >= REFUSED_FOR)
			__atomic_store_n(&ways[i].at, 0, __ATOMIC_RELEASE);
		if (ways[i].at != 0 && ways[i].pid == call->pid)
			return &ways[i];
		if (ways[i].at < oldest->at)
			oldest = &ways[i];
	}
	return oldest;
}

static bool is_refused(const struct cst_fs_refused *r, const struct cst_fs_call *call)
{
	return r->at != 0 && r->pid == call->pid;
}

/* Is it the second time? The same request that is sent again to another process isn't: that one has perhaps not been answered. *looked_up: since when
 * what was found by name may have been known, when it was; else INT64_MAX. */
static bool comes_again(struct cst_fs *fs, const struct cst_fs_call *call, uint64_t node, int64_t *looked_up)
{
	pthread_mutex_lock(&fs->refused_lock);
	const struct cst_fs_refused *r = refused_locked(fs, call);
	bool again = is_refused(r, call) && (r->node != node || r->by == (uint32_t)getpid());
	*looked_up = again && r->node != node ? r->at - LOOKED_UP_FOR : INT64_MAX;
	pthread_mutex_unlock(&fs->refused_lock);
	return again;
}

/* How an open ended. After a second ESTALE the kernel gives up: what comes next is another open. */
static void note_end(struct cst_fs *fs, const struct cst_fs_call *call, uint64_t node, bool refused)
{
	pthread_mutex_lock(&fs->refused_lock);
	struct cst_fs_refused *r = refused_locked(fs, call);
	bool same_sent_again = is_refused(r, call) && r->node == node && r->by != (uint32_t)getpid();
	bool first = !is_refused(r, call) || same_sent_again;
	if (refused || !first)
		__atomic_store_n(&r->at, 0, __ATOMIC_RELEASE);
	if (refused && first) {
		r->pid = call->pid;
		r->by = (uint32_t)getpid();
		r->node = node;
		__atomic_store_n(&r->at, fs->config.clock(), __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&fs->refused_lock);
}

static void refuse(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node)
{
	note_end(fs, call, node, true);
	fs->host->error(call, -ESTALE);
}

enum entered { ENTERED, ENTER_REFUSED, ENTER_GONE, ENTER_BUSY, ENTER_MOVING, ENTER_LATER };

/* It may have become so while the open waited. */
static bool is_stale(struct cst_fs *fs, struct cst_inode *inode)
{
	cst_inode_lock(fs->table, inode);
	bool stale = inode->stale;
	cst_inode_unlock(fs->table, inode);
	return stale;
}

/* Of an open for writing. The file's lock is held. */
static enum entered enter_writing(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file,
				  const struct cst_fs_call *call, bool again, struct fs_writer **writer,
				  struct cst_cache_object **unused)
{
	CST_AUTO_ENTRY version = CST_ENTRY_INIT;
	if (file->removing > 0)
		return ENTER_LATER;
	if (is_stale(fs, inode))
		return ENTER_GONE;
	if (file->writer)
		return file->writer->closing || file->writer->flushed ? ENTER_LATER : ENTER_BUSY;
	/* Handles with pages of the version as it is, or with its bytes from a cache file, keep them: the writer has an inode of its own. */
	if (file->mode == FS_MODE_CACHED || file->mode == FS_MODE_PASSTHROUGH)
		return again ? ENTER_BUSY : ENTER_REFUSED;
	cst_inode_entry(fs->table, inode, &version);
	*writer = fs_writer_new_locked(fs, inode, file, &version, call->flags & O_TRUNC);
	if (!*writer)
		return ENTER_MOVING;
	if (file->mode == FS_MODE_NONE) {
		*unused = drop_cached(fs, inode, file);
		file->mode = FS_MODE_WRITING;
	}
	return ENTERED;
}

/* What this mount has written it may go on writing, a log most of all: who reads it meanwhile sees that, as he has no pages of a version. */
static bool is_written_here(struct cst_fs *fs, struct cst_inode *inode)
{
	cst_inode_lock(fs->table, inode);
	bool written = inode->written;
	cst_inode_unlock(fs->table, inode);
	return written;
}

static enum entered enter_reading(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file,
				  const struct cst_fs_call *call, bool again, bool direct,
				  struct cst_cache_object **unused)
{
	bool may = passes_through(fs, file, call->flags);
	if (file->writer && file->writer->closing)
		return ENTER_LATER;
	if (file->mode == FS_MODE_NONE && is_written_here(fs, inode)) {
		*unused = drop_cached(fs, inode, file);
		file->mode = FS_MODE_WRITING;
		return ENTERED;
	}
	if (file->mode == FS_MODE_NONE) {
		bool pass = may && !direct && pass_through_locked(fs, file);
		file->mode = pass ? FS_MODE_PASSTHROUGH : fs->config.direct_io ? FS_MODE_DIRECT : FS_MODE_CACHED;
		return ENTERED;
	}
	/* It has another key or version than these handles were opened with. */
	if (file->outdated && (file->mode == FS_MODE_CACHED || file->mode == FS_MODE_PASSTHROUGH))
		return again && file->mode == FS_MODE_CACHED ? ENTERED : ENTER_REFUSED;
	if (file->mode == FS_MODE_PASSTHROUGH && !(may && cst_cache_object_file(file->cached) >= 0))
		return again ? ENTERED : ENTER_REFUSED;
	return ENTERED;
}

static bool was_left_cached(const struct cst_fs *fs, const struct cst_inode *inode)
{
	return inode->node < fs->first_node && cst_inode_opened(fs->table, inode) & CST_OPENED_CACHED;
}

/* Enters the mode that this open has, the inode's when it is open already. REFUSED: the inode is in one that this open can't share, or
 * passed through to a file that the cache has dropped, perhaps as corrupt. BUSY: somebody writes it. */
static enum entered enter_mode(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file,
			       const struct cst_fs_call *call, enum fs_mode *mode, struct fs_writer **writer)
{
	struct cst_cache_object *unused = NULL;
	int64_t looked_up;
	bool again = comes_again(fs, call, inode->node, &looked_up);
	/* One that was opened so by a process before this one is opened so for ever. */
	bool direct = was_direct(fs, inode, call->flags) || was_left_cached(fs, inode);
	pthread_mutex_lock(&file->lock);
	enum entered entered = writes(call->flags) ? enter_writing(fs, inode, file, call, again, writer, &unused)
						   : enter_reading(fs, inode, file, call, again, direct, &unused);
	if (entered == ENTERED)
		file->handles++;
	*mode = file->mode;
	pthread_mutex_unlock(&file->lock);
	if (unused)
		cst_cache_object_unref(unused);
	return entered;
}

/* In WRITING mode, and with a writer in whatever mode, the kernel keeps no pages. */
static unsigned open_flags(enum fs_mode mode)
{
	/* One inode is one version, so what the kernel has of it is right whatever kernel_cache and auto_cache say. */
	static const unsigned flags[] = {[FS_MODE_CACHED] = CST_FS_KEEP_CACHE,
					 [FS_MODE_DIRECT] = CST_FS_DIRECT_IO,
					 [FS_MODE_PASSTHROUGH] = CST_FS_PASSTHROUGH,
					 [FS_MODE_WRITING] = CST_FS_DIRECT_IO};
	return flags[mode];
}

static void reply_opened(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *inode, struct fs_file *file,
			 enum fs_mode mode, struct fs_writer *writer)
{
	uint64_t node = inode->node;
	uint64_t *const counts[] = {[FS_MODE_CACHED] = &fs->opens_cached,
				    [FS_MODE_DIRECT] = &fs->opens_direct,
				    [FS_MODE_PASSTHROUGH] = &fs->opens_passthrough,
				    [FS_MODE_WRITING] = &fs->opens_direct};
	int backing = mode == FS_MODE_PASSTHROUGH ? file->backing : 0;
	struct fs_handle *h =
		fs_handle_new_file(fs, inode, file, mode == FS_MODE_PASSTHROUGH, writer, call->flags & O_APPEND);
	uint64_t fh = h->fh;
	fs_handle_unref(h);
	__atomic_fetch_add(counts[mode], 1, __ATOMIC_RELAXED);
	cst_inode_mark_opened(fs->table, inode, mode == FS_MODE_CACHED ? CST_OPENED_CACHED : CST_OPENED_OTHER);
	if (fs->host->opened(call, fh, open_flags(mode), backing) == -ENOENT)
		fs_handle_untaken(fs, node, fh);
}

static void queue_open(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *inode, struct fs_file *file);

/* The cache has answered, or there is none to ask. */
static void open_file(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *inode, struct fs_file *file)
{
	enum fs_mode mode;
	struct fs_writer *writer = NULL;
	bool written;
	switch (enter_mode(fs, inode, file, call, &mode, &writer)) {
	case ENTER_LATER:
		queue_open(fs, call, inode, file);
		return;
	case ENTER_BUSY:
		pthread_mutex_lock(&file->lock);
		written = file->writer != NULL;
		pthread_mutex_unlock(&file->lock);
		note_end(fs, call, inode->node, false);
		fs_write_refused(
			fs, inode,
			"it is open already%s: a file has one writer at a time, and no other while it is read from a cache",
			written ? " for writing" : "");
		fs->host->error(call, -EBUSY);
		return;
	case ENTER_MOVING:
		note_end(fs, call, inode->node, false);
		fs_write_refused(fs, inode, "it can't be written while a directory above it is being renamed");
		fs->host->error(call, -EBUSY);
		return;
	case ENTER_GONE:
		refuse(fs, call, inode->node);
		return;
	case ENTER_REFUSED:
		cst_inode_set_aside(fs->table, inode);
		refuse(fs, call, inode->node);
		return;
	default:
		break;
	}
	note_end(fs, call, inode->node, false);
	if (writer)
		fs_writer_begin(writer);
	cst_inode_lock(fs->table, inode);
	file->users++; /* the handle's */
	cst_inode_unlock(fs->table, inode);
	reply_opened(fs, call, inode, file, mode, writer);
}

static bool open_leave(struct fs_wait *w)
{
	struct open_call *o = cst_container_of(w, struct open_call, w);
	pthread_mutex_lock(&o->file->lock);
	bool left = o->queued;
	if (left)
		TAILQ_REMOVE(&o->file->waits, o, link);
	o->queued = false;
	pthread_mutex_unlock(&o->file->lock);
	return left;
}

static void open_free(struct fs_wait *w)
{
	struct open_call *o = cst_container_of(w, struct open_call, w);
	fs_file_put(w->fs, o->inode, o->file);
	cst_inode_unref(w->fs->table, o->inode);
	free(o);
}

struct question {
	struct cst_fs *fs;
	struct cst_inode *inode; /* counted */
	struct fs_file *file;	 /* counted */
};

void fs_file_removing(struct cst_fs *fs, struct fs_file *file, bool begins)
{
	pthread_mutex_lock(&file->lock);
	file->removing += begins ? 1 : -1u;
	pthread_mutex_unlock(&file->lock);
	if (!begins)
		fs_file_wake_opens(fs, file);
}

/* Those that waited go on. */
static void run_opens(struct cst_fs *fs, struct fs_file *file, struct fs_open_calls *waits)
{
	struct open_call *o;
	while ((o = TAILQ_FIRST(waits)) != NULL) {
		TAILQ_REMOVE(waits, o, link);
		struct cst_fs_call *call = fs_wait_end(&o->w);
		open_file(fs, call, o->inode, file);
		fs_wait_unref(&o->w);
	}
}

static void take_opens(struct fs_file *file, struct fs_open_calls *waits)
{
	struct open_call *o;
	TAILQ_CONCAT(waits, &file->waits, link);
	TAILQ_FOREACH (o, waits, link)
		o->queued = false;
}

void fs_file_wake_opens(struct cst_fs *fs, struct fs_file *file)
{
	struct fs_open_calls waits = TAILQ_HEAD_INITIALIZER(waits);
	pthread_mutex_lock(&file->lock);
	if (file->cache != CACHE_ASKING)
		take_opens(file, &waits);
	pthread_mutex_unlock(&file->lock);
	run_opens(fs, file, &waits);
}

static void cache_came(void *arg, struct cst_cache_object *cached)
{
	struct question *q = arg;
	struct cst_fs *fs = q->fs;
	struct fs_file *file = q->file;
	struct fs_open_calls waits = TAILQ_HEAD_INITIALIZER(waits);
	struct cst_cache_object *unused = NULL;
	pthread_mutex_lock(&file->lock);
	/* It is written now, or has another key: this is of what was there before. */
	if (file->writer || file->mode == FS_MODE_WRITING || file->outdated)
		unused = cached;
	else
		file->cached = cached;
	file->cache = CACHE_ASKED;
	__atomic_store_n(&file->outdated, false, __ATOMIC_RELAXED);
	take_opens(file, &waits);
	pthread_mutex_unlock(&file->lock);
	if (unused)
		cst_cache_object_unref(unused);
	run_opens(fs, file, &waits);
	fs_file_put(fs, q->inode, file);
	cst_inode_unref(fs->table, q->inode);
	free(q);
	fs_live_end(fs);
}

/* Owns the caller's reference to the file. */
static void ask_cache(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file)
{
	CST_AUTO_BUF key = CST_BUF_INIT;
	CST_AUTO_ENTRY version = CST_ENTRY_INIT;
	struct question *q = CST_NEW(struct question);
	*q = (struct question){fs, cst_inode_ref(fs->table, inode), file};
	fs_key(fs, inode, &key);
	cst_inode_entry(fs->table, inode, &version);
	fs_live_begin(fs);
	cst_cache_open(fs->config.cache, cst_buf_slice(&key), version.etag, version.size, cache_came, q);
}

/* The file's lock is held. */
static struct open_call *open_call_new(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *inode,
				       struct fs_file *file)
{
	struct open_call *o = CST_NEW(struct open_call);
	o->inode = cst_inode_ref(fs->table, inode);
	o->file = file;
	o->queued = true;
	fs_wait_arm(&o->w, fs, call, open_leave, open_free);
	TAILQ_INSERT_TAIL(&file->waits, o, link);
	return o;
}

/* It was no release that was on its way. */
static void release_late(struct fs_timer *timer)
{
	struct late_release *l = cst_container_of(timer, struct late_release, timer);
	pthread_mutex_lock(&l->file->lock);
	l->file->late = false;
	if (l->file->writer)
		l->file->writer->flushed = false;
	pthread_mutex_unlock(&l->file->lock);
	fs_file_wake_opens(l->fs, l->file);
	fs_file_put(l->fs, l->inode, l->file);
	cst_inode_unref(l->fs->table, l->inode);
	free(l);
}

static void wait_for_release(struct cst_fs *fs, struct cst_inode *inode)
{
	struct late_release *l = CST_NEW(struct late_release);
	*l = (struct late_release){.timer.fn = release_late, .fs = fs, .inode = cst_inode_ref(fs->table, inode)};
	l->file = fs_file_get(fs, inode);
	fs_timer_start(fs, &l->timer, RELEASE_LATE);
}

/* Until the writer has ended; if it has by now, it goes on at once. */
static void queue_open(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *inode, struct fs_file *file)
{
	struct open_call *o = NULL;
	bool late = false;
	pthread_mutex_lock(&file->lock);
	const struct fs_writer *w = file->writer;
	bool removing = file->removing > 0 && writes(call->flags);
	if (removing || (w && (w->closing || (w->flushed && writes(call->flags))))) {
		o = open_call_new(fs, call, inode, fs_file_get(fs, inode));
		late = w && !w->closing && !file->late;
		file->late |= late;
	}
	pthread_mutex_unlock(&file->lock);
	if (late)
		wait_for_release(fs, inode);
	if (o)
		fs_wait_started(&o->w);
	else
		open_file(fs, call, inode, file);
}

static void open_with_cache(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *inode, bool asks)
{
	struct fs_file *file = fs_file_get(fs, inode);
	struct open_call *o = NULL;
	pthread_mutex_lock(&file->lock);
	asks = asks && !file->writer && file->mode != FS_MODE_WRITING && !is_written_here(fs, inode);
	bool ask = asks && file->cache == CACHE_UNASKED;
	if (asks && file->cache != CACHE_ASKED) {
		file->cache = CACHE_ASKING;
		o = open_call_new(fs, call, inode, file);
	}
	pthread_mutex_unlock(&file->lock);
	if (!o) {
		open_file(fs, call, inode, file);
		fs_file_put(fs, inode, file);
		return;
	}
	if (ask)
		ask_cache(fs, inode, fs_file_get(fs, inode));
	fs_wait_started(&o->w);
}

static void open_checked(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *inode, int rc)
{
	CST_AUTO_ENTRY version = CST_ENTRY_INIT;
	cst_inode_entry(fs->table, inode, &version);
	bool asks = fs->config.cache && version.size > 0 && version.etag[0] && !writes(call->flags);
	int64_t looked_up, checked;
	bool again = comes_again(fs, call, inode->node, &looked_up);
	cst_inode_lock(fs->table, inode);
	checked = inode->checked;
	cst_inode_unlock(fs->table, inode);
	/* The kernel looks up once: that it was replaced again since then is none of this open's business. */
	if (rc == -ESTALE && !writes(call->flags) && checked >= looked_up)
		rc = 0;
	/* Opened by a process before this one, in a mode that nobody knows here: the name leads to another inode of the version. */
	bool inherited = rc == 0 && inode->node < fs->first_node && (asks || fs->config.write) && !again &&
			 cst_inode_opened(fs->table, inode);
	if (inherited)
		cst_inode_set_aside(fs->table, inode);
	if (rc == -ESTALE || inherited) {
		refuse(fs, call, inode->node);
	} else if (rc < 0) {
		note_end(fs, call, inode->node, false);
		fs->host->error(call, rc);
	} else if (asks || fs->config.write) {
		open_with_cache(fs, call, inode, asks);
	} else {
		note_end(fs, call, inode->node, false);
		reply_opened(fs, call, inode, NULL, fs->config.direct_io ? FS_MODE_DIRECT : FS_MODE_CACHED, NULL);
	}
}

/* What is to be written must be what is there, or its publication is a conflict. What was asked a moment ago is believed, so that the lookup
 * before the open is enough. */
#define JUST_CHECKED CST_NS_PER_S

static bool checks_strictly(struct cst_fs *fs, struct cst_inode *inode, uint32_t flags)
{
	cst_inode_lock(fs->table, inode);
	struct cst_fetch_object *data = cst_inode_peek(inode)->data;
	bool doubtful = data && cst_fetch_object_is_stale(data);
	int64_t checked = inode->checked;
	cst_inode_unlock(fs->table, inode);
	if (writes(flags) && (checked == 0 || fs->config.clock() - checked >= JUST_CHECKED))
		return true;
	return doubtful || fs->config.list_ttl <= 0;
}

/* An object that points to another would be replaced by what is written. */
static bool is_pointer(struct cst_fs *fs, struct cst_inode *inode)
{
	CST_AUTO_ENTRY version = CST_ENTRY_INIT;
	cst_inode_entry(fs->table, inode, &version);
	return version.type == CST_OBJECT_SYMLINK;
}

void cst_fs_open(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint32_t flags)
{
	CST_CHECK(fs, FS_MAGIC);
	struct cst_inode *inode = cst_inode_get(fs->table, node);
	int rc = 0;
	if (!inode)
		rc = -ESTALE;
	else if (inode->kind != CST_KIND_FILE)
		rc = cst_inode_is_dir(inode) ? -EISDIR : -ELOOP;
	if (rc == -ESTALE) {
		refuse(fs, call, node);
	} else if (rc < 0) {
		fs->host->error(call, rc);
	} else if (writes(flags) && fs->config.write == CST_FS_WRITE_NONE) {
		cst_fs_refuse_write(fs, call, "opening a file for writing was");
	} else if (writes(flags) && is_pointer(fs, inode)) {
		fs_write_refused(fs, inode,
				 "a symlink object can't be written through; write the object that it points to");
		fs->host->error(call, -ENOTSUP);
	} else {
		call->flags = flags;
		if (fs->ahead && !writes(flags))
			fs_ahead_open(fs->ahead, inode);
		fs_check_version(fs, call, inode, checks_strictly(fs, inode, flags), open_checked);
	}
	cst_inode_unref(fs->table, inode);
}
