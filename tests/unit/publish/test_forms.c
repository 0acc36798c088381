/* Which requests a publication takes, and that its bytes are those that were written. */
#include "double.h"

static int setup_oss(void **state)
{
	(void)state;
	store_reset(false);
	return 0;
}

static int setup_s3(void **state)
{
	(void)state;
	store_reset(true);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	assert_int_equal(store.open_uploads, 0);
	store_fini();
	return 0;
}

static void end(struct cst_publish *p, struct cst_publish_stream *s)
{
	struct cst_publish_stats stats;
	cst_publish_stream_close(s, false);
	answer_all();
	cst_publish_stats(p, &stats);
	assert_int_equal(stats.memory_used, 0);
	assert_int_equal(stats.streams, 0);
	assert_int_equal(stats.requests_in_flight, 0);
	cst_publish_free(p);
}

static unsigned total(void)
{
	unsigned n = 0;
	for (int i = 0; i < OP_KINDS; i++)
		n += store.counts[i];
	return n;
}

static void test_nothing(void **state)
{
	(void)state;
	struct cst_publish *p = make((struct cst_publish_config){.memory = 16 * MIB_});
	struct cst_publish_stream *s = open_new(p, "k");
	struct syncer y;
	assert_int_equal(sync_now(s, &y), 0); /* nothing was touched */
	assert_int_equal(total(), 0);
	cst_publish_stream_touch(s);
	assert_true(cst_publish_stream_state(s).pending);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", 0);
	assert_string_equal(object_of("k")->mode, "33188");
	assert_string_equal(y.done.version.etag, object_of("k")->etag);
	assert_false(cst_publish_stream_state(s).pending);
	assert_int_equal(sync_now(s, &y), 0);
	assert_int_equal(ops_of(OP_PUT), 1);
	assert_int_equal(total(), 1);
	end(p, s);
}

static void test_small(void **state)
{
	(void)state;
	struct cst_publish *p = make((struct cst_publish_config){.memory = 16 * MIB_});
	struct cst_publish_stream *s = open_new(p, "k");
	struct syncer y;
	cst_publish_stream_touch(s);
	write_now(s, 0, 5, 0);
	write_now(s, 5, 0, 0);
	write_now(s, 5, 300 * KIB, 0);
	write_now(s, 4, 1, -EINVAL);
	write_now(s, 300 * KIB + 6, 1, -EINVAL);
	assert_int_equal(sync_now(s, &y), 0);
	assert_int_equal(y.done.version.size, 300 * KIB + 5);
	expect_object("k", 300 * KIB + 5);
	assert_int_equal(total(), 1); /* as much as writing a file costs: one PUT */
	end(p, s);
}

/* An fsync after each line of a log. */
static void test_small_steps(void **state)
{
	(void)state;
	struct cst_publish *p = make((struct cst_publish_config){.memory = 16 * MIB_});
	struct cst_publish_stream *s = open_new(p, "k");
	struct cst_publish_stats stats;
	struct syncer y;
	for (unsigned i = 0; i < 100; i++) {
		write_now(s, i * 100, 100, 0);
		assert_int_equal(sync_now(s, &y), 0);
		expect_object("k", i * 100 + 100);
	}
	cst_publish_stats(p, &stats);
	assert_int_equal(stats.memory_used, 128 * KIB); /* lines share a block */
	assert_int_equal(ops_of(OP_PUT), 100);
	assert_int_equal(ops_of(OP_GET), 0);
	/* The base of each is what the one before has published. */
	assert_int_equal(ops_of(OP_HEAD), store.s3 ? 0 : 99);
	end(p, s);
}

