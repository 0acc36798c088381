/* Real mounts of the double: needs root and /dev/fuse, else every case is skipped. */
#include "double.h"
#include "fuse/internal.h"

#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>

static const struct cst_fuse_config plain = {
	.fsname = "oss://bucket/a, b",
	.subtype = "cistern",
	.mount_flags = MS_RDONLY,
	.memory = UINT64_C(512) << 20,
	.readdirplus = true,
};

static uint64_t get(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_SEQ_CST);
}

/* It ends itself after a while: what bounds every loop here. */
static void assert_alive(pid_t server)
{
	siginfo_t info = {0};

	assert_int_equal(waitid(P_PID, (id_t)server, &info, WEXITED | WNOHANG | WNOWAIT), 0);
	assert_int_equal(info.si_pid, 0);
}

static void await(const uint64_t *counter, uint64_t at_least, pid_t server)
{
	while (get(counter) < at_least) {
		assert_alive(server);
		usleep(1000);
	}
}

/* Looks at a path until that makes a counter move. The notifier works beside us. */
static void stat_until(const char *path, const uint64_t *counter, uint64_t before, pid_t server)
{
	struct stat st;

	while (get(counter) == before) {
		assert_alive(server);
		assert_int_equal(stat(path, &st), 0);
	}
}

static void start(struct double_server *s, const struct cst_fuse_config *config)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		skip();
	memset(s, 0, sizeof(*s));
	if (double_start(s, config, 0) < 0) {
		print_message("# %s\n", s->board->error);
		fail();
	}
}

static const char *in(const struct double_server *s, const char *name)
{
	static char path[4][160];
	static unsigned next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", s->mnt, name);
	return p;
}

static int first_byte(const char *path)
{
	CST_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	unsigned char c;

	if (fd < 0)
		return -errno;
	return read(fd, &c, 1) == 1 ? c : -EIO;
}

