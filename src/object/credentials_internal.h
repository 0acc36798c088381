/* What the credential providers share: secret memory, parsers, the cold HTTP client, and the provider interface.
 *
 * Private to src/object/credentials*.c, provider_*.c, their tests and the fuzz target. A provider is used by one thread at a
 * time (the maker's until the refresh thread starts, then that one), so it needs no locks. Whatever may hold a secret on its
 * way from the source to struct cst_credential lives in secret memory: mapped for itself, locked, left out of core dumps,
 * wiped before it goes back. Error texts name file and line, never what stands there. */
#pragma once

#include "object/credentials.h"

/* ---- secret memory (credentials_secret.c) ---- */

/* Zeroed. Out of memory ends the process. */
void *cst_secret_map(size_t size) __attribute__((returns_nonnull));
void cst_secret_unmap(void *p, size_t size); /* wipes */

/* Sources are small: a bigger one is refused, so that the buffer never moves. */
#define CST_SECRET_SOURCE_MAX (64 * 1024)
struct cst_secret_buf {
	char *data; /* a NUL follows */
	size_t len, cap;
};
void cst_secret_buf_init(struct cst_secret_buf *b, size_t cap);
void cst_secret_buf_fini(struct cst_secret_buf *b);
/* -EFBIG when it does not fit. */
int cst_secret_buf_add(struct cst_secret_buf *b, const void *data, size_t len);
void cst_secret_buf_clear(struct cst_secret_buf *b); /* wipes */
#define CST_AUTO_SECRET CST_CLEANUP(cst_secret_buf_fini) struct cst_secret_buf
static inline struct cst_slice cst_secret_slice(const struct cst_secret_buf *b)
{
	return (struct cst_slice){b->data, b->len};
}

/* ---- one fetch ---- */

struct cst_cred_call {
	int64_t deadline; /* cst_now() clock */
	const int *stop;  /* set (atomically) when the owner wants it over; NULL: never */
};
bool cst_cred_stopped(const struct cst_cred_call *call); /* told to stop, or past the deadline */
/* Sleeps in small steps until then or until stopped; false when stopped. */
bool cst_cred_pause(const struct cst_cred_call *call, int64_t ns);

/* ---- parsers (credentials_parse.c, credentials_ini.c): pure; `name` is what errors call the source ---- */

/* Stores a value in a fixed field: printable ASCII without blanks, since it goes into HTTP headers. line 0: none. */
int cst_cred_set(char *field, size_t size, struct cst_slice value, const char *what, const char *name, unsigned line,
		 struct cst_error *err);
/* [bucket:]ak:sk lines. The bucket's own line wins over the one without a bucket. -ENODATA: neither there. */
int cst_cred_parse_passwd(const char *name, struct cst_slice text, const char *bucket, struct cst_credential *out,
			  struct cst_error *err);
/* The JSON of a credential process, of a metadata service or of STS (inside "Credentials"), or STS's XML. */
int cst_cred_parse_answer(const char *name, struct cst_slice text, struct cst_credential *out, struct cst_error *err);
/* Expiration as ISO time or seconds since 1970. */
int cst_cred_parse_expiry(const char *name, struct cst_slice text, int64_t *expires, struct cst_error *err);

/* The value of a member of the JSON object `text` as it stands there. 0, -ENOENT, -EINVAL (not an object, malformed). The
 * whole text is checked when the member is absent. */
int cst_json_find(struct cst_slice text, const char *key, struct cst_slice *raw);
/* Decodes a string, or copies a number. 0, -EINVAL, -ENOSPC. */
int cst_json_text(struct cst_slice raw, char *out, size_t size);

/* Calls fn for each key = value. An error of fn ends it; fn fills err then. */
typedef int (*cst_ini_fn)(void *arg, struct cst_slice section, struct cst_slice key, struct cst_slice value,
			  unsigned line, struct cst_error *err);
int cst_ini_parse(const char *name, struct cst_slice text, cst_ini_fn fn, void *arg, struct cst_error *err);

/* What one profile of a file says. Lives in secret memory. */
struct cst_cred_profile {
	struct cst_credential keys;
	bool section_found;
	bool anonymous;
	bool keys_v1;  /* keys come from ossutil 1's [Credentials] */
	bool has_role; /* role, or "" = ask */
	char role[512];
	char process[2048];
	char mode[32];
	char unsupported[64]; /* the setting that asks for what isn't there */
	unsigned unsupported_line;
	char endpoint[256], bucket_endpoint[256];
	char region[64], bucket_region[64];
};
/* ossutil 1 and 2. profile NULL: [default] and [Credentials]. */
int cst_cred_parse_ossutil(const char *name, struct cst_slice text, const char *profile, const char *bucket,
			   struct cst_cred_profile *out, struct cst_error *err);
