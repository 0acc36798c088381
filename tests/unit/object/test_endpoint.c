/* Endpoints: spellings, addressing styles, regions. */
#include "object/endpoint.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct row {
	enum cst_cloud cloud;
	const char *endpoint, *bucket, *given_region;
	enum cst_addressing addressing;
	/* wanted */
	const char *host, *connect;
	uint16_t port;
	bool tls, path_style;
	const char *region, *url;
};

static const struct row rows[] = {
	{CST_CLOUD_OSS, "oss-cn-hangzhou.aliyuncs.com", "b", NULL, CST_ADDRESS_AUTO, "b.oss-cn-hangzhou.aliyuncs.com",
	 "b.oss-cn-hangzhou.aliyuncs.com", 443, true, false, "cn-hangzhou", "https://oss-cn-hangzhou.aliyuncs.com"},
	{CST_CLOUD_OSS, " HTTP://OSS-cn-beijing-internal.aliyuncs.com/ ", "b", NULL, CST_ADDRESS_AUTO,
	 "b.oss-cn-beijing-internal.aliyuncs.com", "b.oss-cn-beijing-internal.aliyuncs.com", 80, false, false,
	 "cn-beijing", "http://oss-cn-beijing-internal.aliyuncs.com"},
	{CST_CLOUD_OSS, "https://b.oss-cn-hangzhou.aliyuncs.com", "b", NULL, CST_ADDRESS_AUTO,
	 "b.oss-cn-hangzhou.aliyuncs.com", "b.oss-cn-hangzhou.aliyuncs.com", 443, true, false, "cn-hangzhou",
	 "https://b.oss-cn-hangzhou.aliyuncs.com"},
	{CST_CLOUD_OSS, "oss-cn-hangzhou.aliyuncs.com", "oss-cn-hangzhou", NULL, CST_ADDRESS_AUTO,
	 "oss-cn-hangzhou.oss-cn-hangzhou.aliyuncs.com", "oss-cn-hangzhou.oss-cn-hangzhou.aliyuncs.com", 443, true,
	 false, "cn-hangzhou", "https://oss-cn-hangzhou.aliyuncs.com"},
	{CST_CLOUD_OSS, "oss-accelerate.aliyuncs.com", "b", "cn-shanghai", CST_ADDRESS_AUTO,
	 "b.oss-accelerate.aliyuncs.com", "b.oss-accelerate.aliyuncs.com", 443, true, false, "cn-shanghai",
	 "https://oss-accelerate.aliyuncs.com"},
	{CST_CLOUD_OSS, "oss-accelerate-overseas.aliyuncs.com", "b", NULL, CST_ADDRESS_AUTO,
	 "b.oss-accelerate-overseas.aliyuncs.com", "b.oss-accelerate-overseas.aliyuncs.com", 443, true, false, "",
	 "https://oss-accelerate-overseas.aliyuncs.com"},
	{CST_CLOUD_OSS, "img.example.com", "b", "oss-cn-hangzhou", CST_ADDRESS_CNAME, "img.example.com",
	 "img.example.com", 443, true, false, "cn-hangzhou", "https://img.example.com"},
	{CST_CLOUD_OSS, "http://127.0.0.1:9000", "b", NULL, CST_ADDRESS_AUTO, "127.0.0.1:9000", "127.0.0.1", 9000,
	 false, true, "", "http://127.0.0.1:9000"},
	{CST_CLOUD_OSS, "http://[::1]:9000/", "b", NULL, CST_ADDRESS_AUTO, "[::1]:9000", "::1", 9000, false, true, "",
	 "http://[::1]:9000"},
	{CST_CLOUD_OSS, "[fe80::1]", "b", NULL, CST_ADDRESS_AUTO, "[fe80::1]", "fe80::1", 443, true, true, "",
	 "https://[fe80::1]"},
	{CST_CLOUD_OSS, "http://::1", "b", NULL, CST_ADDRESS_AUTO, "[::1]", "::1", 80, false, true, "", "http://[::1]"},
	{CST_CLOUD_OSS, "http://localhost:80", "b", NULL, CST_ADDRESS_AUTO, "localhost", "localhost", 80, false, true,
	 "", "http://localhost"},
	{CST_CLOUD_OSS, "http://b.localhost:9000", "b", NULL, CST_ADDRESS_AUTO, "b.localhost:9000", "b.localhost", 9000,
	 false, false, "", "http://b.localhost:9000"},
	{CST_CLOUD_OSS, "http://store:9000", "b", NULL, CST_ADDRESS_AUTO, "store:9000", "store", 9000, false, true, "",
	 "http://store:9000"},
	{CST_CLOUD_OSS, "http://store:9000", "b", NULL, CST_ADDRESS_VIRTUAL, "b.store:9000", "b.store", 9000, false,
	 false, "", "http://store:9000"},
	{CST_CLOUD_OSS, "s3.example.com:8443", "b", NULL, CST_ADDRESS_PATH, "s3.example.com:8443", "s3.example.com",
	 8443, true, true, "", "https://s3.example.com:8443"},
	{CST_CLOUD_OSS, NULL, "b", "cn-hangzhou", CST_ADDRESS_AUTO, "b.oss-cn-hangzhou.aliyuncs.com",
	 "b.oss-cn-hangzhou.aliyuncs.com", 443, true, false, "cn-hangzhou", "https://oss-cn-hangzhou.aliyuncs.com"},
	{CST_CLOUD_OSS, "vpc100-oss-cn-hangzhou.aliyuncs.com", "b", NULL, CST_ADDRESS_AUTO,
	 "b.vpc100-oss-cn-hangzhou.aliyuncs.com", "b.vpc100-oss-cn-hangzhou.aliyuncs.com", 443, true, false,
	 "cn-hangzhou", "https://vpc100-oss-cn-hangzhou.aliyuncs.com"},
	{CST_CLOUD_OSS, "cn-hangzhou.oss.aliyuncs.com", "b", NULL, CST_ADDRESS_AUTO, "b.cn-hangzhou.oss.aliyuncs.com",
	 "b.cn-hangzhou.oss.aliyuncs.com", 443, true, false, "cn-hangzhou", "https://cn-hangzhou.oss.aliyuncs.com"},
	{CST_CLOUD_OSS, "cn-beijing-internal.oss-data-acc.aliyuncs.com", "b", NULL, CST_ADDRESS_AUTO,
	 "b.cn-beijing-internal.oss-data-acc.aliyuncs.com", "b.cn-beijing-internal.oss-data-acc.aliyuncs.com", 443,
	 true, false, "cn-beijing", "https://cn-beijing-internal.oss-data-acc.aliyuncs.com"},
	{CST_CLOUD_S3, NULL, "b", NULL, CST_ADDRESS_AUTO, "b.s3.us-east-1.amazonaws.com",
	 "b.s3.us-east-1.amazonaws.com", 443, true, false, "us-east-1", "https://s3.us-east-1.amazonaws.com"},
	{CST_CLOUD_S3, NULL, "b", "cn-north-1", CST_ADDRESS_AUTO, "b.s3.cn-north-1.amazonaws.com.cn",
	 "b.s3.cn-north-1.amazonaws.com.cn", 443, true, false, "cn-north-1", "https://s3.cn-north-1.amazonaws.com.cn"},
	{CST_CLOUD_S3, "s3.eu-west-1.amazonaws.com", "my.bucket", NULL, CST_ADDRESS_AUTO, "s3.eu-west-1.amazonaws.com",
	 "s3.eu-west-1.amazonaws.com", 443, true, true, "eu-west-1", "https://s3.eu-west-1.amazonaws.com"},
	{CST_CLOUD_S3, "http://s3-eu-west-1.amazonaws.com", "my.bucket", NULL, CST_ADDRESS_AUTO,
	 "my.bucket.s3-eu-west-1.amazonaws.com", "my.bucket.s3-eu-west-1.amazonaws.com", 80, false, false, "eu-west-1",
	 "http://s3-eu-west-1.amazonaws.com"},
	{CST_CLOUD_S3, "s3.dualstack.eu-west-1.amazonaws.com", "b", NULL, CST_ADDRESS_AUTO,
	 "b.s3.dualstack.eu-west-1.amazonaws.com", "b.s3.dualstack.eu-west-1.amazonaws.com", 443, true, false,
	 "eu-west-1", "https://s3.dualstack.eu-west-1.amazonaws.com"},
	{CST_CLOUD_S3, "s3.amazonaws.com", "s3", NULL, CST_ADDRESS_AUTO, "s3.s3.amazonaws.com", "s3.s3.amazonaws.com",
	 443, true, false, "us-east-1", "https://s3.amazonaws.com"},
	{CST_CLOUD_S3, "https://s3.oss-cn-hangzhou.aliyuncs.com", "b", NULL, CST_ADDRESS_AUTO,
	 "b.s3.oss-cn-hangzhou.aliyuncs.com", "b.s3.oss-cn-hangzhou.aliyuncs.com", 443, true, false, "cn-hangzhou",
	 "https://s3.oss-cn-hangzhou.aliyuncs.com"},
	{CST_CLOUD_S3, "http://10.0.0.1", "b", NULL, CST_ADDRESS_AUTO, "10.0.0.1", "10.0.0.1", 80, false, true,
	 "us-east-1", "http://10.0.0.1"},
};

