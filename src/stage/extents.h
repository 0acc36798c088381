/* A map from byte ranges to what is known of them: disjoint extents in ascending order, each with a kind; neighbours of one kind are one extent. What
 * is in no extent is a hole. Exact to the byte.
 *
 * Belongs to one thread at a time. Finding, setting and clearing cost O(log n); a million extents take about 30 MB. Ranges end below
 * CST_EXTENTS_END. */
#pragma once

#include "base/cleanup.h"

#define CST_EXTENTS_END (UINT64_C(1) << 62)

struct cst_extent {
	uint64_t start, length;
	uint8_t kind;
};
struct cst_extents {
	struct cst_extents_chunk **chunks;
	size_t chunk_count, chunk_room;
	size_t count;	/* extents */
	uint64_t bytes; /* in extents */
};

void cst_extents_init(struct cst_extents *map);
void cst_extents_fini(struct cst_extents *map); /* empty afterwards, and usable */
void cst_extents_copy(struct cst_extents *to,
		      const struct cst_extents *from); /* `to` is initialised, its content goes */
void cst_extents_set(struct cst_extents *map, uint64_t start, uint64_t length, uint8_t kind);
void cst_extents_clear(struct cst_extents *map, uint64_t start, uint64_t length);
/* The first extent of the map in [from, end), cut to it; false: there is none. To walk: go on at its end. */
bool cst_extents_next(const struct cst_extents *map, uint64_t from, uint64_t end, struct cst_extent *e);
/* The first stretch of [from, end) that is in one extent (true) or in none (false); its kind is 0 then. `from` < `end`. */
bool cst_extents_stretch(const struct cst_extents *map, uint64_t from, uint64_t end, struct cst_extent *e);
