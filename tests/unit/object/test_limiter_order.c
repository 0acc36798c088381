/* While the store throttles, operations start in the order in which they came; and one answer doesn't silence them all for long. */
#include "bucket_fixture.h"

#include "base/clock.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define CHAIN 40

static enum scripted_end good(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	(void)arg, (void)n, (void)request;
	scripted_answer(out, 206, "ETag: \"e\"\r\nContent-Range: bytes 0-3/4\r\n", "good");
	return SCRIPTED_KEEP;
}

/* A reader that asks for its next range from the callback of the one before, as a busy stream does. */
struct chain {
	struct fixture f;
	struct outcome over;
	char buffer[4];
	unsigned left; /* atomic */
};

static void chain_done(void *arg, int rc, size_t got, const struct cst_object_info *info, const struct cst_error *err)
{
	struct chain *c = arg;
	/* The limit stays: the store goes on complaining to others. */
	pthread_mutex_lock(&c->f.bucket->lock);
	c->f.bucket->limiter.limit = 1;
	pthread_mutex_unlock(&c->f.bucket->lock);
	if (__atomic_sub_fetch(&c->left, 1, __ATOMIC_ACQ_REL) == 0) {
		outcome_get(&c->over, rc, got, info, err);
		return;
	}
	struct iovec into = {c->buffer, 4};
	struct cst_object_get get = {.key = CST_SLICE("k"), .length = 4, .into = &into, .into_count = 1};
	cst_object_release(cst_object_get(c->f.bucket, &get, chain_done, c));
}

static unsigned left_at_other;

static void other_done(void *arg, int rc, size_t got, const struct cst_object_info *info, const struct cst_error *err)
{
	struct chain *c = arg;
	(void)rc, (void)got, (void)info, (void)err;
	__atomic_store_n(&left_at_other, __atomic_load_n(&c->left, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
}

static void new_ones_do_not_overtake(void **state)
{
	(void)state;
	static struct chain c;
	char buffer[4];
	struct iovec into = {c.buffer, 4}, other_into = {buffer, 4};
	struct cst_object_get get = {.key = CST_SLICE("k"), .length = 4, .into = &into, .into_count = 1};
	c.left = CHAIN;
	outcome_init(&c.over);
	fixture_start(&c.f, good, NULL, NULL);
	/* One place, and it is taken until both are in: the other one queues behind the chain's first. */
	c.f.bucket->limiter.limit = 1;
	c.f.bucket->limiter.in_flight = 1;
	struct cst_object_op *first = cst_object_get(c.f.bucket, &get, chain_done, &c);
	get.into = &other_into;
	struct cst_object_op *other = cst_object_get(c.f.bucket, &get, other_done, &c);
	pthread_mutex_lock(&c.f.bucket->lock);
	c.f.bucket->limiter.in_flight = 0;
	pthread_mutex_unlock(&c.f.bucket->lock);
	struct outcome third;
	assert_int_equal(fixture_read(&c.f, 0, 4, NULL, (char[4]){0}, &third), 0); /* starts them, and waits its turn */
	outcome_wait(&c.over);
	assert_int_equal(c.over.rc, 0);
	assert_true(__atomic_load_n(&left_at_other, __ATOMIC_ACQUIRE) >= CHAIN - 2);
	cst_object_release(first);
	cst_object_release(other);
	outcome_fini(&third);
	outcome_fini(&c.over);
	fixture_stop(&c.f);
}

static enum scripted_end quiet_for_an_hour(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	(void)arg, (void)n, (void)request;
	scripted_answer(out, 503, "Retry-After: 3600\r\n", "<Error><Code>SlowDown</Code></Error>");
	return SCRIPTED_KEEP;
}

static void one_answer_does_not_silence_all(void **state)
{
	(void)state;
	struct fixture f;
	struct outcome o;
	char buffer[4];
	fixture_start(&f, quiet_for_an_hour, NULL, NULL);
	assert_int_equal(fixture_read(&f, 0, 4, NULL, buffer, &o), -ETIMEDOUT); /* the wait would pass its deadline */
	pthread_mutex_lock(&f.bucket->lock);
	int64_t until = f.bucket->limiter.pause_until;
	pthread_mutex_unlock(&f.bucket->lock);
	assert_true(until > 0 && until <= cst_now() + 60 * CST_NS_PER_S);
	outcome_fini(&o);
	fixture_stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(new_ones_do_not_overtake),
					   cmocka_unit_test(one_answer_does_not_silence_all)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
