/* ossfs's passwd file: [bucket:]ak:sk lines, readable by nobody else. */
#include "object/credentials_internal.h"

#include <errno.h>
#include <sys/stat.h>

struct passwd_provider {
	struct cst_cred_provider base;
	char *path;
	char *bucket;
	struct cst_secret_buf text;
};

/* ossfs's rules: others have no rights, the group may read at most, nobody may execute. */
static int check_mode(const char *path, unsigned mode, struct cst_error *err)
{
	const char *why = NULL;
	if (mode & S_IRWXO)
		why = "everyone";
	else if (mode & (S_IWGRP | S_IXGRP))
		why = "the group";
	else if (mode & S_IXUSR)
		why = "the owner (to execute)";
	if (!why)
		return 0;
	cst_error_set(err, EACCES, "can't use the credentials in %s", path);
	cst_error_why(err, "its mode is %04o, which gives %s rights that a file of secrets must not give", mode, why);
	cst_error_hint(err, "chmod 600 %s (or 640)", path);
	return -EACCES;
}

static int passwd_fetch(struct cst_cred_provider *base, const struct cst_cred_call *call, struct cst_credential *out,
			struct cst_error *err)
{
	struct passwd_provider *p = cst_container_of(base, struct passwd_provider, base);
	unsigned mode;
	int rc = cst_cred_read_file(call, p->path, &p->text, &mode, err);
	if (rc == 0)
		rc = check_mode(p->path, mode, err);
	if (rc == 0)
		rc = cst_cred_parse_passwd(p->path, cst_secret_slice(&p->text), p->bucket, out, err);
	cst_secret_buf_clear(&p->text);
	if (rc == -ENODATA) {
		cst_error_set(err, ENOKEY, "can't find credentials in %s", p->path);
		cst_error_why(err, "it has no entry for bucket %s and none for all buckets",
			      p->bucket ? p->bucket : "(none)");
		cst_error_hint(err, "add a line %s:ACCESS_KEY_ID:ACCESS_KEY_SECRET", p->bucket ? p->bucket : "BUCKET");
		return -ENOKEY;
	}
	return rc;
}

static void passwd_free(struct cst_cred_provider *base)
{
	struct passwd_provider *p = cst_container_of(base, struct passwd_provider, base);
	cst_secret_buf_fini(&p->text);
	free(p->path);
	free(p->bucket);
	free(p);
}

static const struct cst_cred_provider_ops passwd_ops = {passwd_fetch, passwd_free};

static struct cst_cred_provider *make(const struct cst_credentials_config *config, char *owned_path)
{
	struct passwd_provider *p = CST_NEW(struct passwd_provider);
	p->base.ops = &passwd_ops;
	p->path = owned_path;
	p->bucket = config->bucket && *config->bucket ? cst_xstrdup(config->bucket) : NULL;
	cst_secret_buf_init(&p->text, CST_SECRET_SOURCE_MAX);
	snprintf(p->base.source, sizeof(p->base.source), "%s", owned_path);
	p->base.watch[0] = p->path;
	p->base.watch_count = 1;
	return &p->base;
}

/* The usual places, if there is a file: ~/.passwd-ossfs goes before /etc/passwd-ossfs. */
static int find_usual(const struct cst_credentials_config *config, struct cst_cred_provider **out)
{
	char *places[] = {cst_cred_home_path(".passwd-ossfs"), cst_xstrdup("/etc/passwd-ossfs")};
	for (size_t i = 0; i < CST_ARRAY_LEN(places); i++)
		if (places[i] && !*out && access(places[i], F_OK) == 0)
			*out = make(config, cst_steal(places[i]));
	for (size_t i = 0; i < CST_ARRAY_LEN(places); i++)
		free(places[i]);
	return *out ? 0 : -ENODATA;
}

int cst_cred_passwd_new(const struct cst_credentials_config *config, const char *path, struct cst_cred_provider **out,
			struct cst_error *err)
{
	struct stat st;
	*out = NULL;
	if (!path)
		return find_usual(config, out);
	/* Kubernetes mounts rotating keys as a directory, which ossfs takes under this name. */
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return cst_cred_dir_new(path, out, err);
	*out = make(config, cst_xstrdup(path));
	return 0;
}
