#include "double.h"

#include "base/clock.h"
#include "base/digest.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct store store;

#define PARTS 10001

const char *cst_bucket_name(const struct cst_bucket *b)
{
	(void)b;
	return "bucket";
}
const char *cst_bucket_describe(const struct cst_bucket *b)
{
	(void)b;
	return "oss://bucket at the test";
}
bool cst_bucket_has_if_match(const struct cst_bucket *b)
{
	(void)b;
	return store.s3;
}
struct cst_object_limits cst_bucket_limits(const struct cst_bucket *b)
{
	(void)b;
	return store.limits;
}

void store_reset(bool s3)
{
	store = (struct store){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .s3 = s3};
	store.limits = (struct cst_object_limits){.part_min = s3 ? 5 * MIB_ : 100 * KIB,
						  .part_max = UINT64_C(5) << 30,
						  .put_max = UINT64_C(5) << 30,
						  .copy_max = UINT64_C(5) << 30,
						  .parts_max = 10000,
						  .append_max = s3 ? 0 : UINT64_C(5) << 30};
	TAILQ_INIT(&store.ops);
}

/* ---- the model ---- */

static struct model_object *slot_of(const char *key)
{
	struct model_object *spare = NULL;
	for (size_t i = 0; i < CST_ARRAY_LEN(store.objects); i++) {
		struct model_object *o = &store.objects[i];
		if (strcmp(o->key, key) == 0)
			return o;
		if (!o->key[0] && !spare)
			spare = o;
	}
	CST_ASSERT(spare);
	snprintf(spare->key, sizeof(spare->key), "%s", key);
	return spare;
}

struct model_object *object_of(const char *key)
{
	struct model_object *o = slot_of(key);
	return o->exists ? o : NULL;
}

static void set_object(const char *key, char *data, uint64_t size, const char *id, const char *mode,
		       enum cst_object_type type)
{
	struct model_object *o = slot_of(key);
	free(o->data);
	o->exists = true;
	o->data = data;
	o->size = size;
	o->crc64 = cst_crc64(0, data, size);
	o->type = type;
	o->version = ++store.version;
	snprintf(o->etag, sizeof(o->etag), "E%u", store.version);
	snprintf(o->id, sizeof(o->id), "%s", id);
	snprintf(o->mode, sizeof(o->mode), "%s", mode);
	if (store.on_change)
		store.on_change(o);
}

void other_put(const char *key, const char *bytes, uint64_t size)
{
	char *copy = cst_xmalloc(size + 1);
	memcpy(copy, bytes, size);
	copy[size] = '\0';
	pthread_mutex_lock(&store.lock);
	set_object(key, copy, size, "", "", CST_OBJECT_NORMAL);
	pthread_mutex_unlock(&store.lock);
}

static void delete_object(const char *key)
{
	struct model_object *o = slot_of(key);
	free(cst_steal(o->data));
	o->exists = false;
	if (store.on_change)
		store.on_change(o);
}

void other_delete(const char *key)
{
	pthread_mutex_lock(&store.lock);
	delete_object(key);
	pthread_mutex_unlock(&store.lock);
}

static struct model_upload *upload_of(const char *name)
{
	struct model_upload *u = store.uploads;
	while (u && !(u->exists && strcmp(u->name, name) == 0))
		u = u->next;
	return u;
}

static void end_upload(struct model_upload *u)
{
	for (unsigned i = 0; i < PARTS; i++)
		free(u->parts[i].data);
	free(cst_steal(u->parts));
	u->exists = false;
	store.open_uploads--;
}

void store_fini(void)
{
	CST_ASSERT(TAILQ_EMPTY(&store.ops));
	for (size_t i = 0; i < CST_ARRAY_LEN(store.objects); i++)
		free(store.objects[i].data);
	struct model_upload *u, *next;
	for (u = store.uploads; u; u = next) {
		next = u->next;
		if (u->exists)
			end_upload(u);
		free(u);
	}
	store.uploads = NULL;
}

/* ---- what an attempt does, and is told ---- */

struct told {
	int rc;
	const char *api;
	struct cst_object_info info;
	uint64_t next;
	uint64_t got;
};

