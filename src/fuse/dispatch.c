#include "fuse/internal.h"

#define CST_LOG_AREA "fuse"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>

/* allow_root: the kernel knows allow_other alone, so strangers are turned away here, except where they hold a handle already. */
static bool refused_for_user(const struct cst_fuse *fuse, const struct cst_fuse_in *in)
{
	if (!fuse->allow_root || in->uid == 0 || in->uid == fuse->owner_uid)
		return false;
	switch (in->opcode) {
	case CST_KFUSE_READ:
	case CST_KFUSE_WRITE:
	case CST_KFUSE_FLUSH:
	case CST_KFUSE_FSYNC:
	case CST_KFUSE_RELEASE:
	case CST_KFUSE_READDIR:
	case CST_KFUSE_READDIRPLUS:
	case CST_KFUSE_RELEASEDIR:
		return false;
	default:
		return true;
	}
}

/* The request may have been read by another thread that has not entered it yet, or be answered this moment. EAGAIN makes the kernel
 * send the INTERRUPT again unless the request is over; it looks only among the requests of the descriptor that the answer is written
 * to, and we don't know which that is, so the clones are tried in turn. */
static void do_interrupt(struct cst_fuse_channel *channel, const struct cst_fuse_in *in)
{
	struct cst_fuse *fuse = channel->fuse;

	__atomic_fetch_add(&fuse->interrupts, 1, __ATOMIC_RELAXED);
	if (cst_fuse_request_interrupt(fuse, in->target) == 0)
		return;
	for (unsigned i = 0; i < fuse->channel_count; i++)
		if (!fuse->channels[i].shares_fd &&
		    cst_fuse_reply_raw(&fuse->channels[i], in->unique, -EAGAIN, NULL, 0) == 0)
			return;
}

/* What is answered without a request object, or not at all. True: done. */
static bool handled_at_once(struct cst_fuse_channel *channel, const struct cst_fuse_in *in)
{
	struct cst_fs *fs = channel->fuse->fs;

	switch (in->opcode) {
	case CST_KFUSE_FORGET:
		cst_fs_forget(fs, in->node, in->count);
		return true;
	case CST_KFUSE_BATCH_FORGET:
		for (size_t i = 0; i < in->count; i++) {
			struct cst_kfuse_forget_one one = cst_fuse_parse_forget(in, i);

			cst_fs_forget(fs, one.nodeid, one.nlookup);
		}
		return true;
	case CST_KFUSE_INTERRUPT:
		do_interrupt(channel, in);
		return true;
	case CST_KFUSE_NOTIFY_REPLY: /* we retrieve nothing */
		return true;
	case CST_KFUSE_INIT: /* a second one: the kernel never does */
		(void)cst_fuse_reply_raw(channel, in->unique, -EIO, NULL, 0);
		return true;
	default:
		break;
	}
	switch (in->class) {
	case CST_FUSE_SERVED:
	case CST_FUSE_WRITES:
		return false;
	case CST_FUSE_SAVES: /* ENOSYS ends them for the whole mount */
		if (channel->fuse->wish.max_write)
			return false;
		break;
	case CST_FUSE_IS_OK:
		(void)cst_fuse_reply_raw(channel, in->unique, 0, NULL, 0);
		return true;
	case CST_FUSE_NOTTY:
		(void)cst_fuse_reply_raw(channel, in->unique, -ENOTTY, NULL, 0);
		return true;
	case CST_FUSE_UNKNOWN:
	case CST_FUSE_NOSYS:
		break;
	}
	(void)cst_fuse_reply_raw(channel, in->unique, -ENOSYS, NULL, 0);
	return true;
}

/* The kernel sends the times it wants now as well; the file system's clock decides. */
static int64_t setattr_time(uint32_t valid, uint32_t now, uint64_t s, uint32_t ns)
{
	int64_t seconds = (int64_t)s, time;

	if (valid & now)
		return CST_FS_NOW;
	if (__builtin_mul_overflow(seconds, CST_NS_PER_S, &time) || __builtin_add_overflow(time, (int64_t)ns, &time))
		return seconds < 0 ? INT64_MIN + 1 : INT64_MAX;
	return time;
}

