#include "cache_fixture.h"

#include "base/clock.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>

char fixture_dir[64];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

int fixture_begin(void **state)
{
	(void)state;
	strcpy(fixture_dir, "/dev/shm/cistern-test-XXXXXX");
	if (!mkdtemp(fixture_dir)) {
		strcpy(fixture_dir, "/tmp/cistern-test-XXXXXX");
		assert_non_null(mkdtemp(fixture_dir));
	}
	return 0;
}

int fixture_end(void **state)
{
	(void)state;
	nftw(fixture_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}

static void level_make(const char *text, struct cst_cache_level *level)
{
	struct cst_error err = CST_ERROR_INIT;
	CST_AUTO_BUF full = CST_BUF_INIT;
	const char *at = strstr(text, "%s");
	cst_buf_add(&full, text, (size_t)(at - text));
	cst_buf_add_str(&full, fixture_dir);
	cst_buf_add_str(&full, at + 2);
	assert_int_equal(cst_cache_level_parse(full.data, level, &err), 0);
}

struct cst_cache *cache_make(enum cst_cache_policy policy, const char *level0, const char *level1)
{
	struct cst_cache_level levels[2] = {0};
	struct cst_error err = CST_ERROR_INIT;
	level_make(level0, &levels[0]);
	if (level1)
		level_make(level1, &levels[1]);
	struct cst_cache_config config = {
		.levels = levels,
		.level_count = level1 ? 2 : 1,
		.policy = policy,
		.bucket = "oss://b",
		.keep_free = MIB,
		.finish_partial = true,
	};
	struct cst_cache *cache = cst_cache_new(&config, &err);
	if (!cache) {
		char text[CST_ERROR_TEXT_MAX];
		fail_msg("%s", cst_error_text(&err, text, sizeof(text)));
	}
	for (unsigned i = 0; i < 2; i++)
		cst_cache_level_fini(&levels[i]);
	return cache;
}

struct answer {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	int rc;
	struct cst_cache_object *o;
};
#define ANSWER_INIT                                                    \
	{                                                              \
		PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0 \
	}

static void answer_give(struct answer *a, int rc)
{
	pthread_mutex_lock(&a->lock);
	a->done = true;
	a->rc = rc;
	pthread_cond_signal(&a->cond);
	pthread_mutex_unlock(&a->lock);
}

static int answer_wait(struct answer *a)
{
	pthread_mutex_lock(&a->lock);
	while (!a->done)
		pthread_cond_wait(&a->cond, &a->lock);
	pthread_mutex_unlock(&a->lock);
	return a->rc;
}

static void opened(void *arg, struct cst_cache_object *o)
{
	struct answer *a = arg;
	a->o = o;
	answer_give(a, 0);
}

struct cst_cache_object *object_open(struct cst_cache *cache, const char *key, const char *etag, uint64_t size)
{
	struct answer a = ANSWER_INIT;
	cst_cache_open(cache, cst_slice_of(key), etag, size, opened, &a);
	answer_wait(&a);
	return a.o;
}

static void settled(void *arg)
{
	answer_give(arg, 0);
}

void settle(struct cst_cache_object *o)
{
	struct answer a = ANSWER_INIT;
	cst_object_settle(o, settled, &a);
	answer_wait(&a);
}

static bool nobody_has_it(void *arg)
{
	struct cst_cache *cache = arg;
	pthread_mutex_lock(&cache->lock);
	bool yes = cache->alive == cache->objects;
	pthread_mutex_unlock(&cache->lock);
	return yes;
}

void object_close(struct cst_cache_object *o)
{
	struct cst_cache *cache = o->cache;
	settle(o);
	cst_cache_object_unref(o);
	assert_true(eventually(nobody_has_it, cache));
}

static bool nothing_is_alive(void *arg)
{
	struct cst_cache *cache = arg;
	pthread_mutex_lock(&cache->lock);
	bool yes = cache->alive == 0;
	pthread_mutex_unlock(&cache->lock);
	return yes;
}

void cache_quiet(struct cst_cache *cache)
{
	assert_true(eventually(nothing_is_alive, cache));
}

/* Runs of 64 equal bytes, different in each key and block. */
void bytes_make(const char *key, uint64_t offset, char *to, size_t len)
{
	uint32_t seed = 2166136261u;
	for (const char *k = key; *k; k++)
		seed = (seed ^ (unsigned char)*k) * 16777619u;
	for (size_t at = 0; at < len;) {
		uint64_t run = (offset + at) / 64;
		size_t n = cst_min(64 - (size_t)((offset + at) % 64), len - at);
		memset(to + at, (int)(unsigned char)((run * 2654435761u + seed) >> 13), n);
		at += n;
	}
}

static size_t span(const struct cst_cache_object *o, uint64_t first, uint64_t count)
{
	return (size_t)(cst_min(o->id.size, (first + count) * BLOCK) - first * BLOCK);
}

/* One vector a block, as src/fetch has them. */
static int vectors(char *memory, size_t len, struct iovec *iov)
{
	int count = 0;
	for (size_t at = 0; at < len; at += BLOCK)
		iov[count++] = (struct iovec){memory + at, cst_min((size_t)BLOCK, len - at)};
	return count;
}

static void done(void *arg, int rc)
{
	answer_give(arg, rc);
}

int save_blocks(struct cst_cache_object *o, uint64_t first, uint64_t count, bool must)
{
	struct cst_fetch_local *l = cst_cache_object_local(o);
	struct answer a = ANSWER_INIT;
	size_t len = span(o, first, count);
	CST_AUTO_FREE char *memory = cst_xmalloc(len);
	CST_AUTO_FREE struct iovec *iov = cst_xcalloc(count, sizeof(*iov));
	bytes_make(o->id.key.data, first * BLOCK, memory, len);
	if (!l->ops->save(l, first, iov, vectors(memory, len, iov), must, done, &a))
		return 1;
	return answer_wait(&a);
}

int save_all(struct cst_cache_object *o)
{
	for (uint64_t b = 0; b < o->blocks; b += 64) {
		int rc = save_blocks(o, b, cst_min(o->blocks - b, UINT64_C(64)), true);
		if (rc != 0)
			return rc;
	}
	return 0;
}

int read_blocks_of(struct cst_cache_object *o, uint64_t first, uint64_t count)
{
	struct cst_fetch_local *l = cst_cache_object_local(o);
	struct answer a = ANSWER_INIT;
	size_t len = span(o, first, count);
	CST_AUTO_FREE char *memory = cst_xmalloc(len);
	CST_AUTO_FREE char *want = cst_xmalloc(len);
	CST_AUTO_FREE struct iovec *iov = cst_xcalloc(count, sizeof(*iov));
	l->ops->read(l, first, iov, vectors(memory, len, iov), done, &a);
	int rc = answer_wait(&a);
	bytes_make(o->id.key.data, first * BLOCK, want, len);
	if (rc == 0)
		assert_memory_equal(memory, want, len);
	return rc;
}

int read_all_of(struct cst_cache_object *o)
{
	int rc = 0;
	for (uint64_t b = 0; b < o->blocks && rc == 0; b += 64)
		rc = read_blocks_of(o, b, cst_min(o->blocks - b, UINT64_C(64)));
	return rc;
}

bool is_there(struct cst_cache_object *o, uint64_t block)
{
	struct cst_fetch_local *l = cst_cache_object_local(o);
	bool there = false;
	assert_int_equal(l->ops->probe(l, block, 1, &there), 1);
	return there;
}

bool use(struct cst_cache *cache, const char *key, const char *etag, uint64_t size)
{
	struct cst_cache_object *o = object_open(cache, key, etag, size);
	assert_non_null(o);
	bool cached = cst_cache_object_cached(o) == size && read_all_of(o) == 0;
	if (!cached)
		save_all(o);
	object_close(o);
	return cached;
}

bool is_cached(struct cst_cache *cache, const char *key, const char *etag, uint64_t size)
{
	struct cst_cache_object *o = object_open(cache, key, etag, size);
	bool yes = o && cst_cache_object_cached(o) == size;
	if (o)
		object_close(o);
	return yes;
}

struct cst_cache_level_stats level_stats_of(struct cst_cache *cache, unsigned level)
{
	struct cst_cache_stats stats;
	cst_cache_stats(cache, &stats);
	return stats.levels[level];
}

bool eventually(bool (*fn)(void *arg), void *arg)
{
	for (int64_t until = cst_now() + 30 * CST_NS_PER_S; cst_now() < until; cst_sleep(CST_NS_PER_MS)) {
		if (fn(arg))
			return true;
	}
	return fn(arg);
}

static const char *each_suffix;
static void (*each_fn)(int fd);
static unsigned each_count;

static int each_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	size_t len = strlen(path), end = strlen(each_suffix);
	(void)st;
	(void)ftw;
	if (type != FTW_F || len < end || strcmp(path + len - end, each_suffix) != 0)
		return 0;
	CST_AUTO_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	each_count++;
	if (each_fn)
		each_fn(fd);
	return 0;
}

unsigned each_file(const char *dir, const char *suffix, void (*fn)(int fd))
{
	each_suffix = suffix;
	each_fn = fn;
	each_count = 0;
	nftw(dir, each_one, 16, FTW_PHYS);
	return each_count;
}
