/* Real mounts: opens that the kernel serves from a backing file, changes of mode, and read-ahead that falls as files are opened. Needs root
 * and /dev/fuse, else every case is skipped. */
#include "double.h"
#include "fuse/internal.h"

#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#define NOBODY 65534

static const struct cst_fuse_config plain = {.fsname = "oss://bucket",
					     .subtype = "cistern",
					     .mount_flags = MS_RDONLY,
					     .memory = UINT64_C(64) << 20,
					     .read_ahead_kb = 1024,
					     .passthrough = true,
					     .readdirplus = true};

static struct double_server s;
static char dir[64]; /* a tmpfs: what is passed through to */

static uint64_t get(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_SEQ_CST);
}

static void assert_alive(void)
{
	siginfo_t info = {0};

	assert_int_equal(waitid(P_PID, (id_t)s.pid, &info, WEXITED | WNOHANG | WNOWAIT), 0);
	assert_int_equal(info.si_pid, 0);
}

/* RELEASE comes after close(2) has returned. */
static void await(const uint64_t *counter, uint64_t value)
{
	while (get(counter) != value) {
		assert_alive();
		usleep(1000);
	}
}

static void write_file(const char *path, char byte)
{
	static char bytes[DOUBLE_THROUGH];
	CST_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	memset(bytes, byte, sizeof(bytes));
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
}

static void start(uid_t uid)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		skip();
	memset(&s, 0, sizeof(s));
	assert_int_equal(double_prepare(&s), 0);
	s.board->through = 1;
	snprintf(s.board->through_path, sizeof(s.board->through_path), "%s/file", dir);
	if (double_start(&s, &plain, uid) < 0)
		fail_msg("%s", s.board->error);
	double_order(&s, ORDER_STATS);
}

/* Cases that need the kernel's part. */
static void start_passing(void)
{
	start(0);
	if (strcmp(s.board->passthrough, "on") == 0)
		return;
	print_message("# passthrough: %s\n", s.board->passthrough);
	double_stop(&s);
	skip();
}

static int open_it(int flags)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/through", s.mnt);
	return open(path, flags | O_CLOEXEC);
}

static int byte_at(int fd, off_t at)
{
	char c;

	ssize_t n = pread(fd, &c, 1, at);

	return n == 1 ? c : n == 0 ? 0 : -errno;
}

static const char *backing_file(void)
{
	return s.board->through_path;
}

static void test_bytes_come_from_the_backing_file(void **state)
{
	(void)state;
	start_passing();
	write_file(backing_file(), 'b');
	int first = open_it(O_RDONLY), second = open_it(O_RDONLY);

	assert_true(first >= 0 && second >= 0);
	assert_int_equal(get(&s.board->backing_ids), 1);
	assert_int_equal(byte_at(first, 0), 'b');
	assert_int_equal(byte_at(second, DOUBLE_THROUGH - 1), 'b');
	assert_int_equal(byte_at(second, DOUBLE_THROUGH), 0); /* the end */
	char *map = mmap(NULL, DOUBLE_THROUGH, PROT_READ, MAP_SHARED, first, 0);

	assert_ptr_not_equal(map, MAP_FAILED);
	close(first);
	close(second);
	await(&s.board->backing_ids, 0); /* after the last RELEASE, and the mapping is still good */
	for (size_t i = 0; i < DOUBLE_THROUGH; i += 4096)
		assert_int_equal(map[i], 'b');
	munmap(map, DOUBLE_THROUGH);
	assert_int_equal(get(&s.board->reads), 0);
	assert_int_equal(get(&s.board->backing_error), 0);
	assert_int_equal(double_stop(&s), 0);
}

/* CACHED, then PASSTHROUGH, then CACHED again, on one node: what the kernel keeps of one mode never shows in the next. */
static void test_modes_follow_each_other(void **state)
{
	(void)state;
	start_passing();
	write_file(backing_file(), 'b');
	for (int i = 0; i < 3; i++) {
		s.board->through = i == 1;
		int fd = open_it(O_RDONLY);

		assert_true(fd >= 0);
		assert_int_equal(byte_at(fd, 0), i == 1 ? 'b' : 'r');
		close(fd);
		await(&s.board->backing_ids, 0);
	}
	assert_int_equal(get(&s.board->stale_opens), 0);
	assert_int_equal(double_stop(&s), 0);
}

