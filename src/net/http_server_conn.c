/* Bytes of one connection, plain or TLS. The socket does not block; what has to wait polls, so that every wait has a
 * timeout and ends when the server shuts the socket down. */
#include "net/http_server_private.h"

#include <errno.h>
#include <limits.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <string.h>
#include <sys/sendfile.h>
#include <time.h>

int cst_http_peer_wait(struct cst_http_peer *conn, short events, int64_t ns)
{
	int64_t end = cst_now() + ns;
	for (;;) {
		struct pollfd p = {.fd = conn->fd, .events = events};
		int64_t left = cst_max(end - cst_now(), (int64_t)0);
		struct timespec ts = {left / CST_NS_PER_S, left % CST_NS_PER_S};
		int rc = ppoll(&p, 1, &ts, NULL);
		if (rc == 0)
			return 0;
		if (rc < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		/* A hang-up while we want to read still has bytes to give. */
		if ((p.revents & (POLLERR | POLLHUP | POLLNVAL)) && !(p.revents & events & POLLIN))
			return -ECONNRESET;
		return 1;
	}
}

/* ---- TLS ---- */

/* What OpenSSL says after a call that did not succeed: the events to wait for, 0 at the end of the stream, or -errno. */
static int tls_wants(struct cst_http_peer *conn, int rc, short *events)
{
	int reason = SSL_get_error(conn->ssl, rc);
	int saved = errno;
	*events = 0;
	switch (reason) {
	case SSL_ERROR_WANT_READ:
		*events = POLLIN;
		return 0;
	case SSL_ERROR_WANT_WRITE:
		*events = POLLOUT;
		return 0;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_SYSCALL:
		ERR_clear_error();
		return saved == ETIMEDOUT ? -ETIMEDOUT : -ECONNRESET;
	default:
		ERR_clear_error();
		return -EPROTO;
	}
}

enum cst_http_step cst_http_peer_handshake(struct cst_http_peer *conn)
{
	ERR_clear_error();
	int rc = SSL_accept(conn->ssl);
	if (rc == 1) {
		conn->ktls = BIO_get_ktls_send(SSL_get_wbio(conn->ssl)) != 0;
		return CST_HTTP_STEP_DONE;
	}
	short events;
	int why = tls_wants(conn, rc, &events);
	if (why < 0 || events == 0)
		return CST_HTTP_STEP_FAILED;
	return events == POLLIN ? CST_HTTP_STEP_WANT_READ : CST_HTTP_STEP_WANT_WRITE;
}

/* -EAGAIN with *events set. */
static ssize_t tls_recv(struct cst_http_peer *conn, void *data, size_t size, short *events)
{
	ERR_clear_error();
	int rc = SSL_read(conn->ssl, data, (int)cst_min(size, (size_t)INT_MAX));
	if (rc > 0)
		return rc;
	int why = tls_wants(conn, rc, events);
	return why < 0 ? why : *events ? -EAGAIN : 0;
}

static int tls_send_all(struct cst_http_peer *conn, const char *data, size_t len)
{
	while (len) {
		ERR_clear_error();
		int rc = SSL_write(conn->ssl, data, (int)cst_min(len, (size_t)INT_MAX));
		if (rc > 0) {
			data += rc;
			len -= (size_t)rc;
			continue;
		}
		short events;
		int why = tls_wants(conn, rc, &events);
		if (why < 0 || events == 0)
			return why < 0 ? why : -ECONNRESET;
		why = cst_http_peer_wait(conn, events, conn->server->config.io_timeout);
		if (why <= 0)
			return why < 0 ? why : -ETIMEDOUT;
	}
	return 0;
}

/* ---- receiving ---- */

void cst_http_peer_room(struct cst_http_peer *conn, size_t size)
{
	if (conn->start == conn->end)
		conn->start = conn->end = 0;
	if (conn->cap - conn->end >= size)
		return;
	if (conn->start) {
		memmove(conn->in, conn->in + conn->start, conn->end - conn->start);
		conn->end -= conn->start;
		conn->start = 0;
	}
	if (conn->cap - conn->end < size) {
		size_t cap = conn->cap ? conn->cap : 4096;
		while (cap - conn->end < size)
			cap *= 2;
		conn->in = cst_xrealloc(conn->in, cap);
		conn->cap = cap;
	}
}

void cst_http_peer_release_buffer(struct cst_http_peer *conn)
{
	if (conn->start != conn->end)
		return;
	free(conn->in);
	conn->in = NULL;
	conn->start = conn->end = conn->cap = 0;
}

static ssize_t recv_once(struct cst_http_peer *conn, void *data, size_t size, short *events)
{
	if (conn->ssl)
		return tls_recv(conn, data, size, events);
	*events = POLLIN;
	ssize_t n;
	do
		n = recv(conn->fd, data, size, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	return errno == EWOULDBLOCK ? -EAGAIN : -errno;
}

ssize_t cst_http_peer_try_recv(struct cst_http_peer *conn, void *data, size_t size)
{
	short events;
	return recv_once(conn, data, size, &events);
}

ssize_t cst_http_peer_recv(struct cst_http_peer *conn, void *data, size_t size)
{
	for (;;) {
		short events;
		ssize_t n = recv_once(conn, data, size, &events);
		if (n != -EAGAIN)
			return n;
		int rc = cst_http_peer_wait(conn, events, conn->server->config.io_timeout);
		if (rc <= 0)
			return rc < 0 ? rc : -ETIMEDOUT;
	}
}

/* ---- sending ---- */

static int wait_writable(struct cst_http_peer *conn)
{
	int rc = cst_http_peer_wait(conn, POLLOUT, conn->server->config.io_timeout);
	return rc > 0 ? 0 : rc < 0 ? rc : -ETIMEDOUT;
}

static void iov_advance(struct iovec **iov, int *count, size_t n)
{
	while (*count && n >= (*iov)->iov_len) {
		n -= (*iov)->iov_len;
		(*iov)++;
		(*count)--;
	}
	if (*count && n) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + n;
		(*iov)->iov_len -= n;
	}
}

static char *io_buf(struct cst_http_worker *worker)
{
	if (!worker->io)
		worker->io = cst_xmalloc(CST_HTTP_IO_BUF);
	return worker->io;
}

/* One record carries a head and its small body. */
static int tls_sendv(struct cst_http_worker *worker, struct cst_http_peer *conn, const struct iovec *iov, int count)
{
	char *buf = io_buf(worker);
	size_t used = 0;
	for (int i = 0; i < count; i++) {
		if (used + iov[i].iov_len <= CST_HTTP_IO_BUF) {
			if (iov[i].iov_len)
				memcpy(buf + used, iov[i].iov_base, iov[i].iov_len);
			used += iov[i].iov_len;
			continue;
		}
		int rc = tls_send_all(conn, buf, used);
		if (rc == 0)
			rc = tls_send_all(conn, iov[i].iov_base, iov[i].iov_len);
		if (rc < 0)
			return rc;
		used = 0;
	}
	return tls_send_all(conn, buf, used);
}

int cst_http_peer_send(struct cst_http_worker *worker, struct cst_http_peer *conn, struct iovec *iov, int count,
		       bool more)
{
	if (conn->ssl)
		return tls_sendv(worker, conn, iov, count);
	iov_advance(&iov, &count, 0);
	while (count) {
		struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)count};
		ssize_t n = sendmsg(conn->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0));
		if (n >= 0) {
			iov_advance(&iov, &count, (size_t)n);
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return -errno;
		int rc = wait_writable(conn);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* The kernel does not encrypt for us: through memory. */
static int copy_file(struct cst_http_worker *worker, struct cst_http_peer *conn, int fd, int64_t offset, size_t len,
		     size_t *done)
{
	char *buf = io_buf(worker);
	while (len) {
		ssize_t n = pread(fd, buf, cst_min(len, (size_t)CST_HTTP_IO_BUF), offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EPIPE;
		int rc = tls_send_all(conn, buf, (size_t)n);
		if (rc < 0)
			return rc;
		*done += (size_t)n;
		offset += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Bytes, 0 at the end of the file, -EAGAIN or -errno. */
static ssize_t sendfile_once(struct cst_http_peer *conn, int fd, int64_t offset, size_t len)
{
	if (!conn->ssl) {
		off_t at = offset;
		ssize_t n = sendfile(conn->fd, fd, &at, len);
		return n >= 0 ? n : -errno;
	}
	ERR_clear_error();
	ossl_ssize_t n = SSL_sendfile(conn->ssl, fd, offset, len, 0);
	if (n >= 0)
		return n;
	short events;
	int why = tls_wants(conn, (int)n, &events);
	return why < 0 ? why : events ? -EAGAIN : -ECONNRESET;
}

int cst_http_peer_sendfile(struct cst_http_worker *worker, struct cst_http_peer *conn, int fd, int64_t offset,
			   size_t len, size_t *done)
{
	*done = 0;
	if (conn->ssl && !conn->ktls)
		return copy_file(worker, conn, fd, offset, len, done);
	while (*done < len) {
		ssize_t n = sendfile_once(conn, fd, offset + (int64_t)*done, len - *done);
		if (n > 0) {
			*done += (size_t)n;
		} else if (n == 0) {
			return -EPIPE;
		} else if (n == -EAGAIN) {
			int rc = wait_writable(conn);
			if (rc < 0)
				return rc;
		} else if (n != -EINTR) {
			return (int)n;
		}
	}
	return 0;
}

void cst_http_peer_shutdown_send(struct cst_http_peer *conn)
{
	if (conn->ssl) {
		ERR_clear_error();
		SSL_shutdown(conn->ssl);
		ERR_clear_error();
	}
	shutdown(conn->fd, SHUT_WR);
}
