/* Which operation a request is, and the way from there to its function. */
#define CST_LOG_AREA "store"
#include "store/handler.h"

#include "base/log.h"
#include "store/auth.h"
#include "store/keys.h"
#include "store/ops.h"

#include <errno.h>

enum scope { SERVICE, BUCKET, OBJECT };

/* The first row that fits decides: method, what the path names, a query parameter that must be there, and maybe a
 * header of the dialect's own (x-oss-… or x-amz-…). HEAD reads as GET where there is no row of its own. */
static const struct route {
	const char *method;
	enum scope scope;
	const char *param, *header;
	enum cst_store_operation op;
	void (*fn)(struct cst_store_request *r);
} routes[] = {
	{"GET", SERVICE, NULL, NULL, CST_STORE_OP_LIST_BUCKETS, cst_op_list_buckets},

	{"GET", BUCKET, "acl", NULL, CST_STORE_OP_GET_BUCKET_ACL, cst_op_get_acl},
	{"GET", BUCKET, "bucketInfo", NULL, CST_STORE_OP_GET_BUCKET_INFO, cst_op_get_bucket_info},
	{"GET", BUCKET, "stat", NULL, CST_STORE_OP_GET_BUCKET_STAT, cst_op_get_bucket_stat},
	{"GET", BUCKET, "location", NULL, CST_STORE_OP_GET_BUCKET_LOCATION, cst_op_get_bucket_location},
	{"GET", BUCKET, "versioning", NULL, CST_STORE_OP_GET_BUCKET_VERSIONING, cst_op_get_bucket_versioning},
	{"GET", BUCKET, "versions", NULL, CST_STORE_OP_LIST_OBJECT_VERSIONS, cst_op_list_versions},
	{"GET", BUCKET, "uploads", NULL, CST_STORE_OP_LIST_MULTIPART_UPLOADS, cst_op_list_uploads},
	{"HEAD", BUCKET, NULL, NULL, CST_STORE_OP_HEAD_BUCKET, cst_op_head_bucket},
	{"PUT", BUCKET, "acl", NULL, CST_STORE_OP_PUT_BUCKET_ACL, cst_op_put_acl},
	{"POST", BUCKET, "delete", NULL, CST_STORE_OP_DELETE_MULTIPLE_OBJECTS, cst_op_delete_objects},

	{"GET", OBJECT, "acl", NULL, CST_STORE_OP_GET_OBJECT_ACL, cst_op_get_acl},
	{"GET", OBJECT, "tagging", NULL, CST_STORE_OP_GET_OBJECT_TAGGING, cst_op_get_tagging},
	{"GET", OBJECT, "symlink", NULL, CST_STORE_OP_GET_SYMLINK, cst_op_get_symlink},
	{"GET", OBJECT, "objectMeta", NULL, CST_STORE_OP_GET_OBJECT_META, cst_op_get_object_meta},
	{"HEAD", OBJECT, "objectMeta", NULL, CST_STORE_OP_GET_OBJECT_META, cst_op_get_object_meta},
	{"GET", OBJECT, "uploadId", NULL, CST_STORE_OP_LIST_PARTS, cst_op_list_parts},
	{"HEAD", OBJECT, NULL, NULL, CST_STORE_OP_HEAD_OBJECT, cst_op_head_object},
	{"PUT", OBJECT, "acl", NULL, CST_STORE_OP_PUT_OBJECT_ACL, cst_op_put_acl},
	{"PUT", OBJECT, "tagging", NULL, CST_STORE_OP_PUT_OBJECT_TAGGING, cst_op_put_tagging},
	{"PUT", OBJECT, "symlink", NULL, CST_STORE_OP_PUT_SYMLINK, cst_op_put_symlink},
	{"PUT", OBJECT, "partNumber", "copy-source", CST_STORE_OP_UPLOAD_PART_COPY, cst_op_upload_part_copy},
	{"PUT", OBJECT, "partNumber", NULL, CST_STORE_OP_UPLOAD_PART, cst_op_upload_part},
	{"PUT", OBJECT, NULL, "copy-source", CST_STORE_OP_COPY_OBJECT, cst_op_copy_object},
	{"POST", OBJECT, "append", NULL, CST_STORE_OP_APPEND_OBJECT, cst_op_append_object},
	{"POST", OBJECT, "uploads", NULL, CST_STORE_OP_INITIATE_MULTIPART_UPLOAD, cst_op_initiate_upload},
	{"POST", OBJECT, "uploadId", NULL, CST_STORE_OP_COMPLETE_MULTIPART_UPLOAD, cst_op_complete_upload},
	{"POST", OBJECT, "restore", NULL, CST_STORE_OP_RESTORE_OBJECT, cst_op_restore_object},
	{"DELETE", OBJECT, "uploadId", NULL, CST_STORE_OP_ABORT_MULTIPART_UPLOAD, cst_op_abort_upload},
	{"DELETE", OBJECT, "tagging", NULL, CST_STORE_OP_DELETE_OBJECT_TAGGING, cst_op_delete_tagging},
};

