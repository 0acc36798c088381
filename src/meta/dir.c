/* Directories and their listings: see dir.h. Asking for single names is in probe.c. */
#include "meta/own.h"
#include "meta/preload.h"

#include <sys/stat.h>
#include <xxhash.h>

struct page_op {
	struct cst_meta_op op;
	struct cst_listing *listing; /* counted, and so is its directory */
	struct cst_prefix *prefix;   /* counted: the directory's when it was asked */
	struct cst_buf token;
	struct cst_buf after; /* in place of a token: the key to go on after */
};

static void page_op_free(struct page_op *page)
{
	cst_buf_fini(&page->token);
	cst_buf_fini(&page->after);
	cst_prefix_unref(page->prefix);
	free(page);
}

static struct cst_prefix *prefix_new(struct cst_slice text)
{
	struct cst_prefix *prefix = cst_xmalloc(sizeof(*prefix) + text.len + 1);
	cst_ref_init(&prefix->ref);
	prefix->len = text.len;
	if (text.len > 0)
		memcpy(prefix->text, text.data, text.len);
	prefix->text[text.len] = 0;
	return prefix;
}

struct cst_dir *cst_dir_new(struct cst_meta *meta, struct cst_slice prefix)
{
	struct cst_dir *dir = CST_NEW(struct cst_dir);
	dir->magic = CST_DIR_MAGIC;
	cst_ref_init(&dir->ref);
	dir->meta = meta;
	pthread_mutex_init(&dir->lock, NULL);
	TAILQ_INIT(&dir->probes);
	LIST_INIT(&dir->relists);
	LIST_INIT(&dir->all);
	dir->last_miss = INT64_MIN / 2;
	dir->moved_at = dir->changed_at = INT64_MIN; /* what a snapshot has may be older than the clock */
	dir->prefix = prefix_new(prefix);
	return dir;
}

struct cst_dir *cst_dir_ref(struct cst_dir *dir)
{
	CST_CHECK(dir, CST_DIR_MAGIC);
	cst_ref_get(&dir->ref);
	return dir;
}

struct cst_dir *cst_dir_try_ref(struct cst_dir *dir)
{
	int count = __atomic_load_n(&dir->ref.count, __ATOMIC_RELAXED);
	while (count > 0) {
		if (__atomic_compare_exchange_n(&dir->ref.count, &count, count + 1, true, __ATOMIC_RELAXED,
						__ATOMIC_RELAXED))
			return dir;
	}
	return NULL;
}

static void listing_free(struct cst_listing *listing)
{
	while (listing) {
		struct cst_listing *before = listing->before;
		CST_CHECK(listing, CST_LISTING_MAGIC);
		CST_ASSERT(TAILQ_EMPTY(&listing->waits) && !listing->in_lru);
		LIST_REMOVE(listing, of_dir);
		cst_names_fini(&listing->names);
		cst_buf_fini(&listing->token);
		listing->magic = 0;
		free(listing);
		listing = before && --before->refs == 0 ? before : NULL;
	}
}

void cst_dir_unref(struct cst_dir *dir)
{
	if (!dir)
		return;
	CST_CHECK(dir, CST_DIR_MAGIC);
	if (!cst_ref_put(&dir->ref))
		return;
	CST_ASSERT(TAILQ_EMPTY(&dir->probes));
	if (dir->listing) {
		cst_meta_untrack(dir->meta, dir->listing);
		CST_ASSERT(dir->listing->refs == 1);
		listing_free(dir->listing);
	}
	if (dir->owns || dir->changed_at > INT64_MIN)
		cst_parked_doubt(dir->meta, cst_dir_prefix(dir));
	cst_own_free_locked(dir);
	/* A thread that gives up old listings may just be looking at this directory under meta's lock. */
	pthread_mutex_lock(&dir->meta->lock);
	pthread_mutex_unlock(&dir->meta->lock);
	pthread_mutex_destroy(&dir->lock);
	cst_prefix_unref(dir->prefix);
	dir->magic = 0;
	free(dir);
}

struct cst_slice cst_dir_prefix(const struct cst_dir *dir)
{
	return cst_prefix_slice(dir->prefix);
}

void cst_dir_add_prefix(struct cst_dir *dir, struct cst_buf *out)
{
	pthread_mutex_lock(&dir->lock);
	cst_buf_add_slice(out, cst_prefix_slice(dir->prefix));
	pthread_mutex_unlock(&dir->lock);
}

