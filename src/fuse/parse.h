/* Reading one request of the kernel: a pure function over the bytes that read(2) gave. Nothing is trusted: lengths, the string ends
 * and the counts are checked against the buffer, so that a damaged request is an error and never a stray access.
 *
 * Strings and arrays in the result point into the buffer. Any thread. */
#pragma once

#include "fuse/abi.h"

#include <stdbool.h>
#include <stddef.h>

/* What is done with an operation; the table in parse.c gives each opcode one. */
enum cst_fuse_class {
	CST_FUSE_UNKNOWN, /* ENOSYS */
	CST_FUSE_SERVED,  /* handled by its own code */
	CST_FUSE_WRITES,  /* changes something: the file system decides */
	CST_FUSE_SAVES,	  /* FLUSH and FSYNC: the file system's on a mount that writes, else as NOSYS */
	CST_FUSE_IS_OK,	  /* nothing to do: success */
	CST_FUSE_NOSYS,	  /* the kernel has a default of its own for ENOSYS, which is what we want */
	CST_FUSE_NOTTY,
};

struct cst_fuse_in {
	uint32_t opcode;
	enum cst_fuse_class class;
	const char *op_name; /* "lookup" */
	uint64_t unique;     /* as sent, with bit 63: it goes back so */
	bool resent;
	uint64_t node;
	uint32_t uid, gid, pid;
	const char *name;  /* LOOKUP, GETXATTR, and what makes, removes or renames a name */
	const char *name2; /* RENAME(2): the new name; SYMLINK: what it points to */
	uint64_t node2;	   /* RENAME(2): the new parent */
	const char *data;  /* WRITE: the bytes; SETXATTR: the value; `size` of them */
	uint64_t fh;
	uint64_t offset;
	uint32_t size; /* READ, WRITE, READDIR(PLUS), GETXATTR, SETXATTR, LISTXATTR */
	uint32_t
		flags; /* OPEN, CREATE, OPENDIR: open(2) flags; ACCESS: the mask; STATX: the wanted fields; FSYNC: 1, data alone; SETXATTR and RENAME2: theirs */
	uint32_t mode; /* CREATE, MKNOD, MKDIR; the kernel has taken the umask away */
	struct cst_kfuse_setattr_in setattr;
	uint64_t count;		       /* FORGET: lookups; BATCH_FORGET: entries in `forgets` */
	const char *forgets;	       /* struct cst_kfuse_forget_one, not aligned */
	uint64_t target;	       /* INTERRUPT: the request meant */
	struct cst_kfuse_init_in init; /* zeroes where an older kernel sent less */
};

/* 0; -EINVAL: not a whole request (in->unique is then 0 unless the header could be read, in which case it can be answered). */
int cst_fuse_parse(const void *data, size_t len, struct cst_fuse_in *in);
/* Entry `i` < in->count of a BATCH_FORGET. */
struct cst_kfuse_forget_one cst_fuse_parse_forget(const struct cst_fuse_in *in, size_t i);
/* "lookup", "op-99" is "unknown". */
const char *cst_fuse_op_name(uint32_t opcode);
