/* Preloads against a bucket in memory: what they put in place is what a listing of each directory brings, whatever the keys are, however they are cut
 * into ranges, and at no more requests than the keys fill. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../fs/fake_bucket.h"
#include "../fs/fake_bucket_private.h"
#include "meta/preload_private.h"
#include "meta/relist.h"

#include <errno.h>
#include <sched.h>

static struct cst_bucket *bucket;
static struct cst_meta *meta;
static struct cst_meta_config config;
static int64_t now_ns;
static unsigned skipped, shadowed;

static int64_t test_clock(void)
{
	return __atomic_load_n(&now_ns, __ATOMIC_RELAXED);
}

static void pass(int64_t ns)
{
	__atomic_fetch_add(&now_ns, ns, __ATOMIC_RELAXED);
}

static void count_skipped(void *arg, struct cst_slice dir, struct cst_slice name, uint64_t count)
{
	(void)arg;
	(void)dir;
	(void)name;
	__atomic_fetch_add(&skipped, (unsigned)count, __ATOMIC_RELAXED);
}

static void count_shadowed(void *arg, struct cst_slice dir, struct cst_slice name)
{
	(void)arg;
	(void)dir;
	(void)name;
	__atomic_fetch_add(&shadowed, 1, __ATOMIC_RELAXED);
}

static int setup(void **state)
{
	(void)state;
	now_ns = 1000 * CST_NS_PER_S;
	skipped = shadowed = 0;
	bucket = fake_bucket_new();
	config = (struct cst_meta_config){.bucket = bucket,
					  .symlinks = true,
					  .list_ttl = 60 * CST_NS_PER_S,
					  .clock = test_clock,
					  .skipped = count_skipped,
					  .shadowed = count_shadowed};
	meta = NULL;
	return 0;
}

static void start(void)
{
	meta = cst_meta_new(&config);
}

static int teardown(void **state)
{
	(void)state;
	if (meta)
		cst_meta_stop(meta);
	cst_meta_free(meta);
	fake_bucket_free(bucket);
	return 0;
}

/* ---- what a directory's listing has, as text ---- */

static bool add_line(void *arg, size_t i, const struct cst_name_view *view, struct cst_object_attr *attr, int64_t at)
{
	(void)i;
	(void)attr;
	(void)at;
	cst_buf_printf(arg, "%.*s %u %u %llu %lld %s\n", (int)view->name.len, view->name.data, view->kind, view->type,
		       (unsigned long long)view->size, (long long)view->mtime, view->etag);
	return true;
}

struct waiter {
	struct cst_listing_wait wait;
	bool came; /* atomic */
};

static void news(struct cst_listing_wait *wait)
{
	struct waiter *w = cst_container_of(wait, struct waiter, wait);
	__atomic_store_n(&w->came, true, __ATOMIC_RELEASE);
}

static char *list(struct cst_dir *dir)
{
	struct cst_buf text = CST_BUF_INIT;
	struct cst_listing *listing = cst_dir_open(dir);
	struct waiter w = {.wait = {.done = news}};
	struct cst_error err = CST_ERROR_INIT;
	size_t next = 0;
	int rc;
	while ((rc = cst_listing_read(listing, next, &next, &w.wait, add_line, &text, &err)) != -ENOENT) {
		assert_true(rc == 0 || rc == -EAGAIN);
		while (rc == -EAGAIN && !__atomic_load_n(&w.came, __ATOMIC_ACQUIRE))
			sched_yield();
		w.came = false;
	}
	cst_buf_printf(&text, "marker %d\n", listing->names.has_marker);
	cst_listing_close(listing);
	return cst_buf_steal(&text);
}

static char *list_anew(struct cst_slice prefix)
{
	struct cst_dir *dir = cst_dir_new(meta, prefix);
	char *text = list(dir);
	cst_dir_unref(dir);
	return text;
}

/* ---- a preload to its end ---- */

