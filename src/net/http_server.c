/* Life of the server: its threads, the epoll set they wait in, the connections' phases and deadlines. */
#define CST_LOG_AREA "http"
#include "base/log.h"
#include "base/pool.h"
#include "net/http_server_private.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define WORKER_STACK (256 * 1024)
#define WORKER_LINGER_MS 10000		   /* an idle worker ends after this, when another one waits too */
#define CONN_LINGER_NS (2 * CST_NS_PER_MS) /* a worker stays with a connection for its next request */
#define DRAIN_NS (2 * CST_NS_PER_S)
#define IN_ROOM 8192 /* bytes received at a time while reading heads */
#define LOCAL_SEND_BUFFER (384 * 1024)

static void *worker_main(void *arg);

/* ---- timed lists ---- */

static int64_t phase_timeout(const struct cst_http_peer *conn, enum cst_http_timed *timed)
{
	const struct cst_http_server_config *config = &conn->server->config;
	if (conn->phase == CST_HTTP_DRAIN) {
		*timed = CST_HTTP_TIMED_DRAIN;
		return DRAIN_NS;
	}
	if (conn->phase == CST_HTTP_HANDSHAKE || conn->start != conn->end) {
		*timed = CST_HTTP_TIMED_HEAD;
		return config->head_timeout;
	}
	*timed = CST_HTTP_TIMED_IDLE;
	return config->idle_timeout;
}

static void untime_locked(struct cst_http_peer *conn)
{
	if (conn->timed == CST_HTTP_TIMED_NONE)
		return;
	TAILQ_REMOVE(&conn->server->timed[conn->timed], conn, timed_link);
	conn->timed = CST_HTTP_TIMED_NONE;
}

/* Puts the connection on the list of its phase; a place that it has already stays, with its deadline. */
static void time_locked(struct cst_http_peer *conn)
{
	struct cst_http_server *server = conn->server;
	enum cst_http_timed timed;
	int64_t timeout = phase_timeout(conn, &timed);
	if (conn->timed == timed)
		return;
	untime_locked(conn);
	conn->timed = timed;
	conn->deadline = cst_now() + timeout;
	TAILQ_INSERT_TAIL(&server->timed[timed], conn, timed_link);
	if (conn->deadline < server->keeper_next) {
		server->keeper_next = conn->deadline;
		pthread_cond_signal(&server->keeper_wake);
	}
}

/* Shuts down what waited too long and returns when to look again. */
static int64_t expire_locked(struct cst_http_server *server)
{
	int64_t now = cst_now(), next = INT64_MAX;
	for (int i = 0; i < CST_HTTP_TIMED_COUNT; i++) {
		struct cst_http_peer *conn;
		while ((conn = TAILQ_FIRST(&server->timed[i])) && conn->deadline <= now) {
			conn->expired = true;
			untime_locked(conn);
			/* The receiving side only: the worker that this wakes may still answer 408. */
			shutdown(conn->fd, SHUT_RD);
		}
		if (conn)
			next = cst_min(next, conn->deadline);
	}
	return next;
}

static void join_ended(struct cst_http_server *server)
{
	struct cst_http_worker *worker;
	while ((worker = SLIST_FIRST(&server->ended))) {
		SLIST_REMOVE_HEAD(&server->ended, ended_link);
		pthread_mutex_unlock(&server->lock);
		pthread_join(worker->thread, NULL);
		free(worker->head);
		free(worker->io);
		cst_buf_fini(&worker->out);
		free(worker);
		pthread_mutex_lock(&server->lock);
	}
}

static void *keeper_main(void *arg)
{
	struct cst_http_server *server = arg;
	pthread_mutex_lock(&server->lock);
	while (!server->keeper_stop) {
		join_ended(server);
		server->keeper_next = expire_locked(server);
		if (server->keeper_stop)
			break;
		if (server->keeper_next == INT64_MAX) {
			pthread_cond_wait(&server->keeper_wake, &server->lock);
			continue;
		}
		struct timespec ts = {server->keeper_next / CST_NS_PER_S, server->keeper_next % CST_NS_PER_S};
		pthread_cond_timedwait(&server->keeper_wake, &server->lock, &ts);
	}
	pthread_mutex_unlock(&server->lock);
	return NULL;
}

/* ---- connections ---- */

