/* Messages to the kernel. A thread of their own sends them: an INVAL_ENTRY waits for lookups in its directory and an INVAL_INODE of a
 * range for reads, which readers and loop threads must be free to answer meanwhile.
 *
 * The queue is bounded; who has many messages lets it settle now and then. What doesn't fit is made good by one INC_EPOCH at its end: all names are
 * looked up again, and a lookup finds the new version of whatever has become stale (and mounts inside are lost). Kernels without it (before 6.16) go by the timeouts. */
#include "fuse/internal.h"

#define CST_LOG_AREA "fuse"
#include "base/clock.h"
#include "base/log.h"
#include "base/pool.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#define SETTLE_NS (1 * CST_NS_PER_S)

static int send_notice(const struct cst_fuse *fuse, const struct cst_fuse_notice *n)
{
	struct cst_kfuse_out_header h = {.error = n->code};
	struct cst_kfuse_inval_inode_out node = {n->node, n->offset, n->length};
	struct cst_kfuse_inval_entry_out entry = {n->node, (uint32_t)n->name_len, CST_KFUSE_EXPIRE_ONLY};
	struct iovec iov[3] = {{&h, sizeof(h)}};
	int count = 1;

	switch (n->code) {
	case CST_KFUSE_NOTIFY_INVAL_INODE:
		iov[count++] = (struct iovec){&node, sizeof(node)};
		break;
	case CST_KFUSE_NOTIFY_INVAL_ENTRY:
		iov[count++] = (struct iovec){&entry, sizeof(entry)};
		iov[count++] = (struct iovec){(void *)(uintptr_t)n->name, n->name_len + 1};
		break;
	default:
		break;
	}
	for (int i = 0; i < count; i++)
		h.len += (uint32_t)iov[i].iov_len;
	/* ENOENT is normal: the kernel does not know the node or name (any more). */
	return writev(fuse->channels[0].fd, iov, count) < 0 && errno != ENOENT ? -errno : 0;
}

static struct cst_fuse_notice *notice_new(enum cst_kfuse_notify code, uint64_t node, size_t name_len)
{
	struct cst_fuse_notice *n = cst_xmalloc(sizeof(*n) + name_len + 1);

	memset(n, 0, sizeof(*n));
	n->code = code;
	n->node = node;
	n->name_len = name_len;
	n->name[name_len] = '\0';
	return n;
}

/* The next message, which has then left the queue; NULL when there is none. */
static struct cst_fuse_notice *next_locked(struct cst_fuse *fuse)
{
	struct cst_fuse_notice *n = STAILQ_FIRST(&fuse->notify.queue);

	if (n) {
		STAILQ_REMOVE_HEAD(&fuse->notify.queue, link);
		fuse->notify.count--;
		if (n->code == CST_KFUSE_NOTIFY_INC_EPOCH)
			fuse->notify.epoch_queued = false;
	} else if (fuse->notify.lost > 0) {
		cst_log_warn("%llu messages to the kernel found the queue full: %s",
			     (unsigned long long)fuse->notify.lost,
			     fuse->agreed.minor >= 44 ? "all names are looked up again"
						      : "changes show when the timeouts end");
		fuse->notify.lost = 0;
		if (fuse->agreed.minor >= 44)
			n = notice_new(CST_KFUSE_NOTIFY_INC_EPOCH, 0, 0);
		fuse->notify.taken += n != NULL;
	}
	return n;
}

static void *notify_main(void *arg)
{
	struct cst_fuse *fuse = arg;

	pthread_mutex_lock(&fuse->notify.lock);
	for (;;) {
		struct cst_fuse_notice *n;
		int rc;

		if (fuse->notify.ending)
			break;
		if (fuse->notify.read_ahead_due) {
			fuse->notify.read_ahead_due = false;
			pthread_mutex_unlock(&fuse->notify.lock);
			cst_fuse_read_ahead_write(fuse);
			pthread_mutex_lock(&fuse->notify.lock);
			continue;
		}
		n = next_locked(fuse);
		if (!n) {
			pthread_cond_wait(&fuse->notify.wake, &fuse->notify.lock);
			continue;
		}
		pthread_mutex_unlock(&fuse->notify.lock);
		rc = send_notice(fuse, n);
		if (rc < 0 && rc != -ENODEV && rc != -ENOTCONN && rc != -ECONNABORTED && rc != -EBADF)
			cst_log_warn("the kernel refused notification %d for node %llu: %s", (int)n->code,
				     (unsigned long long)n->node, strerror(-rc));
		free(n);
		pthread_mutex_lock(&fuse->notify.lock);
		fuse->notify.told++;
		pthread_cond_broadcast(&fuse->notify.wake);
	}
	fuse->notify.left = true;
	pthread_cond_broadcast(&fuse->notify.wake);
	pthread_mutex_unlock(&fuse->notify.lock);
	return NULL;
}

