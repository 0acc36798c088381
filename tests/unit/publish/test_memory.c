/* The budget: it is never exceeded, nobody holds all of it, and however many write, all get on. */
#include "double.h"

#include "base/clock.h"

#include <unistd.h>

static int setup_oss(void **state)
{
	(void)state;
	keep_dir_make();
	store_reset(false);
	return 0;
}

static int setup_s3(void **state)
{
	(void)state;
	keep_dir_make();
	store_reset(true);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	assert_int_equal(store.open_uploads, 0);
	store_fini();
	keep_dir_remove();
	return 0;
}

static struct cst_publish_stats stats_of(struct cst_publish *p)
{
	struct cst_publish_stats stats;
	cst_publish_stats(p, &stats);
	assert_true(stats.memory_used <= stats.memory_limit && stats.memory_peak <= stats.memory_limit);
	return stats;
}

static void fill_pattern(char *data, uint64_t offset, size_t len)
{
	for (size_t i = 0; i < len; i++)
		data[i] = (char)pattern(offset + i);
}

/* A store that answers nothing: the writer stops at its share, and another one still gets in. */
static void test_share(void **state)
{
	(void)state;
	struct cst_publish *p = make((struct cst_publish_config){.memory = 16 * MIB_, .part_size = 8 * MIB_});
	struct cst_publish_stream *s = open_new(p, "k"), *t = open_new(p, "l");
	struct writer w[20], other;
	struct syncer y;
	CST_AUTO_FREE char *data = cst_xmalloc(20 * MIB_);
	fill_pattern(data, 0, 20 * MIB_);
	unsigned taken = 0;
	for (unsigned i = 0; i < 20; i++) {
		start_write(&w[i], s, (uint64_t)i * MIB_, data + i * MIB_, MIB_);
		taken += w[i].done.calls;
	}
	assert_int_equal(taken, 14); /* seven eighths */
	start_write(&other, t, 0, data, MIB_);
	assert_int_equal(other.done.calls, 1);
	assert_int_equal(stats_of(p).writes_waiting, 1);
	assert_int_equal(stats_of(p).bytes_spilled, 0);
	/* Withdrawn, from the end. */
	for (unsigned i = 19; i >= 16; i--)
		assert_true(cst_publish_write_leave(&w[i].write));
	assert_false(cst_publish_write_leave(&w[0].write));
	answer_all();
	assert_int_equal(w[15].done.calls, 1);
	assert_int_equal(sync_now(s, &y), 0);
	assert_int_equal(sync_now(t, &y), 0);
	expect_object("k", 16 * MIB_);
	expect_object("l", MIB_);
	cst_publish_stream_close(s, false);
	cst_publish_stream_close(t, false);
	cst_publish_free(p);
}

/* A program with many files open, which writes to each in turn and closes none: what is too small for a part waits on the disk. */
static void many(unsigned count, uint64_t memory, uint64_t part, size_t piece, unsigned rounds)
{
	struct cst_publish *p = make((struct cst_publish_config){.memory = memory, .part_size = part});
	struct cst_publish_stream **s = cst_xcalloc(count, sizeof(struct cst_publish_stream *));
	CST_AUTO_FREE char *bytes = cst_xmalloc((size_t)rounds * piece);
	struct syncer y;
	fill_pattern(bytes, 0, (size_t)rounds * piece);
	store.at_once = false;
	for (unsigned i = 0; i < count; i++)
		s[i] = open_new(p, "k");
	for (unsigned round = 0; round < rounds; round++)
		for (unsigned i = 0; i < count; i++)
			write_now(s[i], round * piece, piece, 0);
	struct cst_publish_stats stats = stats_of(p);
	assert_true(stats.bytes_pending == (uint64_t)count * rounds * piece);
	assert_true(stats.bytes_pending < memory || stats.bytes_spilled + stats.bytes_sent > 0);
	if (store.s3)
		assert_true(stats.bytes_spilled > 0); /* parts of 5 MiB are more than each has */
	for (unsigned i = 0; i < count; i++) {
		struct cst_publish_base none = {0};
		/* All of the same name: the one before is forgotten. */
		other_delete("k");
		(void)none;
		assert_int_equal(sync_now(s[i], &y), 0);
		const struct model_object *o = object_of("k");
		assert_true(o && o->size == rounds * piece && memcmp(o->data, bytes, o->size) == 0);
		cst_publish_stream_close(s[i], false);
	}
	free(s);
	cst_publish_free(p);
}

static void test_500_halves(void **state)
{
	(void)state;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
	many(100, 16 * MIB_, 8 * MIB_, 256 * KIB, 6); /* the same, smaller: it would take minutes */
#else
	many(500, 64 * MIB_, 8 * MIB_, 256 * KIB, 8);
#endif
}

static void test_two_parts_only(void **state)
{
	(void)state;
	many(60, 16 * MIB_, 8 * MIB_, 300 * KIB + 17, 5);
}

/* Pieces far smaller than a block. */
static void test_crumbs(void **state)
{
	(void)state;
	many(300, 16 * MIB_, 8 * MIB_, 4000, 30);
}