/* Is the client on this machine? Then its address is loopback or our own. */
static bool is_local(int fd, const struct sockaddr_storage *peer)
{
	struct sockaddr_storage own = {0};
	socklen_t len = sizeof(own);
	if (getsockname(fd, (struct sockaddr *)&own, &len) != 0 || own.ss_family != peer->ss_family)
		return false;
	if (peer->ss_family == AF_INET)
		return ((const struct sockaddr_in *)peer)->sin_addr.s_addr ==
		       ((struct sockaddr_in *)&own)->sin_addr.s_addr;
	const struct in6_addr *a = &((const struct sockaddr_in6 *)peer)->sin6_addr;
	const struct in6_addr *b = &((struct sockaddr_in6 *)&own)->sin6_addr;
	return memcmp(a, b, sizeof(*a)) == 0;
}

static void tune_tcp(int fd, const struct sockaddr_storage *peer)
{
	int on = 1, size = LOCAL_SEND_BUFFER;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	/* Over a network the kernel's own tuning finds the right sizes. On one machine a small window is what counts, so
	 * that bytes are still in the CPU's cache when the client copies them (with 4 MiB half the speed was lost, with
	 * 64 KiB that of a single stream), and pacing as of bbr only costs. */
	if (!is_local(fd, peer))
		return;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5) != 0)
		setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

struct cst_http_peer *cst_http_peer_new(struct cst_http_server *server, int fd,
					const struct cst_http_listener *listener, const struct sockaddr_storage *peer)
{
	struct cst_http_peer *conn = CST_NEW(struct cst_http_peer);
	conn->event = CST_HTTP_EVENT_CONN;
	conn->magic = CST_HTTP_CONN_MAGIC;
	conn->server = server;
	conn->fd = fd;
	conn->tcp = listener->tcp;
	conn->phase = CST_HTTP_HEAD;
	conn->peer = *peer;
	conn->timed = CST_HTTP_TIMED_NONE;
	conn->pace.rate = server->config.connection_bandwidth;
	if (listener->tls) {
		conn->phase = CST_HTTP_HANDSHAKE;
		conn->ssl = cst_tls_session_server(listener->tls, fd);
		if (!conn->ssl) {
			close(fd);
			free(conn);
			return NULL;
		}
	}
	if (conn->tcp)
		tune_tcp(fd, peer);
	__atomic_add_fetch(&server->accepted, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&server->connections, 1, __ATOMIC_RELAXED);
	pthread_mutex_lock(&server->lock);
	LIST_INSERT_HEAD(&server->all, conn, all_link);
	pthread_mutex_unlock(&server->lock);
	return conn;
}

void cst_http_peer_free(struct cst_http_peer *conn)
{
	CST_CHECK(conn, CST_HTTP_CONN_MAGIC);
	struct cst_http_server *server = conn->server;
	pthread_mutex_lock(&server->lock);
	untime_locked(conn);
	LIST_REMOVE(conn, all_link);
	pthread_mutex_unlock(&server->lock);
	__atomic_sub_fetch(&server->connections, 1, __ATOMIC_RELAXED);
	/* Nobody else knows the descriptor now, so its number may be used again. */
	close(conn->fd);
	SSL_free(conn->ssl);
	free(conn->in);
	conn->magic = 0;
	free(conn);
}

void cst_http_peer_arm(struct cst_http_peer *conn, uint32_t events)
{
	struct cst_http_server *server = conn->server;
	cst_http_peer_release_buffer(conn);
	if (conn->phase == CST_HTTP_HANDSHAKE || conn->start != conn->end)
		conn->head_clock = true;
	pthread_mutex_lock(&server->lock);
	/* One that expired while a worker had it has its end of stream waiting in the socket. */
	if (!conn->expired)
		time_locked(conn);
	struct epoll_event ev = {.events = events | EPOLLONESHOT | EPOLLRDHUP, .data.ptr = conn};
	int rc = epoll_ctl(server->epoll_fd, conn->added ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, conn->fd, &ev) ? -errno : 0;
	conn->added = true;
	/* From here on another worker may have the connection, once it gets the lock, unless the kernel refused. */
	pthread_mutex_unlock(&server->lock);
	if (rc < 0) {
		cst_log_error("%s: can't watch a connection: %s", server->name, strerror(-rc));
		cst_http_peer_free(conn);
	}
}

