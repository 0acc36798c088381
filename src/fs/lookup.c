/* Names to nodes: lookup, getattr, and the check that an inode is still the current version of its object. */
#define CST_LOG_AREA "fs"
#include "fs/writing.h"

/* What is known of a name without asking the store. 0, -ENOENT (as of entry->at) or -EAGAIN; then entry->kind may tell what it is,
 * though not its attributes. The newer of the listing and the inode's own news counts. */
int fs_known_of(struct cst_fs *fs, struct cst_inode *parent, struct cst_dir *dir, const char *name,
		struct cst_entry *entry)
{
	int64_t listed_at = 0;
	bool need_attr = fs->config.attributes == CST_FS_ATTRIBUTES_OBJECT;
	CST_AUTO_ENTRY own = CST_ENTRY_INIT;
	int rc = cst_dir_find(dir, name, entry, &listed_at);
	struct cst_inode *inode = cst_inode_find(fs->table, parent, name);
	if (inode) {
		cst_inode_entry(fs->table, inode, &own);
		bool usable = fs_is_fresh(fs, own.at) && (!need_attr || own.attr);
		bool same = rc == -EAGAIN && entry->kind == own.kind && cst_inode_is_version(fs->table, inode, entry);
		if (usable && (rc == -EAGAIN || own.at > listed_at)) {
			cst_entry_fini(entry);
			*entry = own;
			own.attr = NULL;
			rc = 0;
		} else if (same && own.attr && own.kind != CST_KIND_DIR && cst_entry_attr_matches(entry, own.attr)) {
			cst_entry_fini(entry);
			entry->attr = cst_object_attr_ref(own.attr);
			rc = 0;
		}
		cst_inode_unref(fs->table, inode);
	}
	if (rc == -ENOENT)
		entry->at = listed_at;
	return rc;
}

static void reply_entry(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *parent, const char *name,
			const struct cst_entry *entry, struct cst_dir *below)
{
	struct cst_fs_entry out;
	struct cst_inode *inode = fs_enter(fs, parent, name, entry, 1);
	uint64_t node = inode->node;
	if (below && cst_inode_is_dir(inode))
		fs_adopt_dir(fs, inode, below);
	fs_fill_entry(fs, inode, &out);
	cst_inode_unref(fs->table, inode);
	if (fs->host->entry(call, &out) == -ENOENT)
		cst_inode_forget(fs->table, node, 1);
}

static void reply_negative(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *parent, const char *name,
			   int64_t at)
{
	struct cst_fs_entry out = {.entry_ttl = fs->config.negative_ttl};
	fs_gone(fs, parent, name, at);
	if (fs->config.negative_ttl > 0)
		fs->host->entry(call, &out);
	else
		fs->host->error(call, -ENOENT);
}

/* A name being asked for, by a lookup or (inode set) by the check of a version. */
struct ask {
	struct fs_wait w;
	struct cst_dir_wait wait;
	struct cst_inode *parent; /* counted */
	struct cst_dir *dir;	  /* parent's */
	struct cst_inode *inode;  /* counted, or NULL */
	fs_checked_fn then;
	char name[CST_NAME_MAX + 1];
};

static bool ask_leave(struct fs_wait *w)
{
	struct ask *ask = cst_container_of(w, struct ask, w);
	return cst_dir_leave(ask->dir, &ask->wait);
}

static void ask_free(struct fs_wait *w)
{
	struct ask *ask = cst_container_of(w, struct ask, w);
	struct cst_inode_table *table = w->fs->table;
	cst_inode_unref(table, ask->inode);
	cst_inode_unref(table, ask->parent);
	free(ask);
}

static struct ask *ask_new(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *parent, const char *name)
{
	struct ask *ask = CST_NEW(struct ask);
	ask->parent = cst_inode_ref(fs->table, parent);
	ask->dir = fs_dir_of(fs, parent);
	snprintf(ask->name, sizeof(ask->name), "%s", name);
	fs_wait_arm(&ask->w, fs, call, ask_leave, ask_free);
	return ask;
}

/* Remembered before the reply: who gets it may ask again at once. */
static void answer_absent(struct ask *ask, struct cst_fs_call *call, int64_t at)
{
	struct cst_fs *fs = ask->w.fs;
	if (fs->absent) {
		CST_AUTO_BUF prefix = CST_BUF_INIT;
		cst_dir_add_prefix(ask->dir, &prefix);
		cst_absent_add(fs->absent, cst_buf_slice(&prefix), ask->name, at);
	}
	fs_missed(fs, ask->parent, ask->name, at);
	reply_negative(fs, call, ask->parent, ask->name, at);
}

