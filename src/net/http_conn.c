#include "net/http_client_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#define CST_LOG_AREA "net"
#include "base/log.h"

#define IN_ROOM 16384		   /* a head and the few bytes of the body that come with it */
#define WAKEUP_BYTES (512 * 1024) /* so much of one body, then the loop's other connections have their turn */
#define PIECES 16
#define DEFAULT_FIRST_BYTE (30 * CST_NS_PER_S)
#define DEFAULT_STALL (30 * CST_NS_PER_S)

/* What a step of an exchange left behind. */
enum step {
	STEP_MORE, /* go on at once */
	STEP_WAIT, /* nothing more to read now */
	STEP_GONE, /* the call has ended, the connection may not exist any more */
};

static void on_event(struct cst_watch *watch, uint32_t events);
static void on_timer(struct cst_timer *timer);
static void connect_next(struct cst_http_conn *conn);
static void handshake(struct cst_http_conn *conn);

/* ---- life ---- */

void cst_http_conn_detach(struct cst_http_conn *conn)
{
	cst_timer_cancel(conn->side->loop, &conn->timer);
	cst_loop_unwatch(conn->side->loop, &conn->watch);
}

static void close_socket(struct cst_http_conn *conn)
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

static void conn_free(struct cst_http_conn *conn)
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
	close_socket(conn);
	conn->state = CST_CONN_ZOMBIE;
	if (!conn->pending)
		conn_free(conn);
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

static void fail(struct cst_http_conn *conn, int rc, const char *why)
{
	cst_http_call_why(conn->call, rc, "%s", why);
	cst_http_conn_fail(conn, rc);
}

static void peer_text(const struct cst_http_conn *conn, char out[INET6_ADDRSTRLEN])
{
	const void *addr = &((const struct sockaddr_in *)(const void *)&conn->peer)->sin_addr;

	if (conn->peer.ss_family == AF_INET6)
		addr = &((const struct sockaddr_in6 *)(const void *)&conn->peer)->sin6_addr;
	if (!inet_ntop(conn->peer.ss_family, addr, out, INET6_ADDRSTRLEN))
		snprintf(out, INET6_ADDRSTRLEN, "?");
}

/* ---- time ---- */

static int64_t sooner(int64_t a, int64_t b)
{
	return b && b < a ? b : a;
}

static int64_t due_at(const struct cst_http_conn *conn)
{
	const struct cst_http_request *r = conn->call ? &conn->call->request : NULL;
	int64_t at = INT64_MAX;

	switch (conn->state) {
	case CST_CONN_IDLE:
		return conn->idle_since + conn->client->idle_timeout;
	case CST_CONN_CONNECTING:
		at = conn->attempt_by;
		__attribute__((fallthrough));
	case CST_CONN_RESOLVING:
	case CST_CONN_TUNNELLING:
	case CST_CONN_HANDSHAKE:
		return sooner(sooner(at, conn->connect_by), r->deadline);
	case CST_CONN_ACTIVE:
		if (!conn->out_done || conn->in_body)
			at = conn->progress_at + (r->stall_timeout ? r->stall_timeout : DEFAULT_STALL);
		else
			at = conn->sent_at + (r->first_byte_timeout ? r->first_byte_timeout : DEFAULT_FIRST_BYTE);
		return sooner(at, r->deadline);
	case CST_CONN_PARKED:
	case CST_CONN_ZOMBIE:
		break;
	}
	return at;
}

/* The timer is only ever moved to an earlier moment here; it looks for itself whether it fired too soon. So an exchange
 * on a connection that is reused costs no work on the heap of timers. */
