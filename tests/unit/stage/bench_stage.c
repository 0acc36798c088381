/* What the staging area costs: syncs, bytes and time of confirmed writes. Usage: bench_stage DIRECTORY (made; on the disk that is to be measured) */
#include "base/clock.h"
#include "stage/stage.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

static struct cst_stage *stage;
static const struct cst_stage_base none;
static char data[1 << 20];

struct mark {
	int64_t wall, cpu;
	struct cst_stage_stats stats;
};

static struct mark mark(void)
{
	struct mark m;
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	m.wall = cst_now();
	m.cpu = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * CST_NS_PER_S +
		(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * CST_NS_PER_US;
	cst_stage_stats(stage, &m.stats);
	return m;
}

static void tell(const char *what, uint64_t confirmed, const struct mark *from)
{
	struct mark to = mark();
	double n = (double)confirmed;
	uint64_t bytes = to.stats.bytes_written - from->stats.bytes_written;
	uint64_t log = to.stats.journal.bytes_written - from->stats.journal.bytes_written;
	printf("%-44s %9.0f/s %8.1f us CPU each; syncs each: data %.3f, journal %.3f; journal bytes each %.0f (%.2f %% of the data)\n",
	       what, n * 1e9 / (double)(to.wall - from->wall), (double)(to.cpu - from->cpu) / n / 1e3,
	       (double)(to.stats.datasyncs - from->stats.datasyncs) / n,
	       (double)(to.stats.journal.syncs - from->stats.journal.syncs) / n, (double)log / n,
	       bytes ? 100.0 * (double)log / (double)bytes : 0);
}

static void must(int rc, const char *what)
{
	if (rc < 0) {
		fprintf(stderr, "%s: %s\n", what, strerror(-rc));
		exit(1);
	}
}

static void small_file(bool forget)
{
	struct cst_stage_file *f;
	must(cst_stage_file_new(stage, CST_SLICE("some/directory/with/a/file"), &none, false, &f), "new");
	must(cst_stage_write(f, 0, data, 4096), "write");
	must(cst_stage_sync(f), "sync");
	if (forget)
		must(cst_stage_file_forget(f), "forget");
}

static void *many_small(void *arg)
{
	for (unsigned i = 0; i < *(unsigned *)arg; i++)
		small_file(true);
	return NULL;
}

static void measure_small(unsigned threads, unsigned each)
{
	pthread_t ids[64];
	char text[64];
	struct mark m = mark();
	for (unsigned i = 0; i < threads; i++)
		pthread_create(&ids[i], NULL, many_small, &each);
	for (unsigned i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
	snprintf(text, sizeof(text), "new files of 4 KiB, confirmed, %u thread%s", threads, threads > 1 ? "s" : "");
	tell(text, threads * (uint64_t)each, &m);
}

static void measure_random(struct cst_stage_file *f)
{
	unsigned seed = 1;
	struct mark m = mark();
	for (unsigned i = 0; i < 500; i++) {
		must(cst_stage_write(f, (uint64_t)(rand_r(&seed) % 65536) * 4096, data, 4096), "write");
		must(cst_stage_sync(f), "sync");
	}
	tell("4 KiB anywhere in 256 MiB, each confirmed", 500, &m);
	m = mark();
	for (unsigned i = 0; i < 100000; i++)
		must(cst_stage_write(f, (uint64_t)(rand_r(&seed) % 65536) * 4096, data, 4096), "write");
	must(cst_stage_sync(f), "sync");
	tell("4 KiB anywhere, one sync at the end", 100000, &m);
}

static void measure_sequential(void)
{
	struct cst_stage_file *f;
	must(cst_stage_file_new(stage, CST_SLICE("large"), &none, false, &f), "new");
	struct mark m = mark();
	for (unsigned i = 0; i < 1024; i++)
		must(cst_stage_write(f, (uint64_t)i << 20, data, sizeof(data)), "write");
	tell("1 MiB from front to end, not confirmed (MiB)", 1024, &m);
	must(cst_stage_sync(f), "sync");
	tell("the same and one sync (MiB)", 1024, &m);
	must(cst_stage_file_forget(f), "forget");
	m = mark();
	must(cst_stage_file_new(stage, CST_SLICE("random"), &none, false, &f), "new");
	measure_random(f);
	must(cst_stage_file_forget(f), "forget");
}

int main(int argc, char **argv)
{
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	struct cst_stage_config config = {.path = argc == 2 ? argv[1] : "", .owner = "bench"};
	if (cst_stage_open(&config, &stage, &err) < 0) {
		fprintf(stderr, "%s\n", cst_error_text(&err, text, sizeof(text)));
		return 1;
	}
	setlinebuf(stdout);
	memset(data, 'x', sizeof(data));
	measure_small(1, 500);
	measure_small(16, 100);
	measure_sequential();
	struct mark m = mark();
	for (unsigned i = 0; i < 1000; i++)
		small_file(false);
	tell("new files of 4 KiB that stay", 1000, &m);
	struct cst_stage_stats stats;
	cst_stage_stats(stage, &stats);
	printf("%" PRIu64 " files staged: %" PRIu64 " bytes a file in a checkpoint at most, journal files %" PRIu64
	       " bytes\n",
	       stats.files, stats.journal.state / stats.files, stats.journal.capacity);
	cst_stage_close(stage);
	return 0;
}
