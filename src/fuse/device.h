/* /dev/fuse descriptors. All are close-on-exec: a process that holds a file of its own mount hangs when it dies. */
#pragma once

#include "base/error.h"

/* A descriptor, not yet part of a connection, or -errno with an error for people. */
int cst_fuse_device_open(struct cst_error *err);
/* Another descriptor of the connection of `fd`, or -errno (an unprivileged user may lack the right to open the device). */
int cst_fuse_device_clone(int fd);
