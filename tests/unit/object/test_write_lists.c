/* Writing operations that answer with lists: many keys deleted, the parts of an upload, uploads. */
#include "write_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* ---- many keys ---- */

static const struct cst_slice three[] = {CST_SLICE("a+b"), CST_SLICE("c&d"), CST_SLICE("e")};

static int delete_three(struct fixture *f, struct written *w)
{
	written_init(w);
	return finish(cst_object_delete_many(f->bucket, three, 3, &on_delete, w), w);
}

static void some_not_deleted(void **state)
{
	(void)state;
	static const struct script script = {
		{SAYS("<DeleteResult><Error><Key>c%26d</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
		      "<Error><Key>a%2Bb</Key><Code>InternalError</Code></Error><EncodingType>url</EncodingType></DeleteResult>"),
		 SAYS("<DeleteResult></DeleteResult>")}};
	struct fixture f;
	struct written w;
	scripted_fixture_start(&f, &script, CST_CLOUD_OSS);
	assert_int_equal(delete_three(&f, &w), 0);
	assert_string_equal(w.list.data, "c&d=-13;");
	assert_string_equal(w.err.api, "AccessDenied");
	assert_string_equal(w.err.what, "can't delete oss://bkt/c&d");
	assert_non_null(strstr(w.err.hint, "lacks oss:DeleteObject"));
	assert_true(has(scripted_server_request(f.server, 0), "POST /bkt/?delete&encoding-type=url HTTP/1.1\r\n"));
	assert_true(has(scripted_server_request(f.server, 0), "\r\nContent-MD5: "));
	assert_string_equal(
		scripted_server_body(f.server, 0),
		"<Delete><Quiet>true</Quiet><Object><Key>a+b</Key></Object><Object><Key>c&amp;d</Key></Object>"
		"<Object><Key>e</Key></Object></Delete>");
	/* Only what is worth another attempt. */
	assert_string_equal(scripted_server_body(f.server, 1),
			    "<Delete><Quiet>true</Quiet><Object><Key>a+b</Key></Object></Delete>");
	assert_int_equal(scripted_server_requests(f.server), 2);
	written_fini(&w);
	fixture_stop(&f);
}

static void odd_delete_answers(void **state)
{
	(void)state;
	static const struct {
		struct script script;
		int rc;
		unsigned requests;
	} cases[] = {
		{{{{.status = 200}}}, 0, 1}, /* quiet */
		{{{LOST, SAYS("<DeleteResult/>")}}, 0, 2},
		{{{SAYS(XML_ERROR("InternalError")), SAYS("<DeleteResult/>")}}, 0, 2},
		{{{SAYS("<DeleteResult><Error><Key>e</Key><Code>NoSuchKey</Code></Error></DeleteResult>")}}, 0, 1},
		{{{NO(403, "AccessDenied")}}, -EACCES, 1},
		{{{SAYS("<Deleted"), SAYS("<DeleteResult/>")}}, 0, 2},
		{{{SAYS("<DeleteResult><Error><Key>zz</Key><Code>AccessDenied</Code></Error></DeleteResult>"),
		   SAYS("<DeleteResult/>")}},
		 0,
		 2},
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++) {
		struct fixture f;
		struct written w;
		scripted_fixture_start(&f, &cases[i].script, CST_CLOUD_S3);
		int rc = delete_three(&f, &w);
		if (rc != cases[i].rc || scripted_server_requests(f.server) != cases[i].requests || w.list.len)
			fail_msg("case %zu: %d %s", i, rc, w.text);
		written_fini(&w);
		fixture_stop(&f);
	}
}

/* What is too long to be read is no "nothing failed". */
static void endless_delete_answer(void **state)
{
	(void)state;
	static const char failed[] =
		"<DeleteResult><Error><Key>e</Key><Code>AccessDenied</Code></Error></DeleteResult>";
	char *body = cst_xmalloc(CST_ANSWER_XML_MAX + 2);
	memset(body, ' ', CST_ANSWER_XML_MAX + 1);
	memcpy(body, failed, sizeof(failed) - 1);
	body[CST_ANSWER_XML_MAX + 1] = '\0';
	struct script script = {{SAYS(body), SAYS(failed)}};
	struct fixture f;
	struct written w;
	scripted_fixture_start(&f, &script, CST_CLOUD_S3);
	assert_int_equal(delete_three(&f, &w), 0);
	assert_string_equal(w.list.data, "e=-13;");
	assert_int_equal(scripted_server_requests(f.server), 2);
	written_fini(&w);
	fixture_stop(&f);
	free(body);
}

