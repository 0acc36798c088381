/* What the files of the supervisor's loop share. One thread. */
#pragma once

#include "supervisor/keeper.h"
#include "supervisor/supervisor.h"
#include "supervisor/wire.h"

#include <sys/types.h>

/* So many deaths in a minute are too many, whatever lies between them. */
#define SUPERVISOR_DEATHS_MAX 120u

/* A serving process. */
struct served {
	pid_t pid; /* 0: none */
	int pidfd; /* tells its end, whoever its parent is */
	int calls, events;
	bool stands_by, standing; /* an upgrade: not to serve before its predecessor has gone; it is prepared */
	bool ready;
	bool over;    /* it said that nothing is left to serve */
	bool leaving; /* it was asked to make room */
	bool hung;    /* we killed it for that */
	bool failed;
	struct cst_error why; /* failed */
	int64_t started, ready_at, killed_at;
};

struct supervisor {
	unsigned magic;
	struct cst_supervisor_ops ops;
	const char *mountpoint;
	int launch, memory, program, next_program, signals;
	struct cst_state *state;
	struct cst_state_header *header;
	int devices[CST_KEEPER_CLONES + 1];
	unsigned device_count;
	struct served now, next;
	bool was_ready; /* once */
	bool stopping, forced;
	bool told_to_stop; /* the serving process knows */
	pid_t unmounter;
	int unmounter_fd;
	bool unmounted;		 /* it has run */
	uint32_t unmount_serial; /* the call that waits for it; 0: none does */
	int64_t restart_at;	 /* 0: not due */
	unsigned quick_deaths, hangs, deaths;
	int64_t died[SUPERVISOR_DEATHS_MAX]; /* cst_now(), a ring */
	int64_t grace_until; /* the clock or this process stood still: signs of life may look older than they are */
	int64_t upgrade_until;
	bool given_up;
	struct cst_wire message;
};
#define SUPERVISOR_MAGIC 0x50be0001u

/* process.c */
int supervisor_spawn(struct supervisor *s, int program, bool stands_by, struct served *p, struct cst_error *err);
void served_fini(struct served *p);
/* What it died of, into `text`; reaps it. */
int served_reap(struct served *p, char *text, size_t size);
int supervisor_open_program(const char *path, struct cst_error *err);
pid_t supervisor_fork_unmount(struct supervisor *s, int *pidfd);
/* Ends the connection for everybody, without waiting. */
void supervisor_abort(const struct supervisor *s);

/* calls.c */
/* One message of a serving process. -EPIPE: there is none and will be none. */
int supervisor_hear(struct supervisor *s, struct served *p);
void supervisor_let_go(struct supervisor *s); /* closes the devices */
void supervisor_upgrade_failed(struct supervisor *s, const char *why);

/* supervisor.c */
void supervisor_unmount(struct supervisor *s);
void supervisor_stop(struct supervisor *s, const char *why);
