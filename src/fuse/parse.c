#include "fuse/parse.h"

#include "base/cleanup.h"

#include <errno.h>
#include <string.h>

/* Fixed part after the header and what class the operation belongs to. `fixed` of operations that are ignored is 0: their
 * arguments are not looked at. Linux keeps to sizes of 7.31 and later (INIT aside, which grew in 7.36). For ENOSYS of FALLOCATE, TMPFILE and
 * COPY_FILE_RANGE the kernel tells the caller EOPNOTSUPP (or copies by reading and writing) and asks no more. */
static const struct {
	const char *name;
	uint8_t class;
	uint8_t fixed;
	uint8_t names; /* NUL-terminated strings that follow */
} ops[CST_KFUSE_OPCODES] = {
	[CST_KFUSE_LOOKUP] = {"lookup", CST_FUSE_SERVED, 0, 1},
	[CST_KFUSE_FORGET] = {"forget", CST_FUSE_SERVED, sizeof(struct cst_kfuse_forget_in), 0},
	[CST_KFUSE_GETATTR] = {"getattr", CST_FUSE_SERVED, sizeof(struct cst_kfuse_getattr_in), 0},
	[CST_KFUSE_SETATTR] = {"setattr", CST_FUSE_WRITES, sizeof(struct cst_kfuse_setattr_in), 0},
	[CST_KFUSE_READLINK] = {"readlink", CST_FUSE_SERVED, 0, 0},
	[CST_KFUSE_SYMLINK] = {"symlink", CST_FUSE_WRITES, 0, 2},
	[CST_KFUSE_MKNOD] = {"mknod", CST_FUSE_WRITES, sizeof(struct cst_kfuse_mknod_in), 1},
	[CST_KFUSE_MKDIR] = {"mkdir", CST_FUSE_WRITES, sizeof(struct cst_kfuse_mkdir_in), 1},
	[CST_KFUSE_UNLINK] = {"unlink", CST_FUSE_WRITES, 0, 1},
	[CST_KFUSE_RMDIR] = {"rmdir", CST_FUSE_WRITES, 0, 1},
	[CST_KFUSE_RENAME] = {"rename", CST_FUSE_WRITES, sizeof(struct cst_kfuse_rename_in), 2},
	[CST_KFUSE_LINK] = {"link", CST_FUSE_WRITES, sizeof(struct cst_kfuse_link_in), 1},
	[CST_KFUSE_OPEN] = {"open", CST_FUSE_SERVED, sizeof(struct cst_kfuse_open_in), 0},
	[CST_KFUSE_READ] = {"read", CST_FUSE_SERVED, sizeof(struct cst_kfuse_read_in), 0},
	[CST_KFUSE_WRITE] = {"write", CST_FUSE_WRITES, sizeof(struct cst_kfuse_write_in), 0},
	[CST_KFUSE_STATFS] = {"statfs", CST_FUSE_SERVED, 0, 0},
	[CST_KFUSE_RELEASE] = {"release", CST_FUSE_SERVED, sizeof(struct cst_kfuse_release_in), 0},
	[CST_KFUSE_FSYNC] = {"fsync", CST_FUSE_SAVES, sizeof(struct cst_kfuse_fsync_in), 0},
	[CST_KFUSE_SETXATTR] = {"setxattr", CST_FUSE_WRITES, sizeof(struct cst_kfuse_setxattr_in), 1},
	[CST_KFUSE_GETXATTR] = {"getxattr", CST_FUSE_SERVED, sizeof(struct cst_kfuse_getxattr_in), 1},
	[CST_KFUSE_LISTXATTR] = {"listxattr", CST_FUSE_SERVED, sizeof(struct cst_kfuse_getxattr_in), 0},
	[CST_KFUSE_REMOVEXATTR] = {"removexattr", CST_FUSE_WRITES, 0, 1},
	[CST_KFUSE_FLUSH] = {"flush", CST_FUSE_SAVES, sizeof(struct cst_kfuse_flush_in), 0},
	[CST_KFUSE_INIT] = {"init", CST_FUSE_SERVED, 16, 0},
	[CST_KFUSE_OPENDIR] = {"opendir", CST_FUSE_SERVED, sizeof(struct cst_kfuse_open_in), 0},
	[CST_KFUSE_READDIR] = {"readdir", CST_FUSE_SERVED, sizeof(struct cst_kfuse_read_in), 0},
	[CST_KFUSE_RELEASEDIR] = {"releasedir", CST_FUSE_SERVED, sizeof(struct cst_kfuse_release_in), 0},
	[CST_KFUSE_FSYNCDIR] = {"fsyncdir", CST_FUSE_NOSYS, 0, 0},
	[CST_KFUSE_GETLK] = {"getlk", CST_FUSE_NOSYS, 0, 0},
	[CST_KFUSE_SETLK] = {"setlk", CST_FUSE_NOSYS, 0, 0},
	[CST_KFUSE_SETLKW] = {"setlkw", CST_FUSE_NOSYS, 0, 0},
	[CST_KFUSE_ACCESS] = {"access", CST_FUSE_SERVED, sizeof(struct cst_kfuse_access_in), 0},
	[CST_KFUSE_CREATE] = {"create", CST_FUSE_WRITES, sizeof(struct cst_kfuse_create_in), 1},
	[CST_KFUSE_INTERRUPT] = {"interrupt", CST_FUSE_SERVED, sizeof(struct cst_kfuse_interrupt_in), 0},
	[CST_KFUSE_BMAP] = {"bmap", CST_FUSE_NOSYS, 0, 0},
	[CST_KFUSE_DESTROY] = {"destroy", CST_FUSE_IS_OK, 0, 0},
	[CST_KFUSE_IOCTL] = {"ioctl", CST_FUSE_NOTTY, 0, 0},
	[CST_KFUSE_POLL] = {"poll", CST_FUSE_NOSYS, 0, 0},
	[CST_KFUSE_NOTIFY_REPLY] = {"notify-reply", CST_FUSE_SERVED, 0, 0},
	[CST_KFUSE_BATCH_FORGET] = {"batch-forget", CST_FUSE_SERVED, sizeof(struct cst_kfuse_batch_forget_in), 0},
	[CST_KFUSE_FALLOCATE] = {"fallocate", CST_FUSE_NOSYS, 0, 0},
	[CST_KFUSE_READDIRPLUS] = {"readdirplus", CST_FUSE_SERVED, sizeof(struct cst_kfuse_read_in), 0},
	[CST_KFUSE_RENAME2] = {"rename", CST_FUSE_WRITES, sizeof(struct cst_kfuse_rename2_in), 2},
	/* A file has no holes here: for ENOSYS the kernel answers SEEK_DATA and SEEK_HOLE from the size it knows, and asks no more. */
	[CST_KFUSE_LSEEK] = {"lseek", CST_FUSE_NOSYS, 0, 0},
	[CST_KFUSE_COPY_FILE_RANGE] = {"copy_file_range", CST_FUSE_NOSYS, 0, 0},
	[CST_KFUSE_SETUPMAPPING] = {"setupmapping", CST_FUSE_NOSYS, 0, 0},
	[CST_KFUSE_REMOVEMAPPING] = {"removemapping", CST_FUSE_NOSYS, 0, 0},
	[CST_KFUSE_SYNCFS] = {"syncfs", CST_FUSE_IS_OK, 0, 0},
	[CST_KFUSE_TMPFILE] = {"tmpfile", CST_FUSE_NOSYS, 0, 0},
	[CST_KFUSE_STATX] = {"statx", CST_FUSE_SERVED, sizeof(struct cst_kfuse_statx_in), 0},
	[CST_KFUSE_COPY_FILE_RANGE_64] = {"copy_file_range", CST_FUSE_NOSYS, 0, 0},
};

