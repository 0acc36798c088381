/* Writing files: publication, sizes, one writer, conflicts, what is read meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "fake_host.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static struct fake_mount m;

static int setup(void **state)
{
	(void)state;
	fake_config(&m);
	fake_with_writes(&m);
	fake_put(m.bucket, "d/old", 20, "v1", 1000, NULL);
	fake_put(m.bucket, "d/other", 5, "v1", 1000, NULL);
	fake_start(&m);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_end(&m);
	return 0;
}

static uint64_t dir_node(void)
{
	struct cst_fs_entry e;
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "d", &e), 0);
	char *names = do_ls(&m, e.node, false); /* it is known now */
	free(names);
	return e.node;
}

static struct fake_call *open_write(uint64_t node, uint32_t flags)
{
	struct fake_call *c = do_open_flags(&m, node, flags);
	assert_int_equal(c->rc, 0);
	assert_int_equal(c->flags, CST_FS_DIRECT_IO);
	return c;
}

static void settle(void)
{
	struct cst_error err = CST_ERROR_INIT;
	assert_int_equal(cst_fs_settle_writes(m.fs, 0, &err), 0);
}

static char *read_all(uint64_t node, uint64_t fh)
{
	struct cst_buf data = CST_BUF_INIT;
	assert_int_equal(do_read(&m, node, fh, 0, 4096, &data), 0);
	return cst_buf_steal(&data);
}

static void expect_content(uint64_t node, const char *text)
{
	uint64_t fh;
	assert_int_equal(do_open(&m, node, &fh), 0);
	char *got = read_all(node, fh);
	assert_string_equal(got, text);
	free(got);
	do_release(&m, node, fh);
}

/* echo x > new, in a directory that is known: one PUT and nothing else. */
static void new_file(void **state)
{
	struct cst_fs_entry e;
	uint64_t dir = dir_node();
	(void)state;
	assert_int_equal(do_lookup(&m, dir, "new", &e), -ENOENT);
	fake_reset_counts(m.bucket);
	struct fake_call *c = do_create(&m, dir, "new", O_WRONLY | O_TRUNC);
	assert_int_equal(c->rc, 0);
	uint64_t node = c->entry.node, fh = c->fh, ino = c->entry.attr.st.st_ino;
	call_free(c);
	assert_int_equal(do_flush(&m, node, fh), 0); /* dup2() closes a descriptor */
	assert_true(fake_has(m.bucket, "d/new", NULL));
	assert_int_equal(do_write(&m, node, fh, 0, "hello"), 5);
	struct cst_fs_attr attr;
	assert_int_equal(do_getattr(&m, node, &attr), 0);
	assert_int_equal(attr.st.st_size, 5);
	assert_int_equal(attr.ttl, 0);
	assert_int_equal(do_flush(&m, node, fh), 0);
	assert_true(fake_has(m.bucket, "d/new", "hello"));
	do_release(&m, node, fh);
	assert_int_equal(do_lookup(&m, dir, "new", &e), 0);
	assert_int_equal(e.node, node);
	assert_int_equal(e.attr.st.st_ino, ino);
	assert_int_equal(e.attr.st.st_size, 5);
	char *names = do_ls(&m, dir, false);
	assert_non_null(strstr(names, "new "));
	free(names);
	expect_content(node, "hello");
	struct fake_counts counts = fake_counts(m.bucket);
	assert_int_equal(counts.puts, 1);
	assert_int_equal(counts.heads + counts.lists + counts.copies + counts.deletes, 0);
	cst_fs_forget(m.fs, node, 2);
}

/* In a directory that is not known, the lookup before it is enough. */
static void new_file_after_lookup(void **state)
{
	struct cst_fs_entry e, d;
	(void)state;
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "d", &d), 0);
	assert_int_equal(do_lookup(&m, d.node, "new", &e), -ENOENT);
	fake_reset_counts(m.bucket);
	assert_int_equal(do_put(&m, d.node, "new", "x"), 0);
	struct fake_counts counts = fake_counts(m.bucket);
	assert_int_equal(counts.puts, 1);
	assert_int_equal(counts.heads + counts.lists, 0);
	assert_int_equal(do_lookup(&m, d.node, "new", &e), 0);
	assert_int_equal(e.attr.st.st_size, 1);
}

