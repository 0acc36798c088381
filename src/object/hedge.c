/* Hedging: a GET whose head is late, or whose body crawls while others get on, is sent a second time, for what is still missing.
 *
 * The two requests of an operation ("sides": the attempt of op.c, and the second request here) run on one loop, so their
 * callbacks never meet, and both receive into the same memory. While both run nothing is reported as progress, so nobody reads where
 * they write; what was reported before lies in front of both. The side that overtakes the other has it cancelled. The first whole
 * answer counts. The operation goes on when both have ended:
 *
 *	attempt complete, or second complete      the range is complete
 *	attempt failed, second failed             the attempt is judged as if it had been alone; what has come, counts
 *	one failed                                the other one is waited for; if it is slow, another one may be sent beside it
 *
 * A second request costs 20 credits and each GET earns one; some are kept for what stalls. None is sent while the store
 * throttles or anybody waits for it. */
#include "object/backend.h"

#include "base/clock.h"

#include <errno.h>

#define CREDIT_MAX (8 * CST_HEDGE_COST) /* the burst */
#define RESERVE (3 * CST_HEDGE_COST)	/* for sides that stall */
#define LATER (10 * CST_NS_PER_MS)	/* to look again when nothing can be done now */
#define UNKNOWN (50 * CST_NS_PER_MS)	/* to look at what comes while nothing is known of the store */
#define PEERS_LEAST 3
#define CAUGHT_UP ((uint64_t)64 * 1024) /* bytes after which a late answer is no longer raced */

struct cst_hedge {
	struct cst_object_op *op;
	struct cst_http_call *call; /* under the bucket's lock */
	struct cst_side side;
	bool named, done; /* its head fits; it brought the last byte */
	int status;
	int64_t started, told_delay;
	uint64_t told, paid;
	struct cst_buf target, headers;
	struct iovec *rest;
	struct cst_error err;  /* of the attempt, when that ended first */
	bool attempt_complete; /* it ended first, well */
};

void cst_hedge_free(struct cst_object_op *op)
{
	struct cst_hedge *h = cst_steal(op->hedge);
	if (!h)
		return;
	cst_buf_fini(&h->target);
	cst_buf_fini(&h->headers);
	free(h->rest);
	free(h);
}

static uint64_t position(const struct cst_side *side)
{
	return side->from + side->came;
}

static struct cst_side *second(const struct cst_object_op *op)
{
	return op->hedge ? &op->hedge->side : NULL;
}

static struct cst_side *other_of(struct cst_object_op *op, const struct cst_side *side)
{
	return side == &op->side ? second(op) : &op->side;
}

static bool both_run(const struct cst_object_op *op)
{
	return op->side.running && cst_hedge_running(op);
}

/* ---- what the store usually does ---- */

int64_t cst_hedge_alarm_locked(struct cst_object_op *op)
{
	struct cst_bucket *b = op->bucket;
	if (!b->hedge || op->kind != CST_OP_GET || !op->has_if_match || op->no_retry || op->sift)
		return 0;
	b->hedge_credit = cst_min(b->hedge_credit + 1, CREDIT_MAX);
	int64_t late = cst_pace_head_late(&b->pace, false);
	op->side.patience = op->background ? cst_pace_head_late(&b->pace, true) - late : 0;
	op->side.knows_late = late > 0;
	return late ? late : UNKNOWN;
}

void cst_hedge_head(struct cst_object_op *op, struct cst_side *side, int64_t sent_at)
{
	struct cst_bucket *b = op->bucket;
	if (!b->hedge)
		return;
	side->head_at = cst_now();
	side->head_ns = side->head_at - sent_at;
	side->bodies_at = __atomic_add_fetch(&b->bodies, 1, __ATOMIC_RELAXED);
	side->flow_at = __atomic_load_n(&b->flow, __ATOMIC_RELAXED);
}

