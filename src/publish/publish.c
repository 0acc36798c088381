/* The budget, its streams, and what they do when something has happened. */
#define CST_LOG_AREA "publish"
#include "publish/internal.h"

#include "base/log.h"
#include "base/text.h"

#include <string.h>

#define MEMORY_DEFAULT (128 * MIB)
#define PART_DEFAULT (8 * MIB)
#define PARALLEL_DEFAULT 64
#define STREAM_PARALLEL_DEFAULT 16
#define DISK_THREADS 4 /* one may wait for room, half a minute */

static uint64_t whole_blocks(uint64_t bytes)
{
	return blocks_for(bytes) * BLOCK_SIZE;
}

static void set_defaults(struct cst_publish *p)
{
	struct cst_publish_config *c = &p->config;
	c->memory = c->memory ? c->memory / BLOCK_SIZE * BLOCK_SIZE : MEMORY_DEFAULT;
	c->part_size = whole_blocks(cst_max(c->part_size ? c->part_size : PART_DEFAULT, p->limits.part_min));
	c->parallel = c->parallel ? c->parallel : PARALLEL_DEFAULT;
	c->stream_parallel = c->stream_parallel ? c->stream_parallel : STREAM_PARALLEL_DEFAULT;
	c->bucket = p->config.bucket;
	p->keep_dir = c->keep_dir ? cst_xstrdup(c->keep_dir) : NULL;
	p->writer = cst_xstrdup(c->writer ? c->writer : "");
	c->keep_dir = p->keep_dir;
	c->writer = p->writer;
	/* Four at a time, or the part size itself: two of it always fit. */
	uint64_t cap = cst_max(c->part_size, c->memory / 4 / BLOCK_SIZE * BLOCK_SIZE);
	p->part_cap = cst_min(cap, p->limits.part_max / BLOCK_SIZE * BLOCK_SIZE);
}

static int check_config(const struct cst_publish *p, struct cst_error *err)
{
	const struct cst_publish_config *c = &p->config;
	const char *why = NULL;
	if (c->memory < 2 * c->part_size)
		why = "the memory for uploads must hold two parts";
	else if (c->part_size > p->limits.part_max)
		why = "the store takes no parts that large";
	if (!why)
		return 0;
	cst_error_set(err, EINVAL, "can't write with %llu bytes of memory and parts of %llu",
		      (unsigned long long)c->memory, (unsigned long long)c->part_size);
	cst_error_why(err, "%s", why);
	cst_error_hint(err, "the smallest part is %llu bytes; see upload_memory and upload_part_size",
		       (unsigned long long)p->limits.part_min);
	return -EINVAL;
}

static void destroy(struct cst_publish *p)
{
	cst_pool_free(p->pool);
	spill_fini(p);
	memory_fini(p);
	pthread_cond_destroy(&p->idle);
	pthread_mutex_destroy(&p->lock);
	free(p->keep_dir);
	free(p->writer);
	p->magic = 0;
	free(p);
}

struct cst_publish *cst_publish_new(const struct cst_publish_config *config, struct cst_error *err)
{
	struct cst_publish *p = CST_NEW(struct cst_publish);
	p->magic = PUBLISH_MAGIC;
	p->config = *config;
	p->limits = cst_bucket_limits(config->bucket);
	p->if_match = cst_bucket_has_if_match(config->bucket);
	p->spill_fd = -1;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->idle, NULL);
	TAILQ_INIT(&p->streams);
	TAILQ_INIT(&p->waiting);
	TAILQ_INIT(&p->loads);
	TAILQ_INIT(&p->hungry);
	p->pool = cst_pool_new("publish-disk", DISK_THREADS);
	set_defaults(p);
	if (check_config(p, err) < 0 || memory_init(p, err) < 0) {
		destroy(p);
		return NULL;
	}
	return p;
}

void cst_publish_stop(struct cst_publish *p)
{
	struct cst_publish_stream *s;
	CST_CHECK(p, PUBLISH_MAGIC);
	pthread_mutex_lock(&p->lock);
	p->stopped = true;
	TAILQ_FOREACH (s, &p->streams, link)
		calls_stop_locked(s);
	pthread_mutex_unlock(&p->lock);
}

void cst_publish_free(struct cst_publish *p)
{
	if (!p)
		return;
	CST_CHECK(p, PUBLISH_MAGIC);
	pthread_mutex_lock(&p->lock);
	CST_ASSERT(p->stream_count == 0);
	while (p->live)
		pthread_cond_wait(&p->idle, &p->lock);
	CST_ASSERT(p->free_count == p->block_count && p->flying == 0 && p->spilled == 0 && p->waiting_count == 0);
	pthread_mutex_unlock(&p->lock);
	destroy(p);
}

