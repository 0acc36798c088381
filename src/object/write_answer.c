/* What the answers to writing operations say, and what is known of requests that got none. */
#include "object/backend.h"

#include "base/clock.h"
#include "base/digest.h"
#include "base/text.h"

#include <errno.h>

#define DAMAGED_ATTEMPTS 3

/* ---- codes ---- */

static const struct code {
	const char *name;
	struct cst_retry_verdict verdict;
} codes[] = {
	{"FileAlreadyExists", {EEXIST, CST_RETRY_FAIL, 0}},
	{"ObjectAlreadyExists", {EEXIST, CST_RETRY_FAIL, 0}},
	{"ConditionalRequestConflict", {EIO, CST_RETRY_AGAIN, 0}},
	{"NoSuchUpload", {ENOENT, CST_RETRY_FAIL, 0}},
	{"ObjectNotAppendable", {EPERM, CST_RETRY_FAIL, 0}},
	{"PositionNotEqualToLength", {ERANGE, CST_RETRY_FAIL, 0}},
	{"FileImmutable", {EROFS, CST_RETRY_FAIL, 0}},
	{"EntityTooLarge", {EFBIG, CST_RETRY_FAIL, 0}},
	{"MetadataTooLarge", {E2BIG, CST_RETRY_FAIL, 0}},
	{"KeyTooLong", {ENAMETOOLONG, CST_RETRY_FAIL, 0}},
	{"KeyTooLongError", {ENAMETOOLONG, CST_RETRY_FAIL, 0}},
	{"InsufficientStorage", {ENOSPC, CST_RETRY_FAIL, 0}},
	{"XMinioStorageFull", {ENOSPC, CST_RETRY_FAIL, 0}},
	{"InsufficientStorageSpace", {EDQUOT, CST_RETRY_FAIL, 0}},
	{"BadDigest", {EBADMSG, CST_RETRY_AGAIN, DAMAGED_ATTEMPTS}},
	{"InvalidDigest", {EBADMSG, CST_RETRY_AGAIN, DAMAGED_ATTEMPTS}},
	{"XAmzContentSHA256Mismatch", {EBADMSG, CST_RETRY_AGAIN, DAMAGED_ATTEMPTS}},
	{"XAmzContentChecksumMismatch", {EBADMSG, CST_RETRY_AGAIN, DAMAGED_ATTEMPTS}},
	{"IncompleteBody", {EIO, CST_RETRY_AGAIN, 0}},
};

static struct cst_retry_verdict fail(int error)
{
	return (struct cst_retry_verdict){error, CST_RETRY_FAIL, 0};
}

/* A condition did not hold: which? */
static int failed_condition(const struct cst_object_op *op)
{
	const struct cst_write *w = op->write;
	const char *told = op->error.condition;
	bool ours = told[0] && strncasecmp(told, "If-", 3) == 0;
	if (w->condition == CST_OBJECT_IF_ABSENT && (!w->source_condition || ours))
		return EEXIST;
	return ESTALE;
}

static struct cst_retry_verdict by_code(const struct cst_object_op *op, int status)
{
	const char *code = op->error.code;
	for (size_t i = 0; i < CST_ARRAY_LEN(codes); i++)
		if (strcmp(codes[i].name, code) == 0)
			return codes[i].verdict;
	if (strstr(code, "QuotaExceeded"))
		return fail(EDQUOT);
	if (!code[0] && status == 405)
		return fail(ENOTSUP);
	if (strcmp(code, "MethodNotAllowed") == 0)
		return fail(ENOTSUP);
	if (!code[0] && status == 413)
		return fail(EFBIG);
	if (status == 507)
		return fail(ENOSPC);
	return cst_retry_status(status, code);
}

/* The store says that the object is as long as our append would have made it, and has the CRC64 of that: it was ours. */
static bool append_was_ours(const struct cst_object_op *op)
{
	const struct cst_write *w = op->write;
	return w->doubtful && w->has_next_position && w->next_position == w->position + w->length && w->has_crc64 &&
	       op->info.has_crc64 && op->info.crc64 == w->crc64;
}

