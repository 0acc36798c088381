/* Builds and sends the request of one attempt. */
#include "object/backend.h"

#include "base/clock.h"
#include "base/text.h"

#include <inttypes.h>

#define HEAD_LATE CST_NS_PER_S
#define SLOW_ANSWER 5		 /* request timeouts that a store may take to copy or to put parts together */
#define RATE_LEAST INT64_C(8192) /* bytes per second of a body */

void cst_op_param(struct cst_op_params *p, const char *name, struct cst_slice value)
{
	CST_ASSERT(p->count < CST_OP_PARAMS);
	p->list[p->count++] = (struct cst_sign_param){cst_slice_of(name), value, true};
}

void cst_op_param_bare(struct cst_op_params *p, const char *name)
{
	CST_ASSERT(p->count < CST_OP_PARAMS);
	p->list[p->count++] = (struct cst_sign_param){cst_slice_of(name), {0}, false};
}

static void list_params(const struct cst_object_op *op, char max_keys[24], struct cst_op_params *p)
{
	snprintf(max_keys, 24, "%u", op->max_keys);
	cst_op_param(p, "list-type", CST_SLICE("2"));
	cst_op_param(p, "encoding-type", CST_SLICE("url"));
	cst_op_param(p, "max-keys", cst_slice_of(max_keys));
	if (op->key.len)
		cst_op_param(p, "prefix", cst_buf_slice(&op->key));
	if (op->delimiter.len)
		cst_op_param(p, "delimiter", cst_buf_slice(&op->delimiter));
	if (op->token.len)
		cst_op_param(p, "continuation-token", cst_buf_slice(&op->token));
	else if (op->start_after.len)
		cst_op_param(p, "start-after", cst_buf_slice(&op->start_after));
}

static void write_target(struct cst_object_op *op, struct cst_slice key, const struct cst_op_params *p)
{
	const struct cst_bucket *b = op->bucket;
	struct cst_buf *t = &op->target;
	cst_buf_clear(t);
	cst_buf_add_char(t, '/');
	if (b->endpoint.path_style) {
		cst_text_url_encode(t, cst_slice_of(b->name), false);
		cst_buf_add_char(t, '/');
	}
	cst_text_url_encode(t, key, true);
	for (size_t i = 0; i < p->count; i++) {
		cst_buf_add_char(t, i == 0 ? '?' : '&');
		cst_text_url_encode(t, p->list[i].name, false);
		if (!p->list[i].has_value)
			continue;
		cst_buf_add_char(t, '=');
		cst_text_url_encode(t, p->list[i].value, false);
	}
}

int cst_op_rest(const struct cst_object_op *op, uint64_t from, struct iovec *rest)
{
	int count = 0;
	for (int i = 0; i < op->iov_count; i++) {
		if (from >= op->iov[i].iov_len) {
			from -= op->iov[i].iov_len;
			continue;
		}
		rest[count++] = (struct iovec){(char *)op->iov[i].iov_base + from, op->iov[i].iov_len - from};
		from = 0;
	}
	return count;
}

void cst_op_write_range(const struct cst_object_op *op, uint64_t from, const char *etag, struct cst_buf *headers)
{
	cst_buf_printf(headers, "Range: bytes=%" PRIu64 "-%" PRIu64 "\r\n%s", op->offset + from,
		       op->offset + op->length - 1, op->bucket->backend->get_headers);
	if (etag[0])
		cst_buf_printf(headers, "If-Match: \"%s\"\r\n", etag);
}

/* The part of the range that is still missing, and where it goes. */
static void write_range(struct cst_object_op *op)
{
	/* A condition once there is something to hold on to: bytes of two versions never mix. */
	const char *etag = op->has_if_match ? op->if_match : op->got ? op->info.etag : "";
	op->side.from = op->got;
	cst_op_write_range(op, op->got, etag, &op->headers);
	op->rest_count = cst_op_rest(op, op->got, op->rest);
}

