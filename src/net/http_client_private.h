/* Shared by the parts of the HTTP client: http_client.c (calls, endpoints, who gets which connection), http_conn.c (a
 * connection's life, time, bytes and events), http_connect.c (reaching the server) and http_exchange.c (a request and its answer).
 * Not for others.
 *
 * Threads: a call and a connection belong to one loop and are touched on its thread only; fields under the endpoint's
 * lock say so. Locks: client->lock (list of endpoints), endpoint->lock (its counts and queues); neither is held during
 * callbacks, system calls or while the other is taken. Life cycles: doc/net.md. */
#pragma once

#include "net/http_client.h"
#include "net/proxy.h"
#include "net/resolver.h"

#include <pthread.h>

#define CST_HTTP_CLIENT_MAGIC 0x48434c49u
#define CST_HTTP_CALL_MAGIC 0x4843414cu
#define CST_HTTP_CONN_MAGIC 0x48434f4eu

TAILQ_HEAD(cst_http_conn_list, cst_http_conn);
TAILQ_HEAD(cst_http_call_list, cst_http_call);

/* What the client has on one loop; that loop's thread only, but for the counters (written there, read anywhere). */
struct cst_http_side {
	struct cst_http_client *client;
	struct cst_loop *loop;
	unsigned index;
	struct cst_http_call_list calls;
	struct cst_http_endpoint *last; /* the endpoint of the last call */
	struct cst_task shutdown_task, barrier_task;
	struct {
		uint64_t connects, tls_handshakes, calls, reused, bytes_in, bytes_out, spare_closed, crawlers_closed;
		uint64_t rate; /* a moving average */
	} counters;
};

struct cst_http_client {
	uint32_t magic;
	struct cst_loop_group *own_loops;
	unsigned side_count, turn;
	struct cst_http_side *sides;
	unsigned max_connections;
	int receive_buffer, receive_buffer_max;
	int64_t connect_timeout, idle_timeout, spare_timeout;
	unsigned keep_idle;
	char *user_agent;
	struct cst_tls *tls;
	struct cst_resolver *resolver;
	struct cst_proxy_config *proxies; /* NULL: none */
	bool closing;			  /* atomic */

	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	LIST_HEAD(, cst_http_endpoint) endpoints;
	uint64_t live; /* calls and connections that exist; atomic */
	unsigned barriers;
};

struct cst_http_endpoint {
	LIST_ENTRY(cst_http_endpoint) link;
	struct cst_http_client *client;
	struct cst_http_origin origin;
	bool proxied;
	struct cst_proxy proxy;
	int proxy_rc; /* the proxy variable is unusable: every call fails with proxy_err */
	struct cst_error proxy_err;
	char *host_line;    /* "Host: …\r\n" */
	char *common_lines; /* User-Agent, and the proxy's authorization where requests carry it */
	char *prefix;	    /* before the target: "http://host:port" for proxied http, else "" */
	unsigned turn;	    /* atomic: next address */

	pthread_mutex_t lock;		   /* of what follows */
	unsigned open;			   /* slots taken: connections, and grants of one on their way */
	struct cst_http_call_list waiters; /* not empty: all slots are taken and no connection is idle */
	unsigned waiting, idle_count;
	struct cst_http_conn_list idle[]; /* per loop, the latest used first */
};

enum cst_http_call_state { CST_CALL_NEW, CST_CALL_WAITING, CST_CALL_ACTIVE, CST_CALL_DONE };

struct cst_http_call {
	uint32_t magic;
	struct cst_ref ref;
	struct cst_http_client *client;
	struct cst_http_side *side;
	struct cst_http_request request;
	struct cst_http_endpoint *endpoint;
	struct cst_http_conn *conn;
	struct cst_timer timer; /* the deadline while no connection looks after it */
	struct cst_task start_task, cancel_task, grant_task;
	enum cst_http_call_state state;
	bool done, cancelled;	       /* atomic */
	bool queued;		       /* endpoint lock: in waiters */
	struct cst_http_conn *granted; /* set by who grants, before posting; NULL: a slot to open one in */
	size_t received;
	struct cst_error err;
	TAILQ_ENTRY(cst_http_call) link;       /* side->calls */
	TAILQ_ENTRY(cst_http_call) queue_link; /* endpoint->waiters */
};

enum cst_http_conn_state {
	CST_CONN_RESOLVING,
	CST_CONN_CONNECTING,
	CST_CONN_TUNNELLING, /* CONNECT through a proxy */
	CST_CONN_HANDSHAKE,  /* TLS */
	CST_CONN_ACTIVE,     /* an exchange runs */
	CST_CONN_IDLE,	     /* in endpoint->idle */
	CST_CONN_PARKED,     /* promised to a call, on its way there */
	CST_CONN_ZOMBIE,     /* closed, but a posted task still points here */
};

enum cst_http_framing { CST_BODY_NONE, CST_BODY_LENGTH, CST_BODY_CHUNKED, CST_BODY_UNTIL_CLOSE };

struct cst_http_conn {
	uint32_t magic;
	enum cst_http_conn_state state;
	struct cst_http_client *client;
	struct cst_http_endpoint *endpoint;
	struct cst_http_side *side;
	struct cst_http_call *call;
	struct cst_watch watch;
	struct cst_timer timer; /* fires at the earliest moment that anything may be due; see due_at() */
	SSL *ssl;
	bool pending;  /* a task that is posted points here */
	bool dead;     /* PARKED: the peer closed it meanwhile */
	bool answered; /* the resolver has answered on this thread */
	struct cst_task resolved_task, more_task, steal_task;
	struct cst_http_call *stolen_for; /* endpoint lock: another loop's call has claimed this idle connection */
	TAILQ_ENTRY(cst_http_conn) link;  /* endpoint->idle */

