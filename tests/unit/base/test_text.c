/* Buffers, slices, encodings, quantities, times, digests. */
#include "base/clock.h"
#include "base/digest.h"
#include "base/text.h"
#include "base/units.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void sizes(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int rc;
		uint64_t bytes;
	} cases[] = {
		{"0", 0, 0},
		{"512MiB", 0, 512u << 20},
		{"10Gi", 0, UINT64_C(10) << 30},
		{"64k", 0, 64 << 10},
		{"8M", 0, 8 << 20},
		{"8MB", 0, 8 << 20},
		{"1.5GiB", 0, UINT64_C(3) << 29},
		{".5K", 0, 512},
		{"100B", 0, 100},
		{"18446744073709551615", 0, UINT64_MAX},
		{"18446744073709551616", -ERANGE, 0},
		{"16E", -ERANGE, 0},
		{"", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{" 1", -EINVAL, 0},
		{"1X", -EINVAL, 0},
		{"1KiBs", -EINVAL, 0},
		{"1 ", -EINVAL, 0},
		{"nan", -EINVAL, 0},
		{"0x10", -EINVAL, 0},
		{"1e3", -EINVAL, 0},
		{".", -EINVAL, 0},
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++) {
		uint64_t bytes = 0;
		print_message("# size %s\n", cases[i].text);
		assert_int_equal(cst_parse_size(cases[i].text, &bytes), cases[i].rc);
		assert_int_equal(bytes, cases[i].bytes);
	}
	uint64_t rate;
	assert_int_equal(cst_parse_rate("90MiB/s", &rate), 0);
	assert_int_equal(rate, 90 << 20);
	assert_int_equal(cst_parse_rate("/s", &rate), -EINVAL);
	char text[CST_SIZE_TEXT];
	cst_format_size(603034, text);
	assert_string_equal(text, "588.90KiB");
	cst_format_size(0, text);
	assert_string_equal(text, "0.00B");
}

static void durations(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int rc;
		int64_t ns;
	} cases[] = {
		{"20ms", 0, 20 * CST_NS_PER_MS},
		{"5s", 0, 5 * CST_NS_PER_S},
		{"5", 0, 5 * CST_NS_PER_S},
		{"2h", 0, 7200 * CST_NS_PER_S},
		{"1m30s", 0, 90 * CST_NS_PER_S},
		{"0.5s", 0, CST_NS_PER_S / 2},
		{"1d", 0, 86400 * CST_NS_PER_S},
		{"1m30", -EINVAL, 0},
		{"", -EINVAL, 0},
		{"-5s", -EINVAL, 0},
		{"5 s", -EINVAL, 0},
		{"300000000h", -ERANGE, 0},
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++) {
		int64_t ns = 0;
		print_message("# duration %s\n", cases[i].text);
		assert_int_equal(cst_parse_duration(cases[i].text, CST_NS_PER_S, &ns), cases[i].rc);
		assert_int_equal(ns, cases[i].ns);
	}
	bool flag;
	assert_int_equal(cst_parse_bool("Yes", &flag), 0);
	assert_true(flag);
	assert_int_equal(cst_parse_bool("2", &flag), -EINVAL);
	int64_t number;
	assert_int_equal(cst_parse_int("0755", 8, &number), 0);
	assert_int_equal(number, 0755);
	assert_int_equal(cst_parse_int("12x", 10, &number), -EINVAL);
	assert_int_equal(cst_parse_int("99999999999999999999", 10, &number), -ERANGE);
}

