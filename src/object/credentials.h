/* Where credentials come from and how they are kept fresh.
 *
 * A cst_credentials object owns one provider and a current credential; a refresh thread renews it ahead of its expiry
 * (at least 60 s, at most half its life), watches files for rotation, and serves forced renewals after a 403. Reading the
 * current one never blocks. Thread safe. Secrets are wiped from memory when replaced and excluded from core dumps. */
#pragma once

#include "base/error.h"
#include "object/sign.h"

struct cst_credentials;

enum cst_cloud { CST_CLOUD_OSS, CST_CLOUD_S3 };

/* What the user gave; all strings may be NULL. The first that is set, in the order of this list, decides; with none set the
 * chain is: environment, RRSA variables, profile files (~/.ossutilconfig for OSS, ~/.aws for S3), ~/.passwd-ossfs and
 * /etc/passwd-ossfs (OSS). */
struct cst_credentials_config {
	enum cst_cloud cloud;
	const char *bucket; /* for [bucket:]ak:sk lines */
	bool anonymous;
	const char *access_key, *secret_key, *token; /* from a config file, never from argv */
	const char *passwd_file;		     /* ossfs 1.0: [bucket:]ak:sk, mode 0600 or 0640 required */
	const char *secret_dir;			     /* files akId, akSecret | AccessKeyId, AccessKeySecret, SecurityToken, Expiration */
	const char *process;			     /* external command printing JSON {AccessKeyId,AccessKeySecret,SecurityToken,Expiration} */
	const char *ram_role;			     /* ECS RAM role name, "" = ask the metadata service which, or a URL as ossfs allows */
	const char *role_arn, *oidc_provider_arn, *oidc_token_file; /* RRSA */
	const char *sts_endpoint;				    /* https://sts.REGION.aliyuncs.com; NULL: sts.aliyuncs.com */
	const char *ossutil_config;				    /* path; NULL: ~/.ossutilconfig */
	const char *profile;					    /* AWS profile, or section of the ossutil file */
	const char *ca_file;
	const char *metadata_endpoint; /* NULL: http://100.100.100.200 */
};

/* Finds the provider and fetches once, so that a bad source is an error here with its own words. Blocks (up to 10 s). */
struct cst_credentials *cst_credentials_new(const struct cst_credentials_config *config, struct cst_error *err);
void cst_credentials_free(struct cst_credentials *c);
bool cst_credentials_anonymous(const struct cst_credentials *c);
/* Copies the current credential. Never blocks. */
void cst_credentials_get(struct cst_credentials *c, struct cst_credential *out);
/* A request signed with `generation` was refused: renew unless that has happened since. done(arg, rc) is called once, on any
 * thread (maybe before this returns): 0 = the current credential differs from `generation` now; -EACCES = the source still gives
 * the same one; other -errno = the source failed. */
void cst_credentials_renew(struct cst_credentials *c, uint64_t generation, void (*done)(void *arg, int rc), void *arg);
/* "ECS RAM role demo", "environment": for messages and `stats`. */
const char *cst_credentials_source(const struct cst_credentials *c);
