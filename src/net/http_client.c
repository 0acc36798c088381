#include "net/http_client.h"

#include "net/http_client_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define DEFAULT_CONNECTIONS 128
#define DEFAULT_RECEIVE_BUFFER (2 << 20) /* 8 MiB at 90 MiB/s over 20 ms need it */
#define DEFAULT_CONNECT_TIMEOUT (10 * CST_NS_PER_S)
#define DEFAULT_IDLE_TIMEOUT (50 * CST_NS_PER_S)
#define DEFAULT_SPARE_TIMEOUT (8 * CST_NS_PER_S)
#define DEFAULT_KEEP_IDLE 4

/* ---- endpoints ---- */

static bool same_origin(const struct cst_http_origin *a, const struct cst_http_origin *b)
{
	return a->port == b->port && a->tls == b->tls && strcmp(a->host, b->host) == 0 &&
	       strcmp(a->connect_to, b->connect_to) == 0;
}

/* "host" or "[v6]", with ":port" unless it is the scheme's own (or `always`). */
static void format_authority(const struct cst_http_origin *origin, bool always, char *out, size_t size)
{
	bool v6 = strchr(origin->host, ':');
	bool usual = origin->port == (origin->tls ? 443 : 80);
	int n = snprintf(out, size, v6 ? "[%s]" : "%s", origin->host);

	if ((always || !usual) && n > 0 && (size_t)n < size)
		snprintf(out + n, size - n, ":%u", origin->port);
}

static struct cst_http_endpoint *endpoint_new(struct cst_http_client *client, const struct cst_http_origin *origin)
{
	struct cst_http_endpoint *ep = cst_xcalloc(1, sizeof(*ep) + client->side_count * sizeof(ep->idle[0]));
	char authority[300];
	int rc = 0;

	ep->client = client;
	ep->origin = *origin;
	pthread_mutex_init(&ep->lock, NULL);
	TAILQ_INIT(&ep->waiters);
	for (unsigned i = 0; i < client->side_count; i++)
		TAILQ_INIT(&ep->idle[i]);
	if (client->proxies && !origin->connect_to[0])
		rc = cst_proxy_select(client->proxies, origin->tls, origin->host, origin->port, &ep->proxy,
				      &ep->proxy_err);
	ep->proxy_rc = rc < 0 ? rc : 0;
	ep->proxied = rc > 0;
	format_authority(origin, false, authority, sizeof(authority));
	ep->host_line = cst_xasprintf("Host: %s\r\n", authority);
	if (ep->proxied && !origin->tls) {
		ep->prefix = cst_xasprintf("http://%s", authority);
		ep->common_lines = cst_xasprintf("User-Agent: %s\r\n%s%s%s", client->user_agent,
						 ep->proxy.authorization[0] ? "Proxy-Authorization: " : "",
						 ep->proxy.authorization, ep->proxy.authorization[0] ? "\r\n" : "");
	} else {
		ep->prefix = cst_xstrdup("");
		ep->common_lines = cst_xasprintf("User-Agent: %s\r\n", client->user_agent);
	}
	return ep;
}

static void endpoint_free(struct cst_http_endpoint *ep)
{
	CST_ASSERT(ep->open == 0 && TAILQ_EMPTY(&ep->waiters));
	LIST_REMOVE(ep, link);
	explicit_bzero(&ep->proxy, sizeof(ep->proxy));
	explicit_bzero(ep->common_lines, strlen(ep->common_lines));
	free(ep->host_line);
	free(ep->common_lines);
	free(ep->prefix);
	pthread_mutex_destroy(&ep->lock);
	free(ep);
}

static struct cst_http_endpoint *endpoint_get(struct cst_http_side *side, const struct cst_http_origin *origin)
{
	struct cst_http_client *client = side->client;
	struct cst_http_endpoint *ep;

	if (side->last && same_origin(&side->last->origin, origin))
		return side->last;
	pthread_mutex_lock(&client->lock);
	LIST_FOREACH (ep, &client->endpoints, link)
		if (same_origin(&ep->origin, origin))
			break;
	if (!ep) {
		ep = endpoint_new(client, origin);
		LIST_INSERT_HEAD(&client->endpoints, ep, link);
	}
	pthread_mutex_unlock(&client->lock);
	side->last = ep;
	return ep;
}

