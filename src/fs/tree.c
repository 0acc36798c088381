/* Renaming a directory: lists all that is below it, copies that, then removes what was copied with one request.
 *
 * So the tree under the old name is whole until all of it is under the new one, and then goes at once: a mount that dies meanwhile leaves both, or
 * copies of some of it under the new name, never a part of it under each. That holds for as many objects as one request removes (1,000):
 * larger trees are refused with EXDEV, which makes mv(1) copy file by file. When a copy fails, those that were made are removed again.
 *
 * Below a directory that is being renamed nothing is written, made, removed or renamed through this mount (EBUSY). */
#define CST_LOG_AREA "fs"
#include "fs/writing.h"

#include "base/text.h"
#include "meta/preload.h"

#include <inttypes.h>

#define COPIES_AT_ONCE 64
#define LIMIT UINT64_C(2000000)

struct tree_item {
	char *suffix; /* of the key, after the prefix */
	uint64_t size;
	char etag[CST_ETAG_MAX];
	bool copied;
};

struct fs_tree {
	struct fs_rename *r;
	struct cst_buf from, to, token; /* prefixes, with their slash */
	struct tree_item *items;
	size_t count, cap, page_start;
	bool target_used, target_marked; /* it has something in it; it has a marker */
	size_t checked;			 /* items that a second listing has found as they were copied */
	size_t page_checked;
	bool changed, page_changed;
	struct fs_moving moving;
	bool is_moving;
	struct fs_end_wait ended;
	pthread_mutex_t lock; /* guards what follows */
	size_t next;
	unsigned running; /* copies, and threads that start some */
	unsigned left;	  /* objects that could not be removed */
	int rc;
	struct cst_error err;
};

struct tree_copy {
	struct fs_copy copy;
	struct fs_tree *tree;
	struct tree_item *item;
};

static void list_page(struct fs_tree *t);

bool fs_is_moving_locked(struct cst_fs *fs, const struct cst_inode *inode)
{
	const struct fs_moving *m;
	TAILQ_FOREACH (m, &fs->moving, link)
		if (m->dir == inode || fs_is_below(fs, inode, m->dir))
			return true;
	return false;
}

bool fs_is_moving(struct cst_fs *fs, struct cst_inode *dir)
{
	pthread_mutex_lock(&fs->writers_lock);
	bool found = fs_is_moving_locked(fs, dir);
	pthread_mutex_unlock(&fs->writers_lock);
	return found;
}

static void stop_moving(struct fs_tree *t)
{
	struct cst_fs *fs = t->r->c.w.fs;
	pthread_mutex_lock(&fs->writers_lock);
	if (t->is_moving)
		TAILQ_REMOVE(&fs->moving, &t->moving, link);
	t->is_moving = false;
	pthread_mutex_unlock(&fs->writers_lock);
}

static void tree_end(struct fs_tree *t, int rc)
{
	struct fs_rename *r = t->r;
	stop_moving(t);
	for (size_t i = 0; i < t->count; i++)
		free(t->items[i].suffix);
	free(t->items);
	cst_buf_fini(&t->from);
	cst_buf_fini(&t->to);
	cst_buf_fini(&t->token);
	pthread_mutex_destroy(&t->lock);
	free(t);
	fs_rename_done(r, rc);
}

static void tree_fail(struct fs_tree *t, int rc, const char *what, const struct cst_error *err)
{
	struct cst_fs *fs = t->r->c.w.fs;
	tree_end(t, fs_write_errno(fs, rc, what, cst_buf_slice(&t->from), err));
}

/* ---- the names here ---- */

struct below {
	struct cst_inode **list;
	size_t count, cap;
};

static void collect(void *arg, struct cst_inode *inode)
{
	struct below *b = arg;
	if (b->count == b->cap) {
		b->cap = b->cap ? b->cap * 2 : 64;
		b->list = cst_xrealloc(b->list, b->cap * sizeof(struct cst_inode *));
	}
	inode->refs++;
	b->list[b->count++] = inode;
}

static void move_dir(struct cst_fs *fs, struct cst_inode *inode)
{
	CST_AUTO_BUF prefix = CST_BUF_INIT;
	fs_dir_prefix(fs, inode, &prefix);
	cst_dir_move(fs_dir_of(fs, inode), cst_buf_slice(&prefix));
	cst_inode_lock(fs->table, inode);
	cst_inode_more(inode)->kernel_listed = 0;
	cst_inode_unlock(fs->table, inode);
}

