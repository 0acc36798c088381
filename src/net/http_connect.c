#include "net/http_client_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

static void peer_text(const struct cst_http_conn *conn, char out[INET6_ADDRSTRLEN])
{
	const void *addr = &((const struct sockaddr_in *)(const void *)&conn->peer)->sin_addr;

	if (conn->peer.ss_family == AF_INET6)
		addr = &((const struct sockaddr_in6 *)(const void *)&conn->peer)->sin6_addr;
	if (!inet_ntop(conn->peer.ss_family, addr, out, INET6_ADDRSTRLEN))
		snprintf(out, INET6_ADDRSTRLEN, "?");
}

static void set_socket_options(int fd, const struct cst_http_client *client)
{
	int one = 1, idle = 30, interval = 10, probes = 3;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	/* Before connect(), so that the window's scale fits. Forcing goes beyond net.core.rmem_max, and is for root alone. Where that is
	 * small (212 KB mostly), a buffer of that size would throttle each connection: then the kernel sizes it (net.ipv4.tcp_rmem),
	 * and only the window is bounded. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &client->receive_buffer, sizeof(int)) == 0)
		return;
	if (client->receive_buffer_max >= client->receive_buffer)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &client->receive_buffer, sizeof(int));
	else
		setsockopt(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, &client->receive_buffer, sizeof(int));
}

static void connect_failed(struct cst_http_conn *conn, int rc)
{
	char peer[INET6_ADDRSTRLEN];

	peer_text(conn, peer);
	cst_http_call_why(conn->call, rc, "%s%s: %s", conn->endpoint->proxied ? "proxy " : "", peer,
			  strerrordesc_np(-rc));
	cst_resolver_mark_bad(conn->client->resolver, &conn->peer);
	cst_http_conn_close_socket(conn);
}

static void build_tunnel_head(struct cst_http_conn *conn)
{
	const struct cst_http_endpoint *ep = conn->endpoint;
	const char *host = ep->origin.host;
	const char *open = strchr(host, ':') ? "[" : "", *close = strchr(host, ':') ? "]" : "";

	cst_buf_clear(&conn->out);
	cst_buf_printf(&conn->out, "CONNECT %s%s%s:%u HTTP/1.1\r\nHost: %s%s%s:%u\r\n%s", open, host, close,
		       ep->origin.port, open, host, close, ep->origin.port, ep->common_lines);
	if (ep->proxy.authorization[0])
		cst_buf_printf(&conn->out, "Proxy-Authorization: %s\r\n", ep->proxy.authorization);
	cst_buf_add(&conn->out, "\r\n", 2);
	conn->out_pos = conn->in_pos = conn->in_len = 0;
	if (!conn->in)
		cst_http_conn_grow_input(conn, CST_HTTP_IN_ROOM);
}

static void start_tls(struct cst_http_conn *conn)
{
	conn->state = CST_CONN_HANDSHAKE;
	conn->ssl = cst_tls_session_client(conn->client->tls, conn->watch.fd, conn->endpoint->origin.host);
	if (!conn->ssl) {
		cst_http_call_why(conn->call, -EPROTO, "can't begin TLS");
		cst_tls_error(&conn->call->err, NULL);
		cst_http_conn_fail(conn, -EPROTO);
		return;
	}
	cst_http_connect_handshake(conn);
}

static void tunnel_refused(struct cst_http_conn *conn, int status)
{
	cst_http_call_why(conn->call, -ECONNREFUSED, "the proxy %s:%u answered %d to CONNECT",
			  conn->endpoint->proxy.host, conn->endpoint->proxy.port, status);
	if (status == 407)
		cst_error_hint(&conn->call->err,
			       "give the proxy's user and password: https_proxy=http://USER:PASSWORD@HOST:PORT");
	else
		cst_error_hint(&conn->call->err, "ask who runs the proxy, or name the host in no_proxy");
	cst_http_conn_fail(conn, -ECONNREFUSED);
}

void cst_http_connect_tunnel(struct cst_http_conn *conn)
{
	struct cst_http_head head;
	struct iovec iov;
	const char *why;
	bool drained;
	ssize_t n;

	if (conn->out_pos < conn->out.len) {
		iov = (struct iovec){conn->out.data + conn->out_pos, conn->out.len - conn->out_pos};
		n = cst_http_conn_send(conn, &iov, 1);
		if (n < 0 && n != -EAGAIN) {
			cst_http_conn_fail_why(conn, (int)n, "the proxy closed the connection");
			return;
		}
		conn->out_pos += n > 0 ? n : 0;
		n = cst_http_conn_set_events(conn, EPOLLIN | (conn->out_pos < conn->out.len ? EPOLLOUT : 0));
		if (n)
			cst_http_conn_fail_why(conn, (int)n, "can't watch a connection");
		return;
	}
	iov = (struct iovec){conn->in + conn->in_len, conn->in_room - conn->in_len};
	n = cst_http_conn_receive(conn, &iov, 1, &drained);
	if (n == -EAGAIN)
		return;
	if (n <= 0) {
		cst_http_conn_fail_why(conn, n ? (int)n : -ECONNRESET, "the proxy closed the connection");
		return;
	}
	conn->in_len += n;
	n = cst_http_parse_response((struct cst_slice){conn->in, conn->in_len}, &head, &why);
	if (n < 0 || (n == 0 && conn->in_len == conn->in_room))
		cst_http_conn_fail_why(conn, -EBADMSG, "the proxy's answer is not HTTP");
	else if (n > 0 && (head.status < 200 || head.status > 299))
		tunnel_refused(conn, head.status);
	else if (n > 0 && (size_t)n != conn->in_len)
		cst_http_conn_fail_why(conn, -EBADMSG, "the proxy sent more than an answer");
	else if (n > 0)
		start_tls(conn);
}

static void connected(struct cst_http_conn *conn)
{
	cst_http_count(&conn->side->counters.connects, 1);
	cst_error_clear(&conn->call->err);
	if (conn->endpoint->origin.tls && conn->endpoint->proxied) {
		conn->state = CST_CONN_TUNNELLING;
		build_tunnel_head(conn);
		cst_http_connect_tunnel(conn);
	} else if (conn->endpoint->origin.tls) {
		start_tls(conn);
	} else {
		cst_http_exchange_start(conn);
	}
}

/* Begins to connect. 1: connected at once; 0: under way; -errno. */
static int begin_connect(struct cst_http_conn *conn)
{
	int rc;

	conn->watch.fd = socket(conn->peer.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (conn->watch.fd < 0)
		return -errno;
	set_socket_options(conn->watch.fd, conn->client);
	if (connect(conn->watch.fd, (struct sockaddr *)&conn->peer, cst_address_len(&conn->peer)) == 0)
		return 1;
	if (errno != EINPROGRESS)
		return -errno;
	rc = cst_http_conn_set_events(conn, EPOLLOUT);
	cst_http_conn_keep_time(conn);
	return rc;
}

static bool same_for_all_addresses(int rc)
{
	return rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM || rc == -ENOBUFS;
}

void cst_http_connect_next(struct cst_http_conn *conn)
{
	const struct cst_http_endpoint *ep = conn->endpoint;
	uint16_t port = ep->proxied ? ep->proxy.port : ep->origin.port;

	conn->state = CST_CONN_CONNECTING;
	for (;;) {
		int at = cst_resolver_pick(conn->client->resolver, conn->addresses, port, conn->turn, conn->tried);
		int64_t now = cst_now();
		int rc;

		if (at < 0) { /* the last attempt's error stands */
			cst_http_conn_fail(conn, -conn->call->err.code);
			return;
		}
		conn->tried |= UINT64_C(1) << at;
		conn->peer = conn->addresses->list[at];
		cst_address_set_port(&conn->peer, port);
		/* An address that swallows packets must leave time for the others. */
		conn->attempt_by = conn->connect_by;
		if ((unsigned)__builtin_popcountll(conn->tried) < cst_min(conn->addresses->count, 64u))
			conn->attempt_by = now + (conn->connect_by - now) / 2;
		rc = begin_connect(conn);
		if (rc == 1)
			connected(conn);
		if (rc >= 0)
			return;
		if (same_for_all_addresses(rc)) {
			cst_http_conn_fail_why(conn, rc, strerrordesc_np(-rc));
			return;
		}
		connect_failed(conn, rc);
	}
}

void cst_http_connect_event(struct cst_http_conn *conn)
{
	socklen_t len = sizeof(int);
	int code = 0;

	if (getsockopt(conn->watch.fd, SOL_SOCKET, SO_ERROR, &code, &len))
		code = errno;
	if (code == 0) {
		connected(conn);
		return;
	}
	connect_failed(conn, -code);
	cst_http_connect_next(conn);
}

void cst_http_connect_handshake(struct cst_http_conn *conn)
{
	int rc, code;

	ERR_clear_error();
	errno = 0;
	rc = SSL_do_handshake(conn->ssl);
	if (rc == 1) {
		cst_http_count(&conn->side->counters.tls_handshakes, 1);
		cst_http_exchange_start(conn);
		return;
	}
	code = SSL_get_error(conn->ssl, rc);
	if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE) {
		rc = cst_http_conn_set_events(conn, code == SSL_ERROR_WANT_READ ? EPOLLIN : EPOLLOUT);
		if (rc)
			cst_http_conn_fail_why(conn, rc, "can't watch a connection");
		else
			cst_http_conn_keep_time(conn);
		return;
	}
	/* Who hangs up has not said that anything is wrong with TLS: others may be tried. */
	if (code == SSL_ERROR_SYSCALL ? !errno
				      : ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
		cst_http_conn_fail_why(conn, -ECONNRESET, "the server closed the connection within the TLS handshake");
		return;
	}
	rc = code == SSL_ERROR_SYSCALL && errno ? -errno : -EPROTO;
	cst_http_call_why(conn->call, rc, "the TLS handshake failed: %s", strerrordesc_np(-rc));
	if (rc == -EPROTO)
		cst_tls_error(&conn->call->err, conn->ssl);
	cst_http_conn_fail(conn, rc);
}

static void resolved(struct cst_http_conn *conn)
{
	struct cst_http_endpoint *ep = conn->endpoint;

	if (!conn->addresses) {
		cst_http_call_why(conn->call, conn->resolve_rc, "the name %s was not resolved: %s",
				  ep->proxied ? ep->proxy.host : ep->origin.host, conn->resolve_why);
		cst_error_hint(&conn->call->err, "check the spelling of the endpoint and this machine's name servers");
		cst_http_conn_fail(conn, conn->resolve_rc);
		return;
	}
	conn->turn = __atomic_fetch_add(&ep->turn, 1, __ATOMIC_RELAXED);
	cst_http_connect_next(conn);
}

static void on_resolved(struct cst_task *task)
{
	struct cst_http_conn *conn = cst_container_of(task, struct cst_http_conn, resolved_task);

	conn->pending = false;
	if (conn->state == CST_CONN_ZOMBIE)
		cst_http_conn_free(conn);
	else
		resolved(conn);
}

/* The resolver's answer: within cst_resolver_get() on our own thread, else on one of its own. */
static void on_answer(struct cst_resolver_query *query, struct cst_addresses *addresses, int rc, const char *why)
{
	struct cst_http_conn *conn = cst_container_of(query, struct cst_http_conn, query);

	conn->addresses = addresses;
	conn->resolve_rc = rc;
	conn->resolve_why = why;
	if (cst_loop_is_current(conn->side->loop))
		conn->answered = true;
	else
		cst_loop_post(conn->side->loop, &conn->resolved_task);
}

void cst_http_conn_open(struct cst_http_endpoint *ep, struct cst_http_call *call)
{
	struct cst_http_conn *conn = CST_NEW(struct cst_http_conn);
	const char *host = ep->proxied ? ep->proxy.host : ep->origin.host;

	conn->magic = CST_HTTP_CONN_MAGIC;
	conn->client = ep->client;
	conn->endpoint = ep;
	conn->side = call->side;
	conn->call = call;
	conn->watch.fd = -1;
	conn->state = CST_CONN_RESOLVING;
	conn->connect_by = cst_now() + ep->client->connect_timeout;
	if (call->request.alarm_after)
		conn->alarm_at = cst_now() + 4 * call->request.alarm_after;
	conn->resolved_task.fn = on_resolved;
	conn->query.fn = on_answer;
	cst_http_client_live(ep->client, 1);
	cst_timer_cancel(call->side->loop, &call->timer);
	call->conn = conn;
	call->state = CST_CALL_ACTIVE;
	cst_resolver_get(ep->client->resolver, ep->origin.connect_to[0] ? ep->origin.connect_to : host, &conn->query);
	if (conn->answered) {
		resolved(conn);
	} else {
		conn->pending = true;
		cst_http_conn_keep_time(conn);
	}
}
