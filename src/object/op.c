/* The life of operations: starting, waiting, retrying, ending. backend.h draws the states. */
#include "object/backend.h"

#include "base/clock.h"

#include <errno.h>

#define SPARE_MAX 128
#define SPARE_BUF_MAX 16384

static void trim(struct cst_buf *b)
{
	if (b->cap > SPARE_BUF_MAX)
		cst_buf_fini(b);
	else
		cst_buf_clear(b);
}

static struct cst_buf *const *bufs_of(struct cst_object_op *op, struct cst_buf *list[9])
{
	struct cst_buf *const all[9] = {&op->key,     &op->delimiter,  &op->start_after, &op->token,	  &op->target,
					&op->headers, &op->error_body, &op->meta_text,	 &op->target_text};
	memcpy(list, all, sizeof(all));
	return list;
}

static void destroy(struct cst_object_op *op)
{
	struct cst_buf *list[9];
	bufs_of(op, list);
	for (size_t i = 0; i < CST_ARRAY_LEN(list); i++)
		cst_buf_fini(list[i]);
	op->magic = 0;
	free(op);
}

/* Operations are kept for the next ones, with their buffers. */
static void recycle(struct cst_object_op *op)
{
	struct cst_bucket *b = op->bucket;
	struct cst_buf *list[9], kept[9];
	bufs_of(op, list);
	for (size_t i = 0; i < CST_ARRAY_LEN(list); i++) {
		trim(list[i]);
		kept[i] = *list[i];
	}
	if (op->iov != op->iov_own)
		free(op->iov);
	free(op->meta);
	cst_list_xml_free(op->xml);
	memset(op, 0, sizeof(*op));
	for (size_t i = 0; i < CST_ARRAY_LEN(list); i++)
		*list[i] = kept[i];
	pthread_mutex_lock(&b->lock);
	bool keep = b->spare_count < SPARE_MAX;
	if (keep) {
		TAILQ_INSERT_HEAD(&b->spare, op, link);
		b->spare_count++;
	}
	if (--b->live == 0)
		pthread_cond_broadcast(&b->idle);
	pthread_mutex_unlock(&b->lock);
	if (!keep)
		destroy(op);
}

static void op_unref(struct cst_object_op *op)
{
	CST_CHECK(op, CST_OP_MAGIC);
	if (cst_ref_put(&op->ref))
		recycle(op);
}

void cst_op_free_spare(struct cst_bucket *b)
{
	struct cst_object_op *op;
	while ((op = TAILQ_FIRST(&b->spare))) {
		TAILQ_REMOVE(&b->spare, op, link);
		destroy(op);
	}
}

struct cst_object_op *cst_op_new(struct cst_bucket *b, enum cst_op_kind kind, struct cst_slice key)
{
	CST_CHECK(b, CST_BUCKET_MAGIC);
	pthread_mutex_lock(&b->lock);
	struct cst_object_op *op = TAILQ_FIRST(&b->spare);
	if (op) {
		TAILQ_REMOVE(&b->spare, op, link);
		b->spare_count--;
	}
	b->live++;
	pthread_mutex_unlock(&b->lock);
	if (!op)
		op = CST_NEW(struct cst_object_op);
	op->magic = CST_OP_MAGIC;
	cst_ref_init(&op->ref);
	op->bucket = b;
	op->kind = kind;
	op->started = cst_now();
	op->deadline = op->started + b->deadline;
	op->max_attempts = b->max_attempts;
	cst_buf_add_slice(&op->key, key);
	return op;
}

/* ---- waiting ---- */

static void service(struct cst_task *task);

/* Has the bucket's loop look at the operation: it arms or stops the timer. */
static void post_locked(struct cst_object_op *op)
{
	op->timed = true;
	if (op->posted)
		return;
	op->posted = true;
	cst_ref_get(&op->ref);
	op->task.fn = service;
	cst_loop_post(op->bucket->loop, &op->task);
}

static bool waiting(const struct cst_object_op *op)
{
	return op->state == CST_OP_QUEUED || op->state == CST_OP_BACKOFF || op->state == CST_OP_RENEWING;
}

static void leave_wait_locked(struct cst_object_op *op)
{
	if (op->state == CST_OP_QUEUED)
		TAILQ_REMOVE(&op->bucket->queue, op, link);
	op->state = CST_OP_NEW;
}

static void try_start(struct cst_object_op *op);
static void start_queued(struct cst_bucket *b);

static void give_up(struct cst_object_op *op, int error)
{
	cst_op_explain(op, error, 0, NULL);
	cst_op_finish(op, -error);
}

