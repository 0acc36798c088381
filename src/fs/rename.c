/* Renaming: a copy, then a removal; object stores know no other way. Until the copy is whole the old name is what there is; between the two both
 * names exist, also when the removal fails: nothing is lost. Directories are in tree.c.
 *
 * The file and what has its new name are each renamed in their turn: no publication runs meanwhile. A file that is being written is published
 * first; one that was never published has nothing to copy, and only gets another key. */
#define CST_LOG_AREA "fs"
#include "fs/writing.h"

static void try_rename(struct fs_rename *r);

static void rename_free(struct fs_change *c)
{
	struct fs_rename *r = cst_container_of(c, struct fs_rename, c);
	struct cst_fs *fs = c->w.fs;
	if (r->writer)
		fs_writer_unref(r->writer);
	if (r->file)
		fs_file_put(fs, r->inode, r->file);
	if (r->target_file)
		fs_file_put(fs, r->target, r->target_file);
	cst_inode_unref(fs->table, r->inode);
	cst_inode_unref(fs->table, r->target);
	cst_inode_unref(fs->table, r->to_parent);
	cst_entry_fini(&r->entry);
	fs_copy_fini(&r->copy);
	free(r);
}

static void give_turns(struct fs_rename *r)
{
	if (!r->turns)
		return;
	r->turns = false;
	if (r->target_file)
		fs_turn_give(r->target_file);
	fs_turn_give(r->file);
}

void fs_rename_done(struct fs_rename *r, int rc)
{
	struct cst_fs *fs = r->c.w.fs;
	if (r->target_file)
		fs_file_removing(fs, r->target_file, false);
	struct cst_fs_call *call = fs_change_answer(&r->c);
	if (call)
		fs->host->error(call, rc);
	give_turns(r);
	fs_change_end(&r->c);
}

static void fail(struct fs_rename *r, int rc, const char *what, const struct cst_error *err)
{
	struct cst_fs *fs = r->c.w.fs;
	CST_AUTO_BUF key = CST_BUF_INIT;
	fs_key_of(fs, r->c.parent, r->c.name, &key);
	if (rc == -ESTALE || rc == -ENOENT) { /* somebody else has changed it: whoever looks it up again finds that */
		fs_doubt(fs, r->inode);
		rc = -ESTALE;
	}
	fs_rename_done(r, fs_write_errno(fs, rc, what, cst_buf_slice(&key), err));
}

/* ---- the names here ---- */

/* A file that had the new name and is being written goes on without one. */
static void end_target(struct fs_rename *r)
{
	struct fs_writer *w = NULL;
	if (!r->target_file)
		return;
	pthread_mutex_lock(&r->target_file->lock);
	w = r->target_file->writer;
	if (w)
		fs_writer_ref(w);
	pthread_mutex_unlock(&r->target_file->lock);
	if (!w)
		return;
	fs_writer_unlink(w);
	fs_writer_unref(w);
}

/* False: its place had been taken from it; then the new name is told by the directory alone. */
static bool move_inode(struct fs_rename *r, int64_t at)
{
	struct cst_fs *fs = r->c.w.fs;
	int64_t rc = cst_inode_rename(fs->table, r->inode, r->to_parent, r->to_name, at);
	cst_dir_put_gone(r->c.dir, r->c.name, at);
	fs_missed(fs, r->c.parent, r->c.name, at);
	if (fs->absent) {
		CST_AUTO_BUF prefix = CST_BUF_INIT;
		fs_dir_prefix(fs, r->to_parent, &prefix);
		cst_absent_drop(fs->absent, cst_buf_slice(&prefix), r->to_name);
	}
	return rc >= 0;
}

static struct fs_writer *writer_of(struct fs_rename *r)
{
	pthread_mutex_lock(&r->file->lock);
	struct fs_writer *w = r->file->writer;
	if (w)
		fs_writer_ref(w);
	pthread_mutex_unlock(&r->file->lock);
	return w;
}

static void names_moved(struct fs_rename *r, const struct cst_object_info *info)
{
	struct cst_fs *fs = r->c.w.fs;
	int64_t at = fs->config.clock();
	end_target(r);
	struct fs_writer *w = writer_of(r); /* one that opened it meanwhile, too */
	if (move_inode(r, at)) {
		fs_adopt(fs, r->inode, r->file, info, w != NULL);
	} else {
		CST_AUTO_ENTRY entry = CST_ENTRY_INIT;
		cst_entry_from_info(&entry, info, false, at);
		cst_dir_put(fs_dir_of(fs, r->to_parent), r->to_name, &entry, false);
	}
	if (!w)
		return;
	struct cst_publish_base base = {.exists = true, .type = info->type, .size = info->size};
	memcpy(base.etag, info->etag, sizeof(base.etag));
	if (fs_writer_move(w, &base) < 0)
		fs_write_refused(fs, r->inode,
				 "it was renamed while it was written: what is written from now on can't be published");
	fs_writer_unref(w);
}

