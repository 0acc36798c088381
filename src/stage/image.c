#include "stage/image.h"

void cst_stage_image_init(struct cst_stage_image *image, const struct cst_stage_base *base, uint64_t size)
{
	*image = (struct cst_stage_image){.base = *base};
	image->size = base->exists ? base->size : 0;
	cst_stage_image_resize(image, size);
}

void cst_stage_image_fini(struct cst_stage_image *image)
{
	cst_extents_fini(&image->map);
	cst_extents_fini(&image->sealed_map);
	cst_extents_fini(&image->since);
}

void cst_stage_image_copy(struct cst_stage_image *to, const struct cst_stage_image *from)
{
	cst_extents_copy(&to->map, &from->map);
	cst_extents_copy(&to->sealed_map, &from->sealed_map);
	cst_extents_copy(&to->since, &from->since);
	to->base = from->base;
	to->size = from->size;
	to->sealed = from->sealed;
	to->sealed_size = from->sealed_size;
}

static void change(struct cst_stage_image *image, uint64_t start, uint64_t length, uint8_t kind)
{
	cst_extents_set(&image->map, start, length, kind);
	if (image->sealed)
		cst_extents_set(&image->since, start, length, 0);
}

void cst_stage_image_write(struct cst_stage_image *image, uint64_t start, uint64_t length, uint8_t kind)
{
	if (length == 0)
		return;
	if (start > image->size)
		cst_stage_image_resize(image, start);
	change(image, start, length, kind);
	image->size = cst_max(image->size, start + length);
}

void cst_stage_image_resize(struct cst_stage_image *image, uint64_t size)
{
	if (size < image->size)
		cst_extents_clear(&image->map, size, image->size - size);
	else if (size > image->size)
		change(image, image->size, size - image->size, CST_STAGE_ZERO);
	image->size = size;
}

void cst_stage_image_seal(struct cst_stage_image *image)
{
	CST_ASSERT(!image->sealed);
	image->sealed = true;
	image->sealed_size = image->size;
	cst_extents_copy(&image->sealed_map, &image->map);
}

void cst_stage_image_unseal(struct cst_stage_image *image)
{
	image->sealed = false;
	image->sealed_size = 0;
	cst_extents_fini(&image->sealed_map);
	cst_extents_fini(&image->since);
}

void cst_stage_image_published(struct cst_stage_image *image, const struct cst_stage_base *version)
{
	struct cst_extent e, changed;
	for (uint64_t at = 0; cst_extents_next(&image->map, at, image->size, &e); at = e.start + e.length) {
		bool since = cst_extents_stretch(&image->since, e.start, e.start + e.length, &changed);
		e.length = changed.length;
		if (!since && !(e.kind & CST_STAGE_CLEAN))
			cst_extents_set(&image->map, e.start, e.length, e.kind | CST_STAGE_CLEAN);
	}
	image->base = *version;
	image->base.exists = true;
	image->base.size = image->sealed_size;
	cst_stage_image_unseal(image);
}

void cst_stage_image_drop_clean(struct cst_stage_image *image)
{
	struct cst_extent e;
	for (uint64_t at = 0; cst_extents_next(&image->map, at, image->size, &e); at = e.start + e.length)
		if (e.kind & CST_STAGE_CLEAN)
			cst_extents_clear(&image->map, e.start, e.length);
}

uint64_t cst_stage_image_dirty(const struct cst_stage_image *image)
{
	struct cst_extent e;
	uint64_t bytes = 0;
	for (uint64_t at = 0; cst_extents_next(&image->map, at, image->size, &e); at = e.start + e.length)
		bytes += e.kind & CST_STAGE_CLEAN ? 0 : e.length;
	return bytes;
}

bool cst_stage_image_changed(const struct cst_stage_image *image)
{
	return !image->base.exists || image->size != image->base.size || cst_stage_image_dirty(image) > 0;
}

bool cst_stage_image_may_move(const struct cst_stage_image *image, const struct cst_stage_base *base)
{
	if (image->sealed)
		return false;
	return cst_stage_image_dirty(image) == image->size || (base->exists && base->size == image->base.size);
}
