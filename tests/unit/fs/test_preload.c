/* Programs that walk a tree, preloads and saved listings, through the file system: how many requests they cost, and that what they show is right
 * whatever changes meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/pool.h"
#include "fake_host.h"
#include "fs/preload.h"

#include <errno.h>
#include <unistd.h>

static struct fake_mount m;
static struct cst_error err;
static char saved[64];

static int setup(void **state)
{
	(void)state;
	fake_config(&m);
	m.config.preload_walks = true;
	snprintf(saved, sizeof(saved), "/tmp/cst-listings-XXXXXX");
	assert_non_null(mkdtemp(saved));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_end(&m);
	CST_AUTO_FREE char *command = cst_xasprintf("rm -rf '%s'", saved);
	return system(command);
}

static void make_tree(unsigned dirs, unsigned files)
{
	char key[64];
	for (unsigned d = 0; d < dirs; d++)
		for (unsigned f = 0; f < files; f++) {
			snprintf(key, sizeof(key), "d%03u/f%02u", d, f);
			fake_put(m.bucket, key, 10, "e", 1, NULL);
		}
}

static unsigned requests(void)
{
	struct fake_counts counts = fake_counts(m.bucket);
	return counts.lists + counts.heads;
}

/* Lists a directory below the root; how many names it has. */
static unsigned list(const char *name)
{
	struct cst_fs_entry e;
	unsigned count = 0;
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, name, &e), 0);
	char *names = do_ls(&m, e.node, true);
	for (const char *at = names; *at; at++)
		count += *at == ' ';
	free(names);
	return count;
}

static unsigned list_number(unsigned d)
{
	char name[16];
	snprintf(name, sizeof(name), "d%03u", d);
	return list(name);
}

static void preload(const char *path, enum cst_preload_end end)
{
	struct cst_preload_progress progress;
	struct cst_fs_preload *p = cst_fs_preload_start(m.fs, path, &err);
	assert_non_null(p);
	while (!cst_fs_preload_wait(p, CST_NS_PER_S, &progress, NULL))
		;
	assert_int_equal(progress.end, end);
	cst_fs_preload_free(p);
}

static void a_walk_is_listed_ahead_of(void **state)
{
	(void)state;
	make_tree(200, 20);
	fake_page_size(m.bucket, 200); /* 20 pages of keys, one of directories */
	fake_start(&m);
	free(do_ls(&m, CST_FS_ROOT, true));
	for (unsigned d = 0; d < 200; d++)
		assert_int_equal(list_number(d), 20);
	assert_in_range(requests(), 22, 100);
	fake_reset_counts(m.bucket);
	for (unsigned d = 0; d < 200; d++)
		assert_int_equal(list_number(d), 20);
	assert_int_equal(requests(), 0);
}

static void single_directories_are_no_walk(void **state)
{
	(void)state;
	make_tree(30, 3);
	fake_start(&m);
	free(do_ls(&m, CST_FS_ROOT, true));
	fake_reset_counts(m.bucket);
	static const unsigned order[] = {9, 3, 7, 1, 8, 2, 6, 0}; /* never three in a row */
	for (size_t i = 0; i < CST_ARRAY_LEN(order); i++)
		assert_int_equal(list_number(order[i]), 3);
	assert_int_equal(requests(), CST_ARRAY_LEN(order));
	/* Nor are three that are known. */
	fake_reset_counts(m.bucket);
	for (unsigned d = 0; d < 4; d++)
		list_number(d);
	for (unsigned d = 6; d < 10; d++)
		list_number(d);
	assert_int_equal(requests(), 0);
}

static void a_second_walk_is_listed_ahead_of_too(void **state)
{
	(void)state;
	make_tree(60, 10);
	fake_page_size(m.bucket, 100);
	fake_start(&m);
	free(do_ls(&m, CST_FS_ROOT, true));
	for (unsigned d = 0; d < 10; d++) /* stops soon */
		list_number(d);
	fake_pass(100 * CST_NS_PER_S); /* all is old */
	free(do_ls(&m, CST_FS_ROOT, true));
	fake_reset_counts(m.bucket);
	for (unsigned d = 0; d < 60; d++)
		assert_int_equal(list_number(d), 10);
	assert_in_range(requests(), 6, 40);
}

static void a_preload_answers_for_all(void **state)
{
	struct cst_fs_entry e;
	(void)state;
	make_tree(20, 5);
	fake_put(m.bucket, "d003/deep/er/x", 10, "e", 1, NULL);
	fake_start(&m);
	preload("", CST_PRELOAD_WHOLE);
	fake_reset_counts(m.bucket);
	free(do_ls(&m, CST_FS_ROOT, true));
	for (unsigned d = 0; d < 20; d++)
		assert_int_equal(list_number(d), d == 3 ? 6 : 5);
	assert_int_equal(do_path(&m, "d003/deep/er/x", &e), 0);
	assert_int_equal(do_path(&m, "d003/deep/er/y", &e), -ENOENT);
	assert_int_equal(requests(), 0);
	/* Of a part, of a file, of nothing, of what can't be. */
	fake_pass(100 * CST_NS_PER_S);
	preload("d003", CST_PRELOAD_WHOLE);
	fake_reset_counts(m.bucket);
	list("d003");
	assert_in_range(requests(), 0, 2); /* for its name alone */
	preload("d003/f01", CST_PRELOAD_WHOLE);
	preload("nothing/there", CST_PRELOAD_WHOLE);
	assert_null(cst_fs_preload_start(m.fs, "a//b", &err));
	assert_null(cst_fs_preload_start(m.fs, "..", &err));
}

