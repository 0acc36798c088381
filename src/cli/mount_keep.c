#define CST_LOG_AREA "mount"
#include "cli/mount_keep.h"

#include "base/log.h"
#include "cli/access.h"
#include "cli/cli.h"
#include "cli/launch.h"
#include "cli/mount_run.h"
#include "cli/mount_writes.h"
#include "cli/signals.h"
#include "fuse/device.h"
#include "fuse/mountpoint.h"
#include "net/loop.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>

static unsigned long mount_flags(const struct cst_mount_options *o, bool said_read_only)
{
	return (said_read_only ? MS_RDONLY : 0) | (o->nosuid ? MS_NOSUID : 0) | (o->nodev ? MS_NODEV : 0) |
	       (o->noexec ? MS_NOEXEC : 0) | (o->noatime ? MS_NOATIME : 0) | (o->nodiratime ? MS_NODIRATIME : 0) |
	       (o->sync ? MS_SYNCHRONOUS : 0) | (o->dirsync ? MS_DIRSYNC : 0);
}

void cst_mount_fuse_config(const struct cst_mount_plan *plan, struct cst_fuse_config *config)
{
	const struct cst_mount_options *o = &plan->o;
	bool cached = plan->cache.level_count > 0;
	*config = (struct cst_fuse_config){
		.mountpoint = plan->mountpoint,
		.fsname = o->fsname ? o->fsname : plan->access.source,
		.subtype = o->subtype ? o->subtype : "cistern",
		.allow_other = o->allow_other,
		.allow_root = o->allow_root,
		.default_permissions = o->default_permissions,
		.nonempty = o->nonempty,
		.auto_cache = o->auto_cache,
		.mount_flags = mount_flags(o, plan->said_read_only),
		.threads = (unsigned)o->threads,
		.max_background = (unsigned)o->max_background,
		.memory = o->memory,
		.passthrough = o->passthrough && cached && !o->direct_io,
		.backing_dir = cached ? plan->cache.levels[0].paths[0].path : NULL,
		.max_read = (uint32_t)o->max_read,
		.max_write = cst_mount_writes_max_write(plan),
		.read_ahead_kb = (uint32_t)o->read_ahead_kb,
		.readdirplus = o->readdirplus,
	};
}

/* ---- the supervisor ---- */

struct keeping {
	const struct cst_mount_plan *plan; /* NULL: it is mounted already */
	struct cst_daemon *daemon;
};

static int keep_mount(void *arg, struct cst_state_header *h, struct cst_error *err)
{
	struct keeping *k = arg;
	struct cst_fuse_mountpoint where = {0};
	struct cst_fuse_config config;
	if (!k->plan)
		return cst_error_set(err, EINVAL, "it is mounted already");
	cst_mount_fuse_config(k->plan, &config);
	int fd = cst_fuse_mount_device(&config, &where, err);
	if (fd < 0)
		return fd;
	h->major = where.major;
	h->minor = where.minor;
	h->owner_uid = geteuid();
	snprintf(h->mountpoint, sizeof(h->mountpoint), "%s", where.path);
	free(where.path);
	return fd;
}

static int keep_unmount(void *arg, const struct cst_state_header *h)
{
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	CST_AUTO_FREE char *path = cst_xstrdup(h->mountpoint);
	struct cst_fuse_mountpoint where = {path, h->major, h->minor, h->mounted != 0};
	(void)arg;
	int rc = cst_fuse_mountpoint_unmount(&where, &err);
	if (rc < 0 && err.code)
		cst_log_warn("%s", cst_error_text(&err, text, sizeof(text)));
	return rc;
}

static void keep_backing_close(int device, int backing)
{
	(void)cst_fuse_device_backing_close(device, backing);
}

static void keep_ready(void *arg)
{
	struct keeping *k = arg;
	if (k->daemon)
		cst_daemon_ready(k->daemon);
}

static void fill_ops(struct cst_supervisor_ops *ops, struct keeping *k)
{
	*ops = (struct cst_supervisor_ops){.mount = keep_mount,
					   .unmount = keep_unmount,
					   .clone = cst_fuse_device_clone,
					   .backing_open = cst_fuse_device_backing_open,
					   .backing_close = keep_backing_close,
					   .ready = keep_ready,
					   .arg = k};
}

static void fill_header(struct cst_state_header *h, const struct cst_mount_plan *plan, const char *log_path,
			const struct cst_daemon *daemon)
{
	h->generation = (uint64_t)(cst_wall() / CST_NS_PER_S) & UINT32_MAX;
	h->hang_timeout = plan->o.hang_timeout;
	h->background = daemon->fd >= 0;
	h->log_level = (uint32_t)cst_log_level_now;
	h->log_json = plan->o.log_format == 1;
	if (!log_path)
		return;
	/* The process that serves, or a later supervisor, may start in another directory. */
	CST_AUTO_FREE char *real = realpath(log_path, NULL);
	snprintf(h->log_path, sizeof(h->log_path), "%s", real ? real : log_path);
}

