/* Who goes next, and what it costs to find out: S3-FIFO against known answers and against LRU; a million entries; many threads. */
#include "index_fixture.h"

#include <malloc.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

/* No threads and no log: the policy alone. */
static int setup(void **state)
{
	struct fixture *f = CST_NEW(struct fixture);
	fixture_dir(f, 1024 * MIB);
	f->x = index_new(&f->config);
	f->x->fs_room = f->x->fs_inodes_room = INT64_MAX / 2;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	index_check(f->x);
	index_delete(cst_steal(f->x));
	return fixture_free(state);
}

/* An extent of the index alone, without files. */
static uint32_t add(struct fixture *f, unsigned n, bool pin)
{
	struct object o = object(n, MIB, 1);
	uint32_t i = table_add(&f->x->table, o.id.name, o.id.version);
	struct entry *e = at(f->x, i);
	e->flags = (uint16_t)(F_PENDING | (pin ? F_PINNED : 0));
	entry_set_size(e, MIB);
	f->x->extents += extent_overhead(MIB);
	index_charge_locked(f->x, i, MIB);
	index_show_locked(f->x, i);
	return i;
}

static uint32_t victim(struct fixture *f)
{
	unsigned steps = UINT32_MAX;
	uint32_t n = policy_victim_locked(f->x, false, &steps);
	if (!n)
		return NIL;
	policy_remember_locked(f->x, at(f->x, n));
	index_drop_locked(f->x, n);
	/* As the keeper does. */
	f->x->leaving = NIL;
	f->x->leaving_bytes = 0;
	index_free_locked(f->x, n);
	return n;
}

static void used(struct fixture *f, uint32_t n, unsigned times)
{
	while (times--)
		entry_set_freq(at(f->x, n), entry_freq(at(f->x, n)) + 1);
}

/* One-hit wonders leave in the order they came; what was used twice moves to main and goes round once for each further use. */
static void test_order(void **state)
{
	struct fixture *f = *state;
	uint32_t n[8];
	for (unsigned i = 0; i < 8; i++)
		n[i] = add(f, i, false);
	used(f, n[0], 1); /* once is not enough */
	used(f, n[1], 2);
	used(f, n[3], 9); /* counted up to three */
	assert_int_equal(victim(f), n[0]);
	assert_int_equal(victim(f), n[2]); /* 1 moved to main */
	assert_int_equal(victim(f), n[4]); /* 3 moved to main */
	used(f, n[1], 1);
	assert_int_equal(victim(f), n[5]);
	assert_int_equal(victim(f), n[6]);
	assert_int_equal(victim(f), n[7]);
	assert_int_equal(victim(f), n[3]); /* 1 went round */
	assert_int_equal(victim(f), n[1]);
	assert_int_equal(victim(f), NIL);
}

/* Above a tenth, the small queue gives; below, main does. */
static void test_small_is_a_tenth(void **state)
{
	struct fixture *f = *state;
	uint32_t n[40];
	for (unsigned i = 0; i < 40; i++) {
		n[i] = add(f, i, false);
		used(f, n[i], i < 36 ? 2 : 0);
	}
	/* All that were used move to main, 36 of them; then the small queue has exactly a tenth. */
	assert_int_equal(victim(f), n[0]);
	assert_int_equal(f->x->policy.small.count, 4);
	assert_int_equal(f->x->policy.main.count, 35);
	assert_int_equal(victim(f), n[36]); /* 4 of 39 */
	assert_int_equal(victim(f), n[1]);  /* 3 of 38 */
}

/* What left the small queue and comes back goes to main. */
static void test_ghost(void **state)
{
	struct fixture *f = *state;
	for (unsigned i = 0; i < 100; i++)
		add(f, i, false);
	uint32_t n = victim(f);
	assert_int_equal(n, 1);
	n = add(f, 0, false);
	assert_true(at(f->x, n)->flags & F_MAIN);
	n = add(f, 1000, false);
	assert_false(at(f->x, n)->flags & F_MAIN);
	/* It remembers about as many as there are entries. */
	unsigned remembered = 0;
	for (unsigned i = 2000; i < 6000; i++) {
		add(f, i, false);
		victim(f);
	}
	for (unsigned i = 2000; i < 6000; i++) {
		if (is_there(f, i, MIB, 1))
			continue;
		n = add(f, i, false);
		remembered += !!(at(f->x, n)->flags & F_MAIN);
		policy_leave_locked(f->x, n); /* so that the queues stay as they are */
		policy_park_locked(f->x, n);
	}
	assert_in_range(remembered, 60, 400);
}

