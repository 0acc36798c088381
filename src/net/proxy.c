#include "net/proxy.h"

#include "base/text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define DEFAULT_PORT 1080 /* curl's */

struct cst_proxy_config {
	char *http, *https, *none;
};

/* The first of some variables that is set and not empty, copied. */
static char *first_of(const char *(*get)(const char *), const char *const *names)
{
	for (; *names; names++) {
		const char *value = get(*names);

		if (value && *value)
			return cst_xstrdup(value);
	}
	return NULL;
}

struct cst_proxy_config *cst_proxy_config_new(const char *(*get)(const char *name))
{
	struct cst_proxy_config *config = CST_NEW(struct cst_proxy_config);
	const char *http[] = {"http_proxy", get("REQUEST_METHOD") ? "all_proxy" : "HTTP_PROXY", "all_proxy",
			      "ALL_PROXY", NULL};
	const char *https[] = {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", NULL};
	const char *none[] = {"no_proxy", "NO_PROXY", NULL};

	config->http = first_of(get, http);
	config->https = first_of(get, https);
	config->none = first_of(get, none);
	return config;
}

static const char *environment(const char *name)
{
	return getenv(name);
}

struct cst_proxy_config *cst_proxy_config_from_environment(void)
{
	return cst_proxy_config_new(environment);
}

void cst_proxy_config_free(struct cst_proxy_config *config)
{
	if (!config)
		return;
	/* They may hold passwords. */
	if (config->http)
		explicit_bzero(config->http, strlen(config->http));
	if (config->https)
		explicit_bzero(config->https, strlen(config->https));
	free(config->http);
	free(config->https);
	free(config->none);
	free(config);
}

static bool parse_port(struct cst_slice text, uint16_t *port)
{
	unsigned value = 0;

	if (text.len == 0 || text.len > 5)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] < '0' || text.data[i] > '9')
			return false;
		value = value * 10 + (text.data[i] - '0');
	}
	*port = value;
	return value > 0 && value < 65536;
}

/* "host", "host:port", "[v6]", "[v6]:port", "v6": the host without brackets, *port unchanged when there is none. */
static bool split_port(struct cst_slice text, struct cst_slice *host, uint16_t *port)
{
	const char *colon = memchr(text.data, ':', text.len);

	if (text.len && text.data[0] == '[') {
		const char *close = memchr(text.data, ']', text.len);
		size_t after;

		if (!close)
			return false;
		*host = (struct cst_slice){text.data + 1, close - text.data - 1};
		after = text.len - (close + 1 - text.data);
		return after == 0 || (close[1] == ':' && parse_port((struct cst_slice){close + 2, after - 1}, port));
	}
	*host = text;
	if (!colon || memchr(colon + 1, ':', text.data + text.len - colon - 1))
		return true;
	host->len = colon - text.data;
	return parse_port((struct cst_slice){colon + 1, text.len - host->len - 1}, port);
}

/* The bits of an IP literal; 0 when it is none. */
static unsigned ip_bits(struct cst_slice text, uint8_t out[16])
{
	char copy[INET6_ADDRSTRLEN];

	if (text.len == 0 || text.len >= sizeof(copy))
		return 0;
	memcpy(copy, text.data, text.len);
	copy[text.len] = '\0';
	if (inet_pton(AF_INET, copy, out) == 1)
		return 32;
	return inet_pton(AF_INET6, copy, out) == 1 ? 128 : 0;
}

static bool same_network(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	uint8_t mask = (uint8_t)(0xff00 >> (bits % 8));

	return memcmp(a, b, bits / 8) == 0 && (bits % 8 == 0 || ((a[bits / 8] ^ b[bits / 8]) & mask) == 0);
}

