#include "base/digest.h"

#include "base/cleanup.h"

#include <isa-l/crc.h>
#include <isa-l/crc64.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#define DIGEST_MAGIC 0x44494745u

struct cst_digest {
	unsigned magic;
	EVP_MD_CTX *ctx;
};

static const EVP_MD *algorithm(enum cst_digest_kind kind)
{
	switch (kind) {
	case CST_DIGEST_MD5:
		return EVP_md5();
	case CST_DIGEST_SHA1:
		return EVP_sha1();
	case CST_DIGEST_SHA256:
		return EVP_sha256();
	}
	cst_panic(__FILE__, __LINE__, "no digest %d", (int)kind);
}

void cst_md5(const void *data, size_t len, uint8_t out[CST_MD5_LEN])
{
	CST_ASSERT(EVP_Digest(data, len, out, NULL, EVP_md5(), NULL) == 1);
}

void cst_sha256(const void *data, size_t len, uint8_t out[CST_SHA256_LEN])
{
	CST_ASSERT(EVP_Digest(data, len, out, NULL, EVP_sha256(), NULL) == 1);
}

void cst_hmac_sha1(const void *key, size_t key_len, const void *data, size_t len, uint8_t out[CST_SHA1_LEN])
{
	CST_ASSERT(HMAC(EVP_sha1(), key, (int)key_len, data, len, out, NULL) != NULL);
}

void cst_hmac_sha256(const void *key, size_t key_len, const void *data, size_t len, uint8_t out[CST_SHA256_LEN])
{
	CST_ASSERT(HMAC(EVP_sha256(), key, (int)key_len, data, len, out, NULL) != NULL);
}

struct cst_digest *cst_digest_new(enum cst_digest_kind kind)
{
	struct cst_digest *d = CST_NEW(struct cst_digest);
	d->magic = DIGEST_MAGIC;
	d->ctx = EVP_MD_CTX_new();
	CST_ASSERT(d->ctx && EVP_DigestInit_ex(d->ctx, algorithm(kind), NULL) == 1);
	return d;
}

void cst_digest_update(struct cst_digest *d, const void *data, size_t len)
{
	CST_CHECK(d, DIGEST_MAGIC);
	CST_ASSERT(EVP_DigestUpdate(d->ctx, data, len) == 1);
}

size_t cst_digest_final(struct cst_digest *d, uint8_t out[CST_SHA256_LEN])
{
	CST_CHECK(d, DIGEST_MAGIC);
	unsigned len = 0;
	CST_ASSERT(EVP_DigestFinal_ex(d->ctx, out, &len) == 1);
	return len;
}

void cst_digest_free(struct cst_digest *d)
{
	if (!d)
		return;
	CST_CHECK(d, DIGEST_MAGIC);
	d->magic = 0;
	EVP_MD_CTX_free(d->ctx);
	free(d);
}

uint64_t cst_crc64(uint64_t crc, const void *data, size_t len)
{
	return crc64_ecma_refl(crc, data, len);
}

/* Appending len_b zero bytes to A multiplies its CRC by x^(8·len_b) modulo the polynomial. Bits are reflected: x^0 is the highest. */
#define CRC64_POLY UINT64_C(0xC96C5795D7870F42)
#define CRC64_ONE (UINT64_C(1) << 63)

static uint64_t crc64_times(uint64_t a, uint64_t b)
{
	uint64_t product = 0;
	for (uint64_t bit = CRC64_ONE; bit; bit >>= 1) {
		if (a & bit)
			product ^= b;
		b = b & 1 ? (b >> 1) ^ CRC64_POLY : b >> 1;
	}
	return product;
}

uint64_t cst_crc64_combine(uint64_t crc_a, uint64_t crc_b, uint64_t len_b)
{
	uint64_t power = CRC64_ONE >> 8; /* x^8, squared for each bit of the length */
	for (; len_b; len_b >>= 1) {
		if (len_b & 1)
			crc_a = crc64_times(power, crc_a);
		if (len_b > 1)
			power = crc64_times(power, power);
	}
	return crc_a ^ crc_b;
}

/* crc32_iscsi() takes an int length; its argument is the raw register, without the inversions. */
uint32_t cst_crc32c(uint32_t crc, const void *data, size_t len)
{
	uint32_t reg = ~crc;
	const unsigned char *p = data;
	while (len) {
		int piece = (int)cst_min(len, (size_t)1 << 30);
		reg = crc32_iscsi((unsigned char *)p, piece, reg);
		p += piece;
		len -= (size_t)piece;
	}
	return ~reg;
}

uint32_t cst_crc32(uint32_t crc, const void *data, size_t len)
{
	return crc32_gzip_refl(crc, data, len);
}
