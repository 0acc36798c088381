#include "net/resolver.h"

#include "base/clock.h"
#include "base/pool.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <string.h>

#define CST_LOG_AREA "net"
#include "base/log.h"

#define RESOLVER_MAGIC 0x5253564cu
#define KEEP_NS (60 * CST_NS_PER_S)
#define USABLE_NS (600 * CST_NS_PER_S)	  /* so long an old answer serves at once while a new one is fetched */
#define KEEP_FAILED_NS (1 * CST_NS_PER_S) /* a stale answer serves this long before the name is tried again */
#define BAD_NS (10 * CST_NS_PER_S)
#define BAD_MAX 64
#define NAMES_MAX 1024
#define LOOKUPS_AT_ONCE 4

STAILQ_HEAD(query_list, cst_resolver_query);

struct name {
	LIST_ENTRY(name) link;
	struct cst_resolver *resolver;
	char *host;
	struct cst_addresses *addresses; /* NULL: never answered */
	int64_t fresh_until, usable_until;
	bool running;
	struct query_list waiting;
};

struct bad {
	struct sockaddr_storage address;
	int64_t until;
};

struct cst_resolver {
	uint32_t magic;
	cst_resolver_source source;
	void *arg;
	struct cst_pool *pool;
	pthread_mutex_t lock; /* of what follows */
	LIST_HEAD(, name) names;
	unsigned name_count;
	struct bad bad[BAD_MAX];
	unsigned bad_turn;
};

struct cst_addresses *cst_addresses_ref(struct cst_addresses *addresses)
{
	cst_ref_get(&addresses->ref);
	return addresses;
}

void cst_addresses_unref(struct cst_addresses *addresses)
{
	if (addresses && cst_ref_put(&addresses->ref))
		free(addresses);
}

static struct cst_addresses *addresses_new(unsigned room)
{
	struct cst_addresses *a = cst_xcalloc(1, sizeof(*a) + room * sizeof(a->list[0]));

	cst_ref_init(&a->ref);
	return a;
}

static int system_source(void *arg, const char *host, struct cst_addresses **out, const char **why)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
	struct addrinfo *list, *ai;
	struct cst_addresses *found;
	unsigned count = 0;
	int rc;

	(void)arg;
	rc = getaddrinfo(host, NULL, &hints, &list);
	if (rc) {
		*why = rc == EAI_SYSTEM ? strerrordesc_np(errno) : gai_strerror(rc);
		return -EHOSTUNREACH;
	}
	for (ai = list; ai; ai = ai->ai_next)
		count++;
	found = addresses_new(count);
	for (ai = list; ai; ai = ai->ai_next)
		if (ai->ai_addrlen <= sizeof(found->list[0]))
			memcpy(&found->list[found->count++], ai->ai_addr, ai->ai_addrlen);
	freeaddrinfo(list);
	*out = found;
	return 0;
}

struct cst_resolver *cst_resolver_new(cst_resolver_source source, void *arg)
{
	struct cst_resolver *r = CST_NEW(struct cst_resolver);

	r->magic = RESOLVER_MAGIC;
	r->source = source ? source : system_source;
	r->arg = arg;
	r->pool = cst_pool_new("resolve", LOOKUPS_AT_ONCE);
	pthread_mutex_init(&r->lock, NULL);
	LIST_INIT(&r->names);
	return r;
}

static void name_free(struct name *name)
{
	LIST_REMOVE(name, link);
	cst_addresses_unref(name->addresses);
	free(name->host);
	free(name);
}

void cst_resolver_free(struct cst_resolver *resolver)
{
	if (!resolver)
		return;
	CST_CHECK(resolver, RESOLVER_MAGIC);
	cst_pool_free(resolver->pool);
	while (!LIST_EMPTY(&resolver->names))
		name_free(LIST_FIRST(&resolver->names));
	pthread_mutex_destroy(&resolver->lock);
	resolver->magic = 0;
	free(resolver);
}

static void look_up(void *arg)
{
	struct name *name = arg;
	struct cst_resolver *r = name->resolver;
	struct query_list waiting = STAILQ_HEAD_INITIALIZER(waiting);
	struct cst_addresses *found = NULL, *answer;
	struct cst_resolver_query *query;
	const char *why = "the name has no address";
	int rc = r->source(r->arg, name->host, &found, &why);

	if (rc == 0 && found->count == 0) {
		cst_addresses_unref(cst_steal(found));
		rc = -EHOSTUNREACH;
	}
	pthread_mutex_lock(&r->lock);
	if (rc == 0) {
		cst_addresses_unref(name->addresses);
		name->addresses = found;
	} else if (name->addresses) {
		cst_log_warn("can't resolve %s again: %s; the old addresses serve on", name->host, why);
	}
	/* A name that never resolved is asked for again at the next use: fresh_until counts with addresses only. */
	name->fresh_until = cst_now() + (rc == 0 ? KEEP_NS : KEEP_FAILED_NS);
	if (rc == 0)
		name->usable_until = cst_now() + USABLE_NS;
	name->running = false;
	answer = name->addresses;
	/* Holds the answer while the queries get theirs: `name` may go as soon as the lock is open. */
	if (answer)
		cst_addresses_ref(answer);
	STAILQ_CONCAT(&waiting, &name->waiting);
	pthread_mutex_unlock(&r->lock);
	while ((query = STAILQ_FIRST(&waiting))) {
		STAILQ_REMOVE_HEAD(&waiting, link);
		query->fn(query, answer ? cst_addresses_ref(answer) : NULL, answer ? 0 : rc, why);
	}
	cst_addresses_unref(answer);
}

