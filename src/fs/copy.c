/* Copying an object inside its bucket: one request up to the store's limit, else an upload whose parts are ranges of the source.
 *
 * When an answer was lost and the repeated request finds its own work (the name taken, the upload gone), a HEAD tells whether what is there is the
 * copy: its size, and its CRC64 or ETag. */
#define CST_LOG_AREA "fs"
#include "fs/writing.h"

#define PARTS_AT_ONCE 8

struct part_job {
	struct fs_copy *copy;
	unsigned number;
};

struct fs_copy_parts {
	pthread_mutex_t lock; /* guards next, running, rc and err */
	struct cst_object_part *done;
	struct part_job *jobs;
	unsigned count, next, running; /* requests, and threads that start some */
	uint64_t part_size;
	struct cst_buf upload_id;
	int rc;
	struct cst_error err;
};

static void parts_free(struct fs_copy_parts *p)
{
	if (!p)
		return;
	pthread_mutex_destroy(&p->lock);
	free(p->done);
	free(p->jobs);
	cst_buf_fini(&p->upload_id);
	free(p);
}

static void copy_end(struct fs_copy *c, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct fs_copy_parts *p = cst_steal(c->parts);
	struct cst_object_info known = info ? *info : (struct cst_object_info){0};
	known.size = c->size;
	c->done(c, rc, &known, err);
	parts_free(p);
}

struct doubt {
	struct fs_copy *copy;
	int rc; /* what it is if it is not the copy */
	struct cst_error err;
};

static void doubt_asked(void *arg, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct doubt *d = arg;
	struct fs_copy *c = d->copy;
	bool ours = rc == 0 && info->size == c->size &&
		    ((c->has_crc64 && info->has_crc64 && c->crc64 == info->crc64) ||
		     (c->etag[0] && strcmp(c->etag, info->etag) == 0));
	(void)err;
	copy_end(c, ours ? 0 : d->rc, rc == 0 ? info : NULL, &d->err);
	free(d);
}

/* Copies of what was uploaded in parts have another ETag: the CRC64 tells, where the store has it. */
static void source_in_doubt(void *arg, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct doubt *d = arg;
	struct fs_copy *c = d->copy;
	(void)err;
	if (rc == 0 && info->size == c->size && (!c->etag[0] || strcmp(c->etag, info->etag) == 0)) {
		c->crc64 = info->crc64;
		c->has_crc64 = info->has_crc64;
	}
	cst_object_release(cst_object_head(c->bucket, cst_buf_slice(&c->to), false, doubt_asked, d));
}

static void copied(void *arg, const struct cst_object_written *written)
{
	struct fs_copy *c = arg;
	bool doubtful = written->repeated && (written->rc == -EEXIST || written->rc == -ENOENT);
	if (!doubtful) {
		copy_end(c, written->rc, written->info, written->err);
		return;
	}
	struct doubt *d = CST_NEW(struct doubt);
	*d = (struct doubt){.copy = c, .rc = written->rc, .err = *written->err};
	if (c->has_crc64)
		cst_object_release(cst_object_head(c->bucket, cst_buf_slice(&c->to), false, doubt_asked, d));
	else
		cst_object_release(cst_object_head(c->bucket, cst_buf_slice(&c->from), false, source_in_doubt, d));
}

/* ---- by parts ---- */

static void run_parts(struct fs_copy *c);

static void aborted(void *arg, const struct cst_object_written *written)
{
	struct fs_copy *c = arg;
	struct cst_error err = c->parts->err;
	(void)written;
	copy_end(c, c->parts->rc, NULL, &err);
}

static void part_copied(void *arg, const struct cst_object_written *written)
{
	const struct part_job *job = arg;
	struct fs_copy_parts *p = job->copy->parts;
	pthread_mutex_lock(&p->lock);
	if (written->rc == 0) {
		p->done[job->number - 1] = *written->part;
	} else if (p->rc == 0) {
		p->rc = written->rc;
		p->err = *written->err;
	}
	pthread_mutex_unlock(&p->lock);
	run_parts(job->copy);
}

