/* Loading from a made-up origin into real directories. */
#include "cache/load_private.h"
#include "fake_origin.h"

#include "base/clock.h"

#define LEVEL "SSD:%s/a:64MiB:0.95:0.9"

static int setup(void **state)
{
	(void)state;
	fixture_begin(NULL);
	origin_begin();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	origin_end();
	fixture_end(NULL);
	return 0;
}

struct failures {
	unsigned count;
	char keys[64][64];
	struct cst_error last;
};

static void failed(void *arg, struct cst_slice key, const struct cst_error *err)
{
	struct failures *f = arg;
	snprintf(f->keys[f->count++ % 64], 64, "%.*s", (int)key.len, key.data);
	f->last = *err;
}

static struct cst_load *start(struct cst_cache *cache, const char *const *targets, unsigned count, struct failures *f)
{
	*f = (struct failures){0};
	struct cst_load_config config = {
		.cache = cache, .targets = targets, .target_count = count, .parallel = 4, .failure = failed, .arg = f};
	struct cst_error err = CST_ERROR_INIT;
	struct cst_load *load = cst_load_start(&config, &err);
	assert_non_null(load);
	return load;
}

static struct cst_load_progress finish(struct cst_load *load, struct cst_error *err)
{
	struct cst_load_progress p;
	assert_true(cst_load_wait(load, 60 * CST_NS_PER_S, err));
	cst_load_progress(load, &p);
	assert_true(p.finished && p.listed);
	cst_load_free(load);
	return p;
}

static struct cst_load_progress load_all(struct cst_cache *cache, const char *const *targets, unsigned count,
					 struct failures *f)
{
	struct cst_error err;
	return finish(start(cache, targets, count, f), &err);
}

static void fill_origin(void)
{
	origin_add("a/", "d", 0);
	origin_add("a/1.bin", "e1", 3 * MIB + 1);
	origin_add("a/2.bin", "e2", 5000);
	origin_add("a/b/3.bin", "e3", 300 * KIB);
	origin_add("a/b/4.txt", "e4", 12 * MIB);
	origin_add("a/empty", "e5", 0);
	origin_add("ab", "e6", 100);
	origin_add("c", "e7", 700);
	origin_add("c*", "e8", 800);
	origin_add("z/1", "e9", 900);
}

static uint64_t size_of(const char *key)
{
	for (unsigned i = 0; i < origin.count; i++) {
		if (strcmp(origin.objects[i].key, key) == 0)
			return origin.objects[i].size;
	}
	return 0;
}

/* Exactly these, of all that have bytes. */
static void assert_cached(struct cst_cache *cache, const char *const *keys, unsigned count)
{
	cache_quiet(cache);
	for (unsigned i = 0; i < origin.count; i++) {
		const struct fake_object *f = &origin.objects[i];
		bool want = false;
		for (unsigned k = 0; k < count; k++)
			want = want || strcmp(keys[k], f->key) == 0;
		if (size_of(f->key) > 0 && is_cached(cache, f->key, f->etag, f->size) != want)
			fail_msg("%s is %scached", f->key, want ? "not " : "");
	}
}

static void targets_are_prefixes_patterns_and_keys(void **state)
{
	static const struct {
		const char *targets[3];
		const char *keys[6];
		unsigned objects;
	} cases[] = {
		{{"a/"}, {"a/1.bin", "a/2.bin", "a/b/3.bin", "a/b/4.txt"}, 5},
		{{"a"}, {"a/1.bin", "a/2.bin", "a/b/3.bin", "a/b/4.txt"}, 5},
		{{""}, {"a/1.bin", "a/2.bin", "a/b/3.bin", "a/b/4.txt", "ab"}, 9},
		{{"a/*.bin"}, {"a/1.bin", "a/2.bin"}, 2},
		{{"a/**.bin"}, {"a/1.bin", "a/2.bin", "a/b/3.bin"}, 3},
		{{"**/[13].bin"}, {"a/1.bin", "a/b/3.bin"}, 2},
		{{"c"}, {"c"}, 1},
		{{"c\\*"}, {"c*"}, 1},
		{{"c*"}, {"c", "c*"}, 2},
		{{"ab", "z", "a/?.bin"}, {"ab", "z/1", "a/1.bin", "a/2.bin"}, 4},
	};
	(void)state;
	fill_origin();
	for (unsigned i = 0; i < CST_ARRAY_LEN(cases); i++) {
		struct failures f;
		struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
		unsigned targets = 0, keys = 0;
		while (targets < 3 && cases[i].targets[targets])
			targets++;
		while (keys < 6 && cases[i].keys[keys])
			keys++;
		struct cst_load_progress p = load_all(cache, cases[i].targets, targets, &f);
		assert_int_equal(p.rc, 0);
		assert_int_equal(f.count, 0);
		assert_int_equal(p.objects, cases[i].objects);
		assert_int_equal(p.objects_done, p.objects);
		assert_int_equal(p.bytes_done, p.bytes);
		assert_int_equal(p.bytes_fetched, p.bytes);
		if (i != 2)
			assert_cached(cache, cases[i].keys, keys);
		cst_cache_free(cache);
		fixture_end(NULL);
		fixture_begin(NULL);
	}
}

