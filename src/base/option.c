#include "base/option.h"

#include "base/clock.h"
#include "base/option_private.h"
#include "base/text.h"
#include "base/units.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#define FILE_MAX (1 << 20) /* bytes of a configuration file */

void cst_option_list_add(struct cst_option_list *list, char *owned)
{
	list->items = cst_xrealloc(list->items, (list->count + 1) * sizeof(*list->items));
	list->items[list->count++] = owned;
}

void cst_option_list_fini(struct cst_option_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct cst_option_list){0};
}

static void list_addf(struct cst_option_list *list, const char *fmt, ...) CST_PRINTF(2, 3);
static void list_addf(struct cst_option_list *list, const char *fmt, ...)
{
	struct cst_buf text = CST_BUF_INIT;
	va_list ap;
	va_start(ap, fmt);
	cst_buf_vprintf(&text, fmt, ap);
	va_end(ap);
	cst_option_list_add(list, cst_buf_steal(&text));
}

static void wipe(char *text)
{
	if (text)
		explicit_bzero(text, strlen(text));
}

/* ---- names ---- */

static char fold(char c)
{
	return c == '_' ? '-' : c;
}

static bool same_name(struct cst_slice a, struct cst_slice pattern)
{
	bool open_end = pattern.len > 1 && pattern.data[pattern.len - 1] == '*';
	size_t len = open_end ? pattern.len - 1 : pattern.len;
	if (open_end ? a.len <= len : a.len != len)
		return false;
	for (size_t i = 0; i < len; i++)
		if (fold(a.data[i]) != fold(pattern.data[i]))
			return false;
	return true;
}

const struct cst_option *cst_option_find(const struct cst_option_table *table, struct cst_slice name, bool *negated)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct cst_option *option = &table->options[i];
		if (option->type == CST_OPTION_SECTION)
			continue;
		struct cst_option_spellings s = cst_option_spellings_of(option);
		struct cst_slice spelling;
		while (cst_option_next_spelling(&s, &spelling, negated))
			if (same_name(name, spelling))
				return option;
	}
	*negated = false;
	return NULL;
}

/* Edits (insert, delete, replace, swap neighbours) from a to b; more than 63 letters count as far away. */
static unsigned edit_distance(struct cst_slice a, struct cst_slice b)
{
	enum { MAX = 64 };
	unsigned rows[3][MAX];
	if (a.len >= MAX || b.len >= MAX)
		return UINT_MAX;
	for (size_t j = 0; j <= b.len; j++)
		rows[0][j] = (unsigned)j;
	for (size_t i = 1; i <= a.len; i++) {
		unsigned *now = rows[i % 3];
		unsigned *last = rows[(i + 2) % 3];
		unsigned *before = rows[(i + 1) % 3];
		now[0] = (unsigned)i;
		for (size_t j = 1; j <= b.len; j++) {
			char ca = fold(a.data[i - 1]), cb = fold(b.data[j - 1]);
			unsigned gap = cst_min(last[j], now[j - 1]) + 1;
			now[j] = cst_min(gap, last[j - 1] + (ca != cb));
			if (i > 1 && j > 1 && ca == fold(b.data[j - 2]) && fold(a.data[i - 2]) == cb)
				now[j] = cst_min(now[j], before[j - 2] + 1);
		}
	}
	return rows[a.len % 3][b.len];
}

static unsigned near_enough(struct cst_slice word)
{
	return (unsigned)(word.len <= 3 ? 1 : word.len / 3 + 1);
}

const char *cst_option_nearest(struct cst_slice word, const char *const *words, size_t count)
{
	unsigned best = near_enough(word) + 1;
	const char *found = NULL;
	for (size_t i = 0; i < count; i++) {
		unsigned distance = edit_distance(word, cst_slice_of(words[i]));
		if (distance < best) {
			best = distance;
			found = words[i];
		}
	}
	return found;
}

const char *cst_option_suggest(const struct cst_option_table *table, struct cst_slice name)
{
	unsigned best = near_enough(name) + 1;
	const char *found = NULL;
	for (size_t i = 0; i < table->count; i++) {
		const struct cst_option *option = &table->options[i];
		if (option->type == CST_OPTION_SECTION)
			continue;
		struct cst_option_spellings s = cst_option_spellings_of(option);
		struct cst_slice spelling;
		bool negated;
		while (cst_option_next_spelling(&s, &spelling, &negated)) {
			if (spelling.len < 2)
				continue;
			unsigned distance = edit_distance(name, spelling);
			if (distance < best) {
				best = distance;
				found = option->name;
			}
		}
	}
	return found;
}

