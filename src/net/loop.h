/* Event loops: one epoll instance and one thread each. An object that is registered with a loop is touched only on
 * that loop's thread; cst_loop_post() is the one way in from other threads.
 *
 * Loops are made in a group (one per core for data). Stopping a group runs what was posted before, then joins. */
#pragma once

#include "base/clock.h"
#include "base/error.h"

#include <sys/queue.h>

struct cst_loop;

/* A loop with its own thread, named for ps. NULL and err when the kernel refuses. */
struct cst_loop *cst_loop_new(const char *name, struct cst_error *err);
/* Stops, joins and frees. Not from the loop's own thread, and not before every cst_loop_post() to it has returned. */
void cst_loop_free(struct cst_loop *loop);
bool cst_loop_is_current(const struct cst_loop *loop); /* is this its thread? */

struct cst_loop_group;
struct cst_loop_group *cst_loop_group_new(const char *name, unsigned count, struct cst_error *err);
void cst_loop_group_free(struct cst_loop_group *group);
unsigned cst_loop_group_count(const struct cst_loop_group *group);
struct cst_loop *cst_loop_group_at(struct cst_loop_group *group, unsigned index);
struct cst_loop *cst_loop_group_next(struct cst_loop_group *group);    /* round robin, any thread */
struct cst_loop *cst_loop_group_current(struct cst_loop_group *group); /* the caller's own, or NULL */

/* A task posted to a loop: runs once on its thread, in posting order. The caller owns the memory, which must live
 * until fn is called. Posting a task that is still queued is an error. Any thread. */
struct cst_task {
	STAILQ_ENTRY(cst_task) link;
	void (*fn)(struct cst_task *task);
};
void cst_loop_post(struct cst_loop *loop, struct cst_task *task);

/* A descriptor watched by a loop (level triggered unless EPOLLET is given). Loop thread only. fn may delete the watch. */
struct cst_watch {
	int fd;
	uint32_t events;
	void (*fn)(struct cst_watch *watch, uint32_t events);
	uint64_t private_id; /* the loop's */
};
int cst_loop_watch(struct cst_loop *loop, struct cst_watch *watch); /* adds, or changes the events; 0 or -errno */
void cst_loop_unwatch(struct cst_loop *loop, struct cst_watch *watch);

/* A timer: fires once at `at` (cst_now() clock). Loop thread only. Zero-initialise before first use. */
struct cst_timer {
	int64_t at;
	void (*fn)(struct cst_timer *timer);
	size_t private_index; /* place in the heap + 1; 0: not armed */
};
void cst_timer_arm(struct cst_loop *loop, struct cst_timer *timer, int64_t at); /* arms or moves */
void cst_timer_cancel(struct cst_loop *loop, struct cst_timer *timer);		/* harmless when not armed */
