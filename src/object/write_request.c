/* The requests of writing operations: lines, queries and documents. */
#include "object/backend.h"

#include "base/digest.h"
#include "base/text.h"

#include <arpa/inet.h>
#include <inttypes.h>

/* ---- header lines ---- */

static bool is_name(struct cst_slice s)
{
	for (size_t i = 0; i < s.len; i++)
		if ((unsigned char)s.data[i] <= ' ' || (unsigned char)s.data[i] >= 0x7f ||
		    strchr("()<>@,;:\\\"/[]?={}", s.data[i]))
			return false;
	return s.len > 0;
}

/* A line end in a value would begin a line of somebody else's making. */
static bool is_value(struct cst_slice s)
{
	for (size_t i = 0; i < s.len; i++)
		if (((unsigned char)s.data[i] < ' ' && s.data[i] != '\t') || s.data[i] == 0x7f)
			return false;
	return true;
}

static bool are_lines(struct cst_slice s)
{
	while (s.len) {
		struct cst_slice line = cst_slice_cut(&s, '\n');
		if (!s.data || !line.len || line.data[line.len - 1] != '\r')
			return false;
		line.len--;
		struct cst_slice value = line, name = cst_slice_cut(&value, ':');
		if (!value.data || !is_name(name) || !is_value(value))
			return false;
	}
	return true;
}

static bool add_line(struct cst_buf *out, const char *prefix, struct cst_slice name, struct cst_slice value)
{
	cst_buf_add_str(out, prefix);
	cst_buf_add_slice(out, name);
	cst_buf_add_str(out, ": ");
	cst_buf_add_slice(out, value);
	cst_buf_add_str(out, "\r\n");
	return is_value(value);
}

bool cst_write_add_properties(struct cst_object_op *op, const struct cst_object_properties *p)
{
	const struct cst_backend *backend = op->bucket->backend;
	struct cst_buf *out = &op->write->lines;
	static const struct cst_object_properties none;
	bool ok = true;
	p = p ? p : &none;
	ok &= add_line(out, "", CST_SLICE("Content-Type"),
		       p->content_type.len ? p->content_type : CST_SLICE("application/octet-stream"));
	for (size_t i = 0; i < p->meta_count; i++)
		ok &= is_name(p->meta[i].name) &&
		      add_line(out, backend->meta_prefix, p->meta[i].name, p->meta[i].value);
	if (p->storage_class.len)
		ok &= add_line(out, backend->header_prefix, CST_SLICE("storage-class"), p->storage_class);
	if (p->acl.len)
		ok &= add_line(out, "", cst_slice_of(backend->acl_header), p->acl);
	ok &= are_lines(p->extra);
	cst_buf_add_slice(out, p->extra);
	return ok;
}

bool cst_write_add_condition(struct cst_object_op *op, enum cst_object_condition condition, const char *if_match)
{
	const struct cst_backend *backend = op->bucket->backend;
	struct cst_write *w = op->write;
	w->condition = condition;
	if (condition == CST_OBJECT_IF_ABSENT)
		cst_buf_add_str(&w->lines,
				backend->if_match ? "If-None-Match: *\r\n" : "x-oss-forbid-overwrite: true\r\n");
	if (condition != CST_OBJECT_IF_MATCH)
		return true;
	struct cst_slice etag = cst_slice_of(if_match);
	cst_buf_add_str(&w->lines, "If-Match: \"");
	cst_buf_add_slice(&w->lines, etag);
	cst_buf_add_str(&w->lines, "\"\r\n");
	return etag.len && is_value(etag);
}

bool cst_write_add_source(struct cst_object_op *op, struct cst_slice source, const char *if_match)
{
	const struct cst_bucket *b = op->bucket;
	struct cst_buf *out = &op->write->lines;
	cst_buf_printf(out, "%scopy-source: /", b->backend->header_prefix);
	cst_text_url_encode(out, cst_slice_of(b->name), false);
	cst_buf_add_char(out, '/');
	cst_text_url_encode(out, source, true);
	cst_buf_add_str(out, "\r\n");
	struct cst_slice etag = cst_slice_of(if_match);
	op->write->source_condition = etag.len > 0;
	if (!etag.len)
		return true;
	cst_buf_printf(out, "%scopy-source-if-match: \"", b->backend->header_prefix);
	cst_buf_add_slice(out, etag);
	cst_buf_add_str(out, "\"\r\n");
	return is_value(etag);
}

/* ---- documents ---- */

static void set_document(struct cst_write *w)
{
	w->document_iov = (struct iovec){w->document.data, w->document.len};
}

