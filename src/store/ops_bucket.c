#include "store/ops.h"

#include "base/clock.h"
#include "base/text.h"
#include "store/body.h"
#include "store/list.h"
#include "store/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define XML_MAX (256u << 10)

/* Of the local machine when nobody said otherwise; awscli takes "us-east-1" for its own default. */
static const char *region_of(const struct cst_store_request *r)
{
	if (r->store->config.region)
		return r->store->config.region;
	return r->dialect == CST_STORE_OSS ? "local" : "us-east-1";
}

/* Buckets have no time of making on all file systems; the folder's own is the nearest there is. */
static int64_t created(int fd)
{
	struct statx stx;
	struct stat st;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &stx) == 0 && (stx.stx_mask & STATX_BTIME))
		return stx.stx_btime.tv_sec;
	return fstat(fd, &st) == 0 ? st.st_mtim.tv_sec : 0;
}

/* ---- ListBuckets ---- */

struct buckets {
	char (*names)[CST_BUCKET_NAME_MAX];
	size_t count, room;
};

static int take_bucket(void *arg, int dir, const char *name, unsigned char type)
{
	struct buckets *list = arg;

	(void)dir;
	if (type != DT_DIR || !cst_backend_is_bucket_name(cst_slice_of(name)))
		return 0;
	if (list->count == list->room) {
		list->room = list->room ? list->room * 2 : 16;
		list->names = cst_xrealloc(list->names, list->room * sizeof(*list->names));
	}
	snprintf(list->names[list->count++], CST_BUCKET_NAME_MAX, "%s", name);
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(a, b);
}

static void bucket_xml(struct cst_store_request *r, const char *name, struct cst_buf *xml)
{
	CST_AUTO_CLOSE int fd = cst_backend_bucket(r->b, cst_slice_of(name));
	struct cst_slice host = cst_request_header(r, "host");

	if (fd < 0)
		return;
	cst_buf_add_str(xml, "<Bucket>");
	cst_xml_text(xml, "Name", cst_slice_of(name));
	cst_xml_time(xml, "CreationDate", created(fd));
	if (r->dialect == CST_STORE_OSS) {
		cst_xml_text(xml, "Location", cst_slice_of(region_of(r)));
		cst_xml_text(xml, "Region", cst_slice_of(region_of(r)));
		cst_xml_text(xml, "ExtranetEndpoint", host);
		cst_xml_text(xml, "IntranetEndpoint", host);
		cst_xml_text(xml, "StorageClass", CST_SLICE("Standard"));
	}
	cst_buf_add_str(xml, "</Bucket>");
}

void cst_op_list_buckets(struct cst_store_request *r)
{
	struct buckets list = {0};
	struct cst_slice prefix = cst_request_param(r, "prefix");
	struct cst_slice marker = cst_request_param(r, "marker");
	uint64_t max = 1000;
	uint64_t shown = 0;
	bool more = false;
	const char *last = "";
	CST_AUTO_BUF buckets = CST_BUF_INIT;
	CST_AUTO_BUF xml = CST_BUF_INIT;
	int rc = cst_tree_each(r->b->dir, take_bucket, &list);

	if (cst_request_param(r, "max-keys").len)
		(void)cst_request_number(cst_request_param(r, "max-keys"), &max);
	if (list.count)
		qsort(list.names, list.count, sizeof(*list.names), compare_names);
	for (size_t i = 0; rc == 0 && i < list.count; i++) {
		const char *name = list.names[i];

		if (!cst_slice_starts(cst_slice_of(name), prefix) ||
		    (r->only_bucket[0] && strcmp(name, r->only_bucket) != 0) ||
		    (marker.len && strcmp(name, marker.data) <= 0))
			continue;
		more = shown == max;
		if (more)
			break;
		bucket_xml(r, name, &buckets);
		last = name;
		shown++;
	}
	cst_xml_root(r, &xml, "ListAllMyBucketsResult");
	if (r->dialect == CST_STORE_OSS && more && shown) {
		cst_buf_add_str(&xml, "<IsTruncated>true</IsTruncated>");
		cst_xml_text(&xml, "NextMarker", cst_slice_of(last));
	}
	cst_xml_owner(r, &xml, "Owner");
	cst_buf_add_str(&xml, "<Buckets>");
	cst_buf_add_slice(&xml, cst_buf_slice(&buckets));
	cst_buf_add_str(&xml, "</Buckets></ListAllMyBucketsResult>");
	if (rc)
		cst_answer_errno(r, rc);
	else
		cst_answer_xml(r, &xml);
	free(list.names);
}

