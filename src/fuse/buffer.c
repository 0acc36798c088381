#include "fuse/internal.h"

#include <string.h>
#include <sys/mman.h>

#include <errno.h>

#define PAGE 4096u
#define LOCK_MAX 65536u
/* Header and arguments of a WRITE, before its data. */
#define WRITE_HEAD (sizeof(struct cst_kfuse_in_header) + sizeof(struct cst_kfuse_write_in))

void cst_fuse_buffers_init(struct cst_fuse *fuse)
{
	pthread_mutex_init(&fuse->buffers.lock, NULL);
	fuse->buffers.size = CST_KFUSE_READ_MIN;
}

void cst_fuse_buffers_fini(struct cst_fuse *fuse)
{
	struct cst_fuse_buffers *b = &fuse->buffers;

	while (b->count > 0)
		free(b->spare[--b->count]);
	pthread_mutex_destroy(&b->lock);
}

void cst_fuse_buffers_grow(struct cst_fuse *fuse, uint32_t max_write)
{
	struct cst_fuse_buffers *b = &fuse->buffers;

	if (max_write + WRITE_HEAD <= b->size)
		return;
	CST_ASSERT(b->count == 0);
	b->size = PAGE + max_write;
	b->lead = PAGE - WRITE_HEAD;
	for (unsigned i = 0; i < fuse->channel_count; i++) {
		free(fuse->channels[i].buffer);
		fuse->channels[i].buffer = cst_fuse_buffer_get(fuse);
	}
}

char *cst_fuse_buffer_get(struct cst_fuse *fuse)
{
	struct cst_fuse_buffers *b = &fuse->buffers;
	void *buffer = NULL;

	pthread_mutex_lock(&b->lock);
	if (b->count > 0)
		buffer = b->spare[--b->count];
	pthread_mutex_unlock(&b->lock);
	if (buffer)
		return buffer;
	CST_ASSERT(posix_memalign(&buffer, PAGE, b->size) == 0);
	/* Present and staying so: a request that is being read while this process is killed ends with EIO when its buffer has to be had first, and
	 * else is there for the next process. Large ones are at least not new. */
	memset(buffer, 0, b->size);
	if (b->size <= LOCK_MAX)
		(void)mlock(buffer, b->size);
	return buffer;
}

void cst_fuse_buffer_put(struct cst_fuse *fuse, char *buffer)
{
	struct cst_fuse_buffers *b = &fuse->buffers;

	pthread_mutex_lock(&b->lock);
	if (b->count < CST_ARRAY_LEN(b->spare)) {
		b->spare[b->count++] = buffer;
		buffer = NULL;
	}
	pthread_mutex_unlock(&b->lock);
	free(buffer);
}

ssize_t cst_fuse_buffer_read(const struct cst_fuse_channel *c, char **data)
{
	const struct cst_fuse_buffers *b = &c->fuse->buffers;

	*data = c->buffer + b->lead;
	return read(c->fd, *data, b->size - b->lead);
}
