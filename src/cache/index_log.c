/* The log of the index: index.log, and index.log.new while it is being rewritten.
 *
 * Records of 64 bytes, so that none lies across two sectors; little endian:
 *    0  4  CRC32C of the log's number and the bytes from 4 on
 *    4  1  type                       6  2  flags of an entry: 1 slot, 2 complete, 4 pinned, 8 main, 16 and 32 frequency,
 *                                     64 its files have not been looked at since an unclean stop
 *    8  8  number of the record, from 0
 *   16  8  name      header: "CSTRNLOG"            session, end: boot id     slab: its number
 *   24  8  version   header: number of the log     session, end: boot id
 *   32  8  size      header: format, 1             end: 1: unlogged files may lie about; slab: bytes of the file
 *   40  8  place     extents: bytes charged; slots: number of the slab, and of the slot << 32; slab: bytes of a slot
 *   48  8  records known to be on the disk when this one was made
 *   56  4  minute of the last use, since 1970
 *
 * A record of an entry holds all of it, so records may be repeated, and a log may be rewritten while it changes: what happens meanwhile goes into
 * both. Records are gathered and written by whoever flushes next, mostly the keeper, a few ms later. */
#define CST_LOG_AREA "cache"
#include "cache/index_private.h"

#include "base/digest.h"
#include "base/log.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>

#define LOG_NAME "index.log"
#define NEW_NAME "index.log.new"
#define LOG_MAGIC UINT64_C(0x474f4c4e52545343) /* "CSTRNLOG" */
#define LOG_FORMAT 1u
#define RESERVE (256u << 10) /* bytes kept in the file system beyond the log's end, at a time */
#define REWRITE_STEP 4096u   /* entries */
#define READ_CHUNK (1u << 20)

/* ---- records ---- */

static const struct {
	uint16_t flag, disk;
} disk_flags[] = {{F_SLOT, 1}, {F_COMPLETE, 2}, {F_PINNED, 4}, {F_MAIN, 8}, {F_UNSURE, 64}};
#define DISK_FREQ_SHIFT 4

static void put64(uint8_t *to, uint64_t value)
{
	value = htole64(value);
	memcpy(to, &value, 8);
}

static uint64_t get64(const uint8_t *from)
{
	uint64_t value;
	memcpy(&value, from, 8);
	return le64toh(value);
}

static void put32(uint8_t *to, uint32_t value)
{
	value = htole32(value);
	memcpy(to, &value, 4);
}

static uint32_t get32(const uint8_t *from)
{
	uint32_t value;
	memcpy(&value, from, 4);
	return le32toh(value);
}

static uint32_t record_crc(const uint8_t in[RECORD_SIZE], uint64_t log_id)
{
	uint8_t id[8];
	put64(id, log_id);
	return cst_crc32c(cst_crc32c(0, id, sizeof(id)), in + 4, RECORD_SIZE - 4);
}

void record_encode(const struct record *r, uint64_t log_id, uint64_t seq, uint8_t out[RECORD_SIZE])
{
	unsigned flags = (r->flags & F_FREQ) >> F_FREQ_SHIFT << DISK_FREQ_SHIFT;
	for (size_t i = 0; i < CST_ARRAY_LEN(disk_flags); i++)
		flags |= r->flags & disk_flags[i].flag ? disk_flags[i].disk : 0;
	memset(out, 0, RECORD_SIZE);
	put32(out + 4, r->type | flags << 16);
	put64(out + 8, seq);
	put64(out + 16, r->name);
	put64(out + 24, r->version);
	put64(out + 32, r->size);
	put64(out + 40, r->place);
	put64(out + 48, r->synced);
	put32(out + 56, r->minute);
	put32(out, record_crc(out, log_id));
}

bool record_decode(const uint8_t in[RECORD_SIZE], uint64_t log_id, uint64_t *seq, struct record *r)
{
	uint32_t head = get32(in + 4);
	*seq = get64(in + 8);
	*r = (struct record){
		.type = head & 0xff,
		.name = get64(in + 16),
		.version = get64(in + 24),
		.size = get64(in + 32),
		.place = get64(in + 40),
		.synced = get64(in + 48),
		.minute = get32(in + 56),
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(disk_flags); i++)
		if (head >> 16 & disk_flags[i].disk)
			r->flags |= disk_flags[i].flag;
	r->flags |= (uint16_t)((head >> 16 >> DISK_FREQ_SHIFT & FREQ_MAX) << F_FREQ_SHIFT);
	if (r->type == R_HEADER) {
		log_id = r->version;
		if (r->name != LOG_MAGIC || r->size != LOG_FORMAT)
			return false;
	}
	return get32(in) == record_crc(in, log_id);
}

