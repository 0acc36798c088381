/* What the journal learns of a file: syncs, publications, conflicts, the end. */
#define CST_LOG_AREA "stage"
#include "base/log.h"
#include "stage/stage_private.h"

#include <errno.h>
#include <string.h>

/* What is to be journalled of a file, as it was at one moment, with copies of all that the records point to. */
struct delta {
	struct cst_record *records;
	size_t count, room;
	void **blocks;
	size_t block_count, block_room;
	/* To undo it. */
	struct cst_extents pending;
	bool unknown, moved, resized, attributes_set;
	bool unsynced[2];
	uint64_t changes;
};

static void *delta_keep(struct delta *d, const void *data, size_t len)
{
	if (len == 0)
		return NULL;
	if (d->block_count == d->block_room) {
		d->block_room = cst_max(2 * d->block_room, (size_t)8);
		d->blocks = cst_xrealloc(d->blocks, d->block_room * sizeof(void *));
	}
	void *copy = cst_xmalloc(len);
	memcpy(copy, data, len);
	return d->blocks[d->block_count++] = copy;
}

static void delta_keep_text(struct delta *d, struct cst_slice *text)
{
	text->data = delta_keep(d, text->data, text->len);
}

static void delta_add(void *arg, const struct cst_record *r)
{
	struct delta *d = arg;
	if (d->count == d->room) {
		d->room = cst_max(2 * d->room, (size_t)8);
		d->records = cst_xrealloc(d->records, d->room * sizeof(*d->records));
	}
	struct cst_record *copy = &d->records[d->count++];
	*copy = *r;
	delta_keep_text(d, &copy->key);
	delta_keep_text(d, &copy->to);
	delta_keep_text(d, &copy->data);
	copy->extents = delta_keep(d, r->extents, r->extent_count * sizeof(*r->extents));
}

static void delta_fini(struct delta *d)
{
	for (size_t i = 0; i < d->block_count; i++)
		free(d->blocks[i]);
	free(d->blocks);
	free(d->records);
	cst_extents_fini(&d->pending);
}

/* The extents of what is pending. */
static void add_extents(struct delta *d, struct cst_stage_file *f)
{
	CST_AUTO_FREE struct cst_extent *extents = cst_xcalloc(CST_RECORD_EXTENTS_MAX, sizeof(*extents));
	struct cst_record r = {
		.kind = CST_RECORD_EXTENTS, .id = f->id, .slots = {f->slot[0], f->slot[1]}, .extents = extents};
	struct cst_extent range, e;
	for (uint64_t at = 0; cst_extents_next(&f->pending, at, f->image.size, &range);
	     at = range.start + range.length) {
		for (uint64_t from = range.start; cst_extents_next(&f->image.map, from, range.start + range.length, &e);
		     from = e.start + e.length) {
			if (e.kind & CST_STAGE_CLEAN)
				continue;
			if (r.extent_count == CST_RECORD_EXTENTS_MAX) {
				delta_add(d, &r);
				r.extent_count = 0;
			}
			extents[r.extent_count++] = e;
		}
	}
	if (r.extent_count)
		delta_add(d, &r);
}

/* A file that the journal doesn't know, all of it. */
static void add_file(struct delta *d, struct cst_stage_file *f)
{
	struct cst_state_file whole = {.id = f->id,
				       .key = f->key,
				       .attributes = f->attributes,
				       .write_id = f->write_id,
				       .upload_id = f->upload_id,
				       .slots = {f->slot[0], f->slot[1]},
				       .image = f->image};
	cst_state_emit_file(&whole, delta_add, d);
	f->seal_journalled = f->image.sealed;
}

static void add_changes(struct delta *d, struct cst_stage_file *f)
{
	struct cst_record r = {.id = f->id};
	add_extents(d, f);
	if (f->resized) {
		r.kind = CST_RECORD_TRUNCATE;
		r.size = f->image.size;
		delta_add(d, &r);
	}
	if (f->moved) {
		r = (struct cst_record){
			.kind = CST_RECORD_MOVE, .id = f->id, .base = f->image.base, .key = cst_buf_slice(&f->key)};
		delta_add(d, &r);
	}
	if (f->attributes_set) {
		r = (struct cst_record){
			.kind = CST_RECORD_ATTRIBUTES, .id = f->id, .data = cst_buf_slice(&f->attributes)};
		delta_add(d, &r);
	}
}