static void patterns(void **state)
{
	static const struct {
		const char *pattern, *name;
		bool yes;
	} cases[] = {
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"*", "abc", true},
		{"*", "a/b", false},
		{"**", "a/b", true},
		{"a*c", "abbc", true},
		{"a*c", "abb", false},
		{"a*b*c", "aXbYbZc", true},
		{"?", "a", true},
		{"?", "/", false},
		{"?", "", false},
		{"a/**/b", "a/b", true},
		{"a/**/b", "a/x/y/b", true},
		{"a/**/b", "a/xb", false},
		{"**/b", "b", true},
		{"**/b", "ab", false},
		{"**/*", "/b", true},
		{"a/**/b", "a//b", true},
		{"a**b", "a/x/b", true},
		{"**/*.bin", "x/y/z.bin", true},
		{"**/*.bin", "z.bin", true},
		{"*/*.bin", "x/y/z.bin", false},
		{"**/a/*/c", "a/a/b/c", true},
		{"[abc]", "b", true},
		{"[!abc]", "b", false},
		{"[^abc]", "d", true},
		{"[a-c]x", "bx", true},
		{"[a-c]x", "dx", false},
		{"[]]", "]", true},
		{"[!/]", "/", false},
		{"[a", "[a", true},
		{"\\*", "*", true},
		{"\\*", "a", false},
		{"\\[a]", "[a]", true},
		{"a\\", "a\\", true},
		{"*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false},
		{"**a**a**a**a**b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false},
	};
	(void)state;
	for (unsigned i = 0; i < CST_ARRAY_LEN(cases); i++) {
		if (cst_glob_match(cases[i].pattern, cst_slice_of(cases[i].name)) != cases[i].yes)
			fail_msg("\"%s\" and \"%s\"", cases[i].pattern, cases[i].name);
	}
	assert_true(cst_glob_is_pattern("a[b"));
	assert_false(cst_glob_is_pattern("a\\[b\\*"));
	CST_AUTO_BUF literal = CST_BUF_INIT;
	assert_string_equal(cst_glob_literal("a\\*b/c*d", &literal), "*d");
	assert_true(cst_slice_is(cst_buf_slice(&literal), "a*b/c"));
}

static void a_second_run_fetches_nothing(void **state)
{
	static const char *const targets[] = {""};
	struct failures f;
	(void)state;
	fill_origin();
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	struct cst_load_progress p = load_all(cache, targets, 1, &f);
	uint64_t bytes = origin.bytes;
	assert_int_equal(bytes, p.bytes);
	p = load_all(cache, targets, 1, &f);
	assert_int_equal(p.objects_skipped, p.objects);
	assert_int_equal(p.bytes_done, p.bytes);
	assert_int_equal(p.bytes_fetched, 0);
	assert_int_equal(origin.bytes, bytes);
	cst_cache_free(cache);
	/* And all of it is there for another process. */
	cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	p = load_all(cache, targets, 1, &f);
	assert_int_equal(p.objects_skipped, p.objects);
	struct cst_cache_object *o = object_open(cache, "a/b/4.txt", "e4", 12 * MIB);
	assert_true(cst_cache_object_file(o) >= 0);
	object_close(o);
	cst_cache_free(cache);
}

static void what_is_there_in_part_is_completed(void **state)
{
	static const char *const targets[] = {"a/b/4.txt"};
	struct failures f;
	(void)state;
	fill_origin();
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	struct cst_cache_object *o = object_open(cache, "a/b/4.txt", "e4", 12 * MIB);
	assert_int_equal(save_blocks(o, 7, 33, true), 0);
	object_close(o);
	struct cst_load_progress p = load_all(cache, targets, 1, &f);
	assert_int_equal(p.rc, 0);
	assert_int_equal(p.bytes_fetched, 12 * MIB - 33 * BLOCK);
	assert_int_equal(p.bytes_done, 12 * MIB);
	assert_true(use(cache, "a/b/4.txt", "e4", 12 * MIB));
	cst_cache_free(cache);
}

static void a_target_that_names_nothing_is_told(void **state)
{
	static const char *const targets[] = {"nothing", "c", "a/*.none"};
	struct failures f;
	struct cst_error err = CST_ERROR_INIT;
	(void)state;
	fill_origin();
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	struct cst_load_progress p = finish(start(cache, targets, 3, &f), &err);
	assert_int_equal(p.rc, -ENOENT);
	assert_int_equal(p.objects_done, 1);
	assert_int_equal(f.count, 2);
	assert_string_equal(f.keys[0], "nothing");
	assert_string_equal(f.keys[1], "a/*.none");
	assert_int_equal(err.code, ENOENT);
	assert_non_null(strstr(err.why, "nothing"));
	cst_cache_free(cache);
}

static void objects_change_vanish_and_fail(void **state)
{
	static const char *const targets[] = {"p/"};
	struct failures f;
	(void)state;
	struct fake_object *archived = origin_add("p/archived", "e", MIB);
	struct fake_object *changed = origin_add("p/changed", "e", MIB);
	struct fake_object *gone = origin_add("p/gone", "e", MIB);
	origin_add("p/ok", "e", MIB);
	archived->rc = -EIO;
	strcpy(changed->new_etag, "new");
	changed->new_size = 2 * MIB;
	gone->gone = true;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	struct cst_load_progress p = load_all(cache, targets, 1, &f);
	assert_int_equal(p.rc, -EIO);
	assert_int_equal(p.objects, 3);
	assert_int_equal(p.bytes, 4 * MIB);
	assert_int_equal(p.objects_done, 2);
	assert_int_equal(p.objects_failed, 1);
	assert_int_equal(p.objects_vanished, 1);
	assert_int_equal(f.count, 1);
	assert_string_equal(f.keys[0], "p/archived");
	assert_non_null(strstr(f.last.why, "archived"));
	assert_true(is_cached(cache, "p/changed", "new", 2 * MIB));
	assert_false(is_cached(cache, "p/changed", "e", MIB));
	cst_cache_free(cache);
}

static void what_does_not_fit_is_refused_without_pushing_out_the_rest(void **state)
{
	static const char *const targets[] = {"k"};
	struct failures f;
	char key[16];
	(void)state;
	for (unsigned i = 0; i < 40; i++) {
		snprintf(key, sizeof(key), "k/%02u", i);
		origin_add(key, "e", MIB);
	}
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, "MEM:%s/m:8MiB:0.9:0.7", "SSD:%s/s:16MiB:0.9:0.7");
	struct cst_load_progress p = load_all(cache, targets, 1, &f);
	assert_int_equal(p.rc, -ENOSPC);
	assert_int_equal(p.objects_done + p.objects_refused, 40);
	assert_in_range(p.objects_done, 18, 22);
	assert_int_equal(f.count, p.objects_refused);
	/* Nothing was fetched for nothing. */
	assert_in_range(origin.bytes, p.bytes_done, p.bytes_done + 2 * MIB);
	unsigned cached = 0;
	cache_quiet(cache);
	for (unsigned i = 0; i < 40; i++) {
		snprintf(key, sizeof(key), "k/%02u", i);
		cached += is_cached(cache, key, "e", MIB);
	}
	assert_true(cached >= p.objects_done);
	assert_true(level_stats_of(cache, 0).entries > 4 && level_stats_of(cache, 1).entries > 10);
	cst_cache_free(cache);
}