/* ---- values ---- */

static void *value_at(const struct cst_option_set *set, const struct cst_option *option)
{
	return (char *)set->values + option->offset;
}

static uint8_t *given_at(const struct cst_option_set *set, const struct cst_option *option)
{
	return (uint8_t *)set->values + option->given;
}

static bool has_storage(const struct cst_option *option)
{
	return option->type != CST_OPTION_SECTION && option->type != CST_OPTION_IGNORED &&
	       option->type != CST_OPTION_REFUSED;
}

static bool is_text(const struct cst_option *option)
{
	return option->type == CST_OPTION_STRING || option->type == CST_OPTION_PATH ||
	       option->type == CST_OPTION_SECRET;
}

static const char *expected(const struct cst_option *option)
{
	switch (option->type) {
	case CST_OPTION_BOOL:
		return "write true or false";
	case CST_OPTION_INT:
		return "write a whole number";
	case CST_OPTION_SIZE:
		return "write a number of bytes, if you like with a unit: 64k, 512MiB, 10Gi";
	case CST_OPTION_RATE:
		return "write bytes per second, if you like with a unit: 512KiB, 90MiB";
	case CST_OPTION_DURATION:
		return option->flags & CST_OPTION_MS ? "write milliseconds, or a unit: 20ms, 5s, 2h"
						     : "write seconds, or a unit: 20ms, 5s, 2h";
	case CST_OPTION_OCTAL:
		return "write octal permission bits: 022, 0644";
	default:
		return "";
	}
}

static int bad_value(const struct cst_option *option, const char *spelling, const char *text, const char *hint,
		     struct cst_error *err)
{
	CST_AUTO_BUF shown = CST_BUF_INIT;
	cst_text_printable(&shown, (struct cst_slice){text, strnlen(text, 80)});
	cst_error_set(err, EINVAL, "bad value \"%s\" for %s", option->type == CST_OPTION_SECRET ? "***" : shown.data,
		      spelling);
	cst_error_hint(err, "%s", hint);
	return -EINVAL;
}

static int check_range(const struct cst_option *option, const char *spelling, const char *text, int64_t value,
		       struct cst_error *err)
{
	if ((option->min == 0 && option->max == 0) || (value >= option->min && value <= option->max))
		return 0;
	CST_AUTO_BUF range = CST_BUF_INIT;
	cst_option_add_range(&range, option);
	bad_value(option, spelling, text, "", err);
	cst_error_why(err, "it is out of range");
	cst_error_hint(err, "allowed: %s", range.data);
	return -EINVAL;
}

static int parse_number(const struct cst_option *option, const char *text, int64_t *value)
{
	uint64_t u = 0;
	int rc;
	switch (option->type) {
	case CST_OPTION_SIZE:
		rc = cst_parse_size(text, &u);
		break;
	case CST_OPTION_RATE:
		rc = cst_parse_rate(text, &u);
		break;
	case CST_OPTION_DURATION:
		return cst_parse_duration(text, option->flags & CST_OPTION_MS ? CST_NS_PER_MS : CST_NS_PER_S, value);
	case CST_OPTION_OCTAL:
		return cst_parse_int(text, 8, value);
	default:
		return cst_parse_int(text, 10, value);
	}
	if (rc == 0 && u > INT64_MAX)
		return -ERANGE;
	*value = (int64_t)u;
	return rc;
}

static int set_number(struct cst_option_set *set, const struct cst_option *option, const char *spelling,
		      const char *text, struct cst_error *err)
{
	int64_t value = 0;
	int rc = parse_number(option, text, &value);
	if (rc != 0) {
		bad_value(option, spelling, text, expected(option), err);
		cst_error_why(err, rc == -ERANGE ? "it does not fit" : "it is not understood");
		return -EINVAL;
	}
	if (value < 0 && option->min >= 0) {
		bad_value(option, spelling, text, expected(option), err);
		cst_error_why(err, "it can't be negative");
		return -EINVAL;
	}
	if (check_range(option, spelling, text, value, err) != 0)
		return -EINVAL;
	void *at = value_at(set, option);
	if (option->type == CST_OPTION_OCTAL)
		*(uint32_t *)at = (uint32_t)value;
	else if (option->type == CST_OPTION_SIZE || option->type == CST_OPTION_RATE)
		*(uint64_t *)at = (uint64_t)value;
	else
		*(int64_t *)at = value;
	return 0;
}

