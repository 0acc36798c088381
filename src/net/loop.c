#include "net/loop.h"

#include "base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#define LOOP_MAGIC 0x4c4f4f50u
#define GROUP_MAGIC 0x47525550u
#define EVENTS_AT_ONCE 64
#define WAKE_ID 0 /* the event id of the eventfd; no watch has it */

/* An entry of the table of watches. An event carries slot and generation, so events that the kernel reported before the
 * watch was deleted (by an earlier callback of the same batch) find another generation and are dropped. */
struct slot {
	struct cst_watch *watch;
	uint32_t generation; /* never 0 */
	uint32_t next_free;  /* slot + 1; 0: none */
};

struct cst_loop {
	uint32_t magic;
	int epoll_fd, event_fd;
	unsigned long thread;
	struct cst_loop_group *group;

	pthread_mutex_t lock; /* tasks, awake */
	STAILQ_HEAD(, cst_task) tasks;
	bool awake; /* the loop will look at `tasks` before it sleeps, or the eventfd has been written */

	/* the loop thread's own */
	bool stopping;
	struct slot *slots;
	uint32_t slot_count, first_free;
	struct cst_timer **heap;
	size_t timer_count, timer_room;
};

struct cst_loop_group {
	uint32_t magic;
	unsigned count;
	unsigned turn;
	struct cst_loop *loops[];
};

static _Thread_local struct cst_loop *current;

/* ---- timers: a binary heap, the soonest first; each timer knows its place ---- */

static void heap_put(struct cst_loop *loop, size_t at, struct cst_timer *timer)
{
	loop->heap[at] = timer;
	timer->private_index = at + 1;
}

static void heap_up(struct cst_loop *loop, size_t at, struct cst_timer *timer)
{
	while (at > 0 && loop->heap[(at - 1) / 2]->at > timer->at) {
		heap_put(loop, at, loop->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	heap_put(loop, at, timer);
}

static void heap_down(struct cst_loop *loop, size_t at, struct cst_timer *timer)
{
	for (;;) {
		size_t child = at * 2 + 1;

		if (child >= loop->timer_count)
			break;
		if (child + 1 < loop->timer_count && loop->heap[child + 1]->at < loop->heap[child]->at)
			child++;
		if (loop->heap[child]->at >= timer->at)
			break;
		heap_put(loop, at, loop->heap[child]);
		at = child;
	}
	heap_put(loop, at, timer);
}

static void heap_move(struct cst_loop *loop, size_t at, struct cst_timer *timer)
{
	if (at > 0 && loop->heap[(at - 1) / 2]->at > timer->at)
		heap_up(loop, at, timer);
	else
		heap_down(loop, at, timer);
}

void cst_timer_arm(struct cst_loop *loop, struct cst_timer *timer, int64_t at)
{
	CST_ASSERT(current == loop);
	timer->at = at;
	if (timer->private_index) {
		heap_move(loop, timer->private_index - 1, timer);
		return;
	}
	if (loop->timer_count == loop->timer_room) {
		loop->timer_room = loop->timer_room ? loop->timer_room * 2 : 64;
		loop->heap = cst_xrealloc(loop->heap, loop->timer_room * sizeof(*loop->heap));
	}
	heap_up(loop, loop->timer_count++, timer);
}

void cst_timer_cancel(struct cst_loop *loop, struct cst_timer *timer)
{
	size_t at = timer->private_index;
	struct cst_timer *last;

	if (at == 0)
		return;
	CST_ASSERT(current == loop && at <= loop->timer_count && loop->heap[at - 1] == timer);
	timer->private_index = 0;
	last = loop->heap[--loop->timer_count];
	if (last != timer)
		heap_move(loop, at - 1, last);
}

static void run_timers(struct cst_loop *loop)
{
	int64_t now;

	if (loop->timer_count == 0)
		return;
	/* One look at the clock: a timer armed by these callbacks for "now" waits for the next round, after the events. */
	now = cst_now();
	while (loop->timer_count && loop->heap[0]->at <= now) {
		struct cst_timer *timer = loop->heap[0];

		cst_timer_cancel(loop, timer);
		timer->fn(timer);
	}
}

/* Milliseconds until the first timer, rounded up so that it is due then. */
static int time_to_sleep(const struct cst_loop *loop)
{
	int64_t left;

	if (loop->timer_count == 0)
		return -1;
	left = loop->heap[0]->at - cst_now();
	if (left <= 0)
		return 0;
	left = (left + CST_NS_PER_MS - 1) / CST_NS_PER_MS;
	return left > 3600 * 1000 ? 3600 * 1000 : (int)left;
}

/* ---- watches ---- */

static uint32_t slot_take(struct cst_loop *loop)
{
	uint32_t taken;

	if (loop->first_free == 0) {
		uint32_t old = loop->slot_count;

		loop->slot_count = old ? old * 2 : 64;
		loop->slots = cst_xrealloc(loop->slots, loop->slot_count * sizeof(*loop->slots));
		for (uint32_t i = loop->slot_count; i-- > old;) {
			loop->slots[i] = (struct slot){.generation = 1, .next_free = loop->first_free};
			loop->first_free = i + 1;
		}
	}
	taken = loop->first_free - 1;
	loop->first_free = loop->slots[taken].next_free;
	return taken;
}

static void slot_give_back(struct cst_loop *loop, uint32_t at)
{
	struct slot *slot = &loop->slots[at];

	slot->watch = NULL;
	if (++slot->generation == 0)
		slot->generation = 1;
	slot->next_free = loop->first_free;
	loop->first_free = at + 1;
}

int cst_loop_watch(struct cst_loop *loop, struct cst_watch *watch)
{
	struct epoll_event event = {.events = watch->events};
	uint32_t at;

	CST_ASSERT(current == loop);
	if (watch->private_id) {
		event.data.u64 = watch->private_id;
		return epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, watch->fd, &event) ? -errno : 0;
	}
	at = slot_take(loop);
	loop->slots[at].watch = watch;
	event.data.u64 = (uint64_t)loop->slots[at].generation << 32 | at;
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, watch->fd, &event)) {
		int code = errno;

		slot_give_back(loop, at);
		return -code;
	}
	watch->private_id = event.data.u64;
	return 0;
}

