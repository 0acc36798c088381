/* What the files of the staging area share.
 *
 * Locks, outer first:	file.sync_lock	one sync, seal or end of a publication of a file at a time
 *			stage.files_lock	the list of files
 *			file.lock	the file; shared by reads, alone for what changes it. Held over the writes to the disk, not over syncs
 *			file.fd_lock	opening its descriptors
 *			stage.lock	room and staging files that nobody uses
 *			(the journal's)
 *
 * The journal's state of a file may lag behind the file, never run ahead. Bytes that it calls dirty may be overwritten (by a write that was not
 * confirmed, as on any file system) but not given back before it has moved on: collect(). Bytes that are sealed are not even overwritten. Clean bytes
 * are unknown to it. */
#pragma once

#include "stage/stage.h"

#include <pthread.h>

#define STAGE_MAGIC 0x73746167u
#define FILE_MAGIC 0x73746766u
#define BLOCK UINT64_C(4096)
#define WRITE_ID_MAX 255u

/* A staging file without a user: free (empty) or, until the journal has forgotten its last one, in limbo. */
struct spare {
	uint32_t slot;
	int fd;		/* -1: not open */
	uint64_t bytes; /* reserved */
	uint64_t at;	/* limbo: of the journal */
	TAILQ_ENTRY(spare) link;
};
TAILQ_HEAD(spares, spare);
TAILQ_HEAD(stage_files, cst_stage_file);

struct cst_stage {
	unsigned magic;
	const struct cst_stage_io *io;
	int dir, lock_fd;
	bool own_dir;
	uint64_t quota, keep_free;
	struct cst_journal *journal;
	pthread_mutex_t files_lock;
	struct stage_files files;
	uint64_t file_count;
	pthread_mutex_t lock; /* what follows */
	struct spares free, limbo;
	unsigned free_count;
	uint32_t next_slot;
	uint64_t used;						    /* bytes reserved of staging files */
	uint64_t syncs, datasyncs, writes, bytes_written, no_space; /* atomic */
};

struct cst_stage_file {
	unsigned magic;
	struct cst_stage *stage;
	uint64_t id;
	TAILQ_ENTRY(cst_stage_file) link;
	pthread_mutex_t sync_lock, fd_lock;
	pthread_rwlock_t lock;
	struct cst_buf key, attributes, write_id, upload_id, conflict;
	struct cst_stage_image image;
	bool in_conflict, seal_journalled;
	int failed;
	/* What the journal doesn't know yet. */
	bool unknown; /* anything at all */
	bool moved, resized, attributes_set;
	struct cst_extents pending;
	uint64_t changes; /* at most, of extents */
	uint64_t promised;
	/* Staging files: the number, the descriptor, what is reserved, is there something to be synced. */
	uint32_t slot[2];
	int fd[2];
	struct cst_extents reserved[2];
	bool unsynced[2];
	bool garbage;	   /* more is reserved than used */
	uint64_t last_end; /* of the last write */
};

void stage_slot_name(uint32_t slot, char name[16]);
/* A staging file, empty. 0 or -errno. */
int stage_take_slot(struct cst_stage *s, uint32_t *slot, int *fd);
/* It is given back, when the journal is on the disk up to `at`. */
void stage_leave_slot(struct cst_stage *s, uint32_t slot, int fd, uint64_t bytes, uint64_t at);
/* Those in limbo that need not wait any longer; `force`: after a commit. */
void stage_reap(struct cst_stage *s, bool force);
/* Bytes of room: within quota and what is to stay free, or -ENOSPC. */
int stage_take_room(struct cst_stage *s, uint64_t bytes);
void stage_give_room(struct cst_stage *s, uint64_t bytes);

struct cst_stage_file *stage_file_alloc(struct cst_stage *s, uint64_t id);
void stage_file_free(struct cst_stage_file *f);
int stage_file_fd(struct cst_stage_file *f, unsigned which);
/* Gives back what is reserved and not in use. Locks: sync_lock and lock. */
void stage_collect_locked(struct cst_stage_file *f);
/* What the map uses of a staging file, in whole blocks. */
void stage_used_blocks(const struct cst_extents *map, unsigned which, struct cst_extents *blocks);
/* The journal will have room for what is pending and `more` changes; -ENOSPC. Under lock. */
int stage_promise_locked(struct cst_stage_file *f, uint64_t more);
void stage_trim_promise_locked(struct cst_stage_file *f);
/* After -ENOSPC: makes room that this file and forgotten ones take in vain. */
void stage_make_room(struct cst_stage_file *f);

int cst_stage_dir_open(const char *path, struct cst_error *err);
int cst_stage_dir_lock(int dir, const char *path, struct cst_error *err);
