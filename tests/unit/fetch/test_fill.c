/* Fills: what a cache lacks of an object is brought there, behind all readers. */
#include "double.h"

#include <sched.h>
#include <stdlib.h>

/* Ends are told by another thread. */
struct filling {
	struct cst_fetch_fill fill;
	pthread_mutex_t lock;
	pthread_cond_t told;
	int rc, calls;
	char why[640];
};

static void told(struct cst_fetch_fill *fill, int rc, const struct cst_error *err)
{
	struct filling *x = fill->arg;
	pthread_mutex_lock(&x->lock);
	x->rc = rc;
	x->calls++;
	assert_true((rc < 0) == (err != NULL));
	snprintf(x->why, sizeof(x->why), "%s", err ? err->why : "");
	pthread_cond_signal(&x->told);
	pthread_mutex_unlock(&x->lock);
}

static void start(struct filling *x, struct cst_fetch_object *o, uint64_t offset, uint64_t length)
{
	*x = (struct filling){.fill = {.offset = offset, .length = length, .done = told, .arg = x}};
	pthread_mutex_init(&x->lock, NULL);
	pthread_cond_init(&x->told, NULL);
	cst_fetch_fill(o, &x->fill);
}

static int wait_for(struct filling *x)
{
	pthread_mutex_lock(&x->lock);
	while (!x->calls)
		pthread_cond_wait(&x->told, &x->lock);
	assert_int_equal(x->calls, 1);
	pthread_mutex_unlock(&x->lock);
	return x->rc;
}

static bool is_over(struct filling *x)
{
	pthread_mutex_lock(&x->lock);
	bool over = x->calls > 0;
	pthread_mutex_unlock(&x->lock);
	return over;
}

struct setup {
	struct cst_fetch *f;
	struct cst_fetch_object *o;
	struct cst_fetch_stream *s;
	struct cache cache;
	struct filling fill;
};

static void begin(struct setup *t, uint64_t size)
{
	t->f = make(64 * MIB);
	t->o = object(t->f, size);
	cache_init(&t->cache, size);
	cst_fetch_object_set_local(t->o, &t->cache.local);
	t->s = cst_fetch_stream_new(t->o);
}

/* A fill's thread may still hold the object for a moment after it told. */
static void finish(struct setup *t)
{
	cst_fetch_stream_free(t->s);
	cst_fetch_object_unref(t->o);
	answer_all();
	cst_fetch_free(t->f);
	cache_fini(&t->cache);
}

static void fills_what_is_missing(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 64 * MIB + 100);
	cache_add(&t.cache, 64, 32); /* 8 MiB to 12 MiB */
	start(&t.fill, t.o, 0, UINT64_MAX);
	unsigned most = 0;
	while (!is_over(&t.fill)) {
		struct cst_object_op *op;
		TAILQ_FOREACH (op, &store.ops, link)
			assert_true(op->get.length <= 8 * MIB && op->get.background);
		most = cst_max(most, store.count);
		if (store.count)
			answer(0);
	}
	assert_int_equal(wait_for(&t.fill), 0);
	assert_int_equal(most, 4);
	assert_int_equal(store.bytes, 60 * MIB + 100);
	assert_true(store.total <= 9);
	assert_int_equal(cache_count(&t.cache), 513);
	assert_int_equal(t.fill.fill.bytes_fetched, 60 * MIB + 100);
	assert_int_equal(t.fill.fill.bytes_saved, 60 * MIB + 100);
	assert_int_equal(t.cache.musts, t.cache.saves);
	/* Once more: nothing to do. */
	start(&t.fill, t.o, 0, UINT64_MAX);
	assert_int_equal(wait_for(&t.fill), 0);
	assert_int_equal(store.bytes, 60 * MIB + 100);
	finish(&t);
}

static void a_part_of_it(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 64 * MIB);
	start(&t.fill, t.o, 10 * MIB + 5, 100);
	answer_all();
	assert_int_equal(wait_for(&t.fill), 0);
	assert_int_equal(store.bytes, BLOCK);
	assert_true(t.cache.there[80]);
	start(&t.fill, t.o, 64 * MIB, 100);
	assert_int_equal(wait_for(&t.fill), 0);
	finish(&t);
}

