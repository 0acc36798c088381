/* Removing files and directories. */
#define CST_LOG_AREA "fs"
#include "fs/writing.h"

struct remove_call {
	struct fs_change c;
	struct cst_inode *inode; /* counted; NULL: never seen */
	struct fs_file *file;	 /* counted */
	struct fs_turn turn;
	struct fs_writer *writer; /* counted, or NULL */
	struct cst_buf key;
	/* directories */
	bool marker, marked; /* marked: by a page before the one that comes */
	unsigned others;
};

static void remove_free(struct fs_change *c)
{
	struct remove_call *r = cst_container_of(c, struct remove_call, c);
	struct cst_fs *fs = c->w.fs;
	if (r->writer)
		fs_writer_unref(r->writer);
	if (r->file)
		fs_file_put(fs, r->inode, r->file);
	cst_inode_unref(fs->table, r->inode);
	cst_buf_fini(&r->key);
	free(r);
}

static void remove_begin(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name,
			 void (*found)(struct fs_change *c, int rc, const struct cst_entry *entry))
{
	struct cst_inode *dir = NULL;
	int rc = fs_parent_of(fs, parent, name, &dir);
	if (rc < 0) {
		fs->host->error(call, rc);
		return;
	}
	struct remove_call *r = CST_NEW(struct remove_call);
	fs_change_begin(&r->c, fs, call, dir, name, NULL, remove_free);
	fs_change_find(&r->c, found);
	fs_change_started(&r->c);
	cst_inode_unref(fs->table, dir);
}

/* ---- files ---- */

static void unlink_end(struct remove_call *r, int rc, const struct cst_error *err)
{
	struct cst_fs *fs = r->c.w.fs;
	struct fs_file *file = r->file;
	if (rc == 0) {
		if (file) { /* opened while the request was under way */
			pthread_mutex_lock(&file->lock);
			if (!r->writer && file->writer) {
				r->writer = file->writer;
				fs_writer_ref(r->writer);
			}
			pthread_mutex_unlock(&file->lock);
		}
		if (r->writer)
			fs_writer_unlink(r->writer);
		fs_removed(fs, r->c.parent, r->c.name, fs->config.clock());
	} else { /* perhaps it was, and the answer was lost */
		if (r->inode)
			fs_doubt(fs, r->inode);
		else
			cst_dir_doubt(r->c.dir, r->c.name);
		rc = fs_write_errno(fs, rc, "can't remove", cst_buf_slice(&r->key), err);
	}
	if (file)
		fs_file_removing(fs, file, false);
	struct cst_fs_call *call = fs_change_answer(&r->c);
	if (call)
		fs->host->error(call, rc);
	if (file)
		fs_turn_give(file);
	fs_change_end(&r->c);
}

static void unlinked(void *arg, const struct cst_object_written *written)
{
	unlink_end(arg, written->rc, written->err);
}

static void unlink_ready(struct fs_turn *turn)
{
	struct remove_call *r = cst_container_of(turn, struct remove_call, turn);
	struct cst_fs *fs = r->c.w.fs;
	bool fresh = false;
	if (r->file) {
		pthread_mutex_lock(&r->file->lock);
		struct fs_writer *w = r->file->writer;
		if (w) {
			r->writer = w;
			fs_writer_ref(w);
		}
		fresh = w && w->fresh && !w->failed;
		pthread_mutex_unlock(&r->file->lock);
	}
	if (fresh)
		unlink_end(r, 0, NULL);
	else
		cst_object_release(cst_object_delete(fs->config.bucket, cst_buf_slice(&r->key), NULL, unlinked, r));
}

static void unlink_found(struct fs_change *c, int rc, const struct cst_entry *entry)
{
	struct remove_call *r = cst_container_of(c, struct remove_call, c);
	struct cst_fs *fs = c->w.fs;
	if (rc == 0 && entry->kind == CST_KIND_DIR)
		rc = -EISDIR;
	if (rc < 0) {
		fs_change_fail(c, rc);
		return;
	}
	fs_key_of(fs, c->parent, c->name, &r->key);
	r->inode = cst_inode_find(fs->table, c->parent, c->name);
	r->turn.ready = unlink_ready;
	if (r->inode) {
		r->file = fs_file_get(fs, r->inode);
		fs_file_removing(fs, r->file, true);
		fs_turn_take(r->file, &r->turn);
	} else {
		unlink_ready(&r->turn);
	}
}

