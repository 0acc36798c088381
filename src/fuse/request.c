#include "fuse/internal.h"

#define CST_LOG_AREA "fuse"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>

static struct cst_fuse_shard *shard_of(struct cst_fuse *fuse, uint64_t unique)
{
	/* Bits 0 and 63 are marks; the kernel counts by two. */
	return &fuse->shards[((unique & ~CST_KFUSE_UNIQUE_RESENT) >> 1) % CST_FUSE_SHARDS];
}

static void request_unref(struct cst_fuse_request *r)
{
	if (__atomic_sub_fetch(&r->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	r->magic = 0;
	free(r->dirents);
	free(r);
}

struct cst_fuse_request *cst_fuse_request_new(struct cst_fuse_channel *channel, const struct cst_fuse_in *in)
{
	size_t name_size = in->name ? strlen(in->name) + 1 : 0, name2_size = in->name2 ? strlen(in->name2) + 1 : 0;
	bool copy = in->data && (in->opcode != CST_KFUSE_WRITE || in->size <= CST_FUSE_WRITE_COPY);
	size_t value_size = copy ? in->size : 0;
	struct cst_fuse_request *r = cst_xmalloc(sizeof(*r) + name_size + name2_size + value_size);
	struct cst_fuse_shard *shard = shard_of(channel->fuse, in->unique);

	memset(r, 0, sizeof(*r));
	r->magic = CST_FUSE_REQUEST_MAGIC;
	r->call.uid = in->uid;
	r->call.gid = in->gid;
	r->call.pid = in->pid;
	r->opcode = in->opcode;
	r->refs = 2;
	r->unique = in->unique;
	r->node = in->node;
	r->fh = in->fh;
	r->size = in->size;
	r->channel = channel;
	r->writes =
		(in->opcode == CST_KFUSE_OPEN || in->opcode == CST_KFUSE_CREATE) && (in->flags & O_ACCMODE) != O_RDONLY;
	if (name_size)
		memcpy(r->name, in->name, name_size);
	if (name2_size)
		r->name2 = memcpy(r->name + name_size, in->name2, name2_size);
	if (copy)
		r->value = memcpy(r->name + name_size + name2_size, in->data, value_size);
	else
		r->value = in->data;
	r->buffer_state = copy || !in->data ? CST_FUSE_BUFFER_DONE : CST_FUSE_BUFFER_READERS;
	__atomic_fetch_add(&channel->fuse->in_flight, 1, __ATOMIC_RELAXED);
	pthread_mutex_lock(&shard->lock);
	TAILQ_INSERT_TAIL(&shard->list, r, link);
	pthread_mutex_unlock(&shard->lock);
	return r;
}

/* The file system may answer at any moment: who comes second, it or the reader, gives the buffer away. */
static void take_buffer_along(struct cst_fuse_request *r)
{
	struct cst_fuse_channel *channel = r->channel;
	int expected = CST_FUSE_BUFFER_READERS;

	if (__atomic_load_n(&r->buffer_state, __ATOMIC_ACQUIRE) == CST_FUSE_BUFFER_DONE)
		return;
	r->buffer = channel->buffer;
	if (__atomic_compare_exchange_n(&r->buffer_state, &expected, CST_FUSE_BUFFER_TAKEN, false, __ATOMIC_ACQ_REL,
					__ATOMIC_ACQUIRE))
		channel->buffer = cst_fuse_buffer_get(channel->fuse);
}

void cst_fuse_request_dispatched(struct cst_fuse_request *r)
{
	take_buffer_along(r);
	__atomic_store_n(&r->dispatched, true, __ATOMIC_RELEASE);
	request_unref(r);
}

/* Once the count is 0 and the mount is stopping, cst_fuse_free() may free it: nothing is touched after that. */
static void request_finished(struct cst_fuse *fuse)
{
	if (!__atomic_load_n(&fuse->stopping, __ATOMIC_ACQUIRE)) {
		__atomic_sub_fetch(&fuse->in_flight, 1, __ATOMIC_ACQ_REL);
		return;
	}
	pthread_mutex_lock(&fuse->lock);
	__atomic_sub_fetch(&fuse->in_flight, 1, __ATOMIC_ACQ_REL);
	pthread_cond_broadcast(&fuse->changed);
	pthread_mutex_unlock(&fuse->lock);
}

/* EBADF: our own end; ENODEV, ECONNABORTED: the kernel's. Neither is worth a line. */
static bool is_end(int error)
{
	return error == ENODEV || error == ECONNABORTED || error == EBADF || error == ENOTCONN;
}

static int write_reply(const struct cst_fuse_request *r, int error, struct iovec *iov, int count)
{
	struct cst_kfuse_out_header h = {.unique = r->unique};
	size_t len = sizeof(h);
	bool noted;
	int rc;

	if (error > 0 || error <= -512) /* the kernel would refuse the answer and the caller would wait for ever */
		error = -EIO;
	h.error = error;
	if (error < 0)
		count = 1;
	for (int i = 1; i < count; i++)
		len += iov[i].iov_len;
	h.len = (uint32_t)len;
	iov[0] = (struct iovec){&h, sizeof(h)};
	noted = cst_fuse_keep_note(r, error, iov, count);
	do {
		rc = writev(r->channel->fd, iov, count) < 0 ? -errno : 0;
	} while (rc == -EINTR || rc == -EAGAIN);
	if (noted && (rc == 0 || rc == -ENOENT))
		cst_fuse_keep_forget(r);
	if (rc < 0 && rc != -ENOENT && !is_end(-rc))
		cst_log_error("the kernel refused the answer to %s (%zu bytes): %s", cst_fuse_op_name(r->opcode), len,
			      strerror(-rc));
	return rc;
}

int cst_fuse_request_reply(struct cst_fuse_request *r, int error, struct iovec *iov, int count)
{
	struct cst_fuse *fuse = r->channel->fuse;
	struct cst_fuse_shard *shard;
	int rc;

	CST_CHECK(r, CST_FUSE_REQUEST_MAGIC);
	/* Out of the table first: an INTERRUPT that comes now is sent back to the kernel, which drops it once it has our answer. */
	shard = shard_of(fuse, r->unique);
	pthread_mutex_lock(&shard->lock);
	TAILQ_REMOVE(&shard->list, r, link);
	pthread_mutex_unlock(&shard->lock);
	rc = write_reply(r, error, iov, count);
	if (__atomic_exchange_n(&r->buffer_state, CST_FUSE_BUFFER_DONE, __ATOMIC_ACQ_REL) == CST_FUSE_BUFFER_TAKEN)
		cst_fuse_buffer_put(fuse, r->buffer);
	request_unref(r);
	request_finished(fuse);
	return rc;
}

int cst_fuse_request_interrupt(struct cst_fuse *fuse, uint64_t unique)
{
	struct cst_fuse_shard *shard = shard_of(fuse, unique);
	struct cst_fuse_request *r;

	pthread_mutex_lock(&shard->lock);
	TAILQ_FOREACH (r, &shard->list,
		       link) /* with bit 63: of a request and its second sending the kernel knows one */
		if (r->unique == unique)
			break;
	if (!r || !__atomic_load_n(&r->dispatched, __ATOMIC_ACQUIRE)) {
		pthread_mutex_unlock(&shard->lock);
		return -EAGAIN;
	}
	__atomic_fetch_add(&r->refs, 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&shard->lock);
	cst_fs_call_interrupt(&r->call);
	request_unref(r);
	return 0;
}

/* Collects references under the lock and interrupts outside: the answer takes the lock again. */
void cst_fuse_request_interrupt_all(struct cst_fuse *fuse)
{
	for (unsigned i = 0; i < CST_FUSE_SHARDS; i++) {
		struct cst_fuse_shard *shard = &fuse->shards[i];
		struct cst_fuse_request **all = NULL, *r;
		size_t count = 0;

		pthread_mutex_lock(&shard->lock);
		TAILQ_FOREACH (r, &shard->list, link)
			count++;
		if (count)
			all = cst_xcalloc(count, sizeof(struct cst_fuse_request *));
		count = 0;
		TAILQ_FOREACH (r, &shard->list, link) {
			__atomic_fetch_add(&r->refs, 1, __ATOMIC_RELAXED);
			all[count++] = r;
		}
		pthread_mutex_unlock(&shard->lock);
		for (size_t k = 0; k < count; k++) {
			cst_fs_call_interrupt(&all[k]->call);
			request_unref(all[k]);
		}
		free(all);
	}
}

void cst_fuse_request_log_pending(struct cst_fuse *fuse)
{
	for (unsigned i = 0; i < CST_FUSE_SHARDS; i++) {
		struct cst_fuse_request *r;

		pthread_mutex_lock(&fuse->shards[i].lock);
		TAILQ_FOREACH (r, &fuse->shards[i].list, link)
			cst_log_warn("still waiting for %s of process %u (request %llu)", cst_fuse_op_name(r->opcode),
				     r->call.pid, (unsigned long long)r->unique);
		pthread_mutex_unlock(&fuse->shards[i].lock);
	}
}