/* ---- steps ---- */

static void removed(void *arg, const struct cst_object_written *written)
{
	struct fs_rename *r = arg;
	struct cst_fs *fs = r->c.w.fs;
	if (written->rc < 0 && written->rc != -ENOENT) {
		/* The copy is there, under the new name; the old one is still there. */
		CST_AUTO_ENTRY entry = CST_ENTRY_INIT;
		cst_entry_from_info(&entry, &r->copied, false, fs->config.clock());
		end_target(r);
		fs_gone(fs, r->to_parent, r->to_name, entry.at);
		cst_dir_put(fs_dir_of(fs, r->to_parent), r->to_name, &entry, false);
		fs_doubt(fs, r->inode); /* it may be gone, and the answer was lost */
		fail(r, written->rc, "copied, but can't remove the old name of", written->err);
		return;
	}
	names_moved(r, &r->copied);
	fs_rename_done(r, 0);
}

static void copied(struct fs_copy *copy, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct fs_rename *r = cst_container_of(copy, struct fs_rename, copy);
	struct cst_fs *fs = r->c.w.fs;
	if (rc < 0) {
		if (rc == -EEXIST)
			cst_dir_doubt(fs_dir_of(fs, r->to_parent), r->to_name);
		fail(r, rc, "can't rename", err);
		return;
	}
	r->copied = (struct cst_object_info){.size = info->size, .mtime = info->mtime, .type = r->entry.type};
	memcpy(r->copied.etag, info->etag, sizeof(info->etag));
	if (r->copied.type == CST_OBJECT_APPENDABLE) /* its copy is none */
		r->copied.type = CST_OBJECT_NORMAL;
	bool checks = cst_bucket_has_if_match(fs->config.bucket) && r->copy.etag[0];
	cst_object_release(cst_object_delete(fs->config.bucket, cst_buf_slice(&r->copy.from),
					     checks ? r->copy.etag : NULL, removed, r));
}

static void start_copy(struct fs_rename *r)
{
	struct cst_fs *fs = r->c.w.fs;
	CST_AUTO_ENTRY now = CST_ENTRY_INIT;
	cst_inode_entry(fs->table, r->inode, &now);
	r->copy.bucket = fs->config.bucket;
	r->copy.done = copied;
	r->copy.size = now.size;
	memcpy(r->copy.etag, now.etag, sizeof(now.etag));
	if (r->flags & RENAME_NOREPLACE)
		r->copy.condition = CST_OBJECT_IF_ABSENT;
	fs_key_of(fs, r->c.parent, r->c.name, &r->copy.from);
	fs_key_of(fs, r->to_parent, r->to_name, &r->copy.to);
	fs_copy_start(&r->copy);
}

/* Never published: what is in the stream goes to another key. False: it has parts under way, or what it replaces isn't known, and must be published first. */
static bool move_fresh(struct fs_rename *r)
{
	struct cst_fs *fs = r->c.w.fs;
	struct cst_publish_base base = {0};
	CST_AUTO_ENTRY there = CST_ENTRY_INIT;
	CST_AUTO_BUF key = CST_BUF_INIT;
	int64_t at = fs->config.clock();
	int known = r->target_fresh ? -ENOENT
				    : fs_known_of(fs, r->to_parent, fs_dir_of(fs, r->to_parent), r->to_name, &there);
	if (known == -EAGAIN && there.kind != CST_KIND_NONE) /* nobody knows any more which version it would replace */
		return false;
	if (known == 0)
		base = fs_base_of(&there);
	fs_key_of(fs, r->to_parent, r->to_name, &key);
	if (cst_publish_stream_move(r->writer->stream, cst_buf_slice(&key), &base) < 0)
		return false;
	fs_writer_set_base(r->writer, &base);
	end_target(r);
	if (move_inode(r, at))
		fs_writer_begin(r->writer);
	fs_rename_done(r, 0);
	return true;
}

static void source_published(struct fs_sync *sync, int rc)
{
	struct fs_rename *r = cst_container_of(sync, struct fs_rename, sync);
	if (rc < 0)
		fs_rename_done(r, rc);
	else
		try_rename(r);
}

/* Outside of a turn: a publication needs it. */
static void publish_first(struct fs_rename *r)
{
	struct fs_writer *w = r->writer;
	give_turns(r);
	r->sync.done = source_published;
	int rc = fs_writer_sync(w, &r->sync, false);
	if (rc == 1)
		rc = -EBUSY;
	if (rc != 0)
		fs_rename_done(r, rc);
}

