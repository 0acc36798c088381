/* Names remembered as absent: how long, how many, and who makes them forgotten. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "meta/absent.h"

#include <stdio.h>

static bool has(struct cst_absent *a, const char *dir, const char *name, int64_t now)
{
	int64_t at = -1;
	bool found = cst_absent_find(a, cst_slice_of(dir), name, now, &at);
	assert_true(found == (at >= 0));
	return found;
}

static void ages(void **state)
{
	struct cst_absent *a = cst_absent_new(10, 100);
	int64_t at;
	(void)state;
	assert_false(has(a, "p/", "x", 5));
	cst_absent_add(a, CST_SLICE("p/"), "x", 5);
	assert_true(cst_absent_find(a, CST_SLICE("p/"), "x", 14, &at));
	assert_int_equal(at, 5);
	assert_false(has(a, "p/", "x", 15));
	assert_int_equal(cst_absent_count(a), 0); /* too old, so gone */
	cst_absent_add(a, CST_SLICE("p/"), "x", 5);
	cst_absent_add(a, CST_SLICE("p/"), "x", 9); /* the newer counts */
	assert_int_equal(cst_absent_count(a), 1);
	assert_true(has(a, "p/", "x", 18));
	assert_false(has(a, "", "x", 9));
	assert_false(has(a, "p/", "xx", 9));
	cst_absent_free(a);
}

static void room(void **state)
{
	struct cst_absent *a = cst_absent_new(1000, 10000);
	char name[32];
	(void)state;
	for (int i = 0; i < 30000; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		cst_absent_add(a, CST_SLICE("dir/"), name, i % 7);
	}
	assert_int_equal(cst_absent_count(a), 10000);
	assert_false(has(a, "dir/", "n19999", 7));
	assert_true(has(a, "dir/", "n20000", 7));
	assert_true(has(a, "dir/", "n29999", 7));
	cst_absent_free(a);
}

static void forgotten(void **state)
{
	struct cst_absent *a = cst_absent_new(1000, 100);
	(void)state;
	cst_absent_add(a, CST_SLICE(""), "x", 1);
	cst_absent_add(a, CST_SLICE("a/"), "x", 1);
	cst_absent_add(a, CST_SLICE("a/b/"), "x", 1);
	cst_absent_add(a, CST_SLICE("ab/"), "x", 1);
	cst_absent_drop(a, CST_SLICE("a/"), "y");
	assert_int_equal(cst_absent_count(a), 4);
	cst_absent_drop(a, CST_SLICE("a/"), "x");
	assert_false(has(a, "a/", "x", 2));
	cst_absent_clear(a, CST_SLICE("a/"));
	assert_false(has(a, "a/b/", "x", 2));
	assert_true(has(a, "ab/", "x", 2));
	assert_true(has(a, "", "x", 2));
	cst_absent_clear(a, CST_SLICE(""));
	assert_int_equal(cst_absent_count(a), 0);
	cst_absent_free(a);
}

static void switched_off(void **state)
{
	(void)state;
	assert_null(cst_absent_new(0, 100));
	assert_null(cst_absent_new(100, 0));
	cst_absent_add(NULL, CST_SLICE(""), "x", 1);
	assert_false(has(NULL, "", "x", 1));
	cst_absent_drop(NULL, CST_SLICE(""), "x");
	cst_absent_clear(NULL, CST_SLICE(""));
	cst_absent_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ages),
		cmocka_unit_test(room),
		cmocka_unit_test(forgotten),
		cmocka_unit_test(switched_off),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
