/* Directories made and removed, files removed and renamed, trees renamed; and all of it at once. */
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
	fake_put_text(m.bucket, "d/a", "content of a", "va", NULL);
	fake_put_text(m.bucket, "d/b", "content of b", "vb", NULL);
	fake_start(&m);
	return 0;
}

static int teardown(void **state)
{
	struct cst_fs_stats stats;
	struct cst_error err = CST_ERROR_INIT;
	(void)state;
	assert_int_equal(cst_fs_settle_writes(m.fs, 0, &err), 0);
	/* A read's answer comes before it has let go of its handle. One that leaked ends the test by its timeout. */
	for (cst_fs_stats(m.fs, &stats); stats.open_files > 0; cst_fs_stats(m.fs, &stats))
		usleep(1000);
	assert_int_equal(stats.open_writers, 0);
	fake_end(&m);
	return 0;
}

static uint64_t known_dir(const char *name)
{
	struct cst_fs_entry e;
	assert_int_equal(do_path(&m, name, &e), 0);
	free(do_ls(&m, e.node, false));
	return e.node;
}

static uint64_t node_of(uint64_t dir, const char *name)
{
	struct cst_fs_entry e;
	assert_int_equal(do_lookup(&m, dir, name, &e), 0);
	return e.node;
}

static void expect_text(uint64_t dir, const char *name, const char *text)
{
	struct cst_buf data = CST_BUF_INIT;
	uint64_t fh, node = node_of(dir, name);
	assert_int_equal(do_open(&m, node, &fh), 0);
	assert_int_equal(do_read(&m, node, fh, 0, 4096, &data), 0);
	cst_buf_add_char(&data, 0);
	assert_string_equal(data.data, text);
	cst_buf_fini(&data);
	do_release(&m, node, fh);
}

static void expect_names(uint64_t dir, const char *names)
{
	char *got = do_ls(&m, dir, false);
	assert_string_equal(got, names);
	free(got);
}

static struct fake_call *create_file(uint64_t dir, const char *name, const char *text)
{
	struct fake_call *c = do_create(&m, dir, name, O_WRONLY);
	assert_int_equal(c->rc, 0);
	assert_int_equal(do_write(&m, c->entry.node, c->fh, 0, text), strlen(text));
	return c;
}

static void close_file(struct fake_call *c, int expected)
{
	assert_int_equal(do_close(&m, c->entry.node, c->fh), expected);
	call_free(c);
}

static void removed(void **state)
{
	struct cst_fs_entry e;
	uint64_t dir = known_dir("d"), node = node_of(dir, "a"), fh;
	struct cst_buf data = CST_BUF_INIT;
	(void)state;
	assert_int_equal(do_open(&m, node, &fh), 0);
	assert_int_equal(do_read(&m, node, fh, 0, 12, &data), 0);
	fake_reset_counts(m.bucket);
	assert_int_equal(do_unlink(&m, dir, "a"), 0);
	assert_true(fake_has(m.bucket, "d/a", NULL));
	assert_int_equal(do_lookup(&m, dir, "a", &e), -ENOENT);
	expect_names(dir, "b ");
	assert_int_equal(do_unlink(&m, dir, "a"), -ENOENT);
	assert_int_equal(do_unlink(&m, CST_FS_ROOT, "d"), -EISDIR);
	struct fake_counts counts = fake_counts(m.bucket);
	assert_int_equal(counts.deletes, 1);
	assert_int_equal(counts.heads + counts.lists, 0);
	/* Who has it open reads what was read before. */
	assert_int_equal(do_read(&m, node, fh, 0, 12, &data), 0);
	assert_memory_equal(data.data, "content of a", 12);
	cst_buf_fini(&data);
	do_release(&m, node, fh);
	/* The name can be used again at once, with one request. */
	fake_reset_counts(m.bucket);
	assert_int_equal(do_put(&m, dir, "a", "again"), 0);
	counts = fake_counts(m.bucket);
	assert_int_equal(counts.puts, 1);
	assert_int_equal(counts.heads + counts.lists, 0);
	expect_text(dir, "a", "again");
	fake_fail_next(m.bucket, FAKE_DELETE, 1, -EACCES, false);
	assert_int_equal(do_unlink(&m, dir, "b"), -EACCES);
	expect_text(dir, "b", "content of b");
}

