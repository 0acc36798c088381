/* What the staging area promises, one by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define CST_LOG_AREA "test"
#include "base/log.h"
#include "disk.h"
#include "stage/plan.h"
#include "stage/stage.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define KIB 1024u

struct fixture {
	struct disk *disk;
	struct cst_stage *s;
	struct cst_stage_config config;
};

static int setup(void **state)
{
	struct fixture *x = CST_NEW(struct fixture);
	x->disk = disk_new();
	x->config = (struct cst_stage_config){.io = disk_io(x->disk), .owner = "oss://b/p", .journal_size = 1};
	*state = x;
	return cst_stage_open(&x->config, &x->s, NULL);
}

static int teardown(void **state)
{
	struct fixture *x = *state;
	cst_stage_close(x->s);
	disk_free(x->disk);
	free(x);
	return 0;
}

static bool keep_none(void *arg, uint64_t unit)
{
	(void)arg;
	(void)unit;
	return false;
}

/* A power cut that loses all that was not synced. */
static void restart(struct fixture *x)
{
	cst_stage_close(x->s);
	disk_restart(x->disk, keep_none, NULL);
	assert_int_equal(cst_stage_open(&x->config, &x->s, NULL), 0);
}

static const struct cst_stage_base none, old = {.exists = true, .size = 100 * KIB, .etag = "old"};

static struct cst_stage_file *file(struct fixture *x, const struct cst_stage_base *base)
{
	struct cst_stage_file *f;
	assert_int_equal(cst_stage_file_new(x->s, CST_SLICE("dir/name"), base, base->exists, &f), 0);
	return f;
}

static void put(struct cst_stage_file *f, uint64_t offset, size_t len, char byte)
{
	CST_AUTO_FREE char *data = cst_xmalloc(len);
	memset(data, byte, len);
	assert_int_equal(cst_stage_write(f, offset, data, len), 0);
}

static void found(void *arg, struct cst_stage_file *f, const struct cst_stage_info *info)
{
	(void)info;
	*(struct cst_stage_file **)arg = f;
}

static struct cst_stage_file *only_file(struct fixture *x)
{
	struct cst_stage_file *f = NULL;
	cst_stage_each(x->s, found, &f);
	return f;
}

/* [offset, offset + len) is all `byte`, local. */
static void expect(struct cst_stage_file *f, bool sealed, uint64_t offset, size_t len, char byte)
{
	CST_AUTO_FREE char *data = cst_xmalloc(len);
	struct cst_stage_gap gap;
	struct cst_stage_gaps gaps = {.gaps = &gap, .room = 1};
	ssize_t got = sealed ? cst_stage_read_sealed(f, offset, data, len, &gaps)
			     : cst_stage_read(f, offset, data, len, &gaps);
	assert_int_equal(got, len);
	assert_int_equal(gaps.count, 0);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(data[i], byte);
}

/* ---- reading and writing ---- */

static void test_a_write_needs_no_fetch(void **state)
{
	struct fixture *x = *state;
	struct cst_stage_file *f = file(x, &old);
	struct cst_stage_gap gap[4];
	struct cst_stage_gaps gaps = {.gaps = gap, .room = 4};
	char data[300];
	put(f, 1001, 3, 'a');
	put(f, 1100, 1, 'b');
	assert_int_equal(cst_stage_read(f, 1000, data, sizeof(data), &gaps), sizeof(data));
	assert_int_equal(gaps.count, 3);
	assert_true(gap[0].offset == 1000 && gap[0].length == 1);
	assert_true(gap[1].offset == 1004 && gap[1].length == 96);
	assert_true(gap[2].offset == 1101 && gap[2].length == 199);
	assert_string_equal(gaps.base.etag, "old");
	assert_true(data[1] == 'a' && data[3] == 'a' && data[100] == 'b');
	/* Less room for gaps: the answer ends before the one that doesn't fit. */
	gaps.room = 1;
	assert_int_equal(cst_stage_read(f, 1000, data, sizeof(data), &gaps), 4);
	gaps.room = 0;
	assert_int_equal(cst_stage_read(f, 1000, data, sizeof(data), &gaps), 0);
	assert_int_equal(cst_stage_read(f, 1001, data, sizeof(data), &gaps), 3);
	/* The end of the file. */
	gaps.room = 4;
	assert_int_equal(cst_stage_read(f, old.size - 10, data, sizeof(data), &gaps), 10);
	assert_int_equal(cst_stage_read(f, old.size, data, sizeof(data), &gaps), 0);
}

