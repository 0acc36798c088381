/* Refresh: asks the store again about what is known, before its time is over.
 *
 * Directories are listed once more beside what they have (meta/relist.h), some in parallel; the thread that called does all the work between
 * their pages. When a new listing has taken its place, the inodes of its names learn of it: unchanged ones stay as they are, with their pages
 * and what was fetched of them; those of changed objects are doubted, and the next lookup makes another one. At the end, whoever has an inode
 * in a listed directory that the listing didn't name has gone.
 *
 * The kernel hears of each name that it may know otherwise (expire_name). It takes the directory's lock for that, which an unanswered LOOKUP
 * of a new name holds; so a new listing first answers all that wait in its directory. One INC_EPOCH would tell of all names and never wait, but
 * it unmounts what is mounted inside and drops the pages of everything that isn't open.
 *
 * Nothing here waits for a request of another call, and no call waits for a refresh. */
#define CST_LOG_AREA "fs"
#include "fs/internal.h"

#include "meta/preload.h"
#include "meta/relist.h"
#include "meta/snapshot.h"

#define PARALLEL 32
#define MESSAGES_AT_ONCE 1000 /* to the host before it has passed them on */

struct item {
	struct refresh *r;
	struct cst_inode *inode; /* counted */
	struct cst_relist *relist;
	int64_t started; /* of a listing that came to its end; else 0 */
	size_t next;
	struct cst_buf gone;  /* names, each ended by a NUL */
	bool listed, waiting; /* waiting: `ready` will come; the refresh lock */
	STAILQ_ENTRY(item) link;
};

struct refresh {
	struct cst_fs *fs;
	struct item *items;
	size_t count, cap, begun, running;
	STAILQ_HEAD(, item) ready; /* the refresh lock */
	const struct cst_inode *base;
	struct item *current;	 /* whose names are being compared */
	struct cst_inode **left; /* counted: not in their directory's listing */
	size_t left_count, left_cap;
	unsigned told;	      /* messages to the kernel since it was waited for */
	struct cst_buf names; /* of which the kernel must hear, if one by one: node id, name, NUL */
	struct cst_fs_refresh_result *result;
	struct cst_error *err;
	int rc;
};

static void push(struct cst_inode ***list, size_t *count, size_t *cap, struct cst_inode *inode)
{
	if (*count == *cap) {
		*cap = *cap ? *cap * 2 : 64;
		*list = cst_xrealloc(*list, *cap * sizeof(**list));
	}
	(*list)[(*count)++] = inode;
}

static bool is_stopping(struct cst_fs *fs)
{
	return __atomic_load_n(&fs->refresh_stopping, __ATOMIC_ACQUIRE);
}

void cst_fs_refresh_stop(struct cst_fs *fs)
{
	pthread_mutex_lock(&fs->refresh_lock);
	__atomic_store_n(&fs->refresh_stopping, true, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&fs->refresh_wake);
	pthread_mutex_unlock(&fs->refresh_lock);
}

static int stopped(struct cst_error *err)
{
	cst_error_set(err, ECANCELED, "can't refresh");
	cst_error_why(err, "the file system is being unmounted");
	return -ECANCELED;
}

static void note_name(struct refresh *r, uint64_t parent, struct cst_slice name)
{
	cst_buf_add(&r->names, &parent, sizeof(parent));
	cst_buf_add_slice(&r->names, name);
	cst_buf_add_char(&r->names, '\0');
}

/* The host's queue is bounded, and what finds it full costs the kernel all that it knows. No locks. */
static void pace(struct refresh *r)
{
	if (++r->told % MESSAGES_AT_ONCE == 0 && r->fs->host->settle)
		r->fs->host->settle(r->fs->host->host);
}

static void drop_attributes(struct cst_fs *fs, uint64_t node)
{
	if (fs->host->invalidate_node)
		fs->host->invalidate_node(fs->host->host, node, -1, 0);
}

/* ---- which directories ---- */

static void add_item(struct refresh *r, struct cst_inode *inode)
{
	if (r->count == r->cap) {
		r->cap = r->cap ? r->cap * 2 : 64;
		r->items = cst_xrealloc(r->items, r->cap * sizeof(*r->items));
	}
	r->items[r->count++] = (struct item){.r = r, .inode = inode};
}

