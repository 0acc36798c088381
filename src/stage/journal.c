/* Appending, commits that join, checkpoints.
 *
 * Offsets of the current file:	0 ─ written: handed to the disk ─ +pending: gathered ─ end: where the next record goes. While a commit is under way, what it
 * writes lies between. Behind `end` there is always room for "continued". */
#define CST_LOG_AREA "stage"
#include "base/log.h"
#include "stage/journal_private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sys/random.h>

#define JOURNAL_MAGIC 0x6a6f7572u
#define TAIL 64u				      /* "continued" */
#define SLACK (2 * (uint64_t)CST_RECORD_MAX)	      /* beyond a checkpoint, so that a new file isn't full */
#define FRAME (CST_JOURNAL_OWNER_MAX + UINT64_C(256)) /* header, end of the checkpoint */
#define GROW (UINT64_C(64) << 10)

const char *const cst_journal_names[2] = {"journal.0", "journal.1"};

struct cst_journal {
	unsigned magic;
	const struct cst_stage_io *io;
	int dir;
	pthread_mutex_t lock; /* all that follows */
	pthread_cond_t committed;
	int fd[2];
	uint64_t capacity[2];
	unsigned current;
	uint64_t epoch;
	uint32_t tag;
	uint64_t number, number_synced; /* of the next record in the file; how many are on the disk */
	uint64_t written, end;
	struct cst_buf pending;
	uint64_t appended, durable; /* records over all files */
	bool committing;
	int failed;
	uint64_t promised;
	struct cst_state state;
	struct cst_journal_stats stats;
};

static int fail_locked(struct cst_journal *j, int rc)
{
	if (!j->failed) {
		__atomic_store_n(&j->failed, rc, __ATOMIC_RELAXED);
		cst_log_error("the journal of the staging directory can't be written: %s; nothing more is confirmed",
			      strerror(-rc));
	}
	pthread_cond_broadcast(&j->committed);
	return j->failed;
}

/* ---- room ---- */

/* Zeros up to `capacity`: room that later writes only overwrite. */
static int extend_locked(struct cst_journal *j, unsigned file, uint64_t capacity)
{
	static const char zeros[64 << 10];
	while (j->capacity[file] < capacity) {
		uint64_t at = j->capacity[file];
		size_t len = (size_t)cst_min((uint64_t)sizeof(zeros), capacity - at);
		int rc = cst_stage_io_write(j->io, j->fd[file], zeros, len, at);
		if (rc < 0)
			return rc;
		j->capacity[file] = at + len;
	}
	return 0;
}

static int grow_locked(struct cst_journal *j, unsigned file, uint64_t need)
{
	uint64_t plenty = (need + need / 4 + GROW - 1) / GROW * GROW;
	if (need <= j->capacity[file])
		return 0;
	if (need > JOURNAL_SIZE_MAX)
		return -ENOSPC;
	int rc = extend_locked(j, file, cst_min(plenty, JOURNAL_SIZE_MAX));
	if (rc < 0 && j->capacity[file] >= need)
		rc = 0;
	return rc < 0 ? extend_locked(j, file, need) : 0;
}

static uint64_t need_locked(const struct cst_journal *j, uint64_t extra)
{
	return FRAME + j->state.bytes + j->promised + extra + SLACK + TAIL;
}

int cst_journal_promise(struct cst_journal *j, uint64_t bytes)
{
	CST_CHECK(j, JOURNAL_MAGIC);
	pthread_mutex_lock(&j->lock);
	uint64_t need = need_locked(j, bytes);
	int rc = j->failed;
	for (unsigned i = 0; i < 2 && rc == 0; i++)
		rc = grow_locked(j, i, need);
	if (rc == 0)
		j->promised += bytes;
	pthread_mutex_unlock(&j->lock);
	return rc;
}

