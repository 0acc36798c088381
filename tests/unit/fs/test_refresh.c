/* Refresh: what changed in the store is known at once, what didn't stays as it was, and nothing waits for anything else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/pool.h"
#include "fake_host.h"

#include <errno.h>

static struct fake_mount m;
static struct cst_fs_refresh_result result;
static struct cst_error err;

static int setup(void **state)
{
	(void)state;
	fake_config(&m);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_end(&m);
	return 0;
}

/* A moment later than what is known. */
static int refresh(const char *path)
{
	fake_pass(CST_NS_PER_S / 100);
	cst_error_clear(&err);
	return cst_fs_refresh(m.fs, path, &result, &err);
}

static void assert_result(unsigned directories, unsigned changed, unsigned added, unsigned gone)
{
	assert_int_equal(result.directories, directories);
	assert_int_equal(result.changed, changed);
	assert_int_equal(result.added, added);
	assert_int_equal(result.gone, gone);
}

static void assert_ls(uint64_t node, const char *names)
{
	char *all = do_ls(&m, node, true);
	assert_string_equal(all, names);
	free(all);
}

static void what_is_the_same_stays(void **state)
{
	struct cst_fs_entry a, d, x, e;
	(void)state;
	fake_put(m.bucket, "a", 10, "one", 1, NULL);
	fake_put(m.bucket, "d/x", 10, "x", 1, NULL);
	fake_put(m.bucket, "unused/y", 10, "y", 1, NULL);
	fake_start(&m);
	assert_ls(CST_FS_ROOT, "a d unused ");
	assert_int_equal(do_path(&m, "a", &a), 0);
	assert_int_equal(do_path(&m, "d", &d), 0);
	assert_ls(d.node, "x ");
	assert_int_equal(do_path(&m, "d/x", &x), 0);
	fake_reset_counts(m.bucket);
	assert_int_equal(refresh(""), 0);
	assert_result(2, 0, 0, 0);
	assert_int_equal(fake_counts(m.bucket).lists, 2); /* not those of which nothing is known */
	assert_int_equal(fake_counts(m.bucket).heads, 0);
	assert_int_equal(fake_expired.len, 0);
	assert_int_equal(do_path(&m, "a", &e), 0);
	assert_true(e.node == a.node);
	assert_int_equal(do_path(&m, "d/x", &e), 0);
	assert_true(e.node == x.node);
	/* It was asked for now: its time begins again. */
	fake_pass(59 * CST_NS_PER_S + CST_NS_PER_S / 2);
	assert_int_equal(do_path(&m, "d/x", &e), 0);
	assert_int_equal(fake_counts(m.bucket).lists, 2);
	assert_int_equal(fake_counts(m.bucket).heads, 0);
}

static void what_changed_shows(void **state)
{
	struct cst_fs_entry old, goes, e;
	struct cst_fs_attr attr;
	uint64_t fh;
	CST_AUTO_BUF data = CST_BUF_INIT;
	(void)state;
	m.config.kernel_cache = true;
	fake_put(m.bucket, "a", 10, "one", 1, NULL);
	fake_put(m.bucket, "goes", 10, "one", 1, NULL);
	fake_put(m.bucket, "stays", 10, "one", 1, NULL);
	fake_start(&m);
	assert_ls(CST_FS_ROOT, "a goes stays ");
	assert_int_equal(do_path(&m, "a", &old), 0);
	assert_int_equal(do_path(&m, "goes", &goes), 0);
	assert_int_equal(do_open(&m, old.node, &fh), 0);
	assert_int_equal(do_read(&m, old.node, fh, 0, 10, &data), 0);
	fake_put(m.bucket, "a", 20, "two", 2, NULL);
	fake_put(m.bucket, "comes", 5, "new", 2, NULL);
	fake_delete(m.bucket, "goes");
	assert_int_equal(do_path(&m, "comes", &e), -ENOENT);
	fake_reset_counts(m.bucket);
	assert_int_equal(refresh(""), 0);
	assert_result(1, 1, 1, 1);
	assert_true(fake_was_expired(CST_FS_ROOT, "a"));
	assert_true(fake_was_expired(CST_FS_ROOT, "goes"));
	assert_false(fake_was_expired(CST_FS_ROOT, "stays"));
	assert_int_equal(do_path(&m, "a", &e), 0);
	assert_true(e.node != old.node && e.attr.st.st_ino != old.attr.st.st_ino);
	assert_int_equal(e.attr.st.st_size, 20);
	assert_int_equal(do_path(&m, "goes", &e), -ENOENT);
	assert_int_equal(do_path(&m, "comes", &e), 0);
	assert_ls(CST_FS_ROOT, "a comes stays ");
	assert_int_equal(fake_counts(m.bucket).lists, 1); /* all that was answered by it */
	assert_int_equal(fake_counts(m.bucket).heads, 0);
	/* Who has it open keeps the version. */
	assert_int_equal(do_getattr(&m, old.node, &attr), 0);
	assert_int_equal(attr.st.st_size, 10);
	assert_int_equal(do_read(&m, old.node, fh, 0, 10, &data), 0);
	assert_int_equal(data.data[3], fake_byte("one", 3));
	do_release(&m, old.node, fh);
	assert_int_equal(do_getattr(&m, goes.node, &attr), -ESTALE);
}

