/* The loop: doc/supervisor.md has the states. */
#include "supervisor/private.h"

#define CST_LOG_AREA "supervisor"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define LIVED (250 * CST_NS_PER_MS) /* served longer than this: it didn't die at once */
#define QUICK_DEATHS_MAX 8u	    /* in a row; their pauses are a minute together */
#define BACKOFF_MAX (30 * CST_NS_PER_S)
#define HANGS_MAX 3u		       /* in a row */
#define START_MAX (120 * CST_NS_PER_S) /* to be ready, when programs wait for it */
#define STOP_LIFE (10 * CST_NS_PER_S)  /* without a sign of life while it is to end */
#define DIES_IN (30 * CST_NS_PER_S)    /* after SIGKILL, unless the kernel holds it */
#define LEAVES_IN (15 * CST_NS_PER_S)
#define STOOD_STILL (2 * CST_NS_PER_S)
#define LOOK_EVERY_MS 1000

static void kill_served(struct served *p)
{
	if (!p->pid || p->killed_at)
		return;
	p->killed_at = cst_now();
	syscall(SYS_pidfd_send_signal, p->pidfd, SIGKILL, NULL, 0);
}

/* ---- ends ---- */

void supervisor_unmount(struct supervisor *s)
{
	if (s->unmounter)
		return;
	s->unmounter = supervisor_fork_unmount(s, &s->unmounter_fd);
	if (s->unmounter > 0 && s->unmounter_fd >= 0)
		return;
	cst_log_error("can't start a process that unmounts: %s", strerror(errno));
	s->unmounter = 0;
	s->unmounted = true;
}

static void unmounter_gone(struct supervisor *s)
{
	int status = 0;
	while (waitpid(s->unmounter, &status, 0) < 0 && errno == EINTR)
		;
	close(cst_steal_fd(&s->unmounter_fd));
	s->unmounter = 0;
	s->unmounted = true;
	int rc = WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
	if (s->unmount_serial && s->now.pid)
		(void)cst_wire_send(s->now.calls, CST_WIRE_REPLY, s->unmount_serial, rc, NULL, 0, NULL, 0);
	s->unmount_serial = 0;
}

void supervisor_stop(struct supervisor *s, const char *why)
{
	if (s->stopping) {
		/* The second one ends the wait for what is being written; after the third nothing is waited for. */
		cst_log_warn("%s again: ending without waiting", why);
		if (s->forced || !s->now.ready)
			kill_served(&s->now);
		else
			(void)cst_wire_send(s->now.events, CST_WIRE_STOP, 0, 0, NULL, 0, NULL, 0);
		s->forced = true;
		return;
	}
	s->stopping = true;
	cst_log_info("%s: unmounting %s", why, s->mountpoint);
	kill_served(&s->next);
	if (s->now.pid && s->now.ready) {
		s->told_to_stop = true;
		if (cst_wire_send(s->now.events, CST_WIRE_STOP, 0, 0, NULL, 0, NULL, 0) == 0)
			return;
	}
	kill_served(&s->now);
	if (!s->now.pid)
		supervisor_unmount(s);
}

static void give_up(struct supervisor *s, const char *why)
{
	cst_log_error("giving up %s: %s; programs get errors from now on", s->mountpoint, why);
	s->given_up = s->stopping = s->forced = true;
	supervisor_abort(s);
	kill_served(&s->now);
	kill_served(&s->next);
	supervisor_unmount(s);
}

/* ---- a serving process ---- */

static int start_serving(struct supervisor *s, struct cst_error *err)
{
	struct cst_state_header *h = s->header;
	/* What the last one said of itself says nothing of this one. */
	memset(h->beats, 0, sizeof(h->beats));
	h->epoch++;
	s->restart_at = 0;
	int rc = supervisor_spawn(s, s->program, false, &s->now, err);
	h->serving_pid = (int32_t)s->now.pid;
	h->serving_started = s->now.started;
	return rc;
}