void cst_hedge_learn_locked(struct cst_object_op *op, struct cst_side *side, int64_t started, size_t received,
			    bool complete)
{
	struct cst_bucket *b = op->bucket;
	int64_t now = cst_now();
	if (!b->hedge || op->kind != CST_OP_GET)
		return;
	if (side->head_at) {
		__atomic_fetch_sub(&b->bodies, 1, __ATOMIC_RELAXED);
		__atomic_fetch_add(&b->flow, received - side->came, __ATOMIC_RELAXED);
		side->came = received;
		cst_usual_add(&b->pace.head, (uint64_t)cst_max(side->head_ns, INT64_C(1)));
		if (complete)
			cst_pace_body(&b->pace, received, now - side->head_at);
	} else if (side->dropped) {
		cst_usual_add(&b->pace.head, (uint64_t)(now - started)); /* so late at least */
	}
}

/* What another body gets meanwhile: when all are slow, asking again makes it worse. Of few nothing can be said: they may have met
 * with the same misfortune. */
static uint64_t peers_rate(const struct cst_bucket *b, const struct cst_side *side, int64_t elapsed)
{
	unsigned now = __atomic_load_n(&b->bodies, __ATOMIC_RELAXED);
	unsigned others = cst_max(now, side->bodies_at) - 1;
	uint64_t flow = __atomic_load_n(&b->flow, __ATOMIC_RELAXED) - side->flow_at - side->came;
	if (others < PEERS_LEAST || elapsed <= 0)
		return 0;
	return cst_max((uint64_t)((double)flow * 1e9 / (double)elapsed / others), UINT64_C(1));
}

/* ---- the second request ---- */

static int on_head(void *arg, const struct cst_http_response *r)
{
	struct cst_hedge *h = arg;
	struct cst_object_op *op = h->op;
	CST_CHECK(op, CST_OP_MAGIC);
	h->status = r->status;
	if (r->status < 200 || r->status > 299) {
		h->told_delay = cst_op_told_delay(r->head);
		return 0;
	}
	if (!cst_op_second_head(op, r, h->side.from, &h->told))
		return -ECANCELED;
	h->named = true;
	cst_hedge_head(op, &h->side, r->sent_at);
	return 0;
}

static void on_progress(void *arg, size_t received)
{
	struct cst_hedge *h = arg;
	cst_hedge_progress(h->op, &h->side, received);
}

static void drop(struct cst_object_op *op, struct cst_side *side)
{
	struct cst_bucket *b = op->bucket;
	pthread_mutex_lock(&b->lock);
	bool first = !side->dropped;
	side->dropped = true;
	struct cst_http_call *call = side == &op->side ? op->call : op->hedge->call;
	if (call && first)
		cst_http_cancel(call);
	pthread_mutex_unlock(&b->lock);
	if (first && side != op->younger)
		__atomic_fetch_add(&b->stats.hedge_wins, 1, __ATOMIC_RELAXED);
}

static void judge_attempt(struct cst_object_op *op, int rc, size_t received, const struct cst_error *err)
{
	bool ours = rc == -ECANCELED && op->side.dropped && op->stop == CST_STOP_NONE &&
		    !__atomic_load_n(&op->cancelled, __ATOMIC_RELAXED);
	if (!ours) {
		cst_op_judge(op, rc, received, err);
		return;
	}
	/* We ended it for the other one, which then failed: the rest is asked for again. */
	struct cst_error broken;
	cst_error_clear(&broken);
	cst_error_set(&broken, ECONNRESET, "two requests for the same range broke off");
	cst_error_why(&broken, "%s", broken.what);
	cst_op_judge(op, -ECONNRESET, received, &broken);
}

/* Counts once: what follows may begin again, after a wrong CRC. */
static bool take_done(struct cst_hedge *h)
{
	bool done = h && h->done;
	if (done)
		h->done = false;
	return done;
}

