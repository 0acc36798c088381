/* Looking ahead: programs often open the files of a directory in the order of its listing, alone or many workers together. Once a few opens
 * in a row have shown that, the next small files are fetched before anybody asks for them.
 *
 * A *stream* is a place in a listing where opens move forward. It remembers which of the last 64 names were opened, so that sixteen workers
 * that take names in turn are one stream, and opens in random order are none: theirs lie too far apart. While at least half of what a stream
 * has passed was opened, its window grows with every open, up to 64 files; it shrinks when files wait long for their open.
 *
 * What is fetched ahead waits in a table by name, since the kernel may not have looked the name up yet. The open takes it over, so there is one
 * GET for a file. What nobody opens is given up after a while and counts against the directory, which then has to show more order before it
 * is believed again.
 *
 * One lock for all. It comes before a directory's, the inode table's and the fetch layer's; nothing that may call back is called under it. */
#define CST_LOG_AREA "fs"
#include "fs/internal.h"

#include <sys/queue.h>
#include <sys/stat.h>
#include <xxhash.h>

#define FILE_MAX (2u << 20)
#define DIRS 16
#define STREAMS 16
#define FILES_AHEAD 64u /* of one stream */
#define FIRST_WINDOW 8u
#define BATCH 16u     /* started by one open */
#define ENTRIES 512u  /* of all streams */
#define BUCKETS 1024u /* a power of two */
#define LEAST_WINDOW 2u
#define AGE (60 * CST_NS_PER_S)
#define YOUNG (10 * CST_NS_PER_S) /* not given up for others */
/* How long before its open a file was asked for: a window grows below the first, and shrinks above the second. */
#define LEAD_ENOUGH (2 * CST_NS_PER_S)
#define LEAD_MOST (5 * CST_NS_PER_S)
#define NEAR 64u      /* names a stream remembers */
#define FIRST_GAP 16u /* names that may lie between the first opens of a stream */
#define TRUST 3	      /* opens in a row that begin a stream */
#define DISTRUST 24   /* where much was fetched for nothing */
#define SCORE_MAX 1024u
#define UNDER_WAY 16u  /* opens whose first READ has yet to come */
#define UNREAD 64u     /* so many opens without a READ: nobody wants the bytes */
#define LOADED 64u     /* so many in a row in the cache: the directory is loaded, */
#define LOOK_EACH 256u /* and only each so-manieth open looks whether that has changed */

struct stream {
	size_t front;	 /* the furthest name opened */
	uint64_t seen;	 /* bit k: the name k before it was opened */
	size_t until;	 /* names before it have been asked for */
	unsigned window; /* 0: not looking ahead */
	uint64_t used;	 /* when, in opens */
};

struct ahead_dir {
	uint64_t node; /* 0: free */
	uint64_t listing;
	uint64_t used;
	unsigned opens, reads;	/* since a stream began: files opened, and of them those the kernel had no pages of */
	unsigned taken, wasted; /* of late: fetched ahead and opened, or not */
	unsigned unread;	/* opens since a file was last read */
	unsigned there;		/* in a row that the cache had whole already */
	unsigned stream_count;
	struct stream streams[STREAMS];
};

struct entry {
	struct cst_ref ref; /* the table's, and who starts it */
	bool listed;	    /* in the table */
	TAILQ_ENTRY(entry) age;
	LIST_ENTRY(entry) link; /* in its bucket */
	struct fs_ahead *ahead;
	uint64_t parent;
	int64_t at;
	uint64_t size;
	struct cst_fetch_object *data;	 /* counted; until it is taken */
	struct cst_cache_object *cached; /* counted, or NULL */
	char etag[CST_ETAG_MAX];
	size_t len, name_len;
	char text[]; /* the directory's prefix and the name */
};
LIST_HEAD(bucket, entry);

struct fs_ahead {
	struct cst_fs *fs;
	uint64_t memory; /* bytes of all entries */
	uint64_t count;	 /* atomic: files fetched ahead */
	pthread_mutex_t lock;
	uint64_t now; /* counts opens */
	struct ahead_dir dirs[DIRS];
	struct bucket buckets[BUCKETS];
	TAILQ_HEAD(, entry) ages; /* oldest first */
	unsigned entries;
	uint64_t bytes;
};

