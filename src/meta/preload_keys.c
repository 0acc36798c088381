/* Keys in order that become directories, and the middle of a range of keys: see preload_private.h. */
#include "meta/preload_private.h"

void cst_fold_init(struct cst_fold *f, struct cst_slice base, int64_t started)
{
	*f = (struct cst_fold){.base_len = base.len, .count = 1, .cap = 8};
	f->open = cst_xcalloc(f->cap, sizeof(*f->open));
	f->open[0] = (struct cst_fold_dir){.prefix_len = base.len, .started = started};
	cst_buf_add_slice(&f->last, base);
}

void cst_fold_fini(struct cst_fold *f)
{
	for (size_t i = 0; i < f->count; i++)
		cst_names_fini(&f->open[i].names);
	free(f->open);
	cst_buf_fini(&f->last);
	cst_buf_fini(&f->skip);
	*f = (struct cst_fold){0};
}

static void close_last(struct cst_fold *f)
{
	struct cst_fold_dir *d = &f->open[f->count - 1];
	f->close(f->arg, (struct cst_slice){f->last.data, d->prefix_len}, d->started, &d->names);
	cst_names_fini(&d->names);
	f->count--;
}

static void push(struct cst_fold *f, size_t prefix_len, int64_t started)
{
	if (f->count == f->cap) {
		f->cap *= 2;
		f->open = cst_xrealloc(f->open, f->cap * sizeof(*f->open));
	}
	f->open[f->count++] = (struct cst_fold_dir){.prefix_len = prefix_len, .started = started};
}

int cst_key_compare(struct cst_slice a, struct cst_slice b)
{
	size_t len = cst_min(a.len, b.len);
	int c = len ? memcmp(a.data, b.data, len) : 0;
	return c ? c : (a.len > b.len) - (a.len < b.len);
}

/* The prefix of a directory as an entry of the one it is in. */
static void add_prefix(struct cst_names *names, struct cst_slice suffix)
{
	static const struct cst_object_info none;
	if (names->count > 0 && cst_slice_eq(cst_names_suffix(names, names->count - 1), suffix))
		return;
	cst_names_add(names, suffix, true, &none);
}

int cst_fold_key(struct cst_fold *f, struct cst_slice key, const struct cst_object_info *info, int64_t started)
{
	struct cst_slice last = cst_buf_slice(&f->last);
	int order = cst_key_compare(key, last);
	if (key.len < f->base_len || memcmp(key.data, last.data ? last.data : "", f->base_len) != 0)
		return 0; /* not what was asked for */
	if (order < 0)
		return -EDOM;
	if (order == 0 && f->any)
		return 0;
	f->any = true;
	if (f->skip.len > 0 && cst_slice_starts(key, cst_buf_slice(&f->skip))) {
		cst_buf_clear(&f->last);
		cst_buf_add_slice(&f->last, key);
		return 0;
	}
	cst_buf_clear(&f->skip);
	while (f->open[f->count - 1].prefix_len > key.len ||
	       memcmp(key.data, last.data ? last.data : "", f->open[f->count - 1].prefix_len) != 0)
		close_last(f);
	cst_buf_clear(&f->last);
	cst_buf_add_slice(&f->last, key);
	for (;;) {
		struct cst_fold_dir *d = &f->open[f->count - 1];
		struct cst_slice rest = {key.data + d->prefix_len, key.len - d->prefix_len};
		const char *slash = rest.len ? memchr(rest.data, '/', rest.len) : NULL;
		if (!slash) {
			cst_names_add(&d->names, rest, false, info);
			return 0;
		}
		size_t len = (size_t)(slash - rest.data);
		add_prefix(&d->names, (struct cst_slice){rest.data, len + 1});
		size_t prefix_len = d->prefix_len + len + 1;
		if (!cst_name_is_valid((struct cst_slice){rest.data, len})) {
			cst_buf_add(&f->skip, key.data, prefix_len);
			return 0;
		}
		push(f, prefix_len, started);
	}
}

