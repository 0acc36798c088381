#define CST_LOG_AREA "mount"
#include "cli/mount_run.h"

#include "base/log.h"
#include "base/pool.h"
#include "base/text.h"
#include "cli/control.h"
#include "cli/signals.h"
#include "fetch/fetch.h"
#include "fs/fs.h"
#include "fuse/fuse.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#define FINISH_MAX 60 /* s */
#define LOOPS_MAX 4   /* two already fill 10 Gbit/s; more would only divide the connections */

struct mount {
	struct cst_mount_plan *plan;
	const char *log_name;
	int64_t started; /* cst_now() */
	struct cst_loop_group *loops;
	struct cst_http_client *http;
	struct cst_credentials *credentials;
	struct cst_bucket *bucket;
	struct cst_fetch *fetch;
	struct cst_fs *fs;
	struct cst_control *control;
	unsigned long signal_thread;
	pthread_mutex_t lock; /* fuse: between the main and the signal thread */
	struct cst_fuse *fuse;
};

/* ---- signals ---- */

static void *signal_main(void *arg)
{
	struct mount *m = arg;
	while (cst_signals_wait()) {
		pthread_mutex_lock(&m->lock);
		bool mounted = m->fuse != NULL;
		if (mounted)
			cst_fuse_stop(m->fuse);
		/* Nothing is mounted, so nothing has to be undone, and a request under way may take long to end. The lock is kept, so that
		 * nothing will be. */
		if (!mounted)
			_exit(128 + SIGTERM);
		pthread_mutex_unlock(&m->lock);
	}
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

/* ---- statistics ---- */

static void add_text(struct cst_buf *out, const char *name, const char *value)
{
	cst_buf_printf(out, "\"%s\": ", name);
	cst_text_json_string(out, cst_slice_of(value ? value : ""));
}

struct field {
	const char *name;
	uint64_t value;
};

static void add_fields(struct cst_buf *out, const char *title, const struct field *fields, size_t count)
{
	cst_buf_printf(out, ", \"%s\": {", title);
	for (size_t i = 0; i < count; i++)
		cst_buf_printf(out, "%s\"%s\": %llu", i ? ", " : "", fields[i].name,
			       (unsigned long long)fields[i].value);
	cst_buf_add_char(out, '}');
}
#define ADD_FIELDS(out, title, ...)                                    \
	do {                                                           \
		const struct field list[] = {__VA_ARGS__};             \
		add_fields((out), (title), list, CST_ARRAY_LEN(list)); \
	} while (0)

static void add_layers(struct mount *m, struct cst_buf *out)
{
	struct cst_fuse_stats fuse = {0};
	struct cst_fs_stats fs = {0};
	struct cst_fetch_stats fetch = {0};
	struct cst_bucket_stats bucket = {0};
	struct cst_http_client_stats http = {0};
	cst_fuse_stats(m->fuse, &fuse);
	cst_fs_stats(m->fs, &fs);
	cst_fetch_stats(m->fetch, &fetch);
	cst_bucket_stats(m->bucket, &bucket);
	cst_http_client_stats(m->http, &http);
	ADD_FIELDS(out, "kernel", {"protocol_major", fuse.kernel_major}, {"protocol_minor", fuse.kernel_minor},
		   {"max_background", fuse.max_background}, {"max_write", fuse.max_write},
		   {"read_ahead_kb", fuse.read_ahead_kb}, {"requests", fuse.requests}, {"in_flight", fuse.in_flight},
		   {"interrupts", fuse.interrupts});
	ADD_FIELDS(out, "files", {"inodes", fs.inodes}, {"open_files", fs.open_files}, {"open_dirs", fs.open_dirs},
		   {"cached_dirs", fs.cached_dirs}, {"skipped_names", fs.skipped_names}, {"lookups", fs.lookups},
		   {"lookups_local", fs.lookups_local}, {"reads", fs.reads}, {"bytes_read", fs.bytes_read});
	ADD_FIELDS(out, "data", {"memory_limit", fetch.memory_limit}, {"memory_used", fetch.memory_used},
		   {"memory_peak", fetch.memory_peak}, {"bytes_read", fetch.bytes_read},
		   {"bytes_fetched", fetch.bytes_fetched}, {"hits", fetch.hits}, {"misses", fetch.misses},
		   {"prefetched_ranges", fetch.prefetched_ranges}, {"waits_for_memory", fetch.waits_for_memory},
		   {"requests_in_flight", fetch.requests_in_flight}, {"reads_waiting", fetch.reads_waiting});
	ADD_FIELDS(out, "requests", {"get", bucket.get}, {"head", bucket.head}, {"list", bucket.list},
		   {"symlink", bucket.symlink}, {"retries", bucket.retries}, {"throttled", bucket.throttled},
		   {"bytes_in", bucket.bytes_in});
	ADD_FIELDS(out, "connections", {"opened", http.connects}, {"tls_handshakes", http.tls_handshakes},
		   {"calls", http.calls}, {"reused", http.reused}, {"open", http.open}, {"idle", http.idle},
		   {"waiting", http.waiting});
}

static void write_stats(void *arg, struct cst_buf *out)
{
	struct mount *m = arg;
	cst_buf_add_str(out, "{");
	add_text(out, "mountpoint", m->plan->mountpoint);
	cst_buf_add_str(out, ", ");
	add_text(out, "source", m->plan->source);
	cst_buf_add_str(out, ", ");
	add_text(out, "store", cst_bucket_describe(m->bucket));
	cst_buf_add_str(out, ", ");
	add_text(out, "credentials", cst_credentials_source(m->credentials));
	cst_buf_add_str(out, ", ");
	add_text(out, "mode", "read-only");
	cst_buf_add_str(out, ", ");
	add_text(out, "version", CST_VERSION);
	cst_buf_add_str(out, ", ");
	add_text(out, "log", m->log_name);
	cst_buf_printf(out, ", \"pid\": %ld, \"uptime_s\": %lld", (long)getpid(),
		       (long long)((cst_now() - m->started) / CST_NS_PER_S));
	add_layers(m, out);
	cst_buf_add_str(out, "}\n");
}

/* ---- the layers, from the bottom up ---- */

static int open_bucket(struct mount *m, struct cst_error *err)
{
	const struct cst_mount_options *o = &m->plan->o;
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	m->loops = cst_loop_group_new("data", cores < 1 ? 1 : (unsigned)cst_min(cores, (long)LOOPS_MAX), err);
	if (!m->loops)
		return -1;
	struct cst_http_client_config http = {.loops = m->loops,
					      .ca_file = o->ca,
					      .max_connections = (unsigned)o->max_connections,
					      .connect_timeout = o->connect_timeout,
					      .use_proxy_env = true};
	m->http = cst_http_client_new(&http, err);
	if (!m->http)
		return -1;
	struct cst_credentials_config credentials = {
		.cloud = m->plan->url.cloud,
		.bucket = m->plan->url.bucket,
		.anonymous = o->anonymous,
		.access_key = o->access_key_id,
		.secret_key = o->access_key_secret,
		.token = o->security_token,
		.passwd_file = o->passwd_file,
		.secret_dir = o->secret_dir,
		.process = o->credential_process,
		.ram_role = o->ram_role,
		.role_arn = o->role_arn,
		.oidc_provider_arn = o->oidc_provider_arn,
		.oidc_token_file = o->oidc_token_file,
		.sts_endpoint = o->sts_endpoint,
		.ossutil_config = o->ossutil_config,
		.profile = o->profile,
		.ca_file = o->ca,
		.metadata_endpoint = o->metadata_endpoint,
	};
	m->credentials = cst_credentials_new(&credentials, err);
	cst_mount_plan_forget_secrets(m->plan);
	if (!m->credentials)
		return -1;
	struct cst_bucket_config bucket = {
		.cloud = m->plan->url.cloud,
		.bucket = m->plan->url.bucket,
		.endpoint = m->plan->endpoint,
		.region = o->region && o->region[0] ? o->region : NULL,
		.sign = m->plan->sign,
		.addressing = m->plan->addressing,
		.credentials = m->credentials,
		.http = m->http,
		.request_timeout = o->request_timeout,
		.deadline = o->deadline,
		.max_attempts = o->given.retries ? (unsigned)o->retries + 1 : 0,
	};
	m->bucket = cst_bucket_new(&bucket, err);
	return m->bucket ? cst_bucket_probe(m->bucket, cst_slice_of(m->plan->url.prefix), err) : -1;
}

static unsigned long mount_flags(const struct cst_mount_options *o)
{
	return MS_RDONLY | (o->nosuid ? MS_NOSUID : 0) | (o->nodev ? MS_NODEV : 0) | (o->noexec ? MS_NOEXEC : 0) |
	       (o->noatime ? MS_NOATIME : 0) | (o->nodiratime ? MS_NODIRATIME : 0) | (o->sync ? MS_SYNCHRONOUS : 0) |
	       (o->dirsync ? MS_DIRSYNC : 0);
}

static int attach(struct mount *m, struct cst_error *err)
{
	const struct cst_mount_options *o = &m->plan->o;
	struct cst_fuse_config config = {
		.mountpoint = m->plan->mountpoint,
		.fsname = o->fsname ? o->fsname : m->plan->source,
		.subtype = o->subtype ? o->subtype : "cistern",
		.allow_other = o->allow_other,
		.allow_root = o->allow_root,
		.default_permissions = o->default_permissions,
		.nonempty = o->nonempty,
		.auto_cache = o->auto_cache,
		.mount_flags = mount_flags(o),
		.threads = (unsigned)o->threads,
		.max_background = (unsigned)o->max_background,
		.memory = o->memory,
		.max_read = (uint32_t)o->max_read,
		.read_ahead_kb = (uint32_t)o->read_ahead_kb,
		.readdirplus = o->readdirplus,
	};
	return mount_it(m, &config, err) ? 0 : -1;
}

static int make_file_system(struct mount *m, struct cst_error *err)
{
	const struct cst_mount_options *o = &m->plan->o;
	struct cst_fs_config config = {
		.bucket = m->bucket,
		.fetch = m->fetch,
		.prefix = m->plan->url.prefix,
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
		.cache_dirs = o->kernel_readdir_cache_timeout > 0,
		.readdirplus = o->readdirplus,
		.symlinks = o->symlinks,
		.read_only = true,
	};
	m->fs = cst_fs_new(&config, cst_fuse_host(m->fuse), err);
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
					    .arg = m};
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	m->control = cst_control_start(&config, &err);
	if (!m->control)
		cst_log_warn("cistern stats won't work on this mount: %s", cst_error_text(&err, text, sizeof(text)));
}

