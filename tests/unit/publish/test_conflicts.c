/* Two writers in both orders, lost answers, failures: what was published is whole and the right one, and what could not be is kept. */
#include "double.h"

#include "base/clock.h"
#include "base/digest.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define PART (6 * MIB_)

static struct cst_publish *p;
static struct cst_publish_stream *s;
static struct syncer y;

static int setup(bool s3)
{
	keep_dir_make();
	store_reset(s3);
	p = make((struct cst_publish_config){.memory = 4 * PART, .part_size = PART});
	return 0;
}

static int setup_oss(void **state)
{
	(void)state;
	return setup(false);
}

static int setup_s3(void **state)
{
	(void)state;
	return setup(true);
}

static int teardown(void **state)
{
	(void)state;
	answer_all();
	cst_publish_free(p);
	store_fini();
	keep_dir_remove();
	return 0;
}

static void finish(bool keep)
{
	cst_publish_stream_close(s, keep);
	for (int i = 0; i < 30000; i++) { /* a record may be on its way to the disk */
		answer_all();
		struct cst_publish_stats stats;
		cst_publish_stats(p, &stats);
		if (stats.memory_used == 0)
			break;
		cst_sleep(CST_NS_PER_MS);
	}
}

/* ---- kept versions ---- */

struct kept {
	unsigned count;
	char id[80], upload[40], reason[20], base[CST_ETAG_MAX];
	uint64_t size, tail_from;
	size_t parts, arrived;
	bool has_data;
};

static void note_kept(void *arg, const struct cst_keep_record *r)
{
	struct kept *k = arg;
	k->count++;
	snprintf(k->id, sizeof(k->id), "%s", r->id);
	snprintf(k->upload, sizeof(k->upload), "%s", r->upload_id);
	snprintf(k->reason, sizeof(k->reason), "%s", r->reason);
	snprintf(k->base, sizeof(k->base), "%s", r->base_etag);
	k->size = r->size;
	k->tail_from = r->tail_from;
	k->parts = r->part_count;
	k->arrived = 0;
	for (size_t i = 0; i < r->part_count; i++)
		k->arrived += r->parts[i].etag[0] != '\0';
	k->has_data = r->has_data;
	assert_string_equal(r->writer, "host:/mnt");
	assert_string_equal(r->key, "k");
}

static struct kept kept_versions(void)
{
	struct kept k = {0};
	struct cst_error err = CST_ERROR_INIT;
	assert_int_equal(cst_keep_each(keep_dir, note_kept, &k, &err), 0);
	return k;
}

/* The data file has the bytes [tail_from, size). */
static void expect_tail(const struct kept *k)
{
	CST_AUTO_BUF path = CST_BUF_INIT;
	struct stat st;
	cst_keep_data_path(keep_dir, k->id, &path);
	CST_AUTO_CLOSE int fd = open(path.data, O_RDONLY);
	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(st.st_size, k->size - k->tail_from);
	CST_AUTO_FREE unsigned char *data = cst_xmalloc((size_t)st.st_size + 1);
	assert_int_equal(pread(fd, data, (size_t)st.st_size, 0), st.st_size);
	for (off_t i = 0; i < st.st_size; i++)
		if (data[i] != pattern(k->tail_from + (uint64_t)i))
			fail_msg("byte %lld of the kept data is another", (long long)i);
}

/* ---- two writers ---- */

static void open_with_base(bool base)
{
	if (base)
		other_put("k", "the version both begin with", 27);
	s = open_on(p, "k", false, CST_PUBLISH_WHOLE);
}

