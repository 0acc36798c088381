/* The tiered block cache: object versions kept on local disks (and tmpfs) in levels, below the memory of src/fetch.
 *
 * A cst_cache is an ordered list of levels, fastest first, each of one or several volumes (directories, volume.h). New bytes go
 * into the first level; above its high watermark the least useful entries are demoted to the next one until low is reached; entries read
 * again are promoted. Several processes may have the same directories open (volume.h).
 *
 * A cst_cache_object is one object version in use: it holds its files open and keeps them from being evicted; it is also the
 * cst_fetch_local through which src/fetch reads and saves. Entries are versions: (bucket, key, ETag, size); one without an ETag is never cached.
 *
 * Any thread. Nothing here blocks but what says so. A level whose disk fails is taken out with one log line; the mount goes on. */
#pragma once

#include "base/error.h"
#include "fetch/fetch.h"

struct cst_cache;
struct cst_cache_object;

enum cst_cache_medium { CST_CACHE_MEM, CST_CACHE_SSD, CST_CACHE_HDD };
enum cst_cache_policy {
	CST_CACHE_S3FIFO, /* admit all, evict by S3-FIFO (Yang et al., SOSP 2023) */
	CST_CACHE_PIN,	  /* fill, then never evict */
	CST_CACHE_STREAM, /* read what is there, admit nothing */
};
#define CST_CACHE_PATHS 8
#define CST_CACHE_LEVELS 4
struct cst_cache_path {
	char *path;
	uint64_t quota; /* bytes; 0: an even share of the level's quota */
};
struct cst_cache_level {
	enum cst_cache_medium medium;
	unsigned path_count;
	struct cst_cache_path paths[CST_CACHE_PATHS];
	uint64_t quota;	  /* bytes over all paths; 0: four fifths of what is free */
	double high, low; /* shares of the quota where eviction starts and stops; 0.8 and 0.6 when not given */
};
/* "MEM:/dev/shm:2GiB:0.99:0.8", "SSD:/a,/b:10Gi,20Gi"; medium and path are needed. -EINVAL. */
int cst_cache_level_parse(const char *text, struct cst_cache_level *level, struct cst_error *err);
/* "DIR[:QUOTA]": the medium is found out (tmpfs: MEM, rotational disk: HDD, else SSD); watermarks 0.95 and 0.9. */
int cst_cache_dir_parse(const char *text, struct cst_cache_level *level, struct cst_error *err);
void cst_cache_level_fini(struct cst_cache_level *level);

struct cst_cache_config {
	const struct cst_cache_level *levels; /* copied; fastest first */
	unsigned level_count;
	enum cst_cache_policy policy;
	const char *bucket; /* "oss://NAME": with the key, what an object is called in the cache */
	uint64_t
		keep_free; /* bytes of each file system that stay free; 0: the larger of 1 GiB and 5 %, at most half of what is free now */
	unsigned io_threads; /* 0: 16 for each level */
	uint64_t
		memory; /* bytes that the process itself uses (--memory): a MEM level must fit into the cgroup's limit beside them */
	bool finish_partial; /* complete partly cached objects in the background after their last close */
};
/* Blocks: opens the volumes (creates the directories, 0700; elects or finds their owners). Fails only when no level can be used, or a
 * configuration is wrong (the same directory twice, a MEM level over the cgroup's memory limit, a directory of another user).
 * A path that others share (sticky or writable by all, as /dev/shm), that is the root of a file system, or that holds other things than a
 * cache and isn't private, is used through its subdirectory "cistern-UID". */
struct cst_cache *cst_cache_new(const struct cst_cache_config *config, struct cst_error *err);
/* Ends what goes on in the background: nothing new is copied between levels or completed, and what is under way is cancelled. Blocks until
 * the cache holds no cst_fetch_object any more; before cst_fetch_free(). */
void cst_cache_stop(struct cst_cache *cache);
/* Stops; all objects must have been given up (after cst_fetch_free() they are). Blocks until what is being saved is saved. */
void cst_cache_free(struct cst_cache *cache);

