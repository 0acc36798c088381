#define CST_LOG_AREA "cache"
#include "cache/index_private.h"

#include "base/log.h"
#include "base/pool.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>

#define USES_LIMIT UINT16_MAX
#define REWRITE_LEAST 8192u /* records */
#define BYTES_LIMIT (UINT64_C(1) << 62)

uint32_t index_minute(void)
{
	return (uint32_t)(cst_wall() / CST_NS_PER_S / 60);
}

uint64_t entry_bytes(const struct cst_index *x, const struct entry *e)
{
	return e->flags & F_SLOT ? slot_place(x, e).length : extent_bytes(e);
}

void index_entry_copy(const struct cst_index *x, const struct entry *e, struct cst_index_entry *out)
{
	bool slot = e->flags & F_SLOT;
	*out = (struct cst_index_entry){
		.name = e->name,
		.version = e->version,
		.size = entry_size(e),
		.cached = slot ? entry_size(e) : entry_charged(e),
		.kind = slot ? CST_ENTRY_SLOT : CST_ENTRY_EXTENT,
		.complete = e->flags & F_COMPLETE,
		.pinned = e->flags & F_PINNED,
		.in_use = e->uses,
		.used = (int64_t)e->minute * 60,
	};
	if (slot)
		out->slot = slot_place(x, e);
}

/* ---- what an entry goes through ---- */

/* What is counted of an entry; taken before a change and again after it. */
struct shape {
	bool found, pinned, in_use, held;
};

static struct shape shape_of(const struct entry *e)
{
	bool found = entry_found(e);
	return (struct shape){found, found && e->flags & F_PINNED, found && e->uses, entry_held(e)};
}

static void count_locked(struct cst_index *x, const struct entry *e, struct shape before)
{
	struct shape now = shape_of(e);
	x->found += (uint64_t)(now.found - before.found);
	x->pinned += (uint64_t)(now.pinned - before.pinned);
	x->in_use += (uint64_t)(now.in_use - before.in_use);
	if (e->flags & F_SLOT && now.held != before.held)
		slot_held_locked(x, e, now.held - before.held);
}

void index_show_locked(struct cst_index *x, uint32_t n)
{
	struct entry *e = at(x, n);
	struct shape before = shape_of(e);
	e->flags = (uint16_t)(e->flags & ~F_PENDING);
	count_locked(x, e, before);
	policy_insert_locked(x, n);
	room_changed_locked(x);
}

void index_free_locked(struct cst_index *x, uint32_t n)
{
	struct entry *e = at(x, n);
	policy_leave_locked(x, n);
	if (e->flags & F_SLOT)
		slot_give_locked(x, n);
	else
		x->extents -= extent_bytes(e);
	table_remove(&x->table, n);
	room_changed_locked(x);
	if (x->waiters)
		pthread_cond_broadcast(&x->room);
}

void index_drop_locked(struct cst_index *x, uint32_t n)
{
	struct entry *e = at(x, n);
	struct shape before = shape_of(e);
	policy_leave_locked(x, n);
	log_gone_locked(x, e);
	e->flags |= F_DROPPED;
	count_locked(x, e, before);
	if (e->flags & F_SLOT) {
		if (!e->uses)
			index_free_locked(x, n);
		return;
	}
	*(e->uses ? &x->unlinked : &x->leaving_bytes) += extent_bytes(e);
	e->flags |= F_LEAVING;
	e->next = NIL;
	*(x->leaving ? &at(x, x->leaving_last)->next : &x->leaving) = n;
	x->leaving_last = n;
	pthread_cond_signal(&x->keep_wake);
}

void index_use_locked(struct cst_index *x, uint32_t n)
{
	struct entry *e = at(x, n);
	struct shape before = shape_of(e);
	e->uses++;
	count_locked(x, e, before);
}

void index_unuse_locked(struct cst_index *x, uint32_t n)
{
	struct entry *e = at(x, n);
	struct shape before = shape_of(e);
	CST_ASSERT(e->uses);
	e->uses--;
	count_locked(x, e, before);
	if (e->uses)
		return;
	if (!(e->flags & F_DROPPED)) {
		/* So that after a kill the quota means something before all is counted. */
		if (e->flags & F_GROWN)
			log_entry_locked(x, n);
		if (!entry_held(e))
			policy_unpark_locked(x, n, false);
		room_changed_locked(x);
		return;
	}
	if (e->flags & F_SLOT) {
		index_free_locked(x, n);
		return;
	}
	x->unlinked -= extent_bytes(e);
	if (e->flags & F_LEAVING)
		x->leaving_bytes += extent_bytes(e);
	else
		index_free_locked(x, n);
}