static struct cst_preload_progress progress;

static void preload_config(struct cst_preload_config *c, struct cst_dir *dir)
{
	*c = (struct cst_preload_config){.dir = dir};
}

static void wait_for(struct cst_preload *p)
{
	do {
		sched_yield();
		cst_preload_progress(p, &progress);
	} while (progress.end == CST_PRELOAD_RUNNING);
}

static struct cst_dir *base;
static struct cst_dir *find_base(void *arg, struct cst_slice prefix)
{
	(void)arg;
	return cst_slice_eq(prefix, cst_dir_prefix(base)) ? cst_dir_ref(base) : NULL;
}

static void preload(const char *prefix)
{
	struct cst_preload_config c;
	base = cst_dir_new(meta, cst_slice_of(prefix));
	preload_config(&c, base);
	c.find = find_base;
	struct cst_preload *p = cst_preload_start(&c);
	wait_for(p);
	cst_preload_unref(p);
}

/* Every directory that can be reached from the base is as a listing of its own; returns how many there are. */
static unsigned compare_below(struct cst_dir *dir, bool need)
{
	struct cst_slice prefix = cst_dir_prefix(dir);
	unsigned count = 1, before = fake_counts(bucket).lists;
	char *got = list(dir);
	if (need && fake_counts(bucket).lists != before)
		fail_msg("%.*s was listed once more", (int)prefix.len, prefix.data);
	char *wanted = list_anew(prefix);
	if (strcmp(got, wanted) != 0)
		print_error("%.*s is\n%sand not\n%s", (int)prefix.len, prefix.data, got, wanted);
	assert_string_equal(got, wanted);
	for (char *line = got, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
		char *name_end = line;
		int kind = 0;
		/* name kind type size mtime etag */
		for (char *p = line; p < end; p++)
			if (*p == ' ' && p[1] >= '0' && p[1] <= '9' && p[2] == ' ' && sscanf(p, " %d", &kind) == 1) {
				name_end = p;
				break;
			}
		if (kind != CST_KIND_DIR || name_end == line)
			continue;
		CST_AUTO_BUF below = CST_BUF_INIT;
		cst_buf_add_slice(&below, prefix);
		cst_buf_add(&below, line, (size_t)(name_end - line));
		cst_buf_add_char(&below, '/');
		struct cst_dir *child = cst_dir_get(meta, cst_buf_slice(&below));
		pthread_mutex_lock(&child->lock);
		bool known = child->listing != NULL;
		pthread_mutex_unlock(&child->lock);
		/* One whose $folder$ object is all there is of it has no key of its own. */
		count += compare_below(child, need && known);
		if (need && !known)
			assert_null(strstr(wanted, "/"));
		cst_dir_unref(child);
	}
	free(got);
	free(wanted);
	return count;
}

static void put(const char *key)
{
	char etag[40];
	snprintf(etag, sizeof(etag), "%08zX", strlen(key) * 2654435761u);
	fake_put(bucket, key, strlen(key), etag, (int64_t)strlen(key), NULL);
}

static void a_small_tree_takes_one_page(void **state)
{
	(void)state;
	put("t/a/1");
	put("t/a/2");
	put("t/b/c/3");
	put("t/b/c/");
	put("t/x");
	fake_put(bucket, "t/old_$folder$", 0, "E", 1, NULL);
	start();
	preload("t/");
	assert_int_equal(progress.end, CST_PRELOAD_WHOLE);
	assert_int_equal(progress.pages, 1);
	assert_in_range(progress.directories, 3, 4); /* the base may have its own listing, which tells where to cut */
	assert_in_range(fake_counts(bucket).lists, 1, 2);
	compare_below(base, true);
	cst_dir_unref(base);
}

static const char *const parts[] = {"a",	"b", "a-b",  "a.b", "b_$folder$", "",	 ".",	 "..",
				    "\xc3\xa9", "z", "aa\n", "0",   "10",	  "A b", "q%2F", "_$folder$"};

