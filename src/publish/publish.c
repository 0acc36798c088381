#include "publish/publish.h"

#include "publish/keep.h"

#include <errno.h>
#include <string.h>

struct cst_publish {
	unsigned streams;
};
struct cst_publish_stream {
	struct cst_publish *publish;
	struct cst_publish_base base;
};

struct cst_publish *cst_publish_new(const struct cst_publish_config *config, struct cst_error *err)
{
	(void)config, (void)err;
	return CST_NEW(struct cst_publish);
}

void cst_publish_free(struct cst_publish *p)
{
	free(p);
}

struct cst_publish_stream *cst_publish_stream_open(struct cst_publish *p, const struct cst_publish_open *open)
{
	struct cst_publish_stream *s = CST_NEW(struct cst_publish_stream);
	s->publish = p;
	s->base = open->base;
	p->streams++;
	return s;
}

void cst_publish_stream_set_properties(struct cst_publish_stream *s, const struct cst_object_properties *properties)
{
	(void)s, (void)properties;
}

void cst_publish_stream_move(struct cst_publish_stream *s, struct cst_slice key, const struct cst_publish_base *base)
{
	(void)key;
	s->base = *base;
}

static void not_yet(struct cst_error *err)
{
	cst_error_set(err, ENOTSUP, "can't write");
}

void cst_publish_write(struct cst_publish_stream *s, struct cst_publish_write *w)
{
	struct cst_error err = CST_ERROR_INIT;
	(void)s;
	not_yet(&err);
	w->done(w, -ENOTSUP, &err);
}

bool cst_publish_write_leave(struct cst_publish_write *w)
{
	(void)w;
	return false;
}

void cst_publish_sync(struct cst_publish_stream *s, struct cst_publish_sync *sync)
{
	struct cst_object_info info = {0};
	struct cst_error err = CST_ERROR_INIT;
	(void)s;
	not_yet(&err);
	sync->done(sync, -ENOTSUP, &info, &err);
}

bool cst_publish_sync_leave(struct cst_publish_stream *s, struct cst_publish_sync *sync)
{
	(void)s, (void)sync;
	return false;
}

struct cst_publish_state cst_publish_stream_state(struct cst_publish_stream *s)
{
	return (struct cst_publish_state){.size = s->base.size, .published = s->base.size};
}

void cst_publish_stream_touch(struct cst_publish_stream *s)
{
	(void)s;
}

void cst_publish_stream_reset(struct cst_publish_stream *s, const struct cst_publish_base *base)
{
	s->base = *base;
}

void cst_publish_stream_close(struct cst_publish_stream *s, bool keep)
{
	(void)keep;
	s->publish->streams--;
	free(s);
}

void cst_publish_stats(struct cst_publish *p, struct cst_publish_stats *stats)
{
	*stats = (struct cst_publish_stats){.streams = p->streams};
}