bool cst_dir_has_prefix(struct cst_dir *dir, struct cst_slice prefix)
{
	pthread_mutex_lock(&dir->lock);
	bool has = cst_slice_eq(cst_prefix_slice(dir->prefix), prefix);
	pthread_mutex_unlock(&dir->lock);
	return has;
}

void cst_listing_ref_locked(struct cst_listing *listing)
{
	CST_CHECK(listing, CST_LISTING_MAGIC);
	listing->refs++;
}

void cst_listing_unref(struct cst_listing *listing)
{
	if (!listing)
		return;
	CST_CHECK(listing, CST_LISTING_MAGIC);
	pthread_mutex_t *lock = &listing->dir->lock;
	pthread_mutex_lock(lock);
	bool last = --listing->refs == 0;
	if (last)
		listing_free(listing);
	pthread_mutex_unlock(lock);
}

/* The directory forgets its current listing; readers keep theirs. The lock is held. */
static void detach_listing_locked(struct cst_dir *dir)
{
	struct cst_listing *listing = dir->listing;
	if (!listing)
		return;
	dir->listing = NULL;
	cst_meta_untrack(dir->meta, listing);
	if (--listing->refs == 0)
		listing_free(listing);
}

bool cst_dir_drop_listing(struct cst_dir *dir, const struct cst_listing *listing)
{
	pthread_mutex_lock(&dir->lock);
	bool drop = dir->listing == listing && listing->readers == 0 && !listing->running && !listing->joined &&
		    TAILQ_EMPTY(&dir->probes);
	if (drop)
		detach_listing_locked(dir);
	pthread_mutex_unlock(&dir->lock);
	return drop;
}

bool cst_listing_is_fresh_locked(const struct cst_listing *listing)
{
	if (!listing || listing->rc < 0)
		return false;
	return listing->running ||
	       cst_meta_now(listing->dir->meta) - listing->refreshed < listing->dir->meta->config.list_ttl;
}

uint64_t cst_listing_bytes_locked(const struct cst_listing *listing)
{
	const struct cst_dir *dir = listing->dir;
	uint64_t own = dir->listing == listing ? cst_own_bytes_locked(dir) : 0;
	return cst_names_bytes(&listing->names) + sizeof(*listing) + sizeof(*dir) + own;
}

struct cst_listing *cst_listing_new_locked(struct cst_dir *dir, unsigned wanted_pages)
{
	struct cst_meta *meta = dir->meta;
	struct cst_listing *listing = CST_NEW(struct cst_listing), *old = dir->listing;
	listing->magic = CST_LISTING_MAGIC;
	listing->dir = dir;
	listing->refs = 1;
	listing->wanted_pages = wanted_pages;
	listing->number = ++dir->listings;
	listing->started = listing->refreshed = cst_meta_now(meta);
	TAILQ_INIT(&listing->waits);
	LIST_INSERT_HEAD(&dir->all, listing, of_dir);
	cst_own_begin_listing_locked(listing);
	if (old && meta->config.attributes_object && old->names.attr_count > 0) {
		old->refs++;
		listing->before = old;
	}
	return listing;
}

void cst_listing_make_current_locked(struct cst_dir *dir, struct cst_listing *listing)
{
	struct cst_meta *meta = dir->meta;
	if (listing)
		listing->refs++;
	detach_listing_locked(dir);
	dir->listing = listing;
	if (!listing)
		return;
	pthread_mutex_lock(&meta->lock);
	TAILQ_INSERT_TAIL(&meta->lru, listing, lru);
	listing->in_lru = true;
	meta->lru_count++;
	pthread_mutex_unlock(&meta->lock);
}

struct cst_listing *cst_listing_start_locked(struct cst_dir *dir, unsigned wanted_pages)
{
	struct cst_listing *listing = cst_listing_new_locked(dir, wanted_pages);
	cst_listing_make_current_locked(dir, listing);
	listing->refs--; /* the directory's alone */
	return listing;
}

