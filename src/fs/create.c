/* Making files and directories.
 *
 * A new file costs nothing until its first publication, which is conditional: what somebody else made under its name meanwhile is not overwritten. A
 * new directory is an empty object "name/". Names that are known not to be there, or were not a moment ago, are not asked for. */
#define CST_LOG_AREA "fs"
#include "fs/writing.h"

#include <fcntl.h>

enum made { MADE_OPEN, MADE_NODE, MADE_DIR };

struct create_call {
	struct fs_change c;
	enum made what;
	uint32_t flags;
	struct fs_sync sync;
	struct cst_inode *inode; /* counted */
};

static void create_free(struct fs_change *c)
{
	struct create_call *m = cst_container_of(c, struct create_call, c);
	cst_inode_unref(c->w.fs->table, m->inode);
	free(m);
}

/* The inode of what this call makes, with a lookup for its reply. */
static struct cst_inode *enter_made(struct create_call *m, enum cst_kind kind)
{
	struct cst_fs *fs = m->c.w.fs;
	CST_AUTO_ENTRY entry = {
		.kind = kind,
		.mtime = kind == CST_KIND_FILE ? cst_wall() / CST_NS_PER_S : 0,
		.at = fs->config.clock(),
		.attr = fs->config.attributes == CST_FS_ATTRIBUTES_OBJECT ? cst_object_attr_none() : NULL,
	};
	if (kind == CST_KIND_DIR)
		cst_dir_put(m->c.dir, m->c.name, &entry, false);
	return fs_enter(fs, m->c.parent, m->c.name, &entry, 1);
}

/* A writer of a file that nobody has open. NULL: somebody was quicker. */
static struct fs_writer *begin_writing(struct create_call *m, struct fs_file *file, bool handle)
{
	struct fs_writer *w = NULL;
	pthread_mutex_lock(&file->lock);
	if (!file->writer && file->mode == FS_MODE_NONE) {
		w = fs_writer_new_locked(m->c.w.fs, m->inode, file, NULL, false);
		if (w && !handle) {
			w->closing = true; /* opens wait for its end */
		} else if (w) {
			file->mode = FS_MODE_WRITING;
			file->handles++;
		}
	}
	pthread_mutex_unlock(&file->lock);
	if (w)
		fs_writer_begin(w);
	return w;
}

/* Owns the file's reference. */
static void reply_created(struct create_call *m, struct fs_file *file, struct fs_writer *w)
{
	struct cst_fs *fs = m->c.w.fs;
	struct cst_fs_entry entry;
	uint64_t node = m->inode->node;
	struct fs_handle *h = fs_handle_new_file(fs, m->inode, file, false, w, m->flags & O_APPEND);
	uint64_t fh = h->fh;
	fs_handle_unref(h);
	__atomic_fetch_add(&fs->opens_direct, 1, __ATOMIC_RELAXED);
	fs_fill_entry(fs, m->inode, &entry);
	struct cst_fs_call *call = fs_change_answer(&m->c);
	if (!call || fs->host->created(call, &entry, fh, CST_FS_DIRECT_IO, 0) == -ENOENT) {
		cst_inode_forget(fs->table, node, 1);
		fs_handle_untaken(fs, node, fh);
	}
	fs_change_end(&m->c);
}

static void reply_entry(struct create_call *m)
{
	struct cst_fs *fs = m->c.w.fs;
	struct cst_fs_entry entry;
	uint64_t node = m->inode->node;
	fs_fill_entry(fs, m->inode, &entry);
	struct cst_fs_call *call = fs_change_answer(&m->c);
	if (!call || fs->host->entry(call, &entry) == -ENOENT)
		cst_inode_forget(fs->table, node, 1);
	fs_change_end(&m->c);
}

static void node_published(struct fs_sync *sync, int rc)
{
	struct create_call *m = cst_container_of(sync, struct create_call, sync);
	if (rc < 0) {
		cst_inode_forget(m->c.w.fs->table, m->inode->node, 1);
		fs_change_fail(&m->c, rc == -ESTALE ? -EEXIST : rc);
	} else {
		reply_entry(m);
	}
}

