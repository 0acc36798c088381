/* What the files of a volume share: the object, its handles, and the messages between processes.
 *
 * Threads: any thread calls the functions of volume.h. One service thread for each volume (volume_thread.c) elects, accepts and reads
 * sockets, sends what did not fit at once, delivers replies, gathers touches, and looks every two seconds whether the directory
 * is still there. Three pools do what blocks: `pool` (charges, new entries, slots: may wait for
 * room), `open_pool` (other processes' opens: may read a map), `sync_pool` (verify and fdatasync).
 *
 * Locks, in this order: `gate` (read: the index is used; write: it comes or goes), `lock` (role, handles, requests, queues), a connection's own.
 * Callbacks are made without any of them.
 *
 *   role       CHANGING ──lock won──▶ OWNER ──lock file gone──▶ CHANGING
 *              CHANGING ──greeted───▶ CLIENT ──connection ends──▶ CHANGING
 *              any ──disk fails, directory gone──▶ FAILED (final)
 *   handle     LIVE ──owner ends──▶ PENDING ──asked again──▶ LIVE or DEAD */
#pragma once

#include "base/cleanup.h"
#include "base/pool.h"
#include "cache/volume.h"

#include <errno.h>
#include <pthread.h>
#include <sys/queue.h>
#include <sys/stat.h>

#define CST_VOLUME_MAGIC 0x564f4c55u
#define CST_HANDLE_MAGIC 0x56484e44u
#define CST_CONN_MAGIC 0x56434f4eu

/* ---- messages (volume_message.c): one SOCK_SEQPACKET packet each, little endian ----
 *
 *   0  4  "CSTV"            16  4  flags of a request, rc of a reply
 *   4  1  protocol, 1       20  4  bytes of the body, which is the rest of the packet
 *   5  1  1: a reply        24     body by type
 *   6  2  type
 *   8  8  number of the request; 0: none is waited for */
#define CST_VOLUME_PROTOCOL 1
#define CST_VOLUME_MESSAGE_MAX 8192u
#define CST_VOLUME_TOUCHES 256u
#define CST_VOLUME_LIST 96u

enum cst_volume_type {			   /* body of the request → of the reply */
		       CST_VMSG_HELLO = 1, /* quota 8 → quota 8 */
		       CST_VMSG_PING,	   /* → */
		       CST_VMSG_OPEN,	   /* identity → entry, created 4 */
		       CST_VMSG_CLOSE,	   /* name 8, version 8, touches 4; no reply */
		       CST_VMSG_CHARGE,	   /* name 8, version 8, bytes 8 → */
		       CST_VMSG_COMPLETE,  /* name 8, version 8; flags: verify → */
		       CST_VMSG_RESERVE,   /* identity → entry, created 4 (0: it was there, and is open now) */
		       CST_VMSG_COMMIT,	   /* entry; flags: written → entry, created 4 */
		       CST_VMSG_TOUCH,	   /* up to 256 × (name 8, version 8, count 4); no reply */
		       CST_VMSG_FORGET,	   /* name 8, version 8; no reply */
		       CST_VMSG_LIST,	   /* cursor 8, max 4 → cursor 8, entries */
		       CST_VMSG_DROP,	   /* name 8, version 8 → */
		       CST_VMSG_PIN,	   /* name 8, version 8; flags: pin → */
		       CST_VMSG_RULE,	   /* prefix; flags: add → */
		       CST_VMSG_RULES,	   /* offset 8 → all 8, a piece of the text */
		       CST_VMSG_STATS,	   /* → 14 × 8, full 4 */
		       CST_VMSG_FAILED,	   /* owner to client, no reply; flags: -rc */
		       CST_VMSG_TYPES,
};

struct cst_volume_touch_item {
	uint64_t name, version;
	uint32_t count;
};
/* One message, decoded. Slices point into the packet. */
struct cst_volume_message {
	enum cst_volume_type type;
	bool reply;
	uint64_t id;
	uint32_t flags;
	int rc;
	struct cst_cache_identity identity; /* OPEN, RESERVE whole; else name and version */
	struct cst_index_entry entry;
	bool created;
	int64_t bytes;	       /* CHARGE */
	uint64_t number;       /* HELLO: quota; LIST: cursor; RULES: offset, whole length */
	uint32_t count;	       /* CLOSE: touches; LIST: max, entries; TOUCH: items */
	struct cst_slice text; /* RULE, RULES; LIST replies and TOUCH: the items, encoded */
	struct cst_index_stats stats;
};
/* Bytes written to out[CST_VOLUME_MESSAGE_MAX]. */
size_t cst_volume_message_write(const struct cst_volume_message *m, uint8_t out[CST_VOLUME_MESSAGE_MAX]);
/* 0 or -EPROTO. */
int cst_volume_message_parse(const uint8_t *data, size_t len, struct cst_volume_message *m);
/* Items of `text`, which parse has checked. */
void cst_volume_message_touch(const struct cst_volume_message *m, uint32_t i, struct cst_volume_touch_item *item);
void cst_volume_message_add_touch(struct cst_buf *text, const struct cst_volume_touch_item *item);
void cst_volume_message_entry(const struct cst_volume_message *m, uint32_t i, struct cst_index_entry *entry);
void cst_volume_message_add_entry(struct cst_buf *text, const struct cst_index_entry *entry);

