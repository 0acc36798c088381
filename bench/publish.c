/* Sequential writing through the publish layer, without a file system, against a store that runs already:
 *
 *	publish URL BUCKET MIB [s3] [memory=MIB] [part=MIB] [parallel=N] [write=KIB] [streams=N] [nocrc] [files=N]
 *
 * One writer (or `streams` of them in turn) writes MIB in pieces of `write` (1024 KiB) as a file system would, each after the one before, and syncs at the end.
 * With files=N: N objects of `write` bytes each instead, one after the other. Prints one JSON object. */
#include "base/clock.h"
#include "base/pool.h"
#include "publish/publish.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool done;
	int rc;
	char text[CST_ERROR_TEXT_MAX];
};

static void tell(struct waiter *w, int rc, const struct cst_error *err)
{
	pthread_mutex_lock(&w->lock);
	w->done = true;
	w->rc = rc;
	if (err)
		cst_error_text(err, w->text, sizeof(w->text));
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

static void wait_for(struct waiter *w)
{
	pthread_mutex_lock(&w->lock);
	while (!w->done)
		pthread_cond_wait(&w->changed, &w->lock);
	w->done = false;
	pthread_mutex_unlock(&w->lock);
	if (w->rc < 0) {
		fprintf(stderr, "%s\n", w->text);
		exit(1);
	}
}

static void on_write(struct cst_publish_write *w, int rc, const struct cst_error *err)
{
	tell(w->arg, rc, err);
}

static void on_sync(struct cst_publish_sync *y, int rc, const struct cst_object_info *version,
		    const struct cst_error *err)
{
	(void)version;
	tell(y->arg, rc, err);
}

static unsigned option(int argc, char **argv, const char *name, unsigned otherwise)
{
	size_t n = strlen(name);
	for (int i = 4; i < argc; i++)
		if (strncmp(argv[i], name, n) == 0 && (argv[i][n] == '=' || argv[i][n] == '\0'))
			return argv[i][n] ? (unsigned)strtoul(argv[i] + n + 1, NULL, 0) : 1;
	return otherwise;
}

static struct cst_publish *open_publish(int argc, char **argv, struct cst_bucket **bucket)
{
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	struct cst_loop_group *loops = cst_loop_group_new("data", 2, &err);
	struct cst_http_client_config http = {.loops = loops};
	struct cst_bucket_config config = {.cloud = option(argc, argv, "s3", 0) ? CST_CLOUD_S3 : CST_CLOUD_OSS,
					   .bucket = argv[2],
					   .endpoint = argv[1],
					   .region = "local"};
	config.http = loops ? cst_http_client_new(&http, &err) : NULL;
	*bucket = config.http ? cst_bucket_new(&config, &err) : NULL;
	struct cst_publish_config pc = {.bucket = *bucket,
					.memory = (uint64_t)option(argc, argv, "memory", 0) << 20,
					.part_size = (uint64_t)option(argc, argv, "part", 0) << 20,
					.stream_parallel = option(argc, argv, "parallel", 0),
					.verify_crc64 = !option(argc, argv, "nocrc", 0),
					.keep_dir = "/tmp/cistern-bench-kept",
					.writer = "bench"};
	struct cst_publish *p = *bucket ? cst_publish_new(&pc, &err) : NULL;
	if (!p) {
		fprintf(stderr, "%s\n", cst_error_text(&err, text, sizeof(text)));
		exit(1);
	}
	return p;
}

static struct cst_publish_stream *open_stream(struct cst_publish *p, unsigned number)
{
	char key[32];
	snprintf(key, sizeof(key), "out/%ld-%u", (long)getpid(), number);
	struct cst_publish_open open = {.key = cst_slice_of(key)};
	return cst_publish_stream_open(p, &open);
}

static void write_piece(struct cst_publish_stream *s, struct waiter *w, uint64_t offset, const char *data, size_t len)
{
	struct cst_publish_write piece = {.offset = offset, .data = {data, len}, .done = on_write, .arg = w};
	cst_publish_write(s, &piece);
	wait_for(w);
}

static void sync_stream(struct cst_publish_stream *s, struct waiter *w)
{
	struct cst_publish_sync sync = {.done = on_sync, .arg = w};
	cst_publish_sync(s, &sync);
	wait_for(w);
}

static uint64_t write_streams(struct cst_publish *p, unsigned streams, uint64_t size, const char *data, size_t piece)
{
	struct waiter w = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
	struct cst_publish_stream **s = cst_xcalloc(streams, sizeof(struct cst_publish_stream *));
	uint64_t at = 0;
	for (unsigned i = 0; i < streams; i++)
		s[i] = open_stream(p, i);
	for (; at < size / streams; at += piece)
		for (unsigned i = 0; i < streams; i++)
			write_piece(s[i], &w, at, data, piece);
	for (unsigned i = 0; i < streams; i++) {
		sync_stream(s[i], &w);
		cst_publish_stream_close(s[i], false);
	}
	free(s);
	return at * streams;
}

static uint64_t write_files(struct cst_publish *p, unsigned files, const char *data, size_t piece)
{
	struct waiter w = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
	for (unsigned i = 0; i < files; i++) {
		struct cst_publish_stream *s = open_stream(p, i);
		cst_publish_stream_touch(s);
		write_piece(s, &w, 0, data, piece);
		sync_stream(s, &w);
		cst_publish_stream_close(s, false);
	}
	return (uint64_t)files * piece;
}

static double cpu(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* MiB; getrusage would tell the largest of those who were this process before exec, too. */
static double peak_rss(void)
{
	char line[128];
	double kib = 0;
	FILE *f = fopen("/proc/self/status", "re");
	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, "VmHWM:", 6) == 0)
			kib = strtod(line + 6, NULL);
	if (f)
		fclose(f);
	return kib / 1024;
}

int main(int argc, char **argv)
{
	struct cst_bucket *bucket;
	struct cst_publish_stats s;
	if (argc < 4) {
		fprintf(stderr,
			"usage: publish URL BUCKET MIB [s3] [memory=MIB] [part=MIB] [parallel=N] [write=KIB] [streams=N] "
			"[files=N] [nocrc]\n");
		return 2;
	}
	size_t piece = (size_t)option(argc, argv, "write", 1024) << 10;
	unsigned files = option(argc, argv, "files", 0);
	char *data = cst_xmalloc(piece);
	for (size_t i = 0; i < piece; i++)
		data[i] = (char)(i * 2654435761u >> 11);
	struct cst_publish *p = open_publish(argc, argv, &bucket);
	double before = cpu();
	int64_t began = cst_now();
	uint64_t bytes = files ? write_files(p, files, data, piece)
			       : write_streams(p, option(argc, argv, "streams", 1), strtoull(argv[3], NULL, 0) << 20,
					       data, piece);
	double seconds = (double)(cst_now() - began) / 1e9;
	cst_publish_stats(p, &s);
	printf("{\"bytes\": %llu, \"seconds\": %.4f, \"cpu\": %.3f, \"rss\": %.1f, \"memory_peak\": %.1f, \"puts\": %llu, \"parts\": "
	       "%llu, \"publications\": %llu, \"spilled\": %llu}\n",
	       (unsigned long long)bytes, seconds, cpu() - before, peak_rss(),
	       (double)s.memory_peak / 1048576, (unsigned long long)s.puts, (unsigned long long)s.parts,
	       (unsigned long long)s.publications, (unsigned long long)s.bytes_spilled);
	cst_publish_free(p);
	return 0;
}