static void conflict(bool base, size_t size, bool gone)
{
	open_with_base(base);
	write_now(s, 0, size, 0);
	answer_all();
	if (gone)
		other_delete("k");
	else
		other_put("k", "the other's", 11);
	char etag[CST_ETAG_MAX] = "";
	if (!gone)
		snprintf(etag, sizeof(etag), "%s", object_of("k")->etag);
	assert_int_equal(sync_now(s, &y), -ESTALE);
	if (gone)
		assert_null(object_of("k"));
	else
		assert_string_equal(object_of("k")->etag, etag); /* nothing was overwritten */
	struct kept k = kept_versions();
	assert_int_equal(k.count, 1);
	assert_int_equal(k.size, size);
	assert_string_equal(k.reason, "conflict");
	assert_non_null(strstr(y.done.text, k.id));
	if (size > PART) {
		assert_int_equal(k.arrived, k.parts);
		assert_false(k.has_data);
		assert_int_equal(k.tail_from, size);
		assert_int_equal(store.open_uploads, 1); /* it stays, with its parts */
	} else {
		assert_int_equal(k.parts, 0);
		expect_tail(&k);
	}
	/* It takes no more, and says the same again. */
	write_now(s, size, 1, -ESTALE);
	assert_int_equal(sync_now(s, &y), -ESTALE);
	assert_int_equal(kept_versions().count, 1);
	struct cst_publish_stats stats;
	cst_publish_stats(p, &stats);
	assert_int_equal(stats.conflicts, 1);
	assert_int_equal(stats.memory_used, 0);
	finish(true);
	assert_int_equal(kept_versions().count, 1);
	struct cst_error err = CST_ERROR_INIT;
	assert_int_equal(cst_keep_remove(keep_dir, k.id, &err), 0);
	assert_int_equal(kept_versions().count, 0);
}

static void test_created_put(void **state)
{
	(void)state;
	conflict(false, 100, false);
}
static void test_created_upload(void **state)
{
	(void)state;
	conflict(false, 2 * PART + 5, false);
}
static void test_changed_put(void **state)
{
	(void)state;
	conflict(true, 100, false);
}
static void test_changed_upload(void **state)
{
	(void)state;
	conflict(true, 2 * PART + 5, false);
}
static void test_removed_put(void **state)
{
	(void)state;
	conflict(true, 100, true);
}
static void test_removed_upload(void **state)
{
	(void)state;
	conflict(true, 2 * PART + 5, true);
}

/* A store that knows no conditions is looked at before. */
static void test_no_conditions(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		size_t size = i & 1 ? 2 * PART + 5 : 100;
		unsigned heads = ops_of(OP_HEAD);
		store.no_conditions = true;
		other_delete("k");
		open_with_base(i & 2);
		write_now(s, 0, size, 0);
		if (i & 4)
			other_put("k", "the other's", 11);
		assert_int_equal(sync_now(s, &y), i & 4 ? -ESTALE : 0);
		if (i & 4)
			assert_int_equal(object_of("k")->size, 11);
		else
			expect_object("k", size);
		assert_int_equal(ops_of(OP_HEAD), heads + 1);
		finish(true);
	}
	assert_int_equal(kept_versions().count, 4);
}

/* ---- lost answers ---- */

static enum op_kind strike_kind;
static enum fault strike_fault;
static unsigned strikes;

static enum fault strike(const struct cst_object_op *op)
{
	if (op->kind != strike_kind || strikes == 0)
		return FAULT_NONE;
	strikes--;
	return strike_fault;
}

static void strike_next(enum op_kind kind, enum fault fault, unsigned count)
{
	strike_kind = kind;
	strike_fault = fault;
	strikes = count;
	store.fault = strike;
}

/* The first attempt took effect: what the second is told must not become a conflict. */
static void lost(bool base, size_t size)
{
	open_with_base(base);
	write_now(s, 0, size, 0);
	strike_next(size > PART ? OP_COMPLETE : OP_PUT, FAULT_LOST, 1);
	assert_int_equal(sync_now(s, &y), 0);
	assert_int_equal(strikes, 0);
	expect_object("k", size);
	assert_string_equal(y.done.version.etag, object_of("k")->etag);
	assert_int_equal(kept_versions().count, 0);
	/* And it goes on from there. */
	write_now(s, size, 10, 0);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", size + 10);
	finish(true);
	assert_int_equal(store.open_uploads, 0);
}

