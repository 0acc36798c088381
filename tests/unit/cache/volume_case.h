/* The directory of one test of volumes, and what tests of one process ask of them. Used by the test's main thread. */
#pragma once

#include "volume_fixture.h"

#include "base/clock.h"

#define MIB (UINT64_C(1) << 20)
#define LARGE (UINT64_C(1) * MIB + 5000)
#define LARGE_BLOCKS 9

struct fixture {
	char root[64];
	char path[96]; /* of the cache; not made yet */
};
int volume_setup(void **state);
int volume_teardown(void **state);
#define TEST(name) cmocka_unit_test_setup_teardown(name, volume_setup, volume_teardown)

struct cst_volume *must_open(const char *path);
uint64_t used(struct cst_volume *v);	      /* bytes */
uint64_t in_use(struct cst_volume *v);	      /* entries */
unsigned count_entries(struct cst_volume *v); /* that its list has */

/* Until it is so; the test's own time limit ends it otherwise. */
#define WAIT_UNTIL(condition)                     \
	do {                                      \
		while (!(condition))              \
			cst_sleep(CST_NS_PER_MS); \
	} while (0)
