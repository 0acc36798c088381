#include "test_cred_common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>

char cred_home[64];

int cred_home_setup(void **state)
{
	(void)state;
	static const char *const names[] = {
		"OSS_ACCESS_KEY_ID",
		"OSS_ACCESS_KEY_SECRET",
		"OSS_SESSION_TOKEN",
		"ALIBABA_CLOUD_ACCESS_KEY_ID",
		"ALIBABA_CLOUD_ACCESS_KEY_SECRET",
		"ALIBABA_CLOUD_SECURITY_TOKEN",
		"AWS_ACCESS_KEY_ID",
		"AWS_SECRET_ACCESS_KEY",
		"AWS_SESSION_TOKEN",
		"AWS_PROFILE",
		"AWS_SHARED_CREDENTIALS_FILE",
		"AWS_CONFIG_FILE",
		"AWS_REGION",
		"AWS_DEFAULT_REGION",
		"AWS_ENDPOINT_URL",
		"AWS_ENDPOINT_URL_S3",
		"OSS_ENDPOINT",
		"OSS_REGION",
		"ALIBABA_CLOUD_ROLE_ARN",
		"ALIBABA_CLOUD_OIDC_PROVIDER_ARN",
		"ALIBABA_CLOUD_OIDC_TOKEN_FILE",
		"ALIBABA_CLOUD_ROLE_SESSION_NAME",
		"ALIBABA_CLOUD_STS_ENDPOINT",
		"ALIBABA_CLOUD_STS_REGION",
		"http_proxy",
		"https_proxy",
		"all_proxy",
		"no_proxy",
		"HTTPS_PROXY",
		"ALL_PROXY",
		"NO_PROXY",
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(names); i++)
		unsetenv(names[i]);
	strcpy(cred_home, "/tmp/cistern-cred-XXXXXX");
	if (!mkdtemp(cred_home))
		return -1;
	cst_cred_poll_interval = 10 * CST_NS_PER_S;
	cst_cred_use_inotify = true;
	return setenv("HOME", cred_home, 1);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

int cred_home_teardown(void **state)
{
	(void)state;
	return nftw(cred_home, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

const char *cred_path(const char *name)
{
	static char paths[4][512];
	static unsigned next;
	char *path = paths[next++ % 4];
	snprintf(path, sizeof(paths[0]), "%s/%s", cred_home, name);
	return path;
}

void cred_write(const char *name, const char *text, unsigned mode)
{
	const char *path = cred_path(name);
	char *dir = cst_xstrdup(path);
	for (char *at = dir + strlen(cred_home) + 1; (at = strchr(at, '/')) != NULL; at++) {
		*at = '\0';
		assert_true(mkdir(dir, 0755) == 0 || errno == EEXIST);
		*at = '/';
	}
	free(dir);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

void cred_replace(const char *name, const char *text)
{
	char temporary[256];
	snprintf(temporary, sizeof(temporary), "%s.new", name);
	cred_write(temporary, text, 0600);
	assert_int_equal(rename(cred_path(temporary), cred_path(name)), 0);
}

bool cred_key_is(struct cst_credentials *c, const char *access_key)
{
	struct cst_credential cred;
	cst_credentials_get(c, &cred);
	return strcmp(cred.access_key, access_key) == 0;
}

int cred_refused(const struct cst_credentials_config *config, const char *words)
{
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	struct cst_credentials *c = cst_credentials_new(config, &err);
	cst_error_text(&err, text, sizeof(text));
	if (c || !strstr(text, words) || strstr(text, "SECRET123"))
		print_message("expected an error with \"%s\" and without the secret, got: %s\n", words,
			      c ? "(success)" : text);
	assert_null(c);
	assert_non_null(strstr(text, words));
	assert_null(strstr(text, "SECRET123"));
	assert_true(err.code > 0);
	return err.code;
}

struct cst_credentials *cred_accepted(const struct cst_credentials_config *config, const char *expected)
{
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	struct cst_credential cred;
	struct cst_credentials *c = cst_credentials_new(config, &err);
	if (!c)
		print_message("unexpected: %s\n", cst_error_text(&err, text, sizeof(text)));
	assert_non_null(c);
	cst_credentials_get(c, &cred);
	CST_AUTO_BUF got = CST_BUF_INIT;
	cst_buf_printf(&got, "%s %s %s", cred.access_key, cred.secret_key, cred.token);
	assert_string_equal(got.data, expected);
	return c;
}

/* ---- HTTP ---- */

struct cred_mock {
	int fd, stop, requests;
	char url[64];
	cred_mock_fn fn;
	void *arg;
	pthread_t thread;
};

static bool stopped(const struct cred_mock *m)
{
	return __atomic_load_n(&m->stop, __ATOMIC_ACQUIRE);
}

/* Until the head and the body that it announces are there. Returns where the body starts, 0: the peer went away. */
static size_t read_request(const struct cred_mock *m, int fd, struct cst_buf *in)
{
	while (!stopped(m)) {
		const char *end = in->len ? strstr(in->data, "\r\n\r\n") : NULL;
		if (end) {
			size_t head = (size_t)(end - in->data) + 4, body = 0;
			const char *length = strcasestr(in->data, "\r\nContent-Length:");
			if (length && length < end)
				body = strtoul(length + 17, NULL, 10);
			if (in->len >= head + body)
				return head;
		}
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (poll(&p, 1, 20) <= 0)
			continue;
		ssize_t n = read(fd, cst_buf_room(in, 4096), 4096);
		if (n <= 0)
			return 0;
		in->len += (size_t)n;
		in->data[in->len] = '\0';
	}
	return 0;
}

static void serve(struct cred_mock *m, int fd)
{
	CST_AUTO_BUF in = CST_BUF_INIT, body = CST_BUF_INIT, out = CST_BUF_INIT;
	size_t head = read_request(m, fd, &in);
	if (head == 0)
		return;
	char *line_end = strstr(in.data, "\r\n");
	char *target = strchr(in.data, ' ');
	char *version = target ? strchr(target + 1, ' ') : NULL;
	if (!version || version > line_end)
		return;
	in.data[head - 2] = '\0';
	*target = *version = '\0';
	struct cred_request req = {in.data, target + 1, line_end + 2, in.data + head};
	__atomic_add_fetch(&m->requests, 1, __ATOMIC_ACQ_REL);
	int status = m->fn(m->arg, &req, &body);
	while (status == CRED_MOCK_STALL && !stopped(m))
		cst_sleep(10 * CST_NS_PER_MS);
	if (status == CRED_MOCK_STALL)
		return;
	cst_buf_printf(&out, "HTTP/1.1 %d Status\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", status,
		       body.len);
	cst_buf_add(&out, body.data ? body.data : "", body.len);
	assert_int_equal(send(fd, out.data, out.len, MSG_NOSIGNAL), out.len);
}

static void *mock_main(void *arg)
{
	struct cred_mock *m = arg;
	while (!stopped(m)) {
		struct pollfd p = {.fd = m->fd, .events = POLLIN};
		if (poll(&p, 1, 20) <= 0)
			continue;
		CST_AUTO_CLOSE int fd = accept4(m->fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			serve(m, fd);
	}
	return NULL;
}

struct cred_mock *cred_mock_new(const char *address, int port, cred_mock_fn fn, void *arg)
{
	struct cred_mock *m = CST_NEW(struct cred_mock);
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	socklen_t len = sizeof(addr);
	assert_int_equal(inet_pton(AF_INET, address ? address : "127.0.0.1", &addr.sin_addr), 1);
	m->fn = fn;
	m->arg = arg;
	m->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(m->fd >= 0);
	assert_int_equal(bind(m->fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(m->fd, 16), 0);
	assert_int_equal(getsockname(m->fd, (struct sockaddr *)&addr, &len), 0);
	snprintf(m->url, sizeof(m->url), "http://%s:%d", address ? address : "127.0.0.1", ntohs(addr.sin_port));
	assert_int_equal(pthread_create(&m->thread, NULL, mock_main, m), 0);
	return m;
}

void cred_mock_free(struct cred_mock *m)
{
	__atomic_store_n(&m->stop, 1, __ATOMIC_RELEASE);
	pthread_join(m->thread, NULL);
	close(m->fd);
	free(m);
}

const char *cred_mock_url(const struct cred_mock *m)
{
	return m->url;
}

int cred_mock_requests(const struct cred_mock *m)
{
	return __atomic_load_n(&m->requests, __ATOMIC_ACQUIRE);
}

bool cred_has_header(const struct cred_request *req, const char *line)
{
	size_t len = strlen(line);
	for (const char *at = req->headers; at && *at; at = strstr(at, "\r\n"), at = at ? at + 2 : NULL)
		if (strncasecmp(at, line, len) == 0 && (at[len] == '\r' || at[len] == '\0'))
			return true;
	return false;
}
