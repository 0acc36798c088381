#include "base/digest.h"
#include "cache/files.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <cmocka.h>

#define BUCKET CST_SLICE("oss://bucket")
#define KEY CST_SLICE("dir/ke\0y\xff")
#define ETAG CST_SLICE("\"abc\"")

struct fixture {
	char path[64];
	int dir;
};

static int setup(void **state)
{
	struct fixture *f = CST_NEW(struct fixture);
	snprintf(f->path, sizeof(f->path), "/tmp/cst-files-XXXXXX");
	assert_non_null(mkdtemp(f->path));
	f->dir = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_FREE char *command = cst_xasprintf("rm -rf %s", f->path);
	close(f->dir);
	int rc = system(command);
	free(f);
	return rc;
}

static struct cst_cache_identity identity(uint64_t size)
{
	struct cst_cache_identity id;
	cst_cache_identify(&id, BUCKET, KEY, ETAG, size);
	return id;
}

/* Content as a function of place, never all alike. */
static uint8_t byte_at(uint64_t at)
{
	return (uint8_t)(at * 31 + (at >> 9) + 7);
}

static uint8_t *content(uint64_t at, size_t len)
{
	uint8_t *bytes = cst_xmalloc(len);
	for (size_t i = 0; i < len; i++)
		bytes[i] = byte_at(at + i);
	return bytes;
}

static void assert_content(const uint8_t *bytes, uint64_t at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (bytes[i] != byte_at(at + i))
			fail_msg("byte %llu is wrong", (unsigned long long)(at + i));
}

/* An object of `size` bytes, all its blocks written. */
static void make_full(int dir, const struct cst_cache_identity *id, struct cst_extent *e)
{
	CST_AUTO_FREE uint8_t *bytes = content(0, (size_t)id->size);
	struct iovec iov = {bytes, (size_t)id->size};
	assert_int_equal(cst_extent_create(dir, id, e), 0);
	assert_int_equal(cst_extent_write(e, 0, &iov, 1), 0);
}

static int read_all(const struct cst_extent *e, uint64_t *bad)
{
	CST_AUTO_FREE uint8_t *bytes = cst_xmalloc((size_t)e->size);
	struct iovec iov = {bytes, (size_t)e->size};
	int rc = cst_extent_read(e, 0, &iov, 1, false, bad);
	if (rc == 0)
		assert_content(bytes, 0, (size_t)e->size);
	return rc;
}