static void exists_already(void **state)
{
	uint64_t dir = dir_node();
	(void)state;
	struct fake_call *c = do_create(&m, dir, "old", O_WRONLY | O_EXCL);
	assert_int_equal(c->rc, -EEXIST);
	call_free(c);
	c = do_create(&m, dir, "old", O_WRONLY);
	assert_int_equal(c->rc, -ESTALE); /* the kernel looks it up again */
	call_free(c);
	c = do_create(&m, CST_FS_ROOT, "d", O_WRONLY);
	assert_int_equal(c->rc, -EISDIR);
	call_free(c);
	char name[CST_NAME_MAX + 2];
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	c = do_create(&m, dir, name, O_WRONLY);
	assert_int_equal(c->rc, -ENAMETOOLONG);
	call_free(c);
}

/* echo x > existing: one PUT, and nobody sees it empty in between. */
static void replaced(void **state)
{
	struct cst_fs_entry e;
	uint64_t dir = dir_node();
	(void)state;
	assert_int_equal(do_lookup(&m, dir, "old", &e), 0);
	fake_reset_counts(m.bucket);
	struct fake_call *c = open_write(e.node, O_WRONLY | O_TRUNC);
	assert_int_equal(do_flush(&m, e.node, c->fh), 0);
	assert_int_equal(fake_counts(m.bucket).puts, 0);
	assert_int_equal(do_write(&m, e.node, c->fh, 0, "new content"), 11);
	assert_int_equal(do_flush(&m, e.node, c->fh), 0);
	do_release(&m, e.node, c->fh);
	call_free(c);
	assert_int_equal(fake_counts(m.bucket).puts, 1);
	assert_true(fake_has(m.bucket, "d/old", "new content"));
	struct cst_fs_entry now;
	assert_int_equal(do_lookup(&m, dir, "old", &now), 0);
	assert_int_equal(now.node, e.node);
	assert_int_equal(now.attr.st.st_ino, e.attr.st.st_ino);
	assert_int_equal(now.attr.st.st_size, 11);
	expect_content(e.node, "new content");
}

/* > existing, and nothing written: published by the release; who opens it next waits for that. */
static void emptied(void **state)
{
	struct cst_fs_entry e;
	uint64_t dir = dir_node();
	(void)state;
	assert_int_equal(do_lookup(&m, dir, "old", &e), 0);
	struct fake_call *c = open_write(e.node, O_WRONLY | O_TRUNC);
	assert_int_equal(do_flush(&m, e.node, c->fh), 0);
	assert_int_equal(fake_counts(m.bucket).puts, 0);
	fake_hold_write(m.bucket, "d/old");
	do_release(&m, e.node, c->fh);
	call_free(c);
	fake_wait_held(m.bucket, 1);
	struct fake_call *next = call_new();
	next->node = e.node;
	cst_fs_open(m.fs, &next->call, e.node, O_RDONLY);
	assert_false(next->done);
	fake_hold_write(m.bucket, "");
	assert_int_equal(call_wait(next), 0);
	assert_true(fake_has(m.bucket, "d/old", ""));
	char *got = read_all(e.node, next->fh);
	assert_string_equal(got, "");
	free(got);
	do_release(&m, e.node, next->fh);
	call_free(next);
	settle();
	/* What is empty is not written again. */
	fake_reset_counts(m.bucket);
	c = open_write(e.node, O_WRONLY | O_TRUNC);
	assert_int_equal(do_close(&m, e.node, c->fh), 0);
	call_free(c);
	settle();
	assert_int_equal(fake_counts(m.bucket).puts, 0);
}

