#include "store/chunked.h"

enum { STATE_SIZE, STATE_DATA, STATE_DATA_END, STATE_TRAILER, STATE_DONE };

void cst_chunked_fini(struct cst_chunked *c)
{
	cst_buf_fini(&c->text);
}

/* 1: c->line is a whole line, without its end; 0: more is needed; -1: too long. */
static int take_line(struct cst_chunked *c, struct cst_slice *in)
{
	const char *end = in->len ? memchr(in->data, '\n', in->len) : NULL;
	size_t len = end ? (size_t)(end + 1 - in->data) : in->len;

	if (c->text.len + len > CST_CHUNK_LINE_MAX)
		return -1;
	cst_buf_add(&c->text, in->data, len);
	in->data += len;
	in->len -= len;
	if (!end)
		return 0;
	c->line = (struct cst_slice){c->text.data, c->text.len - 1};
	if (c->line.len && c->line.data[c->line.len - 1] == '\r')
		c->line.len--;
	c->text.len = 0;
	return 1;
}

static bool parse_size(struct cst_chunked *c)
{
	struct cst_slice rest = c->line;
	struct cst_slice digits = cst_slice_trim(cst_slice_cut(&rest, ';'));

	c->size = 0;
	c->signature[0] = '\0';
	if (digits.len == 0 || digits.len > 15)
		return false;
	for (size_t i = 0; i < digits.len; i++) {
		char d = digits.data[i];
		int value = d >= '0' && d <= '9'   ? d - '0'
			    : d >= 'a' && d <= 'f' ? d - 'a' + 10
			    : d >= 'A' && d <= 'F' ? d - 'A' + 10
						   : -1;
		if (value < 0)
			return false;
		c->size = c->size * 16 + (uint64_t)value;
	}
	rest = cst_slice_trim(rest);
	if (cst_slice_starts(rest, CST_SLICE("chunk-signature="))) {
		cst_slice_cut(&rest, '=');
		if (rest.len != 64)
			return false;
		memcpy(c->signature, rest.data, 64);
		c->signature[64] = '\0';
	}
	c->left = c->size;
	return true;
}

static enum cst_chunk_event next_in_line(struct cst_chunked *c, struct cst_slice *in)
{
	int got = take_line(c, in);

	if (got <= 0)
		return got == 0 ? CST_CHUNK_MORE : CST_CHUNK_BAD;
	switch (c->state) {
	case STATE_SIZE:
		if (!parse_size(c))
			return CST_CHUNK_BAD;
		c->state = c->size ? STATE_DATA : STATE_TRAILER;
		return CST_CHUNK_BEGIN;
	case STATE_DATA_END:
		if (c->line.len)
			return CST_CHUNK_BAD;
		c->state = STATE_SIZE;
		return CST_CHUNK_END;
	default:
		if (c->line.len)
			return CST_CHUNK_TRAILER;
		c->state = STATE_DONE;
		return CST_CHUNK_DONE;
	}
}

enum cst_chunk_event cst_chunked_next(struct cst_chunked *c, struct cst_slice *in)
{
	if (c->state == STATE_DONE)
		return CST_CHUNK_DONE;
	if (in->len == 0)
		return CST_CHUNK_MORE;
	if (c->state != STATE_DATA)
		return next_in_line(c, in);
	c->data = (struct cst_slice){in->data, (size_t)cst_min((uint64_t)in->len, c->left)};
	in->data += c->data.len;
	in->len -= c->data.len;
	c->left -= c->data.len;
	if (c->left == 0)
		c->state = STATE_DATA_END;
	return CST_CHUNK_DATA;
}
