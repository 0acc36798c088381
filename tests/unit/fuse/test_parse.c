/* The request parser, and our ABI definitions against those of the system's header. */
#include "test.h"

#include "fuse/parse.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

/* A request in a buffer of exactly its size, so that a sanitizer sees a step beyond. */
static int parse(uint32_t opcode, const void *body, size_t len, struct cst_fuse_in *in)
{
	static char *last;
	struct cst_kfuse_in_header h = {.len = (uint32_t)(sizeof(h) + len),
					.opcode = opcode,
					.unique = 8,
					.nodeid = 5,
					.uid = 1,
					.gid = 2,
					.pid = 3};

	free(last);
	last = malloc(sizeof(h) + len);
	memcpy(last, &h, sizeof(h));
	if (len)
		memcpy(last + sizeof(h), body, len);
	return cst_fuse_parse(last, sizeof(h) + len, in);
}

static void test_header(void **state)
{
	struct cst_kfuse_in_header h = {
		.len = sizeof(h), .opcode = CST_KFUSE_STATFS, .unique = 6, .nodeid = 9, .uid = 1, .gid = 2, .pid = 3};
	struct cst_fuse_in in;

	(void)state;
	assert_int_equal(cst_fuse_parse(&h, sizeof(h), &in), 0);
	assert_int_equal(in.opcode, CST_KFUSE_STATFS);
	assert_int_equal(in.unique, 6);
	assert_int_equal(in.node, 9);
	assert_int_equal(in.uid, 1);
	assert_int_equal(in.gid, 2);
	assert_int_equal(in.pid, 3);
	assert_false(in.resent);
	h.unique |= CST_KFUSE_UNIQUE_RESENT;
	assert_int_equal(cst_fuse_parse(&h, sizeof(h), &in), 0);
	assert_true(in.resent);
	assert_true(in.unique == (UINT64_C(6) | CST_KFUSE_UNIQUE_RESENT)); /* it goes back as it came */
	for (size_t len = 0; len < sizeof(h); len++)
		assert_int_equal(cst_fuse_parse(&h, len, &in), -EINVAL);
	h.len++;
	assert_int_equal(cst_fuse_parse(&h, sizeof(h), &in), -EINVAL);
	h.len--;
	h.total_extlen = 1;
	assert_int_equal(cst_fuse_parse(&h, sizeof(h), &in), -EINVAL);
	h.total_extlen = 0;
	h.opcode = 4711;
	assert_int_equal(cst_fuse_parse(&h, sizeof(h), &in), 0);
	assert_int_equal(in.class, CST_FUSE_UNKNOWN);
	assert_string_equal(in.op_name, "unknown");
	assert_string_equal(cst_fuse_op_name(7), "unknown");
	assert_string_equal(cst_fuse_op_name(CST_KFUSE_STATX), "statx");
}

static void test_names(void **state)
{
	struct cst_fuse_in in;
	struct {
		struct cst_kfuse_getxattr_in fixed;
		char name[8];
	} x = {{100, 0}, "user.ab"};

	(void)state;
	assert_int_equal(parse(CST_KFUSE_LOOKUP, "abc", 4, &in), 0);
	assert_string_equal(in.name, "abc");
	assert_int_equal(parse(CST_KFUSE_LOOKUP, "abc", 3, &in), -EINVAL);
	assert_int_equal(parse(CST_KFUSE_LOOKUP, "", 0, &in), -EINVAL);
	assert_int_equal(parse(CST_KFUSE_GETXATTR, &x, sizeof(x), &in), 0);
	assert_int_equal(in.size, 100);
	assert_string_equal(in.name, "user.ab");
	assert_int_equal(parse(CST_KFUSE_GETXATTR, &x, sizeof(x) - 1, &in), -EINVAL);
	assert_int_equal(parse(CST_KFUSE_GETXATTR, &x, 7, &in), -EINVAL);
}

