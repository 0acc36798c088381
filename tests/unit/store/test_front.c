/* The front of the store with a backend of three lines: counting, latency, faults, /-/stats. */
#include "store/fault.h"
#include "store/handler.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define GET(path) "GET " path " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
#define BODY_LEN 100000

/* ---- the backend ---- */

static char object[BODY_LEN];
static bool admits;
static unsigned executed; /* requests that got past the front */
static pthread_barrier_t *together;

int cst_store_backend_open(struct cst_store *store, struct cst_error *err)
{
	(void)store;
	(void)err;
	return 0;
}

void cst_store_backend_close(struct cst_store *store)
{
	(void)store;
}

bool cst_store_admits(struct cst_store *store, struct cst_http_exchange *x)
{
	(void)store;
	(void)x;
	return admits;
}

static void answer_object(struct cst_http_exchange *x)
{
	cst_http_response_header(x, "ETag", "\"RIGHT\"");
	cst_http_response_header(x, "x-oss-request-id", cst_store_request_id(x));
	cst_http_response_send(x, 200, object, sizeof(object));
}

void cst_store_handle(struct cst_store *store, struct cst_http_exchange *x)
{
	const struct cst_http_head *head = cst_http_request_head(x);
	if (cst_slice_is(head->target, "/unknown")) {
		cst_http_response_send(x, 400, "?", 1);
		return;
	}
	bool put = cst_slice_is(head->method, "PUT");
	bool s3 = cst_http_header_get(head, "x-amz-date").data != NULL;
	if (!cst_store_begin(store, x, put ? CST_STORE_OP_PUT_OBJECT : CST_STORE_OP_GET_OBJECT,
			     s3 ? CST_STORE_S3 : CST_STORE_OSS))
		return;
	__atomic_add_fetch(&executed, 1, __ATOMIC_RELAXED);
	if (together)
		pthread_barrier_wait(together);
	if (put) {
		CST_AUTO_BUF body = CST_BUF_INIT;
		cst_http_request_read_all(x, &body, 1 << 20);
		cst_http_response_send(x, 200, NULL, 0);
	} else {
		answer_object(x);
	}
}

/* ---- helpers ---- */

static char address[64];
static struct cst_store *store;

static void start(const char *fault, int64_t latency, bool anonymous, const char *listen)
{
	struct cst_error err = CST_ERROR_INIT;
	struct cst_store_config config = {
		.dir = "/nonexistent",
		.addresses = &listen,
		.address_count = 1,
		.anonymous = anonymous,
		.latency = latency,
		.faults = &fault,
		.fault_count = fault ? 1 : 0,
		.fault_seed = 42,
	};
	executed = 0;
	assert_int_equal(cst_store_start(&config, &store, &err), 0);
	cst_store_address(store, 0, address, sizeof(address));
}

static void stop(void)
{
	cst_store_stop(store, CST_NS_PER_S);
}

static int connect_store(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};
	addr.sin_port = htons((uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10));
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

/* The whole answer up to the end of the connection; *rc: 0 or -errno. */
static char *ask(const char *request, int *rc, size_t *len)
{
	struct cst_buf out = CST_BUF_INIT;
	int fd = connect_store();
	assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
	ssize_t n;
	while ((n = recv(fd, cst_buf_room(&out, 65536), 65536, 0)) > 0)
		out.len += (size_t)n;
	*rc = n < 0 ? -errno : 0;
	*len = out.len;
	close(fd);
	return cst_buf_steal(&out);
}

static char *body_of(char *answer)
{
	char *at = strstr(answer, "\r\n\r\n");
	assert_non_null(at);
	return at + 4;
}

static json_t *stats(void)
{
	int rc;
	size_t len;
	char *answer = ask(GET("/-/stats"), &rc, &len);
	assert_int_equal(rc, 0);
	json_t *parsed = json_loads(body_of(answer), 0, NULL);
	assert_non_null(parsed);
	free(answer);
	return parsed;
}

