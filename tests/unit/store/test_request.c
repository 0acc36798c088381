/* What requests say: ranges, ETags, copy sources, aws-chunked bodies, checksums, XML. */
#include "store/checksum.h"
#include "store/chunked.h"
#include "store/request.h"
#include "store/xml_in.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void test_ranges(void **state)
{
	static const struct {
		const char *text;
		bool strict;
		enum cst_range_kind kind;
		uint64_t offset, length;
	} cases[] = {
		{"bytes=0-9", true, CST_RANGE_OK, 0, 10},
		{"bytes=5-", true, CST_RANGE_OK, 5, 95},
		{"bytes=-5", true, CST_RANGE_OK, 95, 5},
		{"bytes=-500", true, CST_RANGE_OK, 0, 100},
		{"bytes=90-200", true, CST_RANGE_OK, 90, 10},
		{"bytes=90-200", false, CST_RANGE_NONE, 0, 0},
		{"bytes=100-", true, CST_RANGE_UNSATISFIABLE, 0, 0},
		{"bytes=100-", false, CST_RANGE_NONE, 0, 0},
		{"bytes=-0", true, CST_RANGE_UNSATISFIABLE, 0, 0},
		{"bytes=9-5", true, CST_RANGE_NONE, 0, 0},
		{"bytes=1", true, CST_RANGE_NONE, 0, 0},
		{"bytes=0-1,5-6", true, CST_RANGE_NONE, 0, 0},
		{"bytes=99-99", false, CST_RANGE_OK, 99, 1},
		{"bytes=99999999999999999999-", true, CST_RANGE_UNSATISFIABLE, 0, 0},
		{"bytes=2-18446744073709551615", true, CST_RANGE_OK, 2, 98},
		{"bytes=2-18446744073709551615", false, CST_RANGE_NONE, 0, 0},
		{"bytes=-18446744073709551616", true, CST_RANGE_OK, 0, 100},
		{"chunks=0-1", true, CST_RANGE_NONE, 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++) {
		uint64_t offset = 0;
		uint64_t length = 0;
		enum cst_range_kind kind =
			cst_request_range(cst_slice_of(cases[i].text), 100, cases[i].strict, &offset, &length);

		assert_int_equal(kind, cases[i].kind);
		if (kind == CST_RANGE_OK) {
			assert_int_equal(offset, cases[i].offset);
			assert_int_equal(length, cases[i].length);
		}
	}
}

static void test_etags(void **state)
{
	(void)state;
	assert_true(cst_request_etag_listed(CST_SLICE("\"ABC\""), "abc"));
	assert_true(cst_request_etag_listed(CST_SLICE("x, abc"), "abc"));
	assert_true(cst_request_etag_listed(CST_SLICE("*"), "abc"));
	assert_false(cst_request_etag_listed(CST_SLICE("\"abcd\""), "abc"));
	assert_false(cst_request_etag_listed(CST_SLICE(""), "abc"));
}

static void test_copy_sources(void **state)
{
	CST_AUTO_BUF buf = CST_BUF_INIT;
	struct cst_slice bucket;
	struct cst_slice key;

	(void)state;
	assert_int_equal(cst_request_copy_source(CST_SLICE("/b/a%2Fb%20c?versionId=null"), &buf, &bucket, &key), 0);
	assert_true(cst_slice_is(bucket, "b") && cst_slice_is(key, "a/b c"));
	assert_int_equal(cst_request_copy_source(CST_SLICE("b/k"), &buf, &bucket, &key), 0);
	assert_int_equal(cst_request_copy_source(CST_SLICE("/b"), &buf, &bucket, &key), -EINVAL);
	assert_int_equal(cst_request_copy_source(CST_SLICE("/b/%zz"), &buf, &bucket, &key), -EINVAL);
	assert_int_equal(cst_request_copy_source(CST_SLICE(""), &buf, &bucket, &key), -EINVAL);
}

/* Feeds the body `step` bytes at a time; returns the last event. */
static enum cst_chunk_event decode(struct cst_slice body, size_t step, struct cst_buf *data, struct cst_buf *trailer)
{
	struct cst_chunked c = {0};
	enum cst_chunk_event e = CST_CHUNK_MORE;

	for (size_t at = 0; at < body.len && e != CST_CHUNK_DONE && e != CST_CHUNK_BAD; at += step) {
		struct cst_slice in = {body.data + at, cst_min(step, body.len - at)};

		do {
			e = cst_chunked_next(&c, &in);
			if (e == CST_CHUNK_DATA)
				cst_buf_add_slice(data, c.data);
			if (e == CST_CHUNK_TRAILER)
				cst_buf_add_slice(trailer, c.line);
		} while (e != CST_CHUNK_MORE && e != CST_CHUNK_DONE && e != CST_CHUNK_BAD);
	}
	cst_chunked_fini(&c);
	return e;
}

static void test_chunks(void **state)
{
	struct cst_slice body =
		CST_SLICE("4;chunk-signature=0123456789012345678901234567890123456789012345678901234567890123\r\n"
			  "ab\r\n\r\n3\r\nxyz\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n");

	(void)state;
	for (size_t step = 1; step < body.len + 2; step++) {
		CST_AUTO_BUF data = CST_BUF_INIT;
		CST_AUTO_BUF trailer = CST_BUF_INIT;

		assert_int_equal(decode(body, step, &data, &trailer), CST_CHUNK_DONE);
		assert_true(cst_slice_is(cst_buf_slice(&data), "ab\r\nxyz"));
		assert_true(cst_slice_is(cst_buf_slice(&trailer), "x-amz-checksum-crc32:AAAAAA=="));
	}
}

static void test_bad_chunks(void **state)
{
	static const char *const bad[] = {"\r\n", "g\r\n", "1\r\nabc\r\n", "1;chunk-signature=short\r\na\r\n",
					  "fffffffffffffffff\r\n"};

	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(bad); i++) {
		CST_AUTO_BUF data = CST_BUF_INIT;
		CST_AUTO_BUF trailer = CST_BUF_INIT;

		assert_int_equal(decode(cst_slice_of(bad[i]), 100, &data, &trailer), CST_CHUNK_BAD);
	}
}

