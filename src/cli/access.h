/* Which store an option set means, and the layers that lead to it: loops, HTTP client, credentials, bucket. Shared by the commands that talk
 * to a store (mount, load); their options are access_options.def. Used by the command's main thread. */
#pragma once

#include "cli/url.h"
#include "object/object.h"

struct cst_mount_options;

struct cst_access {
	struct cst_url url;
	char *source; /* "oss://bucket/prefix" */
	enum cst_sign_kind sign;
	enum cst_addressing addressing;
	char *endpoint; /* NULL: the cloud's own, from the region */
};
/* Works out source, signature, addressing and endpoint of a->url; may fill in the region. ossfs: where it says nothing, as that program does.
 * -EINVAL with err. */
int cst_access_resolve(struct cst_access *a, struct cst_mount_options *o, bool ossfs, struct cst_error *err);
void cst_access_name(struct cst_access *a); /* source, from url */
void cst_access_fini(struct cst_access *a);
/* Overwrites the secrets as soon as the credentials object has them. */
void cst_access_forget_secrets(struct cst_mount_options *o);

struct cst_link {
	/* Set by the caller: a process before this one has used the bucket, so that a store that doesn't answer now is no error; and the credential
	 * it used last, for when the source has gone. */
	bool resumes;
	const struct cst_credential *last;
	struct cst_loop_group *loops;
	struct cst_http_client *http;
	struct cst_credentials *credentials;
	struct cst_bucket *bucket;
};
/* Blocks: also checks that the bucket answers. Not 0: err tells, and what was made is there for cst_link_close(). */
int cst_link_open(struct cst_link *link, const struct cst_access *a, const struct cst_mount_options *o,
		  struct cst_error *err);
void cst_link_close(struct cst_link *link);
