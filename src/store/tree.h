/* Safe walking in a bucket's folder: nothing here follows a symbolic link or leaves the folder it starts from
 * (openat2 with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS). Any thread. Paths are relative and come from keypath.h. */
#pragma once

#include "base/cleanup.h"

#include <sys/stat.h>

/* A descriptor (close on exec), or -errno: -ENOENT also when a file stands where a directory should, or when a symbolic
 * link is met. */
int cst_tree_open(int dir, const char *path, int flags);
/* A regular file for reading. */
int cst_tree_open_file(int dir, const char *path, struct stat *st);
/* The directory that `path` lies in (open for reading and fsync); *leaf points to its last name. With `create` missing
 * directories are made and synced; -ENOTDIR with *blocker (its length within path) when a file is in the way, -ELOOP
 * when a symbolic link is. */
int cst_tree_parent(int dir, const char *path, bool create, const char **leaf, size_t *blocker);
/* Removes the directories above path's last name as long as they are empty; never `dir` itself. */
void cst_tree_prune(int dir, const char *path);
/* Removes a name and everything beneath it. 0 or -errno (the first). */
int cst_tree_remove(int dir, const char *name);
/* Opens or makes a directory (one level). */
int cst_tree_make_dir(int dir, const char *name);
/* Calls fn for each name in the directory ("." and ".." left out) until it returns non-zero, which is returned; -errno
 * when the directory can't be read. `type` is a DT_ value, never DT_UNKNOWN. */
typedef int (*cst_tree_entry_fn)(void *arg, int dir, const char *name, unsigned char type);
int cst_tree_each(int dir, cst_tree_entry_fn fn, void *arg);
int cst_tree_write_all(int fd, const void *data, size_t len);
