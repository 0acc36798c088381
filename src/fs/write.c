/* Writing to files: from their front to their end.
 *
 * The kernel sends the pieces of one write() one after the other, but readers of its queue may bring them here in another order, and asynchronous
 * writes come all at once. So what comes waits in line, and whatever begins at the end goes into the stream, one at a time. A write that begins
 * beyond the end waits a moment for what belongs in between: after that, or before the end, it is none that this mode can take. */
#define CST_LOG_AREA "fs"
#include "fs/writing.h"

#include <fcntl.h>
#include <inttypes.h>

#define GRACE (50 * CST_NS_PER_MS)

enum write_state { WRITE_PARKED, WRITE_STARTING, WRITE_TAKEN, WRITE_DONE };

struct fs_write_call {
	struct fs_wait w;
	struct fs_handle *handle; /* counted: the writer doesn't close before */
	struct fs_writer *writer; /* the handle's */
	struct cst_publish_write piece;
	bool append;
	bool leave;		/* interrupted while it was being given to the stream */
	enum write_state state; /* the file's lock */
	TAILQ_ENTRY(fs_write_call) link;
};

static void kick(struct fs_writer *w);

/* What stat shows. The file's lock is held. */
static void show_size(struct fs_writer *w)
{
	cst_inode_lock(w->fs->table, w->inode);
	w->file->size = w->end;
	w->file->mtime = cst_wall();
	cst_inode_unlock(w->fs->table, w->inode);
}

static void write_free(struct fs_wait *w)
{
	struct fs_write_call *c = cst_container_of(w, struct fs_write_call, w);
	fs_handle_unref(c->handle);
	free(c);
}

static bool write_leave(struct fs_wait *wait)
{
	struct fs_write_call *c = cst_container_of(wait, struct fs_write_call, w);
	struct fs_writer *w = c->writer;
	pthread_mutex_lock(&w->file->lock);
	enum write_state state = c->state;
	if (state == WRITE_PARKED) {
		TAILQ_REMOVE(&w->parked, c, link);
		c->state = WRITE_DONE;
	} else if (state == WRITE_STARTING) {
		c->leave = true;
	}
	pthread_mutex_unlock(&w->file->lock);
	if (state == WRITE_PARKED)
		return true;
	if (state != WRITE_TAKEN || !cst_publish_write_leave(&c->piece))
		return false;
	pthread_mutex_lock(&w->file->lock);
	c->state = WRITE_DONE;
	w->taking = NULL;
	pthread_mutex_unlock(&w->file->lock);
	kick(w);
	return true;
}

static void finish_write(struct fs_write_call *c, int rc)
{
	struct cst_fs *fs = c->w.fs;
	struct cst_fs_call *call = fs_wait_end(&c->w);
	if (rc == 0) {
		__atomic_fetch_add(&fs->writes, 1, __ATOMIC_RELAXED);
		__atomic_fetch_add(&fs->bytes_written, c->piece.data.len, __ATOMIC_RELAXED);
		fs->host->written(call, (uint32_t)c->piece.data.len);
	} else {
		fs->host->error(call, rc);
	}
	fs_wait_unref(&c->w);
}

static int write_rc(struct fs_writer *w, int rc, const struct cst_error *err)
{
	CST_AUTO_BUF key = CST_BUF_INIT;
	if (rc == 0 || rc == -EINTR || rc == -ESTALE)
		return rc;
	if (rc == -EINVAL) {
		fs_write_refused(w->fs, w->inode, "the write doesn't begin where the file ends");
		return rc;
	}
	fs_key(w->fs, w->inode, &key);
	return fs_write_errno(w->fs, rc, "can't write", cst_buf_slice(&key), err);
}

static void write_done(struct cst_publish_write *piece, int rc, const struct cst_error *err)
{
	struct fs_write_call *c = piece->arg;
	struct fs_writer *w = c->writer;
	pthread_mutex_lock(&w->file->lock);
	c->state = WRITE_DONE;
	w->taking = NULL;
	if (rc == 0) {
		w->end += piece->data.len;
		w->byte_changes = ++w->changes;
		show_size(w);
	}
	pthread_mutex_unlock(&w->file->lock);
	fs_writer_ref(w);
	finish_write(c, write_rc(w, rc, err));
	kick(w);
	fs_writer_unref(w);
}

