/* How many prefetching GETs may be in flight: as many as make the sum of what arrives grow, no more.
 *
 * Pure: it is told what arrived and when. The owner's lock guards it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum adapt_trial { ADAPT_HOLD, ADAPT_UP, ADAPT_DOWN };

struct adapt {
	unsigned limit, most;
	/* the stretch that is being measured */
	int64_t since;
	uint64_t bytes;
	unsigned ended;
	bool bound; /* somebody was held back by the limit in it */
	/* the trial */
	enum adapt_trial trial;
	bool settling;	 /* what arrives still left under the limit before */
	unsigned before; /* the limit to go back to */
	double best;	 /* bytes a second to compare with */
	bool down_next;
	int64_t next; /* when to try again */
};

#define ADAPT_LEAST 2u

void adapt_init(struct adapt *a, unsigned most);
void adapt_bound(struct adapt *a);			       /* a GET was not made because of the limit */
void adapt_note(struct adapt *a, int64_t now, uint64_t bytes); /* one GET has ended */
