#include "fake_publish.h"

#include <errno.h>
#include <pthread.h>

struct cst_publish {
	struct cst_bucket *bucket;
	pthread_mutex_t lock; /* of all streams */
	unsigned streams, kept;
	bool full, parts;
	TAILQ_HEAD(, cst_publish_write) writes;
	TAILQ_HEAD(, cst_publish_stream) list;
};

struct cst_publish_stream {
	struct cst_publish *p;
	int refs;
	struct cst_buf key, data;
	struct cst_publish_base base;
	uint64_t published;
	bool touched;
	int failed;
	struct cst_publish_sync *sync; /* one at a time */
	uint64_t sending;
	struct cst_buf sent;
	struct cst_buf meta; /* "name=value\n…" */
	TAILQ_ENTRY(cst_publish_stream) link;
};

struct cst_publish *fake_publish_new(struct cst_bucket *b)
{
	struct cst_publish *p = CST_NEW(struct cst_publish);
	p->bucket = b;
	pthread_mutex_init(&p->lock, NULL);
	TAILQ_INIT(&p->writes);
	TAILQ_INIT(&p->list);
	return p;
}

void fake_publish_free(struct cst_publish *p)
{
	CST_ASSERT(p->streams == 0 && TAILQ_EMPTY(&p->writes));
	pthread_mutex_destroy(&p->lock);
	free(p);
}

unsigned fake_publish_kept(struct cst_publish *p)
{
	pthread_mutex_lock(&p->lock);
	unsigned kept = p->kept;
	pthread_mutex_unlock(&p->lock);
	return kept;
}

void fake_publish_parts(struct cst_publish *p, bool parts)
{
	p->parts = parts;
}

static void put_stream(struct cst_publish_stream *s)
{
	pthread_mutex_lock(&s->p->lock);
	bool last = --s->refs == 0;
	pthread_mutex_unlock(&s->p->lock);
	if (!last)
		return;
	cst_buf_fini(&s->key);
	cst_buf_fini(&s->data);
	cst_buf_fini(&s->sent);
	cst_buf_fini(&s->meta);
	free(s);
}

struct cst_publish_stream *cst_publish_stream_open(struct cst_publish *p, const struct cst_publish_open *open)
{
	struct cst_publish_stream *s = CST_NEW(struct cst_publish_stream);
	s->p = p;
	s->refs = 1;
	s->base = open->base;
	cst_buf_add_slice(&s->key, open->key);
	if (open->keep_content) {
		s->published = open->base.size;
		fake_content(p->bucket, open->key, &s->data);
		while (s->data.len < open->base.size) /* not there any more: a conflict to come */
			cst_buf_add_char(&s->data, '?');
	}
	pthread_mutex_lock(&p->lock);
	p->streams++;
	TAILQ_INSERT_TAIL(&p->list, s, link);
	pthread_mutex_unlock(&p->lock);
	return s;
}

void cst_publish_stream_set_properties(struct cst_publish_stream *s, const struct cst_object_properties *properties)
{
	pthread_mutex_lock(&s->p->lock);
	cst_buf_clear(&s->meta);
	for (size_t i = 0; i < properties->meta_count; i++) {
		const struct cst_http_header *h = &properties->meta[i];
		cst_buf_printf(&s->meta, "%.*s=%.*s\n", (int)h->name.len, h->name.data, (int)h->value.len,
			       h->value.data);
	}
	pthread_mutex_unlock(&s->p->lock);
}

int cst_publish_stream_move(struct cst_publish_stream *s, struct cst_slice key, const struct cst_publish_base *base)
{
	int rc = 0;
	pthread_mutex_lock(&s->p->lock);
	if (s->sync || (s->p->parts && s->data.len > s->published))
		rc = -EBUSY;
	if (rc == 0) {
		cst_buf_clear(&s->key);
		cst_buf_add_slice(&s->key, key);
		s->base = *base;
	}
	pthread_mutex_unlock(&s->p->lock);
	return rc;
}

static int take(struct cst_publish_write *w)
{
	struct cst_publish_stream *s = w->stream;
	if (s->failed)
		return s->failed;
	if (w->offset != s->data.len)
		return -EINVAL;
	cst_buf_add_slice(&s->data, w->data);
	return 0;
}

void cst_publish_write(struct cst_publish_stream *s, struct cst_publish_write *w)
{
	struct cst_error err = {.what = "can't write"};
	w->stream = s;
	pthread_mutex_lock(&s->p->lock);
	w->queued = s->p->full;
	if (w->queued)
		TAILQ_INSERT_TAIL(&s->p->writes, w, link);
	bool queued = w->queued;
	int rc = queued ? 0 : take(w);
	pthread_mutex_unlock(&s->p->lock);
	if (!queued)
		w->done(w, rc, &err);
}

bool cst_publish_write_leave(struct cst_publish_write *w)
{
	struct cst_publish *p = w->stream->p;
	pthread_mutex_lock(&p->lock);
	bool left = w->queued;
	if (left)
		TAILQ_REMOVE(&p->writes, w, link);
	w->queued = false;
	pthread_mutex_unlock(&p->lock);
	return left;
}

