/* The cache below memory: what it has is read from there, what it lacks from the origin, and what came from there is offered to it. */
#include "double.h"

struct setup {
	struct cst_fetch *f;
	struct cst_fetch_object *o;
	struct cst_fetch_stream *s;
	struct cache cache;
};

static void begin_with(struct setup *t, struct cst_fetch_config config, uint64_t size)
{
	config.memory = config.memory ? config.memory : 64 * MIB;
	t->f = make_with(config);
	t->o = object(t->f, size);
	cache_init(&t->cache, size);
	cst_fetch_object_set_local(t->o, &t->cache.local);
	assert_int_equal(t->cache.refs, 2);
	t->s = cst_fetch_stream_new(t->o);
}

static void begin(struct setup *t, uint64_t size)
{
	begin_with(t, (struct cst_fetch_config){0}, size);
}

static void finish(struct setup *t)
{
	end(t->f, t->o, t->s);
	cache_fini(&t->cache);
}

static void what_is_there_is_not_asked_for(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 64 * MIB);
	cache_add(&t.cache, 0, 512);
	for (uint64_t at = 0; at < 64 * MIB; at += MIB)
		read_now(t.s, at, MIB);
	struct cst_fetch_stats stats = stats_of(t.f);
	assert_int_equal(store.total, 0);
	assert_int_equal(stats.bytes_local, 64 * MIB);
	assert_int_equal(stats.misses, 0);
	assert_true(stats.hits_local > 0 && stats.hits > stats.hits_local); /* it is read ahead from there, too */
	assert_int_equal(t.cache.saves, 0);
	finish(&t);
}

/* Stretches that the cache has and lacks, in one READ. */
static void runs_are_told_apart(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 64 * MIB);
	t.cache.manner = CACHE_LATER;
	cache_add(&t.cache, 80, 2);
	cache_add(&t.cache, 85, 1);
	struct reader r;
	start_read(&r, t.s, 10 * MIB, MIB);
	assert_int_equal(t.cache.reads, 2);
	assert_int_equal(store.total, 2);
	assert_int_equal(op_at(0)->get.offset, 82 * BLOCK);
	assert_int_equal(op_at(0)->get.length, 3 * BLOCK);
	assert_int_equal(op_at(1)->get.length, 2 * BLOCK);
	answer_all();
	assert_int_equal(r.calls, 0);
	/* Others wait for the same reads of the cache. */
	struct reader again;
	start_read(&again, t.s, 10 * MIB, 4096);
	assert_int_equal(t.cache.reads, 2);
	while (cache_answer(&t.cache))
		;
	assert_int_equal(r.rc, MIB);
	assert_int_equal(again.rc, 4096);
	cst_fetch_read_release(&r.read);
	cst_fetch_read_release(&again.read);
	assert_int_equal(t.cache.saves, 2); /* what came from the origin, no more */
	assert_int_equal(cache_count(&t.cache), 8);
	finish(&t);
}

/* Damaged on the disk: the origin is asked for the same blocks; the READ waits on and succeeds, and the cache gets them anew. */
static void a_failing_read_becomes_a_get(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 64 * MIB);
	t.cache.manner = CACHE_LATER;
	t.cache.read_rc = -EBADMSG;
	cache_add(&t.cache, 80, 8);
	struct reader a, b;
	start_read(&a, t.s, 10 * MIB, MIB);
	start_read(&b, t.s, 10 * MIB + 5 * BLOCK, 4096);
	assert_int_equal(store.total, 0);
	assert_true(cache_answer(&t.cache));
	assert_int_equal(a.calls + b.calls, 0);
	assert_int_equal(store.count, 1);
	assert_int_equal(op_at(0)->get.offset, 10 * MIB);
	assert_int_equal(op_at(0)->get.length, MIB);
	answer_all();
	assert_int_equal(a.rc, MIB);
	assert_int_equal(b.rc, 4096);
	struct cst_fetch_stats stats = stats_of(t.f);
	assert_int_equal(stats.local_failures, 1);
	assert_int_equal(stats.bytes_local, 0);
	cst_fetch_read_release(&a.read);
	cst_fetch_read_release(&b.read);
	assert_int_equal(cache_count(&t.cache), 0);
	assert_true(cache_answer(&t.cache)); /* the save */
	assert_int_equal(cache_count(&t.cache), 8);
	finish(&t);
}

