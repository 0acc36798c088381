/* What this mount changed itself, over the listings of a directory: see dir.h.
 *
 * A record says what a name is as of `at`. It lies over every listing that began before, and over answers to requests that did; those that began after
 * it know better. It is kept as long as one of the former is there, and as long as it is young enough to answer by itself.
 *
 * Records are numbered in the order in which their names came, so a listing being read can show those that it hasn't: after its own entries, at a
 * position that follows from the number. A name keeps its number when it changes, or goes and comes back, so that nobody sees it twice. How far a
 * listing shows them is fixed when somebody begins to read it: else a program that renames what it reads would never come to an end. */
#include "meta/own.h"

#include <xxhash.h>

#define FIRST_BUCKETS 16
#define FIRST_SWEEP 64
#define RECORDS_MAX 65536 /* or a quarter of the listing */

struct cst_owns {
	struct cst_own **buckets;
	size_t size, count;
	struct cst_own **order; /* by number; NULL: dropped */
	size_t order_count, order_cap;
	uint64_t last; /* number given */
	size_t sweep_at;
	uint64_t bytes;
};

static struct cst_own **find_place(struct cst_owns *owns, struct cst_slice name)
{
	struct cst_own **at = &owns->buckets[XXH3_64bits(name.data, name.len) & (owns->size - 1)];
	while (*at && !cst_slice_eq(cst_own_name(*at), name))
		at = &(*at)->next;
	return at;
}

/* Where the number is, or the next one after it. */
static size_t order_of(const struct cst_owns *owns, uint64_t number)
{
	size_t low = 0, high = owns->order_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2, at = middle;
		while (at < high && !owns->order[at])
			at++;
		if (at == high)
			high = middle;
		else if (owns->order[at]->number < number)
			low = at + 1;
		else
			high = middle;
	}
	while (low < owns->order_count && !owns->order[low])
		low++;
	return low;
}

const struct cst_own *cst_own_find_locked(const struct cst_dir *dir, struct cst_slice name)
{
	return dir->owns ? *find_place(dir->owns, name) : NULL;
}

static size_t own_size(const struct cst_own *own)
{
	return sizeof(*own) + own->name_len + own->etag_len + 1u;
}

static struct cst_own *own_new(struct cst_slice name, const struct cst_entry *entry)
{
	uint8_t packed[CST_ETAG_PACKED_MAX];
	unsigned form = 0;
	size_t etag_len = entry ? cst_etag_pack(packed, entry->etag, &form) : 0;
	struct cst_own *own = cst_xcalloc(1, sizeof(*own) + name.len + etag_len + 1);
	own->name_len = (uint8_t)name.len;
	own->etag_len = (uint8_t)etag_len;
	own->etag_form = (uint8_t)form;
	memcpy(own->text, name.data, name.len);
	if (etag_len > 0)
		memcpy(own->text + name.len + 1, packed, etag_len);
	own->gone = !entry;
	if (entry) {
		own->kind = (uint8_t)entry->kind;
		own->type = (uint8_t)entry->type;
		own->size = entry->size;
		own->mtime = entry->mtime;
		own->at = entry->at;
		own->attr = cst_object_attr_ref(entry->attr);
	}
	return own;
}

static void own_free(struct cst_own *own)
{
	cst_object_attr_unref(own->attr);
	free(own);
}

static void grow(struct cst_owns *owns)
{
	struct cst_own **old = owns->buckets;
	size_t old_size = owns->size;
	owns->size = old_size ? old_size * 2 : FIRST_BUCKETS;
	owns->buckets = cst_xcalloc(owns->size, sizeof(struct cst_own *));
	for (size_t i = 0; i < old_size; i++) {
		struct cst_own *next;
		for (struct cst_own *own = old[i]; own; own = next) {
			struct cst_own **to = find_place(owns, cst_own_name(own));
			next = own->next;
			own->next = NULL;
			*to = own; /* the end of its chain */
		}
	}
	free(old);
}

