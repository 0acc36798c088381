/* The client's side of request signatures, and the keys of the V4 kinds. */
#include "object/sign_private.h"

#include "base/clock.h"
#include "base/digest.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdio.h>

void cst_sign_key(enum cst_sign_kind kind, const struct cst_credential *cred, struct cst_slice date,
		  struct cst_slice region, uint8_t key[32])
{
	bool s3 = kind == CST_SIGN_S3_V4;
	struct cst_slice service = s3 ? CST_SLICE("s3") : CST_SLICE("oss");
	struct cst_slice terminator = s3 ? CST_SLICE("aws4_request") : CST_SLICE("aliyun_v4_request");
	char secret[sizeof(cred->secret_key) + 16];
	int len = snprintf(secret, sizeof(secret), "%s%s", s3 ? "AWS4" : "aliyun_v4", cred->secret_key);
	uint8_t step[CST_SHA256_LEN];
	cst_hmac_sha256(secret, (size_t)len, date.data, date.len, key);
	cst_hmac_sha256(key, CST_SHA256_LEN, region.data, region.len, step);
	cst_hmac_sha256(step, sizeof(step), service.data, service.len, key);
	cst_hmac_sha256(key, CST_SHA256_LEN, terminator.data, terminator.len, step);
	memcpy(key, step, sizeof(step));
	explicit_bzero(secret, sizeof(secret));
	explicit_bzero(step, sizeof(step));
}

void cst_sign_compute(const struct cst_sign_input *in, const struct cst_credential *cred, const uint8_t *key,
		      struct cst_slice to_sign, struct cst_buf *out)
{
	uint8_t mac[CST_SHA256_LEN], derived[CST_SHA256_LEN];
	if (in->kind == CST_SIGN_OSS_V1) {
		cst_hmac_sha1(cred->secret_key, strlen(cred->secret_key), to_sign.data, to_sign.len, mac);
		cst_text_base64(out, mac, CST_SHA1_LEN);
		return;
	}
	if (!key) {
		cst_sign_key(in->kind, cred, in->scope_date, in->region, derived);
		key = derived;
	}
	cst_hmac_sha256(key, CST_SHA256_LEN, to_sign.data, to_sign.len, mac);
	cst_text_hex(out, mac, sizeof(mac));
	explicit_bzero(derived, sizeof(derived));
}

/* What the signer puts together before it signs. */
struct job {
	struct cst_sign_input in;
	char stamp[CST_TIME_TEXT]; /* of the kind's own format */
	struct cst_buf scope, names, canonical, to_sign;
};

static void job_fini(struct job *job)
{
	cst_buf_fini(&job->scope);
	cst_buf_fini(&job->names);
	cst_buf_fini(&job->canonical);
	cst_buf_fini(&job->to_sign);
}

static void job_init(struct job *job, const struct cst_sign_request *req)
{
	*job = (struct job){.in = {.req = req, .kind = req->kind, .time = req->time, .chosen_names = &job->names}};
	if (req->kind == CST_SIGN_OSS_V1) {
		cst_time_http(req->time, job->stamp);
		return;
	}
	cst_time_compact(req->time, job->stamp);
	job->in.scope_date = (struct cst_slice){job->stamp, 8};
	job->in.region = cst_slice_of(req->region);
	job->in.payload_hash = cst_slice_of(req->payload_hash ? req->payload_hash : "UNSIGNED-PAYLOAD");
	if (req->kind == CST_SIGN_OSS_V4)
		job->in.names = cst_slice_of(req->additional_headers);
	cst_sign_scope(req->kind, job->in.scope_date, job->in.region, &job->scope);
}

static void job_run(struct job *job)
{
	if (job->in.kind != CST_SIGN_OSS_V1)
		cst_sign_canonical(&job->in, &job->canonical);
	cst_sign_to_sign(&job->in, cst_buf_slice(&job->canonical), &job->to_sign);
}

static void add_line(struct cst_buf *out, const char *name, struct cst_slice value)
{
	cst_buf_add_str(out, name);
	cst_buf_add_str(out, ": ");
	cst_buf_add_slice(out, value);
	cst_buf_add_str(out, "\r\n");
}

/* The lines that are sent and signed; Authorization comes after them. */
static void add_signed_lines(struct job *job, const struct cst_credential *cred, struct cst_buf *out)
{
	static const char *const date_names[] = {[CST_SIGN_OSS_V1] = "Date", "x-oss-date", "x-amz-date"};
	bool s3 = job->in.kind == CST_SIGN_S3_V4;
	add_line(out, date_names[job->in.kind], cst_slice_of(job->stamp));
	if (job->in.kind != CST_SIGN_OSS_V1)
		add_line(out, s3 ? "x-amz-content-sha256" : "x-oss-content-sha256", job->in.payload_hash);
	if (cred->token[0])
		add_line(out, s3 ? "x-amz-security-token" : "x-oss-security-token", cst_slice_of(cred->token));
}