/* AWS credentials file, or config file (whose sections are called "profile NAME"). What is set already stays. */
int cst_cred_parse_aws(const char *name, struct cst_slice text, bool is_config, const char *profile,
		       struct cst_cred_profile *out, struct cst_error *err);

/* ---- files (credentials_file.c) ---- */

/* Reads a whole file in one state: it is read again when it changed meanwhile or changed just before (a rewrite may be under
 * way). -ENOENT and others as open(2); -EFBIG. *mode (may be NULL): its permission bits. */
int cst_cred_read_file(const struct cst_cred_call *call, const char *path, struct cst_secret_buf *out, unsigned *mode,
		       struct cst_error *err);
/* $HOME, or the user's home from the password database, then `rest`. NULL when there is none. */
char *cst_cred_home_path(const char *rest);
/* A variable that is set and not empty, else NULL. */
const char *cst_cred_env(const char *name);

/* Watches files and directories: inotify where it works, comparing stat results always (network file systems, bind mounts). */
struct cst_cred_watch;
struct cst_cred_watch *cst_cred_watch_new(const char *const *paths, size_t count, bool use_inotify);
void cst_cred_watch_free(struct cst_cred_watch *w);
int cst_cred_watch_fd(const struct cst_cred_watch *w); /* -1 without inotify */
bool cst_cred_watch_drain(struct cst_cred_watch *w);   /* reads events; true: one concerned us */
bool cst_cred_watch_changed(struct cst_cred_watch *w); /* compares stat results with those of the last call */

/* ---- cold HTTP (credentials_http.c) ---- */

struct cst_cred_http {
	const char *method; /* GET, PUT, POST */
	const char *url;
	const char *const *headers; /* "Name: value", NULL-terminated; or NULL */
	struct cst_slice body;
	bool direct; /* link-local service: no proxy, short connect timeout */
	const char *ca_file;
};
/* 0 and *status; -errno when there was no answer (err says why). The body replaces what `answer` held. */
int cst_cred_http(const struct cst_cred_call *call, const struct cst_cred_http *req, struct cst_secret_buf *answer,
		  long *status, struct cst_error *err);
/* The URL without user, password and query, for messages. Returns out. */
const char *cst_cred_url_shown(const char *url, char *out, size_t size);

/* ---- providers ---- */

struct cst_cred_provider;
struct cst_cred_provider_ops {
	/* Fills out (zeroed, in secret memory) except generation. */
	int (*fetch)(struct cst_cred_provider *p, const struct cst_cred_call *call, struct cst_credential *out,
		     struct cst_error *err);
	void (*free)(struct cst_cred_provider *p);
};
#define CST_CRED_WATCH_MAX 2
struct cst_cred_provider {
	const struct cst_cred_provider_ops *ops;
	char source[512];
	bool anonymous;
	bool constant;			       /* never changes: no refresh thread needed */
	bool costly;			       /* a fetch costs a request or a process */
	const char *watch[CST_CRED_WATCH_MAX]; /* owned by the provider */
	size_t watch_count;
};

/* Each returns 0 and *out; -ENODATA when its source isn't there at all (the chain goes on, err untouched); else -errno. */
int cst_cred_anonymous_new(struct cst_cred_provider **out);
int cst_cred_static_new(const struct cst_credentials_config *config, struct cst_cred_provider **out,
			struct cst_error *err);
int cst_cred_env_new(const struct cst_credentials_config *config, struct cst_cred_provider **out,
		     struct cst_error *err);
/* path NULL: the usual places. */
int cst_cred_passwd_new(const struct cst_credentials_config *config, const char *path, struct cst_cred_provider **out,
			struct cst_error *err);
int cst_cred_dir_new(const char *path, struct cst_cred_provider **out, struct cst_error *err);
int cst_cred_process_new(const char *command, struct cst_cred_provider **out, struct cst_error *err);
int cst_cred_metadata_new(const struct cst_credentials_config *config, const char *role, struct cst_cred_provider **out,
			  struct cst_error *err);
int cst_cred_oidc_new(const struct cst_credentials_config *config, struct cst_cred_provider **out,
		      struct cst_error *err);
int cst_cred_profile_new(const struct cst_credentials_config *config, struct cst_cred_provider **out,
			 struct cst_error *err);

/* For the tests: how often watched files are compared (10 s), and whether inotify is used. Set before cst_credentials_new. */
extern int64_t cst_cred_poll_interval;
extern bool cst_cred_use_inotify;
