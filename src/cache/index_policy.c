/* S3-FIFO (Yang et al., SOSP 2023), by bytes: new entries go through a small queue, a tenth of all; what is not used again there leaves and
 * is remembered by name for a while (the ghost), so that it goes straight to main when it comes back. Main gives as many further
 * rounds as an entry was used since the last, at most three.
 *
 * What is in use or pinned stays in its queue until its turn comes and is parked then, so it costs one step, not one for each eviction. */
#include "cache/index_private.h"

#define GHOST_WORDS 32u /* of a line: a counter, then the marks */
#define GHOST_LEAST 64u /* lines */

static struct queue *queue_of(struct cst_index *x, const struct entry *e)
{
	return e->flags & F_MAIN ? &x->policy.main : &x->policy.small;
}

static void push(struct cst_index *x, uint32_t n, bool at_head)
{
	struct entry *e = at(x, n);
	struct queue *q = queue_of(x, e);
	e->prev = at_head ? NIL : q->tail;
	e->next = at_head ? q->head : NIL;
	*(e->prev ? &at(x, e->prev)->next : &q->head) = n;
	*(e->next ? &at(x, e->next)->prev : &q->tail) = n;
	q->count++;
	q->bytes += entry_bytes(x, e);
	e->flags = (uint16_t)((e->flags & ~F_PARKED) | F_QUEUED);
}

static void take(struct cst_index *x, uint32_t n)
{
	struct entry *e = at(x, n);
	struct queue *q = queue_of(x, e);
	*(e->prev ? &at(x, e->prev)->next : &q->head) = e->next;
	*(e->next ? &at(x, e->next)->prev : &q->tail) = e->prev;
	q->count--;
	q->bytes -= entry_bytes(x, e);
	e->prev = e->next = NIL;
	e->flags = (uint16_t)(e->flags & ~F_QUEUED);
}

/* ---- the ghost ---- */

static uint64_t ghost_hash(uint64_t name)
{
	return name * UINT64_C(0x9E3779B97F4A7C15);
}

static uint16_t ghost_mark(uint64_t hash)
{
	uint16_t mark = (uint16_t)(hash >> 20);
	return mark ? mark : 1;
}

static bool line_has(const uint16_t *lines, uint32_t count, uint64_t hash, unsigned depth)
{
	if (!count)
		return false;
	const uint16_t *line = lines + (size_t)((hash >> 40) & (count - 1)) * GHOST_WORDS;
	for (unsigned i = 1; i <= depth; i++)
		if (line[1 + (line[0] + GHOST_MARKS - i) % GHOST_MARKS] == ghost_mark(hash))
			return true;
	return false;
}

static bool ghost_has(const struct ghost *g, uint64_t name, uint32_t entries)
{
	uint64_t hash = ghost_hash(name);
	unsigned depth = g->line_count ? entries / g->line_count + 1 : 0;
	return line_has(g->lines, g->line_count, hash, cst_min(depth, GHOST_MARKS)) ||
	       line_has(g->old, g->old_count, hash, GHOST_MARKS);
}

static void ghost_add(struct ghost *g, uint64_t name, uint32_t entries)
{
	uint64_t hash = ghost_hash(name);
	if (entries > g->line_count * GHOST_MARKS || !g->line_count) {
		free(g->old);
		g->old = g->lines;
		g->old_count = g->line_count;
		g->line_count = cst_max(g->line_count, GHOST_LEAST / 2) * 2;
		while (entries > g->line_count * GHOST_MARKS)
			g->line_count *= 2;
		g->lines = cst_xcalloc(g->line_count, GHOST_WORDS * sizeof(*g->lines));
		g->added = 0;
	}
	if (g->old && ++g->added > g->old_count * GHOST_MARKS) {
		free(cst_steal(g->old));
		g->old_count = 0;
	}
	uint16_t *line = g->lines + (size_t)((hash >> 40) & (g->line_count - 1)) * GHOST_WORDS;
	line[1 + line[0]] = ghost_mark(hash);
	line[0] = (uint16_t)((line[0] + 1) % GHOST_MARKS);
}

/* ---- the policy ---- */

void policy_init(struct policy *p)
{
	*p = (struct policy){0};
}

void policy_fini(struct policy *p)
{
	free(p->ghost.lines);
	free(p->ghost.old);
	policy_init(p);
}

static uint32_t queued(const struct policy *p)
{
	return p->small.count + p->main.count;
}

void policy_insert_locked(struct cst_index *x, uint32_t n)
{
	struct entry *e = at(x, n);
	if (ghost_has(&x->policy.ghost, e->name, queued(&x->policy)))
		e->flags |= F_MAIN;
	if (e->flags & F_PINNED)
		e->flags |= F_PARKED;
	else
		push(x, n, false);
}

