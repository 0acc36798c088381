/* The map of extents against one kind for each byte, and the records that carry it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "stage/extents.h"

#include <string.h>

#define BYTES 3000u

static uint64_t seed;

static uint64_t any(uint64_t below)
{
	seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (seed >> 33) % below;
}

static void compare(const struct cst_extents *map, const uint8_t *bytes)
{
	struct cst_extent e;
	uint64_t at = 0, count = 0, total = 0;
	uint8_t last = 0;
	while (cst_extents_next(map, at, CST_EXTENTS_END, &e)) {
		/* Neighbours of one kind are one extent. */
		assert_true(count == 0 || e.start > at || e.kind != last);
		for (; at < e.start; at++)
			assert_int_equal(bytes[at], 0);
		for (; at < e.start + e.length; at++)
			assert_int_equal(bytes[at], e.kind);
		last = e.kind;
		count++;
		total += e.length;
	}
	for (; at < BYTES; at++)
		assert_int_equal(bytes[at], 0);
	assert_int_equal(count, map->count);
	assert_int_equal(total, map->bytes);
}

static void test_against_bytes(void **state)
{
	static uint8_t bytes[BYTES];
	struct cst_extents map, copy;
	(void)state;
	cst_extents_init(&map);
	cst_extents_init(&copy);
	seed = 1;
	for (unsigned i = 0; i < 20000; i++) {
		uint64_t longest = i < 10000 ? 4 : 300; /* many extents first: several chunks */
		uint64_t start = any(BYTES), length = cst_min(any(longest), BYTES - start);
		uint8_t kind = (uint8_t)any(4);
		if (kind)
			cst_extents_set(&map, start, length, kind);
		else
			cst_extents_clear(&map, start, length);
		memset(bytes + start, kind, length);
		if (i % 50 == 0)
			compare(&map, bytes);
		if (i == 9999)
			assert_true(map.count > 600);
	}
	cst_extents_copy(&copy, &map);
	cst_extents_clear(&map, 0, BYTES);
	assert_int_equal(map.count, 0);
	assert_int_equal(map.bytes, 0);
	compare(&copy, bytes);
	cst_extents_set(&copy, 0, BYTES, 1);
	assert_int_equal(copy.count, 1);
	cst_extents_fini(&map);
	cst_extents_fini(&copy);
}

static void test_stretches(void **state)
{
	struct cst_extents map;
	struct cst_extent e;
	(void)state;
	cst_extents_init(&map);
	assert_false(cst_extents_next(&map, 0, CST_EXTENTS_END, &e));
	assert_false(cst_extents_stretch(&map, 5, 9, &e));
	assert_int_equal(e.length, 4);
	cst_extents_set(&map, 10, 10, 3);
	assert_false(cst_extents_stretch(&map, 5, 100, &e));
	assert_true(e.start == 5 && e.length == 5);
	assert_true(cst_extents_stretch(&map, 12, 15, &e));
	assert_true(e.start == 12 && e.length == 3 && e.kind == 3);
	assert_false(cst_extents_next(&map, 0, 10, &e));
	assert_false(cst_extents_next(&map, 20, 100, &e));
	cst_extents_set(&map, CST_EXTENTS_END - 1, 1, 1);
	assert_true(cst_extents_next(&map, 20, CST_EXTENTS_END, &e));
	assert_int_equal(e.start, CST_EXTENTS_END - 1);
	cst_extents_fini(&map);
}

/* From front to end and backwards, a million: it stays compact and in order. */
static void test_many(void **state)
{
	struct cst_extents map;
	struct cst_extent e;
	(void)state;
	cst_extents_init(&map);
	for (uint64_t i = 0; i < 500000; i++) {
		cst_extents_set(&map, i * 10, 5, 1);
		cst_extents_set(&map, (2000000 - i) * 10, 5, 1);
	}
	assert_int_equal(map.count, 1000000);
	for (uint64_t i = 0; i < 500000; i += 1777) {
		assert_true(cst_extents_next(&map, i * 10, CST_EXTENTS_END, &e));
		assert_int_equal(e.start, i * 10);
	}
	cst_extents_set(&map, 0, 30000000, 2);
	assert_int_equal(map.count, 1);
	cst_extents_fini(&map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_bytes),
		cmocka_unit_test(test_stretches),
		cmocka_unit_test(test_many),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
