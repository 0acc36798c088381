/* Every writing operation against the embedded store, as OSS (V1 and V4) and as S3. */
#include "write_fixture.h"

#include "base/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct kind {
	enum cst_cloud cloud;
	enum cst_sign_kind sign;
};
static const struct kind kinds[] = {
	{CST_CLOUD_OSS, CST_SIGN_OSS_V1}, {CST_CLOUD_OSS, CST_SIGN_OSS_V4}, {CST_CLOUD_S3, CST_SIGN_S3_V4}};

static struct real_store store;
static bool s3;
static char memory[16 << 20], back[16 << 20];

static int setup_kind(void **state, const struct kind *k, const char *fault, bool tls)
{
	(void)state;
	s3 = k->cloud == CST_CLOUD_S3;
	real_store_start(&store, k->cloud, k->sign, fault, tls);
	for (size_t i = 0; i < sizeof(memory); i++)
		memory[i] = (char)(i * 2654435761u >> 13);
	return 0;
}
static int setup_v1(void **state)
{
	return setup_kind(state, &kinds[0], NULL, false);
}
static int setup_v4(void **state)
{
	return setup_kind(state, &kinds[1], NULL, false);
}
static int setup_s3(void **state)
{
	return setup_kind(state, &kinds[2], NULL, false);
}
static int setup_v4_tls(void **state)
{
	return setup_kind(state, &kinds[1], NULL, true);
}
static int setup_s3_tls_lost(void **state)
{
	return setup_kind(state, &kinds[2], "0.3:lost", true);
}
/* Every second answer gets lost when all is done. */
static int setup_v4_lost(void **state)
{
	return setup_kind(state, &kinds[1], "0.5:lost", false);
}
static int setup_s3_lost(void **state)
{
	return setup_kind(state, &kinds[2], "0.5:lost", false);
}
static int teardown(void **state)
{
	(void)state;
	real_store_stop(&store);
	return 0;
}

static const struct cst_slice odd_keys[] = {
	{"plain", 5},	    {"dir/a b+c%20%25&d=e?f#g", 23}, {"line\nend\ttab\rcr", 15}, {"latin\xe4\xff!", 8},
	{"ctl\x01\x7f", 5}, {"\xef\xbf\xbf-not-xml", 11},    {"<&>\"'/\xe4\xb8\xad", 9},
};

static int put(struct cst_slice key, size_t len, enum cst_object_condition condition, const char *if_match,
	       struct written *w)
{
	struct iovec iov[3] = {{memory, len / 3}, {NULL, 0}, {memory + len / 3, len - len / 3}};
	struct cst_http_header meta[] = {{CST_SLICE("cistern-write-id"), CST_SLICE("0123456789abcdef")},
					 {CST_SLICE("mode"), CST_SLICE("33188")}};
	struct cst_object_properties p = {
		.meta = meta, .meta_count = 2, .content_type = CST_SLICE("text/x-test"), .storage_class = {0}};
	struct cst_object_put put = {.key = key,
				     .body = {.iov = iov, .iov_count = 3, .length = len},
				     .condition = condition,
				     .if_match = if_match,
				     .properties = &p};
	written_init(w);
	return finish(cst_object_put(store.bucket, &put, on_written, w), w);
}

