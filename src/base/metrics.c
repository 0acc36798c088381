#include "base/metrics.h"

#include "base/clock.h"
#include "base/text.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>

#define METRIC_MAGIC 0x4d455452u
#define BUCKETS 18
#define FIRST_BUCKET_NS (CST_NS_PER_MS / 2)

enum kind { COUNTER, GAUGE, SECONDS };

struct cst_metric {
	unsigned magic;
	enum kind kind;
	char *name, *labels, *help;
	int64_t value; /* SECONDS: the sum, ns */
	uint64_t buckets[BUCKETS + 1];
	STAILQ_ENTRY(cst_metric) link;
};

static struct {
	pthread_mutex_t lock; /* the list; values are atomic */
	STAILQ_HEAD(, cst_metric) list;
} registry = {PTHREAD_MUTEX_INITIALIZER, STAILQ_HEAD_INITIALIZER(registry.list)};

static struct cst_metric *find_or_make(enum kind kind, const char *name, const char *labels, const char *help)
{
	struct cst_metric *m, *after = NULL;
	labels = labels ? labels : "";
	pthread_mutex_lock(&registry.lock);
	STAILQ_FOREACH (m, &registry.list, link) {
		if (strcmp(m->name, name) != 0)
			continue;
		CST_ASSERT(m->kind == kind);
		if (strcmp(m->labels, labels) == 0)
			break;
		after = m;
	}
	if (!m) {
		m = CST_NEW(struct cst_metric);
		m->magic = METRIC_MAGIC;
		m->kind = kind;
		m->name = cst_xstrdup(name);
		m->labels = cst_xstrdup(labels);
		m->help = cst_xstrdup(help);
		/* The text format wants all lines of one name together. */
		if (after)
			STAILQ_INSERT_AFTER(&registry.list, after, m, link);
		else
			STAILQ_INSERT_TAIL(&registry.list, m, link);
	}
	pthread_mutex_unlock(&registry.lock);
	return m;
}

struct cst_metric *cst_metric_counter(const char *name, const char *labels, const char *help)
{
	return find_or_make(COUNTER, name, labels, help);
}

struct cst_metric *cst_metric_gauge(const char *name, const char *labels, const char *help)
{
	return find_or_make(GAUGE, name, labels, help);
}

struct cst_metric *cst_metric_seconds(const char *name, const char *labels, const char *help)
{
	return find_or_make(SECONDS, name, labels, help);
}

void cst_metric_add(struct cst_metric *m, int64_t n)
{
	CST_CHECK(m, METRIC_MAGIC);
	__atomic_fetch_add(&m->value, n, __ATOMIC_RELAXED);
}

void cst_metric_set(struct cst_metric *m, int64_t value)
{
	CST_CHECK(m, METRIC_MAGIC);
	__atomic_store_n(&m->value, value, __ATOMIC_RELAXED);
}

