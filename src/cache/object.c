/* Object versions in use: the table of them, their entries in the levels, and the descriptors behind those.
 *
 * Life: open (all levels asked at once; whoever asks meanwhile waits with the first) → ready → last reference: out of the table → freed, on
 * a background thread when files are to be closed. */
#define CST_LOG_AREA "cache"
#include "base/clock.h"
#include "base/log.h"
#include "cache/cache_private.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define LOOK_NS CST_NS_PER_S

/* ---- places ---- */

struct cst_place *cst_place_ref(struct cst_place *p)
{
	cst_ref_get(&p->ref);
	return p;
}

void cst_place_unref(struct cst_place *p)
{
	CST_CHECK(p, CST_PLACE_MAGIC);
	if (!cst_ref_put(&p->ref))
		return;
	if (p->opened)
		cst_extent_close(&p->extent);
	cst_volume_entry_close(p->handle);
	pthread_mutex_destroy(&p->files);
	p->magic = 0;
	free(p->bits);
	free(p);
}

int cst_place_files(struct cst_place *p)
{
	if (__atomic_load_n(&p->opened, __ATOMIC_ACQUIRE))
		return 0;
	pthread_mutex_lock(&p->files);
	int rc = 0;
	if (!p->opened) {
		struct cst_extent e = {-1, -1, p->id->name, p->id->version, p->id->size};
		/* A complete file is never written to again. */
		rc = cst_extent_open(cst_volume_dir(p->volume->volume), p->id, !p->entry.complete, &e);
		if (rc == 0) {
			p->extent = e;
			__atomic_store_n(&p->opened, 1, __ATOMIC_RELEASE);
		}
	}
	pthread_mutex_unlock(&p->files);
	return rc;
}

bool cst_place_has_locked(const struct cst_place *p, uint64_t block)
{
	return !p->bits || (p->bits[block / 64] >> (block % 64) & 1);
}

uint64_t cst_place_run_locked(const struct cst_place *p, uint64_t block, uint64_t most, bool there)
{
	if (!p->bits)
		return there ? most : 0;
	for (uint64_t n = 0; n < most;) {
		uint64_t at = block + n, word = p->bits[at / 64] >> (at % 64);
		/* Ones where the run ends; the bits shifted in from above say nothing. */
		uint64_t ends = there ? ~word : word, left = 64 - at % 64;
		uint64_t alike = ends ? (uint64_t)__builtin_ctzll(ends) : 64;
		if (alike < left)
			return cst_min(n + alike, most);
		n += left;
	}
	return most;
}

uint64_t cst_place_add_locked(struct cst_place *p, uint64_t first, uint64_t count)
{
	uint64_t added = 0;
	if (!p->bits)
		return 0;
	for (uint64_t b = first; b < first + count; b++) {
		uint64_t bit = UINT64_C(1) << (b % 64);
		added += !(p->bits[b / 64] & bit);
		p->bits[b / 64] |= bit;
	}
	p->present += added;
	return added;
}

int cst_place_look(struct cst_cache_object *o, struct cst_place *p)
{
	int rc = cst_place_files(p);
	if (rc != 0)
		return rc;
	enum { STEP = 32768 };
	CST_AUTO_FREE uint8_t *bitmap = cst_xcalloc(1, STEP / 8);
	for (uint64_t first = 0; first < p->blocks; first += STEP) {
		uint64_t count = cst_min((uint64_t)STEP, p->blocks - first);
		memset(bitmap, 0, STEP / 8);
		rc = cst_extent_present(&p->extent, first, count, bitmap);
		if (rc != 0)
			return rc;
		pthread_mutex_lock(&o->lock);
		for (uint64_t i = 0; i < count; i++) {
			if (bitmap[i / 8] >> (i % 8) & 1)
				cst_place_add_locked(p, first + i, 1);
		}
		pthread_mutex_unlock(&o->lock);
	}
	return 0;
}

