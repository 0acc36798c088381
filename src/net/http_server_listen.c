/* Listening sockets: addresses, binding, accepting. */
#define CST_LOG_AREA "http"
#include "base/log.h"
#include "net/http_server_private.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/un.h>

#define ACCEPT_AT_ONCE 64
#define BACKLOG 4096

static void format_address(struct cst_http_listener *listener, const struct sockaddr *addr, socklen_t len)
{
	char host[64], port[8];
	if (getnameinfo(addr, len, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
		snprintf(listener->address, sizeof(listener->address), "?");
		return;
	}
	const char *fmt = addr->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(listener->address, sizeof(listener->address), fmt, host, port);
#pragma GCC diagnostic pop
}

void cst_http_listener_free(struct cst_http_listener *listener)
{
	struct stat st;
	/* Another server may have taken the path over. While ours is open its inode is not given to anyone else. */
	if (listener->unlink_path && lstat(listener->unlink_path, &st) == 0 && st.st_dev == listener->unlink_device &&
	    st.st_ino == listener->unlink_inode)
		unlink(listener->unlink_path);
	if (listener->fd >= 0)
		close(listener->fd);
	free(listener->unlink_path);
	free(listener);
}

static struct cst_http_listener *listener_new(struct cst_http_server *server, int fd, unsigned index,
					      struct cst_tls *tls)
{
	struct cst_http_listener *listener = CST_NEW(struct cst_http_listener);
	listener->event = CST_HTTP_EVENT_LISTENER;
	listener->fd = fd;
	listener->index = index;
	listener->tls = tls;
	STAILQ_INSERT_TAIL(&server->listeners, listener, link);
	return listener;
}

static int fail(const char *address, int rc, struct cst_error *err)
{
	cst_error_set(err, -rc, "can't listen on %s", address);
	cst_error_why(err, "%s", strerror(-rc));
	if (rc == -EADDRINUSE)
		cst_error_hint(err, "another program listens there; choose another port, or port 0 for any free one");
	else if (rc == -EADDRNOTAVAIL)
		cst_error_hint(err, "no interface of this machine has that address");
	else if (rc == -EACCES)
		cst_error_hint(err, "ports below 1024 need root");
	return rc;
}

/* A socket left behind by a process that died refuses connections: it may be replaced. */
static bool is_stale(const struct sockaddr_un *addr)
{
	struct stat st;
	if (lstat(addr->sun_path, &st) != 0 || !S_ISSOCK(st.st_mode))
		return false;
	CST_AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return fd >= 0 && connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) != 0 && errno == ECONNREFUSED;
}

static int listen_unix(struct cst_http_server *server, const char *address, unsigned index, struct cst_tls *tls,
		       struct cst_error *err)
{
	const char *path = address + strlen("unix:");
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	if (!*path || strlen(path) >= sizeof(addr.sun_path))
		return fail(address, *path ? -ENAMETOOLONG : -EINVAL, err);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	CST_AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail(address, -errno, err);
	/* The mode of the file that bind() makes: nobody else gets in at any moment. */
	fchmod(fd, 0600);
	if (is_stale(&addr))
		unlink(path);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0 || listen(fd, BACKLOG) != 0)
		return fail(address, -errno, err);
	struct cst_http_listener *listener = listener_new(server, cst_steal_fd(&fd), index, tls);
	listener->unlink_path = cst_xstrdup(path);
	struct stat st;
	if (lstat(path, &st) == 0) {
		listener->unlink_device = st.st_dev;
		listener->unlink_inode = st.st_ino;
	}
	snprintf(listener->address, sizeof(listener->address), "%s", address);
	return 0;
}

