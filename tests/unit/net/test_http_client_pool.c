/* The pool shrinks, forgets connections that crawl, and says how fast they are; alarms of calls. */
#include "raw_server.h"

#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

#define AT_ONCE 6
#define BODY (512 * 1024)

static struct cst_http_client_stats stats_of(struct cst_http_client *client)
{
	struct cst_http_client_stats stats;

	cst_http_client_stats(client, &stats);
	return stats;
}

/* Answers when all are there, so that each has a connection of its own. */
static void serve_together(struct raw_server *server, int fd, unsigned index)
{
	(void)index;
	while (raw_read_request(server, fd)) {
		if (__atomic_add_fetch((unsigned *)server->arg, 1, __ATOMIC_ACQ_REL) == AT_ONCE)
			for (unsigned i = 0; i < AT_ONCE; i++)
				sem_post(&server->steps);
		while (sem_wait(&server->steps) && errno == EINTR)
			;
		raw_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
	}
}

static void test_spare_ones_are_closed(void **state)
{
	struct cst_http_client_config config = {.keep_idle = 2, .spare_timeout = 20 * CST_NS_PER_MS};
	struct cst_http_client *client = cst_http_client_new(&config, NULL);
	struct cst_http_request request = {.method = "GET", .target = "/"};
	struct outcome calls[AT_ONCE] = {0};
	struct cst_http_origin origin;
	struct raw_server server;
	unsigned arrived = 0;

	(void)state;
	raw_server_start(&server, AF_INET, serve_together, &arrived);
	origin = local_origin(server.port);
	request.origin = &origin;
	for (unsigned i = 0; i < AT_ONCE; i++)
		call_start(client, &calls[i], request);
	for (unsigned i = 0; i < AT_ONCE; i++) {
		call_wait(&calls[i]);
		assert_int_equal(calls[i].rc, 0);
		outcome_fini(&calls[i]);
	}
	while (stats_of(client).idle > 2)
		cst_sleep(CST_NS_PER_MS);
	cst_sleep(40 * CST_NS_PER_MS);
	assert_int_equal(stats_of(client).idle, 2);
	assert_int_equal(stats_of(client).open, 2);
	assert_int_equal(stats_of(client).spare_closed, AT_ONCE - 2);
	cst_http_client_free(client);
	raw_server_stop(&server);
}

static void serve_slower(struct raw_server *server, int fd, unsigned index)
{
	char head[64];

	snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", BODY);
	for (unsigned n = 0; raw_read_request(server, fd); n++) {
		raw_send(fd, head);
		/* The third one of the first connection comes within 2.4 s. */
		for (int i = 0; i < 8; i++) {
			if (index == 0 && n == 2)
				cst_sleep(300 * CST_NS_PER_MS);
			raw_send_n(fd, server->arg, BODY / 8);
		}
	}
}

static void test_crawlers_are_closed(void **state)
{
	struct cst_http_client *client = client_with(4, NULL, NULL);
	static char content[BODY], memory[BODY];
	struct iovec into = {memory, sizeof(memory)};
	struct cst_http_origin origin;
	struct raw_server server;

	(void)state;
	raw_server_start(&server, AF_INET, serve_slower, content);
	origin = local_origin(server.port);
	for (unsigned i = 0; i < 4; i++) {
		struct cst_http_request request = {
			.origin = &origin, .method = "GET", .target = "/", .into = &into, .into_count = 1};
		struct outcome call = {0};

		assert_int_equal(raw_accepted(&server), i > 0); /* one connection, until it has crawled */
		call_start(client, &call, request);
		call_wait(&call);
		assert_int_equal(call.rc, 0);
		assert_int_equal(call.received, BODY);
		outcome_fini(&call);
		assert_true(stats_of(client).rate > 8 * BODY / 2);
	}
	assert_int_equal(raw_accepted(&server), 2);
	assert_int_equal(stats_of(client).crawlers_closed, 1);
	cst_http_client_free(client);
	raw_server_stop(&server);
}

/* ---- alarms ---- */

static void serve_when_told(struct raw_server *server, int fd, unsigned index)
{
	(void)index;
	while (raw_read_request(server, fd)) {
		while (sem_wait(&server->steps) && errno == EINTR)
			;
		raw_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
	}
}

struct alarmed {
	struct raw_server server;
	sem_t done;
	unsigned rings;
	int rc;
};

static int64_t on_alarm(void *arg)
{
	struct alarmed *a = arg;

	if (++a->rings < 3)
		return CST_NS_PER_MS;
	sem_post(&a->server.steps);
	return 0;
}

static void on_done(void *arg, int rc, size_t received, const struct cst_error *err)
{
	struct alarmed *a = arg;

	(void)received, (void)err;
	a->rc = rc;
	sem_post(&a->done);
}

static void test_alarm(void **state)
{
	struct cst_http_client *client = client_with(1, NULL, NULL);
	struct cst_http_origin origin;
	struct alarmed a = {0};

	(void)state;
	sem_init(&a.done, 0, 0);
	raw_server_start(&a.server, AF_INET, serve_when_told, NULL);
	origin = local_origin(a.server.port);
	/* On a new connection, then on a kept one. */
	for (unsigned i = 0; i < 2; i++) {
		a.rings = 0;
		cst_http_release(cst_http_start(client, &(struct cst_http_request){.origin = &origin,
										   .method = "GET",
										   .target = "/",
										   .alarm_after = CST_NS_PER_MS,
										   .on_alarm = on_alarm,
										   .on_done = on_done,
										   .arg = &a}));
		while (sem_wait(&a.done) && errno == EINTR)
			;
		assert_int_equal(a.rc, 0);
		assert_int_equal(a.rings, 3);
	}
	assert_int_equal(raw_accepted(&a.server), 1);
	cst_http_client_free(client);
	raw_server_stop(&a.server);
	sem_destroy(&a.done);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spare_ones_are_closed),
		cmocka_unit_test(test_crawlers_are_closed),
		cmocka_unit_test(test_alarm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
