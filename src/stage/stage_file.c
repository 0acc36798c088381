/* A staged file: writing, reading, and the room that it takes. */
#define CST_LOG_AREA "stage"
#include "base/log.h"
#include "stage/stage_private.h"

#include <errno.h>
#include <string.h>

#define SIZE_MAX_FILE (CST_EXTENTS_END / 2)
#define AHEAD_MAX (UINT64_C(4) << 20)
/* Bytes of the journal: of a file, of one more extent among what is pending, of an extent in the state and once more when it is sealed. */
#define PROMISE_FILE 1024u
#define PROMISE_CHANGE (6 * CST_RECORD_EXTENT)
#define PROMISE_EXTENT (2 * CST_RECORD_EXTENT)

struct cst_stage_file *stage_file_alloc(struct cst_stage *s, uint64_t id)
{
	struct cst_stage_file *f = CST_NEW(struct cst_stage_file);
	f->magic = FILE_MAGIC;
	f->stage = s;
	f->id = id;
	f->fd[0] = f->fd[1] = -1;
	f->unknown = true;
	pthread_mutex_init(&f->sync_lock, NULL);
	pthread_mutex_init(&f->fd_lock, NULL);
	pthread_rwlock_init(&f->lock, NULL);
	return f;
}

void stage_file_free(struct cst_stage_file *f)
{
	CST_CHECK(f, FILE_MAGIC);
	cst_stage_file_rest(f);
	cst_buf_fini(&f->key);
	cst_buf_fini(&f->attributes);
	cst_buf_fini(&f->write_id);
	cst_buf_fini(&f->upload_id);
	cst_buf_fini(&f->conflict);
	cst_stage_image_fini(&f->image);
	cst_extents_fini(&f->pending);
	cst_extents_fini(&f->reserved[0]);
	cst_extents_fini(&f->reserved[1]);
	pthread_mutex_destroy(&f->sync_lock);
	pthread_mutex_destroy(&f->fd_lock);
	pthread_rwlock_destroy(&f->lock);
	f->magic = 0;
	free(f);
}

int stage_file_fd(struct cst_stage_file *f, unsigned which)
{
	char name[16];
	pthread_mutex_lock(&f->fd_lock);
	if (f->fd[which] < 0) {
		stage_slot_name(f->slot[which], name);
		f->fd[which] = f->stage->io->open(f->stage->io->ctx, f->stage->dir, name, 0);
	}
	int fd = f->fd[which];
	pthread_mutex_unlock(&f->fd_lock);
	return fd;
}

void cst_stage_file_rest(struct cst_stage_file *f)
{
	CST_CHECK(f, FILE_MAGIC);
	/* A sync uses them without the lock. */
	pthread_mutex_lock(&f->sync_lock);
	pthread_rwlock_wrlock(&f->lock);
	for (unsigned i = 0; i < 2; i++) {
		/* Those with bytes that are not synced stay: an error of their sync would be lost. */
		if (f->fd[i] >= 0 && !f->unsynced[i]) {
			f->stage->io->close(f->stage->io->ctx, f->fd[i]);
			f->fd[i] = -1;
		}
	}
	pthread_rwlock_unlock(&f->lock);
	pthread_mutex_unlock(&f->sync_lock);
}

/* ---- room ---- */

void stage_used_blocks(const struct cst_extents *map, unsigned which, struct cst_extents *blocks)
{
	struct cst_extent e;
	for (uint64_t at = 0; cst_extents_next(map, at, CST_EXTENTS_END, &e); at = e.start + e.length) {
		uint64_t first = e.start / BLOCK * BLOCK, end = (e.start + e.length + BLOCK - 1) / BLOCK * BLOCK;
		if (!(e.kind & CST_STAGE_ZERO) && (e.kind & CST_STAGE_SECOND) == which)
			cst_extents_set(blocks, first, end - first, 0);
	}
}

void stage_collect_locked(struct cst_stage_file *f)
{
	struct cst_stage *s = f->stage;
	if (!f->garbage || f->image.sealed || (!f->unknown && (f->pending.count || f->resized)))
		return;
	if (cst_journal_failed(s->journal) < 0)
		return; /* its last records, known to nobody, may still need it */
	for (unsigned i = 0; i < 2; i++) {
		struct cst_extents used;
		struct cst_extent e, gap;
		cst_extents_init(&used);
		stage_used_blocks(&f->image.map, i, &used);
		for (uint64_t at = 0; cst_extents_next(&f->reserved[i], at, CST_EXTENTS_END, &e);
		     at = gap.start + gap.length) {
			if (cst_extents_stretch(&used, e.start, e.start + e.length, &gap))
				continue;
			int fd = stage_file_fd(f, i);
			if (fd < 0 || s->io->punch(s->io->ctx, fd, gap.start, gap.length) < 0)
				continue;
			cst_extents_clear(&f->reserved[i], gap.start, gap.length);
			stage_give_room(s, gap.length);
		}
		cst_extents_fini(&used);
	}
	f->garbage = false;
}

