#include "cache/volume.h"

#include <errno.h>
#include <fcntl.h>

#define VOLUME_MAGIC 0x564f4c55u

struct cst_volume {
	unsigned magic;
	int dir;
	char *path;
};

struct cst_volume *cst_volume_open(const struct cst_volume_config *config, struct cst_error *err)
{
	int dir = open(config->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		cst_error_set(err, errno, "can't open the cache directory %s", config->path);
		return NULL;
	}
	struct cst_volume *v = CST_NEW(struct cst_volume);
	v->magic = VOLUME_MAGIC;
	v->dir = dir;
	v->path = cst_xstrdup(config->path);
	return v;
}

void cst_volume_close(struct cst_volume *v)
{
	CST_CHECK(v, VOLUME_MAGIC);
	close(v->dir);
	free(v->path);
	free(v);
}

bool cst_volume_is_owner(const struct cst_volume *v)
{
	CST_CHECK(v, VOLUME_MAGIC);
	return false;
}

int cst_volume_dir(const struct cst_volume *v)
{
	return v->dir;
}

const char *cst_volume_path(const struct cst_volume *v)
{
	return v->path;
}

void cst_volume_fail(struct cst_volume *v, int rc, const char *what)
{
	(void)rc;
	(void)what;
	CST_CHECK(v, VOLUME_MAGIC);
}

static void not_there(cst_volume_open_fn fn, void *arg)
{
	struct cst_volume_answer answer = {.rc = -ENOENT};
	fn(arg, &answer);
}

void cst_volume_entry_open(struct cst_volume *v, const struct cst_cache_identity *id, unsigned flags,
			   cst_volume_open_fn fn, void *arg)
{
	(void)id;
	(void)flags;
	CST_CHECK(v, VOLUME_MAGIC);
	not_there(fn, arg);
}

void cst_volume_entry_close(struct cst_volume_handle *h)
{
	(void)h;
}

void cst_volume_charge(struct cst_volume_handle *h, int64_t bytes, cst_volume_done_fn fn, void *arg)
{
	(void)h;
	(void)bytes;
	if (fn)
		fn(arg, -EAGAIN);
}

void cst_volume_complete(struct cst_volume_handle *h, bool verify, cst_volume_done_fn fn, void *arg)
{
	(void)h;
	(void)verify;
	fn(arg, -EAGAIN);
}

void cst_volume_put(struct cst_volume *v, const struct cst_cache_identity *id, unsigned flags, const struct iovec *iov,
		    int iov_count, cst_volume_open_fn fn, void *arg)
{
	(void)id;
	(void)flags;
	(void)iov;
	(void)iov_count;
	CST_CHECK(v, VOLUME_MAGIC);
	not_there(fn, arg);
}

void cst_volume_touch(struct cst_volume_handle *h)
{
	(void)h;
}

void cst_volume_drop_entry(struct cst_volume_handle *h)
{
	(void)h;
}

int cst_volume_list(struct cst_volume *v, uint64_t *cursor, struct cst_index_entry *entries, unsigned max)
{
	(void)cursor;
	(void)entries;
	(void)max;
	CST_CHECK(v, VOLUME_MAGIC);
	return 0;
}

int cst_volume_drop(struct cst_volume *v, const struct cst_index_entry *entry)
{
	(void)entry;
	CST_CHECK(v, VOLUME_MAGIC);
	return -ENOENT;
}

int cst_volume_set_pin(struct cst_volume *v, const struct cst_index_entry *entry, bool pin)
{
	(void)pin;
	return cst_volume_drop(v, entry);
}

int cst_volume_pin_rule(struct cst_volume *v, const char *prefix, bool add)
{
	(void)prefix;
	(void)add;
	CST_CHECK(v, VOLUME_MAGIC);
	return -EAGAIN;
}

int cst_volume_pin_rules(struct cst_volume *v, struct cst_buf *out)
{
	cst_buf_clear(out);
	return cst_volume_pin_rule(v, "", false);
}

int cst_volume_stats(struct cst_volume *v, struct cst_index_stats *stats)
{
	CST_CHECK(v, VOLUME_MAGIC);
	*stats = (struct cst_index_stats){0};
	return 0;
}
