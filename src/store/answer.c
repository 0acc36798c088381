#define CST_LOG_AREA "store"
#include "store/answer.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"

#include <ctype.h>
#include <errno.h>

#define XML_DECLARATION "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"

struct error_row {
	int status;
	const char *code, *text, *ec;
};
#define ERROR_ROW(id, status_, code_, text_, ec_) {status_, code_, text_, ec_},
static const struct error_row errors[] = {CST_STORE_ERRORS(ERROR_ROW)};

void cst_answer_common(struct cst_store_request *r)
{
	const char *id = cst_store_request_id(r->x);

	if (r->dialect == CST_STORE_OSS) {
		cst_http_response_header(r->x, "x-oss-request-id", id);
		return;
	}
	cst_http_response_header(r->x, "x-amz-request-id", id);
	cst_http_response_header(r->x, "x-amz-id-2", id);
}

void cst_answer_empty(struct cst_store_request *r, int status)
{
	cst_answer_common(r);
	cst_http_response_send(r->x, status, "", 0);
}

void cst_answer_xml(struct cst_store_request *r, struct cst_buf *xml)
{
	CST_AUTO_BUF out = CST_BUF_INIT;

	cst_buf_add_str(&out, XML_DECLARATION);
	cst_buf_add_slice(&out, cst_buf_slice(xml));
	cst_answer_common(r);
	cst_http_response_header(r->x, "Content-Type", "application/xml");
	cst_http_response_send(r->x, 200, out.data, out.len);
}

static void error_xml(struct cst_store_request *r, const struct error_row *row, const char *message, const char *extra,
		      struct cst_buf *out)
{
	struct cst_slice host = cst_request_header(r, "host");

	cst_buf_add_str(out, XML_DECLARATION "<Error>");
	cst_xml_text(out, "Code", cst_slice_of(row->code));
	cst_xml_text(out, "Message", cst_slice_of(message));
	cst_xml_text(out, "RequestId", cst_slice_of(cst_store_request_id(r->x)));
	cst_xml_text(out, "HostId", host);
	if (r->bucket_name.len)
		cst_xml_text(out, "BucketName", r->bucket_name);
	if (r->key.len)
		cst_xml_text(out, "Key", r->key);
	if (extra)
		cst_buf_add_str(out, extra);
	if (r->dialect == CST_STORE_OSS && row->ec[0])
		cst_xml_text(out, "EC", cst_slice_of(row->ec));
	cst_buf_add_str(out, "</Error>\n");
}

void cst_answer_error_with(struct cst_store_request *r, enum cst_store_error e, const char *message, const char *extra)
{
	const struct error_row *row = &errors[e];
	CST_AUTO_BUF xml = CST_BUF_INIT;
	CST_AUTO_BUF encoded = CST_BUF_INIT;

	if (r->quiet || cst_http_response_started(r->x))
		return;
	error_xml(r, row, message ? message : row->text, extra, &xml);
	cst_answer_common(r);
	if (r->dialect == CST_STORE_OSS && row->ec[0])
		cst_http_response_header(r->x, "x-oss-ec", row->ec);
	if (r->is_head) {
		if (r->dialect == CST_STORE_OSS) {
			cst_text_base64(&encoded, xml.data, xml.len);
			cst_http_response_header(r->x, "x-oss-err", encoded.data);
		}
		cst_http_response_send(r->x, row->status, "", 0);
		return;
	}
	cst_http_response_header(r->x, "Content-Type", "application/xml");
	cst_http_response_send(r->x, row->status, xml.data, xml.len);
}

void cst_answer_error(struct cst_store_request *r, enum cst_store_error e)
{
	cst_answer_error_with(r, e, NULL, NULL);
}

void cst_answer_errorf(struct cst_store_request *r, enum cst_store_error e, const char *fmt, ...)
{
	CST_AUTO_BUF message = CST_BUF_INIT;
	va_list ap;

	va_start(ap, fmt);
	cst_buf_vprintf(&message, fmt, ap);
	va_end(ap);
	cst_answer_error_with(r, e, message.data, NULL);
}

void cst_answer_errno(struct cst_store_request *r, int rc)
{
	static struct cst_log_limit limit;

	switch (rc) {
	case -ENOENT:
		cst_answer_error(r, CST_STORE_ERR_NO_SUCH_KEY);
		return;
	case -ESTALE:
		cst_answer_error(r, CST_STORE_ERR_NO_SUCH_BUCKET);
		return;
	case -EINVAL:
		cst_answer_error(r, CST_STORE_ERR_INVALID_KEY);
		return;
	case -ENAMETOOLONG:
		cst_answer_error(r,
				 r->dialect == CST_STORE_S3 ? CST_STORE_ERR_KEY_TOO_LONG : CST_STORE_ERR_INVALID_KEY);
		return;
	case -ENOSPC:
	case -EDQUOT:
		cst_answer_error(r, CST_STORE_ERR_STORAGE_FULL);
		break;
	case -EACCES:
	case -EPERM:
	case -EROFS:
	case -ELOOP:
		cst_answer_errorf(r, CST_STORE_ERR_ACCESS_DENIED, "The store can't do that in its directory: %s.",
				  strerror(-rc));
		break;
	default:
		cst_answer_errorf(r, CST_STORE_ERR_INTERNAL, "The store's directory gave an error: %s.", strerror(-rc));
		break;
	}
	if (cst_log_allowed(&limit, CST_NS_PER_S, NULL))
		cst_log_warn("a request failed because of the store's directory: %s", strerror(-rc));
}