/* ---- calls ---- */

void cst_http_client_live(struct cst_http_client *client, int change)
{
	if (__atomic_add_fetch(&client->live, (uint64_t)(int64_t)change, __ATOMIC_ACQ_REL) == 0 &&
	    __atomic_load_n(&client->closing, __ATOMIC_ACQUIRE)) {
		pthread_mutex_lock(&client->lock);
		pthread_cond_broadcast(&client->changed);
		pthread_mutex_unlock(&client->lock);
	}
}

static void call_unref(struct cst_http_call *call)
{
	CST_CHECK(call, CST_HTTP_CALL_MAGIC);
	if (cst_ref_put(&call->ref)) {
		call->magic = 0;
		free(call);
	}
}

void cst_http_call_why(struct cst_http_call *call, int rc, const char *fmt, ...)
{
	const struct cst_http_origin *origin = call->request.origin;
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* No target here: it may carry a signature. */
	cst_error_set(&call->err, -rc, "%s request to %s://%s:%u failed", call->request.method,
		      origin->tls ? "https" : "http", origin->host, origin->port);
	cst_error_why(&call->err, "%s", text);
}

void cst_http_call_done(struct cst_http_call *call, int rc)
{
	struct cst_http_client *client = call->client;

	CST_ASSERT(call->state != CST_CALL_DONE);
	call->state = CST_CALL_DONE;
	cst_timer_cancel(call->side->loop, &call->timer);
	TAILQ_REMOVE(&call->side->calls, call, link);
	__atomic_store_n(&call->done, true, __ATOMIC_RELEASE);
	call->request.on_done(call->request.arg, rc, call->received, &call->err);
	call_unref(call);
	cst_http_client_live(client, -1);
}

/* ---- who gets a connection ---- */

static void on_grant(struct cst_task *task);

/* Posts a connection, or a slot to open one in, to a call that has left the queue; the queue's reference goes along. */
static void grant(struct cst_http_call *call, struct cst_http_conn *conn)
{
	call->granted = conn;
	call->grant_task.fn = on_grant;
	cst_loop_post(call->side->loop, &call->grant_task);
}

static struct cst_http_call *pop_waiter_locked(struct cst_http_endpoint *ep)
{
	struct cst_http_call *call = TAILQ_FIRST(&ep->waiters);

	if (call) {
		TAILQ_REMOVE(&ep->waiters, call, queue_link);
		ep->waiting--;
		call->queued = false;
	}
	return call;
}

void cst_http_slot_free(struct cst_http_endpoint *ep)
{
	struct cst_http_call *next;

	pthread_mutex_lock(&ep->lock);
	next = pop_waiter_locked(ep);
	if (!next)
		ep->open--;
	pthread_mutex_unlock(&ep->lock);
	if (next)
		grant(next, NULL);
}

/* The connection's loop is left for the one of `call`. */
static void park_for(struct cst_http_conn *conn, struct cst_http_call *call)
{
	conn->state = CST_CONN_PARKED;
	if (conn->side != call->side) {
		cst_http_conn_detach(conn);
		conn->side = call->side;
	}
	grant(call, conn);
}

void cst_http_conn_give_back(struct cst_http_conn *conn)
{
	struct cst_http_endpoint *ep = conn->endpoint;
	struct cst_http_call *next = NULL;

	if (!conn->dead && !__atomic_load_n(&conn->client->closing, __ATOMIC_ACQUIRE) &&
	    cst_http_conn_rest(conn) == 0) {
		pthread_mutex_lock(&ep->lock);
		next = pop_waiter_locked(ep);
		if (!next) {
			conn->state = CST_CONN_IDLE;
			TAILQ_INSERT_HEAD(&ep->idle[conn->side->index], conn, link);
			ep->idle_count++;
		}
		pthread_mutex_unlock(&ep->lock);
		if (next)
			park_for(conn, next);
		return;
	}
	cst_http_conn_close(conn);
	cst_http_slot_free(ep);
}

