#include "base/pool.h"

#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/queue.h>
#include <time.h>

#define POOL_MAGIC 0x504f4f4cu
#define IDLE_NS (30 * CST_NS_PER_S)

struct job {
	void (*fn)(void *arg);
	void *arg;
	STAILQ_ENTRY(job) link;
};

struct cst_pool {
	unsigned magic;
	char name[16];
	unsigned limit;
	pthread_mutex_t lock; /* everything below */
	pthread_cond_t work, ended;
	STAILQ_HEAD(, job) jobs;
	unsigned threads, idle;
	bool stopping;
};

struct start {
	char name[16];
	void *(*fn)(void *);
	void *arg;
};

static void *named(void *arg)
{
	struct start start = *(struct start *)arg;
	free(arg);
	pthread_setname_np(pthread_self(), start.name);
	return start.fn(start.arg);
}

int cst_thread_start(unsigned long *thread, const char *name, size_t stack, void *(*fn)(void *), void *arg)
{
	struct start *start = CST_NEW(struct start);
	snprintf(start->name, sizeof(start->name), "%s", name);
	start->fn = fn;
	start->arg = arg;

	pthread_attr_t attr;
	pthread_attr_init(&attr);
	if (stack)
		pthread_attr_setstacksize(&attr, stack);
	if (!thread)
		pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	/* Signals are for the thread that waits for them. */
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_t made;
	int rc = pthread_create(&made, &attr, named, start);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	if (rc != 0)
		free(start);
	else if (thread)
		*thread = made;
	return -rc;
}

struct cst_pool *cst_pool_new(const char *name, unsigned max_threads)
{
	struct cst_pool *pool = CST_NEW(struct cst_pool);
	pool->magic = POOL_MAGIC;
	snprintf(pool->name, sizeof(pool->name), "%s", name);
	pool->limit = max_threads ? max_threads : 1;
	STAILQ_INIT(&pool->jobs);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&pool->work, &attr);
	pthread_cond_init(&pool->ended, NULL);
	pthread_condattr_destroy(&attr);
	return pool;
}

/* Waits for a job; NULL when the thread should end. Lock held. */
static struct job *next_job_locked(struct cst_pool *pool)
{
	int64_t until = cst_now() + IDLE_NS;
	struct timespec ts = {until / CST_NS_PER_S, until % CST_NS_PER_S};
	while (STAILQ_EMPTY(&pool->jobs)) {
		if (pool->stopping)
			return NULL;
		pool->idle++;
		int rc = pthread_cond_timedwait(&pool->work, &pool->lock, &ts);
		pool->idle--;
		if (rc == ETIMEDOUT && STAILQ_EMPTY(&pool->jobs))
			return NULL;
	}
	struct job *job = STAILQ_FIRST(&pool->jobs);
	STAILQ_REMOVE_HEAD(&pool->jobs, link);
	return job;
}

static void *worker(void *arg)
{
	struct cst_pool *pool = arg;
	struct job *job;
	pthread_mutex_lock(&pool->lock);
	while ((job = next_job_locked(pool))) {
		pthread_mutex_unlock(&pool->lock);
		job->fn(job->arg);
		free(job);
		pthread_mutex_lock(&pool->lock);
	}
	pool->threads--;
	pthread_cond_broadcast(&pool->ended);
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

void cst_pool_submit(struct cst_pool *pool, void (*fn)(void *arg), void *arg)
{
	CST_CHECK(pool, POOL_MAGIC);
	struct job *job = CST_NEW(struct job);
	job->fn = fn;
	job->arg = arg;
	pthread_mutex_lock(&pool->lock);
	CST_ASSERT(!pool->stopping);
	STAILQ_INSERT_TAIL(&pool->jobs, job, link);
	unsigned queued = 0;
	struct job *other;
	STAILQ_FOREACH (other, &pool->jobs, link) {
		if (++queued > pool->idle)
			break;
	}
	/* Without any thread the job would never run, so the first one must start; further ones are a matter of speed. */
	if (queued > pool->idle && pool->threads < pool->limit) {
		int rc = cst_thread_start(NULL, pool->name, 0, worker, pool);
		if (rc == 0)
			pool->threads++;
		else if (pool->threads == 0)
			cst_panic(__FILE__, __LINE__, "can't start a thread for %s: error %d", pool->name, -rc);
	}
	pthread_cond_signal(&pool->work);
	pthread_mutex_unlock(&pool->lock);
}

void cst_pool_free(struct cst_pool *pool)
{
	if (!pool)
		return;
	CST_CHECK(pool, POOL_MAGIC);
	pthread_mutex_lock(&pool->lock);
	pool->stopping = true;
	pthread_cond_broadcast(&pool->work);
	while (pool->threads)
		pthread_cond_wait(&pool->ended, &pool->lock);
	pthread_mutex_unlock(&pool->lock);
	pool->magic = 0;
	pthread_mutex_destroy(&pool->lock);
	pthread_cond_destroy(&pool->work);
	pthread_cond_destroy(&pool->ended);
	free(pool);
}
