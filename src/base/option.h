/* Option tables: one row says an option's name, synonyms, type with unit, range, default and text; the row feeds the command
 * line, -o mount options, configuration files, --help, the man page and the shell completion.
 *
 * A table is an X-macro file (cli/mount_options.def) with rows
 *
 *	SECTION("Heading")
 *	OPTION(id, TYPE, "synonyms", "ARGUMENT", min, max, "default", flags, "help text")
 *
 * that CST_OPTION_MEMBER and CST_OPTION_ROW expand to the members of a struct and to the table. The name of an option is its
 * id; '-' and '_' are the same letter in every spelling, so `attr_timeout` is --attr-timeout, --attr_timeout, -o attr_timeout and
 * attr_timeout= in a file. Synonyms are separated by blanks: one letter is a short option (-f), a leading '!' says the opposite
 * (of a BOOL), a trailing '*' stands for any ending.
 *
 * A later value replaces an earlier one; the command line (with -o) goes before a file, whatever the order of parsing. Used by one
 * thread at start. */
#pragma once

#include "base/buf.h"
#include "base/error.h"

enum cst_option_type {
	CST_OPTION_SECTION,  /* a heading, not an option */
	CST_OPTION_BOOL,     /* bool: --x, --x=false */
	CST_OPTION_INT,	     /* int64_t */
	CST_OPTION_SIZE,     /* uint64_t, bytes: 512MiB */
	CST_OPTION_RATE,     /* uint64_t, bytes per second */
	CST_OPTION_DURATION, /* int64_t, ns; a bare number counts seconds (milliseconds with CST_OPTION_MS) */
	CST_OPTION_OCTAL,    /* uint32_t: 022, 0644 */
	CST_OPTION_STRING,   /* char * */
	CST_OPTION_PATH,     /* char *, made absolute; "~/" is the home directory */
	CST_OPTION_SECRET, /* char *, never taken from a command line unless the set allows it, wiped there and when freed */
	CST_OPTION_CHOICE,  /* int: index of the word in ARGUMENT ("list|object") */
	CST_OPTION_LIST,    /* struct cst_option_list: may be repeated */
	CST_OPTION_IGNORED, /* accepted, has no effect; the help text says why, and so does a note */
	CST_OPTION_REFUSED, /* known, but ignoring it would be wrong; the help text says why and what to do */
};

struct cst_option_list {
	char **items;
	size_t count;
};
void cst_option_list_add(struct cst_option_list *list, char *owned);
void cst_option_list_fini(struct cst_option_list *list);

enum {
	CST_OPTION_CLI = 1,	 /* on the command line only: not in -o, not in files */
	CST_OPTION_MS = 2,	 /* DURATION: a bare number counts milliseconds */
	CST_OPTION_OPTIONAL = 4, /* IGNORED, STRING and CHOICE: the value may be left out (STRING: it is "" then; CHOICE: the first word) */
};

struct cst_option {
	const char *name; /* the id */
	enum cst_option_type type;
	const char *synonyms;
	const char *argument; /* shown in help; NULL: none */
	int64_t min, max;     /* in base units, inclusive; both 0: any */
	const char *fallback; /* the default as a user would write it, or NULL */
	unsigned flags;
	const char *help;
	size_t offset, given; /* into the values */
};

struct cst_option_table {
	const struct cst_option *options;
	size_t count;
	const char *command; /* "cistern mount", for texts */
	bool mount_options;  /* -o is understood */
};

/* Where a value came from; each struct of values has `given.ID` of this type. */
enum cst_option_source { CST_OPTION_FROM_DEFAULT, CST_OPTION_FROM_FILE, CST_OPTION_FROM_USER };

