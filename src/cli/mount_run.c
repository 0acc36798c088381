#define CST_LOG_AREA "mount"
#include "cli/mount_run.h"

#include "base/log.h"
#include "base/pool.h"
#include "base/text.h"
#include "cli/control.h"
#include "cli/daemon.h"
#include "cli/launch.h"
#include "cli/mount_keep.h"
#include "cli/mount_load.h"
#include "cli/mount_preload.h"
#include "cli/mount_refresh.h"
#include "cli/mount_stats.h"
#include "cli/mount_writes.h"
#include "cli/signals.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#define FINISH_MAX 60 /* s */

struct mount {
	struct cst_mount_plan *plan;
	const char *log_name;
	struct cst_link link;
	struct cst_fetch *fetch;
	struct cst_cache *cache;	 /* NULL: none was asked for */
	struct cst_mount_writes *writes; /* NULL: read-only */
	struct cst_fs *fs;
	struct cst_mount_loads *loads;
	struct cst_mount_refreshes *refreshes;
	struct cst_mount_preloads *preloads;
	struct cst_control *control;
	unsigned long signal_thread;
	pthread_mutex_t lock; /* fuse: between the main and the signal thread */
	struct cst_fuse *fuse;
	struct cst_keeper *keeper;
	struct cst_mount_identities identities;
	struct cst_mount_beats *beats;
	unsigned asked; /* to stop; the thread's that hears it */
	bool leaves;	/* atomic: another process goes on with the mount */
};

/* ---- signals ---- */

static void on_stop(void *arg)
{
	struct mount *m = arg;
	pthread_mutex_lock(&m->lock);
	/* The second one ends the wait for what is being published. */
	if (m->fuse && m->asked++ > 0)
		cst_mount_writes_give_up(m->writes);
	else if (m->fuse)
		cst_fuse_stop(m->fuse);
	/* Nothing is mounted, so nothing has to be undone, and a request under way may take long to end. The lock is kept, so that
	 * nothing will be. */
	if (!m->fuse)
		_exit(128 + SIGTERM);
	pthread_mutex_unlock(&m->lock);
}

static void on_leave(void *arg)
{
	struct mount *m = arg;
	pthread_mutex_lock(&m->lock);
	__atomic_store_n(&m->leaves, true, __ATOMIC_RELEASE);
	cst_fuse_leave(m->fuse);
	pthread_mutex_unlock(&m->lock);
}

static void *signal_main(void *arg)
{
	struct mount *m = arg;
	while (cst_signals_wait())
		/* Who keeps the mount ends it; should it be dead, nobody but us is left to. */
		if (cst_keeper_stop_wish(m->keeper) < 0)
			on_stop(m);
	return NULL;
}

/* A signal waits meanwhile: what is half mounted would stay behind. From then on the signal thread stops what is mounted. */
static bool mount_it(struct mount *m, const struct cst_fuse_config *config, struct cst_error *err)
{
	pthread_mutex_lock(&m->lock);
	m->fuse = cst_fuse_mount(config, err);
	bool mounted = m->fuse != NULL;
	pthread_mutex_unlock(&m->lock);
	return mounted;
}

/* ---- what the control socket answers ---- */

static struct cst_mount_view view_of(const struct mount *m)
{
	return (struct cst_mount_view){.plan = m->plan,
				       .log_name = m->log_name,
				       .link = &m->link,
				       .fetch = m->fetch,
				       .cache = m->cache,
				       .fs = m->fs,
				       .fuse = m->fuse,
				       .keeper = m->keeper,
				       .writes = m->writes,
				       .loads = m->loads};
}

static void write_stats(void *arg, struct cst_buf *out)
{
	struct cst_mount_view view = view_of(arg);
	cst_mount_stats_json(&view, out);
}

static void refresh_metrics(void *arg)
{
	struct cst_mount_view view = view_of(arg);
	cst_mount_stats_metrics(&view);
}

/* POST /upgrade, body: the path of a program. What came of it the statistics tell. */
static int answer_upgrade(struct mount *m, struct cst_slice body, struct cst_buf *json)
{
	CST_AUTO_FREE char *path = cst_xstrndup(body.data ? body.data : "", body.len);
	struct cst_error err = CST_ERROR_INIT;
	struct cst_fs_stats fs;
	cst_fs_stats(m->fs, &fs);
	int rc = 0;
	if (fs.open_writers > 0) {
		rc = cst_error_set(&err, EBUSY, "can't upgrade the mount");
		cst_error_why(&err, "%llu files are open for writing", (unsigned long long)fs.open_writers);
		cst_error_hint(&err, "try again when they are closed");
	} else {
		rc = cst_keeper_upgrade(m->keeper, path, &err);
	}
	if (rc == 0) {
		cst_buf_add_str(json, "{}\n");
		return 200;
	}
	cst_buf_add_str(json, "{\"error\": {\"what\": ");
	cst_text_json_string(json, cst_slice_of(err.what));
	cst_buf_add_str(json, ", \"why\": ");
	cst_text_json_string(json, cst_slice_of(err.why));
	cst_buf_add_str(json, ", \"hint\": ");
	cst_text_json_string(json, cst_slice_of(err.hint));
	cst_buf_add_str(json, "}}\n");
	return 409;
}

