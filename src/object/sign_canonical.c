/* Canonical requests and strings to sign. Sources: Alibaba Cloud OSS, "Include a V1 signature" and "Include a V4 signature";
 * Amazon S3 API reference, "Signature Calculations for the Authorization Header". */
#include "object/sign_private.h"

#include "base/clock.h"
#include "base/digest.h"
#include "base/text.h"

#include <strings.h>

/* The parameters that V1 counts as part of the resource; x-oss-… are so too. The query of a listing (prefix, delimiter, marker,
 * max-keys, list-type, …) is not signed. In strcmp order. */
static const char *const v1_resources[] = {
	"accessPoint",
	"accessPointPolicy",
	"acl",
	"append",
	"asyncFetch",
	"bucketArchiveDirectRead",
	"bucketInfo",
	"callback",
	"callback-var",
	"cloudboxes",
	"cname",
	"comp",
	"continuation-token",
	"cors",
	"delete",
	"encryption",
	"endTime",
	"group",
	"httpsConfig",
	"img",
	"inventory",
	"inventoryId",
	"lifecycle",
	"link",
	"live",
	"location",
	"logging",
	"metaQuery",
	"objectInfo",
	"objectMeta",
	"partNumber",
	"policy",
	"policyStatus",
	"position",
	"publicAccessBlock",
	"qos",
	"qosInfo",
	"qosRequester",
	"redundancyTransition",
	"referer",
	"regionList",
	"replication",
	"replicationLocation",
	"replicationProgress",
	"requestPayment",
	"requesterQosInfo",
	"resourceGroup",
	"resourcePool",
	"resourcePoolBuckets",
	"resourcePoolInfo",
	"response-cache-control",
	"response-content-disposition",
	"response-content-encoding",
	"response-content-language",
	"response-content-type",
	"response-expires",
	"restore",
	"rtc",
	"security-token",
	"sequential",
	"startTime",
	"stat",
	"status",
	"style",
	"styleName",
	"symlink",
	"tagging",
	"transferAcceleration",
	"uploadId",
	"uploads",
	"versionId",
	"versioning",
	"versions",
	"vod",
	"website",
	"worm",
	"wormExtend",
	"wormId",
};

bool cst_sign_next_line(struct cst_slice *rest, struct cst_slice *name, struct cst_slice *value)
{
	while (rest->len) {
		struct cst_slice line = cst_slice_cut(rest, '\n');
		if (line.len && line.data[line.len - 1] == '\r')
			line.len--;
		struct cst_slice tail = line;
		struct cst_slice head = cst_slice_cut(&tail, ':');
		if (!tail.data)
			continue;
		*name = cst_slice_trim(head);
		*value = cst_slice_trim(tail);
		return true;
	}
	return false;
}

struct cst_slice cst_sign_find_line(struct cst_slice lines, const char *name)
{
	struct cst_slice wanted = cst_slice_of(name), n, v;
	while (cst_sign_next_line(&lines, &n, &v))
		if (cst_slice_ieq(n, wanted))
			return v.data ? v : CST_SLICE("");
	return (struct cst_slice){0};
}

static int compare_ignoring_case(struct cst_slice a, struct cst_slice b)
{
	size_t common = cst_min(a.len, b.len);
	int order = common ? strncasecmp(a.data, b.data, common) : 0;
	return order ? order : (a.len > b.len) - (a.len < b.len);
}

static bool starts_ignoring_case(struct cst_slice s, struct cst_slice prefix)
{
	return s.len >= prefix.len && strncasecmp(s.data, prefix.data, prefix.len) == 0;
}

/* Is `name` one of "a;b;c"? */
static bool named_in(struct cst_slice list, struct cst_slice name)
{
	while (list.len)
		if (cst_slice_ieq(cst_slice_trim(cst_slice_cut(&list, ';')), name))
			return true;
	return false;
}

