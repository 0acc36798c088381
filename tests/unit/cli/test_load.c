#include "cli/load_show.h"
#include "cli/load_targets.h"
#include "cli/mount_load.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

/* ---- what is asked for ---- */

static void urls(void **state)
{
	(void)state;
	struct cst_load_groups g = {0};
	struct cst_error err = CST_ERROR_INIT;
	assert_int_equal(cst_load_groups_add(&g, "oss://demo/a/b", &err), 0);
	assert_int_equal(cst_load_groups_add(&g, "OSS://demo/p/*.bin", &err), 0);
	assert_int_equal(cst_load_groups_add(&g, "oss://demo", &err), 0);
	assert_int_equal(cst_load_groups_add(&g, "oss://demo//odd/", &err), 0);
	assert_int_equal(cst_load_groups_add(&g, "s3://demo/x", &err), 0);
	assert_int_equal(cst_load_groups_add(&g, "oss://other/p\\*x", &err), 0);
	assert_int_equal(g.count, 3); /* a bucket each, of each cloud */
	assert_int_equal(g.items[0].targets.count, 4);
	assert_string_equal(g.items[0].targets.items[0], "a/b");
	assert_string_equal(g.items[0].targets.items[1], "p/*.bin");
	assert_string_equal(g.items[0].targets.items[2], "");
	/* Keys are taken as they are. */
	assert_string_equal(g.items[0].targets.items[3], "/odd/");
	assert_string_equal(g.items[0].url.prefix, "a/b");
	assert_int_equal(g.items[1].url.cloud, CST_CLOUD_S3);
	/* The check of the bucket lists what comes before the pattern: more may not be allowed. */
	assert_string_equal(g.items[2].url.prefix, "p");
	cst_load_groups_fini(&g);
}

static void bad_targets(void **state)
{
	(void)state;
	struct cst_load_groups g = {0};
	struct cst_error err = CST_ERROR_INIT;
	char url[1200] = "oss://demo/";
	memset(url + 11, 'k', 1024);
	assert_int_equal(cst_load_groups_add(&g, url, &err), -EINVAL);
	assert_int_equal(cst_load_groups_add(&g, "oss://X/y", &err), -EINVAL);
	assert_int_equal(cst_load_groups_add(&g, "/nonexistent/file", &err), -EINVAL);
	assert_non_null(strstr(err.why, "no mount of cistern"));
	cst_load_groups_fini(&g);
}

static char *file_with(const char *text, size_t len)
{
	char *path = cst_xstrdup("/tmp/cistern-list-XXXXXX");
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, len), (ssize_t)len);
	close(fd);
	return path;
}

static void lists(void **state)
{
	(void)state;
	struct cst_load_groups g = {0};
	struct cst_error err = CST_ERROR_INIT;
	static const char text[] = "a\r\n\nb c\noss://other/x\n*.bin";
	CST_AUTO_FREE char *path = file_with(text, sizeof(text) - 1);
	assert_int_equal(cst_load_groups_add_list(&g, path, false, "oss://demo", &err), 0);
	assert_int_equal(g.count, 2);
	assert_int_equal(g.items[0].targets.count, 3);
	assert_string_equal(g.items[0].targets.items[0], "a");
	assert_string_equal(g.items[0].targets.items[1], "b c");
	assert_string_equal(g.items[0].targets.items[2], "*.bin");
	assert_string_equal(g.items[1].targets.items[0], "x");
	cst_load_groups_fini(&g);
	assert_int_equal(cst_load_groups_add_list(&g, path, false, "oss://demo/p", &err), 0);
	assert_string_equal(g.items[0].targets.items[0], "p/a");
	cst_load_groups_fini(&g);
	assert_int_equal(cst_load_groups_add_list(&g, path, false, "oss://demo/p/", &err), 0);
	assert_string_equal(g.items[0].targets.items[0], "p/a");
	cst_load_groups_fini(&g);
	/* Without a base a line must say where it belongs. */
	assert_int_equal(cst_load_groups_add_list(&g, path, false, NULL, &err), -EINVAL);
	assert_non_null(strstr(err.why, "without a bucket"));
	cst_load_groups_fini(&g);
	unlink(path);
	assert_int_equal(cst_load_groups_add_list(&g, path, false, NULL, &err), -EINVAL);
	cst_load_groups_fini(&g);
}

static void lists_with_zero_bytes(void **state)
{
	(void)state;
	struct cst_load_groups g = {0};
	struct cst_error err = CST_ERROR_INIT;
	static const char text[] = "line\nbreak\0second";
	CST_AUTO_FREE char *path = file_with(text, sizeof(text) - 1);
	assert_int_equal(cst_load_groups_add_list(&g, path, true, "oss://demo", &err), 0);
	assert_int_equal(g.items[0].targets.count, 2);
	assert_string_equal(g.items[0].targets.items[0], "line\nbreak");
	assert_string_equal(g.items[0].targets.items[1], "second");
	cst_load_groups_fini(&g);
	unlink(path);
}

