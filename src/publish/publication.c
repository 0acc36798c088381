/* Publications: phase after phase, each of which waits for requests or begins the next. verdict.h decides what answers mean. */
#define CST_LOG_AREA "publish"
#include "publish/internal.h"

#include "base/clock.h"
#include "base/digest.h"
#include "base/log.h"

#include <string.h>

static bool appends(const struct cst_publish_stream *s)
{
	return s->mode == CST_PUBLISH_APPENDABLE;
}

bool total_crc(const struct cst_publish_stream *s, uint64_t upto, uint64_t run, uint64_t *crc64)
{
	uint64_t len = upto - s->anchor.offset;
	if (!s->publish->config.verify_crc64 || !s->anchor.known || upto < s->anchor.offset)
		return false;
	*crc64 = cst_crc64_combine(s->anchor.crc64, run ^ cst_crc64_combine(s->anchor.run, 0, len), len);
	return true;
}

/* The copies have told the CRC of what they copied. */
static void learn_front(struct cst_publish_stream *s)
{
	uint64_t crc = 0, at = 0;
	for (size_t i = 0; i < s->part_count && s->parts[i].copy; i++) {
		const struct part *part = &s->parts[i];
		if (part->state != PART_DONE || !part->part.has_crc64)
			return;
		crc = cst_crc64_combine(crc, part->part.crc64, part->part.size);
		at += part->part.size;
	}
	if (at == 0 || s->anchor.known || at != s->anchor.offset)
		return;
	s->anchor.crc64 = crc;
	s->anchor.known = true;
}

/* ---- ends ---- */

void sync_end_locked(struct cst_publish_stream *s, struct cst_publish_sync *sync, int rc, const struct cst_error *err,
		     struct todo *todo)
{
	struct ending *e = CST_NEW(struct ending);
	e->sync = sync;
	e->rc = rc;
	e->version = s->version;
	if (rc < 0)
		e->err = *err;
	STAILQ_INSERT_TAIL(&todo->endings, e, link);
}

static void end_locked(struct cst_publish_stream *s, int rc, const struct cst_error *err, struct todo *todo)
{
	struct publication *pub = &s->pub;
	struct cst_publish_sync *sync;
	while ((sync = TAILQ_FIRST(&pub->syncs))) {
		TAILQ_REMOVE(&pub->syncs, sync, link);
		sync_end_locked(s, sync, rc, err, todo);
	}
	pub->phase = PHASE_NONE;
	pub->answered = false;
	load_forget_locked(s);
	properties_unref(cst_steal(pub->properties));
	if (rc == 0 || rc == -ESTALE)
		return;
	s->publish->stats.failures++;
}

/* Of a request, inside a publication or before one. */
void publication_fail_locked(struct cst_publish_stream *s, int rc, const struct cst_error *err, struct todo *todo)
{
	struct cst_error copy = *err;
	stream_stall_locked(s, rc, &copy, todo);
	if (s->pub.phase != PHASE_NONE)
		end_locked(s, rc, &copy, todo);
}

void publication_conflict_locked(struct cst_publish_stream *s, const struct cst_error *err, struct todo *todo)
{
	struct cst_error copy = *err;
	copy.code = ESTALE;
	if (s->pub.phase == PHASE_NONE) {
		stream_stall_locked(s, -ESTALE, &copy, todo);
		return;
	}
	s->pub.refused_err = copy;
	s->pub.phase = PHASE_KEEP;
}

