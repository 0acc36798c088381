#include "store/ops.h"

#include "base/clock.h"
#include "base/text.h"
#include "store/body.h"
#include "store/xml_in.h"

#include <errno.h>

#define XML_MAX (256u << 10)
#define DAY 86400
#define TAGS_MAX 10

/* Changes the record of r->key: fn edits a copy. False: answered. */
static bool edit_record(struct cst_store_request *r,
			bool (*fn)(struct cst_store_request *r, struct cst_record *record, void *arg), void *arg)
{
	pthread_rwlock_t *stripe = cst_backend_stripe(r->b, r->key);
	CST_AUTO_BLOB blob = CST_BLOB_INIT;
	CST_AUTO_RECORD record = CST_RECORD_INIT;
	CST_AUTO_BUF copy = CST_BUF_INIT;
	bool go = false;
	int rc;

	pthread_rwlock_wrlock(stripe);
	rc = cst_blob_open_locked(r->b, r->bucket_fd, r->key, &blob);
	if (rc == 0) {
		cst_record_encode(&blob.record, &copy);
		cst_record_decode(cst_buf_slice(&copy), &record);
		go = fn(r, &record, arg);
	}
	if (go)
		rc = cst_blob_rewrite_locked(r->b, &blob, &record, false);
	pthread_rwlock_unlock(stripe);
	if (rc)
		cst_answer_errno(r, rc);
	return go && rc == 0;
}

/* ---- RestoreObject ---- */

static bool restore_leaf(void *arg, const char *parent, const char *name, struct cst_slice text)
{
	uint64_t *days = arg;

	(void)parent;
	if (strcmp(name, "Days") == 0 &&
	    (cst_request_number(cst_slice_trim(text), days) != 0 || *days < 1 || *days > 3650))
		return false;
	return true;
}

struct restore {
	uint64_t days;
	bool again; /* it was restored already */
};

static bool edit_restore(struct cst_store_request *r, struct cst_record *record, void *arg)
{
	struct restore *restore = arg;
	int64_t now = cst_wall() / CST_NS_PER_S;
	bool cold = record->class == CST_CLASS_ARCHIVE || record->class == CST_CLASS_COLD_ARCHIVE ||
		    record->class == CST_CLASS_DEEP_COLD_ARCHIVE;

	if (!cold) {
		if (r->dialect == CST_STORE_S3)
			cst_answer_errorf(r, CST_STORE_ERR_INVALID_OBJECT_STATE,
					  "Restore is not allowed for the object's storage class.");
		else
			cst_answer_errorf(r, CST_STORE_ERR_OPERATION_NOT_SUPPORTED,
					  "The operation is not supported for this resource.");
		return false;
	}
	restore->again = record->restored_until >= now;
	/* Until midnight after that many days, as the services count. */
	record->restored_until = (now / DAY + (int64_t)restore->days + 1) * DAY;
	return true;
}

void cst_op_restore_object(struct cst_store_request *r)
{
	static const struct cst_xml_handler handler = {restore_leaf, NULL};
	struct restore restore = {.days = 1};
	CST_AUTO_BUF body = CST_BUF_INIT;

	if (!cst_body_receive_text(r, &body, XML_MAX))
		return;
	if (body.len && cst_xml_read(cst_buf_slice(&body), "RestoreRequest", &handler, &restore.days) != 0) {
		cst_answer_error(r, CST_STORE_ERR_MALFORMED_XML);
		return;
	}
	if (edit_record(r, edit_restore, &restore))
		cst_answer_empty(r, restore.again ? 200 : 202);
}

/* ---- tags: kept as "k=v&k=v", URL-encoded, as the header has them ---- */

void cst_op_get_tagging(struct cst_store_request *r)
{
	CST_AUTO_BLOB blob = CST_BLOB_INIT;
	CST_AUTO_BUF xml = CST_BUF_INIT;
	struct cst_slice tags;
	int rc = cst_blob_open(r->b, r->bucket_fd, r->key, &blob);

	if (rc) {
		cst_answer_errno(r, rc);
		return;
	}
	tags = cst_record_header(&blob.record, "tagging");
	cst_xml_root(r, &xml, "Tagging");
	cst_buf_add_str(&xml, "<TagSet>");
	while (tags.len) {
		struct cst_slice value = cst_slice_cut(&tags, '&');
		struct cst_slice name = cst_slice_cut(&value, '=');
		CST_AUTO_BUF text = CST_BUF_INIT;

		cst_buf_add_str(&xml, "<Tag>");
		cst_text_url_decode(&text, name, true);
		cst_xml_text(&xml, "Key", cst_buf_slice(&text));
		cst_buf_clear(&text);
		cst_text_url_decode(&text, value, true);
		cst_xml_text(&xml, "Value", cst_buf_slice(&text));
		cst_buf_add_str(&xml, "</Tag>");
	}
	cst_buf_add_str(&xml, "</TagSet></Tagging>");
	cst_answer_xml(r, &xml);
}

struct tags {
	struct cst_buf text, key, value;
	unsigned count;
};

