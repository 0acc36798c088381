#include "raw_server.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <sys/socket.h>

/* ---- certificates, made here ---- */

struct identity {
	EVP_PKEY *key;
	X509 *cert;
	char key_file[64], cert_file[64];
};

static char folder[] = "/tmp/cistern-test-tls-XXXXXX";

static void add_extension(X509 *cert, int nid, const char *value)
{
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);

	CST_ASSERT(extension && X509_add_ext(cert, extension, -1) == 1);
	X509_EXTENSION_free(extension);
}

/* signer NULL: a CA that signs itself. `until`: seconds from now. */
static void make_identity(struct identity *id, const char *name, const struct identity *signer,
			  const char *alternatives, long until)
{
	static long serial;
	FILE *f;

	id->key = EVP_EC_gen("P-256");
	id->cert = X509_new();
	X509_set_version(id->cert, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(id->cert), ++serial);
	X509_gmtime_adj(X509_getm_notBefore(id->cert), -7200);
	X509_gmtime_adj(X509_getm_notAfter(id->cert), until);
	X509_set_pubkey(id->cert, id->key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(id->cert), "CN", MBSTRING_ASC, (const unsigned char *)name, -1,
				   -1, 0);
	X509_set_issuer_name(id->cert, X509_get_subject_name(signer ? signer->cert : id->cert));
	if (alternatives)
		add_extension(id->cert, NID_subject_alt_name, alternatives);
	else
		add_extension(id->cert, NID_basic_constraints, "critical,CA:TRUE");
	CST_ASSERT(X509_sign(id->cert, signer ? signer->key : id->key, EVP_sha256()) > 0);
	snprintf(id->cert_file, sizeof(id->cert_file), "%s/%s.crt", folder, name);
	snprintf(id->key_file, sizeof(id->key_file), "%s/%s.key", folder, name);
	CST_ASSERT((f = fopen(id->cert_file, "w")) && PEM_write_X509(f, id->cert));
	fclose(f);
	CST_ASSERT((f = fopen(id->key_file, "w")) && PEM_write_PrivateKey(f, id->key, NULL, NULL, 0, NULL, NULL));
	fclose(f);
}

static void drop_identity(struct identity *id)
{
	unlink(id->cert_file);
	unlink(id->key_file);
	X509_free(id->cert);
	EVP_PKEY_free(id->key);
}

static struct identity ca, other_ca, good, wrong_name, expired;

static int setup(void **state)
{
	(void)state;
	CST_ASSERT(mkdtemp(folder));
	make_identity(&ca, "ca", NULL, NULL, 7200);
	make_identity(&other_ca, "other-ca", NULL, NULL, 7200);
	make_identity(&good, "good", &ca, "IP:127.0.0.1,DNS:store.example,DNS:*.wild.example", 7200);
	make_identity(&wrong_name, "wrong", &ca, "DNS:elsewhere.example", 7200);
	make_identity(&expired, "expired", &ca, "IP:127.0.0.1", -3600);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	drop_identity(&ca);
	drop_identity(&other_ca);
	drop_identity(&good);
	drop_identity(&wrong_name);
	drop_identity(&expired);
	rmdir(folder);
	return 0;
}

/* ---- a server ---- */

struct tls_script {
	struct cst_tls *tls;
	const char *answer;
	size_t body;	  /* so many bytes follow the answer */
	bool cut;	  /* end without close_notify */
	unsigned resumed; /* atomic */
};

static bool tls_read_request(SSL *ssl)
{
	char request[4096];
	int len = 0;

	while (len < (int)sizeof(request) - 1) {
		int n = SSL_read(ssl, request + len, (int)sizeof(request) - 1 - len);

		if (n <= 0)
			return false;
		len += n;
		request[len] = '\0';
		if (strstr(request, "\r\n\r\n"))
			return true;
	}
	return false;
}

static void serve_tls_on(struct tls_script *script, int fd)
{
	SSL *ssl = cst_tls_session_server(script->tls, fd);
	char *body = cst_xcalloc(1, 65536);

	memset(body, 'x', 65536);
	if (SSL_accept(ssl) == 1) {
		if (SSL_session_reused(ssl))
			__atomic_add_fetch(&script->resumed, 1, __ATOMIC_ACQ_REL);
		while (tls_read_request(ssl)) {
			SSL_write(ssl, script->answer, (int)strlen(script->answer));
			for (size_t left = script->body; left > 0;) {
				int n = SSL_write(ssl, body, (int)cst_min(left, (size_t)65536));

				if (n <= 0)
					break;
				left -= n;
			}
			if (script->cut || strstr(script->answer, "close"))
				break;
		}
		if (!script->cut)
			SSL_shutdown(ssl);
	}
	SSL_free(ssl);
	ERR_clear_error();
	free(body);
}

