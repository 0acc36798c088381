#include "supervisor/keeper.h"

#define CST_LOG_AREA "supervisor"
#include "base/clock.h"
#include "base/log.h"
#include "base/pool.h"
#include "supervisor/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define WELCOME_MS 10000
#define CALL_MS 10000
#define BACKING_MS 2000
#define MOUNT_MS 120000
#define RETRY_MAX (30 * CST_NS_PER_S)
#define LIVED_LONG (10 * CST_NS_PER_S)

struct cst_keeper {
	unsigned magic;
	pthread_mutex_t lock; /* calls; `calls` changes under it alone */
	int calls;	      /* -1: nobody keeps us */
	int events;	      /* the thread's */
	uint32_t serial;
	int launch, memory;
	int devices[CST_KEEPER_CLONES + 1]; /* the first, and the clones */
	unsigned device_count;
	struct cst_state *state;       /* whole; NULL while standing by */
	struct cst_state *header_only; /* while standing by */
	struct cst_state_header *header;
	uint32_t epoch;
	bool restarted, stands_by;
	bool ready; /* atomic */
	bool over;  /* atomic: the supervisor may go */
	struct cst_keeper_ops ops;
	unsigned long thread;
	bool started;
	int wake; /* write end of a pipe that ends the thread */
	int woken;
	pid_t successor; /* the supervisor that we started: ours to wait for */
};
#define KEEPER_MAGIC 0x4ee9e501u

/* ---- being started ---- */

static void take_devices(struct cst_keeper *k, struct cst_wire *m, unsigned from)
{
	for (unsigned i = from; i < m->fd_count && k->device_count < CST_ARRAY_LEN(k->devices); i++)
		k->devices[k->device_count++] = cst_wire_take_fd(m, i);
}

static int open_memory(struct cst_keeper *k, bool whole, struct cst_error *err)
{
	struct cst_state *state = cst_state_open(k->memory, whole, err);
	if (!state)
		return err && err->code ? -err->code : -EPROTO;
	*(whole ? &k->state : &k->header_only) = state;
	k->header = cst_state_header(state);
	k->epoch = k->header->epoch;
	return 0;
}

static int welcome(struct cst_keeper *k, struct cst_error *err)
{
	CST_AUTO_FREE struct cst_wire *m = cst_xmalloc(sizeof(*m));
	int rc = cst_wire_receive(k->events, m, WELCOME_MS);
	if (rc == 0 && (m->type != CST_WIRE_WELCOME || m->fd_count < 2)) {
		cst_wire_drop(m);
		rc = -EPROTO;
	}
	if (rc != 0) {
		cst_error_set(err, -rc, "can't serve a mount");
		cst_error_why(err, "this process was not started by a supervisor: %s", strerror(-rc));
		return rc;
	}
	k->stands_by = m->rc == 1;
	k->launch = cst_wire_take_fd(m, 0);
	k->memory = cst_wire_take_fd(m, 1);
	take_devices(k, m, 2);
	cst_wire_drop(m);
	k->restarted = k->stands_by || k->device_count > 0;
	return open_memory(k, !k->stands_by, err);
}

struct cst_keeper *cst_keeper_connect(struct cst_error *err)
{
	struct cst_keeper *k = CST_NEW(struct cst_keeper);
	k->magic = KEEPER_MAGIC;
	k->calls = CST_KEEPER_CALLS_FD;
	k->events = CST_KEEPER_EVENTS_FD;
	k->launch = k->memory = k->wake = k->woken = -1;
	pthread_mutex_init(&k->lock, NULL);
	fcntl(k->calls, F_SETFD, FD_CLOEXEC);
	fcntl(k->events, F_SETFD, FD_CLOEXEC);
	if (welcome(k, err) == 0)
		return k;
	if (k->launch >= 0) /* somebody listens */
		cst_keeper_failed(k, err);
	cst_keeper_free(k);
	return NULL;
}

