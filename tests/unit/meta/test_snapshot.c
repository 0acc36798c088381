/* Saved listings: what is saved is what is known again, for as long as it may; a damaged file is not used at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/digest.h"
#include "meta/preload_private.h"
#include "meta/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static struct cst_meta *meta;
static int64_t now_ns;
static char dir_path[64], path[128];
static struct cst_snapshot snapshot;
static struct cst_snapshot_counts counts;
static struct cst_error err;

static int64_t test_clock(void)
{
	return now_ns;
}

static void start(void)
{
	meta = cst_meta_new(
		&(struct cst_meta_config){.list_ttl = 60 * CST_NS_PER_S, .symlinks = true, .clock = test_clock});
}

static void stop(void)
{
	cst_meta_stop(meta);
	cst_meta_free(meta);
	meta = NULL;
}

static int setup(void **state)
{
	(void)state;
	now_ns = 1000000 * CST_NS_PER_S;
	snprintf(dir_path, sizeof(dir_path), "/tmp/cst-snapshot-XXXXXX");
	assert_non_null(mkdtemp(dir_path));
	snprintf(path, sizeof(path), "%s/listings/one", dir_path);
	snapshot = (struct cst_snapshot){.path = path, .identity = CST_SLICE("oss://b/ at here")};
	start();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (meta)
		stop();
	CST_AUTO_FREE char *command = cst_xasprintf("rm -rf '%s'", dir_path);
	return system(command);
}

/* A directory of `count` entries; every fifth is a prefix. */
static void put_dir(const char *prefix, unsigned count, int64_t started)
{
	struct cst_names names = {0};
	for (unsigned i = 0; i < count; i++) {
		char suffix[40];
		bool is_prefix = i % 5 == 4;
		struct cst_object_info info = {.size = i, .mtime = 1000 + i, .type = i % 4};
		snprintf(suffix, sizeof(suffix), is_prefix ? "name%06u/" : "name%06u", i);
		snprintf(info.etag, sizeof(info.etag), i % 3 ? "0123456789ABCDEF0123456789ABCDEF" : "other-%u", i);
		cst_names_add(&names, cst_slice_of(suffix), is_prefix, &info);
	}
	names.has_marker = true;
	struct cst_installed what = {.started = started, .refreshed = started};
	assert_true(cst_preload_install(meta, cst_slice_of(prefix), &names, &what));
}

static void save(void)
{
	cst_error_clear(&err);
	assert_int_equal(cst_snapshot_save(meta, &snapshot, &counts, &err), 0);
}

static int load(void)
{
	cst_error_clear(&err);
	return cst_snapshot_load(meta, &snapshot, &counts, &err);
}

static void assert_known(const char *prefix, const char *name, unsigned i)
{
	CST_AUTO_ENTRY entry = CST_ENTRY_INIT;
	int64_t at;
	struct cst_dir *dir = cst_dir_get(meta, cst_slice_of(prefix));
	assert_int_equal(cst_dir_find(dir, name, &entry, &at), 0);
	assert_int_equal(entry.size, i % 4 == CST_OBJECT_SYMLINK ? 0 : i);
	assert_int_equal(entry.mtime, 1000 + i);
	assert_int_equal(cst_dir_find(dir, "absent", &entry, &at), -ENOENT);
	cst_dir_park(dir);
	cst_dir_unref(dir);
}

static void what_was_saved_is_known(void **state)
{
	struct stat st;
	(void)state;
	put_dir("a/", 3, now_ns);
	put_dir("a/large/", 5003, now_ns - CST_NS_PER_S);
	put_dir("", 0, now_ns);
	save();
	assert_int_equal(counts.directories, 3);
	assert_int_equal(counts.names, 5006);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(counts.bytes, st.st_size);
	stop();
	start();
	now_ns += 7 * CST_NS_PER_S; /* another process's clock begins elsewhere */
	assert_int_equal(load(), 0);
	assert_int_equal(counts.directories, 3);
	assert_int_equal(counts.names, 5006);
	assert_known("a/", "name000002", 2);
	assert_known("a/large/", "name005002", 5002);
	struct cst_dir *dir = cst_dir_get(meta, CST_SLICE("a/large/"));
	assert_true(dir->listing->names.has_marker);
	assert_false(cst_dir_take_unchecked(dir));
	/* It is as old as it was. */
	now_ns += 58 * CST_NS_PER_S;
	assert_true(cst_dir_is_listed(dir));
	now_ns += 2 * CST_NS_PER_S;
	assert_false(cst_dir_is_listed(dir));
	cst_dir_unref(dir);
}

/* The clock that listings are counted by begins anew with the machine. */
static void a_restart_of_the_machine(void **state)
{
	(void)state;
	put_dir("a/", 3, now_ns);
	save();
	stop();
	now_ns = 0;
	start();
	assert_int_equal(load(), 0);
	assert_int_equal(counts.directories, 1);
	assert_known("a/", "name000002", 2);
}

