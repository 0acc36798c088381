#define CST_LOG_AREA "cache"
#include "base/log.h"

#include "base/clock.h"
#include "cache/volume_private.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#define START_WAIT (10 * CST_NS_PER_S) /* for another process that takes over just now */
#define ADMIN_WAIT (5 * CST_NS_PER_S)
#define TOUCH_DELAY (1 * CST_NS_PER_S)
#define WORK_THREADS 8
#define OPEN_THREADS 4
#define SYNC_THREADS 2

/* ---- the owner's use of the index ---- */

struct cst_index *cst_volume_index_get(struct cst_volume *v)
{
	if (__atomic_load_n(&v->role, __ATOMIC_ACQUIRE) != CST_ROLE_OWNER)
		return NULL;
	pthread_rwlock_rdlock(&v->gate);
	if (v->index)
		return v->index;
	pthread_rwlock_unlock(&v->gate);
	return NULL;
}

void cst_volume_index_put(struct cst_volume *v)
{
	pthread_rwlock_unlock(&v->gate);
}

int cst_volume_refusal(struct cst_volume *v)
{
	return __atomic_load_n(&v->role, __ATOMIC_ACQUIRE) == CST_ROLE_FAILED ? -EIO : -EAGAIN;
}

/* What callers get for an outcome of the index. */
static int outcome(struct cst_volume *v, int rc, const char *what)
{
	if (!cst_volume_is_disk_error(rc))
		return rc;
	cst_volume_give_up(v, rc, what);
	return -EIO;
}

/* ---- handles ---- */

struct cst_volume_handle *cst_volume_handle_new(struct cst_volume *v, const struct cst_index_entry *entry)
{
	struct cst_volume_handle *h = CST_NEW(struct cst_volume_handle);
	h->magic = CST_HANDLE_MAGIC;
	h->volume = v;
	h->name = entry->name;
	h->version = entry->version;
	h->size = entry->size;
	cst_ref_init(&h->refs);
	pthread_mutex_lock(&v->lock);
	TAILQ_INSERT_TAIL(&v->handles, h, link);
	pthread_mutex_unlock(&v->lock);
	return h;
}

struct cst_volume_handle *cst_volume_handle_ref(struct cst_volume_handle *h)
{
	cst_ref_get(&h->refs);
	return h;
}

bool cst_volume_handle_try_ref(struct cst_volume_handle *h)
{
	int count = __atomic_load_n(&h->refs.count, __ATOMIC_RELAXED);
	while (count > 0)
		if (__atomic_compare_exchange_n(&h->refs.count, &count, count + 1, true, __ATOMIC_ACQUIRE,
						__ATOMIC_RELAXED))
			return true;
	return false;
}

/* The use ends with the last request that needs it, so the owner never hears of an entry after its close. */
void cst_volume_handle_unref(struct cst_volume_handle *h)
{
	if (!cst_ref_put(&h->refs))
		return;
	struct cst_volume *v = h->volume;
	/* The gate keeps a change of owner from coming between. */
	pthread_rwlock_rdlock(&v->gate);
	pthread_mutex_lock(&v->lock);
	TAILQ_REMOVE(&v->handles, h, link);
	if (h->dirty)
		TAILQ_REMOVE(&v->dirty, h, dirty_link);
	if (!v->index && h->state == CST_HANDLE_LIVE) {
		struct cst_volume_message m = {.type = CST_VMSG_CLOSE,
					       .identity = {.name = h->name, .version = h->version},
					       .count = h->touches};
		cst_volume_client_send_locked(v, NULL, &m);
	}
	pthread_mutex_unlock(&v->lock);
	if (v->index && h->state == CST_HANDLE_LIVE) {
		if (h->touches)
			cst_index_touch(v->index, h->name, h->version, h->touches);
		cst_index_entry_close(v->index, h->name, h->version);
	}
	pthread_rwlock_unlock(&v->gate);
	h->magic = 0;
	free(h);
}