/* Ends a connection so that the client can read the last answer: a reset for bytes we did not read would destroy it. */
static void close_gently(struct cst_http_peer *conn)
{
	cst_http_peer_shutdown_send(conn);
	conn->phase = CST_HTTP_DRAIN;
	conn->start = conn->end = 0;
	cst_http_peer_arm(conn, EPOLLIN);
}

static void drain(struct cst_http_worker *worker, struct cst_http_peer *conn, bool expired)
{
	/* As plain bytes, TLS or not; fairness needs a bound. */
	for (int i = 0; i < 64 && !expired; i++) {
		ssize_t n = recv(conn->fd, worker->head, CST_HTTP_HEAD_MAX, MSG_DONTWAIT | MSG_TRUNC * conn->tcp);
		if (n > 0 || (n < 0 && errno == EINTR))
			continue;
		if (n < 0 && errno == EAGAIN) {
			cst_http_peer_arm(conn, EPOLLIN);
			return;
		}
		break;
	}
	cst_http_peer_free(conn);
}

/* Is the head perhaps complete? Spares parsing the same bytes again and again for one that comes byte by byte. */
static bool may_be_complete(const struct cst_http_peer *conn, size_t fresh)
{
	size_t len = conn->end - conn->start;
	if (len < 1024 || len >= CST_HTTP_HEAD_MAX)
		return true;
	size_t from = len - fresh > 3 ? len - fresh - 3 : 0;
	const char *data = conn->in + conn->start;
	return memmem(data + from, len - from, "\n\r\n", 3) || memmem(data + from, len - from, "\n\n", 2);
}

/* The head (or the handshake) is complete: its clock stops. */
static void stop_head_clock(struct cst_http_peer *conn)
{
	if (!conn->head_clock)
		return;
	conn->head_clock = false;
	pthread_mutex_lock(&conn->server->lock);
	untime_locked(conn);
	pthread_mutex_unlock(&conn->server->lock);
}

/* What no request begins with, such as a TLS handshake on a plain port: no use waiting for its end. */
static bool is_garbage(const struct cst_http_peer *conn)
{
	unsigned char c = (unsigned char)conn->in[conn->start];
	return (c < ' ' && c != '\r' && c != '\n') || c >= 0x7f;
}

/* Answers the requests that are complete in the buffer. GOES_ON: there were some, and nothing is left over. */
static enum cst_http_outcome answer_buffered(struct cst_http_worker *worker, struct cst_http_peer *conn, size_t fresh)
{
	while (conn->start != conn->end && may_be_complete(conn, fresh)) {
		struct cst_http_head head;
		const char *why = "this is not HTTP";
		struct cst_slice data = {conn->in + conn->start, conn->end - conn->start};
		ssize_t len = is_garbage(conn) ? -EBADMSG : cst_http_parse_request(data, &head, &why);
		if (len == 0)
			break;
		if (len < 0) {
			cst_http_exchange_refuse(worker, conn, len == -E2BIG ? 431 : 400, why);
			return CST_HTTP_CLOSE_GENTLY;
		}
		stop_head_clock(conn);
		conn->phase = CST_HTTP_BUSY;
		__atomic_add_fetch(&conn->server->requests, 1, __ATOMIC_RELAXED);
		enum cst_http_outcome outcome = cst_http_exchange_run(worker, conn, &head, (size_t)len);
		if (outcome != CST_HTTP_GOES_ON)
			return outcome;
		conn->phase = CST_HTTP_HEAD;
		fresh = conn->end - conn->start;
	}
	return conn->start == conn->end ? CST_HTTP_GOES_ON : CST_HTTP_WAITS;
}

/* After an answer: is it worth waiting here for the next request instead of going through the epoll set? Only while
 * few workers have something to do; a crowd of connections is served better by handing them round. */
static bool stays(struct cst_http_worker *worker, struct cst_http_peer *conn)
{
	struct cst_http_server *server = worker->server;
	if (cst_http_server_stopping(server) || __atomic_load_n(&server->busy, __ATOMIC_RELAXED) > 8 * server->cores)
		return false;
	return cst_http_peer_wait(conn, POLLIN, CONN_LINGER_NS) == 1;
}