static void schedule_restart(struct supervisor *s, bool quick)
{
	int64_t pause = 0;
	s->quick_deaths = quick ? s->quick_deaths + 1 : 0;
	if (s->quick_deaths >= QUICK_DEATHS_MAX) {
		give_up(s, "the file system's process died again and again right after its start");
		return;
	}
	int64_t *oldest = &s->died[s->deaths++ % SUPERVISOR_DEATHS_MAX];
	if (*oldest && cst_now() - *oldest < 60 * CST_NS_PER_S) {
		give_up(s, "the file system's process dies all the time");
		return;
	}
	*oldest = cst_now();
	if (s->quick_deaths > 1)
		pause = cst_min(CST_NS_PER_S << (s->quick_deaths - 2), BACKOFF_MAX);
	s->header->restarts++;
	s->restart_at = cst_now() + pause;
}

static void restart(struct supervisor *s)
{
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	if (start_serving(s, &err) == 0)
		return;
	cst_log_error("%s", cst_error_text(&err, text, sizeof(text)));
	schedule_restart(s, true);
}

/* The predecessor of an upgrade has left, or died. */
static void let_next_serve(struct supervisor *s)
{
	struct cst_state_header *h = s->header;
	memset(h->beats, 0, sizeof(h->beats));
	h->epoch++;
	s->now = s->next;
	s->next = (struct served){.pidfd = -1, .calls = -1, .events = -1};
	s->now.stands_by = false;
	s->now.started = cst_now();
	h->serving_pid = (int32_t)s->now.pid;
	h->serving_started = s->now.started;
	(void)cst_wire_send(s->now.events, CST_WIRE_GO, 0, 0, NULL, 0, s->devices, s->device_count);
}

static void note_death(struct supervisor *s, const struct served *p, const char *text)
{
	struct cst_state_header *h = s->header;
	char why[CST_ERROR_TEXT_MAX] = "";
	bool hung = p->hung;
	if (p->failed)
		cst_error_text(&p->why, why, sizeof(why));
	snprintf(h->died_of, sizeof(h->died_of), "%s", hung ? "no sign of life" : why[0] ? why : text);
	h->died_at = cst_wall();
	cst_log_error("the file system's process %d has died: %s; another one goes on", (int)p->pid, h->died_of);
	if (h->upgrade_begun != h->upgrade_ended) {
		supervisor_upgrade_failed(s, h->died_of);
		kill_served(&s->next);
	}
	if (hung) {
		h->hangs++;
		s->hangs++;
		if (s->hangs >= HANGS_MAX) {
			give_up(s, "it gave no sign of life, again and again");
			return;
		}
	} else if (p->ready && cst_now() - p->ready_at > 10 * h->hang_timeout) {
		s->hangs = 0;
	}
	schedule_restart(s, !hung && (!p->ready || cst_now() - p->ready_at < LIVED));
}

/* True: the supervisor's work is done; *rc is its result. */
static bool now_gone(struct supervisor *s, struct cst_error *err, int *rc)
{
	char text[128];
	while (supervisor_hear(s, &s->now) == 0)
		;
	int status = served_reap(&s->now, text, sizeof(text));
	struct served p = s->now;
	served_fini(&s->now);
	s->unmount_serial = 0;
	*rc = 0;
	if (!s->was_ready) {
		if (s->stopping) {
			*rc = -EINTR;
		} else if (p.failed) {
			*err = p.why;
			*rc = err->code > 0 ? -err->code : -EIO;
		} else {
			*rc = cst_error_set(err, EIO, "the file system's process ended at start");
			cst_error_why(err, "%s", text);
			cst_error_hint(err, "the log may tell more");
		}
		if (s->header->mounted && !p.over)
			supervisor_unmount(s);
		return s->unmounter == 0;
	}
	if (p.over) {
		if (status > 0 && !p.killed_at) {
			*rc = cst_error_set(err, EIO, "the file system on %s has ended badly", s->mountpoint);
			cst_error_why(err, "%s, after it was unmounted", text);
		}
		return true;
	}
	if (p.leaving && s->next.pid) {
		let_next_serve(s);
		return false;
	}
	if (s->stopping) {
		if (!s->unmounted)
			supervisor_unmount(s);
		return false;
	}
	note_death(s, &p, text);
	return false;
}

