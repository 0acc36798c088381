/* Directories: opendir, readdir, readdirplus, releasedir.
 *
 * A handle pins a listing, whose entries keep their positions, so an offset is a position: its low 40 bits, 1 and 2 for "." and
 * "..", then the entry's place + 3. The bits above are a tag of the entry's name: after a rewind or a restart the handle reads another
 * listing, and the tag finds the place again. Entries are passed on while later pages are still under way.
 *
 * attributes=object: readdirplus asks for the attributes of the next entries in parallel before it answers. */
#define CST_LOG_AREA "fs"
#include "fs/internal.h"

#include <dirent.h>

#define PLACE_BITS 40
#define PLACE_MASK ((UINT64_C(1) << PLACE_BITS) - 1)
#define FIRST_PLACE 3
#define BATCH 64

struct batch;

struct dir_call {
	struct fs_wait w;
	struct fs_handle *handle;    /* counted */
	struct cst_listing *listing; /* counted: the handle's may be replaced by a rewind */
	struct cst_listing_wait wait;
	uint64_t offset;
	size_t next; /* position in the listing */
	bool plus, any, full;
	pthread_mutex_t lock; /* guards batch */
	struct batch *batch;  /* attributes being asked for */
	size_t known_until;   /* entries before it have had their attributes asked for */
	uint64_t *nodes;      /* instantiated by this reply */
	size_t node_count, node_cap;
};

struct batch_item {
	struct cst_dir_wait wait;
	struct batch *batch;
	enum cst_dir_ask ask;
	char name[CST_NAME_MAX + 1];
};

struct batch {
	struct cst_fs *fs;
	struct cst_inode *inode; /* counted: keeps the directory */
	struct dir_call *d;	 /* NULL: it was interrupted */
	pthread_mutex_t lock;
	unsigned pending;
	size_t count, from, until;
	struct batch_item items[BATCH];
};

static void run(struct dir_call *d);

static void dir_call_free(struct fs_wait *w)
{
	struct dir_call *d = cst_container_of(w, struct dir_call, w);
	cst_listing_close(d->listing);
	fs_handle_unref(d->handle);
	pthread_mutex_destroy(&d->lock);
	free(d->nodes);
	free(d);
}

static bool dir_call_leave(struct fs_wait *w)
{
	struct dir_call *d = cst_container_of(w, struct dir_call, w);
	bool left = false;
	pthread_mutex_lock(&d->lock);
	if (d->batch) {
		pthread_mutex_lock(&d->batch->lock);
		left = d->batch->d != NULL;
		d->batch->d = NULL;
		pthread_mutex_unlock(&d->batch->lock);
		d->batch = NULL;
	}
	pthread_mutex_unlock(&d->lock);
	return left || cst_listing_leave(d->listing, &d->wait);
}

static uint64_t offset_after(size_t i, struct cst_slice name)
{
	return (uint64_t)cst_listing_tag(name) << PLACE_BITS | (i + FIRST_PLACE);
}

/* "." and "..": shown, never instantiated. */
static bool add_dot(struct dir_call *d, struct cst_slice name, uint64_t ino, uint64_t next)
{
	static const struct cst_fs_entry none;
	struct cst_fs_dirent entry = {
		.ino = ino, .next = next, .type = DT_DIR, .name = name, .entry = d->plus ? &none : NULL};
	if (d->w.fs->host->dirent(d->w.call, &entry) != 0) {
		d->full = true;
		return false;
	}
	d->any = true;
	d->offset = next;
	return true;
}

static void note_node(struct dir_call *d, uint64_t node)
{
	if (d->node_count == d->node_cap) {
		d->node_cap = d->node_cap ? d->node_cap * 2 : 64;
		d->nodes = cst_xrealloc(d->nodes, d->node_cap * sizeof(*d->nodes));
	}
	d->nodes[d->node_count++] = node;
}

/* Attributes that the inode has of this very version, though the listing doesn't know them; referenced, or NULL. */
static struct cst_object_attr *inode_attr(struct cst_fs *fs, struct cst_inode *dir, const struct cst_name_view *view)
{
	char name[CST_NAME_MAX + 1];
	CST_AUTO_ENTRY own = CST_ENTRY_INIT;
	struct cst_object_attr *attr = NULL;
	memcpy(name, view->name.data, view->name.len);
	name[view->name.len] = 0;
	struct cst_inode *inode = cst_inode_find(fs->table, dir, name);
	if (!inode)
		return NULL;
	cst_inode_entry(fs->table, inode, &own);
	bool same = own.mtime == view->mtime && own.size == view->size && strcmp(own.etag, view->etag) == 0;
	if (view->kind == CST_KIND_DIR ? own.kind == CST_KIND_DIR && fs_is_fresh(fs, own.at)
				       : own.kind != CST_KIND_DIR && same)
		attr = cst_object_attr_ref(own.attr);
	cst_inode_unref(fs->table, inode);
	return attr;
}