static enum cst_http_outcome read_requests(struct cst_http_worker *worker, struct cst_http_peer *conn)
{
	for (;;) {
		cst_http_peer_room(conn, IN_ROOM);
		ssize_t n = cst_http_peer_try_recv(conn, conn->in + conn->end, conn->cap - conn->end);
		if (n == -EAGAIN)
			return CST_HTTP_WAITS;
		if (n <= 0)
			return n == 0 && conn->start != conn->end ? CST_HTTP_CLOSE_GENTLY : CST_HTTP_CLOSE;
		conn->end += (size_t)n;
		enum cst_http_outcome outcome = answer_buffered(worker, conn, (size_t)n);
		if (outcome == CST_HTTP_CLOSE || outcome == CST_HTTP_CLOSE_GENTLY)
			return outcome;
		if (cst_http_server_stopping(worker->server) && outcome == CST_HTTP_GOES_ON)
			return CST_HTTP_CLOSE;
		if (outcome == CST_HTTP_GOES_ON && !stays(worker, conn))
			return CST_HTTP_WAITS;
	}
}

static void finish(struct cst_http_worker *worker, struct cst_http_peer *conn, enum cst_http_outcome outcome,
		   bool expired)
{
	if (expired && outcome != CST_HTTP_WAITS && conn->phase == CST_HTTP_HEAD && conn->start != conn->end) {
		cst_http_exchange_refuse(worker, conn, 408, "the request did not come to its end in time");
		outcome = CST_HTTP_CLOSE;
	}
	if (outcome == CST_HTTP_WAITS)
		cst_http_peer_arm(conn, EPOLLIN);
	else if (outcome == CST_HTTP_CLOSE_GENTLY)
		close_gently(conn);
	else
		cst_http_peer_free(conn);
}

static void serve(struct cst_http_worker *worker, struct cst_http_peer *conn)
{
	CST_CHECK(conn, CST_HTTP_CONN_MAGIC);
	struct cst_http_server *server = conn->server;
	pthread_mutex_lock(&server->lock);
	bool expired = conn->expired;
	if (conn->timed == CST_HTTP_TIMED_IDLE)
		untime_locked(conn);
	pthread_mutex_unlock(&server->lock);
	if (conn->phase == CST_HTTP_DRAIN) {
		drain(worker, conn, expired);
		return;
	}
	if (conn->phase == CST_HTTP_HANDSHAKE) {
		enum cst_http_step step = expired ? CST_HTTP_STEP_FAILED : cst_http_peer_handshake(conn);
		if (step == CST_HTTP_STEP_WANT_READ || step == CST_HTTP_STEP_WANT_WRITE) {
			cst_http_peer_arm(conn, step == CST_HTTP_STEP_WANT_READ ? EPOLLIN : EPOLLOUT);
			return;
		}
		if (step == CST_HTTP_STEP_FAILED) {
			cst_http_peer_free(conn);
			return;
		}
		conn->phase = CST_HTTP_HEAD;
		stop_head_clock(conn);
	}
	enum cst_http_outcome outcome = read_requests(worker, conn);
	finish(worker, conn, outcome, expired);
}

/* ---- workers ---- */

static int start_worker_locked(struct cst_http_server *server)
{
	struct cst_http_worker *worker = CST_NEW(struct cst_http_worker);
	worker->server = server;
	worker->head = cst_xmalloc(CST_HTTP_HEAD_MAX);
	worker->date_s = -1;
	/* Counted before it runs, so that a burst of events starts no more threads than it has to. */
	__atomic_add_fetch(&server->waiting, 1, __ATOMIC_RELAXED);
	int rc = cst_thread_start(&worker->thread, server->name, WORKER_STACK, worker_main, worker);
	if (rc < 0) {
		__atomic_sub_fetch(&server->waiting, 1, __ATOMIC_RELAXED);
		free(worker->head);
		free(worker);
		return rc;
	}
	server->workers++;
	return 0;
}

/* Somebody must wait in the epoll set while this worker is with its connection. */
static void leave_a_waiter(struct cst_http_server *server)
{
	static struct cst_log_limit limit;
	pthread_mutex_lock(&server->lock);
	int rc = 0;
	if (!cst_http_server_stopping(server) && __atomic_load_n(&server->waiting, __ATOMIC_RELAXED) == 0 &&
	    server->workers < server->config.max_workers)
		rc = start_worker_locked(server);
	if (rc < 0 && cst_log_allowed(&limit, 10 * CST_NS_PER_S, NULL))
		cst_log_warn("%s: can't start a thread: %s", server->name, strerror(-rc));
	pthread_mutex_unlock(&server->lock);
}