static void serve_tls(struct raw_server *server, int fd, unsigned index)
{
	(void)index;
	serve_tls_on(server->arg, fd);
}

static struct cst_tls *server_tls(const struct identity *id)
{
	struct cst_error err = CST_ERROR_INIT;
	struct cst_tls *tls = cst_tls_server_new(id->cert_file, id->key_file, &err);

	assert_non_null(tls);
	return tls;
}

#define HELLO "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

static void check(const struct identity *id, const char *ca_file, const char *host, int rc, const char *why)
{
	struct tls_script script = {.tls = server_tls(id), .answer = HELLO};
	struct cst_http_client *client = client_with(0, NULL, ca_file);
	struct cst_http_origin origin = {.tls = true, .connect_to = "127.0.0.1"};
	struct raw_server server;
	struct outcome o = {0};

	raw_server_start(&server, AF_INET, serve_tls, &script);
	snprintf(origin.host, sizeof(origin.host), "%s", host);
	origin.port = server.port;
	call_get(client, &o, &origin, "/");
	assert_int_equal(o.rc, rc);
	if (rc) {
		assert_non_null(strstr(o.err.why, why));
		assert_true(o.err.hint[0]);
	} else {
		assert_string_equal(o.body.data, "hello");
	}
	outcome_fini(&o);
	cst_http_client_free(client);
	raw_server_stop(&server);
	cst_tls_free(script.tls);
}

static void test_certificates(void **state)
{
	(void)state;
	check(&good, ca.cert_file, "127.0.0.1", 0, NULL);
	check(&good, ca.cert_file, "store.example", 0, NULL);
	check(&good, ca.cert_file, "bucket.wild.example", 0, NULL);
	check(&good, other_ca.cert_file, "127.0.0.1", -EPROTO, "unknown CA");
	check(&good, NULL, "127.0.0.1", -EPROTO, "unknown CA");
	check(&good, ca.cert_file, "other.example", -EPROTO, "another name");
	check(&good, ca.cert_file, "a.b.wild.example", -EPROTO, "another name");
	check(&good, ca.cert_file, "127.0.0.2", -EPROTO, "another name");
	check(&wrong_name, ca.cert_file, "127.0.0.1", -EPROTO, "another name");
	check(&expired, ca.cert_file, "127.0.0.1", -EPROTO, "expired");
}

static void test_bad_files(void **state)
{
	struct cst_error err = CST_ERROR_INIT;

	(void)state;
	assert_null(cst_tls_client_new("/nonexistent/ca.pem", &err));
	assert_non_null(strstr(err.what, "/nonexistent/ca.pem"));
	assert_null(cst_tls_client_new(good.key_file, &err));
	assert_null(cst_tls_server_new("/nonexistent/a", good.key_file, &err));
	assert_non_null(strstr(err.what, "/nonexistent/a"));
	assert_null(cst_tls_server_new(good.cert_file, expired.key_file, &err)); /* another key */
	assert_true(err.why[0]);
}

static void test_not_tls(void **state)
{
	struct cst_http_client *client = client_with(0, NULL, ca.cert_file);
	struct cst_http_origin origin;
	struct outcome o = {0};
	struct tls_script script = {.tls = server_tls(&good), .answer = HELLO};
	struct raw_server server;

	(void)state;
	raw_server_start(&server, AF_INET, serve_tls, &script);
	/* Plain HTTP to a server of TLS. */
	origin = local_origin(server.port);
	call_get(client, &o, &origin, "/");
	assert_true(o.rc == -EBADMSG || o.rc == -ECONNRESET);
	outcome_fini(&o);
	cst_http_client_free(client);
	raw_server_stop(&server);
	cst_tls_free(script.tls);
}

