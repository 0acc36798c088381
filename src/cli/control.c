#define CST_LOG_AREA "control"
#include "cli/control.h"

#include "base/clock.h"
#include "base/digest.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/text.h"
#include "fuse/mountpoint.h"
#include "net/http_server.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#define WAIT_S 10
#define ANSWER_MAX (16 << 20)
#define REQUEST_MAX (64 << 20) /* names to load */
#define STOP_GRACE (1 * CST_NS_PER_S)

struct cst_control {
	struct cst_http_server *server;
	struct cst_control_config config;
	char *path;
	dev_t device; /* of the socket: a mount that began before this one ended has another at the same path */
	ino_t inode;
};

char *cst_control_canonical(const char *mountpoint)
{
	char *path = cst_fuse_mountpoint_resolve(mountpoint);
	return path ? path : cst_xstrdup(mountpoint);
}

static char *runtime_dir(void)
{
	if (geteuid() == 0)
		return cst_xstrdup("/run/cistern");
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	if (xdg && xdg[0] == '/')
		return cst_xasprintf("%s/cistern", xdg);
	return cst_xasprintf("/tmp/cistern-%u", (unsigned)geteuid());
}

static char *socket_path(const char *mountpoint)
{
	uint8_t digest[CST_SHA256_LEN];
	CST_AUTO_FREE char *canonical = cst_control_canonical(mountpoint);
	CST_AUTO_FREE char *dir = runtime_dir();
	CST_AUTO_BUF hex = CST_BUF_INIT;
	cst_sha256(canonical, strlen(canonical), digest);
	cst_text_hex(&hex, digest, 12);
	return cst_xasprintf("%s/%s.sock", dir, hex.data);
}

static void answer_metrics(struct cst_control *control, struct cst_http_exchange *x)
{
	CST_AUTO_BUF body = CST_BUF_INIT;
	if (control->config.metrics)
		control->config.metrics(control->config.arg);
	cst_metrics_write(&body);
	cst_http_response_header(x, "Content-Type", "text/plain; version=0.0.4");
	cst_http_response_send(x, 200, body.data, body.len);
}

static void answer_json(struct cst_control *control, struct cst_http_exchange *x, const struct cst_http_head *head)
{
	CST_AUTO_BUF body = CST_BUF_INIT;
	CST_AUTO_BUF json = CST_BUF_INIT;
	int status = 200;
	if (cst_slice_is(head->target, "/stats"))
		control->config.stats(control->config.arg, &json);
	else if (cst_http_request_read_all(x, &body, REQUEST_MAX) != 0)
		status = 413;
	else if (control->config.request)
		status = control->config.request(control->config.arg, head->method, head->target, cst_buf_slice(&body),
						 &json);
	else
		status = 404;
	cst_http_response_header(x, "Content-Type", "application/json");
	cst_http_response_send(x, status, json.data, json.len);
}

static void answer(struct cst_http_exchange *x, void *arg)
{
	struct cst_control *control = arg;
	const struct cst_http_head *head = cst_http_request_head(x);
	sa_family_t family = cst_http_request_peer(x)->ss_family;
	bool get = cst_slice_is(head->method, "GET");
	if (get && cst_slice_is(head->target, "/metrics"))
		answer_metrics(control, x);
	else if (family == AF_INET || family == AF_INET6)
		cst_http_response_send(x, 404, "no such page\n", 13);
	else if (get || cst_slice_is(head->method, "POST"))
		answer_json(control, x, head);
	else
		cst_http_response_send(x, 405, "only GET and POST\n", 18);
}

/* The directory must be ours: in /tmp somebody else could have made it. */
static int prepare_dir(const char *dir, struct cst_error *err)
{
	struct stat st;
	mode_t mode = geteuid() == 0 ? 0755 : 0700;
	if (mkdir(dir, mode) != 0 && errno != EEXIST) {
		int code = errno;
		cst_error_set(err, code, "can't make the directory %s", dir);
		cst_error_why(err, "%s", strerror(code));
		return -code;
	}
	if (lstat(dir, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 0022))
		return 0;
	cst_error_set(err, EPERM, "can't use the directory %s", dir);
	cst_error_why(err, "it belongs to another user, or others may write to it");
	return -EPERM;
}

static int listen_on(struct cst_control *control, const char *dir, struct cst_error *err)
{
	CST_AUTO_FREE char *address = cst_xasprintf("unix:%s", control->path);
	int rc = prepare_dir(dir, err);
	if (rc != 0)
		return rc;
	unlink(control->path);
	rc = cst_http_server_listen(control->server, address, NULL, err);
	if (rc == 0 && chmod(control->path, 0600) != 0)
		cst_log_warn("can't restrict %s: %s", control->path, strerror(errno));
	struct stat st;
	if (rc == 0 && lstat(control->path, &st) == 0) {
		control->device = st.st_dev;
		control->inode = st.st_ino;
	}
	if (rc == 0 && control->config.metrics_address)
		rc = cst_http_server_listen(control->server, control->config.metrics_address, NULL, err);
	return rc ? rc : cst_http_server_start(control->server, err);
}

