#include "object/endpoint.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <strings.h>

static bool ends_with(const char *s, const char *tail)
{
	size_t n = strlen(s), m = strlen(tail);
	return n > m && strcmp(s + n - m, tail) == 0;
}

static bool is_aliyun(const char *host)
{
	return ends_with(host, ".aliyuncs.com");
}

static bool is_amazon(const char *host)
{
	return ends_with(host, ".amazonaws.com") || ends_with(host, ".amazonaws.com.cn");
}

static bool set_region(char region[CST_REGION_MAX], struct cst_slice name)
{
	struct cst_slice internal = CST_SLICE("-internal");
	if (name.len > internal.len && memcmp(name.data + name.len - internal.len, internal.data, internal.len) == 0)
		name.len -= internal.len;
	if (name.len == 0 || name.len >= CST_REGION_MAX)
		return false;
	memcpy(region, name.data, name.len);
	region[name.len] = '\0';
	return true;
}

/* oss-REGION[-internal], vpcN-oss-REGION, REGION.oss (dual stack), REGION[-internal].oss-data-acc; the accelerating hosts serve
 * every region. */
static bool aliyun_region(const char *host, char region[CST_REGION_MAX])
{
	struct cst_slice rest = cst_slice_of(host), before = {0};
	while (rest.len) {
		struct cst_slice label = cst_slice_cut(&rest, '.');
		const char *vpc = memmem(label.data, label.len, "-oss-", 5);
		if (cst_slice_is(label, "oss") || cst_slice_is(label, "oss-data-acc"))
			return set_region(region, before);
		if (cst_slice_starts(label, CST_SLICE("oss-accelerate")))
			return false;
		if (cst_slice_starts(label, CST_SLICE("oss-")) && cst_slice_starts(rest, CST_SLICE("aliyuncs.com")))
			return set_region(region, (struct cst_slice){label.data + 4, label.len - 4});
		if (vpc && cst_slice_starts(label, CST_SLICE("vpc")))
			return set_region(region,
					  (struct cst_slice){vpc + 5, label.len - (size_t)(vpc - label.data) - 5});
		before = label;
	}
	return false;
}

/* s3.REGION, s3-REGION, s3.dualstack.REGION, s3.amazonaws.com = us-east-1, with or without a bucket in front. */
static bool amazon_region(const char *host, char region[CST_REGION_MAX])
{
	struct cst_slice rest = cst_slice_of(host), last = {0};
	while (rest.len) {
		struct cst_slice label = cst_slice_cut(&rest, '.');
		if (cst_slice_is(label, "amazonaws"))
			break;
		last = label;
	}
	if (cst_slice_is(last, "s3"))
		return set_region(region, CST_SLICE("us-east-1"));
	if (cst_slice_starts(last, CST_SLICE("s3-accelerate")) || cst_slice_is(last, "dualstack"))
		return false;
	if (cst_slice_starts(last, CST_SLICE("s3-")))
		return set_region(region, (struct cst_slice){last.data + 3, last.len - 3});
	return set_region(region, last);
}

bool cst_endpoint_region(enum cst_cloud cloud, const char *host, char region[CST_REGION_MAX])
{
	region[0] = '\0';
	/* OSS also speaks S3, on the same hosts. */
	if (is_aliyun(host))
		return aliyun_region(host, region);
	return cloud == CST_CLOUD_S3 && is_amazon(host) && amazon_region(host, region);
}

static int bad(struct cst_error *err, const char *endpoint, const char *why)
{
	cst_error_set(err, EINVAL, "bad endpoint \"%s\"", endpoint);
	cst_error_why(err, "%s", why);
	cst_error_hint(err, "write HOST, HOST:PORT or https://HOST:PORT, such as oss-cn-hangzhou.aliyuncs.com");
	return -EINVAL;
}

static bool is_ip(const char *host)
{
	struct in6_addr any;
	return inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
}

static int split_port(const char *endpoint, struct cst_slice *host, uint16_t *port, struct cst_error *err)
{
	const char *colon = host->len ? memrchr(host->data, ':', host->len) : NULL;
	const char *bracket = host->len ? memrchr(host->data, ']', host->len) : NULL;
	bool many = colon && memchr(host->data, ':', (size_t)(colon - host->data));
	if (!colon || (bracket && colon < bracket) || (many && !bracket))
		return 0;
	struct cst_slice digits = {colon + 1, host->len - (size_t)(colon - host->data) - 1};
	unsigned value = 0;
	for (size_t i = 0; i < digits.len; i++) {
		if (!isdigit((unsigned char)digits.data[i]) || digits.len > 5)
			return bad(err, endpoint, "the port is not a number");
		value = value * 10 + (unsigned)(digits.data[i] - '0');
	}
	if (value == 0 || value > 65535)
		return bad(err, endpoint, "the port is not in 1…65535");
	*port = (uint16_t)value;
	host->len = (size_t)(colon - host->data);
	return 0;
}

