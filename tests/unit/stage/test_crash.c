/* The power fails at every change that a run makes to the disk, and what was not synced stays in part: every subset of few units, many random ones of
 * more. Then what was confirmed is there, byte for byte.
 * CST_STAGE_OPERATIONS: about how many restarts (default 5,000; with sanitizers 500). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "world.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#define ALL_SUBSETS 5u /* units of which every subset is tried */

static uint64_t restarts_wanted(void)
{
	const char *text = getenv("CST_STAGE_OPERATIONS");
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
	return text ? strtoull(text, NULL, 10) : 500; /* one thread, and many times slower */
#else
	return text ? strtoull(text, NULL, 10) : 5000;
#endif
}

struct choice {
	uint64_t subset; /* bits of the units; beyond: random */
	struct world *w;
	enum { BITS, RANDOM } how;
};

static bool keep(void *arg, uint64_t unit)
{
	struct choice *c = arg;
	if (c->how == RANDOM)
		return world_random(c->w, 2);
	return unit < 64 ? c->subset >> unit & 1 : c->subset == UINT64_MAX;
}

/* Fills the journal nearly up, so that a run goes over to the other file. */
static void fill_journal(struct world *w, uint64_t room)
{
	struct cst_stage_op op = {.kind = CST_RECORD_MKDIR, .path = CST_SLICE("x")};
	struct cst_stage_stats stats;
	char data[40000] = {0};
	for (;;) {
		cst_stage_stats(w->s, &stats);
		uint64_t left = stats.journal.capacity / 2 - stats.journal.used;
		if (left < room)
			return;
		op.data = (struct cst_slice){
			data, cst_min(left > room + 200 ? left - room - 200 : 0, (uint64_t)sizeof(data))};
		op.id = 0;
		assert_int_equal(cst_stage_op_begin(w->s, &op), 0);
		assert_int_equal(cst_stage_op_done(w->s, op.id), 0);
		if (op.data.len == 0)
			return;
	}
}

struct outcome {
	bool cut;
	uint64_t units, changes;
};

/* One run up to its `at`th change, and the restart that `choice` makes. The same seed does the same things. */
static struct outcome run(uint64_t seed, uint64_t at, struct choice choice)
{
	struct world w;
	struct outcome out = {0};
	world_init(&w, seed);
	w.journal_size = 1;
	assert_int_equal(world_open(&w), 0);
	if (seed % 2)
		fill_journal(&w, 300 + seed * 37 % 1500);
	uint64_t before = disk_changes(w.disk);
	w.broken = true;
	disk_cut_after(w.disk, at);
	for (unsigned i = 0; i < 60 && !disk_is_cut(w.disk); i++)
		world_step(&w);
	world_close(&w);
	out.cut = disk_is_cut(w.disk);
	out.changes = disk_changes(w.disk) - before;
	out.units = disk_units(w.disk);
	choice.w = &w;
	/* Subsets differ by their choice, not by the run. */
	w.random ^= choice.subset * UINT64_C(0x9e3779b97f4a7c15);
	w.random |= 1;
	disk_restart(w.disk, keep, &choice);
	world_recover(&w);
	for (unsigned i = 0; i < 5; i++)
		world_step(&w);
	world_check(&w);
	world_fini(&w);
	return out;
}

static void test_power_cut_anywhere(void **state)
{
	(void)state;
	uint64_t wanted = restarts_wanted(), restarts = 0, exhaustive = 0;
	for (uint64_t seed = 1; restarts < wanted; seed++) {
		for (uint64_t at = 1;; at++) {
			struct outcome out = run(seed, at, (struct choice){.subset = 0});
			if (!out.cut)
				break;
			restarts++;
			if (out.units <= ALL_SUBSETS) {
				for (uint64_t subset = 1; subset < UINT64_C(1) << out.units; subset++, restarts++)
					run(seed, at, (struct choice){.subset = subset});
				exhaustive++;
				continue;
			}
			run(seed, at, (struct choice){.subset = UINT64_MAX});
			for (unsigned i = 1; i < 10; i++, restarts++)
				run(seed, at, (struct choice){.subset = seed * 1000 + at * 10 + i, .how = RANDOM});
		}
	}
	assert_true(exhaustive > 0);
	printf("# %" PRIu64 " restarts; of %" PRIu64 " power cuts every outcome\n", restarts, exhaustive);
}

/* While the directory is being made. */
static void test_power_cut_at_the_beginning(void **state)
{
	(void)state;
	for (uint64_t at = 1; at < 200; at++) {
		for (uint64_t subset = 0; subset < 24; subset++) {
			struct world w;
			world_init(&w, at * 1000 + subset);
			w.journal_size = 1;
			disk_cut_after(w.disk, at);
			w.broken = true;
			if (world_open(&w) == 0) {
				for (unsigned i = 0; i < 10; i++)
					world_step(&w);
				world_close(&w);
			}
			bool cut = disk_is_cut(w.disk);
			struct choice choice = {
				.w = &w, .how = subset < 2 ? BITS : RANDOM, .subset = subset ? UINT64_MAX : 0};
			disk_restart(w.disk, keep, &choice);
			world_recover(&w);
			world_check(&w);
			world_fini(&w);
			if (!cut)
				return;
		}
	}
	fail_msg("it never got through");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_power_cut_at_the_beginning),
		cmocka_unit_test(test_power_cut_anywhere),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
