#include "cache/files.h"

#include "base/buf.h"
#include "base/digest.h"

#include <errno.h>
#include <endian.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <xxhash.h>

#define FORMAT 1u
#define FIXED 64u /* bytes of a header before its texts; alike in maps and slots but for the field at 40 */
#define RECORD 8u
#define RECORDS 512u /* map records read at a time */
#define IOVS 16

static const char map_magic[8] = "CSTRNMAP", slot_magic[8] = "CSTRSLOT";

enum {
	AT_MAGIC = 0,
	AT_FORMAT = 8,
	AT_CRC = 12,
	AT_NAME = 16,
	AT_VERSION = 24,
	AT_SIZE = 32,
	AT_SPECIAL = 40,
	AT_LENGTHS = 44
};

static void put16(uint8_t *at, uint16_t value)
{
	value = htole16(value);
	memcpy(at, &value, 2);
}

static void put32(uint8_t *at, uint32_t value)
{
	value = htole32(value);
	memcpy(at, &value, 4);
}

static void put64(uint8_t *at, uint64_t value)
{
	value = htole64(value);
	memcpy(at, &value, 8);
}

static uint16_t get16(const uint8_t *at)
{
	uint16_t value;
	memcpy(&value, at, 2);
	return le16toh(value);
}

static uint32_t get32(const uint8_t *at)
{
	uint32_t value;
	memcpy(&value, at, 4);
	return le32toh(value);
}

static uint64_t get64(const uint8_t *at)
{
	uint64_t value;
	memcpy(&value, at, 8);
	return le64toh(value);
}

/* ---- vectors ---- */

/* A place in the caller's vectors. */
struct cursor {
	const struct iovec *iov;
	int count;
	size_t skip; /* bytes of iov[0] that are behind it */
};

static size_t iov_length(const struct iovec *iov, int count)
{
	size_t sum = 0;
	for (int i = 0; i < count; i++)
		sum += iov[i].iov_len;
	return sum;
}

static void cursor_advance(struct cursor *c, size_t n)
{
	while (n && c->count) {
		size_t step = cst_min(n, c->iov->iov_len - c->skip);
		c->skip += step;
		n -= step;
		if (c->skip == c->iov->iov_len) {
			c->iov++;
			c->count--;
			c->skip = 0;
		}
	}
}

/* The next `want` bytes, or as many as IOVS vectors hold. */
static int cursor_vectors(const struct cursor *c, size_t want, struct iovec out[IOVS])
{
	size_t skip = c->skip;
	int n = 0;
	for (int i = 0; i < c->count && n < IOVS && want; i++) {
		size_t len = cst_min(want, c->iov[i].iov_len - skip);
		if (len)
			out[n++] = (struct iovec){(char *)c->iov[i].iov_base + skip, len};
		want -= len;
		skip = 0;
	}
	return n;
}

static uint32_t cursor_crc(struct cursor c, size_t len)
{
	uint32_t crc = 0;
	while (len) {
		struct iovec v[IOVS];
		int n = cursor_vectors(&c, len, v);
		for (int i = 0; i < n; i++) {
			crc = cst_crc32c(crc, v[i].iov_base, v[i].iov_len);
			len -= v[i].iov_len;
			cursor_advance(&c, v[i].iov_len);
		}
	}
	return crc;
}

/* tmpfs is memory, but not every kernel lets RWF_NOWAIT read it. */
static bool is_memory(int fd)
{
	struct statfs st;
	return fstatfs(fd, &st) == 0 && st.f_type == TMPFS_MAGIC;
}

/* Exactly len bytes; a file that ends before them is damaged. */
static int read_all(int fd, struct cursor *c, size_t len, uint64_t offset, bool nowait)
{
	while (len) {
		struct iovec v[IOVS];
		int n = cursor_vectors(c, len, v);
		ssize_t got = preadv2(fd, v, n, (off_t)offset, nowait ? RWF_NOWAIT : 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && nowait && errno == EOPNOTSUPP) {
			if (!is_memory(fd))
				return -EAGAIN;
			nowait = false;
			continue;
		}
		if (got < 0)
			return -errno;
		if (got == 0)
			return -EBADMSG;
		cursor_advance(c, (size_t)got);
		offset += (uint64_t)got;
		len -= (size_t)got;
	}
	return 0;
}