static void test_extensions_are_not_the_name(void **state)
{
	struct {
		struct cst_kfuse_in_header h;
		char rest[16];
	} r = {{.len = sizeof(r), .opcode = CST_KFUSE_LOOKUP, .unique = 2, .total_extlen = 1}, "abcdefgh"};
	struct cst_fuse_in in;

	(void)state;
	/* The NUL lies in the extension. */
	assert_int_equal(cst_fuse_parse(&r, sizeof(r), &in), -EINVAL);
	r.rest[7] = '\0';
	assert_int_equal(cst_fuse_parse(&r, sizeof(r), &in), 0);
	assert_string_equal(in.name, "abcdefg");
}

static void test_fixed_parts(void **state)
{
	struct cst_kfuse_read_in read = {.fh = 7, .offset = 1 << 20, .size = 4096};
	struct cst_kfuse_release_in release = {.fh = 11};
	struct cst_kfuse_open_in open = {.flags = 0x8000};
	struct cst_kfuse_forget_in forget = {.nlookup = 3};
	struct cst_kfuse_interrupt_in interrupt = {.unique = 1234};
	struct cst_kfuse_statx_in statx = {.fh = 5, .sx_mask = 0xfff};
	struct cst_kfuse_access_in access = {.mask = 4};
	struct cst_fuse_in in;

	(void)state;
	for (uint32_t op = CST_KFUSE_READ; op; op = op == CST_KFUSE_READ      ? CST_KFUSE_READDIR
						    : op == CST_KFUSE_READDIR ? CST_KFUSE_READDIRPLUS
									      : 0) {
		assert_int_equal(parse(op, &read, sizeof(read), &in), 0);
		assert_int_equal(in.fh, 7);
		assert_int_equal(in.offset, 1 << 20);
		assert_int_equal(in.size, 4096);
		assert_int_equal(parse(op, &read, sizeof(read) - 1, &in), -EINVAL);
	}
	assert_int_equal(parse(CST_KFUSE_RELEASE, &release, sizeof(release), &in), 0);
	assert_int_equal(in.fh, 11);
	assert_int_equal(parse(CST_KFUSE_OPEN, &open, sizeof(open), &in), 0);
	assert_int_equal(in.flags, 0x8000);
	assert_int_equal(parse(CST_KFUSE_FORGET, &forget, sizeof(forget), &in), 0);
	assert_int_equal(in.count, 3);
	assert_int_equal(parse(CST_KFUSE_INTERRUPT, &interrupt, sizeof(interrupt), &in), 0);
	assert_int_equal(in.target, 1234);
	assert_int_equal(parse(CST_KFUSE_STATX, &statx, sizeof(statx), &in), 0);
	assert_int_equal(in.flags, 0xfff);
	assert_int_equal(parse(CST_KFUSE_ACCESS, &access, sizeof(access), &in), 0);
	assert_int_equal(in.flags, 4);
}

static void test_batch_forget(void **state)
{
	struct {
		struct cst_kfuse_batch_forget_in fixed;
		struct cst_kfuse_forget_one one[3];
	} b = {{3, 0}, {{10, 1}, {20, 2}, {30, UINT64_MAX}}};
	struct cst_fuse_in in;

	(void)state;
	assert_int_equal(parse(CST_KFUSE_BATCH_FORGET, &b, sizeof(b), &in), 0);
	assert_int_equal(in.count, 3);
	assert_int_equal(cst_fuse_parse_forget(&in, 1).nodeid, 20);
	assert_true(cst_fuse_parse_forget(&in, 2).nlookup == UINT64_MAX);
	assert_int_equal(parse(CST_KFUSE_BATCH_FORGET, &b, sizeof(b) - 1, &in), -EINVAL);
	b.fixed.count = UINT32_MAX;
	assert_int_equal(parse(CST_KFUSE_BATCH_FORGET, &b, sizeof(b), &in), -EINVAL);
	b.fixed.count = 0;
	assert_int_equal(parse(CST_KFUSE_BATCH_FORGET, &b, sizeof(b.fixed), &in), 0);
}

