/* The documents that answer writing operations and listings of uploads. They are read when they have come whole, twice: nothing is handed out
 * of a document that turns out to be malformed at its end. */
#include "object/xml.h"

#include "base/clock.h"
#include "base/text.h"

#include <errno.h>
#include <expat.h>

#define DEPTH 8
#define NAME_MAX 48
#define TEXT_MAX 8192 /* a key of 1,024 bytes, percent-encoded, is shorter */

/* Elements without children, and the ends of the others. False: the document is malformed. */
struct handler {
	bool (*leaf)(void *arg, const char *parent, const char *name, struct cst_slice text);
	bool (*end)(void *arg, const char *name);
};

struct reader {
	XML_Parser expat;
	const struct handler *handler;
	void *arg;
	char names[DEPTH][NAME_MAX], root[NAME_MAX];
	bool has_children[DEPTH];
	int depth;
	bool bad, ended;
	struct cst_buf text;
};

static void stop(struct reader *r)
{
	r->bad = true;
	XML_StopParser(r->expat, XML_FALSE);
}

static void XMLCALL on_start(void *arg, const XML_Char *name, const XML_Char **attributes)
{
	struct reader *r = arg;
	const char *colon = strchr(name, ':'), *local = colon ? colon + 1 : name;
	(void)attributes;
	if (r->depth == DEPTH || strlen(local) >= NAME_MAX) {
		stop(r);
		return;
	}
	if (r->depth)
		r->has_children[r->depth - 1] = true;
	else
		snprintf(r->root, sizeof(r->root), "%s", local);
	snprintf(r->names[r->depth], NAME_MAX, "%s", local);
	r->has_children[r->depth++] = false;
	cst_buf_clear(&r->text);
}

static void XMLCALL on_end(void *arg, const XML_Char *name)
{
	struct reader *r = arg;
	(void)name;
	if (r->bad)
		return;
	bool ok = true;
	const char *own = r->names[--r->depth];
	cst_buf_room(&r->text, 1);
	if (r->depth == 0)
		r->ended = true;
	else if (r->has_children[r->depth])
		ok = !r->handler->end || r->handler->end(r->arg, own);
	else
		ok = !r->handler->leaf ||
		     r->handler->leaf(r->arg, r->names[r->depth - 1], own, cst_buf_slice(&r->text));
	cst_buf_clear(&r->text);
	if (!ok)
		stop(r);
}

static void XMLCALL on_text(void *arg, const XML_Char *text, int len)
{
	struct reader *r = arg;
	if (r->text.len + (size_t)len > TEXT_MAX)
		stop(r);
	else
		cst_buf_add(&r->text, text, (size_t)len);
}

static void XMLCALL on_doctype(void *arg, const XML_Char *name, const XML_Char *sysid, const XML_Char *pubid,
			       int internal)
{
	(void)name, (void)sysid, (void)pubid, (void)internal;
	stop(arg);
}

/* Stores that work for long send blanks first, so that the connection lives. */
static struct cst_slice without_padding(struct cst_slice s)
{
	while (s.len && (s.data[0] == ' ' || s.data[0] == '\n' || s.data[0] == '\r' || s.data[0] == '\t')) {
		s.data++;
		s.len--;
	}
	return s;
}

static int read_document(struct cst_slice text, const char *root, const struct handler *handler, void *arg,
			 struct cst_store_error *error)
{
	struct reader r = {.expat = XML_ParserCreate("UTF-8"), .handler = handler, .arg = arg};
	CST_ASSERT(r.expat);
	text = without_padding(text);
	bool fits = text.len > 0 && text.len <= CST_ANSWER_XML_MAX;
	XML_SetUserData(r.expat, &r);
	XML_SetElementHandler(r.expat, on_start, on_end);
	XML_SetCharacterDataHandler(r.expat, on_text);
	XML_SetStartDoctypeDeclHandler(r.expat, on_doctype);
	bool ok = fits && XML_Parse(r.expat, text.data, (int)text.len, 1) == XML_STATUS_OK && !r.bad && r.ended;
	XML_ParserFree(r.expat);
	cst_buf_fini(&r.text);
	if (strcmp(r.root, "Error") == 0 && cst_error_xml_parse(text, error) == 0)
		return -EREMOTEIO;
	return ok && strcmp(r.root, root) == 0 ? 0 : -EBADMSG;
}