static void test_lost_created_put(void **state)
{
	(void)state;
	lost(false, 100);
}
static void test_lost_created_upload(void **state)
{
	(void)state;
	lost(false, 2 * PART + 5);
}
static void test_lost_changed_put(void **state)
{
	(void)state;
	lost(true, 100);
}
static void test_lost_changed_upload(void **state)
{
	(void)state;
	lost(true, 2 * PART + 5);
}

/* No answer ever, though it took effect, and then more is written: the next publication finds its own work. */
static void unanswered(bool base, size_t size, size_t more, enum fault fault)
{
	open_with_base(base);
	write_now(s, 0, size, 0);
	strike_next(size > PART ? OP_COMPLETE : OP_PUT, fault, 1);
	assert_int_equal(sync_now(s, &y), -ETIMEDOUT);
	assert_true(cst_publish_stream_state(s).pending);
	/* Bytes that come now would come to nothing: they are refused until the next publication has worked. */
	write_now(s, size, 1, -ETIMEDOUT);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", size);
	if (more) {
		write_now(s, size, more, 0);
		assert_int_equal(sync_now(s, &y), 0);
		expect_object("k", size + more);
	}
	assert_int_equal(kept_versions().count, 0);
	finish(true);
	assert_int_equal(store.open_uploads, 0);
}

static void test_unanswered(void **state)
{
	(void)state;
	static const enum fault faults[] = {FAULT_DONE_TIMEOUT, FAULT_TIMEOUT};
	for (unsigned i = 0; i < 16; i++) {
		other_delete("k");
		unanswered(i & 1, i & 2 ? 2 * PART + 5 : 100, i & 4 ? 1000 : 0, faults[i / 8]);
	}
}

/* The HEAD that decides fails, too: the outcome stays open, and the next publication decides. */
static enum fault lost_and_blind(const struct cst_object_op *op)
{
	if (op->kind == OP_PUT && strikes == 2) {
		strikes--;
		return FAULT_LOST;
	}
	if (op->kind == OP_HEAD && strikes == 1) {
		strikes--;
		return FAULT_TIMEOUT;
	}
	return FAULT_NONE;
}

static void test_blind(void **state)
{
	(void)state;
	open_with_base(false);
	write_now(s, 0, 100, 0);
	strikes = 2;
	store.fault = lost_and_blind;
	assert_int_equal(sync_now(s, &y), -ETIMEDOUT);
	assert_int_equal(strikes, 0);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", 100);
	assert_int_equal(ops_of(OP_PUT), 1); /* it was there already */
	finish(true);
}

/* Ours took effect unseen, and then another has written. */
static void test_lost_then_overwritten(void **state)
{
	(void)state;
	open_with_base(false);
	write_now(s, 0, 100, 0);
	strike_next(OP_PUT, FAULT_DONE_TIMEOUT, 1);
	assert_int_equal(sync_now(s, &y), -ETIMEDOUT);
	other_put("k", "the other's", 11);
	assert_int_equal(sync_now(s, &y), -ESTALE);
	assert_int_equal(object_of("k")->size, 11);
	struct kept k = kept_versions();
	assert_int_equal(k.count, 1);
	expect_tail(&k);
	finish(true);
}

/* Created and removed again by another while ours was refused. */
static void test_came_and_went(void **state)
{
	(void)state;
	open_with_base(false);
	write_now(s, 0, 100, 0);
	start_sync(&y, s);
	other_put("k", "the other's", 11);
	answer(OP_PUT);
	other_delete("k");
	answer(OP_HEAD);
	answer(OP_PUT);
	assert_int_equal(y.done.rc, 0);
	expect_object("k", 100);
	finish(true);
}

/* What arrived is not what was sent: the object that is there is ours, and is replaced. */
static void test_corrupted(void **state)
{
	(void)state;
	store.s3 = false;
	open_with_base(false);
	write_now(s, 0, 100, 0);
	strike_next(OP_PUT, FAULT_CORRUPT, 1);
	assert_int_equal(sync_now(s, &y), -EBADMSG);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", 100);
	finish(true);
}

