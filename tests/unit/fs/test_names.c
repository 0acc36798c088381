/* Names: lookups, their requests, collisions, what is hidden, ages of answers, interrupts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "fake_host.h"

#include <errno.h>

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

static void forget(uint64_t node)
{
	cst_fs_forget(m.fs, node, 1);
}

static uint64_t inodes(void)
{
	struct cst_fs_stats stats;
	cst_fs_stats(m.fs, &stats);
	return stats.inodes;
}

/* Each name is asked in a mount of its own, so that it is a first miss. */
static void first_misses(void **state)
{
	static const struct {
		const char *name;
		mode_t type;
	} cases[] = {{"file", S_IFREG}, {"prefix", S_IFDIR}, {"marked", S_IFDIR}, {"folder", S_IFDIR},
		     {"both", S_IFREG}, {"link", S_IFLNK},   {"none", 0},	  {"folder_$folder$", 0}};
	struct cst_fs_entry e;
	(void)state;
	fake_put(m.bucket, "p/file", 12345, "e1", 1700000000, NULL);
	fake_put(m.bucket, "p/prefix/x", 1, "e2", 1, NULL);
	fake_put(m.bucket, "p/marked/", 0, "e3", 1, NULL);
	fake_put(m.bucket, "p/folder_$folder$", 0, "e4", 1, NULL);
	fake_put(m.bucket, "p/both", 7, "e5", 1, NULL);
	fake_put(m.bucket, "p/both/x", 7, "e6", 1, NULL);
	fake_put_symlink(m.bucket, "p/link", "p/file");
	m.config.prefix = "p/";
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++) {
		fake_start(&m);
		int rc = do_lookup(&m, CST_FS_ROOT, cases[i].name, &e);
		if (cases[i].type == 0) {
			assert_int_equal(rc, -ENOENT);
		} else {
			assert_int_equal(rc, 0);
			assert_int_equal(e.attr.st.st_mode & S_IFMT, cases[i].type);
			assert_true(e.node > CST_FS_ROOT);
			assert_int_not_equal(e.node, e.attr.st.st_ino);
		}
		/* The same from the listing. */
		free(do_ls(&m, CST_FS_ROOT, false));
		struct cst_fs_entry again;
		assert_int_equal(do_lookup(&m, CST_FS_ROOT, cases[i].name, &again), rc);
		assert_true(again.node == e.node);
		if (i + 1 < CST_ARRAY_LEN(cases))
			cst_fs_free(m.fs);
	}
}

static void attributes_from_listing(void **state)
{
	struct cst_fs_entry e;
	(void)state;
	m.config.umask = 0022;
	m.config.mountpoint_umask = 0027;
	m.config.mountpoint_umask_given = true;
	m.config.file_mode = 0666;
	fake_put(m.bucket, "d/file", 1025, "e1", 1700000000, "mode=33152\nuid=7");
	fake_start(&m);
	free(do_ls(&m, CST_FS_ROOT, false));
	assert_int_equal(do_path(&m, "d/file", &e), 0);
	assert_int_equal(e.attr.st.st_mode, S_IFREG | 0644);
	assert_int_equal(e.attr.st.st_size, 1025);
	assert_int_equal(e.attr.st.st_blocks, 3);
	assert_int_equal(e.attr.st.st_uid, 1000);
	assert_int_equal(e.attr.st.st_gid, 1001);
	assert_int_equal(e.attr.st.st_mtim.tv_sec, 1700000000);
	assert_int_equal(e.entry_ttl, CST_NS_PER_S);
	struct cst_fs_attr root;
	assert_int_equal(do_getattr(&m, CST_FS_ROOT, &root), 0);
	assert_int_equal(root.st.st_mode, S_IFDIR | 0750);
	assert_int_equal(root.st.st_ino, 1);
}

