/* Requests with bodies: how far they are said to have gone out, answers that come while they do, connections that close. */
#include "raw_server.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/time.h>

#define YES "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
#define NO "HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope"
#define LARGE ((size_t)64 << 20) /* more than sockets hold */

static char *large;

struct upload {
	struct outcome o;
	struct cst_http_sent sent;
	struct iovec body[3];
};

static void upload(struct cst_http_client *client, const struct cst_http_origin *origin, const char *method, size_t len,
		   int64_t stall, struct upload *u)
{
	*u = (struct upload){.body = {{large, len / 2}, {NULL, 0}, {large + len / 2, len - len / 2}}};
	call_start(client, &u->o,
		   (struct cst_http_request){.origin = origin,
					     .method = method,
					     .target = "/k",
					     .body = u->body,
					     .body_count = 3,
					     .sent = &u->sent,
					     .stall_timeout = stall});
	call_wait(&u->o);
}

/* Reads requests of the connection as arg says, a letter each: 'y' answers; 'c' closes without an answer; 'e' answers no before the body is read and
 * closes, which resets; 'd' the same, but reads on later; '1' says 100 first. */
static void serve_letters(struct raw_server *server, int fd, unsigned index)
{
	const char *script = server->arg;
	char some[1000];

	for (unsigned i = 0; i < index; i++)
		script += strcspn(script, " ") + 1;
	for (; *script && *script != ' '; script++) {
		if (*script == 'e' || *script == 'd') {
			if (recv(fd, some, sizeof(some), 0) <= 0)
				return;
			raw_send(fd, NO);
			if (*script == 'd') {
				sem_wait(&server->steps); /* else all may go out before the answer is seen */
				raw_drain(fd);
			}
			return;
		}
		if (*script == '1') {
			if (recv(fd, some, 1, MSG_PEEK) <= 0)
				return;
			raw_send(fd, "HTTP/1.1 100 Continue\r\n\r\n");
		}
		if (!raw_read_request(server, fd) || *script == 'c')
			return;
		raw_send(fd, YES);
	}
	raw_drain(fd);
}

static void check(const struct upload *u, int rc, int status, size_t bytes, unsigned whole)
{
	assert_int_equal(u->o.rc, rc);
	if (rc == 0)
		assert_int_equal(u->o.status, status);
	assert_int_equal(u->sent.bytes, bytes);
	assert_int_equal(u->sent.whole, whole);
}

static void counts_what_went_out(void **state)
{
	struct raw_server server;
	struct cst_http_client *client = client_with(0, NULL, NULL);
	struct cst_http_origin origin;
	struct upload u;

	(void)state;
	raw_server_start(&server, AF_INET, serve_letters, (void *)(uintptr_t) "y1c yc y");
	origin = local_origin(server.port);
	upload(client, &origin, "PUT", 1000, 0, &u);
	check(&u, 0, 200, 1000, 1);
	outcome_fini(&u.o);
	upload(client, &origin, "PUT", 50000, 0, &u);
	check(&u, 0, 200, 50000, 1);
	outcome_fini(&u.o);
	/* The kept connection takes it all and closes; the one that replaces it takes it again. */
	upload(client, &origin, "PUT", 2000, 0, &u);
	check(&u, 0, 200, 4000, 2);
	assert_int_equal(raw_accepted(&server), 2);
	outcome_fini(&u.o);
	/* Nobody knows what a second POST would do: it is not sent. */
	upload(client, &origin, "POST", 3000, 0, &u);
	check(&u, -ECONNRESET, 0, 3000, 1);
	outcome_fini(&u.o);
	upload(client, &origin, "DELETE", 0, 0, &u);
	check(&u, 0, 200, 0, 1);
	assert_int_equal(raw_accepted(&server), 3);
	outcome_fini(&u.o);
	cst_http_client_free(client);
	raw_server_stop(&server);
}