void index_pin_locked(struct cst_index *x, uint32_t n, bool pin)
{
	struct entry *e = at(x, n);
	struct shape before = shape_of(e);
	if (before.pinned == pin)
		return;
	e->flags = (uint16_t)(pin ? e->flags | F_PINNED : e->flags & ~F_PINNED);
	count_locked(x, e, before);
	if (pin)
		policy_park_locked(x, n);
	else if (!entry_held(e))
		policy_unpark_locked(x, n, true);
	log_entry_locked(x, n);
	room_changed_locked(x);
}

void index_charge_locked(struct cst_index *x, uint32_t n, int64_t bytes)
{
	struct entry *e = at(x, n);
	uint64_t charged = entry_charged(e);
	if (bytes < 0)
		bytes = -(int64_t)cst_min(-(uint64_t)bytes, charged);
	entry_set_charged(e, charged + (uint64_t)bytes);
	e->flags |= F_DIRTY | F_GROWN;
	x->extents += (uint64_t)bytes;
	if (e->flags & F_DROPPED)
		*(e->uses ? &x->unlinked : &x->leaving_bytes) += (uint64_t)bytes;
	policy_count_locked(x, e, bytes);
	room_grown_locked(x);
	if (bytes < 0 && x->waiters)
		pthread_cond_broadcast(&x->room);
}

void index_fail(struct cst_index *x, int rc, const char *what)
{
	pthread_mutex_lock(&x->lock);
	bool first = !x->rc;
	x->rc = -EIO;
	pthread_cond_broadcast(&x->room);
	pthread_mutex_unlock(&x->lock);
	if (first && x->config.failed)
		x->config.failed(x->config.arg, rc, what);
}

/* ---- finding and making ---- */

static uint32_t find_locked(struct cst_index *x, uint64_t name, uint64_t version)
{
	uint32_t n = table_find(&x->table, name, version);
	return n && entry_found(at(x, n)) ? n : NIL;
}

static uint32_t add_locked(struct cst_index *x, const struct cst_cache_identity *id, bool pin, unsigned flags)
{
	uint32_t n = table_add(&x->table, id->name, id->version);
	if (!n)
		return NIL;
	struct entry *e = at(x, n);
	pin = pin || pins_match_locked(x, id);
	e->flags = (uint16_t)(flags | F_PENDING | (pin ? F_PINNED : 0));
	e->uses = 1;
	e->minute = index_minute();
	entry_set_size(e, id->size);
	return n;
}

/* Other versions of the same object are of no use any more. */
static void supersede_locked(struct cst_index *x, uint32_t kept)
{
	uint32_t n = table_first(&x->table, at(x, kept)->name);
	while (n) {
		uint32_t after = table_same(&x->table, n);
		if (n != kept && entry_found(at(x, n)))
			index_drop_locked(x, n);
		n = after;
	}
}

/* It is there: one more use. Lets go of the lock to look at the files after an unclean stop. */
static int open_found_locked(struct cst_index *x, uint32_t n, bool pin)
{
	struct entry *e = at(x, n);
	if (e->uses == USES_LIMIT)
		return -EAGAIN;
	index_use_locked(x, n);
	if (e->flags & F_UNSURE) {
		pthread_mutex_unlock(&x->lock);
		keep_check(x, n);
		pthread_mutex_lock(&x->lock);
		bool bad = !entry_found(e) || e->flags & F_UNSURE;
		if (bad || x->rc) {
			index_unuse_locked(x, n);
			return x->rc ? x->rc : -EAGAIN;
		}
	}
	entry_set_freq(e, entry_freq(e) + 1);
	e->flags |= F_DIRTY | F_OPENED;
	e->minute = index_minute();
	if (pin)
		index_pin_locked(x, n, true);
	return 0;
}

/* Both files of a new extent; what an unclean stop left there is taken as it is. *bytes: what it holds. */
static int make_files(struct cst_index *x, const struct cst_cache_identity *id, uint64_t *bytes)
{
	struct cst_extent e = {-1, -1, 0, 0, 0};
	uint64_t size = 0;
	*bytes = 0;
	int rc = cst_extent_create(x->dir, id, &e);
	if (rc == -EEXIST) {
		rc = cst_extent_open(x->dir, id, false, &e);
		if (rc == 0)
			rc = keep_count(x, id->name, id->version, &size, bytes);
		if (rc < 0) {
			cst_extent_close(&e);
			cst_extent_unlink(x->dir, id->name, id->version);
			*bytes = 0;
			rc = cst_extent_create(x->dir, id, &e);
		}
	}
	cst_extent_close(&e);
	return rc;
}

