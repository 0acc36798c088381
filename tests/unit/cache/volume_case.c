#include "volume_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

int volume_setup(void **state)
{
	struct fixture *f = CST_NEW(struct fixture);
	snprintf(f->root, sizeof(f->root), "/tmp/cst-volume-XXXXXX");
	assert_non_null(mkdtemp(f->root));
	snprintf(f->path, sizeof(f->path), "%s/a/cache", f->root);
	*state = f;
	return 0;
}

int volume_teardown(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_FREE char *command = cst_xasprintf("rm -rf %s", f->root);
	free(f);
	return system(command);
}

struct cst_volume *must_open(const char *path)
{
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	struct cst_volume *v = volume_at(path, QUOTA, &err);
	if (!v)
		fail_msg("%s", cst_error_text(&err, text, sizeof(text)));
	return v;
}

uint64_t used(struct cst_volume *v)
{
	struct cst_index_stats stats;
	assert_int_equal(cst_volume_stats(v, &stats), 0);
	return stats.used;
}

uint64_t in_use(struct cst_volume *v)
{
	struct cst_index_stats stats;
	assert_int_equal(cst_volume_stats(v, &stats), 0);
	return stats.in_use;
}

unsigned count_entries(struct cst_volume *v)
{
	struct cst_index_entry entries[7];
	uint64_t cursor = 0;
	unsigned count = 0;
	int n;
	while ((n = cst_volume_list(v, &cursor, entries, CST_ARRAY_LEN(entries))) > 0)
		count += (unsigned)n;
	assert_int_equal(n, 0);
	return count;
}
