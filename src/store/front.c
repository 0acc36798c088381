/* The front of the store: its life cycle, statistics, and what makes it far away or sick.
 *
 * Each request has a struct request on the stack of handle(); it hangs on the exchange as the argument of the hooks,
 * through which latency and faults reach the answer whatever backend function sends it. */
#include "base/clock.h"
#include "base/metrics.h"
#include "store/fault.h"
#include "store/handler.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define DESCRIPTORS 65536   /* as many as are tried to be had */
#define ATTEMPT_SLOTS 65536 /* requests told apart by a hash; those that share a slot share the count */

struct counters { /* all atomic */
	uint64_t requests[CST_STORE_OP_COUNT];
	uint64_t faults[CST_STORE_OP_COUNT][CST_STORE_FAULT_COUNT];
	uint64_t bytes_in, bytes_out;
	uint64_t in_flight, max_in_flight;
};

struct cst_store_front {
	struct counters counters;
	struct cst_store_fault *faults;
	size_t fault_count;
	uint32_t *attempts; /* ATTEMPT_SLOTS, atomic; NULL without faults */
	uint32_t serial;    /* atomic: request ids */
	uint32_t nonce;
	struct cst_http_exchange_hooks hooks;
	struct cst_tls *tls;
};

struct request {
	struct cst_store *store;
	enum cst_store_operation op;
	bool begun, ended;
	enum cst_store_fault_kind fault; /* still to strike */
	uint64_t detail;
	char id[25];
};

static struct request *request_of(const struct cst_http_exchange *x)
{
	struct request *request = cst_http_exchange_hook_arg(x);
	CST_ASSERT(request);
	return request;
}

const char *cst_store_request_id(const struct cst_http_exchange *x)
{
	return request_of(x)->id;
}

/* ---- counting ---- */

static void add(uint64_t *counter, uint64_t n)
{
	__atomic_add_fetch(counter, n, __ATOMIC_RELAXED);
}

