/* Who waits behind whom when uploads are limited; credentials that end while something is written. */
#include "write_fixture.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define KIB ((size_t)1024)

static char memory[512 * 1024];

static enum scripted_end take(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	(void)arg, (void)n;
	if (strncmp(request, "GET", 3) == 0)
		scripted_answer(out, 206, "ETag: \"e\"\r\nContent-Range: bytes 0-3/4\r\n", "good");
	else
		scripted_answer(out, 200, "ETag: \"e\"\r\n", "");
	return SCRIPTED_KEEP;
}

static struct cst_object_op *put(struct fixture *f, const char *key, size_t len, bool background, struct written *w)
{
	struct iovec body = {memory, len};
	struct cst_object_put put = {.key = cst_slice_of(key),
				     .body = {.iov = &body, .iov_count = 1, .length = len, .background = background}};
	written_init(w);
	return cst_object_put(f->bucket, &put, on_written, w);
}

static void start(struct fixture *f, uint64_t bandwidth)
{
	struct cst_bucket_config c = {
		.cloud = CST_CLOUD_OSS, .upload_bandwidth = bandwidth, .credentials = test_keys(CST_CLOUD_OSS)};
	fixture_start(f, take, NULL, &c);
}

static bool asked(struct fixture *f, unsigned n, const char *method, const char *key)
{
	char want[64];
	snprintf(want, sizeof(want), "%s /bkt/%s HTTP", method, key);
	return strstr(scripted_server_request(f->server, n), want) == scripted_server_request(f->server, n);
}

static void uploads_wait_in_order(void **state)
{
	(void)state;
	struct fixture f;
	struct written first, behind, before, removed;
	struct outcome o;
	char buffer[8];
	start(&f, 1024 * KIB);
	/* Goes at once, and is worked off in 0.4 s. */
	assert_int_equal(finish(put(&f, "first", 512 * KIB, false, &first), &first), 0);
	struct cst_object_op *b = put(&f, "behind", 100 * KIB, true, &behind);
	struct cst_object_op *a = put(&f, "before", 100 * KIB, false, &before);
	/* Reads and what has no body take nothing of it. */
	written_init(&removed);
	assert_int_equal(finish(cst_object_delete(f.bucket, CST_SLICE("gone"), NULL, on_written, &removed), &removed),
			 0);
	assert_int_equal(fixture_read(&f, 0, 4, NULL, buffer, &o), 0);
	assert_int_equal(scripted_server_requests(f.server), 3);
	assert_int_equal(finish(a, &before), 0);
	assert_int_equal(finish(b, &behind), 0);
	assert_true(asked(&f, 1, "DELETE", "gone"));
	assert_true(asked(&f, 3, "PUT", "before"));
	assert_true(asked(&f, 4, "PUT", "behind"));
	written_fini(&first);
	written_fini(&before);
	written_fini(&behind);
	written_fini(&removed);
	outcome_fini(&o);
	fixture_stop(&f);
}

static void hurried(void **state)
{
	(void)state;
	struct fixture f;
	struct written first, behind, before;
	start(&f, 1024 * KIB);
	assert_int_equal(finish(put(&f, "first", 512 * KIB, false, &first), &first), 0);
	struct cst_object_op *b = put(&f, "behind", 100 * KIB, true, &behind);
	cst_object_hurry(b);
	struct cst_object_op *a = put(&f, "before", 100 * KIB, false, &before);
	assert_int_equal(finish(a, &before), 0);
	assert_int_equal(finish(b, &behind), 0);
	assert_true(asked(&f, 1, "PUT", "behind"));
	assert_true(asked(&f, 2, "PUT", "before"));
	written_fini(&first);
	written_fini(&before);
	written_fini(&behind);
	fixture_stop(&f);
}

/* The allowance would come in hours. */
static void cancelled_at_once(void **state)
{
	(void)state;
	struct fixture f;
	struct written first, waits;
	start(&f, 1);
	assert_int_equal(finish(put(&f, "first", 8 * KIB, false, &first), &first), 0);
	struct cst_object_op *op = put(&f, "waits", 8 * KIB, true, &waits);
	cst_object_cancel(op);
	assert_int_equal(finish(op, &waits), -ECANCELED);
	assert_false(waits.repeated);
	assert_int_equal(scripted_server_requests(f.server), 1);
	written_fini(&first);
	written_fini(&waits);
	fixture_stop(&f);
}

/* ---- credentials ---- */

static void write_file(const char *dir, const char *name, const char *text)
{
	char path[160], temporary[160];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	snprintf(temporary, sizeof(temporary), "%s/.%s.new", dir, name);
	int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	CST_ASSERT(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
	CST_ASSERT(rename(temporary, path) == 0);
}

static enum scripted_end refuse_old(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	const char *dir = arg;
	if (n == 0) {
		write_file(dir, "AccessKeyId", "NEWKEY");
		write_file(dir, "AccessKeySecret", "newsecret");
	}
	if (strstr(request, "OSS NEWKEY:"))
		scripted_answer(out, 200, "ETag: \"e\"\r\n", "");
	else
		scripted_answer(out, 403, "", "<Error><Code>InvalidAccessKeyId</Code></Error>");
	return SCRIPTED_KEEP;
}

static void renewed(void **state)
{
	(void)state;
	char dir[] = "/tmp/cistern-write-XXXXXX", command[64];
	CST_ASSERT(mkdtemp(dir));
	write_file(dir, "AccessKeyId", "OLDKEY");
	write_file(dir, "AccessKeySecret", "oldsecret");
	struct cst_credentials_config c = {.cloud = CST_CLOUD_OSS, .secret_dir = dir};
	struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS, .credentials = cst_credentials_new(&c, NULL)};
	struct fixture f;
	struct written w;
	memcpy(memory, "the body", 9);
	fixture_start(&f, refuse_old, dir, &config);
	assert_int_equal(finish(put(&f, "k", 8, false, &w), &w), 0);
	assert_false(w.repeated); /* a refusal did nothing */
	assert_int_equal(scripted_server_requests(f.server), 2);
	assert_string_equal(scripted_server_body(f.server, 1), "the body");
	written_fini(&w);
	fixture_stop(&f);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(uploads_wait_in_order),
		cmocka_unit_test(hurried),
		cmocka_unit_test(cancelled_at_once),
		cmocka_unit_test(renewed),
	};
	return cmocka_run_group_tests_name("write_limits", tests, NULL, NULL);
}