static void test_what_was_cut_off_is_zeros(void **state)
{
	struct fixture *x = *state;
	struct cst_stage_file *f = file(x, &old);
	assert_int_equal(cst_stage_truncate(f, 50), 0);
	assert_int_equal(cst_stage_truncate(f, 5000), 0);
	expect(f, false, 50, 4950, 0);
	put(f, 10000, 5, 'x');
	expect(f, false, 5000, 5000, 0);
	assert_int_equal(cst_stage_punch(f, 10002, 100), 0);
	assert_int_equal(cst_stage_file_size(f), 10005);
	expect(f, false, 10000, 2, 'x');
	expect(f, false, 10002, 3, 0);
	assert_int_equal(cst_stage_write(f, UINT64_MAX / 2, "a", 1), -EFBIG);
	assert_int_equal(cst_stage_truncate(f, UINT64_MAX / 2), -EFBIG);
}

static void test_fills_go_only_where_nothing_is(void **state)
{
	struct fixture *x = *state;
	struct cst_stage_file *f = file(x, &old);
	struct cst_stage_base other = old;
	char data[100];
	memset(data, 'c', sizeof(data));
	strcpy(other.etag, "other");
	put(f, 20, 10, 'a');
	assert_int_equal(cst_stage_fill(f, &other, 0, data, sizeof(data)), 0);
	struct cst_stage_gap gap[4];
	struct cst_stage_gaps gaps = {.gaps = gap, .room = 4};
	assert_int_equal(cst_stage_read(f, 0, data, sizeof(data), &gaps), sizeof(data));
	assert_int_equal(gaps.count, 2);
	memset(data, 'c', sizeof(data));
	assert_int_equal(cst_stage_fill(f, &old, 0, data, sizeof(data)), 0);
	expect(f, false, 0, 20, 'c');
	expect(f, false, 20, 10, 'a');
	expect(f, false, 30, 70, 'c');
	/* A restart knows nothing of it. */
	assert_int_equal(cst_stage_sync(f), 0);
	restart(x);
	f = only_file(x);
	assert_int_equal(cst_stage_read(f, 0, data, sizeof(data), &gaps), sizeof(data));
	assert_int_equal(gaps.count, 2);
}

/* ---- publications ---- */

static void take_plan(void *arg, const struct cst_extents *map, uint64_t size, const struct cst_stage_base *base)
{
	static const struct cst_object_limits limits = {
		.part_min = 1000, .part_max = 1 << 30, .put_max = 1 << 30, .copy_max = 1 << 30, .parts_max = 10000};
	assert_int_equal(cst_stage_plan(map, size, base, &limits, 8000, arg), 0);
}

static struct cst_stage_plan plan_of(struct cst_stage_file *f)
{
	struct cst_stage_plan plan;
	assert_int_equal(cst_stage_sealed(f, take_plan, &plan), 0);
	struct cst_stage_plan told = plan;
	cst_stage_plan_fini(&plan);
	told.parts = NULL;
	return told;
}