/* The operation fails with what ended it, not with what ended one of its keys. */
static void last_delete_error(void **state)
{
	(void)state;
	static const struct script script = {
		{SAYS("<DeleteResult><Error><Key>e</Key><Code>InternalError</Code></Error><Error>"
		      "<Key>a+b</Key><Code>AccessDenied</Code></Error></DeleteResult>")}};
	struct cst_bucket_config c = {.cloud = CST_CLOUD_S3, .credentials = test_keys(CST_CLOUD_S3), .max_attempts = 1};
	struct fixture f;
	struct written w;
	fixture_start(&f, play, &script, &c);
	assert_int_equal(delete_three(&f, &w), -EIO);
	assert_string_equal(w.list.data, "a+b=-13;");
	assert_string_equal(w.err.api, "InternalError");
	written_fini(&w);
	fixture_stop(&f);
}

/* A document has a size that stores take. */
static void long_deletes(void **state)
{
	(void)state;
	static const struct script script = {{SAYS("<DeleteResult/>"), SAYS("<DeleteResult/>"), SAYS("<DeleteResult/>"),
					      SAYS("<DeleteResult/>"), SAYS("<DeleteResult/>"),
					      SAYS("<DeleteResult/>")}};
	static char text[1000][1023];
	struct cst_slice keys[1000];
	struct fixture f;
	struct written w;
	for (size_t i = 0; i < 1000; i++) {
		memset(text[i], '&', sizeof(text[i]));
		keys[i] = (struct cst_slice){text[i], sizeof(text[i])};
		text[i][snprintf(text[i], sizeof(text[i]), "%04zu", i)] = '<';
	}
	scripted_fixture_start(&f, &script, CST_CLOUD_OSS);
	written_init(&w);
	assert_int_equal(finish(cst_object_delete_many(f.bucket, keys, 1000, &on_delete, &w), &w), 0);
	size_t sum = 0;
	unsigned n = scripted_server_requests(f.server);
	for (unsigned i = 0; i < n; i++) {
		const char *length = strstr(scripted_server_request(f.server, i), "\r\nContent-Length: ");
		assert_non_null(length);
		size_t len = strtoull(length + 18, NULL, 10);
		assert_true(len <= (size_t)2 << 20);
		sum += len;
		/* Each key is in one of them. */
		char first[64];
		snprintf(first, sizeof(first), "<Quiet>true</Quiet><Object><Key>%04u&lt;&amp;", i == 0 ? 0 : w.next);
		if (!strstr(scripted_server_body(f.server, i), first))
			fail_msg("document %u does not begin with %s", i, first);
		w.next += (unsigned)(len / (sizeof("<Object><Key></Key></Object>") - 1 + 4 + 4 + 1018 * 5));
	}
	assert_int_equal(w.next, 1000);
	assert_true(sum > 5000000 && n > 2);
	written_fini(&w);
	fixture_stop(&f);
}

/* Keys that no document can hold go one by one, whatever becomes of each. */
static void keys_beyond_xml(void **state)
{
	(void)state;
	static const struct cst_slice keys[] = {CST_SLICE("\x01"), CST_SLICE("fine"), CST_SLICE("\xff"),
						CST_SLICE("\x02"), CST_SLICE("\x03")};
	static const struct script script = {{SAYS("<DeleteResult/>"),
					      {.status = 204},
					      NO(403, "AccessDenied"),
					      LOST,
					      NO(404, "NoSuchKey"),
					      {.status = 204}}};
	struct fixture f;
	struct written w;
	scripted_fixture_start(&f, &script, CST_CLOUD_S3);
	written_init(&w);
	assert_int_equal(finish(cst_object_delete_many(f.bucket, keys, 5, &on_delete, &w), &w), 0);
	assert_string_equal(w.list.data, "\xff=-13;");
	assert_int_equal(scripted_server_requests(f.server), 6);
	assert_true(has(scripted_server_request(f.server, 1), "DELETE /bkt/%01 HTTP/1.1\r\n"));
	assert_true(has(scripted_server_request(f.server, 2), "DELETE /bkt/%FF HTTP/1.1\r\n"));
	assert_true(has(scripted_server_request(f.server, 4), "DELETE /bkt/%02 HTTP/1.1\r\n"));
	assert_true(has(scripted_server_request(f.server, 5), "DELETE /bkt/%03 HTTP/1.1\r\n"));
	written_fini(&w);
	fixture_stop(&f);
}

/* ---- listings ---- */