static uint64_t get(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void count_begin(struct request *request, enum cst_store_operation op)
{
	struct counters *c = &request->store->front->counters;
	request->begun = true;
	request->op = op;
	add(&c->requests[op], 1);
	uint64_t now = __atomic_add_fetch(&c->in_flight, 1, __ATOMIC_RELAXED);
	uint64_t max = get(&c->max_in_flight);
	while (now > max &&
	       !__atomic_compare_exchange_n(&c->max_in_flight, &max, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

static void count_end(struct request *request)
{
	if (!request->begun || request->ended)
		return;
	request->ended = true;
	__atomic_sub_fetch(&request->store->front->counters.in_flight, 1, __ATOMIC_RELAXED);
}

static void count_fault(struct request *request, enum cst_store_fault_kind kind)
{
	add(&request->store->front->counters.faults[request->op][kind], 1);
}

/* ---- latency and faults ---- */

static void draw_fault(struct request *request, const struct cst_http_head *head)
{
	struct cst_store_front *front = request->store->front;
	if (front->fault_count == 0)
		return;
	uint64_t identity = cst_store_fault_identity(head);
	uint32_t *slot = &front->attempts[(identity ^ (uint64_t)request->op * 0x9e3779b97f4a7c15u) % ATTEMPT_SLOTS];
	uint32_t attempt = __atomic_fetch_add(slot, 1, __ATOMIC_RELAXED);
	request->fault = cst_store_fault_decide(front->faults, front->fault_count, request->store->config.fault_seed,
						request->op, identity, attempt, &request->detail);
}

static void answer_503(struct cst_http_exchange *x, enum cst_store_dialect dialect)
{
	const char *id = cst_store_request_id(x);
	CST_AUTO_BUF body = CST_BUF_INIT;
	cst_buf_printf(&body,
		       "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>%s</Message>"
		       "<RequestId>%s</RequestId><HostId>cistern</HostId></Error>",
		       dialect == CST_STORE_S3 ? "SlowDown" : "ServiceUnavailable",
		       dialect == CST_STORE_S3 ? "Please reduce your request rate." : "Please try again later.", id);
	cst_http_response_header(x, "Content-Type", "application/xml");
	cst_http_response_header(x, dialect == CST_STORE_S3 ? "x-amz-request-id" : "x-oss-request-id", id);
	cst_http_response_send(x, 503, body.data, body.len);
}

bool cst_store_begin(struct cst_store *store, struct cst_http_exchange *x, enum cst_store_operation op,
		     enum cst_store_dialect dialect)
{
	CST_CHECK(store, CST_STORE_MAGIC);
	struct request *request = request_of(x);
	CST_ASSERT(!request->begun);
	count_begin(request, op);
	draw_fault(request, cst_http_request_head(x));
	if (request->fault == CST_STORE_FAULT_503) {
		request->fault = CST_STORE_FAULT_NONE;
		count_fault(request, CST_STORE_FAULT_503);
		answer_503(x, dialect);
		return false;
	}
	/* One in two resets comes before anything is done, the others when it is done and the answer gets lost. */
	if (request->fault == CST_STORE_FAULT_RESET && (request->detail >> 63)) {
		request->fault = CST_STORE_FAULT_NONE;
		count_fault(request, CST_STORE_FAULT_RESET);
		count_end(request);
		cst_http_exchange_sleep(x, store->config.latency);
		cst_http_fault_reset(x);
		return false;
	}
	return true;
}

/* Where to cut a body, and with what; without a body there is no answer at all. */
static int strike_connection(struct request *request, struct cst_http_exchange *x, int64_t body, bool reset)
{
	if (body > 0) {
		cst_http_fault_cut_after(x, request->detail % (uint64_t)body, reset);
		return 0;
	}
	count_end(request);
	if (reset)
		cst_http_fault_reset(x);
	return reset ? -ECONNRESET : -EPIPE;
}

static bool strike_etag(struct request *request, struct cst_http_exchange *x, int status)
{
	struct cst_slice etag = cst_http_response_header_get(x, "ETag");
	char other[40];
	if (status / 100 != 2 || !etag.data)
		return false;
	snprintf(other, sizeof(other), "\"%016" PRIX64 "%016" PRIX64 "\"", request->detail, ~request->detail);
	return cst_http_response_header_replace(x, "ETag", other);
}

static int before_head(struct cst_http_exchange *x, int status, int64_t length, void *arg)
{
	struct request *request = arg;
	const struct cst_store *store = request->store;
	if (!request->begun)
		count_begin(request, CST_STORE_OP_OTHER);
	if (store->config.latency > 0) {
		int rc = cst_http_exchange_sleep(x, store->config.latency);
		if (rc < 0)
			return rc;
	}
	bool no_body = cst_slice_is(cst_http_request_head(x)->method, "HEAD") || status == 204 || status == 304;
	int64_t body = no_body ? 0 : length < 0 ? 4096 : length;
	bool struck = true;
	int rc = 0;
	switch (request->fault) {
	case CST_STORE_FAULT_RESET:
	case CST_STORE_FAULT_SHORT:
		rc = strike_connection(request, x, body, request->fault == CST_STORE_FAULT_RESET);
		break;
	case CST_STORE_FAULT_LOST:
		count_end(request);
		rc = -EPIPE;
		break;
	case CST_STORE_FAULT_SLOW:
		struck = body > 0;
		cst_http_fault_rate(x, CST_STORE_FAULT_SLOW_RATE);
		break;
	case CST_STORE_FAULT_ETAG:
		struck = strike_etag(request, x, status);
		break;
	default:
		struck = false;
	}
	if (struck)
		count_fault(request, request->fault);
	request->fault = CST_STORE_FAULT_NONE;
	return rc;
}

static void finishing(struct cst_http_exchange *x, void *arg)
{
	(void)x;
	count_end(arg);
}

/* ---- /-/ ---- */

static bool is_loopback(const struct sockaddr_storage *peer)
{
	if (peer->ss_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)peer)->sin_addr.s_addr) >> 24 == 127;
	if (peer->ss_family != AF_INET6)
		return true; /* a Unix socket */
	const struct in6_addr *a = &((const struct sockaddr_in6 *)peer)->sin6_addr;
	return IN6_IS_ADDR_LOOPBACK(a) || (IN6_IS_ADDR_V4MAPPED(a) && a->s6_addr[12] == 127);
}

static void write_stats(const struct counters *c, struct cst_buf *out)
{
	const char *comma = "";
	cst_buf_add_str(out, "{\"requests\": {");
	for (int op = 0; op < CST_STORE_OP_COUNT; op++) {
		uint64_t n = get(&c->requests[op]);
		if (n == 0)
			continue;
		cst_buf_printf(out, "%s\"%s\": %" PRIu64, comma, cst_store_operation_name((enum cst_store_operation)op),
			       n);
		comma = ", ";
	}
	cst_buf_printf(out,
		       "}, \"bytes_out\": %" PRIu64 ", \"bytes_in\": %" PRIu64 ", \"in_flight\": %" PRIu64
		       ", \"max_in_flight\": %" PRIu64 ", \"faults\": {",
		       get(&c->bytes_out), get(&c->bytes_in), get(&c->in_flight), get(&c->max_in_flight));
	comma = "";
	for (int op = 0; op < CST_STORE_OP_COUNT; op++) {
		const char *inner = "";
		for (int kind = 0; kind < CST_STORE_FAULT_COUNT; kind++) {
			uint64_t n = get(&c->faults[op][kind]);
			if (n == 0)
				continue;
			if (!*inner)
				cst_buf_printf(out, "%s\"%s\": {", comma,
					       cst_store_operation_name((enum cst_store_operation)op));
			cst_buf_printf(out, "%s\"%s\": %" PRIu64, inner,
				       cst_store_fault_name((enum cst_store_fault_kind)kind), n);
			inner = comma = ", ";
		}
		if (*inner)
			cst_buf_add_str(out, "}");
	}
	cst_buf_add_str(out, "}}\n");
}

static void write_metrics(const struct counters *c, struct cst_buf *out)
{
	cst_buf_add_str(out, "# HELP cistern_store_requests_total Requests by operation.\n"
			     "# TYPE cistern_store_requests_total counter\n");
	for (int op = 0; op < CST_STORE_OP_COUNT; op++) {
		uint64_t n = get(&c->requests[op]);
		if (n)
			cst_buf_printf(out, "cistern_store_requests_total{operation=\"%s\"} %" PRIu64 "\n",
				       cst_store_operation_name((enum cst_store_operation)op), n);
	}
	const struct {
		const char *name, *type, *help;
		const uint64_t *value;
	} rows[] = {
		{"cistern_store_out_bytes_total", "counter", "Response body bytes.", &c->bytes_out},
		{"cistern_store_in_bytes_total", "counter", "Request body bytes.", &c->bytes_in},
		{"cistern_store_in_flight", "gauge", "Requests being served.", &c->in_flight},
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(rows); i++)
		cst_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %" PRIu64 "\n", rows[i].name, rows[i].help,
			       rows[i].name, rows[i].type, rows[i].name, get(rows[i].value));
	cst_metrics_write(out);
}

static void reset_stats(struct counters *c)
{
	uint64_t *all = (uint64_t *)c;
	for (size_t i = 0; i < sizeof(*c) / sizeof(*all); i++) {
		if (&all[i] != &c->in_flight)
			__atomic_store_n(&all[i], 0, __ATOMIC_RELAXED);
	}
	__atomic_store_n(&c->max_in_flight, get(&c->in_flight), __ATOMIC_RELAXED);
}

/* /-/... is ours unless the host names a bucket, in which it is a key like any other. */
static bool is_own_path(const struct cst_store *store, const struct cst_http_head *head)
{
	if (!cst_slice_starts(head->target, CST_SLICE("/-/")))
		return false;
	struct cst_slice host = cst_http_header_get(head, "host");
	struct cst_slice rest = host;
	struct cst_slice label = cst_slice_cut(&rest, '.');
	if (!rest.data || label.len < 3 || label.len > 63 || memchr(label.data, '/', label.len))
		return true;
	for (size_t i = 0; i < store->config.domain_count; i++) {
		struct cst_slice name = host;
		if (cst_slice_ieq(cst_slice_cut(&name, ':'), cst_slice_of(store->config.domains[i])))
			return true;
	}
	struct stat st;
	CST_AUTO_FREE char *path = cst_xasprintf("%s/%.*s", store->config.dir, (int)label.len, label.data);
	return stat(path, &st) != 0 || !S_ISDIR(st.st_mode);
}

static void serve_own_path(struct cst_store *store, struct cst_http_exchange *x)
{
	struct counters *c = &store->front->counters;
	const struct cst_http_head *head = cst_http_request_head(x);
	struct cst_slice query = head->target;
	struct cst_slice path = cst_slice_cut(&query, '?');
	bool reads = cst_slice_is(head->method, "GET") || cst_slice_is(head->method, "HEAD");
	CST_AUTO_BUF out = CST_BUF_INIT;
	int status = 200;
	const char *type = "application/json";
	if (!store->config.anonymous && !is_loopback(cst_http_request_peer(x)) && !cst_store_admits(store, x)) {
		status = 403;
		cst_buf_add_str(&out,
				"{\"error\": \"sign the request, or ask from the machine that the store runs on\"}\n");
	} else if (reads && cst_slice_is(path, "/-/stats")) {
		write_stats(c, &out);
	} else if (reads && cst_slice_is(path, "/-/metrics")) {
		type = "text/plain; version=0.0.4";
		write_metrics(c, &out);
	} else if (cst_slice_is(head->method, "POST") && cst_slice_is(path, "/-/stats/reset")) {
		reset_stats(c);
		cst_buf_add_str(&out, "{}\n");
	} else {
		status = 404;
		cst_buf_add_str(&out, "{\"error\": \"GET /-/stats, GET /-/metrics or POST /-/stats/reset\"}\n");
	}
	cst_http_response_header(x, "Content-Type", type);
	cst_http_response_send(x, status, out.data, out.len);
}

static void handle(struct cst_http_exchange *x, void *arg)
{
	struct cst_store *store = arg;
	struct cst_store_front *front = store->front;
	struct request request = {.store = store};
	uint32_t serial = __atomic_fetch_add(&front->serial, 1, __ATOMIC_RELAXED);
	snprintf(request.id, sizeof(request.id), "%08X%08X%08X", (uint32_t)(cst_wall() / CST_NS_PER_S), front->nonce,
		 serial);
	if (is_own_path(store, cst_http_request_head(x))) {
		static const struct cst_http_exchange_hooks no_hooks;
		cst_http_exchange_set_hooks(x, &no_hooks, &request);
		serve_own_path(store, x);
		return;
	}
	cst_http_exchange_set_hooks(x, &front->hooks, &request);
	cst_store_handle(store, x);
	/* The struct request ends here, so the answer must. */
	cst_http_exchange_finish(x);
	count_end(&request);
}

/* ---- life ---- */

static char *copy_text(const char *s)
{
	return s ? cst_xstrdup(s) : NULL;
}

static const char *const *copy_list(const char *const *list, size_t count)
{
	char **copy = cst_xcalloc(count + 1, sizeof(*copy));
	for (size_t i = 0; i < count; i++)
		copy[i] = cst_xstrdup(list[i]);
	return (const char *const *)copy;
}

static void free_list(const char *const *list, size_t count)
{
	char **owned = (char **)(uintptr_t)list;
	for (size_t i = 0; owned && i < count; i++)
		free(owned[i]);
	free(owned);
}

static void copy_config(struct cst_store_config *to, const struct cst_store_config *from)
{
	*to = *from;
	to->dir = copy_text(from->dir);
	to->keys_file = copy_text(from->keys_file);
	to->region = copy_text(from->region);
	to->tls_cert = copy_text(from->tls_cert);
	to->tls_key = copy_text(from->tls_key);
	to->addresses = copy_list(from->addresses, from->address_count);
	to->domains = copy_list(from->domains, from->domain_count);
	to->faults = copy_list(from->faults, from->fault_count);
}

static void free_config(struct cst_store_config *c)
{
	free((char *)(uintptr_t)c->dir);
	free((char *)(uintptr_t)c->keys_file);
	free((char *)(uintptr_t)c->region);
	free((char *)(uintptr_t)c->tls_cert);
	free((char *)(uintptr_t)c->tls_key);
	free_list(c->addresses, c->address_count);
	free_list(c->domains, c->domain_count);
	free_list(c->faults, c->fault_count);
}

static int front_open(struct cst_store *store, struct cst_error *err)
{
	const struct cst_store_config *config = &store->config;
	struct cst_store_front *front = store->front = CST_NEW(struct cst_store_front);
	front->hooks = (struct cst_http_exchange_hooks){
		.before_head = before_head,
		.finishing = finishing,
		.count_in = &front->counters.bytes_in,
		.count_out = &front->counters.bytes_out,
	};
	if (getrandom(&front->nonce, sizeof(front->nonce), 0) != (ssize_t)sizeof(front->nonce))
		front->nonce = (uint32_t)cst_wall();
	front->faults = cst_xcalloc(config->fault_count + 1, sizeof(*front->faults));
	for (size_t i = 0; i < config->fault_count; i++) {
		int rc = cst_store_fault_parse(config->faults[i], &front->faults[i], err);
		if (rc < 0)
			return rc;
		front->fault_count++;
	}
	if (front->fault_count)
		front->attempts = cst_xcalloc(ATTEMPT_SLOTS, sizeof(*front->attempts));
	if (!config->tls_cert != !config->tls_key) {
		cst_error_set(err, EINVAL, "can't serve TLS");
		cst_error_why(err, "the certificate or the key is missing");
		cst_error_hint(err, "give both --tls-cert and --tls-key");
		return -EINVAL;
	}
	if (config->tls_cert) {
		front->tls = cst_tls_server_new(config->tls_cert, config->tls_key, err);
		if (!front->tls)
			return -EINVAL;
	}
	return 0;
}

/* Connections and the files that they read: the usual soft limit of 1024 descriptors is for programs that use select(). */
static void raise_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= DESCRIPTORS || limit.rlim_cur >= limit.rlim_max)
		return;
	limit.rlim_cur = cst_min(limit.rlim_max, (rlim_t)DESCRIPTORS);
	setrlimit(RLIMIT_NOFILE, &limit);
}

