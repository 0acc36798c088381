/* A volume: its directory, entries and administration; two of one directory in a process are an owner and its client, as two processes are. */
#include "volume_case.h"

#include "cache/volume_private.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <cmocka.h>

/* Instead of the library's: the disk fails when data is written back, once. */
static int sync_failure;
int fdatasync(int fd)
{
	errno = __atomic_exchange_n(&sync_failure, 0, __ATOMIC_SEQ_CST);
	return errno ? -1 : (int)syscall(SYS_fdatasync, fd);
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
	assert_int_equal(complete(c.handle, false), -ENODATA);
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
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
