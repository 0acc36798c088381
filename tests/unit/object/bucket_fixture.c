#include "bucket_fixture.h"

#include "base/clock.h"

static int64_t fixture_wall(void *arg)
{
	struct fixture *f = arg;
	return f->wall ? f->wall : cst_wall();
}

void fixture_start(struct fixture *f, scripted_fn fn, const void *arg, const struct cst_bucket_config *config)
{
	struct cst_bucket_config c = config ? *config : (struct cst_bucket_config){.cloud = CST_CLOUD_OSS};
	struct cst_http_client_config h = {.max_connections = 128};
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	*f = (struct fixture){.credentials = c.credentials};
	f->server = scripted_server_start(fn, arg);
	snprintf(f->endpoint, sizeof(f->endpoint), "http://127.0.0.1:%u", scripted_server_port(f->server));
	f->http = cst_http_client_new(&h, &err);
	if (!c.endpoint)
		c.endpoint = f->endpoint;
	c.bucket = "bkt";
	c.http = f->http;
	f->bucket = f->http ? cst_bucket_new(&c, &err) : NULL;
	if (!f->bucket)
		cst_panic(__FILE__, __LINE__, "%s", cst_error_text(&err, text, sizeof(text)));
	cst_bucket_tune(f->bucket, &(struct cst_object_tuning){.backoff_base = CST_NS_PER_MS,
							       .backoff_cap = 4 * CST_NS_PER_MS,
							       .wall = fixture_wall,
							       .arg = f});
}

void fixture_stop(struct fixture *f)
{
	cst_bucket_free(f->bucket);
	cst_http_client_free(f->http);
	scripted_server_stop(f->server);
	cst_credentials_free(f->credentials);
}

void outcome_init(struct outcome *o)
{
	*o = (struct outcome){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
}

void outcome_fini(struct outcome *o)
{
	cst_buf_fini(&o->entries);
	cst_buf_fini(&o->meta);
	pthread_mutex_destroy(&o->lock);
	pthread_cond_destroy(&o->changed);
}

void outcome_wait(struct outcome *o)
{
	pthread_mutex_lock(&o->lock);
	while (!o->done)
		pthread_cond_wait(&o->changed, &o->lock);
	pthread_mutex_unlock(&o->lock);
}

static void finished(struct outcome *o, int rc, const struct cst_error *err)
{
	pthread_mutex_lock(&o->lock);
	CST_ASSERT(!o->done); /* exactly once */
	CST_ASSERT(rc >= 0 || err);
	o->rc = rc;
	if (err) {
		o->err = *err;
		cst_error_text(err, o->text, sizeof(o->text));
	}
	o->done = true;
	pthread_cond_signal(&o->changed);
	pthread_mutex_unlock(&o->lock);
}

void outcome_get(void *arg, int rc, size_t got, const struct cst_object_info *info, const struct cst_error *err)
{
	struct outcome *o = arg;
	o->got = got;
	o->info = *info;
	finished(o, rc, err);
}

void outcome_head(void *arg, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct outcome *o = arg;
	o->info = *info;
	for (size_t i = 0; i < info->meta_count; i++)
		cst_buf_printf(&o->meta, "%.*s=%.*s;", (int)info->meta[i].name.len, info->meta[i].name.data,
			       (int)info->meta[i].value.len, info->meta[i].value.data);
	cst_buf_printf(&o->meta, "%.*s", (int)info->content_type.len,
		       info->content_type.data ? info->content_type.data : "");
	finished(o, rc, err);
}

void outcome_symlink(void *arg, int rc, struct cst_slice target, const struct cst_error *err)
{
	struct outcome *o = arg;
	cst_buf_add_slice(&o->entries, target);
	finished(o, rc, err);
}

static void list_entry(void *arg, const struct cst_object_list_entry *e)
{
	struct outcome *o = arg;
	cst_buf_printf(&o->entries, "%.*s%s;", (int)e->info.key.len, e->info.key.data, e->is_prefix ? "*" : "");
}

static void list_restart(void *arg)
{
	struct outcome *o = arg;
	o->restarts++;
	cst_buf_clear(&o->entries);
}

static void list_done(void *arg, int rc, const struct cst_object_list_page *page, const struct cst_error *err)
{
	struct outcome *o = arg;
	o->truncated = rc == 0 && page->truncated;
	if (o->truncated)
		cst_buf_add_slice(&o->meta, page->next_token);
	finished(o, rc, err);
}

const struct cst_object_list_ops outcome_list = {list_entry, list_restart, list_done};

int fixture_read(struct fixture *f, uint64_t offset, size_t length, const char *if_match, char *buffer,
		 struct outcome *o)
{
	struct iovec into[2] = {{buffer, length / 3}, {buffer + length / 3, length - length / 3}};
	struct cst_object_get get = {.key = CST_SLICE("dir/k y"),
				     .offset = offset,
				     .length = length,
				     .if_match = if_match,
				     .into = into,
				     .into_count = 2};
	outcome_init(o);
	struct cst_object_op *op = cst_object_get(f->bucket, &get, outcome_get, o);
	outcome_wait(o);
	cst_object_release(op);
	return o->rc;
}

int fixture_list(struct fixture *f, const struct cst_object_list *list, struct outcome *o)
{
	outcome_init(o);
	struct cst_object_op *op = cst_object_list(f->bucket, list, &outcome_list, o);
	outcome_wait(o);
	cst_object_release(op);
	return o->rc;
}

int fixture_head(struct fixture *f, bool light, struct outcome *o)
{
	outcome_init(o);
	struct cst_object_op *op = cst_object_head(f->bucket, CST_SLICE("dir/k y"), light, outcome_head, o);
	outcome_wait(o);
	cst_object_release(op);
	return o->rc;
}
