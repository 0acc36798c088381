/* Asking the store for one name.
 *
 * A probe collects what is known of the name and decides, each time something is learnt, what to do next (step_locked):
 *
 *	file:   HEAD name ------------------------------> present: that is it (a file wins over a prefix)
 *	dir:    first page of the listing of name/ -----> not empty: a directory; attributes=object: its marker's HEAD first
 *	folder: HEAD name_$folder$, when both say no ---> present: a directory
 *
 * or, while the directory itself is being listed, waits for the pages that decide about the name. HEAD and page are asked at the same
 * time, so a name costs one round trip. */
#include "meta/own.h"
#include "meta/preload.h"

#define FOLDER CST_SLICE("_$folder$")
#define MISSES_PER_PAGE 32
#define EMPTY_PAGES_MAX 64 /* of a store that says "go on" and has nothing */

enum action { DO_HEAD = 1, DO_MARKER = 2, DO_FOLDER = 4, DO_BELOW = 8, DO_ANSWER = 16 };

static unsigned answer(struct cst_dir_probe *p, int rc)
{
	if (rc == 0 || rc == -ENOENT)
		p->rc = rc;
	return DO_ANSWER;
}

/* It is a directory: are its attributes known? */
static unsigned step_dir_locked(struct cst_dir_probe *p)
{
	if (p->dir->meta->config.attributes_object && !p->dir_attr) {
		if (p->marker == STEP_NONE)
			return DO_MARKER;
		if (p->marker == STEP_RUNNING)
			return 0;
	}
	p->file = (struct cst_entry){.kind = CST_KIND_DIR, .at = p->started, .attr = cst_object_attr_ref(p->dir_attr)};
	return answer(p, 0);
}

static unsigned step_own_locked(struct cst_dir_probe *p)
{
	unsigned actions = 0;
	if (p->head == STEP_NONE)
		actions |= DO_HEAD;
	if (p->below_state == STEP_NONE && (!p->head_first || p->head == STEP_ABSENT))
		actions |= DO_BELOW;
	if (actions || p->head == STEP_RUNNING || p->below_state == STEP_RUNNING)
		return actions;
	if (p->below_state == STEP_OK || p->folder == STEP_OK)
		return step_dir_locked(p);
	if (p->folder == STEP_NONE)
		return DO_FOLDER;
	return p->folder == STEP_RUNNING ? 0 : answer(p, -ENOENT);
}

/* Past what a long listing has reached names are mostly what the last one was. */
static bool is_likely_file(const struct cst_dir_probe *p, const struct cst_listing *listing)
{
	size_t count = listing->names.sealed;
	return count > 0 && !p->below && listing->pages >= p->dir->meta->config.lookup_pages &&
	       !(cst_names_flags(&listing->names, count - 1) & (CST_NAME_PREFIX | CST_NAME_FOLDER));
}

static void answer_own(struct cst_dir_probe *p, const struct cst_own *own)
{
	cst_entry_fini(&p->file);
	if (own->gone)
		p->file = (struct cst_entry)CST_ENTRY_INIT;
	else
		cst_own_entry(own, &p->file);
	p->started = own->at;
	p->own_change = true;
	answer(p, own->gone ? -ENOENT : 0);
}

/* One's own change, confirmed after the question was asked or held, is the answer whatever the store says. */
static bool own_decides_locked(struct cst_dir_probe *p)
{
	const struct cst_own *own;
	if (!cst_own_decides_locked(p->dir, p->name, p->started, &own))
		return false;
	answer_own(p, own);
	return true;
}

/* What lies over the listing; as listing_decides_locked. */
static bool own_lies_over_locked(struct cst_dir_probe *p, enum cst_names_found *found, size_t *i,
				 struct cst_entry *entry, bool *decides)
{
	const struct cst_own *own;
	enum cst_own_says says = cst_own_says_locked(p->dir, p->dir->listing, p->name, &own);
	bool lacks_attr = says == CST_OWN_PRESENT && !own->attr && !own->held && p->dir->meta->config.attributes_object;
	if (says == CST_OWN_NOTHING)
		return false;
	*found = lacks_attr ? CST_NAMES_FOUND : CST_NAMES_UNKNOWN;
	*i = 0;
	*decides = !lacks_attr && says != CST_OWN_DOUBTFUL;
	if (lacks_attr)
		cst_own_entry(own, entry);
	if (*decides)
		answer_own(p, own);
	return true;
}

