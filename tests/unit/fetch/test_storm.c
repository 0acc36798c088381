/* Many threads, a store thread, random everything. */
#include "double.h"

#include <unistd.h>

static struct {
	struct cst_fetch_object *objects[4];
	bool stop;
	pthread_mutex_t lock;
	pthread_cond_t woken;
} storm = {.lock = PTHREAD_MUTEX_INITIALIZER, .woken = PTHREAD_COND_INITIALIZER};

static void storm_done(struct cst_fetch_read *r, int rc, const struct cst_error *err)
{
	struct reader *reader = r->arg;
	read_done(r, rc, err);
	pthread_mutex_lock(&storm.lock);
	reader->ready = true;
	pthread_cond_broadcast(&storm.woken);
	pthread_mutex_unlock(&storm.lock);
}

static void *storm_reader(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	for (int round = 0; round < 30; round++) {
		struct cst_fetch_object *o = storm.objects[rand_r(&seed) % 4];
		struct cst_fetch_stream *s = cst_fetch_stream_new(o);
		uint64_t offset = rand_r(&seed) % 2 ? 0 : (uint64_t)rand_r(&seed) % (store.size - 1);
		for (int i = 0; i < 20 && offset < store.size; i++) {
			struct reader r = {.read = {.offset = offset,
						    .length = 1u + (unsigned)rand_r(&seed) % MIB,
						    .done = storm_done,
						    .arg = &r}};
			cst_fetch_read(s, &r.read);
			if (rand_r(&seed) % 16 == 0)
				cst_fetch_read_cancel(&r.read);
			pthread_mutex_lock(&storm.lock);
			while (!r.ready)
				pthread_cond_wait(&storm.woken, &storm.lock);
			pthread_mutex_unlock(&storm.lock);
			assert_true(r.rc > 0 || r.rc == -EINTR || r.rc == -EIO);
			offset += r.read.length;
			cst_fetch_read_release(&r.read);
		}
		cst_fetch_stream_free(s);
	}
	return NULL;
}

static void *storm_store(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	for (;;) {
		pthread_mutex_lock(&store.lock);
		struct cst_object_op *op = TAILQ_FIRST(&store.ops);
		if (op && rand_r(&seed) % 2 && TAILQ_NEXT(op, link))
			op = TAILQ_NEXT(op, link);
		pthread_mutex_unlock(&store.lock);
		if (op && op->get.progress && rand_r(&seed) % 3 == 0) {
			progress(op, op->get.length / 3);
			progress(op, op->get.length / 2);
		}
		if (op)
			answer_op(op, rand_r(&seed) % 50 == 0 ? -EIO : 0);
		else if (__atomic_load_n(&storm.stop, __ATOMIC_ACQUIRE))
			return NULL;
		else
			usleep(100);
	}
}

static void threads(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64 * MIB);
	store.size = 24 * MIB + 777;
	for (size_t i = 0; i < 4; i++) {
		char key[8];
		snprintf(key, sizeof(key), "o%zu", i);
		storm.objects[i] = cst_fetch_object_new(f, cst_slice_of(key), "v1", store.size);
	}
	pthread_t readers[6], server;
	assert_int_equal(pthread_create(&server, NULL, storm_store, (void *)7), 0);
	for (uintptr_t i = 0; i < 6; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, storm_reader, (void *)(i + 1)), 0);
	for (size_t i = 0; i < 6; i++)
		pthread_join(readers[i], NULL);
	for (size_t i = 0; i < 4; i++)
		cst_fetch_object_unref(storm.objects[i]);
	struct cst_fetch_stats stats;
	cst_fetch_stats(f, &stats);
	assert_true(stats.memory_peak <= 64 * MIB);
	cst_fetch_free(f); /* waits for the store thread to answer the cancelled ones */
	__atomic_store_n(&storm.stop, true, __ATOMIC_RELEASE);
	pthread_join(server, NULL);
}