/* ---- failures ---- */

static void test_refused_parts(void **state)
{
	(void)state;
	static const struct {
		enum op_kind kind;
		enum fault fault;
		int rc;
	} cases[] = {{OP_PART, FAULT_DENIED, -EACCES},	   {OP_PART, FAULT_QUOTA, -EDQUOT},
		     {OP_PART, FAULT_TIMEOUT, -ETIMEDOUT}, {OP_BEGIN, FAULT_DENIED, -EACCES},
		     {OP_COMPLETE, FAULT_DENIED, -EACCES}, {OP_COMPLETE, FAULT_QUOTA, -EDQUOT}};
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++) {
		other_delete("k");
		open_with_base(false);
		strike_next(cases[i].kind, cases[i].fault, 1);
		write_now(s, 0, PART + 10, 0);
		answer_all();
		if (cases[i].kind != OP_COMPLETE) {
			/* It is known early: the next write tells. */
			write_now(s, PART + 10, 1, cases[i].rc);
			assert_int_equal(strikes, 0);
			strikes = 1;
		}
		assert_int_equal(sync_now(s, &y), cases[i].rc);
		assert_null(object_of("k"));
		/* All bytes are still there. */
		assert_int_equal(sync_now(s, &y), 0);
		expect_object("k", PART + 10);
		finish(true);
		assert_int_equal(kept_versions().count, 0);
		assert_int_equal(store.open_uploads, 0);
	}
}

/* The store is down while much is written: a writer waits, is told, and nothing is lost. */
static void test_down(void **state)
{
	(void)state;
	open_with_base(false);
	strike_next(OP_PART, FAULT_TIMEOUT, 1000);
	struct writer w[40];
	CST_AUTO_FREE char *data = cst_xmalloc(40 * MIB_);
	uint64_t size = 0;
	for (uint64_t i = 0; i < 40 * MIB_; i++)
		data[i] = (char)pattern(i);
	for (unsigned i = 0; i < 40; i++)
		start_write(&w[i], s, (uint64_t)i * MIB_, data + i * MIB_, MIB_);
	assert_int_equal(w[39].done.calls, 0);
	answer_all();
	for (unsigned i = 0; i < 40; i++) {
		assert_int_equal(w[i].done.calls, 1);
		size += w[i].done.rc == 0 ? MIB_ : 0;
	}
	assert_int_equal(w[39].done.rc, -ETIMEDOUT);
	assert_int_equal(cst_publish_stream_state(s).size, size);
	strikes = 0;
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", size);
	write_now(s, size, 10, 0);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", size + 10);
	finish(true);
}

/* A lifecycle rule has taken the upload. */
static void test_upload_gone(void **state)
{
	(void)state;
	open_with_base(false);
	write_now(s, 0, PART + 10, 0);
	answer_all(); /* one part is there */
	strike_next(OP_COMPLETE, FAULT_NO_UPLOAD, 1);
	assert_int_equal(sync_now(s, &y), -EIO);
	assert_non_null(strstr(y.done.text, "upload is gone"));
	write_now(s, PART + 10, 1, -EIO);
	assert_int_equal(sync_now(s, &y), -EIO);
	assert_null(object_of("k"));
	finish(true);
	assert_int_equal(kept_versions().count, 0);
	/* When all its bytes are here it begins again. */
	open_with_base(false);
	write_now(s, 0, PART + 10, 0);
	answer(OP_BEGIN);
	strike_next(OP_PART, FAULT_NO_UPLOAD, 1);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", PART + 10);
	finish(true);
}

static char first_upload[40];
static enum fault of_first_upload(const struct cst_object_op *op)
{
	return op->kind == OP_PART && strcmp(op->upload, first_upload) == 0 ? FAULT_NO_UPLOAD : FAULT_NONE;
}

