/* The command line: one struct cst_command per subcommand, in its own file (cmd_NAME.c) with its option table (NAME_options.def);
 * main.c finds it and runs it. Everything that help, manual pages and shell completion say is written from these structs. One thread. */
#pragma once

#include "base/option.h"

struct cst_command {
	const char *name;
	const char *synopsis;	 /* one usage a line, without "cistern NAME" */
	const char *summary;	 /* one line without a full stop */
	const char *description; /* paragraphs, an empty line between them */
	const char *examples;	 /* "command line\nwhat it does\n\n…" */
	const char *words;	 /* NULL, or what its first argument may be, separated by blanks; for completion */
	const struct cst_option_table *options;
	/* argv[0] is the command's name; returns the exit status. */
	int (*run)(int argc, char **argv);
};

extern const struct cst_command cst_command_store;
extern const struct cst_command cst_command_mount;
extern const struct cst_command cst_command_umount;
extern const struct cst_command cst_command_stats;
extern const struct cst_command cst_command_refresh;
extern const struct cst_command cst_command_upgrade;
extern const struct cst_command cst_command_load;
extern const struct cst_command cst_command_cache;
extern const struct cst_command cst_command_conflicts;
extern const struct cst_command cst_command_help;
extern const struct cst_command cst_command_version;
extern const struct cst_command cst_command_completion;
extern const struct cst_command *const cst_commands[];
extern const size_t cst_command_count;
const struct cst_command *cst_command_find(const char *name); /* or NULL */
/* "unknown command", with the nearest name; CST_EXIT_USAGE. */
int cst_command_unknown(const char *name);

enum { CST_EXIT_OK = 0, CST_EXIT_FAILED = 1, CST_EXIT_USAGE = 2 };

/* "cistern: what: why; hint" on standard error; returns `status`. */
int cst_cli_fail(const struct cst_error *err, int status);
/* "cistern: text" on standard error. */
void cst_cli_say(const char *fmt, ...) CST_PRINTF(1, 2);

/* Parses argv[1..] with the command's table. CST_EXIT_OK: go on. Else *status is the exit status: --help was printed (0) or the
 * mistake was (2). `set` is initialised in every case and the caller ends it. min..max: how many arguments there may be. */
bool cst_cli_parse(const struct cst_command *command, struct cst_option_set *set, void *values, size_t size, int argc,
		   char **argv, size_t min, size_t max, int *status);
/* True when argv holds --help or -h before any "--". */
bool cst_cli_wants_help(int argc, char **argv);

/* Prints the texts of a command (help_text.c). */
void cst_cli_help_command(const struct cst_command *command, struct cst_buf *out);
void cst_cli_help_overview(struct cst_buf *out);
void cst_cli_man_command(const struct cst_command *command, struct cst_buf *out);
void cst_cli_man_overview(struct cst_buf *out);
void cst_cli_completion_bash(struct cst_buf *out);
void cst_cli_completion_zsh(struct cst_buf *out);
