/* The access keys of a store: a file with lines
 *
 *	ACCESS-KEY:SECRET[:BUCKET[:TOKEN]]
 *
 * BUCKET restricts the key to one bucket (empty: all of them), with TOKEN the key is a temporary one, whose requests must
 * carry that security token. Blank lines and lines that begin with '#' are passed over. The file is read again when
 * it has changed; one that can't be read or is malformed then leaves the old keys in force. Any thread. */
#pragma once

#include "base/error.h"
#include "object/sign.h"

#define CST_KEYS_BUCKET 64

struct cst_keys;
int cst_keys_new(const char *path, struct cst_keys **keys, struct cst_error *err);
void cst_keys_free(struct cst_keys *k);
/* False: no such key. bucket: the one it is for, or "". */
bool cst_keys_find(struct cst_keys *k, struct cst_slice access_key, struct cst_credential *credential,
		   char bucket[CST_KEYS_BUCKET]);
