/* Volumes in one process: two of the same directory are an owner and its client, as two processes are. */
#include "volume_fixture.h"

#include "base/clock.h"
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

#define MIB (UINT64_C(1) << 20)
#define LARGE (UINT64_C(1) * MIB + 5000)
#define LARGE_BLOCKS 9

/* Instead of the library's: the disk fails when data is written back, once. */
static int sync_failure;
int fdatasync(int fd)
{
	errno = __atomic_exchange_n(&sync_failure, 0, __ATOMIC_SEQ_CST);
	return errno ? -1 : (int)syscall(SYS_fdatasync, fd);
}

/* And reads wait until this volume is being closed. */
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

struct fixture {
	char root[64];
	char path[96];
};

static int setup(void **state)
{
	struct fixture *f = CST_NEW(struct fixture);
	snprintf(f->root, sizeof(f->root), "/tmp/cst-volume-XXXXXX");
	assert_non_null(mkdtemp(f->root));
	snprintf(f->path, sizeof(f->path), "%s/a/cache", f->root);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_FREE char *command = cst_xasprintf("rm -rf %s", f->root);
	free(f);
	return system(command);
}

static struct cst_volume *must_open(const char *path)
{
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	struct cst_volume *v = volume_at(path, QUOTA, &err);
	if (!v)
		fail_msg("%s", cst_error_text(&err, text, sizeof(text)));
	return v;
}

/* Until it is so; the test's own time limit ends it otherwise. */
#define WAIT_UNTIL(condition)                     \
	do {                                      \
		while (!(condition))              \
			cst_sleep(CST_NS_PER_MS); \
	} while (0)

static uint64_t used(struct cst_volume *v)
{
	struct cst_index_stats stats;
	assert_int_equal(cst_volume_stats(v, &stats), 0);
	return stats.used;
}

static uint64_t in_use(struct cst_volume *v)
{
	struct cst_index_stats stats;
	assert_int_equal(cst_volume_stats(v, &stats), 0);
	return stats.in_use;
}

/* ---- the directory ---- */

static void makes_a_private_directory(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	struct cst_volume *v = must_open(f->path);
	assert_true(cst_volume_is_owner(v));
	assert_string_equal(cst_volume_path(v), f->path);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	cst_volume_close(v);
}

static void closes_its_own_directory(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	cst_volume_close(must_open(f->path));
	assert_int_equal(chmod(f->path, 0755), 0);
	cst_volume_close(must_open(f->path));
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
}

static void refuses_a_directory_with_other_things(void **state)
{
	struct fixture *f = *state;
	struct cst_error err = CST_ERROR_INIT;
	CST_AUTO_FREE char *other = cst_xasprintf("%s/photos", f->root);
	assert_int_equal(chmod(f->root, 0755), 0);
	assert_int_equal(mkdir(other, 0700), 0);
	assert_null(volume_at(f->root, QUOTA, &err));
	assert_int_equal(err.code, EPERM);
	assert_non_null(strstr(err.hint, "cistern"));
}

static void refuses_a_directory_of_another_user(void **state)
{
	struct fixture *f = *state;
	struct cst_error err = CST_ERROR_INIT;
	if (geteuid() != 0)
		skip();
	cst_volume_close(must_open(f->path));
	assert_int_equal(chown(f->path, 12345, 12345), 0);
	assert_null(volume_at(f->path, QUOTA, &err));
	assert_int_equal(err.code, EPERM);
	assert_non_null(strstr(err.why, "12345"));
}

