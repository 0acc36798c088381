#include "fake_bucket_private.h"

#define BLOCK 16

struct cst_fetch {
	struct cst_bucket *bucket;
	unsigned objects;
	bool refuse_prefetch;
	LIST_HEAD(, cst_fetch_object) all; /* the bucket's lock */
};

struct cst_fetch_object {
	struct cst_fetch *fetch;
	struct cst_ref ref;
	struct cst_buf key;
	char etag[CST_ETAG_MAX];
	uint64_t size;
	bool stale;
	bool *cached;  /* the bucket's lock */
	char *content; /* of what was written through the mount */
	struct cst_fetch_local *local;
	LIST_ENTRY(cst_fetch_object) link;
};

struct cst_fetch_stream {
	struct cst_fetch_object *object;
};

char fake_byte(const char *etag, uint64_t offset)
{
	return (char)('a' + (offset * 7 + (unsigned char)etag[offset % strlen(etag)]) % 26);
}

static int compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
	int c = memcmp(a, b, a_len < b_len ? a_len : b_len);
	return c ? c : (a_len > b_len) - (a_len < b_len);
}

static size_t place(const struct cst_bucket *b, const char *key, size_t len, bool *found)
{
	size_t low = 0, high = b->count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (compare(b->items[middle]->key, b->items[middle]->key_len, key, len) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*found = low < b->count && compare(b->items[low]->key, b->items[low]->key_len, key, len) == 0;
	return low;
}

const struct item *fake_find(const struct cst_bucket *b, struct cst_slice key)
{
	bool found;
	size_t i = place(b, key.data, key.len, &found);
	return found ? b->items[i] : NULL;
}

static void item_free(struct item *item)
{
	free(item->key);
	free(item->text);
	free(item->target);
	free(item->meta_text);
	free(item);
}

void fake_put_item(struct cst_bucket *b, struct item *item)
{
	bool found;
	size_t i = place(b, item->key, item->key_len, &found);
	if (found) {
		item_free(b->items[i]);
	} else {
		if (b->count == b->cap) {
			b->cap = b->cap ? b->cap * 2 : 64;
			b->items = cst_xrealloc(b->items, b->cap * sizeof(struct item *));
		}
		memmove(b->items + i + 1, b->items + i, (b->count - i) * sizeof(struct item *));
		b->count++;
	}
	b->items[i] = item;
}

static void put(struct cst_bucket *b, struct item *item)
{
	pthread_mutex_lock(&b->lock);
	fake_put_item(b, item);
	pthread_mutex_unlock(&b->lock);
}

struct item *fake_item_new(struct cst_slice key, uint64_t size, const char *etag, int64_t mtime, const char *meta)
{
	struct item *item = CST_NEW(struct item);
	item->key = cst_xcalloc(1, key.len + 1);
	memcpy(item->key, key.data, key.len);
	item->key_len = key.len;
	item->size = size;
	item->mtime = mtime;
	snprintf(item->etag, sizeof(item->etag), "%s", etag);
	item->meta_text = meta ? cst_xstrdup(meta) : NULL;
	struct cst_slice rest = cst_slice_of(item->meta_text);
	while (rest.len > 0) {
		struct cst_slice line = cst_slice_cut(&rest, '\n');
		struct cst_slice name = cst_slice_cut(&line, '=');
		item->meta[item->meta_count++] = (struct cst_http_header){name, line};
	}
	return item;
}

void fake_put(struct cst_bucket *b, const char *key, uint64_t size, const char *etag, int64_t mtime, const char *meta)
{
	put(b, fake_item_new(cst_slice_of(key), size, etag, mtime, meta));
}

void fake_put_key(struct cst_bucket *b, struct cst_slice key, const char *etag)
{
	put(b, fake_item_new(key, 1, etag, 1, NULL));
}

void fake_put_text(struct cst_bucket *b, const char *key, const char *text, const char *etag, const char *meta)
{
	struct item *item = fake_item_new(cst_slice_of(key), strlen(text), etag, 1000, meta);
	item->text = cst_xstrdup(text);
	put(b, item);
}

void fake_put_symlink(struct cst_bucket *b, const char *key, const char *target)
{
	struct item *item = fake_item_new(cst_slice_of(key), 0, "", 1000, NULL);
	item->target = cst_xstrdup(target);
	put(b, item);
}

void fake_remove_item(struct cst_bucket *b, struct cst_slice key)
{
	bool found;
	size_t i = place(b, key.data, key.len, &found);
	if (!found)
		return;
	item_free(b->items[i]);
	b->count--;
	memmove(b->items + i, b->items + i + 1, (b->count - i) * sizeof(struct item *));
}

void fake_delete(struct cst_bucket *b, const char *key)
{
	pthread_mutex_lock(&b->lock);
	fake_remove_item(b, cst_slice_of(key));
	pthread_mutex_unlock(&b->lock);
}

static void op_unref(struct cst_object_op *op)
{
	pthread_mutex_lock(&op->bucket->lock);
	bool last = --op->refs == 0;
	pthread_mutex_unlock(&op->bucket->lock);
	if (!last)
		return;
	cst_buf_fini(&op->key);
	cst_buf_fini(&op->token);
	cst_buf_fini(&op->after);
	cst_buf_fini(&op->body);
	cst_buf_fini(&op->source);
	free(op);
}

struct cst_object_op *fake_op_new(struct cst_bucket *b, enum op_kind kind, struct cst_slice key, void *arg)
{
	struct cst_object_op *op = CST_NEW(struct cst_object_op);
	op->bucket = b;
	op->kind = kind;
	op->refs = 2;
	op->arg = arg;
	cst_buf_add_slice(&op->key, key);
	return op;
}

void fake_op_queue(struct cst_object_op *op)
{
	struct cst_bucket *b = op->bucket;
	pthread_mutex_lock(&b->lock);
	TAILQ_INSERT_TAIL(&b->ops, op, link);
	b->queued++;
	b->counts.heads += op->kind == OP_HEAD;
	b->counts.lists += op->kind == OP_LIST;
	b->counts.gets += op->kind == OP_GET;
	b->counts.symlinks += op->kind == OP_SYMLINK;
	b->counts.puts += op->kind == OP_PUT;
	b->counts.copies += op->kind == OP_COPY;
	b->counts.deletes += op->kind == OP_DELETE || op->kind == OP_DELETE_MANY;
	b->counts.parts += op->kind == OP_PART;
	b->counts.in_flight++;
	b->counts.max_in_flight = cst_max(b->counts.max_in_flight, b->counts.in_flight);
	pthread_cond_broadcast(&b->work);
	pthread_cond_broadcast(&b->held);
	pthread_mutex_unlock(&b->lock);
}

/* A copy, so that the callback runs without the lock. */
struct answer {
	struct cst_object_info info;
	char *strings, *text, *target;
	struct cst_http_header meta[8];
};

static void answer_fill(struct answer *a, const struct item *item)
{
	memset(a, 0, sizeof(*a));
	a->info.size = item->size;
	a->info.mtime = item->mtime;
	memcpy(a->info.etag, item->etag, sizeof(item->etag));
	a->info.type = item->target ? CST_OBJECT_SYMLINK : CST_OBJECT_NORMAL;
	snprintf(a->info.storage_class, sizeof(a->info.storage_class), "Standard");
	a->strings = item->meta_text ? cst_xstrdup(item->meta_text) : NULL;
	a->text = item->text ? cst_xmalloc(item->size + 1) : NULL;
	if (item->text)
		memcpy(a->text, item->text, item->size);
	a->target = item->target ? cst_xstrdup(item->target) : NULL;
	for (size_t i = 0; i < item->meta_count; i++) {
		a->meta[i].name = (struct cst_slice){a->strings + (item->meta[i].name.data - item->meta_text),
						     item->meta[i].name.len};
		a->meta[i].value = (struct cst_slice){a->strings + (item->meta[i].value.data - item->meta_text),
						      item->meta[i].value.len};
	}
	a->info.meta = a->meta;
	a->info.meta_count = item->meta_count;
}

static void answer_fini(struct answer *a)
{
	free(a->strings);
	free(a->text);
	free(a->target);
}

static bool matching(const struct cst_object_op *op, const struct item *item)
{
	return item->key_len >= op->key.len && memcmp(item->key, op->key.data, op->key.len) == 0;
}

/* One page: the objects first, then the prefixes, as in the XML of both services. */
static void run_list(struct cst_object_op *op)
{
	struct cst_bucket *b = op->bucket;
	struct one {
		struct cst_object_list_entry entry;
		char *key;
	} *page = cst_xcalloc(b->page_size + 1, sizeof(*page));
	struct cst_buf last = CST_BUF_INIT;
	unsigned count = 0;
	bool truncated = false, found;
	pthread_mutex_lock(&b->lock);
	struct cst_slice from = op->token.len > 0   ? cst_buf_slice(&op->token)
				: op->after.len > 0 ? cst_buf_slice(&op->after)
						    : cst_buf_slice(&op->key);
	bool blank = from.len > 0 && from.data[0] == 0; /* the token of an empty page */
	if (blank)
		from = cst_buf_slice(&op->key);
	size_t i = from.len > 0 ? place(b, from.data, from.len, &found) : 0;
	bool after = !blank && op->token.len + op->after.len > 0;
	if (b->empty_pages && op->token.len + op->after.len == 0) {
		i = b->count;
		truncated = true;
		cst_buf_add_char(&last, 0);
	}
	for (; i < b->count && (after || matching(op, b->items[i])); i++) {
		const struct item *item = b->items[i];
		if (after && (compare(item->key, item->key_len, from.data, from.len) <= 0 ||
			      (op->delimited && op->token.len > 0 && from.data[from.len - 1] == '/' &&
			       cst_slice_starts((struct cst_slice){item->key, item->key_len}, from))))
			continue;
		if (!matching(op, item))
			break;
		const char *slash = memchr(item->key + op->key.len, '/', item->key_len - op->key.len);
		size_t len = slash && op->delimited ? (size_t)(slash - item->key) + 1 : item->key_len;
		bool prefix = slash && op->delimited;
		if (prefix && count > 0 && page[count - 1].entry.is_prefix &&
		    cst_slice_eq(page[count - 1].entry.info.key, (struct cst_slice){item->key, len}))
			continue;
		if (count == b->page_size) {
			truncated = true;
			break;
		}
		struct one *one = &page[count++];
		one->key = cst_xcalloc(1, len + 1);
		memcpy(one->key, item->key, len);
		if (!prefix) {
			one->entry.info = (struct cst_object_info){.size = item->size, .mtime = item->mtime};
			one->entry.info.type = item->target ? CST_OBJECT_SYMLINK : CST_OBJECT_NORMAL;
			memcpy(one->entry.info.etag, item->etag, sizeof(item->etag));
		}
		one->entry.is_prefix = prefix;
		one->entry.info.key = (struct cst_slice){one->key, len};
		cst_buf_clear(&last);
		cst_buf_add(&last, one->key, len);
	}
	bool retry = b->retry_pages;
	pthread_mutex_unlock(&b->lock);
	if (retry) {
		for (unsigned e = 0; e < count / 2; e++)
			op->fn.list.entry(op->arg, &page[e].entry);
		op->fn.list.restart(op->arg);
	}
	for (int prefixes = 0; prefixes < 2; prefixes++) {
		for (unsigned e = 0; e < count; e++)
			if (page[e].entry.is_prefix == prefixes)
				op->fn.list.entry(op->arg, &page[e].entry);
	}
	struct cst_object_list_page result = {truncated, truncated ? cst_buf_slice(&last) : (struct cst_slice){0},
					      count};
	op->fn.list.done(op->arg, 0, &result, NULL);
	for (unsigned e = 0; e < count; e++)
		free(page[e].key);
	free(page);
	cst_buf_fini(&last);
}

/* The fake's own part of a read lies where no bytes will. */
static struct cst_object_op **op_of(struct cst_fetch_read *r)
{
	return (struct cst_object_op **)&r->iov[CST_FETCH_IOV_MAX - 1].iov_base;
}

static int read_rc(struct cst_object_op *op)
{
	struct cst_fetch_read *r = op->read;
	struct cst_fetch_object *o = op->object;
	struct cst_bucket *b = o->fetch->bucket;
	bool missing = false;
	pthread_mutex_lock(&b->lock);
	const struct item *item = fake_find(b, cst_buf_slice(&o->key));
	for (uint64_t i = r->offset / BLOCK; i * BLOCK < r->offset + r->length; i++)
		missing |= !o->cached[i];
	int rc = 0;
	if (op->cancelled)
		rc = -EINTR;
	else if (b->fail && missing)
		rc = b->fail;
	else if (missing && (!item || strcmp(item->etag, o->etag) != 0))
		rc = -ESTALE;
	if (rc == -ESTALE)
		o->stale = true;
	b->counts.data_gets += rc == 0 && missing;
	if (rc == 0 && missing && item->text && !o->content && item->size == o->size) {
		o->content = cst_xmalloc(o->size + 1);
		memcpy(o->content, item->text, o->size);
	}
	for (uint64_t i = r->offset / BLOCK; rc == 0 && i * BLOCK < r->offset + r->length; i++)
		o->cached[i] = true;
	pthread_mutex_unlock(&b->lock);
	return rc;
}

static void run_read(struct cst_object_op *op)
{
	struct cst_fetch_read *r = op->read;
	struct cst_error err = {.what = "can't read", .why = "the fake was told so"};
	int rc = read_rc(op);
	snprintf(err.api, sizeof(err.api), "%s", op->bucket->fail_api);
	if (rc == 0) {
		char *data = cst_buf_room(&op->body, r->length);
		for (uint32_t i = 0; i < r->length; i++)
			data[i] = op->object->content ? op->object->content[r->offset + i]
						      : fake_byte(op->object->etag, r->offset + i);
		r->iov[0] = (struct iovec){data, r->length};
		r->iov_count = 1;
		rc = (int)r->length;
	}
	r->done(r, rc, rc < 0 ? &err : NULL);
}

static void run_object(struct cst_object_op *op)
{
	struct answer a;
	struct cst_error err = {.code = ENOENT, .what = "no such object"};
	pthread_mutex_lock(&op->bucket->lock);
	const struct item *item = fake_find(op->bucket, cst_buf_slice(&op->key));
	if (item)
		answer_fill(&a, item);
	pthread_mutex_unlock(&op->bucket->lock);
	int rc = item ? 0 : -ENOENT;
	if (op->kind == OP_HEAD) {
		op->fn.head(op->arg, rc, item ? &a.info : NULL, &err);
	} else if (op->kind == OP_SYMLINK) {
		op->fn.symlink(op->arg, rc, item ? cst_slice_of(a.target) : (struct cst_slice){0}, &err);
	} else {
		size_t got = item && a.text ? cst_min((size_t)a.info.size, op->into.iov_len) : 0;
		if (rc == 0 && op->if_match[0] && strcmp(op->if_match, a.info.etag) != 0)
			rc = -ESTALE;
		if (got > 0)
			memcpy(op->into.iov_base, a.text, got);
		op->fn.get(op->arg, rc, got, item ? &a.info : NULL, &err);
	}
	if (item)
		answer_fini(&a);
}

static void run_failed(struct cst_object_op *op, int rc, const char *api)
{
	struct cst_error err = {.code = -rc, .what = "the fake refuses", .why = "it was told to"};
	struct cst_object_list_page none = {0};
	snprintf(err.api, sizeof(err.api), "%s", api);
	switch (op->kind) {
	case OP_HEAD:
		op->fn.head(op->arg, rc, NULL, &err);
		break;
	case OP_LIST:
		op->fn.list.done(op->arg, rc, &none, &err);
		break;
	case OP_GET:
		op->fn.get(op->arg, rc, 0, NULL, &err);
		break;
	case OP_SYMLINK:
		op->fn.symlink(op->arg, rc, (struct cst_slice){0}, &err);
		break;
	default:
		break;
	}
}

static struct cst_object_op *next_op(struct cst_bucket *b)
{
	struct cst_object_op *op;
	TAILQ_FOREACH (op, &b->ops, link) {
		bool writes =
			op->kind >= OP_PUT && b->hold_write[0] && cst_slice_is(cst_buf_slice(&op->key), b->hold_write);
		if (op->cancelled || (!b->hold && !writes &&
				      !(op->kind == OP_HEAD && cst_slice_is(cst_buf_slice(&op->key), b->hold_head))))
			return op;
	}
	return NULL;
}

static void *loop(void *arg)
{
	struct cst_bucket *b = arg;
	pthread_mutex_lock(&b->lock);
	for (;;) {
		struct cst_object_op *op = next_op(b);
		if (!op && b->stop)
			break;
		if (!op) {
			pthread_cond_wait(&b->work, &b->lock);
			continue;
		}
		TAILQ_REMOVE(&b->ops, op, link);
		b->queued--;
		b->counts.in_flight--;
		int fail = op->cancelled ? -ECANCELED : b->fail;
		char api[sizeof(b->fail_api)];
		memcpy(api, b->fail_api, sizeof(api));
		pthread_mutex_unlock(&b->lock);
		if (op->kind == OP_READ)
			run_read(op);
		else if (op->kind >= OP_PUT)
			fake_run_write(op, fail, api);
		else if (fail)
			run_failed(op, fail, api);
		else if (op->kind == OP_LIST && op->token.len > 0 && b->expire_tokens)
			run_failed(op, -EINVAL, "InvalidArgument");
		else if (op->kind == OP_LIST)
			run_list(op);
		else
			run_object(op);
		op_unref(op);
		pthread_mutex_lock(&b->lock);
	}
	pthread_mutex_unlock(&b->lock);
	return NULL;
}

struct cst_bucket *fake_bucket_new(void)
{
	struct cst_bucket *b = CST_NEW(struct cst_bucket);
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->work, NULL);
	pthread_cond_init(&b->held, NULL);
	TAILQ_INIT(&b->ops);
	b->page_size = 1000;
	b->copy_max = UINT64_MAX;
	pthread_create(&b->thread, NULL, loop, b);
	return b;
}

