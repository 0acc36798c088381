/* Random operations and faults against a model: after a sync that succeeded the object is exactly what was written; whatever readers of the bucket
 * see at any time is one of the contents that the writer wanted published, whole; and at the end nothing is left behind. */
#include "double.h"

#include "base/clock.h"
#include "base/digest.h"

#include <stdio.h>

#define SIZE_MAX_TEST (3 * MIB_)
#define WANTED_MAX 512

static unsigned seed;
static unsigned dice(unsigned n)
{
	return (unsigned)rand_r(&seed) % n;
}

/* Of each content that may become visible. */
static struct wanted {
	uint64_t size, crc;
} wanted[WANTED_MAX];
static unsigned wanted_count;
static unsigned rate; /* of faults, per thousand */
static unsigned fault_seed;
static bool appendable;

static bool is_wanted(uint64_t size, uint64_t crc)
{
	for (unsigned i = 0; i < wanted_count; i++)
		if (wanted[i].size == size && wanted[i].crc == crc)
			return true;
	return false;
}

static void on_change(const struct model_object *o)
{
	if (o->exists && !appendable && !is_wanted(o->size, o->crc64))
		cst_panic(__FILE__, __LINE__, "%s of %llu bytes is visible, and nobody wanted that", o->key,
			  (unsigned long long)o->size);
}

static enum fault faulty(const struct cst_object_op *op)
{
	static const enum fault any[] = {FAULT_LOST, FAULT_DONE_TIMEOUT, FAULT_TIMEOUT, FAULT_DENIED};
	unsigned n = (unsigned)rand_r(&fault_seed);
	if (n % 1000 >= rate)
		return FAULT_NONE;
	enum fault f = any[(n / 1000) % CST_ARRAY_LEN(any)];
	/* A lost answer of what can be done twice is nothing; aborting twice, too. */
	return op->kind == OP_ABORT || op->kind == OP_HEAD || op->kind == OP_GET ? FAULT_TIMEOUT : f;
}

struct run {
	struct cst_publish *p;
	struct cst_publish_stream *s;
	char key[8];
	char *bytes; /* what the file has for its writer */
	uint64_t size;
	unsigned content;
};

static void want(const struct run *r)
{
	CST_ASSERT(wanted_count < WANTED_MAX);
	wanted[wanted_count++] = (struct wanted){r->size, cst_crc64(0, r->bytes, r->size)};
}

/* Some come later. */
static void answer_some(void)
{
	for (unsigned n = dice(6); n; n--) {
		struct cst_object_op *op = nth_op(dice(3));
		if (!op)
			return;
		answer_op(op, faulty(op));
	}
}

static void finish_op(struct done *d)
{
	int64_t until = cst_now() + 30 * CST_NS_PER_S;
	while (!__atomic_load_n(&d->calls, __ATOMIC_ACQUIRE)) {
		answer_some();
		if (!first_op())
			cst_sleep(CST_NS_PER_US * 20);
		CST_ASSERT(cst_now() < until);
	}
}

static void step_write(struct run *r)
{
	static const unsigned sizes[] = {1, 100, 5000, 128 * KIB, 200 * KIB, 700 * KIB};
	size_t len = 1 + dice(sizes[dice(CST_ARRAY_LEN(sizes))]);
	struct writer w;
	if (r->size + len > SIZE_MAX_TEST)
		return;
	for (size_t i = 0; i < len; i++)
		r->bytes[r->size + i] = (char)(pattern(r->size + i) + r->content);
	start_write(&w, r->s, r->size, r->bytes + r->size, len);
	finish_op(&w.done);
	if (w.done.rc == 0)
		r->size += len;
	if (cst_publish_stream_state(r->s).size != r->size)
		fail_msg("a write of %zu bytes (%d, %s): it has %llu now, not %llu", len, w.done.rc, w.done.text,
			 (unsigned long long)cst_publish_stream_state(r->s).size, (unsigned long long)r->size);
}

static void expect_now(const struct run *r)
{
	const struct model_object *o = object_of(r->key);
	CST_ASSERT(o);
	if (o->size != r->size || memcmp(o->data, r->bytes, r->size) != 0)
		fail_msg("%s is not what was written: %llu bytes, not %llu", r->key, (unsigned long long)o->size,
			 (unsigned long long)r->size);
}

static int step_sync(struct run *r)
{
	struct syncer y;
	bool pending = cst_publish_stream_state(r->s).pending;
	if (pending)
		want(r);
	start_sync(&y, r->s);
	if (dice(4) == 0)
		answer_some();
	finish_op(&y.done);
	if (y.done.rc == 0 && pending) {
		expect_now(r);
		assert_int_equal(y.done.version.size, r->size);
		assert_string_equal(y.done.version.etag, object_of(r->key)->etag);
		assert_false(cst_publish_stream_state(r->s).pending);
	}
	/* Nobody else writes: there is no conflict, however many answers were lost. */
	if (y.done.rc == -ESTALE)
		fail_msg("%s", y.done.text);
	return y.done.rc;
}