/* What the directory's listing says of the name, if that is all there is to know. *i: as of cst_names_find(). */
static bool listing_decides_locked(struct cst_dir_probe *p, enum cst_names_found *found, size_t *i,
				   struct cst_entry *entry)
{
	const struct cst_listing *listing = p->dir->listing;
	bool decides;
	if (own_lies_over_locked(p, found, i, entry, &decides))
		return decides;
	*found = cst_names_find(&listing->names, p->name, i);
	if (*found == CST_NAMES_ABSENT) {
		p->started = listing->started;
		answer(p, -ENOENT);
		return true;
	}
	if (*found != CST_NAMES_FOUND || !cst_listing_entry_locked(listing, *i, entry))
		return false;
	p->file = *entry;
	p->started = listing->started;
	entry->attr = NULL;
	answer(p, 0);
	return true;
}

/* Waits for the directory's listing as long as that promises an answer. */
static unsigned step_listing_locked(struct cst_dir_probe *p)
{
	struct cst_meta *meta = p->dir->meta;
	struct cst_listing *listing = p->dir->listing;
	CST_AUTO_ENTRY entry = CST_ENTRY_INIT;
	enum cst_names_found found;
	size_t i;
	bool head_now = meta->config.attributes_object;
	if (!cst_listing_is_fresh_locked(listing)) {
		p->own_requests = true;
		return step_own_locked(p);
	}
	if (listing_decides_locked(p, &found, &i, &entry))
		return DO_ANSWER;
	if (found == CST_NAMES_FOUND) {
		if (entry.kind == CST_KIND_DIR)
			return step_dir_locked(p);
		if (p->head == STEP_ABSENT)
			return answer(p, -ENOENT);
		return p->head == STEP_NONE ? DO_HEAD : 0;
	}
	bool going_on = listing->running || listing->pages < listing->wanted_pages;
	if (i == SIZE_MAX && going_on && listing->pages < meta->config.lookup_pages)
		return head_now && p->head == STEP_NONE ? DO_HEAD : 0;
	p->own_requests = true;
	p->head_first = is_likely_file(p, listing);
	return step_own_locked(p);
}

/* A name that is being asked for by itself, while a listing has come to it: the kernel must not wait for requests that may hang. */
static bool listing_was_quicker_locked(struct cst_dir_probe *p)
{
	CST_AUTO_ENTRY entry = CST_ENTRY_INIT;
	enum cst_names_found found;
	size_t i;
	bool learnt = p->head > STEP_RUNNING || p->below_state == STEP_OK || p->below_state == STEP_FAILED ||
		      p->marker != STEP_NONE || p->folder != STEP_NONE;
	return p->ask == CST_DIR_ASK_NAME && !learnt && cst_listing_is_fresh_locked(p->dir->listing) &&
	       listing_decides_locked(p, &found, &i, &entry);
}

static bool is_hidden_marker(const struct cst_dir_probe *p)
{
	return p->file.size == 0 && p->name.len > FOLDER.len &&
	       memcmp(p->name.data + p->name.len - FOLDER.len, FOLDER.data, FOLDER.len) == 0;
}

/* What was learnt of the earlier place is forgotten once no request of then is under way. */
static bool begin_anew_locked(struct cst_dir_probe *p)
{
	if (p->head == STEP_RUNNING || p->marker == STEP_RUNNING || p->folder == STEP_RUNNING ||
	    p->below_state == STEP_RUNNING)
		return false;
	p->moved = false;
	p->head = p->marker = p->folder = p->below_state = STEP_NONE;
	cst_entry_fini(&p->file);
	cst_object_attr_unref(p->dir_attr);
	p->dir_attr = NULL;
	p->rc = 0;
	p->started = cst_meta_now(p->dir->meta);
	return true;
}

