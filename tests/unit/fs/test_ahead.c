/* Looking ahead in listing order. The fake fetch layer counts requests for data: never more than one for a file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "fake_host.h"

#include <errno.h>
#include <pthread.h>

#define FILES 2000

static struct fake_mount m;
static uint64_t nodes[FILES];

static void put_files(unsigned first, unsigned count, uint64_t size)
{
	char path[32];
	for (unsigned i = first; i < first + count; i++) {
		snprintf(path, sizeof(path), "d/f%05u", i);
		fake_put(m.bucket, path, size, "one", 1, NULL);
	}
}

static int setup(void **state)
{
	(void)state;
	fake_config(&m);
	m.config.look_ahead = true;
	m.config.readdirplus = true;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_end(&m);
	return 0;
}

/* As after `ls`: the directory is listed and its files are known. */
static void list(void)
{
	struct cst_fs_entry e;
	char name[16];
	fake_start(&m);
	assert_int_equal(do_path(&m, "d", &e), 0);
	free(do_ls(&m, e.node, true));
	for (unsigned i = 0; i < FILES; i++) {
		struct cst_fs_entry f;
		snprintf(name, sizeof(name), "f%05u", i);
		nodes[i] = do_lookup(&m, e.node, name, &f) == 0 ? f.node : 0;
	}
	fake_reset_counts(m.bucket);
}

/* What a reader does with a file. */
static void use(unsigned i, bool read)
{
	CST_AUTO_BUF data = CST_BUF_INIT;
	uint64_t fh;
	assert_int_equal(do_open(&m, nodes[i], &fh), 0);
	if (read) {
		assert_int_equal(do_read(&m, nodes[i], fh, 0, 100, &data), 0);
		assert_int_equal(data.len, 40);
		assert_int_equal(data.data[7], fake_byte("one", 7));
	}
	do_release(&m, nodes[i], fh);
}

static uint64_t looked_ahead(void)
{
	struct cst_fs_stats s;
	cst_fs_stats(m.fs, &s);
	return s.looked_ahead;
}

static void one_reader_in_order(void **state)
{
	(void)state;
	put_files(0, FILES, 40);
	list();
	use(0, true);
	use(1, true);
	assert_int_equal(looked_ahead(), 0);
	use(2, true);
	assert_int_equal(looked_ahead(), 8);
	for (unsigned i = 3; i < FILES; i++)
		use(i, true);
	struct fake_counts counts = fake_counts(m.bucket);
	assert_int_equal(counts.data_gets, FILES);
	assert_int_equal(counts.prefetches, FILES - 3);
	assert_int_equal(counts.heads, 0);
	assert_int_equal(counts.lists, 0);
}

static unsigned next_file;

static void *worker(void *arg)
{
	(void)arg;
	for (;;) {
		unsigned i = __atomic_fetch_add(&next_file, 1, __ATOMIC_RELAXED);
		if (i >= FILES)
			return NULL;
		use(i, true);
	}
}