static void puts_and_conditions(void **state)
{
	(void)state;
	struct written w, w2;
	struct cst_object_info info;
	for (size_t i = 0; i < CST_ARRAY_LEN(odd_keys); i++) {
		size_t len = i * 1000;
		assert_int_equal(put(odd_keys[i], len, CST_OBJECT_IF_ABSENT, NULL, &w), 0);
		assert_false(w.repeated);
		assert_int_equal(w.info.size, len);
		assert_int_equal(real_store_read(&store, odd_keys[i], back, sizeof(back), &info), len);
		assert_memory_equal(back, memory, len);
		assert_string_equal(info.etag, w.info.etag);
		/* The answer's time, on a busy machine. */
		assert_true(info.mtime >= w.info.mtime - 60 && info.mtime <= w.info.mtime + 1);
		/* It is there now. */
		assert_int_equal(put(odd_keys[i], len, CST_OBJECT_IF_ABSENT, NULL, &w2), -EEXIST);
		assert_false(w2.repeated);
		written_fini(&w2);
		if (s3) {
			assert_int_equal(put(odd_keys[i], len + 1, CST_OBJECT_IF_MATCH, w.info.etag, &w2), 0);
			written_fini(&w2);
		}
		/* On S3 the version is another one by now; OSS has no such condition. */
		assert_int_equal(put(odd_keys[i], len, CST_OBJECT_IF_MATCH, w.info.etag, &w2), s3 ? -ESTALE : -ENOTSUP);
		written_fini(&w2);
		written_fini(&w);
	}
	assert_int_equal(put(CST_SLICE("absent"), 1, CST_OBJECT_IF_MATCH, "abc", &w), s3 ? -ESTALE : -ENOTSUP);
	written_fini(&w);
}

static void properties_go_along(void **state)
{
	(void)state;
	struct written w;
	struct outcome o;
	assert_int_equal(put(CST_SLICE("k"), 5, CST_OBJECT_ANY, NULL, &w), 0);
	written_fini(&w);
	outcome_init(&o);
	struct cst_object_op *op = cst_object_head(store.bucket, CST_SLICE("k"), false, outcome_head, &o);
	outcome_wait(&o);
	cst_object_release(op);
	assert_string_equal(o.meta.data, "cistern-write-id=0123456789abcdef;mode=33188;text/x-test");
	outcome_fini(&o);
}

static int begin(struct cst_slice key, struct written *w)
{
	written_init(w);
	return finish(cst_object_multipart_begin(store.bucket, key, NULL, on_written, w), w);
}

static int put_part(struct cst_slice key, struct cst_slice id, unsigned number, size_t at, size_t len,
		    struct written *w)
{
	struct iovec iov = {memory + at, len};
	struct cst_object_part_put part = {.key = key,
					   .upload_id = id,
					   .number = number,
					   .body = {.iov = &iov,
						    .iov_count = 1,
						    .length = len,
						    .crc64 = cst_crc64(0, memory + at, len),
						    .has_crc64 = true}};
	written_init(w);
	return finish(cst_object_part_put(store.bucket, &part, on_written, w), w);
}

static int complete(struct cst_slice key, struct cst_slice id, const struct cst_object_part *parts, size_t count,
		    uint64_t crc64, enum cst_object_condition condition, struct written *w)
{
	struct cst_object_complete c = {.key = key,
					.upload_id = id,
					.parts = parts,
					.part_count = count,
					.crc64 = crc64,
					.has_crc64 = true,
					.condition = condition};
	written_init(w);
	return finish(cst_object_multipart_complete(store.bucket, &c, on_written, w), w);
}

#define PART ((size_t)5 << 20)

