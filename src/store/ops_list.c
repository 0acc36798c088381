#include "store/ops.h"

#include "base/clock.h"
#include "base/text.h"
#include "store/list.h"

#include <errno.h>

#define MAX_KEYS UINT64_C(1000)
#define OSS_DEFAULT_KEYS 100

struct page {
	struct cst_store_request *r;
	struct cst_list_query query;
	bool v2, versions, encode, owner;
	struct cst_slice marker; /* as the client wrote it */
	struct cst_buf token;	 /* decoded */
	struct cst_buf contents, prefixes;
};

static bool refuse(struct cst_store_request *r, const char *what)
{
	cst_answer_errorf(r, CST_STORE_ERR_INVALID_ARGUMENT, "%s", what);
	return false;
}

/* A continuation token is base64 of 'k' and the last key, or of 'p' and the last common prefix. */
static void make_token(const struct cst_list_result *result, struct cst_buf *out)
{
	CST_AUTO_BUF text = CST_BUF_INIT;

	cst_buf_add_char(&text, result->last_is_prefix ? 'p' : 'k');
	cst_buf_add_slice(&text, cst_buf_slice(&result->last));
	cst_text_base64(out, text.data, text.len);
}

static bool take_token(struct page *p, struct cst_slice token)
{
	if (cst_text_unbase64(&p->token, token) != 0 || p->token.len < 1 ||
	    (p->token.data[0] != 'k' && p->token.data[0] != 'p'))
		return refuse(p->r, "The continuation token provided is incorrect.");
	p->query.after_prefix = p->token.data[0] == 'p';
	p->query.after = (struct cst_slice){p->token.data + 1, p->token.len - 1};
	return true;
}

/* A marker that is itself a common prefix of this listing is where the page before ended: all of it has been told. */
static void take_marker(struct page *p, struct cst_slice marker)
{
	const struct cst_list_query *q = &p->query;
	const char *at;

	p->query.after = marker;
	if (!q->delimiter.len || marker.len <= q->prefix.len || !cst_slice_starts(marker, q->prefix))
		return;
	at = memmem(marker.data + q->prefix.len, marker.len - q->prefix.len, q->delimiter.data, q->delimiter.len);
	p->query.after_prefix = at && (size_t)(at - marker.data) + q->delimiter.len == marker.len;
}

static bool read_query(struct page *p)
{
	struct cst_store_request *r = p->r;
	struct cst_slice encoding = cst_request_param(r, "encoding-type");
	struct cst_slice max = cst_request_param(r, "max-keys");
	struct cst_slice token = cst_request_param(r, "continuation-token");
	uint64_t n = r->dialect == CST_STORE_OSS ? OSS_DEFAULT_KEYS : MAX_KEYS;

	p->v2 = cst_slice_is(cst_request_param(r, "list-type"), "2");
	p->query.prefix = cst_request_param(r, "prefix");
	p->query.delimiter = cst_request_param(r, "delimiter");
	p->owner = !p->v2 || cst_slice_ieq(cst_request_param(r, "fetch-owner"), CST_SLICE("true"));
	p->encode = cst_slice_is(encoding, "url");
	if (encoding.len && !p->encode)
		return refuse(r, "encoding-type must be url.");
	if (max.len && (cst_request_number(max, &n) != 0 || n > INT32_MAX))
		return refuse(r, "max-keys must be a number.");
	if (r->dialect == CST_STORE_OSS && max.len && (n < 1 || n > MAX_KEYS))
		return refuse(r, "max-keys must be between 1 and 1000.");
	p->query.max = (unsigned)cst_min(n, MAX_KEYS);
	p->marker = cst_request_param(r, p->v2 ? "start-after" : p->versions ? "key-marker" : "marker");
	if (p->v2 && token.data)
		return take_token(p, token);
	if (p->marker.len)
		take_marker(p, p->marker);
	return true;
}

static void object_xml(struct page *p, const struct cst_list_item *item, const struct cst_record *record)
{
	struct cst_buf *xml = &p->contents;
	char etag[CST_ANSWER_ETAG];

	cst_buf_add_str(xml, p->versions ? "<Version>" : "<Contents>");
	cst_xml_key(xml, "Key", item->key, p->encode);
	if (p->versions)
		cst_buf_add_str(xml, "<VersionId>null</VersionId><IsLatest>true</IsLatest>");
	cst_xml_time(xml, "LastModified", record->mtime / CST_NS_PER_S);
	cst_xml_text(xml, "ETag", cst_slice_of(cst_answer_etag(p->r, record->etag, etag)));
	if (p->r->dialect == CST_STORE_OSS)
		cst_xml_text(xml, "Type", cst_slice_of(cst_answer_type(record->type)));
	cst_xml_printf(xml, "Size", "%llu", (unsigned long long)record->size);
	cst_xml_text(xml, "StorageClass", cst_slice_of(cst_answer_class(p->r, record->class)));
	if (p->owner)
		cst_xml_owner(p->r, xml, "Owner");
	cst_buf_add_str(xml, p->versions ? "</Version>" : "</Contents>");
}

