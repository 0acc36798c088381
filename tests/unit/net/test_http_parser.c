#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/http_parser.h"

#include <errno.h>
#include <stdio.h>

typedef ssize_t (*parse_fn)(struct cst_slice data, struct cst_http_head *head, const char **why);

/* A copy of exactly that size, so that a sanitizer sees any read beyond it. */
static ssize_t parse_copy(parse_fn parse, const char *text, size_t len, struct cst_http_head *head, const char **why)
{
	char *copy = cst_xmalloc(len ? len : 1);
	ssize_t rc;

	memcpy(copy, text, len);
	rc = parse((struct cst_slice){copy, len}, head, why);
	free(copy);
	return rc;
}

static const struct good {
	bool request;
	const char *text;
	int minor, status;
	bool keep_alive, chunked, expect;
	int64_t length;
	size_t headers;
} goods[] = {
	{true, "GET / HTTP/1.1\r\n\r\n", 1, 0, true, false, false, -1, 0},
	{true, "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 1, 0, true, false, false, -1, 1},
	{true, "GET / HTTP/1.0\r\n\r\n", 0, 0, false, false, false, -1, 0},
	{true, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 0, 0, true, false, false, -1, 1},
	{true, "GET http://h:1/p?q HTTP/1.1\r\nHost: h\r\nConnection: a, Close ,b\r\n\r\n", 1, 0, false, false, false,
	 -1, 2},
	{true, "PUT /\xc3\xa4 HTTP/1.1\r\nContent-Length:  12 \t\r\nEXPECT: 100-Continue\r\n\r\n", 1, 0, true, false,
	 true, 12, 2},
	{true, "M-SEARCH * HTTP/1.1\r\ntransfer-encoding: CHUNKED\r\n\r\n", 1, 0, true, true, false, -1, 1},
	{true, "PUT / HTTP/1.1\r\nContent-Length: 9223372036854775807\r\n\r\n", 1, 0, true, false, false, INT64_MAX, 1},
	{false, "HTTP/1.1 200 OK\r\nA:\r\nB: \r\nC:c\r\n\r\n", 1, 200, true, false, false, -1, 3},
	{false, "HTTP/1.1 404\r\n\r\n", 1, 404, true, false, false, -1, 0},
	{false, "HTTP/1.1 200 \r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 1, 200, false, false, false, 0, 2},
	{false, "HTTP/1.0 599 x y\r\n\r\n", 0, 599, false, false, false, -1, 0},
	{false, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n", 1, 200, true, true,
	 false, -1, 2},
	{false, "HTTP/1.1 200 OK\r\nX: \x80\x01\xff\r\n\r\n", 1, 200, true, false, false, -1, 1},
};

static void test_good(void **state)
{
	struct cst_http_head head;
	const char *why;

	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(goods); i++) {
		const struct good *g = &goods[i];
		parse_fn parse = g->request ? cst_http_parse_request : cst_http_parse_response;
		size_t len = strlen(g->text);
		char more[512];

		for (size_t cut = 0; cut < len; cut++)
			assert_int_equal(parse_copy(parse, g->text, cut, &head, &why), 0);
		snprintf(more, sizeof(more), "%sGET body", g->text);
		assert_int_equal(parse_copy(parse, more, strlen(more), &head, &why), len);
		assert_int_equal(head.minor_version, g->minor);
		assert_int_equal(head.status, g->status);
		assert_int_equal(head.keep_alive, g->keep_alive);
		assert_int_equal(head.chunked, g->chunked);
		assert_int_equal(head.expect_continue, g->expect);
		assert_int_equal(head.content_length, g->length);
		assert_int_equal(head.header_count, g->headers);
	}
}

static const struct bad {
	bool request;
	const char *text;
	size_t len; /* 0: strlen */
} bads[] = {
	{true, "GET /\r\n\r\n", 0},
	{true, "GET  / HTTP/1.1\r\n\r\n", 0},
	{true, "GET / HTTP/1.1 \r\n\r\n", 0},
	{true, " GET / HTTP/1.1\r\n\r\n", 0},
	{true, "\r\n\r\nGET / HTTP/1.1\r\n\r\n", 0},
	{true, "GET / HTTP/2.0\r\n\r\n", 0},
	{true, "GET / http/1.1\r\n\r\n", 0},
	{true, "GET / HTTP/1.x\r\n\r\n", 0},
	{true, "G(T / HTTP/1.1\r\n\r\n", 0},
	{true, "GET /\tx HTTP/1.1\r\n\r\n", 0},
	{true, "GET / HTTP/1.1\n\n", 0},
	{true, "GET / HTTP/1.1\r\nA: b\n\r\n", 0},
	{true, "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", 0},
	{true, "GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", 26},
	{true, "GET / HTTP/1.1\r\nA : b\r\n\r\n", 0},
	{true, "GET / HTTP/1.1\r\n: b\r\n\r\n", 0},
	{true, "GET / HTTP/1.1\r\nA\r\n\r\n", 0},
	{true, "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 0},
	{true, "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 0},
	{true, "GET / HTTP/1.1\r\nExpect: gold\r\n\r\n", 0},
	{true, "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 0},
	{true, "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 0},
	{true, "GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 0},
	{true, "GET / HTTP/1.1\r\nContent-Length: 1,1\r\n\r\n", 0},
	{true, "GET / HTTP/1.1\r\nContent-Length:\r\n\r\n", 0},
	{true, "GET / HTTP/1.1\r\nContent-Length: 9223372036854775808\r\n\r\n", 0},
	{true, "GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 0},
	{true, "GET / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", 0},
	{true, "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 0},
	{true, "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 0},
	{false, "HTTP/1.1 20 OK\r\n\r\n", 0},
	{false, "HTTP/1.1 2000 OK\r\n\r\n", 0},
	{false, "HTTP/1.1 099 OK\r\n\r\n", 0},
	{false, "HTTP/1.1  200 OK\r\n\r\n", 0},
	{false, "HTTP/2.0 200 OK\r\n\r\n", 0},
	{false, "\r\nHTTP/1.1 200 OK\r\n\r\n", 0},
	{false, "ICY 200 OK\r\n\r\n", 0},
};

static void test_bad(void **state)
{
	struct cst_http_head head;
	const char *why;

	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(bads); i++) {
		parse_fn parse = bads[i].request ? cst_http_parse_request : cst_http_parse_response;

		why = NULL;
		assert_int_equal(
			parse_copy(parse, bads[i].text, bads[i].len ? bads[i].len : strlen(bads[i].text), &head, &why),
			-EBADMSG);
		assert_non_null(why);
	}
}

static void test_limits(void **state)
{
	CST_AUTO_BUF text = CST_BUF_INIT;
	struct cst_http_head head;
	const char *why;

	(void)state;
	cst_buf_add_str(&text, "GET / HTTP/1.1\r\n");
	for (int i = 0; i < CST_HTTP_HEADERS_MAX; i++)
		cst_buf_printf(&text, "H%d: v\r\n", i);
	cst_buf_add_str(&text, "\r\n");
	assert_int_equal(cst_http_parse_request(cst_buf_slice(&text), &head, &why), text.len);
	assert_true(cst_slice_is(cst_http_header_get(&head, "h127"), "v"));
	text.len -= 2;
	cst_buf_add_str(&text, "One: more\r\n\r\n");
	assert_int_equal(cst_http_parse_request(cst_buf_slice(&text), &head, &why), -E2BIG);

	cst_buf_clear(&text);
	cst_buf_add_str(&text, "GET /");
	memset(cst_buf_room(&text, 70000), 'a', 70000);
	text.len += 60000;
	assert_int_equal(cst_http_parse_request(cst_buf_slice(&text), &head, &why), 0);
	text.len += 10000;
	assert_int_equal(cst_http_parse_request(cst_buf_slice(&text), &head, &why), -E2BIG);
}

static void test_headers(void **state)
{
	struct cst_http_head head;
	const char *why;

	(void)state;
	assert_true(cst_http_parse_response(
			    CST_SLICE("HTTP/1.1 206 Partial Content\r\nETag: \"x\"\r\nEmpty:\r\netag: y\r\n\r\n"),
			    &head, &why) > 0);
	assert_true(cst_slice_is(cst_http_header_get(&head, "ETAG"), "\"x\""));
	assert_non_null(cst_http_header_get(&head, "empty").data);
	assert_int_equal(cst_http_header_get(&head, "empty").len, 0);
	assert_null(cst_http_header_get(&head, "absent").data);
	assert_true(cst_slice_is(head.reason, "Partial Content"));
	assert_true(cst_http_parse_request(CST_SLICE("DELETE /a?b=c HTTP/1.1\r\n\r\n"), &head, &why) > 0);
	assert_true(cst_slice_is(head.method, "DELETE"));
	assert_true(cst_slice_is(head.target, "/a?b=c"));
}

/* ---- chunks ---- */

/* Decodes with the input cut into two at `cut`; the content, or NULL when it is refused. `taken`: bytes consumed. */
static char *decode(const char *text, size_t len, size_t cut, bool *done, size_t *taken)
{
	struct cst_http_chunked c = {0};
	CST_AUTO_BUF out = CST_BUF_INIT;
	size_t at = 0;

	while (at < len && !c.done) {
		size_t limit = at < cut ? cut : len;
		char *copy = cst_xmalloc(limit - at);
		struct cst_slice content;
		ssize_t n;

		memcpy(copy, text + at, limit - at);
		n = cst_http_chunked_feed(&c, (struct cst_slice){copy, limit - at}, &content);
		if (n > 0)
			cst_buf_add_slice(&out, content);
		free(copy);
		if (n < 0)
			return NULL;
		assert_true(n > 0);
		at += n;
	}
	*done = c.done;
	*taken = at;
	return cst_buf_steal(&out);
}

static void test_chunks(void **state)
{
	static const char *const texts[][2] = {
		{"0\r\n\r\n", ""},
		{"5\r\nhello\r\n0\r\n\r\n", "hello"},
		{"005\r\nhello\r\nA;a=\"b\"\r\n0123456789\r\n0;x\r\nT: v\r\nU: w\r\n\r\n", "hello0123456789"},
		{"1 \r\na\r\n1\t;q\r\nb\r\n000\r\n\r\n", "ab"},
		{"a\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n\r\n\r\n\r\n"},
	};
	bool done;
	size_t taken;

	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(texts); i++) {
		size_t len = strlen(texts[i][0]);
		char more[200];

		snprintf(more, sizeof(more), "%sHTTP/1.1", texts[i][0]);
		for (size_t cut = 0; cut <= len; cut++) {
			char *out = decode(more, strlen(more), cut, &done, &taken);

			assert_non_null(out);
			assert_string_equal(out, texts[i][1]);
			assert_true(done);
			assert_int_equal(taken, len);
			free(out);
			out = decode(texts[i][0], cut, cut, &done, &taken);
			assert_non_null(out);
			assert_int_equal(done, cut == len);
			free(out);
		}
	}
}

static void test_bad_chunks(void **state)
{
	static const char *const texts[] = {
		"\r\n",
		"g\r\n",
		";x\r\n",
		" 5\r\nhello\r\n",
		"-1\r\n",
		"0x5\r\nhello\r\n",
		"5\nhello\r\n",
		"5\r\nhello\n",
		"5\r\nhellox\r\n",
		"5\r\nhello\r\r",
		"5\rx",
		"5;a\nb\r\n",
		"0\r\n\rx",
		"0\r\nA: b\n\r\n",
		"0\r\nA: b\rx",
		"8000000000000000\r\n",
		"ffffffffffffffffff\r\n",
		"1\r\na\r\n\r\n",
	};
	CST_AUTO_BUF longest = CST_BUF_INIT;
	bool done;
	size_t taken;

	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(texts); i++)
		for (size_t cut = 0; cut <= strlen(texts[i]); cut++)
			assert_null(decode(texts[i], strlen(texts[i]), cut, &done, &taken));
	cst_buf_add_str(&longest, "1;");
	memset(cst_buf_room(&longest, 5000), 'x', 5000);
	longest.len += 5000;
	assert_null(decode(longest.data, longest.len, 0, &done, &taken));
	cst_buf_clear(&longest);
	cst_buf_add_str(&longest, "0\r\n");
	for (int i = 0; i < 7000; i++)
		cst_buf_add_str(&longest, "Trailer: v\r\n");
	assert_null(decode(longest.data, longest.len, 0, &done, &taken));
}

static void test_chunks_in_place(void **state)
{
	struct cst_http_chunked c = {0};
	struct cst_slice content;

	(void)state;
	assert_int_equal(cst_http_chunked_next(&c), 0);
	assert_int_equal(cst_http_chunked_feed(&c, CST_SLICE("a\r\n"), &content), 3);
	assert_int_equal(content.len, 0);
	assert_int_equal(cst_http_chunked_next(&c), 10);
	cst_http_chunked_took(&c, 4);
	assert_int_equal(cst_http_chunked_next(&c), 6);
	cst_http_chunked_took(&c, 6);
	assert_int_equal(cst_http_chunked_next(&c), 0);
	assert_int_equal(cst_http_chunked_feed(&c, CST_SLICE("\r\n0\r\n\r\n"), &content), 7);
	assert_true(c.done);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_headers),
		cmocka_unit_test(test_chunks),
		cmocka_unit_test(test_bad_chunks),
		cmocka_unit_test(test_chunks_in_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
