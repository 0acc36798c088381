/* Buckets, the entry points of the operations, the check before a mount, metrics. */
#define CST_LOG_AREA "object"
#include "object/backend.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <sys/random.h>

#define REQUEST_TIMEOUT (60 * CST_NS_PER_S)
#define DEADLINE (300 * CST_NS_PER_S)
#define PROBE_DEADLINE (45 * CST_NS_PER_S)
#define STATUS_MAX 600

static const char *const op_names[CST_OP_KINDS] = {
	[CST_OP_GET] = "get",
	[CST_OP_HEAD] = "head",
	[CST_OP_LIST] = "list",
	[CST_OP_SYMLINK] = "symlink",
	[CST_OP_PUT] = "put",
	[CST_OP_PUT_SYMLINK] = "put_symlink",
	[CST_OP_APPEND] = "append",
	[CST_OP_COPY] = "copy",
	[CST_OP_DELETE] = "delete",
	[CST_OP_DELETE_MANY] = "delete_many",
	[CST_OP_BEGIN] = "upload_begin",
	[CST_OP_PART] = "upload_part",
	[CST_OP_PART_COPY] = "upload_part_copy",
	[CST_OP_COMPLETE] = "upload_complete",
	[CST_OP_ABORT] = "upload_abort",
	[CST_OP_LIST_PARTS] = "list_parts",
	[CST_OP_LIST_UPLOADS] = "list_uploads",
};

static int check_sign(struct cst_bucket *b, const struct cst_bucket_config *config, struct cst_error *err)
{
	b->sign = b->backend->sign(config, &b->endpoint);
	bool fits = config->cloud == CST_CLOUD_S3 ? b->sign == CST_SIGN_S3_V4 : b->sign != CST_SIGN_S3_V4;
	if (!fits) {
		cst_error_set(err, EINVAL, "the signature version does not fit %s://%s", b->backend->scheme, b->name);
		cst_error_hint(err, "oss:// knows V1 and V4, s3:// knows V4");
		return -EINVAL;
	}
	if (b->sign == CST_SIGN_OSS_V4 && !b->endpoint.region[0]) {
		cst_error_set(err, EINVAL, "V4 signatures need a region, and %s does not tell one", b->endpoint.url);
		cst_error_hint(err, "give --region, as in --region cn-hangzhou");
		return -EINVAL;
	}
	return 0;
}

static void describe(struct cst_bucket *b)
{
	const char *how = !b->credentials ? "anonymous" : b->sign == CST_SIGN_OSS_V1 ? "V1" : "V4";
	b->describe = cst_xasprintf("%s://%s at %s (%s%s%s)", b->backend->scheme, b->name, b->endpoint.url, how,
				    b->endpoint.region[0] ? ", " : "", b->endpoint.region);
}

struct cst_bucket *cst_bucket_new(const struct cst_bucket_config *config, struct cst_error *err)
{
	struct cst_bucket *b = CST_NEW(struct cst_bucket);
	b->magic = CST_BUCKET_MAGIC;
	b->backend = config->cloud == CST_CLOUD_S3 ? &cst_backend_s3 : &cst_backend_oss;
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->idle, NULL);
	for (int i = 0; i < CST_LANES; i++)
		TAILQ_INIT(&b->queues[i]);
	TAILQ_INIT(&b->spare);
	b->name = cst_xstrdup(config->bucket ? config->bucket : "");
	b->http = config->http;
	b->request_timeout = config->request_timeout ? config->request_timeout : REQUEST_TIMEOUT;
	b->deadline = config->deadline ? config->deadline : DEADLINE;
	b->max_attempts = config->max_attempts;
	b->verify_crc64 = config->verify_crc64;
	b->hedge = config->hedge;
	b->hedge_credit = CST_HEDGE_FIRST;
	b->requests.rate = config->requests;
	b->bandwidth.rate = (double)config->bandwidth;
	b->upload.rate = (double)config->upload_bandwidth;
	b->tuning = (struct cst_object_tuning){.backoff_base = CST_RETRY_BASE_NS, .backoff_cap = CST_RETRY_CAP_NS};
	if (config->credentials && !cst_credentials_anonymous(config->credentials))
		b->credentials = config->credentials;
	if (getrandom(&b->seed, sizeof(b->seed), 0) != sizeof(b->seed) || b->seed == 0)
		b->seed = (uint64_t)cst_now() | 1;
	b->signer = cst_signer_new();
	if (cst_endpoint_parse(config, &b->endpoint, err) == 0 && check_sign(b, config, err) == 0)
		b->loop = cst_loop_new("object-timer", err);
	describe(b);
	if (!b->loop) {
		cst_bucket_free(b);
		return NULL;
	}
	cst_log_debug("%s", b->describe);
	return b;
}

