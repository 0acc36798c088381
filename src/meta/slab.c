/* Chunks are aligned to their size, so a record's chunk is found from its address. */
#include "meta/slab.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>

#define CHUNK ((size_t)2 << 20) /* a huge page */
#define MANY 4			/* chunks of a size from which on a whole one more is nothing beside what there is */
#define STEP 8u
#define CLASSES (CST_SLAB_MAX / STEP)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define EACH_ALONE 1
#else
#define EACH_ALONE 0
#endif

struct chunk {
	TAILQ_ENTRY(chunk) link; /* among those with room */
	void *unused;		 /* records given back, each holding the next */
	uint32_t used;		 /* records in use */
	uint32_t begun;		 /* records that were ever in use: those after them are untouched memory */
};

struct class
{
	pthread_mutex_t lock;
	TAILQ_HEAD(, chunk) with_room;
	unsigned count;	     /* of chunks, but for the spare one */
	struct chunk *spare; /* an empty one, so that a record that comes and goes doesn't cost a chunk each time */
} __attribute__((aligned(64)));

struct cst_slab {
	struct class classes[CLASSES];
};

static size_t steps(size_t size)
{
	return (size + STEP - 1) / STEP * STEP;
}

#define FIRST_RECORD                        \
	((sizeof(struct chunk) + 63) / 64 * \
	 64) /* records of half a line's multiples don't straddle one more than they must */

static uint32_t capacity(size_t size)
{
	return (uint32_t)((CHUNK - FIRST_RECORD) / size);
}

/* Pages that no record was in take no memory. */
static struct chunk *chunk_map(bool huge)
{
	char *twice = mmap(NULL, 2 * CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (twice == MAP_FAILED)
		cst_panic(__FILE__, __LINE__, "out of memory");
	char *chunk = (char *)(((uintptr_t)twice + CHUNK - 1) & ~(uintptr_t)(CHUNK - 1));
	if (chunk > twice)
		munmap(twice, (size_t)(chunk - twice));
	munmap(chunk + CHUNK, CHUNK - (size_t)(chunk - twice));
	/* Searches go from record to record all over them: with small pages half of their time is for finding the pages. */
	if (huge)
		madvise(chunk, CHUNK, MADV_HUGEPAGE);
	return (struct chunk *)(void *)chunk;
}

static void chunk_unmap(struct chunk *chunk)
{
	if (chunk)
		munmap(chunk, CHUNK);
}

struct cst_slab *cst_slab_new(void)
{
	struct cst_slab *slab = aligned_alloc(64, sizeof(*slab));
	CST_ASSERT(slab != NULL);
	for (size_t i = 0; i < CLASSES; i++) {
		pthread_mutex_init(&slab->classes[i].lock, NULL);
		TAILQ_INIT(&slab->classes[i].with_room);
		slab->classes[i].spare = NULL;
		slab->classes[i].count = 0;
	}
	return slab;
}

void cst_slab_destroy(struct cst_slab *slab)
{
	if (!slab)
		return;
	for (size_t i = 0; i < CLASSES; i++) {
		CST_ASSERT(TAILQ_EMPTY(&slab->classes[i].with_room));
		chunk_unmap(slab->classes[i].spare);
		pthread_mutex_destroy(&slab->classes[i].lock);
	}
	free(slab);
}

static struct chunk *chunk_with_room_locked(struct class *c)
{
	struct chunk *chunk = TAILQ_FIRST(&c->with_room);
	if (chunk)
		return chunk;
	chunk = cst_steal(c->spare);
	if (!chunk) {
		chunk = chunk_map(c->count >= MANY);
	}
	c->count++;
	chunk->unused = NULL;
	chunk->used = chunk->begun = 0;
	TAILQ_INSERT_HEAD(&c->with_room, chunk, link);
	return chunk;
}

void *cst_slab_alloc(struct cst_slab *slab, size_t size)
{
	if (EACH_ALONE || size > CST_SLAB_MAX || size == 0)
		return cst_xmalloc(cst_max(size, (size_t)1));
	size = steps(size);
	struct class *c = &slab->classes[size / STEP - 1];
	pthread_mutex_lock(&c->lock);
	struct chunk *chunk = chunk_with_room_locked(c);
	void *record = chunk->unused;
	if (record)
		memcpy(&chunk->unused, record, sizeof(chunk->unused));
	else
		record = (char *)chunk + FIRST_RECORD + size * chunk->begun++;
	if (++chunk->used == capacity(size))
		TAILQ_REMOVE(&c->with_room, chunk, link);
	pthread_mutex_unlock(&c->lock);
	return record;
}

void cst_slab_free(struct cst_slab *slab, void *record, size_t size)
{
	if (!record)
		return;
	if (EACH_ALONE || size > CST_SLAB_MAX || size == 0) {
		free(record);
		return;
	}
	size = steps(size);
	struct class *c = &slab->classes[size / STEP - 1];
	struct chunk *chunk = (struct chunk *)((uintptr_t)record & ~(uintptr_t)(CHUNK - 1)), *surplus = NULL;
	pthread_mutex_lock(&c->lock);
	if (chunk->used-- == capacity(size))
		TAILQ_INSERT_TAIL(&c->with_room, chunk, link);
	memcpy(record, &chunk->unused, sizeof(chunk->unused));
	chunk->unused = record;
	if (chunk->used == 0) {
		TAILQ_REMOVE(&c->with_room, chunk, link);
		c->count--;
		surplus = c->spare;
		c->spare = chunk;
	}
	pthread_mutex_unlock(&c->lock);
	chunk_unmap(surplus);
}
