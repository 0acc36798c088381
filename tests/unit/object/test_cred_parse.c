/* Parsers of credential sources: what they take, what they refuse and where they say the mistake is. */
#include "test_cred_common.h"

#include <errno.h>

struct passwd_case {
	const char *text, *bucket;
	int rc;
	const char *expected; /* "id secret", or words of the error */
};

static const struct passwd_case passwd_cases[] = {
	{"AK:SECRET123\n", "b", 0, "AK SECRET123"},
	{"AK:SECRET123", NULL, 0, "AK SECRET123"},
	{"# comment\r\n\r\nother:AK1:S1\r\nb:AK2:S2\r\nAK3:S3\r\n", "b", 0, "AK2 S2"},
	{"AK3:S3\nb:AK2:S2\n", "b", 0, "AK2 S2"},
	{"b:AK2:S2\nAK3:S3\n", "b", 0, "AK2 S2"},
	{"other:AK1:S1\nAK3:S3\n", "b", 0, "AK3 S3"},
	{"  b:AK2:S2\t\n", "b", 0, "AK2 S2"},
	{"other:AK1:S1\n", "b", -ENODATA, ""},
	{"", "b", -ENODATA, ""},
	{"\n# nothing\n", "b", -ENODATA, ""},
	{"other:AK:S\n", NULL, -ENODATA, ""},
	{"AK SECRET123\n", "b", -EINVAL, "line 1: no ':'"},
	{"\nb:AK:SECRET123:x\n", "b", -EINVAL, "line 2: more than two ':'"},
	{"b:AK:SECRET 123\n", "b", -EINVAL, "line 1: the access key secret has a blank at position 7"},
	{"b:AK:\n", "b", -EINVAL, "line 1: the access key secret is empty"},
	{":AK:SECRET123\n", "b", -EINVAL, "line 1: the bucket name"},
	{"b:AK:SECRET123\nb:AK2:SECRET123\n", "b", -EINVAL,
	 "line 2: a second entry for the bucket (the first is in line 1)"},
	{"AK:SECRET123\nAK2:SECRET123\n", "b", -EINVAL, "line 2: a second entry for all buckets"},
	{"other:AK:\n", "b", -EINVAL, "line 1: the access key secret is empty"},
	{"[Credentials]\naccessKeyID=AK\n", "b", -EINVAL, "line 1: a section header"},
	{"b:A\x01K:SECRET123\n", "b", -EINVAL, "a character that no key contains"},
};

static void passwd_lines(void **state)
{
	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(passwd_cases); i++) {
		const struct passwd_case *t = &passwd_cases[i];
		struct cst_credential cred = {0};
		struct cst_error err = CST_ERROR_INIT;
		char text[CST_ERROR_TEXT_MAX], got[512];
		int rc = cst_cred_parse_passwd("/f", cst_slice_of(t->text), t->bucket, &cred, &err);
		if (rc == 0)
			snprintf(got, sizeof(got), "%s %s", cred.access_key, cred.secret_key);
		else
			snprintf(got, sizeof(got), "%.500s", cst_error_text(&err, text, sizeof(text)));
		if (rc != t->rc || !strstr(got, t->expected))
			print_message("case %zu: rc %d, %s\n", i, rc, got);
		assert_int_equal(rc, t->rc);
		assert_non_null(strstr(got, t->expected));
		if (rc == -EINVAL) {
			assert_non_null(strstr(got, "/f"));
			assert_null(strstr(got, "SECRET123"));
			assert_true(err.hint[0]);
		}
	}
}

static void passwd_key_too_long(void **state)
{
	(void)state;
	char text[600];
	struct cst_credential cred = {0};
	struct cst_error err = CST_ERROR_INIT;
	memset(text, 'A', sizeof(text));
	memcpy(text + 160, ":S", 3);
	assert_int_equal(cst_cred_parse_passwd("/f", cst_slice_of(text), NULL, &cred, &err), -EINVAL);
	assert_non_null(strstr(err.why, "has 160 bytes, at most 159"));
	assert_int_equal(cst_cred_parse_passwd("/f", cst_slice_of(text + 1), NULL, &cred, &err), 0);
}

struct answer_case {
	const char *text;
	int rc;
	const char *expected; /* "id secret token expires", or words of the error */
};

