/* Calls that change the bucket: what they share. See writing.h. */
#define CST_LOG_AREA "fs"
#include "fs/writing.h"

#include "base/text.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>

#define LOG_INTERVAL (10 * CST_NS_PER_S)
#define KEY_MAX 1023 /* bytes: what all stores take */

/* A signal that can't be handled is pending as SIGKILL, whatever it was. */
bool fs_is_dying(uint32_t pid)
{
	char path[40], text[4096];
	snprintf(path, sizeof(path), "/proc/%u/status", pid);
	CST_AUTO_CLOSE int fd = pid ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	ssize_t len = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (len <= 0)
		return false;
	text[len] = 0;
	static const char *const names[] = {"\nSigPnd:", "\nShdPnd:"};
	for (size_t i = 0; i < CST_ARRAY_LEN(names); i++) {
		const char *at = strstr(text, names[i]);
		if (at && strtoull(at + strlen(names[i]), NULL, 16) >> (SIGKILL - 1) & 1)
			return true;
	}
	return false;
}

/* ---- timers ---- */

static struct fs_timer *next_timer(struct cst_fs *fs)
{
	struct fs_timer *t, *first = NULL;
	TAILQ_FOREACH (t, &fs->timers, link) {
		if (!first || t->at < first->at)
			first = t;
	}
	return first;
}

static void run_timers(void *arg)
{
	struct cst_fs *fs = arg;
	struct fs_timer *t;
	pthread_mutex_lock(&fs->timer_lock);
	while ((t = next_timer(fs)) != NULL) {
		if (cst_now() < t->at && !__atomic_load_n(&fs->ending, __ATOMIC_ACQUIRE)) {
			struct timespec until = {t->at / CST_NS_PER_S, t->at % CST_NS_PER_S};
			pthread_cond_timedwait(&fs->timer_wake, &fs->timer_lock, &until);
			continue;
		}
		TAILQ_REMOVE(&fs->timers, t, link);
		pthread_mutex_unlock(&fs->timer_lock);
		t->fn(t);
		pthread_mutex_lock(&fs->timer_lock);
	}
	fs->timing = false;
	pthread_mutex_unlock(&fs->timer_lock);
	fs_live_end(fs);
}

void fs_timer_start(struct cst_fs *fs, struct fs_timer *timer, int64_t ns)
{
	pthread_mutex_lock(&fs->timer_lock);
	timer->at = cst_now() + ns;
	TAILQ_INSERT_TAIL(&fs->timers, timer, link);
	bool start = !fs->timing;
	fs->timing = true;
	pthread_cond_broadcast(&fs->timer_wake);
	pthread_mutex_unlock(&fs->timer_lock);
	if (!start)
		return;
	fs_live_begin(fs);
	cst_pool_submit(fs->pool, run_timers, fs);
}

/* ---- changes ---- */

static struct cst_fs_call *take_call(struct fs_change *c)
{
	pthread_mutex_lock(&c->lock);
	bool mine = !c->answered;
	c->answered = true;
	pthread_mutex_unlock(&c->lock);
	return mine ? fs_wait_end(&c->w) : NULL;
}

/* Nobody waits any more: then the change goes on without anybody to tell. */
static bool change_leave(struct fs_wait *w)
{
	struct fs_change *c = cst_container_of(w, struct fs_change, w);
	if (!fs_is_dying(c->pid))
		return false;
	struct cst_fs_call *call = take_call(c);
	if (call)
		w->fs->host->error(call, -EINTR);
	return false;
}

static void change_free(struct fs_wait *w)
{
	struct fs_change *c = cst_container_of(w, struct fs_change, w);
	cst_inode_unref(w->fs->table, c->parent);
	cst_dir_unref(c->dir);
	pthread_mutex_destroy(&c->lock);
	c->free(c);
}

void fs_change_begin(struct fs_change *c, struct cst_fs *fs, struct cst_fs_call *call, struct cst_inode *parent,
		     const char *name, struct cst_inode *other, void (*free_fn)(struct fs_change *c))
{
	pthread_mutex_init(&c->lock, NULL);
	if (call->pid) /* a close comes without */
		c->pid = call->pid;
	c->free = free_fn;
	if (parent) {
		c->parent = cst_inode_ref(fs->table, parent);
		c->dir = cst_dir_ref(fs_dir_of(fs, parent));
		snprintf(c->name, sizeof(c->name), "%s", name);
		c->other = other;
		c->listed = true;
		pthread_mutex_lock(&fs->writers_lock);
		TAILQ_INSERT_TAIL(&fs->changes, c, link);
		pthread_mutex_unlock(&fs->writers_lock);
	}
	fs_wait_arm(&c->w, fs, call, change_leave, change_free);
}

void fs_change_started(struct fs_change *c)
{
	fs_wait_started(&c->w);
}

struct cst_fs_call *fs_change_answer(struct fs_change *c)
{
	struct cst_fs *fs = c->w.fs;
	/* It has happened: who hears the answer may rename the directory. */
	if (c->listed) {
		pthread_mutex_lock(&fs->writers_lock);
		TAILQ_REMOVE(&fs->changes, c, link);
		pthread_mutex_unlock(&fs->writers_lock);
		c->listed = false;
	}
	return take_call(c);
}

void fs_change_end(struct fs_change *c)
{
	fs_wait_unref(&c->w);
}

void fs_change_fail(struct fs_change *c, int rc)
{
	struct cst_fs *fs = c->w.fs;
	struct cst_fs_call *call = fs_change_answer(c);
	if (call)
		fs->host->error(call, rc);
	fs_change_end(c);
}

