#include "store/request.h"

#include "base/text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

bool cst_request_is(const struct cst_store_request *r, const char *method)
{
	return cst_slice_is(r->head->method, method);
}

struct cst_slice cst_request_param(const struct cst_store_request *r, const char *name)
{
	for (size_t i = 0; i < r->param_count; i++) {
		if (cst_slice_is(r->params[i].name, name))
			return r->params[i].value;
	}
	return (struct cst_slice){NULL, 0};
}

bool cst_request_has(const struct cst_store_request *r, const char *name)
{
	return cst_request_param(r, name).data != NULL;
}

struct cst_slice cst_request_header(const struct cst_store_request *r, const char *name)
{
	return cst_http_header_get(r->head, name);
}

struct cst_slice cst_request_own(const struct cst_store_request *r, const char *name)
{
	char full[80];

	snprintf(full, sizeof(full), "x-%s-%s", r->dialect == CST_STORE_OSS ? "oss" : "amz", name);
	return cst_request_header(r, full);
}

int cst_request_number(struct cst_slice text, uint64_t *value)
{
	uint64_t n = 0;

	if (text.len == 0 || text.len > 19)
		return -EINVAL;
	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] < '0' || text.data[i] > '9')
			return -EINVAL;
		n = n * 10 + (uint64_t)(text.data[i] - '0');
	}
	*value = n;
	return n <= INT64_MAX ? 0 : -EINVAL;
}

/* ---- which dialect ---- */

static bool starts_nocase(struct cst_slice s, const char *prefix)
{
	size_t len = strlen(prefix);

	return s.len >= len && cst_slice_ieq((struct cst_slice){s.data, len}, (struct cst_slice){prefix, len});
}

static bool contains(struct cst_slice s, const char *part)
{
	return s.len && memmem(s.data, s.len, part, strlen(part));
}

/* What only one of the two services knows decides; without a sign it is OSS. */
static enum cst_store_dialect dialect_of(const struct cst_store_request *r)
{
	struct cst_slice agent = cst_request_header(r, "user-agent");
	struct cst_slice auth = cst_request_header(r, "authorization");

	if (starts_nocase(auth, "AWS"))
		return CST_STORE_S3;
	if (starts_nocase(auth, "OSS"))
		return CST_STORE_OSS;
	for (size_t i = 0; i < r->head->header_count; i++) {
		struct cst_slice name = r->head->headers[i].name;

		if (starts_nocase(name, "x-oss-"))
			return CST_STORE_OSS;
		if (starts_nocase(name, "x-amz-") || starts_nocase(name, "amz-sdk-"))
			return CST_STORE_S3;
	}
	for (size_t i = 0; i < r->param_count; i++) {
		struct cst_slice name = r->params[i].name;

		if (starts_nocase(name, "x-amz-") || cst_slice_is(name, "x-id") || cst_slice_is(name, "AWSAccessKeyId"))
			return CST_STORE_S3;
		if (starts_nocase(name, "x-oss-") || cst_slice_is(name, "OSSAccessKeyId"))
			return CST_STORE_OSS;
	}
	if (contains(agent, "aws-sdk") || contains(agent, "aws-cli") || contains(agent, "Boto") ||
	    contains(agent, "s3fs") || contains(agent, "MinIO"))
		return CST_STORE_S3;
	if (starts_nocase(cst_request_header(r, "host"), "s3.") || contains(cst_request_header(r, "host"), ".s3."))
		return CST_STORE_S3;
	return CST_STORE_OSS;
}

/* ---- which bucket and key ---- */

/* The host without port and brackets. */
static struct cst_slice host_name(struct cst_slice host)
{
	const char *colon;

	if (host.len && host.data[0] == '[') {
		const char *end = memchr(host.data, ']', host.len);

		return (struct cst_slice){host.data + 1, end ? (size_t)(end - host.data - 1) : host.len - 1};
	}
	colon = host.len ? memchr(host.data, ':', host.len) : NULL;
	if (colon)
		host.len = (size_t)(colon - host.data);
	return host;
}

static bool is_address(struct cst_slice host)
{
	char text[64];
	struct in6_addr in;

	if (host.len == 0 || host.len >= sizeof(text))
		return host.len == 0;
	memcpy(text, host.data, host.len);
	text[host.len] = '\0';
	return inet_pton(AF_INET, text, &in) == 1 || inet_pton(AF_INET6, text, &in) == 1;
}

/* BUCKET when host is BUCKET.DOMAIN. */
static bool bucket_before(struct cst_slice host, struct cst_slice domain, struct cst_slice *bucket)
{
	struct cst_slice tail;

	if (host.len < domain.len + 2)
		return false;
	tail = (struct cst_slice){host.data + host.len - domain.len, domain.len};
	if (!cst_slice_ieq(tail, domain) || tail.data[-1] != '.')
		return false;
	*bucket = (struct cst_slice){host.data, host.len - domain.len - 1};
	return true;
}

