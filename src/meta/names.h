/* The names of one directory as a listing brought them: a compact, append-only store.
 *
 * Entries arrive in pages. Those of the page being received are invisible until cst_names_seal(), which sorts them, decides who wins
 * where names collide, and hides what POSIX can't hold; cst_names_rollback() drops them when a page is retried. Sealed entries never
 * move, so an index is a stable position. One entry costs its name and about 30 bytes more. No locks: the owner (a listing of
 * meta/dir.c) guards it. */
#pragma once

#include "meta/entry.h"

enum {			       /* cst_name_view.flags */
       CST_NAME_PREFIX = 1,    /* "name/": a directory */
       CST_NAME_FOLDER = 2,    /* the empty object "name_$folder$": a directory */
       CST_NAME_HIDDEN = 4,    /* not shown: a marker beside its directory, or a prefix whose name a file has */
       CST_NAME_SKIPPED = 8,   /* POSIX can't hold the name */
       CST_NAME_DOUBTFUL = 16, /* newer news contradict it: shown, but the store must be asked */
       CST_NAME_LOSER = 32,    /* a prefix whose name a file has */
};

struct cst_names {
	char **chunks;
	unsigned chunk_count, chunk_cap;
	uint32_t used;	 /* in the last chunk */
	uint32_t *index; /* where the records are */
	size_t count, sealed, cap;
	struct cst_object_attr **attrs; /* attributes=object: one per sealed entry, or NULL */
	size_t attrs_cap, attr_count;
	unsigned sealed_chunks;
	uint32_t sealed_used;
	bool complete;	 /* nothing comes after the sealed ones */
	bool unsorted;	 /* the store doesn't list in order: look through all */
	bool has_marker; /* the directory's own "prefix/" object was in the listing */
	uint64_t skipped, losers;
};

struct cst_name_view {
	unsigned flags;
	struct cst_slice name; /* as shown, without "/" and "_$folder$"; points into the store */
	enum cst_kind kind;
	enum cst_object_type type;
	uint64_t size;
	int64_t mtime;
	char etag[CST_ETAG_MAX];
};

void cst_names_fini(struct cst_names *n); /* an all-zero struct is an empty store */
/* `suffix` is the key below the directory's prefix, a common prefix with its slash. */
void cst_names_add(struct cst_names *n, struct cst_slice suffix, bool is_prefix, const struct cst_object_info *info);
void cst_names_rollback(struct cst_names *n);
/* Makes the page visible. `complete`: it was the last one (unused room is given back then). */
void cst_names_seal(struct cst_names *n, bool complete);
/* A sealed entry, i < n->sealed. */
void cst_names_get(const struct cst_names *n, size_t i, struct cst_name_view *view);
unsigned cst_names_flags(const struct cst_names *n, size_t i);
struct cst_slice cst_names_suffix(const struct cst_names *n, size_t i);
void cst_names_doubt(struct cst_names *n, size_t i);

enum cst_names_found { CST_NAMES_UNKNOWN, CST_NAMES_ABSENT, CST_NAMES_FOUND };
/* What a name is: FOUND sets *i to the entry that wins. UNKNOWN: not listed yet, or doubtful (then *i is that entry, else SIZE_MAX). */
enum cst_names_found cst_names_find(const struct cst_names *n, struct cst_slice name, size_t *i);

struct cst_object_attr *cst_names_attr(const struct cst_names *n, size_t i);	      /* borrowed, may be NULL */
void cst_names_set_attr(struct cst_names *n, size_t i, struct cst_object_attr *attr); /* takes a reference of its own */
size_t cst_names_bytes(const struct cst_names *n);

/* Can POSIX hold this name? */
bool cst_name_is_valid(struct cst_slice name);
