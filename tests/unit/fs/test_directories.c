/* Directories: pages on their way, offsets, changes meanwhile, readdirplus. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "fake_host.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>

static struct fake_mount m;

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

static void put_files(int from, int to)
{
	char name[16];
	for (int i = from; i < to; i++) {
		snprintf(name, sizeof(name), "f%03d", i);
		fake_put(m.bucket, name, (uint64_t)i, "e", 1, NULL);
	}
}

static void first_page_first(void **state)
{
	uint64_t fh;
	(void)state;
	fake_page_size(m.bucket, 10);
	put_files(0, 25);
	fake_start(&m);
	fake_hold(m.bucket, true);
	assert_int_equal(do_opendir(&m, CST_FS_ROOT, &fh), 0); /* doesn't wait */
	struct fake_call *c = call_new();
	cst_fs_readdir(m.fs, &c->call, CST_FS_ROOT, fh, 0, false);
	fake_wait_held(m.bucket, 1);
	/* One page goes; the next is held, and the entries are there. */
	fake_fail(m.bucket, 0, "");
	fake_hold(m.bucket, false);
	assert_int_equal(call_wait(c), 0);
	assert_true(c->count >= 12);
	assert_string_equal(c->entries[0].name, ".");
	assert_string_equal(c->entries[1].name, "..");
	assert_string_equal(c->entries[2].name, "f000");
	call_free(c);
	do_releasedir(&m, CST_FS_ROOT, fh);
	char *all = do_ls(&m, CST_FS_ROOT, false);
	assert_int_equal(strlen(all), 25 * 5);
	free(all);
	assert_int_equal(fake_counts(m.bucket).lists, 3);
}

static void offsets_stay(void **state)
{
	uint64_t fh;
	(void)state;
	put_files(0, 20);
	fake_start(&m);
	assert_int_equal(do_opendir(&m, CST_FS_ROOT, &fh), 0);
	struct fake_call *c = do_readdir(&m, CST_FS_ROOT, fh, 0, false, 12);
	assert_int_equal(c->count, 12);
	uint64_t after[12];
	for (int i = 0; i < 12; i++)
		after[i] = c->entries[i].next;
	call_free(c);
	/* The directory changes, its listing is renewed by others; this handle goes on where it was. */
	fake_delete(m.bucket, "f000");
	fake_delete(m.bucket, "f015");
	fake_put(m.bucket, "a", 1, "e", 1, NULL);
	fake_pass(61 * CST_NS_PER_S);
	char *all = do_ls(&m, CST_FS_ROOT, false);
	assert_true(strncmp(all, "a f001 ", 7) == 0);
	free(all);
	c = do_readdir(&m, CST_FS_ROOT, fh, after[11], false, 3);
	assert_string_equal(c->entries[0].name, "f010");
	call_free(c);
	c = do_readdir(&m, CST_FS_ROOT, fh, after[4], false, 3); /* seekdir */
	assert_string_equal(c->entries[0].name, "f003");
	call_free(c);
	c = do_readdir(&m, CST_FS_ROOT, fh, after[0], false, 3);
	assert_string_equal(c->entries[0].name, "..");
	call_free(c);
	/* A handle rebuilt from the node id finds the place in the new listing. */
	do_releasedir(&m, CST_FS_ROOT, fh);
	c = do_readdir(&m, CST_FS_ROOT, fh, after[11], false, 30);
	assert_string_equal(c->entries[0].name, "f010");
	assert_int_equal(c->count, 9); /* f010 to f019, without f015 */
	call_free(c);
	c = do_readdir(&m, CST_FS_ROOT, fh, 0, false, 5); /* rewound */
	assert_string_equal(c->entries[2].name, "a");
	call_free(c);
	do_releasedir(&m, CST_FS_ROOT, fh);
}