static int make_extent_locked(struct cst_index *x, const struct cst_cache_identity *id, bool pin, uint32_t *made,
			      bool *created)
{
	uint64_t overhead = extent_overhead(id->size), bytes;
	/* Of an object larger than the quota as much is kept as fits: only its map must. */
	if (id->size >= SIZE_LIMIT || overhead > x->config.limits.quota) {
		x->stats.refused_bytes += id->size;
		return -ENOSPC;
	}
	int rc = room_ask_locked(x, overhead, overhead, 0);
	if (rc < 0)
		return rc;
	uint32_t n = add_locked(x, id, pin, 0);
	if (!n)
		return -ENOSPC;
	x->extents += overhead;
	room_take_locked(x, overhead, 2);
	pthread_mutex_unlock(&x->lock);
	rc = make_files(x, id, &bytes);
	pthread_mutex_lock(&x->lock);
	if (rc < 0) {
		index_free_locked(x, n);
		return rc;
	}
	index_charge_locked(x, n, (int64_t)bytes);
	log_entry_locked(x, n);
	index_show_locked(x, n);
	supersede_locked(x, n);
	*made = n;
	*created = bytes == 0;
	return 0;
}

int cst_index_entry_open(struct cst_index *x, const struct cst_cache_identity *id, bool create, bool pin,
			 struct cst_index_entry *entry, bool *created)
{
	CST_CHECK(x, INDEX_MAGIC);
	*created = false;
	pthread_mutex_lock(&x->lock);
	uint32_t n = table_find(&x->table, id->name, id->version);
	bool busy = n && !entry_found(at(x, n));
	int rc = x->rc;
	if (!rc && n && !busy)
		rc = open_found_locked(x, n, pin);
	else if (!rc && create && id->size > CST_SLOT_MAX)
		rc = busy ? -EAGAIN : make_extent_locked(x, id, pin, &n, created);
	else if (!rc)
		rc = -ENOENT;
	if (rc == 0)
		index_entry_copy(x, at(x, n), entry);
	pthread_mutex_unlock(&x->lock);
	if (index_is_disk_failure(rc) && rc != -EIO)
		index_fail(x, rc, "making files in the cache");
	return index_is_disk_failure(rc) ? -EIO : rc;
}

int cst_index_entry_get(struct cst_index *x, uint64_t name, uint64_t version, struct cst_index_entry *entry)
{
	CST_CHECK(x, INDEX_MAGIC);
	pthread_mutex_lock(&x->lock);
	uint32_t n = find_locked(x, name, version);
	if (n)
		index_entry_copy(x, at(x, n), entry);
	pthread_mutex_unlock(&x->lock);
	return n ? 0 : -ENOENT;
}

void cst_index_entry_close(struct cst_index *x, uint64_t name, uint64_t version)
{
	CST_CHECK(x, INDEX_MAGIC);
	pthread_mutex_lock(&x->lock);
	uint32_t n = table_find(&x->table, name, version);
	if (n && at(x, n)->uses && !(at(x, n)->flags & F_PENDING))
		index_unuse_locked(x, n);
	pthread_mutex_unlock(&x->lock);
}

int cst_index_charge(struct cst_index *x, uint64_t name, uint64_t version, int64_t bytes)
{
	CST_CHECK(x, INDEX_MAGIC);
	int64_t deadline = cst_now() + ROOM_WAIT;
	int rc = 0;
	pthread_mutex_lock(&x->lock);
	uint32_t n = table_find(&x->table, name, version);
	if (!n || at(x, n)->flags & (F_PENDING | F_SLOT) || (bytes > 0 && !entry_found(at(x, n))))
		rc = -ENOENT;
	/* All of it is there, whatever another process, which filled the same blocks, gives back late. */
	else if (bytes < 0 && at(x, n)->flags & F_COMPLETE)
		bytes = 0;
	/* While it waits somebody may drop it: then nothing more is to be written there. */
	while (rc == 0 && bytes > 0) {
		rc = room_ask_locked(x, (uint64_t)bytes, (uint64_t)bytes, deadline);
		if (rc >= 0 && n != find_locked(x, name, version))
			rc = -ENOENT;
	}
	if (rc >= 0) {
		index_charge_locked(x, n, bytes);
		if (bytes > 0)
			room_take_locked(x, (uint64_t)bytes, 0);
		rc = 0;
	}
	pthread_mutex_unlock(&x->lock);
	return rc;
}