static int copy_host(const char *endpoint, struct cst_slice host, struct cst_http_origin *origin, struct cst_error *err)
{
	if (host.len >= 2 && host.data[0] == '[' && host.data[host.len - 1] == ']') {
		host.data++;
		host.len -= 2;
	}
	if (host.len == 0 || host.len >= sizeof(origin->host) - 64)
		return bad(err, endpoint, "the host name is empty or too long");
	for (size_t i = 0; i < host.len; i++)
		origin->host[i] = (char)tolower((unsigned char)host.data[i]);
	origin->host[host.len] = '\0';
	if (is_ip(origin->host))
		return 0;
	for (size_t i = 0; i < host.len; i++)
		if (!isalnum((unsigned char)host.data[i]) && !strchr("-._", host.data[i]))
			return bad(err, endpoint, "the host name has a character that host names can't have");
	if (origin->host[0] == '.' || strstr(origin->host, ".."))
		return bad(err, endpoint, "the host name has an empty part");
	if (origin->host[host.len - 1] == '.')
		origin->host[host.len - 1] = '\0';
	return 0;
}

static int parse_url(const char *endpoint, struct cst_http_origin *origin, struct cst_error *err)
{
	struct cst_slice rest = cst_slice_trim(cst_slice_of(endpoint));
	const char *scheme_end = memmem(rest.data, rest.len, "://", 3);
	*origin = (struct cst_http_origin){.tls = true};
	if (memchr(rest.data, '@', rest.len)) {
		cst_error_set(err, EINVAL, "bad endpoint");
		cst_error_why(err, "it holds a user name or a password");
		cst_error_hint(err, "give credentials through the environment or a file");
		return -EINVAL;
	}
	if (scheme_end) {
		struct cst_slice scheme = {rest.data, (size_t)(scheme_end - rest.data)};
		if (!cst_slice_ieq(scheme, CST_SLICE("http")) && !cst_slice_ieq(scheme, CST_SLICE("https")))
			return bad(err, endpoint, "the scheme is neither http nor https");
		origin->tls = scheme.len == 5;
		rest.len -= scheme.len + 3;
		rest.data += scheme.len + 3;
	}
	origin->port = origin->tls ? 443 : 80;
	while (rest.len && rest.data[rest.len - 1] == '/')
		rest.len--;
	if (rest.len && memchr(rest.data, '/', rest.len))
		return bad(err, endpoint, "an endpoint has no path (the bucket and the prefix belong into the URL)");
	int rc = split_port(endpoint, &rest, &origin->port, err);
	return rc ? rc : copy_host(endpoint, rest, origin, err);
}

static int check_bucket(const struct cst_bucket_config *config, struct cst_error *err)
{
	const char *b = config->bucket;
	size_t len = b ? strlen(b) : 0;
	bool ok = len > 0 && len <= 63;
	for (size_t i = 0; i < len && ok; i++)
		ok = isalnum((unsigned char)b[i]) || b[i] == '-' || (i > 0 && (b[i] == '.' || b[i] == '_'));
	if (ok)
		return 0;
	cst_error_set(err, EINVAL, "bad bucket name \"%s\"", b ? b : "");
	cst_error_why(err, "a bucket name has 3 to 63 letters, digits and '-'");
	cst_error_hint(err, "write %s://BUCKET/PREFIX", config->cloud == CST_CLOUD_S3 ? "s3" : "oss");
	return -EINVAL;
}

/* "BUCKET.oss-cn-…": the endpoint is the virtual host already. A bucket may be called "oss-cn-hangzhou" or "s3" itself. */
static bool has_bucket(const char *host, const char *bucket)
{
	size_t len = strlen(bucket);
	if (strncasecmp(host, bucket, len) != 0 || host[len] != '.')
		return false;
	const char *rest = host + len + 1;
	if (is_aliyun(host))
		return strncmp(rest, "oss", 3) == 0 || strncmp(rest, "s3.oss", 6) == 0 || strstr(rest, ".oss") ||
		       strstr(rest, "-oss-");
	if (is_amazon(host))
		return strncmp(rest, "s3", 2) == 0;
	return strchr(rest, '.') || strcmp(rest, "localhost") == 0;
}

