/* What the files of src/publish share. Everything here is guarded by cst_publish.lock unless it says otherwise.
 *
 * The bytes of a stream, from its front to its end:
 *
 *	[0, source.size)	in the store: the version that it goes on from; copied there by UploadPartCopy when an upload needs them
 *	[…, assigned)		in parts of the upload: those that are DONE have left memory, the chunks of the others are still here
 *	[assigned, size)	in chunks
 *
 * A chunk is up to a block of memory, or, when memory was short, a piece of the spill file (spill.c). Its life:
 *
 *	MEMORY ──spill──▶ SPILLING ──▶ DISK ──load──▶ MEMORY (in new chunks) ──sent──▶ gone
 *
 * advance_locked() looks at a stream and starts whatever can go on: every event changes the state and calls it. Requests, copies of bytes,
 * callbacks and jobs on the disk are never run under the lock: they are collected in a struct todo and run after. While bytes are being copied into a stream
 * (`copying`), which happens without the lock, advance_locked() waits for the end of that: so the last chunk stays as it is. */
#pragma once

#include "publish/keep.h"
#include "publish/publish.h"
#include "publish/verdict.h"

#include "base/pool.h"

#include <errno.h>
#include <pthread.h>

#define BLOCK_SIZE (128u << 10)
#define GRANT_WRITE 9 /* blocks that a write gets at a time, at most: 1 MiB that begins within one */
#define GRANT_MAX 48  /* that a stream gets at once: the front of an object that is too small for a part */
#define MIB (UINT64_C(1) << 20)
#define PUBLISH_MAGIC 0x5055424cu
#define STREAM_MAGIC 0x50535452u
#define CALL_MAGIC 0x5043414cu
#define MAYBE_MAX 8
#define RETRIES_MAX 5 /* of a publication that finds everything as it should be and is refused all the same */

/* What goes along with an object; shared by the stream and its requests. */
struct properties {
	struct cst_ref ref;
	struct cst_http_header *meta; /* room for one more: the write id */
	size_t meta_count;
	struct cst_slice content_type, storage_class, acl, extra;
	struct cst_buf text; /* what the slices point to */
};

enum chunk_state { CHUNK_MEMORY, CHUNK_SPILLING, CHUNK_DISK, CHUNK_LOADING };
struct chunk {
	TAILQ_ENTRY(chunk) link;
	enum chunk_state state;
	char *block;		  /* MEMORY, SPILLING */
	uint64_t slot;		  /* DISK, LOADING: where in the spill file */
	uint64_t offset;	  /* of its first byte in the object */
	uint32_t skip;		  /* bytes at the front of the block that are needed no more */
	uint32_t length;	  /* bytes behind them */
	unsigned part;		  /* its number; 0: in none */
	unsigned pins;		  /* requests that send it */
	uint64_t crc_before, crc; /* of the stream's bytes up to its first and its last */
};
TAILQ_HEAD(chunk_list, chunk);

enum part_state { PART_WAITING, PART_FLYING, PART_DONE, PART_FAILED };
struct part {
	struct cst_object_part part; /* number, size; etag when DONE */
	uint64_t offset;
	enum part_state state;
	bool copy; /* of the source */
};

enum call_kind {
	CALL_BEGIN,
	CALL_PART,
	CALL_COPY,
	CALL_PUT,
	CALL_COMPLETE,
	CALL_APPEND,
	CALL_DELETE,
	CALL_HEAD,
	CALL_FRONT,
	CALL_ABORT,
};
/* A request under way. Two references: who starts it, and its end. */
struct call {
	unsigned magic;
	struct cst_ref ref; /* atomic */
	enum call_kind kind;
	struct cst_publish_stream *stream; /* counted */
	struct cst_object_op *op;
	bool ended, cancelled;
	STAILQ_ENTRY(call) start; /* in a todo */
	LIST_ENTRY(call) link;	  /* of the stream */
	unsigned number;	  /* of a part */
	uint64_t offset, length, crc64;
	bool has_crc64;
	uint64_t before; /* of an append: the CRC of what is there */
	bool has_before;
	bool pins; /* the vectors are chunks */
	struct iovec *iov;
	int iov_count;
	struct properties *properties; /* counted, or NULL */
	char id[WRITE_ID_MAX];
	enum cst_object_condition condition;
	char etag[CST_ETAG_MAX];
	struct cst_object_part *parts; /* of a completion */
	size_t part_count;
	struct cst_buf upload_id; /* of an abort */
};