static int64_t number(json_t *root, const char *a, const char *b, const char *c)
{
	json_t *v = json_object_get(root, a);
	if (b)
		v = json_object_get(v, b);
	if (c)
		v = json_object_get(v, c);
	return v ? json_integer_value(v) : 0;
}

/* ---- tests ---- */

static void counts(void **state)
{
	(void)state;
	int rc;
	size_t len;
	start(NULL, 0, true, "127.0.0.1:0");
	for (int i = 0; i < 3; i++)
		free(ask(GET("/b/k"), &rc, &len));
	free(ask("PUT /b/k HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody", &rc, &len));
	free(ask(GET("/unknown"), &rc, &len));
	json_t *s = stats();
	assert_int_equal(number(s, "requests", "GetObject", NULL), 3);
	assert_int_equal(number(s, "requests", "PutObject", NULL), 1);
	assert_int_equal(number(s, "requests", "Other", NULL), 1);
	assert_int_equal(json_object_size(json_object_get(s, "requests")), 3);
	assert_int_equal(number(s, "bytes_out", NULL, NULL), 3 * BODY_LEN + 1);
	assert_int_equal(number(s, "bytes_in", NULL, NULL), 4);
	assert_int_equal(number(s, "in_flight", NULL, NULL), 0);
	assert_int_equal(number(s, "max_in_flight", NULL, NULL), 1);
	json_decref(s);
	char *answer = ask(GET("/-/metrics"), &rc, &len);
	assert_non_null(strstr(answer, "cistern_store_requests_total{operation=\"GetObject\"} 3\n"));
	free(answer);
	free(ask("POST /-/stats/reset HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", &rc, &len));
	s = stats();
	assert_int_equal(json_object_size(json_object_get(s, "requests")), 0);
	assert_int_equal(number(s, "bytes_out", NULL, NULL), 0);
	assert_int_equal(number(s, "max_in_flight", NULL, NULL), 0);
	json_decref(s);
	answer = ask(GET("/-/other"), &rc, &len);
	assert_non_null(strstr(answer, "HTTP/1.1 404"));
	free(answer);
	stop();
}

static void *ask_one(void *arg)
{
	int rc;
	size_t len;
	(void)arg;
	free(ask(GET("/b/k"), &rc, &len));
	return NULL;
}

static void counts_what_is_in_flight(void **state)
{
	(void)state;
	enum { COUNT = 9 };
	pthread_t threads[COUNT];
	pthread_barrier_t barrier;
	pthread_barrier_init(&barrier, NULL, COUNT);
	start(NULL, 0, true, "127.0.0.1:0");
	together = &barrier;
	for (int i = 0; i < COUNT; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, ask_one, NULL), 0);
	for (int i = 0; i < COUNT; i++)
		pthread_join(threads[i], NULL);
	together = NULL;
	json_t *s = stats();
	assert_int_equal(number(s, "max_in_flight", NULL, NULL), COUNT);
	assert_int_equal(number(s, "in_flight", NULL, NULL), 0);
	json_decref(s);
	stop();
	pthread_barrier_destroy(&barrier);
}

static void delays(void **state)
{
	(void)state;
	int rc;
	size_t len;
	start(NULL, 30 * CST_NS_PER_MS, true, "127.0.0.1:0");
	int64_t before = cst_now();
	free(ask(GET("/b/k"), &rc, &len));
	assert_true(cst_now() - before >= 30 * CST_NS_PER_MS);
	stop();
}

