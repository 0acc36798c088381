/* What may be asked of the store: who waits behind whom, and what waiting costs. */
#include "bucket_fixture.h"

#include "base/clock.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define KIB ((size_t)1024)
#define SIZE (1024 * KIB)

static enum scripted_end serve(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	unsigned long from = 0, to = 0, size = arg ? *(const unsigned long *)arg : SIZE;
	(void)n;
	if (strncmp(request, "HEAD", 4) == 0) {
		cst_buf_printf(out, "HTTP/1.1 200 X\r\nETag: \"E1\"\r\nContent-Length: %lu\r\n\r\n", size);
		return SCRIPTED_KEEP;
	}
	CST_ASSERT(sscanf(strstr(request, "Range: bytes="), "Range: bytes=%lu-%lu", &from, &to) == 2);
	to = cst_min(to, size - 1);
	cst_buf_printf(
		out,
		"HTTP/1.1 206 X\r\nETag: \"E1\"\r\nContent-Range: bytes %lu-%lu/%lu\r\nContent-Length: %lu\r\n\r\n",
		from, to, size, to - from + 1);
	memset(cst_buf_room(out, to - from + 1), 'x', to - from + 1);
	out->len += to - from + 1;
	return SCRIPTED_KEEP;
}

struct reader {
	struct outcome o;
	struct cst_object_op *op;
	char memory[SIZE];
};

static void begin(struct fixture *f, struct reader *r, const char *key, size_t length, bool background,
		  int64_t deadline)
{
	struct iovec into = {r->memory, length};
	struct cst_object_get get = {.key = cst_slice_of(key),
				     .length = length,
				     .into = &into,
				     .into_count = 1,
				     .background = background,
				     .deadline = deadline};
	outcome_init(&r->o);
	r->op = cst_object_get(f->bucket, &get, outcome_get, &r->o);
}

static int end(struct reader *r)
{
	outcome_wait(&r->o);
	cst_object_release(r->op);
	outcome_fini(&r->o);
	return r->o.rc;
}

static bool asked(struct fixture *f, unsigned n, const char *key)
{
	char want[64];
	snprintf(want, sizeof(want), " /bkt/%s HTTP", key);
	return strstr(scripted_server_request(f->server, n), want);
}

static uint64_t limited(const struct fixture *f)
{
	struct cst_bucket_stats stats;
	cst_bucket_stats(f->bucket, &stats);
	return stats.limited;
}

static struct reader first, ahead, demand;

static void who_waits_behind_whom(void **state)
{
	(void)state;
	struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS, .bandwidth = SIZE};
	struct fixture f;
	struct outcome head;
	fixture_start(&f, serve, NULL, &config);
	begin(&f, &first, "first", 512 * KIB, false, 0); /* goes at once, and is worked off in 0.4 s */
	assert_int_equal(end(&first), 0);
	begin(&f, &ahead, "ahead", 100 * KIB, true, 0);
	begin(&f, &demand, "demand", 100 * KIB, false, 0);
	assert_int_equal(fixture_head(&f, true, &head), 0); /* takes no bandwidth: passes */
	assert_int_equal(scripted_server_requests(f.server), 2);
	assert_int_equal(end(&demand), 0);
	assert_int_equal(end(&ahead), 0);
	assert_true(asked(&f, 2, "demand"));
	assert_true(asked(&f, 3, "ahead"));
	assert_int_equal(limited(&f), 2);
	outcome_fini(&head);
	fixture_stop(&f);
}

static void hurried(void **state)
{
	(void)state;
	struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS, .bandwidth = SIZE};
	struct fixture f;
	fixture_start(&f, serve, NULL, &config);
	begin(&f, &first, "first", 512 * KIB, false, 0);
	assert_int_equal(end(&first), 0);
	begin(&f, &ahead, "ahead", 100 * KIB, true, 0);
	begin(&f, &demand, "demand", 100 * KIB, false, 0);
	cst_object_hurry(ahead.op);
	begin(&f, &first, "later", 100 * KIB, false, 0);
	assert_int_equal(end(&demand), 0);
	assert_int_equal(end(&ahead), 0);
	assert_int_equal(end(&first), 0);
	assert_true(asked(&f, 1, "demand")); /* somebody waited for it before */
	assert_true(asked(&f, 2, "ahead"));
	assert_true(asked(&f, 3, "later"));
	fixture_stop(&f);
}

/* The allowance would come in hours. */
static void cancelled_at_once(void **state)
{
	(void)state;
	struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS, .bandwidth = 1};
	struct fixture f;
	fixture_start(&f, serve, NULL, &config);
	begin(&f, &first, "first", 8 * KIB, false, 0);
	begin(&f, &ahead, "ahead", 4 * KIB, true, 0);
	begin(&f, &demand, "demand", 4 * KIB, false, 0);
	assert_int_equal(end(&first), 0);
	cst_object_cancel(ahead.op);
	cst_object_cancel(demand.op);
	assert_int_equal(end(&demand), -ECANCELED);
	assert_int_equal(end(&ahead), -ECANCELED);
	assert_int_equal(scripted_server_requests(f.server), 1);
	fixture_stop(&f);
}

