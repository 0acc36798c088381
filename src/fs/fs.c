/* The file system as a whole: making and freeing it, the operations that need nothing from the store, and what the others share. */
#define CST_LOG_AREA "fs"
#include "fs/writing.h"

#include "base/text.h"
#include "meta/preload.h"

#include <inttypes.h>

#define POOL_THREADS 4
#define MISSED_TTL (2 * CST_NS_PER_S)
#define MISSED_MAX 4096
#define LOG_INTERVAL (10 * CST_NS_PER_S)

static void drop_inode(struct cst_inode *inode)
{
	const struct cst_inode_more *more = cst_inode_peek(inode);
	if (more->data)
		cst_fetch_object_unref(more->data);
	if (more->dir && !inode->stale)
		cst_dir_park(more->dir); /* it may come back within its time */
	cst_dir_unref(more->dir);
}

static char *printable(struct cst_slice dir, struct cst_slice name)
{
	struct cst_buf text = CST_BUF_INIT;
	cst_text_printable(&text, dir);
	cst_text_printable(&text, name);
	return cst_buf_steal(&text);
}

static void on_skipped(void *arg, struct cst_slice dir, struct cst_slice name, uint64_t count)
{
	struct cst_fs *fs = arg;
	__atomic_fetch_add(&fs->skipped, count, __ATOMIC_RELAXED);
	cst_metric_add(fs->metric_skipped, (int64_t)count);
	if (__atomic_exchange_n(&fs->told_skipped, true, __ATOMIC_RELAXED))
		return;
	CST_AUTO_FREE char *key = printable(dir, name);
	cst_log_warn(
		"keys that can't be file names are not shown, for example \"%s\" (a name is 1 to %d bytes, not \".\" or \"..\", "
		"without NUL and empty parts); they are counted in cistern_fs_skipped_names_total, this is said once",
		key, CST_NAME_MAX);
}

static void on_shadowed(void *arg, struct cst_slice dir, struct cst_slice name)
{
	struct cst_fs *fs = arg;
	CST_AUTO_FREE char *key = printable(dir, name);
	cst_metric_add(fs->metric_shadowed, 1);
	if (!cst_log_allowed(&fs->shadow_limit, LOG_INTERVAL, NULL))
		return;
	cst_log_warn("\"%s\" is an object and also a prefix of others: the file is shown, what is below \"%s/\" is not",
		     key, key);
}

struct cst_fs *cst_fs_new(const struct cst_fs_config *config, const struct cst_fs_host *host, struct cst_error *err)
{
	size_t len = config->prefix ? strlen(config->prefix) : 0;
	if (len > 0 && config->prefix[len - 1] != '/') {
		cst_error_set(err, EINVAL, "can't show the prefix %s", config->prefix);
		cst_error_why(err, "a prefix ends with a slash");
		return NULL;
	}
	struct cst_fs *fs = CST_NEW(struct cst_fs);
	fs->magic = FS_MAGIC;
	fs->config = *config;
	fs->config.prefix = fs->prefix = cst_xstrdup(config->prefix ? config->prefix : "");
	if (!fs->config.clock)
		fs->config.clock = cst_now;
	fs->host = host;
	fs->mounted = cst_wall();
	/* Numbers of a process before this one don't come again: nobody opens a file a nanosecond for long. */
	fs->next_fh = (uint64_t)fs->mounted;
	pthread_mutex_init(&fs->live_lock, NULL);
	pthread_cond_init(&fs->live_none, NULL);
	pthread_mutex_init(&fs->refused_lock, NULL);
	fs->refused = config->refused ? config->refused : fs->own_refused;
	pthread_mutex_init(&fs->refresh_lock, NULL);
	pthread_cond_init(&fs->refresh_wake, NULL);
	fs->first_node = config->identities ? *config->identities->next_node + 1 : 0; /* the counter is the last one given */
	fs->table = cst_inode_table_new(drop_inode, config->identities);
	if (config->inherited_count > 0)
		cst_inode_table_restore(fs->table, config->inherited, config->inherited_count);
	fs->absent = cst_absent_new(config->absent_ttl, config->absent_max);
	fs->missed = config->write ? cst_absent_new(MISSED_TTL, MISSED_MAX) : NULL;
	fs_writers_init(fs);
	fs->pool = cst_pool_new("cst-fs", POOL_THREADS);
	for (unsigned i = 0; i < HANDLE_SHARDS; i++)
		pthread_mutex_init(&fs->handles[i].lock, NULL);
	for (unsigned i = 0; i < FS_BINDINGS; i++)
		pthread_mutex_init(&fs->bindings[i], NULL);
	fs->preloads = fs_preloads_new(fs);
	fs->ahead = config->look_ahead ? fs_ahead_new(fs) : NULL;
	fs->metric_skipped = cst_metric_counter("cistern_fs_skipped_names_total", NULL,
						"Keys not shown because POSIX can't hold their names");
	fs->metric_shadowed = cst_metric_counter("cistern_fs_shadowed_prefixes_total", NULL,
						 "Prefixes not shown because an object has their name");
	fs->meta = cst_meta_new(&(struct cst_meta_config){
		.bucket = config->bucket,
		.attributes_object = config->attributes == CST_FS_ATTRIBUTES_OBJECT,
		.symlinks = config->symlinks,
		.list_ttl = config->list_ttl,
		.path_probe = config->path_probe,
		.listing_bytes = config->list_memory,
		.listing_names = config->list_names,
		.clock = fs->config.clock,
		.skipped = on_skipped,
		.shadowed = on_shadowed,
		.arg = fs,
	});
	fs->snapshot = config->snapshot_path ? fs_snapshot_new(fs) : NULL;
	return fs;
}

