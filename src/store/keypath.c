#include "store/keypath.h"

#include <errno.h>
#include <limits.h>

#define NAME_BYTES 255
#define PIECE_BYTES 250
#define MARK ".%"

static bool needs_escape(struct cst_slice c)
{
	return cst_slice_is(c, ".") || cst_slice_is(c, "..") || cst_slice_starts(c, CST_SLICE(MARK));
}

bool cst_keypath_is_long(struct cst_slice c)
{
	return c.len > NAME_BYTES || (needs_escape(c) && c.len + 3 > NAME_BYTES);
}

static void add_component(struct cst_slice c, struct cst_buf *path)
{
	if (c.len == 0) {
		cst_buf_add_str(path, MARK);
	} else if (cst_keypath_is_long(c)) {
		while (c.len > PIECE_BYTES) {
			cst_buf_add_str(path, MARK "l");
			cst_buf_add(path, c.data, PIECE_BYTES);
			cst_buf_add_char(path, '/');
			c.data += PIECE_BYTES;
			c.len -= PIECE_BYTES;
		}
		cst_buf_add_str(path, MARK "t");
		cst_buf_add_slice(path, c);
	} else {
		if (needs_escape(c))
			cst_buf_add_str(path, MARK "x");
		cst_buf_add_slice(path, c);
	}
}

int cst_keypath_of(struct cst_slice key, struct cst_buf *path)
{
	size_t start = 0;

	if (key.len == 0 || memchr(key.data, '\0', key.len))
		return -EINVAL;
	if (key.len > CST_KEY_MAX)
		return -ENAMETOOLONG;
	cst_buf_clear(path);
	for (size_t i = 0; i <= key.len; i++) {
		if (i < key.len && key.data[i] != '/')
			continue;
		if (start)
			cst_buf_add_char(path, '/');
		add_component((struct cst_slice){key.data + start, i - start}, path);
		start = i + 1;
	}
	return path->len < PATH_MAX - sizeof("/" CST_KEYPATH_SELF) ? 0 : -ENAMETOOLONG;
}

enum cst_name_kind cst_keypath_name(struct cst_slice name, size_t before, struct cst_slice *part)
{
	char kind;

	*part = name;
	if (name.len == 0 || cst_slice_is(name, ".") || cst_slice_is(name, ".."))
		return CST_NAME_HIDDEN;
	if (!cst_slice_starts(name, CST_SLICE(MARK)))
		return before ? CST_NAME_HIDDEN : CST_NAME_WHOLE;
	*part = (struct cst_slice){name.data + cst_min(name.len, (size_t)3), name.len > 3 ? name.len - 3 : 0};
	if (name.len == 2)
		return before ? CST_NAME_HIDDEN : CST_NAME_WHOLE;
	kind = name.data[2];
	if (kind == 'f')
		return part->len == 0 && !before ? CST_NAME_SELF : CST_NAME_HIDDEN;
	if (kind == 'x')
		return needs_escape(*part) && !before ? CST_NAME_WHOLE : CST_NAME_HIDDEN;
	if (kind == 'l')
		return part->len == PIECE_BYTES ? CST_NAME_PIECE : CST_NAME_HIDDEN;
	if (kind == 't')
		return before && part->len > 0 && part->len <= PIECE_BYTES ? CST_NAME_TAIL : CST_NAME_HIDDEN;
	return CST_NAME_HIDDEN;
}