static void times(void **state)
{
	(void)state;
	char text[CST_TIME_TEXT];
	const int64_t s = 1672223261;
	int64_t back;
	cst_time_http(s, text);
	assert_string_equal(text, "Wed, 28 Dec 2022 10:27:41 GMT");
	assert_int_equal(cst_time_parse(text, strlen(text), &back), 0);
	assert_int_equal(back, s);
	cst_time_iso(s, text);
	assert_string_equal(text, "2022-12-28T10:27:41.000Z");
	assert_int_equal(cst_time_parse(text, strlen(text), &back), 0);
	assert_int_equal(back, s);
	cst_time_compact(s, text);
	assert_string_equal(text, "20221228T102741Z");
	assert_int_equal(cst_time_parse(text, strlen(text), &back), 0);
	assert_int_equal(back, s);
	assert_int_equal(cst_time_parse("2022-12-28T12:27:41+02:00", 25, &back), 0);
	assert_int_equal(back, s);
	static const char *const bad[] = {"",
					  "Wed, 28 Foo 2022 10:27:41 GMT",
					  "2022-12-28T10:27:41",
					  "2022-13-28T10:27:41Z",
					  "2022-12-28T25:27:41Z",
					  "Wed, 28 Dec 2022 10:27:41 GMT "};
	for (size_t i = 0; i < CST_ARRAY_LEN(bad); i++)
		assert_int_equal(cst_time_parse(bad[i], strlen(bad[i]), &back), -EINVAL);
	cst_time_http(INT64_MAX, text); /* damaged metadata must not overflow the room */
	cst_time_http(INT64_MIN, text);
}

static void encodings(void **state)
{
	(void)state;
	CST_AUTO_BUF b = CST_BUF_INIT;
	struct cst_slice all = {"a/b c+\xff~", 8};
	cst_text_url_encode(&b, all, true);
	assert_string_equal(b.data, "a/b%20c%2B%FF~");
	CST_AUTO_BUF back = CST_BUF_INIT;
	assert_int_equal(cst_text_url_decode(&back, cst_buf_slice(&b), false), 0);
	assert_true(cst_slice_eq(cst_buf_slice(&back), all));
	cst_buf_clear(&back);
	assert_int_equal(cst_text_url_decode(&back, CST_SLICE("a+b%2"), true), -EINVAL);
	assert_int_equal(cst_text_url_decode(&back, CST_SLICE("%zz"), true), -EINVAL);
	assert_int_equal(cst_text_url_decode(&back, CST_SLICE("a+b"), true), 0);
	assert_string_equal(back.data, "a b");

	for (size_t len = 0; len < 8; len++) {
		cst_buf_clear(&b);
		cst_buf_clear(&back);
		cst_text_base64(&b, "\x00\xff\x80zyxw", len);
		assert_int_equal(cst_text_unbase64(&back, cst_buf_slice(&b)), 0);
		assert_int_equal(back.len, len);
		assert_memory_equal(back.data ? back.data : "", "\x00\xff\x80zyxw", len);
	}
	assert_int_equal(cst_text_unbase64(&back, CST_SLICE("abc")), -EINVAL);
	assert_int_equal(cst_text_unbase64(&back, CST_SLICE("ab c")), -EINVAL);
	assert_int_equal(cst_text_unbase64(&back, CST_SLICE("a=bc")), -EINVAL);

	cst_buf_clear(&b);
	cst_text_xml_escape(&b, CST_SLICE("<a&\"'>\n\x01\xff\xc3\xa9"));
	assert_string_equal(b.data, "&lt;a&amp;&quot;&#39;&gt;&#10;??\xc3\xa9");
	cst_buf_clear(&b);
	cst_text_json_string(&b, CST_SLICE("a\"\\\n\xff\xc3\xa9"));
	assert_string_equal(b.data, "\"a\\\"\\\\\\u000a\\u00ff\xc3\xa9\"");
	cst_buf_clear(&b);
	cst_text_printable(&b, CST_SLICE("a\x1b[2J\xc2\x9b\xff\xc3\xa9"));
	assert_string_equal(b.data, "a\\x1b[2J\\xc2\\x9b\\xff\xc3\xa9");
	assert_true(cst_text_is_utf8(CST_SLICE("\xf0\x9f\x98\x80")));
	assert_false(cst_text_is_utf8(CST_SLICE("\xed\xa0\x80")));
	assert_false(cst_text_is_utf8(CST_SLICE("\xc0\x80")));
	uint8_t raw[2];
	assert_int_equal(cst_text_unhex(CST_SLICE("0aFf"), raw, 2), 0);
	assert_memory_equal(raw, "\x0a\xff", 2);
	assert_int_equal(cst_text_unhex(CST_SLICE("0aFg"), raw, 2), -EINVAL);
	assert_int_equal(cst_text_unhex(CST_SLICE("0a"), raw, 2), -EINVAL);
}