/* Up to `target` the stream is in the store now, as the version `info`. */
static void adopt_locked(struct cst_publish_stream *s, uint64_t target, uint64_t run,
			 const struct cst_object_info *info, enum cst_object_type type)
{
	struct chunk *c;
	uint64_t crc = 0;
	bool known = total_crc(s, target, run, &crc);
	bool all = s->mode == CST_PUBLISH_WHOLE && s->source.size == 0 && s->part_count == 0;
	s->retained = all && target > 0 && target < s->publish->limits.part_min;
	upload_forget_locked(s);
	while (!s->retained && (c = TAILQ_FIRST(&s->chunks)) && c->offset < target) {
		if (c->offset + c->length <= target) {
			chunk_free_locked(s, c);
			continue;
		}
		uint32_t n = (uint32_t)(target - c->offset);
		c->skip += n;
		c->offset += n;
		c->length -= n;
		c->crc_before = run;
	}
	TAILQ_FOREACH (c, &s->chunks, link)
		c->part = 0;
	s->publish->stats.publications++;
	s->publish->stats.bytes_published += target - cst_min(s->published, target);
	s->base = (struct cst_publish_base){.exists = true, .type = type, .size = target};
	memcpy(s->base.etag, info->etag, sizeof(s->base.etag));
	memcpy(s->source.etag, info->etag, sizeof(s->source.etag));
	s->source.size = s->retained || s->mode == CST_PUBLISH_APPENDABLE ? 0 : target;
	s->assigned = s->retained ? 0 : target;
	s->published = target;
	s->anchor.offset = target;
	s->anchor.run = run;
	s->anchor.known = known || info->has_crc64;
	s->anchor.crc64 = known ? crc : info->crc64;
	s->touches_done = s->pub.touches;
	s->maybe_count = 0;
	s->version = (struct cst_object_info){.size = target, .type = type, .crc64 = s->anchor.crc64};
	s->version.has_crc64 = s->anchor.known;
	s->version.mtime = info->mtime ? info->mtime : cst_wall() / CST_NS_PER_S;
	memcpy(s->version.etag, info->etag, sizeof(s->version.etag));
}

static void succeed_locked(struct cst_publish_stream *s, uint64_t target, uint64_t run,
			   const struct cst_object_info *info, struct todo *todo)
{
	enum cst_object_type type = appends(s)	 ? CST_OBJECT_APPENDABLE
				    : s->pub.put ? CST_OBJECT_NORMAL
						 : CST_OBJECT_MULTIPART;
	adopt_locked(s, target, run, info, type);
	if (s->reset_pending)
		s->reset_base = s->base; /* what it begins anew on */
	if (target < s->pub.target)
		s->pub.phase = PHASE_REQUEST; /* of appends: the next one */
	else
		end_locked(s, 0, NULL, todo);
}

/* ---- a publication whose outcome is not known ---- */

static void remember_locked(struct cst_publish_stream *s)
{
	struct publication *pub = &s->pub;
	if (s->maybe_count == MAYBE_MAX)
		memmove(&s->maybe[0], &s->maybe[1], (--s->maybe_count) * sizeof(*s->maybe));
	struct maybe *m = &s->maybe[s->maybe_count++];
	uint64_t run = appends(s) ? pub->append_run : pub->run;
	m->target = appends(s) ? pub->append_to : pub->target;
	m->run = run;
	m->content = s->content;
	m->put = pub->put;
	m->has_crc64 = total_crc(s, m->target, run, &m->crc64);
	memcpy(m->id, pub->id, sizeof(m->id));
	s->base_checked = false;
}

static bool is_refusal(const struct publication *pub)
{
	return !pub->repeated && pub->rc != -ETIMEDOUT && pub->rc != -EIO && pub->rc != -ECANCELED &&
	       pub->rc != -EBADMSG;
}

static const struct maybe *find_maybe(const struct cst_publish_stream *s, const struct publication *pub)
{
	for (unsigned i = s->maybe_count; i-- > 0;)
		if (s->maybe[i].target == pub->info.size &&
		    (appends(s) ? s->maybe[i].has_crc64 && pub->info.has_crc64 && s->maybe[i].crc64 == pub->info.crc64
				: strcmp(s->maybe[i].id, pub->seen_id) == 0))
			return &s->maybe[i];
	return NULL;
}

