/* The INIT handshake: what we answer to what the kernel offers. A pure function, so that old and new kernels are unit cases. */
#pragma once

#include "base/error.h"
#include "fuse/abi.h"

struct cst_fuse_init_wish {
	bool readdirplus;
	bool auto_cache; /* the kernel drops pages when mtime or size change */
	bool passthrough;
	unsigned max_background; /* 0: derived from memory */
	uint64_t memory;	 /* the mount's budget, bytes */
	uint32_t max_read;	 /* bytes of one READ */
	uint32_t read_ahead_kb;	 /* that the mount will have; 0: the kernel's default */
	uint32_t max_readahead;	 /* bytes; the kernel takes the smaller of this and its own */
	uint32_t max_write;	 /* bytes of one WRITE; 0: nothing is written */
};
struct cst_fuse_init_result {
	uint32_t minor; /* the smaller of the kernel's and ours */
	uint64_t flags; /* agreed */
	uint32_t max_background, max_write;
};

/* Fills *out (and *result). 0: send it and go on; -EAGAIN: the kernel's major is newer: send it and expect another INIT;
 * -EPROTO: too old, send it nothing (err says which kernel is needed). */
int cst_fuse_init_answer(const struct cst_kfuse_init_in *in, const struct cst_fuse_init_wish *wish,
			 struct cst_kfuse_init_out *out, struct cst_fuse_init_result *result, struct cst_error *err);
/* Requests of the background kind that the kernel may have outstanding. */
uint32_t cst_fuse_init_background(unsigned wanted, uint64_t memory, uint32_t read_ahead_kb);
