/* Prefetching: bytes as they arrive, memory that is short, fairness, limits, look-ahead. */
#include "double.h"

#include <limits.h>
#include <unistd.h>

/* ---- progress ---- */

static void bytes_are_readable_as_they_arrive(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64 * MIB);
	struct cst_fetch_object *o = object(f, 64 * MIB);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	struct reader a, b, c;
	start_read(&a, s, 0, 4096);
	start_read(&b, s, BLOCK, 2 * BLOCK);
	assert_int_equal(store.total, 1);
	assert_int_equal(op_at(0)->get.length, MIB);
	progress(op_at(0), BLOCK - 1);
	assert_int_equal(a.calls, 0);
	progress(op_at(0), BLOCK);
	assert_int_equal(a.rc, 4096);
	assert_int_equal(b.calls, 0);
	progress(op_at(0), 2 * BLOCK + 5);
	assert_int_equal(b.calls, 0);
	progress(op_at(0), 5 * BLOCK);
	assert_int_equal(b.rc, 2 * BLOCK);
	start_read(&c, s, 3 * BLOCK, 2 * BLOCK); /* already there */
	assert_int_equal(c.rc, 2 * BLOCK);
	struct reader *all[] = {&a, &b, &c};
	for (size_t i = 0; i < CST_ARRAY_LEN(all); i++)
		cst_fetch_read_release(&all[i]->read);
	answer_all();
	end(f, o, s);
}

/* What came before a failure is kept; the rest fails. */
static void a_get_fails_half_way(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64 * MIB);
	struct cst_fetch_object *o = object(f, 64 * MIB);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	struct reader a, b;
	start_read(&a, s, 0, BLOCK);
	start_read(&b, s, BLOCK, MIB - BLOCK);
	progress(op_at(0), 3 * BLOCK);
	assert_int_equal(a.rc, BLOCK);
	answer(-EIO);
	assert_int_equal(b.rc, -EIO);
	cst_fetch_read_release(&a.read);
	cst_fetch_read_release(&b.read);
	answer_all();
	uint64_t misses = stats_of(f).misses;
	read_now(s, BLOCK, 2 * BLOCK);
	assert_int_equal(stats_of(f).misses, misses);
	read_now(s, 3 * BLOCK, BLOCK);
	assert_int_equal(stats_of(f).misses, misses + 1);
	end(f, o, s);
}

/* Another version's bytes are not shown, whatever the store says of its condition. */
static void progress_of_another_version(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64 * MIB);
	struct cst_fetch_object *o = object(f, 64 * MIB);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	struct reader a;
	start_read(&a, s, 0, 4096);
	strcpy(store.etag, "v2");
	progress(op_at(0), 4 * BLOCK);
	assert_int_equal(a.calls, 0);
	answer(0);
	assert_int_equal(a.rc, -ESTALE);
	cst_fetch_read_release(&a.read);
	end(f, o, s);
}

/* Blocks that are readable while their GET goes on stay where they are, even unread and with memory short. */
static void what_arrives_stays(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64 * MIB);
	struct cst_fetch_object *o = object(f, 1024ull * MIB), *other = object(f, 1024ull * MIB);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o), *t = cst_fetch_stream_new(other);
	struct reader a, c;
	start_read(&a, s, 0, 4096);
	struct cst_object_op *op = op_at(0);
	progress(op, 7 * BLOCK);
	cst_fetch_read_release(&a.read);
	for (size_t i = 0; i < 200; i++) {
		struct reader r;
		start_read(&r, t, i * 5 % 1000 * MIB, MIB);
		while (op_at(1))
			answer_op(op_at(1), 0);
		assert_int_equal(r.rc, MIB);
		cst_fetch_read_release(&r.read);
	}
	start_read(&c, s, 0, 7 * BLOCK); /* compares */
	assert_int_equal(c.rc, 7 * BLOCK);
	cst_fetch_read_release(&c.read);
	answer_all();
	cst_fetch_stream_free(t);
	cst_fetch_object_unref(other);
	end(f, o, s);
}

/* ---- nothing twice ---- */

