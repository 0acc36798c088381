/* A bucket whose store is a scripted server, and operations that wait. Pauses are a few ms. */
#pragma once

#include "object/backend.h"
#include "scripted_server.h"

struct fixture {
	struct scripted_server *server;
	struct cst_http_client *http;
	struct cst_credentials *credentials;
	struct cst_bucket *bucket;
	char endpoint[64];
	int64_t wall; /* ns, what the bucket's clock says; 0: the real one */
};

struct outcome {
	bool done;
	int rc;
	size_t got;
	char text[CST_ERROR_TEXT_MAX];
	struct cst_error err;
	struct cst_object_info info;
	struct cst_buf entries;
	struct cst_buf meta;
	unsigned restarts;
	bool truncated;
	pthread_mutex_t lock;
	pthread_cond_t changed;
};

/* config: what the test wants to set beside endpoint, bucket name ("bkt"), http and credentials; NULL: OSS, anonymous. */
void fixture_start(struct fixture *f, scripted_fn fn, const void *arg, const struct cst_bucket_config *config);
void fixture_stop(struct fixture *f);
void outcome_init(struct outcome *o);
void outcome_fini(struct outcome *o);
void outcome_wait(struct outcome *o);
/* Callbacks for outcomes. */
void outcome_get(void *arg, int rc, size_t got, const struct cst_object_info *info, const struct cst_error *err);
void outcome_head(void *arg, int rc, const struct cst_object_info *info, const struct cst_error *err);
void outcome_symlink(void *arg, int rc, struct cst_slice target, const struct cst_error *err);
extern const struct cst_object_list_ops outcome_list;
/* Reads [offset, offset+length) of "dir/k y" into buffer (in two pieces) and waits. */
int fixture_read(struct fixture *f, uint64_t offset, size_t length, const char *if_match, char *buffer,
		 struct outcome *o);
int fixture_list(struct fixture *f, const struct cst_object_list *list, struct outcome *o);
int fixture_head(struct fixture *f, bool light, struct outcome *o);
