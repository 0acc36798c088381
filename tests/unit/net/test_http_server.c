/* Requests: how they arrive, what is refused, what becomes of the connection. */
#include "http_server_fixture.h"

#include <errno.h>
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

static int stop(void **state)
{
	fixture_stop(*state);
	free(*state);
	return 0;
}

static void keeps_alive(void **state)
{
	int fd = fixture_connect(*state);
	for (int i = 0; i < 50; i++)
		expect(fd, GET("/hello"), 200, "hello");
	struct cst_http_server_stats stats;
	cst_http_server_stats(((struct fixture *)*state)->server, &stats);
	assert_int_equal(stats.accepted, 1);
	assert_int_equal(stats.requests, 50);
	close(fd);
}

/* Each request comes after the worker has gone back to the epoll set. */
static void keeps_alive_after_idling(void **state)
{
	int fd = fixture_connect(*state);
	for (int i = 0; i < 3; i++) {
		expect(fd, GET("/hello"), 200, "hello");
		cst_sleep(20 * CST_NS_PER_MS);
	}
	close(fd);
}

static void answers_pipelined(void **state)
{
	CST_AUTO_BUF head = CST_BUF_INIT;
	CST_AUTO_BUF body = CST_BUF_INIT;
	int fd = fixture_connect(*state);
	send_text(fd, GET("/hello") "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody" GET(
			      "/ignore") "GET /hel");
	assert_int_equal(read_response(fd, &head, &body, false), 200);
	assert_string_equal(body.data, "hello");
	assert_int_equal(read_response(fd, &head, &body, false), 200);
	assert_string_equal(body.data, "body");
	assert_int_equal(read_response(fd, &head, &body, false), 200);
	assert_string_equal(body.data, "ignored");
	expect(fd, "lo HTTP/1.1\r\nHost: h\r\n\r\n", 200, "hello");
	close(fd);
}

static void takes_heads_in_pieces(void **state)
{
	static const char request[] = GET("/hello");
	int fd = fixture_connect(*state);
	for (size_t i = 0; i < sizeof(request) - 2; i++) {
		char c[2] = {request[i], 0};
		send_text(fd, c);
		if (i % 10 == 0)
			cst_sleep(CST_NS_PER_MS);
	}
	expect(fd, "\n", 200, "hello");
	close(fd);
}

static void takes_large_heads(void **state)
{
	CST_AUTO_BUF request = CST_BUF_INIT;
	int fd = fixture_connect(*state);
	for (int round = 0; round < 2; round++) {
		cst_buf_clear(&request);
		cst_buf_add_str(&request, "GET /hello HTTP/1.1\r\nHost: h\r\n");
		for (int i = 0; i < 60; i++)
			cst_buf_printf(&request, "X-%d: %0*d\r\n", i, 900, i);
		cst_buf_add_str(&request, "\r\n");
		expect(fd, request.data, 200, "hello");
	}
	close(fd);
}

