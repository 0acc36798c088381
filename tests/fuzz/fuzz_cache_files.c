/* Map, data and slab files with any bytes: nothing but what was kept is ever given out. The first byte says what the rest is: 0: a map (beside it a good
 * data file), 1: a slab, 2: changes (place 3, value 1) to a good map and a good data file.
 * Covers: src/cache/files.c(header_decode, header_texts, text_length, size_allowed, read_map_header, record_valid, record_check, identity_matches,
 * cst_extent_present, cst_extent_identity, cst_slot_identity, slot_holds) */
#include "base/buf.h"
#include "cache/files.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SIZE (CST_CACHE_BLOCK + 1000u)
#define MAP_BYTES (CST_MAP_HEADER + 16u)

static struct {
	struct cst_cache_identity id, small;
	struct cst_extent e;
	int slab;
	uint8_t content[SIZE], map[MAP_BYTES], back[SIZE];
} f;

static void prepare(void)
{
	char path[] = "/tmp/cst-fuzz-XXXXXX";
	CST_ASSERT(mkdtemp(path));
	for (size_t i = 0; i < SIZE; i++)
		f.content[i] = (uint8_t)(i * 31 + (i >> 9) + 7);
	cst_cache_identify(&f.id, CST_SLICE("oss://b"), CST_SLICE("key"), CST_SLICE("etag"), SIZE);
	cst_cache_identify(&f.small, CST_SLICE("oss://b"), CST_SLICE("key"), CST_SLICE("etag"), 1000);
	f.e = (struct cst_extent){memfd_create("data", MFD_CLOEXEC), memfd_create("map", MFD_CLOEXEC), f.id.name,
				  f.id.version, SIZE};
	f.slab = memfd_create("slab", MFD_CLOEXEC);
	/* A good map is what the code writes for these bytes. */
	struct cst_extent made;
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct iovec iov = {f.content, SIZE};
	CST_ASSERT(cst_extent_create(dir, &f.id, &made) == 0 && cst_extent_write(&made, 0, &iov, 1) == 0);
	CST_ASSERT(pread(made.map, f.map, MAP_BYTES, 0) == MAP_BYTES);
	cst_extent_close(&made);
	cst_extent_unlink(dir, f.id.name, f.id.version);
	close(dir);
	CST_AUTO_FREE char *command = cst_xasprintf("rm -rf %s", path);
	CST_ASSERT(system(command) == 0);
}

static void fill(int fd, const uint8_t *data, size_t size)
{
	CST_ASSERT(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
}

static void read_extent(void)
{
	struct cst_cache_identity found;
	CST_AUTO_BUF text = CST_BUF_INIT;
	struct iovec iov = {f.back, SIZE}, first = {f.back, CST_CACHE_BLOCK};
	uint64_t bad = 0;
	uint8_t bitmap = 0;
	int rc = cst_extent_identity(&f.e, &found, &text);
	CST_ASSERT(rc == 0 || rc == -EBADMSG);
	if (rc == 0)
		CST_ASSERT(found.bucket.len + found.key.len + found.etag.len <= CST_CACHE_TEXT_MAX);
	rc = cst_extent_present(&f.e, 0, 2, &bitmap);
	CST_ASSERT(rc == 0 || rc == -EBADMSG);
	rc = cst_extent_read(&f.e, 0, &iov, 1, false, &bad);
	CST_ASSERT(rc == 0 || (rc == -EBADMSG && bad < 2));
	CST_ASSERT(rc < 0 || memcmp(f.back, f.content, SIZE) == 0);
	rc = cst_extent_read(&f.e, 0, &first, 1, false, &bad);
	CST_ASSERT(rc < 0 || memcmp(f.back, f.content, CST_CACHE_BLOCK) == 0);
}

static void read_slab(const uint8_t *data, size_t size)
{
	struct cst_cache_identity found;
	CST_AUTO_BUF text = CST_BUF_INIT;
	const struct cst_slot_place at = {0, 0, (uint32_t)(size & 0x3fff)};
	struct iovec iov = {f.back, 1000};
	fill(f.slab, data, size);
	int rc = cst_slot_identity(f.slab, &at, &found, &text);
	CST_ASSERT(rc == 0 || rc == -EBADMSG);
	if (rc == 0)
		CST_ASSERT(cst_slot_length(&found) <= at.length);
	rc = cst_slot_read(f.slab, &at, &f.small, &iov, 1, false);
	CST_ASSERT(rc == 0 || rc == -EBADMSG);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (f.slab == 0)
		prepare();
	if (size == 0)
		return 0;
	if (data[0] % 3 == 1) {
		read_slab(data + 1, size - 1);
		return 0;
	}
	fill(f.e.data, f.content, SIZE);
	if (data[0] % 3 == 0) {
		fill(f.e.map, data + 1, size - 1);
	} else {
		fill(f.e.map, f.map, MAP_BYTES);
		/* Few, so that no checksum is met by design. */
		for (size_t i = 1; i + 4 <= size && i < 24; i += 4) {
			size_t at = data[i] | (size_t)data[i + 1] << 8 | (size_t)data[i + 2] << 16;
			bool map = at < MAP_BYTES;
			CST_ASSERT(pwrite(map ? f.e.map : f.e.data, data + i + 3, 1,
					  (off_t)(map ? at : (at - MAP_BYTES) % SIZE)) == 1);
		}
	}
	read_extent();
	return 0;
}
