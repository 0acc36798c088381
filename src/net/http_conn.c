#include "net/http_client_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#define CST_LOG_AREA "net"
#include "base/log.h"

#define DEFAULT_FIRST_BYTE (30 * CST_NS_PER_S)
#define DEFAULT_STALL (30 * CST_NS_PER_S)

static void on_event(struct cst_watch *watch, uint32_t events);
static void on_timer(struct cst_timer *timer);

/* ---- life ---- */

void cst_http_conn_detach(struct cst_http_conn *conn)
{
	cst_timer_cancel(conn->side->loop, &conn->timer);
	cst_loop_unwatch(conn->side->loop, &conn->watch);
}

void cst_http_conn_close_socket(struct cst_http_conn *conn)
{
	cst_loop_unwatch(conn->side->loop, &conn->watch);
	if (conn->ssl) {
		/* Tells the peer, if it can be told at once; also keeps OpenSSL from condemning the session. */
		if (SSL_is_init_finished(conn->ssl))
			SSL_shutdown(conn->ssl);
		SSL_set_shutdown(conn->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
		SSL_free(cst_steal(conn->ssl));
		ERR_clear_error();
	}
	if (conn->watch.fd >= 0)
		close(cst_steal_fd(&conn->watch.fd));
}

void cst_http_conn_free(struct cst_http_conn *conn)
{
	struct cst_http_client *client = conn->client;

	cst_addresses_unref(conn->addresses);
	if (conn->out.data)
		explicit_bzero(conn->out.data, conn->out.cap); /* authorizations */
	cst_buf_fini(&conn->out);
	free(conn->in);
	conn->magic = 0;
	free(conn);
	cst_http_client_live(client, -1);
}

void cst_http_conn_close(struct cst_http_conn *conn)
{
	CST_CHECK(conn, CST_HTTP_CONN_MAGIC);
	CST_ASSERT(!conn->call);
	cst_timer_cancel(conn->side->loop, &conn->timer);
	cst_http_conn_close_socket(conn);
	conn->state = CST_CONN_ZOMBIE;
	if (!conn->pending)
		cst_http_conn_free(conn);
}

void cst_http_conn_fail(struct cst_http_conn *conn, int rc)
{
	struct cst_http_call *call = cst_steal(conn->call);
	struct cst_http_endpoint *ep = conn->endpoint;

	call->conn = NULL;
	cst_http_conn_close(conn);
	cst_http_slot_free(ep);
	cst_http_call_done(call, rc);
}

void cst_http_conn_fail_why(struct cst_http_conn *conn, int rc, const char *why)
{
	cst_http_call_why(conn->call, rc, "%s", why);
	cst_http_conn_fail(conn, rc);
}

/* ---- time ---- */

static int64_t sooner(int64_t a, int64_t b)
{
	return b && b < a ? b : a;
}

static int64_t due_at(const struct cst_http_conn *conn)
{
	const struct cst_http_request *r;
	int64_t at = INT64_MAX;

	/* Those used last are used first: who has been idle for a while was not needed beside the others. */
	if (conn->state == CST_CONN_IDLE)
		return conn->idle_since + (conn->kept ? conn->client->idle_timeout : conn->client->spare_timeout);
	if (!conn->call)
		return at;
	r = &conn->call->request;
	at = sooner(at, conn->alarm_at);
	switch (conn->state) {
	case CST_CONN_CONNECTING:
		at = sooner(at, conn->attempt_by);
		__attribute__((fallthrough));
	case CST_CONN_RESOLVING:
	case CST_CONN_TUNNELLING:
	case CST_CONN_HANDSHAKE:
		return sooner(sooner(at, conn->connect_by), r->deadline);
	case CST_CONN_ACTIVE:
		if (!conn->out_done || conn->in_body)
			at = sooner(at, conn->progress_at + (r->stall_timeout ? r->stall_timeout : DEFAULT_STALL));
		else
			at = sooner(at, conn->sent_at +
						(r->first_byte_timeout ? r->first_byte_timeout : DEFAULT_FIRST_BYTE));
		return sooner(at, r->deadline);
	case CST_CONN_IDLE:
	case CST_CONN_PARKED:
	case CST_CONN_ZOMBIE:
		break;
	}
	return at;
}

/* The timer is only ever moved to an earlier moment here; it looks for itself whether it fired too soon. So an exchange
 * on a connection that is reused costs no work on the heap of timers. */
void cst_http_conn_keep_time(struct cst_http_conn *conn)
{
	int64_t at = due_at(conn);

	if (at != INT64_MAX && (!conn->timer.private_index || at < conn->timer.at)) {
		conn->timer.fn = on_timer;
		cst_timer_arm(conn->side->loop, &conn->timer, at);
	}
}

bool cst_http_conn_output_moves(struct cst_http_conn *conn)
{
	int before = conn->out_queued, now = 0;

	if (ioctl(conn->watch.fd, TIOCOUTQ, &now))
		now = 0;
	conn->out_queued = now;
	return now < before;
}

/* Nobody can answer what has not arrived: over a slow line the kernel takes its time over the megabytes that it took from us. */
static bool still_sends(struct cst_http_conn *conn, int64_t now)
{
	const struct cst_http_request *r = &conn->call->request;

	if (conn->state != CST_CONN_ACTIVE || !conn->out_done || conn->out_failed || conn->in_body ||
	    (r->deadline && now >= r->deadline) || !cst_http_conn_output_moves(conn))
		return false;
	conn->sent_at = now;
	cst_http_conn_keep_time(conn);
	return true;
}

static const char *what_timed_out(const struct cst_http_conn *conn)
{
	const struct cst_http_request *r = &conn->call->request;

	switch (conn->state) {
	case CST_CONN_RESOLVING:
		return "the name was not resolved in time";
	case CST_CONN_CONNECTING:
		return "no connection in time";
	case CST_CONN_TUNNELLING:
		return "the proxy did not answer in time";
	case CST_CONN_HANDSHAKE:
		return "the TLS handshake did not end in time";
	default:
		if (r->deadline && cst_now() >= r->deadline)
			return "the deadline passed";
		if (!conn->out_done)
			return "the server takes no more of the request";
		return conn->in_body ? "the server sends no more of the body" : "the server does not answer";
	}
}

static void on_timer(struct cst_timer *timer)
{
	struct cst_http_conn *conn = cst_container_of(timer, struct cst_http_conn, timer);
	struct cst_http_endpoint *ep = conn->endpoint;
	int64_t now = cst_now();

	CST_CHECK(conn, CST_HTTP_CONN_MAGIC);
	if (conn->call && conn->alarm_at && now >= conn->alarm_at && !conn->alarm_rang) {
		/* Timers run before events: the answer may be there and we late. Once more, after a look at the socket. */
		conn->alarm_rang = true;
		cst_timer_arm(conn->side->loop, timer, now + 1);
		return;
	}
	if (conn->call && conn->alarm_at && now >= conn->alarm_at) {
		int64_t next = conn->call->request.on_alarm(conn->call->request.arg);

		conn->alarm_at = next > 0 ? now + next : 0;
		conn->alarm_rang = false;
	}
	if (now < due_at(conn)) {
		cst_http_conn_keep_time(conn);
		return;
	}
	if (conn->state == CST_CONN_IDLE) {
		if (!conn->kept && !cst_http_conn_is_spare(conn)) {
			conn->kept = true;
			cst_http_conn_keep_time(conn);
		} else if (cst_http_conn_leave_pool(conn)) {
			cst_http_count(&conn->side->counters.spare_closed, !conn->kept);
			cst_http_conn_close(conn);
			cst_http_slot_free(ep);
		}
		return;
	}
	if (conn->state == CST_CONN_CONNECTING && now < conn->connect_by &&
	    (!conn->call->request.deadline || now < conn->call->request.deadline)) {
		cst_http_call_why(conn->call, -ETIMEDOUT, "no connection in time");
		cst_resolver_mark_bad(conn->client->resolver, &conn->peer);
		cst_http_conn_close_socket(conn);
		cst_http_connect_next(conn);
		return;
	}
	if (still_sends(conn, now))
		return;
	if (conn->state == CST_CONN_CONNECTING)
		cst_resolver_mark_bad(conn->client->resolver, &conn->peer);
	cst_http_conn_fail_why(conn, -ETIMEDOUT, what_timed_out(conn));
}

int cst_http_conn_set_events(struct cst_http_conn *conn, uint32_t events)
{
	if (conn->watch.private_id && conn->watch.events == events)
		return 0;
	conn->watch.events = events;
	conn->watch.fn = on_event;
	return cst_loop_watch(conn->side->loop, &conn->watch);
}

int cst_http_conn_rest(struct cst_http_conn *conn)
{
	enum cst_http_conn_state before = conn->state;
	int rc;

	conn->idle_since = cst_now();
	conn->kept = false;
	rc = cst_http_conn_set_events(conn, EPOLLIN | EPOLLRDHUP);
	if (rc == 0) {
		conn->state = CST_CONN_IDLE;
		cst_http_conn_keep_time(conn);
		conn->state = before;
	}
	return rc;
}

/* ---- bytes ---- */

void cst_http_conn_grow_input(struct cst_http_conn *conn, size_t room)
{
	conn->in = cst_xrealloc(conn->in, room);
	conn->in_room = room;
}

/* > 0 bytes, 0 at the end, -EAGAIN, -errno. *drained: asking again now would give -EAGAIN. */
ssize_t cst_http_conn_receive(struct cst_http_conn *conn, struct iovec *iov, int count, bool *drained)
{
	ssize_t n;
	size_t asked = 0;
	int code;

	if (!conn->ssl) {
		for (int i = 0; i < count; i++)
			asked += iov[i].iov_len;
		n = count == 1 ? recv(conn->watch.fd, iov->iov_base, iov->iov_len, 0)
			       : readv(conn->watch.fd, iov, count);
		*drained = n < (ssize_t)asked;
		if (n < 0)
			return errno == EINTR ? -EAGAIN : -errno;
	} else {
		ERR_clear_error();
		errno = 0;
		*drained = false;
		n = SSL_read(conn->ssl, iov->iov_base, (int)cst_min(iov->iov_len, (size_t)INT32_MAX));
		if (n <= 0) {
			code = SSL_get_error(conn->ssl, (int)n);
			if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE) {
				*drained = true;
				return -EAGAIN;
			}
			if (code == SSL_ERROR_ZERO_RETURN)
				return 0;
			conn->unclean_eof = true;
			if (code == SSL_ERROR_SYSCALL && errno)
				return -errno;
			return ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING ? 0 : -EPROTO;
		}
	}
	cst_http_count(&conn->side->counters.bytes_in, n);
	if (n > 0)
		conn->progress_at = cst_now();
	return n;
}