uint64_t cst_op_sign(struct cst_object_op *op, const char *method, struct cst_slice key,
		     const struct cst_sign_param *params, size_t param_count, struct cst_buf *headers)
{
	struct cst_bucket *b = op->bucket;
	op->signed_at = cst_bucket_wall(b);
	if (!b->credentials) {
		/* Nothing else of an unsigned request may say that it is S3's: a store that speaks both would answer as OSS does, with other names of
		 * metadata and without conditions. */
		if (b->backend == &cst_backend_s3)
			cst_buf_add_str(headers, "x-amz-content-sha256: UNSIGNED-PAYLOAD\r\n");
		return 0;
	}
	struct cst_sign_request req = {
		.kind = b->sign,
		.method = method,
		.bucket = cst_slice_of(b->name),
		.key = key,
		.path_style = b->endpoint.path_style,
		.params = params,
		.param_count = param_count,
		.headers = cst_buf_slice(headers),
		.host = b->endpoint.host,
		.region = b->endpoint.region,
		.time = op->signed_at,
	};
	CST_AUTO_BUF lines = CST_BUF_INIT;
	uint64_t generation = cst_signer_sign(b->signer, b->credentials, &req, &lines);
	cst_buf_add_slice(headers, cst_buf_slice(&lines));
	return generation;
}

static void reset_attempt(struct cst_object_op *op)
{
	op->status = 0;
	op->stop = CST_STOP_NONE;
	op->stop_why = NULL;
	op->accepted = op->has_error = false;
	op->named = op->named && cst_hedge_running(op); /* that one's bytes are shown on */
	op->told_delay = op->server_date = 0;
	op->passed = 0;
	cst_buf_clear(&op->error_body);
	cst_buf_clear(&op->headers);
	op->attempt_started = cst_now();
}

/* A connection that crawls is left for another one, where the range goes on: nothing that has come is lost. */
int64_t cst_op_attempt_deadline(const struct cst_object_op *op, int64_t now)
{
	int64_t at = now + 2 * op->bucket->request_timeout;
	/* A body that gets on is not given up for another attempt, which would begin with its first byte. */
	if (op->write && !op->deadline_fixed)
		return cst_max(op->deadline, now + (int64_t)op->write->length * (CST_NS_PER_S / RATE_LEAST));
	return op->kind == CST_OP_GET && !op->sift && !op->no_retry ? cst_min(at, op->deadline) : op->deadline;
}

/* What the kinds that read need; the key that the request is about. */
static struct cst_slice read_request(struct cst_object_op *op, struct cst_op_params *params,
				     struct cst_http_request *req, char number[24])
{
	struct cst_bucket *b = op->bucket;
	req->method = op->kind == CST_OP_HEAD ? "HEAD" : "GET";
	if (op->kind == CST_OP_LIST) {
		list_params(op, number, params);
		if (op->delivered)
			op->list_ops.restart(op->arg);
		op->delivered = 0;
		cst_list_xml_reset(op->xml, op);
		return (struct cst_slice){0};
	}
	if (op->kind == CST_OP_SYMLINK) {
		cst_op_param_bare(params, "symlink");
	} else if (op->kind == CST_OP_HEAD) {
		if (op->light && b->backend->light_head)
			cst_op_param_bare(params, "objectMeta");
		req->alarm_after = HEAD_LATE;
		req->on_alarm = cst_op_on_head_alarm;
	} else {
		if (op->sift)
			op->got = 0;
		write_range(op);
	}
	if (op->kind == CST_OP_GET && !op->sift) {
		req->into = op->rest;
		req->into_count = op->rest_count;
		req->on_progress = op->progress || b->hedge ? cst_op_on_progress : NULL;
		req->alarm_after = op->alarm;
		req->on_alarm = cst_hedge_on_alarm;
	}
	return cst_buf_slice(&op->key);
}

struct cst_http_call *cst_op_send(struct cst_object_op *op)
{
	struct cst_bucket *b = op->bucket;
	struct cst_op_params params = {.count = 0};
	char number[24];
	reset_attempt(op);
	struct cst_http_request req = {
		.origin = &b->endpoint.origin,
		.host_header = b->endpoint.host,
		.deadline = cst_op_attempt_deadline(op, op->attempt_started),
		.first_byte_timeout = b->request_timeout,
		.stall_timeout = b->request_timeout,
		.on_head = cst_op_on_head,
		.on_body = cst_op_on_body,
		.on_done = cst_op_on_done,
		.arg = op,
	};
	struct cst_slice key =
		op->write ? cst_write_request(op, &params, &req, number) : read_request(op, &params, &req, number);
	if (op->kind == CST_OP_COPY || op->kind == CST_OP_PART_COPY || op->kind == CST_OP_COMPLETE)
		req.first_byte_timeout *= SLOW_ANSWER;
	write_target(op, key, &params);
	op->generation = cst_op_sign(op, req.method, key, params.list, params.count, &op->headers);
	req.target = op->target.data;
	req.headers = cst_buf_slice(&op->headers);
	return cst_http_start(b->http, &req);
}
