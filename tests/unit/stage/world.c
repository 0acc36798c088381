#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define CST_LOG_AREA "test"
#include "base/log.h"
#include "world.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HISTORY_MAX 40u

uint64_t world_random(struct world *w, uint64_t below)
{
	/* xorshift64* */
	w->random ^= w->random >> 12;
	w->random ^= w->random << 25;
	w->random ^= w->random >> 27;
	return w->random * UINT64_C(2685821657736338717) % below;
}

void world_init(struct world *w, uint64_t seed)
{
	*w = (struct world){.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1, .next = 1};
	w->disk = disk_new();
	cst_log_level_now = -1; /* the failures are meant */
}

static void model_drop(struct model *m)
{
	free(m->history);
	*m = (struct model){0};
}

void world_fini(struct world *w)
{
	if (w->s)
		cst_stage_close(w->s);
	for (unsigned i = 0; i < WORLD_FILES; i++)
		model_drop(&w->files[i]);
	free(w->contents);
	disk_free(w->disk);
}

int world_open(struct world *w)
{
	const struct cst_stage_config config = {.io = disk_io(w->disk),
						.owner = "oss://bucket/prefix",
						.quota = w->quota,
						.journal_size = w->journal_size};
	return cst_stage_open(&config, &w->s, NULL);
}

static struct snap *content(struct world *w, uint64_t number)
{
	if (number >= w->content_room) {
		size_t room = cst_max((size_t)number + 1, 2 * w->content_room);
		w->contents = cst_xrealloc(w->contents, room * sizeof(*w->contents));
		memset(w->contents + w->content_room, 0, (room - w->content_room) * sizeof(*w->contents));
		w->content_room = room;
	}
	return &w->contents[number];
}

/* Contents are kept in a ring of numbers, for the many of a long run. */
static uint64_t new_content(struct world *w)
{
	return w->next++ % 4096 + 1;
}

static struct snap *current(struct model *m)
{
	return &m->history[m->count - 1];
}

/* A further state, a copy of the current one to be changed. */
static struct snap *push(struct model *m)
{
	if (m->count == m->room) {
		m->room = m->room ? 2 * m->room : 4;
		m->history = cst_xrealloc(m->history, m->room * sizeof(*m->history));
	}
	if (m->count)
		m->history[m->count] = m->history[m->count - 1];
	else
		memset(&m->history[0], 0, sizeof(m->history[0]));
	m->count++;
	return current(m);
}

static void confirm(struct model *m)
{
	m->history[0] = *current(m);
	m->count = 1;
	m->confirmed = true;
}

/* ---- reading ---- */

typedef ssize_t read_fn(struct cst_stage_file *f, uint64_t offset, void *data, size_t len, struct cst_stage_gaps *gaps);

/* All of a file, with what is in the store. */
static int read_all(struct world *w, read_fn *read, struct cst_stage_file *f, struct snap *into)
{
	struct cst_stage_gap gap[2];
	char buffer[WORLD_SIZE_MAX + 100];
	memset(into, 0, sizeof(*into));
	for (;;) {
		struct cst_stage_gaps gaps = {.gaps = gap, .room = 2};
		uint64_t at = into->size;
		memset(buffer, 0xee, sizeof(buffer));
		ssize_t got = read(f, at, buffer, sizeof(buffer), &gaps);
		if (got <= 0)
			return (int)got;
		assert_true(at + (uint64_t)got <= WORLD_SIZE_MAX);
		for (unsigned i = 0; i < gaps.count; i++) {
			uint64_t number = strtoull(gaps.base.etag, NULL, 10);
			const struct snap *base = content(w, number);
			assert_true(gaps.base.exists && number > 0);
			assert_int_equal(base->size, gaps.base.size);
			assert_true(gap[i].offset + gap[i].length <= base->size);
			assert_true(gap[i].offset >= at && gap[i].offset + gap[i].length <= at + (uint64_t)got);
			memcpy(buffer + (gap[i].offset - at), base->data + gap[i].offset, gap[i].length);
		}
		memcpy(into->data + at, buffer, (size_t)got);
		into->size += (uint64_t)got;
	}
}

