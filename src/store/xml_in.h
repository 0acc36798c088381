/* Reading the small XML documents that clients send. Streaming (expat), no document types, no entities of one's own,
 * bounded depth. Namespaces and prefixes are passed over. Fuzzed. */
#pragma once

#include "base/buf.h"

struct cst_xml_handler {
	/* An element without elements in it. */
	bool (*leaf)(void *arg, const char *parent, const char *name, struct cst_slice text);
	/* An element that had elements in it ends. May be NULL. */
	bool (*end)(void *arg, const char *name);
};
/* 0, or -EINVAL: not well formed, another root than `root`, too deep, or a handler returned false. */
int cst_xml_read(struct cst_slice text, const char *root, const struct cst_xml_handler *handler, void *arg);