static void stream_refuses_all(void **state)
{
	static const char *const targets[] = {""};
	struct failures f;
	(void)state;
	fill_origin();
	struct cst_cache *cache = cache_make(CST_CACHE_STREAM, LEVEL, NULL);
	struct cst_load_progress p = load_all(cache, targets, 1, &f);
	assert_int_equal(p.rc, -ENOSPC);
	assert_int_equal(p.objects_refused, 8);
	assert_int_equal(p.objects_skipped, 1);
	assert_int_equal(origin.bytes, 0);
	cst_cache_free(cache);
}

static void loading_may_pin(void **state)
{
	static const char *const targets[] = {"a/"};
	struct failures f;
	(void)state;
	fill_origin();
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	use(cache, "a/1.bin", "e1", 3 * MIB + 1);
	assert_int_equal(level_stats_of(cache, 0).pinned, 0);
	f = (struct failures){0};
	struct cst_load_config config = {
		.cache = cache, .targets = targets, .target_count = 1, .pin = true, .failure = failed, .arg = &f};
	struct cst_load_progress p = finish(cst_load_start(&config, NULL), NULL);
	assert_int_equal(p.rc, 0);
	assert_int_equal(p.objects_skipped, 2);
	assert_int_equal(level_stats_of(cache, 0).pinned, 4);
	cst_cache_free(cache);
}

