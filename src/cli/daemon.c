#include "cli/daemon.h"

#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t child_pid;

/* Ctrl-C while the parent waits means the child too, which has a session of its own. */
static void forward(int number)
{
	if (child_pid > 0)
		kill((pid_t)child_pid, SIGTERM);
	_exit(128 + number);
}

static _Noreturn void child_died(pid_t pid)
{
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		fprintf(stderr, "cistern: the mount process died at start: %s; its log may tell more\n",
			strsignal(WTERMSIG(status)));
	else
		fprintf(stderr, "cistern: the mount process ended at start with status %d; its log may tell more\n",
			WEXITSTATUS(status));
	exit(WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : 1);
}

/* The message is one byte of exit status and a line; with status 0 the line is empty. */
static _Noreturn void wait_for_child(int fd, pid_t pid, const char *ready_text)
{
	CST_AUTO_BUF message = CST_BUF_INIT;
	for (;;) {
		ssize_t n = read(fd, cst_buf_room(&message, 2048), 2048);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		message.len += (size_t)n;
	}
	if (message.len == 0)
		child_died(pid);
	int status = (unsigned char)message.data[0];
	if (status != 0)
		fprintf(stderr, "cistern: %.*s\n", (int)message.len - 1, message.data + 1);
	else if (ready_text)
		printf("%s (process %ld)\n", ready_text, (long)pid);
	fflush(NULL);
	cst_buf_fini(&message);
	exit(status);
}

int cst_daemon_fork(struct cst_daemon *daemon, const char *ready_text, struct cst_error *err)
{
	int ends[2];
	fflush(NULL);
	pid_t pid = -1;
	if (pipe2(ends, O_CLOEXEC) == 0)
		pid = fork();
	if (pid < 0) {
		int code = errno;
		cst_error_set(err, code, "can't start a process for the background");
		cst_error_why(err, "%s", strerror(code));
		cst_error_hint(err, "-f stays in the foreground");
		return -code;
	}
	if (pid > 0) {
		struct sigaction action = {.sa_handler = forward};
		child_pid = pid;
		sigaction(SIGINT, &action, NULL);
		sigaction(SIGTERM, &action, NULL);
		close(ends[1]);
		wait_for_child(ends[0], pid, ready_text);
	}
	close(ends[0]);
	setsid();
	if (chdir("/") != 0)
		return -errno;
	daemon->fd = ends[1];
	return 0;
}

static void tell(struct cst_daemon *daemon, const char *line, int status)
{
	if (daemon->fd < 0)
		return;
	struct cst_buf message = CST_BUF_INIT;
	cst_buf_add_char(&message, (char)status);
	cst_buf_add_str(&message, line);
	/* A pipe takes this much in one piece; a parent that was killed does not matter any more. */
	while (write(daemon->fd, message.data, message.len) < 0 && errno == EINTR)
		;
	cst_buf_fini(&message);
	close(daemon->fd);
	daemon->fd = -1;
}

void cst_daemon_detach(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = STDIN_FILENO; null >= 0 && fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	if (null > STDERR_FILENO)
		close(null);
}

void cst_daemon_ready(struct cst_daemon *daemon)
{
	if (daemon->fd < 0)
		return;
	cst_daemon_detach();
	tell(daemon, "", 0);
}

void cst_daemon_failed(struct cst_daemon *daemon, const char *line, int status)
{
	tell(daemon, line, status);
}
