/* Levels below each other: what goes down, what comes up, and what of it a skewed use is served from. */
#include "cache_fixture.h"

#include <math.h>
#include <stdio.h>

static bool no_promotion_runs(void *arg)
{
	struct cst_cache *cache = arg;
	pthread_mutex_lock(&cache->lock);
	bool yes = cache->promoting == 0;
	pthread_mutex_unlock(&cache->lock);
	return yes;
}

static void use_number(struct cst_cache *cache, unsigned n, uint64_t size)
{
	char key[16];
	snprintf(key, sizeof(key), "k%u", n);
	use(cache, key, "e", size);
	assert_true(eventually(no_promotion_runs, cache));
}

/* Bytes of an object in each level. */
static void where(struct cst_cache *cache, const char *key, uint64_t size, uint64_t blocks[2], bool complete[2])
{
	struct cst_cache_object *o = object_open(cache, key, "e", size);
	assert_non_null(o);
	pthread_mutex_lock(&o->lock);
	for (unsigned i = 0; i < 2; i++) {
		blocks[i] = o->places[i] ? o->places[i]->present : 0;
		complete[i] = o->places[i] && o->places[i]->complete;
	}
	pthread_mutex_unlock(&o->lock);
	object_close(o);
}

static bool much_was_demoted(void *arg)
{
	struct cst_cache_level_stats s = level_stats_of(arg, 0);
	return s.demoted > 10 && s.stops_high > 0 && s.stops_low > 0;
}

static void what_the_upper_level_has_no_room_for_goes_down(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, "MEM:%s/m:8MiB:0.9:0.6", "HDD:%s/h:128MiB:0.9:0.8");
	enum { COUNT = 30 };
	uint64_t size = 6 * BLOCK + 100;
	char key[16];
	for (unsigned i = 0; i < COUNT; i++)
		use_number(cache, i, i % 5 ? size : 5000);
	assert_true(eventually(much_was_demoted, cache));
	struct cst_cache_level_stats s = level_stats_of(cache, 0);
	assert_true(level_stats_of(cache, 1).entries >= s.demoted);
	assert_int_equal(level_stats_of(cache, 1).saved_bytes, 0);
	/* Nothing is lost, and what was complete is so below. */
	for (unsigned i = 0; i < COUNT; i++) {
		uint64_t blocks[2], bytes = i % 5 ? size : 5000;
		bool complete[2];
		snprintf(key, sizeof(key), "k%u", i);
		where(cache, key, bytes, blocks, complete);
		assert_true(blocks[0] + blocks[1] >= (bytes + BLOCK - 1) / BLOCK);
		/* One that is just going down is complete there a moment later. */
		for (; blocks[1] > 0 && !complete[1] && !complete[0]; where(cache, key, bytes, blocks, complete))
			cst_sleep(CST_NS_PER_MS);
		struct cst_cache_object *o = object_open(cache, key, "e", bytes);
		assert_int_equal(read_all_of(o), 0);
		object_close(o);
	}
	cst_cache_free(cache);
}

static void what_is_read_again_soon_comes_up_and_leaves_its_place_below(void **state)
{
	(void)state;
	static const uint64_t sizes[] = {10 * 128 * KIB + 5, 9000};
	for (unsigned kind = 0; kind < 2; kind++) {
		struct cst_cache *cache =
			cache_make(CST_CACHE_S3FIFO, "MEM:%s/m:16MiB:0.9:0.6", "HDD:%s/h:128MiB:0.9:0.8");
		const char *key = kind ? "small" : "large";
		uint64_t size = sizes[kind], blocks[2], all = (size + BLOCK - 1) / BLOCK;
		bool complete[2];
		struct cst_cache_object *o = object_open(cache, key, "e", size);
		cst_object_aim(o, 1, false);
		assert_int_equal(save_all(o), 0);
		object_close(o);
		cache_quiet(cache);
		where(cache, key, size, blocks, complete);
		assert_true(blocks[0] == 0 && blocks[1] == all && complete[1]);
		/* Once is chance. */
		use(cache, key, "e", size);
		assert_true(eventually(no_promotion_runs, cache));
		assert_int_equal(level_stats_of(cache, 0).promoted, 0);
		cache_quiet(cache);
		use(cache, key, "e", size);
		assert_true(eventually(no_promotion_runs, cache));
		cache_quiet(cache);
		assert_int_equal(level_stats_of(cache, 0).promoted, 1);
		where(cache, key, size, blocks, complete);
		assert_true(blocks[0] == all && blocks[1] == 0 && complete[0]);
		uint64_t hits = level_stats_of(cache, 0).hits;
		assert_true(use(cache, key, "e", size));
		assert_int_equal(level_stats_of(cache, 0).hits, hits + all);
		assert_int_equal(level_stats_of(cache, 1).entries, 0);
		cst_cache_free(cache);
		fixture_end(NULL);
		fixture_begin(NULL);
	}
}