static void page_entry(void *arg, const struct cst_object_list_entry *entry)
{
	const struct page_op *page = arg;
	struct cst_listing *listing = page->listing;
	struct cst_slice key = entry->info.key;
	struct cst_dir *dir = listing->dir;
	size_t prefix_len = page->prefix->len;
	if (key.len < prefix_len) /* not what was asked for */
		return;
	struct cst_slice suffix = {key.data + prefix_len, key.len - prefix_len};
	pthread_mutex_lock(&dir->lock);
	/* After "name/" a store may begin with "name/" once more, and one that knows no start-after with the first name. */
	const struct cst_names *names = &listing->names;
	if (!listing->resumed || names->sealed == 0 || names->unsorted ||
	    cst_key_compare(suffix, cst_names_suffix(names, names->sealed - 1)) > 0)
		cst_names_add(&listing->names, suffix, entry->is_prefix, &entry->info);
	pthread_mutex_unlock(&dir->lock);
}

static void page_restart(void *arg)
{
	const struct page_op *page = arg;
	pthread_mutex_lock(&page->listing->dir->lock);
	cst_names_rollback(&page->listing->names);
	pthread_mutex_unlock(&page->listing->dir->lock);
}

/* Attributes that the listing before this one had of the same versions. */
static void inherit_attrs_locked(struct cst_listing *listing, size_t first)
{
	const struct cst_names *old = listing->before ? &listing->before->names : NULL;
	for (size_t i = first; old && i < listing->names.sealed; i++) {
		struct cst_name_view view, was;
		size_t at;
		cst_names_get(&listing->names, i, &view);
		if (view.kind == CST_KIND_DIR || cst_names_find(old, view.name, &at) == CST_NAMES_ABSENT ||
		    at == SIZE_MAX)
			continue;
		cst_names_get(old, at, &was);
		if (was.kind == view.kind && was.mtime == view.mtime && strcmp(was.etag, view.etag) == 0)
			cst_names_set_attr(&listing->names, i, cst_names_attr(old, at));
	}
	if (listing->names.complete && listing->before) {
		struct cst_listing *before = listing->before;
		listing->before = NULL;
		if (--before->refs == 0)
			listing_free(before);
	}
}

/* What the page brought that a person should hear of: one example each. */
struct page_news {
	uint64_t skipped, losers;
	char *skipped_name, *loser_name;
	size_t skipped_len, loser_len;
	struct cst_prefix *prefix; /* counted; NULL: there are none */
};

static void collect_news_locked(const struct cst_listing *listing, size_t first, struct page_news *news)
{
	struct cst_dir *dir = listing->dir;
	if (listing->names.skipped > dir->skipped)
		news->skipped = listing->names.skipped - dir->skipped;
	if (listing->names.losers > dir->losers)
		news->losers = listing->names.losers - dir->losers;
	if (!news->skipped && !news->losers)
		return;
	news->prefix = dir->prefix;
	cst_ref_get(&news->prefix->ref);
	dir->skipped += news->skipped;
	dir->losers += news->losers;
	for (size_t i = first; i < listing->names.sealed && (news->skipped || news->losers); i++) {
		unsigned flags = cst_names_flags(&listing->names, i);
		struct cst_slice suffix = cst_names_suffix(&listing->names, i);
		if (flags & CST_NAME_SKIPPED && news->skipped && !news->skipped_name) {
			news->skipped_name = cst_xcalloc(1, suffix.len + 1);
			memcpy(news->skipped_name, suffix.data, suffix.len);
			news->skipped_len = suffix.len;
		}
		if (flags & CST_NAME_LOSER && news->losers && !news->loser_name) {
			news->loser_name = cst_xstrndup(suffix.data, suffix.len - 1);
			news->loser_len = suffix.len - 1;
		}
	}
}

static void tell_news(struct cst_dir *dir, struct page_news *news)
{
	const struct cst_meta_config *config = &dir->meta->config;
	if (!news->prefix)
		return;
	struct cst_slice prefix = cst_prefix_slice(news->prefix);
	if (news->skipped_name && config->skipped)
		config->skipped(config->arg, prefix, (struct cst_slice){news->skipped_name, news->skipped_len},
				news->skipped);
	if (news->loser_name && config->shadowed)
		config->shadowed(config->arg, prefix, (struct cst_slice){news->loser_name, news->loser_len});
	free(news->skipped_name);
	free(news->loser_name);
	cst_prefix_unref(news->prefix);
}

/* A listing may be gone on with after an hour, and tokens may have ended by then (400). */
static bool can_resume(const struct cst_listing *listing, const struct page_op *page, int rc)
{
	return rc == -EINVAL && page->token.len > 0 && listing->names.sealed > 0 && !listing->names.unsorted;
}

