/* Reading and saving the blocks of an object: what src/fetch sees of the cache.
 *
 * A read is tried on its caller's thread when it is short and what it needs is in memory; else a reader thread of its level does it. A save
 * goes through steps on a writer thread of its level: entry (made when there is none) → charge → write → presence; a step whose answer
 * comes later leaves the thread, and the answer puts the save back. Without room in a level the save goes on to the next one. */
#define CST_LOG_AREA "cache"
#include "base/clock.h"
#include "base/log.h"
#include "cache/cache_private.h"

#include <errno.h>
#include <string.h>

/* A change of owner interrupts calls; what was promised to be kept is tried again. */
#define AGAIN_NS (20 * CST_NS_PER_MS)
#define AGAIN_MOST 100u

int cst_iov_cut(const struct iovec *iov, int count, uint64_t skip, uint64_t length, struct iovec *out)
{
	int made = 0;
	for (int i = 0; i < count && length > 0; i++) {
		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		size_t n = cst_min(iov[i].iov_len - skip, length);
		out[made++] = (struct iovec){(char *)iov[i].iov_base + skip, n};
		length -= n;
		skip = 0;
	}
	return made;
}

static uint64_t iov_bytes(const struct iovec *iov, int count)
{
	uint64_t bytes = 0;
	for (int i = 0; i < count; i++)
		bytes += iov[i].iov_len;
	return bytes;
}

static struct cst_cache_object *object_of(struct cst_fetch_local *local)
{
	struct cst_cache_object *o = cst_container_of(local, struct cst_cache_object, local);
	CST_CHECK(o, CST_CACHE_OBJECT_MAGIC);
	return o;
}

static void local_ref(struct cst_fetch_local *local)
{
	cst_cache_object_hold(object_of(local));
}

static void local_unref(struct cst_fetch_local *local)
{
	cst_cache_object_unref(object_of(local));
}

/* ---- probe ---- */

static unsigned local_probe(struct cst_fetch_local *local, uint64_t first, unsigned count, bool *there)
{
	struct cst_cache_object *o = object_of(local);
	uint64_t most = first < o->blocks ? cst_min((uint64_t)count, o->blocks - first) : 0;
	uint64_t run = 0;
	*there = false;
	if (most == 0)
		return count;
	pthread_mutex_lock(&o->lock);
	*there = cst_object_find_locked(o, first, most, &run);
	if (!*there)
		run = cst_object_missing_locked(o, first, most);
	pthread_mutex_unlock(&o->lock);
	if (!*there)
		cst_object_look_again(o);
	return (unsigned)run;
}

/* ---- reading ---- */

static void corrupt(struct cst_cache_object *o, struct cst_place *p, uint64_t bad)
{
	struct cst_level *level = cst_cache_volume_level(p->volume);
	static struct cst_log_limit limit;
	cst_count(level->counters.corrupt, level->metrics.corrupt, 1);
	if (cst_log_allowed(&limit, CST_NS_PER_S, NULL))
		cst_log_warn("a block of %.*s in %s is damaged; it is fetched again (block %llu)",
			     (int)cst_min(o->id.key.len, (size_t)512), o->id.key.data, p->volume->path,
			     (unsigned long long)bad);
	pthread_mutex_lock(&o->lock);
	bool whole = !p->bits || p->complete || p->completing;
	if (!whole && bad < p->blocks && cst_place_has_locked(p, bad)) {
		p->bits[bad / 64] &= ~(UINT64_C(1) << (bad % 64));
		p->present--;
	}
	pthread_mutex_unlock(&o->lock);
	/* A complete file may be open passthrough and is never written to: it goes as a whole. */
	if (whole)
		cst_object_forget(o, p);
	else if (cst_extent_forget(&p->extent, bad) == 0)
		cst_volume_charge(p->handle, -(int64_t)cst_block_length(o->id.size, bad), NULL, NULL);
}