static void same_name_asked_once(void **state)
{
	struct fake_call *calls[8];
	(void)state;
	fake_put(m.bucket, "a", 1, "e", 1, NULL);
	fake_start(&m);
	fake_hold(m.bucket, true);
	for (int i = 0; i < 8; i++) {
		calls[i] = call_new();
		cst_fs_lookup(m.fs, &calls[i]->call, CST_FS_ROOT, "a");
	}
	fake_wait_held(m.bucket, 2);
	fake_hold(m.bucket, false);
	for (int i = 0; i < 8; i++)
		assert_int_equal(call_wait(calls[i]), 0);
	assert_int_equal(fake_counts(m.bucket).heads, 1);
	assert_int_equal(fake_counts(m.bucket).lists, 1);
	uint64_t node = calls[0]->entry.node;
	for (int i = 0; i < 8; i++) {
		assert_true(calls[i]->entry.node == node);
		call_free(calls[i]);
	}
	assert_int_equal(inodes(), 2);
	cst_fs_forget(m.fs, node, 7);
	assert_int_equal(inodes(), 2); /* one is left */
	forget(node);
	assert_int_equal(inodes(), 1);
	struct cst_fs_attr attr;
	assert_int_equal(do_getattr(&m, node, &attr), -ESTALE);
}

static void second_miss_lists(void **state)
{
	struct cst_fs_entry e;
	char name[16];
	(void)state;
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "f%02d", i);
		fake_put(m.bucket, name, 1, "e", 1, NULL);
	}
	fake_start(&m);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "f%02d", i);
		assert_int_equal(do_lookup(&m, CST_FS_ROOT, name, &e), 0);
		snprintf(name, sizeof(name), "g%02d", i);
		assert_int_equal(do_lookup(&m, CST_FS_ROOT, name, &e), -ENOENT);
	}
	assert_int_equal(fake_counts(m.bucket).heads, 1); /* f00 */
	assert_int_equal(fake_counts(m.bucket).lists, 2); /* is f00/ there?; all */
}

static void long_directory_heads(void **state)
{
	struct fake_call *calls[16];
	struct cst_fs_entry e;
	char name[16];
	(void)state;
	fake_page_size(m.bucket, 10);
	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "f%03d", i);
		fake_put(m.bucket, name, 1, "e", 1, NULL);
	}
	fake_start(&m);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "f000", &e), 0);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "f499", &e), 0);
	assert_int_equal(fake_counts(m.bucket).heads, 2);
	assert_int_equal(fake_counts(m.bucket).lists, 13); /* 12 pages, f000/; f499 is likely a file as the others are */
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "f119", &e), 0);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "f020x", &e), -ENOENT); /* the pages that came have passed it */
	assert_int_equal(fake_counts(m.bucket).heads, 2);
	fake_reset_counts(m.bucket);
	fake_hold(m.bucket, true);
	for (int i = 0; i < 16; i++) {
		calls[i] = call_new();
		snprintf(name, sizeof(name), "f%03d", 400 + i);
		cst_fs_lookup(m.fs, &calls[i]->call, CST_FS_ROOT, name);
	}
	fake_wait_held(m.bucket, 16); /* all at once */
	fake_hold(m.bucket, false);
	for (int i = 0; i < 16; i++) {
		assert_int_equal(call_wait(calls[i]), 0);
		call_free(calls[i]);
	}
	for (int i = 300; i < 400; i++) { /* many misses: the listing goes on, a page for every 32 */
		snprintf(name, sizeof(name), "f%03d", i);
		assert_int_equal(do_lookup(&m, CST_FS_ROOT, name, &e), 0);
	}
	unsigned heads = fake_counts(m.bucket).heads;
	assert_int_equal(heads, 116);
	assert_int_equal(fake_counts(m.bucket).lists, 3);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "f145", &e), 0);
	assert_int_equal(fake_counts(m.bucket).heads, heads);
	/* One that is none takes a request more, one after another. */
	fake_put(m.bucket, "f9-dir/x", 1, "e", 1, NULL);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "f9-dir", &e), 0);
	assert_true(S_ISDIR(e.attr.st.st_mode));
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "f9-none", &e), -ENOENT);
}

