#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/pool.h"
#include "net/loop.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* Runs a function on a loop and waits for it. */
struct run {
	struct cst_task task;
	void (*fn)(void *arg);
	void *arg;
	sem_t end;
};

static void run_task(struct cst_task *task)
{
	struct run *run = cst_container_of(task, struct run, task);

	run->fn(run->arg);
	sem_post(&run->end);
}

static void run_on(struct cst_loop *loop, void (*fn)(void *arg), void *arg)
{
	struct run run = {.task.fn = run_task, .fn = fn, .arg = arg};

	sem_init(&run.end, 0, 0);
	cst_loop_post(loop, &run.task);
	sem_wait(&run.end);
	sem_destroy(&run.end);
}

/* ---- timers ---- */

#define TIMERS 500

struct timers {
	struct cst_loop *loop;
	struct timed {
		struct cst_timer timer;
		struct timers *all;
		int64_t due;
		unsigned fired, order;
	} t[TIMERS];
	unsigned fired, expected;
	sem_t end;
};

static void timer_fired(struct cst_timer *timer)
{
	struct timed *t = cst_container_of(timer, struct timed, timer);

	CST_ASSERT(cst_now() >= t->due);
	CST_ASSERT(cst_loop_is_current(t->all->loop));
	t->fired++;
	t->order = t->all->fired++;
	if (t->all->fired == t->all->expected)
		sem_post(&t->all->end);
}

static void arm_timers(void *arg)
{
	struct timers *all = arg;
	int64_t now = cst_now();

	for (unsigned i = 0; i < TIMERS; i++) {
		all->t[i].timer.fn = timer_fired;
		all->t[i].all = all;
		all->t[i].due = now + (int64_t)(i * 7919 % 503) * 100 * CST_NS_PER_US;
		cst_timer_arm(all->loop, &all->t[i].timer, all->t[i].due + (i % 3 ? 0 : CST_NS_PER_S));
	}
	for (unsigned i = 0; i < TIMERS; i += 3) /* moves to an earlier moment */
		cst_timer_arm(all->loop, &all->t[i].timer, all->t[i].due);
	for (unsigned i = 0; i < TIMERS; i += 5) {
		cst_timer_cancel(all->loop, &all->t[i].timer);
		cst_timer_cancel(all->loop, &all->t[i].timer);
	}
	all->expected = TIMERS - (TIMERS + 4) / 5;
}

static void test_timers(void **state)
{
	struct timers *all = CST_NEW(struct timers);

	(void)state;
	all->loop = cst_loop_new("t", NULL);
	sem_init(&all->end, 0, 0);
	run_on(all->loop, arm_timers, all);
	sem_wait(&all->end);
	cst_loop_free(all->loop);
	for (unsigned i = 0; i < TIMERS; i++) {
		assert_int_equal(all->t[i].fired, i % 5 ? 1 : 0);
		for (unsigned j = 0; j < TIMERS; j++)
			if (i % 5 && j % 5 && all->t[i].due < all->t[j].due)
				assert_true(all->t[i].order < all->t[j].order);
	}
	sem_destroy(&all->end);
	free(all);
}

/* ---- tasks ---- */

#define POSTERS 4
#define POSTS 5000

struct posted {
	struct cst_task task;
	struct poster *poster;
	unsigned number;
};

struct poster {
	struct cst_loop *loop;
	unsigned long thread;
	unsigned next; /* loop thread */
	struct posted posted[POSTS];
};

static void posted_ran(struct cst_task *task)
{
	struct posted *p = cst_container_of(task, struct posted, task);

	CST_ASSERT(p->number == p->poster->next);
	p->poster->next++;
}

static void *poster_main(void *arg)
{
	struct poster *p = arg;

	for (unsigned i = 0; i < POSTS; i++) {
		p->posted[i] = (struct posted){.task.fn = posted_ran, .poster = p, .number = i};
		cst_loop_post(p->loop, &p->posted[i].task);
	}
	return NULL;
}

/* Every task runs once, those of one thread in order, and freeing the loop runs what is left. */
static void test_posts_from_threads(void **state)
{
	struct cst_loop *loop = cst_loop_new("t", NULL);
	struct poster *posters = cst_xcalloc(POSTERS, sizeof(*posters));

	(void)state;
	for (int i = 0; i < POSTERS; i++) {
		posters[i].loop = loop;
		assert_int_equal(cst_thread_start(&posters[i].thread, "p", 0, poster_main, &posters[i]), 0);
	}
	for (int i = 0; i < POSTERS; i++)
		pthread_join(posters[i].thread, NULL);
	cst_loop_free(loop);
	for (int i = 0; i < POSTERS; i++)
		assert_int_equal(posters[i].next, POSTS);
	free(posters);
}

/* ---- watches ---- */

#define PAIRS 20

struct pairs {
	struct cst_loop *loop;
	struct pair {
		struct cst_watch watch;
		struct pairs *all;
		int other;
		unsigned events;
	} p[PAIRS];
	unsigned called;
	sem_t end;
};