static void start_part(struct fs_copy *c, unsigned number)
{
	struct fs_copy_parts *p = c->parts;
	uint64_t offset = (number - 1) * p->part_size;
	p->jobs[number - 1] = (struct part_job){c, number};
	struct cst_object_part_copy copy = {
		.key = cst_buf_slice(&c->to),
		.upload_id = cst_buf_slice(&p->upload_id),
		.number = number,
		.source = cst_buf_slice(&c->from),
		.if_match = c->etag[0] ? c->etag : NULL,
		.offset = offset,
		.length = cst_min(p->part_size, c->size - offset),
	};
	cst_object_release(cst_object_part_copy(c->bucket, &copy, part_copied, &p->jobs[number - 1]));
}

static void end_upload(struct fs_copy *c)
{
	struct fs_copy_parts *p = c->parts;
	if (p->rc < 0) {
		cst_object_release(cst_object_multipart_abort(c->bucket, cst_buf_slice(&c->to),
							      cst_buf_slice(&p->upload_id), aborted, c));
		return;
	}
	struct cst_object_complete complete = {
		.key = cst_buf_slice(&c->to),
		.upload_id = cst_buf_slice(&p->upload_id),
		.parts = p->done,
		.part_count = p->count,
		.crc64 = c->crc64,
		.has_crc64 = c->has_crc64,
		.condition = c->condition,
	};
	cst_object_release(cst_object_multipart_complete(c->bucket, &complete, copied, c));
}

/* The caller is counted in `running`, so that nothing ends before it has. */
static void run_parts(struct fs_copy *c)
{
	struct fs_copy_parts *p = c->parts;
	for (;;) {
		pthread_mutex_lock(&p->lock);
		bool start = p->rc == 0 && p->next < p->count && p->running <= PARTS_AT_ONCE;
		unsigned number = start ? ++p->next : 0;
		p->running += start ? 1 : -1u;
		bool over = !start && p->running == 0;
		pthread_mutex_unlock(&p->lock);
		if (over)
			end_upload(c);
		if (!start)
			return;
		start_part(c, number);
	}
}

static void begun(void *arg, const struct cst_object_written *written)
{
	struct fs_copy *c = arg;
	struct cst_object_limits limits = cst_bucket_limits(c->bucket);
	if (written->rc < 0) {
		copy_end(c, written->rc, NULL, written->err);
		return;
	}
	struct fs_copy_parts *p = c->parts = CST_NEW(struct fs_copy_parts);
	pthread_mutex_init(&p->lock, NULL);
	cst_buf_add_slice(&p->upload_id, written->upload_id);
	p->part_size = cst_min(limits.copy_max, limits.part_max);
	p->count = (unsigned)((c->size + p->part_size - 1) / p->part_size);
	p->done = cst_xcalloc(p->count, sizeof(*p->done));
	p->jobs = cst_xcalloc(p->count, sizeof(*p->jobs));
	p->running = 1;
	run_parts(c);
}

/* What goes along with the object is not copied with its parts. */
static void source_asked(void *arg, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct fs_copy *c = arg;
	if (rc == 0 && (info->size != c->size || (c->etag[0] && strcmp(c->etag, info->etag) != 0)))
		rc = -ESTALE;
	if (rc < 0) {
		struct cst_error changed = CST_ERROR_INIT;
		cst_error_set(&changed, ESTALE, "the object changed while it was to be copied");
		copy_end(c, rc, NULL, err && err->code ? err : &changed);
		return;
	}
	struct cst_object_properties properties = {
		.meta = info->meta, .meta_count = info->meta_count, .content_type = info->content_type};
	c->crc64 = info->crc64;
	c->has_crc64 = info->has_crc64;
	cst_object_release(cst_object_multipart_begin(c->bucket, cst_buf_slice(&c->to), &properties, begun, c));
}

void fs_copy_start(struct fs_copy *c)
{
	if (c->size > cst_bucket_limits(c->bucket).copy_max) {
		cst_object_release(cst_object_head(c->bucket, cst_buf_slice(&c->from), false, source_asked, c));
		return;
	}
	struct cst_object_copy copy = {
		.source = cst_buf_slice(&c->from),
		.key = cst_buf_slice(&c->to),
		.source_if_match = c->etag[0] ? c->etag : NULL,
		.condition = c->condition,
	};
	cst_object_release(cst_object_copy(c->bucket, &copy, copied, c));
}

void fs_copy_fini(struct fs_copy *c)
{
	cst_buf_fini(&c->from);
	cst_buf_fini(&c->to);
}
