#include "fake_origin.h"

struct fake_origin origin = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

struct cst_fetch_object {
	struct cst_ref ref;
	char key[64], etag[16];
	uint64_t size;
	struct cst_fetch_local *local;
};
struct cst_fetch_fill_state {
	struct cst_fetch_object *object;
	struct cst_fetch_fill *fill;
	bool cancelled, ended;
};
struct cst_object_op {
	struct cst_ref ref;
	struct cst_object_list_ops ops;
	char prefix[64], token[64];
	cst_object_head_fn head;
	void *arg;
	bool cancelled;
};

void origin_begin(void)
{
	origin.count = origin.lists = origin.heads = origin.fills = origin.filling = origin.filling_most =
		origin.cancelled = 0;
	origin.list_rc = 0;
	origin.hold = false;
	origin.page = 100;
	origin.bytes = 0;
	origin.pool = cst_pool_new("origin", 8);
}

void origin_end(void)
{
	cst_pool_free(origin.pool);
}

struct fake_object *origin_add(const char *key, const char *etag, uint64_t size)
{
	assert_true(origin.count < FAKE_OBJECTS);
	struct fake_object *f = &origin.objects[origin.count++];
	*f = (struct fake_object){.size = size};
	snprintf(f->key, sizeof(f->key), "%s", key);
	snprintf(f->etag, sizeof(f->etag), "%s", etag);
	assert_true(origin.count < 2 || strcmp(origin.objects[origin.count - 2].key, key) < 0);
	return f;
}

void origin_hold(bool hold)
{
	pthread_mutex_lock(&origin.lock);
	origin.hold = hold;
	pthread_cond_broadcast(&origin.changed);
	pthread_mutex_unlock(&origin.lock);
}

static struct fake_object *find(const char *key, size_t len)
{
	for (unsigned i = 0; i < origin.count; i++) {
		if (strlen(origin.objects[i].key) == len && memcmp(origin.objects[i].key, key, len) == 0)
			return &origin.objects[i];
	}
	return NULL;
}

/* ---- listing and asking ---- */

void cst_object_release(struct cst_object_op *op)
{
	if (op && cst_ref_put(&op->ref))
		free(op);
}

void cst_object_cancel(struct cst_object_op *op)
{
	__atomic_store_n(&op->cancelled, true, __ATOMIC_RELAXED);
}

static void fill_info(struct cst_object_info *info, const char *key, uint64_t size, const char *etag)
{
	*info = (struct cst_object_info){.key = cst_slice_of(key), .size = size};
	snprintf(info->etag, sizeof(info->etag), "%s", etag);
}

static void list_run(void *arg)
{
	struct cst_object_op *op = arg;
	struct cst_error err = CST_ERROR_INIT;
	struct cst_object_list_page page = {0};
	pthread_mutex_lock(&origin.lock);
	unsigned number = ++origin.lists;
	pthread_mutex_unlock(&origin.lock);
	int rc = op->cancelled ? -ECANCELED : number == 2 ? origin.list_rc : 0;
	char last[64] = "";
	for (unsigned i = 0; rc == 0 && i < origin.count; i++) {
		struct fake_object *f = &origin.objects[i];
		if (strncmp(f->key, op->prefix, strlen(op->prefix)) != 0 || strcmp(f->key, op->token) <= 0)
			continue;
		if (page.count == origin.page) {
			page.truncated = true;
			break;
		}
		/* Each page comes a second time from its start. */
		if (page.count++ == 1)
			op->ops.restart(op->arg);
		struct cst_object_list_entry e = {0};
		for (unsigned k = page.count == 2 ? i - 1 : i; k <= i; k++) {
			fill_info(&e.info, origin.objects[k].key, origin.objects[k].size, origin.objects[k].etag);
			op->ops.entry(op->arg, &e);
		}
		strcpy(last, f->key);
	}
	page.next_token = cst_slice_of(last);
	if (rc != 0)
		cst_error_set(&err, -rc, "can't list");
	op->ops.done(op->arg, rc, &page, &err);
	cst_object_release(op);
}