void cst_metric_max(struct cst_metric *m, int64_t value)
{
	CST_CHECK(m, METRIC_MAGIC);
	int64_t now = __atomic_load_n(&m->value, __ATOMIC_RELAXED);
	while (now < value &&
	       !__atomic_compare_exchange_n(&m->value, &now, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

int64_t cst_metric_value(const struct cst_metric *m)
{
	CST_CHECK(m, METRIC_MAGIC);
	return __atomic_load_n(&m->value, __ATOMIC_RELAXED);
}

void cst_metric_observe_ns(struct cst_metric *m, int64_t ns)
{
	CST_CHECK(m, METRIC_MAGIC);
	int bucket = 0;
	for (int64_t limit = FIRST_BUCKET_NS; bucket < BUCKETS && ns > limit; limit *= 2)
		bucket++;
	__atomic_fetch_add(&m->buckets[bucket], 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&m->value, ns, __ATOMIC_RELAXED);
}

int64_t cst_metric_quantile_ns(const struct cst_metric *m, double q)
{
	CST_CHECK(m, METRIC_MAGIC);
	uint64_t counts[BUCKETS + 1], total = 0;
	for (int i = 0; i <= BUCKETS; i++)
		total += counts[i] = __atomic_load_n(&m->buckets[i], __ATOMIC_RELAXED);
	if (total == 0)
		return 0;
	double rank = q * (double)total, below = 0;
	int64_t low = 0, high = FIRST_BUCKET_NS;
	for (int i = 0; i <= BUCKETS; i++) {
		if (below + (double)counts[i] >= rank && counts[i])
			return low + (int64_t)((double)(high - low) * (rank - below) / (double)counts[i]);
		below += (double)counts[i];
		low = high;
		high *= 2;
	}
	return low;
}

static void sample(struct cst_buf *out, const char *name, const char *suffix, const char *labels, const char *extra)
{
	cst_buf_printf(out, "%s%s", name, suffix);
	if (labels[0] || extra[0])
		cst_buf_printf(out, "{%s%s%s}", labels, labels[0] && extra[0] ? "," : "", extra);
	cst_buf_add_char(out, ' ');
}

static void write_histogram(struct cst_buf *out, const struct cst_metric *m)
{
	uint64_t below = 0;
	int64_t limit = FIRST_BUCKET_NS;
	for (int i = 0; i <= BUCKETS; i++, limit *= 2) {
		char extra[48];
		below += __atomic_load_n(&m->buckets[i], __ATOMIC_RELAXED);
		if (i < BUCKETS)
			snprintf(extra, sizeof(extra), "le=\"%g\"", (double)limit / 1e9);
		else
			snprintf(extra, sizeof(extra), "le=\"+Inf\"");
		sample(out, m->name, "_bucket", m->labels, extra);
		cst_buf_printf(out, "%" PRIu64 "\n", below);
	}
	sample(out, m->name, "_sum", m->labels, "");
	cst_buf_printf(out, "%.9f\n", (double)cst_metric_value(m) / 1e9);
	sample(out, m->name, "_count", m->labels, "");
	cst_buf_printf(out, "%" PRIu64 "\n", below);
}

void cst_metrics_write(struct cst_buf *out)
{
	static const char *const types[] = {"counter", "gauge", "histogram"};
	const struct cst_metric *m;
	const char *last = "";
	pthread_mutex_lock(&registry.lock);
	STAILQ_FOREACH (m, &registry.list, link) {
		if (strcmp(last, m->name) != 0)
			cst_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name, types[m->kind]);
		last = m->name;
		if (m->kind == SECONDS) {
			write_histogram(out, m);
		} else {
			sample(out, m->name, "", m->labels, "");
			cst_buf_printf(out, "%" PRId64 "\n", cst_metric_value(m));
		}
	}
	pthread_mutex_unlock(&registry.lock);
}

void cst_metrics_write_json(struct cst_buf *out)
{
	const struct cst_metric *m;
	const char *separator = "";
	cst_buf_add_char(out, '{');
	pthread_mutex_lock(&registry.lock);
	STAILQ_FOREACH (m, &registry.list, link) {
		struct cst_buf key = CST_BUF_INIT;
		cst_buf_add_str(&key, m->name);
		if (m->labels[0])
			cst_buf_printf(&key, "{%s}", m->labels);
		cst_buf_add_str(out, separator);
		separator = ", ";
		cst_text_json_string(out, cst_buf_slice(&key));
		cst_buf_fini(&key);
		if (m->kind != SECONDS) {
			cst_buf_printf(out, ": %" PRId64, cst_metric_value(m));
			continue;
		}
		uint64_t count = 0;
		for (int i = 0; i <= BUCKETS; i++)
			count += __atomic_load_n(&m->buckets[i], __ATOMIC_RELAXED);
		cst_buf_printf(
			out, ": {\"count\": %" PRIu64 ", \"sum\": %.9f, \"p50\": %.6f, \"p95\": %.6f, \"p99\": %.6f}",
			count, (double)cst_metric_value(m) / 1e9, (double)cst_metric_quantile_ns(m, 0.5) / 1e9,
			(double)cst_metric_quantile_ns(m, 0.95) / 1e9, (double)cst_metric_quantile_ns(m, 0.99) / 1e9);
	}
	pthread_mutex_unlock(&registry.lock);
	cst_buf_add_char(out, '}');
}