static void appended(void **state)
{
	struct cst_fs_entry e;
	uint64_t dir = dir_node();
	(void)state;
	assert_int_equal(do_put(&m, dir, "log", "one "), 0);
	assert_int_equal(do_lookup(&m, dir, "log", &e), 0);
	struct fake_call *c = open_write(e.node, O_WRONLY | O_APPEND);
	assert_int_equal(do_write(&m, e.node, c->fh, 0, "two "), 4); /* wherever the kernel thinks the end is */
	assert_int_equal(do_fsync(&m, e.node, c->fh), 0);
	assert_true(fake_has(m.bucket, "d/log", "one two "));
	assert_int_equal(do_write(&m, e.node, c->fh, 8, "three"), 5);
	assert_int_equal(do_close(&m, e.node, c->fh), 0);
	call_free(c);
	assert_true(fake_has(m.bucket, "d/log", "one two three"));
	/* Pieces of one write, the second one first. */
	settle();
	assert_int_equal(do_lookup(&m, dir, "log", &e), 0);
	c = open_write(e.node, O_WRONLY | O_APPEND);
	struct fake_call *late = call_new();
	cst_fs_write(m.fs, &late->call, e.node, c->fh, 18, CST_SLICE(" five"));
	assert_int_equal(do_write(&m, e.node, c->fh, 13, " four"), 5);
	assert_int_equal(call_wait(late), 0);
	call_free(late);
	assert_int_equal(do_write(&m, e.node, c->fh, 100, " end"), 4);
	assert_int_equal(do_close(&m, e.node, c->fh), 0);
	call_free(c);
	assert_true(fake_has(m.bucket, "d/log", "one two three four five end"));
	/* Opened to be read and written, and only read. */
	fake_reset_counts(m.bucket);
	c = open_write(e.node, O_RDWR);
	char *got = read_all(e.node, c->fh);
	assert_string_equal(got, "one two three four five end");
	free(got);
	assert_int_equal(do_close(&m, e.node, c->fh), 0);
	call_free(c);
	assert_int_equal(fake_counts(m.bucket).puts, 0);
}

/* What goes along with an object stays when it is appended to, its times apart; replaced, it is another object. */
static void properties(void **state)
{
	struct cst_fs_entry e;
	(void)state;
	fake_put_text(m.bucket, "d/known", "one ", "v1", "colour=blue\nmtime=1000\nmode=33188\n");
	uint64_t dir = dir_node();
	assert_int_equal(do_lookup(&m, dir, "known", &e), 0);
	struct fake_call *c = open_write(e.node, O_WRONLY | O_APPEND);
	/* Not known: not written. */
	fake_fail(m.bucket, -EACCES, "HeadObject");
	assert_int_equal(do_write(&m, e.node, c->fh, 4, "two "), -EACCES);
	fake_fail(m.bucket, 0, "");
	fake_reset_counts(m.bucket);
	assert_int_equal(do_write(&m, e.node, c->fh, 4, "two "), 4);
	assert_int_equal(do_fsync(&m, e.node, c->fh), 0);
	assert_true(fake_has_meta(m.bucket, "d/known", "colour=blue\nmode=33188\n"));
	assert_int_equal(do_write(&m, e.node, c->fh, 8, "three"), 5);
	assert_int_equal(do_close(&m, e.node, c->fh), 0);
	call_free(c);
	assert_true(fake_has(m.bucket, "d/known", "one two three"));
	assert_true(fake_has_meta(m.bucket, "d/known", "colour=blue\nmode=33188\n"));
	assert_int_equal(fake_counts(m.bucket).heads, 1);
	/* Interrupted while it waits for them. */
	settle();
	assert_int_equal(do_lookup(&m, dir, "known", &e), 0);
	c = open_write(e.node, O_WRONLY | O_APPEND);
	fake_hold_head(m.bucket, "d/known");
	struct fake_call *first = call_new();
	cst_fs_write(m.fs, &first->call, e.node, c->fh, 13, CST_SLICE("never"));
	fake_wait_held(m.bucket, 1);
	cst_fs_call_interrupt(&first->call);
	assert_int_equal(call_wait(first), -EINTR);
	call_free(first);
	fake_hold_head(m.bucket, "");
	assert_int_equal(do_close(&m, e.node, c->fh), 0);
	call_free(c);
	assert_true(fake_has(m.bucket, "d/known", "one two three"));
	settle();
	assert_int_equal(do_lookup(&m, dir, "known", &e), 0);
	c = open_write(e.node, O_WRONLY | O_TRUNC);
	assert_int_equal(do_write(&m, e.node, c->fh, 0, "new"), 3);
	assert_int_equal(do_close(&m, e.node, c->fh), 0);
	call_free(c);
	assert_true(fake_has_meta(m.bucket, "d/known", ""));
}