/* Finds or adds a name; forgets one that nobody waits for when there are too many. */
static struct name *name_get_locked(struct cst_resolver *r, const char *host)
{
	struct name *name, *victim = NULL;

	LIST_FOREACH (name, &r->names, link) {
		if (strcasecmp(name->host, host) == 0)
			return name;
		if (!name->running)
			victim = name;
	}
	if (r->name_count >= NAMES_MAX && victim) {
		name_free(victim);
		r->name_count--;
	}
	name = CST_NEW(struct name);
	name->resolver = r;
	name->host = cst_xstrdup(host);
	STAILQ_INIT(&name->waiting);
	LIST_INSERT_HEAD(&r->names, name, link);
	r->name_count++;
	return name;
}

void cst_resolver_get(struct cst_resolver *resolver, const char *host, struct cst_resolver_query *query)
{
	struct cst_addresses *answer = NULL;
	struct sockaddr_storage literal;
	struct name *name;
	bool start = false;
	int64_t now;

	CST_CHECK(resolver, RESOLVER_MAGIC);
	if (cst_resolver_literal(host, &literal)) {
		answer = addresses_new(1);
		answer->list[answer->count++] = literal;
		query->fn(query, answer, 0, NULL);
		return;
	}
	pthread_mutex_lock(&resolver->lock);
	name = name_get_locked(resolver, host);
	now = cst_now();
	if (name->addresses && (now < name->fresh_until || now < name->usable_until))
		answer = cst_addresses_ref(name->addresses);
	else
		STAILQ_INSERT_TAIL(&name->waiting, query, link);
	if (!name->addresses || now >= name->fresh_until) {
		start = !name->running;
		name->running = true;
	}
	pthread_mutex_unlock(&resolver->lock);
	if (start)
		cst_pool_submit(resolver->pool, look_up, name);
	if (answer)
		query->fn(query, answer, 0, NULL);
}

bool cst_resolver_literal(const char *host, struct sockaddr_storage *out)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};

	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
		memcpy(out, &v4, sizeof(v4));
		return true;
	}
	if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
		memcpy(out, &v6, sizeof(v6));
		return true;
	}
	return false;
}

void cst_address_set_port(struct sockaddr_storage *address, uint16_t port)
{
	if (address->ss_family == AF_INET6)
		((struct sockaddr_in6 *)(void *)address)->sin6_port = htons(port);
	else
		((struct sockaddr_in *)(void *)address)->sin_port = htons(port);
}

socklen_t cst_address_len(const struct sockaddr_storage *address)
{
	return address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

static bool is_bad_locked(const struct cst_resolver *r, const struct sockaddr_storage *address, int64_t now)
{
	for (int i = 0; i < BAD_MAX; i++)
		if (r->bad[i].until > now && memcmp(&r->bad[i].address, address, cst_address_len(address)) == 0)
			return true;
	return false;
}

int cst_resolver_pick(struct cst_resolver *resolver, const struct cst_addresses *addresses, uint16_t port,
		      unsigned turn, uint64_t tried)
{
	unsigned count = cst_min(addresses->count, 64u);
	int64_t now = cst_now();
	int second_best = -1;

	CST_CHECK(resolver, RESOLVER_MAGIC);
	pthread_mutex_lock(&resolver->lock);
	for (unsigned i = 0; i < count; i++) {
		unsigned at = (turn % count + i) % count;
		struct sockaddr_storage address = addresses->list[at];

		if (tried & UINT64_C(1) << at)
			continue;
		cst_address_set_port(&address, port);
		if (!is_bad_locked(resolver, &address, now)) {
			pthread_mutex_unlock(&resolver->lock);
			return (int)at;
		}
		if (second_best < 0)
			second_best = (int)at;
	}
	pthread_mutex_unlock(&resolver->lock);
	return second_best;
}

void cst_resolver_mark_bad(struct cst_resolver *resolver, const struct sockaddr_storage *address)
{
	int64_t now = cst_now();
	struct bad *slot = NULL;

	CST_CHECK(resolver, RESOLVER_MAGIC);
	pthread_mutex_lock(&resolver->lock);
	for (int i = 0; i < BAD_MAX && !slot; i++)
		if (resolver->bad[i].until <= now ||
		    memcmp(&resolver->bad[i].address, address, cst_address_len(address)) == 0)
			slot = &resolver->bad[i];
	if (!slot)
		slot = &resolver->bad[resolver->bad_turn++ % BAD_MAX];
	slot->address = *address;
	slot->until = now + BAD_NS;
	pthread_mutex_unlock(&resolver->lock);
}