struct fs_ahead *fs_ahead_new(struct cst_fs *fs)
{
	struct fs_ahead *a = CST_NEW(struct fs_ahead);
	struct cst_fetch_stats stats;
	cst_fetch_stats(fs->config.fetch, &stats);
	a->fs = fs;
	a->memory = stats.memory_limit / 4;
	pthread_mutex_init(&a->lock, NULL);
	TAILQ_INIT(&a->ages);
	return a;
}

static void entry_put(struct entry *e)
{
	if (!cst_ref_put(&e->ref))
		return;
	if (e->data)
		cst_fetch_object_unref(e->data);
	if (e->cached)
		cst_cache_object_unref(e->cached);
	free(e);
}

static struct bucket *bucket_of(struct fs_ahead *a, uint64_t parent, struct cst_slice name)
{
	return &a->buckets[XXH3_64bits_withSeed(name.data, name.len, parent) % BUCKETS];
}

static struct entry *find_locked(struct fs_ahead *a, uint64_t parent, struct cst_slice name)
{
	struct entry *e;
	LIST_FOREACH (e, bucket_of(a, parent, name), link) {
		if (e->parent == parent && e->name_len == name.len &&
		    memcmp(e->text + e->len - name.len, name.data, name.len) == 0)
			return e;
	}
	return NULL;
}

/* Out of the table; the caller puts it, not under the lock. */
static void unlist_locked(struct fs_ahead *a, struct entry *e)
{
	TAILQ_REMOVE(&a->ages, e, age);
	LIST_REMOVE(e, link);
	e->listed = false;
	a->entries--;
	a->bytes -= e->size;
}

static struct ahead_dir *find_dir_locked(struct fs_ahead *a, uint64_t node)
{
	for (unsigned i = 0; i < DIRS; i++)
		if (a->dirs[i].node == node)
			return &a->dirs[i];
	return NULL;
}

static struct ahead_dir *dir_locked(struct fs_ahead *a, uint64_t node)
{
	struct ahead_dir *d = find_dir_locked(a, node);
	if (!d) {
		d = &a->dirs[0];
		for (unsigned i = 1; i < DIRS; i++)
			if (a->dirs[i].used < d->used)
				d = &a->dirs[i];
		*d = (struct ahead_dir){.node = node};
	}
	d->used = a->now;
	return d;
}

static void score(unsigned *counter, unsigned *other)
{
	if (++*counter < SCORE_MAX)
		return;
	*counter /= 2;
	*other /= 2;
}

TAILQ_HEAD(entry_list, entry);

/* Gives up what nobody came for; `full`: also what is younger, so that others have room. */
static void give_up_locked(struct fs_ahead *a, int64_t age, unsigned most, struct entry_list *out)
{
	struct entry *e;
	int64_t before = a->fs->config.clock() - age;
	while (most-- > 0 && (e = TAILQ_FIRST(&a->ages)) != NULL && e->at < before) {
		struct ahead_dir *d = find_dir_locked(a, e->parent);
		if (d)
			score(&d->wasted, &d->taken);
		unlist_locked(a, e);
		TAILQ_INSERT_TAIL(out, e, age);
	}
}

static void put_all(struct entry_list *list)
{
	struct entry *e;
	while ((e = TAILQ_FIRST(list)) != NULL) {
		TAILQ_REMOVE(list, e, age);
		entry_put(e);
	}
}

/* ---- which opens follow each other ---- */

static size_t distance(const struct stream *s, size_t at)
{
	return at > s->front ? at - s->front : s->front - at;
}

static struct stream *stream_locked(struct fs_ahead *a, struct ahead_dir *d, size_t at)
{
	struct stream *best = NULL, *oldest = &d->streams[0];
	for (unsigned i = 0; i < d->stream_count; i++) {
		struct stream *s = &d->streams[i];
		size_t most = s->window > 0 || at < s->front ? NEAR - 1 : FIRST_GAP;
		if (distance(s, at) <= most && (!best || distance(s, at) < distance(best, at)))
			best = s;
		if (s->used < oldest->used)
			oldest = s;
	}
	if (!best) {
		best = d->stream_count < STREAMS ? &d->streams[d->stream_count++] : oldest;
		*best = (struct stream){.front = at, .until = at + 1};
		d->opens = d->reads =
			0; /* perhaps another round through the files: it must show anew that it reads them */
	}
	best->used = a->now;
	return best;
}

