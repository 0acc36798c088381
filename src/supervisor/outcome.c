#include "supervisor/outcome.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#define BUCKETS 1024u
#define MARK (UINT64_C(1) << 63)

struct record {
	uint64_t unique;
	int32_t rc;
	uint32_t len;
	char answer[];
};

struct outcome {
	struct outcome *next;
	struct record *record;
	uint64_t sequence;
};

struct cst_outcomes {
	struct cst_state *state;
	pthread_mutex_t lock;
	uint64_t count; /* atomic to read */
	struct outcome *buckets[BUCKETS];
};

static struct outcome **find_locked(struct cst_outcomes *o, uint64_t unique)
{
	struct outcome **at = &o->buckets[unique / 2 % BUCKETS];
	while (*at && (*at)->record->unique != unique)
		at = &(*at)->next;
	return at;
}

static void drop_locked(struct cst_outcomes *o, struct outcome **at)
{
	struct outcome *outcome = *at;
	*at = outcome->next;
	cst_state_free(o->state, outcome->record);
	free(outcome);
	__atomic_fetch_sub(&o->count, 1, __ATOMIC_RELAXED);
}

static void enter_locked(struct cst_outcomes *o, struct record *record, uint64_t sequence)
{
	struct outcome **at = find_locked(o, record->unique);
	if (*at && (*at)->sequence > sequence) {
		cst_state_free(o->state, record);
		return;
	}
	if (*at)
		drop_locked(o, at);
	struct outcome *outcome = CST_NEW(struct outcome);
	*outcome = (struct outcome){o->buckets[record->unique / 2 % BUCKETS], record, sequence};
	o->buckets[record->unique / 2 % BUCKETS] = outcome;
	__atomic_fetch_add(&o->count, 1, __ATOMIC_RELAXED);
}

static void restore(void *arg, void *record, size_t room, uint64_t sequence)
{
	const struct record *r = record;
	CST_ASSERT(room >= sizeof(*r) && room - sizeof(*r) >= r->len);
	enter_locked(arg, record, sequence);
}

struct cst_outcomes *cst_outcomes_new(struct cst_state *state)
{
	struct cst_outcomes *o = CST_NEW(struct cst_outcomes);
	o->state = state;
	pthread_mutex_init(&o->lock, NULL);
	cst_state_each(state, CST_STATE_OUTCOME, restore, o);
	return o;
}

void cst_outcomes_free(struct cst_outcomes *o)
{
	if (!o)
		return;
	for (unsigned i = 0; i < BUCKETS; i++)
		for (struct outcome *outcome = o->buckets[i], *next; outcome; outcome = next) {
			next = outcome->next;
			free(outcome);
		}
	pthread_mutex_destroy(&o->lock);
	free(o);
}

void cst_outcome_log(struct cst_outcomes *o, uint64_t unique, int rc, const void *answer, size_t len)
{
	CST_ASSERT(len <= CST_OUTCOME_MAX);
	struct record *record = cst_state_alloc(o->state, CST_STATE_OUTCOME, sizeof(*record) + len);
	record->unique = unique & ~MARK;
	record->rc = rc;
	record->len = (uint32_t)len;
	if (len > 0)
		memcpy(record->answer, answer, len);
	cst_state_commit(o->state, record);
	pthread_mutex_lock(&o->lock);
	enter_locked(o, record, UINT64_MAX);
	pthread_mutex_unlock(&o->lock);
}

bool cst_outcome_find(struct cst_outcomes *o, uint64_t unique, int *rc, void *answer, size_t *len)
{
	pthread_mutex_lock(&o->lock);
	const struct outcome *outcome = *find_locked(o, unique & ~MARK);
	if (outcome) {
		*rc = outcome->record->rc;
		*len = outcome->record->len;
		memcpy(answer, outcome->record->answer, *len);
	}
	pthread_mutex_unlock(&o->lock);
	return outcome != NULL;
}

void cst_outcome_done(struct cst_outcomes *o, uint64_t unique)
{
	pthread_mutex_lock(&o->lock);
	struct outcome **at = find_locked(o, unique & ~MARK);
	if (*at)
		drop_locked(o, at);
	pthread_mutex_unlock(&o->lock);
}

uint64_t cst_outcomes_count(const struct cst_outcomes *o)
{
	return __atomic_load_n(&o->count, __ATOMIC_RELAXED);
}