static int start(struct mount *m, struct cst_error *err)
{
	const struct cst_mount_options *o = &m->plan->o;
	int rc = open_bucket(m, err);
	if (rc != 0)
		return rc;
	struct cst_fetch_config fetch = {.bucket = m->bucket,
					 .memory = o->memory,
					 .window_max = o->prefetch_window,
					 .range_size = (unsigned)o->range_size,
					 .max_prefetch = (unsigned)o->max_prefetch,
					 .prefetch = o->prefetch};
	m->fetch = cst_fetch_new(&fetch, err);
	if (!m->fetch)
		return -1;
	rc = attach(m, err);
	if (rc == 0)
		rc = make_file_system(m, err);
	if (rc == 0)
		start_control(m);
	return rc;
}

/* From the top down; what was not made is NULL. */
static void finish(struct mount *m)
{
	/* Nothing is mounted any more, so a layer that doesn't end must not keep the process. */
	alarm(FINISH_MAX);
	cst_control_stop(m->control);
	if (m->fuse)
		cst_fuse_free(m->fuse);
	if (m->fs)
		cst_fs_free(m->fs);
	if (m->fetch)
		cst_fetch_free(m->fetch);
	if (m->bucket)
		cst_bucket_free(m->bucket);
	if (m->http)
		cst_http_client_free(m->http);
	if (m->credentials)
		cst_credentials_free(m->credentials);
	if (m->loops)
		cst_loop_group_free(m->loops);
}

