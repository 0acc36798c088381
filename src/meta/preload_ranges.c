/* The ranges of a preload (preload.h): what lies in which, directories that a cut goes through, and where to cut. */
#include "meta/preload_ranges.h"

#define CUT_PAGES 8u   /* pages of a range; the last one is half of the next range's */
#define GUESS_PAGES 8u /* pages for each cut that is a guess */

/* What one range has of a directory that goes on in another. */
struct part {
	TAILQ_ENTRY(part) link;
	int64_t started;
	struct cst_names names;
	size_t prefix_len;
	char prefix[];
};

/* ---- ranges ---- */

static void range_empty(struct cst_range *r)
{
	struct part *part;
	while ((part = TAILQ_FIRST(&r->parts)) != NULL) {
		TAILQ_REMOVE(&r->parts, part, link);
		cst_names_fini(&part->names);
		free(part);
	}
	if (r->folding)
		cst_fold_fini(&r->fold);
	r->folding = false;
	cst_buf_clear(&r->token);
}

void cst_range_free(struct cst_range *r)
{
	CST_ASSERT(TAILQ_EMPTY(&r->joiners));
	range_empty(r);
	cst_buf_fini(&r->after);
	cst_buf_fini(&r->token);
	cst_buf_fini(&r->until);
	free(r);
}

/* After `before`, NULL: the first. */
struct cst_range *cst_range_add_locked(struct cst_preload *p, struct cst_range *before, struct cst_slice after)
{
	struct cst_range *r = CST_NEW(struct cst_range);
	r->p = p;
	TAILQ_INIT(&r->parts);
	TAILQ_INIT(&r->joiners);
	cst_buf_add_slice(&r->after, after);
	if (before)
		TAILQ_INSERT_AFTER(&p->ranges, before, r, link);
	else
		TAILQ_INSERT_TAIL(&p->ranges, r, link);
	return r;
}

struct cst_slice cst_range_end_locked(const struct cst_range *r)
{
	const struct cst_range *next = TAILQ_NEXT(r, link);
	return next ? cst_buf_slice(&next->after) : (struct cst_slice){0};
}

/* A cut goes through the directory when the key that ends a range is in it. */
bool cst_range_is_cut(const struct cst_buf *at, struct cst_slice prefix)
{
	return at->len > 0 && cst_slice_starts(cst_buf_slice(at), prefix);
}

static void put_in_place(struct cst_preload *p, struct cst_slice prefix, int64_t started, struct cst_names *names)
{
	struct cst_dir *dir = p->config.find ? p->config.find(p->config.find_arg, prefix) : NULL;
	if (!dir && prefix.len == p->base_len && cst_dir_has_prefix(p->config.dir, prefix))
		dir = cst_dir_ref(p->config.dir);
	struct cst_installed installed = {.dir = dir, .started = started, .refreshed = started, .preload = p->id};
	if (cst_preload_install(p->meta, prefix, names, &installed)) {
		pthread_mutex_lock(&p->lock);
		p->progress.directories++;
		p->installed_bytes += installed.bytes;
		p->installed_names += installed.names;
		pthread_mutex_unlock(&p->lock);
	}
	cst_dir_unref(dir);
}

/* No key of the range is in the directory any more. Called while WORKING. */
void cst_range_dir_closed(void *arg, struct cst_slice prefix, int64_t started, struct cst_names *names)
{
	struct cst_range *r = arg;
	struct cst_preload *p = r->p;
	if (!cst_range_is_cut(&r->after, prefix) && !cst_range_is_cut(&r->until, prefix)) {
		put_in_place(p, prefix, started, names);
	} else if (cst_range_is_cut(&r->after, prefix) &&
		   (r->gap ||
		    (p->first_len > 0 && cst_slice_starts((struct cst_slice){p->first, p->first_len}, prefix)))) {
		cst_names_fini(names); /* begins before what is listed: never whole */
	} else {
		struct part *part = cst_xcalloc(1, sizeof(*part) + prefix.len + 1);
		cst_names_seal(names, false);
		part->started = started;
		part->names = *names;
		part->prefix_len = prefix.len;
		memcpy(part->prefix, prefix.len ? prefix.data : "", prefix.len);
		*names = (struct cst_names){0};
		TAILQ_INSERT_TAIL(&r->parts, part, link);
	}
}

static struct part *part_of(struct cst_range *r, struct cst_slice prefix)
{
	struct part *part;
	TAILQ_FOREACH (part, &r->parts, link)
		if (cst_slice_eq((struct cst_slice){part->prefix, part->prefix_len}, prefix))
			return part;
	return NULL;
}

