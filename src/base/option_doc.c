#include "base/clock.h"
#include "base/option_private.h"

bool cst_option_next_spelling(struct cst_option_spellings *s, struct cst_slice *name, bool *negated)
{
	*negated = false;
	if (s->first) {
		s->first = false;
		*name = cst_slice_of(s->option->name);
		return true;
	}
	while (s->rest.len > 0) {
		*name = cst_slice_cut(&s->rest, ' ');
		if (name->len == 0)
			continue;
		*negated = name->data[0] == '!';
		if (*negated)
			*name = (struct cst_slice){name->data + 1, name->len - 1};
		return true;
	}
	return false;
}

void cst_option_add_dashed(struct cst_buf *out, struct cst_slice name)
{
	for (size_t i = 0; i < name.len; i++)
		cst_buf_add_char(out, name.data[i] == '_' && i > 0 ? '-' : name.data[i]);
}

/* Numbers in the user's terms, for range texts. */
static void add_number(struct cst_buf *out, const struct cst_option *option, int64_t value)
{
	static const char *const units[] = {"", "KiB", "MiB", "GiB", "TiB", "PiB"};
	size_t unit = 0;
	switch (option->type) {
	case CST_OPTION_SIZE:
	case CST_OPTION_RATE:
		for (; value != 0 && value % 1024 == 0 && unit + 1 < CST_ARRAY_LEN(units); unit++)
			value /= 1024;
		cst_buf_printf(out, "%lld%s", (long long)value, units[unit]);
		break;
	case CST_OPTION_DURATION:
		if (value % CST_NS_PER_S == 0)
			cst_buf_printf(out, "%llds", (long long)(value / CST_NS_PER_S));
		else
			cst_buf_printf(out, "%lldms", (long long)(value / CST_NS_PER_MS));
		break;
	case CST_OPTION_OCTAL:
		cst_buf_printf(out, value ? "0%llo" : "%llo", (unsigned long long)value);
		break;
	default:
		cst_buf_printf(out, "%lld", (long long)value);
	}
}

void cst_option_add_range(struct cst_buf *out, const struct cst_option *option)
{
	if (option->max == INT64_MAX) {
		cst_buf_add_str(out, "at least ");
		add_number(out, option, option->min);
		return;
	}
	add_number(out, option, option->min);
	cst_buf_add_str(out, " to ");
	add_number(out, option, option->max);
}

#define HELP_COLUMN 34
#define HELP_WIDTH 100

static void wrap(struct cst_buf *out, const char *text, size_t column, size_t indent, size_t width)
{
	struct cst_slice rest = cst_slice_of(text);
	bool first = true;
	while (rest.len > 0) {
		struct cst_slice word = cst_slice_cut(&rest, ' ');
		if (!first && column + 1 + word.len > width) {
			cst_buf_printf(out, "\n%*s", (int)indent, "");
			column = indent;
			first = true;
		}
		if (!first)
			cst_buf_add_char(out, ' ');
		cst_buf_add_slice(out, word);
		column += word.len + !first;
		first = false;
	}
	cst_buf_add_char(out, '\n');
}

/* "-f, --foreground", "--memory SIZE" */
static void add_usage(struct cst_buf *out, const struct cst_option *option)
{
	struct cst_option_spellings s = cst_option_spellings_of(option);
	struct cst_slice name;
	bool negated;
	while (cst_option_next_spelling(&s, &name, &negated))
		if (name.len == 1 && !negated)
			cst_buf_printf(out, "-%c, ", name.data[0]);
	cst_buf_add_str(out, "--");
	cst_option_add_dashed(out, cst_slice_of(option->name));
	if (option->argument)
		cst_buf_printf(out, option->flags & CST_OPTION_OPTIONAL ? "[=%s]" : " %s", option->argument);
}

static void add_synonyms(struct cst_buf *out, const struct cst_option *option)
{
	struct cst_option_spellings s = cst_option_spellings_of(option);
	struct cst_slice name;
	bool negated, any = false;
	while (cst_option_next_spelling(&s, &name, &negated)) {
		if (name.len == 1 || name.data == option->name)
			continue;
		cst_buf_add_str(out, any ? ", " : "");
		cst_buf_add_slice(out, name);
		cst_buf_add_str(out, negated ? " (the opposite)" : "");
		any = true;
	}
}

