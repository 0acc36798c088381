/* Several volumes of one directory: changes of owner, failures, the socket, many calls at once. */
#include "volume_case.h"

#include "cache/volume_private.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <cmocka.h>

/* Instead of the library's: reads wait until this volume is being closed. */
static struct cst_volume *held;
static unsigned held_reads;
ssize_t preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	struct cst_volume *v = __atomic_load_n(&held, __ATOMIC_ACQUIRE);
	bool go = !v;
	if (v)
		__atomic_add_fetch(&held_reads, 1, __ATOMIC_SEQ_CST);
	while (!go) {
		cst_sleep(CST_NS_PER_MS);
		pthread_mutex_lock(&v->lock);
		go = v->stopping;
		pthread_mutex_unlock(&v->lock);
	}
	return syscall(SYS_preadv2, fd, iov, (long)count, (long)offset, 0L, (long)flags);
}

/* ---- changes of owner ---- */

static void the_next_takes_over(void **state)
{
	struct fixture *f = *state;
	struct cst_volume *a = must_open(f->path), *b = must_open(f->path), *c = must_open(f->path);
	struct call x = entry_open(b, "x", LARGE, CST_VOLUME_CREATE), y = put_small(c, "y", 777, 0);
	assert_int_equal(fill(b, &x, "x", LARGE, 0, 4), 0);
	cst_volume_close(a);
	WAIT_UNTIL(cst_volume_is_owner(b) || cst_volume_is_owner(c));
	struct cst_volume *owner = cst_volume_is_owner(b) ? b : c;
	/* Both handles live on. */
	WAIT_UNTIL(in_use(owner) == 2);
	int rc;
	WAIT_UNTIL((rc = fill(b, &x, "x", LARGE, 4, LARGE_BLOCKS - 4)) != -EAGAIN);
	assert_int_equal(rc, 0);
	assert_int_equal(complete(x.handle, true), 0);
	assert_int_equal(check_slot(c, &y, "y", 777), 1);
	cst_volume_entry_close(x.handle);
	cst_volume_entry_close(y.handle);
	WAIT_UNTIL(in_use(owner) == 0);
	cst_volume_close(b);
	WAIT_UNTIL(cst_volume_is_owner(c));
	assert_int_equal(check(c, "x", LARGE), LARGE_BLOCKS);
	cst_volume_close(c);
}

static void calls_without_an_owner_end(void **state)
{
	struct fixture *f = *state;
	cst_volume_close(must_open(f->path));
	/* Somebody has the lock and does not answer: a process that takes over, or one that is stopped. */
	CST_AUTO_FREE char *name = cst_xasprintf("%s/lock", f->path);
	CST_AUTO_CLOSE int lock = open(name, O_RDWR | O_CLOEXEC);
	assert_int_equal(flock(lock, LOCK_EX | LOCK_NB), 0);
	struct cst_volume *v = must_open(f->path);
	assert_false(cst_volume_is_owner(v));
	assert_int_equal(entry_open(v, "k", LARGE, CST_VOLUME_CREATE).rc, -EAGAIN);
	assert_int_equal(put_small(v, "k", 100, 0).rc, -EAGAIN);
	assert_int_equal(flock(lock, LOCK_UN), 0);
	WAIT_UNTIL(cst_volume_is_owner(v));
	struct call c = entry_open(v, "k", LARGE, CST_VOLUME_CREATE);
	assert_int_equal(c.rc, 0);
	cst_volume_entry_close(c.handle);
	cst_volume_close(v);
}