/* The parts of a directory, in order, when all ranges that it lies in are done. False: they are not, or there is nothing. */
static bool gather_locked(struct cst_range *r, struct cst_slice prefix, struct part **parts, size_t *count)
{
	struct cst_range *from = r, *to = r, *next;
	while (cst_range_is_cut(&from->after, prefix)) {
		bool gap = from->gap;
		from = TAILQ_PREV(from, ranges, link);
		if (gap || !from || from->state != RANGE_DONE)
			return false;
	}
	while ((next = TAILQ_NEXT(to, link)) != NULL && cst_range_is_cut(&next->after, prefix)) {
		to = next;
		if (to->gap || to->state != RANGE_DONE)
			return false;
	}
	*count = 0;
	for (struct cst_range *at = from;; at = TAILQ_NEXT(at, link)) {
		struct part *part = part_of(at, prefix);
		if (part) {
			uint64_t bytes = cst_names_bytes(&part->names);
			TAILQ_REMOVE(&at->parts, part, link);
			at->bytes -= bytes;
			r->p->pending_bytes -= bytes;
			parts[(*count)++] = part;
		}
		if (at == to)
			break;
	}
	return *count > 0;
}

static void put_together(struct cst_range *r, struct cst_slice prefix)
{
	struct cst_preload *p = r->p;
	size_t ranges = 0, count = 0;
	struct cst_range *at;
	pthread_mutex_lock(&p->lock);
	TAILQ_FOREACH (at, &p->ranges, link)
		ranges++;
	struct part **parts = cst_xcalloc(ranges, sizeof(*parts));
	bool whole = gather_locked(r, prefix, parts, &count);
	pthread_mutex_unlock(&p->lock);
	if (whole) {
		struct part *first = parts[0];
		for (size_t i = 1; i < count; i++) {
			cst_fold_append(&first->names, &parts[i]->names);
			first->started = cst_min(first->started, parts[i]->started);
			free(parts[i]);
		}
		put_in_place(p, prefix, first->started, &first->names);
		free(first);
	}
	free(parts);
}

/* The range is done: directories that the cuts at its ends go through may be whole now. */
void cst_range_put_together(struct cst_range *r, struct cst_slice cut)
{
	struct cst_slice base = base_of(r->p);
	CST_AUTO_BUF key = CST_BUF_INIT; /* ranges may go meanwhile */
	cst_buf_add_slice(&key, cut);
	for (size_t len = key.len; len > 0 && len >= base.len; len--)
		if (key.data[len - 1] == '/')
			put_together(r, (struct cst_slice){key.data, len});
	if (base.len == 0 && key.len > 0)
		put_together(r, base);
}

/* The page goes on into a range that nobody has begun: it becomes part of this one. */
bool cst_range_absorb_next(struct cst_range *r)
{
	struct cst_preload *p = r->p;
	pthread_mutex_lock(&p->lock);
	struct cst_range *next = TAILQ_NEXT(r, link);
	bool taken = next && next->state == RANGE_WAITING && next->pages == 0 && p->progress.end == CST_PRELOAD_RUNNING;
	if (taken) {
		TAILQ_REMOVE(&p->ranges, next, link);
		cst_range_free(next);
		cst_buf_clear(&r->until);
		cst_buf_add_slice(&r->until, cst_range_end_locked(r));
	}
	pthread_mutex_unlock(&p->lock);
	return taken;
}

uint64_t cst_range_bytes(const struct cst_range *r)
{
	uint64_t bytes = r->folding ? cst_fold_bytes(&r->fold) : 0;
	const struct part *part;
	TAILQ_FOREACH (part, &r->parts, link)
		bytes += cst_names_bytes(&part->names);
	return bytes;
}

bool cst_range_may_bring_locked(const struct cst_range *r, struct cst_slice prefix)
{
	struct cst_slice end = cst_range_end_locked(r);
	if (r->state != RANGE_ASKED || cst_range_is_cut(&r->after, prefix) ||
	    cst_key_compare(cst_buf_slice(&r->after), prefix) > 0 ||
	    (end.len > 0 && (cst_key_compare(end, prefix) < 0 || cst_slice_starts(end, prefix))))
		return false;
	if (!r->folding || !r->fold.any || cst_key_compare(cst_buf_slice(&r->fold.last), prefix) < 0)
		return true;
	const struct cst_fold_dir *open = cst_fold_find(&r->fold, prefix);
	return open && open->names.count < KEYS_OF_CUT;
}