static bool equal(const struct snap *a, const struct snap *b)
{
	return a->size == b->size && memcmp(a->data, b->data, a->size) == 0;
}

void world_check(struct world *w)
{
	static struct snap got;
	for (unsigned i = 0; i < WORLD_FILES; i++) {
		struct model *m = &w->files[i];
		if (!m->f)
			continue;
		int rc = read_all(w, cst_stage_read, m->f, &got);
		if (w->broken && rc < 0)
			continue;
		assert_int_equal(rc, 0);
		assert_true(equal(&got, current(m)));
		w->checks++;
		if (!m->sealed)
			continue;
		rc = read_all(w, cst_stage_read_sealed, m->f, &got);
		if (w->broken && rc < 0)
			continue;
		assert_int_equal(rc, 0);
		assert_true(equal(&got, content(w, m->sealed)));
	}
}

/* ---- steps ---- */

static struct cst_stage_base version(struct world *w, uint64_t number)
{
	struct cst_stage_base base = {.exists = number > 0, .size = number ? content(w, number)->size : 0};
	if (number)
		snprintf(base.etag, sizeof(base.etag), "%" PRIu64, number);
	return base;
}

static void fill_random(struct world *w, char *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		data[i] = (char)(1 + world_random(w, 255));
}

static void step_new(struct world *w, struct model *m)
{
	char key[32];
	uint64_t number = 0;
	*m = (struct model){.key = w->next++, .sure = true};
	bool keep = world_random(w, 2);
	if (world_random(w, 2)) {
		number = new_content(w);
		struct snap *c = content(w, number);
		memset(c, 0, sizeof(*c));
		c->size = world_random(w, WORLD_SIZE_MAX);
		fill_random(w, c->data, c->size);
	}
	struct cst_stage_base base = version(w, number);
	snprintf(key, sizeof(key), "k%" PRIu64, m->key);
	int rc = cst_stage_file_new(w->s, cst_slice_of(key), &base, keep, &m->f);
	if (rc < 0) {
		assert_true(w->broken || rc == -ENOSPC);
		m->f = NULL;
		return;
	}
	struct snap *s = push(m);
	if (keep && number)
		*s = *content(w, number);
}

/* What a failed write has left in its range: the old bytes or the new ones. */
static void adopt_range(struct world *w, struct model *m, const struct snap *wanted)
{
	static struct snap got, old;
	old = *current(m);
	*push(m) = *wanted; /* may be found after a restart, in part */
	if (read_all(w, cst_stage_read, m->f, &got) < 0) {
		*push(m) = old;
		return;
	}
	assert_int_equal(got.size, old.size);
	for (uint64_t i = 0; i < got.size; i++)
		assert_true(got.data[i] == old.data[i] || got.data[i] == wanted->data[i]);
	*push(m) = got;
}

static void step_write(struct world *w, struct model *m)
{
	static struct snap wanted;
	static char data[WORLD_SIZE_MAX];
	static const uint64_t units[] = {1, 1, 100, 512, 4096};
	uint64_t unit = units[world_random(w, 5)];
	uint64_t offset = world_random(w, 3) ? world_random(w, WORLD_SIZE_MAX / unit) * unit : current(m)->size;
	uint64_t len = world_random(w, 4) ? 1 + world_random(w, 700) : 1 + world_random(w, 4096);
	if (offset >= WORLD_SIZE_MAX)
		offset = world_random(w, WORLD_SIZE_MAX);
	len = cst_min(len, WORLD_SIZE_MAX - offset);
	if (current(m)->size && world_random(w, 4) == 0) {
		/* All of it anew: whole blocks are not needed any more. */
		offset = 0;
		len = current(m)->size;
	}
	fill_random(w, data, len);
	wanted = *current(m);
	memcpy(wanted.data + offset, data, len);
	wanted.size = cst_max(wanted.size, offset + len);
	int rc = cst_stage_write(m->f, offset, data, len);
	if (rc == 0) {
		*push(m) = wanted;
	} else {
		assert_true(w->broken || m->conflict || rc == -ENOSPC);
		if (rc != -ESTALE)
			adopt_range(w, m, &wanted);
	}
}