static void a_removed_lock_file_is_noticed(void **state)
{
	struct fixture *f = *state;
	struct cst_volume *a = must_open(f->path);
	CST_AUTO_FREE char *command = cst_xasprintf("rm -rf %s/*", f->path);
	CST_AUTO_FREE char *name = cst_xasprintf("%s/lock", f->path);
	struct call c = entry_open(a, "k", LARGE, CST_VOLUME_CREATE);
	assert_int_equal(fill_all(a, &c, "k", LARGE), 0);
	assert_int_equal(system(command), 0);
	/* Another one must not become owner beside it. */
	struct cst_volume *b = must_open(f->path);
	WAIT_UNTIL(access(name, F_OK) == 0 && (cst_volume_is_owner(a) || cst_volume_is_owner(b)) &&
		   complete(c.handle, false) < 0);
	assert_int_not_equal(cst_volume_is_owner(a), cst_volume_is_owner(b));
	cst_volume_entry_close(c.handle);
	WAIT_UNTIL(({
		c = put_small(a, "new", 100, 0);
		c.rc == 0;
	}));
	cst_volume_entry_close(c.handle);
	cst_volume_close(b);
	cst_volume_close(a);
}

/* ---- failures ---- */

struct failure {
	int rc; /* atomic */
};

static void failed(void *arg, int rc, const char *what)
{
	struct failure *failure = arg;
	assert_non_null(what);
	__atomic_store_n(&failure->rc, rc, __ATOMIC_RELEASE);
}

static struct cst_volume *open_reporting(const char *path, struct failure *failure)
{
	const struct cst_volume_config config = {
		.path = path,
		.limits = {.quota = QUOTA, .high = 0.95, .low = 0.9, .keep_free = 1 << 20},
		.failed = failed,
		.arg = failure,
	};
	struct cst_volume *v = cst_volume_open(&config, NULL);
	assert_non_null(v);
	return v;
}

static void a_failing_disk_ends_all(void **state)
{
	struct fixture *f = *state;
	struct failure owner = {0}, client = {0};
	struct cst_volume *a = open_reporting(f->path, &owner), *b = open_reporting(f->path, &client);
	struct call c = entry_open(a, "k", LARGE, CST_VOLUME_CREATE), d = entry_open(b, "k", LARGE, 0);
	assert_int_equal(d.rc, 0);
	cst_volume_fail(a, -ENOSPC, "no disk error");
	assert_int_equal(charge(c.handle, 10), 0);
	cst_volume_fail(a, -EIO, "reading");
	assert_int_equal(charge(c.handle, 10), -EIO);
	assert_int_equal(complete(c.handle, true), -EIO);
	assert_int_equal(entry_open(a, "k", LARGE, 0).rc, -EIO);
	assert_int_equal(put_small(a, "s", 10, 0).rc, -EIO);
	assert_int_equal(cst_volume_drop(a, &c.entry), -EIO);
	WAIT_UNTIL(__atomic_load_n(&owner.rc, __ATOMIC_ACQUIRE) == -EIO);
	/* The other is told, or finds itself alone and tries the disk itself. */
	WAIT_UNTIL(__atomic_load_n(&client.rc, __ATOMIC_ACQUIRE) == -EIO || cst_volume_is_owner(b));
	cst_volume_entry_close(c.handle);
	cst_volume_entry_close(d.handle);
	cst_volume_close(b);
	cst_volume_close(a);
}