static void test_init_short_and_long(void **state)
{
	struct cst_kfuse_init_in init = {.major = 7, .minor = 31, .max_readahead = 131072, .flags = 1, .flags2 = 99};
	struct cst_fuse_in in;

	(void)state;
	assert_int_equal(parse(CST_KFUSE_INIT, &init, 16, &in), 0);
	assert_int_equal(in.init.minor, 31);
	assert_int_equal(in.init.flags2, 0);
	assert_int_equal(parse(CST_KFUSE_INIT, &init, sizeof(init), &in), 0);
	assert_int_equal(in.init.flags2, 99);
	assert_int_equal(parse(CST_KFUSE_INIT, &init, 15, &in), -EINVAL);
}

/* What changes something is refused; nothing of that list is served by mistake. */
static void test_classes(void **state)
{
	static const uint32_t writes[] = {
		CST_KFUSE_SETATTR,
		CST_KFUSE_SYMLINK,
		CST_KFUSE_MKNOD,
		CST_KFUSE_MKDIR,
		CST_KFUSE_UNLINK,
		CST_KFUSE_RMDIR,
		CST_KFUSE_RENAME,
		CST_KFUSE_LINK,
		CST_KFUSE_WRITE,
		CST_KFUSE_SETXATTR,
		CST_KFUSE_CREATE,
		CST_KFUSE_REMOVEXATTR,
		CST_KFUSE_FALLOCATE,
		CST_KFUSE_RENAME2,
		CST_KFUSE_COPY_FILE_RANGE,
		CST_KFUSE_TMPFILE,
		CST_KFUSE_COPY_FILE_RANGE_64,
	};
	struct cst_fuse_in in;
	size_t count = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(writes) / sizeof(writes[0]); i++) {
		assert_int_equal(parse(writes[i], "", 0, &in), 0);
		assert_int_equal(in.class, CST_FUSE_WRITES);
	}
	for (uint32_t op = 0; op < CST_KFUSE_OPCODES; op++) {
		(void)parse(op, "", 0, &in);
		count += in.class == CST_FUSE_WRITES;
	}
	assert_int_equal(count, sizeof(writes) / sizeof(writes[0]));
	assert_int_equal(parse(CST_KFUSE_IOCTL, "", 0, &in), 0);
	assert_int_equal(in.class, CST_FUSE_NOTTY);
}

