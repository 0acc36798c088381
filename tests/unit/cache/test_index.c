/* The index of a volume: entries, slots, room, pins, restarts, failures. */
#include "index_fixture.h"

#define QUOTA (64 * MIB)

static int setup(void **state)
{
	return fixture_new(state, QUOTA);
}

/* ---- entries ---- */

static void test_create_find_close(void **state)
{
	struct fixture *f = *state;
	struct cst_index_entry e, again;
	bool created;
	assert_int_equal(open_as(f, 1, MIB, 1, false, false, &e, &created), -ENOENT);
	assert_int_equal(open_as(f, 1, MIB, 1, true, false, &e, &created), 0);
	assert_true(created && e.in_use && !e.complete && !e.pinned);
	assert_int_equal(e.kind, CST_ENTRY_EXTENT);
	assert_int_equal(e.size, MIB);
	assert_int_equal(e.cached, 0);
	assert_true(file_exists(f, &e));
	assert_int_equal(stats_of(f).used, 8192); /* the map: a header, eight records */

	assert_int_equal(open_as(f, 1, MIB, 1, true, false, &again, &created), 0);
	assert_false(created);
	assert_int_equal(stats_of(f).in_use, 1);
	close_entry(f, &e);
	assert_int_equal(stats_of(f).in_use, 1);
	close_entry(f, &e);
	assert_int_equal(stats_of(f).in_use, 0);
	assert_int_equal(stats_of(f).entries, 1);
}

/* Small ones are put, never made by opening. */
static void test_small_is_not_created(void **state)
{
	struct fixture *f = *state;
	struct cst_index_entry e;
	bool created;
	assert_int_equal(open_as(f, 1, CST_SLOT_MAX, 1, true, false, &e, &created), -ENOENT);
	assert_int_equal(open_as(f, 1, CST_SLOT_MAX + 1, 1, true, false, &e, &created), 0);
	close_entry(f, &e);
}

/* Of an object larger than the quota as much is kept as fits, but its map must fit. */
static void test_larger_than_quota(void **state)
{
	struct fixture *f = *state;
	struct cst_index_entry e;
	bool created;
	assert_int_equal(open_as(f, 1, 2 * MIB * MIB, 1, true, false, &e, &created), -ENOSPC);
	assert_int_equal(stats_of(f).entries, 0);
	assert_int_equal(stats_of(f).refused_bytes, 2 * MIB * MIB);
	assert_int_equal(open_as(f, 2, 2 * QUOTA, 1, true, false, &e, &created), 0);
	assert_int_equal(cst_index_charge(f->x, e.name, e.version, QUOTA / 2), 0);
	assert_int_equal(cst_index_charge(f->x, e.name, e.version, QUOTA / 2), -ENOSPC);
	close_entry(f, &e);
}

/* A quota without end is one: nothing is evicted. And nothing is let in when more is to stay free than there is. */
static void test_limits_without_end(void **state)
{
	struct fixture *f = *state;
	struct cst_index_entry e;
	bool created;
	fixture_close(f);
	f->config.limits = (struct cst_index_limits){.quota = UINT64_MAX, .high = 1, .low = 1};
	fixture_open(f);
	e = fill(f, 1, 4 * MIB, 4 * MIB);
	assert_int_equal(cst_index_charge(f->x, e.name, e.version, INT64_MAX), -ENOSPC);
	close_entry(f, &e);
	fixture_close(f);
	fixture_open(f);
	cst_sleep(CST_NS_PER_S / 10);
	assert_int_equal(stats_of(f).evicted, 0);
	assert_int_equal(cst_index_charge(f->x, e.name, e.version, INT64_MIN), 0);
	assert_int_equal(stats_of(f).used, 8192);
	fixture_close(f);
	f->config.limits = (struct cst_index_limits){.quota = QUOTA, .high = 1, .low = 1, .keep_free = UINT64_MAX};
	fixture_open(f);
	assert_int_equal(open_as(f, 2, 4 * MIB, 1, true, false, &e, &created), -ENOSPC);
}