static void serve_setattr(struct cst_fs *fs, struct cst_fs_call *call, const struct cst_fuse_in *in)
{
	static const struct {
		uint32_t theirs;
		unsigned ours;
	} bits[] = {
		{CST_KFUSE_FATTR_MODE, CST_FS_SET_MODE},   {CST_KFUSE_FATTR_UID, CST_FS_SET_UID},
		{CST_KFUSE_FATTR_GID, CST_FS_SET_GID},	   {CST_KFUSE_FATTR_SIZE, CST_FS_SET_SIZE},
		{CST_KFUSE_FATTR_ATIME, CST_FS_SET_ATIME}, {CST_KFUSE_FATTR_MTIME, CST_FS_SET_MTIME},
		{CST_KFUSE_FATTR_CTIME, CST_FS_SET_CTIME}, {CST_KFUSE_FATTR_KILL_SUIDGID, CST_FS_SET_KILL_SUIDGID},
	};
	const struct cst_kfuse_setattr_in *k = &in->setattr;
	struct cst_fs_setattr set = {.mode = k->mode, .uid = k->uid, .gid = k->gid, .size = k->size, .fh = in->fh};

	for (size_t i = 0; i < CST_ARRAY_LEN(bits); i++)
		if (k->valid & bits[i].theirs)
			set.valid |= bits[i].ours;
	set.atime = setattr_time(k->valid, CST_KFUSE_FATTR_ATIME_NOW, k->atime, k->atimensec);
	set.mtime = setattr_time(k->valid, CST_KFUSE_FATTR_MTIME_NOW, k->mtime, k->mtimensec);
	set.ctime = setattr_time(k->valid, 0, k->ctime, k->ctimensec);
	cst_fs_setattr(fs, call, in->node, &set);
}

static void serve_write(struct cst_fs *fs, struct cst_fuse_request *r, const struct cst_fuse_in *in)
{
	struct cst_fs_call *call = &r->call;
	struct cst_slice value = {r->value, in->size};

	switch (in->opcode) {
	case CST_KFUSE_CREATE:
		cst_fs_create(fs, call, in->node, r->name, in->mode, in->flags);
		break;
	case CST_KFUSE_WRITE:
		cst_fs_write(fs, call, in->node, in->fh, in->offset, value);
		break;
	case CST_KFUSE_FLUSH:
		cst_fs_flush(fs, call, in->node, in->fh);
		break;
	case CST_KFUSE_FSYNC:
		cst_fs_fsync(fs, call, in->node, in->fh, in->flags != 0);
		break;
	case CST_KFUSE_SETATTR:
		serve_setattr(fs, call, in);
		break;
	case CST_KFUSE_MKNOD:
		cst_fs_mknod(fs, call, in->node, r->name, in->mode);
		break;
	case CST_KFUSE_MKDIR:
		cst_fs_mkdir(fs, call, in->node, r->name, in->mode);
		break;
	case CST_KFUSE_SYMLINK:
		cst_fs_symlink(fs, call, in->node, r->name, r->name2);
		break;
	case CST_KFUSE_UNLINK:
		cst_fs_unlink(fs, call, in->node, r->name);
		break;
	case CST_KFUSE_RMDIR:
		cst_fs_rmdir(fs, call, in->node, r->name);
		break;
	case CST_KFUSE_RENAME:
	case CST_KFUSE_RENAME2:
		cst_fs_rename(fs, call, in->node, r->name, in->node2, r->name2, in->flags);
		break;
	case CST_KFUSE_SETXATTR:
		cst_fs_setxattr(fs, call, in->node, r->name, value, in->flags);
		break;
	case CST_KFUSE_REMOVEXATTR:
		cst_fs_removexattr(fs, call, in->node, r->name);
		break;
	case CST_KFUSE_LINK:
		/* No object has two names. What link(2) calls that. */
		if (r->channel->fuse->wish.max_write)
			r->channel->fuse->host.error(call, -EPERM);
		else
			cst_fs_refuse_write(fs, call, in->op_name);
		break;
	default:
		cst_fs_refuse_write(fs, call, in->op_name);
		break;
	}
}

