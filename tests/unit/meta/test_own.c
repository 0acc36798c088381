/* Own changes of names over listings and answers that come late, early, in pages, twice or not at all, against a model.
 *
 * The store is in this program, and so is time: a request is served (what it will say is fixed) and delivered at moments that a random driver
 * chooses, between which names are changed through the mount (o: files, e: directories) and by others (f); s names never change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "meta/relist.h"

#include "base/clock.h"

#include <errno.h>

#define NAMES 24u
#define KINDS 4u
#define PAGE 5u
#define TTL 1000000
#define READERS 4u

/* ---- the store ---- */

struct key {
	char text[32];
	char etag[16];
};

struct cst_object_op {
	TAILQ_ENTRY(cst_object_op) link;
	bool served, cancelled, list;
	char key[32], after[32];
	unsigned max;
	cst_object_head_fn head;
	struct cst_object_list_ops ops;
	void *arg;
	/* what it will say */
	int rc;
	struct key page[PAGE + 1];
	bool is_prefix[PAGE + 1];
	unsigned count;
	bool truncated;
};

static struct {
	struct key keys[NAMES * KINDS + 8];
	size_t count;
	TAILQ_HEAD(, cst_object_op) ops;
	size_t under_way;
	int64_t now;
	unsigned lists, heads;
} store;

static uint32_t seed;
static uint32_t rnd(uint32_t below)
{
	seed = seed * 1664525u + 1013904223u;
	return (uint32_t)(((uint64_t)(seed >> 8) * below) >> 24);
}

static int64_t tick(void)
{
	return ++store.now;
}

static size_t place_of(const char *key)
{
	size_t i = 0;
	while (i < store.count && strcmp(store.keys[i].text, key) < 0)
		i++;
	return i;
}

static void store_put(const char *key, const char *etag)
{
	size_t i = place_of(key);
	if (i == store.count || strcmp(store.keys[i].text, key) != 0) {
		memmove(store.keys + i + 1, store.keys + i, (store.count++ - i) * sizeof(store.keys[0]));
		snprintf(store.keys[i].text, sizeof(store.keys[i].text), "%s", key);
	}
	snprintf(store.keys[i].etag, sizeof(store.keys[i].etag), "%s", etag);
}

static void store_delete(const char *key)
{
	size_t i = place_of(key);
	if (i < store.count && strcmp(store.keys[i].text, key) == 0)
		memmove(store.keys + i, store.keys + i + 1, (--store.count - i) * sizeof(store.keys[0]));
}

static void copy_text(char *to, size_t size, struct cst_slice from)
{
	assert_true(from.len < size);
	memcpy(to, from.data ? from.data : "", from.len);
	to[from.len] = 0;
}

static struct cst_object_op *op_new(struct cst_slice key, void *arg)
{
	struct cst_object_op *op = CST_NEW(struct cst_object_op);
	copy_text(op->key, sizeof(op->key), key);
	op->arg = arg;
	TAILQ_INSERT_TAIL(&store.ops, op, link);
	store.under_way++;
	return op;
}

struct cst_object_op *cst_object_head(struct cst_bucket *bucket, struct cst_slice key, bool light,
				      cst_object_head_fn fn, void *arg)
{
	struct cst_object_op *op = op_new(key, arg);
	(void)bucket;
	(void)light;
	op->head = fn;
	store.heads++;
	return op;
}

struct cst_object_op *cst_object_list(struct cst_bucket *bucket, const struct cst_object_list *list,
				      const struct cst_object_list_ops *ops, void *arg)
{
	struct cst_object_op *op = op_new(list->prefix, arg);
	(void)bucket;
	copy_text(op->after, sizeof(op->after), list->token.len > 0 ? list->token : list->start_after);
	op->list = true;
	op->ops = *ops;
	store.lists++;
	return op;
}

void cst_object_cancel(struct cst_object_op *op)
{
	op->cancelled = true;
}

void cst_object_release(struct cst_object_op *op)
{
	free(op);
}

