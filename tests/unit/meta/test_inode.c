/* The inode table: versions, counts, paths, st_ino, threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "meta/inode.h"
#include "meta/slab.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>

static struct cst_inode_table *t;
static struct cst_inode *root;

static int setup(void **state)
{
	(void)state;
	t = cst_inode_table_new(NULL, NULL);
	root = cst_inode_get(t, CST_NODE_ROOT);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	cst_inode_unref(t, root);
	cst_inode_table_free(t);
	return 0;
}

static struct cst_inode *enter(struct cst_inode *parent, const char *name, enum cst_kind kind, const char *etag,
			       int64_t at, uint64_t *replaced)
{
	struct cst_entry entry = {.kind = kind, .size = 10, .mtime = at, .at = at};
	snprintf(entry.etag, sizeof(entry.etag), "%s", etag);
	return cst_inode_enter(t, parent, name, &entry, 1, replaced);
}

static const char *etag_of(const struct cst_inode *inode)
{
	static char etag[CST_ETAG_MAX];
	CST_AUTO_ENTRY entry = CST_ENTRY_INIT;
	cst_inode_entry(t, inode, &entry);
	memcpy(etag, entry.etag, sizeof(etag));
	return etag;
}

static void version_states(void **state)
{
	uint64_t replaced;
	(void)state;
	struct cst_inode *a = enter(root, "a", CST_KIND_FILE, "one", 10, &replaced);
	assert_true(replaced == 0);
	assert_true(a->ino == cst_inode_first_ino(root, CST_SLICE("a")));
	struct cst_inode *same = enter(root, "a", CST_KIND_FILE, "one", 20, &replaced);
	assert_ptr_equal(same, a);
	assert_true(a->id->lookups == 2 && a->mtime == 20);
	/* Older news of another version are not believed. */
	struct cst_inode *old = enter(root, "a", CST_KIND_FILE, "zero", 15, &replaced);
	assert_ptr_equal(old, a);
	assert_true(replaced == 0 && !a->stale);
	struct cst_inode *b = enter(root, "a", CST_KIND_FILE, "two", 30, &replaced);
	assert_ptr_not_equal(b, a);
	assert_true(replaced == a->node && a->stale && b->node != a->node && b->ino != a->ino);
	assert_true(cst_inode_list_ino(t, root, CST_SLICE("a")) == b->ino);
	/* The old one is still found by its node id. */
	struct cst_inode *by_node = cst_inode_get(t, a->node);
	assert_ptr_equal(by_node, a);
	struct cst_inode *by_name = cst_inode_find(t, root, "a");
	assert_ptr_equal(by_name, b);
	uint64_t node = a->node;
	for (int i = 0; i < 4; i++) /* a, same, old, by_node */
		cst_inode_unref(t, a);
	assert_int_equal(cst_inode_forget(t, node, 2), 0);
	assert_non_null(by_node = cst_inode_get(t, node));
	cst_inode_unref(t, by_node);
	assert_int_equal(cst_inode_forget(t, node, 100), 0); /* more than there are: all */
	assert_null(cst_inode_get(t, node));
	assert_int_equal(cst_inode_forget(t, node, 1), -ESTALE);
	assert_true(cst_inode_remove(t, root, "a", 29) == 0); /* older than what is known */
	assert_true(cst_inode_remove(t, root, "a", 31) == b->node);
	assert_null(cst_inode_find(t, root, "a"));
	assert_true(b->stale);
	cst_inode_unref(t, b);
	cst_inode_unref(t, b);
}

