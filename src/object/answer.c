/* What an answer says, and what follows from it. */
#include "object/backend.h"

#include "base/clock.h"
#include "base/digest.h"
#include "base/text.h"

#include <errno.h>

#define SKEW_S 900 /* stores refuse requests further off than this */
#define SKEW_TRIES 2
#define QUIET_MAX (60 * CST_NS_PER_S) /* one answer silences no other operation for longer */
#define PROGRESS_BLOCK (128 * 1024)   /* what readers wait for */
#define RATE_LEAST 8192		      /* bytes per second of one range */

static bool success(int status)
{
	return status >= 200 && status <= 299;
}

static struct cst_slice bare_etag(struct cst_slice s)
{
	if (cst_slice_starts(s, CST_SLICE("W/")))
		s = (struct cst_slice){s.data + 2, s.len - 2};
	if (s.len >= 2 && s.data[0] == '"' && s.data[s.len - 1] == '"')
		s = (struct cst_slice){s.data + 1, s.len - 2};
	return s;
}

static bool parse_number(struct cst_slice s, uint64_t *out)
{
	uint64_t v = 0;
	for (size_t i = 0; i < s.len; i++) {
		unsigned digit = (unsigned)(unsigned char)s.data[i] - '0';
		if (digit > 9 || v > ((uint64_t)INT64_MAX - digit) / 10)
			return false;
		v = v * 10 + digit;
	}
	*out = v;
	return s.len > 0;
}

/* "bytes 0-9/100" */
static bool parse_content_range(struct cst_slice s, uint64_t *first, uint64_t *last, uint64_t *total)
{
	if (!cst_slice_starts(s, CST_SLICE("bytes ")))
		return false;
	struct cst_slice rest = {s.data + 6, s.len - 6};
	struct cst_slice from = cst_slice_cut(&rest, '-');
	struct cst_slice to = cst_slice_cut(&rest, '/');
	return parse_number(cst_slice_trim(from), first) && parse_number(to, last) &&
	       parse_number(cst_slice_trim(rest), total) && *first <= *last && *last < *total;
}

static int stop(struct cst_object_op *op, enum cst_op_stop why, const char *text)
{
	op->stop = why;
	op->stop_why = text;
	return -ECANCELED;
}

static void read_common(struct cst_object_op *op, const struct cst_http_head *head)
{
	struct cst_slice etag = bare_etag(cst_http_header_get(head, "etag"));
	struct cst_slice modified = cst_http_header_get(head, "last-modified");
	if (etag.len >= sizeof(op->info.etag))
		etag.len = sizeof(op->info.etag) - 1;
	if (etag.len)
		memcpy(op->info.etag, etag.data, etag.len);
	op->info.etag[etag.len] = '\0';
	if (!modified.len || cst_time_parse(modified.data, modified.len, &op->info.mtime) < 0)
		op->info.mtime = 0;
	op->bucket->backend->read_info(head, &op->info);
}

/* The whole object came though a range was asked for. */
static int whole_object(struct cst_object_op *op, int64_t length)
{
	op->info.size = length >= 0 ? (uint64_t)length : 0;
	op->size_told = length >= 0;
	if (op->sift) {
		op->passed = 0;
		return length >= 0 && op->offset >= (uint64_t)length
			       ? stop(op, CST_STOP_PAST_END, "the range begins behind the end of the object")
			       : 0;
	}
	if (op->offset + op->side.from == 0 && length >= 0 && (uint64_t)length <= op->length)
		return 0;
	return stop(op, CST_STOP_RANGE_IGNORED, "the store ignored the range");
}

/* Is the answer of the same object as the bytes that we have? Without ETags the time must tell; where nothing tells, only a
 * store that was given a condition can be believed. */
static bool same_version(const struct cst_object_op *op, struct cst_slice etag, const struct cst_http_head *head)
{
	struct cst_slice modified = cst_http_header_get(head, "last-modified");
	int64_t mtime = 0;
	if (etag.len || op->info.etag[0])
		return cst_slice_is(etag, op->info.etag);
	if (modified.len && cst_time_parse(modified.data, modified.len, &mtime) < 0)
		mtime = 0;
	return mtime == op->info.mtime && (mtime || op->has_if_match);
}

