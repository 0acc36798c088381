#include "cli/cli.h"

#include <errno.h>

struct help_options {
	bool man;
	struct {
		uint8_t man;
	} given;
};

static const struct cst_option help_rows[] = {CST_OPTION_ROW(help_options, man, BOOL, "", NULL, 0, 0, NULL,
							     CST_OPTION_CLI, "Write the manual page (troff) instead.")};
static const struct cst_option_table help_table = {help_rows, CST_ARRAY_LEN(help_rows), "cistern help", false};
static const struct cst_option_table no_options = {NULL, 0, "cistern", false};

static int run_help(int argc, char **argv)
{
	struct help_options o;
	struct cst_option_set set;
	CST_AUTO_BUF out = CST_BUF_INIT;
	int status;
	if (cst_cli_parse(&cst_command_help, &set, &o, sizeof(o), argc, argv, 0, 1, &status)) {
		const char *name = set.arguments.count > 0 ? set.arguments.items[0] : NULL;
		const struct cst_command *command = name ? cst_command_find(name) : NULL;
		if (name && !command)
			status = cst_command_unknown(name);
		else if (command)
			(o.man ? cst_cli_man_command : cst_cli_help_command)(command, &out);
		else
			(o.man ? cst_cli_man_overview : cst_cli_help_overview)(&out);
	}
	if (out.len > 0)
		fputs(out.data, stdout);
	cst_option_set_fini(&set);
	return status;
}

static int run_version(int argc, char **argv)
{
	struct cst_option_set set;
	char none[1];
	int status;
	if (cst_cli_parse(&cst_command_version, &set, none, sizeof(none), argc, argv, 0, 0, &status))
		printf("cistern %s\n", CST_VERSION);
	cst_option_set_fini(&set);
	return status;
}

static int run_completion(int argc, char **argv)
{
	struct cst_option_set set;
	CST_AUTO_BUF out = CST_BUF_INIT;
	char none[1];
	int status;
	if (cst_cli_parse(&cst_command_completion, &set, none, sizeof(none), argc, argv, 1, 1, &status)) {
		const char *shell = set.arguments.items[0];
		if (strcmp(shell, "bash") == 0) {
			cst_cli_completion_bash(&out);
		} else if (strcmp(shell, "zsh") == 0) {
			cst_cli_completion_zsh(&out);
		} else {
			struct cst_error err = CST_ERROR_INIT;
			cst_error_set(&err, EINVAL, "no completion for the shell %s", shell);
			cst_error_hint(&err, "there is one for bash and one for zsh");
			status = cst_cli_fail(&err, CST_EXIT_USAGE);
		}
	}
	if (out.len > 0)
		fputs(out.data, stdout);
	cst_option_set_fini(&set);
	return status;
}

const struct cst_command cst_command_help = {
	.name = "help",
	.synopsis = "[COMMAND] [--man]",
	.summary = "Tell about the commands or one of them",
	.description = "Without COMMAND it lists the commands; with one it prints what COMMAND --help prints.",
	.options = &help_table,
	.run = run_help,
};

const struct cst_command cst_command_version = {
	.name = "version",
	.synopsis = "",
	.summary = "Tell the version",
	.description = "Prints the version of the program.",
	.options = &no_options,
	.run = run_version,
};

const struct cst_command cst_command_completion = {
	.name = "completion",
	.synopsis = "bash|zsh",
	.summary = "Write the completion script for a shell",
	.description = "The script completes commands and options. Installed packages have it in place already.",
	.words = "bash zsh",
	.examples = "source <(cistern completion bash)\nCompletes cistern in this shell.\n",
	.options = &no_options,
	.run = run_completion,
};
