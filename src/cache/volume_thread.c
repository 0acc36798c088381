/* The service thread of a volume: election, the socket's events, and what comes by the clock. */
#define CST_LOG_AREA "cache"
#include "base/log.h"

#include "base/clock.h"
#include "cache/volume_private.h"

#include <errno.h>
#include <sys/epoll.h>

#define LOOK_EVERY (2 * CST_NS_PER_S)
#define BACKOFF_FIRST (2 * CST_NS_PER_MS)
#define BACKOFF_MAX (250 * CST_NS_PER_MS)
#define EVENTS 32

static _Thread_local const struct cst_volume *served;

bool cst_volume_is_service_thread(const struct cst_volume *v)
{
	return served == v;
}

void cst_volume_wake(const struct cst_volume *v)
{
	const uint64_t one = 1;
	/* Full means that the thread will wake anyway. */
	if (write(v->wake, &one, sizeof(one)) < 0 && errno != EAGAIN)
		cst_panic(__FILE__, __LINE__, "can't wake the thread of a volume: error %d", errno);
}

void cst_volume_give_up(struct cst_volume *v, int rc, const char *what)
{
	pthread_mutex_lock(&v->lock);
	bool first = v->role != CST_ROLE_FAILED;
	if (first) {
		v->failed_rc = rc;
		snprintf(v->failed_what, sizeof(v->failed_what), "%s", what);
		__atomic_store_n(&v->role, CST_ROLE_FAILED, __ATOMIC_RELEASE);
		pthread_cond_broadcast(&v->changed);
	}
	pthread_mutex_unlock(&v->lock);
	if (first)
		cst_volume_wake(v);
}

/* ---- roles ---- */

static void index_failed(void *arg, int rc, const char *what)
{
	cst_volume_give_up(arg, rc, what);
}

static bool index_demote(void *arg, const struct cst_index_entry *entry)
{
	struct cst_volume *v = arg;
	return v->config.demote(v->config.arg, entry);
}

