/* Entries by number, in chunks, and the hash table over their names, which grows by one bucket for each entry (linear hashing). */
#include "cache/index_private.h"

void table_init(struct table *t)
{
	*t = (struct table){.used = 1, .buckets = CHUNK / 16, .level = CHUNK / 16};
	t->chunks = cst_xcalloc(1, sizeof(*t->chunks));
	t->chunks[0] = cst_xcalloc(CHUNK, sizeof(struct entry));
	t->chunk_count = 1;
	t->heads = cst_xcalloc(1, sizeof(*t->heads));
	t->heads[0] = cst_xcalloc(CHUNK, sizeof(uint32_t));
	t->head_chunks = 1;
}

void table_fini(struct table *t)
{
	for (uint32_t i = 0; i < t->chunk_count; i++)
		free(t->chunks[i]);
	for (uint32_t i = 0; i < t->head_chunks; i++)
		free(t->heads[i]);
	free(t->chunks);
	free(t->heads);
	*t = (struct table){0};
}

static uint32_t *head(const struct table *t, uint32_t bucket)
{
	return &t->heads[bucket >> CHUNK_SHIFT][bucket & (CHUNK - 1)];
}

static uint32_t bucket_of(const struct table *t, uint64_t name)
{
	uint32_t b = (uint32_t)name & (2 * t->level - 1);
	return b < t->buckets ? b : b & (t->level - 1);
}

/* Adds a bucket and shares the chain of the one that stood for it until now. */
static void split(struct table *t)
{
	uint32_t from = t->buckets - t->level, to = t->buckets;
	if (to >> CHUNK_SHIFT == t->head_chunks) {
		t->heads = cst_xrealloc(t->heads, (t->head_chunks + 1) * sizeof(*t->heads));
		t->heads[t->head_chunks++] = cst_xcalloc(CHUNK, sizeof(uint32_t));
	}
	uint32_t *keep = head(t, from), *move = head(t, to), n = *keep;
	*keep = *move = NIL;
	t->buckets++;
	while (n) {
		struct entry *e = table_at(t, n);
		uint32_t after = e->chain, *h = (uint32_t)e->name & t->level ? move : keep;
		e->chain = *h;
		*h = n;
		n = after;
	}
	if (t->buckets == 2 * t->level)
		t->level *= 2;
}

uint32_t table_add(struct table *t, uint64_t name, uint64_t version)
{
	uint32_t n = t->free;
	if (n) {
		t->free = table_at(t, n)->chain;
	} else {
		if (t->used == OWNER_FREE)
			return NIL;
		if (t->used >> CHUNK_SHIFT == t->chunk_count) {
			t->chunks = cst_xrealloc(t->chunks, (t->chunk_count + 1) * sizeof(*t->chunks));
			t->chunks[t->chunk_count++] = cst_xcalloc(CHUNK, sizeof(struct entry));
		}
		n = t->used++;
	}
	if (++t->count > t->buckets)
		split(t);
	uint32_t *h = head(t, bucket_of(t, name));
	*table_at(t, n) = (struct entry){.name = name, .version = version, .chain = *h};
	*h = n;
	return n;
}

void table_remove(struct table *t, uint32_t n)
{
	struct entry *e = table_at(t, n);
	uint32_t *link = head(t, bucket_of(t, e->name));
	while (*link != n) {
		CST_ASSERT(*link != NIL);
		link = &table_at(t, *link)->chain;
	}
	*link = e->chain;
	*e = (struct entry){.flags = F_PENDING, .chain = t->free};
	t->free = n;
	t->count--;
}

uint32_t table_find(const struct table *t, uint64_t name, uint64_t version)
{
	uint32_t n = *head(t, bucket_of(t, name));
	while (n) {
		const struct entry *e = table_at(t, n);
		if (e->name == name && e->version == version)
			return n;
		n = e->chain;
	}
	return NIL;
}

static uint32_t same_from(const struct table *t, uint32_t n, uint64_t name)
{
	while (n && table_at(t, n)->name != name)
		n = table_at(t, n)->chain;
	return n;
}

uint32_t table_first(const struct table *t, uint64_t name)
{
	return same_from(t, *head(t, bucket_of(t, name)), name);
}

uint32_t table_same(const struct table *t, uint32_t n)
{
	return same_from(t, table_at(t, n)->chain, table_at(t, n)->name);
}

uint64_t table_memory(const struct table *t)
{
	return (uint64_t)t->chunk_count * (CHUNK * sizeof(struct entry) + sizeof(void *)) +
	       (uint64_t)t->head_chunks * (CHUNK * sizeof(uint32_t) + sizeof(void *));
}
