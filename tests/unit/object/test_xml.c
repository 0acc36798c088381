/* Listing pages and error documents: what stores send, and what they shouldn't. */
#include "object/xml.h"

#include "base/text.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct seen {
	struct cst_buf text;
};

static void on_entry(void *arg, const struct cst_object_list_entry *e)
{
	struct seen *s = arg;
	cst_buf_printf(&s->text, "%s%.*s|%llu|%lld|%s|%d|%s\n", e->is_prefix ? "DIR " : "", (int)e->info.key.len,
		       e->info.key.data, (unsigned long long)e->info.size, (long long)e->info.mtime, e->info.etag,
		       (int)e->info.type, e->info.storage_class);
}

/* Feeds in pieces of `step` bytes. */
static int parse(const char *xml, size_t step, struct seen *seen, struct cst_object_list_page *page, char why[128],
		 char token[64])
{
	struct cst_list_xml *p = cst_list_xml_new(on_entry, seen);
	struct cst_slice rest = cst_slice_of(xml);
	int rc = 0;
	cst_buf_clear(&seen->text);
	while (rest.len && rc == 0) {
		size_t n = cst_min(step, rest.len);
		rc = cst_list_xml_feed(p, (struct cst_slice){rest.data, n});
		rest.data += n;
		rest.len -= n;
	}
	if (rc == 0)
		rc = cst_list_xml_finish(p, page);
	snprintf(why, 128, "%s", cst_list_xml_why(p));
	if (rc == 0)
		snprintf(token, 64, "%.*s", (int)page->next_token.len,
			 page->next_token.data ? page->next_token.data : "");
	cst_list_xml_free(p);
	return rc;
}

#define ENTRIES                                                                                                          \
	"<Contents><Key>a%20b%2Fc+d%C3%A9%0A</Key><LastModified>2023-12-16T16:20:57.000Z</LastModified>"                 \
	"<ETag>&quot;5B3C1A2E053D763E1B002CC607C5A0FE1&quot;</ETag><Type>Symlink</Type><Size>9000000000000000000</Size>" \
	"<StorageClass>IA</StorageClass><Owner><ID>1</ID><Key>not this</Key></Owner></Contents>"                         \
	"<Contents><Size>0</Size><Key>z</Key><LastModified>never</LastModified></Contents>"                              \
	"<CommonPrefixes><Prefix>dir%2F</Prefix></CommonPrefixes>"
#define WANTED \
	"a b/c d\xc3\xa9\n|9000000000000000000|1702743657|5B3C1A2E053D763E1B002CC607C5A0FE1|3|IA\nz|0|0||0|\nDIR dir/|0|0||0|\n"
#define HEAD \
	"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><Prefix/>"
#define TAIL "<IsTruncated>true</IsTruncated><NextContinuationToken>CgJ%2F+=</NextContinuationToken></ListBucketResult>"

static void pages(void **state)
{
	(void)state;
	static const char *const forms[] = {
		HEAD "<EncodingType>url</EncodingType>" ENTRIES TAIL, /* OSS, S3 */
		HEAD ENTRIES "<EncodingType>url</EncodingType>" TAIL, /* told last */
		"<x:ListBucketResult xmlns:x='y'><x:EncodingType>url</x:EncodingType>" ENTRIES
		"<x:IsTruncated>true</x:IsTruncated><x:NextContinuationToken>CgJ%2F+=</x:NextContinuationToken></x:ListBucketResult>",
	};
	static const size_t steps[] = {1, 7, 100000};
	struct seen seen = {CST_BUF_INIT};
	for (size_t i = 0; i < CST_ARRAY_LEN(forms) * CST_ARRAY_LEN(steps); i++) {
		struct cst_object_list_page page;
		char why[128], token[64];
		assert_int_equal(parse(forms[i / 3], steps[i % 3], &seen, &page, why, token), 0);
		assert_string_equal(seen.text.data, WANTED);
		assert_true(page.truncated);
		assert_int_equal(page.count, 3);
		assert_string_equal(token, "CgJ%2F+=");
	}
	cst_buf_fini(&seen.text);
}

/* A store that ignores encoding-type: names stand as they are. */
static void unencoded(void **state)
{
	(void)state;
	struct seen seen = {CST_BUF_INIT};
	struct cst_object_list_page page;
	char why[128], token[64];
	assert_int_equal(
		parse("<ListBucketResult><Contents><Key>a%20+b</Key><Size>1</Size></Contents><IsTruncated>false</IsTruncated></ListBucketResult>",
		      5, &seen, &page, why, token),
		0);
	assert_string_equal(seen.text.data, "a%20+b|1|0||0|\n");
	assert_false(page.truncated);
	cst_buf_fini(&seen.text);
}

static void reuse(void **state)
{
	(void)state;
	struct seen one = {CST_BUF_INIT}, two = {CST_BUF_INIT};
	struct cst_list_xml *p = cst_list_xml_new(on_entry, &one);
	struct cst_object_list_page page;
	assert_int_equal(cst_list_xml_feed(p, CST_SLICE("<ListBucketResult><Contents><Key>x</Key></Contents>")), 0);
	cst_list_xml_reset(p, &two);
	assert_int_equal(
		cst_list_xml_feed(
			p,
			CST_SLICE(
				"<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>y</Key></Contents></ListBucketResult>")),
		0);
	assert_int_equal(cst_list_xml_finish(p, &page), 0);
	assert_int_equal(page.count, 1);
	assert_int_equal(one.text.len, 0);
	assert_string_equal(two.text.data, "y|0|0||0|\n");
	assert_int_equal(cst_list_xml_entries(p), 1);
	cst_list_xml_free(p);
	cst_buf_fini(&one.text);
	cst_buf_fini(&two.text);
}

