#include "base/clock.h"
#include "cli/cli.h"
#include "cli/control.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#define FIRST_WAIT (2 * CST_NS_PER_MS)
#define LONGEST_WAIT (200 * CST_NS_PER_MS)

struct refresh_options {
	int output;
	bool quiet;
	struct {
		uint8_t output, quiet;
	} given;
};

static const struct cst_option refresh_rows[] = {
	CST_OPTION_ROW(refresh_options, output, CHOICE, "", "text|json", 0, 0, "text", 0, "json writes one object.")
		CST_OPTION_ROW(refresh_options, quiet, BOOL, "q", NULL, 0, 0, NULL, 0, "Only failures are told.")};
static const struct cst_option_table refresh_table = {refresh_rows, CST_ARRAY_LEN(refresh_rows), "cistern refresh",
						      false};

/* What is behind the mountpoint in an absolute path, or NULL. */
static const char *below(const char *path, const char *mountpoint)
{
	size_t len = strlen(mountpoint);
	while (len > 0 && mountpoint[len - 1] == '/')
		len--;
	return strncmp(path, mountpoint, len) == 0 && (path[len] == '/' || path[len] == '\0') ? path + len : NULL;
}

static int add_part(struct cst_buf *out, struct cst_slice part)
{
	if (part.len == 0 || cst_slice_is(part, "."))
		return 0;
	if (cst_slice_is(part, "..")) {
		if (out->len == 0)
			return -EINVAL;
		while (out->len > 0 && out->data[--out->len] != '/')
			;
		return 0;
	}
	if (out->len > 0)
		cst_buf_add_char(out, '/');
	cst_buf_add_slice(out, part);
	return 0;
}

/* The path below the mountpoint, by its letters alone: what is mounted may not answer, and a symbolic link is what is meant. */
static int path_below(const char *path, const char *mountpoint, const char *as_given, struct cst_buf *out,
		      struct cst_error *err)
{
	const char *tail = path;
	int rc = 0;
	if (path[0] == '/') {
		tail = below(path, mountpoint);
		if (!tail)
			tail = below(path, as_given);
	}
	struct cst_slice rest = cst_slice_of(tail);
	while (rest.len > 0 && rc == 0)
		rc = add_part(out, cst_slice_cut(&rest, '/'));
	if (tail && rc == 0)
		return 0;
	cst_error_set(err, EINVAL, "can't refresh %s", path);
	cst_error_why(err, "it is not below %s", mountpoint);
	cst_error_hint(err, "name a path below the mountpoint, as dir/file or with the mountpoint before it");
	return -EINVAL;
}

static int bad_answer(const char *mountpoint, struct cst_error *err)
{
	cst_error_set(err, EBADMSG, "the mount on %s gave an answer that was not expected", mountpoint);
	return -EBADMSG;
}

static int ask(const char *mountpoint, const char *method, const char *target, struct cst_slice body, json_t **answer,
	       struct cst_error *err)
{
	CST_AUTO_BUF text = CST_BUF_INIT;
	int rc = cst_control_call(mountpoint, method, target, body, &text, err);
	if (rc != 0)
		return rc;
	*answer = json_loadb(text.data ? text.data : "", text.len, 0, NULL);
	return json_is_object(*answer) ? 0 : bad_answer(mountpoint, err);
}

/* Waits until the refresh has ended. */
static int refresh(const char *mountpoint, struct cst_slice path, json_t **answer, struct cst_error *err)
{
	int64_t wait = FIRST_WAIT;
	int rc = ask(mountpoint, "POST", "/refreshes", path, answer, err);
	if (rc != 0)
		return rc;
	CST_AUTO_FREE char *target =
		cst_xasprintf("/refreshes/%lld", (long long)json_integer_value(json_object_get(*answer, "id")));
	for (;;) {
		json_decref(*answer);
		*answer = NULL;
		cst_sleep(wait);
		rc = ask(mountpoint, "GET", target, (struct cst_slice){NULL, 0}, answer, err);
		if (rc != 0 || json_is_true(json_object_get(*answer, "finished")))
			return rc;
		wait = cst_min(wait * 2, (int64_t)LONGEST_WAIT);
	}
}

static long long number(const json_t *answer, const char *name)
{
	return json_integer_value(json_object_get(answer, name));
}