/* One of ours is there whose outcome was not known: it is what we build on now. True: it was all there is to publish. */
static bool take_earlier_locked(struct cst_publish_stream *s, struct todo *todo)
{
	struct publication *pub = &s->pub;
	const struct maybe *m = find_maybe(s, pub);
	bool broken = m && m->has_crc64 && pub->info.has_crc64 && m->crc64 != pub->info.crc64;
	bool other_upload = s->part_count > 0 && m && strcmp(m->id, s->upload_write_id) != 0;
	struct maybe found;
	if (m && m->content == s->content && !broken && !other_upload && m->target >= s->published) {
		found = *m;
		pub->put = found.put;
		bool same = found.target == pub->target && s->touches == pub->touches;
		unsigned done = s->touches_done;
		adopt_locked(s, found.target, found.run, &pub->info,
			     appends(s)	 ? CST_OBJECT_APPENDABLE
			     : found.put ? CST_OBJECT_NORMAL
					 : CST_OBJECT_MULTIPART);
		if (!same)
			s->touches_done = done;
		s->base_checked = true;
		if (!same)
			return false;
		end_locked(s, 0, NULL, todo);
		return true;
	}
	s->base.exists = true;
	s->base.size = pub->info.size;
	memcpy(s->base.etag, pub->info.etag, sizeof(s->base.etag));
	if (s->source.size && m && m->content == s->content && !broken)
		memcpy(s->source.etag, pub->info.etag, sizeof(s->source.etag));
	s->maybe_count = 0;
	return false;
}

/* ---- the start ---- */

static void choose_form_locked(struct cst_publish_stream *s)
{
	const struct cst_publish *p = s->publish;
	struct publication *pub = &s->pub;
	bool sent = s->part_count > 0;
	uint64_t most = cst_min(p->config.part_size, p->limits.put_max);
	pub->put = !appends(s) && !sent && s->source.size == 0 && pub->target <= most;
	if (appends(s) || pub->put)
		return;
	parts_make_locked(s, pub->target, true);
}

void publication_start_locked(struct cst_publish_stream *s)
{
	struct publication *pub = &s->pub;
	TAILQ_CONCAT(&pub->syncs, &s->syncs, link);
	pub->phase = PHASE_SEND;
	pub->begun = false;
	pub->target = s->size;
	pub->run = s->crc;
	pub->generation = s->generation;
	pub->touches = s->touches;
	pub->retries = 0;
	pub->answered = pub->checked = false;
	pub->refused = 0;
	pub->id[0] = '\0';
	pub->properties = properties_ref(s->properties);
	if (s->maybe_count)
		pub->phase = PHASE_CHECK;
	pub->formed = false;
}

/* ---- requests ---- */

static void check_locked(struct cst_publish_stream *s, enum phase next, struct todo *todo)
{
	call_new_locked(s, CALL_HEAD, todo);
	s->pub.phase = next;
}

static enum cst_object_condition condition_of(const struct cst_publish_stream *s)
{
	if (s->publish->no_conditions)
		return CST_OBJECT_ANY;
	if (!s->base.exists)
		return CST_OBJECT_IF_ABSENT;
	return s->publish->if_match && s->base.etag[0] ? CST_OBJECT_IF_MATCH : CST_OBJECT_ANY;
}

static void request_append_locked(struct cst_publish_stream *s, struct todo *todo)
{
	struct publication *pub = &s->pub;
	struct call *c = call_new_locked(s, CALL_APPEND, todo);
	const struct chunk *chunk;
	uint64_t to = s->published, run = s->anchor.run;
	TAILQ_FOREACH (chunk, &s->chunks, link) {
		if (chunk->offset >= pub->target || (to > s->published && to - s->published >= part_goal(s)))
			break;
		to = cst_min(chunk->offset + chunk->length, pub->target);
		run = to == pub->target ? pub->run : chunk->crc;
	}
	pub->append_to = to;
	pub->append_run = run;
	call_body_locked(c, s->published, to);
	c->has_crc64 = s->publish->config.verify_crc64;
	c->crc64 = c->has_crc64 ? run ^ cst_crc64_combine(s->anchor.run, 0, to - s->published) : 0;
	c->has_before = c->has_crc64 && s->anchor.known;
	c->before = s->anchor.crc64;
	c->properties = properties_ref(pub->properties);
	memcpy(c->id, pub->id, sizeof(c->id));
}