static int read_slot(struct cst_cache_object *o, struct cst_place *p, uint64_t first, const struct iovec *iov,
		     int iov_count, bool nowait)
{
	struct cst_cache_volume *v = p->volume;
	/* The whole object, whatever part of it is wanted: that is what its checksum is over. */
	CST_AUTO_FREE char *whole = NULL;
	struct iovec all = {NULL, o->id.size};
	bool part = iov_bytes(iov, iov_count) != o->id.size;
	if (part)
		all.iov_base = whole = cst_xmalloc(o->id.size);
	int rc = 0;
	for (int attempt = 0; attempt < 2; attempt++) {
		struct cst_slab_file *f = cst_slab_get(v, p->entry.slot.slab, nowait && !v->memory, &rc);
		if (!f)
			return rc;
		rc = cst_slot_read(f->fd, &p->entry.slot, &o->id, part ? &all : iov, part ? 1 : iov_count,
				   nowait && !v->memory);
		/* The number of a slab that was removed may be another file's by now. */
		cst_slab_put(v, f, rc == -EBADMSG);
		if (rc != -EBADMSG)
			break;
	}
	const char *from = rc == 0 && whole ? whole + first * CST_CACHE_BLOCK : NULL;
	for (int i = 0; from && i < iov_count; i++) {
		memcpy(iov[i].iov_base, from, iov[i].iov_len);
		from += iov[i].iov_len;
	}
	return rc;
}

int cst_object_read_place(struct cst_cache_object *o, struct cst_place *p, uint64_t first, const struct iovec *iov,
			  int iov_count, bool nowait)
{
	uint64_t bad = first;
	int rc;
	if (p->entry.kind == CST_ENTRY_SLOT) {
		rc = read_slot(o, p, first, iov, iov_count, nowait);
	} else if (nowait && !p->volume->memory && !__atomic_load_n(&p->opened, __ATOMIC_ACQUIRE)) {
		return -EAGAIN;
	} else {
		rc = cst_place_files(p);
		if (rc == 0)
			rc = cst_extent_read(&p->extent, first, iov, iov_count, nowait && !p->volume->memory, &bad);
	}
	if (rc == 0 || rc == -EAGAIN)
		return rc;
	cst_cache_volume_error(p->volume, rc, "reading");
	if (rc == -EBADMSG && (p->entry.kind == CST_ENTRY_SLOT || __atomic_load_n(&p->opened, __ATOMIC_ACQUIRE)))
		corrupt(o, p, bad);
	else if (rc == -EBADMSG || rc == -ENOENT)
		cst_object_forget(o, p);
	return rc;
}

/* Counts, and tells accesses from the pieces that they are made of. */
static void note_read(struct cst_cache_object *o, struct cst_place *p, uint64_t blocks, uint64_t bytes)
{
	struct cst_level *level = cst_cache_volume_level(p->volume);
	cst_count(level->counters.hits, level->metrics.hits, blocks);
	cst_count(level->counters.hit_bytes, level->metrics.hit_bytes, bytes);
	pthread_mutex_lock(&o->lock);
	o->touched += bytes;
	o->lap += bytes;
	/* The first read of a session and each further lap over what there is; reading back what the session itself brought is none. */
	bool access = o->lap_pending || o->lap >= cst_min(o->id.size, p->present * CST_CACHE_BLOCK);
	if (access) {
		o->lap_pending = false;
		o->lap = 0;
	}
	pthread_mutex_unlock(&o->lock);
	if (access)
		cst_tier_access(o, p);
}

/* Reads on, place after place; *at: bytes done. -EAGAIN: a disk would have to be waited for. */
static int read_blocks(struct cst_cache_object *o, uint64_t first, const struct iovec *iov, int iov_count,
		       uint64_t total, bool nowait, uint64_t *at)
{
	CST_AUTO_FREE struct iovec *part = cst_xcalloc((size_t)iov_count, sizeof(*part));
	while (*at < total) {
		uint64_t block = first + *at / CST_CACHE_BLOCK, run = 0;
		uint64_t most = (total - *at + CST_CACHE_BLOCK - 1) / CST_CACHE_BLOCK;
		pthread_mutex_lock(&o->lock);
		struct cst_place *p = cst_object_find_locked(o, block, most, &run);
		if (p)
			cst_place_ref(p);
		pthread_mutex_unlock(&o->lock);
		if (!p)
			return -ENOENT;
		uint64_t bytes = cst_min(run * CST_CACHE_BLOCK, total - *at);
		int count = cst_iov_cut(iov, iov_count, *at, bytes, part);
		int rc = cst_object_read_place(o, p, block, part, count, nowait);
		if (rc == 0) {
			note_read(o, p, run, bytes);
			*at += bytes;
		}
		cst_place_unref(p);
		if (rc != 0)
			return rc;
	}
	return 0;
}

struct read_job {
	struct cst_cache_object *o;
	uint64_t first, total, at;
	cst_fetch_local_fn done;
	void *arg;
	int iov_count;
	struct iovec iov[];
};