int cst_mount_keep(const struct cst_mount_plan *plan, int launch, const char *log_path, struct cst_daemon *daemon,
		   struct cst_error *err)
{
	struct keeping k = {plan, daemon};
	CST_AUTO_CLOSE int memory = cst_state_make(err);
	if (memory < 0)
		return memory;
	struct cst_state *state = cst_state_open(memory, false, err);
	if (!state)
		return -EIO;
	fill_header(cst_state_header(state), plan, log_path, daemon);
	cst_state_close(state);
	struct cst_supervisor_config config = {.mountpoint = plan->mountpoint, .launch = launch, .memory = memory};
	fill_ops(&config.ops, &k);
	return cst_supervisor_run(&config, err);
}

static int keep_again(void)
{
	struct keeping k = {NULL, NULL};
	struct cst_supervisor_ops ops;
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	fill_ops(&ops, &k);
	if (cst_supervisor_adopt(&ops, &err) == 0)
		return CST_EXIT_OK;
	cst_log_error("%s", cst_error_text(&err, text, sizeof(text)));
	return CST_EXIT_FAILED;
}

/* ---- the process that serves ---- */

static void open_the_log(const struct cst_state_header *h)
{
	struct cst_log_config log = {.level = (enum cst_log_level)h->log_level,
				     .json = h->log_json != 0,
				     .path = h->log_path[0] ? h->log_path : NULL};
	(void)cst_log_init(&log, NULL);
}

