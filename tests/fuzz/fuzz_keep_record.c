/* Records of kept versions: whatever lies in that directory is refused or makes sense, and nothing of it leaks.
 * Covers: src/publish/keep.c(cst_keep_parse, fill, get_text, get_number, get_parts, get_short, get_meta, is_id) */
#include "publish/keep.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cst_keep_record record;
	struct cst_error err = CST_ERROR_INIT;
	uint64_t all = 0;
	int rc = cst_keep_parse((struct cst_slice){(const char *)data, size}, &record, &err);
	if (rc < 0) {
		CST_ASSERT(err.code && err.why[0] && !record.id && !record.parts && !record.meta);
		return 0;
	}
	CST_ASSERT(record.id[0] && !strchr(record.id, '/') && !strchr(record.id, '.'));
	CST_ASSERT(record.bucket && record.key && record.upload_id && record.tail_from <= record.size);
	for (size_t i = 0; i < record.part_count; i++) {
		CST_ASSERT(record.parts[i].number == i + 1 && strlen(record.parts[i].etag) < CST_ETAG_MAX);
		all += record.parts[i].size;
	}
	CST_ASSERT(all <= record.size);
	for (size_t i = 0; i < record.meta_count; i++)
		CST_ASSERT(record.meta[i].name.data[record.meta[i].name.len] == '\0');
	cst_keep_record_fini(&record);
	return 0;
}
