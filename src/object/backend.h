/* What OSS and S3 do differently, and the inside of buckets and operations. Private to src/object (not credentials) and its
 * tests.
 *
 * Life of an operation (state, guarded by the bucket's lock):
 *
 *	NEW ──► RUNNING ──► DONE                     one attempt sufficed
 *	 ├─► QUEUED ──► RUNNING                      the limiter lets fewer run, or what may be asked of the store is used up
 *	 ├─► BACKOFF ──► NEW                         a pause after a failed attempt, or because the store asked for quiet
 *	RUNNING ──► RENEWING ──► NEW                 the credential is being renewed
 *	QUEUED, BACKOFF, RENEWING ──► DONE           cancelled, or the deadline passed
 *
 * While RUNNING a GET may have a second request under way (hedge.c).
 *
 * One reference is the caller's handle, one goes with the operation until DONE, and one each with a posted task, an armed timer,
 * a second request and a renewal under way. Timers live on the bucket's own loop; all else runs on whatever thread brings the event. The fields of
 * an attempt belong to the thread that runs the attempt's callbacks: attempts follow each other, and the lock orders them. */
#pragma once

#include "base/metrics.h"
#include "object/endpoint.h"
#include "object/pace.h"
#include "object/retry.h"
#include "object/sign_private.h"
#include "object/write.h"
#include "object/xml.h"

#include <pthread.h>

enum cst_op_kind {
	CST_OP_GET,
	CST_OP_HEAD,
	CST_OP_LIST,
	CST_OP_SYMLINK,
	/* writing, and what belongs to it: struct cst_write */
	CST_OP_PUT,
	CST_OP_PUT_SYMLINK,
	CST_OP_APPEND,
	CST_OP_COPY,
	CST_OP_DELETE,
	CST_OP_DELETE_MANY,
	CST_OP_BEGIN,
	CST_OP_PART,
	CST_OP_PART_COPY,
	CST_OP_COMPLETE,
	CST_OP_ABORT,
	CST_OP_LIST_PARTS,
	CST_OP_LIST_UPLOADS,
	CST_OP_KINDS
};
enum cst_op_state { CST_OP_NEW, CST_OP_QUEUED, CST_OP_BACKOFF, CST_OP_RENEWING, CST_OP_RUNNING, CST_OP_DONE };
/* Why we ended a call ourselves. */
enum cst_op_stop {
	CST_STOP_NONE,
	CST_STOP_ENOUGH,	/* sifting: all wanted bytes are there */
	CST_STOP_STALE,		/* another ETag than asked for */
	CST_STOP_CHANGED,	/* another ETag than that of the bytes we have, and none was asked for: begin again */
	CST_STOP_RANGE_IGNORED, /* 200 to a Range request: ask again and sift */
	CST_STOP_PAST_END,	/* the whole object came, and it ends before the range */
	CST_STOP_MALFORMED,
};

/* The vtable. */
struct cst_backend {
	const char *scheme;
	const char *meta_prefix;   /* "x-oss-meta-" */
	const char *header_prefix; /* "x-oss-" */
	const char *request_id;	   /* header */
	bool light_head;	   /* GetObjectMeta exists */
	bool symlinks;
	bool appends;
	bool if_match; /* PUT, completion, copy and DELETE know If-Match and If-None-Match; else x-oss-forbid-overwrite */
	bool crc32c;   /* bodies carry x-amz-checksum-crc32c, which the store verifies */
	const char *acl_header;
	const char *permission; /* how its policies call their actions: "oss:" */
	struct cst_object_limits limits;
	const char *get_headers; /* lines that each GET with a range carries */
	enum cst_sign_kind (*sign)(const struct cst_bucket_config *config, const struct cst_endpoint *endpoint);
	/* Type, storage class, restore state out of a successful answer. */
	void (*read_info)(const struct cst_http_head *head, struct cst_object_info *info);
};
extern const struct cst_backend cst_backend_oss, cst_backend_s3;

/* For tests: pauses and randomness. Set before the first operation. */
struct cst_object_tuning {
	int64_t backoff_base, backoff_cap;
	uint64_t (*random)(void *arg); /* NULL: the bucket's own */
	int64_t (*wall)(void *arg);    /* ns; NULL: cst_wall */
	void *arg;
};

