/* The memory that outlives a process: what is committed is found whole by the next one, whenever the last one was killed. */
#include "base/clock.h"
#include "supervisor/opens.h"
#include "supervisor/outcome.h"
#include "supervisor/state.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

static int memory(void **state)
{
	static int fd;
	fd = cst_state_make(NULL);
	*state = &fd;
	return fd < 0 ? -1 : 0;
}

static int no_memory(void **state)
{
	close(*(int *)*state);
	return 0;
}

static uint64_t bytes_used(int fd)
{
	struct stat st;
	assert_int_equal(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

struct found {
	unsigned count;
	uint64_t sum, last;
};
static void count_them(void *arg, void *record, size_t room, uint64_t sequence)
{
	struct found *f = arg;
	assert_true(room >= 8);
	f->count++;
	f->sum += *(uint64_t *)record;
	if (sequence > f->last)
		f->last = sequence;
}

static void test_committed_alone(void **state)
{
	int fd = *(int *)*state;
	struct cst_state *s = cst_state_open(fd, true, NULL);
	assert_non_null(s);
	uint64_t *records[3000];
	for (unsigned i = 0; i < 3000; i++) {
		records[i] = cst_state_alloc(s, CST_STATE_IDENTITY, 8 + i % 900);
		assert_int_equal((uintptr_t)records[i] % 8, 0);
		*records[i] = i;
		if (i % 3)
			cst_state_commit(s, records[i]);
	}
	for (unsigned i = 0; i < 3000; i += 2)
		cst_state_free(s, records[i]);
	cst_state_close(s);
	s = cst_state_open(fd, true, NULL);
	struct found f = {0}, other = {0};
	cst_state_each(s, CST_STATE_IDENTITY, count_them, &f);
	cst_state_each(s, CST_STATE_OPEN, count_them, &other);
	unsigned expected = 0;
	uint64_t sum = 0;
	for (unsigned i = 1; i < 3000; i += 2)
		if (i % 3) {
			expected++;
			sum += i;
		}
	assert_int_equal(f.count, expected);
	assert_int_equal(f.sum, sum);
	assert_int_equal(other.count, 0);
	/* A later record has a later number, also after a restart. */
	uint64_t *later = cst_state_alloc(s, CST_STATE_OPEN, 8);
	*later = 1;
	cst_state_commit(s, later);
	cst_state_each(s, CST_STATE_OPEN, count_them, &other);
	assert_true(other.last > f.last);
	cst_state_close(s);
}

static void test_room_is_used_again(void **state)
{
	int fd = *(int *)*state;
	struct cst_state *s = cst_state_open(fd, true, NULL);
	enum { MANY = 100000 };
	void **records = cst_xcalloc(MANY, sizeof(*records));
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < MANY; i++) {
			records[i] = cst_state_alloc(s, CST_STATE_IDENTITY, 50 + i % 100);
			memset(records[i], 0xff, 50);
			cst_state_commit(s, records[i]);
		}
		assert_true(bytes_used(fd) > 10000000);
		assert_true(bytes_used(fd) < 16000000);
		for (unsigned i = 0; i < MANY; i++)
			cst_state_free(s, records[i]);
		assert_true(bytes_used(fd) < 3000000);
	}
	/* A million versions of one file. */
	void *now = NULL;
	for (unsigned i = 0; i < 1000000; i++) {
		void *next = cst_state_alloc(s, CST_STATE_IDENTITY, 100);
		cst_state_commit(s, next);
		cst_state_free(s, now);
		now = next;
	}
	assert_true(bytes_used(fd) < 3000000);
	struct cst_state_stats stats;
	cst_state_stats(s, &stats);
	assert_int_equal(stats.records, 1);
	free(records);
	cst_state_close(s);
}

static void test_large_is_kept_nowhere(void **state)
{
	struct cst_state *s = cst_state_open(*(int *)*state, true, NULL);
	char *large = cst_state_alloc(s, CST_STATE_IDENTITY, 1 << 20);
	memset(large, 1, 1 << 20);
	cst_state_commit(s, large);
	struct cst_state_stats stats;
	cst_state_stats(s, &stats);
	assert_int_equal(stats.on_heap, 1);
	cst_state_free(s, large);
	cst_state_close(s);
}

static void test_layout(void **state)
{
	int fd = *(int *)*state;
	struct cst_error err = CST_ERROR_INIT;
	struct cst_state *s = cst_state_open(fd, false, NULL);
	assert_non_null(s);
	cst_state_header(s)->layout++;
	assert_null(cst_state_open(fd, true, &err));
	assert_int_equal(err.code, EPROTO);
	char layout[32];
	snprintf(layout, sizeof(layout), "layout %u", CST_STATE_LAYOUT + 1);
	assert_non_null(strstr(err.why, layout));
	cst_state_header(s)->layout--;
	cst_state_close(s);
	int other = memfd_create("other", MFD_CLOEXEC);
	assert_null(cst_state_open(other, true, &err));
	assert_int_equal(err.code, EPROTO);
	close(other);
}

