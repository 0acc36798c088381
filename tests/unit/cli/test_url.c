#include "cli/url.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void accepts(const char *text, enum cst_cloud cloud, const char *bucket, const char *prefix, const char *written)
{
	struct cst_url url;
	struct cst_error err = CST_ERROR_INIT;
	assert_int_equal(cst_url_parse(text, &url, &err), 0);
	assert_int_equal(url.cloud, cloud);
	assert_string_equal(url.bucket, bucket);
	assert_string_equal(url.prefix, prefix);
	CST_AUTO_BUF out = CST_BUF_INIT;
	cst_url_text(&url, &out);
	assert_string_equal(out.data, written);
}

static void good(void **state)
{
	(void)state;
	accepts("oss://abc", CST_CLOUD_OSS, "abc", "", "oss://abc");
	accepts("oss://abc/", CST_CLOUD_OSS, "abc", "", "oss://abc");
	accepts("OSS://my-bucket-1/a/b", CST_CLOUD_OSS, "my-bucket-1", "a/b/", "oss://my-bucket-1/a/b");
	accepts("oss://abc/a/b/", CST_CLOUD_OSS, "abc", "a/b/", "oss://abc/a/b");
	accepts("oss://abc//a//b", CST_CLOUD_OSS, "abc", "a//b/", "oss://abc/a//b");
	accepts("oss://abc/a//", CST_CLOUD_OSS, "abc", "a//", "oss://abc/a//");
	accepts("s3://my.bucket/%41 ?#", CST_CLOUD_S3, "my.bucket", "%41 ?#/", "s3://my.bucket/%41 ?#");
	accepts("s3://abc/数据", CST_CLOUD_S3, "abc", "数据/", "s3://abc/数据");
}

static void refuses(const char *text, const char *detail)
{
	struct cst_url url;
	struct cst_error err = CST_ERROR_INIT;
	char out[CST_ERROR_TEXT_MAX];
	assert_int_equal(cst_url_parse(text, &url, &err), -EINVAL);
	cst_error_text(&err, out, sizeof(out));
	if (!strstr(out, detail))
		fail_msg("%s gave: %s", text, out);
}

static void bad(void **state)
{
	(void)state;
	refuses("", "neither oss:// nor s3://");
	refuses("abc", "neither oss:// nor s3://");
	refuses("http://abc", "neither oss:// nor s3://");
	refuses("oss:/abc", "neither oss:// nor s3://");
	refuses("oss://", "too short");
	refuses("oss://ab/c", "too short");
	refuses("oss://Abc", "a character that bucket names don't have");
	refuses("oss://a b", "a character that bucket names don't have");
	refuses("oss://-abc", "begin and end with a letter or digit");
	refuses("oss://abc-/x", "begin and end with a letter or digit");
	refuses("oss://abc.oss-cn-hangzhou.aliyuncs.com/x", "--endpoint");
	refuses("oss://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "too long");
}

static void prefix_length(void **state)
{
	(void)state;
	struct cst_url url = {.cloud = CST_CLOUD_OSS};
	struct cst_error err = CST_ERROR_INIT;
	char key[CST_KEY_MAX + 2];
	memset(key, 'k', sizeof(key));
	assert_int_equal(cst_url_set_prefix(&url, (struct cst_slice){key, CST_KEY_MAX - 1}, &err), 0);
	assert_int_equal(strlen(url.prefix), CST_KEY_MAX);
	assert_int_equal(cst_url_set_prefix(&url, (struct cst_slice){key, CST_KEY_MAX}, &err), -EINVAL);
	key[CST_KEY_MAX - 1] = '/';
	assert_int_equal(cst_url_set_prefix(&url, (struct cst_slice){key, CST_KEY_MAX}, &err), 0);
}

static void ossfs_form(void **state)
{
	(void)state;
	struct cst_url url;
	struct cst_error err = CST_ERROR_INIT;
	assert_int_equal(cst_url_parse_ossfs("abc", &url, &err), 0);
	assert_string_equal(url.bucket, "abc");
	assert_string_equal(url.prefix, "");
	assert_int_equal(cst_url_parse_ossfs("abc:/", &url, &err), 0);
	assert_string_equal(url.prefix, "");
	assert_int_equal(cst_url_parse_ossfs("abc:/a/b", &url, &err), 0);
	assert_string_equal(url.prefix, "a/b/");
	assert_int_equal(cst_url_parse_ossfs("abc:a", &url, &err), -EINVAL);
	assert_int_equal(cst_url_parse_ossfs("a:/a", &url, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(good), cmocka_unit_test(bad),
					   cmocka_unit_test(prefix_length), cmocka_unit_test(ossfs_form)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