/* What is being written. */
static void removed_while_written(void **state)
{
	struct cst_fs_entry e;
	uint64_t dir = known_dir("d");
	(void)state;
	struct fake_call *c = create_file(dir, "new", "abc");
	fake_reset_counts(m.bucket);
	assert_int_equal(do_unlink(&m, dir, "new"), 0); /* the store never had it */
	assert_int_equal(do_lookup(&m, dir, "new", &e), -ENOENT);
	assert_int_equal(do_write(&m, c->entry.node, c->fh, 3, "def"), 3);
	assert_int_equal(do_fsync(&m, c->entry.node, c->fh), 0);
	close_file(c, 0);
	struct fake_counts counts = fake_counts(m.bucket);
	assert_int_equal(counts.puts + counts.deletes, 0);
	assert_true(fake_has(m.bucket, "d/new", NULL));
	/* While it is being published: after that. */
	c = create_file(dir, "new", "abc");
	fake_hold_write(m.bucket, "d/new");
	struct fake_call *sync = call_new(), *rm = call_new();
	cst_fs_fsync(m.fs, &sync->call, c->entry.node, c->fh, false);
	fake_wait_held(m.bucket, 1);
	cst_fs_unlink(m.fs, &rm->call, dir, "new");
	assert_false(rm->done);
	fake_hold_write(m.bucket, "");
	assert_int_equal(call_wait(sync), 0);
	assert_int_equal(call_wait(rm), 0);
	call_free(sync);
	call_free(rm);
	assert_true(fake_has(m.bucket, "d/new", NULL));
	close_file(c, 0);
	assert_true(fake_has(m.bucket, "d/new", NULL));
	assert_int_equal(fake_publish_kept(m.publish), 0);
}

static void directories(void **state)
{
	struct cst_fs_entry e, sub;
	uint64_t dir = known_dir("d");
	(void)state;
	assert_int_equal(do_lookup(&m, dir, "sub", &e), -ENOENT);
	fake_reset_counts(m.bucket);
	assert_int_equal(do_mkdir(&m, dir, "sub", &sub), 0);
	assert_true(S_ISDIR(sub.attr.st.st_mode));
	assert_true(fake_has(m.bucket, "d/sub/", ""));
	assert_int_equal(do_mkdir(&m, dir, "sub", &e), -EEXIST);
	assert_int_equal(do_mkdir(&m, dir, "a", &e), -EEXIST);
	/* It is known to be empty. */
	assert_int_equal(do_put(&m, sub.node, "f", "x"), 0);
	expect_names(sub.node, "f ");
	expect_names(dir, "a b sub ");
	struct fake_counts counts = fake_counts(m.bucket);
	assert_int_equal(counts.puts, 2);
	assert_int_equal(counts.heads + counts.lists, 0);
	assert_int_equal(do_rmdir(&m, dir, "sub"), -ENOTEMPTY);
	assert_int_equal(do_rmdir(&m, dir, "a"), -ENOTDIR);
	assert_int_equal(do_rmdir(&m, dir, "none"), -ENOENT);
	assert_int_equal(do_unlink(&m, sub.node, "f"), 0);
	struct fake_call *c = create_file(sub.node, "g", "x");
	assert_int_equal(do_rmdir(&m, dir, "sub"), -ENOTEMPTY); /* the store doesn't have it yet */
	assert_int_equal(do_unlink(&m, sub.node, "g"), 0);
	close_file(c, 0);
	/* Somebody else puts something there. */
	fake_put(m.bucket, "d/sub/theirs", 3, "v", 1, NULL);
	assert_int_equal(do_rmdir(&m, dir, "sub"), -ENOTEMPTY);
	fake_delete(m.bucket, "d/sub/theirs");
	assert_int_equal(do_rmdir(&m, dir, "sub"), 0);
	assert_true(fake_has(m.bucket, "d/sub/", NULL));
	assert_int_equal(do_lookup(&m, dir, "sub", &e), -ENOENT);
	expect_names(dir, "a b ");
	/* Somebody else was quicker; the answer of our own was lost. */
	fake_put(m.bucket, "d/theirs/", 0, "v", 1, NULL);
	assert_int_equal(do_mkdir(&m, dir, "theirs", &e), -EEXIST);
	fake_fail_next(m.bucket, FAKE_PUT, 1, -EEXIST, true);
	assert_int_equal(do_mkdir(&m, dir, "lost", &e), 0);
	/* The other kind of marker. */
	fake_put(m.bucket, "d/folder_$folder$", 0, "v", 1, NULL);
	fake_pass(120 * CST_NS_PER_S);
	assert_int_equal(do_lookup(&m, dir, "folder", &e), 0);
	assert_int_equal(do_rmdir(&m, dir, "folder"), 0);
	assert_true(fake_has(m.bucket, "d/folder_$folder$", NULL));
}

