/* Reads: memory, single flight, fairness, versions, errors. */
#include "double.h"

static void small_object_is_one_request(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64 * MIB);
	struct cst_fetch_object *o = object(f, 100 << 10);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	struct reader a, b, c;
	start_read(&a, s, 0, 4096);
	start_read(&b, s, 4096, 65536);
	assert_int_equal(store.total, 1);
	assert_int_equal(store.bytes, 100 << 10);
	answer(0);
	assert_int_equal(a.rc, 4096);
	assert_int_equal(b.rc, 65536);
	start_read(&c, s, 90 << 10, MIB); /* clipped, from memory */
	assert_int_equal(c.rc, 10 << 10);
	assert_int_equal(store.total, 1);
	struct reader beyond;
	start_read(&beyond, s, 200 << 10, 10);
	assert_int_equal(beyond.rc, 0);
	struct reader *all[] = {&a, &b, &c, &beyond};
	for (size_t i = 0; i < CST_ARRAY_LEN(all); i++) {
		assert_int_equal(all[i]->calls, 1);
		cst_fetch_read_release(&all[i]->read);
	}
	end(f, o, s);
}

static void random_reads_stay_small(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64 * MIB);
	struct cst_fetch_object *o = object(f, 1024ull * MIB);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	uint64_t place = 12345;
	for (int i = 0; i < 50; i++) {
		struct reader r;
		uint64_t before = store.bytes;
		place = place * 6364136223846793005u + 1442695040888963407u;
		start_read(&r, s, (place >> 33) % (1023ull * MIB) & ~4095ull, 4096);
		assert_true(store.bytes - before <= 128 << 10);
		answer_all();
		assert_int_equal(r.rc, 4096);
		cst_fetch_read_release(&r.read);
	}
	end(f, o, s);
}

/* Reads 160 MiB in sequence: few requests, nothing fetched twice, the budget holds. */
static void sequential(void **state)
{
	(void)state;
	const uint64_t size = 160ull * MIB;
	struct cst_fetch *f = make(64 * MIB);
	struct cst_fetch_object *o = object(f, size);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	unsigned most_at_once = 0;
	for (uint64_t offset = 0; offset < size; offset += MIB) {
		struct reader r;
		start_read(&r, s, offset, MIB);
		most_at_once = cst_max(most_at_once, store.count);
		answer_all();
		assert_int_equal(r.rc, MIB);
		cst_fetch_read_release(&r.read);
	}
	assert_int_equal(store.bytes, size);
	assert_true(store.total <= 160 / 8 + 24);
	assert_true(most_at_once >= 3);
	struct cst_fetch_stats stats;
	cst_fetch_stats(f, &stats);
	assert_true(stats.memory_peak <= 64 * MIB);
	assert_int_equal(stats.bytes_read, size);
	end(f, o, s);
}

/* Ranges that take long, as over a thin line, keep the window small: what a reader waits for shares the line with little else. */
static void slow_ranges_keep_the_window_small(void **state)
{
	(void)state;
	struct cst_fetch *f = make_with((struct cst_fetch_config){.memory = 256 * MIB, .calm_range = 1});
	struct cst_fetch_object *o = object(f, 256ull * MIB);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	for (uint64_t offset = 0; offset < 48ull * MIB; offset += MIB) {
		struct reader r;
		uint64_t before = store.bytes;
		start_read(&r, s, offset, MIB);
		assert_true(store.bytes - before <= 6 * MIB);
		answer_all();
		assert_int_equal(r.rc, MIB);
		cst_fetch_read_release(&r.read);
	}
	end(f, o, s);
}

/* Reads a stretch in sequence; returns how many GETs were under way at most. */
static unsigned read_stretch(struct cst_fetch_stream *s, uint64_t offset, unsigned mib)
{
	unsigned most = 0;
	for (unsigned i = 0; i < mib; i++, offset += MIB) {
		struct reader r;
		start_read(&r, s, offset, MIB);
		most = cst_max(most, store.count);
		answer_all();
		assert_int_equal(r.rc, MIB);
		cst_fetch_read_release(&r.read);
	}
	return most;
}