/* What readers have brought into memory is saved from there. */
static void memory_is_not_fetched_again(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 16 * MIB);
	t.cache.refuse = true;
	read_now(t.s, 0, MIB);
	read_now(t.s, 8 * MIB, 3 * BLOCK);
	uint64_t before = store.bytes;
	assert_int_equal(before, MIB + 3 * BLOCK);
	start(&t.fill, t.o, 0, UINT64_MAX);
	while (!is_over(&t.fill))
		answer_all();
	assert_int_equal(wait_for(&t.fill), 0);
	assert_int_equal(store.bytes, 16 * MIB);
	assert_int_equal(t.fill.fill.bytes_fetched, 16 * MIB - before);
	assert_int_equal(t.fill.fill.bytes_saved, 16 * MIB);
	finish(&t);
}

/* A READ's range is not asked for a second time: the fill waits, and saves what the offer of the READ was not good for. */
static void waits_for_what_readers_ask_for(void **state)
{
	(void)state;
	struct setup t;
	struct reader r;
	begin(&t, 8 * MIB);
	t.cache.refuse = true;
	start_read(&r, t.s, 0, MIB);
	start(&t.fill, t.o, 0, UINT64_MAX);
	assert_int_equal(store.bytes, MIB);
	answer(0);
	assert_int_equal(r.rc, MIB);
	cst_fetch_read_release(&r.read);
	while (!is_over(&t.fill))
		answer_all();
	assert_int_equal(wait_for(&t.fill), 0);
	assert_int_equal(store.bytes, 8 * MIB);
	assert_int_equal(t.cache.bytes_saved, 8 * MIB);
	finish(&t);
}

/* Blocks that are readable while their GET goes on are offered by it as a whole: a fill leaves them alone until then. */
static void leaves_alone_what_is_still_coming(void **state)
{
	(void)state;
	struct setup t;
	struct reader r;
	begin(&t, 8 * MIB);
	start_read(&r, t.s, 0, 4096);
	progress(op_at(0), 5 * BLOCK);
	start(&t.fill, t.o, 0, MIB);
	assert_int_equal(t.cache.saves, 0);
	answer_all();
	assert_int_equal(wait_for(&t.fill), 0);
	assert_int_equal(t.cache.saves, 1);
	assert_int_equal(t.cache.bytes_saved, MIB);
	cst_fetch_read_release(&r.read);
	finish(&t);
}

/* And readers wait for a fill's range. */
static void readers_share_its_ranges(void **state)
{
	(void)state;
	struct setup t;
	struct reader r;
	begin(&t, 8 * MIB);
	start(&t.fill, t.o, 0, UINT64_MAX);
	assert_int_equal(store.total, 1);
	start_read(&r, t.s, 4 * MIB + 5, 4096);
	assert_int_equal(store.total, 1);
	progress(op_at(0), 5 * MIB);
	assert_int_equal(r.rc, 4096);
	cst_fetch_read_release(&r.read);
	answer_all();
	assert_int_equal(wait_for(&t.fill), 0);
	finish(&t);
}

static void cancelled(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 64 * MIB);
	cst_fetch_fill_cancel(&(struct cst_fetch_fill){0}); /* not started: nothing */
	start(&t.fill, t.o, 0, UINT64_MAX);
	assert_int_equal(store.count, 4);
	cst_fetch_fill_cancel(&t.fill.fill);
	cst_fetch_fill_cancel(&t.fill.fill);
	assert_int_equal(store.cancelled, 4);
	answer_all();
	assert_int_equal(wait_for(&t.fill), -ECANCELED);
	assert_int_equal(store.total, 4);
	cst_fetch_fill_cancel(&t.fill.fill);
	finish(&t);
}

/* Who waits for a block of a cancelled fill gets it. */
static void cancelled_under_a_reader(void **state)
{
	(void)state;
	struct setup t;
	struct reader a, b;
	begin(&t, 64 * MIB);
	start(&t.fill, t.o, 0, UINT64_MAX);
	start_read(&a, t.s, 10 * MIB + 5, 4096); /* in the second range, which goes on */
	cst_fetch_fill_cancel(&t.fill.fill);
	assert_int_equal(store.cancelled, 3);
	start_read(&b, t.s, 20 * MIB + 5, 4096); /* in the third, which is being cancelled */
	answer_all();
	assert_int_equal(wait_for(&t.fill), -ECANCELED);
	assert_int_equal(a.rc, 4096);
	assert_int_equal(b.rc, 4096);
	assert_int_equal(store.bytes, 32 * MIB + BLOCK);
	cst_fetch_read_release(&a.read);
	cst_fetch_read_release(&b.read);
	finish(&t);
}