/* No role, no election any more: the directory can't be used from the start, and cst_volume_open() says why. */
static void fail_start(struct cst_volume *v, int rc, const struct cst_error *err)
{
	pthread_mutex_lock(&v->lock);
	v->start_error = *err;
	v->told = !v->opened;
	v->failed_rc = rc;
	__atomic_store_n(&v->role, CST_ROLE_FAILED, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
}

static bool is_start(struct cst_volume *v)
{
	pthread_mutex_lock(&v->lock);
	bool start = !v->opened;
	pthread_mutex_unlock(&v->lock);
	return start;
}

static void stop_listening(struct cst_volume *v)
{
	if (v->listener < 0)
		return;
	close(v->listener);
	v->listener = -1;
}

static void start_listening(struct cst_volume *v)
{
	stop_listening(v);
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = &v->listener};
	int fd = cst_volume_dir_listen(v);
	if (fd < 0) {
		cst_log_warn("%s: other processes can't share this cache: no socket: %s", v->path, strerror(-fd));
		return;
	}
	v->listener = fd;
	v->listener_paused = false;
	if (epoll_ctl(v->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		stop_listening(v);
}

/* Who waits can't be let in now and stays readable, which must not keep this thread busy. */
static void pause_listening(struct cst_volume *v, bool paused)
{
	struct epoll_event event = {.events = paused ? 0 : EPOLLIN, .data.ptr = &v->listener};
	if (v->listener >= 0 && v->listener_paused != paused &&
	    epoll_ctl(v->epoll, EPOLL_CTL_MOD, v->listener, &event) == 0)
		v->listener_paused = paused;
}

/* The handles of this process, in the index that has just been opened. That may read maps, so it is done without locks: a handle that is closed
 * meanwhile lives until its outcome is noted. */
struct reopened {
	struct cst_volume_handle **handles;
	int *rc;
	size_t count;
};

static void reopen_handles(struct cst_volume *v, struct cst_index *x, struct reopened *r)
{
	struct cst_volume_handle *h;
	size_t count = 0;
	pthread_mutex_lock(&v->lock);
	TAILQ_FOREACH (h, &v->handles, link)
		count++;
	r->handles = cst_xcalloc(count, sizeof(struct cst_volume_handle *));
	r->rc = cst_xcalloc(count, sizeof(int));
	TAILQ_FOREACH (h, &v->handles, link)
		if (h->state == CST_HANDLE_PENDING && cst_volume_handle_try_ref(h))
			r->handles[r->count++] = h;
	pthread_mutex_unlock(&v->lock);
	for (size_t i = 0; i < r->count; i++) {
		const struct cst_cache_identity id = {
			.name = r->handles[i]->name, .version = r->handles[i]->version, .size = r->handles[i]->size};
		struct cst_index_entry entry;
		bool created;
		r->rc[i] = cst_index_entry_open(x, &id, false, false, &entry, &created);
	}
}

static void reopened_locked(struct reopened *r)
{
	for (size_t i = 0; i < r->count; i++)
		r->handles[i]->state = r->rc[i] == 0 ? CST_HANDLE_LIVE : CST_HANDLE_DEAD;
}

static void reopened_fini(struct reopened *r)
{
	for (size_t i = 0; i < r->count; i++)
		cst_volume_handle_unref(r->handles[i]);
	free(r->handles);
	free(r->rc);
}

static void become_owner(struct cst_volume *v)
{
	struct cst_error err = CST_ERROR_INIT;
	const struct cst_index_config config = {
		.dir = v->dir,
		.limits = v->config.limits,
		.demote = v->config.demote ? index_demote : NULL,
		.failed = index_failed,
		.arg = v,
	};
	bool start = is_start(v);
	struct cst_index *x = cst_index_open(&config, &err);
	if (!x) {
		char text[CST_ERROR_TEXT_MAX];
		cst_volume_dir_unlock(v);
		if (start) {
			fail_start(v, -EIO, &err);
		} else {
			cst_log_error("%s: can't take the cache over: %s", v->path,
				      cst_error_text(&err, text, sizeof(text)));
			cst_volume_give_up(v, -EIO, "taking over");
		}
		return;
	}
	/* Who sees the owner finds its socket; it is served from here, after this. */
	start_listening(v);
	struct reopened reopened = {0};
	reopen_handles(v, x, &reopened);
	pthread_rwlock_wrlock(&v->gate);
	pthread_mutex_lock(&v->lock);
	reopened_locked(&reopened);
	v->index = x;
	v->epoch++;
	if (v->role != CST_ROLE_FAILED)
		__atomic_store_n(&v->role, CST_ROLE_OWNER, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
	pthread_rwlock_unlock(&v->gate);
	reopened_fini(&reopened);
	cst_log_info("%s: this process %s the cache", v->path, start ? "has" : "takes over");
}

/* The owner's part ends: nobody can use the index any more, and another process may have it. */
static void leave_office(struct cst_volume *v, int failed_rc)
{
	stop_listening(v);
	cst_volume_server_close(v, failed_rc);
	/* First, so that no new users of the index hold the gate. */
	pthread_mutex_lock(&v->lock);
	if (v->role == CST_ROLE_OWNER)
		__atomic_store_n(&v->role, CST_ROLE_CHANGING, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&v->lock);
	pthread_rwlock_wrlock(&v->gate);
	pthread_mutex_lock(&v->lock);
	struct cst_index *x = cst_steal(v->index);
	struct cst_volume_handle *h;
	TAILQ_FOREACH (h, &v->handles, link)
		if (h->state == CST_HANDLE_LIVE)
			h->state = CST_HANDLE_PENDING;
	pthread_mutex_unlock(&v->lock);
	pthread_rwlock_unlock(&v->gate);
	/* Not under the gate: its evictor may be copying an entry elsewhere. */
	if (x)
		cst_index_close(x);
	cst_volume_dir_unlock(v);
}

static void try_later(struct cst_volume *v)
{
	v->backoff = v->backoff ? cst_min(v->backoff * 2, (int64_t)BACKOFF_MAX) : BACKOFF_FIRST;
	v->next_try = cst_now() + v->backoff;
}

static void elect(struct cst_volume *v)
{
	int rc = cst_volume_dir_lock(v);
	if (rc == 0) {
		v->backoff = 0;
		become_owner(v);
		return;
	}
	try_later(v);
	if (rc == -EAGAIN) {
		cst_volume_client_greet(v);
		return;
	}
	if (is_start(v)) {
		struct cst_error err = CST_ERROR_INIT;
		cst_error_set(&err, -rc, "can't lock the cache directory %s", v->path);
		cst_error_why(&err, "%s", strerror(-rc));
		fail_start(v, rc, &err);
	} else if (cst_volume_is_disk_error(rc)) {
		cst_volume_give_up(v, rc, "locking");
	}
}

/* ---- by the clock ---- */

static void look(struct cst_volume *v)
{
	int rc = cst_volume_dir_check(v);
	v->next_look = cst_now() + LOOK_EVERY;
	pause_listening(v, false);
	if (rc == -ENOENT) {
		cst_volume_give_up(v, rc, "the directory was deleted or replaced");
		return;
	}
	if (cst_volume_is_disk_error(rc)) {
		cst_volume_give_up(v, rc, "the directory can't be read");
		return;
	}
	if (rc < 0 || v->lock_fd < 0)
		return;
	if (!cst_volume_dir_locked(v)) {
		cst_log_warn("%s: the lock file was removed; starting over with what is left", v->path);
		leave_office(v, 0);
		v->next_try = 0;
	} else if (!cst_volume_dir_has_socket(v)) {
		start_listening(v);
	}
}

/* Once after give_up(): tells everyone and lets go of the directory. */
static void wind_up(struct cst_volume *v)
{
	pthread_mutex_lock(&v->lock);
	bool tell = !v->told;
	v->told = true;
	pthread_mutex_unlock(&v->lock);
	if (!tell)
		return;
	/* Who asked to be told says it in its own words. */
	if (!v->config.failed)
		cst_log_error("%s: the cache is out of use: %s: %s", v->path, v->failed_what, strerror(-v->failed_rc));
	cst_volume_client_disconnect(v, -EIO);
	leave_office(v, v->failed_rc);
	if (v->config.failed)
		v->config.failed(v->config.arg, v->failed_rc, v->failed_what);
}

static enum cst_volume_role role_of(const struct cst_volume *v)
{
	return __atomic_load_n(&v->role, __ATOMIC_ACQUIRE);
}

static void tick(struct cst_volume *v)
{
	int64_t now = cst_now();
	pthread_mutex_lock(&v->lock);
	bool touches = v->touch_at && now >= v->touch_at;
	pthread_mutex_unlock(&v->lock);
	if (touches)
		cst_volume_flush_touches(v);
	cst_volume_client_tick(v, now);
	if (now >= v->next_look && role_of(v) != CST_ROLE_FAILED)
		look(v);
	if (role_of(v) == CST_ROLE_CHANGING && !v->greeting && now >= v->next_try)
		elect(v);
	if (role_of(v) == CST_ROLE_FAILED)
		wind_up(v);
}

/* Milliseconds until the next tick is due. */
static int pause_length(struct cst_volume *v)
{
	enum cst_volume_role role = role_of(v);
	if (role == CST_ROLE_FAILED)
		return -1;
	int64_t at = v->next_look;
	if (role == CST_ROLE_CHANGING && !v->greeting)
		at = cst_min(at, v->next_try);
	pthread_mutex_lock(&v->lock);
	if (v->touch_at)
		at = cst_min(at, v->touch_at);
	pthread_mutex_unlock(&v->lock);
	int64_t left = at - cst_now();
	return left <= 0 ? 0 : (int)((left + CST_NS_PER_MS - 1) / CST_NS_PER_MS);
}

static void dispatch(struct cst_volume *v, const struct epoll_event *event)
{
	if (!event->data.ptr) {
		uint64_t count;
		if (read(v->wake, &count, sizeof(count)) < 0 && errno != EAGAIN)
			cst_panic(__FILE__, __LINE__, "can't read an eventfd: error %d", errno);
	} else if (event->data.ptr == &v->listener) {
		if (!cst_volume_server_accept(v))
			pause_listening(v, true);
	} else if (event->data.ptr == &v->peer) {
		cst_volume_client_event(v, event->events);
	} else {
		cst_volume_server_event(event->data.ptr, event->events);
	}
}

static bool is_stopping(struct cst_volume *v)
{
	pthread_mutex_lock(&v->lock);
	bool stopping = v->stopping;
	pthread_mutex_unlock(&v->lock);
	return stopping;
}

void *cst_volume_thread(void *volume)
{
	struct cst_volume *v = volume;
	struct epoll_event events[EVENTS];
	served = v;
	v->next_look = cst_now() + LOOK_EVERY;
	while (!is_stopping(v)) {
		tick(v);
		int n = epoll_wait(v->epoll, events, EVENTS, pause_length(v));
		for (int i = 0; i < n; i++)
			dispatch(v, &events[i]);
		cst_volume_server_sweep(v);
	}
	cst_volume_flush_touches(v);
	cst_volume_client_disconnect(v, -EAGAIN);
	stop_listening(v);
	cst_volume_server_close(v, 0);
	cst_volume_server_sweep(v);
	return NULL;
}
