/* End to end against the embedded store, in both dialects: two writers in both orders, lost answers, throttling; what is read back is compared. */
#include "object/backend.h"
#include "publish/keep.h"
#include "publish/publish.h"
#include "store/store.h"

#include "base/clock.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#define MIB_ (1u << 20)

static struct fixture {
	char dir[64], keep[96], bound[64], endpoint[80];
	struct cst_store *store;
	struct cst_http_client *http;
	struct cst_bucket *bucket;
	struct cst_publish *publish;
	bool s3;
} f;

static void must(bool ok, const struct cst_error *err)
{
	char text[CST_ERROR_TEXT_MAX];
	if (!ok)
		cst_panic(__FILE__, __LINE__, "%s", cst_error_text(err, text, sizeof(text)));
}

static void start(bool s3, const char *const *faults, size_t fault_count)
{
	struct cst_error err = CST_ERROR_INIT;
	const char *address = "127.0.0.1:0";
	char bucket_dir[96];
	f = (struct fixture){.s3 = s3};
	snprintf(f.dir, sizeof(f.dir), "/tmp/cst-publish-XXXXXX");
	CST_ASSERT(mkdtemp(f.dir));
	snprintf(bucket_dir, sizeof(bucket_dir), "%s/bkt", f.dir);
	CST_ASSERT(mkdir(bucket_dir, 0755) == 0);
	snprintf(f.keep, sizeof(f.keep), "%s/kept", f.dir);
	struct cst_store_config sc = {.dir = f.dir,
				      .addresses = &address,
				      .address_count = 1,
				      .anonymous = true,
				      .faults = faults,
				      .fault_count = fault_count,
				      .fault_seed = 7};
	must(cst_store_start(&sc, &f.store, &err) == 0, &err);
	cst_store_address(f.store, 0, f.bound, sizeof(f.bound));
	snprintf(f.endpoint, sizeof(f.endpoint), "http://%s", f.bound);
	struct cst_http_client_config hc = {.max_connections = 64};
	f.http = cst_http_client_new(&hc, &err);
	must(f.http, &err);
	struct cst_bucket_config bc = {.cloud = s3 ? CST_CLOUD_S3 : CST_CLOUD_OSS,
				       .bucket = "bkt",
				       .endpoint = f.endpoint,
				       .region = "local",
				       .http = f.http,
				       .deadline = 60 * CST_NS_PER_S};
	f.bucket = cst_bucket_new(&bc, &err);
	must(f.bucket, &err);
	cst_bucket_tune(f.bucket,
			&(struct cst_object_tuning){.backoff_base = CST_NS_PER_MS, .backoff_cap = 4 * CST_NS_PER_MS});
	struct cst_publish_config pc = {.bucket = f.bucket,
					.memory = 32 * MIB_,
					.part_size = 6 * MIB_,
					.verify_crc64 = true,
					.keep_dir = f.keep,
					.writer = "host:/mnt"};
	f.publish = cst_publish_new(&pc, &err);
	must(f.publish, &err);
}

static void stop(void)
{
	char command[128];
	cst_publish_free(f.publish);
	cst_bucket_free(f.bucket);
	cst_http_client_free(f.http);
	cst_store_stop(f.store, CST_NS_PER_S);
	snprintf(command, sizeof(command), "rm -rf %s", f.dir);
	CST_ASSERT(system(command) == 0); /* NOLINT: a name of our own */
}

/* ---- waiting ---- */

struct outcome {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool done;
	int rc;
	size_t got;
	struct cst_object_info info;
	char text[CST_ERROR_TEXT_MAX];
};
#define OUTCOME_INIT                                                                   \
	{                                                                              \
		.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER \
	}

static void tell(struct outcome *o, int rc, const struct cst_error *err)
{
	pthread_mutex_lock(&o->lock);
	CST_ASSERT(!o->done);
	o->done = true;
	o->rc = rc;
	if (err)
		cst_error_text(err, o->text, sizeof(o->text));
	pthread_cond_signal(&o->changed);
	pthread_mutex_unlock(&o->lock);
}

static int wait_for(struct outcome *o)
{
	pthread_mutex_lock(&o->lock);
	while (!o->done)
		pthread_cond_wait(&o->changed, &o->lock);
	pthread_mutex_unlock(&o->lock);
	return o->rc;
}

static void on_write(struct cst_publish_write *w, int rc, const struct cst_error *err)
{
	tell(w->arg, rc, err);
}

static void on_sync(struct cst_publish_sync *y, int rc, const struct cst_object_info *version,
		    const struct cst_error *err)
{
	((struct outcome *)y->arg)->info = *version;
	tell(y->arg, rc, err);
}

