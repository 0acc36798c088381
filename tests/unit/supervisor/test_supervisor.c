/* The process that keeps and the one that serves, without FUSE: the "device" is a pipe, and what serves is this program, told by its launch record
 * how to behave. */
#include "base/clock.h"
#include "base/log.h"
#include "supervisor/keeper.h"
#include "supervisor/outcome.h"
#include "supervisor/supervisor.h"
#include "supervisor/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <cmocka.h>

/* What both see: begins the launch record's file. */
struct board {
	char role[64];
	uint32_t starts, readies, mounts, unmounts, clones, stops, bad;
	uint32_t backing_opens, backing_closes;
	uint32_t value; /* what a process before left in the memory */
};

static struct board *board_of(int fd)
{
	struct board *b = mmap(NULL, sizeof(*b), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (b == MAP_FAILED)
		abort();
	return b;
}

static void add(uint32_t *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST);
}
static uint32_t get(const uint32_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_SEQ_CST);
}

/* ---- the process that serves ---- */

static int stop_pipe[2];
static struct board *board;

static void on_stop(void *arg)
{
	struct cst_keeper *keeper = arg;
	add(&board->stops);
	if (cst_keeper_unmount(keeper) != 0)
		add(&board->bad);
	(void)!write(stop_pipe[1], "s", 1);
}

static void on_leave(void *arg)
{
	(void)arg;
	_exit(0);
}

static void must(bool good)
{
	if (!good)
		add(&board->bad);
}

static void use_calls(struct cst_keeper *keeper)
{
	int clones[CST_KEEPER_CLONES], fd = memfd_create("x", MFD_CLOEXEC);
	must(cst_keeper_clones(keeper, 3, clones) == 3);
	must(fcntl(clones[2], F_GETFD) >= 0);
	must(cst_keeper_clones(keeper, 3, clones) == 3);
	int id = cst_keeper_backing_open(keeper, fd);
	must(id > 0);
	cst_keeper_backing_close(keeper, id);
	close(fd);
}

/* Each process leaves a record that the next one must find. */
static void use_memory(struct cst_keeper *keeper)
{
	struct cst_state *s = cst_keeper_state(keeper);
	struct cst_outcomes *o = cst_outcomes_new(s);
	char answer[CST_OUTCOME_MAX];
	size_t len;
	int rc;
	uint32_t epoch = cst_keeper_epoch(keeper);
	must(epoch == get(&board->starts));
	for (uint32_t i = 1; i < epoch; i++)
		must(cst_outcome_find(o, i * 2, &rc, answer, &len) && rc == -(int)i);
	cst_outcome_log(o, epoch * 2, -(int)epoch, NULL, 0);
	cst_outcomes_free(o);
}

static int serve(void)
{
	struct cst_error err = CST_ERROR_INIT;
	struct cst_keeper *keeper = cst_keeper_connect(&err);
	if (!keeper)
		return 9;
	board = board_of(cst_keeper_launch(keeper));
	add(&board->starts);
	const char *role = board->role;
	if (strcmp(role, "fails") == 0) {
		cst_error_set(&err, ENOENT, "no such bucket");
		cst_keeper_failed(keeper, &err);
		cst_keeper_free(keeper);
		return 1;
	}
	if (strcmp(role, "dies at start") == 0)
		_exit(7);
	int device = cst_keeper_device(keeper, &err);
	if (device < 0) {
		cst_keeper_failed(keeper, &err);
		cst_keeper_free(keeper);
		return 1;
	}
	must(pipe2(stop_pipe, O_CLOEXEC) == 0);
	struct cst_keeper_ops ops = {on_stop, on_leave, keeper};
	must(cst_keeper_start(keeper, &ops, &err) == 0);
	use_calls(keeper);
	use_memory(keeper);
	add(&board->readies);
	cst_keeper_ready(keeper);
	if (strcmp(role, "dies") == 0 && cst_keeper_epoch(keeper) < 4) {
		cst_sleep(300 * CST_NS_PER_MS);
		abort();
	}
	if (strcmp(role, "wishes to stop") == 0)
		must(cst_keeper_stop_wish(keeper) == 0);
	char c;
	must(read(stop_pipe[0], &c, 1) == 1);
	cst_keeper_end(keeper);
	cst_keeper_free(keeper);
	return 0;
}

/* ---- the process that keeps ---- */

static int fake_mount(void *arg, struct cst_state_header *h, struct cst_error *err)
{
	int ends[2];
	struct board *b = arg;
	if (strcmp(b->role, "can't mount") == 0) {
		cst_error_why(err, "%s", "");
		return cst_error_set(err, EPERM, "can't mount here");
	}
	add(&b->mounts);
	snprintf(h->mountpoint, sizeof(h->mountpoint), "%s", "/nowhere");
	if (pipe2(ends, O_CLOEXEC) != 0)
		return -errno;
	/* The other end stays open: a pipe without writers would say that it was unmounted. */
	return ends[0];
}

static int fake_unmount(void *arg, const struct cst_state_header *h)
{
	struct board *b = arg;
	add(&b->unmounts);
	return strcmp(h->mountpoint, "/nowhere") == 0 ? 0 : -EINVAL;
}

