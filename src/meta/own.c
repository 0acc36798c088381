/* What this mount changed itself, over the listings of a directory: see dir.h. */
#include "meta/internal.h"

void cst_dir_put(struct cst_dir *dir, const char *name, const struct cst_entry *entry, bool held)
{
	(void)entry;
	(void)held;
	cst_dir_doubt(dir, name);
}

void cst_dir_put_gone(struct cst_dir *dir, const char *name, int64_t at)
{
	(void)at;
	cst_dir_doubt(dir, name);
}

bool cst_dir_is_own(struct cst_dir *dir, const char *name, bool *held)
{
	(void)dir;
	(void)name;
	if (held)
		*held = false;
	return false;
}

void cst_dir_set_empty(struct cst_dir *dir)
{
	(void)dir;
}

void cst_dir_move(struct cst_dir *dir, struct cst_slice prefix)
{
	(void)dir;
	(void)prefix;
}