struct cst_object_op *cst_object_list(struct cst_bucket *b, const struct cst_object_list *list,
				      const struct cst_object_list_ops *ops, void *arg)
{
	(void)b;
	struct cst_object_op *op = CST_NEW(struct cst_object_op);
	*op = (struct cst_object_op){.ref = {2}, .ops = *ops, .arg = arg};
	snprintf(op->prefix, sizeof(op->prefix), "%.*s", (int)list->prefix.len, list->prefix.data);
	snprintf(op->token, sizeof(op->token), "%.*s", (int)list->token.len, list->token.data ? list->token.data : "");
	assert_int_equal(list->delimiter, NULL);
	cst_pool_submit(origin.pool, list_run, op);
	return op;
}

static void head_run(void *arg)
{
	struct cst_object_op *op = arg;
	struct cst_error err = CST_ERROR_INIT;
	struct cst_object_info info;
	pthread_mutex_lock(&origin.lock);
	origin.heads++;
	pthread_mutex_unlock(&origin.lock);
	struct fake_object *f = find(op->prefix, strlen(op->prefix));
	int rc = !f || f->gone ? -ENOENT : 0;
	if (rc == 0 && f->new_etag[0])
		fill_info(&info, f->key, f->new_size, f->new_etag);
	else if (rc == 0)
		fill_info(&info, f->key, f->size, f->etag);
	else
		cst_error_set(&err, -rc, "no such key");
	op->head(op->arg, rc, rc == 0 ? &info : NULL, &err);
	cst_object_release(op);
}

struct cst_object_op *cst_object_head(struct cst_bucket *b, struct cst_slice key, bool light, cst_object_head_fn fn,
				      void *arg)
{
	(void)b;
	(void)light;
	struct cst_object_op *op = CST_NEW(struct cst_object_op);
	*op = (struct cst_object_op){.ref = {2}, .head = fn, .arg = arg};
	snprintf(op->prefix, sizeof(op->prefix), "%.*s", (int)key.len, key.data);
	cst_pool_submit(origin.pool, head_run, op);
	return op;
}

/* ---- fills ---- */

struct cst_fetch_object *cst_fetch_object_new(struct cst_fetch *f, struct cst_slice key, const char *etag,
					      uint64_t size)
{
	(void)f;
	struct cst_fetch_object *o = CST_NEW(struct cst_fetch_object);
	cst_ref_init(&o->ref);
	o->size = size;
	snprintf(o->key, sizeof(o->key), "%.*s", (int)key.len, key.data);
	snprintf(o->etag, sizeof(o->etag), "%s", etag);
	return o;
}

struct cst_fetch_object *cst_fetch_object_ref(struct cst_fetch_object *o)
{
	cst_ref_get(&o->ref);
	return o;
}

void cst_fetch_object_unref(struct cst_fetch_object *o)
{
	if (!o || !cst_ref_put(&o->ref))
		return;
	if (o->local)
		o->local->ops->unref(o->local);
	free(o);
}

void cst_fetch_object_set_local(struct cst_fetch_object *o, struct cst_fetch_local *local)
{
	local->ops->ref(local);
	o->local = local;
}

bool cst_fetch_object_is_stale(const struct cst_fetch_object *o)
{
	(void)o;
	return false;
}

struct fetched {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	int rc;
};

static void saved(void *arg, int rc)
{
	struct fetched *f = arg;
	pthread_mutex_lock(&f->lock);
	f->done = true;
	f->rc = rc;
	pthread_cond_signal(&f->cond);
	pthread_mutex_unlock(&f->lock);
}

static int save_range(struct cst_fetch_local *l, const struct cst_fetch_object *o, uint64_t first, uint64_t count)
{
	struct fetched f = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0};
	size_t len = (size_t)(cst_min(o->size, (first + count) * BLOCK) - first * BLOCK);
	CST_AUTO_FREE char *memory = cst_xmalloc(len);
	bytes_make(o->key, first * BLOCK, memory, len);
	struct iovec iov = {memory, len};
	if (!l->ops->save(l, first, &iov, 1, true, saved, &f))
		return -ENOSPC;
	pthread_mutex_lock(&f.lock);
	while (!f.done)
		pthread_cond_wait(&f.cond, &f.lock);
	pthread_mutex_unlock(&f.lock);
	return f.rc;
}

