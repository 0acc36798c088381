/* Files: read and release; open is in open.c. */
#define CST_LOG_AREA "fs"
#include "fs/internal.h"

struct read_call {
	struct fs_wait w;
	struct fs_handle *handle; /* counted */
	struct cst_fetch_read read;
	pthread_mutex_t lock;
	bool done, cancelling;
};

static void read_free(struct fs_wait *w)
{
	struct read_call *r = cst_container_of(w, struct read_call, w);
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

static void start_read(struct cst_fs *fs, struct cst_fs_call *call, struct fs_handle *h, uint64_t offset, uint32_t size)
{
	struct read_call *r = CST_NEW(struct read_call);
	r->handle = h;
	pthread_mutex_init(&r->lock, NULL);
	r->read.offset = offset;
	r->read.length = size;
	r->read.done = read_done;
	r->read.arg = r;
	fs_wait_arm(&r->w, fs, call, read_leave, read_free);
	cst_fetch_read(fs_handle_stream(h), &r->read);
	fs_wait_started(&r->w);
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
	uint64_t end = cst_inode_size(fs->table, inode);
	if (inode->kind != CST_KIND_FILE) {
		fs->host->error(call, cst_inode_is_dir(inode) ? -EISDIR : -EINVAL);
	} else if (offset >= end || size == 0) {
		fs->host->data(call, NULL, 0);
	} else {
		struct fs_handle *h = fs_handle_get(fs, inode, fh);
		uint64_t length = cst_min(cst_min((uint64_t)size, (uint64_t)CST_FETCH_READ_MAX), end - offset);
		if (fs->ahead && !__atomic_exchange_n(&h->was_read, true, __ATOMIC_RELAXED))
			fs_ahead_read(fs->ahead, inode);
		start_read(fs, call, h, offset, (uint32_t)length);
	}
	cst_inode_unref(fs->table, inode);
}

void cst_fs_release(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh)
{
	CST_CHECK(fs, FS_MAGIC);
	fs_handle_release(fs, node, fh);
	fs->host->error(call, 0);
}