/* Without a sub-resource. */
static const struct route plain_routes[] = {
	{"GET", BUCKET, NULL, NULL, CST_STORE_OP_LIST_OBJECTS, cst_op_list_objects},
	{"PUT", BUCKET, NULL, NULL, CST_STORE_OP_PUT_BUCKET, cst_op_put_bucket},
	{"DELETE", BUCKET, NULL, NULL, CST_STORE_OP_DELETE_BUCKET, cst_op_delete_bucket},
	{"GET", OBJECT, NULL, NULL, CST_STORE_OP_GET_OBJECT, cst_op_get_object},
	{"PUT", OBJECT, NULL, NULL, CST_STORE_OP_PUT_OBJECT, cst_op_put_object},
	{"DELETE", OBJECT, NULL, NULL, CST_STORE_OP_DELETE_OBJECT, cst_op_delete_object},
};

/* Sub-resources that the services have and the store hasn't: a request that names one must not be taken for the plain
 * operation. */
static const char *const bucket_resources[] = {"accelerate",
					       "accessMonitor",
					       "acl",
					       "analytics",
					       "archiveDirectRead",
					       "asyncFetch",
					       "bucketInfo",
					       "callback",
					       "cname",
					       "comp",
					       "cors",
					       "delete",
					       "encryption",
					       "httpsConfig",
					       "intelligent-tiering",
					       "inventory",
					       "lifecycle",
					       "live",
					       "location",
					       "logging",
					       "metadataTable",
					       "metaQuery",
					       "metrics",
					       "notification",
					       "object-lock",
					       "ownershipControls",
					       "policy",
					       "policyStatus",
					       "publicAccessBlock",
					       "qosInfo",
					       "qos",
					       "referer",
					       "regionList",
					       "replication",
					       "replicationLocation",
					       "replicationProgress",
					       "requestPayment",
					       "resourceGroup",
					       "rtc",
					       "session",
					       "stat",
					       "style",
					       "styleName",
					       "tagging",
					       "transferAcceleration",
					       "uploads",
					       "userDefinedLogFieldsConfig",
					       "versioning",
					       "versions",
					       "vod",
					       "website",
					       "worm",
					       "wormExtend",
					       "wormId",
					       "x-oss-process",
					       "x-oss-async-process"};
static const char *const object_resources[] = {"acl",
					       "append",
					       "attributes",
					       "callback",
					       "cleanRestoredObject",
					       "legal-hold",
					       "img",
					       "live",
					       "objectMeta",
					       "partNumber",
					       "renameObject",
					       "restore",
					       "retention",
					       "seal",
					       "select",
					       "select-type",
					       "symlink",
					       "tagging",
					       "torrent",
					       "uploadId",
					       "uploads",
					       "vod",
					       "x-oss-async-process",
					       "x-oss-process"};

static enum scope scope_of(const struct cst_store_request *r)
{
	if (r->bucket_name.len == 0)
		return SERVICE;
	return r->key.len ? OBJECT : BUCKET;
}

static bool has_resource(const struct cst_store_request *r, enum scope scope)
{
	const char *const *names = scope == OBJECT ? object_resources : bucket_resources;
	size_t count = scope == OBJECT ? CST_ARRAY_LEN(object_resources) : CST_ARRAY_LEN(bucket_resources);

	for (size_t i = 0; i < count; i++) {
		/* Reading a whole object by its only part is let through to the reader. */
		if (strcmp(names[i], "partNumber") == 0 && !cst_request_is(r, "PUT"))
			continue;
		if (cst_request_has(r, names[i]))
			return true;
	}
	return false;
}

static const struct route *find_in(const struct cst_store_request *r, const struct route *table, size_t count,
				   bool as_get)
{
	enum scope scope = scope_of(r);

	for (size_t i = 0; i < count; i++) {
		const struct route *route = &table[i];
		bool method =
			cst_request_is(r, route->method) || (as_get && r->is_head && strcmp(route->method, "GET") == 0);

		if (method && route->scope == scope && (!route->param || cst_request_has(r, route->param)) &&
		    (!route->header || cst_request_own(r, route->header).data))
			return route;
	}
	return NULL;
}

static void not_implemented(struct cst_store_request *r)
{
	cst_answer_errorf(r, CST_STORE_ERR_NOT_IMPLEMENTED, "This operation is not implemented by the store.");
}