static void names_do_not_pile_up(void **state)
{
	static const char *const targets[] = {""};
	struct failures f;
	char key[32];
	(void)state;
	for (unsigned i = 0; i < 4000; i++) {
		snprintf(key, sizeof(key), "n%05u", i);
		origin_add(key, "e", 100);
	}
	origin_hold(true);
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	struct cst_load *load = start(cache, targets, 1, &f);
	/* Nothing is filled, so listing stops by itself. */
	struct cst_load_progress p = {0}, before;
	do {
		before = p;
		cst_sleep(50 * CST_NS_PER_MS);
		cst_load_progress(load, &p);
	} while (p.objects == 0 || p.objects != before.objects);
	assert_in_range(p.objects, 100, 1300);
	assert_false(p.listed || p.finished);
	assert_false(cst_load_wait(load, 0, NULL));
	origin_hold(false);
	p = finish(load, NULL);
	assert_int_equal(p.rc, 0);
	assert_int_equal(p.objects_done, 4000);
	assert_in_range(origin.filling_most, 8, 16);
	cst_cache_free(cache);
}

static void a_cancelled_load_ends_and_the_next_goes_on(void **state)
{
	static const char *const targets[] = {""};
	struct failures f;
	char key[32];
	(void)state;
	for (unsigned i = 0; i < 30; i++) {
		snprintf(key, sizeof(key), "n%05u", i);
		origin_add(key, "e", 2 * MIB);
	}
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, "SSD:%s/a:128MiB:0.95:0.9", NULL);
	struct cst_load *load = start(cache, targets, 1, &f);
	struct cst_load_progress p;
	do {
		cst_load_progress(load, &p);
	} while (p.bytes_done < 4 * MIB);
	origin_hold(true);
	cst_load_cancel(load);
	p = finish(load, NULL);
	if (p.rc == 0) /* it was quicker */
		assert_int_equal(p.objects_done, 30);
	else
		assert_int_equal(p.rc, -ECANCELED);
	assert_int_equal(p.objects_failed, 0);
	assert_int_equal(f.count, 0);
	uint64_t kept = origin.bytes;
	assert_true(kept >= 4 * MIB);
	origin_hold(false);
	cache_quiet(cache);
	p = load_all(cache, targets, 1, &f);
	assert_int_equal(p.rc, 0);
	assert_int_equal(p.objects_done, 30);
	assert_int_equal(origin.bytes, 60 * MIB);
	cst_cache_free(cache);
}

static void a_listing_that_fails_loads_what_it_found(void **state)
{
	static const char *const targets[] = {""};
	struct failures f;
	struct cst_error err = CST_ERROR_INIT;
	char key[32];
	(void)state;
	for (unsigned i = 0; i < 150; i++) {
		snprintf(key, sizeof(key), "n%05u", i);
		origin_add(key, "e", 100);
	}
	origin.list_rc = -EACCES;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	struct cst_load_progress p = finish(start(cache, targets, 1, &f), &err);
	assert_int_equal(p.rc, -EACCES);
	assert_int_equal(p.objects_done, 100);
	assert_int_equal(err.code, EACCES);
	cst_cache_free(cache);
}