/* A packet that waits for room in the socket. */
struct cst_volume_packet {
	STAILQ_ENTRY(cst_volume_packet) link;
	size_t len;
	uint8_t data[];
};
STAILQ_HEAD(cst_volume_queue, cst_volume_packet);
/* Sends what it can of the queue: 0: empty now; -EAGAIN: the rest waits for room; else the connection is dead. */
int cst_volume_queue_flush(struct cst_volume_queue *q, int fd);
void cst_volume_queue_add(struct cst_volume_queue *q, const uint8_t *data, size_t len);
void cst_volume_queue_clear(struct cst_volume_queue *q);

/* ---- the volume ---- */

enum cst_volume_role { CST_ROLE_CHANGING, CST_ROLE_OWNER, CST_ROLE_CLIENT, CST_ROLE_FAILED };
enum cst_handle_state { CST_HANDLE_LIVE, CST_HANDLE_PENDING, CST_HANDLE_DEAD };

struct cst_volume_handle {
	unsigned magic;
	struct cst_volume *volume;
	struct cst_ref refs; /* one until it is closed, one for each request under way */
	uint64_t name, version, size;
	/* under the volume's lock */
	enum cst_handle_state state;
	unsigned touches;
	bool dirty; /* in `dirty` of the volume */
	TAILQ_ENTRY(cst_volume_handle) link, dirty_link;
};
TAILQ_HEAD(cst_handle_list, cst_volume_handle);

/* A client's request that waits for its reply. */
struct cst_volume_request {
	uint64_t id;
	enum cst_volume_type type;
	struct cst_volume_handle *handle; /* referenced; or NULL */
	/* The reply, or m->rc = -EAGAIN (owner changing) or -EIO (failed) with nothing else in it. */
	void (*answer)(struct cst_volume *v, struct cst_volume_request *r, const struct cst_volume_message *m);
	union {
		cst_volume_open_fn open;
		cst_volume_done_fn done;
	} fn;
	void *arg;
	TAILQ_ENTRY(cst_volume_request) link;
};
TAILQ_HEAD(cst_request_list, cst_volume_request);

struct cst_volume_conn;
TAILQ_HEAD(cst_conn_list, cst_volume_conn);

struct cst_volume {
	unsigned magic;
	struct cst_volume_config config;
	char *path; /* where it really is */
	int dir;
	dev_t device; /* of dir */
	ino_t inode;
	bool memory; /* tmpfs: writing does not wait */
	struct cst_pool *pool, *open_pool, *sync_pool;
	unsigned long thread;
	int epoll, wake;

	pthread_rwlock_t gate;
	struct cst_index *index; /* gate; NULL unless this process is the owner */

	pthread_mutex_t lock; /* from here on */
	pthread_cond_t changed;
	enum cst_volume_role role;
	bool opened;	     /* cst_volume_open() has returned: failures are told, not returned */
	bool stopping, told; /* told: config.failed was called */
	int failed_rc;
	char failed_what[128];
	struct cst_error start_error; /* why the first election failed */
	struct cst_handle_list handles, dirty;
	int64_t touch_at;   /* when the dirty ones go out; 0: none are */
	uint64_t put_bytes; /* copies that wait to be written */
	uint64_t
		epoch; /* counts owners: what was agreed with an earlier one (reservations) is void. Changes under gate and lock */
	uint64_t last_id;
	int peer; /* connection to the owner, or -1 */
	bool peer_blocked;
	struct cst_volume_queue out;
	unsigned out_count;
	struct cst_request_list requests;
	int64_t asked_at, heard_at; /* oldest unanswered sign of life asked for (0: none), last packet from the owner */

	/* service thread only */
	int lock_fd, listener;
	bool listener_paused; /* until the next look */
	bool greeting;
	int64_t next_try, backoff, next_look;
	bool quota_told;
	struct cst_conn_list conns;
};