static void on_done(void *arg, int rc, size_t received, const struct cst_error *err)
{
	struct cst_hedge *h = arg;
	struct cst_object_op *op = h->op;
	struct cst_bucket *b = op->bucket;
	(void)err;
	CST_CHECK(op, CST_OP_MAGIC);
	h->done = rc == 0 && h->named && received == h->told &&
		  op->offset + h->side.from + received == cst_min(op->offset + op->length, op->info.size);
	pthread_mutex_lock(&b->lock);
	h->side.running = false;
	struct cst_http_call *call = cst_steal(h->call);
	bool last = !op->side.running;
	cst_op_left_locked(op, last, h->paid, received);
	cst_hedge_learn_locked(op, &h->side, h->started, h->named ? received : 0, h->done);
	pthread_mutex_unlock(&b->lock);
	cst_http_release(call);
	cst_op_count(op, rc == 0 || h->named ? h->status : 0, cst_now() - h->started);
	__atomic_fetch_add(&b->stats.bytes_in, received, __ATOMIC_RELAXED);
	if (h->named)
		cst_op_came(op, h->side.from, received);
	else if (rc == 0 && cst_retry_status(h->status, "").action == CST_RETRY_THROTTLE)
		cst_op_throttled(op, h->started, h->told_delay);
	if (!last) {
		if (h->done)
			drop(op, &op->side);
	} else if (take_done(h) && !h->attempt_complete) {
		cst_op_complete(op);
	} else {
		judge_attempt(op, op->ended_rc, op->ended_received, h->err.code ? &h->err : NULL);
	}
	cst_op_start_queued(b);
	cst_op_unref(op);
}

static int64_t on_alarm(void *arg);

static void send_second(struct cst_object_op *op)
{
	struct cst_bucket *b = op->bucket;
	struct cst_hedge *h = op->hedge;
	if (!h) {
		h = CST_NEW(struct cst_hedge);
		h->op = op;
		h->rest = cst_xcalloc((size_t)op->iov_count, sizeof(*h->rest));
		pthread_mutex_lock(&b->lock); /* who cancels looks for it */
		op->hedge = h;
		pthread_mutex_unlock(&b->lock);
	}
	h->side = (struct cst_side){.from = position(&op->side)};
	h->named = h->done = h->attempt_complete = false;
	h->status = 0;
	h->told_delay = 0;
	h->started = cst_now();
	cst_error_clear(&h->err);
	cst_buf_clear(&h->target);
	cst_buf_add_slice(&h->target, cst_buf_slice(&op->target));
	cst_buf_clear(&h->headers);
	cst_op_write_range(op, h->side.from, op->if_match, &h->headers);
	cst_op_sign(op, "GET", cst_buf_slice(&op->key), NULL, 0, &h->headers);
	struct cst_http_request req = {
		.origin = &b->endpoint.origin,
		.method = "GET",
		.target = h->target.data,
		.headers = cst_buf_slice(&h->headers),
		.host_header = b->endpoint.host,
		.into = h->rest,
		.into_count = cst_op_rest(op, h->side.from, h->rest),
		.deadline = cst_op_attempt_deadline(op, h->started),
		.first_byte_timeout = b->request_timeout,
		.stall_timeout = b->request_timeout,
		.alarm_after = LATER,
		.on_alarm = on_alarm,
		.on_head = on_head,
		.on_progress = on_progress,
		.on_done = on_done,
		.arg = h,
	};
	cst_op_ref(op);
	pthread_mutex_lock(&b->lock);
	h->side.running = true;
	h->paid = cst_op_enter_locked(op, h->side.from);
	pthread_mutex_unlock(&b->lock);
	/* We are on the loop on which it will run: none of its callbacks comes before we return. */
	struct cst_http_call *call = cst_http_start(b->http, &req);
	pthread_mutex_lock(&b->lock);
	h->call = call;
	if (op->cancelled)
		cst_http_cancel(call);
	pthread_mutex_unlock(&b->lock);
}

/* ---- looking after the two ---- */

static bool may_send_locked(const struct cst_bucket *b, unsigned credit, int64_t now)
{
	/* Uploads that wait have a bandwidth of their own; what all share is looked at below. */
	for (int i = 0; i < CST_LANES; i++)
		if (i != CST_LANE_UPLOAD && i != CST_LANE_UPLOAD_BACKGROUND && !TAILQ_EMPTY(&b->queues[i]))
			return false;
	return b->hedge_credit >= credit && b->limiter.limit <= 0 && b->limiter.pause_until <= now &&
	       cst_allowance_when(&b->requests, now) <= now && cst_allowance_when(&b->bandwidth, now) <= now;
}