/* The first one to be called deletes all the others, whose events are in the same batch, and itself. */
static void delete_all(struct cst_watch *watch, uint32_t events)
{
	struct pairs *all = cst_container_of(watch, struct pair, watch)->all;

	CST_ASSERT(events & EPOLLIN);
	all->called++;
	for (int i = 0; i < PAIRS; i++)
		cst_loop_unwatch(all->loop, &all->p[i].watch);
	/* Slots and descriptors are used again at once: stale events must not reach them. */
	for (int i = 0; i < PAIRS; i++) {
		all->p[i].watch.events = EPOLLOUT;
		CST_ASSERT(cst_loop_watch(all->loop, &all->p[i].watch) == 0);
		cst_loop_unwatch(all->loop, &all->p[i].watch);
	}
	sem_post(&all->end);
}

static void watch_all(void *arg)
{
	struct pairs *all = arg;

	for (int i = 0; i < PAIRS; i++) {
		all->p[i].watch.events = EPOLLIN;
		all->p[i].watch.fn = delete_all;
		CST_ASSERT(cst_loop_watch(all->loop, &all->p[i].watch) == 0);
	}
	for (int i = 0; i < PAIRS; i++)
		CST_ASSERT(write(all->p[i].other, "x", 1) == 1);
}

static void nothing(void *arg)
{
	(void)arg;
}

static void test_unwatch_inside_callback(void **state)
{
	struct pairs all = {.loop = cst_loop_new("t", NULL)};

	(void)state;
	sem_init(&all.end, 0, 0);
	for (int i = 0; i < PAIRS; i++) {
		int fds[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
		all.p[i].all = &all;
		all.p[i].watch.fd = fds[0];
		all.p[i].other = fds[1];
	}
	run_on(all.loop, watch_all, &all);
	sem_wait(&all.end);
	run_on(all.loop, nothing, NULL);
	run_on(all.loop, nothing, NULL);
	cst_loop_free(all.loop);
	assert_int_equal(all.called, 1);
	for (int i = 0; i < PAIRS; i++) {
		close(all.p[i].watch.fd);
		close(all.p[i].other);
	}
	sem_destroy(&all.end);
}

struct echo {
	struct cst_loop *loop;
	struct cst_watch watch;
	unsigned bytes;
	sem_t end;
};

static void echo_event(struct cst_watch *watch, uint32_t events)
{
	struct echo *e = cst_container_of(watch, struct echo, watch);
	char byte;

	if (events & EPOLLOUT) { /* asked for first; then only input matters */
		watch->events = EPOLLIN;
		CST_ASSERT(cst_loop_watch(e->loop, watch) == 0);
		return;
	}
	CST_ASSERT(read(watch->fd, &byte, 1) == 1); /* one of several: level triggered, so we are called again */
	if (++e->bytes == 3) {
		cst_loop_unwatch(e->loop, watch);
		sem_post(&e->end);
	}
}

static void echo_watch(void *arg)
{
	struct echo *e = arg;

	e->watch.events = EPOLLIN | EPOLLOUT;
	e->watch.fn = echo_event;
	CST_ASSERT(cst_loop_watch(e->loop, &e->watch) == 0);
}

static void watch_nothing(void *arg)
{
	struct echo *e = arg;
	struct cst_watch watch = {.fd = -1, .events = EPOLLIN, .fn = echo_event};

	CST_ASSERT(cst_loop_watch(e->loop, &watch) < 0 && watch.private_id == 0);
}

static void test_watch(void **state)
{
	struct echo e = {.loop = cst_loop_new("t", NULL)};
	int fds[2];

	(void)state;
	sem_init(&e.end, 0, 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	e.watch.fd = fds[0];
	run_on(e.loop, watch_nothing, &e);
	run_on(e.loop, echo_watch, &e);
	assert_int_equal(write(fds[1], "abc", 3), 3);
	sem_wait(&e.end);
	cst_loop_free(e.loop);
	close(fds[0]);
	close(fds[1]);
	sem_destroy(&e.end);
}

static void find_current(void *arg)
{
	struct cst_loop_group *group = arg;

	CST_ASSERT(cst_loop_group_current(group) == cst_loop_group_at(group, 1));
}

static void test_group(void **state)
{
	struct cst_loop_group *group = cst_loop_group_new("a-long-name-for-a-thread", 3, NULL);
	struct cst_loop_group *other = cst_loop_group_new("o", 1, NULL);
	struct cst_loop *first = cst_loop_group_next(group);

	(void)state;
	assert_int_equal(cst_loop_group_count(group), 3);
	assert_ptr_not_equal(cst_loop_group_next(group), first);
	assert_ptr_not_equal(cst_loop_group_next(group), first);
	assert_ptr_equal(cst_loop_group_next(group), first);
	assert_null(cst_loop_group_current(group));
	assert_false(cst_loop_is_current(first));
	run_on(cst_loop_group_at(group, 1), find_current, group);
	cst_loop_group_free(other);
	cst_loop_group_free(group);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timers),
		cmocka_unit_test(test_posts_from_threads),
		cmocka_unit_test(test_unwatch_inside_callback),
		cmocka_unit_test(test_watch),
		cmocka_unit_test(test_group),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
