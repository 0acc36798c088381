/* Private to the fake bucket: its objects and operations. Those that write are in fake_write.c. */
#pragma once

#include "fake_bucket.h"

#include <errno.h>
#include <pthread.h>

#include <sys/queue.h>

struct item {
	char *key, *text, *target;
	size_t key_len;
	uint64_t size;
	int64_t mtime;
	char etag[CST_ETAG_MAX];
	struct cst_http_header meta[8];
	char *meta_text;
	size_t meta_count;
};

enum op_kind { OP_HEAD, OP_LIST, OP_GET, OP_SYMLINK, OP_READ, OP_PUT, OP_COPY, OP_DELETE, OP_DELETE_MANY, OP_PART };

struct cst_object_op {
	TAILQ_ENTRY(cst_object_op) link;
	struct cst_bucket *bucket;
	enum op_kind kind;
	int refs;
	bool cancelled;
	struct cst_buf key, token, after, body;
	struct cst_buf source; /* of a copy; keys to delete, each ended by a NUL */
	enum cst_object_condition condition;
	char upload[16];
	bool complete;
	unsigned part;
	bool delimited;
	struct iovec into;
	char if_match[CST_ETAG_MAX];
	union {
		cst_object_head_fn head;
		cst_object_get_fn get;
		cst_object_symlink_fn symlink;
		struct cst_object_list_ops list;
		cst_object_written_fn written;
		struct cst_object_delete_ops delete_many;
	} fn;
	void *arg;
	struct cst_fetch_read *read;
	struct cst_fetch_object *object; /* counted */
};

struct cst_bucket {
	pthread_mutex_t lock;
	pthread_cond_t work, held;
	pthread_t thread;
	struct item **items;
	size_t count, cap;
	TAILQ_HEAD(, cst_object_op) ops;
	unsigned queued;
	char hold_head[64]; /* key */
	char hold_write[64];
	unsigned etags;
	struct fake_failure failures[8];
	uint64_t copy_max;
	bool hold, stop, retry_pages, expire_tokens, empty_pages;
	bool no_start_after; /* of the store's knowledge: such a request begins at the first key */
	int fail;
	char fail_api[64];
	unsigned page_size;
	struct fake_counts counts;
};

/* With the lock. */
const struct item *fake_find(const struct cst_bucket *b, struct cst_slice key);
void fake_put_item(struct cst_bucket *b, struct item *item);
struct item *fake_item_new(struct cst_slice key, uint64_t size, const char *etag, int64_t mtime, const char *meta);
void fake_remove_item(struct cst_bucket *b, struct cst_slice key);
struct cst_object_op *fake_op_new(struct cst_bucket *b, enum op_kind kind, struct cst_slice key, void *arg);
void fake_op_queue(struct cst_object_op *op);
void fake_run_write(struct cst_object_op *op, int fail, const char *api);
