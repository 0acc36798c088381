/* Alibaba Cloud OSS. */
#include "object/backend.h"

static enum cst_sign_kind sign_kind(const struct cst_bucket_config *config, const struct cst_endpoint *endpoint)
{
	if (config->sign != CST_SIGN_NONE)
		return config->sign;
	return endpoint->region[0] ? CST_SIGN_OSS_V4 : CST_SIGN_OSS_V1;
}

static void read_info(const struct cst_http_head *head, struct cst_object_info *info)
{
	struct cst_slice type = cst_http_header_get(head, "x-oss-object-type");
	struct cst_slice class = cst_http_header_get(head, "x-oss-storage-class");
	struct cst_slice crc = cst_http_header_get(head, "x-oss-hash-crc64ecma");
	info->type = cst_slice_is(type, "Symlink")	? CST_OBJECT_SYMLINK
		     : cst_slice_is(type, "Appendable") ? CST_OBJECT_APPENDABLE
		     : cst_slice_is(type, "Multipart")	? CST_OBJECT_MULTIPART
							: CST_OBJECT_NORMAL;
	snprintf(info->storage_class, sizeof(info->storage_class), "%.*s", (int)class.len,
		 class.data ? class.data : "");
	info->restoring_or_restored = cst_http_header_get(head, "x-oss-restore").data != NULL;
	info->crc64 = 0;
	info->has_crc64 = crc.len > 0 && crc.len <= 20;
	for (size_t i = 0; i < crc.len && info->has_crc64; i++) {
		info->has_crc64 = crc.data[i] >= '0' && crc.data[i] <= '9';
		info->crc64 = info->crc64 * 10 + (uint64_t)(crc.data[i] - '0');
	}
}

const struct cst_backend cst_backend_oss = {
	.scheme = "oss",
	.meta_prefix = "x-oss-meta-",
	.header_prefix = "x-oss-",
	.request_id = "x-oss-request-id",
	.light_head = true,
	.symlinks = true,
	.appends = true,
	.acl_header = "x-oss-object-acl",
	.permission = "oss:",
	.limits = {.part_min = UINT64_C(100) << 10,
		   .part_max = UINT64_C(5) << 30,
		   .put_max = UINT64_C(5) << 30,
		   .copy_max = UINT64_C(5) << 30,
		   .append_max = UINT64_C(5) << 30,
		   .parts_max = 10000},
	/* Without it a range behind the end is answered with the whole object. */
	.get_headers = "x-oss-range-behavior: standard\r\n",
	.sign = sign_kind,
	.read_info = read_info,
};
