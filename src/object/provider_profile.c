/* Profiles of other tools' files: ossutil's (generation 1 and 2) and those of the AWS tools. A profile holds keys, or names
 * where to get them (an instance role, a process); then that provider does the work. The files are read again for each
 * renewal, since the user may have changed what the profile says. */
#include "object/credentials_internal.h"

#include <errno.h>
#include <sys/stat.h>

struct profile_provider {
	struct cst_cred_provider base;
	enum cst_cloud cloud;
	char *path, *config_path; /* config_path: the second file (AWS); NULL: none */
	bool path_named;	  /* by the user: it must be there */
	char *profile;		  /* NULL: the default one */
	char *bucket, *metadata_endpoint;
	struct cst_secret_buf text;
	struct cst_cred_profile *found;	 /* secret memory */
	struct cst_cred_provider *inner; /* where the profile says the keys are; NULL: in the file */
	char inner_name[2100];
};

static const char *given(const char *s)
{
	return s && *s ? s : NULL;
}

/* Reads one file into p->found. A file that nobody named may be missing. */
static int read_one(struct profile_provider *p, const struct cst_cred_call *call, const char *path, bool is_config,
		    struct cst_error *err)
{
	struct stat st;
	if (!path || (!p->path_named && stat(path, &st) < 0 && (errno == ENOENT || errno == ENOTDIR)))
		return 0;
	int rc = cst_cred_read_file(call, path, &p->text, NULL, err);
	if (rc == 0 && p->cloud == CST_CLOUD_OSS)
		rc = cst_cred_parse_ossutil(path, cst_secret_slice(&p->text), p->profile, p->bucket, p->found, err);
	else if (rc == 0)
		rc = cst_cred_parse_aws(path, cst_secret_slice(&p->text), is_config, p->profile, p->found, err);
	cst_secret_buf_clear(&p->text);
	return rc;
}

static int read_profile(struct profile_provider *p, const struct cst_cred_call *call, struct cst_error *err)
{
	explicit_bzero(p->found, sizeof(*p->found));
	int rc = read_one(p, call, p->path, false, err);
	if (rc == 0 && p->config_path)
		rc = read_one(p, call, p->config_path, true, err);
	return rc;
}

static int not_usable(const struct profile_provider *p, int code, struct cst_error *err, const char *why,
		      const char *hint)
{
	cst_error_set(err, code, "can't use the credentials of profile %s in %s", p->profile ? p->profile : "default",
		      p->path);
	cst_error_why(err, "%s", why);
	cst_error_hint(err, "%s", hint);
	return -code;
}

/* Keeps one provider for what the profile names, as long as it names the same. */
static int delegate(struct profile_provider *p, const char *kind, const char *argument, struct cst_error *err)
{
	char name[sizeof(p->inner_name)];
	snprintf(name, sizeof(name), "%s %s", kind, argument);
	if (p->inner && strcmp(name, p->inner_name) == 0)
		return 0;
	if (p->inner)
		p->inner->ops->free(p->inner);
	p->inner = NULL;
	struct cst_credentials_config config = {.cloud = p->cloud, .metadata_endpoint = p->metadata_endpoint};
	int rc = *kind == 'p' ? cst_cred_process_new(argument, &p->inner, err)
			      : cst_cred_metadata_new(&config, argument, &p->inner, err);
	if (rc == 0)
		memcpy(p->inner_name, name, sizeof(name));
	return rc;
}

static int use_inner(struct profile_provider *p, const struct cst_cred_call *call, struct cst_credential *out,
		     struct cst_error *err)
{
	int rc = p->inner->ops->fetch(p->inner, call, out, err);
	p->base.costly = true;
	snprintf(p->base.source, sizeof(p->base.source), "%.200s (%.300s)", p->path, p->inner->source);
	return rc;
}

static int profile_fetch(struct cst_cred_provider *base, const struct cst_cred_call *call, struct cst_credential *out,
			 struct cst_error *err)
{
	struct profile_provider *p = cst_container_of(base, struct profile_provider, base);
	struct cst_cred_profile *f = p->found;
	int rc = read_profile(p, call, err);
	if (rc < 0)
		return rc;
	base->costly = false;
	base->anonymous = f->anonymous;
	bool role_mode = strcmp(f->mode, "ecsramrole") == 0;
	if (f->anonymous)
		return 0;
	if (strcmp(f->mode, "process") == 0 && !f->process[0])
		return not_usable(p, EINVAL, err, "mode is Process, but there is no credential-process",
				  "add the command");
	if ((f->keys.access_key[0] != 0) != (f->keys.secret_key[0] != 0))
		return not_usable(p, EINVAL, err,
				  f->keys.access_key[0] ? "the key's ID is there, its secret is not"
							: "the key's secret is there, its ID is not",
				  "fill in both");
	if (f->unsupported[0]) {
		char why[128];
		snprintf(why, sizeof(why), "line %u: %s is not supported", f->unsupported_line, f->unsupported);
		return not_usable(p, ENOTSUP, err, why,
				  "let credential_process call the tool that can, or name another source");
	}
	if (f->keys.access_key[0] && !role_mode && strcmp(f->mode, "process") != 0) {
		*out = f->keys;
		return 0;
	}
	if (f->process[0] && !role_mode)
		rc = delegate(p, "process", f->process, err);
	else if (f->has_role)
		rc = delegate(p, "role", f->role, err);
	else if (!f->section_found && p->profile)
		return not_usable(p, ENOKEY, err, "there is no such profile", "check its name");
	else
		return not_usable(p, ENOKEY, err, "it holds no access key", "add one, or name another source");
	return rc < 0 ? rc : use_inner(p, call, out, err);
}

