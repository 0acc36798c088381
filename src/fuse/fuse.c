/* The life of a mount:
 *
 *   cst_fuse_mount()  mounted, no reader: the kernel's INIT waits in the queue
 *   cst_fuse_start()  INIT answered; readers run
 *   cst_fuse_stop()   umount (lazily when busy), readers told to leave        | or: umount(8), abort: readers see ENODEV
 *   cst_fuse_wait()   readers have left: descriptors replaced by a dead one, which ends the connection for whoever still uses it
 *   cst_fuse_drain()  outstanding calls are interrupted, their answers go nowhere; the last has come when it returns
 *   cst_fuse_free()   after the file system, which tells its host of what closes
 *
 * The descriptors' numbers stay valid until the free: answers may come from other threads at any time. */
#include "fuse/internal.h"

#define CST_LOG_AREA "fuse"
#include "base/clock.h"
#include "base/log.h"
#include "base/pool.h"
#include "fuse/device.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>

/* Interrupts a reader's read(2) at the end. Its handler does nothing. */
#define KICK_SIGNAL (SIGRTMIN + 6)
#define KICK_EVERY_MS 10
#define INIT_TIMEOUT_MS 10000
#define FREE_PATIENCE_S 30

#define MAX_READ_DEFAULT (1u << 20)
#define MAX_READAHEAD (64u << 20)
#define MAX_WRITE (1u << 20)

static void kicked(int sig)
{
	(void)sig;
}

/* True when the connection has ended. */
static bool read_one(struct cst_fuse_channel *c)
{
	char *data;
	ssize_t n = cst_fuse_buffer_read(c, &data);
	static struct cst_log_limit limit;

	if (n >= 0) {
		/* Nothing that is done here may last: who finds it busy for long takes the process for dead. */
		if (c->beat)
			cst_beat_set(c->beat, cst_now());
		cst_fuse_dispatch(c, data, (size_t)n);
		if (c->beat)
			cst_beat_set(c->beat, 0);
		return false;
	}
	switch (errno) {
	case EINTR:
	case EAGAIN:
	case ENOENT: /* the request was interrupted before we took it */
		return false;
	case ENODEV:
	case ECONNABORTED:
	case ENOTCONN:
	case EBADF:
		return true;
	default:
		if (cst_log_allowed(&limit, CST_NS_PER_S, NULL))
			cst_log_error("reading a request: %s", strerror(errno));
		cst_sleep(10 * CST_NS_PER_MS);
		return false;
	}
}

static void *reader_main(void *arg)
{
	struct cst_fuse_channel *c = arg;
	struct cst_fuse *fuse = c->fuse;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, KICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	while (!__atomic_load_n(&fuse->stopping, __ATOMIC_ACQUIRE))
		if (read_one(c))
			break;
	pthread_mutex_lock(&fuse->lock);
	c->left = true;
	fuse->readers_left--;
	pthread_cond_broadcast(&fuse->changed);
	pthread_mutex_unlock(&fuse->lock);
	return NULL;
}

static struct timespec in_ms(long ms)
{
	int64_t t = cst_now() + ms * CST_NS_PER_MS;

	return (struct timespec){t / CST_NS_PER_S, t % CST_NS_PER_S};
}

/* A signal that comes just before read(2) is lost, so it is sent until the reader has left. */
static void kick_readers_locked(struct cst_fuse *fuse)
{
	while (fuse->readers_left > 0) {
		struct timespec until = in_ms(KICK_EVERY_MS);

		for (unsigned i = 0; i < fuse->channel_count; i++)
			if (fuse->channels[i].started && !fuse->channels[i].left)
				pthread_kill((pthread_t)fuse->channels[i].thread, KICK_SIGNAL);
		pthread_cond_timedwait(&fuse->changed, &fuse->lock, &until);
	}
}

static uint32_t max_read_of(const struct cst_fuse_config *config)
{
	uint32_t wanted = config->max_read ? config->max_read : MAX_READ_DEFAULT;

	return cst_max(cst_min(wanted, MAX_READ_DEFAULT), 4096u);
}

