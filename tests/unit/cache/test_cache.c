/* Objects in a cache of real directories: what is saved is read back, whatever happens to the files. */
#include "cache_fixture.h"

#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define LEVEL "SSD:%s/a:64MiB:0.95:0.9"

static void what_was_saved_is_read_back(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	uint64_t size = 20 * BLOCK + 777;
	struct cst_cache_object *o = object_open(cache, "dir/big", "e1", size);
	assert_non_null(o);
	assert_int_equal(cst_cache_object_cached(o), 0);
	assert_false(is_there(o, 3));
	assert_int_equal(cst_cache_object_file(o), -1);
	assert_int_equal(save_blocks(o, 3, 4, false), 0);
	assert_true(is_there(o, 3) && is_there(o, 6));
	assert_false(is_there(o, 2) || is_there(o, 7));
	assert_int_equal(cst_cache_object_cached(o), 4 * BLOCK);
	assert_int_equal(read_blocks_of(o, 4, 2), 0);
	/* What isn't there can't be read. */
	assert_true(read_blocks_of(o, 6, 2) < 0);
	bool there;
	struct cst_fetch_local *l = cst_cache_object_local(o);
	assert_int_equal(l->ops->probe(l, 0, 100, &there), 3);
	assert_false(there);
	assert_int_equal(l->ops->probe(l, 3, 100, &there), 4);
	assert_true(there);
	assert_int_equal(l->ops->probe(l, 7, 100, &there), 14);
	assert_false(there);
	assert_int_equal(save_all(o), 0);
	settle(o);
	assert_int_equal(cst_cache_object_cached(o), size);
	assert_int_equal(read_all_of(o), 0);
	struct cst_cache_level_stats s = level_stats_of(cache, 0);
	assert_int_equal(s.saved_bytes, size);
	assert_int_equal(s.entries, 1);
	assert_true(s.hits >= 21 && s.hit_bytes >= size);
	object_close(o);
	cst_cache_free(cache);
}

static void a_complete_object_has_a_file_of_exactly_its_bytes(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	uint64_t size = 5 * BLOCK + 1;
	for (int round = 0; round < 2; round++) {
		struct cst_cache_object *o = object_open(cache, "k", "e", size);
		if (round == 0) {
			assert_int_equal(save_blocks(o, 0, 5, false), 0);
			settle(o);
			assert_int_equal(cst_cache_object_file(o), -1);
			assert_int_equal(save_blocks(o, 5, 1, false), 0);
			settle(o);
		}
		int fd = cst_cache_object_file(o);
		assert_true(fd >= 0);
		assert_int_equal(cst_cache_object_file(o), fd);
		struct stat st;
		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(st.st_size, size);
		CST_AUTO_FREE char *bytes = cst_xmalloc(size);
		CST_AUTO_FREE char *want = cst_xmalloc(size);
		bytes_make("k", 0, want, size);
		assert_int_equal(pread(fd, bytes, size, 0), size);
		assert_memory_equal(bytes, want, size);
		assert_int_equal(pwrite(fd, "x", 1, 0), -1);
		object_close(o);
	}
	cst_cache_free(cache);
}

/* As an owner does who took this process for dead: the entry is evicted, and another process makes it anew and has begun to fill it. */
static void make_anew(struct cst_cache *cache, struct cst_cache_object *o)
{
	struct cst_extent e;
	CST_AUTO_FREE char *bytes = cst_xmalloc(BLOCK);
	struct iovec iov = {bytes, BLOCK};
	int dir = cst_volume_dir(cache->levels[0].volumes[0].volume);
	bytes_make("k", 0, bytes, BLOCK);
	assert_int_equal(cst_extent_unlink(dir, o->id.name, o->id.version), 0);
	assert_int_equal(cst_extent_create(dir, &o->id, &e), 0);
	assert_int_equal(cst_extent_write(&e, 0, &iov, 1), 0);
	cst_extent_close(&e);
}

