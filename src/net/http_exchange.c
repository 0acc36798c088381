#include "net/http_client_private.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <string.h>
#include <sys/epoll.h>

#define WAKEUP_BYTES (512 * 1024) /* so much of one body, then the loop's other connections have their turn */
#define PIECES 16
#define FIRST_READ 2048	  /* of an answer whose body goes straight to the caller: a head, and little to copy */
#define FIRST_SMALL 32768 /* bodies up to here come with their head in one go, mostly */
#define RATED 262144	  /* bytes of a body that tell how fast its connection is */
#define CRAWL_NS (2 * CST_NS_PER_S)
#define CRAWL_FACTOR 8
#define QUIET_NS (2 * CST_NS_PER_MS)
#define TAIL_LEAST 65536 /* of a body: the kernel may take its time over it */
#define INTERIM_MAX 32	 /* 1xx answers to one request: they are read in one go, and must not hold the loop */

/* What a step of an exchange left behind. */
enum step {
	STEP_MORE, /* go on at once */
	STEP_WAIT, /* nothing more to read now */
	STEP_GONE, /* the call has ended, the connection may not exist any more */
};

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
	if (r->sent)
		r->sent->bytes += n;
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
bool cst_http_exchange_send(struct cst_http_conn *conn)
{
	size_t budget = WAKEUP_BYTES;
	struct iovec iov[PIECES];
	int count, rc;

	while ((count = collect_output(conn, iov)) > 0 && budget > 0) {
		ssize_t n = cst_http_conn_send(conn, iov, count);

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
	if (budget == 0)
		count = collect_output(conn, iov); /* that may have been the last of it */
	if (count == 0 || conn->out_failed) {
		conn->out_done = true;
		conn->sent_at = cst_now();
		if (!conn->out_failed && conn->call->request.sent)
			conn->call->request.sent->whole++;
		if (!conn->out_failed && body_length(&conn->call->request) >= TAIL_LEAST)
			cst_http_conn_output_moves(conn);
	}
	rc = cst_http_conn_set_events(conn, EPOLLIN | EPOLLRDHUP | (conn->out_done ? 0 : EPOLLOUT));
	if (rc) {
		broke(conn, rc);
		return false;
	}
	return true;
}

void cst_http_exchange_start(struct cst_http_conn *conn)
{
	conn->state = CST_CONN_ACTIVE;
	conn->out_pos = conn->out_body_pos = 0;
	conn->out_body = 0;
	conn->out_done = conn->out_failed = false;
	conn->in_pos = conn->in_len = 0;
	conn->answer_began = conn->in_body = conn->keep = false;
	conn->interim = 0;
	conn->into_at = 0;
	conn->into_pos = 0;
	conn->progress_at = conn->sent_at = cst_now();
	conn->out_queued = 0;
	conn->alarm_rang = false;
	conn->alarm_at = conn->call->request.alarm_after ? conn->progress_at + conn->call->request.alarm_after : 0;
	build_head(conn);
	if (cst_http_exchange_send(conn))
		cst_http_conn_keep_time(conn);
}

/* Right after an answer behind which the socket was empty it needs no look: what comes later is an event, which we would have got. A
 * connection that closes in this moment is replaced when it breaks. */
static bool is_quiet(struct cst_http_conn *conn)
{
	if (!conn->ssl && conn->drained && strcmp(conn->call->request.method, "GET") == 0 &&
	    cst_now() - conn->idle_since < QUIET_NS)
		return true;
	return cst_http_conn_quiet(conn);
}

void cst_http_conn_run(struct cst_http_conn *conn, struct cst_http_call *call)
{
	CST_CHECK(conn, CST_HTTP_CONN_MAGIC);
	cst_timer_cancel(conn->side->loop, &call->timer);
	conn->call = call;
	call->conn = conn;
	call->state = CST_CALL_ACTIVE;
	conn->reused = true;
	if (conn->dead || !is_quiet(conn)) {
		/* It closed meanwhile, or holds bytes that would pass for our answer: nothing has been sent, so any
		 * method may go on another connection. */
		replace(conn);
		return;
	}
	cst_http_count(&conn->side->counters.reused, 1);
	cst_http_exchange_start(conn);
}

/* ---- reading an answer ---- */

/* How fast the body came, beside those of other connections. One that has crawled for seconds is not used again: its path may be
 * the cause. */
static void rate_body(struct cst_http_conn *conn, size_t received)
{
	int64_t took = cst_now() - conn->head_at;
	uint64_t *usual = &conn->side->counters.rate;
	uint64_t rate = (uint64_t)((double)received * 1e9 / (double)cst_max(took, INT64_C(1000)));

	if (rate < *usual / CRAWL_FACTOR && (received >= RATED || took >= CST_NS_PER_S)) {
		conn->crawled += took;
		if (conn->crawled >= CRAWL_NS) {
			conn->keep = false;
			cst_http_count(&conn->side->counters.crawlers_closed, 1);
		}
	} else if (received >= RATED) {
		conn->crawled = 0;
		__atomic_store_n(usual, *usual ? *usual - *usual / 8 + rate / 8 : rate, __ATOMIC_RELAXED);
	}
}

static void finish(struct cst_http_conn *conn)
{
	struct cst_http_call *call = cst_steal(conn->call);
	struct cst_http_endpoint *ep = conn->endpoint;

	call->conn = NULL;
	CST_ASSERT(!conn->pending);
	if (call->received >= RATED / 16)
		rate_body(conn, call->received);
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
	cst_http_conn_fail_why(conn, rc, why);
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

static enum step head_read(struct cst_http_conn *conn, const struct cst_http_head *head, size_t head_len)
{
	struct cst_http_call *call = conn->call;
	struct cst_http_response response = {.status = head->status,
					     .head = head,
					     .sent_at = conn->sent_at,
					     .sent_whole = conn->out_done && !conn->out_failed,
					     .peer = &conn->peer};
	int rc;

	conn->in_pos += head_len;
	if (head->status == 101)
		return refuse(conn, -EBADMSG, "the server switched to another protocol");
	if (head->status < 200) {
		if (++conn->interim > INTERIM_MAX)
			return refuse(conn, -EBADMSG, "the server sends interim answers without end");
		return STEP_MORE;
	}
	want_body(conn, head);
	/* Who answers before it has all of the body doesn't wait for the rest. */
	if (!conn->out_done) {
		conn->out_done = conn->out_failed = true;
		rc = cst_http_conn_set_events(conn, EPOLLIN | EPOLLRDHUP);
		if (rc)
			return refuse(conn, rc, "can't watch a connection");
	}
	conn->in_body = true;
	conn->head_at = cst_now();
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
			cst_http_conn_grow_input(conn, CST_HTTP_IN_ROOM);
	} else {
		/* Bytes are here already: after a 1xx head, or a head in pieces. */
		n = cst_http_parse_response((struct cst_slice){conn->in + conn->in_pos, conn->in_len - conn->in_pos},
					    &head, &why);
		if (n < 0)
			return refuse(conn, -EBADMSG, why);
		if (n > 0)
			return head_read(conn, &head, n);
		if (conn->in_len == conn->in_room)
			cst_http_conn_grow_input(conn, conn->in_pos + CST_HTTP_HEAD_MAX + CST_HTTP_IN_ROOM);
	}
	iov = (struct iovec){conn->in + conn->in_len, conn->in_room - conn->in_len};
	if (conn->in_len == 0 && !conn->ssl && conn->call->request.into && into_room(conn) > FIRST_SMALL)
		iov.iov_len = FIRST_READ;
	n = cst_http_conn_receive(conn, &iov, 1, &drained);
	if (n == -EAGAIN)
		return STEP_WAIT;
	if (n <= 0) {
		broke(conn, (int)n);
		return STEP_GONE;
	}
	conn->drained = drained;
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
	return conn->framing == CST_BODY_CHUNKED ? conn->chunked.done
						 : conn->framing == CST_BODY_LENGTH && conn->body_left == 0;
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
	/* What nobody asked for, behind the last piece, is noticed in the same call. */
	if (conn->framing == CST_BODY_LENGTH && *direct == conn->body_left && count < PIECES && !conn->ssl) {
		iov[count++] = (struct iovec){conn->in, conn->in_room};
		return count;
	}
	/* TLS reads into one piece at a time; our own buffer then has its turn in the next step. */
	if (count == 0 ||
	    (conn->framing == CST_BODY_CHUNKED && *direct == cst_http_chunked_next(&conn->chunked) && !conn->ssl))
		iov[count++] = (struct iovec){conn->in, conn->framing == CST_BODY_LENGTH
								? cst_min((uint64_t)conn->in_room, conn->body_left)
								: conn->in_room};
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
		cst_http_call_why(conn->call, rc, "the body ended after %zu bytes, before its end",
				  conn->call->received);
	} else {
		cst_http_call_why(conn->call, rc, "%s after %zu bytes of the body", strerrordesc_np(-rc),
				  conn->call->received);
	}
	cst_http_conn_fail(conn, rc);
	return STEP_GONE;
}

