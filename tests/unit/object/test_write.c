/* What becomes of writing operations when answers are refused, lost, early, damaged or lies. */
#include "write_fixture.h"

#include "base/clock.h"
#include "base/digest.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define BODY "hello, body"

/* ---- operations ---- */

enum what { PUT, PUT_NEW, PUT_MATCH, PART, COMPLETE, COMPLETE_NEW, COPY, COPY_NEW, APPEND, DELETE, ABORT, BEGIN, LINK };

static const char *const what_names[] = {
	"put",	  "put if absent", "put if match", "part",  "complete", "complete if absent", "copy", "copy if absent",
	"append", "delete",	   "abort",	   "begin", "link"};

static struct cst_object_op *run(struct cst_bucket *b, enum what what, struct written *w)
{
	static const struct iovec body = {(char *)(uintptr_t)BODY, sizeof(BODY) - 1};
	static const struct cst_object_part part = {.number = 1, .size = sizeof(BODY) - 1, .etag = "p1"};
	struct cst_slice key = CST_SLICE("dir/k y"), id = CST_SLICE("ID+/="), from = CST_SLICE("from %");
	struct cst_object_body memory = {.iov = &body, .iov_count = 1, .length = sizeof(BODY) - 1};
	enum cst_object_condition condition = what == PUT_NEW || what == COMPLETE_NEW || what == COPY_NEW
						      ? CST_OBJECT_IF_ABSENT
					      : what == PUT_MATCH ? CST_OBJECT_IF_MATCH
								  : CST_OBJECT_ANY;
	struct cst_object_put put = {.key = key, .body = memory, .condition = condition, .if_match = "old"};
	struct cst_object_part_put part_put = {.key = key, .upload_id = id, .number = 3, .body = memory};
	struct cst_object_complete complete = {.key = key,
					       .upload_id = id,
					       .parts = &part,
					       .part_count = 1,
					       .crc64 = cst_crc64(0, BODY, sizeof(BODY) - 1),
					       .has_crc64 = true,
					       .condition = condition};
	struct cst_object_copy copy = {.source = from, .key = key, .source_if_match = "src", .condition = condition};
	struct cst_object_append append = {
		.key = key, .position = 100, .body = memory, .crc64_before = 42, .has_crc64_before = true};
	written_init(w);
	switch (what) {
	case PUT:
	case PUT_NEW:
	case PUT_MATCH:
		return cst_object_put(b, &put, on_written, w);
	case PART:
		return cst_object_part_put(b, &part_put, on_written, w);
	case COMPLETE:
	case COMPLETE_NEW:
		return cst_object_multipart_complete(b, &complete, on_written, w);
	case COPY:
	case COPY_NEW:
		return cst_object_copy(b, &copy, on_written, w);
	case APPEND:
		return cst_object_append(b, &append, on_written, w);
	case DELETE:
		return cst_object_delete(b, key, NULL, on_written, w);
	case ABORT:
		return cst_object_multipart_abort(b, key, id, on_written, w);
	case BEGIN:
		return cst_object_multipart_begin(b, key, NULL, on_written, w);
	case LINK:
		return cst_object_put_symlink(b, key, from, NULL, CST_OBJECT_IF_ABSENT, on_written, w);
	}
	return NULL;
}

/* ---- one line a case ---- */

