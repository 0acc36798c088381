/* A real process on a real disk: killed at any moment, and on a file system that is full. CST_STAGE_KILLS: how often (default 20). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define CST_LOG_AREA "test"
#include "base/clock.h"
#include "base/log.h"
#include "stage/stage.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define FILES 4u
#define BLOCKS 16u
#define BLOCK 5000u

static char path[64];

/* What the child has confirmed, in memory that it shares: the version of each block, and the number of a file. */
struct told {
	uint64_t file[FILES]; /* its key's number; 0: none */
	uint64_t version[FILES][BLOCKS];
	uint64_t begun[FILES][BLOCKS]; /* the highest version that may be there */
	uint64_t kills;
};

static struct cst_stage *open_stage(void)
{
	struct cst_stage_config config = {.path = path, .owner = "o", .journal_size = 1};
	struct cst_error err = CST_ERROR_INIT;
	struct cst_stage *s;
	if (cst_stage_open(&config, &s, &err) < 0) {
		char text[CST_ERROR_TEXT_MAX];
		fprintf(stderr, "%s\n", cst_error_text(&err, text, sizeof(text)));
		return NULL;
	}
	return s;
}

static void fill(uint32_t *data, unsigned file, unsigned block, uint64_t version)
{
	for (unsigned i = 0; i < BLOCK / 4; i++)
		data[i] = (uint32_t)(version << 12 | block << 4 | file);
}

struct seen {
	struct told *told;
	struct cst_stage_file *files[FILES];
	bool sealed[FILES];
	unsigned count;
};

static void see(void *arg, struct cst_stage_file *f, const struct cst_stage_info *info)
{
	struct seen *seen = arg;
	CST_AUTO_FREE char *key = cst_xstrndup(info->key.data, info->key.len);
	seen->count++;
	for (unsigned i = 0; i < FILES; i++) {
		if (strtoull(key, NULL, 10) == seen->told->file[i]) {
			seen->files[i] = f;
			seen->sealed[i] = info->sealed;
		}
	}
}

/* 0: every block is a version of its own, none older than what was confirmed. A write that was cut off may have left two; least: the older one. */
static int check_file(struct told *told, unsigned n, struct cst_stage_file *f, uint64_t least[BLOCKS])
{
	static uint32_t data[BLOCK / 4];
	struct cst_stage_gap gap[4];
	struct cst_stage_gaps gaps = {.gaps = gap, .room = 4};
	for (unsigned b = 0; b < BLOCKS; b++) {
		ssize_t got = cst_stage_read(f, b * BLOCK, data, BLOCK, &gaps);
		least[b] = told->version[n][b];
		if (told->version[n][b] == 0)
			continue;
		least[b] = UINT64_MAX;
		if (got != BLOCK || gaps.count)
			return fprintf(stderr, "file %u block %u: %zd bytes, %u gaps\n", n, b, got, gaps.count);
		for (unsigned i = 0; i < BLOCK / 4; i++) {
			uint64_t version = data[i] >> 12;
			least[b] = cst_min(least[b], version);
			if ((data[i] & 0xfff) != (b << 4 | n) || version < told->version[n][b] ||
			    version > told->begun[n][b])
				return fprintf(stderr, "file %u block %u: %x where version %" PRIu64 " was confirmed\n",
					       n, b, data[i], told->version[n][b]);
		}
	}
	return 0;
}

/* Writes until it is killed. */
static _Noreturn void child(struct told *told, unsigned seed)
{
	static uint32_t data[BLOCK / 4];
	static uint64_t current[FILES][BLOCKS]; /* what is there at least */
	struct seen seen = {.told = told};
	struct cst_stage *s = open_stage();
	if (!s)
		_exit(2);
	cst_stage_each(s, see, &seen);
	for (unsigned i = 0; i < FILES; i++) {
		if (!told->file[i])
			continue;
		if (!seen.files[i]) {
			/* One that nothing was confirmed of. */
			for (unsigned b = 0; b < BLOCKS; b++)
				if (told->version[i][b])
					_exit(3);
			told->file[i] = 0;
			continue;
		}
		if (check_file(told, i, seen.files[i], current[i]) != 0)
			_exit(4);
		if (seen.sealed[i])
			cst_stage_unpublished(seen.files[i]);
	}
	for (uint64_t n = 1;; n++) {
		unsigned i = (unsigned)rand_r(&seed) % FILES, what = (unsigned)rand_r(&seed) % 20,
			 b = (unsigned)rand_r(&seed) % BLOCKS;
		struct cst_stage_base none = {0};
		if (!seen.files[i]) {
			static uint64_t key;
			CST_AUTO_FREE char *text = cst_xasprintf("%" PRIu64, ++key + told->kills * 1000000);
			memset(told->version[i], 0, sizeof(told->version[i]));
			memset(told->begun[i], 0, sizeof(told->begun[i]));
			memset(current[i], 0, sizeof(current[i]));
			told->file[i] = strtoull(text, NULL, 10);
			if (cst_stage_file_new(s, cst_slice_of(text), &none, false, &seen.files[i]) < 0)
				_exit(5);
		}
		if (what < 14) {
			uint64_t version = told->begun[i][b] + 1;
			told->begun[i][b] = version;
			fill(data, i, b, version);
			if (cst_stage_write(seen.files[i], b * BLOCK, data, BLOCK) < 0)
				_exit(6);
			current[i][b] = version;
		} else if (what < 17) {
			if (cst_stage_sync(seen.files[i]) < 0)
				_exit(7);
			memcpy(told->version[i], current[i], sizeof(current[i]));
		} else if (what == 17) {
			cst_stage_seal(seen.files[i], CST_SLICE("w"), true);
		} else if (what == 18) {
			cst_stage_unpublished(seen.files[i]);
		} else if (n % 10 == 0) {
			/* From here on it may be gone. */
			cst_stage_unpublished(seen.files[i]);
			told->file[i] = 0;
			if (cst_stage_file_forget(seen.files[i]) < 0)
				_exit(8);
			seen.files[i] = NULL;
		}
	}
}

