/* INIT with kernels old and new, and what /proc/self/mountinfo says. */
#include "test.h"

#include "fuse/init.h"
#include "fuse/mountpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static const struct cst_fuse_init_wish wish = {
	.readdirplus = true, .memory = UINT64_C(512) << 20, .max_read = 1 << 20, .max_readahead = 64 << 20};

static void test_new_kernel(void **state)
{
	struct cst_kfuse_init_in in = {
		.major = 7, .minor = 45, .max_readahead = 131072, .flags = UINT32_MAX, .flags2 = UINT32_MAX};
	struct cst_kfuse_init_out out;
	struct cst_fuse_init_result r;
	static const uint64_t wanted = CST_KFUSE_ASYNC_READ | CST_KFUSE_PARALLEL_DIROPS | CST_KFUSE_DO_READDIRPLUS |
				       CST_KFUSE_MAX_PAGES | CST_KFUSE_INIT_EXT | CST_KFUSE_HAS_RESEND |
				       CST_KFUSE_HANDLE_KILLPRIV_V2 | CST_KFUSE_EXPLICIT_INVAL_DATA |
				       CST_KFUSE_PARALLEL_DIROPS | CST_KFUSE_ASYNC_DIO;
	static const uint64_t unwanted = CST_KFUSE_READDIRPLUS_AUTO | CST_KFUSE_WRITEBACK_CACHE |
					 CST_KFUSE_POSIX_LOCKS | CST_KFUSE_FLOCK_LOCKS | CST_KFUSE_EXPORT_SUPPORT |
					 CST_KFUSE_NO_OPEN_SUPPORT | CST_KFUSE_PASSTHROUGH | CST_KFUSE_OVER_IO_URING |
					 CST_KFUSE_AUTO_INVAL_DATA;

	(void)state;
	assert_int_equal(cst_fuse_init_answer(&in, &wish, &out, &r, NULL), 0);
	assert_int_equal(out.major, 7);
	assert_int_equal(out.minor, 45);
	assert_int_equal(r.minor, 45);
	assert_true((r.flags & wanted) == wanted);
	assert_true((r.flags & unwanted) == 0);
	assert_true((out.flags | (uint64_t)out.flags2 << 32) == r.flags);
	assert_int_equal(out.max_pages, 256);
	assert_int_equal(out.max_write, 4096);
	assert_int_equal(out.time_gran, 1);
	assert_int_equal(out.max_stack_depth, 0);
	assert_int_equal(out.max_readahead, 131072);
	assert_int_equal(out.max_background, 256);
	assert_int_equal(out.congestion_threshold, 192);
	in.minor = 99;
	assert_int_equal(cst_fuse_init_answer(&in, &wish, &out, &r, NULL), 0);
	assert_int_equal(r.minor, 45);
}