/* ---- appending ---- */

void log_init(struct log *log)
{
	*log = (struct log){.fd = -1};
}

void log_fini(struct log *log)
{
	if (log->fd >= 0)
		close(log->fd);
	cst_buf_fini(&log->pending);
	cst_buf_fini(&log->flushing);
	log_init(log);
}

static void append(struct log *log, struct record r)
{
	uint8_t bytes[RECORD_SIZE];
	r.synced = log->synced;
	record_encode(&r, log->id, log->records++, bytes);
	cst_buf_add(&log->pending, bytes, sizeof(bytes));
}

static void append_locked(struct cst_index *x, const struct record *r)
{
	if (x->rc)
		return;
	if (x->log.fd >= 0 && !x->log_void)
		append(&x->log, *r);
	if (x->next.fd >= 0)
		append(&x->next, *r);
	if (!x->kick) {
		x->kick = true;
		pthread_cond_signal(&x->keep_wake);
	}
}

static struct record entry_record(const struct entry *e, enum record_type type)
{
	struct record r = {
		.type = type,
		.flags = e->flags & LOGGED_FLAGS,
		.minute = e->minute,
		.name = e->name,
		.version = e->version,
		.size = entry_size(e),
		.place = entry_charged(e),
	};
	return r;
}

void log_entry_locked(struct cst_index *x, uint32_t n)
{
	struct record r = entry_record(at(x, n), R_ENTRY);
	append_locked(x, &r);
	at(x, n)->flags = (uint16_t)(at(x, n)->flags & ~(F_DIRTY | F_GROWN));
}

void log_gone_locked(struct cst_index *x, const struct entry *e)
{
	struct record r = entry_record(e, R_GONE);
	append_locked(x, &r);
}

static struct record slab_record(const struct slab *s, bool gone)
{
	return (struct record){.type = gone ? R_SLAB_GONE : R_SLAB,
			       .name = s->number,
			       .size = s->length,
			       .place = slot_class_length(s->class)};
}

void log_slab_locked(struct cst_index *x, const struct slab *s, bool gone)
{
	struct record r = slab_record(s, gone);
	append_locked(x, &r);
}

/* ---- writing: under log_io ---- */

/* Asks the file system for room beyond the end, so that removals can be logged on a full disk. */
static int reserve(struct log *log)
{
	uint64_t end = log->written + log->flushing.len + RESERVE / 2;
	while (end > log->reserved) {
		if (fallocate(log->fd, FALLOC_FL_KEEP_SIZE, (off_t)log->reserved, RESERVE) == 0) {
			log->reserved += RESERVE;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno == ENOSPC || errno == EDQUOT)
			return -ENOSPC;
		log->reserved = UINT64_MAX; /* not on this file system */
	}
	return 0;
}

/* What is pending goes into the file. *count: the records that are in it then. -ENOSPC: some are not. *low: there may be no room for more. */
static int flush(struct cst_index *x, struct log *log, uint64_t *count, bool *low)
{
	*low = false;
	pthread_mutex_lock(&x->lock);
	if (log->flushing.len == 0) {
		struct cst_buf empty = log->flushing;
		log->flushing = log->pending;
		log->pending = empty;
	} else {
		cst_buf_add(&log->flushing, log->pending.data, log->pending.len);
		cst_buf_clear(&log->pending);
	}
	*count = log->records;
	pthread_mutex_unlock(&x->lock);
	if (log->flushing.len == 0)
		return 0;

	int rc = 0;
	size_t done = 0;
	*low = reserve(log) < 0;
	while (done < log->flushing.len) {
		ssize_t n = pwrite(log->fd, log->flushing.data + done, log->flushing.len - done, (off_t)log->written);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			rc = n == 0 ? -EIO : errno == EDQUOT ? -ENOSPC : -errno;
			break;
		}
		done += (size_t)n;
		log->written += (uint64_t)n;
	}
	cst_buf_consume(&log->flushing, done);
	return rc;
}

/* No room for the log: nothing new is let in, which would have to be logged, and the evictor goes to work. */
static void full_locked(struct cst_index *x, bool full)
{
	if (x->no_log == full)
		return;
	x->no_log = full;
	if (full)
		cst_log_warn("no room for the log of the cache: nothing is saved until there is");
	room_wake_locked(x);
}