static void a_deleted_directory_is_given_up(void **state)
{
	struct fixture *f = *state;
	struct failure owner = {0}, client = {0};
	struct cst_volume *a = open_reporting(f->path, &owner), *b = open_reporting(f->path, &client);
	CST_AUTO_FREE char *command = cst_xasprintf("rm -rf %s", f->path);
	struct call c = entry_open(b, "k", LARGE, CST_VOLUME_CREATE);
	struct cst_cache_identity id;
	struct cst_extent e;
	uint8_t *bytes = cst_xmalloc(CST_CACHE_BLOCK);
	struct iovec iov = {bytes, CST_CACHE_BLOCK};
	uint64_t bad;
	assert_int_equal(fill_all(b, &c, "k", LARGE), 0);
	identify(&id, "k", LARGE);
	assert_int_equal(cst_extent_open(cst_volume_dir(b), &id, false, &e), 0);
	assert_int_equal(system(command), 0);
	/* What is open stays readable; the rest says no, at once or later. */
	assert_int_equal(cst_extent_read(&e, 0, &iov, 1, false, &bad), 0);
	assert_true(complete(c.handle, true) < 0);
	WAIT_UNTIL(__atomic_load_n(&owner.rc, __ATOMIC_ACQUIRE) == -ENOENT);
	WAIT_UNTIL(__atomic_load_n(&client.rc, __ATOMIC_ACQUIRE) != 0);
	assert_true(entry_open(a, "k", LARGE, CST_VOLUME_CREATE).rc < 0);
	assert_true(entry_open(b, "k", LARGE, CST_VOLUME_CREATE).rc < 0);
	/* A new one takes no notice of them. */
	struct cst_volume *n = must_open(f->path);
	assert_true(cst_volume_is_owner(n));
	assert_int_equal(entry_open(n, "k", LARGE, 0).rc, -ENOENT);
	cst_volume_close(n);
	assert_int_equal(cst_extent_read(&e, 1, &iov, 1, false, &bad), 0);
	cst_extent_close(&e);
	cst_volume_entry_close(c.handle);
	cst_volume_close(b);
	cst_volume_close(a);
	free(bytes);
}

/* ---- the socket ---- */

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void send_one(int fd, const struct cst_volume_message *m)
{
	uint8_t packet[CST_VOLUME_MESSAGE_MAX];
	size_t len = cst_volume_message_write(m, packet);
	assert_int_equal(send(fd, packet, len, MSG_NOSIGNAL), len);
}

/* rc of the reply; -ENOTCONN: the connection ended. */
static int receive_one(int fd, struct cst_volume_message *m)
{
	static uint8_t packet[CST_VOLUME_MESSAGE_MAX];
	ssize_t len = recv(fd, packet, sizeof(packet), 0);
	if (len <= 0)
		return -ENOTCONN;
	assert_int_equal(cst_volume_message_parse(packet, (size_t)len, m), 0);
	return m->rc;
}

static int say_hello(const char *path)
{
	struct cst_volume_message m = {.type = CST_VMSG_HELLO, .id = 1, .number = QUOTA};
	int fd = connect_to(path);
	send_one(fd, &m);
	assert_int_equal(receive_one(fd, &m), 0);
	assert_int_equal(m.number, QUOTA);
	return fd;
}

static void nonsense_ends_one_connection(void **state)
{
	struct fixture *f = *state;
	struct cst_volume *a = must_open(f->path), *b = must_open(f->path);
	struct cst_volume_message m;
	static const uint8_t zeros[CST_VOLUME_MESSAGE_MAX + 100];
	const struct cst_volume_message ping = {.type = CST_VMSG_PING, .id = 5},
					failed_notice = {.type = CST_VMSG_FAILED},
					reply = {.type = CST_VMSG_PING, .reply = true, .id = 5};
	const size_t lengths[] = {1, 23, 24, 25, CST_VOLUME_MESSAGE_MAX, sizeof(zeros)};
	for (size_t i = 0; i < CST_ARRAY_LEN(lengths); i++) {
		CST_AUTO_CLOSE int fd = say_hello(f->path);
		assert_int_equal(send(fd, zeros, lengths[i], MSG_NOSIGNAL), lengths[i]);
		assert_int_equal(receive_one(fd, &m), -ENOTCONN);
	}
	const struct cst_volume_message *const wrong[] = {&failed_notice, &reply};
	for (size_t i = 0; i < CST_ARRAY_LEN(wrong); i++) {
		CST_AUTO_CLOSE int fd = say_hello(f->path);
		send_one(fd, wrong[i]);
		assert_int_equal(receive_one(fd, &m), -ENOTCONN);
	}
	/* No greeting. */
	CST_AUTO_CLOSE int rude = connect_to(f->path);
	send_one(rude, &ping);
	assert_int_equal(receive_one(rude, &m), -ENOTCONN);
	/* The others go on. */
	CST_AUTO_CLOSE int good = say_hello(f->path);
	send_one(good, &ping);
	assert_int_equal(receive_one(good, &m), 0);
	struct call c = put_small(b, "k", 10, 0);
	assert_int_equal(c.rc, 0);
	cst_volume_entry_close(c.handle);
	cst_volume_close(b);
	cst_volume_close(a);
}