static void enqueue(struct cst_fuse *fuse, struct cst_fuse_notice *n)
{
	bool epoch = n->code == CST_KFUSE_NOTIFY_INC_EPOCH, taken = false;

	pthread_mutex_lock(&fuse->notify.lock);
	if (!fuse->notify.started || fuse->notify.ending || (epoch && fuse->notify.epoch_queued)) {
		/* nobody to tell, or told already */
	} else if (fuse->notify.count >= CST_FUSE_NOTICES_MAX) {
		fuse->notify.lost++;
	} else {
		STAILQ_INSERT_TAIL(&fuse->notify.queue, n, link);
		fuse->notify.count++;
		fuse->notify.taken++;
		fuse->notify.epoch_queued |= epoch;
		taken = true;
		pthread_cond_broadcast(&fuse->notify.wake);
	}
	pthread_mutex_unlock(&fuse->notify.lock);
	if (!taken)
		free(n);
}

void cst_fuse_notify_read_ahead(struct cst_fuse *fuse)
{
	pthread_mutex_lock(&fuse->notify.lock);
	fuse->notify.read_ahead_due = true;
	pthread_cond_broadcast(&fuse->notify.wake);
	pthread_mutex_unlock(&fuse->notify.lock);
}

void cst_fuse_notify_node(void *host, uint64_t node, int64_t offset, int64_t length)
{
	struct cst_fuse *fuse = host;
	struct cst_fuse_notice *n = notice_new(CST_KFUSE_NOTIFY_INVAL_INODE, node, 0);

	CST_CHECK(fuse, CST_FUSE_MAGIC);
	n->offset = offset;
	n->length = length;
	enqueue(fuse, n);
}

void cst_fuse_notify_name(void *host, uint64_t parent, struct cst_slice name)
{
	struct cst_fuse *fuse = host;
	struct cst_fuse_notice *n;

	CST_CHECK(fuse, CST_FUSE_MAGIC);
	/* Before 7.38 the kernel would take the message for a plain invalidation, which unmounts what is mounted below; names there get
	 * old by their entry_timeout alone. */
	if (!(fuse->agreed.flags & CST_KFUSE_HAS_EXPIRE_ONLY)) {
		if (!__atomic_exchange_n(&fuse->notify.warned, true, __ATOMIC_RELAXED))
			cst_log_info("this kernel can't expire names on request (Linux 6.2 can): they are refreshed "
				     "after entry_timeout");
		return;
	}
	n = notice_new(CST_KFUSE_NOTIFY_INVAL_ENTRY, parent, name.len);
	memcpy(n->name, name.data, name.len);
	enqueue(fuse, n);
}

int cst_fuse_expire_all(struct cst_fuse *fuse)
{
	CST_CHECK(fuse, CST_FUSE_MAGIC);
	if (fuse->agreed.minor < 44)
		return -EOPNOTSUPP;
	enqueue(fuse, notice_new(CST_KFUSE_NOTIFY_INC_EPOCH, 0, 0));
	return 0;
}

bool cst_fuse_notify_settle(void *host)
{
	struct cst_fuse *fuse = host;
	int64_t end = cst_now() + SETTLE_NS;
	struct timespec until = {end / CST_NS_PER_S, end % CST_NS_PER_S};
	uint64_t wanted;
	bool settled;

	CST_CHECK(fuse, CST_FUSE_MAGIC);
	pthread_mutex_lock(&fuse->notify.lock);
	wanted = fuse->notify.taken;
	while (fuse->notify.started && !fuse->notify.ending && fuse->notify.told < wanted)
		if (pthread_cond_timedwait(&fuse->notify.wake, &fuse->notify.lock, &until) == ETIMEDOUT)
			break;
	settled = fuse->notify.told >= wanted;
	pthread_mutex_unlock(&fuse->notify.lock);
	return settled;
}

int cst_fuse_notify_start(struct cst_fuse *fuse)
{
	int rc = cst_thread_start(&fuse->notify.thread, "cst-notify", 0, notify_main, fuse);

	fuse->notify.started = rc == 0;
	return rc;
}

bool cst_fuse_notify_stop(struct cst_fuse *fuse, int64_t ns)
{
	int64_t end = cst_now() + ns;
	struct timespec until = {end / CST_NS_PER_S, end % CST_NS_PER_S};
	struct cst_fuse_notice *n;
	bool started, left;

	pthread_mutex_lock(&fuse->notify.lock);
	started = fuse->notify.started;
	fuse->notify.ending = true;
	pthread_cond_broadcast(&fuse->notify.wake);
	while (started && !fuse->notify.left)
		if (pthread_cond_timedwait(&fuse->notify.wake, &fuse->notify.lock, &until) == ETIMEDOUT)
			break;
	left = !started || fuse->notify.left;
	if (left)
		fuse->notify.started = false;
	pthread_mutex_unlock(&fuse->notify.lock);
	if (!left)
		return false;
	if (started)
		pthread_join((pthread_t)fuse->notify.thread, NULL);
	while ((n = STAILQ_FIRST(&fuse->notify.queue))) {
		STAILQ_REMOVE_HEAD(&fuse->notify.queue, link);
		free(n);
	}
	return true;
}