static void the_same_bytes_again(void **state)
{
	struct cst_fs_entry old, e;
	(void)state;
	fake_put(m.bucket, "a", 10, "one", 1, NULL);
	fake_start(&m);
	assert_ls(CST_FS_ROOT, "a ");
	assert_int_equal(do_path(&m, "a", &old), 0);
	fake_put(m.bucket, "a", 10, "one", 7, NULL);
	fake_invalidated = 0;
	assert_int_equal(refresh(""), 0);
	assert_result(1, 1, 0, 0);
	assert_true(fake_invalidated != 0);
	assert_int_equal(do_path(&m, "a", &e), 0);
	assert_true(e.node == old.node);
	assert_int_equal(e.attr.st.st_mtime, 7);
}

static void known_without_a_listing(void **state)
{
	struct cst_fs_entry a, b, e;
	(void)state;
	m.config.list_ttl = CST_NS_PER_S; /* less than the window of misses: names are asked for one by one */
	fake_put(m.bucket, "d/a", 10, "one", 1, NULL);
	fake_put(m.bucket, "d/b", 10, "one", 1, NULL);
	fake_start(&m);
	assert_int_equal(do_path(&m, "d/a", &a), 0);
	fake_pass(40 * CST_NS_PER_S);
	assert_int_equal(do_path(&m, "d/b", &b), 0);
	fake_put(m.bucket, "d/a", 30, "two", 2, NULL);
	fake_delete(m.bucket, "d/b");
	fake_put(m.bucket, "d/c", 1, "c", 1, NULL);
	assert_int_equal(refresh(""), 0);
	assert_int_equal(result.directories, 2);
	assert_int_equal(result.changed, 1);
	assert_int_equal(result.gone, 1);
	assert_int_equal(do_path(&m, "d/a", &e), 0);
	assert_int_equal(e.attr.st.st_size, 30);
	assert_int_equal(do_path(&m, "d/b", &e), -ENOENT);
}

static void a_lookup_that_hangs(void **state)
{
	struct cst_fs_entry e;
	(void)state;
	fake_put(m.bucket, "d/a", 10, "one", 1, NULL);
	fake_put(m.bucket, "d/x", 33, "x", 1, NULL);
	fake_start(&m);
	assert_ls(CST_FS_ROOT, "d ");
	assert_int_equal(do_path(&m, "d", &e), 0);
	fake_hold_head(m.bucket, "d/x");
	struct fake_call *x = call_new(), *none = call_new();
	cst_fs_lookup(m.fs, &x->call, e.node, "x"); /* the first miss: a HEAD */
	fake_wait_held(m.bucket, 1);
	assert_int_equal(refresh(""), 0);
	assert_int_equal(result.directories, 2);
	assert_int_equal(call_wait(x), 0); /* the listing has told */
	assert_int_equal(x->entry.attr.st.st_size, 33);
	fake_put(m.bucket, "d/a", 11, "two", 2, NULL);
	assert_int_equal(do_lookup(&m, e.node, "a", &e), 0);
	cst_fs_lookup(m.fs, &none->call, CST_FS_ROOT, "none");
	assert_int_equal(call_wait(none), -ENOENT);
	fake_hold_head(m.bucket, "");
	call_free(x);
	call_free(none);
}

/* One name is refreshed while others of its directory hang: the directory is listed, so that the kernel can be told. */
static void a_name_beside_one_that_hangs(void **state)
{
	struct cst_fs_entry d, e;
	(void)state;
	fake_put(m.bucket, "d/a", 10, "one", 1, NULL);
	fake_put(m.bucket, "d/x", 33, "x", 1, NULL);
	fake_start(&m);
	assert_ls(CST_FS_ROOT, "d ");
	assert_int_equal(do_path(&m, "d", &d), 0);
	fake_hold_head(m.bucket, "d/x");
	struct fake_call *x = call_new();
	cst_fs_lookup(m.fs, &x->call, d.node, "x");
	fake_wait_held(m.bucket, 1);
	assert_int_equal(refresh("d/a"), 0);
	assert_result(1, 0, 1, 0);
	assert_true(fake_was_expired(d.node, "a"));
	assert_int_equal(call_wait(x), 0);
	assert_int_equal(x->entry.attr.st.st_size, 33);
	fake_hold_head(m.bucket, "");
	call_free(x);
	assert_int_equal(do_path(&m, "d/a", &e), 0);
}