void cst_bucket_free(struct cst_bucket *b)
{
	if (!b)
		return;
	CST_CHECK(b, CST_BUCKET_MAGIC);
	/* The last callbacks may be on their way out, and the loop may still hold operations that have ended. */
	pthread_mutex_lock(&b->lock);
	while (b->live)
		pthread_cond_wait(&b->idle, &b->lock);
	pthread_mutex_unlock(&b->lock);
	if (b->loop)
		cst_loop_free(b->loop);
	cst_op_free_spare(b);
	cst_signer_free(b->signer);
	pthread_mutex_destroy(&b->lock);
	pthread_cond_destroy(&b->idle);
	b->magic = 0;
	free(b->name);
	free(b->describe);
	free(b);
}

const char *cst_bucket_name(const struct cst_bucket *b)
{
	CST_CHECK(b, CST_BUCKET_MAGIC);
	return b->name;
}

const char *cst_bucket_describe(const struct cst_bucket *b)
{
	CST_CHECK(b, CST_BUCKET_MAGIC);
	return b->describe;
}

void cst_bucket_tune(struct cst_bucket *b, const struct cst_object_tuning *tuning)
{
	b->tuning = *tuning;
}

int64_t cst_bucket_wall(const struct cst_bucket *b)
{
	int64_t now = b->tuning.wall ? b->tuning.wall(b->tuning.arg) : cst_wall();
	return now / CST_NS_PER_S + __atomic_load_n(&b->clock_offset, __ATOMIC_RELAXED);
}

