/* An external command that prints a credential as JSON. It runs under /bin/sh with the environment this process has, no
 * descriptors beyond standard input (/dev/null), output (ours) and error, in a process group of its own so that it can be
 * ended with all its children. */
#include "object/credentials_internal.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

struct process_provider {
	struct cst_cred_provider base;
	char *command;
	struct cst_secret_buf answer;
};

static int failed(struct cst_error *err, int code, const char *hint)
{
	cst_error_set(err, code, "can't get credentials from the credential process");
	cst_error_hint(err, "%s", hint);
	return -code;
}

static int spawn(const char *command, int output, pid_t *pid)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, all;
	char sh[] = "sh", dash_c[] = "-c";
	char *text = cst_xstrdup(command);
	char *argv[] = {sh, dash_c, text, NULL};
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&files, output, 1);
	posix_spawn_file_actions_addclosefrom_np(&files, 3);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setpgroup(&attr, 0);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	int rc = posix_spawn(pid, "/bin/sh", &files, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&files);
	free(text);
	return -rc;
}

/* Until the end of the output, or until it takes too long. */
static int read_output(const struct cst_cred_call *call, int fd, struct cst_secret_buf *out)
{
	while (!cst_cred_stopped(call)) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (poll(&p, 1, 50) <= 0)
			continue;
		if (out->len == out->cap)
			return -EFBIG;
		ssize_t n = read(fd, out->data + out->len, out->cap - out->len);
		if (n == 0)
			return 0;
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		out->len += n > 0 ? (size_t)n : 0;
		out->data[out->len] = '\0';
	}
	return -ETIMEDOUT;
}

/* Closing its output doesn't end a process: it gets until the deadline too. *status is 0 when someone else has reaped it (a
 * program that ignores SIGCHLD). */
static int wait_end(const struct cst_cred_call *call, pid_t pid, int *status)
{
	*status = 0;
	for (;;) {
		pid_t got = waitpid(pid, status, WNOHANG);
		if (got == pid || (got < 0 && errno == ECHILD))
			return 0;
		if (!cst_cred_pause(call, 5 * CST_NS_PER_MS))
			return -ETIMEDOUT;
	}
}

static void end_process(pid_t pid)
{
	int status;
	kill(-pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
}

static int run(struct process_provider *p, const struct cst_cred_call *call, struct cst_error *err)
{
	int fds[2], status = 0;
	pid_t pid;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return cst_error_set(err, errno, "can't make a pipe for the credential process");
	CST_AUTO_CLOSE int output = fds[0];
	int rc = spawn(p->command, fds[1], &pid);
	close(fds[1]);
	if (rc < 0) {
		failed(err, -rc, "");
		cst_error_why(err, "/bin/sh: %s", strerror(-rc));
		return rc;
	}
	rc = read_output(call, output, &p->answer);
	if (rc == 0)
		rc = wait_end(call, pid, &status);
	if (rc < 0) {
		end_process(pid);
		failed(err, -rc, "run the command by hand: it must print one JSON object and end within 10 s");
		cst_error_why(err, "%s",
			      rc == -ETIMEDOUT ? "it didn't end in time"
			      : rc == -EFBIG   ? "it prints too much"
					       : strerror(-rc));
		return rc;
	}
	if (status == 0)
		return 0;
	failed(err, EIO, "run the command by hand; what it wrote to standard error is in the log");
	if (WIFSIGNALED(status))
		cst_error_why(err, "it was ended by signal %d", WTERMSIG(status));
	else
		cst_error_why(err, "it ended with status %d%s", WEXITSTATUS(status),
			      WEXITSTATUS(status) == 127 ? " (command not found)" : "");
	return -EIO;
}

static int process_fetch(struct cst_cred_provider *base, const struct cst_cred_call *call, struct cst_credential *out,
			 struct cst_error *err)
{
	struct process_provider *p = cst_container_of(base, struct process_provider, base);
	cst_secret_buf_clear(&p->answer);
	int rc = run(p, call, err);
	if (rc == 0)
		rc = cst_cred_parse_answer("the credential process", cst_secret_slice(&p->answer), out, err);
	cst_secret_buf_clear(&p->answer);
	return rc;
}

static void process_free(struct cst_cred_provider *base)
{
	struct process_provider *p = cst_container_of(base, struct process_provider, base);
	cst_secret_buf_fini(&p->answer);
	free(p->command);
	free(p);
}

static const struct cst_cred_provider_ops process_ops = {process_fetch, process_free};

int cst_cred_process_new(const char *command, struct cst_cred_provider **out, struct cst_error *err)
{
	(void)err;
	struct process_provider *p = CST_NEW(struct process_provider);
	p->base.ops = &process_ops;
	p->base.costly = true;
	p->command = cst_xstrdup(command);
	cst_secret_buf_init(&p->answer, CST_SECRET_SOURCE_MAX);
	/* Without its arguments, which might hold a secret. */
	snprintf(p->base.source, sizeof(p->base.source), "credential process %.*s", (int)strcspn(command, " \t\n"),
		 command);
	*out = &p->base;
	return 0;
}