/* What was read ahead from the cache and is waited for is no background GET when it has to come from the origin. */
static void a_failing_read_that_is_wanted_hurries(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 64 * MIB);
	store.limited = 1;
	t.cache.manner = CACHE_LATER;
	t.cache.read_rc = -EBADMSG;
	cache_add(&t.cache, 16, 496);
	read_now(t.s, 0, MIB);
	read_now(t.s, MIB, MIB);
	unsigned asked = store.total;
	struct reader a, b;
	start_read(&a, t.s, 2 * MIB, MIB);
	start_read(&b, t.s, 3 * MIB, MIB);
	struct cst_fetch_stats stats = stats_of(t.f);
	assert_true(stats.prefetched_ranges > 0);
	assert_int_equal(store.total, asked);
	while (cache_answer(&t.cache))
		;
	for (unsigned i = 0; op_at(i); i++) {
		const struct cst_object_op *op = op_at(i);
		bool wanted = op->get.offset < 4 * MIB;
		assert_true(wanted ? op->hurried || !op->get.background : op->get.background && !op->hurried);
	}
	answer_all();
	assert_int_equal(a.rc + b.rc, 2 * MIB);
	cst_fetch_read_release(&a.read);
	cst_fetch_read_release(&b.read);
	while (cache_answer(&t.cache))
		answer_all();
	finish(&t);
}

/* And when the origin fails too, its error is the READ's. */
static void both_fail(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 64 * MIB);
	t.cache.read_rc = -EIO;
	cache_add(&t.cache, 80, 1);
	struct reader r;
	start_read(&r, t.s, 10 * MIB, 4096);
	answer(-EACCES);
	assert_int_equal(r.rc, -EACCES);
	assert_string_equal(r.why, "told so");
	cst_fetch_read_release(&r.read);
	finish(&t);
}

/* Given up by all while the cache reads: nothing is asked for any more when that fails. */
static void nobody_wants_it_any_more(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 64 * MIB);
	t.cache.manner = CACHE_LATER;
	t.cache.read_rc = -EIO;
	cache_add(&t.cache, 80, 1);
	struct reader r;
	start_read(&r, t.s, 10 * MIB, 4096);
	cst_fetch_read_cancel(&r.read);
	assert_int_equal(r.rc, -EINTR);
	cst_fetch_read_release(&r.read);
	cst_fetch_stream_free(t.s);
	cst_fetch_object_unref(t.o);
	assert_true(cache_answer(&t.cache));
	assert_int_equal(store.total, 0);
	assert_int_equal(stats_of(t.f).memory_used, 0);
	cst_fetch_free(t.f);
	cache_fini(&t.cache);
}

/* The object has changed in the store: the cache's bytes of the old version are served on, what it lacks is ESTALE. */
static void stale_bytes_come_from_the_cache(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 64 * MIB);
	cache_add(&t.cache, 80, 1);
	strcpy(store.etag, "v2");
	struct reader a, b;
	start_read(&a, t.s, 40 * MIB, 4096);
	answer_all();
	assert_int_equal(a.rc, -ESTALE);
	read_now(t.s, 10 * MIB + 4096, 4096);
	start_read(&b, t.s, 10 * MIB + BLOCK - 4096, 8192); /* one block is there, the next is not */
	assert_int_equal(b.rc, -ESTALE);
	assert_int_equal(store.total, 1);
	cst_fetch_read_release(&a.read);
	cst_fetch_read_release(&b.read);
	assert_int_equal(t.cache.saves, 0);
	finish(&t);
}