struct cst_retry_verdict cst_write_verdict(struct cst_object_op *op, int status)
{
	struct cst_write *w = op->write;
	const char *code = op->error.code;
	struct cst_retry_verdict v = by_code(op, status);
	if (status == 412 || strcmp(code, "PreconditionFailed") == 0)
		v = fail(failed_condition(op));
	bool no_key = strcmp(code, "NoSuchKey") == 0;
	if (no_key && w->condition == CST_OBJECT_IF_MATCH && (op->kind == CST_OP_PUT || op->kind == CST_OP_COMPLETE))
		v = fail(ESTALE);
	/* What is to be gone is gone. */
	if ((no_key && (op->kind == CST_OP_DELETE || (op->kind == CST_OP_DELETE_MANY && w->single < w->key_count))) ||
	    (op->kind == CST_OP_ABORT && strcmp(code, "NoSuchUpload") == 0))
		v = fail(0);
	if (v.error == ERANGE && op->kind == CST_OP_APPEND && append_was_ours(op))
		v = fail(0);
	/* Who gives up half way may have done it, unlike who refuses. */
	if (status >= 500 && v.action == CST_RETRY_AGAIN)
		w->doubtful += w->this_one;
	return v;
}

/* ---- what may have happened ---- */

void cst_write_attempt_ended(struct cst_object_op *op, int rc)
{
	struct cst_write *w = op->write;
	/* An answer that says no is one, even if its text broke off. */
	bool answered = w->head_seen && (rc == 0 || op->stop != CST_STOP_NONE || op->status / 100 == 4);
	w->this_one = answered && w->whole ? 1 : 0;
	w->doubtful += w->sent.whole - cst_min(w->this_one, w->sent.whole);
	__atomic_fetch_add(&op->bucket->stats.bytes_out, w->sent.bytes - w->sent_before, __ATOMIC_RELAXED);
}

/* ---- heads and bodies ---- */

static void read_position(struct cst_object_op *op, const struct cst_http_head *head)
{
	struct cst_write *w = op->write;
	struct cst_slice s = cst_http_header_get(head, "x-oss-next-append-position");
	uint64_t v = 0;
	w->has_next_position = s.len > 0 && s.len < 20;
	for (size_t i = 0; i < s.len && w->has_next_position; i++) {
		w->has_next_position = s.data[i] >= '0' && s.data[i] <= '9';
		v = v * 10 + (uint64_t)(s.data[i] - '0');
	}
	w->next_position = w->has_next_position ? v : 0;
}

int cst_write_on_head(struct cst_object_op *op, const struct cst_http_response *r)
{
	struct cst_write *w = op->write;
	w->head_seen = true;
	w->whole = r->sent_whole;
	if (op->kind == CST_OP_APPEND)
		read_position(op, r->head);
	if (r->status < 200 || r->status > 299) {
		op->bucket->backend->read_info(r->head, &op->info);
		return 0;
	}
	if (r->sent_whole)
		return 0;
	op->stop_why = "the store called it done before it had all of the body";
	return 1;
}

void cst_write_on_body(struct cst_object_op *op, struct cst_slice piece)
{
	struct cst_buf *answer = &op->write->answer;
	/* One byte too many, and who reads it refuses it. */
	size_t room = (size_t)CST_ANSWER_XML_MAX + 1 - answer->len;
	cst_buf_add(answer, piece.data, cst_min(piece.len, room));
}

/* ---- success ---- */

static enum cst_write_result malformed(struct cst_object_op *op, const char *why)
{
	op->stop_why = why;
	op->write->doubtful += op->write->this_one;
	return CST_WRITE_MALFORMED;
}

/* A document that says what became of it: 0, or what cst_write_check() is to answer. */
static enum cst_write_result document_result(struct cst_object_op *op, int rc, struct cst_retry_verdict *verdict)
{
	if (rc == 0)
		return CST_WRITE_DONE;
	if (rc == -EBADMSG)
		return malformed(op, op->write->answer.len ? "the answer is no proper document"
							   : "the answer has no document");
	op->has_error = true;
	/* The status was sent before the store knew: what counts is the code. */
	*verdict = cst_write_verdict(op, 500);
	return CST_WRITE_ERROR;
}

/* Another CRC64 than that of what was sent. */
static enum cst_write_result check_crc64(struct cst_object_op *op, struct cst_retry_verdict *verdict)
{
	struct cst_write *w = op->write;
	if (!w->has_crc64 || !op->info.has_crc64 || op->info.crc64 == w->crc64)
		return CST_WRITE_DONE;
	op->stop = CST_STOP_MALFORMED;
	op->stop_why = "the store has another CRC64 than what was sent";
	w->doubtful += w->this_one;
	/* What may be done over is sent again; the others would find their own, damaged work. */
	bool again = op->kind == CST_OP_PART || (op->kind == CST_OP_PUT && w->condition == CST_OBJECT_ANY);
	*verdict = again ? (struct cst_retry_verdict){EBADMSG, CST_RETRY_AGAIN, DAMAGED_ATTEMPTS} : fail(EBADMSG);
	return CST_WRITE_ERROR;
}