void cst_journal_unpromise(struct cst_journal *j, uint64_t bytes)
{
	CST_CHECK(j, JOURNAL_MAGIC);
	pthread_mutex_lock(&j->lock);
	CST_ASSERT(bytes <= j->promised);
	j->promised -= bytes;
	pthread_mutex_unlock(&j->lock);
}

/* ---- checkpoints ---- */

struct checkpoint {
	struct cst_buf bytes;
	uint64_t epoch, records;
	uint32_t tag;
};

static void checkpoint_add(void *arg, const struct cst_record *r)
{
	struct checkpoint *c = arg;
	cst_record_encode(r, c->tag, c->records++, 0, &c->bytes);
}

/* The state as the whole content of a file. The header says how many records there are, so it comes last. */
static void checkpoint_make(const struct cst_journal *j, struct checkpoint *c)
{
	struct cst_record header = {.kind = CST_RECORD_HEADER,
				    .id = c->epoch,
				    .next = j->state.next_id,
				    .phase = CST_JOURNAL_FORMAT,
				    .data = cst_buf_slice(&j->state.owner)};
	struct cst_record end = {.kind = CST_RECORD_CHECKPOINT};
	CST_AUTO_BUF head = CST_BUF_INIT;
	c->records = 1;
	size_t head_size = cst_record_size(&header);
	memset(cst_buf_room(&c->bytes, head_size), 0, head_size);
	c->bytes.len += head_size;
	cst_state_each(&j->state, checkpoint_add, c);
	checkpoint_add(c, &end);
	header.size = c->records;
	cst_record_encode(&header, c->tag, 0, 0, &head);
	memcpy(c->bytes.data, head.data, head_size);
}

/* Ends the file that was current: who finds this knows that there must be another. */
static int end_file_locked(struct cst_journal *j, unsigned file)
{
	struct cst_record r = {.kind = CST_RECORD_CONTINUED, .id = j->epoch + 1};
	cst_record_encode(&r, j->tag, j->number, j->number_synced, &j->pending);
	int rc = cst_stage_io_write(j->io, j->fd[file], j->pending.data, j->pending.len, j->written);
	j->stats.bytes_written += j->pending.len;
	cst_buf_clear(&j->pending);
	return rc < 0 ? rc : j->io->datasync(j->io->ctx, j->fd[file]);
}

/* The other file becomes current, with the state as its checkpoint. `ending`: there is a file to be ended. No commit is under way. */
static int rotate_locked(struct cst_journal *j, uint64_t room, bool ending)
{
	struct checkpoint c = {.epoch = j->epoch + 1};
	unsigned old = j->current, next = ending ? !old : old;
	int rc = grow_locked(j, next, need_locked(j, room));
	if (rc < 0)
		return rc;
	if (getrandom(&c.tag, sizeof(c.tag), 0) != sizeof(c.tag))
		return -EIO;
	checkpoint_make(j, &c);
	CST_ASSERT(c.bytes.len + TAIL <= j->capacity[next]);
	rc = cst_stage_io_write(j->io, j->fd[next], c.bytes.data, c.bytes.len, 0);
	if (rc == 0)
		rc = j->io->datasync(j->io->ctx, j->fd[next]);
	if (rc == 0 && ending)
		rc = end_file_locked(j, old);
	if (rc == 0) {
		j->current = next;
		j->epoch = c.epoch;
		j->tag = c.tag;
		j->number = j->number_synced = c.records;
		j->written = j->end = c.bytes.len;
		j->durable = j->appended;
		j->stats.checkpoints++;
		j->stats.syncs += 1 + ending;
		j->stats.bytes_written += c.bytes.len;
		pthread_cond_broadcast(&j->committed);
	} else {
		rc = fail_locked(j, rc);
	}
	cst_buf_fini(&c.bytes);
	return rc;
}

/* ---- records ---- */

static int make_room_locked(struct cst_journal *j, uint64_t size)
{
	int rc = j->failed;
	while (rc == 0 && j->end + size + TAIL > j->capacity[j->current]) {
		if (j->committing)
			pthread_cond_wait(&j->committed, &j->lock);
		else
			rc = rotate_locked(j, size, true);
		rc = rc ? rc : j->failed;
	}
	return rc;
}