static void test_choices(void **state)
{
	struct cst_kfuse_init_in in = {.major = 7, .minor = 45, .flags = UINT32_MAX, .flags2 = UINT32_MAX};
	struct cst_fuse_init_wish w = wish;
	struct cst_kfuse_init_out out;
	struct cst_fuse_init_result r;

	(void)state;
	w.passthrough = true;
	assert_int_equal(cst_fuse_init_answer(&in, &w, &out, &r, NULL), 0);
	assert_true(r.flags & CST_KFUSE_PASSTHROUGH);
	assert_true(out.flags2 & CST_KFUSE_PASSTHROUGH >> 32);
	assert_int_equal(out.max_stack_depth, 1);
	in.flags2 = 0; /* an old kernel, or one built without */
	assert_int_equal(cst_fuse_init_answer(&in, &w, &out, &r, NULL), 0);
	assert_false(r.flags & CST_KFUSE_PASSTHROUGH);
	assert_int_equal(out.max_stack_depth, 0);
	in.flags2 = UINT32_MAX;
	w.readdirplus = false;
	w.auto_cache = true;
	w.max_read = 4096;
	assert_int_equal(cst_fuse_init_answer(&in, &w, &out, &r, NULL), 0);
	assert_false(r.flags & CST_KFUSE_DO_READDIRPLUS);
	assert_true(r.flags & CST_KFUSE_AUTO_INVAL_DATA);
	assert_false(r.flags & CST_KFUSE_EXPLICIT_INVAL_DATA);
	assert_int_equal(out.max_pages, 1);
	w.max_read = 64 << 20;
	assert_int_equal(cst_fuse_init_answer(&in, &w, &out, &r, NULL), 0);
	assert_int_equal(out.max_pages, 256);
	assert_int_equal(cst_fuse_init_background(0, 0, 0), 160);
	assert_int_equal(cst_fuse_init_background(0, UINT64_C(64) << 20, 1024), 160);
	assert_int_equal(cst_fuse_init_background(0, UINT64_C(64) << 20, 2048), 224);
	assert_int_equal(cst_fuse_init_background(0, UINT64_C(64) << 20, 16384), 256);
	assert_int_equal(cst_fuse_init_background(0, UINT64_C(200) << 20, 1024), 200);
	assert_int_equal(cst_fuse_init_background(0, UINT64_C(64) << 30, 1024), 256);
	assert_int_equal(cst_fuse_init_background(7, 0, 1024), 7);
	assert_int_equal(cst_fuse_init_background(1000000, 0, 1024), 65535);
}

static void test_writing(void **state)
{
	struct cst_kfuse_init_in in = {.major = 7, .minor = 45, .flags = UINT32_MAX, .flags2 = UINT32_MAX};
	struct cst_fuse_init_wish w = wish;
	struct cst_kfuse_init_out out;
	struct cst_fuse_init_result r;

	(void)state;
	w.max_write = 1 << 20;
	assert_int_equal(cst_fuse_init_answer(&in, &w, &out, &r, NULL), 0);
	assert_int_equal(out.max_write, 1 << 20);
	assert_int_equal(r.max_write, 1 << 20);
	assert_true(r.flags & CST_KFUSE_HANDLE_KILLPRIV_V2);
	assert_true(r.flags & CST_KFUSE_DIRECT_IO_ALLOW_MMAP);
	assert_true(r.flags & CST_KFUSE_ATOMIC_O_TRUNC);
	assert_false(r.flags & CST_KFUSE_WRITEBACK_CACHE);
	/* A write may be larger than a read; whole pages only. */
	w.max_read = 64 << 10;
	assert_int_equal(cst_fuse_init_answer(&in, &w, &out, &r, NULL), 0);
	assert_int_equal(out.max_pages, 256);
	w.max_write = (128 << 10) + 100;
	assert_int_equal(cst_fuse_init_answer(&in, &w, &out, &r, NULL), 0);
	assert_int_equal(out.max_write, 128 << 10);
	assert_int_equal(out.max_pages, 32);
}

static void test_old_kernels(void **state)
{
	struct cst_kfuse_init_in in = {.major = 7,
				       .minor = 31,
				       .flags = CST_KFUSE_ASYNC_READ | CST_KFUSE_PARALLEL_DIROPS,
				       .flags2 = UINT32_MAX};
	struct cst_error err = CST_ERROR_INIT;
	struct cst_kfuse_init_out out;
	struct cst_fuse_init_result r;

	(void)state;
	assert_int_equal(cst_fuse_init_answer(&in, &wish, &out, &r, NULL), 0);
	assert_int_equal(r.minor, 31);
	assert_true(r.flags ==
		    (CST_KFUSE_ASYNC_READ | CST_KFUSE_PARALLEL_DIROPS)); /* flags2 means nothing without INIT_EXT */
	assert_int_equal(out.max_pages, 0);
	in.minor = 30;
	assert_int_equal(cst_fuse_init_answer(&in, &wish, &out, &r, &err), -EPROTO);
	assert_non_null(strstr(err.why, "7.30"));
	in.major = 8; /* it is told our major and asks again */
	assert_int_equal(cst_fuse_init_answer(&in, &wish, &out, &r, &err), -EAGAIN);
	assert_int_equal(out.major, 7);
	in.major = 6;
	assert_int_equal(cst_fuse_init_answer(&in, &wish, &out, &r, &err), -EPROTO);
}

