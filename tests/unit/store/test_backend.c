/* Objects on disk without HTTP: colliding keys, listings against a naive model, what a crash leaves. */
#include "backend_fixture.h"

#include "store/append.h"
#include "store/list.h"
#include "store/upload.h"

#include "base/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/xattr.h>

#include <cmocka.h>

static void put_as(struct fixture *f, struct cst_slice key, struct cst_slice data, enum cst_record_type type)
{
	struct cst_staged s = CST_STAGED_INIT;
	CST_AUTO_RECORD record = {.type = type, .has_crc64 = true};
	pthread_rwlock_t *stripe = cst_backend_stripe(f->b, key);

	record.crc64 = cst_crc64(0, data.data, data.len);
	strcpy(record.etag, "0123456789abcdef0123456789abcdef");
	assert_int_equal(cst_staged_new(f->b, &s), 0);
	assert_int_equal(write(s.fd, data.data, data.len), (int)data.len);
	assert_int_equal(cst_staged_seal(f->b, &s, &record), 0);
	pthread_rwlock_wrlock(stripe);
	assert_int_equal(cst_blob_commit_locked(f->b, f->bucket, key, &s), 0);
	pthread_rwlock_unlock(stripe);
	cst_staged_discard(f->b, &s);
}

static void put(struct fixture *f, struct cst_slice key)
{
	put_as(f, key, key, CST_RECORD_NORMAL);
}

static int delete (struct fixture *f, struct cst_slice key)
{
	pthread_rwlock_t *stripe = cst_backend_stripe(f->b, key);
	int rc;

	pthread_rwlock_wrlock(stripe);
	rc = cst_blob_delete_locked(f->b, f->bucket, key);
	pthread_rwlock_unlock(stripe);
	return rc;
}

static void assert_content(struct fixture *f, struct cst_slice key, struct cst_slice data)
{
	CST_AUTO_BLOB blob = CST_BLOB_INIT;
	char text[4096];

	assert_int_equal(cst_blob_open(f->b, f->bucket, key, &blob), 0);
	assert_int_equal(read(blob.fd, text, sizeof(text)), (int)data.len);
	assert_memory_equal(text, data.data, data.len);
}

static void test_file_and_directory(void **state)
{
	struct fixture *f = *state;
	static const char *const keys[] = {"a", "a/b", "a/b/c", "a/", "a//", "x/y/z", "x/y", "x"};
	CST_AUTO_BLOB blob = CST_BLOB_INIT;

	for (size_t i = 0; i < CST_ARRAY_LEN(keys); i++)
		put(f, cst_slice_of(keys[i]));
	for (size_t i = 0; i < CST_ARRAY_LEN(keys); i++)
		assert_content(f, cst_slice_of(keys[i]), cst_slice_of(keys[i]));
	for (size_t i = 0; i < CST_ARRAY_LEN(keys); i++) {
		assert_int_equal(delete (f, cst_slice_of(keys[i])), 0);
		assert_int_equal(delete (f, cst_slice_of(keys[i])), -ENOENT);
		assert_int_equal(cst_blob_open(f->b, f->bucket, cst_slice_of(keys[i]), &blob), -ENOENT);
		for (size_t k = i + 1; k < CST_ARRAY_LEN(keys); k++)
			assert_content(f, cst_slice_of(keys[k]), cst_slice_of(keys[k]));
	}
	/* Nothing is left, not even a directory. */
	assert_int_equal(cst_backend_remove_bucket(f->b, "bucket"), 0);
	reopen(f);
}

static void test_symlinks_lead_nowhere(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_BLOB blob = CST_BLOB_INIT;

	assert_int_equal(symlinkat("/etc", f->bucket, "out"), 0);
	assert_int_equal(symlinkat("/etc/passwd", f->bucket, "passwd"), 0);
	assert_int_equal(cst_blob_open(f->b, f->bucket, CST_SLICE("out/passwd"), &blob), -ENOENT);
	assert_int_equal(cst_blob_open(f->b, f->bucket, CST_SLICE("passwd"), &blob), -ENOENT);
	assert_int_equal(delete (f, CST_SLICE("out/passwd")), -ENOENT);
	assert_int_equal(delete (f, CST_SLICE("passwd")), -ENOENT);
	put(f, CST_SLICE("passwd")); /* takes the link's place */
	assert_content(f, CST_SLICE("passwd"), CST_SLICE("passwd"));
}

