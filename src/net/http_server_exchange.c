/* One request and its answer: body in, head and body out, pacing, faults. Everything runs on the exchange's worker. */
#include "net/http_server_private.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SENDFILE_CHUNK (4 * 1024 * 1024)
#define CONNECTION_CATCH_UP (100 * CST_NS_PER_MS)
#define TOTAL_CATCH_UP (20 * CST_NS_PER_MS)

const char *cst_http_status_text(int status)
{
	static const struct {
		int status;
		const char *text;
	} table[] = {
		{100, "Continue"},
		{101, "Switching Protocols"},
		{200, "OK"},
		{201, "Created"},
		{202, "Accepted"},
		{203, "Non-Authoritative Information"},
		{204, "No Content"},
		{206, "Partial Content"},
		{301, "Moved Permanently"},
		{302, "Found"},
		{303, "See Other"},
		{304, "Not Modified"},
		{307, "Temporary Redirect"},
		{308, "Permanent Redirect"},
		{400, "Bad Request"},
		{401, "Unauthorized"},
		{403, "Forbidden"},
		{404, "Not Found"},
		{405, "Method Not Allowed"},
		{406, "Not Acceptable"},
		{408, "Request Timeout"},
		{409, "Conflict"},
		{410, "Gone"},
		{411, "Length Required"},
		{412, "Precondition Failed"},
		{413, "Content Too Large"},
		{414, "URI Too Long"},
		{415, "Unsupported Media Type"},
		{416, "Range Not Satisfiable"},
		{417, "Expectation Failed"},
		{422, "Unprocessable Content"},
		{429, "Too Many Requests"},
		{431, "Request Header Fields Too Large"},
		{500, "Internal Server Error"},
		{501, "Not Implemented"},
		{502, "Bad Gateway"},
		{503, "Service Unavailable"},
		{504, "Gateway Timeout"},
		{507, "Insufficient Storage"},
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(table); i++) {
		if (table[i].status == status)
			return table[i].text;
	}
	return "Status";
}

/* ---- request ---- */

const struct cst_http_head *cst_http_request_head(const struct cst_http_exchange *x)
{
	CST_CHECK(x, CST_HTTP_EXCHANGE_MAGIC);
	return &x->head;
}

bool cst_http_request_is_tls(const struct cst_http_exchange *x)
{
	return x->conn->ssl != NULL;
}

const struct sockaddr_storage *cst_http_request_peer(const struct cst_http_exchange *x)
{
	return &x->conn->peer;
}

int cst_http_request_peer_uid(const struct cst_http_exchange *x, unsigned *uid)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	if (x->conn->tcp || getsockopt(x->conn->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0)
		return -ENOTSUP;
	*uid = cred.uid;
	return 0;
}

uint64_t cst_http_request_bytes(const struct cst_http_exchange *x)
{
	return x->body_read;
}

static void send_continue(struct cst_http_exchange *x)
{
	x->continued = true;
	if (x->answer != CST_HTTP_ANSWER_NONE || x->conn->start != x->conn->end || x->head.minor_version == 0)
		return;
	char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
	struct iovec iov = {text, sizeof(text) - 1};
	int rc = cst_http_peer_send(x->worker, x->conn, &iov, 1, false);
	if (rc < 0)
		x->body_error = x->failed = rc;
}

static ssize_t take_buffered(struct cst_http_peer *conn, void *data, size_t size)
{
	size_t n = cst_min(size, conn->end - conn->start);
	memcpy(data, conn->in + conn->start, n);
	conn->start += n;
	return (ssize_t)n;
}

static ssize_t read_plain(struct cst_http_exchange *x, void *data, size_t size)
{
	struct cst_http_peer *conn = x->conn;
	uint64_t left = (uint64_t)x->head.content_length - x->body_read;
	size = (size_t)cst_min((uint64_t)size, left);
	ssize_t n = conn->start != conn->end ? take_buffered(conn, data, size) : cst_http_peer_recv(conn, data, size);
	if (n == 0)
		return -EPIPE;
	if (n > 0 && (uint64_t)n == left)
		x->body_done = true;
	return n;
}