/* The store says at its next use whether the copy is the same version. */
static void move_file(struct cst_fs *fs, struct cst_inode *inode)
{
	struct fs_file *file = fs_file_get(fs, inode);
	pthread_mutex_lock(&file->lock);
	fs_file_renew(fs, inode, file);
	pthread_mutex_unlock(&file->lock);
	fs_file_put(fs, inode, file);
	cst_inode_lock(fs->table, inode);
	inode->checked = 0;
	cst_inode_unlock(fs->table, inode);
}

static void names_moved(struct fs_tree *t)
{
	struct fs_rename *r = t->r;
	struct cst_fs *fs = r->c.w.fs;
	struct below below = {0};
	int64_t at = fs->config.clock();
	CST_AUTO_ENTRY entry = {.kind = CST_KIND_DIR, .at = at, .attr = cst_object_attr_ref(r->entry.attr)};
	int64_t rc = cst_inode_rename(fs->table, r->inode, r->to_parent, r->to_name, at);
	cst_parked_drop(fs->meta, cst_buf_slice(&t->from)); /* listings that nobody has yet */
	cst_parked_drop(fs->meta, cst_buf_slice(&t->to));
	if (rc >= 0) {
		move_dir(fs, r->inode);
		cst_inode_each_below(fs->table, r->inode, collect, &below);
	}
	for (size_t i = 0; i < below.count; i++) {
		if (cst_inode_is_dir(below.list[i]))
			move_dir(fs, below.list[i]);
		else if (below.list[i]->kind == CST_KIND_FILE)
			move_file(fs, below.list[i]);
		cst_inode_unref(fs->table, below.list[i]);
	}
	free(below.list);
	cst_dir_put_gone(r->c.dir, r->c.name, at);
	cst_dir_put(fs_dir_of(fs, r->to_parent), r->to_name, &entry, false);
	cst_absent_clear(fs->absent, cst_buf_slice(&t->to));
	cst_absent_clear(fs->missed, cst_buf_slice(&t->to));
	if (rc < 0)
		fs_gone(fs, r->c.parent, r->c.name, at);
}

/* ---- removing ---- */

static void one_left(void *arg, struct cst_slice key, int rc, const struct cst_error *err)
{
	struct fs_tree *t = arg;
	t->left++;
	fs_errno(t->r->c.w.fs, rc, "in the course of a rename, can't remove", key, err);
}

/* Whatever is known below it may be otherwise now: the store is asked. */
static void forget_below(struct cst_fs *fs, struct cst_inode *dir)
{
	struct below below = {0};
	CST_AUTO_BUF prefix = CST_BUF_INIT;
	fs_dir_prefix(fs, dir, &prefix);
	cst_parked_drop(fs->meta, cst_buf_slice(&prefix));
	move_dir(fs, dir);
	cst_inode_each_below(fs->table, dir, collect, &below);
	for (size_t i = 0; i < below.count; i++) {
		struct cst_inode *inode = below.list[i];
		if (cst_inode_is_dir(inode))
			move_dir(fs, inode);
		cst_inode_lock(fs->table, inode);
		inode->checked = 0;
		cst_inode_unlock(fs->table, inode);
		cst_inode_unref(fs->table, inode);
	}
	free(below.list);
}

/* A rename that has ended half-way. copies: there are some under the new name. */
static void forget_both(struct fs_tree *t, bool copies)
{
	struct fs_rename *r = t->r;
	struct cst_fs *fs = r->c.w.fs;
	CST_AUTO_ENTRY entry = {
		.kind = CST_KIND_DIR, .at = fs->config.clock(), .attr = cst_object_attr_ref(r->entry.attr)};
	if (copies)
		cst_dir_put(fs_dir_of(fs, r->to_parent), r->to_name, &entry, false);
	fs_doubt(fs, r->inode);
	forget_below(fs, r->inode);
	cst_dir_doubt(fs_dir_of(fs, r->to_parent), r->to_name);
	cst_parked_drop(fs->meta, cst_buf_slice(&t->to));
	cst_absent_clear(fs->absent, cst_buf_slice(&t->to));
	cst_absent_clear(fs->missed, cst_buf_slice(&t->to));
	if (r->target)
		forget_below(fs, r->target);
}

static void log_halves(struct fs_tree *t, const char *what)
{
	CST_AUTO_BUF from = CST_BUF_INIT;
	CST_AUTO_BUF to = CST_BUF_INIT;
	cst_text_printable(&from, cst_buf_slice(&t->from));
	cst_text_printable(&to, cst_buf_slice(&t->to));
	cst_log_error("renaming \"%.*s\" to \"%.*s\" ended half-way: %s", (int)from.len, from.data, (int)to.len,
		      to.data, what);
}

