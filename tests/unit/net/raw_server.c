#include "raw_server.h"

#include "base/pool.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

struct visit {
	struct raw_server *server;
	int fd;
	unsigned index;
};

static void *visit_main(void *arg)
{
	struct visit *v = arg;
	struct raw_server *server = v->server;

	server->serve(server, v->fd, v->index);
	close(v->fd);
	free(v);
	__atomic_sub_fetch(&server->running, 1, __ATOMIC_ACQ_REL);
	return NULL;
}

static void *accept_main(void *arg)
{
	struct raw_server *server = arg;

	for (;;) {
		int fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC);
		struct visit *v;

		if (fd < 0)
			return NULL;
		v = CST_NEW(struct visit);
		*v = (struct visit){server, fd, __atomic_fetch_add(&server->accepted, 1, __ATOMIC_ACQ_REL)};
		__atomic_add_fetch(&server->running, 1, __ATOMIC_ACQ_REL);
		CST_ASSERT(cst_thread_start(NULL, "visit", 0, visit_main, v) == 0);
	}
}

static int bound_socket(int family, uint16_t *port)
{
	struct sockaddr_storage address = {.ss_family = family};
	socklen_t len = family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (family == AF_INET6)
		((struct sockaddr_in6 *)(void *)&address)->sin6_addr = in6addr_loopback;
	else
		((struct sockaddr_in *)(void *)&address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CST_ASSERT(fd >= 0 && bind(fd, (struct sockaddr *)&address, len) == 0);
	CST_ASSERT(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	*port = ntohs(((struct sockaddr_in *)(void *)&address)->sin_port);
	return fd;
}

uint16_t raw_closed_port(void)
{
	uint16_t port;

	close(bound_socket(AF_INET, &port));
	return port;
}

void raw_server_start(struct raw_server *server, int family,
		      void (*serve)(struct raw_server *server, int fd, unsigned index), void *arg)
{
	*server = (struct raw_server){.serve = serve, .arg = arg};
	sem_init(&server->steps, 0, 0);
	pthread_mutex_init(&server->lock, NULL);
	server->fd = bound_socket(family, &server->port);
	CST_ASSERT(listen(server->fd, 512) == 0);
	CST_ASSERT(cst_thread_start(&server->thread, "accept", 0, accept_main, server) == 0);
}

void raw_server_stop(struct raw_server *server)
{
	shutdown(server->fd, SHUT_RDWR);
	pthread_join(server->thread, NULL);
	close(server->fd);
	while (__atomic_load_n(&server->running, __ATOMIC_ACQUIRE))
		cst_sleep(CST_NS_PER_MS);
	sem_destroy(&server->steps);
	pthread_mutex_destroy(&server->lock);
}

static void note_request(struct raw_server *server, const char *request)
{
	const char *target = strchr(request, ' ');
	size_t used;

	pthread_mutex_lock(&server->lock);
	snprintf(server->seen, sizeof(server->seen), "%.4000s", request);
	used = strlen(server->targets);
	snprintf(server->targets + used, sizeof(server->targets) - used, "%.*s", (int)strcspn(target + 1, " ") + 1,
		 target);
	pthread_mutex_unlock(&server->lock);
}

bool raw_read_request(struct raw_server *server, int fd)
{
	CST_AUTO_FREE char *request = cst_xmalloc(65536);
	size_t len = 0, need = 0;
	char *end = NULL;

	while (!end || len < need) {
		ssize_t n = recv(fd, request + len, 65535 - len, 0);

		if (n <= 0)
			return false;
		len += n;
		request[len] = '\0';
		if (!end && (end = strstr(request, "\r\n\r\n"))) {
			const char *length = strstr(request, "Content-Length: ");

			need = end + 4 - request + (length && length < end ? strtoul(length + 16, NULL, 10) : 0);
		}
	}
	note_request(server, request);
	return true;
}

static const char *copy_locked_text(struct raw_server *server, const char *text)
{
	static char copy[4096];

	pthread_mutex_lock(&server->lock);
	snprintf(copy, sizeof(copy), "%s", text);
	pthread_mutex_unlock(&server->lock);
	return copy;
}

const char *raw_seen(struct raw_server *server)
{
	return copy_locked_text(server, server->seen);
}

const char *raw_targets(struct raw_server *server)
{
	return copy_locked_text(server, server->targets);
}

unsigned raw_accepted(struct raw_server *server)
{
	return __atomic_load_n(&server->accepted, __ATOMIC_ACQUIRE);
}

void raw_send_n(int fd, const void *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);

		if (n <= 0)
			return; /* the client may have gone; the test sees it by other means */
		bytes = (const char *)bytes + n;
		len -= n;
	}
}

void raw_send(int fd, const char *bytes)
{
	raw_send_n(fd, bytes, strlen(bytes));
}

void raw_drain(int fd)
{
	char sink[4096];

	while (recv(fd, sink, sizeof(sink), 0) > 0)
		;
}

void raw_reset(int fd)
{
	struct linger linger = {.l_onoff = 1};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

static int on_head(void *arg, const struct cst_http_response *response)
{
	struct outcome *o = arg;

	o->status = response->status;
	o->content_length = response->content_length;
	sem_post(&o->head);
	return o->head_rc;
}

static int on_body(void *arg, struct cst_slice piece)
{
	struct outcome *o = arg;

	cst_buf_add_slice(&o->body, piece);
	return o->body_rc;
}

static void on_done(void *arg, int rc, size_t received, const struct cst_error *err)
{
	struct outcome *o = arg;

	o->rc = rc;
	o->received = received;
	o->err = *err;
	o->dones++;
	if (o->must_be_on)
		CST_ASSERT(cst_loop_is_current(o->must_be_on));
	sem_post(&o->done);
}

struct cst_http_origin local_origin(uint16_t port)
{
	return (struct cst_http_origin){.host = "127.0.0.1", .port = port};
}

void call_start(struct cst_http_client *client, struct outcome *o, struct cst_http_request request)
{
	sem_init(&o->done, 0, 0);
	sem_init(&o->head, 0, 0);
	request.on_head = on_head;
	request.on_body = on_body;
	request.on_done = on_done;
	request.arg = o;
	o->call = cst_http_start(client, &request);
}

void call_wait(struct outcome *o)
{
	while (sem_wait(&o->done) && errno == EINTR)
		;
	cst_http_release(o->call);
	assert_int_equal(o->dones, 1);
}

void outcome_fini(struct outcome *o)
{
	cst_buf_fini(&o->body);
	sem_destroy(&o->done);
	sem_destroy(&o->head);
}

void call_get(struct cst_http_client *client, struct outcome *o, const struct cst_http_origin *origin,
	      const char *target)
{
	call_start(client, o, (struct cst_http_request){.origin = origin, .method = "GET", .target = target});
	call_wait(o);
}

struct cst_http_client *client_with(unsigned max_connections, struct cst_loop_group *loops, const char *ca_file)
{
	struct cst_http_client_config config = {.loops = loops, .max_connections = max_connections, .ca_file = ca_file};
	struct cst_error err = CST_ERROR_INIT;
	struct cst_http_client *client = cst_http_client_new(&config, &err);

	assert_non_null(client);
	return client;
}