enum phase {
	PHASE_NONE,
	PHASE_SEND,  /* bytes are on their way: parts, or back from the disk */
	PHASE_CHECK, /* is the base still there? */
	PHASE_CHECKING,
	PHASE_REPLACE, /* APPENDABLE: the base is to be deleted */
	PHASE_REPLACING,
	PHASE_REQUEST, /* the publishing request */
	PHASE_REQUESTED,
	PHASE_VERIFY, /* it was refused: whose object is there? */
	PHASE_VERIFYING,
	PHASE_KEEP, /* a conflict: the bytes go to keep_dir */
	PHASE_KEEPING,
};
TAILQ_HEAD(sync_list, cst_publish_sync);
struct publication {
	enum phase phase;
	bool put; /* one PutObject */
	uint64_t target;
	uint64_t run;			/* CRC of the stream's bytes up to target */
	uint64_t append_to, append_run; /* of the append under way: where it ends */
	unsigned generation, touches;
	bool begun, formed, checked;
	char id[WRITE_ID_MAX];
	unsigned retries;
	struct properties *properties;
	/* the answer that advance_locked() is to look at */
	bool answered;
	enum call_kind answer;
	int rc;
	struct cst_error err;
	bool repeated, upload_gone;
	struct cst_object_info info; /* without what it points to */
	char seen_id[WRITE_ID_MAX];
	/* why it was refused, while that is verified */
	int refused;
	bool refused_gone;
	struct cst_error refused_err;
	struct sync_list syncs;
};
/* A publication whose outcome is not known. */
struct maybe {
	char id[WRITE_ID_MAX];
	uint64_t target, run, crc64;
	bool has_crc64, put;
	unsigned content;
};

struct cst_publish_stream {
	unsigned magic;
	struct cst_ref ref; /* atomic: the owner until it is closed and done, requests, jobs */
	struct cst_publish *publish;
	TAILQ_ENTRY(cst_publish_stream) link;
	enum cst_publish_mode mode;
	struct cst_buf key;
	struct properties *properties;
	struct cst_publish_base base;
	struct {
		uint64_t size; /* bytes of the front that only the store has */
		char etag[CST_ETAG_MAX];
	} source;
	bool replaced;	   /* APPENDABLE: what is in the store is not what we append to */
	bool base_checked; /* APPENDABLE: it was as it should be, or is ours */

	struct chunk_list chunks;
	unsigned blocks; /* that it has */
	uint64_t size, published, assigned;
	uint64_t crc; /* of the bytes from `source.size` as it was in the beginning */
	/* The CRC of the first `offset` bytes, at which the running one was `run`. */
	struct {
		uint64_t offset, crc64, run;
		bool known;
	} anchor;
	bool retained;			/* what is published is still in chunks */
	unsigned touches, touches_done; /* creates and truncates; those that are published */
	unsigned generation;		/* grows with whatever makes a running publication not enough */
	unsigned content;		/* grows when the bytes are others */
	struct cst_object_info version;

	/* the upload */
	struct cst_buf upload_id;
	bool upload_begun; /* the request is under way */
	char upload_write_id[WRITE_ID_MAX];
	struct part *parts;
	size_t part_count, part_room;
	size_t next_part; /* the first that may be WAITING */
	unsigned flying;
	unsigned restarts;
	bool upload_gone; /* some of its requests are still to be answered */

	/* writing */
	TAILQ_HEAD(cst_publish_write_list, cst_publish_write) writes;
	bool waiting; /* for blocks: */
	unsigned want;
	TAILQ_ENTRY(cst_publish_stream) waiting_link;
	bool copying;
	char *grant[GRANT_MAX];
	unsigned grant_count;
	STAILQ_ENTRY(cst_publish_stream) copy_link;
	bool front_loading;

	/* sending */
	bool hungry; /* has parts to send, and too many requests are under way */
	TAILQ_ENTRY(cst_publish_stream) hungry_link;
	LIST_HEAD(, call) calls;
	unsigned call_count;
	bool loading; /* chunks come back from the disk */
	bool load_waiting;
	TAILQ_ENTRY(cst_publish_stream) load_link;
	uint64_t load_from, load_to;
	unsigned load_blocks;
	unsigned spilling; /* chunks */
	uint64_t disk;	   /* chunks on it */

	struct publication pub;
	struct sync_list syncs; /* for the next publication */
	struct maybe maybe[MAYBE_MAX];
	unsigned maybe_count;

	int stalled; /* a request failed: nothing is sent before the next publication */
	struct cst_error *stall_err;
	int failed; /* for good */
	struct cst_error *fail_err;
	bool kept;
	bool closed, close_keep, keeping, finished;
	bool reset_pending;
	struct cst_publish_base reset_base;
	unsigned reset_touches; /* before it */
};