static void test_charges_add_up(void **state)
{
	struct fixture *f = *state;
	struct cst_index_entry e = fill(f, 1, MIB, 384 * KIB);
	assert_int_equal(stats_of(f).used, 384 * KIB + 8192);
	assert_int_equal(cst_index_charge(f->x, e.name, e.version, -(int64_t)(128 * KIB)), 0);
	assert_int_equal(stats_of(f).used, 256 * KIB + 8192);
	assert_int_equal(cst_index_charge(f->x, e.name + 1, e.version, 1), -ENOENT);
	close_entry(f, &e);
	index_check(f->x);
}

/* Two filled it: what one of them gives back after the other has completed it was not taken twice. */
static void test_complete_is_charged_whole(void **state)
{
	struct fixture *f = *state;
	struct cst_index_entry e = fill(f, 1, 4 * MIB, 4 * MIB);
	assert_int_equal(cst_index_complete(f->x, e.name, e.version), 0);
	uint64_t whole = stats_of(f).used;
	assert_int_equal(cst_index_charge(f->x, e.name, e.version, -(int64_t)MIB), 0);
	assert_int_equal(stats_of(f).used, whole);
	close_entry(f, &e);
}

static void test_new_version_drops_old(void **state)
{
	struct fixture *f = *state;
	struct cst_index_entry old, fresh;
	bool created;
	assert_int_equal(open_as(f, 1, MIB, 1, true, false, &old, &created), 0);
	assert_int_equal(cst_index_charge(f->x, old.name, old.version, 128 * KIB), 0);
	assert_int_equal(open_as(f, 1, MIB, 2, true, false, &fresh, &created), 0);
	assert_false(is_there(f, 1, MIB, 1));
	assert_true(is_there(f, 1, MIB, 2));
	/* In use: its files go at once, its bytes when the last one closes it. */
	eventually(!file_exists(f, &old));
	assert_int_equal(stats_of(f).unlinked, 128 * KIB + 8192);
	assert_int_equal(cst_index_charge(f->x, old.name, old.version, 1), -ENOENT);
	index_check(f->x);
	close_entry(f, &old);
	assert_int_equal(stats_of(f).unlinked, 0);
	eventually(stats_of(f).used == 8192);
	close_entry(f, &fresh);
}

/* As long as a dropped one is in use, its name and version are not given to other files. */
static void test_dropped_is_not_found(void **state)
{
	struct fixture *f = *state;
	struct cst_index_entry e, again;
	bool created;
	assert_int_equal(open_as(f, 1, MIB, 1, true, false, &e, &created), 0);
	assert_int_equal(cst_index_drop(f->x, e.name, e.version), 0);
	assert_int_equal(cst_index_drop(f->x, e.name, e.version), -ENOENT);
	assert_int_equal(open_as(f, 1, MIB, 1, false, false, &again, &created), -ENOENT);
	assert_int_equal(open_as(f, 1, MIB, 1, true, false, &again, &created), -EAGAIN);
	assert_int_equal(cst_index_complete(f->x, e.name, e.version), -ENOENT);
	eventually(!file_exists(f, &e));
	close_entry(f, &e);
	eventually(open_as(f, 1, MIB, 1, true, false, &again, &created) == 0);
	assert_true(created);
	close_entry(f, &again);
}

static void test_list(void **state)
{
	struct fixture *f = *state;
	struct cst_index_entry e, some[7];
	uint64_t cursor = 0;
	unsigned n, seen = 0;
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(put(f, i, 1000, 1, &e), 0);
		close_entry(f, &e);
	}
	while ((n = cst_index_list(f->x, &cursor, some, 7)) > 0) {
		for (unsigned i = 0; i < n; i++)
			assert_int_equal(some[i].size, 1000);
		seen += n;
	}
	assert_int_equal(seen, 20);
	assert_int_equal(cst_index_list(f->x, &cursor, some, 7), 0);
}

/* ---- slots ---- */

