/* Byte slices and growable buffers. A slice borrows; a buffer owns its memory and keeps a NUL after its bytes (not
 * counted in len). Out of memory ends the process. Not thread safe. */
#pragma once

#include "base/cleanup.h"

#include <stdarg.h>
#include <string.h>

struct cst_slice {
	const char *data;
	size_t len;
};
#define CST_SLICE(literal) ((struct cst_slice){(literal), sizeof(literal) - 1})
static inline struct cst_slice cst_slice_of(const char *s)
{
	return (struct cst_slice){s, s ? strlen(s) : 0};
}
static inline bool cst_slice_eq(struct cst_slice a, struct cst_slice b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}
/* Compares ASCII letters without case. */
bool cst_slice_ieq(struct cst_slice a, struct cst_slice b);
static inline bool cst_slice_is(struct cst_slice a, const char *s)
{
	return cst_slice_eq(a, cst_slice_of(s));
}
static inline bool cst_slice_starts(struct cst_slice a, struct cst_slice prefix)
{
	return a.len >= prefix.len && (prefix.len == 0 || memcmp(a.data, prefix.data, prefix.len) == 0);
}
struct cst_slice cst_slice_trim(struct cst_slice s); /* blanks and tabs at both ends */
/* Cuts *rest at the first `sep`: returns what is before it and leaves what is after it in *rest (empty, data NULL,
 * when there was none). */
struct cst_slice cst_slice_cut(struct cst_slice *rest, char sep);

struct cst_buf {
	char *data;
	size_t len;
	size_t cap;
};
#define CST_BUF_INIT \
	{            \
		0    \
	}
void cst_buf_fini(struct cst_buf *b);
#define CST_AUTO_BUF CST_CLEANUP(cst_buf_fini) struct cst_buf
void cst_buf_clear(struct cst_buf *b); /* len = 0, keeps the memory */
/* Makes room for `extra` more bytes and returns where they go. */
char *cst_buf_room(struct cst_buf *b, size_t extra);
void cst_buf_add(struct cst_buf *b, const void *data, size_t len);
void cst_buf_add_str(struct cst_buf *b, const char *s);
void cst_buf_add_slice(struct cst_buf *b, struct cst_slice s);
void cst_buf_add_char(struct cst_buf *b, char c);
void cst_buf_printf(struct cst_buf *b, const char *fmt, ...) CST_PRINTF(2, 3);
void cst_buf_vprintf(struct cst_buf *b, const char *fmt, va_list ap) CST_PRINTF(2, 0);
/* Drops `n` bytes from the front. */
void cst_buf_consume(struct cst_buf *b, size_t n);
static inline struct cst_slice cst_buf_slice(const struct cst_buf *b)
{
	return (struct cst_slice){b->data, b->len};
}
/* The bytes as a NUL-terminated string that the caller frees; the buffer is empty afterwards. Never NULL. */
char *cst_buf_steal(struct cst_buf *b);