static void resize_snap(struct snap *s, uint64_t size)
{
	if (size < s->size)
		memset(s->data + size, 0, s->size - size);
	s->size = size;
}

static void step_truncate(struct world *w, struct model *m)
{
	uint64_t size = world_random(w, 8) ? world_random(w, WORLD_SIZE_MAX) : 0;
	int rc = cst_stage_truncate(m->f, size);
	if (rc == 0)
		resize_snap(push(m), size);
	else
		assert_true(w->broken || m->conflict || rc == -ENOSPC);
}

static void step_punch(struct world *w, struct model *m)
{
	uint64_t offset = world_random(w, WORLD_SIZE_MAX), len = 1 + world_random(w, 3000);
	int rc = cst_stage_punch(m->f, offset, len);
	if (rc == 0 && offset < current(m)->size) {
		struct snap *s = push(m);
		memset(s->data + offset, 0, cst_min(len, s->size - offset));
	} else if (rc < 0) {
		assert_true(w->broken || m->conflict || rc == -ENOSPC);
	}
}

static void step_fill(struct world *w, struct model *m)
{
	struct cst_stage_gap gap[1];
	struct cst_stage_gaps gaps = {.gaps = gap, .room = 1};
	static char data[WORLD_SIZE_MAX];
	if (cst_stage_read(m->f, 0, data, sizeof(data), &gaps) < 0 || gaps.count == 0)
		return;
	const struct snap *base = content(w, strtoull(gaps.base.etag, NULL, 10));
	uint64_t skip = gap[0].length > 1 ? world_random(w, gap[0].length) : 0;
	/* More than the gap: what is local stays. */
	uint64_t from = gap[0].offset + skip, len = cst_min(gap[0].length + 50, base->size - from);
	int rc = cst_stage_fill(m->f, &gaps.base, from, base->data + from, len);
	assert_true(rc == 0 || w->broken || rc == -ENOSPC);
}

static void step_sync(struct world *w, struct model *m)
{
	int rc = cst_stage_sync(m->f);
	if (rc == 0)
		confirm(m);
	else
		assert_true(w->broken || rc == -ENOSPC);
}

static void step_seal(struct world *w, struct model *m)
{
	char id[32];
	uint64_t number = new_content(w);
	bool durable = world_random(w, 3) > 0;
	for (unsigned i = 0; i < WORLD_FILES; i++)
		if (&w->files[i] != m && w->files[i].f && w->files[i].sealed == number)
			return;
	*content(w, number) = *current(m);
	snprintf(id, sizeof(id), "w%" PRIu64, number);
	bool failed = cst_stage_file_failed(m->f) != 0;
	int rc = cst_stage_seal(m->f, cst_slice_of(id), durable);
	if (rc == -EBUSY || rc == -EBADF) {
		assert_true(rc == -EBUSY ? m->sealed : m->conflict);
		return;
	}
	if (failed) {
		assert_true(rc < 0);
		return;
	}
	/* After a failure a restart may find it all the same. */
	m->sealed = number;
	m->seal_durable = true;
	m->seal_confirmed = rc == 0 && (durable || m->confirmed);
	if (m->seal_confirmed)
		confirm(m);
	if (rc < 0) {
		assert_true(w->broken || rc == -ENOSPC);
		m->sealed = 0;
	}
	if (rc == 0 && world_random(w, 2))
		cst_stage_set_upload(m->f, cst_slice_of("upload"));
}

static void step_end_seal(struct world *w, struct model *m)
{
	bool good = world_random(w, 3) > 0;
	struct cst_stage_base base = version(w, m->sealed);
	int rc = good ? cst_stage_published(m->f, &base) : cst_stage_unpublished(m->f);
	assert_true(rc == 0 || w->broken || rc == -ENOSPC || (rc == -EINVAL && !m->sealed));
	if (rc == 0)
		m->sealed = 0;
}

static void step_forget(struct world *w, struct model *m)
{
	int rc = cst_stage_file_forget(m->f);
	if (rc == -EBUSY) {
		assert_true(m->sealed);
		return;
	}
	assert_true(rc == 0 || w->broken);
	model_drop(m);
}