void fake_bucket_free(struct cst_bucket *b)
{
	pthread_mutex_lock(&b->lock);
	b->stop = true;
	pthread_cond_broadcast(&b->work);
	pthread_mutex_unlock(&b->lock);
	pthread_join(b->thread, NULL);
	for (size_t i = 0; i < b->count; i++)
		item_free(b->items[i]);
	free(b->items);
	pthread_mutex_destroy(&b->lock);
	free(b);
}

void fake_hold(struct cst_bucket *b, bool hold)
{
	pthread_mutex_lock(&b->lock);
	b->hold = hold;
	pthread_cond_broadcast(&b->work);
	pthread_mutex_unlock(&b->lock);
}

void fake_hold_head(struct cst_bucket *b, const char *key)
{
	pthread_mutex_lock(&b->lock);
	snprintf(b->hold_head, sizeof(b->hold_head), "%s", key);
	pthread_cond_broadcast(&b->work);
	pthread_mutex_unlock(&b->lock);
}

void fake_wait_held(struct cst_bucket *b, unsigned count)
{
	pthread_mutex_lock(&b->lock);
	while (b->queued < count)
		pthread_cond_wait(&b->held, &b->lock);
	pthread_mutex_unlock(&b->lock);
}

void fake_fail(struct cst_bucket *b, int rc, const char *api)
{
	pthread_mutex_lock(&b->lock);
	b->fail = rc;
	snprintf(b->fail_api, sizeof(b->fail_api), "%s", api);
	pthread_mutex_unlock(&b->lock);
}

