/* The XML that stores answer with: listing pages, parsed while they arrive, and errors. Private to src/object, its tests and the
 * fuzz targets. A parser belongs to one thread at a time. Document types are refused; depth and lengths are bounded. */
#pragma once

#include "object/object.h"

struct cst_list_xml;
/* entry may be called during feed and finish; what it is given is valid inside the call only. */
struct cst_list_xml *cst_list_xml_new(void (*entry)(void *arg, const struct cst_object_list_entry *entry), void *arg);
void cst_list_xml_free(struct cst_list_xml *p);
void cst_list_xml_reset(struct cst_list_xml *p, void *arg); /* for another page */
/* 0, or -EBADMSG with cst_list_xml_why(). */
int cst_list_xml_feed(struct cst_list_xml *p, struct cst_slice piece);
/* At the end of the body. The token lives until the next reset. */
int cst_list_xml_finish(struct cst_list_xml *p, struct cst_object_list_page *page);
const char *cst_list_xml_why(const struct cst_list_xml *p);
unsigned cst_list_xml_entries(const struct cst_list_xml *p); /* handed out so far */

/* What an error answer says; control characters are replaced. */
struct cst_store_error {
	char code[64];
	char message[400];
	char request_id[64];
	char ec[24];
	char endpoint[160]; /* where the bucket is, when the store says so */
	char region[64];
};
#define CST_ERROR_XML_MAX 65536
/* 0, or -EBADMSG when it is no <Error> document; what was read before a defect is kept. */
int cst_error_xml_parse(struct cst_slice body, struct cst_store_error *out);
/* x-oss-err: the same in base64. */
int cst_error_xml_parse_header(struct cst_slice value, struct cst_store_error *out);
