/* The inode table: versions, counts, paths, st_ino, threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "meta/inode.h"

#include <errno.h>
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
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