static void read_run(void *arg)
{
	struct read_job *r = arg;
	int rc = read_blocks(r->o, r->first, r->iov, r->iov_count, r->total, false, &r->at);
	r->done(r->arg, rc);
	cst_cache_object_unref(r->o);
	free(r);
}

static void local_read(struct cst_fetch_local *local, uint64_t first, const struct iovec *iov, int iov_count,
		       cst_fetch_local_fn done, void *arg)
{
	struct cst_cache_object *o = object_of(local);
	uint64_t total = iov_bytes(iov, iov_count), at = 0, run;
	if (total <= CST_CACHE_INLINE) {
		int rc = read_blocks(o, first, iov, iov_count, total, true, &at);
		if (rc != -EAGAIN) {
			done(arg, rc);
			return;
		}
	}
	struct read_job *r = cst_xcalloc(1, sizeof(*r) + (size_t)iov_count * sizeof(iov[0]));
	*r = (struct read_job){
		.o = o, .first = first, .total = total, .at = at, .done = done, .arg = arg, .iov_count = iov_count};
	memcpy(r->iov, iov, (size_t)iov_count * sizeof(iov[0]));
	cst_cache_object_hold(o);
	pthread_mutex_lock(&o->lock);
	struct cst_place *p = cst_object_find_locked(o, first + at / CST_CACHE_BLOCK, 1, &run);
	unsigned level = p ? p->volume->level : 0;
	pthread_mutex_unlock(&o->lock);
	cst_pool_submit(o->cache->levels[level].readers, read_run, r);
}

/* ---- saving ---- */

enum hand { HAND_CALLING, HAND_ANSWERED, HAND_LEFT };
enum step { STEP_ENTRY, STEP_ENTRY_ANSWERED, STEP_CHARGE, STEP_CHARGE_ANSWERED };
struct cst_save {
	struct cst_cache_object *o;
	struct cst_cache_volume *volume; /* of the level that it is tried in */
	struct cst_place *place;
	uint64_t first, count, bytes;
	enum step step;
	int hand; /* atomic: who goes on, the thread that asked a volume or its answer */
	int rc;
	struct cst_volume_answer answer;
	int64_t charged;
	unsigned again;
	bool must, less; /* less: only a part of it fitted */
	cst_fetch_local_fn done;
	void *arg;
	STAILQ_ENTRY(cst_save) link;
	int iov_count;
	struct iovec iov[];
};

static void save_run(void *arg);

static void save_submit(struct cst_save *s)
{
	cst_pool_submit(cst_cache_volume_level(s->volume)->writers, save_run, s);
}

static void save_refused(struct cst_level *level, uint64_t bytes)
{
	cst_count(level->counters.refused_bytes, level->metrics.refused_bytes, bytes);
}

static void save_end(struct cst_save *s, int rc)
{
	struct cst_cache_object *o = s->o;
	struct cst_level *level = cst_cache_volume_level(s->volume);
	if (rc == -ENOSPC) {
		save_refused(level, s->bytes);
		pthread_mutex_lock(&o->lock);
		o->refused_until = cst_now() + CST_CACHE_REFUSED_NS;
		pthread_mutex_unlock(&o->lock);
	}
	if (s->place)
		cst_place_unref(s->place);
	s->done(s->arg, rc);
	cst_object_write_end(o);
	cst_cache_object_unref(o);
	free(s);
}

/* The next level that may have it; false: there is none. */
static bool save_next_level(struct cst_save *s)
{
	struct cst_cache_object *o = s->o;
	struct cst_cache *cache = o->cache;
	for (unsigned i = s->volume->level + 1; i < cache->level_count; i++) {
		struct cst_cache_volume *v = cst_level_choose(&cache->levels[i], o->id.name);
		if (!v)
			continue;
		pthread_mutex_lock(&o->lock);
		bool empty = s->place && s->place->present == 0;
		pthread_mutex_unlock(&o->lock);
		if (empty)
			cst_object_forget(o, s->place);
		if (s->place)
			cst_place_unref(s->place);
		s->place = NULL;
		s->volume = v;
		s->step = STEP_ENTRY;
		pthread_mutex_lock(&o->lock);
		o->first_level = cst_max(o->first_level, i);
		pthread_mutex_unlock(&o->lock);
		return true;
	}
	return false;
}

/* After a call to a volume: true when its answer is there and this thread goes on. */
static bool save_answered(struct cst_save *s)
{
	return __atomic_exchange_n(&s->hand, HAND_LEFT, __ATOMIC_ACQ_REL) == HAND_ANSWERED;
}

