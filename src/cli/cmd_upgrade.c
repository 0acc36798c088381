#include "base/clock.h"
#include "cli/cli.h"
#include "cli/control.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <string.h>

/* As long as all deadlines of the supervisor together. */
#define WAIT (240 * CST_NS_PER_S)
#define LOOK_EVERY (50 * CST_NS_PER_MS)

struct upgrade_options {
	char *program;
	struct {
		uint8_t program;
	} given;
};

static const struct cst_option upgrade_rows[] = {
	CST_OPTION_ROW(upgrade_options, program, PATH, "", "FILE", 0, 0, NULL, 0,
		       "The program that is to go on with the mount; this one by default.")};
static const struct cst_option_table upgrade_table = {upgrade_rows, CST_ARRAY_LEN(upgrade_rows), "cistern upgrade",
						      false};

/* The file that this program was started from, as it is there now. */
static int own_path(char *path, size_t size, struct cst_error *err)
{
	static const char gone[] = " (deleted)";
	ssize_t n = readlink("/proc/self/exe", path, size - 1);
	int rc = n < 0 ? -errno : 0;
	if (n > 0) {
		path[n] = '\0';
		size_t len = (size_t)n, tail = sizeof(gone) - 1;
		if (len > tail && strcmp(path + len - tail, gone) == 0)
			path[len - tail] = '\0';
		return 0;
	}
	cst_error_set(err, -rc, "can't tell where this program is");
	cst_error_hint(err, "name it with --program FILE");
	return rc;
}

struct progress {
	long long begun, ended, serving;
	char why[1400];
};

static int ask(const char *mountpoint, struct progress *p, struct cst_error *err)
{
	CST_AUTO_BUF body = CST_BUF_INIT;
	const char *why = "";
	json_int_t begun = 0, ended = 0, serving = 0;
	int rc = cst_control_get(mountpoint, "/stats", &body, err);
	if (rc != 0)
		return rc;
	json_t *root = json_loadb(body.data, body.len, 0, NULL);
	if (!root || json_unpack(root, "{s:{s:I, s:I, s:I, s:s}}", "supervisor", "upgrades_begun", &begun,
				 "upgrades_ended", &ended, "file_system_pid", &serving, "upgrade_error", &why) != 0) {
		rc = cst_error_set(err, EBADMSG, "can't upgrade the mount on %s", mountpoint);
		cst_error_why(err, "nothing keeps it that could replace its process");
	}
	p->begun = begun;
	p->ended = ended;
	p->serving = serving;
	snprintf(p->why, sizeof(p->why), "%s", why);
	json_decref(root);
	return rc;
}

/* While one process makes room for the other nobody answers. */
static int wait_for_it(const char *mountpoint, long long begun, struct progress *p, struct cst_error *err)
{
	int64_t end = cst_now() + WAIT;
	do {
		cst_error_clear(err);
		int rc = ask(mountpoint, p, err);
		if (rc == 0 && p->ended > begun && p->ended == p->begun)
			return 0;
		cst_sleep(LOOK_EVERY);
	} while (cst_now() < end);
	cst_error_set(err, ETIMEDOUT, "can't tell how the upgrade of %s went", mountpoint);
	cst_error_hint(err, "the mount's log tells");
	return -ETIMEDOUT;
}

static int upgrade(const char *mountpoint, const char *program, struct cst_error *err)
{
	char path[PATH_MAX];
	struct progress before, after;
	CST_AUTO_BUF answer = CST_BUF_INIT;
	CST_AUTO_FREE char *full = program ? realpath(program, NULL) : NULL;
	if (program && !full) {
		int rc = cst_error_set(err, errno, "can't run %s", program);
		cst_error_why(err, "%s", strerror(-rc));
		return rc;
	}
	int rc = full ? 0 : own_path(path, sizeof(path), err);
	if (rc == 0)
		rc = ask(mountpoint, &before, err);
	if (rc == 0)
		rc = cst_control_call(mountpoint, "POST", "/upgrade", cst_slice_of(full ? full : path), &answer, err);
	if (rc == 0)
		rc = wait_for_it(mountpoint, before.ended, &after, err);
	if (rc != 0)
		return rc;
	if (after.why[0]) {
		cst_error_set(err, EIO, "the mount on %s was not upgraded", mountpoint);
		cst_error_why(err, "%s", after.why);
		cst_error_hint(err, "it goes on with the program that it had");
		return -EIO;
	}
	printf("%s goes on with %s (process %lld)\n", mountpoint, full ? full : path, after.serving);
	return 0;
}

static int run(int argc, char **argv)
{
	struct upgrade_options o;
	struct cst_option_set set;
	struct cst_error err = CST_ERROR_INIT;
	int status;
	if (cst_cli_parse(&cst_command_upgrade, &set, &o, sizeof(o), argc, argv, 1, 1, &status)) {
		CST_AUTO_FREE char *mountpoint = cst_control_canonical(set.arguments.items[0]);
		if (upgrade(mountpoint, o.program, &err) != 0)
			status = cst_cli_fail(&err, CST_EXIT_FAILED);
	}
	cst_option_set_fini(&set);
	return status;
}

const struct cst_command cst_command_upgrade = {
	.name = "upgrade",
	.synopsis = "MOUNTPOINT [--program FILE]",
	.summary = "Replace the program that serves a mount, while it is in use",
	.description =
		"The new program is prepared while the old one serves. Then the old one answers what it can in a moment and ends, and the new one goes on: "
		"open files, working directories and mounts inside stay, and calls under way wait a moment longer. When the new program doesn't start, or "
		"can't read what the old one left, the mount goes on as it was and the command fails with the reason.\n\n"
		"Refused while files are open for writing. The process that keeps the mount, whose number `cistern stats` tells, stays the same and goes on with its own "
		"program; the new one is used for the file system from then on.",
	.examples = "cistern upgrade /mnt/data\nAfter a new version was installed.\n",
	.options = &upgrade_table,
	.run = run,
};
