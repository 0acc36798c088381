/* Memory that a mount keeps while the process that serves it is replaced: one memory file, made and held by the supervisor, mapped by whoever
 * serves. It begins with a header of plain fields; behind it lie records, found again by their kind.
 *
 * A process may be killed between any two instructions, and the next one sees only whole records: a record is committed by one store of
 * its sequence number, which is the last thing written, and freed by one store of 0. What allocates them (free lists) is private to the
 * process and made anew by a scan when the next one opens the memory. Numbers that must never be used twice are counters in the header, taken
 * with one atomic instruction.
 *
 * Any thread of the serving process. The supervisor reads and writes the header alone, each field by one store. */
#pragma once

#include "base/error.h"

#include <limits.h>
#include <stdint.h>

/* Raised whenever a field moves or a record changes: another program refuses the memory then, and is not started on it. */
#define CST_STATE_LAYOUT 2u
#define CST_STATE_BEATS 96u
#define CST_STATE_REFUSED 6144u

enum cst_state_kind { CST_STATE_IDENTITY = 1, CST_STATE_OPEN = 2, CST_STATE_OUTCOME = 3, CST_STATE_KINDS };

/* A sign of life. TICKS: `at` is renewed again and again. WORKS: `at` is when a piece of work was begun that never lasts long, 0: none is. */
enum cst_beat_kind { CST_BEAT_UNUSED, CST_BEAT_TICKS, CST_BEAT_WORKS };
struct cst_beat {
	int64_t at;    /* cst_now() */
	uint64_t work; /* the request's `unique` */
	uint32_t kind;
	uint32_t padding;
	char name[16];
	uint64_t more[3];
};

struct cst_state_header {
	uint64_t magic;
	uint32_t layout, header_size;
	uint64_t size;	/* of the memory file */
	uint64_t slabs; /* in use or used once */

	/* What was agreed with the kernel. */
	uint32_t init_valid, init_minor;
	uint64_t init_flags;
	uint32_t init_background, init_max_write;
	uint32_t read_ahead_kb, padding;

	/* Counters of the inode table, and what tells its file handles from those of another mount. */
	uint64_t next_node, generation;

	/* The mount. */
	uint32_t mounted, major, minor, owner_uid;
	char mountpoint[PATH_MAX];

	/* How it is kept. */
	int64_t hang_timeout; /* ns */
	uint32_t epoch;	      /* number of the serving process, from 1 */
	uint32_t background;
	int32_t supervisor_pid, serving_pid;
	int64_t supervisor_started, serving_started, mount_started; /* cst_now() */
	uint32_t restarts, hangs, upgrades, takeovers;
	int64_t died_at; /* cst_wall(); 0: none has */
	char died_of[256];
	uint32_t upgrade_begun, upgrade_ended; /* equal: none is under way */
	char upgrade_error[1400];	       /* of the last one; "": it went well */

	/* Where both write their log. */
	uint32_t log_level, log_json;
	char log_path[PATH_MAX];

	struct cst_beat beats[CST_STATE_BEATS];

	char refused[CST_STATE_REFUSED] __attribute__((aligned(8))); /* the file system's: opens that may come again */
};

struct cst_state;

/* A new memory file with a header; its descriptor or -errno. */
int cst_state_make(struct cst_error *err);
/* `whole`: records too. -EPROTO: made by a program of another layout. Takes no ownership of the descriptor. */
struct cst_state *cst_state_open(int fd, bool whole, struct cst_error *err);
void cst_state_close(struct cst_state *state);
struct cst_state_header *cst_state_header(const struct cst_state *state);

/* Room for a record, aligned to 8, not to be found by a successor before it is committed. When the file is full it comes from the heap: it
 * works as any, and a successor will not find it. Never NULL. */
void *cst_state_alloc(struct cst_state *state, enum cst_state_kind kind, size_t size);
/* The record is whole. Of two that say different things about the same matter the one committed later counts. */
void cst_state_commit(struct cst_state *state, void *record);
void cst_state_free(struct cst_state *state, void *record);
/* What a predecessor committed: before others allocate or free. `room`: at least the size asked for. */
void cst_state_each(struct cst_state *state, enum cst_state_kind kind,
		    void (*each)(void *arg, void *record, size_t room, uint64_t sequence), void *arg);

struct cst_state_stats {
	uint64_t records, slabs, on_heap;
};
void cst_state_stats(const struct cst_state *state, struct cst_state_stats *stats);

/* A free beat of the header, taken for good; NULL: all are in use. */
struct cst_beat *cst_beat_take(struct cst_state_header *header, enum cst_beat_kind kind, const char *name);
static inline void cst_beat_set(struct cst_beat *beat, int64_t at)
{
	__atomic_store_n(&beat->at, at, __ATOMIC_RELAXED);
}
/* The worst of them: how long ago, in ns; 0: all is well or none beats. *which may be NULL. */
int64_t cst_beat_oldest(const struct cst_state_header *header, int64_t now, const struct cst_beat **which);
