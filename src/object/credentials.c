/* The credentials object: choice of the provider, the current credential, the refresh thread.
 *
 * Life: cst_credentials_new() fetches on the caller's thread; if the source can change, the refresh thread starts and owns the
 * provider from then on. The lock guards `current`, the waiters and what holds them back; it is held for copies only, never
 * over a fetch, so readers don't wait for a source. Waiters of cst_credentials_renew() are taken as one batch before a fetch and answered
 * after it; those who came during the fetch are answered if it changed the credential, else they are the next batch (the
 * fetch may have read the source before it was rotated). */
#define CST_LOG_AREA "credentials"
#include "object/credentials_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/pool.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

#define CREDENTIALS_MAGIC 0x43524544u
#define FETCH_TIMEOUT (10 * CST_NS_PER_S)
#define MARGIN_S 300
#define BACKOFF_FIRST CST_NS_PER_S
#define BACKOFF_LAST (60 * CST_NS_PER_S)
#define COSTLY_PAUSE (10 * CST_NS_PER_S)
/* A tool that rewrites several files is let finish first. */
#define QUIET (100 * CST_NS_PER_MS)
#define QUIET_LIMIT (2 * CST_NS_PER_S)

struct waiter {
	struct waiter *next;
	uint64_t generation;
	void (*done)(void *arg, int rc);
	void *arg;
};

struct cst_credentials {
	unsigned magic;
	char source[512];
	bool anonymous, constant;

	pthread_mutex_t lock;
	struct cst_credential *current; /* secret memory */
	struct waiter *waiters;
	int64_t hold_until; /* cst_now(): a costly source that gave nothing new is not asked on demand before; 0: it may be */
	int hold_rc;	    /* what renewals are answered until then */
	bool ended;	    /* cst_credentials_free() has begun */

	/* The refresh thread's own. */
	struct cst_cred_provider *provider;
	struct cst_credential *scratch; /* secret memory */
	struct cst_cred_watch *watch;
	int64_t due;	    /* wall clock, ns; 0: no renewal planned */
	int64_t next_poll;  /* cst_now() */
	int64_t quiet_at;   /* cst_now(); files changed and are read then; 0: they didn't */
	int64_t quiet_from; /* cst_now() of the first of those changes */
	unsigned failures;
	struct cst_log_limit failure_log;
	unsigned seed;

	int wake; /* eventfd */
	int stop;
	bool running;
	unsigned long thread;
	struct cst_metric *renewed, *failed, *expiry;
};

/* ---- choosing ---- */

static bool given(const char *s)
{
	return s && *s;
}

static int nothing_found(const struct cst_credentials_config *config, struct cst_error *err)
{
	bool s3 = config->cloud == CST_CLOUD_S3;
	cst_error_set(err, ENOKEY, "can't find credentials");
	if (s3) {
		cst_error_why(err, "AWS_ACCESS_KEY_ID is not set, and ~/.aws/credentials and ~/.aws/config hold none");
		cst_error_hint(
			err,
			"run aws configure, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use --anonymous for a public "
			"bucket");
		return -ENOKEY;
	}
	cst_error_why(
		err,
		"OSS_ACCESS_KEY_ID is not set, this is no pod with RRSA, and neither ~/.ossutilconfig nor ~/.passwd-ossfs nor "
		"/etc/passwd-ossfs holds any");
	cst_error_hint(
		err,
		"write BUCKET:ID:SECRET to ~/.passwd-ossfs (mode 600), run ossutil config, set OSS_ACCESS_KEY_ID and "
		"OSS_ACCESS_KEY_SECRET, give -o ram_role=NAME on ECS, or use --anonymous for a public bucket");
	return -ENOKEY;
}

static int choose_chain(const struct cst_credentials_config *config, struct cst_cred_provider **out,
			struct cst_error *err)
{
	int rc = cst_cred_env_new(config, out, err);
	if (rc == -ENODATA && config->cloud == CST_CLOUD_OSS)
		rc = cst_cred_oidc_new(config, out, err);
	if (rc == -ENODATA)
		rc = cst_cred_profile_new(config, out, err);
	if (rc == -ENODATA && config->cloud == CST_CLOUD_OSS)
		rc = cst_cred_passwd_new(config, NULL, out, err);
	return rc == -ENODATA ? nothing_found(config, err) : rc;
}