static ssize_t read_chunked(struct cst_http_exchange *x, void *data, size_t size)
{
	struct cst_http_peer *conn = x->conn;
	while (!x->chunked.done) {
		if (conn->start == conn->end) {
			cst_http_peer_room(conn, 65536);
			ssize_t got = cst_http_peer_recv(conn, conn->in + conn->end, conn->cap - conn->end);
			if (got <= 0)
				return got < 0 ? got : -EPIPE;
			conn->end += (size_t)got;
		}
		/* No more than `size` are offered, so the content among them fits. */
		struct cst_slice content = {0}, fed = {conn->in + conn->start, cst_min(size, conn->end - conn->start)};
		ssize_t used = cst_http_chunked_feed(&x->chunked, fed, &content);
		if (used < 0)
			return used;
		conn->start += (size_t)used;
		if (content.len) {
			memcpy(data, content.data, content.len);
			return (ssize_t)content.len;
		}
	}
	x->body_done = true;
	return 0;
}

ssize_t cst_http_request_read(struct cst_http_exchange *x, void *data, size_t size)
{
	CST_CHECK(x, CST_HTTP_EXCHANGE_MAGIC);
	if (x->body_done || size == 0)
		return 0;
	if (x->head.expect_continue && !x->continued)
		send_continue(x);
	if (x->body_error)
		return x->body_error;
	ssize_t n = x->head.chunked ? read_chunked(x, data, size) : read_plain(x, data, size);
	if (n < 0) {
		x->body_error = (int)n;
		x->keep_alive = false;
	} else {
		x->body_read += (uint64_t)n;
		if (x->hooks && x->hooks->count_in)
			__atomic_add_fetch(x->hooks->count_in, (uint64_t)n, __ATOMIC_RELAXED);
	}
	return n;
}

int cst_http_request_read_all(struct cst_http_exchange *x, struct cst_buf *out, size_t max)
{
	if (x->head.content_length > 0 && (uint64_t)x->head.content_length > max)
		return -E2BIG;
	for (size_t total = 0;;) {
		char *at = cst_buf_room(out, 16384);
		ssize_t n = cst_http_request_read(x, at, 16384);
		if (n <= 0)
			return (int)n;
		out->len += (size_t)n;
		out->data[out->len] = '\0';
		total += (size_t)n;
		if (total > max)
			return -E2BIG;
	}
}

/* Reads over what the handler left of the body, so that the next request can follow. */
static bool swallow_body(struct cst_http_exchange *x)
{
	char drop[8192];
	size_t total = 0;
	while (!x->body_done) {
		ssize_t n = cst_http_request_read(x, drop, sizeof(drop));
		if (n < 0)
			return false;
		total += (size_t)n;
		if (total > CST_HTTP_SWALLOW)
			return false;
	}
	return true;
}

/* ---- response head ---- */

void cst_http_response_header(struct cst_http_exchange *x, const char *name, const char *value)
{
	CST_CHECK(x, CST_HTTP_EXCHANGE_MAGIC);
	CST_ASSERT(x->answer == CST_HTTP_ANSWER_NONE);
	cst_buf_add_str(&x->headers, name);
	cst_buf_add_str(&x->headers, ": ");
	size_t from = x->headers.len;
	cst_buf_add_str(&x->headers, value);
	for (size_t i = from; i < x->headers.len; i++) {
		if (x->headers.data[i] == '\r' || x->headers.data[i] == '\n')
			x->headers.data[i] = ' ';
	}
	cst_buf_add_str(&x->headers, "\r\n");
}

void cst_http_response_headerf(struct cst_http_exchange *x, const char *name, const char *fmt, ...)
{
	CST_AUTO_BUF value = CST_BUF_INIT;
	va_list ap;
	va_start(ap, fmt);
	cst_buf_vprintf(&value, fmt, ap);
	va_end(ap);
	cst_http_response_header(x, name, value.data);
}

/* The line of that header, without its end; data NULL when there is none. */
static struct cst_slice find_line(const struct cst_http_exchange *x, const char *name)
{
	size_t name_len = strlen(name);
	struct cst_slice rest = cst_buf_slice(&x->headers);
	while (rest.len) {
		const char *end = memmem(rest.data, rest.len, "\r\n", 2);
		size_t len = end ? (size_t)(end - rest.data) : rest.len;
		if (len > name_len && rest.data[name_len] == ':' && strncasecmp(rest.data, name, name_len) == 0)
			return (struct cst_slice){rest.data, len};
		len = cst_min(len + 2, rest.len);
		rest.data += len;
		rest.len -= len;
	}
	return (struct cst_slice){0};
}

struct cst_slice cst_http_response_header_get(const struct cst_http_exchange *x, const char *name)
{
	struct cst_slice line = find_line(x, name);
	if (!line.data)
		return line;
	size_t skip = strlen(name) + 2;
	return (struct cst_slice){line.data + skip, line.len - skip};
}

