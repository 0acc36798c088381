/* The object layer and the local cache of the tests of fetch: GETs, and what the cache is asked to read or keep, wait in lists until the
 * test answers them, so every order of events is chosen. One thread unless said otherwise. */
#pragma once

#include "fetch/fetch.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#define MIB (1u << 20)
#define KIB (1u << 10)
#define BLOCK CST_FETCH_BLOCK

/* ---- the origin ---- */

struct cst_object_op {
	struct cst_object_get get;
	struct iovec into[256];
	cst_object_get_fn fn;
	void *arg;
	bool cancelled, hurried;
	size_t shown;
	char key[64];
	char if_match[CST_ETAG_MAX];
	TAILQ_ENTRY(cst_object_op) link;
};

struct store {
	pthread_mutex_t lock;
	TAILQ_HEAD(, cst_object_op) ops;
	unsigned count, total, background, cancelled;
	uint64_t bytes, limited;
	uint64_t size;
	int64_t mtime;
	char etag[CST_ETAG_MAX];
};
extern struct store store;

/* Answers one waiting GET as the store would; thread safe. */
void answer_op(struct cst_object_op *op, int rc);
void answer(int rc); /* the first */
void answer_all(void);
struct cst_object_op *op_at(unsigned n); /* the n-th that waits; NULL */
/* The first `got` bytes of a GET have come. */
void progress(struct cst_object_op *op, size_t got);

/* ---- the local cache: one object ---- */

#define CACHE_BLOCKS 2048
enum cache_manner {
	CACHE_AT_ONCE, /* answers before the call returns */
	CACHE_LATER,   /* the test answers: cache_answer() */
};
struct cache_call {
	bool is_save, must;
	uint64_t first;
	unsigned count;
	struct iovec iov[256];
	cst_fetch_local_fn done;
	void *arg;
	TAILQ_ENTRY(cache_call) link;
};
struct cache {
	struct cst_fetch_local local;
	pthread_mutex_t lock;
	int refs;
	enum cache_manner manner;
	int read_rc, save_rc; /* what calls end with */
	bool refuse;	      /* saves that need not be taken */
	bool refuse_all;
	uint64_t size;
	bool there[CACHE_BLOCKS];
	unsigned reads, saves, refused, musts;
	uint64_t bytes_saved;
	TAILQ_HEAD(, cache_call) calls;
};
void cache_init(struct cache *c, uint64_t size); /* one reference: the test's */
void cache_fini(struct cache *c);		 /* nobody else may have one */
void cache_add(struct cache *c, uint64_t first, unsigned count);
bool cache_answer(struct cache *c); /* the first call that waits; false: none. Thread safe. */
unsigned cache_count(const struct cache *c);

/* ---- readers ---- */

struct reader {
	struct cst_fetch_read read;
	int rc, calls;
	int code; /* of the error */
	bool ready;
	char why[640];
};
void read_done(struct cst_fetch_read *r, int rc, const struct cst_error *err); /* compares the bytes */
void start_read(struct reader *reader, struct cst_fetch_stream *s, uint64_t offset, uint32_t length);
/* Starts, answers all, expects all its bytes, releases. */
void read_now(struct cst_fetch_stream *s, uint64_t offset, uint32_t length);

struct cst_fetch *make_with(struct cst_fetch_config config);
struct cst_fetch *make(uint64_t memory);
struct cst_fetch_object *object(struct cst_fetch *f, uint64_t size);
struct cst_fetch_object *object_named(struct cst_fetch *f, const char *key, uint64_t size);
/* Gives up the last object and stream; nothing may be left in memory. */
void end(struct cst_fetch *f, struct cst_fetch_object *o, struct cst_fetch_stream *s);
struct cst_fetch_stats stats_of(struct cst_fetch *f);
