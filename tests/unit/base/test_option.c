#include "base/clock.h"
#include "base/option.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/stat.h>
#include <cmocka.h>

/* A small table with one option of each type. */
#define ROWS                                                                                                        \
	SECTION("First")                                                                                            \
	OPTION(verbose, BOOL, "v !quiet q", NULL, 0, 0, NULL, 0, "Say more.")                                       \
	OPTION(count, INT, "", "N", -5, 10, "3", 0, "How often.")                                                   \
	OPTION(memory, SIZE, "total_mem_limit", "SIZE", INT64_C(64) << 20, INT64_MAX, "512MiB", 0, "Limit.")        \
	OPTION(speed, RATE, "", "RATE", 0, INT64_MAX, NULL, 0, "Rate.")                                             \
	OPTION(attr_timeout, DURATION, "", "DURATION", 0, INT64_C(100) * CST_NS_PER_S, "60", 0, "Keep attributes.") \
	OPTION(delay_ms, DURATION, "", "MS", 0, 0, NULL, CST_OPTION_MS, "Wait.")                                    \
	OPTION(umask, OCTAL, "mask", "OCTAL", 0, 0777, NULL, 0, "Bits.")                                            \
	SECTION("Second")                                                                                           \
	OPTION(name, STRING, "n", "NAME", 0, 0, NULL, 0, "Name.")                                                   \
	OPTION(role, STRING, "", "NAME", 0, 0, NULL, CST_OPTION_OPTIONAL, "Role.")                                  \
	OPTION(file, PATH, "c conf", "FILE", 0, 0, NULL, CST_OPTION_CLI, "File.")                                   \
	OPTION(secret, SECRET, "", "SECRET", 0, 0, NULL, 0, "Secret.")                                              \
	OPTION(mode, CHOICE, "", "list|object", 0, 0, "list", 0, "Mode.")                                           \
	OPTION(level, LIST, "", "LEVEL", 0, 0, NULL, 0, "Level.")                                                   \
	OPTION(_netdev, IGNORED, "auto noauto x-* s", "VALUE", 0, 0, NULL, CST_OPTION_OPTIONAL, "for mount(8).")    \
	OPTION(insecure, REFUSED, "", NULL, 0, 0, NULL, 0, "certificates are always checked.")

struct values {
#define OPTION CST_OPTION_MEMBER
#define SECTION(title)
	ROWS
#undef OPTION
		struct {
#define OPTION CST_OPTION_GIVEN
		ROWS
#undef OPTION
#undef SECTION
	} given;
};
static const struct cst_option rows[] = {
#define OPTION(...) CST_OPTION_ROW(values, __VA_ARGS__)
#define SECTION CST_OPTION_SECTION_ROW
	ROWS
#undef OPTION
#undef SECTION
};
static const struct cst_option_table table = {rows, CST_ARRAY_LEN(rows), "tool", true};

struct fixture {
	struct values v;
	struct cst_option_set set;
	struct cst_error err;
	char *argv[16]; /* writable copies, as the kernel gives them */
	int argc;
};

static int setup(void **state)
{
	struct fixture *f = CST_NEW(struct fixture);
	cst_option_set_init(&f->set, &table, &f->v, sizeof(f->v));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	cst_option_set_fini(&f->set);
	for (int i = 0; i < f->argc; i++)
		free(f->argv[i]);
	free(f);
	return 0;
}

static int parse(struct fixture *f, const char *const *args)
{
	for (int i = 0; i < f->argc; i++)
		free(f->argv[i]);
	for (f->argc = 0; args[f->argc]; f->argc++)
		f->argv[f->argc] = cst_xstrdup(args[f->argc]);
	return cst_option_parse_argv(&f->set, f->argc, f->argv, &f->err);
}
#define PARSE(f, ...) parse(f, (const char *const[]){__VA_ARGS__, NULL})

static void defaults(void **state)
{
	struct fixture *f = *state;
	assert_false(f->v.verbose);
	assert_int_equal(f->v.count, 3);
	assert_int_equal(f->v.memory, 512 << 20);
	assert_int_equal(f->v.attr_timeout, 60 * CST_NS_PER_S);
	assert_int_equal(f->v.mode, 0);
	assert_null(f->v.name);
	assert_int_equal(f->v.given.memory, CST_OPTION_FROM_DEFAULT);
}

