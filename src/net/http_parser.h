/* HTTP/1.1 message heads and chunked bodies (RFC 9112), for both client and server. Pure functions over memory: no
 * allocation, no I/O; every slice points into the caller's buffer. Any thread. Fuzzed. */
#pragma once

#include "base/buf.h"

#define CST_HTTP_HEAD_MAX 65536 /* longest head accepted, bytes */
#define CST_HTTP_HEADERS_MAX 128

struct cst_http_header {
	struct cst_slice name;	/* as sent */
	struct cst_slice value; /* trimmed */
};

struct cst_http_head {
	/* request */
	struct cst_slice method;
	struct cst_slice target; /* "/path?query", or absolute form */
	/* response */
	int status;
	struct cst_slice reason;
	/* both */
	int minor_version; /* HTTP/1.N */
	struct cst_http_header headers[CST_HTTP_HEADERS_MAX];
	size_t header_count;
	/* derived */
	bool keep_alive;
	bool chunked; /* Transfer-Encoding: chunked is last */
	bool expect_continue;
	int64_t content_length; /* -1: not given */
};

/* Parses a head that ends with an empty line. Returns its length in bytes, 0 when more bytes are needed, or -EBADMSG
 * with *why set to a constant text: bad syntax, bare CR or NUL in a header, conflicting or repeated Content-Length,
 * Content-Length beside chunked, unknown transfer coding, obsolete folding, too long (-E2BIG). */
ssize_t cst_http_parse_request(struct cst_slice data, struct cst_http_head *head, const char **why);
ssize_t cst_http_parse_response(struct cst_slice data, struct cst_http_head *head, const char **why);

/* The first header of that name (any case); data == NULL when absent. */
struct cst_slice cst_http_header_get(const struct cst_http_head *head, const char *name);

/* Incremental decoder of a chunked body. Feed bytes; it says how many it took and which part of them is content. */
struct cst_http_chunked {
	uint64_t left; /* of the current chunk */
	uint8_t state;
	bool done; /* the last chunk and the trailer have been read */
	uint32_t line_len;
};
/* Consumes a prefix of `data`: returns the bytes consumed (> 0 unless data is empty or done), with *content set to the
 * content bytes among them (maybe none), or -EBADMSG. Trailer fields are read over. */
ssize_t cst_http_chunked_feed(struct cst_http_chunked *c, struct cst_slice data, struct cst_slice *content);
/* How many content bytes come next at once (0: framing comes first). A caller may receive them straight into place, then
 * tell how many it got with cst_http_chunked_took(). */
uint64_t cst_http_chunked_next(const struct cst_http_chunked *c);
void cst_http_chunked_took(struct cst_http_chunked *c, uint64_t len);
