/* A server of exact bytes for the tests of the HTTP client: each accepted connection runs the test's function on a thread
 * of its own, with blocking I/O; the function says what is read and written, byte by byte. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/http_client.h"

#include <pthread.h>
#include <semaphore.h>

struct raw_server {
	int fd;
	uint16_t port;
	unsigned long thread;
	void (*serve)(struct raw_server *server, int fd, unsigned index);
	void *arg;
	unsigned accepted; /* atomic; connections so far */
	unsigned running;  /* atomic */
	sem_t steps;	   /* for tests that make both sides wait for each other */
	pthread_mutex_t lock;
	char seen[4096];    /* lock: the last request, NUL-terminated (its first bytes) */
	char targets[4096]; /* lock: a blank and the target of each request, in order */
};
/* family: AF_INET or AF_INET6 loopback. */
void raw_server_start(struct raw_server *server, int family,
		      void (*serve)(struct raw_server *server, int fd, unsigned index), void *arg);
void raw_server_stop(struct raw_server *server); /* waits for the connections' functions */
/* A port of the loopback on which nobody listens. */
uint16_t raw_closed_port(void);
/* Reads a request with its body (by Content-Length). False at the end of the connection. */
bool raw_read_request(struct raw_server *server, int fd);
/* Copies; valid until the next call of the function. */
const char *raw_seen(struct raw_server *server);
const char *raw_targets(struct raw_server *server);
unsigned raw_accepted(struct raw_server *server);
void raw_send(int fd, const char *bytes);
void raw_send_n(int fd, const void *bytes, size_t len);
/* Reads until the client closes. */
void raw_drain(int fd);
/* Closes with RST. */
void raw_reset(int fd);

/* One call and what became of it. */
struct outcome {
	struct cst_http_call *call;
	sem_t done, head;
	int rc, status, head_rc, body_rc;
	int64_t content_length;
	size_t received;
	struct cst_error err;
	struct cst_buf body; /* what on_body got */
	unsigned dones;
	struct cst_loop *must_be_on;
};

struct cst_http_origin local_origin(uint16_t port);
/* Fills callbacks and arg in, starts. */
void call_start(struct cst_http_client *client, struct outcome *o, struct cst_http_request request);
void call_wait(struct outcome *o); /* waits and releases the handle; outcome_fini() afterwards */
void outcome_fini(struct outcome *o);
/* GET target, to the end. */
void call_get(struct cst_http_client *client, struct outcome *o, const struct cst_http_origin *origin,
	      const char *target);
struct cst_http_client *client_with(unsigned max_connections, struct cst_loop_group *loops, const char *ca_file);
