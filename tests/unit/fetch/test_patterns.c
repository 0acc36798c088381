/* What is asked from the store for sequences of READs: each step is a READ, answered before the next one, and the GETs it made. */
#include "double.h"

struct step {
	uint64_t offset;  /* KiB */
	uint32_t length;  /* KiB */
	const char *gets; /* "OFFSET+LENGTH …" in KiB, in the order of their offsets; NULL: whatever */
};

struct sequence {
	const char *name, *key;
	uint64_t size; /* KiB */
	struct step steps[24];
};

#define M *1024
static const struct sequence sequences[] = {
	{"small, from the front", "a", 100, {{0, 4, "0+100"}, {4, 64, ""}}},
	{"small, from the middle: whole all the same", "a", 1000, {{500, 4, "0+1000"}, {0, 4, ""}}},
	{"up to 2 MiB from its front", "a", 2000, {{0, 4, "0+2000"}}},
	{"random 4 KiB reads fetch a block each",
	 "a",
	 1024 M,
	 {{100 M + 4, 4, "102400+128"},
	  {3 M + 8, 4, "3072+128"},
	  {700 M + 256, 4, "717056+128"},
	  {3 M + 12, 4, ""},
	  {50 M, 4, "51200+128"},
	  {900 M + 130, 4, "921728+128"}}},
	{"random 128 KiB reads are exact",
	 "a",
	 1024 M,
	 {{100 M, 128, "102400+128"},
	  {3 M + 128, 128, "3200+128"},
	  {700 M, 128, "716800+128"},
	  {10 M, 128, "10240+128"}}},
	{"a read over a border fetches both blocks", "a", 1024 M, {{100 M + 126, 4, "102400+256"}}},
	{"from the front: to the next MiB, then a window of 4 MiB",
	 "a",
	 512 M,
	 {{0, 128, "0+1024"},
	  {128, 896, ""},
	  {1 M, 1024, "1024+1024 2048+1024 3072+1024 4096+1024 5120+1024"},
	  {2 M, 1024, "6144+2048 8192+4096 12288+4096"}}},
	{"the window quadruples, ranges with it",
	 "a",
	 512 M,
	 {{0, 1024, "0+1024"},
	  {1 M, 1024, "1024+1024 2048+1024 3072+1024 4096+1024 5120+1024"},
	  {2 M, 1024, NULL},
	  {3 M, 1024, NULL},
	  {4 M, 1024, NULL},
	  {5 M, 1024, NULL},
	  {6 M, 1024, NULL},
	  {7 M, 1024, NULL},
	  {8 M, 1024, ""}}},
	{"a second read in sequence elsewhere starts a window",
	 "a",
	 512 M,
	 {{100 M, 1024, "102400+1024"}, {101 M, 1024, "103424+1024 104448+1024 105472+1024 106496+1024 107520+1024"}}},
	{"swapped reads are a sequence",
	 "a",
	 512 M,
	 {{1 M, 1024, "1024+1024"},
	  {0, 1024, "0+1024 2048+1024 3072+1024 4096+1024 5120+1024"},
	  {3 M, 1024, NULL},
	  {2 M, 1024, ""}}},
	{"from the back: a window below, twice as large with time",
	 "a",
	 512 M,
	 {{100 M, 128, "102400+128"},
	  {100 M - 128, 128, "102272+128"},
	  {100 M - 256, 128, "100352+1024 101376+768 102144+128"},
	  {100 M - 384, 128, ""},
	  {100 M - 512, 128, ""},
	  {100 M - 640, 128, ""},
	  {100 M - 768, 128, "98304+1024 99328+1024"}}},
	{"from the back in swapped pairs is exact, then a window",
	 "a",
	 512 M,
	 {{100 M, 128, "102400+128"},
	  {100 M - 256, 128, "102144+128"},
	  {100 M - 128, 128, "102272+128"},
	  {100 M - 512, 128, NULL}}},
	{"strides: the next records, twice as many each time",
	 "a",
	 1024 M,
	 {{10 M, 128, "10240+128"},
	  {20 M, 128, "20480+128"},
	  {30 M, 128, "30720+128 40960+128 51200+128"},
	  {40 M, 128, "61440+128 71680+128 81920+128"},
	  {50 M, 128, NULL},
	  {60 M, 128, NULL}}},
	{"strides of 4 KiB: a block each",
	 "a",
	 1024 M,
	 {{10 M, 4, "10240+128"}, {11 M, 4, "11264+128"}, {12 M, 4, "12288+128 13312+128 14336+128"}}},
	{"strides downwards",
	 "a",
	 1024 M,
	 {{90 M, 128, "92160+128"}, {80 M, 128, "81920+128"}, {70 M, 128, "51200+128 61440+128 71680+128"}}},
	{"strides of records in several reads",
	 "a",
	 1024 M,
	 {{10 M, 128, "10240+128"},
	  {10 M + 128, 128, NULL},
	  {20 M, 128, "20480+128"},
	  {20 M + 128, 128, NULL},
	  {30 M, 128, "30720+128 40960+256 51200+256"},
	  {30 M + 128, 128, "30848+128"},
	  {40 M, 128, NULL},
	  {40 M + 128, 128, ""}}},
	{"close strides",
	 "a",
	 1024 M,
	 {{10 M, 64, "10240+128"}, {10 M + 512, 64, "10752+128"}, {11 M, 64, "11264+128 11776+128 12288+128"}}},
	{"a stride that ends is not gone on with",
	 "a",
	 1024 M,
	 {{10 M, 4, "10240+128"},
	  {20 M, 4, "20480+128"},
	  {30 M, 4, "30720+128 40960+128 51200+128"},
	  {700 M, 4, "716800+128"},
	  {33 M, 4, "33792+128"}}},
	{"two readers of one handle, both in sequence",
	 "a",
	 1024 M,
	 {{0, 1024, "0+1024"},
	  {500 M, 1024, "512000+1024"},
	  {1 M, 1024, "1024+1024 2048+1024 3072+1024 4096+1024 5120+1024"},
	  {501 M, 1024, "513024+1024 514048+1024 515072+1024 516096+1024 517120+1024"},
	  {2 M, 1024, "6144+2048 8192+4096 12288+4096"},
	  {502 M, 1024, "518144+2048 520192+4096 524288+4096"}}},
	{"models: a window from the first read on",
	 "m/model-00001.SafeTensors",
	 512 M,
	 {{0, 128, "0+1024 1024+3072 4096+4096 8192+4096 12288+4096"}}},
	{"models: and behind the header",
	 "model.safetensors",
	 512 M,
	 {{0, 4, "0+1024"}, {70 M, 1024, "71680+1024 72704+1024 73728+4096 77824+4096 81920+4096"}}},
	{"models: small random reads stay small", "x.bin", 512 M, {{100 M, 4, "102400+128"}, {7 M, 4, "7168+128"}}},
	{"the tail of a parquet file once, then exact pieces",
	 "t/part-0.parquet",
	 300 M,
	 {{300 M - 1, 1, "306176+1024"},
	  {300 M - 100, 99, ""},
	  {300 M - 900, 128, ""},
	  {4, 64, "0+128"},
	  {90 M, 256, "92160+256"},
	  {90 M + 256, 256, "92416+256"}}},
	{"a zip that is small enough is fetched whole", "a.zip", 1 M, {{1 M - 4, 4, "0+1024"}}},
	{"a zip that is not", "a.npz", 64 M + 100, {{64 M + 96, 4, "64512+1124"}}},
	{"reading the end of any other file is exact", "a.tar", 300 M, {{300 M - 4, 4, "307072+128"}}},
};