static bool is_live(struct cst_volume_handle *h)
{
	pthread_mutex_lock(&h->volume->lock);
	bool live = h->state == CST_HANDLE_LIVE;
	pthread_mutex_unlock(&h->volume->lock);
	return live;
}

/* ---- opening ---- */

static void answer_open(cst_volume_open_fn fn, void *arg, int rc)
{
	struct cst_volume_answer answer = {.rc = rc};
	fn(arg, &answer);
}

static void open_answered(struct cst_volume *v, struct cst_volume_request *r, const struct cst_volume_message *m)
{
	struct cst_volume_answer answer = {.rc = m->rc, .entry = m->entry, .created = m->created};
	if (m->rc == 0)
		answer.handle = cst_volume_handle_new(v, &m->entry);
	r->fn.open(r->arg, &answer);
}

void cst_volume_entry_open(struct cst_volume *v, const struct cst_cache_identity *id, unsigned flags,
			   cst_volume_open_fn fn, void *arg)
{
	CST_CHECK(v, CST_VOLUME_MAGIC);
	struct cst_volume_answer answer = {0};
	if (!cst_cache_identity_fits(id)) {
		answer_open(fn, arg, -ENAMETOOLONG);
		return;
	}
	if (id->size <= CST_SLOT_MAX)
		flags &= ~(unsigned)CST_VOLUME_CREATE;
	struct cst_index *x = cst_volume_index_get(v);
	if (x) {
		int rc = cst_index_entry_open(x, id, flags & CST_VOLUME_CREATE, flags & CST_VOLUME_PIN, &answer.entry,
					      &answer.created);
		if (rc == 0)
			answer.handle = cst_volume_handle_new(v, &answer.entry);
		cst_volume_index_put(v);
		answer.rc = outcome(v, rc, "opening an entry");
		fn(arg, &answer);
		return;
	}
	struct cst_volume_message m = {.type = CST_VMSG_OPEN, .identity = *id, .flags = flags};
	struct cst_volume_request *r = CST_NEW(struct cst_volume_request);
	r->answer = open_answered;
	r->fn.open = fn;
	r->arg = arg;
	if (cst_volume_client_send(v, r, &m))
		return;
	free(r);
	answer_open(fn, arg, cst_volume_refusal(v));
}

void cst_volume_entry_close(struct cst_volume_handle *h)
{
	if (!h)
		return;
	CST_CHECK(h, CST_HANDLE_MAGIC);
	cst_volume_handle_unref(h);
}

/* ---- what handles are for ---- */

static void done_answered(struct cst_volume *v, struct cst_volume_request *r, const struct cst_volume_message *m)
{
	(void)v;
	if (r->fn.done)
		r->fn.done(r->arg, m->rc);
}

/* Asks the owner; fn comes with the reply, or at once when there is none to ask. */
static void ask(struct cst_volume_handle *h, struct cst_volume_message *m, cst_volume_done_fn fn, void *arg)
{
	struct cst_volume *v = h->volume;
	struct cst_volume_request *r = CST_NEW(struct cst_volume_request);
	r->answer = done_answered;
	r->handle = cst_volume_handle_ref(h);
	r->fn.done = fn;
	r->arg = arg;
	pthread_mutex_lock(&v->lock);
	bool sent = h->state == CST_HANDLE_LIVE && cst_volume_client_send_locked(v, r, m);
	pthread_mutex_unlock(&v->lock);
	if (sent)
		return;
	cst_volume_handle_unref(h);
	free(r);
	if (fn)
		fn(arg, cst_volume_refusal(v));
}

