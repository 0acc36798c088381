#include "base/clock.h"
#include "cli/cli.h"
#include "cli/control.h"
#include "fuse/fuse.h"

#define GONE_WAIT (10 * CST_NS_PER_S)

struct umount_options {
	bool lazy;
	struct {
		uint8_t lazy;
	} given;
};

static const struct cst_option umount_rows[] = {
	CST_OPTION_ROW(umount_options, lazy, BOOL, "l", NULL, 0, 0, NULL, 0,
		       "Detach it now even if files are open; it goes when they are closed.")};
static const struct cst_option_table umount_table = {umount_rows, CST_ARRAY_LEN(umount_rows), "cistern umount", false};

/* The process ends a moment after its mount; whoever mounts again at once must find the socket free. */
static void wait_until_gone(const char *mountpoint)
{
	int64_t end = cst_now() + GONE_WAIT;
	while (cst_control_alive(mountpoint) && cst_now() < end)
		cst_sleep(10 * CST_NS_PER_MS);
}

static int run(int argc, char **argv)
{
	struct umount_options o;
	struct cst_option_set set;
	struct cst_error err = CST_ERROR_INIT;
	int status;
	if (cst_cli_parse(&cst_command_umount, &set, &o, sizeof(o), argc, argv, 1, 1, &status)) {
		CST_AUTO_FREE char *mountpoint = cst_control_canonical(set.arguments.items[0]);
		if (cst_fuse_unmount(mountpoint, o.lazy, &err) != 0)
			status = cst_cli_fail(&err, CST_EXIT_FAILED);
		else if (!o.lazy)
			wait_until_gone(mountpoint);
	}
	cst_option_set_fini(&set);
	return status;
}

const struct cst_command cst_command_umount = {
	.name = "umount",
	.synopsis = "MOUNTPOINT [--lazy]",
	.summary = "Unmount a file system and wait until its process has let go",
	.description = "Works for root, and for the user who mounted (through fusermount3).",
	.examples = "cistern umount /mnt/data\nUnmounts /mnt/data.\n",
	.options = &umount_table,
	.run = run,
};
