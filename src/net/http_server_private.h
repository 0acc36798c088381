/* What the files of the HTTP server share (http_server.c: life, threads, epoll; http_server_listen.c: sockets;
 * http_server_conn.c: bytes of one connection; http_server_exchange.c: one request and its answer).
 *
 * A connection is owned by one thread at a time: by the worker that got its (one-shot) epoll event, until that worker
 * arms it again or closes it. While it waits, only the keeper thread looks at it, under the server's lock, and all it
 * does is to shut the socket down when its time is over, which wakes a worker. */
#pragma once

#include "base/clock.h"
#include "net/http_server.h"
#include "net/http_server_pace.h"

#include <pthread.h>
#include <sys/queue.h>
#include <sys/uio.h>

#define CST_HTTP_SERVER_MAGIC 0x48535256u   /* "HSRV" */
#define CST_HTTP_CONN_MAGIC 0x48434f4eu	    /* "HCON" */
#define CST_HTTP_EXCHANGE_MAGIC 0x48584348u /* "HXCH" */

#define CST_HTTP_IO_BUF (256 * 1024)   /* a worker's buffer for what can't be sent from a file directly */
#define CST_HTTP_SWALLOW (1024 * 1024) /* bytes of an unread request body that are read over; more closes */

/* What an epoll event is about: the first member of what its pointer points to. */
enum cst_http_event { CST_HTTP_EVENT_LISTENER, CST_HTTP_EVENT_CONN };

struct cst_http_listener {
	enum cst_http_event event;
	int fd;
	unsigned index; /* of the address given to cst_http_server_listen() */
	bool tcp;
	struct cst_tls *tls; /* borrowed */
	char *unlink_path;   /* of a Unix socket */
	dev_t unlink_device; /* which file that was */
	ino_t unlink_inode;
	char address[160];
	STAILQ_ENTRY(cst_http_listener) link;
};

/* Phases of a connection:
 *   HANDSHAKE --done--> HEAD --request complete--> BUSY --keep-alive--> HEAD
 *                        |                          |
 *                        +--bad head, timeout-------+--close--> DRAIN (sending side shut, reads over what comes) --> freed
 */
enum cst_http_phase { CST_HTTP_HANDSHAKE, CST_HTTP_HEAD, CST_HTTP_BUSY, CST_HTTP_DRAIN };

/* Timed lists, each in order of its deadlines. */
enum cst_http_timed {
	CST_HTTP_TIMED_IDLE,
	CST_HTTP_TIMED_HEAD,
	CST_HTTP_TIMED_DRAIN,
	CST_HTTP_TIMED_COUNT,
	CST_HTTP_TIMED_NONE
};

struct cst_http_peer {
	enum cst_http_event event;
	unsigned magic;
	struct cst_http_server *server;
	int fd;
	bool tcp;
	enum cst_http_phase phase;
	SSL *ssl;
	bool ktls;	 /* the kernel encrypts what we send */
	bool added;	 /* to the epoll set */
	bool head_clock; /* it was armed with its head incomplete, so it may be on that timed list */
	struct sockaddr_storage peer;
	/* Received and not consumed yet: in[start, end). */
	char *in;
	size_t start, end, cap;
	struct cst_http_pace pace;
	/* guarded by the server's lock */
	enum cst_http_timed timed;
	int64_t deadline;
	bool expired;
	TAILQ_ENTRY(cst_http_peer) timed_link;
	LIST_ENTRY(cst_http_peer) all_link;
};
TAILQ_HEAD(cst_http_peer_list, cst_http_peer);

struct cst_http_worker {
	struct cst_http_server *server;
	unsigned long thread;
	char *head;	    /* the head of the request being answered, CST_HTTP_HEAD_MAX bytes */
	char *io;	    /* CST_HTTP_IO_BUF bytes, made at first use */
	struct cst_buf out; /* memory for response heads */
	int64_t date_s;
	char date[CST_TIME_TEXT];
	SLIST_ENTRY(cst_http_worker) ended_link;
};

struct cst_http_server {
	unsigned magic;
	struct cst_http_server_config config;
	char name[32];
	int epoll_fd, stop_fd;
	STAILQ_HEAD(, cst_http_listener) listeners;
	unsigned addresses; /* given to cst_http_server_listen() */
	bool started;
	unsigned long keeper;
	unsigned cores;

	/* atomics */
	unsigned waiting; /* workers in epoll_wait */
	unsigned busy;	  /* workers with a connection in hand */
	unsigned connections;
	bool stopping;
	uint64_t accepted, refused, requests;

	pthread_mutex_t lock; /* everything below, and the marked members of connections */
	pthread_cond_t keeper_wake, worker_ended;
	struct cst_http_peer_list timed[CST_HTTP_TIMED_COUNT];
	LIST_HEAD(, cst_http_peer) all;
	SLIST_HEAD(, cst_http_worker) ended; /* threads to be joined */
	unsigned workers;
	int64_t keeper_next; /* when the keeper wakes by itself */
	bool keeper_stop;