static void sixteen_readers_take_turns(void **state)
{
	pthread_t threads[16];
	(void)state;
	put_files(0, FILES, 40);
	list();
	next_file = 0;
	for (unsigned i = 0; i < 16; i++)
		pthread_create(&threads[i], NULL, worker, NULL);
	for (unsigned i = 0; i < 16; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(fake_counts(m.bucket).data_gets, FILES);
	assert_true(looked_ahead() > FILES * 3 / 4);
}

/* Eight readers, each with files of its own, which come in order. */
static void readers_with_their_own_files(void **state)
{
	(void)state;
	put_files(0, FILES, 40);
	list();
	for (unsigned i = 0; i < FILES / 8; i++)
		for (unsigned r = 0; r < 8; r++)
			use(r * (FILES / 8) + i, true);
	assert_int_equal(fake_counts(m.bucket).data_gets, FILES);
	assert_true(looked_ahead() > FILES * 3 / 4);
}

static void shuffled(void **state)
{
	(void)state;
	put_files(0, FILES, 40);
	list();
	for (unsigned i = 0; i < FILES; i++) /* 1237 is prime to the count */
		use((unsigned)((uint64_t)i * 1237 % FILES), true);
	assert_int_equal(fake_counts(m.bucket).data_gets, FILES);
	assert_int_equal(looked_ahead(), 0);
}

/* Now and then a few neighbours: what is fetched for nothing stays a small part. */
static void almost_shuffled(void **state)
{
	(void)state;
	put_files(0, FILES, 40);
	list();
	for (unsigned i = 0; i < 40; i++) {
		for (unsigned k = 0; k < 3; k++)
			use(i * 50 + k, true);
		fake_pass(CST_NS_PER_S);
	}
	assert_true(looked_ahead() <= 40 * 8);
}

static void pages_of_the_kernel_need_no_fetching(void **state)
{
	(void)state;
	put_files(0, FILES, 40);
	list();
	for (unsigned i = 0; i < FILES; i++)
		use(i, true);
	fake_reset_counts(m.bucket);
	uint64_t before = looked_ahead();
	for (unsigned i = 0; i < FILES; i++)
		use(i, false);
	assert_int_equal(fake_counts(m.bucket).data_gets, 0);
	assert_int_equal(looked_ahead(), before);
}

/* What isn't read when it is open needs no fetching either. */
static void opened_and_never_read(void **state)
{
	(void)state;
	put_files(0, FILES, 40);
	list();
	for (unsigned i = 0; i < FILES / 2; i++)
		use(i, false);
	uint64_t before = looked_ahead();
	assert_true(before > 0 && before <= 2 * 64);
	for (unsigned i = FILES / 2; i < FILES; i++)
		use(i, true);
	assert_true(looked_ahead() >= before + FILES / 2 - 8);
}

static void large_files_and_others_are_left_out(void **state)
{
	(void)state;
	put_files(0, 10, 40);
	put_files(10, 10, (2 << 20) + 1);
	put_files(20, 5, 0);
	fake_put_symlink(m.bucket, "d/f00025", "d/f00001");
	fake_put(m.bucket, "d/f00026", 40, "", 1, NULL); /* nothing tells its version */
	fake_put(m.bucket, "d/f00027/x", 40, "one", 1, NULL);
	put_files(28, 1, 40);
	list();
	for (unsigned i = 0; i < 3; i++)
		use(i, true);
	assert_int_equal(looked_ahead(), 7);
	for (unsigned i = 3; i < 10; i++)
		use(i, true);
	for (unsigned i = 10; i < 25; i++)
		use(i, false);
	assert_int_equal(looked_ahead(), 8); /* f00028 */
	use(28, true);
	assert_int_equal(fake_counts(m.bucket).data_gets, 11);
}

static void names_the_kernel_never_looked_up(void **state)
{
	struct cst_fs_entry e, f;
	CST_AUTO_BUF data = CST_BUF_INIT;
	char name[16];
	uint64_t fh;
	(void)state;
	put_files(0, 100, 40);
	fake_start(&m);
	assert_int_equal(do_path(&m, "d", &e), 0);
	free(do_ls(&m, e.node, false));
	fake_reset_counts(m.bucket);
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "f%05u", i);
		assert_int_equal(do_lookup(&m, e.node, name, &f), 0);
		assert_int_equal(do_open(&m, f.node, &fh), 0);
		assert_int_equal(do_read(&m, f.node, fh, 0, 40, &data), 0);
		do_release(&m, f.node, fh);
	}
	assert_int_equal(fake_counts(m.bucket).data_gets, 100);
	assert_int_equal(fake_counts(m.bucket).prefetches, 97);
}

static void no_room(void **state)
{
	(void)state;
	put_files(0, 100, 40);
	fake_fetch_refuse_prefetch(m.fetch, true);
	list();
	for (unsigned i = 0; i < 100; i++)
		use(i, true);
	assert_int_equal(fake_counts(m.bucket).data_gets, 100);
	assert_int_equal(looked_ahead(), 0);
	assert_true(fake_fetch_objects(m.fetch) <= 100);
}

static void a_file_replaced_meanwhile(void **state)
{
	struct cst_fs_entry e;
	CST_AUTO_BUF data = CST_BUF_INIT;
	uint64_t fh;
	(void)state;
	put_files(0, 100, 40);
	list();
	for (unsigned i = 0; i < 5; i++)
		use(i, true);
	fake_put(m.bucket, "d/f00005", 50, "new", 2, NULL);
	fake_pass(100 * CST_NS_PER_S); /* the listing is old now: what was fetched is of the old version */
	assert_int_equal(do_open(&m, nodes[5], &fh), -ESTALE);
	assert_int_equal(do_path(&m, "d/f00005", &e), 0);
	assert_int_equal(do_open(&m, e.node, &fh), 0);
	assert_int_equal(do_read(&m, e.node, fh, 0, 100, &data), 0);
	assert_int_equal(data.len, 50);
	for (size_t i = 0; i < data.len; i++)
		assert_int_equal(data.data[i], fake_byte("new", i));
	do_release(&m, e.node, fh);
}

