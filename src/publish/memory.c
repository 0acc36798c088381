/* The budget: blocks, who waits for them, and how some become free. doc/publish.md proves that nobody waits for ever. */
#include "publish/internal.h"

#include <string.h>
#include <sys/mman.h>

int memory_init(struct cst_publish *p, struct cst_error *err)
{
	p->block_count = (unsigned)(p->config.memory / BLOCK_SIZE);
	size_t bytes = (size_t)p->block_count * BLOCK_SIZE;
	void *arena = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (arena == MAP_FAILED) {
		int rc = -errno;
		cst_error_set(err, -rc, "can't have %zu bytes of memory for uploads", bytes);
		cst_error_why(err, "%s", strerror(-rc));
		p->block_count = 0;
		return rc;
	}
	p->arena = arena;
	p->free_blocks = cst_xcalloc(p->block_count, sizeof(*p->free_blocks));
	/* The lowest one on top: pages that are in use already are used again first. */
	for (unsigned i = 0; i < p->block_count; i++)
		p->free_blocks[i] = p->arena + (size_t)(p->block_count - 1 - i) * BLOCK_SIZE;
	p->free_count = p->least_free = p->block_count;
	/* What one stream leaves to others, so that a new one gets going at once. */
	p->stream_cap = p->block_count - p->block_count / 8;
	return 0;
}

void memory_fini(struct cst_publish *p)
{
	if (p->arena)
		munmap(p->arena, (size_t)p->block_count * BLOCK_SIZE);
	free(p->free_blocks);
}

char *publish_block_take_locked(struct cst_publish_stream *s)
{
	struct cst_publish *p = s->publish;
	CST_ASSERT(p->free_count > 0);
	s->blocks++;
	char *block = p->free_blocks[--p->free_count];
	p->least_free = cst_min(p->least_free, p->free_count);
	return block;
}

void block_put_locked(struct cst_publish_stream *s, char *block)
{
	struct cst_publish *p = s->publish;
	CST_ASSERT(s->blocks > 0 && p->free_count < p->block_count);
	s->blocks--;
	p->free_blocks[p->free_count++] = block;
}

void chunk_free_locked(struct cst_publish_stream *s, struct chunk *c)
{
	CST_ASSERT(c->pins == 0 && (c->state == CHUNK_MEMORY || c->state == CHUNK_DISK));
	TAILQ_REMOVE(&s->chunks, c, link);
	if (c->state == CHUNK_MEMORY) {
		block_put_locked(s, c->block);
	} else {
		s->disk--;
		spill_slot_put_locked(s->publish, c->slot);
	}
	free(c);
}

void chunks_drop_locked(struct cst_publish_stream *s)
{
	struct chunk *c;
	while ((c = TAILQ_FIRST(&s->chunks)))
		chunk_free_locked(s, c);
}

/* ---- waiting ---- */

static bool may_have(const struct cst_publish_stream *s, unsigned blocks)
{
	return s->blocks + blocks <= s->publish->stream_cap;
}

static void give(struct cst_publish_stream *s, unsigned blocks)
{
	for (; blocks; blocks--)
		s->grant[s->grant_count++] = publish_block_take_locked(s);
}

bool memory_ask_locked(struct cst_publish_stream *s, unsigned blocks)
{
	struct cst_publish *p = s->publish;
	/* It may have some already, from a turn that it could not use. */
	CST_ASSERT(blocks <= GRANT_MAX && blocks > s->grant_count);
	blocks -= s->grant_count;
	s->want = blocks;
	if (s->waiting)
		return false;
	bool first = TAILQ_EMPTY(&p->waiting) && TAILQ_EMPTY(&p->loads);
	if (first && p->free_count >= blocks && may_have(s, blocks)) {
		give(s, blocks);
		return true;
	}
	s->waiting = true;
	TAILQ_INSERT_TAIL(&p->waiting, s, waiting_link);
	p->waiting_count++;
	p->pump = true;
	return false;
}

void memory_forget_locked(struct cst_publish_stream *s)
{
	struct cst_publish *p = s->publish;
	while (s->grant_count)
		block_put_locked(s, s->grant[--s->grant_count]);
	if (!s->waiting)
		return;
	s->waiting = false;
	TAILQ_REMOVE(&p->waiting, s, waiting_link);
	p->waiting_count--;
}

/* In their order; one that has as much as it may have waits for its own, not the others for it. */
static void serve_locked(struct cst_publish *p, struct todo *todo)
{
	struct cst_publish_stream *s, *next;
	for (s = TAILQ_FIRST(&p->waiting); s; s = next) {
		next = TAILQ_NEXT(s, waiting_link);
		if (!may_have(s, s->want))
			continue;
		if (p->free_count < s->want)
			return;
		TAILQ_REMOVE(&p->waiting, s, waiting_link);
		p->waiting_count--;
		s->waiting = false;
		give(s, s->want);
		writes_serve_locked(s, todo); /* begins to copy: it asks for nothing more now */
	}
}

/* ---- making room ---- */

/* Nothing is under way that touches its chunks. */
static bool is_quiet(const struct cst_publish_stream *s)
{
	return s->pub.phase == PHASE_NONE && TAILQ_EMPTY(&s->syncs) && !s->copying && s->call_count == 0 &&
	       !s->loading && !s->spilling && !s->finished;
}