static int answer_request(void *arg, struct cst_slice method, struct cst_slice target, struct cst_slice body,
			  struct cst_buf *json)
{
	struct mount *m = arg;
	if (cst_slice_is(target, "/upgrade") && cst_slice_is(method, "POST"))
		return answer_upgrade(m, body, json);
	if (cst_mount_refreshes_is_target(target))
		return cst_mount_refreshes_request(m->refreshes, method, target, body, json);
	if (cst_mount_preloads_is_target(target))
		return cst_mount_preloads_request(m->preloads, method, target, body, json);
	if (cst_mount_writes_is_target(target))
		return cst_mount_writes_request(m->writes, method, target, json);
	return cst_mount_loads_request(m->loads, method, target, body, json);
}

/* ---- the layers, from the bottom up ---- */

static int attach(struct mount *m, struct cst_error *err)
{
	struct cst_fuse_config config;
	cst_mount_fuse_config(m->plan, &config);
	config.keeper = m->keeper;
	return mount_it(m, &config, err) ? 0 : -1;
}

static int make_file_system(struct mount *m, struct cst_error *err)
{
	const struct cst_mount_options *o = &m->plan->o;
	struct cst_fs_config config = {
		.bucket = m->link.bucket,
		.fetch = m->fetch,
		.cache = m->cache,
		.passthrough = o->passthrough && m->cache && !o->direct_io,
		.look_ahead = o->look_ahead,
		.path_probe = o->path_probe,
		.preload_walks = o->preload_metadata != CST_PRELOAD_NEVER,
		.prefix = m->plan->access.url.prefix,
		.attributes = o->attributes == 1 ? CST_FS_ATTRIBUTES_OBJECT : CST_FS_ATTRIBUTES_LIST,
		.uid = o->given.uid ? (uint32_t)o->uid : geteuid(),
		.gid = o->given.gid ? (uint32_t)o->gid : getegid(),
		.uid_given = o->given.uid,
		.gid_given = o->given.gid,
		.file_mode = o->file_mode,
		.dir_mode = o->dir_mode,
		.file_mode_given = o->given.file_mode,
		.dir_mode_given = o->given.dir_mode,
		.umask = o->umask,
		.umask_given = o->given.umask,
		.mountpoint_umask = o->mp_umask,
		.mountpoint_umask_given = o->given.mp_umask,
		.attr_ttl = o->attr_timeout,
		.entry_ttl = o->entry_timeout,
		.negative_ttl = o->negative_timeout,
		.list_ttl = o->list_timeout,
		.kernel_cache = o->kernel_cache,
		.auto_cache = o->auto_cache,
		.direct_io = o->direct_io,
		.list_memory = o->metadata_memory,
		.list_names = (uint64_t)o->max_stat_cache_size,
		.absent_ttl = o->oss_negative_cache_timeout,
		.absent_max = (uint64_t)o->oss_negative_cache_size,
		.kernel_list_ttl = o->kernel_readdir_cache_timeout,
		.readdirplus = o->readdirplus,
		.symlinks = o->symlinks,
		.write = m->plan->write,
		.publish = cst_mount_writes_publish(m->writes),
		.appendable = o->enable_appendable_object,
		.ignore_fsync = o->ignore_fsync,
		.rename_dir_limit = (uint64_t)o->rename_dir_limit,
	};
	cst_mount_identities_init(&m->identities, m->keeper);
	config.identities = &m->identities.memory;
	config.inherited = m->identities.inherited;
	config.inherited_count = m->identities.count;
	_Static_assert(CST_FS_REFUSED * sizeof(*config.refused) == CST_STATE_REFUSED, "they lie there");
	config.refused = (void *)cst_keeper_header(m->keeper)->refused;
	if (m->identities.count > 1)
		cst_log_info("%zu files and directories are known from before", m->identities.count - 1);
	CST_AUTO_FREE char *identity = NULL;
	CST_AUTO_FREE char *snapshot = cst_mount_snapshot_path(m->plan, &identity);
	config.snapshot_path = snapshot;
	config.snapshot_identity = identity;
	config.snapshot_age = o->metadata_snapshot_max_age;
	m->fs = cst_fs_new(&config, cst_fuse_host(m->fuse), err);
	cst_mount_identities_fini(&m->identities);
	return m->fs ? cst_fuse_start(m->fuse, m->fs, err) : -1;
}