void stage_make_room(struct cst_stage_file *f)
{
	__atomic_add_fetch(&f->stage->no_space, 1, __ATOMIC_RELAXED);
	stage_reap(f->stage, true);
	cst_stage_drop_clean(f);
	pthread_rwlock_rdlock(&f->lock);
	bool more = f->garbage && !f->image.sealed && !f->failed;
	pthread_rwlock_unlock(&f->lock);
	if (more)
		cst_stage_sync(f);
}

/* Blocks [first, end) of a staging file; what of it is reserved when it fails stays so. */
static int reserve_blocks(struct cst_stage_file *f, unsigned which, uint64_t first, uint64_t end)
{
	struct cst_stage *s = f->stage;
	struct cst_extent e;
	for (uint64_t at = first; at < end; at = e.start + e.length) {
		if (cst_extents_stretch(&f->reserved[which], at, end, &e))
			continue;
		int rc = stage_take_room(s, e.length);
		if (rc < 0)
			return rc;
		rc = s->io->reserve(s->io->ctx, f->fd[which], e.start, e.length);
		if (rc < 0 && rc != -EOPNOTSUPP) {
			stage_give_room(s, e.length);
			return rc;
		}
		cst_extents_set(&f->reserved[which], e.start, e.length, 0);
	}
	return 0;
}

/* For what is written on from where the last write ended some more, if there is room. */
static int reserve(struct cst_stage_file *f, unsigned which, uint64_t start, uint64_t length)
{
	struct cst_extent e;
	uint64_t first = start / BLOCK * BLOCK, end = (start + length + BLOCK - 1) / BLOCK * BLOCK;
	if (cst_extents_stretch(&f->reserved[which], first, end, &e) && e.length == end - first)
		return 0;
	uint64_t ahead = start == f->last_end ? cst_min(f->image.size, AHEAD_MAX) / BLOCK * BLOCK : 0;
	if (ahead) {
		f->garbage = true;
		if (reserve_blocks(f, which, first, end + ahead) == 0)
			return 0;
	}
	return reserve_blocks(f, which, first, end);
}

static uint64_t promise_wanted(const struct cst_stage_file *f, uint64_t more)
{
	return PROMISE_FILE + 2 * (f->key.len + f->attributes.len) + (f->changes + more) * PROMISE_CHANGE +
	       (f->image.map.count + more) * PROMISE_EXTENT;
}

int stage_promise_locked(struct cst_stage_file *f, uint64_t more)
{
	uint64_t wanted = promise_wanted(f, more);
	if (wanted <= f->promised)
		return 0;
	/* Not for every write. */
	uint64_t extra = wanted - f->promised + (f->promised ? 32 * (PROMISE_CHANGE + PROMISE_EXTENT) : 0);
	int rc = cst_journal_promise(f->stage->journal, extra);
	if (rc == 0)
		f->promised += extra;
	return rc;
}

void stage_trim_promise_locked(struct cst_stage_file *f)
{
	uint64_t wanted = promise_wanted(f, 0);
	if (f->promised <= wanted)
		return;
	cst_journal_unpromise(f->stage->journal, f->promised - wanted);
	f->promised = wanted;
}

/* ---- changing ---- */

/* With a journal that has failed nobody knows what of its last records is on the disk: what they may say to be sealed must stay. */
static int refuses(const struct cst_stage_file *f)
{
	int rc = f->failed ? f->failed : f->in_conflict ? -ESTALE : 0;
	return rc ? rc : cst_journal_failed(f->stage->journal);
}

static int ensure_file(struct cst_stage_file *f, unsigned which)
{
	if (f->slot[which]) {
		int fd = stage_file_fd(f, which);
		return fd < 0 ? fd : 0;
	}
	return stage_take_slot(f->stage, &f->slot[which], &f->fd[which]);
}

