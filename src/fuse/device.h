/* /dev/fuse descriptors. All are close-on-exec: a process that holds a file of its own mount hangs when it dies. */
#pragma once

#include "base/error.h"

/* A descriptor, not yet part of a connection, or -errno with an error for people. */
int cst_fuse_device_open(struct cst_error *err);
/* Another descriptor of the connection of `fd`, or -errno (an unprivileged user may lack the right to open the device). */
int cst_fuse_device_clone(int fd);
/* A file that opens may be passed through to: its id on the connection of `device`, > 0, or -errno. */
int cst_fuse_device_backing_open(int device, int fd);
int cst_fuse_device_backing_close(int device, int backing); /* 0 or -errno */
/* Asks the kernel to send again what was read from the connection and not answered. -EINVAL: before Linux 6.9. */
int cst_fuse_device_resend(int device);