void cst_fold_page(struct cst_fold *f)
{
	for (size_t i = 0; i < f->count; i++)
		cst_names_seal(&f->open[i].names, false);
}

void cst_fold_end(struct cst_fold *f)
{
	while (f->count > 0)
		close_last(f);
}

size_t cst_fold_bytes(const struct cst_fold *f)
{
	size_t bytes = 0;
	for (size_t i = 0; i < f->count; i++)
		bytes += cst_names_bytes(&f->open[i].names);
	return bytes;
}

const struct cst_fold_dir *cst_fold_find(const struct cst_fold *f, struct cst_slice prefix)
{
	if (!cst_slice_starts(cst_buf_slice(&f->last), prefix))
		return NULL;
	for (size_t i = 0; i < f->count; i++)
		if (f->open[i].prefix_len == prefix.len)
			return &f->open[i];
	return NULL;
}

void cst_fold_append(struct cst_names *names, struct cst_names *more)
{
	cst_names_seal(more, false);
	names->has_marker |= more->has_marker;
	for (size_t i = 0; i < more->sealed; i++) {
		struct cst_slice suffix = cst_names_suffix(more, i);
		struct cst_name_view view;
		struct cst_object_info info = {0};
		cst_names_get(more, i, &view);
		if (view.flags & CST_NAME_PREFIX) {
			add_prefix(names, suffix);
			continue;
		}
		info.size = view.size;
		info.mtime = view.mtime;
		info.type = view.type;
		memcpy(info.etag, view.etag, sizeof(info.etag));
		cst_names_add(names, suffix, false, &info);
	}
	cst_names_fini(more);
	cst_names_seal(names, false);
}

/* ---- the middle of a range ---- */

static bool has(const struct cst_seen *s, size_t place, unsigned byte)
{
	return place < CST_SEEN_PLACES && s->low[place][byte / 64] >> byte % 64 & 1;
}

static bool is_hex_letter(unsigned c)
{
	return (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_digit(unsigned c)
{
	return c >= '0' && c <= '9';
}

void cst_seen_add(struct cst_seen *s, struct cst_slice below)
{
	for (size_t i = 0; i < below.len && i < CST_SEEN_PLACES; i++) {
		unsigned c = (unsigned char)below.data[i];
		if (c >= 128)
			continue;
		s->low[i][c / 64] |= UINT64_C(1) << c % 64;
		uint64_t digits = s->low[i][0] >> '0' & 0x3ff;
		if (is_hex_letter(c) && digits)
			s->letters[c < 'a'] = true;
	}
}

/* Might keys have the byte there? Where a digit stands others may, and letters of a hexadecimal number. */
static bool may_have(const struct cst_seen *s, size_t place, unsigned byte)
{
	if (has(s, place, byte))
		return true;
	if (place >= CST_SEEN_PLACES || !(s->low[place][0] >> '0' & 0x3ff))
		return false;
	return is_digit(byte) || (is_hex_letter(byte) && s->letters[byte < 'a']);
}

bool cst_seen_between(const struct cst_seen *s, struct cst_slice low, struct cst_slice high, bool least,
		      struct cst_buf *between)
{
	bool tied = high.len > 0; /* what comes before this place is the beginning of both */
	for (size_t i = 0; i <= low.len && i < CST_SEEN_PLACES; i++) {
		int from = i < low.len ? (unsigned char)low.data[i] : ' ';
		int end = tied && i < high.len ? (unsigned char)high.data[i] : 127;
		unsigned found[128], count = 0;
		for (int c = from + 1; c < end && c < 127 && from < 128; c++)
			if (may_have(s, i, (unsigned)c))
				found[count++] = (unsigned)c;
		if (count > 0) {
			cst_buf_add(between, low.data, i);
			cst_buf_add_char(between, (char)found[least ? 0 : (count - 1) / 2]);
			return true;
		}
		tied = tied && i < low.len && i < high.len && low.data[i] == high.data[i];
	}
	return false;
}
