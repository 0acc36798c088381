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

/* Fixed part and names of each writing operation; every shorter request is refused. */
static void parse_all_lengths(uint32_t opcode, const void *fixed, size_t fixed_len, const char *rest, size_t rest_len,
			      struct cst_fuse_in *in)
{
	char body[256];

	memcpy(body, fixed, fixed_len);
	memcpy(body + fixed_len, rest, rest_len);
	for (size_t len = 0; len < fixed_len + rest_len; len++)
		assert_int_equal(parse(opcode, body, len, in), -EINVAL);
	assert_int_equal(parse(opcode, body, fixed_len + rest_len, in), 0);
}

static void test_names_that_are_changed(void **state)
{
	struct cst_kfuse_create_in create = {.flags = 0x8241, .mode = 0100644, .umask = 022};
	struct cst_kfuse_mknod_in mknod = {.mode = 0100600};
	struct cst_kfuse_mkdir_in mkdir = {.mode = 0755};
	struct cst_kfuse_rename_in rename = {.newdir = 9};
	struct cst_kfuse_rename2_in rename2 = {.newdir = 10, .flags = 1};
	struct cst_kfuse_link_in link = {.oldnodeid = 11};
	struct cst_fuse_in in;

	(void)state;
	parse_all_lengths(CST_KFUSE_CREATE, &create, sizeof(create), "new", 4, &in);
	assert_string_equal(in.name, "new");
	assert_int_equal(in.mode, 0100644);
	assert_int_equal(in.flags, 0x8241);
	parse_all_lengths(CST_KFUSE_MKNOD, &mknod, sizeof(mknod), "n", 2, &in);
	assert_int_equal(in.mode, 0100600);
	parse_all_lengths(CST_KFUSE_MKDIR, &mkdir, sizeof(mkdir), "d", 2, &in);
	assert_int_equal(in.mode, 0755);
	parse_all_lengths(CST_KFUSE_UNLINK, "", 0, "gone", 5, &in);
	parse_all_lengths(CST_KFUSE_RMDIR, "", 0, "gone", 5, &in);
	parse_all_lengths(CST_KFUSE_REMOVEXATTR, "", 0, "user.x", 7, &in);
	assert_string_equal(in.name, "user.x");
	parse_all_lengths(CST_KFUSE_SYMLINK, "", 0, "name\0target", 12, &in);
	assert_string_equal(in.name, "name");
	assert_string_equal(in.name2, "target");
	parse_all_lengths(CST_KFUSE_RENAME, &rename, sizeof(rename), "old\0new", 8, &in);
	assert_int_equal(in.node2, 9);
	assert_string_equal(in.name, "old");
	assert_string_equal(in.name2, "new");
	assert_int_equal(in.flags, 0);
	parse_all_lengths(CST_KFUSE_RENAME2, &rename2, sizeof(rename2), "a\0b", 4, &in);
	assert_int_equal(in.node2, 10);
	assert_int_equal(in.flags, 1);
	assert_string_equal(in.name2, "b");
	parse_all_lengths(CST_KFUSE_LINK, &link, sizeof(link), "l", 2, &in);
	assert_int_equal(in.node2, 11);
}