/* Where the bytes at `start` go, and how far that is so: never onto what is sealed, else where they are. */
static unsigned place_of(const struct cst_stage_file *f, uint64_t start, uint64_t end, uint64_t *until)
{
	const struct cst_stage_image *image = &f->image;
	struct cst_extent e;
	unsigned which = 0;
	*until = end;
	if (image->sealed) {
		bool in = cst_extents_stretch(&image->sealed_map, start, end, &e);
		*until = e.start + e.length;
		if (in && !(e.kind & CST_STAGE_ZERO))
			return !(e.kind & CST_STAGE_SECOND);
	}
	bool in = cst_extents_stretch(&image->map, start, *until, &e);
	*until = e.start + e.length;
	if (in && !(e.kind & CST_STAGE_ZERO))
		which = e.kind & CST_STAGE_SECOND;
	return which;
}

/* A write that didn't reach its end: what is taken for the base's bytes may not be them any more. */
static void forget_clean(struct cst_stage_file *f, uint64_t offset, uint64_t len)
{
	struct cst_extent e;
	for (uint64_t at = offset; cst_extents_next(&f->image.map, at, offset + len, &e); at = e.start + e.length)
		if (e.kind & CST_STAGE_CLEAN)
			cst_extents_clear(&f->image.map, e.start, e.length);
	f->garbage = true;
}

static int put_locked(struct cst_stage_file *f, uint64_t offset, const char *data, size_t len)
{
	uint64_t end = offset + len, until;
	for (uint64_t at = offset; at < end; at = until) {
		unsigned which = place_of(f, at, end, &until);
		int rc = ensure_file(f, which);
		if (rc == 0)
			rc = reserve(f, which, at, until - at);
		if (rc < 0)
			return rc;
	}
	for (uint64_t at = offset; at < end; at = until) {
		unsigned which = place_of(f, at, end, &until);
		f->unsynced[which] = true;
		int rc = cst_stage_io_write(f->stage->io, f->fd[which], data + (at - offset), (size_t)(until - at), at);
		if (rc < 0) {
			forget_clean(f, offset, len);
			return rc;
		}
	}
	return 0;
}

/* How many places a range is cut into. */
static uint64_t count_places(const struct cst_stage_file *f, uint64_t offset, uint64_t len)
{
	uint64_t count = 0, until;
	for (uint64_t at = offset; at < offset + len; at = until, count++)
		place_of(f, at, offset + len, &until);
	return count;
}

static void changed_locked(struct cst_stage_file *f, uint64_t start, uint64_t end, uint64_t extents_before,
			   uint64_t pending_before, uint64_t pieces)
{
	cst_extents_set(&f->pending, start, end - start, 0);
	if (f->image.map.count != extents_before || f->pending.count != pending_before)
		f->changes += pieces;
}

static int write_locked(struct cst_stage_file *f, uint64_t offset, const void *data, size_t len)
{
	int rc = refuses(f);
	if (rc < 0 || len == 0)
		return rc;
	if (offset >= SIZE_MAX_FILE || len > SIZE_MAX_FILE - offset)
		return -EFBIG;
	uint64_t pieces = count_places(f, offset, len) + 1, until;
	rc = stage_promise_locked(f, pieces);
	if (rc == 0)
		rc = put_locked(f, offset, data, len);
	if (rc < 0)
		return rc;
	uint64_t before = f->image.map.count, pending = f->pending.count, from = cst_min(offset, f->image.size);
	f->resized = f->resized || offset + len > f->image.size;
	for (uint64_t at = offset; at < offset + len; at = until) {
		unsigned which = place_of(f, at, offset + len, &until);
		cst_stage_image_write(&f->image, at, until - at, (uint8_t)which);
	}
	changed_locked(f, from, offset + len, before, pending, pieces);
	f->last_end = offset + len;
	return 0;
}

static int zero_locked(struct cst_stage_file *f, uint64_t start, uint64_t end)
{
	int rc = stage_promise_locked(f, 2);
	if (rc < 0)
		return rc;
	uint64_t before = f->image.map.count, pending = f->pending.count;
	cst_stage_image_write(&f->image, start, end - start, CST_STAGE_ZERO);
	changed_locked(f, start, end, before, pending, 2);
	f->garbage = true;
	return 0;
}

static int resize_locked(struct cst_stage_file *f, uint64_t size)
{
	int rc = refuses(f);
	if (rc < 0 || size == f->image.size)
		return rc;
	if (size > SIZE_MAX_FILE)
		return -EFBIG;
	uint64_t old = f->image.size;
	if (size > old)
		rc = zero_locked(f, old, size);
	else
		rc = stage_promise_locked(f, 2);
	if (rc < 0)
		return rc;
	if (size < old) {
		cst_stage_image_resize(&f->image, size);
		cst_extents_clear(&f->pending, size, old - size);
		f->changes += 2;
		f->garbage = true;
	}
	f->resized = true;
	return 0;
}