static char *gather(const struct cst_object_op *op)
{
	char *data = cst_xmalloc(op->length + 1), *to = data;
	for (int i = 0; i < op->iov_count; i++) {
		memcpy(to, op->iov[i].iov_base, op->iov[i].iov_len);
		to += op->iov[i].iov_len;
	}
	CST_ASSERT((uint64_t)(to - data) == op->length);
	if (op->has_crc64)
		CST_ASSERT(cst_crc64(0, data, op->length) == op->crc64);
	return data;
}

static struct told refused(int rc, const char *api)
{
	return (struct told){.rc = rc, .api = api};
}

static void tell_object(struct told *t, const char *key)
{
	const struct model_object *o = object_of(key);
	CST_ASSERT(o);
	t->info.size = o->size;
	t->info.type = o->type;
	memcpy(t->info.etag, o->etag, sizeof(o->etag));
	t->info.crc64 = o->crc64;
	t->info.has_crc64 = !store.s3 && !store.no_crc;
	t->info.mtime = 1000 + o->version;
}

static bool condition_fails(const struct cst_object_op *op, struct told *t)
{
	const struct model_object *o = object_of(op->key);
	if (op->condition != CST_OBJECT_ANY && store.no_conditions) {
		*t = refused(-ENOTSUP, "NotImplemented");
		return true;
	}
	if (op->condition == CST_OBJECT_IF_ABSENT && o) {
		*t = refused(-EEXIST, store.s3 ? "PreconditionFailed" : "FileAlreadyExists");
		return true;
	}
	if (op->condition == CST_OBJECT_IF_MATCH) {
		CST_ASSERT(store.s3);
		if (!o)
			*t = refused(-ENOENT, "NoSuchKey");
		else if (strcmp(o->etag, op->etag) != 0)
			*t = refused(-ESTALE, "PreconditionFailed");
		else
			return false;
		return true;
	}
	return false;
}

static struct told do_put(const struct cst_object_op *op)
{
	struct told t = {0};
	if (condition_fails(op, &t))
		return t;
	set_object(op->key, gather(op), op->length, op->id, op->mode, CST_OBJECT_NORMAL);
	tell_object(&t, op->key);
	return t;
}

static struct told do_begin(struct cst_object_op *op)
{
	struct model_upload *u = CST_NEW(struct model_upload);
	u->exists = true;
	u->parts = cst_xcalloc(PARTS, sizeof(*u->parts));
	snprintf(u->name, sizeof(u->name), "U%u", ++store.upload_serial);
	snprintf(u->key, sizeof(u->key), "%s", op->key);
	snprintf(u->id, sizeof(u->id), "%s", op->id);
	snprintf(u->mode, sizeof(u->mode), "%s", op->mode);
	u->next = store.uploads;
	store.uploads = u;
	store.open_uploads++;
	snprintf(op->upload, sizeof(op->upload), "%s", u->name);
	return (struct told){0};
}

static struct told do_part(const struct cst_object_op *op)
{
	struct told t = {0};
	struct model_upload *u = upload_of(op->upload);
	const struct model_object *o = object_of(op->key);
	char *data;
	if (!u)
		return refused(-ENOENT, "NoSuchUpload");
	CST_ASSERT(strcmp(u->key, op->key) == 0 && op->number >= 1 && op->number < PARTS);
	if (op->kind == OP_COPY) {
		if (!o)
			return refused(-ENOENT, "NoSuchKey");
		if (strcmp(o->etag, op->etag) != 0)
			return refused(-ESTALE, "PreconditionFailed");
		CST_ASSERT(op->offset + op->length <= o->size);
		data = cst_xmalloc(op->length + 1);
		memcpy(data, o->data + op->offset, op->length);
	} else {
		data = gather(op);
	}
	free(u->parts[op->number].data);
	u->parts[op->number] = (struct model_part){data, op->length};
	snprintf(t.info.etag, sizeof(t.info.etag), "P%u", op->number);
	t.info.crc64 = cst_crc64(0, data, op->length);
	t.info.has_crc64 = !store.s3 && !store.no_crc;
	return t;
}

