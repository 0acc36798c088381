/* Second requests: who wins, what the loser does, what is asked, and when none is sent. */
#include "bucket_fixture.h"

#include "base/clock.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define KIB ((size_t)1024)
#define SIZE (1024 * KIB)
#define NOTHING ((size_t)-1)

static char byte_at(uint64_t offset)
{
	return (char)(offset * 31 + (offset >> 12));
}

enum kind { GOOD, BUSY, WHOLE, WRONG_ETAG, WRONG_RANGE, NO_ETAG };

/* The answer to a request: of the range asked for, `sent` bytes (0: all, NOTHING: not even a head), then `end`. With
 * SCRIPTED_HOLD the rest follows when the test lets go. */
struct step {
	enum kind kind;
	size_t sent;
	enum scripted_end end;
};
struct script {
	const struct step *steps;
	unsigned count;
};

static void write_head(struct cst_buf *out, enum kind kind, size_t from, size_t to)
{
	const char *etag = kind == NO_ETAG ? "" : kind == WRONG_ETAG ? "ETag: \"E2\"\r\n" : "ETag: \"E1\"\r\n";
	if (kind == WHOLE)
		cst_buf_printf(out, "HTTP/1.1 200 X\r\n%sContent-Length: %zu\r\n\r\n", etag, SIZE);
	else
		cst_buf_printf(out,
			       "HTTP/1.1 206 X\r\n%sContent-Range: bytes %zu-%zu/%zu\r\nContent-Length: %zu\r\n\r\n",
			       etag, from - (kind == WRONG_RANGE), to - (kind == WRONG_RANGE), SIZE, to - from + 1);
}

static enum scripted_end play(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	const struct script *script = arg;
	const struct step *s = &script->steps[cst_min(n, script->count - 1)];
	unsigned long from = 0, to = SIZE - 1;
	CST_ASSERT(sscanf(strstr(request, "Range: bytes="), "Range: bytes=%lu-%lu", &from, &to) == 2);
	if (s->kind == BUSY) {
		scripted_answer(out, 503, "", "<Error><Code>ServiceUnavailable</Code></Error>");
		return s->end;
	}
	write_head(out, s->kind, from, to);
	size_t head = out->len, length = s->kind == WHOLE ? SIZE : to - from + 1;
	if (s->kind == WHOLE)
		from = 0;
	char *body = cst_buf_room(out, length);
	for (size_t i = 0; i < length; i++)
		body[i] = byte_at(from + i);
	out->len += length;
	size_t told = s->sent == NOTHING ? 0 : s->sent ? cst_min(head + s->sent, out->len) : out->len;
	if (s->end == SCRIPTED_HOLD)
		return SCRIPTED_HOLD_AT(told);
	out->len = told;
	return s->end;
}

struct reader {
	struct fixture *f;
	struct outcome o;
	struct cst_object_op *op;
	char *memory;
	size_t length;
	unsigned in_flight; /* at the end */
	/* under the outcome's lock */
	size_t shown;
	bool wrong;
};

static void on_progress(void *arg, size_t got, const struct cst_object_info *info)
{
	struct reader *r = arg;
	pthread_mutex_lock(&r->o.lock);
	r->wrong |= r->o.done || got <= r->shown || got >= r->length || strcmp(info->etag, "E1") != 0;
	for (size_t i = r->shown; i < got && !r->wrong; i++)
		r->wrong = r->memory[i] != byte_at(i);
	r->shown = got;
	pthread_cond_broadcast(&r->o.changed);
	pthread_mutex_unlock(&r->o.lock);
}

static void on_got(void *arg, int rc, size_t got, const struct cst_object_info *info, const struct cst_error *err)
{
	struct reader *r = arg;
	struct cst_bucket *b = r->f->bucket;
	pthread_mutex_lock(&b->lock);
	r->in_flight = b->limiter.in_flight;
	pthread_mutex_unlock(&b->lock);
	outcome_get(&r->o, rc, got, info, err);
}

