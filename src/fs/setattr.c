/* Changing sizes; other attributes are taken and not kept, as objects written in this mode carry none. */
#define CST_LOG_AREA "fs"
#include "fs/writing.h"

#include <fcntl.h>
#include <inttypes.h>

struct truncate_call {
	struct fs_change c;
	struct cst_inode *inode; /* counted */
	struct fs_file *file;	 /* counted */
	struct fs_turn turn;
	struct fs_end_wait ended;
	struct fs_sync sync;
	struct fs_writer *writer; /* counted */
};

static void try_truncate(struct truncate_call *t);

static void truncate_free(struct fs_change *c)
{
	struct truncate_call *t = cst_container_of(c, struct truncate_call, c);
	struct cst_fs *fs = c->w.fs;
	if (t->writer)
		fs_writer_unref(t->writer);
	if (t->file)
		fs_file_put(fs, t->inode, t->file);
	cst_inode_unref(fs->table, t->inode);
	free(t);
}

static void reply_attr(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *inode)
{
	struct cst_fs_attr attr;
	attr.ttl = fs_fill_stat(fs, inode, &attr.st);
	fs->host->attr(call, &attr);
}

static void truncate_end(struct truncate_call *t, int rc)
{
	struct cst_fs *fs = t->c.w.fs;
	struct cst_fs_call *call = fs_change_answer(&t->c);
	if (call && rc < 0)
		fs->host->error(call, rc);
	else if (call)
		reply_attr(fs, call, t->inode);
	fs_change_end(&t->c);
}

/* By the one who writes it: published with what comes after it. */
static void truncate_ready(struct fs_turn *turn)
{
	struct truncate_call *t = cst_container_of(turn, struct truncate_call, turn);
	struct fs_writer *w = t->writer;
	struct fs_file *file = t->file;
	pthread_mutex_lock(&file->lock);
	int rc = w->failed;
	/* While the turn was waited for it may have ended: then nobody writes the file. */
	bool ended = file->writer != w || w->closing, unlinked = w->unlinked;
	pthread_mutex_unlock(&file->lock);
	if (rc == 0 && !ended && !unlinked)
		fs_writer_truncate(w);
	fs_writer_ref(w); /* keeps the file */
	if (rc == 0 && ended) {
		fs_writer_unref(cst_steal(t->writer));
		try_truncate(t);
	} else {
		truncate_end(t, rc);
	}
	fs_turn_give(file);
	fs_writer_unref(w);
}

static void truncated(struct fs_sync *sync, int rc)
{
	truncate_end(cst_container_of(sync, struct truncate_call, sync), rc);
}

static void writer_ended(struct fs_end_wait *wait)
{
	try_truncate(cst_container_of(wait, struct truncate_call, ended));
}

/* Nobody has it open for writing: written empty now. */
static void truncate_closed(struct truncate_call *t, struct fs_writer *w)
{
	struct fs_file *file = fs_file_get(t->c.w.fs, t->inode);
	struct cst_inode *inode = cst_inode_ref(t->c.w.fs->table, t->inode);
	struct cst_fs *fs = t->c.w.fs;
	fs_writer_begin(w);
	t->sync.done = truncated;
	fs_writer_ref(w);
	int rc = fs_writer_sync(w, &t->sync, false);
	if (rc != 0)
		truncated(&t->sync, cst_min(rc, 0));
	fs_writer_close(w, false);
	fs_writer_unref(w);
	fs_file_put(fs, inode, file);
	cst_inode_unref(fs->table, inode);
}

static void try_truncate(struct truncate_call *t)
{
	struct cst_fs *fs = t->c.w.fs;
	struct fs_file *file = t->file;
	struct fs_writer *w = NULL, *made = NULL;
	bool aside = false, moving = false;
	CST_AUTO_ENTRY version = CST_ENTRY_INIT;
	pthread_mutex_lock(&file->lock);
	if (file->writer && !file->writer->closing) {
		w = file->writer;
		fs_writer_ref(w);
	} else if (file->writer) {
		pthread_mutex_lock(&fs->writers_lock);
		TAILQ_INSERT_TAIL(&fs->end_waits, &t->ended, link);
		pthread_mutex_unlock(&fs->writers_lock);
	} else if (file->mode == FS_MODE_CACHED || file->mode == FS_MODE_PASSTHROUGH) {
		aside = true;
	} else {
		cst_inode_entry(fs->table, t->inode, &version);
		made = fs_writer_new_locked(fs, t->inode, file, &version, true);
		moving = !made;
		if (made) /* nobody has it open: opens wait for its end */
			made->closing = true;
	}
	pthread_mutex_unlock(&file->lock);
	if (w) {
		t->writer = w;
		t->turn.ready = truncate_ready;
		fs_turn_take(file, &t->turn);
	} else if (aside) { /* as an open for writing: the name leads to another inode now */
		cst_inode_set_aside(fs->table, t->inode);
		truncate_end(t, -ESTALE);
	} else if (made) {
		truncate_closed(t, made);
	} else if (moving) {
		truncate_end(t, -EBUSY);
	}
}

static uint64_t size_of(struct cst_fs *fs, struct cst_inode *inode)
{
	struct stat st;
	fs_fill_stat(fs, inode, &st);
	return (uint64_t)st.st_size;
}

static void truncate_checked(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *inode, int rc)
{
	if (rc < 0) {
		fs->host->error(call, rc);
		return;
	}
	if (size_of(fs, inode) == 0) {
		reply_attr(fs, call, inode);
		return;
	}
	struct truncate_call *t = CST_NEW(struct truncate_call);
	t->inode = cst_inode_ref(fs->table, inode);
	t->file = fs_file_get(fs, inode);
	t->ended.ready = writer_ended;
	fs_change_begin(&t->c, fs, call, NULL, NULL, NULL, truncate_free);
	try_truncate(t);
	fs_change_started(&t->c);
}

static void set_size(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *inode, uint64_t size)
{
	if (inode->kind != CST_KIND_FILE) {
		fs->host->error(call, cst_inode_is_dir(inode) ? -EISDIR : -EINVAL);
	} else if (size == 0) {
		fs_check_version(fs, call, inode, !fs_is_held(fs, inode), truncate_checked);
	} else if (size == size_of(fs, inode)) {
		reply_attr(fs, call, inode);
	} else {
		fs_write_refused(fs, inode,
				 "setting the size from %" PRIu64 " to %" PRIu64
				 " is refused: with write=append a file can only be emptied; write=full can do this",
				 size_of(fs, inode), size);
		fs->host->error(call, -EINVAL);
	}
}

void cst_fs_setattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, const struct cst_fs_setattr *set)
{
	if (!fs_may_write(fs, call, "changing attributes was"))
		return;
	struct cst_inode *inode = cst_inode_get(fs->table, node);
	if (!inode)
		fs->host->error(call, -ESTALE);
	else if (set->valid & CST_FS_SET_SIZE)
		set_size(fs, call, inode, set->size);
	else
		reply_attr(fs, call, inode);
	cst_inode_unref(fs->table, inode);
}

void cst_fs_setxattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, const char *name,
		     struct cst_slice value, uint32_t flags)
{
	(void)node, (void)name, (void)value, (void)flags;
	if (fs_may_write(fs, call, "setting an extended attribute was"))
		fs->host->error(call, -ENOTSUP);
}

void cst_fs_removexattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, const char *name)
{
	(void)node, (void)name;
	if (fs_may_write(fs, call, "removing an extended attribute was"))
		fs->host->error(call, -ENOTSUP);
}