/* A reader that takes three seconds for a file: little waits for it, and nothing is fetched twice. */
static void a_slow_reader(void **state)
{
	(void)state;
	m.config.list_ttl = 100000 * CST_NS_PER_S;
	put_files(0, FILES, 40);
	list();
	for (unsigned i = 0; i < 200; i++) {
		use(i, true);
		fake_pass(3 * CST_NS_PER_S);
	}
	struct fake_counts counts = fake_counts(m.bucket);
	assert_true(counts.data_gets >= 200 && counts.data_gets <= 200 + 16);
	assert_true(counts.prefetches >= 150);
	for (unsigned i = 200; i < 400; i++)
		use(i, true);
	counts = fake_counts(m.bucket); /* and soon more again */
	assert_true(counts.data_gets >= 400 + 40 && counts.data_gets <= 400 + 64);
}

static void what_nobody_opens_is_given_up(void **state)
{
	(void)state;
	m.config.list_ttl = 100000 * CST_NS_PER_S;
	put_files(0, FILES, 40);
	list();
	for (unsigned i = 0; i < 20; i++)
		use(i, true);
	unsigned before = fake_fetch_objects(m.fetch);
	assert_true(before >= 20 + 8);
	fake_pass(61 * CST_NS_PER_S);
	for (unsigned i = 0; i < 4; i++) /* the next open gives up some of them */
		use(1000 + i * 100, true);
	assert_int_equal(fake_fetch_objects(m.fetch), 20 + 4);
	/* Much was for nothing: three in a row are not enough any more. */
	uint64_t ahead = looked_ahead();
	for (unsigned i = 500; i < 510; i++)
		use(i, true);
	assert_int_equal(looked_ahead(), ahead);
	for (unsigned i = 510; i < 530; i++)
		use(i, true);
	assert_true(looked_ahead() > ahead);
}

/* With a cache: what it has whole is left alone, the rest is bound to it before it is fetched, and let go of when it is closed. */
static void with_a_cache(void **state)
{
	(void)state;
	fake_with_cache(&m);
	m.config.passthrough = false;
	put_files(0, 200, 40);
	list();
	for (unsigned i = 100; i < 150; i++) {
		char key[16];
		snprintf(key, sizeof(key), "d/f%05u", i);
		fake_cache_complete(m.cache, key, "one", -1);
	}
	for (unsigned i = 0; i < 4; i++)
		use(i, true);
	assert_non_null(fake_fetch_local(m.fetch, "d/f00005"));
	while (fake_fetch_local(m.fetch, "d/f00003")) /* a read lets go of its handle just after its reply */
		;
	for (unsigned i = 4; i < 200; i++)
		use(i, true);
	assert_int_equal(fake_counts(m.bucket).prefetches, 200 - 3 - 50);
	assert_int_equal(fake_counts(m.bucket).data_gets, 200);
	while (fake_cache_counts(m.cache).objects > 0)
		;
}

/* A loaded directory costs no question to the cache for each file ahead. */
static void a_loaded_directory(void **state)
{
	(void)state;
	fake_with_cache(&m);
	m.config.passthrough = false;
	put_files(0, FILES, 40);
	list();
	for (unsigned i = 0; i < FILES; i++) {
		char key[16];
		snprintf(key, sizeof(key), "d/f%05u", i);
		fake_cache_complete(m.cache, key, "one", -1);
	}
	for (unsigned i = 0; i < FILES; i++)
		use(i, false);
	assert_int_equal(looked_ahead(), 0);
	assert_true(fake_cache_counts(m.cache).opens < FILES * 5 / 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_reader_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(sixteen_readers_take_turns, setup, teardown),
		cmocka_unit_test_setup_teardown(readers_with_their_own_files, setup, teardown),
		cmocka_unit_test_setup_teardown(shuffled, setup, teardown),
		cmocka_unit_test_setup_teardown(almost_shuffled, setup, teardown),
		cmocka_unit_test_setup_teardown(pages_of_the_kernel_need_no_fetching, setup, teardown),
		cmocka_unit_test_setup_teardown(opened_and_never_read, setup, teardown),
		cmocka_unit_test_setup_teardown(large_files_and_others_are_left_out, setup, teardown),
		cmocka_unit_test_setup_teardown(names_the_kernel_never_looked_up, setup, teardown),
		cmocka_unit_test_setup_teardown(no_room, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_replaced_meanwhile, setup, teardown),
		cmocka_unit_test_setup_teardown(a_slow_reader, setup, teardown),
		cmocka_unit_test_setup_teardown(what_nobody_opens_is_given_up, setup, teardown),
		cmocka_unit_test_setup_teardown(with_a_cache, setup, teardown),
		cmocka_unit_test_setup_teardown(a_loaded_directory, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
