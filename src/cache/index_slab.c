/* Slabs: which slots there are, and who has them. A slab's free slots are a list through its table of owners. */
#include "cache/index_private.h"

#define SLAB_LEAST (1u << 20)
#define SLAB_MOST (64u << 20)
#define SLAB_SLOTS 4u /* at least */
#define SMALLEST (4u << 10)

/* Four to a doubling from 4 KiB to 256 KiB; the last holds the largest object with its header and names. */
uint32_t slot_class_length(unsigned class)
{
	if (class == SLOT_CLASSES - 1)
		return CST_SLOT_MAX + 4096;
	uint32_t doubled = SMALLEST << (class / 4);
	return doubled + doubled / 4 * (class % 4);
}

int slot_class_of(uint32_t length)
{
	for (unsigned c = 0; c < SLOT_CLASSES; c++)
		if (length <= slot_class_length(c))
			return (int)c;
	return -1;
}

uint32_t slab_length(const struct cst_index *x, unsigned class)
{
	uint32_t slot = slot_class_length(class);
	uint64_t share = cst_max(cst_min(x->slabs.quota_share, (uint64_t)SLAB_MOST), (uint64_t)SLAB_LEAST);
	return cst_max((uint32_t)share / slot, SLAB_SLOTS) * slot;
}

/* ---- slabs by number ---- */

