/* Volumes in several processes: this program starts itself again as "--process DIR", which does one command a line and answers each with a line.
 * A process is killed at any moment; what the others read is right or absent. */
#include "volume_fixture.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <cmocka.h>

#define LARGE ((UINT64_C(1) << 20) + 5000)
#define LARGE_BLOCKS 9
#define KILLS 32
#define SMALL_DISK 12345678 /* this quota: on a file system of 4 MiB */
#define NOT_ALLOWED 77

/* ---- the process ---- */

#define HANDLES 64
#define CLOSES 12000 /* more than a socket and the queue behind it take */
static struct {
	struct cst_volume *volume;
	struct call calls[HANDLES];
	struct cst_extent kept;
	struct cst_volume_handle *many[CLOSES];
} self;

/* Fills object after object until it is killed. */
static _Noreturn void fill_for_ever(const char *prefix)
{
	for (unsigned i = 0;; i++) {
		char key[64];
		snprintf(key, sizeof(key), "%s-%u", prefix, i % 40);
		if (i % 3 == 0) {
			struct call c = put_small(self.volume, key, 20000, 0);
			if (c.rc == 0)
				cst_volume_entry_close(c.handle);
			continue;
		}
		struct call c = entry_open(self.volume, key, LARGE, CST_VOLUME_CREATE);
		if (c.rc < 0)
			continue;
		if (fill_all(self.volume, &c, key, LARGE) == 0 && i % 2)
			complete(c.handle, true);
		if (i % 5 == 0)
			cst_volume_drop_entry(c.handle);
		cst_volume_entry_close(c.handle);
	}
}

/* How many blocks are there; -ENOENT. -EBADE: it is said to be complete and is not. Between the death of an owner and our return to the next one
 * the entry may be dropped and made anew, so it must be found like that three times. */
static int64_t check_extent(const char *key)
{
	int64_t there = -ENOENT;
	for (int i = 0; i < 3; i++) {
		struct call c = entry_open(self.volume, key, LARGE, 0);
		if (c.rc < 0)
			return c.rc;
		there = check(self.volume, key, LARGE);
		cst_volume_entry_close(c.handle);
		if (there == -EILSEQ || !c.entry.complete || there == LARGE_BLOCKS)
			return there;
	}
	return -EBADE;
}

/* Everything that the owner knows by these names: how many blocks and slots are there. -EILSEQ: wrong bytes. */
static int64_t check_everything(const char *prefix)
{
	int64_t sum = 0;
	for (unsigned i = 0; i < 40; i++) {
		char key[64];
		snprintf(key, sizeof(key), "%s-%u", prefix, i);
		int64_t there = check_extent(key);
		if (there == -EILSEQ || there == -EBADE)
			return there;
		sum += cst_max(there, 0);
		struct call c = entry_open(self.volume, key, 20000, 0);
		if (c.rc == 0) {
			there = check_slot(self.volume, &c, key, 20000);
			cst_volume_entry_close(c.handle);
			if (there == -EILSEQ)
				return there;
			sum += cst_max(there, 0);
		}
	}
	return sum;
}

static int64_t keep(const char *key)
{
	struct cst_cache_identity id;
	identify(&id, key, LARGE);
	return cst_extent_open(cst_volume_dir(self.volume), &id, false, &self.kept);
}

/* The kept descriptor, block by block; how many are right. */
static int64_t check_kept(void)
{
	uint8_t *bytes = cst_xmalloc(CST_CACHE_BLOCK);
	int64_t good = 0;
	for (uint64_t b = 0; b < LARGE_BLOCKS; b++) {
		uint64_t bad;
		struct iovec iov = {bytes, (size_t)cst_min((uint64_t)CST_CACHE_BLOCK, LARGE - b * CST_CACHE_BLOCK)};
		good += cst_extent_read(&self.kept, b, &iov, 1, false, &bad) == 0;
	}
	free(bytes);
	return good;
}

static int64_t open_many(const char *key, uint64_t size)
{
	for (int i = 0; i < CLOSES; i++) {
		struct call c = entry_open(self.volume, key, size, 0);
		if (c.rc < 0)
			return c.rc;
		self.many[i] = c.handle;
	}
	return 0;
}

static int64_t close_many(void)
{
	for (int i = 0; i < CLOSES; i++)
		cst_volume_entry_close(self.many[i]);
	return 0;
}

