/* Entries and object attributes: see entry.h. */
#include "meta/entry.h"

#include "base/clock.h"
#include "base/units.h"

#include <sys/stat.h>
#include <xxhash.h>

static uint64_t etag_hash(const char *etag)
{
	return XXH3_64bits(etag, strlen(etag));
}

/* A decimal number; ossfs 1.0 also wrote mode and ids with blanks around them. */
static bool parse_number(struct cst_slice text, int64_t *value)
{
	char number[32];
	text = cst_slice_trim(text);
	if (text.len == 0 || text.len >= sizeof(number))
		return false;
	memcpy(number, text.data, text.len);
	number[text.len] = 0;
	return cst_parse_int(number, 10, value) == 0;
}

/* Seconds with an optional fraction ("1700000000.123456789"), as ossfs 1.0 and s3fs write times. */
static bool parse_time(struct cst_slice text, int64_t *ns)
{
	struct cst_slice fraction = cst_slice_trim(text);
	struct cst_slice whole = cst_slice_cut(&fraction, '.');
	int64_t seconds;
	if (!parse_number(whole, &seconds) || seconds < 0 || seconds > INT64_MAX / CST_NS_PER_S - 1)
		return false;
	int64_t part = 0, unit = CST_NS_PER_S / 10;
	for (size_t i = 0; i < fraction.len && unit > 0; i++, unit /= 10) {
		if (fraction.data[i] < '0' || fraction.data[i] > '9')
			return false;
		part += (fraction.data[i] - '0') * unit;
	}
	*ns = seconds * CST_NS_PER_S + part;
	return true;
}

static void read_meta(struct cst_object_attr *attr, const struct cst_http_header *meta)
{
	static const struct {
		const char *name;
		uint32_t bit;
	} names[] = {{"mode", CST_ATTR_MODE},	{"uid", CST_ATTR_UID},	   {"gid", CST_ATTR_GID},
		     {"mtime", CST_ATTR_MTIME}, {"atime", CST_ATTR_ATIME}, {"ctime", CST_ATTR_CTIME}};
	if (cst_slice_is(meta->name, "xattr") && meta->value.len > 0)
		attr->has |= CST_ATTR_XATTR;
	for (size_t i = 0; i < CST_ARRAY_LEN(names); i++) {
		if (!cst_slice_is(meta->name, names[i].name))
			continue;
		int64_t value = 0;
		bool is_time = names[i].bit >= CST_ATTR_MTIME;
		if (is_time ? !parse_time(meta->value, &value)
			    : !parse_number(meta->value, &value) || value < 0 || value > UINT32_MAX)
			return;
		switch (names[i].bit) {
		case CST_ATTR_MODE:
			attr->mode = (uint32_t)value;
			break;
		case CST_ATTR_UID:
			attr->uid = (uint32_t)value;
			break;
		case CST_ATTR_GID:
			attr->gid = (uint32_t)value;
			break;
		case CST_ATTR_MTIME:
			attr->mtime = value;
			break;
		case CST_ATTR_ATIME:
			attr->atime = value;
			break;
		default:
			attr->ctime = value;
			break;
		}
		attr->has |= names[i].bit;
		return;
	}
}

struct cst_object_attr *cst_object_attr_new(const struct cst_object_info *info)
{
	struct cst_object_attr *attr = CST_NEW(struct cst_object_attr);
	cst_ref_init(&attr->ref);
	attr->last_modified = info->mtime;
	attr->etag_hash = etag_hash(info->etag);
	for (size_t i = 0; i < info->meta_count; i++)
		read_meta(attr, &info->meta[i]);
	return attr;
}

struct cst_object_attr *cst_object_attr_none(void)
{
	struct cst_object_attr *attr = CST_NEW(struct cst_object_attr);
	cst_ref_init(&attr->ref);
	return attr;
}

struct cst_object_attr *cst_object_attr_ref(struct cst_object_attr *attr)
{
	if (attr)
		cst_ref_get(&attr->ref);
	return attr;
}

void cst_object_attr_unref(struct cst_object_attr *attr)
{
	if (attr && cst_ref_put(&attr->ref))
		free(attr);
}

void cst_entry_fini(struct cst_entry *entry)
{
	cst_object_attr_unref(entry->attr);
	entry->attr = NULL;
}

void cst_entry_from_info(struct cst_entry *entry, const struct cst_object_info *info, bool with_attr, int64_t at)
{
	*entry = (struct cst_entry){
		.kind = info->type == CST_OBJECT_SYMLINK ? CST_KIND_SYMLINK : CST_KIND_FILE,
		.type = info->type,
		.size = info->size,
		.mtime = info->mtime,
		.at = at,
	};
	memcpy(entry->etag, info->etag, sizeof(entry->etag));
	if (entry->kind ==
	    CST_KIND_SYMLINK) { /* a HEAD tells what it points to, a listing itself: neither is a version of the link */
		entry->size = 0;
		entry->etag[0] = 0;
	}
	if (!with_attr)
		return;
	entry->attr = cst_object_attr_new(info);
	if ((entry->attr->has & CST_ATTR_MODE) && S_ISLNK(entry->attr->mode))
		entry->kind = CST_KIND_SYMLINK;
}