/* Opens are in order: enough of them, and at least half of the names between the first that is remembered and the last. */
static bool in_order(const struct ahead_dir *d, const struct stream *s)
{
	unsigned opened = (unsigned)__builtin_popcountll(s->seen);
	unsigned span = NEAR - (unsigned)__builtin_clzll(s->seen);
	unsigned least = d->wasted > d->taken / 4 + BATCH ? DISTRUST : TRUST;
	return opened >= least && opened * 2 >= span;
}

/* lead: how long the file that opens has waited; 0: it was not fetched ahead. */
static unsigned next_window(const struct stream *s, int64_t lead)
{
	if (s->window == 0)
		return FIRST_WINDOW;
	if (lead > LEAD_MOST)
		return cst_max(s->window / 2, LEAST_WINDOW);
	return lead > LEAD_ENOUGH ? s->window : cst_min(s->window + 2, FILES_AHEAD);
}

static void advance(struct ahead_dir *d, struct stream *s, size_t at, int64_t lead)
{
	if (at > s->front) {
		s->seen = at - s->front < NEAR ? s->seen << (at - s->front) : 0;
		s->front = at;
	}
	s->seen |= UINT64_C(1) << (s->front - at);
	s->window = in_order(d, s) ? next_window(s, lead) : 0;
	s->until = cst_max(s->until, s->front + 1);
}

/* ---- what is fetched ---- */

struct collect {
	struct fs_ahead *a;
	struct cst_inode *parent;
	struct cst_slice prefix;
	struct stream *stream;
	bool rereads; /* files that were opened before may be worth it */
	struct entry_list *old;
	unsigned count, known;
	struct entry *entries[BATCH];
	struct cst_inode *inodes[FILES_AHEAD]; /* looked at; put after the locks, since a last reference frees much */
};

static bool is_small_file(const struct cst_name_view *view, const struct cst_object_attr *attr)
{
	bool link = attr && attr->has & CST_ATTR_MODE && S_ISLNK(attr->mode);
	return view->kind == CST_KIND_FILE && view->type == CST_OBJECT_NORMAL && !link && view->size > 0 &&
	       view->size <= FILE_MAX && view->etag[0] && !(view->flags & CST_NAME_DOUBTFUL);
}

/* The data of the name's inode, when it was opened before; *skip: leave it alone. */
static struct cst_fetch_object *known_data(struct collect *c, const struct cst_name_view *view, bool *skip)
{
	struct cst_inode_table *table = c->a->fs->table;
	struct cst_fetch_object *data = NULL;
	struct cst_entry listed = {.kind = view->kind, .type = view->type, .size = view->size};
	char name[CST_NAME_MAX + 1];
	memcpy(listed.etag, view->etag, sizeof(listed.etag));
	memcpy(name, view->name.data, view->name.len);
	name[view->name.len] = 0;
	struct cst_inode *inode = cst_inode_find(table, c->parent, name);
	*skip = false;
	if (!inode)
		return NULL;
	c->inodes[c->known++] = inode;
	cst_inode_lock(table, inode);
	const struct cst_inode_more *more = cst_inode_peek(inode);
	bool known = more->data != NULL;
	*skip = more->opens > 0 || !cst_inode_is_version_locked(inode, &listed) ||
		(known && (!c->rereads || c->a->fs->config.cache));
	if (known && !*skip)
		data = cst_fetch_object_ref(more->data);
	cst_inode_unlock(table, inode);
	return data;
}

static struct entry *entry_new_locked(struct collect *c, const struct cst_name_view *view,
				      struct cst_fetch_object *data)
{
	struct fs_ahead *a = c->a;
	size_t len = c->prefix.len + view->name.len;
	struct entry *e = cst_xcalloc(1, sizeof(*e) + len + 1);
	cst_ref_init(&e->ref);
	cst_ref_get(&e->ref); /* of who starts it */
	e->ahead = a;
	e->parent = c->parent->node;
	e->at = a->fs->config.clock();
	e->size = view->size;
	memcpy(e->etag, view->etag, sizeof(e->etag));
	e->len = len;
	e->name_len = view->name.len;
	if (c->prefix.len > 0)
		memcpy(e->text, c->prefix.data, c->prefix.len);
	memcpy(e->text + c->prefix.len, view->name.data, view->name.len);
	e->data = data ? data
		       : cst_fetch_object_new(a->fs->config.fetch, (struct cst_slice){e->text, len}, e->etag, e->size);
	e->listed = true;
	LIST_INSERT_HEAD(bucket_of(a, e->parent, view->name), e, link);
	TAILQ_INSERT_TAIL(&a->ages, e, age);
	a->entries++;
	a->bytes += e->size;
	return e;
}

