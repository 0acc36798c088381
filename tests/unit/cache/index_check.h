/* Looks at a whole index: is everything that is kept twice the same? Any thread, takes its lock. */
#pragma once

#include "cache/index_private.h"

struct index_sums {
	uint64_t extents, unlinked, leaving, found, pinned, in_use, entries, queued, slots;
};

static inline void index_check_entry(struct cst_index *x, uint32_t n, struct index_sums *sum)
{
	const struct entry *e = at(x, n);
	CST_ASSERT(table_find(&x->table, e->name, e->version) == n);
	sum->entries++;
	if (e->flags & F_SLOT) {
		struct slab *s = slab_find(x, e->place_low);
		CST_ASSERT(s && e->place_high < s->slots && s->owners[e->place_high] == n);
		CST_ASSERT(entry_size(e) <= slot_class_length(s->class));
		sum->slots++;
	} else {
		sum->extents += extent_bytes(e);
		if (e->flags & F_DROPPED)
			*(e->uses ? &sum->unlinked : &sum->leaving) += extent_bytes(e);
	}
	if (!entry_found(e)) {
		CST_ASSERT(!(e->flags & (F_QUEUED | F_PARKED)));
		return;
	}
	sum->found++;
	sum->pinned += !!(e->flags & F_PINNED);
	sum->in_use += !!e->uses;
	sum->queued += !!(e->flags & F_QUEUED);
	CST_ASSERT(!(e->flags & F_PINNED) || e->flags & F_PARKED);
}

static inline void index_check_queue(struct cst_index *x, const struct queue *q, unsigned main)
{
	uint32_t n = q->head, before = NIL, count = 0;
	uint64_t bytes = 0;
	for (; n; before = n, n = at(x, n)->next) {
		CST_ASSERT(at(x, n)->prev == before && (at(x, n)->flags & F_MAIN) == main);
		CST_ASSERT(at(x, n)->flags & F_QUEUED && !(at(x, n)->flags & F_PARKED));
		bytes += entry_bytes(x, at(x, n));
		count++;
	}
	CST_ASSERT(q->tail == before && q->count == count && q->bytes == bytes);
}

static inline uint32_t index_check_slab(struct cst_index *x, const struct slab *s)
{
	uint32_t live = 0, held = 0, gaps = 0;
	for (uint32_t slot = 0; slot < s->slots; slot++) {
		if (s->owners[slot] >= OWNER_FREE)
			continue;
		const struct entry *e = at(x, s->owners[slot]);
		CST_ASSERT(e->place_low == s->number && e->place_high == slot);
		live++;
		held += entry_held(e);
	}
	for (uint32_t slot = s->first_free; slot != OWNER_END; gaps++) {
		CST_ASSERT(slot < s->slots && s->owners[slot] >= OWNER_FREE);
		slot = s->owners[slot] == OWNER_END ? OWNER_END : s->owners[slot] - OWNER_FREE;
	}
	CST_ASSERT(live == s->live && held == s->held && gaps + live == s->slots);
	CST_ASSERT(s->listed == (!s->closed && !s->lost && live < s->slots));
	return live;
}

static inline void index_check_slabs(struct cst_index *x, uint64_t slots)
{
	uint64_t whole = 0, needed = 0, live = 0;
	for (uint32_t i = 0; i < x->slabs.count; i++) {
		const struct slab *s = x->slabs.sorted[i];
		CST_ASSERT(i == 0 || x->slabs.sorted[i - 1]->number < s->number);
		live += index_check_slab(x, s);
		whole += s->length;
	}
	for (unsigned c = 0; c < SLOT_CLASSES; c++) {
		uint32_t length = slab_length(x, c), each = length / slot_class_length(c);
		needed += (uint64_t)((x->slabs.classes[c].live + each - 1) / each) * length;
	}
	CST_ASSERT(whole == x->slabs.whole && needed == x->slabs.needed && live >= slots);
}

static inline void index_check(struct cst_index *x)
{
	struct index_sums sum = {0};
	pthread_mutex_lock(&x->lock);
	/* Freed entries have no size either. */
	for (uint32_t n = 1; n < x->table.used; n++)
		if (at(x, n)->name || at(x, n)->version || entry_size(at(x, n)))
			index_check_entry(x, n, &sum);
	CST_ASSERT(sum.entries == x->table.count);
	CST_ASSERT(sum.unlinked == x->unlinked && sum.leaving == x->leaving_bytes);
	CST_ASSERT(sum.found == x->found && sum.pinned == x->pinned && sum.in_use == x->in_use);
	CST_ASSERT(sum.queued == x->policy.small.count + x->policy.main.count);
	CST_ASSERT(sum.extents == x->extents);
	index_check_queue(x, &x->policy.small, 0);
	index_check_queue(x, &x->policy.main, F_MAIN);
	index_check_slabs(x, sum.slots);
	pthread_mutex_unlock(&x->lock);
}
