/* A file of saved listings with any bytes: what is read of it is what the checks let through. The first byte says how the rest is meant: 0: the file;
 * 1: the bytes of blocks (2 bytes of length each), given their sums, so that what is inside them is reached.
 * Covers: src/meta/snapshot.c(cst_snapshot_read, read_header, get_block, get_byte, get_number, get_text, run, read_blocks, read_dir, read_entries, put_dir,
 * dir_ends) */
#include "base/digest.h"
#include "meta/snapshot.h"

#include <endian.h>
#include <errno.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void add_block(struct cst_buf *file, const uint8_t *data, size_t size)
{
	uint32_t head[2] = {htole32((uint32_t)size), htole32(cst_crc32c(0, data, size))};
	cst_buf_add(file, head, sizeof(head));
	cst_buf_add(file, data, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cst_snapshot snapshot = {.path = "fuzz", .identity = CST_SLICE("id"), .max_age = INT64_MAX / 2};
	struct cst_snapshot_counts counts;
	struct cst_error err = CST_ERROR_INIT;
	CST_AUTO_BUF file = CST_BUF_INIT;
	if (size == 0)
		return 0;
	bool blocks = data[0] == 1;
	data++, size--;
	if (!blocks)
		cst_buf_add(&file, data, size);
	while (blocks && size >= 2) {
		size_t len = (size_t)data[0] | (size_t)data[1] << 8;
		data += 2, size -= 2;
		len = cst_min(len, size);
		add_block(&file, data, len);
		data += len, size -= len;
	}
	struct cst_meta *meta = cst_meta_new(&(struct cst_meta_config){.list_ttl = INT64_MAX / 4});
	int rc = cst_snapshot_read(meta, &snapshot, cst_buf_slice(&file), &counts, &err);
	CST_ASSERT(rc == 0 || rc == -EBADMSG || rc == -ESTALE);
	CST_ASSERT(rc != 0 || cst_snapshot_read(NULL, &snapshot, cst_buf_slice(&file), &counts, &err) == 0);
	cst_meta_stop(meta);
	cst_meta_free(meta);
	return 0;
}
