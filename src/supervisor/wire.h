/* Messages between the supervisor and the process that serves: SOCK_SEQPACKET, so that each arrives whole or not at all; descriptors travel
 * along. Both run as the same user from the same mount, so a strange message is a defect and not an attack; all lengths are
 * checked all the same. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define CST_WIRE_DATA_MAX 8192u
#define CST_WIRE_FDS_MAX 80u
#define CST_WIRE_VERSION 1u

enum cst_wire_type {
	/* To the serving process. */
	CST_WIRE_WELCOME = 1, /* fds: launch record, memory, device and clones when it is mounted */
	CST_WIRE_GO,	      /* a process that stood by: fds as above; its predecessor has gone */
	CST_WIRE_STOP,	      /* unmount and end */
	CST_WIRE_LEAVE,	      /* end without unmounting: another process goes on */
	CST_WIRE_REPLY,	      /* to a call, with its serial */
	/* Its calls; each gets a reply. */
	CST_WIRE_MOUNT,		/* reply: device; data: struct cst_error when it failed */
	CST_WIRE_CLONES,	/* data: how many; reply: fds */
	CST_WIRE_BACKING_OPEN,	/* fd; reply: rc is the id */
	CST_WIRE_BACKING_CLOSE, /* data: the id */
	CST_WIRE_UNMOUNT,	/* rc: 0 or -errno */
	CST_WIRE_END,		/* it is over: the descriptors are closed, which ends the connection */
	CST_WIRE_UPGRADE,	/* data: path of a program */
	/* What it tells; no reply. */
	CST_WIRE_READY,
	CST_WIRE_STANDS_BY,
	CST_WIRE_FAILED,    /* data: struct cst_error */
	CST_WIRE_STOP_WISH, /* it was sent SIGTERM */
	CST_WIRE_ADOPT,	    /* to a new supervisor: fds: pidfd, launch record, memory, device, clones; data: pid */
};

struct cst_wire {
	uint32_t version, type, serial;
	int32_t rc;
	uint32_t len, fd_count;
	char data[CST_WIRE_DATA_MAX];
	int fds[CST_WIRE_FDS_MAX]; /* owned by whoever received them; -1: taken */
};

/* 0 or -errno. Does not wait longer than a few seconds for a peer that takes nothing. */
int cst_wire_send(int socket, uint32_t type, uint32_t serial, int rc, const void *data, size_t len, const int *fds,
		  unsigned fd_count);
/* 0; -EAGAIN: nothing came within `ms` (negative: waits for ever); -EPIPE: the peer has gone; -EPROTO. */
int cst_wire_receive(int socket, struct cst_wire *message, int ms);
/* Closes the descriptors that nobody took. */
void cst_wire_drop(struct cst_wire *message);
int cst_wire_take_fd(struct cst_wire *message, unsigned index); /* -1: there is none */
/* A pair of sockets, close-on-exec. */
int cst_wire_pair(int pair[2]);
