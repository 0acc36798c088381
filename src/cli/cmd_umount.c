#include "base/clock.h"
#include "base/units.h"
#include "cli/cli.h"
#include "cli/control.h"
#include "fuse/fuse.h"
#include "publish/keep.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <time.h>

#define GONE_WAIT (10 * CST_NS_PER_S)
#define TELL_EVERY CST_NS_PER_S

struct umount_options {
	bool lazy, force;
	struct {
		uint8_t lazy, force;
	} given;
};

static const struct cst_option umount_rows[] = {
	CST_OPTION_ROW(umount_options, lazy, BOOL, "l", NULL, 0, 0, NULL, 0,
		       "Detach it now even if files are open; it goes when they are closed.")
		CST_OPTION_ROW(
			umount_options, force, BOOL, "f", NULL, 0, 0, NULL, 0,
			"Don't wait for what is still to be published: it is kept for cistern conflicts instead.")};
static const struct cst_option_table umount_table = {umount_rows, CST_ARRAY_LEN(umount_rows), "cistern umount", false};

/* ---- what is still to be published ---- */

struct backlog {
	bool known;	/* the process answers and writes */
	bool unmounted; /* it waits for nothing else any more */
	long pid;
	unsigned writers;
	uint64_t pending;
	char *keep_dir, *writer;
};

static void backlog_fini(struct backlog *b)
{
	free(b->keep_dir);
	free(b->writer);
	*b = (struct backlog){0};
}

static void ask_backlog(const char *mountpoint, bool give_up, struct backlog *b)
{
	CST_AUTO_BUF answer = CST_BUF_INIT;
	struct cst_error err = CST_ERROR_INIT;
	backlog_fini(b);
	if (cst_control_call(mountpoint, give_up ? "POST" : "GET", give_up ? "/writes/give-up" : "/writes",
			     CST_SLICE(""), &answer, &err) != 0)
		return;
	json_t *root = json_loadb(answer.data, answer.len, 0, NULL);
	const char *dir = json_string_value(json_object_get(root, "keep_dir"));
	const char *writer = json_string_value(json_object_get(root, "writer"));
	b->known = dir && dir[0] && writer;
	b->pid = (long)json_integer_value(json_object_get(root, "pid"));
	b->unmounted = json_is_true(json_object_get(root, "unmounted"));
	b->writers = (unsigned)json_integer_value(json_object_get(root, "writers"));
	b->pending = (uint64_t)json_integer_value(json_object_get(root, "pending"));
	if (b->known) {
		b->keep_dir = cst_xstrdup(dir);
		b->writer = cst_xstrdup(writer);
	}
	json_decref(root);
}

static void tell(const struct backlog *b)
{
	char size[CST_SIZE_TEXT];
	cst_format_size(b->pending, size);
	cst_cli_say("waiting for %u files to be published, %s; cistern umount --force keeps them in %s instead",
		    b->writers, size, b->keep_dir);
}

/* A zombie, that nobody has waited for, is none. */
static bool is_running(long pid)
{
	CST_AUTO_FREE char *path = cst_xasprintf("/proc/%ld/stat", pid);
	char text[512] = "";
	FILE *f = pid > 0 ? fopen(path, "re") : NULL;
	if (!f)
		return false;
	size_t len = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	const char *state = memrchr(text, ')', len);
	return state && state[1] == ' ' && state[2] != 'Z';
}

/* The process ends a moment after its mount; whoever mounts again at once must find the socket free, and what could not be published is kept until
 * then. One that still publishes is waited for as long as it takes. */
static void wait_until_gone(const char *mountpoint, long pid, bool force)
{
	struct backlog b = {0};
	int64_t end = cst_now() + GONE_WAIT, told = cst_now();
	while ((cst_control_alive(mountpoint) || is_running(pid)) && cst_now() < end) {
		ask_backlog(mountpoint, force, &b);
		if (b.known && b.writers > 0)
			end = cst_now() + GONE_WAIT;
		if (b.known && b.writers > 0 && cst_now() - told >= TELL_EVERY) {
			tell(&b);
			told = cst_now();
		}
		cst_sleep(10 * CST_NS_PER_MS);
	}
	backlog_fini(&b);
}

struct kept {
	const char *writer;
	int64_t since;
	unsigned count;
};

static void name_kept(void *arg, const struct cst_keep_record *r)
{
	struct kept *k = arg;
	if (r->at < k->since || !r->writer || strcmp(r->writer, k->writer) != 0)
		return;
	k->count++;
	cst_cli_say("not published: %s (%s); kept as %s", r->key, r->reason, r->id);
}

/* What could not be published is named, and is a failure. */
static int status_of(const struct backlog *before, int64_t since)
{
	struct cst_error err = CST_ERROR_INIT;
	struct kept kept = {.writer = before->writer, .since = since};
	if (!before->known)
		return CST_EXIT_OK;
	if (cst_keep_each(before->keep_dir, name_kept, &kept, &err) < 0 && err.code != ENOENT)
		return cst_cli_fail(&err, CST_EXIT_FAILED);
	if (kept.count > 0)
		cst_cli_say("cistern conflicts ls --keep-dir %s lists what was kept", before->keep_dir);
	return kept.count > 0 ? CST_EXIT_FAILED : CST_EXIT_OK;
}

static int unmount(const char *mountpoint, const struct umount_options *o)
{
	struct cst_error err = CST_ERROR_INIT;
	struct backlog before = {0};
	int64_t since = time(NULL);
	ask_backlog(mountpoint, false, &before);
	/* A mount that is gone and still publishes can be waited for, or given up, by whoever comes later. */
	int status = CST_EXIT_OK;
	if (!before.unmounted && cst_fuse_unmount(mountpoint, o->lazy, &err) != 0) {
		status = cst_cli_fail(&err, CST_EXIT_FAILED);
	} else if (!o->lazy) {
		wait_until_gone(mountpoint, before.known ? before.pid : 0, o->force);
		status = status_of(&before, since);
	}
	backlog_fini(&before);
	return status;
}

static int run(int argc, char **argv)
{
	struct umount_options o;
	struct cst_option_set set;
	int status;
	if (cst_cli_parse(&cst_command_umount, &set, &o, sizeof(o), argc, argv, 1, 1, &status)) {
		CST_AUTO_FREE char *mountpoint = cst_control_canonical(set.arguments.items[0]);
		status = unmount(mountpoint, &o);
	}
	cst_option_set_fini(&set);
	return status;
}

const struct cst_command cst_command_umount = {
	.name = "umount",
	.synopsis = "MOUNTPOINT [--lazy | --force]",
	.summary = "Unmount a file system and wait until its process has let go",
	.description =
		"Works for root, and for the user who mounted (through fusermount3).\n\n"
		"After a mount that writes the command waits until all files have been published, says every second how far that is, and can be "
		"interrupted: the process goes on. A store that is down is waited for. --force ends the wait, also of a mount that is "
		"unmounted already: what is not published then is kept for cistern conflicts. Each file that was kept is named, and the exit status is 1.",
	.examples = "cistern umount /mnt/data\nUnmounts /mnt/data.\n",
	.options = &umount_table,
	.run = run,
};