void fake_expire_tokens(struct cst_bucket *b, bool expired)
{
	pthread_mutex_lock(&b->lock);
	b->expire_tokens = expired;
	pthread_mutex_unlock(&b->lock);
}

void fake_empty_pages(struct cst_bucket *b, bool empty)
{
	pthread_mutex_lock(&b->lock);
	b->empty_pages = empty;
	pthread_mutex_unlock(&b->lock);
}

void fake_page_size(struct cst_bucket *b, unsigned keys)
{
	b->page_size = keys;
}

void fake_retry_pages(struct cst_bucket *b, bool retry)
{
	b->retry_pages = retry;
}

struct fake_counts fake_counts(struct cst_bucket *b)
{
	pthread_mutex_lock(&b->lock);
	struct fake_counts counts = b->counts;
	pthread_mutex_unlock(&b->lock);
	return counts;
}

void fake_reset_counts(struct cst_bucket *b)
{
	pthread_mutex_lock(&b->lock);
	b->counts = (struct fake_counts){.in_flight = b->counts.in_flight};
	pthread_mutex_unlock(&b->lock);
}

struct cst_object_op *cst_object_head(struct cst_bucket *b, struct cst_slice key, bool light, cst_object_head_fn fn,
				      void *arg)
{
	struct cst_object_op *op = fake_op_new(b, OP_HEAD, key, arg);
	(void)light;
	op->fn.head = fn;
	fake_op_queue(op);
	return op;
}