static void free_handles(struct cst_fs *fs)
{
	for (unsigned i = 0; i < HANDLE_SHARDS; i++) {
		for (unsigned b = 0; b < HANDLE_BUCKETS; b++) {
			while (fs->handles[i].buckets[b]) {
				struct fs_handle *h = fs->handles[i].buckets[b];
				fs->handles[i].buckets[b] = h->next;
				fs_handle_unref(h);
			}
		}
		pthread_mutex_destroy(&fs->handles[i].lock);
	}
}

void cst_fs_free(struct cst_fs *fs)
{
	if (!fs)
		return;
	CST_CHECK(fs, FS_MAGIC);
	cst_fs_refresh_stop(fs);
	fs_snapshot_free(fs->snapshot);
	cst_meta_stop(fs->meta);
	/* Who had a file open for writing closes it now; what isn't published by then is kept. */
	fs_writers_stop(fs);
	free_handles(fs);
	/* Every call has been answered; the threads that did it may not have put everything away yet. */
	pthread_mutex_lock(&fs->live_lock);
	while (fs->live > 0)
		pthread_cond_wait(&fs->live_none, &fs->live_lock);
	pthread_mutex_unlock(&fs->live_lock);
	cst_pool_free(fs->pool);
	if (fs->ahead)
		fs_ahead_clear(fs->ahead);
	cst_inode_table_free(fs->table);
	cst_meta_free(fs->meta);
	cst_absent_free(fs->absent);
	cst_absent_free(fs->missed);
	fs_writers_fini(fs);
	fs_ahead_free(fs->ahead);
	fs_preloads_free(fs->preloads);
	for (unsigned i = 0; i < FS_BINDINGS; i++)
		pthread_mutex_destroy(&fs->bindings[i]);
	pthread_cond_destroy(&fs->refresh_wake);
	pthread_mutex_destroy(&fs->refresh_lock);
	pthread_cond_destroy(&fs->live_none);
	pthread_mutex_destroy(&fs->live_lock);
	pthread_mutex_destroy(&fs->refused_lock);
	fs->magic = 0;
	free(fs->prefix);
	free(fs);
}

static struct cst_dir *dir_of(struct cst_fs *fs, struct cst_inode *inode)
{
	cst_inode_lock(fs->table, inode);
	struct cst_dir *dir = cst_inode_peek(inode)->dir;
	cst_inode_unlock(fs->table, inode);
	return dir;
}

void fs_dir_prefix(const struct cst_fs *fs, const struct cst_inode *inode, struct cst_buf *prefix)
{
	fs_key(fs, inode, prefix);
	if (inode->node != CST_NODE_ROOT)
		cst_buf_add_char(prefix, '/');
}

struct cst_dir *fs_dir_of(struct cst_fs *fs, struct cst_inode *inode)
{
	struct cst_dir *dir = dir_of(fs, inode);
	if (dir)
		return dir;
	CST_AUTO_BUF prefix = CST_BUF_INIT;
	fs_dir_prefix(fs, inode, &prefix);
	struct cst_dir *made = cst_dir_get(fs->meta, cst_buf_slice(&prefix));
	fs_adopt_dir(fs, inode, made);
	cst_dir_unref(made);
	return dir_of(fs, inode);
}