void cst_volume_charge(struct cst_volume_handle *h, int64_t bytes, cst_volume_done_fn fn, void *arg)
{
	CST_CHECK(h, CST_HANDLE_MAGIC);
	struct cst_volume *v = h->volume;
	struct cst_index *x = cst_volume_index_get(v);
	if (!x) {
		struct cst_volume_message m = {
			.type = CST_VMSG_CHARGE, .identity = {.name = h->name, .version = h->version}, .bytes = bytes};
		ask(h, &m, fn, arg);
		return;
	}
	int rc = is_live(h) ? cst_volume_work_charge(x, h->name, h->version, bytes) : -EAGAIN;
	cst_volume_index_put(v);
	rc = outcome(v, rc == -ENOENT ? -EAGAIN : rc, "charging an entry");
	if (fn)
		fn(arg, rc);
}

struct completion {
	struct cst_volume_handle *handle;
	bool verify;
	cst_volume_done_fn fn;
	void *arg;
};

static void complete_job(void *arg)
{
	CST_AUTO_FREE struct completion *c = arg;
	struct cst_volume_handle *h = c->handle;
	int rc = is_live(h) ? cst_volume_work_complete(h->volume, h->name, h->version, c->verify) : -EAGAIN;
	c->fn(c->arg, rc);
	cst_volume_handle_unref(h);
}

void cst_volume_complete(struct cst_volume_handle *h, bool verify, cst_volume_done_fn fn, void *arg)
{
	CST_CHECK(h, CST_HANDLE_MAGIC);
	struct cst_volume *v = h->volume;
	if (__atomic_load_n(&v->role, __ATOMIC_ACQUIRE) != CST_ROLE_OWNER) {
		struct cst_volume_message m = {.type = CST_VMSG_COMPLETE,
					       .identity = {.name = h->name, .version = h->version},
					       .flags = verify};
		ask(h, &m, fn, arg);
		return;
	}
	struct completion *c = CST_NEW(struct completion);
	*c = (struct completion){cst_volume_handle_ref(h), verify, fn, arg};
	cst_pool_submit(v->sync_pool, complete_job, c);
}

void cst_volume_touch(struct cst_volume_handle *h)
{
	CST_CHECK(h, CST_HANDLE_MAGIC);
	struct cst_volume *v = h->volume;
	bool first = false;
	pthread_mutex_lock(&v->lock);
	h->touches++;
	if (!h->dirty) {
		h->dirty = true;
		first = TAILQ_EMPTY(&v->dirty);
		TAILQ_INSERT_TAIL(&v->dirty, h, dirty_link);
		if (first)
			v->touch_at = cst_now() + TOUCH_DELAY;
	}
	pthread_mutex_unlock(&v->lock);
	if (first)
		cst_volume_wake(v);
}

/* The dirty handles' touches, at most `max`; 0: none are left. */
static uint32_t take_touches(struct cst_volume *v, struct cst_volume_touch_item *items, uint32_t max)
{
	uint32_t n = 0;
	struct cst_volume_handle *h;
	pthread_mutex_lock(&v->lock);
	while (n < max && (h = TAILQ_FIRST(&v->dirty))) {
		TAILQ_REMOVE(&v->dirty, h, dirty_link);
		h->dirty = false;
		if (h->state == CST_HANDLE_LIVE)
			items[n++] = (struct cst_volume_touch_item){h->name, h->version, h->touches};
		h->touches = 0;
	}
	if (TAILQ_EMPTY(&v->dirty))
		v->touch_at = 0;
	pthread_mutex_unlock(&v->lock);
	return n;
}

void cst_volume_flush_touches(struct cst_volume *v)
{
	struct cst_volume_touch_item items[CST_VOLUME_TOUCHES];
	uint32_t n;
	while ((n = take_touches(v, items, CST_VOLUME_TOUCHES))) {
		struct cst_index *x = cst_volume_index_get(v);
		if (x) {
			for (uint32_t i = 0; i < n; i++)
				cst_index_touch(x, items[i].name, items[i].version, items[i].count);
			cst_volume_index_put(v);
			continue;
		}
		CST_AUTO_BUF text = CST_BUF_INIT;
		for (uint32_t i = 0; i < n; i++)
			cst_volume_message_add_touch(&text, &items[i]);
		struct cst_volume_message m = {.type = CST_VMSG_TOUCH, .count = n, .text = cst_buf_slice(&text)};
		cst_volume_client_send(v, NULL, &m);
	}
}