void cst_write_parts_document(struct cst_object_op *op, const struct cst_object_part *parts, size_t count)
{
	struct cst_buf *xml = &op->write->document;
	cst_buf_add_str(xml, op->bucket->backend->crc32c
				     ? "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
				     : "<CompleteMultipartUpload>");
	for (size_t i = 0; i < count; i++) {
		cst_buf_printf(xml, "<Part><PartNumber>%u</PartNumber><ETag>\"", parts[i].number);
		cst_text_xml_escape(xml, cst_slice_of(parts[i].etag));
		cst_buf_add_str(xml, "\"</ETag>");
		if (op->bucket->backend->crc32c && parts[i].crc32c[0])
			cst_buf_printf(xml, "<ChecksumCRC32C>%s</ChecksumCRC32C>", parts[i].crc32c);
		cst_buf_add_str(xml, "</Part>");
	}
	cst_buf_add_str(xml, "</CompleteMultipartUpload>");
	set_document(op->write);
}

bool cst_write_fits_xml(struct cst_slice key)
{
	if (!cst_text_is_utf8(key))
		return false;
	for (size_t i = 0; i < key.len; i++) {
		unsigned char c = (unsigned char)key.data[i];
		if ((c < ' ' && c != '\t' && c != '\n' && c != '\r') || c == 0x7f)
			return false;
		if (c == 0xef && (unsigned char)key.data[i + 1] == 0xbf && (unsigned char)key.data[i + 2] >= 0xbe)
			return false; /* U+FFFE, U+FFFF */
	}
	return true;
}

#define DELETE_DOCUMENT_MAX ((size_t)2 << 20) /* OSS takes no larger one */
#define LONGEST_ESCAPE 6

/* The keys that are still there, as many as fit. False: none that a document can hold. */
static bool delete_document(struct cst_object_op *op)
{
	struct cst_write *w = op->write;
	struct cst_buf *xml = &w->document;
	bool any = false;
	cst_buf_clear(xml);
	cst_buf_add_str(xml, op->bucket->backend->crc32c
				     ? "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>"
				     : "<Delete><Quiet>true</Quiet>");
	w->document_end = w->key_count;
	for (size_t i = 0; i < w->key_count; i++) {
		if (w->key[i].state != CST_KEY_IN_DOCUMENT)
			continue;
		if (any && xml->len + w->key[i].len * LONGEST_ESCAPE + 64 > DELETE_DOCUMENT_MAX) {
			w->document_end = i;
			break;
		}
		any = true;
		cst_buf_add_str(xml, "<Object><Key>");
		cst_text_xml_escape(xml, (struct cst_slice){w->keys.data + w->key[i].at, w->key[i].len});
		cst_buf_add_str(xml, "</Key></Object>");
	}
	cst_buf_add_str(xml, "</Delete>");
	set_document(w);
	return any;
}

static void send_document(struct cst_object_op *op, struct cst_http_request *req)
{
	req->body = &op->write->document_iov;
	req->body_count = 1;
	cst_buf_add_str(&op->headers, "Content-Type: application/xml\r\n");
}

static void add_md5(struct cst_object_op *op)
{
	uint8_t md5[CST_MD5_LEN];
	cst_md5(op->write->document.data, op->write->document.len, md5);
	cst_buf_add_str(&op->headers, "Content-MD5: ");
	cst_text_base64(&op->headers, md5, sizeof(md5));
	cst_buf_add_str(&op->headers, "\r\n");
}

static struct cst_slice delete_many(struct cst_object_op *op, struct cst_op_params *params,
				    struct cst_http_request *req)
{
	struct cst_write *w = op->write;
	w->single = w->key_count;
	if (delete_document(op)) {
		req->method = "POST";
		cst_op_param_bare(params, "delete");
		if (!op->bucket->backend->crc32c)
			cst_op_param(params, "encoding-type", CST_SLICE("url"));
		send_document(op, req);
		add_md5(op);
		return (struct cst_slice){0};
	}
	for (w->single = 0; w->key[w->single].state != CST_KEY_SINGLE; w->single++)
		;
	req->method = "DELETE";
	return (struct cst_slice){w->keys.data + w->key[w->single].at, w->key[w->single].len};
}

/* ---- bodies ---- */

static void add_body(struct cst_object_op *op, struct cst_http_request *req)
{
	struct cst_write *w = op->write;
	req->body = w->body;
	req->body_count = w->body_count;
	if (!op->bucket->backend->crc32c)
		return;
	if (!w->crc32c[0]) {
		CST_AUTO_BUF text = CST_BUF_INIT;
		uint32_t crc = 0;
		for (int i = 0; i < w->body_count; i++)
			crc = cst_crc32c(crc, w->body[i].iov_base, w->body[i].iov_len);
		crc = htonl(crc);
		cst_text_base64(&text, &crc, sizeof(crc));
		memcpy(w->crc32c, text.data, cst_min(text.len, sizeof(w->crc32c) - 1));
	}
	cst_buf_printf(&op->headers, "x-amz-checksum-crc32c: %s\r\n", w->crc32c);
}