	pthread_mutex_t pace_lock;
	struct cst_http_pace total_pace; /* pace_lock */
};

/* The state of an answer. */
enum cst_http_answer { CST_HTTP_ANSWER_NONE, CST_HTTP_ANSWER_STARTED, CST_HTTP_ANSWER_ENDED };

struct cst_http_exchange {
	unsigned magic;
	struct cst_http_worker *worker;
	struct cst_http_peer *conn;
	struct cst_http_head head;
	bool keep_alive;
	int failed; /* -errno: nothing more can be sent */
	/* request body */
	bool body_done, continued;
	int body_error; /* -errno: nothing more can be read */
	uint64_t body_read;
	struct cst_http_chunked chunked;
	/* response */
	enum cst_http_answer answer;
	bool head_pending; /* made, goes out with the first body bytes */
	bool bodyless;	   /* HEAD, 204, 304 */
	bool chunk_response;
	int64_t length;
	uint64_t sent;
	struct cst_buf headers; /* lines; then the whole head */
	bool finishing_told;
	/* faults */
	bool reset;
	bool cut, cut_reset;
	uint64_t cut_at;
	struct cst_http_pace slow;
	const struct cst_http_exchange_hooks *hooks;
	void *hook_arg;
};

/* ---- http_server_listen.c ---- */
/* Accepts what waits; all but the last connection are armed, the last is returned (NULL: none). Re-arms the listener. */
struct cst_http_peer *cst_http_listener_accept(struct cst_http_server *server, struct cst_http_listener *listener);
void cst_http_listener_free(struct cst_http_listener *listener);
int cst_http_listener_arm(struct cst_http_server *server, struct cst_http_listener *listener, bool first);

/* ---- http_server.c ---- */
struct cst_http_peer *cst_http_peer_new(struct cst_http_server *server, int fd,
					const struct cst_http_listener *listener, const struct sockaddr_storage *peer);
void cst_http_peer_free(struct cst_http_peer *conn);
/* Gives the connection up: it waits for `events` (EPOLLIN, EPOLLOUT), on the timed list of its phase. */
void cst_http_peer_arm(struct cst_http_peer *conn, uint32_t events);
static inline bool cst_http_server_stopping(const struct cst_http_server *server)
{
	return __atomic_load_n(&server->stopping, __ATOMIC_ACQUIRE);
}

/* ---- http_server_conn.c: all return bytes or 0, or -errno; -EAGAIN only from the try functions ---- */
enum cst_http_step { CST_HTTP_STEP_DONE, CST_HTTP_STEP_WANT_READ, CST_HTTP_STEP_WANT_WRITE, CST_HTTP_STEP_FAILED };
enum cst_http_step cst_http_peer_handshake(struct cst_http_peer *conn);
/* Room for at least `size` more bytes behind conn->end. */
void cst_http_peer_room(struct cst_http_peer *conn, size_t size);
void cst_http_peer_release_buffer(struct cst_http_peer *conn); /* when nothing is in it */
ssize_t cst_http_peer_try_recv(struct cst_http_peer *conn, void *data, size_t size);
ssize_t cst_http_peer_recv(struct cst_http_peer *conn, void *data, size_t size); /* waits; 0 at the end */
/* Waits until the socket is ready for `events` (0: only for its failure) or `ns` are over. 1, 0 (time is over), or
 * -ECONNRESET when the other side is gone. */
int cst_http_peer_wait(struct cst_http_peer *conn, short events, int64_t ns);
/* Sends everything; more: something follows at once. */
int cst_http_peer_send(struct cst_http_worker *worker, struct cst_http_peer *conn, struct iovec *iov, int count,
		       bool more);
/* Sends `len` bytes of the file; *done tells how many went out also when it fails. -EPIPE: the file ended early. */
int cst_http_peer_sendfile(struct cst_http_worker *worker, struct cst_http_peer *conn, int fd, int64_t offset,
			   size_t len, size_t *done);
void cst_http_peer_shutdown_send(struct cst_http_peer *conn);

/* ---- http_server_exchange.c ---- */
enum cst_http_outcome {
	CST_HTTP_GOES_ON,      /* the connection may have the next request */
	CST_HTTP_WAITS,	       /* for more bytes */
	CST_HTTP_CLOSE,	       /* at once */
	CST_HTTP_CLOSE_GENTLY, /* so that the other side can read what was sent last */
};
/* Runs the request whose head is the first `head_len` bytes of the connection's buffer. */
enum cst_http_outcome cst_http_exchange_run(struct cst_http_worker *worker, struct cst_http_peer *conn,
					    const struct cst_http_head *head, size_t head_len);
/* Answers what could not be parsed (status 400, 408, 431), best effort. */
void cst_http_exchange_refuse(struct cst_http_worker *worker, struct cst_http_peer *conn, int status, const char *why);
const char *cst_http_status_text(int status);
