/* The kernel's requests, as the parser sees them: any bytes, and every field and entry of what it accepts is touched.
 * Covers: src/fuse/parse.c */
#include "fuse/parse.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	volatile uint64_t sink = 0;
	struct cst_fuse_in in;

	if (cst_fuse_parse(data, size, &in) < 0)
		return 0;
	if (in.name)
		sink += strlen(in.name);
	if (in.name2)
		sink += strlen(in.name2);
	for (uint32_t i = 0; in.data && i < in.size; i++)
		sink += (unsigned char)in.data[i];
	sink += in.node2 + in.mode + in.setattr.size;
	for (size_t i = 0; in.forgets && i < in.count; i++)
		sink += cst_fuse_parse_forget(&in, i).nodeid;
	sink += strlen(cst_fuse_op_name(in.opcode)) + in.fh + in.size + in.init.flags2;
	(void)sink;
	return 0;
}