static void files_that_others_made_anew_are_not_taken_for_complete(void **state)
{
	(void)state;
	uint64_t size = 5 * BLOCK + 1;
	for (unsigned round = 0; round < 2; round++) {
		/* Filled just now; found complete. */
		struct cst_cache *cache =
			cache_make(CST_CACHE_S3FIFO, round ? "SSD:%s/found:64MiB" : "SSD:%s/filled:64MiB", NULL);
		struct cst_cache_object *o = object_open(cache, "k", "e", size);
		assert_int_equal(save_all(o), 0);
		settle(o);
		if (round == 1) {
			object_close(o);
			cache_quiet(cache);
			o = object_open(cache, "k", "e", size);
		}
		assert_int_equal(cst_cache_object_cached(o), size);
		make_anew(cache, o);
		assert_int_equal(cst_cache_object_file(o), -1);
		assert_int_equal(cst_cache_object_file(o), -1);
		object_close(o);
		cst_cache_free(cache);
	}
}

static void a_new_start_finds_what_was_there(void **state)
{
	(void)state;
	for (int round = 0; round < 3; round++) {
		struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
		struct cst_cache_object *big = object_open(cache, "big", "e", 9 * BLOCK);
		struct cst_cache_object *part = object_open(cache, "part", "e", 9 * BLOCK);
		struct cst_cache_object *small = object_open(cache, "small", "e", 1000);
		if (round == 0) {
			assert_int_equal(save_all(big), 0);
			assert_int_equal(save_blocks(part, 2, 3, true), 0);
			assert_int_equal(save_all(small), 0);
		} else {
			assert_int_equal(cst_cache_object_cached(part), 3 * BLOCK);
			assert_int_equal(read_blocks_of(part, 2, 3), 0);
			assert_true(cst_cache_object_file(big) >= 0);
			assert_int_equal(cst_cache_object_file(part), -1);
		}
		assert_int_equal(read_all_of(big), 0);
		assert_int_equal(read_all_of(small), 0);
		object_close(big);
		object_close(part);
		object_close(small);
		cst_cache_free(cache);
	}
}

static void a_small_object_is_taken_whole_or_not_at_all(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	uint64_t size = BLOCK + 5000;
	struct cst_cache_object *o = object_open(cache, "small", "e", size);
	assert_int_equal(save_blocks(o, 1, 1, true), 1);
	assert_int_equal(save_all(o), 0);
	assert_int_equal(read_all_of(o), 0);
	assert_int_equal(read_blocks_of(o, 1, 1), 0);
	assert_int_equal(read_blocks_of(o, 0, 1), 0);
	/* It lies among others: no file of its own. */
	assert_int_equal(cst_cache_object_file(o), -1);
	assert_int_equal(cst_cache_object_cached(o), size);
	object_close(o);
	assert_int_equal(each_file(fixture_dir, ".data", NULL), 0);
	assert_int_equal(each_file(fixture_dir, ".slab", NULL), 1);
	cst_cache_free(cache);
}

static void versions_are_told_apart(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	assert_null(object_open(cache, "k", "", 10 * BLOCK));
	assert_null(object_open(cache, "k", NULL, 10 * BLOCK));
	assert_null(object_open(cache, "k", "e", 0));
	struct cst_cache_object *old = object_open(cache, "k", "e1", 10 * BLOCK);
	assert_int_equal(save_all(old), 0);
	settle(old);
	struct cst_cache_object *new = object_open(cache, "k", "e2", 10 * BLOCK);
	assert_ptr_not_equal(old, new);
	assert_int_equal(cst_cache_object_cached(new), 0);
	struct cst_cache_object *longer = object_open(cache, "k", "e1", 10 * BLOCK + 1);
	assert_int_equal(cst_cache_object_cached(longer), 0);
	struct cst_cache_object *again = object_open(cache, "k", "e1", 10 * BLOCK);
	assert_ptr_equal(old, again);
	assert_int_equal(save_all(new), 0);
	/* The old one stays what it is for those who have it. */
	assert_int_equal(read_all_of(old), 0);
	assert_int_equal(read_all_of(new), 0);
	cst_cache_object_unref(again);
	object_close(longer);
	object_close(old);
	object_close(new);
	assert_false(is_cached(cache, "k", "e1", 10 * BLOCK));
	assert_true(is_cached(cache, "k", "e2", 10 * BLOCK));
	cst_cache_free(cache);
}

