/* The plan of parts: whatever changed, it makes the object, within the limits, and sends no more than it must. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "stage/plan.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)

static const struct cst_object_limits oss = {.part_min = 100 * KIB,
					     .part_max = 5120 * MIB,
					     .put_max = 5120 * MIB,
					     .copy_max = 1024 * MIB,
					     .parts_max = 10000};
static const struct cst_object_limits tiny = {
	.part_min = 10, .part_max = 100, .put_max = 100, .copy_max = 50, .parts_max = 8};

static uint64_t seed = 1;

static uint64_t any(uint64_t below)
{
	seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (seed >> 20) % below;
}

static uint64_t changed_bytes(const struct cst_extents *map, uint64_t from, uint64_t end)
{
	struct cst_extent e;
	uint64_t bytes = 0;
	for (uint64_t at = from; cst_extents_next(map, at, end, &e); at = e.start + e.length)
		bytes += e.kind & CST_STAGE_CLEAN ? 0 : e.length;
	return bytes;
}

static void check(const struct cst_extents *map, uint64_t size, const struct cst_stage_base *base,
		  const struct cst_object_limits *limits, const struct cst_stage_plan *plan)
{
	uint64_t at = 0, upload = 0, copy = 0;
	if (plan->kind == CST_STAGE_PLAN_NOTHING) {
		assert_true(base->exists && base->size == size && changed_bytes(map, 0, size) == 0);
		return;
	}
	if (plan->kind == CST_STAGE_PLAN_PUT) {
		assert_true(size <= limits->put_max);
		assert_int_equal(plan->upload, size);
		return;
	}
	assert_true(plan->count > 0 && plan->count <= limits->parts_max);
	for (size_t i = 0; i < plan->count; i++) {
		const struct cst_stage_part *p = &plan->parts[i];
		assert_int_equal(p->offset, at);
		assert_true(p->length > 0 && p->length <= limits->part_max);
		assert_true(p->length >= limits->part_min || i + 1 == plan->count);
		if (p->copy) {
			assert_int_equal(changed_bytes(map, at, at + p->length), 0);
			assert_true(base->exists && at + p->length <= base->size && p->length <= limits->copy_max);
		}
		*(p->copy ? &copy : &upload) += p->length;
		at += p->length;
	}
	assert_int_equal(at, size);
	assert_int_equal(upload, plan->upload);
	assert_int_equal(copy, plan->copy);
	assert_true(plan->fetch <= plan->upload);
}

/* A random content: what is changed, clean or in the base. */
static void make(struct cst_extents *map, uint64_t size, struct cst_stage_base *base, unsigned pieces)
{
	static const uint8_t kinds[] = {0, CST_STAGE_SECOND, CST_STAGE_ZERO, CST_STAGE_CLEAN,
					CST_STAGE_CLEAN | CST_STAGE_SECOND};
	*base = (struct cst_stage_base){.exists = any(5) > 0};
	base->size = base->exists ? any(3) ? any(2 * size + 1) : size : 0;
	cst_extents_clear(map, 0, CST_EXTENTS_END);
	for (unsigned i = 0; i < pieces && size; i++) {
		uint64_t start = any(size), length = cst_min(1 + any(any(2) ? 8 : size / 2 + 1), size - start);
		uint8_t kind = kinds[any(5)];
		uint64_t clean_end = cst_min(start + length, base->size);
		if (!(kind & CST_STAGE_CLEAN))
			cst_extents_set(map, start, length, kind);
		else if (clean_end > start)
			cst_extents_set(map, start, clean_end - start, kind);
	}
	/* Behind the base nothing is a hole. */
	struct cst_extent e;
	for (uint64_t at = base->size; at < size; at = e.start + e.length)
		if (!cst_extents_stretch(map, at, size, &e))
			cst_extents_set(map, e.start, e.length, CST_STAGE_ZERO);
}

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define CONTENTS 10000u
#else
#define CONTENTS 200000u
#endif