/* What can't go in any more, with why. */
static int refusal(struct fs_writer *w, const struct fs_write_call *c, uint64_t end)
{
	if (w->unlinked)
		return 0;
	if (w->failed)
		return w->failed;
	fs_write_refused(w->fs, w->inode,
			 "a write at %" PRIu64 " is refused, as the file ends at %" PRIu64
			 ": this mount writes files from their front to their end (write=append); "
			 "changing bytes anywhere needs write=full",
			 c->piece.offset, end);
	return -EINVAL;
}

static void refuse_all(struct fs_writer *w, struct fs_write_calls *refused, uint64_t end)
{
	struct fs_write_call *c;
	while ((c = TAILQ_FIRST(refused)) != NULL) {
		TAILQ_REMOVE(refused, c, link);
		finish_write(c, refusal(w, c, end));
	}
}

/* An append goes to the end wherever the kernel thinks that is; but where pieces of one write have come in another order, their places tell which is first. */
static bool goes_on(const struct fs_writer *w, const struct fs_write_call *c, bool too_late)
{
	return c->piece.offset == w->end || (c->append && (c->piece.offset < w->end || too_late));
}

/* The one that goes on at the end; what can never do so leaves the line. */
static struct fs_write_call *next_write(struct fs_writer *w, bool too_late, struct fs_write_calls *refused)
{
	struct fs_write_call *c, *next, *found = NULL;
	for (c = TAILQ_FIRST(&w->parked); c; c = next) {
		next = TAILQ_NEXT(c, link);
		bool dead = w->unlinked || w->failed;
		if (!dead && goes_on(w, c, too_late)) {
			if (!found || c->piece.offset < found->piece.offset)
				found = c;
		} else if (dead || (!c->append && (c->piece.offset < w->end || too_late))) {
			TAILQ_REMOVE(&w->parked, c, link);
			c->state = WRITE_DONE;
			TAILQ_INSERT_TAIL(refused, c, link);
		}
	}
	return found;
}

/* Gives a write to the stream. The file's lock is held, and given up meanwhile. */
static void start_write(struct fs_writer *w, struct fs_write_call *c)
{
	TAILQ_REMOVE(&w->parked, c, link);
	c->state = WRITE_STARTING;
	c->piece.offset = w->end;
	w->taking = c;
	cst_ref_get(&c->w.ref); /* it may have ended before this has */
	pthread_mutex_unlock(&w->file->lock);
	cst_publish_write(w->stream, &c->piece);
	pthread_mutex_lock(&w->file->lock);
	bool leave = c->state == WRITE_STARTING && c->leave;
	if (c->state == WRITE_STARTING)
		c->state = WRITE_TAKEN;
	pthread_mutex_unlock(&w->file->lock);
	if (leave && cst_publish_write_leave(&c->piece)) {
		pthread_mutex_lock(&w->file->lock);
		c->state = WRITE_DONE;
		w->taking = NULL;
		pthread_mutex_unlock(&w->file->lock);
		finish_write(c, -EINTR);
	}
	fs_wait_unref(&c->w);
	pthread_mutex_lock(&w->file->lock);
}

static void take_writes(struct fs_writer *w, bool too_late);

static void grace_over(struct fs_timer *timer)
{
	struct fs_writer *w = cst_container_of(timer, struct fs_writer, grace_timer);
	pthread_mutex_lock(&w->file->lock);
	w->grace = false;
	pthread_mutex_unlock(&w->file->lock);
	take_writes(w, true);
	fs_writer_unref(w);
}

/* ---- what goes along with an object that is appended to ---- */

struct properties_ask {
	struct fs_writer *w;	 /* counted */
	struct cst_buf key;	 /* that was asked for */
	char etag[CST_ETAG_MAX]; /* expected */
};

static void ask_properties(struct fs_writer *w);

/* The times of what was there are not those of what will be: Last-Modified takes their place. */
static bool goes_along(struct cst_slice name)
{
	return !cst_slice_is(name, "mtime") && !cst_slice_is(name, "ctime") && !cst_slice_is(name, "atime");
}