static void on_get(void *arg, int rc, size_t got, const struct cst_object_info *info, const struct cst_error *err)
{
	struct outcome *o = arg;
	o->got = got;
	o->info = *info;
	tell(o, rc, err);
}

static unsigned char pattern(unsigned who, uint64_t at)
{
	return (unsigned char)(((at * 2654435761u) >> 13) + who * 31);
}

static void write_some(struct cst_publish_stream *s, unsigned who, uint64_t offset, size_t len)
{
	CST_AUTO_FREE char *data = cst_xmalloc(len + 1);
	for (size_t done = 0; done < len;) {
		struct outcome o = OUTCOME_INIT;
		size_t n = cst_min(len - done, (size_t)MIB_);
		for (size_t i = 0; i < n; i++)
			data[i] = (char)pattern(who, offset + done + i);
		struct cst_publish_write w = {.offset = offset + done, .data = {data, n}, .done = on_write, .arg = &o};
		cst_publish_write(s, &w);
		if (wait_for(&o) < 0)
			fail_msg("%s", o.text);
		done += n;
	}
}

static int sync_stream(struct cst_publish_stream *s, struct outcome *o)
{
	*o = (struct outcome)OUTCOME_INIT;
	struct cst_publish_sync y = {.done = on_sync, .arg = o};
	cst_publish_sync(s, &y);
	return wait_for(o);
}

static void must_sync(struct cst_publish_stream *s, struct cst_publish_base *base)
{
	struct outcome o;
	if (sync_stream(s, &o) < 0)
		fail_msg("%s", o.text);
	*base = (struct cst_publish_base){.exists = true, .type = o.info.type, .size = o.info.size};
	memcpy(base->etag, o.info.etag, sizeof(base->etag));
	assert_true(o.info.mtime >= cst_wall() / CST_NS_PER_S - 120);
}

static void expect_object(const char *key, unsigned who, uint64_t size)
{
	CST_AUTO_FREE unsigned char *data = cst_xmalloc(size + 16);
	struct outcome o = OUTCOME_INIT;
	struct iovec into = {data, size + 16};
	struct cst_object_get get = {.key = cst_slice_of(key), .length = size + 16, .into = &into, .into_count = 1};
	cst_object_release(cst_object_get(f.bucket, &get, on_get, &o));
	if (wait_for(&o) < 0)
		fail_msg("%s", o.text);
	assert_int_equal(o.got, size);
	for (uint64_t i = 0; i < size; i++)
		if (data[i] != pattern(who, i))
			fail_msg("byte %llu of %s is another", (unsigned long long)i, key);
}

static struct cst_publish_stream *open_key(const char *key, const struct cst_publish_base *base, bool keep,
					   enum cst_publish_mode mode)
{
	struct cst_publish_open open = {.key = cst_slice_of(key), .base = *base, .keep_content = keep, .mode = mode};
	return cst_publish_stream_open(f.publish, &open);
}

static const struct cst_publish_base none;
static const char *const names[] = {"k", "dir/with space/%+é\n<&>", "\xff\xfe"};

/* ---- one writer ---- */

static void write_all_forms(void)
{
	struct cst_publish_base base;
	for (size_t i = 0; i < CST_ARRAY_LEN(names); i++) {
		struct cst_publish_stream *s = open_key(names[i], &none, false, CST_PUBLISH_WHOLE);
		cst_publish_stream_touch(s);
		must_sync(s, &base);
		write_some(s, 1, 0, 100);
		must_sync(s, &base);
		expect_object(names[i], 1, 100);
		write_some(s, 1, 100, 20 * MIB_);
		must_sync(s, &base);
		write_some(s, 1, 100 + 20 * MIB_, 7);
		must_sync(s, &base);
		expect_object(names[i], 1, 107 + 20 * MIB_);
		cst_publish_stream_close(s, true);
		s = open_key(names[i], &base, true, CST_PUBLISH_WHOLE);
		write_some(s, 1, 107 + 20 * MIB_, 9 * MIB_);
		must_sync(s, &base);
		expect_object(names[i], 1, 107 + 29 * MIB_);
		cst_publish_stream_close(s, true);
		s = open_key(names[i], &base, false, CST_PUBLISH_WHOLE);
		write_some(s, 2, 0, 5000);
		must_sync(s, &base);
		cst_publish_stream_close(s, true);
		s = open_key(names[i], &base, true, CST_PUBLISH_WHOLE);
		write_some(s, 2, 5000, 5000);
		must_sync(s, &base);
		expect_object(names[i], 2, 10000);
		cst_publish_stream_close(s, true);
	}
}

