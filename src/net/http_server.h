/* HTTP/1.1 server shared by the store, the control socket, metrics and (later) the API server and the console.
 *
 * Model (as in Varnish): idle keep-alive connections wait in one epoll set; a connection with a request is given to a
 * worker thread of an elastic pool, which runs the handler to the end with blocking I/O. So a handler is plain sequential
 * code that may sleep, fsync and sendfile. Limits: connections, workers, head size; a connection beyond the limits is
 * answered 503 and closed. TLS through OpenSSL. Listens on TCP (several) and Unix sockets.
 *
 * A head that comes in pieces and a TLS handshake also wait in the epoll set, so a slow client costs no thread before its
 * request is complete. doc/http-server.md has the life of a connection.
 *
 * An exchange belongs to the worker that runs the handler; everything below "within a handler" is called by it alone.
 * Start and stop belong to one thread. */
#pragma once

#include "net/http_parser.h"
#include "net/tls.h"

#include <sys/socket.h>

struct cst_http_server;
struct cst_http_exchange;

/* Answers one request. Nothing may be sent after it has returned. The server sends 500 when the handler starts no
 * response, and reads over what the handler left of the request body (closing instead when that is much). */
typedef void (*cst_http_handler)(struct cst_http_exchange *x, void *arg);

struct cst_http_server_config {
	cst_http_handler handler;
	void *arg;
	const char *name;	  /* thread names, Server header */
	unsigned max_connections; /* 0: 10000 */
	unsigned max_workers;	  /* 0: 512 */
	int64_t idle_timeout;	  /* ns between requests; 0: 75 s */
	int64_t head_timeout;	  /* ns from the first byte of a request (or of a handshake) to its end; 0: 15 s */
	int64_t io_timeout;	  /* ns without progress within a request; 0: 60 s */
	/* Pacing (0: none). Bytes per second of response bodies; per connection and over all of them. */
	uint64_t connection_bandwidth;
	uint64_t total_bandwidth;
};
struct cst_http_server *cst_http_server_new(const struct cst_http_server_config *config, struct cst_error *err);
/* "127.0.0.1:9000", "[::1]:9000", ":9000", or "unix:/path". Port 0 picks one. tls may be NULL. Call before start. */
int cst_http_server_listen(struct cst_http_server *server, const char *address, struct cst_tls *tls,
			   struct cst_error *err);
/* The bound address of listener `index` as "host:port". */
void cst_http_server_address(const struct cst_http_server *server, unsigned index, char *out, size_t size);
int cst_http_server_start(struct cst_http_server *server, struct cst_error *err); /* spawns threads, returns */
struct cst_http_server_stats {
	unsigned connections, workers;
	uint64_t accepted, refused, requests;
};
void cst_http_server_stats(const struct cst_http_server *server, struct cst_http_server_stats *stats);
/* Stops accepting, lets running handlers finish for `grace_ns`, then shuts their sockets down; joins; frees. */
void cst_http_server_stop(struct cst_http_server *server, int64_t grace_ns);

/* ---- within a handler ---- */
const struct cst_http_head *cst_http_request_head(const struct cst_http_exchange *x);
bool cst_http_request_is_tls(const struct cst_http_exchange *x);
const struct sockaddr_storage *cst_http_request_peer(const struct cst_http_exchange *x);
/* Who is at the other end of a Unix socket: 0 and *uid, or -ENOTSUP (TCP). */
int cst_http_request_peer_uid(const struct cst_http_exchange *x, unsigned *uid);
/* Reads body bytes (chunked already decoded; 100-continue sent at the first read). > 0 bytes, 0 at the end,
 * -errno (-ECONNRESET: the client went away; -EPIPE: shorter than promised; -ETIMEDOUT; -EBADMSG). */
ssize_t cst_http_request_read(struct cst_http_exchange *x, void *data, size_t size);
/* The whole body, at most `max` bytes (-E2BIG). */
int cst_http_request_read_all(struct cst_http_exchange *x, struct cst_buf *out, size_t max);

/* Adds a response header; before the response is started. Line breaks in a value become spaces. */
void cst_http_response_header(struct cst_http_exchange *x, const char *name, const char *value);
void cst_http_response_headerf(struct cst_http_exchange *x, const char *name, const char *fmt, ...) CST_PRINTF(3, 4);
/* The value of a header added so far (valid until the next change; data NULL: absent), and its replacement (false:
 * absent). */
struct cst_slice cst_http_response_header_get(const struct cst_http_exchange *x, const char *name);
bool cst_http_response_header_replace(struct cst_http_exchange *x, const char *name, const char *value);
/* Sends the head (with the first body bytes, when a length > 0 is given: a handler doesn't pause in between). length ≥ 0:
 * Content-Length; -1: chunked. For HEAD and 304 the length is told and no body follows; 204 has neither. */
int cst_http_response_start(struct cst_http_exchange *x, int status, int64_t length);
int cst_http_response_write(struct cst_http_exchange *x, const void *data, size_t len);
/* sendfile(2) (SSL_sendfile or read and SSL_write with TLS), paced. -EPIPE: the file is shorter. */
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
/* Sleeps, but ends at once (-ECONNRESET) when the client goes away or the grace of a stopping server is over. */
int cst_http_exchange_sleep(struct cst_http_exchange *x, int64_t ns);
bool cst_http_exchange_stopping(const struct cst_http_exchange *x); /* a handler that streams without end looks here */

/* For a layer between the server and the handlers: called on the exchange's thread. The struct outlives the exchange. */
struct cst_http_exchange_hooks {
	/* The head is about to be made; headers may still change. < 0 ends the exchange without an answer. May be NULL. */
	int (*before_head)(struct cst_http_exchange *x, int status, int64_t length, void *arg);
	/* What is sent next completes the response: the last moment before the client can know. Once, unless the
	 * exchange fails first. May be NULL. */
	void (*finishing)(struct cst_http_exchange *x, void *arg);
	/* Body bytes are added here atomically, those of the response before they are sent (what could not be sent is
	 * taken off again), so that a client never knows of bytes that were not counted. May be NULL. */
	uint64_t *count_in, *count_out;
};
void cst_http_exchange_set_hooks(struct cst_http_exchange *x, const struct cst_http_exchange_hooks *hooks, void *arg);
/* What the server does when the handler has returned, early: 500 when nothing was started, the end of what was started.
 * For a handler whose hooks must not be called after it. */
void cst_http_exchange_finish(struct cst_http_exchange *x);
void *cst_http_exchange_hook_arg(const struct cst_http_exchange *x); /* NULL without hooks */