static void test_slot_only_found_when_committed(void **state)
{
	struct fixture *f = *state;
	char etag[16];
	struct object o = object(1, 5000, 1);
	struct cst_index_entry e, found;
	bool created;
	full_id(&o, etag, 1);
	assert_int_equal(cst_index_slot_reserve(f->x, &o.id, false, &e), 0);
	assert_int_equal(e.kind, CST_ENTRY_SLOT);
	assert_true(e.slot.length >= cst_slot_length(&o.id) && e.slot.offset % 1024 == 0);
	assert_int_equal(open_as(f, 1, 5000, 1, false, false, &found, &created), -ENOENT);
	assert_int_equal(cst_index_slot_reserve(f->x, &o.id, false, &found), -EAGAIN);
	assert_int_equal(cst_index_slot_commit(f->x, &e, true), 0);
	assert_int_equal(cst_index_slot_commit(f->x, &e, true), -ENOENT);
	assert_int_equal(cst_index_slot_reserve(f->x, &o.id, false, &found), -EEXIST);
	assert_int_equal(open_as(f, 1, 5000, 1, false, false, &found, &created), 0);
	assert_int_equal(found.slot.slab, e.slot.slab);
	assert_int_equal(found.slot.offset, e.slot.offset);
	assert_int_equal(found.cached, 5000);
	close_entry(f, &found);
	close_entry(f, &e);
	assert_int_equal(stats_of(f).in_use, 0);
}

static void test_slot_given_up(void **state)
{
	struct fixture *f = *state;
	char etag[16];
	struct object o = object(1, 5000, 1);
	struct cst_index_entry e;
	assert_int_equal(cst_index_slot_reserve(f->x, full_id(&o, etag, 1), false, &e), 0);
	assert_int_equal(stats_of(f).used, slab_length(f->x, (unsigned)slot_class_of(e.slot.length)));
	assert_int_equal(cst_index_slot_commit(f->x, &e, false), 0);
	assert_int_equal(stats_of(f).entries, 0);
	eventually(stats_of(f).used == 0); /* a slab without slots in use goes */
	index_check(f->x);
}

/* Somebody deleted the file of a slab: who can't write into it says so, and gets another one next. */
static void test_slab_deleted(void **state)
{
	struct fixture *f = *state;
	char etag[16];
	struct object o = object(3, 3000, 1);
	struct cst_index_entry kept, closed, e;
	assert_int_equal(put(f, 1, 3000, 1, &kept), 0);
	assert_int_equal(put(f, 2, 3000, 1, &closed), 0);
	close_entry(f, &closed);
	assert_int_equal(cst_slab_unlink(f->dir, kept.slot.slab), 0);
	assert_int_equal(cst_index_slot_reserve(f->x, full_id(&o, etag, 1), false, &e), 0);
	assert_int_equal(e.slot.slab, kept.slot.slab);
	assert_int_equal(cst_index_slot_commit(f->x, &e, false), 0);
	assert_false(is_there(f, 2, 3000, 1));
	assert_int_equal(stats_of(f).lost, 2);
	/* One is still in use there, but nobody else gets a slot of it. */
	assert_int_equal(put(f, 3, 3000, 1, &e), 0);
	assert_true(e.slot.slab != kept.slot.slab);
	index_check(f->x);
	close_entry(f, &kept);
	eventually(stats_of(f).used == slab_length(f->x, (unsigned)slot_class_of(e.slot.length)));
	index_check(f->x);
	close_entry(f, &e);
}

/* A slot is free again only when nobody uses it. */
static void test_slot_reuse(void **state)
{
	struct fixture *f = *state;
	struct cst_index_entry first, second, third;
	assert_int_equal(put(f, 1, 3000, 1, &first), 0);
	assert_int_equal(cst_index_drop(f->x, first.name, first.version), 0);
	assert_int_equal(put(f, 2, 3000, 1, &second), 0);
	assert_true(second.slot.offset != first.slot.offset);
	close_entry(f, &first);
	assert_int_equal(put(f, 3, 3000, 1, &third), 0);
	assert_int_equal(third.slot.slab, first.slot.slab);
	assert_int_equal(third.slot.offset, first.slot.offset);
	close_entry(f, &second);
	close_entry(f, &third);
}

