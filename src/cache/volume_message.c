/* Encoding of the messages between the processes of a volume. A packet is taken only when every length adds up, so that what works
 * on the decoded message need not look again. */
#include "cache/volume_private.h"

#include <endian.h>
#include <errno.h>
#include <sys/socket.h>

#define HEADER 24u
#define ENTRY_BYTES 64u
#define TOUCH_BYTES 20u
#define STATS_FIELDS 14u

static const char magic[4] = "CSTV";

/* ---- a cursor for both directions: what is written in one order is read in the same ---- */

struct writer {
	uint8_t *out;
	size_t at;
};

static void put(struct writer *w, const void *data, size_t len)
{
	CST_ASSERT(len <= CST_VOLUME_MESSAGE_MAX - w->at);
	if (len)
		memcpy(w->out + w->at, data, len);
	w->at += len;
}

static void put16(struct writer *w, uint16_t value)
{
	value = htole16(value);
	put(w, &value, sizeof(value));
}

static void put32(struct writer *w, uint32_t value)
{
	value = htole32(value);
	put(w, &value, sizeof(value));
}

static void put64(struct writer *w, uint64_t value)
{
	value = htole64(value);
	put(w, &value, sizeof(value));
}

struct reader {
	const uint8_t *data;
	size_t left;
	bool bad;
};

static struct cst_slice get(struct reader *r, size_t len)
{
	if (len > r->left) {
		r->bad = true;
		return (struct cst_slice){0};
	}
	struct cst_slice s = {(const char *)r->data, len};
	r->data += len;
	r->left -= len;
	return s;
}

static uint64_t get_number(struct reader *r, size_t len)
{
	uint64_t value = 0;
	struct cst_slice s = get(r, len);
	if (s.len)
		memcpy(&value, s.data, s.len);
	return le64toh(value);
}

static uint16_t get16(struct reader *r)
{
	return (uint16_t)get_number(r, 2);
}

static uint32_t get32(struct reader *r)
{
	return (uint32_t)get_number(r, 4);
}

static uint64_t get64(struct reader *r)
{
	return get_number(r, 8);
}

static bool get_bool(struct reader *r)
{
	uint32_t value = get32(r);
	if (value > 1)
		r->bad = true;
	return value == 1;
}

/* ---- parts ---- */

static void put_identity(struct writer *w, const struct cst_cache_identity *id)
{
	put64(w, id->name);
	put64(w, id->version);
	put64(w, id->size);
	put16(w, (uint16_t)id->bucket.len);
	put16(w, (uint16_t)id->key.len);
	put16(w, (uint16_t)id->etag.len);
	put(w, id->bucket.data, id->bucket.len);
	put(w, id->key.data, id->key.len);
	put(w, id->etag.data, id->etag.len);
}

/* Without texts (a handle that is opened again) the hashes are taken as they are; else they must be those of the texts. */
static void get_identity(struct reader *r, struct cst_cache_identity *id)
{
	uint64_t name = get64(r), version = get64(r), size = get64(r);
	size_t bucket = get16(r), key = get16(r), etag = get16(r);
	*id = (struct cst_cache_identity){.name = name, .version = version, .size = size};
	if (bucket + key + etag > CST_CACHE_TEXT_MAX)
		r->bad = true;
	if (r->bad || bucket + key + etag == 0)
		return;
	id->bucket = get(r, bucket);
	id->key = get(r, key);
	id->etag = get(r, etag);
	if (r->bad)
		return;
	cst_cache_identify(id, id->bucket, id->key, id->etag, size);
	if (id->name != name || id->version != version || bucket == 0)
		r->bad = true;
}

static void put_pair(struct writer *w, const struct cst_cache_identity *id)
{
	put64(w, id->name);
	put64(w, id->version);
}

static void get_pair(struct reader *r, struct cst_cache_identity *id)
{
	id->name = get64(r);
	id->version = get64(r);
}

enum { ENTRY_COMPLETE = 1, ENTRY_PINNED = 2, ENTRY_IN_USE = 4 };

