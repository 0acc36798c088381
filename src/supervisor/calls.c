/* What serving processes ask for and tell. */
#include "supervisor/private.h"

#define CST_LOG_AREA "supervisor"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

#define UPGRADE_FOR (60 * CST_NS_PER_S)

static void reply(const struct served *p, uint32_t serial, int rc, const void *data, size_t len, const int *fds,
		  unsigned count)
{
	int sent = cst_wire_send(p->calls, CST_WIRE_REPLY, serial, rc, data, len, fds, count);
	if (sent != 0 && sent != -EPIPE)
		cst_log_warn("no answer could be given to the file system: %s", strerror(-sent));
}

void supervisor_let_go(struct supervisor *s)
{
	for (unsigned i = 0; i < s->device_count; i++)
		close(s->devices[i]);
	s->device_count = 0;
}

static void do_mount(struct supervisor *s, struct served *p, uint32_t serial)
{
	struct cst_error err = CST_ERROR_INIT;
	if (s->device_count > 0 || s->stopping) {
		reply(p, serial, -ECANCELED, NULL, 0, NULL, 0);
		return;
	}
	int fd = s->ops.mount(s->ops.arg, s->header, &err);
	if (fd < 0) {
		reply(p, serial, fd, &err, sizeof(err), NULL, 0);
		return;
	}
	s->devices[0] = fd;
	s->device_count = 1;
	s->header->mounted = 1;
	s->header->mount_started = cst_now();
	reply(p, serial, 0, NULL, 0, s->devices, 1);
}

static void make_clones(struct supervisor *s, struct served *p, const struct cst_wire *m)
{
	uint32_t wanted = 0;
	if (m->len == sizeof(wanted))
		memcpy(&wanted, m->data, sizeof(wanted));
	while (s->device_count > 0 && s->device_count <= cst_min(wanted, CST_KEEPER_CLONES)) {
		int fd = s->ops.clone(s->devices[0]);
		if (fd < 0) {
			cst_log_debug("readers share one descriptor: %s", strerror(-fd));
			break;
		}
		s->devices[s->device_count++] = fd;
	}
	unsigned count = s->device_count ? s->device_count - 1 : 0;
	reply(p, m->serial, 0, NULL, 0, s->devices + 1, count);
}

static void begin_upgrade(struct supervisor *s, struct served *p, struct cst_wire *m)
{
	struct cst_error err = CST_ERROR_INIT;
	struct cst_state_header *h = s->header;
	m->data[m->len < CST_WIRE_DATA_MAX ? m->len : CST_WIRE_DATA_MAX - 1] = '\0';
	int rc = 0;
	if (s->next.pid || s->stopping || p != &s->now || !p->ready) {
		rc = cst_error_set(&err, EBUSY, "can't upgrade the mount");
		cst_error_why(&err, "%s", s->next.pid ? "it is being upgraded" : "it is starting or ending");
	}
	if (rc == 0)
		rc = s->next_program = supervisor_open_program(m->data, &err);
	if (rc >= 0)
		rc = supervisor_spawn(s, s->next_program, true, &s->next, &err);
	if (rc == 0) {
		h->upgrade_error[0] = '\0';
		h->upgrade_begun++;
		s->upgrade_until = cst_now() + UPGRADE_FOR;
		cst_log_info("upgrade: %s is being prepared as process %d", m->data, (int)s->next.pid);
	} else if (s->next_program >= 0 && !s->next.pid) {
		close(s->next_program);
		s->next_program = -1;
	}
	reply(p, m->serial, rc, &err, rc ? sizeof(err) : 0, NULL, 0);
}

void supervisor_upgrade_failed(struct supervisor *s, const char *why)
{
	struct cst_state_header *h = s->header;
	snprintf(h->upgrade_error, sizeof(h->upgrade_error), "%s", why);
	__atomic_store_n(&h->upgrade_ended, h->upgrade_begun, __ATOMIC_RELEASE);
	cst_log_error("upgrade: %s; the mount goes on with the program that it has", why);
	if (s->next_program >= 0)
		close(s->next_program);
	s->next_program = -1;
	s->upgrade_until = 0;
}

static void is_ready(struct supervisor *s, struct served *p)
{
	struct cst_state_header *h = s->header;
	p->ready = true;
	p->ready_at = cst_now();
	if (!s->was_ready) {
		s->was_ready = true;
		if (s->ops.ready)
			s->ops.ready(s->ops.arg);
		return;
	}
	cst_log_info("process %d goes on with %s", (int)p->pid, s->mountpoint);
	if (h->upgrade_begun == h->upgrade_ended || s->next_program < 0)
		return;
	if (s->program >= 0)
		close(s->program);
	s->program = s->next_program;
	s->next_program = -1;
	s->upgrade_until = 0;
	h->upgrades++;
	__atomic_store_n(&h->upgrade_ended, h->upgrade_begun, __ATOMIC_RELEASE);
}

static void do_call(struct supervisor *s, struct served *p, struct cst_wire *m)
{
	int fd, rc = -EBADF;
	int32_t id;
	switch (m->type) {
	case CST_WIRE_MOUNT:
		do_mount(s, p, m->serial);
		break;
	case CST_WIRE_CLONES:
		make_clones(s, p, m);
		break;
	case CST_WIRE_BACKING_OPEN:
		fd = cst_wire_take_fd(m, 0);
		if (fd >= 0 && s->device_count > 0)
			rc = s->ops.backing_open(s->devices[0], fd);
		if (fd >= 0)
			close(fd);
		reply(p, m->serial, rc, NULL, 0, NULL, 0);
		break;
	case CST_WIRE_BACKING_CLOSE:
		memcpy(&id, m->data, sizeof(id));
		if (m->len == sizeof(id) && s->device_count > 0)
			s->ops.backing_close(s->devices[0], id);
		reply(p, m->serial, 0, NULL, 0, NULL, 0);
		break;
	case CST_WIRE_UNMOUNT:
		s->unmount_serial = m->serial;
		supervisor_unmount(s);
		break;
	case CST_WIRE_END:
		p->over = true;
		supervisor_let_go(s);
		reply(p, m->serial, 0, NULL, 0, NULL, 0);
		break;
	case CST_WIRE_UPGRADE:
		begin_upgrade(s, p, m);
		break;
	default:
		cst_log_warn("the file system asked for something unknown (%u)", m->type);
		break;
	}
}

int supervisor_hear(struct supervisor *s, struct served *p)
{
	struct cst_wire *m = &s->message;
	int rc = cst_wire_receive(p->calls, m, 0);
	if (rc == -EAGAIN)
		return rc;
	if (rc != 0)
		return -EPIPE;
	switch (m->type) {
	case CST_WIRE_READY:
		is_ready(s, p);
		break;
	case CST_WIRE_STANDS_BY:
		p->standing = true;
		break;
	case CST_WIRE_FAILED:
		p->failed = true;
		if (m->len == sizeof(p->why))
			memcpy(&p->why, m->data, sizeof(p->why));
		break;
	case CST_WIRE_STOP_WISH:
		if (!s->stopping)
			supervisor_stop(s, "SIGTERM to the file system's process");
		break;
	default:
		do_call(s, p, m);
		break;
	}
	cst_wire_drop(m);
	return 0;
}
