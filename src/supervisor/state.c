/* The records lie in slabs of 64 KiB, each for records of one kind and one size:
 *
 *     header │ slab │ slab │ slab …        slab: label, then slots;  slot: sequence number (0: free), then the record
 *
 * A slab's label is one word and says kind and size, or 0: the slab is free, and its pages are given back. Killed between the label's store and
 * the giving back, the next process gives them back when it opens the memory. */
#include "supervisor/state.h"

#define CST_LOG_AREA "supervisor"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/stat.h>

#define MAGIC UINT64_C(0x65746174735f7463)
#define HEADER_SIZE (64u << 10)
#define SLAB_SIZE (64u << 10)
#define SLAB_HEAD 64u
/* Addresses and a size on paper; pages exist once they are written to. */
#define SIZE_MOST (UINT64_C(16) << 30)
#define SIZE_LEAST (UINT64_C(64) << 20)
#define SLOT_MAX (16u << 10)
#define SMALL_MAX 512u
#define SIZES 128u

_Static_assert(sizeof(struct cst_state_header) <= HEADER_SIZE, "the header has outgrown its place");

struct slab {
	TAILQ_ENTRY(slab) link; /* of its class, when it has room; of the free ones */
	uint32_t slot_size;	/* 0: free */
	uint16_t kind;
	uint16_t slots, used, fresh; /* fresh: slots from here on were never used */
	uint16_t head;		     /* of the list of free slots, + 1 */
	bool listed;
};
TAILQ_HEAD(slab_list, slab);

struct class
{
	pthread_mutex_t lock;
	struct slab_list room;
};

struct cst_state {
	unsigned magic;
	bool whole;
	size_t mapped;
	char *base;
	struct cst_state_header *header;
	uint64_t sequence;	   /* atomic: the last one given */
	uint64_t records, on_heap; /* atomic */
	pthread_mutex_t lock;	   /* free_slabs; after a class's */
	struct slab_list free_slabs;
	struct slab *slabs;
	uint64_t slabs_max;
	struct class classes[CST_STATE_KINDS][SIZES];
};
#define STATE_MAGIC 0x57a7e001u

/* ---- the file ---- */

static int state_failed(struct cst_error *err, int code)
{
	cst_error_set(err, code, "can't make the memory that outlives a crash");
	cst_error_why(err, "%s", strerror(code));
	return -code;
}

