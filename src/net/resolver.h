/* Names to addresses: getaddrinfo(3) on a few threads of its own. An answer is fresh for 60 s; up to 10 min it serves
 * while the next one is fetched, and for as long as fetching fails (a name server that is down must not take a store
 * away that is up). Also remembers which addresses
 * refused a connection, so that the next connections try the others first for 10 s.
 *
 * Any thread; one lock inside, never held while names are looked up or callbacks run. */
#pragma once

#include "base/cleanup.h"

#include <netinet/in.h>
#include <sys/queue.h>
#include <sys/socket.h>

/* An answer; immutable, counted. Ports are 0. */
struct cst_addresses {
	struct cst_ref ref;
	unsigned count;
	struct sockaddr_storage list[];
};
struct cst_addresses *cst_addresses_ref(struct cst_addresses *addresses);
void cst_addresses_unref(struct cst_addresses *addresses); /* NULL is allowed */

struct cst_resolver;
/* Answers in place of getaddrinfo (tests). 0 with *out, or -errno with *why set to a constant text. On a pool thread. */
typedef int (*cst_resolver_source)(void *arg, const char *host, struct cst_addresses **out, const char **why);
/* source NULL: getaddrinfo. */
struct cst_resolver *cst_resolver_new(cst_resolver_source source, void *arg);
/* Waits for the lookups that run; all their callbacks have been called then. */
void cst_resolver_free(struct cst_resolver *resolver);

/* One question. The memory is the caller's until fn is called: once, on the asking thread within cst_resolver_get()
 * (kept answers, literals) or on a thread of the pool. addresses is the caller's to unref; NULL: rc and why say the reason. */
struct cst_resolver_query {
	void (*fn)(struct cst_resolver_query *query, struct cst_addresses *addresses, int rc, const char *why);
	STAILQ_ENTRY(cst_resolver_query) link;
};
void cst_resolver_get(struct cst_resolver *resolver, const char *host, struct cst_resolver_query *query);

/* An IP literal (no brackets). */
bool cst_resolver_literal(const char *host, struct sockaddr_storage *out);
void cst_address_set_port(struct sockaddr_storage *address, uint16_t port);
socklen_t cst_address_len(const struct sockaddr_storage *address);

/* The index of an address to try: the next in turn that is neither in `tried` (bit per index) nor bad; else the next one not
 * tried; -1 when all were (or it is beyond the 64th). */
int cst_resolver_pick(struct cst_resolver *resolver, const struct cst_addresses *addresses, uint16_t port,
		      unsigned turn, uint64_t tried);
void cst_resolver_mark_bad(struct cst_resolver *resolver, const struct sockaddr_storage *address); /* with its port */