static void random_trees(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 150; seed++) {
		srand(seed);
		unsigned count = 20 + (unsigned)rand() % 400;
		fake_page_size(bucket, 3 + (unsigned)rand() % 60);
		fake_retry_pages(bucket, seed % 5 == 0);
		for (unsigned i = 0; i < count; i++) {
			char key[200] = "";
			unsigned depth = 1 + (unsigned)rand() % 5;
			for (unsigned d = 0; d < depth; d++) {
				strcat(key, parts[(unsigned)rand() % CST_ARRAY_LEN(parts)]);
				if (d + 1 < depth || rand() % 6 == 0)
					strcat(key, "/");
			}
			if (key[0])
				fake_put(bucket, key, strstr(key, "$folder$") ? 0 : 7, "E", 5, NULL);
		}
		start();
		preload(seed % 3 ? "" : "a/");
		assert_int_equal(progress.end, CST_PRELOAD_WHOLE);
		compare_below(base, true);
		cst_dir_unref(base);
		teardown(NULL);
		setup(NULL);
	}
}

static void make_tree(unsigned dirs, unsigned files)
{
	char key[64];
	for (unsigned d = 0; d < dirs; d++)
		for (unsigned f = 0; f < files; f++) {
			snprintf(key, sizeof(key), "tree/dir%04u/f%04u", d, f);
			put(key);
		}
}

static void many_directories(void **state)
{
	(void)state;
	make_tree(200, 100);
	fake_page_size(bucket, 200); /* 100 pages of keys */
	start();
	preload("tree/");
	assert_int_equal(progress.end, CST_PRELOAD_WHOLE);
	assert_in_range(progress.directories, 200, 201);
	assert_true(fake_counts(bucket).lists <= 120);
	assert_true(fake_counts(bucket).max_in_flight > 1);
	fake_page_size(bucket, 1000);
	assert_int_equal(compare_below(base, true), 201);
	cst_dir_unref(base);
}

/* One directory alone, of which nothing tells where to cut. */
static void a_large_directory_is_cut_too(void **state)
{
	(void)state;
	char key[64];
	for (unsigned f = 0; f < 20000; f++) {
		snprintf(key, sizeof(key), "one/img_%08u.jpg", f);
		put(key);
	}
	fake_page_size(bucket, 100); /* 200 pages */
	config.listing_bytes = UINT64_C(1) << 30;
	start();
	preload("one/");
	assert_int_equal(progress.end, CST_PRELOAD_WHOLE);
	assert_true(fake_counts(bucket).max_in_flight > 1);
	assert_true(progress.pages <= 250);
	compare_below(base, true);
	cst_dir_unref(base);
}

static void names_of_every_kind_have_a_middle(void **state)
{
	struct cst_seen seen = {0};
	(void)state;
	static const char *const low[] = {"img_00007999", "0f3a", "5", "zebra/17", ""};
	static const char *const high[] = {"", "3", "6", "", "zz"};
	cst_seen_add(&seen, CST_SLICE("img_00000000"));
	cst_seen_add(&seen, CST_SLICE("0f3a9b"));
	cst_seen_add(&seen, CST_SLICE("zebra/17"));
	for (size_t i = 0; i < CST_ARRAY_LEN(low); i++)
		for (int least = 0; least < 2; least++) {
			CST_AUTO_BUF middle = CST_BUF_INIT;
			assert_true(
				cst_seen_between(&seen, cst_slice_of(low[i]), cst_slice_of(high[i]), least, &middle));
			assert_true(strcmp(middle.data, low[i]) > 0);
			assert_true(!high[i][0] || strcmp(middle.data, high[i]) < 0);
		}
	/* Never in the middle of a character. */
	CST_AUTO_BUF none = CST_BUF_INIT;
	struct cst_seen accents = {0};
	cst_seen_add(&accents, CST_SLICE("\xc3\xa9"));
	assert_false(cst_seen_between(&accents, CST_SLICE("\xc3\xa9"), (struct cst_slice){0}, false, &none));
}

