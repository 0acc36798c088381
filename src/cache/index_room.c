/* Room: what the volume takes, what the file system has left, and the evictor.
 *
 * Slabs count whole, but free slots in them are as good as free space for what has their size. So the watermarks look at what would be taken if
 * the slabs were packed; where really bytes are needed (a charge waits at the quota, the file system runs full) the emptiest slabs are
 * emptied, too. */
#define CST_LOG_AREA "cache"
#include "cache/index_private.h"

#include "base/log.h"

#include <errno.h>
#include <sched.h>
#include <sys/statvfs.h>

#define LOOK_AFTER (UINT64_C(256) << 20) /* bytes charged */
#define FULL_PACE (10 * CST_NS_PER_MS)
#define STEPS 512u /* of the policy, before the lock is let go */
#define GUARD_MOST \
	(UINT64_C(64) << 20) /* bytes that the guard frees beyond what is needed, so as not to work for each MiB */
#define INODES_BACK 64	     /* likewise */

uint64_t room_used_locked(const struct cst_index *x)
{
	return x->extents + x->slabs.whole + x->dead_slabs;
}

/* What will be taken once the keeper is done. */
static uint64_t soon_used(const struct cst_index *x)
{
	return x->extents - x->leaving_bytes + x->slabs.whole;
}

static uint64_t packed(const struct cst_index *x)
{
	return x->extents - x->leaving_bytes + cst_min(x->slabs.needed, x->slabs.whole);
}

static int64_t soon_free(const struct cst_index *x)
{
	return x->fs_room + (int64_t)x->leaving_bytes + (int64_t)x->dead_slabs;
}

static uint64_t margin(const struct cst_index *x)
{
	return cst_min(cst_min(x->config.limits.quota, x->fs_size) / 64, GUARD_MOST);
}

/* It starts before anybody is refused. */
static bool guard_starts(const struct cst_index *x)
{
	return soon_free(x) < (int64_t)(margin(x) / 2) || x->fs_inodes_room < INODES_BACK / 2;
}

/* ---- the file system ---- */

void room_look(struct cst_index *x)
{
	struct statvfs st;
	int rc = fstatvfs(x->dir, &st) < 0 ? -errno : 0;
	if (index_is_disk_failure(rc))
		index_fail(x, rc, "looking at the free space");
	pthread_mutex_lock(&x->lock);
	x->look = false;
	x->looked = cst_now();
	x->charged_since = 0;
	if (rc == 0) {
		int64_t free_bytes = (int64_t)(st.f_bavail * (uint64_t)st.f_frsize);
		int64_t inodes = st.f_files ? (int64_t)st.f_favail - (int64_t)(st.f_files / 100) : INT64_MAX / 2;
		bool better =
			free_bytes - (int64_t)x->config.limits.keep_free > x->fs_room || inodes > x->fs_inodes_room;
		x->fs_room = free_bytes - (int64_t)x->config.limits.keep_free;
		x->fs_inodes_room = inodes;
		x->fs_size = (uint64_t)st.f_blocks * (uint64_t)st.f_frsize;
		if (better)
			pthread_cond_broadcast(&x->room);
		room_wake_locked(x);
	}
	pthread_mutex_unlock(&x->lock);
}

void room_take_locked(struct cst_index *x, uint64_t data, unsigned inodes)
{
	x->fs_room -= (int64_t)data;
	x->fs_inodes_room -= inodes;
	x->charged_since += data;
	if (!x->guarding && !x->stuck && guard_starts(x))
		pthread_cond_signal(&x->evict_wake);
	if (x->charged_since >= LOOK_AFTER && !x->look) {
		x->look = true;
		pthread_cond_signal(&x->keep_wake);
	}
}

/* ---- who needs room ---- */

void room_wake_locked(struct cst_index *x)
{
	x->stuck = false;
	pthread_cond_signal(&x->evict_wake);
}

void room_changed_locked(struct cst_index *x)
{
	if (x->stuck)
		room_wake_locked(x);
}

void room_grown_locked(struct cst_index *x)
{
	if (!x->stuck && !x->evicting && packed(x) > x->high)
		pthread_cond_signal(&x->evict_wake);
}

int64_t room_cond_wait_locked(struct cst_index *x, pthread_cond_t *cond, int64_t deadline)
{
	struct timespec at_time = {deadline / CST_NS_PER_S, deadline % CST_NS_PER_S};
	pthread_cond_timedwait(cond, &x->lock, &at_time);
	return deadline - cst_now();
}

static bool fits(const struct cst_index *x, uint64_t bytes, uint64_t data)
{
	return !x->no_log && room_used_locked(x) + bytes <= x->config.limits.quota && x->fs_room >= (int64_t)data &&
	       x->fs_inodes_room >= 0;
}

int room_ask_locked(struct cst_index *x, uint64_t bytes, uint64_t data, int64_t deadline)
{
	if (x->rc || x->stopping)
		return -EIO;
	if (fits(x, bytes, data)) {
		x->refusing = false;
		if (!x->waiters)
			x->wanted = 0;
		return 1;
	}
	bool hopeless = bytes > x->config.limits.quota || x->stuck || x->no_log;
	if (hopeless || cst_now() >= deadline) {
		x->refusing = true;
		x->stats.refused_bytes += data;
		if (!hopeless) { /* whoever comes next should find some */
			x->wanted = cst_max(x->wanted, bytes);
			pthread_cond_signal(&x->evict_wake);
		}
		return -ENOSPC;
	}
	x->wanted = cst_max(x->wanted, bytes);
	if (x->fs_room < (int64_t)data && !x->look) {
		x->look = true;
		pthread_cond_signal(&x->keep_wake);
	}
	pthread_cond_signal(&x->evict_wake);
	x->waiters++;
	room_cond_wait_locked(x, &x->room, deadline);
	x->waiters--;
	return 0;
}