/* The answer counts, the rest of the body is not sent, and nobody uses the connection again. */
static void early_answers(void **state)
{
	static const char *const scripts[] = {"e yy", "d yy", "ye yy", "yd yy"};

	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(scripts); i++) {
		struct raw_server server;
		struct cst_http_client *client = client_with(0, NULL, NULL);
		struct cst_http_origin origin;
		struct upload u;

		raw_server_start(&server, AF_INET, serve_letters, (void *)(uintptr_t)scripts[i]);
		origin = local_origin(server.port);
		if (scripts[i][0] == 'y') {
			upload(client, &origin, "PUT", 10, 0, &u);
			check(&u, 0, 200, 10, 1);
			outcome_fini(&u.o);
		}
		upload(client, &origin, "PUT", LARGE, 0, &u);
		assert_int_equal(u.o.rc, 0);
		assert_int_equal(u.o.status, 403);
		assert_string_equal(u.o.body.data, "nope");
		assert_int_equal(u.sent.whole, 0);
		assert_true(u.sent.bytes < LARGE);
		sem_post(&server.steps);
		outcome_fini(&u.o);
		upload(client, &origin, "PUT", 10, 0, &u);
		check(&u, 0, 200, 10, 1);
		assert_int_equal(raw_accepted(&server), 2);
		outcome_fini(&u.o);
		cst_http_client_free(client);
		raw_server_stop(&server);
	}
}

/* Says no with half of its text, takes all that comes within a while, then says the rest. */
static void serve_halves(struct raw_server *server, int fd, unsigned index)
{
	size_t half = sizeof(NO) - 1 - 2;
	char some[65536];

	(void)server, (void)index;
	if (recv(fd, some, sizeof(some), 0) <= 0)
		return;
	raw_send_n(fd, NO, half);
	for (struct timeval quiet = {.tv_usec = 300000};;) {
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &quiet, sizeof(quiet));
		if (recv(fd, some, sizeof(some), 0) <= 0)
			break;
	}
	raw_send_n(fd, NO + half, 2);
	raw_drain(fd);
}

/* Nor is it sent while the text of the answer is still coming. */
static void early_answer_in_pieces(void **state)
{
	struct raw_server server;
	struct cst_http_client *client = client_with(0, NULL, NULL);
	struct cst_http_origin origin;
	struct upload u;

	(void)state;
	raw_server_start(&server, AF_INET, serve_halves, NULL);
	origin = local_origin(server.port);
	upload(client, &origin, "PUT", LARGE, 0, &u);
	assert_int_equal(u.o.rc, 0);
	assert_int_equal(u.o.status, 403);
	assert_string_equal(u.o.body.data, "nope");
	assert_int_equal(u.sent.whole, 0);
	assert_true(u.sent.bytes < LARGE);
	outcome_fini(&u.o);
	cst_http_client_free(client);
	raw_server_stop(&server);
}

#define STALL (800 * CST_NS_PER_MS)

/* Takes 4 MiB each 100 ms; tells in arg whether it was held up itself. */
static void serve_slowly(struct raw_server *server, int fd, unsigned index)
{
	size_t room = (size_t)4 << 20, left = LARGE;
	char *memory = cst_xmalloc(room);

	(void)index;
	while (left > 0) {
		int64_t before = cst_now();

		cst_sleep(100 * CST_NS_PER_MS);
		for (size_t some = 0; some < cst_min(room, left);) {
			ssize_t n = recv(fd, memory, cst_min(room, left) - some, 0);

			if (n <= 0)
				goto out;
			some += n;
		}
		left -= cst_min(room, left);
		if (cst_now() - before > STALL / 2)
			__atomic_store_n((bool *)server->arg, true, __ATOMIC_RELAXED);
	}
	raw_send(fd, YES);
	raw_drain(fd);
out:
	free(memory);
}

/* A body that gets on is no stall, however long it takes. */
static void slow_but_steady(void **state)
{
	bool held_up;
	int tries = 0;

	(void)state;
	do {
		struct raw_server server;
		struct cst_http_client *client = client_with(0, NULL, NULL);
		struct cst_http_origin origin;
		struct upload u;

		held_up = false;
		raw_server_start(&server, AF_INET, serve_slowly, &held_up);
		origin = local_origin(server.port);
		upload(client, &origin, "PUT", LARGE, STALL, &u);
		held_up = held_up && u.o.rc == -ETIMEDOUT; /* a busy machine: it says nothing */
		if (!held_up) {
			assert_int_equal(u.o.rc, 0);
			assert_int_equal(u.sent.whole, 1);
		}
		outcome_fini(&u.o);
		cst_http_client_free(client);
		raw_server_stop(&server);
	} while (held_up && ++tries < 10);
	assert_false(held_up);
}

#define ANSWER (1000 * CST_NS_PER_MS)
#define TAIL ((size_t)3 << 20) /* less than a socket holds */

