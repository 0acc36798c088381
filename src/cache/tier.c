/* Copying entries between levels: down when the upper one needs room (demotion, on its evictor's thread), up when they are read again
 * (promotion, on a background thread).
 *
 * An entry is promoted when it is read again within as many bytes read from below as the upper level can hold: then it would have been a hit
 * there. What is read once, or in rounds longer than the upper level, stays where it is, so a scan doesn't turn the levels over. */
#define CST_LOG_AREA "cache"
#include "base/clock.h"
#include "base/log.h"
#include "cache/cache_private.h"

#include <errno.h>

#define COPY_BYTES (1u << 20)
#define COPY_BLOCKS (COPY_BYTES / CST_CACHE_BLOCK)
#define PROMOTING_MOST 64u
#define DEMOTE_WAIT (2 * CST_NS_PER_S)

/* ---- waiting for a volume ---- */

void cst_wait_init(struct cst_wait *w)
{
	*w = (struct cst_wait){0};
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->cond, NULL);
}

int cst_wait_for(struct cst_wait *w)
{
	pthread_mutex_lock(&w->lock);
	while (!w->done)
		pthread_cond_wait(&w->cond, &w->lock);
	w->done = false;
	int rc = w->rc;
	pthread_mutex_unlock(&w->lock);
	return rc;
}

void cst_wait_fini(struct cst_wait *w)
{
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->cond);
}

