/* What the files of src/fuse share: the mount, its channels and its requests under way. Not for other folders.
 *
 * A channel is one descriptor of the connection (the first, or a clone) and the thread that reads it. The kernel keeps requests per
 * descriptor, so an answer is written where its request was read. A request lives from the read until the reply was written and
 * the reader has left its dispatch; the table finds it for INTERRUPT.
 *
 * Locks: shard.lock covers the list of requests of that shard; mount.lock covers the fields said below; notify.lock the queue. None is held
 * while the file system is called or the kernel is written to. */
#pragma once

#include "fuse/fuse.h"
#include "fuse/init.h"
#include "fuse/mountpoint.h"
#include "fuse/parse.h"
#include "supervisor/opens.h"
#include "supervisor/outcome.h"

#include <pthread.h>
#include <sys/queue.h>

#define CST_FUSE_MAGIC 0x46755365u
#define CST_FUSE_REQUEST_MAGIC 0x52657155u
#define CST_FUSE_SHARDS 64u
#define CST_FUSE_CHANNELS_MAX 64u
/* Largest answer to READDIR(PLUS) that is gathered, whatever the kernel asks for. */
#define CST_FUSE_DIRENTS_MAX (1u << 20)
/* Messages to the kernel that wait while one of them waits for an answer of ours. */
#define CST_FUSE_NOTIFIERS 4u

struct cst_fuse_channel {
	struct cst_fuse *fuse;
	int fd;
	bool shares_fd; /* no clone could be had: same descriptor as channel 0 */
	bool idle;	/* holds the connection, is not read from */
	unsigned index;
	unsigned long thread;
	bool started, left;    /* under fuse->lock */
	struct cst_beat *beat; /* says since when it is busy with a request; NULL: nobody asks */
	char *buffer;	       /* of the pool; the reader's alone */
};

/* What readers read into. A WRITE that the file system does not answer at once keeps the buffer of its reader, which gets another one. */
struct cst_fuse_buffers {
	pthread_mutex_t lock; /* a leaf */
	size_t size;	      /* bytes of one; grows once, before the readers start */
	size_t lead;	      /* where a request begins, so that the data of a WRITE begins with a page */
	unsigned count;	      /* under lock: in `spare` */
	char *spare[16];
};

struct cst_fuse_request {
	struct cst_fs_call call;
	uint32_t magic;
	uint32_t opcode;
	int refs;	 /* one of the dispatching reader, one of the pending reply */
	bool dispatched; /* the file system has returned from the first call: `cancel` is in place */
	uint64_t unique;
	uint64_t node, fh; /* as they came */
	uint32_t size;
	bool writes;	   /* OPEN, CREATE: for writing; its close is to be told */
	bool begun;	   /* a process before this one has begun it, and perhaps done it */
	int buffer_state;  /* atomic: CST_FUSE_BUFFER_* */
	char *buffer;	   /* WRITE: the reader's, taken along */
	const char *name2; /* as name */
	const char *value; /* SETXATTR, a short WRITE: its bytes, copied */
	struct cst_fuse_channel *channel;
	TAILQ_ENTRY(cst_fuse_request) link;
	char *dirents;
	uint32_t dirents_len, dirents_cap;
	char name[]; /* the names and the value that came along: valid until the reply */
};
/* Whose the buffer is that the bytes of a WRITE lie in. */
enum { CST_FUSE_BUFFER_READERS, CST_FUSE_BUFFER_TAKEN, CST_FUSE_BUFFER_DONE /* answered */ };
/* A WRITE up to this size is copied rather than a whole buffer kept from its reader. */
#define CST_FUSE_WRITE_COPY 16384u
TAILQ_HEAD(cst_fuse_request_list, cst_fuse_request);

struct cst_fuse_shard {
	pthread_mutex_t lock;
	struct cst_fuse_request_list list;
} __attribute__((aligned(64)));

struct cst_fuse_news;
TAILQ_HEAD(cst_fuse_news_list, cst_fuse_news);