static int get_head(struct cst_object_op *op, const struct cst_http_response *r)
{
	struct cst_slice etag = bare_etag(cst_http_header_get(r->head, "etag"));
	uint64_t first, last, total, from = op->offset + op->side.from;
	if (op->has_if_match && etag.len && !cst_slice_is(etag, op->if_match))
		return stop(op, CST_STOP_STALE, "the object has changed");
	if ((op->got || op->shown) && !same_version(op, etag, r->head))
		return stop(op, op->has_if_match ? CST_STOP_STALE : CST_STOP_CHANGED, "the object has changed");
	read_common(op, r->head);
	op->accepted = true;
	op->named = op->has_if_match && etag.len && r->content_length >= 0;
	if (r->status == 200) {
		int rc = whole_object(op, r->content_length);
		if (rc == 0 && !op->sift)
			cst_hedge_head(op, &op->side, r->sent_at);
		return rc;
	}
	if (r->status != 206 ||
	    !parse_content_range(cst_http_header_get(r->head, "content-range"), &first, &last, &total))
		return stop(op, CST_STOP_MALFORMED, "the answer to a range request has no proper Content-Range");
	if (first != from || last >= op->offset + op->length ||
	    (r->content_length >= 0 && (uint64_t)r->content_length != last - first + 1))
		return stop(op, CST_STOP_MALFORMED, "the store sent another range than asked for");
	op->passed = first;
	op->told = last - first + 1;
	op->info.size = total;
	op->size_told = true;
	if (!op->sift)
		cst_hedge_head(op, &op->side, r->sent_at);
	return 0;
}

bool cst_op_second_head(struct cst_object_op *op, const struct cst_http_response *r, uint64_t from, uint64_t *told)
{
	struct cst_slice etag = bare_etag(cst_http_header_get(r->head, "etag"));
	uint64_t first, last, total;
	/* What an answer without a name has brought is not continued, either. */
	if (r->status != 206 || !cst_slice_is(etag, op->if_match) || (op->accepted && !op->named) ||
	    !parse_content_range(cst_http_header_get(r->head, "content-range"), &first, &last, &total))
		return false;
	if (first != op->offset + from || last >= op->offset + op->length || r->content_length < 0 ||
	    (uint64_t)r->content_length != last - first + 1)
		return false;
	read_common(op, r->head);
	op->info.size = total;
	op->named = true;
	*told = last - first + 1;
	return true;
}

/* User metadata, names in lower case, values as they came. */
static void read_meta(struct cst_object_op *op, const struct cst_http_head *head)
{
	struct cst_slice prefix = cst_slice_of(op->bucket->backend->meta_prefix);
	struct cst_slice type = cst_http_header_get(head, "content-type");
	size_t bytes = type.len, count = 0;
	for (size_t i = 0; i < head->header_count; i++) {
		bytes += head->headers[i].name.len + head->headers[i].value.len;
		count++;
	}
	cst_buf_clear(&op->meta_text);
	char *to = cst_buf_room(&op->meta_text, bytes);
	free(op->meta);
	op->meta = cst_xcalloc(count, sizeof(*op->meta));
	op->info.meta_count = 0;
	for (size_t i = 0; i < head->header_count; i++) {
		struct cst_slice name = head->headers[i].name, value = head->headers[i].value;
		if (name.len <= prefix.len || !cst_slice_ieq((struct cst_slice){name.data, prefix.len}, prefix))
			continue;
		struct cst_http_header *h = &op->meta[op->info.meta_count++];
		h->name = (struct cst_slice){to, name.len - prefix.len};
		for (size_t k = prefix.len; k < name.len; k++)
			*to++ = (char)(name.data[k] >= 'A' && name.data[k] <= 'Z' ? name.data[k] | 0x20 : name.data[k]);
		h->value = (struct cst_slice){to, value.len};
		if (value.len)
			to = mempcpy(to, value.data, value.len);
	}
	op->info.meta = op->meta;
	op->info.content_type = (struct cst_slice){to, type.len};
	if (type.len)
		memcpy(to, type.data, type.len);
}

static int symlink_head(struct cst_object_op *op, const struct cst_http_head *head)
{
	cst_buf_clear(&op->target_text);
	if (cst_text_url_decode(&op->target_text, cst_http_header_get(head, "x-oss-symlink-target"), false) < 0 ||
	    op->target_text.len == 0)
		return stop(op, CST_STOP_MALFORMED, "the answer has no proper x-oss-symlink-target");
	return 0;
}

static int64_t date_of(const struct cst_http_head *head)
{
	struct cst_slice date = cst_http_header_get(head, "date");
	int64_t when;
	return date.len && cst_time_parse(date.data, date.len, &when) == 0 ? when : 0;
}

