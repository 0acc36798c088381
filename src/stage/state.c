#include "stage/state.h"

#include <errno.h>

#define TABLE_FIRST 64u
/* Bytes of a record whose texts are empty, at most. */
#define RECORD_BYTES (CST_RECORD_HEAD + CST_RECORD_ALIGN + 64u)

void cst_state_init(struct cst_state *state)
{
	*state = (struct cst_state){.next_id = 1};
	TAILQ_INIT(&state->files);
	TAILQ_INIT(&state->ops);
}

static void file_free(struct cst_state_file *f)
{
	cst_buf_fini(&f->key);
	cst_buf_fini(&f->attributes);
	cst_buf_fini(&f->write_id);
	cst_buf_fini(&f->upload_id);
	cst_buf_fini(&f->conflict);
	cst_stage_image_fini(&f->image);
	free(f);
}

static void op_free(struct cst_state_op *op)
{
	cst_buf_fini(&op->path);
	cst_buf_fini(&op->to);
	cst_buf_fini(&op->data);
	free(op);
}

void cst_state_fini(struct cst_state *state)
{
	struct cst_state_file *f;
	struct cst_state_op *op;
	while ((f = TAILQ_FIRST(&state->files))) {
		TAILQ_REMOVE(&state->files, f, link);
		file_free(f);
	}
	while ((op = TAILQ_FIRST(&state->ops))) {
		TAILQ_REMOVE(&state->ops, op, link);
		op_free(op);
	}
	free(state->table);
	cst_buf_fini(&state->owner);
	cst_state_init(state);
}

/* ---- files by id ---- */

static struct cst_state_file **bucket_of(const struct cst_state *state, uint64_t id)
{
	return &state->table[id * UINT64_C(0x9e3779b97f4a7c15) >> 32 & (state->table_size - 1)];
}

struct cst_state_file *cst_state_find(const struct cst_state *state, uint64_t id)
{
	struct cst_state_file *f = state->table ? *bucket_of(state, id) : NULL;
	while (f && f->id != id)
		f = f->hash_next;
	return f;
}

static void grow_table(struct cst_state *state)
{
	struct cst_state_file *f;
	free(state->table);
	state->table_size = state->table_size ? 2 * state->table_size : TABLE_FIRST;
	state->table = cst_xcalloc(state->table_size, sizeof(struct cst_state_file *));
	TAILQ_FOREACH (f, &state->files, link) {
		struct cst_state_file **bucket = bucket_of(state, f->id);
		f->hash_next = *bucket;
		*bucket = f;
	}
}

static struct cst_state_file *file_add(struct cst_state *state, uint64_t id)
{
	if (state->file_count >= state->table_size)
		grow_table(state);
	struct cst_state_file *f = CST_NEW(struct cst_state_file);
	struct cst_state_file **bucket = bucket_of(state, id);
	f->id = id;
	f->hash_next = *bucket;
	*bucket = f;
	TAILQ_INSERT_TAIL(&state->files, f, link);
	state->file_count++;
	return f;
}

static void file_remove(struct cst_state *state, struct cst_state_file *f)
{
	struct cst_state_file **at = bucket_of(state, f->id);
	while (*at != f)
		at = &(*at)->hash_next;
	*at = f->hash_next;
	TAILQ_REMOVE(&state->files, f, link);
	state->file_count--;
	state->bytes -= f->record_bytes;
	file_free(f);
}

struct cst_state_op *cst_state_find_op(const struct cst_state *state, uint64_t id)
{
	struct cst_state_op *op;
	TAILQ_FOREACH (op, &state->ops, link)
		if (op->id == id)
			return op;
	return NULL;
}

bool cst_state_is_op(enum cst_record_kind kind)
{
	return kind >= CST_RECORD_RENAME && kind < CST_RECORD_OP_DONE;
}

/* ---- applying ---- */

static void set_text(struct cst_buf *b, struct cst_slice text)
{
	cst_buf_clear(b);
	cst_buf_add_slice(b, text);
}

static uint64_t extents_bytes(size_t count)
{
	return count * CST_RECORD_EXTENT + (count + CST_RECORD_EXTENTS_MAX - 1) / CST_RECORD_EXTENTS_MAX * RECORD_BYTES;
}

static void count_file(struct cst_state *state, struct cst_state_file *f)
{
	uint64_t bytes = RECORD_BYTES + CST_ETAG_MAX + f->key.len + extents_bytes(f->image.map.count);
	bytes += f->attributes.len ? RECORD_BYTES + f->attributes.len : 0;
	bytes += f->in_conflict ? RECORD_BYTES + f->conflict.len : 0;
	/* What changed since it was sealed are at most the extents that are there and the ends of these changes. */
	if (f->image.sealed) {
		bytes += extents_bytes(f->image.sealed_map.count) + extents_bytes(f->image.since.count);
		bytes += 3 * RECORD_BYTES + f->write_id.len + f->upload_id.len;
	}
	state->bytes += bytes - f->record_bytes;
	f->record_bytes = bytes;
}