static bool always_signed_by_oss(struct cst_slice name)
{
	return starts_ignoring_case(name, CST_SLICE("x-oss-")) || cst_slice_ieq(name, CST_SLICE("content-type")) ||
	       cst_slice_ieq(name, CST_SLICE("content-md5"));
}

static bool is_signed(const struct cst_sign_input *in, struct cst_slice name)
{
	switch (in->kind) {
	case CST_SIGN_OSS_V1:
		return starts_ignoring_case(name, CST_SLICE("x-oss-"));
	case CST_SIGN_OSS_V4:
		return always_signed_by_oss(name) || named_in(in->names, name);
	default:
		if (in->names.data)
			return named_in(in->names, name);
		/* Proxies may change these on the way. */
		return !cst_slice_ieq(name, CST_SLICE("authorization")) &&
		       !cst_slice_ieq(name, CST_SLICE("user-agent")) && !cst_slice_ieq(name, CST_SLICE("connection")) &&
		       !cst_slice_ieq(name, CST_SLICE("expect")) &&
		       !cst_slice_ieq(name, CST_SLICE("accept-encoding")) &&
		       !cst_slice_ieq(name, CST_SLICE("transfer-encoding"));
	}
}

struct header_table {
	struct header_line {
		struct cst_slice name, value;
	} lines[CST_SIGN_HEADERS_MAX];
	size_t count;
};

/* Keeps the table sorted; equal names stay in the order in which they came. */
static void insert_line(struct header_table *t, struct cst_slice name, struct cst_slice value)
{
	if (t->count == CST_SIGN_HEADERS_MAX)
		return;
	size_t at = t->count++;
	for (; at > 0 && compare_ignoring_case(t->lines[at - 1].name, name) > 0; at--)
		t->lines[at] = t->lines[at - 1];
	t->lines[at].name = name;
	t->lines[at].value = value;
}

static void collect_headers(const struct cst_sign_input *in, struct header_table *t)
{
	struct cst_slice sources[] = {in->req->headers, in->added_headers}, name, value, host = CST_SLICE("host");
	bool host_given = false;
	t->count = 0;
	for (size_t i = 0; i < CST_ARRAY_LEN(sources); i++)
		while (cst_sign_next_line(&sources[i], &name, &value)) {
			bool is_host = cst_slice_ieq(name, host);
			if (is_signed(in, name) && !(is_host && host_given))
				insert_line(t, name, value);
			host_given |= is_host;
		}
	if (in->req->host && !host_given && in->kind != CST_SIGN_OSS_V1 && is_signed(in, host))
		insert_line(t, host, cst_slice_of(in->req->host));
	/* A name that the claim lists and the request lacks signs an empty value. */
	struct cst_slice claimed = in->kind == CST_SIGN_S3_V4 ? in->names : (struct cst_slice){0};
	while (claimed.len) {
		name = cst_slice_trim(cst_slice_cut(&claimed, ';'));
		bool found = name.len == 0;
		for (size_t i = 0; i < t->count && !found; i++)
			found = cst_slice_ieq(t->lines[i].name, name);
		if (!found)
			insert_line(t, name, CST_SLICE(""));
	}
}

static void add_lower(struct cst_buf *out, struct cst_slice s)
{
	char *to = cst_buf_room(out, s.len);
	for (size_t i = 0; i < s.len; i++)
		to[i] = (char)(s.data[i] >= 'A' && s.data[i] <= 'Z' ? s.data[i] | 0x20 : s.data[i]);
	out->len += s.len;
	out->data[out->len] = '\0';
}

/* S3 counts runs of blanks inside a value as one. */
static void add_collapsed(struct cst_buf *out, struct cst_slice s)
{
	for (size_t i = 0; i < s.len; i++)
		if (s.data[i] != ' ' || i == 0 || s.data[i - 1] != ' ')
			cst_buf_add_char(out, s.data[i]);
}

