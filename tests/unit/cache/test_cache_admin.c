/* What `cistern cache` asks for: lists, dropping, pinning, verifying; and many objects, paths and threads at once. */
#include "cache_fixture.h"

#include "base/clock.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define LEVEL0 "MEM:%s/m:32MiB:0.95:0.9"
#define LEVEL1 "HDD:%s/h:64MiB:0.95:0.9"

static void put(struct cst_cache *cache, const char *key, uint64_t size, unsigned level, uint64_t blocks)
{
	struct cst_cache_object *o = object_open(cache, key, "e", size);
	cst_object_aim(o, level, false);
	assert_int_equal(blocks ? save_blocks(o, 0, blocks, true) : save_all(o), 0);
	object_close(o);
}

static struct cst_cache *filled(void)
{
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL0, LEVEL1);
	put(cache, "a/large", 5 * BLOCK, 0, 0);
	put(cache, "a/small", 3000, 0, 0);
	put(cache, "a/part", 5 * BLOCK, 0, 2);
	put(cache, "b/large", 5 * BLOCK, 1, 0);
	put(cache, "b/small", 3000, 1, 0);
	cache_quiet(cache);
	return cache;
}

struct seen {
	unsigned count, most, pinned, complete, in_use, level1;
	uint64_t size, cached;
	char last[64];
};

static bool see(void *arg, const struct cst_cache_entry *e)
{
	struct seen *s = arg;
	assert_string_equal(e->bucket, "oss://b");
	assert_string_equal(e->etag, "e");
	assert_true(e->used > 1600000000 && e->cached <= e->size);
	s->count++;
	s->pinned += e->pinned;
	s->complete += e->complete;
	s->in_use += e->in_use;
	s->level1 += e->level == 1;
	s->size += e->size;
	s->cached += e->cached;
	snprintf(s->last, sizeof(s->last), "%.*s", (int)e->key.len, e->key.data);
	return s->count != s->most;
}

static struct seen seen(struct cst_cache *cache, const char *prefix, unsigned most)
{
	struct seen s = {.most = most};
	assert_int_equal(cst_cache_list(cache, prefix, see, &s, NULL), 0);
	return s;
}

static void a_list_tells_names_and_what_is_there(void **state)
{
	(void)state;
	struct cst_cache *cache = filled();
	struct seen s = seen(cache, "", 0);
	assert_int_equal(s.count, 5);
	assert_int_equal(s.complete, 4);
	assert_int_equal(s.level1, 2);
	assert_int_equal(s.in_use, 0);
	assert_int_equal(s.size, 15 * BLOCK + 6000);
	assert_int_equal(s.cached, 12 * BLOCK + 6000);
	assert_int_equal(seen(cache, "oss://b", 0).count, 5);
	assert_int_equal(seen(cache, "oss://b/", 0).count, 5);
	assert_int_equal(seen(cache, "oss://b/a/", 0).count, 3);
	assert_int_equal(seen(cache, "oss://b/a/s", 0).count, 1);
	assert_int_equal(seen(cache, "oss://bb", 0).count, 0);
	assert_int_equal(seen(cache, "oss://c/a", 0).count, 0);
	assert_int_equal(seen(cache, "oss://b/a/smaller", 0).count, 0);
	assert_int_equal(seen(cache, "", 2).count, 2);
	struct cst_cache_object *o = object_open(cache, "a/part", "e", 5 * BLOCK);
	assert_int_equal(seen(cache, "oss://b/a/part", 0).in_use, 1);
	object_close(o);
	cst_cache_free(cache);
}

static void many_are_listed_once_each(void **state)
{
	char key[32];
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL0, NULL);
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(key, sizeof(key), "n/%04u", i);
		put(cache, key, 100 + i, 0, 0);
	}
	struct seen s = seen(cache, "oss://b/n", 0);
	assert_int_equal(s.count, 1000);
	assert_int_equal(s.size, 100 * 1000 + 999 * 500);
	assert_int_equal(cst_cache_drop(cache, "oss://b/n/00", NULL), 100);
	assert_int_equal(seen(cache, "", 0).count, 900);
	assert_int_equal(cst_cache_drop(cache, "", NULL), 900);
	assert_int_equal(level_stats_of(cache, 0).entries, 0);
	cst_cache_free(cache);
}

static void what_is_dropped_is_gone_and_what_is_in_use_stays_readable(void **state)
{
	(void)state;
	struct cst_cache *cache = filled();
	struct cst_cache_object *o = object_open(cache, "a/large", "e", 5 * BLOCK);
	assert_int_equal(read_all_of(o), 0);
	assert_int_equal(cst_cache_drop(cache, "oss://b/a/", NULL), 3);
	assert_int_equal(read_all_of(o), 0);
	object_close(o);
	cache_quiet(cache);
	assert_false(is_cached(cache, "a/large", "e", 5 * BLOCK));
	assert_false(is_cached(cache, "a/small", "e", 3000));
	assert_true(is_cached(cache, "b/large", "e", 5 * BLOCK));
	assert_int_equal(cst_cache_drop(cache, "oss://b/a/", NULL), 0);
	cst_cache_free(cache);
}

