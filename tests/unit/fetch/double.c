#include "double.h"

struct store store = {.lock = PTHREAD_MUTEX_INITIALIZER, .ops = TAILQ_HEAD_INITIALIZER(store.ops)};

/* The object's bytes: runs of 64 equal ones, so that they are written and compared a run at a time. */
#define RUN 64u
static char pattern(uint64_t offset)
{
	uint64_t run = offset / RUN;
	return (char)(run * 2654435761u >> 13 ^ run >> 11); /* differs at the same place of other blocks */
}

static size_t run_length(uint64_t offset, size_t most)
{
	return cst_min(RUN - offset % RUN, most);
}

static void fill(char *to, uint64_t offset, size_t len)
{
	for (size_t at = 0, n; at < len; at += n) {
		n = run_length(offset + at, len - at);
		memset(to + at, pattern(offset + at), n);
	}
}

static void compare(const char *bytes, uint64_t offset, size_t len)
{
	char want[RUN];
	for (size_t at = 0, n; at < len; at += n) {
		n = run_length(offset + at, len - at);
		memset(want, pattern(offset + at), n);
		if (memcmp(bytes + at, want, n) != 0)
			fail_msg("wrong bytes at %llu", (unsigned long long)(offset + at));
	}
}

struct cst_object_op *cst_object_get(struct cst_bucket *b, const struct cst_object_get *get, cst_object_get_fn fn,
				     void *arg)
{
	(void)b;
	struct cst_object_op *op = CST_NEW(struct cst_object_op);
	op->get = *get;
	assert_true(get->into_count <= 256 && get->key.len < sizeof(op->key));
	memcpy(op->into, get->into, (size_t)get->into_count * sizeof(op->into[0]));
	memcpy(op->key, get->key.data, get->key.len);
	snprintf(op->if_match, sizeof(op->if_match), "%s", get->if_match ? get->if_match : "");
	op->fn = fn;
	op->arg = arg;
	pthread_mutex_lock(&store.lock);
	TAILQ_INSERT_TAIL(&store.ops, op, link);
	store.count++;
	store.total++;
	store.background += get->background;
	store.bytes += get->length;
	pthread_mutex_unlock(&store.lock);
	return op;
}
void cst_object_cancel(struct cst_object_op *op)
{
	__atomic_store_n(&op->cancelled, true, __ATOMIC_RELAXED);
	__atomic_fetch_add(&store.cancelled, 1, __ATOMIC_RELAXED);
}
void cst_object_hurry(struct cst_object_op *op)
{
	__atomic_store_n(&op->hurried, true, __ATOMIC_RELAXED);
}
void cst_bucket_stats(const struct cst_bucket *b, struct cst_bucket_stats *stats)
{
	(void)b;
	*stats = (struct cst_bucket_stats){.limited = __atomic_load_n(&store.limited, __ATOMIC_RELAXED)};
}
void cst_object_release(struct cst_object_op *op)
{
	free(op);
}

/* Bytes up to `end`; those that were shown are not written again. */
static size_t put_bytes(struct cst_object_op *op, uint64_t end)
{
	uint64_t offset = op->get.offset, shown = offset + op->shown;
	for (int i = 0; i < op->get.into_count && offset < end; i++) {
		size_t n = cst_min(op->into[i].iov_len, end - offset);
		size_t skip = shown > offset ? cst_min(n, shown - offset) : 0;
		fill((char *)op->into[i].iov_base + skip, offset + skip, n - skip);
		offset += n;
	}
	return offset - op->get.offset;
}

void progress(struct cst_object_op *op, size_t got)
{
	struct cst_object_info info = {.size = store.size, .mtime = store.mtime};
	memcpy(info.etag, store.etag, sizeof(info.etag));
	assert_non_null(op->get.progress);
	assert_true(got < op->get.length);
	put_bytes(op, op->get.offset + got);
	op->shown = got;
	op->get.progress(op->arg, got, &info);
}

struct cst_object_op *op_at(unsigned n)
{
	struct cst_object_op *op = TAILQ_FIRST(&store.ops);
	while (op && n--)
		op = TAILQ_NEXT(op, link);
	return op;
}

void answer_op(struct cst_object_op *op, int rc)
{
	pthread_mutex_lock(&store.lock);
	TAILQ_REMOVE(&store.ops, op, link);
	store.count--;
	pthread_mutex_unlock(&store.lock);
	struct cst_object_info info = {.size = store.size, .mtime = store.mtime};
	memcpy(info.etag, store.etag, sizeof(info.etag));
	struct cst_error err = CST_ERROR_INIT;
	if (__atomic_load_n(&op->cancelled, __ATOMIC_RELAXED))
		rc = -ECANCELED;
	if (rc == 0 && op->if_match[0] && strcmp(op->if_match, store.etag) != 0)
		rc = -ESTALE;
	size_t got = 0;
	if (rc == 0) {
		got = put_bytes(op, cst_min(op->get.offset + op->get.length, store.size));
	} else {
		cst_error_set(&err, -rc, "can't read %s", op->key);
		cst_error_why(&err, "told so");
	}
	op->fn(op->arg, rc, got, &info, rc < 0 ? &err : NULL);
}