static int server_open(struct cst_store *store, struct cst_error *err)
{
	const struct cst_store_config *config = &store->config;
	struct cst_http_server_config http = {
		.handler = handle,
		.arg = store,
		.name = "cistern-store",
		.max_connections = config->max_connections,
		.max_workers = config->max_workers,
		.connection_bandwidth = config->bandwidth,
		.total_bandwidth = config->total_bandwidth,
	};
	store->server = cst_http_server_new(&http, err);
	if (!store->server)
		return -ENOMEM;
	for (size_t i = 0; i < config->address_count; i++) {
		int rc = cst_http_server_listen(store->server, config->addresses[i], store->front->tls, err);
		if (rc < 0)
			return rc;
	}
	return cst_http_server_start(store->server, err);
}

int cst_store_start(const struct cst_store_config *config, struct cst_store **result, struct cst_error *err)
{
	struct cst_store *store = CST_NEW(struct cst_store);
	store->magic = CST_STORE_MAGIC;
	copy_config(&store->config, config);
	raise_descriptors();
	int rc = front_open(store, err);
	if (rc == 0)
		rc = cst_store_backend_open(store, err);
	if (rc == 0)
		rc = server_open(store, err);
	if (rc < 0) {
		cst_store_stop(store, 0);
		return rc;
	}
	*result = store;
	return 0;
}

void cst_store_address(const struct cst_store *store, unsigned index, char *out, size_t size)
{
	CST_CHECK(store, CST_STORE_MAGIC);
	cst_http_server_address(store->server, index, out, size);
}

void cst_store_stop(struct cst_store *store, int64_t grace_ns)
{
	if (!store)
		return;
	CST_CHECK(store, CST_STORE_MAGIC);
	cst_http_server_stop(store->server, grace_ns);
	if (store->backend)
		cst_store_backend_close(store);
	struct cst_store_front *front = store->front;
	cst_tls_free(front->tls);
	free(front->faults);
	free(front->attempts);
	free(front);
	free_config(&store->config);
	store->magic = 0;
	free(store);
}