int cst_keeper_stand_by(struct cst_keeper *k, struct cst_error *err)
{
	CST_AUTO_FREE struct cst_wire *m = cst_xmalloc(sizeof(*m));
	CST_CHECK(k, KEEPER_MAGIC);
	int rc = cst_wire_send(k->calls, CST_WIRE_STANDS_BY, 0, 0, NULL, 0, NULL, 0);
	if (rc == 0)
		rc = cst_wire_receive(k->events, m, -1);
	if (rc == 0 && m->type != CST_WIRE_GO) {
		cst_wire_drop(m);
		rc = -ECANCELED;
	}
	if (rc != 0) {
		cst_error_set(err, -rc, "can't take over the mount");
		cst_error_why(err, "%s", rc == -ECANCELED ? "it is ending" : strerror(-rc));
		return rc;
	}
	take_devices(k, m, 0);
	cst_wire_drop(m);
	cst_state_close(k->header_only);
	k->header_only = NULL;
	k->stands_by = false;
	return open_memory(k, true, err);
}

void cst_keeper_silence(struct cst_keeper *k)
{
	CST_CHECK(k, KEEPER_MAGIC);
	__atomic_store_n(&k->over, true, __ATOMIC_RELEASE);
	if (!k->started)
		return;
	(void)!write(k->wake, "", 1);
	pthread_join((pthread_t)k->thread, NULL);
	k->started = false;
}

