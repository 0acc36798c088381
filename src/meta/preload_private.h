/* Private to the preload: keys in order that become directories, key ranges, and what a context knows of parked directories. */
#pragma once

#include "meta/internal.h"
#include "meta/preload.h"

/* ---- preload_keys.c: keys, in order, become directories ----
 *
 * The directories that the last key is in are open; a key beyond one closes it. Nothing is kept of what is below a name that POSIX can't hold: it can't
 * be reached. Belongs to one thread at a time. */
struct cst_fold_dir {
	size_t prefix_len;
	int64_t started; /* of the request that brought its first key */
	struct cst_names names;
};
struct cst_fold {
	size_t base_len;
	bool any;	     /* a key has come */
	struct cst_buf last; /* the key before */
	struct cst_buf skip; /* a prefix below which nothing is kept, or empty */
	struct cst_fold_dir *open;
	size_t count, cap;
	/* Called for a directory that no further key is in; takes the names. `prefix` is valid inside. */
	void (*close)(void *arg, struct cst_slice prefix, int64_t started, struct cst_names *names);
	void *arg;
};
void cst_fold_init(struct cst_fold *f, struct cst_slice base, int64_t started);
void cst_fold_fini(struct cst_fold *f); /* drops what is open */
/* -EDOM: the key is not after the one before. */
int cst_fold_key(struct cst_fold *f, struct cst_slice key, const struct cst_object_info *info, int64_t started);
void cst_fold_page(struct cst_fold *f); /* a page ends: sorts what it brought */
void cst_fold_end(struct cst_fold *f);	/* closes all */
size_t cst_fold_bytes(const struct cst_fold *f);
/* The open directory of this prefix, or NULL. */
const struct cst_fold_dir *cst_fold_find(const struct cst_fold *f, struct cst_slice prefix);
/* Appends to `names` what `more`, which comes after it in the order of keys, has; that is empty then. */
void cst_fold_append(struct cst_names *names, struct cst_names *more);

/* Which bytes keys have at which place below the base: what lies in the middle of a range is guessed from it. */
#define CST_SEEN_PLACES 96
struct cst_seen {
	uint64_t low[CST_SEEN_PLACES][2]; /* a bit a byte below 128 */
	bool letters[2];		  /* digits have stood beside a to f; A to F */
};
void cst_seen_add(struct cst_seen *s, struct cst_slice below);
/* A text between `low` and `high` (empty: no limit), both below the base; `least`: the nearest to `low` that makes sense. False: there is none. */
bool cst_seen_between(const struct cst_seen *s, struct cst_slice low, struct cst_slice high, bool least,
		      struct cst_buf *between);

/* ---- preload_park.c: directories that nobody has, and preloads under way ---- */
/* Puts a whole listing in its directory's place, unless that has a young one. False: it was not needed, or is too old. Empties `names` in any case. */
bool cst_preload_install(struct cst_meta *meta, struct cst_slice prefix, struct cst_names *names,
			 struct cst_installed *what);
/* The preload is one of those under way, or is no longer. */
void cst_preloads_add(struct cst_meta *meta, struct cst_preload *p);
void cst_preloads_remove(struct cst_meta *meta, struct cst_preload *p);

/* preload.c, for the list of those under way; the list's lock is held. */
struct cst_range;
struct cst_preload {
	unsigned magic;
	struct cst_ref ref;
	uint32_t id;
	TAILQ_ENTRY(cst_preload) link; /* the list's lock */
	bool listed;
	bool stopped;	   /* atomic */
	int64_t active_at; /* atomic: when a page came or what it brought was opened */
	struct cst_preload_config config;
	struct cst_meta *meta;
	char *base, *first; /* config.after */
	size_t base_len, first_len;
	pthread_mutex_t lock; /* guards what follows */
	struct cst_preload_progress progress;
	struct cst_error err;
	TAILQ_HEAD(ranges, cst_range) ranges; /* in the order of keys */
	unsigned asked, working, guesses, answered;
	bool finished; /* `ended` was called or is about to be */
	/* Where to cut: names of the base in order. */
	struct cst_listing *base_listing; /* counted */
	struct cst_listing_wait base_wait;
	bool base_pending, first_done, planned;
	char **cuts;
	size_t cut_count;
	struct cst_buf walk; /* ahead of one: it has listed all until here by itself */
	uint64_t installed_bytes, installed_names;
	uint64_t pending_bytes; /* of directories that are not whole */
};
#define CST_PRELOAD_MAGIC 0x93e10ad1u
bool cst_preload_try_join(struct cst_preload *p, struct cst_dir *dir, struct cst_listing *listing);
void cst_preload_was_hit(struct cst_preload *p);