static const struct line {
	enum what what;
	enum cst_cloud cloud;
	int rc;
	bool repeated;
	unsigned requests;
	struct script script;
} lines[] = {
	/* Refused: nothing is in doubt. */
	{PUT, CST_CLOUD_OSS, 0, false, 1, {{OK}}},
	{PUT, CST_CLOUD_S3, 0, false, 2, {{NO(503, "SlowDown"), OK}}},
	{PUT, CST_CLOUD_OSS, 0, false, 2, {{NO(503, "UploadTrafficRateLimitExceeded"), OK}}},
	{PUT, CST_CLOUD_OSS, 0, false, 2, {{NO(400, "RequestTimeout"), OK}}},
	{PUT_NEW, CST_CLOUD_OSS, -EEXIST, false, 1, {{NO(409, "FileAlreadyExists")}}},
	{PUT_NEW, CST_CLOUD_OSS, -EEXIST, false, 2, {{NO(429, ""), NO(409, "FileAlreadyExists")}}},
	{PUT_NEW, CST_CLOUD_S3, -EEXIST, false, 1, {{NO(412, "PreconditionFailed")}}},
	{PUT_NEW, CST_CLOUD_S3, 0, false, 2, {{NO(409, "ConditionalRequestConflict"), OK}}},
	{PUT_MATCH, CST_CLOUD_S3, -ESTALE, false, 1, {{NO(412, "PreconditionFailed")}}},
	{PUT_MATCH, CST_CLOUD_S3, -ESTALE, false, 1, {{NO(404, "NoSuchKey")}}},
	{PUT_MATCH, CST_CLOUD_OSS, -ENOTSUP, false, 0, {{OK}}},
	{PUT_NEW, CST_CLOUD_S3, -ENOTSUP, false, 1, {{NO(501, "NotImplemented")}}},
	{PUT, CST_CLOUD_OSS, -EACCES, false, 1, {{NO(403, "AccessDenied")}}},
	{PUT, CST_CLOUD_OSS, -ENXIO, false, 1, {{NO(404, "NoSuchBucket")}}},
	{PUT, CST_CLOUD_OSS, -EROFS, false, 1, {{NO(409, "FileImmutable")}}},
	{PUT, CST_CLOUD_S3, -EFBIG, false, 1, {{NO(400, "EntityTooLarge")}}},
	{PUT, CST_CLOUD_S3, -EDQUOT, false, 1, {{NO(403, "QuotaExceeded")}}},
	{PUT, CST_CLOUD_S3, -ENOSPC, false, 1, {{NO(507, "XMinioStorageFull")}}},
	{PUT, CST_CLOUD_S3, -EBADMSG, false, 3, {{NO(400, "BadDigest"), NO(400, "BadDigest"), NO(400, "BadDigest")}}},
	{PUT, CST_CLOUD_S3, -ENAMETOOLONG, false, 1, {{NO(400, "KeyTooLongError")}}},
	{PUT, CST_CLOUD_S3, -E2BIG, false, 1, {{NO(400, "MetadataTooLarge")}}},
	{PUT, CST_CLOUD_S3, -ENOTSUP, false, 1, {{NO(405, "MethodNotAllowed")}}},
	/* Lost: the next answer is to be read with that in mind. */
	{PUT, CST_CLOUD_OSS, 0, true, 2, {{LOST, OK}}},
	{PUT, CST_CLOUD_OSS, 0, true, 2, {{RESET, OK}}},
	{PUT_NEW, CST_CLOUD_OSS, -EEXIST, true, 2, {{LOST, NO(409, "FileAlreadyExists")}}},
	{PUT_NEW, CST_CLOUD_OSS, -EEXIST, true, 2, {{RESET, NO(409, "FileAlreadyExists")}}},
	{PUT_NEW, CST_CLOUD_S3, -EEXIST, true, 2, {{LOST, NO(412, "PreconditionFailed")}}},
	{PUT_MATCH, CST_CLOUD_S3, -ESTALE, true, 2, {{LOST, NO(412, "PreconditionFailed")}}},
	{PUT_NEW,
	 CST_CLOUD_OSS,
	 -EEXIST,
	 true,
	 3,
	 {{LOST, NO(503, "TotalQpsLimitExceeded"), NO(409, "FileAlreadyExists")}}},
	{LINK, CST_CLOUD_OSS, -EEXIST, true, 2, {{LOST, NO(409, "FileAlreadyExists")}}},
	{LINK, CST_CLOUD_S3, -ENOTSUP, false, 0, {{OK}}},
	/* Who breaks down may have done it; who only begins to say no has not. */
	{PUT_NEW, CST_CLOUD_OSS, -EEXIST, true, 2, {{NO(500, "InternalError"), NO(409, "FileAlreadyExists")}}},
	{PUT_NEW, CST_CLOUD_OSS, -EEXIST, true, 2, {{NO(504, ""), NO(409, "FileAlreadyExists")}}},
	{PUT_NEW,
	 CST_CLOUD_OSS,
	 -EEXIST,
	 true,
	 2,
	 {{{.status = 200, .body = "xxxx", .cut = 2}, NO(409, "FileAlreadyExists")}}},
	{PUT_NEW, CST_CLOUD_OSS, -EEXIST, true, 2, {{{.status = 200, .cut = 10}, NO(409, "FileAlreadyExists")}}},
	{PUT_NEW,
	 CST_CLOUD_OSS,
	 -EEXIST,
	 false,
	 2,
	 {{{.status = 403, .body = "xxxx", .cut = 2}, NO(409, "FileAlreadyExists")}}},
	/* Another CRC64 than ours: again where that mends it. */
	{PUT,
	 CST_CLOUD_OSS,
	 -EBADMSG,
	 true,
	 3,
	 {{{.status = 200, .headers = "x-oss-hash-crc64ecma: 1\r\n"},
	   {.status = 200, .headers = "x-oss-hash-crc64ecma: 1\r\n"},
	   {.status = 200, .headers = "x-oss-hash-crc64ecma: 1\r\n"}}}},
	{PUT, CST_CLOUD_OSS, 0, true, 2, {{{.status = 200, .headers = "x-oss-hash-crc64ecma: 1\r\n"}, OK}}},
	{PUT_NEW, CST_CLOUD_OSS, -EBADMSG, true, 1, {{{.status = 200, .headers = "x-oss-hash-crc64ecma: 1\r\n"}}}},
	{PART,
	 CST_CLOUD_OSS,
	 0,
	 true,
	 2,
	 {{{.status = 200, .headers = "ETag: \"d\"\r\nx-oss-hash-crc64ecma: 1\r\n"}, OK}}},
	{APPEND, CST_CLOUD_OSS, -EBADMSG, true, 1, {{{.status = 200, .headers = "x-oss-next-append-position: 5\r\n"}}}},
	/* Parts. */
	{PART, CST_CLOUD_S3, 0, false, 1, {{OK}}},
	{PART, CST_CLOUD_S3, 0, true, 2, {{LOST, OK}}},
	{PART, CST_CLOUD_S3, 0, true, 2, {{{.status = 200}, OK}}},
	{PART, CST_CLOUD_S3, -ENOENT, false, 1, {{NO(404, "NoSuchUpload")}}},
	{BEGIN, CST_CLOUD_S3, -EIO, true, 3, {{SAYS("<InitiateMultipartUploadResult/>"), SAYS("<html>"), SAYS("")}}},
	/* Completion: 200 and then the truth. */
	{COMPLETE, CST_CLOUD_S3, 0, false, 1, {{COMPLETED}}},
	{COMPLETE, CST_CLOUD_S3, 0, false, 1, {{SAYS(" \n  \r\n\t" RESULT("CompleteMultipartUploadResult"))}}},
	{COMPLETE, CST_CLOUD_S3, 0, false, 1, {{OK}}},
	{COMPLETE, CST_CLOUD_S3, 0, true, 2, {{SAYS(XML_ERROR("InternalError")), COMPLETED}}},
	{COMPLETE, CST_CLOUD_S3, 0, false, 2, {{SAYS(XML_ERROR("SlowDown")), COMPLETED}}},
	{COMPLETE, CST_CLOUD_S3, -ENOENT, true, 2, {{SAYS("  " XML_ERROR("InternalError")), NO(404, "NoSuchUpload")}}},
	{COMPLETE, CST_CLOUD_S3, -ENOENT, false, 1, {{SAYS(XML_ERROR("NoSuchUpload"))}}},
	{COMPLETE_NEW, CST_CLOUD_S3, -EEXIST, false, 1, {{SAYS(XML_ERROR("PreconditionFailed"))}}},
	{COMPLETE_NEW, CST_CLOUD_OSS, -EEXIST, true, 2, {{LOST, NO(409, "FileAlreadyExists")}}},
	{COMPLETE, CST_CLOUD_OSS, -ENOENT, true, 2, {{LOST, NO(404, "NoSuchUpload")}}},
	{COMPLETE, CST_CLOUD_S3, 0, true, 2, {{SAYS(""), COMPLETED}}},
	{COMPLETE, CST_CLOUD_S3, 0, true, 2, {{SAYS("<CompleteMultipartUploadResult><ETag>"), COMPLETED}}},
	{COMPLETE, CST_CLOUD_S3, -EIO, true, 3, {{SAYS("<Other/>"), SAYS("<Other/>"), SAYS("<Other/>")}}},
	{COMPLETE,
	 CST_CLOUD_OSS,
	 -EBADMSG,
	 true,
	 1,
	 {{{.status = 200,
	    .headers = "x-oss-hash-crc64ecma: 1\r\n",
	    .body = RESULT("CompleteMultipartUploadResult")}}}},
	{COMPLETE, CST_CLOUD_S3, -EINVAL, false, 1, {{NO(400, "InvalidPart")}}},
	/* Copies. */
	{COPY, CST_CLOUD_OSS, 0, false, 1, {{COPIED}}},
	{COPY, CST_CLOUD_S3, 0, true, 2, {{SAYS(XML_ERROR("InternalError")), COPIED}}},
	{COPY, CST_CLOUD_S3, -ESTALE, false, 1, {{NO(412, "PreconditionFailed")}}},
	{COPY, CST_CLOUD_S3, -ENOENT, false, 1, {{NO(404, "NoSuchKey")}}},
	{COPY_NEW, CST_CLOUD_OSS, -EEXIST, true, 2, {{LOST, NO(409, "FileAlreadyExists")}}},
	{COPY_NEW, CST_CLOUD_S3, -ESTALE, false, 1, {{NO(412, "PreconditionFailed")}}},
	{COPY_NEW,
	 CST_CLOUD_S3,
	 -EEXIST,
	 false,
	 1,
	 {{{.status = 412,
	    .body = "<Error><Code>PreconditionFailed</Code><Condition>If-None-Match</Condition></Error>"}}}},
	{COPY_NEW,
	 CST_CLOUD_S3,
	 -ESTALE,
	 false,
	 1,
	 {{{.status = 412,
	    .body = "<Error><Code>PreconditionFailed</Code><Condition>x-amz-copy-source-If-Match</Condition></Error>"}}}},
	{COPY, CST_CLOUD_OSS, -EIO, false, 1, {{NO(403, "InvalidObjectState")}}},
	/* Appends. */
	{APPEND, CST_CLOUD_OSS, -EPERM, false, 1, {{NO(409, "ObjectNotAppendable")}}},
	{APPEND,
	 CST_CLOUD_OSS,
	 -ERANGE,
	 false,
	 1,
	 {{{.status = 409, .code = "PositionNotEqualToLength", .headers = "x-oss-next-append-position: 7\r\n"}}}},
	{APPEND, CST_CLOUD_S3, -ENOTSUP, false, 0, {{OK}}},
	/* What is to be gone is gone. */
	{DELETE, CST_CLOUD_S3, 0, false, 1, {{{.status = 204}}}},
	{DELETE, CST_CLOUD_S3, 0, true, 2, {{LOST, NO(404, "NoSuchKey")}}},
	{DELETE, CST_CLOUD_OSS, -ENXIO, false, 1, {{NO(404, "NoSuchBucket")}}},
	{DELETE, CST_CLOUD_OSS, -EROFS, false, 1, {{NO(409, "FileImmutable")}}},
	{ABORT, CST_CLOUD_OSS, 0, true, 2, {{LOST, NO(404, "NoSuchUpload")}}},
	{ABORT, CST_CLOUD_OSS, -EACCES, false, 1, {{NO(403, "AccessDenied")}}},
};