static void test_slot_classes(void **state)
{
	(void)state;
	uint32_t before = 0;
	for (unsigned c = 0; c < SLOT_CLASSES; c++) {
		uint32_t length = slot_class_length(c);
		assert_true(length > before && length % 1024 == 0);
		assert_true(before == 0 || length <= before + before / 4);
		assert_int_equal(slot_class_of(length), (int)c);
		assert_int_equal(slot_class_of(before + 1), (int)c);
		before = length;
	}
	assert_int_equal(slot_class_length(0), 4096);
	/* The largest object with the longest names. */
	assert_int_equal(before, 64 + CST_CACHE_TEXT_MAX + CST_SLOT_MAX);
	assert_int_equal(slot_class_of(before + 1), -1);
}

/* A class that needs room gets the emptiest slab of another one. */
static void test_slab_is_emptied(void **state)
{
	struct fixture *f = *state;
	struct cst_index_entry e;
	unsigned n = 0, live = 0;
	int rc;
	f->x->high = f->x->low = QUOTA; /* only what is needed is evicted */
	/* Full of slots of 4 KiB, then three quarters of each slab are given up. */
	while (stats_of(f).used + MIB <= QUOTA) {
		assert_int_equal(put(f, n++, 3000, 1, &e), 0);
		close_entry(f, &e);
	}
	for (unsigned i = 0; i < n; i++)
		if (i % 4) {
			struct object o = object(i, 3000, 1);
			assert_int_equal(cst_index_drop(f->x, o.id.name, o.id.version), 0);
		}
	uint64_t entries = stats_of(f).entries;
	assert_true(stats_of(f).used > QUOTA - 2 * MIB);
	for (unsigned i = 0; i < 40; i++) {
		rc = put(f, n + i, 200 * KIB, 1, &e);
		assert_int_equal(rc, 0);
		close_entry(f, &e);
		live++;
	}
	struct cst_index_stats s = stats_of(f);
	assert_true(s.used <= QUOTA);
	/* What was evicted is what lay in a few slabs, with a little more for the next. */
	assert_true(s.entries >= entries + live - 14 * (MIB / 4096 / 4));
	index_check(f->x);
}

/* ---- room ---- */

static void test_high_and_low(void **state)
{
	struct fixture *f = *state;
	for (unsigned i = 0; i < 200; i++) {
		struct cst_index_entry e = fill(f, i, MIB, MIB);
		assert_true(stats_of(f).used <= QUOTA);
		close_entry(f, &e);
	}
	eventually(stats_of(f).used <= (uint64_t)(0.9 * QUOTA));
	struct cst_index_stats s = stats_of(f);
	assert_true(s.used > (uint64_t)(0.8 * QUOTA) - 2 * MIB);
	assert_true(s.stops_high >= 10 && s.stops_high <= 40);
	assert_true(s.stops_low >= s.stops_high - 1);
	assert_int_equal(s.evicted, 200 - s.entries);
	assert_true(is_there(f, 199, MIB, 1));
	index_check(f->x);
}

/* At the quota a charge waits for the evictor, and is let in when it has made room. */
static void test_charge_waits(void **state)
{
	struct fixture *f = *state;
	f->x->high = f->x->low = QUOTA;
	for (unsigned i = 0; i < 300; i++) {
		struct cst_index_entry e;
		bool created;
		int rc;
		eventually((rc = open_as(f, i, MIB, 1, true, false, &e, &created)) != -ENOSPC);
		assert_int_equal(rc, 0);
		assert_int_equal(cst_index_charge(f->x, e.name, e.version, MIB), 0);
		assert_true(stats_of(f).used <= QUOTA);
		close_entry(f, &e);
	}
	assert_true(stats_of(f).evicted >= 230);
}