/* Where the store will tell its own. */
static void know_crc64(struct cst_object_op *op)
{
	struct cst_write *w = op->write;
	if (!op->bucket->backend->crc32c && !w->has_body_crc64) {
		w->body_crc64 = 0;
		for (int i = 0; i < w->body_count; i++)
			w->body_crc64 = cst_crc64(w->body_crc64, w->body[i].iov_base, w->body[i].iov_len);
		w->has_body_crc64 = true;
	}
	if (!w->has_body_crc64)
		return;
	if (op->kind != CST_OP_APPEND)
		w->crc64 = w->body_crc64;
	else if (w->has_crc64 && !w->combined)
		w->crc64 = cst_crc64_combine(w->crc64, w->body_crc64, w->length);
	w->combined = true;
	w->has_crc64 |= op->kind != CST_OP_APPEND;
}

/* ---- the request of an attempt ---- */

static void list_uploads_params(struct cst_object_op *op, struct cst_op_params *params)
{
	struct cst_write *w = op->write;
	cst_op_param_bare(params, "uploads");
	cst_op_param(params, "encoding-type", CST_SLICE("url"));
	cst_op_param(params, "max-uploads", CST_SLICE("1000"));
	if (op->key.len)
		cst_op_param(params, "prefix", cst_buf_slice(&op->key));
	if (w->after.len)
		cst_op_param(params, "key-marker", cst_buf_slice(&w->after));
	if (w->after.len && w->upload_id.len)
		cst_op_param(params, "upload-id-marker", cst_buf_slice(&w->upload_id));
}

static void part_params(struct cst_object_op *op, struct cst_op_params *params, char number[24])
{
	snprintf(number, 24, "%u", op->write->number);
	cst_op_param(params, "partNumber", cst_slice_of(number));
	cst_op_param(params, "uploadId", cst_buf_slice(&op->write->upload_id));
}

static void set_upload_request(struct cst_object_op *op, struct cst_op_params *params, struct cst_http_request *req,
			       char number[24])
{
	struct cst_write *w = op->write;
	switch (op->kind) {
	case CST_OP_BEGIN:
		req->method = "POST";
		cst_op_param_bare(params, "uploads");
		/* Of the whole object: completion then needs no list of the parts' checksums, though it gives what it has. */
		if (op->bucket->backend->crc32c)
			cst_buf_add_str(&op->headers,
					"x-amz-checksum-algorithm: CRC32C\r\nx-amz-checksum-type: FULL_OBJECT\r\n");
		break;
	case CST_OP_PART:
	case CST_OP_PART_COPY:
		req->method = "PUT";
		part_params(op, params, number);
		break;
	case CST_OP_COMPLETE:
		req->method = "POST";
		cst_op_param(params, "uploadId", cst_buf_slice(&w->upload_id));
		send_document(op, req);
		break;
	case CST_OP_ABORT:
		req->method = "DELETE";
		cst_op_param(params, "uploadId", cst_buf_slice(&w->upload_id));
		break;
	default:
		req->method = "GET";
		snprintf(number, 24, "%u", w->number);
		cst_op_param(params, "uploadId", cst_buf_slice(&w->upload_id));
		cst_op_param(params, "max-parts", CST_SLICE("1000"));
		if (w->number)
			cst_op_param(params, "part-number-marker", cst_slice_of(number));
	}
}

struct cst_slice cst_write_request(struct cst_object_op *op, struct cst_op_params *params, struct cst_http_request *req,
				   char number[24])
{
	struct cst_write *w = op->write;
	w->sent_before = w->sent.bytes;
	w->sent.whole = 0;
	w->head_seen = w->whole = w->has_next_position = false;
	cst_buf_clear(&w->answer);
	req->sent = &w->sent;
	cst_buf_add_slice(&op->headers, cst_buf_slice(&w->lines));
	if (op->kind == CST_OP_PUT || op->kind == CST_OP_APPEND || op->kind == CST_OP_PART) {
		know_crc64(op);
		add_body(op, req);
	}
	switch (op->kind) {
	case CST_OP_PUT_SYMLINK:
		cst_op_param_bare(params, "symlink");
		req->method = "PUT";
		break;
	case CST_OP_PUT:
	case CST_OP_COPY:
		req->method = "PUT";
		break;
	case CST_OP_APPEND:
		req->method = "POST";
		snprintf(number, 24, "%" PRIu64, w->position);
		cst_op_param_bare(params, "append");
		cst_op_param(params, "position", cst_slice_of(number));
		break;
	case CST_OP_DELETE:
		req->method = "DELETE";
		break;
	case CST_OP_DELETE_MANY:
		return delete_many(op, params, req);
	case CST_OP_LIST_UPLOADS:
		req->method = "GET";
		list_uploads_params(op, params);
		return (struct cst_slice){0};
	default:
		set_upload_request(op, params, req, number);
	}
	return cst_buf_slice(&op->key);
}