static void page_take_locked(const struct page_op *op, int rc, const struct cst_object_list_page *page,
			     const struct cst_error *err, struct page_news *news)
{
	struct cst_listing *listing = op->listing;
	size_t first = listing->names.sealed;
	listing->running = false;
	if (op->prefix != listing->dir->prefix) { /* moved meanwhile: asked once more, there */
		cst_names_rollback(&listing->names);
		return;
	}
	listing->resume = can_resume(listing, op, rc);
	if (listing->resume) {
		cst_names_rollback(&listing->names);
		cst_buf_clear(&listing->token);
		return;
	}
	if (rc < 0) {
		cst_names_rollback(&listing->names);
		listing->rc = rc;
		listing->err = *err;
		if (listing->dir->listing == listing)
			detach_listing_locked(listing->dir);
		return;
	}
	cst_names_seal(&listing->names, !page->truncated);
	cst_buf_clear(&listing->token);
	if (page->truncated)
		cst_buf_add_slice(&listing->token, page->next_token);
	listing->pages++;
	listing->refreshed = cst_meta_now(listing->dir->meta);
	inherit_attrs_locked(listing, first);
	collect_news_locked(listing, first, news);
}

static void wake_readers(struct cst_listing *listing)
{
	TAILQ_HEAD(waits, cst_listing_wait) waits = TAILQ_HEAD_INITIALIZER(waits);
	struct cst_listing_wait *wait;
	pthread_mutex_lock(&listing->dir->lock);
	while ((wait = TAILQ_FIRST(&listing->waits)) != NULL) { /* who queues again meanwhile waits for the next page */
		TAILQ_REMOVE(&listing->waits, wait, link);
		TAILQ_INSERT_TAIL(&waits, wait, link);
		wait->queued = false;
	}
	pthread_mutex_unlock(&listing->dir->lock);
	while ((wait = TAILQ_FIRST(&waits)) != NULL) {
		TAILQ_REMOVE(&waits, wait, link);
		wait->done(wait);
	}
}

static void page_done(void *arg, int rc, const struct cst_object_list_page *result, const struct cst_error *err)
{
	struct page_op *page = arg;
	struct cst_listing *listing = page->listing;
	struct cst_dir *dir = listing->dir;
	struct page_news news = {0};
	pthread_mutex_lock(&dir->lock);
	page_take_locked(page, rc, result, err, &news);
	if (listing->names.complete)
		cst_own_sweep_locked(dir);
	uint64_t bytes = cst_listing_bytes_locked(listing);
	uint64_t names = listing->names.sealed;
	pthread_mutex_unlock(&dir->lock);
	cst_listing_kick(listing); /* the next page travels while this one is used */
	tell_news(dir, &news);
	wake_readers(listing);
	cst_dir_advance_probes(dir);
	cst_meta_touch(dir->meta, listing, bytes, names);
	cst_listing_unref(listing);
	cst_dir_unref(dir);
	if (cst_meta_op_end(&page->op))
		page_op_free(page);
}

/* A listing that has not come to its end, and that nobody reads, gives way to a whole one, which inherits its doubts. */
static bool gives_way_locked(const struct cst_listing *listing)
{
	return !listing->names.complete && !listing->joined && listing->readers == 0;
}

static void inherit_doubts(struct cst_names *names, const struct cst_names *before)
{
	for (size_t i = 0, at; i < before->sealed; i++) {
		struct cst_name_view view;
		if (!(cst_names_flags(before, i) & CST_NAME_DOUBTFUL))
			continue;
		cst_names_get(before, i, &view);
		if (cst_names_find(names, view.name, &at) == CST_NAMES_FOUND)
			cst_names_doubt(names, at);
	}
}

/* Which listing takes what a preload brought: the one that waits for it, or a new one. NULL: it isn't needed. */
static struct cst_listing *to_fill_locked(struct cst_dir *dir, struct cst_names *names, bool partial)
{
	struct cst_listing *listing = dir->listing;
	bool fresh = cst_listing_is_fresh_locked(listing);
	cst_names_seal(names, !partial);
	if (listing && listing->joined && listing->names.count == 0)
		return listing;
	if (partial)
		return NULL;
	if (fresh && gives_way_locked(listing))
		inherit_doubts(names, &listing->names);
	else if (fresh)
		return NULL;
	return cst_listing_start_locked(dir, 1);
}