void cst_fs_unlink(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name)
{
	if (fs_may_write(fs, call, "removing a file was"))
		remove_begin(fs, call, parent, name, unlink_found);
}

/* ---- directories ---- */

static void rmdir_end(struct remove_call *r, int rc, const struct cst_error *err)
{
	struct cst_fs *fs = r->c.w.fs;
	if (rc == 0)
		fs_removed(fs, r->c.parent, r->c.name, fs->config.clock());
	else if (rc != -ENOTEMPTY)
		cst_dir_doubt(r->c.dir, r->c.name);
	if (rc < 0)
		rc = fs_write_errno(fs, rc, "can't remove the directory", cst_buf_slice(&r->key), err);
	fs_change_fail(&r->c, rc);
}

static void marker_removed(void *arg, const struct cst_object_written *written)
{
	rmdir_end(arg, written->rc, written->err);
}

static void remove_marker(struct remove_call *r)
{
	cst_object_release(
		cst_object_delete(r->c.w.fs->config.bucket, cst_buf_slice(&r->key), NULL, marker_removed, r));
}

#define FOLDER "_$folder$"

/* An object of that name with bytes in it is a file. */
static void folder_asked(void *arg, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct remove_call *r = arg;
	if (rc == 0 && info->size == 0)
		remove_marker(r);
	else
		rmdir_end(r, rc == -ENOENT ? 0 : rc, err);
}

static void below_entry(void *arg, const struct cst_object_list_entry *entry)
{
	struct remove_call *r = arg;
	if (cst_slice_eq(entry->info.key, cst_buf_slice(&r->key)))
		r->marker = true;
	else
		r->others++;
}

static void below_restart(void *arg)
{
	struct remove_call *r = arg;
	r->marker = r->marked;
	r->others = 0;
}

static void list_below(struct remove_call *r, struct cst_slice token);

static void below_done(void *arg, int rc, const struct cst_object_list_page *page, const struct cst_error *err)
{
	struct remove_call *r = arg;
	struct cst_fs *fs = r->c.w.fs;
	if (rc == 0 && r->others > 0)
		rc = -ENOTEMPTY;
	if (rc < 0) {
		rmdir_end(r, rc, err);
	} else if (page->truncated) { /* a page may come without keys, or with the marker alone, and more after it */
		list_below(r, page->next_token);
	} else if (r->marker) {
		remove_marker(r);
	} else { /* the other kind of marker, if any */
		r->key.len--;
		cst_buf_add_str(&r->key, FOLDER);
		cst_object_release(cst_object_head(fs->config.bucket, cst_buf_slice(&r->key), true, folder_asked, r));
	}
}

static void list_below(struct remove_call *r, struct cst_slice token)
{
	static const struct cst_object_list_ops ops = {below_entry, below_restart, below_done};
	r->marked = r->marker;
	cst_object_release(cst_object_list(
		r->c.w.fs->config.bucket,
		&(struct cst_object_list){.prefix = cst_buf_slice(&r->key), .token = token, .max_keys = 2}, &ops, r));
}

/* The store says whether it is empty: what is known here may be old. */
static void rmdir_found(struct fs_change *c, int rc, const struct cst_entry *entry)
{
	struct remove_call *r = cst_container_of(c, struct remove_call, c);
	struct cst_fs *fs = c->w.fs;
	if (rc == 0 && entry->kind != CST_KIND_DIR)
		rc = -ENOTDIR;
	if (rc == 0) {
		r->inode = cst_inode_find(fs->table, c->parent, c->name);
		if (r->inode && fs_writers_below(fs, r->inode, NULL) != FS_BELOW_NONE)
			rc = -ENOTEMPTY;
	}
	if (rc < 0) {
		fs_change_fail(c, rc);
		return;
	}
	fs_key_of(fs, c->parent, c->name, &r->key);
	cst_buf_add_char(&r->key, '/');
	list_below(r, CST_SLICE(""));
}

void cst_fs_rmdir(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name)
{
	if (fs_may_write(fs, call, "removing a directory was"))
		remove_begin(fs, call, parent, name, rmdir_found);
}