static void test_mountinfo_line(void **state)
{
	struct cst_fuse_mountinfo m;
	static const char *const bad[] = {"",
					  "36 35 98:0 / /mnt rw",
					  "36 35 x / /mnt rw - a b c",
					  "1 2 3:4 / /a rw shared:1 ext4 x y",
					  "1 2 3:4 / /a rw -",
					  "1 2 3:4 / /a rw - ext4"};

	(void)state;
	assert_int_equal(
		cst_fuse_mountinfo_parse(
			"36 35 0:98 / /mnt/a\\040b\\134 rw,noatime shared:1 master:2 - fuse.cistern oss://b rw\n", &m),
		0);
	assert_int_equal(m.major, 0);
	assert_int_equal(m.minor, 98);
	assert_string_equal(m.path, "/mnt/a b\\");
	assert_string_equal(m.type, "fuse.cistern");
	assert_string_equal(m.source, "oss://b");
	cst_fuse_mountinfo_fini(&m);
	assert_int_equal(cst_fuse_mountinfo_parse("1 2 3:4 / / rw - ext4 /dev/\\0 rw", &m), 0);
	assert_string_equal(m.source, "/dev/\\0");
	cst_fuse_mountinfo_fini(&m);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(cst_fuse_mountinfo_parse(bad[i], &m), -EINVAL);
	assert_int_equal(cst_fuse_mountinfo_find("/", &m), 0);
	cst_fuse_mountinfo_fini(&m);
	assert_int_equal(cst_fuse_mountinfo_find("/no/such/mount", &m), -ENOENT);
}

static void test_resolve(void **state)
{
	char dir[] = "/tmp/cst-fuse-path-XXXXXX", cwd[4096], link[64], target[64];
	CST_AUTO_FREE char *a = NULL, *b = NULL, *c = NULL, *d = NULL;

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_non_null(getcwd(cwd, sizeof(cwd)));
	assert_int_equal(chdir(dir), 0);
	a = cst_fuse_mountpoint_resolve("absent/");
	snprintf(target, sizeof(target), "%s/absent", dir);
	assert_string_equal(a, target);
	b = cst_fuse_mountpoint_resolve(".");
	assert_string_equal(b, dir);
	snprintf(link, sizeof(link), "%s/link", dir);
	assert_int_equal(symlink(dir, link), 0);
	c = cst_fuse_mountpoint_resolve("link///");
	assert_string_equal(c, dir);
	d = cst_fuse_mountpoint_resolve("/tmp");
	assert_string_equal(d, "/tmp");
	assert_null(cst_fuse_mountpoint_resolve("no/such/way"));
	unlink(link);
	assert_int_equal(chdir(cwd), 0);
	rmdir(dir);
}

static void check_conf(const char *text, bool expected)
{
	char path[] = "/tmp/cst-fuse-conf-XXXXXX";
	int fd = mkstemp(path);

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	assert_int_equal(cst_fuse_helper_allows_other(path), expected);
	unlink(path);
}

static void test_fuse_conf(void **state)
{
	(void)state;
	check_conf("user_allow_other\n", true);
	check_conf("mount_max = 5\n  user_allow_other \r\n", true);
	check_conf("#user_allow_other\n", false);
	check_conf("user_allow_others\n", false);
	check_conf("", false);
	assert_false(cst_fuse_helper_allows_other("/no/such/file"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_new_kernel),     cmocka_unit_test(test_choices),
		cmocka_unit_test(test_writing),	       cmocka_unit_test(test_old_kernels),
		cmocka_unit_test(test_mountinfo_line), cmocka_unit_test(test_resolve),
		cmocka_unit_test(test_fuse_conf),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