/* ---- killed at any instruction ---- */

/* A key's record, of any length; the sum goes over all of it. */
struct record {
	uint64_t key, version;
	uint64_t len; /* of data */
	uint64_t sum;
	uint8_t data[];
};
#define KEYS 200u
#ifdef __SANITIZE_THREAD__ /* a fork takes long there */
#define ROUNDS 10u
#else
#define ROUNDS 150u
#endif

static uint64_t sum_of(const struct record *r)
{
	uint64_t sum = r->key * 31 + r->version * 1000003 + r->len;
	for (uint64_t i = 0; i < r->len; i++)
		sum = sum * 1099511628211u + r->data[i];
	return sum;
}

struct restored {
	const struct record *records[KEYS];
	void *all[KEYS];
	uint64_t sequences[KEYS];
	unsigned doubles;
	struct cst_state *state;
	void *extra[64];
	unsigned extras;
};

static void restore_record(void *arg, void *record, size_t room, uint64_t sequence)
{
	struct restored *x = arg;
	const struct record *r = record;
	assert_true(room >= sizeof(*r));
	assert_true(r->key < KEYS);
	assert_true(r->len <= room - sizeof(*r));
	assert_int_equal(r->sum, sum_of(r));
	if (x->all[r->key]) {
		bool newer = sequence > x->sequences[r->key];
		assert_true(x->extras < 64);
		x->extra[x->extras++] = newer ? x->all[r->key] : record;
		if (!newer)
			return;
		assert_true(r->version > x->records[r->key]->version);
	}
	x->records[r->key] = r;
	x->all[r->key] = record;
	x->sequences[r->key] = sequence;
}

static void *put(struct cst_state *s, uint64_t key, uint64_t version, unsigned len)
{
	struct record *r = cst_state_alloc(s, CST_STATE_IDENTITY, sizeof(*r) + len);
	r->key = key;
	r->version = version;
	r->len = len;
	for (unsigned i = 0; i < len; i++)
		r->data[i] = (uint8_t)(version + i);
	r->sum = sum_of(r);
	cst_state_commit(s, r);
	return r;
}

/* Takes over, checks, then replaces and counts until it is killed. told[key]: a version that was committed before it was told. */
static _Noreturn void live(int fd, uint64_t *told, unsigned seed)
{
	struct cst_state *s = cst_state_open(fd, true, NULL);
	struct restored x = {.state = s};
	uint64_t version[KEYS] = {0};
	cst_state_each(s, CST_STATE_IDENTITY, restore_record, &x);
	for (unsigned i = 0; i < x.extras; i++)
		cst_state_free(s, x.extra[i]);
	for (unsigned k = 0; k < KEYS; k++) {
		uint64_t least = __atomic_load_n(&told[k], __ATOMIC_RELAXED);
		version[k] = x.all[k] ? x.records[k]->version : 0;
		if (version[k] < least)
			_exit(2);
	}
	for (;;) {
		unsigned key = (unsigned)rand_r(&seed) % KEYS, len = (unsigned)rand_r(&seed) % 700;
		void *old = x.all[key];
		x.all[key] = put(s, key, ++version[key], len);
		__atomic_store_n(&told[key], version[key], __ATOMIC_RELEASE);
		cst_state_free(s, old);
		/* Slabs come and go. */
		if (rand_r(&seed) % 500 == 0) {
			void *many[300];
			for (unsigned i = 0; i < 300; i++)
				many[i] = cst_state_alloc(s, CST_STATE_OPEN, 1000);
			for (unsigned i = 0; i < 300; i++)
				cst_state_free(s, many[i]);
		}
	}
}