/* The same with answers that come from elsewhere, and all at once. */
struct worker {
	pthread_t thread;
	struct cst_publish *publish;
	char key[16];
	unsigned number;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct cst_publish_stream *s = open_new(w->publish, w->key);
	struct syncer y;
	uint64_t size = 0;
	for (unsigned i = 0; i < 12; i++) {
		write_now(s, size, 200 * KIB + w->number * 7919, 0);
		size += 200 * KIB + w->number * 7919;
		if (i % 5 == w->number % 5)
			CST_ASSERT(sync_now(s, &y) == 0);
	}
	CST_ASSERT(sync_now(s, &y) == 0);
	pthread_mutex_lock(&store.lock);
	expect_object(w->key, size);
	pthread_mutex_unlock(&store.lock);
	cst_publish_stream_close(s, false);
	return NULL;
}

static void test_crowd(void **state)
{
	(void)state;
	struct cst_publish *p = make((struct cst_publish_config){
		.memory = 2 * 6 * MIB_, .part_size = 6 * MIB_, .parallel = 5, .stream_parallel = 2});
	struct worker workers[14];
	store_threads(4);
	for (unsigned i = 0; i < CST_ARRAY_LEN(workers); i++) {
		workers[i] = (struct worker){.publish = p, .number = i};
		snprintf(workers[i].key, sizeof(workers[i].key), "k%u", i);
		pthread_create(&workers[i].thread, NULL, work, &workers[i]);
	}
	for (unsigned i = 0; i < CST_ARRAY_LEN(workers); i++)
		pthread_join(workers[i].thread, NULL);
	stats_of(p);
	cst_publish_free(p);
	store_stop_threads();
}

/* Given up with everything under way. */
static void test_abandoned(void **state)
{
	(void)state;
	struct cst_publish *p = make((struct cst_publish_config){.memory = 24 * MIB_, .part_size = 6 * MIB_});
	struct cst_publish_stream *s[5];
	char key[8];
	store_threads(3);
	for (unsigned i = 0; i < CST_ARRAY_LEN(s); i++) {
		snprintf(key, sizeof(key), "k%u", i);
		s[i] = open_new(p, key);
		write_now(s[i], 0, 6 * MIB_ + i, 0);
		write_now(s[i], 6 * MIB_ + i, 3 * MIB_, 0);
	}
	for (unsigned i = 0; i < CST_ARRAY_LEN(s); i++)
		cst_publish_stream_close(s[i], false);
	cst_publish_free(p);
	store_stop_threads();
	for (unsigned i = 0; i < CST_ARRAY_LEN(s); i++) {
		snprintf(key, sizeof(key), "k%u", i);
		assert_null(object_of(key));
	}
}

/* Nowhere to go: an error, and nothing that hangs; what was taken is not lost. */
static void test_no_room(void **state)
{
	(void)state;
	keep_dir_remove();
	struct cst_publish *p = make((struct cst_publish_config){.memory = 12 * MIB_, .part_size = 6 * MIB_});
	struct cst_publish_stream *s[12];
	uint64_t size[12] = {0};
	struct syncer y;
	unsigned refused = 0;
	char key[8];
	for (unsigned i = 0; i < 12; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		s[i] = open_new(p, key);
	}
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < 12; i++) {
			CST_AUTO_FREE char *data = cst_xmalloc(MIB_);
			struct writer w;
			fill_pattern(data, size[i], MIB_);
			start_write(&w, s[i], size[i], data, MIB_);
			answer_all();
			assert_int_equal(w.done.calls, 1);
			refused += w.done.rc < 0;
			if (w.done.rc < 0)
				assert_int_equal(w.done.rc, -ENOBUFS);
			else
				size[i] += MIB_;
		}
	}
	assert_true(refused > 0);
	for (unsigned i = 0; i < 12; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		assert_int_equal(sync_now(s[i], &y), 0);
		if (size[i])
			expect_object(key, size[i]);
		cst_publish_stream_close(s[i], false);
	}
	cst_publish_free(p);
	keep_dir_make();
}

/* The front of a small object that was written is given up when memory is wanted, and read when it is needed. */
static void test_retained(void **state)
{
	(void)state;
	struct cst_publish *p = make((struct cst_publish_config){.memory = 12 * MIB_, .part_size = 6 * MIB_});
	struct cst_publish_stream *s = open_new(p, "k"), *t = open_new(p, "l"), *u = open_new(p, "m");
	struct syncer y;
	write_now(s, 0, 4 * MIB_, 0);
	assert_int_equal(sync_now(s, &y), 0);
	assert_int_equal(stats_of(p).memory_used, 4 * MIB_);
	write_now(t, 0, 5 * MIB_ - 1, 0);
	write_now(u, 0, 5 * MIB_ - 1, 0);
	assert_int_equal(stats_of(p).bytes_spilled, 0);
	assert_int_equal(stats_of(p).memory_used, 10 * MIB_);
	assert_int_equal(sync_now(t, &y), 0);
	cst_publish_stream_close(t, false);
	cst_publish_stream_close(u, false);
	write_now(s, 4 * MIB_, 10, 0);
	assert_int_equal(ops_of(OP_GET), 1);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", 4 * MIB_ + 10);
	cst_publish_stream_close(s, false);
	cst_publish_free(p);
}

