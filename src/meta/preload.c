/* Preloads: see preload.h.
 *
 * The keys below the base are cut into ranges, each listed front to back by one request after the other. It begins as one range. What the first page
 * has covered of the base's own names tells how many pages there are about, and the names where to cut: into ranges of some pages each, listed in their
 * order, several at a time. A range that goes on for long is cut again, in the middle of the keys that it might still have, as seldom as costs little.
 *
 * A directory that lies in one range is put in place as soon as a key beyond it comes. One that a cut goes through is put together when all its ranges
 * are done.
 *
 *	WAITING -> ASKED (request under way) -> WORKING (its keys are taken) -> WAITING | DONE
 *
 * A range's directories belong to who works on it; in the other states to the lock. */
#include "meta/preload_private.h"

#define PARALLEL 16u
#define CUT_PAGES 8u   /* pages of a range; the last one is half of the next range's */
#define CUTS_MAX 4096u /* names of the base that are remembered */
#define GUESS_PAGES 8u /* pages for each cut that is a guess */
#define AHEAD_PAGES 2u /* that a walk may cost more than it saves */
#define IDLE (5 * CST_NS_PER_S)
#define KEYS_OF_CUT 1000 /* entries of a directory's own page */

enum range_state { RANGE_WAITING, RANGE_ASKED, RANGE_WORKING, RANGE_DONE };

/* What one range has of a directory that goes on in another. */
struct part {
	TAILQ_ENTRY(part) link;
	int64_t started;
	struct cst_names names;
	size_t prefix_len;
	char prefix[];
};

/* An opened directory whose listing a request under way may bring. */
struct joiner {
	TAILQ_ENTRY(joiner) link;
	struct cst_dir *dir;	     /* counted */
	struct cst_listing *listing; /* counted */
};
TAILQ_HEAD(joiners, joiner);

struct cst_range {
	TAILQ_ENTRY(cst_range) link;
	struct cst_preload *p;
	enum range_state state;
	struct cst_buf after; /* its keys come after this one; the next range's ends it */
	struct cst_buf token;
	unsigned pages;
	bool guessed, low; /* cut at a guess; the next guess goes low */
	bool gap;	   /* what lies between the range before and `after` is not listed: a walk has passed it */
	bool folding;
	struct cst_fold fold;
	TAILQ_HEAD(, part) parts;
	struct joiners joiners;
	struct cst_seen seen;
	uint64_t bytes;
	struct cst_buf until; /* while WORKING: where it ends */
};

struct key {
	uint64_t size;
	int64_t mtime;
	enum cst_object_type type;
	size_t len, etag_len; /* both follow */
};

struct page {
	struct cst_meta_op op;
	struct cst_range *range;
	struct cst_preload *p; /* counted */
	struct cst_buf token, after, keys;
	unsigned count;
	int64_t started;
};

static void pump(struct cst_preload *p);
static void walk_passed_locked(struct cst_preload *p, struct cst_slice prefix);
static void note_activity(struct cst_preload *p);

static struct cst_slice base_of(const struct cst_preload *p)
{
	return (struct cst_slice){p->base, p->base_len};
}

static int compare(struct cst_slice a, struct cst_slice b)
{
	size_t len = cst_min(a.len, b.len);
	int c = len ? memcmp(a.data, b.data, len) : 0;
	return c ? c : (a.len > b.len) - (a.len < b.len);
}

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

static void range_free(struct cst_range *r)
{
	CST_ASSERT(TAILQ_EMPTY(&r->joiners));
	range_empty(r);
	cst_buf_fini(&r->after);
	cst_buf_fini(&r->token);
	cst_buf_fini(&r->until);
	free(r);
}

/* After `before`, NULL: the first. */
static struct cst_range *range_add_locked(struct cst_preload *p, struct cst_range *before, struct cst_slice after)
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

static struct cst_slice end_locked(const struct cst_range *r)
{
	const struct cst_range *next = TAILQ_NEXT(r, link);
	return next ? cst_buf_slice(&next->after) : (struct cst_slice){0};
}