static void uploads_in_parts(void **state)
{
	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(odd_keys); i += i ? 2 : 1) {
		struct cst_slice key = odd_keys[i];
		struct written u, w;
		struct cst_object_part parts[3];
		struct cst_object_info info;
		assert_int_equal(begin(key, &u), 0);
		struct cst_slice id = cst_buf_slice(&u.upload_id);
		assert_true(id.len > 0);
		assert_int_equal(put_part(key, id, 1, 0, PART, &w), 0);
		parts[0] = w.part;
		written_fini(&w);
		assert_int_equal(put_part(key, id, 7, 2 * PART, 12345, &w), 0);
		parts[2] = w.part;
		assert_int_equal(w.part.number, 7);
		assert_int_equal(w.part.size, 12345);
		assert_true(w.part.has_crc64 && w.part.crc64 == cst_crc64(0, memory + 2 * PART, 12345));
		assert_int_equal(strlen(w.part.crc32c), s3 ? 8 : 0);
		written_fini(&w);
		/* The second part comes from another object. */
		assert_int_equal(put(CST_SLICE("source/%41 +"), 3 * PART, CST_OBJECT_ANY, NULL, &w), 0);
		struct cst_object_part_copy copy = {.key = key,
						    .upload_id = id,
						    .number = 2,
						    .source = CST_SLICE("source/%41 +"),
						    .if_match = w.info.etag,
						    .offset = PART,
						    .length = PART};
		struct written c;
		written_init(&c);
		assert_int_equal(finish(cst_object_part_copy(store.bucket, &copy, on_written, &c), &c), 0);
		parts[1] = c.part;
		assert_int_equal(parts[1].size, PART);
		written_fini(&c);
		copy.if_match = "another";
		written_init(&c);
		assert_int_equal(finish(cst_object_part_copy(store.bucket, &copy, on_written, &c), &c), -ESTALE);
		written_fini(&c);
		copy.source = CST_SLICE("no such");
		written_init(&c);
		assert_int_equal(finish(cst_object_part_copy(store.bucket, &copy, on_written, &c), &c), -ENOENT);
		written_fini(&c);
		written_fini(&w);

		/* What is known of it. */
		CST_AUTO_BUF expected = CST_BUF_INIT;
		cst_buf_printf(&expected, "1:%zu:%s;2:%zu:%s;7:12345:%s;", PART, parts[0].etag, PART, parts[1].etag,
			       parts[2].etag);
		written_init(&w);
		assert_int_equal(finish(cst_object_list_parts(store.bucket, key, id, 0, &on_parts, &w), &w), 0);
		assert_string_equal(w.list.data, expected.data);
		assert_int_equal(w.next, 0);
		assert_true(s3 || (w.part.has_crc64 && w.part.crc64 == parts[2].crc64));
		written_fini(&w);
		written_init(&w);
		assert_int_equal(finish(cst_object_list_parts(store.bucket, key, id, 2, &on_parts, &w), &w), 0);
		assert_ptr_equal(strstr(w.list.data, "7:"), w.list.data);
		written_fini(&w);
		cst_buf_clear(&expected);
		cst_buf_printf(&expected, "%.*s:%.*s:1;", (int)key.len, key.data, (int)id.len, id.data);
		written_init(&w);
		assert_int_equal(finish(cst_object_list_uploads(store.bucket, key, (struct cst_slice){0},
								(struct cst_slice){0}, &on_uploads, &w),
					&w),
				 0);
		assert_int_equal(w.list.len, expected.len);
		assert_memory_equal(w.list.data, expected.data, expected.len);
		assert_int_equal(w.next_key.len, 0);
		written_fini(&w);

		uint64_t crc = cst_crc64(0, memory, 2 * PART + 12345);
		assert_int_equal(complete(key, id, parts, 3, crc, CST_OBJECT_IF_ABSENT, &w), 0);
		assert_int_equal(w.info.size, 2 * PART + 12345);
		assert_int_equal(real_store_read(&store, key, back, sizeof(back), &info), 2 * PART + 12345);
		assert_memory_equal(back, memory, 2 * PART + 12345);
		assert_string_equal(info.etag, w.info.etag);
		written_fini(&w);
		/* S3 answers the same completion again; to OSS the upload is gone. */
		int rc = complete(key, id, parts, 3, crc, CST_OBJECT_ANY, &w);
		assert_int_equal(rc, s3 ? 0 : -ENOENT);
		written_fini(&w);
		written_fini(&u);
		/* One more, which may not replace what is there by now. */
		assert_int_equal(begin(key, &u), 0);
		id = cst_buf_slice(&u.upload_id);
		assert_int_equal(put_part(key, id, 1, 1, 1000, &w), 0);
		parts[0] = w.part;
		written_fini(&w);
		crc = cst_crc64(0, memory + 1, 1000);
		assert_int_equal(complete(key, id, parts, 1, crc, CST_OBJECT_IF_ABSENT, &w), -EEXIST);
		assert_false(w.repeated);
		written_fini(&w);
		for (int twice = 0; twice < 2; twice++) {
			written_init(&w);
			assert_int_equal(finish(cst_object_multipart_abort(store.bucket, key, id, on_written, &w), &w),
					 0);
			written_fini(&w);
		}
		assert_int_equal(put_part(key, id, 1, 0, 10, &w), -ENOENT);
		assert_non_null(strstr(w.text, "NoSuchUpload"));
		written_fini(&w);
		written_fini(&u);
	}
}