/* volume_dir.c: opens or makes the directory; fills path, dir, device, inode, memory. */
int cst_volume_dir_open(struct cst_volume *v, struct cst_error *err);
/* 0: it is what was opened; -ENOENT: deleted or replaced; else a disk error. */
int cst_volume_dir_check(const struct cst_volume *v);
/* 0: locked (v->lock_fd); -EAGAIN: another has it; else an error. */
int cst_volume_dir_lock(struct cst_volume *v);
void cst_volume_dir_unlock(struct cst_volume *v);
/* False: the lock file was removed or replaced, so others may not see that it is taken. */
bool cst_volume_dir_locked(const struct cst_volume *v);
int cst_volume_dir_listen(struct cst_volume *v); /* descriptor or -errno */
int cst_volume_dir_connect(struct cst_volume *v);
bool cst_volume_dir_has_socket(const struct cst_volume *v);
bool cst_volume_peer_is_us(int fd); /* the same user at the other end */

/* volume_thread.c */
void *cst_volume_thread(void *volume);
void cst_volume_wake(const struct cst_volume *v);
/* The volume is no longer of use. Any thread, also while the index is in use. */
void cst_volume_give_up(struct cst_volume *v, int rc, const char *what);
static inline bool cst_volume_is_disk_error(int rc)
{
	return rc == -EIO || rc == -EROFS || rc == -ENODEV || rc == -ENXIO || rc == -ESTALE || rc == -EUCLEAN;
}

/* volume.c */
struct cst_volume_handle *cst_volume_handle_new(struct cst_volume *v, const struct cst_index_entry *entry);
struct cst_volume_handle *cst_volume_handle_ref(struct cst_volume_handle *h);
/* Of one found in the list: false when its last reference is going just now. */
bool cst_volume_handle_try_ref(struct cst_volume_handle *h);
void cst_volume_handle_unref(struct cst_volume_handle *h);
int cst_volume_refusal(
	struct cst_volume *v); /* what to answer when there is no owner: -EIO when failed, else -EAGAIN */
void cst_volume_flush_touches(struct cst_volume *v);
/* The index for a short time, or NULL when this process is not the owner; put only what was got. */
struct cst_index *cst_volume_index_get(struct cst_volume *v);
void cst_volume_index_put(struct cst_volume *v);

/* volume_work.c: these block. Owner's side; -EAGAIN when this process is not the owner any more. The caller has the entry open. */
int cst_volume_work_complete(struct cst_volume *v, uint64_t name, uint64_t version, bool verify);
/* A client died: what it had charged and not written is given back, at most `charged`. */
void cst_volume_work_recount(struct cst_volume *v, uint64_t name, uint64_t version, uint64_t charged);
/* An entry never takes more than its object has bytes: what two processes charge because both write the same block counts once. */
int cst_volume_work_charge(struct cst_index *x, uint64_t name, uint64_t version, int64_t bytes);
/* Reserves; when it is there already, opens it (*created false). */
int cst_volume_work_reserve(struct cst_index *x, const struct cst_cache_identity *id, bool pin,
			    struct cst_index_entry *entry, bool *created);
int cst_volume_work_write_slot(struct cst_volume *v, const struct cst_index_entry *entry,
			       const struct cst_cache_identity *id, const struct iovec *iov, int iov_count);

/* volume_client.c */
/* Sends a request and keeps it until its reply. False: no owner now; r is still the caller's. */
bool cst_volume_client_send(struct cst_volume *v, struct cst_volume_request *r, struct cst_volume_message *m);
bool cst_volume_client_send_locked(struct cst_volume *v, struct cst_volume_request *r, struct cst_volume_message *m);
/* True on the service thread of v, which would wait for itself: the blocking calls are refused there (-EDEADLK). */
bool cst_volume_is_service_thread(const struct cst_volume *v);
/* Sends, waits; the reply's body is copied into `body` (may be NULL), which m then points into. Returns m's rc. */
int cst_volume_client_call(struct cst_volume *v, struct cst_volume_message *m, struct cst_buf *body);
/* Service thread. */
void cst_volume_client_greet(struct cst_volume *v);
void cst_volume_client_event(struct cst_volume *v, uint32_t events);
void cst_volume_client_tick(struct cst_volume *v, int64_t now);
void cst_volume_client_disconnect(struct cst_volume *v, int rc); /* requests under way end with rc */

/* volume_server.c: service thread. */
bool cst_volume_server_accept(struct cst_volume *v); /* false: no descriptors or memory for the one that waits */
void cst_volume_server_event(struct cst_volume_conn *c, uint32_t events);
void cst_volume_server_close(struct cst_volume *v, int failed_rc); /* all connections; ≠ 0: they are told */
void cst_volume_server_sweep(
	struct cst_volume *v); /* lets go of closed ones: no event of this round can name them any more */