static void serve_plain(struct raw_server *server, int fd, unsigned index)
{
	(void)server, (void)index;
	raw_send(fd, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
	raw_drain(fd);
}

static void test_tls_to_plain_server(void **state)
{
	struct cst_http_client *client = client_with(0, NULL, ca.cert_file);
	struct cst_http_origin origin;
	struct outcome o = {0};
	struct raw_server server;

	(void)state;
	raw_server_start(&server, AF_INET, serve_plain, NULL);
	origin = local_origin(server.port);
	origin.tls = true;
	call_get(client, &o, &origin, "/");
	assert_int_equal(o.rc, -EPROTO);
	assert_non_null(strstr(o.err.why, "does not speak TLS"));
	outcome_fini(&o);
	cst_http_client_free(client);
	raw_server_stop(&server);
}

/* Connections that close resume the session of those before; ones that stay are used again without a handshake. */
static void test_resumption(void **state)
{
	struct tls_script script = {.tls = server_tls(&good),
				    .answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"};
	struct cst_http_client *client = client_with(0, NULL, ca.cert_file);
	struct cst_http_client_stats stats;
	struct cst_http_origin origin;
	struct raw_server server;

	(void)state;
	raw_server_start(&server, AF_INET, serve_tls, &script);
	origin = local_origin(server.port);
	origin.tls = true;
	for (int i = 0; i < 5; i++) {
		struct outcome o = {0};

		call_get(client, &o, &origin, "/");
		assert_int_equal(o.rc, 0);
		outcome_fini(&o);
	}
	cst_http_client_stats(client, &stats);
	assert_int_equal(stats.tls_handshakes, 5);
	cst_http_client_free(client);
	raw_server_stop(&server);
	assert_int_equal(script.resumed, 4);
	cst_tls_free(script.tls);
}

static void test_big_body_over_tls(void **state)
{
	size_t size = 5 * 1024 * 1024 + 13;
	char answer[100];
	struct tls_script script = {.tls = server_tls(&good), .answer = answer, .body = size};
	struct cst_http_client *client = client_with(1, NULL, ca.cert_file);
	struct cst_http_client_stats stats;
	struct cst_http_origin origin;
	struct raw_server server;
	char *memory = cst_xmalloc(size + 1);
	struct iovec iov[2] = {{memory, 100001}, {memory + 100001, size - 100001}};

	(void)state;
	snprintf(answer, sizeof(answer), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", size);
	raw_server_start(&server, AF_INET, serve_tls, &script);
	origin = local_origin(server.port);
	origin.tls = true;
	for (int i = 0; i < 4; i++) {
		struct outcome o = {0};

		memset(memory, 0, size + 1);
		call_start(client, &o,
			   (struct cst_http_request){
				   .origin = &origin, .method = "GET", .target = "/", .into = iov, .into_count = 2});
		call_wait(&o);
		assert_int_equal(o.rc, 0);
		assert_int_equal(o.received, size);
		for (size_t at = 0; at < size; at++)
			if (memory[at] != 'x')
				fail_msg("byte %zu", at);
		assert_int_equal(memory[size], 0);
		outcome_fini(&o);
	}
	cst_http_client_stats(client, &stats);
	assert_int_equal(stats.tls_handshakes, 1);
	cst_http_client_free(client);
	raw_server_stop(&server);
	cst_tls_free(script.tls);
	free(memory);
}

/* Without Content-Length the end is where close_notify says, and nowhere else: a cut could be anybody's. */
static void test_end_by_close(void **state)
{
	(void)state;
	for (int cut = 0; cut < 2; cut++) {
		struct tls_script script = {.tls = server_tls(&good),
					    .cut = cut,
					    .answer = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"};
		struct cst_http_client *client = client_with(0, NULL, ca.cert_file);
		struct cst_http_origin origin;
		struct raw_server server;
		struct outcome o = {0};

		raw_server_start(&server, AF_INET, serve_tls, &script);
		origin = local_origin(server.port);
		origin.tls = true;
		call_get(client, &o, &origin, "/");
		assert_int_equal(o.rc, cut ? -EPIPE : 0);
		assert_int_equal(o.received, 5);
		outcome_fini(&o);
		cst_http_client_free(client);
		raw_server_stop(&server);
		cst_tls_free(script.tls);
	}
}

/* ---- proxies ---- */

static struct cst_http_client *proxied_client(const char *variable, const char *user, uint16_t port)
{
	struct cst_http_client_config config = {.use_proxy_env = true, .ca_file = ca.cert_file};
	struct cst_http_client *client;
	char url[100];

	snprintf(url, sizeof(url), "http://%s127.0.0.1:%u/", user, port);
	setenv(variable, url, 1);
	client = cst_http_client_new(&config, NULL);
	unsetenv(variable);
	assert_non_null(client);
	return client;
}

struct proxy_script {
	const char *answer;
	struct tls_script *tls;
};

static void serve_proxy(struct raw_server *server, int fd, unsigned index)
{
	struct proxy_script *script = server->arg;

	(void)index;
	if (!raw_read_request(server, fd))
		return;
	raw_send(fd, script->answer);
	if (script->tls)
		serve_tls_on(script->tls, fd);
}

static void test_connect_proxy(void **state)
{
	struct tls_script tls = {.tls = server_tls(&good), .answer = HELLO};
	struct proxy_script script = {"HTTP/1.1 200 Established\r\n\r\n", &tls};
	struct cst_http_origin origin = {.tls = true, .host = "store.example", .port = 443};
	struct cst_http_client *client;
	struct raw_server server;

	(void)state;
	raw_server_start(&server, AF_INET, serve_proxy, &script);
	client = proxied_client("https_proxy", "me:p%40ss@", server.port);
	for (int i = 0; i < 2; i++) {
		struct outcome o = {0};

		call_get(client, &o, &origin, "/");
		assert_int_equal(o.rc, 0);
		assert_string_equal(o.body.data, "hello");
		outcome_fini(&o);
	}
	assert_string_equal(
		raw_seen(&server),
		"CONNECT store.example:443 HTTP/1.1\r\nHost: store.example:443\r\nUser-Agent: cistern/" CST_VERSION
		"\r\nProxy-Authorization: Basic bWU6cEBzcw==\r\n\r\n");
	assert_int_equal(raw_accepted(&server), 1);
	cst_http_client_free(client);
	raw_server_stop(&server);
	cst_tls_free(tls.tls);
}

static void test_connect_refused(void **state)
{
	static const struct {
		const char *answer;
		int rc;
		const char *why;
	} cases[] = {
		{"HTTP/1.1 407 Who are you\r\nContent-Length: 3\r\n\r\nxyz", -ECONNREFUSED, "answered 407"},
		{"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", -ECONNREFUSED, "answered 503"},
		{"HTTP/1.1 200 OK\r\n\r\nmore", -EBADMSG, "more than an answer"},
		{"garbage\r\n\r\n", -EBADMSG, "not HTTP"},
		{"", -ECONNRESET, "closed"},
	};

	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++) {
		struct proxy_script script = {cases[i].answer, NULL};
		struct cst_http_origin origin = {.tls = true, .host = "store.example", .port = 443};
		struct cst_http_client *client;
		struct raw_server server;
		struct outcome o = {0};

		raw_server_start(&server, AF_INET, serve_proxy, &script);
		client = proxied_client("HTTPS_PROXY", "", server.port);
		call_get(client, &o, &origin, "/");
		assert_int_equal(o.rc, cases[i].rc);
		assert_non_null(strstr(o.err.why, cases[i].why));
		outcome_fini(&o);
		cst_http_client_free(client);
		raw_server_stop(&server);
	}
}

static void test_plain_proxy(void **state)
{
	struct proxy_script script = {HELLO, NULL};
	struct cst_http_origin origin = {.host = "store.example", .port = 8080};
	struct cst_http_client *client;
	struct raw_server server;
	struct outcome o = {0};

	(void)state;
	raw_server_start(&server, AF_INET, serve_proxy, &script);
	client = proxied_client("http_proxy", "u:p@", server.port);
	call_get(client, &o, &origin, "/k");
	assert_int_equal(o.rc, 0);
	assert_string_equal(raw_seen(&server),
			    "GET http://store.example:8080/k HTTP/1.1\r\nHost: store.example:8080\r\nUser-Agent: "
			    "cistern/" CST_VERSION "\r\nProxy-Authorization: Basic dTpw\r\n\r\n");
	outcome_fini(&o);
	cst_http_client_free(client);
	raw_server_stop(&server);
}

/* ---- bytes behind an answer, in a record of their own ---- */

#define RECORD 16384

/* The first connection sends, behind its answer, one that nobody asked for; OpenSSL has read it ahead when the next call comes. */
static void serve_tls_surplus(struct raw_server *server, int fd, unsigned index)
{
	static const char evil[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil!";
	static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 16384\r\n\r\n";
	SSL *ssl = cst_tls_session_server(server->arg, fd);
	CST_AUTO_FREE char *body = cst_xcalloc(1, RECORD);

	if (SSL_accept(ssl) == 1 && tls_read_request(ssl)) {
		if (index == 0) {
			SSL_write(ssl, head, sizeof(head) - 1);
			SSL_write(ssl, body, RECORD);
			SSL_write(ssl, evil, sizeof(evil) - 1);
		} else {
			SSL_write(ssl, HELLO, sizeof(HELLO) - 1);
		}
		sem_post(&server->steps);
		tls_read_request(ssl);
	}
	SSL_free(ssl);
	ERR_clear_error();
}

struct held {
	sem_t *may_go, done;
	int rc;
};

static int held_head(void *arg, const struct cst_http_response *response)
{
	struct held *h = arg;

	(void)response;
	while (h->may_go && sem_wait(h->may_go) && errno == EINTR)
		;
	return 0;
}

static void held_done(void *arg, int rc, size_t received, const struct cst_error *err)
{
	struct held *h = arg;

	(void)received, (void)err;
	h->rc = rc;
	sem_post(&h->done);
}

static void test_surplus_over_tls(void **state)
{
	struct cst_tls *tls = server_tls(&good);
	struct cst_http_client *client = client_with(1, NULL, ca.cert_file);
	struct cst_http_origin origin;
	struct raw_server server;
	CST_AUTO_FREE char *first = cst_xmalloc(RECORD);
	char second[RECORD] = "";
	struct held h[2] = {{.may_go = &server.steps}, {.may_go = NULL}};
	struct iovec into[2] = {{first, RECORD}, {second, sizeof(second)}};
	struct cst_http_call *call[2];

	(void)state;
	raw_server_start(&server, AF_INET, serve_tls_surplus, tls);
	origin = local_origin(server.port);
	origin.tls = true;
	/* The second one waits for the only connection, and gets it at once when the first is over. */
	for (int i = 0; i < 2; i++) {
		sem_init(&h[i].done, 0, 0);
		call[i] = cst_http_start(client, &(struct cst_http_request){.origin = &origin,
									    .method = "GET",
									    .target = "/",
									    .into = &into[i],
									    .into_count = 1,
									    .on_head = held_head,
									    .on_done = held_done,
									    .arg = &h[i]});
	}
	for (int i = 0; i < 2; i++) {
		while (sem_wait(&h[i].done) && errno == EINTR)
			;
		cst_http_release(call[i]);
		sem_destroy(&h[i].done);
		assert_int_equal(h[i].rc, 0);
	}
	assert_string_equal(second, "hello");
	assert_int_equal(raw_accepted(&server), 2);
	cst_http_client_free(client);
	raw_server_stop(&server);
	cst_tls_free(tls);
}

/* Without delay: else close() drops what waits for an acknowledgement. */
static void serve_tls_at_once(struct raw_server *server, int fd, unsigned index)
{
	int one = 1;

	(void)index;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	serve_tls_on(server->arg, fd);
}

/* The server answers, and closes with most of the body unread: that resets the connection under the answer. */
static void test_early_answer_over_tls(void **state)
{
	struct tls_script script = {
		.tls = server_tls(&good),
		.answer = "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnope"};
	size_t size = 64 << 20;
	char *memory = cst_xcalloc(1, size);
	struct cst_http_client *client = client_with(0, NULL, ca.cert_file);
	struct raw_server server;
	struct cst_http_origin origin;

	(void)state;
	raw_server_start(&server, AF_INET, serve_tls_at_once, &script);
	origin = local_origin(server.port);
	origin.tls = true;
	for (int i = 0; i < 20; i++) {
		struct cst_http_sent sent = {0};
		struct iovec body = {memory, size};
		struct outcome o = {0};

		call_start(client, &o,
			   (struct cst_http_request){.origin = &origin,
						     .method = "PUT",
						     .target = "/",
						     .body = &body,
						     .body_count = 1,
						     .sent = &sent});
		call_wait(&o);
		assert_int_equal(o.rc, 0);
		assert_int_equal(o.status, 403);
		assert_string_equal(o.body.data, "nope");
		assert_int_equal(sent.whole, 0);
		outcome_fini(&o);
	}
	cst_http_client_free(client);
	raw_server_stop(&server);
	cst_tls_free(script.tls);
	free(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_certificates),	 cmocka_unit_test(test_bad_files),
		cmocka_unit_test(test_not_tls),		 cmocka_unit_test(test_tls_to_plain_server),
		cmocka_unit_test(test_resumption),	 cmocka_unit_test(test_big_body_over_tls),
		cmocka_unit_test(test_surplus_over_tls), cmocka_unit_test(test_end_by_close),
		cmocka_unit_test(test_connect_proxy),	 cmocka_unit_test(test_connect_refused),
		cmocka_unit_test(test_plain_proxy),	 cmocka_unit_test(test_early_answer_over_tls),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