static int set_choice(struct cst_option_set *set, const struct cst_option *option, const char *spelling,
		      const char *text, struct cst_error *err)
{
	struct cst_slice rest = cst_slice_of(option->argument);
	for (int i = 0; rest.len > 0; i++) {
		struct cst_slice word = cst_slice_cut(&rest, '|');
		bool left_out = text[0] == '\0' && option->flags & CST_OPTION_OPTIONAL;
		if (left_out || cst_slice_ieq(word, cst_slice_of(text))) {
			*(int *)value_at(set, option) = i;
			return 0;
		}
	}
	bad_value(option, spelling, text, "", err);
	cst_error_hint(err, "one of %s", option->argument);
	return -EINVAL;
}

static char *absolute_path(const char *path)
{
	const char *home = getenv("HOME");
	if (strncmp(path, "~/", 2) == 0 && home && home[0] == '/')
		return cst_xasprintf("%s/%s", home, path + 2);
	if (path[0] == '/' || path[0] == '\0')
		return cst_xstrdup(path);
	CST_AUTO_FREE char *cwd = getcwd(NULL, 0);
	return cwd ? cst_xasprintf("%s/%s", cwd, path) : cst_xstrdup(path);
}

static int set_bool(struct cst_option_set *set, const struct cst_option *option, const char *spelling, const char *text,
		    bool negated, struct cst_error *err)
{
	bool value = true;
	if (text && cst_parse_bool(text, &value) != 0)
		return bad_value(option, spelling, text, expected(option), err);
	*(bool *)value_at(set, option) = value != negated;
	return 0;
}

static int store_value(struct cst_option_set *set, const struct cst_option *option, const char *spelling,
		       const char *text, bool negated, struct cst_error *err)
{
	char **string = value_at(set, option);
	switch (option->type) {
	case CST_OPTION_BOOL:
		return set_bool(set, option, spelling, text, negated, err);
	case CST_OPTION_CHOICE:
		return set_choice(set, option, spelling, text, err);
	case CST_OPTION_LIST:
		cst_option_list_add(value_at(set, option), cst_xstrdup(text));
		return 0;
	case CST_OPTION_SECRET:
		wipe(*string);
		__attribute__((fallthrough));
	case CST_OPTION_STRING:
		free(*string);
		*string = cst_xstrdup(text);
		return 0;
	case CST_OPTION_PATH:
		free(*string);
		*string = absolute_path(text);
		return 0;
	default:
		return set_number(set, option, spelling, text, err);
	}
}

/* One option with its value, from wherever. text NULL: none was written. */
static int set_value(struct cst_option_set *set, const struct cst_option *option, const char *spelling,
		     const char *text, bool negated, enum cst_option_source source, struct cst_error *err)
{
	if (option->type == CST_OPTION_REFUSED) {
		cst_error_set(err, EINVAL, "%s can't be used", spelling);
		cst_error_why(err, "%s", option->help);
		return -EINVAL;
	}
	if (option->type == CST_OPTION_IGNORED) {
		list_addf(&set->notes, "%s has no effect: %s", spelling, option->help);
		return 0;
	}
	if (!text && option->type != CST_OPTION_BOOL) {
		if (!(option->flags & CST_OPTION_OPTIONAL)) {
			cst_error_set(err, EINVAL, "%s needs a value", spelling);
			cst_error_hint(err, "%s=%s", spelling, option->argument ? option->argument : "VALUE");
			return -EINVAL;
		}
		text = "";
	}
	uint8_t *given = given_at(set, option);
	if (*given > source)
		return 0;
	if (option->type == CST_OPTION_LIST && *given < source)
		cst_option_list_fini(value_at(set, option));
	int rc = store_value(set, option, spelling, text, negated, err);
	if (rc == 0)
		*given = (uint8_t)source;
	return rc;
}