/* Offsets: what doesn't go on at the end is refused; a piece that comes early waits for the one before it. */
static void offsets(void **state)
{
	uint64_t dir = dir_node();
	(void)state;
	struct fake_call *c = do_create(&m, dir, "new", O_WRONLY);
	uint64_t node = c->entry.node, fh = c->fh;
	call_free(c);
	struct fake_call *late = call_new();
	cst_fs_write(m.fs, &late->call, node, fh, 3, CST_SLICE("def"));
	assert_int_equal(do_write(&m, node, fh, 0, "abc"), 3);
	assert_int_equal(call_wait(late), 0);
	assert_int_equal(late->written, 3);
	call_free(late);
	assert_int_equal(do_write(&m, node, fh, 2, "x"), -EINVAL);
	assert_int_equal(do_write(&m, node, fh, 100, "x"), -EINVAL); /* nothing comes in between */
	assert_int_equal(do_write(&m, node, fh, 6, ""), 0);
	assert_int_equal(do_write(&m, node, fh, 6, "ghi"), 3);
	assert_int_equal(do_close(&m, node, fh), 0);
	assert_true(fake_has(m.bucket, "d/new", "abcdefghi"));
	assert_int_equal(do_write(&m, node, fh, 9, "x"), -EIO); /* a number of a handle that nobody knows */
	assert_int_equal(do_flush(&m, node, fh), -EIO);
}

static void no_room(void **state)
{
	uint64_t dir = dir_node();
	(void)state;
	struct fake_call *c = do_create(&m, dir, "new", O_WRONLY);
	uint64_t node = c->entry.node, fh = c->fh;
	call_free(c);
	fake_publish_full(m.publish, true);
	struct fake_call *first = call_new(), *second = call_new();
	cst_fs_write(m.fs, &first->call, node, fh, 0, CST_SLICE("abc"));
	cst_fs_write(m.fs, &second->call, node, fh, 3, CST_SLICE("def"));
	assert_int_equal(fake_publish_waiting(m.publish), 1); /* one at a time */
	cst_fs_call_interrupt(&first->call);
	assert_int_equal(call_wait(first), -EINTR);
	assert_int_equal(call_wait(second), -EINVAL); /* there is a hole before it now */
	call_free(first);
	call_free(second);
	first = call_new();
	cst_fs_write(m.fs, &first->call, node, fh, 0, CST_SLICE("abc"));
	fake_publish_full(m.publish, false);
	assert_int_equal(call_wait(first), 0);
	call_free(first);
	assert_int_equal(do_close(&m, node, fh), 0);
	assert_true(fake_has(m.bucket, "d/new", "abc"));
}

static void one_writer(void **state)
{
	struct cst_fs_entry e;
	uint64_t dir = dir_node();
	(void)state;
	assert_int_equal(do_lookup(&m, dir, "old", &e), 0);
	struct fake_call *c = open_write(e.node, O_WRONLY | O_APPEND);
	struct fake_call *second = do_open_flags(&m, e.node, O_WRONLY);
	assert_int_equal(second->rc, -EBUSY);
	call_free(second);
	/* Who reads it meanwhile sees what was published last. */
	struct fake_call *reader = do_open_flags(&m, e.node, O_RDONLY);
	assert_int_equal(reader->rc, 0);
	assert_int_equal(reader->flags, CST_FS_DIRECT_IO);
	char *before = read_all(e.node, reader->fh);
	assert_int_equal(strlen(before), 20);
	assert_int_equal(do_write(&m, e.node, c->fh, 20, "more"), 4);
	char *during = read_all(e.node, reader->fh);
	assert_string_equal(during, before);
	assert_int_equal(do_fsync(&m, e.node, c->fh), 0);
	char *after = read_all(e.node, reader->fh);
	assert_int_equal(strlen(after), 24);
	assert_string_equal(after + 20, "more");
	assert_memory_equal(after, before, 20);
	assert_int_equal(fake_invalidated, e.node); /* its mappings */
	free(before);
	free(during);
	free(after);
	assert_int_equal(do_close(&m, e.node, c->fh), 0);
	call_free(c);
	/* Another writer may come while it is still being read. */
	c = open_write(e.node, O_WRONLY | O_APPEND);
	assert_int_equal(do_close(&m, e.node, c->fh), 0);
	call_free(c);
	do_release(&m, e.node, reader->fh);
	call_free(reader);
}

