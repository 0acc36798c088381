/* Answers: what the file system says, put into the kernel's layouts. */
#include "fuse/internal.h"

#include "base/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

/* Fields of statx(2) that a struct stat answers. */
#define STATX_BASIC 0x7ffu

static struct cst_fuse_request *request_of(struct cst_fs_call *call)
{
	struct cst_fuse_request *r = cst_container_of(call, struct cst_fuse_request, call);

	CST_CHECK(r, CST_FUSE_REQUEST_MAGIC);
	return r;
}

static void fill_ttl(int64_t ttl, uint64_t *s, uint32_t *ns)
{
	*s = ttl > 0 ? (uint64_t)(ttl / CST_NS_PER_S) : 0;
	*ns = ttl > 0 ? (uint32_t)(ttl % CST_NS_PER_S) : 0;
}

static void fill_attr(const struct stat *st, struct cst_kfuse_attr *a)
{
	memset(a, 0, sizeof(*a));
	a->ino = st->st_ino;
	a->size = (uint64_t)st->st_size;
	a->blocks = (uint64_t)st->st_blocks;
	a->atime = (uint64_t)st->st_atim.tv_sec;
	a->mtime = (uint64_t)st->st_mtim.tv_sec;
	a->ctime = (uint64_t)st->st_ctim.tv_sec;
	a->atimensec = (uint32_t)st->st_atim.tv_nsec;
	a->mtimensec = (uint32_t)st->st_mtim.tv_nsec;
	a->ctimensec = (uint32_t)st->st_ctim.tv_nsec;
	a->mode = st->st_mode;
	a->nlink = (uint32_t)st->st_nlink;
	a->uid = st->st_uid;
	a->gid = st->st_gid;
	a->rdev = (uint32_t)st->st_rdev;
	a->blksize = (uint32_t)st->st_blksize;
}

static void fill_entry(const struct cst_fs_entry *entry, struct cst_kfuse_entry_out *out)
{
	memset(out, 0, sizeof(*out));
	out->nodeid = entry->node;
	fill_ttl(entry->entry_ttl, &out->entry_valid, &out->entry_valid_nsec);
	if (!entry->node)
		return;
	out->generation = entry->generation;
	fill_ttl(entry->attr.ttl, &out->attr_valid, &out->attr_valid_nsec);
	fill_attr(&entry->attr.st, &out->attr);
}

static void fill_statx(const struct stat *st, struct cst_kfuse_statx *x)
{
	memset(x, 0, sizeof(*x));
	x->mask = STATX_BASIC;
	x->blksize = (uint32_t)st->st_blksize;
	x->nlink = (uint32_t)st->st_nlink;
	x->uid = st->st_uid;
	x->gid = st->st_gid;
	x->mode = (uint16_t)st->st_mode;
	x->ino = st->st_ino;
	x->size = (uint64_t)st->st_size;
	x->blocks = (uint64_t)st->st_blocks;
	x->atime = (struct cst_kfuse_sx_time){st->st_atim.tv_sec, (uint32_t)st->st_atim.tv_nsec, 0};
	x->mtime = (struct cst_kfuse_sx_time){st->st_mtim.tv_sec, (uint32_t)st->st_mtim.tv_nsec, 0};
	x->ctime = (struct cst_kfuse_sx_time){st->st_ctim.tv_sec, (uint32_t)st->st_ctim.tv_nsec, 0};
	x->rdev_major = major(st->st_rdev);
	x->rdev_minor = minor(st->st_rdev);
}

static int reply(struct cst_fs_call *call, const void *data, size_t len)
{
	struct iovec iov[2] = {{0}, {(void *)(uintptr_t)data, len}};

	return cst_fuse_request_reply(request_of(call), 0, iov, len ? 2 : 1);
}

/* The kernel took an answer that creates something only when the write succeeded. */
static int taken(int rc)
{
	return rc < 0 ? -ENOENT : 0;
}

static void reply_error(struct cst_fs_call *call, int rc)
{
	struct cst_fuse_request *r = request_of(call);
	struct iovec iov[1];

	if (cst_fuse_keep_redone(r, &rc))
		return;
	/* After what the file system did, before the kernel forgets the request: whoever gets it again finds it done. */
	if (r->opcode == CST_KFUSE_RELEASE)
		cst_fuse_keep_released(r->channel->fuse, r->fh);
	(void)cst_fuse_request_reply(r, rc, iov, 1);
}