void answer(int rc)
{
	struct cst_object_op *op = TAILQ_FIRST(&store.ops);
	assert_non_null(op);
	answer_op(op, rc);
}

void answer_all(void)
{
	while (!TAILQ_EMPTY(&store.ops))
		answer(0);
}

void read_done(struct cst_fetch_read *r, int rc, const struct cst_error *err)
{
	struct reader *reader = r->arg;
	reader->rc = rc;
	reader->calls++;
	reader->code = err ? err->code : 0;
	snprintf(reader->why, sizeof(reader->why), "%s", err ? err->why : "");
	if (rc >= 0) {
		uint64_t offset = r->offset;
		size_t sum = 0;
		for (int i = 0; i < r->iov_count; i++) {
			compare(r->iov[i].iov_base, offset, r->iov[i].iov_len);
			offset += r->iov[i].iov_len;
			sum += r->iov[i].iov_len;
		}
		assert_int_equal(sum, rc);
	} else {
		assert_non_null(err);
	}
}

void start_read(struct reader *reader, struct cst_fetch_stream *s, uint64_t offset, uint32_t length)
{
	*reader = (struct reader){.read = {.offset = offset, .length = length, .done = read_done, .arg = reader}};
	cst_fetch_read(s, &reader->read);
}

struct cst_fetch *make_with(struct cst_fetch_config config)
{
	config.bucket = (struct cst_bucket *)&store;
	config.prefetch = true;
	struct cst_error err = CST_ERROR_INIT;
	struct cst_fetch *f = cst_fetch_new(&config, &err);
	assert_non_null(f);
	store.count = store.total = store.background = store.cancelled = 0;
	store.bytes = store.limited = 0;
	strcpy(store.etag, "v1");
	return f;
}

struct cst_fetch *make(uint64_t memory)
{
	return make_with((struct cst_fetch_config){.memory = memory});
}

struct cst_fetch_object *object_named(struct cst_fetch *f, const char *key, uint64_t size)
{
	store.size = size;
	return cst_fetch_object_new(f, cst_slice_of(key), "v1", size);
}

struct cst_fetch_object *object(struct cst_fetch *f, uint64_t size)
{
	return object_named(f, "key", size);
}

struct cst_fetch_stats stats_of(struct cst_fetch *f)
{
	struct cst_fetch_stats stats;
	cst_fetch_stats(f, &stats);
	return stats;
}

void read_now(struct cst_fetch_stream *s, uint64_t offset, uint32_t length)
{
	struct reader r;
	start_read(&r, s, offset, length);
	answer_all();
	assert_int_equal(r.calls, 1);
	assert_int_equal(r.rc, length);
	cst_fetch_read_release(&r.read);
}

void end(struct cst_fetch *f, struct cst_fetch_object *o, struct cst_fetch_stream *s)
{
	cst_fetch_stream_free(s);
	cst_fetch_object_unref(o);
	answer_all();
	struct cst_fetch_stats stats;
	cst_fetch_stats(f, &stats);
	assert_int_equal(stats.memory_used, 0);
	assert_int_equal(stats.requests_in_flight, 0);
	cst_fetch_free(f);
}

/* ---- the local cache ---- */

static void cache_ref(struct cst_fetch_local *l)
{
	__atomic_fetch_add(&((struct cache *)l)->refs, 1, __ATOMIC_RELAXED);
}

static void cache_unref(struct cst_fetch_local *l)
{
	__atomic_fetch_sub(&((struct cache *)l)->refs, 1, __ATOMIC_ACQ_REL);
}

static unsigned cache_probe(struct cst_fetch_local *l, uint64_t first, unsigned count, bool *there)
{
	struct cache *c = (struct cache *)l;
	unsigned n = 1;
	pthread_mutex_lock(&c->lock);
	assert_true(first + count <= CACHE_BLOCKS);
	*there = c->there[first];
	while (n < count && c->there[first + n] == *there)
		n++;
	pthread_mutex_unlock(&c->lock);
	return n;
}

static uint64_t block_bytes(const struct cache *c, uint64_t block)
{
	return cst_min((uint64_t)BLOCK, c->size - block * BLOCK);
}

/* Whole blocks, no more and no less. */
static void check_vectors(const struct cache *c, uint64_t first, const struct iovec *iov, int count)
{
	uint64_t offset = first * BLOCK, sum = 0;
	for (int i = 0; i < count; i++)
		sum += iov[i].iov_len;
	assert_true(offset + sum <= c->size);
	assert_true(sum % BLOCK == 0 || offset + sum == c->size);
}

