#include "stage/plan.h"

#include <errno.h>

#define COPY_SIZE \
	(UINT64_C(1) << 30) /* of a copied part, where limits and size allow: many at once are faster than one */

struct planner {
	const struct cst_extents *map;
	uint64_t size;
	const struct cst_object_limits *limits;
	uint64_t part, copy; /* bytes of parts: uploaded, copied */
	uint64_t gap;	     /* unchanged runs from this length on are copied */
	struct cst_stage_plan *plan;
};

static bool is_changed(const struct cst_extent *e, bool in_map)
{
	return in_map && !(e->kind & CST_STAGE_CLEAN);
}

/* The run from `at` on, changed or unchanged: its end. */
static uint64_t run_end(const struct planner *p, uint64_t at, bool *changed)
{
	struct cst_extent e;
	*changed = is_changed(&e, cst_extents_stretch(p->map, at, p->size, &e));
	uint64_t end = e.start + e.length;
	while (end < p->size && is_changed(&e, cst_extents_stretch(p->map, end, p->size, &e)) == *changed)
		end = e.start + e.length;
	return end;
}

/* Where what is uploaded from `at` on ends: over unchanged runs that are too short to be copied, and at least as far as a part must reach. */
static uint64_t upload_end(const struct planner *p, uint64_t at)
{
	uint64_t end = at, least = cst_min(at + p->limits->part_min, p->size);
	while (end < p->size) {
		bool changed;
		uint64_t next = run_end(p, end, &changed);
		if (!changed && end >= least && (next - end >= p->gap || (next == p->size && p->gap <= p->size)))
			break;
		if (!changed && end < least && next > least && next - least >= p->gap)
			return least;
		end = next;
	}
	return end;
}

/* A range as parts whose lengths differ by a byte at most: halves of what is longer than a part, which two parts of the least size fit into, are parts. */
static void add_parts(struct planner *p, bool copy, uint64_t start, uint64_t end)
{
	uint64_t most = copy ? p->copy : p->part, length = end - start;
	uint64_t count = (length + most - 1) / most, longer = length % count;
	struct cst_stage_plan *plan = p->plan;
	for (uint64_t i = 0, at = start, each; i < count; i++, at += each) {
		each = length / count + (i < longer);
		if (plan->count == plan->room) {
			plan->room = cst_max(2 * plan->room, (size_t)16);
			plan->parts = cst_xrealloc(plan->parts, plan->room * sizeof(*plan->parts));
		}
		plan->parts[plan->count++] = (struct cst_stage_part){copy, at, each};
	}
	if (copy)
		plan->copy += length;
	else
		plan->upload += length;
}

static uint64_t count_parts(const struct planner *p, bool copy, uint64_t length)
{
	uint64_t most = copy ? p->copy : p->part;
	return (length + most - 1) / most;
}

/* False: more parts than there may be. */
static bool try_plan(struct planner *p)
{
	uint64_t count = 0;
	p->plan->count = 0;
	p->plan->upload = p->plan->copy = 0;
	for (uint64_t at = 0, end; at < p->size; at = end) {
		bool changed;
		end = run_end(p, at, &changed);
		bool copy = !changed && (end - at >= p->gap || (end == p->size && at > 0 && p->gap <= p->size));
		if (!copy)
			end = upload_end(p, at);
		count += count_parts(p, copy, end - at);
		if (count > p->limits->parts_max)
			return false;
		add_parts(p, copy, at, end);
	}
	return true;
}

/* Bytes of [from, end) that are neither local nor changed. */
static uint64_t missing(const struct planner *p, uint64_t from, uint64_t end)
{
	uint64_t bytes = end - from;
	struct cst_extent e;
	for (uint64_t at = from; cst_extents_next(p->map, at, end, &e); at = e.start + e.length)
		bytes -= e.length;
	return bytes;
}

static bool has_changes(const struct planner *p)
{
	struct cst_extent e;
	for (uint64_t at = 0; cst_extents_next(p->map, at, p->size, &e); at = e.start + e.length)
		if (is_changed(&e, true))
			return true;
	return false;
}

/* One request for all, unless much would have to be fetched for it that could be copied. */
static bool fits_one_put(const struct planner *p, uint64_t part_size)
{
	if (p->size > p->limits->put_max)
		return false;
	if (p->size < 2 * p->limits->part_min)
		return true;
	return p->size <= part_size && missing(p, 0, p->size) <= p->limits->part_min;
}

int cst_stage_plan(const struct cst_extents *map, uint64_t size, const struct cst_stage_base *base,
		   const struct cst_object_limits *limits, uint64_t part_size, struct cst_stage_plan *plan)
{
	struct planner p = {.map = map, .size = size, .limits = limits, .plan = plan};
	*plan = (struct cst_stage_plan){.kind = CST_STAGE_PLAN_NOTHING};
	if (base->exists && base->size == size && !has_changes(&p))
		return 0;
	plan->kind = CST_STAGE_PLAN_PUT;
	plan->upload = size;
	plan->fetch = missing(&p, 0, size);
	if (fits_one_put(&p, part_size))
		return 0;
	plan->kind = CST_STAGE_PLAN_PARTS;
	p.gap = cst_max(limits->part_min, UINT64_C(1));
	uint64_t copy_most = cst_min(limits->part_max, limits->copy_max);
	p.part = cst_min(cst_max(part_size, 2 * p.gap), limits->part_max);
	p.copy = cst_min(cst_max(COPY_SIZE, 2 * p.gap), copy_most);
	while (!try_plan(&p)) {
		if (p.gap > size && p.part == limits->part_max)
			return -EFBIG;
		p.part = cst_min(2 * p.part, limits->part_max);
		p.copy = cst_min(2 * p.copy, copy_most);
		p.gap = cst_min(2 * p.gap, size + 1);
	}
	plan->fetch = 0;
	for (size_t i = 0; i < plan->count; i++)
		if (!plan->parts[i].copy)
			plan->fetch +=
				missing(&p, plan->parts[i].offset, plan->parts[i].offset + plan->parts[i].length);
	return 0;
}

void cst_stage_plan_fini(struct cst_stage_plan *plan)
{
	free(plan->parts);
	*plan = (struct cst_stage_plan){0};
}
