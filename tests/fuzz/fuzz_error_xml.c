/* Error documents, as bodies and as x-oss-err headers. Whatever comes, the texts are terminated and printable.
 * Covers: src/object/error_xml.c */
#include "object/xml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const char *text, size_t size)
{
	CST_ASSERT(strnlen(text, size) < size);
	for (; *text; text++)
		CST_ASSERT((unsigned char)*text >= ' ' && *text != 0x7f);
}

static void check_all(const struct cst_store_error *e)
{
	check(e->code, sizeof(e->code));
	check(e->message, sizeof(e->message));
	check(e->request_id, sizeof(e->request_id));
	check(e->ec, sizeof(e->ec));
	check(e->endpoint, sizeof(e->endpoint));
	check(e->region, sizeof(e->region));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cst_store_error e;
	cst_error_xml_parse((struct cst_slice){(const char *)data, size}, &e);
	check_all(&e);
	cst_error_xml_parse_header((struct cst_slice){(const char *)data, size}, &e);
	check_all(&e);
	return 0;
}