void cst_publish_stats(struct cst_publish *p, struct cst_publish_stats *stats)
{
	struct cst_publish_stream *s;
	CST_CHECK(p, PUBLISH_MAGIC);
	pthread_mutex_lock(&p->lock);
	*stats = p->stats;
	stats->memory_limit = (uint64_t)p->block_count * BLOCK_SIZE;
	stats->memory_used = (uint64_t)(p->block_count - p->free_count) * BLOCK_SIZE;
	stats->memory_peak = (uint64_t)(p->block_count - p->least_free) * BLOCK_SIZE;
	stats->streams = p->stream_count;
	stats->requests_in_flight = p->flying;
	stats->writes_waiting = p->waiting_count;
	TAILQ_FOREACH (s, &p->streams, link)
		stats->bytes_pending += s->size - s->published;
	pthread_mutex_unlock(&p->lock);
}

/* ---- what is to be done without the lock ---- */

void publish_todo_init(struct todo *todo)
{
	STAILQ_INIT(&todo->calls);
	STAILQ_INIT(&todo->copies);
	TAILQ_INIT(&todo->writes);
	STAILQ_INIT(&todo->endings);
	STAILQ_INIT(&todo->jobs);
}

static void run_job(void *arg)
{
	struct job *job = arg;
	job->run(job);
}

static void end_writes(struct todo *todo)
{
	struct cst_publish_write *w;
	while ((w = TAILQ_FIRST(&todo->writes))) {
		TAILQ_REMOVE(&todo->writes, w, link);
		struct cst_error *err = cst_steal(w->error);
		w->done(w, w->result, err);
		free(err);
	}
}

void publish_todo_run(struct cst_publish *p, struct todo *todo)
{
	struct job *job;
	struct call *call;
	struct ending *e;
	struct cst_publish_stream *s;
	while ((job = STAILQ_FIRST(&todo->jobs))) {
		STAILQ_REMOVE_HEAD(&todo->jobs, link);
		cst_pool_submit(p->pool, run_job, job);
	}
	while ((call = STAILQ_FIRST(&todo->calls))) {
		STAILQ_REMOVE_HEAD(&todo->calls, start);
		call_start(call);
	}
	end_writes(todo);
	while ((e = STAILQ_FIRST(&todo->endings))) {
		STAILQ_REMOVE_HEAD(&todo->endings, link);
		e->sync->done(e->sync, e->rc, &e->version, e->rc < 0 ? &e->err : NULL);
		free(e);
	}
	while ((s = STAILQ_FIRST(&todo->copies))) {
		STAILQ_REMOVE_HEAD(&todo->copies, copy_link);
		write_copy(s);
	}
}

/* ---- streams ---- */

void stream_ref(struct cst_publish_stream *s)
{
	cst_ref_get(&s->ref);
}

void stream_unref_locked(struct cst_publish_stream *s)
{
	struct cst_publish *p = s->publish;
	if (!cst_ref_put(&s->ref))
		return;
	CST_ASSERT(s->closed && s->finished && s->call_count == 0 && !s->copying && TAILQ_EMPTY(&s->chunks));
	CST_ASSERT(TAILQ_EMPTY(&s->writes) && TAILQ_EMPTY(&s->syncs) && s->blocks == 0 && s->disk == 0);
	CST_ASSERT(!s->hungry && !s->waiting && !s->load_waiting);
	s->magic = 0;
	cst_buf_fini(&s->key);
	cst_buf_fini(&s->upload_id);
	properties_unref(s->properties);
	free(s->parts);
	free(s->stall_err);
	free(s->fail_err);
	free(s);
	if (--p->live == 0)
		pthread_cond_broadcast(&p->idle);
}

const char *stream_name(const struct cst_publish_stream *s, char text[NAME_MAX_TEXT])
{
	CST_AUTO_BUF key = CST_BUF_INIT;
	cst_text_printable(&key, cst_buf_slice(&s->key));
	snprintf(text, NAME_MAX_TEXT, "%s/%.150s%s", cst_bucket_name(s->publish->config.bucket),
		 key.data ? key.data : "", key.len > 150 ? "…" : "");
	return text;
}