/* What is in use can't make room: refused, and not after a second each time. */
static void test_charge_refused(void **state)
{
	struct fixture *f = *state;
	struct cst_index_entry e[64];
	unsigned n = 0;
	int rc = 0;
	while (rc == 0 && n < 64) {
		e[n] = fill(f, n, MIB, 0);
		rc = cst_index_charge(f->x, e[n].name, e[n].version, MIB);
		n++;
	}
	assert_int_equal(rc, -ENOSPC);
	assert_true(stats_of(f).full);
	assert_int_equal(stats_of(f).refused_bytes, MIB);
	assert_int_equal(stats_of(f).evicted, 0);
	int64_t start = cst_now();
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(cst_index_charge(f->x, e[0].name, e[0].version, 2 * MIB), -ENOSPC);
	assert_true(cst_now() - start < 15 * CST_NS_PER_S); /* twenty full waits would be 20 s */
	close_entry(f, &e[1]);
	assert_int_equal(cst_index_charge(f->x, e[0].name, e[0].version, MIB), 0);
	assert_false(stats_of(f).full);
	for (unsigned i = 0; i < n; i++)
		if (i != 1)
			close_entry(f, &e[i]);
}

static void test_pinned_stays(void **state)
{
	struct fixture *f = *state;
	struct cst_index_entry e;
	bool created;
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(open_as(f, i, MIB, 1, true, true, &e, &created), 0);
		assert_int_equal(cst_index_charge(f->x, e.name, e.version, MIB), 0);
		close_entry(f, &e);
	}
	for (unsigned i = 10; i < 200; i++) {
		e = fill(f, i, MIB, MIB);
		close_entry(f, &e);
	}
	for (unsigned i = 0; i < 10; i++)
		assert_true(is_there(f, i, MIB, 1));
	assert_int_equal(stats_of(f).pinned, 10);
	for (unsigned i = 0; i < 10; i++) {
		struct object o = object(i, MIB, 1);
		assert_int_equal(cst_index_pin(f->x, o.id.name, o.id.version, false), 0);
	}
	assert_int_equal(stats_of(f).pinned, 0);
	for (unsigned i = 200; i < 400; i++) {
		e = fill(f, i, MIB, MIB);
		close_entry(f, &e);
	}
	for (unsigned i = 0; i < 10; i++)
		assert_false(is_there(f, i, MIB, 1));
	index_check(f->x);
}

/* A quota that was lowered is come down to. */
static void test_lowered_quota(void **state)
{
	struct fixture *f = *state;
	for (unsigned i = 0; i < 40; i++) {
		struct cst_index_entry e = fill(f, i, MIB, MIB);
		close_entry(f, &e);
	}
	fixture_close(f);
	f->config.limits.quota = 16 * MIB;
	fixture_open(f);
	eventually(stats_of(f).used <= (uint64_t)(0.8 * 16 * MIB));
	assert_true(stats_of(f).entries >= 11);
	index_check(f->x);
}

/* The file system runs full because of others: less than the quota is kept. */
static void test_guard(void **state)
{
	struct fixture *f = *state;
	for (unsigned i = 0; i < 40; i++) {
		struct cst_index_entry e = fill(f, i, MIB, MIB);
		close_entry(f, &e);
	}
	pthread_mutex_lock(&f->x->lock);
	f->x->config.limits.keep_free = UINT64_C(1) << 60;
	pthread_mutex_unlock(&f->x->lock);
	room_look(f->x);
	eventually(stats_of(f).entries == 0);
	struct cst_index_entry e;
	bool created;
	assert_int_equal(open_as(f, 100, MIB, 1, true, false, &e, &created), -ENOSPC);
	pthread_mutex_lock(&f->x->lock);
	f->x->config.limits.keep_free = 0;
	pthread_mutex_unlock(&f->x->lock);
	room_look(f->x);
	assert_int_equal(open_as(f, 100, MIB, 1, true, false, &e, &created), 0);
	close_entry(f, &e);
}

struct demoted {
	struct fixture *f;
	unsigned calls, kept;
	bool saw_files;
};

static bool demote(void *arg, const struct cst_index_entry *entry)
{
	struct demoted *d = arg;
	d->saw_files &= file_exists(d->f, entry);
	d->calls++;
	d->kept += d->calls % 2;
	return d->calls % 2;
}