static void put_entry(struct writer *w, const struct cst_index_entry *e)
{
	put64(w, e->name);
	put64(w, e->version);
	put64(w, e->size);
	put64(w, e->cached);
	put32(w, (uint32_t)e->kind);
	put32(w, e->slot.slab);
	put32(w, e->slot.offset);
	put32(w, e->slot.length);
	put64(w, (e->complete ? ENTRY_COMPLETE : 0) | (e->pinned ? ENTRY_PINNED : 0) | (e->in_use ? ENTRY_IN_USE : 0));
	put64(w, (uint64_t)e->used);
}

static void get_entry(struct reader *r, struct cst_index_entry *e)
{
	*e = (struct cst_index_entry){0};
	e->name = get64(r);
	e->version = get64(r);
	e->size = get64(r);
	e->cached = get64(r);
	uint32_t kind = get32(r);
	if (kind != CST_ENTRY_EXTENT && kind != CST_ENTRY_SLOT)
		r->bad = true;
	e->kind = kind == CST_ENTRY_SLOT ? CST_ENTRY_SLOT : CST_ENTRY_EXTENT;
	e->slot.slab = get32(r);
	e->slot.offset = get32(r);
	e->slot.length = get32(r);
	uint64_t bits = get64(r);
	if (bits > (ENTRY_COMPLETE | ENTRY_PINNED | ENTRY_IN_USE))
		r->bad = true;
	e->complete = bits & ENTRY_COMPLETE;
	e->pinned = bits & ENTRY_PINNED;
	e->in_use = bits & ENTRY_IN_USE;
	e->used = (int64_t)get64(r);
}

/* The numbers of the statistics in the order of the packet; `full` comes after them. */
static void stats_fields(struct cst_index_stats *s, uint64_t *fields[STATS_FIELDS])
{
	uint64_t *const all[STATS_FIELDS] = {
		&s->quota,   &s->used,		&s->unlinked,	&s->entries,   &s->pinned,   &s->in_use, &s->evicted,
		&s->demoted, &s->refused_bytes, &s->stops_high, &s->stops_low, &s->replayed, &s->lost,	 &s->memory};
	memcpy(fields, all, sizeof(all));
}

static void put_stats(struct writer *w, const struct cst_index_stats *stats)
{
	struct cst_index_stats copy = *stats;
	uint64_t *fields[STATS_FIELDS];
	stats_fields(&copy, fields);
	for (size_t i = 0; i < STATS_FIELDS; i++)
		put64(w, *fields[i]);
	put32(w, stats->full);
}

static void get_stats(struct reader *r, struct cst_index_stats *stats)
{
	uint64_t *fields[STATS_FIELDS];
	stats_fields(stats, fields);
	for (size_t i = 0; i < STATS_FIELDS; i++)
		*fields[i] = get64(r);
	stats->full = get_bool(r);
}

/* Items of equal length that fill the rest of the packet. */
static void get_items(struct reader *r, struct cst_volume_message *m, size_t item, uint32_t max)
{
	m->count = (uint32_t)(r->left / item);
	if (r->left % item || m->count > max)
		r->bad = true;
	m->text = get(r, r->left);
}

/* ---- bodies ---- */

static void put_request(struct writer *w, const struct cst_volume_message *m)
{
	switch (m->type) {
	case CST_VMSG_HELLO:
	case CST_VMSG_RULES:
		put64(w, m->number);
		break;
	case CST_VMSG_OPEN:
	case CST_VMSG_RESERVE:
		put_identity(w, &m->identity);
		break;
	case CST_VMSG_CLOSE:
		put_pair(w, &m->identity);
		put32(w, m->count);
		break;
	case CST_VMSG_CHARGE:
		put_pair(w, &m->identity);
		put64(w, (uint64_t)m->bytes);
		break;
	case CST_VMSG_COMPLETE:
	case CST_VMSG_FORGET:
	case CST_VMSG_DROP:
	case CST_VMSG_PIN:
		put_pair(w, &m->identity);
		break;
	case CST_VMSG_COMMIT:
		put_entry(w, &m->entry);
		break;
	case CST_VMSG_TOUCH:
	case CST_VMSG_RULE:
		put(w, m->text.data, m->text.len);
		break;
	case CST_VMSG_LIST:
		put64(w, m->number);
		put32(w, m->count);
		break;
	case CST_VMSG_PING:
	case CST_VMSG_STATS:
	case CST_VMSG_FAILED:
	case CST_VMSG_TYPES:
		break;
	}
}