/* Another node id for the same version, which the next lookup finds though nobody holds it. */
static void set_aside(void **state)
{
	uint64_t replaced;
	(void)state;
	cst_inode_unref(t, enter(root, "a", CST_KIND_FILE, "zero", 10, &replaced));
	struct cst_inode *a =
		enter(root, "a", CST_KIND_FILE, "one", 20, &replaced); /* its st_ino is not that of first sight */
	cst_inode_set_aside(t, a);
	struct cst_inode *b = enter(root, "a", CST_KIND_FILE, "one", 20, &replaced);
	assert_ptr_not_equal(a, b);
	assert_true(replaced == 0 && a->aside && !a->stale && !b->aside);
	assert_true(b->node != a->node && b->ino == a->ino && cst_inode_size(t, b) == cst_inode_size(t, a));
	assert_string_equal(etag_of(b), "one");
	assert_int_equal(b->mtime, 20);
	assert_true(cst_inode_list_ino(t, root, CST_SLICE("a")) == b->ino);
	struct cst_inode *by_node = cst_inode_get(t, a->node);
	assert_ptr_equal(by_node, a);
	cst_inode_set_aside(t, a); /* it has no place any more */
	struct cst_inode *by_name = cst_inode_find(t, root, "a");
	assert_ptr_equal(by_name, b);
	cst_inode_set_aside(t, root);
	/* News of another version find the one that has the place. */
	struct cst_inode *c = enter(root, "a", CST_KIND_FILE, "two", 30, &replaced);
	assert_true(replaced == b->node && b->stale && !a->stale);
	cst_inode_unref(t, by_node);
	cst_inode_unref(t, by_name);
	cst_inode_unref(t, a);
	cst_inode_unref(t, b);
	cst_inode_unref(t, c);
}

/* Nothing but Last-Modified tells versions apart where the store has no ETags. */
static void versions_without_etag(void **state)
{
	uint64_t replaced;
	(void)state;
	struct cst_inode *a = enter(root, "a", CST_KIND_FILE, "", 10, &replaced);
	struct cst_entry again = {.kind = CST_KIND_FILE, .size = 10, .mtime = 10, .at = 15};
	struct cst_inode *same = cst_inode_enter(t, root, "a", &again, 1, &replaced);
	assert_ptr_equal(same, a);
	struct cst_inode *b = enter(root, "a", CST_KIND_FILE, "", 20, &replaced);
	assert_ptr_not_equal(b, a);
	assert_true(replaced == a->node && a->stale && b->ino != a->ino);
	cst_inode_unref(t, a);
	cst_inode_unref(t, same);
	cst_inode_unref(t, b);
}

static void directories_keep_their_node(void **state)
{
	uint64_t replaced;
	(void)state;
	struct cst_inode *d = enter(root, "d", CST_KIND_DIR, "", 10, &replaced);
	struct cst_inode *again = enter(root, "d", CST_KIND_DIR, "", 20, &replaced);
	assert_ptr_equal(again, d);
	struct cst_inode *file = enter(root, "d", CST_KIND_FILE, "e", 30, &replaced);
	assert_ptr_not_equal(file, d);
	assert_true(replaced == d->node);
	cst_inode_unref(t, d);
	cst_inode_unref(t, d);
	cst_inode_unref(t, file);
}

static void paths_and_parents(void **state)
{
	uint64_t replaced;
	CST_AUTO_BUF path = CST_BUF_INIT;
	(void)state;
	struct cst_inode *d = enter(root, "d", CST_KIND_DIR, "", 10, &replaced);
	struct cst_inode *e = enter(d, "e", CST_KIND_DIR, "", 10, &replaced);
	struct cst_inode *f = enter(e, "f", CST_KIND_FILE, "x", 10, &replaced);
	cst_buf_add_str(&path, "p/");
	cst_inode_path(t, f, &path);
	assert_string_equal(path.data, "p/d/e/f");
	cst_buf_clear(&path);
	cst_inode_path(t, root, &path);
	assert_int_equal(path.len, 0);
	/* Forgotten from the top: the child keeps its parents, and they go with it. */
	uint64_t nodes[] = {d->node, e->node, f->node};
	cst_inode_unref(t, d);
	cst_inode_unref(t, e);
	cst_inode_forget(t, nodes[0], 1);
	cst_inode_forget(t, nodes[1], 1);
	assert_int_equal(cst_inode_table_count(t), 4);
	cst_inode_path(t, f, &path);
	assert_string_equal(path.data, "d/e/f");
	cst_inode_forget(t, nodes[2], 1);
	cst_inode_unref(t, f);
	assert_int_equal(cst_inode_table_count(t), 1);
	assert_null(cst_inode_get(t, nodes[0]));
}