/* Does one entry of NO_PROXY cover the host? */
static bool entry_covers(struct cst_slice entry, struct cst_slice host, uint16_t port)
{
	struct cst_slice network = entry, name;
	uint8_t host_ip[16], entry_ip[16];
	unsigned host_bits = ip_bits(host, host_ip);
	uint16_t only = 0, prefix = 0;

	if (cst_slice_is(entry, "*"))
		return true;
	name = cst_slice_cut(&network, '/');
	if (network.data) {
		bool zero = cst_slice_is(network, "0");

		if (host_bits == 0 || ip_bits(name, entry_ip) != host_bits || (!zero && !parse_port(network, &prefix)))
			return false;
		return prefix <= host_bits && same_network(host_ip, entry_ip, prefix);
	}
	if (!split_port(entry, &name, &only) || (only && only != port))
		return false;
	if (host_bits)
		return ip_bits(name, entry_ip) == host_bits && same_network(host_ip, entry_ip, host_bits);
	while (name.len && (name.data[0] == '.' || name.data[0] == '*'))
		name.data++, name.len--;
	while (name.len && name.data[name.len - 1] == '.')
		name.len--;
	if (name.len == 0 || name.len > host.len)
		return false;
	if (!cst_slice_ieq((struct cst_slice){host.data + host.len - name.len, name.len}, name))
		return false;
	return name.len == host.len || host.data[host.len - name.len - 1] == '.';
}

static bool is_excepted(const char *none, struct cst_slice host, uint16_t port)
{
	const char *p = none ? none : "";

	while (host.len && host.data[host.len - 1] == '.')
		host.len--;
	for (;;) {
		size_t len;

		p += strspn(p, ", \t");
		len = strcspn(p, ", \t");
		if (len == 0)
			return false;
		if (entry_covers((struct cst_slice){p, len}, host, port))
			return true;
		p += len;
	}
}

static int authorization(struct cst_slice user, char *out, size_t size)
{
	CST_AUTO_BUF plain = CST_BUF_INIT;
	CST_AUTO_BUF coded = CST_BUF_INIT;
	struct cst_slice password = user;
	struct cst_slice name = cst_slice_cut(&password, ':');
	int rc = cst_text_url_decode(&plain, name, false);

	cst_buf_add_char(&plain, ':');
	if (rc == 0 && password.len)
		rc = cst_text_url_decode(&plain, password, false);
	cst_text_base64(&coded, plain.data, plain.len);
	if (rc == 0 && (size_t)snprintf(out, size, "Basic %s", coded.data) >= size)
		rc = -EINVAL;
	explicit_bzero(plain.data, plain.len);
	explicit_bzero(coded.data, coded.len);
	return rc;
}

static int parse_url(const char *url, struct cst_proxy *proxy)
{
	const char *scheme = strstr(url, "://");
	struct cst_slice rest = cst_slice_of(scheme ? scheme + 3 : url);
	struct cst_slice place, host;
	const char *at;

	memset(proxy, 0, sizeof(*proxy));
	proxy->port = DEFAULT_PORT;
	if (scheme && !cst_slice_ieq((struct cst_slice){url, scheme - url}, CST_SLICE("http")))
		return -EINVAL;
	place = cst_slice_cut(&rest, '/');
	at = place.len ? memrchr(place.data, '@', place.len) : NULL;
	if (at) {
		struct cst_slice user = {place.data, at - place.data};

		if (authorization(user, proxy->authorization, sizeof(proxy->authorization)))
			return -EINVAL;
		place = (struct cst_slice){at + 1, place.len - user.len - 1};
	}
	if (place.len == 0 || !split_port(place, &host, &proxy->port))
		return -EINVAL;
	if (host.len == 0 || host.len >= sizeof(proxy->host))
		return -EINVAL;
	memcpy(proxy->host, host.data, host.len);
	return 0;
}

int cst_proxy_select(const struct cst_proxy_config *config, bool tls, const char *host, uint16_t port,
		     struct cst_proxy *proxy, struct cst_error *err)
{
	const char *url = tls ? config->https : config->http;

	if (!url || is_excepted(config->none, cst_slice_of(host), port))
		return 0;
	if (parse_url(url, proxy)) {
		cst_error_set(err, EINVAL, "can't use the proxy for %s", tls ? "https" : "http");
		cst_error_why(err, "the proxy variable holds no http:// URL");
		cst_error_hint(err, "set %s to http://HOST:PORT, or name %s in no_proxy",
			       tls ? "https_proxy" : "http_proxy", host);
		return -EINVAL;
	}
	return 1;
}