/* The kernel would answer EIO to another mode: ESTALE makes it look the name up again, though it may keep it for an hour. */
static void test_another_mode_takes_another_node(void **state)
{
	struct stat before, after;

	(void)state;
	start_passing();
	write_file(backing_file(), 'b');
	int through = open_it(O_RDONLY);

	assert_true(through >= 0);
	uint64_t lookups = get(&s.board->lookups);

	s.board->through = 0;
	int cached = open_it(O_RDONLY);

	assert_true(cached >= 0);
	assert_int_equal(get(&s.board->stale_opens), 1);
	assert_true(get(&s.board->lookups) > lookups);
	assert_int_equal(byte_at(cached, 5), 'r');
	assert_int_equal(byte_at(through, 5), 'b'); /* who had it open keeps it */
	assert_int_equal(fstat(through, &before), 0);
	assert_int_equal(fstat(cached, &after), 0);
	assert_int_not_equal(before.st_ino, after.st_ino); /* the double makes no secret of its node ids */
	/* What the rule is for: the new node is open in cached mode, and this double passes it through all the same. */
	s.board->through = 1;
	assert_int_equal(open_it(O_RDONLY), -1);
	assert_int_equal(errno, EIO);
	close(cached);
	close(through);
	await(&s.board->backing_ids, 0);
	assert_int_equal(double_stop(&s), 0);
}

/* The file that is passed through to may be unlinked and replaced: who has it open reads on. */
static void test_an_unlinked_backing_file(void **state)
{
	(void)state;
	start_passing();
	write_file(backing_file(), 'b');
	int fd = open_it(O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(unlink(backing_file()), 0);
	write_file(backing_file(), 'c');
	assert_int_equal(byte_at(fd, 77), 'b');
	close(fd);
	await(&s.board->backing_ids, 0);
	fd = open_it(O_RDONLY);
	assert_int_equal(byte_at(fd, 77), 'c');
	close(fd);
	assert_int_equal(double_stop(&s), 0);
}

static void test_a_stacked_file_system_is_told(void **state)
{
	char path[4][128];
	CST_AUTO_FREE char *options = NULL;
	static const char *const names[] = {"lower", "upper", "work", "over"};

	(void)state;
	for (int i = 0; geteuid() == 0 && i < 4; i++) {
		snprintf(path[i], sizeof(path[i]), "%s/%s", dir, names[i]);
		mkdir(path[i], 0755);
	}
	options = cst_xasprintf("lowerdir=%s,upperdir=%s,workdir=%s", path[0], path[1], path[2]);
	if (mount("overlay", path[3], "overlay", 0, options) < 0) {
		print_message("# no overlay here: %s\n", strerror(errno));
		skip();
	}
	start_passing();
	snprintf(s.board->through_path, sizeof(s.board->through_path), "%s/over/file", dir);
	double_order(&s, ORDER_STATS);
	assert_string_equal(s.board->passthrough, "on"); /* nobody has said where the files will lie */
	write_file(backing_file(), 'b');
	int fd = open_it(O_RDONLY);

	assert_true(fd >= 0); /* it falls back */
	assert_int_equal(byte_at(fd, 0), 'r');
	close(fd);
	double_order(&s, ORDER_STATS);
	assert_int_equal(get(&s.board->backing_error), ELOOP);
	assert_string_equal(s.board->passthrough, "cache directory on a stacked file system");
	assert_int_equal(double_stop(&s), 0);
	/* Known from the start where the directory is. */
	struct cst_fuse_config config = plain;
	config.backing_dir = path[3];
	assert_int_equal(double_start(&s, &config, 0), 0);
	double_order(&s, ORDER_STATS);
	assert_string_equal(s.board->passthrough, "cache directory on a stacked file system");
	assert_int_equal(double_stop(&s), 0);
	umount2(path[3], MNT_DETACH);
}

static void test_it_can_be_off(void **state)
{
	struct cst_fuse_config config = plain;

	(void)state;
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		skip();
	memset(&s, 0, sizeof(s));
	config.passthrough = false;
	assert_int_equal(double_start(&s, &config, 0), 0);
	double_order(&s, ORDER_STATS);
	assert_string_equal(s.board->passthrough, "off");
	s.board->through = 1;
	int fd = open_it(O_RDONLY);

	assert_int_equal(byte_at(fd, 0), 'r');
	close(fd);
	assert_int_equal(get(&s.board->backing_error), EOPNOTSUPP);
	assert_int_equal(double_stop(&s), 0);
}

static void test_a_user_may_not(void **state)
{
	(void)state;
	if (access("/usr/bin/fusermount3", X_OK) != 0)
		skip();
	start(NOBODY);
	assert_true(strcmp(s.board->passthrough, "not permitted (CAP_SYS_ADMIN)") == 0 ||
		    strncmp(s.board->passthrough, "kernel", 6) == 0);
	assert_int_equal(double_stop(&s), 0);
}

static uint32_t read_ahead_of(const char *mnt)
{
	struct stat st;
	char path[96];
	uint32_t kb = 0;

	assert_int_equal(stat(mnt, &st), 0);
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(st.st_dev), minor(st.st_dev));
	FILE *f = fopen(path, "re");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%u", &kb), 1);
	fclose(f);
	return kb;
}

