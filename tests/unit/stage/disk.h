/* A disk in memory, for the staging area's tests: it remembers what was synced and every write, truncation, punch and change of names since, so
 * that a power cut can leave any of the states that the syncs allow, down to single sectors. It fails when it is told to. One thread. */
#pragma once

#include "stage/io.h"

#define SECTOR 512u

struct disk;
struct disk *disk_new(void);
void disk_free(struct disk *d);
const struct cst_stage_io *disk_io(struct disk *d);

/* Calls that change something, so far. After `calls` more of them the power fails: nothing has an effect any more, all fail. 0: never. */
uint64_t disk_changes(const struct disk *d);
void disk_cut_after(struct disk *d, uint64_t calls);
bool disk_is_cut(const struct disk *d);
/* The call `calls` from now on (of any kind but closing) fails with this; 0: none. A write may have got half of its way. */
void disk_fail_after(struct disk *d, uint64_t calls, int rc);
uint64_t disk_calls(const struct disk *d);
void disk_set_space(struct disk *d, uint64_t bytes); /* that can still be reserved; UINT64_MAX: endless */

/* Units (sectors of a write, truncations, changes of names) that a power cut now may lose or keep. */
uint64_t disk_units(const struct disk *d);
/* The power is back: a unit stays if keep(arg, its number) says so. All descriptors are closed. */
void disk_restart(struct disk *d, bool (*keep)(void *arg, uint64_t unit), void *arg);
/* The bytes of a file as programs see them, to be damaged; NULL: there is none. */
char *disk_bytes(struct disk *d, const char *name, size_t *size);