#define CST_OPTION_CTYPE_BOOL bool
#define CST_OPTION_CTYPE_INT int64_t
#define CST_OPTION_CTYPE_SIZE uint64_t
#define CST_OPTION_CTYPE_RATE uint64_t
#define CST_OPTION_CTYPE_DURATION int64_t
#define CST_OPTION_CTYPE_OCTAL uint32_t
#define CST_OPTION_CTYPE_STRING char *
#define CST_OPTION_CTYPE_PATH char *
#define CST_OPTION_CTYPE_SECRET char *
#define CST_OPTION_CTYPE_CHOICE int
#define CST_OPTION_CTYPE_LIST struct cst_option_list
#define CST_OPTION_CTYPE_IGNORED struct cst_option_nothing
#define CST_OPTION_CTYPE_REFUSED struct cst_option_nothing
struct cst_option_nothing {
};

#define CST_OPTION_MEMBER(id, TYPE, ...) CST_OPTION_CTYPE_##TYPE id;
#define CST_OPTION_GIVEN(id, ...) uint8_t id;
#define CST_OPTION_ROW(values, id, TYPE, synonyms_, argument_, min_, max_, fallback_, flags_, help_) \
	{.name = #id,                                                                                \
	 .type = CST_OPTION_##TYPE,                                                                  \
	 .synonyms = synonyms_,                                                                      \
	 .argument = argument_,                                                                      \
	 .min = min_,                                                                                \
	 .max = max_,                                                                                \
	 .fallback = fallback_,                                                                      \
	 .flags = flags_,                                                                            \
	 .help = help_,                                                                              \
	 .offset = offsetof(struct values, id),                                                      \
	 .given = offsetof(struct values, given.id)},
#define CST_OPTION_SECTION_ROW(title) {.name = title, .type = CST_OPTION_SECTION},

/* One parse: what the user gave, and what there is to tell. */
struct cst_option_set {
	const struct cst_option_table *table;
	void *values;		  /* the caller's struct */
	bool accept_argv_secrets; /* SECRET on the command line: take it, overwrite it in argv, warn; else refuse */
	struct cst_option_list arguments; /* what is not an option */
	struct cst_option_list notes;	  /* options without effect, for the log */
	struct cst_option_list warnings;  /* for the user */
};
/* Zeroes the values and puts the defaults in. */
void cst_option_set_init(struct cst_option_set *set, const struct cst_option_table *table, void *values, size_t size);
/* Frees strings and lists, also those in the values. */
void cst_option_set_fini(struct cst_option_set *set);

/* argv without the command's own name. Secrets found there are overwritten in place, refused or not. -EINVAL with err. */
int cst_option_parse_argv(struct cst_option_set *set, int argc, char **argv, struct cst_error *err);
/* "a,b=c"; "\," is a comma inside a value. `text` is changed while it is read. */
int cst_option_parse_mount(struct cst_option_set *set, char *text, struct cst_error *err);
/* A configuration file's text: lines "key=value", "--key=value", "key" (a BOOL), "# comment". Names the file and line in err. */
int cst_option_parse_text(struct cst_option_set *set, struct cst_slice text, const char *file, struct cst_error *err);
/* Reads and parses a file; warns when it holds secrets and others may read it. */
int cst_option_parse_file(struct cst_option_set *set, const char *path, struct cst_error *err);

/* Any spelling; *negated is set for a '!' synonym. NULL when there is none. */
const struct cst_option *cst_option_find(const struct cst_option_table *table, struct cst_slice name, bool *negated);
/* The spelling nearest to a mistyped one, with '-', or NULL when none is near. Static storage of the table. */
const char *cst_option_suggest(const struct cst_option_table *table, struct cst_slice name);
/* Nearest of some words (for subcommands and values). */
const char *cst_option_nearest(struct cst_slice word, const char *const *words, size_t count);

/* Writers of documentation. */
void cst_option_help(const struct cst_option_table *table, struct cst_buf *out); /* --help */
void cst_option_man(const struct cst_option_table *table, struct cst_buf *out);	 /* man(7) paragraphs */
void cst_option_names(const struct cst_option_table *table, struct cst_buf *out,
		      bool all); /* "--x=\n--y\n"; all: synonyms too */