	/* connecting */
	struct cst_resolver_query query;
	struct cst_addresses *addresses;
	int resolve_rc;
	const char *resolve_why;
	unsigned turn;
	uint64_t tried;
	struct sockaddr_storage peer;
	int64_t connect_by, attempt_by;

	/* the request */
	struct cst_buf out; /* the head */
	size_t out_pos;
	int out_body;	     /* the next piece of the body */
	size_t out_body_pos; /* in that piece */
	bool out_done, out_failed;
	int out_queued; /* bytes of a body that the kernel still held at the last look, all having been sent; 0: none, or it didn't matter */
	bool reused; /* this exchange started on a connection from the pool */

	/* the answer */
	char *in;
	size_t in_pos, in_len, in_room;
	bool answer_began, in_body, keep;
	unsigned interim; /* 1xx answers so far */
	int status;
	enum cst_http_framing framing;
	uint64_t body_left;
	struct cst_http_chunked chunked;
	bool to_into;
	int into_at;
	size_t into_pos;
	bool unclean_eof; /* TLS without close_notify */
	bool drained;	  /* the last receive found nothing behind what it took */
	int64_t idle_since, sent_at, progress_at;
	bool kept;	  /* idle: not too many when it was looked at */
	int64_t head_at;  /* of the answer */
	int64_t crawled;  /* ns of bodies that came far slower than those of other connections */
	int64_t alarm_at; /* the call's alarm; 0: none */
	bool alarm_rang;  /* it is due; called in the next round */
};

/* http_client.c. */
/* The slot of a closed connection goes to the next waiter or is free. */
void cst_http_slot_free(struct cst_http_endpoint *endpoint);
/* A connection that is ready for another exchange goes to the next waiter or becomes idle. */
void cst_http_conn_give_back(struct cst_http_conn *conn);
/* More are idle than are kept for long. */
bool cst_http_conn_is_spare(struct cst_http_conn *conn);
/* An idle connection leaves the pool to be closed; false when another loop has claimed it. */
bool cst_http_conn_leave_pool(struct cst_http_conn *conn);
/* Ends a call; err has been filled for rc != 0. */
void cst_http_call_done(struct cst_http_call *call, int rc);
void cst_http_client_live(struct cst_http_client *client, int change);
static inline void cst_http_count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

/* All below: on the connection's loop. */

/* http_connect.c. Opens a connection in a slot the caller holds, for the call. */
void cst_http_conn_open(struct cst_http_endpoint *endpoint, struct cst_http_call *call);
void cst_http_connect_next(struct cst_http_conn *conn); /* tries the next address */
void cst_http_connect_event(struct cst_http_conn *conn);
void cst_http_connect_tunnel(struct cst_http_conn *conn);
void cst_http_connect_handshake(struct cst_http_conn *conn);

/* http_exchange.c. Runs the call on a connection from the pool. */
void cst_http_conn_run(struct cst_http_conn *conn, struct cst_http_call *call);
void cst_http_exchange_start(struct cst_http_conn *conn);
bool cst_http_exchange_send(struct cst_http_conn *conn); /* what the socket takes; false: the connection is gone */
void cst_http_exchange_receive(struct cst_http_conn *conn);

/* http_conn.c. */
#define CST_HTTP_IN_ROOM 16384 /* a head and the few bytes of the body that come with it */
/* Ends the call of the connection with an error that is in call->err; closes the connection. */
void cst_http_conn_fail(struct cst_http_conn *conn, int rc);
void cst_http_conn_fail_why(struct cst_http_conn *conn, int rc, const char *why);
/* Closes; the slot is the caller's. */
void cst_http_conn_close(struct cst_http_conn *conn);
void cst_http_conn_close_socket(struct cst_http_conn *conn); /* between two addresses */
void cst_http_conn_free(struct cst_http_conn *conn);	     /* a zombie whose task has come */
/* Watches for the peer's close while no exchange runs. 0 or -errno. */
int cst_http_conn_rest(struct cst_http_conn *conn);
/* Open, and nothing has come that nobody asked for: fit for the next exchange. */
bool cst_http_conn_quiet(struct cst_http_conn *conn);
/* Leaves its loop: no watch, no timer. */
void cst_http_conn_detach(struct cst_http_conn *conn);
/* After each change of state or progress: the timer fires in time for what is due now. */
void cst_http_conn_keep_time(struct cst_http_conn *conn);
int cst_http_conn_set_events(struct cst_http_conn *conn, uint32_t events);
/* > 0 bytes, 0 at the end, -EAGAIN, -errno. *drained: asking again now would give -EAGAIN. */
ssize_t cst_http_conn_receive(struct cst_http_conn *conn, struct iovec *iov, int count, bool *drained);
ssize_t cst_http_conn_send(struct cst_http_conn *conn, struct iovec *iov, int count);
/* The kernel holds less of what has been sent than at the last look: the server is still taking it. */
bool cst_http_conn_output_moves(struct cst_http_conn *conn);
void cst_http_conn_grow_input(struct cst_http_conn *conn, size_t room);
void cst_http_call_why(struct cst_http_call *call, int rc, const char *fmt, ...) CST_PRINTF(3, 4);
