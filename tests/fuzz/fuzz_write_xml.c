/* Documents that answer writes: results, listings of parts and uploads, keys that were not deleted. The first byte chooses which.
 * Covers: src/object/write_xml.c */
#include "object/xml.h"

#include <errno.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned last, given;

static void on_part(void *arg, const struct cst_object_part *part)
{
	(void)arg;
	CST_ASSERT(part->number > last && part->etag[0] && strnlen(part->etag, CST_ETAG_MAX) < CST_ETAG_MAX);
	CST_ASSERT(strnlen(part->crc32c, sizeof(part->crc32c)) < sizeof(part->crc32c));
	last = part->number;
	given++;
}

static void on_upload(void *arg, struct cst_slice key, struct cst_slice id, int64_t initiated)
{
	(void)arg, (void)initiated;
	CST_ASSERT(key.len && id.len);
	given++;
}

static bool on_failed(void *arg, struct cst_slice key, const struct cst_store_error *why)
{
	(void)arg;
	return key.len != 1 && strnlen(why->code, sizeof(why->code)) < sizeof(why->code);
}

static int read_as(unsigned kind, struct cst_slice text, struct cst_store_error *error)
{
	struct cst_result_xml result = {0};
	CST_AUTO_BUF key = CST_BUF_INIT, id = CST_BUF_INIT;
	unsigned next = 0, after = last = kind >> 4;
	int rc;
	given = 0;
	switch (kind & 3) {
	case 0:
		rc = cst_result_xml_read(text, "CopyObjectResult", &result, error);
		CST_ASSERT(strnlen(result.etag, CST_ETAG_MAX) < CST_ETAG_MAX);
		cst_buf_fini(&result.upload_id);
		return rc;
	case 1:
		rc = cst_parts_xml_read(text, after, on_part, NULL, &next, error);
		CST_ASSERT(rc != 0 || next == 0 || next > after);
		break;
	case 2:
		rc = cst_uploads_xml_read(text, CST_SLICE("k"), CST_SLICE("i"), on_upload, NULL, &key, &id, error);
		break;
	default:
		return cst_deleted_xml_read(text, on_failed, NULL, error);
	}
	CST_ASSERT(rc == 0 || given == 0); /* whole or not at all */
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cst_store_error error = {0};
	if (size == 0)
		return 0;
	int rc = read_as(data[0], (struct cst_slice){(const char *)data + 1, size - 1}, &error);
	CST_ASSERT(rc == 0 || rc == -EBADMSG || rc == -EREMOTEIO);
	return 0;
}
