/* An HTTP server of raw sockets whose answers the test writes byte by byte: for cut bodies, resets and stalls. A thread a
 * connection; the answer function is called under one lock, so tests keep plain counters. */
#pragma once

#include "base/buf.h"

enum scripted_end {
	SCRIPTED_KEEP,	/* the connection stays */
	SCRIPTED_CLOSE, /* after the answer */
	SCRIPTED_RESET,
	SCRIPTED_STALL, /* says no more until the client closes or the server stops */
	SCRIPTED_HOLD,	/* keeps; see SCRIPTED_HOLD_AT */
};
/* Bytes of the answer behind `position` are sent when the test lets go; returned instead of a scripted_end. */
#define SCRIPTED_HOLD_AT(position) ((enum scripted_end)(SCRIPTED_HOLD | (int)(position) << 8))

struct scripted_server;
/* n counts requests from 0; `request` is the head as received, NUL-terminated. The body has been read, too, unless the server answers early. */
typedef enum scripted_end (*scripted_fn)(const void *arg, unsigned n, const char *request, struct cst_buf *answer);
struct scripted_server *scripted_server_start(scripted_fn fn, const void *arg);
void scripted_server_stop(struct scripted_server *s);
unsigned scripted_server_port(const struct scripted_server *s);
unsigned scripted_server_requests(struct scripted_server *s);
void scripted_server_wait_requests(struct scripted_server *s, unsigned least);
void scripted_server_let_go(struct scripted_server *s);
/* The nth request as it came; its body (up to 64 KiB of it). */
const char *scripted_server_request(struct scripted_server *s, unsigned n);
const char *scripted_server_body(struct scripted_server *s, unsigned n);
/* Bodies of the first n requests are not read, but answered at once. */
void scripted_server_early(struct scripted_server *s, unsigned n);
/* Writes head and body; headers: further "Name: value\r\n" lines or "". */
void scripted_answer(struct cst_buf *out, int status, const char *headers, const char *body);
