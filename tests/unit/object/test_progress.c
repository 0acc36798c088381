/* Progress of a GET: what is shown before the end is there, of the right version, and never taken back. */
#include "bucket_fixture.h"

#include "base/clock.h"
#include "base/digest.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define KIB ((size_t)1024)
#define SIZE (1024 * KIB) /* of the object */

static char byte_at(uint64_t offset)
{
	return (char)(offset * 31 + (offset >> 12));
}

/* One answer: of the range that is asked for, `sent` bytes (0: all) really follow. */
struct step {
	const char *etag; /* NULL: none */
	bool chunked, whole;
	size_t sent;
	enum scripted_end end;
};
struct script {
	const struct step *steps;
	unsigned count;
};

static void content(struct cst_buf *out, uint64_t from, size_t n)
{
	char *to = cst_buf_room(out, n);
	for (size_t i = 0; i < n; i++)
		to[i] = byte_at(from + i);
	out->len += n;
}

static enum scripted_end play(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	const struct script *script = arg;
	const struct step *s = &script->steps[cst_min(n, script->count - 1)];
	unsigned long from = 0, to = SIZE - 1;
	const char *range = strstr(request, "Range: bytes=");
	if (range && !s->whole)
		CST_ASSERT(sscanf(range, "Range: bytes=%lu-%lu", &from, &to) == 2);
	size_t length = to - from + 1;
	cst_buf_printf(out, "HTTP/1.1 %d X\r\n", s->whole ? 200 : 206);
	if (!s->whole)
		cst_buf_printf(out, "Content-Range: bytes %lu-%lu/%zu\r\n", from, to, SIZE);
	if (s->etag)
		cst_buf_printf(out, "ETag: \"%s\"\r\n", s->etag);
	if (s->chunked)
		cst_buf_printf(out, "Transfer-Encoding: chunked\r\n\r\n%zx\r\n", length);
	else
		cst_buf_printf(out, "Content-Length: %zu\r\n\r\n", length);
	content(out, from, s->sent ? s->sent : length);
	if (s->chunked && !s->sent)
		cst_buf_add_str(out, "\r\n0\r\n\r\n");
	return s->end;
}

struct reader {
	struct fixture f;
	struct outcome o;
	struct cst_object_op *op;
	char memory[SIZE];
	uint64_t offset;
	size_t length;
	/* under the outcome's lock */
	size_t shown;
	unsigned calls;
	bool wrong;
};

static void on_progress(void *arg, size_t got, const struct cst_object_info *info)
{
	struct reader *r = arg;
	pthread_mutex_lock(&r->o.lock);
	r->wrong |=
		r->o.done || got <= r->shown || got >= r->length || strcmp(info->etag, "E1") != 0 || info->size != SIZE;
	for (size_t i = r->shown; i < got && !r->wrong; i++)
		r->wrong = r->memory[i] != byte_at(r->offset + i);
	r->shown = got;
	r->calls++;
	pthread_cond_broadcast(&r->o.changed);
	pthread_mutex_unlock(&r->o.lock);
}

static void on_got(void *arg, int rc, size_t got, const struct cst_object_info *info, const struct cst_error *err)
{
	struct reader *r = arg;
	outcome_get(&r->o, rc, got, info, err);
}

static void begin(struct reader *r, uint64_t offset, size_t length, const char *if_match)
{
	struct iovec into[2] = {{r->memory, length / 3}, {r->memory + length / 3, length - length / 3}};
	struct cst_object_get get = {.key = CST_SLICE("k"),
				     .offset = offset,
				     .length = length,
				     .if_match = if_match,
				     .into = into,
				     .into_count = 2,
				     .progress = on_progress};
	r->offset = offset;
	r->length = length;
	r->shown = r->calls = 0;
	r->wrong = false;
	memset(r->memory, 0x55, sizeof(r->memory));
	outcome_init(&r->o);
	r->op = cst_object_get(r->f.bucket, &get, on_got, r);
}

static void wait_shown(struct reader *r, size_t least)
{
	pthread_mutex_lock(&r->o.lock);
	while (r->shown < least && !r->o.done)
		pthread_cond_wait(&r->o.changed, &r->o.lock);
	pthread_mutex_unlock(&r->o.lock);
}

static int end(struct reader *r)
{
	outcome_wait(&r->o);
	cst_object_release(r->op);
	outcome_fini(&r->o);
	return r->o.rc;
}

static bool all_right(const struct reader *r)
{
	bool right = !r->wrong && r->o.got == r->length;
	for (size_t i = 0; i < r->length && right; i++)
		right = r->memory[i] == byte_at(r->offset + i);
	return right;
}

#define STEPS(...)                                            \
	static struct reader r;                               \
	static const struct step steps[] = {__VA_ARGS__};     \
	struct script script = {steps, CST_ARRAY_LEN(steps)}; \
	fixture_start(&r.f, play, &script, NULL)

/* The body stands still behind 300 KiB: the blocks before are shown though the range never ends. */
static void blocks_before_the_end(void **state)
{
	(void)state;
	STEPS({"E1", .sent = 300 * KIB, .end = SCRIPTED_STALL});
	begin(&r, 0, SIZE, "E1");
	wait_shown(&r, 256 * KIB);
	pthread_mutex_lock(&r.o.lock);
	assert_false(r.o.done);
	assert_in_range(r.shown, 256 * KIB, 300 * KIB);
	pthread_mutex_unlock(&r.o.lock);
	cst_object_cancel(r.op);
	assert_int_equal(end(&r), -ECANCELED);
	assert_false(r.wrong);
	fixture_stop(&r.f);
}

