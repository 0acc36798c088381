/* The checksums of S3's x-amz-checksum-* headers and trailers. A context belongs to one thread. */
#pragma once

#include "base/buf.h"

enum cst_checksum_kind {
	CST_CHECKSUM_NONE,
	CST_CHECKSUM_CRC32,
	CST_CHECKSUM_CRC32C,
	CST_CHECKSUM_CRC64NVME,
	CST_CHECKSUM_SHA1,
	CST_CHECKSUM_SHA256,
};
/* "crc32c", "CRC32C"; NONE when unknown. */
enum cst_checksum_kind cst_checksum_parse(struct cst_slice name);
const char *cst_checksum_name(enum cst_checksum_kind kind); /* "crc32c" */

struct cst_checksum {
	enum cst_checksum_kind kind;
	uint64_t crc;
	struct cst_digest *digest;
};
void cst_checksum_init(struct cst_checksum *c, enum cst_checksum_kind kind);
void cst_checksum_fini(struct cst_checksum *c);
void cst_checksum_update(struct cst_checksum *c, const void *data, size_t len);
void cst_checksum_base64(struct cst_checksum *c, struct cst_buf *out); /* as the headers have it; ends the context */

/* CRC-64/NVME: start with 0 and feed the value on. */
uint64_t cst_crc64nvme(uint64_t crc, const void *data, size_t len);