/* The walk lists the directory by itself: what lies before its end needn't be listed for it any more. */
void cst_preload_walk_passed_locked(struct cst_preload *p, struct cst_slice prefix)
{
	CST_AUTO_BUF end = CST_BUF_INIT;
	if (!p->config.ahead)
		return;
	cst_buf_add(&end, prefix.data, prefix.len - 1);
	cst_buf_add_char(&end, '/' + 1);
	if (cst_key_compare(cst_buf_slice(&end), cst_buf_slice(&p->walk)) > 0) {
		cst_buf_clear(&p->walk);
		cst_buf_add_slice(&p->walk, cst_buf_slice(&end));
	}
}

/* A walk that was quicker has listed all until there by itself: the range goes on beyond, or there is nothing left of it. */
void cst_range_catch_up_locked(struct cst_range *r)
{
	struct cst_preload *p = r->p;
	struct cst_slice walk = cst_buf_slice(&p->walk), end = cst_range_end_locked(r);
	bool begun = r->folding && r->fold.any;
	if (walk.len == 0 ||
	    cst_key_compare(begun ? cst_buf_slice(&r->fold.last) : cst_buf_slice(&r->after), walk) >= 0)
		return;
	p->pending_bytes -= r->bytes;
	r->bytes = 0;
	range_empty(r);
	if (end.len > 0 && cst_key_compare(end, walk) <= 0) {
		r->state = RANGE_DONE;
		r->gap = true;
		TAILQ_NEXT(r, link)->gap = true;
		return;
	}
	cst_buf_clear(&r->after);
	cst_buf_add_slice(&r->after, walk);
	r->gap = true;
}

/* ---- where to cut ---- */

void cst_preload_add_cut(struct cst_preload *p, const struct cst_name_view *view)
{
	/* A directory begins right after this. */
	const char *tail = view->kind == CST_KIND_DIR ? "." : "";
	char *cut = cst_xasprintf("%.*s%.*s%s", (int)p->base_len, p->base, (int)view->name.len, view->name.data, tail);
	if (p->cut_count > 0 && strcmp(cut, p->cuts[p->cut_count - 1]) <= 0) {
		free(cut);
		return;
	}
	p->cuts = cst_xrealloc(p->cuts, (p->cut_count + 1) * sizeof(*p->cuts));
	p->cuts[p->cut_count++] = cut;
}

/* The range that has come as far as the first page, and has not ended, is cut where names of the base begin: about CUT_PAGES pages each. */
void cst_preload_plan_locked(struct cst_preload *p)
{
	struct cst_range *first = TAILQ_FIRST(&p->ranges), *at = first;
	size_t covered = 0;
	p->planned = true;
	if (first->state == RANGE_DONE || TAILQ_NEXT(first, link) || !first->folding)
		return;
	struct cst_slice last = cst_buf_slice(&first->fold.last), begin = {p->first, p->first_len};
	size_t passed = 0; /* before the first page, of a walk */
	for (size_t i = 0; i < p->cut_count; i++) {
		int order = cst_key_compare(cst_slice_of(p->cuts[i]), last);
		passed += begin.len > 0 && cst_key_compare(cst_slice_of(p->cuts[i]), begin) < 0;
		covered += order <= 0;
	}
	size_t seen = covered > passed ? (covered - passed) / cst_max(first->pages, 1u) : 1;
	seen = cst_max(seen, (size_t)1);
	/* Where a range ends with a page exactly, another one is needed to see that. */
	size_t step = seen * CUT_PAGES - seen / 2;
	for (size_t i = covered + step; i < p->cut_count; i += step)
		at = cst_range_add_locked(p, at, cst_slice_of(p->cuts[i]));
}

/* Cuts what the range may still have in two. */
void cst_range_guess_locked(struct cst_range *r)
{
	struct cst_preload *p = r->p;
	const struct cst_range *at;
	CST_AUTO_BUF cut = CST_BUF_INIT;
	struct cst_slice last = cst_buf_slice(&r->fold.last), end = cst_range_end_locked(r);
	unsigned expected = TAILQ_NEXT(TAILQ_FIRST(&p->ranges), link) ? 2 * CUT_PAGES : 3;
	if (p->config.ahead || r->pages < expected || p->progress.pages < GUESS_PAGES * (p->guesses + 1) ||
	    p->asked + p->working >= p->config.parallel)
		return;
	TAILQ_FOREACH (at, &p->ranges, link)
		if (at->state == RANGE_WAITING && at->pages == 0)
			return;
	cst_buf_add_slice(&cut, base_of(p));
	struct cst_slice low = {last.data + p->base_len, last.len - p->base_len};
	if (end.len > 0)
		end = (struct cst_slice){end.data + p->base_len, end.len - p->base_len};
	if (!cst_seen_between(&r->seen, low, end, r->low, &cut))
		return;
	struct cst_range *made = cst_range_add_locked(p, r, cst_buf_slice(&cut));
	made->guessed = true;
	made->seen = r->seen;
	p->guesses++;
}
