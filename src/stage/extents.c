/* A sorted array of extents, cut into chunks so that an insertion moves few: chunks of up to CHUNK_MAX extents, none empty. */
#include "stage/extents.h"

#include <string.h>

#define CHUNK_MAX 256u
#define CHUNK_FIRST 4u

struct cst_extents_chunk {
	unsigned count, room;
	struct cst_extent e[];
};
struct place {
	size_t chunk;
	unsigned at; /* of an extent; the end: chunk_count, 0 */
};

static uint64_t end_of(const struct cst_extent *e)
{
	return e->start + e->length;
}

void cst_extents_init(struct cst_extents *map)
{
	*map = (struct cst_extents){0};
}

void cst_extents_fini(struct cst_extents *map)
{
	for (size_t i = 0; i < map->chunk_count; i++)
		free(map->chunks[i]);
	free(map->chunks);
	cst_extents_init(map);
}

void cst_extents_copy(struct cst_extents *to, const struct cst_extents *from)
{
	cst_extents_fini(to);
	*to = *from;
	to->chunk_room = from->chunk_count;
	to->chunks = from->chunk_count ? cst_xcalloc(from->chunk_count, sizeof(*to->chunks)) : NULL;
	for (size_t i = 0; i < from->chunk_count; i++) {
		const struct cst_extents_chunk *chunk = from->chunks[i];
		size_t size = sizeof(*chunk) + chunk->count * sizeof(chunk->e[0]);
		to->chunks[i] = cst_xmalloc(size);
		memcpy(to->chunks[i], chunk, size);
		to->chunks[i]->room = chunk->count;
	}
}

/* The first extent that ends after `pos`. */
static struct place find(const struct cst_extents *map, uint64_t pos)
{
	size_t low = 0, high = map->chunk_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct cst_extents_chunk *chunk = map->chunks[middle];
		if (end_of(&chunk->e[chunk->count - 1]) > pos)
			high = middle;
		else
			low = middle + 1;
	}
	if (low == map->chunk_count)
		return (struct place){low, 0};
	const struct cst_extents_chunk *chunk = map->chunks[low];
	unsigned first = 0, last = chunk->count - 1;
	while (first < last) {
		unsigned middle = first + (last - first) / 2;
		if (end_of(&chunk->e[middle]) > pos)
			last = middle;
		else
			first = middle + 1;
	}
	return (struct place){low, first};
}

static struct cst_extent *get(const struct cst_extents *map, struct place p)
{
	return p.chunk < map->chunk_count ? &map->chunks[p.chunk]->e[p.at] : NULL;
}

static struct cst_extents_chunk *resized(struct cst_extents_chunk *chunk, unsigned room)
{
	unsigned count = chunk ? chunk->count : 0;
	chunk = cst_xrealloc(chunk, sizeof(*chunk) + room * sizeof(chunk->e[0]));
	chunk->room = room;
	chunk->count = count;
	return chunk;
}

static void add_chunk(struct cst_extents *map, size_t at, struct cst_extents_chunk *chunk)
{
	if (map->chunk_count == map->chunk_room) {
		map->chunk_room = cst_max(2 * map->chunk_room, (size_t)1);
		map->chunks = cst_xrealloc(map->chunks, map->chunk_room * sizeof(*map->chunks));
	}
	memmove(map->chunks + at + 1, map->chunks + at, (map->chunk_count - at) * sizeof(*map->chunks));
	map->chunks[at] = chunk;
	map->chunk_count++;
}

/* A full chunk becomes two. At the map's end the new one is nearly empty, for what is written from front to end. */
static struct place split(struct cst_extents *map, struct place p)
{
	struct cst_extents_chunk *chunk = map->chunks[p.chunk], *right;
	bool at_end = p.chunk + 1 == map->chunk_count && p.at == chunk->count;
	unsigned keep = at_end ? chunk->count - 1 : chunk->count / 2;
	right = resized(NULL, CHUNK_MAX);
	right->count = chunk->count - keep;
	memcpy(right->e, chunk->e + keep, right->count * sizeof(right->e[0]));
	chunk->count = keep;
	add_chunk(map, p.chunk + 1, right);
	return p.at < keep ? p : (struct place){p.chunk + 1, p.at - keep};
}