static void serve_list(struct cst_object_op *op)
{
	size_t len = strlen(op->key);
	for (size_t i = 0; i < store.count; i++) {
		char shown[32];
		const char *key = store.keys[i].text, *slash = strchr(key + cst_min(len, strlen(key)), '/');
		if (strncmp(key, op->key, len) != 0)
			continue;
		copy_text(shown, sizeof(shown),
			  (struct cst_slice){key, slash ? (size_t)(slash - key) + 1 : strlen(key)});
		if (op->after[0] && strcmp(shown, op->after) <= 0)
			continue;
		if (op->count == PAGE) {
			op->truncated = true;
			return;
		}
		if (op->count > 0 && strcmp(op->page[op->count - 1].text, shown) == 0)
			continue;
		op->page[op->count] = store.keys[i];
		memcpy(op->page[op->count].text, shown, sizeof(shown));
		op->is_prefix[op->count++] = slash != NULL;
	}
}

static void serve(struct cst_object_op *op)
{
	size_t i = place_of(op->key);
	op->served = true;
	if (rnd(60) == 0)
		op->rc = -EIO;
	else if (op->list)
		serve_list(op);
	else if (i < store.count && strcmp(store.keys[i].text, op->key) == 0)
		op->page[0] = store.keys[i];
	else
		op->rc = -ENOENT;
}

static struct cst_object_info info_of(const struct key *key)
{
	struct cst_object_info info = {.size = 7, .mtime = 5, .key = cst_slice_of(key->text)};
	memcpy(info.etag, key->etag, sizeof(key->etag));
	return info;
}

static void deliver(struct cst_object_op *op)
{
	struct cst_error err = {.what = "no", .why = "chance"};
	int rc = op->cancelled ? -ECANCELED : op->rc;
	TAILQ_REMOVE(&store.ops, op, link);
	store.under_way--;
	if (!op->list) {
		struct cst_object_info info = info_of(&op->page[0]);
		op->head(op->arg, rc, rc == 0 ? &info : NULL, &err);
		return;
	}
	bool again = rnd(4) == 0;
	for (int round = again ? 0 : 1; rc == 0 && round < 2; round++) {
		for (unsigned i = 0; i < (round ? op->count : op->count / 2); i++) {
			struct cst_object_list_entry entry = {.info = info_of(&op->page[i]),
							      .is_prefix = op->is_prefix[i]};
			op->ops.entry(op->arg, &entry);
		}
		if (round == 0)
			op->ops.restart(op->arg);
	}
	struct cst_object_list_page page = {.truncated = op->truncated};
	char last[32] = "";
	if (op->count > 0)
		memcpy(last, op->page[op->count - 1].text, sizeof(last));
	page.next_token = cst_slice_of(last);
	op->ops.done(op->arg, rc, &page, &err);
}

static void pump(unsigned steps)
{
	for (; steps > 0 && store.under_way > 0; steps--) {
		struct cst_object_op *op = TAILQ_FIRST(&store.ops);
		for (uint32_t skip = rnd((uint32_t)store.under_way); skip > 0; skip--)
			op = TAILQ_NEXT(op, link);
		tick();
		if (op->served || op->cancelled)
			deliver(op);
		else
			serve(op);
	}
}

static void pump_all(void)
{
	while (store.under_way > 0)
		pump(1);
}

/* ---- the model ---- */

struct name {
	char text[8];
	bool there, held;
	char etag[16];
	bool in_flight;	 /* the store may have it already, confirmed it is not */
	bool doubted;	 /* what listings show of it is to be asked for */
	int64_t changed; /* confirmed or doubted; of f: changed */
	int64_t known;	 /* confirmed, and nothing has made that doubtful since: 0: no */
};

static unsigned run;
static struct {
	struct cst_meta *meta;
	struct cst_dir *dir;
	struct name names[KINDS][NAMES];
	unsigned versions, moves;
	bool by_object;
	int64_t moved;
	unsigned probes, under_way;
} m;

static const char *key_of(const struct name *name, char out[32])
{
	snprintf(out, 32, "p%u/%s%s", m.moves, name->text, name->text[0] == 'e' ? "/" : "");
	return out;
}

static struct name *name_of(struct cst_slice text)
{
	for (unsigned kind = 0; kind < KINDS; kind++)
		for (unsigned i = 0; i < NAMES; i++)
			if (cst_slice_is(text, m.names[kind][i].text))
				return &m.names[kind][i];
	fail_msg("a name nobody made: %.*s", (int)text.len, text.data);
	abort();
}