static unsigned step_locked(struct cst_dir_probe *p)
{
	if (p->finished)
		return 0;
	if (own_decides_locked(p))
		return DO_ANSWER;
	if (p->moved && !begin_anew_locked(p))
		return 0;
	if (p->head == STEP_FAILED || p->below_state == STEP_FAILED || p->marker == STEP_FAILED ||
	    p->folder == STEP_FAILED)
		return DO_ANSWER;
	if (p->head == STEP_OK)
		return answer(p, is_hidden_marker(p) ? -ENOENT : 0);
	switch (p->ask) {
	case CST_DIR_ASK_FILE:
	case CST_DIR_ASK_STRICT:
		if (p->head == STEP_ABSENT)
			return answer(p, -ENOENT);
		return p->head == STEP_NONE ? DO_HEAD : 0;
	case CST_DIR_ASK_DIR:
		return step_dir_locked(p);
	default:
		if (!p->own_requests)
			return step_listing_locked(p);
		return listing_was_quicker_locked(p) ? DO_ANSWER : step_own_locked(p);
	}
}

static void probe_free(struct cst_dir_probe *p)
{
	struct cst_dir *dir = p->dir, *below = p->below;
	cst_entry_fini(&p->file);
	cst_object_attr_unref(p->dir_attr);
	cst_listing_unref(p->below_listing);
	free(p);
	cst_dir_unref(below);
	cst_dir_unref(dir);
}

/* What was learnt goes into the listing: attributes, or that it is wrong about the name. */
static void teach_listing_locked(struct cst_dir_probe *p)
{
	struct cst_listing *listing = p->dir->listing;
	CST_AUTO_ENTRY known = CST_ENTRY_INIT;
	size_t i;
	if (!listing || cst_names_find(&listing->names, p->name, &i) == CST_NAMES_ABSENT || i == SIZE_MAX)
		return;
	cst_listing_entry_locked(listing, i, &known);
	bool known_dir = known.kind == CST_KIND_DIR, is_dir = p->file.kind == CST_KIND_DIR;
	bool same_file = known.size == p->file.size && strcmp(known.etag, p->file.etag) == 0;
	bool agrees = p->rc == 0 && known_dir == is_dir && (is_dir || same_file || known.type == CST_OBJECT_SYMLINK);
	if (!agrees) {
		cst_relist_doubt_locked(p->dir, p->name, p->started);
		if (p->started >= listing->started)
			cst_names_doubt(&listing->names, i);
		return;
	}
	if (p->file.attr && (is_dir || cst_entry_attr_matches(&known, p->file.attr)))
		cst_names_set_attr(&listing->names, i, p->file.attr);
}

static void answer_waiters(struct cst_dir_probe *p)
{
	struct cst_dir *dir = p->dir;
	bool new_dir = p->rc == 0 && p->file.kind == CST_KIND_DIR;
	p->file.at = p->started;
	for (;;) {
		pthread_mutex_lock(&dir->lock);
		struct cst_dir_wait *wait = TAILQ_FIRST(&p->waits);
		if (wait) {
			TAILQ_REMOVE(&p->waits, wait, link);
			wait->probe = NULL;
		}
		pthread_mutex_unlock(&dir->lock);
		if (!wait)
			return;
		wait->done(wait, p->rc, &p->file, new_dir ? p->below : NULL, p->rc < 0 ? &p->err : NULL);
	}
}

static void head_done(struct cst_dir_probe *p, enum step_state *state, int rc, const struct cst_object_info *info,
		      const struct cst_error *err);

static void file_head_done(void *arg, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct cst_dir_probe *p = arg;
	head_done(p, &p->head, rc, info, err);
}

static void marker_head_done(void *arg, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct cst_dir_probe *p = arg;
	head_done(p, &p->marker, rc, info, err);
}

static void folder_head_done(void *arg, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct cst_dir_probe *p = arg;
	head_done(p, &p->folder, rc, info, err);
}

static void start_head(struct cst_dir_probe *p, struct cst_slice tail, bool light, cst_object_head_fn fn)
{
	CST_AUTO_BUF key = CST_BUF_INIT;
	cst_dir_add_prefix(p->dir, &key);
	cst_buf_add_slice(&key, p->name);
	cst_buf_add_slice(&key, tail);
	cst_meta_head(p->dir->meta, cst_buf_slice(&key), light, fn, p);
}

static void advance(struct cst_dir_probe *p);

static void below_page(struct cst_listing_wait *wait);

static void below_wait_locked(struct cst_dir_probe *p, struct cst_listing *listing)
{
	listing->wanted_pages = cst_max(listing->wanted_pages, listing->pages + 1);
	p->below_wait.done = below_page;
	p->below_wait.queued = true;
	TAILQ_INSERT_TAIL(&listing->waits, &p->below_wait, link);
}