/* Before the extent at `p`. */
static void insert(struct cst_extents *map, struct place p, struct cst_extent e)
{
	if (p.chunk == map->chunk_count && p.chunk > 0) {
		p.chunk--;
		p.at = map->chunks[p.chunk]->count;
	}
	if (map->chunk_count == 0)
		add_chunk(map, 0, resized(NULL, CHUNK_FIRST));
	struct cst_extents_chunk *chunk = map->chunks[p.chunk];
	if (chunk->count == CHUNK_MAX) {
		p = split(map, p);
		chunk = map->chunks[p.chunk];
	} else if (chunk->count == chunk->room) {
		chunk = map->chunks[p.chunk] =
			resized(chunk, cst_min(cst_max(2 * chunk->room, CHUNK_FIRST), CHUNK_MAX));
	}
	memmove(chunk->e + p.at + 1, chunk->e + p.at, (chunk->count - p.at) * sizeof(chunk->e[0]));
	chunk->e[p.at] = e;
	chunk->count++;
	map->count++;
	map->bytes += e.length;
}

static void drop_chunk(struct cst_extents *map, size_t at)
{
	free(map->chunks[at]);
	map->chunk_count--;
	memmove(map->chunks + at, map->chunks + at + 1, (map->chunk_count - at) * sizeof(*map->chunks));
}

/* Extents that begin in [start, end), which none crosses. */
static void erase(struct cst_extents *map, uint64_t start, uint64_t end)
{
	struct place p = find(map, start);
	while (p.chunk < map->chunk_count) {
		struct cst_extents_chunk *chunk = map->chunks[p.chunk];
		unsigned last = p.at;
		for (; last < chunk->count && chunk->e[last].start < end; last++)
			map->bytes -= chunk->e[last].length;
		bool more = last == chunk->count;
		map->count -= last - p.at;
		memmove(chunk->e + p.at, chunk->e + last, (chunk->count - last) * sizeof(chunk->e[0]));
		chunk->count -= last - p.at;
		if (chunk->count == 0)
			drop_chunk(map, p.chunk);
		else
			p.chunk++;
		if (!more)
			return;
		p.at = 0;
	}
}

/* No extent crosses `pos` afterwards. */
static void cut(struct cst_extents *map, uint64_t pos)
{
	struct place p = find(map, pos);
	struct cst_extent *e = get(map, p);
	if (!e || e->start >= pos)
		return;
	struct cst_extent left = {e->start, pos - e->start, e->kind};
	e->length -= left.length;
	e->start = pos;
	map->bytes -= left.length;
	insert(map, p, left);
}

void cst_extents_clear(struct cst_extents *map, uint64_t start, uint64_t length)
{
	CST_ASSERT(start <= CST_EXTENTS_END && length <= CST_EXTENTS_END - start);
	if (length == 0 || map->count == 0)
		return;
	cut(map, start);
	cut(map, start + length);
	erase(map, start, start + length);
}

static struct place before(const struct cst_extents *map, struct place p)
{
	if (p.at > 0)
		return (struct place){p.chunk, p.at - 1};
	if (p.chunk == 0)
		return (struct place){map->chunk_count, 0};
	return (struct place){p.chunk - 1, map->chunks[p.chunk - 1]->count - 1};
}

void cst_extents_set(struct cst_extents *map, uint64_t start, uint64_t length, uint8_t kind)
{
	struct cst_extent e;
	if (length == 0)
		return;
	if (cst_extents_stretch(map, start, start + length, &e) && e.kind == kind && e.length == length)
		return;
	cst_extents_clear(map, start, length);
	struct place p = find(map, start);
	struct cst_extent *right = get(map, p), *left = get(map, before(map, p));
	if (left && end_of(left) == start && left->kind == kind) {
		left->length += length;
		map->bytes += length;
		if (right && right->start == end_of(left) && right->kind == kind) {
			struct cst_extent gone = *right;
			erase(map, gone.start, end_of(&gone));
			left = get(map, find(map, start)); /* chunks may have moved */
			CST_ASSERT(left);
			left->length += gone.length;
			map->bytes += gone.length;
		}
	} else if (right && right->start == start + length && right->kind == kind) {
		right->start = start;
		right->length += length;
		map->bytes += length;
	} else {
		insert(map, p, (struct cst_extent){start, length, kind});
	}
}

bool cst_extents_next(const struct cst_extents *map, uint64_t from, uint64_t end, struct cst_extent *e)
{
	const struct cst_extent *found = from < end ? get(map, find(map, from)) : NULL;
	if (!found || found->start >= end)
		return false;
	e->start = cst_max(found->start, from);
	e->length = cst_min(end_of(found), end) - e->start;
	e->kind = found->kind;
	return true;
}

bool cst_extents_stretch(const struct cst_extents *map, uint64_t from, uint64_t end, struct cst_extent *e)
{
	if (cst_extents_next(map, from, end, e) && e->start == from)
		return true;
	uint64_t until = cst_extents_next(map, from, end, e) ? e->start : end;
	*e = (struct cst_extent){from, until - from, 0};
	return false;
}