struct cst_object_op *cst_object_list(struct cst_bucket *b, const struct cst_object_list *list,
				      const struct cst_object_list_ops *ops, void *arg)
{
	struct cst_object_op *op = fake_op_new(b, OP_LIST, list->prefix, arg);
	op->fn.list = *ops;
	op->delimited = list->delimiter != NULL;
	cst_buf_add_slice(&op->token, list->token);
	if (!b->no_start_after)
		cst_buf_add_slice(&op->after, list->start_after);
	fake_op_queue(op);
	return op;
}

struct cst_object_op *cst_object_get(struct cst_bucket *b, const struct cst_object_get *get, cst_object_get_fn fn,
				     void *arg)
{
	struct cst_object_op *op = fake_op_new(b, OP_GET, get->key, arg);
	op->fn.get = fn;
	op->into = get->into[0];
	snprintf(op->if_match, sizeof(op->if_match), "%s", get->if_match ? get->if_match : "");
	fake_op_queue(op);
	return op;
}

struct cst_object_op *cst_object_get_symlink(struct cst_bucket *b, struct cst_slice key, cst_object_symlink_fn fn,
					     void *arg)
{
	struct cst_object_op *op = fake_op_new(b, OP_SYMLINK, key, arg);
	op->fn.symlink = fn;
	fake_op_queue(op);
	return op;
}

