/* A mount whose descriptors a supervisor holds: what this process takes over from the one before it, and leaves to the next. */
#include "fuse/internal.h"

#define CST_LOG_AREA "fuse"
#include "base/clock.h"
#include "base/log.h"
#include "fuse/device.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

int cst_fuse_keep_attach(struct cst_fuse *fuse, struct cst_error *err)
{
	const struct cst_state_header *h;
	int fd = cst_keeper_device(fuse->keeper, err);

	if (fd < 0)
		return fd;
	h = cst_keeper_header(fuse->keeper);
	fuse->where = (struct cst_fuse_mountpoint){cst_xstrdup(h->mountpoint), h->major, h->minor, true};
	fuse->owner_uid = h->owner_uid;
	fuse->opens = cst_opens_new(cst_keeper_state(fuse->keeper), cst_keeper_epoch(fuse->keeper));
	if (fuse->wish.max_write)
		fuse->outcomes = cst_outcomes_new(cst_keeper_state(fuse->keeper));
	/* The keeper's stays the keeper's: ours is replaced by a dead one at the end. */
	fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return fd < 0 ? cst_error_set(err, errno, "can't serve %s", h->mountpoint) : fd;
}

bool cst_fuse_keep_restore(struct cst_fuse *fuse)
{
	const struct cst_state_header *h;

	if (!fuse->keeper || !(h = cst_keeper_header(fuse->keeper))->init_valid)
		return false;
	fuse->agreed = (struct cst_fuse_init_result){.minor = h->init_minor,
						     .flags = h->init_flags,
						     .max_background = h->init_background,
						     .max_write = h->init_max_write};
	return true;
}

void cst_fuse_keep_agreed(struct cst_fuse *fuse)
{
	struct cst_state_header *h;

	if (!fuse->keeper)
		return;
	h = cst_keeper_header(fuse->keeper);
	h->init_minor = fuse->agreed.minor;
	h->init_flags = fuse->agreed.flags;
	h->init_background = fuse->agreed.max_background;
	h->init_max_write = fuse->agreed.max_write;
	__atomic_store_n(&h->init_valid, 1, __ATOMIC_RELEASE);
}

/* Who can have requests sent again lets the keeper hold the clones, so that requests read from them outlive this process. Before Linux 6.9 they
 * would hang for ever then: clones of our own die with us, and those requests fail. Nothing but clones is read from in that case. */
unsigned cst_fuse_keep_clones(struct cst_fuse *fuse, unsigned wanted, int fds[CST_KEEPER_CLONES])
{
	int kept[CST_KEEPER_CLONES];
	unsigned count = 0, made;

	if (fuse->agreed.flags & CST_KFUSE_HAS_RESEND) {
		made = cst_keeper_clones(fuse->keeper, wanted, kept);
		for (unsigned i = 0; i < made && count < wanted; i++) {
			fds[count] = fcntl(kept[i], F_DUPFD_CLOEXEC, 0);
			count += fds[count] >= 0;
		}
		return count;
	}
	while (count < wanted + 1 && count < CST_KEEPER_CLONES) {
		int fd = cst_fuse_device_clone(fuse->channels[0].fd);

		if (fd < 0)
			break;
		fds[count++] = fd;
	}
	return count;
}

void cst_fuse_keep_resend(struct cst_fuse *fuse)
{
	int rc;

	if (!fuse->keeper || !cst_keeper_restarted(fuse->keeper) || !(fuse->agreed.flags & CST_KFUSE_HAS_RESEND))
		return;
	rc = cst_fuse_device_resend(fuse->channels[0].fd);
	if (rc < 0)
		cst_log_error("the kernel doesn't send again what was not answered: %s", strerror(-rc));
}

static void close_left(struct cst_fuse *fuse, int backing)
{
	if (backing > 0)
		cst_fuse_backing_close(fuse, backing);
}

void cst_fuse_keep_opened(struct cst_fuse *fuse, const struct cst_fuse_request *r, uint64_t fh, int backing)
{
	if (fuse->opens && backing > 0)
		close_left(fuse,
			   cst_opens_add(fuse->opens, r->unique & ~CST_KFUSE_UNIQUE_RESENT, r->node, fh, backing));
}