static bool is_own(const struct name *name)
{
	return name->text[0] == 'o' || name->text[0] == 'e';
}

static struct name *any_own(void)
{
	return &m.names[rnd(2)][rnd(NAMES)];
}

static void new_etag(struct name *name)
{
	if (name->text[0] == 'e')
		return;
	snprintf(name->etag, sizeof(name->etag), "v%u", ++m.versions);
}

static struct cst_entry entry_of(const struct name *name)
{
	struct cst_entry entry = {.kind = name->text[0] == 'e' ? CST_KIND_DIR : CST_KIND_FILE, .at = tick()};
	if (entry.kind == CST_KIND_FILE) {
		entry.size = 7;
		entry.mtime = 5;
		memcpy(entry.etag, name->etag, sizeof(name->etag));
	}
	return entry;
}

static void confirmed(struct name *name)
{
	name->in_flight = name->doubted = false;
	name->changed = name->known = tick();
}

static void own_put(struct name *name)
{
	char key[32];
	if (name->held)
		return;
	struct name after = *name;
	new_etag(&after);
	name->in_flight = true;
	store_put(key_of(name, key), after.etag);
	pump(rnd(6));
	memcpy(name->etag, after.etag, sizeof(name->etag));
	name->there = true;
	struct cst_entry entry = entry_of(name);
	cst_dir_put(m.dir, name->text, &entry, false);
	confirmed(name);
}

static void own_hold(struct name *name)
{
	if (name->held || name->text[0] == 'e')
		return;
	new_etag(name);
	name->there = name->held = true;
	struct cst_entry entry = entry_of(name);
	cst_dir_put(m.dir, name->text, &entry, true);
	confirmed(name);
}

static void own_publish(struct name *name)
{
	char key[32];
	if (!name->held)
		return;
	store_put(key_of(name, key), name->etag);
	pump(rnd(6));
	name->held = false;
	struct cst_entry entry = entry_of(name);
	cst_dir_put(m.dir, name->text, &entry, false);
	confirmed(name);
}

static void own_remove(struct name *name)
{
	char key[32];
	if (name->held || !name->there)
		return;
	name->in_flight = true;
	store_delete(key_of(name, key));
	pump(rnd(6));
	name->there = false;
	cst_dir_put_gone(m.dir, name->text, tick());
	confirmed(name);
}

static void foreign_change(void)
{
	char key[32];
	struct name *name = &m.names[2][rnd(NAMES)];
	name->there = !name->there;
	name->changed = tick();
	if (name->there) {
		new_etag(name);
		store_put(key_of(name, key), name->etag);
	} else {
		store_delete(key_of(name, key));
	}
}

/* ---- checks ---- */

static void check_entry(const struct name *name, const struct cst_entry *entry)
{
	assert_int_equal(entry->kind, name->text[0] == 'e' ? CST_KIND_DIR : CST_KIND_FILE);
	if (entry->kind == CST_KIND_FILE)
		assert_string_equal(entry->etag, name->etag);
}

static void find_name(void)
{
	struct name *name = any_own();
	struct cst_entry entry;
	int64_t at;
	int rc = cst_dir_find(m.dir, name->text, &entry, &at);
	if (name->known && !m.by_object && tick() - name->known < TTL - 10)
		assert_int_not_equal(rc, -EAGAIN);
	if (rc == 0) {
		assert_true(name->there);
		check_entry(name, &entry);
	} else if (rc == -ENOENT) {
		assert_false(name->there);
	}
	cst_entry_fini(&entry);
}

struct probe {
	struct cst_dir_wait wait;
	struct name *name;
};

static void probe_done(struct cst_dir_wait *wait, int rc, const struct cst_entry *entry, struct cst_dir *below,
		       const struct cst_error *err)
{
	struct probe *p = cst_container_of(wait, struct probe, wait);
	(void)below;
	m.under_way--;
	if (rc == 0 && !p->name->in_flight) {
		assert_true(p->name->there);
		check_entry(p->name, entry);
	} else if (rc == -ENOENT && !p->name->in_flight) {
		assert_false(p->name->there);
	} else if (rc != 0 && rc != -ENOENT) {
		assert_non_null(err);
	}
	free(p);
}

