/* What must not be lost: by a crash between two steps, by a disk that gives errors, by files that change behind the
 * store's back, by clients that meet. */
#include "backend_fixture.h"

#include "store/append.h"
#include "store/list.h"
#include "store/room.h"
#include "store/tree.h"
#include "store/upload.h"

#include "base/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>

#include <cmocka.h>

static void seal(struct fixture *f, struct cst_staged *s, struct cst_slice data, enum cst_record_type type)
{
	CST_AUTO_RECORD record = {.type = type, .has_crc64 = true};
	uint8_t md5[CST_MD5_LEN];

	record.crc64 = cst_crc64(0, data.data, data.len);
	cst_md5(data.data, data.len, md5);
	for (int i = 0; i < CST_MD5_LEN; i++)
		sprintf(record.etag + 2 * i, "%02x", md5[i]);
	assert_int_equal(cst_staged_new(f->b, s), 0);
	assert_int_equal(write(s->fd, data.data, data.len), (int)data.len);
	assert_int_equal(cst_staged_seal(f->b, s, &record), 0);
}

static void put_as(struct fixture *f, struct cst_slice key, struct cst_slice data, enum cst_record_type type)
{
	struct cst_staged s = CST_STAGED_INIT;

	seal(f, &s, data, type);
	assert_int_equal(cst_blob_commit_locked(f->b, f->bucket, key, &s), 0);
	cst_staged_discard(f->b, &s);
}

static void put(struct fixture *f, const char *key)
{
	put_as(f, cst_slice_of(key), cst_slice_of(key), CST_RECORD_NORMAL);
}

static void assert_content(struct fixture *f, const char *key, const char *data)
{
	CST_AUTO_BLOB blob = CST_BLOB_INIT;
	char text[256];

	assert_int_equal(cst_blob_open(f->b, f->bucket, cst_slice_of(key), &blob), 0);
	assert_int_equal(read(blob.fd, text, sizeof(text)), (int)strlen(data));
	assert_memory_equal(text, data, strlen(data));
}

/* ---- records ---- */

/* A new record that can't be stored leaves the old one. */
static void test_record_stays(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_BLOB blob = CST_BLOB_INIT;
	CST_AUTO_RECORD big = CST_RECORD_INIT;
	int records = f->b->records.dir;

	put(f, "key");
	assert_int_equal(cst_blob_open(f->b, f->bucket, CST_SLICE("key"), &blob), 0);
	for (int i = 0; i < 80000; i++)
		cst_buf_add_char(&big.headers, i ? 'x' : ':');
	f->b->records.dir = open("/proc/self/fdinfo", O_RDONLY | O_DIRECTORY); /* where nobody can make files */
	assert_true(cst_blob_rewrite_locked(f->b, &blob, &big, false) < 0);
	close(f->b->records.dir);
	f->b->records.dir = records;
	cst_blob_close(&blob);
	assert_int_equal(cst_blob_open(f->b, f->bucket, CST_SLICE("key"), &blob), 0);
	assert_true(blob.record.has_crc64);
	assert_string_equal(blob.record.etag, "3c6e0b8a9c15224a8228b9a98ca1531d");
}

/* ---- appends ---- */

static void write_note(struct fixture *f, const struct cst_blob *blob, uint64_t grown)
{
	CST_AUTO_BUF note = CST_BUF_INIT;
	CST_AUTO_CLOSE int fd = openat(f->b->appends, "note", O_WRONLY | O_CREAT, 0600);

	cst_buf_printf(&note, "bucket%c%" PRIu64 "%c%" PRIu64 "%c3%clog", 0, (uint64_t)blob->st.st_ino, 0, grown, 0, 0);
	cst_record_encode(&blob->record, &note);
	assert_int_equal(write(fd, note.data, note.len), (int)note.len);
}

static void overwrite(struct fixture *f, const char *name, const char *text)
{
	CST_AUTO_CLOSE int fd = openat(f->bucket, name, O_WRONLY | O_TRUNC);

	assert_int_equal(write(fd, text, strlen(text)), (int)strlen(text));
}

/* A power failure may bring a note back that was removed long ago. What came to the key since is left alone. */
static void test_old_note_cuts_nothing(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_BLOB blob = CST_BLOB_INIT;

	put_as(f, CST_SLICE("log"), CST_SLICE("one,"), CST_RECORD_APPENDABLE);
	assert_int_equal(cst_blob_open(f->b, f->bucket, CST_SLICE("log"), &blob), 0);
	/* another object */
	write_note(f, &blob, 8);
	put_as(f, CST_SLICE("log"), CST_SLICE("another"), CST_RECORD_NORMAL);
	reopen(f);
	assert_content(f, "log", "another");
	/* another appendable one, with the note's inode or without */
	cst_blob_open(f->b, f->bucket, CST_SLICE("log"), &blob);
	put_as(f, CST_SLICE("log"), CST_SLICE("appendable"), CST_RECORD_APPENDABLE);
	write_note(f, &blob, 100);
	reopen(f);
	assert_content(f, "log", "appendable");
	/* a file that somebody wrote in its place, longer than the append could have made it */
	cst_blob_open(f->b, f->bucket, CST_SLICE("log"), &blob);
	write_note(f, &blob, blob.record.size + 3);
	overwrite(f, "log", "appendable no more");
	reopen(f);
	assert_content(f, "log", "appendable no more");
}