static void odd_listings(void **state)
{
	(void)state;
#define PARTS(inner) SAYS("<ListPartsResult>" inner "</ListPartsResult>")
#define P(n) "<Part><PartNumber>" n "</PartNumber><ETag>e</ETag><Size>5</Size></Part>"
	static const struct {
		struct script script;
		int rc;
		const char *list;
		unsigned next;
	} cases[] = {
		{{{PARTS("")}}, 0, "", 0},
		{{{PARTS(P("3") P("9") "<IsTruncated>true</IsTruncated>")}}, 0, "3:5:e;9:5:e;", 9},
		{{{PARTS("<NextPartNumberMarker>9</NextPartNumberMarker><IsTruncated>true</IsTruncated>" P("3")
				 P("9"))}},
		 0,
		 "3:5:e;9:5:e;",
		 9},
		/* Not what has been handed out already. */
		{{{PARTS("<NextPartNumberMarker>3</NextPartNumberMarker><IsTruncated>true</IsTruncated>" P("3")
				 P("9"))}},
		 0,
		 "3:5:e;9:5:e;",
		 9},
		/* A listing that leads nowhere, twice, then a good one. Nothing of a bad one is handed out. */
		{{{PARTS("<IsTruncated>true</IsTruncated><NextPartNumberMarker>2</NextPartNumberMarker>"),
		   PARTS(P("3") P("3")), PARTS(P("4"))}},
		 0,
		 "4:5:e;",
		 0},
		{{{PARTS(P("2")), SAYS("<ListPartsResult>" P("3")), PARTS(P("x"))}}, -EIO, "", 0},
		{{{NO(404, "NoSuchUpload")}}, -ENOENT, "", 0},
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++) {
		struct fixture f;
		struct written w;
		scripted_fixture_start(&f, &cases[i].script, CST_CLOUD_OSS);
		written_init(&w);
		int rc = finish(cst_object_list_parts(f.bucket, CST_SLICE("k"), CST_SLICE("U"), 2, &on_parts, &w), &w);
		if (rc != cases[i].rc || w.next != cases[i].next ||
		    !cst_slice_is(cst_buf_slice(&w.list), cases[i].list))
			fail_msg("case %zu: %d, next %u, %s: %s", i, rc, w.next, w.list.data ? w.list.data : "",
				 w.text);
		assert_true(has(scripted_server_request(f.server, 0),
				"GET /bkt/k?uploadId=U&max-parts=1000&part-number-marker=2 HTTP/1.1\r\n"));
		written_fini(&w);
		fixture_stop(&f);
	}
}

/* The encoding is told behind the names. */
static void encoded_uploads(void **state)
{
	(void)state;
	static const struct script script = {
		{SAYS("<ListMultipartUploadsResult><Upload><Key>a%2B%0A+b</Key><UploadId>U1</UploadId>"
		      "<Initiated>2024-01-02T03:04:05.000Z</Initiated></Upload><NextKeyMarker>a%2B%0A+b</NextKeyMarker>"
		      "<NextUploadIdMarker>U1</NextUploadIdMarker><IsTruncated>true</IsTruncated>"
		      "<EncodingType>url</EncodingType></ListMultipartUploadsResult>")}};
	struct fixture f;
	struct written w;
	scripted_fixture_start(&f, &script, CST_CLOUD_S3);
	written_init(&w);
	assert_int_equal(finish(cst_object_list_uploads(f.bucket, CST_SLICE("p/"), CST_SLICE("p/+"), CST_SLICE("U0"),
							&on_uploads, &w),
				&w),
			 0);
	assert_string_equal(w.list.data, "a+\n b:U1:1;");
	assert_string_equal(w.next_key.data, "a+\n b");
	assert_string_equal(w.next_id.data, "U1");
	assert_true(has(scripted_server_request(f.server, 0), "GET /bkt/?uploads&encoding-type=url&max-uploads=1000&"
							      "prefix=p%2F&key-marker=p%2F%2B&upload-id-marker=U0 "));
	written_fini(&w);
	fixture_stop(&f);
}

/* A page that leads to itself would be asked for without end. */
static void uploads_that_go_on_for_ever(void **state)
{
	(void)state;
#define UPLOADS(key, id)                                                                                  \
	SAYS("<ListMultipartUploadsResult><Upload><Key>" key "</Key><UploadId>" id "</UploadId></Upload>" \
	     "<NextKeyMarker>" key "</NextKeyMarker><NextUploadIdMarker>" id "</NextUploadIdMarker>"      \
	     "<IsTruncated>true</IsTruncated></ListMultipartUploadsResult>")
	static const struct script script = {{UPLOADS("k", "U0"), UPLOADS("k", "U1")}};
	struct fixture f;
	struct written w;
	scripted_fixture_start(&f, &script, CST_CLOUD_OSS);
	written_init(&w);
	assert_int_equal(finish(cst_object_list_uploads(f.bucket, (struct cst_slice){0}, CST_SLICE("k"),
							CST_SLICE("U0"), &on_uploads, &w),
				&w),
			 0);
	assert_string_equal(w.list.data, "k:U1:0;");
	assert_string_equal(w.next_id.data, "U1");
	assert_int_equal(scripted_server_requests(f.server), 2);
	written_fini(&w);
	fixture_stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(some_not_deleted),
		cmocka_unit_test(odd_delete_answers),
		cmocka_unit_test(endless_delete_answer),
		cmocka_unit_test(last_delete_error),
		cmocka_unit_test(long_deletes),
		cmocka_unit_test(keys_beyond_xml),
		cmocka_unit_test(odd_listings),
		cmocka_unit_test(encoded_uploads),
		cmocka_unit_test(uploads_that_go_on_for_ever),
	};
	return cmocka_run_group_tests_name("write_lists", tests, NULL, NULL);
}