static void set_properties(struct fs_writer *w, const struct cst_object_info *info)
{
	struct cst_object_properties properties = {.content_type = info->content_type};
	struct cst_http_header *meta = cst_xcalloc(info->meta_count + 1, sizeof(*meta));
	for (size_t i = 0; i < info->meta_count; i++)
		if (goes_along(info->meta[i].name))
			meta[properties.meta_count++] = info->meta[i];
	properties.meta = meta;
	cst_publish_stream_set_properties(w->stream, &properties);
	free(meta);
}

/* Without them nothing is written: those that wait hear why, and the next write asks again. */
static void properties_failed(struct fs_writer *w, int rc, const struct cst_error *err)
{
	struct fs_write_calls refused = TAILQ_HEAD_INITIALIZER(refused);
	struct fs_write_call *c;
	pthread_mutex_lock(&w->file->lock);
	w->properties = PROPERTIES_WANTED;
	TAILQ_CONCAT(&refused, &w->parked, link);
	TAILQ_FOREACH (c, &refused, link)
		c->state = WRITE_DONE;
	pthread_mutex_unlock(&w->file->lock);
	while ((c = TAILQ_FIRST(&refused)) != NULL) {
		TAILQ_REMOVE(&refused, c, link);
		finish_write(c, write_rc(w, rc, err));
	}
}

static void properties_came(void *arg, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct properties_ask *ask = arg;
	struct fs_writer *w = ask->w;
	CST_AUTO_BUF key = CST_BUF_INIT;
	bool same = rc == 0 && (!ask->etag[0] || strcmp(info->etag, ask->etag) == 0);
	fs_key(w->fs, w->inode, &key);
	bool moved = !cst_slice_eq(cst_buf_slice(&key), cst_buf_slice(&ask->key));
	if (rc < 0 && rc != -ENOENT) {
		properties_failed(w, rc, err);
	} else if (!same && moved) { /* renamed meanwhile */
		ask_properties(w);
	} else {
		/* Another version, or none: the publication will say so. */
		pthread_mutex_lock(&w->file->lock);
		bool wanted = same && !w->replaced;
		pthread_mutex_unlock(&w->file->lock);
		if (wanted)
			set_properties(w, info);
		pthread_mutex_lock(&w->file->lock);
		w->properties = PROPERTIES_KNOWN;
		pthread_mutex_unlock(&w->file->lock);
		kick(w);
	}
	cst_buf_fini(&ask->key);
	free(ask);
	fs_writer_unref(w);
}

static void ask_properties(struct fs_writer *w)
{
	struct properties_ask *ask = CST_NEW(struct properties_ask);
	fs_writer_ref(w);
	ask->w = w;
	fs_key(w->fs, w->inode, &ask->key);
	pthread_mutex_lock(&w->file->lock);
	memcpy(ask->etag, w->base.etag, sizeof(ask->etag));
	pthread_mutex_unlock(&w->file->lock);
	cst_object_release(
		cst_object_head(w->fs->config.bucket, cst_buf_slice(&ask->key), false, properties_came, ask));
}

static void take_writes(struct fs_writer *w, bool too_late)
{
	struct fs_write_calls refused = TAILQ_HEAD_INITIALIZER(refused);
	struct fs_write_call *c;
	pthread_mutex_lock(&w->file->lock);
	if (w->kicking) { /* whoever does it looks again before it stops */
		pthread_mutex_unlock(&w->file->lock);
		return;
	}
	bool dead = w->unlinked || w->failed;
	bool ask = w->properties == PROPERTIES_WANTED && !dead && !TAILQ_EMPTY(&w->parked);
	if (ask)
		w->properties = PROPERTIES_ASKING;
	if (w->properties == PROPERTIES_ASKING && !dead) {
		pthread_mutex_unlock(&w->file->lock);
		if (ask)
			ask_properties(w);
		return;
	}
	w->kicking = true;
	while (!w->taking && (c = next_write(w, too_late, &refused)) != NULL)
		start_write(w, c);
	w->kicking = false;
	bool wait = !w->taking && !TAILQ_EMPTY(&w->parked) && !w->grace;
	if (wait)
		w->grace = true;
	uint64_t end = w->end;
	pthread_mutex_unlock(&w->file->lock);
	if (wait) {
		fs_writer_ref(w);
		w->grace_timer.fn = grace_over;
		fs_timer_start(w->fs, &w->grace_timer, GRACE);
	}
	refuse_all(w, &refused, end);
}