static void step_conflict(struct world *w, struct model *m)
{
	int rc = cst_stage_conflict(m->f, CST_SLICE("another version is there"));
	m->conflict = true;
	if (rc == 0) {
		m->sealed = 0;
		m->conflict_confirmed = true;
		confirm(m);
	} else {
		assert_true(w->broken || rc == -ENOSPC);
		/* One that had failed before is as it was. */
		struct cst_stage_gaps gaps = {0};
		char byte;
		m->sealed = cst_stage_read_sealed(m->f, 0, &byte, 0, &gaps) == -EINVAL ? 0 : m->sealed;
	}
}

static void step_op(struct world *w)
{
	struct world_op *op = &w->ops[world_random(w, CST_ARRAY_LEN(w->ops))];
	if (op->id && op->phase == 2) {
		int rc = cst_stage_op_done(w->s, op->id);
		assert_true(rc == 0 || w->broken);
		op->id = 0;
		return;
	}
	struct cst_stage_op told = {.id = op->id,
				    .kind = CST_RECORD_RENAME,
				    .phase = op->phase + 1,
				    .path = CST_SLICE("a/b"),
				    .to = CST_SLICE("c"),
				    .data = CST_SLICE("what else there is to know")};
	uint32_t phase = op->id ? op->phase : 0;
	told.phase = phase + 1;
	int rc = cst_stage_op_begin(w->s, &told);
	assert_true(rc == 0 || w->broken || rc == -ENOSPC);
	if (rc == 0)
		*op = (struct world_op){.id = told.id, .phase = phase + 1, .confirmed = true};
}

void world_step(struct world *w)
{
	struct model *m = &w->files[world_random(w, WORLD_FILES)];
	uint64_t what = world_random(w, 100);
	if (!m->f) {
		if (what < 30)
			step_op(w);
		else
			step_new(w, m);
	} else if (m->count > HISTORY_MAX || what >= 94) {
		step_sync(w, m);
	} else if (what < 45) {
		step_write(w, m);
	} else if (what < 52) {
		step_truncate(w, m);
	} else if (what < 57) {
		step_punch(w, m);
	} else if (what < 62) {
		step_fill(w, m);
	} else if (what < 72) {
		step_seal(w, m);
	} else if (what < 82) {
		step_end_seal(w, m);
	} else if (what < 84) {
		step_forget(w, m);
	} else if (what == 84) {
		step_conflict(w, m);
	} else if (what < 87) {
		cst_stage_drop_clean(m->f);
	} else if (what < 89) {
		cst_stage_file_rest(m->f);
	} else {
		step_op(w);
	}
	/* The history must not lose what it is for when syncs fail. */
	if (m->f && m->count > 4 * HISTORY_MAX) {
		m->history[1] = m->history[m->count - 1];
		if (!w->broken)
			fail_msg("a file isn't synced any more");
		m->count = 2;
	}
}

/* ---- after a restart ---- */

static bool may_be(const struct model *m, uint64_t at, char byte)
{
	for (size_t i = 0; i < m->count; i++) {
		const struct snap *s = &m->history[i];
		if (at < s->size ? s->data[at] == byte : byte == 0)
			return true;
	}
	return false;
}

static void check_found(struct world *w, struct model *m, const struct snap *got)
{
	bool size = false;
	for (size_t i = 0; i < m->count; i++)
		size = size || m->history[i].size == got->size;
	assert_true(size);
	for (uint64_t i = 0; i < got->size; i++)
		assert_true(may_be(m, i, got->data[i]));
	w->checks++;
}

struct found {
	struct world *w;
	struct cst_stage_file *strangers[64], *found[WORLD_FILES];
	size_t stranger_count;
	bool sealed[WORLD_FILES], conflict[WORLD_FILES];
	char write_id[WORLD_FILES][32];
};