/* Handles with pages keep their version; the writer has another node. */
static void read_before(void **state)
{
	struct cst_fs_entry e, e2;
	uint64_t dir = dir_node(), fh;
	(void)state;
	assert_int_equal(do_lookup(&m, dir, "old", &e), 0);
	assert_int_equal(do_open(&m, e.node, &fh), 0);
	char *before = read_all(e.node, fh);
	struct fake_call *c = do_open_flags(&m, e.node, O_WRONLY | O_TRUNC);
	assert_int_equal(c->rc, -ESTALE);
	call_free(c);
	assert_int_equal(do_lookup(&m, dir, "old", &e2), 0);
	assert_true(e2.node != e.node);
	assert_int_equal(e2.attr.st.st_ino, e.attr.st.st_ino);
	c = open_write(e2.node, O_WRONLY | O_TRUNC);
	assert_int_equal(do_write(&m, e2.node, c->fh, 0, "new"), 3);
	assert_int_equal(do_close(&m, e2.node, c->fh), 0);
	call_free(c);
	char *again = read_all(e.node, fh);
	assert_string_equal(again, before);
	free(before);
	free(again);
	do_release(&m, e.node, fh);
	expect_content(e2.node, "new");
}

/* A program that reads what it has just written gets it: published first. */
static void own_bytes(void **state)
{
	uint64_t dir = dir_node();
	(void)state;
	struct fake_call *c = do_create(&m, dir, "new", O_RDWR);
	uint64_t node = c->entry.node, fh = c->fh;
	call_free(c);
	char *got = read_all(node, fh);
	assert_string_equal(got, "");
	free(got);
	assert_int_equal(fake_counts(m.bucket).puts, 0);
	assert_int_equal(do_write(&m, node, fh, 0, "abc"), 3);
	got = read_all(node, fh);
	assert_string_equal(got, "abc");
	free(got);
	assert_int_equal(fake_counts(m.bucket).puts, 1);
	got = read_all(node, fh);
	free(got);
	assert_int_equal(fake_counts(m.bucket).puts, 1);
	assert_int_equal(do_write(&m, node, fh, 3, "def"), 3);
	struct cst_buf data = CST_BUF_INIT;
	assert_int_equal(do_read(&m, node, fh, 0, 3, &data), 0); /* these are there */
	assert_int_equal(fake_counts(m.bucket).puts, 1);
	cst_buf_fini(&data);
	assert_int_equal(do_close(&m, node, fh), 0);
	assert_int_equal(fake_counts(m.bucket).puts, 2);
}

static void truncated(void **state)
{
	struct cst_fs_entry e;
	struct cst_fs_attr attr;
	uint64_t dir = dir_node();
	(void)state;
	assert_int_equal(do_lookup(&m, dir, "old", &e), 0);
	assert_int_equal(do_truncate(&m, e.node, 20, &attr), 0); /* as it is */
	assert_int_equal(do_truncate(&m, e.node, 10, &attr), -EINVAL);
	assert_int_equal(do_truncate(&m, e.node, 30, &attr), -EINVAL);
	assert_int_equal(fake_counts(m.bucket).puts, 0);
	assert_int_equal(do_truncate(&m, e.node, 0, &attr), 0);
	assert_int_equal(attr.st.st_size, 0);
	assert_true(fake_has(m.bucket, "d/old", ""));
	settle();
	/* By who has it open: nothing is published before something is written, or the end. */
	struct fake_call *c = open_write(e.node, O_WRONLY);
	assert_int_equal(do_write(&m, e.node, c->fh, 0, "abcdef"), 6);
	assert_int_equal(do_fsync(&m, e.node, c->fh), 0);
	fake_reset_counts(m.bucket);
	assert_int_equal(do_truncate(&m, e.node, 0, &attr), 0);
	assert_int_equal(attr.st.st_size, 0);
	assert_int_equal(do_flush(&m, e.node, c->fh), 0);
	assert_int_equal(fake_counts(m.bucket).puts, 0);
	assert_true(fake_has(m.bucket, "d/old", "abcdef"));
	assert_int_equal(do_write(&m, e.node, c->fh, 0, "xy"), 2);
	assert_int_equal(do_close(&m, e.node, c->fh), 0);
	call_free(c);
	assert_int_equal(fake_counts(m.bucket).puts, 1);
	assert_true(fake_has(m.bucket, "d/old", "xy"));
}

