/* Directories that nobody has, whose listings wait for who does; and which preloads are under way. */
#include "meta/preload_private.h"

#include <xxhash.h>

static size_t slot_of(const struct cst_preloads *s, struct cst_slice prefix)
{
	return XXH3_64bits(prefix.data, prefix.len) & (s->size - 1);
}

static void grow_locked(struct cst_preloads *s)
{
	size_t old_size = s->size;
	struct cst_dir **old = s->table, *dir;
	s->size = old_size ? old_size * 2 : 64;
	s->table = cst_xcalloc(s->size, sizeof(struct cst_dir *));
	for (size_t i = 0; i < old_size; i++) {
		while ((dir = old[i]) != NULL) {
			size_t slot = slot_of(s, cst_dir_prefix(dir));
			old[i] = dir->parked_next;
			dir->parked_next = s->table[slot];
			s->table[slot] = dir;
		}
	}
	free(old);
}

/* Takes it out; the table's reference is the caller's then. */
static struct cst_dir *take_locked(struct cst_preloads *s, struct cst_dir **at)
{
	struct cst_dir *dir = *at;
	*at = dir->parked_next;
	dir->parked_next = NULL;
	dir->parked = false;
	s->count--;
	return dir;
}

static struct cst_dir *take_prefix_locked(struct cst_preloads *s, struct cst_slice prefix)
{
	if (s->count == 0)
		return NULL;
	struct cst_dir **at = &s->table[slot_of(s, prefix)];
	while (*at && !cst_slice_eq(cst_dir_prefix(*at), prefix))
		at = &(*at)->parked_next;
	return *at ? take_locked(s, at) : NULL;
}

/* The caller's reference becomes the table's; returns the one that was there, or NULL; or the directory itself, if what was asked for then is not to be
 * put in place. */
static struct cst_dir *park(struct cst_meta *meta, struct cst_dir *dir, int64_t started)
{
	struct cst_preloads *s = &meta->preloads;
	pthread_mutex_lock(&s->lock);
	if (started <= __atomic_load_n(&s->barrier, __ATOMIC_ACQUIRE)) {
		pthread_mutex_unlock(&s->lock);
		return dir;
	}
	struct cst_dir *before = take_prefix_locked(s, cst_dir_prefix(dir));
	if (s->count >= s->size)
		grow_locked(s);
	size_t slot = slot_of(s, cst_dir_prefix(dir));
	dir->parked_next = s->table[slot];
	s->table[slot] = dir;
	dir->parked = true;
	s->count++;
	pthread_mutex_unlock(&s->lock);
	return before;
}

struct cst_dir *cst_dir_get(struct cst_meta *meta, struct cst_slice prefix)
{
	pthread_mutex_lock(&meta->preloads.lock);
	struct cst_dir *dir = take_prefix_locked(&meta->preloads, prefix);
	pthread_mutex_unlock(&meta->preloads.lock);
	return dir ? dir : cst_dir_new(meta, prefix);
}

bool cst_dir_is_listed(struct cst_dir *dir)
{
	pthread_mutex_lock(&dir->lock);
	bool listed = dir->listing && dir->listing->names.complete && cst_listing_is_fresh_locked(dir->listing);
	pthread_mutex_unlock(&dir->lock);
	return listed;
}

void cst_dir_park(struct cst_dir *dir)
{
	pthread_mutex_lock(&dir->lock);
	const struct cst_listing *l = dir->listing;
	bool keep = l && !l->running && l->names.complete && cst_listing_is_fresh_locked(l) && !dir->owns;
	if (keep)
		dir->listing->told = false;
	pthread_mutex_unlock(&dir->lock);
	if (!keep || cst_meta_is_stopping(dir->meta))
		return;
	cst_dir_unref(park(dir->meta, cst_dir_ref(dir), INT64_MAX));
}

void cst_parked_forget(struct cst_dir *dir)
{
	struct cst_preloads *s = &dir->meta->preloads;
	struct cst_dir *taken = NULL;
	pthread_mutex_lock(&s->lock);
	if (dir->parked) {
		struct cst_dir **at = &s->table[slot_of(s, cst_dir_prefix(dir))];
		while (*at && *at != dir)
			at = &(*at)->parked_next;
		taken = *at ? take_locked(s, at) : NULL;
	}
	pthread_mutex_unlock(&s->lock);
	cst_dir_unref(taken);
}

void cst_preloads_doubt(struct cst_meta *meta)
{
	__atomic_store_n(&meta->preloads.barrier, cst_meta_now(meta), __ATOMIC_RELEASE);
}

void cst_parked_doubt(struct cst_meta *meta, struct cst_slice prefix)
{
	cst_preloads_doubt(meta);
	pthread_mutex_lock(&meta->preloads.lock);
	struct cst_dir *dir = take_prefix_locked(&meta->preloads, prefix);
	pthread_mutex_unlock(&meta->preloads.lock);
	cst_dir_unref(dir);
}

