/* What is left of an index after a kill or a power cut at any point: never a slot with two owners, never "complete" for what is not, and
 * after a clean end all of it. */
#include "index_fixture.h"

#include "base/digest.h"

#include <signal.h>
#include <sys/wait.h>

#define QUOTA (24 * MIB)
#define OBJECTS 40u
#define LARGE (CST_SLOT_MAX + 3 * CST_CACHE_BLOCK + 777) /* six blocks */

static int setup(void **state)
{
	int rc = fixture_new(state, QUOTA);
	struct fixture *f = *state;
	pthread_mutex_lock(&f->x->lock);
	f->x->rewrite_least = 40;
	pthread_mutex_unlock(&f->x->lock);
	return rc;
}

static int no_rewriting(void **state)
{
	return fixture_new(state, QUOTA);
}

static uint64_t size_of(unsigned n)
{
	return n % 2 ? LARGE + n : 1000 + n * 977;
}

static void content(char *to, size_t len, unsigned n, unsigned version, uint64_t block)
{
	for (size_t i = 0; i < len; i += 64)
		memset(to + i, (int)(n * 7 + version * 31 + block * 3 + i / 64), cst_min(len - i, (size_t)64));
}

/* ---- records ---- */

static void test_record_format(void **state)
{
	(void)state;
	struct record r = {.type = R_ENTRY,
			   .flags = F_COMPLETE | F_MAIN | 2 << F_FREQ_SHIFT,
			   .minute = 0x01020304,
			   .name = 0x1112131415161718,
			   .version = 0x2122232425262728,
			   .size = 0x3132333435363738,
			   .place = 0x4142434445464748,
			   .synced = 5};
	static const uint8_t expected[RECORD_SIZE - 4] = {
		6,    0,    2 + 8 + 32, 0,    9,    0,	  0,	0,    0,    0,	  0,	0,    0x18, 0x17, 0x16,
		0x15, 0x14, 0x13,	0x12, 0x11, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21, 0x38, 0x37,
		0x36, 0x35, 0x34,	0x33, 0x32, 0x31, 0x48, 0x47, 0x46, 0x45, 0x44, 0x43, 0x42, 0x41, 5,
		0,    0,    0,		0,    0,    0,	  0,	0x04, 0x03, 0x02, 0x01, 0,    0,    0,	  0};
	uint8_t bytes[RECORD_SIZE], id[8] = {0x77};
	struct record back;
	uint64_t seq;
	record_encode(&r, 0x77, 9, bytes);
	assert_memory_equal(bytes + 4, expected, sizeof(expected));
	uint32_t crc = cst_crc32c(cst_crc32c(0, id, 8), expected, sizeof(expected));
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(bytes[i], crc >> (8 * i) & 0xff);
	assert_true(record_decode(bytes, 0x77, &seq, &back));
	assert_int_equal(seq, 9);
	assert_int_equal(back.flags, r.flags);
	assert_int_equal(back.place, r.place);
	assert_false(record_decode(bytes, 0x78, &seq, &back)); /* another log's */
	for (unsigned i = 0; i < RECORD_SIZE * 8; i++) {
		bytes[i / 8] ^= (uint8_t)(1u << i % 8);
		assert_false(record_decode(bytes, 0x77, &seq, &back));
		bytes[i / 8] ^= (uint8_t)(1u << i % 8);
	}
}

/* ---- a log cut anywhere ---- */

struct state {
	uint64_t records;
	bool there[OBJECTS], complete[OBJECTS], pinned[OBJECTS];
};

static void take_state(struct fixture *f, struct state *s)
{
	for (unsigned i = 0; i < OBJECTS; i++) {
		struct object o = object(i, size_of(i), 1);
		uint32_t n = table_find(&f->x->table, o.id.name, o.id.version);
		s->there[i] = n && entry_found(at(f->x, n));
		s->complete[i] = s->there[i] && at(f->x, n)->flags & F_COMPLETE;
		s->pinned[i] = s->there[i] && at(f->x, n)->flags & F_PINNED;
	}
	s->records = f->x->log.records;
}

