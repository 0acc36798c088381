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
	cst_hedge_free(op);
	cst_list_xml_free(op->xml);
	cst_write_free(op);
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

void cst_op_unref(struct cst_object_op *op)
{
	CST_CHECK(op, CST_OP_MAGIC);
	if (cst_ref_put(&op->ref))
		recycle(op);
}

void cst_op_ref(struct cst_object_op *op)
{
	cst_ref_get(&op->ref);
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

static enum cst_op_lane lane_of(const struct cst_object_op *op)
{
	switch (op->kind) {
	case CST_OP_GET:
		return op->background ? CST_LANE_BACKGROUND : CST_LANE_DEMAND;
	case CST_OP_HEAD:
		return CST_LANE_HEAD;
	case CST_OP_LIST:
	case CST_OP_SYMLINK:
	case CST_OP_LIST_PARTS:
	case CST_OP_LIST_UPLOADS:
		return CST_LANE_LIST;
	default:
		if (!op->write->length)
			return CST_LANE_CHANGE;
		return op->background ? CST_LANE_UPLOAD_BACKGROUND : CST_LANE_UPLOAD;
	}
}

static bool is_background(enum cst_op_lane lane)
{
	return lane == CST_LANE_BACKGROUND || lane == CST_LANE_UPLOAD_BACKGROUND;
}

static void leave_wait_locked(struct cst_object_op *op)
{
	if (op->state == CST_OP_QUEUED) {
		TAILQ_REMOVE(&op->bucket->queues[lane_of(op)], op, link);
		/* The wait for our own limits does not count. */
		if (op->limited && !op->deadline_fixed)
			op->deadline += cst_now() - op->queued_at;
	}
	op->state = CST_OP_NEW;
}

static void try_start(struct cst_object_op *op);

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
		cst_op_start_queued(b);
	} else if (due) {
		give_up(op, ETIMEDOUT);
	}
	cst_op_unref(op);
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
		cst_op_unref(op);
	}
	if (cancel)
		give_up(op, ECANCELED);
	cst_op_unref(op);
}

/* ---- running ---- */

/* The state is RUNNING and the limiter has counted us. */
static void send_attempt(struct cst_object_op *op)
{
	struct cst_bucket *b = op->bucket;
	cst_ref_get(&op->ref);
	pthread_mutex_lock(&b->lock);
	unsigned number = ++op->sent;
	op->side = (struct cst_side){.running = true};
	op->alarm = cst_hedge_alarm_locked(op);
	pthread_mutex_unlock(&b->lock);
	struct cst_http_call *call = cst_op_send(op);
	/* The answer may have come meanwhile, and the next attempt may be on its way. */
	pthread_mutex_lock(&b->lock);
	bool over = op->answered >= number;
	if (!over) {
		op->call = call;
		if (op->cancelled || op->side.dropped)
			cst_http_cancel(call);
	}
	pthread_mutex_unlock(&b->lock);
	if (over)
		cst_http_release(call);
	cst_op_unref(op);
}

void cst_op_send_beside(struct cst_object_op *op)
{
	struct cst_bucket *b = op->bucket;
	pthread_mutex_lock(&b->lock);
	op->paid = cst_op_enter_locked(op, op->got);
	pthread_mutex_unlock(&b->lock);
	send_attempt(op);
}

uint64_t cst_op_enter_locked(struct cst_object_op *op, uint64_t from)
{
	struct cst_bucket *b = op->bucket;
	int64_t now = cst_now();
	uint64_t bytes = op->kind == CST_OP_GET ? op->length - from : 0;
	enum cst_op_lane lane = lane_of(op);
	op->state = CST_OP_RUNNING;
	op->late = false;
	if (is_background(lane))
		b->background_at[lane] = now;
	b->heads += op->kind == CST_OP_HEAD;
	b->limiter.in_flight++;
	cst_allowance_take(&b->requests, now, 1);
	cst_allowance_take(&b->bandwidth, now, (double)bytes);
	if (op->write)
		cst_allowance_take(&b->upload, now, (double)op->write->length);
	return bytes;
}