static void print_answer(const json_t *answer, const struct refresh_options *o)
{
	long long directories = number(answer, "directories");
	if (o->quiet)
		return;
	if (o->output == 1)
		printf("{\"directories\": %lld, \"changed\": %lld, \"new\": %lld, \"gone\": %lld, \"failed\": %lld}\n",
		       directories, number(answer, "changed"), number(answer, "new"), number(answer, "gone"),
		       number(answer, "failed"));
	else
		printf("%lld %s listed: %lld changed, %lld new, %lld gone\n", directories,
		       directories == 1 ? "directory" : "directories", number(answer, "changed"), number(answer, "new"),
		       number(answer, "gone"));
	fflush(stdout);
}

static int judge(const json_t *answer, struct cst_error *err)
{
	const char *what = "the refresh failed", *why = "", *hint = "";
	int rc = (int)number(answer, "rc");
	if (rc == 0)
		return 0;
	json_unpack((json_t *)(uintptr_t)answer, "{s:{s:s, s:s, s:s}}", "error", "what", &what, "why", &why, "hint",
		    &hint);
	cst_error_set(err, rc < 0 ? -rc : EIO, "%s", what);
	cst_error_why(err, "%s", why);
	cst_error_hint(err, "%s", hint);
	return rc;
}

static int run_refresh(const struct cst_option_list *args, const struct refresh_options *o)
{
	struct cst_error err = CST_ERROR_INIT;
	CST_AUTO_BUF path = CST_BUF_INIT;
	CST_AUTO_FREE char *mountpoint = cst_control_canonical(args->items[0]);
	json_t *answer = NULL;
	/* As for a load, one path that lies below a mountpoint will do. */
	CST_AUTO_FREE char *above = args->count == 1 ? cst_control_find(mountpoint) : NULL;
	if (above && strcmp(above, mountpoint) != 0) {
		cst_buf_add_str(&path, mountpoint + strlen(above) + strspn(mountpoint + strlen(above), "/"));
		free(mountpoint);
		mountpoint = cst_steal(above);
	}
	if (args->count > 1 && path_below(args->items[1], mountpoint, args->items[0], &path, &err) != 0)
		return cst_cli_fail(&err, CST_EXIT_USAGE);
	int rc = refresh(mountpoint, cst_buf_slice(&path), &answer, &err);
	if (rc == 0) {
		print_answer(answer, o);
		rc = judge(answer, &err);
	}
	json_decref(answer);
	return rc == 0 ? CST_EXIT_OK : cst_cli_fail(&err, CST_EXIT_FAILED);
}

static int run(int argc, char **argv)
{
	struct refresh_options o;
	struct cst_option_set set;
	int status;
	if (cst_cli_parse(&cst_command_refresh, &set, &o, sizeof(o), argc, argv, 1, 2, &status))
		status = run_refresh(&set.arguments, &o);
	cst_option_set_fini(&set);
	return status;
}

const struct cst_command cst_command_refresh = {
	.name = "refresh",
	.synopsis = "MOUNTPOINT [PATH] [--output json]\nMOUNTPOINT/PATH [--output json]",
	.summary = "Have a mount ask the store again about what it knows",
	.description =
		"Programs that run on the mount see objects that were changed, made or deleted elsewhere at once, instead of when the time of "
		"--list-timeout, --entry-timeout and --attr-timeout is over. The mount lists again each directory that it knows something of, "
		"32 at a time, and compares size, ETag and time. Nothing happens to what is as it was: it stays in the page cache and in "
		"the caches. A file that is open keeps the version it was opened with; the next open takes the new one.\n\n"
		"PATH, below the mountpoint, is a file (one or two requests), or a directory and everything below it that the mount knows. "
		"Without it everything that the mount knows is asked for.\n\n"
		"The command waits for the end and tells how many directories were listed, and how many names were changed, new or gone. A "
		"request of the mount that hangs does not delay it. What is mounted on a directory of the mount stays, as long as the "
		"directory exists in the store. Exit status 1: something could not be asked for, standard error says what; the rest "
		"was refreshed.",
	.examples =
		"cistern refresh /mnt/data\nRefreshes all that the mount knows.\n\n"
		"cistern refresh /mnt/data models/current --output json\nRefreshes a directory, and writes {\"directories\": 1, \"changed\": 2, …}.\n",
	.options = &refresh_table,
	.run = run,
};
