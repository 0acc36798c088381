/* Lists a bucket and reads every object through the object client, 16 at a time, comparing with a directory that holds the same.
 * For tests/integration/object_faults.sh and for measuring.
 *
 *	object_reader ENDPOINT BUCKET DIRECTORY [ROUNDS]
 *
 * An object whose ETag is not the listed one (-ESTALE) is asked for again; wrong bytes end the program. */
#include "object/object.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define PARALLEL 16
#define STALE_MAX 100

struct item {
	char *key;
	char etag[CST_ETAG_MAX];
	uint64_t size;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct item *items;
	size_t count, next, finished;
	bool page_done;
	int rc;
	struct cst_buf token;
	bool truncated;
	unsigned stale;
	struct cst_error err;
} all = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static size_t page_from; /* items before it came with earlier pages */

static void on_entry(void *arg, const struct cst_object_list_entry *e)
{
	(void)arg;
	all.items = cst_xrealloc(all.items, (all.count + 1) * sizeof(*all.items));
	struct item *i = &all.items[all.count++];
	i->key = cst_xstrndup(e->info.key.data, e->info.key.len);
	i->size = e->info.size;
	memcpy(i->etag, e->info.etag, sizeof(i->etag));
}

static void on_restart(void *arg)
{
	(void)arg;
	while (all.count > page_from)
		free(all.items[--all.count].key);
}

static void on_page(void *arg, int rc, const struct cst_object_list_page *page, const struct cst_error *err)
{
	(void)arg;
	pthread_mutex_lock(&all.lock);
	all.rc = rc;
	if (rc < 0)
		all.err = *err;
	all.truncated = rc == 0 && page->truncated;
	cst_buf_clear(&all.token);
	if (all.truncated)
		cst_buf_add_slice(&all.token, page->next_token);
	all.page_done = true;
	pthread_cond_signal(&all.changed);
	pthread_mutex_unlock(&all.lock);
}

static bool list_all(struct cst_bucket *b)
{
	static const struct cst_object_list_ops ops = {on_entry, on_restart, on_page};
	CST_AUTO_BUF token = CST_BUF_INIT;
	do {
		struct cst_object_list list = {.token = cst_buf_slice(&token), .max_keys = 100};
		page_from = all.count;
		all.page_done = false;
		struct cst_object_op *op = cst_object_list(b, &list, &ops, NULL);
		pthread_mutex_lock(&all.lock);
		while (!all.page_done)
			pthread_cond_wait(&all.changed, &all.lock);
		pthread_mutex_unlock(&all.lock);
		cst_object_release(op);
		cst_buf_clear(&token);
		cst_buf_add_slice(&token, cst_buf_slice(&all.token));
	} while (all.rc == 0 && all.truncated);
	return all.rc == 0;
}

/* One reader: its buffer and the object it is at. */
struct reader {
	struct cst_bucket *bucket;
	int directory;
	char *buffer, *expected;
	size_t room, index;
	unsigned tries;
};
static size_t rounds = 1;

static void next(struct reader *r);

static void fail(const char *key, const char *text)
{
	fprintf(stderr, "object_reader: %s: %s\n", key, text);
	exit(1);
}

static void on_get(void *arg, int rc, size_t got, const struct cst_object_info *info, const struct cst_error *err);

static void start(struct reader *r)
{
	const struct item *i = &all.items[r->index];
	struct iovec into = {r->buffer, r->room};
	/* One byte more than there is: the end of the object counts, too. */
	struct cst_object_get get = {.key = cst_slice_of(i->key),
				     .length = i->size + 1,
				     .if_match = i->etag,
				     .into = &into,
				     .into_count = 1};
	struct cst_object_op *op = cst_object_get(r->bucket, &get, on_get, r);
	cst_object_release(op);
}

static void load_expected(struct reader *r)
{
	const struct item *i = &all.items[r->index];
	int fd = openat(r->directory, i->key, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || pread(fd, r->expected, r->room, 0) != (ssize_t)i->size)
		fail(i->key, "the local file differs from the listing");
	close(fd);
}

