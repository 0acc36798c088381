/* Handles. `fh` is a hint: the node id alone is enough to serve a request, so an unknown one is made anew. */
#include "fs/internal.h"

static struct fs_handle_shard *shard_of(struct cst_fs *fs, uint64_t fh)
{
	return &fs->handles[fh % HANDLE_SHARDS];
}

static struct fs_handle **find_locked(struct fs_handle_shard *s, uint64_t fh)
{
	struct fs_handle **at = &s->buckets[fh / HANDLE_SHARDS % HANDLE_BUCKETS];
	while (*at && (*at)->fh != fh)
		at = &(*at)->next;
	return at;
}

static void count_open(struct cst_fs *fs, struct cst_inode *inode, bool passthrough, int change)
{
	bool is_dir = cst_inode_is_dir(inode);
	struct cst_fetch_object *unused = NULL;
	cst_inode_lock(fs->table, inode);
	struct cst_inode_more *more = cst_inode_more(inode);
	more->opens += (uint32_t)change;
	if (more->opens == 0 && (inode->stale || inode->aside)) { /* nobody can open it again */
		unused = more->data;
		more->data = NULL;
	}
	cst_inode_unlock(fs->table, inode);
	if (unused)
		cst_fetch_object_unref(unused);
	__atomic_fetch_add(is_dir ? &fs->open_dirs : &fs->open_files, (uint64_t)change, __ATOMIC_RELAXED);
	if (passthrough)
		__atomic_fetch_add(&fs->open_passthrough, (uint64_t)change, __ATOMIC_RELAXED);
	if (is_dir || passthrough || !fs->host->open_files)
		return;
	uint64_t files = __atomic_load_n(&fs->open_files, __ATOMIC_RELAXED);
	uint64_t others = __atomic_load_n(&fs->open_passthrough, __ATOMIC_RELAXED);
	fs->host->open_files(fs->host->host, files > others ? files - others : 0);
}

/* The data of the inode's version, shared by its handles. A version that another came after (412) and that a HEAD has since found
 * current again starts afresh. */
static struct cst_fetch_object *data_of(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file)
{
	struct cst_fetch_object *made = NULL, *old = NULL, *data;
	cst_inode_lock(fs->table, inode);
	data = cst_inode_peek(inode)->data;
	if (data && (inode->stale || !cst_fetch_object_is_stale(data)))
		cst_fetch_object_ref(data);
	else
		data = NULL;
	cst_inode_unlock(fs->table, inode);
	if (data) {
		if (file)
			fs_file_bind(fs, inode, file, data);
		return data;
	}
	CST_AUTO_BUF key = CST_BUF_INIT;
	CST_AUTO_ENTRY version = CST_ENTRY_INIT;
	fs_key(fs, inode, &key);
	cst_inode_entry(fs->table, inode, &version);
	made = cst_fetch_object_new(fs->config.fetch, cst_buf_slice(&key), version.etag, version.size);
	cst_inode_lock(fs->table, inode);
	struct cst_inode_more *more = cst_inode_more(inode);
	if (more->data && !cst_fetch_object_is_stale(more->data)) { /* another thread was quicker */
		old = made;
	} else {
		old = more->data;
		more->data = made;
	}
	data = cst_fetch_object_ref(more->data);
	cst_inode_unlock(fs->table, inode);
	if (file && old && old != made)
		fs_file_unbound(fs, inode, file);
	if (old)
		cst_fetch_object_unref(old);
	if (file)
		fs_file_bind(fs, inode, file, data);
	return data;
}

static struct cst_fetch_stream *stream_new(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file)
{
	struct cst_fetch_object *data = data_of(fs, inode, file);
	struct cst_fetch_stream *stream = cst_fetch_stream_new(data);
	cst_fetch_object_unref(data);
	return stream;
}