static void long_spellings(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(PARSE(f, "--attr-timeout=5s", "--attr_timeout", "7", "--total-mem-limit=1GiB", "--mode",
			       "OBJECT", "here", "--delay-ms=20", "--umask=022", "--", "--verbose"),
			 0);
	assert_int_equal(f->v.attr_timeout, 7 * CST_NS_PER_S);
	assert_int_equal(f->v.memory, 1 << 30);
	assert_int_equal(f->v.mode, 1);
	assert_int_equal(f->v.delay_ms, 20 * CST_NS_PER_MS);
	assert_int_equal(f->v.umask, 022);
	assert_int_equal(f->v.given.memory, CST_OPTION_FROM_USER);
	assert_int_equal(f->set.arguments.count, 2);
	assert_string_equal(f->set.arguments.items[1], "--verbose");
	assert_false(f->v.verbose);
}

static void short_spellings(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(PARSE(f, "-vn", "first", "-nsecond", "-s", "mountpoint", "-c/etc/x"), 0);
	assert_true(f->v.verbose);
	assert_string_equal(f->v.name, "second");
	assert_string_equal(f->v.file, "/etc/x");
	/* -s is accepted without effect and takes no argument away. */
	assert_int_equal(f->set.arguments.count, 1);
	assert_string_equal(f->set.arguments.items[0], "mountpoint");
	assert_int_equal(f->set.notes.count, 1);
}

static void mount_spellings(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(PARSE(f, "-o", "verbose,name=a\\,b,,mask=027",
			       "-oattr_timeout=9,x-systemd.automount,_netdev,comment\\=x=1"),
			 -EINVAL);
	assert_non_null(strstr(f->err.what, "comment"));
	assert_true(f->v.verbose);
	assert_string_equal(f->v.name, "a,b");
	assert_int_equal(f->v.umask, 027);
	assert_int_equal(f->v.attr_timeout, 9 * CST_NS_PER_S);
	assert_int_equal(f->set.notes.count, 2);
	assert_non_null(strstr(f->set.notes.items[0], "x-systemd.automount has no effect: for mount(8)."));
}

static void opposites(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(PARSE(f, "-v", "-o", "quiet"), 0);
	assert_false(f->v.verbose);
	assert_int_equal(PARSE(f, "--quiet=false"), 0);
	assert_true(f->v.verbose);
	assert_int_equal(PARSE(f, "--verbose=no"), 0);
	assert_false(f->v.verbose);
}

static void refuses(struct fixture *f, const char *arg, const char *what, const char *detail)
{
	cst_error_clear(&f->err);
	char *argv[] = {cst_xstrdup(arg)};
	int rc = cst_option_parse_argv(&f->set, 1, argv, &f->err);
	free(argv[0]);
	char text[CST_ERROR_TEXT_MAX];
	cst_error_text(&f->err, text, sizeof(text));
	assert_int_equal(rc, -EINVAL);
	if (!strstr(text, what) || !strstr(text, detail))
		fail_msg("%s gave: %s", arg, text);
}

