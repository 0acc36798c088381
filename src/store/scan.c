#include "store/scan.h"

#include "base/clock.h"
#include "store/keypath.h"
#include "store/record.h"
#include "store/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>

#define SLOTS 4096
#define LOADERS 16
/* Two changes within one tick of a coarse clock leave the same modification time. */
#define SETTLED (20 * CST_NS_PER_MS)

struct cst_scan_cache {
	pthread_mutex_t lock;
	pthread_mutex_t loaders[LOADERS]; /* one reader for a directory; taken before `lock` */
	struct cst_scan *slots[SLOTS];
	struct cst_scan *newest, *oldest;
	size_t bytes, max_bytes;
	uint64_t reads; /* atomic */
};

struct builder {
	struct cst_scan *scan;
	size_t room;
	bool has_pieces;
	/* inside .%l directories: the component and the path so far */
	struct cst_buf component, path;
};

struct cst_slice cst_scan_path(const struct cst_scan *s, size_t i)
{
	const struct cst_scan_entry *e = &s->entries[i];

	if (e->odd)
		return cst_slice_of(s->names.data + e->path);
	return (struct cst_slice){s->names.data + e->sort, e->len - (e->kind == CST_SCAN_DIR ? 1u : 0u)};
}

void cst_scan_put(struct cst_scan *scan)
{
	if (!scan || !cst_ref_put(&scan->ref))
		return;
	free(scan->entries);
	cst_buf_fini(&scan->names);
	free(scan);
}

static void add_entry(struct builder *b, struct cst_scan_entry entry)
{
	struct cst_scan *s = b->scan;

	if (s->count == b->room) {
		b->room = b->room ? b->room * 2 : 64;
		s->entries = cst_xrealloc(s->entries, b->room * sizeof(*s->entries));
	}
	s->entries[s->count++] = entry;
}

static int add_name(struct builder *b, struct cst_slice component, struct cst_slice path, bool odd, bool is_dir)
{
	struct cst_scan *s = b->scan;
	struct cst_scan_entry e = {.len = (uint16_t)component.len, .odd = odd};

	if (s->names.len > UINT32_MAX - 8192)
		return -EFBIG;
	e.sort = (uint32_t)s->names.len;
	cst_buf_add_slice(&s->names, component);
	cst_buf_add_char(&s->names, '/');
	if (odd) {
		e.path = (uint32_t)s->names.len;
		cst_buf_add_slice(&s->names, path);
		cst_buf_add_char(&s->names, '\0');
	}
	e.kind = is_dir ? CST_SCAN_PROBE : CST_SCAN_FILE;
	add_entry(b, e);
	if (is_dir) {
		e.kind = CST_SCAN_DIR;
		e.len++;
		add_entry(b, e);
	}
	return 0;
}

static int take_entry(void *arg, int dir, const char *name, unsigned char type);

/* Goes into a .%l directory: what is in there belongs to this directory's components. */
static int take_piece(struct builder *b, int dir, const char *name, struct cst_slice part)
{
	CST_AUTO_CLOSE int fd = cst_tree_open(dir, name, O_RDONLY | O_DIRECTORY);
	size_t component_len = b->component.len;
	size_t path_len = b->path.len;
	int rc;

	b->has_pieces = true;
	if (fd < 0 && fd != -ENOENT)
		return fd;
	if (fd < 0 || component_len + part.len > CST_KEY_MAX)
		return 0;
	cst_buf_add_slice(&b->component, part);
	cst_buf_add_str(&b->path, name);
	cst_buf_add_char(&b->path, '/');
	rc = cst_tree_each(fd, take_entry, b);
	b->component.len = component_len;
	b->path.len = path_len;
	return rc;
}

static int take_tail(struct builder *b, struct cst_slice name, struct cst_slice part, bool is_dir)
{
	size_t component_len = b->component.len;
	size_t path_len = b->path.len;
	int rc = 0;

	cst_buf_add_slice(&b->component, part);
	cst_buf_add_slice(&b->path, name);
	if (b->component.len <= CST_KEY_MAX && cst_keypath_is_long(cst_buf_slice(&b->component)))
		rc = add_name(b, cst_buf_slice(&b->component), cst_buf_slice(&b->path), true, is_dir);
	b->component.len = component_len;
	b->path.len = path_len;
	return rc;
}