void cst_wait_done(void *wait, int rc)
{
	struct cst_wait *w = wait;
	pthread_mutex_lock(&w->lock);
	w->rc = rc;
	w->done = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

void cst_wait_opened(void *wait, const struct cst_volume_answer *answer)
{
	struct cst_wait *w = wait;
	w->answer = *answer;
	cst_wait_done(w, answer->rc);
}

static int charge(struct cst_volume_handle *handle, int64_t bytes)
{
	struct cst_wait w;
	cst_wait_init(&w);
	cst_volume_charge(handle, bytes, cst_wait_done, &w);
	int rc = cst_wait_for(&w);
	cst_wait_fini(&w);
	return rc;
}

/* ---- copying blocks ---- */

struct copy {
	const struct cst_extent *from, *to;
	struct cst_volume_handle *to_handle;
	uint64_t size;
	char *memory;	 /* COPY_BYTES */
	uint64_t copied; /* blocks */
	int read_rc, write_rc;
};

/* Blocks [first, first + count), which `from` has. A bad block is left behind. */
static void copy_run(struct copy *c, uint64_t first, uint64_t count)
{
	uint64_t bytes = cst_min(c->size, (first + count) * CST_CACHE_BLOCK) - first * CST_CACHE_BLOCK, bad;
	struct iovec iov = {c->memory, bytes};
	c->read_rc = cst_extent_read(c->from, first, &iov, 1, false, &bad);
	if (c->read_rc != 0)
		return;
	c->write_rc = charge(c->to_handle, (int64_t)bytes);
	if (c->write_rc != 0)
		return;
	c->write_rc = cst_extent_write(c->to, first, &iov, 1);
	if (c->write_rc != 0)
		cst_volume_charge(c->to_handle, -(int64_t)bytes, NULL, NULL);
	else
		c->copied += count;
}

/* ---- demotion ---- */

/* Large entries may overdraw: they could never go otherwise; what follows them waits out the debt. */
static bool take_tokens(struct cst_level *l, uint64_t bytes)
{
	pthread_mutex_lock(&l->tokens_lock);
	int64_t now = cst_now();
	l->tokens += (double)(now - l->tokens_at) / (double)CST_NS_PER_S * l->token_rate;
	l->tokens = cst_min(l->tokens, l->token_rate * CST_DEMOTE_BURST_S);
	l->tokens_at = now;
	bool yes = l->tokens > 0;
	if (yes)
		l->tokens -= (double)bytes;
	__atomic_store_n(&l->behind, !yes || l->tokens <= 0, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&l->tokens_lock);
	return yes;
}

/* While it waits the evictor frees nothing, but new objects go past the level (cst_tier_is_behind()), so little is asked of it. */
static bool wait_for_tokens(struct cst_level *l, uint64_t bytes)
{
	int64_t until = cst_now() + DEMOTE_WAIT;
	while (!take_tokens(l, bytes)) {
		if (cst_now() >= until || __atomic_load_n(&l->volumes[0].cache->stopping, __ATOMIC_RELAXED))
			return false;
		cst_sleep(DEMOTE_WAIT / 100);
	}
	return true;
}

bool cst_tier_is_behind(struct cst_cache *cache, unsigned level)
{
	if (level + 1 >= cache->level_count)
		return false;
	struct cst_level *below = &cache->levels[level + 1];
	if (!__atomic_load_n(&below->behind, __ATOMIC_RELAXED))
		return false;
	return !take_tokens(below, 0); /* or has it caught up meanwhile? */
}

static struct cst_cache_volume *volume_below(struct cst_cache *cache, unsigned level, uint64_t name, uint64_t size)
{
	for (unsigned i = level + 1; i < cache->level_count; i++) {
		struct cst_cache_volume *v = cst_level_choose(&cache->levels[i], name);
		if (v && cst_cache_volume_holds(v, size))
			return v;
	}
	return NULL;
}

/* A copied entry that is being made complete keeps its volume open. */
struct demoted {
	struct cst_cache *cache;
	struct cst_volume_handle *handle;
};

static void demoted_complete(void *arg, int rc)
{
	struct demoted *d = arg;
	struct cst_cache *cache = d->cache;
	(void)rc;
	cst_volume_entry_close(d->handle);
	free(d);
	pthread_mutex_lock(&cache->lock);
	cache->copies--;
	pthread_cond_broadcast(&cache->quiet);
	pthread_mutex_unlock(&cache->lock);
}

/* Gives `handle` up, after completion when there is something to complete. `verify`: some of it was there before. */
static void demoted_end(struct cst_cache *cache, struct cst_volume_handle *handle, bool complete, bool verify)
{
	if (!complete) {
		cst_volume_entry_close(handle);
		return;
	}
	struct demoted *d = CST_NEW(struct demoted);
	*d = (struct demoted){cache, handle};
	pthread_mutex_lock(&cache->lock);
	cache->copies++;
	pthread_mutex_unlock(&cache->lock);
	cst_volume_complete(handle, verify, demoted_complete, d);
}

static uint8_t *present_map(const struct cst_extent *e, uint64_t blocks)
{
	uint8_t *map = cst_xcalloc(1, (blocks + 7) / 8);
	if (cst_extent_present(e, 0, blocks, map) == 0)
		return map;
	free(map);
	return NULL;
}

static bool map_has(const uint8_t *map, uint64_t block)
{
	return map[block / 8] >> (block % 8) & 1;
}

/* What the upper one has and the lower has not. Returns whether the lower one has all that there is; *whole: that is all of the object;
 * *had: blocks that nobody has checked just now. */
static bool demote_blocks(struct cst_cache_volume *below, struct cst_volume_handle *handle,
			  const struct cst_extent *from, const struct cst_extent *to, uint64_t size, bool *whole,
			  uint64_t *had)
{
	uint64_t blocks = (size + CST_CACHE_BLOCK - 1) / CST_CACHE_BLOCK, want = 0;
	CST_AUTO_FREE uint8_t *have = present_map(from, blocks);
	CST_AUTO_FREE uint8_t *there = present_map(to, blocks);
	CST_AUTO_FREE char *memory = cst_xmalloc(COPY_BYTES);
	struct copy c = {.from = from, .to = to, .to_handle = handle, .size = size, .memory = memory};
	bool stopped = false;
	for (uint64_t b = 0, n; have && there && b < blocks && c.write_rc == 0; b += n) {
		n = 1;
		/* Nobody wants to wait for gigabytes to go down. */
		stopped = __atomic_load_n(&below->cache->stopping, __ATOMIC_RELAXED);
		if (stopped)
			break;
		*had += map_has(there, b);
		if (!map_has(have, b) || map_has(there, b))
			continue;
		while (n < COPY_BLOCKS && b + n < blocks && map_has(have, b + n) && !map_has(there, b + n))
			n++;
		want += n;
		copy_run(&c, b, n);
	}
	cst_cache_volume_error(below, c.write_rc, "copying an entry down");
	*whole = *had + c.copied == blocks;
	return c.write_rc == 0 && c.copied == want && have && there && !stopped;
}

static bool demote_extent(struct cst_cache_volume *v, struct cst_cache_volume *below,
			  const struct cst_index_entry *entry)
{
	struct cst_extent from = {-1, -1, entry->name, entry->version, entry->size}, to = from;
	struct cst_cache_identity id;
	CST_AUTO_BUF text = CST_BUF_INIT;
	struct cst_wait w;
	bool moved = false, whole = false;
	uint64_t had = 0;
	if (cst_extent_open(cst_volume_dir(v->volume), NULL, false, &from) != 0)
		return false;
	cst_wait_init(&w);
	int rc = cst_extent_identity(&from, &id, &text);
	if (rc == 0) {
		cst_volume_entry_open(below->volume, &id, CST_VOLUME_CREATE, cst_wait_opened, &w);
		rc = cst_wait_for(&w);
	}
	if (rc == 0) {
		struct cst_volume_answer *a = &w.answer;
		rc = a->entry.complete ? 0 : cst_extent_open(cst_volume_dir(below->volume), &id, true, &to);
		moved = a->entry.complete ||
			(rc == 0 && demote_blocks(below, a->handle, &from, &to, id.size, &whole, &had));
		if (!moved && a->created)
			cst_volume_drop_entry(a->handle);
		demoted_end(v->cache, a->handle, moved && whole && !a->entry.complete, had > 0);
	}
	cst_wait_fini(&w);
	cst_extent_close(&from);
	cst_extent_close(&to);
	return moved;
}

static bool demote_slot(struct cst_cache_volume *v, struct cst_cache_volume *below, const struct cst_index_entry *entry)
{
	struct cst_cache_identity id;
	CST_AUTO_BUF text = CST_BUF_INIT;
	CST_AUTO_FREE char *memory = cst_xmalloc(entry->size + 1);
	struct iovec iov = {memory, entry->size};
	int rc;
	struct cst_slab_file *f = cst_slab_get(v, entry->slot.slab, false, &rc);
	if (!f)
		return false;
	rc = cst_slot_identity(f->fd, &entry->slot, &id, &text);
	if (rc == 0)
		rc = id.name == entry->name && id.version == entry->version ? 0 : -EBADMSG;
	if (rc == 0)
		rc = cst_slot_read(f->fd, &entry->slot, &id, &iov, 1, false);
	cst_slab_put(v, f, rc != 0);
	if (rc != 0)
		return false;
	struct cst_wait w;
	cst_wait_init(&w);
	cst_volume_put(below->volume, &id, CST_VOLUME_CREATE, &iov, 1, cst_wait_opened, &w);
	rc = cst_wait_for(&w);
	if (rc == 0)
		cst_volume_entry_close(w.answer.handle);
	cst_cache_volume_error(below, rc, "copying an entry down");
	cst_wait_fini(&w);
	return rc == 0;
}

bool cst_tier_demote(void *volume, const struct cst_index_entry *entry)
{
	struct cst_cache_volume *v = volume;
	struct cst_cache *cache = v->cache;
	if (!__atomic_load_n(&cache->ready, __ATOMIC_ACQUIRE) || entry->cached == 0)
		return false;
	struct cst_cache_volume *below = volume_below(cache, v->level, entry->name, entry->size);
	if (!below || !wait_for_tokens(cst_cache_volume_level(below), entry->cached))
		return false;
	return entry->kind == CST_ENTRY_SLOT ? demote_slot(v, below, entry) : demote_extent(v, below, entry);
}

/* ---- promotion ---- */

struct promotion {
	struct cst_cache_object *o;
	struct cst_place *low, *high;
	struct cst_cache_volume *to;
};

static void promotion_end(struct promotion *p, bool moved)
{
	struct cst_cache_object *o = p->o;
	struct cst_cache *cache = o->cache;
	if (moved) {
		struct cst_level *level = cst_cache_volume_level(p->to);
		cst_count(level->counters.promoted, level->metrics.promoted, 1);
		cst_volume_touch(p->high->handle);
		/* Bytes are fine, only no longer wanted there: a descriptor that was lent out stays good. */
		cst_volume_drop_entry(p->low->handle);
		cst_object_detach(o, p->low);
	}
	if (p->high)
		cst_place_unref(p->high);
	cst_place_unref(p->low);
	free(p);
	pthread_mutex_lock(&o->lock);
	o->promoting = false;
	pthread_mutex_unlock(&o->lock);
	cst_cache_object_unref(o);
	pthread_mutex_lock(&cache->lock);
	cache->promoting--;
	pthread_cond_broadcast(&cache->quiet);
	pthread_mutex_unlock(&cache->lock);
}

static void promotion_completed(void *arg)
{
	struct promotion *p = arg;
	pthread_mutex_lock(&p->o->lock);
	bool complete = p->high->complete;
	pthread_mutex_unlock(&p->o->lock);
	promotion_end(p, complete);
}

static bool promote_slot(struct promotion *p)
{
	struct cst_cache_object *o = p->o;
	CST_AUTO_FREE char *memory = cst_xmalloc(o->id.size);
	struct iovec iov = {memory, o->id.size};
	if (cst_object_read_place(o, p->low, 0, &iov, 1, false) != 0)
		return false;
	struct cst_wait w;
	cst_wait_init(&w);
	cst_volume_put(p->to->volume, &o->id, CST_VOLUME_CREATE | (p->low->entry.pinned ? CST_VOLUME_PIN : 0), &iov, 1,
		       cst_wait_opened, &w);
	int rc = cst_wait_for(&w);
	if (rc == 0)
		p->high = cst_object_adopt(o, p->to, &w.answer);
	else
		cst_cache_volume_error(p->to, rc, "copying an entry up");
	cst_wait_fini(&w);
	return p->high;
}

/* Blocks from *at on that go up next, at most COPY_BLOCKS; *at moves to the first of them. */
static uint64_t next_run(struct promotion *p, uint64_t *at)
{
	struct cst_cache_object *o = p->o;
	uint64_t n = 0;
	pthread_mutex_lock(&o->lock);
	for (; *at < o->blocks; ++*at) {
		if (cst_place_has_locked(p->low, *at) && !cst_place_has_locked(p->high, *at))
			break;
	}
	while (n < COPY_BLOCKS && *at + n < o->blocks && cst_place_has_locked(p->low, *at + n) &&
	       !cst_place_has_locked(p->high, *at + n))
		n++;
	pthread_mutex_unlock(&o->lock);
	return n;
}

static bool promote_blocks(struct promotion *p)
{
	struct cst_cache_object *o = p->o;
	CST_AUTO_FREE char *memory = cst_xmalloc(COPY_BYTES);
	struct copy c = {.size = o->id.size, .memory = memory, .to_handle = p->high->handle};
	if (cst_place_files(p->low) != 0 || cst_place_files(p->high) != 0)
		return false;
	c.from = &p->low->extent;
	c.to = &p->high->extent;
	uint64_t n;
	for (uint64_t at = 0; (n = next_run(p, &at)) > 0; at += n) {
		if (__atomic_load_n(&o->cache->stopping, __ATOMIC_RELAXED) || cst_cache_volume_is_out(p->low->volume))
			return false;
		copy_run(&c, at, n);
		cst_cache_volume_error(p->low->volume, c.read_rc, "copying an entry up");
		cst_cache_volume_error(p->to, c.write_rc, "copying an entry up");
		if (c.read_rc != 0 || c.write_rc != 0)
			return false;
		pthread_mutex_lock(&o->lock);
		p->high->own += cst_place_add_locked(p->high, at, n);
		pthread_mutex_unlock(&o->lock);
	}
	return true;
}

/* True: promotion_end() comes later, with the completion. */
static bool promote_extent(struct promotion *p, bool *moved)
{
	struct cst_cache_object *o = p->o;
	struct cst_wait w;
	cst_wait_init(&w);
	cst_volume_entry_open(p->to->volume, &o->id, CST_VOLUME_CREATE | (p->low->entry.pinned ? CST_VOLUME_PIN : 0),
			      cst_wait_opened, &w);
	int rc = cst_wait_for(&w);
	if (rc == 0)
		p->high = cst_object_adopt(o, p->to, &w.answer);
	else
		cst_cache_volume_error(p->to, rc, "copying an entry up");
	cst_wait_fini(&w);
	if (!p->high)
		return false;
	*moved = promote_blocks(p);
	if (!*moved) {
		/* A part of it would only take room from others. */
		cst_object_forget(o, p->high);
		return false;
	}
	pthread_mutex_lock(&o->lock);
	bool whole = p->high->present == p->high->blocks && !p->high->complete;
	pthread_mutex_unlock(&o->lock);
	if (!whole)
		return false;
	cst_object_complete(o, p->high);
	cst_object_settle(o, promotion_completed, p);
	return true;
}

static void promote_run(void *arg)
{
	struct promotion *p = arg;
	bool moved = false;
	pthread_mutex_lock(&p->o->lock);
	bool current = p->o->places[p->low->volume->level] == p->low && !p->o->places[p->to->level];
	pthread_mutex_unlock(&p->o->lock);
	if (current && !__atomic_load_n(&p->o->cache->stopping, __ATOMIC_RELAXED)) {
		if (p->low->entry.kind == CST_ENTRY_SLOT)
			moved = promote_slot(p);
		else if (promote_extent(p, &moved))
			return;
	}
	promotion_end(p, moved);
}

/* Was the name read from below within the last `reach` bytes read there? Notes this reading. */
static bool ghost_seen_locked(struct cst_cache *cache, const struct cst_cache_identity *id, uint64_t reach)
{
	struct cst_ghost *g = &cache->ghosts[id->name % CST_GHOSTS];
	uint32_t tag = (uint32_t)(id->name >> 32) ^ (uint32_t)id->version;
	bool seen = g->at != 0 && g->tag == tag && cache->ghost_clock - g->at <= reach;
	cache->ghost_clock += id->size;
	*g = (struct cst_ghost){tag, cache->ghost_clock};
	return seen;
}

static void promote_start(struct cst_cache_object *o, struct cst_place *low, struct cst_cache_volume *to)
{
	struct cst_cache *cache = o->cache;
	pthread_mutex_lock(&o->lock);
	bool busy = o->promoting || o->places[to->level];
	if (!busy)
		o->promoting = true;
	pthread_mutex_unlock(&o->lock);
	bool start = false;
	pthread_mutex_lock(&cache->lock);
	if (!busy && !cache->stopping && cache->promoting < PROMOTING_MOST) {
		cache->promoting++;
		start = true;
	}
	pthread_mutex_unlock(&cache->lock);
	if (!start) {
		pthread_mutex_lock(&o->lock);
		o->promoting = o->promoting && busy;
		pthread_mutex_unlock(&o->lock);
		return;
	}
	struct promotion *p = CST_NEW(struct promotion);
	*p = (struct promotion){cst_cache_object_ref(o), cst_place_ref(low), NULL, to};
	cst_pool_submit(cache->background, promote_run, p);
}

void cst_tier_access(struct cst_cache_object *o, struct cst_place *p)
{
	struct cst_cache *cache = o->cache;
	cst_volume_touch(p->handle);
	if (p->volume->level == 0 || cache->policy == CST_CACHE_STREAM)
		return;
	struct cst_cache_volume *to = NULL;
	for (unsigned i = 0; i < p->volume->level && !to; i++) {
		struct cst_cache_volume *v = cst_level_choose(&cache->levels[i], o->id.name);
		if (v && cst_cache_volume_holds(v, o->id.size))
			to = v;
	}
	if (!to)
		return;
	pthread_mutex_lock(&cache->lock);
	/* What that level always keeps, however far it has just been emptied. */
	uint64_t reach = 0;
	for (unsigned i = 0; i < cache->levels[to->level].volume_count; i++)
		reach += (uint64_t)((double)cache->levels[to->level].volumes[i].quota * cache->levels[to->level].low);
	bool seen = ghost_seen_locked(cache, &o->id, reach);
	pthread_mutex_unlock(&cache->lock);
	/* What is promoted pushes others down. */
	if (seen && !cst_tier_is_behind(cache, to->level))
		promote_start(o, p, to);
}