void cst_object_cancel(struct cst_object_op *op)
{
	pthread_mutex_lock(&op->bucket->lock);
	op->cancelled = true;
	pthread_cond_broadcast(&op->bucket->work);
	pthread_mutex_unlock(&op->bucket->lock);
}

void cst_object_release(struct cst_object_op *op)
{
	op_unref(op);
}

struct cst_fetch *fake_fetch_new(struct cst_bucket *b)
{
	struct cst_fetch *f = CST_NEW(struct cst_fetch);
	f->bucket = b;
	return f;
}

void fake_fetch_free(struct cst_fetch *f)
{
	free(f);
}

unsigned fake_fetch_objects(const struct cst_fetch *f)
{
	return __atomic_load_n(&f->objects, __ATOMIC_RELAXED);
}

struct cst_fetch_object *cst_fetch_object_new(struct cst_fetch *f, struct cst_slice key, const char *etag,
					      uint64_t size)
{
	struct cst_fetch_object *o = CST_NEW(struct cst_fetch_object);
	o->fetch = f;
	cst_ref_init(&o->ref);
	cst_buf_add_slice(&o->key, key);
	snprintf(o->etag, sizeof(o->etag), "%s", etag);
	o->size = size;
	o->cached = cst_xcalloc(size / BLOCK + 1, 1);
	__atomic_fetch_add(&f->objects, 1, __ATOMIC_RELAXED);
	pthread_mutex_lock(&f->bucket->lock);
	LIST_INSERT_HEAD(&f->all, o, link);
	pthread_mutex_unlock(&f->bucket->lock);
	return o;
}

