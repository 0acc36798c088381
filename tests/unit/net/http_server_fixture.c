#include "http_server_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

static void hold(struct fixture *f)
{
	pthread_mutex_lock(&f->lock);
	f->entered++;
	pthread_cond_broadcast(&f->changed);
	while (!f->release)
		pthread_cond_wait(&f->changed, &f->lock);
	pthread_mutex_unlock(&f->lock);
}

static void set_int(struct fixture *f, int *where, int value)
{
	pthread_mutex_lock(&f->lock);
	*where = value;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
}

static void echo(struct cst_http_exchange *x)
{
	CST_AUTO_BUF body = CST_BUF_INIT;
	int rc = cst_http_request_read_all(x, &body, 1 << 20);
	if (rc == 0)
		cst_http_response_send(x, 200, body.data, body.len);
	else
		cst_http_response_send(x, rc == -E2BIG ? 413 : 400, "bad body", 8);
}

static void flood(struct fixture *f, struct cst_http_exchange *x)
{
	int rc = cst_http_response_start(x, 200, INT64_C(1) << 40);
	while (rc == 0)
		rc = cst_http_response_sendfile(x, f->file_fd, 0, (int64_t)f->pattern_len);
	set_int(f, &f->write_rc, rc);
}

static void chunked(struct fixture *f, struct cst_http_exchange *x)
{
	cst_http_response_start(x, 200, -1);
	cst_http_response_write(x, "abc", 3);
	cst_http_response_write(x, "", 0);
	cst_http_response_sendfile(x, f->file_fd, 0, 5);
	cst_http_response_end(x);
}

static void file_range(struct fixture *f, struct cst_http_exchange *x, const char *spec)
{
	unsigned long offset = 0, len = 0;
	sscanf(spec, "%lu/%lu", &offset, &len);
	if (cst_http_response_start(x, 200, (int64_t)len) == 0)
		cst_http_response_sendfile(x, f->file_fd, (int64_t)offset, (int64_t)len);
}

static void body_of(struct fixture *f, struct cst_http_exchange *x)
{
	if (cst_http_response_start(x, 200, (int64_t)f->pattern_len) == 0)
		cst_http_response_write(x, f->pattern, f->pattern_len);
}

static void handler(struct cst_http_exchange *x, void *arg)
{
	struct fixture *f = arg;
	char target[256];
	struct cst_slice t = cst_http_request_head(x)->target;
	snprintf(target, sizeof(target), "%.*s", (int)t.len, t.data);
	unsigned uid = 0;
	cst_http_exchange_set_hooks(x, &f->hooks, f);
	if (strcmp(target, "/hello") == 0)
		cst_http_response_send(x, 200, "hello", 5);
	else if (strcmp(target, "/echo") == 0)
		echo(x);
	else if (strcmp(target, "/ignore") == 0)
		cst_http_response_send(x, 200, "ignored", 7);
	else if (strcmp(target, "/chunked") == 0)
		chunked(f, x);
	else if (strcmp(target, "/half") == 0) {
		cst_http_response_start(x, 200, -1);
		cst_http_response_write(x, "abc", 3);
	} else if (strcmp(target, "/short") == 0) {
		cst_http_response_start(x, 200, 100);
		cst_http_response_write(x, "0123456789", 10);
	} else if (strcmp(target, "/204") == 0)
		cst_http_response_send(x, 204, NULL, 0);
	else if (strcmp(target, "/304") == 0) {
		cst_http_response_start(x, 304, 1234);
		cst_http_response_write(x, "dropped", 7);
		cst_http_response_end(x);
	} else if (strcmp(target, "/inject") == 0) {
		cst_http_response_header(x, "X-Evil", "a\r\nX-Injected: 1");
		cst_http_response_send(x, 200, "ok", 2);
	} else if (strcmp(target, "/hold") == 0) {
		hold(f);
		cst_http_response_send(x, 200, "held", 4);
	} else if (strcmp(target, "/flood") == 0)
		flood(f, x);
	else if (strcmp(target, "/sleep") == 0)
		set_int(f, &f->sleep_rc, cst_http_exchange_sleep(x, 3600 * CST_NS_PER_S));
	else if (strcmp(target, "/uid") == 0) {
		char text[32];
		int rc = cst_http_request_peer_uid(x, &uid);
		int len = snprintf(text, sizeof(text), "%d %u", rc, uid);
		cst_http_response_send(x, 200, text, (size_t)len);
	} else if (strncmp(target, "/file/", 6) == 0)
		file_range(f, x, target + 6);
	else if (strcmp(target, "/body") == 0)
		body_of(f, x);
	else if (strcmp(target, "/reset") == 0)
		cst_http_fault_reset(x);
	else if (strncmp(target, "/cut/", 5) == 0 || strncmp(target, "/kill/", 6) == 0) {
		cst_http_fault_cut_after(x, strtoul(strchr(target + 1, '/') + 1, NULL, 10), target[1] == 'k');
		body_of(f, x);
	} else if (strncmp(target, "/rate/", 6) == 0) {
		cst_http_fault_rate(x, strtoul(target + 6, NULL, 10));
		body_of(f, x);
	} else if (strcmp(target, "/etag") == 0) {
		cst_http_response_header(x, "ETag", "\"right\"");
		cst_http_response_header(x, "X-Other", "kept");
		cst_http_response_send(x, 200, "x", 1);
	}
	/* anything else starts no response */
}