/* ---- uploads ---- */

/* A part put again while the upload is being completed: not these bytes with the other's ETag. */
static void test_part_replaced(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_RECORD record = {.type = CST_RECORD_MULTIPART};
	CST_AUTO_UPLOAD u = CST_UPLOAD_INIT;
	CST_AUTO_FREE struct cst_upload_part *parts = NULL;
	struct cst_staged s = CST_STAGED_INIT;
	char id[CST_UPLOAD_ID_LEN + 1];
	size_t count;

	assert_int_equal(cst_upload_begin(f->b, "bucket", CST_SLICE("k"), &record, id), 0);
	assert_int_equal(cst_upload_open(f->b, "bucket", cst_slice_of(id), CST_SLICE("k"), &u), 0);
	seal(f, &s, CST_SLICE("first"), CST_RECORD_NORMAL);
	assert_int_equal(cst_upload_add_part(f->b, &u, 1, &s), 0);
	cst_staged_discard(f->b, &s);
	assert_int_equal(cst_upload_parts(f->b, &u, &parts, &count), 0);
	seal(f, &s, CST_SLICE("other"), CST_RECORD_NORMAL);
	assert_int_equal(cst_upload_add_part(f->b, &u, 1, &s), 0);
	cst_staged_discard(f->b, &s);
	assert_int_equal(cst_staged_new(f->b, &s), 0);
	assert_int_equal(cst_upload_join(f->b, &u, parts, count, &s), -EAGAIN);
	cst_staged_discard(f->b, &s);
}

/* ---- "a" and "a/b" where names can't be exchanged ---- */

static void test_room_by_steps(void **state)
{
	struct fixture *f = *state;

	f->b->no_exchange = true;
	put(f, "a");
	put(f, "a/b");
	put(f, "a/b/c");
	assert_content(f, "a", "a");
	assert_content(f, "a/b", "a/b");
	assert_content(f, "a/b/c", "a/b/c");
	reopen(f);
	assert_content(f, "a", "a");
}

/* Killed when the object was in .cistern/tmp: the next start puts it back. */
static void test_room_recovers(void **state)
{
	struct fixture *f = *state;
	char note[64];
	struct stat st;
	int fd;

	put(f, "d/a");
	assert_int_equal(fstat(f->bucket, &st), 0);
	snprintf(note, sizeof(note), "%" PRIu64 " d/a", (uint64_t)st.st_ino);
	fd = openat(f->b->tmp, "1-2.move", O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write(fd, note, strlen(note)), (int)strlen(note));
	close(fd);
	reopen(f); /* nothing was done yet */
	assert_content(f, "d/a", "d/a");
	fd = openat(f->b->tmp, "1-2.move", O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write(fd, note, strlen(note)), (int)strlen(note));
	close(fd);
	assert_int_equal(mkdirat(f->b->tmp, "1-2.dir", 0700), 0);
	assert_int_equal(renameat(f->bucket, "d/a", f->b->tmp, "1-2.dir/.%f"), 0);
	reopen(f);
	assert_content(f, "d/a", "d/a");
	assert_int_not_equal(faccessat(f->b->tmp, "1-2.dir", F_OK, 0), 0);
}

/* ---- buckets ---- */

static void test_put_into_removed_bucket(void **state)
{
	struct fixture *f = *state;
	struct cst_staged s = CST_STAGED_INIT;

	assert_int_equal(cst_backend_remove_bucket(f->b, "bucket"), 0);
	seal(f, &s, CST_SLICE("x"), CST_RECORD_NORMAL);
	assert_int_equal(cst_blob_commit_locked(f->b, f->bucket, CST_SLICE("x"), &s), -ESTALE);
	assert_int_equal(cst_blob_commit_locked(f->b, f->bucket, CST_SLICE("d/x"), &s), -ESTALE);
	cst_staged_discard(f->b, &s);
	assert_int_equal(cst_backend_make_bucket(f->b, "bucket"), 0);
}

/* ---- locks ---- */

static void *write_lock(void *arg)
{
	pthread_rwlock_wrlock(arg);
	pthread_rwlock_unlock(arg);
	return NULL;
}

