#include "net/http_parser.h"

#include <errno.h>

enum { TOKEN = 1, TARGET = 2, DIGIT = 4 };

/* RFC 9110 5.6.2 tokens; in a target also what people send without encoding it (bytes from 0x80). */
static const uint8_t classes[256] = {
	['!'] = TOKEN | TARGET,
	['"'] = TARGET,
	['#'] = TOKEN | TARGET,
	['$'] = TOKEN | TARGET,
	['%'] = TOKEN | TARGET,
	['&'] = TOKEN | TARGET,
	['\''] = TOKEN | TARGET,
	['('] = TARGET,
	[')'] = TARGET,
	['*'] = TOKEN | TARGET,
	['+'] = TOKEN | TARGET,
	[','] = TARGET,
	['-'] = TOKEN | TARGET,
	['.'] = TOKEN | TARGET,
	['/'] = TARGET,
	[':'] = TARGET,
	[';'] = TARGET,
	['<'] = TARGET,
	['='] = TARGET,
	['>'] = TARGET,
	['?'] = TARGET,
	['@'] = TARGET,
	['['] = TARGET,
	['\\'] = TARGET,
	[']'] = TARGET,
	['^'] = TOKEN | TARGET,
	['_'] = TOKEN | TARGET,
	['`'] = TOKEN | TARGET,
	['{'] = TARGET,
	['|'] = TOKEN | TARGET,
	['}'] = TARGET,
	['~'] = TOKEN | TARGET,
	['0' ... '9'] = TOKEN | TARGET | DIGIT,
	['A' ... 'Z'] = TOKEN | TARGET,
	['a' ... 'z'] = TOKEN | TARGET,
	[0x80 ... 0xff] = TARGET,
};

static size_t span(const char *s, const char *end, uint8_t class)
{
	const char *p = s;

	while (p < end && (classes[(uint8_t)*p] & class))
		p++;
	return p - s;
}

static int bad(const char **why, const char *text)
{
	*why = text;
	return -EBADMSG;
}

/* Cuts the next line (CRLF, nothing less: a lone LF is read differently by different programs). 1: *line is set;
 * 0: incomplete; -errno. */
static int next_line(const char **pos, const char *end, const char *start, struct cst_slice *line, const char **why)
{
	const char *lf = memchr(*pos, '\n', end - *pos);

	if ((lf ? lf : end) - start >= CST_HTTP_HEAD_MAX) {
		*why = "the head is too long";
		return -E2BIG;
	}
	if (!lf)
		return 0;
	if (lf == *pos || lf[-1] != '\r')
		return bad(why, "a line ends without CR");
	*line = (struct cst_slice){*pos, lf - 1 - *pos};
	*pos = lf + 1;
	if (line->len && (memchr(line->data, '\r', line->len) || memchr(line->data, '\0', line->len)))
		return bad(why, "a CR or NUL inside a line");
	return 1;
}

static int parse_version(struct cst_slice text, int *minor, const char **why)
{
	if (text.len != 8 || memcmp(text.data, "HTTP/1.", 7) != 0 || !(classes[(uint8_t)text.data[7]] & DIGIT))
		return bad(why, "the version is not HTTP/1.x");
	*minor = text.data[7] - '0';
	return 0;
}

static int parse_request_line(struct cst_slice line, struct cst_http_head *head, const char **why)
{
	const char *p = line.data;
	const char *end = p + line.len;

	head->method = (struct cst_slice){p, span(p, end, TOKEN)};
	p += head->method.len;
	if (head->method.len == 0 || p == end || *p != ' ')
		return bad(why, "the request line has no method");
	p++;
	head->target = (struct cst_slice){p, span(p, end, TARGET)};
	p += head->target.len;
	if (head->target.len == 0 || p == end || *p != ' ')
		return bad(why, "the request line has no valid target");
	p++;
	return parse_version((struct cst_slice){p, end - p}, &head->minor_version, why);
}

static int parse_status_line(struct cst_slice line, struct cst_http_head *head, const char **why)
{
	const char *p = line.data;
	int rc;

	if (line.len < 12)
		return bad(why, "the status line is too short");
	rc = parse_version((struct cst_slice){p, 8}, &head->minor_version, why);
	if (rc)
		return rc;
	if (p[8] != ' ' || span(p + 9, p + 12, DIGIT) != 3 || p[9] == '0' || (line.len > 12 && p[12] != ' '))
		return bad(why, "the status line has no valid status");
	head->status = (p[9] - '0') * 100 + (p[10] - '0') * 10 + (p[11] - '0');
	/* The blank before an empty reason is often left out. */
	if (line.len > 13)
		head->reason = (struct cst_slice){p + 13, line.len - 13};
	return 0;
}

static bool name_is(struct cst_slice name, const char *lower)
{
	for (size_t i = 0; i < name.len; i++) {
		uint8_t c = name.data[i];

		if (c >= 'A' && c <= 'Z')
			c |= 0x20;
		if (c != (uint8_t)lower[i])
			return false;
	}
	return true;
}

