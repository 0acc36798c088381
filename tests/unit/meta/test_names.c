/* The store of a directory's names: what it finds, hides, forgets on a retry, and what an entry costs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "meta/names.h"

static void add(struct cst_names *n, const char *suffix, uint64_t size, int64_t mtime, const char *etag)
{
	struct cst_object_info info = {.size = size, .mtime = mtime, .type = CST_OBJECT_MULTIPART};
	snprintf(info.etag, sizeof(info.etag), "%s", etag);
	cst_names_add(n, cst_slice_of(suffix), suffix[strlen(suffix) - 1] == '/', &info);
}

static enum cst_names_found find(const struct cst_names *n, const char *name, size_t *i)
{
	return cst_names_find(n, cst_slice_of(name), i);
}

static void values_come_back(void **state)
{
	static const char *const etags[] = {"",
					    "5D41402ABC4B2A76B9719D911017C592",
					    "5d41402abc4b2a76b9719d911017c592",
					    "5D41402ABC4B2A76B9719D911017C592-1",
					    "5d41402abc4b2a76b9719d911017c592-123456789",
					    "5D41402abc4b2a76b9719d911017c592",
					    "5D41402ABC4B2A76B9719D911017C592-01",
					    "x",
					    "5D41402ABC4B2A76B9719D911017C592-",
					    "0123456789012345678901234567890123456789012345678901234567890123456789",
					    "00000000000000000000000000000000"};
	struct cst_names n = {0};
	struct cst_name_view view;
	char name[16];
	size_t at;
	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(etags); i++) {
		snprintf(name, sizeof(name), "n%02zu", i);
		add(&n, name, UINT64_MAX >> i, (int64_t)i * 1000000007, etags[i]);
	}
	cst_names_seal(&n, true);
	for (size_t i = 0; i < CST_ARRAY_LEN(etags); i++) {
		snprintf(name, sizeof(name), "n%02zu", i);
		assert_int_equal(find(&n, name, &at), CST_NAMES_FOUND);
		cst_names_get(&n, at, &view);
		assert_string_equal(view.etag, etags[i]);
		assert_true(view.size == UINT64_MAX >> i);
		assert_true(view.mtime == (int64_t)i * 1000000007);
		assert_int_equal(view.type, CST_OBJECT_MULTIPART);
		assert_int_equal(view.kind, CST_KIND_FILE);
	}
	cst_names_fini(&n);
}

static void pages_and_retries(void **state)
{
	struct cst_names n = {0};
	size_t at;
	(void)state;
	add(&n, "b", 1, 1, "e");
	assert_int_equal(find(&n, "b", &at), CST_NAMES_UNKNOWN); /* not sealed */
	cst_names_rollback(&n);
	assert_int_equal(cst_names_bytes(&n) > 0, n.cap > 0);
	add(&n, "c", 1, 1, "e");
	add(&n, "a", 1, 1, "e"); /* pages come unsorted: objects, then prefixes */
	add(&n, "b/", 0, 0, "");
	cst_names_seal(&n, false);
	assert_int_equal(find(&n, "a", &at), CST_NAMES_FOUND);
	assert_int_equal(at, 0);
	assert_int_equal(find(&n, "b", &at), CST_NAMES_FOUND);
	assert_int_equal(at, 1);
	assert_int_equal(find(&n, "aa", &at), CST_NAMES_ABSENT); /* passed */
	assert_int_equal(find(&n, "c0", &at), CST_NAMES_UNKNOWN);
	for (int i = 0; i < 100000; i++) { /* several chunks, then the page is retried */
		char name[32];
		snprintf(name, sizeof(name), "d%06d", i);
		add(&n, name, 1, 1, "5D41402ABC4B2A76B9719D911017C592");
	}
	assert_true(n.chunk_count > 2);
	cst_names_rollback(&n);
	assert_int_equal(n.chunk_count, 1);
	add(&n, "e", 1, 1, "e");
	cst_names_seal(&n, true);
	assert_int_equal(n.count, 4);
	assert_int_equal(find(&n, "e", &at), CST_NAMES_FOUND);
	assert_int_equal(find(&n, "d000000", &at), CST_NAMES_ABSENT);
	cst_names_doubt(&n, at = 0);
	assert_int_equal(find(&n, "a", &at), CST_NAMES_UNKNOWN);
	assert_int_equal(at, 0);
	cst_names_fini(&n);
}

static void store_out_of_order(void **state)
{
	struct cst_names n = {0};
	size_t at;
	(void)state;
	add(&n, "m", 1, 1, "e");
	cst_names_seal(&n, false);
	add(&n, "a", 1, 1, "e");
	cst_names_seal(&n, false);
	assert_int_equal(find(&n, "a", &at), CST_NAMES_FOUND);
	assert_int_equal(find(&n, "m", &at), CST_NAMES_FOUND);
	assert_int_equal(find(&n, "b", &at), CST_NAMES_UNKNOWN); /* nothing follows from what was not seen */
	cst_names_seal(&n, true);
	assert_int_equal(find(&n, "b", &at), CST_NAMES_ABSENT);
	cst_names_fini(&n);
}

static void a_million(void **state)
{
	const size_t count = 1000000;
	struct cst_names n = {0};
	char name[32];
	size_t at;
	(void)state;
	for (size_t i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "img_%08zu.jpg", i);
		add(&n, name, 110000 + i % 4096, 1700000000 + (int64_t)i, "5D41402ABC4B2A76B9719D911017C592");
		if (i % 1000 == 999)
			cst_names_seal(&n, i == count - 1);
	}
	size_t bytes = cst_names_bytes(&n);
	print_message("# %zu entries of 16 letters: %zu bytes, %.1f each\n", count, bytes,
		      (double)bytes / (double)count);
	assert_true(bytes < 52 * count);
	assert_int_equal(find(&n, "img_00777777.jpg", &at), CST_NAMES_FOUND);
	assert_int_equal(at, 777777);
	assert_int_equal(find(&n, "img_00777777.png", &at), CST_NAMES_ABSENT);
	cst_names_fini(&n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_come_back),
		cmocka_unit_test(pages_and_retries),
		cmocka_unit_test(store_out_of_order),
		cmocka_unit_test(a_million),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
