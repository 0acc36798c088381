/* The XML that stores answer with: listing pages, parsed while they arrive, and errors. Private to src/object, its tests and the
 * fuzz targets. A parser belongs to one thread at a time. Document types are refused; depth and lengths are bounded. */
#pragma once

#include "object/write.h"

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
	char condition[40]; /* the one that failed, when the store says so: "If-None-Match" */
};
#define CST_ERROR_XML_MAX 65536
/* 0, or -EBADMSG when it is no <Error> document; what was read before a defect is kept. */
int cst_error_xml_parse(struct cst_slice body, struct cst_store_error *out);
/* x-oss-err: the same in base64. */
int cst_error_xml_parse_header(struct cst_slice value, struct cst_store_error *out);

/* Answers to writing operations, whole. 0, -EBADMSG, or -EREMOTEIO: it is an <Error> document (stores that worked for long have
 * sent a 200 by then), which is in *error. */
#define CST_ANSWER_XML_MAX (16 << 20)
struct cst_result_xml {
	struct cst_buf upload_id;
	char etag[CST_ETAG_MAX], crc32c[12];
	int64_t mtime; /* s; 0: not told */
};
int cst_result_xml_read(struct cst_slice text, const char *root, struct cst_result_xml *result,
			struct cst_store_error *error);
/* Parts behind `after`, in ascending order. *next: 0, or the number to go on behind. */
int cst_parts_xml_read(struct cst_slice text, unsigned after,
		       void (*part)(void *arg, const struct cst_object_part *part), void *arg, unsigned *next,
		       struct cst_store_error *error);
/* next_key: empty at the end. A page that goes on where it began (after_key, after_id) is none. */
int cst_uploads_xml_read(struct cst_slice text, struct cst_slice after_key, struct cst_slice after_id,
			 void (*upload)(void *arg, struct cst_slice key, struct cst_slice upload_id, int64_t initiated),
			 void *arg, struct cst_buf *next_key, struct cst_buf *next_id, struct cst_store_error *error);
/* Keys that were not deleted; false from `failed`: no such key was asked about. */
int cst_deleted_xml_read(struct cst_slice text,
			 bool (*failed)(void *arg, struct cst_slice key, const struct cst_store_error *why), void *arg,
			 struct cst_store_error *error);