static void next_gone(struct supervisor *s)
{
	char text[128], why[CST_ERROR_TEXT_MAX];
	while (supervisor_hear(s, &s->next) == 0)
		;
	served_reap(&s->next, text, sizeof(text));
	if (s->next.failed)
		cst_error_text(&s->next.why, why, sizeof(why));
	else
		snprintf(why, sizeof(why), "the new program ended: %s",
			 s->next.hung ? "it was not ready in time" : text);
	served_fini(&s->next);
	if (!s->stopping && s->header->upgrade_begun != s->header->upgrade_ended)
		supervisor_upgrade_failed(s, why);
}

/* ---- what time brings ---- */

static void check_life(struct supervisor *s, int64_t now)
{
	const struct cst_beat *which = NULL;
	struct served *p = &s->now;
	int64_t most = s->header->hang_timeout, age;
	if (!p->pid || p->killed_at || now < s->grace_until || most <= 0)
		return;
	if (!p->ready) {
		if (s->was_ready && now - p->started > START_MAX) {
			cst_log_error("the file system's process %d isn't ready after %d s: killing it", (int)p->pid,
				      (int)(START_MAX / CST_NS_PER_S));
			kill_served(p);
		}
		return;
	}
	if (s->stopping)
		most = cst_min(most, STOP_LIFE);
	age = cst_beat_oldest(s->header, now, &which);
	if (age <= most || p->over)
		return;
	cst_log_error("the file system's process %d gives no sign of life (%s, for %lld s): killing it", (int)p->pid,
		      which ? which->name : "", (long long)(age / CST_NS_PER_S));
	p->hung = !s->stopping;
	kill_served(p);
}

static void check_upgrade(struct supervisor *s, int64_t now)
{
	if (!s->upgrade_until)
		return;
	if (s->next.pid && s->next.standing && s->now.pid && !s->now.leaving && !s->stopping) {
		s->now.leaving = true;
		cst_log_info("upgrade: process %d makes room for process %d", (int)s->now.pid, (int)s->next.pid);
		(void)cst_wire_send(s->now.events, CST_WIRE_LEAVE, 0, 0, NULL, 0, NULL, 0);
		s->upgrade_until = now + LEAVES_IN;
		return;
	}
	if (now < s->upgrade_until)
		return;
	s->upgrade_until = now + START_MAX;
	if (s->next.pid && s->now.pid && s->now.leaving) {
		cst_log_warn("upgrade: process %d doesn't leave: killing it", (int)s->now.pid);
		kill_served(&s->now);
	} else if (s->next.pid) {
		s->next.hung = true;
		kill_served(&s->next);
	} else {
		cst_log_error("upgrade: the new program isn't ready in time: killing it");
		kill_served(&s->now);
	}
}

static void check_time(struct supervisor *s)
{
	int64_t now = cst_now();
	check_life(s, now);
	check_upgrade(s, now);
	if (s->now.killed_at && now - s->now.killed_at > DIES_IN && !s->given_up)
		give_up(s, "the file system's process can't be killed");
	if (s->restart_at && now >= s->restart_at && !s->now.pid && !s->stopping)
		restart(s);
}

static int wait_ms(const struct supervisor *s)
{
	int64_t ms = cst_min((int64_t)LOOK_EVERY_MS, s->header->hang_timeout / CST_NS_PER_MS / 4);
	if (s->restart_at && !s->now.pid)
		ms = cst_min(ms, (s->restart_at - cst_now()) / CST_NS_PER_MS + 1);
	return (int)cst_max(ms, INT64_C(10));
}

/* ---- the loop ---- */

static void take_signals(struct supervisor *s)
{
	struct signalfd_siginfo info;
	while (read(s->signals, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGHUP) {
			cst_log_reopen();
			if (s->now.pid)
				syscall(SYS_pidfd_send_signal, s->now.pidfd, SIGHUP, NULL, 0);
		} else if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT) {
			supervisor_stop(s, info.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM");
		}
	}
}