static void stream_reads_what_is_there_and_admits_nothing(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	use(cache, "k", "e", 8 * BLOCK);
	struct cst_cache_object *part = object_open(cache, "part", "e", 8 * BLOCK);
	assert_int_equal(save_blocks(part, 0, 2, true), 0);
	object_close(part);
	cst_cache_free(cache);
	cache = cache_make(CST_CACHE_STREAM, LEVEL, NULL);
	assert_null(object_open(cache, "other", "e", 8 * BLOCK));
	struct cst_cache_object *o = object_open(cache, "k", "e", 8 * BLOCK);
	assert_non_null(o);
	assert_int_equal(read_all_of(o), 0);
	object_close(o);
	part = object_open(cache, "part", "e", 8 * BLOCK);
	assert_int_equal(save_blocks(part, 2, 2, true), 1);
	assert_int_equal(cst_cache_object_cached(part), 2 * BLOCK);
	assert_int_equal(level_stats_of(cache, 0).refused_bytes, 2 * BLOCK);
	object_close(part);
	cst_cache_free(cache);
}

static void pinned_objects_fill_it_and_stay(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_PIN, "SSD:%s/a:16MiB:0.95:0.9", NULL);
	unsigned kept = 0;
	char key[16];
	for (unsigned i = 0; i < 30; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		use(cache, key, "e", 8 * BLOCK);
	}
	for (unsigned i = 0; i < 30; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		bool cached = is_cached(cache, key, "e", 8 * BLOCK);
		assert_true(i > 10 || cached);
		kept += cached;
	}
	assert_in_range(kept, 11, 16);
	struct cst_cache_level_stats s = level_stats_of(cache, 0);
	assert_int_equal(s.evicted, 0);
	assert_true(s.pinned >= kept);
	assert_true(s.refused_bytes > 0);
	assert_true(s.used <= s.quota);
	cst_cache_free(cache);
}

static void it_never_takes_more_than_its_quota(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, "SSD:%s/a:16MiB:0.9:0.7", NULL);
	char key[16];
	for (unsigned i = 0; i < 60; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		use(cache, key, "e", i % 4 ? 8 * BLOCK : 3000);
		struct cst_cache_level_stats s = level_stats_of(cache, 0);
		assert_true(s.used <= s.quota);
	}
	struct cst_cache_level_stats s = level_stats_of(cache, 0);
	assert_true(s.evicted > 20);
	assert_true(s.stops_high > 0 && s.stops_low > 0);
	assert_int_equal(s.demoted, 0);
	assert_true(is_cached(cache, "k59", "e", 8 * BLOCK));
	cst_cache_free(cache);
}

static void what_fits_of_a_too_large_object_is_kept(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, "SSD:%s/a:8MiB:0.9:0.7", NULL);
	struct cst_cache_object *o = object_open(cache, "huge", "e", 32 * MIB);
	int rc = save_all(o);
	assert_true(rc == -ENOSPC || rc == 1);
	uint64_t cached = cst_cache_object_cached(o);
	assert_in_range(cached, 4 * MIB, 8 * MIB);
	/* And then it leaves off asking. */
	uint64_t refused = level_stats_of(cache, 0).refused_bytes;
	assert_int_equal(save_blocks(o, 200, 4, true), 1);
	assert_int_equal(level_stats_of(cache, 0).refused_bytes, refused + 4 * BLOCK);
	assert_int_equal(read_blocks_of(o, 0, 8), 0);
	object_close(o);
	cst_cache_free(cache);
}

