/* Sorted pictures of directories, for listings. A picture is kept, keyed by the directory's inode and valid while its
 * time of change (ctime, which nobody can set back) stays the same; the memory that the kept ones take is bounded (the least recently used go; the
 * newest stays however large). Any thread; a picture is reference counted and never changes. */
#pragma once

#include "base/buf.h"

#include <sys/stat.h>

enum cst_scan_kind {
	CST_SCAN_FILE,	/* an object */
	CST_SCAN_PROBE, /* a directory; here would be the object of the same name (NAME/.%f) */
	CST_SCAN_DIR,	/* a directory: all that begins with "NAME/" */
};
struct cst_scan_entry {
	uint32_t sort; /* offset of the sort key: the component, with '/' after it for DIR */
	uint32_t path; /* offset of the NUL-terminated path in the directory, when it isn't the component */
	uint16_t len;  /* of the sort key */
	uint8_t kind;
	bool odd; /* `path` counts */
};
struct cst_scan {
	struct cst_ref ref;
	dev_t dev;
	ino_t ino;
	int64_t changed;
	size_t count;
	struct cst_scan_entry *entries; /* in byte order of their sort keys */
	struct cst_buf names;
	size_t bytes;			       /* of memory */
	struct cst_scan *next, *newer, *older; /* of the cache */
};
static inline struct cst_slice cst_scan_sort_key(const struct cst_scan *s, size_t i)
{
	return (struct cst_slice){s->names.data + s->entries[i].sort, s->entries[i].len};
}
/* Where it lies, relative to the directory (not NUL-terminated when it is the component itself). */
struct cst_slice cst_scan_path(const struct cst_scan *s, size_t i);

struct cst_scan_cache;
struct cst_scan_cache *cst_scan_cache_new(size_t max_bytes);
void cst_scan_cache_free(struct cst_scan_cache *c);
/* The picture of the directory at `path` beneath `dir`. 0 or -errno. */
int cst_scan_get(struct cst_scan_cache *c, int dir, const char *path, struct cst_scan **scan);
void cst_scan_put(struct cst_scan *scan);
/* How many directories have been read, for tests. */
uint64_t cst_scan_cache_reads(const struct cst_scan_cache *c);

/* Is there any object beneath? 1, 0, or -errno. Reads no more than it must. */
int cst_scan_any(int dir, const char *path);