static struct cst_fuse *fuse_new(const struct cst_fuse_config *config)
{
	struct cst_fuse *fuse = CST_NEW(struct cst_fuse);
	pthread_condattr_t attr;

	fuse->magic = CST_FUSE_MAGIC;
	fuse->dead_fd = -1;
	fuse->max_read = max_read_of(config);
	fuse->keeper = config->keeper;
	fuse->wish = (struct cst_fuse_init_wish){
		.readdirplus = config->readdirplus,
		.auto_cache = config->auto_cache,
		.passthrough = config->passthrough,
		.max_background = config->max_background,
		.memory = config->memory,
		.read_ahead_kb = config->read_ahead_kb,
		.max_read = fuse->max_read,
		.max_readahead = MAX_READAHEAD,
		.max_write = cst_min(config->max_write, MAX_WRITE),
	};
	fuse->threads = config->threads;
	fuse->read_ahead_most = config->read_ahead_kb;
	fuse->backing_dir = config->backing_dir ? cst_xstrdup(config->backing_dir) : NULL;
	fuse->allow_root = config->allow_root && !config->allow_other;
	fuse->owner_uid = geteuid();
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&fuse->lock, NULL);
	pthread_cond_init(&fuse->changed, &attr);
	pthread_mutex_init(&fuse->notify.lock, NULL);
	pthread_cond_init(&fuse->notify.wake, &attr);
	pthread_cond_init(&fuse->notify.heard, &attr);
	pthread_condattr_destroy(&attr);
	TAILQ_INIT(&fuse->notify.queue);
	TAILQ_INIT(&fuse->notify.sending);
	for (unsigned i = 0; i < CST_FUSE_SHARDS; i++) {
		pthread_mutex_init(&fuse->shards[i].lock, NULL);
		TAILQ_INIT(&fuse->shards[i].list);
	}
	cst_fuse_buffers_init(fuse);
	cst_fuse_reply_init(fuse);
	return fuse;
}

static void fuse_destroy(struct cst_fuse *fuse)
{
	for (unsigned i = 0; i < fuse->channel_count; i++) {
		if (!fuse->channels[i].shares_fd)
			close(fuse->channels[i].fd);
		free(fuse->channels[i].buffer);
	}
	cst_fuse_buffers_fini(fuse);
	if (fuse->dead_fd >= 0)
		close(fuse->dead_fd);
	for (unsigned i = 0; i < CST_FUSE_SHARDS; i++)
		pthread_mutex_destroy(&fuse->shards[i].lock);
	pthread_mutex_destroy(&fuse->lock);
	pthread_cond_destroy(&fuse->changed);
	pthread_mutex_destroy(&fuse->notify.lock);
	pthread_cond_destroy(&fuse->notify.wake);
	pthread_cond_destroy(&fuse->notify.heard);
	cst_opens_free(fuse->opens);
	cst_outcomes_free(fuse->outcomes);
	free(fuse->where.path);
	free(fuse->backing_dir);
	fuse->magic = 0;
	free(fuse);
}

static struct cst_fuse_channel *add_channel(struct cst_fuse *fuse, int fd, bool shares)
{
	struct cst_fuse_channel *c = &fuse->channels[fuse->channel_count];

	*c = (struct cst_fuse_channel){.fuse = fuse, .fd = fd, .shares_fd = shares, .index = fuse->channel_count};
	c->buffer = cst_fuse_buffer_get(fuse);
	fuse->channel_count++;
	return c;
}

int cst_fuse_mount_device(const struct cst_fuse_config *config, struct cst_fuse_mountpoint *where,
			  struct cst_error *err)
{
	CST_AUTO_FREE char *path = cst_fuse_mountpoint_resolve(config->mountpoint);
	struct cst_fuse_mount_request req = {
		.path = path,
		.fsname = config->fsname ? config->fsname : "cistern",
		.subtype = config->subtype ? config->subtype : "cistern",
		.allow_other = config->allow_other || config->allow_root,
		.default_permissions = config->default_permissions,
		.flags = config->mount_flags | MS_NOSUID | MS_NODEV,
		.max_read = max_read_of(config),
	};
	int rc;

