/* The staging area as a whole: opening it and what a restart finds, staging files that nobody uses, room, operations on names. */
#define CST_LOG_AREA "stage"
#include "base/log.h"
#include "stage/stage_private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SLOT_BATCH 16u /* staging files made at once: one sync of the directory */
#define FREE_MAX 64u

/* ---- staging files ---- */

void stage_slot_name(uint32_t slot, char name[16])
{
	snprintf(name, 16, "d%08" PRIx32, slot);
}

static void add_free_locked(struct cst_stage *s, uint32_t slot, int fd)
{
	struct spare *spare = CST_NEW(struct spare);
	spare->slot = slot;
	spare->fd = fd;
	TAILQ_INSERT_HEAD(&s->free, spare, link);
	s->free_count++;
}

/* Several at once, because their names have to be on the disk before anything in them is confirmed. */
static int make_slots_locked(struct cst_stage *s)
{
	struct spares made = TAILQ_HEAD_INITIALIZER(made);
	struct spare *spare;
	char name[16];
	int rc = 0;
	for (unsigned i = 0; i < SLOT_BATCH; i++) {
		stage_slot_name(s->next_slot, name);
		int fd = s->io->open(s->io->ctx, s->dir, name, O_CREAT | O_EXCL);
		if (fd < 0) {
			rc = fd;
			break;
		}
		spare = CST_NEW(struct spare);
		spare->slot = s->next_slot++;
		spare->fd = fd;
		TAILQ_INSERT_TAIL(&made, spare, link);
		s->free_count++;
	}
	if (!TAILQ_EMPTY(&made)) {
		rc = s->io->dirsync(s->io->ctx, s->dir);
		/* Not known to be there: nobody gets them. */
		while (rc < 0 && (spare = TAILQ_FIRST(&made))) {
			TAILQ_REMOVE(&made, spare, link);
			s->io->close(s->io->ctx, spare->fd);
			free(spare);
			s->free_count--;
		}
	}
	TAILQ_CONCAT(&s->free, &made, link);
	return rc == -EDQUOT ? -ENOSPC : rc;
}

int stage_take_slot(struct cst_stage *s, uint32_t *slot, int *fd)
{
	char name[16];
	pthread_mutex_lock(&s->lock);
	int rc = TAILQ_EMPTY(&s->free) ? make_slots_locked(s) : 0;
	struct spare *spare = rc == 0 ? TAILQ_FIRST(&s->free) : NULL;
	if (spare) {
		TAILQ_REMOVE(&s->free, spare, link);
		s->free_count--;
	}
	pthread_mutex_unlock(&s->lock);
	if (!spare)
		return rc;
	*slot = spare->slot;
	*fd = spare->fd;
	free(spare);
	if (*fd < 0) {
		stage_slot_name(*slot, name);
		*fd = s->io->open(s->io->ctx, s->dir, name, 0);
	}
	return *fd < 0 ? *fd : 0;
}

void stage_leave_slot(struct cst_stage *s, uint32_t slot, int fd, uint64_t bytes, uint64_t at)
{
	struct spare *spare = CST_NEW(struct spare);
	*spare = (struct spare){.slot = slot, .fd = fd, .bytes = bytes, .at = at};
	pthread_mutex_lock(&s->lock);
	TAILQ_INSERT_TAIL(&s->limbo, spare, link);
	pthread_mutex_unlock(&s->lock);
	stage_reap(s, false);
}

static void reap_one(struct cst_stage *s, struct spare *spare)
{
	char name[16];
	stage_slot_name(spare->slot, name);
	if (spare->fd < 0)
		spare->fd = s->io->open(s->io->ctx, s->dir, name, 0);
	int rc = spare->fd < 0 ? spare->fd : s->io->truncate(s->io->ctx, spare->fd, 0);
	pthread_mutex_lock(&s->lock);
	if (rc == 0)
		s->used -= spare->bytes;
	bool keep = rc == 0 && s->free_count < FREE_MAX;
	if (keep)
		add_free_locked(s, spare->slot, spare->fd);
	pthread_mutex_unlock(&s->lock);
	if (!keep) {
		if (spare->fd >= 0)
			s->io->close(s->io->ctx, spare->fd);
		s->io->unlink(s->io->ctx, s->dir, name);
	}
	free(spare);
}

void stage_reap(struct cst_stage *s, bool force)
{
	struct spare *spare;
	uint64_t last = 0;
	pthread_mutex_lock(&s->lock);
	TAILQ_FOREACH (spare, &s->limbo, link)
		last = cst_max(last, spare->at);
	pthread_mutex_unlock(&s->lock);
	if (force && last)
		cst_journal_commit(s->journal, last);
	uint64_t durable = cst_journal_durable(s->journal);
	for (;;) {
		pthread_mutex_lock(&s->lock);
		TAILQ_FOREACH (spare, &s->limbo, link)
			if (spare->at <= durable)
				break;
		if (spare)
			TAILQ_REMOVE(&s->limbo, spare, link);
		pthread_mutex_unlock(&s->lock);
		if (!spare)
			return;
		reap_one(s, spare);
	}
}