static void rounds_longer_than_the_upper_level_turn_nothing_over(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, "MEM:%s/m:8MiB:0.9:0.6", "HDD:%s/h:256MiB:0.9:0.8");
	for (unsigned i = 0; i < 40; i++) {
		char key[16];
		snprintf(key, sizeof(key), "k%u", i);
		struct cst_cache_object *o = object_open(cache, key, "e", 8 * BLOCK);
		cst_object_aim(o, 1, false);
		assert_int_equal(save_all(o), 0);
		object_close(o);
	}
	cache_quiet(cache);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 40; i++)
			use_number(cache, i, 8 * BLOCK);
	}
	assert_int_equal(level_stats_of(cache, 0).promoted, 0);
	cst_cache_free(cache);
}

/* Draws 0 … count − 1 with probabilities as 1 / (n + 1)^s. */
struct zipf {
	unsigned count;
	uint64_t random;
	double sums[512];
};

static void zipf_init(struct zipf *z, unsigned count, double s)
{
	double sum = 0;
	z->count = count;
	z->random = 88172645463325252u;
	for (unsigned i = 0; i < count; i++)
		z->sums[i] = sum += pow(i + 1, -s);
}

static unsigned zipf_next(struct zipf *z)
{
	z->random ^= z->random << 13;
	z->random ^= z->random >> 7;
	z->random ^= z->random << 17;
	double at = (double)(z->random >> 11) / (double)(UINT64_C(1) << 53) * z->sums[z->count - 1];
	unsigned low = 0, high = z->count - 1;
	while (low < high) {
		unsigned middle = (low + high) / 2;
		if (z->sums[middle] < at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Which numbers are the popular ones has nothing to do with the order in which they came in. */
static unsigned shuffled(unsigned n)
{
	return n * 77 % 256;
}

static void a_skewed_use_is_served_from_memory(void **state)
{
	(void)state;
	/* 256 objects of 384 KiB are 96 MiB; a quarter of that is memory. */
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, "MEM:%s/m:25MiB:0.95:0.8", "HDD:%s/h:256MiB:0.95:0.9");
	struct zipf z;
	uint64_t hits[2];
	zipf_init(&z, 256, 1.2);
	for (unsigned i = 0; i < 256; i++)
		use_number(cache, i, 3 * BLOCK);
	for (unsigned i = 0; i < 1500; i++)
		use_number(cache, shuffled(zipf_next(&z)), 3 * BLOCK);
	for (unsigned l = 0; l < 2; l++)
		hits[l] = level_stats_of(cache, l).hits;
	for (unsigned i = 0; i < 1500; i++)
		use_number(cache, shuffled(zipf_next(&z)), 3 * BLOCK);
	for (unsigned l = 0; l < 2; l++)
		hits[l] = level_stats_of(cache, l).hits - hits[l];
	struct cst_cache_level_stats s = level_stats_of(cache, 0);
	print_message(
		"# of %llu blocks %.1f %% came from memory; demoted %llu, promoted %llu, stops at high %llu, at low %llu\n",
		(unsigned long long)(hits[0] + hits[1]), 100.0 * (double)hits[0] / (double)(hits[0] + hits[1]),
		(unsigned long long)s.demoted, (unsigned long long)s.promoted, (unsigned long long)s.stops_high,
		(unsigned long long)s.stops_low);
	assert_true(hits[0] + hits[1] >= 1400 * 3);
	assert_true(hits[0] * 5 >= (hits[0] + hits[1]) * 4);
	assert_true(s.demoted > 0 && s.promoted > 0 && s.stops_high > 0 && s.stops_low > 0);
	cst_cache_free(cache);
}

static void a_failing_level_below_stops_nothing(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, "MEM:%s/m:8MiB:0.9:0.6", "HDD:%s/h:128MiB:0.9:0.8");
	cst_cache_volume_error(&cache->levels[1].volumes[0], -EIO, "writing");
	for (unsigned i = 0; i < 30; i++)
		use_number(cache, i, 6 * BLOCK);
	struct cst_cache_level_stats s = level_stats_of(cache, 0);
	assert_int_equal(s.demoted, 0);
	assert_true(s.evicted > 5);
	assert_true(is_cached(cache, "k29", "e", 6 * BLOCK));
	cst_cache_free(cache);
}

static void what_no_upper_level_can_hold_goes_below_at_once(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, "MEM:%s/m:8MiB:0.9:0.6", "HDD:%s/h:128MiB:0.9:0.8");
	uint64_t size = 10 * MIB, blocks[2];
	bool complete[2];
	for (unsigned i = 0; i < 4; i++)
		use(cache, "huge", "e", size);
	assert_true(eventually(no_promotion_runs, cache));
	where(cache, "huge", size, blocks, complete);
	assert_true(blocks[0] == 0 && blocks[1] == 80 && complete[1]);
	assert_int_equal(level_stats_of(cache, 0).promoted, 0);
	cst_cache_free(cache);
}

