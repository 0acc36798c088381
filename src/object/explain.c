/* The words of failed operations. Nothing secret goes in: neither headers nor the texts that stores quote from the signature. */
#include "object/backend.h"

#include "base/clock.h"
#include "base/text.h"

#include <errno.h>

static const char *verb(const struct cst_object_op *op)
{
	static const char *const verbs[] = {
		[CST_OP_GET] = "read",
		[CST_OP_HEAD] = "look up",
		[CST_OP_LIST] = "list",
		[CST_OP_SYMLINK] = "read the symlink",
		[CST_OP_PUT] = "write",
		[CST_OP_PUT_SYMLINK] = "write the symlink",
		[CST_OP_APPEND] = "append to",
		[CST_OP_COPY] = "copy to",
		[CST_OP_DELETE] = "delete",
		[CST_OP_DELETE_MANY] = "delete objects of",
		[CST_OP_BEGIN] = "begin an upload of",
		[CST_OP_PART] = "upload a part of",
		[CST_OP_PART_COPY] = "copy into a part of",
		[CST_OP_COMPLETE] = "complete the upload of",
		[CST_OP_ABORT] = "abort the upload of",
		[CST_OP_LIST_PARTS] = "list the uploaded parts of",
		[CST_OP_LIST_UPLOADS] = "list the uploads below",
	};
	return verbs[op->kind];
}

static const char *kind_text(enum cst_sign_kind kind)
{
	return kind == CST_SIGN_OSS_V1 ? "OSS V1" : kind == CST_SIGN_OSS_V4 ? "OSS V4" : "S3 V4";
}

static void say_answer(const struct cst_object_op *op, struct cst_buf *why)
{
	const struct cst_store_error *e = &op->error;
	cst_buf_printf(why, "the store answered %d", op->status);
	if (e->code[0])
		cst_buf_printf(why, " %s", e->code);
	if (e->message[0])
		cst_buf_printf(why, ": %s", e->message);
	if (e->request_id[0])
		cst_buf_printf(why, " (request id %s%s%s)", e->request_id, e->ec[0] ? ", EC " : "", e->ec);
}

static void say_why(const struct cst_object_op *op, int error, const struct cst_error *http_err, struct cst_buf *why)
{
	bool answered = op->status && (op->status < 200 || op->status > 299 || op->has_error);
	if (error == ECANCELED)
		cst_buf_add_str(why, "cancelled");
	else if (op->stop_why && op->stop != CST_STOP_ENOUGH)
		cst_buf_add_str(why, op->stop_why);
	else if (http_err && (http_err->why[0] || http_err->what[0]))
		cst_buf_add_str(why, http_err->why[0] ? http_err->why : http_err->what);
	else if (answered)
		say_answer(op, why);
	else if (error == ETIMEDOUT)
		cst_buf_add_str(why, "the deadline passed");
	else
		cst_buf_add_str(why, "no complete answer came");
	if (error == ETIMEDOUT && !answered && op->before[0])
		cst_buf_printf(why, "; before that %s", op->before);
	if (error != ECANCELED && op->sent > 1)
		cst_buf_printf(why, "; gave up after %u attempts in %.1f s", op->sent,
			       (double)(cst_now() - op->started) / 1e9);
}

static void hint_skew(const struct cst_object_op *op, struct cst_buf *hint)
{
	int64_t ours =
		(op->bucket->tuning.wall ? op->bucket->tuning.wall(op->bucket->tuning.arg) : cst_wall()) / CST_NS_PER_S;
	int64_t off = ours - op->server_date;
	int64_t s = off < 0 ? -off : off;
	if (!op->server_date) {
		cst_buf_add_str(hint, "set this machine's clock");
		return;
	}
	if (s >= 7200)
		cst_buf_printf(hint, "this machine's clock is %lld h %lld min", (long long)(s / 3600),
			       (long long)(s % 3600 / 60));
	else
		cst_buf_printf(hint, "this machine's clock is %lld min %lld s", (long long)(s / 60),
			       (long long)(s % 60));
	cst_buf_printf(hint, " %s that of the store: set it", off > 0 ? "ahead of" : "behind");
}

/* The store knows the bucket, elsewhere. */
static bool hint_place(const struct cst_object_op *op, struct cst_buf *hint)
{
	const struct cst_store_error *e = &op->error;
	const char *endpoint = e->endpoint;
	size_t len = strlen(op->bucket->name);
	if (strncmp(endpoint, op->bucket->name, len) == 0 && endpoint[len] == '.')
		endpoint += len + 1;
	if (endpoint[0])
		cst_buf_printf(hint, "the bucket is served by %s: give --endpoint %s", endpoint, endpoint);
	else if (e->region[0] && strcmp(e->region, op->bucket->endpoint.region) != 0)
		cst_buf_printf(hint, "the bucket is in the region %s: give --region %s", e->region, e->region);
	return hint->len > 0;
}