static void keep_time(struct cst_http_conn *conn)
{
	int64_t at = due_at(conn);

	if (at != INT64_MAX && (!conn->timer.private_index || at < conn->timer.at))
		cst_timer_arm(conn->side->loop, &conn->timer, at);
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
	if (now < due_at(conn)) {
		keep_time(conn);
		return;
	}
	if (conn->state == CST_CONN_IDLE) {
		if (cst_http_conn_leave_pool(conn)) {
			cst_http_conn_close(conn);
			cst_http_slot_free(ep);
		}
		return;
	}
	if (conn->state == CST_CONN_CONNECTING && now < conn->connect_by &&
	    (!conn->call->request.deadline || now < conn->call->request.deadline)) {
		cst_http_call_why(conn->call, -ETIMEDOUT, "no connection in time");
		cst_resolver_mark_bad(conn->client->resolver, &conn->peer);
		close_socket(conn);
		connect_next(conn);
		return;
	}
	if (conn->state == CST_CONN_CONNECTING)
		cst_resolver_mark_bad(conn->client->resolver, &conn->peer);
	fail(conn, -ETIMEDOUT, what_timed_out(conn));
}

static int set_events(struct cst_http_conn *conn, uint32_t events)
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
	rc = set_events(conn, EPOLLIN | EPOLLRDHUP);
	if (rc == 0) {
		conn->timer.fn = on_timer;
		conn->state = CST_CONN_IDLE;
		keep_time(conn);
		conn->state = before;
	}
	return rc;
}

/* ---- bytes ---- */