struct cst_fetch_object *cst_fetch_object_ref(struct cst_fetch_object *o)
{
	cst_ref_get(&o->ref);
	return o;
}

void cst_fetch_object_unref(struct cst_fetch_object *o)
{
	if (!cst_ref_put(&o->ref))
		return;
	pthread_mutex_lock(&o->fetch->bucket->lock);
	LIST_REMOVE(o, link);
	pthread_mutex_unlock(&o->fetch->bucket->lock);
	if (o->local)
		o->local->ops->unref(o->local);
	__atomic_fetch_sub(&o->fetch->objects, 1, __ATOMIC_RELAXED);
	cst_buf_fini(&o->key);
	free(o->cached);
	free(o->content);
	free(o);
}

void cst_fetch_object_set_local(struct cst_fetch_object *o, struct cst_fetch_local *local)
{
	if (local)
		local->ops->ref(local);
	pthread_mutex_lock(&o->fetch->bucket->lock);
	struct cst_fetch_local *old = o->local;
	o->local = local;
	pthread_mutex_unlock(&o->fetch->bucket->lock);
	if (old)
		old->ops->unref(old);
}

struct cst_fetch_local *fake_fetch_local(struct cst_fetch *f, const char *key)
{
	struct cst_fetch_local *local = NULL;
	struct cst_fetch_object *o;
	pthread_mutex_lock(&f->bucket->lock);
	LIST_FOREACH (o, &f->all, link)
		if (cst_slice_is(cst_buf_slice(&o->key), key) && o->local)
			local = o->local;
	pthread_mutex_unlock(&f->bucket->lock);
	return local;
}