static void memory_that_is_used_up_ends_it(void **state)
{
	struct cst_meta_stats stats;
	(void)state;
	make_tree(200, 100);
	config.listing_bytes = 256 << 10;
	fake_page_size(bucket, 200);
	start();
	preload("tree/");
	assert_int_equal(progress.end, CST_PRELOAD_FULL);
	assert_true(progress.directories > 10 && progress.directories < 200);
	cst_meta_stats(meta, &stats);
	assert_true(stats.listing_bytes <= config.listing_bytes);
	assert_true(progress.pages < 100);
	/* The rest goes on as without it. */
	fake_page_size(bucket, 1000);
	char *text = list(base);
	assert_non_null(strstr(text, "dir0199 2 "));
	free(text);
	cst_dir_unref(base);
}

static void listings_end_with_their_time(void **state)
{
	(void)state;
	make_tree(20, 10);
	start();
	preload("tree/");
	pass(61 * CST_NS_PER_S);
	struct cst_dir *dir = cst_dir_get(meta, CST_SLICE("tree/dir0003/"));
	unsigned before = fake_counts(bucket).lists;
	free(list(dir));
	assert_int_equal(fake_counts(bucket).lists, before + 1);
	cst_dir_unref(dir);
	cst_dir_unref(base);
}

static void what_is_young_stays(void **state)
{
	(void)state;
	make_tree(3, 3);
	start();
	struct cst_dir *dir = cst_dir_new(meta, CST_SLICE("tree/dir0001/"));
	free(list(dir));
	cst_dir_park(dir);
	cst_dir_unref(dir);
	pass(CST_NS_PER_S);
	put("tree/dir0001/later");
	preload("tree/");
	assert_in_range(progress.directories, 2, 3);
	dir = cst_dir_get(meta, CST_SLICE("tree/dir0001/"));
	char *text = list(dir);
	assert_null(strstr(text, "later"));
	free(text);
	cst_dir_unref(dir);
	cst_dir_unref(base);
}

/* A refresh, or a rename, while requests are under way: what they bring is not put in place. */
static void what_is_dropped_stays_away(void **state)
{
	struct cst_preload_config c;
	(void)state;
	make_tree(3, 3);
	start();
	fake_hold(bucket, true);
	base = cst_dir_new(meta, CST_SLICE("tree/"));
	preload_config(&c, base);
	c.find = find_base;
	struct cst_preload *p = cst_preload_start(&c);
	fake_wait_held(bucket, 2);
	cst_parked_drop(meta, CST_SLICE(""));
	fake_hold(bucket, false);
	wait_for(p);
	assert_int_equal(progress.end, CST_PRELOAD_WHOLE);
	assert_int_equal(progress.directories, 0);
	cst_preload_unref(p);
	cst_dir_unref(base);
}

static void who_opens_a_directory_waits_for_what_is_under_way(void **state)
{
	struct cst_preload_config c;
	(void)state;
	make_tree(20, 10);
	start();
	fake_hold(bucket, true);
	base = cst_dir_new(meta, CST_SLICE("tree/"));
	struct cst_dir *other = cst_dir_new(meta, CST_SLICE("tree/nothing/"));
	struct cst_dir *dir = cst_dir_new(meta, CST_SLICE("tree/dir0007/"));
	preload_config(&c, base);
	struct cst_preload *p = cst_preload_start(&c);
	fake_wait_held(bucket, 2);
	struct cst_listing *absent = cst_dir_open(other), *listing = cst_dir_open(dir);
	assert_int_equal(fake_counts(bucket).lists, 2);
	assert_true(listing->joined && absent->joined);
	fake_hold(bucket, false);
	wait_for(p);
	/* Without a way to find it, the directory is none that the preload knows: it asks by itself in the end. */
	char *text = list(dir);
	assert_non_null(strstr(text, "f0009"));
	free(text);
	text = list(other);
	assert_string_equal(text, "marker 0\n");
	free(text);
	cst_listing_close(listing);
	cst_listing_close(absent);
	cst_preload_unref(p);
	cst_dir_unref(dir);
	cst_dir_unref(other);
	cst_dir_unref(base);
}