static void test_any_content(void **state)
{
	struct cst_extents map;
	struct cst_stage_plan plan;
	struct cst_stage_base base;
	unsigned kinds[3] = {0}, too_large = 0, with_copies = 0;
	(void)state;
	cst_extents_init(&map);
	for (unsigned i = 0; i < CONTENTS; i++) {
		bool small = i % 4;
		const struct cst_object_limits *limits = small ? &tiny : &oss;
		uint64_t size = small ? any(1000) : any(any(4) ? 300 * MIB : UINT64_C(60) << 40);
		make(&map, size, &base, (unsigned)any(12));
		int rc = cst_stage_plan(&map, size, &base, limits, small ? 1 + any(60) : 8 * MIB, &plan);
		if (rc < 0) {
			assert_int_equal(rc, -EFBIG);
			assert_true(size > limits->part_max * limits->parts_max / 2);
			assert_true(size > limits->part_max * limits->parts_max || small);
			too_large++;
		} else {
			check(&map, size, &base, limits, &plan);
			kinds[plan.kind]++;
			with_copies += plan.copy > 0;
		}
		cst_stage_plan_fini(&plan);
	}
	assert_true(kinds[0] > CONTENTS / 2000 && kinds[1] > CONTENTS / 200 && kinds[2] > CONTENTS / 20);
	assert_true(too_large > CONTENTS / 20000 && with_copies > CONTENTS / 200);
	cst_extents_fini(&map);
}

static void plan_of(const struct cst_extents *map, uint64_t size, uint64_t base_size, struct cst_stage_plan *plan)
{
	struct cst_stage_base base = {.exists = true, .size = base_size};
	assert_int_equal(cst_stage_plan(map, size, &base, &oss, 8 * MIB, plan), 0);
	check(map, size, &base, &oss, plan);
}

static void test_what_it_costs(void **state)
{
	struct cst_extents map;
	struct cst_stage_plan plan;
	(void)state;
	cst_extents_init(&map);
	/* One byte of a large object: one part of the smallest size is sent, fetched but for that byte. */
	cst_extents_set(&map, 500 * MIB, 1, 0);
	plan_of(&map, 1000 * MIB, 1000 * MIB, &plan);
	assert_int_equal(plan.count, 3);
	assert_int_equal(plan.upload, 100 * KIB);
	assert_int_equal(plan.fetch, 100 * KIB - 1);
	cst_stage_plan_fini(&plan);
	/* Appended: only that, all else is copied. */
	cst_extents_clear(&map, 0, CST_EXTENTS_END);
	cst_extents_set(&map, 1000 * MIB, 10, 0);
	plan_of(&map, 1000 * MIB + 10, 1000 * MIB, &plan);
	assert_int_equal(plan.count, 2);
	assert_int_equal(plan.upload, 10);
	assert_int_equal(plan.fetch, 0);
	cst_stage_plan_fini(&plan);
	/* Cut off: nothing is sent. */
	cst_extents_clear(&map, 0, CST_EXTENTS_END);
	plan_of(&map, 900 * MIB + 1, 1000 * MIB, &plan);
	assert_int_equal(plan.upload, 0);
	cst_stage_plan_fini(&plan);
	/* The first byte: the end of a small rest is copied though it is shorter than a part. */
	cst_extents_set(&map, 0, 1, 0);
	plan_of(&map, 250 * KIB, 250 * KIB, &plan);
	assert_int_equal(plan.upload, 100 * KIB);
	assert_int_equal(plan.copy, 150 * KIB);
	cst_stage_plan_fini(&plan);
	/* New and small: one request; nothing at all: none. */
	cst_extents_clear(&map, 0, CST_EXTENTS_END);
	cst_extents_set(&map, 0, MIB, 0);
	plan_of(&map, MIB, 10, &plan);
	assert_int_equal(plan.kind, CST_STAGE_PLAN_PUT);
	cst_stage_plan_fini(&plan);
	cst_extents_set(&map, 0, MIB, CST_STAGE_CLEAN);
	plan_of(&map, MIB, MIB, &plan);
	assert_int_equal(plan.kind, CST_STAGE_PLAN_NOTHING);
	cst_stage_plan_fini(&plan);
	plan_of(&map, 0, MIB, &plan);
	assert_int_equal(plan.kind, CST_STAGE_PLAN_PUT);
	cst_stage_plan_fini(&plan);
	/* Every other 100 KiB of 20,000 changed: more runs than there may be parts. */
	cst_extents_clear(&map, 0, CST_EXTENTS_END);
	for (uint64_t i = 0; i < 10000; i++)
		cst_extents_set(&map, i * 200 * KIB, 100 * KIB, 0);
	plan_of(&map, 2000000 * KIB, 2000000 * KIB, &plan);
	assert_true(plan.count <= 10000);
	cst_stage_plan_fini(&plan);
	/* The largest object there is. */
	cst_extents_clear(&map, 0, CST_EXTENTS_END);
	cst_extents_set(&map, 0, 51200000 * MIB, 0);
	plan_of(&map, 51200000 * MIB, 0, &plan);
	assert_int_equal(plan.count, 10000);
	cst_stage_plan_fini(&plan);
	cst_extents_fini(&map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_any_content),
		cmocka_unit_test(test_what_it_costs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
