/* Calls that wait, and how an INTERRUPT reaches them.
 *
 * The host interrupts a call under the call's spin lock, perhaps while it holds locks of its own, so the handler here only takes a
 * reference and leaves the work to a pool thread. An operation that ends takes the handler away first (fs_wait_end), then replies: the
 * call is not touched after its reply. */
#include "fs/internal.h"

#include <sched.h>

void cst_fs_call_lock(struct cst_fs_call *call)
{
	while (__atomic_exchange_n(&call->lock, 1, __ATOMIC_ACQUIRE))
		sched_yield();
}

void cst_fs_call_unlock(struct cst_fs_call *call)
{
	__atomic_store_n(&call->lock, 0, __ATOMIC_RELEASE);
}

void cst_fs_call_interrupt(struct cst_fs_call *call)
{
	cst_fs_call_lock(call);
	void (*cancel)(struct cst_fs_call *) = call->cancel;
	call->cancel = NULL;
	call->interrupted = true;
	if (cancel)
		cancel(call);
	cst_fs_call_unlock(call);
}

void fs_live_begin(struct cst_fs *fs)
{
	pthread_mutex_lock(&fs->live_lock);
	fs->live++;
	pthread_mutex_unlock(&fs->live_lock);
}

void fs_live_end(struct cst_fs *fs)
{
	pthread_mutex_lock(&fs->live_lock);
	if (--fs->live == 0)
		pthread_cond_broadcast(&fs->live_none);
	pthread_mutex_unlock(&fs->live_lock);
}

void fs_wait_unref(struct fs_wait *w)
{
	if (!cst_ref_put(&w->ref))
		return;
	struct cst_fs *fs = w->fs;
	pthread_mutex_destroy(&w->lock);
	w->free(w);
	fs_live_end(fs);
}

static void try_leave(struct fs_wait *w)
{
	if (!w->leave(w))
		return;
	struct cst_fs_call *call = fs_wait_end(w);
	w->fs->host->error(call, -EINTR);
	fs_wait_unref(w); /* the operation's */
}

static void abort_job(void *arg)
{
	struct fs_wait *w = arg;
	pthread_mutex_lock(&w->lock);
	bool now = w->started;
	w->abort_wanted = !now;
	pthread_mutex_unlock(&w->lock);
	if (now)
		try_leave(w);
	fs_wait_unref(w);
}

static void cancel_call(struct cst_fs_call *call)
{
	struct fs_wait *w = call->private_data;
	cst_ref_get(&w->ref);
	cst_pool_submit(w->fs->pool, abort_job, w);
}

void fs_wait_arm(struct fs_wait *w, struct cst_fs *fs, struct cst_fs_call *call, bool (*leave)(struct fs_wait *),
		 void (*free_fn)(struct fs_wait *))
{
	cst_ref_init(&w->ref);
	cst_ref_get(&w->ref); /* the starter's */
	w->fs = fs;
	w->call = call;
	pthread_mutex_init(&w->lock, NULL);
	w->leave = leave;
	w->free = free_fn;
	fs_live_begin(fs);
	cst_fs_call_lock(call);
	call->private_data = w;
	if (call->interrupted)
		w->abort_wanted = true;
	else
		call->cancel = cancel_call;
	cst_fs_call_unlock(call);
}

void fs_wait_started(struct fs_wait *w)
{
	pthread_mutex_lock(&w->lock);
	w->started = true;
	bool wanted = w->abort_wanted;
	pthread_mutex_unlock(&w->lock);
	if (wanted)
		try_leave(w);
	fs_wait_unref(w);
}

struct cst_fs_call *fs_wait_end(struct fs_wait *w)
{
	struct cst_fs_call *call = w->call;
	cst_fs_call_lock(call);
	call->cancel = NULL;
	cst_fs_call_unlock(call);
	return call;
}
