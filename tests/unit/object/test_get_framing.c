/* Answers of odd framing: bodies without a length, longer than their range, objects without an ETag, and thin lines. */
#include "bucket_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define CONTENT "0123456789abcdefghijABCDEFGHIJ" /* the object: 30 bytes */
#define CHUNKED "Transfer-Encoding: chunked\r\n\r\n"
#define END_CHUNK "\r\n0\r\n\r\n"
#define MONDAY "Last-Modified: Mon, 06 Jan 2025 10:00:00 GMT\r\n"
#define TUESDAY "Last-Modified: Tue, 07 Jan 2025 10:00:00 GMT\r\n"

/* The answers in order, byte for byte; the last one goes on. One that ends with CUT is followed by the connection's end. */
#define CUT "\x01"
struct script {
	const char *const *answers;
	unsigned count;
};

static enum scripted_end play(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	const struct script *script = arg;
	const char *answer = script->answers[cst_min(n, script->count - 1)];
	(void)request;
	cst_buf_add_str(out, answer);
	if (out->data[out->len - 1] != *CUT)
		return SCRIPTED_KEEP;
	out->len--;
	return SCRIPTED_CLOSE;
}

/* Reads [offset, offset + length); returns the number of requests. */
static unsigned read_range(const char *const *answers, unsigned count, uint64_t offset, size_t length,
			   const char *if_match, char *buffer, struct outcome *o)
{
	struct script script = {answers, count};
	struct fixture f;
	fixture_start(&f, play, &script, NULL);
	fixture_read(&f, offset, length, if_match, buffer, o);
	unsigned requests = scripted_server_requests(f.server);
	fixture_stop(&f);
	return requests;
}

static void whole_object_of_unknown_size(void **state)
{
	(void)state;
	static const char *const answers[] = {"HTTP/1.1 200 OK\r\nETag: \"E1\"\r\n" CHUNKED
					      "14\r\n0123456789abcdefghij\r\na\r\nABCDEFGHIJ" END_CHUNK};
	char buffer[64] = "";
	struct outcome o;
	read_range(answers, 1, 5, 10, NULL, buffer, &o);
	assert_int_equal(o.rc, 0);
	assert_int_equal(o.got, 10);
	assert_string_equal(buffer, "56789abcde");
	assert_int_equal(o.info.size, 30);
	outcome_fini(&o);
	read_range(answers, 1, 30, 10, NULL, buffer, &o);
	assert_int_equal(o.rc, -ERANGE);
	outcome_fini(&o);
}

static void body_longer_than_its_range(void **state)
{
	(void)state;
	static const char *const answers[] = {
		"HTTP/1.1 206 X\r\nETag: \"E1\"\r\nContent-Range: bytes 5-7/30\r\n" CHUNKED "6\r\n567###" END_CHUNK,
		"HTTP/1.1 206 X\r\nETag: \"E1\"\r\nContent-Range: bytes 5-14/30\r\n" CHUNKED
		"a\r\n56789abcde" END_CHUNK};
	char buffer[64] = "";
	struct outcome o;
	assert_int_equal(read_range(answers, 2, 5, 10, NULL, buffer, &o), 2);
	assert_int_equal(o.rc, 0);
	assert_string_equal(buffer, "56789abcde");
	outcome_fini(&o);
	assert_int_equal(read_range(answers, 1, 5, 10, NULL, buffer, &o), 3);
	assert_int_equal(o.rc, -EIO);
	assert_non_null(strstr(o.text, "longer than its range"));
	outcome_fini(&o);
}