/* The action that a policy must allow. */
static const char *permission(const struct cst_object_op *op)
{
	bool s3 = op->bucket->backend->crc32c;
	switch (op->kind) {
	case CST_OP_DELETE:
	case CST_OP_DELETE_MANY:
		return "DeleteObject";
	case CST_OP_ABORT:
		return "AbortMultipartUpload";
	case CST_OP_LIST_PARTS:
		return s3 ? "ListMultipartUploadParts" : "ListParts";
	case CST_OP_LIST_UPLOADS:
		return s3 ? "ListBucketMultipartUploads" : "ListMultipartUploads";
	default:
		return "PutObject";
	}
}

static void hint_denied(const struct cst_object_op *op, const char *source, struct cst_buf *hint)
{
	const char *prefix = op->bucket->backend->permission;
	if (!op->write) {
		cst_buf_printf(hint,
			       "the key (from: %s) may not do this: check the policies of the key and of the bucket",
			       source);
		return;
	}
	cst_buf_printf(hint, "the key (from: %s) lacks %s%s", source, prefix, permission(op));
	if (op->kind == CST_OP_COPY || op->kind == CST_OP_PART_COPY)
		cst_buf_printf(hint, " or, for the source, %sGetObject", prefix);
	else if (op->write->condition == CST_OBJECT_IF_MATCH)
		cst_buf_printf(hint, " or, for the condition, %sGetObject", prefix);
	cst_buf_add_str(hint, ": check the policies of the key and of the bucket, or mount with ro");
}

/* Failures that only writing has. */
static bool hint_write(const struct cst_object_op *op, int error, struct cst_buf *hint)
{
	if (!op->write)
		return false;
	switch (error) {
	case EDQUOT:
		cst_buf_add_str(hint,
				"the quota of the bucket or account is used up: delete something or have it raised");
		break;
	case ENOSPC:
		cst_buf_add_str(hint, "the store's disks are full");
		break;
	case EROFS:
		cst_buf_add_str(
			hint,
			"a retention policy (WORM) of the bucket protects this object: it can't be changed before its time");
		break;
	case EFBIG:
		cst_buf_printf(hint, "the store takes up to %llu GiB in one request",
			       (unsigned long long)(op->bucket->backend->limits.put_max >> 30));
		break;
	case EEXIST:
		cst_buf_add_str(hint, "somebody else has made this object");
		break;
	case ESTALE:
		cst_buf_add_str(hint, op->kind == CST_OP_PART_COPY
					      ? "somebody else has changed what was to be copied"
					      : "somebody else has changed the object since it was opened");
		break;
	case EPERM:
		cst_buf_add_str(hint, "the object was not made by appending: only AppendObject makes such ones");
		break;
	case EBADMSG:
		cst_buf_add_str(hint, "the bytes were damaged on their way, or the memory of a machine is: check both");
		break;
	case E2BIG:
		cst_buf_add_str(hint, "metadata (extended attributes among it) may have 8 KiB on OSS, 2 KiB on S3");
		break;
	case ENOENT:
		if (strcmp(op->error.code, "NoSuchUpload") == 0)
			cst_buf_add_str(hint,
					"the upload was completed or aborted, or a lifecycle rule has removed it");
		else if (op->kind == CST_OP_COPY || op->kind == CST_OP_PART_COPY)
			cst_buf_add_str(hint, "what was to be copied is not there");
		break;
	case ENOTSUP:
		if (op->status && op->write->condition != CST_OBJECT_ANY)
			cst_buf_add_str(hint, "the store does not know conditional writes");
		break;
	default:
		break;
	}
	return hint->len > 0;
}

static void hint_credentials(const struct cst_object_op *op, struct cst_buf *hint)
{
	const struct cst_bucket *b = op->bucket;
	const char *code = op->error.code;
	const char *source = b->credentials ? cst_credentials_source(b->credentials) : NULL;
	if (!source)
		cst_buf_add_str(hint, "the request was anonymous: give credentials, unless the bucket is public");
	else if (strcmp(code, "SignatureDoesNotMatch") == 0)
		cst_buf_printf(
			hint,
			"check the secret key (from: %s); if it is right, the store may want another signature than %s%s%s",
			source, kind_text(b->sign), b->endpoint.region[0] ? " for region " : "", b->endpoint.region);
	else if (strcmp(code, "InvalidAccessKeyId") == 0)
		cst_buf_printf(
			hint, "check the access key (from: %s) and that the endpoint is of the right cloud and account",
			source);
	else if (strcmp(code, "AccessDenied") == 0)
		hint_denied(op, source, hint);
	else if (strcmp(code, "UserDisable") == 0)
		cst_buf_add_str(hint, "the account is disabled, mostly because a bill is overdue");
	else
		cst_buf_printf(hint, "check the credentials (from: %s)", source);
}

