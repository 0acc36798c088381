#include "base/error.h"

#include <stdarg.h>
#include <string.h>

void cst_error_clear(struct cst_error *err)
{
	if (err)
		*err = (struct cst_error)CST_ERROR_INIT;
}

int cst_error_set(struct cst_error *err, int code, const char *fmt, ...)
{
	if (!err)
		return -code;

	char what[sizeof(err->what)]; /* the arguments may point into err */
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);

	cst_error_clear(err);
	err->code = code;
	memcpy(err->what, what, sizeof(what));
	return -code;
}

void cst_error_why(struct cst_error *err, const char *fmt, ...)
{
	if (!err)
		return;
	char text[sizeof(err->why)];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	memcpy(err->why, text, sizeof(text));
}

void cst_error_hint(struct cst_error *err, const char *fmt, ...)
{
	if (!err)
		return;
	char text[sizeof(err->hint)];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	memcpy(err->hint, text, sizeof(text));
}

void cst_error_wrap(struct cst_error *err, const char *fmt, ...)
{
	if (!err)
		return;
	char what[sizeof(err->what)];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	if (!err->why[0])
		memcpy(err->why, err->what, sizeof(err->what));
	memcpy(err->what, what, sizeof(what));
}

static void append(char *buf, size_t size, size_t *len, const char *text)
{
	for (; *text && *len + 1 < size; text++)
		buf[(*len)++] = ((unsigned char)*text < 0x20 || *text == 0x7f) ? ' ' : *text;
	buf[*len] = '\0';
}

const char *cst_error_text(const struct cst_error *err, char *buf, size_t size)
{
	size_t len = 0;
	if (size == 0)
		return buf;
	buf[0] = '\0';
	append(buf, size, &len, err->what);
	if (err->why[0]) {
		append(buf, size, &len, ": ");
		append(buf, size, &len, err->why);
	}
	if (err->hint[0]) {
		append(buf, size, &len, "; ");
		append(buf, size, &len, err->hint);
	}
	return buf;
}
