/* Listing a directory once more: see relist.h. */
#include "meta/relist.h"

#include "meta/internal.h"

#define BATCH 1000
#define NAME_ROOM 256 /* longer names are not shown */

struct cst_relist {
	unsigned magic;
	struct cst_relist_config config;
	struct cst_listing *old;   /* counted; NULL: there was none */
	struct cst_listing *fresh; /* opened */
	struct cst_listing_wait wait;
	size_t next, gone; /* how far both have been compared */
	unsigned batch;
	bool compared;
	struct cst_buf doubted; /* names, each ended by a NUL; the directory's lock */
	LIST_ENTRY(cst_relist) link;
};
#define RELIST_MAGIC 0x3e115701u

static void page_came(struct cst_listing_wait *wait)
{
	struct cst_relist *r = cst_container_of(wait, struct cst_relist, wait);
	r->config.ready(r->config.arg);
}

struct cst_relist *cst_relist_start(const struct cst_relist_config *config)
{
	struct cst_relist *r = CST_NEW(struct cst_relist);
	struct cst_dir *dir = config->dir;
	r->magic = RELIST_MAGIC;
	r->config = *config;
	r->wait.done = page_came;
	cst_dir_ref(dir);
	pthread_mutex_lock(&dir->lock);
	r->old = dir->listing;
	if (r->old)
		cst_listing_ref_locked(r->old);
	r->fresh = cst_listing_new_locked(dir, 1);
	r->fresh->readers = 1;
	LIST_INSERT_HEAD(&dir->relists, r, link);
	pthread_mutex_unlock(&dir->lock);
	cst_listing_kick(r->fresh);
	return r;
}

void cst_relist_free(struct cst_relist *r)
{
	if (!r)
		return;
	CST_CHECK(r, RELIST_MAGIC);
	struct cst_dir *dir = r->config.dir;
	pthread_mutex_lock(&dir->lock);
	LIST_REMOVE(r, link);
	pthread_mutex_unlock(&dir->lock);
	cst_listing_unref(r->old);
	cst_listing_close(r->fresh); /* and the directory */
	cst_buf_fini(&r->doubted);
	r->magic = 0;
	free(r);
}

void cst_relist_doubt_locked(struct cst_dir *dir, struct cst_slice name, int64_t at)
{
	struct cst_relist *r;
	LIST_FOREACH (r, &dir->relists, link) {
		if (at < r->fresh->started)
			continue;
		cst_buf_add_slice(&r->doubted, name);
		cst_buf_add_char(&r->doubted, '\0');
	}
}

static bool is_same(const struct cst_name_view *a, const struct cst_name_view *b)
{
	if (a->kind != b->kind || a->kind == CST_KIND_DIR)
		return a->kind == b->kind;
	return a->type == b->type && a->size == b->size && a->mtime == b->mtime && strcmp(a->etag, b->etag) == 0;
}

static bool compare(void *arg, size_t i, const struct cst_name_view *view, struct cst_object_attr *attr, int64_t at)
{
	struct cst_relist *r = arg;
	struct cst_name_view was;
	size_t place;
	(void)i;
	(void)attr;
	(void)at;
	if (r->batch++ == BATCH)
		return false;
	if (!r->old)
		return true;
	if (cst_names_find(&r->old->names, view->name, &place) == CST_NAMES_ABSENT) {
		r->config.news(r->config.arg, CST_NEWS_NEW, view->name);
		return true;
	}
	/* Of what was doubtful something newer is known than the listing says. */
	if (place == SIZE_MAX || cst_names_flags(&r->old->names, place) & CST_NAME_DOUBTFUL)
		return true;
	cst_names_get(&r->old->names, place, &was);
	if (!is_same(&was, view))
		r->config.news(r->config.arg, CST_NEWS_CHANGED, view->name);
	return true;
}

/* Names that the earlier listing had and the new one doesn't. True: there are more to look at. */
static bool find_gone(struct cst_relist *r)
{
	struct cst_dir *dir = r->config.dir;
	size_t place;
	pthread_mutex_lock(&dir->lock);
	size_t count = r->old ? r->old->names.sealed : 0, end = cst_min(count, r->gone + BATCH);
	for (; r->gone < end; r->gone++) {
		struct cst_name_view was;
		if (cst_names_flags(&r->old->names, r->gone) & CST_NAME_HIDDEN)
			continue;
		cst_names_get(&r->old->names, r->gone, &was);
		if (cst_names_find(&r->fresh->names, was.name, &place) == CST_NAMES_ABSENT)
			r->config.news(r->config.arg, CST_NEWS_GONE, was.name);
	}
	pthread_mutex_unlock(&dir->lock);
	return end < count;
}