static void some_operation(struct fixture *f, unsigned step)
{
	unsigned i = (step * 7) % OBJECTS;
	struct object o = object(i, size_of(i), 1);
	struct cst_index_entry e;
	if (is_there(f, i, size_of(i), 1)) {
		if (step % 3 == 0)
			cst_index_drop(f->x, o.id.name, o.id.version);
		else if (step % 3 == 1)
			cst_index_pin(f->x, o.id.name, o.id.version, step % 2);
		else
			cst_index_complete(f->x, o.id.name, o.id.version);
	} else if (i % 2) {
		bool created;
		if (open_as(f, i, size_of(i), 1, true, false, &e, &created) == 0)
			close_entry(f, &e);
	} else if (put(f, i, size_of(i), 1, &e) == 0) {
		close_entry(f, &e);
	}
}

static struct cst_index *replay_bytes(struct fixture *f, const char *log, size_t len, size_t piece)
{
	struct cst_index *x = index_new(&f->config);
	struct replay r;
	replay_init(&r, x);
	for (size_t i = 0; i < len; i += piece)
		replay_feed(&r, log + i, cst_min(piece, len - i));
	replay_finish(&r);
	cst_buf_fini(&r.rest);
	index_check(x);
	return x;
}

static void compare(struct cst_index *x, const struct state *s)
{
	for (unsigned i = 0; i < OBJECTS; i++) {
		struct object o = object(i, size_of(i), 1);
		uint32_t n = table_find(&x->table, o.id.name, o.id.version);
		assert_int_equal(n != NIL, s->there[i]);
		if (n) {
			assert_int_equal(!!(at(x, n)->flags & F_COMPLETE), s->complete[i]);
			assert_int_equal(!!(at(x, n)->flags & F_PINNED), s->pinned[i]);
		}
	}
}

