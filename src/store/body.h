/* Receiving request bodies: takes aws-chunked apart, checks everything that the request says of its body (length,
 * Content-MD5, x-amz-content-sha256, chunk and trailer signatures, x-amz-checksum-*), and sums up what a record wants
 * to know. On the request's worker. */
#pragma once

#include "store/answer.h"
#include "store/checksum.h"

struct cst_body_sums {
	uint64_t size;
	uint8_t md5[16];
	uint64_t crc64;
	char checksum[CST_RECORD_CHECKSUM]; /* "crc32c:BASE64", checked; or "" */
};
/* Writes the body to fd. False: the request has been answered, and fd holds no more than garbage. */
CST_MUST_USE bool cst_body_receive(struct cst_store_request *r, int fd, uint64_t max, struct cst_body_sums *sums);
/* The whole body in memory, for XML. False: answered. */
CST_MUST_USE bool cst_body_receive_text(struct cst_store_request *r, struct cst_buf *out, size_t max);
/* What the body's length will be, as far as the request tells; -1: unknown. */
int64_t cst_body_length(const struct cst_store_request *r);
