/* Listings that are brought before anybody asks for them: of what a person names, of what is left of a tree that a program walks.
 *
 * A cst_fs_preload belongs to who started it, and one thread at a time uses it; it must be freed before the file system. The rest of this is the
 * file system's own. */
#pragma once

#include "fs/fs.h"
#include "meta/preload.h"

struct cst_fs_preload;
/* Lists all that is below a path (below the mountpoint, without a slash before or after it; "": everything), in the background. NULL with err: no file
 * can have such a name, or the file system ends. What becomes of it is logged. */
struct cst_fs_preload *cst_fs_preload_start(struct cst_fs *fs, const char *path, struct cst_error *err);
/* Waits until it has ended or `timeout` ns have passed; true when it has. *err of CST_PRELOAD_FAILED; NULL: not wanted. */
bool cst_fs_preload_wait(struct cst_fs_preload *p, int64_t timeout, struct cst_preload_progress *progress,
			 struct cst_error *err);
void cst_fs_preload_free(struct cst_fs_preload *p); /* ends it; NULL is allowed */