static struct cst_dir *opened;
static struct cst_dir *find_opened(void *arg, struct cst_slice prefix)
{
	(void)arg;
	return cst_slice_eq(prefix, cst_dir_prefix(opened)) ? cst_dir_ref(opened) : NULL;
}

static void an_opened_directory_is_filled(void **state)
{
	struct cst_preload_config c;
	(void)state;
	make_tree(20, 10);
	start();
	fake_hold(bucket, true);
	base = cst_dir_new(meta, CST_SLICE("tree/"));
	opened = cst_dir_new(meta, CST_SLICE("tree/dir0007/"));
	preload_config(&c, base);
	c.find = find_opened;
	struct cst_preload *p = cst_preload_start(&c);
	fake_wait_held(bucket, 2);
	struct cst_listing *listing = cst_dir_open(opened);
	fake_hold(bucket, false);
	char *text = list(opened);
	assert_non_null(strstr(text, "f0009"));
	free(text);
	wait_for(p);
	assert_int_equal(fake_counts(bucket).lists, 2);
	assert_int_equal(progress.hits, 1);
	cst_listing_close(listing);
	cst_preload_unref(p);
	cst_dir_unref(opened);
	cst_dir_unref(base);
}

static pthread_mutex_t walk_lock = PTHREAD_MUTEX_INITIALIZER;
static struct cst_dir *find_walked(void *arg, struct cst_slice prefix)
{
	struct cst_dir *found = find_base(arg, prefix);
	pthread_mutex_lock(&walk_lock);
	if (!found && opened && cst_slice_eq(prefix, cst_dir_prefix(opened)))
		found = cst_dir_ref(opened);
	pthread_mutex_unlock(&walk_lock);
	return found;
}

static struct cst_preload *start_ahead(const char *after)
{
	struct cst_preload_config c;
	base = cst_dir_new(meta, CST_SLICE("tree/"));
	preload_config(&c, base);
	c.find = find_walked;
	c.ahead = true;
	c.after = cst_slice_of(after);
	opened = NULL;
	return cst_preload_start(&c);
}

/* Opens a directory of the tree, reads it and closes it. */
static void walk_into(unsigned d)
{
	char prefix[32];
	snprintf(prefix, sizeof(prefix), "tree/dir%04u/", d);
	struct cst_dir *dir = cst_dir_get(meta, cst_slice_of(prefix));
	pthread_mutex_lock(&walk_lock);
	opened = dir;
	pthread_mutex_unlock(&walk_lock);
	char *text = list(dir);
	assert_non_null(strstr(text, "f0019"));
	free(text);
	pthread_mutex_lock(&walk_lock);
	opened = NULL;
	pthread_mutex_unlock(&walk_lock);
	cst_dir_unref(dir);
}

static void ahead_of_a_walk(void **state)
{
	(void)state;
	make_tree(300, 20);
	fake_page_size(bucket, 100);
	start();
	struct cst_preload *p = start_ahead("tree/dir0003.");
	for (unsigned d = 3; d < 300; d++) {
		walk_into(d);
		cst_preload_progress(p, &progress);
		assert_true(progress.pages <= 2 + progress.hits);
	}
	/* 60 pages have the keys; a walk as quick as the store overtakes it now and then. */
	assert_in_range(fake_counts(bucket).lists, 60, 150);
	cst_preload_cancel(p);
	cst_preload_unref(p);
	cst_dir_unref(base);
}