/* The first page of the listing below the name has come (or has been there). */
static void below_ready(struct cst_dir_probe *p)
{
	struct cst_dir *below = p->below;
	enum step_state state;
	struct cst_error err;
	bool marker;
	pthread_mutex_lock(&below->lock);
	const struct cst_listing *listing = p->below_listing;
	marker = listing->names.has_marker;
	bool empty = listing->names.sealed == 0 && !marker && !cst_own_has_any_locked(listing),
	     more = !listing->names.complete;
	if (empty && more && listing->rc == 0 &&
	    listing->pages < EMPTY_PAGES_MAX) { /* a page without a key decides nothing */
		below_wait_locked(p, p->below_listing);
		pthread_mutex_unlock(&below->lock);
		cst_listing_kick(p->below_listing);
		return;
	}
	int rc = empty && more ? listing->rc : 0;
	err = listing->err;
	pthread_mutex_unlock(&below->lock);
	state = rc < 0 ? STEP_FAILED : empty ? STEP_ABSENT : STEP_OK;
	pthread_mutex_lock(&p->dir->lock);
	p->below_state = state;
	if (state == STEP_FAILED && p->rc == 0) {
		p->rc = rc;
		p->err = err;
	}
	if (state == STEP_OK && !marker && !p->dir_attr)
		p->dir_attr = cst_object_attr_none();
	pthread_mutex_unlock(&p->dir->lock);
	advance(p);
}

static void below_page(struct cst_listing_wait *wait)
{
	below_ready(cst_container_of(wait, struct cst_dir_probe, below_wait));
}

static void start_below(struct cst_dir_probe *p)
{
	CST_AUTO_BUF prefix = CST_BUF_INIT;
	cst_dir_add_prefix(p->dir, &prefix);
	cst_buf_add_slice(&prefix, p->name);
	cst_buf_add_char(&prefix, '/');
	if (!p->below)
		p->below = p->ask == CST_DIR_ASK_ANEW ? cst_dir_new(p->dir->meta, cst_buf_slice(&prefix))
						      : cst_dir_get(p->dir->meta, cst_buf_slice(&prefix));
	else if (!cst_dir_has_prefix(p->below, cst_buf_slice(&prefix))) /* asked once more after a move */
		cst_dir_move(p->below, cst_buf_slice(&prefix));
	cst_listing_unref(cst_steal(p->below_listing));
	struct cst_dir *below = p->below;
	pthread_mutex_lock(&below->lock);
	struct cst_listing *listing = below->listing;
	bool flat = !cst_listing_is_fresh_locked(listing) && below->meta->config.path_probe;
	if (!cst_listing_is_fresh_locked(listing))
		listing = cst_listing_start_locked(below, 1);
	listing->joined |= flat;
	cst_listing_ref_locked(listing);
	p->below_listing = listing;
	bool ready = listing->pages > 0;
	if (!ready)
		below_wait_locked(p, listing);
	pthread_mutex_unlock(&below->lock);
	if (ready) {
		below_ready(p);
		return;
	}
	if (flat)
		cst_listing_begin_flat(listing);
	else
		cst_listing_kick(listing);
}

/* Carries out the actions. Each request under way and this call itself count in p->pending. */
static void act(struct cst_dir_probe *p, unsigned actions)
{
	bool by_name = p->ask == CST_DIR_ASK_NAME || p->ask == CST_DIR_ASK_ANEW;
	if (actions & DO_ANSWER)
		answer_waiters(p);
	if (actions & DO_HEAD)
		start_head(p, CST_SLICE(""), !by_name && !p->dir->meta->config.attributes_object, file_head_done);
	if (actions & DO_MARKER)
		start_head(p, CST_SLICE("/"), false, marker_head_done);
	if (actions & DO_FOLDER)
		start_head(p, FOLDER, true, folder_head_done);
	if (actions & DO_BELOW)
		start_below(p);
}