static void test_sealed_bytes_stay(void **state)
{
	struct fixture *x = *state;
	struct cst_stage_file *f = file(x, &none);
	struct cst_stage_base first = {.exists = true, .etag = "first"};
	put(f, 0, 10000, 'a');
	assert_int_equal(cst_stage_seal(f, CST_SLICE("w1"), true), 0);
	assert_int_equal(cst_stage_seal(f, CST_SLICE("w2"), true), -EBUSY);
	put(f, 100, 50, 'b');
	put(f, 9990, 100, 'b');
	assert_int_equal(cst_stage_punch(f, 5000, 1000), 0);
	expect(f, true, 0, 10000, 'a');
	assert_int_equal(cst_stage_truncate(f, 7), 0);
	put(f, 7, 93, 'c');
	assert_int_equal(cst_stage_sync(f), 0);
	expect(f, true, 0, 10000, 'a');
	assert_int_equal(plan_of(f).upload, 10000);
	/* So it does over a restart. */
	restart(x);
	f = only_file(x);
	expect(f, true, 0, 10000, 'a');
	expect(f, false, 0, 7, 'a');
	expect(f, false, 7, 93, 'c');
	assert_int_equal(cst_stage_published(f, &first), 0);
	assert_int_equal(cst_stage_published(f, &first), -EINVAL);
	/* Next only what changed since: 7 bytes of the first version are still the same. */
	assert_int_equal(cst_stage_seal(f, CST_SLICE("w3"), true), 0);
	struct cst_stage_plan plan = plan_of(f);
	assert_int_equal(plan.kind, CST_STAGE_PLAN_PUT);
	assert_int_equal(plan.upload, 100);
	assert_int_equal(plan.fetch, 0); /* and they are here still */
	assert_int_equal(cst_stage_unpublished(f), 0);
	expect(f, false, 7, 93, 'c');
}

static uint64_t used(struct fixture *x)
{
	struct cst_stage_stats stats;
	cst_stage_stats(x->s, &stats);
	return stats.used - stats.journal.capacity;
}

/* Both staging files are used in turn; what neither needs is given back. */
static void test_room_of_publications(void **state)
{
	struct fixture *x = *state;
	struct cst_stage_file *f = file(x, &none);
	put(f, 0, 64 * KIB, 'a');
	for (unsigned i = 0; i < 10; i++) {
		struct cst_stage_base version = {.exists = true};
		snprintf(version.etag, sizeof(version.etag), "v%u", i);
		assert_int_equal(cst_stage_seal(f, CST_SLICE("w"), i % 2), 0);
		put(f, 0, 64 * KIB, (char)('b' + i));
		expect(f, true, 0, 64 * KIB, (char)('a' + i));
		assert_true(used(x) <= 128 * KIB + 4096);
		assert_int_equal(cst_stage_published(f, &version), 0);
		assert_int_equal(cst_stage_sync(f), 0);
		assert_int_equal(used(x), 64 * KIB);
	}
	assert_int_equal(cst_stage_file_forget(f), 0);
	f = file(x, &none); /* the journal goes on: what was forgotten is given back */
	put(f, 0, 1, 'z');
	assert_int_equal(cst_stage_sync(f), 0);
	assert_int_equal(used(x), 4096);
}

/* A file that nobody confirmed costs no sync and no record. */
static void test_costs(void **state)
{
	struct fixture *x = *state;
	struct cst_stage_stats before, after;
	struct cst_stage_base version = {.exists = true, .etag = "v"};
	cst_stage_stats(x->s, &before);
	struct cst_stage_file *f = file(x, &none);
	put(f, 0, 4096, 'a');
	assert_int_equal(cst_stage_seal(f, CST_SLICE("w"), false), 0);
	assert_int_equal(cst_stage_published(f, &version), 0);
	assert_int_equal(cst_stage_file_forget(f), 0);
	cst_stage_stats(x->s, &after);
	assert_int_equal(after.datasyncs, before.datasyncs);
	assert_int_equal(after.journal.syncs, before.journal.syncs);
	assert_int_equal(after.journal.records, before.journal.records);
	/* Confirmed: one sync of the data, one of the journal. */
	f = file(x, &none);
	put(f, 0, 4096, 'a');
	assert_int_equal(cst_stage_sync(f), 0);
	cst_stage_stats(x->s, &after);
	assert_int_equal(after.datasyncs, before.datasyncs + 1);
	assert_int_equal(after.journal.syncs, before.journal.syncs + 1);
	/* Again, without a change: nothing. */
	assert_int_equal(cst_stage_sync(f), 0);
	assert_int_equal(cst_stage_sync(f), 0);
	cst_stage_stats(x->s, &before);
	assert_int_equal(after.datasyncs, before.datasyncs);
	assert_int_equal(after.journal.syncs, before.journal.syncs);
	/* Written on from front to end: few extents, few records. */
	for (unsigned i = 1; i < 100; i++)
		put(f, i * 4096u, 4096, 'a');
	assert_int_equal(cst_stage_sync(f), 0);
	cst_stage_stats(x->s, &after);
	assert_int_equal(after.journal.records, before.journal.records + 2); /* where, how long */
}

