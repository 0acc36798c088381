/* What programs do with names, for bench/metadata; each mode prints one line of JSON.
 *
 *	names stat THREADS LIST     lstat of each path of LIST, a line each, taken in turn by that many threads
 *	names list DIR              reads a directory, as ls does
 *	names long DIR              reads a directory, then lstat of each name in it, as ls -l does
 *	names find DIR              walks a tree and looks at types alone, as find does
 *
 * "count" is how many names were seen, "missing" how many were not there, "slowest" the longest lstat in ms; "cpu" is this process's own, in
 * seconds. Other errors end the program. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 1024

struct names {
	char **items;
	size_t count, cap;
};

static struct names names;
static size_t next_name, missing; /* atomic */
static uint64_t slowest;	  /* ns, atomic */

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "names: %s: %s\n", what, errno ? strerror(errno) : "wrong");
	exit(1);
}

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;
	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void *need(void *memory)
{
	if (!memory)
		die("out of memory");
	return memory;
}

static void names_add(struct names *n, char *owned)
{
	if (n->count == n->cap) {
		n->cap = n->cap ? 2 * n->cap : 1024;
		n->items = need(realloc(n->items, n->cap * sizeof(*n->items)));
	}
	n->items[n->count++] = need(owned);
}

static void names_read(const char *list)
{
	FILE *f = fopen(list, "r");
	char *line = NULL;
	size_t room = 0;
	ssize_t len;
	if (!f)
		die(list);
	while ((len = getline(&line, &room, f)) > 0) {
		if (line[len - 1] == '\n')
			line[len - 1] = '\0';
		names_add(&names, strdup(line));
	}
	free(line);
	fclose(f);
}

static void look(int dir, const char *name)
{
	struct stat st;
	uint64_t began = clock_ns(CLOCK_MONOTONIC);
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno != ENOENT)
			die(name);
		__atomic_fetch_add(&missing, 1, __ATOMIC_RELAXED);
	}
	uint64_t took = clock_ns(CLOCK_MONOTONIC) - began, most = __atomic_load_n(&slowest, __ATOMIC_RELAXED);
	while (took > most &&
	       !__atomic_compare_exchange_n(&slowest, &most, took, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

static void *stat_main(void *arg)
{
	size_t i;
	(void)arg;
	while ((i = __atomic_fetch_add(&next_name, 1, __ATOMIC_RELAXED)) < names.count)
		look(AT_FDCWD, names.items[i]);
	return NULL;
}

static void run_stat(unsigned threads)
{
	pthread_t ids[THREADS_MAX];
	if (threads == 0 || threads > THREADS_MAX)
		die("number of threads");
	for (unsigned i = 0; i < threads; i++)
		if ((errno = pthread_create(&ids[i], NULL, stat_main, NULL)))
			die("thread");
	for (unsigned i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
}

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* All names first and then their attributes: that is how ls does it. */
static void run_list(const char *path, bool stats)
{
	DIR *dir = opendir(path);
	const struct dirent *entry;
	if (!dir)
		die(path);
	errno = 0;
	while ((entry = readdir(dir)))
		if (!is_dots(entry->d_name))
			names_add(&names, strdup(entry->d_name));
	if (errno)
		die(path);
	for (size_t i = 0; stats && i < names.count; i++)
		look(dirfd(dir), names.items[i]);
	closedir(dir);
}

static bool is_directory(int parent, const struct dirent *entry)
{
	struct stat st;
	if (entry->d_type != DT_UNKNOWN)
		return entry->d_type == DT_DIR;
	return fstatat(parent, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

static size_t run_find(int parent, const char *name)
{
	struct names below = {0};
	size_t count = 0;
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	if (!dir)
		die(name);
	errno = 0;
	for (; (entry = readdir(dir)); errno = 0) {
		if (is_dots(entry->d_name))
			continue;
		count++;
		if (is_directory(fd, entry))
			names_add(&below, strdup(entry->d_name));
	}
	if (errno)
		die(name);
	for (size_t i = 0; i < below.count; i++) {
		count += run_find(fd, below.items[i]);
		free(below.items[i]);
	}
	free(below.items);
	closedir(dir);
	return count;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	size_t count = 0;
	if (strcmp(mode, "stat") == 0 && argc == 4)
		names_read(argv[3]);
	uint64_t began = clock_ns(CLOCK_MONOTONIC);
	if (strcmp(mode, "stat") == 0 && argc == 4) {
		run_stat((unsigned)atoi(argv[2]));
	} else if ((strcmp(mode, "list") == 0 || strcmp(mode, "long") == 0) && argc == 3) {
		run_list(argv[2], strcmp(mode, "long") == 0);
	} else if (strcmp(mode, "find") == 0 && argc == 3) {
		count = run_find(AT_FDCWD, argv[2]);
	} else {
		fprintf(stderr, "usage: names stat|list|long|find …; see the top of bench/names.c\n");
		return 2;
	}
	printf("{\"seconds\": %.6f, \"cpu\": %.4f, \"count\": %zu, \"missing\": %zu, \"slowest\": %.3f}\n",
	       (double)(clock_ns(CLOCK_MONOTONIC) - began) / 1e9, (double)clock_ns(CLOCK_PROCESS_CPUTIME_ID) / 1e9,
	       count ? count : names.count, missing, (double)slowest / 1e6);
	return 0;
}