static void deadlines(void **state)
{
	(void)state;
	struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS, .bandwidth = SIZE, .deadline = CST_NS_PER_S / 5};
	struct fixture f;
	fixture_start(&f, serve, NULL, &config);
	begin(&f, &first, "first", SIZE, false, 0);
	assert_int_equal(end(&first), 0);
	begin(&f, &demand, "demand", 4 * KIB, false, 0); /* waits for 0.9 s, which are not its own */
	begin(&f, &ahead, "fixed", 4 * KIB, false, cst_now() + CST_NS_PER_S / 10); /* the caller means it */
	assert_int_equal(end(&ahead), -ETIMEDOUT);
	assert_int_equal(end(&demand), 0);
	assert_int_equal(scripted_server_requests(f.server), 2);
	fixture_stop(&f);
}

/* A range that ends at the object's end is not charged for what lies behind it. */
static void what_did_not_come_is_free(void **state)
{
	(void)state;
	struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS, .bandwidth = KIB};
	unsigned long size = 4;
	struct fixture f;
	fixture_start(&f, serve, &size, &config);
	for (int i = 0; i < 10; i++) {
		begin(&f, &first, "first", SIZE, false, 0);
		assert_int_equal(end(&first), 0);
		assert_int_equal(first.o.got, 4);
	}
	fixture_stop(&f);
}

static void requests_per_second(void **state)
{
	(void)state;
	struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS, .requests = 50};
	struct fixture f;
	struct outcome heads[40];
	struct cst_object_op *ops[40];
	fixture_start(&f, serve, NULL, &config);
	int64_t began = cst_now();
	for (unsigned i = 0; i < CST_ARRAY_LEN(ops); i++) {
		outcome_init(&heads[i]);
		ops[i] = cst_object_head(f.bucket, CST_SLICE("k"), true, outcome_head, &heads[i]);
	}
	for (unsigned i = 0; i < CST_ARRAY_LEN(ops); i++) {
		outcome_wait(&heads[i]);
		assert_int_equal(heads[i].rc, 0);
		cst_object_release(ops[i]);
		outcome_fini(&heads[i]);
	}
	/* Six at once, then one every 20 ms. */
	assert_true(cst_now() - began >= 34 * 20 * CST_NS_PER_MS - 20 * CST_NS_PER_MS);
	assert_true(limited(&f) >= 30);
	fixture_stop(&f);
}

/* ---- HEADs ---- */

static enum scripted_end serve_or_stall(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	return strstr(request, "/stalled") ? SCRIPTED_STALL : serve(arg, n, request, out);
}

static void stalled_heads_make_room(void **state)
{
	(void)state;
	struct fixture f;
	static struct outcome heads[CST_HEADS_AT_ONCE], good[4];
	struct cst_object_op *ops[CST_HEADS_AT_ONCE], *others[4];
	fixture_start(&f, serve_or_stall, NULL, NULL);
	for (unsigned i = 0; i < CST_ARRAY_LEN(ops); i++) {
		outcome_init(&heads[i]);
		ops[i] = cst_object_head(f.bucket, CST_SLICE("stalled"), true, outcome_head, &heads[i]);
	}
	for (unsigned i = 0; i < CST_ARRAY_LEN(others); i++) {
		outcome_init(&good[i]);
		others[i] = cst_object_head(f.bucket, CST_SLICE("good"), true, outcome_head, &good[i]);
	}
	pthread_mutex_lock(&f.bucket->lock);
	assert_int_equal(f.bucket->heads + f.bucket->late_heads, CST_HEADS_AT_ONCE);
	pthread_mutex_unlock(&f.bucket->lock);
	begin(&f, &demand, "demand", 4 * KIB, false, 0); /* not behind them */
	assert_int_equal(end(&demand), 0);
	for (unsigned i = 0; i < CST_ARRAY_LEN(others); i++) {
		outcome_wait(&good[i]);
		assert_int_equal(good[i].rc, 0);
		cst_object_release(others[i]);
		outcome_fini(&good[i]);
	}
	for (unsigned i = 0; i < CST_ARRAY_LEN(ops); i++)
		cst_object_cancel(ops[i]);
	for (unsigned i = 0; i < CST_ARRAY_LEN(ops); i++) {
		outcome_wait(&heads[i]);
		assert_int_equal(heads[i].rc, -ECANCELED);
		cst_object_release(ops[i]);
		outcome_fini(&heads[i]);
	}
	assert_int_equal(f.bucket->heads, 0);
	assert_int_equal(f.bucket->late_heads, 0);
	fixture_stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_waits_behind_whom),     cmocka_unit_test(hurried),
		cmocka_unit_test(cancelled_at_once),	     cmocka_unit_test(deadlines),
		cmocka_unit_test(what_did_not_come_is_free), cmocka_unit_test(requests_per_second),
		cmocka_unit_test(stalled_heads_make_room),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