/* Takes what is pending out of the file. */
static void delta_take_locked(struct delta *d, struct cst_stage_file *f)
{
	if (f->unknown)
		add_file(d, f);
	else
		add_changes(d, f);
	d->pending = f->pending;
	d->unknown = f->unknown;
	d->moved = f->moved;
	d->resized = f->resized;
	d->attributes_set = f->attributes_set;
	d->changes = f->changes;
	memcpy(d->unsynced, f->unsynced, sizeof(d->unsynced));
	cst_extents_init(&f->pending);
	f->unknown = f->moved = f->resized = f->attributes_set = false;
	f->changes = 0;
	f->unsynced[0] = f->unsynced[1] = false;
}

/* It is pending still. */
static void delta_undo_locked(struct delta *d, struct cst_stage_file *f)
{
	struct cst_extent e;
	for (uint64_t at = 0; cst_extents_next(&d->pending, at, f->image.size, &e); at = e.start + e.length)
		cst_extents_set(&f->pending, e.start, e.length, 0);
	/* A journal that has failed may have got the records to the disk all the same. */
	f->unknown = f->unknown || (d->unknown && cst_journal_failed(f->stage->journal) == 0);
	f->moved = f->moved || d->moved;
	f->resized = f->resized || d->resized;
	f->attributes_set = f->attributes_set || d->attributes_set;
	f->changes += d->changes;
}

static int sync_data(struct cst_stage_file *f, const struct delta *d)
{
	for (unsigned i = 0; i < 2; i++) {
		if (!d->unsynced[i])
			continue;
		__atomic_add_fetch(&f->stage->datasyncs, 1, __ATOMIC_RELAXED);
		int rc = f->stage->io->datasync(f->stage->io->ctx, f->fd[i]);
		if (rc == 0)
			continue;
		cst_log_error(
			"a staging file can't be synced: %s; what was written to it since its last sync is not confirmed, and it "
			"takes no more",
			strerror(-rc));
		pthread_rwlock_wrlock(&f->lock);
		f->failed = rc;
		pthread_rwlock_unlock(&f->lock);
		return rc;
	}
	return 0;
}

/* Data, then records, then the answer. Under sync_lock. */
static int delta_write(struct cst_stage_file *f, struct delta *d)
{
	uint64_t at = 0;
	/* What failed to be journalled isn't pending any more, and not confirmed either. */
	int rc = cst_journal_failed(f->stage->journal);
	if (rc == 0)
		rc = sync_data(f, d);
	if (rc == 0 && d->count)
		rc = cst_journal_append(f->stage->journal, d->records, d->count, &at);
	if (rc == 0 && d->count)
		rc = cst_journal_commit(f->stage->journal, at);
	pthread_rwlock_wrlock(&f->lock);
	if (rc < 0)
		delta_undo_locked(d, f);
	else
		stage_trim_promise_locked(f);
	stage_collect_locked(f);
	pthread_rwlock_unlock(&f->lock);
	delta_fini(d);
	if (rc == 0)
		stage_reap(f->stage, false);
	return rc;
}

static int sync_locked(struct cst_stage_file *f)
{
	struct delta d = {0};
	pthread_rwlock_wrlock(&f->lock);
	int rc = f->failed;
	if (rc == 0)
		delta_take_locked(&d, f);
	pthread_rwlock_unlock(&f->lock);
	return rc < 0 ? rc : delta_write(f, &d);
}

int cst_stage_sync(struct cst_stage_file *f)
{
	CST_CHECK(f, FILE_MAGIC);
	__atomic_add_fetch(&f->stage->syncs, 1, __ATOMIC_RELAXED);
	pthread_mutex_lock(&f->sync_lock);
	int rc = sync_locked(f);
	pthread_mutex_unlock(&f->sync_lock);
	return rc;
}