#define SAME_SIZE(ours, theirs) assert_int_equal(sizeof(struct cst_kfuse_##ours), sizeof(struct fuse_##theirs))
#define SAME_FIELD(ours, a, theirs, b) \
	assert_int_equal(offsetof(struct cst_kfuse_##ours, a), offsetof(struct fuse_##theirs, b))
#define SAME(name) assert_true(CST_K##name == (uint64_t)name)

static void test_abi_layouts(void **state)
{
	(void)state;
	SAME_SIZE(in_header, in_header);
	SAME_FIELD(in_header, nodeid, in_header, nodeid);
	SAME_FIELD(in_header, total_extlen, in_header, total_extlen);
	SAME_SIZE(out_header, out_header);
	SAME_SIZE(init_in, init_in);
	SAME_FIELD(init_in, flags2, init_in, flags2);
	SAME_SIZE(init_out, init_out);
	SAME_FIELD(init_out, max_write, init_out, max_write);
	SAME_FIELD(init_out, time_gran, init_out, time_gran);
	SAME_FIELD(init_out, max_pages, init_out, max_pages);
	SAME_FIELD(init_out, flags2, init_out, flags2);
	SAME_SIZE(attr, attr);
	SAME_FIELD(attr, mode, attr, mode);
	SAME_FIELD(attr, blksize, attr, blksize);
	SAME_SIZE(entry_out, entry_out);
	SAME_FIELD(entry_out, attr, entry_out, attr);
	SAME_FIELD(entry_out, entry_valid_nsec, entry_out, entry_valid_nsec);
	SAME_SIZE(attr_out, attr_out);
	SAME_FIELD(attr_out, attr, attr_out, attr);
	SAME_SIZE(forget_one, forget_one);
	SAME_SIZE(batch_forget_in, batch_forget_in);
	SAME_SIZE(getattr_in, getattr_in);
	SAME_SIZE(open_in, open_in);
	SAME_SIZE(open_out, open_out);
	SAME_SIZE(release_in, release_in);
	SAME_SIZE(read_in, read_in);
	SAME_FIELD(read_in, size, read_in, size);
	SAME_SIZE(write_in, write_in);
	SAME_SIZE(getxattr_in, getxattr_in);
	SAME_SIZE(getxattr_out, getxattr_out);
	SAME_SIZE(access_in, access_in);
	SAME_SIZE(interrupt_in, interrupt_in);
	SAME_SIZE(lseek_in, lseek_in);
	SAME_SIZE(kstatfs, kstatfs);
	SAME_FIELD(kstatfs, frsize, kstatfs, frsize);
	SAME_SIZE(direntplus, direntplus);
	SAME_FIELD(dirent, type, dirent, type);
	SAME_SIZE(inval_inode_out, notify_inval_inode_out);
	SAME_SIZE(inval_entry_out, notify_inval_entry_out);
	SAME_FIELD(inval_entry_out, flags, notify_inval_entry_out, flags);
}

static void test_abi_numbers(void **state)
{
	(void)state;
	assert_int_equal(CST_KFUSE_IOC_CLONE, FUSE_DEV_IOC_CLONE);
	assert_int_equal(CST_KFUSE_READ_MIN, FUSE_MIN_READ_BUFFER);
	SAME(FUSE_LOOKUP);
	SAME(FUSE_GETATTR);
	SAME(FUSE_READ);
	SAME(FUSE_RELEASE);
	SAME(FUSE_GETXATTR);
	SAME(FUSE_INIT);
	SAME(FUSE_READDIR);
	SAME(FUSE_INTERRUPT);
	SAME(FUSE_DESTROY);
	SAME(FUSE_BATCH_FORGET);
	SAME(FUSE_READDIRPLUS);
	SAME(FUSE_LSEEK);
	SAME(FUSE_SYNCFS);
	SAME(FUSE_ASYNC_READ);
	SAME(FUSE_ATOMIC_O_TRUNC);
	SAME(FUSE_BIG_WRITES);
	SAME(FUSE_AUTO_INVAL_DATA);
	SAME(FUSE_DO_READDIRPLUS);
	SAME(FUSE_READDIRPLUS_AUTO);
	SAME(FUSE_ASYNC_DIO);
	SAME(FUSE_PARALLEL_DIROPS);
	SAME(FUSE_ABORT_ERROR);
	SAME(FUSE_MAX_PAGES);
	SAME(FUSE_CACHE_SYMLINKS);
	SAME(FUSE_EXPLICIT_INVAL_DATA);
	SAME(FUSE_HANDLE_KILLPRIV_V2);
	SAME(FUSE_INIT_EXT);
	SAME(FUSE_HAS_EXPIRE_ONLY);
	SAME(FUSE_EXPIRE_ONLY);
	SAME(FUSE_NOTIFY_INVAL_INODE);
	SAME(FUSE_NOTIFY_INVAL_ENTRY);
	assert_int_equal(CST_KFUSE_FOPEN_DIRECT_IO, FOPEN_DIRECT_IO);
	assert_int_equal(CST_KFUSE_FOPEN_KEEP_CACHE, FOPEN_KEEP_CACHE);
	assert_int_equal(CST_KFUSE_FOPEN_CACHE_DIR, FOPEN_CACHE_DIR);
	assert_int_equal(CST_KFUSE_FOPEN_NOFLUSH, FOPEN_NOFLUSH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_extensions_are_not_the_name),
		cmocka_unit_test(test_fixed_parts),
		cmocka_unit_test(test_batch_forget),
		cmocka_unit_test(test_init_short_and_long),
		cmocka_unit_test(test_classes),
		cmocka_unit_test(test_abi_layouts),
		cmocka_unit_test(test_abi_numbers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