bool cst_http_response_header_replace(struct cst_http_exchange *x, const char *name, const char *value)
{
	CST_ASSERT(x->answer == CST_HTTP_ANSWER_NONE);
	struct cst_slice line = find_line(x, name);
	if (!line.data)
		return false;
	char *at = x->headers.data + (line.data - x->headers.data);
	char *end = x->headers.data + x->headers.len;
	memmove(at, at + line.len + 2, (size_t)(end - (at + line.len + 2)));
	x->headers.len -= line.len + 2;
	cst_http_response_header(x, name, value);
	return true;
}

static const char *date_text(struct cst_http_worker *worker)
{
	int64_t s = cst_wall() / CST_NS_PER_S;
	if (s != worker->date_s) {
		cst_time_http(s, worker->date);
		worker->date_s = s;
	}
	return worker->date;
}

/* A body that will not be read to its end, or that the client may never send, ends the connection. */
static void consider_unread_body(struct cst_http_exchange *x)
{
	if (x->body_done)
		return;
	if (x->head.expect_continue && !x->continued)
		x->keep_alive = false;
	if (x->head.content_length >= 0 && (uint64_t)x->head.content_length - x->body_read > CST_HTTP_SWALLOW)
		x->keep_alive = false;
}

static void make_head(struct cst_http_exchange *x, int status, int64_t length)
{
	CST_AUTO_BUF lines = x->headers;
	x->headers = x->worker->out;
	x->worker->out = (struct cst_buf)CST_BUF_INIT;
	struct cst_buf *out = &x->headers;
	struct cst_slice made = {lines.data, lines.len};
	cst_buf_clear(out);
	cst_buf_printf(out, "HTTP/1.1 %d %s\r\n", status, cst_http_status_text(status));
	cst_buf_add_slice(out, made);
	if (!find_line(x, "Date").data)
		cst_buf_printf(out, "Date: %s\r\n", date_text(x->worker));
	if (!find_line(x, "Server").data)
		cst_buf_printf(out, "Server: %s\r\n", x->worker->server->name);
	if (length >= 0 && status != 204 && status >= 200)
		cst_buf_printf(out, "Content-Length: %lld\r\n", (long long)length);
	else if (x->chunk_response)
		cst_buf_add_str(out, "Transfer-Encoding: chunked\r\n");
	if (!x->keep_alive)
		cst_buf_add_str(out, "Connection: close\r\n");
	else if (x->head.minor_version == 0)
		cst_buf_add_str(out, "Connection: keep-alive\r\n");
	cst_buf_add_str(out, "\r\n");
}

static int fail(struct cst_http_exchange *x, int rc)
{
	x->keep_alive = false;
	if (!x->failed)
		x->failed = rc;
	return x->failed;
}

static void tell_finishing(struct cst_http_exchange *x)
{
	if (x->finishing_told)
		return;
	x->finishing_told = true;
	if (x->hooks && x->hooks->finishing)
		x->hooks->finishing(x, x->hook_arg);
}

static int send_pieces(struct cst_http_exchange *x, struct iovec *iov, int count, bool more)
{
	int rc = cst_http_peer_send(x->worker, x->conn, iov, count, more);
	return rc < 0 ? fail(x, rc) : 0;
}

static int flush_head(struct cst_http_exchange *x, bool more)
{
	if (!x->head_pending)
		return 0;
	x->head_pending = false;
	struct iovec iov = {x->headers.data, x->headers.len};
	return send_pieces(x, &iov, 1, more);
}

int cst_http_response_start(struct cst_http_exchange *x, int status, int64_t length)
{
	CST_CHECK(x, CST_HTTP_EXCHANGE_MAGIC);
	CST_ASSERT(x->answer == CST_HTTP_ANSWER_NONE && length >= -1);
	if (!x->failed && x->hooks && x->hooks->before_head) {
		int rc = x->hooks->before_head(x, status, length, x->hook_arg);
		if (rc < 0)
			fail(x, rc);
	}
	if (x->failed)
		return x->failed;
	consider_unread_body(x);
	if (cst_http_server_stopping(x->worker->server))
		x->keep_alive = false;
	x->bodyless = cst_slice_is(x->head.method, "HEAD") || status == 204 || status == 304;
	x->chunk_response = length < 0 && !x->bodyless && x->head.minor_version > 0;
	if (length < 0 && !x->bodyless && !x->chunk_response)
		x->keep_alive = false; /* HTTP/1.0: the end of the connection is the end of the body */
	x->length = length;
	make_head(x, status, length);
	x->answer = CST_HTTP_ANSWER_STARTED;
	x->head_pending = true;
	if (length > 0 && !x->bodyless)
		return 0;
	if (length == 0 || x->bodyless)
		tell_finishing(x);
	return flush_head(x, false);
}