int cst_journal_append(struct cst_journal *j, const struct cst_record *records, size_t count, uint64_t *at)
{
	CST_CHECK(j, JOURNAL_MAGIC);
	uint64_t size = 0;
	for (size_t i = 0; i < count; i++) {
		if (cst_record_check(&records[i]) < 0)
			return -EINVAL;
		size += cst_record_size(&records[i]);
	}
	pthread_mutex_lock(&j->lock);
	int rc = make_room_locked(j, size);
	for (size_t i = 0; i < count && rc == 0; i++) {
		rc = cst_state_apply(&j->state, &records[i]);
		if (rc < 0 && i > 0) {
			/* Half of it is in: the state in memory isn't what the caller has. */
			rc = fail_locked(j, -EINVAL);
			break;
		}
		if (rc < 0) {
			rc = -EINVAL;
			break;
		}
		size_t before = j->pending.len;
		struct cst_record r = records[i];
		r.more = i + 1 < count;
		cst_record_encode(&r, j->tag, j->number++, j->number_synced, &j->pending);
		j->end += j->pending.len - before;
		j->appended++;
		j->stats.records++;
	}
	*at = j->appended;
	pthread_mutex_unlock(&j->lock);
	return rc;
}

/* Writes and syncs what is pending, for all who wait. The lock is let go meanwhile. */
static void lead_locked(struct cst_journal *j)
{
	struct cst_buf bytes = j->pending;
	uint64_t upto = j->appended, number = j->number, offset = j->written;
	int fd = j->fd[j->current];
	j->pending = (struct cst_buf)CST_BUF_INIT;
	j->committing = true;
	pthread_mutex_unlock(&j->lock);
	int rc = cst_stage_io_write(j->io, fd, bytes.data, bytes.len, offset);
	if (rc == 0)
		rc = j->io->datasync(j->io->ctx, fd);
	pthread_mutex_lock(&j->lock);
	j->committing = false;
	if (rc < 0) {
		fail_locked(j, rc);
	} else {
		j->written += bytes.len;
		j->number_synced = number;
		j->durable = cst_max(j->durable, upto);
		j->stats.bytes_written += bytes.len;
		j->stats.syncs++;
	}
	cst_buf_fini(&bytes);
	pthread_cond_broadcast(&j->committed);
}

int cst_journal_commit(struct cst_journal *j, uint64_t at)
{
	CST_CHECK(j, JOURNAL_MAGIC);
	pthread_mutex_lock(&j->lock);
	j->stats.commits++;
	while (j->durable < at && !j->failed) {
		if (j->committing)
			pthread_cond_wait(&j->committed, &j->lock);
		else
			lead_locked(j);
	}
	int rc = j->durable >= at ? 0 : j->failed;
	pthread_mutex_unlock(&j->lock);
	return rc;
}

uint64_t cst_journal_durable(struct cst_journal *j)
{
	pthread_mutex_lock(&j->lock);
	uint64_t durable = j->durable;
	pthread_mutex_unlock(&j->lock);
	return durable;
}

int cst_journal_failed(struct cst_journal *j)
{
	return __atomic_load_n(&j->failed, __ATOMIC_RELAXED);
}

uint64_t cst_journal_new_id(struct cst_journal *j)
{
	pthread_mutex_lock(&j->lock);
	uint64_t id = j->state.next_id++;
	pthread_mutex_unlock(&j->lock);
	return id;
}

void cst_journal_read(struct cst_journal *j, void (*read)(void *arg, const struct cst_state *state), void *arg)
{
	pthread_mutex_lock(&j->lock);
	read(arg, &j->state);
	pthread_mutex_unlock(&j->lock);
}