static void append_all(void)
{
	struct cst_publish_base base;
	struct cst_publish_stream *s = open_key("log", &none, false, CST_PUBLISH_APPENDABLE);
	for (unsigned i = 0; i < 20; i++) {
		write_some(s, 1, i * 1000, 1000);
		must_sync(s, &base);
	}
	cst_publish_stream_close(s, true);
	s = open_key("log", &base, true, CST_PUBLISH_APPENDABLE);
	write_some(s, 1, 20000, 14 * MIB_);
	must_sync(s, &base);
	expect_object("log", 1, 20000 + 14 * MIB_);
	cst_publish_stream_close(s, true);
}

static void test_forms(void **state)
{
	(void)state;
	for (int s3 = 0; s3 < 2; s3++) {
		start(s3, NULL, 0);
		write_all_forms();
		if (!s3)
			append_all();
		stop();
	}
}

/* Every answer may be lost, come late, be a refusal: all is published once and whole, and nothing is called a conflict. */
static void test_faults(void **state)
{
	(void)state;
	static const char *const faults[] = {"0.15:lost", "0.15:503", "0.1:reset"};
	for (int s3 = 0; s3 < 2; s3++) {
		start(s3, faults, CST_ARRAY_LEN(faults));
		write_all_forms();
		if (!s3)
			append_all();
		stop();
	}
}

/* The store goes away in the middle, and comes back: nobody is told anything but that it went well. */
static void test_down(void **state)
{
	(void)state;
	for (int s3 = 0; s3 < 2; s3++) {
		start(s3, NULL, 0);
		const char *address = f.bound;
		struct cst_store_config sc = {
			.dir = f.dir, .addresses = &address, .address_count = 1, .anonymous = true};
		struct cst_error err = CST_ERROR_INIT;
		struct cst_publish_stream *s = open_key("k", &none, false, CST_PUBLISH_WHOLE);
		struct outcome o = OUTCOME_INIT;
		struct cst_publish_sync y = {.done = on_sync, .arg = &o};
		write_some(s, 1, 0, 8 * MIB_);
		cst_store_stop(f.store, 0);
		write_some(s, 1, 8 * MIB_, 9 * MIB_);
		cst_publish_sync(s, &y);
		cst_sleep(CST_NS_PER_S / 3);
		must(cst_store_start(&sc, &f.store, &err) == 0, &err);
		if (wait_for(&o) < 0)
			fail_msg("%s", o.text);
		expect_object("k", 1, 17 * MIB_);
		cst_publish_stream_close(s, true);
		stop();
	}
}

/* ---- two writers ---- */

static unsigned kept;
static void count_kept(void *arg, const struct cst_keep_record *r)
{
	(void)arg;
	assert_string_equal(r->key, "k");
	kept++;
}

static void two(bool existing, size_t first_size, size_t second_size)
{
	struct cst_publish_base base = none, version;
	struct cst_error err = CST_ERROR_INIT;
	struct outcome o;
	if (existing) {
		struct cst_publish_stream *s = open_key("k", &none, false, CST_PUBLISH_WHOLE);
		write_some(s, 9, 0, 10);
		must_sync(s, &base);
		cst_publish_stream_close(s, true);
	}
	struct cst_publish_stream *a = open_key("k", &base, false, CST_PUBLISH_WHOLE);
	struct cst_publish_stream *b = open_key("k", &base, false, CST_PUBLISH_WHOLE);
	write_some(b, 2, 0, second_size);
	write_some(a, 1, 0, first_size);
	must_sync(a, &version);
	assert_int_equal(sync_stream(b, &o), -ESTALE);
	expect_object("k", 1, first_size);
	kept = 0;
	assert_int_equal(cst_keep_each(f.keep, count_kept, NULL, &err), 0);
	assert_int_equal(kept, 1);
	cst_publish_stream_close(a, true);
	cst_publish_stream_close(b, true);
}

static void conflicts(const char *const *faults, size_t count)
{
	static const size_t sizes[] = {100, 13 * MIB_};
	unsigned step = 1;
#ifdef __SANITIZE_THREAD__
	step = 3; /* of the sixteen, for they take minutes */
#endif
	for (unsigned i = 0; i < 16; i += step) {
		start(i & 1, faults, count);
		two(i & 2, sizes[i >> 2 & 1], sizes[i >> 3 & 1]);
		stop();
	}
}

static void test_conflicts(void **state)
{
	(void)state;
	conflicts(NULL, 0);
}

static void test_conflicts_and_faults(void **state)
{
	(void)state;
	static const char *const faults[] = {"0.2:lost", "0.2:503"};
	conflicts(faults, CST_ARRAY_LEN(faults));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_down),
		cmocka_unit_test(test_conflicts),
		cmocka_unit_test(test_conflicts_and_faults),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
