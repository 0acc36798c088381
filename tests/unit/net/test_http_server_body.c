/* Response bodies: files, TLS, pacing, faults and the hooks that a layer above uses. */
#include "http_server_fixture.h"

#include "net/http_server_pace.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define GET(path) "GET " path " HTTP/1.1\r\nHost: h\r\n\r\n"

static int start_plain(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	fixture_start(f, NULL, false, true);
	*state = f;
	return 0;
}

static int start_tls(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	fixture_start(f, NULL, true, false);
	*state = f;
	return 0;
}

static int stop(void **state)
{
	fixture_stop(*state);
	free(*state);
	return 0;
}

/* ---- pacing, with times of our own ---- */

static void paces_by_the_clock(void **state)
{
	(void)state;
	const uint64_t rate = 90 * 1024 * 1024;
	struct cst_http_pace pace = {.rate = rate};
	size_t slice = cst_http_pace_slice(rate);
	int64_t now = 1000 * CST_NS_PER_S, start = now;
	uint64_t bytes = 0;
	cst_http_pace_begin(&pace, now);
	/* A sender that sleeps until it may send, and wakes 0.3 ms late every time, still gets the whole rate. */
	while (now - start < 10 * CST_NS_PER_S) {
		int64_t at = cst_http_pace_reserve(&pace, now, slice, 100 * CST_NS_PER_MS);
		if (at > now)
			now = at + 300 * CST_NS_PER_US;
		bytes += slice;
	}
	assert_in_range(bytes, rate * 10 * 98 / 100, rate * 10 * 102 / 100);
}

static void pacing_forgets_idle_time(void **state)
{
	(void)state;
	struct cst_http_pace pace = {.rate = 1000};
	int64_t now = CST_NS_PER_S;
	cst_http_pace_begin(&pace, now);
	assert_int_equal(cst_http_pace_reserve(&pace, now, 1000, 0), now);
	assert_int_equal(cst_http_pace_reserve(&pace, now, 1000, 0), now + CST_NS_PER_S);
	/* An hour of silence earns nothing at the next response, and at most the catch-up within one. */
	now += 3600 * CST_NS_PER_S;
	cst_http_pace_begin(&pace, now);
	assert_int_equal(cst_http_pace_reserve(&pace, now, 1000, CST_NS_PER_S), now);
	assert_int_equal(cst_http_pace_reserve(&pace, now, 1000, CST_NS_PER_S), now + CST_NS_PER_S);
	now += 3600 * CST_NS_PER_S;
	assert_int_equal(cst_http_pace_reserve(&pace, now, 1000, CST_NS_PER_S), now - CST_NS_PER_S);
	assert_int_equal(cst_http_pace_reserve(&pace, now, 1000, CST_NS_PER_S), now);
	assert_int_equal(cst_http_pace_reserve(&pace, now, 1000, CST_NS_PER_S), now + CST_NS_PER_S);
}

static void pacing_slices_are_small(void **state)
{
	(void)state;
	assert_int_equal(cst_http_pace_slice(1), 1024);
	assert_int_equal(cst_http_pace_slice(16 * 1024), 1024);
	assert_int_equal(cst_http_pace_slice(5 * 1024 * 1024), 5 * 1024 * 1024 / 50);
	assert_int_equal(cst_http_pace_slice(UINT64_MAX), 256 * 1024);
	struct cst_http_pace none = {0};
	assert_int_equal(cst_http_pace_reserve(&none, 5, UINT64_MAX, 0), 5);
}

/* Paced bodies are whole, and no slower than the rate asks: that they are not faster is the arithmetic's, tested above. */
static void paced_bodies_are_whole(void **state)
{
	(void)state;
	struct fixture f;
	CST_AUTO_BUF head = CST_BUF_INIT;
	CST_AUTO_BUF body = CST_BUF_INIT;
	struct cst_http_server_config config = {.connection_bandwidth = 64 << 20, .total_bandwidth = 64 << 20};
	fixture_start(&f, &config, false, false);
	int64_t before = cst_now();
	int fd = fixture_connect(&f);
	send_text(fd, GET("/body"));
	assert_int_equal(read_response(fd, &head, &body, false), 200);
	assert_int_equal(body.len, f.pattern_len);
	assert_memory_equal(body.data, f.pattern, f.pattern_len);
	/* All but the first slice had to wait for its time. */
	int64_t least = (int64_t)(f.pattern_len - 512 * 1024) * CST_NS_PER_S / (64 << 20);
	assert_true(cst_now() - before >= least);
	close(fd);
	fixture_stop(&f);
}

/* ---- files ---- */

static void check_range(struct fixture *f, int fd, size_t offset, size_t len)
{
	CST_AUTO_BUF head = CST_BUF_INIT;
	CST_AUTO_BUF body = CST_BUF_INIT;
	char request[128];
	snprintf(request, sizeof(request), "GET /file/%zu/%zu HTTP/1.1\r\nHost: h\r\n\r\n", offset, len);
	send_text(fd, request);
	assert_int_equal(read_response(fd, &head, &body, false), 200);
	assert_int_equal(body.len, len);
	assert_memory_equal(body.data, f->pattern + offset, len);
}