void cst_loop_unwatch(struct cst_loop *loop, struct cst_watch *watch)
{
	uint32_t at = (uint32_t)watch->private_id;

	if (!watch->private_id)
		return;
	CST_ASSERT(current == loop && at < loop->slot_count && loop->slots[at].watch == watch);
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
	slot_give_back(loop, at);
	watch->private_id = 0;
}

static void run_events(struct cst_loop *loop, const struct epoll_event *events, int count)
{
	for (int i = 0; i < count; i++) {
		uint64_t id = events[i].data.u64;
		struct slot *slot;

		if (id == WAKE_ID)
			continue;
		slot = &loop->slots[(uint32_t)id];
		if (slot->watch && slot->generation == id >> 32)
			slot->watch->fn(slot->watch, events[i].events);
	}
}

/* ---- tasks ---- */

void cst_loop_post(struct cst_loop *loop, struct cst_task *task)
{
	bool wake;

	CST_CHECK(loop, LOOP_MAGIC);
	pthread_mutex_lock(&loop->lock);
	STAILQ_INSERT_TAIL(&loop->tasks, task, link);
	/* Its own thread, in a callback, comes to the tasks before it sleeps. */
	wake = !loop->awake && current != loop;
	loop->awake = true;
	pthread_mutex_unlock(&loop->lock);
	if (wake) {
		uint64_t one = 1;
		ssize_t n = write(loop->event_fd, &one, sizeof(one));

		CST_ASSERT(n == sizeof(one));
	}
}

/* Runs what is queued now, not what these tasks post: events and timers get their turn between. True when there was any. */
static bool run_tasks(struct cst_loop *loop)
{
	STAILQ_HEAD(, cst_task) batch = STAILQ_HEAD_INITIALIZER(batch);
	struct cst_task *task;
	bool any;

	pthread_mutex_lock(&loop->lock);
	loop->awake = true;
	STAILQ_CONCAT(&batch, &loop->tasks);
	pthread_mutex_unlock(&loop->lock);
	any = !STAILQ_EMPTY(&batch);
	while ((task = STAILQ_FIRST(&batch))) {
		STAILQ_REMOVE_HEAD(&batch, link);
		task->fn(task);
	}
	return any;
}

/* True when the loop may sleep: nothing is queued, and who posts from here on writes the eventfd. */
static bool may_sleep(struct cst_loop *loop)
{
	bool empty;

	pthread_mutex_lock(&loop->lock);
	empty = STAILQ_EMPTY(&loop->tasks);
	loop->awake = !empty;
	pthread_mutex_unlock(&loop->lock);
	return empty;
}