static void set_header_mode(struct job *job, struct cst_slice added)
{
	job->in.added_headers = added;
	if (job->in.kind != CST_SIGN_OSS_V1)
		return;
	struct cst_slice own = cst_sign_find_line(job->in.req->headers, "x-oss-date");
	job->in.date_slot = own.data ? own : cst_slice_of(job->stamp);
}

static void add_authorization(struct job *job, const struct cst_credential *cred, struct cst_buf *out)
{
	bool s3 = job->in.kind == CST_SIGN_S3_V4;
	cst_buf_add_str(out, "Authorization: ");
	if (job->in.kind == CST_SIGN_OSS_V1) {
		cst_buf_add_str(out, "OSS ");
		cst_buf_add_str(out, cred->access_key);
		cst_buf_add_char(out, ':');
	} else {
		cst_buf_add_str(out, s3 ? "AWS4-HMAC-SHA256 Credential=" : "OSS4-HMAC-SHA256 Credential=");
		cst_buf_add_str(out, cred->access_key);
		cst_buf_add_char(out, '/');
		cst_buf_add_slice(out, cst_buf_slice(&job->scope));
		if (job->names.len) {
			cst_buf_add_str(out, s3 ? ",SignedHeaders=" : ",AdditionalHeaders=");
			cst_buf_add_slice(out, cst_buf_slice(&job->names));
		}
		cst_buf_add_str(out, ",Signature=");
	}
	cst_sign_compute(&job->in, cred, job->in.req->key_for_date, cst_buf_slice(&job->to_sign), out);
	cst_buf_add_str(out, "\r\n");
}

void cst_sign_headers(const struct cst_sign_request *req, const struct cst_credential *cred, struct cst_buf *out)
{
	struct job job;
	CST_AUTO_BUF added = CST_BUF_INIT;
	if (req->kind == CST_SIGN_NONE)
		return;
	job_init(&job, req);
	add_signed_lines(&job, cred, &added);
	set_header_mode(&job, cst_buf_slice(&added));
	job_run(&job);
	cst_buf_add_slice(out, cst_buf_slice(&added));
	add_authorization(&job, cred, out);
	job_fini(&job);
}

void cst_sign_string_to_sign(const struct cst_sign_request *req, const struct cst_credential *cred,
			     struct cst_buf *canonical, struct cst_buf *string_to_sign)
{
	struct job job;
	CST_AUTO_BUF added = CST_BUF_INIT;
	job_init(&job, req);
	add_signed_lines(&job, cred, &added);
	set_header_mode(&job, cst_buf_slice(&added));
	job_run(&job);
	if (canonical)
		cst_buf_add_slice(canonical, cst_buf_slice(&job.canonical));
	if (string_to_sign)
		cst_buf_add_slice(string_to_sign, cst_buf_slice(&job.to_sign));
	job_fini(&job);
}

static void add_param(struct cst_buf *out, const char *name, struct cst_slice value)
{
	cst_buf_add_char(out, '&');
	cst_buf_add_str(out, name);
	cst_buf_add_char(out, '=');
	cst_text_url_encode(out, value, false);
}

#define QUERY_PARAMS_MAX 8
struct query_params {
	struct cst_sign_param list[QUERY_PARAMS_MAX];
	const char *names[QUERY_PARAMS_MAX];
	size_t count;
};

static void push_param(struct query_params *q, const char *name, struct cst_slice value)
{
	q->names[q->count] = name;
	q->list[q->count++] = (struct cst_sign_param){cst_slice_of(name), value, true};
}

static void query_v1(struct job *job, const struct cst_credential *cred, int64_t expires_s, struct cst_buf *out)
{
	char expires[24];
	struct query_params q = {.count = 0};
	snprintf(expires, sizeof(expires), "%" PRId64, job->in.time + expires_s);
	if (cred->token[0])
		push_param(&q, "security-token", cst_slice_of(cred->token));
	job->in.date_slot = cst_slice_of(expires);
	job->in.added_params = q.list;
	job->in.added_param_count = q.count;
	job_run(job);
	add_param(out, "OSSAccessKeyId", cst_slice_of(cred->access_key));
	add_param(out, "Expires", cst_slice_of(expires));
	if (cred->token[0])
		add_param(out, "security-token", cst_slice_of(cred->token));
	CST_AUTO_BUF signature = CST_BUF_INIT;
	cst_sign_compute(&job->in, cred, NULL, cst_buf_slice(&job->to_sign), &signature);
	add_param(out, "Signature", cst_buf_slice(&signature));
}