static void save_answer(struct cst_save *s)
{
	if (__atomic_exchange_n(&s->hand, HAND_ANSWERED, __ATOMIC_ACQ_REL) == HAND_LEFT)
		save_submit(s);
}

static void save_opened(void *arg, const struct cst_volume_answer *answer)
{
	struct cst_save *s = arg;
	s->answer = *answer;
	s->rc = answer->rc;
	save_answer(s);
}

static void save_charged(void *arg, int rc)
{
	struct cst_save *s = arg;
	s->rc = rc;
	save_answer(s);
}

/* Those that waited for the entry go on. */
static void entry_made(struct cst_cache_object *o)
{
	struct cst_save_list saves = STAILQ_HEAD_INITIALIZER(saves);
	pthread_mutex_lock(&o->lock);
	o->creating = false;
	STAILQ_CONCAT(&saves, &o->saves);
	pthread_mutex_unlock(&o->lock);
	struct cst_save *s;
	while ((s = STAILQ_FIRST(&saves))) {
		STAILQ_REMOVE_HEAD(&saves, link);
		save_submit(s);
	}
}

/* The entry of its level, made when there is none. Returns whether this thread goes on. */
static bool save_entry(struct cst_save *s)
{
	struct cst_cache_object *o = s->o;
	bool small = o->id.size <= CST_SLOT_MAX;
	pthread_mutex_lock(&o->lock);
	struct cst_place *p = o->places[s->volume->level];
	bool wait = !p && o->creating;
	unsigned flags = CST_VOLUME_CREATE | (o->pin || o->cache->policy == CST_CACHE_PIN ? CST_VOLUME_PIN : 0);
	if (p)
		s->place = cst_place_ref(p);
	else if (wait)
		STAILQ_INSERT_TAIL(&o->saves, s, link);
	else
		o->creating = true;
	pthread_mutex_unlock(&o->lock);
	if (p) {
		s->step = STEP_CHARGE;
		return true;
	}
	if (wait)
		return false;
	s->step = STEP_ENTRY_ANSWERED;
	__atomic_store_n(&s->hand, HAND_CALLING, __ATOMIC_RELAXED);
	if (small)
		cst_volume_put(s->volume->volume, &o->id, flags, s->iov, s->iov_count, save_opened, s);
	else
		cst_volume_entry_open(s->volume->volume, &o->id, flags, save_opened, s);
	return save_answered(s);
}

/* True: tried once more, after a while. */
static bool save_again(struct cst_save *s, int rc, enum step step)
{
	if (rc != -EAGAIN || !s->must || s->again++ >= AGAIN_MOST)
		return false;
	cst_sleep(AGAIN_NS);
	s->step = step;
	return true;
}

static void save_count(struct cst_save *s, uint64_t bytes)
{
	struct cst_level *level = cst_cache_volume_level(s->volume);
	cst_count(level->counters.saved_bytes, level->metrics.saved_bytes, bytes);
	pthread_mutex_lock(&s->o->lock);
	s->o->touched += bytes;
	pthread_mutex_unlock(&s->o->lock);
}

/* Returns whether there is a next step. */
static bool save_entry_answered(struct cst_save *s)
{
	struct cst_cache_object *o = s->o;
	int rc = s->rc;
	if (rc == 0)
		s->place = cst_object_adopt(o, s->volume, &s->answer);
	entry_made(o);
	if (rc == 0 && !s->place)
		rc = -EIO;
	if (rc == 0) {
		s->step = STEP_CHARGE;
		if (s->place->entry.kind != CST_ENTRY_SLOT)
			return true;
		save_count(s, s->bytes);
		save_end(s, 0);
		return false;
	}
	cst_cache_volume_error(s->volume, rc, "making an entry");
	if (save_again(s, rc, STEP_ENTRY))
		return true;
	if ((rc == -ENOSPC || rc == -EDQUOT) && save_next_level(s))
		return true;
	save_end(s, rc == -EDQUOT ? -ENOSPC : rc);
	return false;
}

static uint64_t span_bytes(const struct cst_cache_object *o, uint64_t block, uint64_t count)
{
	return cst_min(o->id.size, (block + count) * CST_CACHE_BLOCK) - block * CST_CACHE_BLOCK;
}