static int read_at(int fd, void *to, size_t len, uint64_t offset, bool nowait)
{
	struct iovec v = {to, len};
	struct cursor c = {&v, 1, 0};
	return read_all(fd, &c, len, offset, nowait);
}

/* A short write is followed by another for the rest, which tells why it was short. */
static int write_all(int fd, struct cursor *c, size_t len, uint64_t offset)
{
	while (len) {
		struct iovec v[IOVS];
		int n = cursor_vectors(c, len, v);
		ssize_t put = pwritev(fd, v, n, (off_t)offset);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		if (put == 0)
			return -EIO;
		cursor_advance(c, (size_t)put);
		offset += (uint64_t)put;
		len -= (size_t)put;
	}
	return 0;
}

static int write_at(int fd, const void *from, size_t len, uint64_t offset)
{
	struct iovec v = {(void *)from, len};
	struct cursor c = {&v, 1, 0};
	return write_all(fd, &c, len, offset);
}

/* ---- identities ---- */

static uint64_t hash_two(struct cst_slice a, struct cst_slice b)
{
	char room[2048];
	CST_AUTO_FREE char *large = NULL;
	size_t len = a.len + 1 + b.len;
	if (len > sizeof(room))
		large = cst_xmalloc(len);
	char *text = large ? large : room;
	if (a.len)
		memcpy(text, a.data, a.len);
	text[a.len] = '/';
	if (b.len)
		memcpy(text + a.len + 1, b.data, b.len);
	return XXH3_64bits(text, len);
}

void cst_cache_identify(struct cst_cache_identity *id, struct cst_slice bucket, struct cst_slice key,
			struct cst_slice etag, uint64_t size)
{
	char number[24];
	int len = snprintf(number, sizeof(number), "%" PRIu64, size);
	*id = (struct cst_cache_identity){
		.name = hash_two(bucket, key),
		.version = hash_two(etag, (struct cst_slice){number, (size_t)len}),
		.bucket = bucket,
		.key = key,
		.etag = etag,
		.size = size,
	};
}

static size_t text_length(const struct cst_cache_identity *id)
{
	return id->bucket.len + id->key.len + id->etag.len;
}

bool cst_cache_identity_fits(const struct cst_cache_identity *id)
{
	return id->bucket.len <= CST_CACHE_TEXT_MAX && id->key.len <= CST_CACHE_TEXT_MAX &&
	       id->etag.len <= CST_CACHE_TEXT_MAX && text_length(id) <= CST_CACHE_TEXT_MAX;
}

/* Header and texts into out[total], zeros after them; the CRC goes in last. */
static void header_encode(uint8_t *out, size_t total, const char magic[8], const struct cst_cache_identity *id,
			  uint32_t special)
{
	const struct cst_slice texts[3] = {id->bucket, id->key, id->etag};
	uint8_t *at = out + FIXED;
	memset(out, 0, total);
	memcpy(out + AT_MAGIC, magic, 8);
	put32(out + AT_FORMAT, FORMAT);
	put64(out + AT_NAME, id->name);
	put64(out + AT_VERSION, id->version);
	put64(out + AT_SIZE, id->size);
	put32(out + AT_SPECIAL, special);
	for (int i = 0; i < 3; i++) {
		put16(out + AT_LENGTHS + 2 * i, (uint16_t)texts[i].len);
		if (texts[i].len)
			memcpy(at, texts[i].data, texts[i].len);
		at += texts[i].len;
	}
	put32(out + AT_CRC, cst_crc32c(0, out, total));
}

