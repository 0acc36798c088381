/* Hill climbing with a preference for few.
 *
 *   HOLD ──after a while──▶ UP (limit × 3/2): the sum grew by 5 %: kept, and on; else back, HOLD
 *        └─next time round─▶ DOWN (limit × 3/4): the sum is within 3 % of the best: kept, and on; else back, HOLD
 *
 * A stretch is measured when as many GETs as the limit have ended in it, 50 ms at least, and the limit held somebody back; the first one
 * after a change is not looked at, since it was asked for before. Over a thin line more in flight makes each GET slower and the sum no
 * larger, so the limit falls; where a connection has its own limit the sum falls with it, so it stays. */
#include "fetch/adapt.h"

#include "base/cleanup.h"
#include "base/clock.h"

#define START 32u
#define STRETCH (50 * CST_NS_PER_MS)
#define PAUSE (2 * CST_NS_PER_S)
#define GAIN 1.05
#define LOSS 0.97
#define FADE 0.98

void adapt_init(struct adapt *a, unsigned most)
{
	*a = (struct adapt){.most = cst_max(most, 1u)};
	a->limit = cst_min(a->most, START);
}

void adapt_bound(struct adapt *a)
{
	a->bound = true;
}

static void restart(struct adapt *a, int64_t now)
{
	a->since = now;
	a->bytes = 0;
	a->ended = 0;
	a->bound = false;
}

static void attempt(struct adapt *a, enum adapt_trial trial)
{
	unsigned limit = trial == ADAPT_UP
				 ? cst_min(a->most, a->limit + cst_max(1u, a->limit / 2))
				 : cst_max(cst_min(a->most, ADAPT_LEAST), a->limit - cst_max(1u, a->limit / 4));
	a->before = a->limit;
	a->settling = limit != a->limit;
	a->trial = limit != a->limit ? trial : ADAPT_HOLD;
	a->limit = limit;
}

static void judge(struct adapt *a, int64_t now, double rate)
{
	bool good = a->trial == ADAPT_UP ? rate >= a->best * GAIN : rate >= a->best * LOSS;
	if (a->trial == ADAPT_HOLD) {
		a->best = cst_max(rate, a->best * FADE);
		if (now < a->next)
			return;
		attempt(a, a->down_next ? ADAPT_DOWN : ADAPT_UP);
		if (a->trial == ADAPT_HOLD) /* at the end of the scale */
			a->down_next = !a->down_next;
	} else if (good) {
		a->best = cst_max(a->best * FADE, rate);
		attempt(a, a->trial);
		if (a->trial == ADAPT_HOLD)
			a->next = now + PAUSE;
	} else {
		a->limit = a->before;
		a->down_next = a->trial == ADAPT_UP;
		a->trial = ADAPT_HOLD;
		a->next = now + PAUSE;
	}
}

void adapt_note(struct adapt *a, int64_t now, uint64_t bytes)
{
	if (a->since == 0)
		restart(a, now);
	a->bytes += bytes;
	a->ended++;
	int64_t took = now - a->since;
	if (a->ended < a->limit || took < STRETCH)
		return;
	double rate = (double)a->bytes * (double)CST_NS_PER_S / (double)took;
	if (a->bound && !a->settling)
		judge(a, now, rate);
	else
		a->settling = false;
	restart(a, now);
}
