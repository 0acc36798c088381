/* Digests over OpenSSL and ISA-L. Any thread; a context belongs to one thread at a time. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define CST_MD5_LEN 16
#define CST_SHA1_LEN 20
#define CST_SHA256_LEN 32

void cst_md5(const void *data, size_t len, uint8_t out[CST_MD5_LEN]);
void cst_sha256(const void *data, size_t len, uint8_t out[CST_SHA256_LEN]);
void cst_hmac_sha1(const void *key, size_t key_len, const void *data, size_t len, uint8_t out[CST_SHA1_LEN]);
void cst_hmac_sha256(const void *key, size_t key_len, const void *data, size_t len, uint8_t out[CST_SHA256_LEN]);

enum cst_digest_kind { CST_DIGEST_MD5, CST_DIGEST_SHA1, CST_DIGEST_SHA256 };
struct cst_digest;
struct cst_digest *cst_digest_new(enum cst_digest_kind kind);
void cst_digest_update(struct cst_digest *d, const void *data, size_t len);
size_t cst_digest_final(struct cst_digest *d,
			uint8_t out[CST_SHA256_LEN]); /* returns the length; d may then only be freed */
void cst_digest_free(struct cst_digest *d);

/* CRC-64/XZ (reflected ECMA-182), the x-oss-hash-crc64ecma of OSS. Start with 0 and feed the value on. */
uint64_t cst_crc64(uint64_t crc, const void *data, size_t len);
/* The CRC of A‖B from crc(A), crc(B) and B's length. */
uint64_t cst_crc64_combine(uint64_t crc_a, uint64_t crc_b, uint64_t len_b);
/* CRC32C (Castagnoli) and CRC32 (IEEE), for checksum headers; start with 0 and feed the value on. */
uint32_t cst_crc32c(uint32_t crc, const void *data, size_t len);
uint32_t cst_crc32(uint32_t crc, const void *data, size_t len);
