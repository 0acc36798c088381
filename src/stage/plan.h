/* How a sealed file becomes an object: which ranges are uploaded and which are copied inside the store from the base version (UploadPartCopy). A pure
 * function.
 *
 * Changed bytes are always uploaded. Runs of unchanged bytes are copied when they are long enough to be a part; shorter ones are uploaded with their
 * neighbours, read from the staging file or, where they aren't local, from the base. A changed run that is too short for a part takes unchanged bytes
 * after it along. Parts grow as the number of parts demands. */
#pragma once

#include "object/write.h"
#include "stage/image.h"

enum cst_stage_plan_kind {
	CST_STAGE_PLAN_NOTHING, /* content and size are the base's */
	CST_STAGE_PLAN_PUT,	/* one PutObject of everything; no parts are listed */
	CST_STAGE_PLAN_PARTS,
};
struct cst_stage_part {
	bool copy; /* from the base, at the same offset; else uploaded */
	uint64_t offset, length;
};
struct cst_stage_plan {
	enum cst_stage_plan_kind kind;
	struct cst_stage_part *parts; /* in order, from part number 1 on, without gaps */
	size_t count, room;
	uint64_t upload, copy; /* bytes */
	uint64_t fetch;	       /* of `upload`: those that have to be read from the base first */
};
/* part_size: bytes of an uploaded part, if limits and size allow. -EFBIG: larger than parts can be. cst_stage_plan_fini() also after an error. */
int cst_stage_plan(const struct cst_extents *map, uint64_t size, const struct cst_stage_base *base,
		   const struct cst_object_limits *limits, uint64_t part_size, struct cst_stage_plan *plan);
void cst_stage_plan_fini(struct cst_stage_plan *plan);
