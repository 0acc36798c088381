/* HTTP/1.1 client for the data path: calls run on event loops, connections are kept in a pool per endpoint and loop,
 * response bodies are received straight into the caller's memory.
 *
 * A call is started from any thread, runs on one loop (the starter's own if it is a loop thread of the client's group,
 * else the next one), and its callbacks run on that loop's thread; they must not block. on_done is called exactly once,
 * also after cst_http_cancel(). Nothing of the request is copied except what cst_http_start() documents: all pointers
 * stay valid until on_done.
 *
 * A connection taken from the pool that turns out to be closed before any byte of the answer is replaced by a new one
 * without telling the caller, when the request is repeatable (no body or body in memory, and method GET/HEAD/PUT/DELETE).
 * All other failures are the caller's to retry. Names are resolved off the loop, cached 60 s (then refreshed, old answers
 * serve on failure), and every address is used in turn; a refused or unreachable address is avoided for 10 s.
 * Source: RFC 9110, RFC 9112; proxies: the curl conventions of http_proxy, https_proxy, HTTPS_PROXY, no_proxy, NO_PROXY. */
#pragma once

#include "net/http_parser.h"
#include "net/loop.h"
#include "net/tls.h"

#include <sys/uio.h>

struct cst_http_client;
struct cst_http_call;

struct cst_http_client_config {
	struct cst_loop_group *loops; /* borrowed; NULL: the client makes one loop of its own */
	const char *ca_file;	      /* NULL: system CAs */
	unsigned max_connections;     /* per endpoint, over all loops; 0: 128. More calls wait in order. */
	int receive_buffer;	      /* SO_RCVBUF, bytes; 0: 2 MiB (bounded so that sockets stay inside the budget) */
	int64_t connect_timeout;      /* ns, resolving + TCP + TLS; 0: 10 s */
	int64_t idle_timeout;	      /* ns a pooled connection is kept; 0: 50 s */
	/* Of those that wait for a call, this many are kept so long, 0: 4; the others, which the calls of late have not needed
	 * side by side, for spare_timeout (ns; 0: 8 s). */
	unsigned keep_idle;
	int64_t spare_timeout;
	bool use_proxy_env;	/* read the proxy variables */
	const char *user_agent; /* NULL: "cistern/VERSION" */
};
struct cst_http_client *cst_http_client_new(const struct cst_http_client_config *config, struct cst_error *err);
/* Cancels what runs, waits for the callbacks. Not from a loop thread. */
void cst_http_client_free(struct cst_http_client *client);

/* Scheme, host and port. `host` is a name or an IP literal, IPv6 without brackets. */
struct cst_http_origin {
	bool tls;
	char host[256];
	uint16_t port;
	/* An IP literal: connect there, past any proxy, instead of resolving `host` (tests, --resolve); empty: resolve. */
	char connect_to[64];
};

/* How far a request has gone out; the caller's, written on the call's loop until on_done. Connections that are replaced count, too. */
struct cst_http_sent {
	uint64_t bytes; /* of the body */
	unsigned
		whole; /* so often it was handed to the network to its last byte: so often the server may have acted on it */
};

struct cst_http_response {
	int status;
	const struct cst_http_head *head; /* valid inside the callback only */
	int64_t content_length;		  /* -1: unknown until the end */
	int64_t sent_at;		  /* when the request had been sent; cst_now() clock */
	bool sent_whole; /* all of the request had gone out, on this connection, before the answer was read; else the rest is not sent */
	struct sockaddr_storage *peer;
};

struct cst_http_request {
	const struct cst_http_origin *origin;
	const char *method;
	const char *target; /* "/path?query", already percent-encoded */
	/* Extra header lines, each "Name: value\r\n". Host, User-Agent, Content-Length and Connection are added. */
	struct cst_slice headers;
	const char *host_header; /* NULL: from origin */

	/* Request body in memory (may be NULL). An answer that comes while it is being sent ends the call; the connection is not used again then. */
	const struct iovec *body;
	int body_count;
	struct cst_http_sent *sent; /* may be NULL */

	/* Where a 2xx body goes. Exactly `into_len` bytes at most; a longer body fails the call with -EMSGSIZE. NULL: on_body. */
	const struct iovec *into;
	int into_count;

	int64_t deadline; /* cst_now() clock; 0: none. The whole call, waiting for a connection included. */
	/* ns from the request sent to the head read; 0: 30 s. Of a large body the kernel may still hold some then: while that gets less, it begins anew. */
	int64_t first_byte_timeout;
	int64_t stall_timeout; /* ns without a byte of progress; 0: 30 s */
	/* Called so many ns after the request has been sent (four times that when a connection is opened for it) if the answer
	 * is not complete by then; returns in how many ns to call again, 0: no more. It may start and cancel calls. */
	int64_t alarm_after;
	int64_t (*on_alarm)(void *arg);

	/* The head has been read; status and headers. Return 0 to go on, or -errno to end the call with it. May be NULL. */
	int (*on_head)(void *arg, const struct cst_http_response *response);
	/* A piece of the body when `into` does not take it (no `into`, or status is not 2xx). Same return. May be NULL: dropped. */
	int (*on_body)(void *arg, struct cst_slice piece);
	/* Bytes of the body that are in `into`, after each piece; not when the last one has come. May be NULL. */
	void (*on_progress)(void *arg, size_t received);
	/* rc: 0 = complete response whatever its status; -errno: no complete response (err says why: -ETIMEDOUT, -ECONNREFUSED,
	 * -ECONNRESET, -EPIPE = body shorter than promised, -EBADMSG = not HTTP, -ECANCELED, -EHOSTUNREACH = name not resolved,
	 * -EPROTO = TLS). received: body bytes stored or passed. After it the call is gone. */
	void (*on_done)(void *arg, int rc, size_t received, const struct cst_error *err);
	void *arg;
};

struct cst_http_call *cst_http_start(struct cst_http_client *client, const struct cst_http_request *request);
/* Ends a call soon; any thread; the handle must not have been released. on_done still comes (-ECANCELED, or the real outcome
 * if that was first). Safe against a call that is just finishing: handles are reference counted and stay valid until
 * cst_http_release(). */
void cst_http_cancel(struct cst_http_call *call);
/* Every cst_http_start() is paired with one release, at any time, any thread (also from within on_done). */
void cst_http_release(struct cst_http_call *call);

/* For `stats` and tests. */
struct cst_http_client_stats {
	uint64_t connects, tls_handshakes, calls, reused, bytes_in, bytes_out;
	uint64_t spare_closed;	  /* connections that were too many */
	uint64_t crawlers_closed; /* that were far slower than the others, for seconds */
	uint64_t rate; /* bytes per second that one connection brings of large bodies, of late; 0: none came */
	unsigned open, idle, waiting;
};
void cst_http_client_stats(const struct cst_http_client *client, struct cst_http_client_stats *stats);
