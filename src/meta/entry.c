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