int64_t cst_op_told_delay(const struct cst_http_head *head)
{
	struct cst_slice after = cst_http_header_get(head, "retry-after"),
			 quiet = cst_http_header_get(head, "x-oss-qos-delay-time");
	int64_t date = date_of(head), when;
	uint64_t n;
	if (parse_number(quiet, &n))
		return (int64_t)cst_min(n, UINT64_C(3600000)) * CST_NS_PER_MS;
	if (parse_number(after, &n))
		return (int64_t)cst_min(n, UINT64_C(3600)) * CST_NS_PER_S;
	if (after.len && date && cst_time_parse(after.data, after.len, &when) == 0 && when > date)
		return cst_min(when - date, INT64_C(3600)) * CST_NS_PER_S;
	return 0;
}

static void failure_head(struct cst_object_op *op, const struct cst_http_head *head)
{
	struct cst_slice xerr = cst_http_header_get(head, "x-oss-err");
	struct cst_slice id = cst_http_header_get(head, op->bucket->backend->request_id);
	op->server_date = date_of(head);
	op->told_delay = cst_op_told_delay(head);
	memset(&op->error, 0, sizeof(op->error));
	if (xerr.len)
		op->has_error = cst_error_xml_parse_header(xerr, &op->error) == 0;
	if (!op->error.request_id[0] && id.len)
		snprintf(op->error.request_id, sizeof(op->error.request_id), "%.*s", (int)id.len, id.data);
}

int cst_op_on_head(void *arg, const struct cst_http_response *r)
{
	struct cst_object_op *op = arg;
	CST_CHECK(op, CST_OP_MAGIC);
	op->status = r->status;
	if (op->write && cst_write_on_head(op, r))
		return stop(op, CST_STOP_MALFORMED, op->stop_why);
	if (!success(r->status)) {
		failure_head(op, r->head);
		return 0;
	}
	if (op->kind == CST_OP_GET)
		return get_head(op, r);
	op->accepted = true;
	if (op->write) {
		memset(&op->error, 0, sizeof(op->error));
		read_common(op, r->head);
		if (!op->info.mtime)
			op->info.mtime = date_of(r->head); /* as good as that: the object is of this moment */
	}
	if (op->kind == CST_OP_HEAD) {
		struct cst_slice length = cst_http_header_get(r->head, "content-length");
		read_common(op, r->head);
		if (!parse_number(length, &op->info.size))
			return stop(op, CST_STOP_MALFORMED, "the answer to HEAD has no Content-Length");
		read_meta(op, r->head);
	}
	return op->kind == CST_OP_SYMLINK ? symlink_head(op, r->head) : 0;
}

/* ---- progress ---- */

/* A CRC of the whole object is compared at its end: until then nothing is known to be right. */
static bool crc_will_tell(const struct cst_object_op *op)
{
	return op->bucket->verify_crc64 && op->info.has_crc64 && op->offset == 0 && op->length >= op->info.size;
}

/* Told when a block is complete, and after each block's worth otherwise. */
void cst_op_show(struct cst_object_op *op, uint64_t got)
{
	if (!op->progress || !op->named || got <= op->shown || crc_will_tell(op))
		return;
	uint64_t from = op->offset + op->shown, to = op->offset + got;
	if (to / PROGRESS_BLOCK == from / PROGRESS_BLOCK && got - op->shown < PROGRESS_BLOCK)
		return;
	op->shown = got;
	op->info.key = cst_buf_slice(&op->key);
	op->progress(op->arg, (size_t)got, &op->info);
}

void cst_op_on_progress(void *arg, size_t received)
{
	struct cst_object_op *op = arg;
	CST_CHECK(op, CST_OP_MAGIC);
	if (op->accepted && !__atomic_load_n(&op->cancelled, __ATOMIC_RELAXED))
		cst_hedge_progress(op, &op->side, received);
}

/* Puts a piece of the object at `passed` where it belongs; what lies outside the range is dropped. */
static int sift(struct cst_object_op *op, struct cst_slice piece)
{
	uint64_t at = op->passed, end = op->offset + op->length;
	op->passed += piece.len;
	for (int i = 0; i < op->iov_count && piece.len; i++) {
		uint64_t want = op->offset;
		for (int k = 0; k < i; k++)
			want += op->iov[k].iov_len;
		uint64_t to = cst_min(want + op->iov[i].iov_len, end);
		uint64_t low = cst_max(want, at), high = cst_min(to, at + piece.len);
		if (low >= high)
			continue;
		op->got += high - low;
		low = cst_max(low, op->offset + op->shown);
		if (low < high)
			memcpy((char *)op->iov[i].iov_base + (low - want), piece.data + (low - at),
			       (size_t)(high - low));
	}
	if (op->got < op->length)
		cst_op_show(op, op->got);
	/* An object whose size nobody told is read to its end: the size is part of the answer. */
	return op->passed >= end && op->size_told ? stop(op, CST_STOP_ENOUGH, NULL) : 0;
}