static void begin(struct reader *r, struct fixture *f, size_t length, const char *if_match, bool no_retry)
{
	*r = (struct reader){.f = f, .length = length, .memory = cst_xcalloc(1, length)};
	struct iovec into[2] = {{r->memory, length / 3}, {r->memory + length / 3, length - length / 3}};
	struct cst_object_get get = {.key = CST_SLICE("dir/k"),
				     .length = length,
				     .if_match = if_match,
				     .into = into,
				     .into_count = 2,
				     .no_retry = no_retry,
				     .progress = on_progress};
	outcome_init(&r->o);
	r->op = cst_object_get(f->bucket, &get, on_got, r);
}

static int end(struct reader *r)
{
	outcome_wait(&r->o);
	bool right = !r->wrong;
	for (size_t i = 0; i < r->length && r->o.rc == 0 && right; i++)
		right = r->memory[i] == byte_at(i);
	assert_true(right);
	cst_object_release(r->op);
	outcome_fini(&r->o);
	free(r->memory);
	return r->o.rc;
}

/* Heads come after `head_ms` (300: so late that a busy machine makes none later), bodies of all sizes at 100 MB/s; `credit` second requests
 * may be sent. */
static void know_store(struct fixture *f, unsigned credit, int head_ms)
{
	struct cst_bucket *b = f->bucket;
	pthread_mutex_lock(&b->lock);
	for (unsigned i = 0; i < 100; i++)
		cst_usual_add(&b->pace.head, (uint64_t)head_ms * CST_NS_PER_MS);
	for (unsigned i = 0; i < 20; i++)
		for (uint64_t size = 32 * KIB; size <= 8 * SIZE; size *= 4)
			cst_pace_body(&b->pace, size, (int64_t)size * 10);
	b->hedge_credit = credit * CST_HEDGE_COST;
	pthread_mutex_unlock(&b->lock);
}

static struct cst_bucket_stats stats_of(struct fixture *f)
{
	struct cst_bucket_stats stats;
	cst_bucket_stats(f->bucket, &stats);
	return stats;
}

#define STEPS(credit, ...)                                                       \
	static const struct step steps[] = {__VA_ARGS__};                        \
	struct script script = {steps, CST_ARRAY_LEN(steps)};                    \
	struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS,               \
					   .hedge = true,                        \
					   .request_timeout = 20 * CST_NS_PER_S, \
					   .deadline = 60 * CST_NS_PER_S};       \
	struct fixture f;                                                        \
	struct reader r __attribute__((unused));                                 \
	fixture_start(&f, play, &script, &config);                               \
	know_store(&f, credit, 300)

static void late_head(void **state)
{
	(void)state;
	STEPS(4, {GOOD, NOTHING, SCRIPTED_STALL}, {GOOD});
	begin(&r, &f, 300 * KIB, "E1", false);
	assert_int_equal(end(&r), 0);
	assert_int_equal(r.o.info.size, SIZE);
	assert_int_equal(r.in_flight, 0);
	struct cst_bucket_stats s = stats_of(&f);
	assert_int_equal(s.hedges, 1);
	assert_int_equal(s.hedge_wins, 1);
	assert_int_equal(s.get, 2);
	assert_int_equal(s.retries, 0);
	assert_non_null(strstr(scripted_server_request(f.server, 1), "Range: bytes=0-307199\r\n"));
	assert_non_null(strstr(scripted_server_request(f.server, 1), "If-Match: \"E1\"\r\n"));
	assert_non_null(strstr(scripted_server_request(f.server, 1), "GET /bkt/dir/k HTTP/1.1\r\n"));
	fixture_stop(&f);
}

/* The rest is asked for only, and no byte comes twice. */
static void stalled_body(void **state)
{
	(void)state;
	STEPS(1, {GOOD, 300 * KIB, SCRIPTED_STALL}, {GOOD});
	begin(&r, &f, SIZE, "E1", false);
	assert_int_equal(end(&r), 0);
	assert_int_equal(r.in_flight, 0);
	assert_true(r.shown >= 256 * KIB);
	struct cst_bucket_stats s = stats_of(&f);
	assert_int_equal(s.hedges, 1);
	assert_int_equal(s.hedge_wins, 1);
	assert_int_equal(s.bytes_in, SIZE);
	assert_non_null(strstr(scripted_server_request(f.server, 1), "Range: bytes=307200-1048575\r\n"));
	fixture_stop(&f);
}