/* Messages to the kernel: notify.c. */
struct cst_fuse_notify {
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t wake;  /* of the threads that send */
	pthread_cond_t heard; /* of who waits for them */
	struct cst_fuse_news_list queue, sending;
	struct cst_fuse_news **buckets; /* by node */
	size_t bucket_count, nodes, bytes;
	uint64_t count;	     /* messages that wait */
	uint64_t taken;	     /* that ever came */
	uint64_t lost;	     /* that found no room, since there was nothing to send last */
	unsigned settling;   /* who waits */
	bool epoch_due;	     /* an INC_EPOCH is to be sent */
	bool read_ahead_due; /* read_ahead_wanted is to be written */
	unsigned long threads[CST_FUSE_NOTIFIERS];
	unsigned started, running;
	bool ending;
	bool warned; /* atomic */
};

struct cst_fuse {
	uint32_t magic;
	struct cst_fs *fs;
	struct cst_fs_host host;
	struct cst_fuse_mountpoint where;
	struct cst_fuse_init_wish wish;
	struct cst_fuse_init_result agreed;
	bool allow_root;
	uint32_t owner_uid;
	uint32_t read_ahead_kb;	       /* atomic: what the kernel has now */
	uint32_t read_ahead_most;      /* configured; 0: left as the kernel has it */
	uint32_t read_ahead_wanted;    /* atomic: for the files that are open now */
	char *backing_dir;	       /* or NULL */
	int backing_error;	       /* atomic: -errno of the last backing file, 0: it was taken */
	unsigned threads;	       /* wanted */
	struct cst_keeper *keeper;     /* NULL: this process holds the mount itself */
	struct cst_opens *opens;       /* with a keeper */
	struct cst_outcomes *outcomes; /* with a keeper, of a mount that writes */
	bool leaving;		       /* another process goes on */
	uint32_t max_read;

	struct cst_fuse_channel channels[CST_FUSE_CHANNELS_MAX];
	unsigned channel_count;
	int dead_fd; /* what a channel's descriptor is replaced by when the connection ends (a pipe's read end): writes give EBADF */

	pthread_mutex_t lock;
	pthread_cond_t changed; /* readers_left, in_flight falling to 0 while stopping */
	unsigned readers_left;	/* under lock: readers that have not ended */
	unsigned stops_running; /* under lock: threads inside cst_fuse_stop() */
	bool gone;		/* under lock: descriptors replaced, readers joined */
	int stopping;		/* atomic */

	struct cst_fuse_buffers buffers;
	struct cst_fuse_shard shards[CST_FUSE_SHARDS];
	uint64_t requests, interrupts; /* atomic */
	uint64_t in_flight;	       /* atomic */

	struct cst_fuse_notify notify;
};

/* buffer.c */
void cst_fuse_buffers_init(struct cst_fuse *fuse);
void cst_fuse_buffers_fini(struct cst_fuse *fuse);
/* After INIT, before the readers start: those that the channels have are exchanged for such that hold a WRITE of max_write bytes. */
void cst_fuse_buffers_grow(struct cst_fuse *fuse, uint32_t max_write);
char *cst_fuse_buffer_get(struct cst_fuse *fuse);
void cst_fuse_buffer_put(struct cst_fuse *fuse, char *buffer);
/* read(2) of one request; *data: where it begins in the channel's buffer. */
ssize_t cst_fuse_buffer_read(const struct cst_fuse_channel *c, char **data);

/* request.c */
struct cst_fuse_request *cst_fuse_request_new(struct cst_fuse_channel *channel, const struct cst_fuse_in *in);
/* The reader's reference. A WRITE that waits takes the channel's buffer along. */
void cst_fuse_request_dispatched(struct cst_fuse_request *r);
/* Takes the request out of the table, writes header and iov[0..count) and drops the reply's reference. iov has room for one more at
 * the front: iov[-1] is not touched, the caller passes iov[0] free for the header and its data from iov[1] on; count includes it.
 * 0, or -errno of the write: -ENOENT when nobody waits any more. */