static int take_item(void *arg, const struct cst_list_item *item)
{
	struct page *p = arg;
	CST_AUTO_BLOB blob = CST_BLOB_INIT;
	pthread_rwlock_t *stripe;
	int rc;

	if (item->is_prefix) {
		cst_buf_add_str(&p->prefixes, "<CommonPrefixes>");
		cst_xml_key(&p->prefixes, "Prefix", item->key, p->encode);
		cst_buf_add_str(&p->prefixes, "</CommonPrefixes>");
		return 1;
	}
	/* So that an append under way isn't seen half done. */
	stripe = cst_backend_stripe(p->r->b, item->key);
	pthread_rwlock_rdlock(stripe);
	rc = cst_blob_open_path(p->r->b, p->r->bucket_fd, item->path, &blob);
	pthread_rwlock_unlock(stripe);
	if (rc == -EISDIR) /* it made room for a directory meanwhile */
		rc = cst_blob_open(p->r->b, p->r->bucket_fd, item->key, &blob);
	if (rc == -EACCES || rc == -EPERM) /* it is there, though the store may not read it */
		rc = cst_blob_look(p->r->bucket_fd, item->path, &blob);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	object_xml(p, item, &blob.record);
	return 1;
}

static void head_v2(struct page *p, const struct cst_list_result *result, struct cst_buf *xml)
{
	struct cst_slice token = cst_request_param(p->r, "continuation-token");
	CST_AUTO_BUF next = CST_BUF_INIT;

	if (token.data)
		cst_xml_text(xml, "ContinuationToken", token);
	if (result->truncated) {
		make_token(result, &next);
		cst_xml_text(xml, "NextContinuationToken", cst_buf_slice(&next));
	}
	if (p->marker.data)
		cst_xml_key(xml, "StartAfter", p->marker, p->encode);
	cst_xml_printf(xml, "KeyCount", "%u", result->count);
}

static void head_v1(struct page *p, const struct cst_list_result *result, struct cst_buf *xml)
{
	const char *own = p->versions ? "KeyMarker" : "Marker";

	cst_xml_key(xml, own, p->marker, p->encode);
	if (p->versions)
		cst_buf_add_str(xml, "<VersionIdMarker></VersionIdMarker>");
	/* S3 tells NextMarker with a delimiter only; nobody minds having it always. */
	if (result->truncated)
		cst_xml_key(xml, p->versions ? "NextKeyMarker" : "NextMarker", cst_buf_slice(&result->last), p->encode);
	if (result->truncated && p->versions)
		cst_buf_add_str(xml, "<NextVersionIdMarker>null</NextVersionIdMarker>");
}

static void answer(struct page *p, const struct cst_list_result *result)
{
	CST_AUTO_BUF xml = CST_BUF_INIT;
	const char *root = p->versions ? "ListVersionsResult" : "ListBucketResult";

	cst_xml_root(p->r, &xml, root);
	cst_xml_text(&xml, "Name", p->r->bucket_name);
	cst_xml_key(&xml, "Prefix", p->query.prefix, p->encode);
	if (p->query.delimiter.len)
		cst_xml_key(&xml, "Delimiter", p->query.delimiter, p->encode);
	cst_xml_printf(&xml, "MaxKeys", "%u", p->query.max);
	if (p->encode)
		cst_xml_text(&xml, "EncodingType", CST_SLICE("url"));
	cst_xml_text(&xml, "IsTruncated", result->truncated ? CST_SLICE("true") : CST_SLICE("false"));
	if (p->v2)
		head_v2(p, result, &xml);
	else
		head_v1(p, result, &xml);
	cst_buf_add_slice(&xml, cst_buf_slice(&p->contents));
	cst_buf_add_slice(&xml, cst_buf_slice(&p->prefixes));
	cst_buf_printf(&xml, "</%s>", root);
	cst_answer_xml(p->r, &xml);
}

static void list(struct cst_store_request *r, bool versions)
{
	struct page page = {.r = r, .versions = versions};
	struct cst_list_result result = {0};
	int rc;

	if (read_query(&page)) {
		rc = cst_list_run(r->b->scans, r->bucket_fd, &page.query, take_item, &page, &result);
		if (rc)
			cst_answer_errno(r, rc == -ENOENT ? -EIO : rc);
		else
			answer(&page, &result);
	}
	cst_buf_fini(&result.last);
	cst_buf_fini(&page.token);
	cst_buf_fini(&page.contents);
	cst_buf_fini(&page.prefixes);
}

void cst_op_list_objects(struct cst_store_request *r)
{
	list(r, false);
}

void cst_op_list_versions(struct cst_store_request *r)
{
	list(r, true);
}