/* 0: the side is slow. Else in how many ns to look again. */
static int64_t how_long(const struct cst_object_op *op, struct cst_side *side, int64_t now)
{
	struct cst_bucket *b = op->bucket;
	if (!side->head_at && !side->knows_late) {
		/* The store was not known when it was sent. */
		int64_t late = cst_pace_head_late(&b->pace, op->background);
		side->knows_late = late > 0;
		return late > 0 ? late : UNKNOWN;
	}
	if (!side->head_at) {
		int64_t left = side->patience;
		side->patience = 0;
		side->stalled |= left > 0;
		return left;
	}
	int64_t elapsed = now - side->head_at;
	return cst_pace_body_slow(&b->pace, &(struct cst_pace_body){.length = op->length - side->from,
								    .received = side->came,
								    .first = side->first,
								    .elapsed = elapsed,
								    .peers = peers_rate(b, side, elapsed),
								    .patient = op->background});
}

static int64_t look(struct cst_object_op *op, struct cst_side *side)
{
	struct cst_bucket *b = op->bucket;
	CST_CHECK(op, CST_OP_MAGIC);
	if (__atomic_load_n(&op->cancelled, __ATOMIC_RELAXED) || side->dropped)
		return 0;
	if (both_run(op))
		return LATER;
	int64_t now = cst_now();
	pthread_mutex_lock(&b->lock);
	int64_t wait = how_long(op, side, now);
	/* Late heads come in numbers when machines are busy; what stalls must still find credit then. */
	bool late_only = !side->head_at && !side->stalled;
	if (wait == 0 && !may_send_locked(b, late_only ? RESERVE + CST_HEDGE_COST : CST_HEDGE_COST, now)) {
		wait = late_only ? cst_pace_head_late(&b->pace, true) - cst_pace_head_late(&b->pace, false) : LATER;
		side->stalled = true;
	}
	if (wait == 0)
		b->hedge_credit -= CST_HEDGE_COST;
	pthread_mutex_unlock(&b->lock);
	if (wait)
		return wait;
	__atomic_fetch_add(&b->stats.hedges, 1, __ATOMIC_RELAXED);
	op->raced_for_head = !side->head_at;
	if (side == &op->side) {
		send_second(op);
		op->younger = second(op);
	} else {
		op->younger = &op->side;
		cst_op_came(op, side->from, (size_t)side->came);
		cst_op_send_beside(op);
	}
	return LATER;
}

int64_t cst_hedge_on_alarm(void *arg)
{
	struct cst_object_op *op = arg;
	return look(op, &op->side);
}

static int64_t on_alarm(void *arg)
{
	struct cst_hedge *h = arg;
	return look(h->op, &h->side);
}

void cst_hedge_progress(struct cst_object_op *op, struct cst_side *side, size_t received)
{
	__atomic_fetch_add(&op->bucket->flow, received - side->came, __ATOMIC_RELAXED);
	side->came = received;
	if (!side->first)
		side->first = received;
	if (!both_run(op)) {
		cst_op_show(op, position(side));
		return;
	}
	struct cst_side *other = other_of(op, side);
	if (side == op->younger) {
		if (position(side) > position(other))
			drop(op, other);
	} else if (op->raced_for_head && !other->head_at &&
		   side->came >= cst_min(CAUGHT_UP, (op->length - side->from) / 2)) {
		drop(op, other); /* it was late, and now it gets on */
	}
}

void cst_hedge_attempt_ended(struct cst_object_op *op, int rc, size_t received, const struct cst_error *err)
{
	struct cst_hedge *h = op->hedge;
	if (!cst_hedge_running(op)) {
		if (take_done(h))
			cst_op_complete(op);
		else
			judge_attempt(op, rc, received, err);
		return;
	}
	op->ended_rc = rc;
	op->ended_received = received;
	h->attempt_complete = cst_op_is_complete(op, rc, received);
	if (err)
		h->err = *err;
	if (h->attempt_complete)
		drop(op, &h->side);
	else if (rc == 0 && cst_retry_status(op->status, "").action == CST_RETRY_THROTTLE)
		cst_op_throttled(op, op->attempt_started, op->told_delay);
}

bool cst_hedge_running(const struct cst_object_op *op)
{
	return op->hedge && op->hedge->side.running;
}

void cst_hedge_cancel_locked(struct cst_object_op *op)
{
	if (op->hedge && op->hedge->call)
		cst_http_cancel(op->hedge->call);
}