/* The stream begins on this version. */
static void begin_content(struct cst_publish_stream *s, const struct cst_publish_base *base, bool keep_content)
{
	uint64_t front = keep_content && base->exists ? base->size : 0;
	s->base = *base;
	s->source.size = s->mode == CST_PUBLISH_WHOLE ? front : 0;
	memcpy(s->source.etag, base->etag, sizeof(s->source.etag));
	s->size = s->published = s->assigned = front;
	s->crc = 0;
	s->anchor.offset = front;
	s->anchor.crc64 = s->anchor.run = 0;
	s->anchor.known = front == 0;
	s->retained = false;
	s->replaced = s->mode == CST_PUBLISH_APPENDABLE && base->exists && !keep_content;
	s->base_checked = s->mode == CST_PUBLISH_APPENDABLE && !base->exists;
	s->version = (struct cst_object_info){.size = base->size, .type = base->type};
	memcpy(s->version.etag, base->etag, sizeof(s->version.etag));
	s->content++;
	s->generation++;
}

struct cst_publish_stream *cst_publish_stream_open(struct cst_publish *p, const struct cst_publish_open *open)
{
	CST_CHECK(p, PUBLISH_MAGIC);
	struct cst_publish_stream *s = CST_NEW(struct cst_publish_stream);
	s->magic = STREAM_MAGIC;
	cst_ref_init(&s->ref);
	s->publish = p;
	s->mode = open->mode;
	cst_buf_add_slice(&s->key, open->key);
	s->properties = properties_new(&open->properties);
	TAILQ_INIT(&s->chunks);
	TAILQ_INIT(&s->writes);
	TAILQ_INIT(&s->syncs);
	TAILQ_INIT(&s->pub.syncs);
	LIST_INIT(&s->calls);
	begin_content(s, &open->base, open->keep_content);
	pthread_mutex_lock(&p->lock);
	p->live++;
	p->stream_count++;
	TAILQ_INSERT_TAIL(&p->streams, s, link);
	pthread_mutex_unlock(&p->lock);
	return s;
}

void cst_publish_stream_set_properties(struct cst_publish_stream *s, const struct cst_object_properties *properties)
{
	CST_CHECK(s, STREAM_MAGIC);
	struct properties *fresh = properties_new(properties);
	pthread_mutex_lock(&s->publish->lock);
	struct properties *old = s->properties;
	s->properties = fresh;
	s->generation++;
	pthread_mutex_unlock(&s->publish->lock);
	properties_unref(old);
}

int cst_publish_stream_move(struct cst_publish_stream *s, struct cst_slice key, const struct cst_publish_base *base)
{
	CST_CHECK(s, STREAM_MAGIC);
	struct cst_publish *p = s->publish;
	pthread_mutex_lock(&p->lock);
	/* What is in an upload stays under the key that it was begun for. */
	bool busy = s->pub.phase != PHASE_NONE || s->upload_id.len || s->upload_begun || s->call_count ||
		    s->part_count || s->reset_pending || s->failed;
	bool fits = s->source.size == 0 || (base->exists && base->size == s->published);
	if (!busy && fits) {
		cst_buf_clear(&s->key);
		cst_buf_add_slice(&s->key, key);
		s->base = *base;
		memcpy(s->source.etag, base->etag, sizeof(s->source.etag));
		s->maybe_count = 0;
		s->base_checked = s->mode == CST_PUBLISH_APPENDABLE && !base->exists;
		s->replaced = s->mode == CST_PUBLISH_APPENDABLE && base->exists && base->size != s->published;
		s->generation++;
	}
	pthread_mutex_unlock(&p->lock);
	return busy ? -EBUSY : fits ? 0 : -EINVAL;
}

bool stream_is_pending(const struct cst_publish_stream *s)
{
	return s->touches != s->touches_done || s->size != s->published;
}

struct cst_publish_state cst_publish_stream_state(struct cst_publish_stream *s)
{
	CST_CHECK(s, STREAM_MAGIC);
	pthread_mutex_lock(&s->publish->lock);
	struct cst_publish_state state = {
		.size = s->size, .published = s->published, .pending = stream_is_pending(s), .failed = s->failed};
	if (s->reset_pending) {
		state.size = state.published = 0;
		state.pending = s->touches != s->reset_touches;
		state.failed = 0;
	}
	pthread_mutex_unlock(&s->publish->lock);
	return state;
}

void cst_publish_stream_touch(struct cst_publish_stream *s)
{
	CST_CHECK(s, STREAM_MAGIC);
	pthread_mutex_lock(&s->publish->lock);
	s->touches++;
	s->generation++;
	pthread_mutex_unlock(&s->publish->lock);
}

void stream_fail_locked(struct cst_publish_stream *s, int rc, const struct cst_error *err)
{
	if (s->failed)
		return;
	s->failed = rc;
	s->fail_err = cst_xmalloc(sizeof(*s->fail_err));
	*s->fail_err = *err;
}