static int take_entry(void *arg, int dir, const char *name, unsigned char type)
{
	struct builder *b = arg;
	struct cst_slice whole = cst_slice_of(name);
	struct cst_slice part;

	if (type != DT_REG && type != DT_DIR)
		return 0;
	switch (cst_keypath_name(whole, b->component.len, &part)) {
	case CST_NAME_WHOLE:
		return add_name(b, part, whole, part.data != name || part.len != whole.len, type == DT_DIR);
	case CST_NAME_PIECE:
		return type == DT_DIR ? take_piece(b, dir, name, part) : 0;
	case CST_NAME_TAIL:
		return take_tail(b, whole, part, type == DT_DIR);
	case CST_NAME_SELF:
	case CST_NAME_HIDDEN:
		break;
	}
	return 0;
}

static int compare_entries(const void *a, const void *b, void *names)
{
	const struct cst_scan_entry *x = a;
	const struct cst_scan_entry *y = b;
	int order = memcmp((char *)names + x->sort, (char *)names + y->sort, cst_min(x->len, y->len));

	return order ? order : (int)x->len - (int)y->len;
}

/* *keep: the picture is sure to be of the directory as its modification time tells. */
static int read_dir(struct cst_scan_cache *c, int fd, const struct stat *st, struct cst_scan **out, bool *keep)
{
	struct builder b = {.scan = CST_NEW(struct cst_scan)};
	struct cst_scan *s = b.scan;
	int64_t now = cst_wall();
	struct stat after;
	int rc;

	cst_ref_init(&s->ref);
	s->dev = st->st_dev;
	s->ino = st->st_ino;
	s->changed = cst_record_time(&st->st_ctim);
	__atomic_add_fetch(&c->reads, 1, __ATOMIC_RELAXED);
	rc = cst_tree_each(fd, take_entry, &b);
	if (rc == 0 && s->count > 1)
		qsort_r(s->entries, s->count, sizeof(*s->entries), compare_entries, s->names.data);
	s->bytes = sizeof(*s) + b.room * sizeof(*s->entries) + s->names.cap;
	*keep = !b.has_pieces && s->changed < now - SETTLED && fstat(fd, &after) == 0 &&
		cst_record_time(&after.st_ctim) == s->changed;
	cst_buf_fini(&b.component);
	cst_buf_fini(&b.path);
	if (rc) {
		cst_scan_put(s);
		return rc;
	}
	*out = s;
	return 0;
}

/* ---- the cache ---- */

struct cst_scan_cache *cst_scan_cache_new(size_t max_bytes)
{
	struct cst_scan_cache *c = CST_NEW(struct cst_scan_cache);

	c->max_bytes = max_bytes;
	pthread_mutex_init(&c->lock, NULL);
	for (size_t i = 0; i < LOADERS; i++)
		pthread_mutex_init(&c->loaders[i], NULL);
	return c;
}

uint64_t cst_scan_cache_reads(const struct cst_scan_cache *c)
{
	return __atomic_load_n(&c->reads, __ATOMIC_RELAXED);
}

static struct cst_scan **slot_of(struct cst_scan_cache *c, dev_t dev, ino_t ino)
{
	struct cst_scan **at = &c->slots[(ino * UINT64_C(0x9e3779b97f4a7c15) ^ dev) >> 32 & (SLOTS - 1)];

	while (*at && ((*at)->ino != ino || (*at)->dev != dev))
		at = &(*at)->next;
	return at;
}

static void leave_order_locked(struct cst_scan_cache *c, struct cst_scan *s)
{
	*(s->newer ? &s->newer->older : &c->newest) = s->older;
	*(s->older ? &s->older->newer : &c->oldest) = s->newer;
}

static void enter_order_locked(struct cst_scan_cache *c, struct cst_scan *s)
{
	s->newer = NULL;
	s->older = c->newest;
	*(c->newest ? &c->newest->newer : &c->oldest) = s;
	c->newest = s;
}

static void drop_locked(struct cst_scan_cache *c, struct cst_scan **at)
{
	struct cst_scan *s = *at;

	*at = s->next;
	leave_order_locked(c, s);
	c->bytes -= s->bytes;
	cst_scan_put(s);
}

void cst_scan_cache_free(struct cst_scan_cache *c)
{
	if (!c)
		return;
	while (c->oldest)
		drop_locked(c, slot_of(c, c->oldest->dev, c->oldest->ino));
	pthread_mutex_destroy(&c->lock);
	for (size_t i = 0; i < LOADERS; i++)
		pthread_mutex_destroy(&c->loaders[i]);
	free(c);
}

