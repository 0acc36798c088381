/* Signatures against published vectors (doc/object.md names the sources), and the verifier against the signer. */
#include "object/sign.h"

#include "base/clock.h"
#include "base/digest.h"
#include "base/text.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct cst_credential oss_cred(void)
{
	return (struct cst_credential){.access_key = "ak", .secret_key = "sk"};
}

static int64_t at(const char *text)
{
	int64_t s;
	assert_int_equal(cst_time_parse(text, strlen(text), &s), 0);
	return s;
}

/* The last line that cst_sign_headers() writes is "Authorization: …\r\n". */
static void assert_authorization_ends(const struct cst_buf *lines, const char *end)
{
	CST_AUTO_FREE char *wanted = cst_xasprintf("%s\r\n", end);
	assert_true(lines->len > strlen(wanted));
	assert_string_equal(lines->data + lines->len - strlen(wanted), wanted);
}

#define V1_HEADERS                                                                                              \
	"Content-MD5: eB5eJF1ptWaXm4bijSPyxw==\r\nContent-Type: text/html\r\nx-oss-meta-magic: abracadabra\r\n" \
	"X-OSS-Meta-Author:  alice \r\nx-oss-date: Wed, 28 Dec 2022 10:27:41 GMT\r\n"

static void v1_header(void **state)
{
	(void)state;
	const struct cst_credential cred = oss_cred();
	struct cst_sign_param params[] = {{CST_SLICE("prefix"), CST_SLICE("x"), true}, {CST_SLICE("acl"), {0}, false}};
	struct cst_sign_request req = {
		.kind = CST_SIGN_OSS_V1,
		.method = "PUT",
		.bucket = CST_SLICE("examplebucket"),
		.key = CST_SLICE("nelson"),
		.headers = CST_SLICE(V1_HEADERS),
		.time = at("Wed, 28 Dec 2022 10:27:41 GMT"),
	};
	CST_AUTO_BUF text = CST_BUF_INIT, lines = CST_BUF_INIT;
	cst_sign_string_to_sign(&req, &cred, NULL, &text);
	assert_string_equal(text.data, "PUT\neB5eJF1ptWaXm4bijSPyxw==\ntext/html\nWed, 28 Dec 2022 10:27:41 GMT\n"
				       "x-oss-date:Wed, 28 Dec 2022 10:27:41 GMT\nx-oss-meta-author:alice\n"
				       "x-oss-meta-magic:abracadabra\n/examplebucket/nelson");
	cst_sign_headers(&req, &cred, &lines);
	assert_string_equal(lines.data, "Date: Wed, 28 Dec 2022 10:27:41 GMT\r\n"
					"Authorization: OSS ak:kSHKmLxlyEAKtZPkJhG9bZb5k7M=\r\n");
	cst_buf_clear(&lines);
	req.params = params;
	req.param_count = 2;
	cst_sign_headers(&req, &cred, &lines);
	assert_authorization_ends(&lines, "OSS ak:/afkugFbmWDQ967j1vr6zygBLQk=");

	struct cst_sign_param group = {CST_SLICE("resourceGroup"), CST_SLICE(""), true};
	struct cst_sign_request get = {
		.kind = CST_SIGN_OSS_V1,
		.method = "GET",
		.bucket = CST_SLICE("examplebucket"),
		.params = &group,
		.param_count = 1,
		.headers = CST_SLICE("x-oss-date: Wed, 28 Dec 2022 10:27:41 GMT\r\n"),
		.time = req.time,
	};
	cst_buf_clear(&lines);
	cst_sign_headers(&get, &cred, &lines);
	assert_authorization_ends(&lines, "OSS ak:vkQmfuUDyi1uDi3bKt67oemssIs=");
}