static int fake_clone(int device)
{
	return fcntl(device, F_DUPFD_CLOEXEC, 0);
}

static struct board *keeping;

static int fake_backing_open(int device, int fd)
{
	add(&keeping->backing_opens);
	return fcntl(device, F_GETFD) >= 0 && fcntl(fd, F_GETFD) >= 0 ? 5 : -EBADF;
}

static void fake_backing_close(int device, int backing)
{
	(void)device;
	if (backing == 5)
		add(&keeping->backing_closes);
}

static struct cst_supervisor_ops ops_of(struct board *b)
{
	return (struct cst_supervisor_ops){.mount = fake_mount,
					   .unmount = fake_unmount,
					   .clone = fake_clone,
					   .backing_open = fake_backing_open,
					   .backing_close = fake_backing_close,
					   .arg = b};
}

static int keep_again(void)
{
	struct cst_error err = CST_ERROR_INIT;
	static struct board none;
	keeping = &none;
	struct cst_supervisor_ops ops = ops_of(&none);
	return cst_supervisor_adopt(&ops, &err) == 0 ? 0 : 1;
}

struct fixture {
	int launch, memory;
	struct board *board;
	struct cst_state *state;
	pid_t keeper;
};

static void fixture_init(struct fixture *f, const char *role)
{
	f->launch = memfd_create("launch", MFD_CLOEXEC);
	assert_int_equal(ftruncate(f->launch, sizeof(struct board)), 0);
	f->board = board_of(f->launch);
	snprintf(f->board->role, sizeof(f->board->role), "%s", role);
	f->memory = cst_state_make(NULL);
	assert_true(f->memory >= 0);
	f->state = cst_state_open(f->memory, false, NULL);
	cst_state_header(f->state)->hang_timeout = 20 * CST_NS_PER_S;
}

static void fixture_fini(struct fixture *f)
{
	assert_int_equal(get(&f->board->bad), 0);
	munmap(f->board, sizeof(*f->board));
	cst_state_close(f->state);
	close(f->launch);
	close(f->memory);
}

static int run(struct fixture *f, struct cst_error *err)
{
	struct cst_supervisor_config config = {
		.mountpoint = "/nowhere", .launch = f->launch, .memory = f->memory, .ops = ops_of(f->board)};
	keeping = f->board;
	return cst_supervisor_run(&config, err);
}

static void start(struct fixture *f)
{
	f->keeper = fork();
	if (f->keeper == 0) {
		struct cst_error err = CST_ERROR_INIT;
		_exit(run(f, &err) == 0 ? 0 : 1);
	}
}

static void await(const uint32_t *counter, uint32_t value)
{
	for (int i = 0; i < 6000 && get(counter) < value; i++)
		cst_sleep(10 * CST_NS_PER_MS);
	assert_true(get(counter) >= value);
}

static int status_of(pid_t pid)
{
	int status = 0;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- tests ---- */

static void test_failed_start(void **state)
{
	(void)state;
	static const struct {
		const char *role, *what;
		int code;
	} cases[] = {{"fails", "no such bucket", ENOENT},
		     {"can't mount", "can't mount here", EPERM},
		     {"dies at start", "ended at start", EIO}};
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++) {
		struct fixture f;
		struct cst_error err = CST_ERROR_INIT;
		fixture_init(&f, cases[i].role);
		assert_int_equal(run(&f, &err), -cases[i].code);
		assert_non_null(strstr(err.what, cases[i].what));
		assert_int_equal(get(&f.board->starts), 1);
		fixture_fini(&f);
	}
}

static void test_served_and_stopped(void **state)
{
	struct fixture f;
	(void)state;
	fixture_init(&f, "serves");
	start(&f);
	await(&f.board->readies, 1);
	kill(f.keeper, SIGTERM);
	assert_int_equal(status_of(f.keeper), 0);
	assert_int_equal(get(&f.board->mounts), 1);
	assert_int_equal(get(&f.board->unmounts), 1);
	assert_int_equal(get(&f.board->backing_opens), 1);
	assert_int_equal(get(&f.board->backing_closes), 1);
	fixture_fini(&f);
}

static void test_wish(void **state)
{
	struct fixture f;
	(void)state;
	fixture_init(&f, "wishes to stop");
	start(&f);
	assert_int_equal(status_of(f.keeper), 0);
	assert_int_equal(get(&f.board->stops), 1);
	fixture_fini(&f);
}

static void test_started_again(void **state)
{
	struct fixture f;
	(void)state;
	fixture_init(&f, "dies");
	start(&f);
	await(&f.board->readies, 4);
	struct cst_state_header *h = cst_state_header(f.state);
	assert_int_equal(h->restarts, 3);
	assert_int_equal(h->epoch, 4);
	assert_non_null(strstr(h->died_of, "signal 6"));
	/* Killed in between: another one goes on. */
	kill(h->serving_pid, SIGKILL);
	await(&f.board->readies, 5);
	kill(f.keeper, SIGTERM);
	assert_int_equal(status_of(f.keeper), 0);
	assert_int_equal(get(&f.board->mounts), 1);
	fixture_fini(&f);
}