static void insert(struct cst_owns *owns, struct cst_own *own)
{
	if (owns->count >= owns->size)
		grow(owns);
	struct cst_own **place = find_place(owns, cst_own_name(own)), *was = *place;
	own->number = was ? was->number : ++owns->last;
	own->next = was ? was->next : NULL;
	*place = own;
	owns->bytes += own_size(own);
	if (was) {
		owns->order[order_of(owns, own->number)] = own;
		owns->bytes -= own_size(was);
		own_free(was);
		return;
	}
	owns->count++;
	if (owns->order_count == owns->order_cap) {
		owns->order_cap = owns->order_cap ? owns->order_cap * 2 : FIRST_BUCKETS;
		owns->order = cst_xrealloc(owns->order, owns->order_cap * sizeof(struct cst_own *));
	}
	owns->order[owns->order_count++] = own;
}

static void drop(struct cst_owns *owns, size_t i)
{
	struct cst_own *own = owns->order[i];
	struct cst_own **place = find_place(owns, cst_own_name(own));
	*place = own->next;
	owns->order[i] = NULL;
	owns->count--;
	owns->bytes -= own_size(own);
	own_free(own);
}

static void close_gaps(struct cst_owns *owns)
{
	size_t kept = 0;
	for (size_t i = 0; i < owns->order_count; i++)
		if (owns->order[i])
			owns->order[kept++] = owns->order[i];
	owns->order_count = kept;
}

/* What began at the earliest and may still tell of older times. */
static int64_t oldest_under_way_locked(const struct cst_dir *dir)
{
	const struct cst_listing *listing;
	const struct cst_dir_probe *p;
	int64_t oldest = INT64_MAX;
	LIST_FOREACH (listing, &dir->all, of_dir)
		oldest = cst_min(oldest, listing->started);
	TAILQ_FOREACH (p, &dir->probes, link)
		oldest = cst_min(oldest, p->started);
	return oldest;
}

/* Drops what nobody needs: `all` also what could answer by itself for a while. */
static void sweep_locked(struct cst_dir *dir, bool all)
{
	struct cst_owns *owns = dir->owns;
	const struct cst_listing *now = dir->listing;
	int64_t oldest = oldest_under_way_locked(dir), young = cst_meta_now(dir->meta) - dir->meta->config.list_ttl;
	for (size_t i = 0; i < owns->order_count; i++) {
		const struct cst_own *own = owns->order[i];
		bool caught_up = own && now && now->names.complete && now->started > own->at;
		if (!own || own->held || own->at >= oldest || !(all || caught_up || own->at <= young))
			continue;
		dir->changed_at = cst_max(dir->changed_at, own->at);
		drop(owns, i);
	}
	close_gaps(owns);
}

static bool is_over(const struct cst_dir *dir)
{
	size_t listed = dir->listing ? dir->listing->names.sealed : 0;
	return dir->owns->count > cst_max((size_t)RECORDS_MAX, listed / 4);
}

void cst_own_sweep_locked(struct cst_dir *dir)
{
	struct cst_owns *owns = dir->owns;
	if (!owns)
		return;
	sweep_locked(dir, false);
	if (is_over(dir))
		sweep_locked(dir, true);
	/* Still too many: they lie over the listing, which is had again for a request a thousand names. */
	if (is_over(dir) && dir->listing && dir->listing->readers == 0 && !dir->listing->running) {
		cst_listing_make_current_locked(dir, NULL);
		sweep_locked(dir, true);
	}
	owns->sweep_at = cst_max((size_t)FIRST_SWEEP, owns->count * 2);
	if (owns->count == 0)
		cst_own_free_locked(dir);
}

void cst_own_free_locked(struct cst_dir *dir)
{
	struct cst_owns *owns = cst_steal(dir->owns);
	if (!owns)
		return;
	for (size_t i = 0; i < owns->order_count; i++)
		if (owns->order[i])
			own_free(owns->order[i]);
	dir->own_last = owns->last;
	free(owns->order);
	free(owns->buckets);
	free(owns);
}

uint64_t cst_own_bytes_locked(const struct cst_dir *dir)
{
	const struct cst_owns *owns = dir->owns;
	return owns ? owns->bytes + (owns->size + owns->order_cap) * sizeof(struct cst_own *) : 0;
}

