/* Files: read and release; open is in open.c. */
#define CST_LOG_AREA "fs"
#include "fs/writing.h"

struct read_call {
	struct fs_wait w;
	struct fs_handle *handle; /* counted */
	struct fs_stream *stream; /* counted */
	struct cst_fetch_read read;
	pthread_mutex_t lock;
	bool done, cancelling;
};

static void read_free(struct fs_wait *w)
{
	struct read_call *r = cst_container_of(w, struct read_call, w);
	fs_stream_unref(r->stream);
	fs_handle_unref(r->handle);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

/* The fetch layer answers a cancelled read itself; a read that is just ending must not be given back meanwhile. */
static bool read_leave(struct fs_wait *w)
{
	struct read_call *r = cst_container_of(w, struct read_call, w);
	pthread_mutex_lock(&r->lock);
	bool running = !r->done;
	r->cancelling = running;
	pthread_mutex_unlock(&r->lock);
	if (!running)
		return false;
	cst_fetch_read_cancel(&r->read);
	pthread_mutex_lock(&r->lock);
	r->cancelling = false;
	bool mine = r->done;
	pthread_mutex_unlock(&r->lock);
	if (mine) {
		cst_fetch_read_release(&r->read);
		fs_wait_unref(w);
	}
	return false;
}

static int read_errno(struct cst_fs *fs, struct cst_inode *inode, int rc, const struct cst_error *err)
{
	if (rc == -ENOENT)
		rc = -ESTALE; /* it was there when it was opened */
	if (rc == -ESTALE) {
		fs_doubt(fs, inode);
		return rc;
	}
	CST_AUTO_BUF key = CST_BUF_INIT;
	if (rc != -EINTR)
		fs_key(fs, inode, &key);
	return fs_errno(fs, rc, "can't read", cst_buf_slice(&key), err);
}

static void read_done(struct cst_fetch_read *read, int rc, const struct cst_error *err)
{
	struct read_call *r = read->arg;
	struct cst_fs *fs = r->w.fs;
	struct cst_fs_call *call = fs_wait_end(&r->w);
	if (rc >= 0) {
		__atomic_fetch_add(&fs->bytes_read, (uint64_t)rc, __ATOMIC_RELAXED);
		fs->host->data(call, read->iov, read->iov_count);
	} else {
		fs->host->error(call, read_errno(fs, r->handle->inode, rc, err));
	}
	pthread_mutex_lock(&r->lock);
	r->done = true;
	bool mine = !r->cancelling;
	pthread_mutex_unlock(&r->lock);
	if (mine) {
		cst_fetch_read_release(read);
		fs_wait_unref(&r->w);
	}
}

/* Owns the caller's references. */
static void start_read(struct cst_fs *fs, struct cst_fs_call *call, struct fs_handle *h, struct fs_stream *stream,
		       uint64_t offset, uint32_t size)
{
	struct read_call *r = CST_NEW(struct read_call);
	r->handle = h;
	r->stream = stream;
	pthread_mutex_init(&r->lock, NULL);
	r->read.offset = offset;
	r->read.length = size;
	r->read.done = read_done;
	r->read.arg = r;
	fs_wait_arm(&r->w, fs, call, read_leave, read_free);
	cst_fetch_read(stream->stream, &r->read);
	fs_wait_started(&r->w);
}

/* What is in the store. Owns the caller's reference. */
static void read_stored(struct cst_fs *fs, struct cst_fs_call *call, struct fs_handle *h, uint64_t offset,
			uint32_t size)
{
	struct fs_stream *s = fs_handle_stream(h);
	if (offset >= s->size || size == 0) {
		fs_stream_unref(s);
		fs_handle_unref(h);
		fs->host->data(call, NULL, 0);
		return;
	}
	uint64_t length = cst_min(cst_min((uint64_t)size, (uint64_t)CST_FETCH_READ_MAX), s->size - offset);
	if (fs->ahead && !__atomic_exchange_n(&h->was_read, true, __ATOMIC_RELAXED))
		fs_ahead_read(fs->ahead, h->inode);
	start_read(fs, call, h, s, offset, (uint32_t)length);
}

/* ---- by who writes the file ---- */

struct own_read {
	struct fs_change c;
	struct fs_sync sync;
	struct fs_handle *handle; /* counted */
	uint64_t offset;
	uint32_t size;
};

static void own_read_free(struct fs_change *c)
{
	struct own_read *r = cst_container_of(c, struct own_read, c);
	if (r->handle)
		fs_handle_unref(r->handle);
	free(r);
}

static void own_read_published(struct fs_sync *sync, int rc)
{
	struct own_read *r = cst_container_of(sync, struct own_read, sync);
	struct cst_fs *fs = r->c.w.fs;
	struct cst_fs_call *call = fs_change_answer(&r->c);
	if (call && rc < 0)
		fs->host->error(call, rc);
	else if (call)
		read_stored(fs, call, cst_steal(r->handle), r->offset, r->size);
	fs_change_end(&r->c);
}

/* Bytes that are in the store are read from there. For others they are published first, as by an fsync: they may be in parts of an upload already,
 * which can't be read, and a program that reads what it has just written wants the bytes. */
static void read_own(struct cst_fs *fs, struct cst_fs_call *call, struct fs_handle *h, uint64_t offset, uint32_t size)
{
	struct fs_writer *w = h->writer;
	pthread_mutex_lock(&w->file->lock);
	uint64_t end = w->end, stored = w->replaced ? 0 : w->base.size;
	bool unlinked = w->unlinked;
	pthread_mutex_unlock(&w->file->lock);
	if (!unlinked && (offset >= end || offset + cst_min((uint64_t)size, end - offset) <= stored)) {
		if (offset < end) {
			read_stored(fs, call, h, offset, size);
		} else {
			fs_handle_unref(h);
			fs->host->data(call, NULL, 0);
		}
		return;
	}
	struct own_read *r = CST_NEW(struct own_read);
	r->handle = h;
	r->offset = offset;
	r->size = size;
	r->sync.done = own_read_published;
	fs_change_begin(&r->c, fs, call, NULL, NULL, NULL, own_read_free);
	int rc = unlinked ? -ESTALE : fs_writer_sync(w, &r->sync, false);
	if (rc != 0)
		own_read_published(&r->sync, cst_min(rc, 0));
	fs_change_started(&r->c);
}

void cst_fs_read(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh, uint64_t offset,
		 uint32_t size)
{
	CST_CHECK(fs, FS_MAGIC);
	struct cst_inode *inode = cst_inode_get(fs->table, node);
	__atomic_fetch_add(&fs->reads, 1, __ATOMIC_RELAXED);
	if (!inode) {
		fs->host->error(call, -ESTALE);
		return;
	}
	if (inode->kind != CST_KIND_FILE) {
		fs->host->error(call, cst_inode_is_dir(inode) ? -EISDIR : -EINVAL);
	} else {
		struct fs_handle *h = fs_handle_get(fs, inode, fh);
		if (h->writer)
			read_own(fs, call, h, offset, size);
		else
			read_stored(fs, call, h, offset, size);
	}
	cst_inode_unref(fs->table, inode);
}

void cst_fs_release(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh)
{
	CST_CHECK(fs, FS_MAGIC);
	fs_handle_release(fs, node, fh);
	fs->host->error(call, 0);
}
