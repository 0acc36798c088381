/* Listing pages (ListBucketResult, version 2) through expat.
 *
 * Every request asks for encoding-type=url, but some stores ignore that and others say so only behind the entries. So as long as
 * <EncodingType> has not been seen, entries are held back raw, and handed out when it comes or the page ends. */
#include "object/xml.h"

#include "base/clock.h"
#include "base/text.h"

#include <errno.h>
#include <expat.h>

#define LIST_XML_MAGIC 0x4c584d4cu
#define DEPTH_MAX 16
#define TEXT_MAX 8192 /* a key of 1,023 bytes, percent-encoded, is shorter; tokens too */

enum field { F_NONE, F_KEY, F_SIZE, F_ETAG, F_MODIFIED, F_TYPE, F_CLASS, F_PREFIX, F_TRUNCATED, F_TOKEN, F_ENCODING };

/* An entry that waits for EncodingType; its key is in `held`. */
struct held_entry {
	struct cst_object_list_entry entry;
	size_t key_at, key_len;
};

struct cst_list_xml {
	unsigned magic;
	XML_Parser expat;
	void (*entry)(void *arg, const struct cst_object_list_entry *entry);
	void *arg;
	const char *why; /* NULL: fine so far */
	unsigned depth, count;
	bool root_seen, root_done;
	bool in_contents, in_prefixes, key_seen;
	bool encoding_known, encoded;
	bool truncated;
	enum field field;
	struct cst_buf text, key, decoded, token, held_keys;
	struct cst_object_list_entry current;
	struct held_entry *held;
	size_t held_count, held_cap;
};

static void fail(struct cst_list_xml *p, const char *why)
{
	if (!p->why)
		p->why = why;
	XML_StopParser(p->expat, XML_FALSE);
}

static struct cst_slice local_name(const char *name)
{
	const char *colon = strchr(name, ':');
	return cst_slice_of(colon ? colon + 1 : name);
}

static enum field contents_field(struct cst_slice n)
{
	static const struct {
		const char *name;
		enum field field;
	} fields[] = {{"Key", F_KEY},	{"Size", F_SIZE},	  {"ETag", F_ETAG}, {"LastModified", F_MODIFIED},
		      {"Type", F_TYPE}, {"StorageClass", F_CLASS}};
	for (size_t i = 0; i < CST_ARRAY_LEN(fields); i++)
		if (cst_slice_is(n, fields[i].name))
			return fields[i].field;
	return F_NONE;
}

static void start_top(struct cst_list_xml *p, struct cst_slice n)
{
	p->in_contents = cst_slice_is(n, "Contents");
	p->in_prefixes = cst_slice_is(n, "CommonPrefixes");
	if (p->in_contents || p->in_prefixes) {
		memset(&p->current, 0, sizeof(p->current));
		p->key_seen = false;
		cst_buf_clear(&p->key);
	}
	p->field = cst_slice_is(n, "IsTruncated")	      ? F_TRUNCATED
		   : cst_slice_is(n, "NextContinuationToken") ? F_TOKEN
		   : cst_slice_is(n, "EncodingType")	      ? F_ENCODING
							      : F_NONE;
}

static void XMLCALL on_start(void *arg, const XML_Char *name, const XML_Char **attributes)
{
	struct cst_list_xml *p = arg;
	struct cst_slice n = local_name(name);
	(void)attributes;
	p->depth++;
	p->field = F_NONE;
	cst_buf_clear(&p->text);
	if (p->depth == 1) {
		p->root_seen = cst_slice_is(n, "ListBucketResult");
		if (!p->root_seen)
			fail(p, "the answer is XML but no listing");
	} else if (p->depth == 2) {
		start_top(p, n);
	} else if (p->depth == 3 && p->in_contents) {
		p->field = contents_field(n);
	} else if (p->depth == 3 && p->in_prefixes) {
		p->field = cst_slice_is(n, "Prefix") ? F_PREFIX : F_NONE;
	} else if (p->depth > DEPTH_MAX) {
		fail(p, "the listing is nested too deep");
	}
}

static void XMLCALL on_text(void *arg, const XML_Char *text, int len)
{
	struct cst_list_xml *p = arg;
	if (p->field == F_NONE)
		return;
	if (p->text.len + (size_t)len > TEXT_MAX)
		fail(p, "a name in the listing is too long");
	else
		cst_buf_add(&p->text, text, (size_t)len);
}