	if (!path) {
		rc = cst_error_set(err, errno, "can't mount on %s", config->mountpoint);
		cst_error_why(err, "%s", rc == -ENOENT ? "the mountpoint does not exist" : strerror(-rc));
		cst_error_hint(err, "create it with `mkdir -p %s`", config->mountpoint);
		return rc;
	}
	rc = cst_fuse_mountpoint_check(path, config->nonempty, err);
	if (rc < 0)
		return rc;
	CST_AUTO_CLOSE int lock = cst_fuse_mountpoint_lock(path);
	rc = lock >= 0 ? cst_fuse_mountpoint_check(path, config->nonempty, err) : 0;
	return rc < 0 ? rc : cst_fuse_mountpoint_mount(&req, where, err);
}

struct cst_fuse *cst_fuse_mount(const struct cst_fuse_config *config, struct cst_error *err)
{
	struct cst_fuse *fuse = fuse_new(config);
	int fd, ends[2];

	/* Held from now on so that the end can't fail for want of a descriptor. */
	if (pipe2(ends, O_CLOEXEC) < 0) {
		cst_error_set(err, errno, "can't mount on %s", config->mountpoint);
		cst_error_why(err, "%s", strerror(errno));
		fuse_destroy(fuse);
		return NULL;
	}
	fuse->dead_fd = ends[0];
	close(ends[1]);
	fd = fuse->keeper ? cst_fuse_keep_attach(fuse, err) : cst_fuse_mount_device(config, &fuse->where, err);
	if (fd < 0) {
		fuse_destroy(fuse);
		return NULL;
	}
	add_channel(fuse, fd, false);
	return fuse;
}

const struct cst_fs_host *cst_fuse_host(struct cst_fuse *fuse)
{
	CST_CHECK(fuse, CST_FUSE_MAGIC);
	return &fuse->host;
}

/* One INIT exchange; -EAGAIN asks for another. */
static int negotiate_once(struct cst_fuse *fuse, struct cst_error *err)
{
	struct cst_fuse_channel *c = &fuse->channels[0];
	struct pollfd p = {.fd = c->fd, .events = POLLIN};
	struct cst_kfuse_init_out out;
	struct cst_fuse_in in;
	char *data;
	ssize_t n;
	int rc, ready;

	do {
		ready = poll(&p, 1, INIT_TIMEOUT_MS);
	} while (ready < 0 && errno == EINTR);
	n = ready > 0 ? cst_fuse_buffer_read(c, &data) : -1;
	if (n < 0) {
		rc = cst_error_set(err, ready == 0 ? ETIMEDOUT : errno, "can't start the file system on %s",
				   fuse->where.path);
		cst_error_why(err, "the kernel sent no INIT: %s", strerror(-rc));
		return rc == -EAGAIN ? -EIO : rc;
	}
	if (cst_fuse_parse(data, (size_t)n, &in) < 0 || in.opcode != CST_KFUSE_INIT) {
		rc = cst_error_set(err, EPROTO, "can't start the file system on %s", fuse->where.path);
		cst_error_why(err, "the kernel's first request is %s, not init", cst_fuse_op_name(in.opcode));
		return rc;
	}
	rc = cst_fuse_init_answer(&in.init, &fuse->wish, &out, &fuse->agreed, err);
	if (rc == -EPROTO)
		return rc;
	n = cst_fuse_reply_raw(c, in.unique, 0, &out, sizeof(out));
	if (n < 0) {
		cst_error_set(err, (int)-n, "can't start the file system on %s", fuse->where.path);
		cst_error_why(err, "the kernel refused our INIT: %s", strerror((int)-n));
		return n == -EAGAIN ? -EIO : (int)n;
	}
	return rc;
}