static void renamed(void **state)
{
	struct cst_fs_entry e;
	uint64_t dir = known_dir("d"), node = node_of(dir, "a"), fh;
	(void)state;
	assert_int_equal(do_open(&m, node, &fh), 0);
	fake_reset_counts(m.bucket);
	assert_int_equal(do_rename(&m, dir, "a", dir, "c", 0), 0);
	assert_true(fake_has(m.bucket, "d/a", NULL));
	assert_true(fake_has(m.bucket, "d/c", "content of a"));
	struct fake_counts counts = fake_counts(m.bucket);
	assert_int_equal(counts.copies, 1);
	assert_int_equal(counts.deletes, 1);
	assert_int_equal(counts.heads + counts.lists, 0);
	assert_int_equal(do_lookup(&m, dir, "a", &e), -ENOENT);
	assert_int_equal(node_of(dir, "c"), node);
	expect_names(dir, "b c ");
	/* Who had it open before reads on. */
	struct cst_buf data = CST_BUF_INIT;
	assert_int_equal(do_read(&m, node, fh, 0, 12, &data), 0);
	assert_memory_equal(data.data, "content of a", 12);
	cst_buf_fini(&data);
	do_release(&m, node, fh);
	expect_text(dir, "c", "content of a");
	/* Over another. */
	assert_int_equal(do_rename(&m, dir, "c", dir, "b", RENAME_NOREPLACE), -EEXIST);
	assert_int_equal(do_rename(&m, dir, "c", dir, "b", RENAME_EXCHANGE), -EINVAL);
	assert_int_equal(do_rename(&m, dir, "c", dir, "b", 0), 0);
	assert_true(fake_has(m.bucket, "d/b", "content of a"));
	expect_names(dir, "b ");
	assert_int_equal(do_rename(&m, dir, "c", dir, "b", 0), -ENOENT);
	assert_int_equal(do_rename(&m, dir, "b", CST_FS_ROOT, "d", 0), -EISDIR);
	assert_int_equal(do_rename(&m, dir, "b", dir, "b", 0), 0);
}

static void rename_fails(void **state)
{
	struct cst_fs_entry e;
	uint64_t dir = known_dir("d");
	(void)state;
	node_of(dir, "a");
	fake_fail_next(m.bucket, FAKE_COPY, 1, -EACCES, false);
	assert_int_equal(do_rename(&m, dir, "a", dir, "c", 0), -EACCES);
	expect_names(dir, "a b ");
	/* Copied, and not removed: both are there. */
	fake_fail_next(m.bucket, FAKE_DELETE, 1, -EACCES, false);
	assert_int_equal(do_rename(&m, dir, "a", dir, "c", 0), -EACCES);
	expect_text(dir, "a", "content of a");
	expect_text(dir, "c", "content of a");
	/* The name was made by somebody else meanwhile. */
	fake_put(m.bucket, "d/theirs", 5, "v", 1, NULL);
	assert_int_equal(do_rename(&m, dir, "a", dir, "theirs", RENAME_NOREPLACE), -EEXIST);
	expect_text(dir, "a", "content of a");
	/* Our own, when its answer was lost. */
	fake_fail_next(m.bucket, FAKE_COPY, 1, -EEXIST, true);
	assert_int_equal(do_rename(&m, dir, "a", dir, "mine", RENAME_NOREPLACE), 0);
	expect_text(dir, "mine", "content of a");
	/* Another version than was known: looked up again. */
	fake_put(m.bucket, "d/b", 7, "v2", 2000, NULL);
	assert_int_equal(do_rename(&m, dir, "b", dir, "x", 0), -ESTALE);
	assert_int_equal(do_lookup(&m, dir, "b", &e), 0);
	assert_int_equal(e.attr.st.st_size, 7);
	assert_int_equal(do_rename(&m, dir, "b", dir, "x", 0), 0);
}

