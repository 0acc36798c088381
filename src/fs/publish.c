/* Publishing what was written: flush, fsync, the last publication after the release, and what an unmount waits for.
 *
 * One publication of a file at a time, each with the file's turn; whoever asks while one is under way waits for the next. Its outcome reaches all
 * who waited, the inode table, the directory and the kernel before it is told to any of them. */
#define CST_LOG_AREA "fs"
#include "fs/writing.h"

#include "meta/relist.h"

#include <inttypes.h>

static void publish_next(struct fs_turn *turn);

/* ---- turns ---- */

void fs_turn_take(struct fs_file *file, struct fs_turn *turn)
{
	pthread_mutex_lock(&file->lock);
	bool mine = !file->taken;
	file->taken = true;
	if (!mine)
		TAILQ_INSERT_TAIL(&file->turns, turn, link);
	pthread_mutex_unlock(&file->lock);
	if (mine)
		turn->ready(turn);
}

void fs_turn_give(struct fs_file *file)
{
	pthread_mutex_lock(&file->lock);
	struct fs_turn *next = TAILQ_FIRST(&file->turns);
	if (next)
		TAILQ_REMOVE(&file->turns, next, link);
	else
		file->taken = false;
	pthread_mutex_unlock(&file->lock);
	if (next)
		next->ready(next);
}

/* ---- what the rest hears of it ---- */

void fs_adopt(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file, const struct cst_object_info *info,
	      bool held)
{
	CST_AUTO_ENTRY entry = CST_ENTRY_INIT;
	char name[CST_NAME_MAX + 1];
	bool with_attr = fs->config.attributes == CST_FS_ATTRIBUTES_OBJECT;
	cst_entry_from_info(&entry, info, with_attr, fs->config.clock());
	entry.kind = CST_KIND_FILE;
	if (entry.mtime == 0)
		entry.mtime = cst_wall() / CST_NS_PER_S;
	pthread_mutex_lock(&file->lock);
	cst_inode_publish(fs->table, inode, &entry);
	cst_inode_lock(fs->table, inode);
	inode->written = true;
	cst_inode_unlock(fs->table, inode);
	fs_file_renew(fs, inode, file);
	bool read = file->handles > 1;
	pthread_mutex_unlock(&file->lock);
	struct cst_inode *parent = cst_inode_place(fs->table, inode, name);
	if (parent)
		cst_dir_put(fs_dir_of(fs, parent), name, &entry, held);
	cst_inode_unref(fs->table, parent);
	/* Who reads the file while it is written has no pages but those of mappings. */
	if (read && fs->host->invalidate_node)
		fs->host->invalidate_node(fs->host->host, inode->node, 0, 0);
}

#define LONG_AGO 1 /* of a change: every listing is younger */

void fs_disown(struct cst_fs *fs, struct cst_inode *inode, bool gone)
{
	CST_AUTO_ENTRY entry = CST_ENTRY_INIT;
	char name[CST_NAME_MAX + 1];
	cst_inode_lock(fs->table, inode);
	inode->held = false;
	inode->checked = 0;
	cst_inode_unlock(fs->table, inode);
	cst_inode_entry(fs->table, inode, &entry);
	entry.at = LONG_AGO;
	struct cst_inode *parent = cst_inode_place(fs->table, inode, name);
	if (!parent)
		return;
	struct cst_dir *dir = fs_dir_of(fs, parent);
	if (gone)
		cst_dir_put_gone(dir, name, LONG_AGO);
	else
		cst_dir_put(dir, name, &entry, false);
	cst_dir_doubt(dir, name);
	cst_dir_forget(dir); /* a listing from before it was made would say that it isn't there */
	struct cst_inode *current = cst_inode_find(fs->table, parent, name);
	if (gone && current == inode)
		fs_gone(fs, parent, name, fs->config.clock());
	else if (fs->host->invalidate_node)
		fs->host->invalidate_node(fs->host->host, inode->node, -1, 0);
	cst_inode_unref(fs->table, current);
	cst_inode_unref(fs->table, parent);
}

