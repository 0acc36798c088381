/* Memory for millions of small records: sizes in steps of 8 bytes, no overhead per record beyond that. What the C library's allocator adds to each
 * (8 to 16 bytes, and the rest up to its own steps) would be a quarter of the inode table.
 *
 * Records of one size share chunks of 2 MiB, of which only what was ever used takes memory; a chunk without records goes back to the system. Any thread; one mutex per size, held for a few
 * instructions. Sanitized builds take each record from the C library, so that uses after free show. */
#pragma once

#include "base/cleanup.h"

#include <stddef.h>

#define CST_SLAB_MAX 512 /* larger records come from the C library */

struct cst_slab;
struct cst_slab *cst_slab_new(void);
/* All records must have been freed. */
void cst_slab_destroy(struct cst_slab *slab);
/* Never NULL; aligned to 8; not cleared. */
void *cst_slab_alloc(struct cst_slab *slab, size_t size);
/* `size`: as it was allocated. */
void cst_slab_free(struct cst_slab *slab, void *record, size_t size);