static bool number(struct cst_slice s, uint64_t *out)
{
	uint64_t v = 0;
	s = cst_slice_trim(s);
	for (size_t i = 0; i < s.len; i++) {
		unsigned digit = (unsigned)(unsigned char)s.data[i] - '0';
		if (digit > 9 || v > (UINT64_MAX - digit) / 10)
			return false;
		v = v * 10 + digit;
	}
	*out = v;
	return s.len > 0;
}

static void copy_etag(struct cst_slice s, char out[CST_ETAG_MAX])
{
	s = cst_slice_trim(s);
	if (s.len >= 2 && s.data[0] == '"' && s.data[s.len - 1] == '"')
		s = (struct cst_slice){s.data + 1, s.len - 2};
	snprintf(out, CST_ETAG_MAX, "%.*s", (int)s.len, s.len ? s.data : "");
}

static void copy_crc32c(struct cst_slice s, char out[12])
{
	s = cst_slice_trim(s);
	snprintf(out, 12, "%.*s", s.len == 8 ? 8 : 0, s.len ? s.data : "");
}

/* ---- results ---- */

static bool result_leaf(void *arg, const char *parent, const char *name, struct cst_slice text)
{
	struct cst_result_xml *result = arg;
	(void)parent;
	if (strcmp(name, "UploadId") == 0) {
		cst_buf_clear(&result->upload_id);
		cst_buf_add_slice(&result->upload_id, cst_slice_trim(text));
	} else if (strcmp(name, "ETag") == 0) {
		copy_etag(text, result->etag);
	} else if (strcmp(name, "ChecksumCRC32C") == 0) {
		copy_crc32c(text, result->crc32c);
	} else if (strcmp(name, "LastModified") == 0) {
		text = cst_slice_trim(text);
		if (!text.len || cst_time_parse(text.data, text.len, &result->mtime) < 0)
			result->mtime = 0;
	}
	return true;
}

int cst_result_xml_read(struct cst_slice text, const char *root, struct cst_result_xml *result,
			struct cst_store_error *error)
{
	static const struct handler handler = {.leaf = result_leaf};
	cst_buf_clear(&result->upload_id);
	result->etag[0] = result->crc32c[0] = '\0';
	result->mtime = 0;
	return read_document(text, root, &handler, result, error);
}

/* ---- parts ---- */

struct parts {
	void (*part)(void *arg, const struct cst_object_part *part);
	void *arg;
	struct cst_object_part now;
	uint64_t next;
	unsigned last;
	bool truncated, sized;
};

static bool parts_leaf(void *arg, const char *parent, const char *name, struct cst_slice text)
{
	struct parts *p = arg;
	uint64_t n;
	if (strcmp(parent, "ListPartsResult") == 0) {
		if (strcmp(name, "IsTruncated") == 0)
			p->truncated = cst_slice_ieq(cst_slice_trim(text), CST_SLICE("true"));
		return strcmp(name, "NextPartNumberMarker") != 0 || cst_slice_trim(text).len == 0 ||
		       number(text, &p->next);
	}
	if (strcmp(parent, "Part") != 0)
		return true;
	if (strcmp(name, "PartNumber") == 0) {
		if (!number(text, &n) || n < 1 || n > UINT32_MAX)
			return false;
		p->now.number = (unsigned)n;
	} else if (strcmp(name, "Size") == 0) {
		p->sized = number(text, &p->now.size);
		return p->sized;
	} else if (strcmp(name, "ETag") == 0) {
		copy_etag(text, p->now.etag);
	} else if (strcmp(name, "HashCrc64ecma") == 0) {
		p->now.has_crc64 = number(text, &p->now.crc64);
	} else if (strcmp(name, "ChecksumCRC32C") == 0) {
		copy_crc32c(text, p->now.crc32c);
	}
	return true;
}