/* Decides and notes what is about to be started, so that nobody starts it twice. */
static unsigned prepare_locked(struct cst_dir_probe *p)
{
	unsigned actions = step_locked(p);
	if (actions & DO_HEAD)
		p->head = STEP_RUNNING;
	if (actions & DO_MARKER)
		p->marker = STEP_RUNNING;
	if (actions & DO_FOLDER)
		p->folder = STEP_RUNNING;
	if (actions & DO_BELOW)
		p->below_state = STEP_RUNNING;
	p->pending += (unsigned)__builtin_popcount(actions & (DO_HEAD | DO_MARKER | DO_FOLDER | DO_BELOW));
	if (actions & DO_ANSWER) {
		p->finished = true;
		TAILQ_REMOVE(&p->dir->probes, p, link);
		if (!p->own_change && (p->rc == 0 || p->rc == -ENOENT)) {
			cst_own_teach_locked(p->dir, p->name, p->rc, &p->file, p->started);
			teach_listing_locked(p);
		}
	}
	return actions;
}

static void unpin(struct cst_dir_probe *p)
{
	pthread_mutex_lock(&p->dir->lock);
	bool last = --p->pending == 0 && p->finished;
	pthread_mutex_unlock(&p->dir->lock);
	if (last)
		probe_free(p);
}

/* A request of the probe has ended; its count in p->pending keeps the probe until this is done. */
static void advance(struct cst_dir_probe *p)
{
	pthread_mutex_lock(&p->dir->lock);
	unsigned actions = prepare_locked(p);
	pthread_mutex_unlock(&p->dir->lock);
	act(p, actions);
	unpin(p);
}

/* OSS answers for the object that a symlink points to; when there is none, so, by the error's name. */
static bool is_dangling(int rc, const struct cst_error *err)
{
	return rc == -ENOENT && strcmp(err->api, "SymlinkTargetNotExist") == 0;
}

static void take_head_locked(struct cst_dir_probe *p, enum step_state *state, int rc,
			     const struct cst_object_info *info, const struct cst_error *err)
{
	const struct cst_meta_config *config = &p->dir->meta->config;
	if (p->finished)
		return;
	*state = rc == 0 ? STEP_OK : rc == -ENOENT ? STEP_ABSENT : STEP_FAILED;
	if (state == &p->head && config->symlinks && is_dangling(rc, err)) {
		*state = STEP_OK;
		p->file = (struct cst_entry){.kind = CST_KIND_SYMLINK, .type = CST_OBJECT_SYMLINK, .at = p->started};
		p->file.attr = config->attributes_object ? cst_object_attr_none() : NULL;
	} else if (*state == STEP_FAILED) {
		p->rc = rc;
		p->err = *err;
	} else if (state == &p->head && rc == 0) {
		struct cst_object_info seen = *info;
		if (!config->symlinks && seen.type == CST_OBJECT_SYMLINK)
			cst_entry_from_info(&p->file, &(struct cst_object_info){.type = CST_OBJECT_NORMAL}, false,
					    p->started);
		else
			cst_entry_from_info(&p->file, &seen, config->attributes_object, p->started);
		if (!config->symlinks && seen.type == CST_OBJECT_SYMLINK) {
			p->file.type = CST_OBJECT_SYMLINK;
			p->file.size = seen.size;
			p->file.mtime = seen.mtime;
			memcpy(p->file.etag, seen.etag, sizeof(seen.etag));
			if (config->attributes_object)
				p->file.attr = cst_object_attr_new(&seen);
		}
	} else if (state == &p->marker) {
		cst_object_attr_unref(p->dir_attr);
		p->dir_attr = rc == 0 ? cst_object_attr_new(info) : cst_object_attr_none();
	}
}

static void head_done(struct cst_dir_probe *p, enum step_state *state, int rc, const struct cst_object_info *info,
		      const struct cst_error *err)
{
	pthread_mutex_lock(&p->dir->lock);
	take_head_locked(p, state, rc, info, err);
	pthread_mutex_unlock(&p->dir->lock);
	advance(p);
}

void cst_dir_advance_probes(struct cst_dir *dir)
{
	struct ready {
		struct cst_dir_probe *p;
		unsigned actions;
	} *ready = NULL;
	size_t count = 0, cap = 0;
	struct cst_dir_probe *p, *next;
	pthread_mutex_lock(&dir->lock);
	for (p = TAILQ_FIRST(&dir->probes); p; p = next) {
		next = TAILQ_NEXT(p, link);
		unsigned actions = prepare_locked(p);
		if (!actions)
			continue;
		if (count == cap) {
			cap = cap ? cap * 2 : 16;
			ready = cst_xrealloc(ready, cap * sizeof(*ready));
		}
		p->pending++;
		ready[count++] = (struct ready){p, actions};
	}
	pthread_mutex_unlock(&dir->lock);
	for (size_t i = 0; i < count; i++) {
		act(ready[i].p, ready[i].actions);
		unpin(ready[i].p);
	}
	free(ready);
}

