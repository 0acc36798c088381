/* One directory of the store: its listing, and finding names in it with as few requests as will do.
 *
 * The first miss asks for the one name: a HEAD and, at the same time, the first page of the listing below it (which is kept if the
 * name turns out to be a directory). A second miss within the window lists the directory. A complete listing answers every name
 * until list_ttl ends, an incomplete one those it has passed. Lookups wait for the first twelve pages only; then they HEAD their names
 * in parallel (and list below those only that are no file, when the last listed one was a file), and the listing goes on by one page for every few dozen of them, or as far as it goes while a reader has it open.
 * Asking the same name again while it is being asked waits for that answer.
 *
 * attributes=object: entries also carry the object's metadata, one HEAD each, kept while ETag and Last-Modified stay.
 *
 * Thread safe, one mutex per directory, held for short computations only. Callbacks run without locks, on a loop thread or, for
 * errors known at once, on the caller's. Directories are counted; operations under way hold references. */
#pragma once

#include "meta/meta.h"
#include "meta/names.h"

#include <sys/queue.h>

struct cst_dir;
/* `prefix`: "" or a key with its slash. */
struct cst_dir *cst_dir_new(struct cst_meta *meta, struct cst_slice prefix);
struct cst_dir *cst_dir_ref(struct cst_dir *dir);
void cst_dir_unref(struct cst_dir *dir);
void cst_dir_add_prefix(struct cst_dir *dir, struct cst_buf *out);
/* Borrowed: of a directory that nobody else knows, and so nobody moves. */
struct cst_slice cst_dir_prefix(const struct cst_dir *dir);
bool cst_dir_has_prefix(struct cst_dir *dir, struct cst_slice prefix);

/* What the listing says of a name now. 0: *entry is filled; -ENOENT: there is none, as of *at; -EAGAIN: must be asked (entry->kind may
 * then still be set: what is missing is the object's attributes). */
int cst_dir_find(struct cst_dir *dir, const char *name, struct cst_entry *entry, int64_t *at);

/* Where a name is in the directory's listing, and the names that come after it. */
struct cst_dir_place {
	uint64_t listing; /* tells one listing of the directory from the next */
	size_t at;
};
/* -EAGAIN: there is no listing now that is young enough, in order, and has it as a file. */
int cst_dir_place(struct cst_dir *dir, const char *name, struct cst_dir_place *place);
/* Calls `each` for what is shown from `place` on, as far as it is listed, under the directory's lock, until it returns false; its `i` is the
 * position. False: the directory has another listing by now. */
bool cst_dir_walk(struct cst_dir *dir, const struct cst_dir_place *place,
		  bool (*each)(void *arg, size_t i, const struct cst_name_view *view, struct cst_object_attr *attr),
		  void *arg);

/* Someone who waits for a name. Embedded in the caller's request; done comes exactly once unless cst_dir_leave() returned true. */
struct cst_dir_wait {
	/* rc: 0: *entry says what it is; -ENOENT: nothing, as of entry->at; else err is set. `below`: a new directory's own cst_dir
	 * with its first page, or NULL; reference it to keep it. */
	void (*done)(struct cst_dir_wait *wait, int rc, const struct cst_entry *entry, struct cst_dir *below,
		     const struct cst_error *err);
	TAILQ_ENTRY(cst_dir_wait) link; /* private */
	struct cst_dir_probe *probe;	/* private */
};
enum cst_dir_ask {
	CST_DIR_ASK_NAME,   /* what is it? */
	CST_DIR_ASK_ANEW,   /* as NAME, by requests that start now, whatever a listing says */
	CST_DIR_ASK_FILE,   /* it is a file or symlink: the attributes, or has it changed? (HEAD) */
	CST_DIR_ASK_STRICT, /* as FILE, by a request that starts now */
	CST_DIR_ASK_DIR,    /* it is a directory: its marker's attributes (attributes=object) */
};
/* `below`: the cst_dir of a directory already known by this name, or NULL. */
void cst_dir_probe(struct cst_dir *dir, const char *name, enum cst_dir_ask ask, struct cst_dir *below,
		   struct cst_dir_wait *wait);