/* Until somebody closes a descriptor nobody new is let in; waiting for that takes no CPU. */
static void without_descriptors_the_owner_rests(void **state)
{
	struct fixture *f = *state;
	struct cst_volume *a = must_open(f->path);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct rlimit before, none;
	struct timespec cpu[2];
	struct cst_volume_message m = {.type = CST_VMSG_HELLO, .id = 1, .number = QUOTA};
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", f->path);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = (rlim_t)dup(fd);
	close((int)none.rlim_cur);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	cst_sleep(CST_NS_PER_S / 10);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu[0]);
	cst_sleep(CST_NS_PER_S);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu[1]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	int64_t spent = (cpu[1].tv_sec - cpu[0].tv_sec) * CST_NS_PER_S + cpu[1].tv_nsec - cpu[0].tv_nsec;
	assert_true(spent < CST_NS_PER_S / 10);
	send_one(fd, &m);
	assert_int_equal(receive_one(fd, &m), 0);
	close(fd);
	cst_volume_close(a);
}

static void a_dead_client_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	struct cst_volume *a = must_open(f->path);
	struct cst_volume_message m;
	struct cst_index_stats before, now;
	assert_int_equal(cst_volume_stats(a, &before), 0);
	int fd = say_hello(f->path);
	struct cst_volume_message open = {.type = CST_VMSG_OPEN, .id = 2, .flags = CST_VOLUME_CREATE};
	identify(&open.identity, "k", LARGE);
	send_one(fd, &open);
	assert_int_equal(receive_one(fd, &m), 0);
	send_one(fd, &open);
	assert_int_equal(receive_one(fd, &m), 0);
	/* One block is written, five are charged. */
	struct call c = entry_open(a, "k", LARGE, 0);
	assert_int_equal(fill(a, &c, "k", LARGE, 2, 1), 0);
	uint64_t with_one = used(a);
	for (int i = 0; i < 5; i++) {
		struct cst_volume_message charging = {
			.type = CST_VMSG_CHARGE, .id = 3, .identity = open.identity, .bytes = CST_CACHE_BLOCK};
		send_one(fd, &charging);
		assert_int_equal(receive_one(fd, &m), 0);
	}
	assert_int_equal(used(a), with_one + 5 * CST_CACHE_BLOCK);
	cst_volume_entry_close(c.handle);
	/* And a slot is reserved. */
	struct cst_volume_message reserve = {.type = CST_VMSG_RESERVE, .id = 4};
	identify(&reserve.identity, "small", 1000);
	send_one(fd, &reserve);
	assert_int_equal(receive_one(fd, &m), 0);
	assert_true(m.created);
	assert_int_equal(in_use(a), 1);
	close(fd);
	WAIT_UNTIL(in_use(a) == 0);
	assert_int_equal(entry_open(a, "small", 1000, 0).rc, -ENOENT);
	c = put_small(a, "small", 1000, 0);
	assert_int_equal(c.rc, 0);
	assert_true(c.created);
	cst_volume_entry_close(c.handle);
	assert_int_equal(cst_volume_drop(a, &c.entry), 0);
	c = entry_open(a, "k", LARGE, 0);
	assert_int_equal(c.rc, 0);
	assert_int_equal(c.entry.cached, CST_CACHE_BLOCK);
	cst_volume_entry_close(c.handle);
	assert_int_equal(cst_volume_drop(a, &c.entry), 0);
	assert_int_equal(cst_volume_stats(a, &now), 0);
	assert_int_equal(now.entries, before.entries);
	cst_volume_close(a);
}