static void collect_dir(void *arg, struct cst_inode *inode)
{
	struct refresh *r = arg;
	if (!cst_inode_is_dir(inode) || inode->stale || !cst_inode_peek(inode)->dir)
		return; /* one without a cst_dir was never asked about anything in it */
	inode->refs++;
	add_item(r, inode);
}

/* ---- one directory ---- */

static void item_ready(void *arg)
{
	struct item *item = arg;
	struct cst_fs *fs = item->r->fs;
	pthread_mutex_lock(&fs->refresh_lock);
	item->waiting = false;
	STAILQ_INSERT_TAIL(&item->r->ready, item, link);
	pthread_cond_broadcast(&fs->refresh_wake);
	pthread_mutex_unlock(&fs->refresh_lock);
}

static void item_news(void *arg, enum cst_news news, struct cst_slice name)
{
	struct item *item = arg;
	struct cst_fs_refresh_result *result = item->r->result;
	*(news == CST_NEWS_CHANGED ? &result->changed : news == CST_NEWS_NEW ? &result->added : &result->gone) += 1;
	if (news == CST_NEWS_GONE) {
		cst_buf_add_slice(&item->gone, name);
		cst_buf_add_char(&item->gone, '\0');
	}
}

static bool is_touched(struct cst_fs *fs, const struct cst_inode *inode, const struct cst_entry *entry)
{
	cst_inode_lock(fs->table, inode);
	bool same = entry->mtime == inode->mtime;
	cst_inode_unlock(fs->table, inode);
	return entry->kind != CST_KIND_DIR && entry->mtime && !same;
}

/* The next use finds out: from the new listing where that tells all, else from the store. */
static void doubt(struct cst_fs *fs, struct cst_inode *inode)
{
	cst_inode_lock(fs->table, inode);
	inode->checked = 0;
	if (inode->more)
		inode->more->link_at = 0;
	cst_inode_unlock(fs->table, inode);
	drop_attributes(fs, inode->node);
}

/* A changed object's inode becomes stale when the name is looked up, which is when the new version needs its own: there may be more of them than
 * can be kept for those that nobody asks for. */
static void apply_entry(void *arg, const char *name, const struct cst_entry *entry, bool known)
{
	struct refresh *r = arg;
	struct cst_fs *fs = r->fs;
	struct item *item = r->current;
	struct cst_inode *inode = cst_inode_find(fs->table, item->inode, name);
	if (!inode) {
		/* The kernel may remember that there is no such name. */
		if (fs->config.negative_ttl > 0)
			note_name(r, item->inode->node, cst_slice_of(name));
		return;
	}
	bool same = cst_inode_is_version(fs->table, inode, entry), touched = is_touched(fs, inode, entry);
	/* What a listing says of a symlink object is not what it points to; a directory's marker, and whether an object is a link of ossfs 1.0,
	 * only a HEAD tells. */
	bool untold = !known && (entry->type == CST_OBJECT_SYMLINK || entry->kind == CST_KIND_DIR ||
				 inode->kind == CST_KIND_SYMLINK);
	if (same && !untold)
		cst_inode_unref(fs->table, fs_enter(fs, item->inode, name, entry, 0));
	if (!same || untold || (touched && !known))
		doubt(fs, inode);
	else if (touched)
		drop_attributes(fs, inode->node);
	if (!same || untold || touched)
		pace(r);
	if (!untold && (!same || touched)) {
		r->result->changed += !cst_relist_covered(item->relist, cst_slice_of(name));
		note_name(r, item->inode->node, cst_slice_of(name));
	}
	cst_inode_unref(fs->table, inode);
}

static void apply_gone(struct item *item)
{
	struct cst_slice rest = cst_buf_slice(&item->gone);
	while (rest.len > 0) {
		const char *name = rest.data;
		cst_slice_cut(&rest, '\0');
		fs_gone(item->r->fs, item->inode, name, item->started);
		pace(item->r);
		note_name(item->r, item->inode->node, cst_slice_of(name));
	}
	cst_buf_fini(&item->gone);
}

/* The kernel's own copy of the entries. */
static void drop_entries(struct cst_fs *fs, struct cst_inode *dir)
{
	cst_inode_lock(fs->table, dir);
	if (dir->more)
		dir->more->kernel_listed = 0;
	cst_inode_unlock(fs->table, dir);
	if (fs->host->invalidate_node)
		fs->host->invalidate_node(fs->host->host, dir->node, 0, 0);
}

