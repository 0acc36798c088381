/* Files that opens are passed through to: registering them with the kernel, and why that can't be had. */
#include "fuse/internal.h"

#define CST_LOG_AREA "fuse"
#include "base/log.h"
#include "fuse/device.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

/* Linux 6.9 */
#define MINOR_WITH_PASSTHROUGH 40

static int register_file(const struct cst_fuse *fuse, int fd)
{
	return fuse->keeper ? cst_keeper_backing_open(fuse->keeper, fd)
			    : cst_fuse_device_backing_open(fuse->channels[0].fd, fd);
}

static void unregister(const struct cst_fuse *fuse, int backing)
{
	int rc = 0;

	/* Once the connection has ended the ids are gone with it. */
	if (__atomic_load_n(&fuse->stopping, __ATOMIC_ACQUIRE) && !fuse->leaving)
		return;
	if (fuse->keeper)
		cst_keeper_backing_close(fuse->keeper, backing);
	else
		rc = cst_fuse_device_backing_close(fuse->channels[0].fd, backing);
	if (rc < 0)
		cst_log_debug("backing file %d: %s", backing, strerror(-rc));
}

/* A file without a name where the others will lie; else one that any kernel takes. */
static int file_to_try(const struct cst_fuse *fuse)
{
	int fd = fuse->backing_dir ? open(fuse->backing_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600) : -1;

	return fd >= 0 ? fd : memfd_create("cistern-passthrough", MFD_CLOEXEC);
}

/* Tried once, so that the reason is known before the first open needs it. */
void cst_fuse_backing_start(struct cst_fuse *fuse)
{
	if (!fuse->wish.passthrough || !(fuse->agreed.flags & CST_KFUSE_PASSTHROUGH))
		return;
	CST_AUTO_CLOSE int fd = file_to_try(fuse);
	int id = fd < 0 ? -errno : register_file(fuse, fd);

	if (id > 0)
		unregister(fuse, id);
	fuse->backing_error = id < 0 ? id : 0;
	cst_log_info("passthrough: %s", cst_fuse_backing_state(fuse));
}

int cst_fuse_backing_open(void *host, int fd)
{
	struct cst_fuse *fuse = host;
	int id;

	CST_CHECK(fuse, CST_FUSE_MAGIC);
	if (!(fuse->agreed.flags & CST_KFUSE_PASSTHROUGH))
		return -EOPNOTSUPP;
	id = register_file(fuse, fd);
	__atomic_store_n(&fuse->backing_error, id < 0 ? id : 0, __ATOMIC_RELAXED);
	return id;
}

void cst_fuse_backing_close(void *host, int backing)
{
	const struct cst_fuse *fuse = host;

	CST_CHECK(fuse, CST_FUSE_MAGIC);
	unregister(fuse, backing);
}

const char *cst_fuse_backing_state(const struct cst_fuse *fuse)
{
	if (!fuse->wish.passthrough)
		return "off";
	if (!(fuse->agreed.flags & CST_KFUSE_PASSTHROUGH))
		return fuse->agreed.minor < MINOR_WITH_PASSTHROUGH ? "kernel before 6.9"
								   : "kernel built without FUSE_PASSTHROUGH";
	switch (__atomic_load_n(&fuse->backing_error, __ATOMIC_RELAXED)) {
	case 0:
		return "on";
	case -EPERM:
		return "not permitted (CAP_SYS_ADMIN)";
	case -ELOOP:
		return "cache directory on a stacked file system";
	default:
		return "the kernel refused the cache file";
	}
}