struct ending {
	struct cst_publish_sync *sync;
	int rc;
	struct cst_object_info version;
	struct cst_error err;
	STAILQ_ENTRY(ending) link;
};
struct job; /* on the disk: spill.c, store.c */
struct todo {
	STAILQ_HEAD(, call) calls;
	STAILQ_HEAD(, cst_publish_stream) copies;
	TAILQ_HEAD(, cst_publish_write) writes; /* finished */
	STAILQ_HEAD(, ending) endings;
	STAILQ_HEAD(, job) jobs;
};
struct job {
	STAILQ_ENTRY(job) link;
	struct cst_publish *publish;
	void (*run)(void *job);
};

struct cst_publish {
	unsigned magic;
	struct cst_publish_config config;
	char *keep_dir, *writer;
	struct cst_object_limits limits;
	bool if_match;
	bool no_conditions; /* the store has refused one as unknown */
	uint64_t part_cap;  /* bytes of the largest part */
	pthread_mutex_t lock;
	pthread_cond_t idle; /* live fell to 0 */
	struct cst_pool *pool;
	TAILQ_HEAD(, cst_publish_stream) streams;
	bool stopped;	       /* requests end as they begin */
	unsigned stream_count; /* open */
	unsigned live;	       /* with those that are still ending, and jobs */

	char *arena;
	char **free_blocks;
	unsigned block_count, free_count, least_free, stream_cap;
	unsigned leaving; /* blocks of parts that are on their way */
	TAILQ_HEAD(, cst_publish_stream) waiting, loads, hungry;
	unsigned waiting_count;
	unsigned flying;
	unsigned calls, copies,
		jobs;	    /* under way, of all kinds; bytes being copied into streams; loads and records being kept */
	bool pumping, pump; /* somebody waits for memory since: memory_pump_locked() is to be called */

	int spill_fd; /* -1: none yet */
	uint64_t *spill_free;
	size_t spill_free_count, spill_free_room;
	uint64_t spill_end;		   /* slots */
	unsigned spilling;		   /* chunks on their way to the disk */
	uint64_t spilled;		   /* chunks there */
	int spill_error;		   /* why the last try failed */
	int64_t keep_failing, keep_failed; /* when records could not be written: since, and last */

	struct cst_publish_stats stats; /* the counters of it */
};

static inline uint64_t blocks_for(uint64_t bytes)
{
	return (bytes + BLOCK_SIZE - 1) / BLOCK_SIZE;
}

/* A conflict's bytes are written to keep_dir: they stay as they are and where they are, and none are added. */
static inline bool is_being_kept(const struct cst_publish_stream *s)
{
	return s->pub.phase == PHASE_KEEP || s->pub.phase == PHASE_KEEPING;
}

/* publish.c */
void publish_todo_init(struct todo *todo);
void publish_todo_run(struct cst_publish *p, struct todo *todo); /* not under the lock */
void advance_locked(struct cst_publish_stream *s, struct todo *todo);
void stream_ref(struct cst_publish_stream *s);
void stream_unref_locked(struct cst_publish_stream *s);
void stream_fail_locked(struct cst_publish_stream *s, int rc, const struct cst_error *err); /* for good */
void stream_stall_locked(struct cst_publish_stream *s, int rc, const struct cst_error *err, struct todo *todo);
bool stream_is_pending(const struct cst_publish_stream *s);
/* "oss://bucket/key", shortened, for errors and the log. */
#define NAME_MAX_TEXT 240
const char *stream_name(const struct cst_publish_stream *s, char text[NAME_MAX_TEXT]);

/* memory.c */
int memory_init(struct cst_publish *p, struct cst_error *err);
void memory_fini(struct cst_publish *p);
char *publish_block_take_locked(struct cst_publish_stream *s);
void block_put_locked(struct cst_publish_stream *s, char *block);
void chunk_free_locked(struct cst_publish_stream *s, struct chunk *c); /* out of the list, memory and slot given back */
void chunks_drop_locked(struct cst_publish_stream *s);
/* Blocks for the first write of a stream, now (true: they are its grant) or when its turn comes. */
bool memory_ask_locked(struct cst_publish_stream *s, unsigned blocks);
void memory_forget_locked(struct cst_publish_stream *s);
/* Memory may be free, or somebody waits for it: gives it, and sees to it that some becomes free. */
void memory_pump_locked(struct cst_publish *p, struct todo *todo);
void memory_hopeless_locked(struct cst_publish *p,
			    struct todo *todo); /* refuses those that wait if nothing can help them */