/* Many parts are under way just then, and one of them has come in before: the next upload has all of them again. */
static void test_upload_gone_with_many(void **state)
{
	(void)state;
	open_with_base(false);
	write_now(s, 0, 2 * PART + 10, 0);
	answer(OP_BEGIN);
	snprintf(first_upload, sizeof(first_upload), "%s", find_op(OP_PART)->upload);
	start_sync(&y, s); /* the rest */
	unsigned under_way = 0;
	for (; nth_op(under_way) != nth_op(99); under_way++)
		;
	assert_int_equal(under_way + 1, 3);
	answer_op(nth_op(0), FAULT_NO_UPLOAD);
	assert_int_equal(ops_of(OP_BEGIN), 1); /* not while the others may still tell of the old one */
	answer_op(nth_op(0), FAULT_NONE);      /* it was carried out before */
	store.fault = of_first_upload;
	answer_all();
	assert_int_equal(y.done.calls, 1);
	assert_int_equal(y.done.rc, 0);
	assert_int_equal(ops_of(OP_BEGIN), 2);
	assert_int_equal(ops_of(OP_PART), 6);
	expect_object("k", 2 * PART + 10);
	finish(true);
}

/* Emptied while a publication has parts to send: it goes on to its end, well or not. */
static void reset_while_sending(enum fault fault)
{
	static const struct cst_publish_base none;
	struct syncer late;
	open_with_base(false);
	write_now(s, 0, 2 * PART + 10, 0);
	start_sync(&y, s);
	assert_non_null(find_op(OP_BEGIN));
	cst_publish_stream_reset(s, &none);
	answer(OP_BEGIN);
	if (fault != FAULT_NONE)
		answer_op(find_op(OP_PART), fault);
	answer_all();
	assert_int_equal(y.done.calls, 1);
	assert_int_equal(y.done.rc, fault == FAULT_NONE ? 0 : -EACCES);
	write_now(s, 0, 100, 0);
	start_sync(&late, s);
	answer_all();
	assert_int_equal(late.done.rc, 0);
	expect_object("k", 100);
	finish(true);
	other_delete("k");
}

static void test_reset_while_sending(void **state)
{
	(void)state;
	reset_while_sending(FAULT_NONE);
	reset_while_sending(FAULT_DENIED);
}

/* What comes while a conflict is being kept is refused: it would be in no record. */
static void test_write_while_kept(void **state)
{
	(void)state;
	struct writer w;
	char bytes[10] = "0123456789";
	open_with_base(false);
	write_now(s, 0, 1000, 0);
	other_put("k", "the other's", 11);
	start_sync(&y, s);
	answer(OP_PUT);
	answer(OP_HEAD); /* the record is on its way to the disk, or there */
	start_write(&w, s, 1000, bytes, sizeof(bytes));
	wait_done(&y.done);
	wait_done(&w.done);
	assert_int_equal(y.done.rc, -ESTALE);
	assert_int_equal(w.done.rc, -ESTALE);
	struct kept k = kept_versions();
	assert_int_equal(k.count, 1);
	assert_int_equal(k.size, 1000);
	assert_int_equal(cst_publish_stream_state(s).size, 1000);
	finish(true);
}

/* A part of the middle has not arrived: it is in the data file, with a hole behind it. */
static enum fault second_part(const struct cst_object_op *op)
{
	return op->kind == OP_PART && op->number == 2 ? FAULT_DENIED : FAULT_NONE;
}