static void put_locked(struct cst_dir *dir, struct cst_own *own)
{
	if (!dir->owns) {
		dir->owns = CST_NEW(struct cst_owns);
		dir->owns->last = dir->own_last;
		dir->owns->sweep_at = FIRST_SWEEP;
	}
	insert(dir->owns, own);
}

/* ---- over listings ---- */

enum cst_own_says cst_own_says_locked(const struct cst_dir *dir, const struct cst_listing *listing,
				      struct cst_slice name, const struct cst_own **found)
{
	const struct cst_own *own = *found = cst_own_find_locked(dir, name);
	if (!own)
		return CST_OWN_NOTHING;
	if (own->held)
		return CST_OWN_PRESENT;
	if (listing ? listing->started > own->at : cst_meta_now(dir->meta) - own->at >= dir->meta->config.list_ttl)
		return CST_OWN_NOTHING;
	return own->doubtful ? CST_OWN_DOUBTFUL : own->gone ? CST_OWN_GONE : CST_OWN_PRESENT;
}

void cst_own_entry(const struct cst_own *own, struct cst_entry *entry)
{
	*entry = (struct cst_entry){
		.kind = own->kind, .type = own->type, .size = own->size, .mtime = own->mtime, .at = own->at};
	cst_etag_unpack((const uint8_t *)own->text + own->name_len + 1, own->etag_form, entry->etag);
	entry->attr = cst_object_attr_ref(own->attr);
}

static void own_view(const struct cst_own *own, struct cst_name_view *view)
{
	*view = (struct cst_name_view){.flags = own->doubtful && !own->held ? CST_NAME_DOUBTFUL : 0,
				       .name = cst_own_name(own),
				       .kind = own->kind,
				       .type = own->type,
				       .size = own->size,
				       .mtime = own->mtime};
	if (own->kind == CST_KIND_DIR)
		view->flags |= CST_NAME_PREFIX;
	cst_etag_unpack((const uint8_t *)own->text + own->name_len + 1, own->etag_form, view->etag);
}

bool cst_own_shown_locked(const struct cst_listing *listing, size_t i, struct cst_name_view *view,
			  struct cst_object_attr **attr, int64_t *at)
{
	const struct cst_own *own;
	if (cst_names_flags(&listing->names, i) & CST_NAME_HIDDEN)
		return false;
	cst_names_get(&listing->names, i, view);
	*attr = cst_names_attr(&listing->names, i);
	*at = listing->started;
	switch (cst_own_says_locked(listing->dir, listing, view->name, &own)) {
	case CST_OWN_GONE:
		return false;
	case CST_OWN_PRESENT:
		own_view(own, view);
		*attr = own->attr;
		*at = own->at;
		return true;
	case CST_OWN_DOUBTFUL:
		view->flags |= CST_NAME_DOUBTFUL;
		return true;
	default:
		return true;
	}
}

enum cst_names_found cst_own_find_shown_locked(const struct cst_listing *listing, struct cst_slice name,
					       struct cst_name_view *view)
{
	const struct cst_own *own;
	size_t i;
	switch (cst_own_says_locked(listing->dir, listing, name, &own)) {
	case CST_OWN_GONE:
		return CST_NAMES_ABSENT;
	case CST_OWN_PRESENT:
		own_view(own, view);
		return CST_NAMES_FOUND;
	case CST_OWN_DOUBTFUL:
		return CST_NAMES_UNKNOWN;
	default:
		break;
	}
	enum cst_names_found found = cst_names_find(&listing->names, name, &i);
	if (i != SIZE_MAX)
		cst_names_get(&listing->names, i, view);
	return found;
}

/* ---- names that a listing hasn't ---- */

void cst_own_begin_listing_locked(struct cst_listing *listing)
{
	struct cst_dir *dir = listing->dir;
	const struct cst_owns *owns = dir->owns;
	size_t first = owns ? order_of(owns, 0) : 0;
	uint64_t last = owns ? owns->last : dir->own_last;
	listing->own_first = owns && first < owns->order_count ? owns->order[first]->number : last + 1;
	listing->own_until = last;
}

void cst_own_begin_reading_locked(struct cst_listing *listing)
{
	const struct cst_dir *dir = listing->dir;
	listing->own_until = dir->owns ? dir->owns->last : dir->own_last;
}