TAILQ_HEAD(cst_op_queue, cst_object_op);

/* Who waits behind whom: all but those in the background in the order of their coming, where more than one may go; these behind
 * the others, for a second. HEADs wait for their number, too, GETs and uploads for their bandwidth. */
enum cst_op_lane {
	CST_LANE_HEAD,
	CST_LANE_LIST,
	CST_LANE_DEMAND,
	CST_LANE_CHANGE, /* writes without a body */
	CST_LANE_UPLOAD,
	CST_LANE_BACKGROUND,
	CST_LANE_UPLOAD_BACKGROUND,
	CST_LANES
};
#define CST_HEADS_AT_ONCE 64
#define CST_HEADS_MOST 112 /* with those that have gone unanswered for a second */

struct cst_signer; /* signer.c: the current credential with its derived key */

struct cst_bucket {
	unsigned magic;
	const struct cst_backend *backend;
	char *name, *describe;
	struct cst_endpoint endpoint;
	enum cst_sign_kind sign;
	struct cst_credentials *credentials; /* NULL: anonymous */
	struct cst_http_client *http;
	int64_t request_timeout, deadline;
	unsigned max_attempts;
	bool verify_crc64;
	struct cst_object_tuning tuning;
	struct cst_signer *signer;
	struct cst_loop *loop; /* timers */
	pthread_mutex_t lock;
	/* under the lock */
	struct cst_limiter limiter;
	struct cst_op_queue queues[CST_LANES], spare;
	uint64_t order;			  /* of the last that queued */
	int64_t background_at[CST_LANES]; /* when one in that lane of the background began last */
	struct cst_allowance requests, bandwidth, upload;
	unsigned heads, late_heads; /* under way: those that count, and those that have stalled */
	int64_t pace_at;	    /* when the first of those that wait for them may go; 0: none does */
	bool pace_posted;
	struct cst_pace pace;
	unsigned hedge_credit;	    /* in twentieths of a second request */
	unsigned spare_count, live; /* operations kept; in use */
	pthread_cond_t idle;	    /* live became 0 */
	uint64_t seed;
	/* atomic */
	int64_t clock_offset; /* s to add to ours */
	bool throttled;	      /* the limiter has something to recover from */
	unsigned bodies;      /* that are coming now, and */
	uint64_t flow;	      /* the bytes of all that have come: what one gets tells what another could get */
	struct cst_bucket_stats stats;
	/* constant */
	bool hedge;
	/* the bucket's loop */
	struct cst_task pace_task;
	struct cst_timer pace_timer;
};
#define CST_BUCKET_MAGIC 0x4255434bu

/* One of at most two requests of a GET that are under way; on its loop's thread. */
struct cst_side {
	bool running; /* also under the bucket's lock */
	bool dropped; /* we ended it, for the other */
	uint64_t from, came,
		first;	  /* bytes: where in the range it begins; so many have come; of them in the first piece */
	bool knows_late;  /* its alarm says that the head is late */
	bool stalled;	  /* its head is not only late */
	int64_t patience; /* ns to wait beyond that */
	int64_t head_at;  /* when a proper head came; 0: it has not */
	int64_t head_ns;
	uint64_t flow_at; /* the bucket's, at the head */
	unsigned bodies_at;
};

/* A key of DeleteMultipleObjects. */
struct cst_write_key {
	size_t at, len; /* in `keys` */
	enum { CST_KEY_IN_DOCUMENT, CST_KEY_SINGLE, CST_KEY_DONE } state;
};

/* What a writing operation has beside the others. The request is made once, its attempts differ in their signatures only. The fields of the attempt
 * belong to the thread of its callbacks. */
struct cst_write {
	/* the request */
	enum cst_object_condition condition;
	bool source_condition; /* the source must be one version */
	struct cst_buf lines;  /* headers */
	struct cst_buf upload_id, after;
	unsigned number;    /* of the part; the marker of a listing of parts */
	uint64_t position;  /* of the append */
	struct iovec *body; /* the caller's memory, or `document` */
	int body_count;
	uint64_t length;
	struct cst_buf document; /* a body of our own */
	struct iovec document_iov;
	uint64_t body_crc64, crc64;		  /* of the body; of what the store then has */
	bool has_body_crc64, has_crc64, combined; /* combined: crc64 holds the body's */
	char crc32c[12];
	uint64_t size; /* of the object when it is done; 0: not known */
	struct cst_object_parts_ops parts_ops;
	struct cst_object_uploads_ops uploads_ops;
	struct cst_object_delete_ops delete_ops;
	struct cst_buf keys;
	struct cst_write_key *key;
	size_t key_count, single; /* single: the key that the attempt deletes; key_count: none */
	size_t document_end;	  /* keys from here on are not in the attempt's document */