/* ---- one publication ---- */

static int publication_errno(struct fs_writer *w, int rc, const struct cst_error *err)
{
	struct cst_fs *fs = w->fs;
	char text[CST_ERROR_TEXT_MAX];
	CST_AUTO_BUF key = CST_BUF_INIT;
	fs_key(fs, w->inode, &key);
	if (rc == -ENOENT) /* no such upload: somebody removed it */
		rc = -EIO;
	if (rc != -ESTALE && rc != -EEXIST)
		return fs_write_errno(fs, rc, "can't publish", cst_buf_slice(&key), err);
	cst_log_error(
		"\"%.*s\" was changed by another writer since it was opened here: what was written here is not in its place (%s)",
		(int)key.len, key.data, cst_error_text(err, text, sizeof(text)));
	return -ESTALE;
}

/* Those whose changes it was to publish. The file's lock is held. */
static void take_syncs(struct fs_writer *w, struct fs_syncs *out)
{
	struct fs_sync *s, *next;
	for (s = TAILQ_FIRST(&w->syncs); s; s = next) {
		next = TAILQ_NEXT(s, link);
		if (s->upto > w->publishing_upto && !w->failed && !w->unlinked)
			continue;
		TAILQ_REMOVE(&w->syncs, s, link);
		TAILQ_INSERT_TAIL(out, s, link);
	}
}

static void end_publication(struct fs_writer *w, int rc)
{
	struct fs_syncs done = TAILQ_HEAD_INITIALIZER(done);
	struct fs_sync *s;
	pthread_mutex_lock(&w->file->lock);
	w->syncing = false;
	if (rc == 0)
		w->synced = w->publishing_upto;
	if (rc == 0 && !w->unlinked)
		w->replaced = false;
	if (rc == -ESTALE)
		w->failed = rc;
	take_syncs(w, &done);
	bool more = !TAILQ_EMPTY(&w->syncs);
	w->publishing = more;
	pthread_mutex_unlock(&w->file->lock);
	while ((s = TAILQ_FIRST(&done)) != NULL) {
		TAILQ_REMOVE(&done, s, link);
		s->done(s, rc);
	}
	fs_turn_give(w->file);
	if (more)
		fs_turn_take(w->file, &w->turn); /* the reference goes on with it */
	else
		fs_writer_unref(w);
}

static void published(struct cst_publish_sync *sync, int rc, const struct cst_object_info *info,
		      const struct cst_error *err)
{
	struct fs_writer *w = sync->arg;
	if (rc == 0) {
		struct cst_publish_base base = {.exists = true, .type = info->type, .size = info->size};
		memcpy(base.etag, info->etag, sizeof(base.etag));
		fs_adopt(w->fs, w->inode, w->file, info, true);
		pthread_mutex_lock(&w->file->lock);
		w->fresh = false;
		w->base = base;
		pthread_mutex_unlock(&w->file->lock);
	} else {
		rc = publication_errno(w, rc, err);
		__atomic_fetch_add(&w->fs->publish_failures, 1, __ATOMIC_RELAXED);
		if (rc == -ESTALE)
			fs_disown(w->fs, w->inode, w->fresh);
	}
	end_publication(w, rc);
}

static void publish_next(struct fs_turn *turn)
{
	struct fs_writer *w = cst_container_of(turn, struct fs_writer, turn);
	pthread_mutex_lock(&w->file->lock);
	w->publishing_upto = w->changes;
	bool ending = __atomic_load_n(&w->fs->ending, __ATOMIC_ACQUIRE);
	bool none = w->unlinked || w->failed || w->ended || w->synced >= w->changes || ending;
	int rc = w->unlinked ? 0 : w->failed ? w->failed : w->synced < w->changes ? -ECANCELED : 0;
	w->syncing = !none;
	pthread_mutex_unlock(&w->file->lock);
	if (none) {
		end_publication(w, rc);
		return;
	}
	w->sync = (struct cst_publish_sync){.done = published, .arg = w};
	cst_publish_sync(w->stream, &w->sync);
}

