/* The log of a cache's index: whatever it holds, an index in order comes out of it.
 * Covers: src/cache/index_replay.c src/cache/index_log.c(record_decode, record_crc)
 * src/cache/index_slab.c(slabs_restore_locked, slab_add_locked, slab_from, slab_length) */
#include "../unit/cache/index_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const void *log, size_t len, size_t piece)
{
	const struct cst_index_config config = {.dir = -1, .limits = {.quota = 64 << 20, .high = 0.9, .low = 0.8}};
	struct cst_index *x = index_new(&config);
	struct replay r;
	replay_init(&r, x);
	for (size_t i = 0; i < len; i += piece)
		replay_feed(&r, (const char *)log + i, cst_min(piece, len - i));
	replay_finish(&r);
	cst_buf_fini(&r.rest);
	index_check(x);
	/* Evict some of what came, as if there were files. */
	pthread_mutex_lock(&x->lock);
	for (unsigned i = 0; i < 8; i++) {
		unsigned steps = 1000;
		uint32_t n = policy_victim_locked(x, i % 4 == 3, &steps);
		if (n)
			index_drop_locked(x, n);
	}
	pthread_mutex_unlock(&x->lock);
	index_check(x);
	index_delete(x);
}

static uint64_t take(const uint8_t **data, size_t *size, unsigned bytes)
{
	uint64_t value = 0;
	for (unsigned i = 0; i < bytes && *size; i++, ++*data, --*size)
		value |= (uint64_t) * *data << (8 * i);
	return value;
}

/* Records with good checksums, most of them with values that can mean something. */
static void add_sealed(struct cst_buf *log, const uint8_t *data, size_t size)
{
	uint8_t bytes[RECORD_SIZE];
	struct record r = {.type = R_HEADER, .name = UINT64_C(0x474f4c4e52545343), .version = 1, .size = 1};
	record_encode(&r, 1, 0, bytes);
	cst_buf_add(log, bytes, sizeof(bytes));
	for (uint64_t seq = 1; size; seq++) {
		unsigned how = (unsigned)take(&data, &size, 1);
		r = (struct record){.type = how % 8, .flags = (uint16_t)take(&data, &size, 2) & LOGGED_FLAGS};
		r.name = take(&data, &size, 1);
		r.version = take(&data, &size, 1) % 4;
		r.minute = (uint32_t)take(&data, &size, 1);
		r.size = take(&data, &size, how & 8 ? 8 : 3);
		r.place = take(&data, &size, how & 16 ? 8 : 1) | (how & 32 ? take(&data, &size, 2) << 32 : 0);
		r.synced = how & 64 ? seq + 1 : seq;
		if (r.type == R_SLAB && !(how & 16))
			r.place = slot_class_length((unsigned)r.place % SLOT_CLASSES);
		record_encode(&r, 1, how == 255 ? seq + 1 : seq, bytes);
		cst_buf_add(log, bytes, sizeof(bytes));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CST_AUTO_BUF log = CST_BUF_INIT;
	if (size == 0)
		return 0;
	size_t piece = data[0] / 2 + 1u;
	if (data[0] % 2) {
		add_sealed(&log, data + 1, size - 1);
		check(log.data, log.len, piece);
	} else {
		check(data + 1, size - 1, piece);
	}
	return 0;
}