static int apply_create(struct cst_state *state, const struct cst_record *r)
{
	if (r->id == 0 || r->id >= UINT64_MAX / 2 || cst_state_find(state, r->id) || cst_state_find_op(state, r->id))
		return -EBADMSG;
	struct cst_state_file *f = file_add(state, r->id);
	set_text(&f->key, r->key);
	f->slots[0] = r->slots[0];
	f->slots[1] = r->slots[1];
	cst_stage_image_init(&f->image, &r->base, r->size);
	count_file(state, f);
	state->next_id = cst_max(state->next_id, r->id + 1);
	return 0;
}

static int apply_extents(struct cst_state_file *f, const struct cst_record *r)
{
	for (size_t i = 0; i < r->extent_count; i++) {
		uint8_t kind = r->extents[i].kind;
		if (!(kind & CST_STAGE_ZERO) && r->slots[kind & CST_STAGE_SECOND] == 0)
			return -EBADMSG;
	}
	for (unsigned i = 0; i < 2; i++)
		if (f->slots[i] && f->slots[i] != r->slots[i])
			return -EBADMSG;
	f->slots[0] = r->slots[0];
	f->slots[1] = r->slots[1];
	for (size_t i = 0; i < r->extent_count; i++)
		cst_stage_image_write(&f->image, r->extents[i].start, r->extents[i].length, r->extents[i].kind);
	return 0;
}

static int apply_publish_begin(struct cst_state_file *f, const struct cst_record *r)
{
	if (r->key.len == 0 || (f->image.sealed && !cst_slice_eq(cst_buf_slice(&f->write_id), r->key)))
		return -EBADMSG;
	if (!f->image.sealed)
		cst_stage_image_seal(&f->image);
	set_text(&f->write_id, r->key);
	set_text(&f->upload_id, r->to);
	return 0;
}

static int apply_publish_end(struct cst_state_file *f, const struct cst_record *r)
{
	if (!f->image.sealed)
		return -EBADMSG;
	if (r->kind == CST_RECORD_PUBLISH_DONE) {
		cst_stage_image_published(&f->image, &r->base);
		cst_stage_image_drop_clean(&f->image);
	} else {
		cst_stage_image_unseal(&f->image);
	}
	cst_buf_clear(&f->write_id);
	cst_buf_clear(&f->upload_id);
	return 0;
}

static int apply_move(struct cst_state_file *f, const struct cst_record *r)
{
	if (!cst_stage_image_may_move(&f->image, &r->base))
		return -EBADMSG;
	f->image.base = r->base;
	set_text(&f->key, r->key);
	return 0;
}

static int apply_file(struct cst_state *state, const struct cst_record *r)
{
	struct cst_state_file *f = cst_state_find(state, r->id);
	int rc = 0;
	if (!f)
		return -EBADMSG;
	switch (r->kind) {
	case CST_RECORD_EXTENTS:
		rc = apply_extents(f, r);
		break;
	case CST_RECORD_TRUNCATE:
		cst_stage_image_resize(&f->image, r->size);
		break;
	case CST_RECORD_ATTRIBUTES:
		set_text(&f->attributes, r->data);
		break;
	case CST_RECORD_MOVE:
		rc = apply_move(f, r);
		break;
	case CST_RECORD_PUBLISH_BEGIN:
		rc = apply_publish_begin(f, r);
		break;
	case CST_RECORD_CONFLICT:
		f->in_conflict = true;
		set_text(&f->conflict, r->data);
		break;
	case CST_RECORD_FORGET:
		file_remove(state, f);
		return 0;
	default:
		rc = apply_publish_end(f, r);
		break;
	}
	if (rc == 0)
		count_file(state, f);
	return rc;
}

static uint64_t op_bytes(const struct cst_state_op *op)
{
	return RECORD_BYTES + op->path.len + op->to.len + op->data.len;
}

static int apply_op(struct cst_state *state, const struct cst_record *r)
{
	struct cst_state_op *op = cst_state_find_op(state, r->id);
	if (r->id == 0 || r->id >= UINT64_MAX / 2 || cst_state_find(state, r->id) || (op && op->kind != r->kind))
		return -EBADMSG;
	if (!op) {
		op = CST_NEW(struct cst_state_op);
		op->id = r->id;
		op->kind = r->kind;
		TAILQ_INSERT_TAIL(&state->ops, op, link);
		state->next_id = cst_max(state->next_id, r->id + 1);
	} else {
		state->bytes -= op_bytes(op);
	}
	op->phase = r->phase;
	set_text(&op->path, r->key);
	set_text(&op->to, r->to);
	set_text(&op->data, r->data);
	state->bytes += op_bytes(op);
	return 0;
}