static void what_is_old_stays_away(void **state)
{
	(void)state;
	put_dir("old/", 3, now_ns - 50 * CST_NS_PER_S);
	put_dir("young/", 3, now_ns);
	save();
	assert_int_equal(counts.directories, 2);
	now_ns += 30 * CST_NS_PER_S;
	save(); /* the old one is too old by now */
	assert_int_equal(counts.directories, 1);
	stop();
	start();
	assert_int_equal(load(), 0);
	assert_int_equal(counts.directories, 1);
	assert_known("young/", "name000001", 1);
}

static void a_longer_time_may_be_asked_for(void **state)
{
	(void)state;
	snapshot.max_age = 3600 * CST_NS_PER_S;
	put_dir("a/", 3, now_ns - 50 * CST_NS_PER_S);
	now_ns += 1000 * CST_NS_PER_S;
	save();
	assert_int_equal(counts.directories, 1);
	stop();
	start();
	assert_int_equal(load(), 0);
	assert_known("a/", "name000001", 1);
	struct cst_dir *dir = cst_dir_get(meta, CST_SLICE("a/"));
	assert_true(cst_dir_take_unchecked(dir));
	assert_false(cst_dir_take_unchecked(dir)); /* once */
	now_ns += 2500 * CST_NS_PER_S;
	assert_true(cst_dir_is_listed(dir));
	now_ns += 100 * CST_NS_PER_S;
	assert_false(cst_dir_is_listed(dir));
	cst_dir_unref(dir);
}

static void contradicted_names_are_asked_for(void **state)
{
	CST_AUTO_ENTRY entry = CST_ENTRY_INIT;
	int64_t at;
	(void)state;
	put_dir("a/", 10, now_ns);
	struct cst_dir *dir = cst_dir_get(meta, CST_SLICE("a/"));
	cst_dir_doubt(dir, "name000001");
	cst_dir_doubt(dir, "name000004"); /* a prefix */
	cst_dir_park(dir);
	cst_dir_unref(dir);
	save();
	stop();
	start();
	assert_int_equal(load(), 0);
	dir = cst_dir_get(meta, CST_SLICE("a/"));
	assert_int_equal(cst_dir_find(dir, "name000001", &entry, &at), -EAGAIN);
	assert_int_equal(cst_dir_find(dir, "name000004", &entry, &at), -EAGAIN);
	assert_int_equal(cst_dir_find(dir, "name000002", &entry, &at), 0);
	cst_dir_unref(dir);
}

static char *read_file(size_t *size)
{
	int fd = open(path, O_RDONLY);
	struct stat st;
	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	char *bytes = cst_xcalloc(1, (size_t)st.st_size + 1);
	assert_int_equal(read(fd, bytes, (size_t)st.st_size), st.st_size);
	close(fd);
	*size = (size_t)st.st_size;
	return bytes;
}

/* Each byte changed, each length cut: nothing of it is used, or (never) all of it is as it was. */
static void damage_is_seen(void **state)
{
	size_t size;
	(void)state;
	put_dir("a/", 20, now_ns);
	put_dir("b/", 3, now_ns);
	save();
	CST_AUTO_FREE char *bytes = read_file(&size);
	cst_parked_drop(meta, CST_SLICE(""));
	now_ns++; /* dropped at this moment: what was asked for until then is not put in place */
	for (size_t i = 0; i < size; i++) {
		bytes[i] ^= (char)(1 + i % 255);
		int rc = cst_snapshot_read(meta, &snapshot, (struct cst_slice){bytes, size}, &counts, &err);
		assert_true(rc == -EBADMSG);
		bytes[i] ^= (char)(1 + i % 255);
		assert_int_equal(cst_snapshot_read(meta, &snapshot, (struct cst_slice){bytes, i}, &counts, &err),
				 -EBADMSG);
		assert_int_equal(meta->preloads.count, 0);
	}
	assert_int_equal(cst_snapshot_read(meta, &snapshot, (struct cst_slice){bytes, size}, &counts, &err), 0);
	/* Something after the end, a file of something else, no file, one that is none. */
	assert_int_equal(cst_snapshot_read(meta, &snapshot, (struct cst_slice){bytes, size + 1}, &counts, &err),
			 -EBADMSG);
	snapshot.identity = CST_SLICE("oss://other/");
	assert_int_equal(load(), -ESTALE);
	snapshot.path = dir_path;
	assert_int_equal(load(), -EBADMSG);
	snapshot.path = "/nowhere/at/all";
	assert_int_equal(load(), -ENOENT);
	assert_true(cst_snapshot_save(meta, &snapshot, &counts, &err) < 0);
}