static void test_demote(void **state)
{
	struct fixture *f = *state;
	struct demoted d = {.f = f, .saw_files = true};
	fixture_close(f);
	f->config.demote = demote;
	f->config.arg = &d;
	f->config.failed = NULL;
	fixture_open(f);
	for (unsigned i = 0; i < 150; i++) {
		struct cst_index_entry e = fill(f, i, MIB, MIB);
		close_entry(f, &e);
	}
	eventually(stats_of(f).used <= (uint64_t)(0.9 * QUOTA));
	fixture_close(f);
	assert_true(d.calls >= 80 && d.saw_files);
	f->config.demote = NULL;
	fixture_open(f);
	assert_int_equal(stats_of(f).entries + d.calls, 150);
}

/* ---- pin rules ---- */

static void test_pin_rules(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_BUF rules = CST_BUF_INIT;
	struct cst_index_entry e;
	bool created;
	assert_int_equal(cst_index_pin_rule(f->x, "oss://b/data/00000", true), 0);
	assert_int_equal(cst_index_pin_rule(f->x, "oss://other", true), 0);
	assert_int_equal(cst_index_pin_rule(f->x, "oss://other", true), 0);
	assert_int_equal(cst_index_pin_rule(f->x, "oss://c/x", true), 0);
	assert_int_equal(cst_index_pin_rule(f->x, "oss://c/x", false), 0);
	fixture_close(f);
	fixture_open(f);
	cst_index_pin_rules(f->x, &rules);
	const char expected[] = "oss://b/data/00000\0oss://other";
	assert_int_equal(rules.len, sizeof(expected));
	assert_memory_equal(rules.data, expected, sizeof(expected));
	assert_int_equal(open_as(f, 7, MIB, 1, true, false, &e, &created), 0);
	assert_true(e.pinned);
	close_entry(f, &e);
	assert_int_equal(open_as(f, 70, MIB, 1, true, false, &e, &created), 0);
	assert_false(e.pinned);
	close_entry(f, &e);
	assert_int_equal(put(f, 8, 100, 1, &e), 0);
	assert_int_equal(stats_of(f).pinned, 2);
	close_entry(f, &e);
}

/* What could not be read at the next start is not taken. */
static void test_too_many_pin_rules(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_BUF rules = CST_BUF_INIT;
	CST_AUTO_FREE char *large = cst_xmalloc(17 * MIB);
	memset(large, 'x', 17 * MIB);
	large[17 * MIB - 1] = '\0';
	assert_int_equal(cst_index_pin_rule(f->x, "oss://b/", true), 0);
	assert_int_equal(cst_index_pin_rule(f->x, large, true), -EFBIG);
	fixture_close(f);
	fixture_open(f);
	cst_index_pin_rules(f->x, &rules);
	assert_int_equal(rules.len, sizeof("oss://b/"));
}

static void test_pin_rule_matches_bucket(void **state)
{
	struct fixture *f = *state;
	struct cst_cache_identity id = {.bucket = CST_SLICE("oss://b"), .key = CST_SLICE("k/x")};
	static const struct {
		const char *rule;
		bool matches;
	} cases[] = {{"oss://b", true},	      {"oss://b/", true},    {"oss://b/k", true}, {"oss://b/k/x", true},
		     {"oss://b/k/xx", false}, {"oss://bk/x", false}, {"oss://c/", false}, {"", true}};
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++) {
		assert_int_equal(cst_index_pin_rule(f->x, cases[i].rule, true), 0);
		assert_int_equal(pins_match_locked(f->x, &id), cases[i].matches);
		assert_int_equal(cst_index_pin_rule(f->x, cases[i].rule, false), 0);
	}
}

/* ---- restarts ---- */