/* ---- publications ---- */

static void unseal_locked(struct cst_stage_file *f)
{
	cst_stage_image_unseal(&f->image);
	cst_buf_clear(&f->write_id);
	cst_buf_clear(&f->upload_id);
	f->seal_journalled = false;
	f->garbage = true;
}

static int seal_locked(struct cst_stage_file *f, struct cst_slice write_id, bool durable, struct delta *d,
		       bool *journal)
{
	int rc = f->failed ? f->failed : f->image.sealed ? -EBUSY : f->in_conflict ? -EBADF : 0;
	if (rc < 0)
		return rc;
	*journal = durable || !f->unknown;
	if (*journal && f->unknown) {
		rc = stage_promise_locked(f, 2);
		if (rc < 0)
			return rc;
	}
	cst_buf_clear(&f->write_id);
	cst_buf_clear(&f->upload_id);
	cst_buf_add_slice(&f->write_id, write_id);
	bool unknown = f->unknown;
	if (*journal && !unknown)
		delta_take_locked(d, f);
	cst_stage_image_seal(&f->image);
	if (*journal && unknown) {
		delta_take_locked(d, f); /* tells of the seal, too */
	} else if (*journal) {
		struct cst_record r = {.kind = CST_RECORD_PUBLISH_BEGIN, .id = f->id, .key = write_id};
		delta_add(d, &r);
	}
	f->seal_journalled = *journal;
	return 0;
}

int cst_stage_seal(struct cst_stage_file *f, struct cst_slice write_id, bool durable)
{
	struct delta d = {0};
	bool journal = false;
	CST_CHECK(f, FILE_MAGIC);
	if (write_id.len == 0 || write_id.len > WRITE_ID_MAX)
		return -EINVAL;
	pthread_mutex_lock(&f->sync_lock);
	pthread_rwlock_wrlock(&f->lock);
	int rc = seal_locked(f, write_id, durable, &d, &journal);
	pthread_rwlock_unlock(&f->lock);
	if (rc == 0 && journal) {
		rc = delta_write(f, &d);
		if (rc < 0) {
			pthread_rwlock_wrlock(&f->lock);
			unseal_locked(f);
			pthread_rwlock_unlock(&f->lock);
		}
	}
	pthread_mutex_unlock(&f->sync_lock);
	return rc;
}

int cst_stage_set_upload(struct cst_stage_file *f, struct cst_slice upload_id)
{
	uint64_t at;
	CST_CHECK(f, FILE_MAGIC);
	if (upload_id.len > CST_RECORD_TEXT)
		return -EINVAL;
	pthread_mutex_lock(&f->sync_lock);
	pthread_rwlock_wrlock(&f->lock);
	int rc = f->image.sealed ? 0 : -EINVAL;
	if (rc == 0 && f->seal_journalled) {
		struct cst_record r = {.kind = CST_RECORD_PUBLISH_BEGIN,
				       .id = f->id,
				       .key = cst_buf_slice(&f->write_id),
				       .to = upload_id};
		rc = cst_journal_append(f->stage->journal, &r, 1, &at);
	}
	if (rc == 0) {
		cst_buf_clear(&f->upload_id);
		cst_buf_add_slice(&f->upload_id, upload_id);
	}
	pthread_rwlock_unlock(&f->lock);
	pthread_mutex_unlock(&f->sync_lock);
	return rc;
}

int cst_stage_sealed(struct cst_stage_file *f,
		     void (*sealed)(void *arg, const struct cst_extents *map, uint64_t size,
				    const struct cst_stage_base *base),
		     void *arg)
{
	CST_CHECK(f, FILE_MAGIC);
	pthread_rwlock_rdlock(&f->lock);
	int rc = f->image.sealed ? 0 : -EINVAL;
	if (rc == 0)
		sealed(arg, &f->image.sealed_map, f->image.sealed_size, &f->image.base);
	pthread_rwlock_unlock(&f->lock);
	return rc;
}