struct span {
	uint64_t offset, length;
};

static int by_offset(const void *a, const void *b)
{
	const struct span *x = a, *y = b;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static void asked(char *text, size_t size)
{
	struct span spans[64];
	unsigned n = 0;
	struct cst_object_op *op;
	TAILQ_FOREACH (op, &store.ops, link) {
		assert_true(n < CST_ARRAY_LEN(spans));
		spans[n++] = (struct span){op->get.offset / KIB, op->get.length / KIB};
	}
	qsort(spans, n, sizeof(spans[0]), by_offset);
	size_t at = 0;
	text[0] = 0;
	for (unsigned i = 0; i < n; i++)
		at += (size_t)snprintf(text + at, size - at, "%s%llu+%llu", i ? " " : "",
				       (unsigned long long)spans[i].offset, (unsigned long long)spans[i].length);
}

static void run(const struct sequence *q)
{
	struct cst_fetch *f = make(512ull * MIB);
	struct cst_fetch_object *o = object_named(f, q->key, q->size * KIB);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	for (size_t i = 0; i < CST_ARRAY_LEN(q->steps) && q->steps[i].length; i++) {
		const struct step *step = &q->steps[i];
		struct reader r;
		char text[1024];
		start_read(&r, s, step->offset * KIB, step->length * KIB);
		asked(text, sizeof(text));
		if (step->gets && strcmp(text, step->gets) != 0)
			fail_msg("%s, read %zu: asked for \"%s\", not \"%s\"", q->name, i, text, step->gets);
		answer_all();
		assert_int_equal(r.rc, step->length * KIB);
		cst_fetch_read_release(&r.read);
		answer_all(); /* what followed from the answers */
	}
	end(f, o, s);
}

static void table(void **state)
{
	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(sequences); i++)
		run(&sequences[i]);
}