static void make_file(struct create_call *m)
{
	struct cst_fs *fs = m->c.w.fs;
	m->inode = enter_made(m, CST_KIND_FILE);
	struct fs_file *file = fs_file_get(fs, m->inode);
	struct fs_writer *w = begin_writing(m, file, m->what == MADE_OPEN);
	if (w && m->what == MADE_OPEN) {
		reply_created(m, file, w);
		return;
	}
	if (!w) {
		cst_inode_forget(fs->table, m->inode->node, 1);
		fs_file_put(fs, m->inode, file);
		fs_change_fail(&m->c, -EBUSY);
		return;
	}
	/* Without a handle: it ends when it is there. */
	struct cst_inode *inode = cst_inode_ref(fs->table, m->inode);
	m->sync.done = node_published;
	fs_writer_ref(w);
	int rc = fs_writer_sync(w, &m->sync, false);
	if (rc != 0)
		node_published(&m->sync, cst_min(rc, 0));
	fs_writer_close(w, false);
	fs_writer_unref(w);
	fs_file_put(fs, inode, file);
	cst_inode_unref(fs->table, inode);
}

static void dir_made(void *arg, const struct cst_object_written *written)
{
	struct create_call *m = arg;
	struct cst_fs *fs = m->c.w.fs;
	CST_AUTO_BUF key = CST_BUF_INIT;
	int rc = written->rc;
	if (rc == -EEXIST && written->repeated) /* it may be our own, and they are all the same */
		rc = 0;
	if (rc == 0) {
		m->inode = enter_made(m, CST_KIND_DIR);
		cst_dir_set_empty(fs_dir_of(fs, m->inode));
		reply_entry(m);
		return;
	}
	fs_key_of(fs, m->c.parent, m->c.name, &key);
	cst_dir_doubt(m->c.dir, m->c.name); /* somebody else's, or our own, whose answer was lost */
	fs_change_fail(&m->c, fs_write_errno(fs, rc, "can't make the directory", cst_buf_slice(&key), written->err));
}

static void make_dir(struct create_call *m)
{
	static const struct cst_object_properties properties = {.content_type = {"application/x-directory", 23}};
	struct cst_fs *fs = m->c.w.fs;
	CST_AUTO_BUF key = CST_BUF_INIT;
	fs_key_of(fs, m->c.parent, m->c.name, &key);
	cst_buf_add_char(&key, '/');
	cst_object_release(cst_object_put(fs->config.bucket,
					  &(struct cst_object_put){.key = cst_buf_slice(&key),
								   .condition = CST_OBJECT_IF_ABSENT,
								   .properties = &properties},
					  dir_made, m));
}

static void create_found(struct fs_change *c, int rc, const struct cst_entry *entry)
{
	struct create_call *m = cst_container_of(c, struct create_call, c);
	if (rc == 0 && m->what == MADE_OPEN && !(m->flags & O_EXCL)) {
		/* Whoever asked knew of none: it looks the name up again, and opens what it finds. */
		rc = entry->kind == CST_KIND_DIR ? -EISDIR : -ESTALE;
	} else if (rc == 0) {
		rc = -EEXIST;
	}
	if (rc != -ENOENT)
		fs_change_fail(c, rc);
	else if (m->what == MADE_DIR)
		make_dir(m);
	else
		make_file(m);
}

static void create(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, enum made what,
		   uint32_t flags)
{
	struct cst_inode *dir = NULL;
	int rc = fs_parent_of(fs, parent, name, &dir);
	if (rc < 0) {
		fs->host->error(call, rc);
		return;
	}
	struct create_call *m = CST_NEW(struct create_call);
	m->what = what;
	m->flags = flags;
	fs_change_begin(&m->c, fs, call, dir, name, NULL, create_free);
	fs_change_find(&m->c, create_found);
	fs_change_started(&m->c);
	cst_inode_unref(fs->table, dir);
}

void cst_fs_create(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, uint32_t mode,
		   uint32_t flags)
{
	(void)mode; /* objects written so have none */
	if (fs_may_write(fs, call, "creating a file was"))
		create(fs, call, parent, name, MADE_OPEN, flags);
}

void cst_fs_mknod(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, uint32_t mode)
{
	if (!fs_may_write(fs, call, "creating a file was"))
		return;
	if (mode & S_IFMT && !S_ISREG(mode)) {
		fs_write_refused(fs, NULL, "an object store has no devices, pipes and sockets (\"%s\")", name);
		fs->host->error(call, -EPERM);
		return;
	}
	create(fs, call, parent, name, MADE_NODE, 0);
}

void cst_fs_mkdir(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, uint32_t mode)
{
	(void)mode;
	if (fs_may_write(fs, call, "making a directory was"))
		create(fs, call, parent, name, MADE_DIR, 0);
}

void cst_fs_symlink(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, const char *target)
{
	(void)parent;
	if (!fs_may_write(fs, call, "making a symbolic link was"))
		return;
	fs_write_refused(fs, NULL,
			 "symbolic links are not made in this write mode (\"%s\" to \"%s\"); write=full has them", name,
			 target);
	fs->host->error(call, -ENOTSUP);
}
