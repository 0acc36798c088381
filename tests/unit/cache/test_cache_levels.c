/* Levels as text, and what a directory becomes. */
#include "cache_fixture.h"

#include <stdio.h>
#include <sys/stat.h>

static void levels_are_read_as_jindo_writes_them(void **state)
{
	struct cst_cache_level l;
	(void)state;
	assert_int_equal(cst_cache_level_parse("MEM:/dev/shm:2GiB:0.99:0.8", &l, NULL), 0);
	assert_int_equal(l.medium, CST_CACHE_MEM);
	assert_int_equal(l.path_count, 1);
	assert_string_equal(l.paths[0].path, "/dev/shm");
	assert_true(l.quota == 2048 * MIB);
	assert_true(l.high > 0.98 && l.high < 1 && l.low > 0.79 && l.low < 0.81);
	cst_cache_level_fini(&l);

	assert_int_equal(cst_cache_level_parse("ssd:/a/,/b:10Gi,20Gi", &l, NULL), 0);
	assert_int_equal(l.medium, CST_CACHE_SSD);
	assert_int_equal(l.path_count, 2);
	assert_string_equal(l.paths[0].path, "/a");
	assert_true(l.paths[0].quota == 10240 * MIB && l.paths[1].quota == 20480 * MIB && l.quota == 30720 * MIB);
	assert_true(l.high > 0.79 && l.high < 0.81 && l.low > 0.59 && l.low < 0.61);
	cst_cache_level_fini(&l);

	assert_int_equal(cst_cache_level_parse("HDD:/a", &l, NULL), 0);
	assert_true(l.quota == 0 && l.paths[0].quota == 0);
	cst_cache_level_fini(&l);

	assert_int_equal(cst_cache_level_parse("HDD:/a::95%:90", &l, NULL), 0);
	assert_true(l.high > 0.94 && l.high < 0.96 && l.low > 0.89 && l.low < 0.91);
	cst_cache_level_fini(&l);

	/* Only high, and below the usual low. */
	assert_int_equal(cst_cache_level_parse("HDD:/a:1GiB:0.5", &l, NULL), 0);
	assert_true(l.low < l.high && l.low > 0);
	cst_cache_level_fini(&l);
}

static void what_is_no_level_is_refused_with_reasons(void **state)
{
	static const char *const texts[] = {
		"",
		"/dev/shm",
		"RAM:/dev/shm",
		"MEM",
		"MEM:",
		"MEM:,",
		"MEM:/a:lots",
		"MEM:/a:10",
		"MEM:/a,/b:1Gi,2Gi,3Gi",
		"MEM:/a,/b,/c:1Gi,2Gi",
		"MEM:/a:1Gi:0",
		"MEM:/a:1Gi:120",
		"MEM:/a:1Gi:0.5:0.8",
		"MEM:/a:1Gi:0.8:0.6:1",
		"MEM:/1,/2,/3,/4,/5,/6,/7,/8,/9",
	};
	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(texts); i++) {
		struct cst_cache_level l;
		struct cst_error err = CST_ERROR_INIT;
		if (cst_cache_level_parse(texts[i], &l, &err) != -EINVAL)
			fail_msg("\"%s\" was taken", texts[i]);
		assert_int_equal(err.code, EINVAL);
		assert_true(err.what[0] && err.why[0] && err.hint[0]);
		assert_int_equal(l.path_count, 0);
	}
}

static void a_directory_tells_its_medium(void **state)
{
	struct cst_cache_level l;
	CST_AUTO_BUF text = CST_BUF_INIT;
	(void)state;
	cst_buf_printf(&text, "%s/not/yet/there:64MiB", fixture_dir);
	assert_int_equal(cst_cache_dir_parse(text.data, &l, NULL), 0);
	assert_true(l.quota == 64 * MIB);
	assert_true(l.high > 0.94 && l.low > 0.89);
	if (strncmp(fixture_dir, "/dev/shm", 8) == 0)
		assert_int_equal(l.medium, CST_CACHE_MEM);
	cst_cache_level_fini(&l);

	/* A colon in a folder's name is no quota. */
	assert_int_equal(cst_cache_dir_parse("/a:b/c", &l, NULL), 0);
	assert_string_equal(l.paths[0].path, "/a:b/c");
	cst_cache_level_fini(&l);
	assert_int_equal(cst_cache_dir_parse("/a:", &l, NULL), -EINVAL);
	assert_int_equal(cst_cache_dir_parse("/a:x", &l, NULL), -EINVAL);
	assert_int_equal(cst_cache_dir_parse(":1Gi", &l, NULL), -EINVAL);

	assert_int_equal(cst_cache_dir_parse("here", &l, NULL), 0);
	assert_true(l.paths[0].path[0] == '/');
	cst_cache_level_fini(&l);
}