static void outcomes(void **state)
{
	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(lines); i++) {
		const struct line *l = &lines[i];
		struct fixture f;
		struct written w;
		scripted_fixture_start(&f, &l->script, l->cloud);
		int rc = finish(run(f.bucket, l->what, &w), &w);
		unsigned requests = scripted_server_requests(f.server);
		if (rc != l->rc || w.repeated != l->repeated || requests != l->requests)
			fail_msg("line %zu (%s, %s): %d %srepeated, %u requests: %s", i, what_names[l->what],
				 l->cloud == CST_CLOUD_OSS ? "OSS" : "S3", rc, w.repeated ? "" : "not ", requests,
				 w.text);
		/* Each attempt had the whole body. */
		for (unsigned n = 0; n < requests && (l->what <= PART || l->what == APPEND); n++)
			assert_string_equal(scripted_server_body(f.server, n), BODY);
		written_fini(&w);
		fixture_stop(&f);
	}
}

/* The store tells the length and CRC64 of what it has: a lost append is recognized. */
static void lost_append(void **state)
{
	(void)state;
	static const size_t len = sizeof(BODY) - 1;
	uint64_t ours = cst_crc64_combine(42, cst_crc64(0, BODY, len), len);
	for (int foreign = 0; foreign < 2; foreign++) {
		CST_AUTO_BUF headers = CST_BUF_INIT;
		struct fixture f;
		struct written w;
		cst_buf_printf(&headers, "x-oss-next-append-position: %zu\r\nx-oss-hash-crc64ecma: %llu\r\n", 100 + len,
			       (unsigned long long)(ours + (unsigned)foreign));
		struct script script = {
			{LOST, {.status = 409, .code = "PositionNotEqualToLength", .headers = headers.data}}};
		scripted_fixture_start(&f, &script, CST_CLOUD_OSS);
		assert_int_equal(finish(run(f.bucket, APPEND, &w), &w), foreign ? -ERANGE : 0);
		assert_true(w.repeated);
		assert_int_equal(w.next_position, 100 + len);
		assert_int_equal(w.info.size, 100 + len);
		written_fini(&w);
		fixture_stop(&f);
	}
}