static bool save_charge(struct cst_save *s)
{
	struct cst_cache_object *o = s->o;
	uint64_t bytes = 0;
	pthread_mutex_lock(&o->lock);
	for (uint64_t b = 0; b < s->count; b++) {
		if (cst_object_missing_locked(o, s->first + b, 1))
			bytes += cst_block_length(o->id.size, s->first + b);
	}
	pthread_mutex_unlock(&o->lock);
	if (bytes == 0) {
		save_end(s, 0);
		return false;
	}
	s->charged = (int64_t)bytes;
	s->step = STEP_CHARGE_ANSWERED;
	__atomic_store_n(&s->hand, HAND_CALLING, __ATOMIC_RELAXED);
	cst_volume_charge(s->place->handle, s->charged, save_charged, s);
	return save_answered(s);
}

/* Writes what is missing, run after run; *written: bytes that are in the file now and were not before. */
static int write_blocks(struct cst_save *s, uint64_t *written)
{
	struct cst_cache_object *o = s->o;
	struct cst_place *p = s->place;
	CST_AUTO_FREE struct iovec *part = cst_xcalloc((size_t)s->iov_count, sizeof(*part));
	int rc = cst_place_files(p);
	for (uint64_t b = s->first, end = s->first + s->count; b < end && rc == 0;) {
		pthread_mutex_lock(&o->lock);
		uint64_t n = cst_object_missing_locked(o, b, end - b);
		pthread_mutex_unlock(&o->lock);
		if (n == 0) {
			b++;
			continue;
		}
		int count =
			cst_iov_cut(s->iov, s->iov_count, (b - s->first) * CST_CACHE_BLOCK, span_bytes(o, b, n), part);
		rc = cst_extent_write(&p->extent, b, part, count);
		if (rc != 0)
			break;
		pthread_mutex_lock(&o->lock);
		uint64_t added = cst_place_add_locked(p, b, n);
		p->own += added;
		pthread_mutex_unlock(&o->lock);
		*written += added == n ? span_bytes(o, b, n) : added * CST_CACHE_BLOCK;
		b += n;
	}
	return rc;
}

/* No level has room for all of it: as much as fits. */
static bool save_less(struct cst_save *s)
{
	if (s->count < 2)
		return false;
	s->count /= 2;
	s->less = true;
	s->step = STEP_CHARGE;
	return true;
}

static bool save_charge_answered(struct cst_save *s)
{
	struct cst_cache_object *o = s->o;
	uint64_t written = 0;
	int rc = s->rc;
	if (rc == 0) {
		rc = write_blocks(s, &written);
		save_count(s, written);
		if ((int64_t)written < s->charged)
			cst_volume_charge(s->place->handle, (int64_t)written - s->charged, NULL, NULL);
	}
	if (rc == -EDQUOT || rc == -EFBIG)
		rc = -ENOSPC;
	if (rc != 0) {
		cst_cache_volume_error(s->volume, rc, "writing");
		if (rc == -ENOENT || rc == -EBADMSG || rc == -EEXIST)
			cst_object_forget(o, s->place);
		if (save_again(s, rc, STEP_CHARGE))
			return true;
		if (rc == -ENOSPC && (save_next_level(s) || save_less(s)))
			return true;
	} else {
		pthread_mutex_lock(&o->lock);
		bool whole = s->place->present == s->place->blocks;
		pthread_mutex_unlock(&o->lock);
		if (whole)
			cst_object_complete(o, s->place);
	}
	save_end(s, rc == 0 && s->less ? -ENOSPC : rc);
	return false;
}

static void save_run(void *arg)
{
	struct cst_save *s = arg;
	bool on = true;
	while (on) {
		switch (s->step) {
		case STEP_ENTRY:
			on = save_entry(s);
			break;
		case STEP_ENTRY_ANSWERED:
			on = save_entry_answered(s);
			break;
		case STEP_CHARGE:
			on = save_charge(s);
			break;
		case STEP_CHARGE_ANSWERED:
			on = save_charge_answered(s);
			break;
		}
	}
}

/* Where a save begins: the entry that is being filled, else the first level that can hold the object; when none can, the last one takes as
 * much as fits. */
static struct cst_cache_volume *save_volume_locked(struct cst_cache_object *o)
{
	struct cst_cache *cache = o->cache;
	struct cst_cache_volume *last = NULL;
	for (unsigned i = 0; i < cache->level_count; i++) {
		struct cst_place *p = o->places[i];
		if (p && i >= o->first_level && p->bits && !p->complete && !p->completing &&
		    !cst_cache_volume_is_out(p->volume))
			return p->volume;
	}
	for (unsigned i = 0; i < cache->level_count; i++) {
		struct cst_cache_volume *v = cst_level_choose(&cache->levels[i], o->id.name);
		if (!v || (i < o->first_level && last))
			continue;
		last = v;
		if (i >= o->first_level && cst_cache_volume_holds(v, o->id.size) && !cst_tier_is_behind(cache, i))
			return v;
	}
	return last;
}

