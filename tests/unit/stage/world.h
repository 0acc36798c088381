/* A staging area on a disk in memory beside a model of what it must hold: random operations, and the check after a restart that all that was
 * confirmed is there, byte for byte. */
#pragma once

#include "disk.h"
#include "stage/stage.h"

#define WORLD_FILES 3
#define WORLD_SIZE_MAX 6000u

/* The content of a file after some operation. */
struct snap {
	uint64_t size;
	char data[WORLD_SIZE_MAX];
};
struct model {
	struct cst_stage_file *f; /* NULL: none */
	uint64_t key;
	/* What a restart may find: the last state that was confirmed and all since. */
	struct snap *history;
	size_t count, room;
	bool confirmed; /* a restart must find it */
	bool conflict;	/* cst_stage_conflict() was called, and whether it returned 0 */
	bool conflict_confirmed;
	uint64_t sealed; /* number of the content that is sealed; 0: none */
	bool seal_durable, seal_confirmed;
	bool sure; /* the current content is known */
};
struct world_op {
	uint64_t id;
	uint32_t phase;
	bool confirmed, done;
};
struct world {
	struct disk *disk;
	struct cst_stage *s;
	uint64_t random;
	uint64_t next; /* number of keys, contents */
	struct model files[WORLD_FILES];
	struct snap *contents; /* by number: sealed under write id w<number>, in the store with that ETag */
	size_t content_room;
	struct world_op ops[8];
	uint64_t quota, journal_size;
	bool broken; /* calls fail: what they return is believed, nothing else */
	uint64_t checks, restarts, seals_found;
};
void world_init(struct world *w, uint64_t seed);
void world_fini(struct world *w);
int world_open(struct world *w);
/* One random operation. */
void world_step(struct world *w);
/* Reads all files and compares. */
void world_check(struct world *w);
/* After disk_restart(), or a close: opens, checks what must be there, and takes what is there for what is. */
void world_recover(struct world *w);
/* Closes as a program that ends; what isn't synced may be lost. */
void world_close(struct world *w);
uint64_t world_random(struct world *w, uint64_t below);