int cst_state_apply(struct cst_state *state, const struct cst_record *r)
{
	struct cst_state_op *op;
	if (cst_state_is_op(r->kind))
		return apply_op(state, r);
	switch (r->kind) {
	case CST_RECORD_HEADER:
	case CST_RECORD_CHECKPOINT:
	case CST_RECORD_CONTINUED:
		return -EBADMSG;
	case CST_RECORD_CREATE:
		return apply_create(state, r);
	case CST_RECORD_OP_DONE:
		op = cst_state_find_op(state, r->id);
		if (!op)
			return -EBADMSG;
		TAILQ_REMOVE(&state->ops, op, link);
		state->bytes -= op_bytes(op);
		op_free(op);
		return 0;
	default:
		return apply_file(state, r);
	}
}

/* ---- a checkpoint ---- */

struct emitter {
	void (*each)(void *arg, const struct cst_record *r);
	void *arg;
	struct cst_record r; /* of extents */
	struct cst_extent extents[CST_RECORD_EXTENTS_MAX];
};

static void emit_gathered(struct emitter *out)
{
	if (out->r.extent_count == 0)
		return;
	out->r.extents = out->extents;
	out->each(out->arg, &out->r);
	out->r.extent_count = 0;
}

/* The extents of a map in [from, end). */
static void emit_range(struct emitter *out, const struct cst_extents *map, uint64_t from, uint64_t end)
{
	struct cst_extent e;
	for (uint64_t at = from; cst_extents_next(map, at, end, &e); at = e.start + e.length) {
		if (e.kind & CST_STAGE_CLEAN)
			continue;
		if (out->r.extent_count == CST_RECORD_EXTENTS_MAX)
			emit_gathered(out);
		out->extents[out->r.extent_count++] = e;
	}
}

static void emit_file(struct emitter *out, const struct cst_state_file *f)
{
	const struct cst_stage_image *image = &f->image;
	struct cst_record r = {
		.kind = CST_RECORD_CREATE, .id = f->id, .base = image->base, .key = cst_buf_slice(&f->key)};
	struct cst_extent e;
	r.slots[0] = f->slots[0];
	r.slots[1] = f->slots[1];
	/* At first as large as what lies in it before it grows by zeros: these are among the extents. */
	r.size = image->sealed ? image->sealed_size : image->size;
	out->each(out->arg, &r);
	out->r = (struct cst_record){.kind = CST_RECORD_EXTENTS, .id = f->id, .slots = {f->slots[0], f->slots[1]}};
	emit_range(out, image->sealed ? &image->sealed_map : &image->map, 0, CST_EXTENTS_END);
	emit_gathered(out);
	if (image->sealed) {
		r = (struct cst_record){.kind = CST_RECORD_PUBLISH_BEGIN,
					.id = f->id,
					.key = cst_buf_slice(&f->write_id),
					.to = cst_buf_slice(&f->upload_id)};
		out->each(out->arg, &r);
		for (uint64_t at = 0; cst_extents_next(&image->since, at, CST_EXTENTS_END, &e); at = e.start + e.length)
			emit_range(out, &image->map, e.start, e.start + e.length);
		emit_gathered(out);
		r = (struct cst_record){.kind = CST_RECORD_TRUNCATE, .id = f->id, .size = image->size};
		out->each(out->arg, &r);
	}
	if (f->attributes.len) {
		r = (struct cst_record){
			.kind = CST_RECORD_ATTRIBUTES, .id = f->id, .data = cst_buf_slice(&f->attributes)};
		out->each(out->arg, &r);
	}
	if (f->in_conflict) {
		r = (struct cst_record){.kind = CST_RECORD_CONFLICT, .id = f->id, .data = cst_buf_slice(&f->conflict)};
		out->each(out->arg, &r);
	}
}

void cst_state_emit_file(const struct cst_state_file *f, void (*each)(void *arg, const struct cst_record *r), void *arg)
{
	CST_AUTO_FREE struct emitter *out = CST_NEW(struct emitter);
	out->each = each;
	out->arg = arg;
	emit_file(out, f);
}

void cst_state_each(const struct cst_state *state, void (*each)(void *arg, const struct cst_record *r), void *arg)
{
	CST_AUTO_FREE struct emitter *out = CST_NEW(struct emitter);
	const struct cst_state_file *f;
	const struct cst_state_op *op;
	out->each = each;
	out->arg = arg;
	TAILQ_FOREACH (f, &state->files, link)
		emit_file(out, f);
	TAILQ_FOREACH (op, &state->ops, link) {
		struct cst_record r = {.kind = op->kind,
				       .id = op->id,
				       .phase = op->phase,
				       .key = cst_buf_slice(&op->path),
				       .to = cst_buf_slice(&op->to),
				       .data = cst_buf_slice(&op->data)};
		each(arg, &r);
	}
}