/* Streams that read in turn in too little memory, in pieces that end inside blocks: every byte is fetched once. */
static void short_memory_fetches_nothing_twice(void **state)
{
	(void)state;
	enum { STREAMS = 12, PIECE = 300 << 10 };
	const uint64_t size = 40ull * MIB;
	struct cst_fetch *f = make(64 * MIB);
	struct cst_fetch_object *o[STREAMS];
	struct cst_fetch_stream *s[STREAMS];
	for (unsigned i = 0; i < STREAMS; i++) {
		o[i] = object(f, size);
		s[i] = cst_fetch_stream_new(o[i]);
	}
	for (uint64_t at = 0; at < size; at += PIECE)
		for (unsigned i = 0; i < STREAMS; i++)
			read_now(s[i], at, (uint32_t)cst_min(size - at, (uint64_t)PIECE));
	assert_int_equal(store.bytes, STREAMS * size);
	assert_true(stats_of(f).memory_peak <= 64 * MIB);
	for (unsigned i = 0; i < STREAMS; i++) {
		cst_fetch_stream_free(s[i]);
		cst_fetch_object_unref(o[i]);
	}
	answer_all();
	cst_fetch_free(f);
}

/* READs that come in an order that threads make of them, some far too late: every byte is fetched once. */
static void late_reads_fetch_nothing_twice(void **state)
{
	(void)state;
	const unsigned mibs = 200;
	for (unsigned late = 2; late <= 20; late += 3) {
		struct cst_fetch *f = make(64 * MIB);
		struct cst_fetch_object *o = object(f, (uint64_t)mibs * MIB);
		struct cst_fetch_stream *s = cst_fetch_stream_new(o);
		unsigned held[2] = {UINT_MAX, UINT_MAX}, random = late;
		for (unsigned i = 0; i < mibs; i++) {
			random = random * 1103515245 + 12345;
			unsigned k = random >> 30;
			if (k < 2 && held[k] == UINT_MAX && i + late < mibs && i > 16) {
				held[k] = i; /* its thread is elsewhere for a while */
				continue;
			}
			read_now(s, (uint64_t)i * MIB, MIB);
			for (k = 0; k < 2; k++)
				if (held[k] != UINT_MAX && i - held[k] >= late - k) {
					read_now(s, (uint64_t)held[k] * MIB, MIB);
					held[k] = UINT_MAX;
				}
		}
		if (store.bytes != (uint64_t)mibs * MIB)
			fail_msg("%u late: %llu bytes of %u MiB", late, (unsigned long long)store.bytes, mibs);
		end(f, o, s);
	}
}

/* A model out of a mapping: the kernel asks for the start of the next tensor before it reads on in this one. */
static void the_next_tensor_first(void **state)
{
	(void)state;
	const unsigned tensor = 24, tensors = 8;
	struct cst_fetch *f = make_with((struct cst_fetch_config){.memory = 256 * MIB, .keep_read = 32 * MIB});
	struct cst_fetch_object *o = object_named(f, "m.safetensors", (uint64_t)tensor * tensors * MIB);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	for (unsigned t = 0; t < tensors; t++) {
		if (t == 0)
			read_now(s, 0, MIB);
		if (t + 1 < tensors)
			read_now(s, (uint64_t)(t + 1) * tensor * MIB, MIB);
		for (unsigned i = 1; i < tensor; i++)
			read_now(s, ((uint64_t)t * tensor + i) * MIB, MIB);
	}
	assert_int_equal(store.bytes, (uint64_t)tensor * tensors * MIB);
	end(f, o, s);
}

/* What has a model's name, but is read in small pieces anywhere, is soon treated so. Who reads on gets a window still. */
static void a_model_by_name_alone(void **state)
{
	(void)state;
	enum { READS = 100, PIECE = 64 * KIB };
	struct cst_fetch *f = make_with((struct cst_fetch_config){.memory = 256 * MIB});
	struct cst_fetch_object *o = object_named(f, "tokens.bin", 8192ull * MIB);
	for (unsigned handle = 0; handle < 4; handle++) {
		struct cst_fetch_stream *s = cst_fetch_stream_new(o);
		for (uint64_t i = 0; i < READS / 4; i++)
			read_now(s, (handle * 7919 + i * 104729) % 8000 * MIB, PIECE);
		cst_fetch_stream_free(s);
	}
	assert_in_range(store.bytes, READS * BLOCK, READS * BLOCK + 4ull * (16 + 2) * MIB);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	for (uint64_t i = 0; i < 8; i++)
		read_now(s, 8100ull * MIB + i * MIB, MIB);
	assert_true(stats_of(f).prefetched_ranges >= 4 * 4);
	end(f, o, s);
}