static void take_idle_locked(struct cst_http_conn *conn)
{
	TAILQ_REMOVE(&conn->endpoint->idle[conn->side->index], conn, link);
	conn->endpoint->idle_count--;
}

bool cst_http_conn_is_spare(struct cst_http_conn *conn)
{
	pthread_mutex_lock(&conn->endpoint->lock);
	bool spare = conn->endpoint->idle_count > conn->client->keep_idle;
	pthread_mutex_unlock(&conn->endpoint->lock);
	return spare;
}

bool cst_http_conn_leave_pool(struct cst_http_conn *conn)
{
	bool ours;

	pthread_mutex_lock(&conn->endpoint->lock);
	ours = !conn->stolen_for;
	if (ours)
		take_idle_locked(conn);
	pthread_mutex_unlock(&conn->endpoint->lock);
	return ours;
}

static void on_steal(struct cst_task *task)
{
	struct cst_http_conn *conn = cst_container_of(task, struct cst_http_conn, steal_task);
	struct cst_http_call *call;

	pthread_mutex_lock(&conn->endpoint->lock);
	call = cst_steal(conn->stolen_for);
	pthread_mutex_unlock(&conn->endpoint->lock);
	park_for(conn, call);
}

static void on_grant(struct cst_task *task)
{
	struct cst_http_call *call = cst_container_of(task, struct cst_http_call, grant_task);
	struct cst_http_conn *conn = cst_steal(call->granted);

	if (call->state == CST_CALL_DONE) { /* cancelled or late while this was on its way */
		if (conn)
			cst_http_conn_give_back(conn);
		else
			cst_http_slot_free(call->endpoint);
	} else if (conn) {
		cst_http_conn_run(conn, call);
	} else {
		cst_http_conn_open(call->endpoint, call);
	}
	call_unref(call);
}

static void on_call_timer(struct cst_timer *timer);

/* A connection of another loop that has nothing to do; the call waits for its arrival as if it had queued. */
static struct cst_http_conn *steal_locked(struct cst_http_endpoint *ep, struct cst_http_call *call)
{
	for (unsigned i = 0; i < ep->client->side_count; i++) {
		struct cst_http_conn *conn = TAILQ_FIRST(&ep->idle[i]);

		if (!conn)
			continue;
		take_idle_locked(conn);
		conn->stolen_for = call;
		conn->steal_task.fn = on_steal;
		return conn;
	}
	return NULL;
}

static void acquire(struct cst_http_call *call)
{
	struct cst_http_endpoint *ep = call->endpoint;
	struct cst_http_conn *conn, *stolen = NULL;
	struct cst_loop *stolen_loop = NULL;
	bool open = false;

	pthread_mutex_lock(&ep->lock);
	conn = TAILQ_FIRST(&ep->idle[call->side->index]);
	if (conn) {
		take_idle_locked(conn);
	} else if (ep->open < ep->client->max_connections) {
		ep->open++;
		open = true;
	} else {
		call->state = CST_CALL_WAITING;
		cst_ref_get(&call->ref);
		stolen = steal_locked(ep, call);
		if (!stolen) {
			TAILQ_INSERT_TAIL(&ep->waiters, call, queue_link);
			ep->waiting++;
			call->queued = true;
		} else {
			stolen_loop = stolen->side->loop;
		}
	}
	pthread_mutex_unlock(&ep->lock);
	if (conn) {
		cst_http_conn_run(conn, call);
	} else if (open) {
		cst_http_conn_open(ep, call);
	} else {
		if (stolen)
			cst_loop_post(stolen_loop, &stolen->steal_task);
		if (call->request.deadline) {
			call->timer.fn = on_call_timer;
			cst_timer_arm(call->side->loop, &call->timer, call->request.deadline);
		}
	}
}

/* Ends a call that has no connection yet. What is on its way to it finds it done and goes on to the next. */
static void end_waiting(struct cst_http_call *call, int rc)
{
	struct cst_http_endpoint *ep = call->endpoint;
	bool was_queued = false;

	if (ep) {
		pthread_mutex_lock(&ep->lock);
		was_queued = call->queued;
		if (was_queued) {
			TAILQ_REMOVE(&ep->waiters, call, queue_link);
			ep->waiting--;
			call->queued = false;
		}
		pthread_mutex_unlock(&ep->lock);
	}
	cst_http_call_done(call, rc);
	if (was_queued)
		call_unref(call);
}