static void start_control(struct mount *m)
{
	const struct cst_mount_options *o = &m->plan->o;
	CST_AUTO_FREE char *port =
		o->metrics_port > 0 ? cst_xasprintf("127.0.0.1:%lld", (long long)o->metrics_port) : NULL;
	struct cst_control_config config = {.mountpoint = m->plan->mountpoint,
					    .metrics_address = o->metrics_listen ? o->metrics_listen : port,
					    .stats = write_stats,
					    .metrics = refresh_metrics,
					    .request = answer_request,
					    .arg = m};
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	m->control = cst_control_start(&config, &err);
	if (!m->control)
		cst_log_warn("cistern stats won't work on this mount: %s", cst_error_text(&err, text, sizeof(text)));
}

/* "oss://bucket/prefix/": how the cache calls what this mount shows. */
static char *cache_prefix(const struct mount *m)
{
	const struct cst_url *url = &m->plan->access.url;
	return cst_xasprintf("%s://%s/%s", url->cloud == CST_CLOUD_S3 ? "s3" : "oss", url->bucket, url->prefix);
}

static void drop_cached(struct mount *m)
{
	CST_AUTO_FREE char *prefix = cache_prefix(m);
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	if (cst_cache_drop(m->cache, prefix, &err) < 0)
		cst_log_warn("del_cache: %s", cst_error_text(&err, text, sizeof(text)));
}

/* Where the origin's bandwidth is limited, a request holds up all others for as long as its bytes take: half a second or so. */
static unsigned range_size(const struct cst_mount_options *o)
{
	uint64_t most =
		o->origin_bandwidth ? cst_max((uint64_t)o->origin_bandwidth / 2, UINT64_C(1) << 20) : UINT64_MAX;
	return (unsigned)cst_min((uint64_t)o->range_size, most);
}

static int open_data(struct mount *m, struct cst_error *err)
{
	const struct cst_mount_options *o = &m->plan->o;
	struct cst_fetch_config fetch = {.bucket = m->link.bucket,
					 .memory = o->memory,
					 .keep_read = o->direct_io ? 0 : o->memory / 8, /* else the page cache has it */
					 .window_max = o->prefetch_window,
					 .range_size = range_size(o),
					 .max_prefetch = (unsigned)o->max_prefetch,
					 .prefetch = o->prefetch,
					 .stream_parallel = (unsigned)o->parallel_count,
					 .no_save = o->direct_read};
	m->fetch = cst_fetch_new(&fetch, err);
	if (!m->fetch)
		return -1;
	if (m->plan->cache.level_count == 0)
		return 0;
	char bucket[sizeof(m->plan->access.url.bucket) + 8];
	cst_url_bucket_text(&m->plan->access.url, bucket, sizeof(bucket));
	m->cache = cst_cache_choice_open(&m->plan->cache, bucket, (enum cst_cache_policy)o->cache_policy, o, err);
	if (m->cache && o->del_cache && !m->link.resumes)
		drop_cached(m);
	return m->cache ? 0 : -1;
}

static int open_link(struct mount *m, struct cst_error *err)
{
	struct cst_credential last = {0};
	m->link.resumes = cst_keeper_restarted(m->keeper);
	if (m->link.resumes && cst_launch_last_credential(cst_keeper_launch(m->keeper), &last))
		m->link.last = &last;
	int rc = cst_link_open(&m->link, &m->plan->access, &m->plan->o, err);
	m->link.last = NULL;
	cst_credential_wipe(&last);
	cst_access_forget_secrets(&m->plan->o);
	return rc;
}

static int listen_to_keeper(struct mount *m, struct cst_error *err)
{
	struct cst_keeper_ops ops = {on_stop, on_leave, m};
	return cst_keeper_start(m->keeper, &ops, err);
}

/* The process before this one has served until now. */
static int take_over(struct mount *m, struct cst_error *err)
{
	int rc = cst_keeper_stand_by(m->keeper, err);
	return rc ? rc : listen_to_keeper(m, err);
}