void fs_adopt_dir(struct cst_fs *fs, struct cst_inode *inode, struct cst_dir *dir)
{
	CST_AUTO_BUF prefix = CST_BUF_INIT;
	cst_inode_lock(fs->table, inode);
	bool adopt = !cst_inode_peek(inode)->dir;
	if (adopt)
		cst_inode_more(inode)->dir = cst_dir_ref(dir);
	cst_inode_unlock(fs->table, inode);
	if (!adopt)
		return;
	if (fs->snapshot)
		fs_snapshot_adopted(fs->snapshot, inode, dir);
	/* A rename moves what it finds: not this one, if it came a moment before. */
	fs_dir_prefix(fs, inode, &prefix);
	if (!cst_dir_has_prefix(dir, cst_buf_slice(&prefix)))
		cst_dir_move(dir, cst_buf_slice(&prefix));
}

void fs_key(const struct cst_fs *fs, const struct cst_inode *inode, struct cst_buf *key)
{
	cst_buf_add_str(key, fs->prefix);
	cst_inode_path(fs->table, inode, key);
}

bool fs_is_fresh(const struct cst_fs *fs, int64_t checked)
{
	return checked > 0 && fs->config.clock() - checked < fs->config.list_ttl;
}

/* The kernel then asks for the attributes again, gets ESTALE and looks the name up. Attributes alone: that never waits. Told before
 * the reply of the call that found it: after the last reply the host may be gone. */
static void notify_stale(struct cst_fs *fs, uint64_t node)
{
	if (node && fs->host->invalidate_node)
		fs->host->invalidate_node(fs->host->host, node, -1, 0);
}

struct cst_inode *fs_enter(struct cst_fs *fs, struct cst_inode *parent, const char *name, const struct cst_entry *entry,
			   unsigned lookups)
{
	uint64_t replaced;
	struct cst_inode *inode = cst_inode_enter(fs->table, parent, name, entry, lookups, &replaced);
	notify_stale(fs, replaced);
	if (fs->absent) {
		CST_AUTO_BUF prefix = CST_BUF_INIT;
		fs_dir_prefix(fs, parent, &prefix);
		cst_absent_drop(fs->absent, cst_buf_slice(&prefix), name);
	}
	return inode;
}

void fs_gone(struct cst_fs *fs, struct cst_inode *parent, const char *name, int64_t at)
{
	notify_stale(fs, cst_inode_remove(fs->table, parent, name, at));
}

void fs_doubt(struct cst_fs *fs, struct cst_inode *inode)
{
	char name[CST_INODE_NAME_MAX + 1];
	struct cst_inode *parent = cst_inode_place(fs->table, inode, name);
	if (!parent)
		return;
	cst_inode_lock(fs->table, inode);
	inode->checked = 0;
	cst_inode_unlock(fs->table, inode);
	cst_dir_doubt(fs_dir_of(fs, parent), name);
	cst_inode_unref(fs->table, parent);
}

static struct cst_log_limit *failure_limit(struct cst_fs *fs, int rc, const struct cst_error *err)
{
	unsigned kind = (unsigned)-rc;
	for (const char *c = err ? err->api : ""; *c; c++)
		kind = kind * 31 + (unsigned char)*c;
	return &fs->failure_limits[kind % FAILURE_KINDS];
}

int fs_errno(struct cst_fs *fs, int rc, const char *what, struct cst_slice name, const struct cst_error *err)
{
	switch (rc) {
	case -ENOENT:
	case -ESTALE:
	case -EINTR:
	case -ENAMETOOLONG:
	case -ENODATA:
		return rc;
	default:
		break;
	}
	uint64_t suppressed = 0;
	if (cst_log_allowed(failure_limit(fs, rc, err), LOG_INTERVAL, &suppressed)) {
		char text[CST_ERROR_TEXT_MAX];
		bool archived = err && strcmp(err->api, "InvalidObjectState") == 0;
		CST_AUTO_FREE char *shown = printable(CST_SLICE(""), name);
		cst_log_warn("%s \"%s\": %s%s (%" PRIu64 " such failures not logged before)", what, shown,
			     err ? cst_error_text(err, text, sizeof(text)) : strerror(-rc),
			     archived && !err->hint[0] ? "; the object is archived: restore it, then read it again"
						       : "",
			     suppressed);
	}
	return rc == -EACCES || rc == -ENOTSUP ? rc : -EIO;
}