/* Files read in part leave windows behind that nobody will read: they must not end prefetching for all others. */
static void windows_left_behind_are_given_up(void **state)
{
	(void)state;
	enum { FILES = 5 };
	struct cst_fetch *f = make(64 * MIB);
	struct cst_fetch_object *o[FILES];
	for (unsigned i = 0; i < FILES; i++) {
		char key[8];
		snprintf(key, sizeof(key), "k%u", i);
		store.size = 256ull * MIB;
		o[i] = cst_fetch_object_new(f, cst_slice_of(key), "v1", store.size);
		struct cst_fetch_stream *s = cst_fetch_stream_new(o[i]);
		assert_true(read_stretch(s, 0, 12) >= 3);
		cst_fetch_stream_free(s); /* closed; the object lives on */
	}
	/* One handle that seeks about. */
	struct cst_fetch_stream *s = cst_fetch_stream_new(o[0]);
	for (unsigned i = 0; i < 5; i++)
		assert_true(read_stretch(s, (i * 7 % 12) * 20ull * MIB, 12) >= 3);
	cst_fetch_stream_free(s);
	for (unsigned i = 0; i < FILES; i++)
		cst_fetch_object_unref(o[i]);
	cst_fetch_free(f);
}

/* Nor may the windows of readers that pause; one that goes on has its window filled again. */
static void paused_readers_leave_room(void **state)
{
	(void)state;
	enum { READERS = 5 };
	struct cst_fetch *f = make_with((struct cst_fetch_config){.memory = 64 * MIB, .keep_unread = 1});
	struct cst_fetch_object *o[READERS];
	struct cst_fetch_stream *s[READERS];
	for (unsigned i = 0; i < READERS; i++) {
		char key[8];
		snprintf(key, sizeof(key), "k%u", i);
		store.size = 256ull * MIB;
		o[i] = cst_fetch_object_new(f, cst_slice_of(key), "v1", store.size);
		s[i] = cst_fetch_stream_new(o[i]);
		assert_true(read_stretch(s[i], 0, 12) >= 3);
	}
	assert_true(read_stretch(s[0], 12 * MIB, 6) >= 2);
	for (unsigned i = 0; i < READERS; i++) {
		cst_fetch_stream_free(s[i]);
		cst_fetch_object_unref(o[i]);
	}
	cst_fetch_free(f);
}

/* READs swapped by two reader threads are still one sequence. */
static void swapped_reads_are_sequential(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64 * MIB);
	struct cst_fetch_object *o = object(f, 128ull * MIB);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	for (uint64_t i = 0; i < 128; i += 2) {
		struct reader a, b;
		start_read(&a, s, (i + 1) * MIB, MIB);
		start_read(&b, s, i * MIB, MIB);
		answer_all();
		assert_int_equal(a.rc, MIB);
		assert_int_equal(b.rc, MIB);
		cst_fetch_read_release(&a.read);
		cst_fetch_read_release(&b.read);
	}
	assert_true(store.total <= 128 / 8 + 24);
	end(f, o, s);
}

/* An object that the store stalls, with ever so many readers, leaves a quarter of the memory to others. */
static void stalled_objects_leave_some(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64 * MIB);
	struct cst_fetch_object *stalled = object(f, 1024ull * MIB), *good = object(f, 1024ull * MIB);
	struct cst_fetch_stream *s = cst_fetch_stream_new(stalled), *t = cst_fetch_stream_new(good);
	static struct reader r[100], other;
	for (size_t i = 0; i < 100; i++)
		start_read(&r[i], s, i * 10 * MIB, MIB);
	unsigned before = store.count;
	assert_in_range(before, 48, 49);
	start_read(&other, t, 4 * MIB, MIB); /* passes those in the queue */
	assert_int_equal(store.count, before + 1);
	for (size_t i = 0; i < 100; i++) {
		answer_all();
		assert_int_equal(r[i].rc, MIB);
		cst_fetch_read_release(&r[i].read);
	}
	assert_int_equal(other.rc, MIB);
	cst_fetch_read_release(&other.read);
	cst_fetch_stream_free(t);
	cst_fetch_object_unref(good);
	end(f, stalled, s);
}