static void failures(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 16 * MIB);
	/* the origin's */
	start(&t.fill, t.o, 0, UINT64_MAX);
	answer(-EACCES);
	answer_all();
	assert_int_equal(wait_for(&t.fill), -EACCES);
	assert_string_equal(t.fill.why, "told so");
	assert_int_equal(t.fill.fill.bytes_saved, 8 * MIB); /* what came is kept */
	/* the cache's: full */
	t.cache.save_rc = -ENOSPC;
	start(&t.fill, t.o, 0, UINT64_MAX);
	answer_all();
	assert_int_equal(wait_for(&t.fill), -ENOSPC);
	/* broken */
	t.cache.save_rc = -EIO;
	start(&t.fill, t.o, 0, UINT64_MAX);
	answer_all();
	assert_int_equal(wait_for(&t.fill), -EIO);
	/* not willing */
	t.cache.save_rc = 0;
	t.cache.refuse_all = true;
	start(&t.fill, t.o, 0, UINT64_MAX);
	answer_all();
	assert_int_equal(wait_for(&t.fill), -ENOSPC);
	t.cache.refuse_all = false;
	/* another version */
	cst_fetch_object_unref(t.o);
	cst_fetch_stream_free(t.s);
	t.o = object(t.f, 16 * MIB);
	t.s = cst_fetch_stream_new(t.o);
	cst_fetch_object_set_local(t.o, &t.cache.local);
	memset(t.cache.there, 0, sizeof(t.cache.there));
	strcpy(store.etag, "v2");
	start(&t.fill, t.o, 0, UINT64_MAX);
	answer_all();
	assert_int_equal(wait_for(&t.fill), -ESTALE);
	/* no cache at all */
	cst_fetch_object_set_local(t.o, NULL);
	start(&t.fill, t.o, 0, UINT64_MAX);
	assert_int_equal(wait_for(&t.fill), -ENOSPC);
	finish(&t);
}

/* A slow disk holds the fill up, and half of the memory at most. */
static void the_disk_sets_the_pace(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 200 * MIB);
	t.cache.manner = CACHE_LATER;
	start(&t.fill, t.o, 0, UINT64_MAX);
	while (!is_over(&t.fill)) {
		answer_all();
		struct cst_fetch_stats stats = stats_of(t.f);
		assert_true(stats.bytes_fetched - t.cache.bytes_saved <= 32 * MIB);
		cache_answer(&t.cache);
	}
	assert_int_equal(wait_for(&t.fill), 0);
	assert_int_equal(store.bytes, 200 * MIB);
	assert_int_equal(t.cache.bytes_saved, 200 * MIB);
	finish(&t);
}

/* While others read, fills go on slowly; while READs wait for memory, not at all. */
static void readers_come_first(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 200 * MIB);
	struct cst_fetch_object *others[64];
	struct cst_fetch_stream *s[64];
	static struct reader r[64];
	for (size_t i = 0; i < 64; i++) {
		others[i] = object(t.f, 200 * MIB);
		s[i] = cst_fetch_stream_new(others[i]);
	}
	start_read(&r[0], s[0], 100 * MIB, MIB);
	static struct filling fills[3];
	for (size_t i = 0; i < 3; i++)
		start(&fills[i], t.o, i * 64 * MIB, 48 * MIB);
	assert_int_equal(store.count, 1 + 4);
	for (size_t i = 1; i < 64; i++)
		start_read(&r[i], s[i], 100 * MIB, MIB);
	assert_int_equal(store.count, 4 + 32); /* the rest wait */
	answer_op(op_at(1), 0);		       /* a fill's: its memory goes to readers, no other of a fill follows */
	unsigned of_fills = 0;
	for (unsigned n = 0; op_at(n); n++)
		of_fills += op_at(n)->get.background;
	assert_int_equal(of_fills, 3);
	assert_int_equal(store.count, 3 + 40);
	for (size_t i = 0; i < 64; i++) {
		answer_all();
		assert_int_equal(r[i].rc, MIB);
		cst_fetch_read_release(&r[i].read);
	}
	for (size_t i = 0; i < 64; i++) {
		cst_fetch_stream_free(s[i]);
		cst_fetch_object_unref(others[i]);
	}
	for (size_t i = 0; i < 3; i++) {
		while (!is_over(&fills[i]))
			answer_all();
		assert_int_equal(wait_for(&fills[i]), 0);
	}
	assert_int_equal(t.cache.bytes_saved, 3 * 48 * MIB);
	finish(&t);
}