bool cst_http_response_started(const struct cst_http_exchange *x)
{
	return x->answer != CST_HTTP_ANSWER_NONE;
}

uint64_t cst_http_response_bytes(const struct cst_http_exchange *x)
{
	return x->sent;
}

/* ---- response body ---- */

static int cut_now(struct cst_http_exchange *x)
{
	flush_head(x, false);
	tell_finishing(x);
	x->reset = x->reset || x->cut_reset;
	return fail(x, x->cut_reset ? -ECONNRESET : -EPIPE);
}

/* Reserves the bytes in every bucket; returns when they may go. */
static int64_t reserve(struct cst_http_exchange *x, int64_t now, size_t n)
{
	struct cst_http_server *server = x->worker->server;
	int64_t at = cst_http_pace_reserve(&x->conn->pace, now, n, CONNECTION_CATCH_UP);
	int64_t slow = cst_http_pace_reserve(&x->slow, now, n, CONNECTION_CATCH_UP);
	at = cst_max(at, slow);
	if (server->total_pace.rate) {
		pthread_mutex_lock(&server->pace_lock);
		int64_t total = cst_http_pace_reserve(&server->total_pace, now, n, TOTAL_CATCH_UP);
		pthread_mutex_unlock(&server->pace_lock);
		at = cst_max(at, total);
	}
	return at;
}

/* How many of `len` body bytes go next: up to a cut, a pacing slice and `chunk`. Waits for their turn. */
static ssize_t grant(struct cst_http_exchange *x, size_t len, size_t chunk)
{
	if (x->failed)
		return x->failed;
	size_t n = cst_min(len, chunk);
	if (x->cut && x->sent >= x->cut_at)
		return cut_now(x);
	if (x->cut)
		n = (size_t)cst_min((uint64_t)n, x->cut_at - x->sent);
	const uint64_t rates[] = {x->conn->pace.rate, x->slow.rate, x->worker->server->total_pace.rate};
	bool paced = false;
	for (size_t i = 0; i < CST_ARRAY_LEN(rates); i++) {
		if (rates[i]) {
			paced = true;
			n = cst_min(n, cst_http_pace_slice(rates[i]));
		}
	}
	if (!paced)
		return (ssize_t)n;
	int64_t now = cst_now();
	int64_t at = reserve(x, now, n);
	if (at > now) {
		/* A head must not wait for the bandwidth that others use. */
		int rc = flush_head(x, false);
		if (rc == 0)
			rc = cst_http_peer_wait(x->conn, 0, at - now);
		if (rc < 0)
			return fail(x, rc);
	}
	return (ssize_t)n;
}

/* Bytes that are sent next are counted before the client can see them. */
static void announce(struct cst_http_exchange *x, size_t n)
{
	if (x->hooks && x->hooks->count_out)
		__atomic_add_fetch(x->hooks->count_out, n, __ATOMIC_RELAXED);
	if (x->length >= 0 && x->sent + n == (uint64_t)x->length)
		tell_finishing(x);
}

static void sent(struct cst_http_exchange *x, size_t announced, size_t n)
{
	x->sent += n;
	if (n < announced && x->hooks && x->hooks->count_out)
		__atomic_sub_fetch(x->hooks->count_out, announced - n, __ATOMIC_RELAXED);
}

/* 1: there is a body to send; 0: none is wanted (HEAD); -errno. */
static int check_body(const struct cst_http_exchange *x, uint64_t len)
{
	CST_CHECK(x, CST_HTTP_EXCHANGE_MAGIC);
	if (x->failed)
		return x->failed;
	CST_ASSERT(x->answer == CST_HTTP_ANSWER_STARTED);
	if (x->bodyless || len == 0)
		return 0;
	/* More than promised would be read as the next response. */
	CST_ASSERT(x->length < 0 || x->sent + len <= (uint64_t)x->length);
	return 1;
}

