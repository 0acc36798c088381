/* Versions: objects that change or vanish while they are known, open, or being read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "fake_host.h"

#include <errno.h>
#include <fcntl.h>

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

static void assert_bytes(const struct cst_buf *data, const char *etag, uint64_t offset, size_t len)
{
	assert_int_equal(data->len, len);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(data->data[i], fake_byte(etag, offset + i));
}

/* Waits until so many files are open: a read lets go of its handle just after its reply. */
static void wait_open(uint64_t count)
{
	struct cst_fs_stats stats;
	do {
		cst_fs_stats(m.fs, &stats);
	} while (stats.open_files != count);
}

static void read_and_release(void **state)
{
	struct cst_fs_entry e;
	struct cst_fs_stats stats;
	uint64_t fh;
	CST_AUTO_BUF data = CST_BUF_INIT;
	(void)state;
	fake_put(m.bucket, "a", 1000, "one", 1, NULL);
	fake_put(m.bucket, "empty", 0, "zero", 1, NULL);
	fake_start(&m);
	assert_int_equal(do_path(&m, "a", &e), 0);
	unsigned before = fake_counts(m.bucket).heads;
	assert_int_equal(do_open(&m, e.node, &fh), 0);
	assert_int_equal(fake_counts(m.bucket).heads, before); /* what is known is young enough */
	assert_int_equal(do_read(&m, e.node, fh, 990, 100, &data), 0);
	assert_bytes(&data, "one", 990, 10);
	assert_int_equal(do_read(&m, e.node, fh, 1000, 100, &data), 0);
	assert_int_equal(data.len, 0);
	cst_fs_stats(m.fs, &stats);
	assert_int_equal(stats.open_files, 1);
	assert_int_equal(stats.bytes_read, 10);
	do_release(&m, e.node, fh);
	wait_open(0);
	/* fh is a hint: it is made anew from the node id. */
	assert_int_equal(do_read(&m, e.node, fh, 5, 10, &data), 0);
	assert_bytes(&data, "one", 5, 10);
	do_release(&m, e.node, fh);
	wait_open(0);
	assert_int_equal(do_path(&m, "empty", &e), 0);
	assert_int_equal(do_open(&m, e.node, &fh), 0);
	assert_int_equal(do_read(&m, e.node, fh, 0, 100, &data), 0);
	assert_int_equal(data.len, 0);
	do_release(&m, e.node, fh);
	wait_open(0);
}

/* The change is found at open, because what is known is old. */
static void changed_at_open(void **state)
{
	struct cst_fs_entry first, second;
	struct cst_fs_attr attr;
	uint64_t fh, fh2;
	CST_AUTO_BUF data = CST_BUF_INIT;
	(void)state;
	fake_put(m.bucket, "a", 100, "one", 1, NULL);
	fake_start(&m);
	assert_int_equal(do_path(&m, "a", &first), 0);
	assert_int_equal(do_open(&m, first.node, &fh), 0);
	assert_int_equal(do_read(&m, first.node, fh, 0, 16, &data), 0);
	fake_put(m.bucket, "a", 200, "two", 2, NULL);
	fake_pass(61 * CST_NS_PER_S);
	assert_int_equal(do_open(&m, first.node, &fh2), -ESTALE);
	unsigned before = fake_counts(m.bucket).heads;
	assert_int_equal(do_path(&m, "a", &second), 0);
	assert_int_equal(fake_counts(m.bucket).heads, before); /* what the open found is not asked for again */
	assert_true(second.node != first.node);
	assert_true(second.attr.st.st_ino != first.attr.st.st_ino);
	assert_int_equal(second.attr.st.st_size, 200);
	assert_int_equal(do_open(&m, second.node, &fh2), 0);
	/* The old handle keeps its version: what is in memory, and nothing else. */
	assert_int_equal(do_read(&m, first.node, fh, 0, 16, &data), 0);
	assert_bytes(&data, "one", 0, 16);
	assert_int_equal(do_read(&m, first.node, fh, 32, 16, &data), -ESTALE);
	assert_int_equal(do_read(&m, second.node, fh2, 32, 16, &data), 0);
	assert_bytes(&data, "two", 32, 16);
	assert_int_equal(do_getattr(&m, first.node, &attr), 0);
	assert_int_equal(attr.st.st_size, 100);
	do_release(&m, first.node, fh);
	wait_open(1);
	assert_int_equal(fake_fetch_objects(m.fetch),
			 1); /* the old version's bytes are given up, though the kernel counts it */
	assert_int_equal(do_getattr(&m, first.node, &attr), -ESTALE);
	assert_int_equal(do_open(&m, first.node, &fh), -ESTALE);
	cst_fs_forget(m.fs, first.node, 1);
	do_release(&m, second.node, fh2);
	/* Seen again after everything was forgotten: not the node id of another version. */
	cst_fs_forget(m.fs, second.node, 1);
	uint64_t old = first.node;
	assert_int_equal(do_path(&m, "a", &first), 0);
	assert_true(first.node >= second.node && first.node != old);
}