static int unknown_option(const struct cst_option_set *set, struct cst_slice name, const char *before,
			  struct cst_error *err)
{
	CST_AUTO_BUF shown = CST_BUF_INIT;
	cst_text_printable(&shown, (struct cst_slice){name.data, cst_min(name.len, (size_t)60)});
	const char *near = cst_option_suggest(set->table, name);
	cst_error_set(err, EINVAL, "unknown option %s%s", before, shown.data ? shown.data : "");
	cst_error_why(err, "%s has no option of that name", set->table->command);
	CST_AUTO_BUF hint = CST_BUF_INIT;
	if (near) {
		cst_buf_printf(&hint, "did you mean %s", before);
		if (before[0] == '-' && before[1] == '-')
			cst_option_add_dashed(&hint, cst_slice_of(near));
		else
			cst_buf_add_str(&hint, near);
		cst_buf_add_str(&hint, "? ");
	}
	cst_buf_printf(&hint, "%s --help lists all options", set->table->command);
	cst_error_hint(err, "%s", hint.data);
	return -EINVAL;
}

void cst_option_set_init(struct cst_option_set *set, const struct cst_option_table *table, void *values, size_t size)
{
	*set = (struct cst_option_set){.table = table, .values = values};
	memset(values, 0, size);
	for (size_t i = 0; i < table->count; i++) {
		const struct cst_option *option = &table->options[i];
		struct cst_error err = CST_ERROR_INIT;
		if (!has_storage(option) || !option->fallback)
			continue;
		if (set_value(set, option, option->name, option->fallback, false, CST_OPTION_FROM_DEFAULT, &err) != 0)
			cst_panic(__FILE__, __LINE__, "default of option %s: %s; %s", option->name, err.what, err.hint);
	}
}

void cst_option_set_fini(struct cst_option_set *set)
{
	for (size_t i = 0; i < set->table->count; i++) {
		const struct cst_option *option = &set->table->options[i];
		if (option->type == CST_OPTION_LIST)
			cst_option_list_fini(value_at(set, option));
		if (!is_text(option))
			continue;
		char **string = value_at(set, option);
		if (option->type == CST_OPTION_SECRET)
			wipe(*string);
		free(*string);
		*string = NULL;
	}
	cst_option_list_fini(&set->arguments);
	cst_option_list_fini(&set->notes);
	cst_option_list_fini(&set->warnings);
}

/* ---- command lines ---- */

/* A SECRET among the arguments: everybody could read it in ps until now. */
static int argv_secret(struct cst_option_set *set, const struct cst_option *option, const char *spelling,
		       const char *text, bool negated, struct cst_error *err)
{
	if (!set->accept_argv_secrets) {
		cst_error_set(err, EINVAL, "%s is not taken from the command line", spelling);
		cst_error_why(err, "every user of the machine could read it in the list of processes");
		cst_error_hint(
			err,
			"put it into a file for -c or passwd_file that only you can read, or into the environment");
		return -EINVAL;
	}
	int rc = set_value(set, option, spelling, text, negated, CST_OPTION_FROM_USER, err);
	if (rc == 0)
		list_addf(&set->warnings,
			  "%s on the command line was readable in the list of processes for a moment; a file for "
			  "-c that only you can read is safer",
			  spelling);
	return rc;
}

static int set_from_user(struct cst_option_set *set, struct cst_slice name, const char *before, char *text,
			 struct cst_error *err)
{
	bool negated;
	const struct cst_option *option = cst_option_find(set->table, name, &negated);
	if (!option)
		return unknown_option(set, name, before, err);
	CST_AUTO_FREE char *spelling = cst_xasprintf("%s%.*s", before, (int)name.len, name.data);
	bool in_mount = before[0] == '-' && before[1] == 'o';
	if (in_mount && (option->flags & CST_OPTION_CLI))
		return unknown_option(set, name, before, err);
	if (option->type != CST_OPTION_SECRET)
		return set_value(set, option, spelling, text, negated, CST_OPTION_FROM_USER, err);
	int rc = argv_secret(set, option, spelling, text, negated, err);
	wipe(text);
	return rc;
}