/* ---- slots ---- */

/* A new slab and a slot in it. Lets go of the lock. */
static int make_slab_locked(struct cst_index *x, unsigned class, uint32_t n)
{
	if (x->slabs.next_number == UINT32_MAX)
		return -ENOSPC;
	struct slab *s = slab_add_locked(x, x->slabs.next_number, class, slab_length(x, class));
	uint32_t number = s->number, length = s->length;
	x->slabs.classes[class].creating = true;
	log_slab_locked(x, s, false);
	pthread_mutex_unlock(&x->lock);
	int fd = cst_slab_open(x->dir, number, true, length);
	if (fd >= 0)
		close(fd);
	pthread_mutex_lock(&x->lock);
	x->slabs.classes[class].creating = false;
	pthread_cond_broadcast(&x->room);
	if (fd < 0) {
		slab_open_locked(x, s); /* without live slots: to the keeper */
		return fd;
	}
	slab_made_locked(x, s, n);
	return 0;
}

static int get_slot_locked(struct cst_index *x, unsigned class, uint32_t n)
{
	int64_t deadline = cst_now() + ROOM_WAIT;
	uint64_t length = slot_class_length(class);
	for (;;) {
		bool have = x->slabs.classes[class].first;
		if (x->slabs.classes[class].creating && !have) {
			if (room_cond_wait_locked(x, &x->room, deadline) <= 0)
				return -ENOSPC;
			continue;
		}
		int rc = room_ask_locked(x, have ? 0 : slab_length(x, class), length, deadline);
		if (rc < 0)
			return rc;
		/* It may have waited, and all be different. */
		if (rc == 0)
			continue;
		rc = slot_take_locked(x, class, n) ? 0 : make_slab_locked(x, class, n);
		if (rc == 0)
			room_take_locked(x, length, 0);
		return rc;
	}
}

int cst_index_slot_reserve(struct cst_index *x, const struct cst_cache_identity *id, bool pin,
			   struct cst_index_entry *entry)
{
	CST_CHECK(x, INDEX_MAGIC);
	int class = id->size && id->size <= CST_SLOT_MAX ? slot_class_of(cst_slot_length(id)) : -1;
	pthread_mutex_lock(&x->lock);
	int rc = x->rc;
	uint32_t n = table_find(&x->table, id->name, id->version);
	if (!rc && n)
		rc = entry_found(at(x, n)) ? -EEXIST : -EAGAIN;
	else if (!rc && class < 0)
		rc = -ENOSPC;
	if (rc == 0) {
		/* It gets its place with the flag, so that it is not taken for a slot before. */
		n = add_locked(x, id, pin, 0);
		rc = n ? get_slot_locked(x, (unsigned)class, n) : -ENOSPC;
		if (rc == 0) {
			at(x, n)->flags |= F_SLOT;
			index_entry_copy(x, at(x, n), entry);
		} else if (n) {
			table_remove(&x->table, n);
		}
	}
	pthread_mutex_unlock(&x->lock);
	if (index_is_disk_failure(rc) && rc != -EIO)
		index_fail(x, rc, "making a slab in the cache");
	return index_is_disk_failure(rc) ? -EIO : rc;
}

int cst_index_slot_commit(struct cst_index *x, const struct cst_index_entry *entry, bool written)
{
	CST_CHECK(x, INDEX_MAGIC);
	pthread_mutex_lock(&x->lock);
	uint32_t n = table_find(&x->table, entry->name, entry->version);
	struct entry *e = n ? at(x, n) : NULL;
	int rc = -ENOENT;
	if (e && (e->flags & (F_PENDING | F_SLOT)) == (F_PENDING | F_SLOT) &&
	    slot_place(x, e).slab == entry->slot.slab && slot_place(x, e).offset == entry->slot.offset) {
		rc = x->rc;
		if (written && !rc) {
			log_entry_locked(x, n);
			index_show_locked(x, n);
			supersede_locked(x, n);
			room_grown_locked(x);
		} else {
			index_free_locked(x, n);
		}
	}
	pthread_mutex_unlock(&x->lock);
	/* Who can't write into a slab that somebody deleted must not get it again and again. */
	if (rc == 0 && !written)
		keep_check_slab(x, entry->slot.slab);
	return rc;
}