/* By parts: above what one copy takes. */
static void renamed_large(void **state)
{
	uint64_t dir = known_dir("d");
	(void)state;
	fake_copy_max(m.bucket, 5);
	fake_reset_counts(m.bucket);
	node_of(dir, "a");
	assert_int_equal(do_rename(&m, dir, "a", dir, "c", 0), 0);
	struct fake_counts counts = fake_counts(m.bucket);
	assert_int_equal(counts.copies, 0);
	assert_int_equal(counts.parts, 1 + 3 + 1); /* begin, twelve bytes by five, complete */
	expect_text(dir, "c", "content of a");
}

static void renamed_while_written(void **state)
{
	uint64_t dir = known_dir("d");
	(void)state;
	/* Never published: it only gets another key. */
	struct fake_call *c = create_file(dir, "tmp", "one ");
	fake_reset_counts(m.bucket);
	assert_int_equal(do_rename(&m, dir, "tmp", dir, "final", 0), 0);
	struct fake_counts counts = fake_counts(m.bucket);
	assert_int_equal(counts.puts + counts.copies + counts.deletes + counts.heads + counts.lists, 0);
	assert_int_equal(node_of(dir, "final"), c->entry.node);
	expect_names(dir, "a b final ");
	/* Published: copied; what comes after it goes to the new name. */
	assert_int_equal(do_fsync(&m, c->entry.node, c->fh), 0);
	assert_true(fake_has(m.bucket, "d/final", "one "));
	assert_int_equal(do_write(&m, c->entry.node, c->fh, 4, "two "), 4);
	assert_int_equal(do_rename(&m, dir, "final", dir, "last", 0), 0);
	assert_true(fake_has(m.bucket, "d/final", NULL));
	assert_true(fake_has(m.bucket, "d/last", "one two "));
	assert_int_equal(do_write(&m, c->entry.node, c->fh, 8, "three"), 5);
	close_file(c, 0);
	assert_true(fake_has(m.bucket, "d/last", "one two three"));
	expect_names(dir, "a b last ");
	/* With parts under way, over one that is written, too. */
	fake_publish_parts(m.publish, true);
	c = create_file(dir, "tmp", "mine");
	uint64_t target = node_of(dir, "b");
	struct fake_call *other = do_open_flags(&m, target, O_WRONLY | O_TRUNC);
	assert_int_equal(do_write(&m, target, other->fh, 0, "theirs"), 6);
	assert_int_equal(do_rename(&m, dir, "tmp", dir, "b", 0), 0);
	close_file(c, 0);
	assert_true(fake_has(m.bucket, "d/b", "mine"));
	assert_int_equal(do_close(&m, target, other->fh), 0); /* it has no name any more */
	call_free(other);
	assert_true(fake_has(m.bucket, "d/b", "mine"));
	expect_text(dir, "b", "mine");
}

