/* How fast a store usually answers, and how much may be asked of it. Pure arithmetic over times that the caller passes in; the
 * bucket owns these and guards them with its lock. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- what is usual ---- */

/* Recent values by magnitude, eight steps an octave. Old ones fade: when WINDOW are in, all count half. */
#define CST_USUAL_OCTAVES 40
#define CST_USUAL_STEPS 8
#define CST_USUAL_LEAST 5 /* fewer values say nothing */
#define CST_USUAL_WINDOW 512
struct cst_usual {
	uint16_t counts[CST_USUAL_OCTAVES * CST_USUAL_STEPS];
	unsigned total, fresh; /* fresh: since the quantiles were computed */
	uint64_t p5, p50, p95; /* 0: not enough values */
};
void cst_usual_add(struct cst_usual *u, uint64_t value);

/* The time to the head of an answer, and the rate of bodies by their size: small ones come in one piece with the head, large
 * ones share the line. */
#define CST_PACE_CLASSES 5 /* up to 64 KiB, 256 KiB, 1 MiB, 4 MiB, and more */
struct cst_pace {
	struct cst_usual head;			 /* ns */
	struct cst_usual rate[CST_PACE_CLASSES]; /* bytes per second */
};
unsigned cst_pace_class(uint64_t bytes);
void cst_pace_body(struct cst_pace *p, uint64_t bytes, int64_t ns);

#define CST_PACE_HEADS 20 /* so many answers before one is called late */
/* ns after which a head is late: the 95th percentile, and well above the median in any case. `patient`: only when it stalls.
 * 0: not known yet. */
int64_t cst_pace_head_late(const struct cst_pace *p, bool patient);

/* A body under way. */
struct cst_pace_body {
	uint64_t length, received; /* bytes */
	uint64_t first;		   /* of them together with the head: they say nothing of the rate */
	int64_t elapsed;	   /* ns since its head */
	uint64_t peers;		   /* bytes per second that another body got meanwhile; 0: there is none */
	bool patient;
};
/* 0: it is so slow that asking again, on another connection, is better. Else look again in so many ns. */
int64_t cst_pace_body_slow(const struct cst_pace *p, const struct cst_pace_body *body);

/* ---- what may be asked ---- */

/* So many units a second, with CST_ALLOWANCE_BURST worth of them at once; what is larger than that goes at once, and is
 * worked off before the next. */
#define CST_ALLOWANCE_BURST INT64_C(100000000) /* ns */
struct cst_allowance {
	double rate; /* units a second; 0: no limit */
	int64_t at;  /* when all that was taken is worked off */
};
/* From when on something may be taken: `now` or later. */
int64_t cst_allowance_when(const struct cst_allowance *a, int64_t now);
void cst_allowance_take(struct cst_allowance *a, int64_t now, double units);
void cst_allowance_correct(struct cst_allowance *a, double units); /* so many more (or fewer) than were taken */
