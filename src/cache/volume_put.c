/* Small objects on their way into a slot. The owner reserves a slot, the process that has the bytes writes it, the owner commits; so bytes don't
 * go over the socket. A client that dies between gives its slot back with its connection. One whose connection ended otherwise may still be
 * writing into a slot that is somebody else's by then: that entry then fails its check and is fetched again. */
#include "cache/volume_private.h"

#include <errno.h>

#define WAITING_MAX (16u << 20) /* bytes of copies that wait; more are refused */

struct put {
	struct cst_volume *volume;
	struct cst_cache_identity id; /* its texts lie in `texts` */
	unsigned flags;
	cst_volume_open_fn fn;
	void *arg;
	struct cst_index_entry entry; /* reserved */
	uint64_t epoch;		      /* by whom */
	struct iovec bytes;
	char *texts;
};

static void answer(cst_volume_open_fn fn, void *arg, int rc)
{
	struct cst_volume_answer a = {.rc = rc};
	fn(arg, &a);
}

static void put_free(struct put *p)
{
	pthread_mutex_lock(&p->volume->lock);
	p->volume->put_bytes -= p->bytes.iov_len;
	pthread_mutex_unlock(&p->volume->lock);
	free(p->bytes.iov_base);
	free(p->texts);
	free(p);
}

static void put_end(struct put *p, int rc)
{
	answer(p->fn, p->arg, rc);
	put_free(p);
}