static void complete_locked(struct cst_publish_stream *s, struct call *c)
{
	c->parts = cst_xcalloc(s->part_count, sizeof(*c->parts));
	for (size_t i = 0; i < s->part_count; i++)
		c->parts[c->part_count++] = s->parts[i].part;
	learn_front(s);
}

static void request_locked(struct cst_publish_stream *s, struct todo *todo)
{
	struct publication *pub = &s->pub;
	struct call *c;
	if (appends(s) || pub->put)
		cst_write_id_new(pub->id);
	else
		memcpy(pub->id, s->upload_write_id, sizeof(pub->id));
	pub->phase = PHASE_REQUESTED;
	if (appends(s)) {
		request_append_locked(s, todo);
		return;
	}
	c = call_new_locked(s, pub->put ? CALL_PUT : CALL_COMPLETE, todo);
	c->condition = condition_of(s);
	if (c->condition == CST_OBJECT_IF_MATCH)
		memcpy(c->etag, s->base.etag, sizeof(c->etag));
	memcpy(c->id, pub->id, sizeof(c->id));
	c->properties = properties_ref(pub->properties);
	if (pub->put)
		call_body_locked(c, 0, pub->target);
	else
		complete_locked(s, c);
	c->has_crc64 = total_crc(s, pub->target, pub->run, &c->crc64);
}

/* ---- answers ---- */

void publication_answer_locked(struct call *c, const struct cst_object_written *written)
{
	struct cst_publish_stream *s = c->stream;
	struct publication *pub = &s->pub;
	struct cst_publish_stats *stats = &s->publish->stats;
	pub->answered = true;
	pub->answer = c->kind;
	pub->rc = written->rc;
	pub->repeated = written->repeated;
	pub->upload_gone = false;
	if (written->rc < 0) {
		pub->err = *written->err;
		pub->upload_gone = strcmp(written->err->api, "NoSuchUpload") == 0;
		return;
	}
	pub->info = *written->info;
	pub->info.meta = NULL;
	pub->info.meta_count = 0;
	stats->puts += c->kind == CALL_PUT;
	stats->appends += c->kind == CALL_APPEND;
	stats->bytes_sent += c->length;
}

void head_answer_locked(struct call *c, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct publication *pub = &c->stream->pub;
	pub->answered = true;
	pub->answer = CALL_HEAD;
	pub->rc = rc;
	pub->seen_id[0] = '\0';
	pub->info = (struct cst_object_info){0};
	if (rc < 0) {
		pub->err = *err;
		return;
	}
	pub->info = *info;
	for (size_t i = 0; i < info->meta_count; i++)
		if (cst_slice_is(info->meta[i].name, WRITE_ID_HEADER))
			snprintf(pub->seen_id, sizeof(pub->seen_id), "%.*s", (int)info->meta[i].value.len,
				 info->meta[i].value.data);
	pub->info.meta = NULL;
	pub->info.meta_count = 0;
}

static enum cst_publish_seen classify(const struct cst_publish_stream *s, bool sent)
{
	const struct publication *pub = &s->pub;
	struct cst_publish_looked looked = {.base_exists = s->base.exists,
					    .base_etag = s->base.etag,
					    .id = sent ? pub->id : "",
					    .size = pub->target};
	bool found = pub->rc == 0;
	bool before = found && find_maybe(s, pub);
	if (appends(s)) {
		/* An append adds to what is there: how long it is, and its CRC, tell. */
		uint64_t crc = 0;
		bool known = sent && total_crc(s, pub->append_to, pub->append_run, &crc);
		if (found && known && pub->info.size == pub->append_to && pub->info.has_crc64 && pub->info.crc64 == crc)
			return CST_SEEN_OURS;
		if (before)
			return CST_SEEN_BEFORE;
		bool longer = found && s->base.exists && pub->info.size != s->base.size;
		looked.id = "";
		return longer ? CST_SEEN_OTHER
			      : cst_publish_classify(&looked, found, pub->info.etag, "", 0, false, 0, false);
	}
	looked.has_crc64 = total_crc(s, pub->target, pub->run, &looked.crc64);
	return cst_publish_classify(&looked, found, pub->info.etag, pub->seen_id, pub->info.size, pub->info.has_crc64,
				    pub->info.crc64, before);
}