/* The end of a publication that failed is too small for a part with others behind it. */
static void small_end(bool keep)
{
	open_with_base(false);
	write_now(s, 0, PART + 10, 0);
	start_sync(&y, s);
	while (!find_op(OP_COMPLETE))
		answer_op(first_op(), FAULT_NONE);
	struct writer w;
	CST_AUTO_FREE char *bytes = cst_xmalloc(PART);
	for (uint64_t i = 0; i < PART; i++)
		bytes[i] = (char)pattern(PART + 10 + i);
	start_write(&w, s, PART + 10, bytes, PART);
	assert_int_equal(w.done.calls, 1);
	answer_op(find_op(OP_COMPLETE), FAULT_DENIED);
	assert_int_equal(y.done.rc, -EACCES);
	if (!keep) {
		assert_int_equal(sync_now(s, &y), 0); /* the store of the test takes no small part there */
		expect_object("k", 2 * PART + 10);
		finish(true);
		return;
	}
	finish(true);
	struct kept k = kept_versions();
	assert_int_equal(k.count, 1);
	assert_int_equal(k.size, 2 * PART + 10);
	assert_int_equal(k.parts, 1);
	assert_int_equal(k.tail_from, PART);
	expect_tail(&k);
}

static void test_small_end(void **state)
{
	(void)state;
	small_end(false);
}

static void test_small_end_kept(void **state)
{
	(void)state;
	small_end(true);
}

/* The part that has not arrived is followed by one that has: the data file goes to the end all the same. */
static void test_close_hole_at_end(void **state)
{
	(void)state;
	struct stat st;
	CST_AUTO_BUF path = CST_BUF_INIT;
	open_with_base(false);
	store.fault = second_part;
	write_now(s, 0, 3 * PART, 0);
	answer_all();
	finish(true);
	struct kept k = kept_versions();
	assert_int_equal(k.parts, 3);
	assert_int_equal(k.arrived, 2);
	assert_int_equal(k.tail_from, PART);
	cst_keep_data_path(keep_dir, k.id, &path);
	assert_int_equal(stat(path.data, &st), 0);
	assert_int_equal(st.st_size, 2 * PART);
}

/* No room to keep it: it stays in memory, and is kept when there is. */
static void test_keep_fails(void **state)
{
	(void)state;
	char hidden[80];
	snprintf(hidden, sizeof(hidden), "%s.away", keep_dir);
	open_with_base(false);
	write_now(s, 0, 100, 0);
	other_put("k", "the other's", 11);
	assert_int_equal(rename(keep_dir, hidden), 0);
	int fd = open(keep_dir, O_CREAT | O_WRONLY, 0600); /* a file stands in the way */
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(sync_now(s, &y), -ESTALE);
	assert_non_null(strstr(y.done.text, "still in the memory of process"));
	assert_int_equal(unlink(keep_dir), 0);
	assert_int_equal(rename(hidden, keep_dir), 0);
	assert_int_equal(sync_now(s, &y), -ESTALE);
	struct kept k = kept_versions();
	assert_int_equal(k.count, 1);
	assert_non_null(strstr(y.done.text, k.id));
	expect_tail(&k);
	finish(true);
}

/* Closed with bytes that are in no version: kept, or dropped, as is asked. */
static void test_close(void **state)
{
	(void)state;
	open_with_base(false);
	write_now(s, 0, PART + 10, 0);
	answer_all();
	finish(true);
	struct kept k = kept_versions();
	assert_int_equal(k.count, 1);
	assert_string_equal(k.reason, "closed");
	assert_int_equal(k.parts, 1);
	assert_int_equal(k.tail_from, PART);
	expect_tail(&k);
	assert_int_equal(store.open_uploads, 1);
	open_with_base(false);
	write_now(s, 0, 2 * PART + 10, 0);
	answer(OP_BEGIN);
	finish(false);
	assert_int_equal(kept_versions().count, 1);
	assert_int_equal(store.open_uploads, 1);
	assert_int_equal(ops_of(OP_ABORT), 1);
}