/* What a listing's entry says, when that is all there is to know. */
static bool listed_entry(const struct cst_fs *fs, const struct cst_name_view *view, struct cst_object_attr *attr,
			 int64_t at, struct cst_entry *entry)
{
	bool by_object = fs->config.attributes == CST_FS_ATTRIBUTES_OBJECT;
	bool symlink = view->type == CST_OBJECT_SYMLINK && view->kind != CST_KIND_DIR;
	*entry = (struct cst_entry){
		.kind = view->kind, .type = view->type, .size = view->size, .mtime = view->mtime, .at = at};
	memcpy(entry->etag, view->etag, sizeof(entry->etag));
	if (view->flags & CST_NAME_DOUBTFUL || (by_object && !attr) || (symlink && !fs->config.symlinks))
		return false;
	if (symlink) {
		entry->size = 0;
		entry->etag[0] = 0;
	}
	entry->attr = by_object ? cst_object_attr_ref(attr) : NULL;
	if (entry->attr && entry->kind == CST_KIND_FILE && attr->has & CST_ATTR_MODE && S_ISLNK(attr->mode))
		entry->kind = CST_KIND_SYMLINK;
	return true;
}

static uint32_t type_of(const struct cst_fs *fs, const struct cst_name_view *view, const struct cst_object_attr *attr)
{
	if (view->kind == CST_KIND_DIR)
		return DT_DIR;
	if (view->kind == CST_KIND_SYMLINK)
		return fs->config.symlinks ? DT_LNK : DT_REG;
	if (fs->config.attributes != CST_FS_ATTRIBUTES_OBJECT)
		return DT_REG;
	/* Whether it is ossfs 1.0's symlink only a HEAD tells. */
	return !attr ? DT_UNKNOWN : attr->has & CST_ATTR_MODE && S_ISLNK(attr->mode) ? DT_LNK : DT_REG;
}

static bool add_entry(void *arg, size_t i, const struct cst_name_view *view, struct cst_object_attr *attr, int64_t at)
{
	struct dir_call *d = arg;
	struct cst_fs *fs = d->w.fs;
	struct cst_inode *dir = d->handle->inode, *child = NULL;
	struct cst_object_attr *found = NULL;
	struct cst_fs_entry entry = {0};
	CST_AUTO_ENTRY listed = CST_ENTRY_INIT;
	char name[CST_NAME_MAX + 1];
	if (d->plus && fs->config.attributes == CST_FS_ATTRIBUTES_OBJECT && i >= d->known_until)
		return false; /* its attributes have not been asked for yet: the next call's */
	memcpy(name, view->name.data, view->name.len);
	name[view->name.len] = 0;
	if (d->plus && !attr && fs->config.attributes == CST_FS_ATTRIBUTES_OBJECT)
		attr = found = inode_attr(fs, dir, view);
	if (d->plus && listed_entry(fs, view, attr, at, &listed)) {
		child = fs_enter(fs, dir, name, &listed, 1);
		fs_fill_entry(fs, child, &entry);
	}
	struct cst_fs_dirent out = {
		.ino = child ? child->ino : cst_inode_list_ino(fs->table, dir, view->name),
		.next = offset_after(i, view->name),
		.type = child ? IFTODT(entry.attr.st.st_mode) : type_of(fs, view, attr),
		.name = view->name,
		.entry = d->plus ? &entry : NULL,
	};
	bool taken = fs->host->dirent(d->w.call, &out) == 0;
	cst_object_attr_unref(found);
	if (child && taken)
		note_node(d, entry.node);
	else if (child)
		cst_inode_forget(fs->table, entry.node, 1);
	cst_inode_unref(fs->table, child);
	if (!taken) {
		d->full = true;
		return false;
	}
	d->any = true;
	d->offset = out.next;
	return true;
}

static void finish(struct dir_call *d, int rc)
{
	struct cst_fs *fs = d->w.fs;
	struct cst_fs_call *call = fs_wait_end(&d->w);
	if (rc < 0) {
		for (size_t i = 0; i < d->node_count; i++)
			cst_inode_forget(fs->table, d->nodes[i], 1);
		fs->host->error(call, rc);
	} else if (fs->host->dirents_end(call) == -ENOENT) {
		for (size_t i = 0; i < d->node_count; i++)
			cst_inode_forget(fs->table, d->nodes[i], 1);
	}
	fs_wait_unref(&d->w);
}

