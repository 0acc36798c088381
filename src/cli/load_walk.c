#include "cli/load_walk.h"

#include "base/clock.h"
#include "base/pool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>

#define THREADS_MAX 256

struct item {
	STAILQ_ENTRY(item) link;
	char path[];
};

struct cst_load_walk {
	pthread_mutex_t lock;
	pthread_cond_t wake; /* work, or the end */
	STAILQ_HEAD(, item) queue;
	unsigned working; /* threads that may still add to the queue */
	bool cancelled;
	struct cst_load_walk_progress progress;
	void (*failure)(void *arg, const char *path, int code);
	void *arg;
	unsigned thread_count;
	unsigned long threads[THREADS_MAX];
};

static void add_item_locked(struct cst_load_walk *w, const char *dir, const char *name)
{
	size_t dir_len = strlen(dir), name_len = strlen(name);
	struct item *item = cst_xmalloc(sizeof(*item) + dir_len + name_len + 2);
	memcpy(item->path, dir, dir_len);
	item->path[dir_len] = '/';
	memcpy(item->path + dir_len + 1, name, name_len + 1);
	if (name_len == 0)
		item->path[dir_len] = '\0';
	STAILQ_INSERT_TAIL(&w->queue, item, link);
	pthread_cond_signal(&w->wake);
}

static void tell_failure(struct cst_load_walk *w, const char *path, int code)
{
	pthread_mutex_lock(&w->lock);
	w->progress.failed++;
	if (w->failure)
		w->failure(w->arg, path, code);
	pthread_mutex_unlock(&w->lock);
}

static bool is_dir(DIR *dir, const struct dirent *entry)
{
	struct stat st;
	if (entry->d_type != DT_UNKNOWN)
		return entry->d_type == DT_DIR;
	return fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

static void read_dir(struct cst_load_walk *w, DIR *dir, const char *path)
{
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(dir);
		if (!entry)
			break;
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		bool below = is_dir(dir, entry);
		pthread_mutex_lock(&w->lock);
		w->progress.names++;
		bool stop = w->cancelled;
		if (below && !stop)
			add_item_locked(w, path, entry->d_name);
		pthread_mutex_unlock(&w->lock);
		if (stop)
			return;
	}
	if (errno != 0)
		tell_failure(w, path, errno);
}

static void visit(struct cst_load_walk *w, const char *path)
{
	DIR *dir = opendir(path);
	struct stat st;
	if (dir) {
		read_dir(w, dir, path);
		closedir(dir);
	} else if (errno != ENOTDIR || lstat(path, &st) != 0) {
		tell_failure(w, path, errno);
		return;
	}
	pthread_mutex_lock(&w->lock);
	w->progress.dirs += dir != NULL;
	w->progress.names += dir == NULL;
	pthread_mutex_unlock(&w->lock);
}

static void *walk_main(void *arg)
{
	struct cst_load_walk *w = arg;
	pthread_mutex_lock(&w->lock);
	for (;;) {
		struct item *item = w->cancelled ? NULL : STAILQ_FIRST(&w->queue);
		if (!item && (w->working == 0 || w->cancelled))
			break;
		if (!item) {
			pthread_cond_wait(&w->wake, &w->lock);
			continue;
		}
		STAILQ_REMOVE_HEAD(&w->queue, link);
		w->working++;
		pthread_mutex_unlock(&w->lock);
		visit(w, item->path);
		free(item);
		pthread_mutex_lock(&w->lock);
		w->working--;
		if (w->working == 0)
			pthread_cond_broadcast(&w->wake);
	}
	w->progress.finished = w->working == 0;
	pthread_cond_broadcast(&w->wake);
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

struct cst_load_walk *cst_load_walk_start(const struct cst_option_list *paths, unsigned threads,
					  void (*failure)(void *arg, const char *path, int code), void *arg)
{
	struct cst_load_walk *w = CST_NEW(struct cst_load_walk);
	pthread_condattr_t attr;
	w->failure = failure;
	w->arg = arg;
	STAILQ_INIT(&w->queue);
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->wake, &attr);
	pthread_condattr_destroy(&attr);
	for (size_t i = 0; i < paths->count; i++)
		add_item_locked(w, paths->items[i], "");
	pthread_mutex_lock(&w->lock);
	for (unsigned i = 0; i < cst_min(threads, (unsigned)THREADS_MAX); i++)
		if (cst_thread_start(&w->threads[w->thread_count], "walk", 0, walk_main, w) == 0)
			w->thread_count++;
	w->progress.finished = w->thread_count == 0;
	pthread_mutex_unlock(&w->lock);
	return w;
}

bool cst_load_walk_wait(struct cst_load_walk *w, int64_t timeout, struct cst_load_walk_progress *p)
{
	int64_t end = cst_now() + timeout;
	struct timespec until = {.tv_sec = end / CST_NS_PER_S, .tv_nsec = end % CST_NS_PER_S};
	pthread_mutex_lock(&w->lock);
	while (!w->progress.finished && pthread_cond_timedwait(&w->wake, &w->lock, &until) != ETIMEDOUT)
		;
	*p = w->progress;
	pthread_mutex_unlock(&w->lock);
	return p->finished;
}

void cst_load_walk_cancel(struct cst_load_walk *w)
{
	pthread_mutex_lock(&w->lock);
	w->cancelled = true;
	pthread_cond_broadcast(&w->wake);
	pthread_mutex_unlock(&w->lock);
}

void cst_load_walk_free(struct cst_load_walk *w)
{
	cst_load_walk_cancel(w);
	for (unsigned i = 0; i < w->thread_count; i++)
		pthread_join(w->threads[i], NULL);
	while (!STAILQ_EMPTY(&w->queue)) {
		struct item *item = STAILQ_FIRST(&w->queue);
		STAILQ_REMOVE_HEAD(&w->queue, link);
		free(item);
	}
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
	free(w);
}