static void objects_in_parallel(void **state)
{
	struct fake_call *calls[16];
	char name[16];
	(void)state;
	m.config.attributes = CST_FS_ATTRIBUTES_OBJECT;
	for (int i = 0; i < 16; i++) {
		snprintf(name, sizeof(name), "f%02d", i);
		fake_put(m.bucket, name, 1, "e", 1, "mode=33216\nuid=5\ngid=6\nmtime=1600000000.25");
	}
	fake_start(&m);
	fake_hold(m.bucket, true);
	for (int i = 0; i < 16; i++) {
		calls[i] = call_new();
		snprintf(name, sizeof(name), "f%02d", i);
		cst_fs_lookup(m.fs, &calls[i]->call, CST_FS_ROOT, name);
	}
	fake_wait_held(m.bucket, 16);
	assert_true(fake_counts(m.bucket).heads == 16);
	fake_hold(m.bucket, false);
	for (int i = 0; i < 16; i++) {
		assert_int_equal(call_wait(calls[i]), 0);
		assert_int_equal(calls[i]->entry.attr.st.st_mode, S_IFREG | 0700);
		assert_int_equal(calls[i]->entry.attr.st.st_uid, 5);
		assert_int_equal(calls[i]->entry.attr.st.st_gid, 6);
		assert_int_equal(calls[i]->entry.attr.st.st_mtim.tv_nsec, 250000000);
		call_free(calls[i]);
	}
	/* Kept by key, ETag and Last-Modified, over the age of the listing too. */
	struct cst_fs_entry e;
	fake_reset_counts(m.bucket);
	fake_pass(61 * CST_NS_PER_S);
	char *all = do_ls(&m, CST_FS_ROOT, true);
	assert_int_equal(strlen(all), 16 * 4);
	free(all);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "f07", &e), 0);
	assert_int_equal(e.attr.st.st_uid, 5);
	assert_int_equal(fake_counts(m.bucket).heads, 0);
}

static void answers_grow_old(void **state)
{
	struct cst_fs_entry e;
	(void)state;
	fake_put(m.bucket, "a", 1, "e", 1, NULL);
	fake_start(&m);
	free(do_ls(&m, CST_FS_ROOT, false));
	fake_reset_counts(m.bucket);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "b", &e), -ENOENT);
	fake_put(m.bucket, "b", 1, "e", 1, NULL);
	fake_pass(59 * CST_NS_PER_S);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "b", &e), -ENOENT);
	assert_int_equal(fake_counts(m.bucket).lists, 0);
	fake_pass(2 * CST_NS_PER_S);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "b", &e), 0);
	assert_int_equal(fake_counts(m.bucket).heads, 1);
}

static void negative_entries(void **state)
{
	struct cst_fs_entry e;
	(void)state;
	m.config.negative_ttl = 5 * CST_NS_PER_S;
	fake_start(&m);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "none", &e), 0);
	assert_true(e.node == 0);
	assert_true(e.entry_ttl == 5 * CST_NS_PER_S);
	assert_int_equal(do_lookup(&m, 4711, "none", &e), -ESTALE);
	char longest[300];
	memset(longest, 'x', sizeof(longest));
	longest[256] = 0;
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, longest, &e), -ENAMETOOLONG);
}