/* A read of a large object counts for its share: all of it read once counts once. */
static void test_touches(void **state)
{
	struct fixture *f = *state;
	unsigned sum = 0;
	for (unsigned i = 0; i < 200; i++) {
		struct object o = object(i, 100 * MIB, 1);
		uint32_t n = table_add(&f->x->table, o.id.name, o.id.version);
		entry_set_size(at(f->x, n), 100 * MIB);
		at(f->x, n)->flags = F_PENDING;
		for (unsigned reads = 0; reads < 100; reads++)
			policy_hit_locked(f->x, n, 1);
		sum += entry_freq(at(f->x, n));
		table_remove(&f->x->table, n);
	}
	assert_in_range(sum, 140, 240); /* the count ends at three, so a little below 200 */
	uint32_t small = add(f, 1000, false);
	policy_hit_locked(f->x, small, 1);
	assert_int_equal(entry_freq(at(f->x, small)), 1);
	at(f->x, small)->flags |= F_OPENED; /* an open has counted already */
	policy_hit_locked(f->x, small, 1);
	assert_int_equal(entry_freq(at(f->x, small)), 1);
	policy_hit_locked(f->x, small, 1);
	assert_int_equal(entry_freq(at(f->x, small)), 2);
}

/* What can't be evicted costs a step once, or none. */
static void test_held_cost_nothing(void **state)
{
	struct fixture *f = *state;
	const unsigned many = SANITIZED ? 20000 : 1000000;
	for (unsigned i = 0; i < many; i++)
		add(f, i, true);
	uint32_t held[1000];
	for (unsigned i = 0; i < 1000; i++) {
		held[i] = add(f, many + i, false);
		index_use_locked(f->x, held[i]);
	}
	for (unsigned i = 0; i < 1000; i++)
		add(f, 2 * many + i, false);
	unsigned steps = 1001;
	uint32_t first = policy_victim_locked(f->x, false, &steps);
	assert_true(first != NIL);
	assert_int_equal(steps, 0); /* a thousand in use were parked */
	for (unsigned i = 0; i < 999; i++) {
		steps = 1;
		assert_true(policy_victim_locked(f->x, false, &steps) != NIL);
	}
	steps = 1;
	assert_int_equal(policy_victim_locked(f->x, false, &steps), NIL);
	/* Given back, they are the next. */
	index_unuse_locked(f->x, held[500]);
	assert_int_equal(policy_victim_locked(f->x, false, &steps), held[500]);
	/* Unpinned, it has its round. */
	index_pin_locked(f->x, 1, false);
	steps = 1;
	assert_int_equal(policy_victim_locked(f->x, false, &steps), 1);
	for (uint32_t n = 1; n < f->x->table.used;
	     n++) /* those that were taken, so that the check finds all in order */
		if (entry_found(at(f->x, n)) && !(at(f->x, n)->flags & (F_QUEUED | F_PARKED)))
			at(f->x, n)->flags |= F_PARKED;
}

/* ---- against LRU ---- */

#define ITEMS 60000u
#define SCANS 1000000u /* first number of those read once */

/* LRU by the time of the last use. */
struct lru {
	uint64_t *at;	 /* of each number: its last use, 0: not there */
	uint32_t *order; /* number by use */
	uint64_t oldest, now;
	unsigned count, room;
	uint64_t hits;
};

static void lru_use(struct lru *l, uint32_t n)
{
	if (l->at[n])
		l->hits++;
	else
		l->count++;
	l->at[n] = ++l->now;
	l->order[l->now] = n;
	while (l->count > l->room) {
		uint32_t old = l->order[++l->oldest];
		if (l->at[old] == l->oldest) {
			l->at[old] = 0;
			l->count--;
		}
	}
}