static int reply_entry(struct cst_fs_call *call, const struct cst_fs_entry *entry)
{
	struct cst_kfuse_entry_out out;

	fill_entry(entry, &out);
	return taken(reply(call, &out, sizeof(out)));
}

static void reply_attr(struct cst_fs_call *call, const struct cst_fs_attr *attr)
{
	if (request_of(call)->opcode == CST_KFUSE_STATX) {
		struct cst_kfuse_statx_out out = {0};

		fill_ttl(attr->ttl, &out.attr_valid, &out.attr_valid_nsec);
		fill_statx(&attr->st, &out.stat);
		(void)reply(call, &out, sizeof(out));
	} else {
		struct cst_kfuse_attr_out out = {0};

		fill_ttl(attr->ttl, &out.attr_valid, &out.attr_valid_nsec);
		fill_attr(&attr->st, &out.attr);
		(void)reply(call, &out, sizeof(out));
	}
}

static void fill_open(const struct cst_fuse_request *r, uint64_t fh, unsigned flags, int backing,
		      struct cst_kfuse_open_out *out)
{
	*out = (struct cst_kfuse_open_out){.fh = fh};
	/* Where nothing is written, close(2) has nothing to tell us. */
	if (r->opcode == CST_KFUSE_OPEN && !r->writes)
		out->open_flags |= CST_KFUSE_FOPEN_NOFLUSH;
	if (flags & CST_FS_PASSTHROUGH) {
		out->open_flags |= CST_KFUSE_FOPEN_PASSTHROUGH;
		out->backing_id = backing;
	}
	if (flags & CST_FS_KEEP_CACHE)
		out->open_flags |= CST_KFUSE_FOPEN_KEEP_CACHE;
	if (flags & CST_FS_DIRECT_IO)
		out->open_flags |= CST_KFUSE_FOPEN_DIRECT_IO;
	if (flags & CST_FS_CACHE_DIR)
		out->open_flags |= CST_KFUSE_FOPEN_CACHE_DIR;
	if (flags & CST_FS_PARALLEL_WRITES)
		out->open_flags |= CST_KFUSE_FOPEN_PARALLEL_DIRECT_WRITES;
}

/* What is passed through is noted first: whoever gets the RELEASE has to give the id back. */
static int taken_open(struct cst_fs_call *call, const void *data, size_t len, const struct cst_kfuse_open_out *open)
{
	struct cst_fuse *fuse = request_of(call)->channel->fuse;
	uint64_t fh = open->fh;
	int rc;

	cst_fuse_keep_opened(fuse, request_of(call), fh, open->backing_id);
	rc = taken(reply(call, data, len));
	if (rc < 0)
		cst_fuse_keep_released(fuse, fh);
	return rc;
}

static int reply_opened(struct cst_fs_call *call, uint64_t fh, unsigned flags, int backing)
{
	const struct cst_fuse_request *r = request_of(call);
	struct cst_kfuse_open_out out;

	fill_open(r, fh, flags, backing, &out);
	return taken_open(call, &out, sizeof(out), &out);
}

static int reply_created(struct cst_fs_call *call, const struct cst_fs_entry *entry, uint64_t fh, unsigned flags,
			 int backing)
{
	struct {
		struct cst_kfuse_entry_out entry;
		struct cst_kfuse_open_out open;
	} out;

	fill_entry(entry, &out.entry);
	fill_open(request_of(call), fh, flags, backing, &out.open);
	return taken_open(call, &out, sizeof(out), &out.open);
}

static void reply_written(struct cst_fs_call *call, uint32_t size)
{
	struct cst_kfuse_write_out out = {.size = size};

	(void)reply(call, &out, sizeof(out));
}

/* Data goes from the file system's blocks to the kernel in one writev. */
#define DATA_IOV_MAX 64
static void reply_data(struct cst_fs_call *call, const struct iovec *data, int count)
{
	struct cst_fuse_request *r = request_of(call);
	struct iovec iov[DATA_IOV_MAX + 1];
	size_t room = r->size;
	int n = 1;

	CST_ASSERT(count >= 0 && count <= DATA_IOV_MAX);
	for (int i = 0; i < count && room > 0;
	     i++) { /* never more than was asked for: the kernel would refuse it all */
		size_t len = cst_min(data[i].iov_len, room);

		if (!len)
			continue;
		iov[n++] = (struct iovec){data[i].iov_base, len};
		room -= len;
	}
	(void)cst_fuse_request_reply(r, 0, iov, n);
}

