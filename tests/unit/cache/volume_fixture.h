/* Volumes in tests: calls that wait, and objects whose bytes are a function of key and place. Used by one thread at a time for each call. */
#pragma once

#include "cache/volume.h"

struct call {
	int rc;
	struct cst_volume_handle *handle;
	struct cst_index_entry entry;
	bool created;
};

#define QUOTA (UINT64_C(256) << 20)
/* A volume with the quota; NULL and err. */
struct cst_volume *volume_at(const char *path, uint64_t quota, struct cst_error *err);
/* These wait for their answer. */
struct call entry_open(struct cst_volume *v, const char *key, uint64_t size, unsigned flags);
struct call put_small(struct cst_volume *v, const char *key, uint64_t size, unsigned flags);
int charge(struct cst_volume_handle *h, int64_t bytes);
int complete(struct cst_volume_handle *h, bool verify);

void identify(struct cst_cache_identity *id, const char *key, uint64_t size);
/* Charges and writes blocks [first, first + count) of an extent; what was charged and not written is given back. */
int fill(struct cst_volume *v, const struct call *c, const char *key, uint64_t size, uint64_t first, uint64_t count);
int fill_all(struct cst_volume *v, const struct call *c, const char *key, uint64_t size);
/* Reads every block that is there: how many, or -errno (-EILSEQ: wrong bytes were given out; damaged blocks count as absent). */
int64_t check(struct cst_volume *v, const char *key, uint64_t size);
/* As check(), of the object's slot. 1 or -errno. */
int check_slot(struct cst_volume *v, const struct call *c, const char *key, uint64_t size);