static bool has_room_locked(struct collect *c, uint64_t size)
{
	struct fs_ahead *a = c->a;
	if (a->entries >= ENTRIES || a->bytes + size > a->memory)
		give_up_locked(a, YOUNG, BATCH, c->old);
	return a->entries < ENTRIES && a->bytes + size <= a->memory;
}

static bool collect(void *arg, size_t i, const struct cst_name_view *view, struct cst_object_attr *attr)
{
	struct collect *c = arg;
	struct stream *s = c->stream;
	bool skip = false;
	if (i > s->front + s->window || c->count == BATCH || c->known == FILES_AHEAD)
		return false;
	if (is_small_file(view, attr) && !find_locked(c->a, c->parent->node, view->name)) {
		if (!has_room_locked(c, view->size))
			return false;
		struct cst_fetch_object *data = known_data(c, view, &skip);
		if (!skip)
			c->entries[c->count++] = entry_new_locked(c, view, data);
	}
	s->until = i + 1;
	return true;
}

/* ---- starting ---- */

static void forget(struct entry *e)
{
	struct fs_ahead *a = e->ahead;
	pthread_mutex_lock(&a->lock);
	bool listed = e->listed;
	if (listed)
		unlist_locked(a, e);
	pthread_mutex_unlock(&a->lock);
	if (listed)
		entry_put(e);
}

/* What its open may have taken meanwhile, referenced; NULL: it has. */
static struct cst_fetch_object *data_of(struct entry *e)
{
	pthread_mutex_lock(&e->ahead->lock);
	struct cst_fetch_object *data = e->data ? cst_fetch_object_ref(e->data) : NULL;
	pthread_mutex_unlock(&e->ahead->lock);
	return data;
}

static void fetch_entry(struct entry *e)
{
	struct cst_fetch_object *data = data_of(e);
	if (data && cst_fetch_object_prefetch(data))
		__atomic_fetch_add(&e->ahead->count, 1, __ATOMIC_RELAXED);
	else
		forget(e); /* it is there, or there is no room, or it opens now */
	if (data)
		cst_fetch_object_unref(data);
	entry_put(e);
}

/* What is in the cache needs no fetching. Else the data is bound before the GET, so that it is saved; an open that has taken it binds it
 * itself. */
static void cache_came(void *arg, struct cst_cache_object *cached)
{
	struct entry *e = arg;
	struct fs_ahead *a = e->ahead;
	struct cst_fs *fs = a->fs;
	bool there = cached && cst_cache_object_cached(cached) == e->size;
	pthread_mutex_lock(&a->lock);
	struct ahead_dir *d = find_dir_locked(a, e->parent);
	if (d)
		d->there = there ? d->there + 1 : 0;
	if (cached && !there && e->data) {
		cst_fetch_object_set_local(e->data, cst_cache_object_local(cached));
		e->cached = cached;
		cached = NULL;
	}
	pthread_mutex_unlock(&a->lock);
	if (cached)
		cst_cache_object_unref(cached);
	if (there) {
		forget(e);
		entry_put(e);
	} else {
		fetch_entry(e);
	}
	fs_live_end(fs);
}

static void start(struct fs_ahead *a, struct entry *e)
{
	struct cst_cache *cache = a->fs->config.cache;
	if (!cache) {
		fetch_entry(e);
		return;
	}
	fs_live_begin(a->fs);
	cst_cache_open(cache, (struct cst_slice){e->text, e->len}, e->etag, e->size, cache_came, e);
}

/* ---- opens ---- */