static void kick(struct fs_writer *w)
{
	take_writes(w, false);
}

static void start_call(struct cst_fs *fs, struct cst_fs_call *call, struct fs_handle *h, uint64_t offset,
		       struct cst_slice data)
{
	struct fs_writer *w = h->writer;
	struct fs_write_call *c = CST_NEW(struct fs_write_call);
	c->handle = h;
	c->writer = w;
	c->append = h->append;
	c->piece = (struct cst_publish_write){.offset = offset, .data = data, .done = write_done, .arg = c};
	__atomic_store_n(&w->pid, call->pid, __ATOMIC_RELAXED);
	fs_writer_ref(w);
	fs_wait_arm(&c->w, fs, call, write_leave, write_free);
	pthread_mutex_lock(&w->file->lock);
	w->flushed = false;
	TAILQ_INSERT_TAIL(&w->parked, c, link);
	pthread_mutex_unlock(&w->file->lock);
	kick(w);
	fs_wait_started(&c->w);
	fs_writer_unref(w);
}

void cst_fs_write(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh, uint64_t offset,
		  struct cst_slice data)
{
	int rc = 0;
	if (!fs_may_write(fs, call, "writing was"))
		return;
	struct fs_handle *h = fs_handle_find(fs, node, fh);
	if (!h)
		rc = fs_lost_handle(fs, fh) ? -EIO : -EBADF;
	else if (!h->writer)
		rc = -EBADF;
	if (rc == 0 && data.len > 0) {
		start_call(fs, call, h, offset, data);
		return;
	}
	if (h)
		fs_handle_unref(h);
	if (rc < 0)
		fs->host->error(call, rc);
	else
		fs->host->written(call, 0);
}

/* ---- writers ---- */

struct cst_publish_base fs_base_of(const struct cst_entry *entry)
{
	struct cst_publish_base base = {.exists = true, .type = entry->type, .size = entry->size};
	memcpy(base.etag, entry->etag, sizeof(base.etag));
	return base;
}

/* False: a directory above is being renamed. Whoever finds it in the list waits for the file's lock before it looks into it. */
static bool register_writer(struct fs_writer *w)
{
	struct cst_fs *fs = w->fs;
	fs_live_begin(fs);
	pthread_mutex_lock(&fs->writers_lock);
	bool may = !fs_is_moving_locked(fs, w->inode);
	if (may) {
		TAILQ_INSERT_TAIL(&fs->writers, w, link);
		fs->open_writers++;
	}
	pthread_mutex_unlock(&fs->writers_lock);
	if (!may)
		fs_live_end(fs);
	return may;
}

struct fs_writer *fs_writer_new_locked(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file,
				       const struct cst_entry *entry, bool truncate)
{
	struct fs_writer *w = CST_NEW(struct fs_writer);
	w->magic = FS_WRITER_MAGIC;
	cst_ref_init(&w->ref); /* the handle's, then the ending's */
	w->fs = fs;
	w->file = file;
	w->inode = cst_inode_ref(fs->table, inode);
	if (!register_writer(w)) {
		cst_inode_unref(fs->table, inode);
		free(w);
		return NULL;
	}
	CST_AUTO_BUF key = CST_BUF_INIT;
	bool appends = entry ? !truncate && entry->type == CST_OBJECT_APPENDABLE : fs->config.appendable;
	w->fresh = !entry;
	w->replaced = !entry || truncate;
	w->properties = entry && !truncate && !appends ? PROPERTIES_WANTED : PROPERTIES_KNOWN;
	if (entry)
		w->base = fs_base_of(entry);
	w->end = entry && !truncate ? entry->size : 0;
	TAILQ_INIT(&w->parked);
	TAILQ_INIT(&w->syncs);
	fs_key(fs, inode, &key);
	w->stream = cst_publish_stream_open(fs->config.publish,
					    &(struct cst_publish_open){
						    .key = cst_buf_slice(&key),
						    .mode = appends ? CST_PUBLISH_APPENDABLE : CST_PUBLISH_WHOLE,
						    .base = w->base,
						    .keep_content = entry && !truncate,
					    });
	/* What is empty already is not written again. */
	if (!entry || (truncate && entry->size > 0)) {
		cst_publish_stream_touch(w->stream);
		w->changes = 1;
	}
	cst_inode_lock(fs->table, inode);
	file->users++;
	file->writing = true;
	file->size = w->end;
	file->mtime = !entry || truncate ? cst_wall() : entry->mtime * CST_NS_PER_S;
	inode->held = true;
	cst_inode_unlock(fs->table, inode);
	file->writer = w;
	return w;
}