/* Another writer was quicker. */
static void conflict(void **state)
{
	struct cst_fs_entry e, now;
	uint64_t dir = dir_node();
	(void)state;
	assert_int_equal(do_lookup(&m, dir, "old", &e), 0);
	struct fake_call *c = open_write(e.node, O_WRONLY | O_TRUNC);
	assert_int_equal(do_write(&m, e.node, c->fh, 0, "mine"), 4);
	fake_put(m.bucket, "d/old", 7, "v2", 2000, NULL);
	assert_int_equal(do_fsync(&m, e.node, c->fh), -ESTALE);
	assert_int_equal(do_write(&m, e.node, c->fh, 4, "x"), -ESTALE);
	assert_int_equal(fake_publish_kept(m.publish), 1);
	/* Who looks it up sees the other's. */
	assert_int_equal(do_lookup(&m, dir, "old", &now), 0);
	assert_true(now.node != e.node);
	assert_int_equal(now.attr.st.st_size, 7);
	assert_int_equal(do_close(&m, e.node, c->fh), -ESTALE);
	call_free(c);
	assert_int_equal(fake_publish_kept(m.publish), 1);
	assert_int_equal(do_lookup(&m, dir, "old", &now), 0);
	assert_int_equal(now.attr.st.st_size, 7);
}

static void conflict_of_new(void **state)
{
	struct cst_fs_entry now;
	uint64_t dir = dir_node();
	(void)state;
	struct fake_call *c = do_create(&m, dir, "new", O_WRONLY);
	uint64_t node = c->entry.node;
	assert_int_equal(do_write(&m, node, c->fh, 0, "mine"), 4);
	fake_put(m.bucket, "d/new", 7, "v2", 2000, NULL);
	assert_int_equal(do_close(&m, node, c->fh), -ESTALE);
	call_free(c);
	assert_int_equal(do_lookup(&m, dir, "new", &now), 0);
	assert_true(now.node != node);
	assert_int_equal(now.attr.st.st_size, 7);
	assert_int_equal(fake_publish_kept(m.publish), 1);
}

/* The store refuses: told by close; what was written stays, and the release tries once more. */
static void failing(void **state)
{
	uint64_t dir = dir_node();
	(void)state;
	struct fake_call *c = do_create(&m, dir, "new", O_WRONLY);
	uint64_t node = c->entry.node, fh = c->fh;
	call_free(c);
	assert_int_equal(do_write(&m, node, fh, 0, "abc"), 3);
	fake_fail_next(m.bucket, FAKE_PUT, 1, -EACCES, false);
	assert_int_equal(do_fsync(&m, node, fh), -EACCES);
	fake_fail_next(m.bucket, FAKE_PUT, 1, -EDQUOT, false);
	assert_int_equal(do_flush(&m, node, fh), -EDQUOT);
	fake_fail_next(m.bucket, FAKE_PUT, 1, -ETIMEDOUT, false);
	assert_int_equal(do_flush(&m, node, fh), -EIO);
	do_release(&m, node, fh);
	settle();
	assert_true(fake_has(m.bucket, "d/new", "abc"));
	assert_int_equal(fake_publish_kept(m.publish), 0);
	/* And when that fails, too, a copy is kept, and the name is gone. */
	c = do_create(&m, dir, "new2", O_WRONLY);
	assert_int_equal(do_write(&m, c->entry.node, c->fh, 0, "abc"), 3);
	fake_fail_next(m.bucket, FAKE_PUT, 2, -ETIMEDOUT, false);
	assert_int_equal(do_close(&m, c->entry.node, c->fh), -EIO);
	struct cst_error err = CST_ERROR_INIT;
	cst_fs_settle_writes(m.fs, 0, &err);
	call_free(c);
	/* It is kept when the last of those that knew the writer has let go, which may be after its end. */
	while (fake_publish_kept(m.publish) == 0)
		usleep(1000);
	assert_int_equal(fake_publish_kept(m.publish), 1);
	struct cst_fs_entry e;
	assert_int_equal(do_lookup(&m, dir, "new2", &e), -ENOENT);
}

