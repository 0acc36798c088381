/* Pacing: when may the next bytes be sent so that a rate is kept? Pure arithmetic over times that the caller passes in.
 * A bucket has no lock; the shared one is guarded by its owner. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct cst_http_pace {
	uint64_t rate; /* bytes per second; 0: no limit */
	int64_t next;  /* when what was reserved so far has been sent at that rate */
};

/* Bytes to reserve at a time: about 1/50 s worth, between 1 KiB and 256 KiB. */
size_t cst_http_pace_slice(uint64_t rate);
/* A response begins: time in which nothing was sent earns nothing. */
void cst_http_pace_begin(struct cst_http_pace *pace, int64_t now);
/* Reserves `bytes`; returns the time from which they may be sent (now or earlier: at once). A sender that woke late
 * catches up on at most `catch_up` ns, so that late wake-ups don't lower the rate. */
int64_t cst_http_pace_reserve(struct cst_http_pace *pace, int64_t now, uint64_t bytes, int64_t catch_up);