/* bucket.oss-REGION.aliyuncs.com, bucket.s3.REGION.amazonaws.com: DNS may be made to lead such names here. */
static bool bucket_of_service(struct cst_slice host, struct cst_slice *bucket)
{
	const char *dot = host.len ? memchr(host.data, '.', host.len) : NULL;
	struct cst_slice rest;

	if (!dot || (!contains(host, ".aliyuncs.com") && !contains(host, ".amazonaws.com")))
		return false;
	rest = (struct cst_slice){dot + 1, host.len - (size_t)(dot + 1 - host.data)};
	if (!starts_nocase(rest, "oss-") && !starts_nocase(rest, "s3.") && !starts_nocase(rest, "s3-"))
		return false;
	*bucket = (struct cst_slice){host.data, (size_t)(dot - host.data)};
	return true;
}

static bool bucket_of_host(const struct cst_store_request *r, struct cst_slice *bucket)
{
	struct cst_slice host = host_name(cst_request_header(r, "host"));
	const struct cst_store_config *config = &r->store->config;
	const char *dot;
	int fd;

	if (is_address(host))
		return false;
	for (size_t i = 0; i < config->domain_count; i++) {
		struct cst_slice domain = cst_slice_of(config->domains[i]);

		if (cst_slice_ieq(host, domain))
			return false;
		if (bucket_before(host, domain, bucket))
			return true;
	}
	if (bucket_before(host, CST_SLICE("localhost"), bucket) || bucket_of_service(host, bucket))
		return true;
	dot = host.len ? memchr(host.data, '.', host.len) : NULL;
	if (!dot)
		return false;
	*bucket = (struct cst_slice){host.data, (size_t)(dot - host.data)};
	fd = cst_backend_bucket(r->b, *bucket);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static void set_bucket(struct cst_store_request *r, struct cst_slice name)
{
	r->bucket_name = name;
	if (!cst_backend_is_bucket_name(name))
		return;
	memcpy(r->bucket, name.data, name.len);
	r->bucket[name.len] = '\0';
}

static void split_path(struct cst_store_request *r, struct cst_slice path)
{
	struct cst_slice bucket;
	const char *slash;

	if (path.len && path.data[0] == '/') {
		path.data++;
		path.len--;
	}
	r->path_style = !bucket_of_host(r, &bucket);
	if (!r->path_style) {
		r->key = path;
		set_bucket(r, bucket);
		return;
	}
	slash = path.len ? memchr(path.data, '/', path.len) : NULL;
	bucket = slash ? (struct cst_slice){path.data, (size_t)(slash - path.data)} : path;
	r->key = slash ? (struct cst_slice){slash + 1, path.len - bucket.len - 1} : (struct cst_slice){"", 0};
	set_bucket(r, bucket);
}

/* ---- taking it apart ---- */

/* "http://host/path" as proxies write it. */
static struct cst_slice target_path(struct cst_slice target)
{
	if (starts_nocase(target, "http://") || starts_nocase(target, "https://")) {
		const char *host = (const char *)memmem(target.data, target.len, "://", 3) + 3;
		size_t left = target.len - (size_t)(host - target.data);
		const char *slash = memchr(host, '/', left);

		return slash ? (struct cst_slice){slash, target.len - (size_t)(slash - target.data)} : CST_SLICE("/");
	}
	return target;
}

/* Decodes to r->decoded, which never moves: it was made large enough. */
static int decode(struct cst_store_request *r, struct cst_slice in, bool plus, struct cst_slice *out)
{
	size_t before = r->decoded.len;

	if (cst_text_url_decode(&r->decoded, in, plus) != 0)
		return -EINVAL;
	*out = (struct cst_slice){r->decoded.data + before, r->decoded.len - before};
	cst_buf_add_char(&r->decoded, '\0');
	return 0;
}

static int parse_query(struct cst_store_request *r, struct cst_slice query, const char **why)
{
	while (query.len) {
		struct cst_slice part = cst_slice_cut(&query, '&');
		struct cst_slice name = cst_slice_cut(&part, '=');
		struct cst_sign_param *param = &r->params[r->param_count];

		if (name.len == 0 && !part.data)
			continue;
		if (r->param_count == CST_REQUEST_PARAMS) {
			*why = "too many query parameters";
			return -EINVAL;
		}
		param->has_value = part.data != NULL;
		param->value = (struct cst_slice){"", 0};
		if (decode(r, name, true, &param->name) != 0 ||
		    (part.len && decode(r, part, true, &param->value) != 0)) {
			*why = "a bad escape in the query";
			return -EINVAL;
		}
		r->param_count++;
	}
	return 0;
}

int cst_request_init(struct cst_store_request *r, struct cst_store *store, struct cst_http_exchange *x,
		     const char **why)
{
	struct cst_slice path;
	struct cst_slice query;
	int rc;

	*r = (struct cst_store_request){
		.magic = CST_REQUEST_MAGIC, .store = store, .b = store->backend, .x = x, .bucket_fd = -1};
	r->head = cst_http_request_head(x);
	r->is_head = cst_request_is(r, "HEAD");
	query = target_path(r->head->target);
	/* Decoding never makes text longer; each part gets a NUL. */
	cst_buf_room(&r->decoded, query.len * 2 + 16);
	path = cst_slice_cut(&query, '?');
	rc = parse_query(r, query, why);
	r->dialect = dialect_of(r);
	if (rc)
		return rc;
	if (decode(r, path, false, &path) != 0) {
		*why = "a bad escape in the path";
		return -EINVAL;
	}
	split_path(r, path);
	for (size_t i = 0; i < r->head->header_count; i++) {
		cst_buf_add_slice(&r->lines, r->head->headers[i].name);
		cst_buf_add_str(&r->lines, ": ");
		cst_buf_add_slice(&r->lines, r->head->headers[i].value);
		cst_buf_add_str(&r->lines, "\r\n");
	}
	return 0;
}

void cst_request_fini(struct cst_store_request *r)
{
	CST_CHECK(r, CST_REQUEST_MAGIC);
	if (r->bucket_fd >= 0)
		close(r->bucket_fd);
	cst_buf_fini(&r->decoded);
	cst_buf_fini(&r->lines);
	explicit_bzero(&r->credential, sizeof(r->credential));
	r->magic = 0;
}

/* ---- parts of headers ---- */

int cst_request_copy_source(struct cst_slice text, struct cst_buf *decoded, struct cst_slice *bucket,
			    struct cst_slice *key)
{
	struct cst_slice path = cst_slice_cut(&text, '?');
	struct cst_slice rest;

	cst_buf_clear(decoded);
	if (cst_text_url_decode(decoded, path, false) != 0)
		return -EINVAL;
	rest = cst_buf_slice(decoded);
	if (rest.len && rest.data[0] == '/') {
		rest.data++;
		rest.len--;
	}
	*bucket = cst_slice_cut(&rest, '/');
	*key = rest;
	return bucket->len && key->len ? 0 : -EINVAL;
}

/* Digits; what doesn't fit is more than any object has, and counts as that. */
static int range_number(struct cst_slice text, uint64_t *value)
{
	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] < '0' || text.data[i] > '9')
			return -EINVAL;
	}
	if (text.len && cst_request_number(text, value) != 0)
		*value = INT64_MAX;
	return text.len ? 0 : -EINVAL;
}

