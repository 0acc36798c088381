/* URLs of buckets as users write them: oss://BUCKET[/PREFIX], s3://BUCKET[/PREFIX], and ossfs 1.0's BUCKET[:/PATH]. Pure
 * functions. Fuzzed. */
#pragma once

#include "base/error.h"
#include "object/credentials.h"

#define CST_KEY_MAX 1023 /* bytes of an object's key */

struct cst_url {
	enum cst_cloud cloud;
	char bucket[64];
	char prefix[CST_KEY_MAX + 1]; /* "" or "a/b/", as cst_fs_config wants it; the bytes as written */
};

/* Does the text begin like one (oss://, s3://, in any case)? */
bool cst_url_is(const char *text);
/* -EINVAL with err. */
int cst_url_parse(const char *text, struct cst_url *url, struct cst_error *err);
/* "bucket", "bucket:/", "bucket:/a/b" */
int cst_url_parse_ossfs(const char *text, struct cst_url *url, struct cst_error *err);
/* "oss://bucket": the name by which the cache knows it. */
void cst_url_bucket_text(const struct cst_url *url, char *out, size_t size);
/* Checks a bucket's name and copies it. */
int cst_url_set_bucket(struct cst_url *url, struct cst_slice name, struct cst_error *err);
/* Takes leading slashes away, adds the one at the end. */
int cst_url_set_prefix(struct cst_url *url, struct cst_slice prefix, struct cst_error *err);
/* "oss://bucket/a/b" */
void cst_url_text(const struct cst_url *url, struct cst_buf *out);
