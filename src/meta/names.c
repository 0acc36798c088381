/* A record in a chunk: flags, type and etag form, length of the suffix (2 bytes), suffix, size and mtime as varints, etag. Records
 * never cross a chunk; the index holds chunk number * CHUNK + place. */
#include "meta/names.h"

#define CHUNK (1u << 18)
#define FOLDER "_$folder$"
#define NAME_MAX_LEN 255u
#define RECORD_MAX(suffix_len) (4 + (suffix_len) + 10 + 10 + CST_ETAG_PACKED_MAX)

struct record {
	uint8_t *flags;
	uint8_t type_form; /* type << 4 | etag form */
	struct cst_slice suffix;
	const uint8_t *rest;
};

static struct record record_at(const struct cst_names *n, size_t i)
{
	uint32_t at = n->index[i];
	uint8_t *p = (uint8_t *)n->chunks[at / CHUNK] + at % CHUNK;
	size_t len = (size_t)p[2] | (size_t)p[3] << 8;
	return (struct record){p, p[1], {(const char *)p + 4, len}, p + 4 + len};
}

static uint8_t *put_varint(uint8_t *p, uint64_t v)
{
	for (; v >= 128; v >>= 7)
		*p++ = (uint8_t)(v | 128);
	*p++ = (uint8_t)v;
	return p;
}

static const uint8_t *get_varint(const uint8_t *p, uint64_t *v)
{
	*v = 0;
	for (unsigned shift = 0;; shift += 7) {
		*v |= (uint64_t)(*p & 127) << shift;
		if (!(*p++ & 128))
			return p;
	}
}

static uint8_t *room(struct cst_names *n, size_t size)
{
	if (n->chunk_count == 0 || n->used + size > CHUNK) {
		if (n->chunk_count == n->chunk_cap) {
			n->chunk_cap = n->chunk_cap ? n->chunk_cap * 2 : 4;
			n->chunks = cst_xrealloc(n->chunks, n->chunk_cap * sizeof(*n->chunks));
		}
		/* Most directories are small: the first chunk starts small and grows. */
		n->chunks[n->chunk_count] = cst_xmalloc(n->chunk_count == 0 ? CHUNK / 64 : CHUNK);
		n->chunk_count++;
		n->used = 0;
	}
	if (n->chunk_count == 1) {
		size_t before = n->used <= CHUNK / 64 ? CHUNK / 64 : CHUNK,
		       now = n->used + size <= CHUNK / 64 ? CHUNK / 64 : CHUNK;
		if (now != before)
			n->chunks[0] = cst_xrealloc(n->chunks[0], now);
	}
	return (uint8_t *)n->chunks[n->chunk_count - 1] + n->used;
}

void cst_names_add(struct cst_names *n, struct cst_slice suffix, bool is_prefix, const struct cst_object_info *info)
{
	if (suffix.len == 0 && !is_prefix) {
		n->has_marker = true;
		return;
	}
	if (suffix.len > UINT16_MAX || n->chunk_count >= UINT32_MAX / CHUNK)
		return;
	uint8_t *start = room(n, RECORD_MAX(suffix.len)), *p = start + 4;
	unsigned form = 0;
	if (suffix.len > 0)
		memcpy(p, suffix.data, suffix.len);
	p += suffix.len;
	if (!is_prefix) {
		p = put_varint(p, info->size);
		p = put_varint(p, (uint64_t)cst_max(info->mtime, 0));
		p += cst_etag_pack(p, info->etag, &form);
	}
	start[0] = is_prefix ? CST_NAME_PREFIX : 0;
	start[1] = (uint8_t)((is_prefix ? 0u : (unsigned)info->type) << 4 | form);
	start[2] = (uint8_t)suffix.len;
	start[3] = (uint8_t)(suffix.len >> 8);
	if (n->count == n->cap) {
		n->cap = n->cap ? n->cap + n->cap / 2 : 16;
		n->index = cst_xrealloc(n->index, n->cap * sizeof(*n->index));
	}
	n->index[n->count++] = (n->chunk_count - 1) * CHUNK + n->used;
	n->used += (uint32_t)(p - start);
}

void cst_names_rollback(struct cst_names *n)
{
	while (n->chunk_count > n->sealed_chunks && n->chunk_count > 1)
		free(n->chunks[--n->chunk_count]);
	if (n->sealed_chunks == 0 && n->chunk_count == 1) {
		free(n->chunks[0]);
		n->chunk_count = 0;
	}
	n->used = n->sealed_used;
	n->count = n->sealed;
}

