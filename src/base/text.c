#include "base/text.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

static bool unreserved(unsigned char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
	       c == '_' || c == '~';
}

void cst_text_url_encode(struct cst_buf *out, struct cst_slice in, bool keep_slash)
{
	static const char hex[] = "0123456789ABCDEF";
	char *to = cst_buf_room(out, in.len * 3);
	size_t n = 0;
	for (size_t i = 0; i < in.len; i++) {
		unsigned char c = (unsigned char)in.data[i];
		if (unreserved(c) || (keep_slash && c == '/')) {
			to[n++] = (char)c;
		} else {
			to[n++] = '%';
			to[n++] = hex[c >> 4];
			to[n++] = hex[c & 15];
		}
	}
	out->len += n;
	out->data[out->len] = '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int cst_text_url_decode(struct cst_buf *out, struct cst_slice in, bool plus_is_space)
{
	char *to = cst_buf_room(out, in.len);
	size_t n = 0;
	for (size_t i = 0; i < in.len; i++) {
		char c = in.data[i];
		if (c == '%') {
			int high = i + 2 < in.len ? hex_digit(in.data[i + 1]) : -1;
			int low = i + 2 < in.len ? hex_digit(in.data[i + 2]) : -1;
			if (i + 2 >= in.len || high < 0 || low < 0)
				return -EINVAL;
			c = (char)(high << 4 | low);
			i += 2;
		} else if (c == '+' && plus_is_space) {
			c = ' ';
		}
		to[n++] = c;
	}
	out->len += n;
	out->data[out->len] = '\0';
	return 0;
}

void cst_text_hex(struct cst_buf *out, const void *data, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	const unsigned char *from = data;
	char *to = cst_buf_room(out, len * 2);
	for (size_t i = 0; i < len; i++) {
		to[2 * i] = hex[from[i] >> 4];
		to[2 * i + 1] = hex[from[i] & 15];
	}
	out->len += len * 2;
	out->data[out->len] = '\0';
}

int cst_text_unhex(struct cst_slice in, void *out, size_t len)
{
	unsigned char *to = out;
	if (in.len != len * 2)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		int high = hex_digit(in.data[2 * i]), low = hex_digit(in.data[2 * i + 1]);
		if (high < 0 || low < 0)
			return -EINVAL;
		to[i] = (unsigned char)(high << 4 | low);
	}
	return 0;
}

void cst_text_base64(struct cst_buf *out, const void *data, size_t len)
{
	char *to = cst_buf_room(out, (len + 2) / 3 * 4);
	int n = EVP_EncodeBlock((unsigned char *)to, data, (int)len);
	out->len += (size_t)n;
}

int cst_text_unbase64(struct cst_buf *out, struct cst_slice in)
{
	if (in.len % 4 != 0)
		return -EINVAL;
	if (in.len == 0)
		return 0;
	size_t padding = 0;
	while (padding < 2 && in.data[in.len - 1 - padding] == '=')
		padding++;
	/* EVP_DecodeBlock skips white space at the ends; then its count would not match ours. */
	for (size_t i = 0; i < in.len - padding; i++) {
		char c = in.data[i];
		if (!unreserved((unsigned char)c) && c != '+' && c != '/')
			return -EINVAL;
	}
	char *to = cst_buf_room(out, in.len / 4 * 3);
	int n = EVP_DecodeBlock((unsigned char *)to, (const unsigned char *)in.data, (int)in.len);
	if (n < 0 || (size_t)n != in.len / 4 * 3)
		return -EINVAL;
	out->len += (size_t)n - padding;
	out->data[out->len] = '\0';
	return 0;
}

/* Length of the UTF-8 sequence at p, or 0 when it is broken (also surrogates, overlong forms, > U+10FFFF). */
static size_t utf8_length(const unsigned char *p, size_t left)
{
	if (p[0] < 0x80)
		return 1;
	size_t len = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
	if (p[0] < 0xc2 || p[0] > 0xf4 || left < len)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
	    (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return len;
}

bool cst_text_is_utf8(struct cst_slice in)
{
	for (size_t i = 0; i < in.len;) {
		size_t len = utf8_length((const unsigned char *)in.data + i, in.len - i);
		if (len == 0)
			return false;
		i += len;
	}
	return true;
}

void cst_text_xml_escape(struct cst_buf *out, struct cst_slice in)
{
	for (size_t i = 0; i < in.len;) {
		const unsigned char *p = (const unsigned char *)in.data + i;
		size_t len = utf8_length(p, in.len - i);
		switch (len == 1 ? p[0] : 0) {
		case '&':
			cst_buf_add_str(out, "&amp;");
			break;
		case '<':
			cst_buf_add_str(out, "&lt;");
			break;
		case '>':
			cst_buf_add_str(out, "&gt;");
			break;
		case '"':
			cst_buf_add_str(out, "&quot;");
			break;
		case '\'':
			cst_buf_add_str(out, "&#39;");
			break;
		case '\t':
		case '\n':
		case '\r':
			cst_buf_printf(out, "&#%d;", p[0]);
			break;
		default:
			/* U+FFFE and U+FFFF are no XML characters either. */
			if (len == 0 || (len == 1 && (p[0] < 0x20 || p[0] == 0x7f)) ||
			    (len == 3 && p[0] == 0xef && p[1] == 0xbf && p[2] >= 0xbe))
				cst_buf_add_char(out, '?');
			else
				cst_buf_add(out, p, len);
		}
		i += len ? len : 1;
	}
}

void cst_text_json_string(struct cst_buf *out, struct cst_slice in)
{
	cst_buf_add_char(out, '"');
	for (size_t i = 0; i < in.len;) {
		const unsigned char *p = (const unsigned char *)in.data + i;
		size_t len = utf8_length(p, in.len - i);
		if (len == 0 || (len == 1 && (p[0] < 0x20 || p[0] == 0x7f)))
			cst_buf_printf(out, "\\u%04x", p[0]);
		else if (len == 1 && (p[0] == '"' || p[0] == '\\'))
			cst_buf_printf(out, "\\%c", p[0]);
		else
			cst_buf_add(out, p, len);
		i += len ? len : 1;
	}
	cst_buf_add_char(out, '"');
}

void cst_text_printable(struct cst_buf *out, struct cst_slice in)
{
	for (size_t i = 0; i < in.len;) {
		const unsigned char *p = (const unsigned char *)in.data + i;
		size_t len = utf8_length(p, in.len - i);
		/* C1 controls (U+0080…U+009F) move cursors on terminals too. */
		bool control = (len == 1 && (p[0] < 0x20 || p[0] == 0x7f)) || (len == 2 && p[0] == 0xc2 && p[1] < 0xa0);
		if (len == 0 || control) {
			for (size_t k = 0; k < (len ? len : 1); k++)
				cst_buf_printf(out, "\\x%02x", p[k]);
		} else {
			cst_buf_add(out, p, len);
		}
		i += len ? len : 1;
	}
}

bool cst_text_equal_secret(struct cst_slice a, struct cst_slice b)
{
	return a.len == b.len && (a.len == 0 || CRYPTO_memcmp(a.data, b.data, a.len) == 0);
}
