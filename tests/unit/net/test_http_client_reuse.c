/* What one answer may leave behind for the next one on the same connection: nothing. */
#include "raw_server.h"

#include <errno.h>
#include <sys/socket.h>

#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"

/* A call whose head callback waits for the test: the server has then sent all it wants to send. */
struct held_call {
	struct cst_http_call *call;
	sem_t *may_go;
	sem_t done;
	int rc;
	size_t received;
};

static int held_head(void *arg, const struct cst_http_response *response)
{
	struct held_call *h = arg;

	(void)response;
	if (h->may_go)
		while (sem_wait(h->may_go) && errno == EINTR)
			;
	return 0;
}

static void held_done(void *arg, int rc, size_t received, const struct cst_error *err)
{
	struct held_call *h = arg;

	(void)err;
	h->rc = rc;
	h->received = received;
	sem_post(&h->done);
}

static void held_start(struct held_call *h, struct cst_http_client *client, const struct cst_http_origin *origin,
		       sem_t *may_go, const struct iovec *into)
{
	struct cst_http_request request = {.origin = origin,
					   .method = "GET",
					   .target = "/k",
					   .into = into,
					   .into_count = 1,
					   .on_head = held_head,
					   .on_done = held_done,
					   .arg = h};

	*h = (struct held_call){.may_go = may_go};
	sem_init(&h->done, 0, 0);
	h->call = cst_http_start(client, &request);
}

static void held_wait(struct held_call *h)
{
	while (sem_wait(&h->done) && errno == EINTR)
		;
	cst_http_release(h->call);
	sem_destroy(&h->done);
}

/* ---- a chunked answer, then one with a length, in two pieces ---- */

static void serve_chunked_then_pieces(struct raw_server *server, int fd, unsigned index)
{
	(void)index;
	if (!raw_read_request(server, fd))
		return;
	raw_send(fd, CHUNKED);
	while (raw_read_request(server, fd)) {
		raw_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello");
		sem_wait(&server->steps); /* the client has seen the first piece */
		raw_send(fd, " world");
	}
}

static void check_length_after_chunks(bool direct)
{
	struct cst_http_client *client = client_with(1, NULL, NULL);
	struct raw_server server;
	struct cst_http_origin origin;
	struct outcome a = {0}, b = {0};
	char memory[32] = "";
	struct iovec into = {memory, sizeof(memory)};
	struct cst_http_request request = {.method = "GET", .target = "/2"};

	raw_server_start(&server, AF_INET, serve_chunked_then_pieces, NULL);
	origin = local_origin(server.port);
	call_get(client, &a, &origin, "/1");
	assert_int_equal(a.rc, 0);
	assert_int_equal(a.received, 5);
	request.origin = &origin;
	if (direct) {
		request.into = &into;
		request.into_count = 1;
	}
	call_start(client, &b, request);
	while (sem_wait(&b.head) && errno == EINTR)
		;
	sem_post(&server.steps);
	call_wait(&b);
	assert_int_equal(b.rc, 0);
	assert_int_equal(b.received, 11);
	assert_memory_equal(direct ? memory : b.body.data, "hello world", 11);
	assert_int_equal(raw_accepted(&server), 1);
	outcome_fini(&a);
	outcome_fini(&b);
	cst_http_client_free(client);
	raw_server_stop(&server);
}

static void test_length_after_chunks(void **state)
{
	(void)state;
	check_length_after_chunks(false);
	check_length_after_chunks(true);
}

/* ---- more bytes than the answer has ---- */

#define LONG_BODY 65536 /* beyond what is read along with the head */

/* The first connection sends, behind its answer, another one that nobody asked for. */
static void serve_surplus(struct raw_server *server, int fd, unsigned index)
{
	static char body[LONG_BODY];
	CST_AUTO_BUF all = CST_BUF_INIT;

	if (!raw_read_request(server, fd))
		return;
	if (index > 0) {
		raw_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
		raw_drain(fd);
		return;
	}
	cst_buf_printf(&all, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", LONG_BODY);
	cst_buf_add(&all, body, sizeof(body));
	cst_buf_add_str(&all, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
	raw_send_n(fd, all.data, all.len);
	sem_post(&server->steps); /* all of it waits in the client's socket */
	raw_drain(fd);
}

static void test_surplus_is_nobodys_answer(void **state)
{
	struct cst_http_client *client = client_with(1, NULL, NULL);
	struct raw_server server;
	struct cst_http_origin origin;
	struct held_call a, b;
	CST_AUTO_FREE char *first = cst_xmalloc(LONG_BODY);
	char second[16] = "";

	(void)state;
	raw_server_start(&server, AF_INET, serve_surplus, NULL);
	origin = local_origin(server.port);
	held_start(&a, client, &origin, &server.steps, &(struct iovec){first, LONG_BODY});
	/* It waits for the only connection, and gets it at once when the first call is over. */
	held_start(&b, client, &origin, NULL, &(struct iovec){second, sizeof(second)});
	held_wait(&a);
	held_wait(&b);
	assert_int_equal(a.rc, 0);
	assert_int_equal(a.received, LONG_BODY);
	assert_int_equal(b.rc, 0);
	assert_string_equal(second, "good");
	assert_int_equal(raw_accepted(&server), 2);
	cst_http_client_free(client);
	raw_server_stop(&server);
}

/* ---- interim answers without end ---- */

static void serve_interim(struct raw_server *server, int fd, unsigned index)
{
	static const char interim[] = "HTTP/1.1 102 Processing\r\n\r\n";

	(void)index;
	if (!raw_read_request(server, fd))
		return;
	while (send(fd, interim, sizeof(interim) - 1, MSG_NOSIGNAL) > 0)
		;
}

static void test_endless_interim_answers(void **state)
{
	struct cst_http_client *client = client_with(0, NULL, NULL);
	struct raw_server server;
	struct cst_http_origin origin;
	struct outcome o = {0};

	(void)state;
	raw_server_start(&server, AF_INET, serve_interim, NULL);
	origin = local_origin(server.port);
	call_get(client, &o, &origin, "/");
	assert_int_equal(o.rc, -EBADMSG);
	outcome_fini(&o);
	cst_http_client_free(client);
	raw_server_stop(&server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_length_after_chunks),
		cmocka_unit_test(test_surplus_is_nobodys_answer),
		cmocka_unit_test(test_endless_interim_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