/* ---- answers while the body is being sent ---- */

#define LARGE ((size_t)48 << 20)

static int put_large(struct fixture *f, enum cst_object_condition condition, struct written *w)
{
	static char *memory;
	if (!memory)
		memory = cst_xcalloc(1, LARGE);
	struct iovec body = {memory, LARGE};
	struct cst_object_put put = {.key = CST_SLICE("large"),
				     .body = {.iov = &body, .iov_count = 1, .length = LARGE},
				     .condition = condition};
	written_init(w);
	return finish(cst_object_put(f->bucket, &put, on_written, w), w);
}

static void early_answers(void **state)
{
	(void)state;
	static const struct {
		struct script script;
		int rc;
		unsigned requests;
	} cases[] = {
		/* A refusal, kept open or reset by the unread body, is read and believed. */
		{{{NO(403, "AccessDenied")}}, -EACCES, 1},
		{{{{.status = 403, .code = "AccessDenied", .headers = "Connection: close\r\n"}}}, -EACCES, 1},
		{{{NO(503, "SlowDown"), OK}}, 0, 2},
		{{{NO(400, "EntityTooLarge")}}, -EFBIG, 1},
		/* An abort in the middle leaves no doubt: it was not all sent. */
		{{{RESET, NO(409, "FileAlreadyExists")}}, -EEXIST, 2},
		{{{LOST, NO(409, "FileAlreadyExists")}}, -EEXIST, 2},
		/* A success that comes too early is none. */
		{{{OK, NO(409, "FileAlreadyExists")}}, -EEXIST, 2},
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++) {
		struct fixture f;
		struct written w;
		scripted_fixture_start(&f, &cases[i].script, CST_CLOUD_OSS);
		scripted_server_early(f.server, 1);
		int rc = put_large(&f, CST_OBJECT_IF_ABSENT, &w);
		unsigned requests = scripted_server_requests(f.server);
		if (rc != cases[i].rc || requests != cases[i].requests || w.repeated)
			fail_msg("case %zu: %d, %u requests, %srepeated: %s", i, rc, requests, w.repeated ? "" : "not ",
				 w.text);
		written_fini(&w);
		fixture_stop(&f);
	}
}