	/* the attempt */
	struct cst_http_sent sent;
	uint64_t sent_before;  /* bytes, by the attempts before */
	bool head_seen, whole; /* the answer's head; it came after all had been sent */
	unsigned
		doubtful; /* requests that may have taken effect without our knowing; not the one that was answered at last */
	unsigned this_one;     /* 1: the one that was answered had been sent whole */
	struct cst_buf answer; /* a document */

	/* the outcome */
	struct cst_object_part part;
	struct cst_buf new_id, next_key;
	unsigned next_number;
	uint64_t next_position;
	bool has_next_position;
};

#define CST_OP_IOV 8
struct cst_object_op {
	unsigned magic;
	struct cst_ref ref;
	struct cst_bucket *bucket;
	enum cst_op_kind kind;
	/* under the bucket's lock */
	enum cst_op_state state;
	bool cancelled, posted, timed;
	struct cst_http_call *call;
	unsigned sent, answered; /* attempts */
	int64_t wake_at;
	uint64_t order; /* QUEUED: its place */
	int64_t queued_at;
	bool late;			 /* a HEAD that has stalled */
	bool limited;			 /* it waits for its allowance */
	bool was_limited;		 /* it has, once */
	uint64_t paid;			 /* bytes that the attempt has taken from the bandwidth */
	TAILQ_ENTRY(cst_object_op) link; /* queue or spare */
	struct cst_task task;
	struct cst_timer timer; /* the bucket's loop */

	/* the request */
	struct cst_buf key; /* or prefix */
	bool light, no_retry, has_if_match, deadline_fixed;
	bool background; /* under the bucket's lock */
	char if_match[CST_ETAG_MAX];
	uint64_t offset, length;
	struct iovec iov_own[2 * CST_OP_IOV], *iov; /* of the whole range; room for `rest` follows */
	int iov_count;
	struct cst_buf delimiter, start_after, token;
	unsigned max_keys;
	int64_t deadline, started;
	unsigned max_attempts;
	void *fn, *arg;
	cst_object_progress_fn progress;
	struct cst_object_list_ops list_ops;

	/* the attempt */
	struct cst_buf target, headers;
	struct iovec *rest; /* iov without what is already there */
	int rest_count;
	int64_t attempt_started, signed_at;
	uint64_t generation;
	int status;
	enum cst_op_stop stop;
	const char *stop_why;
	bool accepted;	/* a 2xx answer of the form we want */
	bool named;	/* framed, and its ETag is the one of if_match: what comes may be shown before the end */
	bool size_told; /* info.size is known before the body has come */
	uint64_t told;	/* bytes of a 206 by its Content-Range */
	bool has_error;
	struct cst_buf error_body;
	struct cst_store_error error;
	int64_t told_delay, server_date; /* ns; s, 0: none */

	/* two requests at once: hedge.c */
	struct cst_side side; /* of the attempt */
	struct cst_hedge *hedge;
	struct cst_side *younger; /* of the two */
	bool raced_for_head;	  /* the second one was sent because the head of the first was late */
	int64_t alarm;		  /* ns, of the attempt */
	int ended_rc;		  /* the attempt's, while it waits for the other one's */
	size_t ended_received;

	/* over attempts */
	bool sift, renewed, probing;
	unsigned skewed, delivered;
	unsigned failures; /* since bytes last came */
	unsigned restarts; /* from the first byte on: another version, a wrong CRC */
	int renew_error;   /* what it is if there is no other credential */
	uint64_t got;	   /* bytes of the range stored */
	uint64_t shown;	   /* of them reported by progress: others may be reading them, nothing writes there again */
	uint64_t passed;   /* sifting: bytes of the object seen */
	struct cst_object_info info;
	struct cst_buf meta_text, target_text;
	struct cst_http_header *meta;
	struct cst_list_xml *xml;
	struct cst_write *write; /* NULL: it reads */
	struct cst_object_list_page page;
	char before[512]; /* why the attempt before failed */
	struct cst_error err;
};
#define CST_OP_MAGIC 0x4f504f50u