/* ---- server ---- */

static void make_certificate(struct fixture *f)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = X509_new();
	assert_non_null(key);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
	X509_gmtime_adj(X509_getm_notBefore(cert), -60);
	X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
	X509_set_pubkey(cert, key);
	X509_NAME *name = X509_get_subject_name(cert);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1, -1, 0);
	X509_set_issuer_name(cert, name);
	assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
	FILE *out = fopen(f->cert, "w");
	assert_non_null(out);
	PEM_write_X509(out, cert);
	fclose(out);
	out = fopen(f->key, "w");
	assert_non_null(out);
	PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL);
	fclose(out);
	X509_free(cert);
	EVP_PKEY_free(key);
}

static void make_file(struct fixture *f)
{
	f->pattern_len = FIXTURE_PATTERN;
	f->pattern = malloc(f->pattern_len);
	uint32_t v = 12345;
	for (size_t i = 0; i < f->pattern_len; i++) {
		v = v * 1664525 + 1013904223;
		f->pattern[i] = (char)(v >> 24);
	}
	f->file_fd = open(f->file, O_RDWR | O_CREAT | O_EXCL, 0600);
	assert_true(f->file_fd >= 0);
	assert_int_equal(write(f->file_fd, f->pattern, f->pattern_len), f->pattern_len);
}

void fixture_start(struct fixture *f, const struct cst_http_server_config *config, bool tls, bool unix_socket)
{
	struct cst_error err = CST_ERROR_INIT;
	memset(f, 0, sizeof(*f));
	f->write_rc = f->sleep_rc = 1;
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->changed, NULL);
	snprintf(f->dir, sizeof(f->dir), "/tmp/cistern-http-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->cert, sizeof(f->cert), "%s/cert", f->dir);
	snprintf(f->key, sizeof(f->key), "%s/key", f->dir);
	snprintf(f->file, sizeof(f->file), "%s/file", f->dir);
	snprintf(f->unix_path, sizeof(f->unix_path), "%s/sock", f->dir);
	make_file(f);
	struct cst_http_server_config own = config ? *config : (struct cst_http_server_config){0};
	own.handler = handler;
	own.arg = f;
	own.name = "test";
	f->hooks.count_in = &f->count_in;
	f->hooks.count_out = &f->count_out;
	f->server = cst_http_server_new(&own, &err);
	assert_non_null(f->server);
	if (tls) {
		make_certificate(f);
		f->tls = cst_tls_server_new(f->cert, f->key, &err);
		assert_non_null(f->tls);
	}
	assert_int_equal(cst_http_server_listen(f->server, "127.0.0.1:0", f->tls, &err), 0);
	if (unix_socket) {
		char address[80];
		snprintf(address, sizeof(address), "unix:%s", f->unix_path);
		assert_int_equal(cst_http_server_listen(f->server, address, NULL, &err), 0);
	}
	assert_int_equal(cst_http_server_start(f->server, &err), 0);
	cst_http_server_address(f->server, 0, f->address, sizeof(f->address));
	f->port = (uint16_t)strtoul(strrchr(f->address, ':') + 1, NULL, 10);
	assert_true(f->port != 0);
}