static void find_file(void *arg, struct cst_stage_file *f, const struct cst_stage_info *info)
{
	struct found *found = arg;
	char key[32];
	assert_int_equal(info->failed, 0);
	for (unsigned i = 0; i < WORLD_FILES; i++) {
		if (!found->w->files[i].count)
			continue;
		snprintf(key, sizeof(key), "k%" PRIu64, found->w->files[i].key);
		if (!cst_slice_is(info->key, key))
			continue;
		assert_null(found->found[i]);
		found->found[i] = f;
		found->sealed[i] = info->sealed;
		found->conflict[i] = info->in_conflict;
		snprintf(found->write_id[i], sizeof(found->write_id[i]), "%.*s", (int)info->write_id.len,
			 info->write_id.data);
		return;
	}
	/* One that was forgotten, without its end being on the disk. */
	assert_true(found->stranger_count < CST_ARRAY_LEN(found->strangers));
	found->strangers[found->stranger_count++] = f;
}

static void check_op(void *arg, const struct cst_stage_op *op)
{
	struct world *w = arg;
	if (op->kind == CST_RECORD_MKDIR) /* a filler of the journal */
		return;
	assert_int_equal(op->kind, CST_RECORD_RENAME);
	assert_true(cst_slice_is(op->path, "a/b") && cst_slice_is(op->to, "c") &&
		    cst_slice_is(op->data, "what else there is to know"));
	for (unsigned i = 0; i < CST_ARRAY_LEN(w->ops); i++) {
		if (w->ops[i].id == op->id) {
			assert_true(op->phase >= w->ops[i].phase);
			w->ops[i].phase = op->phase;
			w->ops[i].confirmed = false; /* seen */
		}
	}
}

static void recover_model(struct world *w, struct model *m, struct found *found, unsigned i)
{
	static struct snap got;
	m->f = found->found[i];
	if (!m->f) {
		assert_false(m->confirmed);
		model_drop(m);
		return;
	}
	assert_int_equal(read_all(w, cst_stage_read, m->f, &got), 0);
	check_found(w, m, &got);
	if (m->conflict_confirmed)
		assert_true(found->conflict[i]);
	if (m->sealed && m->seal_confirmed)
		assert_true(found->sealed[i] || w->broken);
	m->conflict = m->conflict_confirmed = found->conflict[i];
	m->count = 0;
	*push(m) = got;
	m->confirmed = true;
	m->sealed = 0;
	if (found->sealed[i]) {
		/* Exactly what was sealed, not a byte of what came later. */
		m->sealed = strtoull(found->write_id[i] + 1, NULL, 10);
		assert_int_equal(read_all(w, cst_stage_read_sealed, m->f, &got), 0);
		assert_true(equal(&got, content(w, m->sealed)));
		m->seal_confirmed = true;
		w->seals_found++;
	}
}

void world_recover(struct world *w)
{
	struct found found = {.w = w};
	struct cst_error err = CST_ERROR_INIT;
	const struct cst_stage_config config = {.io = disk_io(w->disk),
						.owner = "oss://bucket/prefix",
						.quota = w->quota,
						.journal_size = w->journal_size};
	int rc = cst_stage_open(&config, &w->s, &err);
	if (rc < 0) {
		char text[CST_ERROR_TEXT_MAX];
		fail_msg("%s", cst_error_text(&err, text, sizeof(text)));
	}
	w->restarts++;
	cst_stage_each(w->s, find_file, &found);
	for (unsigned i = 0; i < WORLD_FILES; i++)
		if (w->files[i].count)
			recover_model(w, &w->files[i], &found, i);
	cst_stage_each_op(w->s, check_op, w);
	for (unsigned i = 0; i < CST_ARRAY_LEN(w->ops); i++) {
		assert_false(w->ops[i].id && w->ops[i].confirmed);
		w->ops[i].confirmed = w->ops[i].id != 0;
	}
	for (size_t i = 0; i < found.stranger_count; i++) {
		static struct snap got;
		assert_true(read_all(w, cst_stage_read, found.strangers[i], &got) <= 0);
		cst_stage_unpublished(found.strangers[i]);
		assert_int_equal(cst_stage_file_forget(found.strangers[i]), 0);
	}
	w->broken = false;
}

void world_close(struct world *w)
{
	cst_stage_close(w->s);
	w->s = NULL;
	for (unsigned i = 0; i < WORLD_FILES; i++)
		w->files[i].f = NULL;
}