void fake_fetch_refuse_prefetch(struct cst_fetch *f, bool refuse)
{
	f->refuse_prefetch = refuse;
}

/* It is there at once. */
bool cst_fetch_object_prefetch(struct cst_fetch_object *o)
{
	struct cst_bucket *b = o->fetch->bucket;
	bool missing = false;
	pthread_mutex_lock(&b->lock);
	for (uint64_t i = 0; !o->fetch->refuse_prefetch && i * BLOCK < o->size; i++) {
		missing |= !o->cached[i];
		o->cached[i] = true;
	}
	b->counts.data_gets += missing;
	b->counts.prefetches += missing;
	pthread_mutex_unlock(&b->lock);
	return missing;
}

void cst_fetch_stats(struct cst_fetch *f, struct cst_fetch_stats *stats)
{
	(void)f;
	*stats = (struct cst_fetch_stats){.memory_limit = UINT64_C(64) << 20};
}

bool cst_fetch_object_is_stale(const struct cst_fetch_object *o)
{
	pthread_mutex_lock(&o->fetch->bucket->lock);
	bool stale = o->stale;
	pthread_mutex_unlock(&o->fetch->bucket->lock);
	return stale;
}

struct cst_fetch_stream *cst_fetch_stream_new(struct cst_fetch_object *o)
{
	struct cst_fetch_stream *s = CST_NEW(struct cst_fetch_stream);
	s->object = cst_fetch_object_ref(o);
	return s;
}

void cst_fetch_stream_free(struct cst_fetch_stream *s)
{
	cst_fetch_object_unref(s->object);
	free(s);
}

void cst_fetch_read(struct cst_fetch_stream *s, struct cst_fetch_read *r)
{
	struct cst_object_op *op = fake_op_new(s->object->fetch->bucket, OP_READ, CST_SLICE(""), NULL);
	op->object = cst_fetch_object_ref(s->object);
	*op_of(r) = op; /* its body holds the bytes until the release */
	op->read = r;
	fake_op_queue(op);
}

void cst_fetch_read_cancel(struct cst_fetch_read *r)
{
	cst_object_cancel(*op_of(r));
}

void cst_fetch_read_release(struct cst_fetch_read *r)
{
	struct cst_object_op *op = *op_of(r);
	cst_fetch_object_unref(op->object);
	op_unref(op);
}
