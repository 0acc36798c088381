/* The set-uid helper fusermount3: it makes the mount for a user who may not, and passes the descriptor back over a socket whose
 * number it finds in _FUSE_COMMFD. It checks by itself that the user may mount there. */
#include "fuse/mountpoint.h"

#include "base/buf.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define HELPER "fusermount3"
#define COMM_FD 3 /* its number in the child */

bool cst_fuse_helper_allows_other(const char *fuse_conf)
{
	FILE *f = fopen(fuse_conf, "re");
	CST_AUTO_FREE char *line = NULL;
	size_t cap = 0;
	bool allowed = false;

	if (!f)
		return false;
	while (!allowed && getline(&line, &cap, f) >= 0) {
		struct cst_slice s = cst_slice_of(line);

		while (s.len && isspace((unsigned char)s.data[s.len - 1]))
			s.len--;
		allowed = cst_slice_is(cst_slice_trim(s), "user_allow_other");
	}
	fclose(f);
	return allowed;
}

/* Commas separate options; a backslash protects one. */
static void add_escaped(struct cst_buf *b, const char *key, const char *value)
{
	cst_buf_printf(b, "%s%s=", b->len ? "," : "", key);
	for (; *value; value++) {
		if (*value == ',' || *value == '\\')
			cst_buf_add_char(b, '\\');
		cst_buf_add_char(b, *value);
	}
}

static void build_options(const struct cst_fuse_mount_request *req, struct cst_buf *b)
{
	static const struct {
		unsigned long flag;
		const char *name;
	} names[] = {
		{MS_RDONLY, "ro"},	 {MS_NOSUID, "nosuid"},	   {MS_NODEV, "nodev"},
		{MS_NOEXEC, "noexec"},	 {MS_NOATIME, "noatime"},  {MS_NODIRATIME, "nodiratime"},
		{MS_DIRSYNC, "dirsync"}, {MS_SYNCHRONOUS, "sync"},
	};

	add_escaped(b, "fsname", req->fsname);
	add_escaped(b, "subtype", req->subtype);
	cst_buf_printf(b, ",max_read=%u", req->max_read);
	for (size_t i = 0; i < CST_ARRAY_LEN(names); i++)
		if (req->flags & names[i].flag)
			cst_buf_printf(b, ",%s", names[i].name);
	if (req->allow_other)
		cst_buf_add_str(b, ",allow_other");
	if (req->default_permissions)
		cst_buf_add_str(b, ",default_permissions");
}

/* Runs the helper with `comm` (or -1) as descriptor COMM_FD; collects what it says on standard error. 0 or -errno; -ECHILD: it failed. */
static int run_helper(char *const argv[], int comm, struct cst_buf *said)
{
	CST_AUTO_CLOSE int out = -1, in = -1;
	posix_spawn_file_actions_t actions;
	int pipe_fds[2], status = 0, rc;
	static char comm_env[] = "_FUSE_COMMFD=3";
	static char path_env[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	char *env[] = {path_env, comm >= 0 ? comm_env : NULL, NULL};
	pid_t pid;
	ssize_t n;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	in = pipe_fds[0];
	out = pipe_fds[1];
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, out, 2);
	if (comm >= 0)
		posix_spawn_file_actions_adddup2(&actions, comm, COMM_FD);
	rc = posix_spawnp(&pid, argv[0], &actions, NULL, argv, env);
	posix_spawn_file_actions_destroy(&actions);
	if (rc != 0)
		return -rc;
	close(cst_steal_fd(&out));
	do {
		n = read(in, cst_buf_room(said, 256), 256);
		if (n > 0)
			said->len += (size_t)n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	cst_buf_room(said, 1)[0] = '\0';
	while (said->len && isspace((unsigned char)said->data[said->len - 1]))
		said->data[--said->len] = '\0';
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -ECHILD;
}

static int helper_failed(int rc, const char *verb, const char *path, const struct cst_buf *said, struct cst_error *err)
{
	int code = rc == -ECHILD ? EPERM : -rc;

	cst_error_set(err, code, "can't %s %s", verb, path);
	if (rc == -ENOENT) {
		cst_error_why(err, HELPER " was not found, and only root mounts without it");
		cst_error_hint(err, "install the package fuse3, or run as root");
	} else {
		cst_error_why(err, "%s", said->len ? said->data : rc == -ECHILD ? HELPER " failed" : strerror(-rc));
		if (said->len && strstr(said->data, "/dev/fuse"))
			cst_error_hint(err, "the device must exist and be open to users (mode 0666, as udev makes it)");
		else if (strcmp(verb, "unmount") != 0)
			cst_error_hint(err, "the mountpoint must be a directory that you own and may write to");
	}
	return -code;
}

/* The byte the helper sends carries the descriptor. */
static int receive_fd(int comm)
{
	char byte, control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c;
	ssize_t n;
	int fd;

	do {
		n = recvmsg(comm, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(sizeof(int)))
		return -EPROTO;
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

int cst_fuse_helper_mount(const struct cst_fuse_mount_request *req, struct cst_error *err)
{
	static char helper[] = HELPER, dash_o[] = "-o", dashes[] = "--";
	CST_AUTO_BUF options = CST_BUF_INIT, said = CST_BUF_INIT;
	CST_AUTO_FREE char *path = cst_xstrdup(req->path);
	CST_AUTO_CLOSE int ours = -1, theirs = -1;
	int pair[2], rc, fd;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return helper_failed(-errno, "mount on", path, &said, err);
	ours = pair[0];
	theirs = pair[1];
	if (theirs == COMM_FD) { /* dup2 onto itself would keep close-on-exec */
		theirs = fcntl(pair[1], F_DUPFD_CLOEXEC, COMM_FD + 1);
		close(pair[1]);
		if (theirs < 0)
			return helper_failed(-errno, "mount on", path, &said, err);
	}
	build_options(req, &options);
	{
		char *argv[] = {helper, dash_o, options.data, dashes, path, NULL};

		rc = run_helper(argv, theirs, &said);
	}
	close(cst_steal_fd(&theirs));
	if (rc < 0)
		return helper_failed(rc, "mount on", path, &said, err);
	fd = receive_fd(ours);
	return fd < 0 ? helper_failed(fd, "mount on", path, &said, err) : fd;
}

int cst_fuse_helper_unmount(const char *path, bool lazy, struct cst_error *err)
{
	static char helper[] = HELPER, dash_u[] = "-u", dash_z[] = "-z", dashes[] = "--";
	CST_AUTO_BUF said = CST_BUF_INIT;
	CST_AUTO_FREE char *copy = cst_xstrdup(path);
	char *eager[] = {helper, dash_u, dashes, copy, NULL};
	char *detach[] = {helper, dash_u, dash_z, dashes, copy, NULL};
	int rc = run_helper(lazy ? detach : eager, -1, &said);

	return rc < 0 ? helper_failed(rc, "unmount", path, &said, err) : 0;
}