static void get_request(struct reader *r, struct cst_volume_message *m)
{
	switch (m->type) {
	case CST_VMSG_HELLO:
	case CST_VMSG_RULES:
		m->number = get64(r);
		break;
	case CST_VMSG_OPEN:
	case CST_VMSG_RESERVE:
		get_identity(r, &m->identity);
		if (m->type == CST_VMSG_RESERVE && m->identity.bucket.len == 0)
			r->bad = true;
		break;
	case CST_VMSG_CLOSE:
		get_pair(r, &m->identity);
		m->count = get32(r);
		break;
	case CST_VMSG_CHARGE:
		get_pair(r, &m->identity);
		m->bytes = (int64_t)get64(r);
		if (m->bytes == INT64_MIN)
			r->bad = true;
		break;
	case CST_VMSG_COMPLETE:
	case CST_VMSG_FORGET:
	case CST_VMSG_DROP:
	case CST_VMSG_PIN:
		get_pair(r, &m->identity);
		break;
	case CST_VMSG_COMMIT:
		get_entry(r, &m->entry);
		break;
	case CST_VMSG_TOUCH:
		get_items(r, m, TOUCH_BYTES, CST_VOLUME_TOUCHES);
		break;
	case CST_VMSG_RULE:
		m->text = get(r, r->left);
		if (m->text.len && memchr(m->text.data, '\0', m->text.len))
			r->bad = true;
		break;
	case CST_VMSG_LIST:
		m->number = get64(r);
		m->count = get32(r);
		break;
	case CST_VMSG_PING:
	case CST_VMSG_STATS:
	case CST_VMSG_FAILED:
	case CST_VMSG_TYPES:
		break;
	}
}

/* Replies that say no have no body. */
static void put_reply(struct writer *w, const struct cst_volume_message *m)
{
	if (m->rc < 0)
		return;
	switch (m->type) {
	case CST_VMSG_HELLO:
		put64(w, m->number);
		break;
	case CST_VMSG_OPEN:
	case CST_VMSG_RESERVE:
	case CST_VMSG_COMMIT:
		put_entry(w, &m->entry);
		put32(w, m->created);
		break;
	case CST_VMSG_LIST:
	case CST_VMSG_RULES:
		put64(w, m->number);
		put(w, m->text.data, m->text.len);
		break;
	case CST_VMSG_STATS:
		put_stats(w, &m->stats);
		break;
	default:
		break;
	}
}

static void get_reply(struct reader *r, struct cst_volume_message *m)
{
	if (m->rc < 0)
		return;
	switch (m->type) {
	case CST_VMSG_HELLO:
		m->number = get64(r);
		break;
	case CST_VMSG_OPEN:
	case CST_VMSG_RESERVE:
	case CST_VMSG_COMMIT:
		get_entry(r, &m->entry);
		m->created = get_bool(r);
		break;
	case CST_VMSG_LIST: {
		struct cst_index_entry entry;
		m->number = get64(r);
		get_items(r, m, ENTRY_BYTES, CST_VOLUME_LIST);
		struct reader items = {(const uint8_t *)m->text.data, m->text.len, r->bad};
		for (uint32_t i = 0; i < m->count && !items.bad; i++)
			get_entry(&items, &entry);
		r->bad = items.bad;
		break;
	}
	case CST_VMSG_RULES:
		m->number = get64(r);
		m->text = get(r, r->left);
		break;
	case CST_VMSG_STATS:
		get_stats(r, &m->stats);
		break;
	default:
		break;
	}
}

