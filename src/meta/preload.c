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
#include "meta/preload_ranges.h"

#define PARALLEL 16u
#define AHEAD_PAGES 2u /* that a walk may cost more than it saves */
#define IDLE (5 * CST_NS_PER_S)

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
static void note_activity(struct cst_preload *p);

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
		while (r->until.len > 0 && cst_key_compare(info.key, cst_buf_slice(&r->until)) > 0)
			if (!cst_range_absorb_next(r))
				return true;
		/* A store that knows no start-after begins anew. */
		bool early =
			r->after.len > 0 && !r->fold.any && cst_key_compare(info.key, cst_buf_slice(&r->after)) < 0;
		*rc = early ? -EDOM : cst_fold_key(&r->fold, info.key, &info, page->started);
		if (i % 16 == 0 && info.key.len > r->p->base_len)
			cst_seen_add(&r->seen,
				     (struct cst_slice){info.key.data + r->p->base_len, info.key.len - r->p->base_len});
	}
	return false;
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
		bool again =
			cut && cut->names.count < KEYS_OF_CUT && !cst_range_is_cut(&r->after, cst_dir_prefix(j->dir));
		if (again)
			TAILQ_INSERT_TAIL(&r->joiners, j, link);
		else if (waits)
			cst_preload_walk_passed_locked(p, cst_dir_prefix(j->dir));
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

/* What the page tells besides its keys; the range waits for its next turn or is done. */
static void after_page_locked(struct cst_range *r, bool over, bool last, unsigned count)
{
	struct cst_preload *p = r->p;
	struct cst_range *next, *before = TAILQ_PREV(r, ranges, link);
	r->state = over ? RANGE_DONE : RANGE_WAITING;
	if (r->guessed && r->pages == 1 && before && over && r->fold.any == false)
		before->low = true;
	/* The store has nothing after this. */
	while (last && (next = TAILQ_NEXT(r, link)) != NULL && next->state == RANGE_WAITING && next->pages == 0) {
		TAILQ_REMOVE(&p->ranges, next, link);
		cst_range_free(next);
	}
	p->first_done = true;
	p->answered++;
	if (!p->planned && !p->base_pending)
		cst_preload_plan_locked(p);
	p->progress.keys += count;
	if (!over)
		cst_range_guess_locked(r);
	if (p->config.ahead && p->answered >= AHEAD_PAGES && p->progress.directories + 1 < p->answered)
		end_locked_with(p, CST_PRELOAD_NO_GAIN);
}

static void work(struct page *page, bool truncated, int *rc)
{
	struct cst_range *r = page->range;
	struct cst_preload *p = r->p;
	if (!r->folding) {
		cst_fold_init(&r->fold, base_of(p), page->started);
		r->fold.close = cst_range_dir_closed;
		r->fold.arg = r;
		r->folding = true;
	}
	bool beyond = take_keys(r, page, rc), over = beyond || !truncated;
	if (*rc == 0 && over)
		cst_fold_end(&r->fold);
	else
		cst_fold_page(&r->fold);
	uint64_t bytes = cst_range_bytes(r);
	CST_AUTO_BUF end = CST_BUF_INIT;
	pthread_mutex_lock(&p->lock);
	p->pending_bytes += bytes - r->bytes;
	r->bytes = bytes;
	if (*rc == 0 && is_memory_used_up_locked(p))
		end_locked_with(p, CST_PRELOAD_FULL);
	cst_buf_add_slice(&end, cst_buf_slice(&r->until));
	if (*rc == 0)
		after_page_locked(r, over, over && !beyond, page->count);
	bool done = r->state == RANGE_DONE;
	pthread_mutex_unlock(&p->lock);
	if (!done)
		return;
	cst_range_put_together(r, cst_buf_slice(&r->after));
	cst_range_put_together(r, cst_buf_slice(&end));
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
	cst_buf_add_slice(&r->until, cst_range_end_locked(r));
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
				cst_range_catch_up_locked(r);
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

/* ---- names of the base ---- */

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
		cst_preload_add_cut(p, &view);
	}
	pthread_mutex_unlock(&dir->lock);
	pthread_mutex_lock(&p->lock);
	p->base_pending = false;
	/* While its first range is being worked on, who works plans. */
	if (p->first_done && !p->planned && TAILQ_FIRST(&p->ranges)->state != RANGE_WORKING)
		cst_preload_plan_locked(p);
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

bool cst_preload_covers(const struct cst_preload *p, struct cst_slice prefix)
{
	return prefix.len > p->base_len && cst_slice_starts(prefix, base_of(p)) &&
	       cst_key_compare((struct cst_slice){p->first, p->first_len}, prefix) < 0;
}

bool cst_preload_try_join(struct cst_preload *p, struct cst_dir *dir, struct cst_listing *listing)
{
	struct cst_slice prefix = cst_dir_prefix(dir);
	struct cst_range *r;
	if (!cst_preload_covers(p, prefix))
		return false;
	pthread_mutex_lock(&p->lock);
	TAILQ_FOREACH (r, &p->ranges, link)
		if (p->progress.end == CST_PRELOAD_RUNNING && cst_range_may_bring_locked(r, prefix))
			break;
	if (r) {
		struct joiner *j = CST_NEW(struct joiner);
		j->dir = cst_dir_ref(dir);
		j->listing = listing;
		cst_listing_ref_locked(listing);
		TAILQ_INSERT_TAIL(&r->joiners, j, link);
	} else {
		cst_preload_walk_passed_locked(p, prefix);
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
	cst_range_add_locked(p, NULL, p->config.after);
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
		cst_range_free(r);
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