static void plus_instantiates(void **state)
{
	struct cst_fs_entry e;
	struct cst_fs_stats stats;
	uint64_t fh;
	(void)state;
	put_files(0, 20);
	fake_put(m.bucket, "dir/x", 1, "e", 1, NULL);
	fake_start(&m);
	assert_int_equal(do_opendir(&m, CST_FS_ROOT, &fh), 0);
	struct fake_call *c = do_readdir(&m, CST_FS_ROOT, fh, 0, true, 10);
	assert_int_equal(c->count, 10);
	assert_true(c->entries[0].node == 0);
	cst_fs_stats(m.fs, &stats);
	assert_int_equal(stats.inodes, 9); /* the root and 8: what didn't fit is taken back */
	for (unsigned i = 2; i < c->count; i++) {
		assert_int_equal(do_lookup(&m, CST_FS_ROOT, c->entries[i].name, &e), 0);
		assert_true(e.node == c->entries[i].node);
		assert_true(e.attr.st.st_ino == c->entries[i].ino);
		assert_int_equal(IFTODT(e.attr.st.st_mode), c->entries[i].type);
		cst_fs_forget(m.fs, e.node, 2);
	}
	call_free(c);
	cst_fs_stats(m.fs, &stats);
	assert_int_equal(stats.inodes, 1);
	/* A reply that nobody took instantiates nothing. */
	c = call_new();
	c->refuse = true;
	cst_fs_readdir(m.fs, &c->call, CST_FS_ROOT, fh, 0, true);
	assert_int_equal(call_wait(c), 0);
	assert_int_equal(c->count, 23);
	call_free(c);
	do_releasedir(&m, CST_FS_ROOT, fh);
	do {
		cst_fs_stats(m.fs, &stats);
	} while (stats.inodes > 1);
}

static void plus_asks_objects(void **state)
{
	struct cst_fs_entry e;
	uint64_t fh;
	char name[32];
	(void)state;
	m.config.attributes = CST_FS_ATTRIBUTES_OBJECT;
	for (int i = 0; i < 150; i++) {
		snprintf(name, sizeof(name), "d/f%03d", i);
		fake_put(m.bucket, name, 1, "e", 1, "mode=33152");
	}
	fake_put(m.bucket, "d/sub/", 0, "e", 1, "mode=16832"); /* 040700 */
	fake_put(m.bucket, "d/sub/x", 0, "e", 1, NULL);
	fake_put(m.bucket, "d/implicit/x", 0, "e", 1, NULL);
	fake_start(&m);
	assert_int_equal(do_path(&m, "d", &e), 0);
	uint64_t d = e.node;
	assert_int_equal(do_opendir(&m, d, &fh), 0);
	call_free(do_readdir(&m, d, fh, 0, false, 2)); /* the listing has come */
	do_releasedir(&m, d, fh);
	assert_int_equal(do_opendir(&m, d, &fh), 0);
	/* The first 64 are asked for together. */
	fake_hold(m.bucket, true);
	struct fake_call *c = call_new();
	c->room = 20;
	cst_fs_readdir(m.fs, &c->call, d, fh, 0, true);
	assert_int_equal(fake_counts(m.bucket).in_flight, 64);
	fake_hold(m.bucket, false);
	assert_int_equal(call_wait(c), 0);
	assert_int_equal(c->count, 20);
	for (unsigned i = 2; i < c->count; i++)
		assert_true(c->entries[i].node > 0);
	call_free(c);
	do_releasedir(&m, d, fh);
	char *all = do_ls(&m, d, true);
	assert_int_equal(strlen(all), 150 * 5 + 4 + 9);
	free(all);
	assert_int_equal(do_path(&m, "d/f149", &e), 0);
	assert_int_equal(e.attr.st.st_mode, S_IFREG | 0600);
	assert_int_equal(do_path(&m, "d/sub", &e), 0);
	assert_int_equal(e.attr.st.st_mode, S_IFDIR | 0700);
	assert_int_equal(do_path(&m, "d/implicit", &e), 0);
	assert_int_equal(e.attr.st.st_mode, S_IFDIR | 0755);
}

static void interrupted(void **state)
{
	uint64_t fh;
	(void)state;
	m.config.attributes = CST_FS_ATTRIBUTES_OBJECT;
	put_files(0, 20);
	fake_start(&m);
	fake_hold(m.bucket, true);
	assert_int_equal(do_opendir(&m, CST_FS_ROOT, &fh), 0);
	struct fake_call *c = call_new();
	cst_fs_readdir(m.fs, &c->call, CST_FS_ROOT, fh, 0, true);
	cst_fs_call_interrupt(&c->call); /* while it waits for the page */
	assert_int_equal(call_wait(c), -EINTR);
	call_free(c);
	fake_hold(m.bucket, false);
	c = do_readdir(&m, CST_FS_ROOT, fh, 0, false, 30);
	assert_int_equal(c->count, 22);
	call_free(c);
	fake_hold(m.bucket, true);
	c = call_new();
	cst_fs_readdir(m.fs, &c->call, CST_FS_ROOT, fh, 0, true);
	fake_wait_held(m.bucket, 20);
	cst_fs_call_interrupt(&c->call); /* while it waits for attributes */
	assert_int_equal(call_wait(c), -EINTR);
	call_free(c);
	fake_hold(m.bucket, false);
	do_releasedir(&m, CST_FS_ROOT, fh);
}