static void v1_query(void **state)
{
	(void)state;
	struct cst_credential cred = oss_cred();
	struct cst_sign_param version = {CST_SLICE("versionId"), CST_SLICE("versionId"), true};
	struct cst_sign_request req = {
		.kind = CST_SIGN_OSS_V1,
		.method = "GET",
		.bucket = CST_SLICE("bucket"),
		.key = CST_SLICE("key"),
		.params = &version,
		.param_count = 1,
		.time = 1699807420 - 600,
	};
	CST_AUTO_BUF query = CST_BUF_INIT;
	cst_sign_query(&req, &cred, 600, &query);
	assert_string_equal(query.data,
			    "&OSSAccessKeyId=ak&Expires=1699807420&Signature=dcLTea%2BYh9ApirQ8o8dOPqtvJXQ%3D");

	strcpy(cred.token, "token");
	req.key = CST_SLICE("key+123");
	req.time = 1699808204 - 1;
	cst_buf_clear(&query);
	cst_sign_query(&req, &cred, 1, &query);
	assert_string_equal(query.data, "&OSSAccessKeyId=ak&Expires=1699808204&security-token=token&"
					"Signature=jzKYRrM5y6Br0dRFPaTGOsbrDhY%3D");
}

#define V4_PARAMS                                                                                            \
	{CST_SLICE("param1"), CST_SLICE("value1"), true}, {CST_SLICE("|param1"), CST_SLICE("value4"), true}, \
		{CST_SLICE("+param1"), CST_SLICE("value3"), true}, {CST_SLICE("|param2"), {0}, false},       \
		{CST_SLICE("+param2"), {0}, false},                                                          \
	{                                                                                                    \
		CST_SLICE("param2"), CST_SLICE(""), true                                                     \
	}

static void v4_header(void **state)
{
	(void)state;
	struct cst_credential cred = oss_cred();
	struct cst_sign_param params[] = {V4_PARAMS};
	struct cst_sign_request req = {
		.kind = CST_SIGN_OSS_V4,
		.method = "PUT",
		.bucket = CST_SLICE("bucket"),
		.key = CST_SLICE("1234+-/123/1.txt"),
		.params = params,
		.param_count = CST_ARRAY_LEN(params),
		.region = "cn-hangzhou",
		.host = "not.signed",
		.headers = CST_SLICE(
			"x-oss-head1: value\r\nabc: value\r\nZAbc: value\r\nXYZ: value\r\ncontent-type: text/plain\r\n"),
		.time = at("20231216T162057Z"),
	};
	CST_AUTO_BUF canonical = CST_BUF_INIT, text = CST_BUF_INIT, lines = CST_BUF_INIT;
	cst_sign_string_to_sign(&req, &cred, &canonical, &text);
	assert_string_equal(
		canonical.data,
		"PUT\n/bucket/1234%2B-/123/1.txt\n%2Bparam1=value3&%2Bparam2&%7Cparam1=value4&%7Cparam2&param1=value1&param2\n"
		"content-type:text/plain\nx-oss-content-sha256:UNSIGNED-PAYLOAD\nx-oss-date:20231216T162057Z\n"
		"x-oss-head1:value\n\n\nUNSIGNED-PAYLOAD");
	assert_string_equal(text.data,
			    "OSS4-HMAC-SHA256\n20231216T162057Z\n20231216/cn-hangzhou/oss/aliyun_v4_request\n"
			    "f4613657f1b108998e8dbd10a1aa5da621dc2c6e02c9ddec0f163664848704c4");
	cst_sign_headers(&req, &cred, &lines);
	assert_string_equal(lines.data,
			    "x-oss-date: 20231216T162057Z\r\nx-oss-content-sha256: UNSIGNED-PAYLOAD\r\n"
			    "Authorization: OSS4-HMAC-SHA256 Credential=ak/20231216/cn-hangzhou/oss/aliyun_v4_request,"
			    "Signature=e21d18daa82167720f9b1047ae7e7f1ce7cb77a31e8203a7d5f4624fa0284afe\r\n");

	strcpy(cred.token, "token");
	req.time = at("20231217T034736Z");
	cst_buf_clear(&lines);
	cst_sign_headers(&req, &cred, &lines);
	assert_non_null(strstr(lines.data, "x-oss-security-token: token\r\n"));
	assert_authorization_ends(&lines, "Signature=b94a3f999cf85bcdc00d332fbd3734ba03e48382c36fa4d5af5df817395bd9ea");

	cred.token[0] = '\0';
	req.time = at("20231216T172512Z");
	req.additional_headers = "abc;zabc";
	uint8_t key[32];
	cst_sign_key(CST_SIGN_OSS_V4, &cred, CST_SLICE("20231216"), CST_SLICE("cn-hangzhou"), key);
	memset(cred.secret_key, 0, sizeof(cred.secret_key)); /* the derived key is enough */
	req.key_for_date = key;
	cst_buf_clear(&lines);
	cst_sign_headers(&req, &cred, &lines);
	assert_authorization_ends(&lines, "AdditionalHeaders=abc;zabc,"
					  "Signature=4a4183c187c07c8947db7620deb0a6b38d9fbdd34187b6dbaccb316fa251212f");
}

