/* The journal of the staging area: whatever it holds, it is read or refused, and what it amounts to is in order and survives a checkpoint.
 * Covers: src/stage/journal_scan.c(cst_journal_scan, is_whole, take_record, take_header, look_beyond, damaged) src/stage/state.c
 * src/stage/record.c(cst_record_check, cst_record_decode, has, padded, body_size, base_size, take_body, take_base) */
#include "stage/journal.h"

#include <errno.h>
#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_image(const struct cst_stage_image *image)
{
	struct cst_extent e;
	uint64_t at = 0;
	while (cst_extents_next(&image->map, at, CST_EXTENTS_END, &e)) {
		CST_ASSERT(e.start == at || (image->base.exists && e.start <= image->base.size));
		CST_ASSERT(!(e.kind & CST_STAGE_CLEAN));
		at = e.start + e.length;
		CST_ASSERT(at <= image->size);
	}
	CST_ASSERT(at == image->size || (image->base.exists && image->size <= image->base.size));
}

struct checkpoint {
	struct cst_buf bytes;
	uint64_t number;
};

static void add(void *arg, const struct cst_record *r)
{
	struct checkpoint *c = arg;
	CST_ASSERT(cst_record_check(r) == 0);
	cst_record_encode(r, 7, c->number++, 0, &c->bytes);
}

/* As the journal writes it: the header tells how many records there are, so twice. */
static void checkpoint(const struct cst_state *state, struct checkpoint *c)
{
	struct cst_record header = {.kind = CST_RECORD_HEADER,
				    .id = 9,
				    .next = state->next_id,
				    .phase = CST_JOURNAL_FORMAT,
				    .data = cst_buf_slice(&state->owner)};
	struct cst_record end = {.kind = CST_RECORD_CHECKPOINT};
	for (unsigned i = 0; i < 2; i++) {
		header.size = c->number;
		cst_buf_clear(&c->bytes);
		c->number = 0;
		add(c, &header);
		cst_state_each(state, add, c);
		add(c, &end);
	}
}

static void ignore(void *arg, const char *text)
{
	*(size_t *)arg += strlen(text);
}

struct memory {
	const char *data;
	size_t size;
};

static int memory_open(void *ctx, int dir, const char *name, int flags)
{
	(void)ctx;
	(void)dir;
	(void)flags;
	return strcmp(name, "journal.0") == 0 ? 1 : -ENOENT;
}

static void memory_close(void *ctx, int fd)
{
	(void)ctx;
	(void)fd;
}

static ssize_t memory_read(void *ctx, int fd, void *data, size_t len, uint64_t offset)
{
	const struct memory *m = ctx;
	(void)fd;
	len = cst_min(len, m->size - cst_min((size_t)offset, m->size));
	if (len)
		memcpy(data, m->data + offset, len);
	return (ssize_t)len;
}

static int memory_size(void *ctx, int fd, uint64_t *size)
{
	(void)fd;
	*size = ((const struct memory *)ctx)->size;
	return 0;
}

