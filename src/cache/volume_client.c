/* A process that is not the owner: its connection, its requests, and what it has open when the owner changes. */
#define CST_LOG_AREA "cache"
#include "base/log.h"

#include "base/clock.h"
#include "cache/volume_private.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define SILENCE (1 * CST_NS_PER_S)  /* then the owner is asked for a sign of life */
#define PATIENCE (5 * CST_NS_PER_S) /* then it is taken for dead */
#define BATCH 64		    /* packets read at a time */
#define OUT_MAX 8192		    /* packets that may wait for room */

/* ---- sending ---- */

static void watch_locked(struct cst_volume *v, bool blocked)
{
	struct epoll_event event = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0), .data.ptr = &v->peer};
	if (v->peer_blocked != blocked)
		epoll_ctl(v->epoll, EPOLL_CTL_MOD, v->peer, &event);
	v->peer_blocked = blocked;
}

/* What can't be sent because the connection is dead is not noticed here: its end comes as an event, and then all requests end. */
static void transmit_locked(struct cst_volume *v, const struct cst_volume_message *m)
{
	uint8_t packet[CST_VOLUME_MESSAGE_MAX];
	size_t len = cst_volume_message_write(m, packet);
	cst_volume_queue_add(&v->out, packet, len);
	v->out_count++;
	if (v->peer_blocked)
		return;
	int rc = cst_volume_queue_flush(&v->out, v->peer);
	if (rc == 0)
		v->out_count = 0;
	watch_locked(v, rc == -EAGAIN);
}

bool cst_volume_client_send_locked(struct cst_volume *v, struct cst_volume_request *r, struct cst_volume_message *m)
{
	/* What gives something up is few, one for each thing, and lost it would stay with the owner for good. */
	bool must = m->type == CST_VMSG_CLOSE || m->type == CST_VMSG_COMMIT || m->type == CST_VMSG_FORGET;
	if (v->role != CST_ROLE_CLIENT || v->stopping || (v->out_count >= OUT_MAX && !must))
		return false;
	if (r) {
		m->id = r->id = ++v->last_id;
		r->type = m->type;
		TAILQ_INSERT_TAIL(&v->requests, r, link);
	}
	transmit_locked(v, m);
	return true;
}

bool cst_volume_client_send(struct cst_volume *v, struct cst_volume_request *r, struct cst_volume_message *m)
{
	pthread_mutex_lock(&v->lock);
	bool sent = cst_volume_client_send_locked(v, r, m);
	pthread_mutex_unlock(&v->lock);
	return sent;
}

struct call {
	bool done;
	struct cst_volume_message *m;
	struct cst_buf *body;
};

/* The waiting caller owns `call`, so it is touched for the last time under the lock. */
static void call_answered(struct cst_volume *v, struct cst_volume_request *r, const struct cst_volume_message *m)
{
	struct call *call = r->arg;
	pthread_mutex_lock(&v->lock);
	*call->m = *m;
	if (call->body) {
		cst_buf_clear(call->body);
		cst_buf_add_slice(call->body, m->text);
		call->m->text = cst_buf_slice(call->body);
	}
	call->done = true;
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
}

int cst_volume_client_call(struct cst_volume *v, struct cst_volume_message *m, struct cst_buf *body)
{
	struct call call = {false, m, body};
	if (cst_volume_is_service_thread(v))
		return -EDEADLK;
	struct cst_volume_request *r = CST_NEW(struct cst_volume_request);
	r->answer = call_answered;
	r->arg = &call;
	pthread_mutex_lock(&v->lock);
	if (!cst_volume_client_send_locked(v, r, m)) {
		pthread_mutex_unlock(&v->lock);
		free(r);
		return cst_volume_refusal(v);
	}
	while (!call.done)
		pthread_cond_wait(&v->changed, &v->lock);
	pthread_mutex_unlock(&v->lock);
	return m->rc;
}

/* ---- replies ---- */

static void deliver(struct cst_volume *v, struct cst_volume_request *r, const struct cst_volume_message *m)
{
	r->answer(v, r, m);
	if (r->handle)
		cst_volume_handle_unref(r->handle);
	free(r);
}