/* Takes all but the tail at once, that in small pieces; tells in arg whether it was held up itself. */
static void serve_slow_tail(struct raw_server *server, int fd, unsigned index)
{
	static char memory[65536];
	int room = 262144; /* several segments of the loopback */

	(void)index;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	for (size_t left = LARGE / 4; left > 0;) {
		int64_t before = cst_now();
		ssize_t n;

		if (left < TAIL)
			cst_sleep(50 * CST_NS_PER_MS);
		n = recv(fd, memory, sizeof(memory), 0);
		if (n <= 0)
			return;
		left -= cst_min(left, (size_t)n);
		if (cst_now() - before > ANSWER / 2)
			__atomic_store_n((bool *)server->arg, true, __ATOMIC_RELAXED);
	}
	raw_send(fd, YES);
	raw_drain(fd);
}

/* What the socket still holds of a body can't be answered yet: it gets on, too. */
static void slow_to_the_end(void **state)
{
	bool held_up;
	int tries = 0;

	(void)state;
	do {
		struct raw_server server;
		struct cst_http_client *client = client_with(0, NULL, NULL);
		struct cst_http_origin origin;
		struct upload u = {.body = {{large, LARGE / 4}}};

		held_up = false;
		raw_server_start(&server, AF_INET, serve_slow_tail, &held_up);
		origin = local_origin(server.port);
		call_start(client, &u.o,
			   (struct cst_http_request){.origin = &origin,
						     .method = "PUT",
						     .target = "/k",
						     .body = u.body,
						     .body_count = 1,
						     .sent = &u.sent,
						     .first_byte_timeout = ANSWER});
		call_wait(&u.o);
		held_up = held_up && u.o.rc == -ETIMEDOUT; /* a busy machine: it says nothing */
		if (!held_up) {
			assert_int_equal(u.o.rc, 0);
			assert_int_equal(u.sent.whole, 1);
		}
		outcome_fini(&u.o);
		cst_http_client_free(client);
		raw_server_stop(&server);
	} while (held_up && ++tries < 10);
	assert_false(held_up);
}

/* Takes it all and falls silent. */
static void serve_silence(struct raw_server *server, int fd, unsigned index)
{
	(void)server, (void)index;
	raw_drain(fd);
}

/* Takes nothing. */
static void serve_nothing(struct raw_server *server, int fd, unsigned index)
{
	(void)index, (void)fd;
	sem_wait(&server->steps);
}

static void silence_ends(void **state)
{
	void (*const serve[])(struct raw_server *, int, unsigned) = {serve_silence, serve_nothing};

	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(serve); i++) {
		struct raw_server server;
		struct cst_http_client *client = client_with(0, NULL, NULL);
		struct cst_http_origin origin;
		struct upload u = {.body = {{large, 1 << 20}}};

		raw_server_start(&server, AF_INET, serve[i], NULL);
		origin = local_origin(server.port);
		call_start(client, &u.o,
			   (struct cst_http_request){.origin = &origin,
						     .method = "PUT",
						     .target = "/k",
						     .body = u.body,
						     .body_count = 1,
						     .sent = &u.sent,
						     .first_byte_timeout = 200 * CST_NS_PER_MS});
		call_wait(&u.o);
		check(&u, -ETIMEDOUT, 0, 1 << 20, 1);
		sem_post(&server.steps);
		outcome_fini(&u.o);
		cst_http_client_free(client);
		raw_server_stop(&server);
	}
}

static void serve_half_a_handshake(struct raw_server *server, int fd, unsigned index)
{
	char some[1000];

	(void)server, (void)index;
	while (recv(fd, some, sizeof(some), 0) == (ssize_t)sizeof(some))
		;
}

/* A connection that breaks while TLS begins is one that broke, and no proof that TLS can't work. */
static void closed_in_handshake(void **state)
{
	struct raw_server server;
	struct cst_http_client *client = client_with(0, NULL, NULL);
	struct cst_http_origin origin;
	struct upload u;

	(void)state;
	raw_server_start(&server, AF_INET, serve_half_a_handshake, NULL);
	origin = local_origin(server.port);
	origin.tls = true;
	upload(client, &origin, "PUT", 1000, 0, &u);
	check(&u, -ECONNRESET, 0, 0, 0);
	outcome_fini(&u.o);
	cst_http_client_free(client);
	raw_server_stop(&server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_what_went_out),	  cmocka_unit_test(early_answers),
		cmocka_unit_test(early_answer_in_pieces), cmocka_unit_test(slow_but_steady),
		cmocka_unit_test(slow_to_the_end),	  cmocka_unit_test(silence_ends),
		cmocka_unit_test(closed_in_handshake),
	};

	large = cst_xcalloc(1, LARGE);
	return cmocka_run_group_tests_name("http_client_upload", tests, NULL, NULL);
}