static int parse_length(struct cst_slice value, struct cst_http_head *head, const char **why)
{
	int64_t length = 0;

	if (head->content_length >= 0)
		return bad(why, "Content-Length is repeated");
	if (value.len == 0 || span(value.data, value.data + value.len, DIGIT) != value.len)
		return bad(why, "Content-Length is not a number");
	for (size_t i = 0; i < value.len; i++)
		if (__builtin_mul_overflow(length, 10, &length) ||
		    __builtin_add_overflow(length, value.data[i] - '0', &length))
			return bad(why, "Content-Length is too large");
	head->content_length = length;
	return 0;
}

/* What "Connection" says, over several headers; `close` wins. */
struct connection_words {
	bool close, keep_alive, host;
};

static void parse_connection(struct cst_slice value, struct connection_words *words)
{
	while (value.data) {
		struct cst_slice word = cst_slice_trim(cst_slice_cut(&value, ','));

		if (word.len == 5 && name_is(word, "close"))
			words->close = true;
		else if (word.len == 10 && name_is(word, "keep-alive"))
			words->keep_alive = true;
	}
}

/* The headers that frame the message; all others are left to who wants them. */
static int note_header(const struct cst_http_header *h, struct cst_http_head *head, struct connection_words *words,
		       bool request, const char **why)
{
	switch (h->name.len) {
	case 4:
		if (request && name_is(h->name, "host")) {
			if (words->host)
				return bad(why, "Host is repeated");
			words->host = true;
		}
		break;
	case 6:
		if (request && name_is(h->name, "expect")) {
			if (h->value.len != 12 || !name_is(h->value, "100-continue"))
				return bad(why, "an expectation that is not 100-continue");
			head->expect_continue = true;
		}
		break;
	case 10:
		if (name_is(h->name, "connection"))
			parse_connection(h->value, words);
		break;
	case 14:
		if (name_is(h->name, "content-length"))
			return parse_length(h->value, head, why);
		break;
	case 17:
		if (name_is(h->name, "transfer-encoding")) {
			if (head->chunked || h->value.len != 7 || !name_is(h->value, "chunked"))
				return bad(why, "a transfer coding that is not chunked");
			head->chunked = true;
		}
		break;
	default:
		break;
	}
	return 0;
}

static int parse_header(struct cst_slice line, struct cst_http_head *head, struct connection_words *words, bool request,
			const char **why)
{
	const char *p = line.data;
	struct cst_http_header *h;

	if (*p == ' ' || *p == '\t')
		return bad(why, "a folded header");
	if (head->header_count == CST_HTTP_HEADERS_MAX) {
		*why = "too many headers";
		return -E2BIG;
	}
	h = &head->headers[head->header_count];
	h->name = (struct cst_slice){p, span(p, p + line.len, TOKEN)};
	if (h->name.len == 0 || h->name.len == line.len || p[h->name.len] != ':')
		return bad(why, "a header without a valid name");
	h->value = cst_slice_trim((struct cst_slice){p + h->name.len + 1, line.len - h->name.len - 1});
	head->header_count++;
	return note_header(h, head, words, request, why);
}

static void init_head(struct cst_http_head *head)
{
	/* Not the whole structure: the table of headers is 4 KiB. */
	head->method = head->target = head->reason = (struct cst_slice){0};
	head->status = 0;
	head->minor_version = 0;
	head->header_count = 0;
	head->keep_alive = head->chunked = head->expect_continue = false;
	head->content_length = -1;
}

static ssize_t parse_head(struct cst_slice data, struct cst_http_head *head, bool request, const char **why)
{
	const char *pos = data.data;
	const char *end = pos + data.len;
	struct connection_words words = {0};
	struct cst_slice line;
	int rc;

	init_head(head);
	*why = NULL;
	if (data.len == 0)
		return 0;
	rc = next_line(&pos, end, data.data, &line, why);
	/* RFC 9112 2.2: one empty line before a request is forgiven. */
	if (rc > 0 && request && line.len == 0)
		rc = next_line(&pos, end, data.data, &line, why);
	if (rc <= 0)
		return rc;
	rc = request ? parse_request_line(line, head, why) : parse_status_line(line, head, why);
	if (rc)
		return rc;
	for (;;) {
		rc = next_line(&pos, end, data.data, &line, why);
		if (rc <= 0)
			return rc;
		if (line.len == 0)
			break;
		rc = parse_header(line, head, &words, request, why);
		if (rc)
			return rc;
	}
	if (head->chunked && head->content_length >= 0)
		return bad(why, "both Content-Length and Transfer-Encoding");
	if (head->chunked && head->minor_version == 0)
		return bad(why, "a transfer coding in HTTP/1.0");
	head->keep_alive = !words.close && (head->minor_version >= 1 || words.keep_alive);
	return pos - data.data;
}

ssize_t cst_http_parse_request(struct cst_slice data, struct cst_http_head *head, const char **why)
{
	return parse_head(data, head, true, why);
}

ssize_t cst_http_parse_response(struct cst_slice data, struct cst_http_head *head, const char **why)
{
	return parse_head(data, head, false, why);
}