static struct cst_volume_request *take_request(struct cst_volume *v, uint64_t id, enum cst_volume_type type)
{
	struct cst_volume_request *r;
	pthread_mutex_lock(&v->lock);
	TAILQ_FOREACH (r, &v->requests, link)
		if (r->id == id)
			break;
	if (r && r->type != type)
		r = NULL;
	if (r)
		TAILQ_REMOVE(&v->requests, r, link);
	pthread_mutex_unlock(&v->lock);
	return r;
}

/* ---- the connection ---- */

void cst_volume_client_disconnect(struct cst_volume *v, int rc)
{
	struct cst_request_list ended = TAILQ_HEAD_INITIALIZER(ended);
	struct cst_volume_request *r;
	struct cst_volume_handle *h;
	const struct cst_volume_message none = {.reply = true, .rc = rc};
	if (v->peer < 0)
		return;
	pthread_rwlock_wrlock(&v->gate);
	pthread_mutex_lock(&v->lock);
	close(v->peer);
	v->peer = -1;
	v->peer_blocked = v->greeting = false;
	v->asked_at = 0;
	cst_volume_queue_clear(&v->out);
	v->out_count = 0;
	TAILQ_CONCAT(&ended, &v->requests, link);
	TAILQ_FOREACH (h, &v->handles, link)
		if (h->state == CST_HANDLE_LIVE)
			h->state = CST_HANDLE_PENDING;
	if (v->role == CST_ROLE_CLIENT) {
		__atomic_store_n(&v->role, CST_ROLE_CHANGING, __ATOMIC_RELEASE);
		v->epoch++;
		v->next_try = v->backoff = 0;
	}
	pthread_mutex_unlock(&v->lock);
	pthread_rwlock_unlock(&v->gate);
	while ((r = TAILQ_FIRST(&ended))) {
		TAILQ_REMOVE(&ended, r, link);
		deliver(v, r, &none);
	}
}

void cst_volume_client_greet(struct cst_volume *v)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = &v->peer};
	const struct cst_volume_message hello = {.type = CST_VMSG_HELLO, .id = 1, .number = v->config.limits.quota};
	int fd = cst_volume_dir_connect(v);
	if (fd < 0)
		return;
	if (epoll_ctl(v->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
		close(fd);
		return;
	}
	pthread_mutex_lock(&v->lock);
	v->peer = fd;
	v->peer_blocked = false;
	v->greeting = true;
	v->last_id = hello.id;
	v->asked_at = v->heard_at = cst_now();
	transmit_locked(v, &hello);
	pthread_mutex_unlock(&v->lock);
}

static void reopened(struct cst_volume *v, struct cst_volume_request *r, const struct cst_volume_message *m)
{
	pthread_mutex_lock(&v->lock);
	if (m->rc == 0 && m->entry.name == r->handle->name && m->entry.version == r->handle->version)
		r->handle->state = CST_HANDLE_LIVE;
	else if (m->rc != -EAGAIN)
		r->handle->state = CST_HANDLE_DEAD;
	pthread_mutex_unlock(&v->lock);
}

/* The owner has answered: what is in use here is opened again before anything else is asked. */
static void greeted(struct cst_volume *v, uint64_t quota)
{
	struct cst_volume_handle *h;
	unsigned count = 0;
	pthread_mutex_lock(&v->lock);
	v->greeting = false;
	bool fine = v->role == CST_ROLE_CHANGING;
	if (fine) {
		__atomic_store_n(&v->role, CST_ROLE_CLIENT, __ATOMIC_RELEASE);
		v->backoff = 0;
		TAILQ_FOREACH (h, &v->handles, link) {
			struct cst_volume_message m = {
				.type = CST_VMSG_OPEN,
				.identity = {.name = h->name, .version = h->version, .size = h->size}};
			if (h->state != CST_HANDLE_PENDING || !cst_volume_handle_try_ref(h))
				continue;
			struct cst_volume_request *r = CST_NEW(struct cst_volume_request);
			r->answer = reopened;
			r->handle = h;
			m.id = r->id = ++v->last_id;
			r->type = m.type;
			TAILQ_INSERT_TAIL(&v->requests, r, link);
			transmit_locked(v, &m);
			count++;
		}
	}
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
	if (!fine)
		return;
	cst_log_info("%s: shared with the process that has the cache; %u entries in use opened again", v->path, count);
	if (quota != v->config.limits.quota && !v->quota_told)
		cst_log_warn("%s: opened with a quota of %llu bytes, but the process that has the cache keeps to %llu",
			     v->path, (unsigned long long)v->config.limits.quota, (unsigned long long)quota);
	v->quota_told = true;
}