static int compare(struct cst_slice a, struct cst_slice b)
{
	int c = memcmp(a.data, b.data, cst_min(a.len, b.len));
	return c ? c : (a.len > b.len) - (a.len < b.len);
}

static int compare_index(const void *a, const void *b, void *names)
{
	const struct cst_names *n = names;
	struct cst_names one = {.chunks = n->chunks};
	uint32_t at[2] = {*(const uint32_t *)a, *(const uint32_t *)b};
	one.index = at;
	return compare(record_at(&one, 0).suffix, record_at(&one, 1).suffix);
}

bool cst_name_is_valid(struct cst_slice name)
{
	if (name.len == 0 || name.len > NAME_MAX_LEN || cst_slice_is(name, ".") || cst_slice_is(name, ".."))
		return false;
	return !memchr(name.data, 0, name.len) && !memchr(name.data, '/', name.len);
}

static struct cst_slice shown(const struct record *r, unsigned flags)
{
	size_t tail = flags & CST_NAME_PREFIX ? 1 : flags & CST_NAME_FOLDER ? sizeof(FOLDER) - 1 : 0;
	return (struct cst_slice){r->suffix.data, r->suffix.len - tail};
}

/* Where the key name + tail is among the first `count` entries, or SIZE_MAX. */
static size_t search(const struct cst_names *n, size_t count, struct cst_slice name, const char *tail)
{
	char text[NAME_MAX_LEN + sizeof(FOLDER)];
	size_t tail_len = strlen(tail), low = 0, high = count;
	if (name.len > NAME_MAX_LEN)
		return SIZE_MAX;
	memcpy(text, name.data, name.len);
	memcpy(text + name.len, tail, tail_len);
	struct cst_slice key = {text, name.len + tail_len};
	if (n->unsorted) {
		for (size_t i = 0; i < count; i++)
			if (cst_slice_eq(record_at(n, i).suffix, key))
				return i;
		return SIZE_MAX;
	}
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int c = compare(record_at(n, middle).suffix, key);
		if (c == 0)
			return middle;
		if (c < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return SIZE_MAX;
}

static bool is_folder_marker(const struct record *r)
{
	size_t len = sizeof(FOLDER) - 1;
	uint64_t size;
	if (*r->flags & CST_NAME_PREFIX || r->suffix.len <= len ||
	    memcmp(r->suffix.data + r->suffix.len - len, FOLDER, len) != 0)
		return false;
	get_varint(r->rest, &size);
	return size == 0;
}

static void classify(struct cst_names *n, size_t i)
{
	struct record r = record_at(n, i);
	unsigned flags = *r.flags;
	if (is_folder_marker(&r))
		flags |= CST_NAME_FOLDER;
	struct cst_slice name = shown(&r, flags);
	if (!cst_name_is_valid(name)) {
		flags |= CST_NAME_SKIPPED | CST_NAME_HIDDEN;
		n->skipped++;
	} else if (flags & CST_NAME_PREFIX && search(n, n->count, name, "") != SIZE_MAX) {
		flags |= CST_NAME_LOSER | CST_NAME_HIDDEN;
		n->losers++;
	} else if (flags & CST_NAME_FOLDER &&
		   (search(n, n->count, name, "/") != SIZE_MAX || search(n, n->count, name, "") != SIZE_MAX)) {
		flags |= CST_NAME_HIDDEN;
	}
	*r.flags = (uint8_t)flags;
}

void cst_names_seal(struct cst_names *n, bool complete)
{
	size_t first = n->sealed;
	/* Stores answer a page's objects and prefixes apart from each other. */
	if (n->count - first > 1)
		qsort_r(n->index + first, n->count - first, sizeof(*n->index), compare_index, n);
	if (first > 0 && n->count > first && compare(record_at(n, first - 1).suffix, record_at(n, first).suffix) > 0)
		n->unsorted = true;
	for (size_t i = first; i < n->count; i++)
		classify(n, i);
	n->sealed = n->count;
	n->sealed_chunks = n->chunk_count;
	n->sealed_used = n->used;
	n->complete = complete;
	if (complete && n->cap > n->count && n->count > 0) {
		n->cap = n->count;
		n->index = cst_xrealloc(n->index, n->cap * sizeof(*n->index));
	}
}

unsigned cst_names_flags(const struct cst_names *n, size_t i)
{
	return *record_at(n, i).flags;
}

struct cst_slice cst_names_suffix(const struct cst_names *n, size_t i)
{
	return record_at(n, i).suffix;
}

void cst_names_doubt(struct cst_names *n, size_t i)
{
	*record_at(n, i).flags |= CST_NAME_DOUBTFUL;
}

void cst_names_get(const struct cst_names *n, size_t i, struct cst_name_view *view)
{
	struct record r = record_at(n, i);
	uint64_t mtime = 0;
	*view = (struct cst_name_view){.flags = *r.flags, .type = r.type_form >> 4};
	view->name = shown(&r, view->flags);
	if (view->flags & (CST_NAME_PREFIX | CST_NAME_FOLDER)) {
		view->kind = CST_KIND_DIR;
		view->type = CST_OBJECT_NORMAL;
		return;
	}
	view->kind = view->type == CST_OBJECT_SYMLINK ? CST_KIND_SYMLINK : CST_KIND_FILE;
	const uint8_t *p = get_varint(r.rest, &view->size);
	p = get_varint(p, &mtime);
	view->mtime = (int64_t)mtime;
	cst_etag_unpack(p, r.type_form & 15, view->etag);
}

/* Has the listing passed every key that decides about this name? The last of them is name_$folder$. */
static bool covers(const struct cst_names *n, struct cst_slice name)
{
	char text[NAME_MAX_LEN + sizeof(FOLDER)];
	if (n->complete)
		return true;
	if (n->sealed == 0 || n->unsorted)
		return false;
	memcpy(text, name.data, name.len);
	memcpy(text + name.len, FOLDER, sizeof(FOLDER) - 1);
	return compare((struct cst_slice){text, name.len + sizeof(FOLDER) - 1}, record_at(n, n->sealed - 1).suffix) <=
	       0;
}

enum cst_names_found cst_names_find(const struct cst_names *n, struct cst_slice name, size_t *i)
{
	static const char *const tails[] = {"", "/", FOLDER};
	*i = SIZE_MAX;
	if (name.len > NAME_MAX_LEN)
		return CST_NAMES_ABSENT;
	for (size_t t = 0; t < CST_ARRAY_LEN(tails); t++) {
		size_t at = search(n, n->sealed, name, tails[t]);
		if (at == SIZE_MAX)
			continue;
		unsigned flags = cst_names_flags(n, at);
		if (t == 0 && flags & CST_NAME_FOLDER) /* asked for the marker by its own name: it is hidden */
			continue;
		*i = at;
		return flags & CST_NAME_DOUBTFUL ? CST_NAMES_UNKNOWN : CST_NAMES_FOUND;
	}
	return covers(n, name) ? CST_NAMES_ABSENT : CST_NAMES_UNKNOWN;
}

struct cst_object_attr *cst_names_attr(const struct cst_names *n, size_t i)
{
	return i < n->attrs_cap ? n->attrs[i] : NULL;
}

void cst_names_set_attr(struct cst_names *n, size_t i, struct cst_object_attr *attr)
{
	if (i >= n->attrs_cap) {
		size_t cap = cst_max(n->sealed, i + 1);
		n->attrs = cst_xrealloc(n->attrs, cap * sizeof(struct cst_object_attr *));
		memset(n->attrs + n->attrs_cap, 0, (cap - n->attrs_cap) * sizeof(struct cst_object_attr *));
		n->attrs_cap = cap;
	}
	n->attr_count += (attr != NULL) - (size_t)(n->attrs[i] != NULL);
	cst_object_attr_ref(attr);
	cst_object_attr_unref(n->attrs[i]);
	n->attrs[i] = attr;
}

size_t cst_names_bytes(const struct cst_names *n)
{
	size_t chunks = n->chunk_count > 1 ? (size_t)n->chunk_count * CHUNK
					   : n->chunk_count * (n->used <= CHUNK / 64 ? CHUNK / 64 : CHUNK);
	size_t attrs = n->attr_count * (sizeof(struct cst_object_attr) + 16);
	return chunks + n->chunk_cap * sizeof(*n->chunks) + n->cap * sizeof(*n->index) +
	       n->attrs_cap * sizeof(struct cst_object_attr *) + attrs;
}

void cst_names_fini(struct cst_names *n)
{
	for (unsigned i = 0; i < n->chunk_count; i++)
		free(n->chunks[i]);
	for (size_t i = 0; i < n->attrs_cap; i++)
		cst_object_attr_unref(n->attrs[i]);
	free(n->chunks);
	free(n->index);
	free(n->attrs);
	*n = (struct cst_names){0};
}
