/* Latency and cost of GETs through the object layer, against a store that runs already:
 *
 *	object_get URL BUCKET KEY COUNT LENGTH LANES [hedge] [background] [sign] [receive=BYTES]
 *
 * LANES at a time read LENGTH bytes at offsets that step through the object, each with If-Match. Prints percentiles, requests,
 * bytes and CPU. With `sign` requests are signed (with a made-up key: for stores that take any). */
#include "base/clock.h"
#include "base/pool.h"
#include "object/object.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

struct run {
	struct cst_bucket *bucket;
	const char *key;
	char etag[CST_ETAG_MAX];
	uint64_t size, length, count;
	int64_t *took;
	uint64_t next, failed; /* atomic */
	bool background;
	sem_t ended;
};

struct lane {
	struct run *run;
	struct iovec memory;
	uint64_t number;
	int64_t began;
};

static void lane_next(struct lane *lane);

static void lane_done(void *arg, int rc, size_t got, const struct cst_object_info *info, const struct cst_error *err)
{
	struct lane *lane = arg;
	struct run *run = lane->run;
	(void)info, (void)err;
	run->took[lane->number] = cst_now() - lane->began;
	if (rc < 0 || got != run->length)
		__atomic_fetch_add(&run->failed, 1, __ATOMIC_RELAXED);
	lane_next(lane);
}

static void lane_next(struct lane *lane)
{
	struct run *run = lane->run;
	lane->number = __atomic_fetch_add(&run->next, 1, __ATOMIC_RELAXED);
	if (lane->number >= run->count) {
		sem_post(&run->ended);
		return;
	}
	uint64_t places = run->size / run->length;
	struct cst_object_get get = {.key = cst_slice_of(run->key),
				     .offset = lane->number * 7 % places * run->length,
				     .length = run->length,
				     .if_match = run->etag,
				     .into = &lane->memory,
				     .into_count = 1,
				     .background = run->background};
	lane->began = cst_now();
	cst_object_release(cst_object_get(run->bucket, &get, lane_done, lane));
}

static void on_head(void *arg, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct run *run = arg;
	char text[CST_ERROR_TEXT_MAX];
	if (rc < 0) {
		fprintf(stderr, "%s\n", cst_error_text(err, text, sizeof(text)));
		exit(1);
	}
	memcpy(run->etag, info->etag, sizeof(run->etag));
	run->size = info->size;
	sem_post(&run->ended);
}

static int by_value(const void *a, const void *b)
{
	const int64_t *x = a, *y = b;
	return *x < *y ? -1 : *x > *y;
}

static bool given(int argc, char **argv, const char *word)
{
	for (int i = 7; i < argc; i++)
		if (strcmp(argv[i], word) == 0)
			return true;
	return false;
}

static int receive_buffer(int argc, char **argv)
{
	for (int i = 7; i < argc; i++)
		if (strncmp(argv[i], "receive=", 8) == 0)
			return atoi(argv[i] + 8);
	return 0;
}

static struct cst_bucket *open_bucket(int argc, char **argv)
{
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	struct cst_loop_group *loops = cst_loop_group_new("data", 2, &err);
	struct cst_http_client_config http = {.loops = loops, .receive_buffer = receive_buffer(argc, argv)};
	struct cst_credentials_config keys = {.cloud = CST_CLOUD_OSS,
					      .bucket = argv[2],
					      .anonymous = !given(argc, argv, "sign"),
					      .access_key = "bench",
					      .secret_key = "bench-secret"};
	struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS,
					   .bucket = argv[2],
					   .endpoint = argv[1],
					   .region = "cn-hangzhou",
					   .hedge = given(argc, argv, "hedge")};
	config.http = loops ? cst_http_client_new(&http, &err) : NULL;
	config.credentials = config.http ? cst_credentials_new(&keys, &err) : NULL;
	struct cst_bucket *b = config.credentials ? cst_bucket_new(&config, &err) : NULL;
	if (!b) {
		fprintf(stderr, "%s\n", cst_error_text(&err, text, sizeof(text)));
		exit(1);
	}
	return b;
}

static double cpu(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void print(const struct run *run, double seconds, double spent)
{
	struct cst_bucket_stats s;
	cst_bucket_stats(run->bucket, &s);
	qsort(run->took, run->count, sizeof(*run->took), by_value);
	printf("p50 %.3f  p90 %.3f  p95 %.3f  p99 %.3f  p99.5 %.3f  max %.3f ms\n",
	       (double)run->took[run->count / 2] / 1e6, (double)run->took[run->count * 90 / 100] / 1e6,
	       (double)run->took[run->count * 95 / 100] / 1e6, (double)run->took[run->count * 99 / 100] / 1e6,
	       (double)run->took[run->count * 995 / 1000] / 1e6, (double)run->took[run->count - 1] / 1e6);
	printf("%llu GETs in %.2f s (%.0f/s, %.1f MB/s), %llu requests (%+.2f %%), %llu hedged, %llu of them won, "
	       "%llu retries, %.4f x the bytes, %llu failed\n",
	       (unsigned long long)run->count, seconds, (double)run->count / seconds,
	       (double)(run->count * run->length) / seconds / 1e6, (unsigned long long)s.get,
	       100.0 * ((double)s.get / (double)run->count - 1), (unsigned long long)s.hedges,
	       (unsigned long long)s.hedge_wins, (unsigned long long)s.retries,
	       (double)s.bytes_in / (double)(run->count * run->length), (unsigned long long)run->failed);
	printf("CPU %.2f s: %.1f us per GET, %.3f s per GB\n", spent, spent * 1e6 / (double)run->count,
	       spent * 1e9 / (double)(run->count * run->length));
}

int main(int argc, char **argv)
{
	struct run run = {0};
	if (argc < 7) {
		fprintf(stderr, "usage: object_get URL BUCKET KEY COUNT LENGTH LANES [hedge] [background] [sign]\n");
		return 2;
	}
	run.bucket = open_bucket(argc, argv);
	run.key = argv[3];
	run.count = strtoull(argv[4], NULL, 0);
	run.length = strtoull(argv[5], NULL, 0);
	run.background = given(argc, argv, "background");
	run.took = cst_xcalloc(run.count, sizeof(*run.took));
	unsigned lanes = (unsigned)strtoul(argv[6], NULL, 0);
	sem_init(&run.ended, 0, 0);
	cst_object_release(cst_object_head(run.bucket, cst_slice_of(run.key), true, on_head, &run));
	sem_wait(&run.ended);
	CST_ASSERT(run.size >= run.length && run.count > 0);
	struct lane *list = cst_xcalloc(lanes, sizeof(*list));
	int64_t began = cst_now();
	double before = cpu();
	for (unsigned i = 0; i < lanes; i++) {
		list[i] = (struct lane){.run = &run, .memory = {cst_xmalloc(run.length), run.length}};
		lane_next(&list[i]);
	}
	for (unsigned i = 0; i < lanes; i++)
		sem_wait(&run.ended);
	print(&run, (double)(cst_now() - began) / 1e9, cpu() - before);
	return run.failed > 0;
}