static void test_close_with_hole(void **state)
{
	(void)state;
	open_with_base(false);
	store.fault = second_part;
	write_now(s, 0, 3 * PART + 10, 0);
	answer_all();
	finish(true);
	struct kept k = kept_versions();
	assert_int_equal(k.count, 1);
	assert_int_equal(k.parts, 3);
	assert_int_equal(k.arrived, 2);
	assert_int_equal(k.tail_from, PART);
	CST_AUTO_BUF path = CST_BUF_INIT;
	unsigned char byte;
	cst_keep_data_path(keep_dir, k.id, &path);
	CST_AUTO_CLOSE int fd = open(path.data, O_RDONLY);
	assert_int_equal(lseek(fd, 0, SEEK_END), 2 * PART + 10);
	assert_int_equal(pread(fd, &byte, 1, PART - 1), 1);
	assert_int_equal(byte, pattern(2 * PART - 1));
	assert_int_equal(pread(fd, &byte, 1, PART), 1);
	assert_int_equal(byte, 0);
	assert_int_equal(pread(fd, &byte, 1, 2 * PART + 9), 1);
	assert_int_equal(byte, pattern(3 * PART + 9));
}

static void test_close_during(void **state)
{
	(void)state;
	open_with_base(false);
	write_now(s, 0, 100, 0);
	start_sync(&y, s);
	cst_publish_stream_close(s, true);
	answer_all();
	assert_int_equal(y.done.rc, 0);
	expect_object("k", 100);
	assert_int_equal(kept_versions().count, 0);
	/* One that nobody waits for any more. */
	s = open_on(p, "k", true, CST_PUBLISH_WHOLE);
	write_now(s, 100, 10, 0);
	start_sync(&y, s);
	assert_true(cst_publish_sync_leave(s, &y.sync));
	assert_false(cst_publish_sync_leave(s, &y.sync));
	finish(true);
	assert_int_equal(y.done.calls, 0);
	expect_object("k", 110);
}

static void test_reset_during(void **state)
{
	(void)state;
	struct cst_publish_base none = {0};
	struct writer w;
	char byte = (char)pattern(0);
	open_with_base(false);
	write_now(s, 0, 100, 0);
	start_sync(&y, s);
	cst_publish_stream_reset(s, &none);
	assert_int_equal(cst_publish_stream_state(s).size, 0);
	start_write(&w, s, 0, &byte, 1);
	assert_int_equal(w.done.calls, 0);
	answer(OP_PUT);
	assert_int_equal(y.done.rc, 0);
	assert_int_equal(w.done.rc, 0);
	assert_int_equal(sync_now(s, &y), 0); /* onto what was published */
	expect_object("k", 1);
	finish(true);
}

/* The object that is appended to is another now. */
static void test_source_changed(void **state)
{
	(void)state;
	CST_AUTO_FREE char *data = cst_xcalloc(1, 7 * MIB_);
	other_put("k", data, 7 * MIB_);
	s = open_on(p, "k", true, CST_PUBLISH_WHOLE);
	write_now(s, 7 * MIB_, 10, 0);
	other_put("k", "the other's", 11);
	assert_int_equal(sync_now(s, &y), -ESTALE);
	assert_int_equal(object_of("k")->size, 11);
	struct kept k = kept_versions();
	assert_int_equal(k.count, 1);
	/* What was new has arrived as a part; what it was to follow is another's, and gone. */
	assert_int_equal(k.parts, 2);
	assert_int_equal(k.arrived, 1);
	assert_int_equal(store.open_uploads, 1);
	finish(true);
	/* A small one: that is seen when it is read. */
	s = open_on(p, "k", true, CST_PUBLISH_WHOLE);
	other_put("k", "a third one", 11);
	write_now(s, 11, 10, -ESTALE);
	assert_int_equal(sync_now(s, &y), -ESTALE);
	finish(true);
	assert_int_equal(kept_versions().count, 1);
}

/* ---- appends ---- */

static void open_append(bool keep)
{
	struct cst_publish_open open = {.key = CST_SLICE("k"), .mode = CST_PUBLISH_APPENDABLE};
	s = object_of("k") ? open_on(p, "k", keep, CST_PUBLISH_APPENDABLE) : cst_publish_stream_open(p, &open);
}