/* op.c */
struct cst_object_op *cst_op_new(struct cst_bucket *b, enum cst_op_kind kind, struct cst_slice key);
void cst_op_begin(struct cst_object_op *op);
/* Sends another attempt while the second request runs. */
void cst_op_send_beside(struct cst_object_op *op);
/* A request for the rest from `from` on begins; takes its allowance and returns the bytes that were paid. */
uint64_t cst_op_enter_locked(struct cst_object_op *op, uint64_t from);
/* It has ended; `last`: none is under way now. */
void cst_op_left_locked(struct cst_object_op *op, bool last, uint64_t paid, size_t received);
void cst_op_start_queued(struct cst_bucket *b); /* those that wait, if they may go now */
void cst_op_ref(struct cst_object_op *op);
void cst_op_unref(struct cst_object_op *op);
int64_t cst_op_on_head_alarm(void *arg);
void cst_op_free_spare(struct cst_bucket *b);
/* The attempt ended; decides what is next. Called without the lock. */
void cst_op_finish(struct cst_object_op *op, int rc);
void cst_op_retry(struct cst_object_op *op, int64_t delay);
void cst_op_go_on(struct cst_object_op *op); /* with its next request, at once */
void cst_op_renew(struct cst_object_op *op);
void cst_op_on_done(void *arg, int rc, size_t received, const struct cst_error *err);
/* The query of a request, decoded. */
#define CST_OP_PARAMS 8
struct cst_op_params {
	struct cst_sign_param list[CST_OP_PARAMS];
	size_t count;
};
void cst_op_param(struct cst_op_params *p, const char *name, struct cst_slice value);
void cst_op_param_bare(struct cst_op_params *p, const char *name); /* "?uploads" */
/* request.c: fills target, headers, rest; sends. */
struct cst_http_call *cst_op_send(struct cst_object_op *op);
/* The part of the range from `from` on, into rest; returns the number of pieces. */
int cst_op_rest(const struct cst_object_op *op, uint64_t from, struct iovec *rest);
void cst_op_write_range(const struct cst_object_op *op, uint64_t from, const char *etag, struct cst_buf *headers);
/* Adds the signature to the lines; returns the generation of the credential. */
uint64_t cst_op_sign(struct cst_object_op *op, const char *method, struct cst_slice key,
		     const struct cst_sign_param *params, size_t param_count, struct cst_buf *headers);
int64_t cst_op_attempt_deadline(const struct cst_object_op *op, int64_t now);
#define CST_HEDGE_COST 20U /* GETs earn one second request; two may be had in advance */
#define CST_HEDGE_FIRST (2 * CST_HEDGE_COST)
/* hedge.c: a second request for what is missing, when the first one is slow. */
/* The alarm of an attempt that is about to be sent. 0: none. */
int64_t cst_hedge_alarm_locked(struct cst_object_op *op);
int64_t cst_hedge_on_alarm(void *arg);
/* The proper head of a side, and its bytes. */
void cst_hedge_head(struct cst_object_op *op, struct cst_side *side, int64_t sent_at);
void cst_hedge_progress(struct cst_object_op *op, struct cst_side *side, size_t received);
/* What the end of a side tells of the store. */
void cst_hedge_learn_locked(struct cst_object_op *op, struct cst_side *side, int64_t started, size_t received,
			    bool complete);