void cst_parked_drop(struct cst_meta *meta, struct cst_slice prefix)
{
	struct cst_preloads *s = &meta->preloads;
	struct cst_dir *dropped = NULL;
	cst_preloads_doubt(meta);
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; s->count > 0 && i < s->size; i++) {
		struct cst_dir **at = &s->table[i];
		while (*at) {
			if (!cst_slice_starts(cst_dir_prefix(*at), prefix)) {
				at = &(*at)->parked_next;
				continue;
			}
			struct cst_dir *dir = take_locked(s, at);
			dir->parked_next = dropped;
			dropped = dir;
		}
	}
	pthread_mutex_unlock(&s->lock);
	while (dropped) {
		struct cst_dir *next = dropped->parked_next;
		dropped->parked_next = NULL;
		cst_dir_unref(dropped);
		dropped = next;
	}
}

bool cst_preload_install(struct cst_meta *meta, struct cst_slice prefix, struct cst_names *names,
			 struct cst_installed *what)
{
	bool old = what->started <= __atomic_load_n(&meta->preloads.barrier, __ATOMIC_ACQUIRE) ||
		   cst_meta_now(meta) - what->refreshed >= meta->config.list_ttl;
	bool installed = false;
	if (!old && what->dir) {
		installed = cst_dir_install(what->dir, names, what);
	} else if (!old) {
		struct cst_dir *dir = cst_dir_get(meta, prefix);
		installed = cst_dir_install(dir, names, what);
		cst_dir_unref(park(meta, dir, what->started));
	}
	cst_names_fini(names);
	return installed;
}

/* ---- preloads under way ---- */

void cst_preloads_init(struct cst_meta *meta)
{
	pthread_mutex_init(&meta->preloads.lock, NULL);
	TAILQ_INIT(&meta->preloads.active);
	meta->preloads.barrier = INT64_MIN;
}

void cst_preloads_fini(struct cst_meta *meta)
{
	CST_ASSERT(TAILQ_EMPTY(&meta->preloads.active) && meta->preloads.count == 0);
	free(meta->preloads.table);
	pthread_mutex_destroy(&meta->preloads.lock);
}

void cst_preloads_add(struct cst_meta *meta, struct cst_preload *p)
{
	pthread_mutex_lock(&meta->preloads.lock);
	p->id = ++meta->preloads.last_id ? meta->preloads.last_id : ++meta->preloads.last_id;
	TAILQ_INSERT_TAIL(&meta->preloads.active, p, link);
	p->listed = true;
	__atomic_fetch_add(&meta->preloads.active_count, 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&meta->preloads.lock);
}

void cst_preloads_remove(struct cst_meta *meta, struct cst_preload *p)
{
	pthread_mutex_lock(&meta->preloads.lock);
	if (p->listed) {
		TAILQ_REMOVE(&meta->preloads.active, p, link);
		__atomic_fetch_sub(&meta->preloads.active_count, 1, __ATOMIC_RELAXED);
	}
	p->listed = false;
	pthread_mutex_unlock(&meta->preloads.lock);
}

void cst_preloads_stop(struct cst_meta *meta)
{
	struct cst_preload *p;
	do {
		pthread_mutex_lock(&meta->preloads.lock);
		TAILQ_FOREACH (p, &meta->preloads.active, link)
			if (!__atomic_load_n(&p->stopped, __ATOMIC_ACQUIRE))
				break;
		if (p)
			cst_ref_get(&p->ref);
		pthread_mutex_unlock(&meta->preloads.lock);
		if (p)
			cst_preload_cancel(p);
		cst_preload_unref(p);
	} while (p);
}

bool cst_preload_join(struct cst_dir *dir, struct cst_listing *listing)
{
	struct cst_meta *meta = dir->meta;
	struct cst_preload *p;
	bool joined = false;
	if (!__atomic_load_n(&meta->preloads.active_count,
			     __ATOMIC_RELAXED)) /* who looks a moment too early sends a request */
		return false;
	pthread_mutex_lock(&meta->preloads.lock);
	TAILQ_FOREACH (p, &meta->preloads.active, link)
		if (!joined)
			joined = cst_preload_try_join(p, dir, listing);
	pthread_mutex_unlock(&meta->preloads.lock);
	return joined;
}

bool cst_preload_is_covered(struct cst_meta *meta, struct cst_slice prefix)
{
	struct cst_preload *p;
	pthread_mutex_lock(&meta->preloads.lock);
	TAILQ_FOREACH (p, &meta->preloads.active, link)
		if (!__atomic_load_n(&p->stopped, __ATOMIC_ACQUIRE) && !cst_preload_is_idle(p) &&
		    cst_preload_covers(p, prefix))
			break;
	pthread_mutex_unlock(&meta->preloads.lock);
	return p != NULL;
}

void cst_preload_hit(struct cst_meta *meta, uint32_t id)
{
	struct cst_preload *p;
	pthread_mutex_lock(&meta->preloads.lock);
	TAILQ_FOREACH (p, &meta->preloads.active, link)
		if (p->id == id)
			break;
	if (p)
		cst_ref_get(&p->ref);
	pthread_mutex_unlock(&meta->preloads.lock);
	if (p)
		cst_preload_was_hit(p);
	cst_preload_unref(p);
}