void cst_fs_forget(struct cst_fs *fs, uint64_t node, uint64_t count)
{
	if (cst_inode_forget(fs->table, node, count) < 0)
		cst_log_debug("forget of node %" PRIu64 ", which is not known", node);
}

void cst_fs_statfs(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node)
{
	/* A bucket has no size: large enough that nothing refuses to work, small enough for 64-bit sums of bytes. */
	static const struct statvfs space = {
		.f_bsize = 4096,
		.f_frsize = 4096,
		.f_blocks = UINT64_C(1) << 38,
		.f_bfree = UINT64_C(1) << 38,
		.f_bavail = UINT64_C(1) << 38,
		.f_files = UINT32_MAX,
		.f_ffree = UINT32_MAX,
		.f_favail = UINT32_MAX,
		.f_namemax = CST_NAME_MAX,
	};
	(void)node;
	fs->host->statfs(call, &space);
}

void cst_fs_access(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint32_t mask)
{
	struct cst_inode *inode = cst_inode_get(fs->table, node);
	struct stat st;
	int rc = 0;
	if (!inode) {
		fs->host->error(call, -ESTALE);
		return;
	}
	fs_fill_stat(fs, inode, &st);
	/* Supplementary groups are not known here: what the group or others may do is allowed (the kernel checks exactly under
	 * default_permissions and then doesn't ask). */
	uint32_t granted = call->uid == st.st_uid ? st.st_mode >> 6 & 7 : (st.st_mode | st.st_mode >> 3) & 7;
	if (call->uid == 0)
		granted = 6 | (S_ISDIR(st.st_mode) || st.st_mode & 0111 ? 1 : 0);
	if (call->uid == 0 && fs->config.write)
		granted |= 2;
	if (mask & W_OK && !fs->config.write)
		rc = -EROFS;
	else if (mask & (R_OK | W_OK | X_OK) & ~granted)
		rc = -EACCES;
	cst_inode_unref(fs->table, inode);
	fs->host->error(call, rc);
}

void cst_fs_refuse_write(struct cst_fs *fs, struct cst_fs_call *call, const char *what)
{
	if (!__atomic_exchange_n(&fs->told_write, true, __ATOMIC_RELAXED))
		cst_log_warn(
			"%s refused with \"Read-only file system\": the mount is read-only; with -o write=append files can be written from "
			"their front to their end, replaced, appended to, renamed and removed (this is said once)",
			what);
	fs->host->error(call, -EROFS);
}

void cst_fs_stats(struct cst_fs *fs, struct cst_fs_stats *stats)
{
	struct cst_meta_stats meta;
	cst_meta_stats(fs->meta, &meta);
	*stats = (struct cst_fs_stats){
		.inodes = cst_inode_table_count(fs->table),
		.open_files = __atomic_load_n(&fs->open_files, __ATOMIC_RELAXED),
		.open_dirs = __atomic_load_n(&fs->open_dirs, __ATOMIC_RELAXED),
		.cached_dirs = meta.listings,
		.skipped_names = __atomic_load_n(&fs->skipped, __ATOMIC_RELAXED),
		.lookups = __atomic_load_n(&fs->lookups, __ATOMIC_RELAXED),
		.lookups_local = __atomic_load_n(&fs->lookups_local, __ATOMIC_RELAXED),
		.reads = __atomic_load_n(&fs->reads, __ATOMIC_RELAXED),
		.bytes_read = __atomic_load_n(&fs->bytes_read, __ATOMIC_RELAXED),
		.opens_passthrough = __atomic_load_n(&fs->opens_passthrough, __ATOMIC_RELAXED),
		.opens_cached = __atomic_load_n(&fs->opens_cached, __ATOMIC_RELAXED),
		.opens_direct = __atomic_load_n(&fs->opens_direct, __ATOMIC_RELAXED),
		.looked_ahead = fs->ahead ? fs_ahead_count(fs->ahead) : 0,
		.passthrough_error = __atomic_load_n(&fs->passthrough_error, __ATOMIC_RELAXED),
		.writes = __atomic_load_n(&fs->writes, __ATOMIC_RELAXED),
		.bytes_written = __atomic_load_n(&fs->bytes_written, __ATOMIC_RELAXED),
		.open_writers = fs_writers_count(fs),
	};
}
