#include "fuse/device.h"

#include "fuse/abi.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>

#define DEVICE "/dev/fuse"

int cst_fuse_device_open(struct cst_error *err)
{
	int fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	int code = errno;

	if (fd >= 0)
		return fd;
	cst_error_set(err, code, "can't open " DEVICE);
	switch (code) {
	case ENOENT:
		cst_error_why(err, "it does not exist");
		cst_error_hint(err,
			       "load the kernel module with `modprobe fuse`; in a container pass --device " DEVICE);
		break;
	case ENODEV:
	case ENXIO:
		cst_error_why(err, "the kernel has no FUSE: %s", strerror(code));
		cst_error_hint(err, "load the module with `modprobe fuse`");
		break;
	case EPERM:
	case EACCES:
		cst_error_why(err, "not permitted: %s", strerror(code));
		cst_error_hint(err, "in a container pass --device " DEVICE
				    " --cap-add SYS_ADMIN, or set securityContext.privileged");
		break;
	default:
		cst_error_why(err, "%s", strerror(code));
		break;
	}
	return -code;
}

int cst_fuse_device_clone(int fd)
{
	CST_AUTO_CLOSE int clone_fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	uint32_t source = (uint32_t)fd;

	if (clone_fd < 0 || ioctl(clone_fd, CST_KFUSE_IOC_CLONE, &source) < 0)
		return -errno;
	return cst_steal_fd(&clone_fd);
}

int cst_fuse_device_backing_open(int device, int fd)
{
	struct cst_kfuse_backing_map map = {.fd = fd};
	int id = ioctl(device, CST_KFUSE_IOC_BACKING_OPEN, &map);

	return id < 0 ? -errno : id > 0 ? id : -EIO;
}

int cst_fuse_device_backing_close(int device, int backing)
{
	uint32_t id = (uint32_t)backing;

	return ioctl(device, CST_KFUSE_IOC_BACKING_CLOSE, &id) < 0 ? -errno : 0;
}

int cst_fuse_device_resend(int device)
{
	struct cst_kfuse_out_header h = {.len = sizeof(h), .error = CST_KFUSE_NOTIFY_RESEND};

	return write(device, &h, sizeof(h)) < 0 ? -errno : 0;
}