static void first_wins(void **state)
{
	(void)state;
	STEPS(4, {GOOD, NOTHING, SCRIPTED_HOLD}, {GOOD, NOTHING, SCRIPTED_STALL});
	begin(&r, &f, SIZE, "E1", false);
	scripted_server_wait_requests(f.server, 2);
	scripted_server_let_go(f.server);
	assert_int_equal(end(&r), 0);
	assert_int_equal(r.in_flight, 0); /* the loser has ended */
	struct cst_bucket_stats s = stats_of(&f);
	assert_int_equal(s.hedges, 1);
	assert_int_equal(s.hedge_wins, 0);
	assert_int_equal(s.retries, 0);
	fixture_stop(&f);
}

/* A second request that fails in whatever way is no failure of the operation. */
static void second_fails_beside(enum kind first, const struct step *how)
{
	const struct step steps[] = {{first, 200 * KIB, SCRIPTED_HOLD}, *how, {BUSY}};
	struct script script = {steps, 3};
	struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS, .hedge = true};
	struct fixture f;
	struct reader r;
	fixture_start(&f, play, &script, &config);
	know_store(&f, 1, 300);
	begin(&r, &f, SIZE, "E1", false);
	scripted_server_wait_requests(f.server, 2);
	for (unsigned running = 2; running > 1;) {
		pthread_mutex_lock(&f.bucket->lock);
		running = f.bucket->limiter.in_flight;
		pthread_mutex_unlock(&f.bucket->lock);
		sched_yield();
	}
	scripted_server_let_go(f.server);
	assert_int_equal(end(&r), 0);
	struct cst_bucket_stats s = stats_of(&f);
	assert_int_equal(s.hedges, 1);
	assert_int_equal(s.hedge_wins, 0);
	assert_int_equal(s.retries, 0);
	assert_int_equal(scripted_server_requests(f.server), 2);
	fixture_stop(&f);
}

static void second_fails(const struct step *how)
{
	second_fails_beside(GOOD, how);
}

static void second_of_no_use(void **state)
{
	(void)state;
	second_fails(&(struct step){BUSY, 0, SCRIPTED_KEEP});
	second_fails(&(struct step){GOOD, NOTHING, SCRIPTED_RESET});
	second_fails(&(struct step){WHOLE, 0, SCRIPTED_KEEP});
	second_fails(&(struct step){WRONG_ETAG, 0, SCRIPTED_KEEP});
	second_fails(&(struct step){WRONG_RANGE, 0, SCRIPTED_KEEP});
	/* Nobody knows of which version the bytes of the first one are. */
	second_fails_beside(NO_ETAG, &(struct step){GOOD, 0, SCRIPTED_KEEP});
}

static void first_breaks(void **state)
{
	(void)state;
	/* The second one is held until the first is gone; it completes the range without a retry. */
	STEPS(4, {GOOD, NOTHING, SCRIPTED_HOLD}, {GOOD, NOTHING, SCRIPTED_HOLD});
	begin(&r, &f, SIZE, "E1", false);
	scripted_server_wait_requests(f.server, 2);
	pthread_mutex_lock(&f.bucket->lock);
	assert_int_equal(f.bucket->limiter.in_flight, 2);
	cst_http_cancel(r.op->call); /* as if the connection had broken */
	pthread_mutex_unlock(&f.bucket->lock);
	for (unsigned running = 2; running > 1;) {
		pthread_mutex_lock(&f.bucket->lock);
		running = f.bucket->limiter.in_flight;
		pthread_mutex_unlock(&f.bucket->lock);
		sched_yield();
	}
	scripted_server_let_go(f.server);
	assert_int_equal(end(&r), 0);
	assert_int_equal(scripted_server_requests(f.server), 2);
	assert_int_equal(stats_of(&f).retries, 0);
	fixture_stop(&f);
}