static unsigned readers_wanted(const struct cst_fuse *fuse)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned wanted = fuse->threads ? fuse->threads : (unsigned)cst_max(cores, 1L);

	return cst_min(wanted, CST_FUSE_CHANNELS_MAX);
}

static void add_clones(struct cst_fuse *fuse)
{
	int kept[CST_KEEPER_CLONES];
	unsigned wanted = readers_wanted(fuse), clones;

	if (fuse->keeper) {
		clones = cst_fuse_keep_clones(fuse, wanted - 1, kept);
		for (unsigned i = 0; i < clones; i++)
			add_channel(fuse, kept[i], false);
		fuse->channels[0].idle = clones > 0 && !(fuse->agreed.flags & CST_KFUSE_HAS_RESEND);
	}
	while (fuse->channel_count < wanted) {
		int fd = fuse->keeper ? -EMFILE : cst_fuse_device_clone(fuse->channels[0].fd);

		if (fd < 0)
			cst_log_debug("readers share one descriptor: %s", strerror(-fd));
		add_channel(fuse, fd < 0 ? fuse->channels[0].fd : fd, fd < 0);
	}
}

static int negotiate(struct cst_fuse *fuse, struct cst_error *err)
{
	int rc;

	if (cst_fuse_keep_restore(fuse))
		return 0;
	do {
		rc = negotiate_once(fuse, err);
	} while (rc == -EAGAIN);
	if (rc == 0)
		cst_fuse_keep_agreed(fuse);
	return rc;
}

static int start_reader(struct cst_fuse *fuse, struct cst_fuse_channel *c)
{
	CST_AUTO_FREE char *name = cst_xasprintf("cst-fuse-%u", c->index);
	int rc;

	if (c->idle)
		return 0;
	if (fuse->keeper)
		c->beat = cst_beat_take(cst_keeper_header(fuse->keeper), CST_BEAT_WORKS, name);
	rc = cst_thread_start(&c->thread, name, 0, reader_main, c);
	c->started = rc == 0;
	fuse->readers_left += rc == 0;
	return rc;
}

int cst_fuse_start(struct cst_fuse *fuse, struct cst_fs *fs, struct cst_error *err)
{
	struct sigaction action = {.sa_handler = kicked};
	int rc;

	CST_CHECK(fuse, CST_FUSE_MAGIC);
	fuse->fs = fs;
	sigaction(KICK_SIGNAL, &action, NULL);
	rc = negotiate(fuse, err);
	if (rc < 0)
		return rc;
	fuse->read_ahead_kb = cst_fuse_mountpoint_read_ahead(&fuse->where, fuse->read_ahead_most);
	fuse->read_ahead_wanted = fuse->read_ahead_kb;
	cst_fuse_backing_start(fuse);
	cst_fuse_buffers_grow(fuse, fuse->agreed.max_write);
	add_clones(fuse);
	rc = cst_fuse_notify_start(fuse);
	/* Before anything is read here: that would be sent again too, and done twice. */
	if (rc == 0)
		cst_fuse_keep_resend(fuse);
	pthread_mutex_lock(&fuse->lock);
	for (unsigned i = 0; rc == 0 && i < fuse->channel_count; i++)
		rc = start_reader(fuse, &fuse->channels[i]);
	pthread_mutex_unlock(&fuse->lock);
	if (rc < 0) {
		cst_error_set(err, -rc, "can't start the file system on %s", fuse->where.path);
		cst_error_why(err, "no thread could be started: %s", strerror(-rc));
		return rc;
	}
	cst_log_info("FUSE 7.%u on %s: %u readers, %u background requests, read-ahead %u KiB", fuse->agreed.minor,
		     fuse->where.path, fuse->channel_count, fuse->agreed.max_background,
		     __atomic_load_n(&fuse->read_ahead_kb, __ATOMIC_RELAXED));
	return 0;
}

/* Has somebody else unmounted it? Then its path and even its device number may be another mount's by now. Aborted, it is still there:
 * that reads ECONNABORTED. */