void fs_writer_begin(struct fs_writer *w)
{
	CST_AUTO_ENTRY entry = CST_ENTRY_INIT;
	char name[CST_NAME_MAX + 1];
	struct cst_inode *parent = cst_inode_place(w->fs->table, w->inode, name);
	cst_inode_entry(w->fs->table, w->inode, &entry);
	if (parent)
		cst_dir_put(fs_dir_of(w->fs, parent), name, &entry, true);
	cst_inode_unref(w->fs->table, parent);
}

void fs_writer_ref(struct fs_writer *w)
{
	CST_CHECK(w, FS_WRITER_MAGIC);
	cst_ref_get(&w->ref);
}

void fs_writer_unref(struct fs_writer *w)
{
	CST_CHECK(w, FS_WRITER_MAGIC);
	if (!cst_ref_put(&w->ref))
		return;
	struct cst_fs *fs = w->fs;
	CST_ASSERT(w->ended && TAILQ_EMPTY(&w->parked) && TAILQ_EMPTY(&w->syncs));
	cst_publish_stream_close(w->stream, w->keep);
	fs_file_put(fs, w->inode, w->file);
	cst_inode_unref(fs->table, w->inode);
	w->magic = 0;
	free(w);
	fs_live_end(fs);
}

/* With the turn: nothing is being published. */
void fs_writer_truncate(struct fs_writer *w)
{
	pthread_mutex_lock(&w->file->lock);
	struct cst_publish_base base = w->base;
	pthread_mutex_unlock(&w->file->lock);
	cst_publish_stream_reset(w->stream, &base);
	pthread_mutex_lock(&w->file->lock);
	w->end = 0;
	w->flushed = false;
	w->replaced = true;
	w->properties = w->properties == PROPERTIES_WANTED ? PROPERTIES_KNOWN : w->properties;
	w->changes++;
	bool touch = w->fresh || w->base.size > 0;
	if (!touch)
		w->synced = w->changes;
	show_size(w);
	pthread_mutex_unlock(&w->file->lock);
	cst_publish_stream_set_properties(w->stream, &(struct cst_object_properties){0});
	if (touch)
		cst_publish_stream_touch(w->stream);
}

void fs_writer_unlink(struct fs_writer *w)
{
	static const struct cst_publish_base none;
	pthread_mutex_lock(&w->file->lock);
	w->unlinked = true;
	pthread_mutex_unlock(&w->file->lock);
	cst_inode_lock(w->fs->table, w->inode);
	w->inode->held = false;
	cst_inode_unlock(w->fs->table, w->inode);
	cst_publish_stream_reset(w->stream, &none);
	kick(w);
}

void fs_writer_set_base(struct fs_writer *w, const struct cst_publish_base *base)
{
	pthread_mutex_lock(&w->file->lock);
	w->base = *base;
	pthread_mutex_unlock(&w->file->lock);
}

int fs_writer_move(struct fs_writer *w, const struct cst_publish_base *base)
{
	CST_AUTO_BUF key = CST_BUF_INIT;
	fs_key(w->fs, w->inode, &key);
	fs_writer_set_base(w, base);
	return cst_publish_stream_move(w->stream, cst_buf_slice(&key), base);
}