static void on_timer(struct cst_timer *timer)
{
	struct cst_object_op *op = cst_container_of(timer, struct cst_object_op, timer);
	struct cst_bucket *b = op->bucket;
	pthread_mutex_lock(&b->lock);
	bool due = waiting(op) && cst_now() >= op->wake_at;
	bool again = due && op->state == CST_OP_BACKOFF;
	if (due)
		leave_wait_locked(op);
	pthread_mutex_unlock(&b->lock);
	if (again) {
		try_start(op);
		start_queued(b);
	} else if (due) {
		give_up(op, ETIMEDOUT);
	}
	op_unref(op);
}

static void service(struct cst_task *task)
{
	struct cst_object_op *op = cst_container_of(task, struct cst_object_op, task);
	struct cst_bucket *b = op->bucket;
	pthread_mutex_lock(&b->lock);
	op->posted = false;
	bool cancel = waiting(op) && op->cancelled;
	if (cancel)
		leave_wait_locked(op);
	bool wait = waiting(op);
	int64_t at = op->wake_at;
	pthread_mutex_unlock(&b->lock);
	bool armed = op->timer.private_index != 0;
	if (wait) {
		if (!armed)
			cst_ref_get(&op->ref);
		op->timer.fn = on_timer;
		cst_timer_arm(b->loop, &op->timer, at);
	} else if (armed) {
		cst_timer_cancel(b->loop, &op->timer);
		op_unref(op);
	}
	if (cancel)
		give_up(op, ECANCELED);
	op_unref(op);
}

/* ---- running ---- */

/* The state is RUNNING and the limiter has counted us. */
static void send_attempt(struct cst_object_op *op)
{
	struct cst_bucket *b = op->bucket;
	cst_ref_get(&op->ref);
	pthread_mutex_lock(&b->lock);
	unsigned number = ++op->sent;
	pthread_mutex_unlock(&b->lock);
	struct cst_http_call *call = cst_op_send(op);
	/* The answer may have come meanwhile, and the next attempt may be on its way. */
	pthread_mutex_lock(&b->lock);
	bool over = op->answered >= number;
	if (!over) {
		op->call = call;
		if (op->cancelled)
			cst_http_cancel(call);
	}
	pthread_mutex_unlock(&b->lock);
	if (over)
		cst_http_release(call);
	op_unref(op);
}

static void try_start(struct cst_object_op *op)
{
	struct cst_bucket *b = op->bucket;
	int64_t now = cst_now();
	int error = 0;
	pthread_mutex_lock(&b->lock);
	if (op->cancelled) {
		error = ECANCELED;
	} else if (now >= op->deadline) {
		error = ETIMEDOUT;
	} else if (b->limiter.pause_until > now) {
		op->state = CST_OP_BACKOFF;
		op->wake_at = cst_min(b->limiter.pause_until, op->deadline);
		post_locked(op);
	} else if (!cst_limiter_may_start(&b->limiter) || (op->sent == 0 && !TAILQ_EMPTY(&b->queue))) {
		/* A new one does not overtake those who wait; without this, who starts the next from its callback always would. */
		op->state = CST_OP_QUEUED;
		op->wake_at = op->deadline;
		TAILQ_INSERT_TAIL(&b->queue, op, link);
		post_locked(op);
	} else {
		op->state = CST_OP_RUNNING;
		b->limiter.in_flight++;
	}
	bool run = !error && op->state == CST_OP_RUNNING;
	pthread_mutex_unlock(&b->lock);
	if (error)
		give_up(op, error);
	else if (run)
		send_attempt(op);
}

/* The operation may end, and even its handle be released, before this returns; the caller holds a reference. */
void cst_op_begin(struct cst_object_op *op)
{
	struct cst_bucket *b = op->bucket;
	cst_ref_get(&op->ref); /* until DONE */
	try_start(op);
	start_queued(b); /* it may have queued though there is a place: the first in the line takes it */
}

/* A place is free: those who waited for one start. */
static void start_queued(struct cst_bucket *b)
{
	for (;;) {
		pthread_mutex_lock(&b->lock);
		struct cst_object_op *op = TAILQ_FIRST(&b->queue);
		bool go = op && cst_limiter_may_start(&b->limiter) && b->limiter.pause_until <= cst_now();
		if (go) {
			leave_wait_locked(op);
			op->state = CST_OP_RUNNING;
			b->limiter.in_flight++;
			cst_ref_get(&op->ref);
			post_locked(op);
		} else if (op && cst_limiter_may_start(&b->limiter)) {
			/* Quiet was asked for: the first one wakes up then and draws the others along. */
			leave_wait_locked(op);
			op->state = CST_OP_BACKOFF;
			op->wake_at = cst_min(b->limiter.pause_until, op->deadline);
			post_locked(op);
		}
		pthread_mutex_unlock(&b->lock);
		if (!go)
			return;
		send_attempt(op);
		op_unref(op);
	}
}

