/* A response: the head, then its body when it is chunked, decoded whole and byte by byte with the same outcome.
 * Covers: src/net/http_parser.c */
#include "net/http_parser.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Returns the bytes consumed, -1 when refused. */
static ssize_t decode(const uint8_t *data, size_t size, size_t step, struct cst_buf *out)
{
	struct cst_http_chunked c = {0};
	size_t at = 0;

	while (at < size && !c.done) {
		struct cst_slice content;
		ssize_t n = cst_http_chunked_feed(
			&c, (struct cst_slice){(const char *)data + at, cst_min(step, size - at)}, &content);

		if (n < 0)
			return -1;
		CST_ASSERT(n > 0 && content.len <= (size_t)n);
		cst_buf_add_slice(out, content);
		at += n;
	}
	return (ssize_t)at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CST_AUTO_BUF whole = CST_BUF_INIT;
	CST_AUTO_BUF bytewise = CST_BUF_INIT;
	struct cst_http_head head;
	const char *why;
	ssize_t rc = cst_http_parse_response((struct cst_slice){(const char *)data, size}, &head, &why);
	ssize_t a, b;

	if (rc <= 0 || !head.chunked)
		return 0;
	CST_ASSERT(rc <= (ssize_t)size && head.status >= 100 && head.status <= 999 && head.content_length == -1);
	(void)cst_http_header_get(&head, "etag");
	a = decode(data + rc, size - rc, SIZE_MAX, &whole);
	b = decode(data + rc, size - rc, 1, &bytewise);
	CST_ASSERT(a == b && (a < 0 || cst_slice_eq(cst_buf_slice(&whole), cst_buf_slice(&bytewise))));
	return 0;
}
