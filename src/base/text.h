/* Encodings of text: percent-encoding, hex, base64, XML and JSON escapes. Any thread. */
#pragma once

#include "base/buf.h"

/* Percent-encodes everything but A-Za-z0-9-._~ (and '/' with keep_slash), upper-case hex. */
void cst_text_url_encode(struct cst_buf *out, struct cst_slice in, bool keep_slash);
/* Decodes %XX; with plus_is_space also '+'. -EINVAL on a bad escape. */
int cst_text_url_decode(struct cst_buf *out, struct cst_slice in, bool plus_is_space);
void cst_text_hex(struct cst_buf *out, const void *data, size_t len); /* lower case */
int cst_text_unhex(struct cst_slice in, void *out, size_t len);	      /* exactly len bytes, or -EINVAL */
void cst_text_base64(struct cst_buf *out, const void *data, size_t len);
int cst_text_unbase64(struct cst_buf *out, struct cst_slice in); /* -EINVAL */
/* Escapes for element content and attribute values; bytes that XML 1.0 can't hold become '?'. */
void cst_text_xml_escape(struct cst_buf *out, struct cst_slice in);
/* A quoted JSON string; bytes that are not UTF-8 are written as \u00XX. */
void cst_text_json_string(struct cst_buf *out, struct cst_slice in);
/* Replaces control characters and broken UTF-8 by \xXX so that any name can go to a log or a terminal. */
void cst_text_printable(struct cst_buf *out, struct cst_slice in);
bool cst_text_is_utf8(struct cst_slice in);
/* Compares secrets in time that depends on the length alone. */
bool cst_text_equal_secret(struct cst_slice a, struct cst_slice b);