static void on_call_timer(struct cst_timer *timer)
{
	struct cst_http_call *call = cst_container_of(timer, struct cst_http_call, timer);

	cst_http_call_why(call, -ETIMEDOUT, "the deadline passed while waiting for one of %u connections",
			  call->client->max_connections);
	end_waiting(call, -ETIMEDOUT);
}

static int check_request(struct cst_http_call *call)
{
	const char *target = call->request.target;

	if (__atomic_load_n(&call->client->closing, __ATOMIC_ACQUIRE)) {
		cst_http_call_why(call, -ECANCELED, "the client is being closed");
		return -ECANCELED;
	}
	if (call->request.deadline && cst_now() >= call->request.deadline) {
		cst_http_call_why(call, -ETIMEDOUT, "the deadline passed before the call began");
		return -ETIMEDOUT;
	}
	/* A blank or line end in the target would begin a request of somebody else's making. */
	if (*target != '/' && strcmp(target, "*") != 0) {
		cst_http_call_why(call, -EINVAL, "the request target does not begin with '/'");
		return -EINVAL;
	}
	for (; *target; target++) {
		if ((uint8_t)*target <= ' ' || *target == 0x7f) {
			cst_http_call_why(call, -EINVAL, "the request target is not percent-encoded");
			return -EINVAL;
		}
	}
	return 0;
}

static void on_start(struct cst_task *task)
{
	struct cst_http_call *call = cst_container_of(task, struct cst_http_call, start_task);
	int rc;

	TAILQ_INSERT_TAIL(&call->side->calls, call, link);
	cst_http_count(&call->side->counters.calls, 1);
	rc = check_request(call);
	if (rc == 0) {
		call->endpoint = endpoint_get(call->side, call->request.origin);
		rc = call->endpoint->proxy_rc;
		if (rc)
			call->err = call->endpoint->proxy_err;
	}
	if (rc)
		cst_http_call_done(call, rc);
	else
		acquire(call);
}

static struct cst_http_side *choose_side(struct cst_http_client *client)
{
	unsigned turn;

	for (unsigned i = 0; i < client->side_count; i++)
		if (cst_loop_is_current(client->sides[i].loop))
			return &client->sides[i];
	turn = __atomic_fetch_add(&client->turn, 1, __ATOMIC_RELAXED);
	return &client->sides[turn % client->side_count];
}

struct cst_http_call *cst_http_start(struct cst_http_client *client, const struct cst_http_request *request)
{
	struct cst_http_call *call = CST_NEW(struct cst_http_call);

	CST_CHECK(client, CST_HTTP_CLIENT_MAGIC);
	call->magic = CST_HTTP_CALL_MAGIC;
	cst_ref_init(&call->ref);
	cst_ref_get(&call->ref); /* the caller's, and ours until on_done has returned */
	call->client = client;
	call->request = *request;
	call->side = choose_side(client);
	call->start_task.fn = on_start;
	cst_http_client_live(client, 1);
	cst_loop_post(call->side->loop, &call->start_task);
	return call;
}

static void cancel_now(struct cst_http_call *call)
{
	if (call->state == CST_CALL_DONE)
		return;
	cst_http_call_why(call, -ECANCELED, "cancelled");
	if (call->conn)
		cst_http_conn_fail(call->conn, -ECANCELED);
	else
		end_waiting(call, -ECANCELED);
}

static void on_cancel(struct cst_task *task)
{
	struct cst_http_call *call = cst_container_of(task, struct cst_http_call, cancel_task);

	cancel_now(call);
	call_unref(call);
}

void cst_http_cancel(struct cst_http_call *call)
{
	CST_CHECK(call, CST_HTTP_CALL_MAGIC);
	if (__atomic_load_n(&call->done, __ATOMIC_ACQUIRE) ||
	    __atomic_exchange_n(&call->cancelled, true, __ATOMIC_ACQ_REL))
		return;
	cst_ref_get(&call->ref);
	call->cancel_task.fn = on_cancel;
	cst_loop_post(call->side->loop, &call->cancel_task);
}

