/* Where a bucket is: host, addressing style and region out of what the user wrote. Pure functions; any thread. */
#pragma once

#include "base/error.h"
#include "object/object.h"

#define CST_REGION_MAX 64
struct cst_endpoint {
	struct cst_http_origin origin; /* of the requests: with the bucket in front for virtual hosts */
	char host[272];		       /* the Host header: with the port unless it is the scheme's own */
	char url[300];		       /* "https://host:port" without the bucket, for people */
	char region[CST_REGION_MAX];   /* "" unknown */
	bool path_style;	       /* "/BUCKET/KEY" */
};
/* addressing AUTO: as object.h says; also path style for a host name without dots. -EINVAL with err. */
int cst_endpoint_parse(const struct cst_bucket_config *config, struct cst_endpoint *out, struct cst_error *err);
/* The region that a service's host name tells ("oss-cn-hangzhou-internal.aliyuncs.com" → cn-hangzhou); false: none. */
bool cst_endpoint_region(enum cst_cloud cloud, const char *host, char region[CST_REGION_MAX]);