static int choose(const struct cst_credentials_config *config, struct cst_cred_provider **out, struct cst_error *err)
{
	if (config->anonymous)
		return cst_cred_anonymous_new(out);
	if (given(config->access_key) || given(config->secret_key))
		return cst_cred_static_new(config, out, err);
	if (given(config->passwd_file))
		return cst_cred_passwd_new(config, config->passwd_file, out, err);
	if (given(config->secret_dir))
		return cst_cred_dir_new(config->secret_dir, out, err);
	if (given(config->process))
		return cst_cred_process_new(config->process, out, err);
	if (config->ram_role)
		return cst_cred_metadata_new(config, config->ram_role, out, err);
	if (given(config->role_arn) || given(config->oidc_provider_arn) || given(config->oidc_token_file))
		return cst_cred_oidc_new(config, out, err);
	if (given(config->ossutil_config) || given(config->profile))
		return cst_cred_profile_new(config, out, err);
	return choose_chain(config, out, err);
}

/* ---- fetching ---- */

static bool same_keys(const struct cst_credential *a, const struct cst_credential *b)
{
	return strcmp(a->access_key, b->access_key) == 0 && strcmp(a->secret_key, b->secret_key) == 0 &&
	       strcmp(a->token, b->token) == 0;
}

/* Into c->scratch, checked. */
static int fetch(struct cst_credentials *c, struct cst_error *err)
{
	struct cst_cred_call call = {.deadline = cst_now() + FETCH_TIMEOUT, .stop = &c->stop};
	cst_credential_wipe(c->scratch);
	int rc = c->provider->ops->fetch(c->provider, &call, c->scratch, err);
	int64_t now = cst_wall() / CST_NS_PER_S;
	if (rc == 0 && c->scratch->expires != 0 && c->scratch->expires <= now) {
		char when[CST_TIME_TEXT];
		cst_time_iso(c->scratch->expires, when);
		rc = cst_error_set(err, EKEYEXPIRED, "can't use the credentials of %s", c->provider->source);
		cst_error_why(err, "they expired at %s", when);
		cst_error_hint(err, "renew them at their source; if they are new, check this machine's clock");
	}
	return rc;
}

/* When to ask again. The margin covers slow sources and clocks that are off; a short life gives half of itself. */
static void plan(struct cst_credentials *c, int64_t expires)
{
	if (expires == 0) {
		c->due = 0;
		return;
	}
	int64_t now = cst_wall();
	int64_t left = expires * CST_NS_PER_S - now;
	int64_t margin = cst_min(left / 2, MARGIN_S * CST_NS_PER_S);
	/* Below a second the halves would become a busy loop. */
	c->due = now + cst_max(left - margin, CST_NS_PER_S);
}

static void plan_retry(struct cst_credentials *c, int rc)
{
	int64_t pause = BACKOFF_FIRST << cst_min(c->failures - 1, 6u);
	pause = cst_min(pause, BACKOFF_LAST);
	/* Machines of one fleet must not ask in step. */
	pause = pause / 2 + (int64_t)((uint64_t)rand_r(&c->seed) % (uint64_t)(pause / 2 + 1));
	c->due = cst_wall() + pause;
	pthread_mutex_lock(&c->lock);
	c->hold_until = c->provider->costly ? cst_now() + pause : 0;
	c->hold_rc = rc;
	pthread_mutex_unlock(&c->lock);
}

static void report_failure(struct cst_credentials *c, const struct cst_error *err, int64_t expires)
{
	char text[CST_ERROR_TEXT_MAX], when[CST_TIME_TEXT] = "";
	uint64_t left_out;
	if (!cst_log_allowed(&c->failure_log, 60 * CST_NS_PER_S, &left_out))
		return;
	if (expires)
		cst_time_iso(expires, when);
	bool over = expires && expires <= cst_wall() / CST_NS_PER_S;
	cst_log_at(over ? CST_LOG_ERROR : CST_LOG_WARN, "credentials not renewed (attempt %u, %s%s): %s", c->failures,
		   !expires ? "the old ones stay in use"
		   : over   ? "the old ones expired at "
			    : "the old ones are good until ",
		   when, cst_error_text(err, text, sizeof(text)));
}

/* Takes what is in scratch as the current credential. Returns whether it is another one. */
static bool adopt(struct cst_credentials *c)
{
	pthread_mutex_lock(&c->lock);
	/* The same keys with a later expiration are no help to whoever was refused with them. */
	bool changed = !same_keys(c->current, c->scratch);
	c->scratch->generation = c->current->generation + (changed ? 1 : 0);
	*c->current = *c->scratch;
	c->hold_until = !changed && c->provider->costly ? cst_now() + COSTLY_PAUSE : 0;
	c->hold_rc = -EACCES;
	pthread_mutex_unlock(&c->lock);
	return changed;
}

static struct waiter *answer(struct waiter *list, uint64_t generation, int rc_same)
{
	while (list) {
		struct waiter *w = list;
		list = w->next;
		w->done(w->arg, w->generation != generation ? 0 : rc_same);
		free(w);
	}
	return NULL;
}

