#include "scripted_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define CONNECTIONS_MAX 2048
#define REQUESTS_MAX 4096
#define BODY_KEPT ((size_t)65536)

struct scripted_server {
	scripted_fn fn;
	const void *arg;
	int listener, quit;
	unsigned port;
	pthread_t thread, connections[CONNECTIONS_MAX];
	unsigned connection_count;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool let_go;
	char *requests[REQUESTS_MAX], *bodies[REQUESTS_MAX];
	unsigned count, early;
};

struct connection {
	struct scripted_server *server;
	int fd;
	bool early; /* the last request's body was not read */
};

/* False when the server stops or the peer has gone. */
static bool wait_readable(struct scripted_server *s, int fd)
{
	struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = s->quit, .events = POLLIN}};
	while (poll(p, 2, -1) < 0 && errno == EINTR)
		;
	return !p[1].revents;
}

/* Without reading: what is not taken can't be sent. */
static void wait_closed(struct scripted_server *s, int fd)
{
	struct pollfd p[2] = {{.fd = fd, .events = POLLRDHUP}, {.fd = s->quit, .events = POLLIN}};
	while (poll(p, 2, -1) < 0 && errno == EINTR)
		;
}

static bool read_head(struct connection *c, struct cst_buf *in)
{
	while (!in->len || !strstr(in->data, "\r\n\r\n")) {
		if (!wait_readable(c->server, c->fd))
			return false;
		ssize_t n = recv(c->fd, cst_buf_room(in, 4096), 4096, 0);
		if (n <= 0)
			return false;
		in->len += (size_t)n;
		in->data[in->len] = '\0';
	}
	return true;
}

/* The body behind a head of `head` bytes; what of it is kept goes to *kept. */
static bool read_body(struct connection *c, struct cst_buf *in, size_t head, struct cst_buf *kept)
{
	const char *line = memmem(in->data, head, "\r\nContent-Length: ", 18);
	size_t left = line ? strtoull(line + 18, NULL, 10) : 0;
	for (;;) {
		size_t n = cst_min(left, in->len - head);
		cst_buf_add(kept, in->data + head, cst_min(n, BODY_KEPT - kept->len));
		memmove(in->data + head, in->data + head + n, in->len - head - n);
		in->len -= n;
		left -= n;
		if (left == 0)
			return true;
		if (!wait_readable(c->server, c->fd))
			return false;
		ssize_t got = recv(c->fd, cst_buf_room(in, 65536), 65536, 0);
		if (got <= 0)
			return false;
		in->len += (size_t)got;
	}
}

static enum scripted_end answer(struct connection *c, struct cst_buf *in, struct cst_buf *out)
{
	struct scripted_server *s = c->server;
	size_t len = (size_t)(strstr(in->data, "\r\n\r\n") - in->data) + 4;
	CST_AUTO_BUF body = CST_BUF_INIT;
	pthread_mutex_lock(&s->lock);
	bool early = s->count < s->early;
	pthread_mutex_unlock(&s->lock);
	if (!early && !read_body(c, in, len, &body))
		return SCRIPTED_CLOSE;
	pthread_mutex_lock(&s->lock);
	CST_ASSERT(s->count < REQUESTS_MAX);
	char *head = s->requests[s->count] = cst_xstrndup(in->data, len);
	s->bodies[s->count] = cst_buf_steal(&body);
	enum scripted_end end = s->fn(s->arg, s->count++, head, out);
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	cst_buf_consume(in, len);
	c->early = early;
	return end;
}

static void send_some(int fd, const char *data, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = send(fd, data + at, len - at, MSG_NOSIGNAL);
		if (n <= 0)
			return;
		at += (size_t)n;
	}
}

