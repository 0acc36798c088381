/* The owner's side of the socket: one connection a process, with a record of what that process has open, has charged and has reserved, so that
 * all of it is given back when it dies. */
#define CST_LOG_AREA "cache"
#include "base/log.h"

#include "base/clock.h"
#include "cache/volume_private.h"

#include <errno.h>
#include <search.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define BATCH 32	  /* packets of one connection at a time */
#define JOBS_MAX 256u	  /* then no more is read from it */
#define REPLIES_MAX 1024u /* likewise, when it doesn't take its replies */
#define CONNS_MAX 1024u

struct use {
	uint64_t name, version;
	unsigned count;
	uint64_t charged;
};
struct reservation {
	struct cst_index_entry entry;
	LIST_ENTRY(reservation) link;
};

struct cst_volume_conn {
	unsigned magic;
	struct cst_volume *volume;
	struct cst_ref refs; /* the list's, one for each job */
	uint64_t epoch;	     /* of the index that its records are about */
	bool greeted, listed;
	TAILQ_ENTRY(cst_volume_conn) link;
	pthread_mutex_t lock; /* from here on */
	int fd;		      /* -1: closed */
	uint32_t watched;
	struct cst_volume_queue out;
	unsigned out_count, jobs;
	void *uses; /* tree of struct use */
	LIST_HEAD(, reservation) reservations;
};

struct job {
	struct cst_volume_conn *conn;
	size_t len;
	uint8_t packet[];
};

/* ---- records ---- */

static int compare_uses(const void *a, const void *b)
{
	const struct use *x = a, *y = b;
	if (x->name != y->name)
		return x->name < y->name ? -1 : 1;
	return x->version == y->version ? 0 : x->version < y->version ? -1 : 1;
}

static struct use *find_use_locked(struct cst_volume_conn *c, uint64_t name, uint64_t version)
{
	const struct use key = {.name = name, .version = version};
	struct use **found = tfind(&key, &c->uses, compare_uses);
	return found ? *found : NULL;
}

static void add_use(struct cst_volume_conn *c, uint64_t name, uint64_t version)
{
	pthread_mutex_lock(&c->lock);
	struct use *u = find_use_locked(c, name, version);
	if (!u) {
		u = CST_NEW(struct use);
		u->name = name;
		u->version = version;
		CST_ASSERT(tsearch(u, &c->uses, compare_uses));
	}
	u->count++;
	pthread_mutex_unlock(&c->lock);
}

static bool has_use(struct cst_volume_conn *c, uint64_t name, uint64_t version)
{
	pthread_mutex_lock(&c->lock);
	bool has = find_use_locked(c, name, version) != NULL;
	pthread_mutex_unlock(&c->lock);
	return has;
}

static bool remove_use(struct cst_volume_conn *c, uint64_t name, uint64_t version)
{
	pthread_mutex_lock(&c->lock);
	struct use *u = find_use_locked(c, name, version);
	if (u && --u->count == 0) {
		tdelete(u, &c->uses, compare_uses);
		free(u);
	}
	pthread_mutex_unlock(&c->lock);
	return u != NULL;
}

static void add_charge(struct cst_volume_conn *c, uint64_t name, uint64_t version, int64_t bytes)
{
	pthread_mutex_lock(&c->lock);
	struct use *u = find_use_locked(c, name, version);
	if (u && bytes < 0)
		u->charged -= cst_min(u->charged, -(uint64_t)bytes);
	else if (u)
		u->charged += (uint64_t)bytes;
	pthread_mutex_unlock(&c->lock);
}

static void add_reservation(struct cst_volume_conn *c, const struct cst_index_entry *entry)
{
	struct reservation *r = CST_NEW(struct reservation);
	r->entry = *entry;
	pthread_mutex_lock(&c->lock);
	LIST_INSERT_HEAD(&c->reservations, r, link);
	pthread_mutex_unlock(&c->lock);
}