static void item_end(struct item *item)
{
	cst_relist_free(item->relist);
	item->relist = NULL;
	cst_buf_fini(&item->gone);
	item->r->running--;
}

static void item_fail(struct item *item, int rc, const struct cst_error *err)
{
	struct refresh *r = item->r;
	CST_AUTO_BUF key = CST_BUF_INIT;
	fs_key(r->fs, item->inode, &key);
	fs_errno(r->fs, rc, "can't refresh", cst_buf_slice(&key), err);
	r->result->failed++;
	if (r->rc == 0) {
		r->rc = rc;
		*r->err = *err;
	}
	item_end(item);
}

/* Goes on with a directory until it must wait. */
static void item_run(struct item *item)
{
	struct refresh *r = item->r;
	struct cst_error err = CST_ERROR_INIT;
	int rc = 1;
	while (!item->listed && rc == 1) {
		pthread_mutex_lock(&r->fs->refresh_lock);
		item->waiting = true; /* `ready` may come before step returns */
		pthread_mutex_unlock(&r->fs->refresh_lock);
		rc = cst_relist_step(item->relist, &err);
		if (rc == -EAGAIN)
			return;
		item->waiting = false;
	}
	if (rc < 0) {
		item_fail(item, rc, &err);
		return;
	}
	item->listed = true;
	r->current = item;
	while (cst_relist_each(item->relist, &item->next, apply_entry, r))
		;
	item->started = cst_relist_started(item->relist);
	apply_gone(item);
	drop_entries(r->fs, item->inode);
	pace(r);
	r->result->directories++;
	item_end(item);
}

static void item_begin(struct item *item)
{
	struct refresh *r = item->r;
	struct cst_relist_config config = {
		.dir = fs_dir_of(r->fs, item->inode), .ready = item_ready, .news = item_news, .arg = item};
	r->running++;
	item->relist = cst_relist_start(&config);
	item_run(item);
}

/* The kernel hears of the names noted so far. */
static void tell_kernel(struct refresh *r)
{
	const struct cst_fs *fs = r->fs;
	const struct cst_fs_host *host = fs->host;
	bool keeps = (fs->config.entry_ttl > 0 || fs->config.negative_ttl > 0) && host->expire_name;
	for (size_t at = 0; keeps && at < r->names.len;) {
		uint64_t parent;
		memcpy(&parent, r->names.data + at, sizeof(parent));
		struct cst_slice name = cst_slice_of(r->names.data + at + sizeof(parent));
		host->expire_name(host->host, parent, name);
		at += sizeof(parent) + name.len + 1;
		pace(r);
	}
	cst_buf_clear(&r->names);
}

static struct item *next_ready(struct refresh *r)
{
	struct cst_fs *fs = r->fs;
	pthread_mutex_lock(&fs->refresh_lock);
	while (STAILQ_EMPTY(&r->ready) && !is_stopping(fs))
		pthread_cond_wait(&fs->refresh_wake, &fs->refresh_lock);
	struct item *item = STAILQ_FIRST(&r->ready);
	if (item)
		STAILQ_REMOVE_HEAD(&r->ready, link);
	pthread_mutex_unlock(&fs->refresh_lock);
	return item;
}

/* Withdraws what waits; what can't be withdrawn any more comes in a moment. */
static void leave_all(struct refresh *r)
{
	struct cst_fs *fs = r->fs;
	for (size_t i = 0; i < r->begun; i++) {
		struct item *item = &r->items[i];
		if (!item->relist)
			continue;
		bool left = cst_relist_leave(item->relist);
		pthread_mutex_lock(&fs->refresh_lock);
		while (!left && item->waiting)
			pthread_cond_wait(&fs->refresh_wake, &fs->refresh_lock);
		pthread_mutex_unlock(&fs->refresh_lock);
		item_end(item);
	}
}

static void list_all(struct refresh *r)
{
	while (!is_stopping(r->fs) && (r->begun < r->count || r->running > 0)) {
		if (r->begun < r->count && r->running < PARALLEL) {
			item_begin(&r->items[r->begun++]);
			continue;
		}
		tell_kernel(r);
		struct item *item = next_ready(r);
		if (item)
			item_run(item);
	}
	leave_all(r);
	if (is_stopping(r->fs) && r->rc == 0)
		r->rc = stopped(r->err);
}