static void probe_name(void)
{
	static const enum cst_dir_ask asks[] = {CST_DIR_ASK_NAME, CST_DIR_ASK_NAME, CST_DIR_ASK_ANEW, CST_DIR_ASK_FILE,
						CST_DIR_ASK_STRICT};
	struct probe *p = CST_NEW(struct probe);
	p->wait.done = probe_done;
	p->name = any_own();
	m.probes++;
	m.under_way++;
	cst_dir_probe(m.dir, p->name->text, asks[rnd(p->name->text[0] == 'e' ? 3 : 5)], NULL, &p->wait);
}

struct reader {
	struct cst_listing *listing;
	struct cst_listing_wait wait;
	int64_t began;
	size_t next, last;
	uint32_t tag; /* of the last entry */
	unsigned room;
	bool waiting;
	bool seen[KINDS][NAMES];
};
static struct reader readers[READERS];
static unsigned whole_reads;

static void reader_woken(struct cst_listing_wait *wait)
{
	cst_container_of(wait, struct reader, wait)->waiting = false;
}

static bool reader_entry(void *arg, size_t i, const struct cst_name_view *view, struct cst_object_attr *attr,
			 int64_t at)
{
	struct reader *r = arg;
	(void)attr;
	(void)at;
	if (r->room-- == 0)
		return false;
	r->last = i;
	struct name *name = name_of(view->name);
	bool *seen = &r->seen[name->text[0] == 'o'   ? 0
			      : name->text[0] == 'e' ? 1
			      : name->text[0] == 'f' ? 2
						     : 3][strtoul(name->text + 1, NULL, 10)];
	if (*seen)
		fail_msg("%s is shown twice", name->text);
	*seen = true;
	r->tag = cst_listing_tag(view->name);
	if (is_own(name) && name->known) {
		struct cst_entry entry = {.kind = view->kind};
		memcpy(entry.etag, view->etag, sizeof(entry.etag));
		if (!name->in_flight && !name->there)
			fail_msg("%s is shown, though it was removed", name->text);
		if (!name->in_flight)
			check_entry(name, &entry);
	}
	return true;
}

static void reader_end(struct reader *r, bool whole)
{
	cst_listing_close(r->listing);
	r->listing = NULL;
	if (!whole)
		return;
	whole_reads++;
	for (unsigned kind = 0; kind < KINDS; kind++) {
		for (unsigned i = 0; i < NAMES; i++) {
			const struct name *name = &m.names[kind][i];
			/* What others do shows when a listing begins after it. */
			bool steady = kind != 2 && name->changed < r->began && !name->in_flight && !name->doubted;
			if (steady && name->there != r->seen[kind][i])
				fail_msg("run %u: %s: there %d, shown %d", run, name->text, name->there,
					 r->seen[kind][i]);
		}
	}
}

static void reader_step(struct reader *r)
{
	struct cst_error err = CST_ERROR_INIT;
	if (!r->listing) {
		memset(r, 0, sizeof(*r));
		r->wait.done = reader_woken;
		r->began = tick();
		r->listing = cst_dir_open(m.dir);
		return;
	}
	if (r->waiting)
		return;
	if (r->tag && rnd(3) == 0)
		assert_int_equal(cst_listing_resume(r->listing, r->last + 1, r->tag), r->last + 1);
	r->room = 1 + rnd(7);
	r->waiting = true; /* it may be woken before read returns */
	int rc = cst_listing_read(r->listing, r->next, &r->next, &r->wait, reader_entry, r, &err);
	if (rc == -EAGAIN)
		return;
	r->waiting = false;
	if (rc < 0)
		reader_end(r, rc == -ENOENT);
}

static struct cst_relist *relist;
static bool relist_waits;
static int64_t relist_began;
static unsigned relists;

static void relist_ready(void *arg)
{
	(void)arg;
	relist_waits = false;
}

static void relist_news(void *arg, enum cst_news news, struct cst_slice text)
{
	const struct name *name = name_of(text);
	(void)arg;
	if (name->changed < relist_began && !name->in_flight && (is_own(name) || name->text[0] == 's') && name->known)
		fail_msg("news %d of %s, which nobody changed", news, name->text);
}