const char *cst_fuse_op_name(uint32_t opcode)
{
	return opcode < CST_KFUSE_OPCODES && ops[opcode].name ? ops[opcode].name : "unknown";
}

/* The fixed part of the served operations; `p` has at least ops[].fixed bytes. */
static int parse_fixed(struct cst_fuse_in *in, const char *p, size_t len)
{
	union {
		struct cst_kfuse_forget_in forget;
		struct cst_kfuse_batch_forget_in batch;
		struct cst_kfuse_getattr_in getattr;
		struct cst_kfuse_open_in open;
		struct cst_kfuse_read_in read;
		struct cst_kfuse_release_in release;
		struct cst_kfuse_getxattr_in getxattr;
		struct cst_kfuse_access_in access;
		struct cst_kfuse_interrupt_in interrupt;
		struct cst_kfuse_statx_in statx;
		struct cst_kfuse_write_in write;
		struct cst_kfuse_flush_in flush;
		struct cst_kfuse_fsync_in fsync;
		struct cst_kfuse_mknod_in mknod;
		struct cst_kfuse_mkdir_in mkdir;
		struct cst_kfuse_rename_in rename;
		struct cst_kfuse_rename2_in rename2;
		struct cst_kfuse_link_in link;
		struct cst_kfuse_create_in create;
		struct cst_kfuse_setxattr_in setxattr;
	} u;

	memset(&u, 0, sizeof(u));
	memcpy(&u, p, cst_min(sizeof(u), (size_t)ops[in->opcode].fixed));
	switch (in->opcode) {
	case CST_KFUSE_WRITE:
		if (u.write.size > len - sizeof(u.write))
			return -EINVAL;
		in->fh = u.write.fh;
		in->offset = u.write.offset;
		in->size = u.write.size;
		in->data = p + sizeof(u.write);
		break;
	case CST_KFUSE_FLUSH:
		in->fh = u.flush.fh;
		break;
	case CST_KFUSE_FSYNC:
		in->fh = u.fsync.fh;
		in->flags = u.fsync.fsync_flags & CST_KFUSE_FSYNC_FDATASYNC;
		break;
	case CST_KFUSE_MKNOD:
		in->mode = u.mknod.mode;
		break;
	case CST_KFUSE_MKDIR:
		in->mode = u.mkdir.mode;
		break;
	case CST_KFUSE_CREATE:
		in->mode = u.create.mode;
		in->flags = u.create.flags;
		break;
	case CST_KFUSE_RENAME:
		in->node2 = u.rename.newdir;
		break;
	case CST_KFUSE_RENAME2:
		in->node2 = u.rename2.newdir;
		in->flags = u.rename2.flags;
		break;
	case CST_KFUSE_LINK:
		in->node2 = u.link.oldnodeid;
		break;
	case CST_KFUSE_SETATTR:
		memcpy(&in->setattr, p, sizeof(in->setattr));
		in->fh = in->setattr.valid & CST_KFUSE_FATTR_FH ? in->setattr.fh : 0;
		break;
	case CST_KFUSE_SETXATTR:
		in->size = u.setxattr.size;
		in->flags = u.setxattr.flags;
		in->data = in->name + strlen(in->name) + 1;
		if (in->size > (size_t)(p + len - in->data))
			return -EINVAL;
		break;
	case CST_KFUSE_FORGET:
		in->count = u.forget.nlookup;
		break;
	case CST_KFUSE_BATCH_FORGET:
		if (u.batch.count > (len - sizeof(u.batch)) / sizeof(struct cst_kfuse_forget_one))
			return -EINVAL;
		in->count = u.batch.count;
		in->forgets = p + sizeof(u.batch);
		break;
	case CST_KFUSE_GETATTR:
		in->fh = u.getattr.fh;
		break;
	case CST_KFUSE_STATX:
		in->fh = u.statx.fh;
		in->flags = u.statx.sx_mask;
		break;
	case CST_KFUSE_OPEN:
	case CST_KFUSE_OPENDIR:
		in->flags = u.open.flags;
		break;
	case CST_KFUSE_READ:
	case CST_KFUSE_READDIR:
	case CST_KFUSE_READDIRPLUS:
		in->fh = u.read.fh;
		in->offset = u.read.offset;
		in->size = u.read.size;
		break;
	case CST_KFUSE_RELEASE:
	case CST_KFUSE_RELEASEDIR:
		in->fh = u.release.fh;
		break;
	case CST_KFUSE_GETXATTR:
	case CST_KFUSE_LISTXATTR:
		in->size = u.getxattr.size;
		break;
	case CST_KFUSE_ACCESS:
		in->flags = u.access.mask;
		break;
	case CST_KFUSE_INTERRUPT:
		in->target = u.interrupt.unique;
		break;
	case CST_KFUSE_INIT:
		memcpy(&in->init, p, len < sizeof(in->init) ? len : sizeof(in->init));
		break;
	default:
		break;
	}
	return 0;
}