/* A handle that reads a little at a time comes back for the rest of a block, however much others read meanwhile. */
static void the_rest_of_a_block_stays(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64 * MIB);
	struct cst_fetch_object *o = object(f, 1024ull * MIB), *other = object(f, 1024ull * MIB);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o), *t = cst_fetch_stream_new(other);
	read_now(s, 0, 64 * KIB);
	for (uint64_t i = 0; i < 100; i++)
		read_now(t, i * 7 % 100 * 10 * MIB, MIB);
	uint64_t before = store.bytes;
	read_now(s, 64 * KIB, 960 * KIB);
	assert_int_equal(store.bytes, before);
	cst_fetch_stream_free(t);
	cst_fetch_object_unref(other);
	end(f, o, s);
}

/* Readers that go on together have even shares of the memory ahead of them, whoever came first. */
static void windows_share_the_memory(void **state)
{
	(void)state;
	enum { STREAMS = 8 };
	struct cst_fetch *f = make(256 * MIB);
	struct cst_fetch_object *o[STREAMS];
	struct cst_fetch_stream *s[STREAMS];
	uint64_t asked[STREAMS] = {0};
	for (unsigned i = 0; i < STREAMS; i++) {
		o[i] = object(f, 1024ull * MIB);
		s[i] = cst_fetch_stream_new(o[i]);
	}
	for (uint64_t at = 0; at < 60 * MIB; at += MIB)
		for (unsigned i = 0; i < STREAMS; i++) {
			uint64_t before = store.bytes;
			read_now(s[i], at, MIB);
			asked[i] += store.bytes - before;
			assert_true(asked[i] <= at + MIB + 192 / STREAMS * MIB || at < 2 * MIB);
			assert_true(at < 40 * MIB || asked[i] >= at + 12 * MIB);
		}
	for (unsigned i = 0; i < STREAMS; i++) {
		cst_fetch_stream_free(s[i]);
		cst_fetch_object_unref(o[i]);
	}
	answer_all();
	cst_fetch_free(f);
}

/* 64 READs of other objects, with a stream's window in memory; returns how much of it there was. */
static uint64_t crowd(struct cst_fetch *f, struct cst_fetch_stream *s, struct cst_fetch_object **other,
		      struct cst_fetch_stream **t, struct reader *r)
{
	for (uint64_t at = 0; at < 24 * MIB; at += MIB)
		read_now(s, at, MIB);
	answer_all();
	uint64_t ahead = store.bytes - 24 * MIB;
	assert_true(ahead >= 16 * MIB);
	for (size_t i = 0; i < 64; i++) {
		other[i] = object(f, 1024ull * MIB);
		t[i] = cst_fetch_stream_new(other[i]);
		start_read(&r[i], t[i], 100 * MIB, MIB);
	}
	return ahead;
}

/* A READ of another object doesn't take what a stream is about to read as long as it can have anything else. */
static void demand_waits_for_other_memory_first(void **state)
{
	(void)state;
	struct cst_fetch *f =
		make_with((struct cst_fetch_config){.memory = 64 * MIB, .keep_for_demand = INT64_MAX / 2});
	struct cst_fetch_object *o = object(f, 1024ull * MIB), *other[64];
	struct cst_fetch_stream *s = cst_fetch_stream_new(o), *t[64];
	static struct reader r[64];
	uint64_t ahead = crowd(f, s, other, t, r);
	assert_in_range(store.count, 64 - ahead / MIB - 1, 64 - ahead / MIB);
	for (size_t i = 0; i < 64; i++) {
		answer_all();
		assert_int_equal(r[i].rc, MIB);
		cst_fetch_read_release(&r[i].read);
		cst_fetch_stream_free(t[i]);
		cst_fetch_object_unref(other[i]);
	}
	uint64_t before = stats_of(f).misses;
	read_now(s, 24 * MIB, MIB);
	assert_int_equal(stats_of(f).misses, before);
	end(f, o, s);
}

