#define CST_LOG_AREA "mount"
#include "cli/access.h"

#include "base/log.h"
#include "cli/mount_options.h"

#include <errno.h>
#include <strings.h>
#include <unistd.h>

#define LOOPS_MAX 4 /* two already fill 10 Gbit/s; more would only divide the connections */

static int conflict(struct cst_error *err, const char *a, const char *b)
{
	cst_error_set(err, EINVAL, "%s and %s contradict each other", a, b);
	cst_error_hint(err, "leave one of them out");
	return -EINVAL;
}

static int resolve_signature(struct cst_access *a, const struct cst_mount_options *o, struct cst_error *err)
{
	static const enum cst_sign_kind kinds[] = {CST_SIGN_NONE, CST_SIGN_OSS_V1, CST_SIGN_OSS_V4};
	static const enum cst_addressing addressings[] = {CST_ADDRESS_AUTO, CST_ADDRESS_VIRTUAL, CST_ADDRESS_PATH,
							  CST_ADDRESS_CNAME};
	if (o->sigv1 && o->sigv4)
		return conflict(err, "sigv1", "sigv4");
	a->sign = kinds[o->signature];
	if (o->sigv1)
		a->sign = CST_SIGN_OSS_V1;
	if (o->sigv4)
		a->sign = CST_SIGN_OSS_V4;
	if (a->url.cloud == CST_CLOUD_S3)
		a->sign = CST_SIGN_NONE;
	a->addressing = addressings[o->addressing];
	if (o->path_style && a->addressing != CST_ADDRESS_AUTO && a->addressing != CST_ADDRESS_PATH)
		return conflict(err, "path_style", "addressing");
	if (o->path_style)
		a->addressing = CST_ADDRESS_PATH;
	return 0;
}

static bool said(const char *text)
{
	return text && text[0] != '\0';
}

/* Endpoint and region of the environment and the profile files. For OSS a region that the user named says better than they where
 * its endpoint is, and an endpoint that the user named has nothing to do with their region. */
static int resolve_profile(const struct cst_access *a, struct cst_mount_options *o, char *endpoint, size_t size,
			   struct cst_error *err)
{
	char region[64];
	bool wanted = a->url.cloud == CST_CLOUD_S3 ? !said(o->endpoint) || !said(o->region)
						   : !said(o->endpoint) && !said(o->region);
	if (!wanted)
		return 0;
	struct cst_credentials_config config = {.cloud = a->url.cloud,
						.bucket = a->url.bucket,
						.ossutil_config = o->ossutil_config,
						.profile = o->profile};
	int rc = cst_credentials_profile_endpoint(&config, endpoint, size, region, sizeof(region), err);
	if (rc == 0 && !said(o->region) && said(region)) {
		free(o->region);
		o->region = cst_xstrdup(region);
	}
	return rc;
}

static int resolve_endpoint(struct cst_access *a, struct cst_mount_options *o, bool ossfs, struct cst_error *err)
{
	char found[512] = "";
	int rc = resolve_profile(a, o, found, sizeof(found), err);
	if (rc != 0)
		return rc;
	const char *endpoint = said(o->endpoint) ? o->endpoint : said(found) ? found : NULL;
	if (!endpoint && a->url.cloud == CST_CLOUD_OSS)
		endpoint = getenv("OSS_ENDPOINT");
	if (said(endpoint)) {
		bool http = ossfs && !strstr(endpoint, "://");
		a->endpoint = cst_xasprintf("%s%s", http ? "http://" : "", endpoint);
	} else if (a->url.cloud == CST_CLOUD_OSS && said(o->region)) {
		a->endpoint = cst_xasprintf("https://oss-%s.aliyuncs.com",
					    strncmp(o->region, "oss-", 4) == 0 ? o->region + 4 : o->region);
	} else if (ossfs) {
		a->endpoint = cst_xstrdup("http://oss-cn-hangzhou.aliyuncs.com"); /* what ossfs 1.0 does */
	} else if (a->url.cloud == CST_CLOUD_OSS) {
		cst_error_set(err, EINVAL, "no endpoint was named for %s", a->source);
		cst_error_why(err, "OSS has one in each region");
		cst_error_hint(
			err,
			"give --endpoint https://oss-REGION.aliyuncs.com, or --region REGION, or run ossutil config");
		return -EINVAL;
	}
	return 0;
}

int cst_access_resolve(struct cst_access *a, struct cst_mount_options *o, bool ossfs, struct cst_error *err)
{
	int rc = resolve_signature(a, o, err);
	return rc ? rc : resolve_endpoint(a, o, ossfs, err);
}