static unsigned blocks_of(const struct iovec *iov, int count)
{
	uint64_t sum = 0;
	for (int i = 0; i < count; i++)
		sum += iov[i].iov_len;
	return (unsigned)((sum + BLOCK - 1) / BLOCK);
}

static void carry_out(struct cache *c, struct cache_call *call)
{
	uint64_t offset = call->first * BLOCK;
	int vectors = (int)call->count;
	unsigned blocks = blocks_of(call->iov, vectors);
	pthread_mutex_lock(&c->lock);
	int rc = call->is_save ? c->save_rc : c->read_rc;
	for (int i = 0; i < vectors && rc == 0; i++) {
		if (call->is_save)
			compare(call->iov[i].iov_base, offset, call->iov[i].iov_len);
		else
			fill(call->iov[i].iov_base, offset, call->iov[i].iov_len);
		offset += call->iov[i].iov_len;
	}
	for (uint64_t b = call->first; b < call->first + blocks; b++) {
		if (call->is_save && rc == 0) {
			c->bytes_saved += c->there[b] ? 0 : block_bytes(c, b);
			c->there[b] = true;
		} else if (!call->is_save && rc < 0) {
			c->there[b] = false; /* it no longer claims to have what was bad */
		}
	}
	pthread_mutex_unlock(&c->lock);
	call->done(call->arg, rc);
	free(call);
}

static void take_call(struct cache *c, bool is_save, uint64_t first, const struct iovec *iov, int iov_count, bool must,
		      cst_fetch_local_fn done, void *arg)
{
	check_vectors(c, first, iov, iov_count);
	assert_true(iov_count <= 256);
	struct cache_call *call = CST_NEW(struct cache_call);
	*call = (struct cache_call){.is_save = is_save,
				    .must = must,
				    .first = first,
				    .count = (unsigned)iov_count,
				    .done = done,
				    .arg = arg};
	memcpy(call->iov, iov, (size_t)iov_count * sizeof(*iov));
	if (c->manner == CACHE_AT_ONCE) {
		carry_out(c, call);
		return;
	}
	pthread_mutex_lock(&c->lock);
	TAILQ_INSERT_TAIL(&c->calls, call, link);
	pthread_mutex_unlock(&c->lock);
}

static void cache_read(struct cst_fetch_local *l, uint64_t first, const struct iovec *iov, int iov_count,
		       cst_fetch_local_fn done, void *arg)
{
	struct cache *c = (struct cache *)l;
	__atomic_fetch_add(&c->reads, 1, __ATOMIC_RELAXED);
	take_call(c, false, first, iov, iov_count, false, done, arg);
}

static bool cache_save(struct cst_fetch_local *l, uint64_t first, const struct iovec *iov, int iov_count, bool must,
		       cst_fetch_local_fn done, void *arg)
{
	struct cache *c = (struct cache *)l;
	if (c->refuse_all || (c->refuse && !must)) {
		__atomic_fetch_add(&c->refused, 1, __ATOMIC_RELAXED);
		return false;
	}
	if (c->size <= CST_FETCH_WHOLE)
		assert_true(first == 0 && blocks_of(iov, iov_count) == (c->size + BLOCK - 1) / BLOCK);
	__atomic_fetch_add(&c->saves, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&c->musts, must, __ATOMIC_RELAXED);
	take_call(c, true, first, iov, iov_count, must, done, arg);
	return true;
}

static const struct cst_fetch_local_ops cache_ops = {cache_ref, cache_unref, cache_probe, cache_read, cache_save};

void cache_init(struct cache *c, uint64_t size)
{
	*c = (struct cache){.local = {&cache_ops}, .refs = 1, .size = size};
	pthread_mutex_init(&c->lock, NULL);
	TAILQ_INIT(&c->calls);
}

void cache_fini(struct cache *c)
{
	assert_int_equal(__atomic_load_n(&c->refs, __ATOMIC_ACQUIRE), 1);
	assert_true(TAILQ_EMPTY(&c->calls));
	pthread_mutex_destroy(&c->lock);
}

void cache_add(struct cache *c, uint64_t first, unsigned count)
{
	memset(&c->there[first], true, count);
}

bool cache_answer(struct cache *c)
{
	pthread_mutex_lock(&c->lock);
	struct cache_call *call = TAILQ_FIRST(&c->calls);
	if (call)
		TAILQ_REMOVE(&c->calls, call, link);
	pthread_mutex_unlock(&c->lock);
	if (call)
		carry_out(c, call);
	return call != NULL;
}

unsigned cache_count(const struct cache *c)
{
	unsigned n = 0;
	for (unsigned i = 0; i < CACHE_BLOCKS; i++)
		n += c->there[i];
	return n;
}