static void lookup_done(struct cst_dir_wait *wait, int rc, const struct cst_entry *entry, struct cst_dir *below,
			const struct cst_error *err)
{
	struct ask *ask = cst_container_of(wait, struct ask, wait);
	struct cst_fs *fs = ask->w.fs;
	struct cst_fs_call *call = fs_wait_end(&ask->w);
	if (rc == 0)
		reply_entry(fs, call, ask->parent, ask->name, entry, below);
	else if (rc == -ENOENT)
		answer_absent(ask, call, entry->at);
	else
		fs->host->error(call, fs_errno(fs, rc, "can't look up", cst_slice_of(ask->name), err));
	fs_wait_unref(&ask->w);
}

static void lookup_ask(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *parent, const char *name,
		       enum cst_kind hint)
{
	struct ask *ask = ask_new(fs, call, parent, name);
	struct cst_inode *child = cst_inode_find(fs->table, parent, name);
	struct cst_dir *below = child && cst_inode_is_dir(child) ? fs_dir_of(fs, child) : NULL;
	enum cst_dir_ask what = hint == CST_KIND_DIR	? CST_DIR_ASK_DIR
				: hint != CST_KIND_NONE ? CST_DIR_ASK_FILE
							: CST_DIR_ASK_NAME;
	/* What a symlink object points to takes a full HEAD. */
	if (what == CST_DIR_ASK_FILE && fs->config.attributes != CST_FS_ATTRIBUTES_OBJECT)
		what = CST_DIR_ASK_NAME;
	ask->wait.done = lookup_done;
	cst_dir_probe(ask->dir, name, what, below, &ask->wait);
	fs_wait_started(&ask->w);
	cst_inode_unref(fs->table, child);
}

static bool is_absent(struct cst_fs *fs, struct cst_dir *dir, const char *name, int64_t *at)
{
	CST_AUTO_BUF prefix = CST_BUF_INIT;
	if (!fs->absent)
		return false;
	cst_dir_add_prefix(dir, &prefix);
	return cst_absent_find(fs->absent, cst_buf_slice(&prefix), name, fs->config.clock(), at);
}

void cst_fs_lookup(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, const char *name)
{
	CST_CHECK(fs, FS_MAGIC);
	CST_AUTO_ENTRY entry = CST_ENTRY_INIT;
	struct cst_inode *parent = cst_inode_get(fs->table, node);
	__atomic_fetch_add(&fs->lookups, 1, __ATOMIC_RELAXED);
	int rc = 0;
	if (!parent)
		rc = -ESTALE;
	else if (!cst_inode_is_dir(parent))
		rc = -ENOTDIR;
	else if (strlen(name) > CST_NAME_MAX)
		rc = -ENAMETOOLONG;
	else if (!cst_name_is_valid(cst_slice_of(name)))
		rc = -ENOENT;
	if (rc < 0) {
		cst_inode_unref(fs->table, parent);
		fs->host->error(call, rc);
		return;
	}
	struct cst_dir *dir = fs_dir_of(fs, parent);
	rc = fs_known_of(fs, parent, dir, name, &entry);
	if (rc == -EAGAIN && entry.kind == CST_KIND_NONE && is_absent(fs, dir, name, &entry.at))
		rc = -ENOENT;
	if (rc != -EAGAIN)
		__atomic_fetch_add(&fs->lookups_local, 1, __ATOMIC_RELAXED);
	if (rc == 0)
		reply_entry(fs, call, parent, name, &entry, NULL);
	else if (rc == -ENOENT)
		reply_negative(fs, call, parent, name, entry.at);
	else
		lookup_ask(fs, call, parent, name, entry.kind);
	cst_inode_unref(fs->table, parent);
}

/* News of the inode's name: is the inode still what they tell of? */
static int apply_news(struct cst_fs *fs, struct cst_inode *inode, struct cst_inode *parent, const char *name, int rc,
		      const struct cst_entry *entry)
{
	if (rc == -ENOENT) {
		fs_gone(fs, parent, name, entry->at);
		return -ESTALE;
	}
	struct cst_inode *current = fs_enter(fs, parent, name, entry, 0);
	/* One that was set aside has its place by name taken by another, which is told of the same version. */
	bool same = current == inode;
	cst_inode_lock(fs->table, inode);
	if (!same && inode->aside && cst_inode_is_version_locked(inode, entry)) {
		inode->checked = cst_max(inode->checked, entry->at);
		same = true;
	}
	cst_inode_unlock(fs->table, inode);
	cst_inode_unref(fs->table, current);
	return same ? 0 : -ESTALE;
}