/* Single names, in a directory whose listing is too long to tell: oss_negative_cache_timeout. */
static void absent_names(void **state)
{
	struct cst_fs_entry e;
	(void)state;
	m.config.absent_ttl = 5 * CST_NS_PER_S;
	m.config.absent_max = 2;
	m.config.list_ttl = 1; /* no listing answers for long */
	fake_start(&m);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "one", &e), -ENOENT);
	fake_pass(CST_NS_PER_S);
	struct fake_counts before = fake_counts(m.bucket);
	fake_put(m.bucket, "one", 1, "e1", 1, NULL);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "one", &e), -ENOENT);
	assert_int_equal(fake_counts(m.bucket).heads, before.heads);
	assert_int_equal(fake_counts(m.bucket).lists, before.lists);
	/* A listing that shows the name counts for more. */
	char *names = do_ls(&m, CST_FS_ROOT, true);
	assert_string_equal(names, "one ");
	free(names);
	fake_pass(CST_NS_PER_S);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "one", &e), 0);
	/* It ends. */
	fake_pass(CST_NS_PER_S);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "two", &e), -ENOENT);
	fake_put(m.bucket, "two", 1, "e2", 1, NULL);
	fake_pass(4 * CST_NS_PER_S);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "two", &e), -ENOENT);
	fake_pass(2 * CST_NS_PER_S);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "two", &e), 0);
	/* The oldest makes room. */
	fake_pass(CST_NS_PER_S);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "a", &e), -ENOENT);
	fake_pass(2);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "b", &e), -ENOENT);
	fake_pass(2);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "c", &e), -ENOENT);
	fake_pass(CST_NS_PER_S);
	before = fake_counts(m.bucket);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "b", &e), -ENOENT);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "c", &e), -ENOENT);
	assert_int_equal(fake_counts(m.bucket).heads + fake_counts(m.bucket).lists, before.heads + before.lists);
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "a", &e), -ENOENT);
	assert_true(fake_counts(m.bucket).heads + fake_counts(m.bucket).lists > before.heads + before.lists);
}

static void strange_names(void **state)
{
	struct cst_fs_entry e;
	struct cst_fs_stats stats;
	char longest[300] = "d/";
	(void)state;
	memset(longest + 2, 'x', 256);
	fake_put(m.bucket, "d/a", 1, "e", 1, NULL);
	fake_put(m.bucket, "d/a/under", 1, "e", 1, NULL); /* loses against the file */
	fake_put(m.bucket, "d/a-b", 1, "e", 1, NULL);
	fake_put(m.bucket, "d/", 0, "e", 1, NULL);
	fake_put(m.bucket, "d//x", 1, "e", 1, NULL);
	fake_put(m.bucket, "d/./x", 1, "e", 1, NULL);
	fake_put(m.bucket, "d/..", 1, "e", 1, NULL);
	fake_put(m.bucket, longest, 1, "e", 1, NULL);
	fake_put_key(m.bucket, (struct cst_slice){"d/n\0ul", 6}, "e");
	fake_put(m.bucket, "d/f_$folder$", 0, "e", 1, NULL);
	fake_put(m.bucket, "d/g_$folder$", 0, "e", 1, NULL);
	fake_put(m.bucket, "d/g/x", 0, "e", 1, NULL);
	fake_put(m.bucket, "d/h_$folder$", 10, "e", 1, NULL); /* has bytes: a file */
	fake_retry_pages(m.bucket, true);
	fake_start(&m);
	assert_int_equal(do_path(&m, "d", &e), 0);
	char *all = do_ls(&m, e.node, true);
	assert_string_equal(all, "a a-b f g h_$folder$ ");
	free(all);
	cst_fs_stats(m.fs, &stats);
	assert_int_equal(stats.skipped_names, 5);
	assert_int_equal(do_path(&m, "d/a/under", &e), -ENOTDIR);
	assert_int_equal(do_path(&m, "d/f_$folder$", &e), -ENOENT);
	assert_int_equal(do_path(&m, "d/g", &e), 0);
	assert_int_equal(e.attr.st.st_mode, S_IFDIR | 0755);
}

