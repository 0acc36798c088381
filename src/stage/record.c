#include "stage/record.h"

#include "base/digest.h"

#include <endian.h>
#include <errno.h>

enum { ID = 1, SIZE = 2, NEXT = 4, PHASE = 8, SLOTS = 16, BASE = 32, KEY = 64, TO = 128, DATA = 256, EXTENTS = 512 };
static const struct {
	const char *name;
	unsigned fields;
} kinds[] = {
#define X(name, text, fields) [CST_RECORD_##name] = {text, fields},
	CST_RECORDS(X)
#undef X
};

const char *cst_record_name(enum cst_record_kind kind)
{
	return kind < CST_RECORD_KINDS ? kinds[kind].name : "unknown";
}

static bool has(const struct cst_record *r, unsigned field)
{
	return kinds[r->kind].fields & field;
}

int cst_record_check(const struct cst_record *r)
{
	if (r->kind >= CST_RECORD_KINDS || (has(r, KEY) && r->key.len > CST_RECORD_TEXT) ||
	    (has(r, TO) && r->to.len > CST_RECORD_TEXT) || (has(r, DATA) && r->data.len > CST_RECORD_DATA) ||
	    (has(r, EXTENTS) && r->extent_count > CST_RECORD_EXTENTS_MAX))
		return -EINVAL;
	return 0;
}

static size_t base_size(const struct cst_stage_base *base)
{
	return 1 + 8 + 2 + strnlen(base->etag, sizeof(base->etag));
}

static size_t body_size(const struct cst_record *r)
{
	size_t size = 0;
	size += has(r, ID) ? 8 : 0;
	size += has(r, SIZE) ? 8 : 0;
	size += has(r, NEXT) ? 8 : 0;
	size += has(r, PHASE) ? 4 : 0;
	size += has(r, SLOTS) ? 8 : 0;
	size += has(r, BASE) ? base_size(&r->base) : 0;
	size += has(r, KEY) ? 2 + r->key.len : 0;
	size += has(r, TO) ? 2 + r->to.len : 0;
	size += has(r, DATA) ? 4 + r->data.len : 0;
	size += has(r, EXTENTS) ? 4 + r->extent_count * CST_RECORD_EXTENT : 0;
	return size;
}

static size_t padded(size_t size)
{
	return (size + CST_RECORD_ALIGN - 1) / CST_RECORD_ALIGN * CST_RECORD_ALIGN;
}

size_t cst_record_size(const struct cst_record *r)
{
	return padded(CST_RECORD_HEAD + body_size(r));
}

/* ---- out ---- */

static char *put(char *to, uint64_t value, unsigned bytes)
{
	value = htole64(value);
	memcpy(to, &value, bytes);
	return to + bytes;
}

static char *put_text(char *to, struct cst_slice text, unsigned bytes)
{
	to = put(to, text.len, bytes);
	if (text.len)
		memcpy(to, text.data, text.len);
	return to + text.len;
}

static char *put_base(char *to, const struct cst_stage_base *base)
{
	to = put(to, base->exists, 1);
	to = put(to, base->size, 8);
	return put_text(to, (struct cst_slice){base->etag, strnlen(base->etag, sizeof(base->etag))}, 2);
}

static char *put_extents(char *to, const struct cst_record *r)
{
	to = put(to, r->extent_count, 4);
	for (size_t i = 0; i < r->extent_count; i++) {
		to = put(to, r->extents[i].start, 8);
		to = put(to, r->extents[i].length, 8);
		to = put(to, r->extents[i].kind, 1);
	}
	return to;
}

static char *put_body(char *to, const struct cst_record *r)
{
	to = has(r, ID) ? put(to, r->id, 8) : to;
	to = has(r, SIZE) ? put(to, r->size, 8) : to;
	to = has(r, NEXT) ? put(to, r->next, 8) : to;
	to = has(r, PHASE) ? put(to, r->phase, 4) : to;
	to = has(r, SLOTS) ? put(put(to, r->slots[0], 4), r->slots[1], 4) : to;
	to = has(r, BASE) ? put_base(to, &r->base) : to;
	to = has(r, KEY) ? put_text(to, r->key, 2) : to;
	to = has(r, TO) ? put_text(to, r->to, 2) : to;
	to = has(r, DATA) ? put_text(to, r->data, 4) : to;
	return has(r, EXTENTS) ? put_extents(to, r) : to;
}

void cst_record_encode(const struct cst_record *r, uint32_t tag, uint64_t number, uint64_t synced, struct cst_buf *out)
{
	size_t length = CST_RECORD_HEAD + body_size(r), size = padded(length);
	char *head = cst_buf_room(out, size);
	put(head + 4, tag, 4);
	put(head + 8, length, 4);
	put(head + 12, r->kind, 2);
	put(head + 14, r->more, 2);
	put(head + 16, number, 8);
	put(head + 24, synced, 8);
	CST_ASSERT(put_body(head + CST_RECORD_HEAD, r) == head + length);
	memset(head + length, 0, size - length);
	put(head, cst_crc32c(0, head + 4, length - 4), 4);
	out->len += size;
}