static void injects_503(void **state)
{
	(void)state;
	int rc;
	size_t len;
	start("1:503:GetObject", 0, true, "127.0.0.1:0");
	char *answer = ask(GET("/b/k"), &rc, &len);
	assert_non_null(strstr(answer, "HTTP/1.1 503"));
	assert_non_null(strstr(answer, "<Code>ServiceUnavailable</Code>"));
	assert_non_null(strstr(answer, "x-oss-request-id: "));
	free(answer);
	answer = ask("GET /b/k HTTP/1.1\r\nHost: h\r\nx-amz-date: d\r\nConnection: close\r\n\r\n", &rc, &len);
	assert_non_null(strstr(answer, "<Code>SlowDown</Code>"));
	free(answer);
	assert_int_equal(executed, 0);
	answer = ask("PUT /b/k HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody", &rc, &len);
	assert_non_null(strstr(answer, "HTTP/1.1 200"));
	free(answer);
	json_t *s = stats();
	assert_int_equal(number(s, "faults", "GetObject", "503"), 2);
	assert_int_equal(number(s, "requests", "GetObject", NULL), 2);
	json_decref(s);
	stop();
}

static void injects_resets(void **state)
{
	(void)state;
	int rc, reset_early = 0;
	size_t len;
	start("1:reset", 0, true, "127.0.0.1:0");
	for (int i = 0; i < 40; i++) {
		unsigned before = __atomic_load_n(&executed, __ATOMIC_RELAXED);
		char *answer = ask(GET("/b/k"), &rc, &len);
		assert_int_equal(rc, -ECONNRESET);
		free(answer);
		reset_early += executed == before;
	}
	/* Some before anything was done, some after. */
	assert_in_range(reset_early, 8, 32);
	for (int i = 0; i < 10; i++) {
		free(ask("PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody", &rc, &len));
		assert_int_equal(rc, -ECONNRESET);
		assert_int_equal(len, 0);
	}
	json_t *s = stats();
	assert_int_equal(number(s, "faults", "GetObject", "reset"), 40);
	assert_int_equal(number(s, "faults", "PutObject", "reset"), 10);
	assert_int_equal(number(s, "in_flight", NULL, NULL), 0);
	json_decref(s);
	stop();
}

static void loses_answers(void **state)
{
	(void)state;
	int rc;
	size_t len;
	start("1:lost", 0, true, "127.0.0.1:0");
	unsigned before = __atomic_load_n(&executed, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < 10; i++) {
		free(ask(GET("/b/k"), &rc, &len));
		assert_int_equal(rc, 0); /* closed, not reset */
		assert_int_equal(len, 0);
		free(ask("PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody", &rc, &len));
		assert_int_equal(len, 0);
	}
	assert_int_equal(__atomic_load_n(&executed, __ATOMIC_RELAXED) - before, 20); /* and each was done */
	json_t *s = stats();
	assert_int_equal(number(s, "faults", "PutObject", "lost"), 10);
	assert_int_equal(number(s, "in_flight", NULL, NULL), 0);
	json_decref(s);
	stop();
}

static void injects_short_bodies(void **state)
{
	(void)state;
	int rc;
	size_t len;
	start("1:short", 0, true, "127.0.0.1:0");
	for (int i = 0; i < 10; i++) {
		char *answer = ask(GET("/b/k"), &rc, &len);
		assert_int_equal(rc, 0);
		assert_non_null(strstr(answer, "Content-Length: 100000\r\n"));
		assert_true(len - (size_t)(body_of(answer) - answer) < BODY_LEN);
		free(answer);
	}
	free(ask("HEAD /b/k HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", &rc, &len));
	assert_int_equal(rc, 0);
	assert_int_equal(len, 0);
	stop();
}

static void injects_wrong_etags(void **state)
{
	(void)state;
	int rc;
	size_t len;
	start("1:etag", 0, true, "127.0.0.1:0");
	char *answer = ask(GET("/b/k"), &rc, &len);
	assert_non_null(strstr(answer, "ETag: \""));
	assert_null(strstr(answer, "RIGHT"));
	assert_int_equal(len - (size_t)(body_of(answer) - answer), BODY_LEN);
	free(answer);
	free(ask("PUT /b/k HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", &rc, &len));
	json_t *s = stats();
	assert_int_equal(number(s, "faults", "GetObject", "etag"), 1);
	assert_int_equal(number(s, "faults", "PutObject", "etag"), 0); /* its answer has none to spoil */
	json_decref(s);
	stop();
}