static struct cst_dir_probe *probe_new(struct cst_dir *dir, struct cst_slice name, enum cst_dir_ask ask,
				       struct cst_dir *below)
{
	struct cst_dir_probe *p = cst_xcalloc(1, sizeof(*p) + name.len + 1);
	p->dir = cst_dir_ref(dir);
	p->below = below ? cst_dir_ref(below) : NULL;
	p->ask = ask;
	p->started = cst_meta_now(dir->meta);
	TAILQ_INIT(&p->waits);
	memcpy(p->text, name.data, name.len);
	p->name = (struct cst_slice){p->text, name.len};
	TAILQ_INSERT_TAIL(&dir->probes, p, link);
	return p;
}

/* The policy of misses: should this name be asked alone, and should the listing begin or go on? Returns a listing to kick, with a
 * reference, or NULL. */
static struct cst_listing *count_miss_locked(struct cst_dir *dir, struct cst_dir_probe *p)
{
	const struct cst_meta_config *config = &dir->meta->config;
	struct cst_listing *listing = dir->listing;
	p->own_requests = true;
	if (config->list_ttl <= 0)
		return NULL;
	if (cst_listing_is_fresh_locked(listing)) {
		p->own_requests = listing->names.complete || listing->pages >= config->lookup_pages;
		if (!p->own_requests)
			listing->wanted_pages = cst_max(listing->wanted_pages, config->lookup_pages);
		else
			p->head_first = is_likely_file(p, listing);
		if (p->own_requests && !listing->names.complete && ++dir->misses % MISSES_PER_PAGE == 0 &&
		    !listing->running)
			listing->wanted_pages = listing->pages + 1;
	} else {
		bool second = p->started - dir->last_miss < config->miss_window;
		dir->last_miss = p->started;
		if (!second)
			return NULL;
		listing = cst_listing_start_locked(dir, config->lookup_pages);
		p->own_requests = false;
	}
	cst_listing_ref_locked(listing);
	return listing;
}

static struct cst_dir_probe *join_locked(struct cst_dir *dir, struct cst_slice name, enum cst_dir_ask ask)
{
	struct cst_dir_probe *p;
	if (ask == CST_DIR_ASK_STRICT || ask == CST_DIR_ASK_ANEW)
		return NULL;
	TAILQ_FOREACH (p, &dir->probes, link) {
		bool serves = p->ask == ask || (ask == CST_DIR_ASK_FILE && p->ask == CST_DIR_ASK_STRICT);
		if (serves && cst_slice_eq(p->name, name))
			return p;
	}
	return NULL;
}

void cst_dir_probe(struct cst_dir *dir, const char *name, enum cst_dir_ask ask, struct cst_dir *below,
		   struct cst_dir_wait *wait)
{
	struct cst_slice text = cst_slice_of(name);
	struct cst_listing *listing = NULL;
	pthread_mutex_lock(&dir->lock);
	struct cst_dir_probe *p = join_locked(dir, text, ask);
	if (p) {
		wait->probe = p;
		TAILQ_INSERT_TAIL(&p->waits, wait, link);
		pthread_mutex_unlock(&dir->lock);
		return;
	}
	p = probe_new(dir, text, ask, below);
	wait->probe = p;
	TAILQ_INSERT_TAIL(&p->waits, wait, link);
	p->pending = 1; /* for this call: advance() gives it back */
	if (ask == CST_DIR_ASK_NAME)
		listing = count_miss_locked(dir, p);
	else if (ask == CST_DIR_ASK_ANEW)
		p->own_requests = true;
	pthread_mutex_unlock(&dir->lock);
	if (listing) {
		cst_listing_kick(listing);
		cst_listing_unref(listing);
	}
	advance(p);
}

bool cst_dir_leave(struct cst_dir *dir, struct cst_dir_wait *wait)
{
	pthread_mutex_lock(&dir->lock);
	struct cst_dir_probe *p = wait->probe;
	if (p)
		TAILQ_REMOVE(&p->waits, wait, link);
	wait->probe = NULL;
	pthread_mutex_unlock(&dir->lock);
	return p != NULL;
}
