/* Starting and ending processes. */
#include "supervisor/private.h"

#define CST_LOG_AREA "supervisor"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int open_pidfd(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

static _Noreturn void run_program(const struct supervisor *s, int program, int calls, int events)
{
	char argv0[] = CST_KEEPER_ARGV0, argv1[] = CST_KEEPER_SERVES;
	CST_AUTO_FREE char *where = cst_xstrdup(s->mountpoint);
	char *argv[] = {argv0, argv1, where, NULL};
	sigset_t none;
	/* Out of the way of the numbers that they get. */
	int a = fcntl(calls, F_DUPFD_CLOEXEC, 10), b = fcntl(events, F_DUPFD_CLOEXEC, 10);
	int p = fcntl(program, F_DUPFD_CLOEXEC, 10);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (a >= 0 && b >= 0 && p >= 0 && dup2(a, CST_KEEPER_CALLS_FD) >= 0 && dup2(b, CST_KEEPER_EVENTS_FD) >= 0)
		syscall(SYS_execveat, p, "", argv, environ, AT_EMPTY_PATH);
	_exit(127);
}

static int send_welcome(const struct supervisor *s, const struct served *p)
{
	int fds[CST_KEEPER_CLONES + 3];
	unsigned count = 0;
	fds[count++] = s->launch;
	fds[count++] = s->memory;
	for (unsigned i = 0; !p->stands_by && i < s->device_count; i++)
		fds[count++] = s->devices[i];
	return cst_wire_send(p->events, CST_WIRE_WELCOME, 0, p->stands_by, NULL, 0, fds, count);
}

int supervisor_spawn(struct supervisor *s, int program, bool stands_by, struct served *p, struct cst_error *err)
{
	int calls[2] = {-1, -1}, events[2] = {-1, -1};
	*p = (struct served){.pidfd = -1, .calls = -1, .events = -1, .stands_by = stands_by, .started = cst_now()};
	int rc = cst_wire_pair(calls);
	if (rc == 0)
		rc = cst_wire_pair(events);
	p->calls = calls[0];
	p->events = events[0];
	if (rc == 0) /* it lies in the socket before the process runs */
		rc = send_welcome(s, p);
	p->pid = rc == 0 ? fork() : -1;
	if (p->pid == 0)
		run_program(s, program, calls[1], events[1]);
	if (rc == 0 && p->pid < 0)
		rc = -errno;
	if (calls[1] >= 0)
		close(calls[1]);
	if (events[1] >= 0)
		close(events[1]);
	if (rc == 0) {
		p->pidfd = open_pidfd(p->pid);
		rc = p->pidfd < 0 ? -errno : 0;
	}
	if (rc == 0)
		return 0;
	if (p->pid > 0) {
		kill(p->pid, SIGKILL);
		waitpid(p->pid, NULL, 0);
	}
	served_fini(p);
	cst_error_set(err, -rc, "can't start the process of the file system");
	cst_error_why(err, "%s", strerror(-rc));
	return rc;
}

void served_fini(struct served *p)
{
	int fds[] = {p->pidfd, p->calls, p->events};
	for (size_t i = 0; i < CST_ARRAY_LEN(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	*p = (struct served){.pidfd = -1, .calls = -1, .events = -1};
}

int served_reap(struct served *p, char *text, size_t size)
{
	siginfo_t info = {0};
	int rc = waitid(P_PIDFD, (id_t)p->pidfd, &info, WEXITED);
	if (rc != 0) { /* not our child: its parent, a supervisor before us, has died */
		snprintf(text, size, "it ended");
		return -1;
	}
	if (info.si_code == CLD_EXITED) {
		snprintf(text, size, "exit status %d", info.si_status);
		return info.si_status;
	}
	snprintf(text, size, "signal %d (%s)", info.si_status, strsignal(info.si_status));
	return 128 + info.si_status;
}

int supervisor_open_program(const char *path, struct cst_error *err)
{
	struct stat st;
	CST_AUTO_CLOSE int fd = open(path, O_PATH | O_CLOEXEC);
	int rc = fd < 0 || fstat(fd, &st) != 0 ? -errno : 0;
	if (rc == 0 && (!S_ISREG(st.st_mode) || faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) != 0))
		rc = -EACCES;
	if (rc == 0)
		return cst_steal_fd(&fd);
	cst_error_set(err, -rc, "can't run %s", path);
	cst_error_why(err, "%s", strerror(-rc));
	return rc;
}

pid_t supervisor_fork_unmount(struct supervisor *s, int *pidfd)
{
	pid_t pid = fork();
	if (pid == 0) {
		/* It must hold nothing that keeps the connection. */
		supervisor_let_go(s);
		_exit(s->ops.unmount(s->ops.arg, s->header) == 0 ? 0 : 1);
	}
	*pidfd = pid > 0 ? open_pidfd(pid) : -1;
	return pid;
}

void supervisor_abort(const struct supervisor *s)
{
	char path[64];
	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/abort", s->header->minor);
	CST_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, "1", 1) == 1)
		return;
	/* Where that file system isn't mounted: forced, an unmount ends the connection before it detaches anything. It may wait. */
	pid_t pid = fork();
	if (pid == 0)
		_exit(umount2(s->header->mountpoint, MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW) != 0);
}
