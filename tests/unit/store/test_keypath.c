/* Keys and paths: one path a key, no path leads out, and what lies on disk reads back as the key. */
#include "store/keypath.h"

#include "base/buf.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const char *path_of(const char *key)
{
	static struct cst_buf path;

	assert_int_equal(cst_keypath_of(cst_slice_of(key), &path), 0);
	return path.data;
}

/* The inverse, by the rules of the header. */
static bool key_of(const char *path, struct cst_buf *key)
{
	struct cst_slice rest = cst_slice_of(path);
	size_t before = 0;
	bool first = true;

	while (rest.data) {
		struct cst_slice name = cst_slice_cut(&rest, '/');
		struct cst_slice part;

		switch (cst_keypath_name(name, before, &part)) {
		case CST_NAME_WHOLE:
			if (!first)
				cst_buf_add_char(key, '/');
			break;
		case CST_NAME_PIECE:
		case CST_NAME_TAIL:
			if (!first && !before)
				cst_buf_add_char(key, '/');
			break;
		default:
			return false;
		}
		first = false;
		before = cst_keypath_name(name, before, &part) == CST_NAME_PIECE ? before + part.len : 0;
		cst_buf_add_slice(key, part);
	}
	return true;
}

static void test_spellings(void **state)
{
	(void)state;
	assert_string_equal(path_of("docs/a.txt"), "docs/a.txt");
	assert_string_equal(path_of("a//b"), "a/.%/b");
	assert_string_equal(path_of("dir/"), "dir/.%");
	assert_string_equal(path_of("/x"), ".%/x");
	assert_string_equal(path_of("."), ".%x.");
	assert_string_equal(path_of("a/../b"), "a/.%x../b");
	assert_string_equal(path_of(".%f"), ".%x.%f");
	assert_string_equal(path_of("100%.cistern"), "100%.cistern");
}

static void test_refused(void **state)
{
	struct cst_buf path = CST_BUF_INIT;
	char long_key[CST_KEY_MAX + 2];

	(void)state;
	memset(long_key, '/', sizeof(long_key));
	assert_int_equal(cst_keypath_of((struct cst_slice){"", 0}, &path), -EINVAL);
	assert_int_equal(cst_keypath_of((struct cst_slice){"a\0b", 3}, &path), -EINVAL);
	assert_int_equal(cst_keypath_of((struct cst_slice){long_key, CST_KEY_MAX + 1}, &path), -ENAMETOOLONG);
	assert_int_equal(cst_keypath_of((struct cst_slice){long_key, CST_KEY_MAX}, &path), 0);
	assert_true(path.len < PATH_MAX);
	cst_buf_fini(&path);
}

static void test_hidden(void **state)
{
	static const char *const names[] = {".%e", ".%xplain", ".%tx", ".%lshort", ".%f2"};
	struct cst_slice part;

	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(names); i++)
		assert_int_equal(cst_keypath_name(cst_slice_of(names[i]), 0, &part), CST_NAME_HIDDEN);
	assert_int_equal(cst_keypath_name(CST_SLICE(".%f"), 0, &part), CST_NAME_SELF);
}

/* Few letters and many of those that matter, so that odd forms and collisions come often. */
static size_t random_key(unsigned *seed, char out[CST_KEY_MAX])
{
	static const char letters[] = "///..%%xflta\xff\x01";
	size_t len = 1 + (size_t)rand_r(seed) % (rand_r(seed) % 4 ? 12 : CST_KEY_MAX);
	bool flat = rand_r(seed) % 3 == 0;

	for (size_t i = 0; i < len; i++)
		out[i] = flat ? (char)('a' + rand_r(seed) % 2) : letters[(size_t)rand_r(seed) % (sizeof(letters) - 1)];
	return len;
}

static void test_round_trip(void **state)
{
	unsigned seed = 7;
	struct cst_buf path = CST_BUF_INIT;
	struct cst_buf back = CST_BUF_INIT;

	(void)state;
	for (int i = 0; i < 50000; i++) {
		char key[CST_KEY_MAX];
		struct cst_slice k = {key, random_key(&seed, key)};
		struct cst_slice rest;

		assert_int_equal(cst_keypath_of(k, &path), 0);
		rest = cst_buf_slice(&path);
		while (rest.data) {
			struct cst_slice name = cst_slice_cut(&rest, '/');

			assert_true(name.len > 0 && name.len <= 255);
			assert_false(cst_slice_is(name, ".") || cst_slice_is(name, "..") ||
				     cst_slice_is(name, CST_KEYPATH_SELF));
		}
		/* That the key comes back proves that no other key has this path. */
		cst_buf_clear(&back);
		assert_true(key_of(path.data, &back));
		assert_true(cst_slice_eq(cst_buf_slice(&back), k));
	}
	cst_buf_fini(&path);
	cst_buf_fini(&back);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spellings),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_hidden),
		cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