/* ---- what no listing named ---- */

static int by_node(const void *a, const void *b)
{
	uint64_t x = ((const struct item *)a)->inode->node, y = ((const struct item *)b)->inode->node;
	return x < y ? -1 : x > y;
}

static const struct item *item_of(const struct refresh *r, uint64_t node)
{
	size_t low = 0, high = r->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (r->items[middle].inode->node < node)
			low = middle + 1;
		else
			high = middle;
	}
	return low < r->count && r->items[low].inode->node == node ? &r->items[low] : NULL;
}

static void collect_left(void *arg, struct cst_inode *inode)
{
	struct refresh *r = arg;
	if (inode->node == CST_NODE_ROOT || (inode->aside && !inode->stale))
		return;
	const struct item *item = item_of(r, cst_inode_parent_locked(inode));
	if (!item || item->started == 0 || (!inode->stale && inode->checked >= item->started))
		return;
	/* Of a stale one the kernel may not have heard. */
	if (inode->stale) {
		note_name(r, cst_inode_parent_locked(inode), cst_inode_name_locked(inode));
		return;
	}
	inode->refs++;
	push(&r->left, &r->left_count, &r->left_cap, inode);
}

static void drop_left(struct refresh *r)
{
	struct cst_inode_table *table = r->fs->table;
	qsort(r->items, r->count, sizeof(*r->items), by_node);
	cst_inode_each(table, collect_left, r);
	for (size_t i = 0; i < r->left_count; i++) {
		struct cst_inode *inode = r->left[i];
		char name[CST_INODE_NAME_MAX + 1];
		struct cst_inode *parent = cst_inode_place(table, inode, name);
		struct cst_entry listed;
		int rc = cst_dir_peek(fs_dir_of(r->fs, parent), name, &listed);
		cst_inode_lock(table, inode);
		bool doubted = inode->checked == 0;
		cst_inode_unlock(table, inode);
		const struct item *dir = item_of(r, parent->node);
		if (dir && (rc == -ENOENT || (rc == -EAGAIN && !doubted))) {
			fs_gone(r->fs, parent, name, dir->started);
			pace(r);
			r->result->gone++;
			note_name(r, parent->node, cst_slice_of(name));
		}
		cst_inode_unref(table, parent);
		cst_inode_unref(table, inode);
	}
	free(r->left);
}

/* ---- one name ---- */

struct name_wait {
	struct cst_dir_wait wait;
	struct cst_fs *fs;
	bool done; /* the refresh lock */
	int rc;
	struct cst_entry entry;
	struct cst_error err;
};

static void name_done(struct cst_dir_wait *wait, int rc, const struct cst_entry *entry, struct cst_dir *below,
		      const struct cst_error *err)
{
	struct name_wait *w = cst_container_of(wait, struct name_wait, wait);
	(void)below;
	w->rc = rc;
	w->entry = *entry;
	w->entry.attr = cst_object_attr_ref(entry->attr);
	if (err)
		w->err = *err;
	pthread_mutex_lock(&w->fs->refresh_lock);
	w->done = true;
	pthread_cond_broadcast(&w->fs->refresh_wake);
	pthread_mutex_unlock(&w->fs->refresh_lock);
}

static int ask_name(struct cst_fs *fs, struct cst_inode *parent, const char *name, struct cst_entry *entry,
		    struct cst_error *err)
{
	struct name_wait *w = CST_NEW(struct name_wait);
	struct cst_dir *dir = fs_dir_of(fs, parent);
	w->wait.done = name_done;
	w->fs = fs;
	cst_dir_probe(dir, name, CST_DIR_ASK_ANEW, NULL, &w->wait);
	pthread_mutex_lock(&fs->refresh_lock);
	while (!w->done && !is_stopping(fs))
		pthread_cond_wait(&fs->refresh_wake, &fs->refresh_lock);
	bool done = w->done;
	pthread_mutex_unlock(&fs->refresh_lock);
	bool left = !done && cst_dir_leave(dir, &w->wait);
	pthread_mutex_lock(&fs->refresh_lock);
	while (!left && !w->done)
		pthread_cond_wait(&fs->refresh_wake, &fs->refresh_lock);
	pthread_mutex_unlock(&fs->refresh_lock);
	int rc = left ? stopped(err) : w->rc;
	*entry = w->entry;
	if (!left && rc < 0)
		*err = w->err;
	free(w);
	return rc;
}

