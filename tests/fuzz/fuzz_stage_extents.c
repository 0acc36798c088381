/* The map of extents, the images made of it and the plan of parts: any changes leave a map in order that agrees with a kind for each byte, and a plan
 * that makes the object.
 * Covers: src/stage/extents.c src/stage/image.c src/stage/plan.c */
#include "stage/plan.h"

#include <string.h>

#define BYTES 1024u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Kinds of bytes; 255: the base's, 254: behind the end. */
struct mirror {
	uint8_t now[BYTES], sealed[BYTES];
	bool since[BYTES];
	unsigned size, sealed_size;
};

static void compare(const struct cst_extents *map, const uint8_t *kinds, unsigned size)
{
	struct cst_extent e;
	uint64_t at = 0, count = 0, bytes = 0;
	for (; at < size; at = e.start + e.length) {
		bool in = cst_extents_stretch(map, at, size, &e);
		CST_ASSERT(e.start == at && e.length > 0);
		for (uint64_t i = at; i < at + e.length; i++)
			CST_ASSERT(kinds[i] == (in ? e.kind : 255));
		count += in;
		bytes += in ? e.length : 0;
	}
	CST_ASSERT(!cst_extents_next(map, size, CST_EXTENTS_END, &e));
	CST_ASSERT(count == map->count && bytes == map->bytes);
}

static void check_plan(const struct cst_stage_image *image, const struct mirror *m, uint64_t part)
{
	const struct cst_object_limits limits = {
		.part_min = 1 + part % 13, .part_max = 60, .put_max = 200, .copy_max = 50, .parts_max = 30};
	struct cst_stage_plan plan;
	uint64_t at = 0;
	int rc = cst_stage_plan(&image->map, image->size, &image->base, &limits, 1 + part % 70, &plan);
	if (rc == 0 && plan.kind == CST_STAGE_PLAN_PARTS) {
		CST_ASSERT(plan.count <= limits.parts_max);
		for (size_t i = 0; i < plan.count; i++) {
			const struct cst_stage_part *p = &plan.parts[i];
			CST_ASSERT(p->offset == at && p->length <= limits.part_max);
			CST_ASSERT(p->length >= limits.part_min || i + 1 == plan.count);
			for (uint64_t b = at; p->copy && b < at + p->length; b++)
				CST_ASSERT(m->now[b] == 255 || m->now[b] & CST_STAGE_CLEAN);
			at += p->length;
		}
		CST_ASSERT(at == image->size);
	}
	cst_stage_plan_fini(&plan);
}

static void mirror_set(struct mirror *m, unsigned from, unsigned end, uint8_t kind)
{
	for (unsigned i = from; i < end; i++) {
		m->now[i] = kind;
		m->since[i] = true;
	}
}

static void mirror_resize(struct mirror *m, unsigned size)
{
	if (size > m->size)
		mirror_set(m, m->size, size, CST_STAGE_ZERO);
	for (unsigned i = size; i < BYTES; i++)
		m->now[i] = 254;
	m->size = size;
}

static void mirror_published(struct mirror *m)
{
	for (unsigned i = 0; i < m->size; i++)
		if (m->now[i] != 255 && !m->since[i])
			m->now[i] |= CST_STAGE_CLEAN;
}

static void step(struct cst_stage_image *image, struct mirror *m, unsigned what, unsigned a, unsigned b, uint8_t kind)
{
	static const struct cst_stage_base version = {.etag = "v"};
	unsigned start = a % BYTES, length = b % (BYTES - start);
	switch (what) {
	case 0:
		cst_stage_image_resize(image, start);
		mirror_resize(m, start);
		break;
	case 1:
		if (image->sealed)
			break;
		cst_stage_image_seal(image);
		memcpy(m->sealed, m->now, sizeof(m->now));
		memset(m->since, 0, sizeof(m->since));
		m->sealed_size = m->size;
		break;
	case 2:
		if (!image->sealed)
			break;
		cst_stage_image_published(image, &version);
		mirror_published(m);
		break;
	case 3:
		cst_stage_image_unseal(image);
		break;
	case 4:
		if (image->sealed)
			break;
		cst_stage_image_drop_clean(image);
		for (unsigned i = 0; i < m->size; i++)
			m->now[i] = m->now[i] != 255 && m->now[i] & CST_STAGE_CLEAN ? 255 : m->now[i];
		break;
	default:
		if (length && start > m->size)
			mirror_resize(m, start);
		if (length && start + length > m->size)
			m->size = start + length;
		cst_stage_image_write(image, start, length, kind);
		mirror_set(m, start, start + length, kind);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct mirror m;
	struct cst_stage_image image, copy;
	struct cst_stage_base none = {0}, base = {.exists = size > 2 && data[0] % 2,
						  .size = size > 2 ? data[1] * 2u : 0,
						  .etag = "b"};
	memset(&m, 0, sizeof(m));
	memset(m.now, 254, sizeof(m.now));
	if (!base.exists)
		base.size = 0;
	cst_stage_image_init(&image, &base, base.size);
	cst_stage_image_init(&copy, &none, 0);
	memset(m.now, 255, base.size);
	m.size = (unsigned)base.size;
	for (size_t at = 2; at + 5 <= size && at < 4096; at += 5) {
		step(&image, &m, data[at] % 12, data[at + 1] | (unsigned)data[at + 2] << 8,
		     data[at + 3] * (data[at] > 128 ? 4u : 1u), data[at + 4] % 3);
		CST_ASSERT(image.size == m.size);
		compare(&image.map, m.now, m.size);
		if (image.sealed)
			compare(&image.sealed_map, m.sealed, m.sealed_size);
		check_plan(&image, &m, data[at + 4]);
	}
	cst_stage_image_copy(&copy, &image);
	compare(&copy.map, m.now, m.size);
	uint64_t dirty = 0;
	for (unsigned i = 0; i < m.size; i++)
		dirty += m.now[i] != 255 && !(m.now[i] & CST_STAGE_CLEAN);
	CST_ASSERT(cst_stage_image_dirty(&copy) == dirty);
	CST_ASSERT(cst_stage_image_changed(&copy) || (dirty == 0 && copy.base.exists && copy.size == copy.base.size));
	none.exists = true;
	none.size = copy.base.size + 1;
	CST_ASSERT(cst_stage_image_may_move(&copy, &none) == (!copy.sealed && dirty == copy.size));
	cst_stage_image_fini(&image);
	cst_stage_image_fini(&copy);
	return 0;
}