static void copies(void **state)
{
	(void)state;
	struct written w, source;
	struct cst_object_info info;
	assert_int_equal(put(CST_SLICE("from/\xff+ %"), 4000, CST_OBJECT_ANY, NULL, &source), 0);
	struct cst_object_copy copy = {.source = CST_SLICE("from/\xff+ %"),
				       .key = CST_SLICE("to/\n+"),
				       .source_if_match = source.info.etag,
				       .condition = CST_OBJECT_IF_ABSENT};
	written_init(&w);
	assert_int_equal(finish(cst_object_copy(store.bucket, &copy, on_written, &w), &w), 0);
	assert_int_equal(real_store_read(&store, copy.key, back, sizeof(back), &info), 4000);
	assert_string_equal(info.etag, w.info.etag);
	written_fini(&w);
	written_init(&w);
	assert_int_equal(finish(cst_object_copy(store.bucket, &copy, on_written, &w), &w), -EEXIST);
	written_fini(&w);
	copy.source_if_match = "0000";
	copy.condition = CST_OBJECT_ANY;
	written_init(&w);
	assert_int_equal(finish(cst_object_copy(store.bucket, &copy, on_written, &w), &w), -ESTALE);
	written_fini(&w);
	copy.source = CST_SLICE("nothing");
	written_init(&w);
	assert_int_equal(finish(cst_object_copy(store.bucket, &copy, on_written, &w), &w), -ENOENT);
	written_fini(&w);
	/* Onto itself, with other metadata. */
	struct cst_http_header meta = {CST_SLICE("uid"), CST_SLICE("7")};
	struct cst_object_properties p = {.meta = &meta, .meta_count = 1};
	copy = (struct cst_object_copy){.source = CST_SLICE("from/\xff+ %"),
					.key = CST_SLICE("from/\xff+ %"),
					.source_if_match = source.info.etag,
					.properties = &p};
	written_init(&w);
	assert_int_equal(finish(cst_object_copy(store.bucket, &copy, on_written, &w), &w), 0);
	written_fini(&w);
	struct outcome o;
	outcome_init(&o);
	struct cst_object_op *op = cst_object_head(store.bucket, copy.key, false, outcome_head, &o);
	outcome_wait(&o);
	cst_object_release(op);
	assert_string_equal(o.meta.data, "uid=7;application/octet-stream");
	outcome_fini(&o);
	written_fini(&source);
}

static void deletes(void **state)
{
	(void)state;
	struct written w;
	struct cst_object_info info;
	struct cst_slice keys[CST_ARRAY_LEN(odd_keys) + 1];
	for (size_t i = 0; i < CST_ARRAY_LEN(odd_keys); i++) {
		keys[i] = odd_keys[i];
		assert_int_equal(put(odd_keys[i], 3, CST_OBJECT_ANY, NULL, &w), 0);
		written_fini(&w);
	}
	keys[CST_ARRAY_LEN(odd_keys)] = CST_SLICE("never/there");
	written_init(&w);
	assert_int_equal(finish(cst_object_delete_many(store.bucket, keys, CST_ARRAY_LEN(keys), &on_delete, &w), &w),
			 0);
	assert_int_equal(w.list.len, 0);
	written_fini(&w);
	for (size_t i = 0; i < CST_ARRAY_LEN(keys); i++)
		assert_int_equal(real_store_read(&store, keys[i], back, sizeof(back), &info), -ENOENT);
	/* One by one; twice is no error. */
	assert_int_equal(put(odd_keys[4], 3, CST_OBJECT_ANY, NULL, &w), 0);
	written_fini(&w);
	for (int twice = 0; twice < 2; twice++) {
		written_init(&w);
		assert_int_equal(finish(cst_object_delete(store.bucket, odd_keys[4], NULL, on_written, &w), &w), 0);
		written_fini(&w);
	}
	written_init(&w);
	if (!s3)
		assert_int_equal(finish(cst_object_delete(store.bucket, odd_keys[4], "abc", on_written, &w), &w),
				 -ENOTSUP);
	written_fini(&w);
}

