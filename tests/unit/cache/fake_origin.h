/* An origin made of a table, in place of src/object and src/fetch: listings, HEADs and fills, answered by threads of its own. */
#pragma once

#include "cache_fixture.h"

struct fake_object {
	char key[64];
	char etag[16];
	uint64_t size;
	int rc;		   /* of its GETs: -EIO: archived */
	bool gone;	   /* deleted after it was listed */
	char new_etag[16]; /* replaced after it was listed; "" not */
	uint64_t new_size;
};
#define FAKE_OBJECTS 4096
extern struct fake_origin {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct fake_object objects[FAKE_OBJECTS]; /* in order of their keys */
	unsigned count, page;
	int list_rc; /* of the second page */
	bool hold;   /* fills wait */
	unsigned lists, heads, fills, filling, filling_most, cancelled;
	uint64_t bytes; /* fetched */
	struct cst_pool *pool;
} origin;
void origin_begin(void);
void origin_end(void);
struct fake_object *origin_add(const char *key, const char *etag, uint64_t size);
void origin_hold(bool hold);

struct cst_fetch_object *fake_fetch_object(struct cst_cache_object *o); /* one reference */
