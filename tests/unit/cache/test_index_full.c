/* The index on a file system that runs full: nothing breaks, nothing is claimed that isn't so, and it goes on when there is room again. Each test
 * has a small tmpfs in a mount namespace of the program's own. */
#include "index_fixture.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#define LARGE (4 * CST_CACHE_BLOCK)

static bool may_mount;

static int setup(void **state)
{
	struct fixture *f = CST_NEW(struct fixture);
	fixture_dir(f, 256 * MIB);
	*state = f;
	if (!may_mount || mount("tmpfs", f->path, "tmpfs", 0, "size=8m,nr_inodes=2000,mode=0700") < 0) {
		may_mount = false;
		return 0;
	}
	close(f->dir);
	f->dir = f->config.dir = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fixture_open(f);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	fixture_close(f);
	if (may_mount)
		umount2(f->path, MNT_DETACH);
	return fixture_free(state);
}

static void need_mount(void)
{
	if (!may_mount)
		skip();
}

static uint64_t free_of(struct fixture *f)
{
	struct statvfs v;
	assert_int_equal(fstatvfs(f->dir, &v), 0);
	return (uint64_t)v.f_bavail * v.f_frsize;
}

/* As another program would: takes all that is free. */
static void hog(struct fixture *f)
{
	static const char bytes[65536];
	CST_AUTO_CLOSE int fd = openat(f->dir, "hog", O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	for (size_t len = sizeof(bytes); len;)
		if (write(fd, bytes, len) < 0)
			len /= 2;
}

static int make(struct fixture *f, unsigned n, bool complete)
{
	static char bytes[CST_CACHE_BLOCK];
	struct cst_index_entry e;
	struct cst_extent x;
	struct iovec v = {bytes, sizeof(bytes)};
	bool created;
	int rc = open_as(f, n, LARGE, 1, true, false, &e, &created);
	if (rc < 0)
		return rc;
	struct object o = object(n, LARGE, 1);
	o.id.bucket = (struct cst_slice){NULL, 0};
	rc = cst_index_charge(f->x, e.name, e.version, LARGE);
	if (rc == 0)
		rc = cst_extent_open(f->dir, &o.id, true, &x);
	if (rc == 0) {
		for (unsigned b = 0; b < 4 && rc == 0; b++)
			rc = cst_extent_write(&x, b, &v, 1);
		cst_extent_close(&x);
	}
	if (rc == 0 && complete)
		rc = cst_index_complete(f->x, e.name, e.version);
	close_entry(f, &e);
	return rc;
}

/* The quota is larger than the disk: the guard evicts, the disk never runs full because of the cache. */
static void test_quota_above_disk(void **state)
{
	struct fixture *f = *state;
	need_mount();
	/* Who comes before others have gone is refused, and asks again. */
	for (unsigned i = 0; i < 200; i++)
		eventually(make(f, i, i % 2) == 0);
	assert_true(stats_of(f).evicted >= 200 - 16);
	assert_int_equal(f->failures, 0);
	index_check(f->x);
}

/* Others fill the disk: entries go, and nothing new comes, until there is room. */
static void test_others_fill_it(void **state)
{
	struct fixture *f = *state;
	need_mount();
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(make(f, i, true), 0);
	pthread_mutex_lock(&f->x->lock);
	f->x->config.limits.keep_free = MIB;
	pthread_mutex_unlock(&f->x->lock);
	for (int i = 0; i < 2; i++) {
		uint64_t before = stats_of(f).entries;
		hog(f);
		eventually(free_of(f) >= MIB);
		assert_in_range(stats_of(f).entries, 1, before - 2);
	}
	assert_int_equal(unlinkat(f->dir, "hog", 0), 0);
	eventually(make(f, 100, true) == 0);
	index_check(f->x);
}

/* Not even the log can grow. */
static void test_log_full(void **state)
{
	struct fixture *f = *state;
	need_mount();
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(make(f, i, true), 0);
	pthread_mutex_lock(&f->x->lock);
	f->x->rewrite_least = UINT32_MAX; /* it would be shorter then */
	pthread_mutex_unlock(&f->x->lock);
	/* More records than room was kept for, of entries that are all in use, so that evicting them makes no room. */
	struct cst_index_entry e[8], fresh;
	bool created, refused = false;
	for (unsigned i = 0; i < 8; i++)
		if (open_as(f, i, LARGE, 1, false, false, &e[i], &created) < 0)
			e[i] = (struct cst_index_entry){0};
	hog(f);
	for (unsigned i = 0; i < 40000; i++) {
		cst_index_pin(f->x, e[i % 8].name, e[i % 8].version, i / 8 % 2);
		if (i % 4096 == 0) {
			hog(f);
			refused |= cst_index_complete(f->x, e[0].name, e[0].version) == -ENOSPC;
		}
	}
	refused |= cst_index_complete(f->x, e[0].name, e[0].version) == -ENOSPC;
	assert_true(refused);
	assert_int_equal(open_as(f, 50, LARGE, 1, true, false, &fresh, &created), -ENOSPC);
	/* What is dropped gives room all the same. */
	assert_int_equal(cst_index_drop(f->x, e[3].name, e[3].version), 0);
	eventually(!file_exists(f, &e[3]));
	for (unsigned i = 0; i < 8; i++)
		if (e[i].size)
			close_entry(f, &e[i]);
	assert_int_equal(unlinkat(f->dir, "hog", 0), 0);
	eventually(make(f, 51, true) == 0);
	assert_int_equal(f->failures, 0);
	uint64_t entries = stats_of(f).entries;
	fixture_close(f);
	fixture_open(f);
	assert_int_equal(stats_of(f).entries, entries);
}

/* No inodes left: extents go, which have two each. */
static void test_inodes(void **state)
{
	struct fixture *f = *state;
	char name[32];
	need_mount();
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(make(f, i, false), 0);
	for (unsigned i = 0; i < 2000; i++) {
		snprintf(name, sizeof(name), "file%u", i);
		int fd = openat(f->dir, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		if (fd >= 0)
			close(fd);
	}
	eventually(stats_of(f).entries == 0);
	assert_int_equal(make(f, 100, false), -ENOSPC);
	for (unsigned i = 0; i < 2000; i++) {
		snprintf(name, sizeof(name), "file%u", i);
		unlinkat(f->dir, name, 0);
	}
	eventually(make(f, 100, false) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_quota_above_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(test_others_fill_it, setup, teardown),
		cmocka_unit_test_setup_teardown(test_log_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_inodes, setup, teardown),
	};
	may_mount = unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
	return cmocka_run_group_tests_name("cache/index_full", tests, NULL, NULL);
}