bool stream_drop_retained_locked(struct cst_publish_stream *s);

/* spill.c */
/* Sends chunks at rest to the disk so that about `blocks` become free. False: there is nothing to send, or no disk. */
bool spill_locked(struct cst_publish *p, unsigned blocks, struct todo *todo);
/* Are the bytes [from, to) in memory? Else they are brought there, and advance_locked() comes again. */
bool load_locked(struct cst_publish_stream *s, uint64_t from, uint64_t to, struct todo *todo);
bool load_serve_locked(struct cst_publish *p,
		       struct todo *todo); /* the first that waits; false: there is no room yet */
void load_refuse_locked(struct cst_publish *p, struct todo *todo);
void load_forget_locked(struct cst_publish_stream *s);
void spill_slot_put_locked(struct cst_publish *p, uint64_t slot);
void spill_fini(struct cst_publish *p);
/* Reads bytes of a chunk on the disk; any thread. 0 or -errno. */
int spill_read(const struct cst_publish *p, uint64_t slot, uint32_t skip, void *data, uint32_t length);

/* write.c */
void writes_serve_locked(struct cst_publish_stream *s, struct todo *todo);
void writes_fail_locked(struct cst_publish_stream *s, int rc, const struct cst_error *err, struct todo *todo);
void write_copy(struct cst_publish_stream *s); /* not under the lock */
void front_answer_locked(struct call *c, int rc, size_t got, const struct cst_error *err, struct todo *todo);

/* part.c */
uint64_t part_goal(const struct cst_publish_stream *s);
uint64_t part_least(const struct cst_publish_stream *s); /* of one that goes out early, for want of memory */
uint64_t size_limit(const struct cst_publish_stream *s);
void parts_early_locked(struct cst_publish_stream *s); /* of what is more than a part */
void parts_make_locked(struct cst_publish_stream *s, uint64_t upto, bool split);
/* The end of a publication that failed, too small for a part that others follow: when more has come since it is no part any more, its bytes are still here.
 * False: it is on its way just now. */
bool parts_rejoin_locked(struct cst_publish_stream *s);
void parts_send_locked(struct cst_publish_stream *s, struct todo *todo);
void hungry_forget_locked(struct cst_publish_stream *s);
bool parts_done(const struct cst_publish_stream *s);
void parts_retry_locked(struct cst_publish_stream *s);
void upload_forget_locked(struct cst_publish_stream *s);		   /* completed, or kept */
void upload_abort_locked(struct cst_publish_stream *s, struct todo *todo); /* nothing of it may be under way */
void part_answer_locked(struct call *c, const struct cst_object_written *written, struct todo *todo);
void begin_answer_locked(struct call *c, const struct cst_object_written *written, struct todo *todo);
void abort_answer_locked(struct call *c, const struct cst_object_written *written);

/* call.c */
struct call *call_new_locked(struct cst_publish_stream *s, enum call_kind kind, struct todo *todo);
void call_body_locked(struct call *c, uint64_t from, uint64_t to); /* pins the chunks */
void call_start(struct call *c);				   /* not under the lock */
void calls_cancel_locked(struct cst_publish_stream *s);
/* They end as failures, aborts of uploads too. */
void calls_stop_locked(struct cst_publish_stream *s);

/* publication.c */
void publication_advance_locked(struct cst_publish_stream *s, struct todo *todo);
/* A copied part has not found its source: another client's doing. */
void publication_conflict_locked(struct cst_publish_stream *s, const struct cst_error *err, struct todo *todo);
void publication_fail_locked(struct cst_publish_stream *s, int rc, const struct cst_error *err, struct todo *todo);
void publication_start_locked(struct cst_publish_stream *s);
void publication_answer_locked(struct call *c, const struct cst_object_written *written);
void head_answer_locked(struct call *c, int rc, const struct cst_object_info *info, const struct cst_error *err);
void sync_end_locked(struct cst_publish_stream *s, struct cst_publish_sync *sync, int rc, const struct cst_error *err,
		     struct todo *todo);
/* The CRC64 of the first `upto` bytes, where the running one is `run`. */
bool total_crc(const struct cst_publish_stream *s, uint64_t upto, uint64_t run, uint64_t *crc64);

/* properties.c */
struct properties *properties_new(const struct cst_object_properties *from);
struct properties *properties_ref(struct properties *p);
void properties_unref(struct properties *p);

/* kept.c: what can't be published goes to keep_dir. Its end ends the publication, or closes the stream. */
void kept_start_locked(struct cst_publish_stream *s, const char *reason, struct todo *todo);