bool cst_dir_install(struct cst_dir *dir, struct cst_names *names, struct cst_installed *what)
{
	struct page_news news = {0};
	cst_dir_ref(dir);
	pthread_mutex_lock(&dir->lock);
	bool knows_all = what->started > cst_max(dir->moved_at, dir->changed_at);
	struct cst_listing *listing = knows_all ? to_fill_locked(dir, names, what->partial) : NULL;
	if (!listing) {
		pthread_mutex_unlock(&dir->lock);
		cst_dir_unref(dir);
		return false;
	}
	listing->refs++;
	bool opened = listing->joined;
	listing->preloaded = opened ? 0 : what->preload;
	listing->joined = false;
	listing->started = cst_min(listing->started, what->started);
	listing->refreshed = what->refreshed;
	listing->unchecked = what->unchecked;
	listing->names = *names;
	*names = (struct cst_names){0};
	listing->pages = 1;
	listing->resume = what->partial && listing->names.sealed > 0;
	inherit_attrs_locked(listing, 0);
	collect_news_locked(listing, 0, &news);
	what->bytes = cst_names_bytes(&listing->names) + sizeof(*listing) + sizeof(*dir);
	what->names = listing->names.sealed;
	pthread_mutex_unlock(&dir->lock);
	tell_news(dir, &news);
	wake_readers(listing);
	cst_dir_advance_probes(dir);
	cst_meta_touch(dir->meta, listing, what->bytes, what->names);
	if (opened && what->preload)
		cst_preload_hit(dir->meta, what->preload);
	cst_listing_unref(listing);
	cst_dir_unref(dir);
	return true;
}

static void page_start(struct page_op *page)
{
	static const struct cst_object_list_ops ops = {page_entry, page_restart, page_done};
	struct cst_meta *meta = page->listing->dir->meta;
	struct cst_object_list list = {
		.prefix = cst_prefix_slice(page->prefix),
		.delimiter = "/",
		.token = cst_buf_slice(&page->token),
		.start_after = cst_buf_slice(&page->after),
		.max_keys = 1000,
	};
	cst_meta_op_begin(meta, &page->op);
	pthread_mutex_lock(&meta->lock);
	meta->lists++;
	pthread_mutex_unlock(&meta->lock);
	struct cst_object_op *op = cst_object_list(meta->config.bucket, &list, &ops, page);
	if (!cst_meta_op_started(&page->op, op))
		page_op_free(page);
}

void cst_listing_kick(struct cst_listing *listing)
{
	struct cst_dir *dir = listing->dir;
	struct page_op *page = NULL;
	pthread_mutex_lock(&dir->lock);
	bool refused = false, due = !listing->running && !listing->joined && !listing->names.complete &&
				    listing->rc == 0 &&
				    (listing->pages < listing->wanted_pages || listing->readers > 0);
	if (due && !cst_meta_is_stopping(dir->meta)) {
		page = CST_NEW(struct page_op);
		page->listing = listing;
		cst_buf_add_slice(&page->token, cst_buf_slice(&listing->token));
		page->prefix = dir->prefix;
		cst_ref_get(&page->prefix->ref);
		listing->resumed |= listing->resume;
		if (listing->resume) {
			cst_buf_add_slice(&page->after, cst_prefix_slice(dir->prefix));
			cst_buf_add_slice(&page->after, cst_names_suffix(&listing->names, listing->names.sealed - 1));
		}
		listing->running = true;
		listing->refs++;
		cst_dir_ref(dir);
	} else if (due) {
		listing->rc = -ECANCELED;
		cst_error_set(&listing->err, ECANCELED, "can't list %s", dir->prefix->text);
		cst_error_why(&listing->err, "the file system is being unmounted");
		refused = true;
	}
	pthread_mutex_unlock(&dir->lock);
	if (page)
		page_start(page);
	if (refused) {
		wake_readers(listing);
		cst_dir_advance_probes(dir);
	}
}