static bool parts_end(void *arg, const char *name)
{
	struct parts *p = arg;
	if (strcmp(name, "Part") != 0)
		return true;
	if (p->now.number <= p->last || !p->now.etag[0] || !p->sized)
		return false;
	p->last = p->now.number;
	if (p->part)
		p->part(p->arg, &p->now);
	memset(&p->now, 0, sizeof(p->now));
	p->sized = false;
	return true;
}

int cst_parts_xml_read(struct cst_slice text, unsigned after,
		       void (*part)(void *arg, const struct cst_object_part *part), void *arg, unsigned *next,
		       struct cst_store_error *error)
{
	static const struct handler handler = {parts_leaf, parts_end};
	struct parts p = {.last = after};
	int rc = read_document(text, "ListPartsResult", &handler, &p, error);
	if (rc)
		return rc;
	/* Whoever doesn't tell where to go on means: behind the last. Never before it: parts would come twice. */
	uint64_t from = cst_max(p.next, p.last > after ? (uint64_t)p.last : 0);
	if (p.truncated && (from <= after || from > UINT32_MAX))
		return -EBADMSG;
	*next = p.truncated ? (unsigned)from : 0;
	p = (struct parts){.last = after, .part = part, .arg = arg};
	return read_document(text, "ListPartsResult", &handler, &p, error);
}

/* ---- uploads ---- */

struct uploads {
	void (*upload)(void *arg, struct cst_slice key, struct cst_slice upload_id, int64_t initiated);
	void *arg;
	bool encoded, truncated;
	struct cst_buf key, id, next_key, next_id;
	int64_t initiated;
};

static bool take_key(const struct uploads *u, struct cst_slice text, struct cst_buf *out)
{
	cst_buf_clear(out);
	if (u->encoded)
		return cst_text_url_decode(out, text, true) == 0;
	cst_buf_add_slice(out, text);
	return true;
}

static void take_text(struct cst_slice text, struct cst_buf *out)
{
	cst_buf_clear(out);
	cst_buf_add_slice(out, text);
}

static bool uploads_leaf(void *arg, const char *parent, const char *name, struct cst_slice text)
{
	struct uploads *u = arg;
	if (strcmp(parent, "ListMultipartUploadsResult") == 0) {
		if (strcmp(name, "EncodingType") == 0)
			u->encoded = cst_slice_ieq(cst_slice_trim(text), CST_SLICE("url"));
		else if (strcmp(name, "IsTruncated") == 0)
			u->truncated = cst_slice_ieq(cst_slice_trim(text), CST_SLICE("true"));
		else if (strcmp(name, "NextKeyMarker") == 0)
			return take_key(u, text, &u->next_key);
		else if (strcmp(name, "NextUploadIdMarker") == 0)
			take_text(text, &u->next_id);
		return true;
	}
	if (strcmp(parent, "Upload") != 0)
		return true;
	if (strcmp(name, "Key") == 0)
		return take_key(u, text, &u->key);
	if (strcmp(name, "UploadId") == 0)
		take_text(text, &u->id);
	if (strcmp(name, "Initiated") == 0 && (!text.len || cst_time_parse(text.data, text.len, &u->initiated) < 0))
		u->initiated = 0;
	return true;
}

static bool uploads_end(void *arg, const char *name)
{
	struct uploads *u = arg;
	if (strcmp(name, "Upload") != 0)
		return true;
	if (!u->key.len || !u->id.len)
		return false;
	if (u->upload)
		u->upload(u->arg, cst_buf_slice(&u->key), cst_buf_slice(&u->id), u->initiated);
	cst_buf_clear(&u->key);
	cst_buf_clear(&u->id);
	u->initiated = 0;
	return true;
}