static bool is_listed(const struct cst_listing *listing, struct cst_slice name)
{
	size_t i;
	cst_names_find(&listing->names, name, &i);
	return i != SIZE_MAX && !(cst_names_flags(&listing->names, i) & CST_NAME_HIDDEN);
}

/* Changes numbered up to `until`. */
static const struct cst_own *next_until_locked(const struct cst_listing *listing, uint64_t until, size_t *position,
					       struct cst_name_view *view)
{
	const struct cst_owns *owns = listing->dir->owns;
	size_t count = listing->names.sealed;
	if (!owns || *position < count)
		return NULL;
	for (size_t at = order_of(owns, listing->own_first + (*position - count)); at < owns->order_count; at++) {
		const struct cst_own *own = owns->order[at], *same;
		if (!own)
			continue;
		if (own->number > until)
			return NULL;
		enum cst_own_says says = cst_own_says_locked(listing->dir, listing, cst_own_name(own), &same);
		bool shown = says == CST_OWN_PRESENT || (says == CST_OWN_DOUBTFUL && !own->gone);
		if (!shown || is_listed(listing, cst_own_name(own)))
			continue;
		*position = count + (size_t)(own->number - listing->own_first);
		own_view(own, view);
		return own;
	}
	return NULL;
}

const struct cst_own *cst_own_next_locked(const struct cst_listing *listing, size_t *position,
					  struct cst_name_view *view)
{
	return next_until_locked(listing, listing->own_until, position, view);
}

size_t cst_own_positions_locked(const struct cst_listing *listing)
{
	const struct cst_owns *owns = listing->dir->owns;
	if (!owns || owns->last < listing->own_first)
		return listing->names.sealed;
	return listing->names.sealed + (size_t)(owns->last - listing->own_first) + 1;
}

bool cst_own_has_any_locked(const struct cst_listing *listing)
{
	struct cst_name_view view;
	size_t position = listing->names.sealed;
	return next_until_locked(listing, UINT64_MAX, &position, &view) != NULL;
}

/* ---- answers ---- */

bool cst_own_decides_locked(const struct cst_dir *dir, struct cst_slice name, int64_t asked,
			    const struct cst_own **found)
{
	const struct cst_own *own = *found = cst_own_find_locked(dir, name);
	return own && (own->held || (!own->doubtful && own->at >= asked));
}

static bool same_file(const struct cst_own *own, const struct cst_entry *entry)
{
	struct cst_entry was;
	if (own->gone || own->kind != entry->kind)
		return false;
	if (entry->kind == CST_KIND_DIR)
		return true;
	cst_own_entry(own, &was);
	cst_entry_fini(&was);
	return was.size == entry->size && strcmp(was.etag, entry->etag) == 0;
}

void cst_own_teach_locked(struct cst_dir *dir, struct cst_slice name, int rc, const struct cst_entry *entry,
			  int64_t asked)
{
	if (!dir->owns)
		return;
	struct cst_own *own = *find_place(dir->owns, name);
	if (!own || own->held || asked <= own->at)
		return;
	bool same = rc == 0 ? same_file(own, entry) : own->gone;
	if (same) {
		own->doubtful = false;
		own->at = asked;
		if (rc == 0 && entry->attr && entry->attr != own->attr) {
			cst_object_attr_unref(own->attr);
			own->attr = cst_object_attr_ref(entry->attr);
		}
		return;
	}
	struct cst_own *news = own_new(name, rc == 0 ? entry : NULL);
	news->at = asked;
	news->foreign = true;
	put_locked(dir, news);
}

void cst_own_doubt_locked(struct cst_dir *dir, struct cst_slice name)
{
	if (!dir->owns)
		return;
	struct cst_own *own = *find_place(dir->owns, name);
	if (own && !own->held)
		own->doubtful = true;
}

/* ---- what others call ---- */

static bool is_asked_locked(const struct cst_dir *dir, struct cst_slice name)
{
	const struct cst_dir_probe *p;
	TAILQ_FOREACH (p, &dir->probes, link)
		if (cst_slice_eq(p->name, name))
			return true;
	return false;
}