int cst_op_on_body(void *arg, struct cst_slice piece)
{
	struct cst_object_op *op = arg;
	CST_CHECK(op, CST_OP_MAGIC);
	if (!success(op->status)) {
		size_t room = CST_ERROR_XML_MAX - op->error_body.len;
		cst_buf_add(&op->error_body, piece.data, cst_min(piece.len, room));
		return 0;
	}
	if (op->kind == CST_OP_GET)
		return op->sift ? sift(op, piece) : 0;
	if (op->write)
		cst_write_on_body(op, piece);
	if (op->kind == CST_OP_LIST && cst_list_xml_feed(op->xml, piece) < 0)
		return stop(op, CST_STOP_MALFORMED, cst_list_xml_why(op->xml));
	return 0;
}

void cst_op_list_entry(void *arg, const struct cst_object_list_entry *entry)
{
	struct cst_object_op *op = arg;
	op->delivered++;
	op->list_ops.entry(op->arg, entry);
}

/* ---- the verdict ---- */

static void final(struct cst_object_op *op, int error, int rc, const struct cst_error *err)
{
	cst_op_explain(op, error, rc, err);
	cst_op_finish(op, -error);
}

static uint64_t random_bits(struct cst_bucket *b)
{
	if (b->tuning.random)
		return b->tuning.random(b->tuning.arg);
	pthread_mutex_lock(&b->lock);
	b->seed ^= b->seed << 13;
	b->seed ^= b->seed >> 7;
	b->seed ^= b->seed << 17;
	uint64_t bits = b->seed;
	pthread_mutex_unlock(&b->lock);
	return bits * UINT64_C(0x2545f4914f6cdd1d) >> 8;
}

void cst_op_throttled(struct cst_object_op *op, int64_t started, int64_t told_delay)
{
	struct cst_bucket *b = op->bucket;
	int64_t now = cst_now();
	__atomic_fetch_add(&b->stats.throttled, 1, __ATOMIC_RELAXED);
	pthread_mutex_lock(&b->lock);
	b->limiter.in_flight++; /* ours counts, too */
	cst_limiter_throttled(&b->limiter, started, now);
	b->limiter.in_flight--;
	__atomic_store_n(&b->throttled, true, __ATOMIC_RELAXED);
	if (told_delay)
		b->limiter.pause_until = cst_max(b->limiter.pause_until, now + cst_min(told_delay, QUIET_MAX));
	pthread_mutex_unlock(&b->lock);
}

static void again(struct cst_object_op *op, struct cst_retry_verdict v, int rc, const struct cst_error *err)
{
	const struct cst_object_tuning *t = &op->bucket->tuning;
	int64_t now = cst_now();
	if (op->no_retry || (op->max_attempts && op->sent >= op->max_attempts) ||
	    (v.max_attempts && op->failures >= v.max_attempts)) {
		final(op, rc == -ETIMEDOUT ? ETIMEDOUT : v.error, rc, err);
		return;
	}
	int64_t delay = cst_retry_delay(op->failures, t->backoff_base, t->backoff_cap, random_bits(op->bucket));
	delay = cst_max(delay, op->told_delay);
	if (now + delay >= op->deadline) {
		final(op, ETIMEDOUT, rc, err);
		return;
	}
	cst_op_remember(op, err);
	cst_op_retry(op, cst_max(delay, INT64_C(1)));
}

static bool clock_differs(const struct cst_object_op *op)
{
	int64_t off = op->server_date - op->signed_at;
	return op->server_date && (off > SKEW_S || off < -SKEW_S);
}