static void pins_hold_for_what_is_there_and_what_comes(void **state)
{
	(void)state;
	struct cst_cache *cache = filled();
	assert_int_equal(cst_cache_pin(cache, "oss://b/a/", true, NULL), 3);
	assert_int_equal(seen(cache, "", 0).pinned, 3);
	assert_int_equal(cst_cache_pin(cache, "oss://b/a/", true, NULL), 0);
	put(cache, "a/later", 3 * BLOCK, 0, 0);
	put(cache, "c/later", 3 * BLOCK, 0, 0);
	assert_int_equal(seen(cache, "", 0).pinned, 4);
	cst_cache_free(cache);
	/* Rules outlive the process. */
	cache = cache_make(CST_CACHE_S3FIFO, LEVEL0, LEVEL1);
	put(cache, "a/latest", 3 * BLOCK, 1, 0);
	assert_int_equal(seen(cache, "", 0).pinned, 5);
	/* Far more than fits comes through: the pinned ones stay. */
	for (unsigned i = 0; i < 60; i++) {
		char key[16];
		snprintf(key, sizeof(key), "k%u", i);
		use(cache, key, "e", 8 * BLOCK);
	}
	assert_int_equal(seen(cache, "oss://b/a/", 0).count, 5);
	assert_int_equal(cst_cache_pin(cache, "oss://b/a/", false, NULL), 5);
	assert_int_equal(seen(cache, "", 0).pinned, 0);
	put(cache, "a/last", 3 * BLOCK, 1, 0);
	assert_int_equal(seen(cache, "", 0).pinned, 0);
	cst_cache_free(cache);
}

static void flip(int fd)
{
	char c;
	struct stat st;
	assert_int_equal(fstat(fd, &st), 0);
	off_t at = st.st_size > (off_t)BLOCK ? (off_t)BLOCK + 7 : st.st_size / 2;
	assert_int_equal(pread(fd, &c, 1, at), 1);
	c ^= 1;
	assert_int_equal(pwrite(fd, &c, 1, at), 1);
}

static void note_bad(void *arg, const struct cst_cache_entry *e, uint64_t block)
{
	struct seen *s = arg;
	assert_int_equal(block, 1);
	see(s, e);
}

static void verifying_finds_what_is_damaged_and_drops_it(void **state)
{
	struct cst_cache_verify v;
	(void)state;
	struct cst_cache *cache = filled();
	assert_int_equal(cst_cache_verify(cache, "", 0, NULL, NULL, &v, NULL), 0);
	assert_int_equal(v.entries, 5);
	assert_int_equal(v.bytes, 12 * BLOCK + 6000);
	assert_int_equal(v.bad_blocks + v.bad_entries, 0);
	assert_int_equal(each_file(fixture_dir, ".data", flip), 3);
	struct seen s = {0};
	assert_int_equal(cst_cache_verify(cache, "oss://b/", 0, note_bad, &s, &v, NULL), 0);
	assert_int_equal(v.entries, 5);
	assert_int_equal(v.bad_blocks, 3);
	assert_int_equal(v.bad_entries, 2); /* of the complete ones nothing is kept */
	assert_int_equal(s.count, 3);
	assert_int_equal(cst_cache_verify(cache, "", 0, note_bad, &s, &v, NULL), 0);
	assert_int_equal(v.entries, 3);
	assert_int_equal(v.bad_blocks, 0);
	assert_int_equal(seen(cache, "oss://b/a/part", 0).cached, BLOCK);
	cst_cache_free(cache);
}

static void verifying_keeps_its_rate(void **state)
{
	struct cst_cache_verify v;
	(void)state;
	struct cst_cache *cache = filled();
	int64_t begun = cst_now();
	assert_int_equal(cst_cache_verify(cache, "", 8 * MIB, NULL, NULL, &v, NULL), 0);
	/* 1.5 MiB; no more can be said of a machine that others use, too. */
	assert_true(cst_now() - begun >= 150 * CST_NS_PER_MS);
	cst_cache_free(cache);
}

static void objects_spread_over_the_paths_of_a_level(void **state)
{
	(void)state;
	struct cst_cache_level level;
	CST_AUTO_BUF text = CST_BUF_INIT;
	cst_buf_printf(&text, "SSD:%s/x,%s/y:32MiB,32MiB", fixture_dir, fixture_dir);
	assert_int_equal(cst_cache_level_parse(text.data, &level, NULL), 0);
	struct cst_cache_config config = {.levels = &level, .level_count = 1, .bucket = "oss://b", .keep_free = MIB};
	for (unsigned round = 0; round < 2; round++) {
		struct cst_cache *cache = cst_cache_new(&config, NULL);
		assert_non_null(cache);
		for (unsigned i = 0; i < 40; i++) {
			char key[16];
			snprintf(key, sizeof(key), "k%u", i);
			assert_int_equal(use(cache, key, "e", 4 * BLOCK), round);
		}
		struct cst_cache_level_stats s = level_stats_of(cache, 0);
		assert_int_equal(s.entries, 40);
		assert_int_equal(s.quota, 64 * MIB);
		/* One goes; what the other had is still there. */
		if (round == 1) {
			unsigned cached = 0;
			cst_cache_volume_error(&cache->levels[0].volumes[0], -EIO, "reading");
			cache_quiet(cache);
			for (unsigned i = 0; i < 40; i++) {
				char key[16];
				snprintf(key, sizeof(key), "k%u", i);
				cached += is_cached(cache, key, "e", 4 * BLOCK);
			}
			assert_in_range(cached, 8, 32);
			assert_non_null(strstr(level_stats_of(cache, 0).state, "out"));
		}
		cst_cache_free(cache);
	}
	cst_cache_level_fini(&level);
}