static struct cst_place *place_new(struct cst_cache_object *o, struct cst_cache_volume *v,
				   const struct cst_volume_answer *answer)
{
	struct cst_place *p = CST_NEW(struct cst_place);
	p->magic = CST_PLACE_MAGIC;
	cst_ref_init(&p->ref);
	p->volume = v;
	p->handle = answer->handle;
	p->entry = answer->entry;
	p->id = &o->id;
	p->extent = (struct cst_extent){.data = -1, .map = -1};
	p->blocks = o->blocks;
	p->complete = p->entry.kind == CST_ENTRY_SLOT || p->entry.complete;
	if (p->complete)
		p->present = p->blocks;
	else
		p->bits = cst_xcalloc((p->blocks + 63) / 64, sizeof(uint64_t));
	pthread_mutex_init(&p->files, NULL);
	return p;
}

/* ---- places of an object ---- */

void cst_object_detach(struct cst_cache_object *o, struct cst_place *p)
{
	pthread_mutex_lock(&o->lock);
	bool mine = o->places[p->volume->level] == p;
	if (mine)
		o->places[p->volume->level] = NULL;
	pthread_mutex_unlock(&o->lock);
	if (mine)
		cst_place_unref(p);
}

void cst_object_forget(struct cst_cache_object *o, struct cst_place *p)
{
	__atomic_store_n(&p->bad, 1, __ATOMIC_RELAXED);
	cst_volume_drop_entry(p->handle);
	cst_object_detach(o, p);
}

struct cst_place *cst_object_adopt(struct cst_cache_object *o, struct cst_cache_volume *v,
				   const struct cst_volume_answer *answer)
{
	struct cst_place *p = place_new(o, v, answer);
	/* What we have just made has no blocks. */
	int rc = p->complete || answer->created ? 0 : cst_place_look(o, p);
	if (rc != 0) {
		if (rc == -ENOENT || rc == -EBADMSG)
			cst_volume_drop_entry(p->handle);
		cst_cache_volume_error(v, rc, "reading a map");
		cst_place_unref(p);
		return NULL;
	}
	pthread_mutex_lock(&o->lock);
	struct cst_place *other = o->places[v->level];
	if (!other)
		o->places[v->level] = cst_place_ref(p);
	else
		cst_place_ref(other);
	if (!other && !answer->created)
		o->lap_pending = true;
	bool whole = !other && p->present == p->blocks && !p->complete;
	pthread_mutex_unlock(&o->lock);
	if (other) { /* asked for twice at once: one is enough */
		cst_place_unref(p);
		return other;
	}
	if (whole)
		cst_object_complete(o, p);
	return p;
}

struct cst_place *cst_object_find_locked(struct cst_cache_object *o, uint64_t block, uint64_t most, uint64_t *run)
{
	for (unsigned i = 0; i < o->cache->level_count; i++) {
		struct cst_place *p = o->places[i];
		if (!p || !cst_place_has_locked(p, block) || cst_cache_volume_is_out(p->volume))
			continue;
		*run = cst_place_run_locked(p, block, most, true);
		return p;
	}
	return NULL;
}

uint64_t cst_object_missing_locked(struct cst_cache_object *o, uint64_t block, uint64_t most)
{
	for (unsigned i = 0; i < o->cache->level_count && most > 0; i++) {
		struct cst_place *p = o->places[i];
		if (p && !cst_cache_volume_is_out(p->volume))
			most = cst_place_run_locked(p, block, most, false);
	}
	return most;
}

/* ---- the end of an object ---- */

static void object_destroy(void *arg)
{
	struct cst_cache_object *o = arg;
	struct cst_cache *cache = o->cache;
	if (o->file >= 0)
		close(o->file);
	if (o->file_place)
		cst_place_unref(o->file_place);
	for (unsigned i = 0; i < cache->level_count; i++) {
		if (o->places[i])
			cst_place_unref(o->places[i]);
	}
	CST_ASSERT(STAILQ_EMPTY(&o->saves) && STAILQ_EMPTY(&o->openers));
	pthread_mutex_destroy(&o->lock);
	o->magic = 0;
	free(o);
	pthread_mutex_lock(&cache->lock);
	cache->alive--;
	pthread_cond_broadcast(&cache->quiet);
	pthread_mutex_unlock(&cache->lock);
}

