#include "supervisor/opens.h"

#include <pthread.h>

#define BUCKETS 4096u

struct open {
	struct open *next;
	struct cst_open_record *record;
};

struct cst_opens {
	struct cst_state *state;
	uint32_t epoch;
	pthread_mutex_t lock;
	uint64_t inherited;	     /* atomic to read */
	struct open *by_fh[BUCKETS]; /* all */
};

static struct open **bucket(struct cst_opens *o, uint64_t fh)
{
	return &o->by_fh[(fh ^ fh >> 24 ^ fh >> 48) % BUCKETS];
}

static void enter(struct cst_opens *o, struct cst_open_record *record)
{
	struct open *open = CST_NEW(struct open), **at = bucket(o, record->fh);
	open->record = record;
	open->next = *at;
	*at = open;
	if (record->epoch != o->epoch)
		__atomic_fetch_add(&o->inherited, 1, __ATOMIC_RELAXED);
}

static void restore(void *arg, void *record, size_t room, uint64_t sequence)
{
	(void)sequence;
	CST_ASSERT(room >= sizeof(struct cst_open_record));
	enter(arg, record);
}

struct cst_opens *cst_opens_new(struct cst_state *state, uint32_t epoch)
{
	struct cst_opens *o = CST_NEW(struct cst_opens);
	o->state = state;
	o->epoch = epoch;
	pthread_mutex_init(&o->lock, NULL);
	cst_state_each(state, CST_STATE_OPEN, restore, o);
	return o;
}

void cst_opens_free(struct cst_opens *o)
{
	if (!o)
		return;
	for (unsigned i = 0; i < BUCKETS; i++)
		for (struct open *open = o->by_fh[i], *next; open; open = next) {
			next = open->next;
			free(open);
		}
	pthread_mutex_destroy(&o->lock);
	free(o);
}

/* Is the id another inherited record's too? Rare, so a walk will do. */
static bool is_used_locked(const struct cst_opens *o, int backing)
{
	for (unsigned i = 0; i < BUCKETS; i++)
		for (const struct open *open = o->by_fh[i]; open; open = open->next)
			if (open->record->backing == backing && open->record->epoch != o->epoch)
				return true;
	return false;
}

/* The id that is left over, or 0. */
static int drop_locked(struct cst_opens *o, struct open **at)
{
	struct open *open = *at;
	int backing = 0;
	*at = open->next;
	if (open->record->epoch != o->epoch) {
		__atomic_fetch_sub(&o->inherited, 1, __ATOMIC_RELAXED);
		if (!is_used_locked(o, open->record->backing))
			backing = open->record->backing;
	}
	cst_state_free(o->state, open->record);
	free(open);
	return backing;
}

static struct open **find_inherited_locked(struct cst_opens *o, uint64_t unique)
{
	for (unsigned i = 0; i < BUCKETS; i++)
		for (struct open **at = &o->by_fh[i]; *at; at = &(*at)->next)
			if ((*at)->record->unique == unique && (*at)->record->epoch != o->epoch)
				return at;
	return NULL;
}

int cst_opens_add(struct cst_opens *o, uint64_t unique, uint64_t node, uint64_t fh, int backing)
{
	struct cst_open_record *record = cst_state_alloc(o->state, CST_STATE_OPEN, sizeof(*record));
	*record = (struct cst_open_record){unique, node, fh, backing, o->epoch};
	cst_state_commit(o->state, record);
	pthread_mutex_lock(&o->lock);
	struct open **old = o->inherited ? find_inherited_locked(o, unique) : NULL;
	int left = old ? drop_locked(o, old) : 0;
	enter(o, record);
	pthread_mutex_unlock(&o->lock);
	return left;
}

int cst_opens_remove(struct cst_opens *o, uint64_t fh)
{
	int left = 0;
	pthread_mutex_lock(&o->lock);
	struct open **at = bucket(o, fh);
	while (*at && (*at)->record->fh != fh)
		at = &(*at)->next;
	if (*at)
		left = drop_locked(o, at);
	pthread_mutex_unlock(&o->lock);
	return left;
}

uint64_t cst_opens_inherited(const struct cst_opens *o)
{
	return __atomic_load_n(&o->inherited, __ATOMIC_RELAXED);
}
