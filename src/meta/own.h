/* Private to meta: what this mount changed itself, as listings and probes of a directory see it; own.c. All under the directory's lock. */
#pragma once

#include "meta/internal.h"

struct cst_own {
	struct cst_own *next; /* of its bucket */
	uint64_t number;
	int64_t at;
	uint64_t size;
	int64_t mtime;
	struct cst_object_attr *attr; /* counted, or NULL */
	uint8_t kind, type, name_len, etag_len, etag_form;
	bool gone : 1, held : 1;
	bool doubtful : 1; /* newer news contradict it: the store must be asked */
	bool foreign : 1;  /* it was asked: this is what it said */
	char text[];	   /* name, NUL, packed ETag */
};
static inline struct cst_slice cst_own_name(const struct cst_own *own)
{
	return (struct cst_slice){own->text, own->name_len};
}

const struct cst_own *cst_own_find_locked(const struct cst_dir *dir, struct cst_slice name);
void cst_own_entry(const struct cst_own *own, struct cst_entry *entry);

enum cst_own_says { CST_OWN_NOTHING, CST_OWN_PRESENT, CST_OWN_GONE, CST_OWN_DOUBTFUL };
/* What lies over the listing; NULL: what is young enough to answer by itself. */
enum cst_own_says cst_own_says_locked(const struct cst_dir *dir, const struct cst_listing *listing,
				      struct cst_slice name, const struct cst_own **found);
/* A sealed entry of the listing as it is shown. False: it isn't. */
bool cst_own_shown_locked(const struct cst_listing *listing, size_t i, struct cst_name_view *view,
			  struct cst_object_attr **attr, int64_t *at);
/* A name in the listing and what lies over it; UNKNOWN as of cst_names_find(), or doubted. */
enum cst_names_found cst_own_find_shown_locked(const struct cst_listing *listing, struct cst_slice name,
					       struct cst_name_view *view);

/* Names that the (complete) listing hasn't, after its entries. */
void cst_own_begin_listing_locked(struct cst_listing *listing);
void cst_own_begin_reading_locked(struct cst_listing *listing);
/* The first at *position or after it, which becomes its position; NULL: no more. */
const struct cst_own *cst_own_next_locked(const struct cst_listing *listing, size_t *position,
					  struct cst_name_view *view);
size_t cst_own_positions_locked(const struct cst_listing *listing); /* one past the last position there may be */
bool cst_own_has_any_locked(const struct cst_listing *listing);

/* Does one's own change answer a question that was asked then? */
bool cst_own_decides_locked(const struct cst_dir *dir, struct cst_slice name, int64_t asked,
			    const struct cst_own **found);
/* The store's answer to a question. */
void cst_own_teach_locked(struct cst_dir *dir, struct cst_slice name, int rc, const struct cst_entry *entry,
			  int64_t asked);
void cst_own_doubt_locked(struct cst_dir *dir, struct cst_slice name);
/* Drops what listings have caught up with. */
void cst_own_sweep_locked(struct cst_dir *dir);
/* The directory has another prefix and no listing. */
void cst_own_moved_locked(struct cst_dir *dir);
void cst_own_free_locked(struct cst_dir *dir);
uint64_t cst_own_bytes_locked(const struct cst_dir *dir);
