/* What is usual for a store, what is late and slow, and what may be asked. */
#include "object/pace.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define MS CST_NS_PER_MS

static bool near(uint64_t value, uint64_t wanted)
{
	return value >= wanted - wanted / 8 && value <= wanted + wanted / 8;
}

static void quantiles(void **state)
{
	(void)state;
	struct cst_usual u = {0};
	for (unsigned i = 0; i < CST_USUAL_LEAST - 1; i++)
		cst_usual_add(&u, 1000);
	assert_int_equal(u.p50, 0); /* too few */
	u = (struct cst_usual){0};
	for (unsigned i = 1; i <= 400; i++)
		cst_usual_add(&u, i * 1000);
	assert_true(near(u.p5, 20000));
	assert_true(near(u.p50, 200000));
	assert_true(near(u.p95, 380000));
	/* What is long ago fades. */
	for (unsigned i = 0; i < 4 * CST_USUAL_WINDOW; i++)
		cst_usual_add(&u, 7);
	assert_int_equal(u.p95, 7);
	assert_true(u.total < CST_USUAL_WINDOW);
	cst_usual_add(&u, UINT64_MAX);
	cst_usual_add(&u, 0);
}

static struct cst_pace known(int64_t head, uint64_t body, int64_t body_ns)
{
	struct cst_pace p = {0};
	for (unsigned i = 0; i < 30; i++) {
		cst_usual_add(&p.head, (uint64_t)head);
		cst_pace_body(&p, body, body_ns);
	}
	return p;
}

static void late_heads(void **state)
{
	(void)state;
	struct cst_pace p = {0};
	for (unsigned i = 0; i < CST_PACE_HEADS - 1; i++)
		cst_usual_add(&p.head, 20 * MS);
	assert_int_equal(cst_pace_head_late(&p, false), 0);
	cst_usual_add(&p.head, 20 * MS);
	/* All alike: not late before 2 ms more than usual. */
	int64_t late = cst_pace_head_late(&p, false);
	assert_true(late >= 21 * MS && late <= 25 * MS);
	assert_true(cst_pace_head_late(&p, true) >= 70 * MS);
	for (unsigned i = 0; i < 4; i++)
		cst_usual_add(&p.head, 100 * MS);
	assert_true(near((uint64_t)cst_pace_head_late(&p, false), 100 * MS));
	/* A store next door. */
	p = known(100 * 1000, 4096, 10 * 1000);
	assert_true(cst_pace_head_late(&p, false) >= 2 * MS);
}

static void slow_bodies(void **state)
{
	(void)state;
	/* 8 MiB in 80 ms, heads after 20 ms. */
	struct cst_pace p = known(20 * MS, 8 << 20, 80 * MS);
	struct cst_pace_body body = {.length = 8 << 20, .first = 8192, .received = 8192};
	int64_t look = cst_pace_body_slow(&p, &body);
	assert_true(look > 30 * MS && look < 60 * MS);
	body.elapsed = look;
	assert_int_equal(cst_pace_body_slow(&p, &body), 0); /* nothing since its head */
	body.received = 1 << 20;
	assert_int_equal(cst_pace_body_slow(&p, &body), 0); /* a sixth of the usual rate */
	body.received = 3 << 20;
	assert_true(cst_pace_body_slow(&p, &body) > 0); /* a bit slow */
	/* At the rate that others get now, it is as it must be. */
	body.received = 1 << 20;
	body.peers = 15 << 20;
	assert_true(cst_pace_body_slow(&p, &body) > 0);
	body.peers = 1;
	assert_true(cst_pace_body_slow(&p, &body) > 0);
	/* Nearly done: a second request would come too late. */
	body.peers = 0;
	body.elapsed = 500 * MS;
	body.received = (8 << 20) - 100000;
	assert_true(cst_pace_body_slow(&p, &body) > 0);
	/* In the background one waits for longer. */
	body = (struct cst_pace_body){
		.length = 8 << 20, .first = 8192, .received = 8192, .patient = true, .elapsed = look};
	assert_true(cst_pace_body_slow(&p, &body) > 0);
	/* Another size of which nothing is known: only the others can tell. */
	body = (struct cst_pace_body){.length = 300000, .elapsed = 10 * CST_NS_PER_S};
	assert_true(cst_pace_body_slow(&p, &body) > 0);
	body.peers = 10 << 20;
	assert_int_equal(cst_pace_body_slow(&p, &body), 0);
	/* 128 KiB in 1.4 ms, slices of 1 KiB: seen 3 ms after the head. */
	p = known(20 * MS, 128 << 10, 1400 * 1000);
	body = (struct cst_pace_body){.length = 128 << 10, .received = 1024, .first = 1024, .elapsed = 3 * MS};
	assert_int_equal(cst_pace_body_slow(&p, &body), 0);
}

static void allowances(void **state)
{
	(void)state;
	struct cst_allowance none = {0}, a = {.rate = 100};
	int64_t now = 1000 * CST_NS_PER_S;
	cst_allowance_take(&none, now, 1e12);
	assert_int_equal(cst_allowance_when(&none, now), now);
	/* A hundred a second: ten at once and one that is worked off, then one every 10 ms, whenever one asks. */
	unsigned taken = 0;
	for (int64_t t = now; t < now + 10 * CST_NS_PER_S; t += 3 * MS)
		while (cst_allowance_when(&a, t) <= t) {
			cst_allowance_take(&a, t, 1);
			taken++;
			if (t == now)
				assert_true(taken <= 11);
		}
	assert_in_range(taken, 1009, 1012);
	/* Idle time earns no more than 100 ms. */
	now += 1000 * CST_NS_PER_S;
	for (taken = 0; cst_allowance_when(&a, now) <= now; taken++)
		cst_allowance_take(&a, now, 1);
	assert_in_range(taken, 10, 11);
	/* A large one goes at once, and is worked off. */
	now += 1000 * CST_NS_PER_S;
	cst_allowance_take(&a, now, 500);
	assert_int_equal(cst_allowance_when(&a, now), now + 4900 * MS);
	cst_allowance_correct(&a, -400); /* it was shorter than thought */
	assert_int_equal(cst_allowance_when(&a, now), now + 900 * MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(quantiles), cmocka_unit_test(late_heads),
					   cmocka_unit_test(slow_bodies), cmocka_unit_test(allowances)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
