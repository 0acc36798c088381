/* The role of the instance we run on, from the metadata service of ECS or EC2. Both speak the same protocol with other names:
 * a session token by PUT, then GETs that carry it. A service that knows no token call (404, 403, 405) is asked without. */
#define CST_LOG_AREA "credentials"
#include "object/credentials_internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <strings.h>

struct service {
	const char *name; /* for messages */
	const char *endpoint;
	const char *ttl_header, *token_header;
	const char *role_path;
};

static const struct service ecs = {
	"ECS RAM role",
	"http://100.100.100.200",
	"X-aliyun-ecs-metadata-token-ttl-seconds: 21600",
	"X-aliyun-ecs-metadata-token",
	"/latest/meta-data/ram/security-credentials/",
};
static const struct service ec2 = {
	"EC2 instance role",
	"http://169.254.169.254",
	"X-aws-ec2-metadata-token-ttl-seconds: 21600",
	"X-aws-ec2-metadata-token",
	"/latest/meta-data/iam/security-credentials/",
};

struct metadata_provider {
	struct cst_cred_provider base;
	const struct service *service;
	char *endpoint;
	char *role;		     /* NULL: ask */
	char *url;		     /* given whole by the user (then endpoint and role are not used) */
	struct cst_secret_buf token; /* the header line with the session token; empty: none needed */
	bool token_known;
	struct cst_secret_buf answer;
};

static int request(struct metadata_provider *p, const struct cst_cred_call *call, const struct cst_cred_http *req,
		   long *status, struct cst_error *err)
{
	for (int tries = 0;; tries++) {
		int rc = cst_cred_http(call, req, &p->answer, status, err);
		bool again = rc == -ECONNREFUSED || (rc == 0 && (*status >= 500 || *status == 429));
		if (!again || tries == 2 || !cst_cred_pause(call, (200 << tries) * CST_NS_PER_MS))
			return rc;
	}
}

static int unexpected(const char *name, const char *url, long status, struct cst_error *err)
{
	char shown[200];
	int code = status == 404 ? ENOENT : status == 401 || status == 403 ? EACCES : EIO;
	cst_error_set(err, code, "can't get the credentials of the %s", name);
	cst_error_why(err, "%s answered HTTP status %ld", cst_cred_url_shown(url, shown, sizeof(shown)), status);
	if (status == 404)
		cst_error_hint(err, "attach the role to this instance, and check its name");
	if (err)
		err->status = (int)status;
	return -code;
}

static int get_token(struct metadata_provider *p, const struct cst_cred_call *call, struct cst_error *err)
{
	CST_AUTO_FREE char *url = cst_xasprintf("%s/latest/api/token", p->endpoint);
	const char *headers[] = {p->service->ttl_header, NULL};
	struct cst_cred_http req = {.method = "PUT", .url = url, .headers = headers, .direct = true};
	long status;
	int rc = request(p, call, &req, &status, err);
	if (rc < 0) {
		if (rc == -ETIMEDOUT || rc == -ECONNREFUSED || rc == -EHOSTUNREACH)
			cst_error_hint(
				err,
				"this works on an instance with a role only; elsewhere name another source of keys");
		return rc;
	}
	cst_secret_buf_clear(&p->token);
	if (status == 404 || status == 403 || status == 405) {
		cst_log_debug("the metadata service knows no session tokens (status %ld)", status);
		p->token_known = true;
		return 0;
	}
	if (status != 200)
		return unexpected(p->url ? "key service" : p->service->name, url, status, err);
	for (size_t i = 0; i < p->answer.len; i++)
		if ((unsigned char)p->answer.data[i] <= ' ' || (unsigned char)p->answer.data[i] >= 0x7f)
			p->answer.len = i;
	rc = cst_secret_buf_add(&p->token, p->service->token_header, strlen(p->service->token_header));
	rc = rc < 0 ? rc : cst_secret_buf_add(&p->token, ": ", 2);
	rc = rc < 0 ? rc : cst_secret_buf_add(&p->token, p->answer.data, p->answer.len);
	if (rc < 0)
		return cst_error_set(err, EIO, "the metadata service gave a session token that is too long");
	p->token_known = true;
	return 0;
}

/* GET into p->answer; a session token that has ended (401) is renewed once. */
static int get(struct metadata_provider *p, const struct cst_cred_call *call, const char *url, struct cst_error *err)
{
	for (int tries = 0;; tries++) {
		int rc = p->endpoint && !p->token_known ? get_token(p, call, err) : 0;
		if (rc < 0)
			return rc;
		const char *headers[] = {p->token.len > 0 ? p->token.data : NULL, NULL};
		struct cst_cred_http req = {.method = "GET", .url = url, .headers = headers, .direct = true};
		long status;
		rc = request(p, call, &req, &status, err);
		if (rc < 0)
			return rc;
		if (status == 200)
			return 0;
		if (status != 401 || tries > 0 || p->token.len == 0)
			return unexpected(p->url ? "key service" : p->service->name, url, status, err);
		p->token_known = false;
	}
}