static void test_append_lost(void **state)
{
	(void)state;
	open_append(true);
	write_now(s, 0, 100, 0);
	strike_next(OP_APPEND, FAULT_LOST, 1);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", 100);
	write_now(s, 100, 100, 0);
	strike_next(OP_APPEND, FAULT_DONE_TIMEOUT, 1);
	assert_int_equal(sync_now(s, &y), -ETIMEDOUT);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", 200);
	write_now(s, 200, 100, 0);
	strike_next(OP_APPEND, FAULT_TIMEOUT, 1);
	assert_int_equal(sync_now(s, &y), -ETIMEDOUT);
	assert_int_equal(sync_now(s, &y), 0);
	expect_object("k", 300);
	finish(true);
}

static void test_append_conflict(void **state)
{
	(void)state;
	open_append(true);
	write_now(s, 0, 100, 0);
	assert_int_equal(sync_now(s, &y), 0);
	struct cst_publish_stream *first = s;
	struct syncer z;
	open_append(true); /* a second one on the same version */
	write_now(first, 100, 10, 0);
	write_now(s, 100, 20, 0);
	assert_int_equal(sync_now(first, &z), 0);
	assert_int_equal(sync_now(s, &y), -ESTALE);
	expect_object("k", 110); /* nothing interleaved */
	struct kept k = kept_versions();
	assert_int_equal(k.count, 1);
	assert_int_equal(k.tail_from, 100);
	expect_tail(&k);
	cst_publish_stream_close(first, true);
	finish(true);
}

/* An append whose answer was lost, and behind which another appended the same number of bytes. */
static void test_append_not_ours(void **state)
{
	(void)state;
	open_append(true);
	write_now(s, 0, 100, 0);
	assert_int_equal(sync_now(s, &y), 0);
	struct cst_publish_stream *other = open_on(p, "k", true, CST_PUBLISH_APPENDABLE);
	struct writer w;
	struct syncer z;
	start_write(&w, other, 100, "0123456789", 10);
	assert_int_equal(sync_now(other, &z), 0);
	write_now(s, 100, 10, 0);
	strike_next(OP_APPEND, FAULT_TIMEOUT, 1);
	assert_int_equal(sync_now(s, &y), -ETIMEDOUT);
	assert_int_equal(sync_now(s, &y), -ESTALE);
	assert_int_equal(object_of("k")->size, 110);
	cst_publish_stream_close(other, true);
	finish(true);
}

#define BOTH(fn)                                        \
	{#fn " oss", fn, setup_oss, teardown, NULL},    \
	{                                               \
#fn " s3", fn, setup_s3, teardown, NULL \
	}
int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_created_put),
		BOTH(test_created_upload),
		BOTH(test_changed_put),
		BOTH(test_changed_upload),
		BOTH(test_removed_put),
		BOTH(test_removed_upload),
		BOTH(test_no_conditions),
		BOTH(test_lost_created_put),
		BOTH(test_lost_created_upload),
		BOTH(test_lost_changed_put),
		BOTH(test_lost_changed_upload),
		BOTH(test_unanswered),
		BOTH(test_blind),
		BOTH(test_lost_then_overwritten),
		BOTH(test_came_and_went),
		cmocka_unit_test_setup_teardown(test_corrupted, setup_oss, teardown),
		BOTH(test_refused_parts),
		BOTH(test_down),
		BOTH(test_upload_gone),
		BOTH(test_upload_gone_with_many),
		BOTH(test_reset_while_sending),
		BOTH(test_write_while_kept),
		BOTH(test_small_end),
		BOTH(test_small_end_kept),
		BOTH(test_close_hole_at_end),
		BOTH(test_keep_fails),
		BOTH(test_close),
		BOTH(test_close_with_hole),
		BOTH(test_close_during),
		BOTH(test_reset_during),
		BOTH(test_source_changed),
		cmocka_unit_test_setup_teardown(test_append_lost, setup_oss, teardown),
		cmocka_unit_test_setup_teardown(test_append_conflict, setup_oss, teardown),
		cmocka_unit_test_setup_teardown(test_append_not_ours, setup_oss, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