static struct told do_complete(const struct cst_object_op *op)
{
	struct told t = {0};
	struct model_upload *u = upload_of(op->upload);
	uint64_t size = 0;
	if (!u)
		return refused(-ENOENT, "NoSuchUpload");
	if (condition_fails(op, &t))
		return t;
	for (size_t i = 0; i < op->part_count; i++) {
		const struct model_part *part = &u->parts[op->parts[i].number];
		CST_ASSERT(part->data && part->size == op->parts[i].size && op->parts[i].etag[0] == 'P');
		CST_ASSERT(i + 1 == op->part_count || part->size >= store.limits.part_min);
		size += part->size;
	}
	char *data = cst_xmalloc(size + 1), *to = data;
	for (size_t i = 0; i < op->part_count; i++) {
		memcpy(to, u->parts[op->parts[i].number].data, u->parts[op->parts[i].number].size);
		to += u->parts[op->parts[i].number].size;
	}
	if (op->has_crc64)
		CST_ASSERT(cst_crc64(0, data, size) == op->crc64);
	set_object(op->key, data, size, u->id, u->mode, CST_OBJECT_MULTIPART);
	end_upload(u);
	tell_object(&t, op->key);
	return t;
}

static struct told do_append(const struct cst_object_op *op)
{
	struct told t = {0};
	struct model_object *o = object_of(op->key);
	if (o && o->type != CST_OBJECT_APPENDABLE)
		return refused(-EPERM, "ObjectNotAppendable");
	if (op->offset != (o ? o->size : 0)) {
		t = refused(-ERANGE, "PositionNotEqualToLength");
		t.next = o ? o->size : 0;
		return t;
	}
	char *more = gather(op);
	char *data = cst_xmalloc(op->offset + op->length + 1);
	if (o)
		memcpy(data, o->data, o->size);
	memcpy(data + op->offset, more, op->length);
	free(more);
	char id[40];
	snprintf(id, sizeof(id), "%s", o ? o->id : op->id);
	set_object(op->key, data, op->offset + op->length, id, "", CST_OBJECT_APPENDABLE);
	tell_object(&t, op->key);
	t.next = op->offset + op->length;
	return t;
}

static struct told do_get(const struct cst_object_op *op)
{
	struct told t = {0};
	const struct model_object *o = object_of(op->key);
	if (!o)
		return refused(-ENOENT, "NoSuchKey");
	if (op->etag[0] && strcmp(op->etag, o->etag) != 0)
		return refused(-ESTALE, "PreconditionFailed");
	for (int i = 0; i < op->iov_count && t.got < o->size; i++) {
		size_t n = cst_min(op->iov[i].iov_len, (size_t)(o->size - t.got));
		memcpy(op->iov[i].iov_base, o->data + t.got, n);
		t.got += n;
	}
	return t;
}

static struct told attempt(struct cst_object_op *op)
{
	struct told t = {0};
	struct model_upload *u;
	switch (op->kind) {
	case OP_PUT:
		return do_put(op);
	case OP_BEGIN:
		return do_begin(op);
	case OP_PART:
	case OP_COPY:
		return do_part(op);
	case OP_COMPLETE:
		return do_complete(op);
	case OP_APPEND:
		return do_append(op);
	case OP_GET:
		return do_get(op);
	case OP_DELETE:
		delete_object(op->key);
		return t;
	case OP_ABORT:
		u = upload_of(op->upload);
		if (u)
			end_upload(u);
		return t;
	default:
		if (!object_of(op->key))
			return refused(-ENOENT, "NoSuchKey");
		tell_object(&t, op->key);
		return t;
	}
}

/* ---- answering ---- */

static void unref(struct cst_object_op *op)
{
	if (__atomic_sub_fetch(&op->refs, 1, __ATOMIC_ACQ_REL))
		return;
	free(op->iov);
	free(op->parts);
	free(op);
}