static void one_name(void **state)
{
	struct cst_fs_entry d, e;
	(void)state;
	fake_put(m.bucket, "d/a", 10, "one", 1, NULL);
	fake_put(m.bucket, "d/b", 10, "one", 1, NULL);
	fake_put(m.bucket, "other", 10, "one", 1, NULL);
	fake_start(&m);
	assert_ls(CST_FS_ROOT, "d other ");
	assert_int_equal(do_path(&m, "d", &d), 0);
	assert_ls(d.node, "a b ");
	fake_put(m.bucket, "d/a", 11, "two", 2, NULL);
	fake_put(m.bucket, "d/b", 11, "two", 2, NULL);
	fake_put(m.bucket, "other", 11, "two", 2, NULL);
	fake_reset_counts(m.bucket);
	assert_int_equal(refresh("d/a"), 0);
	assert_result(0, 1, 0, 0);
	assert_int_equal(fake_counts(m.bucket).heads, 1);
	assert_int_equal(do_path(&m, "d/a", &e), 0);
	assert_int_equal(e.attr.st.st_size, 11);
	assert_int_equal(do_path(&m, "d/b", &e), 0);
	assert_int_equal(e.attr.st.st_size, 10);
	assert_int_equal(refresh("d"), 0);
	assert_result(1, 1, 0, 0);
	assert_int_equal(do_path(&m, "d/b", &e), 0);
	assert_int_equal(e.attr.st.st_size, 11);
	assert_int_equal(do_path(&m, "other", &e), 0);
	assert_int_equal(e.attr.st.st_size, 10);
	fake_put(m.bucket, "d/new", 1, "new", 1, NULL);
	fake_delete(m.bucket, "d/a");
	assert_int_equal(refresh("d/new"), 0);
	assert_result(0, 0, 1, 0);
	assert_int_equal(do_path(&m, "d/new", &e), 0);
	assert_ls(d.node, "b new ");
	fake_delete(m.bucket, "d/b");
	assert_int_equal(refresh("d/b"), 0);
	assert_result(0, 0, 0, 1);
	assert_int_equal(do_path(&m, "d/b", &e), -ENOENT);
	assert_ls(d.node, "new ");
	assert_int_equal(refresh("nowhere"), -ENOENT);
	assert_string_equal(err.why, "neither the mount nor the store knows it");
	assert_int_equal(refresh("d/../d"), -ENOENT);
	assert_int_equal(refresh("d/nowhere/at/all"), -ENOENT);
	/* A directory that has vanished. */
	fake_delete(m.bucket, "d/new");
	assert_int_equal(refresh("d"), 0);
	assert_int_equal(result.gone, 1);
	assert_int_equal(do_path(&m, "d", &e), -ENOENT);
	assert_ls(CST_FS_ROOT, "other ");
}

static void another_kind(void **state)
{
	struct cst_fs_entry old, e;
	(void)state;
	fake_put(m.bucket, "was-file", 10, "one", 1, NULL);
	fake_put(m.bucket, "was-dir/x", 10, "one", 1, NULL);
	fake_start(&m);
	assert_ls(CST_FS_ROOT, "was-dir was-file ");
	assert_int_equal(do_path(&m, "was-dir/x", &old), 0);
	fake_delete(m.bucket, "was-file");
	fake_delete(m.bucket, "was-dir/x");
	fake_put(m.bucket, "was-file/y", 10, "one", 1, NULL);
	fake_put(m.bucket, "was-dir", 10, "one", 1, NULL);
	assert_int_equal(refresh(""), 0);
	assert_int_equal(result.changed, 2);
	assert_int_equal(result.gone, 1);
	assert_int_equal(do_path(&m, "was-file/y", &e), 0);
	assert_int_equal(do_path(&m, "was-dir", &e), 0);
	assert_true(S_ISREG(e.attr.st.st_mode));
}