/* ---- in ---- */

struct reader {
	const char *at;
	size_t left;
	bool bad;
};

static uint64_t take(struct reader *in, unsigned bytes)
{
	uint64_t value = 0;
	if (in->left < bytes) {
		in->bad = true;
		in->left = 0;
		return 0;
	}
	memcpy(&value, in->at, bytes);
	in->at += bytes;
	in->left -= bytes;
	return le64toh(value);
}

static struct cst_slice take_text(struct reader *in, unsigned bytes, size_t most)
{
	uint64_t len = take(in, bytes);
	if (len > in->left || len > most) {
		in->bad = true;
		in->left = 0;
		return (struct cst_slice){0};
	}
	struct cst_slice text = {in->at, (size_t)len};
	in->at += len;
	in->left -= (size_t)len;
	return text;
}

static void take_base(struct reader *in, struct cst_stage_base *base)
{
	uint64_t exists = take(in, 1);
	base->exists = exists;
	base->size = take(in, 8);
	struct cst_slice etag = take_text(in, 2, sizeof(base->etag) - 1);
	if (exists > 1 || base->size >= CST_EXTENTS_END || (etag.len && memchr(etag.data, '\0', etag.len)))
		in->bad = true;
	if (!in->bad && etag.len)
		memcpy(base->etag, etag.data, etag.len);
}

static void take_extents(struct reader *in, struct cst_record *r, struct cst_extent *extents)
{
	uint64_t count = take(in, 4);
	if (count > CST_RECORD_EXTENTS_MAX) {
		in->bad = true;
		return;
	}
	for (uint64_t i = 0; i < count && !in->bad; i++) {
		struct cst_extent e = {.start = take(in, 8), .length = take(in, 8), .kind = (uint8_t)take(in, 1)};
		if (e.length == 0 || e.start >= CST_EXTENTS_END || e.length > CST_EXTENTS_END - e.start ||
		    (e.kind != 0 && e.kind != CST_STAGE_SECOND && e.kind != CST_STAGE_ZERO))
			in->bad = true;
		extents[i] = e;
	}
	r->extents = extents;
	r->extent_count = (size_t)count;
}

static void take_body(struct reader *in, struct cst_record *r, struct cst_extent *extents)
{
	r->id = has(r, ID) ? take(in, 8) : 0;
	r->size = has(r, SIZE) ? take(in, 8) : 0;
	r->next = has(r, NEXT) ? take(in, 8) : 0;
	r->phase = has(r, PHASE) ? (uint32_t)take(in, 4) : 0;
	if (has(r, SLOTS)) {
		r->slots[0] = (uint32_t)take(in, 4);
		r->slots[1] = (uint32_t)take(in, 4);
	}
	if (has(r, BASE))
		take_base(in, &r->base);
	if (has(r, KEY))
		r->key = take_text(in, 2, CST_RECORD_TEXT);
	if (has(r, TO))
		r->to = take_text(in, 2, CST_RECORD_TEXT);
	if (has(r, DATA))
		r->data = take_text(in, 4, CST_RECORD_DATA);
	if (has(r, EXTENTS))
		take_extents(in, r, extents);
	if (r->size >= CST_EXTENTS_END || in->left)
		in->bad = true;
}

int cst_record_decode(const void *bytes, size_t len, const uint32_t *tag, struct cst_record *r,
		      struct cst_extent extents[CST_RECORD_EXTENTS_MAX], struct cst_record_place *place)
{
	if (len < CST_RECORD_HEAD)
		return -EBADMSG;
	struct reader in = {.at = bytes, .left = CST_RECORD_HEAD};
	uint32_t crc = (uint32_t)take(&in, 4);
	place->tag = (uint32_t)take(&in, 4);
	size_t length = (size_t)take(&in, 4);
	uint64_t kind = take(&in, 2), more = take(&in, 2);
	place->number = take(&in, 8);
	place->synced = take(&in, 8);
	if ((tag && place->tag != *tag) || kind >= CST_RECORD_KINDS || more > 1 || length < CST_RECORD_HEAD ||
	    length > CST_RECORD_MAX || length > len || cst_crc32c(0, (const char *)bytes + 4, length - 4) != crc)
		return -EBADMSG;
	place->size = padded(length);
	*r = (struct cst_record){.kind = (enum cst_record_kind)kind, .more = more};
	in = (struct reader){.at = (const char *)bytes + CST_RECORD_HEAD, .left = length - CST_RECORD_HEAD};
	take_body(&in, r, extents);
	return in.bad ? -EBADMSG : 0;
}
