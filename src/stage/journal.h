/* The journal of the staging area: records (record.h) of what a restart has to know, in two files of which one is current.
 *
 *	journal.0, journal.1	header (epoch n, how many records the checkpoint has), checkpoint, records…, continued (epoch n + 1)
 *	format			says that the journal has been made: from then on one of both must be whole
 *
 * When the current file is full, the state is written into the other one as the checkpoint of the next epoch and synced, then the old one is ended
 * with "continued", synced too, and the other one is current. Both have the room for a checkpoint beforehand, so this works on a full disk.
 *
 * Reading. The current file is the whole checkpoint of the highest epoch with what follows it. It ends at the first record that is not whole. That is a torn
 * tail, which nobody was told of, unless a later record proves that the bad one had been on the disk: then it is damage and the journal is refused, with
 * everything left as it is. So it is when a file is "continued" and the other one isn't whole.
 *
 * Commits join: who syncs takes along what the others have appended. A write or sync of the journal that fails is final: every later append
 * and commit fails with that error; what was confirmed is on the disk and a restart reads it.
 *
 * Any thread. append() may wait for the disk when the file is full; commit() waits for the disk. */
#pragma once

#include "base/error.h"
#include "stage/io.h"
#include "stage/state.h"

#define CST_JOURNAL_FORMAT 1u
#define CST_JOURNAL_OWNER_MAX 4096u

struct cst_journal;
struct cst_journal_config {
	const struct cst_stage_io *io;
	int dir;	   /* of the io; borrowed */
	uint64_t size;	   /* bytes of each file at first; 0: 4 MiB. They grow when the state needs it. */
	const char *owner; /* whose journal it is (bucket and prefix): another's is refused with -EBUSY */
};
/* Reads or makes it, and begins a new epoch. -EBADMSG: damaged; -EBUSY: another owner's; -ENOSPC: no room to go on. */
int cst_journal_open(const struct cst_journal_config *config, struct cst_journal **j, struct cst_error *err);
/* Commits what can be; nobody else may use it any more. */
void cst_journal_close(struct cst_journal *j);

/* Appends records as one: a restart finds all of them or none. Applies them to the state. *at is what commit() wants. -ENOSPC: there is no room and
 * nothing was appended; -EINVAL: texts too long, or a record that makes no sense in this state. */
int cst_journal_append(struct cst_journal *j, const struct cst_record *records, size_t count, uint64_t *at);
/* Waits until what was appended up to `at` is on the disk. */
int cst_journal_commit(struct cst_journal *j, uint64_t at);
uint64_t cst_journal_durable(struct cst_journal *j); /* what is, as an `at` */
int cst_journal_failed(struct cst_journal *j);	     /* 0, or why it takes no more */

/* Sees to it that `bytes` more of records will find room, whatever happens to the disk meanwhile: -ENOSPC if not. unpromise() gives them back. */
int cst_journal_promise(struct cst_journal *j, uint64_t bytes);
void cst_journal_unpromise(struct cst_journal *j, uint64_t bytes);

uint64_t cst_journal_new_id(struct cst_journal *j);
/* The state, under the journal's lock. */
void cst_journal_read(struct cst_journal *j, void (*read)(void *arg, const struct cst_state *state), void *arg);

struct cst_journal_stats {
	uint64_t epoch, capacity, used, state; /* bytes: of both files; of the current one; of a checkpoint at most */
	uint64_t records, commits, syncs, checkpoints, bytes_written;
	uint64_t replayed;  /* records when it was opened */
	uint64_t torn_tail; /* bytes after the last good record that were none, then */
};
void cst_journal_stats(struct cst_journal *j, struct cst_journal_stats *stats);

/* What a journal's bytes say; for opening it, for people and for tests. */
struct cst_journal_scan {
	bool header;	/* there is one */
	bool whole;	/* so is the checkpoint */
	bool continued; /* it ends with that */
	bool damaged;	/* `why` says how */
	uint64_t epoch;
	uint32_t tag;
	uint64_t records; /* good ones */
	uint64_t end;	  /* bytes that they take */
	char why[160];
	struct cst_state state; /* what they amount to */
};
/* `each` (may be NULL) gets every good record, with its place. cst_state_fini(&scan->state) when done. */
void cst_journal_scan(const void *bytes, size_t len, struct cst_journal_scan *scan,
		      void (*each)(void *arg, uint64_t offset, const struct cst_record *r), void *arg);
/* Which of both is current: 0 or 1; -ENOENT: neither was ever made; -EBADMSG. `made`: the format file says that there is a journal. */
int cst_journal_choose(const struct cst_journal_scan scans[2], bool made, struct cst_error *err);
/* Prints both files, a line a record, without changing anything; works on a damaged journal. */
int cst_journal_print(const struct cst_stage_io *io, int dir, void (*line)(void *arg, const char *text), void *arg,
		      struct cst_error *err);