static void renamed_tree(void **state)
{
	struct cst_fs_entry e, t;
	char key[64];
	(void)state;
	for (int i = 0; i < 300; i++) {
		snprintf(key, sizeof(key), "t/s%d/f%03d", i % 3, i);
		fake_put_text(m.bucket, key, key, key + 5, NULL);
	}
	fake_page_size(m.bucket, 100);
	assert_int_equal(do_path(&m, "t/s1/f001", &e), 0);
	uint64_t file = e.node;
	assert_int_equal(do_path(&m, "t", &t), 0);
	fake_reset_counts(m.bucket);
	assert_int_equal(do_rename(&m, CST_FS_ROOT, "t", CST_FS_ROOT, "u", 0), 0);
	struct fake_counts counts = fake_counts(m.bucket);
	assert_int_equal(counts.copies, 300);
	assert_int_equal(counts.deletes, 1);
	assert_true(counts.max_in_flight > 32 && counts.max_in_flight <= 64);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "t", &e), -ENOENT);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "u", &e), 0);
	assert_int_equal(e.node, t.node);
	assert_int_equal(do_path(&m, "u/s1/f001", &e), 0);
	assert_int_equal(e.node, file);
	expect_text(known_dir("u/s1"), "f001", "t/s1/f001");
	for (int i = 0; i < 300; i++) {
		snprintf(key, sizeof(key), "t/s%d/f%03d", i % 3, i);
		assert_true(fake_has(m.bucket, key, NULL));
		CST_AUTO_FREE char *text = cst_xstrdup(key);
		key[0] = 'u';
		assert_true(fake_has(m.bucket, key, text));
	}
	/* A copy fails: nothing has changed. */
	fake_fail_next(m.bucket, FAKE_COPY, 1, -EACCES, false);
	assert_int_equal(do_rename(&m, CST_FS_ROOT, "u", CST_FS_ROOT, "v", 0), -EACCES);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "v", &e), -ENOENT);
	assert_int_equal(do_path(&m, "u/s2/f002", &e), 0);
	assert_true(fake_has(m.bucket, "u/s2/f002", "t/s2/f002"));
	/* Not into itself, not over one that has something in it, not while something below it is written. */
	assert_int_equal(do_rename(&m, CST_FS_ROOT, "u", t.node, "x", 0), -EINVAL);
	assert_int_equal(do_rename(&m, CST_FS_ROOT, "u", CST_FS_ROOT, "d", 0), -ENOTEMPTY);
	struct fake_call *c = create_file(known_dir("u/s0"), "new", "abc");
	assert_int_equal(do_rename(&m, CST_FS_ROOT, "u", CST_FS_ROOT, "v", 0), -EBUSY);
	close_file(c, 0);
	assert_int_equal(do_mkdir(&m, CST_FS_ROOT, "empty", &e), 0);
	assert_int_equal(do_rename(&m, CST_FS_ROOT, "u", CST_FS_ROOT, "empty", 0), 0);
	assert_true(fake_has(m.bucket, "empty/s0/new", "abc"));
	/* What can't be removed with one request is refused as a whole. */
	for (int i = 0; i < 1001; i++) {
		snprintf(key, sizeof(key), "many/f%04d", i);
		fake_put(m.bucket, key, 1, "v", 1, NULL);
	}
	fake_pass(120 * CST_NS_PER_S);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "many", &e), 0);
	fake_reset_counts(m.bucket);
	assert_int_equal(do_rename(&m, CST_FS_ROOT, "many", CST_FS_ROOT, "more", 0), -EXDEV);
	assert_int_equal(fake_counts(m.bucket).copies, 0);
}

static struct fake_call *start_rename(const char *from, const char *to)
{
	struct fake_call *c = call_new();
	cst_fs_rename(m.fs, &c->call, CST_FS_ROOT, from, CST_FS_ROOT, to, 0);
	return c;
}

/* The first object has been copied, the second one is held. */
static void wait_copied(const char *key)
{
	while (fake_has(m.bucket, key, NULL))
		usleep(1000);
}

static void end_rename(struct fake_call *c, int expected)
{
	fake_hold_write(m.bucket, "");
	assert_int_equal(call_wait(c), expected);
	call_free(c);
}

static void expect_tree(const char *dir, const char *f, const char *g)
{
	char key[32];
	snprintf(key, sizeof(key), "%s/f", dir);
	assert_true(fake_has(m.bucket, key, f));
	snprintf(key, sizeof(key), "%s/g", dir);
	assert_true(fake_has(m.bucket, key, g));
}