int fs_writer_sync(struct fs_writer *w, struct fs_sync *sync, bool bytes)
{
	pthread_mutex_lock(&w->file->lock);
	bool pending = (bytes ? w->byte_changes : w->changes) > w->synced;
	int rc = w->unlinked || w->forget || w->ended ? 1 : w->failed ? w->failed : pending ? 0 : 1;
	bool start = rc == 0 && !w->publishing;
	if (rc == 0) {
		sync->upto = w->changes;
		TAILQ_INSERT_TAIL(&w->syncs, sync, link);
		w->publishing = true;
	}
	pthread_mutex_unlock(&w->file->lock);
	if (start) {
		fs_writer_ref(w);
		w->turn.ready = publish_next;
		fs_turn_take(w->file, &w->turn);
	}
	return rc;
}

/* ---- the end of a writer ---- */

static void tell_ended(struct cst_fs *fs, struct fs_writer *w)
{
	TAILQ_HEAD(, fs_end_wait) waits = TAILQ_HEAD_INITIALIZER(waits);
	struct fs_end_wait *wait;
	pthread_mutex_lock(&fs->writers_lock);
	TAILQ_REMOVE(&fs->writers, w, link);
	fs->open_writers--;
	TAILQ_CONCAT(&waits, &fs->end_waits, link);
	pthread_cond_broadcast(&fs->writers_wake);
	pthread_mutex_unlock(&fs->writers_lock);
	while ((wait = TAILQ_FIRST(&waits)) != NULL) {
		TAILQ_REMOVE(&waits, wait, link);
		wait->ready(wait);
	}
}

/* The directory has shown it as it was for its writer. */
static void let_go(struct fs_writer *w, int rc)
{
	struct cst_fs *fs = w->fs;
	CST_AUTO_ENTRY entry = CST_ENTRY_INIT;
	char name[CST_NAME_MAX + 1];
	if (w->unlinked || w->failed) /* the directory has heard of that */
		return;
	if (w->fresh || rc < 0) {
		fs_disown(fs, w->inode, w->fresh);
		return;
	}
	cst_inode_lock(fs->table, w->inode);
	w->inode->held = false;
	cst_inode_unlock(fs->table, w->inode);
	cst_inode_entry(fs->table, w->inode, &entry);
	struct cst_inode *parent = cst_inode_place(fs->table, w->inode, name);
	if (parent)
		cst_dir_put(fs_dir_of(fs, parent), name, &entry, false);
	cst_inode_unref(fs->table, parent);
}

/* With the turn: else what it tells its directory could come after what a removal told. */
static void writer_end(struct fs_writer *w, int rc)
{
	struct cst_fs *fs = w->fs;
	struct fs_file *file = w->file;
	if (rc == 0)
		rc = w->failed;
	let_go(w, rc);
	pthread_mutex_lock(&file->lock);
	w->ended = true;
	w->keep = rc < 0 && !w->unlinked && !w->forget; /* what a conflict left over is kept already */
	file->writer = NULL;
	pthread_mutex_unlock(&file->lock);
	cst_inode_lock(fs->table, w->inode);
	file->writing = false;
	cst_inode_unlock(fs->table, w->inode);
	tell_ended(fs, w);
	fs_file_wake_opens(fs, file);
	fs_writer_unref(w);
}

static void last_published(struct fs_sync *sync, int rc)
{
	struct fs_writer *w = cst_container_of(sync, struct fs_writer, last);
	if (rc < 0) {
		CST_AUTO_BUF key = CST_BUF_INIT;
		fs_key(w->fs, w->inode, &key);
		cst_log_error(
			"\"%.*s\" was closed, and what was written is not in the store (%s): a copy is kept, see cistern conflicts",
			(int)key.len, key.data, strerror(-rc));
	}
	writer_end(w, rc);
}