/* The attempt has ended; it is judged now, or when the second request has ended, too. */
void cst_hedge_attempt_ended(struct cst_object_op *op, int rc, size_t received, const struct cst_error *err);
bool cst_hedge_running(const struct cst_object_op *op);
void cst_hedge_cancel_locked(struct cst_object_op *op);
void cst_hedge_free(struct cst_object_op *op);
/* answer.c: callbacks of an attempt. */
int cst_op_on_head(void *arg, const struct cst_http_response *response);
int cst_op_on_body(void *arg, struct cst_slice piece);
void cst_op_on_progress(void *arg, size_t received);
void cst_op_show(struct cst_object_op *op, uint64_t got); /* progress: [0, got) of the range is in memory */
/* The head of a second request, for the range from `from` on. False: it does not fit. */
bool cst_op_second_head(struct cst_object_op *op, const struct cst_http_response *r, uint64_t from, uint64_t *told);
/* All bytes of the range are there, by whatever request. */
void cst_op_complete(struct cst_object_op *op);
/* The whole rest of the range has come with this answer. */
bool cst_op_is_complete(const struct cst_object_op *op, int rc, size_t received);
void cst_op_came(struct cst_object_op *op, uint64_t from, size_t received); /* bytes that count */
void cst_op_throttled(struct cst_object_op *op, int64_t started, int64_t told_delay);
int64_t cst_op_told_delay(const struct cst_http_head *head); /* ns that the store asks to wait */
/* The verdict on an attempt; ends in one of finish, retry, renew. */
void cst_op_judge(struct cst_object_op *op, int rc, size_t received, const struct cst_error *err);
void cst_op_list_entry(void *arg, const struct cst_object_list_entry *entry);
/* write_request.c. Adds what the request of an attempt needs; the key that it is about. */
struct cst_slice cst_write_request(struct cst_object_op *op, struct cst_op_params *params,
				   struct cst_http_request *request, char number[24]);
/* Header lines of all attempts. False: a name or value that no header can hold. */
bool cst_write_add_properties(struct cst_object_op *op, const struct cst_object_properties *properties);
bool cst_write_add_condition(struct cst_object_op *op, enum cst_object_condition condition, const char *if_match);
bool cst_write_add_source(struct cst_object_op *op, struct cst_slice source, const char *if_match);
void cst_write_parts_document(struct cst_object_op *op, const struct cst_object_part *parts, size_t count);
bool cst_write_fits_xml(struct cst_slice key);
/* write.c */
void cst_write_free(struct cst_object_op *op);
void cst_write_call_back(struct cst_object_op *op, int rc, const struct cst_error *err);
/* write_answer.c: the answers to writes. */
int cst_write_on_head(struct cst_object_op *op,
		      const struct cst_http_response *r); /* 0, or 1: malformed, op->stop_why */
void cst_write_on_body(struct cst_object_op *op, struct cst_slice piece);
/* The attempt has ended: which requests are in doubt now? Before the verdict. */
void cst_write_attempt_ended(struct cst_object_op *op, int rc);
/* What an error answer (its code is in op->error) means. error 0: it is none to this operation. */
struct cst_retry_verdict cst_write_verdict(struct cst_object_op *op, int status);
enum cst_write_result { CST_WRITE_DONE, CST_WRITE_ERROR, CST_WRITE_MALFORMED, CST_WRITE_GOES_ON };
/* Looks into a 2xx answer. ERROR: op->error and *verdict tell; MALFORMED: op->stop_why. */
enum cst_write_result cst_write_check(struct cst_object_op *op, struct cst_retry_verdict *verdict);
/* Is the verdict the end of it? ERROR: see the verdict. */
enum cst_write_result cst_write_refused(struct cst_object_op *op, struct cst_retry_verdict verdict);
/* explain.c: op->err for people. http_err may be NULL. */
/* Keeps in op->before why this attempt failed: the deadline may end the next one before it has anything to tell. */
void cst_op_remember(struct cst_object_op *op, const struct cst_error *http_err);
void cst_op_explain(struct cst_object_op *op, int error, int rc, const struct cst_error *http_err);
void cst_op_explain_key(const struct cst_object_op *op, int error, struct cst_slice key, struct cst_error *err);
/* signer.c */
struct cst_signer *cst_signer_new(void);
void cst_signer_free(struct cst_signer *s);
/* Signs; returns the generation of the credential used. */
uint64_t cst_signer_sign(struct cst_signer *s, struct cst_credentials *credentials, const struct cst_sign_request *req,
			 struct cst_buf *out);
/* bucket.c */
int64_t cst_bucket_wall(const struct cst_bucket *b); /* s, by the store's clock as far as known */
void cst_bucket_tune(struct cst_bucket *b, const struct cst_object_tuning *tuning);
void cst_op_count(const struct cst_object_op *op, int status, int64_t ns); /* metrics of one request */
