/* Listings that outlive the mount (meta/snapshot.h): loaded when it begins, saved when it ends and, of a mount that writes nothing, every few
 * minutes when many have come.
 *
 * With snapshot_age a directory may answer from a listing that is older than list_ttl. When that is first used the directory is listed again in the
 * background, as a refresh does it: what differs is told to the kernel. */
#define CST_LOG_AREA "fs"
#include "meta/snapshot.h"

#include "fs/internal.h"

#include <inttypes.h>

#define SAVE_EVERY_S 300
#define MUCH 100u    /* requests for listings since the last time */
#define AT_ONCE 256u /* directories that are listed again together */
#define QUEUE_MAX 100000u

struct fs_snapshot {
	struct cst_fs *fs;
	struct cst_snapshot config;
	char *path, *identity;
	pthread_mutex_t lock; /* guards what follows; a leaf */
	pthread_cond_t wake;
	uint64_t *queue; /* nodes of directories to be listed again */
	size_t count, cap;
	bool ending, thread_runs;
	unsigned long thread;
	uint64_t lists_saved; /* the thread's */
};

static uint64_t lists_of(const struct fs_snapshot *s)
{
	struct cst_meta_stats stats;
	cst_meta_stats(s->fs->meta, &stats);
	return stats.lists;
}

static void save(struct fs_snapshot *s)
{
	struct cst_snapshot_counts counts;
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	s->lists_saved = lists_of(s);
	if (cst_snapshot_save(s->fs->meta, &s->config, &counts, &err) == 0)
		cst_log_info("listings of %" PRIu64 " directories with %" PRIu64 " names are saved in %s",
			     counts.directories, counts.names, s->path);
	else
		cst_log_warn("%s", cst_error_text(&err, text, sizeof(text)));
}

static void load(struct fs_snapshot *s)
{
	struct cst_snapshot_counts counts;
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	int rc = cst_snapshot_load(s->fs->meta, &s->config, &counts, &err);
	if (rc == 0)
		cst_log_info("%s: listings of %" PRIu64 " directories with %" PRIu64
			     " names are known from before, %" PRIu64 " directories' are too old",
			     s->path, counts.directories, counts.names, counts.old);
	else if (rc != -ENOENT)
		cst_log_warn("%s", cst_error_text(&err, text, sizeof(text)));
}

/* What a mount changes itself must be known to the next one, even when it is killed: listings of before lack it. So one that may write uses what is saved up,
 * and a process that takes over from another, which was killed, doesn't know since when. */
static void load_to_write(struct fs_snapshot *s)
{
	if (s->fs->config.inherited_count == 0)
		load(s);
	cst_snapshot_remove(&s->config);
}

/* ---- what is too old to be left alone ---- */

void fs_snapshot_adopted(struct fs_snapshot *s, const struct cst_inode *inode, struct cst_dir *dir)
{
	if (!cst_dir_take_unchecked(dir))
		return;
	pthread_mutex_lock(&s->lock);
	if (s->count < QUEUE_MAX) {
		if (s->count == s->cap) {
			s->cap = s->cap ? s->cap * 2 : 64;
			s->queue = cst_xrealloc(s->queue, s->cap * sizeof(*s->queue));
		}
		s->queue[s->count++] = inode->node;
		pthread_cond_signal(&s->wake);
	} else {
		cst_dir_end_unchecked(dir);
	}
	pthread_mutex_unlock(&s->lock);
}

static void check(struct fs_snapshot *s, const uint64_t *nodes, size_t count)
{
	struct cst_inode *inodes[AT_ONCE];
	size_t found = 0;
	for (size_t i = 0; i < count; i++) {
		struct cst_inode *inode = cst_inode_get(s->fs->table, nodes[i]);
		if (inode)
			inodes[found++] = inode;
	}
	fs_refresh_dirs(s->fs, inodes, found);
}

/* Lock held; it is given up meanwhile. */
static void check_some(struct fs_snapshot *s)
{
	uint64_t nodes[AT_ONCE];
	size_t count = cst_min(s->count, (size_t)AT_ONCE);
	memcpy(nodes, s->queue, count * sizeof(*nodes));
	s->count -= count;
	memmove(s->queue, s->queue + count, s->count * sizeof(*nodes));
	pthread_mutex_unlock(&s->lock);
	check(s, nodes, count);
	pthread_mutex_lock(&s->lock);
}

static void *main_of_thread(void *arg)
{
	struct fs_snapshot *s = arg;
	struct timespec next;
	clock_gettime(CLOCK_MONOTONIC, &next);
	next.tv_sec += SAVE_EVERY_S;
	pthread_mutex_lock(&s->lock);
	while (!s->ending) {
		if (s->count > 0) {
			check_some(s);
			continue;
		}
		if (pthread_cond_timedwait(&s->wake, &s->lock, &next) != ETIMEDOUT)
			continue;
		clock_gettime(CLOCK_MONOTONIC, &next);
		next.tv_sec += SAVE_EVERY_S;
		pthread_mutex_unlock(&s->lock);
		if (s->fs->config.write == CST_FS_WRITE_NONE && lists_of(s) - s->lists_saved >= MUCH)
			save(s);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

struct fs_snapshot *fs_snapshot_new(struct cst_fs *fs)
{
	struct fs_snapshot *s = CST_NEW(struct fs_snapshot);
	pthread_condattr_t attr;
	s->fs = fs;
	s->path = cst_xstrdup(fs->config.snapshot_path);
	s->identity = cst_xstrdup(fs->config.snapshot_identity ? fs->config.snapshot_identity : "");
	s->config = (struct cst_snapshot){s->path, cst_slice_of(s->identity), fs->config.snapshot_age};
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->wake, &attr);
	pthread_condattr_destroy(&attr);
	if (fs->config.write == CST_FS_WRITE_NONE)
		load(s);
	else
		load_to_write(s);
	s->thread_runs = cst_thread_start(&s->thread, "cst-listings", 0, main_of_thread, s) == 0;
	return s;
}

void fs_snapshot_free(struct fs_snapshot *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->ending = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
	if (s->thread_runs)
		pthread_join(s->thread, NULL);
	save(s);
	s->fs->snapshot = NULL;
	free(s->queue);
	pthread_cond_destroy(&s->wake);
	pthread_mutex_destroy(&s->lock);
	free(s->path);
	free(s->identity);
	free(s);
}
