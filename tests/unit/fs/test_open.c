/* Open modes: backing files of what is whole in the cache, opens that wait for the cache, and inodes set aside. The fake host checks what
 * the kernel demands: one mode and one backing id for a node at a time, ids closed after their last release. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "fake_host.h"
#include "meta/inode.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static struct fake_mount m;
static int file; /* what the cache's complete objects lie in */

static int setup(void **state)
{
	(void)state;
	fake_config(&m);
	fake_with_cache(&m);
	file = memfd_create("cache-file", MFD_CLOEXEC);
	fake_put(m.bucket, "a", 1000, "one", 1, NULL);
	fake_put(m.bucket, "empty", 0, "zero", 1, NULL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_end(&m);
	close(file);
	return 0;
}

static uint64_t node_of(const char *path)
{
	struct cst_fs_entry e;
	assert_int_equal(do_path(&m, path, &e), 0);
	return e.node;
}

static uint64_t open_as(uint64_t node, unsigned flags)
{
	struct fake_call *c = do_open_flags(&m, node, O_RDONLY);
	assert_int_equal(c->rc, 0);
	assert_int_equal(c->flags, flags);
	uint64_t fh = c->fh;
	call_free(c);
	return fh;
}

static struct cst_fs_stats stats(void)
{
	struct cst_fs_stats s;
	cst_fs_stats(m.fs, &s);
	return s;
}

/* Waits until so many files are open: a read lets go of its handle just after its reply. */
static void wait_open(uint64_t count)
{
	while (stats().open_files != count)
		;
}

static void whole_objects_are_passed_through(void **state)
{
	(void)state;
	fake_start(&m);
	fake_cache_complete(m.cache, "a", "one", file);
	uint64_t a = node_of("a");
	uint64_t first = open_as(a, CST_FS_PASSTHROUGH), second = open_as(a, CST_FS_PASSTHROUGH);
	assert_int_equal(fake_backing.opened, 1); /* shared */
	assert_int_equal(fake_cache_counts(m.cache).opens, 1);
	assert_int_equal(fake_backing.open_files, 0); /* none reads through us */
	assert_int_equal(stats().open_files, 2);
	do_release(&m, a, first);
	assert_int_equal(fake_backing.live, 1);
	do_release(&m, a, second);
	assert_int_equal(fake_backing.live, 0);
	assert_int_equal(fake_cache_counts(m.cache).objects, 0); /* it may be evicted now */
	first = open_as(a, CST_FS_PASSTHROUGH);
	assert_int_equal(fake_backing.opened, 2);
	do_release(&m, a, first);
	assert_int_equal(stats().opens_passthrough, 3);
	assert_int_equal(fake_fetch_objects(m.fetch), 0); /* nothing was ever read here */
}

static void an_open_inode_keeps_its_mode(void **state)
{
	CST_AUTO_BUF data = CST_BUF_INIT;
	(void)state;
	fake_start(&m);
	uint64_t a = node_of("a");
	uint64_t first = open_as(a, CST_FS_KEEP_CACHE);
	assert_int_equal(fake_backing.open_files, 1);
	assert_int_equal(do_read(&m, a, first, 0, 100, &data), 0);
	assert_non_null(fake_fetch_local(m.fetch, "a")); /* reads and saves through the cache */
	fake_cache_complete(m.cache, "a", "one", file);
	uint64_t second = open_as(a, CST_FS_KEEP_CACHE);
	do_release(&m, a, first);
	assert_int_equal(fake_cache_counts(m.cache).finished, 0);
	do_release(&m, a, second);
	wait_open(0);
	while (fake_cache_counts(m.cache).objects > 0)
		;
	assert_int_equal(fake_cache_counts(m.cache).finished, 1);
	assert_null(fake_fetch_local(m.fetch, "a"));
	assert_int_equal(fake_cache_counts(m.cache).objects, 0);
	do_release(&m, a, open_as(a, CST_FS_PASSTHROUGH));
	assert_int_equal(stats().opens_cached, 2);
	assert_int_equal(stats().opens_passthrough, 1);
}

static void what_is_not_passed_through(void **state)
{
	(void)state;
	fake_start(&m);
	uint64_t a = node_of("a"), empty = node_of("empty");
	do_release(&m, empty, open_as(empty, CST_FS_KEEP_CACHE));
	assert_int_equal(fake_cache_counts(m.cache).opens, 0);
	fake_cache_refuse(m.cache, true); /* not wanted there */
	uint64_t fh = open_as(a, CST_FS_KEEP_CACHE);
	assert_null(fake_fetch_local(m.fetch, "a"));
	do_release(&m, a, fh);
	fake_cache_complete(m.cache, "a", "one", -1); /* in a slab */
	do_release(&m, a, open_as(a, CST_FS_KEEP_CACHE));
	fake_cache_complete(m.cache, "a", "two", file); /* another version */
	do_release(&m, a, open_as(a, CST_FS_KEEP_CACHE));
	assert_int_equal(fake_backing.opened, 0);
	struct fake_call *c = do_open_flags(&m, a, O_RDWR);
	assert_int_equal(c->rc, -EROFS);
	call_free(c);
}

static void options_turn_it_off(void **state)
{
	(void)state;
	fake_start(&m);
	fake_end(&m);
	for (int direct = 0; direct < 2; direct++) {
		setup(NULL);
		m.config.direct_io = direct;
		m.config.passthrough = direct;
		fake_start(&m);
		fake_cache_complete(m.cache, "a", "one", file);
		uint64_t a = node_of("a");
		do_release(&m, a, open_as(a, direct ? CST_FS_DIRECT_IO : CST_FS_KEEP_CACHE));
		assert_int_equal(fake_backing.opened, 0);
		assert_int_equal(stats().opens_direct, direct);
		if (!direct)
			fake_end(&m);
	}
}

static void a_refused_backing_file_falls_back(void **state)
{
	(void)state;
	fake_start(&m);
	fake_cache_complete(m.cache, "a", "one", file);
	uint64_t a = node_of("a");
	fake_backing.fail = -ELOOP;
	do_release(&m, a, open_as(a, CST_FS_KEEP_CACHE));
	assert_int_equal(stats().passthrough_error, -ELOOP);
	fake_backing.fail = 0; /* the next file may lie elsewhere */
	do_release(&m, a, open_as(a, CST_FS_PASSTHROUGH));
	fake_backing.fail = -EPERM;
	do_release(&m, a, open_as(a, CST_FS_KEEP_CACHE));
	assert_int_equal(stats().passthrough_error, -EPERM);
	fake_backing.fail = 0; /* that doesn't change any more: it is not tried again */
	do_release(&m, a, open_as(a, CST_FS_KEEP_CACHE));
	assert_int_equal(fake_backing.opened, 1);
}

static void an_answer_nobody_takes_is_undone(void **state)
{
	(void)state;
	fake_start(&m);
	fake_cache_complete(m.cache, "a", "one", file);
	uint64_t a = node_of("a");
	struct fake_call *c = call_new();
	c->node = a;
	c->refuse = true;
	cst_fs_open(m.fs, &c->call, a, O_RDONLY);
	call_wait(c);
	call_free(c);
	assert_int_equal(fake_backing.opened, 1);
	assert_int_equal(fake_backing.live, 0);
	assert_int_equal(stats().open_files, 0);
	assert_int_equal(fake_cache_counts(m.cache).objects, 0);
}

/* An interrupt is carried out by a thread of its own. */
static void opens_wait_for_the_cache(void **state)
{
	struct fake_call *calls[3];
	(void)state;
	fake_start(&m);
	uint64_t a = node_of("a");
	fake_cache_complete(m.cache, "a", "one", file);
	fake_cache_hold(m.cache, true);
	for (int i = 0; i < 3; i++) {
		calls[i] = call_new();
		calls[i]->node = a;
		cst_fs_open(m.fs, &calls[i]->call, a, O_RDONLY);
		assert_false(calls[i]->done);
	}
	assert_int_equal(fake_cache_counts(m.cache).opens, 1);
	cst_fs_call_interrupt(&calls[0]->call);
	assert_int_equal(call_wait(calls[0]), -EINTR);
	fake_cache_hold(m.cache, false);
	for (int i = 1; i < 3; i++) {
		assert_int_equal(call_wait(calls[i]), 0);
		assert_int_equal(calls[i]->flags, CST_FS_PASSTHROUGH);
		do_release(&m, a, calls[i]->fh);
	}
	while (fake_cache_counts(m.cache).objects > 0) /* who carries out the interrupt puts it away after the answer */
		;
	/* Everybody leaves, then the answer comes. */
	fake_cache_hold(m.cache, true);
	struct fake_call *last = call_new();
	last->node = a;
	cst_fs_open(m.fs, &last->call, a, O_RDONLY);
	cst_fs_call_interrupt(&last->call);
	assert_int_equal(call_wait(last), -EINTR);
	fake_cache_hold(m.cache, false);
	assert_int_equal(stats().open_files, 0);
	for (int i = 0; i < 3; i++)
		call_free(calls[i]);
	call_free(last);
}

static void a_replaced_object(void **state)
{
	struct cst_fs_entry e;
	uint64_t fh;
	(void)state;
	fake_start(&m);
	fake_cache_complete(m.cache, "a", "one", file);
	uint64_t old = node_of("a"), old_fh = open_as(old, CST_FS_PASSTHROUGH);
	fake_put(m.bucket, "a", 2000, "two", 2, NULL);
	fake_pass(100 * CST_NS_PER_S);
	assert_int_equal(do_open(&m, old, &fh), -ESTALE);
	assert_int_equal(do_path(&m, "a", &e), 0);
	assert_int_not_equal(e.node, old);
	fh = open_as(e.node, CST_FS_KEEP_CACHE);
	assert_int_equal(fake_backing.live, 1); /* who has the old bytes keeps them */
	do_release(&m, e.node, fh);
	fake_cache_complete(m.cache, "a", "two", file);
	fh = open_as(e.node, CST_FS_PASSTHROUGH);
	assert_int_equal(fake_backing.live, 2);
	do_release(&m, old, old_fh);
	do_release(&m, e.node, fh);
	assert_int_equal(fake_backing.live, 0);
}

/* O_DIRECT is served in pieces of any size, so not by the cache file. */
static void another_mode_takes_another_node(void **state)
{
	struct cst_fs_entry before, e;
	struct cst_fs_attr attr;
	(void)state;
	fake_start(&m);
	fake_cache_complete(m.cache, "a", "one", file);
	assert_int_equal(do_path(&m, "a", &before), 0);
	struct fake_call *c = do_open_flags(&m, before.node, O_RDONLY | O_DIRECT); /* closed: it may choose */
	assert_int_equal(c->rc, 0);
	assert_int_equal(c->flags, CST_FS_KEEP_CACHE);
	do_release(&m, before.node, c->fh);
	call_free(c);
	uint64_t fh = open_as(before.node, CST_FS_KEEP_CACHE); /* another such open may follow */
	do_release(&m, before.node, fh);
	fake_pass(10 * CST_NS_PER_S);
	fh = open_as(before.node, CST_FS_PASSTHROUGH);
	c = do_open_flags(&m, before.node, O_RDONLY | O_DIRECT);
	assert_int_equal(c->rc, -ESTALE);
	call_free(c);
	assert_int_equal(do_path(&m, "a", &e), 0);
	assert_int_not_equal(e.node, before.node);
	assert_int_equal(e.attr.st.st_ino, before.attr.st.st_ino);
	assert_int_equal(e.attr.st.st_size, 1000);
	c = do_open_flags(&m, e.node, O_RDONLY | O_DIRECT);
	assert_int_equal(c->rc, 0);
	assert_int_equal(c->flags, CST_FS_KEEP_CACHE);
	/* Both are of the same version and answer, also when it is asked for anew. */
	for (int i = 0; i < 2; i++) {
		assert_int_equal(do_getattr(&m, before.node, &attr), 0);
		assert_int_equal(attr.st.st_ino, before.attr.st.st_ino);
		assert_int_equal(do_getattr(&m, e.node, &attr), 0);
		assert_int_equal(node_of("a"), e.node);
		fake_pass(100 * CST_NS_PER_S);
	}
	uint64_t more = open_as(before.node, CST_FS_PASSTHROUGH); /* /proc/self/fd */
	do_release(&m, before.node, more);
	do_release(&m, before.node, fh);
	do_release(&m, e.node, c->fh);
	call_free(c);
	cst_fs_forget(m.fs, before.node, 1);
	int rc;
	while ((rc = do_getattr(&m, before.node, &attr)) == 0) /* a check lets go of its inode just after its answer */
		;
	assert_int_equal(rc, -ESTALE);
	assert_int_equal(node_of("a"), e.node);
}

/* Whoever has it open reads on in it; nobody new does. */
static void a_file_that_the_cache_dropped(void **state)
{
	struct cst_fs_entry e;
	uint64_t fh;
	(void)state;
	fake_start(&m);
	fake_cache_complete(m.cache, "a", "one", file);
	uint64_t a = node_of("a"), old = open_as(a, CST_FS_PASSTHROUGH);
	fake_cache_complete(m.cache, "a", "one", -1);
	assert_int_equal(do_open(&m, a, &fh), -ESTALE);
	uint64_t again = open_as(a, CST_FS_PASSTHROUGH); /* /proc/self/fd: no name leads elsewhere */
	do_release(&m, a, again);
	assert_int_equal(do_open(&m, a, &fh), -ESTALE);
	fake_pass(30 * CST_NS_PER_S); /* much later: another open */
	assert_int_equal(do_open(&m, a, &fh), -ESTALE);
	assert_int_equal(fake_backing.live, 1);
	assert_int_equal(do_path(&m, "a", &e), 0);
	assert_int_not_equal(e.node, a);
	fh = open_as(e.node, CST_FS_KEEP_CACHE);
	do_release(&m, a, old);
	assert_int_equal(fake_backing.live, 0);
	do_release(&m, e.node, fh);
}

/* ESTALE twice ends an open; the next one is not the same again. */
static void refused_twice(void **state)
{
	struct cst_fs_entry e;
	uint64_t fh;
	(void)state;
	fake_start(&m);
	fake_put(m.bucket, "b", 1000, "one", 1, NULL);
	fake_cache_complete(m.cache, "b", "one", file);
	uint64_t a = node_of("a"), b = node_of("b");
	fake_put(m.bucket, "a", 1000, "two", 2, NULL);
	fake_pass(100 * CST_NS_PER_S);
	for (int i = 0; i < 2; i++)
		assert_int_equal(do_open(&m, a, &fh), -ESTALE); /* /proc/self/fd of a version that is gone */
	assert_int_equal(do_path(&m, "b", &e), 0);
	fh = open_as(b, CST_FS_PASSTHROUGH);
	struct fake_call *c;
	for (int i = 0; i < 2; i++)
		assert_int_equal(do_open(&m, a, &(uint64_t){0}), -ESTALE);
	c = do_open_flags(&m, b, O_RDONLY | O_DIRECT);
	assert_int_equal(c->rc, -ESTALE);
	call_free(c);
	do_release(&m, b, fh);
}

/* The kernel looks up once: an object that is replaced twice within one open is opened as it was found by name. */
static void replaced_twice(void **state)
{
	struct cst_fs_entry e;
	uint64_t fh;
	(void)state;
	m.config.list_ttl = 0;
	fake_start(&m);
	uint64_t a = node_of("a");
	for (int i = 0; i < 2; i++) {
		fake_put(m.bucket, "a", 1000, i ? "three" : "two", 2 + 2 * i, NULL);
		assert_int_equal(do_open(&m, a, &fh), -ESTALE);
		assert_int_equal(do_path(&m, "a", &e), 0);
		assert_int_not_equal(e.node, a);
		fake_put(m.bucket, "a", 1000, i ? "five" : "four", 3 + 2 * i, NULL);
		fh = open_as(e.node, CST_FS_KEEP_CACHE);
		do_release(&m, e.node, fh);
		assert_int_equal(do_path(&m, "a", &e), 0);
		a = e.node;
	}
}

/* ---- a process that dies ---- */

static struct {
	struct cst_identity *all[64];
	size_t count;
	uint64_t next_node;
	bool dying;
	struct cst_fs_refused refused[CST_FS_REFUSED];
} left;

static void *left_alloc(void *arg, size_t size)
{
	(void)arg;
	return cst_xcalloc(1, size);
}

static void left_commit(void *arg, struct cst_identity *id)
{
	(void)arg;
	assert_true(left.count < CST_ARRAY_LEN(left.all));
	left.all[left.count++] = id;
}

static void left_free(void *arg, struct cst_identity *id, size_t size)
{
	(void)arg;
	(void)size;
	if (left.dying)
		return;
	for (size_t i = 0; i < left.count; i++)
		if (left.all[i] == id) {
			memmove(left.all + i, left.all + i + 1, (--left.count - i) * sizeof(id));
			break;
		}
	free(id);
}

static const struct cst_identity_memory left_memory = {left_alloc, left_commit, left_free, NULL, &left.next_node, 1};

static void dies_and_another_goes_on(void)
{
	struct cst_identity *inherited[CST_ARRAY_LEN(left.all)];
	left.dying = true;
	cst_fs_free(m.fs);
	left.dying = false;
	memcpy(inherited, left.all, sizeof(inherited));
	m.config.inherited = inherited;
	m.config.inherited_count = left.count;
	for (size_t i = 0; i < CST_FS_REFUSED; i++) /* it has another number */
		left.refused[i].by ^= 1;
	fake_start(&m);
	m.config.inherited = NULL;
}

static int opened_by(uint32_t pid, uint64_t node)
{
	struct fake_call *c = call_new();
	c->node = node;
	c->call.pid = pid;
	cst_fs_open(m.fs, &c->call, node, O_RDONLY);
	int rc = call_wait(c);
	if (rc == 0)
		do_release(&m, node, c->fh);
	call_free(c);
	return rc;
}

static void processes_die(void **state)
{
	struct cst_fs_entry e, later;
	(void)state;
	left.count = 0;
	left.next_node = 0;
	memset(left.refused, 0, sizeof(left.refused));
	m.config.identities = &left_memory;
	m.config.refused = left.refused;
	fake_put(m.bucket, "b", 1000, "one", 1, NULL);
	fake_start(&m);
	uint64_t a = node_of("a"), b = node_of("b");
	assert_int_equal(opened_by(1, a), 0);
	dies_and_another_goes_on();
	assert_int_equal(opened_by(1, b), 0); /* nobody has ever opened it */
	assert_int_equal(opened_by(1, a), -ESTALE);
	assert_int_equal(do_path(&m, "a", &e), 0);
	assert_int_not_equal(e.node, a);
	assert_int_equal(opened_by(2, e.node), 0);
	/* The open that was refused comes to the next process, which doesn't know what is open any more. */
	dies_and_another_goes_on();
	assert_int_equal(opened_by(1, e.node), 0);
	assert_int_equal(opened_by(1, e.node), -ESTALE); /* another open */
	assert_int_equal(do_path(&m, "a", &later), 0);
	assert_int_not_equal(later.node, e.node);
	assert_int_equal(later.attr.st.st_ino, e.attr.st.st_ino);
	/* Was it answered at all? */
	dies_and_another_goes_on();
	assert_int_equal(opened_by(1, e.node), -ESTALE);
	assert_int_equal(opened_by(1, later.node), 0);
}

static void open_and_close(void *arg)
{
	const uint64_t *node = arg;
	uint64_t fh;
	fake_cache_on_finish(m.cache, NULL, NULL);
	assert_int_equal(do_open(&m, *node, &fh), 0);
	do_release(&m, *node, fh);
}

/* What completes an object in the background may find other reads to end on the same thread, and these other files to let go of. */
static void completing_ends_other_reads(void **state)
{
	uint64_t fh;
	(void)state;
	fake_start(&m);
	uint64_t a = node_of("a");
	fake_cache_on_finish(m.cache, open_and_close, &a);
	assert_int_equal(do_open(&m, a, &fh), 0);
	do_release(&m, a, fh);
	assert_int_equal(fake_cache_counts(m.cache).finished, 2);
	assert_int_equal(fake_cache_counts(m.cache).objects, 0);
}

static void a_rebuilt_handle_has_no_mode(void **state)
{
	CST_AUTO_BUF data = CST_BUF_INIT;
	(void)state;
	fake_start(&m);
	fake_cache_complete(m.cache, "a", "one", file);
	uint64_t a = node_of("a"), fh = open_as(a, CST_FS_PASSTHROUGH);
	assert_int_equal(do_read(&m, a, fh, 10, 20, &data), 0); /* the kernel doesn't, but it is served */
	assert_int_equal(data.len, 20);
	assert_int_equal(do_read(&m, a, fh + 1000, 10, 20, &data), 0);
	assert_int_equal(data.len, 20);
	do_release(&m, a, fh);
	do_release(&m, a, fh + 1000);
	wait_open(0);
	while (fake_cache_counts(m.cache).objects > 0)
		;
	assert_int_equal(fake_backing.live, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(whole_objects_are_passed_through, setup, teardown),
		cmocka_unit_test_setup_teardown(an_open_inode_keeps_its_mode, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_not_passed_through, setup, teardown),
		cmocka_unit_test_setup_teardown(options_turn_it_off, setup, teardown),
		cmocka_unit_test_setup_teardown(a_refused_backing_file_falls_back, setup, teardown),
		cmocka_unit_test_setup_teardown(an_answer_nobody_takes_is_undone, setup, teardown),
		cmocka_unit_test_setup_teardown(opens_wait_for_the_cache, setup, teardown),
		cmocka_unit_test_setup_teardown(a_replaced_object, setup, teardown),
		cmocka_unit_test_setup_teardown(another_mode_takes_another_node, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_that_the_cache_dropped, setup, teardown),
		cmocka_unit_test_setup_teardown(refused_twice, setup, teardown),
		cmocka_unit_test_setup_teardown(replaced_twice, setup, teardown),
		cmocka_unit_test_setup_teardown(processes_die, setup, teardown),
		cmocka_unit_test_setup_teardown(completing_ends_other_reads, setup, teardown),
		cmocka_unit_test_setup_teardown(a_rebuilt_handle_has_no_mode, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