static void reads_chunked_bodies(void **state)
{
	int fd = fixture_connect(*state);
	expect(fd,
	       "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
	       "3\r\nabc\r\n5;ext=1\r\ndefgh\r\n0\r\nTrailer: x\r\n\r\n",
	       200, "abcdefgh");
	send_text(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1");
	cst_sleep(5 * CST_NS_PER_MS);
	send_text(fd, "0\r\n0123456789");
	cst_sleep(5 * CST_NS_PER_MS);
	expect(fd, "abcdef\r\n0\r\n\r\n", 200, "0123456789abcdef");
	expect(fd, GET("/hello"), 200, "hello");
	expect(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "bad body");
	expect_closed(fd);
}

static void asks_for_the_body(void **state)
{
	static const char head[] =
		"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
	static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
	char got[sizeof(go_on)] = "";
	int fd = fixture_connect(*state);
	send_text(fd, head);
	assert_int_equal(recv(fd, got, sizeof(go_on) - 1, MSG_WAITALL), sizeof(go_on) - 1);
	assert_string_equal(got, go_on);
	expect(fd, "body", 200, "body");
	close(fd);
	/* A handler that doesn't want the body answers without asking; the connection can't be used further. */
	CST_AUTO_BUF response = CST_BUF_INIT;
	CST_AUTO_BUF body = CST_BUF_INIT;
	fd = fixture_connect(*state);
	send_text(fd, "POST /ignore HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
	assert_int_equal(read_response(fd, &response, &body, false), 200);
	assert_non_null(strstr(response.data, "Connection: close"));
	expect_closed(fd);
}

static void refuses_what_is_not_http(void **state)
{
	static const char *const bad[] = {
		"\x16\x03\x01\x02" /* the beginning of a TLS handshake */,
		"GET /hello\r\n\r\n",
		"GET /hello HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"GET /hello HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET /hello HTTP/1.1\r\nHost: h\r\nX: a\r\n folded\r\n\r\n",
		"GET /hello HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n",
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(bad); i++) {
		int fd = fixture_connect(*state);
		expect(fd, bad[i], 400, NULL);
		expect_closed(fd);
	}
}

static void refuses_endless_heads(void **state)
{
	CST_AUTO_BUF head = CST_BUF_INIT;
	CST_AUTO_BUF body = CST_BUF_INIT;
	int fd = fixture_connect(*state);
	send_text(fd, "GET / HTTP/1.1\r\nHost: h\r\n");
	char line[1025];
	snprintf(line, sizeof(line), "X: %01019d\r\n", 0);
	for (int i = 0; i < 80; i++)
		send_text(fd, line);
	assert_int_equal(read_response(fd, &head, &body, false), 431);
	shutdown(fd, SHUT_WR);
	expect_closed(fd);
}

static void reads_over_unread_bodies(void **state)
{
	CST_AUTO_BUF request = CST_BUF_INIT;
	int fd = fixture_connect(*state);
	cst_buf_printf(&request, "POST /ignore HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%0*d", 100000, 100000,
		       0);
	expect(fd, request.data, 200, "ignored");
	expect(fd, GET("/hello"), 200, "hello");
	close(fd);
}

static void closes_over_large_unread_bodies(void **state)
{
	CST_AUTO_BUF head = CST_BUF_INIT;
	CST_AUTO_BUF body = CST_BUF_INIT;
	int fd = fixture_connect(*state);
	send_text(fd, "POST /ignore HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000000\r\n\r\nstart");
	assert_int_equal(read_response(fd, &head, &body, false), 200);
	assert_string_equal(body.data, "ignored");
	assert_non_null(strstr(head.data, "Connection: close"));
	expect_closed(fd);
}

static void tells_a_short_body(void **state)
{
	int fd = fixture_connect(*state);
	send_text(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
	shutdown(fd, SHUT_WR);
	expect(fd, "", 400, "bad body");
	expect_closed(fd);
}

static void answers_without_a_body(void **state)
{
	CST_AUTO_BUF head = CST_BUF_INIT;
	CST_AUTO_BUF body = CST_BUF_INIT;
	int fd = fixture_connect(*state);
	send_text(fd, "HEAD /body HTTP/1.1\r\nHost: h\r\n\r\n");
	assert_int_equal(read_response(fd, &head, &body, true), 200);
	assert_non_null(strstr(head.data, "Content-Length: 3145805\r\n"));
	send_text(fd, GET("/204"));
	assert_int_equal(read_response(fd, &head, &body, true), 204);
	assert_null(strstr(head.data, "Content-Length"));
	send_text(fd, GET("/304"));
	assert_int_equal(read_response(fd, &head, &body, true), 304);
	assert_non_null(strstr(head.data, "Content-Length: 1234\r\n"));
	send_text(fd, "HEAD /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
	assert_int_equal(read_response(fd, &head, &body, true), 200);
	expect(fd, GET("/hello"), 200, "hello");
	close(fd);
}

static void sends_chunked(void **state)
{
	size_t len;
	int rc;
	int fd = fixture_connect(*state);
	struct fixture *f = *state;
	send_text(fd, "GET /chunked HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
	char *got = read_to_end(fd, &len, &rc);
	char *body = strstr(got, "\r\n\r\n") + 4;
	size_t skip = (size_t)(body - got);
	assert_non_null(strstr(got, "Transfer-Encoding: chunked"));
	assert_int_equal(len - skip, 8 + 3 + 5 + 2 + 5);
	assert_memory_equal(body, "3\r\nabc\r\n5\r\n", 11);
	assert_memory_equal(body + 11, f->pattern, 5);
	assert_memory_equal(body + 16, "\r\n0\r\n\r\n", 7);
	free(got);
	close(fd);
	/* A handler that gave up: no last chunk. */
	fd = fixture_connect(*state);
	send_text(fd, GET("/half"));
	got = read_to_end(fd, &len, &rc);
	assert_string_equal(strstr(got, "\r\n\r\n") + 4, "3\r\nabc\r\n");
	free(got);
	close(fd);
}

static void speaks_http_1_0(void **state)
{
	size_t len;
	int rc;
	int fd = fixture_connect(*state);
	send_text(fd, "GET /chunked HTTP/1.0\r\n\r\n");
	char *got = read_to_end(fd, &len, &rc);
	assert_null(strstr(got, "chunked"));
	assert_memory_equal(strstr(got, "\r\n\r\n") + 4, "abc", 3);
	free(got);
	close(fd);
	CST_AUTO_BUF head = CST_BUF_INIT;
	CST_AUTO_BUF body = CST_BUF_INIT;
	fd = fixture_connect(*state);
	send_text(fd, "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	assert_int_equal(read_response(fd, &head, &body, false), 200);
	assert_non_null(strstr(head.data, "Connection: keep-alive"));
	expect(fd, "GET /hello HTTP/1.0\r\n\r\n", 200, "hello");
	expect_closed(fd);
}

static void answers_for_silent_handlers(void **state)
{
	int fd = fixture_connect(*state);
	expect(fd, GET("/unknown"), 500, "internal error\n");
	expect(fd, GET("/hello"), 200, "hello");
	close(fd);
}

static void keeps_headers_on_their_lines(void **state)
{
	CST_AUTO_BUF head = CST_BUF_INIT;
	CST_AUTO_BUF body = CST_BUF_INIT;
	int fd = fixture_connect(*state);
	send_text(fd, GET("/inject"));
	assert_int_equal(read_response(fd, &head, &body, false), 200);
	assert_null(strstr(head.data, "\nX-Injected"));
	close(fd);
}

static void notices_clients_that_go(void **state)
{
	struct fixture *f = *state;
	char some[1000];
	int fd = fixture_connect(f);
	send_text(fd, GET("/flood"));
	assert_true(recv(fd, some, sizeof(some), 0) > 0);
	close(fd);
	pthread_mutex_lock(&f->lock);
	while (f->write_rc == 1)
		pthread_cond_wait(&f->changed, &f->lock);
	assert_true(f->write_rc == -ECONNRESET || f->write_rc == -EPIPE);
	pthread_mutex_unlock(&f->lock);
	fd = fixture_connect(f);
	send_text(fd, GET("/sleep"));
	close(fd);
	pthread_mutex_lock(&f->lock);
	while (f->sleep_rc == 1)
		pthread_cond_wait(&f->changed, &f->lock);
	assert_int_equal(f->sleep_rc, -ECONNRESET);
	pthread_mutex_unlock(&f->lock);
	fd = fixture_connect(f);
	expect(fd, GET("/hello"), 200, "hello");
	close(fd);
}

static void knows_its_unix_peer(void **state)
{
	char want[32];
	snprintf(want, sizeof(want), "0 %u", getuid());
	int fd = fixture_connect_unix(*state);
	expect(fd, GET("/uid"), 200, want);
	expect(fd, GET("/hello"), 200, "hello");
	close(fd);
	snprintf(want, sizeof(want), "%d 0", -ENOTSUP);
	fd = fixture_connect(*state);
	expect(fd, GET("/uid"), 200, want);
	close(fd);
}

/* A slow request doesn't keep others waiting, however many there are. */
static void runs_many_at_once(void **state)
{
	enum { COUNT = 60 };
	struct fixture *f = *state;
	int fds[COUNT];
	for (int i = 0; i < COUNT; i++) {
		fds[i] = fixture_connect(f);
		send_text(fds[i], GET("/hold"));
	}
	fixture_wait(f, &f->entered, COUNT);
	int fd = fixture_connect(f);
	expect(fd, GET("/hello"), 200, "hello");
	close(fd);
	fixture_release(f);
	for (int i = 0; i < COUNT; i++) {
		expect(fds[i], "", 200, "held");
		close(fds[i]);
	}
}

static void idle_connections_need_no_threads(void **state)
{
	enum { COUNT = 400 };
	struct fixture *f = *state;
	int fds[COUNT];
	for (int i = 0; i < COUNT; i++) {
		fds[i] = fixture_connect(f);
		expect(fds[i], GET("/hello"), 200, "hello");
	}
	struct cst_http_server_stats stats;
	cst_http_server_stats(f->server, &stats);
	assert_int_equal(stats.connections, COUNT);
	assert_true(stats.workers < COUNT / 2);
	for (int i = COUNT - 1; i >= 0; i--) {
		expect(fds[i], GET("/hello"), 200, "hello");
		close(fds[i]);
	}
}

static void refuses_too_many_connections(void **state)
{
	(void)state;
	struct fixture f;
	struct cst_http_server_config config = {.max_connections = 2};
	fixture_start(&f, &config, false, false);
	int a = fixture_connect(&f), b = fixture_connect(&f);
	expect(a, GET("/hello"), 200, "hello");
	expect(b, GET("/hello"), 200, "hello");
	int c = fixture_connect(&f);
	expect(c, "", 503, "");
	expect_closed(c);
	expect(b, GET("/hello"), 200, "hello");
	close(a);
	close(b);
	struct cst_http_server_stats stats;
	do
		cst_http_server_stats(f.server, &stats);
	while (stats.connections);
	assert_int_equal(stats.refused, 1);
	c = fixture_connect(&f);
	expect(c, GET("/hello"), 200, "hello");
	close(c);
	fixture_stop(&f);
}

/* With every worker busy requests wait their turn. */
static void queues_beyond_its_workers(void **state)
{
	(void)state;
	struct fixture f;
	struct cst_http_server_config config = {.max_workers = 2};
	fixture_start(&f, &config, false, false);
	int a = fixture_connect(&f), b = fixture_connect(&f), c = fixture_connect(&f);
	send_text(a, GET("/hold"));
	send_text(b, GET("/hold"));
	fixture_wait(&f, &f.entered, 2);
	send_text(c, GET("/hello"));
	fixture_release(&f);
	expect(c, "", 200, "hello");
	expect(a, "", 200, "held");
	expect(b, "", 200, "held");
	close(a);
	close(b);
	close(c);
	fixture_stop(&f);
}

static void ends_slow_and_idle_connections(void **state)
{
	(void)state;
	struct fixture f;
	struct cst_http_server_config config = {.head_timeout = 600 * CST_NS_PER_MS,
						.idle_timeout = 600 * CST_NS_PER_MS};
	fixture_start(&f, &config, false, false);
	int fd = fixture_connect(&f);
	expect(fd, "GET /hello HTTP/1.1\r\nHo", 408, NULL);
	expect_closed(fd);
	fd = fixture_connect(&f); /* says nothing at all */
	expect_closed(fd);
	fd = fixture_connect(&f);
	expect(fd, GET("/hello"), 200, "hello");
	expect_closed(fd);
	/* A body may take longer than a head. */
	fd = fixture_connect(&f);
	send_text(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n");
	cst_sleep(700 * CST_NS_PER_MS);
	expect(fd, "body", 200, "body");
	close(fd);
	fixture_stop(&f);
}

static void *stop_server(void *arg)
{
	cst_http_server_stop(arg, 3600 * CST_NS_PER_S);
	return NULL;
}

static void stops_gracefully(void **state)
{
	(void)state;
	CST_AUTO_BUF head = CST_BUF_INIT;
	CST_AUTO_BUF body = CST_BUF_INIT;
	struct fixture f;
	pthread_t stopper;
	fixture_start(&f, NULL, false, false);
	int idle = fixture_connect(&f), busy = fixture_connect(&f);
	expect(idle, GET("/hello"), 200, "hello");
	send_text(busy, GET("/hold"));
	fixture_wait(&f, &f.entered, 1);
	assert_int_equal(pthread_create(&stopper, NULL, stop_server, f.server), 0);
	/* The stop has begun when the listening socket refuses. */
	while (fixture_try_connect(&f))
		cst_sleep(CST_NS_PER_MS);
	fixture_release(&f);
	assert_int_equal(read_response(busy, &head, &body, false), 200);
	assert_string_equal(body.data, "held");
	pthread_join(stopper, NULL);
	expect_closed(busy);
	expect_closed(idle);
	f.server = NULL;
	fixture_stop(&f);
}

static void stops_what_overruns_its_grace(void **state)
{
	(void)state;
	struct fixture f;
	fixture_start(&f, NULL, false, false);
	int flood = fixture_connect(&f), sleeper = fixture_connect(&f);
	char some[100];
	send_text(flood, GET("/flood"));
	send_text(sleeper, GET("/sleep"));
	assert_true(recv(flood, some, sizeof(some), 0) > 0);
	cst_http_server_stop(f.server, CST_NS_PER_MS);
	f.server = NULL;
	assert_true(f.write_rc < 0);
	close(flood);
	close(sleeper);
	fixture_stop(&f);
}

static void says_why_it_cannot_listen(void **state)
{
	struct fixture *f = *state;
	struct cst_error err = CST_ERROR_INIT;
	struct cst_http_server_config config = {.name = "x"};
	struct cst_http_server *server = cst_http_server_new(&config, &err);
	assert_int_equal(cst_http_server_listen(server, f->address, NULL, &err), -EADDRINUSE);
	assert_non_null(strstr(err.what, f->address));
	assert_true(err.hint[0] != '\0');
	static const char *const bad[] = {"nonsense", "127.0.0.1:", "127.0.0.1:x", "1.2.3.4:99999", "::1:80", "unix:"};
	for (size_t i = 0; i < CST_ARRAY_LEN(bad); i++)
		assert_true(cst_http_server_listen(server, bad[i], NULL, &err) < 0);
	char path[80];
	snprintf(path, sizeof(path), "unix:%s", f->unix_path);
	assert_int_equal(cst_http_server_listen(server, path, NULL, &err), -EADDRINUSE);
	cst_http_server_stop(server, 0);
}

int main(void)
{
#define WITH_SERVER(fn) cmocka_unit_test_setup_teardown(fn, start_plain, stop)
	const struct CMUnitTest tests[] = {
		WITH_SERVER(keeps_alive),
		WITH_SERVER(keeps_alive_after_idling),
		WITH_SERVER(answers_pipelined),
		WITH_SERVER(takes_heads_in_pieces),
		WITH_SERVER(takes_large_heads),
		WITH_SERVER(reads_chunked_bodies),
		WITH_SERVER(asks_for_the_body),
		WITH_SERVER(refuses_what_is_not_http),
		WITH_SERVER(refuses_endless_heads),
		WITH_SERVER(reads_over_unread_bodies),
		WITH_SERVER(closes_over_large_unread_bodies),
		WITH_SERVER(tells_a_short_body),
		WITH_SERVER(answers_without_a_body),
		WITH_SERVER(sends_chunked),
		WITH_SERVER(speaks_http_1_0),
		WITH_SERVER(answers_for_silent_handlers),
		WITH_SERVER(keeps_headers_on_their_lines),
		WITH_SERVER(notices_clients_that_go),
		WITH_SERVER(knows_its_unix_peer),
		WITH_SERVER(runs_many_at_once),
		WITH_SERVER(idle_connections_need_no_threads),
		WITH_SERVER(says_why_it_cannot_listen),
		cmocka_unit_test(refuses_too_many_connections),
		cmocka_unit_test(queues_beyond_its_workers),
		cmocka_unit_test(ends_slow_and_idle_connections),
		cmocka_unit_test(stops_gracefully),
		cmocka_unit_test(stops_what_overruns_its_grace),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