static void have_turns(struct fs_rename *r)
{
	r->turns = true;
	if (r->writer)
		fs_writer_unref(cst_steal(r->writer));
	r->writer = writer_of(r);
	struct fs_writer *w = r->writer;
	r->target_fresh = false;
	if (r->target_file) {
		pthread_mutex_lock(&r->target_file->lock);
		r->target_fresh = r->target_file->writer && r->target_file->writer->fresh;
		pthread_mutex_unlock(&r->target_file->lock);
	}
	bool fresh = false, pending = false;
	if (w) {
		pthread_mutex_lock(&r->file->lock);
		fresh = w->fresh && !w->unlinked;
		pending = w->changes > w->synced && !w->unlinked;
		pthread_mutex_unlock(&r->file->lock);
	}
	if (fresh && move_fresh(r))
		return;
	if (fresh || pending)
		publish_first(r);
	else
		start_copy(r);
}

static void second_turn(struct fs_turn *turn)
{
	have_turns(cst_container_of(turn, struct fs_rename, target_turn));
}

static void second_turn_is_first(struct fs_turn *turn)
{
	have_turns(cst_container_of(turn, struct fs_rename, turn));
}

static void first_turn(struct fs_turn *turn)
{
	struct fs_rename *r = cst_container_of(turn, struct fs_rename, turn);
	r->target_turn.ready = second_turn;
	fs_turn_take(r->target_file, &r->target_turn);
}

static void first_turn_is_second(struct fs_turn *turn)
{
	struct fs_rename *r = cst_container_of(turn, struct fs_rename, target_turn);
	r->turn.ready = second_turn_is_first;
	fs_turn_take(r->file, &r->turn);
}

/* Two turns are always taken in the order of the nodes. */
static void try_rename(struct fs_rename *r)
{
	if (!r->target_file) {
		r->turn.ready = second_turn_is_first;
		fs_turn_take(r->file, &r->turn);
	} else if (r->inode->node < r->target->node) {
		r->turn.ready = first_turn;
		fs_turn_take(r->file, &r->turn);
	} else {
		r->target_turn.ready = first_turn_is_second;
		fs_turn_take(r->target_file, &r->target_turn);
	}
}

static void source_found(struct fs_change *c, int rc, const struct cst_entry *entry)
{
	struct fs_rename *r = cst_container_of(c, struct fs_rename, c);
	struct cst_fs *fs = c->w.fs;
	CST_AUTO_ENTRY there = CST_ENTRY_INIT;
	if (rc < 0) {
		fs_rename_done(r, rc);
		return;
	}
	r->entry = *entry;
	r->entry.attr = cst_object_attr_ref(entry->attr);
	r->inode = fs_enter(fs, c->parent, c->name, entry, 0);
	r->target = cst_inode_find(fs->table, r->to_parent, r->to_name);
	int known = fs_known_of(fs, r->to_parent, fs_dir_of(fs, r->to_parent), r->to_name, &there);
	bool is_dir = entry->kind == CST_KIND_DIR;
	if (known == 0 && r->flags & RENAME_NOREPLACE)
		rc = -EEXIST;
	else if (known == 0 && is_dir && there.kind != CST_KIND_DIR)
		rc = -ENOTDIR;
	else if (known == 0 && !is_dir && there.kind == CST_KIND_DIR)
		rc = -EISDIR;
	if (rc < 0) {
		fs_rename_done(r, rc);
		return;
	}
	if (is_dir) {
		fs_rename_tree(r);
		return;
	}
	r->file = fs_file_get(fs, r->inode);
	if (r->target == r->inode) { /* found under the new name already */
		cst_inode_unref(fs->table, cst_steal(r->target));
	} else if (r->target) {
		r->target_file = fs_file_get(fs, r->target);
		fs_file_removing(fs, r->target_file, true);
	}
	try_rename(r);
}

void cst_fs_rename(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, uint64_t new_parent,
		   const char *new_name, uint32_t flags)
{
	struct cst_inode *from = NULL, *to = NULL;
	if (!fs_may_write(fs, call, "renaming was"))
		return;
	int rc = flags & ~(uint32_t)RENAME_NOREPLACE ? -EINVAL : fs_parent_of(fs, parent, name, &from);
	if (rc == 0)
		rc = fs_parent_of(fs, new_parent, new_name, &to);
	if (rc < 0 || (parent == new_parent && strcmp(name, new_name) == 0)) {
		cst_inode_unref(fs->table, from);
		cst_inode_unref(fs->table, to);
		fs->host->error(call, rc);
		return;
	}
	struct fs_rename *r = CST_NEW(struct fs_rename);
	r->to_parent = to;
	snprintf(r->to_name, sizeof(r->to_name), "%s", new_name);
	r->flags = flags;
	fs_change_begin(&r->c, fs, call, from, name, to, rename_free);
	fs_change_find(&r->c, source_found);
	fs_change_started(&r->c);
	cst_inode_unref(fs->table, from);
}