static void doubt_what_is_newer_locked(struct cst_relist *r)
{
	struct cst_slice rest = cst_buf_slice(&r->doubted);
	size_t place;
	while (rest.len > 0) {
		struct cst_slice name = cst_slice_cut(&rest, '\0');
		if (cst_names_find(&r->fresh->names, name, &place) == CST_NAMES_FOUND)
			cst_names_doubt(&r->fresh->names, place);
	}
}

static void take_place(struct cst_relist *r)
{
	struct cst_dir *dir = r->config.dir;
	struct cst_listing *fresh = r->fresh;
	pthread_mutex_lock(&dir->lock);
	const struct cst_listing *now = dir->listing;
	/* Another relist may have been quicker. */
	bool newer = now && now->started > fresh->started && now->names.complete;
	if (!newer) {
		doubt_what_is_newer_locked(r);
		cst_listing_make_current_locked(dir, fresh);
	}
	uint64_t bytes = cst_names_bytes(&fresh->names) + sizeof(*fresh) + sizeof(*dir);
	uint64_t names = fresh->names.sealed;
	pthread_mutex_unlock(&dir->lock);
	if (newer)
		return;
	cst_dir_advance_probes(dir);
	cst_meta_touch(dir->meta, fresh, bytes, names);
}

int cst_relist_step(struct cst_relist *r, struct cst_error *err)
{
	CST_CHECK(r, RELIST_MAGIC);
	if (!r->compared) {
		r->batch = 0;
		int rc = cst_listing_read(r->fresh, r->next, &r->next, &r->wait, compare, r, err);
		if (rc != -ENOENT)
			return rc == 0 ? 1 : rc;
		r->compared = true;
	}
	if (find_gone(r))
		return 1;
	take_place(r);
	return 0;
}

bool cst_relist_leave(struct cst_relist *r)
{
	return cst_listing_leave(r->fresh, &r->wait);
}

int64_t cst_relist_started(const struct cst_relist *r)
{
	return r->fresh->started;
}

bool cst_relist_each(struct cst_relist *r, size_t *next,
		     void (*each)(void *arg, const char *name, const struct cst_entry *entry, bool known), void *arg)
{
	pthread_mutex_t *lock = &r->config.dir->lock;
	const struct cst_names *names = &r->fresh->names;
	for (unsigned n = 0; n < BATCH; n++, (*next)++) {
		char name[NAME_ROOM];
		struct cst_name_view view;
		CST_AUTO_ENTRY entry = CST_ENTRY_INIT;
		pthread_mutex_lock(lock);
		bool ended = *next >= names->sealed;
		bool hidden = !ended && cst_names_flags(names, *next) & (CST_NAME_HIDDEN | CST_NAME_DOUBTFUL);
		bool known = !ended && !hidden && cst_listing_entry_locked(r->fresh, *next, &entry);
		if (!ended && !hidden) {
			cst_names_get(names, *next, &view);
			memcpy(name, view.name.data, view.name.len);
			name[view.name.len] = 0;
		}
		pthread_mutex_unlock(lock);
		if (ended)
			return false;
		if (!hidden)
			each(arg, name, &entry, known);
	}
	return true;
}

bool cst_relist_covered(struct cst_relist *r, struct cst_slice name)
{
	size_t place;
	pthread_mutex_lock(&r->config.dir->lock);
	bool covered = r->old && cst_names_find(&r->old->names, name, &place) != CST_NAMES_UNKNOWN;
	pthread_mutex_unlock(&r->config.dir->lock);
	return covered;
}

int cst_dir_peek(struct cst_dir *dir, const char *name, struct cst_entry *entry)
{
	size_t place = SIZE_MAX;
	int rc = -EAGAIN;
	*entry = (struct cst_entry)CST_ENTRY_INIT;
	pthread_mutex_lock(&dir->lock);
	if (dir->listing) {
		enum cst_names_found found = cst_names_find(&dir->listing->names, cst_slice_of(name), &place);
		if (found == CST_NAMES_ABSENT)
			rc = -ENOENT;
		else if (place != SIZE_MAX) {
			cst_listing_entry_locked(dir->listing, place, entry);
			cst_object_attr_unref(entry->attr);
			entry->attr = NULL;
			rc = 0;
		}
	}
	pthread_mutex_unlock(&dir->lock);
	return rc;
}

void cst_dir_forget(struct cst_dir *dir)
{
	pthread_mutex_lock(&dir->lock);
	cst_listing_make_current_locked(dir, NULL);
	pthread_mutex_unlock(&dir->lock);
	cst_dir_advance_probes(dir);
}

bool cst_dir_is_asking(struct cst_dir *dir)
{
	pthread_mutex_lock(&dir->lock);
	bool asking = !TAILQ_EMPTY(&dir->probes);
	pthread_mutex_unlock(&dir->lock);
	return asking;
}