/* What this mount and others write below a directory while it is renamed. */
static void tree_is_written(void **state)
{
	struct cst_fs_entry e, t;
	struct cst_fs_attr attr;
	(void)state;
	fake_put_text(m.bucket, "t/f", "f", "v1", NULL);
	fake_put_text(m.bucket, "t/g", "g", "v2", NULL);
	assert_int_equal(do_path(&m, "t", &t), 0);
	assert_int_equal(do_path(&m, "t/f", &e), 0);
	/* Here: not at all, be it open already or not. */
	fake_hold_write(m.bucket, "u/g");
	struct fake_call *rename = start_rename("t", "u");
	wait_copied("u/f");
	struct fake_call *c = do_open_flags(&m, e.node, O_WRONLY | O_TRUNC);
	assert_int_equal(c->rc, -EBUSY);
	call_free(c);
	assert_int_equal(do_truncate(&m, e.node, 0, &attr), -EBUSY);
	assert_int_equal(do_unlink(&m, t.node, "g"), -EBUSY);
	end_rename(rename, 0);
	expect_tree("t", NULL, NULL);
	expect_tree("u", "f", "g");
	/* What was under way when it began. */
	fake_hold_head(m.bucket, "u/new");
	fake_pass(120 * CST_NS_PER_S);
	struct fake_call *create = call_new();
	cst_fs_create(m.fs, &create->call, t.node, "new", 0644, O_WRONLY);
	fake_wait_held(m.bucket, 1);
	assert_int_equal(do_rename(&m, CST_FS_ROOT, "u", CST_FS_ROOT, "v", 0), -EBUSY);
	fake_hold_head(m.bucket, "");
	assert_int_equal(call_wait(create), 0);
	assert_int_equal(do_close(&m, create->entry.node, create->fh), 0);
	assert_int_equal(do_unlink(&m, t.node, "new"), 0);
	call_free(create);
	/* Others: replaced after it was copied. */
	fake_hold_write(m.bucket, "v/g");
	rename = start_rename("u", "v");
	wait_copied("v/f");
	fake_put_text(m.bucket, "u/f", "theirs", "v3", NULL);
	end_rename(rename, -EBUSY);
	expect_tree("u", "theirs", "g");
	expect_tree("v", NULL, NULL);
	/* Made under the new name. */
	fake_hold_write(m.bucket, "v/g");
	rename = start_rename("u", "v");
	wait_copied("v/f");
	fake_put_text(m.bucket, "v/g", "theirs", "v4", NULL);
	end_rename(rename, -ENOTEMPTY);
	expect_tree("u", "theirs", "g");
	expect_tree("v", NULL, "theirs");
	fake_delete(m.bucket, "v/g");
	/* An answer that was lost is no conflict. */
	fake_fail_next(m.bucket, FAKE_COPY, 1, -EEXIST, true);
	assert_int_equal(do_rename(&m, CST_FS_ROOT, "u", CST_FS_ROOT, "v", 0), 0);
	expect_tree("u", NULL, NULL);
	expect_tree("v", "theirs", "g");
}

static void tree_fails(void **state)
{
	struct cst_fs_entry e;
	(void)state;
	fake_put_text(m.bucket, "t/", "", "v0", NULL);
	fake_put_text(m.bucket, "t/f", "f", "v1", NULL);
	fake_put_text(m.bucket, "t/g", "g", "v2", NULL);
	assert_int_equal(do_mkdir(&m, CST_FS_ROOT, "empty", &e), 0);
	assert_int_equal(do_path(&m, "t/f", &e), 0);
	/* What was there under the new name is there again. */
	fake_hold_write(m.bucket, "empty/g");
	struct fake_call *rename = start_rename("t", "empty");
	wait_copied("empty/f");
	fake_fail_next(m.bucket, FAKE_COPY, 1, -EACCES, false);
	end_rename(rename, -EACCES);
	assert_true(fake_has(m.bucket, "empty/", ""));
	expect_tree("empty", NULL, NULL);
	expect_tree("t", "f", "g");
	expect_names(known_dir("empty"), "");
	expect_names(known_dir("t"), "f g ");
	/* Nothing was removed; then all of it, and the answer was lost. */
	fake_fail_next(m.bucket, FAKE_DELETE, 1, -EIO, false);
	assert_int_equal(do_rename(&m, CST_FS_ROOT, "t", CST_FS_ROOT, "empty", 0), -EIO);
	expect_names(known_dir("empty"), "f g ");
	expect_names(known_dir("t"), "f g ");
	expect_text(known_dir("empty"), "f", "f");
	fake_fail_next(m.bucket, FAKE_DELETE, 1, -EIO, true);
	assert_int_equal(do_rename(&m, CST_FS_ROOT, "t", CST_FS_ROOT, "new", 0), -EIO);
	expect_names(known_dir("new"), "f g ");
	assert_int_equal(do_path(&m, "t/f", &e), -ENOENT);
}