/* True when the worker, idle for long, is to end: the last waiting one stays. */
static bool is_spare(struct cst_http_server *server)
{
	unsigned waiting = __atomic_load_n(&server->waiting, __ATOMIC_RELAXED);
	while (waiting > 1) {
		if (__atomic_compare_exchange_n(&server->waiting, &waiting, waiting - 1, false, __ATOMIC_RELAXED,
						__ATOMIC_RELAXED))
			return true;
	}
	return false;
}

static void handle_event(struct cst_http_worker *worker, void *ptr)
{
	struct cst_http_server *server = worker->server;
	__atomic_add_fetch(&server->busy, 1, __ATOMIC_RELAXED);
	struct cst_http_peer *conn = ptr;
	if (*(enum cst_http_event *)ptr == CST_HTTP_EVENT_LISTENER)
		conn = cst_http_listener_accept(server, ptr);
	if (conn)
		serve(worker, conn);
	__atomic_sub_fetch(&server->busy, 1, __ATOMIC_RELAXED);
}

static void *worker_main(void *arg)
{
	struct cst_http_worker *worker = arg;
	struct cst_http_server *server = worker->server;
	for (;;) { /* counted as waiting here */
		struct epoll_event ev = {0};
		int n = cst_http_server_stopping(server) ? 0 : epoll_wait(server->epoll_fd, &ev, 1, WORKER_LINGER_MS);
		if (n == 0 && !cst_http_server_stopping(server) && is_spare(server))
			break;
		if (n <= 0 && !cst_http_server_stopping(server))
			continue;
		unsigned left = __atomic_sub_fetch(&server->waiting, 1, __ATOMIC_RELAXED);
		if (cst_http_server_stopping(server) || !ev.data.ptr)
			break;
		if (left == 0)
			leave_a_waiter(server);
		handle_event(worker, ev.data.ptr);
		__atomic_add_fetch(&server->waiting, 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_lock(&server->lock);
	server->workers--;
	SLIST_INSERT_HEAD(&server->ended, worker, ended_link);
	pthread_cond_signal(&server->keeper_wake);
	pthread_cond_signal(&server->worker_ended);
	pthread_mutex_unlock(&server->lock);
	return NULL;
}

/* ---- start and stop ---- */

static void set_default(int64_t *value, int64_t fallback)
{
	if (*value == 0)
		*value = fallback;
}

struct cst_http_server *cst_http_server_new(const struct cst_http_server_config *config, struct cst_error *err)
{
	struct cst_http_server *server = CST_NEW(struct cst_http_server);
	server->magic = CST_HTTP_SERVER_MAGIC;
	server->config = *config;
	snprintf(server->name, sizeof(server->name), "%s", config->name ? config->name : "cistern");
	server->config.name = server->name;
	if (!server->config.max_connections)
		server->config.max_connections = 10000;
	if (!server->config.max_workers)
		server->config.max_workers = 512;
	set_default(&server->config.idle_timeout, 75 * CST_NS_PER_S);
	set_default(&server->config.head_timeout, 15 * CST_NS_PER_S);
	set_default(&server->config.io_timeout, 60 * CST_NS_PER_S);
	server->total_pace.rate = config->total_bandwidth;
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	server->cores = cores > 0 ? (unsigned)cores : 1;
	STAILQ_INIT(&server->listeners);
	LIST_INIT(&server->all);
	SLIST_INIT(&server->ended);
	for (int i = 0; i < CST_HTTP_TIMED_COUNT; i++)
		TAILQ_INIT(&server->timed[i]);
	pthread_mutex_init(&server->lock, NULL);
	pthread_mutex_init(&server->pace_lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&server->keeper_wake, &attr);
	pthread_cond_init(&server->worker_ended, &attr);
	pthread_condattr_destroy(&attr);
	server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	server->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct epoll_event ev = {.events = EPOLLIN};
	if (server->epoll_fd < 0 || server->stop_fd < 0 ||
	    epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, server->stop_fd, &ev) != 0) {
		cst_error_set(err, errno, "can't make the HTTP server");
		cst_error_why(err, "%s", strerror(errno));
		cst_http_server_stop(server, 0);
		return NULL;
	}
	return server;
}

static int start_threads(struct cst_http_server *server)
{
	pthread_mutex_lock(&server->lock);
	int rc = start_worker_locked(server);
	if (rc == 0) {
		server->keeper_next = INT64_MAX;
		rc = cst_thread_start(&server->keeper, server->name, WORKER_STACK, keeper_main, server);
		server->started = rc == 0;
	}
	pthread_mutex_unlock(&server->lock);
	return rc;
}

int cst_http_server_start(struct cst_http_server *server, struct cst_error *err)
{
	CST_CHECK(server, CST_HTTP_SERVER_MAGIC);
	CST_ASSERT(!server->started);
	int rc = start_threads(server);
	struct cst_http_listener *listener;
	STAILQ_FOREACH (listener, &server->listeners, link) {
		if (rc == 0)
			rc = cst_http_listener_arm(server, listener, true);
	}
	if (rc < 0) {
		cst_error_set(err, -rc, "can't start the HTTP server");
		cst_error_why(err, "%s", strerror(-rc));
	}
	return rc;
}

/* Waits until no worker is left or the time comes. */
static bool workers_ended_locked(struct cst_http_server *server, int64_t until)
{
	while (server->workers) {
		if (until == INT64_MAX) {
			pthread_cond_wait(&server->worker_ended, &server->lock);
			continue;
		}
		struct timespec ts = {until / CST_NS_PER_S, until % CST_NS_PER_S};
		if (pthread_cond_timedwait(&server->worker_ended, &server->lock, &ts) == ETIMEDOUT)
			break;
	}
	return server->workers == 0;
}

static void stop_threads(struct cst_http_server *server, int64_t grace_ns)
{
	struct cst_http_listener *listener;
	struct cst_http_peer *conn;
	int64_t until = cst_now() + grace_ns;
	__atomic_store_n(&server->stopping, true, __ATOMIC_RELEASE);
	/* Closed only when no worker can be in accept() any more. */
	STAILQ_FOREACH (listener, &server->listeners, link)
		shutdown(listener->fd, SHUT_RDWR);
	eventfd_write(server->stop_fd, 1);
	pthread_mutex_lock(&server->lock);
	if (!workers_ended_locked(server, until)) {
		LIST_FOREACH (conn, &server->all, all_link)
			shutdown(conn->fd, SHUT_RDWR);
		workers_ended_locked(server, INT64_MAX);
	}
	server->keeper_stop = true;
	pthread_cond_signal(&server->keeper_wake);
	pthread_mutex_unlock(&server->lock);
	if (server->started)
		pthread_join(server->keeper, NULL);
	pthread_mutex_lock(&server->lock);
	join_ended(server);
	pthread_mutex_unlock(&server->lock);
}

void cst_http_server_stop(struct cst_http_server *server, int64_t grace_ns)
{
	if (!server)
		return;
	CST_CHECK(server, CST_HTTP_SERVER_MAGIC);
	struct cst_http_listener *listener;
	struct cst_http_peer *conn;
	stop_threads(server, grace_ns);
	while ((conn = LIST_FIRST(&server->all)))
		cst_http_peer_free(conn);
	while ((listener = STAILQ_FIRST(&server->listeners))) {
		STAILQ_REMOVE_HEAD(&server->listeners, link);
		cst_http_listener_free(listener);
	}
	cst_close_fd(&server->epoll_fd);
	cst_close_fd(&server->stop_fd);
	pthread_mutex_destroy(&server->lock);
	pthread_mutex_destroy(&server->pace_lock);
	pthread_cond_destroy(&server->keeper_wake);
	pthread_cond_destroy(&server->worker_ended);
	server->magic = 0;
	free(server);
}

void cst_http_server_stats(const struct cst_http_server *server, struct cst_http_server_stats *stats)
{
	CST_CHECK(server, CST_HTTP_SERVER_MAGIC);
	struct cst_http_server *s = (struct cst_http_server *)server;
	pthread_mutex_lock(&s->lock);
	stats->workers = s->workers;
	pthread_mutex_unlock(&s->lock);
	stats->connections = __atomic_load_n(&s->connections, __ATOMIC_RELAXED);
	stats->accepted = __atomic_load_n(&s->accepted, __ATOMIC_RELAXED);
	stats->refused = __atomic_load_n(&s->refused, __ATOMIC_RELAXED);
	stats->requests = __atomic_load_n(&s->requests, __ATOMIC_RELAXED);
}