/* ---- what is sent ---- */

static void wire(void **state)
{
	(void)state;
	static const struct {
		enum what what;
		enum cst_cloud cloud;
		struct step answer;
		const char *lines[6], *body;
	} cases[] = {
		{PUT_NEW,
		 CST_CLOUD_OSS,
		 OK,
		 {"PUT /bkt/dir/k%20y HTTP/1.1\r\n", "\r\nx-oss-forbid-overwrite: true\r\n",
		  "\r\nContent-Type: application/octet-stream\r\n", "\r\nContent-Length: 11\r\n"},
		 BODY},
		{PUT_NEW,
		 CST_CLOUD_S3,
		 OK,
		 {"PUT /bkt/dir/k%20y HTTP/1.1\r\n", "\r\nIf-None-Match: *\r\n",
		  "\r\nx-amz-checksum-crc32c: Gk+KeQ==\r\n"},
		 BODY},
		{PUT_MATCH, CST_CLOUD_S3, OK, {"\r\nIf-Match: \"old\"\r\n"}, BODY},
		{PART, CST_CLOUD_OSS, OK, {"PUT /bkt/dir/k%20y?partNumber=3&uploadId=ID%2B%2F%3D HTTP/1.1\r\n"}, BODY},
		{BEGIN,
		 CST_CLOUD_S3,
		 SAYS("<InitiateMultipartUploadResult><UploadId>U&amp;</UploadId></InitiateMultipartUploadResult>"),
		 {"POST /bkt/dir/k%20y?uploads HTTP/1.1\r\n", "\r\nx-amz-checksum-algorithm: CRC32C\r\n",
		  "\r\nx-amz-checksum-type: FULL_OBJECT\r\n"},
		 ""},
		{COMPLETE_NEW,
		 CST_CLOUD_S3,
		 COMPLETED,
		 {"POST /bkt/dir/k%20y?uploadId=ID%2B%2F%3D HTTP/1.1\r\n", "\r\nIf-None-Match: *\r\n"},
		 "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Part><PartNumber>1</PartNumber>"
		 "<ETag>\"p1\"</ETag></Part></CompleteMultipartUpload>"},
		{COPY_NEW,
		 CST_CLOUD_OSS,
		 COPIED,
		 {"PUT /bkt/dir/k%20y HTTP/1.1\r\n", "\r\nx-oss-copy-source: /bkt/from%20%25\r\n",
		  "\r\nx-oss-copy-source-if-match: \"src\"\r\n", "\r\nx-oss-forbid-overwrite: true\r\n"},
		 ""},
		{APPEND, CST_CLOUD_OSS, OK, {"POST /bkt/dir/k%20y?append&position=100 HTTP/1.1\r\n"}, BODY},
		{DELETE, CST_CLOUD_S3, {.status = 204}, {"DELETE /bkt/dir/k%20y HTTP/1.1\r\n"}, ""},
		{ABORT, CST_CLOUD_S3, {.status = 204}, {"DELETE /bkt/dir/k%20y?uploadId=ID%2B%2F%3D HTTP/1.1\r\n"}, ""},
		{LINK,
		 CST_CLOUD_OSS,
		 OK,
		 {"PUT /bkt/dir/k%20y?symlink HTTP/1.1\r\n", "\r\nx-oss-symlink-target: from%20%25\r\n"},
		 ""},
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++) {
		struct script script = {{cases[i].answer}};
		struct fixture f;
		struct written w;
		scripted_fixture_start(&f, &script, cases[i].cloud);
		if (finish(run(f.bucket, cases[i].what, &w), &w) != 0)
			fail_msg("case %zu: %s", i, w.text);
		for (size_t k = 0; k < CST_ARRAY_LEN(cases[i].lines) && cases[i].lines[k]; k++)
			if (!has(scripted_server_request(f.server, 0), cases[i].lines[k]))
				fail_msg("case %zu: no %s in\n%s", i, cases[i].lines[k],
					 scripted_server_request(f.server, 0));
		assert_string_equal(scripted_server_body(f.server, 0), cases[i].body);
		if (cases[i].what == BEGIN)
			assert_string_equal(w.upload_id.data, "U&");
		written_fini(&w);
		fixture_stop(&f);
	}
}

