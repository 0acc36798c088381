/* Random operations against a model: contents after each, restarts with and without power cuts in between, calls that fail.
 * CST_STAGE_OPERATIONS: how many (default 20,000). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "world.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

static uint64_t operations(void)
{
	const char *text = getenv("CST_STAGE_OPERATIONS");
	return text ? strtoull(text, NULL, 10) : 20000;
}

static bool keep_some(void *arg, uint64_t unit)
{
	struct world *w = arg;
	(void)unit;
	return world_random(w, 2);
}

/* The power fails somewhere in the next operations. */
static void cut(struct world *w)
{
	disk_cut_after(w->disk, 1 + world_random(w, 60));
	w->broken = true;
	for (unsigned i = 0; i < 100 && !disk_is_cut(w->disk); i++)
		world_step(w);
	world_close(w);
	disk_restart(w->disk, keep_some, w);
	if (world_random(w, 3) == 0) {
		/* And again while it is being read. */
		struct cst_stage *s = w->s;
		disk_cut_after(w->disk, 1 + world_random(w, 20));
		if (world_open(w) == 0) {
			cst_stage_close(w->s);
			w->s = s;
		}
		disk_restart(w->disk, keep_some, w);
	}
	world_recover(w);
}

static void run(uint64_t seed, uint64_t steps, uint64_t quota)
{
	struct world w;
	world_init(&w, seed);
	w.quota = quota;
	w.journal_size = 1;
	assert_int_equal(world_open(&w), 0);
	for (uint64_t i = 0; i < steps; i++) {
		world_step(&w);
		if (world_random(&w, 8) == 0)
			world_check(&w);
		uint64_t what = world_random(&w, 400);
		if (what == 0) {
			world_close(&w);
			disk_restart(w.disk, keep_some, &w);
			world_recover(&w);
		} else if (what == 1) {
			cut(&w);
		}
	}
	world_check(&w);
	struct cst_stage_stats stats;
	cst_stage_stats(w.s, &stats);
	assert_true(w.checks > steps / 20 && w.restarts > steps / 1000 && w.seals_found > 0);
	printf("# seed %" PRIu64 ": %" PRIu64 " operations, %" PRIu64 " checks, %" PRIu64 " restarts, %" PRIu64
	       " sealed found\n",
	       seed, steps, w.checks, w.restarts, w.seals_found);
	world_fini(&w);
}

static void test_random_operations(void **state)
{
	(void)state;
	uint64_t total = operations();
	for (uint64_t seed = 1; seed <= 10; seed++)
		run(seed, total / 10, 0);
}

/* The room ends again and again: refused is refused, accepted stays. */
static void test_random_operations_in_little_room(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 2; seed++)
		run(100 + seed, operations() / 4, (UINT64_C(460) << 10));
}

/* Any call of the disk fails once. */
static void test_calls_that_fail(void **state)
{
	(void)state;
	static const int codes[] = {-EIO, -ENOSPC};
	for (uint64_t seed = 1; seed <= operations() / 50; seed++) {
		struct world w;
		world_init(&w, 1000 + seed);
		w.journal_size = 1;
		assert_int_equal(world_open(&w), 0);
		for (unsigned i = 0; i < 30; i++)
			world_step(&w);
		w.broken = true;
		disk_fail_after(w.disk, 1 + world_random(&w, 40), codes[seed % 2]);
		for (unsigned i = 0; i < 60; i++) {
			world_step(&w);
			if (i % 5 == 0)
				world_check(&w);
		}
		disk_fail_after(w.disk, 0, 0);
		world_close(&w);
		/* The program ended; the machine goes on, or not. */
		disk_restart(w.disk, keep_some, &w);
		world_recover(&w);
		for (unsigned i = 0; i < 20; i++)
			world_step(&w);
		world_check(&w);
		world_fini(&w);
	}
}

/* So does any call of opening: what is there is still there for the next one. */
static void test_opening_fails_anywhere(void **state)
{
	(void)state;
	static const int codes[] = {-EIO, -ENOSPC};
	unsigned failures = 0;
	struct world w;
	world_init(&w, 7);
	w.journal_size = 1;
	assert_int_equal(world_open(&w), 0);
	for (unsigned i = 0; i < 200; i++)
		world_step(&w);
	for (unsigned i = 0; i < WORLD_FILES; i++)
		if (w.files[i].f)
			cst_stage_sync(w.files[i].f);
	for (uint64_t n = 1; n < 60; n++) {
		world_close(&w);
		disk_fail_after(w.disk, n, codes[n % 2]);
		if (world_open(&w) == 0) {
			cst_stage_close(w.s);
			w.s = NULL;
		} else {
			failures++;
		}
		disk_fail_after(w.disk, 0, 0);
		world_recover(&w);
		world_check(&w);
	}
	assert_true(failures > 10);
	world_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_operations),
		cmocka_unit_test(test_random_operations_in_little_room),
		cmocka_unit_test(test_calls_that_fail),
		cmocka_unit_test(test_opening_fails_anywhere),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