static bool is_void(struct cst_index *x)
{
	pthread_mutex_lock(&x->lock);
	bool none = x->log_void || x->log.fd < 0;
	pthread_mutex_unlock(&x->lock);
	return none;
}

static int failed(struct cst_index *x)
{
	pthread_mutex_lock(&x->lock);
	int rc = x->rc;
	pthread_mutex_unlock(&x->lock);
	return rc;
}

static int log_write(struct cst_index *x, bool sync, uint64_t want, uint64_t id)
{
	uint64_t count = 0;
	int rc = 0;
	bool low = false;
	pthread_mutex_lock(&x->log_io);
	pthread_mutex_lock(&x->lock);
	bool done = sync && x->log.id == id && x->log.synced >= want;
	pthread_mutex_unlock(&x->lock);
	if (!done) {
		rc = failed(x);
		if (rc == 0)
			rc = is_void(x) ? -ENOSPC : flush(x, &x->log, &count, &low);
		if (rc == 0 && sync && fdatasync(x->log.fd) < 0)
			rc = errno == EDQUOT ? -ENOSPC : -errno;
		pthread_mutex_lock(&x->lock);
		if (rc == 0 && sync)
			x->log.synced = cst_max(x->log.synced, count);
		full_locked(x, rc == -ENOSPC || low);
		pthread_mutex_unlock(&x->lock);
	}
	pthread_mutex_unlock(&x->log_io);
	return rc;
}

int log_flush(struct cst_index *x)
{
	return log_write(x, false, 0, 0);
}

int log_sync(struct cst_index *x)
{
	pthread_mutex_lock(&x->lock);
	uint64_t want = x->log.records, id = x->log.id;
	pthread_mutex_unlock(&x->lock);
	return log_write(x, true, want, id);
}

int log_forget(struct cst_index *x)
{
	int rc = 0;
	pthread_mutex_lock(&x->log_io);
	if (x->log.fd >= 0 && (ftruncate(x->log.fd, 0) < 0 || fdatasync(x->log.fd) < 0))
		rc = -errno;
	pthread_mutex_lock(&x->lock);
	cst_buf_clear(&x->log.pending);
	cst_buf_clear(&x->log.flushing);
	x->log_void = true;
	full_locked(x, true);
	pthread_mutex_unlock(&x->lock);
	pthread_mutex_unlock(&x->log_io);
	return rc;
}

/* ---- rewriting ---- */

bool log_due_locked(const struct cst_index *x)
{
	uint64_t entries = x->table.count + x->slabs.count;
	return x->next.fd >= 0 || x->log_void || x->log.fd < 0 ||
	       x->log.records > cst_max(2 * entries + 2, (uint64_t)x->rewrite_least);
}