/* An owner that closes doesn't read to the end what another process wants verified. */
static void closing_does_not_wait_for_verifying(void **state)
{
	struct fixture *f = *state;
	const uint64_t size = 16 * MIB;
	struct cst_volume *a = must_open(f->path);
	struct cst_volume_message m, open = {.type = CST_VMSG_OPEN, .id = 2, .flags = CST_VOLUME_CREATE};
	struct call c = entry_open(a, "k", size, CST_VOLUME_CREATE);
	assert_int_equal(fill_all(a, &c, "k", size), 0);
	cst_volume_entry_close(c.handle);
	CST_AUTO_CLOSE int fd = say_hello(f->path);
	identify(&open.identity, "k", size);
	send_one(fd, &open);
	assert_int_equal(receive_one(fd, &m), 0);
	struct cst_volume_message completing = {
		.type = CST_VMSG_COMPLETE, .id = 3, .identity = open.identity, .flags = 1};
	__atomic_store_n(&held, a, __ATOMIC_RELEASE);
	send_one(fd, &completing);
	WAIT_UNTIL(__atomic_load_n(&held_reads, __ATOMIC_SEQ_CST) > 0);
	cst_volume_close(a);
	__atomic_store_n(&held, NULL, __ATOMIC_RELEASE);
	assert_in_range(held_reads, 1, size / CST_CACHE_BLOCK / 4);
	a = must_open(f->path);
	c = entry_open(a, "k", size, 0);
	assert_int_equal(c.rc, 0);
	assert_false(c.entry.complete);
	cst_volume_entry_close(c.handle);
	cst_volume_close(a);
}

static void strangers_commit_nothing(void **state)
{
	struct fixture *f = *state;
	struct cst_volume *a = must_open(f->path);
	struct cst_volume_message m;
	struct call c = entry_open(a, "k", LARGE, CST_VOLUME_CREATE);
	CST_AUTO_CLOSE int fd = say_hello(f->path);
	struct cst_volume_message commit = {.type = CST_VMSG_COMMIT, .id = 2, .entry = c.entry, .flags = 1};
	struct cst_volume_message charging = {.type = CST_VMSG_CHARGE, .id = 3, .bytes = 1000};
	struct cst_volume_message completing = {.type = CST_VMSG_COMPLETE, .id = 4};
	struct cst_volume_message closing = {.type = CST_VMSG_CLOSE, .id = 5};
	identify(&charging.identity, "k", LARGE);
	completing.identity = closing.identity = charging.identity;
	commit.entry.kind = CST_ENTRY_SLOT;
	send_one(fd, &commit);
	assert_int_equal(receive_one(fd, &m), -EAGAIN);
	send_one(fd, &charging);
	assert_int_equal(receive_one(fd, &m), -EAGAIN);
	send_one(fd, &completing);
	assert_int_equal(receive_one(fd, &m), -EAGAIN);
	send_one(fd, &closing);
	assert_int_equal(receive_one(fd, &m), 0);
	assert_int_equal(in_use(a), 1);
	cst_volume_entry_close(c.handle);
	cst_volume_close(a);
}

/* ---- many at once ---- */

struct crowd {
	struct cst_volume *volume;
	unsigned seed, done, busy, failed;
};

static void *crowd_member(void *arg)
{
	struct crowd *w = arg;
	for (unsigned i = 0; i < 60; i++) {
		char key[32];
		bool small = (i + w->seed) % 2;
		snprintf(key, sizeof(key), "%s %u", small ? "small" : "large", (w->seed * 7 + i * 13) % 20);
		struct call c = small ? put_small(w->volume, key, 4000, 0)
				      : entry_open(w->volume, key, 3 * CST_CACHE_BLOCK, CST_VOLUME_CREATE);
		if (c.rc == 0) {
			cst_volume_touch(c.handle);
			int64_t there = small ? check_slot(w->volume, &c, key, 4000)
					      : check(w->volume, key, 3 * CST_CACHE_BLOCK);
			if (there == -EILSEQ)
				w->failed++;
			if (!small && there == 0)
				fill_all(w->volume, &c, key, 3 * CST_CACHE_BLOCK);
			cst_volume_entry_close(c.handle);
			w->done++;
		} else if (c.rc == -EAGAIN) {
			/* Another one writes it just now. */
			w->busy++;
		} else {
			w->failed++;
		}
	}
	return NULL;
}

