/* A bucket in memory behind the functions of object.h and fetch.h, for programs that link the file system without the layers that do
 * network requests. Operations end on one thread of the fake's own; they can be held back, so that a test decides what happens
 * meanwhile, and fail on demand. Reads are cached in blocks of 16 bytes per fetch object. */
#pragma once

#include "fetch/fetch.h"
#include "object/write.h"

struct cst_bucket *fake_bucket_new(void);
void fake_bucket_free(struct cst_bucket *b);
/* Creates or replaces; the content is `size` bytes that depend on the etag. meta: "name=value\n…" or NULL. */
void fake_put(struct cst_bucket *b, const char *key, uint64_t size, const char *etag, int64_t mtime, const char *meta);
void fake_put_symlink(struct cst_bucket *b, const char *key, const char *target);
void fake_put_text(struct cst_bucket *b, const char *key, const char *text, const char *etag, const char *meta);
void fake_put_key(struct cst_bucket *b, struct cst_slice key, const char *etag);
void fake_delete(struct cst_bucket *b, const char *key);
char fake_byte(const char *etag, uint64_t offset);

void fake_hold(struct cst_bucket *b, bool hold);	    /* false lets everything go */
void fake_hold_head(struct cst_bucket *b, const char *key); /* the HEADs of one key; "": of none */
/* The operations that write one key; "": of none. */
void fake_hold_write(struct cst_bucket *b, const char *key);
/* The next `count` operations of a kind fail. `lost`: they do their work all the same, and fail so. */
enum fake_kind { FAKE_PUT, FAKE_COPY, FAKE_DELETE };
struct fake_failure {
	unsigned count;
	enum fake_kind kind;
	int rc;
	bool lost;
};
void fake_fail_next(struct cst_bucket *b, enum fake_kind kind, unsigned count, int rc, bool lost);
/* Does the object have this content? NULL: is it absent? */
bool fake_has(struct cst_bucket *b, const char *key, const char *text);
/* And exactly this metadata, "name=value\n…"? */
bool fake_has_meta(struct cst_bucket *b, const char *key, const char *meta);
/* Appends the bytes of an object, if it is there. */
void fake_content(struct cst_bucket *b, struct cst_slice key, struct cst_buf *out);
void fake_copy_max(struct cst_bucket *b, uint64_t bytes);
/* Waits until this many operations are held. */
void fake_wait_held(struct cst_bucket *b, unsigned count);
void fake_fail(struct cst_bucket *b, int rc, const char *api); /* all operations; 0: no longer */
/* Pages asked for with a token fail as if it had expired. */
void fake_expire_tokens(struct cst_bucket *b, bool expired);
/* Each listing begins with a page without keys. */
void fake_empty_pages(struct cst_bucket *b, bool empty);
void fake_page_size(struct cst_bucket *b, unsigned keys);
/* Each page is delivered twice: first the half of it, then a restart. */
void fake_retry_pages(struct cst_bucket *b, bool retry);

struct fake_counts {
	unsigned heads, lists, gets, symlinks, in_flight, max_in_flight;
	unsigned puts, copies, deletes, parts;
	unsigned data_gets;  /* of the fetch layer: reads of what was not there, and files fetched ahead */
	unsigned prefetches; /* of them ahead */
};
struct fake_counts fake_counts(struct cst_bucket *b);
void fake_reset_counts(struct cst_bucket *b);

struct cst_fetch *fake_fetch_new(struct cst_bucket *b);
void fake_fetch_free(struct cst_fetch *f);
unsigned fake_fetch_objects(const struct cst_fetch *f); /* alive */
void fake_fetch_refuse_prefetch(struct cst_fetch *f, bool refuse);
/* What the object of a key reads and saves through now; NULL: nothing, or there is no such object. */
struct cst_fetch_local *fake_fetch_local(struct cst_fetch *f, const char *key);