static void remove_copied(struct fs_tree *t, const struct cst_buf *prefix,
			  void (*done)(void *arg, int rc, const struct cst_error *err))
{
	struct cst_object_delete_ops ops = {.failed = one_left, .done = done};
	struct cst_slice keys[CST_OBJECT_DELETE_MAX];
	size_t count = 0;
	for (size_t i = 0; i < t->count; i++) {
		if (!t->items[i].copied || (prefix == &t->to && t->target_marked && !t->items[i].suffix[0]))
			continue;
		char *key =
			cst_xasprintf("%.*s%s", (int)prefix->len, prefix->len ? prefix->data : "", t->items[i].suffix);
		keys[count++] = cst_slice_of(key);
	}
	if (count > 0)
		cst_object_release(cst_object_delete_many(t->r->c.w.fs->config.bucket, keys, count, &ops, t));
	else
		done(t, 0, NULL);
	for (size_t i = 0; i < count; i++)
		free((char *)(uintptr_t)keys[i].data);
}

static void sources_removed(void *arg, int rc, const struct cst_error *err)
{
	struct fs_tree *t = arg;
	if (rc == 0 && t->left == 0) {
		names_moved(t);
		tree_end(t, 0);
		return;
	}
	/* Both are there, or some of the old one: the next look tells. */
	CST_AUTO_FREE char *what = NULL;
	if (rc < 0)
		what = cst_xasprintf(
			"all %zu objects are under the new name, and the same ones, or some of them, under the old one still, "
			"where they can be removed",
			t->count);
	else
		what = cst_xasprintf(
			"all %zu objects are under the new name, and %u of them under the old one still, where they can be "
			"removed",
			t->count, t->left);
	log_halves(t, what);
	forget_both(t, true);
	if (rc < 0)
		tree_fail(t, rc, "copied, but can't remove what was below", err);
	else
		tree_end(t, -EIO);
}

static void copies_removed(void *arg, int rc, const struct cst_error *err)
{
	struct fs_tree *t = arg;
	struct cst_error why = t->err;
	if (rc < 0)
		fs_errno(t->r->c.w.fs, rc, "can't remove the copies of a rename that failed below",
			 cst_buf_slice(&t->to), err);
	if (rc < 0 || t->left > 0)
		log_halves(
			t,
			"everything is under the old name, and copies of some of it under the new one, where they can be removed");
	forget_both(t, rc < 0 || t->left > 0);
	tree_fail(t, t->rc, "can't rename the directory", &why);
}

/* ---- copying ---- */

static void run_copies(struct fs_tree *t);
static void check_page(struct fs_tree *t);

static void item_copied(struct fs_copy *copy, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct tree_copy *one = cst_container_of(copy, struct tree_copy, copy);
	struct fs_tree *t = one->tree;
	(void)info;
	if (rc == -ENOTSUP && copy->condition != CST_OBJECT_ANY) { /* a store that knows none */
		copy->condition = CST_OBJECT_ANY;
		fs_copy_start(copy);
		return;
	}
	pthread_mutex_lock(&t->lock);
	if (rc == 0) {
		one->item->copied = true;
	} else if (rc != -ENOENT && t->rc == 0) { /* one that somebody has removed meanwhile is not missed */
		t->rc = rc == -ESTALE ? -EBUSY : rc == -EEXIST ? -ENOTEMPTY : rc;
		t->err = *err;
	}
	pthread_mutex_unlock(&t->lock);
	fs_copy_fini(&one->copy);
	free(one);
	run_copies(t);
}

static void start_copy(struct fs_tree *t, struct tree_item *item)
{
	struct tree_copy *one = CST_NEW(struct tree_copy);
	one->tree = t;
	one->item = item;
	one->copy.bucket = t->r->c.w.fs->config.bucket;
	one->copy.size = item->size;
	one->copy.done = item_copied;
	/* What somebody else puts there meanwhile is not to be overwritten; markers are all the same. */
	if (item->suffix[0])
		one->copy.condition = CST_OBJECT_IF_ABSENT;
	memcpy(one->copy.etag, item->etag, sizeof(item->etag));
	cst_buf_add_slice(&one->copy.from, cst_buf_slice(&t->from));
	cst_buf_add_str(&one->copy.from, item->suffix);
	cst_buf_add_slice(&one->copy.to, cst_buf_slice(&t->to));
	cst_buf_add_str(&one->copy.to, item->suffix);
	fs_copy_start(&one->copy);
}