static void conflict_locked(struct cst_publish_stream *s, enum cst_publish_seen seen)
{
	struct cst_error *err = &s->pub.refused_err;
	char name[NAME_MAX_TEXT];
	cst_error_set(err, ESTALE, "can't publish %s", stream_name(s, name));
	if (seen == CST_SEEN_GONE)
		cst_error_why(err, "another client has removed the object since it was opened");
	else
		cst_error_why(err, "another client has %s meanwhile (it has %llu bytes and the ETag %s now)",
			      s->base.exists ? "changed it" : "created it", (unsigned long long)s->pub.info.size,
			      s->pub.info.etag);
	s->pub.phase = PHASE_KEEP;
}

/* A HEAD that could not be had: what would have been decided by it stays open. */
static bool head_failed_locked(struct cst_publish_stream *s, bool sent, struct todo *todo)
{
	if (s->pub.rc == 0 || s->pub.rc == -ENOENT)
		return false;
	if (sent)
		remember_locked(s);
	publication_fail_locked(s, s->pub.rc, &s->pub.err, todo);
	return true;
}

static void on_checked_locked(struct cst_publish_stream *s, struct todo *todo)
{
	struct publication *pub = &s->pub;
	if (head_failed_locked(s, false, todo))
		return;
	enum cst_publish_seen seen = classify(s, false);
	if (appends(s) && s->replaced && seen == CST_SEEN_GONE) {
		s->base.exists = s->replaced = false;
		seen = CST_SEEN_BASE;
	}
	if (cst_publish_judge_before(seen) == CST_VERDICT_CONFLICT) {
		conflict_locked(s, seen);
		return;
	}
	if (seen == CST_SEEN_BEFORE && take_earlier_locked(s, todo))
		return;
	s->maybe_count = 0;
	s->base_checked = true;
	pub->checked = pub->formed;
	if (pub->rc == 0 && !s->anchor.known && s->anchor.offset == pub->info.size && pub->info.has_crc64 &&
	    s->anchor.offset == s->base.size) {
		s->anchor.crc64 = pub->info.crc64;
		s->anchor.known = true;
	}
	if (appends(s) && pub->rc == 0 && !s->replaced && pub->info.type != CST_OBJECT_APPENDABLE) {
		struct cst_error err = CST_ERROR_INIT;
		char name[NAME_MAX_TEXT];
		cst_error_set(&err, EPERM, "can't append to %s", stream_name(s, name));
		cst_error_why(&err, "the object is there, and was not written by AppendObject");
		publication_fail_locked(s, -EPERM, &err, todo);
		return;
	}
	pub->phase = appends(s) && s->replaced && pub->rc == 0 ? PHASE_REPLACE : PHASE_SEND;
	if (pub->phase == PHASE_SEND && pub->formed)
		pub->phase = PHASE_REQUEST;
}

/* A store that is only compatible may know no conditions: then a HEAD before each publication has to do. */
static bool without_conditions_locked(struct cst_publish_stream *s)
{
	struct cst_publish *p = s->publish;
	if (appends(s) || s->pub.rc != -ENOTSUP || (p->no_conditions && s->pub.checked))
		return false;
	if (!p->no_conditions)
		cst_log_warn("%s knows no conditional writes: what another client writes within a round trip before a "
			     "publication is overwritten",
			     cst_bucket_describe(p->config.bucket));
	p->no_conditions = true;
	s->pub.phase = PHASE_CHECK;
	return true;
}

static void on_requested_locked(struct cst_publish_stream *s, struct todo *todo)
{
	struct publication *pub = &s->pub;
	enum cst_publish_verdict verdict = cst_publish_judge(pub->rc);
	if (without_conditions_locked(s))
		return;
	if (appends(s) && (pub->rc == -ERANGE || pub->rc == -EPERM))
		verdict = CST_VERDICT_LOOK;
	if (verdict == CST_VERDICT_PUBLISHED) {
		succeed_locked(s, appends(s) ? pub->append_to : pub->target, appends(s) ? pub->append_run : pub->run,
			       &pub->info, todo);
	} else if (verdict == CST_VERDICT_LOOK) {
		pub->refused = pub->rc;
		pub->refused_err = pub->err;
		pub->refused_gone = pub->upload_gone;
		check_locked(s, PHASE_VERIFYING, todo);
	} else {
		if (!is_refusal(pub))
			remember_locked(s);
		publication_fail_locked(s, pub->rc, &pub->err, todo);
	}
}

