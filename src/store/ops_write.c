#include "store/ops.h"

#include "base/clock.h"
#include "base/digest.h"
#include "base/text.h"
#include "store/body.h"
#include "store/xml_in.h"

#include <errno.h>
#include <inttypes.h>

#define DELETE_MAX 1000
#define XML_MAX (4u << 20)

void cst_op_put_object(struct cst_store_request *r)
{
	CST_AUTO_RECORD record = CST_RECORD_INIT;
	CST_OPS_AUTO_STAGED staged = {r->b, CST_STAGED_INIT};
	struct cst_body_sums sums = {0};
	CST_AUTO_BUF md5 = CST_BUF_INIT;

	if (!cst_ops_check_key(r) || !cst_ops_may_write(r) || !cst_ops_collect(r, &record) ||
	    !cst_ops_stage(r, &staged.s) || !cst_body_receive(r, staged.s.fd, CST_OBJECT_MAX, &sums))
		return;
	cst_ops_set_sums(&record, &sums);
	if (!cst_ops_store(r, &staged.s, &record))
		return;
	cst_ops_etag_header(r, &record);
	cst_ops_checksum_header(r, &record);
	if (r->dialect == CST_STORE_OSS) {
		cst_text_base64(&md5, sums.md5, sizeof(sums.md5));
		cst_http_response_header(r->x, "Content-MD5", md5.data);
	}
	cst_answer_empty(r, 200);
}

/* ---- AppendObject ---- */

static void position_error(struct cst_store_request *r, enum cst_store_error e, const struct cst_blob *old)
{
	if (old->fd >= 0) {
		cst_http_response_headerf(r->x, "x-oss-next-append-position", "%llu",
					  (unsigned long long)old->record.size);
		if (old->record.has_crc64)
			cst_http_response_headerf(r->x, "x-oss-hash-crc64ecma", "%llu",
						  (unsigned long long)old->record.crc64);
		cst_http_response_header(r->x, "x-oss-object-type", cst_answer_type(old->record.type));
	}
	cst_answer_error(r, e);
}

/* An ETag that changes with the content and is no MD5. */
static void append_etag(struct cst_record *record, uint64_t size)
{
	uint64_t facts[2] = {record->crc64, size};
	uint8_t md5[CST_MD5_LEN];

	cst_md5(facts, sizeof(facts), md5);
	cst_ops_md5_etag(md5, record->etag);
	strcat(record->etag, "-1");
}

/* Wants the stripe. 0, a -errno, or 1 with *error. *old: what there was. */
static int append_locked(struct cst_store_request *r, struct cst_staged *s, struct cst_record *record,
			 uint64_t position, const struct cst_body_sums *sums, struct cst_blob *old,
			 enum cst_store_error *error)
{
	int rc = cst_blob_open_locked(r->b, r->bucket_fd, r->key, old);

	if (rc && rc != -ENOENT)
		return rc;
	if (rc == 0 && old->record.type != CST_RECORD_APPENDABLE) {
		*error = CST_STORE_ERR_NOT_APPENDABLE;
		return 1;
	}
	if (position != (rc ? 0 : old->record.size)) {
		*error = CST_STORE_ERR_POSITION;
		return 1;
	}
	if (position + sums->size > CST_OBJECT_MAX) {
		*error = CST_STORE_ERR_ENTITY_TOO_LARGE;
		return 1;
	}
	record->type = CST_RECORD_APPENDABLE;
	record->has_crc64 = true;
	record->crc64 = rc ? sums->crc64 : cst_crc64_combine(old->record.crc64, sums->crc64, sums->size);
	append_etag(record, position + sums->size);
	if (rc) {
		rc = cst_staged_seal(r->b, s, record);
		return rc ? rc : cst_blob_commit_locked(r->b, r->bucket_fd, r->key, s);
	}
	/* Headers are those of the first append. */
	cst_buf_clear(&record->headers);
	cst_buf_add_slice(&record->headers, cst_buf_slice(&old->record.headers));
	record->class = old->record.class;
	return cst_blob_append_locked(r->b, r->bucket_fd, r->bucket, r->key, s, record);
}

void cst_op_append_object(struct cst_store_request *r)
{
	CST_AUTO_RECORD record = CST_RECORD_INIT;
	CST_OPS_AUTO_STAGED staged = {r->b, CST_STAGED_INIT};
	struct cst_body_sums sums = {0};
	pthread_rwlock_t *stripe = cst_backend_stripe(r->b, r->key);
	CST_AUTO_BLOB old = CST_BLOB_INIT;
	enum cst_store_error error = CST_STORE_ERR_COUNT;
	uint64_t position;
	int rc;

	if (cst_request_number(cst_request_param(r, "position"), &position) != 0) {
		cst_answer_errorf(r, CST_STORE_ERR_INVALID_ARGUMENT, "The position of an append must be a number.");
		return;
	}
	if (!cst_ops_check_key(r) || !cst_ops_collect(r, &record) || !cst_ops_stage(r, &staged.s) ||
	    !cst_body_receive(r, staged.s.fd, CST_OBJECT_MAX, &sums))
		return;
	pthread_rwlock_wrlock(stripe);
	rc = append_locked(r, &staged.s, &record, position, &sums, &old, &error);
	pthread_rwlock_unlock(stripe);
	if (rc < 0)
		cst_answer_errno(r, rc);
	else if (rc)
		position_error(r, error, &old);
	if (rc)
		return;
	cst_http_response_headerf(r->x, "x-oss-next-append-position", "%" PRIu64, position + sums.size);
	cst_ops_etag_header(r, &record);
	cst_answer_empty(r, 200);
}

