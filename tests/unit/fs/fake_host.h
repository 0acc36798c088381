/* A host for the file system under test: calls that can be waited for, and what they were answered. */
#pragma once

#include "fake_bucket.h"
#include "fake_cache.h"
#include "fake_publish.h"
#include "fs/fs.h"

#include <pthread.h>

struct fake_dirent {
	char name[CST_NAME_MAX + 1];
	uint64_t ino, next, node;
	uint32_t type;
};

struct fake_call {
	struct cst_fs_call call; /* first */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	bool refuse;   /* nobody takes the answer */
	uint64_t node; /* set by who opens a file: the kernel's view is kept */
	unsigned room; /* directory entries that fit */
	int rc;
	struct cst_fs_entry entry;
	struct cst_fs_attr attr;
	uint64_t fh;
	unsigned flags;
	int backing;
	uint32_t written;
	struct cst_buf data;
	struct fake_dirent *entries;
	unsigned count;
};

struct fake_mount {
	struct cst_bucket *bucket;
	struct cst_fetch *fetch;
	struct cst_cache *cache;     /* NULL: none */
	struct cst_publish *publish; /* NULL: read-only */
	struct cst_fs *fs;
	struct cst_fs_config config;
};

/* Moves the clock of the file system; its first reading is 1,000 s. Any thread. */
void fake_pass(int64_t ns);
extern uint64_t fake_invalidated;   /* the last node id told to the kernel */
extern struct cst_buf fake_expired; /* names told to it: "parent/name " each; to be read when nobody is at work */
bool fake_was_expired(uint64_t parent, const char *name);

/* Backing files, as the kernel keeps them. The host also checks, as the kernel does, that a node is never open through a backing file and in
 * another way, nor through two of them, and that an id is closed after its last release. */
struct fake_backing {
	unsigned opened, closed, live;
	int fail; /* -errno for the next ones */
	int last; /* id */
	uint64_t open_files;
};
extern struct fake_backing fake_backing;

void fake_config(struct fake_mount *m);	     /* bucket, fetch and defaults: 60 s */
void fake_with_cache(struct fake_mount *m);  /* before the start: a cache, passthrough */
void fake_with_writes(struct fake_mount *m); /* before the start: write=append */
void fake_start(struct fake_mount *m);
void fake_end(struct fake_mount *m);

struct fake_call *call_new(void);
void call_free(struct fake_call *c);
int call_wait(struct fake_call *c); /* its rc */

/* Calls to the end. Negative errno, or 0. */
int do_lookup(struct fake_mount *m, uint64_t parent, const char *name, struct cst_fs_entry *entry);
int do_path(struct fake_mount *m, const char *path, struct cst_fs_entry *entry);
int do_getattr(struct fake_mount *m, uint64_t node, struct cst_fs_attr *attr);
int do_open(struct fake_mount *m, uint64_t node, uint64_t *fh);
/* With open(2) flags; the caller frees it. */
struct fake_call *do_open_flags(struct fake_mount *m, uint64_t node, uint32_t flags);
int do_read(struct fake_mount *m, uint64_t node, uint64_t fh, uint64_t offset, uint32_t size, struct cst_buf *data);
void do_release(struct fake_mount *m, uint64_t node, uint64_t fh);
int do_opendir(struct fake_mount *m, uint64_t node, uint64_t *fh);
void do_releasedir(struct fake_mount *m, uint64_t node, uint64_t fh);
/* One readdir call; the caller frees it. */
struct fake_call *do_readdir(struct fake_mount *m, uint64_t node, uint64_t fh, uint64_t offset, bool plus,
			     unsigned room);
/* All names, "." and ".." left out, each followed by a blank. */
char *do_ls(struct fake_mount *m, uint64_t node, bool plus);
int do_text(struct fake_mount *m, uint64_t node, const char *xattr,
	    struct cst_buf *out); /* xattr NULL: readlink; "": list */

/* Those that write. do_create: the caller frees it. */
struct fake_call *do_create(struct fake_mount *m, uint64_t parent, const char *name, uint32_t flags);
/* To the end of the descriptor: FLUSH, RELEASE; the former's outcome. */
int do_close(struct fake_mount *m, uint64_t node, uint64_t fh);
/* Bytes written, or -errno. */
int do_write(struct fake_mount *m, uint64_t node, uint64_t fh, uint64_t offset, const char *text);
int do_flush(struct fake_mount *m, uint64_t node, uint64_t fh);
int do_fsync(struct fake_mount *m, uint64_t node, uint64_t fh);
int do_unlink(struct fake_mount *m, uint64_t parent, const char *name);
int do_rmdir(struct fake_mount *m, uint64_t parent, const char *name);
int do_mkdir(struct fake_mount *m, uint64_t parent, const char *name, struct cst_fs_entry *entry);
int do_rename(struct fake_mount *m, uint64_t parent, const char *name, uint64_t new_parent, const char *new_name,
	      uint32_t flags);
int do_truncate(struct fake_mount *m, uint64_t node, uint64_t size, struct cst_fs_attr *attr);
/* Creates, writes, closes. 0 or what failed. */
int do_put(struct fake_mount *m, uint64_t parent, const char *name, const char *text);
