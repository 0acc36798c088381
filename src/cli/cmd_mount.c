#define CST_LOG_AREA "mount"
#include "cli/cmd_mount.h"

#include "base/log.h"
#include "cli/cli.h"
#include "cli/control.h"
#include "cli/daemon.h"
#include "cli/launch.h"
#include "cli/mount_keep.h"
#include "cli/signals.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

static const char read_only_note[] =
	"write=full is not in this version, mounted read-only; write=append lets files be written from front to end";

/* ---- where the log goes ---- */

static void make_dirs(const char *path)
{
	CST_AUTO_FREE char *copy = cst_xstrdup(path);
	for (char *c = copy + 1; *c != '\0'; c++) {
		if (*c != '/')
			continue;
		*c = '\0';
		mkdir(copy, 0755); /* what can't be made shows when the log is opened */
		*c = '/';
	}
	mkdir(copy, 0755);
}

static char *log_dir_default(void)
{
	if (geteuid() == 0)
		return cst_xstrdup("/var/log/cistern");
	const char *state = getenv("XDG_STATE_HOME");
	const char *home = getenv("HOME");
	if (state && state[0] == '/')
		return cst_xasprintf("%s/cistern", state);
	if (home && home[0] == '/')
		return cst_xasprintf("%s/.local/state/cistern", home);
	return cst_xasprintf("/tmp/cistern-%u", (unsigned)geteuid());
}

/* NULL: standard error. */
static char *log_path(const struct cst_mount_plan *plan)
{
	const struct cst_mount_options *o = &plan->o;
	if (o->log_file && o->log_file[0])
		return cst_xstrdup(o->log_file);
	if (o->foreground && !o->log_dir)
		return NULL;
	CST_AUTO_FREE char *dir = o->log_dir && o->log_dir[0] ? cst_xstrdup(o->log_dir) : log_dir_default();
	make_dirs(dir);
	const char *name = plan->mountpoint;
	while (*name == '/')
		name++;
	char *path = cst_xasprintf("%s/%s.log", dir, *name ? name : "root");
	for (char *c = path + strlen(dir) + 1; *c != '\0'; c++)
		if (*c == '/')
			*c = '-';
	return path;
}

static int open_log(const struct cst_mount_plan *plan, const char *path, struct cst_error *err)
{
	struct cst_log_config config = {.json = plan->o.log_format == 1, .path = path};
	if (cst_log_parse_level(plan->o.log_level, &config.level) != 0) {
		cst_error_set(err, EINVAL, "bad value \"%s\" for log_level", plan->o.log_level);
		cst_error_hint(err, "one of error, warn, info, debug, trace");
		return -EINVAL;
	}
	return cst_log_init(&config, err);
}

/* ---- running ---- */

/* In the process that will keep the mount. */
static int keep(struct cst_mount_plan *plan, const char *log, int launch, struct cst_daemon *daemon)
{
	struct cst_error err = CST_ERROR_INIT;
	cst_signals_block();
	if (plan->asked_to_write)
		cst_log_warn("%s", read_only_note);
	cst_access_forget_secrets(&plan->o);
	int rc = cst_mount_keep(plan, launch, log, daemon, &err);
	if (rc == 0)
		return CST_EXIT_OK;
	if (rc == -EINTR && err.code == 0)
		return 128 + SIGTERM;
	char text[CST_ERROR_TEXT_MAX];
	cst_error_text(&err, text, sizeof(text));
	if (daemon->fd < 0)
		return cst_cli_fail(&err, CST_EXIT_FAILED);
	cst_log_error("%s", text);
	cst_daemon_failed(daemon, text, CST_EXIT_FAILED);
	return CST_EXIT_FAILED;
}

static int mount_plan(struct cst_mount_plan *plan, int launch)
{
	struct cst_error err = CST_ERROR_INIT;
	struct cst_daemon daemon = {-1};
	CST_AUTO_FREE char *log = log_path(plan);
	CST_AUTO_FREE char *ready_text =
		cst_xasprintf("%s is mounted on %s, %s; log: %s", plan->access.source, plan->mountpoint,
			      cst_mount_plan_mode(plan), log ? log : "standard error");
	/* The log is opened here so that a path that can't be is this command's error. */
	if (open_log(plan, log, &err) != 0)
		return cst_cli_fail(&err, err.code == EINVAL ? CST_EXIT_USAGE : CST_EXIT_FAILED);
	for (size_t i = 0; i < plan->set.warnings.count && log; i++)
		cst_cli_say("%s", plan->set.warnings.items[i]);
	if (plan->asked_to_write && log)
		cst_cli_say("%s", read_only_note);
	if (cst_launch_complete(launch, plan, log ? log : "standard error", &err) != 0)
		return cst_cli_fail(&err, CST_EXIT_FAILED);
	if (!plan->o.foreground && cst_daemon_fork(&daemon, ready_text, &err) != 0)
		return cst_cli_fail(&err, CST_EXIT_FAILED);
	return keep(plan, log, launch, &daemon);
}