/* ---- what else callers do ---- */

int cst_index_complete(struct cst_index *x, uint64_t name, uint64_t version)
{
	CST_CHECK(x, INDEX_MAGIC);
	pthread_mutex_lock(&x->lock);
	uint32_t n = find_locked(x, name, version);
	int rc = x->rc ? x->rc : n && !(at(x, n)->flags & F_SLOT) ? 0 : -ENOENT;
	if (rc == 0) {
		/* It is complete, for the caller has synced it; only the record may still get lost. */
		struct entry *e = at(x, n);
		e->flags = (uint16_t)((e->flags | F_COMPLETE) & ~F_UNSURE);
		index_charge_locked(x, n, (int64_t)(entry_size(e) - entry_charged(e)));
		log_entry_locked(x, n);
	}
	pthread_mutex_unlock(&x->lock);
	if (rc == 0)
		rc = log_sync(x);
	if (index_is_disk_failure(rc))
		index_fail(x, rc, "writing the log of the cache");
	return rc;
}

void cst_index_touch(struct cst_index *x, uint64_t name, uint64_t version, unsigned count)
{
	CST_CHECK(x, INDEX_MAGIC);
	pthread_mutex_lock(&x->lock);
	uint32_t n = find_locked(x, name, version);
	if (n) {
		policy_hit_locked(x, n, count);
		at(x, n)->minute = index_minute();
		at(x, n)->flags |= F_DIRTY;
	}
	pthread_mutex_unlock(&x->lock);
}

int cst_index_drop(struct cst_index *x, uint64_t name, uint64_t version)
{
	CST_CHECK(x, INDEX_MAGIC);
	pthread_mutex_lock(&x->lock);
	uint32_t n = find_locked(x, name, version);
	int rc = x->rc ? x->rc : n ? 0 : -ENOENT;
	if (rc == 0)
		index_drop_locked(x, n);
	pthread_mutex_unlock(&x->lock);
	return rc;
}

int cst_index_pin(struct cst_index *x, uint64_t name, uint64_t version, bool pin)
{
	CST_CHECK(x, INDEX_MAGIC);
	pthread_mutex_lock(&x->lock);
	uint32_t n = find_locked(x, name, version);
	int rc = x->rc ? x->rc : n ? 0 : -ENOENT;
	if (rc == 0)
		index_pin_locked(x, n, pin);
	pthread_mutex_unlock(&x->lock);
	return rc;
}

unsigned cst_index_list(struct cst_index *x, uint64_t *cursor, struct cst_index_entry *entries, unsigned max)
{
	CST_CHECK(x, INDEX_MAGIC);
	const unsigned steps = 16384; /* under the lock */
	unsigned count = 0;
	uint64_t n = cst_max(*cursor, UINT64_C(1));
	bool end = max == 0;
	while (count == 0 && !end) {
		pthread_mutex_lock(&x->lock);
		uint64_t stop = cst_min((uint64_t)x->table.used, n + steps);
		for (; n < stop && count < max; n++)
			if (entry_found(at(x, (uint32_t)n)))
				index_entry_copy(x, at(x, (uint32_t)n), &entries[count++]);
		end = n >= x->table.used;
		pthread_mutex_unlock(&x->lock);
	}
	*cursor = n;
	return count;
}

void cst_index_stats(struct cst_index *x, struct cst_index_stats *stats)
{
	CST_CHECK(x, INDEX_MAGIC);
	pthread_mutex_lock(&x->lock);
	*stats = x->stats;
	stats->quota = x->config.limits.quota;
	stats->used = room_used_locked(x);
	stats->unlinked = x->unlinked;
	stats->entries = x->found;
	stats->pinned = x->pinned;
	stats->in_use = x->in_use;
	stats->full = x->refusing;
	stats->memory = sizeof(*x) + table_memory(&x->table) + policy_memory(&x->policy) + slabs_memory(&x->slabs);
	pthread_mutex_unlock(&x->lock);
}

/* ---- start and end ---- */

