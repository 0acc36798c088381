#define CST_LOG_AREA "log"
#include "base/log.h"

#include "base/clock.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

int cst_log_level_now = CST_LOG_WARN;

static struct {
	pthread_mutex_t lock; /* path, fd against reopening */
	int fd;
	bool own_fd, json, journal;
	char *path;
} sink = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = STDERR_FILENO};

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};

int cst_log_parse_level(const char *text, enum cst_log_level *level)
{
	static const struct {
		const char *name;
		enum cst_log_level level;
	} names[] = {{"crit", CST_LOG_ERROR},  {"critical", CST_LOG_ERROR}, {"error", CST_LOG_ERROR},
		     {"err", CST_LOG_ERROR},   {"warn", CST_LOG_WARN},	    {"warning", CST_LOG_WARN},
		     {"wan", CST_LOG_WARN},    {"info", CST_LOG_INFO},	    {"inf", CST_LOG_INFO},
		     {"debug", CST_LOG_DEBUG}, {"dbg", CST_LOG_DEBUG},	    {"trace", CST_LOG_TRACE}};
	for (size_t i = 0; i < CST_ARRAY_LEN(names); i++)
		if (strcasecmp(text, names[i].name) == 0) {
			*level = names[i].level;
			return 0;
		}
	return -EINVAL;
}

/* The journal tells a service that its standard error is a journal stream by device and inode (systemd.exec(5)). */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;
	return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
	       st.st_dev == device && st.st_ino == inode;
}

static int open_path(const char *path, struct cst_error *err)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
	if (fd >= 0)
		return fd;
	int code = errno;
	cst_error_set(err, code, "can't open the log file %s", path);
	cst_error_why(err, "%s", strerror(code));
	cst_error_hint(err, "create its directory or choose another with log_dir");
	return -code;
}

int cst_log_init(const struct cst_log_config *config, struct cst_error *err)
{
	int fd = STDERR_FILENO;
	bool to_file = config->path && config->path[0];
	if (to_file) {
		fd = open_path(config->path, err);
		if (fd < 0)
			return fd;
	}
	pthread_mutex_lock(&sink.lock);
	if (sink.own_fd)
		close(sink.fd);
	free(sink.path);
	sink.fd = fd;
	sink.own_fd = to_file;
	sink.path = to_file ? cst_xstrdup(config->path) : NULL;
	sink.json = config->json;
	sink.journal = !to_file && stderr_is_journal();
	pthread_mutex_unlock(&sink.lock);
	cst_log_set_level(config->level);
	return 0;
}

void cst_log_reopen(void)
{
	struct cst_error err = CST_ERROR_INIT;
	pthread_mutex_lock(&sink.lock);
	int fd = sink.own_fd ? open_path(sink.path, &err) : -1;
	if (fd >= 0) {
		close(sink.fd);
		sink.fd = fd;
	}
	bool failed = sink.own_fd && fd < 0;
	pthread_mutex_unlock(&sink.lock);
	if (failed)
		cst_log_warn("%s: %s; going on with the old file", err.what, err.why);
}

void cst_log_set_level(enum cst_log_level level)
{
	__atomic_store_n(&cst_log_level_now, (int)level, __ATOMIC_RELAXED);
}

static void format_text(struct cst_buf *line, enum cst_log_level level, const char *area, struct cst_slice text)
{
	static const char priority[] = {'3', '4', '6', '7', '7'}; /* syslog(3) numbers */
	if (sink.journal) {
		cst_buf_printf(line, "<%c>%s: ", priority[level], area);
	} else {
		int64_t now = cst_wall();
		char stamp[CST_TIME_TEXT];
		cst_time_iso(now / CST_NS_PER_S, stamp);
		cst_buf_printf(line, "%.19s.%03dZ %s %s: ", stamp, (int)(now % CST_NS_PER_S / CST_NS_PER_MS),
			       level_names[level], area);
	}
	cst_text_printable(line, text);
	cst_buf_add_char(line, '\n');
}

static void format_json(struct cst_buf *line, enum cst_log_level level, const char *area, struct cst_slice text)
{
	int64_t now = cst_wall();
	char stamp[CST_TIME_TEXT];
	cst_time_iso(now / CST_NS_PER_S, stamp);
	cst_buf_printf(line,
		       "{\"time\":\"%.19s.%03dZ\",\"level\":\"%s\",\"area\":\"%s\",\"thread\":%ld,\"message\":", stamp,
		       (int)(now % CST_NS_PER_S / CST_NS_PER_MS), level_names[level], area, syscall(SYS_gettid));
	cst_text_json_string(line, text);
	cst_buf_add_str(line, "}\n");
}

void cst_log_write(enum cst_log_level level, const char *area, const char *fmt, ...)
{
	int saved = errno;
	struct cst_buf text = CST_BUF_INIT, line = CST_BUF_INIT;
	va_list ap;
	va_start(ap, fmt);
	cst_buf_vprintf(&text, fmt, ap);
	va_end(ap);

	pthread_mutex_lock(&sink.lock);
	if (sink.json)
		format_json(&line, level, area, cst_buf_slice(&text));
	else
		format_text(&line, level, area, cst_buf_slice(&text));
	/* A full disk or a closed pipe must not stop the mount; there is nobody left to tell. */
	ssize_t ignored = write(sink.fd, line.data, line.len);
	(void)ignored;
	pthread_mutex_unlock(&sink.lock);
	cst_buf_fini(&text);
	cst_buf_fini(&line);
	errno = saved;
}

bool cst_log_allowed(struct cst_log_limit *limit, int64_t interval_ns, uint64_t *suppressed)
{
	int64_t now = cst_now();
	int64_t next = __atomic_load_n(&limit->next, __ATOMIC_RELAXED);
	if (now < next || !__atomic_compare_exchange_n(&limit->next, &next, now + interval_ns, false, __ATOMIC_RELAXED,
						       __ATOMIC_RELAXED)) {
		__atomic_fetch_add(&limit->suppressed, 1, __ATOMIC_RELAXED);
		return false;
	}
	uint64_t left_out = __atomic_exchange_n(&limit->suppressed, 0, __ATOMIC_RELAXED);
	if (suppressed)
		*suppressed = left_out;
	return true;
}