static size_t read_log(struct fixture *f, char **log)
{
	struct stat st;
	CST_AUTO_CLOSE int fd = openat(f->dir, "index.log", O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	*log = cst_xmalloc((size_t)st.st_size);
	assert_int_equal(read(fd, *log, (size_t)st.st_size), st.st_size);
	return (size_t)st.st_size;
}

#define STEPS 300u
static void test_log_cut_anywhere(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_FREE struct state *states = cst_xcalloc(STEPS, sizeof(*states));
	CST_AUTO_FREE char *log = NULL;
	pthread_mutex_lock(&f->x->lock);
	f->x->rewrite_least = UINT32_MAX;
	pthread_mutex_unlock(&f->x->lock);
	for (unsigned i = 0; i < STEPS; i++) {
		some_operation(f, i);
		/* What the keeper does meanwhile (slabs that are empty) has its own records: let it. */
		pthread_mutex_lock(&f->x->lock);
		take_state(f, &states[i]);
		pthread_mutex_unlock(&f->x->lock);
	}
	assert_int_equal(log_flush(f->x), 0);
	size_t len = read_log(f, &log);
	assert_true(len >= states[STEPS - 1].records * RECORD_SIZE);
	for (size_t cut = 0, at_state = 0; cut <= len;
	     cut += cut % RECORD_SIZE == 0 || cut % RECORD_SIZE > 60 ? 1 : 13) {
		struct cst_index *x = replay_bytes(f, log, cut, 1 + cut % 100);
		while (at_state < STEPS && states[at_state].records < cut / RECORD_SIZE)
			at_state++;
		if (at_state < STEPS && states[at_state].records == cut / RECORD_SIZE)
			compare(x, &states[at_state]);
		index_delete(x);
	}
}

/* A record in the middle that was on the disk is bad: later ones may say that something went, so nothing is taken for complete. */
static void test_damage_is_not_a_torn_tail(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_FREE char *log = NULL;
	struct cst_index_entry e = fill(f, 1, LARGE, 0);
	assert_int_equal(cst_index_complete(f->x, e.name, e.version), 0);
	close_entry(f, &e);
	e = fill(f, 3, LARGE, 0);
	assert_int_equal(log_sync(f->x), 0);
	close_entry(f, &e);
	e = fill(f, 5, LARGE, 0);
	close_entry(f, &e);
	assert_int_equal(log_flush(f->x), 0);
	size_t len = read_log(f, &log);
	assert_int_equal(len, 6 * RECORD_SIZE); /* header, session, entry, complete, entry, entry */

	struct cst_index *x = replay_bytes(f, log, len, len);
	assert_int_equal(x->found, 3);
	assert_true(at(x, 1)->flags & F_COMPLETE);
	index_delete(x);
	log[4 * RECORD_SIZE + 20] ^= 1; /* was on the disk when the last one was written */
	x = replay_bytes(f, log, len, len);
	assert_int_equal(x->found, 1);
	assert_false(at(x, 1)->flags & F_COMPLETE);
	index_delete(x);
	log[4 * RECORD_SIZE + 20] ^= 1;
	log[5 * RECORD_SIZE + 20] ^= 1; /* may never have been written */
	x = replay_bytes(f, log, len, len);
	assert_int_equal(x->found, 2);
	assert_true(at(x, 1)->flags & F_COMPLETE);
	index_delete(x);
}

/* As a killed process leaves it; *synced: bytes of the log that a power cut leaves. */
static void kill_index(struct fixture *f, uint64_t *synced)
{
	struct cst_index *x = f->x;
	pthread_mutex_lock(&x->log_io);
	pthread_mutex_lock(&x->lock);
	x->rc = -EIO; /* nothing is written or removed any more */
	*synced = x->log_void ? 0 : x->log.synced * RECORD_SIZE;
	pthread_mutex_unlock(&x->lock);
	pthread_mutex_unlock(&x->log_io);
	cst_index_close(cst_steal(f->x));
}

static bool is_leaving(struct fixture *f)
{
	pthread_mutex_lock(&f->x->lock);
	bool some = f->x->leaving || f->x->reaping;
	pthread_mutex_unlock(&f->x->lock);
	return some;
}

/* What follows the bad record is gone for good, also when the log goes on over it. */
static void test_tail_is_cut(void **state)
{
	struct fixture *f = *state;
	uint64_t synced;
	struct cst_index_entry e = fill(f, 1, LARGE, 0);
	close_entry(f, &e);
	assert_int_equal(log_sync(f->x), 0);
	uint64_t bad = f->x->log.records;
	for (unsigned i = 0; i < 31; i++)
		assert_int_equal(cst_index_pin(f->x, e.name, e.version, i % 2 == 0), 0);
	assert_int_equal(log_flush(f->x), 0);
	kill_index(f, &synced);
	CST_AUTO_CLOSE int log = openat(f->dir, "index.log", O_RDWR | O_CLOEXEC);
	assert_int_equal(pwrite(log, "\xff", 1, (off_t)(bad * RECORD_SIZE + 20)), 1);
	for (unsigned i = 0; i < 2; i++) {
		fixture_open(f);
		assert_int_equal(stats_of(f).entries, 1);
		assert_int_equal(stats_of(f).pinned, 0);
		kill_index(f, &synced);
	}
}

/* When the files of a complete entry are gone, its removal is on the disk. */
static void test_removal_is_synced_first(void **state)
{
	struct fixture *f = *state;
	for (unsigned i = 0; i < 5; i++) {
		struct cst_index_entry e = fill(f, 1, LARGE, 0);
		assert_int_equal(cst_index_complete(f->x, e.name, e.version), 0);
		close_entry(f, &e);
		assert_int_equal(cst_index_drop(f->x, e.name, e.version), 0);
		pthread_mutex_lock(&f->x->lock);
		uint64_t records = f->x->log.records;
		pthread_mutex_unlock(&f->x->lock);
		eventually(!file_exists(f, &e));
		pthread_mutex_lock(&f->x->lock);
		uint64_t synced = f->x->log.synced;
		pthread_mutex_unlock(&f->x->lock);
		assert_true(synced >= records);
		eventually(!is_leaving(f));
	}
}

/* ---- random work, kills, power cuts ---- */

struct model {
	bool dropped_last[OBJECTS]; /* the last that was done with it */
	unsigned version[OBJECTS];
	uint64_t random;
};

static unsigned dice(struct model *m, unsigned sides)
{
	m->random = m->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (unsigned)(m->random >> 33) % sides;
}

static void write_blocks(struct fixture *f, struct model *m, const struct cst_cache_identity *id, unsigned i,
			 struct cst_index_entry *e, bool all)
{
	static char block[CST_CACHE_BLOCK];
	struct cst_extent x;
	uint8_t there[1] = {0};
	uint64_t blocks = cst_extent_blocks(id->size);
	if (cst_extent_open(f->dir, id, true, &x) < 0)
		return;
	assert_int_equal(cst_extent_present(&x, 0, blocks, there), 0);
	for (uint64_t b = 0; b < blocks; b++) {
		size_t len = cst_min(id->size - b * CST_CACHE_BLOCK, (uint64_t)CST_CACHE_BLOCK);
		if (there[0] >> b & 1 || (!all && dice(m, 2)))
			continue;
		if (cst_index_charge(f->x, e->name, e->version, (int64_t)len) < 0) {
			all = false;
			continue;
		}
		content(block, len, i, m->version[i], b);
		struct iovec v = {block, len};
		assert_int_equal(cst_extent_write(&x, b, &v, 1), 0);
	}
	if (all && cst_extent_sync(&x) == 0)
		assert_int_equal(cst_index_complete(f->x, e->name, e->version), 0);
	cst_extent_close(&x);
}

static void step_large(struct fixture *f, struct model *m, unsigned i)
{
	char etag[16];
	struct object o = object(i, size_of(i), m->version[i]);
	struct cst_index_entry e;
	bool created;
	int rc = cst_index_entry_open(f->x, full_id(&o, etag, m->version[i]), true, dice(m, 20) == 0, &e, &created);
	if (rc < 0) {
		assert_true(rc == -EAGAIN || rc == -ENOSPC);
		return;
	}
	if (!e.complete)
		write_blocks(f, m, &o.id, i, &e, dice(m, 3) == 0);
	if (e.pinned && dice(m, 2))
		assert_int_equal(cst_index_pin(f->x, e.name, e.version, false), 0);
	close_entry(f, &e);
	m->dropped_last[i] = false;
}

static void step_small(struct fixture *f, struct model *m, unsigned i)
{
	char etag[16];
	static char bytes[CST_SLOT_MAX];
	struct object o = object(i, size_of(i), m->version[i]);
	struct cst_index_entry e;
	int rc = cst_index_slot_reserve(f->x, full_id(&o, etag, m->version[i]), dice(m, 20) == 0, &e);
	if (rc < 0) {
		assert_true(rc == -EAGAIN || rc == -ENOSPC || rc == -EEXIST);
		return;
	}
	content(bytes, o.id.size, i, m->version[i], 0);
	struct iovec v = {bytes, o.id.size};
	CST_AUTO_CLOSE int slab = cst_slab_open(f->dir, e.slot.slab, false, 0);
	assert_true(slab >= 0);
	assert_int_equal(cst_slot_write(slab, &e.slot, &o.id, &v, 1), 0);
	bool written = dice(m, 10) != 0;
	assert_int_equal(cst_index_slot_commit(f->x, &e, written), 0);
	if (!written)
		return;
	if (e.pinned && dice(m, 2))
		assert_int_equal(cst_index_pin(f->x, e.name, e.version, false), 0);
	close_entry(f, &e);
	m->dropped_last[i] = false;
}

static void step(struct fixture *f, struct model *m)
{
	unsigned i = dice(m, OBJECTS), what = dice(m, 10);
	if (what == 0) {
		struct object o = object(i, size_of(i), m->version[i]);
		int rc = cst_index_drop(f->x, o.id.name, o.id.version);
		assert_true(rc == 0 || rc == -ENOENT);
		m->dropped_last[i] = true;
	} else if (what == 1) {
		m->version[i] = 1 + dice(m, 3);
	} else if (i % 2) {
		step_large(f, m, i);
	} else {
		step_small(f, m, i);
	}
}

/* Every entry that is found holds the right bytes or is refused by the checks of its file; a complete one is right. */
static void verify_entry(struct fixture *f, unsigned i, unsigned version)
{
	static char got[CST_SLOT_MAX], want[CST_SLOT_MAX];
	char etag[16];
	struct object o = object(i, size_of(i), version);
	struct cst_index_entry e;
	bool created;
	int rc = cst_index_entry_open(f->x, full_id(&o, etag, version), false, false, &e, &created);
	if (rc < 0) {
		assert_true(rc == -ENOENT || rc == -EAGAIN);
		return;
	}
	if (e.kind == CST_ENTRY_SLOT) {
		struct iovec v = {got, o.id.size};
		CST_AUTO_CLOSE int slab = cst_slab_open(f->dir, e.slot.slab, false, 0);
		rc = slab < 0 ? slab : cst_slot_read(slab, &e.slot, &o.id, &v, 1, false);
		content(want, o.id.size, i, version, 0);
		if (rc == 0)
			assert_memory_equal(got, want, o.id.size);
		else
			assert_int_equal(cst_index_drop(f->x, e.name, e.version), 0);
	} else {
		struct cst_extent x;
		uint64_t bad;
		rc = cst_extent_open(f->dir, &o.id, false, &x);
		assert_true(rc == 0 || !e.complete);
		for (uint64_t b = 0; rc == 0 && e.complete && b < cst_extent_blocks(o.id.size); b++) {
			size_t len = cst_min(o.id.size - b * CST_CACHE_BLOCK, (uint64_t)CST_CACHE_BLOCK);
			struct iovec v = {got, len};
			assert_int_equal(cst_extent_read(&x, b, &v, 1, false, &bad), 0);
			content(want, len, i, version, b);
			assert_memory_equal(got, want, len);
		}
		if (rc == 0)
			cst_extent_close(&x);
	}
	close_entry(f, &e);
}

static void cut_power(struct fixture *f, struct model *m, uint64_t synced)
{
	struct stat st;
	CST_AUTO_CLOSE int log = openat(f->dir, "index.log", O_RDWR | O_CLOEXEC);
	assert_true(log >= 0 && fstat(log, &st) == 0);
	uint64_t size = (uint64_t)st.st_size;
	assert_true(synced <= size);
	if (size > synced)
		assert_int_equal(ftruncate(log, (off_t)(synced + dice(m, (unsigned)(size - synced) + 1))), 0);
	if (dice(m, 3) == 0) { /* a block that was allocated and not written */
		char zeros[100] = {0};
		assert_int_equal(fstat(log, &st), 0);
		assert_int_equal(pwrite(log, zeros, sizeof(zeros), st.st_size), sizeof(zeros));
	}
}

static void random_life(struct fixture *f, struct model *m, unsigned lives, unsigned steps)
{
	uint64_t synced;
	for (unsigned life = 0; life < lives; life++) {
		for (unsigned i = dice(m, steps); i > 0; i--)
			step(f, m);
		index_check(f->x);
		unsigned end = dice(m, 3);
		struct cst_index_stats before = stats_of(f);
		if (end == 0) {
			fixture_close(f);
		} else {
			kill_index(f, &synced);
			if (end == 2)
				cut_power(f, m, synced);
		}
		fixture_open(f);
		pthread_mutex_lock(&f->x->lock);
		f->x->rewrite_least = 40;
		pthread_mutex_unlock(&f->x->lock);
		assert_true(end != 0 || stats_of(f).entries + 40 >= before.entries);
		for (unsigned i = 0; i < OBJECTS; i++)
			for (unsigned v = 1; v <= 3; v++)
				verify_entry(f, i, v);
	}
}

static void test_random_lives(void **state)
{
	struct fixture *f = *state;
	struct model m = {.random = 20};
	for (unsigned i = 0; i < OBJECTS; i++)
		m.version[i] = 1;
	random_life(f, &m, 60, 120);
	/* In the end, all that takes room is known: nothing lies about. */
	eventually(searched(f));
	index_check(f->x);
}

/* A real process is really killed, again and again. */
static void test_killed(void **state)
{
	struct fixture *f = *state;
	struct model m = {.random = 7};
	int status;
	fixture_close(f);
	for (unsigned i = 0; i < OBJECTS; i++)
		m.version[i] = 1;
	for (unsigned life = 0; life < 12; life++) {
		pid_t child = fork();
		if (child == 0) {
			fixture_open(f);
			for (;;)
				step(f, &m);
		}
		assert_true(child > 0);
		cst_sleep((20 + dice(&m, 120)) * CST_NS_PER_MS);
		assert_int_equal(kill(child, SIGKILL), 0);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status)); /* and did not end before: there an assertion failed */
		fixture_open(f);
		for (unsigned i = 0; i < OBJECTS; i++)
			for (unsigned v = 1; v <= 3; v++)
				verify_entry(f, i, v);
		fixture_close(f);
	}
	fixture_open(f);
	eventually(searched(f));
}