static void batch_put(struct batch *b)
{
	pthread_mutex_lock(&b->lock);
	bool last = --b->pending == 0;
	struct dir_call *d = last ? b->d : NULL;
	b->d = last ? NULL : b->d; /* from here on it can't be left */
	size_t until = b->until;
	pthread_mutex_unlock(&b->lock);
	if (!last)
		return;
	if (d) {
		pthread_mutex_lock(&d->lock);
		d->batch = NULL;
		pthread_mutex_unlock(&d->lock);
	}
	cst_inode_unref(b->fs->table, b->inode);
	pthread_mutex_destroy(&b->lock);
	free(b);
	if (d) {
		d->known_until = until;
		run(d);
	}
}

static void item_done(struct cst_dir_wait *wait, int rc, const struct cst_entry *entry, struct cst_dir *below,
		      const struct cst_error *err)
{
	struct batch_item *item = cst_container_of(wait, struct batch_item, wait);
	/* The answer is in the listing now; an entry that has none is shown without its attributes. */
	(void)entry;
	(void)below;
	if (rc < 0 && rc != -ENOENT)
		fs_errno(item->batch->fs, rc, "can't get the attributes of", cst_slice_of(item->name), err);
	batch_put(item->batch);
}

static bool collect_item(void *arg, size_t i, const struct cst_name_view *view, struct cst_object_attr *attr,
			 int64_t at)
{
	struct batch *b = arg;
	(void)at;
	if (b->until == 0) /* hidden entries may come before it */
		b->from = i;
	if (i >= b->from + BATCH)
		return false;
	b->until = i + 1;
	struct cst_object_attr *own = attr ? NULL : inode_attr(b->fs, b->inode, view);
	cst_object_attr_unref(own);
	if (attr || own || view->flags & CST_NAME_DOUBTFUL)
		return true;
	struct batch_item *item = &b->items[b->count++];
	item->batch = b;
	item->ask = view->kind == CST_KIND_DIR ? CST_DIR_ASK_DIR : CST_DIR_ASK_FILE;
	memcpy(item->name, view->name.data, view->name.len);
	return true;
}

/* Asks for the attributes of the entries from d->next on. Returns 0 when there is nothing to ask or they are being asked for (then
 * *asked; run() is called again), or what cst_listing_read() says. */
static int ask_attributes(struct dir_call *d, bool *asked, struct cst_error *err)
{
	struct cst_fs *fs = d->w.fs;
	struct batch *b = CST_NEW(struct batch);
	size_t next;
	b->fs = fs;
	b->inode = d->handle->inode;
	int rc = cst_listing_read(d->listing, d->next, &next, &d->wait, collect_item, b, err);
	if (rc != 0 || b->count == 0) {
		if (rc == 0)
			d->known_until = b->until;
		free(b);
		return rc;
	}
	*asked = true;
	cst_inode_ref(fs->table, b->inode);
	b->d = d;
	b->pending = (unsigned)b->count + 1;
	pthread_mutex_init(&b->lock, NULL);
	pthread_mutex_lock(&d->lock);
	d->batch = b;
	pthread_mutex_unlock(&d->lock);
	struct cst_dir *dir = fs_dir_of(fs, b->inode);
	for (size_t i = 0; i < b->count; i++) {
		b->items[i].wait.done = item_done;
		cst_dir_probe(dir, b->items[i].name, b->items[i].ask, NULL, &b->items[i].wait);
	}
	batch_put(b);
	return 0;
}

/* Goes on with a readdir: passes on what has arrived, waits when there is nothing yet. */
static void run(struct dir_call *d)
{
	struct cst_fs *fs = d->w.fs;
	struct cst_error err = CST_ERROR_INIT;
	bool asked = false;
	int rc = 0;
	if (d->plus && fs->config.attributes == CST_FS_ATTRIBUTES_OBJECT && d->next >= d->known_until) {
		rc = ask_attributes(d, &asked, &err);
		if (asked || rc == -EAGAIN)
			return;
	}
	if (rc == 0)
		rc = cst_listing_read(d->listing, d->next, &d->next, &d->wait, add_entry, d, &err);
	if (rc == -EAGAIN) /* d->wait brings us back */
		return;
	if (rc == -ENOENT)
		fs_walk_read(fs, d->handle->inode);
	if (rc == -ENOENT || d->any || d->full)
		rc = 0;
	if (rc < 0) {
		CST_AUTO_BUF prefix = CST_BUF_INIT;
		cst_dir_add_prefix(d->handle->dir, &prefix);
		rc = fs_errno(fs, rc, "can't list", cst_buf_slice(&prefix), &err);
	}
	finish(d, rc);
}