bool cst_entry_attr_matches(const struct cst_entry *entry, const struct cst_object_attr *attr)
{
	if (entry->kind == CST_KIND_DIR)
		return true;
	return attr->last_modified == entry->mtime && attr->etag_hash == etag_hash(entry->etag);
}

/* ---- packed ETags ---- */

enum etag_form { ETAG_NONE, ETAG_UPPER, ETAG_LOWER, ETAG_UPPER_PARTS, ETAG_LOWER_PARTS, ETAG_RAW };

static uint8_t *put_number(uint8_t *p, uint64_t v)
{
	for (; v >= 128; v >>= 7)
		*p++ = (uint8_t)(v | 128);
	*p++ = (uint8_t)v;
	return p;
}

static const uint8_t *get_number(const uint8_t *p, uint64_t *v)
{
	*v = 0;
	for (unsigned shift = 0;; shift += 7) {
		*v |= (uint64_t)(*p & 127) << shift;
		if (!(*p++ & 128))
			return p;
	}
}

/* 32 hexadecimal digits of one case: the usual etag, an MD5. Without branches, so that the compiler does many at a time: each name that is looked up
 * passes here. There are 32 bytes to read. */
static bool pack_hex(const char *etag, uint8_t out[16], bool *upper)
{
	uint8_t wrong = 0, has_upper = 0, has_lower = 0, digits[32];
	for (unsigned i = 0; i < 32; i++) {
		uint8_t c = (uint8_t)etag[i];
		uint8_t is_digit = (uint8_t)(c - '0') < 10, is_upper = (uint8_t)(c - 'A') < 6,
			is_lower = (uint8_t)(c - 'a') < 6;
		wrong |= !(is_digit | is_upper | is_lower);
		has_upper |= is_upper;
		has_lower |= is_lower;
		digits[i] = (uint8_t)((c & 15) + (c >> 6) * 9);
	}
	for (unsigned i = 0; i < 16; i++)
		out[i] = (uint8_t)(digits[2 * i] << 4 | digits[2 * i + 1]);
	*upper = !has_lower;
	return !wrong && !(has_upper && has_lower);
}

static void unpack_hex(const uint8_t packed[16], bool upper, char out[32])
{
	uint8_t letters = (upper ? 'A' : 'a') - 10 - '0';
	for (unsigned i = 0; i < 16; i++) {
		uint8_t high = packed[i] >> 4, low = packed[i] & 15;
		out[2 * i] = (char)(high + '0' + (high > 9 ? letters : 0));
		out[2 * i + 1] = (char)(low + '0' + (low > 9 ? letters : 0));
	}
}

size_t cst_etag_pack(uint8_t out[CST_ETAG_PACKED_MAX], const char *etag, unsigned *form)
{
	uint8_t *p = out;
	size_t len = strlen(etag);
	uint64_t parts = 0;
	bool upper = false;
	bool plain = len == 32;
	bool multi = len > 33 && len <= 33 + 9 && etag[32] == '-' && etag[33] != '0';
	for (size_t i = 33; multi && i < len; i++) {
		multi = etag[i] >= '0' && etag[i] <= '9';
		parts = parts * 10 + (uint64_t)(etag[i] - '0');
	}
	if (len == 0) {
		*form = ETAG_NONE;
	} else if ((plain || multi) && pack_hex(etag, p, &upper)) {
		p += 16;
		*form = plain ? (upper ? ETAG_UPPER : ETAG_LOWER) : (upper ? ETAG_UPPER_PARTS : ETAG_LOWER_PARTS);
		if (multi)
			p = put_number(p, parts);
	} else {
		*form = ETAG_RAW;
		*p++ = (uint8_t)len;
		memcpy(p, etag, len);
		p += len;
	}
	return (size_t)(p - out);
}

void cst_etag_unpack(const uint8_t *packed, unsigned form, char out[CST_ETAG_MAX])
{
	uint64_t parts;
	out[0] = 0;
	if (form == ETAG_NONE)
		return;
	if (form == ETAG_RAW) {
		memcpy(out, packed + 1, packed[0]);
		out[packed[0]] = 0;
		return;
	}
	unpack_hex(packed, form == ETAG_UPPER || form == ETAG_UPPER_PARTS, out);
	out[32] = 0;
	if (form == ETAG_UPPER_PARTS || form == ETAG_LOWER_PARTS) {
		get_number(packed + 16, &parts);
		snprintf(out + 32, CST_ETAG_MAX - 32, "-%llu", (unsigned long long)parts);
	}
}