static void call_back(struct cst_object_op *op, const struct told *t, bool repeated)
{
	struct cst_error err = CST_ERROR_INIT;
	struct cst_http_header meta[2] = {0};
	struct cst_object_info info = t->info;
	struct cst_object_part part = {
		.number = op->number, .size = op->length, .crc64 = t->info.crc64, .has_crc64 = t->info.has_crc64};
	memcpy(part.etag, t->info.etag, sizeof(part.etag));
	if (t->rc < 0) {
		cst_error_set(&err, -t->rc, "can't do that");
		cst_error_why(&err, "the store says %s", t->api ? t->api : strerror(-t->rc));
		snprintf(err.api, sizeof(err.api), "%s", t->api ? t->api : "");
	}
	const struct cst_error *e = t->rc < 0 ? &err : NULL;
	if (op->kind == OP_HEAD) {
		char id[40] = "";
		pthread_mutex_lock(&store.lock);
		const struct model_object *o = object_of(op->key);
		snprintf(id, sizeof(id), "%s", o ? o->id : "");
		pthread_mutex_unlock(&store.lock);
		if (id[0]) {
			meta[0].name = CST_SLICE("cistern-write-id");
			meta[0].value = cst_slice_of(id);
			info.meta = meta;
			info.meta_count = 1;
		}
		((cst_object_head_fn)op->fn)(op->arg, t->rc, &info, e);
	} else if (op->kind == OP_GET) {
		((cst_object_get_fn)op->fn)(op->arg, t->rc, (size_t)t->got, &info, e);
	} else {
		struct cst_object_written w = {.rc = t->rc,
					       .repeated = repeated,
					       .info = &info,
					       .part = &part,
					       .upload_id = cst_slice_of(op->upload),
					       .next_position = t->next,
					       .err = e};
		((cst_object_written_fn)op->fn)(op->arg, &w);
	}
}

static void spoil(struct model_object *o)
{
	if (!o || o->size == 0)
		return;
	o->data[0] ^= 1;
	o->crc64 ^= 1;
}

void answer_op(struct cst_object_op *op, enum fault fault)
{
	struct told t = {0};
	bool repeated = false;
	pthread_mutex_lock(&store.lock);
	if (op->cancelled && fault == FAULT_NONE)
		fault = FAULT_TIMEOUT;
	switch (fault) {
	case FAULT_NONE:
		t = attempt(op);
		break;
	case FAULT_LOST:
		(void)attempt(op);
		t = attempt(op);
		repeated = true;
		break;
	case FAULT_DONE_TIMEOUT:
		(void)attempt(op);
		t = refused(-ETIMEDOUT, NULL);
		repeated = true;
		break;
	case FAULT_TIMEOUT:
		t = refused(op->cancelled ? -ECANCELED : -ETIMEDOUT, NULL);
		break;
	case FAULT_DENIED:
		t = refused(-EACCES, "AccessDenied");
		break;
	case FAULT_QUOTA:
		t = refused(-EDQUOT, "QuotaExceeded");
		break;
	case FAULT_CORRUPT:
		(void)attempt(op);
		spoil(object_of(op->key));
		t = refused(-EBADMSG, NULL);
		repeated = true;
		break;
	case FAULT_NO_UPLOAD: {
		struct model_upload *u = upload_of(op->upload);
		if (u)
			end_upload(u);
		t = refused(-ENOENT, "NoSuchUpload");
		break;
	}
	}
	if (!op->fn)
		cst_panic(__FILE__, __LINE__, "answered twice");
	TAILQ_REMOVE(&store.ops, op, link);
	store.waiting--;
	pthread_mutex_unlock(&store.lock);
	call_back(op, &t, repeated);
	op->fn = NULL;
	unref(op);
}

static enum fault decide(const struct cst_object_op *op)
{
	return store.fault ? store.fault(op) : FAULT_NONE;
}

struct cst_object_op *nth_op(unsigned n)
{
	pthread_mutex_lock(&store.lock);
	struct cst_object_op *op = TAILQ_FIRST(&store.ops);
	while (op && n-- && TAILQ_NEXT(op, link))
		op = TAILQ_NEXT(op, link);
	pthread_mutex_unlock(&store.lock);
	return op;
}

struct cst_object_op *first_op(void)
{
	return nth_op(0);
}

struct cst_object_op *find_op(enum op_kind kind)
{
	struct cst_object_op *op;
	pthread_mutex_lock(&store.lock);
	TAILQ_FOREACH (op, &store.ops, link)
		if (op->kind == kind)
			break;
	pthread_mutex_unlock(&store.lock);
	return op;
}

void answer(enum op_kind expected)
{
	struct cst_object_op *op = first_op();
	assert_non_null(op);
	assert_int_equal(op->kind, expected);
	answer_op(op, FAULT_NONE);
}

void answer_all(void)
{
	struct cst_object_op *op;
	while ((op = first_op()))
		answer_op(op, decide(op));
}

unsigned ops_of(enum op_kind kind)
{
	return store.counts[kind];
}