static void write_plain(struct fixture *f, const char *path, const char *text)
{
	CST_AUTO_CLOSE int fd = openat(f->bucket, path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_int_equal(write(fd, text, strlen(text)), (int)strlen(text));
}

static void test_plain_files(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_BLOB blob = CST_BLOB_INIT;
	char etag[CST_RECORD_ETAG];

	write_plain(f, "plain", "one");
	assert_int_equal(cst_blob_open(f->b, f->bucket, CST_SLICE("plain"), &blob), 0);
	assert_int_equal(strlen(blob.record.etag), 34);
	assert_string_equal(blob.record.etag + 32, "-1");
	strcpy(etag, blob.record.etag);
	write_plain(f, "plain", "three");
	assert_int_equal(cst_blob_open(f->b, f->bucket, CST_SLICE("plain"), &blob), 0);
	assert_string_not_equal(blob.record.etag, etag);
	/* One of ours that somebody overwrites loses what was stored of its content. */
	put(f, CST_SLICE("ours"));
	assert_int_equal(cst_blob_open(f->b, f->bucket, CST_SLICE("ours"), &blob), 0);
	assert_true(blob.record.has_crc64);
	write_plain(f, "ours", "changed");
	assert_int_equal(cst_blob_open(f->b, f->bucket, CST_SLICE("ours"), &blob), 0);
	assert_false(blob.record.has_crc64);
	assert_string_equal(blob.record.etag + 32, "-1");
}

static void test_record_beside_the_file(void **state)
{
	struct fixture *f = *state;
	struct cst_staged s = CST_STAGED_INIT;
	CST_AUTO_RECORD record = CST_RECORD_INIT;
	CST_AUTO_BLOB blob = CST_BLOB_INIT;
	struct cst_slice key = CST_SLICE("big-headers");

	cst_buf_add_str(&record.headers, "meta-big:");
	for (int i = 0; i < 80000; i++)
		cst_buf_add_char(&record.headers, 'x');
	cst_buf_add_char(&record.headers, '\n');
	strcpy(record.etag, "abc-3");
	assert_int_equal(cst_staged_new(f->b, &s), 0);
	assert_int_equal(cst_staged_seal(f->b, &s, &record), 0);
	assert_true(f->b->records.in_use);
	assert_int_equal(cst_blob_commit_locked(f->b, f->bucket, key, &s), 0);
	cst_staged_discard(f->b, &s);
	reopen(f);
	assert_int_equal(cst_blob_open(f->b, f->bucket, key, &blob), 0);
	assert_string_equal(blob.record.etag, "abc-3");
	assert_int_equal(cst_record_header(&blob.record, "meta-big").len, 80000);
	assert_true(fgetxattr(blob.fd, CST_RECORD_XATTR, NULL, 0) < 0);
	assert_int_equal(delete (f, key), 0);
	cst_blob_close(&blob);
	reopen(f);
	assert_false(f->b->records.in_use);
}

static void append(struct fixture *f, struct cst_slice key, struct cst_slice data)
{
	struct cst_staged s = CST_STAGED_INIT;
	CST_AUTO_BLOB old = CST_BLOB_INIT;
	CST_AUTO_RECORD record = {.type = CST_RECORD_APPENDABLE, .has_crc64 = true};

	assert_int_equal(cst_blob_open(f->b, f->bucket, key, &old), 0);
	record.crc64 = cst_crc64_combine(old.record.crc64, cst_crc64(0, data.data, data.len), data.len);
	assert_int_equal(cst_staged_new(f->b, &s), 0);
	assert_int_equal(write(s.fd, data.data, data.len), (int)data.len);
	assert_int_equal(cst_blob_append_locked(f->b, f->bucket, "bucket", key, &s, &record), 0);
	cst_staged_discard(f->b, &s);
}

static void copy_note(struct fixture *f, const struct cst_blob *old, uint64_t added)
{
	CST_AUTO_BUF note = CST_BUF_INIT;
	CST_AUTO_CLOSE int fd = openat(f->b->appends, "note", O_WRONLY | O_CREAT, 0600);

	cst_buf_printf(&note, "bucket%c%llu%c%llu%c3%clog", 0, (unsigned long long)old->st.st_ino, 0,
		       (unsigned long long)(old->record.size + added), 0, 0);
	cst_record_encode(&old->record, &note);
	assert_int_equal(write(fd, note.data, note.len), (int)note.len);
}

static void test_append_recovers(void **state)
{
	struct fixture *f = *state;
	struct cst_slice key = CST_SLICE("log");
	CST_AUTO_BLOB old = CST_BLOB_INIT;
	CST_AUTO_BLOB now = CST_BLOB_INIT;
	int fd;

	put_as(f, key, CST_SLICE("one,"), CST_RECORD_APPENDABLE);
	append(f, key, CST_SLICE("two,"));
	assert_content(f, key, CST_SLICE("one,two,"));
	assert_int_equal(cst_blob_open(f->b, f->bucket, key, &old), 0);
	assert_int_equal(old.record.crc64, cst_crc64(0, "one,two,", 8));
	/* Killed after a part of the bytes: they go. */
	copy_note(f, &old, 5);
	fd = openat(f->bucket, "log", O_WRONLY | O_APPEND);
	assert_int_equal(write(fd, "thr", 3), 3);
	close(fd);
	reopen(f);
	assert_content(f, key, CST_SLICE("one,two,"));
	assert_int_equal(cst_blob_open(f->b, f->bucket, key, &now), 0);
	assert_string_equal(now.record.etag, old.record.etag);
	assert_int_equal(now.record.type, CST_RECORD_APPENDABLE);
	assert_int_equal(now.record.mtime, old.record.mtime);
	/* Killed after all was done but before the note went: they stay. */
	copy_note(f, &old, 5);
	append(f, key, CST_SLICE("three"));
	reopen(f);
	assert_content(f, key, CST_SLICE("one,two,three"));
}

/* ---- listings against a model ---- */

#define KEYS 400
struct model {
	char keys[KEYS][40];
	size_t count;
};

static int compare_text(const void *a, const void *b)
{
	return strcmp(a, b);
}

static void make_keys(struct fixture *f, struct model *m, unsigned *seed)
{
	static const char letters[] = "ab/-.%";
	size_t unique = 0;

	for (size_t i = 0; i < KEYS; i++) {
		size_t len = 1 + (size_t)rand_r(seed) % 8;

		for (size_t k = 0; k < len; k++)
			m->keys[i][k] = letters[(size_t)rand_r(seed) % (sizeof(letters) - 1)];
		m->keys[i][len] = '\0';
	}
	qsort(m->keys, KEYS, sizeof(m->keys[0]), compare_text);
	for (size_t i = 0; i < KEYS; i++) {
		if (unique == 0 || strcmp(m->keys[i], m->keys[unique - 1]) != 0)
			memmove(m->keys[unique++], m->keys[i], sizeof(m->keys[0]));
	}
	m->count = unique;
	for (size_t i = 0; i < unique; i++)
		put(f, cst_slice_of(m->keys[(i * 7919) % unique]));
}

struct seen {
	struct cst_buf text; /* "key\n" or "key*\n" for a common prefix */
};

static int see(void *arg, const struct cst_list_item *item)
{
	struct seen *seen = arg;

	cst_buf_printf(&seen->text, "%.*s%s\n", (int)item->key.len, item->key.data, item->is_prefix ? "*" : "");
	return 1;
}

static void model_list(const struct model *m, const char *prefix, const char *delimiter, const char *after,
		       struct cst_buf *out)
{
	char last[80] = "";

	for (size_t i = 0; i < m->count; i++) {
		const char *key = m->keys[i];
		const char *at;

		if (strncmp(key, prefix, strlen(prefix)) != 0 || strcmp(key, after) <= 0)
			continue;
		at = delimiter[0] ? strstr(key + strlen(prefix), delimiter) : NULL;
		if (!at) {
			cst_buf_printf(out, "%s\n", key);
			continue;
		}
		char rolled[80];
		snprintf(rolled, sizeof(rolled), "%.*s*", (int)(at - key + (long)strlen(delimiter)), key);
		if (strcmp(rolled, last) != 0)
			cst_buf_printf(out, "%s\n", rolled);
		strcpy(last, rolled);
	}
}

static void list_pages(struct fixture *f, struct cst_list_query query, struct cst_buf *out)
{
	struct seen seen = {{0}};
	struct cst_buf after = CST_BUF_INIT;

	for (;;) {
		struct cst_list_result result;

		assert_int_equal(cst_list_run(f->b->scans, f->bucket, &query, see, &seen, &result), 0);
		assert_true(result.count <= query.max);
		cst_buf_clear(&after);
		cst_buf_add_slice(&after, cst_buf_slice(&result.last));
		cst_buf_fini(&result.last);
		query.after = cst_buf_slice(&after);
		query.after_prefix = result.last_is_prefix;
		if (!result.truncated)
			break;
		assert_int_equal(result.count, query.max);
	}
	cst_buf_add_slice(out, cst_buf_slice(&seen.text));
	cst_buf_fini(&seen.text);
	cst_buf_fini(&after);
}

static void test_listing_as_the_model(void **state)
{
	static const char *const delimiters[] = {"", "/", "-", "a", "//", "a/", "/."};
	static const unsigned pages[] = {1, 2, 7, 1000};
	struct fixture *f = *state;
	struct model *m = CST_NEW(struct model);
	unsigned seed = 11;

	make_keys(f, m, &seed);
	for (int i = 0; i < 1500; i++) {
		const char *from = m->keys[(size_t)rand_r(&seed) % m->count];
		char prefix[40];
		const char *after = rand_r(&seed) % 2 ? "" : m->keys[(size_t)rand_r(&seed) % m->count];
		const char *delimiter = delimiters[(size_t)rand_r(&seed) % CST_ARRAY_LEN(delimiters)];
		struct cst_buf want = CST_BUF_INIT;
		struct cst_buf got = CST_BUF_INIT;

		snprintf(prefix, sizeof(prefix), "%.*s", rand_r(&seed) % 4, from);
		cst_buf_add_str(&want, "");
		cst_buf_add_str(&got, "");
		model_list(m, prefix, delimiter, after, &want);
		list_pages(f,
			   (struct cst_list_query){.prefix = cst_slice_of(prefix),
						   .delimiter = cst_slice_of(delimiter),
						   .after = cst_slice_of(after),
						   .max = pages[(size_t)rand_r(&seed) % 4]},
			   &got);
		if (strcmp(want.data, got.data) != 0)
			print_message("# prefix '%s' delimiter '%s' after '%s'\n", prefix, delimiter, after);
		assert_string_equal(got.data, want.data);
		cst_buf_fini(&want);
		cst_buf_fini(&got);
	}
	free(m);
}

/* A page doesn't read what the page before has read, nor directories that a delimiter hides. */
static void test_listing_reads_once(void **state)
{
	struct fixture *f = *state;
	struct cst_buf got = CST_BUF_INIT;
	uint64_t before;
	struct cst_list_query query = {.max = 5};

	for (int i = 0; i < 100; i++) {
		char key[32];

		snprintf(key, sizeof(key), "d%02d/file", i);
		put(f, cst_slice_of(key));
	}
	usleep(60000); /* directories that changed just now are not kept: their times may not tell the next change */
	query.delimiter = CST_SLICE("/");
	before = cst_scan_cache_reads(f->b->scans);
	list_pages(f, query, &got);
	assert_int_equal(cst_scan_cache_reads(f->b->scans) - before, 1);
	query.delimiter = (struct cst_slice){0};
	list_pages(f, query, &got);
	assert_int_equal(cst_scan_cache_reads(f->b->scans) - before, 101);
	list_pages(f, query, &got);
	assert_int_equal(cst_scan_cache_reads(f->b->scans) - before, 101);
	cst_buf_fini(&got);
}

static void test_upload(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_RECORD record = {.type = CST_RECORD_MULTIPART};
	CST_AUTO_RECORD part = CST_RECORD_INIT;
	CST_AUTO_UPLOAD u = CST_UPLOAD_INIT;
	CST_AUTO_FREE struct cst_upload_part *parts = NULL;
	struct cst_staged s = CST_STAGED_INIT;
	char id[CST_UPLOAD_ID_LEN + 1];
	size_t count;

	assert_int_equal(cst_upload_begin(f->b, "bucket", CST_SLICE("k"), &record, id), 0);
	assert_int_equal(cst_upload_open(f->b, "bucket", cst_slice_of(id), CST_SLICE("other"), &u), -ENOENT);
	assert_int_equal(cst_upload_open(f->b, "bucket", CST_SLICE("../../../etc"), CST_SLICE("k"), &u), -ENOENT);
	assert_int_equal(cst_upload_open(f->b, "bucket", cst_slice_of(id), CST_SLICE("k"), &u), 0);
	for (unsigned n = 3; n > 0; n--) {
		assert_int_equal(cst_staged_new(f->b, &s), 0);
		assert_int_equal(write(s.fd, "abc" + n - 1, 1), 1);
		assert_int_equal(cst_staged_seal(f->b, &s, &part), 0);
		assert_int_equal(cst_upload_add_part(f->b, &u, n, &s), 0);
		cst_staged_discard(f->b, &s);
	}
	assert_int_equal(cst_upload_parts(f->b, &u, &parts, &count), 0);
	assert_int_equal(count, 3);
	assert_int_equal(parts[0].number, 1);
	assert_int_equal(cst_staged_new(f->b, &s), 0);
	assert_int_equal(cst_upload_join(f->b, &u, parts, count, &s), 0);
	char text[4] = "";
	assert_int_equal(pread(s.fd, text, 4, 0), 3);
	assert_string_equal(text, "abc");
	assert_int_equal(cst_upload_end(f->b, "bucket", &u), 0);
	assert_int_equal(cst_upload_end(f->b, "bucket", &u), -ENOENT);
	/* A part that comes too late is refused. */
	assert_true(cst_upload_add_part(f->b, &u, 4, &s) < 0);
	cst_staged_discard(f->b, &s);
	/* What a killed upload left goes at the next start; an upload under way stays. */
	assert_int_equal(mkdirat(f->b->uploads, "bucket/left", 0700), 0);
	assert_int_equal(cst_upload_begin(f->b, "bucket", CST_SLICE("k"), &record, id), 0);
	reopen(f);
	assert_int_not_equal(faccessat(f->b->uploads, "bucket/left", F_OK, 0), 0);
	assert_int_equal(cst_upload_open(f->b, "bucket", cst_slice_of(id), CST_SLICE("k"), &u), 0);
}

static void test_one_store(void **state)
{
	struct fixture *f = *state;
	struct cst_store_backend *other;
	struct cst_error err = CST_ERROR_INIT;

	assert_int_equal(cst_backend_new(f->dir, &other, &err), -EBUSY);
	assert_true(strstr(err.why, "another store") != NULL);
}

/* Writers of "a", "a/b" and deleters of both never leave one another without a whole object. */
static void *collide(void *arg)
{
	struct fixture *f = arg;
	static const char *const keys[] = {"p", "p/q", "p/q/r"};

	for (unsigned i = 0; i < 300; i++) {
		struct cst_slice key = cst_slice_of(keys[i % 3]);

		put(f, key);
		if (i % 2)
			delete (f, key);
	}
	return NULL;
}

static void test_colliding_writers(void **state)
{
	struct fixture *f = *state;
	pthread_t threads[4];

	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, collide, f), 0);
	for (size_t i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	for (size_t i = 0; i < 3; i++) {
		static const char *const keys[] = {"p/q/r", "p/q", "p"};

		put(f, cst_slice_of(keys[i]));
		assert_content(f, cst_slice_of(keys[i]), cst_slice_of(keys[i]));
	}
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, backend_setup, backend_teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_file_and_directory), TEST(test_symlinks_lead_nowhere),
		TEST(test_plain_files),	       TEST(test_record_beside_the_file),
		TEST(test_append_recovers),    TEST(test_listing_as_the_model),
		TEST(test_listing_reads_once), TEST(test_upload),
		TEST(test_one_store),	       TEST(test_colliding_writers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