void cst_bucket_stats(const struct cst_bucket *b, struct cst_bucket_stats *stats)
{
	CST_CHECK(b, CST_BUCKET_MAGIC);
	const uint64_t *from = (const uint64_t *)&b->stats;
	uint64_t *to = (uint64_t *)stats;
	_Static_assert(sizeof(*stats) % sizeof(*to) == 0, "all counters");
	for (size_t i = 0; i < sizeof(*stats) / sizeof(*to); i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

/* ---- metrics ---- */

static struct cst_metric *request_counter(enum cst_op_kind kind, int status)
{
	static struct cst_metric *counters[CST_OP_KINDS][STATUS_MAX];
	struct cst_metric **place = &counters[kind][status > 0 && status < STATUS_MAX ? status : 0];
	struct cst_metric *m = __atomic_load_n(place, __ATOMIC_ACQUIRE);
	if (!m) {
		char labels[64], code[16];
		snprintf(code, sizeof(code), "%d", status);
		snprintf(labels, sizeof(labels), "op=\"%s\",code=\"%s\"", op_names[kind],
			 status > 0 && status < STATUS_MAX ? code : "none");
		m = cst_metric_counter("cistern_object_requests_total", labels,
				       "Requests to the store by operation and HTTP status; none: no complete answer.");
		__atomic_store_n(place, m, __ATOMIC_RELEASE);
	}
	return m;
}

static struct cst_metric *request_seconds(enum cst_op_kind kind)
{
	static struct cst_metric *seconds[CST_OP_KINDS];
	struct cst_metric *m = __atomic_load_n(&seconds[kind], __ATOMIC_ACQUIRE);
	if (!m) {
		char labels[32];
		snprintf(labels, sizeof(labels), "op=\"%s\"", op_names[kind]);
		m = cst_metric_seconds("cistern_object_request_seconds", labels,
				       "Time of one request to the store, its body included.");
		__atomic_store_n(&seconds[kind], m, __ATOMIC_RELEASE);
	}
	return m;
}

void cst_op_count(const struct cst_object_op *op, int status, int64_t ns)
{
	struct cst_bucket_stats *s = &op->bucket->stats;
	uint64_t *const counters[CST_OP_KINDS] = {
		[CST_OP_GET] = &s->get,
		[CST_OP_HEAD] = &s->head,
		[CST_OP_LIST] = &s->list,
		[CST_OP_SYMLINK] = &s->symlink,
		[CST_OP_PUT] = &s->put,
		[CST_OP_PUT_SYMLINK] = &s->put,
		[CST_OP_APPEND] = &s->append,
		[CST_OP_COPY] = &s->copy,
		[CST_OP_DELETE] = &s->remove,
		[CST_OP_DELETE_MANY] = &s->remove,
		[CST_OP_BEGIN] = &s->upload,
		[CST_OP_PART] = &s->part,
		[CST_OP_PART_COPY] = &s->copy,
		[CST_OP_COMPLETE] = &s->upload,
		[CST_OP_ABORT] = &s->upload,
		[CST_OP_LIST_PARTS] = &s->upload,
		[CST_OP_LIST_UPLOADS] = &s->upload,
	};
	__atomic_fetch_add(counters[op->kind], 1, __ATOMIC_RELAXED);
	cst_metric_add(request_counter(op->kind, status), 1);
	cst_metric_observe_ns(request_seconds(op->kind), ns);
}

/* ---- operations ---- */

struct cst_object_op *cst_object_head(struct cst_bucket *b, struct cst_slice key, bool light, cst_object_head_fn fn,
				      void *arg)
{
	struct cst_object_op *op = cst_op_new(b, CST_OP_HEAD, key);
	op->light = light;
	op->fn = (void *)fn;
	op->arg = arg;
	cst_op_begin(op);
	return op;
}

struct cst_object_op *cst_object_get(struct cst_bucket *b, const struct cst_object_get *get, cst_object_get_fn fn,
				     void *arg)
{
	struct cst_object_op *op = cst_op_new(b, CST_OP_GET, get->key);
	CST_ASSERT(get->length > 0 && get->into_count > 0);
	op->fn = (void *)fn;
	op->arg = arg;
	op->offset = get->offset;
	op->length = cst_min(get->length, (uint64_t)INT64_MAX - cst_min(get->offset, (uint64_t)INT64_MAX - 1));
	op->no_retry = get->no_retry;
	op->background = get->background;
	op->has_if_match = get->if_match && get->if_match[0];
	if (op->has_if_match)
		snprintf(op->if_match, sizeof(op->if_match), "%s", get->if_match);
	op->progress = op->has_if_match ? get->progress : NULL;
	op->deadline_fixed = get->deadline != 0;
	if (get->deadline)
		op->deadline = get->deadline;
	op->iov = op->iov_own;
	if (get->into_count > CST_OP_IOV)
		op->iov = cst_xcalloc(2 * (size_t)get->into_count, sizeof(*op->iov));
	op->rest = op->iov + get->into_count;
	uint64_t room = op->length;
	for (int i = 0; i < get->into_count && room; i++) {
		size_t n = (size_t)cst_min((uint64_t)get->into[i].iov_len, room);
		op->iov[op->iov_count++] = (struct iovec){get->into[i].iov_base, n};
		room -= n;
	}
	CST_ASSERT(room == 0);
	cst_op_begin(op);
	return op;
}

static struct cst_object_op *list_new(struct cst_bucket *b, const struct cst_object_list *list,
				      const struct cst_object_list_ops *ops, void *arg)
{
	struct cst_object_op *op = cst_op_new(b, CST_OP_LIST, list->prefix);
	op->list_ops = *ops;
	op->arg = arg;
	if (list->delimiter)
		cst_buf_add_str(&op->delimiter, list->delimiter);
	cst_buf_add_slice(&op->start_after, list->start_after);
	cst_buf_add_slice(&op->token, list->token);
	op->max_keys = list->max_keys ? cst_min(list->max_keys, 1000U) : 1000;
	op->xml = cst_list_xml_new(cst_op_list_entry, op);
	return op;
}

struct cst_object_op *cst_object_list(struct cst_bucket *b, const struct cst_object_list *list,
				      const struct cst_object_list_ops *ops, void *arg)
{
	struct cst_object_op *op = list_new(b, list, ops, arg);
	cst_op_begin(op);
	return op;
}

struct cst_object_op *cst_object_get_symlink(struct cst_bucket *b, struct cst_slice key, cst_object_symlink_fn fn,
					     void *arg)
{
	struct cst_object_op *op = cst_op_new(b, CST_OP_SYMLINK, key);
	op->fn = (void *)fn;
	op->arg = arg;
	if (b->backend->symlinks) {
		cst_op_begin(op);
		return op;
	}
	cst_error_set(&op->err, ENOTSUP, "can't read the symlink %s://%s/%.*s", b->backend->scheme, b->name,
		      (int)cst_min(key.len, (size_t)160), key.data);
	cst_error_why(&op->err, "only OSS has symlink objects");
	cst_ref_get(&op->ref);
	cst_op_finish(op, -ENOTSUP);
	return op;
}

/* ---- the check before a mount ---- */

struct probe {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool done;
	int rc;
	struct cst_error err;
};

static void probe_entry(void *arg, const struct cst_object_list_entry *entry)
{
	(void)arg, (void)entry;
}

static void probe_restart(void *arg)
{
	(void)arg;
}

static void probe_done(void *arg, int rc, const struct cst_object_list_page *page, const struct cst_error *err)
{
	struct probe *p = arg;
	(void)page;
	pthread_mutex_lock(&p->lock);
	p->rc = rc;
	if (err)
		p->err = *err;
	p->done = true;
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

int cst_bucket_probe(struct cst_bucket *b, struct cst_slice prefix, struct cst_error *err)
{
	static const struct cst_object_list_ops ops = {probe_entry, probe_restart, probe_done};
	struct cst_object_list list = {.prefix = prefix, .max_keys = 1};
	struct probe p = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
	struct cst_object_op *op = list_new(b, &list, &ops, &p);
	op->probing = true;
	op->deadline = op->started + cst_min(b->deadline, PROBE_DEADLINE);
	cst_op_begin(op);
	pthread_mutex_lock(&p.lock);
	while (!p.done)
		pthread_cond_wait(&p.changed, &p.lock);
	pthread_mutex_unlock(&p.lock);
	cst_object_release(op);
	pthread_cond_destroy(&p.changed);
	pthread_mutex_destroy(&p.lock);
	if (p.rc < 0 && err) {
		*err = p.err;
		snprintf(err->what, sizeof(err->what), "can't use %s", b->describe);
	}
	return p.rc;
}
