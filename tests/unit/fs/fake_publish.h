/* Publication into the fake bucket behind the functions of publish.h: one PUT of all bytes, conditional on the base. What is not published at a
 * conflict, or when a stream is given up, counts as kept. */
#pragma once

#include "fake_bucket.h"
#include "publish/publish.h"

struct cst_publish *fake_publish_new(struct cst_bucket *b);
void fake_publish_free(struct cst_publish *p); /* checks that all streams were closed */
unsigned fake_publish_kept(struct cst_publish *p);
/* There is no room: writes wait from now on; false: they go on, on this thread. */
void fake_publish_full(struct cst_publish *p, bool full);
unsigned fake_publish_waiting(struct cst_publish *p);
/* Streams have parts under way once they have bytes: they can't move before a publication. */
void fake_publish_parts(struct cst_publish *p, bool parts);