/* Who opens a file for writing while it is removed would write to nowhere. */
static void opened_while_removed(void **state)
{
	struct cst_fs_entry e;
	uint64_t dir = known_dir("d"), node = node_of(dir, "a");
	(void)state;
	for (int fails = 0; fails < 2; fails++) {
		struct fake_call *rm = call_new(), *open = call_new();
		node = node_of(dir, "a");
		fake_hold_write(m.bucket, "d/a");
		cst_fs_unlink(m.fs, &rm->call, dir, "a");
		fake_wait_held(m.bucket, 1);
		cst_fs_open(m.fs, &open->call, node, O_WRONLY | O_TRUNC);
		assert_false(open->done);
		if (fails == 0)
			fake_fail_next(m.bucket, FAKE_DELETE, 1, -EACCES, false);
		fake_hold_write(m.bucket, "");
		assert_int_equal(call_wait(rm), fails == 0 ? -EACCES : 0);
		assert_int_equal(call_wait(open), fails == 0 ? 0 : -ESTALE);
		if (fails == 0)
			assert_int_equal(do_close(&m, node, open->fh), 0);
		call_free(rm);
		call_free(open);
	}
	assert_int_equal(do_lookup(&m, dir, "a", &e), -ENOENT);
	/* And over which another is renamed. */
	struct fake_call *open = call_new(), *rename = call_new();
	assert_int_equal(do_put(&m, dir, "a", "again"), 0);
	node = node_of(dir, "b");
	fake_hold_write(m.bucket, "d/b");
	cst_fs_rename(m.fs, &rename->call, dir, "a", dir, "b", 0);
	fake_wait_held(m.bucket, 1);
	cst_fs_open(m.fs, &open->call, node, O_WRONLY | O_APPEND);
	assert_false(open->done);
	fake_hold_write(m.bucket, "");
	assert_int_equal(call_wait(rename), 0);
	assert_int_equal(call_wait(open), -ESTALE);
	call_free(rename);
	call_free(open);
	expect_text(dir, "b", "again");
}

/* ---- all at once ---- */

#define THREADS 6
#define ROUNDS 400
#define NAMES 5

static unsigned bad, published_count, busy;

static unsigned next_random(unsigned *seed)
{
	*seed = *seed * 1103515245u + 12345u;
	return *seed >> 16;
}

static void note(int rc)
{
	static const int allowed[] = {0, -ESTALE, -ENOENT, -EBUSY, -EEXIST, -EINVAL, -ENOTEMPTY, -EIO};
	for (size_t i = 0; i < CST_ARRAY_LEN(allowed); i++)
		if (rc == allowed[i])
			return;
	__atomic_fetch_add(&bad, 1, __ATOMIC_RELAXED);
	print_message("# unexpected %d\n", rc);
}

/* Each file holds one letter, repeated: a mixture shows. */
static void check_letters(const struct cst_buf *data)
{
	for (size_t i = 1; i < data->len; i++)
		if (data->data[i] != data->data[0])
			__atomic_fetch_add(&bad, 1, __ATOMIC_RELAXED);
}

static void read_file(uint64_t dir, const char *name)
{
	struct cst_fs_entry e;
	struct cst_buf data = CST_BUF_INIT;
	uint64_t fh;
	int rc = do_lookup(&m, dir, name, &e);
	note(rc);
	if (rc < 0)
		return;
	rc = do_open(&m, e.node, &fh);
	note(rc);
	if (rc == 0) {
		note(do_read(&m, e.node, fh, 0, 100, &data));
		check_letters(&data);
		do_release(&m, e.node, fh);
	}
	cst_buf_fini(&data);
	cst_fs_forget(m.fs, e.node, 1);
}

