/* Pin rules: prefixes of "BUCKET/KEY". DIR/pins holds them with a NUL after each and is replaced as a whole. */
#include "cache/index_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define PINS "pins"
#define PINS_NEW "pins.new"
#define PINS_LIMIT (16u << 20) /* bytes */

static void rule_add(struct cst_index *x, const char *prefix)
{
	x->rules = cst_xrealloc(x->rules, (x->rule_count + 1) * sizeof(*x->rules));
	x->rules[x->rule_count++] = (struct pin_rule){cst_xstrdup(prefix), strlen(prefix)};
}

static int read_all(int fd, struct cst_buf *text)
{
	for (;;) {
		ssize_t n = read(fd, cst_buf_room(text, 65536), 65536);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		text->len += (size_t)n;
		if (text->len > PINS_LIMIT)
			return -EFBIG;
	}
}

int pins_load(struct cst_index *x, struct cst_error *err)
{
	CST_AUTO_BUF text = CST_BUF_INIT;
	CST_AUTO_CLOSE int fd = openat(x->dir, PINS, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && errno == ENOENT)
		return 0;
	int rc = fd < 0 ? -errno : read_all(fd, &text);
	if (rc < 0) {
		cst_error_set(err, -rc, "can't read what is pinned in the cache (" PINS ")");
		cst_error_why(err, "%s", strerror(-rc));
		return rc;
	}
	for (size_t i = 0; i < text.len;) {
		size_t len = strnlen(text.data + i, text.len - i);
		if (i + len < text.len) /* one without its NUL is a stranger's */
			rule_add(x, text.data + i);
		i += len + 1;
	}
	return 0;
}

bool pins_match_locked(const struct cst_index *x, const struct cst_cache_identity *id)
{
	for (unsigned i = 0; i < x->rule_count; i++) {
		struct cst_slice rule = {x->rules[i].prefix, x->rules[i].len};
		if (rule.len <= id->bucket.len) {
			if (cst_slice_starts(id->bucket, rule))
				return true;
			continue;
		}
		struct cst_slice rest = {rule.data + id->bucket.len + 1, rule.len - id->bucket.len - 1};
		if (cst_slice_starts(rule, id->bucket) && rule.data[id->bucket.len] == '/' &&
		    cst_slice_starts(id->key, rest))
			return true;
	}
	return false;
}

static int save(struct cst_index *x)
{
	CST_AUTO_BUF text = CST_BUF_INIT;
	cst_index_pin_rules(x, &text);
	if (text.len > PINS_LIMIT) /* pins_load() would refuse it */
		return -EFBIG;
	CST_AUTO_CLOSE int fd = openat(x->dir, PINS_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	for (size_t done = 0; done < text.len;) {
		ssize_t n = write(fd, text.data + done, text.len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (size_t)n;
	}
	return fsync(fd) < 0 || renameat(x->dir, PINS_NEW, x->dir, PINS) < 0 || fsync(x->dir) < 0 ? -errno : 0;
}

/* Returns whether anything changed. */
static bool change_locked(struct cst_index *x, const char *prefix, bool add)
{
	for (unsigned i = 0; i < x->rule_count; i++) {
		if (strcmp(x->rules[i].prefix, prefix) != 0)
			continue;
		if (!add) {
			free(x->rules[i].prefix);
			x->rules[i] = x->rules[--x->rule_count];
		}
		return !add;
	}
	if (add)
		rule_add(x, prefix);
	return add;
}

int cst_index_pin_rule(struct cst_index *x, const char *prefix, bool add)
{
	CST_CHECK(x, INDEX_MAGIC);
	pthread_mutex_lock(&x->pin_io);
	pthread_mutex_lock(&x->lock);
	int rc = x->rc;
	bool changed = !rc && change_locked(x, prefix, add);
	pthread_mutex_unlock(&x->lock);
	if (changed)
		rc = save(x);
	if (rc < 0 && changed) {
		pthread_mutex_lock(&x->lock);
		change_locked(x, prefix, !add);
		pthread_mutex_unlock(&x->lock);
	}
	pthread_mutex_unlock(&x->pin_io);
	if (index_is_disk_failure(rc))
		index_fail(x, rc, "saving what is pinned");
	return rc;
}

void cst_index_pin_rules(struct cst_index *x, struct cst_buf *out)
{
	CST_CHECK(x, INDEX_MAGIC);
	pthread_mutex_lock(&x->lock);
	for (unsigned i = 0; i < x->rule_count; i++)
		cst_buf_add(out, x->rules[i].prefix, x->rules[i].len + 1);
	pthread_mutex_unlock(&x->lock);
}

void pins_fini(struct cst_index *x)
{
	for (unsigned i = 0; i < x->rule_count; i++)
		free(x->rules[i].prefix);
	free(x->rules);
}