void cst_http_release(struct cst_http_call *call)
{
	if (call)
		call_unref(call);
}

/* ---- the client ---- */

/* What SO_RCVBUF is bounded to for those who may not force it. */
static int receive_buffer_max(void)
{
	FILE *f = fopen("/proc/sys/net/core/rmem_max", "re");
	int max = 0;

	if (f && fscanf(f, "%d", &max) != 1)
		max = 0;
	if (f)
		fclose(f);
	return max;
}

static bool make_sides(struct cst_http_client *client, struct cst_loop_group *loops, struct cst_error *err)
{
	if (!loops)
		loops = client->own_loops = cst_loop_group_new("http", 1, err);
	if (!loops)
		return false;
	client->side_count = cst_loop_group_count(loops);
	client->sides = cst_xcalloc(client->side_count, sizeof(*client->sides));
	for (unsigned i = 0; i < client->side_count; i++) {
		client->sides[i].client = client;
		client->sides[i].loop = cst_loop_group_at(loops, i);
		client->sides[i].index = i;
		TAILQ_INIT(&client->sides[i].calls);
	}
	return true;
}

static void client_destroy(struct cst_http_client *client)
{
	while (!LIST_EMPTY(&client->endpoints))
		endpoint_free(LIST_FIRST(&client->endpoints));
	cst_resolver_free(client->resolver); /* its threads post to the loops */
	cst_loop_group_free(client->own_loops);
	cst_proxy_config_free(client->proxies);
	cst_tls_free(client->tls);
	pthread_mutex_destroy(&client->lock);
	pthread_cond_destroy(&client->changed);
	free(client->sides);
	free(client->user_agent);
	client->magic = 0;
	free(client);
}

struct cst_http_client *cst_http_client_new(const struct cst_http_client_config *config, struct cst_error *err)
{
	struct cst_http_client *client = CST_NEW(struct cst_http_client);

	client->magic = CST_HTTP_CLIENT_MAGIC;
	pthread_mutex_init(&client->lock, NULL);
	pthread_cond_init(&client->changed, NULL);
	LIST_INIT(&client->endpoints);
	client->max_connections = config->max_connections ? config->max_connections : DEFAULT_CONNECTIONS;
	client->receive_buffer = config->receive_buffer ? config->receive_buffer : DEFAULT_RECEIVE_BUFFER;
	client->receive_buffer_max = receive_buffer_max();
	client->connect_timeout = config->connect_timeout ? config->connect_timeout : DEFAULT_CONNECT_TIMEOUT;
	client->idle_timeout = config->idle_timeout ? config->idle_timeout : DEFAULT_IDLE_TIMEOUT;
	client->spare_timeout = config->spare_timeout ? config->spare_timeout : DEFAULT_SPARE_TIMEOUT;
	client->spare_timeout = cst_min(client->spare_timeout, client->idle_timeout);
	client->keep_idle = config->keep_idle ? config->keep_idle : DEFAULT_KEEP_IDLE;
	client->user_agent = cst_xstrdup(config->user_agent ? config->user_agent : "cistern/" CST_VERSION);
	client->tls = cst_tls_client_new(config->ca_file, err);
	if (!client->tls || !make_sides(client, config->loops, err)) {
		client_destroy(client);
		return NULL;
	}
	client->resolver = cst_resolver_new(NULL, NULL);
	if (config->use_proxy_env)
		client->proxies = cst_proxy_config_from_environment();
	return client;
}

static void on_shutdown(struct cst_task *task)
{
	struct cst_http_side *side = cst_container_of(task, struct cst_http_side, shutdown_task);
	struct cst_http_client *client = side->client;
	struct cst_http_call *call;
	struct cst_http_endpoint *ep;

	while ((call = TAILQ_FIRST(&side->calls)))
		cancel_now(call);
	/* Endpoints are only ever added at the head; the list is walked without the lock from what is its head now. */
	pthread_mutex_lock(&client->lock);
	ep = LIST_FIRST(&client->endpoints);
	pthread_mutex_unlock(&client->lock);
	for (; ep; ep = LIST_NEXT(ep, link)) {
		for (;;) {
			struct cst_http_conn *conn;

			pthread_mutex_lock(&ep->lock);
			conn = TAILQ_FIRST(&ep->idle[side->index]);
			if (conn)
				take_idle_locked(conn);
			pthread_mutex_unlock(&ep->lock);
			if (!conn)
				break;
			cst_http_conn_close(conn);
			cst_http_slot_free(ep);
		}
	}
}