static void emit(struct cst_list_xml *p, struct cst_object_list_entry *entry, struct cst_slice raw)
{
	entry->info.key = raw;
	if (p->encoded) {
		cst_buf_clear(&p->decoded);
		if (cst_text_url_decode(&p->decoded, raw, true) < 0) {
			fail(p, "a name in the listing is not encoded properly");
			return;
		}
		entry->info.key = cst_buf_slice(&p->decoded);
	}
	p->count++;
	p->entry(p->arg, entry);
}

static void hold(struct cst_list_xml *p)
{
	if (p->held_count == p->held_cap) {
		p->held_cap = p->held_cap ? p->held_cap * 2 : 64;
		p->held = cst_xrealloc(p->held, p->held_cap * sizeof(*p->held));
	}
	p->held[p->held_count++] = (struct held_entry){p->current, p->held_keys.len, p->key.len};
	cst_buf_add_slice(&p->held_keys, cst_buf_slice(&p->key));
}

static void emit_held(struct cst_list_xml *p)
{
	for (size_t i = 0; i < p->held_count && !p->why; i++)
		emit(p, &p->held[i].entry,
		     (struct cst_slice){p->held_keys.data + p->held[i].key_at, p->held[i].key_len});
	p->held_count = 0;
	cst_buf_clear(&p->held_keys);
}

static void end_entry(struct cst_list_xml *p)
{
	if (!p->key_seen || p->key.len == 0) {
		fail(p, "an entry of the listing has no name");
		return;
	}
	p->current.is_prefix = p->in_prefixes;
	if (p->encoding_known)
		emit(p, &p->current, cst_buf_slice(&p->key));
	else
		hold(p);
}

static bool parse_size(struct cst_slice s, uint64_t *out)
{
	uint64_t v = 0;
	for (size_t i = 0; i < s.len; i++) {
		unsigned digit = (unsigned)(unsigned char)s.data[i] - '0';
		if (digit > 9 || v > ((uint64_t)INT64_MAX - digit) / 10)
			return false;
		v = v * 10 + digit;
	}
	*out = v;
	return s.len > 0;
}

static void copy_etag(struct cst_slice s, char out[CST_ETAG_MAX])
{
	if (s.len >= 2 && s.data[0] == '"' && s.data[s.len - 1] == '"')
		s = (struct cst_slice){s.data + 1, s.len - 2};
	size_t len = cst_min(s.len, (size_t)CST_ETAG_MAX - 1);
	if (len)
		memcpy(out, s.data, len);
	out[len] = '\0';
}

static enum cst_object_type parse_type(struct cst_slice s)
{
	return cst_slice_is(s, "Symlink")      ? CST_OBJECT_SYMLINK
	       : cst_slice_is(s, "Appendable") ? CST_OBJECT_APPENDABLE
	       : cst_slice_is(s, "Multipart")  ? CST_OBJECT_MULTIPART
					       : CST_OBJECT_NORMAL;
}

static void end_field(struct cst_list_xml *p, struct cst_slice text)
{
	struct cst_object_info *info = &p->current.info;
	switch (p->field) {
	case F_KEY:
	case F_PREFIX:
		p->key_seen = true;
		cst_buf_clear(&p->key);
		cst_buf_add_slice(&p->key, text);
		break;
	case F_SIZE:
		if (!parse_size(cst_slice_trim(text), &info->size))
			fail(p, "a size in the listing is no number");
		break;
	case F_ETAG:
		copy_etag(text, info->etag);
		break;
	case F_MODIFIED:
		if (cst_time_parse(text.data, text.len, &info->mtime) < 0)
			info->mtime = 0;
		break;
	case F_TYPE:
		info->type = parse_type(text);
		break;
	case F_CLASS:
		snprintf(info->storage_class, sizeof(info->storage_class), "%.*s", (int)text.len, text.data);
		break;
	case F_TRUNCATED:
		p->truncated = cst_slice_ieq(cst_slice_trim(text), CST_SLICE("true"));
		break;
	case F_TOKEN:
		cst_buf_clear(&p->token);
		cst_buf_add_slice(&p->token, text);
		break;
	case F_ENCODING:
		p->encoded = cst_slice_ieq(cst_slice_trim(text), CST_SLICE("url"));
		p->encoding_known = true;
		emit_held(p);
		break;
	case F_NONE:
		break;
	}
}