/* A terminal sends it to the supervisor too, which is the one to act on it. */
static void leave_sigint_alone(void)
{
	sigset_t set;
	signal(SIGINT, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static int serve(void)
{
	struct cst_error err = CST_ERROR_INIT;
	struct cst_mount_plan plan;
	CST_AUTO_FREE char *log_name = NULL;
	struct cst_keeper *keeper = cst_keeper_connect(&err);
	if (!keeper)
		return CST_EXIT_FAILED;
	open_the_log(cst_keeper_header(keeper));
	cst_signals_block();
	leave_sigint_alone();
	int rc = cst_launch_plan(cst_keeper_launch(keeper), &plan, &log_name, &err);
	if (rc == 0) {
		if (cst_keeper_header(keeper)->background)
			(void)!chdir("/");
		rc = cst_mount_run(&plan, log_name, keeper, &err);
	}
	if (rc != 0)
		cst_keeper_failed(keeper, &err);
	cst_mount_plan_fini(&plan);
	cst_keeper_free(keeper);
	return rc == 0 ? CST_EXIT_OK : CST_EXIT_FAILED;
}

bool cst_mount_keep_main(int argc, char **argv, int *status)
{
	if (argc != 3 || strcmp(argv[0], CST_KEEPER_ARGV0) != 0)
		return false;
	prctl(PR_SET_NAME, "cistern");
	if (strcmp(argv[1], CST_KEEPER_SERVES) == 0)
		*status = serve();
	else if (strcmp(argv[1], CST_KEEPER_KEEPS) == 0)
		*status = keep_again();
	else
		return false;
	return true;
}

/* ---- identities ---- */

static void *id_alloc(void *arg, size_t size)
{
	return cst_state_alloc(arg, CST_STATE_IDENTITY, size);
}

static void id_commit(void *arg, struct cst_identity *id)
{
	cst_state_commit(arg, id);
}

static void id_free(void *arg, struct cst_identity *id, size_t size)
{
	(void)size;
	cst_state_free(arg, id);
}

struct heir {
	struct cst_identity *id;
	uint64_t sequence;
};
struct heirs {
	struct heir *all;
	size_t count, room;
};

static void inherit(void *arg, void *record, size_t room, uint64_t sequence)
{
	struct heirs *h = arg;
	CST_ASSERT(room >= sizeof(struct cst_identity));
	if (h->count == h->room) {
		h->room = h->room ? h->room * 2 : 1024;
		h->all = cst_xrealloc(h->all, h->room * sizeof(*h->all));
	}
	h->all[h->count++] = (struct heir){record, sequence};
}

static int by_sequence(const void *a, const void *b)
{
	const struct heir *x = a, *y = b;
	return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

void cst_mount_identities_init(struct cst_mount_identities *ids, struct cst_keeper *keeper)
{
	struct cst_state *state = cst_keeper_state(keeper);
	struct cst_state_header *h = cst_keeper_header(keeper);
	struct heirs heirs = {0};
	*ids = (struct cst_mount_identities){
		.memory = {id_alloc, id_commit, id_free, state, &h->next_node, h->generation}};
	cst_state_each(state, CST_STATE_IDENTITY, inherit, &heirs);
	if (heirs.count > 0)
		qsort(heirs.all, heirs.count, sizeof(*heirs.all), by_sequence);
	ids->inherited = cst_xcalloc(heirs.count + 1, sizeof(struct cst_identity *));
	for (size_t i = 0; i < heirs.count; i++)
		ids->inherited[i] = heirs.all[i].id;
	ids->count = heirs.count;
	free(heirs.all);
}

void cst_mount_identities_fini(struct cst_mount_identities *ids)
{
	free(ids->inherited);
	ids->inherited = NULL;
	ids->count = 0;
}

/* ---- signs of life ---- */

struct loop_beat {
	struct cst_mount_beats *beats;
	struct cst_loop *loop;
	struct cst_beat *beat;
	struct cst_timer timer;
	struct cst_task begin, end;
};

struct cst_mount_beats {
	struct cst_credentials *credentials;
	int launch;
	int64_t every;	     /* ns */
	uint64_t generation; /* of the credential that is saved; the first loop's */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned ending; /* under lock: loops that have not stopped yet */
	unsigned count;
	struct loop_beat loops[];
};

static void save_credential(struct cst_mount_beats *b)
{
	struct cst_credential credential;
	if (cst_credentials_anonymous(b->credentials) || cst_credentials_generation(b->credentials) == b->generation)
		return;
	cst_credentials_get(b->credentials, &credential);
	b->generation = credential.generation;
	cst_launch_save_credential(b->launch, &credential);
	cst_credential_wipe(&credential);
}

static void tick(struct cst_timer *timer)
{
	struct loop_beat *l = cst_container_of(timer, struct loop_beat, timer);
	int64_t now = cst_now();
	if (l->beat)
		cst_beat_set(l->beat, now);
	if (l == l->beats->loops)
		save_credential(l->beats);
	cst_timer_arm(l->loop, timer, now + l->beats->every);
}

static void begin(struct cst_task *task)
{
	struct loop_beat *l = cst_container_of(task, struct loop_beat, begin);
	tick(&l->timer);
}

static void end(struct cst_task *task)
{
	struct loop_beat *l = cst_container_of(task, struct loop_beat, end);
	struct cst_mount_beats *b = l->beats;
	cst_timer_cancel(l->loop, &l->timer);
	/* What ends may take long, and nobody waits for it. */
	if (l->beat)
		__atomic_store_n(&l->beat->kind, CST_BEAT_WORKS, __ATOMIC_RELAXED);
	if (l->beat)
		cst_beat_set(l->beat, 0);
	pthread_mutex_lock(&b->lock);
	b->ending--;
	pthread_cond_signal(&b->changed);
	pthread_mutex_unlock(&b->lock);
}

struct cst_mount_beats *cst_mount_beats_start(struct cst_keeper *keeper, const struct cst_link *link)
{
	struct cst_state_header *h = cst_keeper_header(keeper);
	unsigned count = cst_loop_group_count(link->loops);
	struct cst_mount_beats *b = cst_xcalloc(1, sizeof(*b) + count * sizeof(b->loops[0]));
	b->credentials = link->credentials;
	b->launch = cst_keeper_launch(keeper);
	b->every = cst_max(cst_min(h->hang_timeout / 8, CST_NS_PER_S), 10 * CST_NS_PER_MS);
	b->count = count;
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->changed, NULL);
	for (unsigned i = 0; i < count; i++) {
		struct loop_beat *l = &b->loops[i];
		char name[16];
		snprintf(name, sizeof(name), "data/%u", i);
		l->beats = b;
		l->loop = cst_loop_group_at(link->loops, i);
		l->beat = cst_beat_take(h, CST_BEAT_TICKS, name);
		l->timer.fn = tick;
		l->begin.fn = begin;
		l->end.fn = end;
		cst_loop_post(l->loop, &l->begin);
	}
	return b;
}

void cst_mount_beats_stop(struct cst_mount_beats *b)
{
	if (!b)
		return;
	pthread_mutex_lock(&b->lock);
	b->ending = b->count;
	pthread_mutex_unlock(&b->lock);
	for (unsigned i = 0; i < b->count; i++)
		cst_loop_post(b->loops[i].loop, &b->loops[i].end);
	pthread_mutex_lock(&b->lock);
	while (b->ending > 0)
		pthread_cond_wait(&b->changed, &b->lock);
	pthread_mutex_unlock(&b->lock);
	pthread_cond_destroy(&b->changed);
	pthread_mutex_destroy(&b->lock);
	free(b);
}
