/* Records of kept versions: there whole or not at all, read back as they were, and broken ones told. */
#include "publish/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

static char dir[80], above[64];

static int setup(void **state)
{
	(void)state;
	snprintf(above, sizeof(above), "/tmp/cst-keep-XXXXXX");
	CST_ASSERT(mkdtemp(above));
	snprintf(dir, sizeof(dir), "%s/kept", above);
	return 0;
}

static int teardown(void **state)
{
	char command[100];
	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", above);
	return system(command); /* NOLINT: a name of our own */
}

static struct cst_slice own(const char *s, size_t len)
{
	return (struct cst_slice){cst_xstrndup(s, len), len};
}

static struct cst_keep_record make(const char *key)
{
	struct cst_keep_record r = {.bucket = cst_xstrdup("oss://b"),
				    .key = cst_xstrdup(key),
				    .reason = cst_xstrdup("conflict"),
				    .writer = cst_xstrdup("host:/mnt/a b"),
				    .base_etag = cst_xstrdup("E1"),
				    .write_id = cst_xstrdup("00112233"),
				    .upload_id = cst_xstrdup("U/1+x=="),
				    .content_type = cst_xstrdup(""),
				    .at = 1700000000,
				    .size = UINT64_C(0xfffffffffffffff0),
				    .crc64 = UINT64_C(0x8000000000000001),
				    .tail_from = 3000};
	r.parts = cst_xcalloc(2, sizeof(*r.parts));
	r.part_count = 2;
	r.parts[0] = (struct cst_object_part){.number = 1, .size = 1000, .etag = "P1", .crc64 = 5, .has_crc64 = true};
	r.parts[1] = (struct cst_object_part){.number = 2, .size = 2000, .etag = "", .crc32c = "AAAAAA=="};
	r.meta = cst_xcalloc(2, sizeof(*r.meta));
	r.meta_count = 2;
	r.meta[0] = (struct cst_http_header){own("mode", 4), own("33188", 5)};
	r.meta[1] = (struct cst_http_header){own("xattr", 5), own("\xff\xfe{}", 4)};
	return r;
}

static void expect_same(const struct cst_keep_record *a, const struct cst_keep_record *b)
{
	assert_string_equal(a->id, b->id);
	assert_string_equal(a->bucket, b->bucket);
	assert_string_equal(a->key, b->key);
	assert_string_equal(a->writer, b->writer);
	assert_string_equal(a->upload_id, b->upload_id);
	assert_string_equal(a->content_type, b->content_type);
	assert_true(a->at == b->at && a->size == b->size && a->crc64 == b->crc64 && a->tail_from == b->tail_from);
	assert_true(a->has_data == b->has_data && a->part_count == b->part_count && a->meta_count == b->meta_count);
	for (size_t i = 0; i < a->part_count; i++) {
		assert_true(a->parts[i].number == b->parts[i].number && a->parts[i].size == b->parts[i].size);
		assert_string_equal(a->parts[i].etag, b->parts[i].etag);
		assert_string_equal(a->parts[i].crc32c, b->parts[i].crc32c);
		assert_true(a->parts[i].has_crc64 == b->parts[i].has_crc64 && a->parts[i].crc64 == b->parts[i].crc64);
	}
	for (size_t i = 0; i < a->meta_count; i++) {
		assert_true(cst_slice_eq(a->meta[i].name, b->meta[i].name));
		assert_true(cst_slice_eq(a->meta[i].value, b->meta[i].value));
	}
}

static void test_round_trip(void **state)
{
	static const char *const keys[] = {"k", "dir/a b%+\n\"<>&é", "\xff\xfe/not utf-8"};
	struct cst_error err = CST_ERROR_INIT;
	struct stat st;
	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(keys); i++) {
		struct cst_keep_record r = make(keys[i]), back;
		char bytes[] = "0123456789";
		struct iovec tail[3] = {{bytes, 10}, {NULL, 100000}, {bytes, 5}};
		assert_int_equal(cst_keep_write(dir, &r, tail, 3, &err), 0);
		assert_int_equal(cst_keep_read(dir, r.id, &back, &err), 0);
		expect_same(&r, &back);
		assert_true(back.has_data);
		CST_AUTO_BUF path = CST_BUF_INIT;
		cst_keep_data_path(dir, r.id, &path);
		assert_int_equal(stat(path.data, &st), 0);
		assert_int_equal(st.st_size, 100015);
		assert_int_equal(st.st_mode & 07777, 0600);
		CST_AUTO_CLOSE int fd = open(path.data, O_RDONLY);
		assert_int_equal(pread(fd, bytes, 5, 100010), 5);
		assert_memory_equal(bytes, "01234", 5);
		cst_keep_record_fini(&back);
		assert_int_equal(cst_keep_remove(dir, r.id, &err), 0);
		assert_int_equal(stat(path.data, &st), -1);
		assert_int_equal(cst_keep_read(dir, r.id, &back, &err), -ENOENT);
		assert_int_equal(cst_keep_remove(dir, r.id, &err), -ENOENT);
		cst_keep_record_fini(&r);
	}
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
}

static int64_t seen_at;
static unsigned seen;
static void note(void *arg, const struct cst_keep_record *record)
{
	(void)arg;
	assert_true(record->at > seen_at);
	seen_at = record->at;
	seen++;
}

static void test_each(void **state)
{
	static const int64_t times[] = {1700000500, 1600000000, 1700000000, 1900000000};
	struct cst_error err = CST_ERROR_INIT;
	(void)state;
	seen = 0;
	seen_at = 0;
	assert_int_equal(cst_keep_each(dir, note, NULL, &err), 0); /* there is no directory yet */
	for (size_t i = 0; i < CST_ARRAY_LEN(times); i++) {
		struct cst_keep_record r = make("k");
		r.at = times[i];
		assert_int_equal(cst_keep_write(dir, &r, NULL, 0, &err), 0);
		assert_false(r.has_data);
		cst_keep_record_fini(&r);
	}
	/* What a crash or a person leaves there is no record. */
	static const char *const others[] = {".20200101T000000Z-1.json.new", "20200101T000000Z-2.json", "readme.json",
					     "x.data"};
	for (size_t i = 0; i < CST_ARRAY_LEN(others); i++) {
		CST_AUTO_FREE char *path = cst_xasprintf("%s/%s", dir, others[i]);
		CST_AUTO_CLOSE int fd = open(path, O_CREAT | O_WRONLY, 0600);
		assert_int_equal(write(fd, "{\"id\":", 6), 6);
	}
	assert_int_equal(cst_keep_each(dir, note, NULL, &err), 0);
	assert_int_equal(seen, CST_ARRAY_LEN(times));
}

static void test_names(void **state)
{
	static const char *const ids[] = {"", "../../etc/passwd", "a/b", ".", "x.y"};
	struct cst_error err = CST_ERROR_INIT;
	struct cst_keep_record r;
	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(ids); i++) {
		assert_int_equal(cst_keep_read(dir, ids[i], &r, &err), -ENOENT);
		assert_int_equal(cst_keep_remove(dir, ids[i], &err), -ENOENT);
	}
}

static void test_no_room(void **state)
{
	struct cst_error err = CST_ERROR_INIT;
	struct cst_keep_record r = make("k");
	(void)state;
	assert_int_equal(cst_keep_write("/proc/none", &r, NULL, 0, &err), -ENOENT);
	assert_int_equal(err.code, ENOENT);
	assert_true(err.why[0] != '\0');
	cst_keep_record_fini(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_each, setup, teardown),
		cmocka_unit_test_setup_teardown(test_names, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_room, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