/* ---- PutSymlink ---- */

void cst_op_put_symlink(struct cst_store_request *r)
{
	CST_AUTO_RECORD record = CST_RECORD_INIT;
	CST_OPS_AUTO_STAGED staged = {r->b, CST_STAGED_INIT};
	CST_AUTO_BUF path = CST_BUF_INIT;
	struct cst_slice target = cst_request_header(r, "x-oss-symlink-target");
	uint8_t md5[CST_MD5_LEN];

	if (!cst_ops_check_key(r) || !cst_ops_may_write(r) || !cst_ops_collect(r, &record))
		return;
	if (!target.len || cst_text_url_decode(&record.target, target, false) != 0 ||
	    cst_keypath_of(cst_buf_slice(&record.target), &path) != 0) {
		cst_answer_errorf(r, CST_STORE_ERR_INVALID_ARGUMENT,
				  "x-oss-symlink-target must be the URL-encoded key of an object.");
		return;
	}
	record.type = CST_RECORD_SYMLINK;
	cst_md5(record.target.data, record.target.len, md5);
	cst_ops_md5_etag(md5, record.etag);
	if (!cst_ops_stage(r, &staged.s) || !cst_ops_store(r, &staged.s, &record))
		return;
	cst_ops_etag_header(r, &record);
	cst_answer_empty(r, 200);
}

/* ---- DeleteObject, DeleteMultipleObjects ---- */

static int delete_key(struct cst_store_request *r, struct cst_slice key)
{
	pthread_rwlock_t *stripe = cst_backend_stripe(r->b, key);
	int rc;

	pthread_rwlock_wrlock(stripe);
	rc = cst_blob_delete_locked(r->b, r->bucket_fd, key);
	pthread_rwlock_unlock(stripe);
	/* Deleting what isn't there succeeds. */
	return rc == -ENOENT ? 0 : rc;
}

void cst_op_delete_object(struct cst_store_request *r)
{
	int rc = delete_key(r, r->key);

	if (rc)
		cst_answer_errno(r, rc);
	else
		cst_answer_empty(r, 204);
}

struct delete_list {
	bool quiet, has_key;
	struct cst_buf key;
	struct key {
		char *data;
		size_t len;
	} * keys;
	size_t count;
};

static bool delete_leaf(void *arg, const char *parent, const char *name, struct cst_slice text)
{
	struct delete_list *list = arg;

	if (strcmp(name, "Quiet") == 0)
		list->quiet = cst_slice_ieq(cst_slice_trim(text), CST_SLICE("true"));
	if (strcmp(parent, "Object") == 0 && strcmp(name, "Key") == 0) {
		cst_buf_clear(&list->key);
		cst_buf_add_slice(&list->key, text);
		list->has_key = true;
	}
	return true;
}

static bool delete_end(void *arg, const char *name)
{
	struct delete_list *list = arg;

	if (strcmp(name, "Object") != 0)
		return true;
	if (!list->has_key || list->count == DELETE_MAX)
		return false;
	if (!list->keys)
		list->keys = cst_xcalloc(DELETE_MAX, sizeof(*list->keys));
	list->keys[list->count].len = list->key.len;
	list->keys[list->count++].data = cst_buf_steal(&list->key);
	list->has_key = false;
	return true;
}

static void free_delete_list(struct delete_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->keys[i].data);
	free(list->keys);
	cst_buf_fini(&list->key);
}

static const char *delete_code(int rc)
{
	switch (rc) {
	case -EINVAL:
	case -ENAMETOOLONG:
		return "InvalidObjectName";
	case -EACCES:
	case -EPERM:
	case -EROFS:
		return "AccessDenied";
	default:
		return "InternalError";
	}
}

static void delete_one(struct cst_store_request *r, const struct delete_list *list, size_t i, struct cst_buf *xml)
{
	struct cst_slice key = {list->keys[i].data, list->keys[i].len};
	bool encode = cst_slice_is(cst_request_param(r, "encoding-type"), "url");
	int rc = delete_key(r, key);

	if (rc == 0 && list->quiet)
		return;
	cst_buf_add_str(xml, rc ? "<Error>" : "<Deleted>");
	cst_xml_key(xml, "Key", key, encode);
	if (rc) {
		cst_xml_text(xml, "Code", cst_slice_of(delete_code(rc)));
		cst_xml_text(xml, "Message", cst_slice_of(strerror(-rc)));
	}
	cst_buf_add_str(xml, rc ? "</Error>" : "</Deleted>");
}

void cst_op_delete_objects(struct cst_store_request *r)
{
	static const struct cst_xml_handler handler = {delete_leaf, delete_end};
	CST_CLEANUP(free_delete_list) struct delete_list list = {0};
	CST_AUTO_BUF body = CST_BUF_INIT;
	CST_AUTO_BUF xml = CST_BUF_INIT;

	if (!cst_body_receive_text(r, &body, XML_MAX))
		return;
	if (cst_xml_read(cst_buf_slice(&body), "Delete", &handler, &list) != 0 || list.count == 0) {
		cst_answer_error(r, CST_STORE_ERR_MALFORMED_XML);
		return;
	}
	cst_xml_root(r, &xml, "DeleteResult");
	if (cst_slice_is(cst_request_param(r, "encoding-type"), "url"))
		cst_xml_text(&xml, "EncodingType", CST_SLICE("url"));
	for (size_t i = 0; i < list.count; i++)
		delete_one(r, &list, i, &xml);
	cst_buf_add_str(&xml, "</DeleteResult>");
	cst_answer_xml(r, &xml);
}