static void mistakes_are_told_at_once(void **state)
{
	static const char *const targets[] = {""};
	struct cst_error err = CST_ERROR_INIT;
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	struct cst_load_config config = {.cache = cache, .targets = targets};
	assert_null(cst_load_start(&config, &err));
	assert_int_equal(err.code, EINVAL);
	config.target_count = 1;
	config.first_level = 1;
	assert_null(cst_load_start(&config, &err));
	assert_int_equal(err.code, EINVAL);
	cst_cache_free(cache);
}

/* ---- completion after use, which fills as a load does ---- */

static bool is_complete(void *arg)
{
	struct cst_cache *cache = arg;
	return is_cached(cache, "f", "e", 8 * MIB);
}

static void leave(struct cst_cache *cache, uint64_t first, uint64_t blocks, const char *key, uint64_t size)
{
	struct cst_cache_object *o = object_open(cache, key, "e", size);
	struct cst_fetch_object *data = fake_fetch_object(o);
	if (blocks)
		assert_int_equal(save_blocks(o, first, blocks, true), 0);
	cst_cache_object_finish(o, data);
	cst_fetch_object_unref(data);
	object_close(o);
}

static void what_was_read_in_good_part_is_completed(void **state)
{
	(void)state;
	origin_add("f", "e", 8 * MIB);
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	leave(cache, 0, 0, "f", 8 * MIB);
	leave(cache, 30, 5, "f", 8 * MIB);
	cache_quiet(cache);
	assert_int_equal(origin.fills, 0);
	leave(cache, 35, 15, "f", 8 * MIB);
	assert_true(eventually(is_complete, cache));
	assert_int_equal(origin.fills, 1);
	assert_int_equal(origin.bytes, 8 * MIB - 20 * BLOCK);
	cache_quiet(cache);
	leave(cache, 0, 0, "f", 8 * MIB);
	assert_int_equal(origin.fills, 1);
	cst_cache_free(cache);
}

static void completion_is_a_few_at_a_time_and_ends_with_the_cache(void **state)
{
	char key[16];
	(void)state;
	for (unsigned i = 0; i < 9; i++) {
		snprintf(key, sizeof(key), "f%u", i);
		origin_add(key, "e", 2 * MIB);
	}
	origin_hold(true);
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	for (unsigned i = 0; i < 9; i++) {
		snprintf(key, sizeof(key), "f%u", i);
		struct cst_cache_object *o = object_open(cache, key, "e", 2 * MIB);
		struct cst_fetch_object *data = fake_fetch_object(o);
		assert_int_equal(save_blocks(o, 0, 8, true), 0);
		cst_cache_object_finish(o, data);
		cst_cache_object_finish(o, data);
		cst_fetch_object_unref(data);
		cst_cache_object_unref(o);
	}
	assert_int_equal(origin.fills, 2);
	cst_cache_stop(cache);
	assert_int_equal(origin.fills, 2);
	assert_int_equal(origin.cancelled, 2);
	cst_cache_free(cache);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(patterns),
		cmocka_unit_test_setup_teardown(targets_are_prefixes_patterns_and_keys, setup, teardown),
		cmocka_unit_test_setup_teardown(a_second_run_fetches_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_there_in_part_is_completed, setup, teardown),
		cmocka_unit_test_setup_teardown(a_target_that_names_nothing_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(objects_change_vanish_and_fail, setup, teardown),
		cmocka_unit_test_setup_teardown(what_does_not_fit_is_refused_without_pushing_out_the_rest, setup,
						teardown),
		cmocka_unit_test_setup_teardown(stream_refuses_all, setup, teardown),
		cmocka_unit_test_setup_teardown(loading_may_pin, setup, teardown),
		cmocka_unit_test_setup_teardown(names_do_not_pile_up, setup, teardown),
		cmocka_unit_test_setup_teardown(a_cancelled_load_ends_and_the_next_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(a_listing_that_fails_loads_what_it_found, setup, teardown),
		cmocka_unit_test_setup_teardown(mistakes_are_told_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(what_was_read_in_good_part_is_completed, setup, teardown),
		cmocka_unit_test_setup_teardown(completion_is_a_few_at_a_time_and_ends_with_the_cache, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