static struct cst_publish_base base_of(const char *key)
{
	struct cst_publish_base base = {0};
	const struct model_object *o = object_of(key);
	if (!o)
		return base;
	base = (struct cst_publish_base){.exists = true, .type = o->type, .size = o->size};
	memcpy(base.etag, o->etag, sizeof(o->etag));
	return base;
}

static void settle(struct run *r)
{
	unsigned before = rate;
	rate = 0;
	while (first_op())
		answer_op(first_op(), FAULT_NONE);
	assert_int_equal(step_sync(r), 0);
	rate = before;
}

static void step_reset(struct run *r)
{
	settle(r);
	struct cst_publish_base base = base_of(r->key);
	cst_publish_stream_reset(r->s, &base);
	cst_publish_stream_touch(r->s); /* a truncation: else it is nobody's business */
	r->content++;
	r->size = 0;
}

/* A rename of what was published, or of what was never. */
static void step_move(struct run *r)
{
	settle(r);
	struct model_object *o = object_of(r->key);
	const char *to = strcmp(r->key, "a") == 0 ? "b" : "a";
	if (!o || cst_publish_stream_state(r->s).published == 0)
		return;
	char *copy = cst_xmalloc(o->size + 1);
	uint64_t size = o->size;
	memcpy(copy, o->data, size);
	other_put(to, copy, size);
	free(copy);
	other_delete(r->key);
	struct cst_publish_base base = base_of(to);
	assert_int_equal(cst_publish_stream_move(r->s, cst_slice_of(to), &base), 0);
	snprintf(r->key, sizeof(r->key), "%s", to);
}

static void step_reopen(struct run *r)
{
	settle(r);
	cst_publish_stream_close(r->s, true);
	r->s = open_on(r->p, r->key, true, appendable ? CST_PUBLISH_APPENDABLE : CST_PUBLISH_WHOLE);
}

static void one_run(bool s3, unsigned number, unsigned faults)
{
	struct run r = {.key = "a", .bytes = cst_xmalloc(SIZE_MAX_TEST)};
	store_reset(s3);
	store.limits.part_min = 100 * KIB;
	store.on_change = on_change;
	seed = number * 2654435761u + 1;
	fault_seed = number + 77;
	rate = faults;
	wanted_count = 0;
	r.p = make((struct cst_publish_config){.memory = 1280 * KIB, .part_size = 256 * KIB, .stream_parallel = 3});
	struct cst_publish_open open = {.key = CST_SLICE("a"),
					.mode = appendable ? CST_PUBLISH_APPENDABLE : CST_PUBLISH_WHOLE};
	r.s = cst_publish_stream_open(r.p, &open);
	for (unsigned i = 0; i < 60; i++) {
		unsigned what = dice(100);
		if (what < 70)
			step_write(&r);
		else if (what < 90)
			step_sync(&r);
		else if (what < 93)
			cst_publish_stream_touch(r.s);
		else if (what < 95 && !appendable)
			step_reset(&r);
		else if (what < 97 && !appendable)
			step_move(&r);
		else
			step_reopen(&r);
	}
	settle(&r);
	if (r.size)
		expect_now(&r);
	cst_publish_stream_close(r.s, true);
	while (first_op())
		answer_op(first_op(), FAULT_NONE);
	cst_publish_free(r.p);
	/* Uploads whose begin was never answered stay, as do those whose abort was not: no others. */
	if (faults == 0)
		assert_int_equal(store.open_uploads, 0);
	store_fini();
	free(r.bytes);
}

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SHARE 15 /* slower as much */
#else
#define SHARE 1
#endif

static void runs(bool s3, unsigned faults, unsigned count)
{
	count /= SHARE;
	keep_dir_make();
	const char *only = getenv("CST_RANDOM_RUN");
	for (unsigned i = only ? (unsigned)atoi(only) : 0; i < (only ? (unsigned)atoi(only) + 1 : count); i++) {
		if (getenv("CST_RANDOM_VERBOSE"))
			print_message("run %u\n", i);
		one_run(s3, i, faults);
	}
	keep_dir_remove();
}

static void test_calm(void **state)
{
	(void)state;
	runs(false, 0, 60);
	runs(true, 0, 60);
}

static void test_faults(void **state)
{
	(void)state;
	runs(false, 60, 150);
	runs(true, 60, 150);
}

static void test_many_faults(void **state)
{
	(void)state;
	runs(false, 300, 80);
	runs(true, 300, 80);
}

static void test_appends(void **state)
{
	(void)state;
	appendable = true;
	runs(false, 0, 40);
	runs(false, 100, 120);
	appendable = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calm),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_many_faults),
		cmocka_unit_test(test_appends),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