static void on_get(void *arg, int rc, size_t got, const struct cst_object_info *info, const struct cst_error *err)
{
	struct reader *r = arg;
	const struct item *i = &all.items[r->index];
	char text[CST_ERROR_TEXT_MAX];
	(void)info;
	if (rc == -ESTALE && r->tries++ < STALE_MAX) {
		__atomic_fetch_add(&all.stale, 1, __ATOMIC_RELAXED);
		start(r);
		return;
	}
	if (rc < 0)
		fail(i->key, cst_error_text(err, text, sizeof(text)));
	if (got != i->size)
		fail(i->key, "another length than listed");
	if (r->directory >= 0) {
		load_expected(r);
		if (memcmp(r->buffer, r->expected, got) != 0)
			fail(i->key, "wrong bytes");
	}
	pthread_mutex_lock(&all.lock);
	all.finished++;
	pthread_cond_signal(&all.changed);
	pthread_mutex_unlock(&all.lock);
	next(r);
}

/* Empty objects have no range to ask for. */
static void next(struct reader *r)
{
	for (;;) {
		pthread_mutex_lock(&all.lock);
		size_t turn = all.next;
		bool more = turn < all.count * rounds;
		all.next += more;
		r->index = more ? turn % all.count : 0;
		bool empty = more && all.items[r->index].size == 0;
		all.finished += empty;
		pthread_cond_signal(&all.changed);
		pthread_mutex_unlock(&all.lock);
		if (!more)
			return;
		r->tries = 0;
		if (!empty) {
			start(r);
			return;
		}
	}
}

static void run(struct cst_bucket *b, int directory)
{
	struct reader readers[PARALLEL];
	size_t room = 2;
	for (size_t i = 0; i < all.count; i++)
		room = cst_max(room, (size_t)all.items[i].size + 2);
	for (size_t i = 0; i < PARALLEL; i++) {
		readers[i] = (struct reader){.bucket = b,
					     .directory = directory,
					     .buffer = cst_xmalloc(room),
					     .expected = cst_xmalloc(room),
					     .room = room};
		next(&readers[i]);
	}
	pthread_mutex_lock(&all.lock);
	while (all.finished < all.count * rounds)
		pthread_cond_wait(&all.changed, &all.lock);
	pthread_mutex_unlock(&all.lock);
	/* The callbacks of the last ones may still be on their way out: the buffers go with the bucket. */
	cst_bucket_free(b);
	for (size_t i = 0; i < PARALLEL; i++) {
		free(readers[i].buffer);
		free(readers[i].expected);
	}
}

static double cpu_seconds(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv)
{
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	if (argc < 4 || argc > 5) {
		fprintf(stderr, "usage: object_reader ENDPOINT BUCKET DIRECTORY|- [ROUNDS]\n");
		return 2;
	}
	rounds = argc == 5 ? (size_t)atol(argv[4]) : 1;
	struct cst_http_client_config h = {.max_connections = PARALLEL};
	const char *ak = getenv("READER_ACCESS_KEY"), *sk = getenv("READER_SECRET_KEY");
	struct cst_credentials_config k = {
		.cloud = CST_CLOUD_OSS, .access_key = ak, .secret_key = sk, .anonymous = !ak};
	struct cst_bucket_config c = {.cloud = CST_CLOUD_OSS,
				      .bucket = argv[2],
				      .endpoint = argv[1],
				      .region = getenv("READER_REGION"),
				      .deadline = 60 * CST_NS_PER_S};
	c.http = cst_http_client_new(&h, &err);
	c.credentials = cst_credentials_new(&k, &err);
	struct cst_bucket *b = c.http && c.credentials ? cst_bucket_new(&c, &err) : NULL;
	if (!b || cst_bucket_probe(b, CST_SLICE(""), &err) < 0)
		fail(argv[2], cst_error_text(&err, text, sizeof(text)));
	if (!list_all(b))
		fail(argv[2], cst_error_text(&all.err, text, sizeof(text)));
	int directory = strcmp(argv[3], "-") == 0 ? -1 : open(argv[3], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0 && strcmp(argv[3], "-") != 0)
		fail(argv[3], strerror(errno));
	int64_t began = cst_now();
	double cpu = cpu_seconds();
	struct cst_bucket_stats before;
	cst_bucket_stats(b, &before);
	size_t total = all.count * rounds;
	run(b, directory);
	double seconds = (double)(cst_now() - began) / 1e9;
	printf("objects %zu reads %zu stale %u retries-while-listing %llu seconds %.2f cpu-us-per-read %.1f\n",
	       all.count, total, all.stale, (unsigned long long)before.retries, seconds,
	       total ? (cpu_seconds() - cpu) * 1e6 / (double)total : 0);
	for (size_t i = 0; i < all.count; i++)
		free(all.items[i].key);
	free(all.items);
	cst_buf_fini(&all.token);
	cst_http_client_free(c.http);
	cst_credentials_free(c.credentials);
	if (directory >= 0)
		close(directory);
	return 0;
}