static int append(struct cst_slice key, uint64_t position, size_t len, struct written *w)
{
	struct iovec iov = {memory + position, len};
	struct cst_object_append a = {.key = key,
				      .position = position,
				      .body = {.iov = &iov, .iov_count = 1, .length = len},
				      .crc64_before = cst_crc64(0, memory, position),
				      .has_crc64_before = true};
	written_init(w);
	return finish(cst_object_append(store.bucket, &a, on_written, w), w);
}

static void appends(void **state)
{
	(void)state;
	struct written w;
	struct cst_object_info info;
	struct cst_slice key = CST_SLICE("log+ %");
	if (s3) {
		assert_int_equal(append(key, 0, 10, &w), -ENOTSUP);
		assert_non_null(strstr(w.text, "only OSS has appendable objects"));
		written_fini(&w);
		return;
	}
	size_t at = 0;
	for (size_t len = 1; len < 100000; len *= 10) {
		assert_int_equal(append(key, at, len, &w), 0);
		at += len;
		assert_int_equal(w.next_position, at);
		assert_int_equal(w.info.size, at);
		assert_true(w.info.type == CST_OBJECT_APPENDABLE);
		written_fini(&w);
	}
	assert_int_equal(real_store_read(&store, key, back, sizeof(back), &info), at);
	assert_memory_equal(back, memory, at);
	assert_int_equal(append(key, 5, 10, &w), -ERANGE);
	assert_int_equal(w.next_position, at);
	assert_false(w.repeated);
	written_fini(&w);
	assert_int_equal(put(CST_SLICE("n"), 10, CST_OBJECT_ANY, NULL, &w), 0);
	written_fini(&w);
	assert_int_equal(append(CST_SLICE("n"), 10, 10, &w), -EPERM);
	written_fini(&w);
}

static void symlinks(void **state)
{
	(void)state;
	struct written w;
	struct cst_slice target = CST_SLICE("a b/\xe4+%"), key = CST_SLICE("link");
	for (int again = 0; again < 2; again++) {
		written_init(&w);
		int rc = finish(
			cst_object_put_symlink(store.bucket, key, target, NULL, CST_OBJECT_IF_ABSENT, on_written, &w),
			&w);
		assert_int_equal(rc, s3 ? -ENOTSUP : again ? -EEXIST : 0);
		written_fini(&w);
	}
	if (s3)
		return;
	struct outcome o;
	outcome_init(&o);
	struct cst_object_op *op = cst_object_get_symlink(store.bucket, key, outcome_symlink, &o);
	outcome_wait(&o);
	cst_object_release(op);
	assert_int_equal(o.rc, 0);
	assert_memory_equal(o.entries.data, target.data, target.len);
	outcome_fini(&o);
}

static void many_uploads_in_pages(void **state)
{
	(void)state;
	struct written w, page;
	for (int i = 0; i < 1203; i++) {
		char name[32];
		snprintf(name, sizeof(name), "many/%05d+%%", i / 2);
		assert_int_equal(begin(cst_slice_of(name), &w), 0);
		written_fini(&w);
	}
	unsigned pages = 0, count = 0;
	CST_AUTO_BUF key = CST_BUF_INIT, id = CST_BUF_INIT;
	do {
		written_init(&page);
		assert_int_equal(finish(cst_object_list_uploads(store.bucket, CST_SLICE("many/"), cst_buf_slice(&key),
								cst_buf_slice(&id), &on_uploads, &page),
					&page),
				 0);
		for (size_t i = 0; i < page.list.len; i++)
			count += page.list.data[i] == ';';
		cst_buf_clear(&key);
		cst_buf_clear(&id);
		cst_buf_add_slice(&key, cst_buf_slice(&page.next_key));
		cst_buf_add_slice(&id, cst_buf_slice(&page.next_id));
		written_fini(&page);
		pages++;
	} while (key.len);
	assert_int_equal(count, 1203);
	assert_int_equal(pages, 2);
}

