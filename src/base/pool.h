/* A pool of threads for work that blocks (name resolution, credential fetches, disk). Threads start on demand up to
 * the limit and end after 30 s without work. Any thread may submit; jobs run in submission order, not in sequence. */
#pragma once

#include "base/cleanup.h"

struct cst_pool;
struct cst_pool *cst_pool_new(const char *name, unsigned max_threads);
/* fn(arg) runs on a pool thread, once. Never blocks. */
void cst_pool_submit(struct cst_pool *pool, void (*fn)(void *arg), void *arg);
/* Runs what was submitted, joins the threads. */
void cst_pool_free(struct cst_pool *pool);

/* Starts a thread with a name (at most 15 characters show), all signals blocked and the given stack (0: the default).
 * 0 or -errno. */
int cst_thread_start(unsigned long *thread, const char *name, size_t stack, void *(*fn)(void *), void *arg);