static void mistakes(void **state)
{
	struct fixture *f = *state;
	refuses(f, "--memroy=1G", "unknown option --memroy", "did you mean --memory?");
	refuses(f, "-oattr_timout=3", "unknown option -o attr_timout", "did you mean -o attr_timeout?");
	refuses(f, "--zzzzzzzz", "tool has no option", "tool --help lists all options");
	refuses(f, "--memory=12x", "bad value \"12x\" for --memory", "64k, 512MiB, 10Gi");
	refuses(f, "--memory=1MiB", "out of range", "at least 64MiB");
	refuses(f, "--memory=99999999999999999999", "bad value", "does not fit");
	refuses(f, "--count=11", "out of range", "-5 to 10");
	refuses(f, "--count=1.5", "not understood", "whole number");
	refuses(f, "--attr-timeout=101s", "out of range", "0s to 100s");
	refuses(f, "--attr-timeout=5 parsecs", "bad value", "seconds, or a unit");
	refuses(f, "--delay-ms=x", "bad value", "milliseconds, or a unit");
	refuses(f, "--umask=1777", "out of range", "0 to 0777");
	refuses(f, "--umask=9", "bad value", "octal");
	refuses(f, "--mode=some", "bad value \"some\"", "list|object");
	refuses(f, "--verbose=maybe", "bad value \"maybe\"", "true or false");
	refuses(f, "--memory", "--memory needs a value", "--memory=SIZE");
	refuses(f, "-o", "-o needs options", "");
	refuses(f, "-oname", "-o name needs a value", "");
	refuses(f, "-ofile=/x", "unknown option -o file", ""); /* for the command line only */
	refuses(f, "--insecure", "--insecure can't be used", "certificates are always checked");
	refuses(f, "-x", "unknown option -x", "");
	refuses(f, "--speed=-1", "bad value", "");
	refuses(f, "--na\nme=x", "unknown option --na\\x0ame", "");
}

static void optional_values(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(PARSE(f, "--role", "argument"), 0);
	assert_string_equal(f->v.role, "");
	assert_int_equal(f->set.arguments.count, 1);
}

static void lists_add_up_and_replace(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(PARSE(f, "--level=a", "-o", "level=b"), 0);
	assert_int_equal(f->v.level.count, 2);
	assert_string_equal(f->v.level.items[1], "b");
	assert_int_equal(cst_option_parse_text(&f->set, CST_SLICE("level=c\n"), "f", &f->err), 0);
	assert_int_equal(f->v.level.count, 2);
}

static void secrets_on_command_line(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(PARSE(f, "--secret=hunter2", "-o", "name=x,secret=hunter3,verbose"), -EINVAL);
	char text[CST_ERROR_TEXT_MAX];
	assert_null(strstr(cst_error_text(&f->err, text, sizeof(text)), "hunter"));
	assert_null(f->v.secret);
	/* Refused or not, the bytes are gone from argv. */
	assert_string_equal(f->argv[0], "--secret=");
	assert_null(memmem(f->argv[2], strlen("name=x,secret=hunter3,verbose"), "hunter3", 7));
	teardown(state);
	setup(state);
	f = *state;
	f->set.accept_argv_secrets = true;
	assert_int_equal(PARSE(f, "--secret", "hunter2"), 0);
	assert_string_equal(f->v.secret, "hunter2");
	assert_string_equal(f->argv[1], "");
	assert_int_equal(f->set.warnings.count, 1);
}

static void config_text(void **state)
{
	struct fixture *f = *state;
	static const char text[] =
		"\xef\xbb\xbf# comment\r\n--attr_timeout=5\r\n\n  memory = 128MiB \nname=\"a b\"\nverbose\n"
		"secret='x#y'\n--mode=object";
	assert_int_equal(PARSE(f, "--memory=1GiB"), 0);
	assert_int_equal(cst_option_parse_text(&f->set, (struct cst_slice){text, sizeof(text) - 1}, "conf", &f->err),
			 0);
	assert_int_equal(f->v.attr_timeout, 5 * CST_NS_PER_S);
	assert_int_equal(f->v.memory, 1 << 30); /* the command line goes before the file */
	assert_string_equal(f->v.name, "a b");
	assert_string_equal(f->v.secret, "x#y");
	assert_true(f->v.verbose);
	assert_int_equal(f->v.mode, 1);
	assert_int_equal(f->v.given.mode, CST_OPTION_FROM_FILE);
}

static void config_mistakes(void **state)
{
	struct fixture *f = *state;
	static const struct {
		struct cst_slice text;
		const char *what;
	} cases[] = {
		{CST_SLICE("# x\nnmae=1\n"), "conf line 2: unknown option nmae"},
		{CST_SLICE("memory=lots"), "conf line 1: bad value \"lots\" for memory"},
		{CST_SLICE("just some words\n"), "conf line 1: this line is not understood"},
		{CST_SLICE("=5\n"), "conf line 1: this line is not understood"},
		{CST_SLICE("file=/etc/x\n"), "conf line 1: unknown option file"},
		{CST_SLICE("a\0b"), "can't use configuration file conf"},
		{CST_SLICE("insecure\n"), "conf line 1: insecure can't be used"},
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++) {
		cst_error_clear(&f->err);
		assert_int_equal(cst_option_parse_text(&f->set, cases[i].text, "conf", &f->err), -EINVAL);
		assert_string_equal(f->err.what, cases[i].what);
	}
}