/* > 0 bytes, 0 at the end, -EAGAIN, -errno. *drained: asking again now would give -EAGAIN. */
static ssize_t receive_some(struct cst_http_conn *conn, struct iovec *iov, int count, bool *drained)
{
	ssize_t n;
	size_t asked = 0;
	int code;

	if (!conn->ssl) {
		for (int i = 0; i < count; i++)
			asked += iov[i].iov_len;
		n = count == 1 ? recv(conn->watch.fd, iov->iov_base, iov->iov_len, 0) : readv(conn->watch.fd, iov, count);
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

static ssize_t send_some(struct cst_http_conn *conn, struct iovec *iov, int count)
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

/* ---- sending a request ---- */

static size_t body_length(const struct cst_http_request *r)
{
	size_t len = 0;

	for (int i = 0; i < r->body_count; i++)
		len += r->body[i].iov_len;
	return len;
}

static void build_head(struct cst_http_conn *conn)
{
	const struct cst_http_request *r = &conn->call->request;
	const struct cst_http_endpoint *ep = conn->endpoint;
	struct cst_buf *out = &conn->out;

	cst_buf_clear(out);
	cst_buf_add_str(out, r->method);
	cst_buf_add_char(out, ' ');
	cst_buf_add_str(out, ep->prefix);
	cst_buf_add_str(out, r->target);
	cst_buf_add(out, " HTTP/1.1\r\n", 11);
	if (r->host_header) {
		cst_buf_add(out, "Host: ", 6);
		cst_buf_add_str(out, r->host_header);
		cst_buf_add(out, "\r\n", 2);
	} else {
		cst_buf_add_str(out, ep->host_line);
	}
	cst_buf_add_str(out, ep->common_lines);
	cst_buf_add_slice(out, r->headers);
	if (r->body_count > 0 || strcmp(r->method, "PUT") == 0 || strcmp(r->method, "POST") == 0)
		cst_buf_printf(out, "Content-Length: %zu\r\n", body_length(r));
	cst_buf_add(out, "\r\n", 2);
}

/* The unsent rest of head and body. */
static int collect_output(const struct cst_http_conn *conn, struct iovec iov[PIECES])
{
	const struct cst_http_request *r = &conn->call->request;
	size_t skip = conn->out_body_pos;
	int count = 0;

	if (conn->out_pos < conn->out.len)
		iov[count++] = (struct iovec){conn->out.data + conn->out_pos, conn->out.len - conn->out_pos};
	for (int i = conn->out_body; i < r->body_count && count < PIECES; i++, skip = 0)
		if (r->body[i].iov_len > skip)
			iov[count++] = (struct iovec){(char *)r->body[i].iov_base + skip, r->body[i].iov_len - skip};
	return count;
}

static void sent(struct cst_http_conn *conn, size_t n)
{
	const struct cst_http_request *r = &conn->call->request;
	size_t head = cst_min(n, conn->out.len - conn->out_pos);

	conn->out_pos += head;
	n -= head;
	while (n > 0) {
		size_t left = r->body[conn->out_body].iov_len - conn->out_body_pos;

		if (n < left) {
			conn->out_body_pos += n;
			return;
		}
		n -= left;
		conn->out_body++;
		conn->out_body_pos = 0;
	}
}

/* A connection of the pool that broke before the answer began: was it closed while idle? Then the same call may run again. */
static bool may_replace(const struct cst_http_conn *conn)
{
	const char *m = conn->call->request.method;

	return conn->reused && !conn->answer_began &&
	       (strcmp(m, "GET") == 0 || strcmp(m, "HEAD") == 0 || strcmp(m, "PUT") == 0 || strcmp(m, "DELETE") == 0);
}

static void replace(struct cst_http_conn *conn)
{
	struct cst_http_call *call = cst_steal(conn->call);
	struct cst_http_endpoint *ep = conn->endpoint;

	call->conn = NULL;
	cst_http_conn_close(conn);
	cst_http_conn_open(ep, call);
}

static void broke(struct cst_http_conn *conn, int rc)
{
	if (may_replace(conn)) {
		replace(conn);
		return;
	}
	if (rc == -EPROTO) {
		cst_http_call_why(conn->call, rc, "TLS failed");
		cst_tls_error(&conn->call->err, conn->ssl);
	} else if (rc == 0 || rc == -EPIPE) {
		rc = -ECONNRESET;
		cst_http_call_why(conn->call, rc, "the server closed the connection %s",
				  conn->answer_began ? "within the head of its answer" : "without an answer");
	} else {
		cst_http_call_why(conn->call, rc, "%s", strerrordesc_np(-rc));
	}
	cst_http_conn_fail(conn, rc);
}

/* Sends what the socket takes. False: the connection is gone. */
static bool send_request(struct cst_http_conn *conn)
{
	size_t budget = WAKEUP_BYTES;
	struct iovec iov[PIECES];
	int count, rc;

	while ((count = collect_output(conn, iov)) > 0 && budget > 0) {
		ssize_t n = send_some(conn, iov, count);

		if (n == -EAGAIN)
			break;
		if (n < 0) {
			/* The server may have answered before it closed; what it sent is read before giving up. */
			conn->out_failed = true;
			break;
		}
		sent(conn, n);
		conn->progress_at = cst_now();
		budget -= cst_min(budget, (size_t)n);
	}
	if (count == 0 || conn->out_failed) {
		conn->out_done = true;
		conn->sent_at = cst_now();
	}
	rc = set_events(conn, EPOLLIN | EPOLLRDHUP | (conn->out_done ? 0 : EPOLLOUT));
	if (rc) {
		broke(conn, rc);
		return false;
	}
	return true;
}

static void start_exchange(struct cst_http_conn *conn)
{
	conn->state = CST_CONN_ACTIVE;
	conn->out_pos = conn->out_body_pos = 0;
	conn->out_body = 0;
	conn->out_done = conn->out_failed = false;
	conn->in_pos = conn->in_len = 0;
	conn->answer_began = conn->in_body = conn->keep = false;
	conn->into_at = 0;
	conn->into_pos = 0;
	conn->progress_at = cst_now();
	build_head(conn);
	if (send_request(conn))
		keep_time(conn);
}

void cst_http_conn_run(struct cst_http_conn *conn, struct cst_http_call *call)
{
	CST_CHECK(conn, CST_HTTP_CONN_MAGIC);
	cst_timer_cancel(conn->side->loop, &call->timer);
	conn->call = call;
	call->conn = conn;
	call->state = CST_CALL_ACTIVE;
	conn->reused = true;
	conn->timer.fn = on_timer;
	if (conn->dead) {
		/* It closed on its way from one loop to another: nothing has been sent, so any method may go again. */
		replace(conn);
		return;
	}
	cst_http_count(&conn->side->counters.reused, 1);
	start_exchange(conn);
}

/* ---- reading an answer ---- */

static void finish(struct cst_http_conn *conn)
{
	struct cst_http_call *call = cst_steal(conn->call);
	struct cst_http_endpoint *ep = conn->endpoint;

	call->conn = NULL;
	CST_ASSERT(!conn->pending);
	if (conn->keep && conn->out_done && !conn->out_failed && conn->in_pos == conn->in_len &&
	    !(conn->ssl && SSL_pending(conn->ssl))) {
		cst_http_conn_give_back(conn);
	} else {
		cst_http_conn_close(conn);
		cst_http_slot_free(ep);
	}
	cst_http_call_done(call, 0);
}

static enum step refuse(struct cst_http_conn *conn, int rc, const char *why)
{
	fail(conn, rc, why);
	return STEP_GONE;
}

static void want_body(struct cst_http_conn *conn, const struct cst_http_head *head)
{
	const struct cst_http_request *r = &conn->call->request;

	conn->status = head->status;
	conn->keep = head->keep_alive;
	conn->body_left = 0;
	if (strcmp(r->method, "HEAD") == 0 || head->status == 204 || head->status == 304) {
		conn->framing = CST_BODY_NONE;
	} else if (head->chunked) {
		conn->framing = CST_BODY_CHUNKED;
		conn->chunked = (struct cst_http_chunked){0};
	} else if (head->content_length >= 0) {
		conn->framing = CST_BODY_LENGTH;
		conn->body_left = head->content_length;
	} else {
		conn->framing = CST_BODY_UNTIL_CLOSE;
		conn->keep = false;
	}
	conn->to_into = r->into && head->status >= 200 && head->status <= 299;
}

static size_t into_room(const struct cst_http_conn *conn)
{
	const struct cst_http_request *r = &conn->call->request;
	size_t room = 0;

	for (int i = conn->into_at; i < r->into_count; i++)
		room += r->into[i].iov_len;
	return room - conn->into_pos;
}

static void grow_input(struct cst_http_conn *conn, size_t room)
{
	conn->in = cst_xrealloc(conn->in, room);
	conn->in_room = room;
}

static enum step head_read(struct cst_http_conn *conn, const struct cst_http_head *head, size_t head_len)
{
	struct cst_http_call *call = conn->call;
	struct cst_http_response response = {.status = head->status, .head = head, .peer = &conn->peer};
	int rc;

	conn->in_pos += head_len;
	if (head->status == 101)
		return refuse(conn, -EBADMSG, "the server switched to another protocol");
	if (head->status < 200)
		return STEP_MORE;
	want_body(conn, head);
	conn->in_body = true;
	response.content_length = head->content_length;
	rc = call->request.on_head ? call->request.on_head(call->request.arg, &response) : 0;
	if (rc)
		return refuse(conn, rc, "the caller does not want this answer");
	if (conn->to_into && conn->framing == CST_BODY_LENGTH && conn->body_left > into_room(conn))
		return refuse(conn, -EMSGSIZE, "the body is longer than what was asked for");
	return STEP_MORE;
}

static enum step read_head(struct cst_http_conn *conn)
{
	struct cst_http_head head;
	struct iovec iov;
	bool drained = false;
	const char *why;
	ssize_t n;

	if (conn->in_pos == conn->in_len) {
		conn->in_pos = conn->in_len = 0;
		if (!conn->in)
			grow_input(conn, IN_ROOM);
	} else {
		/* Bytes are here already: after a 1xx head, or a head in pieces. */
		n = cst_http_parse_response((struct cst_slice){conn->in + conn->in_pos, conn->in_len - conn->in_pos}, &head, &why);
		if (n < 0)
			return refuse(conn, -EBADMSG, why);
		if (n > 0)
			return head_read(conn, &head, n);
		if (conn->in_len == conn->in_room)
			grow_input(conn, conn->in_pos + CST_HTTP_HEAD_MAX + IN_ROOM);
	}
	iov = (struct iovec){conn->in + conn->in_len, conn->in_room - conn->in_len};
	n = receive_some(conn, &iov, 1, &drained);
	if (n == -EAGAIN)
		return STEP_WAIT;
	if (n <= 0) {
		broke(conn, (int)n);
		return STEP_GONE;
	}
	conn->answer_began = true;
	conn->in_len += n;
	return STEP_MORE;
}

/* Moves the place in `into` on, over bytes that are there. */
static void into_took(struct cst_http_conn *conn, size_t n)
{
	const struct iovec *into = conn->call->request.into;

	conn->call->received += n;
	while (n > 0) {
		size_t left = into[conn->into_at].iov_len - conn->into_pos;

		if (n < left) {
			conn->into_pos += n;
			return;
		}
		n -= left;
		conn->into_at++;
		conn->into_pos = 0;
	}
}

/* Content that is in our own buffer, to where the caller wants it. */
static int deliver(struct cst_http_conn *conn, struct cst_slice piece)
{
	const struct cst_http_request *r = &conn->call->request;

	if (!conn->to_into) {
		conn->call->received += piece.len;
		return r->on_body && piece.len ? r->on_body(r->arg, piece) : 0;
	}
	if (piece.len > into_room(conn))
		return -EMSGSIZE;
	while (piece.len > 0) {
		const struct iovec *into = &r->into[conn->into_at];
		size_t n = cst_min(piece.len, into->iov_len - conn->into_pos);

		memcpy((char *)into->iov_base + conn->into_pos, piece.data, n);
		piece.data += n;
		piece.len -= n;
		into_took(conn, n);
		if (n == 0)
			conn->into_at++, conn->into_pos = 0; /* an empty piece */
	}
	return 0;
}

/* Takes what is in our own buffer. 1: the body is complete. */
static int use_buffered(struct cst_http_conn *conn)
{
	struct cst_slice data = {conn->in + conn->in_pos, conn->in_len - conn->in_pos};
	struct cst_slice content = {0};
	ssize_t used = 0;
	int rc;

	switch (conn->framing) {
	case CST_BODY_NONE:
		return 1;
	case CST_BODY_LENGTH:
		content = (struct cst_slice){data.data, cst_min((uint64_t)data.len, conn->body_left)};
		used = (ssize_t)content.len;
		conn->body_left -= content.len;
		break;
	case CST_BODY_CHUNKED:
		used = cst_http_chunked_feed(&conn->chunked, data, &content);
		if (used < 0)
			return (int)used;
		break;
	case CST_BODY_UNTIL_CLOSE:
		content = data;
		used = (ssize_t)data.len;
		break;
	}
	conn->in_pos += used;
	rc = content.len ? deliver(conn, content) : 0;
	if (rc)
		return rc;
	return conn->framing == CST_BODY_CHUNKED ? conn->chunked.done : conn->framing == CST_BODY_LENGTH && conn->body_left == 0;
}

/* Where the next content may be received straight into the caller's memory; behind a chunk our own buffer takes the framing
 * that follows. Returns the pieces, *direct their bytes that are content. */
static int collect_input(struct cst_http_conn *conn, struct iovec iov[PIECES + 1], size_t budget, size_t *direct)
{
	const struct cst_http_request *r = &conn->call->request;
	uint64_t next = UINT64_MAX;
	size_t skip = conn->into_pos;
	int count = 0;

	*direct = 0;
	if (conn->framing == CST_BODY_LENGTH)
		next = conn->body_left;
	else if (conn->framing == CST_BODY_CHUNKED)
		next = cst_http_chunked_next(&conn->chunked);
	next = cst_min(next, (uint64_t)budget);
	for (int i = conn->into_at; conn->to_into && i < r->into_count && count < PIECES && next > 0; i++, skip = 0) {
		size_t n = cst_min(r->into[i].iov_len - skip, next);

		if (n == 0)
			continue;
		iov[count++] = (struct iovec){(char *)r->into[i].iov_base + skip, n};
		*direct += n;
		next -= n;
	}
	/* TLS reads into one piece at a time; our own buffer then has its turn in the next step. */
	if (count == 0 || (conn->framing == CST_BODY_CHUNKED && *direct == cst_http_chunked_next(&conn->chunked) && !conn->ssl))
		iov[count++] = (struct iovec){conn->in, conn->framing == CST_BODY_LENGTH ?
								 cst_min((uint64_t)conn->in_room, conn->body_left) :
								 conn->in_room};
	return count;
}

static enum step body_ended_early(struct cst_http_conn *conn, int rc)
{
	if (rc == 0 && conn->framing == CST_BODY_UNTIL_CLOSE && !conn->unclean_eof) {
		finish(conn);
		return STEP_GONE;
	}
	if (rc == -EPROTO) {
		cst_http_call_why(conn->call, rc, "TLS failed");
		cst_tls_error(&conn->call->err, conn->ssl);
	} else if (rc == 0) {
		rc = -EPIPE;
		cst_http_call_why(conn->call, rc, "the body ended after %zu bytes, before its end", conn->call->received);
	} else {
		cst_http_call_why(conn->call, rc, "%s after %zu bytes of the body", strerrordesc_np(-rc),
				  conn->call->received);
	}
	cst_http_conn_fail(conn, rc);
	return STEP_GONE;
}

static enum step read_body(struct cst_http_conn *conn, size_t *budget)
{
	struct iovec iov[PIECES + 1];
	size_t direct, placed;
	bool drained;
	ssize_t n;
	int rc;

	if (conn->in_pos < conn->in_len || conn->framing == CST_BODY_NONE ||
	    (conn->framing == CST_BODY_LENGTH && conn->body_left == 0)) {
		rc = use_buffered(conn);
		if (rc == 1) {
			finish(conn);
			return STEP_GONE;
		}
		if (rc < 0)
			return refuse(conn, rc, rc == -EMSGSIZE ? "the body is longer than what was asked for" :
						rc == -EBADMSG	? "the chunks of the body are malformed" :
								  "the caller does not want this body");
		return STEP_MORE;
	}
	conn->in_pos = conn->in_len = 0;
	rc = collect_input(conn, iov, *budget, &direct);
	n = receive_some(conn, iov, rc, &drained);
	if (n == -EAGAIN)
		return STEP_WAIT;
	if (n <= 0)
		return body_ended_early(conn, (int)n);
	placed = cst_min((size_t)n, direct);
	if (placed) {
		into_took(conn, placed);
		if (conn->framing == CST_BODY_LENGTH)
			conn->body_left -= placed;
		else if (conn->framing == CST_BODY_CHUNKED)
			cst_http_chunked_took(&conn->chunked, placed);
	}
	conn->in_len = n - placed;
	*budget -= cst_min(*budget, (size_t)n);
	/* What came may complete the body; only then is one more step due on a drained socket. */
	if (drained && conn->in_len == 0 && !(conn->framing == CST_BODY_LENGTH && conn->body_left == 0))
		return STEP_WAIT;
	return STEP_MORE;
}

static void receive(struct cst_http_conn *conn);

static void on_more(struct cst_task *task)
{
	struct cst_http_conn *conn = cst_container_of(task, struct cst_http_conn, more_task);

	conn->pending = false;
	if (conn->state == CST_CONN_ZOMBIE)
		conn_free(conn);
	else if (conn->state == CST_CONN_ACTIVE)
		receive(conn);
}

/* Can the next step go on without the socket? */
static bool has_buffered(const struct cst_http_conn *conn)
{
	return conn->in_pos < conn->in_len || (conn->in_body && conn->framing == CST_BODY_LENGTH && conn->body_left == 0);
}

static void receive(struct cst_http_conn *conn)
{
	size_t budget = WAKEUP_BYTES;
	enum step step = STEP_MORE;

	while (step == STEP_MORE && (budget > 0 || has_buffered(conn)))
		step = conn->in_body ? read_body(conn, &budget) : read_head(conn);
	if (step == STEP_GONE)
		return;
	/* A socket that holds more wakes the loop again; what OpenSSL holds does not. */
	if (step == STEP_MORE && conn->ssl && !conn->pending) {
		conn->pending = true;
		conn->more_task.fn = on_more;
		cst_loop_post(conn->side->loop, &conn->more_task);
	}
	keep_time(conn);
}

/* ---- connecting ---- */

static void set_socket_options(int fd, const struct cst_http_client *client)
{
	int one = 1, idle = 30, interval = 10, probes = 3;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	/* Forcing goes beyond net.core.rmem_max, and is for root alone. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &client->receive_buffer, sizeof(int)))
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &client->receive_buffer, sizeof(int));
}

static void connect_failed(struct cst_http_conn *conn, int rc)
{
	char peer[INET6_ADDRSTRLEN];

	peer_text(conn, peer);
	cst_http_call_why(conn->call, rc, "%s%s: %s", conn->endpoint->proxied ? "proxy " : "", peer, strerrordesc_np(-rc));
	cst_resolver_mark_bad(conn->client->resolver, &conn->peer);
	close_socket(conn);
}

static void build_tunnel_head(struct cst_http_conn *conn)
{
	const struct cst_http_endpoint *ep = conn->endpoint;
	const char *host = ep->origin.host;
	const char *open = strchr(host, ':') ? "[" : "", *close = strchr(host, ':') ? "]" : "";

	cst_buf_clear(&conn->out);
	cst_buf_printf(&conn->out, "CONNECT %s%s%s:%u HTTP/1.1\r\nHost: %s%s%s:%u\r\n%s", open, host, close, ep->origin.port,
		       open, host, close, ep->origin.port, ep->common_lines);
	if (ep->proxy.authorization[0])
		cst_buf_printf(&conn->out, "Proxy-Authorization: %s\r\n", ep->proxy.authorization);
	cst_buf_add(&conn->out, "\r\n", 2);
	conn->out_pos = conn->in_pos = conn->in_len = 0;
	if (!conn->in)
		grow_input(conn, IN_ROOM);
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
	handshake(conn);
}

static void tunnel_refused(struct cst_http_conn *conn, int status)
{
	cst_http_call_why(conn->call, -ECONNREFUSED, "the proxy %s:%u answered %d to CONNECT", conn->endpoint->proxy.host,
			  conn->endpoint->proxy.port, status);
	if (status == 407)
		cst_error_hint(&conn->call->err, "give the proxy's user and password: https_proxy=http://USER:PASSWORD@HOST:PORT");
	else
		cst_error_hint(&conn->call->err, "ask who runs the proxy, or name the host in no_proxy");
	cst_http_conn_fail(conn, -ECONNREFUSED);
}

static void tunnel(struct cst_http_conn *conn)
{
	struct cst_http_head head;
	struct iovec iov;
	const char *why;
	bool drained;
	ssize_t n;

	if (conn->out_pos < conn->out.len) {
		iov = (struct iovec){conn->out.data + conn->out_pos, conn->out.len - conn->out_pos};
		n = send_some(conn, &iov, 1);
		if (n < 0 && n != -EAGAIN) {
			fail(conn, (int)n, "the proxy closed the connection");
			return;
		}
		conn->out_pos += n > 0 ? n : 0;
		n = set_events(conn, EPOLLIN | (conn->out_pos < conn->out.len ? EPOLLOUT : 0));
		if (n)
			fail(conn, (int)n, "can't watch a connection");
		return;
	}
	iov = (struct iovec){conn->in + conn->in_len, conn->in_room - conn->in_len};
	n = receive_some(conn, &iov, 1, &drained);
	if (n == -EAGAIN)
		return;
	if (n <= 0) {
		fail(conn, n ? (int)n : -ECONNRESET, "the proxy closed the connection");
		return;
	}
	conn->in_len += n;
	n = cst_http_parse_response((struct cst_slice){conn->in, conn->in_len}, &head, &why);
	if (n < 0 || (n == 0 && conn->in_len == conn->in_room))
		fail(conn, -EBADMSG, "the proxy's answer is not HTTP");
	else if (n > 0 && (head.status < 200 || head.status > 299))
		tunnel_refused(conn, head.status);
	else if (n > 0 && (size_t)n != conn->in_len)
		fail(conn, -EBADMSG, "the proxy sent more than an answer");
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
		tunnel(conn);
	} else if (conn->endpoint->origin.tls) {
		start_tls(conn);
	} else {
		start_exchange(conn);
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
	rc = set_events(conn, EPOLLOUT);
	keep_time(conn);
	return rc;
}

static bool same_for_all_addresses(int rc)
{
	return rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM || rc == -ENOBUFS;
}

static void connect_next(struct cst_http_conn *conn)
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
			fail(conn, rc, strerrordesc_np(-rc));
			return;
		}
		connect_failed(conn, rc);
	}
}

static void connect_event(struct cst_http_conn *conn)
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
	connect_next(conn);
}

static void handshake(struct cst_http_conn *conn)
{
	int rc, code;

	ERR_clear_error();
	errno = 0;
	rc = SSL_do_handshake(conn->ssl);
	if (rc == 1) {
		cst_http_count(&conn->side->counters.tls_handshakes, 1);
		start_exchange(conn);
		return;
	}
	code = SSL_get_error(conn->ssl, rc);
	if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE) {
		rc = set_events(conn, code == SSL_ERROR_WANT_READ ? EPOLLIN : EPOLLOUT);
		if (rc)
			fail(conn, rc, "can't watch a connection");
		else
			keep_time(conn);
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
	connect_next(conn);
}

static void on_resolved(struct cst_task *task)
{
	struct cst_http_conn *conn = cst_container_of(task, struct cst_http_conn, resolved_task);

	conn->pending = false;
	if (conn->state == CST_CONN_ZOMBIE)
		conn_free(conn);
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
	conn->timer.fn = on_timer;
	conn->state = CST_CONN_RESOLVING;
	conn->connect_by = cst_now() + ep->client->connect_timeout;
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
		keep_time(conn);
	}
}

/* ---- events ---- */

/* An idle connection became readable: closed by the server, or (TLS) a session ticket, or bytes nobody asked for. */
static void idle_event(struct cst_http_conn *conn, uint32_t events)
{
	struct cst_http_endpoint *ep = conn->endpoint;

	if (conn->ssl && !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) {
		struct iovec iov = {conn->in, conn->in_room};
		bool drained;

		if (receive_some(conn, &iov, 1, &drained) == -EAGAIN)
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
		connect_event(conn);
		break;
	case CST_CONN_TUNNELLING:
		tunnel(conn);
		break;
	case CST_CONN_HANDSHAKE:
		handshake(conn);
		break;
	case CST_CONN_ACTIVE:
		/* Under TLS the write may have waited for something to read. */
		if (!conn->out_done && (conn->ssl || (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) && !send_request(conn))
			break;
		if (conn->pending)
			break; /* on_more() is about to read, in its turn */
		if (events & ~(uint32_t)EPOLLOUT)
			receive(conn);
		else
			keep_time(conn);
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