/* One that stands in the line for requests, gets on by its own answers, and is closed while it stands there still. */
static void test_hungry_closed(void **state)
{
	(void)state;
	const uint64_t part = 6 * MIB_;
	struct cst_publish *p = make((struct cst_publish_config){
		.memory = 64 * MIB_, .part_size = part, .parallel = 2, .stream_parallel = 4});
	struct cst_publish_stream *s = open_new(p, "s"), *t = open_new(p, "t"), *u = open_new(p, "u");
	struct syncer y;
	CST_AUTO_FREE char *data = cst_xmalloc(2 * part);
	struct writer w[4];
	fill_pattern(data, 0, 2 * part);
	start_write(&w[0], u, 0, data, part + 1);
	answer(OP_BEGIN); /* one request is its part */
	start_write(&w[1], s, 0, data, part + 1);
	answer_op(find_op(OP_BEGIN), FAULT_NONE); /* the other one is s's first */
	start_write(&w[2], t, 0, data, 2 * part);
	answer_op(find_op(OP_BEGIN), FAULT_NONE);		    /* so t stands in the line */
	start_write(&w[3], s, part + 1, data + part + 1, part - 1); /* and s behind it */
	for (int i = 0; i < 2; i++) {				    /* s's two parts, and then it waits for nothing */
		struct cst_object_op *op = nth_op(99);
		assert_int_equal(op->kind, OP_PART);
		assert_string_equal(op->key, "s");
		answer_op(op, FAULT_NONE);
	}
	start_sync(&y, s);
	answer_op(find_op(OP_COMPLETE), FAULT_NONE);
	assert_int_equal(y.done.rc, 0);
	cst_publish_stream_close(s, false);
	answer_all();
	assert_int_equal(sync_now(t, &y), 0);
	assert_int_equal(sync_now(u, &y), 0);
	expect_object("s", 2 * part);
	expect_object("t", 2 * part);
	expect_object("u", part + 1);
	cst_publish_stream_close(t, false);
	cst_publish_stream_close(u, false);
	cst_publish_free(p);
}

/* All of them close at once, each with some bytes in memory and some on the disk: they don't wait for one another's. */
static void test_all_at_once(void **state)
{
	(void)state;
	enum { COUNT = 14 };
	struct cst_publish *p = make((struct cst_publish_config){.memory = 12 * MIB_, .part_size = 6 * MIB_});
	struct cst_publish_stream *s[COUNT], *first = open_new(p, "x"), *filler = open_new(p, "y");
	struct syncer y[COUNT], of_first, z;
	char key[8];
	for (unsigned i = 0; i < COUNT; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		s[i] = open_new(p, key);
	}
	for (unsigned round = 0; round < 10; round++)
		for (unsigned i = round < 2 ? 0 : 1; i < COUNT; i++) /* the first one is small */
			write_now(s[i], round * 512 * KIB, 512 * KIB, 0);
	write_now(first, 0, MIB_, 0);
	struct cst_publish_stats stats = stats_of(p);
	assert_true(stats.bytes_spilled > 0);
	if (stats.memory_used < stats.memory_limit)
		write_now(filler, 0, stats.memory_limit - stats.memory_used, 0);
	start_sync(&of_first, first); /* what it frees is enough for the first of the line, and nobody looks farther */
	for (unsigned i = 0; i < COUNT; i++)
		start_sync(&y[i], s[i]);
	for (unsigned i = 0; i < COUNT; i++) {
		wait_done(&y[i].done);
		assert_int_equal(y[i].done.rc, 0);
		cst_publish_stream_close(s[i], false);
	}
	assert_int_equal(sync_now(filler, &z), 0);
	cst_publish_stream_close(first, false);
	cst_publish_stream_close(filler, false);
	cst_publish_free(p);
}

static void test_config(void **state)
{
	struct cst_error err = CST_ERROR_INIT;
	(void)state;
	struct cst_publish_config config = {.memory = 8 * MIB_, .part_size = 8 * MIB_};
	assert_null(cst_publish_new(&config, &err));
	assert_int_equal(err.code, EINVAL);
	config.part_size = UINT64_C(6) << 30;
	config.memory = UINT64_C(20) << 30;
	assert_null(cst_publish_new(&config, &err));
}

#define BOTH(fn)                                        \
	{#fn " oss", fn, setup_oss, teardown, NULL},    \
	{                                               \
#fn " s3", fn, setup_s3, teardown, NULL \
	}
int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_share),
		BOTH(test_500_halves),
		BOTH(test_two_parts_only),
		BOTH(test_crumbs),
		BOTH(test_crowd),
		BOTH(test_abandoned),
		BOTH(test_hungry_closed),
		cmocka_unit_test_setup_teardown(test_all_at_once, setup_s3, teardown),
		cmocka_unit_test_setup_teardown(test_no_room, setup_s3, teardown),
		cmocka_unit_test_setup_teardown(test_retained, setup_s3, teardown),
		cmocka_unit_test_setup_teardown(test_config, setup_oss, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