/* Forgets race with lookups of the same few names; the model is the count of each thread. */
static void *race(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	char name[8];
	uint64_t held[64] = {0};
	uint64_t replaced;
	for (int i = 0; i < 60000; i++) {
		seed = seed * 1103515245u + 12345u;
		unsigned slot = seed >> 16 & 63;
		if (held[slot]) {
			struct cst_inode *inode = cst_inode_get(t, held[slot]);
			if (!inode) /* counted by us: it must be there */
				return (void *)1;
			cst_inode_unref(t, inode);
			cst_inode_forget(t, held[slot], 1);
			held[slot] = 0;
		} else {
			snprintf(name, sizeof(name), "n%u", seed >> 22 & 15);
			struct cst_inode *inode =
				enter(root, name, CST_KIND_FILE, seed & 1024 ? "a" : "b", i, &replaced);
			held[slot] = inode->node;
			cst_inode_unref(t, inode);
		}
	}
	for (unsigned i = 0; i < 64; i++)
		if (held[i])
			cst_inode_forget(t, held[i], 1);
	return NULL;
}

static void forgets_race(void **state)
{
	pthread_t threads[4];
	void *failed;
	(void)state;
	for (uintptr_t i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, race, (void *)(i + 1));
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], &failed);
		assert_null(failed);
	}
	assert_true(cst_inode_table_count(t) <= 1 + 256);
}

static void growth(void **state)
{
	uint64_t replaced;
	char name[16];
	(void)state;
	for (int i = 0; i < 50000; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		cst_inode_unref(t, enter(root, name, CST_KIND_FILE, "5D41402ABC4B2A76B9719D911017C592", 1, &replaced));
	}
	assert_int_equal(cst_inode_table_count(t), 50001);
	for (int i = 0; i < 50000; i += 777) {
		snprintf(name, sizeof(name), "n%d", i);
		struct cst_inode *inode = cst_inode_find(t, root, name);
		assert_non_null(inode);
		assert_true(cst_slice_is(cst_inode_name_locked(inode), name));
		assert_string_equal(etag_of(inode), "5D41402ABC4B2A76B9719D911017C592");
		cst_inode_unref(t, inode);
	}
}

/* ---- own changes ---- */

static void publish(struct cst_inode *inode, uint64_t size, const char *etag, int64_t at)
{
	struct cst_entry entry = {.kind = CST_KIND_FILE, .size = size, .mtime = at, .at = at};
	snprintf(entry.etag, sizeof(entry.etag), "%s", etag);
	cst_inode_publish(t, inode, &entry);
}

/* Another version, the same node id, st_ino and place by name. */
static void publications(void **state)
{
	uint64_t replaced;
	(void)state;
	struct cst_inode *a = enter(root, "a", CST_KIND_FILE, "", 10, &replaced);
	uint64_t node = a->node, ino = a->ino;
	publish(a, 99, "", 10); /* it is written on */
	assert_int_equal(cst_inode_size(t, a), 99);
	publish(a, 100, "5D41402ABC4B2A76B9719D911017C592-12", 20);
	assert_string_equal(etag_of(a), "5D41402ABC4B2A76B9719D911017C592-12");
	assert_true(a->node == node && a->ino == ino && a->mtime == 20 && a->checked == 20 && !a->stale);
	/* What was asked before the publication was confirmed doesn't replace it, what it says itself is it. */
	struct cst_inode *late = enter(root, "a", CST_KIND_FILE, "old", 19, &replaced);
	assert_true(late == a && replaced == 0);
	struct cst_entry same = {.kind = CST_KIND_FILE, .size = 100, .mtime = 21, .at = 21};
	memcpy(same.etag, "5D41402ABC4B2A76B9719D911017C592-12", 36);
	assert_true(cst_inode_is_version(t, a, &same));
	struct cst_inode *again = cst_inode_enter(t, root, "a", &same, 1, &replaced);
	assert_true(again == a && replaced == 0);
	/* While it is held the store's news don't count at all. */
	cst_inode_lock(t, a);
	a->held = true;
	cst_inode_unlock(t, a);
	struct cst_inode *held = enter(root, "a", CST_KIND_FILE, "other", 50, &replaced);
	assert_true(held == a && replaced == 0 && cst_inode_remove(t, root, "a", 50) == 0);
	cst_inode_lock(t, a);
	a->held = false;
	cst_inode_unlock(t, a);
	assert_true(cst_inode_remove(t, root, "a", 50) == node);
	publish(a, 7, "z", 60); /* a removed one that is still open */
	assert_null(cst_inode_find(t, root, "a"));
	for (int i = 0; i < 4; i++)
		cst_inode_unref(t, a);
}