static void *serve(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	pthread_mutex_lock(&store.lock);
	while (!store.stopping || store.waiting) {
		struct cst_object_op *op, *pick = NULL;
		unsigned n = (unsigned)rand_r(&seed) % 4;
		TAILQ_FOREACH (op, &store.ops, link) {
			if (op->taken)
				continue;
			pick = op;
			if (n-- == 0)
				break;
		}
		if (!pick) {
			pthread_cond_wait(&store.changed, &store.lock);
			continue;
		}
		pick->taken = true;
		pthread_mutex_unlock(&store.lock);
		answer_op(pick, decide(pick));
		pthread_mutex_lock(&store.lock);
		if (store.stopping)
			pthread_cond_broadcast(&store.changed);
	}
	pthread_mutex_unlock(&store.lock);
	return NULL;
}

void store_threads(unsigned count)
{
	store.thread_count = count;
	for (unsigned i = 0; i < count; i++)
		pthread_create(&store.threads[i], NULL, serve, (void *)(uintptr_t)(i + 1));
}

void store_stop_threads(void)
{
	pthread_mutex_lock(&store.lock);
	store.stopping = true;
	pthread_cond_broadcast(&store.changed);
	pthread_mutex_unlock(&store.lock);
	for (unsigned i = 0; i < store.thread_count; i++)
		pthread_join(store.threads[i], NULL);
}

/* ---- the interface ---- */

static struct cst_object_op *op_new(enum op_kind kind, struct cst_slice key, void *fn, void *arg)
{
	struct cst_object_op *op = CST_NEW(struct cst_object_op);
	op->kind = kind;
	op->refs = 2;
	op->fn = fn;
	op->arg = arg;
	snprintf(op->key, sizeof(op->key), "%.*s", (int)key.len, key.data);
	return op;
}

static void op_body(struct cst_object_op *op, const struct cst_object_body *body)
{
	op->iov = cst_xcalloc((size_t)body->iov_count + 1, sizeof(*op->iov));
	memcpy(op->iov, body->iov, (size_t)body->iov_count * sizeof(*op->iov));
	op->iov_count = body->iov_count;
	op->length = body->length;
	op->crc64 = body->crc64;
	op->has_crc64 = body->has_crc64;
}

static void op_properties(struct cst_object_op *op, const struct cst_object_properties *p)
{
	for (size_t i = 0; p && i < p->meta_count; i++) {
		bool is_id = cst_slice_is(p->meta[i].name, "cistern-write-id");
		bool is_mode = cst_slice_is(p->meta[i].name, "mode");
		if (is_id)
			snprintf(op->id, sizeof(op->id), "%.*s", (int)p->meta[i].value.len, p->meta[i].value.data);
		if (is_mode)
			snprintf(op->mode, sizeof(op->mode), "%.*s", (int)p->meta[i].value.len, p->meta[i].value.data);
	}
}

static struct cst_object_op *begin(struct cst_object_op *op)
{
	pthread_mutex_lock(&store.lock);
	store.counts[op->kind]++;
	store.bytes[op->kind] += op->length;
	store.waiting++;
	TAILQ_INSERT_TAIL(&store.ops, op, link);
	bool now = store.at_once;
	pthread_cond_signal(&store.changed);
	pthread_mutex_unlock(&store.lock);
	if (now)
		answer_op(op, decide(op));
	return op;
}

struct cst_object_op *cst_object_put(struct cst_bucket *b, const struct cst_object_put *put, cst_object_written_fn fn,
				     void *arg)
{
	struct cst_object_op *op = op_new(OP_PUT, put->key, (void *)fn, arg);
	(void)b;
	op_body(op, &put->body);
	op_properties(op, put->properties);
	op->condition = put->condition;
	snprintf(op->etag, sizeof(op->etag), "%s", put->if_match ? put->if_match : "");
	CST_ASSERT(op->id[0]);
	return begin(op);
}

struct cst_object_op *cst_object_multipart_begin(struct cst_bucket *b, struct cst_slice key,
						 const struct cst_object_properties *properties,
						 cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = op_new(OP_BEGIN, key, (void *)fn, arg);
	(void)b;
	op_properties(op, properties);
	CST_ASSERT(op->id[0]);
	return begin(op);
}