/* NULL: too many wait. */
static struct put *put_new(struct cst_volume *v, const struct cst_cache_identity *id, unsigned flags,
			   const struct iovec *iov, int iov_count, cst_volume_open_fn fn, void *arg)
{
	pthread_mutex_lock(&v->lock);
	bool room = v->put_bytes + id->size <= WAITING_MAX;
	if (room)
		v->put_bytes += id->size;
	pthread_mutex_unlock(&v->lock);
	if (!room)
		return NULL;
	struct put *p = CST_NEW(struct put);
	*p = (struct put){.volume = v, .id = *id, .flags = flags, .fn = fn, .arg = arg};
	struct cst_slice *texts[3] = {&p->id.bucket, &p->id.key, &p->id.etag};
	char *at = p->texts = cst_xmalloc(id->bucket.len + id->key.len + id->etag.len);
	for (int i = 0; i < 3; i++) {
		if (texts[i]->len)
			memcpy(at, texts[i]->data, texts[i]->len);
		texts[i]->data = at;
		at += texts[i]->len;
	}
	at = cst_xmalloc(id->size);
	p->bytes = (struct iovec){at, id->size};
	for (int i = 0; i < iov_count; i++) {
		if (iov[i].iov_len)
			memcpy(at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	return p;
}

/* ---- as owner ---- */

static void put_here(struct cst_volume *v, const struct cst_cache_identity *id, unsigned flags, const struct iovec *iov,
		     int iov_count, cst_volume_open_fn fn, void *arg)
{
	struct cst_volume_answer a = {0};
	bool pin = flags & CST_VOLUME_PIN;
	struct cst_index *x = cst_volume_index_get(v);
	if (!x) {
		answer(fn, arg, cst_volume_refusal(v));
		return;
	}
	uint64_t epoch = v->epoch;
	a.rc = cst_volume_work_reserve(x, id, pin, &a.entry, &a.created);
	if (a.rc == 0 && !a.created)
		a.handle = cst_volume_handle_new(v, &a.entry);
	cst_volume_index_put(v);
	if (a.rc == 0 && a.created) {
		int rc = cst_volume_work_write_slot(v, &a.entry, id, iov, iov_count);
		x = cst_volume_index_get(v);
		if (x && v->epoch == epoch) {
			int committed = cst_index_slot_commit(x, &a.entry, rc == 0);
			rc = rc < 0 ? rc : committed;
			if (rc == 0)
				a.handle = cst_volume_handle_new(v, &a.entry);
		} else {
			rc = cst_volume_refusal(v);
		}
		if (x)
			cst_volume_index_put(v);
		a.rc = rc == -ENOENT ? -EAGAIN : rc; /* the slab went with its owner */
	}
	if (cst_volume_is_disk_error(a.rc)) {
		cst_volume_give_up(v, a.rc, "keeping a small object");
		a.rc = -EIO;
	}
	fn(arg, &a);
}

static void put_here_job(void *arg)
{
	struct put *p = arg;
	put_here(p->volume, &p->id, p->flags, &p->bytes, 1, p->fn, p->arg);
	put_free(p);
}

/* ---- as client ---- */

static void committed(struct cst_volume *v, struct cst_volume_request *r, const struct cst_volume_message *m)
{
	struct put *p = r->arg;
	/* Reserved by an owner that is none any more: the entry is not known now. */
	struct cst_volume_answer a = {
		.rc = m->rc == -ENOENT ? -EAGAIN : m->rc, .entry = m->entry, .created = m->created};
	if (m->rc == 0)
		a.handle = cst_volume_handle_new(v, &m->entry);
	p->fn(p->arg, &a);
	put_free(p);
}

static void write_job(void *arg)
{
	struct put *p = arg;
	struct cst_volume *v = p->volume;
	int rc = cst_volume_work_write_slot(v, &p->entry, &p->id, &p->bytes, 1);
	struct cst_volume_message m = {.type = CST_VMSG_COMMIT, .entry = p->entry, .flags = rc == 0};
	struct cst_volume_request *r = CST_NEW(struct cst_volume_request);
	r->answer = committed;
	r->arg = p;
	pthread_mutex_lock(&v->lock);
	bool sent = v->epoch == p->epoch && cst_volume_client_send_locked(v, rc == 0 ? r : NULL, &m);
	pthread_mutex_unlock(&v->lock);
	if (sent && rc == 0)
		return;
	free(r);
	/* A slab that isn't there went with its owner. */
	put_end(p, rc < 0 && rc != -ENOENT ? rc : cst_volume_refusal(v));
}

static void reserved(struct cst_volume *v, struct cst_volume_request *r, const struct cst_volume_message *m)
{
	struct put *p = r->arg;
	if (m->rc < 0) {
		put_end(p, m->rc);
		return;
	}
	if (!m->created) {
		committed(v, r, m);
		return;
	}
	p->entry = m->entry;
	pthread_mutex_lock(&v->lock);
	p->epoch = v->epoch;
	pthread_mutex_unlock(&v->lock);
	cst_pool_submit(v->pool, write_job, p);
}

void cst_volume_put(struct cst_volume *v, const struct cst_cache_identity *id, unsigned flags, const struct iovec *iov,
		    int iov_count, cst_volume_open_fn fn, void *arg)
{
	CST_CHECK(v, CST_VOLUME_MAGIC);
	uint64_t bytes = 0;
	for (int i = 0; i < iov_count; i++)
		bytes += iov[i].iov_len;
	if (!cst_cache_identity_fits(id) || id->size > CST_SLOT_MAX || id->size == 0 || bytes != id->size) {
		answer(fn, arg, cst_cache_identity_fits(id) ? -EINVAL : -ENAMETOOLONG);
		return;
	}
	bool owner = cst_volume_is_owner(v);
	if (owner && v->memory) {
		put_here(v, id, flags, iov, iov_count, fn, arg);
		return;
	}
	struct put *p = put_new(v, id, flags, iov, iov_count, fn, arg);
	if (!p) {
		answer(fn, arg, -EAGAIN);
		return;
	}
	if (owner) {
		cst_pool_submit(v->pool, put_here_job, p);
		return;
	}
	struct cst_volume_message m = {.type = CST_VMSG_RESERVE, .identity = p->id, .flags = flags};
	struct cst_volume_request *r = CST_NEW(struct cst_volume_request);
	r->answer = reserved;
	r->arg = p;
	if (cst_volume_client_send(v, r, &m))
		return;
	free(r);
	put_end(p, cst_volume_refusal(v));
}