/* A log file that is synced for ever. */
static void million_publications(void **state)
{
	uint64_t replaced;
	char etag[40];
	(void)state;
	struct cst_inode *a = enter(root, "a", CST_KIND_FILE, "", 10, &replaced);
	publish(a, 1, "x", 11);
	size_t before = mallinfo2().uordblks;
	for (int i = 0; i < 1000000; i++) {
		snprintf(etag, sizeof(etag), i % 3 ? "5D41402ABC4B2A76B9719D91%08X" : "e%X", (unsigned)i);
		publish(a, (uint64_t)i, etag, 12 + i);
	}
	size_t after = mallinfo2().uordblks;
	assert_true(after < before + (4u << 16)); /* a chunk for each size there was */
	assert_string_equal(etag_of(a), "eF423F");
	cst_inode_unref(t, a);
}

static void renames(void **state)
{
	uint64_t replaced;
	CST_AUTO_BUF path = CST_BUF_INIT;
	char name[CST_INODE_NAME_MAX + 1];
	(void)state;
	struct cst_inode *d = enter(root, "d", CST_KIND_DIR, "", 10, &replaced);
	struct cst_inode *e = enter(d, "e", CST_KIND_DIR, "", 10, &replaced);
	struct cst_inode *f = enter(e, "f", CST_KIND_FILE, "x", 10, &replaced);
	struct cst_inode *g = enter(root, "g", CST_KIND_FILE, "y", 10, &replaced);
	uint64_t node = e->node, ino = e->ino;
	assert_true(cst_inode_rename(t, e, root, "new", 20) == 0);
	assert_true(e->node == node && e->ino == ino && e->checked == 20);
	assert_true(cst_inode_list_ino(t, root, CST_SLICE("new")) == ino);
	cst_inode_path(t, f, &path);
	assert_string_equal(path.data, "new/f");
	assert_null(cst_inode_find(t, d, "e"));
	struct cst_inode *found = cst_inode_find(t, root, "new");
	assert_ptr_equal(found, e);
	cst_inode_unref(t, found);
	struct cst_inode *parent = cst_inode_place(t, f, name);
	assert_ptr_equal(parent, e);
	assert_string_equal(name, "f");
	cst_inode_unref(t, parent);
	assert_null(cst_inode_place(t, root, name));
	assert_string_equal(name, "");
	/* Over another: that is stale. News that are older than the rename don't come back. */
	assert_true(cst_inode_rename(t, f, root, "g", 30) == (int64_t)g->node);
	assert_true(g->stale && !f->stale);
	found = enter(root, "g", CST_KIND_FILE, "y", 25, &replaced);
	assert_true(found == f && replaced == 0);
	cst_inode_unref(t, found);
	/* Its own name, below itself, one without a place, the root. */
	assert_true(cst_inode_rename(t, f, root, "g", 31) == 0);
	assert_true(cst_inode_rename(t, e, e, "x", 31) == -EINVAL);
	struct cst_inode *deep = enter(e, "deep", CST_KIND_DIR, "", 10, &replaced);
	assert_true(cst_inode_rename(t, e, deep, "x", 31) == -EINVAL);
	assert_true(cst_inode_rename(t, g, root, "h", 31) == -ESTALE);
	assert_true(cst_inode_rename(t, root, d, "r", 31) == -EINVAL);
	/* The old parent isn't kept, the new one is. */
	uint64_t d_node = d->node, e_node = e->node;
	cst_inode_unref(t, d);
	cst_inode_forget(t, d_node, 1);
	assert_null(cst_inode_get(t, d_node));
	cst_inode_forget(t, e_node, 1);
	cst_inode_unref(t, e);
	found = cst_inode_get(t, e_node); /* kept by `deep` */
	assert_ptr_equal(found, e);
	cst_inode_unref(t, found);
	cst_inode_unref(t, deep);
	cst_inode_unref(t, f);
	cst_inode_unref(t, g);
}

