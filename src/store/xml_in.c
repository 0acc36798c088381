#include "store/xml_in.h"

#include <errno.h>
#include <expat.h>

#define DEPTH 8
#define NAME 64

struct reader {
	XML_Parser parser;
	const char *root;
	const struct cst_xml_handler *handler;
	void *arg;
	char names[DEPTH][NAME];
	bool has_children[DEPTH];
	int depth;
	bool bad;
	struct cst_buf text;
};

static void stop(struct reader *r)
{
	r->bad = true;
	XML_StopParser(r->parser, XML_FALSE);
}

static void XMLCALL on_start(void *arg, const XML_Char *name, const XML_Char **attributes)
{
	struct reader *r = arg;
	const char *colon = strrchr(name, ':');
	const char *local = colon ? colon + 1 : name;

	(void)attributes;
	if (r->depth == DEPTH || strlen(local) >= NAME || (r->depth == 0 && strcmp(local, r->root) != 0)) {
		stop(r);
		return;
	}
	if (r->depth)
		r->has_children[r->depth - 1] = true;
	strcpy(r->names[r->depth], local);
	r->has_children[r->depth] = false;
	r->depth++;
	cst_buf_clear(&r->text);
}

static void XMLCALL on_end(void *arg, const XML_Char *name)
{
	struct reader *r = arg;
	bool ok = true;

	(void)name;
	if (r->bad || r->depth == 0)
		return;
	r->depth--;
	if (r->has_children[r->depth]) {
		if (r->handler->end)
			ok = r->handler->end(r->arg, r->names[r->depth]);
	} else if (r->depth > 0) {
		struct cst_slice text = r->text.data ? cst_buf_slice(&r->text) : CST_SLICE("");

		ok = r->handler->leaf(r->arg, r->names[r->depth - 1], r->names[r->depth], text);
	}
	cst_buf_clear(&r->text);
	if (!ok)
		stop(r);
}

static void XMLCALL on_text(void *arg, const XML_Char *text, int len)
{
	struct reader *r = arg;

	cst_buf_add(&r->text, text, (size_t)len);
}

static void XMLCALL on_doctype(void *arg, const XML_Char *name, const XML_Char *sysid, const XML_Char *pubid,
			       int internal)
{
	(void)name;
	(void)sysid;
	(void)pubid;
	(void)internal;
	stop(arg);
}

int cst_xml_read(struct cst_slice text, const char *root, const struct cst_xml_handler *handler, void *arg)
{
	struct reader r = {.parser = XML_ParserCreate(NULL), .root = root, .handler = handler, .arg = arg};
	enum XML_Status status;

	CST_ASSERT(r.parser != NULL);
	if (text.len > 1 << 26) {
		XML_ParserFree(r.parser);
		return -EINVAL;
	}
	XML_SetUserData(r.parser, &r);
	XML_SetElementHandler(r.parser, on_start, on_end);
	XML_SetCharacterDataHandler(r.parser, on_text);
	XML_SetStartDoctypeDeclHandler(r.parser, on_doctype);
	status = XML_Parse(r.parser, text.len ? text.data : "", (int)text.len, 1);
	XML_ParserFree(r.parser);
	cst_buf_fini(&r.text);
	return status == XML_STATUS_OK && !r.bad ? 0 : -EINVAL;
}