void cst_access_name(struct cst_access *a)
{
	CST_AUTO_BUF text = CST_BUF_INIT;
	cst_url_text(&a->url, &text);
	free(a->source);
	a->source = cst_buf_steal(&text);
}

void cst_access_fini(struct cst_access *a)
{
	free(a->source);
	free(a->endpoint);
	*a = (struct cst_access){0};
}

void cst_access_forget_secrets(struct cst_mount_options *o)
{
	char *secrets[] = {o->access_key_secret, o->security_token};
	for (size_t i = 0; i < CST_ARRAY_LEN(secrets); i++)
		if (secrets[i])
			explicit_bzero(secrets[i], strlen(secrets[i]));
}

/* ---- the layers ---- */

static int make_credentials(struct cst_link *link, const struct cst_access *a, const struct cst_mount_options *o,
			    struct cst_error *err)
{
	struct cst_credentials_config config = {
		.cloud = a->url.cloud,
		.bucket = a->url.bucket,
		.anonymous = o->anonymous,
		.access_key = o->access_key_id,
		.secret_key = o->access_key_secret,
		.token = o->security_token,
		.passwd_file = o->passwd_file,
		.secret_dir = o->secret_dir,
		.process = o->credential_process,
		.ram_role = o->ram_role,
		.role_arn = o->role_arn,
		.oidc_provider_arn = o->oidc_provider_arn,
		.oidc_token_file = o->oidc_token_file,
		.sts_endpoint = o->sts_endpoint,
		.ossutil_config = o->ossutil_config,
		.profile = o->profile,
		.ca_file = o->ca,
		.metadata_endpoint = o->metadata_endpoint,
	};
	link->credentials = cst_credentials_new(&config, err);
	if (link->credentials || !link->last)
		return link->credentials ? 0 : -1;
	char text[CST_ERROR_TEXT_MAX];
	cst_log_warn("%s; the credential of before is used", cst_error_text(err, text, sizeof(text)));
	struct cst_credentials_config kept = {.cloud = a->url.cloud,
					      .bucket = a->url.bucket,
					      .access_key = link->last->access_key,
					      .secret_key = link->last->secret_key,
					      .token = link->last->token[0] ? link->last->token : NULL};
	link->credentials = cst_credentials_new(&kept, err);
	return link->credentials ? 0 : -1;
}

static int make_bucket(struct cst_link *link, const struct cst_access *a, const struct cst_mount_options *o,
		       struct cst_error *err)
{
	struct cst_bucket_config config = {
		.cloud = a->url.cloud,
		.bucket = a->url.bucket,
		.endpoint = a->endpoint,
		.region = said(o->region) ? o->region : NULL,
		.sign = a->sign,
		.addressing = a->addressing,
		.credentials = link->credentials,
		.http = link->http,
		.request_timeout = o->request_timeout,
		.deadline = o->deadline,
		.max_attempts = o->given.retries ? (unsigned)o->retries + 1 : 0,
		.bandwidth = o->origin_bandwidth,
		.upload_bandwidth = o->upload_bandwidth,
		.requests = (double)o->origin_requests,
		.hedge = o->hedge,
	};
	link->bucket = cst_bucket_new(&config, err);
	int rc = link->bucket ? cst_bucket_probe(link->bucket, cst_slice_of(a->url.prefix), err) : -1;
	if (rc == 0 || !link->bucket || !link->resumes)
		return rc;
	char text[CST_ERROR_TEXT_MAX];
	cst_log_warn("%s; going on all the same", cst_error_text(err, text, sizeof(text)));
	return 0;
}

int cst_link_open(struct cst_link *link, const struct cst_access *a, const struct cst_mount_options *o,
		  struct cst_error *err)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	link->loops = cst_loop_group_new("data", cores < 1 ? 1 : (unsigned)cst_min(cores, (long)LOOPS_MAX), err);
	if (!link->loops)
		return -1;
	struct cst_http_client_config http = {.loops = link->loops,
					      .ca_file = o->ca,
					      .max_connections = (unsigned)o->max_connections,
					      .connect_timeout = o->connect_timeout,
					      .use_proxy_env = true};
	link->http = cst_http_client_new(&http, err);
	if (!link->http || make_credentials(link, a, o, err) != 0)
		return -1;
	return make_bucket(link, a, o, err);
}

void cst_link_close(struct cst_link *link)
{
	if (link->bucket)
		cst_bucket_free(link->bucket);
	if (link->http)
		cst_http_client_free(link->http);
	if (link->credentials)
		cst_credentials_free(link->credentials);
	if (link->loops)
		cst_loop_group_free(link->loops);
	*link = (struct cst_link){0};
}
