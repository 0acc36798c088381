#include "store/list.h"

#include "store/tree.h"

#include <errno.h>
#include <fcntl.h>

struct level {
	struct cst_scan *scan;
	size_t index;		  /* the entry to look at next */
	size_t key_len, path_len; /* what the levels above contribute */
};

struct cursor {
	struct cst_scan_cache *scans;
	int bucket;
	const struct cst_list_query *query;
	struct level *levels;
	size_t depth, room;
	struct cst_buf key, path; /* of the current entry */
	bool is_prefix;		  /* it is a directory that the delimiter rolls up */
};

enum seek_mode { SEEK_AFTER, SEEK_AFTER_PREFIX, SEEK_AT };

static void cursor_fini(struct cursor *c)
{
	while (c->depth)
		cst_scan_put(c->levels[--c->depth].scan);
	free(c->levels);
	cst_buf_fini(&c->key);
	cst_buf_fini(&c->path);
}

/* Goes into the directory that key and path name now. A directory that has gone is empty. */
static int push(struct cursor *c)
{
	struct level level = {.key_len = c->key.len, .path_len = c->path.len};
	int rc = cst_scan_get(c->scans, c->bucket, c->path.len ? c->path.data : ".", &level.scan);

	/* Beyond the longest path there are no keys, only files that nobody can ask for. */
	if (rc)
		return rc == -ENOENT || rc == -ENAMETOOLONG ? 0 : rc;
	if (c->depth == c->room) {
		c->room = c->room ? c->room * 2 : 8;
		c->levels = cst_xrealloc(c->levels, c->room * sizeof(*c->levels));
	}
	c->levels[c->depth++] = level;
	return 0;
}

static void truncate_buf(struct cst_buf *b, size_t len)
{
	if (b->data) {
		b->len = len;
		b->data[len] = '\0';
	}
}

/* Makes key and path those of entry `i` of the last level. */
static void set_entry(struct cursor *c, const struct level *level, size_t i)
{
	truncate_buf(&c->key, level->key_len);
	cst_buf_add_slice(&c->key, cst_scan_sort_key(level->scan, i));
	truncate_buf(&c->path, level->path_len);
	if (c->path.len)
		cst_buf_add_char(&c->path, '/');
	cst_buf_add_slice(&c->path, cst_scan_path(level->scan, i));
}

