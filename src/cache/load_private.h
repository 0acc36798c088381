/* What load.c, load_list.c and load_glob.c share. A load runs on its own thread: all decisions are made there; callbacks of requests only
 * note their outcome and wake it. `lock` guards what those callbacks and other threads touch: events, the finished page, progress. */
#pragma once

#include "cache/cache_private.h"
#include "cache/load.h"

#define CST_LOAD_MAGIC 0x434c4f41u

/* ---- load_glob.c ---- */
/* *, ? and [ that no backslash makes ordinary. */
bool cst_glob_is_pattern(const char *text);
/* Takes the backslashes away; as far as `text` has no pattern. Returns what follows ("" at the end). */
const char *cst_glob_literal(const char *text, struct cst_buf *out);
/* Does the pattern match all of the name? * and ? don't match "/", ** does; "**" "/" also matches nothing at all; [a-z], [!a-z], [^a-z]. */
bool cst_glob_match(const char *pattern, struct cst_slice name);

/* ---- names that were found ---- */
struct cst_load_name {
	uint64_t size;
	char etag[CST_ETAG_MAX];
	STAILQ_ENTRY(cst_load_name) link;
	size_t key_len;
	char key[];
};
STAILQ_HEAD(cst_load_names, cst_load_name);

struct cst_lister {
	unsigned target; /* under way, or next */
	char *prefix;	 /* being listed; NULL: the target is asked for by name first */
	const char *pattern;
	struct cst_buf literal;
	char *token;
	uint64_t found; /* of the target */
	struct cst_object_op *op;
	bool flying, over;

	/* The callbacks' until the event. */
	struct cst_load_names page;
	uint64_t page_count, page_bytes;
	char *next_token;
	bool truncated;
	int rc;
	struct cst_error err;
};

enum cst_load_state { LOAD_OPENING, LOAD_FILLING, LOAD_SETTLING, LOAD_ASKING };
struct cst_load_job {
	struct cst_load *load;
	struct cst_load_name *name;
	enum cst_load_state state;
	struct cst_cache_object *o;
	struct cst_fetch_object *data;
	struct cst_fetch_fill fill;
	struct cst_object_op *op;
	unsigned weight, tries, level;
	bool planned; /* counted in its level's plan */
	uint64_t had; /* bytes that were there */
	int rc;
	struct cst_error err;
	struct cst_object_info info;
	TAILQ_ENTRY(cst_load_job) link;
	STAILQ_ENTRY(cst_load_job) event;
};

struct cst_load {
	unsigned magic;
	struct cst_load_config config;
	char **targets;
	unsigned long thread;
	struct cst_lister lister;
	struct cst_load_names names; /* found, not begun */
	unsigned weight, active;
	uint64_t planned[CST_CACHE_LEVELS];
	unsigned refused_in_a_row;
	bool stopped; /* cancelled, as far as the thread has acted on it */

	pthread_mutex_t lock;
	pthread_cond_t wake, over;
	STAILQ_HEAD(, cst_load_job) events;
	bool page_done, cancelled;
	unsigned names_waiting;
	TAILQ_HEAD(, cst_load_job) jobs; /* changed by the thread alone, under the lock */
	struct cst_load_progress progress;
	struct cst_error first;
};

/* ---- load_list.c; on the load's thread ---- */
void cst_lister_init(struct cst_load *load);
void cst_lister_fini(struct cst_load *load);
/* Starts the next request, when none is under way. */
void cst_lister_step(struct cst_load *load);
/* The request has ended: what it found goes to `names`. 0, or -errno: the listing can't go on (lister.err). */
int cst_lister_take(struct cst_load *load);
struct cst_load_name *cst_load_name_new(struct cst_slice key, const char *etag, uint64_t size);
/* Notes the first failure, and tells the caller. */
void cst_load_failed(struct cst_load *load, struct cst_slice key, const struct cst_error *err);