static void bad_pages(void **state)
{
	(void)state;
	static const struct {
		const char *xml, *why;
	} bad[] = {
		{"", "not XML"},
		{"hello", "not XML"},
		{"<html><body>x</body></html>", "no listing"},
		{"<!DOCTYPE html><html></html>", "DOCTYPE"},
		{"<!DOCTYPE l [<!ENTITY a \"aaaa\">]><ListBucketResult>&a;</ListBucketResult>", "DOCTYPE"},
		{"<ListBucketResult><Contents><Key>a</Key>", "cut short"},
		{"<ListBucketResult><Contents></Contents></ListBucketResult>", "no name"},
		{"<ListBucketResult><CommonPrefixes><Prefix/></CommonPrefixes></ListBucketResult>", "no name"},
		{"<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>", "size"},
		{"<ListBucketResult><Contents><Key>a</Key><Size>99999999999999999999</Size></Contents></ListBucketResult>",
		 "size"},
		{"<ListBucketResult><Contents><Key>a</Key><Size></Size></Contents></ListBucketResult>", "size"},
		{"<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>a%2</Key></Contents></ListBucketResult>",
		 "encoded"},
		{"<ListBucketResult><Contents><Key>a%zz</Key></Contents><EncodingType>url</EncodingType></ListBucketResult>",
		 "encoded"},
		{"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", "NextContinuationToken"},
		{"<ListBucketResult><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a></a></a></a></a></a></a></a></a></a></a></a></a></a></a></a></a></a></ListBucketResult>",
		 "deep"},
	};
	struct seen seen = {CST_BUF_INIT};
	for (size_t i = 0; i < CST_ARRAY_LEN(bad); i++) {
		struct cst_object_list_page page;
		char why[128], token[64];
		assert_int_equal(parse(bad[i].xml, 3, &seen, &page, why, token), -EBADMSG);
		assert_non_null(strstr(why, bad[i].why));
	}
	struct cst_list_xml *p = cst_list_xml_new(on_entry, &seen);
	char big[9000];
	memset(big, 'k', sizeof(big));
	assert_int_equal(cst_list_xml_feed(p, CST_SLICE("<ListBucketResult><Contents><Key>")), 0);
	assert_int_equal(cst_list_xml_feed(p, (struct cst_slice){big, sizeof(big)}), -EBADMSG);
	assert_int_equal(cst_list_xml_feed(p, CST_SLICE("</Key>")), -EBADMSG);
	cst_list_xml_free(p);
	cst_buf_fini(&seen.text);
}

static void errors(void **state)
{
	(void)state;
	struct cst_store_error e;
	assert_int_equal(
		cst_error_xml_parse(
			CST_SLICE(
				"<Error><Code>AccessDenied</Code><Message>no\n way</Message><RequestId> R1 </RequestId>"
				"<HostId>h</HostId><EC>0003-00000001</EC><Endpoint>oss-cn-x.aliyuncs.com</Endpoint><Region>r</Region>"
				"<Deep><Code>other</Code></Deep></Error>"),
			&e),
		0);
	assert_string_equal(e.code, "AccessDenied");
	assert_string_equal(e.message, "no\\x0a way");
	assert_string_equal(e.request_id, "R1");
	assert_string_equal(e.ec, "0003-00000001");
	assert_string_equal(e.endpoint, "oss-cn-x.aliyuncs.com");
	assert_string_equal(e.region, "r");
	assert_int_equal(cst_error_xml_parse(CST_SLICE("<Error><Code>NoSuchKey</Code><Mess"), &e),
			 0); /* cut short: what there is */
	assert_string_equal(e.code, "NoSuchKey");
	static const char *const bad[] = {"", "x", "<html/>", "<!DOCTYPE html><Error><Code>a</Code></Error>"};
	for (size_t i = 0; i < CST_ARRAY_LEN(bad); i++) {
		assert_int_equal(cst_error_xml_parse(cst_slice_of(bad[i]), &e), -EBADMSG);
		assert_string_equal(e.code, "");
	}
	CST_AUTO_BUF b64 = CST_BUF_INIT;
	static const char xml[] = "<Error><Code>NoSuchKey</Code></Error>";
	cst_text_base64(&b64, xml, strlen(xml));
	assert_int_equal(cst_error_xml_parse_header(cst_buf_slice(&b64), &e), 0);
	assert_string_equal(e.code, "NoSuchKey");
	assert_int_equal(cst_error_xml_parse_header(CST_SLICE("!!"), &e), -EBADMSG);
	assert_int_equal(cst_error_xml_parse_header(CST_SLICE(""), &e), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(pages), cmocka_unit_test(unencoded),
					   cmocka_unit_test(reuse), cmocka_unit_test(bad_pages),
					   cmocka_unit_test(errors)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
