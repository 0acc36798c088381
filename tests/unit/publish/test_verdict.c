/* The table of doc/publish.md, a case per cell. */
#include "publish/verdict.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void test_answers(void **state)
{
	(void)state;
	static const struct {
		int rc;
		enum cst_publish_verdict verdict;
	} cases[] = {
		{0, CST_VERDICT_PUBLISHED},	  {-EEXIST, CST_VERDICT_LOOK},	    {-ESTALE, CST_VERDICT_LOOK},
		{-ENOENT, CST_VERDICT_LOOK},	  {-EACCES, CST_VERDICT_FAILED},    {-EDQUOT, CST_VERDICT_FAILED},
		{-EIO, CST_VERDICT_FAILED},	  {-ETIMEDOUT, CST_VERDICT_FAILED}, {-EBADMSG, CST_VERDICT_FAILED},
		{-ECANCELED, CST_VERDICT_FAILED}, {-EROFS, CST_VERDICT_FAILED},	    {-ENXIO, CST_VERDICT_FAILED},
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++)
		assert_int_equal(cst_publish_judge(cases[i].rc), cases[i].verdict);
}

static void test_before(void **state)
{
	(void)state;
	assert_int_equal(cst_publish_judge_before(CST_SEEN_BASE), CST_VERDICT_AGAIN);
	assert_int_equal(cst_publish_judge_before(CST_SEEN_BEFORE), CST_VERDICT_AGAIN);
	assert_int_equal(cst_publish_judge_before(CST_SEEN_OURS), CST_VERDICT_PUBLISHED);
	assert_int_equal(cst_publish_judge_before(CST_SEEN_OTHER), CST_VERDICT_CONFLICT);
	assert_int_equal(cst_publish_judge_before(CST_SEEN_GONE), CST_VERDICT_CONFLICT);
}

static void test_refusals(void **state)
{
	(void)state;
	enum cst_publish_verdict p = CST_VERDICT_PUBLISHED, c = CST_VERDICT_CONFLICT, a = CST_VERDICT_AGAIN,
				 l = CST_VERDICT_LOST;
	static const enum cst_publish_seen seen[] = {CST_SEEN_BASE, CST_SEEN_OURS, CST_SEEN_BEFORE, CST_SEEN_OTHER,
						     CST_SEEN_GONE};
	const struct {
		enum cst_publish_request request;
		bool gone;
		enum cst_publish_verdict verdicts[5];
	} cases[] = {
		{CST_PUBLISH_PUT, false, {a, p, a, c, c}},
		{CST_PUBLISH_COMPLETE, false, {a, p, a, c, c}},
		{CST_PUBLISH_COMPLETE, true, {l, p, l, l, l}},
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++)
		for (size_t k = 0; k < CST_ARRAY_LEN(seen); k++)
			assert_int_equal(cst_publish_judge_seen(cases[i].request, cases[i].gone, seen[k]),
					 cases[i].verdicts[k]);
}

static void test_seen(void **state)
{
	(void)state;
	struct cst_publish_looked none = {.base_etag = "", .id = "me", .size = 10, .crc64 = 7, .has_crc64 = true};
	struct cst_publish_looked base = none;
	base.base_exists = true;
	base.base_etag = "E1";
	const struct {
		const struct cst_publish_looked *looked;
		bool found;
		const char *etag, *id;
		uint64_t size;
		bool has_crc;
		uint64_t crc;
		bool before;
		enum cst_publish_seen seen;
	} cases[] = {
		{&none, false, "", "", 0, false, 0, false, CST_SEEN_BASE},
		{&base, false, "", "", 0, false, 0, false, CST_SEEN_GONE},
		{&none, true, "E2", "me", 10, true, 7, false, CST_SEEN_OURS},
		{&none, true, "E2", "me", 10, false, 0, false, CST_SEEN_OURS},
		{&base, true, "E2", "me", 10, true, 7, false, CST_SEEN_OURS},
		{&none, true, "E2", "me", 10, true, 8, false, CST_SEEN_BEFORE}, /* broken on its way */
		{&none, true, "E2", "me", 11, true, 7, false, CST_SEEN_OTHER},	/* somebody has appended */
		{&none, true, "E2", "", 10, true, 7, false, CST_SEEN_OTHER},
		{&none, true, "E2", "you", 10, true, 7, false, CST_SEEN_OTHER},
		{&base, true, "E1", "", 3, true, 3, false, CST_SEEN_BASE},
		{&base, true, "E1", "you", 3, true, 3, false, CST_SEEN_BASE},
		{&base, true, "E2", "you", 3, true, 3, false, CST_SEEN_OTHER},
		{&base, true, "E2", "me-before", 3, true, 3, true, CST_SEEN_BEFORE},
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++)
		assert_int_equal(cst_publish_classify(cases[i].looked, cases[i].found, cases[i].etag, cases[i].id,
						      cases[i].size, cases[i].has_crc, cases[i].crc, cases[i].before),
				 cases[i].seen);
	struct cst_publish_looked unknown = base;
	unknown.base_etag = "";
	assert_int_equal(cst_publish_classify(&unknown, true, "E9", "", 3, false, 0, false), CST_SEEN_BASE);
}

static void test_ids(void **state)
{
	char a[WRITE_ID_MAX], b[WRITE_ID_MAX];
	(void)state;
	cst_write_id_new(a);
	cst_write_id_new(b);
	assert_int_equal(strlen(a), 32);
	assert_int_equal(strspn(a, "0123456789abcdef"), 32);
	assert_string_not_equal(a, b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers), cmocka_unit_test(test_before), cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_seen),	cmocka_unit_test(test_ids),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