static int64_t usage(const char *what)
{
	struct cst_index_stats stats;
	int rc = cst_volume_stats(self.volume, &stats);
	if (rc < 0)
		return rc;
	return (int64_t)(what[0] == 'u' ? stats.used : what[0] == 'e' ? stats.evicted : stats.in_use);
}

static int64_t run(const char *command, const char *key, unsigned h, uint64_t number)
{
	struct call *c = &self.calls[h % HANDLES];
	if (strcmp(command, "owner") == 0)
		return cst_volume_is_owner(self.volume);
	if (strcmp(command, "create") == 0)
		return (*c = entry_open(self.volume, key, LARGE, CST_VOLUME_CREATE)).rc;
	if (strcmp(command, "find") == 0)
		return (*c = entry_open(self.volume, key, number, 0)).rc;
	if (strcmp(command, "put") == 0)
		return (*c = put_small(self.volume, key, number, 0)).rc;
	if (strcmp(command, "fill") == 0)
		return fill(self.volume, c, key, LARGE, number / 100, number % 100);
	if (strcmp(command, "charge") == 0)
		return charge(c->handle, (int64_t)number);
	if (strcmp(command, "complete") == 0)
		return complete(c->handle, true);
	if (strcmp(command, "check") == 0)
		return check(self.volume, key, LARGE);
	if (strcmp(command, "slot") == 0)
		return check_slot(self.volume, c, key, number);
	if (strcmp(command, "keep") == 0)
		return keep(key);
	if (strcmp(command, "kept") == 0)
		return check_kept();
	if (strcmp(command, "open-many") == 0)
		return open_many(key, number);
	if (strcmp(command, "close-many") == 0)
		return close_many();
	if (strcmp(command, "storm") == 0)
		fill_for_ever(key);
	if (strcmp(command, "all") == 0)
		return check_everything(key);
	if (strcmp(command, "stats") == 0)
		return usage(key);
	if (strcmp(command, "close") == 0) {
		cst_volume_entry_close(c->handle);
		c->handle = NULL;
		return 0;
	}
	return -ENOSYS;
}

/* A file system of its own that is soon full. */
static int mount_small(const char *path)
{
	return unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
			       mount("small", path, "tmpfs", 0, "size=4m,mode=0700") < 0
		       ? -errno
		       : 0;
}

