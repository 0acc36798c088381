/* A backend over a directory of its own with one bucket, for tests of cmocka: setup and teardown make and remove it. */
#pragma once

#include "store/backend.h"

struct fixture {
	char dir[64];
	struct cst_store_backend *b;
	int bucket;
};
int backend_setup(void **state);
int backend_teardown(void **state);
/* As a new start of the store does. */
void reopen(struct fixture *f);