void cst_journal_stats(struct cst_journal *j, struct cst_journal_stats *stats)
{
	pthread_mutex_lock(&j->lock);
	*stats = j->stats;
	stats->epoch = j->epoch;
	stats->capacity = j->capacity[0] + j->capacity[1];
	stats->used = j->end;
	stats->state = j->state.bytes;
	pthread_mutex_unlock(&j->lock);
}

/* ---- opening ---- */

static int open_files(struct cst_journal *j)
{
	for (unsigned i = 0; i < 2; i++) {
		j->fd[i] = j->io->open(j->io->ctx, j->dir, cst_journal_names[i], O_CREAT);
		if (j->fd[i] < 0)
			return j->fd[i];
		int rc = j->io->size(j->io->ctx, j->fd[i], &j->capacity[i]);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* *made: the format file says that there is a journal. -EPROTO: of another version. */
static int read_format(const struct cst_journal *j, bool *made)
{
	CST_AUTO_BUF bytes = CST_BUF_INIT;
	int rc = cst_journal_load(j->io, j->dir, FORMAT_NAME, &bytes);
	struct cst_slice expected = CST_SLICE(FORMAT_TEXT);
	if (rc < 0)
		return rc;
	*made = cst_slice_eq(cst_buf_slice(&bytes), expected);
	/* One that was being written when the machine stopped is a part of it, or zeros. */
	for (size_t i = 0; i < bytes.len && !*made; i++)
		if (bytes.len > expected.len || (bytes.data[i] && bytes.data[i] != expected.data[i]))
			return -EPROTO;
	return 0;
}

static int write_format(const struct cst_journal *j)
{
	int fd = j->io->open(j->io->ctx, j->dir, FORMAT_NAME, O_CREAT);
	if (fd < 0)
		return fd;
	int rc = cst_stage_io_write(j->io, fd, FORMAT_TEXT, sizeof(FORMAT_TEXT) - 1, 0);
	if (rc == 0)
		rc = j->io->datasync(j->io->ctx, fd);
	j->io->close(j->io->ctx, fd);
	return rc < 0 ? rc : j->io->dirsync(j->io->ctx, j->dir);
}

/* Both files with their room, the first one current; the format file last, when all that is on the disk. */
static int make_new(struct cst_journal *j, uint64_t size, const char *owner)
{
	int rc = open_files(j);
	cst_buf_add_str(&j->state.owner, owner);
	pthread_mutex_lock(&j->lock);
	for (unsigned i = 0; i < 2 && rc == 0; i++)
		rc = grow_locked(j, i, need_locked(j, 0));
	for (unsigned i = 0; i < 2 && rc == 0; i++)
		rc = extend_locked(j, i, size);
	if (rc == 0)
		rc = j->io->datasync(j->io->ctx, j->fd[1]);
	if (rc == 0)
		rc = rotate_locked(j, 0, false);
	pthread_mutex_unlock(&j->lock);
	if (rc == 0)
		rc = j->io->dirsync(j->io->ctx, j->dir);
	return rc == 0 ? write_format(j) : rc;
}

/* Goes on from what a scan found, in a new epoch: whatever a torn tail left is behind. */
static int take_over(struct cst_journal *j, unsigned current, struct cst_journal_scan *scan, bool made)
{
	int rc = open_files(j);
	if (rc < 0)
		return rc;
	cst_state_fini(&j->state);
	j->state = scan->state;
	/* The lists' heads have moved. */
	TAILQ_INIT(&j->state.files);
	TAILQ_INIT(&j->state.ops);
	TAILQ_CONCAT(&j->state.files, &scan->state.files, link);
	TAILQ_CONCAT(&j->state.ops, &scan->state.ops, link);
	cst_state_init(&scan->state);
	pthread_mutex_lock(&j->lock);
	j->current = current;
	j->epoch = scan->epoch;
	j->tag = scan->tag;
	j->number = j->number_synced = scan->records;
	j->written = j->end = scan->end;
	j->stats.replayed = scan->records;
	/* Made of the same bytes again should this be repeated; nothing in the current file was changed until the other one is whole. */
	if (j->end + TAIL > j->capacity[current])
		rc = extend_locked(j, current, j->end + TAIL);
	if (rc == 0)
		rc = rotate_locked(j, 0, true);
	pthread_mutex_unlock(&j->lock);
	return rc < 0 || made ? rc : write_format(j);
}

static int open_scanned(struct cst_journal *j, const struct cst_journal_config *config,
			struct cst_journal_scan scans[2], bool made, struct cst_error *err)
{
	struct cst_slice owner = cst_slice_of(config->owner);
	int current = cst_journal_choose(scans, made, err), rc;
	if (current == -EBADMSG)
		return current;
	if (current >= 0 && !cst_slice_eq(owner, cst_buf_slice(&scans[current].state.owner))) {
		cst_error_set(err, EBUSY, "the staging directory belongs to %.*s",
			      (int)cst_min(scans[current].state.owner.len, (size_t)200),
			      scans[current].state.owner.data);
		cst_error_why(err, "this mount is of %s", config->owner);
		cst_error_hint(err, "name another staging directory, or one of its own inside it");
		return -EBUSY;
	}
	if (current < 0)
		rc = make_new(j, config->size ? config->size : JOURNAL_SIZE, config->owner);
	else
		rc = take_over(j, (unsigned)current, &scans[current], made);
	if (rc < 0) {
		cst_error_set(err, -rc, "can't write the journal of the staging directory");
		cst_error_why(err, "%s", strerror(-rc));
		if (rc == -ENOSPC)
			cst_error_hint(err, "what is staged is still there; make room on its disk");
	}
	return rc;
}

int cst_journal_open(const struct cst_journal_config *config, struct cst_journal **out, struct cst_error *err)
{
	CST_ASSERT(strlen(config->owner) <= CST_JOURNAL_OWNER_MAX);
	struct cst_journal *j = CST_NEW(struct cst_journal);
	struct cst_buf bytes[2] = {CST_BUF_INIT, CST_BUF_INIT};
	struct cst_journal_scan scans[2];
	bool made = false;
	j->magic = JOURNAL_MAGIC;
	j->io = config->io;
	j->dir = config->dir;
	j->fd[0] = j->fd[1] = -1;
	pthread_mutex_init(&j->lock, NULL);
	pthread_cond_init(&j->committed, NULL);
	cst_state_init(&j->state);
	int rc = read_format(j, &made);
	for (unsigned i = 0; i < 2 && rc == 0; i++)
		rc = cst_journal_load(j->io, j->dir, cst_journal_names[i], &bytes[i]);
	if (rc < 0) {
		cst_error_set(err, -rc, "can't read the journal of the staging directory");
		cst_error_why(err, "%s", rc == -EPROTO ? "another version of the program has made it" : strerror(-rc));
	}
	for (unsigned i = 0; i < 2 && rc == 0; i++)
		cst_journal_scan(bytes[i].data, bytes[i].len, &scans[i], NULL, NULL);
	if (rc == 0) {
		rc = open_scanned(j, config, scans, made, err);
		cst_state_fini(&scans[0].state);
		cst_state_fini(&scans[1].state);
	}
	cst_buf_fini(&bytes[0]);
	cst_buf_fini(&bytes[1]);
	if (rc < 0) {
		cst_journal_close(j);
		return rc;
	}
	*out = j;
	return 0;
}

void cst_journal_close(struct cst_journal *j)
{
	CST_CHECK(j, JOURNAL_MAGIC);
	if (!j->failed)
		cst_journal_commit(j, j->appended);
	for (unsigned i = 0; i < 2; i++)
		if (j->fd[i] >= 0)
			j->io->close(j->io->ctx, j->fd[i]);
	cst_buf_fini(&j->pending);
	cst_state_fini(&j->state);
	pthread_mutex_destroy(&j->lock);
	pthread_cond_destroy(&j->committed);
	j->magic = 0;
	free(j);
}