static void interrupted_lookup(void **state)
{
	(void)state;
	fake_put(m.bucket, "a", 1, "e", 1, NULL);
	fake_start(&m);
	fake_hold(m.bucket, true);
	struct fake_call *c = call_new(), *other = call_new(), *early = call_new();
	cst_fs_lookup(m.fs, &c->call, CST_FS_ROOT, "a");
	cst_fs_lookup(m.fs, &other->call, CST_FS_ROOT, "a");
	cst_fs_call_interrupt(&early->call); /* before the file system saw it */
	cst_fs_lookup(m.fs, &early->call, CST_FS_ROOT, "a");
	cst_fs_call_interrupt(&c->call);
	assert_int_equal(call_wait(c), -EINTR);
	assert_int_equal(call_wait(early), -EINTR);
	other->refuse = true; /* the reply comes too late: the count is taken back */
	fake_hold(m.bucket, false);
	assert_int_equal(call_wait(other), 0);
	uint64_t node = other->entry.node;
	call_free(c);
	call_free(early);
	call_free(other);
	struct cst_fs_entry e;
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "a", &e), 0);
	forget(e.node);
	while (inodes() > 1) /* the late reply's is taken back after it */
		cst_sleep(CST_NS_PER_MS);
	assert_true(e.node >= node);
}

static void failures(void **state)
{
	struct cst_fs_entry e;
	(void)state;
	fake_put(m.bucket, "a", 1, "e", 1, NULL);
	fake_start(&m);
	fake_fail(m.bucket, -EACCES, "AccessDenied");
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "a", &e), -EACCES);
	char *all = do_ls(&m, CST_FS_ROOT, false);
	assert_string_equal(all, "error -13 ");
	free(all);
	fake_fail(m.bucket, -ETIMEDOUT, "");
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "a", &e), -EIO);
	fake_fail(m.bucket, 0, "");
	assert_int_equal(do_lookup(&m, CST_FS_ROOT, "a", &e), 0); /* errors are not kept */
	all = do_ls(&m, CST_FS_ROOT, false);
	assert_string_equal(all, "a ");
	free(all);
}

static void links(void **state)
{
	struct cst_fs_entry e;
	CST_AUTO_BUF text = CST_BUF_INIT;
	(void)state;
	m.config.prefix = "p/";
	m.config.attributes = CST_FS_ATTRIBUTES_OBJECT;
	fake_put_symlink(m.bucket, "p/a/b/down", "p/a/c/file");
	fake_put_symlink(m.bucket, "p/a/b/here", "p/a/b/file");
	fake_put_symlink(m.bucket, "p/path", "../up");
	fake_put_text(m.bucket, "p/body", "some/where", "e9", "mode=41471"); /* 0120777 */
	fake_start(&m);
	assert_int_equal(do_path(&m, "a/b/down", &e), 0);
	assert_int_equal(e.attr.st.st_mode & S_IFMT, S_IFLNK);
	assert_int_equal(do_text(&m, e.node, NULL, &text), 0);
	assert_string_equal(text.data, "../c/file");
	assert_int_equal(do_path(&m, "a/b/here", &e), 0);
	assert_int_equal(do_text(&m, e.node, NULL, &text), 0);
	assert_string_equal(text.data, "file");
	assert_int_equal(do_path(&m, "path", &e), 0);
	assert_int_equal(do_text(&m, e.node, NULL, &text), 0);
	assert_string_equal(text.data, "../up");
	assert_int_equal(do_path(&m, "body", &e), 0);
	assert_int_equal(e.attr.st.st_mode & S_IFMT, S_IFLNK);
	assert_int_equal(do_text(&m, e.node, NULL, &text), 0);
	assert_string_equal(text.data, "some/where");
}