static int write_piece(struct cst_http_exchange *x, const char *data, size_t n)
{
	char size_line[24];
	struct iovec iov[4];
	int count = 0;
	if (x->head_pending) {
		x->head_pending = false;
		iov[count++] = (struct iovec){x->headers.data, x->headers.len};
	}
	if (x->chunk_response) {
		int len = snprintf(size_line, sizeof(size_line), "%zx\r\n", n);
		iov[count++] = (struct iovec){size_line, (size_t)len};
	}
	iov[count++] = (struct iovec){(void *)(uintptr_t)data, n};
	if (x->chunk_response)
		iov[count++] = (struct iovec){(void *)(uintptr_t) "\r\n", 2};
	announce(x, n);
	int rc = send_pieces(x, iov, count, false);
	sent(x, n, rc == 0 ? n : 0);
	return rc;
}

int cst_http_response_write(struct cst_http_exchange *x, const void *data, size_t len)
{
	int rc = check_body(x, len);
	const char *at = data;
	while (rc > 0 && len) {
		ssize_t n = grant(x, len, SIZE_MAX);
		if (n < 0)
			return (int)n;
		int failed = write_piece(x, at, (size_t)n);
		if (failed)
			return failed;
		at += n;
		len -= (size_t)n;
	}
	return cst_min(rc, 0);
}

static int sendfile_piece(struct cst_http_exchange *x, int fd, int64_t offset, size_t n)
{
	int rc = flush_head(x, true);
	if (rc == 0 && x->chunk_response) {
		char size_line[24];
		struct iovec iov = {size_line, (size_t)snprintf(size_line, sizeof(size_line), "%zx\r\n", n)};
		rc = send_pieces(x, &iov, 1, true);
	}
	if (rc < 0)
		return rc;
	size_t done;
	announce(x, n);
	rc = cst_http_peer_sendfile(x->worker, x->conn, fd, offset, n, &done);
	sent(x, n, done);
	if (rc < 0)
		return fail(x, rc);
	if (x->chunk_response) {
		struct iovec iov = {(void *)(uintptr_t) "\r\n", 2};
		rc = send_pieces(x, &iov, 1, false);
	}
	return rc;
}

int cst_http_response_sendfile(struct cst_http_exchange *x, int fd, int64_t offset, int64_t len)
{
	CST_ASSERT(len >= 0);
	int rc = check_body(x, (uint64_t)len);
	while (rc > 0 && len) {
		ssize_t n = grant(x, (size_t)len, SENDFILE_CHUNK);
		if (n < 0)
			return (int)n;
		int failed = sendfile_piece(x, fd, offset, (size_t)n);
		if (failed)
			return failed;
		offset += n;
		len -= n;
	}
	return cst_min(rc, 0);
}

int cst_http_response_end(struct cst_http_exchange *x)
{
	CST_CHECK(x, CST_HTTP_EXCHANGE_MAGIC);
	if (x->failed)
		return x->failed;
	CST_ASSERT(x->answer == CST_HTTP_ANSWER_STARTED);
	x->answer = CST_HTTP_ANSWER_ENDED;
	int rc = flush_head(x, false);
	if (rc < 0)
		return rc;
	tell_finishing(x);
	if (x->chunk_response) {
		struct iovec iov = {(void *)(uintptr_t) "0\r\n\r\n", 5};
		return send_pieces(x, &iov, 1, false);
	}
	if (!x->bodyless && x->length >= 0 && x->sent < (uint64_t)x->length)
		return fail(x, -EPIPE);
	return 0;
}

int cst_http_response_send(struct cst_http_exchange *x, int status, const void *body, size_t len)
{
	int rc = cst_http_response_start(x, status, (int64_t)len);
	if (rc == 0)
		rc = cst_http_response_write(x, body, len);
	return rc == 0 ? cst_http_response_end(x) : rc;
}

/* ---- faults, hooks ---- */

void cst_http_fault_reset(struct cst_http_exchange *x)
{
	CST_CHECK(x, CST_HTTP_EXCHANGE_MAGIC);
	x->reset = true;
	fail(x, -ECONNRESET);
}

void cst_http_fault_cut_after(struct cst_http_exchange *x, uint64_t bytes, bool reset)
{
	x->cut = true;
	x->cut_reset = reset;
	x->cut_at = x->sent + bytes;
}

void cst_http_fault_rate(struct cst_http_exchange *x, uint64_t bytes_per_s)
{
	x->slow = (struct cst_http_pace){.rate = bytes_per_s, .next = cst_now()};
}

