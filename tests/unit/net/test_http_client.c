#include "raw_server.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

#define CLEANUP(o) outcome_fini(&(o))

/* ---- answers of every kind, on connections that are kept ---- */

/* Each request is answered with the bytes of arg. */
static void serve_same(struct raw_server *server, int fd, unsigned index)
{
	(void)index;
	while (raw_read_request(server, fd))
		raw_send(fd, server->arg);
}

/* The same, one byte at a time. */
static void serve_bytewise(struct raw_server *server, int fd, unsigned index)
{
	(void)index;
	while (raw_read_request(server, fd))
		for (const char *p = server->arg; *p; p++) {
			raw_send_n(fd, p, 1);
			if (p[0] == '\n')
				cst_sleep(CST_NS_PER_MS / 4);
		}
}

static void serve_once_and_close(struct raw_server *server, int fd, unsigned index)
{
	(void)index;
	if (raw_read_request(server, fd))
		raw_send(fd, server->arg);
}

struct answer {
	const char *bytes;
	int rc, status;
	const char *body;
	bool closes;	      /* the server does, after the answer */
	unsigned connections; /* for two calls */
};

static const struct answer answers[] = {
	{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 0, 200, "hello", false, 1},
	{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, 200, "", false, 1},
	{"HTTP/1.1 204 No Content\r\n\r\n", 0, 204, "", false, 1},
	{"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", 0, 304, "", false, 1},
	{"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone", 0, 404, "gone", false, 1},
	{"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: "
	 "2\r\n\r\nok",
	 0, 200, "ok", false, 1},
	{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n \r\n5\r\nworld\r\n0\r\nX: "
	 "y\r\n\r\n",
	 0, 200, "hello world", false, 1},
	{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, 200, "", false, 1},
	{"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", 0, 200, "hello", false, 2},
	{"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 0, 200, "hello", false, 2},
	{"HTTP/1.1 200 OK\r\n\r\nuntil the end", 0, 200, "until the end", true, 2},
	{"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", -EPIPE, 200, "hello", true, 2},
	{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", -EPIPE, 200, "hel", true, 2},
	{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", -EBADMSG, 200, "", true, 2},
	{"HTTP/1.1 200 OK\r\nContent-Le", -ECONNRESET, 0, "", true, 2},
	{"", -ECONNRESET, 0, "", true, 2},
	{"SSH-2.0-OpenSSH_9.2\r\n\r\n", -EBADMSG, 0, "", true, 2},
	{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", -EBADMSG, 0, "", true, 2},
	{"HTTP/1.1 101 Switching\r\n\r\n", -EBADMSG, 0, "", true, 2},
	/* More than was promised: the answer is whole, the connection is not used again. */
	{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, world", 0, 200, "hello", false, 2},
};

static void check_answer(const struct answer *a, void (*serve)(struct raw_server *, int, unsigned), bool into)
{
	struct raw_server server;
	struct cst_http_client *client = client_with(0, NULL, NULL);
	struct cst_http_origin origin;

	raw_server_start(&server, AF_INET, serve, (void *)(uintptr_t)a->bytes);
	origin = local_origin(server.port);
	for (int i = 0; i < 2; i++) {
		struct outcome o = {0};
		char memory[64] = "";
		struct iovec iov[] = {{memory, 3}, {memory + 3, 0}, {memory + 3, 4}, {memory + 7, 40}};
		struct cst_http_request request = {.origin = &origin, .method = "GET", .target = "/k"};

		if (into) {
			request.into = iov;
			request.into_count = CST_ARRAY_LEN(iov);
		}
		call_start(client, &o, request);
		call_wait(&o);
		assert_int_equal(o.rc, a->rc);
		assert_int_equal(o.status, a->status);
		assert_int_equal(o.received, strlen(a->body));
		if (into && a->status / 100 == 2)
			assert_memory_equal(memory, a->body, strlen(a->body));
		else
			assert_memory_equal(o.body.data ? o.body.data : "", a->body, strlen(a->body));
		assert_int_equal(o.err.code, -a->rc);
		CLEANUP(o);
	}
	assert_int_equal(raw_accepted(&server), a->connections);
	cst_http_client_free(client);
	raw_server_stop(&server);
}

static void test_answers(void **state)
{
	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(answers); i++) {
		check_answer(&answers[i], answers[i].closes ? serve_once_and_close : serve_same, false);
		check_answer(&answers[i], answers[i].closes ? serve_once_and_close : serve_same, true);
	}
}

static void test_answers_in_pieces(void **state)
{
	(void)state;
	for (size_t i = 0; i < 8; i++) { /* those that keep the connection */
		check_answer(&answers[i], serve_bytewise, false);
		check_answer(&answers[i], serve_bytewise, true);
	}
}

/* ---- requests ---- */

static void test_request_bytes(void **state)
{
	struct raw_server server;
	struct cst_http_client *client = client_with(0, NULL, NULL);
	struct cst_http_origin origin;
	struct outcome o = {0};
	struct iovec body[] = {
		{(char *)(uintptr_t) "abc", 3}, {(char *)(uintptr_t) "", 0}, {(char *)(uintptr_t) "de", 2}};
	char expected[256];

	(void)state;
	raw_server_start(&server, AF_INET, serve_same, (void *)(uintptr_t)answers[1].bytes);
	origin = local_origin(server.port);
	call_start(client, &o,
		   (struct cst_http_request){.origin = &origin,
					     .method = "PUT",
					     .target = "/a%20b?x",
					     .headers = CST_SLICE("X-A: b\r\n"),
					     .body = body,
					     .body_count = 3});
	call_wait(&o);
	assert_int_equal(o.rc, 0);
	snprintf(expected, sizeof(expected),
		 "PUT /a%%20b?x HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUser-Agent: cistern/" CST_VERSION
		 "\r\nX-A: b\r\nContent-Length: 5\r\n\r\nabcde",
		 server.port);
	assert_string_equal(raw_seen(&server), expected);
	CLEANUP(o);
	memset(&o, 0, sizeof(o));
	call_start(client, &o,
		   (struct cst_http_request){
			   .origin = &origin, .method = "HEAD", .target = "/", .host_header = "b.example"});
	call_wait(&o);
	assert_int_equal(o.rc, 0);
	assert_string_equal(raw_seen(&server),
			    "HEAD / HTTP/1.1\r\nHost: b.example\r\nUser-Agent: cistern/" CST_VERSION "\r\n\r\n");
	CLEANUP(o);
	memset(&o, 0, sizeof(o));
	call_get(client, &o, &origin, "/a b\r\nX: y");
	assert_int_equal(o.rc, -EINVAL);
	CLEANUP(o);
	cst_http_client_free(client);
	raw_server_stop(&server);
}

static void test_head_has_no_body(void **state)
{
	struct raw_server server;
	struct cst_http_client *client = client_with(0, NULL, NULL);
	struct cst_http_origin origin;

	(void)state;
	raw_server_start(&server, AF_INET, serve_same,
			 (void *)(uintptr_t) "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n");
	origin = local_origin(server.port);
	for (int i = 0; i < 3; i++) {
		struct outcome o = {0};

		call_start(client, &o, (struct cst_http_request){.origin = &origin, .method = "HEAD", .target = "/"});
		call_wait(&o);
		assert_int_equal(o.rc, 0);
		assert_int_equal(o.content_length, 999);
		assert_int_equal(o.received, 0);
		CLEANUP(o);
	}
	assert_int_equal(raw_accepted(&server), 1);
	cst_http_client_free(client);
	raw_server_stop(&server);
}

/* ---- bodies and memory ---- */

#define BIG (9 * 1024 * 1024 + 77)

static void serve_big(struct raw_server *server, int fd, unsigned index)
{
	(void)index;
	while (raw_read_request(server, fd)) {
		char head[100];

		snprintf(head, sizeof(head), "HTTP/1.1 206 Partial\r\nContent-Length: %d\r\n\r\n", BIG);
		raw_send(fd, head);
		raw_send_n(fd, server->arg, BIG);
	}
}

static void serve_big_chunked(struct raw_server *server, int fd, unsigned index)
{
	size_t sizes[] = {1, 70000, 17, 4096, 1000000};

	(void)index;
	while (raw_read_request(server, fd)) {
		size_t at = 0;

		raw_send(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
		for (unsigned i = 0; at < BIG; i++) {
			size_t n = cst_min(sizes[i % CST_ARRAY_LEN(sizes)], BIG - at);
			char line[32];

			snprintf(line, sizeof(line), "%zx\r\n", n);
			raw_send(fd, line);
			raw_send_n(fd, (char *)server->arg + at, n);
			raw_send(fd, "\r\n");
			at += n;
		}
		raw_send(fd, "0\r\n\r\n");
	}
}

static void check_big(void (*serve)(struct raw_server *, int, unsigned))
{
	struct raw_server server;
	struct cst_http_client *client = client_with(0, NULL, NULL);
	struct cst_http_origin origin;
	char *content = cst_xmalloc(BIG), *memory = cst_xcalloc(1, BIG + 1);

	for (size_t i = 0; i < BIG; i++)
		content[i] = (char)(i * 2654435761u >> 24);
	raw_server_start(&server, AF_INET, serve, content);
	origin = local_origin(server.port);
	for (int i = 0; i < 3; i++) {
		struct outcome o = {0};
		struct iovec iov[40];
		size_t at = 0;

		for (int p = 0; p < 40; p++) {
			iov[p] = (struct iovec){memory + at, p == 39 ? BIG - at : (size_t)p * 999};
			at += iov[p].iov_len;
		}
		memset(memory, 0, BIG + 1);
		call_start(client, &o,
			   (struct cst_http_request){
				   .origin = &origin, .method = "GET", .target = "/", .into = iov, .into_count = 40});
		call_wait(&o);
		assert_int_equal(o.rc, 0);
		assert_int_equal(o.received, BIG);
		assert_int_equal(o.body.len, 0);
		assert_true(memcmp(memory, content, BIG) == 0);
		assert_int_equal(memory[BIG], 0);
		CLEANUP(o);
	}
	assert_int_equal(raw_accepted(&server), 1);
	cst_http_client_free(client);
	raw_server_stop(&server);
	free(content);
	free(memory);
}

static void test_big_body(void **state)
{
	(void)state;
	check_big(serve_big);
}

static void test_big_chunked_body(void **state)
{
	(void)state;
	check_big(serve_big_chunked);
}

/* A body longer than the memory for it is refused, and never written beyond it. */
static void test_too_long(void **state)
{
	static const char *const bytes[] = {
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n5\r\n56789\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\n123456789",
	};

	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(bytes); i++) {
		struct raw_server server;
		struct cst_http_client *client = client_with(0, NULL, NULL);
		struct cst_http_origin origin;
		struct outcome o = {0};
		char memory[16] = "";
		struct iovec iov = {memory, 8};

		raw_server_start(&server, AF_INET, serve_once_and_close, (void *)(uintptr_t)bytes[i]);
		origin = local_origin(server.port);
		call_start(client, &o,
			   (struct cst_http_request){
				   .origin = &origin, .method = "GET", .target = "/", .into = &iov, .into_count = 1});
		call_wait(&o);
		assert_int_equal(o.rc, -EMSGSIZE);
		assert_int_equal(memory[8], 0);
		CLEANUP(o);
		cst_http_client_free(client);
		raw_server_stop(&server);
	}
}

static void test_callbacks_refuse(void **state)
{
	struct raw_server server;
	struct cst_http_client *client = client_with(0, NULL, NULL);
	struct cst_http_origin origin;
	struct outcome a = {.head_rc = -ESTALE}, b = {.body_rc = -EIO};

	(void)state;
	raw_server_start(&server, AF_INET, serve_same, (void *)(uintptr_t)answers[0].bytes);
	origin = local_origin(server.port);
	call_get(client, &a, &origin, "/");
	assert_int_equal(a.rc, -ESTALE);
	assert_int_equal(a.received, 0);
	call_get(client, &b, &origin, "/");
	assert_int_equal(b.rc, -EIO);
	CLEANUP(a);
	CLEANUP(b);
	cst_http_client_free(client);
	raw_server_stop(&server);
}

/* ---- the pool ---- */

/* The first connection answers one request and closes when the second one has come; later ones go on. */
static void serve_stale(struct raw_server *server, int fd, unsigned index)
{
	while (raw_read_request(server, fd)) {
		raw_send(fd, answers[0].bytes);
		if (index == 0) {
			raw_read_request(server, fd);
			raw_reset(fd);
			return;
		}
	}
}

static void test_stale_connection(void **state)
{
	static const char *const methods[] = {"GET", "HEAD", "PUT", "DELETE", "POST"};

	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(methods); i++) {
		struct raw_server server;
		struct cst_http_client *client = client_with(0, NULL, NULL);
		struct cst_http_origin origin;
		struct outcome a = {0}, b = {0};
		bool repeatable = strcmp(methods[i], "POST") != 0;

		raw_server_start(&server, AF_INET, serve_stale, NULL);
		origin = local_origin(server.port);
		call_get(client, &a, &origin, "/1");
		assert_int_equal(a.rc, 0);
		call_start(client, &b,
			   (struct cst_http_request){.origin = &origin, .method = methods[i], .target = "/2"});
		call_wait(&b);
		assert_int_equal(b.rc, repeatable ? 0 : -ECONNRESET);
		assert_int_equal(raw_accepted(&server), repeatable ? 2 : 1);
		CLEANUP(a);
		CLEANUP(b);
		cst_http_client_free(client);
		raw_server_stop(&server);
	}
}

/* A server that closes each connection right after the answer, while it is idle with us: no call may notice. */
static void test_closed_while_idle(void **state)
{
	struct raw_server server;
	struct cst_http_client *client = client_with(0, NULL, NULL);
	struct cst_http_origin origin;

	(void)state;
	raw_server_start(&server, AF_INET, serve_once_and_close, (void *)(uintptr_t)answers[0].bytes);
	origin = local_origin(server.port);
	for (int i = 0; i < 200; i++) {
		struct outcome o = {0};

		call_get(client, &o, &origin, "/");
		assert_int_equal(o.rc, 0);
		CLEANUP(o);
	}
	assert_int_equal(raw_accepted(&server), 200);
	cst_http_client_free(client);
	raw_server_stop(&server);
}

/* Answers a request each time the test allows it. */
static void serve_stepwise(struct raw_server *server, int fd, unsigned index)
{
	(void)index;
	while (raw_read_request(server, fd)) {
		sem_wait(&server->steps);
		raw_send(fd, answers[0].bytes);
	}
}

static void wait_for_waiting(struct cst_http_client *client, unsigned count)
{
	struct cst_http_client_stats stats;

	do {
		cst_sleep(CST_NS_PER_MS);
		cst_http_client_stats(client, &stats);
	} while (stats.waiting != count);
}

static void test_limit_is_first_come_first_served(void **state)
{
	struct cst_error err = CST_ERROR_INIT;
	struct cst_loop_group *loops = cst_loop_group_new("t", 2, &err);
	struct cst_http_client *client = client_with(1, loops, NULL);
	struct cst_http_client_stats stats;
	struct raw_server server;
	struct cst_http_origin origin;
	static const char *const targets[] = {"/0", "/1", "/2", "/3", "/4", "/5", "/6", "/7", "/8"};
	struct outcome o[9] = {0};

	(void)state;
	raw_server_start(&server, AF_INET, serve_stepwise, NULL);
	origin = local_origin(server.port);
	for (unsigned i = 0; i < 9; i++) {
		call_start(client, &o[i],
			   (struct cst_http_request){.origin = &origin, .method = "GET", .target = targets[i]});
		while (i == 0 && !strstr(raw_targets(&server), "/0"))
			cst_sleep(CST_NS_PER_MS);
		wait_for_waiting(client, i);
	}
	cst_http_client_stats(client, &stats);
	assert_int_equal(stats.open, 1);
	/* One leaves the queue: the others close ranks. */
	cst_http_cancel(o[4].call);
	call_wait(&o[4]);
	assert_int_equal(o[4].rc, -ECANCELED);
	for (unsigned i = 0; i < 8; i++)
		sem_post(&server.steps);
	for (unsigned i = 0; i < 9; i++)
		if (i != 4)
			call_wait(&o[i]);
	assert_string_equal(raw_targets(&server), " /0 /1 /2 /3 /5 /6 /7 /8");
	assert_int_equal(raw_accepted(&server), 1); /* it moved from loop to loop */
	cst_http_client_stats(client, &stats);
	assert_int_equal(stats.waiting, 0);
	for (unsigned i = 0; i < 9; i++)
		CLEANUP(o[i]);
	cst_http_client_free(client);
	cst_loop_group_free(loops);
	raw_server_stop(&server);
}

/* The only connection rests on one loop; a call on the other one fetches it. */
static void test_idle_connection_of_another_loop(void **state)
{
	struct cst_error err = CST_ERROR_INIT;
	struct cst_loop_group *loops = cst_loop_group_new("t", 2, &err);
	struct cst_http_client *client = client_with(1, loops, NULL);
	struct raw_server server;
	struct cst_http_origin origin;

	(void)state;
	raw_server_start(&server, AF_INET, serve_same, (void *)(uintptr_t)answers[0].bytes);
	origin = local_origin(server.port);
	for (int i = 0; i < 50; i++) {
		struct outcome o = {0};

		call_get(client, &o, &origin, "/");
		assert_int_equal(o.rc, 0);
		CLEANUP(o);
	}
	assert_int_equal(raw_accepted(&server), 1);
	cst_http_client_free(client);
	cst_loop_group_free(loops);
	raw_server_stop(&server);
}

static void test_parallel_calls(void **state)
{
	struct cst_error err = CST_ERROR_INIT;
	struct cst_loop_group *loops = cst_loop_group_new("t", 2, &err);
	struct cst_http_client *client = client_with(7, loops, NULL);
	struct raw_server server;
	struct cst_http_origin origin;
	struct outcome *o = cst_xcalloc(100, sizeof(*o));

	(void)state;
	raw_server_start(&server, AF_INET, serve_same, (void *)(uintptr_t)answers[0].bytes);
	origin = local_origin(server.port);
	for (int round = 0; round < 5; round++) {
		struct cst_http_client_stats stats;

		memset(o, 0, 100 * sizeof(*o));
		for (int i = 0; i < 100; i++) {
			call_start(client, &o[i],
				   (struct cst_http_request){.origin = &origin, .method = "GET", .target = "/"});
			if (i % 9 == 8)
				cst_http_cancel(o[i].call);
		}
		for (int i = 0; i < 100; i++) {
			call_wait(&o[i]);
			if (o[i].rc == 0)
				assert_string_equal(o[i].body.data, "hello");
			else
				assert_true(i % 9 == 8 && o[i].rc == -ECANCELED);
			CLEANUP(o[i]);
		}
		cst_http_client_stats(client, &stats);
		assert_true(stats.open <= 7);
		assert_int_equal(stats.waiting, 0);
	}
	cst_http_client_free(client);
	cst_loop_group_free(loops);
	raw_server_stop(&server);
	free(o);
}

/* ---- cancelling and time ---- */

static void serve_silence(struct raw_server *server, int fd, unsigned index)
{
	(void)index;
	raw_read_request(server, fd);
	if (server->arg)
		raw_send(fd, server->arg);
	sem_post(&server->steps);
	raw_drain(fd);
}

static void test_cancel_in_every_phase(void **state)
{
	static const char *const sent_before[] = {"", "HTTP/1.1 200",
						  "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345"};

	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(sent_before); i++) {
		struct raw_server server;
		struct cst_http_client *client = client_with(0, NULL, NULL);
		struct cst_http_origin origin;
		struct outcome o = {0};

		raw_server_start(&server, AF_INET, serve_silence, (void *)(uintptr_t)sent_before[i]);
		origin = local_origin(server.port);
		call_start(client, &o, (struct cst_http_request){.origin = &origin, .method = "GET", .target = "/"});
		sem_wait(&server.steps);
		if (i == 2)
			sem_wait(&o.head);
		cst_http_cancel(o.call);
		cst_http_cancel(o.call);
		call_wait(&o);
		assert_int_equal(o.rc, -ECANCELED);
		CLEANUP(o);
		cst_http_client_free(client);
		raw_server_stop(&server);
	}
	/* While connecting: nobody accepts, the queue of the listener is full. At once: not even started. After the end. */
	for (int i = 0; i < 200; i++) {
		struct raw_server server;
		struct cst_http_client *client = client_with(0, NULL, NULL);
		struct cst_http_origin origin;
		struct outcome o = {0};

		raw_server_start(&server, AF_INET, serve_same, (void *)(uintptr_t)answers[0].bytes);
		origin = local_origin(server.port);
		call_start(client, &o, (struct cst_http_request){.origin = &origin, .method = "GET", .target = "/"});
		for (volatile int spin = 0; spin < i * 300; spin++)
			;
		cst_http_cancel(o.call);
		call_wait(&o);
		assert_true(o.rc == 0 || o.rc == -ECANCELED);
		CLEANUP(o);
		cst_http_client_free(client);
		raw_server_stop(&server);
	}
}

static void test_free_cancels(void **state)
{
	struct raw_server server;
	struct cst_http_client *client = client_with(1, NULL, NULL);
	struct cst_http_origin origin;
	struct outcome a = {0}, b = {0};

	(void)state;
	raw_server_start(&server, AF_INET, serve_silence, NULL);
	origin = local_origin(server.port);
	call_start(client, &a, (struct cst_http_request){.origin = &origin, .method = "GET", .target = "/"});
	call_start(client, &b, (struct cst_http_request){.origin = &origin, .method = "GET", .target = "/"});
	sem_wait(&server.steps);
	wait_for_waiting(client, 1);
	cst_http_client_free(client);
	call_wait(&a);
	call_wait(&b);
	assert_int_equal(a.rc, -ECANCELED);
	assert_int_equal(b.rc, -ECANCELED);
	CLEANUP(a);
	CLEANUP(b);
	raw_server_stop(&server);
}

/* The server never answers; only the clock that the case names can end the call. */
static void test_timeouts(void **state)
{
	static const struct {
		const char *sent_before;
		int64_t deadline, first_byte, stall;
		const char *why;
	} cases[] = {
		{"", 20 * CST_NS_PER_MS, 0, 0, "the deadline passed"},
		{"", 0, 20 * CST_NS_PER_MS, 0, "the server does not answer"},
		{"HTTP/1.1 200", 0, 20 * CST_NS_PER_MS, 0, "the server does not answer"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1", 0, 0, 20 * CST_NS_PER_MS,
		 "the server sends no more of the body"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1", 20 * CST_NS_PER_MS, 0, 0, "the deadline passed"},
	};

	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++) {
		struct raw_server server;
		struct cst_http_client *client = client_with(0, NULL, NULL);
		struct cst_http_origin origin;
		struct outcome o = {0};

		raw_server_start(&server, AF_INET, serve_silence, (void *)(uintptr_t)cases[i].sent_before);
		origin = local_origin(server.port);
		call_start(client, &o,
			   (struct cst_http_request){.origin = &origin,
						     .method = "GET",
						     .target = "/",
						     .deadline = cases[i].deadline ? cst_now() + cases[i].deadline : 0,
						     .first_byte_timeout = cases[i].first_byte,
						     .stall_timeout = cases[i].stall});
		call_wait(&o);
		assert_int_equal(o.rc, -ETIMEDOUT);
		/* A busy machine may let the deadline pass before the server is reached. */
		if (!cases[i].deadline)
			assert_string_equal(o.err.why, cases[i].why);
		CLEANUP(o);
		cst_http_client_free(client);
		raw_server_stop(&server);
	}
}

static void test_deadline_while_waiting(void **state)
{
	struct raw_server server;
	struct cst_http_client *client = client_with(1, NULL, NULL);
	struct cst_http_origin origin;
	struct outcome a = {0}, b = {0};

	(void)state;
	raw_server_start(&server, AF_INET, serve_silence, NULL);
	origin = local_origin(server.port);
	call_start(client, &a, (struct cst_http_request){.origin = &origin, .method = "GET", .target = "/"});
	sem_wait(&server.steps);
	call_start(
		client, &b,
		(struct cst_http_request){
			.origin = &origin, .method = "GET", .target = "/", .deadline = cst_now() + 20 * CST_NS_PER_MS});
	call_wait(&b);
	assert_int_equal(b.rc, -ETIMEDOUT);
	cst_http_cancel(a.call);
	call_wait(&a);
	CLEANUP(a);
	CLEANUP(b);
	cst_http_client_free(client);
	raw_server_stop(&server);
}

/* Takes little of a large request: the client must not wait for ever, and an early answer must be read. */
static void serve_early_answer(struct raw_server *server, int fd, unsigned index)
{
	char some[1000];

	(void)index;
	if (recv(fd, some, sizeof(some), 0) <= 0)
		return;
	if (server->arg)
		raw_send(fd, server->arg);
	sem_wait(&server->steps);
	raw_drain(fd);
}

static void test_request_not_taken(void **state)
{
	size_t size = 64 << 20;
	char *memory = cst_xcalloc(1, size);
	struct iovec body = {memory, size};

	(void)state;
	for (int answered = 0; answered < 2; answered++) {
		struct raw_server server;
		struct cst_http_client *client = client_with(0, NULL, NULL);
		struct cst_http_origin origin;
		struct outcome o = {0};

		raw_server_start(&server, AF_INET, serve_early_answer,
				 answered ? (void *)(uintptr_t)answers[4].bytes : NULL);
		origin = local_origin(server.port);
		call_start(client, &o,
			   (struct cst_http_request){.origin = &origin,
						     .method = "PUT",
						     .target = "/",
						     .body = &body,
						     .body_count = 1,
						     .stall_timeout = answered ? 0 : 30 * CST_NS_PER_MS});
		call_wait(&o);
		assert_int_equal(o.rc, answered ? 0 : -ETIMEDOUT);
		if (answered)
			assert_int_equal(o.status, 404);
		else
			assert_string_equal(o.err.why, "the server takes no more of the request");
		sem_post(&server.steps);
		CLEANUP(o);
		cst_http_client_free(client);
		raw_server_stop(&server);
	}
	free(memory);
}

/* ---- reaching the server ---- */

static void test_unreachable(void **state)
{
	struct cst_http_client *client = client_with(0, NULL, NULL);
	struct cst_http_origin refused = local_origin(raw_closed_port());
	struct cst_http_origin unknown = {.host = "no-such-host.invalid", .port = 80};
	struct outcome a = {0}, b = {0};

	(void)state;
	call_get(client, &a, &refused, "/");
	assert_int_equal(a.rc, -ECONNREFUSED);
	assert_non_null(strstr(a.err.why, "127.0.0.1"));
	call_get(client, &b, &unknown, "/");
	assert_int_equal(b.rc, -EHOSTUNREACH);
	assert_non_null(strstr(b.err.why, "no-such-host.invalid"));
	assert_true(b.err.hint[0]);
	CLEANUP(a);
	CLEANUP(b);
	cst_http_client_free(client);
}

static void test_ipv6(void **state)
{
	struct raw_server server;
	struct cst_http_client *client = client_with(0, NULL, NULL);
	struct cst_http_origin origin = {.host = "::1"};
	struct outcome o = {0};
	char expected[64];
	int probe = socket(AF_INET6, SOCK_STREAM, 0);
	struct sockaddr_in6 loopback = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};

	(void)state;
	if (probe < 0 || bind(probe, (struct sockaddr *)&loopback, sizeof(loopback))) {
		cst_http_client_free(client);
		skip(); /* this machine has no IPv6 */
	}
	close(probe);
	raw_server_start(&server, AF_INET6, serve_same, (void *)(uintptr_t)answers[0].bytes);
	origin.port = server.port;
	call_get(client, &o, &origin, "/");
	assert_int_equal(o.rc, 0);
	snprintf(expected, sizeof(expected), "Host: [::1]:%u\r\n", server.port);
	assert_non_null(strstr(raw_seen(&server), expected));
	CLEANUP(o);
	cst_http_client_free(client);
	raw_server_stop(&server);
}

static void test_idle_timeout(void **state)
{
	struct cst_http_client_config config = {.idle_timeout = 5 * CST_NS_PER_MS};
	struct cst_http_client *client = cst_http_client_new(&config, NULL);
	struct cst_http_client_stats stats;
	struct raw_server server;
	struct cst_http_origin origin;
	struct outcome o = {0};

	(void)state;
	raw_server_start(&server, AF_INET, serve_same, (void *)(uintptr_t)answers[0].bytes);
	origin = local_origin(server.port);
	call_get(client, &o, &origin, "/");
	assert_int_equal(o.rc, 0);
	do {
		cst_sleep(CST_NS_PER_MS);
		cst_http_client_stats(client, &stats);
	} while (stats.open > 0);
	assert_int_equal(stats.idle, 0);
	CLEANUP(o);
	cst_http_client_free(client);
	raw_server_stop(&server);
}

/* ---- calls from callbacks ---- */

struct chain {
	struct cst_http_client *client;
	struct cst_http_origin origin;
	unsigned left;
	struct cst_loop *loop;
	sem_t end;
};

static void chain_next(void *arg, int rc, size_t received, const struct cst_error *err)
{
	struct chain *chain = arg;

	(void)err;
	CST_ASSERT(rc == 0 && received == 5);
	/* What a loop thread starts stays on its loop. */
	if (chain->loop)
		CST_ASSERT(cst_loop_is_current(chain->loop));
	if (--chain->left == 0) {
		sem_post(&chain->end);
		return;
	}
	cst_http_release(cst_http_start(chain->client, &(struct cst_http_request){.origin = &chain->origin,
										  .method = "GET",
										  .target = "/",
										  .on_done = chain_next,
										  .arg = chain}));
}

struct chain_start {
	struct cst_task task;
	struct chain *chain;
};

static void chain_begin(struct cst_task *task)
{
	struct chain *chain = cst_container_of(task, struct chain_start, task)->chain;

	chain->left++;
	chain_next(chain, 0, 5, NULL);
}

static void test_calls_from_callbacks(void **state)
{
	struct cst_error err = CST_ERROR_INIT;
	struct cst_loop_group *loops = cst_loop_group_new("t", 2, &err);
	struct cst_http_client *client = client_with(0, loops, NULL);
	struct raw_server server;
	struct chain chain = {.client = client, .left = 300, .loop = cst_loop_group_at(loops, 1)};
	struct chain_start start = {.task.fn = chain_begin, .chain = &chain};

	(void)state;
	raw_server_start(&server, AF_INET, serve_same, (void *)(uintptr_t)answers[0].bytes);
	chain.origin = local_origin(server.port);
	sem_init(&chain.end, 0, 0);
	cst_loop_post(chain.loop, &start.task);
	sem_wait(&chain.end);
	assert_int_equal(raw_accepted(&server), 1);
	cst_http_client_free(client);
	cst_loop_group_free(loops);
	raw_server_stop(&server);
	sem_destroy(&chain.end);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_answers_in_pieces),
		cmocka_unit_test(test_request_bytes),
		cmocka_unit_test(test_head_has_no_body),
		cmocka_unit_test(test_big_body),
		cmocka_unit_test(test_big_chunked_body),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_callbacks_refuse),
		cmocka_unit_test(test_stale_connection),
		cmocka_unit_test(test_closed_while_idle),
		cmocka_unit_test(test_limit_is_first_come_first_served),
		cmocka_unit_test(test_idle_connection_of_another_loop),
		cmocka_unit_test(test_parallel_calls),
		cmocka_unit_test(test_cancel_in_every_phase),
		cmocka_unit_test(test_free_cancels),
		cmocka_unit_test(test_timeouts),
		cmocka_unit_test(test_deadline_while_waiting),
		cmocka_unit_test(test_request_not_taken),
		cmocka_unit_test(test_unreachable),
		cmocka_unit_test(test_ipv6),
		cmocka_unit_test(test_idle_timeout),
		cmocka_unit_test(test_calls_from_callbacks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