static void what_comes_is_offered(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 16 * MIB + 777);
	for (uint64_t at = 0; at < 16 * MIB; at += MIB)
		read_now(t.s, at, MIB);
	read_now(t.s, 16 * MIB, 777);
	assert_int_equal(store.bytes, 16 * MIB + 777);
	assert_int_equal(t.cache.bytes_saved, 16 * MIB + 777);
	struct cst_fetch_stats stats = stats_of(t.f);
	assert_int_equal(stats.bytes_saved, 16 * MIB + 777);
	assert_int_equal(stats.bytes_offered, 16 * MIB + 777);
	assert_int_equal(t.cache.musts, 0);
	finish(&t);
}

/* Blocks in the cache's hands stay as they are, but READs go on, and no more than a quarter of the memory is ever there. What it is owed follows,
 * as far as it is still in memory. */
static void a_slow_disk_holds_a_quarter(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 200 * MIB);
	t.cache.manner = CACHE_LATER;
	for (uint64_t at = 0; at < 200 * MIB; at += MIB)
		read_now(t.s, at, MIB);
	struct cst_fetch_stats stats = stats_of(t.f);
	assert_int_equal(store.bytes, 200 * MIB);
	assert_in_range(stats.bytes_offered, 8 * MIB, 16 * MIB);
	assert_true(stats.memory_peak <= 64 * MIB);
	while (cache_answer(&t.cache)) { /* compares the bytes */
		stats = stats_of(t.f);
		assert_true(stats.bytes_offered - stats.bytes_saved <= 16 * MIB);
	}
	assert_int_equal(t.cache.bytes_saved, stats.bytes_offered);
	assert_true(t.cache.bytes_saved >= 48 * MIB);
	assert_int_equal(store.bytes, 200 * MIB);
	finish(&t);
}

/* Nothing of an object that fits into memory is lost to a slow disk, even when less of what was read is to be kept. */
static void what_is_owed_waits_in_memory(void **state)
{
	(void)state;
	struct setup t;
	begin_with(&t, (struct cst_fetch_config){.keep_read = 4 * MIB}, 60 * MIB);
	t.cache.manner = CACHE_LATER;
	for (uint64_t at = 0; at < 60 * MIB; at += MIB)
		read_now(t.s, at, MIB);
	while (cache_answer(&t.cache))
		;
	assert_int_equal(cache_count(&t.cache), 60 * 8);
	assert_int_equal(store.bytes, 60 * MIB);
	finish(&t);
}

/* Given up, stale or bound to no cache: what was owed is not offered any more, and its memory is free. */
static void nothing_is_owed_to_nobody(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 60 * MIB);
	t.cache.manner = CACHE_LATER;
	for (uint64_t at = 0; at < 60 * MIB; at += MIB)
		read_now(t.s, at, MIB);
	cst_fetch_object_set_local(t.o, NULL);
	while (cache_answer(&t.cache))
		;
	assert_int_equal(t.cache.bytes_saved, 16 * MIB);
	cst_fetch_object_set_local(t.o, &t.cache.local);
	read_now(t.s, 0, MIB);
	assert_false(cache_answer(&t.cache));
	finish(&t);

	begin(&t, 60 * MIB);
	t.cache.manner = CACHE_LATER;
	for (uint64_t at = 0; at < 60 * MIB; at += MIB)
		read_now(t.s, at, MIB);
	cst_fetch_stream_free(t.s);
	cst_fetch_object_unref(t.o);
	assert_int_equal(stats_of(t.f).memory_used, 16 * MIB);
	while (cache_answer(&t.cache))
		;
	assert_int_equal(t.cache.bytes_saved, 16 * MIB);
	assert_int_equal(stats_of(t.f).memory_used, 0);
	cst_fetch_free(t.f);
	cache_fini(&t.cache);
}

static void refused_offers_are_dropped(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 64 * MIB);
	t.cache.refuse = true;
	for (uint64_t at = 0; at < 64 * MIB; at += MIB)
		read_now(t.s, at, MIB);
	assert_true(t.cache.refused > 0);
	assert_int_equal(t.cache.saves, 0);
	assert_int_equal(stats_of(t.f).bytes_saved, 0);
	finish(&t);
}