/* The second overtakes the first, which is given up, and breaks: what has come from both counts. */
static void second_overtakes_and_breaks(void **state)
{
	(void)state;
	STEPS(1, {GOOD, 100 * KIB, SCRIPTED_STALL}, {GOOD, 400 * KIB, SCRIPTED_CLOSE}, {GOOD});
	begin(&r, &f, SIZE, "E1", false);
	assert_int_equal(end(&r), 0);
	struct cst_bucket_stats s = stats_of(&f);
	assert_int_equal(s.hedges, 1);
	assert_int_equal(s.hedge_wins, 1);
	assert_int_equal(s.bytes_in, SIZE);
	assert_non_null(strstr(scripted_server_request(f.server, 2), "Range: bytes=512000-1048575\r\n"));
	fixture_stop(&f);
}

/* The second overtakes the first and stalls itself: another one goes beside it. */
static void second_stalls_too(void **state)
{
	(void)state;
	STEPS(2, {GOOD, 100 * KIB, SCRIPTED_STALL}, {GOOD, 400 * KIB, SCRIPTED_STALL}, {GOOD});
	begin(&r, &f, SIZE, "E1", false);
	assert_int_equal(end(&r), 0);
	struct cst_bucket_stats s = stats_of(&f);
	assert_int_equal(s.hedges, 2);
	assert_int_equal(s.hedge_wins, 2);
	assert_int_equal(s.bytes_in, SIZE);
	assert_int_equal(r.in_flight, 0);
	fixture_stop(&f);
}

static void both_fail(void **state)
{
	(void)state;
	STEPS(4, {GOOD, NOTHING, SCRIPTED_STALL}, {GOOD, 150 * KIB, SCRIPTED_RESET}, {GOOD});
	begin(&r, &f, SIZE, "E1", false);
	assert_int_equal(end(&r), 0);
	assert_in_range(scripted_server_requests(f.server), 3, 4); /* the reset may come before the bytes are read */
	fixture_stop(&f);
}

static void cancelled(void **state)
{
	(void)state;
	STEPS(1, {GOOD, 100 * KIB, SCRIPTED_STALL}, {GOOD, NOTHING, SCRIPTED_STALL});
	begin(&r, &f, SIZE, "E1", false);
	scripted_server_wait_requests(f.server, 2);
	cst_object_cancel(r.op);
	assert_int_equal(end(&r), -ECANCELED);
	assert_int_equal(r.in_flight, 0);
	fixture_stop(&f);
}

/* The first attempt stalls until its time limit ends; no second request is sent meanwhile. */
static void expect_none(struct fixture *f, const char *if_match, bool no_retry, int rc)
{
	struct reader r;
	f->bucket->request_timeout = CST_NS_PER_S;
	begin(&r, f, SIZE, if_match, no_retry);
	assert_int_equal(end(&r), rc);
	assert_int_equal(stats_of(f).hedges, 0);
}

static void none_without_credit(void **state)
{
	(void)state;
	STEPS(0, {GOOD, NOTHING, SCRIPTED_STALL}, {GOOD});
	expect_none(&f, "E1", false, 0);
	fixture_stop(&f);
}

/* The last credit is not spent on a head that is only late, but on one that stalls. */
static void reserve(void **state)
{
	(void)state;
	STEPS(1, {GOOD, NOTHING, SCRIPTED_STALL}, {GOOD});
	begin(&r, &f, SIZE, "E1", false);
	int64_t began = cst_now();
	assert_int_equal(end(&r), 0);
	assert_int_equal(stats_of(&f).hedges, 1);
	assert_true(cst_now() - began >= CST_NS_PER_S);
	fixture_stop(&f);
}

static void none_while_throttled(void **state)
{
	(void)state;
	STEPS(8, {GOOD, NOTHING, SCRIPTED_STALL}, {GOOD});
	f.bucket->limiter.limit = 4;
	expect_none(&f, "E1", false, 0);
	fixture_stop(&f);
}