/* An fsync and a close that come while one publication is under way. */
static void joined(void **state)
{
	uint64_t dir = dir_node();
	(void)state;
	struct fake_call *c = do_create(&m, dir, "new", O_WRONLY);
	uint64_t node = c->entry.node, fh = c->fh;
	call_free(c);
	assert_int_equal(do_write(&m, node, fh, 0, "abc"), 3);
	fake_hold_write(m.bucket, "d/new");
	struct fake_call *first = call_new(), *second = call_new(), *third = call_new();
	cst_fs_fsync(m.fs, &first->call, node, fh, false);
	fake_wait_held(m.bucket, 1);
	assert_int_equal(do_write(&m, node, fh, 3, "def"), 3);
	cst_fs_fsync(m.fs, &second->call, node, fh, false);
	cst_fs_flush(m.fs, &third->call, node, fh);
	assert_false(first->done || second->done || third->done);
	/* Only who is being killed is answered before the outcome. */
	cst_fs_call_interrupt(&third->call);
	cst_fs_call_interrupt(&first->call);
	fake_hold_write(m.bucket, "");
	assert_int_equal(call_wait(first), 0);
	assert_int_equal(call_wait(second), 0);
	assert_int_equal(call_wait(third), 0);
	assert_int_equal(fake_counts(m.bucket).puts, 2);
	assert_true(fake_has(m.bucket, "d/new", "abcdef"));
	call_free(first);
	call_free(second);
	call_free(third);
	assert_int_equal(do_close(&m, node, fh), 0);
}

/* A refresh, and listings, while it is written. */
static void refreshed(void **state)
{
	struct cst_fs_entry e;
	struct cst_fs_attr attr;
	struct cst_fs_refresh_result result;
	struct cst_error err = CST_ERROR_INIT;
	uint64_t dir = dir_node();
	(void)state;
	struct fake_call *c = do_create(&m, dir, "new", O_WRONLY);
	uint64_t node = c->entry.node, fh = c->fh;
	call_free(c);
	assert_int_equal(do_write(&m, node, fh, 0, "abc"), 3);
	assert_int_equal(cst_fs_refresh(m.fs, "", &result, &err), 0);
	assert_int_equal(do_lookup(&m, dir, "new", &e), 0);
	assert_int_equal(e.node, node);
	fake_pass(120 * CST_NS_PER_S);
	assert_int_equal(do_lookup(&m, dir, "new", &e), 0);
	assert_int_equal(e.node, node);
	assert_int_equal(do_getattr(&m, node, &attr), 0);
	assert_int_equal(attr.st.st_size, 3);
	char *names = do_ls(&m, dir, true);
	assert_non_null(strstr(names, "new "));
	free(names);
	assert_int_equal(do_close(&m, node, fh), 0);
	fake_pass(120 * CST_NS_PER_S);
	assert_int_equal(do_lookup(&m, dir, "new", &e), 0);
	assert_int_equal(e.node, node);
	assert_int_equal(cst_fs_refresh(m.fs, "", &result, &err), 0);
	assert_int_equal(do_lookup(&m, dir, "new", &e), 0);
	assert_int_equal(e.node, node);
	assert_int_equal(e.attr.st.st_size, 3);
}

/* Nobody takes the answer of a CREATE: there is no such file then. */
static void not_taken(void **state)
{
	struct cst_fs_entry e;
	uint64_t dir = dir_node();
	(void)state;
	struct fake_call *c = call_new();
	c->refuse = true;
	cst_fs_create(m.fs, &c->call, dir, "new", 0644, O_WRONLY);
	assert_int_equal(call_wait(c), 0);
	call_free(c);
	settle();
	assert_int_equal(do_lookup(&m, dir, "new", &e), -ENOENT);
	assert_int_equal(fake_counts(m.bucket).puts, 0);
	struct cst_fs_stats stats;
	cst_fs_stats(m.fs, &stats);
	assert_int_equal(stats.open_writers, 0);
}