static void test_killed(void **state)
{
	int fd = *(int *)*state;
	uint64_t *told = mmap(NULL, KEYS * 8, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(told != MAP_FAILED);
	uint64_t before = 0;
	for (unsigned round = 0; round < ROUNDS; round++) {
		pid_t pid = fork();
		if (pid == 0)
			live(fd, told, round);
		/* It is killed while it works, not before. */
		uint64_t now = before;
		for (unsigned i = 0; i < 20000 && now < before + 200 + round * 37 % 2000; i++) {
			cst_sleep(50 * CST_NS_PER_US);
			now = 0;
			for (unsigned k = 0; k < KEYS; k++)
				now += __atomic_load_n(&told[k], __ATOMIC_RELAXED);
		}
		kill(pid, SIGKILL);
		int status = 0;
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		assert_true(now > before);
		before = now;
	}
	struct cst_state *s = cst_state_open(fd, true, NULL);
	struct restored x = {.state = s};
	cst_state_each(s, CST_STATE_IDENTITY, restore_record, &x);
	for (unsigned k = 0; k < KEYS; k++)
		if (told[k])
			assert_true(x.all[k] && x.records[k]->version >= told[k]);
	cst_state_close(s);
	munmap(told, KEYS * 8);
}

/* ---- outcomes and opens ---- */

static void test_outcomes(void **state)
{
	int fd = *(int *)*state, rc = 1;
	char answer[CST_OUTCOME_MAX];
	size_t len = 0;
	struct cst_state *s = cst_state_open(fd, true, NULL);
	struct cst_outcomes *o = cst_outcomes_new(s);
	assert_false(cst_outcome_find(o, 10, &rc, answer, &len));
	cst_outcome_log(o, 10, 0, "made", 4);
	cst_outcome_log(o, 12, -17, NULL, 0);
	cst_outcome_log(o, 14, 0, NULL, 0);
	cst_outcome_done(o, 14);
	cst_outcomes_free(o);
	cst_state_close(s);
	s = cst_state_open(fd, true, NULL);
	o = cst_outcomes_new(s);
	assert_int_equal(cst_outcomes_count(o), 2);
	assert_true(cst_outcome_find(o, 10 | UINT64_C(1) << 63, &rc, answer, &len));
	assert_int_equal(rc, 0);
	assert_int_equal(len, 4);
	assert_memory_equal(answer, "made", 4);
	assert_true(cst_outcome_find(o, 12, &rc, answer, &len));
	assert_int_equal(rc, -17);
	assert_false(cst_outcome_find(o, 14, &rc, answer, &len));
	cst_outcome_done(o, 10);
	cst_outcome_done(o, 12 | UINT64_C(1) << 63);
	cst_outcome_done(o, 12);
	assert_int_equal(cst_outcomes_count(o), 0);
	cst_outcomes_free(o);
	cst_state_close(s);
}

static void test_opens(void **state)
{
	int fd = *(int *)*state;
	struct cst_state *s = cst_state_open(fd, true, NULL);
	struct cst_opens *o = cst_opens_new(s, 1);
	assert_int_equal(cst_opens_add(o, 2, 100, 1001, 5), 0);
	assert_int_equal(cst_opens_add(o, 4, 100, 1002, 5), 0);
	assert_int_equal(cst_opens_add(o, 6, 101, 1003, 6), 0);
	assert_int_equal(cst_opens_add(o, 8, 102, 1004, 7), 0);
	assert_int_equal(cst_opens_remove(o, 1004), 0); /* its own: the file system counts */
	cst_opens_free(o);
	cst_state_close(s);
	s = cst_state_open(fd, true, NULL);
	o = cst_opens_new(s, 2);
	assert_int_equal(cst_opens_inherited(o), 3);
	/* The third OPEN comes again and gets another id. */
	assert_int_equal(cst_opens_add(o, 6, 101, 2001, 8), 6);
	assert_int_equal(cst_opens_remove(o, 1001), 0);
	assert_int_equal(cst_opens_remove(o, 1001), 0);
	assert_int_equal(cst_opens_remove(o, 1002), 5);
	assert_int_equal(cst_opens_inherited(o), 0);
	assert_int_equal(cst_opens_remove(o, 2001), 0);
	cst_opens_free(o);
	cst_state_close(s);
}

static void test_beats(void **state)
{
	struct cst_state *s = cst_state_open(*(int *)*state, false, NULL);
	struct cst_state_header *h = cst_state_header(s);
	const struct cst_beat *which = NULL;
	int64_t now = cst_now();
	assert_int_equal(cst_beat_oldest(h, now + 1000 * CST_NS_PER_S, NULL), 0);
	struct cst_beat *ticks = cst_beat_take(h, CST_BEAT_TICKS, "loop"),
			*works = cst_beat_take(h, CST_BEAT_WORKS, "reader");
	assert_ptr_not_equal(ticks, works);
	cst_beat_set(ticks, now);
	assert_int_equal(cst_beat_oldest(h, now + 7, &which), 7);
	assert_ptr_equal(which, ticks);
	cst_beat_set(works, now - 10);
	assert_int_equal(cst_beat_oldest(h, now + 7, &which), 17);
	assert_ptr_equal(which, works);
	cst_beat_set(works, 0);
	assert_int_equal(cst_beat_oldest(h, now + 7, NULL), 7);
	for (unsigned i = 2; i < CST_STATE_BEATS; i++)
		assert_non_null(cst_beat_take(h, CST_BEAT_WORKS, "more"));
	assert_null(cst_beat_take(h, CST_BEAT_WORKS, "too many"));
	cst_state_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_committed_alone, memory, no_memory),
		cmocka_unit_test_setup_teardown(test_room_is_used_again, memory, no_memory),
		cmocka_unit_test_setup_teardown(test_large_is_kept_nowhere, memory, no_memory),
		cmocka_unit_test_setup_teardown(test_layout, memory, no_memory),
		cmocka_unit_test_setup_teardown(test_killed, memory, no_memory),
		cmocka_unit_test_setup_teardown(test_outcomes, memory, no_memory),
		cmocka_unit_test_setup_teardown(test_opens, memory, no_memory),
		cmocka_unit_test_setup_teardown(test_beats, memory, no_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