void cst_op_on_done(void *arg, int rc, size_t received, const struct cst_error *err)
{
	struct cst_object_op *op = arg;
	struct cst_bucket *b = op->bucket;
	CST_CHECK(op, CST_OP_MAGIC);
	pthread_mutex_lock(&b->lock);
	cst_ref_get(&op->ref); /* keeps the bucket, too */
	op->answered = op->sent;
	struct cst_http_call *call = cst_steal(op->call);
	b->limiter.in_flight--;
	op->state = CST_OP_NEW;
	pthread_mutex_unlock(&b->lock);
	cst_http_release(call);
	cst_op_count(op, rc == 0 || op->stop != CST_STOP_NONE ? op->status : 0, cst_now() - op->attempt_started);
	__atomic_fetch_add(&b->stats.bytes_in, received, __ATOMIC_RELAXED);
	cst_op_judge(op, rc, received, err);
	start_queued(b); /* after the verdict, which may have changed the limit */
	op_unref(op);
}

void cst_op_retry(struct cst_object_op *op, int64_t delay)
{
	struct cst_bucket *b = op->bucket;
	__atomic_fetch_add(&b->stats.retries, 1, __ATOMIC_RELAXED);
	if (delay <= 0) {
		try_start(op);
		return;
	}
	pthread_mutex_lock(&b->lock);
	op->state = CST_OP_BACKOFF;
	op->wake_at = cst_now() + delay;
	post_locked(op);
	pthread_mutex_unlock(&b->lock);
}

static void on_renewed(void *arg, int rc)
{
	struct cst_object_op *op = arg;
	struct cst_bucket *b = op->bucket;
	pthread_mutex_lock(&b->lock);
	bool ours = op->state == CST_OP_RENEWING;
	if (ours) {
		leave_wait_locked(op);
		post_locked(op);
	}
	pthread_mutex_unlock(&b->lock);
	if (ours && rc == 0) {
		try_start(op);
		start_queued(b);
	} else if (ours) {
		cst_op_explain(op, op->renew_error, 0, NULL);
		cst_op_finish(op, -op->renew_error);
	}
	op_unref(op);
}

void cst_op_renew(struct cst_object_op *op)
{
	struct cst_bucket *b = op->bucket;
	op->renewed = true;
	cst_ref_get(&op->ref);
	pthread_mutex_lock(&b->lock);
	op->state = CST_OP_RENEWING;
	op->wake_at = op->deadline;
	post_locked(op);
	pthread_mutex_unlock(&b->lock);
	cst_credentials_renew(b->credentials, op->generation, on_renewed, op);
}

/* ---- ending ---- */

static void call_back(struct cst_object_op *op, int rc)
{
	const struct cst_error *err = rc < 0 ? &op->err : NULL;
	switch (op->kind) {
	case CST_OP_GET:
		((cst_object_get_fn)op->fn)(op->arg, rc, (size_t)op->got, &op->info, err);
		break;
	case CST_OP_HEAD:
		((cst_object_head_fn)op->fn)(op->arg, rc, &op->info, err);
		break;
	case CST_OP_SYMLINK:
		((cst_object_symlink_fn)op->fn)(op->arg, rc, cst_buf_slice(&op->target_text), err);
		break;
	default:
		op->list_ops.done(op->arg, rc, &op->page, err);
	}
}

void cst_op_finish(struct cst_object_op *op, int rc)
{
	struct cst_bucket *b = op->bucket;
	pthread_mutex_lock(&b->lock);
	op->state = CST_OP_DONE;
	if (op->timed)
		post_locked(op);
	pthread_mutex_unlock(&b->lock);
	op->info.key = cst_buf_slice(&op->key);
	call_back(op, rc);
	/* One that ends without having run may have been the one to wake the others. */
	start_queued(b);
	op_unref(op);
}

void cst_object_cancel(struct cst_object_op *op)
{
	CST_CHECK(op, CST_OP_MAGIC);
	struct cst_bucket *b = op->bucket;
	pthread_mutex_lock(&b->lock);
	__atomic_store_n(&op->cancelled, true, __ATOMIC_RELAXED);
	if (op->call)
		cst_http_cancel(op->call);
	else if (waiting(op))
		post_locked(op);
	pthread_mutex_unlock(&b->lock);
}

void cst_object_release(struct cst_object_op *op)
{
	if (op)
		op_unref(op);
}