void cst_volume_drop_entry(struct cst_volume_handle *h)
{
	CST_CHECK(h, CST_HANDLE_MAGIC);
	struct cst_volume *v = h->volume;
	struct cst_index *x = cst_volume_index_get(v);
	if (x) {
		int rc = cst_index_drop(x, h->name, h->version);
		cst_volume_index_put(v);
		outcome(v, rc, "dropping an entry");
		return;
	}
	struct cst_volume_message m = {.type = CST_VMSG_FORGET, .identity = {.name = h->name, .version = h->version}};
	cst_volume_client_send(v, NULL, &m);
}

/* ---- administration ---- */

/* True when the caller should try again: a new owner may be there by then. */
static bool again(struct cst_volume *v, int rc, int64_t deadline)
{
	int64_t now = cst_now();
	if (rc != -EAGAIN || now >= deadline)
		return false;
	int64_t until = cst_min(deadline, now + CST_NS_PER_S / 10);
	struct timespec ts = {until / CST_NS_PER_S, until % CST_NS_PER_S};
	pthread_mutex_lock(&v->lock);
	pthread_cond_timedwait(&v->changed, &v->lock, &ts);
	pthread_mutex_unlock(&v->lock);
	return true;
}

static int list_asked(struct cst_volume *v, uint64_t *cursor, struct cst_index_entry *entries, unsigned max)
{
	CST_AUTO_BUF body = CST_BUF_INIT;
	struct cst_volume_message m = {
		.type = CST_VMSG_LIST, .number = *cursor, .count = cst_min(max, CST_VOLUME_LIST)};
	int rc = cst_volume_client_call(v, &m, &body);
	if (rc < 0)
		return rc;
	*cursor = m.number;
	for (uint32_t i = 0; i < cst_min(m.count, max); i++)
		cst_volume_message_entry(&m, i, &entries[i]);
	return (int)cst_min(m.count, max);
}

int cst_volume_list(struct cst_volume *v, uint64_t *cursor, struct cst_index_entry *entries, unsigned max)
{
	CST_CHECK(v, CST_VOLUME_MAGIC);
	int64_t deadline = cst_now() + ADMIN_WAIT;
	int rc;
	do {
		struct cst_index *x = cst_volume_index_get(v);
		if (x) {
			rc = (int)cst_index_list(x, cursor, entries, max);
			cst_volume_index_put(v);
		} else {
			rc = list_asked(v, cursor, entries, max);
		}
	} while (again(v, rc, deadline));
	return rc;
}

int cst_volume_drop(struct cst_volume *v, const struct cst_index_entry *entry)
{
	CST_CHECK(v, CST_VOLUME_MAGIC);
	int64_t deadline = cst_now() + ADMIN_WAIT;
	int rc;
	do {
		struct cst_index *x = cst_volume_index_get(v);
		if (x) {
			rc = cst_index_drop(x, entry->name, entry->version);
			cst_volume_index_put(v);
		} else {
			struct cst_volume_message m = {.type = CST_VMSG_DROP,
						       .identity = {.name = entry->name, .version = entry->version}};
			rc = cst_volume_client_call(v, &m, NULL);
		}
	} while (again(v, rc, deadline));
	return outcome(v, rc, "dropping an entry");
}

int cst_volume_set_pin(struct cst_volume *v, const struct cst_index_entry *entry, bool pin)
{
	CST_CHECK(v, CST_VOLUME_MAGIC);
	int64_t deadline = cst_now() + ADMIN_WAIT;
	int rc;
	do {
		struct cst_index *x = cst_volume_index_get(v);
		if (x) {
			rc = cst_index_pin(x, entry->name, entry->version, pin);
			cst_volume_index_put(v);
		} else {
			struct cst_volume_message m = {.type = CST_VMSG_PIN,
						       .identity = {.name = entry->name, .version = entry->version},
						       .flags = pin};
			rc = cst_volume_client_call(v, &m, NULL);
		}
	} while (again(v, rc, deadline));
	return outcome(v, rc, "pinning an entry");
}