static void test_large(void **state)
{
	(void)state;
	struct cst_publish *p = make((struct cst_publish_config){.memory = 32 * MIB_, .part_size = 6 * MIB_});
	struct cst_publish_stream *s = open_new(p, "k");
	struct syncer y;
	uint64_t size = 0;
	for (unsigned i = 0; i < 40; i++, size += MIB_ + 1)
		write_now(s, size, MIB_ + 1, 0);
	assert_null(object_of("k")); /* not before it is whole */
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", size);
	assert_int_equal(y.done.version.size, size);
	assert_int_equal(ops_of(OP_BEGIN), 1);
	assert_int_equal(ops_of(OP_COMPLETE), 1);
	assert_int_equal(ops_of(OP_PUT), 0);
	assert_true(ops_of(OP_PART) >= 7);
	assert_int_equal(store.bytes[OP_PART], size); /* each byte once */
	/* Going on: what is published is copied there, only what is new is sent. */
	write_now(s, size, 1000, 0);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", size + 1000);
	assert_int_equal(ops_of(OP_COPY), 1);
	assert_int_equal(store.bytes[OP_PART], size + 1000);
	assert_int_equal(ops_of(OP_HEAD), store.s3 ? 0 : 1);
	end(p, s);
}

/* One part exactly is still a PUT, a byte more is not. */
static void test_border(void **state)
{
	(void)state;
	struct cst_publish *p = make((struct cst_publish_config){.memory = 32 * MIB_, .part_size = 6 * MIB_});
	struct cst_publish_stream *s = open_new(p, "k");
	struct syncer y;
	write_now(s, 0, 6 * MIB_, 0);
	assert_int_equal(total(), 0);
	assert_int_equal(sync_now(s, &y), 0);
	assert_int_equal(ops_of(OP_PUT), 1);
	expect_object("k", 6 * MIB_);
	cst_publish_stream_close(s, false);
	s = open_new(p, "l");
	write_now(s, 0, 6 * MIB_ + 1, 0);
	assert_non_null(find_op(OP_BEGIN)); /* at once: its round trip runs while more is written */
	assert_int_equal(sync_now(s, &y), 0);
	assert_int_equal(ops_of(OP_PUT), 1);
	assert_int_equal(ops_of(OP_PART), 2);
	expect_object("l", 6 * MIB_ + 1);
	end(p, s);
}

static char *pattern_bytes(uint64_t size)
{
	char *data = cst_xmalloc(size);
	for (uint64_t i = 0; i < size; i++)
		data[i] = (char)pattern(i);
	return data;
}

static void put_pattern(const char *key, uint64_t size)
{
	CST_AUTO_FREE char *data = pattern_bytes(size);
	other_put(key, data, size);
}

static void test_append_to_large(void **state)
{
	(void)state;
	struct cst_publish *p = make((struct cst_publish_config){.memory = 32 * MIB_, .part_size = 6 * MIB_});
	struct syncer y;
	put_pattern("k", 7 * MIB_);
	struct cst_publish_stream *s = open_on(p, "k", true, CST_PUBLISH_WHOLE);
	assert_int_equal(cst_publish_stream_state(s).size, 7 * MIB_);
	write_now(s, 7 * MIB_, 10, 0);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", 7 * MIB_ + 10);
	assert_int_equal(ops_of(OP_COPY), 1);
	assert_int_equal(store.bytes[OP_PART], 10);
	assert_int_equal(ops_of(OP_GET), 0);
	end(p, s);
}

static void test_append_to_small(void **state)
{
	(void)state;
	struct cst_publish *p = make((struct cst_publish_config){.memory = 32 * MIB_, .part_size = 6 * MIB_});
	struct syncer y;
	put_pattern("k", 90 * KIB);
	struct cst_publish_stream *s = open_on(p, "k", true, CST_PUBLISH_WHOLE);
	write_now(s, 90 * KIB, 100, 0);
	assert_int_equal(ops_of(OP_GET), 1);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", 90 * KIB + 100);
	assert_int_equal(ops_of(OP_PUT), 1);
	write_now(s, 90 * KIB + 100, 7 * MIB_, 0);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", 90 * KIB + 100 + 7 * MIB_);
	assert_int_equal(ops_of(OP_GET), 1);
	end(p, s);
}

static void test_overwrite(void **state)
{
	(void)state;
	struct cst_publish *p = make((struct cst_publish_config){.memory = 32 * MIB_, .part_size = 6 * MIB_});
	struct syncer y;
	other_put("k", "what was there", 14);
	struct cst_publish_stream *s = open_on(p, "k", false, CST_PUBLISH_WHOLE);
	cst_publish_stream_touch(s);
	write_now(s, 0, 10, 0);
	assert_string_equal(object_of("k")->data, "what was there"); /* no empty object in between */
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", 10);
	assert_int_equal(ops_of(OP_PUT), 1);
	assert_int_equal(total(), store.s3 ? 1 : 2);
	end(p, s);
}

