#include "fuse/mountpoint.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void cst_fuse_mountinfo_fini(struct cst_fuse_mountinfo *m)
{
	free(m->path);
	free(m->type);
	free(m->source);
	*m = (struct cst_fuse_mountinfo){0};
}

/* Blanks, tabs, newlines and backslashes are written as \ooo. */
static char *unescape(const char *s, size_t len)
{
	char *out = cst_xmalloc(len + 1);
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (s[i] == '\\' && i + 3 < len && s[i + 1] >= '0' && s[i + 1] <= '3' && s[i + 2] >= '0' &&
		    s[i + 2] <= '7' && s[i + 3] >= '0' && s[i + 3] <= '7') {
			out[n++] = (char)((s[i + 1] - '0') << 6 | (s[i + 2] - '0') << 3 | (s[i + 3] - '0'));
			i += 3;
		} else {
			out[n++] = s[i];
		}
	}
	out[n] = '\0';
	return out;
}

/* The next word at *p, which moves behind it; NULL at the end of the line. */
static const char *next_word(const char **p, size_t *len)
{
	const char *start;

	while (**p == ' ')
		(*p)++;
	start = *p;
	*len = strcspn(start, " \n");
	*p = start + *len;
	return *len ? start : NULL;
}

int cst_fuse_mountinfo_parse(const char *line, struct cst_fuse_mountinfo *m)
{
	const char *word, *path = NULL, *type, *source;
	size_t len, path_len = 0, type_len, source_len;

	*m = (struct cst_fuse_mountinfo){0};
	/* id parent major:minor root path options [optional…] - type source options */
	for (int i = 0; i < 6; i++) {
		word = next_word(&line, &len);
		if (!word)
			return -EINVAL;
		if (i == 2 && sscanf(word, "%u:%u", &m->major, &m->minor) != 2)
			return -EINVAL;
		if (i == 4) {
			path = word;
			path_len = len;
		}
	}
	do {
		word = next_word(&line, &len);
		if (!word)
			return -EINVAL;
	} while (len != 1 || *word != '-');
	type = next_word(&line, &type_len);
	source = next_word(&line, &source_len);
	if (!type || !source)
		return -EINVAL;
	m->path = unescape(path, path_len);
	m->type = unescape(type, type_len);
	m->source = unescape(source, source_len);
	return 0;
}

int cst_fuse_mountinfo_find(const char *path, struct cst_fuse_mountinfo *m)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	CST_AUTO_FREE char *line = NULL;
	size_t cap = 0;
	int rc = -ENOENT;

	*m = (struct cst_fuse_mountinfo){0};
	if (!f)
		return -errno;
	while (getline(&line, &cap, f) >= 0) {
		struct cst_fuse_mountinfo one;

		if (cst_fuse_mountinfo_parse(line, &one) < 0)
			continue;
		if (strcmp(one.path, path) != 0) {
			cst_fuse_mountinfo_fini(&one);
			continue;
		}
		/* Later lines lie on top of earlier ones. */
		cst_fuse_mountinfo_fini(m);
		*m = one;
		rc = 0;
	}
	fclose(f);
	return rc;
}