/* Bytes that the store has as well. */
bool stream_drop_retained_locked(struct cst_publish_stream *s)
{
	if (!s->retained || s->size != s->published || !is_quiet(s) || s->touches != s->touches_done ||
	    !TAILQ_EMPTY(&s->writes))
		return false;
	chunks_drop_locked(s);
	s->retained = false;
	s->source.size = s->assigned = s->published;
	memcpy(s->source.etag, s->base.etag, sizeof(s->source.etag));
	return true;
}

static unsigned drop_retained_locked(struct cst_publish *p, unsigned blocks)
{
	struct cst_publish_stream *s;
	unsigned before = p->free_count;
	TAILQ_FOREACH (s, &p->streams, link) {
		if (p->free_count - before >= blocks)
			break;
		if (s->retained)
			stream_drop_retained_locked(s);
	}
	return p->free_count - before;
}

static uint64_t resting(const struct cst_publish_stream *s)
{
	return s->size - cst_max(s->assigned, s->source.size);
}

/* A part smaller than usual, of the stream that has most of it. */
static bool send_early_locked(struct cst_publish *p, struct todo *todo)
{
	struct cst_publish_stream *s, *best = NULL;
	TAILQ_FOREACH (s, &p->streams, link) {
		bool may = s->pub.phase == PHASE_NONE && !s->copying && !s->failed && !s->stalled && !s->closed &&
			   !s->reset_pending && s->size != s->published && !s->disk && TAILQ_EMPTY(&s->syncs) &&
			   !s->spilling && s->hungry == false && s->flying < p->config.stream_parallel;
		if (may && s->blocks && resting(s) >= part_least(s) && (!best || resting(s) > resting(best)))
			best = s;
	}
	if (!best || p->flying >= p->config.parallel)
		return false;
	if (best->mode == CST_PUBLISH_APPENDABLE) {
		publication_start_locked(best);
		publication_advance_locked(best, todo);
	} else {
		parts_make_locked(best, best->size, false);
		parts_send_locked(best, todo);
	}
	return true;
}

/* Of who is next in the line: when that one has got it, the next one is looked at. All of them together may want more than there will ever be. */
static unsigned wanted_locked(const struct cst_publish *p)
{
	const struct cst_publish_stream *load = TAILQ_FIRST(&p->loads);
	const struct cst_publish_stream *s;
	if (load)
		return load->load_blocks;
	TAILQ_FOREACH (s, &p->waiting, waiting_link)
		if (may_have(s, s->want))
			return s->want;
	return 0;
}

/* Nothing frees memory, and nothing can be made to. */
static void refuse_locked(struct cst_publish *p, struct todo *todo)
{
	struct cst_publish_stream *s, *next;
	struct cst_error err = CST_ERROR_INIT;
	int rc = p->spill_error ? p->spill_error : -ENOBUFS;
	cst_error_set(&err, -rc, "can't take more bytes to write");
	cst_error_why(&err, "the memory for uploads (%u MiB) is full of files that are being written, and %s: %s",
		      (unsigned)(p->config.memory / MIB), p->keep_dir ? p->keep_dir : "no directory",
		      p->spill_error ? strerror(-p->spill_error) : "has no room for it either");
	cst_error_hint(&err, "make room there, raise upload_memory, or write fewer files at once");
	for (s = TAILQ_FIRST(&p->waiting); s; s = next) {
		next = TAILQ_NEXT(s, waiting_link);
		if (!may_have(s, s->want))
			continue;
		memory_forget_locked(s);
		writes_fail_locked(s, rc, &err, todo);
	}
	load_refuse_locked(p, todo);
}

void memory_hopeless_locked(struct cst_publish *p, struct todo *todo)
{
	bool moving = p->spilling || p->leaving || p->calls || p->copies || p->jobs;
	bool waits = !TAILQ_EMPTY(&p->waiting) || !TAILQ_EMPTY(&p->loads);
	if (waits && !moving && p->free_count < wanted_locked(p))
		refuse_locked(p, todo);
}

/* Sees to it that what is waited for is on its way. */
static void make_room_locked(struct cst_publish *p, struct todo *todo)
{
	unsigned wanted = wanted_locked(p);
	unsigned coming = p->free_count + p->leaving + p->spilling;
	if (coming >= wanted)
		return;
	/* A little more than is wanted, so that the next who comes need not wait as well. */
	unsigned aim = cst_max(wanted, p->block_count / 8);
	while (p->free_count + p->leaving + p->spilling < aim && send_early_locked(p, todo))
		;
	coming = p->free_count + p->leaving + p->spilling;
	if (coming < wanted && p->spilling == 0)
		spill_locked(p, aim - coming, todo);
	memory_hopeless_locked(p, todo);
}

void memory_pump_locked(struct cst_publish *p, struct todo *todo)
{
	if (p->pumping) { /* it comes round again */
		p->pump = true;
		return;
	}
	p->pumping = true;
	do {
		p->pump = false;
		/* Those that had to wait because of the number of requests. */
		while (p->flying < p->config.parallel && !TAILQ_EMPTY(&p->hungry)) {
			struct cst_publish_stream *s = TAILQ_FIRST(&p->hungry);
			hungry_forget_locked(s);
			advance_locked(s, todo);
		}
		while (load_serve_locked(p, todo))
			;
		if (TAILQ_EMPTY(&p->loads))
			serve_locked(p, todo);
		if (TAILQ_EMPTY(&p->waiting) && TAILQ_EMPTY(&p->loads))
			continue;
		unsigned wanted = wanted_locked(p);
		if (p->free_count + p->leaving + p->spilling < wanted && drop_retained_locked(p, wanted))
			p->pump = true;
		else
			make_room_locked(p, todo);
	} while (p->pump);
	p->pumping = false;
}