static void test_killed_at_any_moment(void **state)
{
	(void)state;
	const char *text = getenv("CST_STAGE_KILLS");
	unsigned kills = text ? (unsigned)atoi(text) : 20, confirmed = 0;
	struct told *told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(told != MAP_FAILED);
	for (unsigned i = 0; i < kills; i++) {
		told->kills = i + 1;
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0)
			child(told, i);
		cst_sleep((20 + (int64_t)(i * 37 % 90)) * CST_NS_PER_MS);
		kill(pid, SIGKILL);
		int status;
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (WIFEXITED(status))
			fail_msg("the writer ended with %d", WEXITSTATUS(status));
		for (unsigned n = 0; n < FILES; n++)
			for (unsigned b = 0; b < BLOCKS; b++)
				confirmed += told->file[n] && told->version[n][b];
	}
	assert_true(confirmed > kills / 2);
	printf("# %u kills, %u confirmed blocks found again\n", kills, confirmed);
	/* At the end as well. */
	uint64_t least[BLOCKS];
	struct seen seen = {.told = told};
	struct cst_stage *s = open_stage();
	assert_non_null(s);
	cst_stage_each(s, see, &seen);
	for (unsigned n = 0; n < FILES; n++)
		if (seen.files[n])
			assert_int_equal(check_file(told, n, seen.files[n], least), 0);
	cst_stage_close(s);
	munmap(told, sizeof(*told));
}

/* A file system of 4 MiB in a namespace of this process. */
static void test_full_file_system(void **state)
{
	static char data[10000];
	struct cst_stage_file *files[4];
	struct cst_stage_base none = {0};
	uint64_t written[4] = {0};
	(void)state;
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", path, "tmpfs", 0, "size=4M") < 0) {
		printf("# a file system can't be mounted here\n");
		skip();
		return;
	}
	CST_AUTO_FREE char *mounted = cst_xstrdup(path);
	snprintf(path + strlen(path), sizeof(path) - strlen(path), "/s");
	struct cst_stage *s = open_stage();
	assert_non_null(s);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(cst_stage_file_new(s, CST_SLICE("k"), &none, false, &files[i]), 0);
	unsigned refused = 0, attempts = 0;
	for (; refused < 40; attempts++) {
		unsigned i = attempts % 4;
		memset(data, (int)(1 + written[i] % 100 + i), sizeof(data));
		int rc = cst_stage_write(files[i], written[i] * sizeof(data), data, sizeof(data));
		assert_true(rc == 0 || rc == -ENOSPC);
		written[i] += rc == 0;
		refused += rc < 0;
		if (attempts % 7 == 0)
			assert_int_equal(cst_stage_sync(files[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(cst_stage_sync(files[i]), 0);
		assert_int_equal(cst_stage_seal(files[i], CST_SLICE("w"), true), 0);
		assert_int_equal(cst_stage_unpublished(files[i]), 0);
	}
	struct cst_stage_op op = {.kind = CST_RECORD_UNLINK, .path = CST_SLICE("x")};
	assert_int_equal(cst_stage_op_begin(s, &op), 0);
	cst_stage_close(s);
	/* And again from the beginning, on the full disk. */
	for (unsigned round = 0; round < 3; round++) {
		struct told none_told = {.file = {1, 1, 1, 1}};
		struct seen seen = {.told = &none_told};
		s = open_stage();
		assert_non_null(s);
		cst_stage_each(s, see, &seen);
		assert_int_equal(seen.count, 4);
		cst_stage_close(s);
	}
	s = open_stage();
	struct cst_stage_stats stats;
	cst_stage_stats(s, &stats);
	assert_true(written[0] > 10 && stats.files == 4);
	cst_stage_close(s);
	umount2(mounted, MNT_DETACH);
	snprintf(path, sizeof(path), "%s", mounted);
}

static int path_make(void **state)
{
	(void)state;
	snprintf(path, sizeof(path), "/tmp/cistern-stage-XXXXXX");
	return mkdtemp(path) ? 0 : -1;
}

static int path_remove(void **state)
{
	(void)state;
	CST_AUTO_FREE char *command = cst_xasprintf("rm -rf '%s'", path);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_killed_at_any_moment, path_make, path_remove),
		cmocka_unit_test_setup_teardown(test_full_file_system, path_make, path_remove),
	};
	cst_log_level_now = -1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