static const struct answer_case answer_cases[] = {
	{"{\"AccessKeyId\":\"A\",\"AccessKeySecret\":\"S\"}", 0, "A S  0"},
	{" {\"AccessKeyId\": \"A\", \"AccessKeySecret\": \"S\", \"SecurityToken\": \"T\", \"Expiration\": \"2030-01-01T00:00:00Z\"}\n",
	 0, "A S T 1893456000"},
	{"{\"Version\":1,\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\",\"SessionToken\":\"T\",\"Expiration\":\"2030-01-01T01:00:00+01:00\"}",
	 0, "A S T 1893456000"},
	{"{\"Code\":\"Success\",\"LastUpdated\":\"x\",\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\",\"Token\":\"T\"}",
	 0, "A S T 0"},
	{"{\"RequestId\":\"r\",\"AssumedRoleUser\":{\"Arn\":[1,{\"a\":\"}\"}]},\"Credentials\":{\"AccessKeyId\":\"A\","
	 "\"AccessKeySecret\":\"S\",\"SecurityToken\":\"T\",\"Expiration\":1893456000}}",
	 0, "A S T 1893456000"},
	{"{\"AccessKeyId\":\"A\",\"AccessKeySecret\":\"a\\/b\\u002bc\\\\\",\"SecurityToken\":null,\"Expiration\":\"\"}",
	 0, "A a/b+c\\  0"},
	{"<?xml version='1.0'?><R><Credentials><AccessKeyId>A</AccessKeyId><AccessKeySecret> S\n</AccessKeySecret>"
	 "<SecurityToken>T</SecurityToken><Expiration>2030-01-01T00:00:00Z</Expiration></Credentials></R>",
	 0, "A S T 1893456000"},
	{"", -EINVAL, "the answer is empty"},
	{" \n", -EINVAL, "the answer is empty"},
	{"hello", -EINVAL, "not a JSON object"},
	{"{\"AccessKeyId\":\"A\",\"AccessKeySecret\":\"SECRET123\"", -EINVAL, "not a JSON object"},
	{"{\"AccessKeyId\":\"A\",\"AccessKeySecret\":\"SECRET123\"} trailing", -EINVAL, "not a JSON object"},
	{"{\"AccessKeyId\":\"A\"}", -EINVAL, "there is no AccessKeySecret"},
	{"{\"AccessKeySecret\":\"SECRET123\"}", -EINVAL, "there is no AccessKeyId"},
	{"{\"AccessKeyId\":\"\",\"AccessKeySecret\":\"SECRET123\"}", -EINVAL, "the AccessKeyId is empty"},
	{"{\"AccessKeyId\":\"A\",\"AccessKeySecret\":\"SECRET123\\n\"}", -EINVAL, "a character that no key contains"},
	{"{\"AccessKeyId\":\"A\",\"AccessKeySecret\":\"\\u20ac\"}", -EINVAL, "not usable text"},
	{"{\"AccessKeyId\":\"A\",\"AccessKeySecret\":\"\\u00\"}", -EINVAL, "not usable text"},
	{"{\"AccessKeyId\":\"A\",\"AccessKeySecret\":\"\\x\"}", -EINVAL, "not usable text"},
	{"{\"AccessKeyId\":\"A\",\"AccessKeySecret\":[\"SECRET123\"]}", -EINVAL, "not usable text"},
	{"{\"AccessKeyId\":\"A\",\"AccessKeySecret\":\"SECRET123\",\"Expiration\":\"soon\"}", -EINVAL, "not a time"},
	{"{\"Code\":\"Failed\",\"Message\":\"SECRET123\"}", -EACCES, "answered with code Failed"},
	{"<Error><Code>NoPermission</Code></Error>", -EACCES, "answered with code NoPermission"},
	{"<R><AccessKeyId>A&amp;B</AccessKeyId></R>", -EINVAL, "not usable text"},
	{"<R><AccessKeyId>A", -EINVAL, "not usable text"},
	{"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", -EINVAL, "not a JSON object"},
	{"{\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}", -EINVAL,
	 "not a JSON object"},
};

static void answers(void **state)
{
	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(answer_cases); i++) {
		const struct answer_case *t = &answer_cases[i];
		struct cst_credential cred = {0};
		struct cst_error err = CST_ERROR_INIT;
		char text[CST_ERROR_TEXT_MAX], got[4800];
		int rc = cst_cred_parse_answer("the process", cst_slice_of(t->text), &cred, &err);
		if (rc == 0)
			snprintf(got, sizeof(got), "%s %s %s %lld", cred.access_key, cred.secret_key, cred.token,
				 (long long)cred.expires);
		else
			snprintf(got, sizeof(got), "%s", cst_error_text(&err, text, sizeof(text)));
		if (rc != t->rc || (rc == 0 ? strcmp(got, t->expected) != 0 : !strstr(got, t->expected)))
			print_message("case %zu: rc %d, %s\n", i, rc, got);
		assert_int_equal(rc, t->rc);
		if (rc == 0)
			assert_string_equal(got, t->expected);
		else
			assert_non_null(strstr(got, t->expected));
		assert_true(rc == 0 || !strstr(got, "SECRET123"));
	}
}

