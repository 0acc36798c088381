/* Error answers: <Error> documents, from a body or from the x-oss-err header of answers that have none. */
#include "object/xml.h"

#include "base/text.h"

#include <errno.h>
#include <expat.h>

#define DEPTH_MAX 16
#define TEXT_MAX 4096

struct state {
	XML_Parser expat;
	struct cst_store_error *out;
	struct cst_buf text;
	unsigned depth;
	bool root_seen;
};

static void XMLCALL on_start(void *arg, const XML_Char *name, const XML_Char **attributes)
{
	struct state *s = arg;
	(void)attributes;
	cst_buf_clear(&s->text);
	s->depth++;
	if (s->depth == 1)
		s->root_seen = strcmp(name, "Error") == 0;
	if (!s->root_seen || s->depth > DEPTH_MAX)
		XML_StopParser(s->expat, XML_FALSE);
}

static void XMLCALL on_text(void *arg, const XML_Char *text, int len)
{
	struct state *s = arg;
	if (s->depth == 2 && s->text.len < TEXT_MAX)
		cst_buf_add(&s->text, text, cst_min((size_t)len, TEXT_MAX - s->text.len));
}

/* Texts go to terminals and logs. */
static void store(char *out, size_t size, struct cst_slice text)
{
	CST_AUTO_BUF clean = CST_BUF_INIT;
	cst_text_printable(&clean, cst_slice_trim(text));
	snprintf(out, size, "%s", clean.data ? clean.data : "");
}

static void XMLCALL on_end(void *arg, const XML_Char *name)
{
	struct state *s = arg;
	struct cst_store_error *out = s->out;
	const struct {
		const char *name;
		char *to;
		size_t size;
	} fields[] = {{"Code", out->code, sizeof(out->code)},
		      {"Message", out->message, sizeof(out->message)},
		      {"RequestId", out->request_id, sizeof(out->request_id)},
		      {"EC", out->ec, sizeof(out->ec)},
		      {"Endpoint", out->endpoint, sizeof(out->endpoint)},
		      {"Region", out->region, sizeof(out->region)},
		      {"Condition", out->condition, sizeof(out->condition)}};
	for (size_t i = 0; s->depth == 2 && i < CST_ARRAY_LEN(fields); i++)
		if (strcmp(name, fields[i].name) == 0)
			store(fields[i].to, fields[i].size, cst_buf_slice(&s->text));
	cst_buf_clear(&s->text);
	s->depth--;
}

static void XMLCALL on_doctype(void *arg, const XML_Char *name, const XML_Char *sysid, const XML_Char *pubid,
			       int internal)
{
	struct state *s = arg;
	(void)name, (void)sysid, (void)pubid, (void)internal;
	XML_StopParser(s->expat, XML_FALSE);
}

int cst_error_xml_parse(struct cst_slice body, struct cst_store_error *out)
{
	struct state s = {.out = out};
	memset(out, 0, sizeof(*out));
	if (body.len == 0 || body.len > CST_ERROR_XML_MAX)
		return -EBADMSG;
	s.expat = XML_ParserCreate("UTF-8");
	CST_ASSERT(s.expat);
	XML_SetUserData(s.expat, &s);
	XML_SetElementHandler(s.expat, on_start, on_end);
	XML_SetCharacterDataHandler(s.expat, on_text);
	XML_SetStartDoctypeDeclHandler(s.expat, on_doctype);
	XML_Parse(s.expat, body.data, (int)body.len, 1);
	XML_ParserFree(s.expat);
	cst_buf_fini(&s.text);
	return s.root_seen ? 0 : -EBADMSG;
}

int cst_error_xml_parse_header(struct cst_slice value, struct cst_store_error *out)
{
	CST_AUTO_BUF body = CST_BUF_INIT;
	memset(out, 0, sizeof(*out));
	if (value.len == 0 || value.len > CST_ERROR_XML_MAX || cst_text_unbase64(&body, value) < 0)
		return -EBADMSG;
	return cst_error_xml_parse(cst_buf_slice(&body), out);
}