/* The change is found by a read. */
static void changed_while_open(void **state)
{
	struct cst_fs_entry first, second;
	uint64_t fh, fh2;
	CST_AUTO_BUF data = CST_BUF_INIT;
	(void)state;
	fake_put(m.bucket, "a", 100, "one", 1, NULL);
	fake_put(m.bucket, "b", 100, "one", 1, NULL);
	fake_start(&m);
	free(do_ls(&m, CST_FS_ROOT, false));
	assert_int_equal(do_path(&m, "a", &first), 0);
	assert_int_equal(do_open(&m, first.node, &fh), 0);
	assert_int_equal(do_read(&m, first.node, fh, 0, 16, &data), 0);
	fake_put(m.bucket, "a", 100, "two", 1, NULL);
	assert_int_equal(do_read(&m, first.node, fh, 0, 16, &data), 0);
	assert_int_equal(do_read(&m, first.node, fh, 0, 32, &data), -ESTALE); /* never half of each */
	assert_int_equal(do_open(&m, first.node, &fh2), -ESTALE);
	assert_int_equal(do_path(&m, "a", &second), 0); /* although a listing of the old one is young */
	assert_true(second.node != first.node);
	assert_int_equal(do_open(&m, second.node, &fh2), 0);
	assert_int_equal(do_read(&m, second.node, fh2, 0, 32, &data), 0);
	assert_bytes(&data, "two", 0, 32);
	do_release(&m, first.node, fh);
	do_release(&m, second.node, fh2);
	/* Other names still come from the listing. */
	fake_reset_counts(m.bucket);
	assert_int_equal(do_path(&m, "b", &second), 0);
	assert_int_equal(fake_counts(m.bucket).heads, 0);
}

static void deleted_while_open(void **state)
{
	struct cst_fs_entry e;
	uint64_t fh, fh2;
	CST_AUTO_BUF data = CST_BUF_INIT;
	(void)state;
	fake_put(m.bucket, "a", 100, "one", 1, NULL);
	fake_start(&m);
	assert_int_equal(do_path(&m, "a", &e), 0);
	assert_int_equal(do_open(&m, e.node, &fh), 0);
	fake_delete(m.bucket, "a");
	assert_int_equal(do_read(&m, e.node, fh, 0, 10, &data), -ESTALE);
	assert_int_equal(do_open(&m, e.node, &fh2), -ESTALE);
	struct cst_fs_entry again;
	assert_int_equal(do_path(&m, "a", &again), -ENOENT);
	do_release(&m, e.node, fh);
	/* Back under the same name: another node. */
	fake_put(m.bucket, "a", 100, "one", 1, NULL);
	fake_pass(61 * CST_NS_PER_S);
	assert_int_equal(do_path(&m, "a", &again), 0);
	assert_true(again.node != e.node);
}

/* The same bytes uploaded again are the same version with a new time. */
static void touched(void **state)
{
	struct cst_fs_entry e, again;
	uint64_t fh;
	(void)state;
	fake_put(m.bucket, "a", 100, "one", 1, NULL);
	fake_start(&m);
	assert_int_equal(do_path(&m, "a", &e), 0);
	fake_put(m.bucket, "a", 100, "one", 77, NULL);
	fake_pass(61 * CST_NS_PER_S);
	assert_int_equal(do_open(&m, e.node, &fh), 0);
	assert_int_equal(do_path(&m, "a", &again), 0);
	assert_true(again.node == e.node);
	assert_int_equal(again.attr.st.st_mtim.tv_sec, 77);
	do_release(&m, e.node, fh);
}

static void file_becomes_directory(void **state)
{
	struct cst_fs_entry file, dir, again;
	(void)state;
	fake_put(m.bucket, "x", 100, "one", 1, NULL);
	fake_put(m.bucket, "d/f", 1, "one", 1, NULL);
	fake_start(&m);
	assert_int_equal(do_path(&m, "x", &file), 0);
	assert_int_equal(do_path(&m, "d", &dir), 0);
	fake_delete(m.bucket, "x");
	fake_put(m.bucket, "x/y", 5, "two", 1, NULL);
	fake_put(m.bucket, "d/g", 1, "one", 1, NULL);
	fake_pass(61 * CST_NS_PER_S);
	assert_int_equal(do_path(&m, "x", &again), 0);
	assert_true(again.node != file.node);
	assert_true(S_ISDIR(again.attr.st.st_mode));
	assert_int_equal(do_path(&m, "x/y", &again), 0);
	assert_int_equal(do_path(&m, "d", &again), 0);
	assert_true(again.node == dir.node); /* a directory keeps its node id */
	assert_true(again.attr.st.st_ino == dir.attr.st.st_ino);
	assert_int_equal(do_path(&m, "d/g", &again), 0);
}