static void relist_entry(void *arg, const char *text, const struct cst_entry *entry, bool known)
{
	const struct name *name = name_of(cst_slice_of(text));
	(void)arg;
	assert_true(known || m.by_object);
	if (!is_own(name) || !name->known || name->in_flight)
		return;
	assert_true(name->there && !name->held);
	check_entry(name, entry);
}

static void relist_step(void)
{
	struct cst_error err = CST_ERROR_INIT;
	struct cst_relist_config config = {.dir = m.dir, .ready = relist_ready, .news = relist_news};
	size_t next = 0;
	if (!relist) {
		relist_began = tick();
		relist = cst_relist_start(&config);
		relist_waits = false;
		return;
	}
	if (relist_waits)
		return;
	relist_waits = true;
	int rc = cst_relist_step(relist, &err);
	if (rc == -EAGAIN)
		return;
	relist_waits = false;
	if (rc == 1)
		return;
	while (rc == 0 && cst_relist_each(relist, &next, relist_entry, NULL))
		;
	relists += rc == 0;
	cst_relist_free(relist);
	relist = NULL;
}

/* All keys are elsewhere from now on; what is held isn't in the store or is in another version, and comes along. */
static void move(void)
{
	char prefix[32];
	m.moves++;
	for (size_t i = 0; i < store.count; i++) {
		char key[32];
		snprintf(key, sizeof(key), "p%u/%.20s", m.moves, strchr(store.keys[i].text, '/') + 1);
		memcpy(store.keys[i].text, key, sizeof(key));
	}
	snprintf(prefix, sizeof(prefix), "p%u/", m.moves);
	m.moved = tick();
	cst_dir_move(m.dir, cst_slice_of(prefix));
	for (unsigned kind = 0; kind < 2; kind++)
		for (unsigned i = 0; i < NAMES; i++)
			if (!m.names[kind][i].held)
				m.names[kind][i].known = 0;
}

static void doubt(void)
{
	struct name *name = any_own();
	cst_dir_doubt(m.dir, name->text);
	if (name->held)
		return;
	name->known = 0;
	name->doubted = true;
}

static void let_go(void)
{
	char key[32];
	struct name *name = any_own();
	if (!name->held)
		return;
	/* What the store has is what counts again. */
	name->held = false;
	size_t i = place_of(key_of(name, key));
	name->there = i < store.count && strcmp(store.keys[i].text, key) == 0;
	if (name->there)
		memcpy(name->etag, store.keys[i].etag, sizeof(name->etag));
	cst_dir_let_go(m.dir, name->text);
	name->changed = tick();
	name->known = 0;
	name->doubted = true;
}

/* Later all that was confirmed answers no more by itself. */
static void pass_time(void)
{
	store.now += TTL + 1;
}

static void begin(uint32_t with_seed)
{
	char key[32];
	static const char kinds[] = "oefs";
	seed = with_seed;
	store.count = 0;
	store.now = 1000;
	TAILQ_INIT(&store.ops);
	memset(&m, 0, sizeof(m));
	memset(readers, 0, sizeof(readers));
	relist = NULL;
	m.by_object = with_seed % 5 == 4; /* then attributes are asked for, name by name */
	m.meta = cst_meta_new(&(struct cst_meta_config){
		.attributes_object = m.by_object, .list_ttl = TTL, .clock = tick, .lookup_pages = 1 + rnd(12)});
	m.dir = cst_dir_new(m.meta, CST_SLICE("p0/"));
	for (unsigned kind = 0; kind < KINDS; kind++) {
		for (unsigned i = 0; i < NAMES; i++) {
			struct name *name = &m.names[kind][i];
			snprintf(name->text, sizeof(name->text), "%c%02u", kinds[kind], i);
			name->there = kind == 3 || rnd(2) == 0;
			new_etag(name);
			if (name->there)
				store_put(key_of(name, key), name->etag);
		}
	}
}

static void end(void)
{
	for (unsigned i = 0; i < READERS; i++) {
		while (readers[i].listing) {
			pump_all();
			reader_step(&readers[i]);
		}
	}
	while (relist) {
		pump_all();
		relist_step();
	}
	pump_all();
	assert_int_equal(m.under_way, 0);
	cst_meta_stop(m.meta);
	cst_dir_unref(m.dir);
	cst_meta_free(m.meta);
}