/* Open at the end: what a settle can't publish in time is kept. */
static void unmounted(void **state)
{
	struct cst_error err = CST_ERROR_INIT;
	uint64_t dir = dir_node();
	(void)state;
	struct fake_call *c = do_create(&m, dir, "one", O_WRONLY);
	assert_int_equal(do_write(&m, c->entry.node, c->fh, 0, "abc"), 3);
	assert_int_equal(cst_fs_settle_writes(m.fs, 0, &err), 0);
	assert_true(fake_has(m.bucket, "d/one", "abc"));
	assert_int_equal(do_write(&m, c->entry.node, c->fh, 3, "def"), 3);
	call_free(c);
	fake_hold_write(m.bucket, "d/one");
	assert_int_equal(cst_fs_settle_writes(m.fs, cst_now() + CST_NS_PER_MS, &err), -ETIMEDOUT);
	/* The teardown frees the file system; the fake counts streams that are left. */
	fake_wait_held(m.bucket, 1);
	cst_fs_free(m.fs);
	assert_int_equal(fake_publish_kept(m.publish), 1);
	fake_hold_write(m.bucket, "");
	while (fake_counts(m.bucket).in_flight > 0)
		cst_sleep(CST_NS_PER_MS);
	fake_start(&m);
}

static void nodes_and_attributes(void **state)
{
	struct cst_fs_entry e;
	uint64_t dir = dir_node();
	(void)state;
	struct fake_call *c = call_new();
	cst_fs_mknod(m.fs, &c->call, dir, "node", S_IFREG | 0644);
	assert_int_equal(call_wait(c), 0);
	call_free(c);
	assert_true(fake_has(m.bucket, "d/node", ""));
	settle();
	assert_int_equal(do_lookup(&m, dir, "node", &e), 0);
	c = call_new();
	cst_fs_mknod(m.fs, &c->call, dir, "pipe", S_IFIFO | 0644);
	assert_int_equal(call_wait(c), -EPERM);
	call_free(c);
	struct cst_fs_setattr set = {.valid = CST_FS_SET_MODE | CST_FS_SET_MTIME, .mode = 0600, .mtime = 5};
	c = call_new();
	cst_fs_setattr(m.fs, &c->call, e.node, &set);
	assert_int_equal(call_wait(c), 0);
	assert_int_equal(c->attr.st.st_mode, S_IFREG | 0644);
	call_free(c);
	c = call_new();
	cst_fs_symlink(m.fs, &c->call, dir, "link", "old");
	assert_int_equal(call_wait(c), -ENOTSUP);
	call_free(c);
	c = call_new();
	cst_fs_setxattr(m.fs, &c->call, e.node, "user.x", CST_SLICE("1"), 0);
	assert_int_equal(call_wait(c), -ENOTSUP);
	call_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(new_file, setup, teardown),
		cmocka_unit_test_setup_teardown(new_file_after_lookup, setup, teardown),
		cmocka_unit_test_setup_teardown(exists_already, setup, teardown),
		cmocka_unit_test_setup_teardown(replaced, setup, teardown),
		cmocka_unit_test_setup_teardown(emptied, setup, teardown),
		cmocka_unit_test_setup_teardown(appended, setup, teardown),
		cmocka_unit_test_setup_teardown(properties, setup, teardown),
		cmocka_unit_test_setup_teardown(offsets, setup, teardown),
		cmocka_unit_test_setup_teardown(no_room, setup, teardown),
		cmocka_unit_test_setup_teardown(one_writer, setup, teardown),
		cmocka_unit_test_setup_teardown(read_before, setup, teardown),
		cmocka_unit_test_setup_teardown(own_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(truncated, setup, teardown),
		cmocka_unit_test_setup_teardown(conflict, setup, teardown),
		cmocka_unit_test_setup_teardown(conflict_of_new, setup, teardown),
		cmocka_unit_test_setup_teardown(failing, setup, teardown),
		cmocka_unit_test_setup_teardown(joined, setup, teardown),
		cmocka_unit_test_setup_teardown(refreshed, setup, teardown),
		cmocka_unit_test_setup_teardown(not_taken, setup, teardown),
		cmocka_unit_test_setup_teardown(unmounted, setup, teardown),
		cmocka_unit_test_setup_teardown(nodes_and_attributes, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
