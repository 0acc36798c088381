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

int cst_fuse_keep_unmount(struct cst_fuse *fuse)
{
	return fuse->keeper ? cst_keeper_unmount(fuse->keeper) : -ENOENT;
}

void cst_fuse_keep_end(struct cst_fuse *fuse)
{
	if (fuse->keeper && !fuse->leaving)
		cst_keeper_end(fuse->keeper);
}