static void end_without(struct fs_turn *turn)
{
	struct fs_writer *w = cst_container_of(turn, struct fs_writer, end_turn);
	fs_writer_ref(w); /* keeps the file */
	writer_end(w, w->end_rc);
	fs_turn_give(w->file);
	fs_writer_unref(w);
}

void fs_writer_close(struct fs_writer *w, bool forget)
{
	pthread_mutex_lock(&w->file->lock);
	w->closing = true;
	w->forget = forget;
	pthread_mutex_unlock(&w->file->lock);
	w->last.done = last_published;
	int rc = fs_writer_sync(w, &w->last, false);
	if (rc == 0)
		return;
	w->end_rc = cst_min(rc, 0);
	w->end_turn.ready = end_without;
	fs_turn_take(w->file, &w->end_turn);
}

/* ---- flush, fsync ---- */

struct sync_call {
	struct fs_change c;
	struct fs_sync sync;
	struct fs_writer *writer; /* counted */
};

static void sync_free(struct fs_change *c)
{
	struct sync_call *s = cst_container_of(c, struct sync_call, c);
	fs_writer_unref(s->writer);
	free(s);
}

static void sync_done(struct fs_sync *sync, int rc)
{
	struct sync_call *s = cst_container_of(sync, struct sync_call, sync);
	fs_change_fail(&s->c, rc);
}

static void sync_handle(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh, bool bytes)
{
	struct fs_handle *h = fs_handle_find(fs, node, fh);
	if (!h || !h->writer) {
		int rc = !h && fs_lost_handle(fs, fh) ? -EIO : 0;
		if (h)
			fs_handle_unref(h);
		fs->host->error(call, rc);
		return;
	}
	struct fs_writer *w = h->writer;
	struct sync_call *s = CST_NEW(struct sync_call);
	s->writer = w;
	s->sync.done = sync_done;
	s->c.pid = __atomic_load_n(&w->pid, __ATOMIC_RELAXED);
	fs_writer_ref(w);
	/* The release comes when this has been answered, and must find no other user of the handle. */
	fs_handle_unref(h);
	fs_change_begin(&s->c, fs, call, NULL, NULL, NULL, sync_free);
	if (bytes) {
		pthread_mutex_lock(&w->file->lock);
		w->flushed = true;
		pthread_mutex_unlock(&w->file->lock);
	}
	int rc = fs_writer_sync(w, &s->sync, bytes);
	if (rc != 0)
		fs_change_fail(&s->c, cst_min(rc, 0));
	fs_change_started(&s->c);
}

void cst_fs_flush(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh)
{
	CST_CHECK(fs, FS_MAGIC);
	sync_handle(fs, call, node, fh, true);
}

void cst_fs_fsync(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh, bool data_only)
{
	CST_CHECK(fs, FS_MAGIC);
	(void)data_only;
	if (fs->config.ignore_fsync)
		fs->host->error(call, 0);
	else
		sync_handle(fs, call, node, fh, false);
}

/* ---- all of them ---- */

void fs_writers_init(struct cst_fs *fs)
{
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&fs->writers_wake, &attr);
	pthread_cond_init(&fs->timer_wake, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&fs->writers_lock, NULL);
	pthread_mutex_init(&fs->timer_lock, NULL);
	TAILQ_INIT(&fs->timers);
	TAILQ_INIT(&fs->writers);
	TAILQ_INIT(&fs->end_waits);
	TAILQ_INIT(&fs->moving);
	TAILQ_INIT(&fs->changes);
}

void fs_writers_fini(struct cst_fs *fs)
{
	CST_ASSERT(TAILQ_EMPTY(&fs->writers) && TAILQ_EMPTY(&fs->end_waits) && TAILQ_EMPTY(&fs->moving) &&
		   TAILQ_EMPTY(&fs->changes));
	pthread_cond_destroy(&fs->writers_wake);
	pthread_cond_destroy(&fs->timer_wake);
	pthread_mutex_destroy(&fs->timer_lock);
	pthread_mutex_destroy(&fs->writers_lock);
}