int cst_mount_main(enum cst_persona persona, bool dry_run, int argc, char **argv)
{
	struct cst_error err = CST_ERROR_INIT;
	struct cst_mount_plan plan;
	if (cst_cli_wants_help(argc, argv)) {
		CST_AUTO_BUF out = CST_BUF_INIT;
		cst_cli_help_command(&cst_command_mount, &out);
		fputs(out.data, stdout);
		return CST_EXIT_OK;
	}
	int status = CST_EXIT_OK;
	CST_AUTO_CLOSE int launch = cst_launch_make(persona, argc, argv, &err);
	if (launch < 0)
		return cst_cli_fail(&err, CST_EXIT_FAILED);
	if (cst_mount_plan_init(&plan, persona, argc, argv, &err) != 0)
		status = cst_cli_fail(&err, err.code == EINVAL ? CST_EXIT_USAGE : CST_EXIT_FAILED);
	else if (!dry_run)
		status = mount_plan(&plan, launch);
	cst_mount_plan_fini(&plan);
	return status;
}

/* mount(8) calls helpers as NAME SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]; -f asks for a dry run there. */
int cst_mount_helper_main(enum cst_persona persona, int argc, char **argv)
{
	CST_AUTO_FREE char **kept = cst_xcalloc((size_t)argc + 1, sizeof(*kept));
	int count = 0;
	bool dry_run = false;
	for (int i = 0; i < argc; i++) {
		bool flags =
			argv[i][0] == '-' && argv[i][1] != '\0' && strspn(argv[i] + 1, "sfnv") == strlen(argv[i] + 1);
		bool with_value = strcmp(argv[i], "-t") == 0 || strcmp(argv[i], "-N") == 0;
		if (flags)
			dry_run |= strchr(argv[i], 'f') != NULL;
		else if (with_value)
			i++;
		else
			kept[count++] = argv[i];
	}
	return cst_mount_main(persona, dry_run, count, kept);
}

static int run(int argc, char **argv)
{
	return cst_mount_main(CST_PERSONA_CISTERN, false, argc, argv);
}

const struct cst_command cst_command_mount = {
	.name = "mount",
	.synopsis = "[URL] MOUNTPOINT [--endpoint URL] [-c FILE] [-f] [-o OPTION,...] [options]",
	.summary = "Mount a bucket or a prefix of one",
	.description =
		"URL is oss://BUCKET[/PREFIX] or s3://BUCKET[/PREFIX]; the bucket may be named in the configuration file or with -o bucket=NAME "
		"instead. The command returns when the mount can be used, and says where it logs; the process stays in the background until "
		"the file system is unmounted (cistern umount, umount(8) or SIGTERM). What is wrong at the start is told in one line, and nothing is "
		"mounted then.\n\n"
		"Each option can be written as --option=VALUE, as -o option=VALUE (several with commas), or as a line option=VALUE of "
		"the configuration file; - and _ mean the same in names. Secrets are taken from the file, the environment and credential "
		"providers, not from the command line.\n\n"
		"Without a credential option these are looked for: the environment (OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET, AWS_ACCESS_KEY_ID "
		"and AWS_SECRET_ACCESS_KEY), RRSA variables, profile files (~/.ossutilconfig, ~/.aws), ~/.passwd-ossfs and /etc/passwd-ossfs.\n\n"
		"--cache-dir or --cache-level keep what is read on local disks (or in a tmpfs), for this and other mounts; cistern load fills them ahead. Where the kernel "
		"can, it reads wholly cached files by itself; cistern stats says whether it does, and if not why.\n\n"
		"--memory is a hard limit of all buffers for object data. On top come the process itself (some 20 to 60 MiB), listings (64 MiB of those that "
		"nobody uses, about 100 bytes a name of the others), socket buffers (1 MiB a connection at most, nearly empty as a rule), the index of "
		"a cache (50 to 100 bytes an object, in one process for each directory), and in the kernel 1.1 KiB for each file it knows and the page cache, "
		"which it gives back under pressure; a container counts it until then. A MEM level is memory as well: its quota is checked against the cgroup's "
		"limit.\n\n"
		"In /etc/fstab: oss://BUCKET/PREFIX /mnt fuse.cistern _netdev,ro,endpoint=https://HOST 0 0. Called as ossfs or ossfs2 the "
		"program takes the command lines and configuration files of those programs.",
	.examples = "cistern mount oss://photos/2024 /mnt/photos --endpoint https://oss-cn-hangzhou.aliyuncs.com\n"
		    "Mounts a prefix with credentials from the environment or the usual files.\n\n"
		    "cistern mount oss://demo /mnt/demo --endpoint http://127.0.0.1:9000 --anonymous -f\n"
		    "Mounts from a store of one's own (cistern store) and stays in the foreground.\n\n"
		    "cistern mount /mnt/data -c /etc/cistern/data.conf -o kernel_cache,allow_other\n"
		    "Takes bucket, endpoint and keys from a file.\n",
	.options = &cst_mount_table,
	.run = run,
};
