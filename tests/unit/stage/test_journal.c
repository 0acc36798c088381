/* The journal: records as bytes, going over to the other file, torn tails, damage, joint commits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define CST_LOG_AREA "test"
#include "base/clock.h"
#include "base/digest.h"
#include "base/log.h"
#include "disk.h"
#include "stage/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static struct cst_journal *open_on(struct disk *d, struct cst_error *err, int *rc)
{
	const struct cst_journal_config config = {.io = disk_io(d), .owner = "oss://b/p", .size = 1};
	struct cst_journal *j = NULL;
	*rc = cst_journal_open(&config, &j, err);
	return *rc == 0 ? j : NULL;
}

static struct cst_journal *open_good(struct disk *d)
{
	int rc;
	struct cst_journal *j = open_on(d, NULL, &rc);
	assert_int_equal(rc, 0);
	return j;
}

static bool keep_all(void *arg, uint64_t unit)
{
	(void)arg;
	(void)unit;
	return true;
}

/* ---- records ---- */

static void test_record_format(void **state)
{
	static const uint8_t tag_bytes[] = {0x44, 0x33, 0x22, 0x11};
	static const uint8_t body[] = {0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0,
				       0,    5,	   0,	 0,    0,    0,	   0,	 0,    0, 7, 0, 0, 0, 0, 0, 0, 0, 1};
	struct cst_extent e = {.start = 5, .length = 7, .kind = CST_STAGE_SECOND}, room[CST_RECORD_EXTENTS_MAX];
	struct cst_record r = {.kind = CST_RECORD_EXTENTS,
			       .id = 0x1112131415161718,
			       .slots = {1, 2},
			       .extents = &e,
			       .extent_count = 1};
	struct cst_record back;
	struct cst_record_place place;
	uint32_t tag = 0x11223344, other = 0x11223345;
	CST_AUTO_BUF bytes = CST_BUF_INIT;
	(void)state;
	cst_record_encode(&r, tag, 9, 8, &bytes);
	/* head 32, id 8, slots 8, count 4, extent 17 */
	assert_int_equal(bytes.len, 96);
	uint8_t *b = (uint8_t *)bytes.data;
	assert_memory_equal(b + 4, tag_bytes, sizeof(tag_bytes));
	assert_int_equal(b[8], 32 + 8 + 8 + 4 + 17);
	assert_int_equal(b[12], CST_RECORD_EXTENTS);
	assert_int_equal(b[16], 9);
	assert_int_equal(b[24], 8);
	assert_memory_equal(b + 32, body, sizeof(body));
	uint32_t crc = cst_crc32c(0, b + 4, 69 - 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(b[i], crc >> (8 * i) & 0xff);
	assert_int_equal(cst_record_decode(b, bytes.len, &tag, &back, room, &place), 0);
	assert_true(place.number == 9 && place.synced == 8 && place.size == 96 && place.tag == tag);
	assert_true(back.extent_count == 1 && room[0].start == 5 && room[0].length == 7 &&
		    room[0].kind == CST_STAGE_SECOND);
	assert_int_equal(cst_record_decode(b, bytes.len, &other, &back, room, &place), -EBADMSG);
	for (unsigned i = 0; i < 69 * 8; i++) {
		b[i / 8] ^= (uint8_t)(1u << i % 8);
		assert_int_equal(cst_record_decode(b, bytes.len, &tag, &back, room, &place), -EBADMSG);
		b[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	for (size_t len = 0; len < 69; len++)
		assert_int_equal(cst_record_decode(b, len, &tag, &back, room, &place), -EBADMSG);
}

static void test_all_kinds_come_back(void **state)
{
	static struct cst_extent extents[CST_RECORD_EXTENTS_MAX], room[CST_RECORD_EXTENTS_MAX];
	static char data[CST_RECORD_DATA];
	(void)state;
	for (unsigned i = 0; i < CST_RECORD_EXTENTS_MAX; i++)
		extents[i] = (struct cst_extent){i * 10, 5, i % 3 == 2 ? CST_STAGE_ZERO : i % 3};
	for (unsigned kind = 0; kind < CST_RECORD_KINDS; kind++) {
		struct cst_record r = {.kind = kind,
				       .id = 77,
				       .size = 1000,
				       .next = 78,
				       .phase = 3,
				       .slots = {4, 5},
				       .base = {.exists = true, .size = 99, .etag = "abc"},
				       .key = CST_SLICE("a key\n\xff"),
				       .to = CST_SLICE(""),
				       .data = {data, sizeof(data)},
				       .extents = extents,
				       .extent_count = CST_RECORD_EXTENTS_MAX};
		struct cst_record back;
		struct cst_record_place place;
		CST_AUTO_BUF bytes = CST_BUF_INIT, again = CST_BUF_INIT;
		assert_int_equal(cst_record_check(&r), 0);
		cst_record_encode(&r, 1, 2, 3, &bytes);
		assert_int_equal(bytes.len, cst_record_size(&r));
		assert_true(bytes.len <= CST_RECORD_MAX && bytes.len % CST_RECORD_ALIGN == 0);
		assert_int_equal(cst_record_decode(bytes.data, bytes.len, NULL, &back, room, &place), 0);
		cst_record_encode(&back, 1, 2, 3, &again);
		assert_int_equal(bytes.len, again.len);
		assert_memory_equal(bytes.data, again.data, bytes.len);
		assert_true(strlen(cst_record_name(r.kind)) > 2);
	}
}

/* ---- states ---- */

static void add_record(void *arg, const struct cst_record *r)
{
	cst_record_encode(r, 0, 0, 0, arg);
}

static void take_state(void *arg, const struct cst_state *state)
{
	cst_state_each(state, add_record, arg);
}

static uint64_t random_state = 88172645463325252u;

static uint64_t any(uint64_t below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % below;
}

/* A random change that makes sense; *id: a file that is there, 0: none. */
static uint64_t append_any(struct cst_journal *j, uint64_t *id, bool *sealed)
{
	struct cst_extent e[20];
	struct cst_record r = {.id = *id, .slots = {7, 8}};
	uint64_t at = 0, what = any(10);
	if (*id == 0) {
		r.kind = CST_RECORD_CREATE;
		r.id = *id = cst_journal_new_id(j);
		r.key = CST_SLICE("some/key");
		r.size = any(100);
		r.base = (struct cst_stage_base){.exists = any(2), .size = 50, .etag = "e"};
		r.base.size = r.base.exists ? 50 : 0;
		*sealed = false;
	} else if (what < 5) {
		uint64_t pos = 0;
		r.kind = CST_RECORD_EXTENTS;
		r.extents = e;
		for (r.extent_count = 0; r.extent_count < any(20);) {
			e[r.extent_count] = (struct cst_extent){pos + any(10), 1 + any(10), (uint8_t)any(3)};
			pos = e[r.extent_count].start + e[r.extent_count].length;
			r.extent_count++;
		}
	} else if (what == 5) {
		r.kind = CST_RECORD_TRUNCATE;
		r.size = any(300);
	} else if (what == 6) {
		r.kind = CST_RECORD_ATTRIBUTES;
		r.data = CST_SLICE("mode 0644");
	} else if (what == 7 && !*sealed) {
		r.kind = CST_RECORD_PUBLISH_BEGIN;
		r.key = CST_SLICE("write");
		*sealed = true;
	} else if (what == 8 && *sealed) {
		r.kind = any(2) ? CST_RECORD_PUBLISH_DONE : CST_RECORD_PUBLISH_FAILED;
		r.base = (struct cst_stage_base){.exists = true, .etag = "f"};
		*sealed = false;
	} else if (what == 9 && any(5) == 0) {
		r.kind = CST_RECORD_FORGET;
		*id = 0;
	} else {
		r.kind = CST_RECORD_CONFLICT;
		r.data = CST_SLICE("why");
	}
	assert_int_equal(cst_journal_append(j, &r, 1, &at), 0);
	return at;
}

/* The state in memory, the one that a restart reads and the one after going over to the other file are the same. */
static void test_checkpoints(void **state)
{
	(void)state;
	struct disk *d = disk_new();
	struct cst_journal *j = open_good(d);
	struct cst_journal_stats stats;
	uint64_t ids[5] = {0}, checkpoints = 0;
	bool sealed[5] = {false};
	for (unsigned round = 0; round < 12; round++) {
		CST_AUTO_BUF before = CST_BUF_INIT, after = CST_BUF_INIT;
		for (unsigned i = 0; i < 4000; i++) {
			unsigned n = (unsigned)any(5);
			append_any(j, &ids[n], &sealed[n]);
		}
		cst_journal_read(j, take_state, &before);
		cst_journal_stats(j, &stats);
		checkpoints += stats.checkpoints;
		assert_true(stats.used <= stats.capacity / 2);
		cst_journal_close(j);
		disk_restart(d, keep_all, NULL);
		j = open_good(d);
		cst_journal_read(j, take_state, &after);
		assert_true(before.len > 0);
		assert_int_equal(before.len, after.len);
		assert_memory_equal(before.data, after.data, before.len);
	}
	assert_true(checkpoints > 12); /* more than one each time it was opened */
	cst_journal_close(j);
	disk_free(d);
}

/* ---- tails ---- */

struct cut_case {
	struct cst_buf states[200]; /* after each record */
	uint64_t ends[200];
	unsigned count;
};

static bool same_state(const struct cst_buf *a, const struct cst_buf *b)
{
	return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static void test_tail_torn_anywhere(void **state)
{
	(void)state;
	struct disk *d = disk_new();
	struct cst_journal *j = open_good(d);
	CST_AUTO_FREE struct cut_case *c = CST_NEW(struct cut_case);
	struct cst_journal_stats stats;
	uint64_t id = 0, at = 0;
	bool sealed = false;
	size_t size;
	for (c->count = 0; c->count < 200; c->count++) {
		cst_journal_stats(j, &stats);
		c->ends[c->count] = stats.used;
		cst_journal_read(j, take_state, &c->states[c->count]);
		at = append_any(j, &id, &sealed);
	}
	assert_int_equal(cst_journal_commit(j, at), 0);
	cst_journal_stats(j, &stats);
	char *bytes = disk_bytes(d, "journal.0", &size);
	CST_AUTO_BUF copy = CST_BUF_INIT;
	/* Cut: what comes after is not there; or zeros, or something else. */
	for (uint64_t cut = c->ends[0]; cut < stats.used; cut += 1 + any(5)) {
		struct cst_journal_scan scan;
		CST_AUTO_BUF found = CST_BUF_INIT;
		cst_buf_clear(&copy);
		cst_buf_add(&copy, bytes, (size_t)cut);
		for (uint64_t i = cut; cut % 3 && i < stats.used; i++)
			cst_buf_add_char(&copy, cut % 3 == 1 ? 0 : (char)any(256));
		cst_journal_scan(copy.data, copy.len, &scan, NULL, NULL);
		/* Zeros may have been there before. */
		uint64_t same = 0;
		unsigned n = 0;
		while (same < copy.len && same < stats.used && copy.data[same] == bytes[same])
			same++;
		while (n + 1 < c->count && c->ends[n + 1] <= same)
			n++;
		assert_true(scan.whole && !scan.damaged && !scan.continued);
		take_state(&found, &scan.state);
		/* The padding of a record is no part of it. */
		bool padding = n + 1 < c->count && c->ends[n + 1] - same < CST_RECORD_ALIGN;
		assert_true(same_state(&found, &c->states[n]) || (padding && same_state(&found, &c->states[n + 1])) ||
			    same + CST_RECORD_ALIGN > stats.used);
		cst_state_fini(&scan.state);
	}
	cst_journal_close(j);
	for (unsigned i = 0; i < c->count; i++)
		cst_buf_fini(&c->states[i]);
	disk_free(d);
}

/* Three commits; bytes of the first one's record change. */
static void test_damage_is_refused(void **state)
{
	(void)state;
	struct disk *d = disk_new();
	struct cst_journal *j = open_good(d);
	struct cst_journal_stats stats;
	struct cst_error err = CST_ERROR_INIT;
	uint64_t offset = 0, at;
	size_t size;
	int rc;
	for (unsigned i = 0; i < 3; i++) {
		struct cst_record r = {.kind = CST_RECORD_MKDIR, .id = cst_journal_new_id(j), .key = CST_SLICE("dir")};
		cst_journal_stats(j, &stats);
		offset = i == 0 ? stats.used : offset;
		assert_int_equal(cst_journal_append(j, &r, 1, &at), 0);
		assert_int_equal(cst_journal_commit(j, at), 0);
	}
	char *bytes = disk_bytes(d, "journal.0", &size);
	bytes[offset + 40] ^= 1;
	CST_AUTO_BUF before = CST_BUF_INIT;
	cst_buf_add(&before, bytes, size);
	cst_journal_close(j);
	assert_null(open_on(d, &err, &rc));
	assert_int_equal(rc, -EBADMSG);
	assert_non_null(strstr(err.why, "journal.0"));
	assert_non_null(strstr(err.why, "synced"));
	assert_true(err.hint[0]);
	/* Nothing was changed. */
	bytes = disk_bytes(d, "journal.0", &size);
	assert_int_equal(size, before.len);
	assert_memory_equal(bytes, before.data, size);
	/* Mended it is read. */
	bytes[offset + 40] ^= 1;
	cst_journal_close(open_good(d));
	disk_free(d);
}

static void spoil(struct disk *d, const char *name)
{
	size_t size;
	char *bytes = disk_bytes(d, name, &size);
	bytes[20] ^= 0x55;
}

/* A file that goes on in another one which isn't whole: not the older state instead. */
static void test_a_lost_file_is_refused(void **state)
{
	(void)state;
	struct cst_error err = CST_ERROR_INIT;
	struct disk *d = disk_new();
	int rc;
	cst_journal_close(open_good(d)); /* current: 0 */
	spoil(d, "journal.0");
	assert_null(open_on(d, &err, &rc));
	assert_int_equal(rc, -EBADMSG);
	spoil(d, "journal.0");
	cst_journal_close(open_good(d)); /* current: 1; 0 goes on in it */
	spoil(d, "journal.1");
	assert_null(open_on(d, &err, &rc));
	assert_int_equal(rc, -EBADMSG);
	spoil(d, "journal.1");
	/* The older one may be lost. */
	spoil(d, "journal.0");
	cst_journal_close(open_good(d));
	disk_free(d);
}

static void test_another_owner(void **state)
{
	(void)state;
	struct cst_error err = CST_ERROR_INIT;
	struct disk *d = disk_new();
	const struct cst_journal_config config = {.io = disk_io(d), .owner = "oss://other"};
	struct cst_journal *j;
	cst_journal_close(open_good(d));
	assert_int_equal(cst_journal_open(&config, &j, &err), -EBUSY);
	assert_non_null(strstr(err.what, "oss://b/p"));
	cst_journal_close(open_good(d));
	disk_free(d);
}

static void count_line(void *arg, const char *text)
{
	unsigned *counts = arg;
	counts[0]++;
	counts[1] +=
		strstr(text, "rename") && strstr(text, "\"a\"") && strstr(text, "\"b\"") && strstr(text, "phase=2");
	counts[2] += strstr(text, "end:") != NULL;
}

static void test_printing(void **state)
{
	(void)state;
	struct disk *d = disk_new();
	struct cst_journal *j = open_good(d);
	struct cst_record r = {.kind = CST_RECORD_RENAME,
			       .id = cst_journal_new_id(j),
			       .key = CST_SLICE("a"),
			       .to = CST_SLICE("b"),
			       .phase = 2};
	unsigned counts[3] = {0};
	uint64_t at;
	assert_int_equal(cst_journal_append(j, &r, 1, &at), 0);
	cst_journal_close(j);
	assert_int_equal(cst_journal_print(disk_io(d), 0, count_line, counts, NULL), 0);
	assert_int_equal(counts[1], 1);
	assert_int_equal(counts[2], 2);
	disk_free(d);
}

/* A promise keeps: on a disk that is full from then on as many records find room. */
static void test_promises(void **state)
{
	(void)state;
	struct disk *d = disk_new();
	struct cst_journal *j = open_good(d);
	char data[3000] = {0};
	uint64_t at, size = 0;
	struct cst_record r = {.kind = CST_RECORD_SYMLINK, .key = CST_SLICE("l"), .data = {data, sizeof(data)}};
	for (unsigned i = 0; i < 200; i++)
		size += cst_record_size(&r) + 200;
	assert_int_equal(cst_journal_promise(j, size), 0);
	for (unsigned i = 0; i < 200; i++) {
		r.id = cst_journal_new_id(j);
		uint64_t capacity_before, capacity;
		struct cst_journal_stats stats;
		cst_journal_stats(j, &stats);
		capacity_before = stats.capacity;
		cst_journal_unpromise(j, cst_record_size(&r) + 200);
		assert_int_equal(cst_journal_append(j, &r, 1, &at), 0);
		cst_journal_stats(j, &stats);
		capacity = stats.capacity;
		assert_int_equal(capacity, capacity_before);
	}
	assert_int_equal(cst_journal_promise(j, UINT64_C(8) << 30), -ENOSPC);
	cst_journal_close(j);
	disk_free(d);
}

/* ---- on a real disk ---- */

static char directory[64];
static int dir_fd;

static int directory_make(void **state)
{
	(void)state;
	snprintf(directory, sizeof(directory), "/tmp/cistern-stage-XXXXXX");
	if (!mkdtemp(directory))
		return -1;
	dir_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir_fd < 0;
}

static int directory_remove(void **state)
{
	(void)state;
	static const char *const names[] = {"journal.0", "journal.1", "format"};
	for (unsigned i = 0; i < 3; i++)
		unlinkat(dir_fd, names[i], 0);
	close(dir_fd);
	return rmdir(directory);
}

static void *committer(void *arg)
{
	struct cst_journal *j = arg;
	for (unsigned i = 0; i < 50; i++) {
		uint64_t at;
		struct cst_record r = {
			.kind = CST_RECORD_UNLINK, .id = cst_journal_new_id(j), .key = CST_SLICE("name")};
		struct cst_record done = {.kind = CST_RECORD_OP_DONE, .id = r.id};
		assert_int_equal(cst_journal_append(j, &r, 1, &at), 0);
		assert_int_equal(cst_journal_commit(j, at), 0);
		assert_true(cst_journal_durable(j) >= at);
		assert_int_equal(cst_journal_append(j, &done, 1, &at), 0);
	}
	return NULL;
}

static void test_commits_join(void **state)
{
	(void)state;
	const struct cst_journal_config config = {.io = cst_stage_io_posix(), .dir = dir_fd, .owner = "o"};
	struct cst_journal *j;
	struct cst_journal_stats stats;
	pthread_t threads[16];
	assert_int_equal(cst_journal_open(&config, &j, NULL), 0);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, committer, j), 0);
	for (unsigned i = 0; i < 16; i++)
		pthread_join(threads[i], NULL);
	cst_journal_stats(j, &stats);
	printf("# %" PRIu64 " commits by 16 threads took %" PRIu64 " syncs\n", stats.commits, stats.syncs);
	assert_int_equal(stats.commits, 800);
	assert_true(stats.syncs < 800);
	cst_journal_close(j);
}

static void test_replay_of_many(void **state)
{
	(void)state;
	const struct cst_journal_config config = {
		.io = cst_stage_io_posix(), .dir = dir_fd, .owner = "o", .size = 32 << 20};
	struct cst_journal *j;
	struct cst_journal_stats stats;
	uint64_t ids[100] = {0}, at = 0;
	bool sealed[100] = {false};
	assert_int_equal(cst_journal_open(&config, &j, NULL), 0);
	for (unsigned i = 0; i < 100000; i++) {
		unsigned n = (unsigned)any(100);
		at = append_any(j, &ids[n], &sealed[n]);
	}
	assert_int_equal(cst_journal_commit(j, at), 0);
	cst_journal_stats(j, &stats);
	assert_true(stats.records >= 100000);
	cst_journal_close(j);
	int64_t start = cst_now();
	assert_int_equal(cst_journal_open(&config, &j, NULL), 0);
	int64_t took = cst_now() - start;
	cst_journal_stats(j, &stats);
	assert_true(stats.replayed > 100000);
	printf("# %" PRIu64 " records replayed in %" PRId64 " ms\n", stats.replayed, took / CST_NS_PER_MS);
	cst_journal_close(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_record_format),
		cmocka_unit_test(test_all_kinds_come_back),
		cmocka_unit_test(test_checkpoints),
		cmocka_unit_test(test_tail_torn_anywhere),
		cmocka_unit_test(test_damage_is_refused),
		cmocka_unit_test(test_a_lost_file_is_refused),
		cmocka_unit_test(test_another_owner),
		cmocka_unit_test(test_printing),
		cmocka_unit_test(test_promises),
		cmocka_unit_test_setup_teardown(test_commits_join, directory_make, directory_remove),
		cmocka_unit_test_setup_teardown(test_replay_of_many, directory_make, directory_remove),
	};
	cst_log_level_now = -1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