static void good(void **state)
{
	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(rows); i++) {
		const struct row *r = &rows[i];
		struct cst_bucket_config config = {.cloud = r->cloud,
						   .endpoint = r->endpoint,
						   .bucket = r->bucket,
						   .region = r->given_region,
						   .addressing = r->addressing};
		struct cst_endpoint e;
		struct cst_error err = CST_ERROR_INIT;
		assert_int_equal(cst_endpoint_parse(&config, &e, &err), 0);
		assert_string_equal(e.host, r->host);
		assert_string_equal(e.origin.host, r->connect);
		assert_int_equal(e.origin.port, r->port);
		assert_int_equal(e.origin.tls, r->tls);
		assert_int_equal(e.path_style, r->path_style);
		assert_string_equal(e.region, r->region);
		assert_string_equal(e.url, r->url);
	}
}

static void bad(void **state)
{
	(void)state;
	static const struct {
		const char *endpoint, *bucket, *region, *says;
	} wrong[] = {
		{"ftp://h", "b", NULL, "neither http nor https"},
		{"http://", "b", NULL, "empty"},
		{"h:0", "b", NULL, "1…65535"},
		{"h:65536", "b", NULL, "1…65535"},
		{"h:9x", "b", NULL, "not a number"},
		{"h:123456", "b", NULL, "not a number"},
		{"h/bucket", "b", NULL, "path"},
		{"http://user:secret@h", "b", NULL, "user name"},
		{"a b", "b", NULL, "character"},
		{"a..b", "b", NULL, "empty part"},
		{"[::1", "b", NULL, "character"},
		{"h", "", NULL, "bucket name"},
		{"h", "a/b", NULL, "bucket name"},
		{"h", ".x", NULL, "bucket name"},
		{"h", "b", "cn hangzhou", "region"},
		{NULL, "b", NULL, "no endpoint"},
		{"", "b", NULL, "no endpoint"},
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(wrong); i++) {
		struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS,
						   .endpoint = wrong[i].endpoint,
						   .bucket = wrong[i].bucket,
						   .region = wrong[i].region};
		struct cst_endpoint e;
		struct cst_error err = CST_ERROR_INIT;
		char text[CST_ERROR_TEXT_MAX];
		assert_int_equal(cst_endpoint_parse(&config, &e, &err), -EINVAL);
		assert_non_null(strstr(cst_error_text(&err, text, sizeof(text)), wrong[i].says));
		assert_null(strstr(text, "secret"));
	}
	char longest[400];
	memset(longest, 'a', sizeof(longest));
	longest[399] = '\0';
	struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS, .endpoint = longest, .bucket = "b"};
	struct cst_endpoint e;
	assert_int_equal(cst_endpoint_parse(&config, &e, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(good), cmocka_unit_test(bad)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
