/* The content of an object that is being changed, as ranges: what is in the staging files, what is zeros, and what is still in the store (holes: the base
 * version's bytes). Also what it was when it was sealed for a publication, while that runs. The staging area keeps one image of each file as its
 * users see it, and the journal another one as a restart would find it.
 *
 *	invariants	a hole lies below the base's size and below the size; nothing lies beyond the size
 *
 * Belongs to one thread at a time; makes no system call. */
#pragma once

#include "object/object.h"
#include "stage/extents.h"

enum { /* kinds of extents: 0 is bytes in the first staging file that no version in the store has */
       CST_STAGE_SECOND = 1, /* in the second staging file */
       CST_STAGE_ZERO = 2,   /* zeros, in neither */
       CST_STAGE_CLEAN = 4,  /* the base version has the same bytes */
};

/* A version in the store. */
struct cst_stage_base {
	bool exists;
	uint64_t size;
	char etag[CST_ETAG_MAX];
};
struct cst_stage_image {
	struct cst_stage_base base;
	uint64_t size;
	struct cst_extents map;
	bool sealed;
	uint64_t sealed_size;
	struct cst_extents sealed_map;
	struct cst_extents since; /* ranges changed since it was sealed */
};
void cst_stage_image_init(struct cst_stage_image *image, const struct cst_stage_base *base, uint64_t size);
void cst_stage_image_fini(struct cst_stage_image *image);
void cst_stage_image_copy(struct cst_stage_image *to, const struct cst_stage_image *from); /* `to` was initialised */
/* A range becomes dirty or zero; the size grows when it reaches beyond, with zeros before it. */
void cst_stage_image_write(struct cst_stage_image *image, uint64_t start, uint64_t length, uint8_t kind);
void cst_stage_image_resize(struct cst_stage_image *image, uint64_t size);
void cst_stage_image_seal(struct cst_stage_image *image);
/* What was sealed is in the store as `version`: what has not changed since becomes clean. */
void cst_stage_image_published(struct cst_stage_image *image, const struct cst_stage_base *version);
/* It is not: dirty stays dirty. */
void cst_stage_image_unseal(struct cst_stage_image *image);
/* Clean extents become holes. */
void cst_stage_image_drop_clean(struct cst_stage_image *image);
/* Whether another version may take the base's place: it must have the same bytes where any of the base's are in use. Not while sealed. */
bool cst_stage_image_may_move(const struct cst_stage_image *image, const struct cst_stage_base *base);
/* Bytes that the store doesn't have. */
uint64_t cst_stage_image_dirty(const struct cst_stage_image *image);
/* Whether content or size differ from the base. */
bool cst_stage_image_changed(const struct cst_stage_image *image);