int cst_http_exchange_sleep(struct cst_http_exchange *x, int64_t ns)
{
	CST_CHECK(x, CST_HTTP_EXCHANGE_MAGIC);
	int rc = cst_http_peer_wait(x->conn, POLLRDHUP, ns);
	return rc == 0 ? 0 : -ECONNRESET;
}

bool cst_http_exchange_stopping(const struct cst_http_exchange *x)
{
	return cst_http_server_stopping(x->worker->server);
}

void cst_http_exchange_set_hooks(struct cst_http_exchange *x, const struct cst_http_exchange_hooks *hooks, void *arg)
{
	CST_CHECK(x, CST_HTTP_EXCHANGE_MAGIC);
	x->hooks = hooks;
	x->hook_arg = arg;
}

void *cst_http_exchange_hook_arg(const struct cst_http_exchange *x)
{
	CST_CHECK(x, CST_HTTP_EXCHANGE_MAGIC);
	return x->hook_arg;
}

/* ---- running ---- */

static void rebase(struct cst_slice *s, const char *from, const char *to)
{
	if (s->data)
		s->data = to + (s->data - from);
}

/* The head moves out of the connection's buffer, which the body needs. */
static void own_head(struct cst_http_exchange *x, const struct cst_http_head *head, const char *data, size_t len)
{
	char *to = x->worker->head;
	memcpy(to, data, len);
	x->head = *head;
	rebase(&x->head.method, data, to);
	rebase(&x->head.target, data, to);
	for (size_t i = 0; i < x->head.header_count; i++) {
		rebase(&x->head.headers[i].name, data, to);
		rebase(&x->head.headers[i].value, data, to);
	}
}

void cst_http_exchange_finish(struct cst_http_exchange *x)
{
	CST_CHECK(x, CST_HTTP_EXCHANGE_MAGIC);
	if (x->failed)
		return;
	if (x->answer == CST_HTTP_ANSWER_NONE) {
		cst_buf_clear(&x->headers);
		cst_http_response_header(x, "Content-Type", "text/plain");
		cst_http_response_send(x, 500, "internal error\n", 15);
	} else if (x->answer == CST_HTTP_ANSWER_STARTED && x->length < 0 && !x->bodyless) {
		/* Its handler gave up: the client must not take what it has for the whole. */
		fail(x, -EPIPE);
	} else if (x->answer == CST_HTTP_ANSWER_STARTED) {
		cst_http_response_end(x);
	}
}

enum cst_http_outcome cst_http_exchange_run(struct cst_http_worker *worker, struct cst_http_peer *conn,
					    const struct cst_http_head *head, size_t head_len)
{
	struct cst_http_server *server = worker->server;
	struct cst_http_exchange x = {.magic = CST_HTTP_EXCHANGE_MAGIC, .worker = worker, .conn = conn};
	own_head(&x, head, conn->in + conn->start, head_len);
	conn->start += head_len;
	x.keep_alive = head->keep_alive;
	x.body_done = !head->chunked && head->content_length <= 0;
	x.length = -1;
	if (conn->pace.rate)
		cst_http_pace_begin(&conn->pace, cst_now());
	server->config.handler(&x, server->config.arg);
	cst_http_exchange_finish(&x);
	if (x.keep_alive && !swallow_body(&x))
		x.keep_alive = false;
	if (!worker->out.data) {
		worker->out = x.headers;
		x.headers = (struct cst_buf)CST_BUF_INIT;
	}
	cst_buf_fini(&x.headers);
	x.magic = 0;
	if (x.reset) {
		struct linger now = {.l_onoff = 1, .l_linger = 0};
		setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		return CST_HTTP_CLOSE;
	}
	return x.keep_alive && !x.failed ? CST_HTTP_GOES_ON : CST_HTTP_CLOSE_GENTLY;
}

void cst_http_exchange_refuse(struct cst_http_worker *worker, struct cst_http_peer *conn, int status, const char *why)
{
	CST_AUTO_BUF out = CST_BUF_INIT;
	cst_buf_printf(&out,
		       "HTTP/1.1 %d %s\r\nDate: %s\r\nServer: %s\r\nContent-Type: text/plain\r\n"
		       "Content-Length: %zu\r\nConnection: close\r\n\r\n%s\n",
		       status, cst_http_status_text(status), date_text(worker), worker->server->name, strlen(why) + 1,
		       why);
	struct iovec iov = {out.data, out.len};
	cst_http_peer_send(worker, conn, &iov, 1, false);
}
