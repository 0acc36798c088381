/* Eight threads use the file system as a kernel would while a ninth changes the bucket. What must hold: a node is one version, so what
 * is read through it matches its ETag and size to the byte; counts come back to nothing; every call is answered once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "fake_host.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define THREADS 8
#define ROUNDS 1500
#define FILES 12

static struct fake_mount m;
static bool ended;
static int cache_file;
static unsigned bad, reads_done, stale_seen, interrupts;

static unsigned next_random(unsigned *seed)
{
	*seed = *seed * 1103515245u + 12345u;
	return *seed >> 16;
}

static void random_path(unsigned *seed, char path[32])
{
	snprintf(path, 32, "d%u/f%u", next_random(seed) % 3, next_random(seed) % FILES);
}

/* Sizes and ETags belong together, so a mixture shows. */
static void put_version(const char *path, unsigned version)
{
	char etag[16];
	snprintf(etag, sizeof(etag), "v%06u", version);
	fake_put(m.bucket, path, 20 + version % 200, etag, version, "mode=33188");
	/* Some are whole in the cache from the beginning, some in a slab; of these one becomes so after a while. */
	if (m.cache && version % 4 < 2)
		fake_cache_complete(m.cache, path, etag, version % 4 ? cache_file : -1);
	snprintf(etag, sizeof(etag), "v%06u", version - 3);
	if (m.cache && version > 1000)
		fake_cache_complete(m.cache, path, etag, cache_file);
}

static void *writer(void *arg)
{
	unsigned seed = 99, version = 1000;
	char path[32];
	(void)arg;
	while (!__atomic_load_n(&ended, __ATOMIC_RELAXED)) {
		random_path(&seed, path);
		if (next_random(&seed) % 4 == 0)
			fake_delete(m.bucket, path);
		else
			put_version(path, version++);
		fake_pass((int64_t)(next_random(&seed) % 8) * CST_NS_PER_S);
		cst_sleep(200 * CST_NS_PER_US);
	}
	return NULL;
}

static void check_bytes(uint64_t node, uint64_t fh, uint64_t size, unsigned *seed)
{
	CST_AUTO_BUF etag = CST_BUF_INIT;
	CST_AUTO_BUF data = CST_BUF_INIT;
	if (do_text(&m, node, "user.oss.etag", &etag) != 0)
		return;
	for (int i = 0; i < 3; i++) {
		uint64_t offset = next_random(seed) % size;
		uint32_t length = 1 + next_random(seed) % 100;
		int rc = do_read(&m, node, fh, offset, length, &data);
		if (rc == -ESTALE) {
			__atomic_fetch_add(&stale_seen, 1, __ATOMIC_RELAXED);
			return;
		}
		bool right = rc == 0 && data.len == cst_min(length, size - offset);
		for (size_t b = 0; right && b < data.len; b++)
			right = data.data[b] == fake_byte(etag.data, offset + b);
		__atomic_fetch_add(right ? &reads_done : &bad, 1, __ATOMIC_RELAXED);
	}
}

static int lookup_path(const char *path, uint64_t nodes[2], struct cst_fs_entry *e)
{
	char dir[32];
	snprintf(dir, sizeof(dir), "%s", path);
	*strchr(dir, '/') = 0;
	nodes[0] = nodes[1] = 0;
	int rc = do_lookup(&m, CST_FS_ROOT, dir, e);
	if (rc < 0)
		return rc;
	nodes[0] = e->node;
	rc = do_lookup(&m, e->node, strchr(path, '/') + 1, e);
	if (rc == 0)
		nodes[1] = e->node;
	return rc;
}

static void use_file(unsigned *seed)
{
	struct cst_fs_entry e;
	struct cst_fs_attr attr;
	uint64_t nodes[2], fh;
	char path[32];
	random_path(seed, path);
	int rc = lookup_path(path, nodes, &e);
	if (rc == 0 && do_open(&m, e.node, &fh) == 0) {
		rc = do_getattr(&m, e.node, &attr);
		if (rc == 0 && attr.st.st_size != e.attr.st.st_size)
			__atomic_fetch_add(&bad, 1, __ATOMIC_RELAXED);
		check_bytes(e.node, next_random(seed) % 5 ? fh : fh + 12345, (uint64_t)e.attr.st.st_size, seed);
		do_release(&m, e.node, fh + 12345); /* one that was rebuilt */
		do_release(&m, e.node, fh);
	} else if (rc < 0 && rc != -ENOENT && rc != -ESTALE) {
		__atomic_fetch_add(&bad, 1, __ATOMIC_RELAXED);
	}
	for (int i = 1; i >= 0; i--)
		if (nodes[i])
			cst_fs_forget(m.fs, nodes[i], 1);
}