static void lost_locked(struct cst_publish_stream *s, struct todo *todo)
{
	struct cst_error err = CST_ERROR_INIT;
	char name[NAME_MAX_TEXT];
	cst_error_set(&err, EIO, "can't publish %s", stream_name(s, name));
	cst_error_why(&err, "its upload is gone from the store, with the parts that were sent: another client or a "
			    "lifecycle rule of the bucket has aborted it");
	upload_forget_locked(s);
	stream_fail_locked(s, -EIO, &err);
	publication_fail_locked(s, -EIO, &err, todo);
}

static void on_verified_locked(struct cst_publish_stream *s, struct todo *todo)
{
	struct publication *pub = &s->pub;
	if (head_failed_locked(s, true, todo))
		return;
	enum cst_publish_seen seen = classify(s, true);
	enum cst_publish_request request = pub->put || appends(s) ? CST_PUBLISH_PUT : CST_PUBLISH_COMPLETE;
	switch (cst_publish_judge_seen(request, pub->refused_gone, seen)) {
	case CST_VERDICT_PUBLISHED:
		succeed_locked(s, appends(s) ? pub->append_to : pub->target, appends(s) ? pub->append_run : pub->run,
			       &pub->info, todo);
		return;
	case CST_VERDICT_LOST:
		lost_locked(s, todo);
		return;
	case CST_VERDICT_AGAIN:
		break;
	default:
		conflict_locked(s, seen);
		return;
	}
	if (seen == CST_SEEN_BEFORE && take_earlier_locked(s, todo))
		return;
	if (++pub->retries > RETRIES_MAX) {
		publication_fail_locked(s, -EIO, &pub->refused_err, todo);
		return;
	}
	pub->formed = pub->checked = false;
	pub->phase = PHASE_SEND;
}

static void on_replaced_locked(struct cst_publish_stream *s, struct todo *todo)
{
	struct publication *pub = &s->pub;
	if (pub->rc < 0) {
		s->base_checked = false;
		publication_fail_locked(s, pub->rc, &pub->err, todo);
		return;
	}
	s->base.exists = s->replaced = false;
	pub->phase = PHASE_REQUEST;
}

/* ---- phase after phase ---- */

/* All that has to be sent before the publishing request. */
static bool sent_locked(struct cst_publish_stream *s, struct todo *todo)
{
	struct publication *pub = &s->pub;
	if (!pub->formed) {
		if (!parts_rejoin_locked(s))
			return false;
		choose_form_locked(s);
		pub->formed = true;
	}
	if (appends(s) || pub->put)
		return load_locked(s, s->source.size, pub->target, todo);
	parts_send_locked(s, todo);
	return s->pub.phase == PHASE_SEND && parts_done(s);
}

static bool must_check(const struct cst_publish_stream *s)
{
	if (appends(s))
		return !s->base_checked;
	if (s->publish->no_conditions)
		return !s->pub.checked;
	return s->base.exists && condition_of(s) == CST_OBJECT_ANY && s->base.etag[0] && !s->pub.checked;
}

static bool answered_locked(struct cst_publish_stream *s, struct todo *todo)
{
	if (!s->pub.answered)
		return false;
	s->pub.answered = false;
	switch (s->pub.phase) {
	case PHASE_CHECKING:
		on_checked_locked(s, todo);
		break;
	case PHASE_REPLACING:
		on_replaced_locked(s, todo);
		break;
	case PHASE_REQUESTED:
		on_requested_locked(s, todo);
		break;
	case PHASE_VERIFYING:
		on_verified_locked(s, todo);
		break;
	default:
		cst_panic(__FILE__, __LINE__, "an answer in phase %d", (int)s->pub.phase);
	}
	return true;
}