/* The piece up to the next comma that no backslash hides; the backslashes are taken out in place. */
static char *cut_mount_piece(char **rest)
{
	char *piece = *rest, *to = piece, *from = piece;
	for (; *from != '\0' && *from != ','; from++) {
		if (from[0] == '\\' && (from[1] == ',' || from[1] == '\\'))
			from++;
		*to++ = *from;
	}
	*rest = *from == ',' ? from + 1 : from;
	/* What moved down leaves its old bytes behind; they may be part of a secret. */
	memset(to, 0, (size_t)(from - to) + (*from == ','));
	return piece;
}

int cst_option_parse_mount(struct cst_option_set *set, char *text, struct cst_error *err)
{
	int first = 0;
	while (*text != '\0') {
		char *piece = cut_mount_piece(&text);
		if (*piece == '\0')
			continue;
		char *value = strchr(piece, '=');
		struct cst_slice name = {piece, value ? (size_t)(value - piece) : strlen(piece)};
		struct cst_error ignored;
		/* After an error the rest is still read, so that secrets in it are wiped. */
		int rc = set_from_user(set, name, "-o ", value ? value + 1 : NULL, first == 0 ? err : &ignored);
		first = first ? first : rc;
	}
	return first;
}

struct cursor {
	int argc;
	char **argv;
	int at;
};

/* "--name", "--name=value", "--name value". */
static int parse_long(struct cst_option_set *set, struct cursor *c, struct cst_error *err)
{
	char *arg = c->argv[c->at++] + 2;
	char *value = strchr(arg, '=');
	struct cst_slice name = {arg, value ? (size_t)(value - arg) : strlen(arg)};
	if (value)
		return set_from_user(set, name, "--", value + 1, err);
	bool negated;
	const struct cst_option *option = cst_option_find(set->table, name, &negated);
	bool wants =
		option && option->type != CST_OPTION_BOOL && option->argument && !(option->flags & CST_OPTION_OPTIONAL);
	if (wants && c->at < c->argc)
		value = c->argv[c->at++];
	return set_from_user(set, name, "--", value, err);
}

/* "-x", "-xVALUE", "-x VALUE", "-xy" of BOOLs, "-o a,b". */
static int parse_short(struct cst_option_set *set, struct cursor *c, struct cst_error *err)
{
	char *letters = c->argv[c->at++] + 1;
	for (; *letters != '\0'; letters++) {
		struct cst_slice name = {letters, 1};
		bool negated;
		bool mount = *letters == 'o' && set->table->mount_options;
		const struct cst_option *option = mount ? NULL : cst_option_find(set->table, name, &negated);
		if (option && option->type == CST_OPTION_BOOL) {
			int rc = set_from_user(set, name, "-", NULL, err);
			if (rc != 0)
				return rc;
			continue;
		}
		if (!option && !mount)
			return unknown_option(set, name, "-", err);
		char *value = letters[1] != '\0' ? letters + 1 : NULL;
		bool wants = mount || !(option->flags & CST_OPTION_OPTIONAL);
		if (!value && wants && c->at < c->argc)
			value = c->argv[c->at++];
		if (!mount)
			return set_from_user(set, name, "-", value, err);
		if (!value) {
			cst_error_set(err, EINVAL, "-o needs options");
			cst_error_hint(err, "-o ro,allow_other");
			return -EINVAL;
		}
		return cst_option_parse_mount(set, value, err);
	}
	return 0;
}

int cst_option_parse_argv(struct cst_option_set *set, int argc, char **argv, struct cst_error *err)
{
	struct cursor c = {argc, argv, 0};
	bool only_arguments = false;
	int first = 0;
	while (c.at < argc) {
		char *arg = argv[c.at];
		struct cst_error ignored;
		struct cst_error *to = first == 0 ? err : &ignored;
		int rc = 0;
		if (only_arguments || arg[0] != '-' || arg[1] == '\0') {
			cst_option_list_add(&set->arguments, cst_xstrdup(arg));
			c.at++;
		} else if (strcmp(arg, "--") == 0) {
			only_arguments = true;
			c.at++;
		} else {
			rc = arg[1] == '-' ? parse_long(set, &c, to) : parse_short(set, &c, to);
		}
		first = first ? first : rc;
	}
	return first;
}

/* ---- files ---- */