/* Who stops soon has paid for a few pages. */
static void a_walk_that_stops(void **state)
{
	(void)state;
	make_tree(100, 50);
	fake_page_size(bucket, 100);
	start();
	struct cst_preload *p = start_ahead("tree/dir0003.");
	walk_into(3);
	walk_into(4);
	cst_meta_stop(meta); /* whatever was under way has ended */
	cst_preload_progress(p, &progress);
	assert_true(progress.pages <= 4);
	cst_preload_unref(p);
	cst_dir_unref(base);
}

static void large_directories_are_no_gain(void **state)
{
	(void)state;
	make_tree(10, 50);
	fake_page_size(bucket, 20);
	start();
	struct cst_preload *p = start_ahead("tree/dir0003.");
	wait_for(p);
	assert_int_equal(progress.end, CST_PRELOAD_NO_GAIN);
	assert_true(progress.pages <= 2);
	cst_preload_unref(p);
	cst_dir_unref(base);
}

static void failures_end_it(void **state)
{
	(void)state;
	make_tree(3, 3);
	start();
	fake_fail(bucket, -EACCES, "AccessDenied");
	preload("tree/");
	assert_int_equal(progress.end, CST_PRELOAD_FAILED);
	cst_dir_unref(base);
	fake_fail(bucket, 0, "");
	fake_expire_tokens(bucket, true);
	fake_page_size(bucket, 2);
	preload("tree/");
	assert_int_equal(progress.end, CST_PRELOAD_WHOLE);
	assert_in_range(progress.directories, 3, 4);
	cst_dir_unref(base);
	/* Stopped while requests are under way. */
	fake_hold(bucket, true);
	struct cst_preload_config c;
	base = cst_dir_new(meta, CST_SLICE(""));
	preload_config(&c, base);
	struct cst_preload *p = cst_preload_start(&c);
	cst_meta_stop(meta);
	wait_for(p);
	assert_int_equal(progress.end, CST_PRELOAD_CANCELLED);
	fake_hold(bucket, false);
	cst_preload_unref(p);
	cst_dir_unref(base);
}

struct name_waiter {
	struct cst_dir_wait wait;
	int rc;
	struct cst_dir *below; /* counted */
	bool came;	       /* atomic */
};

static void name_came(struct cst_dir_wait *wait, int rc, const struct cst_entry *entry, struct cst_dir *below,
		      const struct cst_error *e)
{
	struct name_waiter *w = cst_container_of(wait, struct name_waiter, wait);
	(void)e;
	w->rc = rc == 0 ? (int)entry->kind : rc;
	w->below = below ? cst_dir_ref(below) : NULL;
	__atomic_store_n(&w->came, true, __ATOMIC_RELEASE);
}

static int ask(struct cst_dir *dir, const char *name, struct cst_dir **below)
{
	struct name_waiter w = {.wait = {.done = name_came}};
	cst_dir_probe(dir, name, CST_DIR_ASK_NAME, NULL, &w.wait);
	while (!__atomic_load_n(&w.came, __ATOMIC_ACQUIRE))
		sched_yield();
	*below = w.below;
	return w.rc;
}

static void all_levels_come_with_the_first(void **state)
{
	struct cst_dir *root, *below, *dir;
	(void)state;
	put("a/b/c/d/e/f/g/file");
	put("a/b/other");
	put("a/");
	config.path_probe = true;
	start();
	root = cst_dir_new(meta, CST_SLICE(""));
	assert_int_equal(ask(root, "a", &below), CST_KIND_DIR);
	assert_int_equal(fake_counts(bucket).lists + fake_counts(bucket).heads, 2);
	static const char *const deeper[] = {"a/b/", "a/b/c/", "a/b/c/d/", "a/b/c/d/e/f/g/"};
	for (size_t i = 0; i < CST_ARRAY_LEN(deeper); i++) {
		dir = cst_dir_get(meta, cst_slice_of(deeper[i]));
		free(list(dir));
		cst_dir_unref(dir);
	}
	free(list(below));
	assert_int_equal(fake_counts(bucket).lists + fake_counts(bucket).heads, 2);
	cst_dir_unref(below);
	/* What isn't there, and what is a file. */
	assert_int_equal(ask(root, "nothing", &below), -ENOENT);
	cst_dir_unref(below);
	cst_dir_unref(root);
}