/* ---- XML ---- */

void cst_xml_text(struct cst_buf *out, const char *name, struct cst_slice text)
{
	cst_buf_printf(out, "<%s>", name);
	cst_text_xml_escape(out, text);
	cst_buf_printf(out, "</%s>", name);
}

void cst_xml_printf(struct cst_buf *out, const char *name, const char *fmt, ...)
{
	va_list ap;

	cst_buf_printf(out, "<%s>", name);
	va_start(ap, fmt);
	cst_buf_vprintf(out, fmt, ap);
	va_end(ap);
	cst_buf_printf(out, "</%s>", name);
}

void cst_xml_key(struct cst_buf *out, const char *name, struct cst_slice key, bool encode)
{
	if (!encode) {
		cst_xml_text(out, name, key);
		return;
	}
	cst_buf_printf(out, "<%s>", name);
	cst_text_url_encode(out, key, true);
	cst_buf_printf(out, "</%s>", name);
}

void cst_xml_time(struct cst_buf *out, const char *name, int64_t s)
{
	char text[CST_TIME_TEXT];

	cst_time_iso(s, text);
	cst_xml_text(out, name, cst_slice_of(text));
}

void cst_xml_root(const struct cst_store_request *r, struct cst_buf *out, const char *name)
{
	cst_buf_printf(out, "<%s%s>", name,
		       r->dialect == CST_STORE_S3 ? " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"" : "");
}

void cst_xml_owner(const struct cst_store_request *r, struct cst_buf *out, const char *element)
{
	struct cst_slice id = CST_SLICE("cistern");

	if (r->checked)
		id = cst_slice_of(r->credential.access_key);
	cst_buf_printf(out, "<%s>", element);
	cst_xml_text(out, "ID", id);
	cst_xml_text(out, "DisplayName", id);
	cst_buf_printf(out, "</%s>", element);
}

/* ---- names ---- */

const char *cst_answer_etag(const struct cst_store_request *r, const char *etag, char out[CST_ANSWER_ETAG])
{
	size_t n = 0;

	out[n++] = '"';
	for (; *etag && n < CST_ANSWER_ETAG - 2; etag++)
		out[n++] = r->dialect == CST_STORE_OSS ? (char)toupper((unsigned char)*etag) : *etag;
	out[n++] = '"';
	out[n] = '\0';
	return out;
}

static const struct {
	const char *oss, *s3;
} classes[CST_CLASS_COUNT] = {
	[CST_CLASS_STANDARD] = {"Standard", "STANDARD"},
	[CST_CLASS_IA] = {"IA", "STANDARD_IA"},
	[CST_CLASS_ARCHIVE] = {"Archive", "GLACIER"},
	[CST_CLASS_COLD_ARCHIVE] = {"ColdArchive", "DEEP_ARCHIVE"},
	[CST_CLASS_DEEP_COLD_ARCHIVE] = {"DeepColdArchive", "DEEP_ARCHIVE"},
	[CST_CLASS_ONEZONE_IA] = {"IA", "ONEZONE_IA"},
	[CST_CLASS_INTELLIGENT] = {"Standard", "INTELLIGENT_TIERING"},
	[CST_CLASS_GLACIER_IR] = {"IA", "GLACIER_IR"},
	[CST_CLASS_REDUCED] = {"Standard", "REDUCED_REDUNDANCY"},
};

const char *cst_answer_class(const struct cst_store_request *r, enum cst_record_class class)
{
	return r->dialect == CST_STORE_OSS ? classes[class].oss : classes[class].s3;
}

int cst_answer_parse_class(struct cst_slice text, enum cst_record_class *class)
{
	for (int i = 0; i < CST_CLASS_COUNT; i++) {
		if (cst_slice_ieq(text, cst_slice_of(classes[i].oss)) ||
		    cst_slice_ieq(text, cst_slice_of(classes[i].s3))) {
			*class = (enum cst_record_class)i;
			return 0;
		}
	}
	return -EINVAL;
}

const char *cst_answer_type(enum cst_record_type type)
{
	static const char *const names[] = {
		[CST_RECORD_NORMAL] = "Normal",
		[CST_RECORD_MULTIPART] = "Multipart",
		[CST_RECORD_APPENDABLE] = "Appendable",
		[CST_RECORD_SYMLINK] = "Symlink",
	};

	return names[type];
}