/* What was fetched ahead of this open becomes the inode's. Returns how long it has waited, 0: there is nothing. */
static int64_t take_locked(struct fs_ahead *a, struct cst_inode *inode, const struct cst_inode *parent,
			   const char *name, struct entry_list *old)
{
	struct entry *e = find_locked(a, parent->node, cst_slice_of(name));
	CST_AUTO_ENTRY version = CST_ENTRY_INIT;
	if (!e)
		return 0;
	int64_t lead = a->fs->config.clock() - e->at;
	cst_inode_entry(a->fs->table, inode, &version);
	if (e->size == version.size && strcmp(e->etag, version.etag) == 0) {
		struct ahead_dir *d = find_dir_locked(a, e->parent);
		if (d)
			score(&d->taken, &d->wasted);
		cst_inode_lock(a->fs->table, inode);
		if (!cst_inode_peek(inode)->data) {
			cst_inode_more(inode)->data = e->data;
			e->data = NULL;
		}
		cst_inode_unlock(a->fs->table, inode);
	}
	unlist_locked(a, e);
	TAILQ_INSERT_TAIL(old, e, age);
	return lead;
}

static void look_locked(struct fs_ahead *a, const char *name, struct cst_dir *dir, int64_t lead, struct collect *c)
{
	struct cst_dir_place place;
	if (cst_dir_place(dir, name, &place) < 0)
		return;
	struct ahead_dir *d = dir_locked(a, c->parent->node);
	if (d->listing != place.listing) {
		d->stream_count = 0;
		d->listing = place.listing;
	}
	struct stream *s = stream_locked(a, d, place.at);
	score(&d->opens, &d->reads);
	advance(d, s, place.at, lead);
	if (++d->unread > UNREAD || (d->there >= LOADED && a->now % LOOK_EACH != 0))
		return;
	/* A quarter of the window at a time, so that a walk pays. */
	if (s->window == 0 || s->until > s->front + s->window - s->window / 4)
		return;
	c->stream = s;
	c->rereads = d->reads > TRUST && d->reads * 2 + UNDER_WAY >= d->opens;
	place.at = s->until;
	cst_dir_walk(dir, &place, collect, c);
}

void fs_ahead_open(struct fs_ahead *a, struct cst_inode *inode)
{
	struct entry_list old = TAILQ_HEAD_INITIALIZER(old);
	char name[CST_INODE_NAME_MAX + 1];
	CST_AUTO_BUF prefix = CST_BUF_INIT;
	struct cst_inode *parent = cst_inode_place(a->fs->table, inode, name);
	struct cst_dir *dir = fs_dir_of(a->fs, parent);
	cst_dir_add_prefix(dir, &prefix);
	struct collect c = {.a = a, .parent = parent, .prefix = cst_buf_slice(&prefix), .old = &old};
	pthread_mutex_lock(&a->lock);
	a->now++;
	int64_t lead = take_locked(a, inode, parent, name, &old);
	give_up_locked(a, AGE, BATCH, &old);
	look_locked(a, name, dir, lead, &c);
	pthread_mutex_unlock(&a->lock);
	put_all(&old);
	for (unsigned i = 0; i < c.known; i++)
		cst_inode_unref(a->fs->table, c.inodes[i]);
	for (unsigned i = 0; i < c.count; i++)
		start(a, c.entries[i]);
	cst_inode_unref(a->fs->table, parent);
}

void fs_ahead_read(struct fs_ahead *a, struct cst_inode *inode)
{
	cst_inode_lock(a->fs->table, inode);
	uint64_t parent = cst_inode_parent_locked(inode);
	cst_inode_unlock(a->fs->table, inode);
	pthread_mutex_lock(&a->lock);
	struct ahead_dir *d = find_dir_locked(a, parent);
	if (d) {
		d->reads++;
		d->unread = 0;
	}
	pthread_mutex_unlock(&a->lock);
}

uint64_t fs_ahead_count(const struct fs_ahead *a)
{
	return __atomic_load_n(&a->count, __ATOMIC_RELAXED);
}

void fs_ahead_clear(struct fs_ahead *a)
{
	struct entry_list old = TAILQ_HEAD_INITIALIZER(old);
	pthread_mutex_lock(&a->lock);
	give_up_locked(a, -AGE, ENTRIES, &old);
	pthread_mutex_unlock(&a->lock);
	put_all(&old);
}

void fs_ahead_free(struct fs_ahead *a)
{
	if (!a)
		return;
	CST_ASSERT(TAILQ_EMPTY(&a->ages));
	pthread_mutex_destroy(&a->lock);
	free(a);
}
