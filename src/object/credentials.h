/* Where credentials come from and how they are kept fresh.
 *
 * A cst_credentials object owns one provider and a current credential; a refresh thread renews it ahead of its expiry
 * (5 minutes, at most half its life), watches files for rotation, and serves forced renewals after a 403. While the source
 * fails, the old credential goes on being served and the source is asked again with growing pauses. Reading the current one
 * never waits for a source. Thread safe. Secrets are kept in locked memory that is wiped when replaced and excluded from core
 * dumps; doc/credentials.md says what that covers. */
#pragma once

#include "base/error.h"
#include "object/sign.h"

#include <string.h>

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
	const char *passwd_file; /* ossfs 1.0: [bucket:]ak:sk, mode 0600 or 0640 required; a directory: as secret_dir */
	const char *secret_dir;	 /* files akId, akSecret | AccessKeyId, AccessKeySecret, SecurityToken, Expiration */
	const char *process; /* external command printing JSON {AccessKeyId,AccessKeySecret,SecurityToken,Expiration} */
	const char *ram_role; /* instance role name, "" = ask the metadata service which, or a URL as ossfs allows */
	const char *role_arn, *oidc_provider_arn, *oidc_token_file; /* RRSA; what is NULL comes from its variable */
	const char *sts_endpoint;   /* https://sts.REGION.aliyuncs.com; NULL: sts.aliyuncs.com */
	const char *ossutil_config; /* path; NULL: ~/.ossutilconfig */
	const char *profile;	    /* AWS profile, or section of the ossutil file */
	const char *ca_file;
	const char *metadata_endpoint; /* NULL: http://100.100.100.200 (OSS), http://169.254.169.254 (S3) */
};

/* Finds the provider and fetches once, so that a bad source is an error here with its own words. Blocks (up to 10 s). */
struct cst_credentials *cst_credentials_new(const struct cst_credentials_config *config, struct cst_error *err);
/* Renewals under way end with -ECANCELED before this returns. */
void cst_credentials_free(struct cst_credentials *c);
bool cst_credentials_anonymous(const struct cst_credentials *c);
/* Copies the current credential. Never blocks. The copy is the caller's to wipe (cst_credential_wipe). */
void cst_credentials_get(struct cst_credentials *c, struct cst_credential *out);
static inline void cst_credential_wipe(struct cst_credential *cred)
{
	explicit_bzero(cred, sizeof(*cred));
}
/* The generation of the current credential: tells whether a derived key is still good without copying the secret. */
uint64_t cst_credentials_generation(struct cst_credentials *c);
/* A request signed with `generation` was refused: renew unless that has happened since. done(arg, rc) is called once, on any
 * thread (maybe before this returns): 0 = the current credential differs from `generation` now; -EACCES = the source still gives
 * the same one; other -errno = the source failed. Concurrent callers share one fetch, and a source that costs a request or a
 * process and has just given the same credential again is not asked more than once in 10 s. */
void cst_credentials_renew(struct cst_credentials *c, uint64_t generation, void (*done)(void *arg, int rc), void *arg);
/* "ECS RAM role demo", "environment": for messages and `stats`. */
const char *cst_credentials_source(const struct cst_credentials *c);

/* The endpoint and the region that the environment (OSS_ENDPOINT, OSS_REGION, AWS_ENDPOINT_URL_S3, AWS_REGION, …) or the
 * profile files (~/.ossutilconfig, ~/.aws/config) hold for config->bucket; "" where they say nothing. 0, or -errno when a file
 * that was named is missing or any of them is malformed. Reads files; no threads. */
int cst_credentials_profile_endpoint(const struct cst_credentials_config *config, char *endpoint, size_t endpoint_size,
				     char *region, size_t region_size, struct cst_error *err);

/* Keeps this process's memory out of core dumps and away from other processes of the same user: excludes all anonymous memory
 * from dumps (coredump_filter) and clears the dumpable flag, so the kernel writes no core at all, ptrace needs CAP_SYS_PTRACE
 * and /proc/PID/environ and mem belong to root. Programs that hold credentials call it at their start, and again after a
 * setuid or exec. Not undone. */
void cst_process_hide_secrets(void);