int cst_uploads_xml_read(struct cst_slice text, struct cst_slice after_key, struct cst_slice after_id,
			 void (*upload)(void *arg, struct cst_slice key, struct cst_slice upload_id, int64_t initiated),
			 void *arg, struct cst_buf *next_key, struct cst_buf *next_id, struct cst_store_error *error)
{
	static const struct handler handler = {uploads_leaf, uploads_end};
	struct uploads u = {0};
	/* The encoding may be named behind the keys: known for all from the second reading on. */
	int rc = read_document(text, "ListMultipartUploadsResult", &handler, &u, error);
	if (rc == 0 && u.encoded)
		rc = read_document(text, "ListMultipartUploadsResult", &handler, &u, error);
	bool moves = u.next_key.len > 0 && !(cst_slice_eq(cst_buf_slice(&u.next_key), after_key) &&
					     cst_slice_eq(cst_buf_slice(&u.next_id), after_id));
	if (rc == 0 && u.truncated && !moves)
		rc = -EBADMSG;
	u.upload = upload;
	u.arg = arg;
	if (rc == 0)
		rc = read_document(text, "ListMultipartUploadsResult", &handler, &u, error);
	take_text(u.truncated ? cst_buf_slice(&u.next_key) : (struct cst_slice){0}, next_key);
	take_text(u.truncated ? cst_buf_slice(&u.next_id) : (struct cst_slice){0}, next_id);
	cst_buf_fini(&u.key);
	cst_buf_fini(&u.id);
	cst_buf_fini(&u.next_key);
	cst_buf_fini(&u.next_id);
	return rc;
}

/* ---- what was not deleted ---- */

struct deleted {
	bool (*failed)(void *arg, struct cst_slice key, const struct cst_store_error *why);
	void *arg;
	bool encoded;
	struct cst_buf key, decoded;
	struct cst_store_error why;
};

static bool deleted_leaf(void *arg, const char *parent, const char *name, struct cst_slice text)
{
	struct deleted *d = arg;
	CST_AUTO_BUF clean = CST_BUF_INIT;
	if (strcmp(name, "EncodingType") == 0)
		d->encoded = cst_slice_ieq(cst_slice_trim(text), CST_SLICE("url"));
	if (strcmp(parent, "Error") != 0)
		return true;
	cst_text_printable(&clean, cst_slice_trim(text));
	if (strcmp(name, "Key") == 0)
		take_text(text, &d->key);
	else if (strcmp(name, "Code") == 0)
		snprintf(d->why.code, sizeof(d->why.code), "%s", clean.data ? clean.data : "");
	else if (strcmp(name, "Message") == 0)
		snprintf(d->why.message, sizeof(d->why.message), "%s", clean.data ? clean.data : "");
	return true;
}

static bool deleted_end(void *arg, const char *name)
{
	struct deleted *d = arg;
	if (strcmp(name, "Error") != 0)
		return true;
	struct cst_slice key = cst_buf_slice(&d->key);
	cst_buf_clear(&d->decoded);
	if (d->encoded && cst_text_url_decode(&d->decoded, key, true) < 0)
		return false;
	bool ok = d->failed(d->arg, d->encoded ? cst_buf_slice(&d->decoded) : key, &d->why);
	cst_buf_clear(&d->key);
	memset(&d->why, 0, sizeof(d->why));
	return ok;
}

int cst_deleted_xml_read(struct cst_slice text,
			 bool (*failed)(void *arg, struct cst_slice key, const struct cst_store_error *why), void *arg,
			 struct cst_store_error *error)
{
	static const struct handler encoding = {.leaf = deleted_leaf}, all = {deleted_leaf, deleted_end};
	struct deleted d = {.failed = failed, .arg = arg};
	int rc = read_document(text, "DeleteResult", &encoding, &d, error);
	cst_buf_clear(&d.key);
	memset(&d.why, 0, sizeof(d.why));
	if (rc == 0)
		rc = read_document(text, "DeleteResult", &all, &d, error);
	cst_buf_fini(&d.key);
	cst_buf_fini(&d.decoded);
	return rc;
}
