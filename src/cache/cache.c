/* The cache as a whole: its volumes, what takes one out, shared descriptors of slabs, figures. */
#define CST_LOG_AREA "cache"
#include "base/clock.h"
#include "base/log.h"
#include "cache/cache_private.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>
#include <xxhash.h>

#define IO_THREADS 16
/* Bytes a second that may be copied into a level from the one above it, so that eviction there never waits long for a slow disk. */
static const double demote_rates[] = {
	[CST_CACHE_MEM] = 2.0 * (1u << 30), [CST_CACHE_SSD] = 1.0 * (1u << 30), [CST_CACHE_HDD] = 160.0 * (1u << 20)};

/* ---- choice of a volume ---- */

/* Weighted rendezvous: each volume draws a number from the name, and the best one for its weight has it. When one is out, only what it had
 * goes elsewhere. */
struct cst_cache_volume *cst_level_choose(struct cst_level *level, uint64_t name)
{
	struct cst_cache_volume *best = NULL;
	double best_score = 0;
	for (unsigned i = 0; i < level->volume_count; i++) {
		struct cst_cache_volume *v = &level->volumes[i];
		if (cst_cache_volume_is_out(v))
			continue;
		if (level->volume_count == 1)
			return v;
		uint64_t draw = XXH3_64bits_withSeed(&name, sizeof(name), v->seed);
		double unit = ((double)(draw >> 11) + 0.5) / (double)(UINT64_C(1) << 53);
		double score = (double)v->weight / -log(unit);
		if (!best || score > best_score) {
			best = v;
			best_score = score;
		}
	}
	return best;
}

bool cst_cache_volume_holds(const struct cst_cache_volume *v, uint64_t size)
{
	return (double)size <= (double)v->quota * cst_cache_volume_level(v)->high;
}

/* ---- failures ---- */

static bool is_sick(int rc)
{
	return rc == -EIO || rc == -EROFS || rc == -ENODEV || rc == -ENXIO || rc == -EUCLEAN || rc == -ESTALE;
}

