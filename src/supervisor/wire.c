#include "supervisor/wire.h"

#include "base/cleanup.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#define SEND_WAIT_S 5

struct head {
	uint32_t version, type, serial;
	int32_t rc;
	uint32_t len;
};

int cst_wire_pair(int pair[2])
{
	struct timeval wait = {.tv_sec = SEND_WAIT_S};
	int size = 1 << 20;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
		return -errno;
	for (int i = 0; i < 2; i++) {
		setsockopt(pair[i], SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
		setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	}
	return 0;
}

int cst_wire_send(int socket, uint32_t type, uint32_t serial, int rc, const void *data, size_t len, const int *fds,
		  unsigned fd_count)
{
	char control[CMSG_SPACE(CST_WIRE_FDS_MAX * sizeof(int))] __attribute__((aligned(8)));
	struct head head = {CST_WIRE_VERSION, type, serial, rc, (uint32_t)len};
	struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)(uintptr_t)data, len}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = len ? 2 : 1};
	CST_ASSERT(len <= CST_WIRE_DATA_MAX && fd_count <= CST_WIRE_FDS_MAX);
	if (fd_count > 0) {
		memset(control, 0, sizeof(control));
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
	}
	ssize_t n;
	do {
		n = sendmsg(socket, &msg, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

void cst_wire_drop(struct cst_wire *m)
{
	for (unsigned i = 0; i < m->fd_count; i++)
		if (m->fds[i] >= 0)
			close(m->fds[i]);
	m->fd_count = 0;
}

int cst_wire_take_fd(struct cst_wire *m, unsigned index)
{
	return index < m->fd_count ? cst_steal_fd(&m->fds[index]) : -1;
}

static void collect_fds(struct msghdr *msg, struct cst_wire *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (m->fd_count < CST_WIRE_FDS_MAX)
				m->fds[m->fd_count++] = fd;
			else
				close(fd);
		}
	}
}

int cst_wire_receive(int socket, struct cst_wire *m, int ms)
{
	char control[CMSG_SPACE(CST_WIRE_FDS_MAX * sizeof(int))] __attribute__((aligned(8)));
	struct pollfd p = {.fd = socket, .events = POLLIN};
	struct head head;
	struct iovec iov[2] = {{&head, sizeof(head)}, {m->data, sizeof(m->data)}};
	struct msghdr msg = {
		.msg_iov = iov, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof(control)};
	int ready;
	m->fd_count = 0;
	do {
		ready = poll(&p, 1, ms);
	} while (ready < 0 && errno == EINTR);
	if (ready <= 0)
		return ready == 0 ? -EAGAIN : -errno;
	ssize_t n;
	do {
		n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	if (n == 0)
		return -EPIPE;
	collect_fds(&msg, m);
	if ((size_t)n < sizeof(head) || head.version != CST_WIRE_VERSION || head.len != (size_t)n - sizeof(head)) {
		cst_wire_drop(m);
		return -EPROTO;
	}
	m->version = head.version;
	m->type = head.type;
	m->serial = head.serial;
	m->rc = head.rc;
	m->len = head.len;
	return 0;
}
