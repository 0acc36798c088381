/* Chooses the command: by the name the program was called by (ossfs, ossfs2, mount.fuse.TYPE), else by the first argument. */
#include "cli/cli.h"
#include "cli/cmd_mount.h"
#include "cli/mount_keep.h"
#include "object/credentials.h"

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

static bool is_ossfs2(const char *name)
{
	return strcmp(name, "ossfs2") == 0;
}

static bool is_ossfs(const char *name)
{
	return strcmp(name, "ossfs") == 0;
}

static bool asks_version(int argc, char **argv)
{
	return argc == 2 &&
	       (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0 || strcmp(argv[1], "-V") == 0);
}

static int run_persona(const char *name, int argc, char **argv, bool *found)
{
	*found = true;
	if (is_ossfs(name) || is_ossfs2(name)) {
		if (asks_version(argc, argv))
			return cst_command_version.run(1, argv);
		return cst_mount_main(is_ossfs(name) ? CST_PERSONA_OSSFS : CST_PERSONA_OSSFS2, false, argc, argv);
	}
	if (strncmp(name, "mount.", 6) == 0) {
		const char *type = strncmp(name, "mount.fuse.", 11) == 0 ? name + 11 : name + 6;
		enum cst_persona persona = is_ossfs(type)    ? CST_PERSONA_OSSFS
					   : is_ossfs2(type) ? CST_PERSONA_OSSFS2
							     : CST_PERSONA_HELPER;
		return cst_mount_helper_main(persona, argc, argv);
	}
	*found = false;
	return 0;
}

int main(int argc, char **argv)
{
	bool found;
	/* Keys pass through this process: no core dump and no tracer of the same user may show them. */
	cst_process_hide_secrets();
	int status;
	if (cst_mount_keep_main(argc, argv, &status))
		return status;
	status = run_persona(argc > 0 ? base_name(argv[0]) : "", argc, argv, &found);
	if (found)
		return status;
	const char *name = argc > 1 ? argv[1] : "";
	if (name[0] == '\0' || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
		CST_AUTO_BUF out = CST_BUF_INIT;
		cst_cli_help_overview(&out);
		fputs(out.data, name[0] ? stdout : stderr);
		return name[0] ? CST_EXIT_OK : CST_EXIT_USAGE;
	}
	if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
		return cst_command_version.run(1, argv + 1);
	/* mount.fuse(8) runs the type's program as: cistern SOURCE DIR -o OPTIONS */
	if (cst_url_is(name))
		return cst_mount_helper_main(CST_PERSONA_HELPER, argc, argv);
	const struct cst_command *command = cst_command_find(name);
	return command ? command->run(argc - 1, argv + 1) : cst_command_unknown(name);
}
