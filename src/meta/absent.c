/* Names that don't exist: see absent.h. */
#include "meta/absent.h"

#include <pthread.h>
#include <sys/queue.h>
#include <xxhash.h>

#define BUCKETS 4096 /* of the 10,000 names that are usual */

struct absent_name {
	TAILQ_ENTRY(absent_name) age; /* oldest first */
	LIST_ENTRY(absent_name) chain;
	int64_t at;
	size_t len;
	char key[]; /* the directory's prefix, then the name */
};

struct cst_absent {
	unsigned magic;
	pthread_mutex_t lock;
	int64_t ttl;
	uint64_t max, count;
	TAILQ_HEAD(, absent_name) ages;
	LIST_HEAD(absent_chain, absent_name) chains[BUCKETS];
};
#define ABSENT_MAGIC 0xab5e0001u

struct cst_absent *cst_absent_new(int64_t ttl, uint64_t max)
{
	if (ttl <= 0 || max == 0)
		return NULL;
	struct cst_absent *a = CST_NEW(struct cst_absent);
	a->magic = ABSENT_MAGIC;
	a->ttl = ttl;
	a->max = max;
	pthread_mutex_init(&a->lock, NULL);
	TAILQ_INIT(&a->ages);
	for (size_t i = 0; i < BUCKETS; i++)
		LIST_INIT(&a->chains[i]);
	return a;
}

static void remove_locked(struct cst_absent *a, struct absent_name *n)
{
	TAILQ_REMOVE(&a->ages, n, age);
	LIST_REMOVE(n, chain);
	a->count--;
	free(n);
}

void cst_absent_free(struct cst_absent *a)
{
	if (!a)
		return;
	CST_CHECK(a, ABSENT_MAGIC);
	while (!TAILQ_EMPTY(&a->ages))
		remove_locked(a, TAILQ_FIRST(&a->ages));
	pthread_mutex_destroy(&a->lock);
	a->magic = 0;
	free(a);
}

static struct absent_chain *chain_of(struct cst_absent *a, struct cst_slice dir, struct cst_slice name)
{
	uint64_t hash = XXH3_64bits_withSeed(name.data, name.len, XXH3_64bits(dir.data, dir.len));
	return &a->chains[hash % BUCKETS];
}

static struct absent_name *find_locked(struct cst_absent *a, struct cst_slice dir, struct cst_slice name)
{
	struct absent_name *n;
	LIST_FOREACH (n, chain_of(a, dir, name), chain)
		if (n->len == dir.len + name.len && memcmp(n->key, dir.data, dir.len) == 0 &&
		    memcmp(n->key + dir.len, name.data, name.len) == 0)
			return n;
	return NULL;
}

void cst_absent_add(struct cst_absent *a, struct cst_slice dir, const char *name, int64_t at)
{
	if (!a)
		return;
	CST_CHECK(a, ABSENT_MAGIC);
	struct cst_slice text = cst_slice_of(name);
	struct absent_name *made = cst_xcalloc(1, sizeof(*made) + dir.len + text.len);
	made->at = at;
	made->len = dir.len + text.len;
	if (dir.len > 0)
		memcpy(made->key, dir.data, dir.len);
	memcpy(made->key + dir.len, text.data, text.len);
	pthread_mutex_lock(&a->lock);
	struct absent_name *old = find_locked(a, dir, text);
	if (old)
		remove_locked(a, old);
	while (a->count >= a->max)
		remove_locked(a, TAILQ_FIRST(&a->ages));
	TAILQ_INSERT_TAIL(&a->ages, made, age);
	LIST_INSERT_HEAD(chain_of(a, dir, text), made, chain);
	a->count++;
	pthread_mutex_unlock(&a->lock);
}

bool cst_absent_find(struct cst_absent *a, struct cst_slice dir, const char *name, int64_t now, int64_t *at)
{
	if (!a)
		return false;
	pthread_mutex_lock(&a->lock);
	struct absent_name *n = find_locked(a, dir, cst_slice_of(name));
	bool found = n && now - n->at < a->ttl;
	if (found)
		*at = n->at;
	else if (n)
		remove_locked(a, n);
	pthread_mutex_unlock(&a->lock);
	return found;
}

void cst_absent_drop(struct cst_absent *a, struct cst_slice dir, const char *name)
{
	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	struct absent_name *n = a->count > 0 ? find_locked(a, dir, cst_slice_of(name)) : NULL;
	if (n)
		remove_locked(a, n);
	pthread_mutex_unlock(&a->lock);
}

void cst_absent_clear(struct cst_absent *a, struct cst_slice prefix)
{
	struct absent_name *n, *next;
	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	for (n = TAILQ_FIRST(&a->ages); n; n = next) {
		next = TAILQ_NEXT(n, age);
		if (n->len >= prefix.len && memcmp(n->key, prefix.data, prefix.len) == 0)
			remove_locked(a, n);
	}
	pthread_mutex_unlock(&a->lock);
}

uint64_t cst_absent_count(struct cst_absent *a)
{
	if (!a)
		return 0;
	pthread_mutex_lock(&a->lock);
	uint64_t count = a->count;
	pthread_mutex_unlock(&a->lock);
	return count;
}