static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* Zipf with exponent 0.9 over ITEMS by inversion of a table of sums. */
static uint32_t zipf(const double *sums, uint64_t *seed)
{
	double r = (double)(next_random(seed) >> 11) / (double)(UINT64_C(1) << 53) * sums[ITEMS - 1];
	uint32_t low = 0, high = ITEMS - 1;
	while (low < high) {
		uint32_t middle = (low + high) / 2;
		if (sums[middle] < r)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool access_entry(struct fixture *f, unsigned n)
{
	struct cst_index_entry e;
	bool created, hit = open_as(f, n, 3000, 1, false, false, &e, &created) == 0;
	int rc = hit ? 0 : put(f, n, 3000, 1, &e);
	if (rc == 0)
		close_entry(f, &e);
	return hit;
}

/* Real index, real evictor. LRU gets as many entries as the index ever held. */
static void test_beats_lru(void **state)
{
	(void)state;
	const unsigned accesses = SANITIZED ? 100000 : 400000;
	struct fixture *f = CST_NEW(struct fixture);
	CST_AUTO_FREE double *sums = cst_xcalloc(ITEMS, sizeof(*sums));
	struct lru lru = {.at = cst_xcalloc(SCANS + accesses, sizeof(uint64_t)),
			  .order = cst_xcalloc(accesses + 1, sizeof(uint32_t))};
	CST_AUTO_FREE uint32_t *trace = cst_xcalloc(accesses, sizeof(*trace));
	uint64_t seed = 88172645463325252u, hits = 0, most = 0;
	unsigned scan = 0;
	for (unsigned i = 0; i < ITEMS; i++)
		sums[i] = (i ? sums[i - 1] : 0) + 1 / __builtin_pow(i + 1, 0.9);
	/* Four of five accesses are skewed; the rest is read once, in runs of 2,000. */
	for (unsigned i = 0; i < accesses; i++)
		trace[i] = i % 10000 >= 8000 ? SCANS + scan++ : zipf(sums, &seed);

	fixture_dir(f, 16 * MIB);
	fixture_open(f);
	for (unsigned i = 0; i < accesses; i++) {
		hits += access_entry(f, trace[i]);
		if (i % 64 == 0)
			most = cst_max(most, stats_of(f).entries);
	}
	lru.room = (unsigned)most;
	for (unsigned i = 0; i < accesses; i++)
		lru_use(&lru, trace[i]);
	print_message("# hits of %u: S3-FIFO %llu, LRU %llu, %llu entries\n", accesses, (unsigned long long)hits,
		      (unsigned long long)lru.hits, (unsigned long long)most);
	assert_true(most > 3000 && most <= 4096);
	assert_true(hits >= lru.hits);
	void *done = f;
	fixture_free(&done);
	free(lru.at);
	free(lru.order);
}

/* ---- a million ---- */

static uint64_t heap(void)
{
	struct mallinfo2 m = mallinfo2();
	return m.uordblks + m.hblkhd;
}

static void test_a_million(void **state)
{
	(void)state;
	const unsigned many = SANITIZED ? 50000 : 1000000;
	struct fixture *f = CST_NEW(struct fixture);
	fixture_dir(f, 8192 * MIB);
	uint64_t before = heap();
	fixture_open(f);
	int64_t start = cst_now(), longest = 0;
	for (unsigned i = 0; i < many; i++) {
		struct cst_index_entry e;
		int64_t one = cst_now();
		assert_int_equal(put(f, i, 3000, 1, &e), 0);
		longest = cst_max(longest, cst_now() - one);
		close_entry(f, &e);
	}
	int64_t made = cst_now() - start;
	eventually(log_sync(f->x) == 0);
	uint64_t took = heap() - before, counted = stats_of(f).memory;
	print_message("# %u entries: %.1f bytes each counted, %.1f of heap; %.2f us each, longest %.2f ms\n", many,
		      (double)counted / many, (double)took / many, (double)made / many / 1e3, (double)longest / 1e6);
	assert_int_equal(stats_of(f).entries, many);
	if (!SANITIZED) {
		assert_true(counted <= 64 * (uint64_t)many);
		assert_true(took <= 64 * (uint64_t)many + 4 * MIB); /* buffers of the log */
	}
	fixture_close(f);
	start = cst_now();
	fixture_open(f);
	print_message("# opened again in %.0f ms\n", (double)(cst_now() - start) / 1e6);
	assert_int_equal(stats_of(f).entries, many);
	void *done = f;
	fixture_free(&done);
}

/* ---- threads ---- */

#define THREADS 6u

struct worker {
	struct fixture *f;
	unsigned seed, rounds;
	int bad;
};

static void one_round(struct worker *w, uint64_t *seed)
{
	struct fixture *f = w->f;
	unsigned n = (unsigned)(next_random(seed) % 200), what = (unsigned)(next_random(seed) % 16);
	struct object o = object(n, n % 2 ? MIB : 3000, 1);
	struct cst_index_entry e, some[8];
	uint64_t cursor = 0;
	bool created;
	if (what == 0) {
		cst_index_drop(f->x, o.id.name, o.id.version);
	} else if (what == 1) {
		cst_index_pin(f->x, o.id.name, o.id.version, next_random(seed) % 4 == 0);
	} else if (what == 2) {
		cst_index_list(f->x, &cursor, some, 8);
		w->bad += stats_of(f).used > f->config.limits.quota;
	} else if (n % 2) {
		if (open_as(f, n, MIB, 1, true, false, &e, &created) < 0)
			return;
		if (cst_index_charge(f->x, e.name, e.version, what == 3 ? MIB : 128 * KIB) == 0 && what == 3)
			cst_index_complete(f->x, e.name, e.version);
		cst_index_touch(f->x, e.name, e.version, 1);
		close_entry(f, &e);
	} else if (open_as(f, n, 3000, 1, false, false, &e, &created) == 0 || put(f, n, 3000, 1, &e) == 0) {
		close_entry(f, &e);
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t seed = 1234567 + w->seed;
	for (unsigned i = 0; i < w->rounds; i++)
		one_round(w, &seed);
	return NULL;
}

static void test_threads(void **state)
{
	(void)state;
	struct fixture *f = CST_NEW(struct fixture);
	struct worker workers[THREADS];
	pthread_t threads[THREADS];
	fixture_dir(f, 24 * MIB);
	f->config.limits.high = 0.6;
	f->config.limits.low = 0.3;
	fixture_open(f);
	pthread_mutex_lock(&f->x->lock);
	f->x->rewrite_least = 100;
	pthread_mutex_unlock(&f->x->lock);
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){.f = f, .seed = i, .rounds = SANITIZED ? 1500 : 4000};
		assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(workers[i].bad, 0);
	}
	index_check(f->x);
	assert_int_equal(stats_of(f).in_use, 0);
	assert_int_equal(stats_of(f).unlinked, 0);
	assert_true(stats_of(f).evicted > 0);
	for (unsigned n = 0; n < 200; n++) {
		struct object o = object(n, n % 2 ? MIB : 3000, 1);
		cst_index_pin(f->x, o.id.name, o.id.version, false);
	}
	eventually(stats_of(f).used <= 24 * MIB * 6 / 10 && stats_of(f).stops_low == stats_of(f).stops_high);
	uint64_t entries = stats_of(f).entries;
	fixture_close(f);
	fixture_open(f);
	assert_int_equal(stats_of(f).entries, entries);
	void *done = f;
	fixture_free(&done);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_small_is_a_tenth, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ghost, setup, teardown),
		cmocka_unit_test_setup_teardown(test_touches, setup, teardown),
		cmocka_unit_test_setup_teardown(test_held_cost_nothing, setup, teardown),
		cmocka_unit_test(test_beats_lru),
		cmocka_unit_test(test_a_million),
		cmocka_unit_test(test_threads),
	};
	return cmocka_run_group_tests_name("cache/index_policy", tests, NULL, NULL);
}