/* Several fills together: half of the memory; few while others read. */
static void many_fills_have_half(void **state)
{
	(void)state;
	struct setup t;
	static struct filling fills[3];
	begin(&t, 200 * MIB);
	for (size_t i = 0; i < 3; i++)
		start(&fills[i], t.o, i * 64 * MIB, 48 * MIB);
	assert_int_equal(store.count, 4);
	for (size_t i = 0; i < 3; i++) {
		while (!is_over(&fills[i]))
			answer_all();
		assert_int_equal(wait_for(&fills[i]), 0);
	}
	finish(&t);
	for (unsigned busy = 0; busy < 2; busy++) {
		struct reader r;
		t.f = make(512ull * MIB);
		t.o = object(t.f, 200 * MIB);
		cache_init(&t.cache, 200 * MIB);
		cst_fetch_object_set_local(t.o, &t.cache.local);
		t.s = cst_fetch_stream_new(t.o);
		if (busy)
			start_read(&r, t.s, 199 * MIB, 4096);
		for (size_t i = 0; i < 3; i++)
			start(&fills[i], t.o, i * 64 * MIB, 48 * MIB);
		assert_int_equal(store.count, busy ? 1 + 4 : 12);
		for (size_t i = 0; i < 3; i++) {
			while (!is_over(&fills[i]))
				answer_all();
			assert_int_equal(wait_for(&fills[i]), 0);
		}
		if (busy)
			cst_fetch_read_release(&r.read);
		finish(&t);
	}
}

static void small_objects_go_in_whole(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 200 * KIB);
	/* One of two blocks in memory: the other is fetched, both are saved at once (the cache checks). */
	struct reader r;
	t.cache.refuse = true;
	start(&t.fill, t.o, 0, UINT64_MAX);
	start_read(&r, t.s, 0, 200 * KIB);
	answer_all();
	assert_int_equal(wait_for(&t.fill), 0);
	assert_int_equal(r.rc, 200 * KIB);
	cst_fetch_read_release(&r.read);
	assert_int_equal(t.cache.saves, 1);
	assert_int_equal(store.bytes, 200 * KIB);
	/* And when its reader had brought it. */
	memset(t.cache.there, 0, sizeof(t.cache.there));
	start(&t.fill, t.o, 100 * KIB, 10);
	assert_int_equal(wait_for(&t.fill), 0);
	assert_int_equal(store.bytes, 200 * KIB);
	assert_int_equal(t.cache.saves, 2);
	finish(&t);
}

/* As a load does it: thousands of objects, some at a time, one GET and one save each. */
static void thousands_of_small_ones(void **state)
{
	(void)state;
	enum { OBJECTS = 3000, AT_A_TIME = 32 };
	struct cst_fetch *f = make(64 * MIB);
	static struct filling fills[AT_A_TIME];
	struct cache *caches = calloc(AT_A_TIME, sizeof(*caches));
	struct cst_fetch_object *o[AT_A_TIME];
	for (unsigned n = 0; n < OBJECTS + AT_A_TIME; n++) {
		unsigned i = n % AT_A_TIME;
		if (n >= AT_A_TIME) {
			while (!is_over(&fills[i]))
				answer_all();
			assert_int_equal(wait_for(&fills[i]), 0);
			assert_int_equal(caches[i].saves, 1);
			cst_fetch_object_unref(o[i]);
			while (__atomic_load_n(&caches[i].refs, __ATOMIC_ACQUIRE) > 1)
				sched_yield();
			cache_fini(&caches[i]);
		}
		if (n < OBJECTS) {
			o[i] = object(f, 100 * KIB);
			cache_init(&caches[i], 100 * KIB);
			cst_fetch_object_set_local(o[i], &caches[i].local);
			start(&fills[i], o[i], 0, UINT64_MAX);
		}
	}
	assert_int_equal(store.total, OBJECTS);
	cst_fetch_free(f);
	free(caches);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fills_what_is_missing),
		cmocka_unit_test(a_part_of_it),
		cmocka_unit_test(memory_is_not_fetched_again),
		cmocka_unit_test(waits_for_what_readers_ask_for),
		cmocka_unit_test(leaves_alone_what_is_still_coming),
		cmocka_unit_test(readers_share_its_ranges),
		cmocka_unit_test(cancelled),
		cmocka_unit_test(cancelled_under_a_reader),
		cmocka_unit_test(failures),
		cmocka_unit_test(the_disk_sets_the_pace),
		cmocka_unit_test(readers_come_first),
		cmocka_unit_test(many_fills_have_half),
		cmocka_unit_test(small_objects_go_in_whole),
		cmocka_unit_test(thousands_of_small_ones),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