/* The whole file from the back: every byte once, few GETs. */
static void backwards_to_the_front(void **state)
{
	(void)state;
	const uint64_t size = 64ull * MIB;
	struct cst_fetch *f = make(64ull * MIB);
	struct cst_fetch_object *o = object(f, size);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	for (uint64_t at = size; at > 0; at -= 64 * KIB)
		read_now(s, at - 64 * KIB, 64 * KIB);
	assert_int_equal(store.bytes, size);
	assert_true(store.total < 40);
	end(f, o, s);
}

/* Swapped records of a stride, as threads make them: exact blocks, each once. */
static void swapped_strides(void **state)
{
	(void)state;
	struct cst_fetch *f = make(512ull * MIB);
	struct cst_fetch_object *o = object(f, 1024ull * MIB);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	for (unsigned i = 0; i < 4; i++)
		read_now(s, i * 4ull * MIB, 128 * KIB);
	uint64_t extra = store.bytes; /* the first read, at 0, reaches up to the MiB */
	assert_in_range(extra, MIB, 3 * MIB);
	for (unsigned i = 4; i < 100; i += 2) {
		read_now(s, (i + 1) * 4ull * MIB, 128 * KIB);
		read_now(s, i * 4ull * MIB, 128 * KIB);
	}
	answer_all();
	assert_true(store.bytes <= MIB + (100 + 32) * 128 * KIB);
	struct cst_fetch_stats stats = stats_of(f);
	assert_true(stats.hits >= 90);
	end(f, o, s);
}

/* Random reads of a large file never make prefetching, whatever accident brings two of them together. */
static void random_stays_random(void **state)
{
	(void)state;
	struct cst_fetch *f = make(64ull * MIB);
	struct cst_fetch_object *o = object(f, 2048ull * MIB);
	struct cst_fetch_stream *s = cst_fetch_stream_new(o);
	uint64_t place = 1;
	for (int i = 0; i < 3000; i++) {
		place = place * 6364136223846793005u + 1442695040888963407u;
		read_now(s, (place >> 33) % (2047ull * MIB) & ~4095ull, 4096);
	}
	assert_true(store.bytes <= 3000 * 128ull * KIB + 8 * MIB);
	end(f, o, s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table),
		cmocka_unit_test(backwards_to_the_front),
		cmocka_unit_test(swapped_strides),
		cmocka_unit_test(random_stays_random),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