void cst_op_left_locked(struct cst_object_op *op, bool last, uint64_t paid, size_t received)
{
	struct cst_bucket *b = op->bucket;
	b->limiter.in_flight--;
	if (last)
		op->state = CST_OP_NEW;
	if (op->kind == CST_OP_HEAD)
		*(op->late ? &b->late_heads : &b->heads) -= 1;
	if (op->kind == CST_OP_GET)
		cst_allowance_correct(&b->bandwidth, (double)received - (double)paid);
	if (op->write && op->write->length) {
		struct cst_write *w = op->write;
		cst_allowance_correct(&b->upload, (double)(w->sent.bytes - w->sent_before) - (double)w->length);
	}
}

static void enter_locked(struct cst_object_op *op)
{
	op->paid = cst_op_enter_locked(op, op->sift ? 0 : op->got);
}

/* A HEAD that stalls makes room for another one. */
int64_t cst_op_on_head_alarm(void *arg)
{
	struct cst_object_op *op = arg;
	struct cst_bucket *b = op->bucket;
	pthread_mutex_lock(&b->lock);
	bool first = !op->late; /* it may ring again on another connection */
	op->late = true;
	b->heads -= first;
	b->late_heads += first;
	pthread_mutex_unlock(&b->lock);
	cst_op_start_queued(b);
	return 0;
}

static bool crowded_locked(const struct cst_object_op *op)
{
	const struct cst_bucket *b = op->bucket;
	return op->kind == CST_OP_HEAD && (b->heads >= CST_HEADS_AT_ONCE || b->heads + b->late_heads >= CST_HEADS_MOST);
}

/* From when on our own limits let it go. */
static int64_t allowed_at_locked(const struct cst_object_op *op, int64_t now)
{
	const struct cst_bucket *b = op->bucket;
	int64_t at = cst_allowance_when(&b->requests, now);
	if (op->write && op->write->length)
		return cst_max(at, cst_allowance_when(&b->upload, now));
	return op->kind == CST_OP_GET ? cst_max(at, cst_allowance_when(&b->bandwidth, now)) : at;
}

/* Does somebody wait whom a new one must not overtake? Those that wait for what it does not need are no hindrance. */
static bool behind_others_locked(const struct cst_object_op *op)
{
	const struct cst_bucket *b = op->bucket;
	enum cst_op_lane lane = lane_of(op);
	bool full = b->limiter.limit > 0;
	for (int i = 0; i < CST_LANES; i++)
		if (!TAILQ_EMPTY(&b->queues[i]) && (i == (int)lane || (full && !is_background((enum cst_op_lane)i)) ||
						    (lane == CST_LANE_BACKGROUND && i == CST_LANE_DEMAND) ||
						    (lane == CST_LANE_UPLOAD_BACKGROUND && i == CST_LANE_UPLOAD)))
			return true;
	return false;
}

static void queue_locked(struct cst_object_op *op, int64_t now, bool limited)
{
	struct cst_bucket *b = op->bucket;
	op->state = CST_OP_QUEUED;
	op->order = ++b->order;
	op->queued_at = now;
	op->wake_at = op->deadline;
	TAILQ_INSERT_TAIL(&b->queues[lane_of(op)], op, link);
	op->limited = limited;
	if (limited && !op->was_limited)
		__atomic_fetch_add(&b->stats.limited, 1, __ATOMIC_RELAXED);
	op->was_limited |= limited;
	/* What waits for our own limits is drawn along; only a fixed deadline needs a timer. */
	if ((!limited && !crowded_locked(op)) || op->deadline_fixed)
		post_locked(op);
}

