#include "backend_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

void reopen(struct fixture *f)
{
	struct cst_error err = CST_ERROR_INIT;

	if (f->b) {
		close(f->bucket);
		cst_backend_free(f->b);
	}
	assert_int_equal(cst_backend_new(f->dir, &f->b, &err), 0);
	cst_backend_make_bucket(f->b, "bucket");
	f->bucket = cst_backend_bucket(f->b, CST_SLICE("bucket"));
	assert_true(f->bucket >= 0);
}

int backend_setup(void **state)
{
	struct fixture *f = CST_NEW(struct fixture);
	const char *base = getenv("TMPDIR");

	snprintf(f->dir, sizeof(f->dir), "%.40s/cst-store-XXXXXX", base ? base : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	reopen(f);
	*state = f;
	return 0;
}

int backend_teardown(void **state)
{
	struct fixture *f = *state;
	char command[96];

	close(f->bucket);
	cst_backend_free(f->b);
	snprintf(command, sizeof(command), "rm -rf '%s'", f->dir);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}