static void json_member_by_member(void **state)
{
	(void)state;
	struct cst_slice raw;
	char out[8];
	assert_int_equal(cst_json_find(CST_SLICE("{}"), "a", &raw), -ENOENT);
	assert_int_equal(cst_json_find(CST_SLICE("{\"a\":1,\"a\":2}"), "a", &raw), 0);
	assert_int_equal(cst_json_text(raw, out, sizeof(out)), 0);
	assert_string_equal(out, "1");
	assert_int_equal(cst_json_find(CST_SLICE("{\"a\":\"12345678\"}"), "a", &raw), 0);
	assert_int_equal(cst_json_text(raw, out, sizeof(out)), -ENOSPC);
	assert_int_equal(cst_json_find(CST_SLICE("{\"a\":\"1234567\"}"), "a", &raw), 0);
	assert_int_equal(cst_json_text(raw, out, sizeof(out)), 0);
	static const char *const bad[] = {
		"",	 "{",		"{\"a\"",   "{\"a\":", "{\"a\":1,}", "{\"a\":\"\n\"}", "{\"a\":\"\\",
		"{a:1}", "{\"a\":1 2}", "{\"b\":,}"};
	for (size_t i = 0; i < CST_ARRAY_LEN(bad); i++)
		assert_int_equal(cst_json_find(cst_slice_of(bad[i]), "a", &raw), -EINVAL);
}

struct ini_case {
	const char *text, *why;
};

static void malformed_ini(void **state)
{
	(void)state;
	static const struct ini_case cases[] = {
		{"[Credentials\n", "line 1: no ']'"},
		{"\n[]\n", "line 2: a section without a name"},
		{"[a] b\n", "line 1: text after"},
		{"accessKeyID=A\n", "line 1: a key before the first [section]"},
		{"[Credentials]\n\naccessKeySecret SECRET123\n", "line 3: no '='"},
		{"[Credentials]\n=SECRET123\n", "line 2: no key before"},
		{"[Credentials]\naccessKeySecret=SECRET123 # mine\n",
		 "line 2: the access key secret has a blank at position 10"},
		{"[Credentials]\naccessKeySecret=\"SECR\xc3\x89T\"\n", "line 2: the access key secret has a character"},
	};
	struct cst_cred_profile *p = cst_secret_map(sizeof(*p));
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++) {
		struct cst_error err = CST_ERROR_INIT;
		char text[CST_ERROR_TEXT_MAX];
		assert_int_equal(cst_cred_parse_ossutil("/f", cst_slice_of(cases[i].text), NULL, "b", p, &err),
				 -EINVAL);
		cst_error_text(&err, text, sizeof(text));
		if (!strstr(text, cases[i].why))
			print_message("%s\n", text);
		assert_non_null(strstr(text, cases[i].why));
		assert_non_null(strstr(text, "/f"));
		assert_null(strstr(text, "SECRET123"));
	}
	struct cst_error err = CST_ERROR_INIT;
	assert_int_equal(cst_cred_parse_ossutil("/f", CST_SLICE("[a]\nb\0=c\n"), NULL, "b", p, &err), -EINVAL);
	assert_non_null(strstr(err.why, "line 2: a NUL byte"));
	cst_secret_unmap(p, sizeof(*p));
}

static struct cst_cred_profile *ossutil(const char *text, const char *profile)
{
	struct cst_error err = CST_ERROR_INIT;
	struct cst_cred_profile *p = cst_secret_map(sizeof(*p));
	int rc = cst_cred_parse_ossutil("/f", cst_slice_of(text), profile, "b", p, &err);
	if (rc)
		print_message("%s: %s\n", err.what, err.why);
	assert_int_equal(rc, 0);
	return p;
}