static void a_failing_save_harms_nobody(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 4 * MIB);
	t.cache.save_rc = -ENOSPC;
	read_now(t.s, 0, MIB);
	read_now(t.s, 0, MIB);
	assert_int_equal(stats_of(t.f).bytes_saved, 0);
	finish(&t);
}

/* Read and given up while the cache still writes: the bytes stay until it has them. */
static void a_save_outlives_the_object(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, 1 * MIB);
	t.cache.manner = CACHE_LATER;
	read_now(t.s, 0, MIB);
	cst_fetch_stream_free(t.s);
	cst_fetch_object_unref(t.o);
	assert_int_equal(stats_of(t.f).memory_used, MIB);
	assert_true(cache_answer(&t.cache)); /* compares */
	assert_int_equal(stats_of(t.f).memory_used, 0);
	cst_fetch_free(t.f);
	assert_int_equal(t.cache.bytes_saved, MIB);
	cache_fini(&t.cache);
}

/* Objects that the cache takes only whole: in one call, when all is in memory. */
static void small_ones_are_offered_whole(void **state)
{
	(void)state;
	struct setup t;
	begin(&t, CST_FETCH_WHOLE - 100);
	read_now(t.s, 200 * KIB, 4096);
	assert_int_equal(store.total, 1);
	assert_int_equal(t.cache.saves, 1);
	assert_int_equal(t.cache.bytes_saved, CST_FETCH_WHOLE - 100);
	read_now(t.s, 0, 4096);
	assert_int_equal(t.cache.saves, 1);
	finish(&t);
}

static void without_saving(void **state)
{
	(void)state;
	struct setup t;
	begin_with(&t, (struct cst_fetch_config){.no_save = true}, 8 * MIB);
	cache_add(&t.cache, 0, 8);
	read_now(t.s, 0, MIB);
	assert_int_equal(store.total, 0); /* what is there is used */
	for (uint64_t at = MIB; at < 8 * MIB; at += MIB)
		read_now(t.s, at, MIB);
	assert_int_equal(store.bytes, 7 * MIB);
	assert_int_equal(t.cache.saves, 0);
	finish(&t);
}

/* Bound to another, or to nothing, between reads; each is let go of. */
static void the_binding_changes(void **state)
{
	(void)state;
	struct setup t;
	struct cache other;
	begin(&t, 64 * MIB);
	cache_init(&other, 64 * MIB);
	t.cache.manner = CACHE_LATER;
	read_now(t.s, 10 * MIB, BLOCK);
	cst_fetch_object_set_local(t.o, &other.local);
	assert_int_equal(t.cache.refs, 2); /* what it has in hand */
	read_now(t.s, 20 * MIB, BLOCK);
	assert_int_equal(other.saves, 1);
	cst_fetch_object_set_local(t.o, NULL);
	read_now(t.s, 30 * MIB, BLOCK);
	assert_int_equal(other.saves, 1);
	assert_true(cache_answer(&t.cache));
	assert_int_equal(t.cache.refs, 1);
	cache_fini(&other);
	finish(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_there_is_not_asked_for),
		cmocka_unit_test(runs_are_told_apart),
		cmocka_unit_test(a_failing_read_becomes_a_get),
		cmocka_unit_test(a_failing_read_that_is_wanted_hurries),
		cmocka_unit_test(both_fail),
		cmocka_unit_test(nobody_wants_it_any_more),
		cmocka_unit_test(stale_bytes_come_from_the_cache),
		cmocka_unit_test(what_comes_is_offered),
		cmocka_unit_test(a_slow_disk_holds_a_quarter),
		cmocka_unit_test(what_is_owed_waits_in_memory),
		cmocka_unit_test(nothing_is_owed_to_nobody),
		cmocka_unit_test(refused_offers_are_dropped),
		cmocka_unit_test(a_failing_save_harms_nobody),
		cmocka_unit_test(a_save_outlives_the_object),
		cmocka_unit_test(small_ones_are_offered_whole),
		cmocka_unit_test(without_saving),
		cmocka_unit_test(the_binding_changes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
