/* An index over a directory of its own, and shorthands for what tests do with it. */
#pragma once

#include "index_check.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1024) * KIB)

struct fixture {
	char path[80];
	int dir;
	struct cst_index_config config;
	struct cst_index *x;
	int failures; /* calls of failed() */
	int fail_rc;
};

static inline void on_failed(void *arg, int rc, const char *what)
{
	struct fixture *f = arg;
	(void)what;
	f->fail_rc = rc;
	__atomic_add_fetch(&f->failures, 1, __ATOMIC_SEQ_CST);
}

static inline void fixture_dir(struct fixture *f, uint64_t quota)
{
	const char *base = getenv("TMPDIR");
	snprintf(f->path, sizeof(f->path), "%.40s/cst-index-XXXXXX", base ? base : "/tmp");
	assert_non_null(mkdtemp(f->path));
	f->dir = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(f->dir >= 0);
	f->config = (struct cst_index_config){
		.dir = f->dir, .limits = {.quota = quota, .high = 0.9, .low = 0.8}, .failed = on_failed, .arg = f};
}

static inline void fixture_open(struct fixture *f)
{
	struct cst_error err = CST_ERROR_INIT;
	f->x = cst_index_open(&f->config, &err);
	assert_non_null(f->x);
	index_check(f->x);
}

static inline void fixture_close(struct fixture *f)
{
	if (!f->x)
		return;
	index_check(f->x);
	cst_index_close(cst_steal(f->x));
}

static inline int fixture_new(void **state, uint64_t quota)
{
	struct fixture *f = CST_NEW(struct fixture);
	fixture_dir(f, quota);
	fixture_open(f);
	*state = f;
	return 0;
}

static inline int fixture_free(void **state)
{
	struct fixture *f = *state;
	char command[120];
	fixture_close(f);
	close(f->dir);
	snprintf(command, sizeof(command), "rm -rf '%s'", f->path);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

/* Waits for what threads of the index do. */
#define eventually(condition)                                     \
	do {                                                      \
		int64_t _end = cst_now() + 30 * CST_NS_PER_S;     \
		bool _met;                                        \
		while (!(_met = (condition)) && cst_now() < _end) \
			cst_sleep(CST_NS_PER_MS);                 \
		assert_true(_met);                                \
	} while (0)

static inline struct cst_index_stats stats_of(struct fixture *f)
{
	struct cst_index_stats s;
	cst_index_stats(f->x, &s);
	return s;
}

/* Everything has been looked at since the start. */
static inline bool searched(struct fixture *f)
{
	pthread_mutex_lock(&f->x->lock);
	bool done = f->x->check_at == 0 && f->x->scan_folder == SCAN_DONE;
	pthread_mutex_unlock(&f->x->lock);
	return done;
}

struct object {
	char key[40];
	struct cst_cache_identity id;
};

/* Object number n, of that size, version v. */
static inline struct object object(unsigned n, uint64_t size, unsigned v)
{
	struct object o;
	char etag[16];
	struct cst_cache_identity whole;
	snprintf(o.key, sizeof(o.key), "data/%06u", n);
	snprintf(etag, sizeof(etag), "\"%u\"", v);
	cst_cache_identify(&whole, CST_SLICE("oss://b"), cst_slice_of(o.key), cst_slice_of(etag), size);
	o.id = whole;
	return o;
}

/* The identity with its texts, which must outlive it. */
static inline struct cst_cache_identity *full_id(struct object *o, char etag[16], unsigned v)
{
	snprintf(etag, 16, "\"%u\"", v);
	uint64_t size = o->id.size;
	cst_cache_identify(&o->id, CST_SLICE("oss://b"), cst_slice_of(o->key), cst_slice_of(etag), size);
	return &o->id;
}

static inline int open_as(struct fixture *f, unsigned n, uint64_t size, unsigned v, bool create, bool pin,
			  struct cst_index_entry *e, bool *created)
{
	char etag[16];
	struct object o = object(n, size, v);
	return cst_index_entry_open(f->x, full_id(&o, etag, v), create, pin, e, created);
}

static inline bool is_there(struct fixture *f, unsigned n, uint64_t size, unsigned v)
{
	struct object o = object(n, size, v);
	bool there;
	pthread_mutex_lock(&f->x->lock);
	uint32_t i = table_find(&f->x->table, o.id.name, o.id.version);
	there = i && entry_found(at(f->x, i));
	pthread_mutex_unlock(&f->x->lock);
	return there;
}

static inline void close_entry(struct fixture *f, const struct cst_index_entry *e)
{
	cst_index_entry_close(f->x, e->name, e->version);
}

/* An extent with `bytes` charged, in use. */
static inline struct cst_index_entry fill(struct fixture *f, unsigned n, uint64_t size, uint64_t bytes)
{
	struct cst_index_entry e;
	bool created;
	assert_int_equal(open_as(f, n, size, 1, true, false, &e, &created), 0);
	if (bytes)
		assert_int_equal(cst_index_charge(f->x, e.name, e.version, (int64_t)bytes), 0);
	return e;
}

/* A slot, committed and in use. */
static inline int put(struct fixture *f, unsigned n, uint64_t size, unsigned v, struct cst_index_entry *e)
{
	char etag[16];
	struct object o = object(n, size, v);
	int rc = cst_index_slot_reserve(f->x, full_id(&o, etag, v), false, e);
	return rc < 0 ? rc : cst_index_slot_commit(f->x, e, true);
}

static inline bool file_exists(struct fixture *f, const struct cst_index_entry *e)
{
	char path[CST_FILE_NAME_MAX];
	struct stat st;
	cst_extent_name(e->name, e->version, ".data", path);
	return fstatat(f->dir, path, &st, 0) == 0;
}