/* Blocks are those of the object, not of the range: 32 KiB behind 96 KiB complete one. */
static void blocks_of_the_object(void **state)
{
	(void)state;
	STEPS({"E1", .sent = 33 * KIB, .end = SCRIPTED_STALL});
	begin(&r, 96 * KIB, 128 * KIB, "E1");
	wait_shown(&r, 32 * KIB);
	assert_true(r.shown >= 32 * KIB);
	cst_object_cancel(r.op);
	assert_int_equal(end(&r), -ECANCELED);
	fixture_stop(&r.f);
}

/* Each body breaks off; the next attempt asks for the rest, and what was shown only grows. */
static void resumed(void **state)
{
	(void)state;
	STEPS({"E1", .sent = 300 * KIB, .end = SCRIPTED_CLOSE}, {"E1", .sent = 200 * KIB, .end = SCRIPTED_CLOSE},
	      {"E1"});
	begin(&r, 4096, SIZE - 4096, "E1");
	assert_int_equal(end(&r), 0);
	assert_true(all_right(&r));
	assert_true(r.shown > 384 * KIB && r.calls >= 2);
	char want[64];
	snprintf(want, sizeof(want), "Range: bytes=%zu-", 4096 + 300 * KIB);
	assert_non_null(strstr(scripted_server_request(r.f.server, 1), want));
	snprintf(want, sizeof(want), "Range: bytes=%zu-", 4096 + 500 * KIB);
	assert_non_null(strstr(scripted_server_request(r.f.server, 2), want));
	assert_int_equal(scripted_server_requests(r.f.server), 3);
	struct cst_bucket_stats stats;
	cst_bucket_stats(r.f.bucket, &stats);
	assert_int_equal(stats.bytes_in, SIZE - 4096); /* no byte twice */
	fixture_stop(&r.f);
}

/* Nothing is shown of an answer whose version nobody asked for, or which does not tell it. */
static void only_of_the_named_version(void **state)
{
	(void)state;
	STEPS({"E1", .sent = 300 * KIB, .end = SCRIPTED_CLOSE}, {"E1"}, /* no If-Match */
	      {NULL, .sent = 300 * KIB, .end = SCRIPTED_CLOSE}, {NULL}, /* no ETag */
	      {"E2"},							/* another one */
	      {"E1", .chunked = true, .sent = 300 * KIB, .end = SCRIPTED_CLOSE}, {"E1"});
	begin(&r, 0, SIZE, NULL);
	assert_int_equal(end(&r), 0);
	assert_int_equal(r.calls, 0);
	begin(&r, 0, SIZE, "E1");
	assert_int_equal(end(&r), 0);
	assert_int_equal(r.calls, 0);
	begin(&r, 0, SIZE, "E1");
	assert_int_equal(end(&r), -ESTALE);
	assert_int_equal(r.calls, 0);
	begin(&r, 0, SIZE, "E1");
	wait_shown(&r, 1);
	assert_true(r.calls == 0 || r.shown > 300 * KIB); /* not of the chunked one */
	assert_int_equal(end(&r), 0);
	assert_true(all_right(&r));
	fixture_stop(&r.f);
}

/* A store that ignores ranges: the object is sifted, and broken off, and sifted again; what was shown is not written again. */
static void sifted(void **state)
{
	(void)state;
	STEPS({"E1", .whole = true}, {"E1", .whole = true, .sent = 700 * KIB, .end = SCRIPTED_CLOSE},
	      {"E1", .whole = true});
	begin(&r, 256 * KIB, 700 * KIB, "E1");
	wait_shown(&r, 256 * KIB);
	assert_true(r.shown >= 256 * KIB);
	assert_int_equal(end(&r), 0);
	assert_true(all_right(&r));
	fixture_stop(&r.f);
}

/* What was shown is continued by the named version alone, whichever way the rest is asked for. */
static void shown_then_nameless(void **state)
{
	(void)state;
	STEPS({"E1", .sent = 300 * KIB, .end = SCRIPTED_CLOSE}, {"E1", .whole = true}, {NULL, .whole = true});
	begin(&r, 0, SIZE, "E1");
	assert_int_equal(end(&r), -ESTALE);
	assert_false(r.wrong);
	assert_true(r.shown >= 256 * KIB);
	fixture_stop(&r.f);
}

static enum scripted_end wrong_crc_first(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	uint64_t crc = 0;
	(void)arg, (void)request;
	size_t head = out->len;
	content(out, 0, SIZE);
	crc = cst_crc64(0, out->data + head, SIZE);
	cst_buf_clear(out);
	cst_buf_printf(out,
		       "HTTP/1.1 206 X\r\nETag: \"E1\"\r\nContent-Range: bytes 0-%zu/%zu\r\nContent-Length: %zu\r\n"
		       "x-oss-hash-crc64ecma: %llu\r\n\r\n",
		       SIZE - 1, SIZE, SIZE, (unsigned long long)crc);
	head = out->len;
	content(out, 0, SIZE);
	if (n == 0)
		out->data[head] ^= 1;
	return SCRIPTED_KEEP;
}

static void not_before_the_crc(void **state)
{
	(void)state;
	static struct reader r;
	struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS, .verify_crc64 = true};
	fixture_start(&r.f, wrong_crc_first, NULL, &config);
	begin(&r, 0, SIZE, "E1");
	assert_int_equal(end(&r), 0);
	assert_int_equal(r.calls, 0);
	assert_int_equal(scripted_server_requests(r.f.server), 2);
	assert_true(all_right(&r));
	fixture_stop(&r.f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_before_the_end),
		cmocka_unit_test(blocks_of_the_object),
		cmocka_unit_test(resumed),
		cmocka_unit_test(only_of_the_named_version),
		cmocka_unit_test(sifted),
		cmocka_unit_test(shown_then_nameless),
		cmocka_unit_test(not_before_the_crc),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