static void slices(void **state)
{
	(void)state;
	struct cst_slice rest = CST_SLICE("a,,b");
	assert_true(cst_slice_is(cst_slice_cut(&rest, ','), "a"));
	assert_true(cst_slice_is(cst_slice_cut(&rest, ','), ""));
	assert_non_null(rest.data);
	assert_true(cst_slice_is(cst_slice_cut(&rest, ','), "b"));
	assert_null(rest.data);
	assert_true(cst_slice_is(cst_slice_trim(CST_SLICE(" \ta b ")), "a b"));
	assert_true(cst_slice_ieq(CST_SLICE("ETag"), CST_SLICE("etag")));
	CST_AUTO_BUF b = CST_BUF_INIT;
	for (int i = 0; i < 1000; i++)
		cst_buf_printf(&b, "%d,", i);
	assert_int_equal(b.len, 10 * 2 + 90 * 3 + 900 * 4);
	cst_buf_consume(&b, 4);
	assert_memory_equal(b.data, "2,3,", 4);
}

static void digests(void **state)
{
	(void)state;
	assert_true(cst_crc64(0, "123456789", 9) == UINT64_C(11051210869376104954));
	assert_int_equal(cst_crc32c(0, "123456789", 9), 0xe3069283u);
	assert_int_equal(cst_crc32(0, "123456789", 9), 0xcbf43926u);
	/* In pieces and combined it must be the same, whatever the cut. */
	char data[3000];
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (char)(i * 131 + (i >> 3));
	uint64_t whole = cst_crc64(0, data, sizeof(data));
	for (size_t cut = 0; cut <= sizeof(data); cut += 37) {
		uint64_t a = cst_crc64(0, data, cut), b = cst_crc64(0, data + cut, sizeof(data) - cut);
		assert_true(cst_crc64(a, data + cut, sizeof(data) - cut) == whole);
		assert_true(cst_crc64_combine(a, b, sizeof(data) - cut) == whole);
	}
	/* "1234" and "56789"; then lengths that nobody reads: zeros, doubled, and taken apart another way. */
	assert_true(cst_crc64_combine(cst_crc64(0, "1234", 4), cst_crc64(0, "56789", 5), 5) ==
		    UINT64_C(11051210869376104954));
	assert_true(cst_crc64_combine(7, 9, 0) == (7 ^ 9));
	memset(data, 0, sizeof(data));
	uint64_t zeros = cst_crc64(0, data, 1);
	for (unsigned k = 0; k < 63; k++) {
		if (k < 11)
			assert_true(zeros == cst_crc64(0, data, 1u << k));
		uint64_t n = UINT64_C(1) << k, left = cst_crc64_combine(cst_crc64_combine(whole, zeros, n), 12345, n),
			 right = cst_crc64_combine(whole, cst_crc64_combine(zeros, 12345, n), 2 * n);
		assert_true(left == right);
		zeros = cst_crc64_combine(zeros, zeros, n);
	}
	uint8_t out[32];
	CST_AUTO_BUF hex = CST_BUF_INIT;
	struct cst_digest *d = cst_digest_new(CST_DIGEST_MD5);
	cst_digest_update(d, "ab", 2);
	cst_digest_update(d, "c", 1);
	assert_int_equal(cst_digest_final(d, out), 16);
	cst_digest_free(d);
	cst_text_hex(&hex, out, 16);
	assert_string_equal(hex.data, "900150983cd24fb0d6963f7d28e17f72");
	cst_buf_clear(&hex);
	cst_hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28, out); /* RFC 4231, case 2 */
	cst_text_hex(&hex, out, 32);
	assert_string_equal(hex.data, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes),     cmocka_unit_test(durations), cmocka_unit_test(times),
		cmocka_unit_test(encodings), cmocka_unit_test(slices),	  cmocka_unit_test(digests),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
