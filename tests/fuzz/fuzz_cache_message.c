/* Packets between the processes of a cache volume, in both directions: what is taken can be written again and is the same.
 * Covers: src/cache/volume_message.c(cst_volume_message_parse, cst_volume_message_touch, cst_volume_message_entry, get, get16, get32, get64,
 * get_number, get_bool, get_items, get_reply, get_stats, get_request, get_identity, get_pair, get_entry) */
#include "cache/volume_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t touch_items(const struct cst_volume_message *m)
{
	uint64_t sum = 0;
	for (uint32_t i = 0; !m->reply && m->type == CST_VMSG_TOUCH && i < m->count; i++) {
		struct cst_volume_touch_item item;
		cst_volume_message_touch(m, i, &item);
		sum += item.name + item.count;
	}
	for (uint32_t i = 0; m->reply && m->rc == 0 && m->type == CST_VMSG_LIST && i < m->count; i++) {
		struct cst_index_entry entry;
		cst_volume_message_entry(m, i, &entry);
		CST_ASSERT(entry.kind == CST_ENTRY_EXTENT || entry.kind == CST_ENTRY_SLOT);
		sum += entry.size;
	}
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cst_volume_message m;
	uint8_t again[CST_VOLUME_MESSAGE_MAX];
	volatile uint64_t sink;
	/* A copy of exactly this size, so that a read past its end is seen. */
	uint8_t *exact = cst_xmalloc(size);
	if (size)
		memcpy(exact, data, size);
	if (cst_volume_message_parse(exact, size, &m) == 0) {
		sink = touch_items(&m);
		(void)sink;
		size_t len = cst_volume_message_write(&m, again);
		CST_ASSERT(len == size && memcmp(again, exact, size) == 0);
	}
	free(exact);
	return 0;
}