/* ---- the same with a cache below that fails and refuses, fills that come and go, and what is read taken from it ---- */

static struct cache caches[4];

static void fill_done(struct cst_fetch_fill *fill, int rc, const struct cst_error *err)
{
	assert_true(rc == 0 || rc == -ECANCELED || rc == -EIO || rc == -ENOSPC);
	assert_true((rc < 0) == (err != NULL));
	__atomic_store_n((bool *)fill->arg, true, __ATOMIC_RELEASE);
}

static void *storm_filler(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	for (int round = 0; round < 60; round++) {
		unsigned which = (unsigned)rand_r(&seed) % 4;
		bool over = false;
		struct cst_fetch_fill fill = {.offset = rand_r(&seed) % 2 ? 0 : (uint64_t)rand_r(&seed) % store.size,
					      .length = UINT64_MAX,
					      .done = fill_done,
					      .arg = &over};
		cst_fetch_fill(storm.objects[which], &fill);
		for (int i = 0; !__atomic_load_n(&over, __ATOMIC_ACQUIRE); i++) {
			if (i == rand_r(&seed) % 50)
				cst_fetch_fill_cancel(&fill);
			usleep(200);
		}
		if (rand_r(&seed) % 8 == 0) {
			struct cache *c = &caches[which];
			pthread_mutex_lock(&c->lock);
			memset(c->there, 0, sizeof(c->there));
			pthread_mutex_unlock(&c->lock);
		}
	}
	return NULL;
}

static void *storm_disk(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	while (!__atomic_load_n(&storm.stop, __ATOMIC_ACQUIRE)) {
		struct cache *c = &caches[rand_r(&seed) % 4];
		pthread_mutex_lock(&c->lock);
		c->read_rc = rand_r(&seed) % 10 == 0 ? -EBADMSG : 0;
		c->save_rc = rand_r(&seed) % 30 == 0 ? -EIO : 0;
		pthread_mutex_unlock(&c->lock);
		if (!cache_answer(c))
			usleep(50);
	}
	for (size_t i = 0; i < 4; i++)
		while (cache_answer(&caches[i]))
			;
	return NULL;
}

static void threads_and_a_cache(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64 * MIB);
	storm.stop = false;
	store.size = 24 * MIB + 777;
	for (size_t i = 0; i < 4; i++) {
		char key[8];
		snprintf(key, sizeof(key), "o%zu", i);
		storm.objects[i] = cst_fetch_object_new(f, cst_slice_of(key), "v1", store.size);
		cache_init(&caches[i], store.size);
		caches[i].manner = CACHE_LATER;
		cst_fetch_object_set_local(storm.objects[i], &caches[i].local);
	}
	pthread_t readers[4], fillers[2], server, disk;
	assert_int_equal(pthread_create(&server, NULL, storm_store, (void *)8), 0);
	assert_int_equal(pthread_create(&disk, NULL, storm_disk, (void *)9), 0);
	for (uintptr_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, storm_reader, (void *)(i + 11)), 0);
	for (uintptr_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&fillers[i], NULL, storm_filler, (void *)(i + 21)), 0);
	for (size_t i = 0; i < 4; i++)
		pthread_join(readers[i], NULL);
	for (size_t i = 0; i < 2; i++)
		pthread_join(fillers[i], NULL);
	for (size_t i = 0; i < 4; i++)
		cst_fetch_object_unref(storm.objects[i]);
	struct cst_fetch_stats stats = stats_of(f);
	assert_true(stats.memory_peak <= 64 * MIB);
	assert_true(stats.local_ranges > 0 && stats.bytes_saved > 0 && stats.fill_ranges > 0);
	cst_fetch_free(f); /* waits for store and disk */
	__atomic_store_n(&storm.stop, true, __ATOMIC_RELEASE);
	pthread_join(server, NULL);
	pthread_join(disk, NULL);
	for (size_t i = 0; i < 4; i++)
		cache_fini(&caches[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads),
		cmocka_unit_test(threads_and_a_cache),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