uint64_t fs_writers_count(struct cst_fs *fs)
{
	pthread_mutex_lock(&fs->writers_lock);
	uint64_t count = fs->open_writers;
	pthread_mutex_unlock(&fs->writers_lock);
	return count;
}

/* All writers at this moment, with references; free(3) the list. */
static struct fs_writer **list_writers(struct cst_fs *fs, size_t *count)
{
	struct fs_writer *w;
	*count = 0;
	pthread_mutex_lock(&fs->writers_lock);
	struct fs_writer **list = cst_xcalloc(fs->open_writers + 1, sizeof(struct fs_writer *));
	TAILQ_FOREACH (w, &fs->writers, link) {
		fs_writer_ref(w);
		list[(*count)++] = w;
	}
	pthread_mutex_unlock(&fs->writers_lock);
	return list;
}

void fs_writers_stop(struct cst_fs *fs)
{
	size_t count;
	pthread_mutex_lock(&fs->timer_lock);
	__atomic_store_n(&fs->ending, true, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&fs->timer_wake);
	pthread_mutex_unlock(&fs->timer_lock);
	struct fs_writer **list = list_writers(fs, &count);
	for (size_t i = 0; i < count; i++) {
		struct fs_writer *w = list[i];
		pthread_mutex_lock(&w->file->lock);
		bool syncing = w->syncing;
		pthread_mutex_unlock(&w->file->lock);
		if (syncing && cst_publish_sync_leave(w->stream, &w->sync))
			end_publication(w, -ECANCELED);
		fs_writer_unref(w);
	}
	free(list);
}

bool fs_is_held(struct cst_fs *fs, struct cst_inode *inode)
{
	cst_inode_lock(fs->table, inode);
	bool held = inode->held;
	cst_inode_unlock(fs->table, inode);
	return held;
}

bool fs_is_below(struct cst_fs *fs, const struct cst_inode *inode, const struct cst_inode *dir)
{
	CST_AUTO_BUF path = CST_BUF_INIT;
	CST_AUTO_BUF above = CST_BUF_INIT;
	cst_inode_path(fs->table, inode, &path);
	cst_inode_path(fs->table, dir, &above);
	if (above.len == 0)
		return true;
	return path.len > above.len && memcmp(path.data, above.data, above.len) == 0 && path.data[above.len] == '/';
}

enum fs_below fs_writers_below(struct cst_fs *fs, const struct cst_inode *dir, struct fs_end_wait *wait)
{
	enum fs_below found = FS_BELOW_NONE;
	struct fs_writer *w;
	pthread_mutex_lock(&fs->writers_lock);
	TAILQ_FOREACH (w, &fs->writers, link) {
		if (found == FS_BELOW_OPEN)
			break;
		if (__atomic_load_n(&w->unlinked, __ATOMIC_RELAXED) || !fs_is_below(fs, w->inode, dir))
			continue;
		found = __atomic_load_n(&w->closing, __ATOMIC_RELAXED) ? FS_BELOW_CLOSING : FS_BELOW_OPEN;
	}
	if (found == FS_BELOW_CLOSING && wait)
		TAILQ_INSERT_TAIL(&fs->end_waits, wait, link);
	pthread_mutex_unlock(&fs->writers_lock);
	return found;
}

bool fs_changes_below(struct cst_fs *fs, const struct cst_inode *dir, const struct fs_change *but)
{
	const struct fs_change *c;
	bool found = false;
	pthread_mutex_lock(&fs->writers_lock);
	TAILQ_FOREACH (c, &fs->changes, link) {
		if (c == but)
			continue;
		found = c->parent == dir || fs_is_below(fs, c->parent, dir) ||
			(c->other && (c->other == dir || fs_is_below(fs, c->other, dir)));
		if (found)
			break;
	}
	pthread_mutex_unlock(&fs->writers_lock);
	return found;
}