static int punch_locked(struct cst_stage_file *f, uint64_t offset, uint64_t len)
{
	int rc = refuses(f);
	uint64_t end = len > f->image.size || offset > f->image.size - len ? f->image.size : offset + len;
	return rc == 0 && offset < end ? zero_locked(f, offset, end) : rc;
}

struct change {
	enum { WRITE, TRUNCATE, PUNCH } kind;
	uint64_t offset, length;
	const void *data;
};

static int change_locked(struct cst_stage_file *f, const struct change *c)
{
	switch (c->kind) {
	case WRITE:
		return write_locked(f, c->offset, c->data, (size_t)c->length);
	case TRUNCATE:
		return resize_locked(f, c->offset);
	default:
		return punch_locked(f, c->offset, c->length);
	}
}

/* Without room once more, when what takes some in vain has been given up. */
static int change(struct cst_stage_file *f, const struct change *c)
{
	CST_CHECK(f, FILE_MAGIC);
	for (unsigned attempt = 0;; attempt++) {
		pthread_rwlock_wrlock(&f->lock);
		int rc = change_locked(f, c);
		pthread_rwlock_unlock(&f->lock);
		if (rc != -ENOSPC || attempt == 1)
			return rc;
		stage_make_room(f);
	}
}

int cst_stage_write(struct cst_stage_file *f, uint64_t offset, const void *data, size_t len)
{
	int rc = change(f, &(struct change){WRITE, offset, len, data});
	if (rc == 0) {
		__atomic_add_fetch(&f->stage->writes, 1, __ATOMIC_RELAXED);
		__atomic_add_fetch(&f->stage->bytes_written, len, __ATOMIC_RELAXED);
	}
	return rc;
}

int cst_stage_truncate(struct cst_stage_file *f, uint64_t size)
{
	return change(f, &(struct change){TRUNCATE, size, 0, NULL});
}

int cst_stage_punch(struct cst_stage_file *f, uint64_t offset, uint64_t len)
{
	return change(f, &(struct change){PUNCH, offset, len, NULL});
}

static bool same_version(const struct cst_stage_base *a, const struct cst_stage_base *b)
{
	return a->exists == b->exists && a->size == b->size && strcmp(a->etag, b->etag) == 0;
}

/* One stretch of a fill that isn't local. */
static int fill_stretch(struct cst_stage_file *f, uint64_t start, const char *data, uint64_t len)
{
	uint64_t until;
	int rc = stage_promise_locked(f, count_places(f, start, len) + 1);
	if (rc == 0)
		rc = put_locked(f, start, data, (size_t)len);
	for (uint64_t at = start; at < start + len && rc == 0; at = until) {
		unsigned which = place_of(f, at, start + len, &until);
		cst_extents_set(&f->image.map, at, until - at, (uint8_t)(which | CST_STAGE_CLEAN));
	}
	return rc;
}

int cst_stage_fill(struct cst_stage_file *f, const struct cst_stage_base *base, uint64_t offset, const void *data,
		   size_t len)
{
	struct cst_extent e;
	CST_CHECK(f, FILE_MAGIC);
	pthread_rwlock_wrlock(&f->lock);
	int rc = f->failed ? f->failed : cst_journal_failed(f->stage->journal);
	uint64_t end = cst_min(offset + len, f->image.size);
	bool wanted = same_version(base, &f->image.base) && end > offset;
	for (uint64_t at = offset; wanted && rc == 0 && at < end; at = e.start + e.length)
		if (!cst_extents_stretch(&f->image.map, at, end, &e))
			rc = fill_stretch(f, e.start, (const char *)data + (e.start - offset), e.length);
	pthread_rwlock_unlock(&f->lock);
	return rc;
}

void cst_stage_drop_clean(struct cst_stage_file *f)
{
	CST_CHECK(f, FILE_MAGIC);
	pthread_mutex_lock(&f->sync_lock);
	pthread_rwlock_wrlock(&f->lock);
	if (!f->image.sealed) {
		cst_stage_image_drop_clean(&f->image);
		f->garbage = true;
		stage_collect_locked(f);
	}
	pthread_rwlock_unlock(&f->lock);
	pthread_mutex_unlock(&f->sync_lock);
}

