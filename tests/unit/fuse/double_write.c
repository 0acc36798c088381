#include "double_write.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Writes that wait; under lock. */
static struct pending {
	struct cst_fs_call *call;
	uint64_t offset;
	struct cst_slice data;
} pending[256];
static unsigned pending_count;

void double_log(const struct cst_fs *fs, const char *fmt, ...)
{
	struct double_board *b = double_board_of(fs);
	va_list ap;

	pthread_mutex_lock(&lock);
	va_start(ap, fmt);
	b->log_len += (uint32_t)vsnprintf(b->log + b->log_len, sizeof(b->log) - b->log_len, fmt, ap);
	va_end(ap);
	b->log_len += (uint32_t)snprintf(b->log + b->log_len, sizeof(b->log) - b->log_len, "\n");
	CST_ASSERT(b->log_len < sizeof(b->log));
	pthread_mutex_unlock(&lock);
}

static void answer_entry(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node)
{
	struct cst_fs_entry e;

	double_fill_entry(fs, node, &e);
	(void)double_host(fs)->entry(call, &e);
}

void cst_fs_create(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, uint32_t mode,
		   uint32_t flags)
{
	struct cst_fs_entry e;

	(void)flags;
	double_log(fs, "create %llu %s %o", (unsigned long long)parent, name, mode);
	double_board_of(fs)->out_size = 0;
	double_fill_entry(fs, DOUBLE_OUT, &e);
	(void)double_host(fs)->created(call, &e, 77, (unsigned)double_board_of(fs)->open_flags, 0);
}

static void finish_write(struct cst_fs *fs, const struct pending *p)
{
	struct double_board *b = double_board_of(fs);

	CST_ASSERT(p->offset + p->data.len <= DOUBLE_OUT_MAX);
	memcpy(b->out + p->offset, p->data.data, p->data.len);
	pthread_mutex_lock(&lock);
	b->out_size = cst_max(b->out_size, p->offset + p->data.len);
	pthread_mutex_unlock(&lock);
	double_host(fs)->written(p->call, (uint32_t)p->data.len);
}

void cst_fs_write(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh, uint64_t offset,
		  struct cst_slice data)
{
	struct double_board *b = double_board_of(fs);
	struct pending mine = {call, offset, data}, all[CST_ARRAY_LEN(pending)];
	unsigned n = 0;

	CST_ASSERT(node == DOUBLE_OUT && fh == 77);
	pthread_mutex_lock(&lock);
	b->writes++;
	b->write_max = cst_max(b->write_max, (uint64_t)data.len);
	if (!b->write_gate) {
		all[n++] = mine;
	} else {
		pending[pending_count++] = mine;
		if (pending_count == (unsigned)b->write_gate) {
			memcpy(all, pending, sizeof(all));
			n = pending_count;
			pending_count = 0;
		}
	}
	__atomic_store_n(&b->writes_waiting, pending_count, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&lock);
	for (unsigned i = 0; i < n; i++)
		finish_write(fs, &all[i]);
}

void cst_fs_flush(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh)
{
	double_log(fs, "flush %llu %llu", (unsigned long long)node, (unsigned long long)fh);
	double_host(fs)->error(call, double_board_of(fs)->flush_rc);
}
void cst_fs_fsync(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, uint64_t fh, bool data_only)
{
	double_log(fs, "fsync %llu %llu%s", (unsigned long long)node, (unsigned long long)fh, data_only ? " data" : "");
	double_host(fs)->error(call, double_board_of(fs)->fsync_rc);
}
void cst_fs_mknod(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, uint32_t mode)
{
	double_log(fs, "mknod %llu %s %o", (unsigned long long)parent, name, mode);
	answer_entry(fs, call, DOUBLE_NEW_FILE);
}
void cst_fs_mkdir(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, uint32_t mode)
{
	double_log(fs, "mkdir %llu %s %o", (unsigned long long)parent, name, mode & 07777);
	answer_entry(fs, call, DOUBLE_NEW_DIR);
}
void cst_fs_symlink(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, const char *target)
{
	double_log(fs, "symlink %llu %s %s", (unsigned long long)parent, name, target);
	answer_entry(fs, call, DOUBLE_NEW_LINK);
}
void cst_fs_unlink(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name)
{
	double_log(fs, "unlink %llu %s", (unsigned long long)parent, name);
	double_host(fs)->error(call, 0);
}
void cst_fs_rmdir(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name)
{
	double_log(fs, "rmdir %llu %s", (unsigned long long)parent, name);
	double_host(fs)->error(call, -39); /* ENOTEMPTY */
}
void cst_fs_rename(struct cst_fs *fs, struct cst_fs_call *call, uint64_t parent, const char *name, uint64_t new_parent,
		   const char *new_name, uint32_t flags)
{
	double_log(fs, "rename %llu %s %llu %s %u", (unsigned long long)parent, name, (unsigned long long)new_parent,
		   new_name, flags);
	double_host(fs)->error(call, 0);
}
void cst_fs_setattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, const struct cst_fs_setattr *set)
{
	struct cst_fs_entry e;
	char text[256];
	int n = 0;

	text[0] = '\0';
	if (set->valid & CST_FS_SET_MODE)
		n += snprintf(text + n, sizeof(text) - (size_t)n, " mode %o", set->mode & 07777);
	if (set->valid & CST_FS_SET_UID)
		n += snprintf(text + n, sizeof(text) - (size_t)n, " uid %u", set->uid);
	if (set->valid & CST_FS_SET_GID)
		n += snprintf(text + n, sizeof(text) - (size_t)n, " gid %u", set->gid);
	if (set->valid & CST_FS_SET_SIZE)
		n += snprintf(text + n, sizeof(text) - (size_t)n, " size %llu", (unsigned long long)set->size);
	if (set->valid & CST_FS_SET_ATIME)
		n += snprintf(text + n, sizeof(text) - (size_t)n, " atime %lld",
			      set->atime == CST_FS_NOW ? -1LL : (long long)set->atime);
	if (set->valid & CST_FS_SET_MTIME)
		n += snprintf(text + n, sizeof(text) - (size_t)n, " mtime %lld",
			      set->mtime == CST_FS_NOW ? -1LL : (long long)set->mtime);
	if (set->fh)
		n += snprintf(text + n, sizeof(text) - (size_t)n, " fh %llu", (unsigned long long)set->fh);
	double_log(fs, "setattr %llu%s", (unsigned long long)node, text);
	if (set->valid & CST_FS_SET_SIZE)
		double_board_of(fs)->out_size = set->size;
	double_fill_entry(fs, node, &e);
	double_host(fs)->attr(call, &e.attr);
}
void cst_fs_setxattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, const char *name,
		     struct cst_slice value, uint32_t flags)
{
	double_log(fs, "setxattr %llu %s %.*s %u", (unsigned long long)node, name, (int)value.len, value.data, flags);
	double_host(fs)->error(call, 0);
}
void cst_fs_removexattr(struct cst_fs *fs, struct cst_fs_call *call, uint64_t node, const char *name)
{
	double_log(fs, "removexattr %llu %s", (unsigned long long)node, name);
	double_host(fs)->error(call, 0);
}