static bool tag_leaf(void *arg, const char *parent, const char *name, struct cst_slice text)
{
	struct tags *tags = arg;

	if (strcmp(parent, "Tag") != 0)
		return true;
	if (strcmp(name, "Key") == 0) {
		cst_buf_clear(&tags->key);
		cst_buf_add_slice(&tags->key, text);
	} else if (strcmp(name, "Value") == 0) {
		cst_buf_clear(&tags->value);
		cst_buf_add_slice(&tags->value, text);
	}
	return true;
}

static bool tag_end(void *arg, const char *name)
{
	struct tags *tags = arg;

	if (strcmp(name, "Tag") != 0)
		return true;
	if (tags->key.len == 0 || tags->key.len > 128 || tags->value.len > 256 || ++tags->count > TAGS_MAX)
		return false;
	if (tags->text.len)
		cst_buf_add_char(&tags->text, '&');
	cst_text_url_encode(&tags->text, cst_buf_slice(&tags->key), false);
	cst_buf_add_char(&tags->text, '=');
	cst_text_url_encode(&tags->text, cst_buf_slice(&tags->value), false);
	cst_buf_clear(&tags->key);
	cst_buf_clear(&tags->value);
	return true;
}

static bool edit_tags(struct cst_store_request *r, struct cst_record *record, void *arg)
{
	struct cst_buf *tags = arg;
	CST_AUTO_BUF headers = CST_BUF_INIT;
	struct cst_slice name;
	struct cst_slice value;
	size_t pos = 0;

	(void)r;
	while (cst_record_each_header(record, &pos, &name, &value)) {
		if (!cst_slice_is(name, "tagging"))
			cst_buf_printf(&headers, "%.*s:%.*s\n", (int)name.len, name.data, (int)value.len, value.data);
	}
	if (tags && tags->len)
		cst_buf_printf(&headers, "tagging:%s\n", tags->data);
	cst_buf_clear(&record->headers);
	cst_buf_add_slice(&record->headers, cst_buf_slice(&headers));
	return true;
}

void cst_op_put_tagging(struct cst_store_request *r)
{
	static const struct cst_xml_handler handler = {tag_leaf, tag_end};
	struct tags tags = {0};
	CST_AUTO_BUF body = CST_BUF_INIT;

	if (!cst_body_receive_text(r, &body, XML_MAX))
		return;
	if (cst_xml_read(cst_buf_slice(&body), "Tagging", &handler, &tags) != 0)
		cst_answer_error(r, CST_STORE_ERR_MALFORMED_XML);
	else if (edit_record(r, edit_tags, &tags.text))
		cst_answer_empty(r, 200);
	cst_buf_fini(&tags.text);
	cst_buf_fini(&tags.key);
	cst_buf_fini(&tags.value);
}

void cst_op_delete_tagging(struct cst_store_request *r)
{
	if (edit_record(r, edit_tags, NULL))
		cst_answer_empty(r, 204);
}

/* ---- ACLs: everything belongs to whom the keys let in ---- */

static bool exists(struct cst_store_request *r)
{
	CST_AUTO_BLOB blob = CST_BLOB_INIT;
	int rc = r->key.len ? cst_blob_open(r->b, r->bucket_fd, r->key, &blob) : 0;

	if (rc)
		cst_answer_errno(r, rc);
	return rc == 0;
}

void cst_op_get_acl(struct cst_store_request *r)
{
	CST_AUTO_BUF xml = CST_BUF_INIT;

	if (!exists(r))
		return;
	cst_xml_root(r, &xml, "AccessControlPolicy");
	cst_xml_owner(r, &xml, "Owner");
	if (r->dialect == CST_STORE_OSS) {
		cst_buf_printf(&xml, "<AccessControlList><Grant>%s</Grant></AccessControlList>",
			       r->key.len ? "default" : "private");
	} else {
		cst_buf_add_str(
			&xml,
			"<AccessControlList><Grant><Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" "
			"xsi:type=\"CanonicalUser\">");
		cst_xml_text(&xml, "ID", r->checked ? cst_slice_of(r->credential.access_key) : CST_SLICE("cistern"));
		cst_buf_add_str(&xml, "</Grantee><Permission>FULL_CONTROL</Permission></Grant></AccessControlList>");
	}
	cst_buf_add_str(&xml, "</AccessControlPolicy>");
	cst_answer_xml(r, &xml);
}

void cst_op_put_acl(struct cst_store_request *r)
{
	struct cst_slice acl = cst_request_own(r, r->key.len && r->dialect == CST_STORE_OSS ? "object-acl" : "acl");
	CST_AUTO_BUF body = CST_BUF_INIT;

	if (!exists(r) || !cst_body_receive_text(r, &body, XML_MAX))
		return;
	if (cst_slice_is(acl, "private") || cst_slice_is(acl, "default") ||
	    cst_slice_is(acl, "bucket-owner-full-control"))
		cst_answer_empty(r, 200);
	else
		cst_answer_errorf(
			r, CST_STORE_ERR_NOT_IMPLEMENTED,
			"Access control lists other than private are not implemented: the store's access keys decide.");
}