static enum cst_addressing choose(const struct cst_bucket_config *config, const struct cst_http_origin *origin)
{
	const char *host = origin->host;
	if (config->addressing != CST_ADDRESS_AUTO)
		return config->addressing;
	if (is_ip(host) || strcmp(host, "localhost") == 0 || ends_with(host, ".localhost") || !strchr(host, '.'))
		return CST_ADDRESS_PATH;
	/* A certificate for *.host does not cover "a.b.host". */
	return origin->tls && strchr(config->bucket, '.') ? CST_ADDRESS_PATH : CST_ADDRESS_VIRTUAL;
}

static void write_host(const struct cst_http_origin *origin, const char *host, char *out, size_t size)
{
	bool bare = origin->port == (origin->tls ? 443 : 80), v6 = strchr(host, ':') != NULL;
	int n = snprintf(out, size, "%s%s%s", v6 ? "[" : "", host, v6 ? "]" : "");
	if (!bare)
		snprintf(out + n, size - (size_t)n, ":%u", origin->port);
}

static void default_endpoint(const struct cst_bucket_config *config, const char *region, char *out, size_t size)
{
	if (config->cloud == CST_CLOUD_OSS)
		snprintf(out, size, "oss-%s.aliyuncs.com", region);
	else
		snprintf(out, size, "s3.%s.amazonaws.com%s", region, strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
}

static int find_region(const struct cst_bucket_config *config, struct cst_endpoint *out, struct cst_error *err)
{
	const char *given = config->region ? config->region : "";
	if (strncmp(given, "oss-", 4) == 0)
		given += 4;
	if (strlen(given) >= sizeof(out->region) ||
	    strspn(given, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != strlen(given)) {
		cst_error_set(err, EINVAL, "bad region \"%s\"", given);
		cst_error_hint(err, "write it as in cn-hangzhou or us-east-1");
		return -EINVAL;
	}
	snprintf(out->region, sizeof(out->region), "%s", given);
	return 0;
}

int cst_endpoint_parse(const struct cst_bucket_config *config, struct cst_endpoint *out, struct cst_error *err)
{
	char endpoint[160], host[sizeof(out->origin.host) - 64];
	const char *text = config->endpoint && config->endpoint[0] ? config->endpoint : NULL;
	*out = (struct cst_endpoint){0};
	int rc = check_bucket(config, err);
	if (!rc)
		rc = find_region(config, out, err);
	if (rc)
		return rc;
	if (!text) {
		if (!out->region[0] && config->cloud == CST_CLOUD_OSS) {
			cst_error_set(err, EINVAL, "no endpoint for oss://%s", config->bucket);
			cst_error_hint(err, "give --endpoint oss-REGION.aliyuncs.com or --region REGION");
			return -EINVAL;
		}
		default_endpoint(config, out->region[0] ? out->region : "us-east-1", endpoint, sizeof(endpoint));
		text = endpoint;
	}
	rc = parse_url(text, &out->origin, err);
	if (rc)
		return rc;
	if (!out->region[0] && !cst_endpoint_region(config->cloud, out->origin.host, out->region) &&
	    config->cloud == CST_CLOUD_S3)
		strcpy(out->region, "us-east-1"); /* what compatible stores expect by default */
	enum cst_addressing style = choose(config, &out->origin);
	bool given_virtual = config->addressing != CST_ADDRESS_PATH && config->addressing != CST_ADDRESS_CNAME &&
			     !is_ip(out->origin.host) && has_bucket(out->origin.host, config->bucket);
	memcpy(host, out->origin.host, sizeof(host)); /* copy_host() left room for a bucket */
	host[sizeof(host) - 1] = '\0';
	if (!given_virtual && style == CST_ADDRESS_VIRTUAL)
		snprintf(out->origin.host, sizeof(out->origin.host), "%.63s.%s", config->bucket, host);
	out->path_style = !given_virtual && style == CST_ADDRESS_PATH;
	write_host(&out->origin, out->origin.host, out->host, sizeof(out->host));
	int n = snprintf(out->url, sizeof(out->url), "%s://", out->origin.tls ? "https" : "http");
	write_host(&out->origin, host, out->url + n, sizeof(out->url) - (size_t)n);
	return 0;
}