static void extended_attributes(void **state)
{
	struct cst_fs_entry e;
	CST_AUTO_BUF text = CST_BUF_INIT;
	(void)state;
	m.config.attributes = CST_FS_ATTRIBUTES_OBJECT;
	fake_put(m.bucket, "a", 1, "5D41402ABC4B2A76B9719D911017C592", 1,
		 "colour=blue\nxattr=%7B%22user.old%22%3A%22aGVsbG8%3D%22%7D");
	fake_put(m.bucket, "plain", 1, "e", 1, NULL);
	fake_start(&m);
	assert_int_equal(do_path(&m, "a", &e), 0);
	assert_int_equal(do_text(&m, e.node, "user.oss.etag", &text), 0);
	assert_string_equal(text.data, "5D41402ABC4B2A76B9719D911017C592");
	assert_int_equal(do_text(&m, e.node, "user.oss.meta.colour", &text), 0);
	assert_string_equal(text.data, "blue");
	assert_int_equal(do_text(&m, e.node, "user.old", &text), 0);
	assert_string_equal(text.data, "hello");
	assert_int_equal(do_text(&m, e.node, "user.oss.meta.none", &text), -ENODATA);
	assert_int_equal(do_text(&m, e.node, "", &text), 0);
	static const char names[] =
		"user.oss.etag\0user.oss.storage-class\0user.oss.type\0user.oss.meta.colour\0user.oss.meta.xattr\0user.old";
	assert_int_equal(text.len, sizeof(names));
	assert_memory_equal(text.data, names, sizeof(names));
	assert_int_equal(do_path(&m, "plain", &e), 0);
	fake_reset_counts(m.bucket);
	assert_int_equal(do_text(&m, e.node, "security.capability", &text), -ENODATA);
	assert_int_equal(fake_counts(m.bucket).heads, 0);
}

/* Where a link points is asked again when it is old; a link whose target is its content has versions. */
static void link_points_elsewhere(void **state)
{
	struct cst_fs_entry e, old;
	CST_AUTO_BUF text = CST_BUF_INIT;
	(void)state;
	m.config.attributes = CST_FS_ATTRIBUTES_OBJECT;
	fake_put_symlink(m.bucket, "p/link", "p/one");
	fake_put_text(m.bucket, "p/old", "first", "v1", "mode=41471\n"); /* 0120777 */
	fake_start(&m);
	assert_int_equal(do_path(&m, "p/link", &e), 0);
	assert_int_equal(do_path(&m, "p/old", &old), 0);
	assert_true(S_ISLNK(old.attr.st.st_mode));
	assert_int_equal(do_text(&m, e.node, NULL, &text), 0);
	assert_string_equal(text.data, "one");
	assert_int_equal(do_text(&m, old.node, NULL, &text), 0);
	assert_string_equal(text.data, "first");
	fake_put_symlink(m.bucket, "p/link", "p/two");
	unsigned before = fake_counts(m.bucket).symlinks + fake_counts(m.bucket).gets;
	assert_int_equal(do_text(&m, e.node, NULL, &text), 0);
	assert_string_equal(text.data, "one");
	assert_int_equal(do_text(&m, old.node, NULL, &text), 0);
	assert_int_equal(fake_counts(m.bucket).symlinks + fake_counts(m.bucket).gets, before);
	fake_pass(61 * CST_NS_PER_S);
	assert_int_equal(do_text(&m, e.node, NULL, &text), 0);
	assert_string_equal(text.data, "two");
	assert_int_equal(do_text(&m, old.node, NULL, &text), 0); /* this version's target does not change */
	assert_string_equal(text.data, "first");
	assert_int_equal(fake_counts(m.bucket).symlinks + fake_counts(m.bucket).gets, before + 1);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(first_misses),
		CASE(attributes_from_listing),
		CASE(same_name_asked_once),
		CASE(second_miss_lists),
		CASE(long_directory_heads),
		CASE(objects_in_parallel),
		CASE(answers_grow_old),
		CASE(negative_entries),
		CASE(absent_names),
		CASE(strange_names),
		CASE(interrupted_lookup),
		CASE(failures),
		CASE(links),
		CASE(link_points_elsewhere),
		CASE(extended_attributes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
