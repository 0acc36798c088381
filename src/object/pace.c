#include "object/pace.h"

#include "base/cleanup.h"
#include "base/clock.h"

#define REFRESH 16		     /* new values between two computations of the quantiles */
#define FLOOR_NS (2 * CST_NS_PER_MS) /* less than this is no delay, but how machines are */
#define STALL_NS (50 * CST_NS_PER_MS)
#define SLOW_FACTOR 4

/* ---- what is usual ---- */

static unsigned step_of(uint64_t value)
{
	if (value < 2 * CST_USUAL_STEPS)
		return (unsigned)value;
	unsigned top = 63 - (unsigned)__builtin_clzll(value); /* ≥ 4 */
	unsigned step = (top - 3) * CST_USUAL_STEPS + (unsigned)(value >> (top - 3));
	return cst_min(step, CST_USUAL_OCTAVES * CST_USUAL_STEPS - 1U);
}

/* The middle of a step. */
static uint64_t value_of(unsigned step)
{
	if (step < 2 * CST_USUAL_STEPS)
		return step;
	unsigned shift = step / CST_USUAL_STEPS - 1;
	uint64_t low = (uint64_t)(step % CST_USUAL_STEPS + CST_USUAL_STEPS) << shift;
	return low + (UINT64_C(1) << shift) / 2;
}

static void refresh(struct cst_usual *u)
{
	unsigned sum = 0, five = u->total / 20, half = u->total / 2, most = u->total - 1 - u->total / 20;
	u->fresh = 0;
	for (unsigned i = 0; i < CST_ARRAY_LEN(u->counts); i++) {
		unsigned before = sum;
		sum += u->counts[i];
		if (before <= five && sum > five)
			u->p5 = value_of(i);
		if (before <= half && sum > half)
			u->p50 = value_of(i);
		if (before <= most && sum > most)
			u->p95 = value_of(i);
	}
}

void cst_usual_add(struct cst_usual *u, uint64_t value)
{
	u->counts[step_of(cst_max(value, UINT64_C(1)))]++;
	if (++u->total >= CST_USUAL_WINDOW) {
		u->total = 0;
		for (unsigned i = 0; i < CST_ARRAY_LEN(u->counts); i++)
			u->total += u->counts[i] /= 2;
	}
	if (++u->fresh >= (u->total < 4 * REFRESH ? 1 : REFRESH) && u->total >= CST_USUAL_LEAST)
		refresh(u);
}

unsigned cst_pace_class(uint64_t bytes)
{
	unsigned class = 0;
	for (uint64_t top = 64 * 1024; bytes > top && class < CST_PACE_CLASSES - 1; top *= 4)
		class ++;
	return class;
}

void cst_pace_body(struct cst_pace *p, uint64_t bytes, int64_t ns)
{
	/* What came with its head tells of a line that is faster than anybody can wait for. */
	cst_usual_add(&p->rate[cst_pace_class(bytes)],
		      bytes * (uint64_t)CST_NS_PER_S / (uint64_t)cst_max(ns, INT64_C(1000)));
}

int64_t cst_pace_head_late(const struct cst_pace *p, bool patient)
{
	int64_t usual = (int64_t)p->head.p50, late = (int64_t)p->head.p95;
	if (p->head.total < CST_PACE_HEADS)
		return 0;
	if (patient)
		return cst_max(SLOW_FACTOR * late, usual + STALL_NS);
	return cst_max(late, usual + cst_max(FLOOR_NS, usual / 16));
}

int64_t cst_pace_body_slow(const struct cst_pace *p, const struct cst_pace_body *body)
{
	uint64_t rate = p->rate[cst_pace_class(body->length)].p50;
	int64_t head = (int64_t)p->head.p50, late = (int64_t)p->head.p95;
	if (body->peers)
		rate = rate ? cst_min(rate, body->peers) : body->peers;
	if (!rate) /* nothing to compare it with */
		return STALL_NS;
	double per_byte = (double)CST_NS_PER_S / (double)rate;
	double usual = (double)body->length * per_byte, rest = (double)(body->length - body->received) * per_byte;
	/* Not before half of the usual time: bodies begin slowly, and come in bursts. */
	int64_t look_at = FLOOR_NS + (int64_t)(usual / 2 + (body->patient ? (double)head : 0));
	if (body->elapsed < look_at)
		return look_at - body->elapsed;
	/* At the rate so far. A second request takes the time to its head before it brings anything. */
	uint64_t moved = body->received - body->first;
	double left = moved ? (double)body->elapsed / (double)moved * (double)(body->length - body->received) : 0;
	bool slow = !moved || (left > SLOW_FACTOR * rest && left > 2 * ((double)head + rest) && left > (double)late);
	return slow ? 0 : cst_max(body->elapsed / 2, FLOOR_NS);
}

/* ---- what may be asked ---- */

int64_t cst_allowance_when(const struct cst_allowance *a, int64_t now)
{
	return a->rate > 0 ? cst_max(a->at, now) : now;
}

void cst_allowance_take(struct cst_allowance *a, int64_t now, double units)
{
	if (a->rate <= 0)
		return;
	a->at = cst_max(a->at, now - CST_ALLOWANCE_BURST);
	cst_allowance_correct(a, units);
}

void cst_allowance_correct(struct cst_allowance *a, double units)
{
	if (a->rate > 0)
		a->at += (int64_t)(units / a->rate * (double)CST_NS_PER_S);
}