static void test_everything_readable(void **state)
{
	struct double_server s;
	struct stat st;
	struct statvfs vfs;
	char text[64];
	int fd;

	(void)state;
	start(&s, &plain);
	fd = open(in(&s, "hello"), O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(read(fd, text, sizeof(text)), 13);
	assert_memory_equal(text, "hello, world\n", 13);
	assert_int_equal(lseek(fd, 0, SEEK_DATA), 0);
	assert_int_equal(lseek(fd, 0, SEEK_HOLE), 13);
	assert_int_equal(ioctl(fd, 0x1234, 0), -1);
	assert_int_equal(errno, ENOTTY);
	assert_int_equal(fsync(fd), 0);
	close(fd);
	assert_int_equal(stat(in(&s, "hello"), &st), 0);
	assert_int_equal(st.st_mtim.tv_sec, 1700000000);
	assert_int_equal(st.st_mtim.tv_nsec, 123456789);
	assert_int_equal(readlink(in(&s, "link"), text, sizeof(text)), 5);
	assert_memory_equal(text, "hello", 5);
	assert_int_equal(statvfs(s.mnt, &vfs), 0);
	assert_int_equal(vfs.f_blocks, 1000);
	assert_int_equal(stat(in(&s, "absent"), &st), -1);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(getxattr(in(&s, "hello"), "user.color", NULL, 0), 4);
	assert_int_equal(getxattr(in(&s, "hello"), "user.color", text, 2), -1);
	assert_int_equal(errno, ERANGE);
	assert_int_equal(getxattr(in(&s, "hello"), "user.color", text, sizeof(text)), 4);
	assert_memory_equal(text, "blue", 4);
	assert_int_equal(listxattr(in(&s, "hello"), text, sizeof(text)), 11);
	assert_int_equal(double_stop(&s), 0);
}

static void test_statx_with_birth_time(void **state)
{
	struct double_server s;
	struct statx x;

	(void)state;
	start(&s, &plain);
	assert_int_equal(statx(AT_FDCWD, in(&s, "hello"), AT_STATX_FORCE_SYNC, STATX_BASIC_STATS | STATX_BTIME, &x), 0);
	assert_int_equal(x.stx_size, 13);
	assert_int_equal(x.stx_mtime.tv_nsec, 123456789);
	assert_true(S_ISREG(x.stx_mode));
	assert_int_equal(x.stx_mask & STATX_BTIME, 0);
	assert_int_equal(double_stop(&s), 0);
}

static void check_big(const char *path, size_t step)
{
	CST_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	CST_AUTO_FREE unsigned char *buf = malloc(step);
	CST_AUTO_FREE unsigned char *expected = malloc(1 << 20);
	uint64_t at = 0;

	assert_true(fd >= 0);
	for (size_t i = 0; i < 1 << 20; i++)
		expected[i] = double_byte(i);
	for (;;) {
		ssize_t n = read(fd, buf, step);

		assert_true(n >= 0);
		if (n == 0)
			break;
		for (uint64_t done = 0; done < (uint64_t)n;) {
			uint64_t from = (at + done) % (1 << 20), len = cst_min((uint64_t)n - done, (1 << 20) - from);

			assert_memory_equal(buf + done, expected + from, len);
			done += len;
		}
		at += (uint64_t)n;
	}
	assert_int_equal(at, DOUBLE_BIG);
}

static void test_big_reads(void **state)
{
	struct cst_fuse_config config = plain;
	struct double_server s;

	(void)state;
	config.read_ahead_kb = 4096;
	start(&s, &config);
	check_big(in(&s, "big"), (1 << 20) + 4096);
	assert_int_equal(s.board->max_size, 1 << 20);
	assert_int_equal(s.board->stats.read_ahead_kb, 4096);
	assert_true(s.board->reads <= 80); /* 64 MiB, the first windows being smaller */
	assert_int_equal(double_stop(&s), 0);

	start(&s, &plain);
	s.board->direct_io = 1;
	check_big(in(&s, "big"), 4 << 20);
	assert_int_equal(s.board->max_size, 1 << 20);
	/* 64 MiB, whose ends need not fall on pages, and the end of file */
	assert_true(s.board->reads >= 64 && s.board->reads <= 90);
	assert_int_equal(double_stop(&s), 0);
}

static void test_readdirplus_makes_no_lookups(void **state)
{
	struct double_server s;
	struct stat st;
	DIR *d;
	const struct dirent *e;
	int count = 0;

	(void)state;
	start(&s, &plain);
	d = opendir(in(&s, "many"));
	assert_non_null(d);
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		assert_int_equal(e->d_type, DT_REG);
		assert_int_equal(e->d_ino, DOUBLE_MANY_INO + (ino_t)count);
		count++;
	}
	/* Only now: the kernel must not need the hint that names are being looked at. */
	for (int i = 0; i < count; i++) {
		char name[32];

		snprintf(name, sizeof(name), "file-%d", i);
		assert_int_equal(fstatat(dirfd(d), name, &st, 0), 0);
		assert_int_equal(st.st_ino, DOUBLE_MANY_INO + (ino_t)i);
	}
	closedir(d);
	assert_int_equal(count, DOUBLE_MANY);
	assert_int_equal(s.board->lookups, 1); /* the directory itself */
	assert_int_equal(s.board->getattrs, 0);
	assert_int_equal(double_stop(&s), 0);
}

static void *stat_it(void *path)
{
	struct stat st;

	return (void *)(intptr_t)(stat(path, &st) == 0 ? 0 : errno);
}

static void test_lookups_of_one_directory_are_parallel(void **state)
{
	struct double_server s;
	pthread_t threads[16];
	char paths[16][160];

	(void)state;
	start(&s, &plain);
	s.board->lookup_gate = 16; /* none is answered before all have come */
	for (int i = 0; i < 16; i++) {
		snprintf(paths[i], sizeof(paths[i]), "%s/slow/name-%d", s.mnt, i);
		assert_int_equal(pthread_create(&threads[i], NULL, stat_it, paths[i]), 0);
	}
	for (int i = 0; i < 16; i++) {
		void *rc;

		pthread_join(threads[i], &rc);
		assert_null(rc);
	}
	assert_int_equal(double_stop(&s), 0);
}