static void test_data_that_is_written(void **state)
{
	struct cst_kfuse_write_in write = {.fh = 3, .offset = UINT64_C(5) << 40, .size = 6};
	struct cst_kfuse_setxattr_in set = {.size = 5, .flags = 2};
	struct cst_kfuse_flush_in flush = {.fh = 4};
	struct cst_kfuse_fsync_in fsync = {.fh = 5, .fsync_flags = 3};
	struct cst_kfuse_setattr_in setattr = {.valid = CST_KFUSE_FATTR_SIZE, .fh = 6, .size = 12345};
	char body[sizeof(write) + 6];
	struct cst_fuse_in in;

	(void)state;
	parse_all_lengths(CST_KFUSE_WRITE, &write, sizeof(write), "abcdef", 6, &in);
	assert_int_equal(in.fh, 3);
	assert_true(in.offset == UINT64_C(5) << 40);
	assert_int_equal(in.size, 6);
	assert_memory_equal(in.data, "abcdef", 6);
	write.size = UINT32_MAX;
	memcpy(body, &write, sizeof(write));
	assert_int_equal(parse(CST_KFUSE_WRITE, body, sizeof(body), &in), -EINVAL);
	parse_all_lengths(CST_KFUSE_SETXATTR, &set, sizeof(set), "user.k\0value", 12, &in);
	assert_string_equal(in.name, "user.k");
	assert_int_equal(in.size, 5);
	assert_memory_equal(in.data, "value", 5);
	assert_int_equal(in.flags, 2);
	parse_all_lengths(CST_KFUSE_FLUSH, &flush, sizeof(flush), "", 0, &in);
	assert_int_equal(in.fh, 4);
	parse_all_lengths(CST_KFUSE_FSYNC, &fsync, sizeof(fsync), "", 0, &in);
	assert_int_equal(in.fh, 5);
	assert_int_equal(in.flags, 1);
	parse_all_lengths(CST_KFUSE_SETATTR, &setattr, sizeof(setattr), "", 0, &in);
	assert_int_equal(in.fh, 0); /* not said to be one */
	assert_int_equal(in.setattr.size, 12345);
	setattr.valid |= CST_KFUSE_FATTR_FH;
	assert_int_equal(parse(CST_KFUSE_SETATTR, &setattr, sizeof(setattr), &in), 0);
	assert_int_equal(in.fh, 6);
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
		CST_KFUSE_SETATTR, CST_KFUSE_SYMLINK,	  CST_KFUSE_MKNOD,   CST_KFUSE_MKDIR, CST_KFUSE_UNLINK,
		CST_KFUSE_RMDIR,   CST_KFUSE_RENAME,	  CST_KFUSE_LINK,    CST_KFUSE_WRITE, CST_KFUSE_SETXATTR,
		CST_KFUSE_CREATE,  CST_KFUSE_REMOVEXATTR, CST_KFUSE_RENAME2,
	};
	static const uint32_t left_to_the_kernel[] = {CST_KFUSE_FALLOCATE, CST_KFUSE_COPY_FILE_RANGE, CST_KFUSE_TMPFILE,
						      CST_KFUSE_COPY_FILE_RANGE_64, CST_KFUSE_LSEEK};
	struct cst_fuse_in in;
	size_t count = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(writes) / sizeof(writes[0]); i++) {
		assert_int_equal(parse(writes[i], "", 0, &in), -EINVAL); /* none is without arguments */
		assert_int_equal(in.class, CST_FUSE_WRITES);
	}
	for (size_t i = 0; i < sizeof(left_to_the_kernel) / sizeof(left_to_the_kernel[0]); i++) {
		assert_int_equal(parse(left_to_the_kernel[i], "", 0, &in), 0);
		assert_int_equal(in.class, CST_FUSE_NOSYS);
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
	SAME_FIELD(write_in, size, write_in, size);
	SAME_SIZE(write_out, write_out);
	SAME_SIZE(flush_in, flush_in);
	SAME_SIZE(fsync_in, fsync_in);
	SAME_FIELD(fsync_in, fsync_flags, fsync_in, fsync_flags);
	SAME_SIZE(mknod_in, mknod_in);
	SAME_SIZE(mkdir_in, mkdir_in);
	SAME_SIZE(rename_in, rename_in);
	SAME_SIZE(rename2_in, rename2_in);
	SAME_FIELD(rename2_in, flags, rename2_in, flags);
	SAME_SIZE(link_in, link_in);
	SAME_SIZE(create_in, create_in);
	SAME_FIELD(create_in, mode, create_in, mode);
	SAME_SIZE(setattr_in, setattr_in);
	SAME_FIELD(setattr_in, size, setattr_in, size);
	SAME_FIELD(setattr_in, mtime, setattr_in, mtime);
	SAME_FIELD(setattr_in, mtimensec, setattr_in, mtimensec);
	SAME_FIELD(setattr_in, mode, setattr_in, mode);
	SAME_FIELD(setattr_in, gid, setattr_in, gid);
	assert_int_equal(sizeof(struct cst_kfuse_setxattr_in), FUSE_COMPAT_SETXATTR_IN_SIZE);
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
#ifdef FOPEN_PARALLEL_DIRECT_WRITES
	assert_int_equal(CST_KFUSE_FOPEN_PARALLEL_DIRECT_WRITES, FOPEN_PARALLEL_DIRECT_WRITES);
#endif
	assert_int_equal(CST_KFUSE_FATTR_MODE, FATTR_MODE);
	assert_int_equal(CST_KFUSE_FATTR_UID, FATTR_UID);
	assert_int_equal(CST_KFUSE_FATTR_GID, FATTR_GID);
	assert_int_equal(CST_KFUSE_FATTR_SIZE, FATTR_SIZE);
	assert_int_equal(CST_KFUSE_FATTR_ATIME, FATTR_ATIME);
	assert_int_equal(CST_KFUSE_FATTR_MTIME, FATTR_MTIME);
	assert_int_equal(CST_KFUSE_FATTR_FH, FATTR_FH);
	assert_int_equal(CST_KFUSE_FATTR_ATIME_NOW, FATTR_ATIME_NOW);
	assert_int_equal(CST_KFUSE_FATTR_MTIME_NOW, FATTR_MTIME_NOW);
	assert_int_equal(CST_KFUSE_FATTR_CTIME, FATTR_CTIME);
	assert_int_equal(CST_KFUSE_FATTR_KILL_SUIDGID, FATTR_KILL_SUIDGID);
	assert_int_equal(CST_KFUSE_FSYNC_FDATASYNC, FUSE_FSYNC_FDATASYNC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_extensions_are_not_the_name),
		cmocka_unit_test(test_fixed_parts),
		cmocka_unit_test(test_names_that_are_changed),
		cmocka_unit_test(test_data_that_is_written),
		cmocka_unit_test(test_batch_forget),
		cmocka_unit_test(test_init_short_and_long),
		cmocka_unit_test(test_classes),
		cmocka_unit_test(test_abi_layouts),
		cmocka_unit_test(test_abi_numbers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