static bool step_locked(struct cst_publish_stream *s, struct todo *todo)
{
	struct publication *pub = &s->pub;
	switch (pub->phase) {
	case PHASE_SEND:
		if (!sent_locked(s, todo))
			return false;
		if (pub->phase == PHASE_SEND)
			pub->phase = must_check(s) ? PHASE_CHECK : PHASE_REQUEST;
		return true;
	case PHASE_CHECK:
		check_locked(s, PHASE_CHECKING, todo);
		return false;
	case PHASE_REPLACE:
		call_new_locked(s, CALL_DELETE, todo);
		pub->phase = PHASE_REPLACING;
		return false;
	case PHASE_REQUEST:
		request_locked(s, todo);
		return false;
	case PHASE_KEEP:
		if (s->call_count || s->loading || s->spilling)
			return false;
		load_forget_locked(s);
		pub->phase = PHASE_KEEPING;
		kept_start_locked(s, "conflict", todo);
		return false;
	default:
		return answered_locked(s, todo);
	}
}

static bool nothing_to_do_locked(struct cst_publish_stream *s, struct todo *todo)
{
	if (s->failed && (s->kept || s->failed != -ESTALE)) {
		end_locked(s, s->failed, s->fail_err, todo);
		return true;
	}
	if (!stream_is_pending(s)) {
		end_locked(s, 0, NULL, todo);
		return true;
	}
	if (appends(s) && s->publish->limits.append_max == 0) {
		struct cst_error err = CST_ERROR_INIT;
		char name[NAME_MAX_TEXT];
		cst_error_set(&err, ENOTSUP, "can't append to %s", stream_name(s, name));
		cst_error_why(&err, "this store has no appendable objects");
		publication_fail_locked(s, -ENOTSUP, &err, todo);
		return true;
	}
	return false;
}

void publication_advance_locked(struct cst_publish_stream *s, struct todo *todo)
{
	struct publication *pub = &s->pub;
	if (!pub->begun) {
		pub->begun = true;
		if (nothing_to_do_locked(s, todo))
			return;
		s->stalled = 0;
		parts_retry_locked(s);
		/* The bytes of a conflict that could not be kept. */
		if (s->failed == -ESTALE) {
			pub->refused_err = *s->fail_err;
			pub->phase = PHASE_KEEP;
		}
	}
	while (pub->phase != PHASE_NONE && step_locked(s, todo))
		;
}

/* ---- the callers' side ---- */

void cst_publish_sync(struct cst_publish_stream *s, struct cst_publish_sync *sync)
{
	CST_CHECK(s, STREAM_MAGIC);
	struct cst_publish *p = s->publish;
	struct publication *pub = &s->pub;
	struct todo todo;
	publish_todo_init(&todo);
	pthread_mutex_lock(&p->lock);
	CST_ASSERT(!s->closed);
	sync->upto = s->size;
	bool joins = pub->phase != PHASE_NONE && pub->generation == s->generation && sync->upto <= pub->target &&
		     !s->copying && TAILQ_EMPTY(&s->writes);
	if (joins)
		TAILQ_INSERT_TAIL(&pub->syncs, sync, link);
	else
		TAILQ_INSERT_TAIL(&s->syncs, sync, link);
	advance_locked(s, &todo);
	memory_pump_locked(p, &todo);
	pthread_mutex_unlock(&p->lock);
	publish_todo_run(p, &todo);
}

static bool take_out(struct sync_list *list, struct cst_publish_sync *sync)
{
	struct cst_publish_sync *at;
	TAILQ_FOREACH (at, list, link) {
		if (at != sync)
			continue;
		TAILQ_REMOVE(list, sync, link);
		return true;
	}
	return false;
}

bool cst_publish_sync_leave(struct cst_publish_stream *s, struct cst_publish_sync *sync)
{
	CST_CHECK(s, STREAM_MAGIC);
	pthread_mutex_lock(&s->publish->lock);
	bool left = take_out(&s->pub.syncs, sync) || take_out(&s->syncs, sync);
	pthread_mutex_unlock(&s->publish->lock);
	return left;
}
