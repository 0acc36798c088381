/* Reading a journal: how far it is good, what it amounts to, which of two files counts. */
#define CST_LOG_AREA "stage"
#include "stage/journal_private.h"

#include "base/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

struct scanner {
	const char *bytes;
	size_t len;
	struct cst_journal_scan *scan;
	uint64_t checkpoint; /* its records */
	struct cst_extent extents[CST_RECORD_EXTENTS_MAX];
};

static void damaged(struct cst_journal_scan *scan, const char *what, uint64_t number, uint64_t offset)
{
	scan->damaged = true;
	snprintf(scan->why, sizeof(scan->why), "record %" PRIu64 " (byte %" PRIu64 ") %s", number, offset, what);
}

/* A bad record: torn, or was it on the disk? A later one may know. */
static void look_beyond(struct scanner *s)
{
	struct cst_journal_scan *scan = s->scan;
	for (uint64_t at = scan->end + CST_RECORD_ALIGN; at + CST_RECORD_HEAD <= s->len; at += CST_RECORD_ALIGN) {
		struct cst_record r;
		struct cst_record_place place;
		if (cst_record_decode(s->bytes + at, s->len - at, &scan->tag, &r, s->extents, &place) == 0 &&
		    place.number > scan->records && place.synced > scan->records) {
			damaged(scan, "is not readable, although it was synced", scan->records, scan->end);
			return;
		}
	}
}

/* Several records that belong together count only when all are there: is that so from `at` on, where record `number` begins? *end: where they end. */
static bool is_whole(struct scanner *s, uint64_t at, uint64_t number, uint64_t *end)
{
	struct cst_record r;
	struct cst_record_place place;
	do {
		if (at >= s->len ||
		    cst_record_decode(s->bytes + at, s->len - at, &s->scan->tag, &r, s->extents, &place) < 0 ||
		    place.number != number++)
			return false;
		at += place.size;
	} while (r.more);
	*end = at;
	return true;
}

static bool take_header(struct scanner *s, const struct cst_record *r, const struct cst_record_place *place)
{
	struct cst_journal_scan *scan = s->scan;
	if (r->kind != CST_RECORD_HEADER || place->number != 0 || r->size < 2)
		return false;
	scan->header = true;
	scan->epoch = r->id;
	s->checkpoint = r->size;
	scan->tag = place->tag;
	scan->state.next_id = cst_max(r->next, UINT64_C(1));
	cst_buf_add_slice(&scan->state.owner, r->data);
	if (r->phase != CST_JOURNAL_FORMAT || r->next >= UINT64_MAX / 2)
		damaged(scan, "is the header of another version", 0, 0);
	return true;
}

/* False: the journal ends before this one. */
static bool take_record(struct scanner *s, const struct cst_record *r, const struct cst_record_place *place)
{
	struct cst_journal_scan *scan = s->scan;
	bool is_end = place->number + 1 == s->checkpoint;
	if (place->number != scan->records)
		return false;
	if (is_end != (r->kind == CST_RECORD_CHECKPOINT)) {
		damaged(scan, "ends the checkpoint at another place", place->number, scan->end);
		return false;
	}
	if (is_end) {
		scan->whole = true;
	} else if (r->kind == CST_RECORD_CONTINUED) {
		scan->continued = true;
	} else if (cst_state_apply(&scan->state, r) < 0) {
		damaged(scan, "makes no sense after those before it", place->number, scan->end);
		return false;
	}
	return true;
}

void cst_journal_scan(const void *bytes, size_t len, struct cst_journal_scan *scan,
		      void (*each)(void *arg, uint64_t offset, const struct cst_record *r), void *arg)
{
	CST_AUTO_FREE struct scanner *s = CST_NEW(struct scanner);
	uint64_t batch = 0; /* where the records that were found to be whole end */
	*scan = (struct cst_journal_scan){0};
	cst_state_init(&scan->state);
	s->bytes = bytes;
	s->len = len;
	s->scan = scan;
	while (!scan->continued && !scan->damaged && scan->end < len) {
		struct cst_record r;
		struct cst_record_place place;
		int rc = cst_record_decode(s->bytes + scan->end, len - scan->end, scan->header ? &scan->tag : NULL, &r,
					   s->extents, &place);
		if (rc == 0 && r.more && scan->end >= batch) {
			/* The records' extents share their room: read it again. */
			rc = scan->header && is_whole(s, scan->end, scan->records, &batch) ? 0 : -EBADMSG;
			if (rc == 0)
				cst_record_decode(s->bytes + scan->end, len - scan->end, &scan->tag, &r, s->extents,
						  &place);
		}
		if (rc == 0 && !(scan->header ? take_record(s, &r, &place) : take_header(s, &r, &place)))
			rc = -EBADMSG;
		if (rc < 0)
			break;
		if (each)
			each(arg, scan->end, &r);
		scan->records++;
		scan->end = cst_min(scan->end + place.size, (uint64_t)len);
	}
	if (scan->whole && !scan->continued && !scan->damaged)
		look_beyond(s);
}

static int refuse(struct cst_error *err, const char *file, const char *why)
{
	cst_error_set(err, EBADMSG, "the journal of the staging directory is damaged");
	cst_error_why(err, "%s: %s", file, why);
	cst_error_hint(
		err,
		"nothing was changed; the staged bytes are still in the directory's data files: print the journal, copy "
		"what is needed, and use another staging directory");
	return -EBADMSG;
}