static void renew_now(struct cst_credentials *c)
{
	struct cst_error err = CST_ERROR_INIT;
	pthread_mutex_lock(&c->lock);
	struct waiter *batch = c->waiters;
	c->waiters = NULL;
	pthread_mutex_unlock(&c->lock);

	c->quiet_at = c->quiet_from = 0;
	int rc = fetch(c, &err);
	bool changed = rc == 0 && adopt(c);
	if (rc == 0) {
		c->failures = 0;
		plan(c, c->scratch->expires);
		cst_metric_add(c->renewed, 1);
		if (changed)
			cst_log_info("credentials renewed from %s", c->source);
		else
			cst_log_debug("credentials of %s are unchanged", c->source);
	} else if (rc != -ECANCELED) {
		c->failures++;
		plan_retry(c, rc);
		cst_metric_add(c->failed, 1);
	}
	cst_credential_wipe(c->scratch);

	pthread_mutex_lock(&c->lock);
	uint64_t generation = c->current->generation;
	int64_t expires = c->current->expires;
	struct waiter *late = changed ? c->waiters : NULL;
	if (changed)
		c->waiters = NULL;
	pthread_mutex_unlock(&c->lock);
	cst_metric_set(c->expiry, expires);
	if (rc < 0 && rc != -ECANCELED)
		report_failure(c, &err, expires);
	answer(batch, generation, rc < 0 ? rc : -EACCES);
	answer(late, generation, -EACCES);
}

/* ---- the refresh thread ---- */

static void look_at_files(struct cst_credentials *c)
{
	int64_t now = cst_now();
	bool changed = cst_cred_watch_drain(c->watch);
	if (now >= c->next_poll) {
		changed |= cst_cred_watch_changed(c->watch);
		c->next_poll = now + cst_cred_poll_interval;
	}
	if (!changed)
		return;
	if (!c->quiet_from)
		c->quiet_from = now;
	c->quiet_at = cst_min(now + QUIET, c->quiet_from + QUIET_LIMIT);
}

static int wait_ms(const struct cst_credentials *c)
{
	/* The wall clock may be set while we wait: look at it again now and then. */
	int64_t wait = 30 * CST_NS_PER_S;
	if (c->due)
		wait = cst_min(wait, c->due - cst_wall());
	if (c->watch)
		wait = cst_min(wait, c->next_poll - cst_now());
	if (c->quiet_at)
		wait = cst_min(wait, c->quiet_at - cst_now());
	return (int)((cst_max(wait, INT64_C(0)) + CST_NS_PER_MS - 1) / CST_NS_PER_MS);
}

static bool wanted(struct cst_credentials *c)
{
	pthread_mutex_lock(&c->lock);
	bool asked = c->waiters != NULL;
	pthread_mutex_unlock(&c->lock);
	return asked || (c->due && cst_wall() >= c->due) || (c->quiet_at && cst_now() >= c->quiet_at);
}

static void *refresh_main(void *arg)
{
	struct cst_credentials *c = arg;
	while (!__atomic_load_n(&c->stop, __ATOMIC_ACQUIRE)) {
		if (c->watch)
			look_at_files(c);
		if (wanted(c)) {
			renew_now(c);
			continue;
		}
		struct pollfd fds[2] = {{.fd = c->wake, .events = POLLIN},
					{.fd = c->watch ? cst_cred_watch_fd(c->watch) : -1, .events = POLLIN}};
		uint64_t count;
		if (poll(fds, 2, wait_ms(c)) > 0 && (fds[0].revents & POLLIN) &&
		    read(c->wake, &count, sizeof(count)) < 0)
			cst_log_debug("the wake-up was taken back: errno %d", errno);
	}
	return NULL;
}

static void wake_up(struct cst_credentials *c)
{
	uint64_t one = 1;
	/* Fails only when the counter is full, and then it is awake. */
	if (write(c->wake, &one, sizeof(one)) < 0)
		return;
}

/* ---- the object ---- */

static void free_parts(struct cst_credentials *c)
{
	if (c->provider)
		c->provider->ops->free(c->provider);
	cst_cred_watch_free(c->watch);
	cst_secret_unmap(c->current, sizeof(*c->current));
	cst_secret_unmap(c->scratch, sizeof(*c->scratch));
	if (c->wake >= 0)
		close(c->wake);
	pthread_mutex_destroy(&c->lock);
	c->magic = 0;
	free(c);
}

static int start(struct cst_credentials *c, struct cst_error *err)
{
	c->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	int rc = c->wake < 0 ? -errno : 0;
	if (rc == 0)
		rc = cst_thread_start(&c->thread, "credentials", 0, refresh_main, c);
	if (rc < 0) {
		cst_error_set(err, -rc, "can't start the thread that renews credentials");
		cst_error_why(err, "%s", strerror(-rc));
	}
	c->running = rc == 0;
	return rc;
}

