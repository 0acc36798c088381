/* Preloads: see preload.h.
 *
 * Who walks a tree as find, `ls -R` and fts do opens the directories in a directory one after the other, in its order, and reads each to its end. When
 * it opens a third one, what is left of the tree there is listed ahead of it (meta/preload.h); the request that this begins with brings what it has
 * just opened, too. So a walk that goes on no further has cost a page or two more. Few walks are followed at a time, by the node of the directory whose
 * directories are opened. */
#define CST_LOG_AREA "fs"
#include "fs/preload.h"

#include "fs/internal.h"

#include "base/text.h"

#include <inttypes.h>

#define WALKS 16u
#define STREAK 3u

struct cst_fs_preload {
	unsigned magic;
	struct cst_fs *fs;
	struct cst_preload *p;
	struct cst_dir *dir; /* counted */
	int64_t started;
	bool done; /* the lock of the preloads */
	struct cst_error err;
};
#define PRELOAD_MAGIC 0xf5010adu

struct walk {
	uint64_t node; /* the directory whose directories are opened; 0: none */
	uint64_t child;
	char last[CST_NAME_MAX + 1]; /* the child's name */
	bool whole;		     /* the child was read to its end */
	bool tried;		     /* a preload was begun for it */
	unsigned streak;
	uint64_t used;
	struct cst_preload *p; /* counted, until it has ended */
};

struct fs_preloads {
	struct cst_fs *fs;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct walk walks[WALKS];
	uint64_t turn;
};

struct fs_preloads *fs_preloads_new(struct cst_fs *fs)
{
	struct fs_preloads *s = CST_NEW(struct fs_preloads);
	pthread_condattr_t attr;
	s->fs = fs;
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->wake, &attr);
	pthread_condattr_destroy(&attr);
	return s;
}

