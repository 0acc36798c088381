/* Reading ranges: what is asked, resumed, refused and given back. */
#include "bucket_fixture.h"

#include "base/clock.h"
#include "base/digest.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define CONTENT "0123456789abcdefghijABCDEFGHIJ" /* the object: 30 bytes */

/* An answer: status and headers, how many body bytes really follow, and how it ends. */
struct step {
	int status;
	const char *headers, *body;
	unsigned long sent; /* of the body; 0: all */
	enum scripted_end end;
};
struct script {
	const struct step *steps;
	unsigned count;
};

static enum scripted_end play(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	const struct script *script = arg;
	const struct step *s = &script->steps[cst_min(n, script->count - 1)];
	(void)request;
	scripted_answer(out, s->status, s->headers, s->body);
	if (s->sent)
		out->len -= strlen(s->body) - s->sent;
	return s->end;
}

#define SCRIPT(...)                                           \
	static const struct step steps[] = {__VA_ARGS__};     \
	struct script script = {steps, CST_ARRAY_LEN(steps)}; \
	struct fixture f;                                     \
	struct outcome o;                                     \
	char buffer[64] = "";                                 \
	fixture_start(&f, play, &script, NULL)
#define END()                     \
	do {                      \
		outcome_fini(&o); \
		fixture_stop(&f); \
	} while (0)
#define E1 "ETag: \"E1\"\r\n"
#define E2 "ETag: \"E2\"\r\n"
#define SLOW "<Error><Code>ServiceUnavailable</Code><Message>busy</Message><RequestId>RID</RequestId></Error>"

static void plain(void **state)
{
	(void)state;
	SCRIPT({206,
		E1
		"Content-Range: bytes 5-14/30\r\nLast-Modified: Sat, 16 Dec 2023 16:20:57 GMT\r\nx-oss-object-type: Appendable\r\n",
		"56789abcde"});
	assert_int_equal(fixture_read(&f, 5, 10, "E1", buffer, &o), 0);
	assert_int_equal(o.got, 10);
	assert_string_equal(buffer, "56789abcde");
	assert_int_equal(o.info.size, 30);
	assert_string_equal(o.info.etag, "E1");
	assert_int_equal(o.info.mtime, 1702743657);
	assert_int_equal(o.info.type, CST_OBJECT_APPENDABLE);
	const char *request = scripted_server_request(f.server, 0);
	assert_ptr_equal(strstr(request, "GET /bkt/dir/k%20y HTTP/1.1\r\n"), request);
	assert_non_null(strstr(request, "Range: bytes=5-14\r\n"));
	assert_non_null(strstr(request, "If-Match: \"E1\"\r\n"));
	assert_non_null(strstr(request, "x-oss-range-behavior: standard\r\n"));
	assert_null(strstr(request, "Authorization"));
	struct cst_bucket_stats stats;
	cst_bucket_stats(f.bucket, &stats);
	assert_int_equal(stats.get, 1);
	assert_int_equal(stats.retries, 0);
	assert_int_equal(stats.bytes_in, 10);
	END();
}

static void clipped_at_end(void **state)
{
	(void)state;
	SCRIPT({206, E1 "Content-Range: bytes 25-29/30\r\n", "FGHIJ"});
	assert_int_equal(fixture_read(&f, 25, 20, NULL, buffer, &o), 0);
	assert_int_equal(o.got, 5);
	assert_string_equal(buffer, "FGHIJ");
	assert_int_equal(scripted_server_requests(f.server), 1);
	END();
}

static void retried(void **state)
{
	(void)state;
	SCRIPT({503, "", SLOW}, {500, "", "oops"},
	       {206, E1 "Content-Range: bytes 0-3/30\r\n", "0123", 0, SCRIPTED_RESET},
	       {206, E1 "Content-Range: bytes 0-3/30\r\n", "0123"});
	assert_int_equal(fixture_read(&f, 0, 4, NULL, buffer, &o), 0);
	assert_string_equal(buffer, "0123");
	assert_in_range(scripted_server_requests(f.server), 3, 4); /* the reset may come after the bytes were read */
	END();
}

