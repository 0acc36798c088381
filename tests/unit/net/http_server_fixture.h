/* A server with a handler of many paths, and a client that is only a socket. */
#pragma once

#include "base/clock.h"
#include "net/http_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

struct fixture {
	struct cst_http_server *server;
	char address[64]; /* 127.0.0.1:port */
	uint16_t port;
	char unix_path[64];
	char dir[48];
	char cert[64], key[64];
	char file[64];
	int file_fd;
	struct cst_tls *tls;
	char *pattern; /* what the file holds */
	size_t pattern_len;
	/* what handlers saw */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned entered; /* handlers in /hold */
	bool release;
	int write_rc; /* how /flood ended; 1: not yet */
	int sleep_rc;
	uint64_t count_in, count_out;
	unsigned finishing;
	struct cst_http_exchange_hooks hooks;
};

#define FIXTURE_PATTERN (3 * 1024 * 1024 + 77)

/* config: NULL, or limits and times to use; `tls` listens with a certificate made for the test. */
void fixture_start(struct fixture *f, const struct cst_http_server_config *config, bool tls, bool unix_socket);
void fixture_stop(struct fixture *f);
/* Waits until *value == wanted, under the lock. */
void fixture_wait(struct fixture *f, const unsigned *value, unsigned wanted);
void fixture_release(struct fixture *f);

int fixture_connect(const struct fixture *f);
bool fixture_try_connect(const struct fixture *f); /* does somebody listen? */
int fixture_connect_unix(const struct fixture *f);
void send_text(int fd, const char *text);
/* Reads to the end of the stream. Returns the bytes; *rc is 0 or -errno. The caller frees. */
char *read_to_end(int fd, size_t *len, int *rc);
/* Reads one response with Content-Length (none with head_only); the body is left in *body. Returns the status. */
int read_response(int fd, struct cst_buf *head, struct cst_buf *body, bool head_only);
/* Sends the text, reads one response, expects that status and body (NULL: any). */
void expect(int fd, const char *request, int status, const char *body);
void expect_closed(int fd);