/* When its reader doesn't come and nothing else happens, time frees it. */
static void demand_gets_what_nobody_comes_for(void **state)
{
	(void)state;
	struct cst_fetch *f =
		make_with((struct cst_fetch_config){.memory = 64 * MIB, .keep_for_demand = 300 * INT64_C(1000000)});
	struct cst_fetch_object *o = object(f, 1024ull * MIB), *other[64];
	struct cst_fetch_stream *s = cst_fetch_stream_new(o), *t[64];
	static struct reader r[64];
	crowd(f, s, other, t, r);
	while (stats_of(f).reads_waiting > 1)
		usleep(1000); /* no answer, no release */
	for (size_t i = 0; i < 64; i++) {
		answer_all();
		assert_int_equal(r[i].rc, MIB);
		cst_fetch_read_release(&r[i].read);
		cst_fetch_stream_free(t[i]);
		cst_fetch_object_unref(other[i]);
	}
	end(f, o, s);
}

/* ---- fairness ---- */

/* A store that answers one GET at a time: readers that come late get their share of it and of the memory. */
static void nobody_is_left_behind(void **state)
{
	(void)state;
	enum { READERS = 64 };
	struct cst_fetch *f = make(64ull * MIB);
	struct cst_fetch_object *o[READERS];
	struct cst_fetch_stream *s[READERS];
	static struct reader r[READERS];
	static uint64_t at[READERS];
	for (unsigned i = 0; i < READERS; i++) {
		o[i] = object(f, 1024ull * MIB);
		s[i] = cst_fetch_stream_new(o[i]);
		at[i] = 0;
		if (i == 0) /* the first has had the store for itself, and has a large window */
			for (uint64_t x = 0; x < 24 * MIB; x += MIB)
				read_now(s[0], x, MIB);
	}
	start_read(&r[0], s[0], 24 * MIB, MIB);
	for (unsigned i = 1; i < READERS; i++)
		start_read(&r[i], s[i], 0, MIB);
	uint64_t total = 0;
	while (total < 64ull * READERS) {
		bool any = false;
		for (unsigned i = 0; i < READERS; i++)
			if (r[i].calls) {
				assert_int_equal(r[i].rc, MIB);
				cst_fetch_read_release(&r[i].read);
				at[i]++;
				total++;
				any = true;
				start_read(&r[i], s[i], (i ? 0 : 24 * MIB) + at[i] * MIB, MIB);
			}
		if (!any)
			answer(0);
	}
	for (unsigned i = 0; i < READERS; i++)
		assert_in_range(at[i], 16, 256);
	for (unsigned i = 0; i < READERS; i++)
		cst_fetch_read_cancel(&r[i].read);
	for (unsigned i = 0; i < READERS; i++) {
		cst_fetch_read_release(&r[i].read);
		cst_fetch_stream_free(s[i]);
		cst_fetch_object_unref(o[i]);
	}
	answer_all();
	cst_fetch_free(f);
}

static void five_hundred_handles(void **state)
{
	(void)state;
	enum { HANDLES = 500 };
	struct cst_fetch *f = make(64 * MIB);
	static struct cst_fetch_object *o[HANDLES];
	static struct cst_fetch_stream *s[HANDLES];
	static struct reader r[HANDLES];
	static uint64_t done[HANDLES];
	for (unsigned i = 0; i < HANDLES; i++) {
		o[i] = object(f, 256ull * MIB);
		s[i] = cst_fetch_stream_new(o[i]);
		done[i] = 0;
		start_read(&r[i], s[i], 0, MIB);
	}
	unsigned over = 0;
	while (over < HANDLES) {
		for (unsigned i = 0; i < HANDLES; i++)
			if (r[i].calls) {
				assert_int_equal(r[i].rc, MIB);
				cst_fetch_read_release(&r[i].read);
				r[i].calls = 0;
				if (++done[i] < 4)
					start_read(&r[i], s[i], done[i] * MIB, MIB);
				else
					over++;
			}
		if (store.count)
			answer(0);
	}
	assert_true(stats_of(f).memory_peak <= 64 * MIB);
	for (unsigned i = 0; i < HANDLES; i++) {
		cst_fetch_stream_free(s[i]);
		cst_fetch_object_unref(o[i]);
	}
	answer_all();
	assert_int_equal(stats_of(f).memory_used, 0);
	cst_fetch_free(f);
}