static void resumed(void **state)
{
	(void)state;
	SCRIPT({206, E1 "Content-Range: bytes 5-14/30\r\n", "56789abcde", 4, SCRIPTED_CLOSE}, {503, "", SLOW},
	       {206, E1 "Content-Range: bytes 9-14/30\r\n", "9abcde", 5, SCRIPTED_CLOSE},
	       {206, E1 "Content-Range: bytes 14-14/30\r\n", "e"});
	assert_int_equal(fixture_read(&f, 5, 10, NULL, buffer, &o), 0);
	assert_string_equal(buffer, "56789abcde");
	assert_int_equal(o.got, 10);
	assert_null(strstr(scripted_server_request(f.server, 0), "If-Match"));
	assert_non_null(strstr(scripted_server_request(f.server, 1), "Range: bytes=9-14\r\n"));
	assert_non_null(strstr(scripted_server_request(f.server, 2), "If-Match: \"E1\"\r\n"));
	assert_non_null(strstr(scripted_server_request(f.server, 3), "Range: bytes=14-14\r\n"));
	END();
}

/* A store may send less than the range, and say so. */
static void sent_in_parts(void **state)
{
	(void)state;
	SCRIPT({206, E1 "Content-Range: bytes 5-7/30\r\n", "567"},
	       {206, E1 "Content-Range: bytes 8-14/30\r\n", "89abcde"});
	assert_int_equal(fixture_read(&f, 5, 10, NULL, buffer, &o), 0);
	assert_string_equal(buffer, "56789abcde");
	END();
}

static void changed_while_resuming(void **state)
{
	(void)state;
	/* Nobody asked for a version: begin again with the new object, whether the store honours If-Match or not. */
	SCRIPT({206, E1 "Content-Range: bytes 0-9/30\r\n", "0123456789", 4, SCRIPTED_CLOSE}, {412, "", ""},
	       {206, E2 "Content-Range: bytes 0-9/20\r\n", "NEWNEWNEWN", 5, SCRIPTED_CLOSE},
	       {206, "ETag: \"E3\"\r\nContent-Range: bytes 5-9/20\r\n", "xxxxx"},
	       {206, "ETag: \"E3\"\r\nContent-Range: bytes 0-9/20\r\n", "THIRDTHIRD"});
	assert_int_equal(fixture_read(&f, 0, 10, NULL, buffer, &o), 0);
	assert_string_equal(buffer, "THIRDTHIRD");
	assert_string_equal(o.info.etag, "E3");
	END();
}

static void stale(void **state)
{
	(void)state;
	{
		SCRIPT({412, "x-oss-request-id: RQ\r\n", "<Error><Code>PreconditionFailed</Code></Error>"});
		assert_int_equal(fixture_read(&f, 0, 10, "E1", buffer, &o), -ESTALE);
		assert_non_null(strstr(o.text, "oss://bkt/dir/k y"));
		assert_non_null(strstr(o.text, "412 PreconditionFailed"));
		assert_non_null(strstr(o.text, "RQ"));
		END();
	}
	{
		SCRIPT({206, E2 "Content-Range: bytes 0-9/30\r\n", "0123456789"}); /* If-Match ignored */
		assert_int_equal(fixture_read(&f, 0, 10, "E1", buffer, &o), -ESTALE);
		assert_int_equal(o.got, 0);
		assert_int_equal(scripted_server_requests(f.server), 1);
		END();
	}
	{
		SCRIPT({206, E1 "Content-Range: bytes 0-9/30\r\n", "0123456789", 4, SCRIPTED_CLOSE},
		       {206, E2 "Content-Range: bytes 4-9/30\r\n", "xxxxxx"});
		assert_int_equal(fixture_read(&f, 0, 10, "E1", buffer, &o), -ESTALE);
		END();
	}
}

static void range_ignored(void **state)
{
	(void)state;
	{
		SCRIPT({200, E1, CONTENT}); /* asked again, and sifted */
		assert_int_equal(fixture_read(&f, 5, 10, NULL, buffer, &o), 0);
		assert_string_equal(buffer, "56789abcde");
		assert_int_equal(o.got, 10);
		assert_int_equal(o.info.size, 30);
		assert_int_equal(scripted_server_requests(f.server), 2);
		END();
	}
	{
		SCRIPT({200, E1, CONTENT}); /* to the end */
		assert_int_equal(fixture_read(&f, 25, 20, NULL, buffer, &o), 0);
		assert_string_equal(buffer, "FGHIJ");
		assert_int_equal(o.got, 5);
		END();
	}
	{
		SCRIPT({200, E1, CONTENT}); /* the whole object was wanted anyway */
		assert_int_equal(fixture_read(&f, 0, 60, NULL, buffer, &o), 0);
		assert_string_equal(buffer, CONTENT);
		assert_int_equal(o.got, 30);
		assert_int_equal(scripted_server_requests(f.server), 1);
		END();
	}
	{
		SCRIPT({200, E1, CONTENT}); /* behind the end */
		assert_int_equal(fixture_read(&f, 30, 5, NULL, buffer, &o), -ERANGE);
		END();
	}
	{
		SCRIPT({200, E1, CONTENT, 20, SCRIPTED_CLOSE}, {200, E1, CONTENT, 12, SCRIPTED_CLOSE},
		       {200, E1, CONTENT});
		assert_int_equal(fixture_read(&f, 5, 10, NULL, buffer, &o), 0);
		assert_string_equal(buffer, "56789abcde");
		END();
	}
}