/* Which requests fail is the same in every run with a seed. */
static void can_be_repeated(void **state)
{
	(void)state;
	char outcome[2][101] = {{0}};
	for (int run = 0; run < 2; run++) {
		start("0.5:503", 0, true, "127.0.0.1:0");
		for (int i = 0; i < 100; i++) {
			int rc;
			size_t len;
			char request[100];
			/* The second run asks in another order. */
			int key = run ? 99 - i : i;
			snprintf(request, sizeof(request), "GET /b/%d HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
				 key % 50);
			char *answer = ask(request, &rc, &len);
			outcome[run][i] = answer[9];
			free(answer);
		}
		stop();
	}
	for (int key = 0; key < 50; key++) {
		assert_int_equal(outcome[0][key], outcome[1][99 - key - 50]);
		assert_int_equal(outcome[0][key + 50], outcome[1][99 - key]);
	}
	assert_non_null(strchr(outcome[0], '5'));
	assert_non_null(strchr(outcome[0], '2'));
}

static void a_bucket_may_have_such_keys(void **state)
{
	(void)state;
	int rc;
	size_t len;
	char dir[] = "/tmp/cistern-front-XXXXXX", bucket[64];
	assert_non_null(mkdtemp(dir));
	snprintf(bucket, sizeof(bucket), "%s/mine", dir);
	assert_int_equal(mkdir(bucket, 0700), 0);
	const char *listen = "127.0.0.1:0";
	struct cst_store_config config = {.dir = dir, .addresses = &listen, .address_count = 1, .anonymous = true};
	assert_int_equal(cst_store_start(&config, &store, NULL), 0);
	cst_store_address(store, 0, address, sizeof(address));
	char *answer = ask("GET /-/stats HTTP/1.1\r\nHost: mine.localhost\r\nConnection: close\r\n\r\n", &rc, &len);
	assert_non_null(strstr(answer, "RIGHT"));
	free(answer);
	answer = ask("GET /-/stats HTTP/1.1\r\nHost: other.localhost\r\nConnection: close\r\n\r\n", &rc, &len);
	assert_non_null(strstr(answer, "max_in_flight"));
	free(answer);
	stop();
	rmdir(bucket);
	rmdir(dir);
}

static void local_peers_need_no_signature(void **state)
{
	(void)state;
	int rc;
	size_t len;
	admits = false;
	start(NULL, 0, false, "127.0.0.1:0");
	char *answer = ask(GET("/-/stats"), &rc, &len);
	assert_non_null(strstr(answer, "HTTP/1.1 200"));
	free(answer);
	stop();
}

static void refuses_bad_settings(void **state)
{
	(void)state;
	struct cst_error err = CST_ERROR_INIT;
	const char *listen = "127.0.0.1:0", *fault = "often:503";
	struct cst_store_config config = {.dir = "/x", .addresses = &listen, .address_count = 1, .anonymous = true};
	config.faults = &fault;
	config.fault_count = 1;
	assert_int_equal(cst_store_start(&config, &store, &err), -EINVAL);
	assert_non_null(strstr(err.what, "often:503"));
	config.fault_count = 0;
	config.tls_cert = "/x";
	assert_int_equal(cst_store_start(&config, &store, &err), -EINVAL);
	listen = "nowhere";
	config.tls_cert = NULL;
	assert_int_equal(cst_store_start(&config, &store, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts),
		cmocka_unit_test(counts_what_is_in_flight),
		cmocka_unit_test(delays),
		cmocka_unit_test(injects_503),
		cmocka_unit_test(injects_resets),
		cmocka_unit_test(loses_answers),
		cmocka_unit_test(injects_short_bodies),
		cmocka_unit_test(injects_wrong_etags),
		cmocka_unit_test(can_be_repeated),
		cmocka_unit_test(a_bucket_may_have_such_keys),
		cmocka_unit_test(local_peers_need_no_signature),
		cmocka_unit_test(refuses_bad_settings),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