static enum cst_write_result check_result(struct cst_object_op *op, const char *root, struct cst_retry_verdict *verdict)
{
	struct cst_write *w = op->write;
	struct cst_result_xml result = {0};
	/* Some say all in the head. */
	if (w->answer.len == 0 && op->info.etag[0])
		return CST_WRITE_DONE;
	int rc = cst_result_xml_read(cst_buf_slice(&w->answer), root, &result, &op->error);
	enum cst_write_result r = document_result(op, rc, verdict);
	cst_buf_fini(&result.upload_id);
	if (r != CST_WRITE_DONE)
		return r;
	if (result.etag[0])
		memcpy(op->info.etag, result.etag, sizeof(result.etag));
	if (result.mtime)
		op->info.mtime = result.mtime;
	memcpy(w->part.crc32c, result.crc32c, sizeof(result.crc32c));
	return op->info.etag[0] ? CST_WRITE_DONE : malformed(op, "the answer has no ETag");
}

static enum cst_write_result check_begin(struct cst_object_op *op, struct cst_retry_verdict *verdict)
{
	struct cst_write *w = op->write;
	struct cst_result_xml result = {0};
	int rc = cst_result_xml_read(cst_buf_slice(&w->answer), "InitiateMultipartUploadResult", &result, &op->error);
	enum cst_write_result r = document_result(op, rc, verdict);
	cst_buf_fini(&w->new_id);
	w->new_id = result.upload_id;
	if (r == CST_WRITE_DONE && !w->new_id.len)
		return malformed(op, "the answer has no UploadId");
	return r;
}

static enum cst_write_result check_part(struct cst_object_op *op, struct cst_retry_verdict *verdict)
{
	struct cst_write *w = op->write;
	enum cst_write_result r =
		op->kind == CST_OP_PART_COPY ? check_result(op, "CopyPartResult", verdict) : CST_WRITE_DONE;
	if (r == CST_WRITE_DONE && !op->info.etag[0])
		r = malformed(op, "the answer has no ETag");
	if (r == CST_WRITE_DONE)
		r = check_crc64(op, verdict);
	w->part.number = w->number;
	w->part.size = w->size;
	memcpy(w->part.etag, op->info.etag, sizeof(w->part.etag));
	w->part.has_crc64 = w->has_crc64 || op->info.has_crc64;
	w->part.crc64 = op->info.has_crc64 ? op->info.crc64 : w->crc64;
	if (op->kind == CST_OP_PART)
		memcpy(w->part.crc32c, w->crc32c, sizeof(w->part.crc32c));
	return r;
}

static enum cst_write_result check_append(struct cst_object_op *op, struct cst_retry_verdict *verdict)
{
	struct cst_write *w = op->write;
	uint64_t end = w->position + w->length;
	enum cst_write_result r = check_crc64(op, verdict);
	if (r == CST_WRITE_DONE && w->has_next_position && w->next_position != end) {
		op->stop = CST_STOP_MALFORMED;
		op->stop_why = "the object does not end where the append does";
		w->doubtful += w->this_one;
		*verdict = fail(EBADMSG);
		return CST_WRITE_ERROR;
	}
	w->next_position = end;
	return r;
}

/* ---- many keys ---- */

static size_t find_key(const struct cst_write *w, struct cst_slice key)
{
	for (size_t i = 0; i < w->document_end; i++)
		if (w->key[i].state == CST_KEY_IN_DOCUMENT &&
		    cst_slice_eq(key, (struct cst_slice){w->keys.data + w->key[i].at, w->key[i].len}))
			return i;
	return w->key_count;
}

/* op->error tells why. */
static void tell_failed(struct cst_object_op *op, size_t i, int error)
{
	struct cst_write *w = op->write;
	struct cst_slice key = {w->keys.data + w->key[i].at, w->key[i].len};
	struct cst_error err = CST_ERROR_INIT;
	cst_op_explain_key(op, error, key, &err);
	w->key[i].state = CST_KEY_DONE;
	w->delete_ops.failed(op->arg, key, -error, &err);
}

struct left {
	struct cst_object_op *op;
	bool *again;
	struct cst_retry_verdict verdict; /* on those that are worth another attempt, and why */
	struct cst_store_error error;
};