/* The names that a presigned URL of S3 signs: host and those of the given lines. */
static void choose_s3_names(const struct job *job, struct cst_buf *names)
{
	CST_AUTO_BUF scratch = CST_BUF_INIT;
	struct cst_sign_input in = job->in;
	in.chosen_names = names;
	cst_sign_canonical(&in, &scratch);
}

static void query_v4(struct job *job, const struct cst_credential *cred, int64_t expires_s, struct cst_buf *out)
{
	bool s3 = job->in.kind == CST_SIGN_S3_V4;
	char expires[24];
	struct query_params q = {.count = 0};
	CST_AUTO_BUF credential = CST_BUF_INIT, names = CST_BUF_INIT, signature = CST_BUF_INIT;
	snprintf(expires, sizeof(expires), "%" PRId64, expires_s);
	cst_buf_printf(&credential, "%s/", cred->access_key);
	cst_buf_add_slice(&credential, cst_buf_slice(&job->scope));
	if (s3)
		choose_s3_names(job, &names);
	else
		cst_buf_add_slice(&names, job->in.names);
	push_param(&q, s3 ? "X-Amz-Algorithm" : "x-oss-signature-version",
		   s3 ? CST_SLICE("AWS4-HMAC-SHA256") : CST_SLICE("OSS4-HMAC-SHA256"));
	push_param(&q, s3 ? "X-Amz-Credential" : "x-oss-credential", cst_buf_slice(&credential));
	push_param(&q, s3 ? "X-Amz-Date" : "x-oss-date", cst_slice_of(job->stamp));
	push_param(&q, s3 ? "X-Amz-Expires" : "x-oss-expires", cst_slice_of(expires));
	if (names.len)
		push_param(&q, s3 ? "X-Amz-SignedHeaders" : "x-oss-additional-headers", cst_buf_slice(&names));
	if (cred->token[0])
		push_param(&q, s3 ? "X-Amz-Security-Token" : "x-oss-security-token", cst_slice_of(cred->token));
	job->in.added_params = q.list;
	job->in.added_param_count = q.count;
	job_run(job);
	for (size_t i = 0; i < q.count; i++)
		add_param(out, q.names[i], q.list[i].value);
	cst_sign_compute(&job->in, cred, job->in.req->key_for_date, cst_buf_slice(&job->to_sign), &signature);
	add_param(out, s3 ? "X-Amz-Signature" : "x-oss-signature", cst_buf_slice(&signature));
}

void cst_sign_query(const struct cst_sign_request *req, const struct cst_credential *cred, int64_t expires_s,
		    struct cst_buf *out)
{
	struct job job;
	if (req->kind == CST_SIGN_NONE)
		return;
	job_init(&job, req);
	job.in.presigned = true;
	if (req->kind == CST_SIGN_OSS_V1)
		query_v1(&job, cred, expires_s, out);
	else
		query_v4(&job, cred, expires_s, out);
	job_fini(&job);
}

void cst_sign_s3_signing_key(const struct cst_credential *cred, struct cst_slice date, struct cst_slice region,
			     uint8_t key[32])
{
	cst_sign_key(CST_SIGN_S3_V4, cred, date, region, key);
}

void cst_sign_s3_chunk(const uint8_t key[32], struct cst_slice scope_date, struct cst_slice region, int64_t time,
		       const char previous[65], const uint8_t chunk_sha256[32], char out[65])
{
	CST_AUTO_BUF text = CST_BUF_INIT, hex = CST_BUF_INIT;
	char stamp[CST_TIME_TEXT];
	uint8_t empty[CST_SHA256_LEN], mac[CST_SHA256_LEN];
	cst_time_compact(time, stamp);
	cst_sha256("", 0, empty);
	cst_buf_printf(&text, "AWS4-HMAC-SHA256-PAYLOAD\n%s\n", stamp);
	cst_sign_scope(CST_SIGN_S3_V4, scope_date, region, &text);
	cst_buf_printf(&text, "\n%.64s\n", previous);
	cst_text_hex(&text, empty, sizeof(empty));
	cst_buf_add_char(&text, '\n');
	cst_text_hex(&text, chunk_sha256, CST_SHA256_LEN);
	cst_hmac_sha256(key, CST_SHA256_LEN, text.data, text.len, mac);
	cst_text_hex(&hex, mac, sizeof(mac));
	memcpy(out, hex.data, 65);
}