/* The caller is counted in `running`, so that nothing ends before it has. */
static void run_copies(struct fs_tree *t)
{
	for (;;) {
		pthread_mutex_lock(&t->lock);
		bool start = t->rc == 0 && t->next < t->count && t->running <= COPIES_AT_ONCE;
		struct tree_item *item = start ? &t->items[t->next++] : NULL;
		t->running += start ? 1 : -1u;
		bool over = !start && t->running == 0;
		int rc = t->rc;
		pthread_mutex_unlock(&t->lock);
		if (over && rc < 0)
			remove_copied(t, &t->to, copies_removed);
		else if (over) {
			cst_buf_clear(&t->token);
			check_page(t);
		}
		if (!start)
			return;
		start_copy(t, item);
	}
}

/* ---- is it still what was copied? ---- */

/* The copies may have taken long; what others wrote meanwhile must not be removed. */
static void check_entry(void *arg, const struct cst_object_list_entry *entry)
{
	struct fs_tree *t = arg;
	struct cst_slice key = entry->info.key;
	if (entry->is_prefix || key.len < t->from.len)
		return;
	while (t->checked < t->count && !t->items[t->checked].copied)
		t->checked++;
	const struct tree_item *item = t->checked < t->count ? &t->items[t->checked++] : NULL;
	struct cst_slice suffix = {key.data + t->from.len, key.len - t->from.len};
	if (!item || !cst_slice_is(suffix, item->suffix) || strcmp(entry->info.etag, item->etag) != 0 ||
	    entry->info.size != item->size)
		t->changed = true;
}

static void check_restart(void *arg)
{
	struct fs_tree *t = arg;
	t->checked = t->page_checked;
	t->changed = t->page_changed;
}

static void check_done(void *arg, int rc, const struct cst_object_list_page *page, const struct cst_error *err)
{
	struct fs_tree *t = arg;
	if (rc == 0 && page->truncated && !t->changed) {
		cst_buf_clear(&t->token);
		cst_buf_add_slice(&t->token, page->next_token);
		check_page(t);
		return;
	}
	while (t->checked < t->count && !t->items[t->checked].copied)
		t->checked++;
	if (rc == 0 && !t->changed && t->checked == t->count) {
		remove_copied(t, &t->from, sources_removed);
		return;
	}
	t->rc = rc < 0 ? rc : -EBUSY;
	if (rc < 0)
		t->err = *err;
	else
		cst_error_set(&t->err, EBUSY, "somebody else has changed what is below it meanwhile");
	remove_copied(t, &t->to, copies_removed);
}

static void check_page(struct fs_tree *t)
{
	static const struct cst_object_list_ops ops = {check_entry, check_restart, check_done};
	t->page_checked = t->checked;
	t->page_changed = t->changed;
	cst_object_release(cst_object_list(
		t->r->c.w.fs->config.bucket,
		&(struct cst_object_list){.prefix = cst_buf_slice(&t->from), .token = cst_buf_slice(&t->token)}, &ops,
		t));
}

/* ---- what there is ---- */

static uint64_t limit_of(const struct cst_fs *fs)
{
	uint64_t limit = fs->config.rename_dir_limit ? fs->config.rename_dir_limit : LIMIT;
	return cst_min(limit, (uint64_t)CST_OBJECT_DELETE_MAX);
}

static void page_entry(void *arg, const struct cst_object_list_entry *entry)
{
	struct fs_tree *t = arg;
	struct cst_slice key = entry->info.key;
	if (entry->is_prefix || key.len < t->from.len || t->count > limit_of(t->r->c.w.fs))
		return;
	if (t->count == t->cap) {
		t->cap = t->cap ? t->cap * 2 : 64;
		t->items = cst_xrealloc(t->items, t->cap * sizeof(*t->items));
	}
	struct tree_item *item = &t->items[t->count++];
	*item = (struct tree_item){.size = entry->info.size};
	memcpy(item->etag, entry->info.etag, sizeof(item->etag));
	item->suffix = cst_xstrndup(key.data + t->from.len, key.len - t->from.len);
}

static void page_restart(void *arg)
{
	struct fs_tree *t = arg;
	while (t->count > t->page_start)
		free(t->items[--t->count].suffix);
}