static int compare(struct cst_slice a, struct cst_slice b)
{
	size_t len = cst_min(a.len, b.len);
	int order = len ? memcmp(a.data, b.data, len) : 0;

	return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* Does the entry lie before what is sought? A directory whose keys may lie on both sides counts as before. */
static bool is_before(struct cst_slice entry, struct cst_slice bound, enum seek_mode mode)
{
	if (mode == SEEK_AFTER_PREFIX)
		return cst_slice_starts(entry, bound) || compare(entry, bound) < 0;
	if (mode == SEEK_AT)
		return compare(entry, bound) < 0;
	return compare(entry, bound) <= 0;
}

static size_t lower_bound(const struct cst_scan *scan, struct cst_slice bound, enum seek_mode mode)
{
	size_t low = 0;
	size_t high = scan->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (is_before(cst_scan_sort_key(scan, mid), bound, mode))
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* The directory, if any, that holds keys on both sides of the bound: its "NAME/" begins the bound. It is the last entry
 * that isn't behind the bound, since no component has a slash in it. */
static bool straddles(const struct cst_scan *scan, size_t at, struct cst_slice bound, enum seek_mode mode)
{
	struct cst_slice entry;

	if (at == 0 || scan->entries[at - 1].kind != CST_SCAN_DIR)
		return false;
	entry = cst_scan_sort_key(scan, at - 1);
	if (mode == SEEK_AFTER_PREFIX && entry.len == bound.len)
		return false; /* all of it begins with the bound */
	return cst_slice_starts(bound, entry);
}

static int seek(struct cursor *c, struct cst_slice bound, enum seek_mode mode)
{
	int rc;

	while (c->depth)
		cst_scan_put(c->levels[--c->depth].scan);
	truncate_buf(&c->key, 0);
	truncate_buf(&c->path, 0);
	for (;;) {
		size_t depth = c->depth;
		struct level *level;

		rc = push(c);
		if (rc || c->depth == depth)
			return rc;
		level = &c->levels[depth];
		level->index = lower_bound(level->scan, bound, mode);
		if (!straddles(level->scan, level->index, bound, mode))
			return 0;
		set_entry(c, level, level->index - 1);
		bound.data += level->scan->entries[level->index - 1].len;
		bound.len -= level->scan->entries[level->index - 1].len;
	}
}

/* 1, 0 or -errno. */
static int is_file(const struct cursor *c)
{
	CST_AUTO_CLOSE int fd = cst_tree_open(c->bucket, c->path.data, O_PATH);
	struct stat st;

	/* Nothing that could be told is in a directory that can't be entered; entering it tells why. */
	if (fd == -EACCES || fd == -EPERM || fd == -ENOENT || fd == -ENAMETOOLONG)
		return 0;
	if (fd < 0)
		return cst_steal_fd(&fd);
	return fstat(fd, &st) == 0 ? S_ISREG(st.st_mode) : -errno;
}

/* The length of the common prefix that `key` rolls up into, 0: none. */
static size_t rolled_up(const struct cst_list_query *q, struct cst_slice key)
{
	const char *at;

	if (!q->delimiter.len || key.len <= q->prefix.len)
		return 0;
	at = memmem(key.data + q->prefix.len, key.len - q->prefix.len, q->delimiter.data, q->delimiter.len);
	return at ? (size_t)(at - key.data) + q->delimiter.len : 0;
}

/* One directory: 1 when its turn makes an item, else 0, and perhaps its level has been pushed. */
static int enter_dir(struct cursor *c)
{
	if (rolled_up(c->query, cst_buf_slice(&c->key))) {
		c->is_prefix = true;
		return cst_scan_any(c->bucket, c->path.data);
	}
	return push(c);
}

/* The next key with the prefix: 1 with key and path set, 0 at the end, -errno. */
static int next(struct cursor *c)
{
	struct cst_slice prefix = c->query->prefix;

	while (c->depth) {
		struct level *level = &c->levels[c->depth - 1];
		size_t i = level->index++;
		int rc = 0;

		if (i >= level->scan->count) {
			cst_scan_put(c->levels[--c->depth].scan);
			continue;
		}
		set_entry(c, level, i);
		c->is_prefix = false;
		if (!cst_slice_starts(cst_buf_slice(&c->key), prefix) &&
		    !(level->scan->entries[i].kind == CST_SCAN_DIR &&
		      cst_slice_starts(prefix, cst_buf_slice(&c->key)))) {
			if (compare(cst_buf_slice(&c->key), prefix) > 0)
				return 0;
			continue;
		}
		if (c->key.len > CST_KEY_MAX)
			continue; /* not a key that could be asked for */
		switch ((enum cst_scan_kind)level->scan->entries[i].kind) {
		case CST_SCAN_FILE:
			rc = 1;
			break;
		case CST_SCAN_PROBE:
			cst_buf_add_str(&c->path, "/" CST_KEYPATH_SELF);
			rc = is_file(c);
			break;
		case CST_SCAN_DIR:
			rc = enter_dir(c);
			break;
		}
		if (rc)
			return rc;
	}
	return 0;
}

static int start(struct cursor *c)
{
	const struct cst_list_query *q = c->query;

	if (q->after.len && compare(q->after, q->prefix) >= 0)
		return seek(c, q->after, q->after_prefix ? SEEK_AFTER_PREFIX : SEEK_AFTER);
	return seek(c, q->prefix, SEEK_AT);
}

/* The item that the cursor stands on. False: this key rolls up into `last`, which was told already. */
static bool item_of(struct cursor *c, struct cst_list_item *item)
{
	size_t rolled = rolled_up(c->query, cst_buf_slice(&c->key));

	item->key = cst_buf_slice(&c->key);
	item->path = c->path.data;
	item->is_prefix = rolled > 0;
	if (rolled)
		item->key.len = rolled;
	/* When the directory itself is the prefix, all of it has been passed already. */
	return rolled && !(c->is_prefix && rolled == c->key.len);
}

static int run(struct cursor *c, cst_list_item_fn fn, void *arg, struct cst_list_result *r)
{
	int rc = start(c);

	while (rc == 0) {
		struct cst_list_item item;
		CST_AUTO_BUF skip = CST_BUF_INIT;
		bool must_seek;

		rc = next(c);
		if (rc <= 0)
			return rc;
		must_seek = item_of(c, &item);
		if (r->count == c->query->max) {
			r->truncated = true;
			return 0;
		}
		rc = fn(arg, &item);
		if (rc < 0)
			return rc;
		if (rc == 0)
			continue;
		rc = 0;
		r->count++;
		cst_buf_clear(&r->last);
		cst_buf_add_slice(&r->last, item.key);
		r->last_is_prefix = item.is_prefix;
		if (must_seek) {
			cst_buf_add_slice(&skip, item.key);
			rc = seek(c, cst_buf_slice(&skip), SEEK_AFTER_PREFIX);
		}
	}
	return rc;
}

int cst_list_run(struct cst_scan_cache *scans, int bucket, const struct cst_list_query *query, cst_list_item_fn fn,
		 void *arg, struct cst_list_result *result)
{
	struct cursor c = {.scans = scans, .bucket = bucket, .query = query};
	int rc;

	*result = (struct cst_list_result){0};
	if (query->max == 0)
		return 0;
	rc = run(&c, fn, arg, result);
	cursor_fini(&c);
	return rc;
}