static struct cst_slice unquote(struct cst_slice s)
{
	if (s.len >= 2 && (s.data[0] == '"' || s.data[0] == '\'') && s.data[s.len - 1] == s.data[0])
		return (struct cst_slice){s.data + 1, s.len - 2};
	return s;
}

static int parse_line(struct cst_option_set *set, struct cst_slice line, struct cst_error *err)
{
	if (cst_slice_starts(line, CST_SLICE("--")))
		line = (struct cst_slice){line.data + 2, line.len - 2};
	const char *equals = memchr(line.data, '=', line.len);
	struct cst_slice rest = line;
	struct cst_slice name = cst_slice_trim(cst_slice_cut(&rest, '='));
	if (name.len == 0 || memchr(name.data, ' ', name.len) || memchr(name.data, '\t', name.len)) {
		cst_error_set(err, EINVAL, "this line is not understood");
		cst_error_hint(err, "write key=value, --key=value, or # and a comment");
		return -EINVAL;
	}
	bool negated;
	const struct cst_option *option = cst_option_find(set->table, name, &negated);
	if (!option || (option->flags & CST_OPTION_CLI))
		return unknown_option(set, name, "", err);
	rest = unquote(cst_slice_trim(rest));
	char *value = equals ? cst_xstrndup(rest.len > 0 ? rest.data : "", rest.len) : NULL;
	CST_AUTO_FREE char *spelling = cst_xstrndup(name.data, name.len);
	int rc = set_value(set, option, spelling, value, negated, CST_OPTION_FROM_FILE, err);
	wipe(value);
	free(value);
	return rc;
}

int cst_option_parse_text(struct cst_option_set *set, struct cst_slice text, const char *file, struct cst_error *err)
{
	if (cst_slice_starts(text, CST_SLICE("\xef\xbb\xbf")))
		text = (struct cst_slice){text.data + 3, text.len - 3};
	if (text.len > 0 && memchr(text.data, '\0', text.len)) {
		cst_error_set(err, EINVAL, "can't use configuration file %s", file);
		cst_error_why(err, "it is not a text file (it contains a zero byte)");
		return -EINVAL;
	}
	for (unsigned number = 1; text.len > 0; number++) {
		struct cst_slice line = cst_slice_cut(&text, '\n');
		if (line.len > 0 && line.data[line.len - 1] == '\r')
			line.len--;
		line = cst_slice_trim(line);
		if (line.len == 0 || line.data[0] == '#')
			continue;
		struct cst_error inner = CST_ERROR_INIT;
		if (parse_line(set, line, &inner) == 0)
			continue;
		cst_error_set(err, EINVAL, "%s line %u: %s", file, number, inner.what);
		cst_error_why(err, "%s", inner.why);
		cst_error_hint(err, "%s", inner.hint);
		return -EINVAL;
	}
	return 0;
}

static int read_file(int fd, struct cst_buf *out)
{
	for (;;) {
		ssize_t n = read(fd, cst_buf_room(out, 4096), 4096);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		out->len += (size_t)n;
		if (out->len > FILE_MAX)
			return -EFBIG;
	}
}

static bool holds_secret(const struct cst_option_set *set)
{
	for (size_t i = 0; i < set->table->count; i++)
		if (set->table->options[i].type == CST_OPTION_SECRET &&
		    *given_at(set, &set->table->options[i]) == CST_OPTION_FROM_FILE)
			return true;
	return false;
}

int cst_option_parse_file(struct cst_option_set *set, const char *path, struct cst_error *err)
{
	CST_AUTO_BUF text = CST_BUF_INIT;
	CST_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st = {0};
	int rc = fd < 0 || fstat(fd, &st) != 0 ? -errno : read_file(fd, &text);
	if (rc != 0) {
		cst_error_set(err, -rc, "can't read configuration file %s", path);
		cst_error_why(err, "%s", rc == -EFBIG ? "it is larger than 1 MiB" : strerror(-rc));
		cst_error_hint(err, "%s", rc == -ENOENT ? "check the path after -c" : "");
		return rc;
	}
	rc = cst_option_parse_text(set, cst_buf_slice(&text), path, err);
	if (text.len > 0)
		explicit_bzero(text.data, text.len);
	if (rc == 0 && (st.st_mode & 0004) && holds_secret(set))
		list_addf(&set->warnings, "%s holds a secret and every user can read it; chmod 600 it", path);
	return rc;
}