static void resumed_without_etag(void **state)
{
	(void)state;
	/* Another object by its time: none of the first one's bytes stay. */
	static const char *const changed[] = {
		"HTTP/1.1 206 X\r\n" MONDAY "Content-Range: bytes 0-9/30\r\nContent-Length: 10\r\n\r\n0123" CUT,
		"HTTP/1.1 206 X\r\n" TUESDAY "Content-Range: bytes 4-9/30\r\nContent-Length: 6\r\n\r\nwwwwww",
		"HTTP/1.1 206 X\r\n" TUESDAY "Content-Range: bytes 0-9/30\r\nContent-Length: 10\r\n\r\nNEWNEWNEWN"};
	static const char *const same[] = {
		"HTTP/1.1 206 X\r\n" MONDAY "Content-Range: bytes 0-9/30\r\nContent-Length: 10\r\n\r\n0123" CUT,
		"HTTP/1.1 206 X\r\n" MONDAY "Content-Range: bytes 4-9/30\r\nContent-Length: 6\r\n\r\n456789"};
	/* Nothing tells. */
	static const char *const silent[] = {
		"HTTP/1.1 206 X\r\nContent-Range: bytes 0-9/30\r\nContent-Length: 10\r\n\r\n0123" CUT,
		"HTTP/1.1 206 X\r\nContent-Range: bytes 4-9/30\r\nContent-Length: 6\r\n\r\n456789",
		"HTTP/1.1 206 X\r\nContent-Range: bytes 0-9/30\r\nContent-Length: 10\r\n\r\nNEWNEWNEWN"};
	char buffer[64] = "";
	struct outcome o;
	read_range(changed, 3, 0, 10, NULL, buffer, &o);
	assert_int_equal(o.rc, 0);
	assert_string_equal(buffer, "NEWNEWNEWN");
	outcome_fini(&o);
	read_range(changed, 3, 0, 10, "E1", buffer, &o);
	assert_int_equal(o.rc, -ESTALE);
	outcome_fini(&o);
	assert_int_equal(read_range(same, 2, 0, 10, NULL, buffer, &o), 2);
	assert_int_equal(o.rc, 0);
	assert_string_equal(buffer, "0123456789");
	outcome_fini(&o);
	read_range(silent, 3, 0, 10, NULL, buffer, &o);
	assert_int_equal(o.rc, 0);
	assert_string_equal(buffer, "NEWNEWNEWN");
	outcome_fini(&o);
	assert_int_equal(read_range(silent, 2, 0, 10, "E1", buffer, &o), 2); /* the store was told which one */
	assert_int_equal(o.rc, 0);
	assert_string_equal(buffer, "0123456789");
	outcome_fini(&o);
}

/* ---- thin lines ---- */

#define PIECE 16384
#define PIECES 6

/* Each answer stops after a part of what it promised. */
static enum scripted_end piece(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	const char *range = strstr(request, "Range: bytes=");
	unsigned long from = range ? strtoul(range + 13, NULL, 10) : 0, size = PIECE * PIECES;
	(void)arg, (void)n;
	cst_buf_printf(
		out,
		"HTTP/1.1 206 X\r\nETag: \"E1\"\r\nContent-Range: bytes %lu-%lu/%lu\r\nContent-Length: %lu\r\n\r\n",
		from, size - 1, size, size - from);
	memset(cst_buf_room(out, PIECE), 'a' + (int)(from / PIECE), PIECE);
	out->len += PIECE;
	return SCRIPTED_STALL;
}

static void what_comes_extends_the_deadline(void **state)
{
	(void)state;
	struct cst_bucket_config config = {
		.cloud = CST_CLOUD_OSS, .request_timeout = 100 * CST_NS_PER_MS, .deadline = 150 * CST_NS_PER_MS};
	CST_AUTO_FREE char *buffer = cst_xcalloc(1, PIECE * PIECES);
	struct fixture f;
	struct outcome o;
	fixture_start(&f, piece, NULL, &config);
	assert_int_equal(fixture_read(&f, 0, PIECE * PIECES, "E1", buffer, &o), 0);
	for (int i = 0; i < PIECE * PIECES; i++)
		if (buffer[i] != 'a' + i / PIECE)
			fail_msg("byte %d", i);
	outcome_fini(&o);
	fixture_stop(&f);
}

/* The first answer says what is wrong; the second attempt hangs until the deadline. */
static enum scripted_end busy_then_silent(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	(void)arg, (void)request;
	if (n > 0)
		return SCRIPTED_STALL;
	scripted_answer(out, 503, "", "<Error><Code>ServiceUnavailable</Code><Message>busy</Message></Error>");
	return SCRIPTED_KEEP;
}

static void deadline_names_the_last_answer(void **state)
{
	(void)state;
	struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS, .deadline = 300 * CST_NS_PER_MS};
	char buffer[64] = "";
	struct fixture f;
	struct outcome o;
	fixture_start(&f, busy_then_silent, NULL, &config);
	assert_int_equal(fixture_read(&f, 0, 10, "E1", buffer, &o), -ETIMEDOUT);
	assert_non_null(strstr(o.text, "503 ServiceUnavailable: busy"));
	outcome_fini(&o);
	fixture_stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_object_of_unknown_size),	  cmocka_unit_test(body_longer_than_its_range),
		cmocka_unit_test(resumed_without_etag),		  cmocka_unit_test(what_comes_extends_the_deadline),
		cmocka_unit_test(deadline_names_the_last_answer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