/* A cut goes through the directory when the key that ends a range is in it. */
static bool is_cut(const struct cst_buf *at, struct cst_slice prefix)
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
static void dir_closed(void *arg, struct cst_slice prefix, int64_t started, struct cst_names *names)
{
	struct cst_range *r = arg;
	struct cst_preload *p = r->p;
	if (!is_cut(&r->after, prefix) && !is_cut(&r->until, prefix)) {
		put_in_place(p, prefix, started, names);
	} else if (is_cut(&r->after, prefix) &&
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
	while (is_cut(&from->after, prefix)) {
		bool gap = from->gap;
		from = TAILQ_PREV(from, ranges, link);
		if (gap || !from || from->state != RANGE_DONE)
			return false;
	}
	while ((next = TAILQ_NEXT(to, link)) != NULL && is_cut(&next->after, prefix)) {
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
static void put_together_all(struct cst_range *r, struct cst_slice cut)
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

/* ---- the end ---- */

static void end_locked_with(struct cst_preload *p, enum cst_preload_end end)
{
	if (p->progress.end == CST_PRELOAD_RUNNING)
		p->progress.end = end;
}

static bool is_over_locked(const struct cst_preload *p)
{
	const struct cst_range *r;
	if (p->asked > 0 || p->working > 0 || p->base_pending || p->finished)
		return false;
	if (p->progress.end != CST_PRELOAD_RUNNING)
		return true;
	TAILQ_FOREACH (r, &p->ranges, link)
		if (r->state != RANGE_DONE)
			return false;
	return true;
}

static void finish_if_over(struct cst_preload *p)
{
	pthread_mutex_lock(&p->lock);
	bool over = is_over_locked(p);
	if (over) {
		p->finished = true;
		end_locked_with(p, CST_PRELOAD_WHOLE);
		__atomic_store_n(&p->stopped, true, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&p->lock);
	if (!over)
		return;
	cst_preloads_remove(p->meta, p);
	if (p->config.ended)
		p->config.ended(p->config.arg, p, p->progress.end == CST_PRELOAD_FAILED ? &p->err : NULL);
	cst_preload_unref(p);
}

/* What was brought, and what a walk has not come to yet, may take three quarters of the memory for listings: it would put out itself else. */
static bool is_memory_used_up_locked(const struct cst_preload *p)
{
	const struct cst_meta_config *config = &p->meta->config;
	uint64_t bytes = p->installed_bytes, names = p->installed_names,
		 count = cst_max(p->progress.directories, UINT64_C(1));
	if (p->config.ahead) {
		uint64_t opened = cst_min(p->progress.hits, count);
		bytes -= bytes / count * opened;
		names -= names / count * opened;
	}
	return bytes + p->pending_bytes > config->listing_bytes / 4 * 3 ||
	       (config->listing_names > 0 && names > config->listing_names / 4 * 3);
}

/* ---- a page ---- */

static void page_free(struct page *page)
{
	cst_buf_fini(&page->token);
	cst_buf_fini(&page->after);
	cst_buf_fini(&page->keys);
	free(page);
}

static void page_key(void *arg, const struct cst_object_list_entry *entry)
{
	struct page *page = arg;
	const struct cst_object_info *info = &entry->info;
	struct key key = {info->size, info->mtime, info->type, info->key.len, strlen(info->etag)};
	if (entry->is_prefix)
		return;
	cst_buf_add(&page->keys, &key, sizeof(key));
	cst_buf_add_slice(&page->keys, info->key);
	cst_buf_add(&page->keys, info->etag, key.etag_len);
	page->count++;
}

static void page_restart(void *arg)
{
	struct page *page = arg;
	cst_buf_clear(&page->keys);
	page->count = 0;
}

/* The page goes on into a range that nobody has begun: it becomes part of this one. */
static bool absorb_next(struct cst_range *r)
{
	struct cst_preload *p = r->p;
	pthread_mutex_lock(&p->lock);
	struct cst_range *next = TAILQ_NEXT(r, link);
	bool taken = next && next->state == RANGE_WAITING && next->pages == 0 && p->progress.end == CST_PRELOAD_RUNNING;
	if (taken) {
		TAILQ_REMOVE(&p->ranges, next, link);
		range_free(next);
		cst_buf_clear(&r->until);
		cst_buf_add_slice(&r->until, end_locked(r));
	}
	pthread_mutex_unlock(&p->lock);
	return taken;
}

/* Takes the page's keys. True: the range has come to its end. */
static bool take_keys(struct cst_range *r, const struct page *page, int *rc)
{
	struct cst_slice rest = cst_buf_slice(&page->keys);
	for (unsigned i = 0; rest.len > 0 && *rc == 0; i++) {
		struct key head;
		struct cst_object_info info = {0};
		memcpy(&head, rest.data, sizeof(head));
		info.size = head.size;
		info.mtime = head.mtime;
		info.type = head.type;
		info.key = (struct cst_slice){rest.data + sizeof(head), head.len};
		memcpy(info.etag, info.key.data + head.len, head.etag_len);
		rest.data += sizeof(head) + head.len + head.etag_len;
		rest.len -= sizeof(head) + head.len + head.etag_len;
		while (r->until.len > 0 && compare(info.key, cst_buf_slice(&r->until)) > 0)
			if (!absorb_next(r))
				return true;
		*rc = cst_fold_key(&r->fold, info.key, &info, page->started);
		if (i % 16 == 0 && info.key.len > r->p->base_len)
			cst_seen_add(&r->seen,
				     (struct cst_slice){info.key.data + r->p->base_len, info.key.len - r->p->base_len});
	}
	return false;
}

static uint64_t bytes_of(const struct cst_range *r)
{
	uint64_t bytes = r->folding ? cst_fold_bytes(&r->fold) : 0;
	const struct part *part;
	TAILQ_FOREACH (part, &r->parts, link)
		bytes += cst_names_bytes(&part->names);
	return bytes;
}

/* Listings that wait for the request, and that it hasn't brought, are asked for by themselves; or wait once more, when the page's end has cut them. */
static void serve(struct cst_range *r, struct joiners *joiners)
{
	struct cst_preload *p = r->p;
	struct joiner *j;
	while ((j = TAILQ_FIRST(joiners)) != NULL) {
		TAILQ_REMOVE(joiners, j, link);
		pthread_mutex_lock(&j->dir->lock);
		bool waits = j->listing->joined;
		pthread_mutex_lock(&p->lock);
		const struct cst_fold_dir *cut = waits && r->state == RANGE_ASKED && r->folding
							 ? cst_fold_find(&r->fold, cst_dir_prefix(j->dir))
							 : NULL;
		bool again = cut && cut->names.count < KEYS_OF_CUT && !is_cut(&r->after, cst_dir_prefix(j->dir));
		if (again)
			TAILQ_INSERT_TAIL(&r->joiners, j, link);
		else if (waits)
			walk_passed_locked(p, cst_dir_prefix(j->dir));
		pthread_mutex_unlock(&p->lock);
		if (waits && !again)
			j->listing->joined = false;
		pthread_mutex_unlock(&j->dir->lock);
		if (again)
			continue;
		if (waits)
			cst_listing_kick(j->listing);
		cst_listing_unref(j->listing);
		cst_dir_unref(j->dir);
		free(j);
	}
}

static void plan_locked(struct cst_preload *p);

/* Cuts what the range may still have in two. */
static void guess_locked(struct cst_range *r)
{
	struct cst_preload *p = r->p;
	const struct cst_range *at;
	CST_AUTO_BUF cut = CST_BUF_INIT;
	struct cst_slice last = cst_buf_slice(&r->fold.last), end = end_locked(r);
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
	struct cst_range *made = range_add_locked(p, r, cst_buf_slice(&cut));
	made->guessed = true;
	made->seen = r->seen;
	p->guesses++;
}

/* What the page tells besides its keys; the range waits for its next turn or is done. */
static void after_page_locked(struct cst_range *r, bool over, bool truncated, unsigned count)
{
	struct cst_preload *p = r->p;
	struct cst_range *next, *before = TAILQ_PREV(r, ranges, link);
	r->state = over ? RANGE_DONE : RANGE_WAITING;
	if (r->guessed && r->pages == 1 && before && over && r->fold.any == false)
		before->low = true;
	/* The store has nothing after this. */
	while (!truncated && !over && (next = TAILQ_NEXT(r, link)) != NULL && next->state == RANGE_WAITING &&
	       next->pages == 0) {
		TAILQ_REMOVE(&p->ranges, next, link);
		range_free(next);
	}
	p->first_done = true;
	p->answered++;
	if (!p->planned && !p->base_pending)
		plan_locked(p);
	p->progress.keys += count;
	if (!over)
		guess_locked(r);
	if (p->config.ahead && p->answered >= AHEAD_PAGES && p->progress.directories + 1 < p->answered)
		end_locked_with(p, CST_PRELOAD_NO_GAIN);
}

static void work(struct page *page, bool truncated, int *rc)
{
	struct cst_range *r = page->range;
	struct cst_preload *p = r->p;
	if (!r->folding) {
		cst_fold_init(&r->fold, base_of(p), page->started);
		r->fold.close = dir_closed;
		r->fold.arg = r;
		r->folding = true;
	}
	bool over = take_keys(r, page, rc) || !truncated;
	if (*rc == 0 && over)
		cst_fold_end(&r->fold);
	else
		cst_fold_page(&r->fold);
	uint64_t bytes = bytes_of(r);
	CST_AUTO_BUF end = CST_BUF_INIT;
	pthread_mutex_lock(&p->lock);
	p->pending_bytes += bytes - r->bytes;
	r->bytes = bytes;
	if (*rc == 0 && is_memory_used_up_locked(p))
		end_locked_with(p, CST_PRELOAD_FULL);
	cst_buf_add_slice(&end, cst_buf_slice(&r->until));
	if (*rc == 0)
		after_page_locked(r, over, truncated, page->count);
	bool done = r->state == RANGE_DONE;
	pthread_mutex_unlock(&p->lock);
	if (!done)
		return;
	put_together_all(r, cst_buf_slice(&r->after));
	put_together_all(r, cst_buf_slice(&end));
}

static void page_done(void *arg, int rc, const struct cst_object_list_page *result, const struct cst_error *err)
{
	struct page *page = arg;
	struct cst_preload *p = page->p;
	struct cst_range *r = page->range;
	struct joiners joiners = TAILQ_HEAD_INITIALIZER(joiners);
	note_activity(p);
	pthread_mutex_lock(&p->lock);
	p->asked--;
	p->working++;
	r->state = RANGE_WORKING;
	r->pages++;
	TAILQ_CONCAT(&joiners, &r->joiners, link);
	cst_buf_clear(&r->until);
	cst_buf_add_slice(&r->until, end_locked(r));
	cst_buf_clear(&r->token);
	if (rc == 0 && result->truncated)
		cst_buf_add_slice(&r->token, result->next_token);
	bool forgotten = rc == -EINVAL && page->token.len > 0 && r->folding && r->fold.any;
	bool stopped = p->progress.end != CST_PRELOAD_RUNNING;
	pthread_mutex_unlock(&p->lock);
	if (rc == 0 && !stopped)
		work(page, result->truncated, &rc);
	pthread_mutex_lock(&p->lock);
	if (r->state == RANGE_WORKING)
		r->state = RANGE_WAITING;
	if (rc < 0 && !forgotten && !stopped) { /* a forgotten token: goes on after the last key */
		if (rc != -EDOM && err)
			p->err = *err;
		end_locked_with(p, rc == -EDOM	      ? CST_PRELOAD_UNSORTED
				   : rc == -ECANCELED ? CST_PRELOAD_CANCELLED
						      : CST_PRELOAD_FAILED);
	}
	pthread_mutex_unlock(&p->lock);
	pump(p);
	serve(r, &joiners);
	pthread_mutex_lock(&p->lock);
	p->working--;
	pthread_mutex_unlock(&p->lock);
	pump(p);
	finish_if_over(p);
	cst_preload_unref(p);
	if (cst_meta_op_end(&page->op))
		page_free(page);
}

static struct page *page_new_locked(struct cst_range *r)
{
	struct cst_preload *p = r->p;
	struct page *page = CST_NEW(struct page);
	page->range = r;
	page->p = p;
	page->started = cst_meta_now(p->meta);
	cst_ref_get(&p->ref);
	if (r->token.len > 0)
		cst_buf_add_slice(&page->token, cst_buf_slice(&r->token));
	else if (r->folding && r->fold.any)
		cst_buf_add_slice(&page->after, cst_buf_slice(&r->fold.last));
	else
		cst_buf_add_slice(&page->after, cst_buf_slice(&r->after));
	r->state = RANGE_ASKED;
	p->asked++;
	p->progress.pages++;
	return page;
}

static void page_send(struct page *page)
{
	static const struct cst_object_list_ops ops = {page_key, page_restart, page_done};
	struct cst_preload *p = page->p;
	struct cst_meta *meta = p->meta;
	struct cst_object_list list = {
		.prefix = base_of(p),
		.token = cst_buf_slice(&page->token),
		.start_after = cst_buf_slice(&page->after),
		.max_keys = 1000,
	};
	cst_meta_op_begin(meta, &page->op);
	cst_ref_get(&p->ref);
	pthread_mutex_lock(&meta->lock);
	page->op.owner = p;
	meta->lists++;
	pthread_mutex_unlock(&meta->lock);
	struct cst_object_op *op = cst_object_list(meta->config.bucket, &list, &ops, page);
	if (!cst_meta_op_started(&page->op, op))
		page_free(page);
	if (__atomic_load_n(&p->stopped, __ATOMIC_ACQUIRE)) /* it may have come a moment too late for that */
		cst_meta_cancel(meta, p);
	cst_preload_unref(p);
}

/* A walk that was quicker has listed all until there by itself: the range goes on beyond, or there is nothing left of it. */
static void catch_up_locked(struct cst_range *r)
{
	struct cst_preload *p = r->p;
	struct cst_slice walk = cst_buf_slice(&p->walk), end = end_locked(r);
	bool begun = r->folding && r->fold.any;
	if (walk.len == 0 || compare(begun ? cst_buf_slice(&r->fold.last) : cst_buf_slice(&r->after), walk) >= 0)
		return;
	p->pending_bytes -= r->bytes;
	r->bytes = 0;
	range_empty(r);
	if (end.len > 0 && compare(end, walk) <= 0) {
		r->state = RANGE_DONE;
		r->gap = true;
		return;
	}
	cst_buf_clear(&r->after);
	cst_buf_add_slice(&r->after, walk);
	r->gap = true;
}

/* Sends requests for the ranges whose turn it is. */
static void pump(struct cst_preload *p)
{
	for (;;) {
		struct page *page = NULL;
		struct cst_range *r;
		pthread_mutex_lock(&p->lock);
		if (cst_meta_is_stopping(p->meta))
			end_locked_with(p, CST_PRELOAD_CANCELLED);
		bool may = p->progress.end == CST_PRELOAD_RUNNING && p->asked < p->config.parallel &&
			   (!p->config.ahead || p->progress.pages < AHEAD_PAGES + p->progress.hits);
		TAILQ_FOREACH (r, &p->ranges, link) {
			if (r->state == RANGE_WAITING)
				catch_up_locked(r);
			if (r->state == RANGE_WAITING)
				break;
		}
		if (may && r)
			page = page_new_locked(r);
		pthread_mutex_unlock(&p->lock);
		if (!page)
			return;
		page_send(page);
	}
}

/* ---- where to cut ---- */

static void collect_cut(struct cst_preload *p, const struct cst_name_view *view)
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
static void plan_locked(struct cst_preload *p)
{
	struct cst_range *first = TAILQ_FIRST(&p->ranges), *at = first;
	size_t covered = 0;
	p->planned = true;
	if (first->state == RANGE_DONE || TAILQ_NEXT(first, link) || !first->folding)
		return;
	struct cst_slice last = cst_buf_slice(&first->fold.last), begin = {p->first, p->first_len};
	size_t passed = 0; /* before the first page, of a walk */
	for (size_t i = 0; i < p->cut_count; i++) {
		int order = compare(cst_slice_of(p->cuts[i]), last);
		passed += begin.len > 0 && compare(cst_slice_of(p->cuts[i]), begin) < 0;
		covered += order <= 0;
	}
	size_t seen = covered > passed ? (covered - passed) / cst_max(first->pages, 1u) : 1;
	seen = cst_max(seen, (size_t)1);
	/* Where a range ends with a page exactly, another one is needed to see that. */
	size_t step = seen * CUT_PAGES - seen / 2;
	for (size_t i = covered + step; i < p->cut_count; i += step)
		at = range_add_locked(p, at, cst_slice_of(p->cuts[i]));
}

static void base_known(struct cst_preload *p)
{
	struct cst_dir *dir = p->config.dir;
	pthread_mutex_lock(&dir->lock);
	const struct cst_names *names = &p->base_listing->names;
	for (size_t i = 0; i < names->sealed && !names->unsorted && p->cut_count < CUTS_MAX; i++) {
		struct cst_name_view view;
		if (cst_names_flags(names, i) & CST_NAME_HIDDEN)
			continue;
		cst_names_get(names, i, &view);
		collect_cut(p, &view);
	}
	pthread_mutex_unlock(&dir->lock);
	pthread_mutex_lock(&p->lock);
	p->base_pending = false;
	/* While its first range is being worked on, who works plans. */
	if (p->first_done && !p->planned && TAILQ_FIRST(&p->ranges)->state != RANGE_WORKING)
		plan_locked(p);
	pthread_mutex_unlock(&p->lock);
	pump(p);
	finish_if_over(p);
	cst_preload_unref(p);
}

static void base_came(struct cst_listing_wait *wait)
{
	base_known(cst_container_of(wait, struct cst_preload, base_wait));
}

/* The first page of the base's own names; who opens the base uses it too. */
static void ask_base(struct cst_preload *p)
{
	struct cst_dir *dir = p->config.dir;
	pthread_mutex_lock(&dir->lock);
	struct cst_listing *listing = dir->listing;
	if (!cst_listing_is_fresh_locked(listing))
		listing = cst_listing_start_locked(dir, 1);
	cst_listing_ref_locked(listing);
	p->base_listing = listing;
	bool ready = listing->pages > 0 || listing->rc < 0;
	if (!ready) {
		listing->wanted_pages = cst_max(listing->wanted_pages, 1u);
		p->base_wait.done = base_came;
		p->base_wait.queued = true;
		TAILQ_INSERT_TAIL(&listing->waits, &p->base_wait, link);
	}
	pthread_mutex_unlock(&dir->lock);
	if (ready)
		base_known(p);
	else
		cst_listing_kick(listing);
}

/* ---- who waits for a request of a preload ---- */

/* The walk lists the directory by itself: what lies before its end needn't be listed for it any more. */
static void walk_passed_locked(struct cst_preload *p, struct cst_slice prefix)
{
	CST_AUTO_BUF end = CST_BUF_INIT;
	if (!p->config.ahead)
		return;
	cst_buf_add(&end, prefix.data, prefix.len - 1);
	cst_buf_add_char(&end, '/' + 1);
	if (compare(cst_buf_slice(&end), cst_buf_slice(&p->walk)) > 0) {
		cst_buf_clear(&p->walk);
		cst_buf_add_slice(&p->walk, cst_buf_slice(&end));
	}
}

static bool may_bring_locked(const struct cst_range *r, struct cst_slice prefix)
{
	struct cst_slice end = end_locked(r);
	if (r->state != RANGE_ASKED || is_cut(&r->after, prefix) || compare(cst_buf_slice(&r->after), prefix) > 0 ||
	    (end.len > 0 && (compare(end, prefix) < 0 || cst_slice_starts(end, prefix))))
		return false;
	if (!r->folding || !r->fold.any || compare(cst_buf_slice(&r->fold.last), prefix) < 0)
		return true;
	const struct cst_fold_dir *open = cst_fold_find(&r->fold, prefix);
	return open && open->names.count < KEYS_OF_CUT;
}

bool cst_preload_covers(const struct cst_preload *p, struct cst_slice prefix)
{
	return prefix.len > p->base_len && cst_slice_starts(prefix, base_of(p)) &&
	       compare((struct cst_slice){p->first, p->first_len}, prefix) < 0;
}

bool cst_preload_try_join(struct cst_preload *p, struct cst_dir *dir, struct cst_listing *listing)
{
	struct cst_slice prefix = cst_dir_prefix(dir);
	struct cst_range *r;
	if (!cst_preload_covers(p, prefix))
		return false;
	pthread_mutex_lock(&p->lock);
	TAILQ_FOREACH (r, &p->ranges, link)
		if (p->progress.end == CST_PRELOAD_RUNNING && may_bring_locked(r, prefix))
			break;
	if (r) {
		struct joiner *j = CST_NEW(struct joiner);
		j->dir = cst_dir_ref(dir);
		j->listing = listing;
		cst_listing_ref_locked(listing);
		TAILQ_INSERT_TAIL(&r->joiners, j, link);
	} else {
		walk_passed_locked(p, prefix);
	}
	pthread_mutex_unlock(&p->lock);
	return r != NULL;
}

static void note_activity(struct cst_preload *p)
{
	__atomic_store_n(&p->active_at, cst_meta_now(p->meta), __ATOMIC_RELAXED);
}

bool cst_preload_is_idle(const struct cst_preload *p)
{
	return p->config.ahead && cst_meta_now(p->meta) - __atomic_load_n(&p->active_at, __ATOMIC_RELAXED) > IDLE;
}

void cst_preload_was_hit(struct cst_preload *p)
{
	note_activity(p);
	pthread_mutex_lock(&p->lock);
	p->progress.hits++;
	pthread_mutex_unlock(&p->lock);
	pump(p);
}

/* ---- the whole ---- */

struct cst_preload *cst_preload_start(const struct cst_preload_config *config)
{
	struct cst_preload *p = CST_NEW(struct cst_preload);
	CST_AUTO_BUF base = CST_BUF_INIT;
	cst_dir_add_prefix(config->dir, &base);
	p->magic = CST_PRELOAD_MAGIC;
	cst_ref_init(&p->ref);
	cst_ref_get(&p->ref); /* its own */
	cst_ref_get(&p->ref); /* ask_base's */
	p->config = *config;
	p->meta = config->dir->meta;
	cst_dir_ref(config->dir);
	if (!p->config.parallel)
		p->config.parallel = PARALLEL;
	p->base = cst_xstrndup(base.len ? base.data : "", base.len);
	p->base_len = base.len;
	p->first = cst_xstrndup(config->after.data ? config->after.data : "", config->after.len);
	p->first_len = config->after.len;
	p->config.after = (struct cst_slice){p->first, p->first_len};
	pthread_mutex_init(&p->lock, NULL);
	TAILQ_INIT(&p->ranges);
	range_add_locked(p, NULL, p->config.after);
	p->base_pending = true;
	note_activity(p);
	cst_preloads_add(p->meta, p);
	pump(p);
	ask_base(p);
	return p;
}

/* Who waits for the base's own page no longer does. */
static void leave_base(struct cst_preload *p)
{
	struct cst_dir *dir = p->config.dir;
	pthread_mutex_lock(&dir->lock);
	struct cst_listing *listing = p->base_listing;
	pthread_mutex_unlock(&dir->lock);
	if (!listing || !cst_listing_leave(listing, &p->base_wait))
		return;
	pthread_mutex_lock(&p->lock);
	p->base_pending = false;
	pthread_mutex_unlock(&p->lock);
	cst_preload_unref(p);
}

void cst_preload_cancel(struct cst_preload *p)
{
	CST_CHECK(p, CST_PRELOAD_MAGIC);
	__atomic_store_n(&p->stopped, true, __ATOMIC_RELEASE);
	cst_ref_get(&p->ref);
	pthread_mutex_lock(&p->lock);
	end_locked_with(p, CST_PRELOAD_CANCELLED);
	pthread_mutex_unlock(&p->lock);
	cst_meta_cancel(p->meta, p);
	leave_base(p);
	finish_if_over(p);
	cst_preload_unref(p);
}

void cst_preload_progress(struct cst_preload *p, struct cst_preload_progress *progress)
{
	pthread_mutex_lock(&p->lock);
	*progress = p->progress;
	if (!p->finished)
		progress->end = CST_PRELOAD_RUNNING;
	pthread_mutex_unlock(&p->lock);
}

void cst_preload_unref(struct cst_preload *p)
{
	struct cst_range *r;
	if (!p || !cst_ref_put(&p->ref))
		return;
	CST_CHECK(p, CST_PRELOAD_MAGIC);
	while ((r = TAILQ_FIRST(&p->ranges)) != NULL) {
		TAILQ_REMOVE(&p->ranges, r, link);
		range_free(r);
	}
	cst_listing_unref(p->base_listing);
	cst_dir_unref(p->config.dir);
	cst_buf_fini(&p->walk);
	for (size_t i = 0; i < p->cut_count; i++)
		free(p->cuts[i]);
	free(p->cuts);
	free(p->base);
	free(p->first);
	pthread_mutex_destroy(&p->lock);
	p->magic = 0;
	free(p);
}