/* Why a GET of this version fails, if it does. */
static int origin_rc(const struct cst_fetch_object *o)
{
	const struct fake_object *f = find(o->key, strlen(o->key));
	if (!f || f->gone || strcmp(f->new_etag[0] ? f->new_etag : f->etag, o->etag) != 0)
		return -ESTALE;
	return f->rc;
}

static bool held(struct cst_fetch_fill_state *s)
{
	pthread_mutex_lock(&origin.lock);
	while (origin.hold && !s->cancelled)
		pthread_cond_wait(&origin.changed, &origin.lock);
	bool cancelled = s->cancelled;
	pthread_mutex_unlock(&origin.lock);
	return cancelled;
}

static int fill_ranges(struct cst_fetch_fill_state *s, struct cst_fetch_local *l)
{
	struct cst_fetch_object *o = s->object;
	uint64_t blocks = (o->size + BLOCK - 1) / BLOCK;
	for (uint64_t b = 0; b < blocks;) {
		bool there;
		unsigned n = l->ops->probe(l, b, (unsigned)cst_min(blocks - b, UINT64_C(8)), &there);
		if (there) {
			b += n;
			continue;
		}
		if (held(s))
			return -ECANCELED;
		int rc = origin_rc(o);
		if (rc != 0)
			return rc;
		uint64_t len = cst_min(o->size, (b + n) * BLOCK) - b * BLOCK;
		__atomic_fetch_add(&s->fill->bytes_fetched, len, __ATOMIC_RELAXED);
		__atomic_fetch_add(&origin.bytes, len, __ATOMIC_RELAXED);
		rc = save_range(l, o, b, n);
		if (rc != 0)
			return rc;
		__atomic_fetch_add(&s->fill->bytes_saved, len, __ATOMIC_RELAXED);
		b += n;
	}
	return 0;
}

static void fill_run(void *arg)
{
	struct cst_fetch_fill_state *s = arg;
	struct cst_error err = CST_ERROR_INIT;
	struct cst_fetch_local *l = s->fill->local ? s->fill->local : s->object->local;
	int rc = fill_ranges(s, l);
	if (rc != 0)
		cst_error_set(&err, -rc, "can't read %s", s->object->key);
	if (rc == -EIO)
		cst_error_why(&err, "the object is archived");
	pthread_mutex_lock(&origin.lock);
	origin.filling--;
	s->ended = true;
	s->fill->state = NULL;
	pthread_mutex_unlock(&origin.lock);
	struct cst_fetch_object *o = s->object;
	s->fill->done(s->fill, rc, &err);
	cst_fetch_object_unref(o);
	free(s);
}

void cst_fetch_fill(struct cst_fetch_object *o, struct cst_fetch_fill *fill)
{
	struct cst_fetch_fill_state *s = CST_NEW(struct cst_fetch_fill_state);
	*s = (struct cst_fetch_fill_state){.object = cst_fetch_object_ref(o), .fill = fill};
	pthread_mutex_lock(&origin.lock);
	fill->state = s;
	origin.fills++;
	origin.filling_most = cst_max(origin.filling_most, ++origin.filling);
	pthread_mutex_unlock(&origin.lock);
	cst_pool_submit(origin.pool, fill_run, s);
}

void cst_fetch_fill_cancel(struct cst_fetch_fill *fill)
{
	pthread_mutex_lock(&origin.lock);
	if (fill->state) {
		fill->state->cancelled = true;
		origin.cancelled++;
		pthread_cond_broadcast(&origin.changed);
	}
	pthread_mutex_unlock(&origin.lock);
}

struct cst_fetch_object *fake_fetch_object(struct cst_cache_object *o)
{
	return cst_fetch_object_new(NULL, o->id.key, o->id.etag.data, o->id.size);
}
