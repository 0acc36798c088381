/* Request heads: any bytes, also cut short; what a head says must lie within it.
 * Covers: src/net/http_parser.c */
#include "net/http_parser.h"

#include <errno.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_within(struct cst_slice part, const uint8_t *data, size_t size)
{
	CST_ASSERT(part.len == 0 ||
		   (part.data >= (const char *)data && part.data + part.len <= (const char *)data + size));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cst_http_head head;
	const char *why;
	ssize_t rc = cst_http_parse_request((struct cst_slice){(const char *)data, size}, &head, &why);

	CST_ASSERT(rc <= (ssize_t)size && (rc >= 0 || rc == -EBADMSG || rc == -E2BIG) && (rc >= 0 || why));
	if (rc > 0) {
		check_within(head.method, data, rc);
		check_within(head.target, data, rc);
		CST_ASSERT(head.method.len > 0 && head.target.len > 0 && head.content_length >= -1);
		for (size_t i = 0; i < head.header_count; i++) {
			CST_ASSERT(head.headers[i].name.len > 0);
			check_within(head.headers[i].name, data, rc);
			check_within(head.headers[i].value, data, rc);
		}
		CST_ASSERT(!cst_http_header_get(&head, "no such header").data);
		/* One byte less is not a head. */
		CST_ASSERT(cst_http_parse_request((struct cst_slice){(const char *)data, rc - 1}, &head, &why) == 0);
	}
	return 0;
}