int cst_fuse_request_reply(struct cst_fuse_request *r, int error, struct iovec *iov, int count);
/* INTERRUPT: 0, or -EAGAIN when the request is not known or still being dispatched. */
int cst_fuse_request_interrupt(struct cst_fuse *fuse, uint64_t unique);
/* Interrupts every request under way; used at the end. */
void cst_fuse_request_interrupt_all(struct cst_fuse *fuse);
/* Logs what still hangs. */
void cst_fuse_request_log_pending(struct cst_fuse *fuse);

/* reply.c: fills the vtable. */
void cst_fuse_reply_init(struct cst_fuse *fuse);
/* An answer that needs no request object. 0 or -errno. */
int cst_fuse_reply_raw(const struct cst_fuse_channel *channel, uint64_t unique, int error, const void *data,
		       size_t len);

/* backing.c */
void cst_fuse_backing_start(struct cst_fuse *fuse); /* after INIT: can it be had? */
int cst_fuse_backing_open(void *host, int fd);
void cst_fuse_backing_close(void *host, int backing);
const char *cst_fuse_backing_state(const struct cst_fuse *fuse); /* cst_fuse_stats.passthrough */

/* keep.c: what there is to do with a keeper; without one these do nothing. */
int cst_fuse_keep_attach(struct cst_fuse *fuse, struct cst_error *err); /* the first channel's descriptor, or -errno */
bool cst_fuse_keep_restore(struct cst_fuse *fuse); /* true: agreed is what a predecessor negotiated */
void cst_fuse_keep_agreed(struct cst_fuse *fuse);
unsigned cst_fuse_keep_clones(struct cst_fuse *fuse, unsigned wanted, int fds[CST_KEEPER_CLONES]);
void cst_fuse_keep_resend(struct cst_fuse *fuse);
void cst_fuse_keep_opened(struct cst_fuse *fuse, const struct cst_fuse_request *r, uint64_t fh, int backing);
void cst_fuse_keep_released(struct cst_fuse *fuse, uint64_t fh); /* as it came */
/* What may not be done twice is noted before its reply is written, and forgotten when that was; noted: it was. */
bool cst_fuse_keep_note(const struct cst_fuse_request *r, int error, const struct iovec *iov, int count);
void cst_fuse_keep_forget(const struct cst_fuse_request *r);
/* A request that comes again: true when a process before this one has done it, and the answer has been given. *begun: it has begun it. */
bool cst_fuse_keep_answered(const struct cst_fuse_channel *channel, const struct cst_fuse_in *in, bool *begun);
/* Notes that it begins. */
void cst_fuse_keep_begin(const struct cst_fuse_request *r);
/* What the outcome of a request is that was begun before: names that it was to make or remove are as it would have left them. True: the answer comes by itself. */
bool cst_fuse_keep_redone(struct cst_fuse_request *r, int *rc);
int cst_fuse_keep_unmount(struct cst_fuse *fuse); /* -ENOENT: no keeper */
void cst_fuse_keep_end(struct cst_fuse *fuse);

/* readahead.c: the host's open_files. */
void cst_fuse_read_ahead_for(void *host, uint64_t open_files);
/* KiB for so many open files: a power of two between 128 and `most`, or `most`. `now`: what is set. */
uint32_t cst_fuse_read_ahead_step(uint64_t open_files, uint64_t memory, uint32_t most, uint32_t now);
void cst_fuse_read_ahead_write(struct cst_fuse *fuse); /* the notifier: it may block */

/* dispatch.c: one request, whole in `data`. */
void cst_fuse_dispatch(struct cst_fuse_channel *channel, const void *data, size_t len);

/* notify.c */
void cst_fuse_notify_read_ahead(struct cst_fuse *fuse); /* read_ahead_wanted has changed */
int cst_fuse_notify_start(struct cst_fuse *fuse);
/* Asks the thread to end and waits for it a while: false when it still waits for the kernel, which waits for an answer of ours. */
bool cst_fuse_notify_stop(struct cst_fuse *fuse, int64_t ns);
void cst_fuse_notify_node(void *host, uint64_t node, int64_t offset, int64_t length);
void cst_fuse_notify_name(void *host, uint64_t parent, struct cst_slice name);
bool cst_fuse_notify_settle(void *host);