enum { ON_SIGNALS, ON_NOW, ON_CALLS, ON_NEXT, ON_NEXT_CALLS, ON_UNMOUNTER, ON_DEVICE, ON_COUNT };

static bool is_over(const struct supervisor *s, const struct pollfd *p)
{
	if (s->now.pid || s->unmounter)
		return false;
	if (s->stopping && s->unmounted)
		return true;
	return s->was_ready && (p[ON_DEVICE].revents & (POLLERR | POLLNVAL)); /* unmounted meanwhile */
}

static int result(const struct supervisor *s, int rc, struct cst_error *err)
{
	if (rc == 0 && s->given_up) {
		rc = cst_error_set(err, EIO, "gave up the mount on %s", s->mountpoint);
		cst_error_why(err, "the file system's process: %s", s->header->died_of);
	}
	return rc;
}

static int loop(struct supervisor *s, struct cst_error *err)
{
	int rc = 0;
	bool ending = false; /* the start has failed, and what was mounted is being unmounted */
	for (;;) {
		struct pollfd p[ON_COUNT] = {
			[ON_SIGNALS] = {s->signals, POLLIN, 0},
			[ON_NOW] = {s->now.pidfd, POLLIN, 0},
			[ON_CALLS] = {s->now.calls, POLLIN, 0},
			[ON_NEXT] = {s->next.pidfd, POLLIN, 0},
			[ON_NEXT_CALLS] = {s->next.calls, POLLIN, 0},
			[ON_UNMOUNTER] = {s->unmounter ? s->unmounter_fd : -1, POLLIN, 0},
			[ON_DEVICE] = {!s->now.pid && s->device_count ? s->devices[0] : -1, 0, 0},
		};
		int ms = wait_ms(s);
		int64_t until = cst_now() + ms * CST_NS_PER_MS;
		if (poll(p, ON_COUNT, ms) < 0 && errno != EINTR)
			return result(s, -errno, err);
		if (cst_now() > until + STOOD_STILL)
			s->grace_until = cst_now() + s->header->hang_timeout;
		if (p[ON_SIGNALS].revents)
			take_signals(s);
		if (p[ON_UNMOUNTER].revents)
			unmounter_gone(s);
		if (ending) {
			if (!s->unmounter)
				return rc;
			continue;
		}
		/* The end before the calls: what was said before is heard there. */
		if (p[ON_NEXT].revents)
			next_gone(s);
		else if (p[ON_NEXT_CALLS].revents)
			(void)supervisor_hear(s, &s->next);
		if (p[ON_NOW].revents) {
			if (now_gone(s, err, &rc))
				return result(s, rc, err);
			ending = !s->was_ready && !s->now.pid;
		} else if (p[ON_CALLS].revents && supervisor_hear(s, &s->now) == -EPIPE) {
			/* On its way out; or it lives and doesn't want us any more: nothing it would do well. */
			close(cst_steal_fd(&s->now.calls));
			if (!s->now.over && !s->now.failed)
				kill_served(&s->now);
		}
		if (is_over(s, p))
			return result(s, 0, err);
		check_time(s);
	}
}

static int take_over_signals(struct supervisor *s)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signals < 0 ? -errno : 0;
}

static struct supervisor *supervisor_new(const struct cst_supervisor_ops *ops)
{
	struct supervisor *s = CST_NEW(struct supervisor);
	s->magic = SUPERVISOR_MAGIC;
	s->ops = *ops;
	s->launch = s->memory = s->program = s->next_program = s->signals = s->unmounter_fd = -1;
	s->now = s->next = (struct served){.pidfd = -1, .calls = -1, .events = -1};
	return s;
}