static struct cst_cache *try_levels(struct cst_error *err, const char *const *paths, unsigned count)
{
	struct cst_cache_level levels[CST_CACHE_LEVELS];
	for (unsigned i = 0; i < count; i++) {
		CST_AUTO_BUF text = CST_BUF_INIT;
		cst_buf_printf(&text, "SSD:%s:64MiB", paths[i]);
		assert_int_equal(cst_cache_level_parse(text.data, &levels[i], NULL), 0);
	}
	struct cst_cache_config config = {
		.levels = levels, .level_count = count, .bucket = "oss://b", .keep_free = MIB};
	struct cst_cache *cache = cst_cache_new(&config, err);
	for (unsigned i = 0; i < count; i++)
		cst_cache_level_fini(&levels[i]);
	return cache;
}

static void a_shared_directory_is_used_through_a_private_one_in_it(void **state)
{
	char below[96], mine[160];
	struct stat st;
	struct cst_error err = CST_ERROR_INIT;
	(void)state;
	snprintf(below, sizeof(below), "%s/shared", fixture_dir);
	assert_int_equal(mkdir(below, 0755), 0);
	assert_int_equal(chmod(below, 01777), 0);
	const char *paths[] = {below};
	struct cst_cache *cache = try_levels(&err, paths, 1);
	assert_non_null(cache);
	cst_cache_free(cache);
	snprintf(mine, sizeof(mine), "%s/cistern-%u", below, geteuid());
	assert_int_equal(stat(mine, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	snprintf(mine, sizeof(mine), "%s/lock", below);
	assert_int_equal(stat(mine, &st), -1);
	assert_int_equal(stat(below, &st), 0);
	assert_int_equal(st.st_mode & 07777, 01777);
}

static void an_empty_directory_becomes_private_and_one_with_other_things_stays(void **state)
{
	char a[96], b[160];
	struct stat st;
	struct cst_error err = CST_ERROR_INIT;
	const char *paths[] = {a};
	(void)state;
	snprintf(a, sizeof(a), "%s/empty", fixture_dir);
	assert_int_equal(mkdir(a, 0755), 0);
	for (unsigned i = 0; i < 2; i++) {
		struct cst_cache *cache = try_levels(&err, paths, 1);
		assert_non_null(cache);
		cst_cache_free(cache);
		assert_int_equal(stat(a, &st), 0);
		assert_int_equal(st.st_mode & 07777, 0700);
		snprintf(b, sizeof(b), "%s/index.log", a);
		assert_int_equal(stat(b, &st), 0);
		assert_int_equal(chmod(a, 0755), 0); /* a cache is known as such */
	}
	snprintf(a, sizeof(a), "%s/used", fixture_dir);
	snprintf(b, sizeof(b), "%s/used/home", fixture_dir);
	assert_int_equal(mkdir(a, 0755), 0);
	assert_int_equal(mkdir(b, 0755), 0);
	for (unsigned i = 0; i < 2; i++) {
		struct cst_cache *cache = try_levels(&err, paths, 1);
		assert_non_null(cache);
		cst_cache_free(cache);
		assert_int_equal(stat(a, &st), 0);
		assert_int_equal(st.st_mode & 07777, 0755);
		snprintf(b, sizeof(b), "%s/cistern-%u/index.log", a, geteuid());
		assert_int_equal(stat(b, &st), 0);
	}
}

static void one_directory_twice_is_a_mistake(void **state)
{
	char a[96], b[128];
	struct cst_error err = CST_ERROR_INIT;
	(void)state;
	snprintf(a, sizeof(a), "%s/a", fixture_dir);
	snprintf(b, sizeof(b), "%s/a/../a", fixture_dir);
	const char *paths[] = {a, b};
	assert_null(try_levels(&err, paths, 2));
	assert_int_equal(err.code, EINVAL);
	assert_non_null(strstr(err.what, "twice"));
}

static void a_directory_of_somebody_else_is_refused(void **state)
{
	char a[96];
	struct cst_error err = CST_ERROR_INIT;
	(void)state;
	if (geteuid() != 0)
		skip();
	snprintf(a, sizeof(a), "%s/theirs", fixture_dir);
	assert_int_equal(mkdir(a, 0755), 0);
	assert_int_equal(chown(a, 12345, 12345), 0);
	const char *paths[] = {a};
	assert_null(try_levels(&err, paths, 1));
	assert_int_equal(err.code, EACCES);
	assert_true(err.hint[0]);
}

static void a_link_in_a_shared_directory_is_not_followed(void **state)
{
	char shared[96], target[96], link[160];
	struct stat st;
	struct cst_error err = CST_ERROR_INIT;
	const char *paths[] = {shared};
	(void)state;
	snprintf(shared, sizeof(shared), "%s/shared", fixture_dir);
	snprintf(target, sizeof(target), "%s/private", fixture_dir);
	snprintf(link, sizeof(link), "%s/cistern-%u", shared, geteuid());
	assert_int_equal(mkdir(shared, 0700), 0);
	assert_int_equal(chmod(shared, 01777), 0);
	assert_int_equal(mkdir(target, 0700), 0);
	assert_int_equal(symlink(target, link), 0);
	assert_null(try_levels(&err, paths, 1));
	assert_int_equal(err.code, EACCES);
	snprintf(link, sizeof(link), "%s/lock", target);
	assert_int_equal(stat(link, &st), -1);
}

static void a_file_is_no_directory(void **state)
{
	char a[96];
	struct cst_error err = CST_ERROR_INIT;
	(void)state;
	snprintf(a, sizeof(a), "%s/file", fixture_dir);
	FILE *f = fopen(a, "we");
	assert_non_null(f);
	fclose(f);
	const char *paths[] = {a};
	assert_null(try_levels(&err, paths, 1));
	assert_int_equal(err.code, ENOTDIR);
}

static void names_spread_over_the_paths_by_weight_and_stay(void **state)
{
	struct cst_level level = {.volume_count = 3};
	unsigned counts[3] = {0}, moved = 0;
	struct cst_cache cache = {0};
	(void)state;
	for (unsigned i = 0; i < 3; i++)
		level.volumes[i] =
			(struct cst_cache_volume){.cache = &cache, .weight = (i + 1) * 100, .seed = 7919 * (i + 1)};
	enum { NAMES = 30000 };
	static struct cst_cache_volume *chosen[NAMES];
	for (uint64_t n = 0; n < NAMES; n++) {
		chosen[n] = cst_level_choose(&level, n * 0x9e3779b97f4a7c15u);
		counts[chosen[n] - level.volumes]++;
	}
	for (unsigned i = 0; i < 3; i++)
		assert_in_range(counts[i], NAMES / 6 * (i + 1) * 9 / 10, NAMES / 6 * (i + 1) * 11 / 10);
	/* One is out: only what it had moves. */
	level.volumes[1].out = EIO;
	for (uint64_t n = 0; n < NAMES; n++) {
		struct cst_cache_volume *v = cst_level_choose(&level, n * 0x9e3779b97f4a7c15u);
		assert_ptr_not_equal(v, &level.volumes[1]);
		moved += v != chosen[n];
	}
	assert_int_equal(moved, counts[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(levels_are_read_as_jindo_writes_them),
		cmocka_unit_test(what_is_no_level_is_refused_with_reasons),
		cmocka_unit_test_setup_teardown(a_directory_tells_its_medium, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(a_shared_directory_is_used_through_a_private_one_in_it, fixture_begin,
						fixture_end),
		cmocka_unit_test_setup_teardown(an_empty_directory_becomes_private_and_one_with_other_things_stays,
						fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(one_directory_twice_is_a_mistake, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(a_directory_of_somebody_else_is_refused, fixture_begin, fixture_end),
		cmocka_unit_test_setup_teardown(a_link_in_a_shared_directory_is_not_followed, fixture_begin,
						fixture_end),
		cmocka_unit_test_setup_teardown(a_file_is_no_directory, fixture_begin, fixture_end),
		cmocka_unit_test(names_spread_over_the_paths_by_weight_and_stay),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