static void op_upload(struct cst_object_op *op, struct cst_slice upload)
{
	snprintf(op->upload, sizeof(op->upload), "%.*s", (int)upload.len, upload.data);
}

struct cst_object_op *cst_object_part_put(struct cst_bucket *b, const struct cst_object_part_put *put,
					  cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = op_new(OP_PART, put->key, (void *)fn, arg);
	(void)b;
	op_upload(op, put->upload_id);
	op_body(op, &put->body);
	op->number = put->number;
	return begin(op);
}

struct cst_object_op *cst_object_part_copy(struct cst_bucket *b, const struct cst_object_part_copy *copy,
					   cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = op_new(OP_COPY, copy->key, (void *)fn, arg);
	(void)b;
	op_upload(op, copy->upload_id);
	op->number = copy->number;
	op->offset = copy->offset;
	op->length = copy->length;
	snprintf(op->etag, sizeof(op->etag), "%s", copy->if_match);
	return begin(op);
}

struct cst_object_op *cst_object_multipart_complete(struct cst_bucket *b, const struct cst_object_complete *complete,
						    cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = op_new(OP_COMPLETE, complete->key, (void *)fn, arg);
	(void)b;
	op_upload(op, complete->upload_id);
	op->parts = cst_xcalloc(complete->part_count, sizeof(*op->parts));
	memcpy(op->parts, complete->parts, complete->part_count * sizeof(*op->parts));
	op->part_count = complete->part_count;
	op->condition = complete->condition;
	op->crc64 = complete->crc64;
	op->has_crc64 = complete->has_crc64;
	snprintf(op->etag, sizeof(op->etag), "%s", complete->if_match ? complete->if_match : "");
	return begin(op);
}

struct cst_object_op *cst_object_multipart_abort(struct cst_bucket *b, struct cst_slice key, struct cst_slice upload_id,
						 cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = op_new(OP_ABORT, key, (void *)fn, arg);
	(void)b;
	op_upload(op, upload_id);
	return begin(op);
}

struct cst_object_op *cst_object_append(struct cst_bucket *b, const struct cst_object_append *append,
					cst_object_written_fn fn, void *arg)
{
	struct cst_object_op *op = op_new(OP_APPEND, append->key, (void *)fn, arg);
	(void)b;
	op_body(op, &append->body);
	op_properties(op, append->properties);
	op->offset = append->position;
	return begin(op);
}

struct cst_object_op *cst_object_delete(struct cst_bucket *b, struct cst_slice key, const char *if_match,
					cst_object_written_fn fn, void *arg)
{
	(void)b, (void)if_match;
	return begin(op_new(OP_DELETE, key, (void *)fn, arg));
}

struct cst_object_op *cst_object_head(struct cst_bucket *b, struct cst_slice key, bool light, cst_object_head_fn fn,
				      void *arg)
{
	(void)b;
	CST_ASSERT(!light);
	return begin(op_new(OP_HEAD, key, (void *)fn, arg));
}

struct cst_object_op *cst_object_get(struct cst_bucket *b, const struct cst_object_get *get, cst_object_get_fn fn,
				     void *arg)
{
	struct cst_object_op *op = op_new(OP_GET, get->key, (void *)fn, arg);
	(void)b;
	op->iov = cst_xcalloc((size_t)get->into_count, sizeof(*op->iov));
	memcpy(op->iov, get->into, (size_t)get->into_count * sizeof(*op->iov));
	op->iov_count = get->into_count;
	op->length = get->length;
	snprintf(op->etag, sizeof(op->etag), "%s", get->if_match ? get->if_match : "");
	return begin(op);
}

void cst_object_cancel(struct cst_object_op *op)
{
	__atomic_store_n(&op->cancelled, true, __ATOMIC_RELAXED);
}

void cst_object_release(struct cst_object_op *op)
{
	if (op)
		unref(op);
}

/* ---- writers ---- */

unsigned char pattern(uint64_t at)
{
	return (unsigned char)((at * 2654435761u) >> 13 ^ at >> 20);
}

struct cst_publish *make(struct cst_publish_config config)
{
	struct cst_error err = CST_ERROR_INIT;
	config.verify_crc64 = true;
	config.keep_dir = keep_dir[0] ? keep_dir : NULL;
	config.writer = "host:/mnt";
	struct cst_publish *p = cst_publish_new(&config, &err);
	assert_non_null(p);
	return p;
}