static void flip(int fd)
{
	char c;
	assert_int_equal(pread(fd, &c, 1, (off_t)(2 * BLOCK + 100)), 1);
	c ^= 4;
	assert_int_equal(pwrite(fd, &c, 1, (off_t)(2 * BLOCK + 100)), 1);
}

static void a_damaged_block_is_forgotten_and_the_rest_stays(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	struct cst_cache_object *o = object_open(cache, "k", "e", 8 * BLOCK);
	assert_int_equal(save_blocks(o, 0, 7, true), 0);
	assert_int_equal(each_file(fixture_dir, ".data", flip), 1);
	assert_int_equal(read_blocks_of(o, 0, 2), 0);
	assert_int_equal(read_blocks_of(o, 0, 7), -EBADMSG);
	assert_false(is_there(o, 2));
	assert_true(is_there(o, 1) && is_there(o, 3));
	assert_int_equal(level_stats_of(cache, 0).corrupt, 1);
	assert_int_equal(save_blocks(o, 2, 1, true), 0);
	assert_int_equal(read_blocks_of(o, 0, 7), 0);
	assert_int_equal(save_all(o), 0);
	settle(o);
	assert_true(cst_cache_object_file(o) >= 0);
	object_close(o);
	cst_cache_free(cache);
}

static void a_dropped_file_is_lent_no_more(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	struct cst_cache_object *o = object_open(cache, "k", "e", 8 * BLOCK);
	assert_int_equal(save_all(o), 0);
	settle(o);
	assert_true(cst_cache_object_file(o) >= 0);
	struct cst_error err = CST_ERROR_INIT;
	assert_int_equal(cst_cache_drop(cache, "", &err), 1);
	while (cst_cache_object_file(o) >= 0) /* a thread of the volume removes it */
		cst_sleep(CST_NS_PER_MS);
	assert_int_equal(read_all_of(o), 0);
	object_close(o);
	cst_cache_free(cache);
}

static void a_damaged_complete_object_goes_as_a_whole(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	struct cst_cache_object *o = object_open(cache, "k", "e", 8 * BLOCK);
	assert_int_equal(save_all(o), 0);
	settle(o);
	assert_true(cst_cache_object_file(o) >= 0);
	assert_int_equal(each_file(fixture_dir, ".data", flip), 1);
	assert_int_equal(read_all_of(o), -EBADMSG);
	assert_false(is_there(o, 0));
	/* Nobody new gets the damaged file. */
	assert_int_equal(cst_cache_object_file(o), -1);
	object_close(o);
	cache_quiet(cache);
	/* Without a file lent out it comes back at once. */
	o = object_open(cache, "k", "e", 8 * BLOCK);
	assert_int_equal(cst_cache_object_cached(o), 0);
	assert_int_equal(save_all(o), 0);
	settle(o);
	assert_int_equal(each_file(fixture_dir, ".data", flip), 1);
	assert_int_equal(read_all_of(o), -EBADMSG);
	assert_int_equal(save_all(o), 0);
	assert_int_equal(read_all_of(o), 0);
	object_close(o);
	assert_true(is_cached(cache, "k", "e", 8 * BLOCK));
	cst_cache_free(cache);
}

static void cut(int fd)
{
	assert_int_equal(ftruncate(fd, 5000), 0);
}

static void wipe(int fd)
{
	char zeros[16384] = {0};
	struct stat st;
	assert_int_equal(fstat(fd, &st), 0);
	for (off_t at = 0; at < st.st_size; at += (off_t)sizeof(zeros))
		assert_true(pwrite(fd, zeros, cst_min(sizeof(zeros), (size_t)(st.st_size - at)), at) > 0);
}