static bool take_reservation(struct cst_volume_conn *c, const struct cst_index_entry *wanted,
			     struct cst_index_entry *entry)
{
	struct reservation *r;
	pthread_mutex_lock(&c->lock);
	LIST_FOREACH (r, &c->reservations, link)
		if (r->entry.name == wanted->name && r->entry.version == wanted->version &&
		    r->entry.slot.slab == wanted->slot.slab && r->entry.slot.offset == wanted->slot.offset)
			break;
	if (r)
		LIST_REMOVE(r, link);
	pthread_mutex_unlock(&c->lock);
	if (!r)
		return false;
	*entry = r->entry;
	free(r);
	return true;
}

/* ---- life of a connection ---- */

/* The index that the records are about; NULL: it has gone, and they with it. */
static struct cst_index *index_of(struct cst_volume_conn *c)
{
	struct cst_index *x = cst_volume_index_get(c->volume);
	if (x && c->volume->epoch == c->epoch)
		return x;
	if (x)
		cst_volume_index_put(c->volume);
	return NULL;
}

static void give_back(const void *node, VISIT visit, void *conn)
{
	struct cst_volume_conn *c = conn;
	if (visit != postorder && visit != leaf)
		return;
	const struct use *u = *(struct use *const *)node;
	if (u->charged)
		cst_volume_work_recount(c->volume, u->name, u->version, u->charged);
	struct cst_index *x = index_of(c);
	if (!x)
		return;
	for (unsigned i = 0; i < u->count; i++)
		cst_index_entry_close(x, u->name, u->version);
	cst_volume_index_put(c->volume);
}

/* Blocks. Nobody else has the connection any more. */
static void conn_free(void *conn)
{
	struct cst_volume_conn *c = conn;
	struct reservation *r;
	while ((r = LIST_FIRST(&c->reservations))) {
		struct cst_index *x = index_of(c);
		if (x) {
			cst_index_slot_commit(x, &r->entry, false);
			cst_volume_index_put(c->volume);
		}
		LIST_REMOVE(r, link);
		free(r);
	}
	twalk_r(c->uses, give_back, c);
	tdestroy(c->uses, free);
	cst_volume_queue_clear(&c->out);
	pthread_mutex_destroy(&c->lock);
	c->magic = 0;
	free(c);
}

static void close_locked(struct cst_volume_conn *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	cst_volume_queue_clear(&c->out);
	c->out_count = 0;
}

static void conn_close(struct cst_volume_conn *c)
{
	pthread_mutex_lock(&c->lock);
	close_locked(c);
	pthread_mutex_unlock(&c->lock);
}

/* What epoll should tell. A dead connection is left as it is: its end is an event already. */
static void watch_locked(struct cst_volume_conn *c)
{
	uint32_t events = 0;
	if (c->jobs < JOBS_MAX && c->out_count < REPLIES_MAX)
		events |= EPOLLIN;
	if (!STAILQ_EMPTY(&c->out))
		events |= EPOLLOUT;
	struct epoll_event event = {.events = events, .data.ptr = c};
	if (c->fd >= 0 && events != c->watched && epoll_ctl(c->volume->epoll, EPOLL_CTL_MOD, c->fd, &event) == 0)
		c->watched = events;
}

static void send_message(struct cst_volume_conn *c, const struct cst_volume_message *m)
{
	uint8_t packet[CST_VOLUME_MESSAGE_MAX];
	size_t len = cst_volume_message_write(m, packet);
	pthread_mutex_lock(&c->lock);
	if (c->fd >= 0) {
		bool idle = STAILQ_EMPTY(&c->out);
		cst_volume_queue_add(&c->out, packet, len);
		c->out_count++;
		if (idle && cst_volume_queue_flush(&c->out, c->fd) == 0)
			c->out_count = 0;
		watch_locked(c);
	}
	pthread_mutex_unlock(&c->lock);
}