static void test_copies_in_pieces(void **state)
{
	(void)state;
	struct syncer y;
	store.limits.copy_max = 6 * MIB_;
	struct cst_publish *p = make((struct cst_publish_config){.memory = 32 * MIB_, .part_size = 6 * MIB_});
	put_pattern("k", 17 * MIB_);
	struct cst_publish_stream *s = open_on(p, "k", true, CST_PUBLISH_WHOLE);
	struct writer w;
	start_write(&w, s, 17 * MIB_, "", 0);
	char byte = (char)pattern(17 * MIB_);
	start_write(&w, s, 17 * MIB_, &byte, 1);
	start_sync(&y, s);
	answer(OP_BEGIN);
	assert_int_equal(store.waiting, 4); /* all at once */
	answer_all();
	assert_int_equal(y.done.rc, 0);
	assert_int_equal(ops_of(OP_COPY), 3);
	expect_object("k", 17 * MIB_ + 1);
	end(p, s);
}

static void test_appendable(void **state)
{
	(void)state;
	struct cst_publish *p = make((struct cst_publish_config){.memory = 16 * MIB_, .part_size = MIB_});
	struct cst_publish_open open = {.key = CST_SLICE("k"), .mode = CST_PUBLISH_APPENDABLE};
	struct cst_publish_stream *s = cst_publish_stream_open(p, &open);
	struct syncer y;
	cst_publish_stream_touch(s);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", 0);
	write_now(s, 0, 1000, 0);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", 1000);
	write_now(s, 1000, 5 * MIB_ + 3, 0);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", 5 * MIB_ + 1003);
	assert_int_equal(ops_of(OP_HEAD), 0);
	cst_publish_stream_close(s, false);
	/* Another writer goes on: it looks at what is there once. */
	s = open_on(p, "k", true, CST_PUBLISH_APPENDABLE);
	write_now(s, 5 * MIB_ + 1003, 10, 0);
	assert_int_equal(sync_now(s, &y), 0);
	write_now(s, 5 * MIB_ + 1013, 10, 0);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", 5 * MIB_ + 1023);
	assert_int_equal(ops_of(OP_HEAD), 1);
	assert_int_equal(y.done.version.type, CST_OBJECT_APPENDABLE);
	cst_publish_stream_close(s, false);
	/* Replaced. */
	s = open_on(p, "k", false, CST_PUBLISH_APPENDABLE);
	cst_publish_stream_touch(s);
	write_now(s, 0, 10, 0);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", 10);
	assert_int_equal(ops_of(OP_DELETE), 1);
	cst_publish_stream_close(s, false);
	/* No such object. */
	other_put("k", "abc", 3);
	s = open_on(p, "k", true, CST_PUBLISH_APPENDABLE);
	write_now(s, 3, 10, 0);
	assert_int_equal(sync_now(s, &y), -EPERM);
	end(p, s);
}

static void test_many_parts(void **state)
{
	(void)state;
	struct cst_publish *p = make((struct cst_publish_config){.memory = 4 * MIB_, .part_size = 128 * KIB});
	struct cst_publish_stream *s = open_new(p, "k");
	struct syncer y;
	uint64_t size = 0;
	store.limits.parts_max = 150;
	cst_publish_stream_close(s, false);
	cst_publish_free(p);
	p = make((struct cst_publish_config){.memory = 4 * MIB_, .part_size = 128 * KIB});
	s = open_new(p, "k");
	store.at_once = true;
	/* 86 parts of 128 KiB, and the last 64 as large as memory allows: of 1 MiB. */
	uint64_t limit = 86 * 128 * KIB + UINT64_C(64) * MIB_;
	while (size + MIB_ <= limit) {
		write_now(s, size, MIB_, 0);
		size += MIB_;
	}
	write_now(s, size, 2 * MIB_, -EFBIG);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", size);
	assert_true(ops_of(OP_PART) <= 150);
	end(p, s);
}