/* Bytes of the texts after a header's fixed part; -EBADMSG when that can't be a header. */
static int header_texts(const uint8_t fixed[FIXED], const char magic[8], size_t *len)
{
	*len = (size_t)get16(fixed + AT_LENGTHS) + get16(fixed + AT_LENGTHS + 2) + get16(fixed + AT_LENGTHS + 4);
	return memcmp(fixed + AT_MAGIC, magic, 8) == 0 && get32(fixed + AT_FORMAT) == FORMAT &&
			       *len <= CST_CACHE_TEXT_MAX
		       ? 0
		       : -EBADMSG;
}

/* Checks a whole header; the slices of id point into it. */
static int header_decode(uint8_t *header, size_t total, const char magic[8], struct cst_cache_identity *id,
			 uint32_t *special)
{
	size_t len;
	uint32_t crc = get32(header + AT_CRC);
	if (header_texts(header, magic, &len) < 0 || FIXED + len > total)
		return -EBADMSG;
	put32(header + AT_CRC, 0);
	bool good = cst_crc32c(0, header, total) == crc;
	put32(header + AT_CRC, crc);
	if (!good)
		return -EBADMSG;

	struct cst_slice texts[3];
	const char *at = (const char *)header + FIXED;
	for (int i = 0; i < 3; i++) {
		texts[i] = (struct cst_slice){at, get16(header + AT_LENGTHS + 2 * i)};
		at += texts[i].len;
	}
	cst_cache_identify(id, texts[0], texts[1], texts[2], get64(header + AT_SIZE));
	if (id->name != get64(header + AT_NAME) || id->version != get64(header + AT_VERSION))
		return -EBADMSG;
	*special = get32(header + AT_SPECIAL);
	return 0;
}

static bool identity_matches(const struct cst_cache_identity *found, const struct cst_cache_identity *wanted)
{
	if (found->name != wanted->name || found->version != wanted->version || found->size != wanted->size)
		return false;
	return wanted->bucket.len == 0 ||
	       (cst_slice_eq(found->bucket, wanted->bucket) && cst_slice_eq(found->key, wanted->key) &&
		cst_slice_eq(found->etag, wanted->etag));
}

/* Moves the texts of id out of a header that is about to go. */
static void identity_keep(struct cst_cache_identity *id, struct cst_buf *text)
{
	struct cst_slice *parts[3] = {&id->bucket, &id->key, &id->etag};
	cst_buf_clear(text);
	cst_buf_room(text, text_length(id));
	for (int i = 0; i < 3; i++) {
		size_t at = text->len;
		cst_buf_add_slice(text, *parts[i]);
		parts[i]->data = text->data + at;
	}
}

/* ---- extents ---- */

void cst_extent_name(uint64_t name, uint64_t version, const char *suffix, char out[CST_FILE_NAME_MAX])
{
	snprintf(out, CST_FILE_NAME_MAX, "objects/%02x/%016" PRIx64 "-%016" PRIx64 "%s", (unsigned)(name >> 56), name,
		 version, suffix);
}

static uint64_t map_length(uint64_t size)
{
	return CST_MAP_HEADER + RECORD * cst_extent_blocks(size);
}

static bool size_allowed(uint64_t size)
{
	return size > 0 && size <= INT64_MAX / 2;
}

