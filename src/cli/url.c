#include "cli/url.h"

#include "base/text.h"

#include <errno.h>
#include <strings.h>

static int refuse(struct cst_error *err, const char *what, struct cst_slice text, const char *why, const char *hint)
{
	CST_AUTO_BUF shown = CST_BUF_INIT;
	cst_text_printable(&shown, (struct cst_slice){text.data, cst_min(text.len, (size_t)100)});
	cst_error_set(err, EINVAL, "bad %s \"%s\"", what, shown.data ? shown.data : "");
	cst_error_why(err, "%s", why);
	cst_error_hint(err, "%s", hint);
	return -EINVAL;
}

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

int cst_url_set_bucket(struct cst_url *url, struct cst_slice name, struct cst_error *err)
{
	static const char rule[] = "3 to 63 lower-case letters, digits, - and (S3 only) dots";
	if (name.len < 3 || name.len >= sizeof(url->bucket))
		return refuse(err, "bucket name", name, name.len < 3 ? "it is too short" : "it is too long", rule);
	for (size_t i = 0; i < name.len; i++) {
		char c = name.data[i];
		if (c == '.' && url->cloud == CST_CLOUD_OSS)
			return refuse(err, "bucket name", name, "names of OSS buckets have no dots",
				      "write oss://BUCKET/PREFIX and give the host with --endpoint");
		if (!is_alnum(c) && c != '-' && c != '.' && c != '_')
			return refuse(err, "bucket name", name, "it has a character that bucket names don't have",
				      rule);
	}
	if (!is_alnum(name.data[0]) || !is_alnum(name.data[name.len - 1]))
		return refuse(err, "bucket name", name, "it doesn't begin and end with a letter or digit", rule);
	memcpy(url->bucket, name.data, name.len);
	url->bucket[name.len] = '\0';
	return 0;
}

int cst_url_set_prefix(struct cst_url *url, struct cst_slice prefix, struct cst_error *err)
{
	while (prefix.len > 0 && prefix.data[0] == '/') {
		prefix.data++;
		prefix.len--;
	}
	bool slash = prefix.len > 0 && prefix.data[prefix.len - 1] == '/';
	if (prefix.len + !slash > CST_KEY_MAX)
		return refuse(err, "prefix", prefix, "it is too long", "keys have at most 1023 bytes");
	if (prefix.len > 0)
		memcpy(url->prefix, prefix.data, prefix.len);
	size_t len = prefix.len;
	if (len > 0 && !slash)
		url->prefix[len++] = '/';
	url->prefix[len] = '\0';
	return 0;
}

bool cst_url_is(const char *text)
{
	return strncasecmp(text, "oss://", 6) == 0 || strncasecmp(text, "s3://", 5) == 0;
}

int cst_url_parse(const char *text, struct cst_url *url, struct cst_error *err)
{
	*url = (struct cst_url){0};
	if (!cst_url_is(text))
		return refuse(err, "URL", cst_slice_of(text), "it begins with neither oss:// nor s3://",
			      "write oss://BUCKET/PREFIX or s3://BUCKET/PREFIX");
	url->cloud = text[0] == 's' || text[0] == 'S' ? CST_CLOUD_S3 : CST_CLOUD_OSS;
	struct cst_slice rest = cst_slice_of(strchr(text, '/') + 2);
	struct cst_slice bucket = cst_slice_cut(&rest, '/');
	int rc = cst_url_set_bucket(url, bucket, err);
	return rc ? rc : cst_url_set_prefix(url, rest, err);
}

int cst_url_parse_ossfs(const char *text, struct cst_url *url, struct cst_error *err)
{
	*url = (struct cst_url){.cloud = CST_CLOUD_OSS};
	struct cst_slice rest = cst_slice_of(text);
	struct cst_slice bucket = cst_slice_cut(&rest, ':');
	if (rest.len > 0 && rest.data[0] != '/')
		return refuse(err, "bucket", cst_slice_of(text), "after the colon comes a path that begins with /",
			      "write BUCKET:/PATH");
	int rc = cst_url_set_bucket(url, bucket, err);
	return rc ? rc : cst_url_set_prefix(url, rest, err);
}

void cst_url_bucket_text(const struct cst_url *url, char *out, size_t size)
{
	snprintf(out, size, "%s://%s", url->cloud == CST_CLOUD_S3 ? "s3" : "oss", url->bucket);
}

void cst_url_text(const struct cst_url *url, struct cst_buf *out)
{
	cst_buf_printf(out, "%s://%s", url->cloud == CST_CLOUD_S3 ? "s3" : "oss", url->bucket);
	size_t len = strlen(url->prefix);
	/* The slash that ends every prefix is left away, unless one of the key's own is before it. */
	bool own = len > 1 && url->prefix[len - 2] == '/';
	if (len > 0)
		cst_buf_printf(out, "/%.*s", (int)(len - !own), url->prefix);
}
