/* A file system double for the tests of src/fuse: a tree made up in memory, served by a child process, with counters and gates in memory
 * shared with the test. The test process itself only uses the mount, so that a failing assertion never leaves a server
 * waiting for itself. The child ends itself after a while, which ends every wait in the test with ENOTCONN.
 *
 *   /hello             "hello, world\n"
 *   /big               DOUBLE_BIG bytes of a pattern
 *   /link              -> hello
 *   /many/file-0…9999  empty files
 *   /slow/name-N       lookups are answered when `lookup_gate` of them have arrived
 *   /hang              reads wait until they are cancelled
 *   /through           DOUBLE_THROUGH bytes 'r', or what lies at `through_path` when opened with `through` set
 *   /out               made by CREATE, whatever the name: what is written lies in board->out; each operation that changes something is a
 *                      line in board->log (double_write.c)
 *   /stall-N           1 GiB of zeroes, N < 64; reads from `stall_from` on wait until `stall_open` is set */
#pragma once

#include "fuse/fuse.h"

#include <sys/types.h>

#define DOUBLE_BIG (UINT64_C(64) << 20)
#define DOUBLE_MANY 10000
#define DOUBLE_THROUGH (1 << 20)
#define DOUBLE_MANY_INO 100000 /* st_ino of file-0 */
#define DOUBLE_OUT 500000      /* its node */
#define DOUBLE_OUT_MAX (16 << 20)

struct double_board {
	uint64_t lookups, reads, getattrs, readdirs, forgets, cancels, opens, refused;
	uint64_t parked;   /* calls that wait now */
	uint64_t max_size; /* largest READ */
	uint64_t big_size; /* 0: DOUBLE_BIG */
	uint64_t
		pattern_len; /* bytes in memory that /big is served from, a multiple of 1 MiB; 0: 1 MiB. Set before the start. */
	int lookup_gate; /* lookups in /slow that let them all through */
	int stall_open;
	uint64_t stall_from;
	uint64_t stalled_files; /* of which a read waits or has waited */
	int direct_io;		/* answer OPEN with DIRECT_IO */
	int keep_cache;
	int through;		/* opens of /through are passed through */
	char through_path[160]; /* to this file */
	uint64_t stale_opens;	/* of /through, answered ESTALE: the next lookup gives another node id */
	uint64_t backing_ids;	/* registered now */
	uint64_t backing_error; /* errno of the last that was refused */
	uint64_t open_files;	/* for ORDER_OPEN_FILES */
	int mounted;		/* 1: serving, -1: failed */
	char error[1400];	/* why it failed */
	struct cst_fuse_stats stats;
	char passthrough[64]; /* its text, after an order */
	/* Orders to the server: the test sets `order` and sends SIGUSR1. */
	int order;
	uint64_t orders_done;
	uint64_t notices; /* messages to the kernel that wait, after an order */
	/* Writing. */
	int write_gate; /* so many WRITEs are answered together */
	uint64_t writes, write_max, writes_waiting;
	uint64_t buffers; /* in the reader's pool, after an order */
	int open_flags;	  /* CST_FS_* that CREATE and OPEN of /out are answered with */
	int flush_rc, fsync_rc;
	uint64_t out_size;
	uint32_t log_len;
	char log[8192];
	unsigned char out[DOUBLE_OUT_MAX];
};
#define FLOOD 100000
enum {
	ORDER_EXPIRE_HELLO = 1,
	ORDER_EXPIRE_SLOW,
	ORDER_EXPIRE_FLOOD, /* FLOOD names, each twice */
	ORDER_INVALIDATE_HELLO,
	ORDER_EPOCH,
	ORDER_RELEASE_STALLED,
	ORDER_RESEND,
	ORDER_OPEN_FILES, /* tells the host that `open_files` are open */
	ORDER_STATS	  /* renews `stats`, as every order does */
};

struct double_server {
	struct double_board *board;
	pid_t pid;
	char dir[64], mnt[80];
};

/* Makes s->board, which a test may fill before double_start(). */
int double_prepare(struct double_server *s);
/* Mounts below /tmp in a child that serves; uid 0 keeps root. 0, or -1 with the reason in board->error. */
int double_start(struct double_server *s, const struct cst_fuse_config *config, uid_t uid);
/* Sends SIGTERM, waits, removes the directory. The child's exit status (128 + N for a signal). */
int double_stop(struct double_server *s);
int double_wait(struct double_server *s);
void double_order(struct double_server *s, int order);
/* The byte of /big at an offset. */
static inline unsigned char double_byte(uint64_t offset)
{
	return (unsigned char)((offset * 31 + (offset >> 12) * 7) & 0xff);
}