/* ---- making and removing ---- */

void cst_op_put_bucket(struct cst_store_request *r)
{
	CST_AUTO_BUF body = CST_BUF_INIT;
	CST_AUTO_BUF location = CST_BUF_INIT;
	int rc;

	if (!cst_body_receive_text(r, &body, XML_MAX))
		return;
	if (!r->bucket[0]) {
		cst_answer_error(r, CST_STORE_ERR_INVALID_BUCKET_NAME);
		return;
	}
	rc = cst_backend_make_bucket(r->b, r->bucket);
	/* The owner may make his bucket again on OSS; S3 says that it is there. */
	if (rc == -EEXIST && r->dialect == CST_STORE_S3) {
		cst_answer_error(r, CST_STORE_ERR_BUCKET_OWNED);
		return;
	}
	if (rc && rc != -EEXIST) {
		cst_answer_errno(r, rc);
		return;
	}
	cst_buf_printf(&location, "/%s", r->bucket);
	cst_http_response_header(r->x, "Location", location.data);
	cst_answer_empty(r, 200);
}

void cst_op_delete_bucket(struct cst_store_request *r)
{
	int rc = cst_backend_remove_bucket(r->b, r->bucket);

	if (rc == -ENOTEMPTY || rc == -EEXIST)
		cst_answer_error(r, CST_STORE_ERR_BUCKET_NOT_EMPTY);
	else if (rc == -ENOENT)
		cst_answer_error(r, CST_STORE_ERR_NO_SUCH_BUCKET);
	else if (rc)
		cst_answer_errno(r, rc);
	else
		cst_answer_empty(r, 204);
}

/* ---- asking ---- */

void cst_op_head_bucket(struct cst_store_request *r)
{
	cst_http_response_header(r->x, r->dialect == CST_STORE_OSS ? "x-oss-bucket-region" : "x-amz-bucket-region",
				 region_of(r));
	cst_answer_empty(r, 200);
}

void cst_op_get_bucket_info(struct cst_store_request *r)
{
	CST_AUTO_BUF xml = CST_BUF_INIT;
	struct cst_slice host = cst_request_header(r, "host");

	cst_buf_add_str(&xml, "<BucketInfo><Bucket>");
	cst_xml_time(&xml, "CreationDate", created(r->bucket_fd));
	cst_xml_text(&xml, "ExtranetEndpoint", host);
	cst_xml_text(&xml, "IntranetEndpoint", host);
	cst_xml_text(&xml, "Location", cst_slice_of(region_of(r)));
	cst_xml_text(&xml, "Name", r->bucket_name);
	cst_xml_owner(r, &xml, "Owner");
	cst_buf_add_str(&xml, "<AccessControlList><Grant>private</Grant></AccessControlList>"
			      "<StorageClass>Standard</StorageClass><DataRedundancyType>LRS</DataRedundancyType>"
			      "<Versioning></Versioning></Bucket></BucketInfo>");
	cst_answer_xml(r, &xml);
}

static int count_object(void *arg, const struct cst_list_item *item)
{
	struct {
		struct cst_store_request *r;
		uint64_t count, bytes;
	} *sum = arg;
	struct stat st;
	CST_AUTO_CLOSE int fd = cst_tree_open(sum->r->bucket_fd, item->path, O_PATH);

	if (fd < 0 || fstat(fd, &st) != 0)
		return fd == -ENOENT ? 0 : fd < 0 ? cst_steal_fd(&fd) : -errno;
	sum->count++;
	sum->bytes += (uint64_t)st.st_size;
	return 1;
}

void cst_op_get_bucket_stat(struct cst_store_request *r)
{
	struct {
		struct cst_store_request *r;
		uint64_t count, bytes;
	} sum = {.r = r};
	struct cst_list_query query = {.max = UINT32_MAX};
	struct cst_list_result result = {0};
	CST_AUTO_BUF xml = CST_BUF_INIT;
	int rc = cst_list_run(r->b->scans, r->bucket_fd, &query, count_object, &sum, &result);

	cst_buf_fini(&result.last);
	if (rc) {
		cst_answer_errno(r, rc);
		return;
	}
	cst_buf_add_str(&xml, "<BucketStat>");
	cst_xml_printf(&xml, "Storage", "%llu", (unsigned long long)sum.bytes);
	cst_xml_printf(&xml, "ObjectCount", "%llu", (unsigned long long)sum.count);
	cst_buf_add_str(&xml, "</BucketStat>");
	cst_answer_xml(r, &xml);
}