/* ---- limits ---- */

static void a_streams_own_limit(void **state)
{
	(void)state;
	struct cst_fetch *f = make_with((struct cst_fetch_config){.memory = 512ull * MIB, .stream_parallel = 3});
	struct cst_fetch_object *o = object(f, 1024ull * MIB);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	for (uint64_t at = 0; at < 64 * MIB; at += MIB)
		read_now(s, at, MIB);
	struct reader r;
	start_read(&r, s, 64 * MIB, MIB);
	for (int i = 0; i < 50; i++) {
		assert_true(store.count <= 3);
		if (store.count)
			answer(0); /* its end brings the next one */
	}
	assert_int_equal(r.rc, MIB);
	cst_fetch_read_release(&r.read);
	end(f, o, s);
}

/* GETs that prefetch for all together; who was refused comes next when one has ended, without a READ. */
static void the_limit_of_all_goes_round(void **state)
{
	(void)state;
	enum { READERS = 6 };
	struct cst_fetch *f = make_with((struct cst_fetch_config){.memory = 512ull * MIB, .max_prefetch = 4});
	struct cst_fetch_object *o[READERS];
	struct cst_fetch_stream *s[READERS];
	static struct reader r[READERS];
	for (unsigned i = 0; i < READERS; i++) {
		char key[8];
		snprintf(key, sizeof(key), "k%u", i);
		o[i] = object_named(f, key, 1024ull * MIB);
		s[i] = cst_fetch_stream_new(o[i]);
		start_read(&r[i], s[i], 0, MIB);
	}
	for (unsigned i = 0; i < READERS; i++) {
		answer(0);
		cst_fetch_read_release(&r[i].read);
		start_read(&r[i], s[i], MIB, MIB);
	}
	unsigned asked[READERS] = {0};
	for (int n = 0; n < 30 && store.count; n++) {
		unsigned prefetching = 0;
		for (unsigned i = 0; op_at(i); i++)
			prefetching += op_at(i)->get.background;
		assert_true(prefetching <= 4);
		asked[op_at(0)->key[1] - '0']++;
		answer(0);
	}
	for (unsigned i = 0; i < READERS; i++) {
		assert_in_range(asked[i], 4, 6);
		cst_fetch_read_release(&r[i].read);
		cst_fetch_stream_free(s[i]);
		cst_fetch_object_unref(o[i]);
	}
	answer_all();
	cst_fetch_free(f);
}

/* Where the origin is rate limited, what was asked for ahead goes before other such GETs once a READ waits for it. */
static void what_is_waited_for_hurries(void **state)
{
	(void)state;
	for (unsigned limited = 0; limited < 2; limited++) {
		struct cst_fetch *f = make(64 * MIB);
		struct cst_fetch_object *o = object(f, 1024ull * MIB);
		struct cst_fetch_stream *s = cst_fetch_stream_new(o);
		store.limited = limited;
		read_now(s, 0, MIB);
		struct reader a, b;
		start_read(&a, s, MIB, MIB);
		start_read(&b, s, 2 * MIB + 5, 4096);
		assert_false(op_at(0)->get.background || op_at(0)->hurried);
		assert_true(op_at(1)->get.background && op_at(2)->get.background);
		assert_int_equal(op_at(1)->hurried, limited);
		assert_false(op_at(2)->hurried);
		answer_all();
		cst_fetch_read_release(&a.read);
		cst_fetch_read_release(&b.read);
		end(f, o, s);
	}
}

/* ---- look-ahead of small files ---- */

static void look_ahead(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64 * MIB);
	struct cst_fetch_object *o[40];
	for (unsigned i = 0; i < 40; i++) {
		o[i] = object(f, 100 * KIB);
		assert_true(cst_fetch_object_prefetch(o[i]));
		assert_false(cst_fetch_object_prefetch(o[i])); /* on its way */
	}
	assert_int_equal(store.total, 40);
	assert_int_equal(store.background, 40);
	answer_all();
	for (unsigned i = 0; i < 40; i++) {
		assert_false(cst_fetch_object_prefetch(o[i]));
		struct cst_fetch_stream *s = cst_fetch_stream_new(o[i]);
		read_now(s, 0, 100 * KIB);
		cst_fetch_stream_free(s);
		cst_fetch_object_unref(o[i]);
	}
	assert_int_equal(store.total, 40); /* one GET a file */
	struct cst_fetch_object *large = object(f, 3 * MIB), *empty = object(f, 0);
	assert_false(cst_fetch_object_prefetch(large));
	assert_false(cst_fetch_object_prefetch(empty));
	cst_fetch_object_unref(empty);
	end(f, large, NULL);
}