static void wait_let_go(struct scripted_server *s)
{
	pthread_mutex_lock(&s->lock);
	while (!s->let_go)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

static enum scripted_end send_answer(struct connection *c, const struct cst_buf *out, enum scripted_end end)
{
	size_t hold = (unsigned)end >> 8;
	if (((unsigned)end & 0xff) != SCRIPTED_HOLD) {
		send_some(c->fd, out->data, out->len);
		return end;
	}
	send_some(c->fd, out->data, hold);
	wait_let_go(c->server);
	send_some(c->fd, out->data + hold, out->len - hold);
	return SCRIPTED_KEEP;
}

static void *serve(void *arg)
{
	struct connection *c = arg;
	struct cst_buf in = CST_BUF_INIT, out = CST_BUF_INIT;
	enum scripted_end end = SCRIPTED_KEEP;
	while (end == SCRIPTED_KEEP && read_head(c, &in)) {
		cst_buf_clear(&out);
		end = answer(c, &in, &out);
		end = send_answer(c, &out, end);
		if (c->early && end == SCRIPTED_KEEP) {
			wait_closed(c->server, c->fd);
			break;
		}
	}
	if (end == SCRIPTED_STALL)
		wait_readable(c->server, c->fd);
	struct linger now = {1, 0};
	if (end == SCRIPTED_RESET)
		setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(c->fd);
	cst_buf_fini(&in);
	cst_buf_fini(&out);
	free(c);
	return NULL;
}

static void *accept_all(void *arg)
{
	struct scripted_server *s = arg;
	while (wait_readable(s, s->listener)) {
		struct connection *c = CST_NEW(struct connection);
		c->server = s;
		c->fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
		CST_ASSERT(c->fd >= 0 && s->connection_count < CONNECTIONS_MAX);
		CST_ASSERT(pthread_create(&s->connections[s->connection_count++], NULL, serve, c) == 0);
	}
	return NULL;
}

struct scripted_server *scripted_server_start(scripted_fn fn, const void *arg)
{
	struct scripted_server *s = CST_NEW(struct scripted_server);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	s->fn = fn;
	s->arg = arg;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	s->quit = eventfd(0, EFD_CLOEXEC);
	CST_ASSERT(s->listener >= 0 && bind(s->listener, (struct sockaddr *)&a, sizeof(a)) == 0);
	CST_ASSERT(listen(s->listener, 128) == 0 && getsockname(s->listener, (struct sockaddr *)&a, &len) == 0);
	s->port = ntohs(a.sin_port);
	CST_ASSERT(pthread_create(&s->thread, NULL, accept_all, s) == 0);
	return s;
}

void scripted_server_stop(struct scripted_server *s)
{
	uint64_t one = 1;
	scripted_server_let_go(s);
	CST_ASSERT(write(s->quit, &one, sizeof(one)) == sizeof(one));
	pthread_join(s->thread, NULL);
	for (unsigned i = 0; i < s->connection_count; i++)
		pthread_join(s->connections[i], NULL);
	for (unsigned i = 0; i < s->count; i++)
		free(s->requests[i]), free(s->bodies[i]);
	close(s->listener);
	close(s->quit);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->changed);
	free(s);
}

unsigned scripted_server_port(const struct scripted_server *s)
{
	return s->port;
}

unsigned scripted_server_requests(struct scripted_server *s)
{
	pthread_mutex_lock(&s->lock);
	unsigned n = s->count;
	pthread_mutex_unlock(&s->lock);
	return n;
}

void scripted_server_wait_requests(struct scripted_server *s, unsigned least)
{
	pthread_mutex_lock(&s->lock);
	while (s->count < least)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

void scripted_server_let_go(struct scripted_server *s)
{
	pthread_mutex_lock(&s->lock);
	s->let_go = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

const char *scripted_server_request(struct scripted_server *s, unsigned n)
{
	pthread_mutex_lock(&s->lock);
	const char *text = n < s->count ? s->requests[n] : "";
	pthread_mutex_unlock(&s->lock);
	return text;
}

const char *scripted_server_body(struct scripted_server *s, unsigned n)
{
	pthread_mutex_lock(&s->lock);
	const char *text = n < s->count ? s->bodies[n] : "";
	pthread_mutex_unlock(&s->lock);
	return text;
}

void scripted_server_early(struct scripted_server *s, unsigned n)
{
	pthread_mutex_lock(&s->lock);
	s->early = n;
	pthread_mutex_unlock(&s->lock);
}

void scripted_answer(struct cst_buf *out, int status, const char *headers, const char *body)
{
	cst_buf_printf(out, "HTTP/1.1 %d X\r\n%sContent-Length: %zu\r\n\r\n%s", status, headers, strlen(body), body);
}