static void note_below(void *arg, struct cst_inode *inode)
{
	struct cst_slice name = cst_inode_name_locked(inode);
	cst_buf_add_slice(arg, name);
}

static void what_is_below(void **state)
{
	uint64_t replaced;
	CST_AUTO_BUF names = CST_BUF_INIT;
	(void)state;
	struct cst_inode *d = enter(root, "d", CST_KIND_DIR, "", 10, &replaced);
	struct cst_inode *e = enter(d, "e", CST_KIND_DIR, "", 10, &replaced);
	cst_inode_unref(t, enter(e, "f", CST_KIND_FILE, "x", 10, &replaced));
	cst_inode_unref(t, enter(root, "z", CST_KIND_FILE, "x", 10, &replaced));
	cst_inode_each_below(t, d, note_below, &names);
	assert_int_equal(names.len, 2);
	assert_true(memchr(names.data, 'e', 2) && memchr(names.data, 'f', 2));
	cst_inode_unref(t, d);
	cst_inode_unref(t, e);
}

/* Two levels of directories are renamed to and fro, and a file is published, while others look: every path that is told was one at some moment. */
static struct {
	struct cst_inode *top, *middle, *leaf;
	bool stop;
} moving;

static void *move_top(void *arg)
{
	(void)arg;
	for (int i = 0; i < 20000; i++)
		if (cst_inode_rename(t, moving.top, root, i % 2 ? "a" : "bb", i) < 0)
			return (void *)1;
	return NULL;
}

static void *move_middle(void *arg)
{
	(void)arg;
	for (int i = 0; i < 20000; i++)
		if (cst_inode_rename(t, moving.middle, i % 3 ? moving.top : root, i % 2 ? "m" : "nn", i) < 0)
			return (void *)1;
	return NULL;
}

static void *publish_leaf(void *arg)
{
	char etag[16];
	(void)arg;
	for (int i = 0; i < 20000; i++) {
		snprintf(etag, sizeof(etag), "%d", i);
		publish(moving.leaf, (uint64_t)i, etag, i);
	}
	return NULL;
}

static void *look(void *arg)
{
	static const char *const paths[] = {"a/m/f", "a/nn/f", "bb/m/f", "bb/nn/f", "m/f", "nn/f"};
	(void)arg;
	while (!__atomic_load_n(&moving.stop, __ATOMIC_ACQUIRE)) {
		CST_AUTO_BUF path = CST_BUF_INIT;
		CST_AUTO_ENTRY entry = CST_ENTRY_INIT;
		char name[CST_INODE_NAME_MAX + 1], etag[16];
		bool known = false;
		cst_inode_path(t, moving.leaf, &path);
		for (size_t i = 0; i < CST_ARRAY_LEN(paths); i++)
			known |= strcmp(path.data, paths[i]) == 0;
		cst_inode_entry(t, moving.leaf, &entry);
		snprintf(etag, sizeof(etag), "%llu", (unsigned long long)entry.size);
		struct cst_inode *parent = cst_inode_place(t, moving.middle, name);
		struct cst_inode *found = cst_inode_find(t, root, "bb");
		bool right = known && strcmp(etag, entry.etag) == 0 && (parent == root || parent == moving.top) &&
			     (found == NULL || found == moving.top);
		cst_inode_unref(t, parent);
		cst_inode_unref(t, found);
		if (!right)
			return (void *)1;
	}
	return NULL;
}

static void changes_race(void **state)
{
	static void *(*const work[])(void *) = {move_top, move_middle, publish_leaf, look, look};
	pthread_t threads[CST_ARRAY_LEN(work)];
	uint64_t replaced;
	void *failed;
	(void)state;
	moving.top = enter(root, "a", CST_KIND_DIR, "", 10, &replaced);
	moving.middle = enter(moving.top, "m", CST_KIND_DIR, "", 10, &replaced);
	moving.leaf = enter(moving.middle, "f", CST_KIND_FILE, "10", 10, &replaced);
	moving.stop = false;
	for (size_t i = 0; i < CST_ARRAY_LEN(work); i++)
		pthread_create(&threads[i], NULL, work[i], NULL);
	for (size_t i = 0; i < CST_ARRAY_LEN(work); i++) {
		if (i == 3)
			__atomic_store_n(&moving.stop, true, __ATOMIC_RELEASE);
		pthread_join(threads[i], &failed);
		assert_null(failed);
	}
	assert_int_equal(moving.leaf->refs, 1); /* nothing leaked, nothing lost */
	assert_int_equal(moving.middle->refs, 2);
	assert_int_equal(moving.top->refs, 1 + (moving.middle->parent == moving.top));
	cst_inode_unref(t, moving.leaf);
	cst_inode_unref(t, moving.middle);
	cst_inode_unref(t, moving.top);
}