static void random_changes(void **state)
{
	(void)state;
	const char *chosen = getenv("OWN_SEED");
	uint32_t first = chosen ? (uint32_t)strtoul(chosen, NULL, 10) : 1, last = chosen ? first : 300;
	for (run = first; run <= last; run++) {
		begin(run);
		bool moving = run % 3 == 0, passing = run % 4 == 1;
		for (unsigned i = 0; i < 1500; i++) {
			if (chosen && getenv("OWN_TRACE"))
				fprintf(stderr, "step %u\n", i);
			switch (rnd(14)) {
			case 0:
				own_put(any_own());
				break;
			case 1:
				own_remove(any_own());
				break;
			case 2:
				own_hold(any_own());
				break;
			case 3:
				own_publish(any_own());
				break;
			case 4:
				foreign_change();
				break;
			case 5:
				find_name();
				break;
			case 6:
				probe_name();
				break;
			case 7:
				relist_step();
				break;
			case 8:
				if (rnd(8) == 0)
					let_go();
				else if (rnd(8) == 0)
					doubt();
				else if (moving && rnd(10) == 0)
					move();
				else if (passing && rnd(6) == 0)
					pass_time();
				break;
			case 9:
				pump(rnd(5));
				break;
			default:
				reader_step(&readers[rnd(READERS)]);
				break;
			}
		}
		end();
	}
	/* Everything was really done. */
	assert_true(chosen || (whole_reads > 1000 && relists > 500));
}

static bool count_entry(void *arg, size_t i, const struct cst_name_view *view, struct cst_object_attr *attr, int64_t at)
{
	unsigned *left = arg;
	(void)i;
	(void)view;
	(void)attr;
	(void)at;
	return (*left)-- > 0;
}

static void put_now(const char *name)
{
	struct cst_entry entry = {.kind = CST_KIND_FILE, .size = 1, .mtime = 1, .at = tick(), .etag = "e"};
	cst_dir_put(m.dir, name, &entry, false);
}

/* A new directory needs no request, nor do the files made in it; a listing of it shows them, and ends though its reader renames all it sees. */
static void new_directory(void **state)
{
	struct cst_error err = CST_ERROR_INIT;
	struct cst_listing_wait wait = {.done = NULL};
	struct cst_entry entry;
	int64_t at;
	char name[16];
	(void)state;
	begin(1);
	store.lists = store.heads = 0;
	cst_dir_set_empty(m.dir);
	assert_int_equal(cst_dir_find(m.dir, "new", &entry, &at), -ENOENT);
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		put_now(name);
		assert_int_equal(cst_dir_find(m.dir, name, &entry, &at), 0);
	}
	struct cst_listing *listing = cst_dir_open(m.dir);
	size_t next = 0, seen = 0;
	for (;;) {
		unsigned left = 7;
		int rc = cst_listing_read(listing, next, &next, &wait, count_entry, &left, &err);
		if (rc < 0)
			break;
		unsigned got = 7 - (left == UINT32_MAX ? 0 : left);
		seen += got;
		assert_true(seen < 10000);
		for (unsigned i = 0; i < got; i++) {
			snprintf(name, sizeof(name), "r%zu-%u", seen, i);
			put_now(name);
		}
	}
	assert_int_equal(seen, 1000);
	cst_listing_close(listing);
	assert_int_equal(store.lists + store.heads, 0);
	end();
}

/* What listings have caught up with takes no memory, nor does what is too old. */
static void memory_of_changes(void **state)
{
	struct cst_meta_stats stats;
	char name[16];
	(void)state;
	begin(1);
	cst_dir_set_empty(m.dir);
	for (unsigned i = 0; i < 200000; i++) {
		snprintf(name, sizeof(name), "n%u", i % 70000);
		put_now(name);
	}
	cst_meta_stats(m.meta, &stats);
	assert_true(stats.listing_bytes < 20 << 20);
	pass_time();
	/* An hour of creating and removing files that nobody lists. */
	for (unsigned i = 0; i < 400000; i++) {
		snprintf(name, sizeof(name), "x%u", i);
		put_now(name);
		cst_dir_put_gone(m.dir, name, tick());
		if (i % 1000 == 0)
			pass_time();
	}
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(new_directory),
		cmocka_unit_test(random_changes),
		cmocka_unit_test(memory_of_changes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
