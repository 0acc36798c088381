/* Credentials that are there from the start: given by a configuration file, or by the environment; and none at all. */
#include "object/credentials_internal.h"

#include <errno.h>

struct static_provider {
	struct cst_cred_provider base;
	struct cst_credential *keys; /* secret memory; NULL: anonymous */
};

static int static_fetch(struct cst_cred_provider *base, const struct cst_cred_call *call, struct cst_credential *out,
			struct cst_error *err)
{
	(void)call, (void)err;
	struct static_provider *p = cst_container_of(base, struct static_provider, base);
	if (p->keys)
		*out = *p->keys;
	return 0;
}

static void static_free(struct cst_cred_provider *base)
{
	struct static_provider *p = cst_container_of(base, struct static_provider, base);
	if (p->keys)
		cst_secret_unmap(p->keys, sizeof(*p->keys));
	free(p);
}

static const struct cst_cred_provider_ops static_ops = {static_fetch, static_free};

static struct static_provider *static_new(const char *source)
{
	struct static_provider *p = CST_NEW(struct static_provider);
	p->base.ops = &static_ops;
	p->base.constant = true;
	snprintf(p->base.source, sizeof(p->base.source), "%s", source);
	return p;
}

int cst_cred_anonymous_new(struct cst_cred_provider **out)
{
	struct static_provider *p = static_new("anonymous");
	p->base.anonymous = true;
	*out = &p->base;
	return 0;
}

/* The names say in errors where each value came from. */
struct triple {
	const char *id_name, *secret_name, *token_name;
	const char *id, *secret, *token;
};

static int triple_new(const char *source, const struct triple *t, struct cst_cred_provider **out, struct cst_error *err)
{
	if (!t->id || !t->secret) {
		cst_error_set(err, EINVAL, "can't use the credentials of the %s", source);
		cst_error_why(err, "%s is set, but %s is not", t->id ? t->id_name : t->secret_name,
			      t->id ? t->secret_name : t->id_name);
		cst_error_hint(err, "set both, or neither");
		return -EINVAL;
	}
	struct static_provider *p = static_new(source);
	p->keys = cst_secret_map(sizeof(*p->keys));
	struct cst_credential *k = p->keys;
	int rc = cst_cred_set(k->access_key, sizeof(k->access_key), cst_slice_of(t->id), t->id_name, source, 0, err);
	if (rc == 0)
		rc = cst_cred_set(k->secret_key, sizeof(k->secret_key), cst_slice_of(t->secret), t->secret_name, source,
				  0, err);
	if (rc == 0 && t->token)
		rc = cst_cred_set(k->token, sizeof(k->token), cst_slice_of(t->token), t->token_name, source, 0, err);
	if (rc < 0)
		static_free(&p->base);
	else
		*out = &p->base;
	return rc;
}

static const char *given(const char *s)
{
	return s && *s ? s : NULL;
}

int cst_cred_static_new(const struct cst_credentials_config *config, struct cst_cred_provider **out,
			struct cst_error *err)
{
	struct triple t = {"the access key ID",	      "the access key secret",	 "the security token",
			   given(config->access_key), given(config->secret_key), given(config->token)};
	if (!t.id && !t.secret)
		return -ENODATA;
	return triple_new("configuration", &t, out, err);
}

int cst_cred_env_new(const struct cst_credentials_config *config, struct cst_cred_provider **out, struct cst_error *err)
{
	static const char *const names[][4] = {
		{"OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET", "OSS_SESSION_TOKEN", "oss"},
		{"ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_SECURITY_TOKEN",
		 "oss"},
		{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "s3"},
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(names); i++) {
		const char *const *n = names[i];
		if ((config->cloud == CST_CLOUD_S3) != (strcmp(n[3], "s3") == 0))
			continue;
		struct triple t = {n[0], n[1], n[2], cst_cred_env(n[0]), cst_cred_env(n[1]), cst_cred_env(n[2])};
		if (t.id || t.secret)
			return triple_new("environment", &t, out, err);
	}
	return -ENODATA;
}