static void refused_headers(void **state)
{
	(void)state;
	static const struct cst_http_header bad[] = {{CST_SLICE("a"), CST_SLICE("b\r\nx-oss-acl: public-read")},
						     {CST_SLICE("a b"), CST_SLICE("v")},
						     {CST_SLICE("a:"), CST_SLICE("v")},
						     {CST_SLICE("n\n"), CST_SLICE("v")},
						     {CST_SLICE(""), CST_SLICE("v")}};
	static const struct cst_slice extra[] = {CST_SLICE("no end"), CST_SLICE("a: b\n"), CST_SLICE("a: b\r\n\r\n"),
						 CST_SLICE("a\r\n"), CST_SLICE("a: b\r\n: c\r\n")};
	static const struct script script = {{OK}};
	struct fixture f;
	struct written w;
	scripted_fixture_start(&f, &script, CST_CLOUD_S3);
	for (size_t i = 0; i < CST_ARRAY_LEN(bad) + CST_ARRAY_LEN(extra) + 1; i++) {
		struct cst_object_properties p = {0};
		struct cst_object_put put = {.key = CST_SLICE("k"), .properties = &p};
		if (i < CST_ARRAY_LEN(bad)) {
			p.meta = &bad[i];
			p.meta_count = 1;
		} else if (i < CST_ARRAY_LEN(bad) + CST_ARRAY_LEN(extra)) {
			p.extra = extra[i - CST_ARRAY_LEN(bad)];
		} else {
			put.condition = CST_OBJECT_IF_MATCH;
			put.if_match = "a\"\r\nb";
		}
		written_init(&w);
		assert_int_equal(finish(cst_object_put(f.bucket, &put, on_written, &w), &w), -EINVAL);
		written_fini(&w);
	}
	assert_int_equal(scripted_server_requests(f.server), 0);
	struct cst_object_properties p = {
		.extra = CST_SLICE("x-amz-server-side-encryption: aws:kms\r\nCache-Control: no\r\n"),
		.storage_class = CST_SLICE("IA"),
		.acl = CST_SLICE("private")};
	struct cst_object_put put = {.key = CST_SLICE("k"), .properties = &p};
	written_init(&w);
	assert_int_equal(finish(cst_object_put(f.bucket, &put, on_written, &w), &w), 0);
	const char *r = scripted_server_request(f.server, 0);
	assert_true(has(r, "\r\nx-amz-server-side-encryption: aws:kms\r\n") &&
		    has(r, "\r\nx-amz-storage-class: IA\r\n"));
	assert_true(has(r, "\r\nx-amz-acl: private\r\n") && has(r, "\r\nContent-Length: 0\r\n"));
	written_fini(&w);
	fixture_stop(&f);
}

/* A request about an object must never become one about the bucket. */
static void refused_names(void **state)
{
	(void)state;
	static const struct script script = {{OK}};
	static const struct cst_object_part part = {.number = 1, .etag = "e"};
	const struct cst_slice none = {0}, k = CST_SLICE("k"), keys[2] = {CST_SLICE("a"), CST_SLICE("")};
	struct fixture f;
	scripted_fixture_start(&f, &script, CST_CLOUD_S3);
	struct cst_bucket *b = f.bucket;
	for (int i = 0; i < 9; i++) {
		struct written w;
		struct cst_object_op *op = NULL;
		written_init(&w);
		switch (i) {
		case 0:
			op = cst_object_put(b, &(struct cst_object_put){.key = none}, on_written, &w);
			break;
		case 1:
			op = cst_object_delete(b, none, NULL, on_written, &w);
			break;
		case 2:
			op = cst_object_delete_many(b, keys, 2, &on_delete, &w);
			break;
		case 3:
			op = cst_object_multipart_abort(b, k, none, on_written, &w);
			break;
		case 4:
			op = cst_object_multipart_begin(b, none, NULL, on_written, &w);
			break;
		case 5:
			op = cst_object_list_parts(b, k, none, 0, &on_parts, &w);
			break;
		case 6:
			op = cst_object_copy(b, &(struct cst_object_copy){.source = k, .key = none}, on_written, &w);
			break;
		case 7:
			op = cst_object_part_put(b, &(struct cst_object_part_put){.key = k, .number = 1}, on_written,
						 &w);
			break;
		case 8:
			op = cst_object_multipart_complete(
				b, &(struct cst_object_complete){.key = k, .parts = &part, .part_count = 1}, on_written,
				&w);
			break;
		}
		assert_int_equal(finish(op, &w), -EINVAL);
		assert_true(has(w.text, "empty") || has(w.text, "no id"));
		written_fini(&w);
	}
	assert_int_equal(scripted_server_requests(f.server), 0);
	fixture_stop(&f);
}