void policy_leave_locked(struct cst_index *x, uint32_t n)
{
	struct entry *e = at(x, n);
	if (e->flags & F_QUEUED)
		take(x, n);
	e->flags = (uint16_t)(e->flags & ~F_PARKED);
}

void policy_park_locked(struct cst_index *x, uint32_t n)
{
	policy_leave_locked(x, n);
	at(x, n)->flags |= F_PARKED;
}

void policy_unpark_locked(struct cst_index *x, uint32_t n, bool fresh)
{
	if (at(x, n)->flags & F_PARKED)
		push(x, n, !fresh);
}

/* Reading all of it once counts once, however many reads that takes: by chance, so that nothing has to be kept. */
void policy_hit_locked(struct cst_index *x, uint32_t n, unsigned reads)
{
	struct entry *e = at(x, n);
	if (reads && e->flags & F_OPENED) {
		e->flags = (uint16_t)(e->flags & ~F_OPENED);
		reads--;
	}
	uint64_t blocks = cst_extent_blocks(entry_size(e)), read = (uint64_t)reads * 8;
	if (!read || !blocks)
		return;
	x->seed ^= x->seed << 13;
	x->seed ^= x->seed >> 7;
	x->seed ^= x->seed << 17;
	uint64_t times = read >= blocks ? reads : x->seed % blocks < read;
	entry_set_freq(e, entry_freq(e) + (unsigned)cst_min(times, (uint64_t)FREQ_MAX));
}

void policy_count_locked(struct cst_index *x, const struct entry *e, int64_t bytes)
{
	if (e->flags & F_QUEUED)
		queue_of(x, e)->bytes += (uint64_t)bytes;
}

/* True when n, the head of its queue, is to go. Else it was parked, moved on or given another round. */
static bool judge(struct cst_index *x, uint32_t n)
{
	struct entry *e = at(x, n);
	unsigned freq = entry_freq(e);
	take(x, n);
	if (entry_held(e)) {
		e->flags |= F_PARKED;
		return false;
	}
	if (e->flags & F_MAIN ? freq == 0 : freq <= 1)
		return true;
	entry_set_freq(e, e->flags & F_MAIN ? freq - 1 : 0);
	e->flags |= F_MAIN | F_DIRTY;
	push(x, n, false);
	return false;
}

static uint32_t first_extent(struct cst_index *x, uint32_t n, unsigned *steps)
{
	while (n && *steps && (at(x, n)->flags & F_SLOT || entry_held(at(x, n)))) {
		n = at(x, n)->next;
		(*steps)--;
	}
	return *steps ? n : NIL;
}

uint32_t policy_victim_locked(struct cst_index *x, bool extents, unsigned *steps)
{
	struct policy *p = &x->policy;
	if (extents) {
		uint32_t n = first_extent(x, p->small.head, steps);
		if (!n)
			n = first_extent(x, p->main.head, steps);
		if (n)
			take(x, n);
		return n;
	}
	while (*steps && queued(p)) {
		bool small =
			p->small.count && (!p->main.count || p->small.bytes > (p->small.bytes + p->main.bytes) / 10);
		uint32_t n = small ? p->small.head : p->main.head;
		(*steps)--;
		if (judge(x, n))
			return n;
	}
	return NIL;
}

void policy_remember_locked(struct cst_index *x, const struct entry *e)
{
	if (!(e->flags & F_MAIN))
		ghost_add(&x->policy.ghost, e->name, queued(&x->policy));
}

struct restored {
	uint32_t minute, n;
};

static int by_minute(const void *a, const void *b)
{
	const struct restored *l = a, *r = b;
	if (l->minute != r->minute)
		return l->minute < r->minute ? -1 : 1;
	return l->n < r->n ? -1 : 1;
}

/* The log doesn't keep the order of the queues; the time of the last use is near enough. */
void policy_restore_locked(struct cst_index *x)
{
	uint32_t count = 0;
	CST_AUTO_FREE struct restored *all = cst_xmalloc((x->table.count + 1) * sizeof(*all));
	for (uint32_t n = 1; n < x->table.used; n++)
		if (entry_found(at(x, n)))
			all[count++] = (struct restored){at(x, n)->minute, n};
	qsort(all, count, sizeof(*all), by_minute);
	for (uint32_t i = 0; i < count; i++) {
		if (at(x, all[i].n)->flags & F_PINNED)
			at(x, all[i].n)->flags |= F_PARKED;
		else
			push(x, all[i].n, false);
	}
}

uint64_t policy_memory(const struct policy *p)
{
	return (uint64_t)(p->ghost.line_count + p->ghost.old_count) * GHOST_WORDS * sizeof(uint16_t);
}