static void sends_files(void **state)
{
	struct fixture *f = *state;
	int fds[] = {fixture_connect(f), fixture_connect_unix(f)};
	for (size_t i = 0; i < CST_ARRAY_LEN(fds); i++) {
		check_range(f, fds[i], 0, f->pattern_len);
		check_range(f, fds[i], 1, 1);
		check_range(f, fds[i], 4095, 4098);
		check_range(f, fds[i], 12345, 1000000);
		check_range(f, fds[i], 0, 0);
		check_range(f, fds[i], f->pattern_len - 1, 1);
		close(fds[i]);
	}
}

/* A file that shrank after its length was told: the client must see that the body is short. */
static void tells_that_a_file_shrank(void **state)
{
	struct fixture *f = *state;
	size_t len;
	int rc;
	int fd = fixture_connect(f);
	send_text(fd, "GET /file/3145000/5000 HTTP/1.1\r\nHost: h\r\n\r\n");
	char *got = read_to_end(fd, &len, &rc);
	char *body = strstr(got, "\r\n\r\n") + 4;
	assert_non_null(strstr(got, "Content-Length: 5000"));
	assert_int_equal(len - (size_t)(body - got), f->pattern_len - 3145000);
	free(got);
	close(fd);
}

static void a_short_body_closes(void **state)
{
	size_t len;
	int rc;
	int fd = fixture_connect(*state);
	send_text(fd, GET("/short") GET("/hello"));
	char *got = read_to_end(fd, &len, &rc);
	assert_string_equal(strstr(got, "\r\n\r\n") + 4, "0123456789");
	free(got);
	close(fd);
}

/* ---- TLS ---- */

static SSL *tls_connect(struct fixture *f, SSL_CTX *ctx)
{
	SSL *ssl = SSL_new(ctx);
	assert_int_equal(SSL_set_fd(ssl, fixture_connect(f)), 1);
	assert_int_equal(SSL_connect(ssl), 1);
	return ssl;
}

static void tls_close(SSL *ssl)
{
	int fd = SSL_get_fd(ssl);
	SSL_free(ssl);
	close(fd);
}

static void tls_get(SSL *ssl, const char *request, struct cst_buf *body)
{
	CST_AUTO_BUF got = CST_BUF_INIT;
	struct cst_http_head head;
	const char *why;
	ssize_t head_len = 0;
	assert_int_equal(SSL_write(ssl, request, (int)strlen(request)), strlen(request));
	while (head_len == 0 || got.len < (size_t)head_len + (size_t)head.content_length) {
		int n = SSL_read(ssl, cst_buf_room(&got, 65536), 65536);
		assert_true(n > 0);
		got.len += (size_t)n;
		head_len = cst_http_parse_response(cst_buf_slice(&got), &head, &why);
		assert_true(head_len >= 0);
	}
	assert_int_equal(got.len, (size_t)head_len + (size_t)head.content_length);
	cst_buf_clear(body);
	cst_buf_add(body, got.data + head_len, got.len - (size_t)head_len);
}