static void truncated_and_wiped_files_are_dropped(void **state)
{
	static const char *const suffixes[] = {".data", ".map", ".slab"};
	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
		use(cache, "k", "e", 8 * BLOCK);
		use(cache, "s", "e", 8000);
		/* At run time and over a restart. */
		bool restart = i % 2;
		if (restart)
			cst_cache_free(cache);
		assert_true(each_file(fixture_dir, suffixes[i / 2], i / 2 == 2 ? wipe : cut) > 0);
		if (restart)
			cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
		use(cache, "k", "e", 8 * BLOCK);
		use(cache, "s", "e", 8000);
		assert_true(use(cache, "k", "e", 8 * BLOCK));
		assert_true(use(cache, "s", "e", 8000));
		cst_cache_free(cache);
	}
}

static void a_sick_disk_takes_out_its_directory_alone(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, "SSD:%s/a:64MiB", "HDD:%s/b:64MiB");
	struct cst_cache_object *o = object_open(cache, "k", "e", 8 * BLOCK);
	assert_int_equal(save_all(o), 0);
	settle(o);
	struct cst_cache_volume *v = &cache->levels[0].volumes[0];
	assert_true(cst_cache_object_file(o) >= 0);
	assert_int_equal(cst_cache_volume_error(v, -ENOSPC, "writing"), -ENOSPC);
	assert_int_equal(cst_cache_volume_error(v, -EBADMSG, "reading"), -EBADMSG);
	assert_true(is_there(o, 0));
	assert_int_equal(cst_cache_volume_error(v, -EIO, "reading"), -EIO);
	assert_false(is_there(o, 0));
	assert_int_equal(cst_cache_object_file(o), -1);
	assert_true(read_all_of(o) < 0);
	struct cst_cache_level_stats s = level_stats_of(cache, 0);
	assert_non_null(strstr(s.state, "out: reading"));
	assert_string_equal(level_stats_of(cache, 1).state, "ok");
	/* The next level goes on. */
	assert_int_equal(save_all(o), 0);
	assert_int_equal(read_all_of(o), 0);
	assert_int_equal(level_stats_of(cache, 1).hits, 8);
	object_close(o);
	cst_cache_free(cache);
}

static void without_any_level_nothing_is_cached(void **state)
{
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	cst_cache_volume_error(&cache->levels[0].volumes[0], -EROFS, "writing");
	struct cst_cache_object *o = object_open(cache, "k", "e", 8 * BLOCK);
	if (o) {
		assert_int_equal(save_blocks(o, 0, 1, true), 1);
		object_close(o);
	}
	cst_cache_free(cache);
}

static void the_directory_may_be_deleted_under_us(void **state)
{
	char command[128];
	(void)state;
	struct cst_cache *cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	use(cache, "gone", "e", 8 * BLOCK);
	struct cst_cache_object *o = object_open(cache, "open", "e", 8 * BLOCK);
	assert_int_equal(save_blocks(o, 0, 4, true), 0);
	snprintf(command, sizeof(command), "rm -rf %s/a", fixture_dir);
	assert_int_equal(system(command), 0);
	/* What is open can be read, the rest is as if it had never been cached. */
	assert_int_equal(read_blocks_of(o, 0, 4), 0);
	struct cst_cache_object *gone = object_open(cache, "gone", "e", 8 * BLOCK);
	if (gone) {
		assert_true(read_all_of(gone) != 0 || cst_cache_object_cached(gone) == 8 * BLOCK);
		object_close(gone);
	}
	struct cst_cache_object *new = object_open(cache, "new", "e", 8 * BLOCK);
	if (new) {
		save_all(new);
		object_close(new);
	}
	object_close(o);
	cst_cache_free(cache);
	cache = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	assert_false(use(cache, "gone", "e", 8 * BLOCK));
	assert_true(use(cache, "gone", "e", 8 * BLOCK));
	cst_cache_free(cache);
}