/* Half of the answers never come. Each outcome says what the caller must know to tell its own work from another's. */
static void lost_answers(void **state)
{
	(void)state;
	struct written w;
	unsigned sure = 0, doubted = 0;
	for (int i = 0; i < 60; i++) {
		char name[32];
		snprintf(name, sizeof(name), "lost/%d", i);
		int rc = put(cst_slice_of(name), 1000, CST_OBJECT_IF_ABSENT, NULL, &w);
		/* It is there either way; who finds it there may have made it. */
		assert_true((rc == 0 && !w.repeated) || (rc == -EEXIST && w.repeated));
		sure += rc == 0;
		doubted += rc != 0;
		written_fini(&w);
	}
	assert_true(sure > 5 && doubted > 5);
	if (s3)
		return;
	/* Appends can tell by themselves. */
	for (size_t at = 0, i = 0; i < 60; i++, at += 100) {
		assert_int_equal(append(CST_SLICE("lost-log"), at, 100, &w), 0);
		assert_int_equal(w.next_position, at + 100);
		written_fini(&w);
	}
}

/* A store that refuses a large body may close before it has read it: what it said is read nevertheless. */
static void refused_while_sending(void **state)
{
	(void)state;
	size_t size = (size_t)64 << 20;
	char *large = cst_xcalloc(1, size);
	struct cst_credentials_config cc = {.cloud = CST_CLOUD_OSS, .access_key = "ak", .secret_key = "wrong"};
	struct cst_bucket_config c = {.cloud = CST_CLOUD_OSS,
				      .bucket = "bkt",
				      .endpoint = store.endpoint,
				      .region = "cn-test",
				      .credentials = cst_credentials_new(&cc, NULL),
				      .http = store.http};
	struct cst_bucket *bucket = cst_bucket_new(&c, NULL);
	struct iovec body = {large, size};
	struct cst_object_put p = {.key = CST_SLICE("k"), .body = {.iov = &body, .iov_count = 1, .length = size}};
	for (int i = 0; i < 10; i++) {
		struct written w;
		written_init(&w);
		int rc = finish(cst_object_put(bucket, &p, on_written, &w), &w);
		if (rc != -EACCES || strcmp(w.err.api, "SignatureDoesNotMatch") != 0)
			fail_msg("%d: %s", rc, w.text);
		assert_false(w.repeated);
		written_fini(&w);
	}
	cst_bucket_free(bucket);
	cst_credentials_free(c.credentials);
	free(large);
}

#define ALL(setup, name)                                                                                              \
	{name ": put, conditions, odd keys", puts_and_conditions, setup, teardown, NULL},                             \
		{name ": properties", properties_go_along, setup, teardown, NULL},                                    \
		{name ": uploads", uploads_in_parts, setup, teardown, NULL},                                          \
		{name ": copies", copies, setup, teardown, NULL}, {name ": deletes", deletes, setup, teardown, NULL}, \
		{name ": appends", appends, setup, teardown, NULL},                                                   \
	{                                                                                                             \
		name ": symlinks", symlinks, setup, teardown, NULL                                                    \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ALL(setup_v1, "OSS V1"),
		ALL(setup_v4, "OSS V4"),
		ALL(setup_s3, "S3"),
		ALL(setup_v4_tls, "OSS V4, TLS"),
		{"S3, TLS: lost answers", lost_answers, setup_s3_tls_lost, teardown, NULL},
		{"refused while sending", refused_while_sending, setup_v4, teardown, NULL},
		{"TLS: refused while sending", refused_while_sending, setup_v4_tls, teardown, NULL},
		{"pages of uploads", many_uploads_in_pages, setup_v4, teardown, NULL},
		{"S3: pages of uploads", many_uploads_in_pages, setup_s3, teardown, NULL},
		{"lost answers", lost_answers, setup_v4_lost, teardown, NULL},
		{"S3: lost answers", lost_answers, setup_s3_lost, teardown, NULL},
	};
	return cmocka_run_group_tests_name("write_store", tests, NULL, NULL);
}