static void test_conflict_is_kept(void **state)
{
	struct fixture *x = *state;
	struct cst_stage_file *f = file(x, &none);
	put(f, 0, 1000, 'a');
	assert_int_equal(cst_stage_seal(f, CST_SLICE("w"), false), 0);
	put(f, 0, 10, 'b');
	assert_int_equal(cst_stage_conflict(f, CST_SLICE("someone else")), 0);
	assert_int_equal(cst_stage_write(f, 0, "x", 1), -ESTALE);
	assert_int_equal(cst_stage_truncate(f, 0), -ESTALE);
	assert_int_equal(cst_stage_seal(f, CST_SLICE("w"), false), -EBADF);
	restart(x);
	f = only_file(x);
	expect(f, false, 0, 10, 'b');
	expect(f, false, 10, 990, 'a');
	assert_int_equal(cst_stage_write(f, 0, "x", 1), -ESTALE);
	assert_int_equal(cst_stage_file_forget(f), 0);
	assert_null(only_file(x));
}

static void tell_key(void *arg, const struct cst_stage_info *info)
{
	struct cst_buf *text = arg;
	cst_buf_printf(text, "%.*s %.*s %s %d %d", (int)info->key.len, info->key.data, (int)info->attributes.len,
		       info->attributes.data, info->base.etag, info->changed, info->sealed);
}

static void test_attributes_and_moves(void **state)
{
	struct fixture *x = *state;
	struct cst_stage_base copy = old, larger = {.exists = true, .size = 200 * KIB, .etag = "larger"};
	CST_AUTO_BUF text = CST_BUF_INIT;
	struct cst_stage_file *f = file(x, &old);
	strcpy(copy.etag, "copy");
	assert_int_equal(cst_stage_set_attributes(f, CST_SLICE("mode=0600")), 0);
	put(f, 0, 10, 'a');
	assert_int_equal(cst_stage_sync(f), 0);
	assert_int_equal(cst_stage_move(f, CST_SLICE("there"), &larger), -EINVAL); /* other bytes */
	assert_int_equal(cst_stage_seal(f, CST_SLICE("w"), true), 0);
	assert_int_equal(cst_stage_move(f, CST_SLICE("there"), &copy), -EBUSY);
	assert_int_equal(cst_stage_unpublished(f), 0);
	assert_int_equal(cst_stage_move(f, CST_SLICE("there"), &copy), 0);
	assert_int_equal(cst_stage_sync(f), 0);
	restart(x);
	cst_stage_file_info(only_file(x), tell_key, &text);
	assert_string_equal(text.data, "there mode=0600 copy 1 0");
	/* All of it is here: whatever version is there can be replaced. */
	f = only_file(x);
	put(f, 0, old.size, 'n');
	assert_int_equal(cst_stage_move(f, CST_SLICE("other"), &larger), 0);
	assert_int_equal(cst_stage_sync(f), 0);
	restart(x);
	expect(only_file(x), false, 0, old.size, 'n');
}

/* ---- failures ---- */