bool cst_listing_entry_locked(const struct cst_listing *listing, size_t i, struct cst_entry *entry)
{
	const struct cst_meta_config *config = &listing->dir->meta->config;
	struct cst_name_view view;
	cst_names_get(&listing->names, i, &view);
	*entry = (struct cst_entry){
		.kind = view.kind, .type = view.type, .size = view.size, .mtime = view.mtime, .at = listing->started};
	memcpy(entry->etag, view.etag, sizeof(entry->etag));
	entry->attr = cst_object_attr_ref(cst_names_attr(&listing->names, i));
	if (view.type == CST_OBJECT_SYMLINK && view.kind != CST_KIND_DIR) {
		if (!config->symlinks) { /* size and version are those of what it points to */
			entry->kind = CST_KIND_FILE;
			return false;
		}
		entry->size = 0;
		entry->etag[0] = 0;
	}
	if (!config->attributes_object)
		return true;
	if (entry->attr && entry->kind == CST_KIND_FILE && entry->attr->has & CST_ATTR_MODE &&
	    S_ISLNK(entry->attr->mode))
		entry->kind = CST_KIND_SYMLINK;
	return entry->attr != NULL;
}

/* What a listing has of the name by itself. */
static int find_listed_locked(struct cst_listing *listing, const char *name, struct cst_entry *entry, int64_t *at)
{
	size_t i;
	__atomic_store_n(&listing->used, true, __ATOMIC_RELAXED);
	*at = listing->started;
	switch (cst_names_find(&listing->names, cst_slice_of(name), &i)) {
	case CST_NAMES_FOUND:
		return cst_listing_entry_locked(listing, i, entry) ? 0 : -EAGAIN;
	case CST_NAMES_ABSENT:
		return -ENOENT;
	default:
		return -EAGAIN;
	}
}

int cst_dir_find(struct cst_dir *dir, const char *name, struct cst_entry *entry, int64_t *at)
{
	const struct cst_own *own;
	int rc = -EAGAIN;
	*entry = (struct cst_entry)CST_ENTRY_INIT;
	pthread_mutex_lock(&dir->lock);
	struct cst_listing *listing = cst_listing_is_fresh_locked(dir->listing) ? dir->listing : NULL;
	enum cst_own_says says = cst_own_says_locked(dir, listing, cst_slice_of(name), &own);
	if (says == CST_OWN_NOTHING && listing)
		rc = find_listed_locked(listing, name, entry, at);
	/* What the listing hasn't reached may still be known otherwise. */
	if (says == CST_OWN_NOTHING && own && rc == -EAGAIN && entry->kind == CST_KIND_NONE)
		says = cst_own_says_locked(dir, NULL, cst_slice_of(name), &own);
	if (says == CST_OWN_GONE || says == CST_OWN_PRESENT)
		*at = own->at;
	if (says == CST_OWN_GONE)
		rc = -ENOENT;
	if (says == CST_OWN_PRESENT) {
		cst_own_entry(own, entry);
		rc = own->held || own->attr || !dir->meta->config.attributes_object ? 0 : -EAGAIN;
	}
	pthread_mutex_unlock(&dir->lock);
	return rc;
}

int cst_dir_place(struct cst_dir *dir, const char *name, struct cst_dir_place *place)
{
	int rc = -EAGAIN;
	const struct cst_own *own;
	pthread_mutex_lock(&dir->lock);
	struct cst_listing *listing = dir->listing;
	if (cst_listing_is_fresh_locked(listing) && !listing->names.unsorted &&
	    cst_own_says_locked(dir, listing, cst_slice_of(name), &own) == CST_OWN_NOTHING &&
	    cst_names_find(&listing->names, cst_slice_of(name), &place->at) == CST_NAMES_FOUND &&
	    !(cst_names_flags(&listing->names, place->at) & (CST_NAME_PREFIX | CST_NAME_FOLDER))) {
		__atomic_store_n(&listing->used, true, __ATOMIC_RELAXED);
		place->listing = listing->number;
		rc = 0;
	}
	pthread_mutex_unlock(&dir->lock);
	return rc;
}

bool cst_dir_walk(struct cst_dir *dir, const struct cst_dir_place *place,
		  bool (*each)(void *arg, size_t i, const struct cst_name_view *view, struct cst_object_attr *attr),
		  void *arg)
{
	pthread_mutex_lock(&dir->lock);
	const struct cst_listing *listing = dir->listing;
	bool same = cst_listing_is_fresh_locked(listing) && listing->number == place->listing;
	for (size_t i = place->at; same && i < listing->names.sealed; i++) {
		struct cst_name_view view;
		struct cst_object_attr *attr;
		int64_t at;
		if (cst_own_shown_locked(listing, i, &view, &attr, &at) && !each(arg, i, &view, attr))
			break;
	}
	pthread_mutex_unlock(&dir->lock);
	return same;
}