/* What the journal doesn't know of, when it never heard of the publication: what changed since. */
static void published_locked(struct cst_stage_file *f, const struct cst_stage_base *version)
{
	if (f->unknown) {
		cst_extents_copy(&f->pending, &f->image.since);
		f->changes = cst_min(f->changes, f->image.map.count + f->pending.count);
	}
	cst_stage_image_published(&f->image, version);
	unseal_locked(f);
	stage_trim_promise_locked(f);
	stage_collect_locked(f);
}

/* The end of a publication goes into the journal first: only then may what was sealed be overwritten. */
static int journal_end(struct cst_stage_file *f, const struct cst_record *r)
{
	uint64_t at;
	int rc = cst_journal_append(f->stage->journal, r, 1, &at);
	return rc < 0 ? rc : cst_journal_commit(f->stage->journal, at);
}

int cst_stage_published(struct cst_stage_file *f, const struct cst_stage_base *version)
{
	CST_CHECK(f, FILE_MAGIC);
	pthread_mutex_lock(&f->sync_lock);
	pthread_rwlock_rdlock(&f->lock);
	int rc = f->image.sealed ? 0 : -EINVAL;
	struct cst_record r = {.kind = CST_RECORD_PUBLISH_DONE, .id = f->id, .base = *version};
	r.base.exists = true;
	r.base.size = f->image.sealed_size;
	bool journal = f->seal_journalled;
	pthread_rwlock_unlock(&f->lock);
	if (rc == 0 && journal)
		rc = journal_end(f, &r);
	if (rc == 0) {
		pthread_rwlock_wrlock(&f->lock);
		published_locked(f, version);
		pthread_rwlock_unlock(&f->lock);
	}
	pthread_mutex_unlock(&f->sync_lock);
	return rc;
}

int cst_stage_unpublished(struct cst_stage_file *f)
{
	CST_CHECK(f, FILE_MAGIC);
	pthread_mutex_lock(&f->sync_lock);
	pthread_rwlock_rdlock(&f->lock);
	int rc = f->image.sealed ? 0 : -EINVAL;
	struct cst_record r = {.kind = CST_RECORD_PUBLISH_FAILED, .id = f->id};
	bool journal = f->seal_journalled;
	pthread_rwlock_unlock(&f->lock);
	if (rc == 0 && journal)
		rc = journal_end(f, &r);
	if (rc == 0) {
		pthread_rwlock_wrlock(&f->lock);
		unseal_locked(f);
		stage_collect_locked(f);
		pthread_rwlock_unlock(&f->lock);
	}
	pthread_mutex_unlock(&f->sync_lock);
	return rc;
}

int cst_stage_conflict(struct cst_stage_file *f, struct cst_slice reason)
{
	struct delta d = {0};
	struct cst_record ended = {.kind = CST_RECORD_PUBLISH_FAILED, .id = f->id};
	struct cst_record conflict = {.kind = CST_RECORD_CONFLICT, .id = f->id, .data = reason};
	CST_CHECK(f, FILE_MAGIC);
	if (reason.len > CST_RECORD_TEXT)
		return -EINVAL;
	pthread_mutex_lock(&f->sync_lock);
	pthread_rwlock_wrlock(&f->lock);
	int rc = f->failed ? f->failed : cst_journal_failed(f->stage->journal);
	if (rc == 0) {
		if (f->image.sealed && f->seal_journalled)
			delta_add(&d, &ended);
		if (f->image.sealed)
			unseal_locked(f);
		f->in_conflict = true;
		cst_buf_clear(&f->conflict);
		cst_buf_add_slice(&f->conflict, reason);
		delta_take_locked(&d, f);
		delta_add(&d, &conflict);
	}
	pthread_rwlock_unlock(&f->lock);
	if (rc == 0)
		rc = delta_write(f, &d);
	pthread_mutex_unlock(&f->sync_lock);
	return rc;
}

/* ---- beginning and end ---- */