static int open_own(struct supervisor *s, struct cst_error *err)
{
	s->state = cst_state_open(s->memory, false, err);
	if (!s->state)
		return err->code ? -err->code : -EIO;
	s->header = cst_state_header(s->state);
	s->header->supervisor_pid = getpid();
	s->header->supervisor_started = cst_now();
	int rc = take_over_signals(s);
	s->program = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	if (rc == 0 && s->program < 0)
		rc = -errno;
	if (rc != 0) {
		cst_error_set(err, -rc, "can't keep the mount on %s", s->mountpoint);
		cst_error_why(err, "%s", strerror(-rc));
	}
	return rc;
}

static void supervisor_free(struct supervisor *s)
{
	supervisor_let_go(s);
	kill_served(&s->now);
	kill_served(&s->next);
	served_fini(&s->now);
	served_fini(&s->next);
	int fds[] = {s->program, s->next_program, s->signals, s->unmounter_fd};
	for (size_t i = 0; i < CST_ARRAY_LEN(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	cst_state_close(s->state);
	s->magic = 0;
	free(s);
}

int cst_supervisor_run(const struct cst_supervisor_config *config, struct cst_error *err)
{
	struct supervisor *s = supervisor_new(&config->ops);
	s->mountpoint = config->mountpoint;
	s->launch = config->launch;
	s->memory = config->memory;
	int rc = open_own(s, err);
	if (rc == 0)
		rc = start_serving(s, err);
	if (rc == 0)
		rc = loop(s, err);
	supervisor_free(s);
	return rc;
}

/* ---- taking over from a supervisor that died ---- */

static int adopt(struct supervisor *s, struct cst_error *err)
{
	struct cst_wire *m = &s->message;
	int32_t about[2] = {0, 0};
	int rc = cst_wire_receive(s->now.calls, m, 0);
	if (rc == 0 && (m->type != CST_WIRE_ADOPT || m->fd_count < 3 || m->len != sizeof(about))) {
		cst_wire_drop(m);
		rc = -EPROTO;
	}
	if (rc != 0) {
		cst_error_set(err, -rc, "can't take over as supervisor");
		cst_error_why(err, "%s", strerror(-rc));
		return rc;
	}
	memcpy(about, m->data, sizeof(about));
	s->now.pid = about[0];
	s->now.pidfd = cst_wire_take_fd(m, 0);
	s->launch = cst_wire_take_fd(m, 1);
	s->memory = cst_wire_take_fd(m, 2);
	for (unsigned i = 3; i < m->fd_count && s->device_count < CST_ARRAY_LEN(s->devices); i++)
		s->devices[s->device_count++] = cst_wire_take_fd(m, i);
	cst_wire_drop(m);
	s->now.ready = about[1] != 0;
	s->now.started = s->now.ready_at = cst_now();
	s->was_ready = true;
	return 0;
}

int cst_supervisor_adopt(const struct cst_supervisor_ops *ops, struct cst_error *err)
{
	struct supervisor *s = supervisor_new(ops);
	s->mountpoint = "";
	s->now.calls = CST_KEEPER_CALLS_FD;
	s->now.events = CST_KEEPER_EVENTS_FD;
	fcntl(s->now.calls, F_SETFD, FD_CLOEXEC);
	fcntl(s->now.events, F_SETFD, FD_CLOEXEC);
	int rc = adopt(s, err);
	if (rc == 0)
		rc = open_own(s, err);
	if (rc == 0) {
		struct cst_log_config log = {.level = (enum cst_log_level)s->header->log_level,
					     .json = s->header->log_json != 0,
					     .path = s->header->log_path[0] ? s->header->log_path : NULL};
		(void)cst_log_init(&log, NULL);
		s->mountpoint = s->header->mountpoint;
		/* An upgrade that was under way ended with who ran it. */
		if (s->header->upgrade_begun != s->header->upgrade_ended)
			supervisor_upgrade_failed(s, "the supervisor died");
		cst_log_info("process %d keeps %s from now on", (int)getpid(), s->mountpoint);
		rc = loop(s, err);
	} else {
		s->now.pid = 0; /* it goes on without us, and will try again */
	}
	supervisor_free(s);
	return rc;
}