void cst_dir_doubt(struct cst_dir *dir, const char *name)
{
	size_t i;
	pthread_mutex_lock(&dir->lock);
	if (dir->listing && cst_names_find(&dir->listing->names, cst_slice_of(name), &i) == CST_NAMES_FOUND)
		cst_names_doubt(&dir->listing->names, i);
	cst_own_doubt_locked(dir, cst_slice_of(name));
	cst_relist_doubt_locked(dir, cst_slice_of(name), cst_meta_now(dir->meta));
	pthread_mutex_unlock(&dir->lock);
}

/* Listings that can go on, and those that have failed of which who waits doesn't know. */
static void go_on_after_move(struct cst_dir *dir)
{
	struct cst_listing *listing, **all;
	size_t count = 0;
	pthread_mutex_lock(&dir->lock);
	LIST_FOREACH (listing, &dir->all, of_dir)
		count++;
	all = cst_xcalloc(count + 1, sizeof(struct cst_listing *));
	count = 0;
	LIST_FOREACH (listing, &dir->all, of_dir) {
		cst_listing_ref_locked(listing);
		all[count++] = listing;
	}
	pthread_mutex_unlock(&dir->lock);
	for (size_t i = 0; i < count; i++) {
		cst_listing_kick(all[i]);
		wake_readers(all[i]);
		cst_listing_unref(all[i]);
	}
	free(all);
}

void cst_dir_move(struct cst_dir *dir, struct cst_slice prefix)
{
	struct cst_listing *listing;
	struct cst_dir_probe *p;
	CST_CHECK(dir, CST_DIR_MAGIC);
	struct cst_prefix *old = NULL, *new = prefix_new(prefix);
	cst_dir_ref(dir);
	pthread_mutex_lock(&dir->lock);
	old = dir->prefix;
	dir->prefix = new;
	dir->moved_at = cst_meta_now(dir->meta);
	detach_listing_locked(dir);
	cst_own_moved_locked(dir);
	LIST_FOREACH (listing, &dir->all,
		      of_dir) { /* readers of an unfinished one go on at the new place, after what they have */
		listing->moved = true;
		listing->joined = false;
		cst_buf_clear(&listing->token);
		listing->resume = listing->names.sealed > 0;
		if (listing->names.complete || listing->rc < 0 || !listing->names.unsorted)
			continue;
		listing->rc = -ESTALE;
		cst_error_set(&listing->err, ESTALE, "can't list %s", old->text);
		cst_error_why(&listing->err, "the directory has been renamed meanwhile");
	}
	TAILQ_FOREACH (p, &dir->probes, link)
		p->moved = true;
	pthread_mutex_unlock(&dir->lock);
	cst_parked_drop(dir->meta, cst_prefix_slice(old));
	cst_parked_drop(dir->meta, prefix);
	cst_prefix_unref(old);
	go_on_after_move(dir);
	cst_dir_advance_probes(dir);
	cst_dir_unref(dir);
}

struct cst_listing *cst_dir_open(struct cst_dir *dir)
{
	cst_dir_ref(dir);
	pthread_mutex_lock(&dir->lock);
	struct cst_listing *listing = dir->listing;
	if (!cst_listing_is_fresh_locked(listing)) {
		listing = cst_listing_start_locked(dir, 1);
		listing->joined = !dir->owns && cst_preload_join(dir, listing);
	}
	uint32_t preload = listing->preloaded;
	listing->preloaded = 0;
	listing->readers++;
	listing->refs++;
	cst_own_begin_reading_locked(listing);
	__atomic_store_n(&listing->used, true, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&dir->lock);
	cst_listing_kick(listing);
	if (preload)
		cst_preload_hit(dir->meta, preload);
	return listing;
}

struct cst_listing *cst_listing_ref(struct cst_listing *listing)
{
	cst_dir_ref(listing->dir);
	pthread_mutex_lock(&listing->dir->lock);
	listing->readers++;
	listing->refs++;
	pthread_mutex_unlock(&listing->dir->lock);
	return listing;
}