static void on_barrier(struct cst_task *task)
{
	struct cst_http_client *client = cst_container_of(task, struct cst_http_side, barrier_task)->client;

	pthread_mutex_lock(&client->lock);
	client->barriers++;
	pthread_cond_broadcast(&client->changed);
	pthread_mutex_unlock(&client->lock);
}

void cst_http_client_free(struct cst_http_client *client)
{
	if (!client)
		return;
	CST_CHECK(client, CST_HTTP_CLIENT_MAGIC);
	__atomic_store_n(&client->closing, true, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < client->side_count; i++) {
		CST_ASSERT(!cst_loop_is_current(client->sides[i].loop));
		client->sides[i].shutdown_task.fn = on_shutdown;
		cst_loop_post(client->sides[i].loop, &client->sides[i].shutdown_task);
	}
	pthread_mutex_lock(&client->lock);
	while (__atomic_load_n(&client->live, __ATOMIC_ACQUIRE) > 0)
		pthread_cond_wait(&client->changed, &client->lock);
	pthread_mutex_unlock(&client->lock);
	/* The loops may still be on their way out of the last callback. */
	for (unsigned i = 0; i < client->side_count; i++) {
		client->sides[i].barrier_task.fn = on_barrier;
		cst_loop_post(client->sides[i].loop, &client->sides[i].barrier_task);
	}
	pthread_mutex_lock(&client->lock);
	while (client->barriers < client->side_count)
		pthread_cond_wait(&client->changed, &client->lock);
	pthread_mutex_unlock(&client->lock);
	client_destroy(client);
}

void cst_http_client_stats(const struct cst_http_client *client, struct cst_http_client_stats *stats)
{
	struct cst_http_client *c = (struct cst_http_client *)(uintptr_t)client; /* for the locks */
	struct cst_http_endpoint *ep;
	uint64_t rate, rates = 0;
	unsigned measured = 0;

	memset(stats, 0, sizeof(*stats));
	for (unsigned i = 0; i < c->side_count; i++) {
		const struct cst_http_side *s = &c->sides[i];

		stats->connects += __atomic_load_n(&s->counters.connects, __ATOMIC_RELAXED);
		stats->tls_handshakes += __atomic_load_n(&s->counters.tls_handshakes, __ATOMIC_RELAXED);
		stats->calls += __atomic_load_n(&s->counters.calls, __ATOMIC_RELAXED);
		stats->reused += __atomic_load_n(&s->counters.reused, __ATOMIC_RELAXED);
		stats->bytes_in += __atomic_load_n(&s->counters.bytes_in, __ATOMIC_RELAXED);
		stats->bytes_out += __atomic_load_n(&s->counters.bytes_out, __ATOMIC_RELAXED);
		stats->spare_closed += __atomic_load_n(&s->counters.spare_closed, __ATOMIC_RELAXED);
		stats->crawlers_closed += __atomic_load_n(&s->counters.crawlers_closed, __ATOMIC_RELAXED);
		rate = __atomic_load_n(&s->counters.rate, __ATOMIC_RELAXED);
		rates += rate;
		measured += rate > 0;
	}
	stats->rate = measured ? rates / measured : 0;
	pthread_mutex_lock(&c->lock);
	ep = LIST_FIRST(&c->endpoints);
	pthread_mutex_unlock(&c->lock);
	for (; ep; ep = LIST_NEXT(ep, link)) {
		pthread_mutex_lock(&ep->lock);
		stats->open += ep->open;
		stats->idle += ep->idle_count;
		stats->waiting += ep->waiting;
		pthread_mutex_unlock(&ep->lock);
	}
}