/* The mount ends while listings are held back: nothing waits for them. */
static void ends_while_listing(void **state)
{
	uint64_t fh;
	(void)state;
	fake_page_size(m.bucket, 2);
	put_files(0, 20);
	fake_start(&m);
	fake_hold(m.bucket, true);
	assert_int_equal(do_opendir(&m, CST_FS_ROOT, &fh), 0);
	fake_wait_held(m.bucket, 1);
}

/* The store has forgotten where a long listing was: it goes on after the last name, and no name is lost or seen twice. */
static void expired_token(void **state)
{
	(void)state;
	fake_page_size(m.bucket, 10);
	put_files(0, 25);
	fake_put(m.bucket, "f009/x", 1, "e", 1, NULL); /* "f009/" is hidden and ends the first page */
	fake_put(m.bucket, "f018d/x", 1, "e", 1, NULL);
	fake_put(m.bucket, "f018d/y", 1, "e", 1, NULL);
	fake_delete(m.bucket, "f009");
	fake_start(&m);
	fake_expire_tokens(m.bucket, true);
	char *all = do_ls(&m, CST_FS_ROOT, true);
	assert_string_equal(all,
			    "f000 f001 f002 f003 f004 f005 f006 f007 f008 f009 f010 f011 f012 f013 f014 f015 f016 f017 "
			    "f018 f018d f019 f020 f021 f022 f023 f024 ");
	free(all);
	assert_int_equal(fake_counts(m.bucket).lists, 5);
	/* Another error stays one, and is asked for anew at the next opendir. */
	fake_pass(61 * CST_NS_PER_S);
	fake_fail(m.bucket, -EIO, "");
	all = do_ls(&m, CST_FS_ROOT, true);
	assert_string_equal(all, "error -5 ");
	free(all);
	fake_fail(m.bucket, 0, "");
	all = do_ls(&m, CST_FS_ROOT, true);
	assert_int_equal(strlen(all), 25 * 5 + 6);
	free(all);
}

/* A page may have no key and yet not be the last: that is no directory. */
static void page_without_keys(void **state)
{
	struct cst_fs_entry e;
	(void)state;
	fake_put(m.bucket, "d/x", 1, "e", 1, NULL);
	fake_put(m.bucket, "f", 1, "e", 1, NULL);
	fake_start(&m);
	fake_empty_pages(m.bucket, true);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "nothing", &e), -ENOENT);
	fake_pass(31 * CST_NS_PER_S); /* again by a request of its own */
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "d", &e), 0);
	assert_true(S_ISDIR(e.attr.st.st_mode));
	char *all = do_ls(&m, CST_FS_ROOT, true);
	assert_string_equal(all, "d f ");
	free(all);
}

static void list_in(const char *name)
{
	struct cst_fs_entry e;
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, name, &e), 0);
	free(do_ls(&m, e.node, false));
	cst_fs_forget(m.fs, e.node, 1);
}

/* The listings together stay below their limit; the one that answers all the time stays. */
static void listings_are_given_up(void **state)
{
	enum { DIRS = 64 };
	struct cst_fs_stats stats;
	struct cst_fs_entry dirs[DIRS], e;
	char key[32];
	(void)state;
	for (int d = 0; d < DIRS; d++) {
		for (int i = 0; i < 50; i++) {
			snprintf(key, sizeof(key), "d%02d/f%02d", d, i);
			fake_put(m.bucket, key, 1, "e", 1, NULL);
		}
	}
	m.config.list_memory = 128 << 10; /* of about 6 KiB each */
	fake_start(&m);
	free(do_ls(&m, CST_FS_ROOT, false));
	for (int d = 0; d < DIRS; d++) {
		snprintf(key, sizeof(key), "d%02d", d);
		assert_int_equal(do_lookup(&m, CST_FS_ROOT, key, &dirs[d]), 0);
		free(do_ls(&m, dirs[d].node, false));
		assert_int_equal(do_lookup(&m, dirs[0].node, "f07", &e), 0);
		cst_fs_forget(m.fs, e.node, 1);
		cst_fs_stats(m.fs, &stats);
		assert_in_range(stats.cached_dirs, 1, 32);
	}
	unsigned before = fake_counts(m.bucket).lists + fake_counts(m.bucket).heads;
	assert_int_equal(do_lookup(&m, dirs[0].node, "f08", &e), 0);	    /* in memory: in use all the time */
	assert_int_equal(do_lookup(&m, dirs[DIRS - 1].node, "f08", &e), 0); /* the newest */
	assert_int_equal(fake_counts(m.bucket).lists + fake_counts(m.bucket).heads, before);
	list_in("d01"); /* given up, and had again */
	assert_true(fake_counts(m.bucket).lists + fake_counts(m.bucket).heads > before);
	/* One that is being read stays, whatever it takes. */
	uint64_t fh;
	assert_int_equal(do_opendir(&m, dirs[5].node, &fh), 0);
	struct fake_call *c = do_readdir(&m, dirs[5].node, fh, 0, false, 10);
	uint64_t offset = c->entries[9].next;
	call_free(c);
	for (int d = 6; d < DIRS; d++) {
		snprintf(key, sizeof(key), "d%02d", d);
		list_in(key);
	}
	before = fake_counts(m.bucket).lists;
	c = do_readdir(&m, dirs[5].node, fh, offset, false, 60);
	assert_int_equal(c->count, 42);
	call_free(c);
	assert_int_equal(fake_counts(m.bucket).lists, before);
	do_releasedir(&m, dirs[5].node, fh);
}

