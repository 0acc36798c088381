/* What can't be published is kept: the uncompleted upload stays in the store, what is in memory goes to keep_dir, a record tells the two. */
#define CST_LOG_AREA "publish"
#include "publish/internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <string.h>
#include <sys/mman.h>

#define CLOSED_PATIENCE (30 * CST_NS_PER_S) /* when the stream is closed nobody tries again */
#define CLOSED_PAUSE (CST_NS_PER_S / 2)

struct keep_job {
	struct job job;
	struct cst_publish_stream *stream; /* counted */
	struct cst_keep_record record;
	struct iovec *tail;
	int tail_count;
	void **maps; /* of spilled chunks; NULL where there is none */
	uint64_t tail_bytes;
	bool closed;
	int rc;
	struct cst_error err;
};

static struct cst_slice dup_slice(struct cst_slice s)
{
	return (struct cst_slice){cst_xstrndup(s.data ? s.data : "", s.len), s.len};
}

static void describe_locked(const struct cst_publish_stream *s, struct cst_keep_record *r, const char *reason)
{
	const struct cst_publish *p = s->publish;
	const struct properties *properties = s->pub.properties ? s->pub.properties : s->properties;
	bool uploaded = s->upload_id.len > 0;
	uint64_t crc = 0;
	/* "oss://name at …": which cloud it is has to be known again. */
	const char *bucket = cst_bucket_describe(p->config.bucket);
	r->bucket = cst_xstrndup(bucket, strcspn(bucket, " "));
	r->key = cst_xstrndup(s->key.data ? s->key.data : "", s->key.len);
	r->reason = cst_xstrdup(reason);
	r->writer = cst_xstrdup(p->writer);
	r->base_etag = cst_xstrdup(s->base.exists ? s->base.etag : "");
	r->write_id = cst_xstrdup(uploaded ? s->upload_write_id : s->pub.id);
	r->upload_id = cst_xstrndup(uploaded ? s->upload_id.data : "", s->upload_id.len);
	r->content_type = cst_xstrndup(properties->content_type.data ? properties->content_type.data : "",
				       properties->content_type.len);
	r->at = cst_wall() / CST_NS_PER_S;
	r->size = s->size;
	r->crc64 = total_crc(s, s->size, s->crc, &crc) ? crc : 0;
	r->meta = cst_xcalloc(properties->meta_count + 1, sizeof(*r->meta));
	for (; r->meta_count < properties->meta_count; r->meta_count++) {
		r->meta[r->meta_count].name = dup_slice(properties->meta[r->meta_count].name);
		r->meta[r->meta_count].value = dup_slice(properties->meta[r->meta_count].value);
	}
	r->parts = cst_xcalloc(s->part_count + 1, sizeof(*r->parts));
	for (size_t i = 0; uploaded && i < s->part_count; i++) {
		r->parts[r->part_count] = s->parts[i].part;
		if (s->parts[i].state != PART_DONE)
			r->parts[r->part_count].etag[0] = '\0';
		r->part_count++;
	}
}

static char *chunk_data(struct keep_job *job, const struct chunk *c)
{
	if (c->state == CHUNK_MEMORY)
		return c->block + c->skip;
	void *map = mmap(NULL, BLOCK_SIZE, PROT_READ, MAP_SHARED, job->job.publish->spill_fd,
			 (off_t)(c->slot * BLOCK_SIZE));
	if (map == MAP_FAILED) {
		job->rc = -errno;
		return NULL;
	}
	job->maps[job->tail_count] = map;
	return (char *)map + c->skip;
}

/* From the first byte that is in no part; where later ones are, a hole. */
static void collect_tail_locked(struct cst_publish_stream *s, struct keep_job *job)
{
	const struct chunk *c = TAILQ_FIRST(&s->chunks);
	int room = 0;
	uint64_t at = job->record.tail_from = c ? c->offset : s->size;
	TAILQ_FOREACH (c, &s->chunks, link)
		room += 2;
	job->tail = cst_xcalloc((size_t)room + 1, sizeof(*job->tail));
	job->maps = cst_xcalloc((size_t)room + 1, sizeof(*job->maps));
	TAILQ_FOREACH (c, &s->chunks, link) {
		if (c->offset > at)
			job->tail[job->tail_count++] = (struct iovec){NULL, c->offset - at};
		job->tail[job->tail_count].iov_base = chunk_data(job, c);
		job->tail[job->tail_count++].iov_len = c->length;
		job->tail_bytes += c->length;
		at = c->offset + c->length;
	}
	if (at < s->size) /* up to its end, or it would seem to have been cut off */
		job->tail[job->tail_count++] = (struct iovec){NULL, s->size - at};
}

static void where_kept(const struct keep_job *job, struct cst_error *err)
{
	const struct cst_keep_record *r = &job->record;
	if (r->part_count)
		cst_error_hint(err,
			       "your version is kept as %s: %zu parts of the upload %.60s, and the rest in %s; see "
			       "`cistern conflicts`",
			       r->id, r->part_count, r->upload_id, job->job.publish->keep_dir);
	else
		cst_error_hint(err, "your version is kept as %s in %s; see `cistern conflicts`", r->id,
			       job->job.publish->keep_dir);
}