/* One who wants to write gets his turn however many read: those who come later wait behind him. */
static void writes_in_turn(pthread_rwlock_t *lock)
{
	pthread_t thread;
	int rc = 0;

	assert_int_equal(pthread_rwlock_rdlock(lock), 0);
	assert_int_equal(pthread_create(&thread, NULL, write_lock, lock), 0);
	for (int i = 0; i < 10000 && rc == 0; i++) {
		rc = pthread_rwlock_tryrdlock(lock);
		if (rc == 0)
			pthread_rwlock_unlock(lock);
		usleep(1000);
	}
	pthread_rwlock_unlock(lock);
	pthread_join(thread, NULL);
	assert_int_equal(rc, EBUSY);
}

static void test_writers_get_their_turn(void **state)
{
	struct fixture *f = *state;

	writes_in_turn(&f->b->tree);
	writes_in_turn(cst_backend_stripe(f->b, CST_SLICE("key")));
}

/* ---- listings ---- */

struct seen {
	struct cst_buf text;
};

static int see(void *arg, const struct cst_list_item *item)
{
	struct seen *seen = arg;

	cst_buf_printf(&seen->text, "%.*s%s ", (int)item->key.len, item->key.data, item->is_prefix ? "*" : "");
	return 1;
}

static int list(struct fixture *f, const char *delimiter, struct seen *seen)
{
	struct cst_list_query query = {.delimiter = cst_slice_of(delimiter), .max = 100};
	struct cst_list_result result;
	int rc;

	cst_buf_clear(&seen->text);
	rc = cst_list_run(f->b->scans, f->bucket, &query, see, seen, &result);
	cst_buf_fini(&result.last);
	return rc;
}

static void write_plain(struct fixture *f, const char *path)
{
	CST_AUTO_CLOSE int fd = openat(f->bucket, path, O_WRONLY | O_CREAT, 0644);

	assert_true(fd >= 0);
}

/* tar and rsync give directories the times that they had elsewhere. */
static void test_times_set_back(void **state)
{
	struct fixture *f = *state;
	struct timespec past[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
	struct seen seen = {{0}};

	write_plain(f, "one");
	futimens(f->bucket, past);
	usleep(60000); /* so that the picture is kept */
	assert_int_equal(list(f, "", &seen), 0);
	assert_string_equal(seen.text.data, "one ");
	write_plain(f, "two");
	futimens(f->bucket, past);
	assert_int_equal(list(f, "", &seen), 0);
	assert_string_equal(seen.text.data, "one two ");
	cst_buf_fini(&seen.text);
}

/* A tree of as many levels as a key can have takes few descriptors; when there are none, that is an error and not an
 * empty listing. */
static void test_deep_tree(void **state)
{
	struct fixture *f = *state;
	struct seen seen = {{0}};
	struct rlimit old;
	struct rlimit few;
	CST_AUTO_BUF key = CST_BUF_INIT;
	int next;

	for (int i = 0; i < 500; i++)
		cst_buf_add_str(&key, "a/");
	cst_buf_add_char(&key, 'x');
	put(f, key.data);
	getrlimit(RLIMIT_NOFILE, &old);
	next = dup(f->bucket);
	close(next);
	few = (struct rlimit){.rlim_cur = (rlim_t)next + 48, .rlim_max = old.rlim_max};
	setrlimit(RLIMIT_NOFILE, &few);
	assert_int_equal(list(f, "/", &seen), 0);
	assert_string_equal(seen.text.data, "a/* ");
	few.rlim_cur = (rlim_t)next + 4;
	setrlimit(RLIMIT_NOFILE, &few);
	assert_int_equal(list(f, "/", &seen), -EMFILE);
	setrlimit(RLIMIT_NOFILE, &old);
	cst_buf_fini(&seen.text);
}

/* Files too deep for any key, as a user may have them, hide nothing else. */
static void test_too_deep_for_keys(void **state)
{
	struct fixture *f = *state;
	struct seen seen = {{0}};
	char name[201];
	int at = dup(f->bucket);

	memset(name, 'd', 200);
	name[200] = '\0';
	write_plain(f, "a");
	write_plain(f, "z");
	for (int i = 0; i < 30; i++) {
		int sub;

		assert_int_equal(mkdirat(at, name, 0755), 0);
		sub = openat(at, name, O_RDONLY | O_DIRECTORY);
		close(at);
		at = sub;
	}
	close(openat(at, "x", O_WRONLY | O_CREAT, 0644));
	close(at);
	assert_int_equal(list(f, "", &seen), 0);
	assert_string_equal(seen.text.data, "a z ");
	assert_int_equal(list(f, "/", &seen), 0);
	assert_true(strstr(seen.text.data, "z ") != NULL);
	cst_buf_fini(&seen.text);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, backend_setup, backend_teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_record_stays),	   TEST(test_old_note_cuts_nothing), TEST(test_part_replaced),
		TEST(test_room_by_steps),	   TEST(test_room_recovers),	     TEST(test_put_into_removed_bucket),
		TEST(test_writers_get_their_turn), TEST(test_times_set_back),	     TEST(test_deep_tree),
		TEST(test_too_deep_for_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