static void ossutil_generation_1(void **state)
{
	(void)state;
	struct cst_cred_profile *p =
		ossutil("\xef\xbb\xbf[Credentials]\r\nlanguage=EN\r\naccessKeyID = A\r\naccessKeySecret=S=\r\n"
			"stsToken=T\r\nendpoint=oss-cn-hangzhou.aliyuncs.com\r\n"
			"[Bucket-Endpoint]\r\nx=one\r\nb=two\r\n[Default]\r\nloglevel=info\r\n",
			NULL);
	assert_string_equal(p->keys.access_key, "A");
	assert_string_equal(p->keys.secret_key, "S=");
	assert_string_equal(p->keys.token, "T");
	assert_string_equal(p->endpoint, "oss-cn-hangzhou.aliyuncs.com");
	assert_string_equal(p->bucket_endpoint, "two");
	assert_false(p->has_role);
	cst_secret_unmap(p, sizeof(*p));
	p = ossutil("[Credentials]\n[AkService]\necsAk=http://100.100.100.200/latest/x\n", NULL);
	assert_true(p->has_role);
	assert_string_equal(p->role, "http://100.100.100.200/latest/x");
	cst_secret_unmap(p, sizeof(*p));
}

static void ossutil_generation_2(void **state)
{
	(void)state;
	static const char text[] = "[Credentials]\naccessKeyID=OLD\naccessKeySecret=OLDS\nstsToken=OLDT\n"
				   "[default]\naccess-key-id=A\naccess_key_secret=S\nregion=cn-hangzhou\n"
				   "[profile dev]\nmode=EcsRamRole\necs-role-name=web\nendpoint=e\n"
				   "[profile odd]\nmode=RamRoleArn\nrole-arn=x\n"
				   "[buckets b]\nendpoint=be\nregion=br\n[buckets c]\nendpoint=ce\n";
	struct cst_cred_profile *p = ossutil(text, NULL);
	assert_string_equal(p->keys.access_key, "A");
	assert_string_equal(p->keys.secret_key, "S");
	assert_string_equal(p->keys.token, ""); /* not the one of the other generation */
	assert_string_equal(p->region, "cn-hangzhou");
	assert_string_equal(p->bucket_endpoint, "be");
	assert_string_equal(p->bucket_region, "br");
	cst_secret_unmap(p, sizeof(*p));
	p = ossutil(text, "dev");
	assert_true(p->section_found && p->has_role);
	assert_string_equal(p->role, "web");
	assert_string_equal(p->keys.access_key, "");
	cst_secret_unmap(p, sizeof(*p));
	p = ossutil(text, "odd");
	assert_string_equal(p->unsupported, "this mode");
	assert_int_equal(p->unsupported_line, 14);
	cst_secret_unmap(p, sizeof(*p));
	p = ossutil(text, "nobody");
	assert_false(p->section_found);
	cst_secret_unmap(p, sizeof(*p));
}

static void aws_two_files(void **state)
{
	(void)state;
	struct cst_cred_profile *p = cst_secret_map(sizeof(*p));
	struct cst_error err = CST_ERROR_INIT;
	assert_int_equal(cst_cred_parse_aws("/c",
					    CST_SLICE("[default]\naws_access_key_id=D\n[dev]\naws_access_key_id = A\n"
						      "aws_secret_access_key = S\n"),
					    false, "dev", p, &err),
			 0);
	assert_int_equal(
		cst_cred_parse_aws("/d",
				   CST_SLICE("[dev]\nregion=wrong\n[profile dev]\nregion=us-east-1\ns3 =\n"
					     "  max_concurrent_requests = 20\n  not a key\naws_access_key_id=X\n"
					     "aws_secret_access_key=Y\naws_session_token=Z\nendpoint_url=http://h\n"),
				   true, "dev", p, &err),
		0);
	assert_string_equal(p->keys.access_key, "A");
	assert_string_equal(p->keys.secret_key, "S");
	assert_string_equal(p->keys.token, "");
	assert_string_equal(p->region, "us-east-1");
	assert_string_equal(p->endpoint, "http://h");
	cst_secret_unmap(p, sizeof(*p));
}

static void urls_are_shown_without_secrets(void **state)
{
	(void)state;
	char out[64];
	assert_string_equal(cst_cred_url_shown("http://u:SECRET123@h:1/p?k=SECRET123#x", out, sizeof(out)),
			    "http://h:1/p");
	assert_string_equal(cst_cred_url_shown("http://h", out, sizeof(out)), "http://h");
	assert_string_equal(cst_cred_url_shown("http://h?a=@b", out, sizeof(out)), "http://h");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(passwd_lines),
		cmocka_unit_test(passwd_key_too_long),
		cmocka_unit_test(answers),
		cmocka_unit_test(json_member_by_member),
		cmocka_unit_test(malformed_ini),
		cmocka_unit_test(ossutil_generation_1),
		cmocka_unit_test(ossutil_generation_2),
		cmocka_unit_test(aws_two_files),
		cmocka_unit_test(urls_are_shown_without_secrets),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