static void tell_progress(struct cst_http_conn *conn)
{
	const struct cst_http_request *r = &conn->call->request;

	if (r->on_progress && !(conn->framing == CST_BODY_LENGTH && conn->body_left == 0))
		r->on_progress(r->arg, conn->call->received);
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
			return refuse(conn, rc,
				      rc == -EMSGSIZE  ? "the body is longer than what was asked for"
				      : rc == -EBADMSG ? "the chunks of the body are malformed"
						       : "the caller does not want this body");
		if (conn->to_into)
			tell_progress(conn);
		return STEP_MORE;
	}
	conn->in_pos = conn->in_len = 0;
	rc = collect_input(conn, iov, *budget, &direct);
	n = cst_http_conn_receive(conn, iov, rc, &drained);
	if (n == -EAGAIN)
		return STEP_WAIT;
	if (n <= 0)
		return body_ended_early(conn, (int)n);
	conn->drained = drained;
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
	if (placed)
		tell_progress(conn);
	/* What came may complete the body; only then is one more step due on a drained socket. */
	if (drained && conn->in_len == 0 && !(conn->framing == CST_BODY_LENGTH && conn->body_left == 0))
		return STEP_WAIT;
	return STEP_MORE;
}

static void on_more(struct cst_task *task)
{
	struct cst_http_conn *conn = cst_container_of(task, struct cst_http_conn, more_task);

	conn->pending = false;
	if (conn->state == CST_CONN_ZOMBIE)
		cst_http_conn_free(conn);
	else if (conn->state == CST_CONN_ACTIVE)
		cst_http_exchange_receive(conn);
}

/* Can the next step go on without the socket? */
static bool has_buffered(const struct cst_http_conn *conn)
{
	return conn->in_pos < conn->in_len ||
	       (conn->in_body && conn->framing == CST_BODY_LENGTH && conn->body_left == 0);
}

void cst_http_exchange_receive(struct cst_http_conn *conn)
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
	cst_http_conn_keep_time(conn);
}
