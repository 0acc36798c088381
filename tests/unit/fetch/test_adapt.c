/* How many GETs at a time: a model of a line, and where the limit settles. */
#include "fetch/adapt.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define MIB (1u << 20)

struct line {
	double each, sum; /* bytes a second: of a connection, of the whole */
};

/* GETs of 8 MiB, as many as the limit lets, over a line; returns the limit at the end. */
static unsigned run(struct adapt *a, struct line line, int64_t *now, double seconds)
{
	int64_t until = *now + (int64_t)(seconds * 1e9);
	while (*now < until) {
		unsigned limit = a->limit;
		double rate = limit * line.each;
		if (rate > line.sum)
			rate = line.sum;
		*now += (int64_t)(8.0 * MIB / rate * 1e9); /* they end evenly spread */
		adapt_bound(a);
		adapt_note(a, *now, 8 * MIB);
	}
	return a->limit;
}

static void settles_where_the_sum_ends_growing(void **state)
{
	(void)state;
	struct adapt a;
	int64_t now = 1;
	adapt_init(&a, 64);
	/* 90 MiB/s a connection, 1.4 GiB/s in all: 16 are enough. */
	unsigned limit = run(&a, (struct line){90.0 * MIB, 1400.0 * MIB}, &now, 60);
	assert_in_range(limit, 15, 24);
}

static void a_thin_line_has_few(void **state)
{
	(void)state;
	struct adapt a;
	int64_t now = 1;
	adapt_init(&a, 64);
	unsigned limit = run(&a, (struct line){90.0 * MIB, 18.0 * MIB}, &now, 600);
	assert_in_range(limit, 2, 3);
	/* And when it has become wide again, more. */
	limit = run(&a, (struct line){90.0 * MIB, 4000.0 * MIB}, &now, 60);
	assert_in_range(limit, 40, 64);
}

static void slow_connections_get_many(void **state)
{
	(void)state;
	struct adapt a;
	int64_t now = 1;
	adapt_init(&a, 64);
	unsigned limit = run(&a, (struct line){10.0 * MIB, 4000.0 * MIB}, &now, 120);
	assert_in_range(limit, 48, 64);
}

static void without_need_nothing_changes(void **state)
{
	(void)state;
	struct adapt a;
	int64_t now = 1;
	adapt_init(&a, 64);
	unsigned before = a.limit;
	for (int i = 0; i < 10000; i++) {
		now += 10 * CST_NS_PER_MS;
		adapt_note(&a, now, 8 * MIB);
	}
	assert_int_equal(a.limit, before);
}

static void stays_within_its_bounds(void **state)
{
	(void)state;
	struct adapt a;
	int64_t now = 1;
	adapt_init(&a, 4);
	assert_int_equal(a.limit, 4);
	for (int i = 0; i < 100; i++) {
		unsigned limit = run(&a, (struct line){1.0 * MIB + i % 7 * MIB, 500.0 * MIB / (1 + i % 5)}, &now, 5);
		assert_in_range(limit, 2, 4);
	}
	adapt_init(&a, 1);
	assert_int_equal(run(&a, (struct line){MIB, 500.0 * MIB}, &now, 60), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(settles_where_the_sum_ends_growing),
		cmocka_unit_test(a_thin_line_has_few),
		cmocka_unit_test(slow_connections_get_many),
		cmocka_unit_test(without_need_nothing_changes),
		cmocka_unit_test(stays_within_its_bounds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