static void test_a_sync_that_failed_is_final(void **state)
{
	struct fixture *x = *state;
	struct cst_stage_file *f = file(x, &none), *other;
	put(f, 0, 100, 'a');
	assert_int_equal(cst_stage_sync(f), 0);
	put(f, 0, 100, 'b');
	disk_fail_after(x->disk, 1, -EIO); /* the data */
	assert_int_equal(cst_stage_sync(f), -EIO);
	assert_int_equal(cst_stage_sync(f), -EIO);
	assert_int_equal(cst_stage_write(f, 0, "x", 1), -EIO);
	assert_int_equal(cst_stage_seal(f, CST_SLICE("w"), false), -EIO);
	assert_int_equal(cst_stage_file_failed(f), -EIO);
	/* Others go on. */
	assert_int_equal(cst_stage_file_new(x->s, CST_SLICE("other"), &none, false, &other), 0);
	put(other, 0, 10, 'o');
	assert_int_equal(cst_stage_sync(other), 0);
	/* Until the journal fails: then nobody is told that something survives. */
	put(other, 0, 10, 'p');
	disk_fail_after(x->disk, 3, -EIO); /* data, write and sync of the journal */
	assert_int_equal(cst_stage_sync(other), -EIO);
	assert_int_equal(cst_stage_write(other, 0, "q", 1), -EIO);
	assert_int_equal(cst_stage_sync(other), -EIO);
	struct cst_stage_op op = {.kind = CST_RECORD_UNLINK, .path = CST_SLICE("x")};
	assert_int_equal(cst_stage_op_begin(x->s, &op), -EIO);
	restart(x);
	struct cst_stage_stats stats;
	cst_stage_stats(x->s, &stats);
	assert_int_equal(stats.files, 2);
}

static int reopen_with(struct fixture *x, uint64_t quota, uint64_t keep_free)
{
	cst_stage_close(x->s);
	x->config.quota = quota;
	x->config.keep_free = keep_free;
	return cst_stage_open(&x->config, &x->s, NULL);
}

/* Refused before it is accepted; what was accepted is synced and published all the same. */
static void test_no_room(void **state)
{
	struct fixture *x = *state;
	struct cst_stage_stats stats;
	cst_stage_stats(x->s, &stats);
	for (unsigned how = 0; how < 3; how++) {
		uint64_t room = 300 * KIB, accepted = 0;
		struct cst_stage_base version = {.exists = true, .etag = "v"};
		char data[4096] = {1};
		disk_set_space(x->disk, how == 0 ? UINT64_MAX : how == 1 ? room : room + 512 * KIB);
		assert_int_equal(reopen_with(x, how == 0 ? stats.journal.capacity + room : 0, how == 2 ? 512 * KIB : 0),
				 0);
		struct cst_stage_file *f = file(x, &none);
		int rc;
		/* Every other block: many extents. */
		while ((rc = cst_stage_write(f, accepted * 8192, data, sizeof(data))) == 0)
			accepted++;
		assert_int_equal(rc, -ENOSPC);
		assert_in_range(accepted, 60, 75);
		assert_int_equal(cst_stage_write(f, 1 << 20, data, 1), -ENOSPC);
		assert_int_equal(cst_stage_file_size(f), (accepted - 1) * 8192 + 4096);
		/* Where something is it can be overwritten. */
		assert_int_equal(cst_stage_write(f, 0, data, sizeof(data)), 0);
		assert_int_equal(cst_stage_sync(f), 0);
		assert_int_equal(cst_stage_seal(f, CST_SLICE("w"), true), 0);
		assert_int_equal(cst_stage_published(f, &version), 0);
		/* What the store has, too, gives room by itself. */
		assert_int_equal(cst_stage_write(f, 1 << 20, data, sizeof(data)), 0);
		/* So does what is forgotten. */
		struct cst_stage_file *other;
		assert_int_equal(cst_stage_file_forget(f), 0);
		assert_int_equal(cst_stage_file_new(x->s, CST_SLICE("o"), &none, false, &other), 0);
		for (uint64_t i = 0; i < accepted; i++)
			assert_int_equal(cst_stage_write(other, i * 8192, data, sizeof(data)), 0);
		assert_int_equal(cst_stage_file_forget(other), 0);
	}
	disk_set_space(x->disk, UINT64_MAX);
}