static void follow(struct cst_object_op *op, struct cst_retry_verdict v, int rc, const struct cst_error *err)
{
	struct cst_bucket *b = op->bucket;
	bool signs = b->credentials && !op->no_retry;
	op->failures++;
	if (v.action == CST_RETRY_RENEW && op->error.code[0] == '\0' && clock_differs(op))
		v.action = CST_RETRY_SKEW;
	if (v.action == CST_RETRY_SKEW && signs && op->server_date && op->skewed < SKEW_TRIES) {
		int64_t ours = cst_bucket_wall(b) - __atomic_load_n(&b->clock_offset, __ATOMIC_RELAXED);
		op->skewed++;
		__atomic_store_n(&b->clock_offset, op->server_date - ours, __ATOMIC_RELAXED);
		cst_op_retry(op, 0);
	} else if (v.action == CST_RETRY_RENEW && signs && !op->renewed) {
		op->renew_error = v.error;
		cst_op_renew(op);
	} else if (v.action == CST_RETRY_AGAIN || v.action == CST_RETRY_THROTTLE) {
		if (v.action == CST_RETRY_THROTTLE)
			cst_op_throttled(op, op->attempt_started, op->told_delay);
		again(op, v, rc, err);
	} else {
		final(op, v.error, rc, err);
	}
}

static bool crc_fits(const struct cst_object_op *op)
{
	uint64_t crc = 0, left = op->got;
	if (!op->bucket->verify_crc64 || !op->info.has_crc64 || op->offset != 0 || op->got != op->info.size)
		return true;
	for (int i = 0; i < op->iov_count && left; i++) {
		size_t n = (size_t)cst_min((uint64_t)op->iov[i].iov_len, left);
		crc = cst_crc64(crc, op->iov[i].iov_base, n);
		left -= n;
	}
	return crc == op->info.crc64;
}

static void malformed(struct cst_object_op *op, const char *why)
{
	op->stop = CST_STOP_MALFORMED;
	op->stop_why = why;
	follow(op, cst_retry_transport(-EBADMSG), -EBADMSG, NULL);
}

/* Off the limiter only slowly; a lock for it only while the store complains. */
static void finish_well(struct cst_object_op *op)
{
	struct cst_bucket *b = op->bucket;
	if (__atomic_load_n(&b->throttled, __ATOMIC_RELAXED)) {
		pthread_mutex_lock(&b->lock);
		cst_limiter_succeeded(&b->limiter);
		__atomic_store_n(&b->throttled, b->limiter.limit > 0, __ATOMIC_RELAXED);
		pthread_mutex_unlock(&b->lock);
	}
	cst_op_finish(op, 0);
}

static void follow_write(struct cst_object_op *op, enum cst_write_result result, struct cst_retry_verdict v);

static void succeed(struct cst_object_op *op, size_t received)
{
	if (op->write) {
		struct cst_retry_verdict v = {0};
		enum cst_write_result result = cst_write_check(op, &v);
		if (result != CST_WRITE_DONE) {
			follow_write(op, result, v);
			return;
		}
	}
	if (op->kind == CST_OP_LIST && cst_list_xml_finish(op->xml, &op->page) < 0) {
		malformed(op, cst_list_xml_why(op->xml));
		return;
	}
	if (op->kind == CST_OP_GET) {
		if (op->sift && op->stop != CST_STOP_ENOUGH)
			op->info.size = op->passed; /* the body ended here */
		if (op->sift && op->got == 0 && op->offset >= op->info.size) {
			final(op, ERANGE, 0, NULL);
			return;
		}
		uint64_t end = cst_min(op->offset + op->length, op->info.size);
		if (op->offset + op->got < end) {
			/* A part of the range, as a store may send: ask for the rest. */
			if (received == 0)
				malformed(op, "the body is shorter than its range");
			else
				cst_op_retry(op, 0);
			return;
		}
		if (!crc_fits(op)) {
			op->got = 0;
			op->failures = op->restarts++;
			malformed(op, "the content does not have the CRC64 that the store tells");
			return;
		}
	}
	finish_well(op);
}

static void follow_write(struct cst_object_op *op, enum cst_write_result result, struct cst_retry_verdict v)
{
	if (result == CST_WRITE_ERROR)
		result = cst_write_refused(op, v);
	if (result == CST_WRITE_ERROR)
		follow(op, v, 0, NULL);
	else if (result == CST_WRITE_MALFORMED)
		malformed(op, op->stop_why);
	else if (result == CST_WRITE_GOES_ON)
		cst_op_go_on(op);
	else
		finish_well(op);
}

void cst_op_came(struct cst_object_op *op, uint64_t from, size_t received)
{
	if (!received)
		return;
	op->got = cst_max(op->got, from + received);
	op->failures = 0; /* it gets on */
	/* Over a thin line a range takes its time. What has come buys more of it, at the least rate that still counts. */
	if (!op->deadline_fixed)
		op->deadline += (int64_t)cst_min(received, op->length) * (CST_NS_PER_S / RATE_LEAST);
}