static void try_start(struct cst_object_op *op)
{
	struct cst_bucket *b = op->bucket;
	int64_t now = cst_now();
	int error = 0;
	pthread_mutex_lock(&b->lock);
	bool limited = allowed_at_locked(op, now) > now;
	if (op->cancelled) {
		error = ECANCELED;
	} else if (now >= op->deadline) {
		error = ETIMEDOUT;
	} else if (b->limiter.pause_until > now) {
		op->state = CST_OP_BACKOFF;
		op->wake_at = cst_min(b->limiter.pause_until, op->deadline);
		post_locked(op);
	} else if (limited || crowded_locked(op) || !cst_limiter_may_start(&b->limiter) ||
		   (op->sent == 0 && behind_others_locked(op))) {
		/* A new one does not overtake those who wait; without this, who starts the next from its callback always would. */
		queue_locked(op, now, limited || (b->pace_at && !crowded_locked(op)));
	} else {
		enter_locked(op);
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
	cst_op_start_queued(b); /* it may have queued though there is a place: the first in the line takes it */
}

#define PATIENCE (CST_NS_PER_S) /* of those that wait in the background */

static bool has_patience_locked(const struct cst_object_op *op, int64_t now)
{
	return now - cst_max(op->queued_at, op->bucket->background_at[lane_of(op)]) <= PATIENCE;
}

/* Who is next: of those that may go, who came first; in the background only when nobody else may, or one of them after a while: what a stream
 * reads ahead may be much, and others don't wait behind all of it. */
static struct cst_object_op *next_locked(struct cst_bucket *b, int64_t now)
{
	struct cst_object_op *best = NULL;
	for (int i = 0; i < CST_LANES; i++) {
		struct cst_object_op *op = TAILQ_FIRST(&b->queues[i]);
		if (!op || crowded_locked(op) || allowed_at_locked(op, now) > now)
			continue;
		bool yields = is_background((enum cst_op_lane)i) && has_patience_locked(op, now);
		if (!best || (op->order < best->order && !yields))
			best = op;
	}
	return best;
}

static struct cst_object_op *first_locked(struct cst_bucket *b)
{
	for (int i = 0; i < CST_LANES; i++)
		if (!TAILQ_EMPTY(&b->queues[i]))
			return TAILQ_FIRST(&b->queues[i]);
	return NULL;
}

static void on_pace_timer(struct cst_timer *timer)
{
	struct cst_bucket *b = cst_container_of(timer, struct cst_bucket, pace_timer);
	pthread_mutex_lock(&b->lock);
	b->pace_at = 0;
	pthread_mutex_unlock(&b->lock);
	cst_op_start_queued(b);
}

static void on_pace_task(struct cst_task *task)
{
	struct cst_bucket *b = cst_container_of(task, struct cst_bucket, pace_task);
	pthread_mutex_lock(&b->lock);
	b->pace_posted = false;
	int64_t at = b->pace_at;
	pthread_mutex_unlock(&b->lock);
	b->pace_timer.fn = on_pace_timer;
	if (at)
		cst_timer_arm(b->loop, &b->pace_timer, at);
}

/* The bucket's loop wakes us when the first of those that wait may go. */
static void wait_for_allowance_locked(struct cst_bucket *b, int64_t now)
{
	int64_t at = INT64_MAX;
	for (int i = 0; i < CST_LANES; i++) {
		const struct cst_object_op *op = TAILQ_FIRST(&b->queues[i]);
		if (op && !crowded_locked(op))
			at = cst_min(at, allowed_at_locked(op, now));
	}
	if (at == INT64_MAX || (b->pace_at && b->pace_at <= at))
		return;
	b->pace_at = at;
	if (b->pace_posted)
		return;
	b->pace_posted = true;
	b->pace_task.fn = on_pace_task;
	cst_loop_post(b->loop, &b->pace_task);
}

/* A place is free: those who waited for one start. */
void cst_op_start_queued(struct cst_bucket *b)
{
	for (;;) {
		pthread_mutex_lock(&b->lock);
		int64_t now = cst_now();
		bool room = cst_limiter_may_start(&b->limiter);
		bool quiet = b->limiter.pause_until > now;
		struct cst_object_op *op = !room ? NULL : quiet ? first_locked(b) : next_locked(b, now);
		if (op && !quiet) {
			leave_wait_locked(op);
			enter_locked(op);
			cst_ref_get(&op->ref);
			if (op->timed)
				post_locked(op);
		} else if (op) {
			/* Quiet was asked for: the first one wakes up then and draws the others along. */
			leave_wait_locked(op);
			op->state = CST_OP_BACKOFF;
			op->wake_at = cst_min(b->limiter.pause_until, op->deadline);
			post_locked(op);
		} else if (room) {
			wait_for_allowance_locked(b, now);
		}
		pthread_mutex_unlock(&b->lock);
		if (!op || quiet)
			return;
		send_attempt(op);
		cst_op_unref(op);
	}
}

void cst_op_on_done(void *arg, int rc, size_t received, const struct cst_error *err)
{
	struct cst_object_op *op = arg;
	struct cst_bucket *b = op->bucket;
	CST_CHECK(op, CST_OP_MAGIC);
	bool complete = cst_op_is_complete(op, rc, received);
	pthread_mutex_lock(&b->lock);
	cst_ref_get(&op->ref); /* keeps the bucket, too */
	op->answered = op->sent;
	struct cst_http_call *call = cst_steal(op->call);
	op->side.running = false;
	cst_op_left_locked(op, !cst_hedge_running(op), op->paid, received);
	cst_hedge_learn_locked(op, &op->side, op->attempt_started, received, complete);
	pthread_mutex_unlock(&b->lock);
	cst_http_release(call);
	cst_op_count(op, rc == 0 || op->stop != CST_STOP_NONE ? op->status : 0, cst_now() - op->attempt_started);
	__atomic_fetch_add(&b->stats.bytes_in, received, __ATOMIC_RELAXED);
	if (op->write)
		cst_write_attempt_ended(op, rc);
	cst_hedge_attempt_ended(op, rc, received, err);
	cst_op_start_queued(b); /* after the verdict, which may have changed the limit */
	cst_op_unref(op);
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

void cst_op_go_on(struct cst_object_op *op)
{
	op->failures = 0;
	try_start(op);
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
		cst_op_start_queued(b);
	} else if (ours) {
		cst_op_explain(op, op->renew_error, 0, NULL);
		cst_op_finish(op, -op->renew_error);
	}
	cst_op_unref(op);
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
	if (op->write) {
		cst_write_call_back(op, rc, err);
		return;
	}
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
	cst_op_start_queued(b);
	cst_op_unref(op);
}

void cst_object_cancel(struct cst_object_op *op)
{
	CST_CHECK(op, CST_OP_MAGIC);
	struct cst_bucket *b = op->bucket;
	pthread_mutex_lock(&b->lock);
	__atomic_store_n(&op->cancelled, true, __ATOMIC_RELAXED);
	if (op->call)
		cst_http_cancel(op->call);
	cst_hedge_cancel_locked(op);
	if (waiting(op))
		post_locked(op);
	pthread_mutex_unlock(&b->lock);
}

void cst_object_hurry(struct cst_object_op *op)
{
	CST_CHECK(op, CST_OP_MAGIC);
	struct cst_bucket *b = op->bucket;
	pthread_mutex_lock(&b->lock);
	bool moves = op->background && op->state == CST_OP_QUEUED;
	if (moves)
		TAILQ_REMOVE(&b->queues[lane_of(op)], op, link);
	op->background = false;
	if (moves) {
		/* Behind those whom somebody waited for before: else one long file would go before all others. */
		op->order = ++b->order;
		TAILQ_INSERT_TAIL(&b->queues[lane_of(op)], op, link);
	}
	pthread_mutex_unlock(&b->lock);
}

void cst_object_release(struct cst_object_op *op)
{
	if (op)
		cst_op_unref(op);
}
