/* Writing through real mounts of the double: needs root and /dev/fuse, else every case is skipped. */
#include "double.h"

#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

static const struct cst_fuse_config writable = {
	.fsname = "oss://bucket",
	.subtype = "cistern",
	.memory = UINT64_C(512) << 20,
	.max_write = 1 << 20,
	.readdirplus = true,
};

static void start(struct double_server *s, const struct cst_fuse_config *config, int open_flags, int gate)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		skip();
	memset(s, 0, sizeof(*s));
	assert_int_equal(double_prepare(s), 0);
	s->board->open_flags = open_flags;
	s->board->write_gate = gate;
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

/* The whole lines of the log, in order, and none else since the last call. */
static void assert_log(struct double_server *s, const char *expected)
{
	assert_string_equal(s->board->log, expected);
	s->board->log_len = 0;
	s->board->log[0] = '\0';
}

static void test_names(void **state)
{
	struct double_server s;
	struct stat st;

	(void)state;
	start(&s, &writable, CST_FS_DIRECT_IO, 0);
	umask(022);
	assert_int_equal(mkdir(in(&s, "dir"), 0777), 0);
	assert_log(&s, "mkdir 1 dir 755\n");
	assert_int_equal(mknod(in(&s, "plain"), S_IFREG | 0666, 0), 0);
	assert_log(&s, "mknod 1 plain 100644\n");
	assert_int_equal(symlink("away/there", in(&s, "sym")), 0);
	assert_log(&s, "symlink 1 sym away/there\n");
	assert_int_equal(unlink(in(&s, "hello")), 0);
	assert_log(&s, "unlink 1 hello\n");
	assert_int_equal(rmdir(in(&s, "many")), -1);
	assert_int_equal(errno, ENOTEMPTY);
	assert_log(&s, "rmdir 1 many\n");
	assert_int_equal(rename(in(&s, "big"), in(&s, "many/other")), 0);
	assert_log(&s, "rename 1 big 5 other 0\n");
	assert_int_equal(renameat2(AT_FDCWD, in(&s, "out"), AT_FDCWD, in(&s, "new"), RENAME_NOREPLACE), 0);
	assert_log(&s, "rename 1 out 1 new 1\n");
	assert_int_equal(link(in(&s, "out"), in(&s, "hard")), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(setxattr(in(&s, "out"), "user.a", "value", 5, XATTR_CREATE), 0);
	assert_log(&s, "setxattr 500000 user.a value 1\n");
	assert_int_equal(removexattr(in(&s, "out"), "user.a"), 0);
	assert_log(&s, "removexattr 500000 user.a\n");
	assert_int_equal(open(s.mnt, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), -1);
	assert_int_equal(errno, EOPNOTSUPP);
	assert_int_equal(stat(in(&s, "hello"), &st), 0);
	assert_int_equal(double_stop(&s), 0);
}

static void test_attributes(void **state)
{
	struct double_server s;
	struct timespec times[2] = {{1000, 5}, {2000000000, 123456789}}, now[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
	int fd;

	(void)state;
	start(&s, &writable, CST_FS_DIRECT_IO, 0);
	assert_int_equal(chmod(in(&s, "out"), 0640), 0);
	assert_log(&s, "setattr 500000 mode 640\n");
	assert_int_equal(chown(in(&s, "out"), 12, 34), 0);
	assert_log(&s, "setattr 500000 uid 12 gid 34\n");
	assert_int_equal(utimensat(AT_FDCWD, in(&s, "out"), times, 0), 0);
	assert_log(&s, "setattr 500000 atime 1000000000005 mtime 2000000000123456789\n");
	assert_int_equal(utimensat(AT_FDCWD, in(&s, "out"), now, 0), 0);
	assert_log(&s, "setattr 500000 atime -1\n");
	assert_int_equal(truncate(in(&s, "out"), 7), 0);
	assert_log(&s, "setattr 500000 size 7\n");
	fd = open(in(&s, "out"), O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 0), 0);
	close(fd);
	assert_log(&s, "open w\nsetattr 500000 size 0 fh 77\nflush 500000 77\n");
	assert_int_equal(double_stop(&s), 0);
}

/* What close(2) and fsync(2) return is what the file system said; readers' closes ask for nothing. */
static void test_create_and_close(void **state)
{
	struct double_server s;
	char text[8] = "";
	int fd;

	(void)state;
	start(&s, &writable, CST_FS_DIRECT_IO, 0);
	umask(027);
	fd = open(in(&s, "fresh"), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	assert_true(fd >= 0);
	assert_log(&s, "create 1 fresh 100640\n");
	assert_int_equal(write(fd, "12345", 5), 5);
	assert_int_equal(pread(fd, text, sizeof(text), 0), 5);
	assert_string_equal(text, "12345");
	assert_int_equal(fallocate(fd, 0, 0, 3), -1);
	assert_int_equal(errno, EOPNOTSUPP);
	assert_int_equal(lseek(fd, 0, SEEK_DATA), 0);
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(fdatasync(fd), 0);
	assert_int_equal(close(fd), 0);
	assert_log(&s, "fsync 500000 77\nfsync 500000 77 data\nflush 500000 77\n");
	fd = open(in(&s, "out"), O_WRONLY | O_TRUNC | O_CLOEXEC);
	assert_true(fd >= 0);
	s.board->fsync_rc = -EDQUOT;
	s.board->flush_rc = -ESTALE;
	assert_int_equal(fsync(fd), -1);
	assert_int_equal(errno, EDQUOT);
	assert_int_equal(close(fd), -1);
	assert_int_equal(errno, ESTALE);
	assert_log(&s, "open w trunc\nfsync 500000 77\nflush 500000 77\n");
	fd = open(in(&s, "out"), O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(close(fd), 0);
	assert_log(&s, "open r\n");
	assert_int_equal(double_stop(&s), 0);
}

static void fill(unsigned char *p, size_t len, uint64_t from)
{
	for (size_t i = 0; i < len; i++)
		p[i] = double_byte(from + i);
}

static void test_sizes(void **state)
{
	static const size_t sizes[] = {1, 4095, 16384, 16385, 65536, 1000001, 3 << 20};
	CST_AUTO_FREE unsigned char *buf = malloc(3 * MIB);
	struct double_server s;
	uint64_t at = 0;
	int fd;

	(void)state;
	start(&s, &writable, CST_FS_DIRECT_IO, 0);
	assert_int_equal(s.board->stats.max_write, MIB);
	fd = open(in(&s, "fresh"), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	assert_true(fd >= 0);
	for (size_t i = 0; i < CST_ARRAY_LEN(sizes); i++) {
		fill(buf, sizes[i], at);
		assert_int_equal(write(fd, buf, sizes[i]), sizes[i]);
		at += sizes[i];
	}
	assert_int_equal(close(fd), 0);
	assert_int_equal(s.board->out_size, at);
	for (uint64_t i = 0; i < at; i++)
		if (s.board->out[i] != double_byte(i))
			fail_msg("byte %llu", (unsigned long long)i);
	/* 3 MiB that begin anywhere in a page need one more page than three requests hold. */
	assert_in_range(s.board->writes, CST_ARRAY_LEN(sizes) - 1 + 3, CST_ARRAY_LEN(sizes) + 3);
	assert_in_range(s.board->write_max, MIB - 4096, MIB);
	assert_int_equal(double_stop(&s), 0);
}

#define WRITERS 24u
struct writer {
	pthread_t thread;
	int fd;
	unsigned number;
	ssize_t rc;
};
static size_t writer_len(unsigned number)
{
	return number % 3 == 0 ? 4000 : number % 3 == 1 ? 100000 : MIB / 2;
}
static void *writer_main(void *arg)
{
	struct writer *w = arg;
	size_t len = writer_len(w->number);
	CST_AUTO_FREE unsigned char *buf = malloc(len);

	fill(buf, len, w->number * (MIB / 2));
	w->rc = pwrite(w->fd, buf, len, (off_t)(w->number * (MIB / 2)));
	return NULL;
}

/* More WRITEs wait than there are readers: each keeps its bytes, and other requests are served meanwhile. */
static void test_waiting_writes_keep_their_bytes(void **state)
{
	struct double_server s;
	struct writer w[WRITERS];
	struct stat st;
	int fd;

	(void)state;
	start(&s, &writable, CST_FS_DIRECT_IO | CST_FS_PARALLEL_WRITES, WRITERS);
	fd = open(in(&s, "fresh"), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, DOUBLE_OUT_MAX), 0); /* writes beyond the end go one by one */
	for (unsigned i = 0; i < WRITERS; i++) {
		w[i] = (struct writer){.fd = fd, .number = i};
		if (i + 1 == WRITERS) {
			while (__atomic_load_n(&s.board->writes_waiting, __ATOMIC_SEQ_CST) < WRITERS - 1)
				usleep(1000);
			assert_int_equal(stat(in(&s, "hello"), &st), 0);
			assert_int_equal(stat(in(&s, "absent"), &st), -1);
		}
		assert_int_equal(pthread_create(&w[i].thread, NULL, writer_main, &w[i]), 0);
	}
	for (unsigned i = 0; i < WRITERS; i++) {
		pthread_join(w[i].thread, NULL);
		assert_int_equal(w[i].rc, writer_len(i));
		for (size_t k = 0; k < writer_len(i); k++)
			if (s.board->out[i * (MIB / 2) + k] != double_byte(i * (MIB / 2) + k))
				fail_msg("byte %zu of writer %u", k, i);
	}
	double_order(&s, ORDER_STATS);
	assert_in_range(s.board->buffers, 1, 16); /* the spare ones; no more are kept */
	assert_int_equal(close(fd), 0);
	assert_int_equal(double_stop(&s), 0);
}

/* Where nothing is written FLUSH and FSYNC are not asked for, and buffers are small. */
static void test_small_writes(void **state)
{
	struct fuse_config_of_test {
		struct cst_fuse_config c;
	} small = {writable};
	CST_AUTO_FREE unsigned char *buf = malloc(MIB);
	struct double_server s;
	int fd;

	(void)state;
	small.c.max_write = 128 << 10;
	start(&s, &small.c, CST_FS_DIRECT_IO, 0);
	assert_int_equal(s.board->stats.max_write, 128 << 10);
	fd = open(in(&s, "fresh"), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	assert_true(fd >= 0);
	fill(buf, MIB, 0);
	assert_int_equal(write(fd, buf, MIB), MIB);
	assert_int_equal(close(fd), 0);
	assert_in_range(s.board->write_max, (128 << 10) - 4096, 128 << 10);
	assert_memory_equal(s.board->out, buf, MIB);
	assert_int_equal(double_stop(&s), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_attributes),
		cmocka_unit_test(test_create_and_close),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_waiting_writes_keep_their_bytes),
		cmocka_unit_test(test_small_writes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
