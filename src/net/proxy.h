/* Which proxy a request goes through, from the usual variables: http_proxy (also HTTP_PROXY, unless REQUEST_METHOD says
 * that this is a CGI program, where a client could set it), https_proxy, HTTPS_PROXY, all_proxy, ALL_PROXY, and the
 * exceptions in no_proxy or NO_PROXY: "*", names (with all names below them), IP addresses, networks (10.0.0.0/8), each
 * with an optional ":port". A configuration is read once and then constant; any thread. */
#pragma once

#include "base/error.h"

struct cst_proxy_config;
/* getenv in production; tests pass their own. */
struct cst_proxy_config *cst_proxy_config_new(const char *(*get)(const char *name));
struct cst_proxy_config *cst_proxy_config_from_environment(void);
void cst_proxy_config_free(struct cst_proxy_config *config);

struct cst_proxy {
	char host[256]; /* IPv6 without brackets */
	uint16_t port;
	char authorization[512]; /* "Basic …", a secret; or "" */
};
/* 1: through *proxy; 0: directly; -EINVAL: the variable holds no usable URL. */
int cst_proxy_select(const struct cst_proxy_config *config, bool tls, const char *host, uint16_t port,
		     struct cst_proxy *proxy, struct cst_error *err);