static void page_done(void *arg, int rc, const struct cst_object_list_page *page, const struct cst_error *err)
{
	struct fs_tree *t = arg;
	struct fs_rename *r = t->r;
	uint64_t limit = limit_of(r->c.w.fs);
	if (rc < 0) {
		tree_fail(t, rc, "can't list", err);
	} else if (t->count > limit) {
		fs_write_refused(
			r->c.w.fs, r->inode,
			"renaming the directory is refused, as there are more than %" PRIu64
			" objects below it (rename_dir_limit, 1000 at most): mv copies them one by one instead",
			limit);
		tree_end(t, -EXDEV);
	} else if (page->truncated) {
		cst_buf_clear(&t->token);
		cst_buf_add_slice(&t->token, page->next_token);
		list_page(t);
	} else {
		t->running = 1;
		run_copies(t);
	}
}

static void list_page(struct fs_tree *t)
{
	static const struct cst_object_list_ops ops = {page_entry, page_restart, page_done};
	t->page_start = t->count;
	cst_object_release(cst_object_list(
		t->r->c.w.fs->config.bucket,
		&(struct cst_object_list){.prefix = cst_buf_slice(&t->from), .token = cst_buf_slice(&t->token)}, &ops,
		t));
}

static void target_entry(void *arg, const struct cst_object_list_entry *entry)
{
	struct fs_tree *t = arg;
	if (!cst_slice_eq(entry->info.key, cst_buf_slice(&t->to)))
		t->target_used = true;
	else
		t->target_marked = true;
}

static void target_restart(void *arg)
{
	struct fs_tree *t = arg;
	t->target_used = false;
}

static void list_target(struct fs_tree *t);

static void target_done(void *arg, int rc, const struct cst_object_list_page *page, const struct cst_error *err)
{
	struct fs_tree *t = arg;
	if (rc == 0 && t->target_used) {
		tree_end(t, -ENOTEMPTY);
	} else if (rc < 0) {
		tree_fail(t, rc, "can't list", err);
	} else if (page->truncated) { /* without keys, or with the marker alone */
		cst_buf_clear(&t->token);
		cst_buf_add_slice(&t->token, page->next_token);
		list_target(t);
	} else {
		cst_buf_clear(&t->token);
		list_page(t);
	}
}

/* The store says whether there is anything under the new name. */
static void list_target(struct fs_tree *t)
{
	static const struct cst_object_list_ops ops = {target_entry, target_restart, target_done};
	cst_object_release(cst_object_list(t->r->c.w.fs->config.bucket,
					   &(struct cst_object_list){.prefix = cst_buf_slice(&t->to),
								     .token = cst_buf_slice(&t->token),
								     .max_keys = 2},
					   &ops, t));
}

static void wait_for_writers(struct fs_tree *t)
{
	struct fs_rename *r = t->r;
	struct cst_fs *fs = r->c.w.fs;
	if (r->target && fs_writers_below(fs, r->target, NULL) != FS_BELOW_NONE) {
		tree_end(t, -ENOTEMPTY);
		return;
	}
	switch (fs_writers_below(fs, r->inode, &t->ended)) {
	case FS_BELOW_OPEN:
		fs_write_refused(fs, r->inode, "renaming the directory is refused: a file below it is being written");
		tree_end(t, -EBUSY);
		break;
	case FS_BELOW_NONE:
		list_target(t);
		break;
	case FS_BELOW_CLOSING:
		break;
	}
}

static void writer_ended(struct fs_end_wait *wait)
{
	wait_for_writers(cst_container_of(wait, struct fs_tree, ended));
}

void fs_rename_tree(struct fs_rename *r)
{
	struct cst_fs *fs = r->c.w.fs;
	struct fs_tree *t = CST_NEW(struct fs_tree);
	t->r = r;
	t->ended.ready = writer_ended;
	t->moving.dir = r->inode;
	pthread_mutex_init(&t->lock, NULL);
	fs_key_of(fs, r->c.parent, r->c.name, &t->from);
	cst_buf_add_char(&t->from, '/');
	fs_key_of(fs, r->to_parent, r->to_name, &t->to);
	cst_buf_add_char(&t->to, '/');
	if (fs_is_moving(fs, r->inode) || fs_is_below(fs, r->to_parent, r->inode) || r->to_parent == r->inode) {
		tree_end(t, fs_is_moving(fs, r->inode) ? -EBUSY : -EINVAL);
		return;
	}
	pthread_mutex_lock(&fs->writers_lock);
	TAILQ_INSERT_TAIL(&fs->moving, &t->moving, link);
	t->is_moving = true;
	pthread_mutex_unlock(&fs->writers_lock);
	if (fs_changes_below(fs, r->inode, &r->c)) {
		fs_write_refused(
			fs, r->inode,
			"renaming the directory is refused: something below it is just being made, removed or renamed");
		tree_end(t, -EBUSY);
		return;
	}
	wait_for_writers(t);
}
