/* --fail: what is accepted, how often it strikes, that a run can be repeated. */
#include "store/fault.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

static void parses_rules(void **state)
{
	(void)state;
	struct cst_store_fault f;
	assert_int_equal(cst_store_fault_parse("0.25:503", &f, NULL), 0);
	assert_int_equal(f.kind, CST_STORE_FAULT_503);
	assert_int_equal(f.operation, -1);
	assert_true(f.threshold == UINT64_C(1) << 62);
	assert_int_equal(cst_store_fault_parse("1:reset:GetObject", &f, NULL), 0);
	assert_int_equal(f.kind, CST_STORE_FAULT_RESET);
	assert_int_equal(f.operation, CST_STORE_OP_GET_OBJECT);
	assert_true(f.threshold == UINT64_MAX);
	assert_int_equal(cst_store_fault_parse("50%:etag:listobjects", &f, NULL), 0);
	assert_int_equal(f.operation, CST_STORE_OP_LIST_OBJECTS);
	assert_true(f.threshold == UINT64_C(1) << 63);
	assert_int_equal(cst_store_fault_parse("0:slow", &f, NULL), 0);
	assert_int_equal(cst_store_fault_parse("1e-3:short:UploadPart", &f, NULL), 0);
}

static void refuses_other_texts(void **state)
{
	(void)state;
	static const char *const bad[] = {"",	     "503",	  "1.5:503", "-0.1:503", "x:503",
					  "nan:503", "0.1:",	  "0.1:404", "0.1:503:", "0.1:503:Nothing",
					  ":503",    "0.1%%:503", "0.1 :503"};
	for (size_t i = 0; i < CST_ARRAY_LEN(bad); i++) {
		struct cst_store_fault f;
		struct cst_error err = CST_ERROR_INIT;
		assert_true(cst_store_fault_parse(bad[i], &f, &err) < 0);
		assert_true(err.what[0] && err.why[0] && err.hint[0]);
	}
}

static unsigned strikes(const struct cst_store_fault *faults, size_t count, uint64_t seed, enum cst_store_operation op,
			enum cst_store_fault_kind kind)
{
	unsigned n = 0;
	for (uint64_t identity = 0; identity < 1000; identity++) {
		for (uint32_t attempt = 0; attempt < 100; attempt++) {
			uint64_t detail;
			n += cst_store_fault_decide(faults, count, seed, op, identity, attempt, &detail) == kind;
		}
	}
	return n;
}

static void strikes_at_its_rate(void **state)
{
	(void)state;
	struct cst_store_fault f[3];
	cst_store_fault_parse("0.02:reset:GetObject", &f[0], NULL);
	cst_store_fault_parse("0.5:503", &f[1], NULL);
	cst_store_fault_parse("1:slow:PutObject", &f[2], NULL);
	for (uint64_t seed = 0; seed < 3; seed++) {
		unsigned n = strikes(f, 3, seed, CST_STORE_OP_GET_OBJECT, CST_STORE_FAULT_RESET);
		assert_in_range(n, 1800, 2200);
		n = strikes(f, 3, seed, CST_STORE_OP_GET_OBJECT, CST_STORE_FAULT_503);
		assert_in_range(n, 48000, 50000); /* half of what the first rule left */
		assert_int_equal(strikes(f, 3, seed, CST_STORE_OP_GET_OBJECT, CST_STORE_FAULT_SLOW), 0);
		n = strikes(f, 3, seed, CST_STORE_OP_PUT_OBJECT, CST_STORE_FAULT_SLOW);
		assert_in_range(n, 49000, 51000);
		assert_int_equal(strikes(f, 3, seed, CST_STORE_OP_PUT_OBJECT, CST_STORE_FAULT_NONE), 0);
	}
	assert_int_equal(strikes(f, 0, 1, CST_STORE_OP_GET_OBJECT, CST_STORE_FAULT_NONE), 100000);
}

static void can_be_repeated(void **state)
{
	(void)state;
	struct cst_store_fault f;
	cst_store_fault_parse("0.5:short", &f, NULL);
	unsigned other_seed = 0, other_attempt = 0;
	for (uint64_t identity = 0; identity < 1000; identity++) {
		uint64_t a, b, c;
		enum cst_store_fault_kind first =
			cst_store_fault_decide(&f, 1, 7, CST_STORE_OP_GET_OBJECT, identity, 0, &a);
		assert_int_equal(cst_store_fault_decide(&f, 1, 7, CST_STORE_OP_GET_OBJECT, identity, 0, &b), first);
		assert_true(a == b);
		other_seed += cst_store_fault_decide(&f, 1, 8, CST_STORE_OP_GET_OBJECT, identity, 0, &c) != first;
		other_attempt += cst_store_fault_decide(&f, 1, 7, CST_STORE_OP_GET_OBJECT, identity, 1, &c) != first;
	}
	assert_in_range(other_seed, 400, 600);
	assert_in_range(other_attempt, 400, 600);
}

static uint64_t identity_of(const char *request)
{
	struct cst_http_head head;
	const char *why;
	assert_true(cst_http_parse_request(cst_slice_of(request), &head, &why) > 0);
	return cst_store_fault_identity(&head);
}

static void knows_the_same_request_again(void **state)
{
	(void)state;
	uint64_t a = identity_of("GET /b/k HTTP/1.1\r\nHost: h\r\nRange: bytes=0-9\r\nDate: today\r\n\r\n");
	assert_true(a == identity_of("GET /b/k HTTP/1.1\r\nHost: h\r\nDate: tomorrow\r\nrange: bytes=0-9\r\n\r\n"));
	assert_true(a ==
		    identity_of("GET /b/k?Signature=x&Expires=12 HTTP/1.1\r\nHost: h\r\nRange: bytes=0-9\r\n\r\n"));
	assert_true(a == identity_of("GET /b/k?X-Amz-Date=1 HTTP/1.1\r\nHost: h\r\nRange: bytes=0-9\r\n\r\n"));
	assert_true(a != identity_of("GET /b/k HTTP/1.1\r\nHost: h\r\nRange: bytes=0-8\r\n\r\n"));
	assert_true(a != identity_of("GET /b/k HTTP/1.1\r\nHost: h\r\n\r\n"));
	assert_true(a != identity_of("HEAD /b/k HTTP/1.1\r\nHost: h\r\nRange: bytes=0-9\r\n\r\n"));
	assert_true(identity_of("PUT /b/k?partNumber=1&uploadId=a HTTP/1.1\r\nHost: h\r\n\r\n") ==
		    identity_of("PUT /b/k?uploadId=b&partNumber=1 HTTP/1.1\r\nHost: h\r\n\r\n"));
	assert_true(identity_of("PUT /b/k?partNumber=1 HTTP/1.1\r\nHost: h\r\n\r\n") !=
		    identity_of("PUT /b/k?partNumber=2 HTTP/1.1\r\nHost: h\r\n\r\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parses_rules),
		cmocka_unit_test(refuses_other_texts),
		cmocka_unit_test(strikes_at_its_rate),
		cmocka_unit_test(can_be_repeated),
		cmocka_unit_test(knows_the_same_request_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