static void on_usr1(int sig)
{
	(void)sig;
}

/* A child reads `path`; with `signal` SIGUSR1's handler interrupts it. Its exit status is the errno. */
static pid_t reader_child(const char *path)
{
	pid_t pid = fork();

	if (pid == 0) {
		struct sigaction action = {.sa_handler = on_usr1}; /* no SA_RESTART */
		char buf[4096];
		int fd;

		sigaction(SIGUSR1, &action, NULL);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		_exit(fd < 0 ? 200 : read(fd, buf, sizeof(buf)) < 0 ? errno : 0);
	}
	return pid;
}

static int exit_of(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

static void test_a_signal_interrupts_a_hanging_read(void **state)
{
	struct double_server s;
	pid_t pid;

	(void)state;
	start(&s, &plain);
	s.board->direct_io = 1; /* a buffered read waits for the page, which only a fatal signal ends */
	pid = reader_child(in(&s, "hang"));
	await(&s.board->parked, 1, s.pid);
	kill(pid, SIGUSR1);
	assert_int_equal(exit_of(pid), EINTR);
	assert_int_equal(s.board->cancels, 1);
	assert_int_equal(first_byte(in(&s, "hello")), 'h');
	assert_int_equal(double_stop(&s), 0);
}

static void test_resent_requests_are_served(void **state)
{
	struct double_server s;
	pid_t pid;

	(void)state;
	start(&s, &plain);
	if (s.board->stats.kernel_minor < 40) {
		double_stop(&s);
		skip();
	}
	s.board->direct_io = 1;
	pid = reader_child(in(&s, "hang"));
	await(&s.board->parked, 1, s.pid);
	double_order(&s, ORDER_RESEND);
	await(&s.board->parked, 2, s.pid); /* the answer to the first sending is of no interest now */
	kill(pid, SIGUSR1);
	assert_int_equal(exit_of(pid), EINTR);
	assert_int_equal(get(&s.board->parked), 1);
	assert_int_equal(double_stop(&s), 0);
}

static void test_a_killed_reader_leaves(void **state)
{
	struct double_server s;
	pid_t pids[8];

	(void)state;
	start(&s, &plain);
	s.board->direct_io = 1;
	for (int i = 0; i < 8; i++)
		pids[i] = reader_child(in(&s, "hang"));
	await(&s.board->parked, 8, s.pid);
	for (int i = 0; i < 8; i++)
		kill(pids[i], SIGKILL);
	for (int i = 0; i < 8; i++)
		assert_int_equal(exit_of(pids[i]), 256 + SIGKILL);
	assert_int_equal(s.board->cancels, 8);
	assert_int_equal(double_stop(&s), 0);
}

/* Reads on in steps of 1 MiB until the end or an error. */
static pid_t steady_reader_child(const char *path)
{
	pid_t pid = fork();

	if (pid == 0) {
		static char buf[1 << 20];
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : 1;

		while (n > 0)
			n = read(fd, buf, sizeof(buf));
		_exit(n < 0 ? errno : 0);
	}
	return pid;
}

/* 64 files stall at their beginning, or in full flow, when the kernel's read-ahead windows have grown: the requests of the kind that
 * max_background limits must not use up that limit. */
static void stalled_readers(const struct cst_fuse_config *config, uint64_t from)
{
	struct double_server s;
	char name[32];
	pid_t pids[64];

	memset(&s, 0, sizeof(s));
	assert_int_equal(double_prepare(&s), 0);
	s.board->stall_from = from;
	if (double_start(&s, config, 0) < 0)
		fail_msg("%s", s.board->error);
	for (int i = 0; i < 64; i++) {
		snprintf(name, sizeof(name), "stall-%d", i);
		pids[i] = steady_reader_child(in(&s, name));
	}
	await(&s.board->stalled_files, 64, s.pid);
	check_big(in(&s, "big"), 1 << 20);
	print_message("# %llu requests waited of %u\n", (unsigned long long)get(&s.board->parked),
		      s.board->stats.max_background);
	assert_true(get(&s.board->parked) >= 64);
	__atomic_store_n(&s.board->stall_open, 1, __ATOMIC_SEQ_CST);
	for (int i = 0; i < 64; i++)
		kill(pids[i], SIGKILL);
	double_order(&s, ORDER_RELEASE_STALLED);
	for (int i = 0; i < 64; i++)
		exit_of(pids[i]);
	assert_int_equal(double_stop(&s), 0);
}

static void test_64_stalled_readers_stop_nobody(void **state)
{
	struct cst_fuse_config config = plain;

	(void)state;
	if (geteuid() != 0)
		skip();
	config.read_ahead_kb = 1024;
	stalled_readers(&config, 0);
	stalled_readers(&config, 16 << 20);
	config.memory = UINT64_C(64) << 20; /* the smallest budget */
	stalled_readers(&config, 0);
	stalled_readers(&config, 16 << 20);
}

/* The kernel answers for a read-only mount by itself: the double would have served all of this. */
static void test_writes_give_erofs(void **state)
{
	struct double_server s;

	(void)state;
	start(&s, &plain);
	assert_int_equal(mkdir(in(&s, "new"), 0755), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(open(in(&s, "new"), O_CREAT | O_WRONLY | O_CLOEXEC, 0644), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(unlink(in(&s, "hello")), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(rename(in(&s, "hello"), in(&s, "new")), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(symlink("x", in(&s, "new")), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(link(in(&s, "hello"), in(&s, "new")), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(truncate(in(&s, "hello"), 0), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(chmod(in(&s, "hello"), 0600), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(setxattr(in(&s, "hello"), "user.a", "b", 1, 0), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(removexattr(in(&s, "hello"), "user.a"), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(mknod(in(&s, "fifo"), S_IFIFO | 0600, 0), -1);
	assert_int_equal(errno, EROFS);
	assert_string_equal(s.board->log, "");
	assert_int_equal(double_stop(&s), 0);
}

static bool is_mounted(const char *path)
{
	FILE *f = fopen("/proc/self/mounts", "re");
	char line[4096];
	bool found = false;

	while (f && fgets(line, sizeof(line), f))
		found |= strstr(line, path) != NULL;
	if (f)
		fclose(f);
	return found;
}

static void test_stop_while_busy(void **state)
{
	struct double_server s;
	char mnt[80], byte;
	pid_t pid;
	int fd;

	(void)state;
	start(&s, &plain);
	s.board->direct_io = 1;
	strcpy(mnt, s.mnt);
	fd = open(in(&s, "hello"), O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	pid = reader_child(in(&s, "hang"));
	await(&s.board->parked, 1, s.pid);
	assert_int_equal(double_stop(&s), 0);
	assert_false(is_mounted(mnt));
	assert_int_equal(pread(fd, &byte, 1, 0), -1);
	assert_int_equal(errno, ENOTCONN);
	assert_true(exit_of(pid) != 0);
	close(fd);
}

/* Stops with many requests in every stage of their lives. */
static void test_stop_under_load(void **state)
{
	struct double_server s;
	pid_t pids[8];

	(void)state;
	for (int round = 0; round < 10; round++) {
		start(&s, &plain);
		for (int i = 0; i < 8; i++) {
			pids[i] = fork();
			if (pids[i] == 0) {
				struct stat st;

				while (first_byte(in(&s, "big")) >= 0 && stat(in(&s, "absent"), &st) < 0 &&
				       errno == ENOENT)
					;
				_exit(0);
			}
		}
		await(&s.board->lookups, 200, s.pid);
		assert_int_equal(double_stop(&s), 0);
		for (int i = 0; i < 8; i++)
			exit_of(pids[i]);
	}
}

/* A name is expired while a lookup in that directory is not answered: the notifier waits in the kernel, everyone else goes on, and
 * the end does not hang on it. */
static void test_stop_while_a_notification_waits(void **state)
{
	struct double_server s;
	char mnt[80];
	pid_t pid;

	(void)state;
	start(&s, &plain);
	strcpy(mnt, s.mnt);
	s.board->lookup_gate = 1000;
	pid = reader_child(in(&s, "slow/name-1"));
	await(&s.board->parked, 1, s.pid);
	double_order(&s, ORDER_EXPIRE_SLOW);
	double_order(&s, ORDER_EXPIRE_SLOW);
	assert_int_equal(first_byte(in(&s, "hello")), 'h');
	assert_int_equal(double_stop(&s), 0);
	assert_false(is_mounted(mnt));
	assert_int_equal(exit_of(pid), 200);
}

/* Messages pile up behind one that waits: each once; those of other directories go on, and when it is over all of them arrive, without an INC_EPOCH. */
static void test_notifications_pile_up(void **state)
{
	struct double_server s;
	struct stat st;
	uint64_t lookups;
	pid_t pid;

	(void)state;
	start(&s, &plain);
	if (s.board->stats.kernel_minor < 38) { /* EXPIRE_ONLY */
		assert_int_equal(double_stop(&s), 0);
		skip();
	}
	assert_int_equal(stat(in(&s, "hello"), &st), 0);
	s.board->lookup_gate = 1000;
	pid = reader_child(in(&s, "slow/name-1"));
	await(&s.board->parked, 1, s.pid);
	double_order(&s, ORDER_EXPIRE_FLOOD);
	assert_in_range(get(&s.board->notices), FLOOD - 100, FLOOD + 100);
	lookups = get(&s.board->lookups);
	assert_int_equal(stat(in(&s, "hello"), &st), 0);
	assert_int_equal(get(&s.board->lookups), lookups);
	double_order(&s, ORDER_EXPIRE_HELLO);
	stat_until(in(&s, "hello"), &s.board->lookups, lookups, s.pid);
	lookups = get(&s.board->lookups);
	kill(pid, SIGKILL);
	exit_of(pid);
	do {
		usleep(1000);
		double_order(&s, ORDER_OPEN_FILES);
	} while (get(&s.board->notices) > 0);
	assert_int_equal(stat(in(&s, "hello"), &st), 0);
	assert_int_equal(get(&s.board->lookups), lookups);
	assert_int_equal(double_stop(&s), 0);
}

static void test_umount_from_outside(void **state)
{
	struct cst_error err = CST_ERROR_INIT;
	struct double_server s;

	(void)state;
	start(&s, &plain);
	assert_int_equal(first_byte(in(&s, "hello")), 'h');
	assert_int_equal(cst_fuse_unmount(s.mnt, false, &err), 0);
	assert_int_equal(double_wait(&s), 0);
}

static void test_umount_busy_says_so(void **state)
{
	struct cst_error err = CST_ERROR_INIT;
	struct double_server s;
	int fd;

	(void)state;
	start(&s, &plain);
	fd = open(in(&s, "hello"), O_RDONLY | O_CLOEXEC);
	assert_int_equal(cst_fuse_unmount(s.mnt, false, &err), -EBUSY);
	assert_non_null(strstr(err.why, "in use"));
	assert_int_equal(cst_fuse_unmount(s.mnt, true, &err), 0);
	close(fd); /* the last user: now it ends by itself */
	assert_int_equal(double_wait(&s), 0);
}

static void test_abort_ends_the_server(void **state)
{
	struct double_server s;
	struct stat st;
	char path[80], mnt[80];
	int fd;

	(void)state;
	start(&s, &plain);
	strcpy(mnt, s.mnt);
	assert_int_equal(stat(s.mnt, &st), 0);
	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/abort", (unsigned)st.st_dev);
	if (access(path, F_OK) < 0)
		assert_int_equal(mount("fusectl", "/sys/fs/fuse/connections", "fusectl", 0, NULL), 0);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "1", 1), 1);
	close(fd);
	assert_int_equal(double_wait(&s), 0);
	assert_false(is_mounted(mnt)); /* the dead mount is cleared away */
}

static void test_names_and_attributes_are_dropped_on_request(void **state)
{
	struct double_server s;
	struct stat st;
	uint64_t lookups, getattrs;

	(void)state;
	start(&s, &plain);
	assert_int_equal(stat(in(&s, "hello"), &st), 0);
	lookups = get(&s.board->lookups);
	getattrs = get(&s.board->getattrs);
	assert_int_equal(stat(in(&s, "hello"), &st), 0);
	assert_int_equal(get(&s.board->lookups), lookups);
	double_order(&s, ORDER_INVALIDATE_HELLO);
	stat_until(in(&s, "hello"), &s.board->getattrs, getattrs, s.pid);
	assert_int_equal(get(&s.board->lookups), lookups);
	if (s.board->stats.kernel_minor >= 38) {
		double_order(&s, ORDER_EXPIRE_HELLO);
		stat_until(in(&s, "hello"), &s.board->lookups, lookups, s.pid);
	}
	if (s.board->stats.kernel_minor >= 44) {
		lookups = get(&s.board->lookups);
		double_order(&s, ORDER_EPOCH);
		stat_until(in(&s, "hello"), &s.board->lookups, lookups, s.pid);
	}
	assert_int_equal(double_stop(&s), 0);
}

static void expect_refusal(const char *mountpoint, int code, const char *words)
{
	struct cst_fuse_config config = plain;
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];

	config.mountpoint = mountpoint;
	assert_null(cst_fuse_mount(&config, &err));
	cst_error_text(&err, text, sizeof(text));
	if (err.code != code || !strstr(text, words))
		fail_msg("%d: %s", err.code, text);
}

static void test_unfit_mountpoints(void **state)
{
	struct double_server s;
	char dir[] = "/tmp/cst-fuse-bad-XXXXXX", file[64];
	int fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(file, sizeof(file), "%s/file", dir);
	expect_refusal(file, ENOENT, "does not exist");
	expect_refusal("/absent/and/missing", ENOENT, "does not exist");
	fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	expect_refusal(file, ENOTDIR, "not a directory");
	expect_refusal(dir, ENOTEMPTY, "not empty");
	unlink(file);
	rmdir(dir);

	start(&s, &plain);
	expect_refusal(s.mnt, EBUSY, "mounted there already");
	kill(s.pid, SIGKILL);
	assert_int_equal(waitpid(s.pid, NULL, 0), s.pid);
	expect_refusal(s.mnt, ENOTCONN, "cistern umount");
	assert_int_equal(cst_fuse_unmount(s.mnt, false, NULL), 0);
	assert_int_equal(cst_fuse_unmount(s.mnt, false, NULL), -EINVAL);
	s.pid = 0;
	double_wait(&s);
}

static void test_nonempty(void **state)
{
	struct cst_fuse_config config = plain;
	struct double_server s;
	char dir[] = "/tmp/cst-fuse-full-XXXXXX", file[64];

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_non_null(mkdtemp(dir));
	snprintf(file, sizeof(file), "%s/hello", dir);
	close(open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	config.mountpoint = dir;
	config.nonempty = true;
	start(&s, &config);
	assert_int_equal(first_byte(file), 'h');
	assert_int_equal(double_stop(&s), 0);
	assert_int_equal(first_byte(file), -EIO); /* the empty file below */
	unlink(file);
	rmdir(dir);
}

#define NOBODY 65534

static void as_nobody(struct double_server *s, const char *script, int expected)
{
	pid_t pid = fork();

	if (pid == 0) {
		if (setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
			_exit(99);
		execl("/bin/sh", "sh", "-c", script, "sh", s->mnt, (char *)NULL);
		_exit(98);
	}
	assert_int_equal(exit_of(pid), expected);
}

static void test_mount_by_a_user(void **state)
{
	struct cst_fuse_config config = plain;
	struct double_server s = {0};
	char mnt[80];

	(void)state;
	if (geteuid() != 0 || access("/usr/bin/fusermount3", X_OK) != 0)
		skip();
	if (double_start(&s, &config, NOBODY) < 0)
		fail_msg("%s", s.board->error);
	strcpy(mnt, s.mnt);
	as_nobody(&s,
		  "test \"$(cat $1/hello)\" = 'hello, world' && grep -qF 'oss://bucket/a,\\040b '$1' fuse.cistern' "
		  "/proc/mounts",
		  0);
	assert_int_equal(first_byte(in(&s, "hello")), -EACCES); /* root is a stranger there */
	assert_int_equal(double_stop(&s), 0);
	assert_false(is_mounted(mnt));
}

static void test_allow_other_needs_the_line(void **state)
{
	struct cst_fuse_config config = plain;
	struct double_server s = {0};

	(void)state;
	if (geteuid() != 0 || access("/usr/bin/fusermount3", X_OK) != 0)
		skip();
	config.allow_other = true;
	assert_int_equal(double_start(&s, &config, NOBODY), -1);
	assert_non_null(strstr(s.board->error, "user_allow_other"));
	double_wait(&s);
}

static void test_allow_other_and_allow_root(void **state)
{
	struct cst_fuse_config config = plain;
	struct double_server s;

	(void)state;
	start(&s, &config);
	as_nobody(&s, "cat $1/hello 2>/dev/null", 1);
	assert_int_equal(double_stop(&s), 0);
	config.allow_other = true;
	start(&s, &config);
	as_nobody(&s, "cat $1/hello >/dev/null", 0);
	assert_int_equal(double_stop(&s), 0);
	config.allow_other = false;
	config.allow_root = true;
	start(&s, &config);
	as_nobody(&s, "cat $1/hello 2>/dev/null", 1);
	assert_int_equal(first_byte(in(&s, "hello")), 'h');
	assert_int_equal(double_stop(&s), 0);
}

/* A mount table of our own, which takes what is left in it along when we end, with a device that users may open. */
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
		cmocka_unit_test(test_everything_readable),
		cmocka_unit_test(test_statx_with_birth_time),
		cmocka_unit_test(test_big_reads),
		cmocka_unit_test(test_readdirplus_makes_no_lookups),
		cmocka_unit_test(test_lookups_of_one_directory_are_parallel),
		cmocka_unit_test(test_a_signal_interrupts_a_hanging_read),
		cmocka_unit_test(test_resent_requests_are_served),
		cmocka_unit_test(test_a_killed_reader_leaves),
		cmocka_unit_test(test_64_stalled_readers_stop_nobody),
		cmocka_unit_test(test_writes_give_erofs),
		cmocka_unit_test(test_stop_while_busy),
		cmocka_unit_test(test_stop_under_load),
		cmocka_unit_test(test_stop_while_a_notification_waits),
		cmocka_unit_test(test_notifications_pile_up),
		cmocka_unit_test(test_umount_from_outside),
		cmocka_unit_test(test_umount_busy_says_so),
		cmocka_unit_test(test_abort_ends_the_server),
		cmocka_unit_test(test_names_and_attributes_are_dropped_on_request),
		cmocka_unit_test(test_unfit_mountpoints),
		cmocka_unit_test(test_nonempty),
		cmocka_unit_test(test_mount_by_a_user),
		cmocka_unit_test(test_allow_other_needs_the_line),
		cmocka_unit_test(test_allow_other_and_allow_root),
	};
	enter_namespace();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