static void what_is_in_use_above_leaves_the_rest_to_the_level_below(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, "MEM:%s/m:8MiB:1:0.8", "HDD:%s/h:128MiB:0.9:0.8");
	/* Together more than the upper level, all of them open: nothing can be evicted. */
	struct cst_cache_object *o[3];
	static const char *const keys[] = {"a", "b", "c"};
	for (unsigned i = 0; i < 3; i++)
		o[i] = object_open(cache, keys[i], "e", 5 * MIB);
	for (uint64_t b = 0; b < 40; b += 8) {
		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(save_blocks(o[i], b, 8, true), 0);
	}
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(read_all_of(o[i]), 0);
		object_close(o[i]);
	}
	assert_true(level_stats_of(cache, 1).saved_bytes >= 7 * MIB);
	assert_true(level_stats_of(cache, 0).used <= 8 * MIB);
	cst_cache_free(cache);
}

static void damage(int fd)
{
	char byte;
	assert_int_equal(pread(fd, &byte, 1, BLOCK + 7), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, BLOCK + 7), 1);
}

/* Blocks [first, first + count) into a level's volume, as another process would; *entry: what it is then. */
static void write_above(struct cst_cache_volume *v, struct cst_cache_object *o, uint64_t first, uint64_t count,
			struct cst_index_entry *entry)
{
	struct cst_wait w;
	struct cst_extent e;
	CST_AUTO_FREE char *bytes = cst_xmalloc(count * BLOCK);
	struct iovec iov = {bytes, count * BLOCK};
	cst_wait_init(&w);
	cst_volume_entry_open(v->volume, &o->id, CST_VOLUME_CREATE, cst_wait_opened, &w);
	assert_int_equal(cst_wait_for(&w), 0);
	struct cst_volume_handle *h = w.answer.handle;
	*entry = w.answer.entry;
	entry->cached += iov.iov_len;
	cst_wait_fini(&w);
	cst_wait_init(&w);
	cst_volume_charge(h, (int64_t)iov.iov_len, cst_wait_done, &w);
	assert_int_equal(cst_wait_for(&w), 0);
	cst_wait_fini(&w);
	bytes_make("k", first * BLOCK, bytes, iov.iov_len);
	assert_int_equal(cst_extent_open(cst_volume_dir(v->volume), &o->id, true, &e), 0);
	assert_int_equal(cst_extent_write(&e, first, &iov, 1), 0);
	cst_extent_close(&e);
	cst_volume_entry_close(h);
}

/* A half lies below, and a block of it is damaged; the other half comes down. */
static void what_lay_below_is_verified_before_it_is_complete(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, "MEM:%s/m:16MiB:0.9:0.6", "HDD:%s/h:128MiB:0.9:0.8");
	uint64_t size = 8 * BLOCK, blocks[2];
	bool complete[2];
	char below[80];
	struct cst_index_entry entry;
	struct cst_cache_object *o = object_open(cache, "k", "e", size);
	cst_object_aim(o, 1, false);
	assert_int_equal(save_blocks(o, 0, 4, true), 0);
	snprintf(below, sizeof(below), "%s/h", fixture_dir);
	assert_int_equal(each_file(below, ".data", damage), 1);
	write_above(&cache->levels[0].volumes[0], o, 4, 4, &entry);
	object_close(o);
	cache_quiet(cache);
	assert_true(cst_tier_demote(&cache->levels[0].volumes[0], &entry));
	pthread_mutex_lock(&cache->lock);
	while (cache->copies)
		pthread_cond_wait(&cache->quiet, &cache->lock);
	pthread_mutex_unlock(&cache->lock);
	where(cache, "k", size, blocks, complete);
	assert_false(complete[1]);
	assert_int_equal(blocks[1], 7);
	cst_cache_free(cache);
}

/* A cache that ends while much goes down: what is not there yet stays away. */
static void the_end_does_not_wait_for_what_goes_down(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, "MEM:%s/m:16MiB:0.9:0.6", "HDD:%s/h:128MiB:0.9:0.8");
	struct cst_index_entry entry;
	struct cst_cache_object *o = object_open(cache, "k", "e", 8 * BLOCK);
	write_above(&cache->levels[0].volumes[0], o, 0, 8, &entry);
	object_close(o);
	cache_quiet(cache);
	__atomic_store_n(&cache->stopping, true, __ATOMIC_RELAXED);
	assert_false(cst_tier_demote(&cache->levels[0].volumes[0], &entry));
	assert_int_equal(level_stats_of(cache, 1).entries, 0);
	cst_cache_free(cache);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_end_does_not_wait_for_what_goes_down, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(what_lay_below_is_verified_before_it_is_complete, fixture_begin,
						fixture_end),
		cmocka_unit_test_setup_teardown(what_the_upper_level_has_no_room_for_goes_down, fixture_begin,
						fixture_end),
		cmocka_unit_test_setup_teardown(what_is_read_again_soon_comes_up_and_leaves_its_place_below,
						fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(rounds_longer_than_the_upper_level_turn_nothing_over, fixture_begin,
						fixture_end),
		cmocka_unit_test_setup_teardown(a_skewed_use_is_served_from_memory, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(a_failing_level_below_stops_nothing, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(what_no_upper_level_can_hold_goes_below_at_once, fixture_begin,
						fixture_end),
		cmocka_unit_test_setup_teardown(what_is_in_use_above_leaves_the_rest_to_the_level_below, fixture_begin,
						fixture_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