void cst_fuse_keep_released(struct cst_fuse *fuse, uint64_t fh)
{
	if (fuse->opens)
		close_left(fuse, cst_opens_remove(fuse->opens, fh));
}

/* Bytes that were written and not published yet are gone with the process, so a WRITE that comes again must not be told that it went well. */
static bool is_done_once(uint32_t opcode)
{
	switch (opcode) {
	case CST_KFUSE_SETATTR:
	case CST_KFUSE_SYMLINK:
	case CST_KFUSE_MKNOD:
	case CST_KFUSE_MKDIR:
	case CST_KFUSE_UNLINK:
	case CST_KFUSE_RMDIR:
	case CST_KFUSE_RENAME:
	case CST_KFUSE_RENAME2:
	case CST_KFUSE_CREATE:
	case CST_KFUSE_SETXATTR:
	case CST_KFUSE_REMOVEXATTR:
	case CST_KFUSE_FLUSH:
	case CST_KFUSE_FSYNC:
		return true;
	default:
		return false;
	}
}

bool cst_fuse_keep_note(const struct cst_fuse_request *r, int error, const struct iovec *iov, int count)
{
	struct cst_outcomes *outcomes = r->channel->fuse->outcomes;
	char answer[CST_OUTCOME_MAX];
	size_t len = 0;

	if (!outcomes || !is_done_once(r->opcode))
		return false;
	for (int i = 1; error == 0 && i < count; i++) {
		CST_ASSERT(iov[i].iov_len <= sizeof(answer) - len);
		memcpy(answer + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	cst_outcome_log(outcomes, r->unique, error, answer, len);
	return true;
}

void cst_fuse_keep_forget(const struct cst_fuse_request *r)
{
	cst_outcome_done(r->channel->fuse->outcomes, r->unique);
}

/* Done twice they fail, because the first time they went well. */
static bool leaves_a_trace(uint32_t opcode)
{
	return opcode == CST_KFUSE_MKDIR || opcode == CST_KFUSE_UNLINK || opcode == CST_KFUSE_RMDIR ||
	       opcode == CST_KFUSE_RENAME || opcode == CST_KFUSE_RENAME2;
}

void cst_fuse_keep_begin(const struct cst_fuse_request *r)
{
	struct cst_outcomes *outcomes = r->channel->fuse->outcomes;

	if (outcomes && !r->begun && leaves_a_trace(r->opcode))
		cst_outcome_log(outcomes, r->unique, CST_OUTCOME_BEGUN, NULL, 0);
}

/* The kernel knew that the name was there, or wasn't, when it sent the request. */
bool cst_fuse_keep_redone(struct cst_fuse_request *r, int *rc)
{
	struct cst_fs_call *call = &r->call;

	if (!r->begun)
		return false;
	r->begun = false;
	if (*rc == -ENOENT && r->opcode != CST_KFUSE_MKDIR)
		*rc = 0;
	if (*rc != -EEXIST || r->opcode != CST_KFUSE_MKDIR)
		return false;
	cst_fs_call_lock(call);
	call->cancel = NULL;
	call->private_data = NULL;
	cst_fs_call_unlock(call);
	cst_fs_lookup(r->channel->fuse->fs, call, r->node, r->name);
	return true;
}

bool cst_fuse_keep_answered(const struct cst_fuse_channel *channel, const struct cst_fuse_in *in, bool *begun)
{
	struct cst_outcomes *outcomes = channel->fuse->outcomes;
	char answer[CST_OUTCOME_MAX];
	size_t len;
	int rc;

	*begun = false;
	if (!in->resent || !outcomes || !cst_outcome_find(outcomes, in->unique, &rc, answer, &len))
		return false;
	if (rc == CST_OUTCOME_BEGUN) {
		*begun = true;
		return false;
	}
	rc = cst_fuse_reply_raw(channel, in->unique, rc, answer, len);
	if (rc == 0 || rc == -ENOENT)
		cst_outcome_done(outcomes, in->unique);
	return true;
}

int cst_fuse_keep_unmount(struct cst_fuse *fuse)
{
	return fuse->keeper ? cst_keeper_unmount(fuse->keeper) : -ENOENT;
}

void cst_fuse_keep_end(struct cst_fuse *fuse)
{
	if (fuse->keeper && !fuse->leaving)
		cst_keeper_end(fuse->keeper);
}