/* Interrupted, or answered when nobody waits any more. */
static void interrupted_open(unsigned *seed)
{
	struct cst_fs_entry e;
	uint64_t nodes[2];
	char path[32];
	random_path(seed, path);
	int rc = lookup_path(path, nodes, &e);
	if (rc == 0) {
		struct fake_call *c = call_new();
		c->node = e.node;
		c->refuse = next_random(seed) % 2 == 0;
		cst_fs_open(m.fs, &c->call, e.node, next_random(seed) % 2 ? O_DIRECT : 0);
		if (!c->refuse)
			cst_fs_call_interrupt(&c->call);
		rc = call_wait(c);
		if (rc == 0 && !c->refuse)
			do_release(&m, e.node, c->fh);
		cst_fs_call_lock(&c->call);
		cst_fs_call_unlock(&c->call);
		call_free(c);
	}
	for (int i = 1; i >= 0; i--)
		if (nodes[i])
			cst_fs_forget(m.fs, nodes[i], 1);
}

static void use_dir(unsigned *seed)
{
	char name[8];
	struct cst_fs_entry e;
	snprintf(name, sizeof(name), "d%u", next_random(seed) % 3);
	if (do_lookup(&m, CST_FS_ROOT, name, &e) != 0)
		return;
	char *all = do_ls(&m, e.node, next_random(seed) % 2);
	if (strstr(all, "error"))
		__atomic_fetch_add(&bad, 1, __ATOMIC_RELAXED);
	free(all);
	cst_fs_forget(m.fs, e.node, 1);
}

static void interrupted_lookup(unsigned *seed)
{
	char name[8];
	struct fake_call *c = call_new();
	snprintf(name, sizeof(name), "d%u", next_random(seed) % 4);
	c->refuse = next_random(seed) % 4 == 0;
	cst_fs_lookup(m.fs, &c->call, CST_FS_ROOT, name);
	cst_fs_call_interrupt(&c->call);
	int rc = call_wait(c);
	if (rc == -EINTR)
		__atomic_fetch_add(&interrupts, 1, __ATOMIC_RELAXED);
	if (rc == 0 && !c->refuse)
		cst_fs_forget(m.fs, c->entry.node, 1);
	/* As the host does: a request lives until its interrupt has returned and it was answered. */
	cst_fs_call_lock(&c->call);
	cst_fs_call_unlock(&c->call);
	call_free(c);
}

static void *user(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	for (int i = 0; i < ROUNDS; i++) {
		switch (next_random(&seed) % 8) {
		case 2:
			interrupted_open(&seed);
			break;
		case 0:
			use_dir(&seed);
			break;
		case 1:
			interrupted_lookup(&seed);
			break;
		default:
			use_file(&seed);
			break;
		}
	}
	return NULL;
}

static void run(enum cst_fs_attributes attributes, unsigned page, bool cached)
{
	pthread_t threads[THREADS], changes;
	char path[32];
	bad = reads_done = stale_seen = interrupts = 0;
	ended = false;
	fake_config(&m);
	m.config.attributes = attributes;
	m.config.list_ttl = 20 * CST_NS_PER_S;
	fake_page_size(m.bucket, page);
	/* O_DIRECT is not passed through: then inodes are set aside. */
	cache_file = memfd_create("cache-file", MFD_CLOEXEC);
	m.config.look_ahead = true;
	if (cached)
		fake_with_cache(&m);
	for (unsigned d = 0; d < 3; d++) {
		for (unsigned f = 0; f < FILES; f++) {
			snprintf(path, sizeof(path), "d%u/f%u", d, f);
			put_version(path, d * FILES + f);
		}
	}
	fake_start(&m);
	pthread_create(&changes, NULL, writer, NULL);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, user, (void *)(i + 1));
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	__atomic_store_n(&ended, true, __ATOMIC_RELAXED);
	pthread_join(changes, NULL);
	print_message("# %u reads right, %u stale, %u interrupted\n", reads_done, stale_seen, interrupts);
	assert_int_equal(bad, 0);
	assert_true(reads_done > 1000);
	struct cst_fs_stats stats;
	cst_fs_stats(m.fs, &stats);
	assert_int_equal(stats.open_files, 0);
	assert_int_equal(stats.open_dirs, 0);
	/* The root, the three directories and the replacements that are remembered for a while. */
	for (int i = 0; i < 2000 && stats.inodes > 4 + 256; i++) {
		cst_sleep(CST_NS_PER_MS);
		cst_fs_stats(m.fs, &stats);
	}
	assert_true(stats.inodes <= 4 + 256);
	if (cached)
		print_message("# passed through %u times, %u backing files\n", (unsigned)stats.opens_passthrough,
			      fake_backing.opened);
	assert_true(!cached || stats.opens_passthrough > 100);
	fake_end(&m);
	close(cache_file);
}

static void by_listing(void **state)
{
	(void)state;
	run(CST_FS_ATTRIBUTES_LIST, 1000, false);
}

static void by_listing_in_small_pages(void **state)
{
	(void)state;
	run(CST_FS_ATTRIBUTES_LIST, 2, false);
}

static void by_object(void **state)
{
	(void)state;
	run(CST_FS_ATTRIBUTES_OBJECT, 5, false);
}

static void with_a_cache(void **state)
{
	(void)state;
	run(CST_FS_ATTRIBUTES_LIST, 1000, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_listing),
		cmocka_unit_test(by_listing_in_small_pages),
		cmocka_unit_test(by_object),
		cmocka_unit_test(with_a_cache),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
