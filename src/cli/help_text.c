/* Everything that is written from the tables: --help, the manual pages, shell completion. */
#include "cli/cli.h"

/* Calls of a line-wise text. */
static struct cst_slice next_line(struct cst_slice *rest)
{
	return cst_slice_cut(rest, '\n');
}

void cst_cli_help_overview(struct cst_buf *out)
{
	cst_buf_add_str(out, "Cistern mounts buckets of object storage (Alibaba OSS, S3) as file systems.\n\n"
			     "Usage: cistern COMMAND [options]\n\nCommands:\n");
	for (size_t i = 0; i < cst_command_count; i++)
		cst_buf_printf(out, "  %-12s%s\n", cst_commands[i]->name, cst_commands[i]->summary);
	cst_buf_add_str(out, "\ncistern help COMMAND tells more; so does man cistern-COMMAND.\n");
}

void cst_cli_help_command(const struct cst_command *command, struct cst_buf *out)
{
	struct cst_slice rest = cst_slice_of(command->synopsis);
	const char *title = "Usage:";
	while (rest.data && rest.len > 0) {
		struct cst_slice line = next_line(&rest);
		cst_buf_printf(out, "%s cistern %s %.*s\n", title, command->name, (int)line.len, line.data);
		title = "      ";
	}
	cst_buf_printf(out, "\n%s.\n", command->summary);
	cst_option_help(command->options, out);
	if (!command->examples)
		return;
	cst_buf_add_str(out, "\nExamples:\n");
	rest = cst_slice_of(command->examples);
	while (rest.len > 0) {
		struct cst_slice line = next_line(&rest);
		struct cst_slice text = next_line(&rest);
		cst_buf_printf(out, "  %.*s\n      %.*s\n", (int)line.len, line.data, (int)text.len, text.data);
		if (rest.len > 0 && rest.data[0] == '\n')
			next_line(&rest);
	}
}

/* ---- manual pages ---- */

/* Body text: backslashes, and dots or quotes that would start a request. */
static void add_troff(struct cst_buf *out, struct cst_slice text)
{
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];
		bool line_start = i == 0 || text.data[i - 1] == '\n';
		if (line_start && (c == '.' || c == '\''))
			cst_buf_add_str(out, "\\&");
		if (c == '\\')
			cst_buf_add_str(out, "\\e");
		else if (c == '-')
			cst_buf_add_str(out, "\\-");
		else
			cst_buf_add_char(out, c);
	}
}

static void add_paragraphs(struct cst_buf *out, const char *text)
{
	struct cst_slice rest = cst_slice_of(text);
	bool first = true;
	while (rest.len > 0) {
		struct cst_slice line = next_line(&rest);
		if (line.len == 0)
			continue;
		if (!first)
			cst_buf_add_str(out, ".PP\n");
		first = false;
		add_troff(out, line);
		cst_buf_add_char(out, '\n');
	}
}

static void add_title(struct cst_buf *out, const char *page)
{
	cst_buf_add_str(out, ".TH ");
	for (const char *c = page; *c != '\0'; c++)
		cst_buf_add_char(out, (char)(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c));
	cst_buf_printf(out, " 1 \"\" \"Cistern %s\" \"User Commands\"\n", CST_VERSION);
}

static void add_examples(struct cst_buf *out, const char *examples)
{
	struct cst_slice rest = cst_slice_of(examples);
	cst_buf_add_str(out, ".SH EXAMPLES\n");
	while (rest.len > 0) {
		struct cst_slice line = next_line(&rest);
		struct cst_slice text = next_line(&rest);
		cst_buf_add_str(out, ".TP\n.B ");
		add_troff(out, line);
		cst_buf_add_char(out, '\n');
		add_troff(out, text);
		cst_buf_add_char(out, '\n');
		if (rest.len > 0 && rest.data[0] == '\n')
			next_line(&rest);
	}
}

static const char exit_text[] = ".SH EXIT STATUS\n"
				".TP\n.B 0\nSuccess.\n"
				".TP\n.B 1\nIt failed; one line on standard error says what, why and what to do.\n"
				".TP\n.B 2\nThe command line or a configuration file is wrong; nothing was done.\n";

void cst_cli_man_command(const struct cst_command *command, struct cst_buf *out)
{
	CST_AUTO_FREE char *page = cst_xasprintf("cistern-%s", command->name);
	add_title(out, page);
	cst_buf_printf(out, ".SH NAME\ncistern\\-%s \\- ", command->name);
	add_troff(out, cst_slice_of(command->summary));
	cst_buf_add_str(out, "\n.SH SYNOPSIS\n");
	struct cst_slice rest = cst_slice_of(command->synopsis);
	bool first = true;
	do {
		struct cst_slice line = next_line(&rest);
		cst_buf_printf(out, "%s.B cistern %s\n", first ? "" : ".br\n", command->name);
		if (line.len > 0) {
			add_troff(out, line);
			cst_buf_add_char(out, '\n');
		}
		first = false;
	} while (rest.len > 0);
	cst_buf_add_str(out, ".SH DESCRIPTION\n");
	add_paragraphs(out, command->description);
	if (command->options->count > 0) {
		cst_buf_add_str(out, ".SH OPTIONS\n");
		cst_option_man(command->options, out);
	}
	cst_buf_add_str(out, exit_text);
	if (command->examples)
		add_examples(out, command->examples);
	cst_buf_add_str(out, ".SH SEE ALSO\n.BR cistern (1)\n");
}