/* ---- time, credentials, limits ---- */

static uint64_t longest_pause(void *arg)
{
	(void)arg;
	return 3600 * CST_NS_PER_S;
}

static void late_answer_times_out(void **state)
{
	(void)state;
	static const struct script script = {{LOST}};
	struct fixture f;
	struct written w;
	scripted_fixture_start(&f, &script, CST_CLOUD_OSS);
	cst_bucket_tune(f.bucket, &(struct cst_object_tuning){.backoff_base = 3600 * CST_NS_PER_S,
							      .backoff_cap = 3600 * CST_NS_PER_S,
							      .random = longest_pause});
	/* The next attempt would begin behind the deadline. */
	assert_int_equal(finish(run(f.bucket, PUT, &w), &w), -ETIMEDOUT);
	assert_true(w.repeated); /* nobody knows */
	assert_int_equal(scripted_server_requests(f.server), 1);
	written_fini(&w);
	fixture_stop(&f);
}

static enum scripted_end hold(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	(void)arg, (void)n, (void)request, (void)out;
	return SCRIPTED_STALL;
}

static void cancelled(void **state)
{
	(void)state;
	struct fixture f;
	struct written w;
	struct cst_bucket_config c = {.cloud = CST_CLOUD_S3, .credentials = test_keys(CST_CLOUD_S3)};
	fixture_start(&f, hold, NULL, &c);
	struct cst_object_op *op = run(f.bucket, PUT_NEW, &w);
	scripted_server_wait_requests(f.server, 1);
	cst_object_cancel(op);
	assert_int_equal(finish(op, &w), -ECANCELED);
	assert_true(w.repeated); /* the server has it all */
	written_fini(&w);
	fixture_stop(&f);
}

/* The connection of the pool takes all of a request and closes; the HTTP client sends it again by itself. That is an attempt, too. */
static void replaced_connection(void **state)
{
	(void)state;
	static const struct script script = {{OK, LOST, NO(409, "FileAlreadyExists")}};
	struct fixture f;
	struct written w;
	struct cst_bucket_stats s;
	scripted_fixture_start(&f, &script, CST_CLOUD_OSS);
	assert_int_equal(finish(run(f.bucket, PUT_NEW, &w), &w), 0);
	assert_false(w.repeated);
	written_fini(&w);
	assert_int_equal(finish(run(f.bucket, PUT_NEW, &w), &w), -EEXIST);
	assert_true(w.repeated);
	assert_int_equal(scripted_server_requests(f.server), 3);
	cst_bucket_stats(f.bucket, &s);
	assert_int_equal(s.retries, 0);
	written_fini(&w);
	fixture_stop(&f);
}

static enum scripted_end silent_first(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	(void)arg, (void)request;
	if (n == 0)
		return SCRIPTED_STALL;
	scripted_answer(out, 409, "", XML_ERROR("FileAlreadyExists"));
	return SCRIPTED_KEEP;
}

/* The store works for longer than anybody waits. */
static void answer_too_late(void **state)
{
	(void)state;
	struct cst_bucket_config c = {.cloud = CST_CLOUD_OSS,
				      .credentials = test_keys(CST_CLOUD_OSS),
				      .request_timeout = 100 * CST_NS_PER_MS};
	struct fixture f;
	struct written w;
	fixture_start(&f, silent_first, NULL, &c);
	assert_int_equal(finish(run(f.bucket, PUT_NEW, &w), &w), -EEXIST);
	assert_true(w.repeated);
	written_fini(&w);
	fixture_stop(&f);
}

