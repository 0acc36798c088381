#include "cache/index.h"

#include <errno.h>

#define INDEX_MAGIC 0x43494458u

struct cst_index {
	unsigned magic;
	struct cst_index_config config;
};

struct cst_index *cst_index_open(const struct cst_index_config *config, struct cst_error *err)
{
	(void)err;
	struct cst_index *x = CST_NEW(struct cst_index);
	x->magic = INDEX_MAGIC;
	x->config = *config;
	return x;
}

void cst_index_close(struct cst_index *x)
{
	CST_CHECK(x, INDEX_MAGIC);
	x->magic = 0;
	free(x);
}

int cst_index_entry_open(struct cst_index *x, const struct cst_cache_identity *id, bool create, bool pin,
			 struct cst_index_entry *entry, bool *created)
{
	CST_CHECK(x, INDEX_MAGIC);
	(void)id;
	(void)pin;
	(void)entry;
	*created = false;
	return create ? -ENOSPC : -ENOENT;
}

void cst_index_entry_close(struct cst_index *x, uint64_t name, uint64_t version)
{
	CST_CHECK(x, INDEX_MAGIC);
	(void)name;
	(void)version;
}

int cst_index_charge(struct cst_index *x, uint64_t name, uint64_t version, int64_t bytes)
{
	CST_CHECK(x, INDEX_MAGIC);
	(void)name;
	(void)version;
	return bytes > 0 ? -ENOSPC : 0;
}

int cst_index_slot_reserve(struct cst_index *x, const struct cst_cache_identity *id, bool pin,
			   struct cst_index_entry *entry)
{
	CST_CHECK(x, INDEX_MAGIC);
	(void)id;
	(void)pin;
	(void)entry;
	return -ENOSPC;
}

int cst_index_slot_commit(struct cst_index *x, const struct cst_index_entry *entry, bool written)
{
	CST_CHECK(x, INDEX_MAGIC);
	(void)entry;
	(void)written;
	return -ENOENT;
}

int cst_index_complete(struct cst_index *x, uint64_t name, uint64_t version)
{
	CST_CHECK(x, INDEX_MAGIC);
	(void)name;
	(void)version;
	return -ENOENT;
}

void cst_index_touch(struct cst_index *x, uint64_t name, uint64_t version, unsigned count)
{
	CST_CHECK(x, INDEX_MAGIC);
	(void)name;
	(void)version;
	(void)count;
}

int cst_index_drop(struct cst_index *x, uint64_t name, uint64_t version)
{
	CST_CHECK(x, INDEX_MAGIC);
	(void)name;
	(void)version;
	return -ENOENT;
}

int cst_index_pin(struct cst_index *x, uint64_t name, uint64_t version, bool pin)
{
	CST_CHECK(x, INDEX_MAGIC);
	(void)name;
	(void)version;
	(void)pin;
	return -ENOENT;
}

int cst_index_pin_rule(struct cst_index *x, const char *prefix, bool add)
{
	CST_CHECK(x, INDEX_MAGIC);
	(void)prefix;
	(void)add;
	return 0;
}

void cst_index_pin_rules(struct cst_index *x, struct cst_buf *out)
{
	CST_CHECK(x, INDEX_MAGIC);
	(void)out;
}

unsigned cst_index_list(struct cst_index *x, uint64_t *cursor, struct cst_index_entry *entries, unsigned max)
{
	CST_CHECK(x, INDEX_MAGIC);
	(void)cursor;
	(void)entries;
	(void)max;
	return 0;
}

void cst_index_stats(struct cst_index *x, struct cst_index_stats *stats)
{
	CST_CHECK(x, INDEX_MAGIC);
	*stats = (struct cst_index_stats){.quota = x->config.limits.quota};
}