static void what_comes_with_a_name_is_right(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 60; seed++) {
		srand(seed);
		config.path_probe = true;
		fake_page_size(bucket, 2 + (unsigned)rand() % 30);
		for (unsigned i = 0; i < 150; i++) {
			char key[200] = "a/";
			unsigned depth = 1 + (unsigned)rand() % 4;
			for (unsigned d = 0; d < depth; d++) {
				strcat(key, parts[(unsigned)rand() % CST_ARRAY_LEN(parts)]);
				if (d + 1 < depth || rand() % 6 == 0)
					strcat(key, "/");
			}
			fake_put(bucket, key, strstr(key, "$folder$") ? 0 : 7, "E", 5, NULL);
		}
		start();
		struct cst_dir *root = cst_dir_new(meta, CST_SLICE("")), *below;
		assert_int_equal(ask(root, "a", &below), CST_KIND_DIR);
		compare_below(below, false);
		cst_dir_unref(below);
		cst_dir_unref(root);
		teardown(NULL);
		setup(NULL);
	}
}

static void empty_pages_are_passed(void **state)
{
	(void)state;
	make_tree(10, 10);
	fake_empty_pages(bucket, true);
	start();
	preload("tree/");
	assert_int_equal(progress.end, CST_PRELOAD_WHOLE);
	assert_true(progress.directories >= 10);
	cst_dir_unref(base);
}

/* ---- what this mount changed, and requests that began before ---- */

/* A listing of d/ that was asked for then, and has no "new". */
static bool bring_old(struct cst_dir *dir, int64_t started)
{
	struct cst_names names = {0};
	struct cst_object_info info = {.size = 1, .mtime = 1, .etag = "E"};
	struct cst_installed what = {.dir = dir, .started = started, .refreshed = started};
	cst_names_add(&names, CST_SLICE("old"), false, &info);
	return cst_preload_install(meta, CST_SLICE("d/"), &names, &what);
}

static struct cst_dir *changed_dir(int64_t *before)
{
	struct cst_entry entry = {.kind = CST_KIND_FILE, .size = 7, .mtime = 5, .etag = "E"};
	struct cst_dir *dir = cst_dir_get(meta, CST_SLICE("d/"));
	*before = test_clock();
	pass(CST_NS_PER_S);
	put("d/new");
	cst_dir_put(dir, "new", &entry, false);
	pass(CST_NS_PER_S);
	return dir;
}

static void assert_not_denied(struct cst_dir *dir)
{
	CST_AUTO_ENTRY entry = CST_ENTRY_INIT;
	int64_t at;
	assert_int_not_equal(cst_dir_find(dir, "new", &entry, &at), -ENOENT);
}

static void own_changes_outlive_their_directory(void **state)
{
	int64_t before;
	(void)state;
	start();
	struct cst_dir *dir = changed_dir(&before);
	assert_true(bring_old(NULL, before)); /* beside it */
	cst_dir_unref(dir);
	dir = cst_dir_get(meta, CST_SLICE("d/"));
	assert_not_denied(dir);
	cst_dir_unref(dir);
}

static void own_changes_outlive_their_records(void **state)
{
	int64_t before;
	(void)state;
	put("d/old");
	start();
	struct cst_dir *dir = changed_dir(&before);
	free(list(dir)); /* has it: the change needn't be remembered */
	assert_null(dir->owns);
	cst_dir_forget(dir);
	assert_false(bring_old(dir, before));
	assert_not_denied(dir);
	/* Whoever brought the listing may still be on his way out; it is the last one who leaves that matters. */
	while (__atomic_load_n(&dir->ref.count, __ATOMIC_ACQUIRE) > 1)
		cst_sleep(CST_NS_PER_MS);
	cst_dir_unref(dir);
	dir = cst_dir_get(meta, CST_SLICE("d/"));
	assert_false(bring_old(NULL, before));
	assert_not_denied(dir);
	cst_dir_unref(dir);
	dir = cst_dir_get(meta, CST_SLICE("d/"));
	assert_not_denied(dir);
	cst_dir_unref(dir);
}