static void escaping(void **state)
{
	(void)state;
	CST_AUTO_BUF out = CST_BUF_INIT;
	cst_load_escape(&out, CST_SLICE("a*b?[c]\\d"));
	assert_string_equal(out.data, "a\\*b\\?\\[c]\\\\d");
}

/* ---- what is shown ---- */

static char *line(const struct cst_load_progress *p, double rate, unsigned columns)
{
	static char text[512];
	CST_AUTO_BUF out = CST_BUF_INIT;
	cst_load_show_line(p, rate, columns, &out);
	snprintf(text, sizeof(text), "%s", out.data);
	return text;
}

static void progress_lines(void **state)
{
	(void)state;
	struct cst_load_progress p = {.objects = 400,
				      .objects_done = 100,
				      .bytes = UINT64_C(4) << 30,
				      .bytes_done = UINT64_C(1) << 30,
				      .listed = true};
	assert_string_equal(line(&p, 512 << 20, 0), " 25 % 100/400 files 1.00GiB/4.00GiB 512.00MiB/s ETA 0:06");
	/* As long as more may be found there is no share and no end. */
	p.listed = false;
	assert_string_equal(line(&p, 512 << 20, 0), "100/400+ files 1.00GiB/4.00GiB+ 512.00MiB/s");
	p.listed = true;
	p.objects_failed = 2;
	p.objects_refused = 1;
	assert_non_null(strstr(line(&p, 1 << 20, 0), "ETA 51:12 3 failed"));
	p.bytes_done = p.bytes;
	p.objects_done = 397;
	assert_string_equal(line(&p, 0, 0), "100 % 397/400 files 4.00GiB/4.00GiB 0.00B/s 3 failed");
}

static void bars_fit(void **state)
{
	(void)state;
	struct cst_load_progress p = {
		.objects = 1000000, .objects_done = 999999, .bytes = UINT64_MAX / 2, .listed = true};
	for (unsigned columns = 2; columns < 300; columns++) {
		p.bytes_done = p.bytes / 300 * columns;
		const char *text = line(&p, 1e9, columns);
		assert_true(strlen(text) < columns);
		assert_true(columns < 100 || text[0] == '[');
	}
	/* Nothing to load is all of it; more done than known (an object grew) is no overflow. */
	struct cst_load_progress none = {.listed = true};
	assert_non_null(strstr(line(&none, 0, 0), "100 %"));
	struct cst_load_progress more = {.listed = true, .bytes = 10, .bytes_done = 20};
	assert_null(strstr(line(&more, 5, 0), "ETA"));
}

/* ---- what a mount answers ---- */

static int ask(struct cst_mount_loads *loads, const char *method, const char *target, struct cst_slice body,
	       struct cst_buf *json)
{
	cst_buf_clear(json);
	return cst_mount_loads_request(loads, cst_slice_of(method), cst_slice_of(target), body, json);
}

static void requests_to_a_mount(void **state)
{
	(void)state;
	struct cst_mount_loads_config config = {.prefix = ""};
	struct cst_mount_loads *loads = cst_mount_loads_new(&config);
	struct cst_slice none = {NULL, 0};
	CST_AUTO_BUF json = CST_BUF_INIT;
	assert_int_equal(ask(loads, "POST", "/loads?pin=1", CST_SLICE("a\0"), &json), 409);
	assert_non_null(strstr(json.data, "it has no cache on disk"));
	assert_int_equal(ask(loads, "GET", "/loads", none, &json), 200);
	assert_string_equal(json.data, "[]");
	assert_int_equal(ask(loads, "GET", "/loads/1", none, &json), 404);
	assert_int_equal(ask(loads, "GET", "/loads/x", none, &json), 404);
	assert_int_equal(ask(loads, "GET", "/loads/1/cancel", none, &json), 404);
	assert_int_equal(ask(loads, "POST", "/loads/1/pause", none, &json), 404);
	assert_int_equal(ask(loads, "GET", "/other", none, &json), 404);
	cst_mount_loads_free(loads);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(urls),	    cmocka_unit_test(bad_targets),
		cmocka_unit_test(lists),    cmocka_unit_test(lists_with_zero_bytes),
		cmocka_unit_test(escaping), cmocka_unit_test(progress_lines),
		cmocka_unit_test(bars_fit), cmocka_unit_test(requests_to_a_mount),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
