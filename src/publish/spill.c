/* Bytes that are too few for a part, on the disk for want of memory: a file without a name in keep_dir, in slots of a block each. Only streams
 * at rest are taken; what is read back is checked by its CRC. */
#define CST_LOG_AREA "publish"
#include "publish/internal.h"

#include "base/digest.h"
#include "base/log.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define SPILL_CHUNKS 64 /* of one job */

struct spill_job {
	struct job job;
	int rc;
	unsigned count;
	struct {
		struct cst_publish_stream *stream; /* counted */
		struct chunk *chunk;		   /* SPILLING */
		uint64_t slot;
		const char *data;
		uint32_t skip, length;
	} items[SPILL_CHUNKS];
};

static int write_all(int fd, const char *data, size_t len, uint64_t at)
{
	while (len) {
		ssize_t n = pwrite(fd, data, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		data += n;
		len -= (size_t)n;
		at += (uint64_t)n;
	}
	return 0;
}

static int read_all(int fd, char *data, size_t len, uint64_t at)
{
	while (len) {
		ssize_t n = pread(fd, data, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		data += n;
		len -= (size_t)n;
		at += (uint64_t)n;
	}
	return 0;
}

int spill_read(const struct cst_publish *p, uint64_t slot, uint32_t skip, void *data, uint32_t length)
{
	return read_all(p->spill_fd, data, length, slot * BLOCK_SIZE + skip);
}

/* The first job makes it; there is one at a time, and spill_fd changes but once. */
static int open_file(struct cst_publish *p)
{
	if (mkdir(p->keep_dir, 0700) < 0 && errno != EEXIST)
		return -errno;
	int fd = open(p->keep_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0) {
		CST_AUTO_BUF path = CST_BUF_INIT;
		cst_buf_printf(&path, "%s/.spill-XXXXXX", p->keep_dir);
		fd = mkostemp(path.data, O_CLOEXEC);
		if (fd >= 0)
			unlink(path.data);
	}
	if (fd < 0)
		return -errno;
	p->spill_fd = fd;
	return 0;
}

/* ---- slots ---- */

static uint64_t slot_take_locked(struct cst_publish *p)
{
	p->spilled++;
	return p->spill_free_count ? p->spill_free[--p->spill_free_count] : p->spill_end++;
}

void spill_slot_put_locked(struct cst_publish *p, uint64_t slot)
{
	p->spilled--;
	if (p->spill_free_count == p->spill_free_room) {
		p->spill_free_room = cst_max(2 * p->spill_free_room, (size_t)256);
		p->spill_free = cst_xrealloc(p->spill_free, p->spill_free_room * sizeof(*p->spill_free));
	}
	p->spill_free[p->spill_free_count++] = slot;
	/* Nothing is there any more: the disk has its room back. */
	if (p->spilled == 0 && p->spill_fd >= 0) {
		p->spill_free_count = 0;
		p->spill_end = 0;
		if (ftruncate(p->spill_fd, 0) < 0)
			cst_log_debug("ftruncate: %s", strerror(errno));
	}
}

void spill_fini(struct cst_publish *p)
{
	if (p->spill_fd >= 0)
		close(p->spill_fd);
	free(p->spill_free);
}

/* ---- to the disk ---- */

static void spill_ended_locked(struct cst_publish *p, const struct spill_job *job)
{
	for (unsigned i = 0; i < job->count; i++) {
		struct cst_publish_stream *s = job->items[i].stream;
		struct chunk *c = job->items[i].chunk;
		s->spilling--;
		p->spilling--;
		if (job->rc < 0) {
			c->state = CHUNK_MEMORY;
			spill_slot_put_locked(p, job->items[i].slot);
			continue;
		}
		c->state = CHUNK_DISK;
		c->slot = job->items[i].slot;
		block_put_locked(s, cst_steal(c->block));
		s->disk++;
		p->stats.bytes_spilled += c->length;
	}
	p->spill_error = job->rc;
}

static void run_spill(void *arg)
{
	struct spill_job *job = arg;
	struct cst_publish *p = job->job.publish;
	struct todo todo;
	publish_todo_init(&todo);
	if (p->spill_fd < 0)
		job->rc = open_file(p);
	for (unsigned i = 0; i < job->count && job->rc == 0; i++)
		job->rc = write_all(p->spill_fd, job->items[i].data, job->items[i].length,
				    job->items[i].slot * BLOCK_SIZE + job->items[i].skip);
	if (job->rc < 0)
		cst_log_warn("can't use %s for bytes that wait for their upload: %s", p->keep_dir, strerror(-job->rc));
	pthread_mutex_lock(&p->lock);
	spill_ended_locked(p, job);
	for (unsigned i = 0; i < job->count; i++)
		advance_locked(job->items[i].stream, &todo);
	if (job->rc == 0)
		memory_pump_locked(p, &todo);
	else
		memory_hopeless_locked(p, &todo);
	pthread_mutex_unlock(&p->lock);
	publish_todo_run(p, &todo);
	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < job->count; i++)
		stream_unref_locked(job->items[i].stream);
	pthread_mutex_unlock(&p->lock);
	free(job);
}

/* It waits for its bytes on the disk, and others go before it: what it has in memory goes there too, or all of those could hold what the first one wants. */
static bool is_behind(const struct cst_publish_stream *s)
{
	return s->load_waiting && s != TAILQ_FIRST(&s->publish->loads);
}

/* A stream whose bytes nobody is about to use. */
static bool may_spill(const struct cst_publish_stream *s)
{
	bool kept = s->keeping || is_being_kept(s); /* a job reads its blocks */
	return !s->copying && !s->loading && !s->finished && !s->reset_pending && s->grant_count == 0 &&
	       (s->pub.phase == PHASE_NONE || s->pub.target < s->size || is_behind(s)) && !kept;
}

static bool chunk_may_spill(const struct cst_publish_stream *s, const struct chunk *c)
{
	if (c->state != CHUNK_MEMORY || c->pins > 0 || c->length == 0)
		return false;
	return is_behind(s) || ((s->pub.phase == PHASE_NONE || c->offset >= s->pub.target) &&
				!(s->load_waiting && c->offset >= s->load_from && c->offset < s->load_to));
}

static unsigned spillable(const struct cst_publish_stream *s)
{
	const struct chunk *c;
	unsigned n = 0;
	if (may_spill(s) && s->blocks)
		TAILQ_FOREACH (c, &s->chunks, link)
			n += chunk_may_spill(s, c);
	return n;
}

static void pick_locked(struct spill_job *job, struct cst_publish_stream *s, unsigned blocks)
{
	struct cst_publish *p = s->publish;
	struct chunk *c;
	TAILQ_FOREACH (c, &s->chunks, link) {
		if (job->count == SPILL_CHUNKS || job->count >= blocks)
			return;
		if (!chunk_may_spill(s, c))
			continue;
		c->state = CHUNK_SPILLING;
		stream_ref(s);
		s->spilling++;
		p->spilling++;
		job->items[job->count].stream = s;
		job->items[job->count].chunk = c;
		job->items[job->count].slot = slot_take_locked(p);
		job->items[job->count].data = c->block + c->skip;
		job->items[job->count].skip = c->skip;
		job->items[job->count++].length = c->length;
	}
}

bool spill_locked(struct cst_publish *p, unsigned blocks, struct todo *todo)
{
	if (!p->keep_dir)
		return false;
	struct spill_job *job = CST_NEW(struct spill_job);
	while (job->count < SPILL_CHUNKS && job->count < blocks) {
		struct cst_publish_stream *s, *best = NULL;
		unsigned most = 0;
		TAILQ_FOREACH (s, &p->streams, link) {
			unsigned n = spillable(s);
			if (n > most) {
				most = n;
				best = s;
			}
		}
		if (!best)
			break;
		pick_locked(job, best, blocks);
	}
	if (job->count == 0) {
		free(job);
		return false;
	}
	job->job.publish = p;
	job->job.run = run_spill;
	STAILQ_INSERT_TAIL(&todo->jobs, &job->job, link);
	return true;
}

/* ---- and back ---- */

/* The chunks of a range that are on the disk, packed into blocks: many small ones become few. The old ones are LOADING, nobody else touches them. */
struct load_job {
	struct job job;
	struct cst_publish_stream *stream; /* counted */
	int rc;
	unsigned used, block_count;
	char **blocks;
	size_t old_count;
	struct chunk **old;
	struct chunk_list fresh;
};

static bool in_load(const struct cst_publish_stream *s, const struct chunk *c)
{
	return c->offset >= s->load_from && c->offset < s->load_to;
}

/* How many chunks are on the disk, and how many blocks each run of neighbours needs. */
static size_t load_count(const struct cst_publish_stream *s, unsigned *blocks)
{
	const struct chunk *c;
	uint64_t run = 0, all = 0;
	size_t count = 0;
	TAILQ_FOREACH (c, &s->chunks, link) {
		if (in_load(s, c) && c->state == CHUNK_DISK) {
			run += c->length;
			count++;
			continue;
		}
		all += blocks_for(run);
		run = 0;
	}
	*blocks = (unsigned)(all + blocks_for(run));
	return count;
}

/* Reads one old chunk behind what there is. */
static int load_chunk(struct load_job *job, struct chunk **to, const struct chunk *old)
{
	uint32_t done = 0;
	while (done < old->length) {
		struct chunk *c = *to;
		if (!c || c->length == BLOCK_SIZE) {
			CST_ASSERT(job->used < job->block_count);
			c = CST_NEW(struct chunk);
			c->block = job->blocks[job->used++];
			c->offset = old->offset + done;
			c->part = old->part;
			c->crc_before = c->crc = *to ? (*to)->crc : old->crc_before;
			TAILQ_INSERT_TAIL(&job->fresh, c, link);
			*to = c;
		}
		uint32_t n = cst_min(BLOCK_SIZE - c->length, old->length - done);
		int rc = spill_read(job->job.publish, old->slot, old->skip + done, c->block + c->length, n);
		if (rc < 0)
			return rc;
		c->crc = cst_crc64(c->crc, c->block + c->length, n);
		c->length += n;
		done += n;
	}
	return !*to || (*to)->crc == old->crc ? 0 : -EBADMSG;
}

static int load_all(struct load_job *job)
{
	struct chunk *to = NULL;
	for (size_t i = 0; i < job->old_count; i++) {
		const struct chunk *c = job->old[i];
		if (i && job->old[i - 1]->offset + job->old[i - 1]->length != c->offset)
			to = NULL;
		int rc = load_chunk(job, &to, c);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static void load_ended_locked(struct load_job *job)
{
	struct cst_publish_stream *s = job->stream;
	struct chunk *c;
	for (size_t i = 0; i < job->old_count; i++) {
		struct chunk *old = job->old[i];
		old->state = CHUNK_DISK;
		if (job->rc < 0)
			continue;
		while ((c = TAILQ_FIRST(&job->fresh)) && c->offset < old->offset + old->length) {
			TAILQ_REMOVE(&job->fresh, c, link);
			TAILQ_INSERT_BEFORE(old, c, link);
		}
		chunk_free_locked(s, old);
	}
	while ((c = TAILQ_FIRST(&job->fresh))) { /* of a load that failed */
		TAILQ_REMOVE(&job->fresh, c, link);
		free(c);
	}
	for (unsigned i = job->rc < 0 ? 0 : job->used; i < job->block_count; i++)
		block_put_locked(s, job->blocks[i]);
	s->loading = false;
	s->publish->jobs--;
}

static void load_failed_locked(struct cst_publish_stream *s, int rc, const char *why, struct todo *todo)
{
	struct cst_error err = CST_ERROR_INIT;
	char name[NAME_MAX_TEXT];
	cst_error_set(&err, -rc, "can't write %s", stream_name(s, name));
	cst_error_why(&err, "%s", why);
	publication_fail_locked(s, rc, &err, todo);
}

static void run_load(void *arg)
{
	struct load_job *job = arg;
	struct cst_publish *p = job->job.publish;
	struct cst_publish_stream *s = job->stream;
	struct todo todo;
	char why[256];
	publish_todo_init(&todo);
	job->rc = load_all(job);
	pthread_mutex_lock(&p->lock);
	load_ended_locked(job);
	if (job->rc < 0) {
		snprintf(why, sizeof(why), "the bytes that waited in %s can't be read back: %s", p->keep_dir,
			 strerror(-job->rc));
		load_failed_locked(s, job->rc, why, &todo);
	}
	advance_locked(s, &todo);
	memory_pump_locked(p, &todo);
	pthread_mutex_unlock(&p->lock);
	publish_todo_run(p, &todo);
	pthread_mutex_lock(&p->lock);
	stream_unref_locked(s);
	pthread_mutex_unlock(&p->lock);
	free(job->blocks);
	free(job->old);
	free(job);
}

static void start_load_locked(struct cst_publish_stream *s, size_t count, unsigned blocks, struct todo *todo)
{
	struct load_job *job = CST_NEW(struct load_job);
	struct chunk *c;
	job->job.publish = s->publish;
	job->job.run = run_load;
	job->stream = s;
	stream_ref(s);
	job->block_count = blocks;
	job->blocks = cst_xcalloc(blocks, sizeof(*job->blocks));
	for (unsigned i = 0; i < blocks; i++)
		job->blocks[i] = publish_block_take_locked(s);
	job->old = cst_xcalloc(count, sizeof(*job->old));
	TAILQ_INIT(&job->fresh);
	TAILQ_FOREACH (c, &s->chunks, link) {
		if (!in_load(s, c) || c->state != CHUNK_DISK)
			continue;
		c->state = CHUNK_LOADING;
		job->old[job->old_count++] = c;
	}
	s->loading = true;
	s->publish->jobs++;
	STAILQ_INSERT_TAIL(&todo->jobs, &job->job, link);
}

static bool stop_waiting_locked(struct cst_publish_stream *s)
{
	if (!s->load_waiting)
		return false;
	s->load_waiting = false;
	TAILQ_REMOVE(&s->publish->loads, s, load_link);
	return true;
}

bool load_locked(struct cst_publish_stream *s, uint64_t from, uint64_t to, struct todo *todo)
{
	struct cst_publish *p = s->publish;
	const struct chunk *c;
	unsigned blocks;
	bool moving = false;
	if (s->disk == 0 && s->spilling == 0 && !s->loading)
		return true;
	TAILQ_FOREACH (c, &s->chunks, link)
		if (c->offset >= from && c->offset < to)
			moving |= c->state == CHUNK_SPILLING || c->state == CHUNK_LOADING;
	if (moving || s->loading || s->load_waiting)
		return false; /* its end comes here again */
	s->load_from = from;
	s->load_to = to;
	size_t count = load_count(s, &blocks);
	if (count == 0)
		return true;
	s->load_blocks = blocks;
	if (TAILQ_EMPTY(&p->loads) && p->free_count >= blocks) {
		start_load_locked(s, count, blocks, todo);
		return false;
	}
	s->load_waiting = true;
	TAILQ_INSERT_TAIL(&p->loads, s, load_link);
	p->pump = true;
	return false;
}

bool load_serve_locked(struct cst_publish *p, struct todo *todo)
{
	struct cst_publish_stream *s = TAILQ_FIRST(&p->loads);
	unsigned blocks;
	if (!s || s->spilling)
		return false;
	size_t count = load_count(s, &blocks);
	s->load_blocks = blocks; /* more has gone to the disk while it waited, or less is wanted now */
	if (p->free_count < blocks)
		return false;
	stop_waiting_locked(s);
	if (count)
		start_load_locked(s, count, blocks, todo);
	else
		advance_locked(s, todo);
	return true;
}

void load_forget_locked(struct cst_publish_stream *s)
{
	stop_waiting_locked(s);
}

void load_refuse_locked(struct cst_publish *p, struct todo *todo)
{
	struct cst_publish_stream *s;
	while ((s = TAILQ_FIRST(&p->loads))) {
		stop_waiting_locked(s);
		load_failed_locked(s, -ENOBUFS, "the memory for uploads is full, and no room can be made", todo);
		advance_locked(s, todo);
	}
}