struct cst_slice cst_http_header_get(const struct cst_http_head *head, const char *name)
{
	struct cst_slice wanted = cst_slice_of(name);

	for (size_t i = 0; i < head->header_count; i++)
		if (head->headers[i].name.len == wanted.len && cst_slice_ieq(head->headers[i].name, wanted))
			return head->headers[i].value.data ? head->headers[i].value : CST_SLICE("");
	return (struct cst_slice){0};
}

enum chunk_state {
	CHUNK_SIZE_FIRST, /* at least one digit */
	CHUNK_SIZE,
	CHUNK_EXTENSION,
	CHUNK_SIZE_LF,
	CHUNK_CONTENT,
	CHUNK_CONTENT_CR,
	CHUNK_CONTENT_LF,
	CHUNK_TRAILER_START,
	CHUNK_TRAILER,
	CHUNK_TRAILER_LF,
	CHUNK_END_LF,
};

#define CHUNK_LINE_MAX 4096 /* size line with its extensions */

static int hex_digit(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int chunk_size_byte(struct cst_http_chunked *c, uint8_t byte)
{
	int digit = hex_digit(byte);

	if (digit >= 0) {
		if (c->left >> 59)
			return -EBADMSG;
		c->left = c->left * 16 + digit;
		c->state = CHUNK_SIZE;
	} else if (byte == '\r' && c->state == CHUNK_SIZE) {
		c->state = CHUNK_SIZE_LF;
	} else if ((byte == ';' || byte == ' ' || byte == '\t') && c->state == CHUNK_SIZE) {
		c->state = CHUNK_EXTENSION;
	} else {
		return -EBADMSG;
	}
	return 0;
}

/* Text that is read over up to its CR. */
static int chunk_text_byte(struct cst_http_chunked *c, uint8_t byte, enum chunk_state after)
{
	if (byte == '\r')
		c->state = after;
	else if (byte == '\n' || byte == '\0')
		return -EBADMSG;
	return 0;
}

static int chunk_expect(struct cst_http_chunked *c, uint8_t byte, uint8_t expected, enum chunk_state after)
{
	if (byte != expected)
		return -EBADMSG;
	c->state = after;
	return 0;
}

/* One byte that is not content. */
static int chunk_framing(struct cst_http_chunked *c, uint8_t byte)
{
	switch ((enum chunk_state)c->state) {
	case CHUNK_SIZE_FIRST:
	case CHUNK_SIZE:
		return chunk_size_byte(c, byte);
	case CHUNK_EXTENSION:
		return chunk_text_byte(c, byte, CHUNK_SIZE_LF);
	case CHUNK_SIZE_LF:
		c->line_len = 0;
		return chunk_expect(c, byte, '\n', c->left ? CHUNK_CONTENT : CHUNK_TRAILER_START);
	case CHUNK_CONTENT_CR:
		return chunk_expect(c, byte, '\r', CHUNK_CONTENT_LF);
	case CHUNK_CONTENT_LF:
		c->line_len = 0;
		return chunk_expect(c, byte, '\n', CHUNK_SIZE_FIRST);
	case CHUNK_TRAILER_START:
		c->state = CHUNK_TRAILER;
		return chunk_text_byte(c, byte, CHUNK_END_LF);
	case CHUNK_TRAILER:
		return chunk_text_byte(c, byte, CHUNK_TRAILER_LF);
	case CHUNK_TRAILER_LF:
		return chunk_expect(c, byte, '\n', CHUNK_TRAILER_START);
	case CHUNK_END_LF:
		if (byte != '\n')
			return -EBADMSG;
		c->done = true;
		return 0;
	case CHUNK_CONTENT:
		break;
	}
	return -EBADMSG;
}

static bool chunk_in_trailer(const struct cst_http_chunked *c)
{
	return c->state >= CHUNK_TRAILER_START;
}

ssize_t cst_http_chunked_feed(struct cst_http_chunked *c, struct cst_slice data, struct cst_slice *content)
{
	size_t used = 0;

	*content = (struct cst_slice){0};
	while (used < data.len && !c->done) {
		if (c->state == CHUNK_CONTENT) {
			*content = (struct cst_slice){data.data + used, cst_min(c->left, (uint64_t)(data.len - used))};
			cst_http_chunked_took(c, content->len);
			return used + content->len;
		}
		/* All trailer lines together count as one. */
		if (++c->line_len > (chunk_in_trailer(c) ? CST_HTTP_HEAD_MAX : CHUNK_LINE_MAX))
			return -EBADMSG;
		if (chunk_framing(c, data.data[used]))
			return -EBADMSG;
		used++;
	}
	return used;
}

uint64_t cst_http_chunked_next(const struct cst_http_chunked *c)
{
	return c->state == CHUNK_CONTENT ? c->left : 0;
}

void cst_http_chunked_took(struct cst_http_chunked *c, uint64_t len)
{
	CST_ASSERT(c->state == CHUNK_CONTENT && len <= c->left);
	c->left -= len;
	if (c->left == 0)
		c->state = CHUNK_CONTENT_CR;
}
