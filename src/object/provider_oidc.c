/* RRSA: a pod's service account token, exchanged at STS for a credential (AssumeRoleWithOIDC). */
#include "object/credentials_internal.h"

#include "base/clock.h"
#include "base/text.h"

#include <errno.h>
#include <sys/random.h>

struct oidc_provider {
	struct cst_cred_provider base;
	char *endpoint, *role_arn, *provider_arn, *token_file, *session, *ca_file;
	struct cst_secret_buf token, form, answer;
};

/* Percent-encodes into secret memory. */
static int form_add(struct cst_secret_buf *form, const char *key, struct cst_slice value)
{
	static const char hex[] = "0123456789ABCDEF";
	int rc = form->len > 0 ? cst_secret_buf_add(form, "&", 1) : 0;
	rc = rc < 0 ? rc : cst_secret_buf_add(form, key, strlen(key));
	rc = rc < 0 ? rc : cst_secret_buf_add(form, "=", 1);
	for (size_t i = 0; rc == 0 && i < value.len; i++) {
		unsigned char ch = (unsigned char)value.data[i];
		bool plain = (ch >= 'A' && ch <= 'Z') || (ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') ||
			     ch == '-' || ch == '.' || ch == '_' || ch == '~';
		char escaped[3] = {'%', hex[ch >> 4], hex[ch & 15]};
		rc = plain ? cst_secret_buf_add(form, &ch, 1) : cst_secret_buf_add(form, escaped, 3);
	}
	return rc;
}

static int make_form(struct oidc_provider *p, struct cst_slice token)
{
	cst_secret_buf_clear(&p->form);
	int rc = form_add(&p->form, "RoleArn", cst_slice_of(p->role_arn));
	rc = rc < 0 ? rc : form_add(&p->form, "OIDCProviderArn", cst_slice_of(p->provider_arn));
	rc = rc < 0 ? rc : form_add(&p->form, "OIDCToken", token);
	rc = rc < 0 ? rc : form_add(&p->form, "RoleSessionName", cst_slice_of(p->session));
	return rc < 0 ? rc : form_add(&p->form, "DurationSeconds", CST_SLICE("3600"));
}

/* Copies a member of STS's error answer if it is a plain short word: anything else could repeat what we sent. */
static void error_word(const struct oidc_provider *p, const char *key, char *out, size_t size)
{
	struct cst_slice raw;
	out[0] = '\0';
	if (cst_json_find(cst_secret_slice(&p->answer), key, &raw) < 0 || cst_json_text(raw, out, size) < 0)
		out[0] = '\0';
	for (char *at = out; *at; at++)
		if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_", *at))
			out[0] = '\0';
}

static int refused(const struct oidc_provider *p, long status, struct cst_error *err)
{
	char code[64], id[64], shown[200];
	error_word(p, "Code", code, sizeof(code));
	error_word(p, "RequestId", id, sizeof(id));
	int number = status == 401 || status == 403 || status == 400 || status == 404 ? EACCES : EIO;
	cst_error_set(err, number, "can't assume the role %s", p->role_arn);
	cst_error_why(err, "%s answered HTTP status %ld%s%s%s%s%s",
		      cst_cred_url_shown(p->endpoint, shown, sizeof(shown)), status, *code ? ", code " : "", code,
		      *id ? " (request id " : "", id, *id ? ")" : "");
	if (number == EACCES)
		cst_error_hint(
			err,
			"check that the role trusts the OIDC provider and this service account, and that the token in %s "
			"is current",
			p->token_file);
	if (err) {
		err->status = (int)status;
		snprintf(err->api, sizeof(err->api), "%s", code);
	}
	return -number;
}

static int ask(struct oidc_provider *p, const struct cst_cred_call *call, struct cst_error *err)
{
	char now[CST_TIME_TEXT];
	uint64_t nonce[2] = {0};
	cst_time_iso(cst_wall() / CST_NS_PER_S, now);
	/* STS wants seconds without a fraction. */
	char *dot = strchr(now, '.');
	if (dot)
		snprintf(dot, sizeof(now) - (size_t)(dot - now), "Z");
	if (getrandom(nonce, sizeof(nonce), 0) < 0)
		nonce[0] = (uint64_t)cst_wall();
	CST_AUTO_BUF time = CST_BUF_INIT;
	cst_text_url_encode(&time, cst_slice_of(now), false);
	CST_AUTO_FREE char *url = cst_xasprintf(
		"%s/?Action=AssumeRoleWithOIDC&Format=JSON&Version=2015-04-01&Timestamp=%s&SignatureNonce=%016llx%016llx",
		p->endpoint, time.data, (unsigned long long)nonce[0], (unsigned long long)nonce[1]);
	const char *headers[] = {"Content-Type: application/x-www-form-urlencoded", "Accept: application/json", NULL};
	struct cst_cred_http req = {.method = "POST",
				    .url = url,
				    .headers = headers,
				    .body = cst_secret_slice(&p->form),
				    .ca_file = p->ca_file};
	for (int tries = 0;; tries++) {
		long status = 0;
		int rc = cst_cred_http(call, &req, &p->answer, &status, err);
		if (rc == 0 && status == 200)
			return 0;
		bool again = rc == -ECONNREFUSED || (rc == 0 && (status >= 500 || status == 429));
		if (!again || tries == 2 || !cst_cred_pause(call, (200 << tries) * CST_NS_PER_MS))
			return rc < 0 ? rc : refused(p, status, err);
	}
}

static int oidc_fetch(struct cst_cred_provider *base, const struct cst_cred_call *call, struct cst_credential *out,
		      struct cst_error *err)
{
	struct oidc_provider *p = cst_container_of(base, struct oidc_provider, base);
	int rc = cst_cred_read_file(call, p->token_file, &p->token, NULL, err);
	if (rc < 0) {
		cst_error_wrap(err, "can't read the OIDC token %s", p->token_file);
	} else {
		struct cst_slice token = cst_secret_slice(&p->token);
		while (token.len > 0 && (unsigned char)token.data[token.len - 1] <= ' ')
			token.len--;
		rc = token.len > 0 ? make_form(p, token) : -EINVAL;
		if (rc < 0) {
			cst_error_set(err, -rc, "can't use the OIDC token in %s", p->token_file);
			cst_error_why(err, "%s", token.len > 0 ? "it is too long" : "the file is empty");
			cst_error_hint(err, "check that the service account token is mounted there");
		}
	}
	if (rc == 0)
		rc = ask(p, call, err);
	if (rc == 0)
		rc = cst_cred_parse_answer("STS", cst_secret_slice(&p->answer), out, err);
	cst_secret_buf_clear(&p->token);
	cst_secret_buf_clear(&p->form);
	cst_secret_buf_clear(&p->answer);
	return rc;
}

static void oidc_free(struct cst_cred_provider *base)
{
	struct oidc_provider *p = cst_container_of(base, struct oidc_provider, base);
	char *owned[] = {p->endpoint, p->role_arn, p->provider_arn, p->token_file, p->session, p->ca_file};
	for (size_t i = 0; i < CST_ARRAY_LEN(owned); i++)
		free(owned[i]);
	cst_secret_buf_fini(&p->token);
	cst_secret_buf_fini(&p->form);
	cst_secret_buf_fini(&p->answer);
	free(p);
}

static const struct cst_cred_provider_ops oidc_ops = {oidc_fetch, oidc_free};

static bool given(const char *s)
{
	return s && *s;
}

static const char *or_env(const char *value, const char *variable)
{
	return given(value) ? value : cst_cred_env(variable);
}

static char *endpoint_url(const struct cst_credentials_config *config)
{
	const char *named = or_env(config->sts_endpoint, "ALIBABA_CLOUD_STS_ENDPOINT");
	const char *region = cst_cred_env("ALIBABA_CLOUD_STS_REGION");
	char *url;
	if (named)
		url = strstr(named, "://") ? cst_xstrdup(named) : cst_xasprintf("https://%s", named);
	else if (region)
		url = cst_xasprintf("https://sts%s.%s.aliyuncs.com",
				    cst_cred_env("ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED") ? "-vpc" : "", region);
	else
		url = cst_xstrdup("https://sts.aliyuncs.com");
	for (size_t len = strlen(url); len > 0 && url[len - 1] == '/'; len--)
		url[len - 1] = '\0';
	return url;
}

static int incomplete(struct cst_error *err, const char *what, const char *variable)
{
	cst_error_set(err, EINVAL, "can't use RRSA");
	cst_error_why(err, "the %s is not given", what);
	cst_error_hint(err, "set %s; in a cluster, label the pod and annotate its service account for RRSA", variable);
	return -EINVAL;
}

int cst_cred_oidc_new(const struct cst_credentials_config *config, struct cst_cred_provider **out,
		      struct cst_error *err)
{
	const char *role = or_env(config->role_arn, "ALIBABA_CLOUD_ROLE_ARN");
	const char *provider = or_env(config->oidc_provider_arn, "ALIBABA_CLOUD_OIDC_PROVIDER_ARN");
	const char *file = or_env(config->oidc_token_file, "ALIBABA_CLOUD_OIDC_TOKEN_FILE");
	const char *session = cst_cred_env("ALIBABA_CLOUD_ROLE_SESSION_NAME");
	bool named = given(config->role_arn) || given(config->oidc_provider_arn) || given(config->oidc_token_file);
	/* A role alone may be meant for other tools; the token file is what RRSA puts into a pod. */
	if (!named && (!role || !file))
		return -ENODATA;
	if (!role)
		return incomplete(err, "role ARN", "ALIBABA_CLOUD_ROLE_ARN");
	if (!provider)
		return incomplete(err, "ARN of the OIDC provider", "ALIBABA_CLOUD_OIDC_PROVIDER_ARN");
	if (!file)
		return incomplete(err, "token file", "ALIBABA_CLOUD_OIDC_TOKEN_FILE");
	struct oidc_provider *p = CST_NEW(struct oidc_provider);
	p->base.ops = &oidc_ops;
	p->base.costly = true;
	p->endpoint = endpoint_url(config);
	p->role_arn = cst_xstrdup(role);
	p->provider_arn = cst_xstrdup(provider);
	p->token_file = cst_xstrdup(file);
	p->session = session ? cst_xstrdup(session) : cst_xasprintf("cistern-%d", (int)getpid());
	p->ca_file = config->ca_file && *config->ca_file ? cst_xstrdup(config->ca_file) : NULL;
	cst_secret_buf_init(&p->token, CST_SECRET_SOURCE_MAX);
	cst_secret_buf_init(&p->form, CST_SECRET_SOURCE_MAX * 3 + 8192);
	cst_secret_buf_init(&p->answer, CST_SECRET_SOURCE_MAX);
	snprintf(p->base.source, sizeof(p->base.source), "RRSA role %s", role);
	*out = &p->base;
	return 0;
}
