/* Many threads on a real disk: writers, readers, syncs and publications of a few files at once; then a restart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "stage/stage.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define FILES 2u
#define BLOCKS 64u
#define BLOCK 1000u
#define ROUNDS 150u

static char path[64];
static struct cst_stage *stage;
static struct cst_stage_file *files[FILES];
static unsigned writers_done;

static void open_stage(void)
{
	struct cst_stage_config config = {.path = path, .owner = "o", .journal_size = 1};
	assert_int_equal(cst_stage_open(&config, &stage, NULL), 0);
}

/* A block is one byte over and over: a read sees the whole of one write of it. */
static void *writer(void *arg)
{
	unsigned n = (unsigned)(uintptr_t)arg;
	unsigned seed = n;
	char data[BLOCK];
	for (unsigned i = 0; i < ROUNDS * 4; i++) {
		unsigned block = (unsigned)rand_r(&seed) % BLOCKS;
		memset(data, 1 + (int)((n + i) % 100), sizeof(data));
		assert_int_equal(cst_stage_write(files[n % FILES], block * BLOCK, data, sizeof(data)), 0);
		if (i % 50 == 0)
			assert_int_equal(cst_stage_sync(files[n % FILES]), 0);
	}
	__atomic_add_fetch(&writers_done, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void check_blocks(const char *data, ssize_t len)
{
	for (ssize_t at = 0; at + (ssize_t)BLOCK <= len; at += BLOCK)
		for (unsigned i = 1; i < BLOCK; i++)
			assert_int_equal(data[at + i], data[at]);
}

static void *reader(void *arg)
{
	unsigned n = (unsigned)(uintptr_t)arg;
	static __thread char data[BLOCKS * BLOCK];
	struct cst_stage_gap gap[8];
	while (__atomic_load_n(&writers_done, __ATOMIC_RELAXED) < 2 * FILES) {
		struct cst_stage_gaps gaps = {.gaps = gap, .room = 8};
		ssize_t got = cst_stage_read(files[n], 0, data, sizeof(data), &gaps);
		assert_true(got >= 0);
		assert_int_equal(gaps.count, 0);
		check_blocks(data, got);
	}
	return NULL;
}

/* What is sealed is the same at the beginning and the end of its publication. */
static void *publisher(void *arg)
{
	unsigned n = (unsigned)(uintptr_t)arg, count = 0;
	static __thread char first[BLOCKS * BLOCK], second[BLOCKS * BLOCK];
	struct cst_stage_gap gap[8];
	while (__atomic_load_n(&writers_done, __ATOMIC_RELAXED) < 2 * FILES || count == 0) {
		struct cst_stage_gaps gaps = {.gaps = gap, .room = 8};
		struct cst_stage_base version = {.exists = true};
		snprintf(version.etag, sizeof(version.etag), "v%u", ++count);
		assert_int_equal(cst_stage_seal(files[n], cst_slice_of(version.etag), count % 2), 0);
		ssize_t got = cst_stage_read_sealed(files[n], 0, first, sizeof(first), &gaps);
		assert_true(got >= 0 && gaps.count == 0);
		check_blocks(first, got);
		cst_stage_file_rest(files[n]);
		assert_int_equal(cst_stage_read_sealed(files[n], 0, second, sizeof(second), &gaps), got);
		assert_memory_equal(first, second, (size_t)got);
		int rc = count % 5 ? cst_stage_published(files[n], &version) : cst_stage_unpublished(files[n]);
		assert_int_equal(rc, 0);
	}
	return NULL;
}

/* Others come and go meanwhile. */
static void *small_files(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct cst_stage_base none = {0};
		struct cst_stage_file *f;
		struct cst_stage_stats stats;
		struct cst_stage_op op = {.kind = CST_RECORD_MKDIR, .path = CST_SLICE("d")};
		assert_int_equal(cst_stage_file_new(stage, CST_SLICE("small"), &none, false, &f), 0);
		assert_int_equal(cst_stage_write(f, 0, "small", 5), 0);
		assert_int_equal(cst_stage_sync(f), 0);
		assert_int_equal(cst_stage_op_begin(stage, &op), 0);
		assert_int_equal(cst_stage_op_done(stage, op.id), 0);
		cst_stage_stats(stage, &stats);
		assert_int_equal(cst_stage_file_forget(f), 0);
	}
	return NULL;
}

static void see(void *arg, struct cst_stage_file *f, const struct cst_stage_info *info)
{
	(void)info;
	for (unsigned i = 0; i < FILES; i++) {
		if (!((struct cst_stage_file **)arg)[i]) {
			((struct cst_stage_file **)arg)[i] = f;
			return;
		}
	}
	fail_msg("one file too many");
}

static void test_threads(void **state)
{
	static char before[FILES][BLOCKS * BLOCK], after[BLOCKS * BLOCK];
	pthread_t threads[16];
	unsigned count = 0;
	struct cst_stage_gap gap[8];
	struct cst_stage_gaps gaps = {.gaps = gap, .room = 8};
	(void)state;
	open_stage();
	for (unsigned i = 0; i < FILES; i++) {
		struct cst_stage_base none = {0};
		assert_int_equal(cst_stage_file_new(stage, CST_SLICE("f"), &none, false, &files[i]), 0);
	}
	for (uintptr_t i = 0; i < FILES; i++) {
		pthread_create(&threads[count++], NULL, writer, (void *)i);
		pthread_create(&threads[count++], NULL, writer, (void *)(i + FILES));
		pthread_create(&threads[count++], NULL, reader, (void *)i);
		pthread_create(&threads[count++], NULL, publisher, (void *)i);
	}
	pthread_create(&threads[count++], NULL, small_files, NULL);
	while (count)
		pthread_join(threads[--count], NULL);
	for (unsigned i = 0; i < FILES; i++) {
		/* So that all of it is dirty, and found after the restart. */
		assert_true(cst_stage_read(files[i], 0, before[i], sizeof(before[i]), &gaps) > 0);
		assert_int_equal(cst_stage_write(files[i], 0, before[i], sizeof(before[i])), 0);
		assert_int_equal(cst_stage_sync(files[i]), 0);
		files[i] = NULL;
	}
	cst_stage_close(stage);
	open_stage();
	cst_stage_each(stage, see, files);
	for (unsigned i = 0; i < FILES; i++) {
		assert_non_null(files[i]);
		assert_int_equal(cst_stage_read(files[i], 0, after, sizeof(after), &gaps), sizeof(after));
		assert_int_equal(gaps.count, 0);
		assert_memory_equal(before[i], after, sizeof(after));
	}
	cst_stage_close(stage);
}

static int path_make(void **state)
{
	(void)state;
	snprintf(path, sizeof(path), "/tmp/cistern-stage-XXXXXX");
	return mkdtemp(path) ? 0 : -1;
}

static int path_remove(void **state)
{
	(void)state;
	CST_AUTO_FREE char *command = cst_xasprintf("rm -rf '%s'", path);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_threads, path_make, path_remove),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
