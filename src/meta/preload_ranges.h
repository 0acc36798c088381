/* Private to preload.c and preload_ranges.c: the ranges that the keys below a preload's base are cut into; preload.c tells how they go. The preload's
 * lock guards them, but for what belongs to who works on one. */
#pragma once

#include "meta/preload_private.h"

#define CUTS_MAX 4096u	 /* names of the base that are remembered */
#define KEYS_OF_CUT 1000 /* entries of a directory's own page */

enum range_state { RANGE_WAITING, RANGE_ASKED, RANGE_WORKING, RANGE_DONE };

/* An opened directory whose listing a request under way may bring. */
struct joiner {
	TAILQ_ENTRY(joiner) link;
	struct cst_dir *dir;	     /* counted */
	struct cst_listing *listing; /* counted */
};
TAILQ_HEAD(joiners, joiner);

struct cst_range {
	TAILQ_ENTRY(cst_range) link;
	struct cst_preload *p;
	enum range_state state;
	struct cst_buf after; /* its keys come after this one; the next range's ends it */
	struct cst_buf token;
	unsigned pages;
	bool guessed, low; /* cut at a guess; the next guess goes low */
	bool gap;	   /* what lies between the range before and `after` is not listed: a walk has passed it */
	bool folding;
	struct cst_fold fold;
	TAILQ_HEAD(, part) parts;
	struct joiners joiners;
	struct cst_seen seen;
	uint64_t bytes;
	struct cst_buf until; /* while WORKING: where it ends */
};

static inline struct cst_slice base_of(const struct cst_preload *p)
{
	return (struct cst_slice){p->base, p->base_len};
}

/* After `before`, NULL: the first. */
struct cst_range *cst_range_add_locked(struct cst_preload *p, struct cst_range *before, struct cst_slice after);
void cst_range_free(struct cst_range *r);
/* The key it goes up to; empty: to the end. */
struct cst_slice cst_range_end_locked(const struct cst_range *r);
/* A cut goes through the directory when the key that ends a range is in it. */
bool cst_range_is_cut(const struct cst_buf *at, struct cst_slice prefix);
/* Of the fold of a range: no key of it is in the directory any more. Called while WORKING. */
void cst_range_dir_closed(void *range, struct cst_slice prefix, int64_t started, struct cst_names *names);
/* The range is done: directories that the cut goes through may be whole now. */
void cst_range_put_together(struct cst_range *r, struct cst_slice cut);
/* The page goes on into a range that nobody has begun: it becomes part of this one. */
bool cst_range_absorb_next(struct cst_range *r);
uint64_t cst_range_bytes(const struct cst_range *r);
/* May the request under way bring all of the directory? */
bool cst_range_may_bring_locked(const struct cst_range *r, struct cst_slice prefix);
/* The walk lists the directory by itself: what lies before its end needn't be listed for it any more. */
void cst_preload_walk_passed_locked(struct cst_preload *p, struct cst_slice prefix);
void cst_range_catch_up_locked(struct cst_range *r);
/* A name of the base is a place to cut. */
void cst_preload_add_cut(struct cst_preload *p, const struct cst_name_view *view);
/* The range that has come as far as the first page, and has not ended, is cut where names of the base begin. */
void cst_preload_plan_locked(struct cst_preload *p);
/* Cuts what the range may still have in two. */
void cst_range_guess_locked(struct cst_range *r);