static void test_a_staging_file_that_is_gone(void **state)
{
	struct fixture *x = *state;
	struct cst_error err = CST_ERROR_INIT;
	struct cst_stage_file *f = file(x, &none);
	size_t size;
	put(f, 0, 10000, 'a');
	assert_int_equal(cst_stage_sync(f), 0);
	cst_stage_close(x->s);
	const struct cst_stage_io *io = disk_io(x->disk);
	int fd = io->open(io->ctx, 0, "d00000001", 0);
	assert_true(fd >= 0);
	io->truncate(io->ctx, fd, 9999);
	assert_int_equal(cst_stage_open(&x->config, &x->s, &err), -EBADMSG);
	assert_non_null(strstr(err.what, "d00000001"));
	assert_non_null(strstr(err.what, "dir/name"));
	/* It was not touched. */
	assert_non_null(disk_bytes(x->disk, "d00000001", &size));
	assert_int_equal(size, 9999);
	io->truncate(io->ctx, fd, 10000);
	assert_int_equal(cst_stage_open(&x->config, &x->s, &err), 0);
}

/* ---- the directory ---- */

static char path[64];

static int path_make(void **state)
{
	(void)state;
	snprintf(path, sizeof(path), "/tmp/cistern-stage-XXXXXX");
	return mkdtemp(path) ? 0 : -1;
}

static int path_remove(void **state)
{
	(void)state;
	CST_AUTO_FREE char *command = cst_xasprintf("rm -rf '%s'", path);
	return system(command);
}

static void count_lines(void *arg, const char *text)
{
	(void)text;
	++*(unsigned *)arg;
}

static void test_directory(void **state)
{
	(void)state;
	CST_AUTO_FREE char *inside = cst_xasprintf("%s/a/b", path);
	struct cst_stage_config config = {.path = inside, .owner = "oss://b/p"};
	struct cst_error err = CST_ERROR_INIT;
	struct cst_stage *s, *second;
	struct cst_stage_file *f;
	struct stat st;
	unsigned lines = 0;
	assert_int_equal(cst_stage_open(&config, &s, &err), 0);
	assert_int_equal(stat(inside, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(cst_stage_open(&config, &second, &err), -EBUSY);
	assert_non_null(strstr(err.why, "another mount"));
	assert_int_equal(cst_stage_print(inside, count_lines, &lines, &err), -EBUSY);
	assert_int_equal(cst_stage_file_new(s, CST_SLICE("k"), &none, false, &f), 0);
	assert_int_equal(cst_stage_write(f, 0, "hello", 5), 0);
	assert_int_equal(cst_stage_sync(f), 0);
	cst_stage_close(s);
	assert_int_equal(cst_stage_print(inside, count_lines, &lines, &err), 0);
	assert_true(lines >= 6);
	config.owner = "oss://b/q";
	assert_int_equal(cst_stage_open(&config, &s, &err), -EBUSY);
	config.owner = "oss://b/p";
	assert_int_equal(cst_stage_open(&config, &s, &err), 0);
	struct cst_stage_stats stats;
	cst_stage_stats(s, &stats);
	assert_int_equal(stats.files, 1);
	cst_stage_close(s);
	/* Where others could have put something it isn't taken over. */
	assert_int_equal(chmod(inside, 0755), 0);
	assert_int_equal(cst_stage_open(&config, &s, &err), -EPERM);
	assert_true(err.hint[0]);
	config.path = "/proc/self/no";
	assert_true(cst_stage_open(&config, &s, &err) < 0);
	assert_int_equal(cst_stage_print(path, count_lines, &lines, &err), -ENOENT);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_a_write_needs_no_fetch),
		T(test_what_was_cut_off_is_zeros),
		T(test_fills_go_only_where_nothing_is),
		T(test_sealed_bytes_stay),
		T(test_room_of_publications),
		T(test_costs),
		T(test_conflict_is_kept),
		T(test_attributes_and_moves),
		T(test_a_sync_that_failed_is_final),
		T(test_no_room),
		T(test_a_staging_file_that_is_gone),
		cmocka_unit_test_setup_teardown(test_directory, path_make, path_remove),
	};
	cst_log_level_now = -1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