static int rewrite_begin(struct cst_index *x)
{
	uint64_t id;
	if (getrandom(&id, sizeof(id), 0) != sizeof(id))
		id = (uint64_t)cst_wall();
	int fd = openat(x->dir, NEW_NAME, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	pthread_mutex_lock(&x->lock);
	x->next = (struct log){.fd = fd, .id = id};
	append(&x->next, (struct record){.type = R_HEADER, .name = LOG_MAGIC, .version = id, .size = LOG_FORMAT});
	append(&x->next, (struct record){.type = R_SESSION, .name = x->boot[0], .version = x->boot[1]});
	for (uint32_t i = 0; i < x->slabs.count; i++)
		append(&x->next, slab_record(x->slabs.sorted[i], false));
	x->rewrite_at = 1;
	pthread_mutex_unlock(&x->lock);
	return 0;
}

void log_rewrite_abort(struct cst_index *x)
{
	pthread_mutex_lock(&x->log_io);
	pthread_mutex_lock(&x->lock);
	struct log next = x->next;
	log_init(&x->next);
	pthread_mutex_unlock(&x->lock);
	pthread_mutex_unlock(&x->log_io);
	if (next.fd >= 0)
		unlinkat(x->dir, NEW_NAME, 0);
	log_fini(&next);
}

/* The new log takes the old one's place. What was appended to both since the last flush follows; nobody waits for that to be on the disk, because
 * who does holds log_io, or is the keeper, as we are. */
static int rewrite_end(struct cst_index *x)
{
	uint64_t count;
	bool low;
	pthread_mutex_lock(&x->log_io);
	int rc = failed(x);
	if (rc == 0)
		rc = flush(x, &x->next, &count, &low);
	if (rc == 0 && fdatasync(x->next.fd) < 0)
		rc = -errno;
	if (rc == 0 && renameat(x->dir, NEW_NAME, x->dir, LOG_NAME) < 0)
		rc = -errno;
	if (rc == 0) {
		pthread_mutex_lock(&x->lock);
		struct log old = x->log;
		x->log = x->next;
		x->log.synced = count;
		x->log_void = false;
		log_init(&x->next);
		full_locked(x, false);
		pthread_mutex_unlock(&x->lock);
		log_fini(&old);
		if (fsync(x->dir) < 0)
			rc = -errno;
	}
	pthread_mutex_unlock(&x->log_io);
	return rc;
}

int log_rewrite_step(struct cst_index *x)
{
	uint64_t count;
	bool low;
	if (x->next.fd < 0) {
		int rc = rewrite_begin(x);
		return rc < 0 ? rc : 1;
	}
	pthread_mutex_lock(&x->lock);
	uint32_t end = cst_min(x->table.used, x->rewrite_at + REWRITE_STEP);
	for (; x->rewrite_at < end; x->rewrite_at++)
		if (entry_found(at(x, x->rewrite_at)))
			append(&x->next, entry_record(at(x, x->rewrite_at), R_ENTRY));
	bool more = end < x->table.used;
	pthread_mutex_unlock(&x->lock);
	if (!more)
		return rewrite_end(x);
	pthread_mutex_lock(&x->log_io);
	int rc = flush(x, &x->next, &count, &low);
	pthread_mutex_unlock(&x->log_io);
	return rc < 0 ? rc : 1;
}

/* ---- start and end ---- */

static int rewrite_all(struct cst_index *x)
{
	int rc;
	do
		rc = log_rewrite_step(x);
	while (rc == 1);
	if (rc < 0)
		log_rewrite_abort(x);
	return rc;
}

int log_end(struct cst_index *x)
{
	if (is_void(x)) {
		int rc = rewrite_all(x);
		if (rc < 0)
			return rc;
	}
	pthread_mutex_lock(&x->lock);
	for (uint32_t n = 1; n < x->table.used; n++)
		if (entry_found(at(x, n)) && at(x, n)->flags & (F_DIRTY | F_UNSURE))
			log_entry_locked(x, n);
	struct record end = {.type = R_CLEAN, .name = x->boot[0], .version = x->boot[1]};
	end.size = x->scan_folder != SCAN_DONE;
	append_locked(x, &end);
	pthread_mutex_unlock(&x->lock);
	return log_sync(x);
}

static int replay_file(int fd, struct replay *r)
{
	CST_AUTO_FREE char *chunk = cst_xmalloc(READ_CHUNK);
	for (;;) {
		ssize_t n = read(fd, chunk, READ_CHUNK);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		replay_feed(r, chunk, (size_t)n);
	}
}

/* The good part of an old log goes on with a session. */
static int log_continue(struct cst_index *x)
{
	if (ftruncate(x->log.fd, (off_t)x->log.written) < 0)
		return -errno;
	struct record session = {.type = R_SESSION, .name = x->boot[0], .version = x->boot[1]};
	append_locked(x, &session);
	int rc = log_sync(x);
	return rc == -ENOSPC ? log_forget(x) : rc;
}

static int log_read(struct cst_index *x, bool *anew)
{
	struct replay r;
	replay_init(&r, x);
	int rc = replay_file(x->log.fd, &r);
	if (rc == 0) {
		x->log.id = r.log_id;
		x->log.records = x->log.synced = r.records;
		x->log.written = r.records * RECORD_SIZE;
		x->log_void = r.records == 0;
		*anew = !replay_finish(&r);
	}
	cst_buf_fini(&r.rest);
	return rc < 0 || *anew ? rc : log_continue(x);
}

int log_start(struct cst_index *x, struct cst_error *err)
{
	bool anew = false;
	int rc = 0;
	x->log.fd = openat(x->dir, LOG_NAME, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (x->log.fd < 0 && errno != ENOENT)
		rc = -errno;
	else if (x->log.fd >= 0)
		rc = log_read(x, &anew);
	else {
		struct replay none; /* no log: what lies about is found by the search */
		replay_init(&none, x);
		anew = !replay_finish(&none);
	}
	if (rc == 0 && anew) {
		rc = rewrite_all(x);
		if (rc == -ENOSPC)
			rc = log_forget(x);
	}
	if (rc < 0) {
		cst_error_set(err, -rc, "can't use the log of the cache (" LOG_NAME ")");
		cst_error_why(err, "%s", strerror(-rc));
	}
	return rc;
}
