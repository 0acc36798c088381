/* Amazon S3 and what is compatible with it. */
#include "object/backend.h"

static enum cst_sign_kind sign_kind(const struct cst_bucket_config *config, const struct cst_endpoint *endpoint)
{
	(void)endpoint;
	return config->sign != CST_SIGN_NONE ? config->sign : CST_SIGN_S3_V4;
}

static void read_info(const struct cst_http_head *head, struct cst_object_info *info)
{
	struct cst_slice class = cst_http_header_get(head, "x-amz-storage-class");
	if (!class.data)
		class = CST_SLICE("STANDARD");
	info->type = CST_OBJECT_NORMAL;
	snprintf(info->storage_class, sizeof(info->storage_class), "%.*s", (int)class.len, class.data);
	info->restoring_or_restored = cst_http_header_get(head, "x-amz-restore").data != NULL;
	info->has_crc64 = false;
}

const struct cst_backend cst_backend_s3 = {
	.scheme = "s3",
	.meta_prefix = "x-amz-meta-",
	.header_prefix = "x-amz-",
	.request_id = "x-amz-request-id",
	.if_match = true,
	.crc32c = true,
	.acl_header = "x-amz-acl",
	.permission = "s3:",
	.limits = {.part_min = UINT64_C(5) << 20,
		   .part_max = UINT64_C(5) << 30,
		   .put_max = UINT64_C(5) << 30,
		   .copy_max = UINT64_C(5) << 30,
		   .parts_max = 10000},
	.get_headers = "",
	.sign = sign_kind,
	.read_info = read_info,
};