static bool is_unmounted(const struct cst_fuse *fuse)
{
	struct pollfd p = {.fd = fuse->channels[0].fd, .events = POLLIN};
	char *buffer;
	bool gone;

	if (poll(&p, 1, 0) <= 0 || !(p.revents & POLLERR))
		return false;
	buffer = cst_xmalloc(fuse->buffers.size); /* a smaller one is refused before anything else is looked at */
	gone = read(p.fd, buffer, fuse->buffers.size) < 0 && errno == ENODEV;
	free(buffer);
	return gone;
}

static void unmount_ours(struct cst_fuse *fuse)
{
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];

	if (cst_fuse_keep_unmount(fuse) == 0)
		return;
	if (cst_fuse_mountpoint_unmount(&fuse->where, &err) < 0)
		cst_log_warn("%s", cst_error_text(&err, text, sizeof(text)));
}

/* Answers what is still in the kernel's queue, now that nobody reads it. */
static void turn_away_queued(struct cst_fuse_channel *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};

	while (poll(&p, 1, 0) > 0 && (p.revents & POLLIN)) {
		struct cst_fuse_in in;
		char *data;
		ssize_t n = cst_fuse_buffer_read(c, &data);

		if (n < 0)
			break;
		(void)cst_fuse_parse(data, (size_t)n, &in);
		if (in.opcode != CST_KFUSE_FORGET && in.opcode != CST_KFUSE_BATCH_FORGET &&
		    in.opcode != CST_KFUSE_INTERRUPT)
			(void)cst_fuse_reply_raw(c, in.unique, -ENOTCONN, NULL, 0);
	}
}

/* All readers have left: whoever still uses the mount gets ENOTCONN from here on, and late answers EBADF. The notifier comes first:
 * while it waits in the kernel its descriptor, and so the connection, can't be closed. */
static void end_connection(struct cst_fuse *fuse)
{
	bool unmounted = is_unmounted(fuse);

	for (unsigned i = 0; i < fuse->channel_count; i++) {
		if (fuse->channels[i].started)
			pthread_join((pthread_t)fuse->channels[i].thread, NULL);
		fuse->channels[i].started = false;
	}
	while (!fuse->leaving && !cst_fuse_notify_stop(fuse, KICK_EVERY_MS * CST_NS_PER_MS)) {
		cst_fuse_request_interrupt_all(fuse);
		turn_away_queued(&fuse->channels[0]);
	}
	for (unsigned i = 0; i < fuse->channel_count; i++)
		if (!fuse->channels[i].shares_fd)
			dup3(fuse->dead_fd, fuse->channels[i].fd, O_CLOEXEC);
	/* After an abort the dead mount is still there. */
	if (!unmounted && !fuse->leaving)
		unmount_ours(fuse);
	cst_fuse_keep_end(fuse);
}

int cst_fuse_wait(struct cst_fuse *fuse)
{
	bool first;

	CST_CHECK(fuse, CST_FUSE_MAGIC);
	pthread_mutex_lock(&fuse->lock);
	while (fuse->readers_left > 0 || fuse->stops_running > 0)
		pthread_cond_wait(&fuse->changed, &fuse->lock);
	first = !fuse->gone;
	fuse->gone = true;
	pthread_mutex_unlock(&fuse->lock);
	if (first)
		end_connection(fuse);
	return 0;
}

void cst_fuse_stop(struct cst_fuse *fuse)
{
	bool again;

	CST_CHECK(fuse, CST_FUSE_MAGIC);
	pthread_mutex_lock(&fuse->lock);
	again = fuse->stops_running > 0 || fuse->gone;
	fuse->stops_running += !again;
	pthread_mutex_unlock(&fuse->lock);
	if (again)
		return;
	/* Readers go on meanwhile: the kernel may have requests of its own before it lets go. */
	if (!is_unmounted(fuse))
		unmount_ours(fuse);
	__atomic_store_n(&fuse->stopping, true, __ATOMIC_RELEASE);
	pthread_mutex_lock(&fuse->lock);
	kick_readers_locked(fuse);
	fuse->stops_running--;
	pthread_cond_broadcast(&fuse->changed);
	pthread_mutex_unlock(&fuse->lock);
}