static void profile_free(struct cst_cred_provider *base)
{
	struct profile_provider *p = cst_container_of(base, struct profile_provider, base);
	if (p->inner)
		p->inner->ops->free(p->inner);
	cst_secret_buf_fini(&p->text);
	cst_secret_unmap(p->found, sizeof(*p->found));
	free(p->path);
	free(p->config_path);
	free(p->profile);
	free(p->bucket);
	free(p->metadata_endpoint);
	free(p);
}

static const struct cst_cred_provider_ops profile_ops = {profile_fetch, profile_free};

static char *dup_given(const char *s)
{
	return given(s) ? cst_xstrdup(s) : NULL;
}

static char *path_of(const char *variable, const char *in_home)
{
	const char *named = variable ? cst_cred_env(variable) : NULL;
	return named ? cst_xstrdup(named) : cst_cred_home_path(in_home);
}

static struct profile_provider *make(const struct cst_credentials_config *config)
{
	struct profile_provider *p = CST_NEW(struct profile_provider);
	p->base.ops = &profile_ops;
	/* A named ossutil file is one, whatever the store speaks. */
	p->cloud = given(config->ossutil_config) ? CST_CLOUD_OSS : config->cloud;
	p->bucket = dup_given(config->bucket);
	p->profile = dup_given(config->profile);
	p->metadata_endpoint = dup_given(config->metadata_endpoint);
	cst_secret_buf_init(&p->text, CST_SECRET_SOURCE_MAX);
	p->found = cst_secret_map(sizeof(*p->found));
	if (p->cloud == CST_CLOUD_OSS) {
		p->path_named = given(config->ossutil_config) != NULL;
		p->path = p->path_named ? cst_xstrdup(config->ossutil_config) : cst_cred_home_path(".ossutilconfig");
	} else {
		const char *profile = cst_cred_env("AWS_PROFILE");
		if (!p->profile)
			p->profile = cst_xstrdup(profile ? profile : "default");
		p->path = path_of("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials");
		p->config_path = path_of("AWS_CONFIG_FILE", ".aws/config");
	}
	if (p->path)
		p->base.watch[p->base.watch_count++] = p->path;
	if (p->config_path)
		p->base.watch[p->base.watch_count++] = p->config_path;
	snprintf(p->base.source, sizeof(p->base.source), "%s%s%s%s", p->path ? p->path : "", p->profile ? " [" : "",
		 p->profile ? p->profile : "", p->profile ? "]" : "");
	return p;
}

/* Whether the default files say anything about credentials; else the chain goes on. */
static int probe(struct profile_provider *p, struct cst_error *err)
{
	struct cst_cred_call call = {.deadline = INT64_MAX};
	int rc = p->path ? read_profile(p, &call, err) : -ENODATA;
	struct cst_cred_profile *f = p->found;
	if (rc == 0 && !f->keys.access_key[0] && !f->keys.secret_key[0] && !f->has_role && !f->process[0] &&
	    !f->anonymous && !f->unsupported[0])
		rc = -ENODATA;
	return rc;
}

int cst_cred_profile_new(const struct cst_credentials_config *config, struct cst_cred_provider **out,
			 struct cst_error *err)
{
	struct profile_provider *p = make(config);
	bool named = given(config->ossutil_config) || given(config->profile) ||
		     (p->cloud == CST_CLOUD_S3 && cst_cred_env("AWS_PROFILE"));
	int rc = named && p->path ? 0 : probe(p, err);
	if (rc < 0)
		profile_free(&p->base);
	else
		*out = &p->base;
	return rc;
}

/* ---- endpoint and region ---- */

static int copy_out(char *out, size_t size, const char *value, const char *what, struct cst_error *err)
{
	int n = snprintf(out, size, "%s", value);
	if (n >= 0 && (size_t)n < size)
		return 0;
	cst_error_set(err, EINVAL, "can't use the %s of the profile", what);
	cst_error_why(err, "it is longer than %zu characters", size - 1);
	return -EINVAL;
}

static const char *first_set(const char *const *names)
{
	const char *value = NULL;
	for (; !value && *names; names++)
		value = cst_cred_env(*names);
	return value;
}

int cst_credentials_profile_endpoint(const struct cst_credentials_config *config, char *endpoint, size_t endpoint_size,
				     char *region, size_t region_size, struct cst_error *err)
{
	static const char *const oss_endpoint[] = {"OSS_ENDPOINT", NULL}, *const oss_region[] = {"OSS_REGION", NULL};
	static const char *const s3_endpoint[] = {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", NULL};
	static const char *const s3_region[] = {"AWS_REGION", "AWS_DEFAULT_REGION", NULL};
	bool s3 = config->cloud == CST_CLOUD_S3;
	struct cst_cred_call call = {.deadline = INT64_MAX};
	struct profile_provider *p = make(config);
	struct cst_cred_profile *f = p->found;
	endpoint[0] = region[0] = '\0';
	int rc = p->path ? read_profile(p, &call, err) : 0;
	const char *env_endpoint = first_set(s3 ? s3_endpoint : oss_endpoint);
	const char *env_region = first_set(s3 ? s3_region : oss_region);
	/* What is said of this very bucket goes before what is said of all. */
	const char *e = f->bucket_endpoint[0] ? f->bucket_endpoint : env_endpoint ? env_endpoint : f->endpoint;
	const char *r = f->bucket_region[0] ? f->bucket_region : env_region ? env_region : f->region;
	if (rc == 0)
		rc = copy_out(endpoint, endpoint_size, e, "endpoint", err);
	if (rc == 0)
		rc = copy_out(region, region_size, r, "region", err);
	profile_free(&p->base);
	return rc;
}