/* The help text with default, range and synonyms. */
static void add_details(struct cst_buf *out, const struct cst_option *option)
{
	cst_buf_add_str(out, option->help);
	if (option->type == CST_OPTION_LIST)
		cst_buf_add_str(out, " May be given several times.");
	if (option->type == CST_OPTION_BOOL && option->fallback)
		cst_buf_add_str(out, " On unless it is set to false.");
	bool has_range = option->min != 0 || option->max != 0;
	bool has_default = option->fallback && option->type != CST_OPTION_BOOL && option->fallback[0] != '\0';
	if (has_default || has_range) {
		cst_buf_add_str(out, " (");
		if (has_default)
			cst_buf_printf(out, "default %s%s", option->fallback, has_range ? ", " : "");
		if (has_range)
			cst_option_add_range(out, option);
		cst_buf_add_char(out, ')');
	}
	CST_AUTO_BUF synonyms = CST_BUF_INIT;
	add_synonyms(&synonyms, option);
	if (synonyms.len > 0)
		cst_buf_printf(out, " Also: %s.", synonyms.data);
}

static bool is_documented(const struct cst_option *option)
{
	return option->type != CST_OPTION_IGNORED && option->type != CST_OPTION_REFUSED;
}

void cst_option_help(const struct cst_option_table *table, struct cst_buf *out)
{
	bool quiet = false;
	for (size_t i = 0; i < table->count; i++) {
		const struct cst_option *option = &table->options[i];
		if (option->type == CST_OPTION_SECTION) {
			cst_buf_printf(out, "\n%s:\n", option->name);
			continue;
		}
		if (!is_documented(option)) {
			quiet = true;
			continue;
		}
		CST_AUTO_BUF usage = CST_BUF_INIT, details = CST_BUF_INIT;
		add_usage(&usage, option);
		add_details(&details, option);
		cst_buf_printf(out, "  %-*s", HELP_COLUMN - 4, usage.data);
		if (usage.len > HELP_COLUMN - 4)
			cst_buf_printf(out, "\n%*s", HELP_COLUMN, "");
		else
			cst_buf_add_str(out, "  ");
		wrap(out, details.data, HELP_COLUMN, HELP_COLUMN, HELP_WIDTH);
	}
	if (quiet)
		cst_buf_add_str(out, "\nMore options are accepted for compatibility; the manual page lists them.\n");
}

static void add_troff(struct cst_buf *out, const char *text)
{
	for (; *text != '\0'; text++) {
		if (*text == '\\')
			cst_buf_add_str(out, "\\e");
		else if (*text == '-')
			cst_buf_add_str(out, "\\-");
		else
			cst_buf_add_char(out, *text);
	}
}

void cst_option_man(const struct cst_option_table *table, struct cst_buf *out)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct cst_option *option = &table->options[i];
		if (option->type == CST_OPTION_SECTION) {
			cst_buf_printf(out, ".SS %s\n", option->name);
			continue;
		}
		CST_AUTO_BUF usage = CST_BUF_INIT, details = CST_BUF_INIT;
		add_usage(&usage, option);
		if (!is_documented(option))
			cst_buf_add_str(&details,
					option->type == CST_OPTION_IGNORED ? "Accepted without effect: " : "Refused: ");
		add_details(&details, option);
		cst_buf_add_str(out, ".TP\n.B ");
		add_troff(out, usage.data);
		cst_buf_add_char(out, '\n');
		add_troff(out, details.data);
		cst_buf_add_char(out, '\n');
	}
}

void cst_option_names(const struct cst_option_table *table, struct cst_buf *out, bool all)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct cst_option *option = &table->options[i];
		if (option->type == CST_OPTION_SECTION || (!all && !is_documented(option)))
			continue;
		struct cst_option_spellings s = cst_option_spellings_of(option);
		struct cst_slice name;
		bool negated;
		while (cst_option_next_spelling(&s, &name, &negated)) {
			if (!all && name.data != option->name && name.len > 1)
				continue;
			cst_buf_add_str(out, name.len == 1 ? "-" : "--");
			cst_option_add_dashed(out, name);
			cst_buf_add_str(out, option->argument && name.len > 1 ? "=\n" : "\n");
		}
	}
}