/* ---- identities in memory of others ---- */

struct record {
	bool committed;
	size_t size;
	uint64_t sequence;
	struct record *next;
	uint64_t body[];
};

static struct {
	struct record *records;
	uint64_t sequence, next_node;
	bool keep; /* what is freed: the process has died before that */
} memory;

static void *memory_alloc(void *arg, size_t size)
{
	struct record *r = cst_xcalloc(1, sizeof(*r) + size);
	(void)arg;
	r->size = size;
	r->next = memory.records;
	return (memory.records = r)->body;
}

static void memory_commit(void *arg, struct cst_identity *id)
{
	struct record *r = cst_container_of((void *)id, struct record, body);
	(void)arg;
	assert_int_equal(r->size, cst_identity_size(id));
	r->committed = true;
	r->sequence = ++memory.sequence;
}

static void memory_free(void *arg, struct cst_identity *id, size_t size)
{
	struct record **at = &memory.records, *r;
	(void)arg;
	if (memory.keep)
		return;
	while ((*at)->body != (void *)id)
		at = &(*at)->next;
	r = *at;
	assert_int_equal(r->size, size);
	*at = r->next;
	free(r);
}

static int by_sequence(const void *a, const void *b)
{
	const struct record *x = cst_container_of(*(uint64_t *const *)a, struct record, body),
			    *y = cst_container_of(*(uint64_t *const *)b, struct record, body);
	return x->sequence < y->sequence ? -1 : 1;
}

/* Another process takes over: the table with its heap is gone, what was committed is there. */
static void take_over(void)
{
	static const struct cst_identity_memory where = {memory_alloc, memory_commit,	  memory_free,
							 NULL,	       &memory.next_node, 77};
	struct cst_identity *ids[64];
	size_t count = 0;
	if (t) {
		cst_inode_unref(t, root);
		memory.keep = true;
		cst_inode_table_free(t);
		memory.keep = false;
	}
	for (struct record *r = memory.records; r; r = r->next)
		if (r->committed)
			ids[count++] = (struct cst_identity *)(void *)r->body;
	qsort(ids, count, sizeof(ids[0]), by_sequence);
	t = cst_inode_table_new(NULL, &where);
	cst_inode_table_restore(t, ids, count);
	root = cst_inode_get(t, CST_NODE_ROOT);
}