struct cst_control *cst_control_start(const struct cst_control_config *config, struct cst_error *err)
{
	CST_AUTO_FREE char *dir = runtime_dir();
	struct cst_control *control = CST_NEW(struct cst_control);
	control->config = *config;
	control->path = socket_path(config->mountpoint);
	struct cst_http_server_config server = {
		.handler = answer, .arg = control, .name = "control", .max_connections = 64, .max_workers = 4};
	control->server = cst_http_server_new(&server, err);
	if (control->server && listen_on(control, dir, err) == 0)
		return control;
	cst_control_stop(control);
	return NULL;
}

void cst_control_stop(struct cst_control *control)
{
	if (!control)
		return;
	if (control->server) {
		struct stat st;
		if (lstat(control->path, &st) == 0 && st.st_dev == control->device && st.st_ino == control->inode)
			unlink(control->path);
		cst_http_server_stop(control->server, STOP_GRACE);
	}
	free(control->path);
	free(control);
}

/* ---- the other side ---- */

static int connect_to(const char *mountpoint, int *out)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	CST_AUTO_FREE char *path = socket_path(mountpoint);
	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path) + 1);
	CST_AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval wait = {.tv_sec = WAIT_S};
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) != 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) != 0 ||
	    connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
		return -errno;
	*out = cst_steal_fd(&fd);
	return 0;
}

bool cst_control_alive(const char *mountpoint)
{
	CST_AUTO_CLOSE int fd = -1;
	return connect_to(mountpoint, &fd) == 0;
}

char *cst_control_find(const char *path)
{
	CST_AUTO_FREE char *at = cst_xstrdup(path);
	while (at[0] == '/') {
		if (cst_control_alive(at[1] ? at : "/"))
			return cst_xstrdup(at);
		char *slash = strrchr(at, '/');
		if (slash == at)
			break;
		*slash = '\0';
	}
	return NULL;
}

static int read_all(int fd, struct cst_buf *out)
{
	for (;;) {
		ssize_t n = recv(fd, cst_buf_room(out, 65536), 65536, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		out->len += (size_t)n;
		if (out->len > ANSWER_MAX)
			return -EMSGSIZE;
	}
}

static int send_all(int fd, const void *data, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = send(fd, (const char *)data + done, len - done, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

/* The status, or -errno. */
static int exchange(int fd, const char *method, const char *target, struct cst_slice body, struct cst_buf *answer_body)
{
	CST_AUTO_BUF text = CST_BUF_INIT;
	cst_buf_printf(&text, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n",
		       method, target, body.len);
	int rc = send_all(fd, text.data, text.len);
	if (rc == 0)
		rc = send_all(fd, body.data, body.len);
	cst_buf_clear(&text);
	/* An answer may be there before all of the body was taken. */
	if (rc == 0 || rc == -EPIPE)
		rc = read_all(fd, &text);
	if (rc != 0)
		return rc;
	CST_AUTO_FREE struct cst_http_head *head = CST_NEW(struct cst_http_head);
	const char *why;
	ssize_t len = cst_http_parse_response(cst_buf_slice(&text), head, &why);
	if (len <= 0)
		return -EBADMSG;
	cst_buf_add(answer_body, text.data + len, text.len - (size_t)len);
	return head->status;
}

static int unreachable(const char *mountpoint, int rc, struct cst_error *err)
{
	if (rc == -ECONNREFUSED)
		rc = -ENOENT;
	cst_error_set(err, -rc, "can't ask the mount on %s", mountpoint);
	if (rc == -ENOENT) {
		cst_error_why(err, "no cistern of this user serves that mountpoint");
		cst_error_hint(err, "findmnt -t fuse.cistern lists the mounts; ask as the user who mounted");
	} else {
		cst_error_why(err, "%s", rc == -EAGAIN ? "it didn't answer within 10 seconds" : strerror(-rc));
		cst_error_hint(err, "%s", rc == -EACCES ? "ask as the user who mounted" : "");
	}
	return rc;
}

static int refused(const char *mountpoint, int status, const struct cst_buf *answer_body, struct cst_error *err)
{
	int code = status == 404 ? ENOENT : status >= 500 ? EIO : EINVAL;
	json_t *root = json_loadb(answer_body->data ? answer_body->data : "", answer_body->len, 0, NULL);
	const char *what = NULL, *why = "", *hint = "";
	if (root)
		json_unpack(root, "{s:{s:s, s:s, s:s}}", "error", "what", &what, "why", &why, "hint", &hint);
	cst_error_set(err, code, "%s", what ? what : "the mount refused the request");
	if (what)
		cst_error_why(err, "%s", why);
	else
		cst_error_why(err, "the mount on %s answered %d", mountpoint, status);
	cst_error_hint(err, "%s", hint);
	json_decref(root);
	return -code;
}

int cst_control_call(const char *mountpoint, const char *method, const char *target, struct cst_slice body,
		     struct cst_buf *answer_body, struct cst_error *err)
{
	CST_AUTO_CLOSE int fd = -1;
	int rc = connect_to(mountpoint, &fd);
	if (rc == 0)
		rc = exchange(fd, method, target, body, answer_body);
	if (rc < 0)
		return unreachable(mountpoint, rc, err);
	return rc == 200 ? 0 : refused(mountpoint, rc, answer_body, err);
}

int cst_control_get(const char *mountpoint, const char *path, struct cst_buf *body, struct cst_error *err)
{
	return cst_control_call(mountpoint, "GET", path, (struct cst_slice){NULL, 0}, body, err);
}