static void page_came(struct cst_listing_wait *wait)
{
	run(cst_container_of(wait, struct dir_call, wait));
}

/* The handle's listing, newer after a rewind, and where in it the offset is. */
static void find_place(struct dir_call *d)
{
	struct fs_handle *h = d->handle;
	pthread_mutex_lock(&h->lock);
	if (h->listing && d->offset == 0 && h->read_on && cst_listing_is_old(h->listing)) {
		cst_listing_close(h->listing);
		h->listing = NULL;
	}
	if (!h->listing)
		h->listing = cst_dir_open(h->dir);
	h->read_on = true;
	d->listing = cst_listing_ref(h->listing);
	pthread_mutex_unlock(&h->lock);
	uint64_t place = d->offset & PLACE_MASK;
	if (place < FIRST_PLACE)
		return;
	d->next =
		cst_listing_resume(d->listing, (size_t)(place - FIRST_PLACE + 1), (uint32_t)(d->offset >> PLACE_BITS));
}

void cst_fs_readdir(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh, uint64_t offset, bool plus)
{
	CST_CHECK(fs, FS_MAGIC);
	struct cst_inode *inode = cst_inode_get(fs->table, node);
	if (!inode || !cst_inode_is_dir(inode)) {
		cst_inode_unref(fs->table, inode);
		fs->host->error(call, inode ? -ENOTDIR : -ESTALE);
		return;
	}
	struct dir_call *d = CST_NEW(struct dir_call);
	d->handle = fs_handle_get(fs, inode, fh);
	d->offset = offset;
	d->plus = plus;
	d->wait.done = page_came;
	pthread_mutex_init(&d->lock, NULL);
	find_place(d);
	fs_wait_arm(&d->w, fs, call, dir_call_leave, dir_call_free);
	if (offset == 0)
		add_dot(d, CST_SLICE("."), inode->ino, 1);
	if (d->offset == 1 && !d->full) {
		char name[CST_INODE_NAME_MAX + 1];
		struct cst_inode *up = cst_inode_place(fs->table, inode, name);
		add_dot(d, CST_SLICE(".."), up ? up->ino : inode->ino, 2);
		cst_inode_unref(fs->table, up);
	}
	/* "." alone is an answer too, but programs that look for the first name would come back at once. */
	if (d->full)
		finish(d, 0);
	else
		run(d);
	fs_wait_started(&d->w);
	cst_inode_unref(fs->table, inode);
}

/* The kernel fills its cache of a directory while somebody reads it, and drops it at an open that doesn't say to keep it. */
static unsigned kernel_flags(struct cst_fs *fs, struct cst_inode *inode)
{
	int64_t now = fs->config.clock();
	if (fs->config.kernel_list_ttl <= 0)
		return 0;
	cst_inode_lock(fs->table, inode);
	struct cst_inode_more *more = cst_inode_more(inode);
	bool keep = more->kernel_listed > 0 && now - more->kernel_listed < fs->config.kernel_list_ttl;
	if (!keep)
		more->kernel_listed = now;
	cst_inode_unlock(fs->table, inode);
	return CST_FS_CACHE_DIR | (keep ? CST_FS_KEEP_CACHE : 0);
}

void cst_fs_opendir(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node)
{
	CST_CHECK(fs, FS_MAGIC);
	struct cst_inode *inode = cst_inode_get(fs->table, node);
	if (!inode || !cst_inode_is_dir(inode)) {
		cst_inode_unref(fs->table, inode);
		fs->host->error(call, inode ? -ENOTDIR : -ESTALE);
		return;
	}
	struct fs_handle *h = fs_handle_new(fs, inode, 0);
	uint64_t fh = h->fh;
	unsigned flags = kernel_flags(fs, inode);
	fs_walk_opened(fs, inode);
	/* The listing begins now, so that its first page travels while the kernel asks for it; unless it has the entries already. */
	pthread_mutex_lock(&h->lock);
	if (!(flags & CST_FS_KEEP_CACHE))
		h->listing = cst_dir_open(h->dir);
	pthread_mutex_unlock(&h->lock);
	fs_handle_unref(h);
	if (fs->host->opened(call, fh, flags, 0) == -ENOENT)
		fs_handle_release(fs, node, fh);
	cst_inode_unref(fs->table, inode);
}

void cst_fs_releasedir(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh)
{
	CST_CHECK(fs, FS_MAGIC);
	fs_handle_release(fs, node, fh);
	fs->host->error(call, 0);
}