int cst_journal_choose(const struct cst_journal_scan scans[2], bool made, struct cst_error *err)
{
	int best = -1;
	for (int i = 0; i < 2; i++)
		if (scans[i].whole && (best < 0 || scans[i].epoch > scans[best].epoch))
			best = i;
	for (int i = 0; i < 2; i++)
		if (scans[i].damaged && (best < 0 || scans[i].epoch >= scans[best].epoch))
			return refuse(err, cst_journal_names[i], scans[i].why);
	if (best < 0 && made)
		return refuse(err, cst_journal_names[0], "neither it nor the other file has a whole checkpoint");
	if (best < 0)
		return -ENOENT;
	if (scans[best].continued)
		return refuse(err, cst_journal_names[best], "it goes on in the other file, which is not whole");
	return best;
}

int cst_journal_load(const struct cst_stage_io *io, int dir, const char *name, struct cst_buf *bytes)
{
	uint64_t size = 0;
	int fd = io->open(io->ctx, dir, name, 0);
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	int rc = io->size(io->ctx, fd, &size);
	if (rc == 0 && size > JOURNAL_SIZE_MAX)
		rc = -EFBIG;
	if (rc == 0 && size)
		rc = cst_stage_io_read(io, fd, cst_buf_room(bytes, (size_t)size), (size_t)size, 0);
	if (rc == 0)
		bytes->len += (size_t)size;
	io->close(io->ctx, fd);
	return rc;
}

/* ---- for people ---- */

struct printer {
	void (*line)(void *arg, const char *text);
	void *arg;
	struct cst_buf text;
};

static void add_text(struct cst_buf *out, const char *name, struct cst_slice text)
{
	if (text.len == 0)
		return;
	cst_buf_printf(out, " %s=", name);
	cst_text_json_string(out, text);
}

static void print_record(void *arg, uint64_t offset, const struct cst_record *r)
{
	struct printer *p = arg;
	cst_buf_clear(&p->text);
	cst_buf_printf(&p->text, "%10" PRIu64 " %s %" PRIu64, offset, cst_record_name(r->kind), r->id);
	if (r->kind == CST_RECORD_HEADER || r->kind == CST_RECORD_CREATE || r->kind == CST_RECORD_TRUNCATE)
		cst_buf_printf(&p->text, " size=%" PRIu64, r->size);
	if (cst_state_is_op(r->kind))
		cst_buf_printf(&p->text, " phase=%" PRIu32, r->phase);
	for (unsigned i = 0; i < 2; i++)
		if (r->slots[i])
			cst_buf_printf(&p->text, " file%u=d%08" PRIx32, i, r->slots[i]);
	if (r->base.exists)
		cst_buf_printf(&p->text, " base=%" PRIu64, r->base.size);
	add_text(&p->text, "etag", cst_slice_of(r->base.etag));
	add_text(&p->text, r->kind == CST_RECORD_PUBLISH_BEGIN ? "write-id" : "key", r->key);
	add_text(&p->text, r->kind == CST_RECORD_PUBLISH_BEGIN ? "upload-id" : "to", r->to);
	if (r->kind == CST_RECORD_CONFLICT || r->kind == CST_RECORD_HEADER)
		add_text(&p->text, "text", r->data);
	else if (r->data.len)
		cst_buf_printf(&p->text, " data=%zu", r->data.len);
	for (size_t i = 0; i < r->extent_count; i++) {
		const struct cst_extent *e = &r->extents[i];
		cst_buf_printf(&p->text, " [%" PRIu64 "+%" PRIu64 "%s]", e->start, e->length,
			       e->kind & CST_STAGE_ZERO	    ? " zero"
			       : e->kind & CST_STAGE_SECOND ? " file1"
							    : " file0");
	}
	p->line(p->arg, p->text.data);
}

int cst_journal_print(const struct cst_stage_io *io, int dir, void (*line)(void *arg, const char *text), void *arg,
		      struct cst_error *err)
{
	struct printer p = {.line = line, .arg = arg};
	for (int i = 0; i < 2; i++) {
		CST_AUTO_BUF bytes = CST_BUF_INIT;
		struct cst_journal_scan scan;
		int rc = cst_journal_load(io, dir, cst_journal_names[i], &bytes);
		if (rc < 0) {
			cst_buf_fini(&p.text);
			cst_error_set(err, -rc, "can't read %s of the staging directory", cst_journal_names[i]);
			cst_error_why(err, "%s", strerror(-rc));
			return rc;
		}
		line(arg, cst_journal_names[i]);
		cst_journal_scan(bytes.data, bytes.len, &scan, print_record, &p);
		cst_buf_clear(&p.text);
		cst_buf_printf(&p.text, "%10" PRIu64 " end: %" PRIu64 " records%s%s%s", scan.end, scan.records,
			       scan.whole ? "" : ", the checkpoint is not whole", scan.damaged ? ", damaged: " : "",
			       scan.damaged ? scan.why : "");
		line(arg, p.text.data);
		cst_state_fini(&scan.state);
	}
	cst_buf_fini(&p.text);
	return 0;
}
