/* The metadata of one mount: what it asks the store, with which limits, and what it remembers.
 *
 * A cst_meta owns the store operations under way (so that they can be ended), the limit on HEADs in flight and the memory that
 * listings may take together. Directories (meta/dir.h) belong to one cst_meta. Any thread. */
#pragma once

#include "base/metrics.h"
#include "meta/entry.h"

struct cst_meta;
struct cst_meta_config {
	struct cst_bucket *bucket; /* borrowed */
	bool attributes_object;	   /* mode, owner and times come from a HEAD of each object */
	bool symlinks;		   /* symlink objects are symbolic links (else they appear as what they point to) */
	bool path_probe; /* a name that may be a directory is asked for with all that is below it, as far as one page goes */
	int64_t list_ttl;	   /* ns that an answer of the store is taken for the truth */
	int64_t miss_window;	   /* ns: a second miss within it lists the directory; 0: 30 s */
	unsigned heads_max;	   /* started and not answered; 0: 112, of which the bucket sends 64 at once */
	unsigned lookup_pages;	   /* pages a lookup waits for before it asks for its own name; 0: 12 */
	uint64_t listing_bytes;	   /* memory for listings nobody reads; 0: 64 MiB */
	uint64_t listing_names;	   /* names that they may hold together; 0: no limit */
	int64_t (*clock)(void);	   /* NULL: cst_now */
	/* A name POSIX can't hold, or a prefix whose name a file has, was listed. `count` new ones, one as an example. */
	void (*skipped)(void *arg, struct cst_slice dir, struct cst_slice name, uint64_t count);
	void (*shadowed)(void *arg, struct cst_slice dir, struct cst_slice name);
	void *arg;
};
struct cst_meta *cst_meta_new(const struct cst_meta_config *config);
/* Ends what is under way and waits for it. Waiters are answered -ECANCELED. */
void cst_meta_stop(struct cst_meta *meta);
/* After stop; all directories must be gone. */
void cst_meta_free(struct cst_meta *meta);
int64_t cst_meta_now(const struct cst_meta *meta);

struct cst_meta_stats {
	uint64_t heads, lists; /* operations started */
	uint64_t listings;     /* directories with a listing in memory */
	uint64_t listing_bytes, listing_names;
};
void cst_meta_stats(struct cst_meta *meta, struct cst_meta_stats *stats);