static void hint_transport(const struct cst_object_op *op, int rc, struct cst_buf *hint)
{
	const struct cst_endpoint *e = &op->bucket->endpoint;
	switch (rc) {
	case -EHOSTUNREACH:
		cst_buf_printf(hint, "check the spelling of the endpoint %s and the name service of this machine",
			       e->url);
		break;
	case -ECONNREFUSED:
		cst_buf_printf(hint, "nothing accepts connections at %s: check host and port, and that the store runs",
			       e->url);
		break;
	case -EPROTO:
		cst_buf_add_str(
			hint,
			"give --ca FILE for a private authority, or write http:// if the store speaks plain HTTP");
		break;
	case -ETIMEDOUT:
		if (op->status) {
			cst_buf_add_str(hint, "the store began to answer and then was too slow");
			if (op->kind == CST_OP_GET)
				cst_buf_printf(hint, ": %llu of %llu bytes had come", (unsigned long long)op->got,
					       (unsigned long long)op->length);
			break;
		}
		cst_buf_add_str(
			hint,
			strstr(e->url, "-internal.")
				? "-internal endpoints are reachable from the cloud's own machines only: use the public one"
				: "check the network, firewalls and proxy settings between this machine and the store");
		break;
	case -EBADMSG:
		cst_buf_printf(hint, "is %s the endpoint of an object store?", e->url);
		break;
	default:
		break;
	}
}

static void say_hint(const struct cst_object_op *op, int error, int rc, const struct cst_error *http_err,
		     struct cst_buf *hint)
{
	const char *code = op->error.code;
	if (error == ECANCELED || hint_place(op, hint) || hint_write(op, error, hint))
		return;
	if (http_err && http_err->hint[0] && rc == -EPROTO)
		cst_buf_add_str(hint, http_err->hint);
	else if (rc < 0)
		hint_transport(op, rc, hint);
	else if (strcmp(code, "RequestTimeTooSkewed") == 0)
		hint_skew(op, hint);
	else if (error == EACCES)
		hint_credentials(op, hint);
	else if (error == ENXIO)
		cst_buf_printf(hint, "check the name of the bucket and that %s is the endpoint of its region",
			       op->bucket->endpoint.url);
	else if (strcmp(code, "InvalidObjectState") == 0)
		cst_buf_add_str(hint, "the object is archived: restore it first");
	else if (error == ESTALE)
		cst_buf_add_str(hint, "open it again to read the new content");
	else if (op->kind == CST_OP_LIST && op->status >= 300 && op->status < 500 && !op->has_error)
		cst_buf_printf(hint, "is %s the endpoint of an object store?", op->bucket->endpoint.url);
}

void cst_op_explain_key(const struct cst_object_op *op, int error, struct cst_slice key, struct cst_error *err)
{
	CST_AUTO_BUF name = CST_BUF_INIT, hint = CST_BUF_INIT;
	const struct cst_store_error *e = &op->error;
	cst_text_printable(&name, key);
	cst_error_set(err, error, "can't delete %s://%s/%.160s%s", op->bucket->backend->scheme, op->bucket->name,
		      name.data ? name.data : "", name.len > 160 ? "…" : "");
	cst_error_why(err, "the store answered %s%s%s", e->code[0] ? e->code : "with an error",
		      e->message[0] ? ": " : "", e->message);
	say_hint(op, error, 0, NULL, &hint);
	if (hint.len)
		cst_error_hint(err, "%s", hint.data);
	snprintf(err->api, sizeof(err->api), "%s", e->code);
}

void cst_op_remember(struct cst_object_op *op, const struct cst_error *http_err)
{
	CST_AUTO_BUF why = CST_BUF_INIT;
	if (op->stop_why)
		cst_buf_add_str(&why, op->stop_why);
	else if (http_err)
		cst_buf_add_str(&why, http_err->why);
	else
		say_answer(op, &why);
	snprintf(op->before, sizeof(op->before), "%.*s", (int)why.len, why.data ? why.data : "");
}

void cst_op_explain(struct cst_object_op *op, int error, int rc, const struct cst_error *http_err)
{
	CST_AUTO_BUF name = CST_BUF_INIT, why = CST_BUF_INIT, hint = CST_BUF_INIT;
	struct cst_error *err = &op->err;
	cst_text_printable(&name, cst_buf_slice(&op->key));
	say_why(op, error, http_err, &why);
	say_hint(op, error, rc, http_err, &hint);
	cst_error_set(err, error, "can't %s %s://%s/%.160s%s", verb(op), op->bucket->backend->scheme, op->bucket->name,
		      name.data ? name.data : "", name.len > 160 ? "…" : "");
	cst_error_why(err, "%s", why.data ? why.data : "");
	if (hint.len)
		cst_error_hint(err, "%s", hint.data);
	err->status = op->status;
	snprintf(err->api, sizeof(err->api), "%s", op->error.code);
}