static void test_read_ahead_falls_as_files_are_opened(void **state)
{
	static const struct {
		uint64_t files;
		uint32_t kb;
	} steps[] = {{1, 1024}, {16, 1024}, {17, 512},	{33, 256}, {1000, 128},
		     {40, 256}, {20, 512},  {10, 1024}, {0, 1024}};

	(void)state;
	start(0); /* 64 MiB: a quarter of it is 16 MiB */
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		s.board->open_files = steps[i].files;
		double_order(&s, ORDER_OPEN_FILES);
		while (s.board->stats.read_ahead_kb != steps[i].kb) {
			assert_alive();
			double_order(&s, ORDER_STATS);
		}
		assert_int_equal(read_ahead_of(s.mnt), steps[i].kb);
	}
	assert_int_equal(double_stop(&s), 0);
}

static void test_steps_of_read_ahead(void **state)
{
	const uint64_t mib = 1 << 20;

	(void)state;
	assert_int_equal(cst_fuse_read_ahead_step(0, 512 * mib, 1024, 1024), 1024);
	assert_int_equal(cst_fuse_read_ahead_step(128, 512 * mib, 1024, 1024), 1024);
	assert_int_equal(cst_fuse_read_ahead_step(129, 512 * mib, 1024, 1024), 512);
	assert_int_equal(cst_fuse_read_ahead_step(128, 512 * mib, 1024, 512), 512); /* not back at once */
	assert_int_equal(cst_fuse_read_ahead_step(86, 512 * mib, 1024, 512), 512);
	assert_int_equal(cst_fuse_read_ahead_step(85, 512 * mib, 1024, 512), 1024);
	assert_int_equal(cst_fuse_read_ahead_step(UINT64_C(1) << 40, 512 * mib, 1024, 1024), 128);
	assert_int_equal(cst_fuse_read_ahead_step(1, 512 * mib, 3000, 1024), 3000);
	assert_int_equal(cst_fuse_read_ahead_step(100, 512 * mib, 3000, 3000), 1024);
}

static void enter_namespace(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", "/tmp", "tmpfs", 0, "mode=1777") < 0 ||
	    mknod("/tmp/fuse", S_IFCHR | 0666, makedev(10, 229)) < 0 || chmod("/tmp/fuse", 0666) < 0 ||
	    mount("/tmp/fuse", "/dev/fuse", NULL, MS_BIND, NULL) < 0)
		print_message("# no mount namespace: %s\n", strerror(errno));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes_come_from_the_backing_file),
		cmocka_unit_test(test_modes_follow_each_other),
		cmocka_unit_test(test_another_mode_takes_another_node),
		cmocka_unit_test(test_an_unlinked_backing_file),
		cmocka_unit_test(test_a_stacked_file_system_is_told),
		cmocka_unit_test(test_it_can_be_off),
		cmocka_unit_test(test_a_user_may_not),
		cmocka_unit_test(test_read_ahead_falls_as_files_are_opened),
		cmocka_unit_test(test_steps_of_read_ahead),
	};

	enter_namespace();
	snprintf(dir, sizeof(dir), "/tmp/cst-passthrough-XXXXXX");
	if (!mkdtemp(dir))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