void fake_publish_full(struct cst_publish *p, bool full)
{
	struct cst_publish_write *w;
	struct cst_error err = {.what = "can't write"};
	pthread_mutex_lock(&p->lock);
	p->full = full;
	while (!full && (w = TAILQ_FIRST(&p->writes)) != NULL) {
		TAILQ_REMOVE(&p->writes, w, link);
		w->queued = false;
		int rc = take(w);
		pthread_mutex_unlock(&p->lock);
		w->done(w, rc, &err);
		pthread_mutex_lock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
}

unsigned fake_publish_waiting(struct cst_publish *p)
{
	const struct cst_publish_write *w;
	unsigned count = 0;
	pthread_mutex_lock(&p->lock);
	TAILQ_FOREACH (w, &p->writes, link)
		count++;
	pthread_mutex_unlock(&p->lock);
	return count;
}

static void put_done(void *arg, const struct cst_object_written *written)
{
	struct cst_publish_stream *s = arg;
	struct cst_publish *p = s->p;
	int rc = written->rc == -EEXIST ? -ESTALE : written->rc;
	pthread_mutex_lock(&p->lock);
	struct cst_publish_sync *sync = s->sync;
	s->sync = NULL;
	if (rc == 0) {
		s->published = s->sending;
		s->base = (struct cst_publish_base){.exists = true, .size = written->info->size};
		memcpy(s->base.etag, written->info->etag, sizeof(s->base.etag));
	} else {
		s->touched = true;
	}
	if (rc == -ESTALE) {
		s->failed = rc;
		p->kept++;
	}
	pthread_mutex_unlock(&p->lock);
	if (sync)
		sync->done(sync, rc, written->info, written->err);
	put_stream(s);
}

void cst_publish_sync(struct cst_publish_stream *s, struct cst_publish_sync *sync)
{
	struct cst_object_info info = {0};
	struct cst_error err = {.what = "can't publish"};
	pthread_mutex_lock(&s->p->lock);
	CST_ASSERT(!s->sync);
	bool nothing = s->failed || (s->data.len == s->published && !s->touched);
	info.size = s->base.size;
	memcpy(info.etag, s->base.etag, sizeof(info.etag));
	int rc = s->failed;
	if (!nothing) {
		s->sync = sync;
		s->touched = false;
		s->sending = s->data.len;
		s->refs++;
		cst_buf_clear(&s->sent);
		cst_buf_add_slice(&s->sent, cst_buf_slice(&s->data));
	}
	struct iovec iov = {s->sent.data, s->sent.len};
	struct cst_publish_base base = s->base;
	struct cst_http_header meta = {{"", 0}, cst_buf_slice(&s->meta)}; /* the fake's way */
	struct cst_object_properties properties = {.meta = &meta, .meta_count = s->meta.len > 0};
	pthread_mutex_unlock(&s->p->lock);
	if (nothing) {
		sync->done(sync, rc, &info, &err);
		return;
	}
	struct cst_object_put put = {
		.key = cst_buf_slice(&s->key),
		.body = {.iov = &iov, .iov_count = 1, .length = iov.iov_len},
		.condition = base.exists ? CST_OBJECT_IF_MATCH : CST_OBJECT_IF_ABSENT,
		.if_match = base.exists ? base.etag : NULL,
		.properties = &properties,
	};
	cst_object_release(cst_object_put(s->p->bucket, &put, put_done, s));
}

bool cst_publish_sync_leave(struct cst_publish_stream *s, struct cst_publish_sync *sync)
{
	pthread_mutex_lock(&s->p->lock);
	bool left = s->sync == sync;
	if (left)
		s->sync = NULL;
	pthread_mutex_unlock(&s->p->lock);
	return left;
}

struct cst_publish_state cst_publish_stream_state(struct cst_publish_stream *s)
{
	pthread_mutex_lock(&s->p->lock);
	struct cst_publish_state state = {.size = s->data.len,
					  .published = s->published,
					  .pending = s->touched || s->data.len > s->published,
					  .failed = s->failed};
	pthread_mutex_unlock(&s->p->lock);
	return state;
}

void cst_publish_stream_touch(struct cst_publish_stream *s)
{
	pthread_mutex_lock(&s->p->lock);
	s->touched = true;
	pthread_mutex_unlock(&s->p->lock);
}

void cst_publish_stream_reset(struct cst_publish_stream *s, const struct cst_publish_base *base)
{
	pthread_mutex_lock(&s->p->lock);
	CST_ASSERT(!s->sync);
	cst_buf_clear(&s->data);
	s->published = 0;
	s->touched = false;
	s->base = *base;
	pthread_mutex_unlock(&s->p->lock);
}

void cst_publish_stream_close(struct cst_publish_stream *s, bool keep)
{
	struct cst_publish *p = s->p;
	pthread_mutex_lock(&p->lock);
	p->streams--;
	p->kept += keep && !s->failed && (s->touched || s->data.len > s->published);
	TAILQ_REMOVE(&p->list, s, link);
	pthread_mutex_unlock(&p->lock);
	put_stream(s);
}