static void where_not_kept(const struct keep_job *job, struct cst_error *err)
{
	const struct cst_publish *p = job->job.publish;
	cst_error_hint(
		err,
		"it could not be kept in %s (%s): %llu bytes are still in the memory of process %d, and the next fsync "
		"or close tries again",
		p->keep_dir ? p->keep_dir : "any directory, none is given", strerror(-job->rc),
		(unsigned long long)job->tail_bytes, (int)getpid());
}

/* Of a publication. */
static void conflict_told_locked(struct cst_publish_stream *s, struct keep_job *job, struct todo *todo)
{
	struct cst_publish *p = s->publish;
	struct cst_error err = s->pub.refused_err;
	char text[CST_ERROR_TEXT_MAX];
	if (job->rc == 0)
		where_kept(job, &err);
	else
		where_not_kept(job, &err);
	if (!s->failed)
		p->stats.conflicts++;
	cst_log_error("%s", cst_error_text(&err, text, sizeof(text)));
	free(cst_steal(s->fail_err));
	s->failed = 0;
	stream_fail_locked(s, -ESTALE, &err);
	writes_fail_locked(s, -ESTALE, &err, todo);
	publication_fail_locked(s, -ESTALE, &err, todo);
}

/* Of a stream that was given up. */
static void closed_told(const struct keep_job *job)
{
	const struct cst_keep_record *r = &job->record;
	if (job->rc == 0)
		cst_log_warn("%s/%.200s was closed before it was published: what was written is kept as %s in %s",
			     r->bucket, r->key, r->id, job->job.publish->keep_dir);
	else
		cst_log_error(
			"%s/%.200s was closed before it was published, and %llu bytes are lost: they could not be kept in "
			"%s: %s",
			r->bucket, r->key, (unsigned long long)job->tail_bytes,
			job->job.publish->keep_dir ? job->job.publish->keep_dir : "any directory", strerror(-job->rc));
}

static void keep_done_locked(struct cst_publish_stream *s, struct keep_job *job, struct todo *todo)
{
	s->publish->jobs--;
	if (job->rc == 0) {
		s->kept = true;
		upload_forget_locked(s);
		cst_buf_clear(&s->upload_id);
		chunks_drop_locked(s);
	}
	if (job->closed) {
		closed_told(job);
		s->kept = true; /* nobody tries again */
		s->keeping = false;
	} else {
		conflict_told_locked(s, job, todo);
	}
}

static void free_job(struct keep_job *job)
{
	for (int i = 0; i < job->tail_count; i++)
		if (job->maps[i])
			munmap(job->maps[i], BLOCK_SIZE);
	cst_keep_record_fini(&job->record);
	free(job->maps);
	free(job->tail);
	free(job);
}

/* Half a minute for all that are closed while the disk is full, not for one after the other. */
static bool may_try_again(struct keep_job *job)
{
	struct cst_publish *p = job->job.publish;
	int64_t now = cst_now();
	pthread_mutex_lock(&p->lock);
	if (p->keep_failed == 0 || now - p->keep_failed > CLOSED_PATIENCE)
		p->keep_failing = now;
	p->keep_failed = now;
	bool may = job->closed && p->keep_dir && now - p->keep_failing < CLOSED_PATIENCE;
	pthread_mutex_unlock(&p->lock);
	return may;
}

static void run_keep(void *arg)
{
	struct keep_job *job = arg;
	struct cst_publish *p = job->job.publish;
	struct cst_publish_stream *s = job->stream;
	struct todo todo;
	publish_todo_init(&todo);
	if (!p->keep_dir)
		job->rc = -ENOENT;
	while (job->rc == 0) {
		job->rc = cst_keep_write(p->keep_dir, &job->record, job->tail, job->tail_count, &job->err);
		if (job->rc == 0 || !may_try_again(job))
			break;
		job->rc = 0;
		cst_sleep(CLOSED_PAUSE);
	}
	pthread_mutex_lock(&p->lock);
	keep_done_locked(s, job, &todo);
	advance_locked(s, &todo);
	memory_pump_locked(p, &todo);
	pthread_mutex_unlock(&p->lock);
	publish_todo_run(p, &todo);
	pthread_mutex_lock(&p->lock);
	stream_unref_locked(s);
	pthread_mutex_unlock(&p->lock);
	free_job(job);
}

/* The small end of an upload is still here although it has arrived. Nothing is on its way now. */
static void drop_arrived_locked(struct cst_publish_stream *s)
{
	struct chunk *c, *next;
	parts_rejoin_locked(s);
	for (c = TAILQ_FIRST(&s->chunks); c; c = next) {
		next = TAILQ_NEXT(c, link);
		if (c->part && s->parts[c->part - 1].state == PART_DONE)
			chunk_free_locked(s, c);
	}
}

void kept_start_locked(struct cst_publish_stream *s, const char *reason, struct todo *todo)
{
	struct keep_job *job = CST_NEW(struct keep_job);
	job->job.publish = s->publish;
	job->job.run = run_keep;
	job->stream = s;
	job->closed = s->pub.phase == PHASE_NONE;
	stream_ref(s);
	s->publish->jobs++;
	drop_arrived_locked(s);
	describe_locked(s, &job->record, reason);
	collect_tail_locked(s, job);
	STAILQ_INSERT_TAIL(&todo->jobs, &job->job, link);
}