static void test_keeper_dies(void **state)
{
	struct fixture f;
	(void)state;
	fixture_init(&f, "serves");
	start(&f);
	await(&f.board->readies, 1);
	struct cst_state_header *h = cst_state_header(f.state);
	int32_t serving = h->serving_pid;
	for (uint32_t i = 1; i <= 3; i++) {
		pid_t keeper = h->supervisor_pid;
		kill(keeper, SIGKILL);
		if (i == 1)
			assert_int_equal(status_of(f.keeper), 128 + SIGKILL);
		for (int k = 0; k < 3000 && __atomic_load_n(&h->supervisor_pid, __ATOMIC_SEQ_CST) == keeper; k++)
			cst_sleep(10 * CST_NS_PER_MS);
		assert_int_not_equal(h->supervisor_pid, keeper);
		assert_int_equal(h->serving_pid, serving);
	}
	/* The last of them starts what serves again. */
	kill(serving, SIGKILL);
	await(&f.board->readies, 2);
	assert_int_equal(get(&f.board->mounts), 1);
	/* Unmounted by who took over: not our child, so its end is seen by its process. */
	pid_t keeper = h->supervisor_pid;
	kill(keeper, SIGTERM);
	await(&f.board->stops, 1);
	for (int k = 0; k < 3000 && kill(keeper, 0) == 0; k++) {
		char path[64], text[256] = "";
		snprintf(path, sizeof(path), "/proc/%d/stat", (int)keeper);
		FILE *file = fopen(path, "re");
		if (!file || !fgets(text, sizeof(text), file) || strstr(text, ") Z ")) {
			if (file)
				fclose(file);
			break;
		}
		fclose(file);
		cst_sleep(10 * CST_NS_PER_MS);
		assert_true(k < 2999);
	}
	fixture_fini(&f);
}

static void test_hang(void **state)
{
	struct fixture f;
	(void)state;
	fixture_init(&f, "serves");
	struct cst_state_header *h = cst_state_header(f.state);
	h->hang_timeout = 500 * CST_NS_PER_MS;
	start(&f);
	await(&f.board->readies, 1);
	/* Nothing ticks here, so nothing hangs; then something is busy for too long. */
	cst_sleep(CST_NS_PER_S);
	assert_int_equal(h->restarts, 0);
	struct cst_beat *beat = cst_beat_take(h, CST_BEAT_WORKS, "reader");
	cst_beat_set(beat, cst_now());
	await(&f.board->readies, 2);
	assert_int_equal(h->hangs, 1);
	assert_string_equal(h->died_of, "no sign of life");
	kill(f.keeper, SIGTERM);
	assert_int_equal(status_of(f.keeper), 0);
	fixture_fini(&f);
}

static void test_wire(void **state)
{
	struct cst_wire *m = cst_xmalloc(sizeof(*m));
	int pair[2], fds[70];
	(void)state;
	assert_int_equal(cst_wire_pair(pair), 0);
	assert_int_equal(cst_wire_receive(pair[0], m, 0), -EAGAIN);
	for (unsigned i = 0; i < 70; i++)
		fds[i] = fcntl(pair[0], F_DUPFD_CLOEXEC, 0);
	assert_int_equal(cst_wire_send(pair[1], CST_WIRE_REPLY, 7, -3, "data", 4, fds, 70), 0);
	assert_int_equal(cst_wire_receive(pair[0], m, 0), 0);
	assert_int_equal(m->type, CST_WIRE_REPLY);
	assert_int_equal(m->serial, 7);
	assert_int_equal(m->rc, -3);
	assert_int_equal(m->len, 4);
	assert_memory_equal(m->data, "data", 4);
	assert_int_equal(m->fd_count, 70);
	assert_int_equal(cst_wire_take_fd(m, 70), -1);
	int taken = cst_wire_take_fd(m, 69);
	assert_true(fcntl(taken, F_GETFD) == FD_CLOEXEC);
	int dropped = m->fds[0];
	cst_wire_drop(m);
	assert_int_equal(fcntl(dropped, F_GETFD), -1);
	assert_true(fcntl(taken, F_GETFD) >= 0);
	close(taken);
	/* Not one of ours. */
	assert_int_equal(write(pair[1], "short", 5), 5);
	assert_int_equal(cst_wire_receive(pair[0], m, 0), -EPROTO);
	close(pair[1]);
	assert_int_equal(cst_wire_receive(pair[0], m, 0), -EPIPE);
	for (unsigned i = 0; i < 70; i++)
		close(fds[i]);
	close(pair[0]);
	free(m);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wire),
		cmocka_unit_test(test_failed_start),
		cmocka_unit_test(test_served_and_stopped),
		cmocka_unit_test(test_wish),
		cmocka_unit_test(test_started_again),
		cmocka_unit_test(test_keeper_dies),
		cmocka_unit_test(test_hang),
	};
	if (argc == 3 && strcmp(argv[0], CST_KEEPER_ARGV0) == 0)
		return strcmp(argv[1], CST_KEEPER_SERVES) == 0 ? serve() : keep_again();
	cst_log_set_level(CST_LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