static void a_crowd_agrees(void **state)
{
	struct fixture *f = *state;
	struct cst_volume *v[3] = {must_open(f->path), must_open(f->path), must_open(f->path)};
	struct crowd crowd[6];
	unsigned long threads[6];
	for (unsigned i = 0; i < 6; i++) {
		crowd[i] = (struct crowd){.volume = v[i % 3], .seed = i};
		assert_int_equal(cst_thread_start(&threads[i], "crowd", 0, crowd_member, &crowd[i]), 0);
	}
	for (unsigned i = 0; i < 6; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(crowd[i].failed, 0);
		assert_int_equal(crowd[i].done + crowd[i].busy, 60);
		assert_true(crowd[i].done > 20);
	}
	WAIT_UNTIL(in_use(v[0]) == 0);
	/* Each number comes as one of the two only. */
	assert_int_equal(count_entries(v[2]), 20);
	for (int i = 2; i >= 0; i--)
		cst_volume_close(v[i]);
}

struct churn {
	struct cst_volume *volume;
	int stop;  /* atomic */
	int wrong; /* an answer that should not be */
};

static void *churn_handles(void *arg)
{
	struct churn *w = arg;
	struct call calls[8] = {0};
	for (unsigned i = 0; !__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE); i++) {
		char key[16];
		snprintf(key, sizeof(key), "k%u", i % 5);
		struct call *c = &calls[i % 8];
		cst_volume_entry_close(c->handle);
		*c = i % 3 ? entry_open(w->volume, key, LARGE, CST_VOLUME_CREATE) : put_small(w->volume, "s", 300, 0);
		if (c->rc == 0 && i % 3)
			cst_volume_charge(c->handle, i % 2 ? 100 : -100, NULL, NULL);
		if (c->rc != 0 && c->rc != -EAGAIN)
			w->wrong = c->rc;
	}
	for (unsigned i = 0; i < 8; i++)
		cst_volume_entry_close(calls[i].handle);
	return NULL;
}

/* Owners come and go while handles do. */
static void handles_come_and_go_while_owners_change(void **state)
{
	struct fixture *f = *state;
	struct cst_volume *owner = must_open(f->path), *stay[2] = {must_open(f->path), must_open(f->path)};
	struct churn churn[2];
	unsigned long threads[2];
	for (int i = 0; i < 2; i++) {
		churn[i] = (struct churn){.volume = stay[i]};
		assert_int_equal(cst_thread_start(&threads[i], "churn", 0, churn_handles, &churn[i]), 0);
	}
	CST_AUTO_FREE char *lock = cst_xasprintf("%s/lock", f->path);
	for (int round = 0; round < 3; round++) {
		cst_volume_close(owner);
		WAIT_UNTIL(cst_volume_is_owner(stay[0]) || cst_volume_is_owner(stay[1]));
		owner = must_open(f->path);
		/* Who is the owner loses it, and somebody gets it again. */
		struct stat now;
		assert_int_equal(unlink(lock), 0);
		WAIT_UNTIL(stat(lock, &now) == 0 && (cst_volume_is_owner(stay[0]) || cst_volume_is_owner(stay[1]) ||
						     cst_volume_is_owner(owner)));
	}
	for (int i = 0; i < 2; i++) {
		__atomic_store_n(&churn[i].stop, 1, __ATOMIC_RELEASE);
		pthread_join(threads[i], NULL);
		assert_int_equal(churn[i].wrong, 0);
	}
	WAIT_UNTIL(cst_volume_is_owner(stay[0]) || cst_volume_is_owner(stay[1]) || cst_volume_is_owner(owner));
	struct cst_index_stats stats;
	WAIT_UNTIL(cst_volume_stats(owner, &stats) == 0 && stats.in_use == 0);
	cst_volume_close(owner);
	cst_volume_close(stay[0]);
	cst_volume_close(stay[1]);
}