/* More than fit into one step, in small pages. */
static void many_names(void **state)
{
	struct cst_fs_entry e;
	char key[32];
	(void)state;
	for (int i = 0; i < 3500; i++) {
		snprintf(key, sizeof(key), "f%04d", i);
		fake_put(m.bucket, key, 10, "one", 1, NULL);
	}
	fake_page_size(m.bucket, 700);
	fake_start(&m);
	char *all = do_ls(&m, CST_FS_ROOT, false);
	assert_int_equal(strlen(all), 3500 * 6);
	free(all);
	for (int i = 0; i < 3500; i += 10) {
		snprintf(key, sizeof(key), "f%04d", i);
		fake_put(m.bucket, key, 11, "two", 1, NULL);
		snprintf(key, sizeof(key), "f%04d", i + 1);
		fake_delete(m.bucket, key);
		snprintf(key, sizeof(key), "f%04d-new", i);
		fake_put(m.bucket, key, 11, "two", 1, NULL);
	}
	fake_retry_pages(m.bucket, true);
	assert_int_equal(refresh(""), 0);
	assert_result(1, 350, 350, 350);
	assert_int_equal(do_path(&m, "f3490", &e), 0);
	assert_int_equal(e.attr.st.st_size, 11);
	assert_int_equal(do_path(&m, "f3491", &e), -ENOENT);
	assert_int_equal(do_path(&m, "f3490-new", &e), 0);
}

static void *refresh_all(void *arg)
{
	*(int *)arg = cst_fs_refresh(m.fs, "", &result, &err);
	return NULL;
}

static void many_directories(void **state)
{
	struct cst_fs_entry e;
	char key[32];
	unsigned long thread;
	int rc = -1;
	(void)state;
	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "d%03d/x", i);
		fake_put(m.bucket, key, 10, "one", 1, NULL);
	}
	fake_start(&m);
	char *all = do_ls(&m, CST_FS_ROOT, true);
	free(all);
	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "d%03d/x", i);
		assert_int_equal(do_path(&m, key, &e), 0);
		fake_put(m.bucket, key, 11, "two", 1, NULL);
	}
	while (fake_counts(m.bucket).in_flight > 0) /* requests of lookups that needed no more */
		cst_sleep(CST_NS_PER_MS);
	fake_reset_counts(m.bucket);
	fake_pass(CST_NS_PER_S / 100);
	fake_hold(m.bucket, true);
	assert_int_equal(cst_thread_start(&thread, "all", 0, refresh_all, &rc), 0);
	fake_wait_held(m.bucket, 32);
	fake_hold(m.bucket, false);
	pthread_join(thread, NULL);
	assert_int_equal(rc, 0);
	assert_result(201, 200, 0, 0);
	assert_int_equal(fake_counts(m.bucket).lists, 201);
	assert_int_equal(fake_counts(m.bucket).max_in_flight, 32);
}

static void own_attributes(void **state)
{
	struct cst_fs_entry e;
	(void)state;
	m.config.attributes = CST_FS_ATTRIBUTES_OBJECT;
	fake_put(m.bucket, "a", 10, "one", 1, "mode=33152\n");
	fake_put(m.bucket, "b", 10, "one", 1, "mode=33152\n");
	fake_start(&m);
	assert_ls(CST_FS_ROOT, "a b ");
	assert_int_equal(do_path(&m, "a", &e), 0);
	assert_int_equal(e.attr.st.st_mode & 0777, 0600);
	fake_put(m.bucket, "a", 10, "one", 2, "mode=33216\n"); /* a copy with other metadata */
	fake_reset_counts(m.bucket);
	assert_int_equal(refresh(""), 0);
	assert_result(1, 1, 0, 0);
	assert_int_equal(do_path(&m, "b", &e), 0);
	assert_int_equal(fake_counts(m.bucket).heads, 0);
	assert_int_equal(do_path(&m, "a", &e), 0);
	assert_int_equal(e.attr.st.st_mode & 0777, 0700);
	assert_int_equal(fake_counts(m.bucket).heads, 1);
}

static void names_the_kernel_knows_to_be_absent(void **state)
{
	struct cst_fs_entry e;
	(void)state;
	m.config.negative_ttl = 7200 * CST_NS_PER_S;
	fake_put(m.bucket, "a", 10, "one", 1, NULL);
	fake_start(&m);
	assert_ls(CST_FS_ROOT, "a ");
	assert_int_equal(do_path(&m, "b", &e), 0); /* a negative answer that may be kept */
	assert_int_equal(e.node, 0);
	fake_put(m.bucket, "b", 10, "one", 1, NULL);
	fake_pass(61 * CST_NS_PER_S);
	assert_ls(CST_FS_ROOT, "a b "); /* the listing knows it by now */
	cst_fs_forget(m.fs, 3, 1);
	assert_int_equal(refresh(""), 0);
	assert_result(1, 0, 0, 0);
	assert_true(fake_was_expired(CST_FS_ROOT, "b"));
}