static void check(const char *bytes, size_t len)
{
	struct cst_journal_scan scans[2], again;
	const struct cst_state_file *f;
	struct cst_error err = CST_ERROR_INIT;
	cst_journal_scan(bytes, len, &scans[0], NULL, NULL);
	CST_ASSERT(scans[0].end <= len && (!scans[0].whole || scans[0].header));
	TAILQ_FOREACH (f, &scans[0].state.files, link)
		check_image(&f->image);
	struct checkpoint first = {0}, second = {0};
	checkpoint(&scans[0].state, &first);
	CST_ASSERT(first.bytes.len <= scans[0].state.bytes + scans[0].state.owner.len + 256);
	cst_journal_scan(first.bytes.data, first.bytes.len, &again, NULL, NULL);
	CST_ASSERT(again.whole && !again.damaged && again.end == first.bytes.len);
	TAILQ_FOREACH (f, &again.state.files, link)
		check_image(&f->image);
	checkpoint(&again.state, &second);
	/* What changed since a seal and was cut off again is not told a second time: then the third is like the second. */
	struct cst_journal_scan last;
	struct checkpoint third = {0};
	cst_journal_scan(second.bytes.data, second.bytes.len, &last, NULL, NULL);
	checkpoint(&last.state, &third);
	CST_ASSERT(second.bytes.len == third.bytes.len &&
		   memcmp(second.bytes.data, third.bytes.data, third.bytes.len) == 0);
	scans[1] = again;
	int chosen = cst_journal_choose(scans, true, &err);
	CST_ASSERT(chosen == 0 || chosen == 1 || chosen == -EBADMSG);
	struct memory m = {bytes, len};
	const struct cst_stage_io io = {
		.open = memory_open, .close = memory_close, .pread = memory_read, .size = memory_size, .ctx = &m};
	size_t printed = 0;
	CST_ASSERT(cst_journal_print(&io, 0, ignore, &printed, &err) == 0 && printed > 0);
	cst_state_fini(&scans[0].state);
	cst_state_fini(&again.state);
	cst_state_fini(&last.state);
	cst_buf_fini(&first.bytes);
	cst_buf_fini(&second.bytes);
	cst_buf_fini(&third.bytes);
}

static uint64_t take(const uint8_t **data, size_t *size, unsigned bytes)
{
	uint64_t value = 0;
	for (unsigned i = 0; i < bytes && *size; i++, ++*data, --*size)
		value |= (uint64_t) * *data << (8 * i);
	return value;
}

static struct cst_slice take_text(const uint8_t **data, size_t *size)
{
	size_t len = cst_min((size_t)take(data, size, 1) % 8, *size);
	struct cst_slice text = {(const char *)*data, len};
	*data += len;
	*size -= len;
	return text;
}

/* Records with good checksums, most of them with values that can mean something. */
static void add_sealed(struct cst_buf *log, const uint8_t *data, size_t size)
{
	struct cst_extent extents[8];
	struct cst_record r = {.kind = CST_RECORD_HEADER, .id = 1, .size = 2, .next = 1, .phase = CST_JOURNAL_FORMAT};
	struct cst_record end = {.kind = CST_RECORD_CHECKPOINT};
	uint64_t synced = 0;
	cst_record_encode(&r, 7, 0, 0, log);
	cst_record_encode(&end, 7, 1, 0, log);
	for (uint64_t number = 2; size; number++) {
		uint64_t how = take(&data, &size, 1);
		r = (struct cst_record){.kind = how % CST_RECORD_KINDS, .more = how > 230};
		r.id = 1 + take(&data, &size, 1) % 4;
		r.size = take(&data, &size, how & 32 ? 8 : 1) % (CST_EXTENTS_END / 4);
		r.slots[0] = 5;
		r.slots[1] = 6;
		r.phase = (uint32_t)(how % 3);
		r.base = (struct cst_stage_base){.exists = how & 64, .size = how & 64 ? 40 : 0, .etag = "x"};
		r.key = take_text(&data, &size);
		if (r.kind == CST_RECORD_PUBLISH_BEGIN)
			r.key = CST_SLICE("w");
		r.to = r.data = r.key;
		for (r.extent_count = 0; r.extent_count < how % 8; r.extent_count++)
			extents[r.extent_count] = (struct cst_extent){.start = take(&data, &size, 1),
								      .length = 1 + take(&data, &size, 1),
								      .kind = (uint8_t)(take(&data, &size, 1) % 3)};
		r.extents = extents;
		size_t before = log->len;
		cst_record_encode(&r, how == 255 ? 8 : 7, how == 254 ? number + 1 : number, synced, log);
		synced = how & 16 ? number : synced;
		if (how == 253)
			log->data[before + 40] ^= 1;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CST_AUTO_BUF log = CST_BUF_INIT;
	if (size == 0 || size > 8192)
		return 0;
	if (data[0] % 4) {
		add_sealed(&log, data + 1, size - 1);
		check(log.data, log.len);
	} else {
		check((const char *)data + 1, size - 1);
	}
	return 0;
}