struct settle {
	struct cst_fs *fs;
	unsigned pending; /* the writers' lock */
	unsigned refs;
	int rc;
};

struct settle_sync {
	struct fs_sync sync;
	struct settle *settle;
	struct fs_writer *w; /* counted */
};

static void settle_put(struct settle *s)
{
	struct cst_fs *fs = s->fs;
	pthread_mutex_lock(&fs->writers_lock);
	bool last = --s->refs == 0;
	pthread_mutex_unlock(&fs->writers_lock);
	if (last)
		free(s);
}

static void settled_one(struct fs_sync *sync, int rc)
{
	struct settle_sync *one = cst_container_of(sync, struct settle_sync, sync);
	struct settle *s = one->settle;
	struct cst_fs *fs = s->fs;
	pthread_mutex_lock(&fs->writers_lock);
	if (rc < 0 && s->rc == 0)
		s->rc = rc;
	s->pending--;
	pthread_cond_broadcast(&fs->writers_wake);
	pthread_mutex_unlock(&fs->writers_lock);
	fs_writer_unref(one->w);
	settle_put(s);
	free(one);
	fs_live_end(fs);
}

/* Those still open; what is closing ends by itself. */
static void settle_open(struct settle *s)
{
	struct cst_fs *fs = s->fs;
	size_t count;
	struct fs_writer **list = list_writers(fs, &count);
	for (size_t i = 0; i < count; i++) {
		struct settle_sync *one = CST_NEW(struct settle_sync);
		*one = (struct settle_sync){.settle = s, .w = list[i], .sync.done = settled_one};
		pthread_mutex_lock(&fs->writers_lock);
		s->pending++;
		s->refs++;
		pthread_mutex_unlock(&fs->writers_lock);
		fs_live_begin(fs);
		int rc = fs_writer_sync(list[i], &one->sync, false);
		if (rc != 0)
			settled_one(&one->sync, cst_min(rc, 0));
	}
	free(list);
}

static unsigned closing_locked(const struct cst_fs *fs)
{
	const struct fs_writer *w;
	unsigned count = 0;
	TAILQ_FOREACH (w, &fs->writers, link)
		count += __atomic_load_n(&w->closing, __ATOMIC_RELAXED);
	return count;
}

int cst_fs_settle_writes(struct cst_fs *fs, int64_t deadline, struct cst_error *err)
{
	CST_CHECK(fs, FS_MAGIC);
	struct settle *s = CST_NEW(struct settle);
	int64_t limit = deadline ? deadline : INT64_MAX;
	*s = (struct settle){.fs = fs, .refs = 1};
	uint64_t failed = __atomic_load_n(&fs->publish_failures, __ATOMIC_RELAXED);
	settle_open(s);
	pthread_mutex_lock(&fs->writers_lock);
	unsigned left;
	while ((left = s->pending + closing_locked(fs)) > 0 && cst_now() < limit) {
		struct timespec until;
		clock_gettime(CLOCK_MONOTONIC, &until);
		int64_t ns = cst_min(limit - cst_now(), CST_NS_PER_S) + until.tv_nsec;
		until = (struct timespec){until.tv_sec + ns / CST_NS_PER_S, ns % CST_NS_PER_S};
		pthread_cond_timedwait(&fs->writers_wake, &fs->writers_lock, &until);
	}
	int rc = s->rc;
	pthread_mutex_unlock(&fs->writers_lock);
	if (rc == 0 && __atomic_load_n(&fs->publish_failures, __ATOMIC_RELAXED) != failed)
		rc = -EIO;
	settle_put(s);
	if (left > 0)
		rc = -ETIMEDOUT;
	if (rc < 0) {
		cst_error_set(err, -rc, "not all of what was written is in the store");
		cst_error_why(err, left > 0 ? "%u files are still being published" : "a publication failed", left);
		cst_error_hint(err, "cistern conflicts ls tells what was kept");
	}
	return rc;
}