static int parse_names(struct cst_fuse_in *in, const char *p, const char *end)
{
	const char **names[] = {&in->name, &in->name2};

	for (size_t i = 0; i < ops[in->opcode].names; i++) {
		const char *nul = memchr(p, 0, (size_t)(end - p));

		if (!nul)
			return -EINVAL;
		*names[i] = p;
		p = nul + 1;
	}
	return 0;
}

int cst_fuse_parse(const void *data, size_t len, struct cst_fuse_in *in)
{
	struct cst_kfuse_in_header h;
	const char *p = data;
	size_t extensions;

	memset(in, 0, sizeof(*in));
	if (len < sizeof(h))
		return -EINVAL;
	memcpy(&h, p, sizeof(h));
	in->opcode = h.opcode;
	in->op_name = cst_fuse_op_name(h.opcode);
	in->unique = h.unique;
	in->resent = (h.unique & CST_KFUSE_UNIQUE_RESENT) != 0;
	in->node = h.nodeid;
	in->uid = h.uid;
	in->gid = h.gid;
	in->pid = h.pid;
	extensions = (size_t)h.total_extlen * 8;
	if (h.len != len || extensions > len - sizeof(h))
		return -EINVAL;
	p += sizeof(h);
	len -= sizeof(h) + extensions;

	if (h.opcode >= CST_KFUSE_OPCODES)
		return 0;
	in->class = ops[h.opcode].class;
	if (len < ops[h.opcode].fixed)
		return -EINVAL;
	if (parse_names(in, p + ops[h.opcode].fixed, p + len) < 0)
		return -EINVAL;
	return ops[h.opcode].fixed ? parse_fixed(in, p, len) : 0;
}

struct cst_kfuse_forget_one cst_fuse_parse_forget(const struct cst_fuse_in *in, size_t i)
{
	struct cst_kfuse_forget_one one;

	memcpy(&one, in->forgets + i * sizeof(one), sizeof(one));
	return one;
}