/* ---- room ---- */

int stage_take_room(struct cst_stage *s, uint64_t bytes)
{
	uint64_t space;
	struct cst_journal_stats journal = {0};
	if (s->quota)
		cst_journal_stats(s->journal, &journal);
	if (s->keep_free) {
		int rc = s->io->space(s->io->ctx, s->dir, &space);
		if (rc < 0)
			return rc;
		if (space < s->keep_free || space - s->keep_free < bytes)
			return -ENOSPC;
	}
	pthread_mutex_lock(&s->lock);
	bool fits = !s->quota || s->used + bytes + journal.capacity <= s->quota;
	if (fits)
		s->used += bytes;
	pthread_mutex_unlock(&s->lock);
	return fits ? 0 : -ENOSPC;
}

void stage_give_room(struct cst_stage *s, uint64_t bytes)
{
	pthread_mutex_lock(&s->lock);
	CST_ASSERT(bytes <= s->used);
	s->used -= bytes;
	pthread_mutex_unlock(&s->lock);
}

/* ---- opening ---- */

struct recovery {
	struct cst_stage *s;
	struct cst_error *err;
	int rc;
	uint32_t *slots; /* in use */
	size_t slot_count, slot_room;
	struct cst_buf names; /* of staging files that nobody uses, each with its NUL */
};

static void recover_file(struct recovery *r, const struct cst_state_file *from)
{
	struct cst_stage_file *f = stage_file_alloc(r->s, from->id);
	cst_buf_add_slice(&f->key, cst_buf_slice(&from->key));
	cst_buf_add_slice(&f->attributes, cst_buf_slice(&from->attributes));
	cst_buf_add_slice(&f->write_id, cst_buf_slice(&from->write_id));
	cst_buf_add_slice(&f->upload_id, cst_buf_slice(&from->upload_id));
	cst_buf_add_slice(&f->conflict, cst_buf_slice(&from->conflict));
	cst_stage_image_copy(&f->image, &from->image);
	f->in_conflict = from->in_conflict;
	f->seal_journalled = f->image.sealed;
	f->unknown = false;
	for (unsigned i = 0; i < 2; i++) {
		f->slot[i] = from->slots[i];
		if (!f->slot[i])
			continue;
		if (r->slot_count == r->slot_room) {
			r->slot_room = cst_max(2 * r->slot_room, (size_t)64);
			r->slots = cst_xrealloc(r->slots, r->slot_room * sizeof(*r->slots));
		}
		r->slots[r->slot_count++] = f->slot[i];
	}
	/* The journal has them as they were first confirmed. */
	struct cst_stage_file *before = TAILQ_LAST(&r->s->files, stage_files);
	while (before && before->id > f->id)
		before = TAILQ_PREV(before, stage_files, link);
	if (before)
		TAILQ_INSERT_AFTER(&r->s->files, before, f, link);
	else
		TAILQ_INSERT_HEAD(&r->s->files, f, link);
	r->s->file_count++;
}

static void recover_files(void *arg, const struct cst_state *state)
{
	const struct cst_state_file *f;
	TAILQ_FOREACH (f, &state->files, link)
		recover_file(arg, f);
}