int cst_state_make(struct cst_error *err)
{
	CST_AUTO_CLOSE int fd = memfd_create("cistern-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return state_failed(err, errno);
	uint64_t size = SIZE_MOST;
	while (ftruncate(fd, (off_t)size) != 0) {
		size /= 2;
		if (size < SIZE_LEAST)
			return state_failed(err, errno);
	}
	struct cst_state_header *h = mmap(NULL, HEADER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (h == MAP_FAILED)
		return state_failed(err, errno);
	h->layout = CST_STATE_LAYOUT;
	h->header_size = sizeof(*h);
	h->size = size;
	h->magic = MAGIC;
	munmap(h, HEADER_SIZE);
	fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	return cst_steal_fd(&fd);
}

static int check_header(int fd, struct cst_state_header *h, struct cst_error *err)
{
	struct stat st;
	ssize_t n = pread(fd, h, sizeof(*h), 0);
	if (n < 0 || fstat(fd, &st) != 0)
		return state_failed(err, errno);
	bool same = n == (ssize_t)sizeof(*h) && h->magic == MAGIC && h->layout == CST_STATE_LAYOUT &&
		    h->header_size == sizeof(*h) && h->size == (uint64_t)st.st_size;
	if (same)
		return 0;
	cst_error_set(err, EPROTO, "can't take over the mount");
	if (n >= (ssize_t)offsetof(struct cst_state_header, size) && h->magic == MAGIC)
		cst_error_why(err, "its memory has layout %u (%u bytes of header), this program's is %u (%zu)",
			      h->layout, h->header_size, CST_STATE_LAYOUT, sizeof(*h));
	else
		cst_error_why(err, "its memory was made by another program");
	cst_error_hint(err, "unmount and mount again with the new program");
	return -EPROTO;
}

/* ---- scan ---- */

static unsigned size_index(size_t slot)
{
	return slot <= SMALL_MAX ? (unsigned)(slot / 8) : (unsigned)(SMALL_MAX / 8 + (slot - SMALL_MAX + 255) / 256);
}

static size_t slot_size(size_t size)
{
	size_t slot = (size + 8 + 7) / 8 * 8;
	return slot <= SMALL_MAX ? slot : (slot - SMALL_MAX + 255) / 256 * 256 + SMALL_MAX;
}

static char *slab_base(const struct cst_state *s, const struct slab *slab)
{
	return s->base + HEADER_SIZE + (size_t)(slab - s->slabs) * SLAB_SIZE;
}

static uint64_t *slot_at(const struct cst_state *s, const struct slab *slab, unsigned index)
{
	return (uint64_t *)(void *)(slab_base(s, slab) + SLAB_HEAD + (size_t)index * slab->slot_size);
}

static void give_back(const struct cst_state *s, const struct slab *slab)
{
	if (madvise(slab_base(s, slab), SLAB_SIZE, MADV_REMOVE) != 0)
		memset(slab_base(s, slab), 0, SLAB_SIZE);
}

static void slab_shape(struct slab *slab, uint64_t label)
{
	slab->slot_size = (uint32_t)label;
	slab->kind = (uint16_t)(label >> 32);
	slab->slots = (uint16_t)((SLAB_SIZE - SLAB_HEAD) / slab->slot_size);
	slab->used = slab->fresh = slab->head = 0;
}

static bool label_is_good(uint64_t label)
{
	uint32_t slot = (uint32_t)label, kind = (uint32_t)(label >> 32);
	return kind > 0 && kind < CST_STATE_KINDS && slot >= 16 && slot <= SLOT_MAX && slot % 8 == 0;
}

static void list_slab(struct cst_state *s, struct slab *slab)
{
	struct class *c = &s->classes[slab->kind][size_index(slab->slot_size)];
	TAILQ_INSERT_HEAD(&c->room, slab, link);
	slab->listed = true;
}

static void push_free(struct cst_state *s, struct slab *slab, unsigned index)
{
	uint64_t *word = slot_at(s, slab, index);
	word[1] = slab->head;
	slab->head = (uint16_t)(index + 1);
}

static void scan_slab(struct cst_state *s, struct slab *slab)
{
	uint64_t label = *(uint64_t *)(void *)slab_base(s, slab);
	if (!label_is_good(label)) {
		give_back(s, slab);
		TAILQ_INSERT_TAIL(&s->free_slabs, slab, link);
		return;
	}
	slab_shape(slab, label);
	slab->fresh = slab->slots;
	for (unsigned i = slab->slots; i-- > 0;) {
		uint64_t sequence = *slot_at(s, slab, i);
		slab->used += sequence != 0;
		s->sequence = cst_max(s->sequence, sequence);
		if (sequence == 0)
			push_free(s, slab, i);
	}
	s->records += slab->used;
	if (slab->used < slab->slots)
		list_slab(s, slab);
}

/* ---- opening ---- */

static void open_records(struct cst_state *s)
{
	TAILQ_INIT(&s->free_slabs);
	pthread_mutex_init(&s->lock, NULL);
	for (unsigned k = 0; k < CST_STATE_KINDS; k++)
		for (unsigned i = 0; i < SIZES; i++) {
			pthread_mutex_init(&s->classes[k][i].lock, NULL);
			TAILQ_INIT(&s->classes[k][i].room);
		}
	s->slabs_max = (s->header->size - HEADER_SIZE) / SLAB_SIZE;
	s->slabs = cst_xcalloc(s->slabs_max, sizeof(*s->slabs));
	uint64_t count = cst_min(s->header->slabs, s->slabs_max);
	for (uint64_t i = 0; i < count; i++)
		scan_slab(s, &s->slabs[i]);
}

struct cst_state *cst_state_open(int fd, bool whole, struct cst_error *err)
{
	CST_AUTO_FREE struct cst_state_header *copy = CST_NEW(struct cst_state_header);
	if (check_header(fd, copy, err) != 0)
		return NULL;
	size_t size = whole ? copy->size : HEADER_SIZE;
	void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (base == MAP_FAILED) {
		state_failed(err, errno);
		return NULL;
	}
	(void)madvise(base, size, MADV_DONTDUMP);
	struct cst_state *s = CST_NEW(struct cst_state);
	s->magic = STATE_MAGIC;
	s->whole = whole;
	s->base = base;
	s->mapped = size;
	s->header = base;
	if (whole)
		open_records(s);
	return s;
}

void cst_state_close(struct cst_state *s)
{
	if (!s)
		return;
	CST_CHECK(s, STATE_MAGIC);
	for (unsigned k = 0; s->whole && k < CST_STATE_KINDS; k++)
		for (unsigned i = 0; i < SIZES; i++)
			pthread_mutex_destroy(&s->classes[k][i].lock);
	if (s->whole)
		pthread_mutex_destroy(&s->lock);
	munmap(s->base, s->mapped);
	free(s->slabs);
	s->magic = 0;
	free(s);
}

struct cst_state_header *cst_state_header(const struct cst_state *s)
{
	CST_CHECK(s, STATE_MAGIC);
	return s->header;
}

/* ---- records ---- */

/* A slab nobody uses, all of it zero; NULL: the file is full. */
static struct slab *take_slab(struct cst_state *s)
{
	pthread_mutex_lock(&s->lock);
	struct slab *slab = TAILQ_FIRST(&s->free_slabs);
	if (slab) {
		TAILQ_REMOVE(&s->free_slabs, slab, link);
	} else if (s->header->slabs < s->slabs_max) {
		slab = &s->slabs[s->header->slabs];
		__atomic_store_n(&s->header->slabs, s->header->slabs + 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&s->lock);
	return slab;
}

static void release_slab_locked(struct cst_state *s, struct class *c, struct slab *slab)
{
	TAILQ_REMOVE(&c->room, slab, link);
	slab->listed = false;
	slab->slot_size = 0;
	__atomic_store_n((uint64_t *)(void *)slab_base(s, slab), 0, __ATOMIC_RELEASE);
	give_back(s, slab);
	pthread_mutex_lock(&s->lock);
	TAILQ_INSERT_HEAD(&s->free_slabs, slab, link);
	pthread_mutex_unlock(&s->lock);
}

static uint64_t *slot_from_locked(struct cst_state *s, struct class *c, struct slab *slab)
{
	unsigned index;
	if (slab->head) {
		index = slab->head - 1u;
		slab->head = (uint16_t)slot_at(s, slab, index)[1];
	} else {
		index = slab->fresh++;
	}
	slab->used++;
	if (slab->used == slab->slots) {
		TAILQ_REMOVE(&c->room, slab, link);
		slab->listed = false;
	}
	return slot_at(s, slab, index);
}

static void *from_heap(struct cst_state *s, size_t size)
{
	static struct cst_log_limit limit;
	if (cst_log_allowed(&limit, 60 * CST_NS_PER_S, NULL))
		cst_log_warn("the memory that outlives a crash is full: what is opened from now on won't");
	__atomic_fetch_add(&s->on_heap, 1, __ATOMIC_RELAXED);
	return (uint64_t *)cst_xcalloc(1, size + 8) + 1;
}

void *cst_state_alloc(struct cst_state *s, enum cst_state_kind kind, size_t size)
{
	CST_CHECK(s, STATE_MAGIC);
	CST_ASSERT(s->whole && kind > 0 && kind < CST_STATE_KINDS);
	size_t slot = slot_size(size);
	if (slot > SLOT_MAX)
		return from_heap(s, size);
	struct class *c = &s->classes[kind][size_index(slot)];
	pthread_mutex_lock(&c->lock);
	struct slab *slab = TAILQ_FIRST(&c->room);
	if (!slab && (slab = take_slab(s)) != NULL) {
		uint64_t label = (uint64_t)kind << 32 | slot;
		slab_shape(slab, label);
		__atomic_store_n((uint64_t *)(void *)slab_base(s, slab), label, __ATOMIC_RELEASE);
		list_slab(s, slab);
	}
	uint64_t *word = slab ? slot_from_locked(s, c, slab) : NULL;
	pthread_mutex_unlock(&c->lock);
	if (!word)
		return from_heap(s, size);
	memset(word + 1, 0, slot - 8);
	__atomic_fetch_add(&s->records, 1, __ATOMIC_RELAXED);
	return word + 1;
}

static bool is_kept(const struct cst_state *s, const void *record)
{
	const char *p = record;
	return p >= s->base && p < s->base + s->mapped;
}

void cst_state_commit(struct cst_state *s, void *record)
{
	uint64_t *word = (uint64_t *)record - 1;
	CST_CHECK(s, STATE_MAGIC);
	__atomic_store_n(word, __atomic_add_fetch(&s->sequence, 1, __ATOMIC_RELAXED), __ATOMIC_RELEASE);
}

void cst_state_free(struct cst_state *s, void *record)
{
	if (!record)
		return;
	CST_CHECK(s, STATE_MAGIC);
	uint64_t *word = (uint64_t *)record - 1;
	if (!is_kept(s, record)) {
		__atomic_fetch_sub(&s->on_heap, 1, __ATOMIC_RELAXED);
		free(word);
		return;
	}
	size_t offset = (size_t)((char *)word - s->base) - HEADER_SIZE;
	struct slab *slab = &s->slabs[offset / SLAB_SIZE];
	struct class *c = &s->classes[slab->kind][size_index(slab->slot_size)];
	__atomic_store_n(word, 0, __ATOMIC_RELEASE);
	pthread_mutex_lock(&c->lock);
	push_free(s, slab, (unsigned)((offset % SLAB_SIZE - SLAB_HEAD) / slab->slot_size));
	slab->used--;
	if (!slab->listed)
		list_slab(s, slab);
	/* One is kept, so that a record made and freed again and again costs nothing. */
	if (slab->used == 0 && TAILQ_FIRST(&c->room) != TAILQ_LAST(&c->room, slab_list))
		release_slab_locked(s, c, slab);
	pthread_mutex_unlock(&c->lock);
	__atomic_fetch_sub(&s->records, 1, __ATOMIC_RELAXED);
}

void cst_state_each(struct cst_state *s, enum cst_state_kind kind,
		    void (*each)(void *arg, void *record, size_t room, uint64_t sequence), void *arg)
{
	CST_CHECK(s, STATE_MAGIC);
	uint64_t count = cst_min(s->header->slabs, s->slabs_max);
	for (uint64_t i = 0; i < count; i++) {
		struct slab *slab = &s->slabs[i];
		if (slab->slot_size == 0 || slab->kind != kind)
			continue;
		for (unsigned k = 0; k < slab->slots; k++) {
			uint64_t *word = slot_at(s, slab, k);
			if (*word)
				each(arg, word + 1, slab->slot_size - 8, *word);
		}
	}
}

void cst_state_stats(const struct cst_state *s, struct cst_state_stats *stats)
{
	*stats = (struct cst_state_stats){.records = __atomic_load_n(&s->records, __ATOMIC_RELAXED),
					  .slabs = __atomic_load_n(&s->header->slabs, __ATOMIC_RELAXED),
					  .on_heap = __atomic_load_n(&s->on_heap, __ATOMIC_RELAXED)};
}

/* ---- signs of life ---- */

struct cst_beat *cst_beat_take(struct cst_state_header *header, enum cst_beat_kind kind, const char *name)
{
	for (unsigned i = 0; i < CST_STATE_BEATS; i++) {
		struct cst_beat *beat = &header->beats[i];
		uint32_t unused = CST_BEAT_UNUSED;
		if (__atomic_load_n(&beat->kind, __ATOMIC_RELAXED) != CST_BEAT_UNUSED)
			continue;
		/* The time first: the kind makes it count. Two that want the same one only write the same. */
		cst_beat_set(beat, kind == CST_BEAT_TICKS ? cst_now() : 0);
		if (!__atomic_compare_exchange_n(&beat->kind, &unused, (uint32_t)kind, false, __ATOMIC_ACQ_REL,
						 __ATOMIC_RELAXED))
			continue;
		snprintf(beat->name, sizeof(beat->name), "%s", name);
		return beat;
	}
	return NULL;
}

int64_t cst_beat_oldest(const struct cst_state_header *header, int64_t now, const struct cst_beat **which)
{
	int64_t worst = 0;
	for (unsigned i = 0; i < CST_STATE_BEATS; i++) {
		const struct cst_beat *beat = &header->beats[i];
		int64_t at = __atomic_load_n(&beat->at, __ATOMIC_RELAXED);
		uint32_t kind = __atomic_load_n(&beat->kind, __ATOMIC_RELAXED);
		if (kind == CST_BEAT_UNUSED || (kind == CST_BEAT_WORKS && at == 0) || now - at <= worst)
			continue;
		worst = now - at;
		if (which)
			*which = beat;
	}
	return worst;
}