static bool differs(const struct cst_entry *a, const struct cst_entry *b)
{
	if (a->kind != b->kind || a->kind == CST_KIND_DIR)
		return a->kind != b->kind;
	return a->size != b->size || a->mtime != b->mtime || strcmp(a->etag, b->etag) != 0;
}

/* Is it another object, or only its Last-Modified another? */
static bool enter_version(struct cst_fs *fs, struct cst_inode *parent, const char *name, struct cst_inode *inode,
			  const struct cst_entry *entry)
{
	bool touched = is_touched(fs, inode, entry);
	struct cst_inode *now = fs_enter(fs, parent, name, entry, 0);
	bool same = now == inode;
	cst_inode_unref(fs->table, now);
	if (same && touched) {
		cst_inode_lock(fs->table, inode);
		if (inode->more)
			inode->more->link_at = 0;
		cst_inode_unlock(fs->table, inode);
		drop_attributes(fs, inode->node);
	}
	return !same || touched;
}

/* The name is there. */
static void name_present(struct refresh *r, struct cst_inode *parent, const char *name, struct cst_inode *inode,
			 const struct cst_entry *entry)
{
	struct cst_dir *dir = fs_dir_of(r->fs, parent);
	struct cst_entry listed;
	int rc = cst_dir_peek(dir, name, &listed);
	if (inode && enter_version(r->fs, parent, name, inode, entry))
		r->result->changed++;
	else if (!inode && rc == 0 && differs(&listed, entry))
		r->result->changed++;
	else if (!inode && rc != 0)
		r->result->added++;
	/* What a listing shows must be right too, but for what a doubt in it mends. */
	if (rc == -ENOENT || (rc == 0 && listed.kind != entry->kind))
		cst_dir_forget(dir);
}

static int name_absent(struct refresh *r, struct cst_inode *parent, const char *name, struct cst_inode *inode,
		       int64_t at)
{
	struct cst_dir *dir = fs_dir_of(r->fs, parent);
	struct cst_entry listed;
	bool was_listed = cst_dir_peek(dir, name, &listed) == 0;
	if (!inode && !was_listed) {
		cst_error_set(r->err, ENOENT, "can't refresh \"%s\"", name);
		cst_error_why(r->err, "neither the mount nor the store knows it");
		return -ENOENT;
	}
	fs_gone(r->fs, parent, name, at);
	r->result->gone++;
	if (was_listed)
		cst_dir_forget(dir);
	return 0;
}

/* Listings that nobody has yet, and what requests under way bring: nobody would compare them. */
static void drop_parked(struct cst_fs *fs, const char *path)
{
	CST_AUTO_BUF prefix = CST_BUF_INIT;
	cst_buf_add_str(&prefix, fs->prefix);
	cst_buf_add_str(&prefix, path);
	cst_parked_drop(fs->meta, cst_buf_slice(&prefix));
}

static void forget_absent(struct cst_fs *fs, struct cst_inode *base)
{
	CST_AUTO_BUF prefix = CST_BUF_INIT;
	if (!base || !fs->absent)
		return;
	cst_dir_add_prefix(fs_dir_of(fs, base), &prefix);
	cst_absent_clear(fs->absent, cst_buf_slice(&prefix));
}

/* 0: *dir is set when it is a directory of which something is known, with a reference. */
static int refresh_name(struct refresh *r, struct cst_inode *parent, const char *name, struct cst_inode **dir)
{
	struct cst_fs *fs = r->fs;
	CST_AUTO_ENTRY entry = CST_ENTRY_INIT;
	forget_absent(fs, parent);
	int rc = ask_name(fs, parent, name, &entry, r->err);
	struct cst_inode *inode = cst_inode_find(fs->table, parent, name);
	if (rc == 0)
		name_present(r, parent, name, inode, &entry);
	else if (rc == -ENOENT)
		rc = name_absent(r, parent, name, inode, entry.at);
	bool same_dir = rc == 0 && entry.kind == CST_KIND_DIR && inode && cst_inode_is_dir(inode);
	if (rc == 0 && !same_dir) {
		note_name(r, parent->node, cst_slice_of(name));
		drop_entries(fs, parent);
		/* Their answers may take long, and the kernel must be able to take the directory's lock. */
		if (cst_dir_is_asking(fs_dir_of(fs, parent)))
			add_item(r, cst_inode_ref(fs->table, parent));
	}
	if (same_dir)
		*dir = inode;
	else
		cst_inode_unref(fs->table, inode);
	return rc;
}

