/* Listing a directory once more: see relist.h. */
#include "meta/relist.h"

#include "meta/own.h"

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
	(void)i;
	(void)attr;
	(void)at;
	if (r->batch++ == BATCH)
		return false;
	if (!r->old)
		return true;
	switch (cst_own_find_shown_locked(r->old, view->name, &was)) {
	case CST_NAMES_FOUND:
		if (!is_same(&was, view))
			r->config.news(r->config.arg, CST_NEWS_CHANGED, view->name);
		break;
	case CST_NAMES_ABSENT:
		r->config.news(r->config.arg, CST_NEWS_NEW, view->name);
		break;
	default: /* not reached; or doubtful: something newer is known of it than the listing says */
		break;
	}
	return true;
}

/* Names that the earlier listing had and the new one doesn't. True: there are more to look at. */
static bool find_gone(struct cst_relist *r)
{
	struct cst_dir *dir = r->config.dir;
	pthread_mutex_lock(&dir->lock);
	size_t count = r->old ? r->old->names.sealed : 0, end = cst_min(count, r->gone + BATCH);
	for (; r->gone < end; r->gone++) {
		struct cst_name_view was, is;
		struct cst_object_attr *attr;
		int64_t at;
		if (cst_own_shown_locked(r->old, r->gone, &was, &attr, &at) &&
		    cst_own_find_shown_locked(r->fresh, was.name, &is) == CST_NAMES_ABSENT)
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
	bool newer = (now && now->started > fresh->started && now->names.complete) || fresh->moved; /* moved just now */
	if (!newer) {
		doubt_what_is_newer_locked(r);
		cst_listing_make_current_locked(dir, fresh);
		cst_own_sweep_locked(dir);
	}
	uint64_t bytes = cst_listing_bytes_locked(fresh);
	uint64_t names = fresh->names.sealed;
	pthread_mutex_unlock(&dir->lock);
	if (newer)
		return;
	cst_dir_advance_probes(dir);
	cst_meta_touch(dir->meta, fresh, bytes, names);
}

static bool has_moved(struct cst_relist *r)
{
	pthread_mutex_lock(&r->config.dir->lock);
	bool moved = r->fresh->moved;
	pthread_mutex_unlock(&r->config.dir->lock);
	return moved;
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
	if (has_moved(r)) {
		cst_error_set(err, ESTALE, "can't refresh a directory");
		cst_error_why(err, "it has been renamed meanwhile");
		return -ESTALE;
	}
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
		const struct cst_own *own;
		bool ended = *next >= names->sealed;
		bool hidden = !ended && cst_names_flags(names, *next) & (CST_NAME_HIDDEN | CST_NAME_DOUBTFUL);
		if (!ended && !hidden) {
			cst_names_get(names, *next, &view);
			/* Of one's own changes newer things are known. */
			hidden = cst_own_says_locked(r->config.dir, r->fresh, view.name, &own) != CST_OWN_NOTHING;
		}
		bool known = !ended && !hidden && cst_listing_entry_locked(r->fresh, *next, &entry);
		if (!ended && !hidden) {
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
	struct cst_name_view view;
	pthread_mutex_lock(&r->config.dir->lock);
	bool covered = r->old && cst_own_find_shown_locked(r->old, name, &view) != CST_NAMES_UNKNOWN;
	pthread_mutex_unlock(&r->config.dir->lock);
	return covered;
}

int cst_dir_peek(struct cst_dir *dir, const char *name, struct cst_entry *entry)
{
	size_t place = SIZE_MAX;
	int rc = -EAGAIN;
	*entry = (struct cst_entry)CST_ENTRY_INIT;
	const struct cst_own *own;
	pthread_mutex_lock(&dir->lock);
	enum cst_own_says says = cst_own_says_locked(dir, dir->listing, cst_slice_of(name), &own);
	if (says == CST_OWN_GONE) {
		rc = -ENOENT;
	} else if (says == CST_OWN_PRESENT) {
		cst_own_entry(own, entry);
		cst_entry_fini(entry);
		rc = 0;
	} else if (dir->listing && says == CST_OWN_NOTHING) {
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