/* True: done will not come. False: it has come or is coming. */
bool cst_dir_leave(struct cst_dir *dir, struct cst_dir_wait *wait);
/* Newer news contradict the listing: it no longer answers for this name. */
void cst_dir_doubt(struct cst_dir *dir, const char *name);

/* ---- what this mount changed itself ----
 *
 * A name that was created, published, removed or renamed through this mount lies over every listing and every answer to a request that began before the
 * change was confirmed, and gives way to those that began after it. While `held` (a file that is being written and may not be in the store yet, or is
 * there in another version) it lies over all of them. Lookups, walks and listings that are read show it; a listing that is being read shows names that
 * were added after those that it has, each once, and offsets stay valid. What shows of a held name is what it was put as: its inode (inode->held) knows
 * the size it has now.
 *
 * A change answers by itself for list_ttl after it was confirmed, and as long as the listing that it lies over. */
/* entry->at: when it was confirmed; 0: now. With attributes=object it has the attributes too, else the store is asked for them. */
void cst_dir_put(struct cst_dir *dir, const char *name, const struct cst_entry *entry, bool held);
void cst_dir_put_gone(struct cst_dir *dir, const char *name, int64_t at);
/* Nobody holds it any more, and what became of it isn't known (a conflict, a failure): the store is asked next. */
void cst_dir_let_go(struct cst_dir *dir, const char *name);
/* Is the name one's own change that no listing has caught up with yet? *held may be NULL. */
bool cst_dir_is_own(struct cst_dir *dir, const char *name, bool *held);
/* The directory was made by this mount just now and nobody else is known to have put anything there: its listing is complete and empty. */
void cst_dir_set_empty(struct cst_dir *dir);
/* It has another prefix from now on (a rename above it): what is known of it is forgotten but for held names. Requests under way are made once more at the
 * new place, and readers of an unfinished listing go on there after what they have. */
void cst_dir_move(struct cst_dir *dir, struct cst_slice prefix);

/* A listing being read. Its entries keep their positions until it is closed, whatever happens to the directory. */
struct cst_listing;
struct cst_listing *cst_dir_open(struct cst_dir *dir);		  /* starts or joins one; never NULL */
struct cst_listing *cst_listing_ref(struct cst_listing *listing); /* one more to close */
void cst_listing_close(struct cst_listing *listing);

struct cst_listing_wait {
	void (*done)(struct cst_listing_wait *wait);
	TAILQ_ENTRY(cst_listing_wait) link; /* private */
	bool queued;			    /* private */
};
/* Calls `each` for entries from `from` on, under the directory's lock, until it returns false or what has arrived ends.
 * Returns 0: stopped by `each`, or there was at least one; -EAGAIN: none yet: `wait` is queued and its done will be called when there is
 * news; -ENOENT: the end; else the listing failed (err is set). *next: where to go on. */
int cst_listing_read(struct cst_listing *listing, size_t from, size_t *next, struct cst_listing_wait *wait,
		     bool (*each)(void *arg, size_t i, const struct cst_name_view *view, struct cst_object_attr *attr,
				  int64_t at),
		     void *arg, struct cst_error *err);
/* True: done will not come. */
bool cst_listing_leave(struct cst_listing *listing, struct cst_listing_wait *wait);
/* A few bits that tell whether the entry before position `i` is still the one it was. */
uint32_t cst_listing_tag(struct cst_slice name);
#define CST_LISTING_TAG_BITS 23
/* Where to go on after the entry that was at i - 1 and had this tag: i, or where it is now in another listing. */
size_t cst_listing_resume(struct cst_listing *listing, size_t i, uint32_t tag);
/* Has it been in memory for longer than list_ttl, or failed? */
bool cst_listing_is_old(struct cst_listing *listing);