int cst_volume_pin_rule(struct cst_volume *v, const char *prefix, bool add)
{
	CST_CHECK(v, CST_VOLUME_MAGIC);
	int64_t deadline = cst_now() + ADMIN_WAIT;
	int rc;
	if (strlen(prefix) > CST_CACHE_TEXT_MAX)
		return -ENAMETOOLONG;
	do {
		struct cst_index *x = cst_volume_index_get(v);
		if (x) {
			rc = cst_index_pin_rule(x, prefix, add);
			cst_volume_index_put(v);
		} else {
			struct cst_volume_message m = {
				.type = CST_VMSG_RULE, .text = cst_slice_of(prefix), .flags = add};
			rc = cst_volume_client_call(v, &m, NULL);
		}
	} while (again(v, rc, deadline));
	return outcome(v, rc, "writing the pins");
}

/* The owner's text comes in pieces. */
static int rules_asked(struct cst_volume *v, struct cst_buf *out)
{
	CST_AUTO_BUF body = CST_BUF_INIT;
	struct cst_volume_message m;
	cst_buf_clear(out);
	do {
		m = (struct cst_volume_message){.type = CST_VMSG_RULES, .number = out->len};
		int rc = cst_volume_client_call(v, &m, &body);
		if (rc < 0)
			return rc;
		cst_buf_add_slice(out, m.text);
	} while (m.text.len && out->len < m.number);
	return 0;
}

int cst_volume_pin_rules(struct cst_volume *v, struct cst_buf *out)
{
	CST_CHECK(v, CST_VOLUME_MAGIC);
	int64_t deadline = cst_now() + ADMIN_WAIT;
	int rc;
	do {
		struct cst_index *x = cst_volume_index_get(v);
		if (x) {
			cst_buf_clear(out);
			cst_index_pin_rules(x, out);
			cst_volume_index_put(v);
			rc = 0;
		} else {
			rc = rules_asked(v, out);
		}
	} while (again(v, rc, deadline));
	return rc;
}

int cst_volume_stats(struct cst_volume *v, struct cst_index_stats *stats)
{
	CST_CHECK(v, CST_VOLUME_MAGIC);
	struct cst_volume_message m = {.type = CST_VMSG_STATS};
	struct cst_index *x = cst_volume_index_get(v);
	int rc = 0;
	*stats = (struct cst_index_stats){0};
	if (x) {
		cst_index_stats(x, stats);
		cst_volume_index_put(v);
		return 0;
	}
	rc = cst_volume_client_call(v, &m, NULL);
	if (rc == 0)
		*stats = m.stats;
	return rc;
}

/* ---- life ---- */

void cst_volume_fail(struct cst_volume *v, int rc, const char *what)
{
	CST_CHECK(v, CST_VOLUME_MAGIC);
	if (cst_volume_is_disk_error(rc))
		cst_volume_give_up(v, rc, what);
}

bool cst_volume_is_owner(const struct cst_volume *v)
{
	CST_CHECK(v, CST_VOLUME_MAGIC);
	return __atomic_load_n(&v->role, __ATOMIC_ACQUIRE) == CST_ROLE_OWNER;
}

int cst_volume_dir(const struct cst_volume *v)
{
	CST_CHECK(v, CST_VOLUME_MAGIC);
	return v->dir;
}

const char *cst_volume_path(const struct cst_volume *v)
{
	CST_CHECK(v, CST_VOLUME_MAGIC);
	return v->path;
}