static void a_refresh_goes_before_what_was_brought(void **state)
{
	struct cst_fs_refresh_result result;
	struct cst_fs_entry e;
	(void)state;
	make_tree(5, 5);
	fake_start(&m);
	preload("", CST_PRELOAD_WHOLE);
	fake_put(m.bucket, "d002/new", 10, "e", 1, NULL);
	fake_pass(CST_NS_PER_S / 100);
	assert_int_equal(cst_fs_refresh(m.fs, "", &result, &err), 0);
	assert_int_equal(list("d002"), 6);
	assert_int_equal(do_path(&m, "d002/new", &e), 0);
	/* One that began before a refresh brings nothing. */
	fake_pass(100 * CST_NS_PER_S);
	fake_hold(m.bucket, true);
	struct cst_fs_preload *p = cst_fs_preload_start(m.fs, "", &err);
	fake_wait_held(m.bucket, 2);
	cst_fs_preload_free(p);
	fake_hold(m.bucket, false);
}

static void what_the_kernel_forgets_is_known_again(void **state)
{
	struct cst_fs_entry e, other;
	struct cst_fs_stats stats;
	(void)state;
	make_tree(3, 3);
	fake_start(&m);
	free(do_ls(&m, CST_FS_ROOT, false));
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "d001", &e), 0);
	free(do_ls(&m, e.node, false));
	cst_fs_forget(m.fs, e.node, 1);
	/* What has answered may still hold it for a moment. */
	for (cst_fs_stats(m.fs, &stats); stats.inodes > 1; cst_fs_stats(m.fs, &stats))
		cst_sleep(CST_NS_PER_MS);
	fake_reset_counts(m.bucket);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "d001", &other), 0);
	assert_true(other.node != e.node);
	free(do_ls(&m, other.node, false));
	assert_int_equal(requests(), 0);
}

static void saved_listings_are_listed_again(void **state)
{
	struct cst_fs_entry e;
	char path[128];
	(void)state;
	snprintf(path, sizeof(path), "%s/one", saved);
	m.config.snapshot_path = path;
	m.config.snapshot_identity = "this";
	m.config.snapshot_age = 3600 * CST_NS_PER_S;
	make_tree(5, 5);
	fake_start(&m);
	preload("", CST_PRELOAD_WHOLE);
	list("d002");
	cst_fs_free(m.fs);
	fake_put(m.bucket, "d002/new", 10, "e", 1, NULL);
	fake_start(&m);
	fake_reset_counts(m.bucket);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "d002", &e), 0);
	free(do_ls(&m, e.node, true));
	/* What is there now shows in a moment, without anybody's waiting. */
	while (do_path(&m, "d002/new", &e) != 0)
		usleep(1000);
	assert_in_range(fake_counts(m.bucket).lists, 2, 3);
}

/* Walks, preloads, changes, refreshes and forgetting, all at once: nothing is lost or shown twice, and it comes to an end. */
static bool ending;

static void *walk_again(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	while (!__atomic_load_n(&ending, __ATOMIC_ACQUIRE)) {
		unsigned from = (unsigned)rand_r(&seed) % 40;
		for (unsigned d = from; d < 60; d++)
			if (list_number(d) < 10)
				abort();
		fake_pass(20 * CST_NS_PER_S);
	}
	return NULL;
}

static void all_at_once(void **state)
{
	unsigned long threads[3];
	struct cst_fs_refresh_result result;
	char key[32];
	(void)state;
	make_tree(60, 10);
	fake_page_size(m.bucket, 70);
	fake_start(&m);
	ending = false;
	for (uintptr_t i = 0; i < 3; i++)
		assert_int_equal(cst_thread_start(&threads[i], "walk", 0, walk_again, (void *)(i + 1)), 0);
	for (unsigned i = 0; i < 30; i++) {
		struct cst_fs_preload *p = cst_fs_preload_start(m.fs, i % 3 ? "" : "d007", &err);
		struct cst_preload_progress progress;
		snprintf(key, sizeof(key), "d%03u/new%u", i, i);
		fake_put(m.bucket, key, 1, "n", 2, NULL);
		if (i % 4 == 0)
			assert_int_equal(cst_fs_refresh(m.fs, "", &result, &err), 0);
		cst_fs_preload_wait(p, (i % 5) * CST_NS_PER_MS, &progress, NULL);
		cst_fs_preload_free(p);
	}
	__atomic_store_n(&ending, true, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	fake_pass(100 * CST_NS_PER_S);
	for (unsigned d = 0; d < 60; d++)
		assert_int_equal(list_number(d), d < 30 ? 11 : 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_walk_is_listed_ahead_of, setup, teardown),
		cmocka_unit_test_setup_teardown(single_directories_are_no_walk, setup, teardown),
		cmocka_unit_test_setup_teardown(a_second_walk_is_listed_ahead_of_too, setup, teardown),
		cmocka_unit_test_setup_teardown(a_preload_answers_for_all, setup, teardown),
		cmocka_unit_test_setup_teardown(a_refresh_goes_before_what_was_brought, setup, teardown),
		cmocka_unit_test_setup_teardown(what_the_kernel_forgets_is_known_again, setup, teardown),
		cmocka_unit_test_setup_teardown(saved_listings_are_listed_again, setup, teardown),
		cmocka_unit_test_setup_teardown(all_at_once, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
