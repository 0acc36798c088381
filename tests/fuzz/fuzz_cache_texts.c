/* Levels and directories of a cache as a person writes them, and patterns of a load. The first line is a level and a directory; with a second one the
 * first is a pattern for it, compared with a slow matcher that follows the definition.
 * Covers: src/cache/level.c(cst_cache_level_parse, cst_cache_dir_parse, parse_fields, parse_medium, parse_paths, parse_quota, parse_bytes, parse_share,
 * absolute) src/cache/load_glob.c */
#include "cache/load_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_level(int rc, struct cst_cache_level *l)
{
	if (rc == 0) {
		CST_ASSERT(l->path_count > 0 && l->path_count <= CST_CACHE_PATHS);
		CST_ASSERT(l->low > 0 && l->low <= l->high && l->high <= 1);
		for (unsigned i = 0; i < l->path_count; i++)
			CST_ASSERT(l->paths[i].path[0] == '/');
	}
	cst_cache_level_fini(l);
}

/* Only of patterns without classes and backslashes. */
static bool slow_match(const char *start, const char *p, const char *name, size_t len)
{
	if (!*p)
		return len == 0;
	if (p[0] == '*' && p[1] == '*') {
		const char *rest = p;
		while (*rest == '*')
			rest++;
		bool folder = p == start || p[-1] == '/';
		if (folder && *rest == '/' && slow_match(start, rest + 1, name, len))
			return true;
		for (size_t n = 0; n <= len; n++) {
			if (slow_match(start, rest, name + n, len - n))
				return true;
		}
		return false;
	}
	if (*p == '*') {
		for (size_t n = 0; n <= len; n++) {
			if (slow_match(start, p + 1, name + n, len - n))
				return true;
			if (n < len && name[n] == '/')
				break;
		}
		return false;
	}
	return len > 0 && (*p == '?' ? *name != '/' : *p == *name) && slow_match(start, p + 1, name + 1, len - 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CST_AUTO_FREE char *text = cst_xstrndup((const char *)data, size);
	char *name = strchr(text, '\n');
	struct cst_cache_level level;
	if (!name) {
		struct cst_error err;
		int rc = cst_cache_level_parse(text, &level, &err);
		CST_ASSERT((rc == 0) == (err.code == 0));
		check_level(rc, &level);
		check_level(cst_cache_dir_parse(text, &level, &err), &level);
		return 0;
	}
	*name++ = 0;
	CST_AUTO_BUF literal = CST_BUF_INIT;
	const char *rest = cst_glob_literal(text, &literal);
	bool yes = cst_glob_match(text, cst_slice_of(name));
	CST_ASSERT(cst_glob_is_pattern(text) == (*rest != 0));
	/* What matches begins with the literal beginning, and is it when there is nothing else. */
	CST_ASSERT(!yes || cst_slice_starts(cst_slice_of(name), cst_buf_slice(&literal)));
	if (!*rest)
		CST_ASSERT(yes == cst_slice_eq(cst_slice_of(name), cst_buf_slice(&literal)));
	if (!strpbrk(text, "[\\") && strlen(text) < 12 && strlen(name) < 24)
		CST_ASSERT(yes == slow_match(text, text, name, strlen(name)));
	return 0;
}