size_t cst_volume_message_write(const struct cst_volume_message *m, uint8_t out[CST_VOLUME_MESSAGE_MAX])
{
	const uint8_t kind[2] = {CST_VOLUME_PROTOCOL, m->reply};
	struct writer head = {out, 0}, body = {out, HEADER};
	put(&head, magic, 4);
	put(&head, kind, 2);
	put16(&head, (uint16_t)m->type);
	put64(&head, m->id);
	put32(&head, m->reply ? (uint32_t)m->rc : m->flags);
	if (m->reply)
		put_reply(&body, m);
	else
		put_request(&body, m);
	put32(&head, (uint32_t)(body.at - HEADER));
	return body.at;
}

int cst_volume_message_parse(const uint8_t *data, size_t len, struct cst_volume_message *m)
{
	struct reader r = {data, len, len > CST_VOLUME_MESSAGE_MAX};
	memset(m, 0, sizeof(*m));
	struct cst_slice head = get(&r, 4), kind = get(&r, 2);
	uint16_t type = get16(&r);
	m->id = get64(&r);
	uint32_t word = get32(&r);
	uint32_t body = get32(&r);
	if (r.bad || memcmp(head.data, magic, 4) != 0 || kind.data[0] != CST_VOLUME_PROTOCOL ||
	    (uint8_t)kind.data[1] > 1)
		return -EPROTO;
	if (type == 0 || type >= CST_VMSG_TYPES || body != r.left)
		return -EPROTO;
	m->type = (enum cst_volume_type)type;
	m->reply = kind.data[1] == 1;
	if (m->reply)
		m->rc = (int)word;
	else
		m->flags = word;
	if (m->reply && (m->rc > 0 || m->rc < -4095))
		return -EPROTO;
	if (m->reply)
		get_reply(&r, m);
	else
		get_request(&r, m);
	return r.bad || r.left ? -EPROTO : 0;
}

/* ---- items ---- */

void cst_volume_message_touch(const struct cst_volume_message *m, uint32_t i, struct cst_volume_touch_item *item)
{
	struct reader r = {(const uint8_t *)m->text.data + (size_t)i * TOUCH_BYTES, TOUCH_BYTES, false};
	item->name = get64(&r);
	item->version = get64(&r);
	item->count = get32(&r);
}

void cst_volume_message_add_touch(struct cst_buf *text, const struct cst_volume_touch_item *item)
{
	struct writer w = {(uint8_t *)cst_buf_room(text, TOUCH_BYTES), 0};
	put64(&w, item->name);
	put64(&w, item->version);
	put32(&w, item->count);
	text->len += w.at;
}

void cst_volume_message_entry(const struct cst_volume_message *m, uint32_t i, struct cst_index_entry *entry)
{
	struct reader r = {(const uint8_t *)m->text.data + (size_t)i * ENTRY_BYTES, ENTRY_BYTES, false};
	get_entry(&r, entry);
}

void cst_volume_message_add_entry(struct cst_buf *text, const struct cst_index_entry *entry)
{
	struct writer w = {(uint8_t *)cst_buf_room(text, ENTRY_BYTES), 0};
	put_entry(&w, entry);
	text->len += w.at;
}

/* ---- packets that wait ---- */

int cst_volume_queue_flush(struct cst_volume_queue *q, int fd)
{
	struct cst_volume_packet *p;
	while ((p = STAILQ_FIRST(q))) {
		if (send(fd, p->data, p->len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
			if (errno == EINTR)
				continue;
			return errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM ? -EAGAIN : -errno;
		}
		STAILQ_REMOVE_HEAD(q, link);
		free(p);
	}
	return 0;
}

void cst_volume_queue_add(struct cst_volume_queue *q, const uint8_t *data, size_t len)
{
	struct cst_volume_packet *p = cst_xmalloc(sizeof(*p) + len);
	p->len = len;
	memcpy(p->data, data, len);
	STAILQ_INSERT_TAIL(q, p, link);
}

void cst_volume_queue_clear(struct cst_volume_queue *q)
{
	struct cst_volume_packet *p;
	while ((p = STAILQ_FIRST(q))) {
		STAILQ_REMOVE_HEAD(q, link);
		free(p);
	}
}