static uint32_t slab_rank(const struct slabs *s, uint32_t number)
{
	uint32_t low = 0, high = s->count;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (s->sorted[middle]->number < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct slab *slab_from(const struct cst_index *x, uint32_t number)
{
	uint32_t i = slab_rank(&x->slabs, number);
	return i < x->slabs.count ? x->slabs.sorted[i] : NULL;
}

struct slab *slab_find(const struct cst_index *x, uint32_t number)
{
	struct slab *s = slab_from(x, number);
	return s && s->number == number ? s : NULL;
}

struct slab *slab_add_locked(struct cst_index *x, uint32_t number, unsigned class, uint32_t length)
{
	struct slabs *all = &x->slabs;
	uint32_t slots = length / slot_class_length(class), i = slab_rank(all, number);
	struct slab *s = cst_xcalloc(1, sizeof(*s) + slots * sizeof(s->owners[0]));
	s->number = number;
	s->length = length;
	s->slots = slots;
	s->class = (uint8_t) class;
	s->closed = true;
	for (uint32_t slot = 0; slot < slots; slot++)
		s->owners[slot] = slot + 1 < slots ? OWNER_FREE + slot + 1 : OWNER_END;
	if (all->count == all->cap) {
		all->cap = cst_max(2 * all->cap, 16u);
		all->sorted = cst_xrealloc(all->sorted, all->cap * sizeof(struct slab *));
	}
	memmove(all->sorted + i + 1, all->sorted + i, (all->count - i) * sizeof(struct slab *));
	all->sorted[i] = s;
	all->count++;
	all->whole += length;
	all->next_number = cst_max(all->next_number, number + 1);
	return s;
}

/* ---- those of a class with free slots ---- */

static void enlist(struct cst_index *x, struct slab *s)
{
	struct slot_class *c = &x->slabs.classes[s->class];
	if (s->listed || s->closed || s->lost || s->live == s->slots)
		return;
	/* At the end, so that those that emptied last fill last. */
	s->prev = c->last;
	s->next = NULL;
	*(c->last ? &c->last->next : &c->first) = s;
	c->last = s;
	s->listed = true;
}

static void delist(struct cst_index *x, struct slab *s)
{
	struct slot_class *c = &x->slabs.classes[s->class];
	if (!s->listed)
		return;
	*(s->prev ? &s->prev->next : &c->first) = s->next;
	*(s->next ? &s->next->prev : &c->last) = s->prev;
	s->listed = false;
}

void slab_remove_locked(struct cst_index *x, struct slab *s)
{
	struct slabs *all = &x->slabs;
	uint32_t i = slab_rank(all, s->number);
	CST_ASSERT(s->live == 0 && i < all->count && all->sorted[i] == s);
	delist(x, s);
	memmove(all->sorted + i, all->sorted + i + 1, (all->count - i - 1) * sizeof(struct slab *));
	all->count--;
	all->whole -= s->length;
}

static void retire(struct cst_index *x, struct slab *s)
{
	log_slab_locked(x, s, true);
	slab_remove_locked(x, s);
	x->dead_slabs += s->length;
	s->next = x->dead;
	x->dead = s;
	pthread_cond_signal(&x->keep_wake);
}

void slab_close_locked(struct cst_index *x, struct slab *s)
{
	delist(x, s);
	s->closed = true;
}

void slab_open_locked(struct cst_index *x, struct slab *s)
{
	s->closed = false;
	if (s->live)
		enlist(x, s);
	else
		retire(x, s);
}

void slab_made_locked(struct cst_index *x, struct slab *s, uint32_t n)
{
	s->closed = false;
	enlist(x, s);
	slot_take_locked(x, s->class, n);
	if (s->live == 0) /* another one of its class had become free meanwhile */
		retire(x, s);
}

/* ---- slots ---- */

static void count_live(struct cst_index *x, struct slab *s, int change)
{
	struct slot_class *c = &x->slabs.classes[s->class];
	uint32_t length = slab_length(x, s->class), slots = length / slot_class_length(s->class);
	x->slabs.needed -= (uint64_t)((c->live + slots - 1) / slots) * length;
	c->live += (uint32_t)change;
	s->live += (uint32_t)change;
	x->slabs.needed += (uint64_t)((c->live + slots - 1) / slots) * length;
}

static void own(struct cst_index *x, struct slab *s, uint32_t slot, uint32_t n)
{
	struct entry *e = at(x, n);
	s->owners[slot] = n;
	e->place_low = s->number;
	e->place_high = (uint16_t)slot;
	s->held += entry_held(e);
	count_live(x, s, 1);
}

bool slot_take_locked(struct cst_index *x, unsigned class, uint32_t n)
{
	struct slab *s = x->slabs.classes[class].first;
	if (!s)
		return false;
	uint32_t slot = s->first_free, after = s->owners[slot];
	s->first_free = after == OWNER_END ? OWNER_END : after - OWNER_FREE;
	own(x, s, slot, n);
	if (s->live == s->slots)
		delist(x, s);
	return true;
}

void slot_take_at_locked(struct cst_index *x, struct slab *s, uint32_t slot, uint32_t n)
{
	own(x, s, slot, n);
}

void slot_give_locked(struct cst_index *x, uint32_t n)
{
	struct entry *e = at(x, n);
	struct slab *s = slab_find(x, e->place_low);
	CST_ASSERT(s && e->place_high < s->slots && s->owners[e->place_high] == n);
	s->held -= entry_held(e);
	s->owners[e->place_high] = s->first_free == OWNER_END ? OWNER_END : OWNER_FREE + s->first_free;
	s->first_free = e->place_high;
	count_live(x, s, -1);
	if (x->slabs.replaying || s->closed)
		return;
	if (s->live == 0)
		retire(x, s);
	else
		enlist(x, s);
}

void slot_held_locked(struct cst_index *x, const struct entry *e, int change)
{
	struct slab *s = slab_find(x, e->place_low);
	CST_ASSERT(s != NULL);
	s->held += (uint32_t)change;
}

struct cst_slot_place slot_place(const struct cst_index *x, const struct entry *e)
{
	const struct slab *s = slab_find(x, e->place_low);
	CST_ASSERT(s != NULL);
	uint32_t length = slot_class_length(s->class);
	return (struct cst_slot_place){e->place_low, e->place_high * length, length};
}

/* Slots were taken and given in no order: the lists are made now. */
void slabs_restore_locked(struct cst_index *x)
{
	x->slabs.replaying = false;
	for (uint32_t i = x->slabs.count; i-- > 0;) {
		struct slab *s = x->slabs.sorted[i];
		s->first_free = OWNER_END;
		for (uint32_t slot = s->slots; slot-- > 0;) {
			if (s->owners[slot] < OWNER_FREE)
				continue;
			s->owners[slot] = s->first_free == OWNER_END ? OWNER_END : OWNER_FREE + s->first_free;
			s->first_free = slot;
		}
		slab_open_locked(x, s);
	}
}

struct slab *slab_emptiest_locked(struct cst_index *x)
{
	struct slab *best = NULL;
	for (uint32_t i = 0; i < x->slabs.count; i++) {
		struct slab *s = x->slabs.sorted[i];
		if (s->held || s->closed)
			continue;
		if (!best || (uint64_t)s->live * best->slots < (uint64_t)best->live * s->slots)
			best = s;
	}
	return best;
}

uint64_t slabs_memory(const struct slabs *s)
{
	uint64_t sum = s->cap * sizeof(struct slab *);
	for (uint32_t i = 0; i < s->count; i++)
		sum += sizeof(struct slab) + s->sorted[i]->slots * sizeof(uint32_t);
	return sum;
}

void slabs_fini(struct slabs *s)
{
	for (uint32_t i = 0; i < s->count; i++)
		free(s->sorted[i]);
	free(s->sorted);
	*s = (struct slabs){0};
}