static bool local_save(struct cst_fetch_local *local, uint64_t first, const struct iovec *iov, int iov_count, bool must,
		       cst_fetch_local_fn done, void *arg)
{
	struct cst_cache_object *o = object_of(local);
	struct cst_cache *cache = o->cache;
	uint64_t bytes = iov_bytes(iov, iov_count);
	uint64_t count = (bytes + CST_CACHE_BLOCK - 1) / CST_CACHE_BLOCK;
	bool small = o->id.size <= CST_SLOT_MAX;
	cst_count(cache->misses, cache->misses_metric, count);
	pthread_mutex_lock(&o->lock);
	struct cst_cache_volume *v = save_volume_locked(o);
	bool refused = !v || cache->policy == CST_CACHE_STREAM || (small && bytes != o->id.size) ||
		       cst_now() < o->refused_until;
	struct cst_level *level = v ? cst_cache_volume_level(v) : &cache->levels[0];
	if (!refused)
		o->writing++;
	pthread_mutex_unlock(&o->lock);
	if (refused) {
		save_refused(level, bytes);
		return false;
	}
	struct cst_save *s = cst_xcalloc(1, sizeof(*s) + (size_t)iov_count * sizeof(iov[0]));
	*s = (struct cst_save){.o = o,
			       .volume = v,
			       .first = first,
			       .count = count,
			       .bytes = bytes,
			       .must = must,
			       .done = done,
			       .arg = arg,
			       .iov_count = iov_count};
	memcpy(s->iov, iov, (size_t)iov_count * sizeof(iov[0]));
	cst_cache_object_hold(o);
	save_submit(s);
	return true;
}

/* ---- completion ---- */

struct completion {
	struct cst_cache_object *o;
	struct cst_place *p;
};

/* Blocks failed their check, and the volume has taken away their records, or others have made the files anew: what is there is looked up again. If that is
 * all, nothing of the entry can be relied on. */
static void found_less(struct cst_cache_object *o, struct cst_place *p, bool damaged)
{
	struct cst_level *level = cst_cache_volume_level(p->volume);
	if (damaged)
		cst_count(level->counters.corrupt, level->metrics.corrupt, 1);
	pthread_mutex_lock(&o->lock);
	memset(p->bits, 0, (p->blocks + 63) / 64 * sizeof(uint64_t));
	p->present = p->own = 0;
	pthread_mutex_unlock(&o->lock);
	int rc = cst_place_look(o, p);
	pthread_mutex_lock(&o->lock);
	bool whole = p->present == p->blocks;
	pthread_mutex_unlock(&o->lock);
	if (rc != 0 || whole)
		cst_object_forget(o, p);
}

static void completed(void *arg, int rc)
{
	struct completion *c = arg;
	struct cst_cache_object *o = c->o;
	pthread_mutex_lock(&o->lock);
	c->p->completing = false;
	if (rc == 0)
		c->p->complete = true;
	pthread_mutex_unlock(&o->lock);
	if (rc != 0 && rc != -EAGAIN) {
		cst_cache_volume_error(c->p->volume, rc, "completing an entry");
		if (rc == -EBADMSG || rc == -ENODATA)
			found_less(o, c->p, rc == -EBADMSG);
		else if (rc == -ENOENT)
			cst_object_forget(o, c->p);
	}
	cst_place_unref(c->p);
	cst_object_write_end(o);
	cst_cache_object_unref(o);
	free(c);
}

void cst_object_complete(struct cst_cache_object *o, struct cst_place *p)
{
	pthread_mutex_lock(&o->lock);
	bool due = p->bits && !p->complete && !p->completing && p->present == p->blocks;
	bool verify = p->own != p->blocks;
	if (due) {
		p->completing = true;
		o->writing++;
	}
	pthread_mutex_unlock(&o->lock);
	if (!due)
		return;
	struct completion *c = CST_NEW(struct completion);
	*c = (struct completion){cst_cache_object_ref(o), cst_place_ref(p)};
	cst_volume_complete(p->handle, verify, completed, c);
}

const struct cst_fetch_local_ops cst_object_local_ops = {
	.ref = local_ref,
	.unref = local_unref,
	.probe = local_probe,
	.read = local_read,
	.save = local_save,
};