static void name_found(struct cst_dir_wait *wait, int rc, const struct cst_entry *entry, struct cst_dir *below,
		       const struct cst_error *err)
{
	struct fs_change *c = cst_container_of(wait, struct fs_change, wait);
	(void)below;
	if (rc < 0 && rc != -ENOENT)
		rc = fs_errno(c->w.fs, rc, "can't look up", cst_slice_of(c->name), err);
	c->found(c, rc, entry);
}

static bool was_missed(struct cst_fs *fs, struct cst_inode *parent, const char *name, int64_t *at)
{
	CST_AUTO_BUF prefix = CST_BUF_INIT;
	fs_dir_prefix(fs, parent, &prefix);
	return cst_absent_find(fs->missed, cst_buf_slice(&prefix), name, fs->config.clock(), at);
}

void fs_missed(struct cst_fs *fs, struct cst_inode *parent, const char *name, int64_t at)
{
	CST_AUTO_BUF prefix = CST_BUF_INIT;
	if (!fs->missed)
		return;
	fs_dir_prefix(fs, parent, &prefix);
	cst_absent_add(fs->missed, cst_buf_slice(&prefix), name, at);
}

void fs_change_find(struct fs_change *c, void (*found)(struct fs_change *c, int rc, const struct cst_entry *entry))
{
	struct cst_fs *fs = c->w.fs;
	CST_AUTO_ENTRY entry = CST_ENTRY_INIT;
	c->found = found;
	if (fs_is_moving(fs, c->parent) || (c->other && fs_is_moving(fs, c->other))) {
		found(c, -EBUSY, NULL);
		return;
	}
	int rc = fs_known_of(fs, c->parent, c->dir, c->name, &entry);
	if (rc == -EAGAIN && entry.kind == CST_KIND_NONE && was_missed(fs, c->parent, c->name, &entry.at))
		rc = -ENOENT;
	if (rc != -EAGAIN) {
		found(c, rc, &entry);
		return;
	}
	c->wait.done = name_found;
	cst_dir_probe(c->dir, c->name, CST_DIR_ASK_NAME, NULL, &c->wait);
}

void fs_key_of(struct cst_fs *fs, struct cst_inode *parent, const char *name, struct cst_buf *key)
{
	fs_dir_prefix(fs, parent, key);
	cst_buf_add_str(key, name);
}

int fs_parent_of(struct cst_fs *fs, uint64_t node, const char *name, struct cst_inode **parent)
{
	int rc = 0;
	CST_AUTO_BUF key = CST_BUF_INIT;
	struct cst_inode *dir = cst_inode_get(fs->table, node);
	if (dir && cst_inode_is_dir(dir))
		fs_key_of(fs, dir, name, &key);
	if (!dir)
		rc = -ESTALE;
	else if (!cst_inode_is_dir(dir))
		rc = -ENOTDIR;
	else if (strlen(name) > CST_NAME_MAX || key.len + 1 > KEY_MAX)
		rc = -ENAMETOOLONG;
	else if (!cst_name_is_valid(cst_slice_of(name)))
		rc = -EINVAL;
	else if (fs_is_moving(fs, dir))
		rc = -EBUSY;
	if (rc < 0)
		cst_inode_unref(fs->table, dir);
	else
		*parent = dir;
	return rc;
}

bool fs_may_write(struct cst_fs *fs, struct cst_fs_call *call, const char *what)
{
	CST_CHECK(fs, FS_MAGIC);
	if (fs->config.write != CST_FS_WRITE_NONE)
		return true;
	cst_fs_refuse_write(fs, call, what);
	return false;
}

int fs_write_errno(struct cst_fs *fs, int rc, const char *what, struct cst_slice key, const struct cst_error *err)
{
	switch (rc) {
	case -EEXIST:
	case -ENOTEMPTY:
	case -ENOTDIR:
	case -EISDIR:
		return rc;
	case -ECANCELED:
		return -EINTR;
	default:
		break;
	}
	int shown = fs_errno(fs, rc, what, key, err);
	switch (rc) {
	case -EDQUOT:
	case -EFBIG:
	case -ENOSPC:
	case -EROFS:
	case -EPERM:
	case -EBUSY:
	case -EXDEV:
		return rc;
	default:
		return shown;
	}
}

void fs_write_refused(struct cst_fs *fs, struct cst_inode *inode, const char *fmt, ...)
{
	uint64_t suppressed = 0;
	unsigned kind = 0;
	for (const char *c = fmt; *c; c++)
		kind = kind * 31 + (unsigned char)*c;
	if (!cst_log_allowed(&fs->failure_limits[kind % FAILURE_KINDS], LOG_INTERVAL, &suppressed))
		return;
	CST_AUTO_BUF key = CST_BUF_INIT;
	CST_AUTO_BUF why = CST_BUF_INIT;
	va_list ap;
	if (inode) {
		CST_AUTO_BUF raw = CST_BUF_INIT;
		fs_key(fs, inode, &raw);
		cst_text_printable(&key, cst_buf_slice(&raw));
	}
	va_start(ap, fmt);
	cst_buf_vprintf(&why, fmt, ap);
	va_end(ap);
	cst_log_warn("\"%.*s\": %.*s (%" PRIu64 " such refusals not logged before)", (int)key.len, key.data,
		     (int)why.len, why.data, suppressed);
}

void fs_removed(struct cst_fs *fs, struct cst_inode *parent, const char *name, int64_t at)
{
	cst_dir_put_gone(fs_dir_of(fs, parent), name, at);
	fs_gone(fs, parent, name, at);
	fs_missed(fs, parent, name, at);
}