/* A listing finds the change: open handles are unaffected, getattr of the path's node is told. */
static void listing_finds_change(void **state)
{
	struct cst_fs_entry e;
	struct cst_fs_attr attr;
	uint64_t fh;
	(void)state;
	fake_put(m.bucket, "a", 100, "one", 1, NULL);
	fake_start(&m);
	assert_int_equal(do_path(&m, "a", &e), 0);
	fake_put(m.bucket, "a", 50, "two", 2, NULL);
	fake_pass(61 * CST_NS_PER_S);
	__atomic_store_n(&fake_invalidated, 0, __ATOMIC_RELAXED);
	char *all = do_ls(&m, CST_FS_ROOT, true);
	assert_string_equal(all, "a ");
	free(all);
	/* The kernel was told before the call was answered: after the last answer there may be no host any more. */
	assert_true(__atomic_load_n(&fake_invalidated, __ATOMIC_RELAXED) == e.node);
	assert_int_equal(do_getattr(&m, e.node, &attr), -ESTALE);
	assert_int_equal(do_open(&m, e.node, &fh), -ESTALE);
	fake_pass(1);
	assert_int_equal(do_path(&m, "a", &e), 0);
	assert_int_equal(e.attr.st.st_size, 50);
}

/* list_ttl 0: each open asks, with a request that begins after it. */
static void asked_at_each_open(void **state)
{
	struct cst_fs_entry e;
	struct fake_call *a = call_new(), *b = call_new();
	(void)state;
	m.config.list_ttl = 0;
	fake_put(m.bucket, "a", 100, "one", 1, NULL);
	fake_start(&m);
	assert_int_equal(do_path(&m, "a", &e), 0);
	fake_reset_counts(m.bucket);
	fake_hold(m.bucket, true);
	cst_fs_open(m.fs, &a->call, e.node, O_RDONLY);
	cst_fs_open(m.fs, &b->call, e.node, O_RDONLY);
	fake_wait_held(m.bucket, 2);
	fake_hold(m.bucket, false);
	assert_int_equal(call_wait(a), 0);
	assert_int_equal(call_wait(b), 0);
	assert_int_equal(a->flags, CST_FS_KEEP_CACHE);
	assert_int_equal(fake_counts(m.bucket).heads, 2);
	do_release(&m, e.node, a->fh);
	do_release(&m, e.node, b->fh);
	call_free(a);
	call_free(b);
}

static void refusals(void **state)
{
	struct cst_fs_entry e;
	uint64_t fh;
	CST_AUTO_BUF data = CST_BUF_INIT;
	struct fake_call *c = call_new(), *late = call_new();
	(void)state;
	fake_put(m.bucket, "a", 100, "one", 1, NULL);
	fake_start(&m);
	assert_int_equal(do_path(&m, "a", &e), 0);
	cst_fs_open(m.fs, &c->call, e.node, O_RDWR);
	assert_int_equal(call_wait(c), -EROFS);
	call_free(c);
	assert_int_equal(do_open(&m, CST_FS_ROOT, &fh), -EISDIR);
	assert_int_equal(do_opendir(&m, e.node, &fh), -ENOTDIR);
	assert_int_equal(do_open(&m, 999, &fh), -ESTALE);
	assert_int_equal(do_read(&m, 999, 1, 0, 1, &data), -ESTALE);
	/* An open that nobody took is undone. */
	late->refuse = true;
	cst_fs_open(m.fs, &late->call, e.node, O_RDONLY);
	assert_int_equal(call_wait(late), 0);
	call_free(late);
	wait_open(0);
	assert_int_equal(do_open(&m, e.node, &fh), 0);
	fake_fail(m.bucket, -EIO, "InvalidObjectState");
	assert_int_equal(do_read(&m, e.node, fh, 0, 10, &data), -EIO);
	fake_fail(m.bucket, -EACCES, "AccessDenied");
	assert_int_equal(do_read(&m, e.node, fh, 0, 10, &data), -EACCES);
	fake_fail(m.bucket, 0, "");
	assert_int_equal(do_read(&m, e.node, fh, 0, 10, &data), 0);
	do_release(&m, e.node, fh);
}

static void interrupted_read(void **state)
{
	struct cst_fs_entry e;
	uint64_t fh;
	struct fake_call *c = call_new();
	CST_AUTO_BUF data = CST_BUF_INIT;
	(void)state;
	fake_put(m.bucket, "a", 100, "one", 1, NULL);
	fake_start(&m);
	assert_int_equal(do_path(&m, "a", &e), 0);
	assert_int_equal(do_open(&m, e.node, &fh), 0);
	fake_hold(m.bucket, true);
	cst_fs_read(m.fs, &c->call, e.node, fh, 0, 50);
	cst_fs_call_interrupt(&c->call);
	assert_int_equal(call_wait(c), -EINTR);
	call_free(c);
	fake_hold(m.bucket, false);
	assert_int_equal(do_read(&m, e.node, fh, 0, 50, &data), 0);
	do_release(&m, e.node, fh);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(read_and_release),
		CASE(changed_at_open),
		CASE(changed_while_open),
		CASE(deleted_while_open),
		CASE(touched),
		CASE(file_becomes_directory),
		CASE(listing_finds_change),
		CASE(asked_at_each_open),
		CASE(refusals),
		CASE(interrupted_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
