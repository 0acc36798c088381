/* Listing pages. The first byte chooses the size of the pieces in which the rest arrives.
 * Covers: src/object/list_xml.c */
#include "object/xml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_entry(void *arg, const struct cst_object_list_entry *entry)
{
	uint64_t *sum = arg;
	CST_ASSERT(strnlen(entry->info.etag, CST_ETAG_MAX) < CST_ETAG_MAX);
	for (size_t i = 0; i < entry->info.key.len; i++)
		*sum += (unsigned char)entry->info.key.data[i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct cst_list_xml *p;
	static uint64_t sum;
	struct cst_object_list_page page = {0};
	if (size == 0)
		return 0;
	if (!p)
		p = cst_list_xml_new(on_entry, &sum);
	cst_list_xml_reset(p, &sum);
	size_t step = data[0] % 61 ? data[0] % 61 : size;
	int rc = 0;
	for (size_t at = 1; at < size && rc == 0; at += step)
		rc = cst_list_xml_feed(p, (struct cst_slice){(const char *)data + at, cst_min(step, size - at)});
	if (rc == 0)
		rc = cst_list_xml_finish(p, &page);
	CST_ASSERT((rc == 0) == (cst_list_xml_why(p)[0] == '\0'));
	CST_ASSERT(rc != 0 || (page.count == cst_list_xml_entries(p) && (!page.truncated || page.next_token.len > 0)));
	return 0;
}
