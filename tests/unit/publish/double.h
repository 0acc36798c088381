/* The object layer of the tests of publish: a store in memory, OSS or S3 by its manners. Requests wait in a list until the test answers them, or are
 * answered by threads of its own; a hook says which go wrong and how. */
#pragma once

#include "publish/publish.h"
#include "publish/keep.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#define KIB (1u << 10)
#define MIB_ (1u << 20)

enum op_kind {
	OP_PUT,
	OP_BEGIN,
	OP_PART,
	OP_COPY,
	OP_COMPLETE,
	OP_ABORT,
	OP_APPEND,
	OP_DELETE,
	OP_HEAD,
	OP_GET,
	OP_KINDS
};
enum fault {
	FAULT_NONE,
	FAULT_LOST,	    /* done, the answer lost, and tried again: what the second attempt is told */
	FAULT_DONE_TIMEOUT, /* done, no answer at all */
	FAULT_TIMEOUT,	    /* not done, no answer */
	FAULT_DENIED,	    /* 403 */
	FAULT_QUOTA,
	FAULT_CORRUPT,	 /* done with other bytes: EBADMSG */
	FAULT_NO_UPLOAD, /* NoSuchUpload */
};

struct cst_object_op {
	enum op_kind kind;
	char key[64], upload[40], etag[CST_ETAG_MAX], id[40], mode[16];
	unsigned number;
	uint64_t offset, length, crc64;
	bool has_crc64;
	struct iovec *iov;
	int iov_count;
	enum cst_object_condition condition;
	struct cst_object_part *parts;
	size_t part_count;
	void *fn, *arg;
	int refs;
	bool cancelled, taken;
	TAILQ_ENTRY(cst_object_op) link;
};

struct model_object {
	bool exists;
	char key[64];
	char *data;
	uint64_t size, crc64;
	char etag[CST_ETAG_MAX], id[40], mode[16];
	enum cst_object_type type;
	unsigned version;
};
struct model_part {
	char *data;
	uint64_t size;
};
struct model_upload {
	bool exists;
	char name[40], key[64], id[40], mode[16];
	struct model_part *parts; /* by number */
	struct model_upload *next;
};

struct store {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool s3;
	struct cst_object_limits limits;
	struct model_object objects[16];
	struct model_upload *uploads;
	unsigned version, upload_serial;
	TAILQ_HEAD(, cst_object_op) ops;
	unsigned waiting, counts[OP_KINDS];
	uint64_t bytes[OP_KINDS];
	unsigned open_uploads; /* begun, and neither completed nor aborted */
	bool at_once;	       /* answered while they are started */
	bool no_crc;	       /* tells none */
	bool no_conditions;    /* knows none */
	enum fault (*fault)(const struct cst_object_op *op);
	pthread_t threads[4];
	unsigned thread_count;
	bool stopping;
	/* What readers of the bucket could see: called under the lock when an object changes. */
	void (*on_change)(const struct model_object *o);
};
extern struct store store;

void store_reset(bool s3);
void store_fini(void);
void store_threads(unsigned count); /* answer by themselves, in any order */
void store_stop_threads(void);
struct model_object *object_of(const char *key); /* NULL: there is none */
/* Another client's doing. */
void other_put(const char *key, const char *bytes, uint64_t size);
void other_delete(const char *key);

struct cst_object_op *first_op(void);	  /* that waits; NULL */
struct cst_object_op *nth_op(unsigned n); /* or the last; NULL: none waits */
struct cst_object_op *find_op(enum op_kind kind);
void answer_op(struct cst_object_op *op, enum fault fault);
void answer(enum op_kind expected); /* the first, which must be of that kind, well */
void answer_all(void);
unsigned ops_of(enum op_kind kind); /* so many came */

/* ---- writers ---- */
struct done {
	int calls, rc, code;
	bool version_exists;
	struct cst_object_info version;
	char text[CST_ERROR_TEXT_MAX];
};
struct writer {
	struct cst_publish_write write;
	struct done done;
};
struct syncer {
	struct cst_publish_sync sync;
	struct done done;
};
struct cst_publish *make(struct cst_publish_config config);
struct cst_publish_stream *open_new(struct cst_publish *p, const char *key);
struct cst_publish_stream *open_on(struct cst_publish *p, const char *key, bool keep, enum cst_publish_mode mode);
void start_write(struct writer *w, struct cst_publish_stream *s, uint64_t offset, const char *data, size_t len);
void start_sync(struct syncer *y, struct cst_publish_stream *s);
/* Writes pattern bytes [offset, offset + len) and expects rc; answers meanwhile. */
void write_now(struct cst_publish_stream *s, uint64_t offset, size_t len, int rc);
void wait_done(struct done *d); /* answers meanwhile */
int sync_now(struct cst_publish_stream *s, struct syncer *y);
unsigned char pattern(uint64_t at);
void expect_object(const char *key, uint64_t size); /* the pattern */
extern char keep_dir[];
void keep_dir_make(void);
void keep_dir_remove(void);