static void XMLCALL on_end(void *arg, const XML_Char *name)
{
	struct cst_list_xml *p = arg;
	(void)name;
	if (p->field != F_NONE) {
		cst_buf_room(&p->text, 1);
		end_field(p, cst_buf_slice(&p->text));
		p->field = F_NONE;
	}
	if (p->depth == 2 && (p->in_contents || p->in_prefixes)) {
		end_entry(p);
		p->in_contents = p->in_prefixes = false;
	}
	if (--p->depth == 0)
		p->root_done = true;
}

static void XMLCALL on_doctype(void *arg, const XML_Char *name, const XML_Char *sysid, const XML_Char *pubid,
			       int internal)
{
	(void)name, (void)sysid, (void)pubid, (void)internal;
	fail(arg, "the answer is no listing but a document with a DOCTYPE (HTML?)");
}

static void set_handlers(struct cst_list_xml *p)
{
	XML_SetUserData(p->expat, p);
	XML_SetElementHandler(p->expat, on_start, on_end);
	XML_SetCharacterDataHandler(p->expat, on_text);
	XML_SetStartDoctypeDeclHandler(p->expat, on_doctype);
}

struct cst_list_xml *cst_list_xml_new(void (*entry)(void *arg, const struct cst_object_list_entry *entry), void *arg)
{
	struct cst_list_xml *p = CST_NEW(struct cst_list_xml);
	p->magic = LIST_XML_MAGIC;
	p->expat = XML_ParserCreate("UTF-8");
	CST_ASSERT(p->expat);
	p->entry = entry;
	p->arg = arg;
	set_handlers(p);
	return p;
}

void cst_list_xml_free(struct cst_list_xml *p)
{
	if (!p)
		return;
	CST_CHECK(p, LIST_XML_MAGIC);
	p->magic = 0;
	XML_ParserFree(p->expat);
	cst_buf_fini(&p->text);
	cst_buf_fini(&p->key);
	cst_buf_fini(&p->decoded);
	cst_buf_fini(&p->token);
	cst_buf_fini(&p->held_keys);
	free(p->held);
	free(p);
}

void cst_list_xml_reset(struct cst_list_xml *p, void *arg)
{
	CST_CHECK(p, LIST_XML_MAGIC);
	XML_ParserReset(p->expat, "UTF-8");
	set_handlers(p);
	p->arg = arg;
	p->why = NULL;
	p->depth = p->count = 0;
	p->root_seen = p->root_done = p->in_contents = p->in_prefixes = p->key_seen = false;
	p->encoding_known = p->encoded = p->truncated = false;
	p->field = F_NONE;
	p->held_count = 0;
	cst_buf_clear(&p->token);
	cst_buf_clear(&p->held_keys);
}

static int parse(struct cst_list_xml *p, struct cst_slice piece, bool last)
{
	if (p->why)
		return -EBADMSG;
	while (piece.len > 0 || last) {
		size_t some = cst_min(piece.len, (size_t)1 << 20);
		bool final = last && some == piece.len;
		enum XML_Status status = XML_Parse(p->expat, piece.data ? piece.data : "", (int)some, final);
		if (status != XML_STATUS_OK && !p->why)
			p->why = p->root_seen ? "the listing is cut short or malformed XML" : "the answer is not XML";
		if (p->why)
			return -EBADMSG;
		if (final)
			break;
		piece.data += some;
		piece.len -= some;
	}
	return 0;
}

int cst_list_xml_feed(struct cst_list_xml *p, struct cst_slice piece)
{
	CST_CHECK(p, LIST_XML_MAGIC);
	return parse(p, piece, false);
}

int cst_list_xml_finish(struct cst_list_xml *p, struct cst_object_list_page *page)
{
	CST_CHECK(p, LIST_XML_MAGIC);
	if (parse(p, (struct cst_slice){0}, true) < 0)
		return -EBADMSG;
	emit_held(p);
	if (!p->why && !p->root_done)
		p->why = "the listing is cut short";
	if (!p->why && p->truncated && p->token.len == 0)
		p->why =
			"the listing goes on but has no NextContinuationToken (the store knows only version 1 of listings)";
	if (p->why)
		return -EBADMSG;
	*page = (struct cst_object_list_page){p->truncated, cst_buf_slice(&p->token), p->count};
	return 0;
}

const char *cst_list_xml_why(const struct cst_list_xml *p)
{
	return p->why ? p->why : "";
}

unsigned cst_list_xml_entries(const struct cst_list_xml *p)
{
	return p->count;
}