static int compare_slots(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static void see_name(void *arg, const char *name)
{
	struct recovery *r = arg;
	uint32_t slot = 0;
	char expected[16];
	if (name[0] != 'd' || sscanf(name + 1, "%8" SCNx32, &slot) != 1)
		return;
	stage_slot_name(slot, expected);
	if (strcmp(name, expected) != 0)
		return;
	r->s->next_slot = cst_max(r->s->next_slot, slot + 1);
	if (!r->slot_count || !bsearch(&slot, r->slots, r->slot_count, sizeof(*r->slots), compare_slots))
		cst_buf_add(&r->names, name, strlen(name) + 1);
}

static int file_damaged(const struct cst_stage_file *f, unsigned which, int rc, const char *why, struct cst_error *err)
{
	char name[16];
	stage_slot_name(f->slot[which], name);
	cst_error_set(err, -rc, "the staging file %s of %.*s can't be used", name,
		      (int)cst_min(f->key.len, (size_t)120), f->key.data);
	cst_error_why(err, "%s", why);
	cst_error_hint(err, "nothing was removed; copy what is needed, and use another staging directory");
	return rc;
}

static uint64_t last_byte(const struct cst_extents *map, unsigned which)
{
	struct cst_extent e;
	uint64_t last = 0;
	for (uint64_t at = 0; cst_extents_next(map, at, CST_EXTENTS_END, &e); at = e.start + e.length)
		if (!(e.kind & CST_STAGE_ZERO) && (e.kind & CST_STAGE_SECOND) == which)
			last = e.start + e.length;
	return last;
}

/* What the journal says to be there is, and what it doesn't know goes: bytes that were reserved or written without being confirmed. */
static int recover_data(struct cst_stage_file *f, unsigned which, struct cst_error *err)
{
	struct cst_stage *s = f->stage;
	struct cst_extents *blocks = &f->reserved[which];
	struct cst_extent e;
	uint64_t size = 0, end = 0;
	stage_used_blocks(&f->image.map, which, blocks);
	stage_used_blocks(&f->image.sealed_map, which, blocks);
	s->used += blocks->bytes;
	int fd = stage_file_fd(f, which);
	int rc = fd < 0 ? fd : s->io->size(s->io->ctx, fd, &size);
	if (rc < 0)
		return file_damaged(f, which, rc == -ENOENT ? -EBADMSG : rc, strerror(-rc), err);
	if (size < cst_max(last_byte(&f->image.map, which), last_byte(&f->image.sealed_map, which)))
		return file_damaged(f, which, -EBADMSG, "it is shorter than what was confirmed", err);
	for (uint64_t at = 0; cst_extents_next(blocks, at, CST_EXTENTS_END, &e); at = end) {
		if (e.start > end)
			s->io->punch(s->io->ctx, fd, end, e.start - end);
		end = e.start + e.length;
	}
	/* Also what was reserved behind the end goes with this. */
	s->io->truncate(s->io->ctx, fd, cst_min(size, end));
	return 0;
}

static int recover(struct cst_stage *s, struct cst_error *err)
{
	struct recovery r = {.s = s, .err = err};
	struct cst_stage_file *f;
	cst_journal_read(s->journal, recover_files, &r);
	if (r.slot_count)
		qsort(r.slots, r.slot_count, sizeof(*r.slots), compare_slots);
	for (size_t i = 1; i < r.slot_count && r.rc == 0; i++)
		if (r.slots[i] == r.slots[i - 1])
			r.rc = cst_error_set(err, EBADMSG, "the journal gives one staging file to two objects");
	if (r.rc == 0)
		r.rc = s->io->each(s->io->ctx, s->dir, see_name, &r);
	TAILQ_FOREACH (f, &s->files, link) {
		for (unsigned i = 0; i < 2 && r.rc == 0; i++)
			if (f->slot[i])
				r.rc = recover_data(f, i, err);
		cst_stage_file_rest(f);
	}
	for (size_t at = 0; at < r.names.len && r.rc == 0; at += strlen(r.names.data + at) + 1)
		s->io->unlink(s->io->ctx, s->dir, r.names.data + at);
	free(r.slots);
	cst_buf_fini(&r.names);
	return r.rc;
}

static int open_journal(struct cst_stage *s, const struct cst_stage_config *config, struct cst_error *err)
{
	const struct cst_journal_config journal = {
		.io = s->io, .dir = s->dir, .size = config->journal_size, .owner = config->owner};
	int rc = cst_journal_open(&journal, &s->journal, err);
	if (rc < 0)
		return rc;
	rc = recover(s, err);
	if (rc < 0)
		return rc;
	if (s->file_count)
		cst_log_info("staging directory: %" PRIu64 " staged files, %" PRIu64 " bytes found", s->file_count,
			     s->used);
	return 0;
}

int cst_stage_open(const struct cst_stage_config *config, struct cst_stage **out, struct cst_error *err)
{
	struct cst_stage *s = CST_NEW(struct cst_stage);
	s->magic = STAGE_MAGIC;
	s->io = config->io ? config->io : cst_stage_io_posix();
	s->quota = config->quota;
	s->keep_free = config->keep_free;
	s->next_slot = 1;
	s->dir = s->lock_fd = -1;
	pthread_mutex_init(&s->files_lock, NULL);
	pthread_mutex_init(&s->lock, NULL);
	TAILQ_INIT(&s->files);
	TAILQ_INIT(&s->free);
	TAILQ_INIT(&s->limbo);
	int rc = 0;
	if (config->io) {
		s->dir = config->dir;
	} else {
		s->own_dir = true;
		s->dir = rc = cst_stage_dir_open(config->path, err);
		if (rc >= 0)
			s->lock_fd = rc = cst_stage_dir_lock(s->dir, config->path, err);
	}
	if (rc >= 0)
		rc = open_journal(s, config, err);
	if (rc < 0) {
		cst_stage_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

void cst_stage_close(struct cst_stage *s)
{
	struct cst_stage_file *f;
	struct spare *spare;
	CST_CHECK(s, STAGE_MAGIC);
	while ((f = TAILQ_FIRST(&s->files))) {
		TAILQ_REMOVE(&s->files, f, link);
		stage_file_free(f);
	}
	TAILQ_CONCAT(&s->free, &s->limbo, link);
	while ((spare = TAILQ_FIRST(&s->free))) {
		TAILQ_REMOVE(&s->free, spare, link);
		if (spare->fd >= 0)
			s->io->close(s->io->ctx, spare->fd);
		free(spare);
	}
	if (s->journal)
		cst_journal_close(s->journal);
	cst_close_fd(&s->lock_fd);
	if (s->own_dir)
		cst_close_fd(&s->dir);
	pthread_mutex_destroy(&s->files_lock);
	pthread_mutex_destroy(&s->lock);
	s->magic = 0;
	free(s);
}

/* ---- operations on names ---- */

struct each_op {
	void (*each)(void *arg, const struct cst_stage_op *op);
	void *arg;
};

static void each_op(void *arg, const struct cst_state *state)
{
	const struct each_op *call = arg;
	const struct cst_state_op *op;
	TAILQ_FOREACH (op, &state->ops, link) {
		struct cst_stage_op told = {.id = op->id,
					    .kind = op->kind,
					    .phase = op->phase,
					    .path = cst_buf_slice(&op->path),
					    .to = cst_buf_slice(&op->to),
					    .data = cst_buf_slice(&op->data)};
		call->each(call->arg, &told);
	}
}

void cst_stage_each_op(struct cst_stage *s, void (*each)(void *arg, const struct cst_stage_op *op), void *arg)
{
	struct each_op call = {each, arg};
	CST_CHECK(s, STAGE_MAGIC);
	cst_journal_read(s->journal, each_op, &call);
}

int cst_stage_op_begin(struct cst_stage *s, struct cst_stage_op *op)
{
	uint64_t at;
	CST_CHECK(s, STAGE_MAGIC);
	if (!cst_state_is_op(op->kind))
		return -EINVAL;
	uint64_t id = op->id ? op->id : cst_journal_new_id(s->journal);
	struct cst_record r = {
		.kind = op->kind, .id = id, .phase = op->phase, .key = op->path, .to = op->to, .data = op->data};
	int rc = cst_journal_append(s->journal, &r, 1, &at);
	if (rc == 0)
		rc = cst_journal_commit(s->journal, at);
	if (rc == 0)
		op->id = id;
	return rc;
}

int cst_stage_op_done(struct cst_stage *s, uint64_t id)
{
	uint64_t at;
	struct cst_record r = {.kind = CST_RECORD_OP_DONE, .id = id};
	CST_CHECK(s, STAGE_MAGIC);
	return cst_journal_append(s->journal, &r, 1, &at);
}

/* ---- telling ---- */

static void count_ops(void *arg, const struct cst_state *state)
{
	const struct cst_state_op *op;
	TAILQ_FOREACH (op, &state->ops, link)
		++*(uint64_t *)arg;
}

void cst_stage_stats(struct cst_stage *s, struct cst_stage_stats *stats)
{
	CST_CHECK(s, STAGE_MAGIC);
	*stats = (struct cst_stage_stats){.quota = s->quota};
	cst_journal_read(s->journal, count_ops, &stats->ops);
	cst_journal_stats(s->journal, &stats->journal);
	pthread_mutex_lock(&s->files_lock);
	stats->files = s->file_count;
	pthread_mutex_unlock(&s->files_lock);
	pthread_mutex_lock(&s->lock);
	stats->used = s->used + stats->journal.capacity;
	pthread_mutex_unlock(&s->lock);
	stats->syncs = __atomic_load_n(&s->syncs, __ATOMIC_RELAXED);
	stats->datasyncs = __atomic_load_n(&s->datasyncs, __ATOMIC_RELAXED);
	stats->writes = __atomic_load_n(&s->writes, __ATOMIC_RELAXED);
	stats->bytes_written = __atomic_load_n(&s->bytes_written, __ATOMIC_RELAXED);
	stats->no_space = __atomic_load_n(&s->no_space, __ATOMIC_RELAXED);
}

int cst_stage_print(const char *path, void (*line)(void *arg, const char *text), void *arg, struct cst_error *err)
{
	CST_AUTO_CLOSE int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		int code = errno;
		cst_error_set(err, code, "can't open the staging directory %s", path);
		cst_error_why(err, "%s", strerror(code));
		return -code;
	}
	if (faccessat(dir, "lock", F_OK, AT_SYMLINK_NOFOLLOW) < 0) {
		cst_error_set(err, ENOENT, "%s is no staging directory", path);
		return -ENOENT;
	}
	CST_AUTO_CLOSE int lock = cst_stage_dir_lock(dir, path, err);
	if (lock < 0)
		return lock;
	return cst_journal_print(cst_stage_io_posix(), dir, line, arg, err);
}