/* "a-b", "a-", "-n". 0 with *first and *last; *suffix: *last counts from the end. */
static int parse_range(struct cst_slice text, uint64_t *first, uint64_t *last, bool *suffix)
{
	struct cst_slice rest;
	struct cst_slice low;

	if (!starts_nocase(text, "bytes="))
		return -EINVAL;
	rest = cst_slice_trim((struct cst_slice){text.data + 6, text.len - 6});
	low = cst_slice_cut(&rest, '-');
	if (!rest.data)
		return -EINVAL; /* no dash */
	*suffix = low.len == 0;
	*last = UINT64_MAX;
	if (*suffix)
		return range_number(rest, last);
	if (range_number(low, first) != 0 || (rest.len && range_number(rest, last) != 0))
		return -EINVAL;
	return *first <= *last ? 0 : -EINVAL;
}

enum cst_range_kind cst_request_range(struct cst_slice text, uint64_t size, bool strict, uint64_t *offset,
				      uint64_t *length)
{
	uint64_t first = 0;
	uint64_t last;
	bool suffix;

	if (!text.data || parse_range(text, &first, &last, &suffix) != 0)
		return CST_RANGE_NONE;
	if (suffix) {
		if (last == 0 || size == 0 || (!strict && last > size))
			return strict ? CST_RANGE_UNSATISFIABLE : CST_RANGE_NONE;
		*length = cst_min(last, size);
		*offset = size - *length;
		return CST_RANGE_OK;
	}
	if (first >= size)
		return strict ? CST_RANGE_UNSATISFIABLE : CST_RANGE_NONE;
	if (last != UINT64_MAX && last >= size && !strict)
		return CST_RANGE_NONE;
	*offset = first;
	*length = cst_min(last, size - 1) - first + 1;
	return CST_RANGE_OK;
}

bool cst_request_etag_listed(struct cst_slice list, const char *etag)
{
	while (list.len) {
		struct cst_slice one = cst_slice_trim(cst_slice_cut(&list, ','));

		if (cst_slice_is(one, "*"))
			return true;
		if (one.len >= 2 && one.data[0] == '"' && one.data[one.len - 1] == '"')
			one = (struct cst_slice){one.data + 1, one.len - 2};
		if (cst_slice_ieq(one, cst_slice_of(etag)))
			return true;
	}
	return false;
}