ssize_t cst_http_conn_send(struct cst_http_conn *conn, struct iovec *iov, int count)
{
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};
	ssize_t n;
	int code;

	if (!conn->ssl) {
		n = sendmsg(conn->watch.fd, &message, MSG_NOSIGNAL);
		if (n < 0)
			return errno == EINTR ? -EAGAIN : -errno;
	} else {
		ERR_clear_error();
		errno = 0;
		n = SSL_write(conn->ssl, iov->iov_base, (int)cst_min(iov->iov_len, (size_t)INT32_MAX));
		if (n <= 0) {
			code = SSL_get_error(conn->ssl, (int)n);
			if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE)
				return -EAGAIN;
			return code == SSL_ERROR_SYSCALL && errno ? -errno : -EPIPE;
		}
	}
	cst_http_count(&conn->side->counters.bytes_out, n);
	return n;
}

/* The event that would tell may not have been looked at yet, and none tells of what OpenSSL has read ahead. */
bool cst_http_conn_quiet(struct cst_http_conn *conn)
{
	char byte;
	int n;

	if (!conn->ssl)
		return recv(conn->watch.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
	ERR_clear_error();
	n = SSL_peek(conn->ssl, &byte, 1); /* takes tickets in on its way */
	return n <= 0 && SSL_get_error(conn->ssl, n) == SSL_ERROR_WANT_READ;
}

/* ---- events ---- */

/* An idle connection became readable: closed by the server, or (TLS) a session ticket, or bytes nobody asked for. */
static void idle_event(struct cst_http_conn *conn, uint32_t events)
{
	struct cst_http_endpoint *ep = conn->endpoint;

	if (conn->ssl && !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) {
		struct iovec iov = {conn->in, conn->in_room};
		bool drained;

		if (cst_http_conn_receive(conn, &iov, 1, &drained) == -EAGAIN)
			return;
	}
	if (!cst_http_conn_leave_pool(conn)) {
		conn->dead = true;
		cst_loop_unwatch(conn->side->loop, &conn->watch);
		return;
	}
	cst_http_conn_close(conn);
	cst_http_slot_free(ep);
}

static void on_event(struct cst_watch *watch, uint32_t events)
{
	struct cst_http_conn *conn = cst_container_of(watch, struct cst_http_conn, watch);

	CST_CHECK(conn, CST_HTTP_CONN_MAGIC);
	switch (conn->state) {
	case CST_CONN_CONNECTING:
		cst_http_connect_event(conn);
		break;
	case CST_CONN_TUNNELLING:
		cst_http_connect_tunnel(conn);
		break;
	case CST_CONN_HANDSHAKE:
		cst_http_connect_handshake(conn);
		break;
	case CST_CONN_ACTIVE:
		/* Under TLS the write may have waited for something to read. */
		if (!conn->out_done && (conn->ssl || (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) &&
		    !cst_http_exchange_send(conn))
			break;
		if (conn->pending)
			break; /* on_more() is about to read, in its turn */
		if (events & ~(uint32_t)EPOLLOUT)
			cst_http_exchange_receive(conn);
		else
			cst_http_conn_keep_time(conn);
		break;
	case CST_CONN_IDLE:
		idle_event(conn, events);
		break;
	case CST_CONN_PARKED:
		conn->dead = true;
		cst_loop_unwatch(conn->side->loop, watch);
		break;
	case CST_CONN_RESOLVING:
	case CST_CONN_ZOMBIE:
		break;
	}
}
