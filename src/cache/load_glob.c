/* Patterns over keys. Iterative, with one place to go back to for each kind of star: no pattern takes more than pattern × name steps. */
#include "cache/load_private.h"

bool cst_glob_is_pattern(const char *text)
{
	for (; *text; text++) {
		if (*text == '\\' && text[1])
			text++;
		else if (strchr("*?[", *text))
			return true;
	}
	return false;
}

const char *cst_glob_literal(const char *text, struct cst_buf *out)
{
	for (; *text && !strchr("*?[", *text); text++) {
		if (*text == '\\' && text[1])
			text++;
		cst_buf_add_char(out, *text);
	}
	return text;
}

/* One character of a class: *p behind it. */
static unsigned char class_char(const char **p)
{
	if (**p == '\\' && (*p)[1])
		++*p;
	return (unsigned char)*(*p)++;
}

/* A class at p (behind its "["): behind its "]", or NULL when it has none; *yes: c is in it. */
static const char *class_match(const char *p, unsigned char c, bool *yes)
{
	bool negated = *p == '!' || *p == '^';
	bool in = false;
	if (negated)
		p++;
	/* A "]" at the beginning is a member. */
	for (bool begun = false; *p && (*p != ']' || !begun); begun = true) {
		unsigned char from = class_char(&p), to = from;
		if (*p == '-' && p[1] && p[1] != ']') {
			p++;
			to = class_char(&p);
		}
		in = in || (from <= c && c <= to);
	}
	*yes = in != negated && c != '/';
	return *p == ']' ? p + 1 : NULL;
}

/* One step without a star: the pattern behind what matches c, or NULL. */
static const char *one(const char *p, unsigned char c)
{
	if (*p == '?')
		return c != '/' ? p + 1 : NULL;
	if (*p == '[') {
		bool yes = false;
		const char *end = class_match(p + 1, c, &yes);
		if (end)
			return yes ? end : NULL;
	}
	if (*p == '\\' && p[1])
		p++;
	return *p && (unsigned char)*p == c ? p + 1 : NULL;
}

bool cst_glob_match(const char *pattern, struct cst_slice name)
{
	const char *p = pattern, *star = NULL, *stars = NULL;
	size_t at = 0, star_at = 0, stars_at = 0;
	bool none = false; /* no folder at all is being tried */
	for (;;) {
		if (p[0] == '*' && p[1] == '*') {
			bool folder = p == pattern || p[-1] == '/';
			while (*p == '*')
				p++;
			stars = p;
			stars_at = at;
			star = NULL;
			/* A folder "**" is any number of folders, none included. */
			none = folder && *p == '/';
			if (none)
				p++;
			continue;
		}
		if (*p == '*') {
			star = ++p;
			star_at = at;
			continue;
		}
		const char *next = at < name.len ? one(p, (unsigned char)name.data[at]) : NULL;
		if (at == name.len && !*p)
			return true;
		if (next) {
			p = next;
			at++;
		} else if (star && star_at < name.len && name.data[star_at] != '/') {
			p = star;
			at = ++star_at;
		} else if (stars && (none || stars_at < name.len)) {
			p = stars;
			at = none ? stars_at : ++stars_at;
			none = false;
			star = NULL;
		} else {
			return false;
		}
	}
}
