/* The aws-chunked coding: "SIZE[;chunk-signature=HEX]\r\n DATA \r\n" …, a chunk of size 0, trailer lines, and an empty
 * line. An incremental decoder over memory; the caller owns it and feeds it in order. Fuzzed. */
#pragma once

#include "base/buf.h"

#define CST_CHUNK_LINE_MAX 4096

enum cst_chunk_event {
	CST_CHUNK_MORE,	   /* feed more bytes */
	CST_CHUNK_BEGIN,   /* a chunk of c->size with c->signature begins; size 0: the last */
	CST_CHUNK_DATA,	   /* c->data */
	CST_CHUNK_END,	   /* the chunk's bytes are complete */
	CST_CHUNK_TRAILER, /* c->line is a trailer line */
	CST_CHUNK_DONE,
	CST_CHUNK_BAD,
};
struct cst_chunked {
	int state;
	uint64_t size, left;
	struct cst_slice data, line; /* until the next call */
	char signature[65];	     /* "" when the chunk has none */
	struct cst_buf text;	     /* the line so far */
};
void cst_chunked_fini(struct cst_chunked *c);
/* Takes bytes off *in and says what happened. */
enum cst_chunk_event cst_chunked_next(struct cst_chunked *c, struct cst_slice *in);
