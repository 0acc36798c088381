#include "base/buf.h"

#include <stdio.h>
#include <strings.h>

void cst_panic(const char *file, int line, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "cistern: internal error at %s:%d: %s\n", file, line, text);
	abort();
}

static _Noreturn void out_of_memory(size_t size)
{
	fprintf(stderr, "cistern: out of memory (%zu bytes asked)\n", size);
	abort();
}

void *cst_xmalloc(size_t size)
{
	void *p = malloc(size ? size : 1);
	if (!p)
		out_of_memory(size);
	return p;
}

void *cst_xcalloc(size_t count, size_t size)
{
	void *p = calloc(count ? count : 1, size ? size : 1);
	if (!p)
		out_of_memory(count * size);
	return p;
}

void *cst_xrealloc(void *p, size_t size)
{
	p = realloc(p, size ? size : 1);
	if (!p)
		out_of_memory(size);
	return p;
}

char *cst_xstrndup(const char *s, size_t len)
{
	char *copy = cst_xmalloc(len + 1);
	if (len)
		memcpy(copy, s, len);
	copy[len] = '\0';
	return copy;
}

char *cst_xstrdup(const char *s)
{
	return cst_xstrndup(s, strlen(s));
}

char *cst_xasprintf(const char *fmt, ...)
{
	struct cst_buf b = CST_BUF_INIT;
	va_list ap;
	va_start(ap, fmt);
	cst_buf_vprintf(&b, fmt, ap);
	va_end(ap);
	return cst_buf_steal(&b);
}

bool cst_slice_ieq(struct cst_slice a, struct cst_slice b)
{
	return a.len == b.len && (a.len == 0 || strncasecmp(a.data, b.data, a.len) == 0);
}

struct cst_slice cst_slice_trim(struct cst_slice s)
{
	while (s.len && (s.data[0] == ' ' || s.data[0] == '\t'))
		s.data++, s.len--;
	while (s.len && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t'))
		s.len--;
	return s;
}

struct cst_slice cst_slice_cut(struct cst_slice *rest, char sep)
{
	struct cst_slice head = *rest;
	const char *at = rest->len ? memchr(rest->data, sep, rest->len) : NULL;
	if (!at) {
		*rest = (struct cst_slice){0};
		return head;
	}
	head.len = (size_t)(at - rest->data);
	rest->len -= head.len + 1;
	rest->data = at + 1;
	return head;
}

void cst_buf_fini(struct cst_buf *b)
{
	free(b->data);
	*b = (struct cst_buf)CST_BUF_INIT;
}

void cst_buf_clear(struct cst_buf *b)
{
	b->len = 0;
	if (b->data)
		b->data[0] = '\0';
}

char *cst_buf_room(struct cst_buf *b, size_t extra)
{
	CST_ASSERT(extra < SIZE_MAX / 4 && b->len < SIZE_MAX / 4);
	size_t need = b->len + extra + 1;
	if (need > b->cap) {
		size_t cap = b->cap ? b->cap * 2 : 64;
		if (cap < need)
			cap = need;
		b->data = cst_xrealloc(b->data, cap);
		b->cap = cap;
	}
	b->data[b->len] = '\0';
	return b->data + b->len;
}

void cst_buf_add(struct cst_buf *b, const void *data, size_t len)
{
	char *to = cst_buf_room(b, len);
	if (len)
		memcpy(to, data, len);
	b->len += len;
	b->data[b->len] = '\0';
}

void cst_buf_add_str(struct cst_buf *b, const char *s)
{
	cst_buf_add(b, s, strlen(s));
}

void cst_buf_add_slice(struct cst_buf *b, struct cst_slice s)
{
	cst_buf_add(b, s.data, s.len);
}

void cst_buf_add_char(struct cst_buf *b, char c)
{
	cst_buf_add(b, &c, 1);
}

void cst_buf_vprintf(struct cst_buf *b, const char *fmt, va_list ap)
{
	va_list again;
	va_copy(again, ap);
	char *to = cst_buf_room(b, 64);
	int need = vsnprintf(to, b->cap - b->len, fmt, ap);
	CST_ASSERT(need >= 0);
	if ((size_t)need >= b->cap - b->len) {
		to = cst_buf_room(b, (size_t)need);
		vsnprintf(to, (size_t)need + 1, fmt, again);
	}
	va_end(again);
	b->len += (size_t)need;
}

void cst_buf_printf(struct cst_buf *b, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	cst_buf_vprintf(b, fmt, ap);
	va_end(ap);
}

void cst_buf_consume(struct cst_buf *b, size_t n)
{
	CST_ASSERT(n <= b->len);
	if (n == 0)
		return;
	memmove(b->data, b->data + n, b->len - n);
	b->len -= n;
	b->data[b->len] = '\0';
}

char *cst_buf_steal(struct cst_buf *b)
{
	cst_buf_room(b, 0);
	char *data = b->data;
	*b = (struct cst_buf)CST_BUF_INIT;
	return data;
}
