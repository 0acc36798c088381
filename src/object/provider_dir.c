/* A directory of secret files, as Kubernetes mounts a Secret. All files are read in one state: Kubernetes swaps a directory
 * link ("..data"), so one descriptor of its target sees one version; loose files are read
 * again until none of them changed a moment ago. */
#include "object/credentials_internal.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define SETTLE_NS (250 * CST_NS_PER_MS)
#define STEP_NS (50 * CST_NS_PER_MS)

struct dir_provider {
	struct cst_cred_provider base;
	char *path;
	struct cst_secret_buf text;
};

/* Reads one file; *newest becomes the latest change seen (wall clock, ns). 0, -ENOENT, or -errno with err set. */
static int read_one(struct dir_provider *p, int dir, const char *file, int64_t *newest, struct cst_error *err)
{
	struct stat st;
	cst_secret_buf_clear(&p->text);
	CST_AUTO_CLOSE int fd = openat(dir, file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	ssize_t n = fd < 0 || fstat(fd, &st) < 0 ? -1 : read(fd, p->text.data, p->text.cap);
	if (n < 0) {
		int code = errno;
		cst_error_set(err, code, "can't read credentials from %s/%s", p->path, file);
		cst_error_why(err, "%s", strerror(code));
		cst_error_hint(err, "%s", code == EACCES ? "run as a user who may read it, or change its owner" : "");
		return -code;
	}
	p->text.len = (size_t)n;
	p->text.data[n] = '\0';
	*newest = cst_max(*newest, (int64_t)st.st_ctim.tv_sec * CST_NS_PER_S + st.st_ctim.tv_nsec);
	return 0;
}

/* Editors and `echo` leave a newline at the end. */
static struct cst_slice content(const struct dir_provider *p)
{
	struct cst_slice s = cst_secret_slice(&p->text);
	while (s.len > 0 && (s.data[s.len - 1] == '\n' || s.data[s.len - 1] == '\r' || s.data[s.len - 1] == ' '))
		s.len--;
	return s;
}

static int read_field(struct dir_provider *p, int dir, const char *first, const char *second, char *field, size_t size,
		      int64_t *newest, struct cst_error *err)
{
	const char *file = first;
	int rc = read_one(p, dir, file, newest, err);
	if (rc == -ENOENT && second)
		rc = read_one(p, dir, file = second, newest, err);
	if (rc == 0) {
		char name[300];
		snprintf(name, sizeof(name), "%s/%s", p->path, file);
		rc = cst_cred_set(field, size, content(p), "value", name, 0, err);
	} else if (rc == -ENOENT && second) {
		cst_error_set(err, ENOENT, "can't read credentials from %s", p->path);
		cst_error_why(err, "it has neither a file %s nor a file %s", first, second);
		cst_error_hint(err,
			       "the directory needs the files AccessKeyId and AccessKeySecret (or akId and akSecret)");
	}
	cst_secret_buf_clear(&p->text);
	return rc;
}

static int read_all(struct dir_provider *p, int dir, struct cst_credential *out, int64_t *newest, struct cst_error *err)
{
	int rc = read_field(p, dir, "AccessKeyId", "akId", out->access_key, sizeof(out->access_key), newest, err);
	if (rc == 0)
		rc = read_field(p, dir, "AccessKeySecret", "akSecret", out->secret_key, sizeof(out->secret_key), newest,
				err);
	if (rc == 0) {
		rc = read_one(p, dir, "SecurityToken", newest, err);
		if (rc == 0 && content(p).len > 0)
			rc = cst_cred_set(out->token, sizeof(out->token), content(p), "value", "SecurityToken", 0, err);
		rc = rc == -ENOENT ? 0 : rc;
	}
	if (rc == 0) {
		rc = read_one(p, dir, "Expiration", newest, err);
		if (rc == 0 && content(p).len > 0)
			rc = cst_cred_parse_expiry("Expiration", content(p), &out->expires, err);
		rc = rc == -ENOENT ? 0 : rc;
		if (rc < 0)
			cst_error_wrap(err, "can't read credentials from %s", p->path);
	}
	cst_secret_buf_clear(&p->text);
	return rc;
}

/* One reading. *atomic: the files came from one version of a Kubernetes volume. */
static int read_once(struct dir_provider *p, struct cst_credential *out, int64_t *newest, bool *atomic,
		     struct cst_error *err)
{
	CST_AUTO_CLOSE int top = open(p->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (top < 0) {
		int code = errno;
		cst_error_set(err, code, "can't read credentials from %s", p->path);
		cst_error_why(err, "%s", strerror(code));
		cst_error_hint(
			err, "name a directory with the files AccessKeyId and AccessKeySecret (or akId and akSecret)");
		return -code;
	}
	CST_AUTO_CLOSE int data = openat(top, "..data", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cst_credential_wipe(out);
	*atomic = data >= 0;
	return read_all(p, data >= 0 ? data : top, out, newest, err);
}

static int dir_fetch(struct cst_cred_provider *base, const struct cst_cred_call *call, struct cst_credential *out,
		     struct cst_error *err)
{
	struct dir_provider *p = cst_container_of(base, struct dir_provider, base);
	int64_t give_up = cst_now() + 3 * CST_NS_PER_S;
	for (;;) {
		int64_t newest = 0;
		bool atomic = false;
		int rc = read_once(p, out, &newest, &atomic, err);
		/* The old version of the volume is removed while it is read: the new one is there already. */
		bool vanished = rc == -ENOENT && atomic;
		/* A rewrite of loose files may be half done when one of them changed a moment ago. */
		int64_t age = cst_wall() - newest;
		bool settled = atomic || age < 0 || age > SETTLE_NS;
		if ((!vanished && settled) || cst_now() > give_up || !cst_cred_pause(call, STEP_NS))
			return rc;
	}
}

static void dir_free(struct cst_cred_provider *base)
{
	struct dir_provider *p = cst_container_of(base, struct dir_provider, base);
	cst_secret_buf_fini(&p->text);
	free(p->path);
	free(p);
}

static const struct cst_cred_provider_ops dir_ops = {dir_fetch, dir_free};

int cst_cred_dir_new(const char *path, struct cst_cred_provider **out, struct cst_error *err)
{
	(void)err;
	struct dir_provider *p = CST_NEW(struct dir_provider);
	p->base.ops = &dir_ops;
	p->path = cst_xstrdup(path);
	cst_secret_buf_init(&p->text, CST_SECRET_SOURCE_MAX);
	snprintf(p->base.source, sizeof(p->base.source), "secret directory %s", path);
	p->base.watch[0] = p->path;
	p->base.watch_count = 1;
	*out = &p->base;
	return 0;
}