void cst_op_get_bucket_location(struct cst_store_request *r)
{
	CST_AUTO_BUF xml = CST_BUF_INIT;
	const char *region = region_of(r);

	cst_xml_root(r, &xml, "LocationConstraint");
	/* S3 calls its first region by no name. */
	if (r->dialect == CST_STORE_OSS || strcmp(region, "us-east-1") != 0)
		cst_text_xml_escape(&xml, cst_slice_of(region));
	cst_buf_add_str(&xml, "</LocationConstraint>");
	cst_answer_xml(r, &xml);
}

void cst_op_get_bucket_versioning(struct cst_store_request *r)
{
	CST_AUTO_BUF xml = CST_BUF_INIT;

	cst_xml_root(r, &xml, "VersioningConfiguration");
	cst_buf_add_str(&xml, "</VersioningConfiguration>");
	cst_answer_xml(r, &xml);
}

/* What clients ask for before they work, and what says "not configured". Others are not implemented. */
static const struct {
	const char *name;
	enum cst_store_error s3, oss; /* COUNT: an empty document */
	const char *root;
} configs[] = {
	{"cors", CST_STORE_ERR_NO_CONFIG_CORS, CST_STORE_ERR_NO_CONFIG_CORS, NULL},
	{"encryption", CST_STORE_ERR_NO_CONFIG_ENCRYPTION, CST_STORE_ERR_NO_CONFIG_ENCRYPTION_OSS, NULL},
	{"lifecycle", CST_STORE_ERR_NO_CONFIG_LIFECYCLE, CST_STORE_ERR_NO_CONFIG_LIFECYCLE_OSS, NULL},
	{"object-lock", CST_STORE_ERR_NO_CONFIG_LOCK, CST_STORE_ERR_NOT_IMPLEMENTED, NULL},
	{"ownershipControls", CST_STORE_ERR_NO_CONFIG_OWNERSHIP, CST_STORE_ERR_NOT_IMPLEMENTED, NULL},
	{"policy", CST_STORE_ERR_NO_CONFIG_POLICY, CST_STORE_ERR_NO_CONFIG_POLICY, NULL},
	{"publicAccessBlock", CST_STORE_ERR_NO_CONFIG_PUBLIC_ACCESS, CST_STORE_ERR_NO_CONFIG_PUBLIC_ACCESS, NULL},
	{"replication", CST_STORE_ERR_NO_CONFIG_REPLICATION, CST_STORE_ERR_NOT_IMPLEMENTED, NULL},
	{"tagging", CST_STORE_ERR_NO_CONFIG_TAGS, CST_STORE_ERR_COUNT, "Tagging"},
	{"website", CST_STORE_ERR_NO_CONFIG_WEBSITE, CST_STORE_ERR_NO_CONFIG_WEBSITE, NULL},
	{"logging", CST_STORE_ERR_COUNT, CST_STORE_ERR_COUNT, "BucketLoggingStatus"},
	{"notification", CST_STORE_ERR_COUNT, CST_STORE_ERR_NOT_IMPLEMENTED, "NotificationConfiguration"},
};

void cst_op_get_bucket_config(struct cst_store_request *r)
{
	CST_AUTO_BUF xml = CST_BUF_INIT;

	for (size_t i = 0; i < CST_ARRAY_LEN(configs); i++) {
		enum cst_store_error e = r->dialect == CST_STORE_OSS ? configs[i].oss : configs[i].s3;

		if (!cst_request_has(r, configs[i].name))
			continue;
		if (e != CST_STORE_ERR_COUNT) {
			cst_answer_error(r, e);
			return;
		}
		cst_xml_root(r, &xml, configs[i].root);
		cst_buf_printf(&xml, "</%s>", configs[i].root);
		cst_answer_xml(r, &xml);
		return;
	}
	if (cst_request_has(r, "requestPayment")) {
		cst_xml_root(r, &xml, "RequestPaymentConfiguration");
		cst_buf_add_str(&xml, "<Payer>BucketOwner</Payer></RequestPaymentConfiguration>");
		cst_answer_xml(r, &xml);
		return;
	}
	cst_answer_errorf(r, CST_STORE_ERR_NOT_IMPLEMENTED, "This sub-resource of a bucket is not implemented.");
}