static void own_changes_are_not_saved(void **state)
{
	(void)state;
	put_dir("a/", 3, now_ns);
	put_dir("b/", 3, now_ns);
	struct cst_dir *dir = cst_dir_get(meta, CST_SLICE("a/"));
	now_ns++;
	cst_dir_put_gone(dir, "name000001", now_ns);
	save();
	assert_int_equal(counts.directories, 1);
	cst_dir_unref(dir);
}

/* Two mounts in containers of their own may even have the same process number. */
static bool savers_end; /* atomic */
static struct cst_meta *other_meta;
static void *other_saver(void *arg)
{
	struct cst_snapshot_counts other;
	(void)arg;
	while (!__atomic_load_n(&savers_end, __ATOMIC_ACQUIRE))
		CST_ASSERT(cst_snapshot_save(other_meta, &snapshot, &other, &(struct cst_error){0}) == 0);
	return NULL;
}

static void two_mounts_save_at_once(void **state)
{
	pthread_t other;
	char left[160];
	(void)state;
	put_dir("a/", 3000, now_ns);
	struct cst_meta *mine = meta;
	start();
	other_meta = meta;
	put_dir("b/", 5000, now_ns);
	meta = mine;
	save();
	/* What a killed mount left. */
	snprintf(left, sizeof(left), "%s.new", path);
	FILE *file = fopen(left, "w");
	assert_non_null(file);
	for (int i = 0; i < 100000; i++)
		fputs("half of a file ", file);
	fclose(file);
	savers_end = false;
	assert_int_equal(pthread_create(&other, NULL, other_saver, NULL), 0);
	for (int i = 0; i < 50; i++) {
		save();
		struct cst_snapshot_counts seen;
		struct cst_meta *none = NULL;
		size_t size;
		char *bytes = read_file(&size);
		assert_int_equal(cst_snapshot_read(none, &snapshot, (struct cst_slice){bytes, size}, &seen, &err), 0);
		free(bytes);
	}
	__atomic_store_n(&savers_end, true, __ATOMIC_RELEASE);
	pthread_join(other, NULL);
	assert_true(access(left, F_OK) < 0);
	stop();
	meta = other_meta;
}

/* Written at a time that is yet to come: the clock was set back, and ages mean nothing. */
static void a_clock_that_went_back(void **state)
{
	size_t size;
	uint32_t head[2];
	(void)state;
	put_dir("a/", 3, now_ns);
	save();
	CST_AUTO_FREE char *bytes = read_file(&size);
	stop();
	start();
	memcpy(head, bytes, sizeof(head));
	bytes[8 + 2 + 8]++; /* the highest byte of when it was written */
	head[1] = cst_crc32c(0, bytes + sizeof(head), head[0]);
	memcpy(bytes, head, sizeof(head));
	assert_int_equal(cst_snapshot_read(meta, &snapshot, (struct cst_slice){bytes, size}, &counts, &err), 0);
	assert_int_equal(counts.directories, 0);
	assert_int_equal(counts.old, 1);
}

/* Who has the directory no longer, before it was listed again, has not looked after it; and what can't be listed ends with list_ttl. */
static void what_is_unchecked_stays_so(void **state)
{
	(void)state;
	snapshot.max_age = 3600 * CST_NS_PER_S;
	put_dir("a/", 3, now_ns - 100 * CST_NS_PER_S + 50 * CST_NS_PER_S);
	now_ns += 100 * CST_NS_PER_S;
	save();
	stop();
	start();
	assert_int_equal(load(), 0);
	struct cst_dir *dir = cst_dir_get(meta, CST_SLICE("a/"));
	assert_true(cst_dir_take_unchecked(dir));
	assert_false(cst_dir_take_unchecked(dir));
	cst_dir_park(dir);
	cst_dir_unref(dir);
	dir = cst_dir_get(meta, CST_SLICE("a/"));
	assert_true(cst_dir_is_listed(dir));
	assert_true(cst_dir_take_unchecked(dir));
	cst_dir_end_unchecked(dir);
	assert_false(cst_dir_is_listed(dir));
	cst_dir_unref(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_was_saved_is_known, setup, teardown),
		cmocka_unit_test_setup_teardown(a_restart_of_the_machine, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_old_stays_away, setup, teardown),
		cmocka_unit_test_setup_teardown(a_longer_time_may_be_asked_for, setup, teardown),
		cmocka_unit_test_setup_teardown(contradicted_names_are_asked_for, setup, teardown),
		cmocka_unit_test_setup_teardown(damage_is_seen, setup, teardown),
		cmocka_unit_test_setup_teardown(own_changes_are_not_saved, setup, teardown),
		cmocka_unit_test_setup_teardown(two_mounts_save_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_clock_that_went_back, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_unchecked_stays_so, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