#define LEAVE_PATIENCE_MS 2000
void cst_fuse_leave(struct cst_fuse *fuse)
{
	struct timespec until;

	CST_CHECK(fuse, CST_FUSE_MAGIC);
	pthread_mutex_lock(&fuse->lock);
	if (fuse->stops_running > 0 || fuse->gone) {
		pthread_mutex_unlock(&fuse->lock);
		return;
	}
	fuse->stops_running++;
	fuse->leaving = true;
	__atomic_store_n(&fuse->stopping, true, __ATOMIC_RELEASE);
	kick_readers_locked(fuse);
	until = in_ms(LEAVE_PATIENCE_MS);
	while (__atomic_load_n(&fuse->in_flight, __ATOMIC_ACQUIRE) > 0)
		if (pthread_cond_timedwait(&fuse->changed, &fuse->lock, &until) == ETIMEDOUT)
			break;
	fuse->stops_running--;
	pthread_cond_broadcast(&fuse->changed);
	pthread_mutex_unlock(&fuse->lock);
}

/* False when the file system does not give its calls back. */
static bool wait_for_calls(struct cst_fuse *fuse)
{
	bool done;

	for (int tries = 0; tries < FREE_PATIENCE_S * 10; tries++) {
		struct timespec until = in_ms(100);

		cst_fuse_request_interrupt_all(fuse);
		pthread_mutex_lock(&fuse->lock);
		while (__atomic_load_n(&fuse->in_flight, __ATOMIC_ACQUIRE) > 0)
			if (pthread_cond_timedwait(&fuse->changed, &fuse->lock, &until) == ETIMEDOUT)
				break;
		done = __atomic_load_n(&fuse->in_flight, __ATOMIC_ACQUIRE) == 0;
		pthread_mutex_unlock(&fuse->lock);
		if (done)
			return true;
		if (tries % 50 == 49)
			cst_fuse_request_log_pending(fuse);
	}
	return false;
}

bool cst_fuse_drain(struct cst_fuse *fuse)
{
	CST_CHECK(fuse, CST_FUSE_MAGIC);
	__atomic_store_n(&fuse->stopping, true, __ATOMIC_RELEASE);
	cst_fuse_stop(fuse); /* nothing to do when it was waited for; perhaps it was never started */
	(void)cst_fuse_wait(fuse);
	return wait_for_calls(fuse);
}

void cst_fuse_free(struct cst_fuse *fuse)
{
	if (!fuse)
		return;
	if (!cst_fuse_drain(fuse)) {
		cst_log_error("%llu calls are never answered: leaving them behind",
			      (unsigned long long)__atomic_load_n(&fuse->in_flight, __ATOMIC_RELAXED));
		return;
	}
	fuse_destroy(fuse);
}

void cst_fuse_stats(const struct cst_fuse *fuse, struct cst_fuse_stats *stats)
{
	*stats = (struct cst_fuse_stats){
		.passthrough = cst_fuse_backing_state(fuse),
		.kernel_major = CST_KFUSE_MAJOR,
		.kernel_minor = fuse->agreed.minor,
		.max_background = fuse->agreed.max_background,
		.max_write = fuse->agreed.max_write,
		.read_ahead_kb = __atomic_load_n(&fuse->read_ahead_kb, __ATOMIC_RELAXED),
		.requests = __atomic_load_n(&fuse->requests, __ATOMIC_RELAXED),
		.in_flight = __atomic_load_n(&fuse->in_flight, __ATOMIC_RELAXED),
		.interrupts = __atomic_load_n(&fuse->interrupts, __ATOMIC_RELAXED),
		.inherited_opens = fuse->opens ? cst_opens_inherited(fuse->opens) : 0,
	};
}
