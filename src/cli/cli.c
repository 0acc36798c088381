#include "cli/cli.h"

#include <errno.h>

const struct cst_command *const cst_commands[] = {
	&cst_command_mount,   &cst_command_umount, &cst_command_stats,	 &cst_command_refresh,
	&cst_command_upgrade, &cst_command_load,   &cst_command_cache,	 &cst_command_conflicts,
	&cst_command_store,   &cst_command_help,   &cst_command_version, &cst_command_completion,
};
const size_t cst_command_count = CST_ARRAY_LEN(cst_commands);

const struct cst_command *cst_command_find(const char *name)
{
	for (size_t i = 0; i < cst_command_count; i++)
		if (strcmp(cst_commands[i]->name, name) == 0)
			return cst_commands[i];
	return NULL;
}

int cst_command_unknown(const char *name)
{
	const char *names[CST_ARRAY_LEN(cst_commands)];
	for (size_t i = 0; i < cst_command_count; i++)
		names[i] = cst_commands[i]->name;
	const char *near = cst_option_nearest(cst_slice_of(name), names, cst_command_count);
	struct cst_error err = CST_ERROR_INIT;
	cst_error_set(&err, EINVAL, "unknown command %s", name);
	if (near)
		cst_error_hint(&err, "did you mean cistern %s? cistern help lists all commands", near);
	else
		cst_error_hint(&err, "cistern help lists all commands");
	return cst_cli_fail(&err, CST_EXIT_USAGE);
}

int cst_cli_fail(const struct cst_error *err, int status)
{
	char text[CST_ERROR_TEXT_MAX];
	fprintf(stderr, "cistern: %s\n", cst_error_text(err, text, sizeof(text)));
	return status;
}

void cst_cli_say(const char *fmt, ...)
{
	CST_AUTO_BUF text = CST_BUF_INIT;
	va_list ap;
	va_start(ap, fmt);
	cst_buf_vprintf(&text, fmt, ap);
	va_end(ap);
	fprintf(stderr, "cistern: %s\n", text.data);
}

bool cst_cli_wants_help(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return true;
	return false;
}

static int count_error(const struct cst_command *command, size_t count, size_t max, struct cst_error *err)
{
	cst_error_set(err, EINVAL, count > max ? "too many arguments" : "too few arguments");
	cst_error_hint(err, "usage: cistern %s %.*s (more: cistern help %s)", command->name,
		       (int)strcspn(command->synopsis, "\n"), command->synopsis, command->name);
	return -EINVAL;
}

bool cst_cli_parse(const struct cst_command *command, struct cst_option_set *set, void *values, size_t size, int argc,
		   char **argv, size_t min, size_t max, int *status)
{
	cst_option_set_init(set, command->options, values, size);
	if (cst_cli_wants_help(argc, argv)) {
		CST_AUTO_BUF out = CST_BUF_INIT;
		cst_cli_help_command(command, &out);
		fputs(out.data, stdout);
		*status = CST_EXIT_OK;
		return false;
	}
	struct cst_error err = CST_ERROR_INIT;
	int rc = cst_option_parse_argv(set, argc - 1, argv + 1, &err);
	if (rc == 0 && (set->arguments.count < min || set->arguments.count > max))
		rc = count_error(command, set->arguments.count, max, &err);
	*status = rc == 0 ? CST_EXIT_OK : cst_cli_fail(&err, CST_EXIT_USAGE);
	return rc == 0;
}