/* After cst_meta_stop(): everything has ended. */
void fs_preloads_free(struct fs_preloads *s)
{
	for (unsigned i = 0; i < WALKS; i++)
		CST_ASSERT(!s->walks[i].p);
	pthread_cond_destroy(&s->wake);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

/* ---- which directory ---- */

/* The inode of a path below the mountpoint with a reference, as far as the kernel knows it; NULL: it doesn't. */
static struct cst_inode *inode_of(struct cst_fs *fs, struct cst_slice path)
{
	struct cst_inode *at = cst_inode_get(fs->table, CST_NODE_ROOT);
	while (at && path.len > 0) {
		char name[CST_NAME_MAX + 1];
		struct cst_slice part = cst_slice_cut(&path, '/');
		struct cst_inode *next = NULL;
		if (part.len <= CST_NAME_MAX) {
			memcpy(name, part.data, part.len);
			name[part.len] = 0;
			next = cst_inode_find(fs->table, at, name);
		}
		cst_inode_unref(fs->table, at);
		at = next;
	}
	return at;
}

static struct cst_dir *find_dir(void *arg, struct cst_slice prefix)
{
	struct cst_fs *fs = arg;
	size_t root = strlen(fs->prefix);
	if (prefix.len < root)
		return NULL;
	struct cst_slice path = {prefix.data + root, prefix.len - root};
	if (path.len > 0)
		path.len--; /* its slash */
	struct cst_inode *inode = inode_of(fs, path);
	struct cst_dir *dir = NULL;
	if (inode && cst_inode_is_dir(inode)) {
		cst_inode_lock(fs->table, inode);
		struct cst_dir *own = cst_inode_peek(inode)->dir;
		dir = own ? cst_dir_ref(own) : NULL;
		cst_inode_unlock(fs->table, inode);
	}
	cst_inode_unref(fs->table, inode);
	return dir;
}

/* ---- what a person asks for ---- */

static void tell_end(const struct cst_fs_preload *p, const struct cst_preload_progress *progress)
{
	char text[CST_ERROR_TEXT_MAX];
	CST_AUTO_BUF name = CST_BUF_INIT;
	CST_AUTO_BUF prefix = CST_BUF_INIT;
	cst_dir_add_prefix(p->dir, &prefix);
	cst_text_printable(&name, cst_buf_slice(&prefix));
	const char *shown = name.len ? name.data : "the bucket";
	double seconds = (double)(cst_now() - p->started) / (double)CST_NS_PER_S;
	switch (progress->end) {
	case CST_PRELOAD_WHOLE:
		cst_log_info("preload of %s: %" PRIu64 " directories, %" PRIu64 " keys, %" PRIu64 " requests in %.1f s",
			     shown, progress->directories, progress->keys, progress->pages, seconds);
		break;
	case CST_PRELOAD_FULL:
		cst_log_warn("preload of %s stopped after %" PRIu64 " directories and %" PRIu64
			     " keys: the memory for listings is used up; metadata_memory (and max_stat_cache_size) "
			     "give it more",
			     shown, progress->directories, progress->keys);
		break;
	case CST_PRELOAD_UNSORTED:
		cst_log_warn("preload of %s stopped: the store doesn't list in the order of keys", shown);
		break;
	case CST_PRELOAD_FAILED:
		cst_log_warn("preload of %s failed: %s", shown, cst_error_text(&p->err, text, sizeof(text)));
		break;
	default:
		break;
	}
}

static void on_ended(void *arg, struct cst_preload *preload, const struct cst_error *err)
{
	struct cst_fs_preload *p = arg;
	struct fs_preloads *s = p->fs->preloads;
	struct cst_preload_progress progress;
	cst_preload_progress(preload, &progress);
	if (err)
		p->err = *err;
	tell_end(p, &progress);
	/* Others may have the directory by now; its listing is found by its prefix as all that nobody has. */
	CST_AUTO_BUF prefix = CST_BUF_INIT;
	cst_dir_add_prefix(p->dir, &prefix);
	struct cst_dir *other = find_dir(p->fs, cst_buf_slice(&prefix));
	if (!other)
		cst_dir_park(p->dir);
	cst_dir_unref(other);
	pthread_mutex_lock(&s->lock);
	p->done = true;
	pthread_cond_broadcast(&s->wake);
	pthread_mutex_unlock(&s->lock);
}

/* "" or a path without empty, "." and ".." parts. */
static int check_path(const char *path, struct cst_error *err)
{
	struct cst_slice rest = cst_slice_of(path);
	while (rest.len > 0) {
		if (cst_name_is_valid(cst_slice_cut(&rest, '/')))
			continue;
		cst_error_set(err, EINVAL, "can't preload \"%s\"", path);
		cst_error_why(err, "no file can have such a name");
		return -EINVAL;
	}
	return 0;
}

struct cst_fs_preload *cst_fs_preload_start(struct cst_fs *fs, const char *path, struct cst_error *err)
{
	CST_CHECK(fs, FS_MAGIC);
	CST_AUTO_BUF prefix = CST_BUF_INIT;
	if (check_path(path, err) != 0)
		return NULL;
	struct cst_fs_preload *p = CST_NEW(struct cst_fs_preload);
	cst_buf_add_str(&prefix, fs->prefix);
	cst_buf_add_str(&prefix, path);
	if (path[0])
		cst_buf_add_char(&prefix, '/');
	p->magic = PRELOAD_MAGIC;
	p->fs = fs;
	p->started = cst_now();
	p->dir = find_dir(fs, cst_buf_slice(&prefix));
	if (!p->dir)
		p->dir = path[0] ? cst_dir_get(fs->meta, cst_buf_slice(&prefix)) : NULL;
	if (!p->dir) {
		struct cst_inode *root = cst_inode_get(fs->table, CST_NODE_ROOT);
		p->dir = cst_dir_ref(fs_dir_of(fs, root));
		cst_inode_unref(fs->table, root);
	}
	/* Without caching of listings there is nothing to bring. */
	if (fs->config.list_ttl <= 0) {
		cst_error_set(err, EINVAL, "can't preload \"%s\"", path);
		cst_error_why(err, "listings are not kept (list_timeout is 0)");
		cst_dir_unref(p->dir);
		free(p);
		return NULL;
	}
	fs_live_begin(fs);
	p->p = cst_preload_start(&(struct cst_preload_config){
		.dir = p->dir, .find = find_dir, .find_arg = fs, .ended = on_ended, .arg = p});
	return p;
}

bool cst_fs_preload_wait(struct cst_fs_preload *p, int64_t timeout, struct cst_preload_progress *progress,
			 struct cst_error *err)
{
	CST_CHECK(p, PRELOAD_MAGIC);
	struct fs_preloads *s = p->fs->preloads;
	int64_t end = cst_now() + timeout;
	struct timespec until = {.tv_sec = end / CST_NS_PER_S, .tv_nsec = end % CST_NS_PER_S};
	int rc = 0;
	pthread_mutex_lock(&s->lock);
	while (!p->done && rc == 0)
		rc = pthread_cond_timedwait(&s->wake, &s->lock, &until);
	bool done = p->done;
	if (done && err)
		*err = p->err;
	pthread_mutex_unlock(&s->lock);
	cst_preload_progress(p->p, progress);
	return done;
}

void cst_fs_preload_free(struct cst_fs_preload *p)
{
	if (!p)
		return;
	CST_CHECK(p, PRELOAD_MAGIC);
	struct fs_preloads *s = p->fs->preloads;
	struct cst_fs *fs = p->fs;
	cst_preload_cancel(p->p);
	pthread_mutex_lock(&s->lock);
	while (!p->done)
		pthread_cond_wait(&s->wake, &s->lock);
	pthread_mutex_unlock(&s->lock);
	cst_preload_unref(p->p);
	cst_dir_unref(p->dir);
	p->magic = 0;
	free(p);
	fs_live_end(fs);
}

/* ---- walks ---- */

static struct walk *walk_of_locked(struct fs_preloads *s, uint64_t node)
{
	for (unsigned i = 0; i < WALKS; i++)
		if (s->walks[i].node == node)
			return &s->walks[i];
	return NULL;
}

/* The one that was used least recently makes room; its preload, which nobody follows any more, is the caller's to end. */
static struct walk *new_walk_locked(struct fs_preloads *s, uint64_t node, struct cst_preload **unused)
{
	struct walk *oldest = &s->walks[0];
	for (unsigned i = 1; i < WALKS; i++)
		if (s->walks[i].used < oldest->used)
			oldest = &s->walks[i];
	*unused = oldest->p;
	*oldest = (struct walk){.node = node};
	return oldest;
}

/* In the order of listings a directory's name stands with its slash. */
static bool comes_after(const char *name, const char *last)
{
	size_t a = strlen(name), b = strlen(last);
	int c = memcmp(name, last, cst_min(a, b));
	if (c != 0 || a == b)
		return c > 0;
	return a > b ? (unsigned char)name[b] > '/' : (unsigned char)last[a] < '/';
}

/* True: it is time to list ahead. *unused: a preload that nobody follows any more, the caller's to end. */
static bool note_opened_locked(struct walk *w, uint64_t child, const char *name, bool listed,
			       struct cst_preload **unused)
{
	if (child == w->child)
		return false;
	if (w->p && !listed && cst_preload_is_idle(w->p)) {
		*unused = w->p;
		w->p = NULL;
		w->tried = false;
	}
	if (listed) { /* it costs nothing */
		w->streak = 0;
	} else if (w->child && w->whole && comes_after(name, w->last)) {
		w->streak++;
	} else {
		w->streak = 1;
		w->tried = false;
	}
	w->child = child;
	w->whole = false;
	snprintf(w->last, sizeof(w->last), "%s", name);
	bool now = w->streak >= STREAK && !w->tried && !w->p;
	w->tried |= now;
	return now;
}

static void walk_ended(void *arg, struct cst_preload *preload, const struct cst_error *err)
{
	struct fs_preloads *s = arg;
	struct cst_preload *mine = NULL;
	struct cst_preload_progress progress;
	(void)err;
	cst_preload_progress(preload, &progress);
	cst_log_debug("listing ahead of a walk ended (%u): %" PRIu64 " requests, %" PRIu64 " directories, %" PRIu64
		      " of them opened",
		      (unsigned)progress.end, progress.pages, progress.directories, progress.hits);
	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < WALKS; i++)
		if (s->walks[i].p == preload) {
			mine = preload;
			s->walks[i].p = NULL;
		}
	pthread_mutex_unlock(&s->lock);
	cst_preload_unref(mine);
}