/* The lock is held and given back. */
static void put_and_unlock(struct cst_dir *dir, struct cst_own *own)
{
	struct cst_listing *listing = NULL;
	uint64_t bytes = 0, names = 0;
	bool asked = is_asked_locked(dir, cst_own_name(own));
	put_locked(dir, own);
	if (dir->owns->count >= dir->owns->sweep_at) {
		cst_own_sweep_locked(dir);
		listing = dir->listing;
	}
	if (listing) {
		cst_listing_ref_locked(listing);
		bytes = cst_listing_bytes_locked(listing);
		names = listing->names.sealed;
	}
	pthread_mutex_unlock(&dir->lock);
	if (listing)
		cst_meta_touch(dir->meta, listing, bytes, names);
	if (asked)
		cst_dir_advance_probes(dir);
	cst_listing_unref(listing);
}

void cst_dir_put(struct cst_dir *dir, const char *name, const struct cst_entry *entry, bool held)
{
	CST_CHECK(dir, CST_DIR_MAGIC);
	struct cst_own *own = own_new(cst_slice_of(name), entry);
	own->held = held;
	if (own->at == 0)
		own->at = cst_meta_now(dir->meta);
	cst_dir_ref(dir);
	pthread_mutex_lock(&dir->lock);
	put_and_unlock(dir, own);
	cst_dir_unref(dir);
}

void cst_dir_put_gone(struct cst_dir *dir, const char *name, int64_t at)
{
	CST_CHECK(dir, CST_DIR_MAGIC);
	struct cst_own *own = own_new(cst_slice_of(name), NULL);
	own->at = at;
	cst_dir_ref(dir);
	pthread_mutex_lock(&dir->lock);
	/* A file may have stood before a prefix of its name. */
	own->doubtful = dir->listing && dir->listing->names.losers > 0;
	put_and_unlock(dir, own);
	cst_dir_unref(dir);
}

void cst_dir_let_go(struct cst_dir *dir, const char *name)
{
	CST_CHECK(dir, CST_DIR_MAGIC);
	pthread_mutex_lock(&dir->lock);
	struct cst_own *own = dir->owns ? *find_place(dir->owns, cst_slice_of(name)) : NULL;
	if (own) {
		own->held = false;
		own->doubtful = true;
		own->at = cst_meta_now(dir->meta);
	}
	pthread_mutex_unlock(&dir->lock);
}

bool cst_dir_is_own(struct cst_dir *dir, const char *name, bool *held)
{
	pthread_mutex_lock(&dir->lock);
	const struct cst_own *own = cst_own_find_locked(dir, cst_slice_of(name));
	const struct cst_listing *now = dir->listing;
	bool holds = own && own->held;
	bool caught_up = own && !holds && now && now->started > own->at &&
			 cst_names_find(&now->names, cst_slice_of(name), &(size_t){0}) != CST_NAMES_UNKNOWN;
	bool is = own && !own->foreign && !caught_up;
	pthread_mutex_unlock(&dir->lock);
	if (held)
		*held = holds;
	return is;
}

void cst_dir_set_empty(struct cst_dir *dir)
{
	CST_CHECK(dir, CST_DIR_MAGIC);
	pthread_mutex_lock(&dir->lock);
	struct cst_listing *listing = cst_listing_new_locked(dir, 1);
	listing->names.complete = true;
	listing->names.has_marker = true;
	listing->pages = 1;
	cst_listing_make_current_locked(dir, listing);
	uint64_t bytes = cst_listing_bytes_locked(listing);
	pthread_mutex_unlock(&dir->lock);
	cst_meta_touch(dir->meta, listing, bytes, 0);
	cst_dir_advance_probes(dir);
	cst_listing_unref(listing);
}

void cst_own_moved_locked(struct cst_dir *dir)
{
	struct cst_owns *owns = dir->owns;
	if (!owns)
		return;
	/* Copies have another time and perhaps another ETag. Listings that are still read need to know what isn't there any more. */
	for (size_t i = 0; i < owns->order_count; i++)
		if (owns->order[i] && !owns->order[i]->gone)
			owns->order[i]->doubtful = true;
	sweep_locked(dir, true);
	if (owns->count == 0)
		cst_own_free_locked(dir);
}
