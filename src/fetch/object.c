/* Object versions: counting, what a cache has of them, giving up. */
#include "fetch/internal.h"

#include "base/clock.h"

#include <errno.h>
#include <string.h>

struct cst_fetch_object *cst_fetch_object_new(struct cst_fetch *f, struct cst_slice key, const char *etag,
					      uint64_t size)
{
	CST_CHECK(f, FETCH_MAGIC);
	struct cst_fetch_object *o = CST_NEW(struct cst_fetch_object);
	o->magic = OBJECT_MAGIC;
	o->fetch = f;
	cst_ref_init(&o->ref);
	o->users = 1;
	o->key = cst_xstrndup(key.data, key.len);
	o->key_len = key.len;
	o->hint = pattern_hint_of(key);
	snprintf(o->etag, sizeof(o->etag), "%s", etag ? etag : "");
	o->size = size;
	TAILQ_INIT(&o->blocks);
	TAILQ_INIT(&o->ranges);
	TAILQ_INIT(&o->fills);
	__atomic_fetch_add(&f->objects, 1, __ATOMIC_RELAXED);
	return o;
}

struct cst_fetch_object *cst_fetch_object_ref(struct cst_fetch_object *o)
{
	CST_CHECK(o, OBJECT_MAGIC);
	int before = __atomic_fetch_add(&o->users, 1, __ATOMIC_RELAXED);
	CST_ASSERT(before > 0);
	return o;
}

void object_put(struct cst_fetch_object *o)
{
	if (!cst_ref_put(&o->ref))
		return;
	struct cst_fetch *f = o->fetch;
	CST_ASSERT(TAILQ_EMPTY(&o->blocks) && TAILQ_EMPTY(&o->ranges) && TAILQ_EMPTY(&o->fills));
	if (o->local)
		o->local->ops->unref(o->local);
	o->magic = 0;
	free(o->key);
	free(o);
	pthread_mutex_lock(&f->lock);
	if (__atomic_sub_fetch(&f->objects, 1, __ATOMIC_RELAXED) == 0)
		pthread_cond_broadcast(&f->drained);
	pthread_mutex_unlock(&f->lock);
}

static bool any_range(const struct range *r, const void *arg)
{
	(void)r;
	(void)arg;
	return true;
}

/* Nobody will want the bytes: frees the blocks at rest and cancels the GETs under way, whose blocks follow. Whoever has room now is started by the
 * thread of the cst_fetch: who gives up an object may hold locks that others' callbacks take. */
static void abandon(struct cst_fetch_object *o)
{
	struct cst_fetch *f = o->fetch;
	struct cst_fetch_block *b, *next;
	pthread_mutex_lock(&f->lock);
	for (b = TAILQ_FIRST(&o->blocks); b; b = next) {
		next = TAILQ_NEXT(b, sibling);
		if (block_at_rest(b))
			block_free_locked(f, b);
	}
	ranges_cancel_locked(o, any_range, NULL);
	if (!TAILQ_EMPTY(&f->waiting) || !TAILQ_EMPTY(&f->hungry) || !TAILQ_EMPTY(&f->fills)) {
		f->given_up = true;
		pthread_cond_signal(&f->wake);
	}
	pthread_mutex_unlock(&f->lock);
}

void cst_fetch_object_unref(struct cst_fetch_object *o)
{
	if (!o)
		return;
	CST_CHECK(o, OBJECT_MAGIC);
	int before = __atomic_fetch_sub(&o->users, 1, __ATOMIC_ACQ_REL);
	CST_ASSERT(before > 0);
	if (before == 1) {
		abandon(o);
		object_put(o);
	}
}

void cst_fetch_object_set_local(struct cst_fetch_object *o, struct cst_fetch_local *local)
{
	CST_CHECK(o, OBJECT_MAGIC);
	if (local)
		local->ops->ref(local);
	pthread_mutex_lock(&o->fetch->lock);
	struct cst_fetch_local *old = o->local;
	o->local = local;
	pthread_mutex_unlock(&o->fetch->lock);
	if (old)
		old->ops->unref(old);
}

bool cst_fetch_object_is_stale(const struct cst_fetch_object *o)
{
	CST_CHECK(o, OBJECT_MAGIC);
	pthread_mutex_lock(&o->fetch->lock);
	bool stale = o->stale;
	pthread_mutex_unlock(&o->fetch->lock);
	return stale;
}