static void start_ahead(struct fs_preloads *s, struct cst_inode *parent, const char *name)
{
	struct cst_fs *fs = s->fs;
	struct cst_dir *dir = fs_dir_of(fs, parent);
	CST_AUTO_BUF after = CST_BUF_INIT;
	fs_key(fs, parent, &after);
	if (parent->node != CST_NODE_ROOT)
		cst_buf_add_char(&after, '/');
	cst_buf_add_str(&after, name);
	if (cst_preload_is_covered(fs->meta, cst_buf_slice(&after)))
		return;
	cst_buf_add_char(&after, '.'); /* the directory's keys come right after this */
	struct cst_preload *p = cst_preload_start(&(struct cst_preload_config){.dir = dir,
									       .after = cst_buf_slice(&after),
									       .ahead = true,
									       .find = find_dir,
									       .find_arg = fs,
									       .ended = walk_ended,
									       .arg = s});
	struct cst_preload_progress progress;
	pthread_mutex_lock(&s->lock);
	struct walk *w = walk_of_locked(s, parent->node);
	cst_preload_progress(p, &progress);
	bool keep = w && !w->p && progress.end == CST_PRELOAD_RUNNING;
	if (keep)
		w->p = p;
	pthread_mutex_unlock(&s->lock);
	if (keep)
		return;
	cst_preload_cancel(p);
	cst_preload_unref(p);
}

void fs_walk_opened(struct cst_fs *fs, struct cst_inode *inode)
{
	struct fs_preloads *s = fs->preloads;
	char name[CST_INODE_NAME_MAX + 1];
	struct cst_preload *unused = NULL;
	if (!fs->config.preload_walks || fs->config.list_ttl <= 0)
		return;
	struct cst_inode *parent = cst_inode_place(fs->table, inode, name);
	if (!parent)
		return;
	bool listed = cst_dir_is_listed(fs_dir_of(fs, inode));
	pthread_mutex_lock(&s->lock);
	struct walk *w = walk_of_locked(s, parent->node);
	if (!w)
		w = new_walk_locked(s, parent->node, &unused);
	w->used = ++s->turn;
	bool ahead = note_opened_locked(w, inode->node, name, listed, &unused);
	pthread_mutex_unlock(&s->lock);
	if (unused)
		cst_preload_cancel(unused);
	cst_preload_unref(unused);
	if (ahead)
		start_ahead(s, parent, name);
	cst_inode_unref(fs->table, parent);
}

void fs_walk_read(struct cst_fs *fs, struct cst_inode *inode)
{
	struct fs_preloads *s = fs->preloads;
	if (!fs->config.preload_walks)
		return;
	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < WALKS; i++)
		if (s->walks[i].child == inode->node)
			s->walks[i].whole = true;
	pthread_mutex_unlock(&s->lock);
}