static struct cst_cache_object **table_find_locked(struct cst_cache *cache, const struct cst_cache_identity *id)
{
	struct cst_cache_object **at = &cache->table[(id->name ^ id->version) & cache->table_mask];
	for (; *at; at = &(*at)->hash_next) {
		struct cst_cache_identity *other = &(*at)->id;
		if (other->name == id->name && other->version == id->version && other->size == id->size &&
		    cst_slice_eq(other->key, id->key) && cst_slice_eq(other->etag, id->etag))
			break;
	}
	return at;
}

static void table_grow_locked(struct cst_cache *cache)
{
	size_t mask = cache->table_mask * 2 + 1;
	struct cst_cache_object **table = cst_xcalloc(mask + 1, sizeof(*table));
	for (size_t i = 0; i <= cache->table_mask; i++) {
		struct cst_cache_object *o = cache->table[i], *next;
		for (; o; o = next) {
			next = o->hash_next;
			struct cst_cache_object **at = &table[(o->id.name ^ o->id.version) & mask];
			o->hash_next = *at;
			*at = o;
		}
	}
	free(cache->table);
	cache->table = table;
	cache->table_mask = mask;
}

void cst_cache_object_unref(struct cst_cache_object *o)
{
	if (!o)
		return;
	CST_CHECK(o, CST_CACHE_OBJECT_MAGIC);
	int refs = __atomic_load_n(&o->refs, __ATOMIC_RELAXED);
	while (refs > 1) {
		if (__atomic_compare_exchange_n(&o->refs, &refs, refs - 1, true, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			return;
	}
	struct cst_cache *cache = o->cache;
	pthread_mutex_lock(&cache->lock);
	bool last = __atomic_sub_fetch(&o->refs, 1, __ATOMIC_ACQ_REL) == 0;
	bool files = false;
	if (last) {
		struct cst_cache_object **at = table_find_locked(cache, &o->id);
		CST_ASSERT(*at == o);
		*at = o->hash_next;
		cache->objects--;
		/* Closing a file that was unlinked frees its blocks, which takes time; whoever gives up an object may hold locks. */
		files = o->file >= 0 || o->file_place;
		for (unsigned i = 0; i < cache->level_count; i++)
			files = files || (o->places[i] && o->places[i]->opened);
	}
	pthread_mutex_unlock(&cache->lock);
	if (last && files)
		cst_pool_submit(cache->background, object_destroy, o);
	else if (last)
		object_destroy(o);
}

void cst_cache_object_hold(struct cst_cache_object *o)
{
	CST_CHECK(o, CST_CACHE_OBJECT_MAGIC);
	int before = __atomic_fetch_add(&o->refs, 1, __ATOMIC_RELAXED);
	CST_ASSERT(before > 0);
}

struct cst_cache_object *cst_cache_object_ref(struct cst_cache_object *o)
{
	cst_cache_object_hold(o);
	return o;
}

struct cst_fetch_local *cst_cache_object_local(struct cst_cache_object *o)
{
	CST_CHECK(o, CST_CACHE_OBJECT_MAGIC);
	return &o->local;
}

/* ---- opening ---- */

/* A volume's answer about one object, on its way to a thread that may read its map. */
struct lookup {
	struct cst_cache_object *o;
	struct cst_cache_volume *volume;
	struct cst_volume_answer answer;
};

static void lookups_done(struct cst_cache_object *o, unsigned count)
{
	if (__atomic_sub_fetch(&o->lookups, count, __ATOMIC_ACQ_REL) > 0)
		return;
	struct cst_cache *cache = o->cache;
	STAILQ_HEAD(, cst_open_waiter) openers = STAILQ_HEAD_INITIALIZER(openers);
	pthread_mutex_lock(&o->lock);
	bool again = o->ready;
	bool any = false;
	for (unsigned i = 0; i < cache->level_count; i++)
		any = any || o->places[i];
	o->ready = true;
	STAILQ_CONCAT(&openers, &o->openers);
	pthread_mutex_unlock(&o->lock);
	struct cst_open_waiter *w;
	while ((w = STAILQ_FIRST(&openers))) {
		STAILQ_REMOVE_HEAD(&openers, link);
		bool wanted = any || cache->policy != CST_CACHE_STREAM;
		w->fn(w->arg, wanted ? o : NULL);
		if (!wanted)
			cst_cache_object_unref(o);
		free(w);
	}
	if (again)
		__atomic_store_n(&o->looking, 0, __ATOMIC_RELEASE);
	cst_cache_object_unref(o); /* the lookups' own */
}

static void lookup_finish(void *arg)
{
	struct lookup *l = arg;
	struct cst_place *p = cst_object_adopt(l->o, l->volume, &l->answer);
	if (p)
		cst_place_unref(p);
	struct cst_cache_object *o = l->o;
	free(l);
	lookups_done(o, 1);
}

static void looked_up(void *arg, const struct cst_volume_answer *answer)
{
	struct lookup *l = arg;
	struct cst_cache_object *o = l->o;
	if (answer->rc != 0) {
		cst_cache_volume_error(l->volume, answer->rc, "looking for an entry");
		free(l);
		lookups_done(o, 1);
		return;
	}
	l->answer = *answer;
	/* Without a map to read there is nothing to wait for. */
	if (answer->entry.kind == CST_ENTRY_SLOT || answer->entry.complete)
		lookup_finish(l);
	else
		cst_pool_submit(cst_cache_volume_level(l->volume)->readers, lookup_finish, l);
}

/* Asks the volumes that would have the object for it. */
static void look_up(struct cst_cache_object *o)
{
	struct cst_cache *cache = o->cache;
	__atomic_store_n(&o->looked, cst_now(), __ATOMIC_RELAXED);
	unsigned count = cache->level_count + 1;
	__atomic_store_n(&o->lookups, count, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < cache->level_count; i++) {
		pthread_mutex_lock(&o->lock);
		bool there = o->places[i];
		pthread_mutex_unlock(&o->lock);
		struct cst_cache_volume *v = there ? NULL : cst_level_choose(&cache->levels[i], o->id.name);
		if (!v) {
			lookups_done(o, 1);
			continue;
		}
		struct lookup *l = CST_NEW(struct lookup);
		*l = (struct lookup){o, v, {0}};
		cst_volume_entry_open(v->volume, &o->id, 0, looked_up, l);
	}
	lookups_done(o, 1);
}

static struct cst_cache_object *object_new(struct cst_cache *cache, const struct cst_cache_identity *id)
{
	struct cst_cache_object *o = cst_xcalloc(1, sizeof(*o) + id->key.len + id->etag.len + 2);
	char *texts = (char *)(o + 1);
	o->magic = CST_CACHE_OBJECT_MAGIC;
	o->refs = 1;
	o->cache = cache;
	o->local.ops = &cst_object_local_ops;
	o->id = *id;
	if (id->key.len > 0)
		memcpy(texts, id->key.data, id->key.len);
	o->id.key.data = texts;
	memcpy(texts + id->key.len + 1, id->etag.data, id->etag.len);
	o->id.etag.data = texts + id->key.len + 1;
	o->blocks = (id->size + CST_CACHE_BLOCK - 1) / CST_CACHE_BLOCK;
	o->file = -1;
	pthread_mutex_init(&o->lock, NULL);
	STAILQ_INIT(&o->openers);
	STAILQ_INIT(&o->saves);
	STAILQ_INIT(&o->settlers);
	return o;
}

void cst_cache_open(struct cst_cache *cache, struct cst_slice key, const char *etag, uint64_t size,
		    cst_cache_open_fn fn, void *arg)
{
	CST_CHECK(cache, CST_CACHE_MAGIC);
	if (!etag || !*etag || size == 0) {
		fn(arg, NULL);
		return;
	}
	struct cst_cache_identity id;
	cst_cache_identify(&id, cst_slice_of(cache->bucket), key, cst_slice_of(etag), size);
	pthread_mutex_lock(&cache->lock);
	struct cst_cache_object **at = table_find_locked(cache, &id);
	struct cst_cache_object *o = *at;
	bool made = !o;
	if (made) {
		o = *at = object_new(cache, &id);
		cache->alive++;
		if (++cache->objects > cache->table_mask)
			table_grow_locked(cache);
	} else {
		__atomic_fetch_add(&o->refs, 1, __ATOMIC_RELAXED);
	}
	struct cst_open_waiter *w = NULL;
	pthread_mutex_lock(&o->lock);
	bool unready = !o->ready;
	if (unready) {
		w = CST_NEW(struct cst_open_waiter);
		*w = (struct cst_open_waiter){.fn = fn, .arg = arg};
		STAILQ_INSERT_TAIL(&o->openers, w, link);
	}
	bool empty = true;
	for (unsigned i = 0; i < cache->level_count; i++)
		empty = empty && !o->places[i];
	pthread_mutex_unlock(&o->lock);
	if (made)
		cst_cache_object_hold(o); /* for the lookups */
	pthread_mutex_unlock(&cache->lock);
	if (made)
		look_up(o);
	if (unready)
		return;
	if (empty && cache->policy == CST_CACHE_STREAM) {
		cst_cache_object_unref(o);
		o = NULL;
	}
	fn(arg, o);
}

/* ---- looking again: other processes, and tiers, bring in what was missing ---- */

static void look_again(void *arg)
{
	struct cst_cache_object *o = arg;
	struct cst_cache *cache = o->cache;
	for (unsigned i = 0; i < cache->level_count; i++) {
		pthread_mutex_lock(&o->lock);
		struct cst_place *p = o->places[i];
		bool partial = p && p->bits && p->present < p->blocks && !cst_cache_volume_is_out(p->volume);
		if (partial)
			cst_place_ref(p);
		pthread_mutex_unlock(&o->lock);
		if (!partial)
			continue;
		cst_place_look(o, p);
		cst_place_unref(p);
	}
	look_up(o); /* ends with our reference and `looking` */
}

void cst_object_look_again(struct cst_cache_object *o)
{
	int64_t now = cst_now();
	if (now - __atomic_load_n(&o->looked, __ATOMIC_RELAXED) < LOOK_NS ||
	    __atomic_load_n(&o->cache->stopping, __ATOMIC_RELAXED) ||
	    __atomic_exchange_n(&o->looking, 1, __ATOMIC_ACQ_REL))
		return;
	__atomic_store_n(&o->looked, now, __ATOMIC_RELAXED);
	cst_cache_object_hold(o);
	cst_pool_submit(o->cache->levels[0].readers, look_again, o);
}

/* ---- what others ask of an object ---- */

uint64_t cst_cache_object_cached(const struct cst_cache_object *object)
{
	CST_CHECK(object, CST_CACHE_OBJECT_MAGIC);
	struct cst_cache_object *o = cst_container_of(&object->magic, struct cst_cache_object, magic);
	uint64_t bytes = 0;
	pthread_mutex_lock(&o->lock);
	for (uint64_t b = 0, run = 1; b < o->blocks; b += run) {
		run = 1;
		if (cst_object_find_locked(o, b, o->blocks - b, &run))
			bytes += cst_min(o->id.size, (b + run) * CST_CACHE_BLOCK) - b * CST_CACHE_BLOCK;
	}
	pthread_mutex_unlock(&o->lock);
	return bytes;
}

/* The fastest complete file, referenced. */
static struct cst_place *complete_file_locked(struct cst_cache_object *o)
{
	for (unsigned i = 0; i < o->cache->level_count; i++) {
		struct cst_place *p = o->places[i];
		if (p && p->complete && p->entry.kind == CST_ENTRY_EXTENT && !cst_cache_volume_is_out(p->volume))
			return cst_place_ref(p);
	}
	return NULL;
}

/* Found damaged, dropped by whichever process, or on a disk that fails: some may still read through it; nobody new. */
static bool is_lent_no_more(const struct cst_place *p, int file)
{
	struct stat st;
	return __atomic_load_n(&p->bad, __ATOMIC_RELAXED) || cst_cache_volume_is_out(p->volume) ||
	       (file >= 0 && fstat(file, &st) == 0 && st.st_nlink == 0);
}

/* Whether files just opened by name are those of the place. While a process is cut off from the owner what it uses may be evicted, and made
 * anew by others: under the same name there are then files that lack blocks. */
static bool are_of_place(const struct cst_place *p, const struct cst_extent *e)
{
	struct stat mine, named;
	if (__atomic_load_n(&p->opened, __ATOMIC_ACQUIRE) && fstat(p->extent.data, &mine) == 0 &&
	    fstat(e->data, &named) == 0 && mine.st_ino == named.st_ino && mine.st_dev == named.st_dev)
		return true;
	uint64_t bytes;
	return cst_extent_count(e, &bytes) == 0 && bytes == e->size;
}

int cst_cache_object_file(struct cst_cache_object *o)
{
	CST_CHECK(o, CST_CACHE_OBJECT_MAGIC);
	pthread_mutex_lock(&o->lock);
	int file = o->file;
	struct cst_place *p = file >= 0 ? cst_place_ref(o->file_place) : complete_file_locked(o);
	pthread_mutex_unlock(&o->lock);
	if (p && is_lent_no_more(p, file)) {
		cst_place_unref(p);
		p = NULL;
	}
	if (!p)
		return -1;
	if (file < 0) {
		/* Its own descriptor: that of the place may be open for writing. */
		struct cst_extent e = {-1, -1, o->id.name, o->id.version, o->id.size};
		int rc = cst_extent_open(cst_volume_dir(p->volume->volume), p->id, false, &e);
		if (rc == 0 && !are_of_place(p, &e)) {
			/* Those are others'. */
			cst_extent_close(&e);
			cst_object_detach(o, p);
			cst_place_unref(p);
			return -1;
		}
		if (rc != 0) {
			if (rc == -ENOENT || rc == -EBADMSG)
				cst_object_forget(o, p);
			cst_cache_volume_error(p->volume, rc, "opening a complete file");
			cst_place_unref(p);
			return -1;
		}
		int mine = cst_steal_fd(&e.data);
		cst_extent_close(&e);
		pthread_mutex_lock(&o->lock);
		if (o->file < 0) {
			o->file = cst_steal_fd(&mine);
			o->file_place = cst_place_ref(p);
		}
		file = o->file;
		pthread_mutex_unlock(&o->lock);
		if (mine >= 0)
			close(mine);
	}
	/* Reads through it aren't seen; being asked for counts, however often one open asks. */
	int64_t now = cst_now(), before = __atomic_load_n(&o->file_at, __ATOMIC_RELAXED);
	if (now - before >= CST_NS_PER_S &&
	    __atomic_compare_exchange_n(&o->file_at, &before, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		cst_tier_access(o, p);
	cst_place_unref(p);
	return file;
}

void cst_object_aim(struct cst_cache_object *o, unsigned first_level, bool pin)
{
	struct cst_place *places[CST_CACHE_LEVELS] = {0};
	pthread_mutex_lock(&o->lock);
	o->first_level = first_level;
	o->pin = o->pin || pin;
	for (unsigned i = 0; pin && i < o->cache->level_count; i++) {
		if (o->places[i])
			places[i] = cst_place_ref(o->places[i]);
	}
	pthread_mutex_unlock(&o->lock);
	for (unsigned i = 0; i < CST_CACHE_LEVELS; i++) {
		if (!places[i])
			continue;
		cst_volume_set_pin(places[i]->volume->volume, &places[i]->entry, true);
		cst_place_unref(places[i]);
	}
}

void cst_object_settle(struct cst_cache_object *o, void (*fn)(void *arg), void *arg)
{
	struct cst_settle_waiter *w = CST_NEW(struct cst_settle_waiter);
	*w = (struct cst_settle_waiter){.fn = fn, .arg = arg};
	cst_object_write_begin(o);
	pthread_mutex_lock(&o->lock);
	STAILQ_INSERT_TAIL(&o->settlers, w, link);
	pthread_mutex_unlock(&o->lock);
	cst_object_write_end(o);
}

void cst_object_write_begin(struct cst_cache_object *o)
{
	pthread_mutex_lock(&o->lock);
	o->writing++;
	pthread_mutex_unlock(&o->lock);
}

void cst_object_write_end(struct cst_cache_object *o)
{
	STAILQ_HEAD(, cst_settle_waiter) settled = STAILQ_HEAD_INITIALIZER(settled);
	pthread_mutex_lock(&o->lock);
	CST_ASSERT(o->writing > 0);
	if (--o->writing == 0)
		STAILQ_CONCAT(&settled, &o->settlers);
	pthread_mutex_unlock(&o->lock);
	struct cst_settle_waiter *w;
	while ((w = STAILQ_FIRST(&settled))) {
		STAILQ_REMOVE_HEAD(&settled, link);
		w->fn(w->arg);
		free(w);
	}
}