void cst_listing_close(struct cst_listing *listing)
{
	struct cst_dir *dir = listing->dir;
	pthread_mutex_lock(&dir->lock);
	listing->readers--;
	pthread_mutex_unlock(&dir->lock);
	cst_listing_unref(listing);
	cst_dir_unref(dir);
}

/* Own entries of the listing, then what it hasn't. Returns whether there was any. */
static bool read_shown_locked(struct cst_listing *listing, size_t from, size_t *next,
			      bool (*each)(void *arg, size_t i, const struct cst_name_view *view,
					   struct cst_object_attr *attr, int64_t at),
			      void *arg)
{
	const struct cst_own *own;
	struct cst_name_view view;
	bool any = false;
	size_t i = from;
	/* Who comes to the end of the entries sees all that there is by then. */
	if (from <= listing->names.sealed)
		cst_own_begin_reading_locked(listing);
	for (; i < listing->names.sealed; i++) {
		struct cst_object_attr *attr;
		int64_t at;
		*next = i;
		if (!cst_own_shown_locked(listing, i, &view, &attr, &at))
			continue;
		any = true;
		if (!each(arg, i, &view, attr, at))
			return true;
	}
	while (listing->names.complete && (own = cst_own_next_locked(listing, &i, &view)) != NULL) {
		*next = i;
		any = true;
		if (!each(arg, i, &view, own->attr, own->at))
			return true;
		i++;
	}
	*next = i;
	return any;
}

int cst_listing_read(struct cst_listing *listing, size_t from, size_t *next, struct cst_listing_wait *wait,
		     bool (*each)(void *arg, size_t i, const struct cst_name_view *view, struct cst_object_attr *attr,
				  int64_t at),
		     void *arg, struct cst_error *err)
{
	struct cst_dir *dir = listing->dir;
	int rc = -ENOENT;
	pthread_mutex_lock(&dir->lock);
	if (read_shown_locked(listing, from, next, each, arg)) {
		rc = 0;
	} else if (listing->rc < 0) {
		rc = listing->rc;
		*err = listing->err;
	} else if (!listing->names.complete) {
		rc = -EAGAIN;
		wait->queued = true;
		TAILQ_INSERT_TAIL(&listing->waits, wait, link);
	}
	pthread_mutex_unlock(&dir->lock);
	if (rc == -EAGAIN)
		cst_listing_kick(listing);
	return rc;
}

bool cst_listing_leave(struct cst_listing *listing, struct cst_listing_wait *wait)
{
	pthread_mutex_lock(&listing->dir->lock);
	bool left = wait->queued;
	if (left)
		TAILQ_REMOVE(&listing->waits, wait, link);
	wait->queued = false;
	pthread_mutex_unlock(&listing->dir->lock);
	return left;
}

uint32_t cst_listing_tag(struct cst_slice name)
{
	return (uint32_t)(XXH3_64bits(name.data, name.len) >> (64 - CST_LISTING_TAG_BITS));
}

static bool has_tag_locked(const struct cst_listing *listing, size_t i, uint32_t tag)
{
	struct cst_name_view view;
	size_t position = i;
	if (i < listing->names.sealed)
		cst_names_get(&listing->names, i, &view);
	else if (!cst_own_next_locked(listing, &position, &view) || position != i)
		return false;
	return cst_listing_tag(view.name) == tag;
}

size_t cst_listing_resume(struct cst_listing *listing, size_t i, uint32_t tag)
{
	size_t found = i;
	pthread_mutex_lock(&listing->dir->lock);
	size_t count = listing->names.complete ? cst_own_positions_locked(listing) : listing->names.sealed;
	/* Not there: look around the place, the nearest first. What has not been listed yet is taken at its word. */
	if (i > 0 && i <= count && !has_tag_locked(listing, i - 1, tag)) {
		for (size_t away = 1; away < count; away++) {
			if (i - 1 + away < count && has_tag_locked(listing, i - 1 + away, tag)) {
				found = i + away;
				break;
			}
			if (i - 1 >= away && has_tag_locked(listing, i - 1 - away, tag)) {
				found = i - away;
				break;
			}
		}
	}
	pthread_mutex_unlock(&listing->dir->lock);
	return found;
}

bool cst_listing_is_old(struct cst_listing *listing)
{
	pthread_mutex_lock(&listing->dir->lock);
	bool old = !cst_listing_is_fresh_locked(listing);
	pthread_mutex_unlock(&listing->dir->lock);
	return old;
}