static void malformed(void **state)
{
	(void)state;
	static const char *const headers[] = {
		E1,
		E1 "Content-Range: bytes 6-15/30\r\n",
		E1 "Content-Range: bytes 5-15/30\r\n",
		E1 "Content-Range: bytes 5-14/10\r\n",
		E1 "Content-Range: bytes 5-14/*\r\n",
		E1 "Content-Range: bytes 5-12/30\r\n", /* and 10 bytes of body */
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(headers); i++) {
		struct step step = {206, headers[i], "56789abcde", 0, SCRIPTED_KEEP};
		struct script script = {&step, 1};
		struct fixture f;
		struct outcome o;
		char buffer[64] = "";
		fixture_start(&f, play, &script, NULL);
		assert_int_equal(fixture_read(&f, 5, 10, NULL, buffer, &o), -EIO);
		assert_int_equal(scripted_server_requests(f.server), 3);
		assert_non_null(strstr(o.text, "gave up after 3 attempts"));
		END();
	}
}

static void errors(void **state)
{
	(void)state;
	static const struct {
		int status;
		const char *code;
		int rc;
	} rows[] = {{404, "NoSuchKey", -ENOENT},
		    {404, "NoSuchBucket", -ENXIO},
		    {403, "AccessDenied", -EACCES},
		    {416, "InvalidRange", -ERANGE},
		    {403, "InvalidObjectState", -EIO},
		    {400, "InvalidArgument", -EINVAL},
		    {404, "", -ENOENT},
		    {401, "", -EACCES},
		    {418, "Teapot", -EIO}};
	for (size_t i = 0; i < CST_ARRAY_LEN(rows); i++) {
		CST_AUTO_FREE char *body =
			cst_xasprintf("<Error><Code>%s</Code><Message>words</Message><RequestId>RID7</RequestId>"
				      "<StringToSign>SECRET-TEXT</StringToSign></Error>",
				      rows[i].code);
		struct step step = {rows[i].status, "", body, 0, SCRIPTED_KEEP};
		struct script script = {&step, 1};
		struct fixture f;
		struct outcome o;
		char buffer[64];
		fixture_start(&f, play, &script, NULL);
		assert_int_equal(fixture_read(&f, 0, 10, NULL, buffer, &o), rows[i].rc);
		assert_int_equal(scripted_server_requests(f.server), 1);
		assert_int_equal(o.err.status, rows[i].status);
		assert_string_equal(o.err.api, rows[i].code);
		assert_non_null(strstr(o.text, "oss://bkt/dir/k y"));
		assert_non_null(strstr(o.text, "RID7"));
		assert_null(strstr(o.text, "SECRET-TEXT"));
		END();
	}
}

static void one_attempt(void **state)
{
	(void)state;
	SCRIPT({503, "", SLOW});
	struct iovec into = {buffer, 10};
	struct cst_object_get get = {
		.key = CST_SLICE("k"), .length = 10, .into = &into, .into_count = 1, .no_retry = true};
	outcome_init(&o);
	struct cst_object_op *op = cst_object_get(f.bucket, &get, outcome_get, &o);
	cst_object_release(op); /* early */
	outcome_wait(&o);
	assert_int_equal(o.rc, -EIO);
	assert_int_equal(scripted_server_requests(f.server), 1);
	END();
}

static void deadline(void **state)
{
	(void)state;
	SCRIPT({503, "", SLOW});
	struct iovec into = {buffer, 10};
	struct cst_object_get get = {.key = CST_SLICE("k"),
				     .length = 10,
				     .into = &into,
				     .into_count = 1,
				     .deadline = cst_now() + 100 * CST_NS_PER_MS};
	outcome_init(&o);
	struct cst_object_op *op = cst_object_get(f.bucket, &get, outcome_get, &o);
	outcome_wait(&o);
	cst_object_release(op);
	assert_int_equal(o.rc, -ETIMEDOUT);
	assert_true(scripted_server_requests(f.server) > 1);
	assert_non_null(strstr(o.text, "503 ServiceUnavailable: busy (request id RID)"));
	assert_non_null(strstr(o.text, "gave up after"));
	END();
}