static void test_checksums(void **state)
{
	static const struct {
		const char *name, *want;
	} cases[] = {
		{"CRC32", "y/Q5Jg=="},
		{"crc32c", "4waSgw=="},
		{"crc64nvme", "rosUhgp5mIg="},
		{"sha1", "98O8HYCOBHMq32eZZczDTKeuNEE="},
		{"sha256", "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="},
	};

	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++) {
		struct cst_checksum c;
		CST_AUTO_BUF out = CST_BUF_INIT;

		cst_checksum_init(&c, cst_checksum_parse(cst_slice_of(cases[i].name)));
		cst_checksum_update(&c, "1234", 4);
		cst_checksum_update(&c, "56789", 5);
		cst_checksum_base64(&c, &out);
		cst_checksum_fini(&c);
		assert_string_equal(out.data, cases[i].want);
	}
	assert_int_equal(cst_crc64nvme(0, "123456789", 9), 0xae8b14860a799888u);
}

static bool leaf(void *arg, const char *parent, const char *name, struct cst_slice text)
{
	cst_buf_printf(arg, "%s.%s=%.*s;", parent, name, (int)text.len, text.data);
	return true;
}

static void test_xml(void **state)
{
	static const struct cst_xml_handler handler = {leaf, NULL};
	CST_AUTO_BUF out = CST_BUF_INIT;

	(void)state;
	assert_int_equal(
		cst_xml_read(
			CST_SLICE(
				"<s:Delete xmlns:s='u'><Quiet>true</Quiet><Object><Key>a&amp;b</Key></Object></s:Delete>"),
			"Delete", &handler, &out),
		0);
	assert_string_equal(out.data, "Delete.Quiet=true;Object.Key=a&b;");
	assert_int_equal(cst_xml_read(CST_SLICE("<Other/>"), "Delete", &handler, &out), -EINVAL);
	assert_int_equal(cst_xml_read(CST_SLICE("<Delete>"), "Delete", &handler, &out), -EINVAL);
	assert_int_equal(cst_xml_read(CST_SLICE(""), "Delete", &handler, &out), -EINVAL);
	assert_int_equal(
		cst_xml_read(CST_SLICE("<!DOCTYPE Delete [<!ENTITY a 'b'>]><Delete/>"), "Delete", &handler, &out),
		-EINVAL);
	assert_int_equal(
		cst_xml_read(CST_SLICE("<Delete><a><a><a><a><a><a><a><a/></a></a></a></a></a></a></a></Delete>"),
			     "Delete", &handler, &out),
		-EINVAL);
}

static void test_records(void **state)
{
	CST_AUTO_RECORD in = {.size = 300,
			      .mtime = 1234567890123456789,
			      .type = CST_RECORD_SYMLINK,
			      .class = CST_CLASS_ARCHIVE,
			      .has_crc64 = true,
			      .crc64 = UINT64_MAX,
			      .restored_until = 77};
	CST_AUTO_RECORD out = CST_RECORD_INIT;
	CST_AUTO_BUF data = CST_BUF_INIT;

	(void)state;
	strcpy(in.etag, "0123456789abcdef0123456789abcdef");
	strcpy(in.checksum, "crc32:AAAA");
	cst_buf_add_str(&in.headers, "content-type:a/b\nmeta-x:y:z\n");
	cst_buf_add_str(&in.target, "t");
	cst_record_encode(&in, &data);
	assert_int_equal(cst_record_decode(cst_buf_slice(&data), &out), 0);
	assert_int_equal(out.size, 300);
	assert_int_equal(out.mtime, in.mtime);
	assert_int_equal(out.crc64, UINT64_MAX);
	assert_int_equal(out.type, CST_RECORD_SYMLINK);
	assert_int_equal(out.class, CST_CLASS_ARCHIVE);
	assert_string_equal(out.etag, in.etag);
	assert_string_equal(out.checksum, in.checksum);
	assert_true(cst_slice_is(cst_record_header(&out, "meta-x"), "y:z"));
	assert_null(cst_record_header(&out, "meta").data);
	for (size_t len = 0; len < data.len; len++)
		cst_record_decode((struct cst_slice){data.data, len}, &out);
	assert_int_equal(cst_record_decode(CST_SLICE("nonsense"), &out), -EBADMSG);
	/* Found by fuzzing: no headers at all. */
	assert_int_equal(cst_record_decode((struct cst_slice){"Cst1\1\1\0\0\x10", 9}, &out), 0);
	assert_null(cst_record_header(&out, "content-type").data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ranges), cmocka_unit_test(test_etags),	  cmocka_unit_test(test_copy_sources),
		cmocka_unit_test(test_chunks), cmocka_unit_test(test_bad_chunks), cmocka_unit_test(test_checksums),
		cmocka_unit_test(test_xml),    cmocka_unit_test(test_records),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