static void clock_differs(void **state)
{
	(void)state;
	/* Another signature, the same body. */
	static const struct script skewed = {
		{{.status = 403, .code = "RequestTimeTooSkewed", .headers = "Date: Tue, 02 Jan 2024 03:04:05 GMT\r\n"},
		 OK}};
	struct fixture f;
	struct written w;
	scripted_fixture_start(&f, &skewed, CST_CLOUD_S3);
	assert_int_equal(finish(run(f.bucket, PUT, &w), &w), 0);
	assert_false(w.repeated);
	assert_true(has(scripted_server_request(f.server, 1), "\r\nx-amz-date: 20240102T0304"));
	assert_string_equal(scripted_server_body(f.server, 1), BODY);
	written_fini(&w);
	fixture_stop(&f);
}

static void hints(void **state)
{
	(void)state;
	static const struct {
		enum what what;
		enum cst_cloud cloud;
		struct step answer;
		const char *text;
	} cases[] = {
		{PUT, CST_CLOUD_OSS, NO(403, "AccessDenied"), "lacks oss:PutObject"},
		{PUT, CST_CLOUD_OSS, NO(403, "AccessDenied"),
		 "can't write oss://bkt/dir/k y: the store answered 403 AccessDenied: m"},
		{DELETE, CST_CLOUD_S3, NO(403, "AccessDenied"), "lacks s3:DeleteObject"},
		{COPY, CST_CLOUD_S3, NO(403, "AccessDenied"), "or, for the source, s3:GetObject"},
		{ABORT, CST_CLOUD_S3, NO(403, "AccessDenied"), "lacks s3:AbortMultipartUpload"},
		{PUT, CST_CLOUD_S3, NO(403, "QuotaExceeded"), "the quota of the bucket or account is used up"},
		{PUT, CST_CLOUD_OSS, NO(409, "FileImmutable"), "retention policy"},
		{PUT, CST_CLOUD_OSS, NO(400, "EntityTooLarge"), "up to 5 GiB in one request"},
		{PUT, CST_CLOUD_OSS, NO(404, "NoSuchBucket"), "check the name of the bucket"},
		{COPY, CST_CLOUD_OSS, NO(403, "InvalidObjectState"), "restore it first"},
		{COMPLETE, CST_CLOUD_OSS, NO(404, "NoSuchUpload"), "a lifecycle rule has removed it"},
		{COPY, CST_CLOUD_OSS, NO(404, "NoSuchKey"), "what was to be copied is not there"},
		{PUT_NEW, CST_CLOUD_S3, NO(501, "NotImplemented"), "does not know conditional writes"},
		{PUT_MATCH, CST_CLOUD_S3, NO(403, "AccessDenied"), "for the condition, s3:GetObject"},
		{COMPLETE, CST_CLOUD_S3, SAYS(XML_ERROR("AccessDenied")), "the store answered 200 AccessDenied: m"},
		{APPEND, CST_CLOUD_OSS, NO(409, "ObjectNotAppendable"), "was not made by appending"},
		{PUT_MATCH, CST_CLOUD_OSS, OK, "OSS can't make a write depend on the version"},
		{PUT, CST_CLOUD_OSS, NO(507, "InsufficientStorage"), "disks are full"},
		{PUT_NEW,
		 CST_CLOUD_OSS,
		 {.status = 200, .headers = "x-oss-hash-crc64ecma: 1\r\n"},
		 "another CRC64 than what was sent"},
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++) {
		struct script script = {{cases[i].answer}};
		struct fixture f;
		struct written w;
		scripted_fixture_start(&f, &script, cases[i].cloud);
		assert_true(finish(run(f.bucket, cases[i].what, &w), &w) < 0);
		if (!has(w.text, cases[i].text) || has(w.text, "sEcReT"))
			fail_msg("case %zu: %s", i, w.text);
		written_fini(&w);
		fixture_stop(&f);
	}
}

static void counted(void **state)
{
	(void)state;
	static const struct script script = {{LOST, OK}};
	struct fixture f;
	struct written w;
	struct cst_bucket_stats s;
	scripted_fixture_start(&f, &script, CST_CLOUD_OSS);
	assert_int_equal(finish(run(f.bucket, PUT, &w), &w), 0);
	cst_bucket_stats(f.bucket, &s);
	assert_int_equal(s.put, 2);
	assert_int_equal(s.retries, 1);
	assert_int_equal(s.bytes_out, 2 * (sizeof(BODY) - 1));
	written_fini(&w);
	fixture_stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(outcomes),
		cmocka_unit_test(lost_append),
		cmocka_unit_test(early_answers),
		cmocka_unit_test(wire),
		cmocka_unit_test(refused_headers),
		cmocka_unit_test(refused_names),
		cmocka_unit_test(replaced_connection),
		cmocka_unit_test(answer_too_late),
		cmocka_unit_test(late_answer_times_out),
		cmocka_unit_test(cancelled),
		cmocka_unit_test(clock_differs),
		cmocka_unit_test(hints),
		cmocka_unit_test(counted),
	};
	return cmocka_run_group_tests_name("write", tests, NULL, NULL);
}
