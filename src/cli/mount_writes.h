/* The writing side of a mount: its publisher and the directory that keeps what can't be published, and the end, when the process waits until
 * what was written has reached the store. Made and freed by the main thread; give_up and the requests come from any. */
#pragma once

#include "cli/mount_options.h"

struct cst_mount_writes;

/* *writes stays NULL on a read-only mount. Makes the directory, so that nothing is taken that couldn't be kept. -errno with err. */
int cst_mount_writes_open(struct cst_mount_writes **writes, const struct cst_mount_plan *plan,
			  struct cst_bucket *bucket, struct cst_error *err);
/* After the file system. NULL is allowed, as in all of these. */
void cst_mount_writes_close(struct cst_mount_writes *writes);
struct cst_publish *cst_mount_writes_publish(const struct cst_mount_writes *writes);
/* Bytes of one WRITE of the kernel; 0: read-only. A write that waits holds them beside upload_memory. */
uint32_t cst_mount_writes_max_write(const struct cst_mount_plan *plan);

/* After the unmount: waits until everything is published, however long that takes, and says how far it is; or until somebody gives it up. Then
 * the file system's end keeps what is left. */
void cst_mount_writes_settle(struct cst_mount_writes *writes, struct cst_fs *fs);
void cst_mount_writes_give_up(struct cst_mount_writes *writes);

/* GET /writes: {"pid", "unmounted", "writers", "pending", "keep_dir", "writer"}; POST /writes/give-up. Of the control socket. */
bool cst_mount_writes_is_target(struct cst_slice target);
int cst_mount_writes_request(struct cst_mount_writes *writes, struct cst_slice method, struct cst_slice target,
			     struct cst_buf *json);