static void cancelled(void **state)
{
	(void)state;
	{
		SCRIPT({206, E1 "Content-Range: bytes 0-9/30\r\n", "0123456789", 4, SCRIPTED_STALL});
		struct iovec into = {buffer, 10};
		struct cst_object_get get = {.key = CST_SLICE("k"), .length = 10, .into = &into, .into_count = 1};
		outcome_init(&o);
		struct cst_object_op *op = cst_object_get(f.bucket, &get, outcome_get, &o);
		while (scripted_server_requests(f.server) == 0)
			cst_sleep(CST_NS_PER_MS);
		cst_object_cancel(op);
		cst_object_cancel(op);
		outcome_wait(&o);
		cst_object_cancel(op);
		cst_object_release(op);
		assert_int_equal(o.rc, -ECANCELED);
		END();
	}
	{
		SCRIPT({503, "Retry-After: 3000\r\n",
			SLOW}); /* it sits in a pause, the next one waits for quiet to end */
		struct iovec into = {buffer, 10};
		struct cst_object_get get = {.key = CST_SLICE("k"),
					     .length = 10,
					     .into = &into,
					     .into_count = 1,
					     .deadline = cst_now() + 4000 * CST_NS_PER_S};
		outcome_init(&o);
		struct cst_object_op *op = cst_object_get(f.bucket, &get, outcome_get, &o);
		while (scripted_server_requests(f.server) == 0)
			cst_sleep(CST_NS_PER_MS);
		cst_sleep(5 * CST_NS_PER_MS);
		cst_object_cancel(op);
		outcome_wait(&o);
		cst_object_release(op);
		assert_int_equal(o.rc, -ECANCELED);
		END();
	}
}

static void crc_checked(void **state)
{
	(void)state;
	CST_AUTO_FREE char *right = cst_xasprintf(E1 "Content-Range: bytes 0-29/30\r\nx-oss-hash-crc64ecma: %llu\r\n",
						  (unsigned long long)cst_crc64(0, CONTENT, 30));
	struct step steps[] = {
		{206, E1 "Content-Range: bytes 0-29/30\r\nx-oss-hash-crc64ecma: 1\r\n", CONTENT, 0, SCRIPTED_KEEP},
		{206, right, CONTENT, 0, SCRIPTED_KEEP}};
	for (unsigned count = 1; count <= 2; count++) {
		struct script script = {steps, count};
		struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS, .verify_crc64 = true};
		struct fixture f;
		struct outcome o;
		char buffer[64] = "";
		fixture_start(&f, play, &script, &config);
		assert_int_equal(fixture_read(&f, 0, 40, NULL, buffer, &o), count == 1 ? -EIO : 0);
		assert_int_equal(scripted_server_requests(f.server), count == 1 ? 3 : 2);
		END();
	}
}

static void many_pieces(void **state)
{
	(void)state;
	SCRIPT({206, E1 "Content-Range: bytes 0-29/30\r\n", CONTENT, 7, SCRIPTED_CLOSE},
	       {206, E1 "Content-Range: bytes 7-29/30\r\n", &CONTENT[7]});
	struct iovec into[30];
	for (int i = 0; i < 30; i++)
		into[i] = (struct iovec){buffer + i, 1};
	struct cst_object_get get = {.key = CST_SLICE("k"), .length = 30, .into = into, .into_count = 30};
	outcome_init(&o);
	struct cst_object_op *op = cst_object_get(f.bucket, &get, outcome_get, &o);
	outcome_wait(&o);
	cst_object_release(op);
	assert_int_equal(o.rc, 0);
	assert_string_equal(buffer, CONTENT);
	END();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain),     cmocka_unit_test(clipped_at_end), cmocka_unit_test(retried),
		cmocka_unit_test(resumed),   cmocka_unit_test(sent_in_parts),  cmocka_unit_test(changed_while_resuming),
		cmocka_unit_test(stale),     cmocka_unit_test(range_ignored),  cmocka_unit_test(malformed),
		cmocka_unit_test(errors),    cmocka_unit_test(one_attempt),    cmocka_unit_test(deadline),
		cmocka_unit_test(cancelled), cmocka_unit_test(crc_checked),    cmocka_unit_test(many_pieces),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