/* ---- a store that doesn't know start-after ---- */

static void ranges_that_begin_anew_end_it(void **state)
{
	(void)state;
	bucket->no_start_after = true;
	for (unsigned f = 0; f < 5000; f++) {
		char key[64];
		snprintf(key, sizeof(key), "one/%u/%u", f % 50, f);
		put(key);
	}
	fake_page_size(bucket, 50);
	start();
	preload("one/");
	assert_int_equal(progress.end, CST_PRELOAD_UNSORTED);
	fake_page_size(bucket, 1000);
	compare_below(base, false);
	cst_dir_unref(base);
}

static void listings_that_go_on_have_each_name_once(void **state)
{
	char key[64];
	(void)state;
	bucket->no_start_after = true;
	for (unsigned f = 0; f < 95; f++) {
		snprintf(key, sizeof(key), f % 3 ? "d/%03u" : "d/%03u/x", f);
		put(key);
	}
	fake_page_size(bucket, 20);
	start();
	struct cst_dir *dir = cst_dir_new(meta, CST_SLICE("d/"));
	pthread_mutex_lock(&dir->lock);
	struct cst_listing *listing = cst_listing_start_locked(dir, 1);
	listing->joined = true;
	cst_listing_ref_locked(listing);
	pthread_mutex_unlock(&dir->lock);
	cst_listing_begin_flat(listing);
	char *got = list(dir), *wanted = list_anew(CST_SLICE("d/"));
	assert_string_equal(got, wanted);
	free(got);
	free(wanted);
	cst_listing_unref(listing);
	cst_dir_unref(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_small_tree_takes_one_page, setup, teardown),
		cmocka_unit_test_setup_teardown(random_trees, setup, teardown),
		cmocka_unit_test_setup_teardown(many_directories, setup, teardown),
		cmocka_unit_test_setup_teardown(a_large_directory_is_cut_too, setup, teardown),
		cmocka_unit_test_setup_teardown(names_of_every_kind_have_a_middle, setup, teardown),
		cmocka_unit_test_setup_teardown(memory_that_is_used_up_ends_it, setup, teardown),
		cmocka_unit_test_setup_teardown(listings_end_with_their_time, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_young_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_dropped_stays_away, setup, teardown),
		cmocka_unit_test_setup_teardown(who_opens_a_directory_waits_for_what_is_under_way, setup, teardown),
		cmocka_unit_test_setup_teardown(an_opened_directory_is_filled, setup, teardown),
		cmocka_unit_test_setup_teardown(ahead_of_a_walk, setup, teardown),
		cmocka_unit_test_setup_teardown(a_walk_that_stops, setup, teardown),
		cmocka_unit_test_setup_teardown(large_directories_are_no_gain, setup, teardown),
		cmocka_unit_test_setup_teardown(failures_end_it, setup, teardown),
		cmocka_unit_test_setup_teardown(all_levels_come_with_the_first, setup, teardown),
		cmocka_unit_test_setup_teardown(what_comes_with_a_name_is_right, setup, teardown),
		cmocka_unit_test_setup_teardown(empty_pages_are_passed, setup, teardown),
		cmocka_unit_test_setup_teardown(ranges_that_begin_anew_end_it, setup, teardown),
		cmocka_unit_test_setup_teardown(listings_that_go_on_have_each_name_once, setup, teardown),
		cmocka_unit_test_setup_teardown(own_changes_outlive_their_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(own_changes_outlive_their_records, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