static void failures(void **state)
{
	struct cst_fs_entry e;
	(void)state;
	fake_put(m.bucket, "a", 10, "one", 1, NULL);
	fake_start(&m);
	assert_ls(CST_FS_ROOT, "a ");
	fake_put(m.bucket, "a", 11, "two", 1, NULL);
	fake_fail(m.bucket, -EIO, "InternalError");
	assert_int_equal(refresh(""), -EIO);
	assert_int_equal(result.failed, 1);
	assert_int_equal(refresh("a"), -EIO);
	assert_int_equal(do_path(&m, "a", &e), 0); /* what is known stays */
	assert_int_equal(e.attr.st.st_size, 10);
	fake_fail(m.bucket, 0, "");
	assert_int_equal(refresh(""), 0);
	assert_result(1, 1, 0, 0);
}

static void *refresh_a(void *arg)
{
	struct cst_fs_refresh_result own;
	struct cst_error why;
	*(int *)arg = cst_fs_refresh(m.fs, "a", &own, &why);
	return NULL;
}

static void the_end(void **state)
{
	unsigned long threads[2];
	int rc[2] = {0};
	(void)state;
	fake_put(m.bucket, "a", 10, "one", 1, NULL);
	fake_start(&m);
	assert_ls(CST_FS_ROOT, "a ");
	fake_hold(m.bucket, true);
	assert_int_equal(cst_thread_start(&threads[0], "all", 0, refresh_all, &rc[0]), 0);
	assert_int_equal(cst_thread_start(&threads[1], "a", 0, refresh_a, &rc[1]), 0);
	fake_wait_held(m.bucket, 3);
	cst_fs_refresh_stop(m.fs);
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(rc[i], -ECANCELED);
	}
	fake_hold(m.bucket, false);
	assert_int_equal(refresh(""), -ECANCELED);
}

/* Refreshes, lookups and a bucket that changes, all at once; at the end everything is as the bucket is. */
static bool busy_ends;

static void *look_up(void *arg)
{
	struct cst_fs_entry e;
	char name[16];
	for (unsigned i = *(unsigned *)arg; !__atomic_load_n(&busy_ends, __ATOMIC_RELAXED); i++) {
		snprintf(name, sizeof(name), "f%u", i % 50);
		if (do_lookup(&m, CST_FS_ROOT, name, &e) == 0)
			cst_fs_forget(m.fs, e.node, 1);
		if (i % 64 == 0) {
			char *all = do_ls(&m, CST_FS_ROOT, true);
			free(all);
		}
	}
	return NULL;
}

static void all_at_once(void **state)
{
	unsigned long threads[3];
	unsigned seeds[3] = {1, 20, 40};
	struct cst_fs_entry e;
	char name[16], etag[16];
	(void)state;
	busy_ends = false;
	fake_page_size(m.bucket, 7);
	for (unsigned i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		fake_put(m.bucket, name, 10, "first", 1, NULL);
	}
	fake_start(&m);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(cst_thread_start(&threads[i], "look", 0, look_up, &seeds[i]), 0);
	for (unsigned round = 0; round < 60; round++) {
		snprintf(name, sizeof(name), "f%u", round * 7 % 50);
		snprintf(etag, sizeof(etag), "e%u", round);
		if (round % 3 == 0)
			fake_delete(m.bucket, name);
		else
			fake_put(m.bucket, name, 100 + round, etag, 1, NULL);
		fake_pass(CST_NS_PER_MS);
		cst_error_clear(&err);
		assert_int_equal(cst_fs_refresh(m.fs, round % 5 == 4 ? name : "", &result, &err),
				 round % 5 == 4 && round % 3 == 0 ? err.code * -1 : 0);
		int rc = do_lookup(&m, CST_FS_ROOT, name, &e);
		assert_int_equal(rc, round % 3 == 0 ? -ENOENT : 0);
		if (rc == 0) {
			assert_int_equal(e.attr.st.st_size, 100 + round);
			cst_fs_forget(m.fs, e.node, 1);
		}
	}
	__atomic_store_n(&busy_ends, true, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(what_is_the_same_stays),
		TEST(what_changed_shows),
		TEST(the_same_bytes_again),
		TEST(known_without_a_listing),
		TEST(a_lookup_that_hangs),
		TEST(a_name_beside_one_that_hangs),
		TEST(one_name),
		TEST(another_kind),
		TEST(many_names),
		TEST(many_directories),
		TEST(own_attributes),
		TEST(names_the_kernel_knows_to_be_absent),
		TEST(failures),
		TEST(the_end),
		TEST(all_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