static bool key_failed(void *arg, struct cst_slice key, const struct cst_store_error *why)
{
	struct left *left = arg;
	struct cst_write *w = left->op->write;
	size_t i = find_key(w, key);
	if (i == w->key_count)
		return false;
	if (strcmp(why->code, "NoSuchKey") == 0)
		return true;
	left->op->error = *why;
	struct cst_retry_verdict v = by_code(left->op, 0);
	if (v.action == CST_RETRY_AGAIN || v.action == CST_RETRY_THROTTLE) {
		left->again[i] = true;
		left->verdict = v;
		left->error = *why;
	} else {
		tell_failed(left->op, i, v.error);
	}
	return true;
}

static bool has_more_keys(const struct cst_write *w)
{
	for (size_t i = 0; i < w->key_count; i++)
		if (w->key[i].state != CST_KEY_DONE)
			return true;
	return false;
}

static enum cst_write_result check_deleted(struct cst_object_op *op, struct cst_retry_verdict *verdict)
{
	struct cst_write *w = op->write;
	if (w->single < w->key_count) {
		w->key[w->single].state = CST_KEY_DONE;
		return has_more_keys(w) ? CST_WRITE_GOES_ON : CST_WRITE_DONE;
	}
	CST_AUTO_FREE bool *again = cst_xcalloc(w->key_count, sizeof(*again));
	struct left left = {.op = op, .again = again};
	/* Quiet: who has nothing to complain of may answer nothing. */
	int rc = w->answer.len ? cst_deleted_xml_read(cst_buf_slice(&w->answer), key_failed, &left, &op->error) : 0;
	if (rc)
		return document_result(op, rc, verdict);
	for (size_t i = 0; i < w->document_end; i++)
		if (w->key[i].state == CST_KEY_IN_DOCUMENT && !again[i])
			w->key[i].state = CST_KEY_DONE;
	op->error = left.error;
	if (left.verdict.action == CST_RETRY_FAIL)
		return has_more_keys(w) ? CST_WRITE_GOES_ON : CST_WRITE_DONE;
	op->has_error = true;
	*verdict = left.verdict;
	return CST_WRITE_ERROR;
}

enum cst_write_result cst_write_refused(struct cst_object_op *op, struct cst_retry_verdict verdict)
{
	struct cst_write *w = op->write;
	bool one_of_many = op->kind == CST_OP_DELETE_MANY && w->single < w->key_count;
	if (verdict.action != CST_RETRY_FAIL || (verdict.error && (!one_of_many || verdict.error == ENXIO)))
		return CST_WRITE_ERROR;
	if (!one_of_many)
		return CST_WRITE_DONE;
	if (verdict.error)
		tell_failed(op, w->single, verdict.error);
	w->key[w->single].state = CST_KEY_DONE;
	return has_more_keys(w) ? CST_WRITE_GOES_ON : CST_WRITE_DONE;
}

/* ---- all ---- */

static enum cst_write_result check_listing(struct cst_object_op *op, struct cst_retry_verdict *verdict)
{
	struct cst_write *w = op->write;
	struct cst_slice text = cst_buf_slice(&w->answer);
	int rc = op->kind == CST_OP_LIST_PARTS
			 ? cst_parts_xml_read(text, w->number, w->parts_ops.part, op->arg, &w->next_number, &op->error)
			 : cst_uploads_xml_read(text, cst_buf_slice(&w->after), cst_buf_slice(&w->upload_id),
						w->uploads_ops.upload, op->arg, &w->next_key, &w->new_id, &op->error);
	return document_result(op, rc, verdict);
}

enum cst_write_result cst_write_check(struct cst_object_op *op, struct cst_retry_verdict *verdict)
{
	enum cst_write_result r;
	switch (op->kind) {
	case CST_OP_PUT:
		return check_crc64(op, verdict);
	case CST_OP_APPEND:
		return check_append(op, verdict);
	case CST_OP_BEGIN:
		return check_begin(op, verdict);
	case CST_OP_PART:
	case CST_OP_PART_COPY:
		return check_part(op, verdict);
	case CST_OP_COPY:
		return check_result(op, "CopyObjectResult", verdict);
	case CST_OP_COMPLETE:
		r = check_result(op, "CompleteMultipartUploadResult", verdict);
		return r == CST_WRITE_DONE ? check_crc64(op, verdict) : r;
	case CST_OP_DELETE_MANY:
		return check_deleted(op, verdict);
	case CST_OP_LIST_PARTS:
	case CST_OP_LIST_UPLOADS:
		return check_listing(op, verdict);
	default:
		return CST_WRITE_DONE;
	}
}