static void reply_text(struct cst_fs_call *call, struct cst_slice text)
{
	(void)reply(call, text.data, text.len);
}

static void reply_statfs(struct cst_fs_call *call, const struct statvfs *st)
{
	struct cst_kfuse_kstatfs out = {
		.blocks = st->f_blocks,
		.bfree = st->f_bfree,
		.bavail = st->f_bavail,
		.files = st->f_files,
		.ffree = st->f_ffree,
		.bsize = (uint32_t)st->f_bsize,
		.namelen = (uint32_t)st->f_namemax,
		.frsize = (uint32_t)st->f_frsize,
	};

	(void)reply(call, &out, sizeof(out));
}

static void reply_xattr(struct cst_fs_call *call, struct cst_slice value)
{
	const struct cst_fuse_request *r = request_of(call);

	if (r->size == 0) {
		struct cst_kfuse_getxattr_out out = {.size = (uint32_t)value.len};

		(void)reply(call, &out, sizeof(out));
	} else if (value.len > r->size) {
		reply_error(call, -ERANGE);
	} else {
		(void)reply(call, value.data, value.len);
	}
}

static int add_dirent(struct cst_fs_call *call, const struct cst_fs_dirent *d)
{
	struct cst_fuse_request *r = request_of(call);
	bool plus = r->opcode == CST_KFUSE_READDIRPLUS;
	struct cst_kfuse_dirent fixed = {d->ino, d->next, (uint32_t)d->name.len, d->type};
	size_t head = sizeof(fixed) + (plus ? sizeof(struct cst_kfuse_entry_out) : 0);
	size_t size = CST_KFUSE_ALIGN(head + d->name.len);
	char *p;

	if (!r->dirents) {
		r->dirents_cap = cst_min(r->size, CST_FUSE_DIRENTS_MAX);
		r->dirents = cst_xmalloc(r->dirents_cap ? r->dirents_cap : 1);
	}
	if (size > r->dirents_cap - r->dirents_len)
		return -ENOSPC;
	p = r->dirents + r->dirents_len;
	if (plus) {
		struct cst_kfuse_entry_out out;

		if (d->entry && d->entry->node)
			fill_entry(d->entry, &out);
		else /* listed, not instantiated: a later LOOKUP asks */
			memset(&out, 0, sizeof(out));
		memcpy(p, &out, sizeof(out));
		p += sizeof(out);
	}
	memcpy(p, &fixed, sizeof(fixed));
	p += sizeof(fixed);
	memcpy(p, d->name.data, d->name.len);
	memset(p + d->name.len, 0, size - head - d->name.len);
	r->dirents_len += (uint32_t)size;
	return 0;
}

static int end_dirents(struct cst_fs_call *call)
{
	const struct cst_fuse_request *r = request_of(call);

	return taken(reply(call, r->dirents, r->dirents_len));
}

int cst_fuse_reply_raw(const struct cst_fuse_channel *channel, uint64_t unique, int error, const void *data, size_t len)
{
	struct cst_kfuse_out_header h = {(uint32_t)(sizeof(h) + len), error, unique};
	struct iovec iov[2] = {{&h, sizeof(h)}, {(void *)(uintptr_t)data, len}};
	int rc;

	do {
		rc = writev(channel->fd, iov, len ? 2 : 1) < 0 ? -errno : 0;
	} while (rc == -EINTR || rc == -EAGAIN);
	return rc;
}

void cst_fuse_reply_init(struct cst_fuse *fuse)
{
	fuse->host = (struct cst_fs_host){
		.error = reply_error,
		.entry = reply_entry,
		.attr = reply_attr,
		.opened = reply_opened,
		.created = reply_created,
		.written = reply_written,
		.data = reply_data,
		.text = reply_text,
		.statfs = reply_statfs,
		.xattr = reply_xattr,
		.dirent = add_dirent,
		.dirents_end = end_dirents,
		.invalidate_node = cst_fuse_notify_node,
		.expire_name = cst_fuse_notify_name,
		.settle = cst_fuse_notify_settle,
		.open_files = cst_fuse_read_ahead_for,
		.backing_open = cst_fuse_backing_open,
		.backing_close = cst_fuse_backing_close,
		.host = fuse,
	};
}