/* It has no more memory than other prefetching, and no more GETs than max_prefetch. */
static void look_ahead_is_bounded(void **state)
{
	(void)state;
	enum { FILES = 400 };
	struct cst_fetch *f = make(64 * MIB);
	static struct cst_fetch_object *o[FILES];
	unsigned made = 0, at_once = 0;
	for (unsigned i = 0; i < FILES; i++) {
		o[i] = object(f, 200 * KIB);
		made += cst_fetch_object_prefetch(o[i]);
		at_once = cst_max(at_once, store.count);
		if (i % 64 == 63)
			answer_all();
	}
	assert_int_equal(at_once, 64);
	assert_in_range(made, 180, 192); /* three quarters of 64 MiB, in pairs of blocks */
	answer_all();
	for (unsigned i = 0; i < FILES; i++)
		cst_fetch_object_unref(o[i]);
	cst_fetch_free(f);
}

/* While many small files are brought in ahead, a stream gets its share of the GETs; and while the stream wants all it can get, so do they. */
static void look_ahead_leaves_some_to_streams(void **state)
{
	(void)state;
	enum { FILES = 1500, ALL = 64 };
	struct cst_fetch *f = make_with((struct cst_fetch_config){.memory = 512 * MIB, .max_prefetch = ALL});
	static struct cst_fetch_object *small[FILES];
	const uint64_t o_size = 2048ull * MIB;
	struct cst_fetch_object *o = object(f, o_size);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	unsigned next = 0, of_stream = 0, of_files = 0;
	for (unsigned i = 0; i < FILES; i++)
		small[i] = object(f, 100 * KIB);
	while (next < FILES && cst_fetch_object_prefetch(small[next]))
		next++;
	assert_int_equal(next, ALL);
	for (unsigned i = 0; i < 12; i++) {
		struct reader r;
		start_read(&r, s, i * MIB, MIB);
		while (r.calls == 0) {
			store.size = op_at(0)->get.length < MIB ? 100 * KIB : o_size;
			answer(0);
			while (next < FILES && cst_fetch_object_prefetch(small[next]))
				next++;
		}
		assert_int_equal(r.rc, MIB);
		cst_fetch_read_release(&r.read);
	}
	for (unsigned i = 0; op_at(i); i++)
		*(op_at(i)->get.length < MIB ? &of_files : &of_stream) += 1;
	assert_in_range(of_stream + of_files, 1, ALL);
	assert_true(of_stream >= 4);
	assert_true(of_files >= ALL / 4);
	answer_all();
	for (unsigned i = 0; i < FILES; i++)
		cst_fetch_object_unref(small[i]);
	end(f, o, s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_are_readable_as_they_arrive),
		cmocka_unit_test(a_get_fails_half_way),
		cmocka_unit_test(progress_of_another_version),
		cmocka_unit_test(what_arrives_stays),
		cmocka_unit_test(short_memory_fetches_nothing_twice),
		cmocka_unit_test(late_reads_fetch_nothing_twice),
		cmocka_unit_test(the_next_tensor_first),
		cmocka_unit_test(a_model_by_name_alone),
		cmocka_unit_test(the_rest_of_a_block_stays),
		cmocka_unit_test(windows_share_the_memory),
		cmocka_unit_test(demand_waits_for_other_memory_first),
		cmocka_unit_test(demand_gets_what_nobody_comes_for),
		cmocka_unit_test(nobody_is_left_behind),
		cmocka_unit_test(five_hundred_handles),
		cmocka_unit_test(a_streams_own_limit),
		cmocka_unit_test(the_limit_of_all_goes_round),
		cmocka_unit_test(what_is_waited_for_hurries),
		cmocka_unit_test(look_ahead),
		cmocka_unit_test(look_ahead_is_bounded),
		cmocka_unit_test(look_ahead_leaves_some_to_streams),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