static unsigned open_files(void)
{
	unsigned count = 0;
	DIR *d = opendir("/proc/self/fd");
	while (readdir(d))
		count++;
	closedir(d);
	return count;
}

static void thousands_of_objects_are_open_without_a_file_each(void **state)
{
	enum { COUNT = 3000 };
	static struct cst_cache_object *o[COUNT];
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL0, NULL);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < COUNT; i++) {
			char key[16];
			snprintf(key, sizeof(key), "k%u", i);
			o[i] = object_open(cache, key, "e", 2000);
			if (round == 0)
				assert_int_equal(save_all(o[i]), 0);
			assert_int_equal(read_all_of(o[i]), 0);
		}
		assert_true(open_files() < 100);
		for (unsigned i = 0; i < COUNT; i++)
			cst_cache_object_unref(o[i]);
	}
	cache_quiet(cache);
	cst_cache_free(cache);
}

static void without_descriptors_reads_fail_and_the_level_stays(void **state)
{
	enum { COUNT = 40 };
	struct cst_cache_object *o[COUNT];
	struct rlimit limit, low;
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL0, NULL);
	for (unsigned i = 0; i < COUNT; i++) {
		char key[16];
		snprintf(key, sizeof(key), "k%u", i);
		put(cache, key, 3 * BLOCK, 0, 0);
		o[i] = object_open(cache, key, "e", 3 * BLOCK);
	}
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	low = limit;
	low.rlim_cur = open_files() + 10;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	unsigned bad = 0;
	for (unsigned i = 0; i < COUNT; i++)
		bad += read_all_of(o[i]) != 0;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_true(bad > 0 && bad < COUNT);
	assert_string_equal(level_stats_of(cache, 0).state, "ok");
	for (unsigned i = 0; i < COUNT; i++) {
		assert_int_equal(read_all_of(o[i]), 0);
		object_close(o[i]);
	}
	cst_cache_free(cache);
}

struct worker {
	struct cst_cache *cache;
	unsigned seed;
	unsigned hits;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t random = w->seed * 2654435761u + 1;
	for (unsigned i = 0; i < 150; i++) {
		random = random * 6364136223846793005u + 1442695040888963407u;
		unsigned n = (unsigned)(random >> 33) % 60;
		char key[16];
		snprintf(key, sizeof(key), "k%u", n);
		struct cst_cache_object *o = object_open(w->cache, key, "e", n % 3 ? 5 * BLOCK + n : 4000 + n);
		if (cst_cache_object_cached(o) == o->id.size && read_all_of(o) == 0)
			w->hits++;
		else
			save_all(o);
		if (random >> 60 == 0)
			cst_cache_drop(w->cache, "oss://b/k1", NULL);
		cst_cache_object_unref(o);
	}
	return NULL;
}

static void many_threads_and_two_caches_never_read_a_wrong_byte(void **state)
{
	enum { THREADS = 6 };
	pthread_t threads[THREADS];
	struct worker workers[THREADS];
	struct cst_cache *caches[2];
	unsigned hits = 0;
	(void)state;
	for (unsigned i = 0; i < 2; i++)
		caches[i] = cache_make(CST_CACHE_S3FIFO, "MEM:%s/m:8MiB:0.9:0.7", "HDD:%s/h:24MiB:0.9:0.7");
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){caches[i % 2], i, 0};
		assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		hits += workers[i].hits;
	}
	assert_true(hits > 50);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(level_stats_of(caches[i], 0).corrupt, 0);
		assert_string_equal(level_stats_of(caches[i], 1).state, "ok");
	}
	cst_cache_free(caches[0]);
	cst_cache_free(caches[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_list_tells_names_and_what_is_there, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(many_are_listed_once_each, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(what_is_dropped_is_gone_and_what_is_in_use_stays_readable,
						fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(pins_hold_for_what_is_there_and_what_comes, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(verifying_finds_what_is_damaged_and_drops_it, fixture_begin,
						fixture_end),
		cmocka_unit_test_setup_teardown(verifying_keeps_its_rate, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(objects_spread_over_the_paths_of_a_level, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(thousands_of_objects_are_open_without_a_file_each, fixture_begin,
						fixture_end),
		cmocka_unit_test_setup_teardown(without_descriptors_reads_fail_and_the_level_stays, fixture_begin,
						fixture_end),
		cmocka_unit_test_setup_teardown(many_threads_and_two_caches_never_read_a_wrong_byte, fixture_begin,
						fixture_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
