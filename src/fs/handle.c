/* Handles. `fh` is a hint: the node id alone is enough to serve a request, so an unknown one is made anew. */
#define CST_LOG_AREA "fs"
#include "fs/writing.h"

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

/* The data of the inode's version, shared by its handles; referenced, or NULL. A version that another came after (412) and that a HEAD has
 * since found current again starts afresh. */
static struct cst_fetch_object *data_known(struct cst_fs *fs, struct cst_inode *inode)
{
	cst_inode_lock(fs->table, inode);
	struct cst_fetch_object *data = cst_inode_peek(inode)->data;
	if (data && (inode->stale || !cst_fetch_object_is_stale(data)))
		cst_fetch_object_ref(data);
	else
		data = NULL;
	cst_inode_unlock(fs->table, inode);
	return data;
}

/* Takes over `made`, unless another thread was quicker. *old: to be given up. */
static struct cst_fetch_object *data_install(struct cst_fs *fs, struct cst_inode *inode, struct cst_fetch_object *made,
					     struct cst_fetch_object **old)
{
	cst_inode_lock(fs->table, inode);
	struct cst_inode_more *more = cst_inode_more(inode);
	if (more->data && !cst_fetch_object_is_stale(more->data)) {
		*old = made;
	} else {
		*old = more->data;
		more->data = made;
	}
	struct cst_fetch_object *data = cst_fetch_object_ref(more->data);
	cst_inode_unlock(fs->table, inode);
	return data;
}

static void file_lock(struct fs_file *file)
{
	if (file)
		pthread_mutex_lock(&file->lock);
}

static void file_unlock(struct fs_file *file)
{
	if (file)
		pthread_mutex_unlock(&file->lock);
}

static struct cst_fetch_object *data_make(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file,
					  const struct cst_entry *entry, unsigned version)
{
	struct cst_fetch_object *made, *old = NULL, *data = NULL;
	CST_AUTO_BUF key = CST_BUF_INIT;
	fs_key(fs, inode, &key);
	made = cst_fetch_object_new(fs->config.fetch, cst_buf_slice(&key), entry->etag, entry->size);
	file_lock(file);
	bool same = !file || file->version == version;
	if (same)
		data = data_install(fs, inode, made, &old);
	file_unlock(file);
	if (file && old && old != made)
		fs_file_unbound(fs, inode, file);
	if (old)
		cst_fetch_object_unref(old);
	if (!same)
		cst_fetch_object_unref(made);
	return data;
}

/* Size and data of one version, whatever is published meanwhile. */
static struct fs_stream *stream_new(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file)
{
	struct fs_stream *s = CST_NEW(struct fs_stream);
	struct cst_fetch_object *data = NULL;
	/* A handle that was rebuilt has none, and reads through no cache. */
	struct fs_file *own = file, *lent = !file && fs->config.write ? fs_file_get(fs, inode) : NULL;
	if (lent)
		file = lent;
	cst_ref_init(&s->ref);
	do {
		CST_AUTO_ENTRY entry = CST_ENTRY_INIT;
		file_lock(file);
		s->version = file ? file->version : 0;
		cst_inode_entry(fs->table, inode, &entry);
		s->size = entry.size;
		if (s->size > 0)
			data = data_known(fs, inode);
		file_unlock(file);
		if (s->size > 0 && !data)
			data = data_make(fs, inode, file, &entry, s->version);
	} while (s->size > 0 && !data);
	if (lent)
		fs_file_put(fs, inode, lent);
	if (!data)
		return s;
	if (own)
		fs_file_bind(fs, inode, own, data);
	s->stream = cst_fetch_stream_new(data);
	cst_fetch_object_unref(data);
	return s;
}

void fs_stream_unref(struct fs_stream *s)
{
	if (!s || !cst_ref_put(&s->ref))
		return;
	if (s->stream)
		cst_fetch_stream_free(s->stream);
	free(s);
}

struct fs_stream *fs_handle_stream(struct fs_handle *h)
{
	struct fs_stream *old = NULL;
	pthread_mutex_lock(&h->lock);
	if (h->stream && h->file && __atomic_load_n(&h->file->version, __ATOMIC_RELAXED) != h->stream->version)
		old = cst_steal(h->stream);
	if (!h->stream)
		h->stream = stream_new(h->fs, h->inode, h->file);
	struct fs_stream *s = h->stream;
	cst_ref_get(&s->ref);
	pthread_mutex_unlock(&h->lock);
	fs_stream_unref(old);
	return s;
}

static struct fs_handle *handle_new(struct cst_fs *fs, struct cst_inode *inode, uint64_t fh, struct fs_file *file,
				    bool passthrough, struct fs_writer *writer, bool append)
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
	h->writer = writer;
	h->append = append;
	if (writer)
		h->fh |= FS_FH_WRITES;
	pthread_mutex_init(&h->lock, NULL);
	if (cst_inode_is_dir(inode)) {
		h->dir = cst_dir_ref(fs_dir_of(fs, inode));
	} else if (!passthrough && !writer && cst_inode_size(fs->table, inode) > 0) {
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
	return handle_new(fs, inode, fh, NULL, false, NULL, false);
}

struct fs_handle *fs_handle_new_file(struct cst_fs *fs, struct cst_inode *inode, struct fs_file *file, bool passthrough,
				     struct fs_writer *writer, bool append)
{
	return handle_new(fs, inode, 0, file, passthrough, writer, append);
}

struct fs_handle *fs_handle_find(struct cst_fs *fs, uint64_t node, uint64_t fh)
{
	struct fs_handle_shard *s = shard_of(fs, fh);
	pthread_mutex_lock(&s->lock);
	struct fs_handle *h = *find_locked(s, fh);
	if (h && h->inode->node == node)
		cst_ref_get(&h->ref);
	else
		h = NULL;
	pthread_mutex_unlock(&s->lock);
	return h;
}

bool fs_lost_handle(struct cst_fs *fs, uint64_t fh)
{
	if (!(fh & FS_FH_WRITES))
		return false;
	fs_write_refused(
		fs, NULL,
		"a file that was being written when the file system ended can't be written on: what had not been "
		"published by then is lost, close it and write it again");
	return true;
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
	fs_stream_unref(h->stream);
	if (h->listing)
		cst_listing_close(h->listing);
	cst_dir_unref(h->dir);
	count_open(fs, h->inode, h->passthrough, -1);
	if (h->writer) /* before the mode is left: opens wait for it then */
		fs_writer_close(h->writer, h->forget);
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

void fs_handle_untaken(struct cst_fs *fs, uint64_t node, uint64_t fh)
{
	struct fs_handle *h = fs_handle_find(fs, node, fh);
	if (h) {
		h->forget = true;
		fs_handle_unref(h);
	}
	fs_handle_release(fs, node, fh);
}