/* "name:value\n" each, values of equal names joined; the names go to `names` ("a;b"), if that is wanted. */
static void add_headers(const struct cst_sign_input *in, struct cst_buf *out, struct cst_buf *names)
{
	struct header_table t;
	collect_headers(in, &t);
	for (size_t i = 0; i < t.count; i++) {
		bool again = i > 0 && cst_slice_ieq(t.lines[i - 1].name, t.lines[i].name);
		if (again) {
			out->len--; /* the newline */
			cst_buf_add_char(out, ',');
		} else {
			add_lower(out, t.lines[i].name);
			cst_buf_add_char(out, ':');
			if (names && names->len)
				cst_buf_add_char(names, ';');
			if (names)
				add_lower(names, t.lines[i].name);
		}
		if (in->kind == CST_SIGN_S3_V4)
			add_collapsed(out, t.lines[i].value);
		else
			cst_buf_add_slice(out, t.lines[i].value);
		cst_buf_add_char(out, '\n');
	}
}

struct param_text {
	struct cst_buf name, value;
};

static int compare_slices(struct cst_slice a, struct cst_slice b)
{
	size_t common = cst_min(a.len, b.len);
	int order = common ? memcmp(a.data, b.data, common) : 0;
	return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int compare_params(const void *a, const void *b)
{
	const struct param_text *x = a, *y = b;
	int order = compare_slices(cst_buf_slice(&x->name), cst_buf_slice(&y->name));
	return order ? order : compare_slices(cst_buf_slice(&x->value), cst_buf_slice(&y->value));
}

static bool is_v1_resource(struct cst_slice name)
{
	size_t low = 0, high = CST_ARRAY_LEN(v1_resources);
	if (cst_slice_starts(name, CST_SLICE("x-oss-")))
		return true;
	if (memchr(name.data, '\0', name.len))
		return false;
	while (low < high) {
		size_t middle = (low + high) / 2;
		const char *word = v1_resources[middle];
		int order = strncmp(name.data, word, name.len);
		if (order == 0 && word[name.len] == '\0')
			return true;
		if (order > 0)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

static bool param_is_signed(const struct cst_sign_input *in, struct cst_slice name)
{
	if (in->kind == CST_SIGN_OSS_V1)
		return name.len && is_v1_resource(name);
	return !in->presigned ||
	       !cst_slice_is(name, in->kind == CST_SIGN_S3_V4 ? "X-Amz-Signature" : "x-oss-signature");
}

/* The signed parameters, sorted after encoding, joined by '&'. V1 takes them raw. Only S3 writes "name=" for an empty value. */
static void add_params(const struct cst_sign_input *in, char before, struct cst_buf *out)
{
	size_t total = in->req->param_count + in->added_param_count, count = 0;
	if (total == 0)
		return;
	struct param_text *texts = cst_xcalloc(total, sizeof(*texts));
	for (size_t i = 0; i < total; i++) {
		const struct cst_sign_param *p =
			i < in->req->param_count ? &in->req->params[i] : &in->added_params[i - in->req->param_count];
		if (!param_is_signed(in, p->name))
			continue;
		struct param_text *t = &texts[count++];
		if (in->kind == CST_SIGN_OSS_V1) {
			cst_buf_add_slice(&t->name, p->name);
			cst_buf_add_slice(&t->value, p->value);
		} else {
			cst_text_url_encode(&t->name, p->name, false);
			cst_text_url_encode(&t->value, p->value, false);
		}
	}
	qsort(texts, count, sizeof(*texts), compare_params);
	for (size_t i = 0; i < count; i++) {
		if (i > 0 || before)
			cst_buf_add_char(out, i > 0 ? '&' : before);
		cst_buf_add_slice(out, cst_buf_slice(&texts[i].name));
		if (in->kind == CST_SIGN_S3_V4 || texts[i].value.len)
			cst_buf_add_char(out, '=');
		cst_buf_add_slice(out, cst_buf_slice(&texts[i].value));
		cst_buf_fini(&texts[i].name);
		cst_buf_fini(&texts[i].value);
	}
	free(texts);
}

static void add_uri(const struct cst_sign_input *in, struct cst_buf *out)
{
	const struct cst_sign_request *req = in->req;
	cst_buf_add_char(out, '/');
	if (req->bucket.len && (in->kind == CST_SIGN_OSS_V4 || req->path_style)) {
		cst_text_url_encode(out, req->bucket, false);
		if (!in->bare_bucket)
			cst_buf_add_char(out, '/');
	}
	cst_text_url_encode(out, req->key, true);
}

void cst_sign_canonical(const struct cst_sign_input *in, struct cst_buf *out)
{
	CST_AUTO_BUF names = CST_BUF_INIT;
	bool s3 = in->kind == CST_SIGN_S3_V4;
	cst_buf_add_str(out, in->req->method);
	cst_buf_add_char(out, '\n');
	add_uri(in, out);
	cst_buf_add_char(out, '\n');
	add_params(in, 0, out);
	cst_buf_add_char(out, '\n');
	add_headers(in, out, s3 ? &names : NULL);
	cst_buf_add_char(out, '\n');
	if (!s3 || in->names.data)
		cst_buf_add_slice(out, in->names);
	else
		cst_buf_add_slice(out, cst_buf_slice(&names));
	if (in->chosen_names)
		cst_buf_add_slice(in->chosen_names, s3 ? cst_buf_slice(&names) : in->names);
	cst_buf_add_char(out, '\n');
	cst_buf_add_slice(out, in->payload_hash);
}

void cst_sign_scope(enum cst_sign_kind kind, struct cst_slice date, struct cst_slice region, struct cst_buf *out)
{
	cst_buf_add_slice(out, date);
	cst_buf_add_char(out, '/');
	cst_buf_add_slice(out, region);
	cst_buf_add_str(out, kind == CST_SIGN_S3_V4 ? "/s3/aws4_request" : "/oss/aliyun_v4_request");
}

static struct cst_slice find_either(const struct cst_sign_input *in, const char *name)
{
	struct cst_slice v = cst_sign_find_line(in->req->headers, name);
	return v.data ? v : cst_sign_find_line(in->added_headers, name);
}

static void v1_to_sign(const struct cst_sign_input *in, struct cst_buf *out)
{
	const struct cst_sign_request *req = in->req;
	cst_buf_add_str(out, req->method);
	cst_buf_add_char(out, '\n');
	cst_buf_add_slice(out, find_either(in, "content-md5"));
	cst_buf_add_char(out, '\n');
	cst_buf_add_slice(out, find_either(in, "content-type"));
	cst_buf_add_char(out, '\n');
	cst_buf_add_slice(out, in->date_slot);
	cst_buf_add_char(out, '\n');
	add_headers(in, out, NULL);
	cst_buf_add_char(out, '/');
	if (req->bucket.len) {
		cst_buf_add_slice(out, req->bucket);
		cst_buf_add_char(out, '/');
	}
	cst_buf_add_slice(out, req->key);
	add_params(in, '?', out);
}

void cst_sign_to_sign(const struct cst_sign_input *in, struct cst_slice canonical, struct cst_buf *out)
{
	if (in->kind == CST_SIGN_OSS_V1) {
		v1_to_sign(in, out);
		return;
	}
	char stamp[CST_TIME_TEXT];
	uint8_t hash[CST_SHA256_LEN];
	cst_time_compact(in->time, stamp);
	cst_sha256(canonical.data, canonical.len, hash);
	cst_buf_add_str(out, in->kind == CST_SIGN_S3_V4 ? "AWS4-HMAC-SHA256\n" : "OSS4-HMAC-SHA256\n");
	cst_buf_add_str(out, stamp);
	cst_buf_add_char(out, '\n');
	cst_sign_scope(in->kind, in->scope_date, in->region, out);
	cst_buf_add_char(out, '\n');
	cst_text_hex(out, hash, sizeof(hash));
}