static void shared_directories_get_one_inside(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	CST_AUTO_FREE char *inside = cst_xasprintf("%s/cistern-%u", f->root, (unsigned)geteuid());
	assert_int_equal(chmod(f->root, 01777), 0);
	struct cst_volume *v = must_open(f->root);
	assert_string_equal(cst_volume_path(v), inside);
	cst_volume_close(v);
	assert_int_equal(stat(f->root, &st), 0);
	assert_int_equal(st.st_mode & 07777, 01777);
	assert_int_equal(stat(inside, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
}

static void links_in_shared_directories_are_not_followed(void **state)
{
	struct fixture *f = *state;
	struct cst_error err = CST_ERROR_INIT;
	CST_AUTO_FREE char *target = cst_xasprintf("%s/private", f->root);
	CST_AUTO_FREE char *lock = cst_xasprintf("%s/lock", target);
	CST_AUTO_FREE char *link = cst_xasprintf("%s/cistern-%u", f->root, (unsigned)geteuid());
	assert_int_equal(mkdir(target, 0700), 0);
	assert_int_equal(symlink(target, link), 0);
	assert_int_equal(chmod(f->root, 01777), 0);
	assert_null(volume_at(f->root, QUOTA, &err));
	assert_int_equal(err.code, ENOTDIR);
	assert_int_equal(access(lock, F_OK), -1);
}

/* One that the group could write to, with files of somebody else that make it look like a cache. */
static void a_cache_that_others_made_is_refused(void **state)
{
	struct fixture *f = *state;
	struct cst_error err = CST_ERROR_INIT;
	CST_AUTO_FREE char *log = cst_xasprintf("%s/index.log", f->path);
	if (geteuid() != 0)
		skip();
	cst_volume_close(must_open(f->path));
	assert_int_equal(chmod(f->path, 0770), 0);
	/* Its own it takes back. */
	cst_volume_close(must_open(f->path));
	assert_int_equal(chmod(f->path, 0770), 0);
	assert_int_equal(chown(log, 12345, 12345), 0);
	assert_null(volume_at(f->path, QUOTA, &err));
	assert_int_equal(err.code, EPERM);
}

static void long_paths_work(void **state)
{
	struct fixture *f = *state;
	char name[201];
	memset(name, 'x', 200);
	name[200] = '\0';
	CST_AUTO_FREE char *path = cst_xasprintf("%s/%s/%s", f->root, name, name);
	struct cst_volume *a = must_open(path), *b = must_open(path);
	assert_true(cst_volume_is_owner(a) && !cst_volume_is_owner(b));
	struct call c = put_small(b, "k", 100, 0);
	assert_int_equal(c.rc, 0);
	cst_volume_entry_close(c.handle);
	cst_volume_close(b);
	cst_volume_close(a);
}

/* ---- entries ---- */

/* What every process can do, through `v`; `other` sees it. */
static void use_extent(struct cst_volume *v, struct cst_volume *other, const char *key)
{
	struct call c = entry_open(v, key, LARGE, 0);
	assert_int_equal(c.rc, -ENOENT);
	uint64_t before = used(v);
	c = entry_open(v, key, LARGE, CST_VOLUME_CREATE);
	assert_int_equal(c.rc, 0);
	assert_true(c.created);
	assert_int_equal(c.entry.kind, CST_ENTRY_EXTENT);
	assert_int_equal(fill(v, &c, key, LARGE, 0, LARGE_BLOCKS - 1), 0);
	assert_int_equal(complete(c.handle, false), -EBADMSG);
	assert_int_equal(complete(c.handle, true), -EBADMSG);
	assert_int_equal(fill(v, &c, key, LARGE, LARGE_BLOCKS - 1, 1), 0);
	assert_true(used(v) >= before + LARGE);
	assert_int_equal(complete(c.handle, true), 0);
	assert_int_equal(complete(c.handle, false), 0);
	cst_volume_touch(c.handle);

	struct call d = entry_open(other, key, LARGE, CST_VOLUME_CREATE);
	assert_int_equal(d.rc, 0);
	assert_false(d.created);
	assert_true(d.entry.complete);
	assert_int_equal(d.entry.cached, LARGE);
	assert_int_equal(check(other, key, LARGE), LARGE_BLOCKS);
	cst_volume_entry_close(d.handle);

	/* Dropped, it is not found, but stays readable for who has it open. */
	struct cst_extent e;
	struct cst_cache_identity id;
	uint8_t byte[5000];
	uint64_t bad;
	struct iovec iov = {byte, sizeof(byte)};
	identify(&id, key, LARGE);
	assert_int_equal(cst_extent_open(cst_volume_dir(v), &id, false, &e), 0);
	cst_volume_drop_entry(c.handle);
	WAIT_UNTIL(({
		d = entry_open(other, key, LARGE, 0);
		if (d.rc == 0)
			cst_volume_entry_close(d.handle);
		d.rc == -ENOENT;
	}));
	assert_int_equal(cst_extent_read(&e, LARGE_BLOCKS - 1, &iov, 1, false, &bad), 0);
	cst_extent_close(&e);
	cst_volume_entry_close(c.handle);
	WAIT_UNTIL(used(other) <= before);
}

static void use_slot(struct cst_volume *v, struct cst_volume *other, const char *key)
{
	struct call c = entry_open(v, key, 5000, CST_VOLUME_CREATE);
	assert_int_equal(c.rc, -ENOENT);
	c = put_small(v, key, 5000, 0);
	assert_int_equal(c.rc, 0);
	assert_true(c.created);
	assert_int_equal(check_slot(v, &c, key, 5000), 1);
	struct call d = put_small(other, key, 5000, 0);
	assert_int_equal(d.rc, 0);
	assert_false(d.created);
	assert_memory_equal(&d.entry.slot, &c.entry.slot, sizeof(c.entry.slot));
	cst_volume_entry_close(d.handle);
	d = entry_open(other, key, 5000, 0);
	assert_int_equal(d.rc, 0);
	assert_int_equal(check_slot(other, &d, key, 5000), 1);
	cst_volume_entry_close(c.handle);
	cst_volume_touch(d.handle);
	cst_volume_entry_close(d.handle);
	assert_int_equal(put_small(v, key, CST_SLOT_MAX + 1, 0).rc, -EINVAL);
}

static void owner_and_client_do_the_same(void **state)
{
	struct fixture *f = *state;
	struct cst_volume *a = must_open(f->path), *b = must_open(f->path);
	assert_true(cst_volume_is_owner(a) && !cst_volume_is_owner(b));
	use_extent(a, b, "from owner");
	use_extent(b, a, "from client");
	use_slot(a, b, "small from owner");
	use_slot(b, a, "small from client");
	WAIT_UNTIL(in_use(a) == 0);
	cst_volume_close(b);
	cst_volume_close(a);
}

/* On tmpfs the owner writes slots at once. */
static void memory_does_the_same(void **state)
{
	char root[] = "/dev/shm/cst-volume-XXXXXX";
	(void)state;
	assert_non_null(mkdtemp(root));
	struct cst_volume *a = must_open(root), *b = must_open(root);
	use_extent(a, b, "from owner");
	use_slot(a, b, "small from owner");
	use_slot(b, a, "small from client");
	cst_volume_close(b);
	cst_volume_close(a);
	CST_AUTO_FREE char *command = cst_xasprintf("rm -rf %s", root);
	assert_int_equal(system(command), 0);
}

struct blocking {
	struct cst_volume *volume;
	int rc, done; /* done: atomic */
};

static void ask_in_answer(void *arg, const struct cst_volume_answer *answer)
{
	struct blocking *b = arg;
	b->rc = cst_volume_drop(b->volume, &answer->entry);
	cst_volume_entry_close(answer->handle);
	__atomic_store_n(&b->done, 1, __ATOMIC_RELEASE);
}

static void blocking_in_an_answer_is_refused(void **state)
{
	struct fixture *f = *state;
	struct cst_volume *a = must_open(f->path), *b = must_open(f->path);
	struct call c = put_small(a, "k", 100, 0);
	struct blocking blocking = {.volume = b};
	struct cst_cache_identity id;
	identify(&id, "k", 100);
	cst_volume_entry_open(b, &id, 0, ask_in_answer, &blocking);
	WAIT_UNTIL(__atomic_load_n(&blocking.done, __ATOMIC_ACQUIRE));
	assert_int_equal(blocking.rc, -EDEADLK);
	cst_volume_entry_close(c.handle);
	cst_volume_close(b);
	cst_volume_close(a);
}

static void damage_is_found_by_verifying(void **state)
{
	struct fixture *f = *state;
	struct cst_volume *a = must_open(f->path), *b = must_open(f->path);
	struct cst_cache_identity id;
	struct cst_extent e;
	struct call c = entry_open(b, "k", LARGE, CST_VOLUME_CREATE);
	assert_int_equal(fill_all(b, &c, "k", LARGE), 0);
	uint64_t before = used(a);
	identify(&id, "k", LARGE);
	assert_int_equal(cst_extent_open(cst_volume_dir(b), &id, true, &e), 0);
	assert_int_equal(pwrite(e.data, "damage", 6, 3 * CST_CACHE_BLOCK + 99), 6);
	assert_int_equal(pwrite(e.data, "damage", 6, LARGE - 6), 6);
	cst_extent_close(&e);
	assert_int_equal(complete(c.handle, true), -EBADMSG);
	/* Both are gone, and their room is free. */
	assert_int_equal(used(a), before - CST_CACHE_BLOCK - LARGE % CST_CACHE_BLOCK);
	assert_int_equal(check(a, "k", LARGE), LARGE_BLOCKS - 2);
	assert_int_equal(fill(b, &c, "k", LARGE, 3, 1), 0);
	assert_int_equal(fill(b, &c, "k", LARGE, LARGE_BLOCKS - 1, 1), 0);
	assert_int_equal(complete(c.handle, true), 0);
	cst_volume_entry_close(c.handle);
	cst_volume_close(b);
	cst_volume_close(a);
}

/* The kernel tells of it once; blocks that are right in its page cache only are never complete. */
static void what_could_not_be_synced_goes(void **state)
{
	struct fixture *f = *state;
	struct cst_volume *v = must_open(f->path);
	struct call c = entry_open(v, "k", LARGE, CST_VOLUME_CREATE);
	assert_int_equal(fill_all(v, &c, "k", LARGE), 0);
	__atomic_store_n(&sync_failure, ENOSPC, __ATOMIC_SEQ_CST);
	assert_int_equal(complete(c.handle, true), -ENOSPC);
	assert_int_equal(complete(c.handle, true), -EAGAIN);
	assert_int_equal(entry_open(v, "k", LARGE, 0).rc, -ENOENT);
	cst_volume_entry_close(c.handle);
	cst_volume_close(v);
}

/* Nor after a restart, when the disk failed for good. */
static void nor_after_a_restart(void **state)
{
	struct fixture *f = *state;
	struct cst_volume *v = must_open(f->path);
	struct call c = entry_open(v, "k", LARGE, CST_VOLUME_CREATE);
	assert_int_equal(fill_all(v, &c, "k", LARGE), 0);
	__atomic_store_n(&sync_failure, EIO, __ATOMIC_SEQ_CST);
	assert_int_equal(complete(c.handle, true), -EIO);
	cst_volume_entry_close(c.handle);
	cst_volume_close(v);
	v = must_open(f->path);
	assert_int_equal(entry_open(v, "k", LARGE, 0).rc, -ENOENT);
	cst_volume_close(v);
}

static void a_block_counts_once(void **state)
{
	struct fixture *f = *state;
	struct cst_volume *a = must_open(f->path), *b = must_open(f->path);
	struct call c = entry_open(a, "k", LARGE, CST_VOLUME_CREATE), d = entry_open(b, "k", LARGE, 0);
	uint64_t empty = used(a);
	assert_int_equal(fill_all(a, &c, "k", LARGE), 0);
	assert_int_equal(fill_all(b, &d, "k", LARGE), 0);
	assert_int_equal(used(a), empty + LARGE);
	cst_volume_entry_close(c.handle);
	cst_volume_entry_close(d.handle);
	cst_volume_close(b);
	cst_volume_close(a);
}

static void keeps_entries_over_a_restart(void **state)
{
	struct fixture *f = *state;
	struct cst_volume *a = must_open(f->path);
	struct call c = entry_open(a, "large", LARGE, CST_VOLUME_CREATE), d;
	assert_int_equal(fill_all(a, &c, "large", LARGE), 0);
	assert_int_equal(complete(c.handle, false), 0);
	cst_volume_entry_close(c.handle);
	c = put_small(a, "small", 3000, 0);
	cst_volume_entry_close(c.handle);
	cst_volume_close(a);
	a = must_open(f->path);
	c = entry_open(a, "large", LARGE, 0);
	d = entry_open(a, "small", 3000, 0);
	assert_int_equal(c.rc, 0);
	assert_int_equal(d.rc, 0);
	assert_true(c.entry.complete);
	assert_int_equal(check(a, "large", LARGE), LARGE_BLOCKS);
	assert_int_equal(check_slot(a, &d, "small", 3000), 1);
	cst_volume_entry_close(c.handle);
	cst_volume_entry_close(d.handle);
	cst_volume_close(a);
}

/* ---- administration, from both sides ---- */

static unsigned count_entries(struct cst_volume *v)
{
	struct cst_index_entry entries[7];
	uint64_t cursor = 0;
	unsigned count = 0;
	int n;
	while ((n = cst_volume_list(v, &cursor, entries, CST_ARRAY_LEN(entries))) > 0)
		count += (unsigned)n;
	assert_int_equal(n, 0);
	return count;
}

static void administration_from_both_sides(void **state)
{
	struct fixture *f = *state;
	struct cst_volume *v[2] = {must_open(f->path), must_open(f->path)};
	struct cst_index_stats stats;
	for (int i = 0; i < 40; i++) {
		char key[16];
		snprintf(key, sizeof(key), "key %d", i);
		struct call c = put_small(v[i % 2], key, 100, 0);
		assert_int_equal(c.rc, 0);
		cst_volume_entry_close(c.handle);
	}
	for (int i = 0; i < 2; i++) {
		CST_AUTO_BUF rules = CST_BUF_INIT;
		char key[] = {'k', 'e', 'y', ' ', (char)('0' + i), '\0'};
		assert_int_equal(count_entries(v[i]), 40 - i);
		struct call c = entry_open(v[i], key, 100, 0);
		assert_int_equal(c.rc, 0);
		assert_int_equal(cst_volume_set_pin(v[i], &c.entry, true), 0);
		assert_int_equal(cst_volume_stats(v[1 - i], &stats), 0);
		assert_int_equal(stats.pinned, 1);
		assert_int_equal(stats.quota, QUOTA);
		assert_int_equal(cst_volume_set_pin(v[i], &c.entry, false), 0);
		cst_volume_entry_close(c.handle);
		assert_int_equal(cst_volume_drop(v[i], &c.entry), 0);
		assert_int_equal(entry_open(v[1 - i], key, 100, 0).rc, -ENOENT);
		assert_int_equal(count_entries(v[1 - i]), 39 - i);
		assert_int_equal(cst_volume_pin_rule(v[i], "oss://test/p", true), 0);
		assert_int_equal(cst_volume_pin_rules(v[1 - i], &rules), 0);
		assert_int_equal(rules.len, sizeof("oss://test/p"));
		assert_string_equal(rules.data, "oss://test/p");
		assert_int_equal(cst_volume_pin_rule(v[1 - i], "oss://test/p", false), 0);
		assert_int_equal(cst_volume_pin_rules(v[i], &rules), 0);
		assert_int_equal(rules.len, 0);
	}
	/* More rules than a packet holds. */
	CST_AUTO_BUF rules = CST_BUF_INIT, others = CST_BUF_INIT;
	for (int i = 0; i < 300; i++) {
		CST_AUTO_FREE char *prefix = cst_xasprintf("oss://test/a rather long name of a folder, number %d/", i);
		assert_int_equal(cst_volume_pin_rule(v[i % 2], prefix, true), 0);
	}
	assert_int_equal(cst_volume_pin_rules(v[0], &rules), 0);
	assert_int_equal(cst_volume_pin_rules(v[1], &others), 0);
	assert_true(rules.len > 2 * CST_VOLUME_MESSAGE_MAX);
	assert_true(cst_slice_eq(cst_buf_slice(&rules), cst_buf_slice(&others)));
	cst_volume_close(v[1]);
	cst_volume_close(v[0]);
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(makes_a_private_directory),
		TEST(closes_its_own_directory),
		TEST(refuses_a_directory_with_other_things),
		TEST(refuses_a_directory_of_another_user),
		TEST(shared_directories_get_one_inside),
		TEST(links_in_shared_directories_are_not_followed),
		TEST(a_cache_that_others_made_is_refused),
		TEST(long_paths_work),
		TEST(owner_and_client_do_the_same),
		cmocka_unit_test(memory_does_the_same),
		TEST(blocking_in_an_answer_is_refused),
		TEST(damage_is_found_by_verifying),
		TEST(what_could_not_be_synced_goes),
		TEST(nor_after_a_restart),
		TEST(a_block_counts_once),
		TEST(keeps_entries_over_a_restart),
		TEST(administration_from_both_sides),
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