static void change_byte(int fd, off_t at, uint8_t mask)
{
	uint8_t byte;
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= mask;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

static void names_are_those_of_the_document(void **state)
{
	char name[CST_FILE_NAME_MAX];
	(void)state;
	cst_extent_name(UINT64_C(0x0a1b2c3d4e5f6071), UINT64_C(0xff), ".data", name);
	assert_string_equal(name, "objects/0a/0a1b2c3d4e5f6071-00000000000000ff.data");
}

static void versions_and_names_differ(void **state)
{
	struct cst_cache_identity a, b;
	(void)state;
	cst_cache_identify(&a, BUCKET, KEY, ETAG, 10);
	cst_cache_identify(&b, BUCKET, KEY, ETAG, 11);
	assert_true(a.name == b.name && a.version != b.version);
	cst_cache_identify(&b, BUCKET, KEY, CST_SLICE("\"abd\""), 10);
	assert_true(a.name == b.name && a.version != b.version);
	cst_cache_identify(&b, BUCKET, CST_SLICE("dir/ke\0z\xff"), ETAG, 10);
	assert_true(a.name != b.name && a.version == b.version);
}

/* The bytes on disk, as the comment of files.h has them; the checksums were computed apart from this code. */
static void map_is_as_documented(void **state)
{
	struct fixture *f = *state;
	static const uint8_t fixed[64] = {'C',	'S',  'T',  'R',  'N',	'M',  'A',  'P',  1,	0,    0,    0,	  0xa8,
					  0x58, 0xb5, 0x59, 0x02, 0xf1, 0x2f, 0x21, 0x6a, 0x9e, 0x92, 0x77, 0xdb, 0xa1,
					  0x44, 0x3d, 0x13, 0xf9, 0x69, 0xf7, 0xe0, 0x93, 0x04, 0,    0,    0,	  0,
					  0,	0,    0,    2,	  0,	12,   0,    9,	  0,	5,    0};
	static const uint8_t record[8] = {0xdc, 0x25, 0xa5, 0x18, 0xfa, 0xce, 0xf6, 0x7f};
	uint8_t header[CST_MAP_HEADER], found[8];
	struct cst_cache_identity id = identity(300000);
	struct cst_extent e;
	struct stat st;
	make_full(f->dir, &id, &e);
	assert_int_equal(pread(e.map, header, sizeof(header), 0), sizeof(header));
	assert_memory_equal(header, fixed, sizeof(fixed));
	assert_memory_equal(header + 64, "oss://bucketdir/ke\0y\xff\"abc\"", 26);
	for (size_t i = 64 + 26; i < sizeof(header); i++)
		assert_int_equal(header[i], 0);
	assert_int_equal(pread(e.map, found, 8, CST_MAP_HEADER + 8), 8);
	assert_memory_equal(found, record, 8);
	assert_int_equal(fstat(e.map, &st), 0);
	assert_int_equal(st.st_size, CST_MAP_HEADER + 3 * 8);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(fstat(e.data, &st), 0);
	assert_int_equal(st.st_size, 300000);
	assert_int_equal(st.st_mode & 0777, 0600);
	cst_extent_close(&e);
}

static void slot_is_as_documented(void **state)
{
	struct fixture *f = *state;
	static const uint8_t fixed[64] = {'C',	'S',  'T',  'R',  'S',	'L',  'O',  'T',  1,	0,    0,    0,	  0xc4,
					  0xa6, 0xe2, 0x03, 0x02, 0xf1, 0x2f, 0x21, 0x6a, 0x9e, 0x92, 0x77, 0x03, 0x3d,
					  0x9d, 0xb6, 0xfc, 0xb2, 0xf1, 0x12, 100,  0,	  0,	0,    0,    0,	  0,
					  0,	0x1c, 0x44, 0x6c, 0xe2, 12,   0,    9,	  0,	5,    0};
	struct cst_cache_identity id = identity(100);
	CST_AUTO_FREE uint8_t *bytes = content(0, 100);
	struct iovec iov = {bytes, 100};
	uint8_t found[190];
	CST_AUTO_CLOSE int slab = cst_slab_open(f->dir, 7, true, 65536);
	const struct cst_slot_place at = {7, 4096, 1024};
	assert_true(slab >= 0);
	assert_int_equal(cst_slot_length(&id), 190);
	assert_int_equal(cst_slot_write(slab, &at, &id, &iov, 1), 0);
	assert_int_equal(pread(slab, found, sizeof(found), 4096), sizeof(found));
	assert_memory_equal(found, fixed, sizeof(fixed));
	assert_memory_equal(found + 64, "oss://bucketdir/ke\0y\xff\"abc\"", 26);
	assert_memory_equal(found + 90, bytes, 100);
}

static void blocks_come_back_from_any_vectors(void **state)
{
	struct fixture *f = *state;
	const uint64_t size = 5 * CST_CACHE_BLOCK + 1234;
	struct cst_cache_identity id = identity(size);
	struct cst_extent e, other;
	uint64_t bad = 0;
	assert_int_equal(cst_extent_create(f->dir, &id, &e), 0);

	/* Blocks 1 to 3 out of pieces that are no multiples of anything. */
	CST_AUTO_FREE uint8_t *bytes = content(CST_CACHE_BLOCK, 3 * CST_CACHE_BLOCK);
	struct iovec pieces[64];
	size_t at = 0;
	int n = 0;
	while (at < 3 * CST_CACHE_BLOCK) {
		size_t len = cst_min((size_t)n * 997 + 1, 3 * CST_CACHE_BLOCK - at);
		if (n == 63)
			len = 3 * CST_CACHE_BLOCK - at;
		pieces[n++] = (struct iovec){bytes + at, len};
		at += len;
	}
	assert_int_equal(cst_extent_write(&e, 1, pieces, n), 0);

	uint8_t bitmap = 0xff;
	assert_int_equal(cst_extent_present(&e, 0, 6, &bitmap), 0);
	assert_int_equal(bitmap, 0x0e);
	assert_int_equal(cst_extent_present(&e, 3, 2, &bitmap), 0);
	assert_int_equal(bitmap, 0x01);

	/* Another process reads them, into other pieces. */
	assert_int_equal(cst_extent_open(f->dir, &id, false, &other), 0);
	CST_AUTO_FREE uint8_t *back = cst_xmalloc(2 * CST_CACHE_BLOCK);
	struct iovec two[3] = {{back, 5}, {back + 5, 200000}, {back + 200005, 2 * CST_CACHE_BLOCK - 200005}};
	assert_int_equal(cst_extent_read(&other, 2, two, 3, false, &bad), 0);
	assert_content(back, 2 * CST_CACHE_BLOCK, 2 * CST_CACHE_BLOCK);
	/* An absent one. */
	struct iovec one = {back, 2 * CST_CACHE_BLOCK};
	assert_int_equal(cst_extent_read(&other, 3, &one, 1, false, &bad), -EBADMSG);
	assert_int_equal(bad, 4);
	/* The short last one. */
	CST_AUTO_FREE uint8_t *last = content(5 * CST_CACHE_BLOCK, 1234);
	struct iovec tail = {last, 1234};
	assert_int_equal(cst_extent_write(&e, 5, &tail, 1), 0);
	memset(last, 0, 1234);
	assert_int_equal(cst_extent_read(&other, 5, &tail, 1, false, &bad), 0);
	assert_content(last, 5 * CST_CACHE_BLOCK, 1234);
	cst_extent_close(&other);
	cst_extent_close(&e);
}

static void parts_of_blocks_are_refused(void **state)
{
	struct fixture *f = *state;
	struct cst_cache_identity id = identity(CST_CACHE_BLOCK + 10);
	struct cst_extent e;
	uint64_t bad;
	CST_AUTO_FREE uint8_t *bytes = cst_xcalloc(3, CST_CACHE_BLOCK);
	make_full(f->dir, &id, &e);
	const struct {
		uint64_t first;
		size_t len;
	} wrong[] = {{0, 100},
		     {0, 0},
		     {1, 9},
		     {1, 11},
		     {2, 10},
		     {0, CST_CACHE_BLOCK + 9},
		     {0, 2 * CST_CACHE_BLOCK},
		     {UINT64_MAX / 2, 10}};
	for (size_t i = 0; i < CST_ARRAY_LEN(wrong); i++) {
		struct iovec iov = {bytes, wrong[i].len};
		assert_int_equal(cst_extent_read(&e, wrong[i].first, &iov, 1, false, &bad), -EINVAL);
		assert_int_equal(cst_extent_write(&e, wrong[i].first, &iov, 1), -EINVAL);
	}
	assert_int_equal(cst_extent_present(&e, 1, 2, bytes), -EINVAL);
	assert_int_equal(cst_extent_forget(&e, 2), -EINVAL);
	assert_int_equal(read_all(&e, &bad), 0);
	cst_extent_close(&e);
}

static void long_maps_are_read_in_pieces(void **state)
{
	struct fixture *f = *state;
	const uint64_t blocks = 1500;
	struct cst_cache_identity id = identity(blocks * CST_CACHE_BLOCK);
	struct cst_extent e;
	CST_AUTO_FREE uint8_t *bytes = content(0, CST_CACHE_BLOCK);
	struct iovec iov = {bytes, CST_CACHE_BLOCK};
	uint8_t bitmap[188];
	assert_int_equal(cst_extent_create(f->dir, &id, &e), 0);
	for (uint64_t b = 0; b < blocks; b += 499)
		assert_int_equal(cst_extent_write(&e, b, &iov, 1), 0);
	assert_int_equal(cst_extent_present(&e, 0, blocks, bitmap), 0);
	for (uint64_t b = 0; b < blocks; b++)
		assert_int_equal((bitmap[b / 8] >> (b % 8)) & 1, b % 499 == 0);
	cst_extent_close(&e);
}

static void other_identities_are_not_taken(void **state)
{
	struct fixture *f = *state;
	struct cst_cache_identity id = identity(1000), other;
	struct cst_extent e;
	make_full(f->dir, &id, &e);
	assert_int_equal(cst_extent_create(f->dir, &id, &e), -EEXIST);
	assert_int_equal(e.data, -1);
	/* The same hashes, but another key: what a collision would look like. */
	other = id;
	other.key = CST_SLICE("dir/other");
	assert_int_equal(cst_extent_open(f->dir, &other, false, &e), -EBADMSG);
	other = id;
	other.size = 1001;
	assert_int_equal(cst_extent_open(f->dir, &other, false, &e), -EBADMSG);
	other = id;
	other.version++;
	assert_int_equal(cst_extent_open(f->dir, &other, false, &e), -ENOENT);
	assert_int_equal(cst_extent_open(f->dir, &id, false, &e), 0);
	cst_extent_close(&e);
}

static void identities_are_kept(void **state)
{
	struct fixture *f = *state;
	struct cst_cache_identity id, found;
	struct cst_extent e;
	CST_AUTO_BUF text = CST_BUF_INIT;
	char key[1023], bytes[50] = {1};
	memset(key, 0xfe, sizeof(key));
	key[10] = '\0';
	key[11] = '\n';
	cst_cache_identify(&id, BUCKET, (struct cst_slice){key, sizeof(key)}, ETAG, 50);
	make_full(f->dir, &id, &e);
	cst_extent_close(&e);
	e = (struct cst_extent){.name = id.name, .version = id.version};
	assert_int_equal(cst_extent_open(f->dir, NULL, false, &e), 0);
	assert_int_equal(e.size, 50);
	cst_buf_add_str(&text, "old");
	assert_int_equal(cst_extent_identity(&e, &found, &text), 0);
	assert_true(cst_slice_eq(found.key, id.key) && cst_slice_eq(found.bucket, BUCKET) &&
		    cst_slice_eq(found.etag, ETAG));
	assert_true(found.name == id.name && found.version == id.version && found.size == 50);
	cst_extent_close(&e);

	struct iovec iov = {bytes, 50};
	const struct cst_slot_place at = {1, 512, 2048};
	CST_AUTO_CLOSE int slab = cst_slab_open(f->dir, 1, true, 65536);
	assert_int_equal(cst_slot_write(slab, &at, &id, &iov, 1), 0);
	assert_int_equal(cst_slot_identity(slab, &at, &found, &text), 0);
	assert_true(cst_slice_eq(found.key, id.key) && found.version == id.version && found.size == 50);

	CST_AUTO_FREE char *endless = cst_xcalloc(1, 5000);
	cst_cache_identify(&id, BUCKET, (struct cst_slice){endless, 5000}, ETAG, 50);
	assert_int_equal(cst_extent_create(f->dir, &id, &e), -ENAMETOOLONG);
	cst_cache_identify(&id, BUCKET, KEY, ETAG, 0);
	assert_int_equal(cst_extent_create(f->dir, &id, &e), -EFBIG);
}

static void every_bit_of_a_map_counts(void **state)
{
	struct fixture *f = *state;
	struct cst_cache_identity id = identity(2 * CST_CACHE_BLOCK);
	struct cst_extent e, again;
	uint64_t bad = 0;
	make_full(f->dir, &id, &e);
	for (off_t at = 0; at < CST_MAP_HEADER; at += at < 128 ? 1 : 131) {
		change_byte(e.map, at, (uint8_t)(1u << (at % 8)));
		assert_int_equal(cst_extent_open(f->dir, &id, false, &again), -EBADMSG);
		again = (struct cst_extent){.name = id.name, .version = id.version};
		assert_int_equal(cst_extent_open(f->dir, NULL, false, &again), -EBADMSG);
		change_byte(e.map, at, (uint8_t)(1u << (at % 8)));
	}
	for (off_t bit = 0; bit < 64; bit++) {
		uint8_t bitmap = 0;
		change_byte(e.map, CST_MAP_HEADER + 8 + bit / 8, (uint8_t)(1u << (bit % 8)));
		assert_int_equal(read_all(&e, &bad), -EBADMSG);
		assert_int_equal(bad, 1);
		assert_int_equal(cst_extent_present(&e, 0, 2, &bitmap), 0);
		assert_int_equal(bitmap, 1);
		change_byte(e.map, CST_MAP_HEADER + 8 + bit / 8, (uint8_t)(1u << (bit % 8)));
	}
	/* Records of another block or file are not taken either. */
	uint8_t record[8];
	assert_int_equal(pread(e.map, record, 8, CST_MAP_HEADER), 8);
	assert_int_equal(pwrite(e.map, record, 8, CST_MAP_HEADER + 8), 8);
	assert_int_equal(read_all(&e, &bad), -EBADMSG);
	cst_extent_close(&e);
}

static void changed_data_is_found(void **state)
{
	struct fixture *f = *state;
	struct cst_cache_identity id = identity(3 * CST_CACHE_BLOCK + 77);
	struct cst_extent e;
	uint64_t bad = 0;
	make_full(f->dir, &id, &e);
	for (uint64_t block = 0; block < 4; block++) {
		off_t at = (off_t)(block * CST_CACHE_BLOCK + (block * 7919) % 77);
		change_byte(e.data, at, 0x10);
		assert_int_equal(read_all(&e, &bad), -EBADMSG);
		assert_int_equal(bad, block);
		change_byte(e.data, at, 0x10);
	}
	/* What a power cut leaves of data that was not written: zeros. */
	static const uint8_t zeros[4096];
	assert_int_equal(pwrite(e.data, zeros, sizeof(zeros), 2 * CST_CACHE_BLOCK + 4096), sizeof(zeros));
	assert_int_equal(read_all(&e, &bad), -EBADMSG);
	assert_int_equal(bad, 2);
	/* Forgotten, it is absent; written again, it is good. */
	uint8_t bitmap = 0;
	assert_int_equal(cst_extent_forget(&e, 2), 0);
	assert_int_equal(cst_extent_present(&e, 0, 4, &bitmap), 0);
	assert_int_equal(bitmap, 0x0b);
	CST_AUTO_FREE uint8_t *bytes = content(2 * CST_CACHE_BLOCK, CST_CACHE_BLOCK);
	struct iovec iov = {bytes, CST_CACHE_BLOCK};
	assert_int_equal(cst_extent_write(&e, 2, &iov, 1), 0);
	assert_int_equal(read_all(&e, &bad), 0);
	cst_extent_close(&e);
}

static void wrong_lengths_are_found(void **state)
{
	struct fixture *f = *state;
	struct cst_cache_identity id = identity(2 * CST_CACHE_BLOCK + 5);
	struct cst_extent e, again;
	uint64_t bad = 0;
	make_full(f->dir, &id, &e);
	const off_t data = 2 * CST_CACHE_BLOCK + 5, map = CST_MAP_HEADER + 24;
	const off_t data_lengths[] = {0, 1, CST_CACHE_BLOCK, data - 1, data + 1},
		    map_lengths[] = {0, 10, 4096, map - 1, map + 8};
	for (size_t i = 0; i < CST_ARRAY_LEN(map_lengths); i++) {
		uint8_t kept[24];
		CST_AUTO_FREE char *header = cst_xmalloc(CST_MAP_HEADER);
		assert_int_equal(pread(e.map, header, CST_MAP_HEADER, 0), CST_MAP_HEADER);
		assert_int_equal(pread(e.map, kept, 24, CST_MAP_HEADER), 24);
		assert_int_equal(ftruncate(e.map, map_lengths[i]), 0);
		assert_int_equal(cst_extent_open(f->dir, &id, false, &again), -EBADMSG);
		/* One who has it open. */
		if (map_lengths[i] < map)
			assert_int_equal(read_all(&e, &bad), -EBADMSG);
		assert_int_equal(ftruncate(e.map, map), 0);
		assert_int_equal(pwrite(e.map, header, CST_MAP_HEADER, 0), CST_MAP_HEADER);
		assert_int_equal(pwrite(e.map, kept, 24, CST_MAP_HEADER), 24);
	}
	assert_int_equal(read_all(&e, &bad), 0);
	for (size_t i = CST_ARRAY_LEN(data_lengths); i-- > 0;) {
		assert_int_equal(ftruncate(e.data, data_lengths[i]), 0);
		assert_int_equal(cst_extent_open(f->dir, &id, false, &again), -EBADMSG);
		if (data_lengths[i] < data) {
			assert_int_equal(read_all(&e, &bad), -EBADMSG);
			assert_int_equal(bad, data_lengths[i] / CST_CACHE_BLOCK);
		}
	}
	cst_extent_close(&e);
}

static void what_is_no_file_is_not_opened(void **state)
{
	struct fixture *f = *state;
	struct cst_cache_identity id = identity(1000);
	struct cst_extent e;
	char name[CST_FILE_NAME_MAX];
	make_full(f->dir, &id, &e);
	cst_extent_close(&e);
	cst_extent_name(id.name, id.version, ".data", name);
	assert_int_equal(unlinkat(f->dir, name, 0), 0);
	assert_int_equal(cst_extent_open(f->dir, &id, false, &e), -ENOENT);
	assert_int_equal(symlinkat("/etc/passwd", f->dir, name), 0);
	assert_int_equal(cst_extent_open(f->dir, &id, false, &e), -EBADMSG);
	assert_int_equal(unlinkat(f->dir, name, 0), 0);
	assert_int_equal(mkdirat(f->dir, name, 0700), 0);
	assert_int_equal(cst_extent_open(f->dir, &id, true, &e), -EBADMSG);
	assert_int_equal(cst_extent_open(f->dir, &id, false, &e), -EBADMSG);
	assert_int_equal(unlinkat(f->dir, name, AT_REMOVEDIR), 0);
	assert_int_equal(mkfifoat(f->dir, name, 0600), 0);
	assert_int_equal(cst_extent_open(f->dir, &id, false, &e), -EBADMSG);
	assert_int_equal(cst_extent_unlink(f->dir, id.name, id.version), 0);
	assert_int_equal(cst_extent_unlink(f->dir, id.name, id.version), -ENOENT);
}

static void failed_writes_leave_no_record(void **state)
{
	struct fixture *f = *state;
	struct cst_cache_identity id = identity(2 * CST_CACHE_BLOCK);
	struct cst_extent e;
	uint8_t bitmap = 0;
	CST_AUTO_FREE uint8_t *bytes = content(0, 2 * CST_CACHE_BLOCK);
	struct iovec iov = {bytes, 2 * CST_CACHE_BLOCK};
	assert_int_equal(cst_extent_create(f->dir, &id, &e), 0);
	CST_AUTO_CLOSE int full = open("/dev/full", O_RDWR | O_CLOEXEC);
	CST_AUTO_CLOSE int read_only = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct cst_extent broken = e;
	broken.data = full;
	assert_int_equal(cst_extent_write(&broken, 0, &iov, 1), -ENOSPC);
	broken.data = read_only;
	assert_int_equal(cst_extent_write(&broken, 0, &iov, 1), -EBADF);
	assert_int_equal(cst_extent_present(&e, 0, 2, &bitmap), 0);
	assert_int_equal(bitmap, 0);
	broken = e;
	broken.map = full;
	assert_int_equal(cst_extent_write(&broken, 0, &iov, 1), -ENOSPC);
	assert_int_equal(cst_extent_present(&e, 0, 2, &bitmap), 0);
	assert_int_equal(bitmap, 0);
	cst_extent_close(&e);
}

static void nowait_reads_what_is_in_memory(void **state)
{
	struct fixture *f = *state;
	struct cst_cache_identity id = identity(CST_CACHE_BLOCK * 2);
	struct cst_extent e;
	uint64_t bad = 0;
	CST_AUTO_FREE uint8_t *bytes = cst_xmalloc(2 * CST_CACHE_BLOCK);
	struct iovec iov = {bytes, 2 * CST_CACHE_BLOCK};
	make_full(f->dir, &id, &e);
	/* Just written, so that it is in the page cache; a file system may still say no. */
	int rc = cst_extent_read(&e, 0, &iov, 1, true, &bad);
	assert_true(rc == 0 || rc == -EAGAIN);
	if (rc == 0)
		assert_content(bytes, 0, 2 * CST_CACHE_BLOCK);
	assert_int_equal(cst_extent_sync(&e), 0);
	posix_fadvise(e.data, 0, 0, POSIX_FADV_DONTNEED);
	rc = cst_extent_read(&e, 0, &iov, 1, true, &bad);
	assert_true(rc == 0 || rc == -EAGAIN);
	assert_int_equal(read_all(&e, &bad), 0);
	cst_extent_close(&e);

	/* tmpfs is always in memory. */
	CST_AUTO_CLOSE int memory = memfd_create("slab", MFD_CLOEXEC);
	const struct cst_slot_place at = {0, 0, 4096};
	struct cst_cache_identity small = identity(1000);
	struct iovec part = {bytes, 1000};
	for (size_t i = 0; i < 1000; i++)
		bytes[i] = byte_at(i);
	assert_int_equal(cst_slot_write(memory, &at, &small, &part, 1), 0);
	memset(bytes, 0, 1000);
	assert_int_equal(cst_slot_read(memory, &at, &small, &part, 1, true), 0);
	assert_content(bytes, 0, 1000);
}

static void slots_hold_what_was_put(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_CLOSE int slab = cst_slab_open(f->dir, 3, true, 1u << 20);
	static const uint64_t sizes[] = {1, 100, 4096, 100000, CST_SLOT_MAX};
	assert_true(slab >= 0);
	for (size_t i = 0; i < CST_ARRAY_LEN(sizes); i++) {
		struct cst_cache_identity id = identity(sizes[i]);
		const struct cst_slot_place at = {3, 8192, cst_slot_length(&id)};
		CST_AUTO_FREE uint8_t *bytes = content(0, sizes[i]);
		struct iovec pieces[40];
		for (size_t p = 0; p < 40; p++)
			pieces[p] =
				(struct iovec){bytes + sizes[i] * p / 40, sizes[i] * (p + 1) / 40 - sizes[i] * p / 40};
		assert_int_equal(cst_slot_write(slab, &at, &id, pieces, 40), 0);
		memset(bytes, 0, sizes[i]);
		struct iovec whole = {bytes, sizes[i]};
		assert_int_equal(cst_slot_read(slab, &at, &id, &whole, 1, false), 0);
		assert_content(bytes, 0, sizes[i]);
		memset(bytes, 0, sizes[i]);
		assert_int_equal(cst_slot_read(slab, &at, &id, pieces, 40, false), 0);
		assert_content(bytes, 0, sizes[i]);
	}
}

static void slots_of_others_are_not_taken(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_CLOSE int slab = cst_slab_open(f->dir, 3, true, 65536);
	struct cst_cache_identity id = identity(500), other;
	const struct cst_slot_place at = {3, 8192, 1024}, elsewhere = {3, 0, 1024}, small = {3, 8192, 500},
				    end = {3, 65536 - 100, 1024};
	CST_AUTO_FREE uint8_t *bytes = content(0, 500);
	struct iovec iov = {bytes, 500}, less = {bytes, 499};
	assert_int_equal(cst_slot_write(slab, &small, &id, &iov, 1), -EINVAL);
	assert_int_equal(cst_slot_write(slab, &at, &id, &less, 1), -EINVAL);
	assert_int_equal(cst_slot_write(slab, &at, &id, &iov, 1), 0);
	assert_int_equal(cst_slot_read(slab, &elsewhere, &id, &iov, 1, false), -EBADMSG);
	assert_int_equal(cst_slot_read(slab, &end, &id, &iov, 1, false), -EBADMSG);
	assert_int_equal(cst_slot_read(slab, &small, &id, &iov, 1, false), -EBADMSG);
	assert_int_equal(cst_slot_read(slab, &at, &id, &less, 1, false), -EINVAL);
	other = id;
	other.key = CST_SLICE("dir/kezy\xff");
	assert_int_equal(cst_slot_read(slab, &at, &other, &iov, 1, false), -EBADMSG);
	cst_cache_identify(&other, BUCKET, KEY, CST_SLICE("\"new\""), 500);
	assert_int_equal(cst_slot_read(slab, &at, &other, &iov, 1, false), -EBADMSG);
	/* Given to the other version; the reader of the first must notice. */
	assert_int_equal(cst_slot_write(slab, &at, &other, &iov, 1), 0);
	assert_int_equal(cst_slot_read(slab, &at, &id, &iov, 1, false), -EBADMSG);
	for (off_t byte = 0; byte < (off_t)cst_slot_length(&other); byte++) {
		change_byte(slab, 8192 + byte, 0x40);
		assert_int_equal(cst_slot_read(slab, &at, &other, &iov, 1, false), -EBADMSG);
		change_byte(slab, 8192 + byte, 0x40);
	}
	assert_int_equal(cst_slot_read(slab, &at, &other, &iov, 1, false), 0);
}

static void slabs_have_their_length(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_CLOSE int made = cst_slab_open(f->dir, 0xabc, true, 65536);
	assert_true(made >= 0);
	assert_int_equal(cst_slab_open(f->dir, 0xabc, false, 65537), -EBADMSG);
	CST_AUTO_CLOSE int again = cst_slab_open(f->dir, 0xabc, false, 65536);
	CST_AUTO_CLOSE int any = cst_slab_open(f->dir, 0xabc, false, 0);
	assert_true(again >= 0 && any >= 0);
	assert_int_equal(faccessat(f->dir, "slabs/00000abc.slab", F_OK, 0), 0);
	assert_int_equal(cst_slab_unlink(f->dir, 0xabc), 0);
	assert_int_equal(cst_slab_unlink(f->dir, 0xabc), -ENOENT);
	assert_int_equal(cst_slab_open(f->dir, 0xabc, false, 0), -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_those_of_the_document),
		cmocka_unit_test(versions_and_names_differ),
		TEST(map_is_as_documented),
		TEST(slot_is_as_documented),
		TEST(blocks_come_back_from_any_vectors),
		TEST(parts_of_blocks_are_refused),
		TEST(long_maps_are_read_in_pieces),
		TEST(other_identities_are_not_taken),
		TEST(identities_are_kept),
		TEST(every_bit_of_a_map_counts),
		TEST(changed_data_is_found),
		TEST(wrong_lengths_are_found),
		TEST(what_is_no_file_is_not_opened),
		TEST(failed_writes_leave_no_record),
		TEST(nowait_reads_what_is_in_memory),
		TEST(slots_hold_what_was_put),
		TEST(slots_of_others_are_not_taken),
		TEST(slabs_have_their_length),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