static int start(struct mount *m, struct cst_error *err)
{
	const struct cst_mount_options *o = &m->plan->o;
	int rc = open_link(m, err);
	if (rc == 0 && cst_keeper_stands_by(m->keeper))
		rc = take_over(m, err);
	if (rc != 0)
		return rc;
	rc = open_data(m, err);
	if (rc == 0)
		rc = cst_mount_writes_open(&m->writes, m->plan, m->link.bucket, err);
	if (rc != 0)
		return rc;
	rc = attach(m, err);
	if (rc == 0)
		rc = make_file_system(m, err);
	if (rc != 0)
		return rc;
	struct cst_mount_loads_config loads = {
		.bucket = m->link.bucket, .fetch = m->fetch, .cache = m->cache, .prefix = m->plan->access.url.prefix};
	m->loads = cst_mount_loads_new(&loads);
	m->refreshes = cst_mount_refreshes_new(m->fs);
	m->preloads = cst_mount_preloads_new(m->fs, o->preload_metadata == CST_PRELOAD_ALL);
	start_control(m);
	m->beats = cst_mount_beats_start(m->keeper, &m->link);
	return 0;
}

/* What is under way here is left as a kill would leave it, and the process that comes goes on from there. */
static _Noreturn void leave(struct mount *m)
{
	cst_log_info("process %d leaves %s to another one", (int)getpid(), m->plan->mountpoint);
	cst_control_stop(m->control);
	cst_keeper_leave(m->keeper);
	_exit(0);
}

static void tell_ready(const struct mount *m)
{
	if (cst_keeper_header(m->keeper)->background)
		cst_daemon_detach();
	cst_keeper_ready(m->keeper);
}

/* From the top down; what was not made is NULL. */
static void finish(struct mount *m)
{
	/* Nothing is mounted any more, so a layer that doesn't end must not keep the process. */
	alarm(FINISH_MAX);
	cst_control_stop(m->control);
	cst_mount_loads_free(m->loads);
	cst_mount_refreshes_free(m->refreshes);
	cst_mount_preloads_free(m->preloads);
	if (m->fuse)
		cst_fuse_drain(m->fuse);
	if (m->fs)
		cst_fs_free(m->fs);
	cst_fuse_free(m->fuse);
	cst_mount_writes_close(m->writes);
	if (m->cache)
		cst_cache_stop(m->cache);
	if (m->fetch)
		cst_fetch_free(m->fetch);
	if (m->cache && m->plan->o.del_cache)
		drop_cached(m);
	if (m->cache)
		cst_cache_free(m->cache);
	cst_mount_beats_stop(m->beats);
	cst_link_close(&m->link);
}

static void log_start(const struct mount *m)
{
	const struct cst_mount_plan *plan = m->plan;
	for (size_t i = 0; i < plan->set.warnings.count; i++)
		cst_log_warn("%s", plan->set.warnings.items[i]);
	for (size_t i = 0; i < plan->set.notes.count; i++)
		cst_log_info("%s", plan->set.notes.items[i]);
	cst_log_info("mounted %s on %s %s; store: %s; credentials: %s", plan->access.source, plan->mountpoint,
		     cst_mount_plan_mode(plan), cst_bucket_describe(m->link.bucket),
		     cst_credentials_source(m->link.credentials));
	if (!m->cache)
		return;
	struct cst_mount_view view = view_of(m);
	CST_AUTO_BUF levels = CST_BUF_INIT;
	CST_AUTO_BUF passthrough = CST_BUF_INIT;
	cst_cache_describe(m->cache, &levels);
	cst_mount_passthrough_text(&view, &passthrough);
	cst_log_info("cache: %s; passthrough: %s", levels.data ? levels.data : "", passthrough.data);
}

int cst_mount_run(struct cst_mount_plan *plan, const char *log_name, struct cst_keeper *keeper, struct cst_error *err)
{
	struct mount m = {.plan = plan, .log_name = log_name, .lock = PTHREAD_MUTEX_INITIALIZER, .keeper = keeper};
	cst_cli_raise_nofile();
	int rc = cst_thread_start(&m.signal_thread, "signals", 0, signal_main, &m);
	if (rc != 0) {
		cst_error_set(err, -rc, "can't start a thread");
		cst_error_why(err, "%s", strerror(-rc));
		return rc;
	}
	if (!cst_keeper_stands_by(keeper))
		rc = listen_to_keeper(&m, err);
	if (rc == 0)
		rc = start(&m, err);
	if (rc == 0) {
		log_start(&m);
		tell_ready(&m);
		cst_fuse_wait(m.fuse);
		if (__atomic_load_n(&m.leaves, __ATOMIC_ACQUIRE))
			leave(&m);
		cst_log_info("%s was unmounted", plan->mountpoint);
		cst_mount_writes_settle(m.writes, m.fs);
	} else if (m.fuse) {
		cst_fuse_stop(m.fuse);
		cst_fuse_wait(m.fuse);
	}
	cst_keeper_silence(keeper);
	cst_signals_wake(m.signal_thread);
	pthread_join(m.signal_thread, NULL);
	finish(&m);
	return rc == 0 ? 0 : err->code ? -err->code : -EIO;
}