static void read_boot_id(uint64_t boot[2])
{
	char text[40] = "", hex[32];
	unsigned n = 0;
	CST_AUTO_CLOSE int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	for (ssize_t i = 0; i < len && n < sizeof(hex); i++)
		if (text[i] != '-')
			hex[n++] = text[i];
	/* Without one, every start counts as one after a power cut. */
	if (cst_text_unhex((struct cst_slice){hex, n}, boot, 16) < 0 && getrandom(boot, 16, 0) != 16)
		boot[0] = (uint64_t)cst_wall();
}

struct cst_index *index_new(const struct cst_index_config *config)
{
	struct cst_index *x = CST_NEW(struct cst_index);
	pthread_condattr_t clock;
	x->magic = INDEX_MAGIC;
	x->config = *config;
	x->dir = config->dir;
	/* No disk is as large, and sums and shares of it fit. */
	x->config.limits.quota = cst_min(config->limits.quota, BYTES_LIMIT);
	x->config.limits.keep_free = cst_min(config->limits.keep_free, BYTES_LIMIT);
	x->high = (uint64_t)((double)x->config.limits.quota * config->limits.high);
	x->low = (uint64_t)((double)x->config.limits.quota * config->limits.low);
	x->slabs.quota_share = x->config.limits.quota / 64;
	x->seed = (uint64_t)cst_now() | 1;
	x->scan_folder = SCAN_DONE;
	x->rewrite_least = REWRITE_LEAST;
	read_boot_id(x->boot);
	pthread_mutex_init(&x->pin_io, NULL);
	pthread_mutex_init(&x->log_io, NULL);
	pthread_mutex_init(&x->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&x->evict_wake, &clock);
	pthread_cond_init(&x->keep_wake, &clock);
	pthread_cond_init(&x->room, &clock);
	pthread_condattr_destroy(&clock);
	table_init(&x->table);
	policy_init(&x->policy);
	log_init(&x->log);
	log_init(&x->next);
	return x;
}

void index_delete(struct cst_index *x)
{
	while (x->dead) {
		struct slab *s = x->dead;
		x->dead = s->next;
		free(s);
	}
	log_fini(&x->log);
	log_fini(&x->next);
	policy_fini(&x->policy);
	slabs_fini(&x->slabs);
	table_fini(&x->table);
	pins_fini(x);
	pthread_cond_destroy(&x->room);
	pthread_cond_destroy(&x->keep_wake);
	pthread_cond_destroy(&x->evict_wake);
	pthread_mutex_destroy(&x->lock);
	pthread_mutex_destroy(&x->log_io);
	pthread_mutex_destroy(&x->pin_io);
	x->magic = 0;
	free(x);
}

static int start_threads(struct cst_index *x, struct cst_error *err)
{
	int rc = cst_thread_start(&x->keeper, "cache-keeper", 0, keep_thread, x);
	if (rc < 0)
		return cst_error_set(err, -rc, "can't start a thread of the cache");
	rc = cst_thread_start(&x->evictor, "cache-evictor", 0, room_evictor, x);
	if (rc < 0) {
		pthread_mutex_lock(&x->lock);
		x->stopping = true;
		pthread_cond_signal(&x->keep_wake);
		pthread_mutex_unlock(&x->lock);
		pthread_join(x->keeper, NULL);
		return cst_error_set(err, -rc, "can't start a thread of the cache");
	}
	return 0;
}

struct cst_index *cst_index_open(const struct cst_index_config *config, struct cst_error *err)
{
	struct cst_index *x = index_new(config);
	int rc = pins_load(x, err);
	if (rc == 0)
		rc = log_start(x, err);
	if (rc == 0) {
		keep_prepare(x);
		room_look(x);
		rc = start_threads(x, err);
	}
	if (rc < 0) {
		index_delete(x);
		return NULL;
	}
	return x;
}

void cst_index_close(struct cst_index *x)
{
	CST_CHECK(x, INDEX_MAGIC);
	pthread_mutex_lock(&x->lock);
	x->stopping = true;
	pthread_cond_broadcast(&x->evict_wake);
	pthread_cond_broadcast(&x->keep_wake);
	pthread_cond_broadcast(&x->room);
	pthread_mutex_unlock(&x->lock);
	pthread_join(x->evictor, NULL);
	pthread_join(x->keeper, NULL);
	while (!x->rc && (x->leaving || x->dead))
		keep_reap(x);
	log_rewrite_abort(x);
	int rc = x->rc ? 0 : log_end(x);
	if (rc < 0)
		cst_log_warn("the cache's log has no clean end: %s", strerror(-rc));
	index_delete(x);
}