static void test_reset_and_move(void **state)
{
	(void)state;
	struct cst_publish *p = make((struct cst_publish_config){.memory = 32 * MIB_, .part_size = 6 * MIB_});
	struct cst_publish_stream *s = open_new(p, "k");
	struct cst_publish_base none = {0};
	struct syncer y;
	write_now(s, 0, 13 * MIB_, 0);
	answer(OP_BEGIN);
	assert_int_equal(cst_publish_stream_move(s, CST_SLICE("l"), &none), -EBUSY);
	cst_publish_stream_reset(s, &none);
	assert_int_equal(cst_publish_stream_state(s).size, 0);
	answer_all(); /* cancelled, and the upload aborted */
	assert_int_equal(store.open_uploads, 0);
	write_now(s, 0, 100, 0);
	assert_int_equal(cst_publish_stream_move(s, CST_SLICE("l"), &none), 0);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("l", 100);
	assert_null(object_of("k"));
	end(p, s);
}

/* Truncated while parts are on their way: the truncation is to be published, though it waits for them. */
static void test_truncated(void **state)
{
	(void)state;
	struct cst_publish *p = make((struct cst_publish_config){.memory = 32 * MIB_, .part_size = 6 * MIB_});
	struct cst_publish_base none = {0};
	struct syncer y;
	struct cst_publish_stream *s = open_new(p, "k");
	write_now(s, 0, 13 * MIB_, 0);
	answer(OP_BEGIN);
	assert_int_equal(store.waiting, 2);
	cst_publish_stream_reset(s, &none);
	cst_publish_stream_touch(s);
	assert_true(cst_publish_stream_state(s).pending);
	assert_int_equal(cst_publish_stream_state(s).size, 0);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", 0);
	assert_int_equal(ops_of(OP_ABORT), 1);
	end(p, s);
}

/* Bytes that come while a publication runs are the next one's. */
static void test_during(void **state)
{
	(void)state;
	struct cst_publish *p = make((struct cst_publish_config){.memory = 32 * MIB_, .part_size = 6 * MIB_});
	struct cst_publish_stream *s = open_new(p, "k");
	struct syncer a, b, c;
	struct writer w;
	char bytes[50];
	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)pattern(10 + i);
	write_now(s, 0, 10, 0);
	start_sync(&a, s);
	start_sync(&b, s); /* joins */
	start_write(&w, s, 10, bytes, 50);
	assert_int_equal(w.done.calls, 1);
	start_sync(&c, s);
	assert_int_equal(store.waiting, 1);
	answer(OP_PUT);
	expect_object("k", 10);
	assert_int_equal(a.done.calls + b.done.calls, 2);
	assert_int_equal(c.done.calls, 0);
	answer_all();
	assert_int_equal(c.done.rc, 0);
	expect_object("k", 60);
	assert_int_equal(ops_of(OP_PUT), 2);
	end(p, s);
}

static void test_tail(void **state)
{
	(void)state;
	struct cst_publish *p = make((struct cst_publish_config){.memory = 64 * MIB_, .part_size = 16 * MIB_});
	struct cst_publish_stream *s = open_new(p, "k");
	struct syncer y;
	write_now(s, 0, 31 * MIB_, 0);
	answer(OP_BEGIN);
	assert_int_equal(store.waiting, 1);
	start_sync(&y, s);
	/* The last 15 MiB go in pieces: as many as are of use. */
	assert_int_equal(store.waiting, store.s3 ? 1 + 3 : 1 + 8);
	answer_all();
	assert_int_equal(y.done.rc, 0);
	expect_object("k", 31 * MIB_);
	end(p, s);
}

#define BOTH(fn)                                        \
	{#fn " oss", fn, setup_oss, teardown, NULL},    \
	{                                               \
#fn " s3", fn, setup_s3, teardown, NULL \
	}
int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_nothing),
		BOTH(test_small),
		BOTH(test_small_steps),
		BOTH(test_large),
		BOTH(test_border),
		BOTH(test_append_to_large),
		BOTH(test_append_to_small),
		BOTH(test_overwrite),
		BOTH(test_copies_in_pieces),
		BOTH(test_reset_and_move),
		BOTH(test_truncated),
		BOTH(test_during),
		BOTH(test_tail),
		cmocka_unit_test_setup_teardown(test_appendable, setup_oss, teardown),
		cmocka_unit_test_setup_teardown(test_many_parts, setup_oss, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