static void a_full_disk_refuses_and_reads_on(void **state)
{
	char dir[96];
	(void)state;
	snprintf(dir, sizeof(dir), "%s/disk", fixture_dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	if (mount("tmpfs", dir, "tmpfs", 0, "size=24m") != 0)
		skip();
	/* The quota is far more than there is; somebody else fills the disk. */
	struct cst_cache *cache = cache_make(CST_CACHE_PIN, "SSD:%s/disk/c:1GiB:1:0.9", NULL);
	assert_true(level_stats_of(cache, 0).quota <= 24 * MIB);
	assert_false(use(cache, "first", "e", 32 * BLOCK));
	CST_AUTO_FREE char *junk = cst_xcalloc(1, MIB);
	snprintf(dir, sizeof(dir), "%s/disk/junk", fixture_dir);
	FILE *f = fopen(dir, "we");
	assert_non_null(f);
	setvbuf(f, NULL, _IONBF, 0);
	while (fwrite(junk, MIB, 1, f) == 1)
		;
	struct cst_cache_object *o = object_open(cache, "second", "e", 64 * BLOCK);
	int rc = save_all(o);
	assert_true(rc == -ENOSPC || rc == 1);
	object_close(o);
	assert_true(use(cache, "first", "e", 32 * BLOCK));
	assert_string_equal(cst_cache_volume_is_out(&cache->levels[0].volumes[0]) ? "out" : "in", "in");
	fclose(f);
	assert_int_equal(remove(dir), 0);
	cst_cache_free(cache);
	snprintf(dir, sizeof(dir), "%s/disk", fixture_dir);
	assert_int_equal(umount(dir), 0);
}

static bool block_arrives(void *arg)
{
	return is_there(arg, 5);
}

static void two_caches_share_a_directory(void **state)
{
	(void)state;
	struct cst_cache *first = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	struct cst_cache *second = cache_make(CST_CACHE_S3FIFO, LEVEL, NULL);
	assert_true(level_stats_of(first, 0).owner);
	assert_false(level_stats_of(second, 0).owner);
	assert_false(use(second, "a", "e", 8 * BLOCK));
	assert_true(use(first, "a", "e", 8 * BLOCK));
	assert_false(use(first, "b", "e", 500));
	assert_true(use(second, "b", "e", 500));
	/* What one brings in, the other sees though it has the object open already. */
	struct cst_cache_object *x = object_open(first, "c", "e", 8 * BLOCK);
	struct cst_cache_object *y = object_open(second, "c", "e", 8 * BLOCK);
	assert_int_equal(save_blocks(y, 1, 1, true), 0);
	assert_int_equal(save_blocks(x, 5, 1, true), 0);
	assert_true(eventually(block_arrives, y));
	assert_int_equal(read_blocks_of(y, 5, 1), 0);
	object_close(x);
	object_close(y);
	cst_cache_free(first);
	/* The other looks after it now. */
	assert_true(use(second, "b", "e", 500) || use(second, "b", "e", 500));
	cst_cache_free(second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_was_saved_is_read_back, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(a_complete_object_has_a_file_of_exactly_its_bytes, fixture_begin,
						fixture_end),
		cmocka_unit_test_setup_teardown(files_that_others_made_anew_are_not_taken_for_complete, fixture_begin,
						fixture_end),
		cmocka_unit_test_setup_teardown(a_new_start_finds_what_was_there, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(a_small_object_is_taken_whole_or_not_at_all, fixture_begin,
						fixture_end),
		cmocka_unit_test_setup_teardown(versions_are_told_apart, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(stream_reads_what_is_there_and_admits_nothing, fixture_begin,
						fixture_end),
		cmocka_unit_test_setup_teardown(pinned_objects_fill_it_and_stay, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(it_never_takes_more_than_its_quota, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(what_fits_of_a_too_large_object_is_kept, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(a_damaged_block_is_forgotten_and_the_rest_stays, fixture_begin,
						fixture_end),
		cmocka_unit_test_setup_teardown(a_dropped_file_is_lent_no_more, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(a_damaged_complete_object_goes_as_a_whole, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(truncated_and_wiped_files_are_dropped, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(a_sick_disk_takes_out_its_directory_alone, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(without_any_level_nothing_is_cached, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(the_directory_may_be_deleted_under_us, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(a_full_disk_refuses_and_reads_on, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(two_caches_share_a_directory, fixture_begin, fixture_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