static int set_up(struct cst_credentials *c, const struct cst_credentials_config *config, struct cst_error *err)
{
	int rc = choose(config, &c->provider, err);
	if (rc < 0)
		return rc;
	/* Before the first fetch, so that a change during it is seen. */
	if (c->provider->watch_count > 0) {
		c->watch = cst_cred_watch_new(c->provider->watch, c->provider->watch_count, cst_cred_use_inotify);
		c->next_poll = cst_now() + cst_cred_poll_interval;
	}
	rc = fetch(c, err);
	if (rc < 0)
		return rc;
	adopt(c);
	plan(c, c->scratch->expires);
	cst_metric_set(c->expiry, c->scratch->expires);
	cst_credential_wipe(c->scratch);
	c->anonymous = c->provider->anonymous;
	c->constant = c->provider->constant;
	memcpy(c->source, c->provider->source, sizeof(c->source));
	cst_log_debug("credentials from %s", c->source);
	return c->constant ? 0 : start(c, err);
}

struct cst_credentials *cst_credentials_new(const struct cst_credentials_config *config, struct cst_error *err)
{
	struct cst_credentials *c = CST_NEW(struct cst_credentials);
	c->magic = CREDENTIALS_MAGIC;
	c->wake = -1;
	c->seed = (unsigned)cst_now() ^ (unsigned)getpid();
	pthread_mutex_init(&c->lock, NULL);
	c->current = cst_secret_map(sizeof(*c->current));
	c->scratch = cst_secret_map(sizeof(*c->scratch));
	c->current->generation = 1;
	c->renewed = cst_metric_counter("cistern_credential_fetches_total", "result=\"ok\"",
					"Credentials fetched from their source");
	c->failed = cst_metric_counter("cistern_credential_fetches_total", "result=\"error\"",
				       "Credentials fetched from their source");
	c->expiry = cst_metric_gauge("cistern_credential_expiry_timestamp_seconds", NULL,
				     "When the current credential expires, 0: never");
	if (set_up(c, config, err) == 0)
		return c;
	free_parts(c);
	return NULL;
}

void cst_credentials_free(struct cst_credentials *c)
{
	if (!c)
		return;
	CST_CHECK(c, CREDENTIALS_MAGIC);
	pthread_mutex_lock(&c->lock);
	c->ended = true;
	pthread_mutex_unlock(&c->lock);
	if (c->running) {
		__atomic_store_n(&c->stop, 1, __ATOMIC_RELEASE);
		wake_up(c);
		pthread_join(c->thread, NULL);
	}
	/* A generation that no waiter has would answer 0: nothing was renewed for these. */
	for (struct waiter *w = c->waiters; w; w = w->next)
		w->generation = 0;
	c->waiters = answer(c->waiters, 0, -ECANCELED);
	free_parts(c);
}

bool cst_credentials_anonymous(const struct cst_credentials *c)
{
	CST_CHECK(c, CREDENTIALS_MAGIC);
	return c->anonymous;
}

void cst_credentials_get(struct cst_credentials *c, struct cst_credential *out)
{
	CST_CHECK(c, CREDENTIALS_MAGIC);
	pthread_mutex_lock(&c->lock);
	*out = *c->current;
	pthread_mutex_unlock(&c->lock);
}

uint64_t cst_credentials_generation(struct cst_credentials *c)
{
	CST_CHECK(c, CREDENTIALS_MAGIC);
	pthread_mutex_lock(&c->lock);
	uint64_t generation = c->current->generation;
	pthread_mutex_unlock(&c->lock);
	return generation;
}

void cst_credentials_renew(struct cst_credentials *c, uint64_t generation, void (*done)(void *arg, int rc), void *arg)
{
	CST_CHECK(c, CREDENTIALS_MAGIC);
	int rc = 1; /* not known yet */
	pthread_mutex_lock(&c->lock);
	if (c->current->generation != generation)
		rc = 0;
	else if (c->ended)
		rc = -ECANCELED;
	else if (!c->running)
		rc = -EACCES;
	else if (c->hold_until > cst_now())
		rc = c->hold_rc;
	if (rc > 0) {
		struct waiter *w = CST_NEW(struct waiter);
		*w = (struct waiter){c->waiters, generation, done, arg};
		c->waiters = w;
	}
	pthread_mutex_unlock(&c->lock);
	if (rc > 0)
		wake_up(c);
	else
		done(arg, rc);
}

const char *cst_credentials_source(const struct cst_credentials *c)
{
	CST_CHECK(c, CREDENTIALS_MAGIC);
	return c->source;
}
