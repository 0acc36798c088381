/* HTTP/1.1 server shared by the store, the control socket, metrics and (later) the API server and the console.
 *
 * Model (as in Varnish): idle keep-alive connections wait in one epoll set; a connection with a request is given to a
 * worker thread of an elastic pool, which runs the handler to the end with blocking I/O. So a handler is plain sequential
 * code that may sleep, fsync and sendfile. Limits: connections, workers, head size; a connection beyond the limits is
 * answered 503 and closed. TLS through OpenSSL. Listens on TCP (several) and Unix sockets.
 *
 * An exchange belongs to the worker that runs the handler. */
#pragma once

#include "net/http_parser.h"
#include "net/tls.h"

#include <sys/socket.h>

struct cst_http_server;
struct cst_http_exchange;

/* Answers one request. The server sends 500 when the handler starts no response, and reads over what the handler left of
 * the request body (closing instead when that is much). */
typedef void (*cst_http_handler)(struct cst_http_exchange *x, void *arg);

struct cst_http_server_config {
	cst_http_handler handler;
	void *arg;
	const char *name;	  /* thread names, Server header */
	unsigned max_connections; /* 0: 10000 */
	unsigned max_workers;	  /* 0: 512 */
	int64_t idle_timeout;	  /* ns; 0: 75 s */
	int64_t io_timeout;	  /* ns without progress within a request; 0: 60 s */
	/* Pacing (0: none). Bytes per second of response bodies; per connection and over all of them. */
	uint64_t connection_bandwidth;
	uint64_t total_bandwidth;
};
struct cst_http_server *cst_http_server_new(const struct cst_http_server_config *config, struct cst_error *err);
/* "127.0.0.1:9000", "[::1]:9000", ":9000", or "unix:/path". Port 0 picks one. tls may be NULL. Call before start. */
int cst_http_server_listen(struct cst_http_server *server, const char *address, struct cst_tls *tls, struct cst_error *err);
/* The bound address of listener `index` as "host:port". */
void cst_http_server_address(const struct cst_http_server *server, unsigned index, char *out, size_t size);
int cst_http_server_start(struct cst_http_server *server, struct cst_error *err); /* spawns threads, returns */
/* Stops accepting, lets running handlers finish for `grace_ns`, then shuts their sockets down; joins; frees. */
void cst_http_server_stop(struct cst_http_server *server, int64_t grace_ns);

/* ---- within a handler ---- */
const struct cst_http_head *cst_http_request_head(const struct cst_http_exchange *x);
bool cst_http_request_is_tls(const struct cst_http_exchange *x);
const struct sockaddr_storage *cst_http_request_peer(const struct cst_http_exchange *x);
/* Reads body bytes (chunked already decoded; 100-continue sent at the first read). > 0 bytes, 0 at the end,
 * -errno (-ECONNRESET: the client went away; -EPIPE: shorter than promised; -ETIMEDOUT; -EBADMSG). */
ssize_t cst_http_request_read(struct cst_http_exchange *x, void *data, size_t size);
/* The whole body, at most `max` bytes (-E2BIG). */
int cst_http_request_read_all(struct cst_http_exchange *x, struct cst_buf *out, size_t max);

/* Adds a response header; before the response is started. */
void cst_http_response_header(struct cst_http_exchange *x, const char *name, const char *value);
void cst_http_response_headerf(struct cst_http_exchange *x, const char *name, const char *fmt, ...) CST_PRINTF(3, 4);
/* Sends the head. length ≥ 0: Content-Length; -1: chunked. For HEAD, 204 and 304 the length is told and no body follows. */
int cst_http_response_start(struct cst_http_exchange *x, int status, int64_t length);
int cst_http_response_write(struct cst_http_exchange *x, const void *data, size_t len);
/* sendfile(2) (read and SSL_write with TLS), paced. */
int cst_http_response_sendfile(struct cst_http_exchange *x, int fd, int64_t offset, int64_t len);
int cst_http_response_end(struct cst_http_exchange *x); /* the last chunk; a short body closes the connection */
/* Head and body in one. */
int cst_http_response_send(struct cst_http_exchange *x, int status, const void *body, size_t len);
bool cst_http_response_started(const struct cst_http_exchange *x);
uint64_t cst_http_response_bytes(const struct cst_http_exchange *x); /* body bytes sent so far */
uint64_t cst_http_request_bytes(const struct cst_http_exchange *x);  /* body bytes read so far */

/* Faults, for the store's --fail: close with RST now / after the next `bytes` body bytes; cap this response's rate. */
void cst_http_fault_reset(struct cst_http_exchange *x);
void cst_http_fault_cut_after(struct cst_http_exchange *x, uint64_t bytes, bool reset);
void cst_http_fault_rate(struct cst_http_exchange *x, uint64_t bytes_per_s);
/* Sleeps, but ends at once (-ECONNRESET) when the client goes away or the server stops. */
int cst_http_exchange_sleep(struct cst_http_exchange *x, int64_t ns);
