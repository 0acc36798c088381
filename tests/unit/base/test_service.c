/* Errors, log, metrics, thread pool. */
#define CST_LOG_AREA "test"
#include "base/log.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void errors(void **state)
{
	(void)state;
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	assert_int_equal(cst_error_set(&err, ENOENT, "can't open %s", "a\nb"), -ENOENT);
	assert_string_equal(cst_error_text(&err, text, sizeof(text)), "can't open a b");
	cst_error_why(&err, "no such file");
	cst_error_hint(&err, "create it");
	assert_string_equal(cst_error_text(&err, text, sizeof(text)), "can't open a b: no such file; create it");
	cst_error_wrap(&err, "can't mount %s", "x");
	assert_string_equal(cst_error_text(&err, text, sizeof(text)), "can't mount x: no such file; create it");
	cst_error_set(&err, EIO, "inner");
	cst_error_wrap(&err, "outer");
	assert_string_equal(cst_error_text(&err, text, sizeof(text)), "outer: inner");
	cst_error_set(&err, EIO, "%s again", err.why); /* arguments inside the struct */
	assert_string_equal(err.what, "inner again");
	assert_int_equal(cst_error_set(NULL, EIO, "x"), -EIO);
	assert_string_equal(cst_error_text(&err, text, 4), "inn");
}

static char *read_file(const char *path)
{
	static char content[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	ssize_t n = read(fd, content, sizeof(content) - 1);
	close(fd);
	assert_true(n >= 0);
	content[n] = '\0';
	return content;
}

static void logging(void **state)
{
	(void)state;
	char path[] = "/tmp/cistern-log-XXXXXX", moved[64];
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	struct cst_log_config config = {.level = CST_LOG_INFO, .path = path};
	assert_int_equal(cst_log_init(&config, NULL), 0);
	cst_log_info("hello %d\nsecond \x1b", 1);
	cst_log_debug("not shown");
	char *content = read_file(path);
	assert_non_null(strstr(content, "Z info test: hello 1\\x0asecond \\x1b\n"));
	assert_null(strstr(content, "not shown"));

	snprintf(moved, sizeof(moved), "%s.1", path);
	assert_int_equal(rename(path, moved), 0);
	cst_log_reopen();
	cst_log_warn("after rotation");
	assert_non_null(strstr(read_file(path), "after rotation"));
	assert_null(strstr(read_file(moved), "after rotation"));

	config.json = true;
	assert_int_equal(cst_log_init(&config, NULL), 0);
	cst_log_error("a \"quoted\" word");
	assert_non_null(strstr(read_file(path), "\"level\":\"error\",\"area\":\"test\""));
	assert_non_null(strstr(read_file(path), "\"message\":\"a \\\"quoted\\\" word\"}\n"));

	struct cst_error err = CST_ERROR_INIT;
	config.path = "/nonexistent/x.log";
	assert_int_equal(cst_log_init(&config, &err), -ENOENT);
	assert_non_null(strstr(err.what, "/nonexistent/x.log"));
	config = (struct cst_log_config){.level = CST_LOG_WARN};
	assert_int_equal(cst_log_init(&config, NULL), 0);
	unlink(path);
	unlink(moved);

	struct cst_log_limit limit = {0};
	uint64_t left_out;
	assert_true(cst_log_allowed(&limit, 3600 * CST_NS_PER_S, &left_out));
	assert_int_equal(left_out, 0);
	assert_false(cst_log_allowed(&limit, 3600 * CST_NS_PER_S, &left_out));
	assert_false(cst_log_allowed(&limit, 3600 * CST_NS_PER_S, &left_out));
	limit.next = 0;
	assert_true(cst_log_allowed(&limit, 3600 * CST_NS_PER_S, &left_out));
	assert_int_equal(left_out, 2);

	enum cst_log_level level;
	assert_int_equal(cst_log_parse_level("dbg", &level), 0);
	assert_int_equal(level, CST_LOG_DEBUG);
	assert_int_equal(cst_log_parse_level("loud", &level), -EINVAL);
}

static void metrics(void **state)
{
	(void)state;
	struct cst_metric *get = cst_metric_counter("cistern_test_total", "op=\"get\"", "Operations.");
	struct cst_metric *size = cst_metric_gauge("cistern_test_bytes", NULL, "Size.");
	struct cst_metric *put = cst_metric_counter("cistern_test_total", "op=\"put\"", "Operations.");
	struct cst_metric *wait = cst_metric_seconds("cistern_test_seconds", NULL, "Wait.");
	assert_ptr_equal(get, cst_metric_counter("cistern_test_total", "op=\"get\"", "Operations."));
	cst_metric_add(get, 2);
	cst_metric_add(put, 3);
	cst_metric_set(size, 7);
	cst_metric_max(size, 5);
	cst_metric_max(size, 9);
	for (int i = 0; i < 100; i++)
		cst_metric_observe_ns(wait, i < 95 ? CST_NS_PER_MS : 1000 * CST_NS_PER_S);
	CST_AUTO_BUF out = CST_BUF_INIT;
	cst_metrics_write(&out);
	assert_non_null(strstr(out.data, "# HELP cistern_test_total Operations.\n# TYPE cistern_test_total counter\n"
					 "cistern_test_total{op=\"get\"} 2\ncistern_test_total{op=\"put\"} 3\n"));
	assert_non_null(strstr(out.data, "cistern_test_bytes 9\n"));
	assert_non_null(strstr(out.data, "cistern_test_seconds_bucket{le=\"0.001\"} 95\n"));
	assert_non_null(strstr(out.data, "cistern_test_seconds_bucket{le=\"+Inf\"} 100\n"));
	assert_non_null(strstr(out.data, "cistern_test_seconds_count 100\n"));
	assert_in_range(cst_metric_quantile_ns(wait, 0.5), CST_NS_PER_MS / 2, CST_NS_PER_MS);
	cst_buf_clear(&out);
	cst_metrics_write_json(&out);
	assert_non_null(strstr(out.data, "\"cistern_test_total{op=\\\"put\\\"}\": 3"));
}

static int jobs_run;
static void job(void *arg)
{
	(void)arg;
	__atomic_fetch_add(&jobs_run, 1, __ATOMIC_RELAXED);
}

static void pool(void **state)
{
	(void)state;
	struct cst_pool *p = cst_pool_new("test", 4);
	for (int i = 0; i < 1000; i++)
		cst_pool_submit(p, job, NULL);
	cst_pool_free(p);
	assert_int_equal(jobs_run, 1000);
	cst_pool_free(cst_pool_new("empty", 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(errors),
		cmocka_unit_test(logging),
		cmocka_unit_test(metrics),
		cmocka_unit_test(pool),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