struct cst_publish_stream *open_new(struct cst_publish *p, const char *key)
{
	struct cst_publish_open open = {.key = cst_slice_of(key)};
	struct cst_http_header meta = {CST_SLICE("mode"), CST_SLICE("33188")};
	open.properties.meta = &meta;
	open.properties.meta_count = 1;
	return cst_publish_stream_open(p, &open);
}

struct cst_publish_stream *open_on(struct cst_publish *p, const char *key, bool keep, enum cst_publish_mode mode)
{
	struct cst_publish_open open = {.key = cst_slice_of(key), .keep_content = keep, .mode = mode};
	const struct model_object *o = object_of(key);
	if (o) {
		open.base = (struct cst_publish_base){.exists = true, .type = o->type, .size = o->size};
		memcpy(open.base.etag, o->etag, sizeof(o->etag));
	}
	return cst_publish_stream_open(p, &open);
}

static void note(struct done *d, int rc, const struct cst_error *err)
{
	d->rc = rc;
	CST_ASSERT(rc >= 0 || (err && err->code == -rc));
	if (err)
		cst_error_text(err, d->text, sizeof(d->text));
	__atomic_add_fetch(&d->calls, 1, __ATOMIC_RELEASE);
}

static void on_write(struct cst_publish_write *w, int rc, const struct cst_error *err)
{
	note(&((struct writer *)w->arg)->done, rc, err);
}

static void on_sync(struct cst_publish_sync *y, int rc, const struct cst_object_info *version,
		    const struct cst_error *err)
{
	struct syncer *syncer = y->arg;
	syncer->done.version = *version;
	note(&syncer->done, rc, err);
}

void start_write(struct writer *w, struct cst_publish_stream *s, uint64_t offset, const char *data, size_t len)
{
	*w = (struct writer){.write = {.offset = offset, .data = {data, len}, .done = on_write, .arg = w}};
	cst_publish_write(s, &w->write);
}

void start_sync(struct syncer *y, struct cst_publish_stream *s)
{
	*y = (struct syncer){.sync = {.done = on_sync, .arg = y}};
	cst_publish_sync(s, &y->sync);
}

void wait_done(struct done *d)
{
	int64_t until = cst_now() + 100 * CST_NS_PER_S;
	while (!__atomic_load_n(&d->calls, __ATOMIC_ACQUIRE)) {
		if (!store.thread_count)
			answer_all();
		if (!__atomic_load_n(&d->calls, __ATOMIC_ACQUIRE))
			cst_sleep(CST_NS_PER_MS / 20);
		CST_ASSERT(cst_now() < until); /* it hangs */
	}
	CST_ASSERT(d->calls == 1);
}

void write_now(struct cst_publish_stream *s, uint64_t offset, size_t len, int rc)
{
	char *data = cst_xmalloc(len + 1);
	struct writer w;
	for (size_t i = 0; i < len; i++)
		data[i] = (char)pattern(offset + i);
	start_write(&w, s, offset, data, len);
	wait_done(&w.done);
	if (w.done.rc != rc)
		print_error("%s\n", w.done.text);
	assert_int_equal(w.done.rc, rc);
	memset(data, 0xee, len); /* nobody looks at it any more */
	free(data);
}

int sync_now(struct cst_publish_stream *s, struct syncer *y)
{
	start_sync(y, s);
	wait_done(&y->done);
	return y->done.rc;
}

void expect_object(const char *key, uint64_t size)
{
	const struct model_object *o = object_of(key);
	CST_ASSERT(o);
	assert_int_equal(o->size, size);
	for (uint64_t i = 0; i < size; i++)
		if ((unsigned char)o->data[i] != pattern(i))
			fail_msg("byte %llu of %s is another", (unsigned long long)i, key);
}

/* ---- the directory of kept versions ---- */

char keep_dir[64];

void keep_dir_make(void)
{
	snprintf(keep_dir, sizeof(keep_dir), "/tmp/cst-keep-XXXXXX");
	CST_ASSERT(mkdtemp(keep_dir));
}

void keep_dir_remove(void)
{
	DIR *d = opendir(keep_dir);
	const struct dirent *e;
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.' || strlen(e->d_name) > 2)
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	rmdir(keep_dir);
	keep_dir[0] = '\0';
}
