/* Writing operations that wait, and buckets of the embedded store in both dialects. */
#pragma once

#include "bucket_fixture.h"
#include "store/store.h"

struct written {
	bool done, repeated;
	int rc;
	struct cst_object_info info;
	struct cst_object_part part;
	struct cst_buf upload_id, list; /* list: what a listing gave, or the keys that failed, "NAME=RC;" */
	unsigned next;
	struct cst_buf next_key, next_id;
	uint64_t next_position;
	struct cst_error err;
	char text[CST_ERROR_TEXT_MAX];
	pthread_mutex_t lock;
	pthread_cond_t changed;
};
void written_init(struct written *w);
void written_fini(struct written *w);
void written_wait(struct written *w);
void on_written(void *arg, const struct cst_object_written *written);
extern const struct cst_object_parts_ops on_parts;
extern const struct cst_object_uploads_ops on_uploads;
extern const struct cst_object_delete_ops on_delete;
/* Waits for the operation, releases it; the outcome's rc. */
int finish(struct cst_object_op *op, struct written *w);

struct real_store {
	struct cst_store *store;
	struct cst_http_client *http;
	struct cst_credentials *credentials;
	struct cst_bucket *bucket;
	char dir[64], endpoint[96];
};
/* fault: of --fail, or NULL; tls: with a certificate made for it. A bucket "bkt" is there. */
void real_store_start(struct real_store *s, enum cst_cloud cloud, enum cst_sign_kind sign, const char *fault, bool tls);
void real_store_stop(struct real_store *s);
/* The whole object; its length, or -errno. *info: of a HEAD. */
int real_store_read(struct real_store *s, struct cst_slice key, char *buffer, size_t size,
		    struct cst_object_info *info);

#define STEPS 6U

/* An answer: a status with a code, or with headers and a body; status 0: none, the connection closes. */
struct step {
	int status;
	const char *code, *headers, *body;
	int cut; /* bytes that the answer ends too early; the connection closes */
	bool reset;
};

struct script {
	struct step steps[STEPS];
};
/* The last step goes on for ever. */
enum scripted_end play(const void *script, unsigned n, const char *request, struct cst_buf *out);
void scripted_fixture_start(struct fixture *f, const struct script *script, enum cst_cloud cloud);
struct cst_credentials *test_keys(enum cst_cloud cloud);
bool has(const char *request, const char *line);

#define XML_ERROR(code) "<?xml version=\"1.0\"?>\n<Error><Code>" code "</Code><Message>m</Message></Error>"
#define OK                                                  \
	{                                                   \
		.status = 200, .headers = "ETag: \"e\"\r\n" \
	}
#define LOST                \
	{                   \
		.status = 0 \
	}
#define RESET                              \
	{                                  \
		.status = 0, .reset = true \
	}
#define NO(status_, code_)                           \
	{                                            \
		.status = (status_), .code = (code_) \
	}
#define RESULT(root) "<?xml version=\"1.0\"?>\n<" root "><ETag>\"e\"</ETag></" root ">"
#define DOC(root)                                   \
	{                                           \
		.status = 200, .body = RESULT(root) \
	}
#define COMPLETED DOC("CompleteMultipartUploadResult")
#define COPIED DOC("CopyObjectResult")
#define SAYS(body_)                            \
	{                                      \
		.status = 200, .body = (body_) \
	}