static void check_done(struct cst_dir_wait *wait, int rc, const struct cst_entry *entry, struct cst_dir *below,
		       const struct cst_error *err)
{
	struct ask *ask = cst_container_of(wait, struct ask, wait);
	struct cst_fs *fs = ask->w.fs;
	(void)below;
	struct cst_fs_call *call = fs_wait_end(&ask->w);
	if (rc == 0 || rc == -ENOENT)
		rc = apply_news(fs, ask->inode, ask->parent, ask->name, rc, entry);
	else
		rc = fs_errno(fs, rc, "can't check", cst_slice_of(ask->name), err);
	ask->then(fs, call, ask->inode, rc);
	fs_wait_unref(&ask->w);
}

static bool is_stale(struct cst_fs *fs, struct cst_inode *inode, int64_t *checked, bool *held)
{
	cst_inode_lock(fs->table, inode);
	bool stale = inode->stale;
	*checked = inode->checked;
	*held = inode->held;
	cst_inode_unlock(fs->table, inode);
	return stale;
}

static void check_ask(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *inode, struct cst_inode *parent,
		      const char *name, bool strict, fs_checked_fn then)
{
	CST_AUTO_ENTRY known = CST_ENTRY_INIT;
	struct ask *ask = ask_new(fs, call, parent, name);
	cst_inode_entry(fs->table, inode, &known);
	ask->inode = cst_inode_ref(fs->table, inode);
	ask->then = then;
	ask->wait.done = check_done;
	bool full = known.kind == CST_KIND_SYMLINK || known.type == CST_OBJECT_SYMLINK;
	cst_dir_probe(ask->dir, ask->name,
		      full     ? CST_DIR_ASK_NAME
		      : strict ? CST_DIR_ASK_STRICT
			       : CST_DIR_ASK_FILE,
		      NULL, &ask->wait);
	fs_wait_started(&ask->w);
}

void fs_check_version(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *inode, bool strict,
		      fs_checked_fn then)
{
	CST_AUTO_ENTRY listed = CST_ENTRY_INIT;
	int64_t checked, listed_at = 0;
	int rc = -EAGAIN;
	bool held;
	if (is_stale(fs, inode, &checked, &held)) {
		then(fs, call, inode, -ESTALE);
		return;
	}
	/* What is written here is what its writer says until that has published it. */
	if (held || (!strict && fs_is_fresh(fs, checked)))
		rc = 0;
	if (rc != -EAGAIN) {
		then(fs, call, inode, rc);
		return;
	}
	char name[CST_INODE_NAME_MAX + 1];
	struct cst_inode *parent = cst_inode_place(fs->table, inode, name);
	if (!strict) {
		rc = cst_dir_find(fs_dir_of(fs, parent), name, &listed, &listed_at);
		listed.at = listed_at;
		if (rc != -EAGAIN)
			rc = listed_at > checked ? apply_news(fs, inode, parent, name, rc, &listed) : -EAGAIN;
	}
	if (rc == -EAGAIN)
		check_ask(fs, call, inode, parent, name, strict, then);
	else
		then(fs, call, inode, rc);
	cst_inode_unref(fs->table, parent);
}

static void getattr_checked(struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *inode, int rc)
{
	struct cst_fs_attr attr;
	bool old = false;
	if (rc == -ESTALE) {
		/* Who has the old version open may ask about it; a path is looked up again. */
		cst_inode_lock(fs->table, inode);
		if (cst_inode_peek(inode)->opens > 0)
			rc = 0;
		cst_inode_unlock(fs->table, inode);
		old = true;
	}
	if (rc < 0) {
		fs->host->error(call, rc);
		return;
	}
	attr.ttl = fs_fill_stat(fs, inode, &attr.st);
	if (old)
		attr.ttl = 0;
	fs->host->attr(call, &attr);
}

void cst_fs_getattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node)
{
	CST_CHECK(fs, FS_MAGIC);
	struct cst_inode *inode = cst_inode_get(fs->table, node);
	if (!inode) {
		fs->host->error(call, -ESTALE);
		return;
	}
	/* A directory keeps its node id, and a lookup brings its attributes up to date. */
	if (inode->kind == CST_KIND_FILE)
		fs_check_version(fs, call, inode, false, getattr_checked);
	else
		getattr_checked(fs, call, inode, 0);
	cst_inode_unref(fs->table, inode);
}