static struct cst_scan *find(struct cst_scan_cache *c, const struct stat *st)
{
	struct cst_scan **at;
	struct cst_scan *s = NULL;

	pthread_mutex_lock(&c->lock);
	at = slot_of(c, st->st_dev, st->st_ino);
	if (*at && (*at)->changed != cst_record_time(&st->st_ctim)) {
		drop_locked(c, at);
	} else if (*at) {
		s = *at;
		leave_order_locked(c, s);
		enter_order_locked(c, s);
		cst_ref_get(&s->ref);
	}
	pthread_mutex_unlock(&c->lock);
	return s;
}

static void keep_scan(struct cst_scan_cache *c, struct cst_scan *s)
{
	struct cst_scan **at;

	pthread_mutex_lock(&c->lock);
	at = slot_of(c, s->dev, s->ino);
	if (*at)
		drop_locked(c, at);
	at = slot_of(c, s->dev, s->ino);
	s->next = NULL;
	*at = s;
	cst_ref_get(&s->ref);
	enter_order_locked(c, s);
	c->bytes += s->bytes;
	while (c->bytes > c->max_bytes && c->oldest != c->newest)
		drop_locked(c, slot_of(c, c->oldest->dev, c->oldest->ino));
	pthread_mutex_unlock(&c->lock);
}

int cst_scan_get(struct cst_scan_cache *c, int dir, const char *path, struct cst_scan **scan)
{
	CST_AUTO_CLOSE int fd = cst_tree_open(dir, path, O_RDONLY | O_DIRECTORY);
	pthread_mutex_t *loader;
	struct stat st;
	bool keep;
	int rc = 0;

	if (fd < 0)
		return cst_steal_fd(&fd);
	if (fstat(fd, &st) != 0)
		return -errno;
	*scan = find(c, &st);
	if (*scan)
		return 0;
	loader = &c->loaders[st.st_ino % LOADERS];
	pthread_mutex_lock(loader);
	if (fstat(fd, &st) != 0)
		rc = -errno;
	*scan = rc ? NULL : find(c, &st);
	if (rc == 0 && !*scan) {
		rc = read_dir(c, fd, &st, scan, &keep);
		if (rc == 0 && keep)
			keep_scan(c, *scan);
	}
	pthread_mutex_unlock(loader);
	return rc;
}

/* ---- any object? ---- */

/* Directories down to here are kept open while those beneath are looked at, which finds the first object soonest; below,
 * names are collected first, so that a deep tree doesn't need a descriptor for each level. */
#define OPEN_LEVELS 16

struct any {
	unsigned level;
	struct cst_buf names; /* of directories to look at, each with its NUL */
};

static int any_in(int dir, const char *path, unsigned level);

static int find_any(void *arg, int dir, const char *name, unsigned char type)
{
	struct any *any = arg;
	struct cst_slice part;
	enum cst_name_kind kind;

	if (type != DT_REG && type != DT_DIR)
		return 0;
	kind = cst_keypath_name(cst_slice_of(name), 0, &part);
	if (kind == CST_NAME_HIDDEN)
		kind = cst_keypath_name(cst_slice_of(name), 1, &part);
	if (kind == CST_NAME_HIDDEN)
		return 0;
	if (type == DT_REG)
		return kind != CST_NAME_PIECE;
	if (any->level < OPEN_LEVELS)
		return any_in(dir, name, any->level + 1);
	cst_buf_add(&any->names, name, strlen(name) + 1);
	return 0;
}

static int any_in(int dir, const char *path, unsigned level)
{
	CST_AUTO_CLOSE int fd = cst_tree_open(dir, path, O_RDONLY | O_DIRECTORY);
	struct any any = {.level = level};
	int rc;

	/* What can't be looked into is shown: asking for it tells why. What is too deep holds no keys. */
	if (fd == -EACCES || fd == -EPERM)
		return 1;
	if (fd < 0)
		return fd == -ENOENT || fd == -ENAMETOOLONG ? 0 : fd;
	rc = cst_tree_each(fd, find_any, &any);
	close(cst_steal_fd(&fd));
	for (size_t at = 0; rc == 0 && at < any.names.len; at += strlen(any.names.data + at) + 1) {
		CST_AUTO_FREE char *sub = cst_xasprintf("%s/%s", path, any.names.data + at);

		rc = any_in(dir, sub, level);
	}
	cst_buf_fini(&any.names);
	return rc;
}

int cst_scan_any(int dir, const char *path)
{
	return any_in(dir, path, 0);
}