/* ---- the evictor ---- */

static bool guard_wants(const struct cst_index *x)
{
	if (!x->guarding)
		return x->no_log || guard_starts(x);
	return x->no_log || soon_free(x) < (int64_t)margin(x) || x->fs_inodes_room < INODES_BACK;
}

static bool waiter_wants(const struct cst_index *x)
{
	uint64_t quota = x->config.limits.quota;
	return x->wanted && (soon_used(x) + cst_min(x->wanted, quota) > quota || soon_free(x) < (int64_t)x->wanted);
}

/* Turns the states; true while something is to be evicted. */
static bool pressed(struct cst_index *x)
{
	uint64_t now = packed(x);
	if (!x->evicting && now > x->high) {
		x->evicting = true;
		x->stats.stops_high++;
	} else if (x->evicting && now <= x->low) {
		x->evicting = false;
		x->stats.stops_low++;
	}
	x->guarding = guard_wants(x);
	if (x->wanted && !waiter_wants(x))
		x->wanted = 0;
	return x->evicting || x->guarding || x->wanted;
}

/* n is out of its queue and nobody holds it. May let go of the lock. */
static void evict(struct cst_index *x, uint32_t n)
{
	struct entry *e = at(x, n);
	bool kept = false;
	if (x->config.demote) {
		struct cst_index_entry copy;
		index_entry_copy(x, e, &copy);
		index_use_locked(x, n);
		pthread_mutex_unlock(&x->lock);
		kept = x->config.demote(x->config.arg, &copy);
		pthread_mutex_lock(&x->lock);
		bool wanted = e->uses > 1 || !entry_found(e) || e->flags & F_PINNED || x->rc;
		if (wanted && entry_found(e))
			e->flags |= F_PARKED;
		if (wanted) {
			index_unuse_locked(x, n);
			return;
		}
		index_unuse_locked(x, n);
	}
	x->stats.demoted += kept;
	x->stats.evicted += !kept;
	policy_remember_locked(x, e);
	if (x->fs_inodes_room < INODES_BACK && !(e->flags & F_SLOT))
		x->fs_inodes_room += 2; /* until the next look */
	index_drop_locked(x, n);
}

/* Others get the lock. */
static void let_others(struct cst_index *x)
{
	pthread_mutex_unlock(&x->lock);
	sched_yield();
	pthread_mutex_lock(&x->lock);
}

/* Everything in the emptiest slab goes, so that its file can. False: there is none that can be emptied. */
static bool empty_slab(struct cst_index *x)
{
	struct slab *s = slab_emptiest_locked(x);
	if (!s)
		return false;
	slab_close_locked(x, s);
	/* A closed slab stays, even without slots in use, when the lock is let go. */
	for (uint32_t slot = 0; slot < s->slots && s->live && !s->held && !x->stopping && !x->rc; slot++) {
		uint32_t n = s->owners[slot];
		if (n >= OWNER_FREE || entry_held(at(x, n)))
			continue;
		policy_leave_locked(x, n);
		evict(x, n);
		if (slot % 256 == 255)
			let_others(x);
	}
	slab_open_locked(x, s);
	return true;
}

/* Something to free bytes with, if there is anything. True: go on. */
static bool round_locked(struct cst_index *x)
{
	bool inodes_only = !x->evicting && !x->wanted && !x->no_log && soon_free(x) >= (int64_t)margin(x);
	/* Bytes that slots give back are bytes of slabs. */
	if (!x->evicting && !inodes_only && x->slabs.whole > x->slabs.needed + margin(x) && empty_slab(x))
		return true;
	for (unsigned i = 0; i < 32 && !x->stopping && pressed(x); i++) {
		unsigned steps = STEPS;
		uint32_t n = policy_victim_locked(x, inodes_only, &steps);
		if (n)
			evict(x, n);
		else
			return !inodes_only && (steps == 0 || (!x->evicting && empty_slab(x)));
	}
	return true;
}

static bool pending(const struct cst_index *x)
{
	return x->leaving || x->dead || x->reaping;
}

void *room_evictor(void *arg)
{
	struct cst_index *x = arg;
	pthread_mutex_lock(&x->lock);
	while (!x->stopping) {
		if (x->rc || x->stuck || !pressed(x)) {
			pthread_cond_wait(&x->evict_wake, &x->lock);
			continue;
		}
		bool more = round_locked(x);
		bool wait = pending(x) && (!more || x->no_log);
		if (!more && !wait && !x->stopping) {
			/* All that is left is in use or pinned: who waits need not wait longer. */
			x->stuck = true;
			x->wanted = 0;
			pthread_cond_broadcast(&x->room);
		} else if (wait && !x->stopping) {
			pthread_cond_wait(&x->evict_wake, &x->lock);
		} else if (x->no_log) {
			/* Slots give the disk nothing until their slab goes: see whether the log fits now. */
			room_cond_wait_locked(x, &x->evict_wake, cst_now() + FULL_PACE);
		} else {
			let_others(x);
		}
	}
	pthread_mutex_unlock(&x->lock);
	return NULL;
}