static void *loop_main(void *arg)
{
	struct cst_loop *loop = arg;
	struct epoll_event events[EVENTS_AT_ONCE];

	current = loop;
	for (;;) {
		bool ran = run_tasks(loop);
		int count;

		run_timers(loop);
		if (loop->stopping && !ran)
			return NULL;
		count = epoll_wait(loop->epoll_fd, events, EVENTS_AT_ONCE,
				   may_sleep(loop) && !loop->stopping ? time_to_sleep(loop) : 0);
		CST_ASSERT(count >= 0 || errno == EINTR);
		if (!loop->stopping)
			run_events(loop, events, count);
	}
}

/* ---- life ---- */

static void loop_destroy(struct cst_loop *loop)
{
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	if (loop->event_fd >= 0)
		close(loop->event_fd);
	pthread_mutex_destroy(&loop->lock);
	free(loop->slots);
	free(loop->heap);
	loop->magic = 0;
	free(loop);
}

struct cst_loop *cst_loop_new(const char *name, struct cst_error *err)
{
	struct cst_loop *loop = CST_NEW(struct cst_loop);
	struct epoll_event wake = {.events = EPOLLIN | EPOLLET, .data.u64 = WAKE_ID};
	int rc = 0;

	loop->magic = LOOP_MAGIC;
	pthread_mutex_init(&loop->lock, NULL);
	STAILQ_INIT(&loop->tasks);
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	/* Edge triggered: every write is an event of its own, and nobody has to read the counter. */
	if (loop->epoll_fd < 0 || loop->event_fd < 0 || epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->event_fd, &wake))
		rc = -errno;
	if (rc == 0)
		rc = cst_thread_start(&loop->thread, name, 0, loop_main, loop);
	if (rc) {
		cst_error_set(err, -rc, "can't start the event loop %s", name);
		cst_error_why(err, "%s", strerrordesc_np(-rc));
		loop_destroy(loop);
		return NULL;
	}
	return loop;
}

struct stop_task {
	struct cst_task task;
	struct cst_loop *loop;
};

static void stop_loop(struct cst_task *task)
{
	cst_container_of(task, struct stop_task, task)->loop->stopping = true;
}

void cst_loop_free(struct cst_loop *loop)
{
	struct stop_task stop = {.task.fn = stop_loop, .loop = loop};

	if (!loop)
		return;
	CST_CHECK(loop, LOOP_MAGIC);
	CST_ASSERT(current != loop);
	cst_loop_post(loop, &stop.task);
	pthread_join(loop->thread, NULL);
	loop_destroy(loop);
}

bool cst_loop_is_current(const struct cst_loop *loop)
{
	return current == loop;
}

struct cst_loop_group *cst_loop_group_new(const char *name, unsigned count, struct cst_error *err)
{
	struct cst_loop_group *group;

	CST_ASSERT(count > 0);
	group = cst_xcalloc(1, sizeof(*group) + count * sizeof(struct cst_loop *));
	group->magic = GROUP_MAGIC;
	for (unsigned i = 0; i < count; i++) {
		char full[32];

		snprintf(full, sizeof(full), "%.12s-%u", name, i);
		group->loops[i] = cst_loop_new(full, err);
		if (!group->loops[i]) {
			cst_loop_group_free(group);
			return NULL;
		}
		group->loops[i]->group = group;
		group->count++;
	}
	return group;
}

void cst_loop_group_free(struct cst_loop_group *group)
{
	if (!group)
		return;
	CST_CHECK(group, GROUP_MAGIC);
	for (unsigned i = 0; i < group->count; i++)
		cst_loop_free(group->loops[i]);
	group->magic = 0;
	free(group);
}

unsigned cst_loop_group_count(const struct cst_loop_group *group)
{
	CST_CHECK(group, GROUP_MAGIC);
	return group->count;
}

struct cst_loop *cst_loop_group_at(struct cst_loop_group *group, unsigned index)
{
	CST_CHECK(group, GROUP_MAGIC);
	CST_ASSERT(index < group->count);
	return group->loops[index];
}

struct cst_loop *cst_loop_group_next(struct cst_loop_group *group)
{
	unsigned turn;

	CST_CHECK(group, GROUP_MAGIC);
	turn = __atomic_fetch_add(&group->turn, 1, __ATOMIC_RELAXED);
	return group->loops[turn % group->count];
}

struct cst_loop *cst_loop_group_current(struct cst_loop_group *group)
{
	CST_CHECK(group, GROUP_MAGIC);
	return current && current->group == group ? current : NULL;
}