void cst_op_complete(struct cst_object_op *op)
{
	op->stop = CST_STOP_NONE;
	op->status = 206;
	succeed(op, (size_t)op->length);
}

static bool is_direct(const struct cst_object_op *op)
{
	return op->kind == CST_OP_GET && op->accepted && !op->sift && op->stop == CST_STOP_NONE;
}

bool cst_op_is_complete(const struct cst_object_op *op, int rc, size_t received)
{
	uint64_t end = cst_min(op->offset + op->length, op->info.size);
	return rc == 0 && is_direct(op) && success(op->status) && (op->status != 206 || received <= op->told) &&
	       op->offset + op->side.from + received >= end;
}

static void ask_whole(struct cst_object_op *op)
{
	op->sift = true;
	op->got = 0;
	if (op->no_retry)
		op->max_attempts = 0; /* not a failure: this is how such a store is read */
	cst_op_retry(op, 0);
}

static void judge_stop(struct cst_object_op *op, size_t received)
{
	switch (op->stop) {
	case CST_STOP_ENOUGH:
		succeed(op, received);
		break;
	case CST_STOP_STALE:
		final(op, ESTALE, 0, NULL);
		break;
	case CST_STOP_PAST_END:
		final(op, ERANGE, 0, NULL);
		break;
	case CST_STOP_RANGE_IGNORED:
		ask_whole(op);
		break;
	case CST_STOP_CHANGED:
		op->got = 0;
		op->failures = op->restarts++;
		follow(op, (struct cst_retry_verdict){ESTALE, CST_RETRY_AGAIN, 0}, 0, NULL);
		break;
	default:
		malformed(op, op->stop_why);
	}
}

static void judge_failure(struct cst_object_op *op)
{
	if (!op->has_error && op->error_body.len) {
		char id[sizeof(op->error.request_id)];
		memcpy(id, op->error.request_id, sizeof(id));
		op->has_error = cst_error_xml_parse(cst_buf_slice(&op->error_body), &op->error) == 0;
		if (!op->error.request_id[0])
			memcpy(op->error.request_id, id, sizeof(id));
	}
	if (op->kind == CST_OP_GET && op->status == 412 && op->got && !op->has_if_match) {
		/* Our own condition, made for the bytes that we have: begin again with the new object. */
		op->got = 0;
		op->failures = op->restarts++;
		follow(op, (struct cst_retry_verdict){ESTALE, CST_RETRY_AGAIN, 0}, 0, NULL);
		return;
	}
	if (op->write) {
		follow_write(op, CST_WRITE_ERROR, cst_write_verdict(op, op->status));
		return;
	}
	struct cst_retry_verdict v = cst_retry_status(op->status, op->error.code);
	/* S3 answers a HEAD with an expired token so, without a word. */
	if (op->kind == CST_OP_HEAD && op->status == 400 && !op->error.code[0])
		v.action = CST_RETRY_RENEW;
	follow(op, v, 0, NULL);
}

void cst_op_judge(struct cst_object_op *op, int rc, size_t received, const struct cst_error *err)
{
	bool cancelled = __atomic_load_n(&op->cancelled, __ATOMIC_RELAXED);
	bool direct = is_direct(op);
	if (direct && op->status == 206 && received > op->told && rc != -EMSGSIZE && !cancelled) {
		malformed(op, "the body is longer than its range");
		return;
	}
	if (direct)
		cst_op_came(op, op->side.from, received);
	if (op->stop != CST_STOP_NONE && rc == -ECANCELED && !(cancelled && op->stop != CST_STOP_ENOUGH)) {
		judge_stop(op, received);
	} else if (rc == 0 && success(op->status)) {
		succeed(op, received);
	} else if (rc == 0) {
		judge_failure(op);
	} else if (rc == -EMSGSIZE && op->kind == CST_OP_GET && !op->sift) {
		ask_whole(op);
	} else {
		struct cst_retry_verdict v = cst_retry_transport(rc);
		memset(&op->error, 0, sizeof(op->error));
		op->told_delay = 0;
		/* Before a mount people wait for the answer; a wrong name or port does not mend itself. */
		if (op->probing && v.max_attempts == 0)
			v.max_attempts = rc == -ECONNRESET || rc == -EPIPE ? 5 : 2;
		follow(op, v, rc, err);
	}
}
