/* What a handle's reads look like. Pure: no memory, no clock; the owner's lock guards it. pattern.c has the state machine. */
#pragma once

#include "base/text.h"

#include <stdbool.h>
#include <stdint.h>

/* What a file's name says of how it is read. */
enum pattern_hint {
	HINT_NONE,
	HINT_WHOLE, /* models: from the front to the end, after a header */
	HINT_TAIL,  /* parquet, zip, …: a directory at the end, then pieces */
};
enum pattern_hint pattern_hint_of(struct cst_slice key);

enum lane_kind {
	LANE_FREE,
	LANE_ONE, /* one read, or some that tell nothing yet */
	LANE_FORWARD,
	LANE_BACKWARD,
};

/* Reads that belong together: one place of the object where somebody is reading on. */
struct lane {
	enum lane_kind kind;
	uint64_t lo, hi; /* what its reads cover */
	uint64_t bytes;	 /* read in it */
	unsigned below;	 /* reads in a row that went below `lo` */
	uint64_t used;	 /* the number of its last read */
	/* stream.c: what is asked for ahead of it */
	uint64_t window;  /* bytes to hold ahead; 0: none */
	bool guessed;	  /* the window is there because of the file's name alone */
	uint64_t grow_at; /* FORWARD: the offset at which the window grows; BACKWARD too, coming from above */
	uint64_t ahead;	  /* FORWARD: everything up to it has been asked for; BACKWARD: everything down to it */
};

#define LANES 4

struct pattern {
	struct lane lanes[LANES];
	uint64_t reads;
	/* Records: stretches read without a gap. */
	uint64_t record, record_end; /* the last one */
	uint64_t record_length;	     /* of the one before */
	int64_t stride;		     /* from one's start to the next one's */
	unsigned strides;	     /* how many in a row were the same */
};

/* Takes a read in; returns its lane. A lane that had to make room for it is copied to *left (else its kind is LANE_FREE). */
struct lane *pattern_note(struct pattern *p, uint64_t offset, uint32_t length, enum pattern_hint hint,
			  struct lane *left);
/* Records of one length at one distance, at least a block apart. */
bool pattern_is_strided(const struct pattern *p);