static void restored(void **state)
{
	uint64_t replaced;
	CST_AUTO_BUF path = CST_BUF_INIT;
	teardown(state);
	t = NULL;
	take_over();
	assert_true(cst_inode_table_generation(t) == 77);
	struct cst_inode *d = enter(root, "d", CST_KIND_DIR, "", 10, &replaced);
	struct cst_inode *late = enter(root, "late", CST_KIND_DIR, "", 10, &replaced);
	struct cst_inode *f = enter(d, "f", CST_KIND_FILE, "one", 10, &replaced);
	struct cst_inode *two = enter(d, "f", CST_KIND_FILE, "two", 20, &replaced);
	struct cst_inode *p = enter(d, "p", CST_KIND_FILE, "x", 10, &replaced);
	assert_true(replaced == 0);
	cst_inode_rename(t, d, late, "moved", 30);
	memory.keep = true; /* the process dies after it has committed, before it has freed the earlier version */
	publish(p, 5, "y", 40);
	memory.keep = false;
	uint64_t nodes[] = {d->node, late->node, f->node, two->node, p->node}, inos[] = {two->ino, p->ino};
	cst_inode_forget(t, late->node, 1);
	struct cst_inode *busy = enter(late, "busy", CST_KIND_DIR, "", 10, &replaced);
	cst_inode_forget(t, enter(busy, "b", CST_KIND_FILE, "", 10, &replaced)->node, 1); /* in use here alone */
	cst_inode_forget(t, busy->node, 1);
	struct cst_inode *all[] = {d, late, f, two, p};
	for (size_t i = 0; i < CST_ARRAY_LEN(all); i++)
		cst_inode_unref(t, all[i]);
	/* And an identity whose directory is not there. */
	struct cst_identity *orphan = memory_alloc(NULL, offsetof(struct cst_identity, text) + 2);
	*orphan = (struct cst_identity){.node = 900, .parent = 899, .kind = CST_KIND_FILE, .name_len = 1};
	memcpy(orphan->text, "o", 2);
	memory_commit(NULL, orphan);
	take_over();
	assert_int_equal(cst_inode_table_count(t), 6);
	assert_null(cst_inode_get(t, 900));
	struct cst_inode *now = cst_inode_get(t, nodes[4]);
	assert_true(now->ino == inos[1] && now->checked == 0 && now->id->lookups == 1 && !now->stale);
	assert_string_equal(etag_of(now), "y");
	cst_inode_path(t, now, &path);
	assert_string_equal(path.data, "late/moved/p");
	cst_inode_unref(t, now);
	struct cst_inode *old = cst_inode_get(t, nodes[2]), *new = cst_inode_get(t, nodes[3]);
	assert_true(old->stale && !new->stale &&new->ino == inos[0]);
	struct cst_inode *dir = cst_inode_get(t, nodes[0]), *found = cst_inode_find(t, dir, "f");
	assert_ptr_equal(found, new);
	/* What the store says first counts: nothing is known of what is there. */
	struct cst_inode *same = enter(dir, "f", CST_KIND_FILE, "two", 5, &replaced);
	assert_ptr_equal(same, new);
	/* Node ids are not given again. */
	struct cst_inode *fresh = enter(dir, "g", CST_KIND_FILE, "two", 5, &replaced);
	assert_true(fresh->node > 900);
	cst_inode_unref(t, old);
	cst_inode_unref(t, new);
	cst_inode_unref(t, dir);
	cst_inode_unref(t, found);
	cst_inode_unref(t, same);
	cst_inode_unref(t, fresh);
	for (size_t i = 0; i < CST_ARRAY_LEN(nodes); i++)
		cst_inode_forget(t, nodes[i], 100);
	cst_inode_forget(t, fresh->node, 1);
	assert_int_equal(cst_inode_table_count(t), 1);
	assert_null(memory.records->next); /* the root's alone is left */
}

/* ---- small records ---- */

static void slabs(void **state)
{
	struct cst_slab *slab = cst_slab_new();
	void **records = cst_xcalloc(20000, sizeof(void *));
	unsigned seed = 1;
	(void)state;
	for (int i = 0; i < 400000; i++) {
		seed = seed * 1103515245u + 12345u;
		unsigned slot = seed >> 8 & 16383;
		size_t size = 1 + slot % 600; /* some of them larger than it takes itself */
		if (records[slot]) {
			assert_int_equal(*(unsigned char *)records[slot], slot & 255);
			assert_int_equal(((unsigned char *)records[slot])[size - 1], slot & 255);
			cst_slab_free(slab, records[slot], size);
			records[slot] = NULL;
		} else {
			records[slot] = cst_slab_alloc(slab, size);
			assert_true((uintptr_t)records[slot] % 8 == 0);
			memset(records[slot], (int)(slot & 255), size);
		}
	}
	for (unsigned slot = 0; slot < 16384; slot++)
		cst_slab_free(slab, records[slot], 1 + slot % 600);
	cst_slab_destroy(slab); /* stops when a record is missing */
	free(records);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(set_aside),
		CASE(version_states),
		CASE(versions_without_etag),
		CASE(directories_keep_their_node),
		CASE(paths_and_parents),
		CASE(forgets_race),
		CASE(growth),
		CASE(publications),
		CASE(million_publications),
		CASE(renames),
		CASE(what_is_below),
		CASE(changes_race),
		CASE(restored),
		cmocka_unit_test(slabs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
