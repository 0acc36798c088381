/* The data files of a volume: formats, and reading and writing with checksums. Pure functions over descriptors; no locks, any
 * thread; they block (callers run them on I/O threads). Integers on disk are little endian.
 *
 * An extent is two files. .data is sparse and exactly the object's size. .map is a header of CST_MAP_HEADER bytes and 8 bytes for each block of
 * CST_CACHE_BLOCK; both lengths never change. A block is written before its map record, so after kill -9 whatever has a record is right, and
 * after a power cut a record whose data was lost fails its check.
 *
 * Map header:                                            Slot header:
 *    0  8  "CSTRNMAP"                                       0  8  "CSTRSLOT"
 *    8  4  format, 1                                        8  4  format, 1
 *   12  4  CRC32C of the 4096 bytes, this field 0          12  4  CRC32C of header and texts, this field 0
 *   16  8  hash of the name                                16  8  hash of the name
 *   24  8  hash of the version                             24  8  hash of the version
 *   32  8  size of the object                              32  8  size of the object
 *   40  4  bytes of a block                                40  4  CRC32C of the bytes
 *   44  2  length of the bucket                            44  2  length of the bucket
 *   46  2  length of the key                               46  2  length of the key
 *   48  2  length of the ETag                              48  2  length of the ETag
 *   50 14  zero                                            50 14  zero
 *   64     bucket, key, ETag; zeros up to 4096             64     bucket, key, ETag, the object's bytes
 *
 * Map record of a block, at CST_MAP_HEADER + 8 · its number (8 zero bytes: not there):
 *    0  4  CRC32C of the block's bytes
 *    4  4  CRC32C of: those 4 bytes, block number (8), hash of the name (8), hash of the version (8)
 *
 * Slots are reused, so a reader takes a slot only if header, texts and bytes check for the identity it wants. Files that were truncated, lengthened,
 * zeroed or changed give -EBADMSG; nothing is mapped into memory. */
#pragma once

#include "base/error.h"
#include "base/text.h"

#include <stdint.h>
#include <sys/uio.h>

#define CST_CACHE_BLOCK (128u << 10)
#define CST_MAP_HEADER 4096u
#define CST_SLOT_MAX (256u << 10) /* bytes of the largest object that goes into a slab */
/* Bytes of bucket, key and ETag together; longer ones are not cached (-ENAMETOOLONG). */
#define CST_CACHE_TEXT_MAX 4032u

/* An object version. The hashes are XXH3-64 of "BUCKET/KEY" and of "ETAG/SIZE". */
struct cst_cache_identity {
	uint64_t name, version;
	struct cst_slice bucket, key; /* bucket: "oss://NAME" */
	struct cst_slice etag;
	uint64_t size;
};
void cst_cache_identify(struct cst_cache_identity *id, struct cst_slice bucket, struct cst_slice key,
			struct cst_slice etag, uint64_t size);
bool cst_cache_identity_fits(const struct cst_cache_identity *id); /* CST_CACHE_TEXT_MAX */

/* Where the bytes of an entry are. */
enum cst_entry_kind { CST_ENTRY_EXTENT = 1, CST_ENTRY_SLOT };
struct cst_slot_place {
	uint32_t slab;	 /* number of its file */
	uint32_t offset; /* bytes from its start */
	uint32_t length; /* of the slot */
};

#define CST_FILE_NAME_MAX 64
/* "objects/HH/NAME-VERSION" and the suffix (".data", ".map"); HH is the first byte of NAME. */
void cst_extent_name(uint64_t name, uint64_t version, const char *suffix, char out[CST_FILE_NAME_MAX]);

struct cst_extent {
	int data, map; /* -1: closed */
	uint64_t name, version, size;
};
/* Creates both files (0600) with the map's header, and the folder they are in; -EEXIST when one of them is there. */
int cst_extent_create(int dir, const struct cst_cache_identity *id, struct cst_extent *e);
/* -ENOENT; -EBADMSG: header or lengths wrong, or another identity (id NULL: name and version of *e are looked up, any texts are right; id
 * with an empty bucket, as one that has only the hashes: the texts are not compared). `write`: O_RDWR. */
int cst_extent_open(int dir, const struct cst_cache_identity *id, bool write, struct cst_extent *e);
void cst_extent_close(struct cst_extent *e);
static inline uint64_t cst_extent_blocks(uint64_t size)
{
	return size / CST_CACHE_BLOCK + (size % CST_CACHE_BLOCK != 0);
}
/* Both files; -ENOENT when neither was there. */
int cst_extent_unlink(int dir, uint64_t name, uint64_t version);
/* The identity in a map's header; its texts lie in `text`, which is cleared first. */
int cst_extent_identity(const struct cst_extent *e, struct cst_cache_identity *id, struct cst_buf *text);
/* One bit a block that is there, from the map's records [first, first + count); the bitmap's bit 0 is block `first`. */
int cst_extent_present(const struct cst_extent *e, uint64_t first, uint64_t count, uint8_t *bitmap);
/* Bytes of the blocks that are there; the size: all of them. */
int cst_extent_count(const struct cst_extent *e, uint64_t *bytes);
/* Whole blocks from block `first` on; the vectors hold exactly their bytes (the object's last block is short). read: -EBADMSG and *bad when a
 * block is absent or fails its check. */
int cst_extent_read(const struct cst_extent *e, uint64_t first, const struct iovec *iov, int iov_count, bool nowait,
		    uint64_t *bad); /* nowait: -EAGAIN rather than waiting for the disk */
int cst_extent_write(const struct cst_extent *e, uint64_t first, const struct iovec *iov, int iov_count);
int cst_extent_forget(const struct cst_extent *e, uint64_t block); /* clears the record of a bad block */
int cst_extent_sync(const struct cst_extent *e);		   /* fdatasync of data, then of map */

uint32_t cst_slot_length(const struct cst_cache_identity *id); /* bytes a slot must have, header and names included */
int cst_slot_write(int slab, const struct cst_slot_place *at, const struct cst_cache_identity *id,
		   const struct iovec *iov, int iov_count);
/* Exactly the object's bytes into iov. -EBADMSG: another object's, or damaged. */
int cst_slot_read(int slab, const struct cst_slot_place *at, const struct cst_cache_identity *id,
		  const struct iovec *iov, int iov_count, bool nowait);
/* The identity in a slot's header (for listing). */
int cst_slot_identity(int slab, const struct cst_slot_place *at, struct cst_cache_identity *id, struct cst_buf *text);
/* Descriptor (O_RDWR) or -errno. create: makes it, sparse, of `length` bytes; else length 0: any, or -EBADMSG when it has another. */
int cst_slab_open(int dir, uint32_t slab, bool create, uint64_t length);
int cst_slab_unlink(int dir, uint32_t slab);