static int discover_role(struct metadata_provider *p, const struct cst_cred_call *call, char *role, size_t size,
			 struct cst_error *err)
{
	CST_AUTO_FREE char *url = cst_xasprintf("%s%s", p->endpoint, p->service->role_path);
	int rc = get(p, call, url, err);
	if (rc < 0)
		return rc;
	struct cst_slice rest = cst_secret_slice(&p->answer);
	struct cst_slice name = cst_slice_trim(cst_slice_cut(&rest, '\n'));
	if (name.len > 0 && name.data[name.len - 1] == '\r')
		name.len--;
	return cst_cred_set(role, size, name, "role name", "the metadata service", 0, err);
}

static int metadata_fetch(struct cst_cred_provider *base, const struct cst_cred_call *call, struct cst_credential *out,
			  struct cst_error *err)
{
	struct metadata_provider *p = cst_container_of(base, struct metadata_provider, base);
	char role[256];
	int rc = 0;
	snprintf(role, sizeof(role), "%s", p->role ? p->role : "");
	if (!p->url && !p->role)
		rc = discover_role(p, call, role, sizeof(role), err);
	if (rc == 0) {
		CST_AUTO_FREE char *url = p->url ? cst_xstrdup(p->url)
						 : cst_xasprintf("%s%s%s", p->endpoint, p->service->role_path, role);
		rc = get(p, call, url, err);
	}
	if (rc == 0)
		rc = cst_cred_parse_answer("the metadata service", cst_secret_slice(&p->answer), out, err);
	cst_secret_buf_clear(&p->answer);
	if (rc == 0 && !p->url)
		snprintf(base->source, sizeof(base->source), "%s %s", p->service->name, role);
	return rc;
}

static void metadata_free(struct cst_cred_provider *base)
{
	struct metadata_provider *p = cst_container_of(base, struct metadata_provider, base);
	cst_secret_buf_fini(&p->token);
	cst_secret_buf_fini(&p->answer);
	free(p->endpoint);
	free(p->role);
	free(p->url);
	free(p);
}

static const struct cst_cred_provider_ops metadata_ops = {metadata_fetch, metadata_free};

static int bad_role(const char *why, struct cst_error *err)
{
	cst_error_set(err, EINVAL, "can't use this instance role");
	cst_error_why(err, "%s", why);
	cst_error_hint(err, "give the role's name, or the http:// address that answers with its credentials");
	return -EINVAL;
}

static bool is_url(const char *s)
{
	return strncasecmp(s, "http://", 7) == 0 || strncasecmp(s, "https://", 8) == 0;
}

/* Metadata services are asked with a session token; another address that the user gave is not. */
static char *origin_of_service(const char *url, const struct service *service, const char *endpoint)
{
	size_t len = strlen(service->endpoint);
	if (strncmp(url, service->endpoint, len) == 0 && (url[len] == '/' || url[len] == ':'))
		return cst_xstrndup(url, len + strcspn(url + len, "/"));
	len = endpoint ? strlen(endpoint) : 0;
	if (len > 0 && strncmp(url, endpoint, len) == 0 && url[len] == '/')
		return cst_xstrdup(endpoint);
	return NULL;
}

int cst_cred_metadata_new(const struct cst_credentials_config *config, const char *role, struct cst_cred_provider **out,
			  struct cst_error *err)
{
	const struct service *service = config->cloud == CST_CLOUD_S3 ? &ec2 : &ecs;
	const char *endpoint =
		config->metadata_endpoint && *config->metadata_endpoint ? config->metadata_endpoint : NULL;
	char shown[200];
	if (strlen(role) > 255 && !is_url(role))
		return bad_role("the name has more than 255 characters", err);
	for (const char *at = role; *at; at++)
		if ((unsigned char)*at <= ' ' || (!is_url(role) && strchr("/?#%", *at)))
			return bad_role("the name has a blank or a character that no role has", err);
	struct metadata_provider *p = CST_NEW(struct metadata_provider);
	p->base.ops = &metadata_ops;
	p->base.costly = true;
	p->service = service;
	cst_secret_buf_init(&p->token, 4096);
	cst_secret_buf_init(&p->answer, CST_SECRET_SOURCE_MAX);
	if (is_url(role)) {
		p->url = cst_xstrdup(role);
		p->endpoint = origin_of_service(role, service, endpoint);
		snprintf(p->base.source, sizeof(p->base.source), "credentials of %s",
			 cst_cred_url_shown(role, shown, sizeof(shown)));
	} else {
		p->endpoint = cst_xstrdup(endpoint ? endpoint : service->endpoint);
		p->role = *role && strcmp(role, "auto") != 0 ? cst_xstrdup(role) : NULL;
		snprintf(p->base.source, sizeof(p->base.source), "%s %s", service->name, role);
	}
	for (size_t len = p->endpoint ? strlen(p->endpoint) : 0; len > 0 && p->endpoint[len - 1] == '/'; len--)
		p->endpoint[len - 1] = '\0';
	*out = &p->base;
	return 0;
}