static void log_start(const struct mount *m)
{
	const struct cst_mount_plan *plan = m->plan;
	for (size_t i = 0; i < plan->set.warnings.count; i++)
		cst_log_warn("%s", plan->set.warnings.items[i]);
	for (size_t i = 0; i < plan->set.notes.count; i++)
		cst_log_info("%s", plan->set.notes.items[i]);
	cst_log_info("mounted %s on %s read-only; store: %s; credentials: %s", plan->source, plan->mountpoint,
		     cst_bucket_describe(m->bucket), cst_credentials_source(m->credentials));
}

int cst_mount_run(struct cst_mount_plan *plan, const char *log_name, const struct cst_mount_ready *ready,
		  struct cst_error *err)
{
	struct mount m = {.plan = plan, .log_name = log_name, .started = cst_now(), .lock = PTHREAD_MUTEX_INITIALIZER};
	int rc = cst_thread_start(&m.signal_thread, "signals", 0, signal_main, &m);
	if (rc != 0) {
		cst_error_set(err, -rc, "can't start a thread");
		cst_error_why(err, "%s", strerror(-rc));
		return rc;
	}
	rc = start(&m, err);
	if (rc == 0) {
		log_start(&m);
		ready->fn(ready->arg);
		cst_fuse_wait(m.fuse);
		cst_log_info("%s was unmounted", plan->mountpoint);
	} else if (m.fuse) {
		cst_fuse_stop(m.fuse);
		cst_fuse_wait(m.fuse);
	}
	cst_signals_wake(m.signal_thread);
	pthread_join(m.signal_thread, NULL);
	finish(&m);
	return rc == 0 ? 0 : err->code ? -err->code : -EIO;
}
