/* The retry table, the pauses, the limiter. */
#include "object/retry.h"

#include "base/cleanup.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void table(void **state)
{
	(void)state;
	static const struct {
		int status;
		const char *code;
		int error;
		enum cst_retry_action action;
	} rows[] = {
		{404, "NoSuchKey", ENOENT, CST_RETRY_FAIL},
		{404, "NoSuchBucket", ENXIO, CST_RETRY_FAIL},
		{404, "", ENOENT, CST_RETRY_FAIL},
		{405, "", ENOENT, CST_RETRY_FAIL},
		{403, "AccessDenied", EACCES, CST_RETRY_FAIL},
		{403, "", EACCES, CST_RETRY_RENEW},
		{403, "SomethingElse", EACCES, CST_RETRY_FAIL},
		{401, "", EACCES, CST_RETRY_RENEW},
		{403, "SecurityTokenExpired", EACCES, CST_RETRY_RENEW},
		{400, "ExpiredToken", EACCES, CST_RETRY_RENEW},
		{403, "RequestTimeTooSkewed", EACCES, CST_RETRY_SKEW},
		{412, "", ESTALE, CST_RETRY_FAIL},
		{416, "", ERANGE, CST_RETRY_FAIL},
		{403, "InvalidObjectState", EIO, CST_RETRY_FAIL},
		{400, "", EINVAL, CST_RETRY_FAIL},
		{408, "", EIO, CST_RETRY_AGAIN},
		{400, "RequestTimeout", EIO, CST_RETRY_AGAIN},
		{429, "", EIO, CST_RETRY_THROTTLE},
		{500, "InternalError", EIO, CST_RETRY_AGAIN},
		{501, "", ENOTSUP, CST_RETRY_FAIL},
		{502, "", EIO, CST_RETRY_AGAIN},
		{503, "", EIO, CST_RETRY_AGAIN},
		{503, "ServiceUnavailable", EIO, CST_RETRY_AGAIN},
		{503, "SlowDown", EIO, CST_RETRY_THROTTLE},
		{503, "DownloadTrafficRateLimitExceeded", EIO, CST_RETRY_THROTTLE},
		{503, "MetaOperationQpsLimitExceeded", EIO, CST_RETRY_THROTTLE},
		{503, "TotalQpsLimitExceeded", EIO, CST_RETRY_THROTTLE},
		{503, "CpuLimitExceeded", EIO, CST_RETRY_THROTTLE},
		{301, "", EINVAL, CST_RETRY_FAIL},
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(rows); i++) {
		struct cst_retry_verdict v = cst_retry_status(rows[i].status, rows[i].code);
		assert_int_equal(v.error, rows[i].error);
		assert_int_equal(v.action, rows[i].action);
	}
	assert_int_equal(cst_retry_transport(-ECANCELED).action, CST_RETRY_FAIL);
	assert_int_equal(cst_retry_transport(-EINVAL).action, CST_RETRY_FAIL);
	assert_int_equal(cst_retry_transport(-ECONNRESET).action, CST_RETRY_AGAIN);
	assert_int_equal(cst_retry_transport(-EPIPE).max_attempts, 0);
	assert_true(cst_retry_transport(-EPROTO).max_attempts > 0);
	assert_true(cst_retry_transport(-EBADMSG).max_attempts > 0);
}

static void pauses(void **state)
{
	(void)state;
	const int64_t ms = 1000000;
	static const int64_t tops[] = {200, 200, 400, 800, 1600, 3200, 6400, 12800, 20000, 20000};
	for (unsigned attempt = 0; attempt < CST_ARRAY_LEN(tops); attempt++) {
		uint64_t top = (uint64_t)(tops[attempt] * ms);
		assert_int_equal(cst_retry_delay(attempt, CST_RETRY_BASE_NS, CST_RETRY_CAP_NS, 0), 0);
		assert_int_equal(cst_retry_delay(attempt, CST_RETRY_BASE_NS, CST_RETRY_CAP_NS, top), top);
		assert_int_equal(cst_retry_delay(attempt, CST_RETRY_BASE_NS, CST_RETRY_CAP_NS, top + 1), 0);
	}
	assert_int_equal(cst_retry_delay(4000000000U, CST_RETRY_BASE_NS, CST_RETRY_CAP_NS, 7), 7);
	assert_int_equal(cst_retry_delay(3, 0, 0, 7), 0);
}

static void limiter(void **state)
{
	(void)state;
	struct cst_limiter l = {.in_flight = 64};
	assert_true(cst_limiter_may_start(&l));
	assert_true(cst_limiter_throttled(&l, 100, 200));
	assert_true(l.limit == 32);
	assert_false(cst_limiter_may_start(&l));
	assert_false(cst_limiter_throttled(&l, 150, 210)); /* began before the cut: the same overload */
	assert_true(l.limit == 32);
	l.in_flight = 32;
	assert_true(cst_limiter_throttled(&l, 220, 230));
	assert_true(l.limit == 16);
	for (int i = 0; i < 17; i++)
		cst_limiter_succeeded(&l);
	assert_true(l.limit > 16.9 && l.limit < 17.2); /* one more a round */
	l.in_flight = 1;
	for (int i = 0; i < 10; i++)
		cst_limiter_throttled(&l, 1000 + 10 * i, 1005 + 10 * i);
	assert_true(l.limit == 1); /* never nothing */
	l.in_flight = 0;
	assert_true(cst_limiter_may_start(&l));
	for (int i = 0; i < 100000 && l.limit > 0; i++)
		cst_limiter_succeeded(&l);
	assert_true(l.limit == 0); /* and free again */
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(table), cmocka_unit_test(pauses),
					   cmocka_unit_test(limiter)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