static void budget_is_hard_and_fair(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64 * MIB);
	struct cst_fetch_object *o[100];
	static struct reader r[100];
	struct cst_fetch_stream *s[100];
	/* Readers of 100 objects each want 1 MiB; 64 fit. */
	for (size_t i = 0; i < 100; i++) {
		o[i] = object(f, 1024ull * MIB);
		s[i] = cst_fetch_stream_new(o[i]);
		start_read(&r[i], s[i], i * 10 * MIB, MIB);
	}
	struct cst_fetch_stats stats;
	cst_fetch_stats(f, &stats);
	assert_int_equal(stats.memory_used, 64 * MIB);
	assert_int_equal(stats.reads_waiting, 36);
	assert_int_equal(store.count, 64);
	/* What is done but not released still holds its memory. */
	answer_all();
	assert_int_equal(r[63].calls, 1);
	assert_int_equal(r[64].calls, 0);
	/* First come, first served. */
	cst_fetch_read_release(&r[10].read);
	assert_int_equal(store.count, 1);
	answer_all();
	assert_int_equal(r[64].calls, 1);
	assert_int_equal(r[65].calls, 0);
	cst_fetch_read_cancel(&r[65].read);
	assert_int_equal(r[65].rc, -EINTR);
	for (size_t i = 0; i < 100; i++)
		if (i != 10) {
			answer_all();
			assert_int_equal(r[i].calls, 1);
			cst_fetch_read_release(&r[i].read);
		}
	cst_fetch_stats(f, &stats);
	assert_true(stats.memory_peak <= 64 * MIB);
	for (size_t i = 0; i < 100; i++) {
		cst_fetch_stream_free(s[i]);
		if (i > 0)
			cst_fetch_object_unref(o[i]);
	}
	end(f, o[0], NULL);
}

/* 64 readers whose GETs never come back leave a 65th its own. */
static void stalled_readers_stop_nobody(void **state)
{
	(void)state;
	struct cst_fetch *f = make(512ull * MIB);
	struct cst_fetch_object *o[65];
	struct cst_fetch_stream *s[65];
	static struct reader first[65], second[65];
	store.size = 100 * MIB;
	for (size_t i = 0; i < 65; i++) {
		char key[8];
		snprintf(key, sizeof(key), "k%zu", i);
		o[i] = cst_fetch_object_new(f, cst_slice_of(key), "v1", store.size);
		s[i] = cst_fetch_stream_new(o[i]);
		start_read(&first[i], s[i], 0, MIB);
		start_read(&second[i], s[i], MIB, MIB);
	}
	struct cst_object_op *op, *next;
	for (op = TAILQ_FIRST(&store.ops); op; op = next) {
		next = TAILQ_NEXT(op, link);
		if (strcmp(op->key, "k64") == 0)
			answer_op(op, 0);
	}
	assert_int_equal(first[64].rc, MIB);
	assert_int_equal(second[64].rc, MIB);
	assert_int_equal(first[0].calls, 0);
	answer_all();
	for (size_t i = 0; i < 65; i++) {
		cst_fetch_read_release(&first[i].read);
		cst_fetch_read_release(&second[i].read);
		cst_fetch_stream_free(s[i]);
		cst_fetch_object_unref(o[i]);
	}
	answer_all();
	cst_fetch_free(f);
}

static void changed_object_is_stale(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64 * MIB);
	struct cst_fetch_object *o = object(f, 64 * MIB);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	struct reader a, b, c, d;
	start_read(&a, s, 0, MIB);
	answer(0);
	assert_int_equal(a.rc, MIB);
	cst_fetch_read_release(&a.read);
	strcpy(store.etag, "v2");
	start_read(&b, s, 32 * MIB, 4096);
	answer_all();
	assert_int_equal(b.rc, -ESTALE);
	assert_true(cst_fetch_object_is_stale(o));
	cst_fetch_read_release(&b.read);
	/* Cached bytes are served on, uncached ones fail without a request. */
	unsigned before = store.total;
	start_read(&c, s, 4096, 4096);
	assert_int_equal(c.rc, 4096);
	start_read(&d, s, 40 * MIB, 4096);
	assert_int_equal(d.rc, -ESTALE);
	assert_string_not_equal(d.why, "");
	assert_int_equal(store.total, before);
	cst_fetch_read_release(&c.read);
	cst_fetch_read_release(&d.read);
	end(f, o, s);
}

/* A store that looks at the range before the condition. */
static void shrunk_object_is_stale(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64 * MIB);
	struct cst_fetch_object *o = object(f, 64 * MIB);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	struct reader a;
	start_read(&a, s, 32 * MIB, 4096);
	answer(-ERANGE);
	assert_int_equal(a.rc, -ESTALE);
	assert_int_equal(a.code, ESTALE);
	assert_true(cst_fetch_object_is_stale(o));
	cst_fetch_read_release(&a.read);
	end(f, o, s);
}