static void test_clean_restart(void **state)
{
	struct fixture *f = *state;
	struct cst_index_entry e = fill(f, 1, MIB, 256 * KIB), slot, again;
	bool created;
	close_entry(f, &e);
	assert_int_equal(put(f, 2, 9000, 1, &slot), 0);
	close_entry(f, &slot);
	e = fill(f, 3, MIB, MIB);
	assert_int_equal(cst_index_complete(f->x, e.name, e.version), 0);
	close_entry(f, &e);
	assert_int_equal(cst_index_pin(f->x, slot.name, slot.version, true), 0);
	uint64_t used = stats_of(f).used;

	fixture_close(f);
	fixture_open(f);
	struct cst_index_stats s = stats_of(f);
	assert_int_equal(s.entries, 3);
	assert_int_equal(s.pinned, 1);
	assert_int_equal(s.used, used);
	assert_int_equal(s.lost, 0);
	/* Nothing had to be looked at: the maps hold no blocks, and yet the charge is kept. */
	assert_int_equal(open_as(f, 1, MIB, 1, false, false, &again, &created), 0);
	assert_int_equal(again.cached, 256 * KIB);
	close_entry(f, &again);
	assert_int_equal(open_as(f, 2, 9000, 1, false, false, &again, &created), 0);
	assert_int_equal(again.slot.slab, slot.slot.slab);
	assert_int_equal(again.slot.offset, slot.slot.offset);
	assert_int_equal(again.slot.length, slot.slot.length);
	close_entry(f, &again);
	assert_int_equal(open_as(f, 3, MIB, 1, false, false, &again, &created), 0);
	assert_true(again.complete);
	close_entry(f, &again);
}

/* ---- failures ---- */

/* The directory is deleted: what is open goes on, nothing new; one message. */
static void test_directory_deleted(void **state)
{
	struct fixture *f = *state;
	char command[120];
	struct cst_index_entry e = fill(f, 1, MIB, 128 * KIB);
	bool created;
	snprintf(command, sizeof(command), "rm -rf '%s'", f->path);
	assert_int_equal(system(command), 0);
	eventually(__atomic_load_n(&f->failures, __ATOMIC_SEQ_CST) == 1);
	assert_int_equal(open_as(f, 2, MIB, 1, true, false, &e, &created), -EIO);
	assert_int_equal(cst_index_charge(f->x, e.name, e.version, 1), -EIO);
	assert_int_equal(cst_index_drop(f->x, e.name, e.version), -EIO);
	close_entry(f, &e);
	fixture_close(f);
	assert_int_equal(f->failures, 1);
}

/* Only the log is deleted: it is written again. */
static void test_log_deleted(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	struct cst_index_entry e = fill(f, 1, MIB, 128 * KIB);
	close_entry(f, &e);
	assert_int_equal(unlinkat(f->dir, "index.log", 0), 0);
	eventually(fstatat(f->dir, "index.log", &st, 0) == 0);
	fixture_close(f);
	fixture_open(f);
	assert_int_equal(stats_of(f).entries, 1);
	assert_int_equal(stats_of(f).used, 128 * KIB + 8192);
}

static void test_disk_fails(void **state)
{
	struct fixture *f = *state;
	struct cst_index_entry e = fill(f, 1, MIB, MIB);
	pthread_mutex_lock(&f->x->log_io);
	int good = f->x->log.fd;
	f->x->log.fd = open("/dev/full", O_RDONLY | O_CLOEXEC); /* can't be written: EBADF */
	assert_int_equal(dup2(f->x->log.fd, f->x->log.fd), f->x->log.fd);
	pthread_mutex_unlock(&f->x->log_io);
	assert_true(cst_index_complete(f->x, e.name, e.version) < 0);
	eventually(__atomic_load_n(&f->failures, __ATOMIC_SEQ_CST) == 1);
	close_entry(f, &e);
	assert_int_equal(cst_index_complete(f->x, e.name, e.version), -EIO);
	close(good);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_create_find_close, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_small_is_not_created, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_larger_than_quota, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_limits_without_end, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_charges_add_up, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_complete_is_charged_whole, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_new_version_drops_old, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_dropped_is_not_found, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_list, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_slot_only_found_when_committed, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_slot_given_up, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_slab_deleted, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_slot_reuse, setup, fixture_free),
		cmocka_unit_test(test_slot_classes),
		cmocka_unit_test_setup_teardown(test_slab_is_emptied, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_high_and_low, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_charge_waits, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_charge_refused, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_pinned_stays, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_lowered_quota, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_guard, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_demote, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_pin_rules, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_too_many_pin_rules, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_pin_rule_matches_bucket, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_clean_restart, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_directory_deleted, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_log_deleted, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_disk_fails, setup, fixture_free),
	};
	return cmocka_run_group_tests_name("cache/index", tests, NULL, NULL);
}