static void none_without_a_version(void **state)
{
	(void)state;
	STEPS(8, {GOOD, NOTHING, SCRIPTED_STALL}, {GOOD});
	expect_none(&f, NULL, false, 0);
	fixture_stop(&f);
}

static void none_of_single_attempts(void **state)
{
	(void)state;
	STEPS(8, {GOOD, NOTHING, SCRIPTED_STALL}, {GOOD});
	expect_none(&f, "E1", true, -ETIMEDOUT);
	fixture_stop(&f);
}

/* Each GET earns a twentieth of a second request. */
static void earned(void **state)
{
	(void)state;
	STEPS(0, {GOOD});
	for (int i = 0; i < 45; i++) {
		begin(&r, &f, 4 * KIB, "E1", false);
		assert_int_equal(end(&r), 0);
	}
	unsigned credit = f.bucket->hedge_credit;
	assert_int_equal(credit + 20 * stats_of(&f).hedges, 45);
	fixture_stop(&f);
}

/* ---- all at once ---- */

#define LANES 12
#define ROUNDS 12

static enum scripted_end mixed(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	static const struct step steps[] = {
		{GOOD},
		{GOOD},
		{GOOD, NOTHING, SCRIPTED_STALL},
		{GOOD, 70 * KIB, SCRIPTED_STALL},
		{GOOD, 90 * KIB, SCRIPTED_CLOSE},
		{GOOD},
		{GOOD, NOTHING, SCRIPTED_RESET},
		{GOOD},
		{BUSY, 0, SCRIPTED_KEEP},
		{GOOD},
	};
	struct script one = {&steps[(n * 2654435761u >> 20) % CST_ARRAY_LEN(steps)], 1};
	(void)arg;
	return play(&one, 0, request, out);
}

struct lane {
	struct fixture *f;
	unsigned seed;
};

static void *lane_main(void *arg)
{
	struct lane *lane = arg;
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct reader r;
		begin(&r, lane->f, 200 * KIB, "E1", false);
		bool cancel = (lane->seed + i) % 7 == 0;
		if (cancel) {
			for (unsigned k = 0; k < (lane->seed * 37 + i * 11) % 300; k++)
				sched_yield();
			cst_object_cancel(r.op);
		}
		int rc = end(&r);
		CST_ASSERT(rc == 0 || (cancel && rc == -ECANCELED));
	}
	return NULL;
}

static void many_at_once(void **state)
{
	(void)state;
	struct cst_bucket_config config = {
		.cloud = CST_CLOUD_OSS, .hedge = true, .request_timeout = CST_NS_PER_S, .deadline = 300 * CST_NS_PER_S};
	struct fixture f;
	struct lane lanes[LANES];
	pthread_t threads[LANES];
	fixture_start(&f, mixed, NULL, &config);
	know_store(&f, 1000, 10);
	for (unsigned i = 0; i < LANES; i++) {
		lanes[i] = (struct lane){&f, i};
		assert_int_equal(pthread_create(&threads[i], NULL, lane_main, &lanes[i]), 0);
	}
	for (unsigned i = 0; i < LANES; i++)
		pthread_join(threads[i], NULL);
	assert_true(stats_of(&f).hedges > 0);
	assert_int_equal(f.bucket->bodies, 0);
	assert_int_equal(f.bucket->limiter.in_flight, 0);
	fixture_stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(late_head),
		cmocka_unit_test(stalled_body),
		cmocka_unit_test(first_wins),
		cmocka_unit_test(second_of_no_use),
		cmocka_unit_test(first_breaks),
		cmocka_unit_test(second_overtakes_and_breaks),
		cmocka_unit_test(second_stalls_too),
		cmocka_unit_test(both_fail),
		cmocka_unit_test(cancelled),
		cmocka_unit_test(none_without_credit),
		cmocka_unit_test(reserve),
		cmocka_unit_test(none_while_throttled),
		cmocka_unit_test(none_without_a_version),
		cmocka_unit_test(none_of_single_attempts),
		cmocka_unit_test(earned),
		cmocka_unit_test(many_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