struct cst_fetch_stream *fs_handle_stream(struct fs_handle *h)
{
	struct cst_fetch_stream *stream = __atomic_load_n(&h->stream, __ATOMIC_ACQUIRE);
	if (stream)
		return stream;
	pthread_mutex_lock(&h->lock);
	stream = h->stream;
	if (!stream) {
		stream = stream_new(h->fs, h->inode, h->file);
		__atomic_store_n(&h->stream, stream, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&h->lock);
	return stream;
}

static struct fs_handle *handle_new(struct cst_fs *fs, struct cst_inode *inode, uint64_t fh, struct fs_file *file,
				    bool passthrough)
{
	struct fs_handle *h = CST_NEW(struct fs_handle);
	h->magic = FS_HANDLE_MAGIC;
	cst_ref_init(&h->ref); /* the table's */
	cst_ref_get(&h->ref);  /* the caller's */
	h->fs = fs;
	h->inode = cst_inode_ref(fs->table, inode);
	h->fh = fh ? fh : __atomic_fetch_add(&fs->next_fh, 1, __ATOMIC_RELAXED);
	h->file = file;
	h->passthrough = passthrough;
	pthread_mutex_init(&h->lock, NULL);
	if (cst_inode_is_dir(inode)) {
		h->dir = cst_dir_ref(fs_dir_of(fs, inode));
	} else if (!passthrough && cst_inode_size(fs->table, inode) > 0) {
		h->stream = stream_new(fs, inode, file);
	}
	count_open(fs, inode, passthrough, 1);
	struct fs_handle_shard *s = shard_of(fs, h->fh);
	pthread_mutex_lock(&s->lock);
	bool taken = fh && *find_locked(s, fh); /* another request rebuilt it just now; this one serves its own */
	if (!taken) {
		struct fs_handle **at = &s->buckets[h->fh / HANDLE_SHARDS % HANDLE_BUCKETS];
		h->next = *at;
		*at = h;
	}
	pthread_mutex_unlock(&s->lock);
	if (taken)
		fs_handle_unref(h);
	return h;
}

struct fs_handle *fs_handle_new(struct cst_fs *fs, struct cst_inode *inode, uint64_t fh)
{
	return handle_new(fs, inode, fh, NULL, false);
}

struct fs_handle *fs_handle_new_file(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file, bool passthrough)
{
	return handle_new(fs, inode, 0, file, passthrough);
}

struct fs_handle *fs_handle_get(struct cst_fs *fs, struct cst_inode *inode, uint64_t fh)
{
	struct fs_handle_shard *s = shard_of(fs, fh);
	pthread_mutex_lock(&s->lock);
	struct fs_handle *h = *find_locked(s, fh);
	bool known = h != NULL;
	if (h && h->inode == inode)
		cst_ref_get(&h->ref);
	else
		h = NULL;
	pthread_mutex_unlock(&s->lock);
	/* Another node's number can't be taken over: then the handle serves this request, and its node's RELEASE never finds it. */
	if (h)
		return h;
	h = fs_handle_new(fs, inode, known ? 0 : fh);
	if (known)
		fs_handle_release(fs, inode->node, h->fh);
	return h;
}

void fs_handle_unref(struct fs_handle *h)
{
	CST_CHECK(h, FS_HANDLE_MAGIC);
	if (!cst_ref_put(&h->ref))
		return;
	struct cst_fs *fs = h->fs;
	if (h->stream)
		cst_fetch_stream_free(h->stream);
	if (h->listing)
		cst_listing_close(h->listing);
	cst_dir_unref(h->dir);
	count_open(fs, h->inode, h->passthrough, -1);
	if (h->file)
		fs_file_leave(fs, h->inode, h->file);
	cst_inode_unref(fs->table, h->inode);
	pthread_mutex_destroy(&h->lock);
	h->magic = 0;
	free(h);
}

void fs_handle_release(struct cst_fs *fs, uint64_t node, uint64_t fh)
{
	struct fs_handle_shard *s = shard_of(fs, fh);
	pthread_mutex_lock(&s->lock);
	struct fs_handle **at = find_locked(s, fh), *h = *at;
	if (h && h->inode->node == node)
		*at = h->next;
	else
		h = NULL;
	pthread_mutex_unlock(&s->lock);
	if (h)
		fs_handle_unref(h);
}