/* The inode of the directory that the last part of the path is in, with a reference; the first part that no inode is known of ends it. */
static struct cst_inode *walk(struct cst_fs *fs, struct cst_slice path, char name[CST_NAME_MAX + 1])
{
	struct cst_inode *at = cst_inode_get(fs->table, CST_NODE_ROOT);
	for (;;) {
		struct cst_slice part = cst_slice_cut(&path, '/');
		if (part.len > CST_NAME_MAX || !cst_name_is_valid(part)) {
			cst_inode_unref(fs->table, at);
			return NULL;
		}
		memcpy(name, part.data, part.len);
		name[part.len] = 0;
		if (path.len == 0)
			return at;
		struct cst_inode *next = cst_inode_find(fs->table, at, name);
		if (!next || !cst_inode_is_dir(next)) {
			cst_inode_unref(fs->table, next);
			return at;
		}
		cst_inode_unref(fs->table, at);
		at = next;
	}
}

/* Returns the directory to list, with a reference, or NULL: nothing, or r->rc. */
static struct cst_inode *find_base(struct refresh *r, const char *path)
{
	char name[CST_NAME_MAX + 1];
	struct cst_inode *dir = NULL;
	if (!path[0])
		return cst_inode_get(r->fs->table, CST_NODE_ROOT);
	struct cst_inode *parent = walk(r->fs, cst_slice_of(path), name);
	if (!parent) {
		cst_error_set(r->err, ENOENT, "can't refresh \"%s\"", path);
		cst_error_why(r->err, "no file can have such a name");
		r->rc = -ENOENT;
		return NULL;
	}
	r->rc = refresh_name(r, parent, name, &dir);
	cst_inode_unref(r->fs->table, parent);
	return dir;
}

int cst_fs_refresh(struct cst_fs *fs, const char *path, struct cst_fs_refresh_result *result, struct cst_error *err)
{
	CST_CHECK(fs, FS_MAGIC);
	struct refresh r = {.fs = fs, .result = result, .err = err};
	*result = (struct cst_fs_refresh_result){0};
	if (is_stopping(fs))
		return stopped(err);
	fs_live_begin(fs);
	STAILQ_INIT(&r.ready);
	drop_parked(fs, path);
	struct cst_inode *base = find_base(&r, path);
	r.base = base;
	forget_absent(fs, base);
	if (base) {
		add_item(&r, cst_inode_ref(fs->table, base));
		cst_inode_each_below(fs->table, base, collect_dir, &r);
	}
	list_all(&r);
	forget_absent(fs, base); /* what was learnt meanwhile may be older */
	if (r.count > 0)
		drop_left(&r);
	tell_kernel(&r);
	if (fs->host->settle)
		fs->host->settle(fs->host->host);
	for (size_t i = 0; i < r.count; i++)
		cst_inode_unref(fs->table, r.items[i].inode);
	cst_inode_unref(fs->table, base);
	free(r.items);
	cst_buf_fini(&r.names);
	fs_live_end(fs);
	return r.rc;
}

void fs_refresh_dirs(struct cst_fs *fs, struct cst_inode **inodes, size_t count)
{
	struct cst_fs_refresh_result result = {0};
	struct cst_error err = CST_ERROR_INIT;
	struct refresh r = {.fs = fs, .result = &result, .err = &err};
	fs_live_begin(fs);
	STAILQ_INIT(&r.ready);
	for (size_t i = 0; i < count; i++)
		add_item(&r, inodes[i]);
	list_all(&r);
	if (count > 0)
		drop_left(&r);
	tell_kernel(&r);
	for (size_t i = 0; i < r.count; i++) {
		if (r.items[i].started == 0) /* nobody asks for it once more */
			cst_dir_end_unchecked(fs_dir_of(fs, r.items[i].inode));
		cst_inode_unref(fs->table, r.items[i].inode);
	}
	free(r.items);
	cst_buf_fini(&r.names);
	fs_live_end(fs);
}