void stream_stall_locked(struct cst_publish_stream *s, int rc, const struct cst_error *err, struct todo *todo)
{
	if (!s->stalled) {
		s->stalled = rc;
		if (!s->stall_err)
			s->stall_err = cst_xmalloc(sizeof(*s->stall_err));
		*s->stall_err = *err;
	}
	writes_fail_locked(s, rc, err, todo);
}

/* ---- dropping what there is ---- */

static void apply_reset_locked(struct cst_publish_stream *s, struct todo *todo)
{
	load_forget_locked(s);
	upload_abort_locked(s, todo);
	chunks_drop_locked(s);
	s->reset_pending = false;
	s->touches_done = s->reset_touches; /* one that came meanwhile is of what begins now */
	s->stalled = 0;
	s->failed = 0;
	s->kept = false;
	free(cst_steal(s->fail_err));
	begin_content(s, &s->reset_base, false);
	memory_pump_locked(s->publish, todo);
}

void cst_publish_stream_reset(struct cst_publish_stream *s, const struct cst_publish_base *base)
{
	CST_CHECK(s, STREAM_MAGIC);
	struct cst_publish *p = s->publish;
	struct todo todo;
	publish_todo_init(&todo);
	pthread_mutex_lock(&p->lock);
	s->reset_pending = true;
	s->reset_base = *base;
	s->reset_touches = s->touches;
	s->generation++;
	if (s->pub.phase == PHASE_NONE)
		calls_cancel_locked(s);
	advance_locked(s, &todo);
	pthread_mutex_unlock(&p->lock);
	publish_todo_run(p, &todo);
}

/* Nothing of it is under way, and its owner has gone. */
static void finish_closed_locked(struct cst_publish_stream *s, struct todo *todo)
{
	struct cst_publish *p = s->publish;
	load_forget_locked(s); /* of a part that is not sent any more */
	if (s->close_keep && !s->kept && stream_is_pending(s) && s->failed != -EIO) {
		if (!s->keeping) {
			s->keeping = true;
			kept_start_locked(s, "closed", todo);
		}
		return;
	}
	upload_abort_locked(s, todo);
	if (s->call_count)
		return; /* the abort; it comes here again */
	chunks_drop_locked(s);
	memory_forget_locked(s);
	hungry_forget_locked(s);
	TAILQ_REMOVE(&p->streams, s, link);
	s->finished = true;
	memory_pump_locked(p, todo);
	stream_unref_locked(s);
}

void cst_publish_stream_close(struct cst_publish_stream *s, bool keep)
{
	CST_CHECK(s, STREAM_MAGIC);
	struct cst_publish *p = s->publish;
	struct todo todo;
	struct cst_error err = CST_ERROR_INIT;
	publish_todo_init(&todo);
	pthread_mutex_lock(&p->lock);
	stream_ref(s);
	s->closed = true;
	s->close_keep = keep;
	p->stream_count--;
	cst_error_set(&err, EINTR, "the file was closed");
	writes_fail_locked(s, -EINTR, &err, &todo);
	if (!keep && s->pub.phase == PHASE_NONE && TAILQ_EMPTY(&s->syncs))
		calls_cancel_locked(s);
	advance_locked(s, &todo);
	stream_unref_locked(s);
	pthread_mutex_unlock(&p->lock);
	publish_todo_run(p, &todo);
}

/* ---- what can go on ---- */

void advance_locked(struct cst_publish_stream *s, struct todo *todo)
{
	if (s->copying || s->finished)
		return;
	if (s->pub.phase != PHASE_NONE)
		publication_advance_locked(s, todo);
	bool idle = s->pub.phase == PHASE_NONE;
	if (idle && s->reset_pending) {
		if (s->call_count || s->loading || s->spilling)
			return;
		apply_reset_locked(s, todo);
	}
	while (s->pub.phase == PHASE_NONE && !TAILQ_EMPTY(&s->syncs)) {
		publication_start_locked(s);
		publication_advance_locked(s, todo);
	}
	if (s->closed) {
		/* What goes on by itself goes on, but nothing begins. */
		if (s->pub.phase == PHASE_NONE && s->call_count == 0 && !s->loading && !s->spilling)
			finish_closed_locked(s, todo);
		return;
	}
	if (s->pub.phase == PHASE_NONE && !s->failed && !s->stalled) {
		parts_early_locked(s);
		if (s->pub.phase != PHASE_NONE) /* of appends */
			publication_advance_locked(s, todo);
		else
			parts_send_locked(s, todo);
	}
	writes_serve_locked(s, todo);
}