int cst_stage_file_new(struct cst_stage *s, struct cst_slice key, const struct cst_stage_base *base, bool keep,
		       struct cst_stage_file **out)
{
	CST_CHECK(s, STAGE_MAGIC);
	if (key.len > CST_RECORD_TEXT || (base->exists && base->size >= CST_EXTENTS_END / 2))
		return -EINVAL;
	struct cst_stage_file *f = stage_file_alloc(s, cst_journal_new_id(s->journal));
	cst_buf_add_slice(&f->key, key);
	cst_stage_image_init(&f->image, base, keep && base->exists ? base->size : 0);
	int rc = stage_promise_locked(f, 0);
	if (rc == -ENOSPC) {
		stage_reap(s, true);
		rc = stage_promise_locked(f, 0);
	}
	if (rc < 0) {
		stage_file_free(f);
		return rc;
	}
	pthread_mutex_lock(&s->files_lock);
	TAILQ_INSERT_TAIL(&s->files, f, link);
	s->file_count++;
	pthread_mutex_unlock(&s->files_lock);
	*out = f;
	return 0;
}

int cst_stage_file_forget(struct cst_stage_file *f)
{
	uint64_t at = 0;
	CST_CHECK(f, FILE_MAGIC);
	struct cst_stage *s = f->stage;
	struct cst_record r = {.kind = CST_RECORD_FORGET, .id = f->id};
	pthread_mutex_lock(&f->sync_lock);
	pthread_rwlock_wrlock(&f->lock);
	bool sealed = f->image.sealed;
	pthread_rwlock_unlock(&f->lock);
	pthread_mutex_unlock(&f->sync_lock);
	if (sealed)
		return -EBUSY;
	pthread_mutex_lock(&s->files_lock);
	TAILQ_REMOVE(&s->files, f, link);
	s->file_count--;
	pthread_mutex_unlock(&s->files_lock);
	int rc = f->unknown ? 0 : cst_journal_append(s->journal, &r, 1, &at);
	if (f->promised)
		cst_journal_unpromise(s->journal, f->promised);
	for (unsigned i = 0; i < 2; i++) {
		if (!f->slot[i])
			continue;
		/* If the journal can't say so, the bytes stay for a restart. */
		stage_leave_slot(s, f->slot[i], f->fd[i], f->reserved[i].bytes, rc < 0 ? UINT64_MAX : at);
		f->fd[i] = -1;
	}
	stage_file_free(f);
	return rc;
}

/* ---- telling ---- */

static void tell(struct cst_stage_file *f, struct cst_stage_info *info)
{
	*info = (struct cst_stage_info){
		.id = f->id,
		.key = cst_buf_slice(&f->key),
		.base = f->image.base,
		.size = f->image.size,
		.dirty = cst_stage_image_dirty(&f->image),
		.changed = cst_stage_image_changed(&f->image),
		.attributes = cst_buf_slice(&f->attributes),
		.sealed = f->image.sealed,
		.sealed_size = f->image.sealed_size,
		.write_id = cst_buf_slice(&f->write_id),
		.upload_id = cst_buf_slice(&f->upload_id),
		.in_conflict = f->in_conflict,
		.conflict = cst_buf_slice(&f->conflict),
		.failed = f->failed,
	};
}

void cst_stage_file_info(struct cst_stage_file *f, void (*info)(void *arg, const struct cst_stage_info *info),
			 void *arg)
{
	struct cst_stage_info told;
	CST_CHECK(f, FILE_MAGIC);
	pthread_rwlock_rdlock(&f->lock);
	tell(f, &told);
	info(arg, &told);
	pthread_rwlock_unlock(&f->lock);
}

void cst_stage_each(struct cst_stage *s,
		    void (*each)(void *arg, struct cst_stage_file *f, const struct cst_stage_info *info), void *arg)
{
	struct cst_stage_file *f;
	CST_CHECK(s, STAGE_MAGIC);
	pthread_mutex_lock(&s->files_lock);
	TAILQ_FOREACH (f, &s->files, link) {
		struct cst_stage_info told;
		pthread_rwlock_rdlock(&f->lock);
		tell(f, &told);
		each(arg, f, &told);
		pthread_rwlock_unlock(&f->lock);
	}
	pthread_mutex_unlock(&s->files_lock);
}