/* Finds or makes room for a version. fn gets a referenced object, or NULL when it is neither there nor wanted (policy, no ETag, size 0, no level
 * left). It may come before the call returns. */
typedef void (*cst_cache_open_fn)(void *arg, struct cst_cache_object *o);
void cst_cache_open(struct cst_cache *cache, struct cst_slice key, const char *etag, uint64_t size,
		    cst_cache_open_fn fn, void *arg);
struct cst_cache_object *cst_cache_object_ref(struct cst_cache_object *o);
void cst_cache_object_unref(struct cst_cache_object *o);
struct cst_fetch_local *cst_cache_object_local(struct cst_cache_object *o); /* borrowed from o */
/* A read-only descriptor of a file that holds exactly the object's bytes, all of them verified and synced, and that will never change; or −1:
 * not complete, or kept in a slab. Borrowed from o. */
int cst_cache_object_file(struct cst_cache_object *o);
/* The last handle on `data` closes: with finish_partial what is missing is fetched in the background, at the lowest priority. */
void cst_cache_object_finish(struct cst_cache_object *o, struct cst_fetch_object *data);
/* Bytes of it that are in the cache. */
uint64_t cst_cache_object_cached(const struct cst_cache_object *o);

struct cst_cache_level_stats {
	enum cst_cache_medium medium;
	char paths[256];   /* comma list */
	const char *state; /* "ok", "out: WHY" (a failing disk), "full" */
	uint64_t quota, used, entries, pinned;
	uint64_t hits, hit_bytes; /* blocks that this process read from this level; passthrough reads are not seen */
	uint64_t saved_bytes, refused_bytes; /* written; not admitted (no room, policy, disk too slow) */
	uint64_t evicted, demoted, promoted; /* entries: dropped, moved to the next level, moved into this one */
	uint64_t corrupt;		     /* blocks that failed their checksum */
	uint64_t stops_high, stops_low;	     /* times eviction started at high, stopped at low */
	bool owner;			     /* this process writes the index of all its volumes */
};
struct cst_cache_stats {
	unsigned level_count;
	struct cst_cache_level_stats levels[CST_CACHE_LEVELS];
	uint64_t misses;  /* blocks that no level had: they came from the origin */
	uint64_t objects; /* in use */
};
/* Blocks for a round trip where another process owns a volume. Sets the gauges among the metrics, too. */
void cst_cache_stats(struct cst_cache *cache, struct cst_cache_stats *stats);

/* ---- for `cistern cache`: these block ---- */

struct cst_cache_entry {
	const char *bucket; /* "oss://NAME" */
	struct cst_slice key;
	const char *etag;
	uint64_t size, cached; /* bytes */
	unsigned level;
	bool pinned, complete, in_use;
	int64_t used; /* wall clock s of the last use, to the minute */
};
/* Every entry whose "BUCKET/KEY" starts with `prefix` ("" all), in no order. fn returns false to stop. */
int cst_cache_list(struct cst_cache *cache, const char *prefix, bool (*fn)(void *arg, const struct cst_cache_entry *e),
		   void *arg, struct cst_error *err);
/* Drops, pins or unpins what is there below a prefix; pins also hold for what comes later. Returns how many entries, or -errno. */
int64_t cst_cache_drop(struct cst_cache *cache, const char *prefix, struct cst_error *err);
int64_t cst_cache_pin(struct cst_cache *cache, const char *prefix, bool pin, struct cst_error *err);
struct cst_cache_verify {
	uint64_t entries, bytes, bad_blocks, bad_entries; /* bad blocks are dropped */
};
/* Re-reads everything below a prefix at `rate` bytes a second (0: no limit) and checks it; complete files that were not verified are marked. */
int cst_cache_verify(struct cst_cache *cache, const char *prefix, uint64_t rate,
		     void (*bad)(void *arg, const struct cst_cache_entry *e, uint64_t block), void *arg,
		     struct cst_cache_verify *result, struct cst_error *err);