static void serves_tls(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_BUF body = CST_BUF_INIT;
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *ssl = tls_connect(f, ctx);
	for (int i = 0; i < 3; i++) {
		tls_get(ssl, GET("/hello"), &body);
		assert_memory_equal(body.data, "hello", 5);
		tls_get(ssl, GET("/file/777/3000000"), &body);
		assert_memory_equal(body.data, f->pattern + 777, 3000000);
		tls_get(ssl, GET("/body"), &body);
		assert_memory_equal(body.data, f->pattern, f->pattern_len);
		cst_sleep(5 * CST_NS_PER_MS);
	}
	tls_get(ssl, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nsecret", &body);
	assert_memory_equal(body.data, "secret", 6);
	tls_close(ssl);
	SSL_CTX_free(ctx);
}

static void survives_tls_strangers(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_BUF body = CST_BUF_INIT;
	size_t len;
	int rc;
	int fd = fixture_connect(f);
	send_text(fd, GET("/hello"));
	free(read_to_end(fd, &len, &rc)); /* an alert, or nothing; then the end */
	close(fd);
	fd = fixture_connect(f);
	close(fd);
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *ssl = tls_connect(f, ctx);
	tls_get(ssl, GET("/hello"), &body);
	tls_close(ssl);
	SSL_CTX_free(ctx);
}

/* ---- faults and hooks ---- */

static void resets(void **state)
{
	char c;
	int fd = fixture_connect(*state);
	send_text(fd, GET("/reset"));
	assert_int_equal(recv(fd, &c, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
	close(fd);
}

static void cuts_bodies(void **state)
{
	struct fixture *f = *state;
	size_t len;
	int rc;
	static const size_t cuts[] = {0, 1, 100000, FIXTURE_PATTERN - 1};
	for (size_t i = 0; i < CST_ARRAY_LEN(cuts); i++) {
		char request[64];
		int fd = fixture_connect(f);
		snprintf(request, sizeof(request), "GET /cut/%zu HTTP/1.1\r\nHost: h\r\n\r\n", cuts[i]);
		send_text(fd, request);
		char *got = read_to_end(fd, &len, &rc);
		assert_int_equal(rc, 0);
		char *body = strstr(got, "\r\n\r\n") + 4;
		assert_int_equal(len - (size_t)(body - got), cuts[i]);
		assert_memory_equal(body, f->pattern, cuts[i]);
		free(got);
		close(fd);
	}
	int fd = fixture_connect(f);
	send_text(fd, GET("/kill/100000"));
	free(read_to_end(fd, &len, &rc));
	assert_int_equal(rc, -ECONNRESET);
	close(fd);
}

static void slows_one_response(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_BUF head = CST_BUF_INIT;
	CST_AUTO_BUF body = CST_BUF_INIT;
	int fd = fixture_connect(f);
	send_text(fd, GET("/rate/100000000"));
	assert_int_equal(read_response(fd, &head, &body, false), 200);
	assert_memory_equal(body.data, f->pattern, f->pattern_len);
	expect(fd, GET("/hello"), 200, "hello");
	close(fd);
}

static int spoil(struct cst_http_exchange *x, int status, int64_t length, void *arg)
{
	(void)arg;
	assert_int_equal(status, 200);
	assert_int_equal(length, 1);
	struct cst_slice etag = cst_http_response_header_get(x, "etag");
	assert_int_equal(etag.len, 7);
	assert_memory_equal(etag.data, "\"right\"", 7);
	assert_null(cst_http_response_header_get(x, "nothing").data);
	assert_false(cst_http_response_header_replace(x, "nothing", "x"));
	assert_true(cst_http_response_header_replace(x, "ETag", "\"wrong\""));
	return 0;
}

static void finishing(struct cst_http_exchange *x, void *arg)
{
	(void)x;
	__atomic_add_fetch(&((struct fixture *)arg)->finishing, 1, __ATOMIC_SEQ_CST);
}

static void calls_its_hooks(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_BUF head = CST_BUF_INIT;
	CST_AUTO_BUF body = CST_BUF_INIT;
	int fd = fixture_connect(f);
	f->hooks.finishing = finishing;
	/* By the time that the client has an answer it is counted, whoever looks. */
	for (unsigned i = 1; i <= 20; i++) {
		send_text(fd, GET("/body"));
		assert_int_equal(read_response(fd, &head, &body, false), 200);
		assert_int_equal(__atomic_load_n(&f->finishing, __ATOMIC_SEQ_CST), i);
		assert_int_equal(__atomic_load_n(&f->count_out, __ATOMIC_SEQ_CST), i * f->pattern_len);
	}
	uint64_t out = f->count_out;
	send_text(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody");
	assert_int_equal(read_response(fd, &head, &body, false), 200);
	assert_int_equal(__atomic_load_n(&f->count_in, __ATOMIC_SEQ_CST), 4);
	send_text(fd, "HEAD /body HTTP/1.1\r\nHost: h\r\n\r\n");
	assert_int_equal(read_response(fd, &head, &body, true), 200);
	assert_int_equal(__atomic_load_n(&f->count_out, __ATOMIC_SEQ_CST), out + 4);
	assert_int_equal(__atomic_load_n(&f->finishing, __ATOMIC_SEQ_CST), 22);
	f->hooks.before_head = spoil;
	send_text(fd, GET("/etag"));
	assert_int_equal(read_response(fd, &head, &body, false), 200);
	assert_non_null(strstr(head.data, "ETag: \"wrong\"\r\n"));
	assert_null(strstr(head.data, "right"));
	assert_non_null(strstr(head.data, "X-Other: kept\r\n"));
	close(fd);
}

static int refuse_to_answer(struct cst_http_exchange *x, int status, int64_t length, void *arg)
{
	(void)x;
	(void)status;
	(void)length;
	(void)arg;
	return -EPIPE;
}

static void a_hook_may_end_the_exchange(void **state)
{
	struct fixture *f = *state;
	f->hooks.before_head = refuse_to_answer;
	int fd = fixture_connect(f);
	send_text(fd, GET("/body"));
	expect_closed(fd);
}

int main(void)
{
#define WITH_SERVER(fn) cmocka_unit_test_setup_teardown(fn, start_plain, stop)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paces_by_the_clock),
		cmocka_unit_test(pacing_forgets_idle_time),
		cmocka_unit_test(pacing_slices_are_small),
		cmocka_unit_test(paced_bodies_are_whole),
		WITH_SERVER(sends_files),
		WITH_SERVER(tells_that_a_file_shrank),
		WITH_SERVER(a_short_body_closes),
		cmocka_unit_test_setup_teardown(serves_tls, start_tls, stop),
		cmocka_unit_test_setup_teardown(survives_tls_strangers, start_tls, stop),
		WITH_SERVER(resets),
		WITH_SERVER(cuts_bodies),
		WITH_SERVER(slows_one_response),
		WITH_SERVER(calls_its_hooks),
		WITH_SERVER(a_hook_may_end_the_exchange),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