static void take_out(struct cst_cache_volume *v, int rc, const char *doing)
{
	struct cst_cache *cache = v->cache;
	pthread_mutex_lock(&cache->lock);
	bool first = !v->out;
	if (first) {
		snprintf(v->why, sizeof(v->why), "out: %s: %s", doing, strerror(-rc));
		__atomic_store_n(&v->out, -rc, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&cache->lock);
	if (!first)
		return;
	struct cst_level *level = cst_cache_volume_level(v);
	cst_metric_set(level->metrics.out, 1);
	cst_log_error(
		"cache directory %s (level %u, %s) is no longer used: %s: %s; what it held comes from the other levels or the origin; check the "
		"disk, then mount again",
		v->path, level->index, cst_cache_medium_name(level->medium), doing, strerror(-rc));
}

int cst_cache_volume_error(struct cst_cache_volume *v, int rc, const char *doing)
{
	if (is_sick(rc)) {
		take_out(v, rc, doing);
		if (v->volume)
			cst_volume_fail(v->volume, rc, doing);
		return rc;
	}
	struct stat st;
	/* Somebody deleted it under us: what is open goes on, nothing new can be made. */
	if (rc == -ENOENT && fstat(cst_volume_dir(v->volume), &st) == 0 && st.st_nlink == 0)
		take_out(v, -ENOENT, "the directory was deleted");
	return rc;
}

static void volume_failed(void *arg, int rc, const char *what)
{
	struct cst_cache_volume *v = arg;
	take_out(v, rc < 0 ? rc : -EIO, what);
}

/* ---- slabs ---- */

static void slab_file_put(struct cst_slab_file *f)
{
	if (!cst_ref_put(&f->ref))
		return;
	close(f->fd);
	free(f);
}

static struct cst_slab_file *slab_find_locked(struct cst_slab_table *t, uint32_t slab)
{
	for (unsigned i = 0; i < CST_CACHE_SLABS; i++) {
		struct cst_slab_file *f = t->files[i];
		if (f && f->slab == slab) {
			f->used = ++t->clock;
			cst_ref_get(&f->ref);
			return f;
		}
	}
	return NULL;
}

struct cst_slab_file *cst_slab_get(struct cst_cache_volume *v, uint32_t slab, bool only_open, int *rc)
{
	struct cst_slab_table *t = &v->slabs;
	*rc = 0;
	pthread_mutex_lock(&t->lock);
	struct cst_slab_file *f = slab_find_locked(t, slab);
	pthread_mutex_unlock(&t->lock);
	if (f)
		return f;
	*rc = -EAGAIN;
	if (only_open)
		return NULL;
	int fd = cst_slab_open(cst_volume_dir(v->volume), slab, false, 0);
	*rc = fd < 0 ? fd : 0;
	if (fd < 0)
		return NULL;
	f = CST_NEW(struct cst_slab_file);
	*f = (struct cst_slab_file){.ref = {2}, .slab = slab, .fd = fd};
	pthread_mutex_lock(&t->lock);
	unsigned oldest = 0;
	for (unsigned i = 0; i < CST_CACHE_SLABS; i++) {
		if (!t->files[i] || (t->files[oldest] && t->files[i]->used < t->files[oldest]->used))
			oldest = i;
	}
	struct cst_slab_file *before = t->files[oldest];
	f->used = ++t->clock;
	t->files[oldest] = f;
	pthread_mutex_unlock(&t->lock);
	if (before)
		slab_file_put(before);
	return f;
}

void cst_slab_put(struct cst_cache_volume *v, struct cst_slab_file *f, bool stale)
{
	struct cst_slab_table *t = &v->slabs;
	bool mine = false;
	pthread_mutex_lock(&t->lock);
	for (unsigned i = 0; stale && i < CST_CACHE_SLABS; i++) {
		if (t->files[i] == f) {
			t->files[i] = NULL;
			mine = true;
		}
	}
	pthread_mutex_unlock(&t->lock);
	if (mine)
		slab_file_put(f);
	slab_file_put(f);
}

/* ---- making and ending ---- */

static void make_metrics(struct cst_level *l)
{
	char labels[64];
	snprintf(labels, sizeof(labels), "level=\"%u\",medium=\"%s\"", l->index, cst_cache_medium_name(l->medium));
	l->metrics = (struct cst_level_metrics){
		.hits = cst_metric_counter("cistern_cache_hits_total", labels, "Blocks read from a cache level"),
		.hit_bytes =
			cst_metric_counter("cistern_cache_hit_bytes_total", labels, "Bytes read from a cache level"),
		.saved_bytes = cst_metric_counter("cistern_cache_saved_bytes_total", labels,
						  "Bytes of the origin written into a cache level"),
		.refused_bytes =
			cst_metric_counter("cistern_cache_refused_bytes_total", labels,
					   "Bytes that a cache level did not take: no room, policy, disk too slow"),
		.promoted = cst_metric_counter("cistern_cache_promoted_total", labels,
					       "Entries copied into a level from one below"),
		.corrupt =
			cst_metric_counter("cistern_cache_corrupt_total", labels, "Blocks that failed their checksum"),
		.used = cst_metric_gauge("cistern_cache_used_bytes", labels, "Bytes that a cache level takes"),
		.quota = cst_metric_gauge("cistern_cache_quota_bytes", labels, "Bytes that a cache level may take"),
		.entries = cst_metric_gauge("cistern_cache_entries_count", labels, "Object versions in a cache level"),
		.evicted = cst_metric_gauge("cistern_cache_evicted_entries", labels,
					    "Entries dropped to make room, since the owner started"),
		.demoted = cst_metric_gauge("cistern_cache_demoted_entries", labels,
					    "Entries moved to the next level, since the owner started"),
		.stops_high = cst_metric_gauge("cistern_cache_stops_high_count", labels, "Times that eviction started"),
		.stops_low = cst_metric_gauge("cistern_cache_stops_low_count", labels,
					      "Times that eviction reached its aim"),
		.out = cst_metric_gauge("cistern_cache_level_out", labels,
					"1: a directory of the level failed and is no longer used"),
	};
	cst_metric_set(l->metrics.out, 0);
}

static void level_init(struct cst_cache *cache, unsigned index, const struct cst_cache_level *level, unsigned threads)
{
	struct cst_level *l = &cache->levels[index];
	*l = (struct cst_level){.index = index, .medium = level->medium, .high = level->high, .low = level->low};
	if (l->high <= 0) {
		l->high = 0.8;
		l->low = 0.6;
	}
	l->token_rate = demote_rates[level->medium];
	l->tokens = l->token_rate * CST_DEMOTE_BURST_S;
	l->tokens_at = cst_now();
	pthread_mutex_init(&l->tokens_lock, NULL);
	l->readers = cst_pool_new("cache-read", threads);
	l->writers = cst_pool_new("cache-write", cst_max(2u, threads / 2));
	make_metrics(l);
}

/* Two names of one directory would be two indexes of it. */
static int check_once(const struct cst_cache *cache, const char *dir, struct cst_error *err)
{
	struct stat mine, other;
	if (stat(dir, &mine) != 0)
		return 0;
	for (unsigned i = 0; i < cache->level_count; i++) {
		for (unsigned k = 0; k < cache->levels[i].volume_count; k++) {
			const struct cst_cache_volume *v = &cache->levels[i].volumes[k];
			if (fstat(cst_volume_dir(v->volume), &other) != 0 || mine.st_dev != other.st_dev ||
			    mine.st_ino != other.st_ino)
				continue;
			cst_error_set(err, EINVAL, "the cache directory %s is given twice", dir);
			cst_error_why(err, "%s is the same", v->path);
			return -EINVAL;
		}
	}
	return 0;
}

static int open_volume(struct cst_cache *cache, unsigned index, const struct cst_level_plan *plan,
		       struct cst_error *err)
{
	struct cst_level *l = &cache->levels[index];
	struct cst_cache_volume *v = &l->volumes[l->volume_count];
	*v = (struct cst_cache_volume){
		.cache = cache, .level = index, .quota = plan->quota, .weight = plan->weight, .memory = plan->memory};
	struct cst_volume_config config = {
		.path = plan->dir,
		.limits = {plan->quota, l->high, l->low, plan->keep_free},
		.demote = cst_tier_demote,
		.failed = volume_failed,
		.arg = v,
	};
	v->path = cst_xstrdup(plan->dir);
	v->seed = XXH3_64bits(plan->dir, strlen(plan->dir));
	pthread_mutex_init(&v->slabs.lock, NULL);
	v->volume = cst_volume_open(&config, err);
	if (v->volume) {
		l->volume_count++;
		return 0;
	}
	pthread_mutex_destroy(&v->slabs.lock);
	free(v->path);
	return err->code ? -err->code : -EIO;
}

/* One path; *fatal: the configuration can't be meant so. A disk that is broken now is left out, as if it broke later. */
static int add_path(struct cst_cache *cache, const struct cst_cache_config *config, unsigned level, unsigned path,
		    bool *fatal, struct cst_error *err)
{
	struct cst_level_plan plan;
	int rc = cst_level_plan(&config->levels[level], path, config, &plan, fatal, err);
	if (rc != 0)
		return rc;
	rc = check_once(cache, plan.dir, err);
	*fatal = rc != 0;
	if (rc == 0) {
		rc = open_volume(cache, level, &plan, err);
		*fatal = rc == -EACCES || rc == -EPERM || rc == -EINVAL;
	}
	free(plan.dir);
	return rc;
}

static int add_levels(struct cst_cache *cache, const struct cst_cache_config *config, struct cst_error *err)
{
	unsigned volumes = 0;
	CST_AUTO_BUF left_out = CST_BUF_INIT;
	for (unsigned i = 0; i < config->level_count; i++) {
		level_init(cache, i, &config->levels[i], config->io_threads ? config->io_threads : IO_THREADS);
		cache->level_count++;
		for (unsigned k = 0; k < config->levels[i].path_count; k++) {
			bool fatal = false;
			int rc = add_path(cache, config, i, k, &fatal, err);
			char text[CST_ERROR_TEXT_MAX];
			if (fatal)
				return rc;
			if (rc == 0)
				volumes++;
			else
				cst_buf_printf(&left_out, "%scache directory %s is left out: %s",
					       left_out.len ? "; " : "", config->levels[i].paths[k].path,
					       cst_error_text(err, text, sizeof(text)));
		}
	}
	/* When there is no other the caller tells. */
	if (volumes && left_out.len)
		cst_log_error("%s", left_out.data);
	return volumes ? 0 : -EIO;
}

static void close_levels(struct cst_cache *cache)
{
	/* Top first: what it demotes goes into the next. */
	for (unsigned i = 0; i < cache->level_count; i++) {
		struct cst_level *l = &cache->levels[i];
		cst_pool_free(l->readers);
		cst_pool_free(l->writers);
		for (unsigned k = 0; k < l->volume_count; k++)
			cst_volume_close(l->volumes[k].volume);
		pthread_mutex_lock(&cache->lock);
		while (cache->copies > 0)
			pthread_cond_wait(&cache->quiet, &cache->lock);
		pthread_mutex_unlock(&cache->lock);
	}
	for (unsigned i = 0; i < cache->level_count; i++) {
		struct cst_level *l = &cache->levels[i];
		for (unsigned k = 0; k < l->volume_count; k++) {
			struct cst_cache_volume *v = &l->volumes[k];
			for (unsigned n = 0; n < CST_CACHE_SLABS; n++) {
				if (v->slabs.files[n])
					slab_file_put(v->slabs.files[n]);
			}
			pthread_mutex_destroy(&v->slabs.lock);
			free(v->path);
		}
		pthread_mutex_destroy(&l->tokens_lock);
	}
}

static void cache_destroy(struct cst_cache *cache)
{
	cst_pool_free(cache->background);
	close_levels(cache);
	pthread_mutex_destroy(&cache->lock);
	pthread_cond_destroy(&cache->quiet);
	cache->magic = 0;
	free(cache->table);
	free(cache->ghosts);
	free(cache->bucket);
	free(cache);
}

struct cst_cache *cst_cache_new(const struct cst_cache_config *config, struct cst_error *err)
{
	struct cst_error own = CST_ERROR_INIT;
	if (!err)
		err = &own;
	if (config->level_count == 0 || config->level_count > CST_CACHE_LEVELS) {
		cst_error_set(err, EINVAL, "a cache has 1 to %d levels", CST_CACHE_LEVELS);
		return NULL;
	}
	struct cst_cache *cache = CST_NEW(struct cst_cache);
	cache->magic = CST_CACHE_MAGIC;
	cache->policy = config->policy;
	cache->finish_partial = config->finish_partial;
	cache->bucket = cst_xstrdup(config->bucket);
	cache->table_mask = 255;
	cache->table = cst_xcalloc(cache->table_mask + 1, sizeof(struct cst_cache_object *));
	cache->misses_metric = cst_metric_counter("cistern_cache_misses_total", NULL,
						  "Blocks that came from the origin, not from the cache");
	if (config->level_count > 1)
		cache->ghosts = cst_xcalloc(CST_GHOSTS, sizeof(struct cst_ghost));
	TAILQ_INIT(&cache->finish_waiting);
	TAILQ_INIT(&cache->finish_running);
	pthread_mutex_init(&cache->lock, NULL);
	pthread_cond_init(&cache->quiet, NULL);
	cache->background = cst_pool_new("cache-tier", 2);
	cst_error_clear(err);
	if (add_levels(cache, config, err) == 0) {
		cst_error_clear(err);
		__atomic_store_n(&cache->ready, true, __ATOMIC_RELEASE);
		return cache;
	}
	cache_destroy(cache);
	return NULL;
}

void cst_cache_stop(struct cst_cache *cache)
{
	CST_CHECK(cache, CST_CACHE_MAGIC);
	pthread_mutex_lock(&cache->lock);
	__atomic_store_n(&cache->stopping, true, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&cache->lock);
	cst_finish_cancel_all(cache);
	pthread_mutex_lock(&cache->lock);
	while (cache->promoting > 0)
		pthread_cond_wait(&cache->quiet, &cache->lock);
	pthread_mutex_unlock(&cache->lock);
}

void cst_cache_free(struct cst_cache *cache)
{
	if (!cache)
		return;
	cst_cache_stop(cache);
	/* What is being saved, looked for or given up holds its object. */
	pthread_mutex_lock(&cache->lock);
	while (cache->alive > 0)
		pthread_cond_wait(&cache->quiet, &cache->lock);
	pthread_mutex_unlock(&cache->lock);
	cache_destroy(cache);
}

/* ---- figures ---- */

static void add_volume_stats(struct cst_cache_level_stats *s, struct cst_cache_volume *v, bool *full)
{
	size_t len = strlen(s->paths);
	snprintf(s->paths + len, sizeof(s->paths) - len, "%s%s", len ? "," : "", v->path);
	s->owner = s->owner && cst_volume_is_owner(v->volume);
	s->quota += v->quota;
	if (cst_cache_volume_is_out(v)) {
		s->state = v->why;
		return;
	}
	struct cst_index_stats x = {0};
	if (cst_volume_stats(v->volume, &x) != 0)
		return;
	*full = *full || x.full;
	s->used += x.used;
	s->entries += x.entries;
	s->pinned += x.pinned;
	s->evicted += x.evicted;
	s->demoted += x.demoted;
	s->stops_high += x.stops_high;
	s->stops_low += x.stops_low;
}

static void level_stats(struct cst_level *l, struct cst_cache_level_stats *s)
{
	bool full = false;
	*s = (struct cst_cache_level_stats){.medium = l->medium, .state = "ok", .owner = true};
	for (unsigned i = 0; i < l->volume_count; i++)
		add_volume_stats(s, &l->volumes[i], &full);
	if (full && strcmp(s->state, "ok") == 0)
		s->state = "full";
	if (l->volume_count == 0)
		s->state = "out: no directory could be opened";
	struct cst_cache_counters *c = &l->counters;
	s->hits = __atomic_load_n(&c->hits, __ATOMIC_RELAXED);
	s->hit_bytes = __atomic_load_n(&c->hit_bytes, __ATOMIC_RELAXED);
	s->saved_bytes = __atomic_load_n(&c->saved_bytes, __ATOMIC_RELAXED);
	s->refused_bytes = __atomic_load_n(&c->refused_bytes, __ATOMIC_RELAXED);
	s->promoted = __atomic_load_n(&c->promoted, __ATOMIC_RELAXED);
	s->corrupt = __atomic_load_n(&c->corrupt, __ATOMIC_RELAXED);
	cst_metric_set(l->metrics.used, (int64_t)s->used);
	cst_metric_set(l->metrics.quota, (int64_t)s->quota);
	cst_metric_set(l->metrics.entries, (int64_t)s->entries);
	cst_metric_set(l->metrics.evicted, (int64_t)s->evicted);
	cst_metric_set(l->metrics.demoted, (int64_t)s->demoted);
	cst_metric_set(l->metrics.stops_high, (int64_t)s->stops_high);
	cst_metric_set(l->metrics.stops_low, (int64_t)s->stops_low);
}

void cst_cache_stats(struct cst_cache *cache, struct cst_cache_stats *stats)
{
	CST_CHECK(cache, CST_CACHE_MAGIC);
	*stats = (struct cst_cache_stats){.level_count = cache->level_count};
	for (unsigned i = 0; i < cache->level_count; i++)
		level_stats(&cache->levels[i], &stats->levels[i]);
	stats->misses = __atomic_load_n(&cache->misses, __ATOMIC_RELAXED);
	pthread_mutex_lock(&cache->lock);
	stats->objects = cache->objects;
	pthread_mutex_unlock(&cache->lock);
}