void fixture_stop(struct fixture *f)
{
	cst_http_server_stop(f->server, 10 * CST_NS_PER_S);
	cst_tls_free(f->tls);
	close(f->file_fd);
	unlink(f->cert);
	unlink(f->key);
	unlink(f->file);
	assert_int_equal(rmdir(f->dir), 0); /* the socket's file is gone too */
	free(f->pattern);
	pthread_mutex_destroy(&f->lock);
	pthread_cond_destroy(&f->changed);
}

void fixture_wait(struct fixture *f, const unsigned *value, unsigned wanted)
{
	pthread_mutex_lock(&f->lock);
	while (*value != wanted)
		pthread_cond_wait(&f->changed, &f->lock);
	pthread_mutex_unlock(&f->lock);
}

void fixture_release(struct fixture *f)
{
	pthread_mutex_lock(&f->lock);
	f->release = true;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
}

/* ---- client ---- */

int fixture_connect(const struct fixture *f)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(f->port)};
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

bool fixture_try_connect(const struct fixture *f)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(f->port)};
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	bool accepted = connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0;
	close(fd);
	return accepted;
}

int fixture_connect_unix(const struct fixture *f)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", f->unix_path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

void send_text(int fd, const char *text)
{
	size_t len = strlen(text);
	assert_int_equal(send(fd, text, len, MSG_NOSIGNAL), len);
}

char *read_to_end(int fd, size_t *len, int *rc)
{
	struct cst_buf out = CST_BUF_INIT;
	ssize_t n;
	while ((n = recv(fd, cst_buf_room(&out, 65536), 65536, 0)) > 0)
		out.len += (size_t)n;
	*rc = n < 0 ? -errno : 0;
	*len = out.len;
	return cst_buf_steal(&out);
}

int read_response(int fd, struct cst_buf *head, struct cst_buf *body, bool head_only)
{
	cst_buf_clear(head);
	cst_buf_clear(body);
	/* Byte by byte, so that nothing of the next response is taken. */
	while (head->len < 4 || memcmp(head->data + head->len - 4, "\r\n\r\n", 4) != 0) {
		char c;
		ssize_t n = recv(fd, &c, 1, 0);
		assert_int_equal(n, 1);
		cst_buf_add_char(head, c);
	}
	struct cst_http_head parsed;
	const char *why = "";
	assert_int_equal(cst_http_parse_response(cst_buf_slice(head), &parsed, &why), head->len);
	int64_t left = head_only ? 0 : cst_max(parsed.content_length, (int64_t)0);
	while (left) {
		size_t want = (size_t)cst_min(left, (int64_t)65536);
		ssize_t n = recv(fd, cst_buf_room(body, want), want, 0);
		assert_true(n > 0);
		body->len += (size_t)n;
		left -= n;
	}
	cst_buf_add_char(body, '\0');
	body->len--;
	return parsed.status;
}

void expect(int fd, const char *request, int status, const char *body_text)
{
	CST_AUTO_BUF head = CST_BUF_INIT;
	CST_AUTO_BUF body = CST_BUF_INIT;
	if (*request)
		send_text(fd, request);
	assert_int_equal(read_response(fd, &head, &body, false), status);
	if (body_text)
		assert_string_equal(body.data, body_text);
}

void expect_closed(int fd)
{
	char c;
	assert_int_equal(recv(fd, &c, 1, 0), 0);
	close(fd);
}