static void not_allowed(struct cst_store_request *r)
{
	cst_answer_error(r, CST_STORE_ERR_METHOD_NOT_ALLOWED);
}

static const struct route *find_route(const struct cst_store_request *r)
{
	static const struct route read_config = {.op = CST_STORE_OP_GET_BUCKET_CONFIG, .fn = cst_op_get_bucket_config};
	static const struct route write_config = {.op = CST_STORE_OP_PUT_BUCKET_CONFIG, .fn = not_implemented};
	static const struct route post = {.op = CST_STORE_OP_POST_OBJECT, .fn = not_implemented};
	static const struct route other = {.op = CST_STORE_OP_OTHER, .fn = not_implemented};
	static const struct route bad = {.op = CST_STORE_OP_OTHER, .fn = not_allowed};
	enum scope scope = scope_of(r);
	const struct route *route = find_in(r, routes, CST_ARRAY_LEN(routes), false);
	bool get = cst_request_is(r, "GET") || r->is_head;

	if (route)
		return route;
	if (scope != SERVICE && has_resource(r, scope)) {
		route = find_in(r, routes, CST_ARRAY_LEN(routes), true);
		if (route)
			return route;
		if (scope == BUCKET)
			return get ? &read_config : &write_config;
		return &other;
	}
	route = find_in(r, plain_routes, CST_ARRAY_LEN(plain_routes), true);
	if (route)
		return route;
	if (scope == BUCKET && cst_request_is(r, "POST"))
		return &post;
	return &bad;
}

/* Everything but making a bucket wants it to be there. */
static bool open_bucket(struct cst_store_request *r, enum cst_store_operation op)
{
	if (r->bucket_name.len == 0 && r->key.len) { /* "//key" */
		cst_answer_error(r, CST_STORE_ERR_INVALID_BUCKET_NAME);
		return false;
	}
	if (r->bucket_name.len == 0 || op == CST_STORE_OP_PUT_BUCKET)
		return true;
	r->bucket_fd = cst_backend_bucket(r->b, r->bucket_name);
	if (r->bucket_fd >= 0)
		return true;
	if (r->bucket[0] || r->dialect == CST_STORE_S3)
		cst_answer_error(r, CST_STORE_ERR_NO_SUCH_BUCKET);
	else
		cst_answer_error(r, CST_STORE_ERR_INVALID_BUCKET_NAME);
	return false;
}

/* Versions don't exist here; "null" is what an unversioned object's only one is called. */
static bool check_version(struct cst_store_request *r)
{
	struct cst_slice version = cst_request_param(r, "versionId");

	if (!version.len || cst_slice_is(version, "null"))
		return true;
	cst_answer_errorf(r, CST_STORE_ERR_INVALID_ARGUMENT,
			  "Invalid version id specified: the store keeps no versions.");
	return false;
}

void cst_store_handle(struct cst_store *store, struct cst_http_exchange *x)
{
	struct cst_store_request r;
	const struct route *route;
	const char *why = NULL;
	int rc;

	CST_CHECK(store, CST_STORE_MAGIC);
	rc = cst_request_init(&r, store, x, &why);
	route = rc == 0 ? find_route(&r) : NULL;
	if (cst_store_begin(store, x, route ? route->op : CST_STORE_OP_OTHER, r.dialect)) {
		if (!route)
			cst_answer_errorf(&r, CST_STORE_ERR_INVALID_ARGUMENT, "The request can't be read: %s.", why);
		else if (cst_auth_check(&r) && open_bucket(&r, route->op) && check_version(&r))
			route->fn(&r);
	}
	cst_request_fini(&r);
}

bool cst_store_admits(struct cst_store *store, struct cst_http_exchange *x)
{
	struct cst_store_request r;
	const char *why = NULL;
	bool admitted;

	if (!store->backend->keys)
		return true;
	admitted = cst_request_init(&r, store, x, &why) == 0;
	r.quiet = true;
	admitted = admitted && cst_auth_check(&r) && r.checked;
	cst_request_fini(&r);
	return admitted;
}

int cst_store_backend_open(struct cst_store *store, struct cst_error *err)
{
	int rc = cst_backend_new(store->config.dir, &store->backend, err);

	if (rc)
		return rc;
	if (store->config.keys_file)
		rc = cst_keys_new(store->config.keys_file, &store->backend->keys, err);
	if (rc)
		cst_store_backend_close(store);
	return rc;
}

void cst_store_backend_close(struct cst_store *store)
{
	if (!store->backend)
		return;
	cst_keys_free(store->backend->keys);
	cst_backend_free(store->backend);
	store->backend = NULL;
}