struct burst {
	pthread_mutex_t lock;
	unsigned answers;
	struct cst_volume_handle *handles[2000];
};

static void burst_answer(void *arg, const struct cst_volume_answer *answer)
{
	struct burst *b = arg;
	assert_int_equal(answer->rc, 0);
	pthread_mutex_lock(&b->lock);
	b->handles[b->answers++] = answer->handle;
	pthread_mutex_unlock(&b->lock);
}

/* More requests than the socket's buffers hold, before the first answer is waited for. */
static void burst_of(struct cst_volume *v, const struct cst_cache_identity *id, unsigned flags)
{
	static struct burst burst = {.lock = PTHREAD_MUTEX_INITIALIZER};
	burst.answers = 0;
	for (unsigned i = 0; i < CST_ARRAY_LEN(burst.handles); i++)
		cst_volume_entry_open(v, id, flags, burst_answer, &burst);
	WAIT_UNTIL(({
		pthread_mutex_lock(&burst.lock);
		unsigned n = burst.answers;
		pthread_mutex_unlock(&burst.lock);
		n == CST_ARRAY_LEN(burst.handles);
	}));
	assert_int_equal(in_use(v), 1);
	for (unsigned i = 0; i < CST_ARRAY_LEN(burst.handles); i++) {
		cst_volume_touch(burst.handles[i]);
		cst_volume_entry_close(burst.handles[i]);
	}
}

static void requests_are_pipelined(void **state)
{
	struct fixture *f = *state;
	struct cst_volume *a = must_open(f->path), *b = must_open(f->path);
	struct call c = entry_open(a, "k", LARGE, CST_VOLUME_CREATE);
	struct cst_cache_identity id;
	identify(&id, "k", LARGE);
	burst_of(b, &id, 0);
	burst_of(b, &id, CST_VOLUME_CREATE);
	cst_volume_entry_close(c.handle);
	WAIT_UNTIL(in_use(b) == 0);
	cst_volume_close(b);
	cst_volume_close(a);
}

/* It dies while its requests are under way, and more than the owner reads ahead. */
static void a_client_dies_with_its_hands_full(void **state)
{
	struct fixture *f = *state;
	struct cst_volume *a = must_open(f->path);
	struct call c = entry_open(a, "k", LARGE, CST_VOLUME_CREATE);
	uint64_t before = used(a);
	for (int round = 0; round < 20; round++) {
		CST_AUTO_CLOSE int fd = say_hello(f->path);
		struct cst_volume_message open = {.type = CST_VMSG_OPEN, .id = 2, .flags = CST_VOLUME_CREATE}, m;
		struct cst_volume_message charging = {.type = CST_VMSG_CHARGE, .id = 3, .bytes = 1000};
		identify(&open.identity, "k", LARGE);
		charging.identity = open.identity;
		send_one(fd, &open);
		assert_int_equal(receive_one(fd, &m), 0);
		uint8_t packet[CST_VOLUME_MESSAGE_MAX];
		size_t len = cst_volume_message_write(&charging, packet);
		for (int i = 0; i < 600; i++)
			if (send(fd, packet, len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
				break;
	}
	WAIT_UNTIL(used(a) == before);
	cst_volume_entry_close(c.handle);
	WAIT_UNTIL(in_use(a) == 0);
	cst_volume_close(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_next_takes_over),
		TEST(calls_without_an_owner_end),
		TEST(a_removed_lock_file_is_noticed),
		TEST(a_failing_disk_ends_all),
		TEST(a_deleted_directory_is_given_up),
		TEST(nonsense_ends_one_connection),
		TEST(without_descriptors_the_owner_rests),
		TEST(a_dead_client_leaves_nothing),
		TEST(closing_does_not_wait_for_verifying),
		TEST(strangers_commit_nothing),
		TEST(a_crowd_agrees),
		TEST(handles_come_and_go_while_owners_change),
		TEST(requests_are_pipelined),
		TEST(a_client_dies_with_its_hands_full),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