/* kernel_readdir_cache_timeout: an open within it says that the kernel's entries may stay, and asks the store for nothing. */
static void kernel_keeps_entries(void **state)
{
	uint64_t fh;
	(void)state;
	put_files(0, 3);
	m.config.kernel_list_ttl = 100 * CST_NS_PER_S;
	fake_start(&m);
	for (int i = 0; i < 3; i++) {
		struct fake_call *c = call_new();
		unsigned lists = fake_counts(m.bucket).lists;
		cst_fs_opendir(m.fs, &c->call, CST_FS_ROOT);
		assert_int_equal(call_wait(c), 0);
		bool keep = i == 1; /* the third comes too late */
		assert_int_equal(c->flags, CST_FS_CACHE_DIR | (keep ? CST_FS_KEEP_CACHE : 0));
		fh = c->fh;
		call_free(c);
		if (keep)
			assert_int_equal(fake_counts(m.bucket).lists, lists);
		/* The kernel may have dropped them all the same, and then reads. */
		c = do_readdir(&m, CST_FS_ROOT, fh, 0, false, 100);
		assert_int_equal(c->rc, 0);
		assert_int_equal(c->count, 5);
		call_free(c);
		do_releasedir(&m, CST_FS_ROOT, fh);
		fake_pass(70 * CST_NS_PER_S);
	}
}

/* max_stat_cache_size: the listings that answered longest ago make room. */
static void limit_of_names(void **state)
{
	struct cst_fs_stats stats;
	struct cst_fs_entry e;
	(void)state;
	for (int i = 0; i < 12; i++) {
		char key[16];
		snprintf(key, sizeof(key), "d%d/f%02d", i / 4, i);
		fake_put(m.bucket, key, 1, "e", 1, NULL);
	}
	m.config.list_names = 6;
	fake_start(&m);
	for (int i = 0; i < 3; i++) {
		char name[4];
		snprintf(name, sizeof(name), "d%d", i);
		assert_int_equal(do_lookup(&m, CST_FS_ROOT, name, &e), 0);
		free(do_ls(&m, e.node, false));
	}
	/* 3 names of the root and 12: of these only one directory's and perhaps the root's fit. */
	do {
		sched_yield();
		cst_fs_stats(m.fs, &stats);
	} while (stats.cached_dirs > 2);
	assert_true(stats.cached_dirs >= 1);
}

/* A directory that is larger than the limit alone isn't listed again for each of its names. */
static void larger_than_limit(void **state)
{
	char name[16];
	struct cst_fs_entry e;
	(void)state;
	put_files(0, 50);
	fake_page_size(m.bucket, 10);
	m.config.list_names = 6;
	m.config.list_memory = 1;
	fake_start(&m);
	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "f%03d", i);
		assert_int_equal(do_lookup(&m, CST_FS_ROOT, name, &e), 0);
	}
	assert_int_equal(fake_counts(m.bucket).lists, 6); /* f000/, and 5 pages */
	assert_int_equal(fake_counts(m.bucket).heads, 1); /* f000 */
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(kernel_keeps_entries), CASE(limit_of_names),    CASE(larger_than_limit),
		CASE(first_page_first),	    CASE(offsets_stay),	     CASE(plus_instantiates),
		CASE(plus_asks_objects),    CASE(interrupted),	     CASE(ends_while_listing),
		CASE(expired_token),	    CASE(page_without_keys), CASE(listings_are_given_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