#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static const struct cst_credential aws_cred = {.access_key = "AKIAIOSFODNN7EXAMPLE",
					       .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"};

static struct cst_sign_request aws_request(const char *method, const char *key)
{
	return (struct cst_sign_request){
		.kind = CST_SIGN_S3_V4,
		.method = method,
		.bucket = CST_SLICE("examplebucket"),
		.key = cst_slice_of(key),
		.host = "examplebucket.s3.amazonaws.com",
		.region = "us-east-1",
		.payload_hash = EMPTY_SHA256,
		.time = at("20130524T000000Z"),
	};
}

static void s3_header(void **state)
{
	(void)state;
	CST_AUTO_BUF lines = CST_BUF_INIT;
	struct cst_sign_request get = aws_request("GET", "test.txt");
	get.headers = CST_SLICE("Range: bytes=0-9\r\n");
	cst_sign_headers(&get, &aws_cred, &lines);
	assert_string_equal(lines.data,
			    "x-amz-date: 20130524T000000Z\r\nx-amz-content-sha256: " EMPTY_SHA256 "\r\n"
			    "Authorization: AWS4-HMAC-SHA256 "
			    "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
			    "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
			    "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41\r\n");

	struct cst_sign_request put = aws_request("PUT", "test$file.text");
	put.headers = CST_SLICE("Date: Fri, 24 May 2013 00:00:00 GMT\r\nx-amz-storage-class: REDUCED_REDUNDANCY\r\n");
	put.payload_hash = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
	cst_buf_clear(&lines);
	cst_sign_headers(&put, &aws_cred, &lines);
	assert_authorization_ends(&lines, "SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class,"
					  "Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");

	struct cst_sign_param lifecycle = {CST_SLICE("lifecycle"), {0}, false};
	struct cst_sign_request config = aws_request("GET", "");
	config.params = &lifecycle;
	config.param_count = 1;
	cst_buf_clear(&lines);
	cst_sign_headers(&config, &aws_cred, &lines);
	assert_authorization_ends(&lines, "Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");

	struct cst_sign_param page[] = {{CST_SLICE("prefix"), CST_SLICE("J"), true},
					{CST_SLICE("max-keys"), CST_SLICE("2"), true}};
	struct cst_sign_request list = aws_request("GET", "");
	list.params = page;
	list.param_count = 2;
	cst_buf_clear(&lines);
	cst_sign_headers(&list, &aws_cred, &lines);
	assert_authorization_ends(&lines, "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

static void s3_query(void **state)
{
	(void)state;
	CST_AUTO_BUF query = CST_BUF_INIT;
	struct cst_sign_request get = aws_request("GET", "test.txt");
	get.payload_hash = NULL;
	cst_sign_query(&get, &aws_cred, 86400, &query);
	assert_string_equal(query.data,
			    "&X-Amz-Algorithm=AWS4-HMAC-SHA256"
			    "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
			    "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
			    "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
}

static void s3_chunks(void **state)
{
	(void)state;
	CST_AUTO_BUF lines = CST_BUF_INIT;
	struct cst_sign_request put = aws_request("PUT", "chunkObject.txt");
	put.host = "s3.amazonaws.com";
	put.path_style = true;
	put.payload_hash = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
	put.headers = CST_SLICE(
		"Content-Encoding: aws-chunked\r\nContent-Length: 66824\r\nx-amz-decoded-content-length: 66560\r\n"
		"x-amz-storage-class: REDUCED_REDUNDANCY\r\n");
	cst_sign_headers(&put, &aws_cred, &lines);
	assert_authorization_ends(&lines, "Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9");

	static const struct {
		size_t len;
		const char *signature;
	} chunks[] = {{65536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"},
		      {1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"},
		      {0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"}};
	CST_AUTO_FREE char *data = cst_xmalloc(65536);
	memset(data, 'a', 65536);
	uint8_t key[32], hash[32];
	char previous[65] = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9", now[65];
	cst_sign_s3_signing_key(&aws_cred, CST_SLICE("20130524"), CST_SLICE("us-east-1"), key);
	for (size_t i = 0; i < CST_ARRAY_LEN(chunks); i++) {
		cst_sha256(data, chunks[i].len, hash);
		cst_sign_s3_chunk(key, CST_SLICE("20130524"), CST_SLICE("us-east-1"), put.time, previous, hash, now);
		assert_string_equal(now, chunks[i].signature);
		memcpy(previous, now, sizeof(previous));
	}
}

/* ---- the verifier ---- */

/* Decodes "&k=v&k" into params whose memory `store` owns. */
static size_t split_query(struct cst_slice text, struct cst_sign_param *params, struct cst_buf *store, size_t count)
{
	cst_buf_room(store, text.len * 2);
	while (text.len) {
		struct cst_slice value = cst_slice_cut(&text, '&');
		if (value.len == 0)
			continue;
		struct cst_slice name = cst_slice_cut(&value, '=');
		size_t at_name = store->len;
		assert_int_equal(cst_text_url_decode(store, name, false), 0);
		size_t at_value = store->len;
		assert_int_equal(cst_text_url_decode(store, value, false), 0);
		params[count++] = (struct cst_sign_param){{store->data + at_name, at_value - at_name},
							  {store->data + at_value, store->len - at_value},
							  value.data != NULL};
	}
	return count;
}

static const enum cst_sign_kind kinds[] = {CST_SIGN_OSS_V1, CST_SIGN_OSS_V4, CST_SIGN_S3_V4};

static void verify_headers(void **state)
{
	(void)state;
	struct cst_sign_param params[] = {{CST_SLICE("uploadId"), CST_SLICE("a/b c"), true},
					  {CST_SLICE("partNumber"), CST_SLICE("1"), true}};
	for (size_t i = 0; i < CST_ARRAY_LEN(kinds); i++) {
		struct cst_credential cred = {.access_key = "AK", .secret_key = "secret", .token = "tok/en="};
		struct cst_sign_request req = {
			.kind = kinds[i],
			.method = "PUT",
			.bucket = CST_SLICE("b"),
			.key = CST_SLICE("k e\xff/y"),
			.path_style = true,
			.params = params,
			.param_count = 2,
			.headers = CST_SLICE("Content-Type: a/b\r\nx-oss-meta-a:  1\r\nx-amz-meta-a: 2  3\r\n"),
			.host = "h:9000",
			.region = "r",
			.additional_headers = "host",
			.time = 1700000000,
		};
		CST_AUTO_BUF lines = CST_BUF_INIT, changed = CST_BUF_INIT, text = CST_BUF_INIT;
		cst_buf_add_slice(&lines, req.headers);
		cst_sign_headers(&req, &cred, &lines);
		struct cst_sign_claim claim;
		const char *why = NULL;
		assert_int_equal(cst_sign_read_claim(cst_buf_slice(&lines), params, 2, &claim, &why), 0);
		assert_int_equal(claim.kind, kinds[i]);
		assert_false(claim.presigned);
		assert_true(cst_slice_is(claim.access_key, "AK"));
		assert_true(cst_slice_is(claim.token, "tok/en="));
		assert_int_equal(claim.time, 1700000000);
		struct cst_sign_request seen = req;
		seen.headers = cst_buf_slice(&lines);
		seen.additional_headers = NULL;
		assert_int_equal(cst_sign_verify(&seen, &claim, &cred, &text), 0);
		assert_true(text.len > 0);
		assert_int_equal(cst_sign_verify(&seen, &claim, &cred, NULL), 0);

		struct cst_sign_request wrong = seen;
		wrong.method = "GET";
		assert_int_equal(cst_sign_verify(&wrong, &claim, &cred, NULL), -EACCES);
		wrong = seen;
		wrong.key = CST_SLICE("k e\xff/z");
		assert_int_equal(cst_sign_verify(&wrong, &claim, &cred, NULL), -EACCES);
		wrong = seen;
		wrong.param_count = 1;
		assert_int_equal(cst_sign_verify(&wrong, &claim, &cred, NULL), -EACCES);
		cst_buf_add_slice(&changed, cst_buf_slice(&lines));
		*strstr(changed.data, kinds[i] == CST_SIGN_S3_V4 ? "2  3" : ":  1\r\nx-amz") += 1;
		wrong = seen;
		wrong.headers = cst_buf_slice(&changed);
		assert_int_equal(cst_sign_verify(&wrong, &claim, &cred, NULL), -EACCES);
		cred.secret_key[0] = 'S';
		assert_int_equal(cst_sign_verify(&seen, &claim, &cred, NULL), -EACCES);
	}
}

static void verify_presigned(void **state)
{
	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(kinds); i++) {
		const struct cst_credential cred = {.access_key = "AK", .secret_key = "secret", .token = "tok/en="};
		struct cst_sign_param params[16] = {{CST_SLICE("versionId"), CST_SLICE("1"), true}};
		struct cst_sign_request req = {
			.kind = kinds[i],
			.method = "GET",
			.bucket = CST_SLICE("b"),
			.key = CST_SLICE("k"),
			.path_style = true,
			.params = params,
			.param_count = 1,
			.host = "h:9000",
			.region = "r",
			.time = 1700000000,
		};
		CST_AUTO_BUF query = CST_BUF_INIT, store = CST_BUF_INIT;
		cst_sign_query(&req, &cred, 60, &query);
		req.param_count = split_query(cst_buf_slice(&query), params, &store, 1);
		struct cst_sign_claim claim;
		const char *why = NULL;
		assert_int_equal(cst_sign_read_claim((struct cst_slice){0}, params, req.param_count, &claim, &why), 0);
		assert_int_equal(claim.kind, kinds[i]);
		assert_true(claim.presigned);
		assert_true(cst_slice_is(claim.token, "tok/en="));
		assert_int_equal(claim.expires_s, kinds[i] == CST_SIGN_OSS_V1 ? 1700000060 : 60);
		req.headers = CST_SLICE("Accept: */*\r\n");
		assert_int_equal(cst_sign_verify(&req, &claim, &cred, NULL), 0);
		params[0].value = CST_SLICE("1\0"); /* a NUL hides nothing */
		assert_int_equal(cst_sign_verify(&req, &claim, &cred, NULL), -EACCES);
	}
}

static void verify_bucket_path(void **state)
{
	(void)state;
	/* What AWS SDKs sign for a listing, path style: "/examplebucket" without the slash. */
	uint8_t hash[32], mac[32], key[32];
	CST_AUTO_BUF text = CST_BUF_INIT, lines = CST_BUF_INIT;
	static const char canonical[] =
		"GET\n/examplebucket\nlist-type=2\nhost:h\nx-amz-date:20130524T000000Z\n\nhost;x-amz-date\nUNSIGNED-PAYLOAD";
	cst_sha256(canonical, strlen(canonical), hash);
	cst_buf_add_str(&text, "AWS4-HMAC-SHA256\n20130524T000000Z\n20130524/us-east-1/s3/aws4_request\n");
	cst_text_hex(&text, hash, 32);
	cst_sign_s3_signing_key(&aws_cred, CST_SLICE("20130524"), CST_SLICE("us-east-1"), key);
	cst_hmac_sha256(key, 32, text.data, text.len, mac);
	cst_buf_add_str(
		&lines,
		"x-amz-date: 20130524T000000Z\r\nAuthorization: AWS4-HMAC-SHA256 "
		"Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=");
	cst_text_hex(&lines, mac, 32);
	struct cst_sign_param param = {CST_SLICE("list-type"), CST_SLICE("2"), true};
	struct cst_sign_request req = aws_request("GET", "");
	req.host = "h";
	req.path_style = true;
	req.params = &param;
	req.param_count = 1;
	req.headers = cst_buf_slice(&lines);
	struct cst_sign_claim claim;
	const char *why = NULL;
	assert_int_equal(cst_sign_read_claim(req.headers, &param, 1, &claim, &why), 0);
	assert_int_equal(cst_sign_verify(&req, &claim, &aws_cred, NULL), 0);
	req.key = CST_SLICE("x");
	assert_int_equal(cst_sign_verify(&req, &claim, &aws_cred, NULL), -EACCES);
}

static void malformed_claims(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"Authorization: Basic abc\r\n",
		"Date: Wed, 28 Dec 2022 10:27:41 GMT\r\nAuthorization: OSS ak\r\n",
		"Date: Wed, 28 Dec 2022 10:27:41 GMT\r\nAuthorization: OSS :sig\r\n",
		"Date: yesterday\r\nAuthorization: OSS ak:sig\r\n",
		"Authorization: OSS ak:sig\r\n",
		"x-oss-date: 20231216T162057Z\r\nAuthorization: OSS4-HMAC-SHA256 Credential=ak/2023/r/oss/aliyun_v4_request,Signature=a\r\n",
		"x-oss-date: 20231216T162057Z\r\nAuthorization: OSS4-HMAC-SHA256 Credential=ak/20231216/r/s3/aliyun_v4_request,Signature=a\r\n",
		"x-oss-date: 20231216T162057Z\r\nAuthorization: OSS4-HMAC-SHA256 Credential=/20231216/r/oss/aliyun_v4_request,Signature=a\r\n",
		"x-oss-date: 20231216T162057Z\r\nAuthorization: OSS4-HMAC-SHA256 Signature=a\r\n",
		"x-amz-date: 20130524T000000Z\r\nAuthorization: AWS4-HMAC-SHA256 Credential=A/20130524/r/s3/aws4_request, Signature=a\r\n",
		"x-amz-date: 20130524T000000Z\r\nAuthorization: AWS4-HMAC-SHA256\r\n",
	};
	struct cst_sign_claim claim;
	const char *why;
	for (size_t i = 0; i < CST_ARRAY_LEN(bad); i++) {
		why = NULL;
		assert_int_equal(cst_sign_read_claim(cst_slice_of(bad[i]), NULL, 0, &claim, &why), -EINVAL);
		assert_non_null(why);
	}
	static const struct cst_sign_param queries[][4] = {
		{{CST_SLICE("OSSAccessKeyId"), CST_SLICE("a"), true}},
		{{CST_SLICE("OSSAccessKeyId"), CST_SLICE("a"), true},
		 {CST_SLICE("Signature"), CST_SLICE("s"), true},
		 {CST_SLICE("Expires"), CST_SLICE("-1"), true}},
		{{CST_SLICE("X-Amz-Algorithm"), CST_SLICE("AWS4-HMAC-SHA1"), true}},
		{{CST_SLICE("X-Amz-Algorithm"), CST_SLICE("AWS4-HMAC-SHA256"), true},
		 {CST_SLICE("X-Amz-Date"), CST_SLICE("20130524T000000Z"), true}},
		{{CST_SLICE("x-oss-signature-version"), CST_SLICE("OSS4-HMAC-SHA256"), true},
		 {CST_SLICE("x-oss-signature"), CST_SLICE("a"), true}},
		{{CST_SLICE("x-oss-signature-version"), CST_SLICE("OSS4-HMAC-SHA256"), true},
		 {CST_SLICE("x-oss-signature"), CST_SLICE("a"), true},
		 {CST_SLICE("x-oss-date"), CST_SLICE("20130524T000000Z"), true}},
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(queries); i++) {
		why = NULL;
		assert_int_equal(cst_sign_read_claim((struct cst_slice){0}, queries[i], 4, &claim, &why), -EINVAL);
		assert_non_null(why);
	}
	assert_int_equal(cst_sign_read_claim(CST_SLICE("Host: x\r\nno colon here\r\n"), NULL, 0, &claim, &why), 0);
	assert_int_equal(claim.kind, CST_SIGN_NONE);
	struct cst_sign_request req = {.method = "GET"};
	assert_int_equal(cst_sign_verify(&req, &claim, &aws_cred, NULL), -EACCES);
}

/* Every name of the table is found (the search relies on its order), and what only looks alike is not. */
static void v1_resource_names(void **state)
{
	(void)state;
	static const char *const names[] = {"accessPoint",
					    "acl",
					    "append",
					    "bucketInfo",
					    "callback",
					    "callback-var",
					    "cloudboxes",
					    "continuation-token",
					    "cors",
					    "delete",
					    "encryption",
					    "lifecycle",
					    "location",
					    "logging",
					    "objectMeta",
					    "partNumber",
					    "policy",
					    "position",
					    "qos",
					    "qosInfo",
					    "referer",
					    "regionList",
					    "replication",
					    "requestPayment",
					    "resourceGroup",
					    "response-cache-control",
					    "response-content-disposition",
					    "response-content-encoding",
					    "response-content-language",
					    "response-content-type",
					    "response-expires",
					    "restore",
					    "security-token",
					    "sequential",
					    "stat",
					    "status",
					    "symlink",
					    "tagging",
					    "uploadId",
					    "uploads",
					    "versionId",
					    "versioning",
					    "versions",
					    "website",
					    "worm",
					    "wormId",
					    "x-oss-process"};
	static const char *const others[] = {"prefix",	    "delimiter", "marker", "max-keys", "list-type",
					     "start-after", "Acl",	 "ac",	   "aclx",     "encoding-type"};
	const struct cst_credential cred = oss_cred();
	for (size_t i = 0; i < CST_ARRAY_LEN(names) + CST_ARRAY_LEN(others); i++) {
		bool is_signed = i < CST_ARRAY_LEN(names);
		const char *name = is_signed ? names[i] : others[i - CST_ARRAY_LEN(names)];
		struct cst_sign_param param = {cst_slice_of(name), CST_SLICE("v"), true};
		struct cst_sign_request req = {
			.kind = CST_SIGN_OSS_V1, .method = "GET", .params = &param, .param_count = 1};
		CST_AUTO_BUF text = CST_BUF_INIT;
		CST_AUTO_FREE char *wanted =
			is_signed ? cst_xasprintf("GET\n\n\nThu, 01 Jan 1970 00:00:00 GMT\n/?%s=v", name)
				  : cst_xstrdup("GET\n\n\nThu, 01 Jan 1970 00:00:00 GMT\n/");
		cst_sign_string_to_sign(&req, &cred, NULL, &text);
		assert_string_equal(text.data, wanted);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(v1_header),	     cmocka_unit_test(v1_query),
		cmocka_unit_test(v1_resource_names), cmocka_unit_test(v4_header),
		cmocka_unit_test(s3_header),	     cmocka_unit_test(s3_query),
		cmocka_unit_test(s3_chunks),	     cmocka_unit_test(verify_headers),
		cmocka_unit_test(verify_presigned),  cmocka_unit_test(verify_bucket_path),
		cmocka_unit_test(malformed_claims),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