static void config_files(void **state)
{
	struct fixture *f = *state;
	char path[] = "/tmp/cistern-option-XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "secret=abc\n", 11), 11);
	assert_int_equal(fchmod(fd, 0600), 0);
	assert_int_equal(cst_option_parse_file(&f->set, path, &f->err), 0);
	assert_string_equal(f->v.secret, "abc");
	assert_int_equal(f->set.warnings.count, 0);
	assert_int_equal(fchmod(fd, 0644), 0);
	assert_int_equal(cst_option_parse_file(&f->set, path, &f->err), 0);
	assert_int_equal(f->set.warnings.count, 1);
	assert_int_equal(ftruncate(fd, 2 << 20), 0);
	assert_int_equal(cst_option_parse_file(&f->set, path, &f->err), -EFBIG);
	close(fd);
	unlink(path);
	assert_int_equal(cst_option_parse_file(&f->set, path, &f->err), -ENOENT);
	assert_int_equal(cst_option_parse_file(&f->set, "/tmp", &f->err), -EISDIR);
}

static void paths_are_absolute(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_FREE char *cwd = getcwd(NULL, 0);
	CST_AUTO_FREE char *want = cst_xasprintf("%s/x/y", cwd);
	assert_int_equal(PARSE(f, "-c", "x/y"), 0);
	assert_string_equal(f->v.file, want);
	setenv("HOME", "/home/me", 1);
	assert_int_equal(PARSE(f, "--conf=~/z"), 0);
	assert_string_equal(f->v.file, "/home/me/z");
}

static void suggestions(void **state)
{
	(void)state;
	assert_string_equal(cst_option_suggest(&table, CST_SLICE("attrtimeout")), "attr_timeout");
	assert_string_equal(cst_option_suggest(&table, CST_SLICE("muask")),
			    "umask"); /* swapped letters are one mistake */
	assert_string_equal(cst_option_suggest(&table, CST_SLICE("total_mem_limt")), "memory");
	assert_null(cst_option_suggest(&table, CST_SLICE("qqqqqqqqqq")));
	CST_AUTO_FREE char *longest = cst_xcalloc(1, 200);
	memset(longest, 'a', 199);
	assert_null(cst_option_suggest(&table, cst_slice_of(longest)));
}

static void texts(void **state)
{
	(void)state;
	CST_AUTO_BUF help = CST_BUF_INIT, man = CST_BUF_INIT, names = CST_BUF_INIT, all = CST_BUF_INIT;
	cst_option_help(&table, &help);
	cst_option_man(&table, &man);
	cst_option_names(&table, &names, false);
	cst_option_names(&table, &all, true);
	assert_non_null(strstr(help.data, "  -v, -q, --verbose"));
	assert_non_null(strstr(help.data, "(default 512MiB, at least 64MiB) Also: total_mem_limit."));
	assert_null(strstr(help.data, "_netdev"));
	assert_non_null(strstr(man.data, ".SS First\n"));
	assert_non_null(strstr(man.data, "Accepted without effect: for mount(8)."));
	assert_non_null(strstr(names.data, "--attr-timeout=\n"));
	assert_null(strstr(names.data, "--total-mem-limit"));
	assert_non_null(strstr(all.data, "--total-mem-limit=\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		TEST(defaults),
		TEST(long_spellings),
		TEST(short_spellings),
		TEST(mount_spellings),
		TEST(opposites),
		TEST(mistakes),
		TEST(optional_values),
		TEST(lists_add_up_and_replace),
		TEST(secrets_on_command_line),
		TEST(config_text),
		TEST(config_mistakes),
		TEST(config_files),
		TEST(paths_are_absolute),
		TEST(suggestions),
		TEST(texts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