bool cst_volume_server_accept(struct cst_volume *v)
{
	unsigned count = 0;
	struct cst_volume_conn *c;
	TAILQ_FOREACH (c, &v->conns, link)
		count++;
	int fd = accept4(v->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS;
	if (count >= CONNS_MAX || !cst_volume_peer_is_us(fd)) {
		close(fd);
		return true;
	}
	c = CST_NEW(struct cst_volume_conn);
	c->magic = CST_CONN_MAGIC;
	c->volume = v;
	c->epoch = v->epoch;
	c->fd = fd;
	c->watched = EPOLLIN;
	cst_ref_init(&c->refs);
	pthread_mutex_init(&c->lock, NULL);
	STAILQ_INIT(&c->out);
	LIST_INIT(&c->reservations);
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
	if (epoll_ctl(v->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		conn_close(c);
	TAILQ_INSERT_TAIL(&v->conns, c, link);
	return true;
}

void cst_volume_server_sweep(struct cst_volume *v)
{
	struct cst_volume_conn *c = TAILQ_FIRST(&v->conns);
	while (c) {
		struct cst_volume_conn *next = TAILQ_NEXT(c, link);
		pthread_mutex_lock(&c->lock);
		bool closed = c->fd < 0;
		pthread_mutex_unlock(&c->lock);
		if (closed) {
			TAILQ_REMOVE(&v->conns, c, link);
			if (cst_ref_put(&c->refs))
				cst_pool_submit(v->sync_pool, conn_free, c);
		}
		c = next;
	}
}

void cst_volume_server_close(struct cst_volume *v, int failed_rc)
{
	const struct cst_volume_message failed = {.type = CST_VMSG_FAILED, .flags = (uint32_t)-failed_rc};
	struct cst_volume_conn *c;
	TAILQ_FOREACH (c, &v->conns, link) {
		if (failed_rc)
			send_message(c, &failed);
		conn_close(c);
	}
}

/* ---- requests ---- */

static int serve_open(struct cst_volume_conn *c, struct cst_index *x, const struct cst_volume_message *m,
		      struct cst_volume_message *reply)
{
	int rc = cst_index_entry_open(x, &m->identity, m->flags & CST_VOLUME_CREATE, m->flags & CST_VOLUME_PIN,
				      &reply->entry, &reply->created);
	if (rc == 0)
		add_use(c, reply->entry.name, reply->entry.version);
	return rc;
}

static int serve_charge(struct cst_volume_conn *c, struct cst_index *x, const struct cst_volume_message *m)
{
	const struct cst_cache_identity *id = &m->identity;
	if (!has_use(c, id->name, id->version))
		return -EAGAIN;
	int rc = cst_volume_work_charge(x, id->name, id->version, m->bytes);
	if (rc == 0)
		add_charge(c, id->name, id->version, m->bytes);
	return rc == -ENOENT ? -EAGAIN : rc;
}

static int serve_reserve(struct cst_volume_conn *c, struct cst_index *x, const struct cst_volume_message *m,
			 struct cst_volume_message *reply)
{
	int rc = cst_volume_work_reserve(x, &m->identity, m->flags & CST_VOLUME_PIN, &reply->entry, &reply->created);
	if (rc == 0 && reply->created)
		add_reservation(c, &reply->entry);
	else if (rc == 0)
		add_use(c, reply->entry.name, reply->entry.version);
	return rc;
}

static int serve_commit(struct cst_volume_conn *c, struct cst_index *x, const struct cst_volume_message *m,
			struct cst_volume_message *reply)
{
	if (!take_reservation(c, &m->entry, &reply->entry))
		return -EAGAIN;
	int rc = cst_index_slot_commit(x, &reply->entry, m->flags & 1);
	reply->created = true;
	if (rc == 0 && (m->flags & 1))
		add_use(c, reply->entry.name, reply->entry.version);
	return rc;
}

static void serve_list(struct cst_index *x, const struct cst_volume_message *m, struct cst_volume_message *reply,
		       struct cst_buf *text)
{
	struct cst_index_entry entries[CST_VOLUME_LIST];
	reply->number = m->number;
	unsigned n = cst_index_list(x, &reply->number, entries, cst_min(m->count, CST_VOLUME_LIST));
	for (unsigned i = 0; i < n; i++)
		cst_volume_message_add_entry(text, &entries[i]);
	reply->text = cst_buf_slice(text);
}

static void serve_rules(struct cst_index *x, const struct cst_volume_message *m, struct cst_volume_message *reply,
			struct cst_buf *text)
{
	const size_t piece = CST_VOLUME_MESSAGE_MAX / 2;
	cst_index_pin_rules(x, text);
	size_t at = cst_min((size_t)m->number, text->len);
	reply->number = text->len;
	reply->text = (struct cst_slice){text->data + at, cst_min(piece, text->len - at)};
}

/* With the index at hand. */
static int serve_index(struct cst_volume_conn *c, struct cst_index *x, const struct cst_volume_message *m,
		       struct cst_volume_message *reply, struct cst_buf *text)
{
	const struct cst_cache_identity *id = &m->identity;
	struct cst_volume_touch_item item;
	switch (m->type) {
	case CST_VMSG_OPEN:
		return serve_open(c, x, m, reply);
	case CST_VMSG_CLOSE:
		if (m->count)
			cst_index_touch(x, id->name, id->version, m->count);
		if (remove_use(c, id->name, id->version))
			cst_index_entry_close(x, id->name, id->version);
		return 0;
	case CST_VMSG_CHARGE:
		return serve_charge(c, x, m);
	case CST_VMSG_RESERVE:
		return serve_reserve(c, x, m, reply);
	case CST_VMSG_COMMIT:
		return serve_commit(c, x, m, reply);
	case CST_VMSG_TOUCH:
		for (uint32_t i = 0; i < m->count; i++) {
			cst_volume_message_touch(m, i, &item);
			cst_index_touch(x, item.name, item.version, item.count);
		}
		return 0;
	case CST_VMSG_FORGET:
	case CST_VMSG_DROP:
		return cst_index_drop(x, id->name, id->version);
	case CST_VMSG_PIN:
		return cst_index_pin(x, id->name, id->version, m->flags & 1);
	case CST_VMSG_RULE: {
		CST_AUTO_FREE char *prefix = cst_xstrndup(m->text.data, m->text.len);
		return cst_index_pin_rule(x, prefix, m->flags & 1);
	}
	case CST_VMSG_LIST:
		serve_list(x, m, reply, text);
		return 0;
	case CST_VMSG_RULES:
		serve_rules(x, m, reply, text);
		return 0;
	case CST_VMSG_STATS:
		cst_index_stats(x, &reply->stats);
		return 0;
	default:
		return -EINVAL;
	}
}

static void serve(struct cst_volume_conn *c, const struct cst_volume_message *m)
{
	struct cst_volume *v = c->volume;
	CST_AUTO_BUF text = CST_BUF_INIT;
	struct cst_volume_message reply = {.type = m->type, .reply = true, .id = m->id};
	if (m->type == CST_VMSG_COMPLETE) {
		bool open = has_use(c, m->identity.name, m->identity.version);
		reply.rc = open ? cst_volume_work_complete(v, m->identity.name, m->identity.version, m->flags & 1)
				: -EAGAIN;
	} else {
		struct cst_index *x = index_of(c);
		reply.rc = x ? serve_index(c, x, m, &reply, &text) : cst_volume_refusal(v);
		if (x)
			cst_volume_index_put(v);
	}
	if (cst_volume_is_disk_error(reply.rc)) {
		cst_volume_give_up(v, reply.rc, "serving another process");
		reply.rc = -EIO;
	}
	if (m->id)
		send_message(c, &reply);
}

static void job_run(void *arg)
{
	struct job *job = arg;
	struct cst_volume_conn *c = job->conn;
	struct cst_volume_message m;
	if (cst_volume_message_parse(job->packet, job->len, &m) == 0)
		serve(c, &m);
	free(job);
	pthread_mutex_lock(&c->lock);
	c->jobs--;
	watch_locked(c);
	pthread_mutex_unlock(&c->lock);
	if (cst_ref_put(&c->refs))
		conn_free(c);
}

static void submit(struct cst_volume_conn *c, struct cst_pool *pool, const uint8_t *packet, size_t len)
{
	struct job *job = cst_xmalloc(sizeof(*job) + len);
	job->conn = c;
	job->len = len;
	memcpy(job->packet, packet, len);
	cst_ref_get(&c->refs);
	pthread_mutex_lock(&c->lock);
	c->jobs++;
	watch_locked(c);
	pthread_mutex_unlock(&c->lock);
	cst_pool_submit(pool, job_run, job);
}

static void greet(struct cst_volume_conn *c, const struct cst_volume_message *m)
{
	struct cst_volume *v = c->volume;
	const struct cst_volume_message reply = {
		.type = CST_VMSG_HELLO, .reply = true, .id = m->id, .number = v->config.limits.quota};
	c->greeted = true;
	if (m->number != reply.number)
		cst_log_info("%s: another process has opened it with a quota of %llu bytes; %llu stay in force",
			     v->path, (unsigned long long)m->number, (unsigned long long)reply.number);
	send_message(c, &reply);
}

/* What may wait for the disk or for room goes to a pool; the rest is answered here, in order. False: not a request. */
static bool take_packet(struct cst_volume_conn *c, const uint8_t *packet, size_t len)
{
	struct cst_volume *v = c->volume;
	struct cst_volume_message m;
	if (cst_volume_message_parse(packet, len, &m) < 0 || m.reply || m.type == CST_VMSG_FAILED)
		return false;
	if (m.type == CST_VMSG_HELLO) {
		greet(c, &m);
		return true;
	}
	if (!c->greeted)
		return false;
	if (m.type == CST_VMSG_PING) {
		const struct cst_volume_message reply = {.type = CST_VMSG_PING, .reply = true, .id = m.id};
		send_message(c, &reply);
		return true;
	}
	bool blocks = m.type == CST_VMSG_RESERVE || m.type == CST_VMSG_DROP || m.type == CST_VMSG_PIN ||
		      m.type == CST_VMSG_RULE || (m.type == CST_VMSG_OPEN && (m.flags & CST_VOLUME_CREATE)) ||
		      (m.type == CST_VMSG_CHARGE && m.bytes > 0);
	if (m.type == CST_VMSG_COMPLETE)
		submit(c, v->sync_pool, packet, len);
	else if (blocks)
		submit(c, v->pool, packet, len);
	else if (m.type == CST_VMSG_OPEN)
		/* It may have to look at a map, after an unclean stop; but never waits behind those who wait for room. */
		submit(c, v->open_pool, packet, len);
	else
		serve(c, &m);
	return true;
}

static bool wants_packets(struct cst_volume_conn *c)
{
	pthread_mutex_lock(&c->lock);
	bool wants = c->watched & EPOLLIN;
	pthread_mutex_unlock(&c->lock);
	return wants;
}

/* False: the connection is over. */
static bool read_packets(struct cst_volume_conn *c)
{
	uint8_t packet[CST_VOLUME_MESSAGE_MAX + 1];
	for (int i = 0; i < BATCH && wants_packets(c); i++) {
		ssize_t len = recv(c->fd, packet, sizeof(packet), MSG_DONTWAIT);
		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0)
			return errno == EAGAIN;
		if (len == 0)
			return false;
		if (!take_packet(c, packet, (size_t)len)) {
			cst_log_warn("%s: a process sent what is no request; its connection is closed",
				     c->volume->path);
			return false;
		}
	}
	return true;
}

void cst_volume_server_event(struct cst_volume_conn *c, uint32_t events)
{
	CST_CHECK(c, CST_CONN_MAGIC);
	pthread_mutex_lock(&c->lock);
	bool open = c->fd >= 0;
	if (open && (events & EPOLLOUT)) {
		if (cst_volume_queue_flush(&c->out, c->fd) == 0)
			c->out_count = 0;
		watch_locked(c);
	}
	/* A hang-up counts as readable, so that what came before it is still served; but not while nothing is read: it would be told again and again. */
	bool gone = (events & (EPOLLHUP | EPOLLERR)) && !(c->watched & EPOLLIN);
	pthread_mutex_unlock(&c->lock);
	if (open && (gone || ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !read_packets(c))))
		conn_close(c);
}