/* ---- what an unclean stop leaves lying about ---- */

static void test_unlogged_files(void **state)
{
	struct fixture *f = *state;
	struct cst_extent x;
	char etag[16], block[64];
	struct stat st;
	uint64_t synced;
	struct cst_index_entry e = fill(f, 1, LARGE, 128 * KIB);
	close_entry(f, &e);
	assert_int_equal(log_sync(f->x), 0);
	kill_index(f, &synced);
	/* One whole, with a block; a map without data; a slab; files of others. */
	struct object whole = object(3, LARGE, 1), half = object(5, LARGE, 1);
	static char bytes[CST_CACHE_BLOCK];
	struct iovec v = {bytes, sizeof(bytes)};
	assert_int_equal(cst_extent_create(f->dir, full_id(&whole, etag, 1), &x), 0);
	assert_int_equal(cst_extent_write(&x, 2, &v, 1), 0);
	cst_extent_close(&x);
	assert_int_equal(cst_extent_create(f->dir, full_id(&half, etag, 1), &x), 0);
	cst_extent_close(&x);
	cst_extent_name(half.id.name, half.id.version, ".data", block);
	assert_int_equal(unlinkat(f->dir, block, 0), 0);
	int slab = cst_slab_open(f->dir, 77, true, MIB);
	assert_true(slab >= 0);
	close(slab);
	int own = openat(f->dir, "slabs/README", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(own >= 0);
	close(own);

	fixture_open(f);
	eventually(searched(f));
	assert_int_equal(stats_of(f).entries, 2);
	bool created;
	assert_int_equal(open_as(f, 3, LARGE, 1, false, false, &e, &created), 0);
	assert_int_equal(e.cached, CST_CACHE_BLOCK);
	assert_false(e.complete);
	close_entry(f, &e);
	/* What was charged and never written is not counted. */
	assert_int_equal(stats_of(f).used, 2 * 8192 + CST_CACHE_BLOCK);
	cst_extent_name(half.id.name, half.id.version, ".map", block);
	assert_true(fstatat(f->dir, block, &st, 0) < 0);
	assert_true(fstatat(f->dir, "slabs/0000004d.slab", &st, 0) < 0);
	assert_true(fstatat(f->dir, "slabs/README", &st, 0) == 0);
}

/* Its file was made and the record lost: what is there is taken as it is. */
static void test_unlogged_is_opened(void **state)
{
	struct fixture *f = *state;
	struct cst_extent x;
	char etag[16];
	struct cst_index_entry e;
	static char bytes[CST_CACHE_BLOCK];
	struct iovec v = {bytes, sizeof(bytes)};
	bool created;
	struct object o = object(3, LARGE, 1);
	assert_int_equal(cst_extent_create(f->dir, full_id(&o, etag, 1), &x), 0);
	assert_int_equal(cst_extent_write(&x, 0, &v, 1), 0);
	cst_extent_close(&x);
	assert_int_equal(open_as(f, 3, LARGE, 1, true, false, &e, &created), 0);
	assert_false(created);
	assert_int_equal(e.cached, CST_CACHE_BLOCK);
	close_entry(f, &e);
}

/* Entries whose files are gone or not what they were. */
static void test_lost_files(void **state)
{
	struct fixture *f = *state;
	char path[CST_FILE_NAME_MAX];
	struct cst_index_entry e[4], slot, found;
	uint64_t synced;
	bool created;
	for (unsigned i = 0; i < 4; i++) {
		e[i] = fill(f, i, LARGE, LARGE);
		if (i < 3)
			assert_int_equal(cst_index_complete(f->x, e[i].name, e[i].version), 0);
		close_entry(f, &e[i]);
	}
	assert_int_equal(put(f, 9, 1000, 1, &slot), 0);
	close_entry(f, &slot);
	assert_int_equal(log_sync(f->x), 0);
	kill_index(f, &synced);
	cst_extent_name(e[0].name, e[0].version, ".data", path);
	assert_int_equal(unlinkat(f->dir, path, 0), 0);
	cst_extent_name(e[1].name, e[1].version, ".data", path);
	CST_AUTO_CLOSE int data = openat(f->dir, path, O_RDWR | O_CLOEXEC);
	assert_int_equal(ftruncate(data, LARGE - 1), 0);
	assert_int_equal(cst_slab_unlink(f->dir, slot.slot.slab), 0);
	fixture_open(f);
	/* At the first open, without waiting for the search; -ENOENT: the search was quicker. */
	int rc = open_as(f, 0, LARGE, 1, false, false, &found, &created);
	assert_true(rc == -EAGAIN || rc == -ENOENT);
	/* Complete, says the log, but its map has no blocks. */
	assert_int_equal(open_as(f, 2, LARGE, 1, false, false, &found, &created), 0);
	assert_false(found.complete);
	assert_int_equal(found.cached, 0);
	close_entry(f, &found);
	eventually(searched(f));
	eventually(stats_of(f).entries == 2);
	assert_int_equal(stats_of(f).lost, 3);
	eventually(stats_of(f).used == 2 * 8192);
}

/* The log was torn at its header: everything starts anew, files are taken in. */
static void test_foreign_log(void **state)
{
	struct fixture *f = *state;
	char junk[5000];
	struct cst_index_entry e = fill(f, 1, LARGE, 0);
	close_entry(f, &e);
	fixture_close(f);
	memset(junk, 'x', sizeof(junk));
	CST_AUTO_CLOSE int log = openat(f->dir, "index.log", O_WRONLY | O_TRUNC | O_CLOEXEC);
	assert_int_equal(write(log, junk, sizeof(junk)), sizeof(junk));
	fixture_open(f);
	eventually(stats_of(f).entries == 1);
	fixture_close(f);
	fixture_open(f);
	assert_int_equal(stats_of(f).entries, 1);
}

/* Work goes on while the log is rewritten, many times over. */
static void test_rewriting(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	struct cst_index_entry e;
	for (unsigned i = 0; i < 4000; i++) {
		unsigned n = i % 100;
		if (put(f, n, 2000, 1, &e) == 0) {
			close_entry(f, &e);
		} else {
			struct object o = object(n, 2000, 1);
			assert_int_equal(cst_index_drop(f->x, o.id.name, o.id.version), 0);
		}
		if (i % 500 == 0)
			cst_sleep(20 * CST_NS_PER_MS);
	}
	uint64_t there = stats_of(f).entries;
	eventually(fstatat(f->dir, "index.log", &st, 0) == 0 && st.st_size < 500 * (off_t)RECORD_SIZE);
	fixture_close(f);
	fixture_open(f);
	assert_int_equal(stats_of(f).entries, there);
	for (unsigned n = 0; n < 100; n++)
		if (is_there(f, n, 2000, 1))
			there--;
	assert_int_equal(there, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_record_format),
		cmocka_unit_test_setup_teardown(test_log_cut_anywhere, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_damage_is_not_a_torn_tail, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_tail_is_cut, no_rewriting, fixture_free),
		cmocka_unit_test_setup_teardown(test_removal_is_synced_first, no_rewriting, fixture_free),
		cmocka_unit_test_setup_teardown(test_random_lives, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_killed, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_unlogged_files, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_unlogged_is_opened, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_lost_files, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_foreign_log, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_rewriting, setup, fixture_free),
	};
	return cmocka_run_group_tests_name("cache/index_crash", tests, NULL, NULL);
}