/* Binds one resolved address; *port is filled in when it was 0, so that the other addresses of a name get the same. */
static int listen_tcp(struct cst_http_server *server, const struct addrinfo *ai, uint16_t *port, unsigned index,
		      struct cst_tls *tls)
{
	struct sockaddr_storage addr = {0};
	memcpy(&addr, ai->ai_addr, ai->ai_addrlen);
	uint16_t *at = ai->ai_family == AF_INET6 ? &((struct sockaddr_in6 *)&addr)->sin6_port
						 : &((struct sockaddr_in *)&addr)->sin_port;
	*at = htons(*port);
	CST_AUTO_CLOSE int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	int on = 1, off = 0;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (ai->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	socklen_t len = sizeof(addr);
	if (bind(fd, (struct sockaddr *)&addr, ai->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0 ||
	    getsockname(fd, (struct sockaddr *)&addr, &len) != 0)
		return -errno;
	*port = ntohs(*at);
	struct cst_http_listener *listener = listener_new(server, cst_steal_fd(&fd), index, tls);
	listener->tcp = true;
	format_address(listener, (struct sockaddr *)&addr, len);
	return 0;
}

/* "host:port", "[v6]:port", ":port" into host and port; the brackets go. */
static int split_address(const char *address, char *host, size_t size, char *port, size_t port_size)
{
	const char *colon = strrchr(address, ':');
	size_t len = colon ? (size_t)(colon - address) : 0;
	if (!colon || !colon[1] || strlen(colon + 1) >= port_size ||
	    strspn(colon + 1, "0123456789") != strlen(colon + 1))
		return -EINVAL;
	if (len >= 2 && address[0] == '[' && address[len - 1] == ']') {
		address++;
		len -= 2;
	} else if (memchr(address, ':', len)) {
		return -EINVAL;
	}
	if (len >= size)
		return -EINVAL;
	memcpy(host, address, len);
	host[len] = '\0';
	snprintf(port, port_size, "%s", colon + 1);
	return strtol(port, NULL, 10) <= 65535 ? 0 : -EINVAL;
}

static int listen_host(struct cst_http_server *server, const char *address, unsigned index, struct cst_tls *tls,
		       struct cst_error *err)
{
	char host[256], port_text[8];
	if (split_address(address, host, sizeof(host), port_text, sizeof(port_text)) < 0) {
		cst_error_set(err, EINVAL, "can't listen on %s", address);
		cst_error_why(err, "it is not an address");
		cst_error_hint(err, "write HOST:PORT, [IPv6]:PORT, :PORT or unix:/path");
		return -EINVAL;
	}
	struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM}, *found = NULL;
	if (!host[0])
		hints.ai_family = AF_INET6; /* takes IPv4 too */
	int rc = getaddrinfo(host[0] ? host : NULL, port_text, &hints, &found);
	if (rc != 0) {
		cst_error_set(err, EHOSTUNREACH, "can't listen on %s", address);
		cst_error_why(err, "%s", gai_strerror(rc));
		return -EHOSTUNREACH;
	}
	uint16_t port = (uint16_t)strtol(port_text, NULL, 10);
	unsigned bound = 0;
	int first = 0;
	for (const struct addrinfo *ai = found; ai; ai = ai->ai_next) {
		if (ai->ai_family != AF_INET && ai->ai_family != AF_INET6)
			continue;
		rc = listen_tcp(server, ai, &port, index, tls);
		if (rc == 0)
			bound++;
		else if (first == 0)
			first = rc;
	}
	freeaddrinfo(found);
	if (bound == 0 && !host[0] && (first == -EAFNOSUPPORT || first == -EADDRNOTAVAIL)) {
		struct sockaddr_in any = {.sin_family = AF_INET};
		struct addrinfo ai = {
			.ai_family = AF_INET, .ai_addr = (struct sockaddr *)&any, .ai_addrlen = sizeof(any)};
		first = listen_tcp(server, &ai, &port, index, tls);
		bound = first == 0;
	}
	return bound ? 0 : fail(address, first ? first : -EADDRNOTAVAIL, err);
}

int cst_http_server_listen(struct cst_http_server *server, const char *address, struct cst_tls *tls,
			   struct cst_error *err)
{
	CST_CHECK(server, CST_HTTP_SERVER_MAGIC);
	CST_ASSERT(!server->started);
	unsigned index = server->addresses++;
	if (strncmp(address, "unix:", 5) == 0)
		return listen_unix(server, address, index, tls, err);
	return listen_host(server, address, index, tls, err);
}

void cst_http_server_address(const struct cst_http_server *server, unsigned index, char *out, size_t size)
{
	CST_CHECK(server, CST_HTTP_SERVER_MAGIC);
	struct cst_http_listener *listener;
	snprintf(out, size, "%s", "");
	STAILQ_FOREACH (listener, &server->listeners, link) {
		if (listener->index == index) {
			snprintf(out, size, "%s", listener->address);
			return;
		}
	}
}

int cst_http_listener_arm(struct cst_http_server *server, struct cst_http_listener *listener, bool first)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = listener};
	return epoll_ctl(server->epoll_fd, first ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, listener->fd, &ev) == 0 ? 0 : -errno;
}

/* Too many connections: say so where that needs no waiting. */
static void refuse(struct cst_http_server *server, const struct cst_http_listener *listener, int fd)
{
	static const char answer[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n"
				     "Connection: close\r\n\r\n";
	static struct cst_log_limit limit;
	__atomic_add_fetch(&server->refused, 1, __ATOMIC_RELAXED);
	if (!listener->tls) {
		/* Reading first: closing over unread bytes would reset the connection and lose the answer. */
		char drop[4096];
		recv(fd, drop, sizeof(drop), MSG_DONTWAIT);
		send(fd, answer, sizeof(answer) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
		shutdown(fd, SHUT_WR);
		recv(fd, drop, sizeof(drop), MSG_DONTWAIT);
	}
	close(fd);
	pthread_mutex_lock(&server->lock);
	bool allowed = cst_log_allowed(&limit, 10 * CST_NS_PER_S, NULL);
	pthread_mutex_unlock(&server->lock);
	if (allowed)
		cst_log_warn("%s: more than %u connections: refused", server->name, server->config.max_connections);
}

static void accept_failed(struct cst_http_server *server, int code)
{
	/* A client that is gone again is nobody's concern; out of descriptors or memory is, and passes only with time. */
	if (code == ECONNABORTED || code == EINTR || code == EPROTO)
		return;
	if (cst_http_server_stopping(server))
		return;
	cst_log_warn("%s: can't accept a connection: %s", server->name, strerror(code));
	cst_sleep(100 * CST_NS_PER_MS);
}

struct cst_http_peer *cst_http_listener_accept(struct cst_http_server *server, struct cst_http_listener *listener)
{
	struct cst_http_peer *last = NULL;
	for (int i = 0; i < ACCEPT_AT_ONCE; i++) {
		struct sockaddr_storage peer = {0};
		socklen_t len = sizeof(peer);
		int fd = accept4(listener->fd, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0) {
			if (errno != EAGAIN)
				accept_failed(server, errno);
			break;
		}
		if (__atomic_load_n(&server->connections, __ATOMIC_RELAXED) >= server->config.max_connections) {
			refuse(server, listener, fd);
			continue;
		}
		if (last)
			cst_http_peer_arm(last, EPOLLIN);
		last = cst_http_peer_new(server, fd, listener, &peer);
	}
	if (!cst_http_server_stopping(server))
		cst_http_listener_arm(server, listener, false);
	return last;
}