void cst_keeper_free(struct cst_keeper *k)
{
	if (!k)
		return;
	cst_keeper_silence(k);
	int fds[] = {k->calls, k->events, k->launch, k->memory, k->wake, k->woken};
	for (size_t i = 0; i < CST_ARRAY_LEN(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	for (unsigned i = 0; i < k->device_count; i++)
		close(k->devices[i]);
	cst_state_close(k->state);
	cst_state_close(k->header_only);
	pthread_mutex_destroy(&k->lock);
	k->magic = 0;
	free(k);
}

struct cst_state *cst_keeper_state(const struct cst_keeper *k)
{
	return k->state;
}
struct cst_state_header *cst_keeper_header(const struct cst_keeper *k)
{
	return k->header;
}
int cst_keeper_launch(const struct cst_keeper *k)
{
	return k->launch;
}
uint32_t cst_keeper_epoch(const struct cst_keeper *k)
{
	return k->epoch;
}
bool cst_keeper_restarted(const struct cst_keeper *k)
{
	return k->restarted;
}
bool cst_keeper_stands_by(const struct cst_keeper *k)
{
	return k->stands_by;
}

/* ---- calls ---- */

/* The reply is in *m; 0 or -errno. */
static int call(struct cst_keeper *k, uint32_t type, const void *data, size_t len, int fd, int ms, struct cst_wire *m)
{
	int64_t end = cst_now() + ms * CST_NS_PER_MS;
	CST_CHECK(k, KEEPER_MAGIC);
	pthread_mutex_lock(&k->lock);
	uint32_t serial = ++k->serial;
	int rc = k->calls < 0 ? -EPIPE : cst_wire_send(k->calls, type, serial, 0, data, len, &fd, fd >= 0 ? 1 : 0);
	while (rc == 0) {
		int64_t left = (end - cst_now()) / CST_NS_PER_MS;
		rc = left <= 0 ? -ETIMEDOUT : cst_wire_receive(k->calls, m, (int)left);
		if (rc == -EAGAIN)
			rc = -ETIMEDOUT;
		if (rc != 0 || (m->type == CST_WIRE_REPLY && m->serial == serial))
			break;
		/* An answer that came too late for who asked. */
		cst_wire_drop(m);
	}
	pthread_mutex_unlock(&k->lock);
	return rc;
}

static int simple_call(struct cst_keeper *k, uint32_t type, const void *data, size_t len, int fd, int ms)
{
	CST_AUTO_FREE struct cst_wire *m = cst_xmalloc(sizeof(*m));
	int rc = call(k, type, data, len, fd, ms, m);
	if (rc != 0)
		return rc;
	cst_wire_drop(m);
	return m->rc;
}

static int tell(struct cst_keeper *k, uint32_t type, const void *data, size_t len)
{
	CST_CHECK(k, KEEPER_MAGIC);
	pthread_mutex_lock(&k->lock);
	int rc = k->calls < 0 ? -EPIPE : cst_wire_send(k->calls, type, 0, 0, data, len, NULL, 0);
	pthread_mutex_unlock(&k->lock);
	return rc;
}

static void call_failed(struct cst_error *err, int rc, const char *what)
{
	cst_error_set(err, -rc, "%s", what);
	cst_error_why(err, "%s", rc == -EPIPE ? "the supervisor has gone" : strerror(-rc));
}

int cst_keeper_device(struct cst_keeper *k, struct cst_error *err)
{
	CST_AUTO_FREE struct cst_wire *m = cst_xmalloc(sizeof(*m));
	if (k->device_count > 0)
		return k->devices[0];
	int rc = call(k, CST_WIRE_MOUNT, NULL, 0, -1, MOUNT_MS, m);
	if (rc != 0) {
		call_failed(err, rc, "can't mount");
		return rc;
	}
	if (m->rc == 0 && m->fd_count == 1) {
		take_devices(k, m, 0);
		return k->devices[0];
	}
	cst_wire_drop(m);
	rc = m->rc ? m->rc : -EPROTO;
	if (m->len == sizeof(struct cst_error) && err)
		memcpy(err, m->data, sizeof(*err));
	else
		call_failed(err, rc, "can't mount");
	return rc;
}

unsigned cst_keeper_clones(struct cst_keeper *k, unsigned wanted, int fds[CST_KEEPER_CLONES])
{
	CST_AUTO_FREE struct cst_wire *m = cst_xmalloc(sizeof(*m));
	uint32_t count = cst_min(wanted, CST_KEEPER_CLONES);
	if (k->device_count == 1 && count > 0 && call(k, CST_WIRE_CLONES, &count, sizeof(count), -1, CALL_MS, m) == 0) {
		take_devices(k, m, 0);
		cst_wire_drop(m);
	}
	for (unsigned i = 1; i < k->device_count; i++)
		fds[i - 1] = k->devices[i];
	return k->device_count ? k->device_count - 1 : 0;
}

int cst_keeper_backing_open(struct cst_keeper *k, int fd)
{
	return simple_call(k, CST_WIRE_BACKING_OPEN, NULL, 0, fd, BACKING_MS);
}

void cst_keeper_backing_close(struct cst_keeper *k, int backing)
{
	int32_t id = backing;
	(void)simple_call(k, CST_WIRE_BACKING_CLOSE, &id, sizeof(id), -1, BACKING_MS);
}

int cst_keeper_unmount(struct cst_keeper *k)
{
	return simple_call(k, CST_WIRE_UNMOUNT, NULL, 0, -1, MOUNT_MS);
}

void cst_keeper_end(struct cst_keeper *k)
{
	__atomic_store_n(&k->over, true, __ATOMIC_RELEASE);
	(void)simple_call(k, CST_WIRE_END, NULL, 0, -1, CALL_MS);
	for (unsigned i = 0; i < k->device_count; i++)
		close(k->devices[i]);
	k->device_count = 0;
}

void cst_keeper_ready(struct cst_keeper *k)
{
	__atomic_store_n(&k->ready, true, __ATOMIC_RELEASE);
	(void)tell(k, CST_WIRE_READY, NULL, 0);
}

void cst_keeper_failed(struct cst_keeper *k, const struct cst_error *err)
{
	(void)tell(k, CST_WIRE_FAILED, err, sizeof(*err));
}

int cst_keeper_stop_wish(struct cst_keeper *k)
{
	return tell(k, CST_WIRE_STOP_WISH, NULL, 0);
}

int cst_keeper_upgrade(struct cst_keeper *k, const char *path, struct cst_error *err)
{
	CST_AUTO_FREE struct cst_wire *m = cst_xmalloc(sizeof(*m));
	size_t len = strlen(path) + 1;
	if (len > CST_WIRE_DATA_MAX)
		return cst_error_set(err, ENAMETOOLONG, "can't upgrade the mount");
	int rc = call(k, CST_WIRE_UPGRADE, path, len, -1, CALL_MS, m);
	if (rc != 0) {
		call_failed(err, rc, "can't upgrade the mount");
		return rc;
	}
	cst_wire_drop(m);
	if (m->rc != 0 && m->len == sizeof(struct cst_error) && err)
		memcpy(err, m->data, sizeof(*err));
	return m->rc;
}

/* ---- the thread that listens, and starts another supervisor when ours has died ---- */

static int spawn_supervisor(struct cst_keeper *k, int calls, int events, pid_t *pid)
{
	char argv0[] = CST_KEEPER_ARGV0, argv1[] = CST_KEEPER_KEEPS;
	char *argv[] = {argv0, argv1, k->header->mountpoint, NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none;
	/* Above the numbers that they will have: a descriptor duplicated onto itself would stay close-on-exec. */
	CST_AUTO_CLOSE int a = fcntl(calls, F_DUPFD_CLOEXEC, 10);
	CST_AUTO_CLOSE int b = fcntl(events, F_DUPFD_CLOEXEC, 10);
	if (a < 0 || b < 0)
		return -errno;
	sigemptyset(&none);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, a, CST_KEEPER_CALLS_FD);
	posix_spawn_file_actions_adddup2(&actions, b, CST_KEEPER_EVENTS_FD);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	int rc = posix_spawn(pid, "/proc/self/exe", &actions, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return -rc;
}

/* What it needs lies in its socket before it runs. */
static int hand_over(struct cst_keeper *k, int calls)
{
	int fds[CST_KEEPER_CLONES + 4], count = 0;
	CST_AUTO_CLOSE int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	int32_t about[2] = {getpid(), __atomic_load_n(&k->ready, __ATOMIC_ACQUIRE)};
	if (self < 0)
		return -errno;
	fds[count++] = self;
	fds[count++] = k->launch;
	fds[count++] = k->memory;
	for (unsigned i = 0; i < k->device_count; i++)
		fds[count++] = k->devices[i];
	return cst_wire_send(calls, CST_WIRE_ADOPT, 0, 0, about, sizeof(about), fds, (unsigned)count);
}

static int new_supervisor(struct cst_keeper *k)
{
	int calls[2] = {-1, -1}, events[2] = {-1, -1};
	int rc = cst_wire_pair(calls);
	if (rc == 0)
		rc = cst_wire_pair(events);
	if (rc == 0)
		rc = hand_over(k, calls[0]);
	if (rc == 0)
		rc = spawn_supervisor(k, calls[1], events[1], &k->successor);
	if (calls[1] >= 0)
		close(calls[1]);
	if (events[1] >= 0)
		close(events[1]);
	if (rc != 0) {
		if (calls[0] >= 0)
			close(calls[0]);
		if (events[0] >= 0)
			close(events[0]);
		return rc;
	}
	pthread_mutex_lock(&k->lock);
	k->calls = calls[0];
	pthread_mutex_unlock(&k->lock);
	k->events = events[0];
	return 0;
}

static void let_go(struct cst_keeper *k)
{
	pthread_mutex_lock(&k->lock);
	if (k->calls >= 0)
		close(k->calls);
	k->calls = -1;
	pthread_mutex_unlock(&k->lock);
	if (k->events >= 0)
		close(k->events);
	k->events = -1;
	if (k->successor > 0) /* a child of ours; it has gone or is going */
		while (waitpid(k->successor, NULL, 0) < 0 && errno == EINTR)
			;
	k->successor = 0;
}

static bool is_kept(const struct cst_keeper *k)
{
	struct pollfd p = {.fd = k->events};
	return k->events >= 0 && (poll(&p, 1, 0) <= 0 || !(p.revents & (POLLHUP | POLLERR)));
}

void cst_keeper_leave(struct cst_keeper *k)
{
	cst_keeper_silence(k);
	if (is_kept(k))
		return;
	cst_log_warn("the supervisor has died: starting another one before leaving");
	int rc = new_supervisor(k);
	if (rc < 0)
		cst_log_error("no supervisor can be started: %s; the mount ends", strerror(-rc));
}

/* True when the thread shall end. */
static bool pause_for(struct cst_keeper *k, int64_t ns)
{
	struct pollfd p = {.fd = k->woken, .events = POLLIN};
	return poll(&p, 1, (int)(ns / CST_NS_PER_MS)) > 0 || __atomic_load_n(&k->over, __ATOMIC_ACQUIRE);
}

static void supervisor_died(struct cst_keeper *k, int64_t *started, int64_t *backoff)
{
	int rc;
	let_go(k);
	if (__atomic_load_n(&k->over, __ATOMIC_ACQUIRE))
		return;
	if (!k->restarted && !__atomic_load_n(&k->ready, __ATOMIC_ACQUIRE)) {
		cst_log_error("the supervisor died before the mount could be used");
		_exit(1);
	}
	*backoff = cst_now() - *started > LIVED_LONG ? 0 : cst_min(*backoff * 2 + CST_NS_PER_S, RETRY_MAX);
	cst_log_warn("the supervisor has died: starting another one%s", *backoff ? " in a moment" : "");
	do {
		if (*backoff && pause_for(k, *backoff))
			return;
		*started = cst_now();
		rc = new_supervisor(k);
		if (rc < 0)
			cst_log_error("no supervisor can be started: %s; should this process die, so does the mount",
				      strerror(-rc));
		*backoff = RETRY_MAX;
	} while (rc < 0 && !pause_for(k, 0));
	*backoff = 0;
	if (rc == 0)
		__atomic_fetch_add(&k->header->takeovers, 1, __ATOMIC_RELAXED);
}

static void listen_to(struct cst_keeper *k, struct cst_wire *m)
{
	if (m->type == CST_WIRE_STOP)
		k->ops.stop(k->ops.arg);
	else if (m->type == CST_WIRE_LEAVE)
		k->ops.leave(k->ops.arg);
	else
		cst_log_warn("the supervisor said something unknown (%u)", m->type);
	cst_wire_drop(m);
}

static void *keeper_main(void *arg)
{
	struct cst_keeper *k = arg;
	CST_AUTO_FREE struct cst_wire *m = cst_xmalloc(sizeof(*m));
	int64_t started = cst_now() - LIVED_LONG * 2, backoff = 0;
	for (;;) {
		struct pollfd p[2] = {{.fd = k->woken, .events = POLLIN}, {.fd = k->events, .events = POLLIN}};
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return NULL;
		if (p[0].revents || (k->events < 0 && __atomic_load_n(&k->over, __ATOMIC_ACQUIRE)))
			return NULL;
		if (!p[1].revents)
			continue;
		int rc = cst_wire_receive(k->events, m, 0);
		if (rc == 0)
			listen_to(k, m);
		else if (rc != -EAGAIN)
			supervisor_died(k, &started, &backoff);
	}
}

int cst_keeper_start(struct cst_keeper *k, const struct cst_keeper_ops *ops, struct cst_error *err)
{
	int ends[2];
	CST_CHECK(k, KEEPER_MAGIC);
	k->ops = *ops;
	int rc = pipe2(ends, O_CLOEXEC) < 0 ? -errno : 0;
	if (rc == 0) {
		k->woken = ends[0];
		k->wake = ends[1];
		rc = cst_thread_start(&k->thread, "keeper", 0, keeper_main, k);
	}
	k->started = rc == 0;
	if (rc != 0) {
		cst_error_set(err, -rc, "can't listen to the supervisor");
		cst_error_why(err, "%s", strerror(-rc));
	}
	return rc;
}