static void serve(struct cst_fs *fs, struct cst_fuse_request *r, const struct cst_fuse_in *in)
{
	struct cst_fs_call *call = &r->call;

	switch (in->opcode) {
	case CST_KFUSE_LOOKUP:
		cst_fs_lookup(fs, call, in->node, r->name);
		break;
	case CST_KFUSE_GETATTR:
	case CST_KFUSE_STATX:
		cst_fs_getattr(fs, call, in->node);
		break;
	case CST_KFUSE_READLINK:
		cst_fs_readlink(fs, call, in->node);
		break;
	case CST_KFUSE_OPEN:
		cst_fs_open(fs, call, in->node, in->flags);
		break;
	case CST_KFUSE_READ:
		cst_fs_read(fs, call, in->node, in->fh, in->offset, in->size);
		break;
	case CST_KFUSE_RELEASE:
		cst_fs_release(fs, call, in->node, in->fh);
		break;
	case CST_KFUSE_OPENDIR:
		cst_fs_opendir(fs, call, in->node);
		break;
	case CST_KFUSE_READDIR:
	case CST_KFUSE_READDIRPLUS:
		cst_fs_readdir(fs, call, in->node, in->fh, in->offset, in->opcode == CST_KFUSE_READDIRPLUS);
		break;
	case CST_KFUSE_RELEASEDIR:
		cst_fs_releasedir(fs, call, in->node, in->fh);
		break;
	case CST_KFUSE_STATFS:
		cst_fs_statfs(fs, call, in->node);
		break;
	case CST_KFUSE_ACCESS:
		cst_fs_access(fs, call, in->node, in->flags);
		break;
	case CST_KFUSE_GETXATTR:
		cst_fs_getxattr(fs, call, in->node, r->name);
		break;
	case CST_KFUSE_LISTXATTR:
		cst_fs_listxattr(fs, call, in->node);
		break;
	default:
		serve_write(fs, r, in);
		break;
	}
}

void cst_fuse_dispatch(struct cst_fuse_channel *channel, const void *data, size_t len)
{
	struct cst_fuse *fuse = channel->fuse;
	struct cst_fuse_request *r;
	struct cst_fuse_in in;
	bool begun;

	__atomic_fetch_add(&fuse->requests, 1, __ATOMIC_RELAXED);
	if (cst_fuse_parse(data, len, &in) < 0) {
		static struct cst_log_limit limit;

		if (cst_log_allowed(&limit, CST_NS_PER_S, NULL))
			cst_log_error("malformed request %u (%s) of %zu bytes from the kernel", in.opcode,
				      cst_fuse_op_name(in.opcode), len);
		if (in.unique && in.opcode != CST_KFUSE_FORGET && in.opcode != CST_KFUSE_BATCH_FORGET &&
		    in.opcode != CST_KFUSE_INTERRUPT)
			(void)cst_fuse_reply_raw(channel, in.unique, -EIO, NULL, 0);
		return;
	}
	cst_log_trace("%s node %llu unique %llu%s", in.op_name, (unsigned long long)in.node,
		      (unsigned long long)(in.unique & ~CST_KFUSE_UNIQUE_RESENT), in.resent ? " (again)" : "");
	if (handled_at_once(channel, &in) || cst_fuse_keep_answered(channel, &in, &begun))
		return;
	if (refused_for_user(fuse, &in)) {
		(void)cst_fuse_reply_raw(channel, in.unique, -EACCES, NULL, 0);
		return;
	}
	r = cst_fuse_request_new(channel, &in);
	r->begun = begun;
	cst_fuse_keep_begin(r);
	serve(fuse->fs, r, &in);
	cst_fuse_request_dispatched(r);
}