void cst_cli_man_overview(struct cst_buf *out)
{
	add_title(out, "cistern");
	cst_buf_add_str(
		out,
		".SH NAME\ncistern \\- mount buckets of object storage as file systems\n"
		".SH SYNOPSIS\n.B cistern\n.I COMMAND\n[options]\n.SH DESCRIPTION\n"
		"Cistern makes object storage (Alibaba OSS, S3) usable as a POSIX file system. The same program is the\n"
		"embedded object store that tests and small installations use.\n.SH COMMANDS\n");
	for (size_t i = 0; i < cst_command_count; i++) {
		cst_buf_printf(out, ".TP\n.BR cistern\\-%s (1)\n", cst_commands[i]->name);
		add_troff(out, cst_slice_of(cst_commands[i]->summary));
		cst_buf_add_str(out, ".\n");
	}
	cst_buf_add_str(out, exit_text);
	cst_buf_add_str(out, ".SH SEE ALSO\n.BR mount (8),\n.BR fusermount3 (1)\n");
}

/* ---- completion ---- */

static void add_words(struct cst_buf *out, const struct cst_option_table *table)
{
	CST_AUTO_BUF names = CST_BUF_INIT;
	cst_option_names(table, &names, false);
	for (size_t i = 0; i < names.len; i++)
		if (names.data[i] == '\n')
			names.data[i] = ' ';
	cst_buf_add_slice(out, cst_buf_slice(&names));
	cst_buf_add_str(out, "--help");
}

static void add_command_names(struct cst_buf *out)
{
	for (size_t i = 0; i < cst_command_count; i++)
		cst_buf_printf(out, "%s%s", i ? " " : "", cst_commands[i]->name);
}

void cst_cli_completion_bash(struct cst_buf *out)
{
	cst_buf_add_str(out, "# bash completion for cistern; written by: cistern completion bash\n"
			     "_cistern()\n{\n"
			     "\tlocal cur=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} words first\n"
			     "\tif [ \"$COMP_CWORD\" -eq 1 ]; then\n\t\tCOMPREPLY=($(compgen -W \"");
	add_command_names(out);
	cst_buf_add_str(out, "\" -- \"$cur\"))\n\t\treturn\n\tfi\n\tcase $command in\n");
	for (size_t i = 0; i < cst_command_count; i++) {
		cst_buf_printf(out, "\t%s) words='", cst_commands[i]->name);
		add_words(out, cst_commands[i]->options);
		if (cst_commands[i] == &cst_command_help) {
			cst_buf_add_char(out, ' ');
			add_command_names(out);
		}
		cst_buf_printf(out, "' first='%s' ;;\n", cst_commands[i]->words ? cst_commands[i]->words : "");
	}
	cst_buf_add_str(out, "\t*) words='' first='' ;;\n\tesac\n"
			     "\tif [ -n \"$first\" ] && [ \"$COMP_CWORD\" -eq 2 ] && [ \"${cur:0:1}\" != - ]; then\n"
			     "\t\tCOMPREPLY=($(compgen -W \"$first\" -- \"$cur\"))\n"
			     "\telif [ \"${cur:0:1}\" = - ] || [ \"$command\" = help ]; then\n"
			     "\t\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
			     "\t\t[[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace\n"
			     "\telse\n\t\tCOMPREPLY=($(compgen -f -- \"$cur\"))\n\tfi\n}\n"
			     "complete -o filenames -F _cistern cistern\n");
}

void cst_cli_completion_zsh(struct cst_buf *out)
{
	cst_buf_add_str(out, "#compdef cistern\n# zsh completion for cistern; written by: cistern completion zsh\n"
			     "_cistern() {\n\tif (( CURRENT == 2 )); then\n\t\tcompadd -- ");
	add_command_names(out);
	cst_buf_add_str(
		out,
		"\n\t\treturn\n\tfi\n\tif [[ $words[CURRENT] != -* ]]; then\n\t\tcase $words[2] in\n\t\thelp) compadd -- ");
	add_command_names(out);
	cst_buf_add_str(out, " ;;\n");
	for (size_t i = 0; i < cst_command_count; i++)
		if (cst_commands[i]->words)
			cst_buf_printf(out, "\t\t%s) if (( CURRENT == 3 )); then compadd -- %s; else _files; fi ;;\n",
				       cst_commands[i]->name, cst_commands[i]->words);
	cst_buf_add_str(out, "\t\t*) _files ;;\n\t\tesac\n\t\treturn\n\tfi\n\tcase $words[2] in\n");
	for (size_t i = 0; i < cst_command_count; i++) {
		cst_buf_printf(out, "\t%s) compadd -S '' -- ", cst_commands[i]->name);
		add_words(out, cst_commands[i]->options);
		cst_buf_add_str(out, " ;;\n");
	}
	cst_buf_add_str(out, "\tesac\n}\n_cistern \"$@\"\n");
}