/* A store that ignores If-Match must not slip other bytes in: size, ETag and length of the answer are compared. */
static void unknown_etag_is_adopted_once(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64 * MIB);
	store.size = 10 * MIB;
	struct cst_fetch_object *o = cst_fetch_object_new(f, CST_SLICE("key"), "", store.size);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	struct reader a, b;
	start_read(&a, s, 5 * MIB, 4096);
	start_read(&b, s, 8 * MIB, 4096); /* both without If-Match */
	answer(0);
	assert_int_equal(a.rc, 4096);
	strcpy(store.etag, "v2");
	answer(0);
	assert_int_equal(b.rc, -ESTALE);
	cst_fetch_read_release(&a.read);
	cst_fetch_read_release(&b.read);
	end(f, o, s);
}

/* Without ETags Last-Modified tells. */
static void no_etag_but_a_time(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64 * MIB);
	store.size = 10 * MIB;
	store.etag[0] = 0;
	store.mtime = 1000;
	struct cst_fetch_object *o = cst_fetch_object_new(f, CST_SLICE("key"), "", store.size);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	struct reader a, b, c;
	start_read(&a, s, 5 * MIB, 4096);
	answer(0);
	assert_int_equal(a.rc, 4096);
	start_read(&b, s, 8 * MIB, 4096);
	answer(0);
	assert_int_equal(b.rc, 4096);
	store.mtime = 1001;
	start_read(&c, s, 2 * MIB, 4096);
	answer(0);
	assert_int_equal(c.rc, -ESTALE);
	cst_fetch_read_release(&a.read);
	cst_fetch_read_release(&b.read);
	cst_fetch_read_release(&c.read);
	end(f, o, s);
}

static void errors_reach_all_waiters(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64 * MIB);
	struct cst_fetch_object *o = object(f, 4 * MIB);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	struct reader a, b, c;
	start_read(&a, s, 0, 4096);
	start_read(&b, s, 4096, MIB); /* one block from a's range, the rest from its own */
	assert_true(store.count >= 2);
	answer(-EACCES);
	assert_int_equal(a.rc, -EACCES);
	assert_int_equal(b.rc, -EACCES);
	assert_string_equal(a.why, "told so");
	cst_fetch_read_release(&a.read);
	cst_fetch_read_release(&b.read);
	answer_all();
	/* Failed blocks are not kept: the next read asks again. */
	unsigned before = store.total;
	start_read(&c, s, 0, 4096);
	assert_int_equal(store.total, before + 1);
	answer_all();
	assert_int_equal(c.rc, 4096);
	cst_fetch_read_release(&c.read);
	end(f, o, s);
}

static void cancel_leaves_others(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64 * MIB);
	struct cst_fetch_object *o = object(f, 4 * MIB);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	struct reader a, b;
	start_read(&a, s, 0, 4096);
	start_read(&b, s, 0, 4096);
	assert_int_equal(store.total, 1);
	cst_fetch_read_cancel(&a.read);
	assert_int_equal(a.rc, -EINTR);
	cst_fetch_read_cancel(&a.read); /* harmless again */
	assert_int_equal(a.calls, 1);
	cst_fetch_read_release(&a.read);
	answer(0);
	assert_int_equal(b.rc, 4096);
	cst_fetch_read_release(&b.read);
	end(f, o, s);
}

static void memory_floor(void **state)
{
	(void)state;
	struct cst_fetch_config config = {.memory = 63 * MIB};
	struct cst_error err = CST_ERROR_INIT;
	assert_null(cst_fetch_new(&config, &err));
	assert_int_equal(err.code, EINVAL);
	assert_non_null(strstr(err.hint, "64MiB"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_object_is_one_request),
		cmocka_unit_test(random_reads_stay_small),
		cmocka_unit_test(sequential),
		cmocka_unit_test(slow_ranges_keep_the_window_small),
		cmocka_unit_test(windows_left_behind_are_given_up),
		cmocka_unit_test(paused_readers_leave_room),
		cmocka_unit_test(swapped_reads_are_sequential),
		cmocka_unit_test(stalled_objects_leave_some),
		cmocka_unit_test(budget_is_hard_and_fair),
		cmocka_unit_test(stalled_readers_stop_nobody),
		cmocka_unit_test(changed_object_is_stale),
		cmocka_unit_test(shrunk_object_is_stale),
		cmocka_unit_test(unknown_etag_is_adopted_once),
		cmocka_unit_test(no_etag_but_a_time),
		cmocka_unit_test(errors_reach_all_waiters),
		cmocka_unit_test(cancel_leaves_others),
		cmocka_unit_test(memory_floor),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