static int make_folder(int dir, uint64_t name)
{
	char folder[24];
	if (mkdirat(dir, "objects", 0700) < 0 && errno != EEXIST)
		return -errno;
	snprintf(folder, sizeof(folder), "objects/%02x", (unsigned)(name >> 56));
	return mkdirat(dir, folder, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

/* A new file of `length` bytes, all hole. */
static int create_file(int dir, const struct cst_extent *e, const char *suffix, uint64_t length, int *made)
{
	char path[CST_FILE_NAME_MAX];
	const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
	cst_extent_name(e->name, e->version, suffix, path);
	int fd = openat(dir, path, flags, 0600);
	if (fd < 0 && errno == ENOENT) {
		int rc = make_folder(dir, e->name);
		if (rc < 0)
			return rc;
		fd = openat(dir, path, flags, 0600);
	}
	if (fd < 0)
		return -errno;
	*made = fd;
	return ftruncate(fd, (off_t)length) < 0 ? -errno : 0;
}

int cst_extent_create(int dir, const struct cst_cache_identity *id, struct cst_extent *e)
{
	uint8_t header[CST_MAP_HEADER];
	char path[CST_FILE_NAME_MAX];
	*e = (struct cst_extent){-1, -1, id->name, id->version, id->size};
	if (!cst_cache_identity_fits(id))
		return -ENAMETOOLONG;
	if (!size_allowed(id->size))
		return -EFBIG;
	header_encode(header, sizeof(header), map_magic, id, CST_CACHE_BLOCK);

	int rc = create_file(dir, e, ".map", map_length(id->size), &e->map);
	if (rc == 0)
		rc = write_at(e->map, header, sizeof(header), 0);
	if (rc == 0)
		rc = create_file(dir, e, ".data", id->size, &e->data);
	if (rc == 0)
		return 0;
	/* Only what this call has made goes away again. */
	if (e->map >= 0) {
		cst_extent_name(e->name, e->version, ".map", path);
		unlinkat(dir, path, 0);
	}
	if (e->data >= 0) {
		cst_extent_name(e->name, e->version, ".data", path);
		unlinkat(dir, path, 0);
	}
	cst_extent_close(e);
	return rc;
}

static int open_file(int dir, const struct cst_extent *e, const char *suffix, bool write, uint64_t *length)
{
	char path[CST_FILE_NAME_MAX];
	struct stat st;
	cst_extent_name(e->name, e->version, suffix, path);
	int fd = openat(dir, path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return errno == ELOOP || errno == EISDIR || errno == ENXIO ? -EBADMSG : -errno;
	int rc = fstat(fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -EBADMSG;
	if (rc < 0) {
		close(fd);
		return rc;
	}
	*length = (uint64_t)st.st_size;
	return fd;
}

static int read_map_header(int map, uint8_t header[CST_MAP_HEADER], struct cst_cache_identity *id)
{
	uint32_t block;
	int rc = read_at(map, header, CST_MAP_HEADER, 0, false);
	if (rc == 0)
		rc = header_decode(header, CST_MAP_HEADER, map_magic, id, &block);
	if (rc == 0 && (block != CST_CACHE_BLOCK || !size_allowed(id->size)))
		rc = -EBADMSG;
	return rc;
}

/* Of files that were removed and made again between the two opens one has no name any more. */
static int both_have_names(const struct cst_extent *e)
{
	struct stat map, data;
	if (fstat(e->map, &map) < 0 || fstat(e->data, &data) < 0)
		return -errno;
	return map.st_nlink && data.st_nlink ? 0 : -ENOENT;
}

int cst_extent_open(int dir, const struct cst_cache_identity *id, bool write, struct cst_extent *e)
{
	uint8_t header[CST_MAP_HEADER];
	struct cst_cache_identity found;
	uint64_t map_size = 0, data_size = 0;
	e->data = e->map = -1;
	if (id) {
		e->name = id->name;
		e->version = id->version;
	}
	int fd = open_file(dir, e, ".map", write, &map_size);
	if (fd < 0)
		return fd;
	e->map = fd;
	int rc = read_map_header(e->map, header, &found);
	if (rc == 0 && (found.name != e->name || found.version != e->version || map_size != map_length(found.size)))
		rc = -EBADMSG;
	if (rc == 0 && id && !identity_matches(&found, id))
		rc = -EBADMSG;
	if (rc == 0) {
		fd = open_file(dir, e, ".data", write, &data_size);
		rc = fd < 0 ? fd : 0;
	}
	if (rc == 0) {
		e->data = fd;
		e->size = found.size;
		rc = data_size == found.size ? both_have_names(e) : -EBADMSG;
	}
	if (rc < 0)
		cst_extent_close(e);
	return rc;
}

void cst_extent_close(struct cst_extent *e)
{
	cst_close_fd(&e->data);
	cst_close_fd(&e->map);
	e->data = e->map = -1;
}

int cst_extent_unlink(int dir, uint64_t name, uint64_t version)
{
	static const char *const suffixes[] = {".map", ".data"};
	int gone = 0, failed = 0;
	for (size_t i = 0; i < CST_ARRAY_LEN(suffixes); i++) {
		char path[CST_FILE_NAME_MAX];
		cst_extent_name(name, version, suffixes[i], path);
		if (unlinkat(dir, path, 0) == 0)
			continue;
		if (errno == ENOENT)
			gone++;
		else
			failed = -errno;
	}
	return failed ? failed : gone == (int)CST_ARRAY_LEN(suffixes) ? -ENOENT : 0;
}

int cst_extent_identity(const struct cst_extent *e, struct cst_cache_identity *id, struct cst_buf *text)
{
	uint8_t header[CST_MAP_HEADER];
	int rc = read_map_header(e->map, header, id);
	if (rc == 0)
		identity_keep(id, text);
	return rc;
}

static uint32_t record_check(const struct cst_extent *e, uint64_t block, const uint8_t record[RECORD])
{
	uint8_t covered[28];
	memcpy(covered, record, 4);
	put64(covered + 4, block);
	put64(covered + 12, e->name);
	put64(covered + 20, e->version);
	return cst_crc32c(0, covered, sizeof(covered));
}

/* Whether a record says that the block is there; a damaged one doesn't. */
static bool record_valid(const struct cst_extent *e, uint64_t block, const uint8_t record[RECORD])
{
	static const uint8_t none[RECORD];
	return memcmp(record, none, RECORD) != 0 && get32(record + 4) == record_check(e, block, record);
}

int cst_extent_present(const struct cst_extent *e, uint64_t first, uint64_t count, uint8_t *bitmap)
{
	uint8_t records[RECORDS * RECORD];
	uint64_t blocks = cst_extent_blocks(e->size);
	if (first > blocks || count > blocks - first)
		return -EINVAL;
	memset(bitmap, 0, (size_t)(count / 8 + (count % 8 != 0)));
	for (uint64_t done = 0; done < count;) {
		uint64_t n = cst_min(count - done, (uint64_t)RECORDS);
		int rc = read_at(e->map, records, (size_t)n * RECORD, CST_MAP_HEADER + RECORD * (first + done), false);
		if (rc < 0)
			return rc;
		for (uint64_t i = 0; i < n; i++)
			if (record_valid(e, first + done + i, records + i * RECORD))
				bitmap[(done + i) / 8] |= (uint8_t)(1u << ((done + i) % 8));
		done += n;
	}
	return 0;
}

static size_t block_length(const struct cst_extent *e, uint64_t block)
{
	return (size_t)cst_min((uint64_t)CST_CACHE_BLOCK, e->size - block * CST_CACHE_BLOCK);
}

int cst_extent_count(const struct cst_extent *e, uint64_t *bytes)
{
	uint8_t bitmap[RECORDS / 8];
	uint64_t blocks = cst_extent_blocks(e->size);
	*bytes = 0;
	for (uint64_t first = 0; first < blocks; first += RECORDS) {
		uint64_t count = cst_min(blocks - first, (uint64_t)RECORDS);
		int rc = cst_extent_present(e, first, count, bitmap);
		if (rc < 0)
			return rc;
		for (uint64_t i = 0; i < count; i++)
			if (bitmap[i / 8] >> (i % 8) & 1)
				*bytes += block_length(e, first + i);
	}
	return 0;
}

/* How many whole blocks from `first` on `len` bytes are; 0: none, or no whole ones. */
static uint64_t whole_blocks(const struct cst_extent *e, uint64_t first, size_t len)
{
	if (len == 0 || first >= cst_extent_blocks(e->size))
		return 0;
	uint64_t rest = e->size - first * CST_CACHE_BLOCK;
	if (len > rest || (len < rest && len % CST_CACHE_BLOCK))
		return 0;
	return cst_extent_blocks(len);
}

/* Each block is checked just after it was read, while it is in the processor's cache. */
int cst_extent_read(const struct cst_extent *e, uint64_t first, const struct iovec *iov, int iov_count, bool nowait,
		    uint64_t *bad)
{
	uint8_t records[RECORDS * RECORD];
	struct cursor c = {iov, iov_count, 0};
	uint64_t count = whole_blocks(e, first, iov_length(iov, iov_count));
	if (count == 0)
		return -EINVAL;
	for (uint64_t done = 0; done < count; done++) {
		uint64_t block = first + done;
		uint8_t *record = records + done % RECORDS * RECORD;
		int rc = 0;
		*bad = block;
		if (done % RECORDS == 0) {
			uint64_t n = cst_min(count - done, (uint64_t)RECORDS);
			rc = read_at(e->map, records, (size_t)n * RECORD, CST_MAP_HEADER + RECORD * block, nowait);
		}
		if (rc == 0 && !record_valid(e, block, record))
			rc = -EBADMSG;
		if (rc < 0)
			return rc;
		size_t len = block_length(e, block);
		struct cursor here = c;
		rc = read_all(e->data, &c, len, block * CST_CACHE_BLOCK, nowait);
		if (rc == 0 && cursor_crc(here, len) != get32(record))
			rc = -EBADMSG;
		if (rc < 0)
			return rc;
	}
	return 0;
}

int cst_extent_write(const struct cst_extent *e, uint64_t first, const struct iovec *iov, int iov_count)
{
	uint8_t records[RECORDS * RECORD];
	struct cursor c = {iov, iov_count, 0};
	uint64_t count = whole_blocks(e, first, iov_length(iov, iov_count));
	if (count == 0)
		return -EINVAL;
	while (count) {
		uint64_t n = cst_min(count, (uint64_t)RECORDS);
		struct cursor at = c;
		size_t bytes = 0;
		for (uint64_t i = 0; i < n; i++) {
			uint8_t *record = records + i * RECORD;
			size_t len = block_length(e, first + i);
			put32(record, cursor_crc(at, len));
			put32(record + 4, record_check(e, first + i, record));
			cursor_advance(&at, len);
			bytes += len;
		}
		int rc = write_all(e->data, &c, bytes, first * CST_CACHE_BLOCK);
		if (rc == 0)
			rc = write_at(e->map, records, (size_t)n * RECORD, CST_MAP_HEADER + RECORD * first);
		if (rc < 0)
			return rc;
		first += n;
		count -= n;
	}
	return 0;
}

int cst_extent_forget(const struct cst_extent *e, uint64_t block)
{
	static const uint8_t none[RECORD];
	if (block >= cst_extent_blocks(e->size))
		return -EINVAL;
	return write_at(e->map, none, RECORD, CST_MAP_HEADER + RECORD * block);
}

int cst_extent_sync(const struct cst_extent *e)
{
	if (fdatasync(e->data) < 0)
		return -errno;
	return fdatasync(e->map) < 0 ? -errno : 0;
}

/* ---- slots ---- */

uint32_t cst_slot_length(const struct cst_cache_identity *id)
{
	return FIXED + (uint32_t)text_length(id) + (uint32_t)id->size;
}

static bool slot_holds(const struct cst_slot_place *at, const struct cst_cache_identity *id)
{
	return id->size <= CST_SLOT_MAX && cst_cache_identity_fits(id) && cst_slot_length(id) <= at->length;
}

int cst_slot_write(int slab, const struct cst_slot_place *at, const struct cst_cache_identity *id,
		   const struct iovec *iov, int iov_count)
{
	uint8_t header[FIXED + CST_CACHE_TEXT_MAX];
	struct cursor bytes = {iov, iov_count, 0};
	if (!slot_holds(at, id) || iov_length(iov, iov_count) != id->size)
		return -EINVAL;
	size_t len = FIXED + text_length(id);
	header_encode(header, len, slot_magic, id, cursor_crc(bytes, id->size));
	/* One call for nearly all: header and bytes of an object in a few pieces. */
	struct iovec v[IOVS] = {{header, len}};
	if (iov_count < IOVS) {
		memcpy(v + 1, iov, (size_t)iov_count * sizeof(*iov));
		struct cursor all = {v, iov_count + 1, 0};
		return write_all(slab, &all, len + id->size, at->offset);
	}
	int rc = write_at(slab, header, len, at->offset);
	return rc < 0 ? rc : write_all(slab, &bytes, id->size, (uint64_t)at->offset + len);
}

int cst_slot_read(int slab, const struct cst_slot_place *at, const struct cst_cache_identity *id,
		  const struct iovec *iov, int iov_count, bool nowait)
{
	uint8_t header[FIXED + CST_CACHE_TEXT_MAX];
	struct cst_cache_identity found;
	struct cursor bytes = {iov, iov_count, 0};
	uint32_t crc;
	int rc;
	if (iov_length(iov, iov_count) != id->size)
		return -EINVAL;
	if (!slot_holds(at, id))
		return -EBADMSG;
	size_t len = FIXED + text_length(id);
	struct iovec v[IOVS] = {{header, len}};
	if (iov_count < IOVS) {
		memcpy(v + 1, iov, (size_t)iov_count * sizeof(*iov));
		struct cursor all = {v, iov_count + 1, 0};
		rc = read_all(slab, &all, len + id->size, at->offset, nowait);
	} else {
		rc = read_at(slab, header, len, at->offset, nowait);
		if (rc == 0) {
			struct cursor rest = bytes;
			rc = read_all(slab, &rest, id->size, (uint64_t)at->offset + len, nowait);
		}
	}
	if (rc == 0)
		rc = header_decode(header, len, slot_magic, &found, &crc);
	if (rc == 0 && (!identity_matches(&found, id) || cursor_crc(bytes, id->size) != crc))
		rc = -EBADMSG;
	return rc;
}

int cst_slot_identity(int slab, const struct cst_slot_place *at, struct cst_cache_identity *id, struct cst_buf *text)
{
	uint8_t header[FIXED + CST_CACHE_TEXT_MAX];
	uint32_t crc;
	size_t len;
	if (at->length < FIXED)
		return -EBADMSG;
	int rc = read_at(slab, header, FIXED, at->offset, false);
	if (rc == 0)
		rc = header_texts(header, slot_magic, &len);
	if (rc == 0 && FIXED + len > at->length)
		rc = -EBADMSG;
	if (rc == 0)
		rc = read_at(slab, header + FIXED, len, (uint64_t)at->offset + FIXED, false);
	if (rc == 0)
		rc = header_decode(header, FIXED + len, slot_magic, id, &crc);
	if (rc == 0 && !slot_holds(at, id))
		rc = -EBADMSG;
	if (rc == 0)
		identity_keep(id, text);
	return rc;
}

static void slab_name(uint32_t slab, char out[CST_FILE_NAME_MAX])
{
	snprintf(out, CST_FILE_NAME_MAX, "slabs/%08" PRIx32 ".slab", slab);
}

int cst_slab_open(int dir, uint32_t slab, bool create, uint64_t length)
{
	char path[CST_FILE_NAME_MAX];
	struct stat st;
	const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0);
	slab_name(slab, path);
	int fd = openat(dir, path, flags, 0600);
	if (fd < 0 && create && errno == ENOENT) {
		if (mkdirat(dir, "slabs", 0700) < 0 && errno != EEXIST)
			return -errno;
		fd = openat(dir, path, flags, 0600);
	}
	if (fd < 0)
		return -errno;
	int rc = 0;
	if (create)
		rc = ftruncate(fd, (off_t)length) < 0 ? -errno : 0;
	else if (length)
		rc = fstat(fd, &st) < 0 ? -errno : (uint64_t)st.st_size == length ? 0 : -EBADMSG;
	if (rc < 0) {
		close(fd);
		return rc;
	}
	return fd;
}

int cst_slab_unlink(int dir, uint32_t slab)
{
	char path[CST_FILE_NAME_MAX];
	slab_name(slab, path);
	return unlinkat(dir, path, 0) < 0 ? -errno : 0;
}
