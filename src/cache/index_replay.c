/* From the log to the index. Whatever bytes the log holds, what comes out is an index in order: a slot has one owner, sizes fit. Whether the files
 * are there and right is for others to find out (index_keep.c, files.h). */
#define CST_LOG_AREA "cache"
#include "cache/index_private.h"

#include "base/log.h"

#include <inttypes.h>

#define SLAB_LENGTH_LIMIT (128u << 20)

void replay_init(struct replay *r, struct cst_index *x)
{
	*r = (struct replay){.x = x};
	x->slabs.replaying = true;
}

/* An entry as the log left it: nothing counts it yet but its slot. */
static void forget(struct replay *r, uint32_t n)
{
	if (at(r->x, n)->flags & F_SLOT)
		slot_give_locked(r->x, n);
	table_remove(&r->x->table, n);
}

static int length_class(uint64_t length)
{
	int class = length <= UINT32_MAX ? slot_class_of((uint32_t)length) : -1;
	return class >= 0 && slot_class_length((unsigned)class) == length ? class : -1;
}

static void slab_gone(struct replay *r, uint64_t number)
{
	struct slab *s = number <= UINT32_MAX ? slab_find(r->x, (uint32_t)number) : NULL;
	if (!s)
		return;
	for (uint32_t slot = 0; slot < s->slots; slot++)
		if (s->owners[slot] < OWNER_FREE)
			forget(r, s->owners[slot]);
	slab_remove_locked(r->x, s);
	free(s);
}

static void slab_seen(struct replay *r, const struct record *record)
{
	int class = length_class(record->place);
	if (class < 0 || record->name >= UINT32_MAX || record->size < record->place || record->size > SLAB_LENGTH_LIMIT)
		return;
	struct slab *s = slab_find(r->x, (uint32_t)record->name);
	if (s && s->class == class && s->length == record->size)
		return;
	if (s)
		slab_gone(r, record->name);
	slab_add_locked(r->x, (uint32_t)record->name, (unsigned)class, (uint32_t)record->size);
}

static void slot_seen(struct replay *r, const struct record *record)
{
	struct cst_index *x = r->x;
	struct slab *s = slab_find(x, (uint32_t)record->place);
	uint64_t slot = record->place >> 32;
	if (!s || slot >= s->slots || record->size > CST_SLOT_MAX || record->size > slot_class_length(s->class))
		return;
	if (s->owners[slot] < OWNER_FREE)
		forget(r, s->owners[slot]); /* its removal was lost; the file tells whose bytes are there */
	uint32_t n = table_add(&x->table, record->name, record->version);
	if (!n)
		return;
	struct entry *e = at(x, n);
	e->flags = (uint16_t)(record->flags & ~(F_COMPLETE | F_UNSURE));
	e->minute = record->minute;
	entry_set_size(e, record->size);
	slot_take_at_locked(x, s, (uint32_t)slot, n);
}

static void extent_seen(struct replay *r, const struct record *record)
{
	uint32_t n = table_add(&r->x->table, record->name, record->version);
	if (!n)
		return;
	struct entry *e = at(r->x, n);
	bool complete = record->flags & F_COMPLETE;
	e->flags = record->flags;
	e->minute = record->minute;
	entry_set_size(e, record->size);
	entry_set_charged(e, complete ? record->size : cst_min(record->place, record->size));
}

static void apply(struct replay *r, const struct record *record)
{
	uint32_t n;
	r->clean = false;
	switch (record->type) {
	case R_SESSION:
		r->boot[0] = record->name;
		r->boot[1] = record->version;
		break;
	case R_CLEAN:
		r->clean = record->name == r->boot[0] && record->version == r->boot[1];
		r->scan = record->size;
		break;
	case R_SLAB:
		slab_seen(r, record);
		break;
	case R_SLAB_GONE:
		slab_gone(r, record->name);
		break;
	case R_ENTRY:
	case R_GONE:
		n = table_find(&r->x->table, record->name, record->version);
		if (n)
			forget(r, n);
		if (record->type == R_GONE || record->size == 0 || record->size >= SIZE_LIMIT)
			break;
		if (record->flags & F_SLOT)
			slot_seen(r, record);
		else
			extent_seen(r, record);
		break;
	case R_HEADER:
		break;
	}
}

static void one(struct replay *r, const uint8_t bytes[RECORD_SIZE])
{
	struct record record;
	uint64_t seq;
	bool good = !r->foreign && record_decode(bytes, r->log_id, &seq, &record);
	if (r->records == 0 && !r->broken) {
		r->foreign = !good || record.type != R_HEADER || seq != 0;
		r->broken = r->foreign;
		r->log_id = record.version;
		r->records = !r->foreign;
		return;
	}
	if (good && record.type != R_HEADER)
		r->synced = cst_max(r->synced, record.synced);
	r->broken = r->broken || !good || seq != r->records || record.type == R_HEADER;
	if (r->broken)
		return;
	apply(r, &record);
	r->records++;
}

void replay_feed(struct replay *r, const void *data, size_t len)
{
	const uint8_t *p = data;
	while (len) {
		if (r->rest.len == 0 && len >= RECORD_SIZE) {
			one(r, p);
			p += RECORD_SIZE;
			len -= RECORD_SIZE;
			continue;
		}
		size_t take = cst_min(len, RECORD_SIZE - r->rest.len);
		cst_buf_add(&r->rest, p, take);
		p += take;
		len -= take;
		if (r->rest.len == RECORD_SIZE) {
			one(r, (const uint8_t *)r->rest.data);
			cst_buf_clear(&r->rest);
		}
	}
}

static void count(struct cst_index *x, struct entry *e, bool distrust, bool clean, bool same_boot)
{
	x->found++;
	x->pinned += !!(e->flags & F_PINNED);
	if (e->flags & F_SLOT)
		return;
	if (distrust)
		e->flags = (uint16_t)(e->flags & ~F_COMPLETE);
	/* After a power cut that followed a clean end, what was synced is there. */
	if (!clean || (!same_boot && !(e->flags & F_COMPLETE)) || distrust)
		e->flags |= F_UNSURE;
	if (e->flags & F_UNSURE)
		x->check_at = 1;
	x->extents += extent_bytes(e);
}

bool replay_finish(struct replay *r)
{
	struct cst_index *x = r->x;
	bool same_boot = r->boot[0] == x->boot[0] && r->boot[1] == x->boot[1];
	/* A record that had been on the disk is bad: others that say what went away after it may be, too. */
	bool distrust = r->broken && !r->foreign && r->synced > r->records;
	bool clean = r->clean && !r->broken && r->rest.len == 0;
	if (distrust)
		cst_log_warn("the cache's log is damaged at record %" PRIu64 ": what is complete is verified again",
			     r->records);
	for (uint32_t n = 1; n < x->table.used; n++)
		if (entry_found(at(x, n)))
			count(x, at(x, n), distrust, clean, same_boot);
	x->stats.replayed = r->records;
	x->scan_folder = clean && !r->scan ? SCAN_DONE : 0;
	policy_restore_locked(x);
	slabs_restore_locked(x);
	return r->records && !distrust;
}