/* False: that was no message of an owner. */
static bool take_packet(struct cst_volume *v, const uint8_t *packet, size_t len)
{
	struct cst_volume_message m;
	if (cst_volume_message_parse(packet, len, &m) < 0)
		return false;
	if (!m.reply) {
		if (m.type != CST_VMSG_FAILED)
			return false;
		if (m.flags == ENOENT)
			cst_volume_give_up(v, -ENOENT, "the directory was deleted or replaced");
		else
			cst_volume_give_up(v, -EIO, "the process that has the cache found its disk failing");
		return true;
	}
	if (m.type == CST_VMSG_HELLO) {
		if (!v->greeting || m.rc < 0)
			return false;
		greeted(v, m.number);
		return true;
	}
	struct cst_volume_request *r = take_request(v, m.id, m.type);
	if (!r)
		return false;
	deliver(v, r, &m);
	return true;
}

/* False: the connection is over. */
static bool read_packets(struct cst_volume *v)
{
	uint8_t packet[CST_VOLUME_MESSAGE_MAX + 1];
	for (int i = 0; i < BATCH; i++) {
		ssize_t len = recv(v->peer, packet, sizeof(packet), MSG_DONTWAIT);
		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0)
			return errno == EAGAIN;
		if (len == 0)
			return false;
		pthread_mutex_lock(&v->lock);
		v->heard_at = cst_now();
		v->asked_at = 0;
		pthread_mutex_unlock(&v->lock);
		if (!take_packet(v, packet, (size_t)len)) {
			cst_log_warn("%s: the process that has the cache sent what is no message", v->path);
			return false;
		}
	}
	return true;
}

void cst_volume_client_event(struct cst_volume *v, uint32_t events)
{
	if (v->peer < 0)
		return;
	if (events & EPOLLOUT) {
		pthread_mutex_lock(&v->lock);
		int rc = cst_volume_queue_flush(&v->out, v->peer);
		if (rc == 0)
			v->out_count = 0;
		watch_locked(v, rc == -EAGAIN);
		pthread_mutex_unlock(&v->lock);
	}
	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !read_packets(v))
		cst_volume_client_disconnect(v, -EAGAIN);
}

static void ponged(struct cst_volume *v, struct cst_volume_request *r, const struct cst_volume_message *m)
{
	(void)v;
	(void)r;
	(void)m;
}

/* An owner that is stopped or hangs must not hold up those who ask it. */
void cst_volume_client_tick(struct cst_volume *v, int64_t now)
{
	bool dead = false;
	if (v->peer < 0)
		return;
	pthread_mutex_lock(&v->lock);
	if (v->asked_at) {
		dead = now - v->asked_at > PATIENCE;
	} else if (!TAILQ_EMPTY(&v->requests) && now - v->heard_at > SILENCE) {
		struct cst_volume_message m = {.type = CST_VMSG_PING};
		struct cst_volume_request *r = CST_NEW(struct cst_volume_request);
		r->answer = ponged;
		if (cst_volume_client_send_locked(v, r, &m))
			v->asked_at = now;
		else
			free(r);
	}
	pthread_mutex_unlock(&v->lock);
	if (!dead)
		return;
	cst_log_warn("%s: the process that has the cache does not answer; going on without it until it does", v->path);
	cst_volume_client_disconnect(v, -EAGAIN);
	v->next_try = now + CST_NS_PER_S;
}