static void write_file(uint64_t dir, const char *name, unsigned *seed)
{
	struct cst_fs_entry e;
	char text[40];
	unsigned len = 1 + next_random(seed) % 30;
	memset(text, 'a' + (int)(next_random(seed) % 26), len);
	text[len] = 0;
	struct fake_call *c;
	int rc = do_lookup(&m, dir, name, &e);
	if (rc == 0) {
		c = do_open_flags(&m, e.node, O_WRONLY | O_TRUNC);
	} else {
		c = do_create(&m, dir, name, O_WRONLY | O_TRUNC);
		e.node = c->entry.node;
	}
	note(c->rc);
	__atomic_fetch_add(&busy, c->rc == -EBUSY, __ATOMIC_RELAXED);
	if (c->rc == 0) {
		rc = do_write(&m, e.node, c->fh, 0, text);
		note(cst_min(rc, 0));
		if (next_random(seed) % 4 == 0)
			note(do_fsync(&m, e.node, c->fh));
		rc = do_flush(&m, e.node, c->fh);
		note(rc);
		__atomic_fetch_add(&published_count, rc == 0, __ATOMIC_RELAXED);
		do_release(&m, e.node, c->fh);
	}
	if (e.node)
		cst_fs_forget(m.fs, e.node, 1);
	call_free(c);
}

static void *user(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	for (int i = 0; i < ROUNDS; i++) {
		struct cst_fs_entry d;
		struct cst_fs_attr attr;
		char name[16], other[16];
		if (do_lookup(&m, CST_FS_ROOT, next_random(&seed) % 2 ? "d" : "e", &d) < 0)
			continue;
		snprintf(name, sizeof(name), "n%u", next_random(&seed) % NAMES);
		snprintf(other, sizeof(other), "n%u", next_random(&seed) % NAMES);
		switch (next_random(&seed) % 8) {
		case 0:
			note(do_unlink(&m, d.node, name));
			break;
		case 1:
			note(do_rename(&m, d.node, name, d.node, other, 0));
			break;
		case 2:
			free(do_ls(&m, d.node, next_random(&seed) % 2));
			break;
		case 3:
		case 4:
			read_file(d.node, name);
			break;
		case 5: {
			struct cst_fs_entry e;
			if (do_lookup(&m, d.node, name, &e) == 0) {
				note(do_truncate(&m, e.node, 0, &attr));
				cst_fs_forget(m.fs, e.node, 1);
			}
			break;
		}
		default:
			write_file(d.node, name, &seed);
			break;
		}
		cst_fs_forget(m.fs, d.node, 1);
	}
	return NULL;
}

static void *disturber(void *arg)
{
	bool *ended = arg;
	unsigned seed = 7;
	while (!__atomic_load_n(ended, __ATOMIC_RELAXED)) {
		struct cst_fs_refresh_result result;
		struct cst_error err = CST_ERROR_INIT;
		cst_fs_refresh(m.fs, "", &result, &err);
		if (next_random(&seed) % 4 == 0)
			fake_fail_next(m.bucket, FAKE_PUT, 1, -ETIMEDOUT, next_random(&seed) % 2);
		fake_pass((int64_t)(next_random(&seed) % 3) * CST_NS_PER_S);
		cst_sleep(300 * CST_NS_PER_US);
	}
	return NULL;
}

static void all_at_once(void **state)
{
	pthread_t threads[THREADS], other;
	struct cst_error err = CST_ERROR_INIT;
	bool ended = false;
	(void)state;
	fake_put(m.bucket, "e/x", 3, "v", 1, NULL);
	pthread_create(&other, NULL, disturber, &ended);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, user, (void *)(i + 1));
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	__atomic_store_n(&ended, true, __ATOMIC_RELAXED);
	pthread_join(other, NULL);
	cst_fs_settle_writes(m.fs, 0, &err);
	assert_int_equal(bad, 0);
	assert_true(published_count > 50);
	print_message("# %u published, %u busy\n", published_count, busy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(removed, setup, teardown),
		cmocka_unit_test_setup_teardown(removed_while_written, setup, teardown),
		cmocka_unit_test_setup_teardown(directories, setup, teardown),
		cmocka_unit_test_setup_teardown(renamed, setup, teardown),
		cmocka_unit_test_setup_teardown(rename_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(renamed_large, setup, teardown),
		cmocka_unit_test_setup_teardown(renamed_while_written, setup, teardown),
		cmocka_unit_test_setup_teardown(renamed_tree, setup, teardown),
		cmocka_unit_test_setup_teardown(tree_is_written, setup, teardown),
		cmocka_unit_test_setup_teardown(tree_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(opened_while_removed, setup, teardown),
		cmocka_unit_test_setup_teardown(all_at_once, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
