#include "store/checksum.h"

#include "base/digest.h"
#include "base/text.h"

#include <pthread.h>

#define CRC64NVME_POLY UINT64_C(0x9a6c9329ac4bc9b5) /* reflected */

static uint64_t table[8][256];

static void make_table(void)
{
	for (unsigned i = 0; i < 256; i++) {
		uint64_t crc = i;

		for (int bit = 0; bit < 8; bit++)
			crc = crc & 1 ? crc >> 1 ^ CRC64NVME_POLY : crc >> 1;
		table[0][i] = crc;
	}
	for (unsigned i = 0; i < 256; i++) {
		for (int k = 1; k < 8; k++)
			table[k][i] = table[0][table[k - 1][i] & 0xff] ^ table[k - 1][i] >> 8;
	}
}

/* Eight bytes at a time (Kounavis and Berry's slicing). */
uint64_t cst_crc64nvme(uint64_t crc, const void *data, size_t len)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	const uint8_t *p = data;

	pthread_once(&once, make_table);
	crc = ~crc;
	for (; len >= 8; len -= 8, p += 8) {
		uint64_t word;

		memcpy(&word, p, 8);
		word ^= crc; /* little endian, as all machines that this is built for are */
		crc = 0;
		for (int k = 0; k < 8; k++)
			crc ^= table[7 - k][word >> (8 * k) & 0xff];
	}
	for (; len; len--)
		crc = table[0][(crc ^ *p++) & 0xff] ^ crc >> 8;
	return ~crc;
}

static const char *const names[] = {
	[CST_CHECKSUM_NONE] = "",	  [CST_CHECKSUM_CRC32] = "crc32",
	[CST_CHECKSUM_CRC32C] = "crc32c", [CST_CHECKSUM_CRC64NVME] = "crc64nvme",
	[CST_CHECKSUM_SHA1] = "sha1",	  [CST_CHECKSUM_SHA256] = "sha256",
};

enum cst_checksum_kind cst_checksum_parse(struct cst_slice name)
{
	for (size_t i = 1; i < CST_ARRAY_LEN(names); i++) {
		if (cst_slice_ieq(name, cst_slice_of(names[i])))
			return (enum cst_checksum_kind)i;
	}
	return CST_CHECKSUM_NONE;
}

const char *cst_checksum_name(enum cst_checksum_kind kind)
{
	return names[kind];
}

void cst_checksum_init(struct cst_checksum *c, enum cst_checksum_kind kind)
{
	*c = (struct cst_checksum){.kind = kind};
	if (kind == CST_CHECKSUM_SHA1)
		c->digest = cst_digest_new(CST_DIGEST_SHA1);
	if (kind == CST_CHECKSUM_SHA256)
		c->digest = cst_digest_new(CST_DIGEST_SHA256);
}

void cst_checksum_fini(struct cst_checksum *c)
{
	cst_digest_free(c->digest);
	c->digest = NULL;
}

void cst_checksum_update(struct cst_checksum *c, const void *data, size_t len)
{
	switch (c->kind) {
	case CST_CHECKSUM_NONE:
		break;
	case CST_CHECKSUM_CRC32:
		c->crc = cst_crc32((uint32_t)c->crc, data, len);
		break;
	case CST_CHECKSUM_CRC32C:
		c->crc = cst_crc32c((uint32_t)c->crc, data, len);
		break;
	case CST_CHECKSUM_CRC64NVME:
		c->crc = cst_crc64nvme(c->crc, data, len);
		break;
	case CST_CHECKSUM_SHA1:
	case CST_CHECKSUM_SHA256:
		cst_digest_update(c->digest, data, len);
		break;
	}
}

void cst_checksum_base64(struct cst_checksum *c, struct cst_buf *out)
{
	uint8_t bytes[CST_SHA256_LEN];
	size_t len = c->kind == CST_CHECKSUM_CRC64NVME ? 8 : 4;

	if (c->digest) {
		len = cst_digest_final(c->digest, bytes);
	} else {
		for (size_t i = 0; i < len; i++)
			bytes[i] = (uint8_t)(c->crc >> (8 * (len - 1 - i)));
	}
	cst_text_base64(out, bytes, len);
}