int cst_stage_set_attributes(struct cst_stage_file *f, struct cst_slice attributes)
{
	CST_CHECK(f, FILE_MAGIC);
	if (attributes.len > CST_RECORD_DATA)
		return -EINVAL;
	pthread_rwlock_wrlock(&f->lock);
	struct cst_buf old = f->attributes;
	f->attributes = (struct cst_buf)CST_BUF_INIT;
	cst_buf_add_slice(&f->attributes, attributes);
	int rc = refuses(f);
	if (rc == 0)
		rc = stage_promise_locked(f, 1);
	if (rc < 0) {
		cst_buf_fini(&f->attributes);
		f->attributes = old;
	} else {
		cst_buf_fini(&old);
		f->attributes_set = true;
	}
	pthread_rwlock_unlock(&f->lock);
	return rc;
}

int cst_stage_move(struct cst_stage_file *f, struct cst_slice key, const struct cst_stage_base *base)
{
	CST_CHECK(f, FILE_MAGIC);
	if (key.len > CST_RECORD_TEXT)
		return -EINVAL;
	pthread_rwlock_wrlock(&f->lock);
	int rc = f->image.sealed ? -EBUSY : cst_stage_image_may_move(&f->image, base) ? f->failed : -EINVAL;
	if (rc == 0)
		rc = stage_promise_locked(f, 1 + 2 * key.len / PROMISE_CHANGE);
	if (rc == 0) {
		cst_buf_clear(&f->key);
		cst_buf_add_slice(&f->key, key);
		f->image.base = *base;
		f->moved = true;
	}
	pthread_rwlock_unlock(&f->lock);
	return rc;
}

/* ---- reading ---- */

/* One stretch. False: there is no room for its gap. */
static bool read_stretch(struct cst_stage_file *f, const struct cst_extent *e, bool local, char *to,
			 struct cst_stage_gaps *gaps, int *rc)
{
	if (!local) {
		if (gaps->count == gaps->room)
			return false;
		gaps->gaps[gaps->count++] = (struct cst_stage_gap){e->start, e->length};
		return true;
	}
	if (e->kind & CST_STAGE_ZERO) {
		memset(to, 0, (size_t)e->length);
		return true;
	}
	int fd = stage_file_fd(f, e->kind & CST_STAGE_SECOND);
	*rc = fd < 0 ? fd : cst_stage_io_read(f->stage->io, fd, to, (size_t)e->length, e->start);
	if (*rc == -ENODATA) {
		cst_log_error("a staging file is shorter than it was");
		*rc = -EIO;
	}
	return *rc == 0;
}

static ssize_t read_locked(struct cst_stage_file *f, const struct cst_extents *map, uint64_t size, uint64_t offset,
			   char *data, size_t len, struct cst_stage_gaps *gaps)
{
	struct cst_extent e;
	int rc = 0;
	gaps->count = 0;
	gaps->base = f->image.base;
	if (offset >= size)
		return 0;
	uint64_t end = cst_min(offset + len, size), at = offset;
	for (; at < end; at = e.start + e.length) {
		bool local = cst_extents_stretch(map, at, end, &e);
		if (!read_stretch(f, &e, local, data + (at - offset), gaps, &rc))
			break;
	}
	return rc < 0 ? rc : (ssize_t)(at - offset);
}

ssize_t cst_stage_read(struct cst_stage_file *f, uint64_t offset, void *data, size_t len, struct cst_stage_gaps *gaps)
{
	CST_CHECK(f, FILE_MAGIC);
	pthread_rwlock_rdlock(&f->lock);
	ssize_t rc = read_locked(f, &f->image.map, f->image.size, offset, data, len, gaps);
	pthread_rwlock_unlock(&f->lock);
	return rc;
}

ssize_t cst_stage_read_sealed(struct cst_stage_file *f, uint64_t offset, void *data, size_t len,
			      struct cst_stage_gaps *gaps)
{
	CST_CHECK(f, FILE_MAGIC);
	pthread_rwlock_rdlock(&f->lock);
	ssize_t rc = -EINVAL;
	if (f->image.sealed)
		rc = read_locked(f, &f->image.sealed_map, f->image.sealed_size, offset, data, len, gaps);
	pthread_rwlock_unlock(&f->lock);
	return rc;
}

uint64_t cst_stage_file_id(const struct cst_stage_file *f)
{
	CST_CHECK(f, FILE_MAGIC);
	return f->id;
}

uint64_t cst_stage_file_size(struct cst_stage_file *f)
{
	CST_CHECK(f, FILE_MAGIC);
	pthread_rwlock_rdlock(&f->lock);
	uint64_t size = f->image.size;
	pthread_rwlock_unlock(&f->lock);
	return size;
}

int cst_stage_file_failed(struct cst_stage_file *f)
{
	CST_CHECK(f, FILE_MAGIC);
	pthread_rwlock_rdlock(&f->lock);
	int rc = f->failed;
	pthread_rwlock_unlock(&f->lock);
	return rc;
}