static struct cst_volume *volume_new(const struct cst_volume_config *config)
{
	struct cst_volume *v = CST_NEW(struct cst_volume);
	v->magic = CST_VOLUME_MAGIC;
	v->config = *config;
	v->config.path = cst_xstrdup(config->path);
	v->dir = v->epoll = v->wake = v->peer = v->lock_fd = v->listener = -1;
	TAILQ_INIT(&v->handles);
	TAILQ_INIT(&v->dirty);
	TAILQ_INIT(&v->requests);
	TAILQ_INIT(&v->conns);
	STAILQ_INIT(&v->out);
	pthread_rwlock_init(&v->gate, NULL);
	pthread_mutex_init(&v->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&v->changed, &attr);
	pthread_condattr_destroy(&attr);
	return v;
}

static void volume_free(struct cst_volume *v)
{
	const int fds[] = {v->dir, v->epoll, v->wake};
	for (size_t i = 0; i < CST_ARRAY_LEN(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	pthread_rwlock_destroy(&v->gate);
	pthread_mutex_destroy(&v->lock);
	pthread_cond_destroy(&v->changed);
	free((char *)v->config.path);
	free(v->path);
	v->magic = 0;
	free(v);
}

static int start_thread(struct cst_volume *v)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
	v->epoll = epoll_create1(EPOLL_CLOEXEC);
	v->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (v->epoll < 0 || v->wake < 0 || epoll_ctl(v->epoll, EPOLL_CTL_ADD, v->wake, &event) < 0)
		return -errno;
	v->pool = cst_pool_new("cache-work", WORK_THREADS);
	v->open_pool = cst_pool_new("cache-open", OPEN_THREADS);
	v->sync_pool = cst_pool_new("cache-sync", SYNC_THREADS);
	int rc = cst_thread_start(&v->thread, "cache-volume", 0, cst_volume_thread, v);
	if (rc < 0) {
		cst_pool_free(v->pool);
		cst_pool_free(v->open_pool);
		cst_pool_free(v->sync_pool);
	}
	return rc;
}

struct cst_volume *cst_volume_open(const struct cst_volume_config *config, struct cst_error *err)
{
	struct cst_volume *v = volume_new(config);
	int rc = cst_volume_dir_open(v, err);
	if (rc == 0) {
		rc = start_thread(v);
		if (rc < 0) {
			cst_error_set(err, -rc, "can't start the cache in %s", v->path);
			cst_error_why(err, "%s", strerror(-rc));
		}
	}
	if (rc < 0) {
		volume_free(v);
		return NULL;
	}
	int64_t deadline = cst_now() + START_WAIT;
	struct timespec ts = {deadline / CST_NS_PER_S, deadline % CST_NS_PER_S};
	pthread_mutex_lock(&v->lock);
	while (v->role == CST_ROLE_CHANGING && pthread_cond_timedwait(&v->changed, &v->lock, &ts) != ETIMEDOUT)
		;
	enum cst_volume_role role = v->role;
	v->opened = true;
	if (role == CST_ROLE_FAILED && err)
		*err = v->start_error;
	pthread_mutex_unlock(&v->lock);
	if (role == CST_ROLE_FAILED) {
		if (err && !err->code)
			cst_error_set(err, EIO, "can't use the cache directory %s", v->path);
		cst_volume_close(v);
		return NULL;
	}
	if (role == CST_ROLE_CHANGING)
		cst_log_warn("%s: the process that has this cache does not answer; going on without it until it does",
			     v->path);
	return v;
}

void cst_volume_close(struct cst_volume *v)
{
	if (!v)
		return;
	CST_CHECK(v, CST_VOLUME_MAGIC);
	pthread_mutex_lock(&v->lock);
	v->stopping = true;
	pthread_mutex_unlock(&v->lock);
	cst_volume_wake(v);
	pthread_join(v->thread, NULL);
	cst_pool_free(v->pool);
	cst_pool_free(v->open_pool);
	cst_pool_free(v->sync_pool);
	CST_ASSERT(TAILQ_EMPTY(&v->handles));
	if (v->index)
		cst_index_close(v->index);
	cst_volume_dir_unlock(v);
	volume_free(v);
}