static int process(const char *path, uint64_t quota)
{
	char line[256];
	if (quota == SMALL_DISK && mount_small(path) < 0)
		return NOT_ALLOWED;
	/* It must not outlive a test that failed. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	self.volume = volume_at(path, quota, NULL);
	if (!self.volume)
		return 1;
	printf("%d\n", cst_volume_is_owner(self.volume));
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		char command[32] = "", key[64] = "";
		unsigned h = 0;
		uint64_t number = 0;
		if (sscanf(line, "%31s %63s %u %" SCNu64, command, key, &h, &number) < 1)
			return 1;
		if (strcmp(command, "quit") == 0)
			break;
		printf("%" PRId64 "\n", run(command, key, h, number));
		fflush(stdout);
	}
	for (int i = 0; i < HANDLES; i++)
		cst_volume_entry_close(self.calls[i].handle);
	cst_volume_close(self.volume);
	printf("0\n");
	return 0;
}

/* ---- the test's side ---- */

struct process {
	pid_t pid;
	FILE *to, *from;
};
struct fixture {
	char path[64];
};

static int setup(void **state)
{
	struct fixture *f = CST_NEW(struct fixture);
	snprintf(f->path, sizeof(f->path), "/tmp/cst-processes-XXXXXX");
	assert_non_null(mkdtemp(f->path));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_FREE char *command = cst_xasprintf("rm -rf %s", f->path);
	free(f);
	return system(command);
}

/* Without waiting until it has opened the volume. */
static struct process launch(const char *path, uint64_t quota)
{
	int to[2], from[2];
	char number[24];
	struct process p;
	snprintf(number, sizeof(number), "%" PRIu64, quota);
	assert_int_equal(pipe2(to, O_CLOEXEC), 0);
	assert_int_equal(pipe2(from, O_CLOEXEC), 0);
	p.pid = fork();
	assert_true(p.pid >= 0);
	if (p.pid == 0) {
		dup2(to[0], STDIN_FILENO);
		dup2(from[1], STDOUT_FILENO);
		execl("/proc/self/exe", "process", "--process", path, number, (char *)NULL);
		_exit(127);
	}
	close(to[0]);
	close(from[1]);
	p.to = fdopen(to[1], "w");
	p.from = fdopen(from[0], "r");
	return p;
}

static int64_t answer(struct process *p)
{
	char line[64];
	if (!fgets(line, sizeof(line), p->from))
		fail_msg("a process ended before its answer");
	return strtoll(line, NULL, 10);
}

static struct process start(const char *path)
{
	struct process p = launch(path, QUOTA);
	answer(&p);
	return p;
}

static void send_command(struct process *p, const char *command, const char *key, unsigned h, uint64_t number)
{
	fprintf(p->to, "%s %s %u %" PRIu64 "\n", command, key, h, number);
	fflush(p->to);
}

static int64_t ask(struct process *p, const char *command, const char *key, unsigned h, uint64_t number)
{
	send_command(p, command, key, h, number);
	return answer(p);
}

static void reap(struct process *p, int expected)
{
	int status;
	fclose(p->to);
	fclose(p->from);
	assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
	assert_int_equal(status, expected);
}

static void stop(struct process *p)
{
	assert_int_equal(ask(p, "quit", "", 0, 0), 0);
	reap(p, 0);
}

static void kill_now(struct process *p)
{
	assert_int_equal(kill(p->pid, SIGKILL), 0);
	reap(p, SIGKILL);
}

#define WAIT_UNTIL(condition)                         \
	do {                                          \
		while (!(condition))                  \
			cst_sleep(2 * CST_NS_PER_MS); \
	} while (0)

/* ---- tests ---- */

static void processes_see_each_others_entries(void **state)
{
	struct fixture *f = *state;
	struct process a = start(f->path), b = start(f->path), c = start(f->path);
	assert_int_equal(ask(&a, "owner", "", 0, 0) + ask(&b, "owner", "", 0, 0) + ask(&c, "owner", "", 0, 0), 1);
	assert_int_equal(ask(&b, "create", "k", 0, 0), 0);
	assert_int_equal(ask(&b, "fill", "k", 0, LARGE_BLOCKS), 0);
	assert_int_equal(ask(&c, "find", "k", 0, LARGE), 0);
	assert_int_equal(ask(&c, "check", "k", 0, 0), LARGE_BLOCKS);
	assert_int_equal(ask(&c, "complete", "k", 0, 0), 0);
	assert_int_equal(ask(&c, "put", "s", 1, 999), 0);
	assert_int_equal(ask(&a, "find", "s", 1, 999), 0);
	assert_int_equal(ask(&a, "slot", "s", 1, 999), 1);
	/* A change of owner in between. */
	stop(&a);
	assert_int_equal(ask(&b, "check", "k", 0, 0), LARGE_BLOCKS);
	WAIT_UNTIL(ask(&b, "put", "t", 2, 10) == 0);
	WAIT_UNTIL(ask(&c, "find", "t", 2, 10) == 0);
	stop(&b);
	WAIT_UNTIL(ask(&c, "owner", "", 0, 0));
	/* What c has open is all that is in use. */
	assert_int_equal(ask(&c, "stats", "in", 0, 0), 3);
	kill_now(&c);
}

/* The owner dies while all fill; the next one goes on, and so do handles. */
static void killing_owners(void **state)
{
	struct fixture *f = *state;
	struct process watcher = start(f->path), storm[2];
	int64_t most = 0;
	assert_int_equal(ask(&watcher, "create", "mine", 0, 0), 0);
	assert_int_equal(ask(&watcher, "fill", "mine", 0, LARGE_BLOCKS), 0);
	assert_int_equal(ask(&watcher, "complete", "mine", 0, 0), 0);
	assert_int_equal(ask(&watcher, "keep", "mine", 0, 0), 0);
	for (int i = 0; i < 2; i++) {
		storm[i] = start(f->path);
		send_command(&storm[i], "storm", "object", 0, 0);
	}
	kill_now(&watcher);
	watcher = start(f->path);
	assert_int_equal(ask(&watcher, "find", "mine", 0, LARGE), 0);
	for (int round = 0; round < KILLS; round++) {
		struct process *victim = &storm[round % 2];
		/* Some die at once, some in the middle. */
		cst_sleep((round % 7) * 20 * CST_NS_PER_MS);
		kill_now(victim);
		*victim = launch(f->path, QUOTA);
		send_command(victim, "storm", "object", 0, 0);
		int64_t there = ask(&watcher, "all", "object", 0, 0);
		if (there < 0)
			fail_msg("round %d: %d", round, (int)there);
		most = cst_max(most, there);
		assert_int_equal(ask(&watcher, "check", "mine", 0, 0), LARGE_BLOCKS);
	}
	/* Something was there to check. */
	assert_true(most > 20);
	kill_now(&storm[0]);
	kill_now(&storm[1]);
	WAIT_UNTIL(ask(&watcher, "owner", "", 0, 0));
	WAIT_UNTIL(ask(&watcher, "stats", "in", 0, 0) == 1);
	int64_t there = ask(&watcher, "all", "object", 0, 0);
	assert_true(there >= 0);
	/* All that was reserved by the dead is free again: the log and the files agree after a clean start. */
	stop(&watcher);
	watcher = start(f->path);
	assert_int_equal(ask(&watcher, "all", "object", 0, 0), there);
	assert_int_equal(ask(&watcher, "find", "mine", 0, LARGE), 0);
	kill_now(&watcher);
}

/* As the only process, again and again: what a restart finds is right. */
static void killing_the_only_one(void **state)
{
	struct fixture *f = *state;
	int64_t last = 0;
	for (int round = 0; round < KILLS; round++) {
		struct process p = start(f->path);
		last = ask(&p, "all", "object", 0, 0);
		if (last < 0)
			fail_msg("round %d: %d", round, (int)last);
		send_command(&p, "storm", "object", 0, 0);
		cst_sleep((5 + round % 5 * 25) * CST_NS_PER_MS);
		kill_now(&p);
	}
	/* The cache is still of use. */
	assert_true(last > 20);
}

static void a_killed_client_gives_everything_back(void **state)
{
	struct fixture *f = *state;
	struct process a = start(f->path), b = start(f->path);
	assert_int_equal(ask(&a, "owner", "", 0, 0), 1);
	assert_int_equal(ask(&b, "create", "k", 0, 0), 0);
	int64_t empty = ask(&a, "stats", "used", 0, 0);
	assert_int_equal(ask(&b, "fill", "k", 0, 2), 0);
	int64_t written = ask(&a, "stats", "used", 0, 0);
	assert_int_equal(written, empty + 2 * CST_CACHE_BLOCK);
	assert_int_equal(ask(&b, "charge", "k", 0, 5 * CST_CACHE_BLOCK), 0);
	assert_int_equal(ask(&a, "stats", "used", 0, 0), written + 5 * CST_CACHE_BLOCK);
	assert_int_equal(ask(&a, "stats", "in", 0, 0), 1);
	kill_now(&b);
	WAIT_UNTIL(ask(&a, "stats", "in", 0, 0) == 0);
	assert_int_equal(ask(&a, "stats", "used", 0, 0), written);
	stop(&a);
}

/* A small quota that the owner must evict for: never what the client has open. */
static void what_others_use_is_not_evicted(void **state)
{
	struct fixture *f = *state;
	const uint64_t quota = 24 << 20;
	struct process a = launch(f->path, quota), b;
	answer(&a);
	b = launch(f->path, 10 * quota);
	answer(&b);
	assert_int_equal(ask(&b, "create", "mine", 0, 0), 0);
	assert_int_equal(ask(&b, "fill", "mine", 0, LARGE_BLOCKS), 0);
	assert_int_equal(ask(&b, "keep", "mine", 0, 0), 0);
	for (unsigned i = 0; i < 60; i++) {
		char key[16];
		snprintf(key, sizeof(key), "k%u", i);
		struct process *p = i % 2 ? &a : &b;
		assert_int_equal(ask(p, "create", key, 1, 0), 0);
		assert_int_equal(ask(p, "fill", key, 1, LARGE_BLOCKS), 0);
		assert_int_equal(ask(p, "close", key, 1, 0), 0);
	}
	assert_true(ask(&b, "stats", "evicted", 0, 0) > 20);
	assert_true(ask(&b, "stats", "used", 0, 0) <= (int64_t)quota);
	assert_int_equal(ask(&a, "check", "mine", 0, 0), LARGE_BLOCKS);
	assert_int_equal(ask(&b, "kept", "mine", 0, 0), LARGE_BLOCKS);
	assert_int_equal(ask(&a, "find", "mine", 2, LARGE), 0);
	stop(&a);
	kill_now(&b);
}

/* Fills a disk to the last byte: refused, nothing wrong, and the volume goes on. */
static void a_full_disk_is_no_failure(void **state)
{
	struct fixture *f = *state;
	struct process a = launch(f->path, SMALL_DISK);
	char line[16];
	if (!fgets(line, sizeof(line), a.from)) {
		reap(&a, NOT_ALLOWED << 8);
		skip();
	}
	int refused = 0;
	for (unsigned i = 0; i < 6; i++) {
		char key[16], small[16];
		snprintf(key, sizeof(key), "object-%u", i);
		snprintf(small, sizeof(small), "small-%u", i);
		int64_t rc = ask(&a, "create", key, i, 0);
		if (rc == 0)
			rc = ask(&a, "fill", key, i, LARGE_BLOCKS);
		assert_true(rc == 0 || rc == -ENOSPC);
		refused += rc == -ENOSPC;
		if (rc == 0)
			assert_int_equal(ask(&a, "complete", key, i, 0), 0);
		rc = ask(&a, "put", small, 10 + i, 200000);
		assert_true(rc == 0 || rc == -ENOSPC);
		refused += rc == -ENOSPC;
	}
	assert_true(refused > 0);
	assert_true(ask(&a, "all", "object", 0, 0) >= LARGE_BLOCKS);
	for (unsigned i = 0; i < 20; i++)
		ask(&a, "close", "", i, 0);
	assert_int_equal(ask(&a, "owner", "", 0, 0), 1);
	stop(&a);
}

/* An owner that is stopped holds nobody up, and is the owner again when it goes on. */
static void a_stopped_owner_is_left_alone(void **state)
{
	struct fixture *f = *state;
	struct process a = start(f->path), b = start(f->path);
	assert_int_equal(ask(&b, "create", "k", 0, 0), 0);
	assert_int_equal(ask(&b, "fill", "k", 0, LARGE_BLOCKS), 0);
	assert_int_equal(kill(a.pid, SIGSTOP), 0);
	WAIT_UNTIL(ask(&b, "put", "s", 1, 100) == -EAGAIN);
	assert_int_equal(ask(&b, "owner", "", 0, 0), 0);
	assert_int_equal(ask(&b, "check", "k", 0, 0), LARGE_BLOCKS);
	assert_int_equal(kill(a.pid, SIGCONT), 0);
	WAIT_UNTIL(ask(&b, "put", "s", 1, 100) == 0);
	/* Its handle comes back to life. */
	WAIT_UNTIL(ask(&b, "complete", "k", 0, 0) == 0);
	assert_int_equal(ask(&a, "find", "k", 0, LARGE), 0);
	kill_now(&a);
	kill_now(&b);
}

/* It doesn't take its packets for a while; none of them is lost that gives something up. */
static void a_slow_owner_hears_of_all_closes(void **state)
{
	struct fixture *f = *state;
	struct process a = start(f->path), b = start(f->path);
	assert_int_equal(ask(&b, "put", "k", 0, 100), 0);
	assert_int_equal(ask(&b, "open-many", "k", 0, 100), 0);
	assert_int_equal(ask(&b, "close", "k", 0, 0), 0);
	assert_int_equal(ask(&a, "stats", "in", 0, 0), 1);
	assert_int_equal(kill(a.pid, SIGSTOP), 0);
	assert_int_equal(ask(&b, "close-many", "", 0, 0), 0);
	assert_int_equal(kill(a.pid, SIGCONT), 0);
	/* The answer comes after all that was sent before. */
	WAIT_UNTIL(ask(&b, "find", "none", 1, 100) == -ENOENT);
	assert_int_equal(ask(&a, "stats", "in", 0, 0), 0);
	stop(&b);
	stop(&a);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(processes_see_each_others_entries),
		TEST(killing_owners),
		TEST(killing_the_only_one),
		TEST(a_killed_client_gives_everything_back),
		TEST(what_others_use_is_not_evicted),
		TEST(a_full_disk_is_no_failure),
		TEST(a_stopped_owner_is_left_alone),
		TEST(a_slow_owner_hears_of_all_closes),
	};
	if (argc == 4 && strcmp(argv[1], "--process") == 0)
		return process(argv[2], strtoull(argv[3], NULL, 10));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
