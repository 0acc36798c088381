/* Metrics registry: counters, gauges and histograms by name and labels, written as Prometheus text (exposition format
 * 0.0.4). Metrics are made once (usually at start), live as long as the process, and are updated without locks from
 * any thread. Names start with cistern_ and end in _total (counters) or a unit. */
#pragma once

#include "base/buf.h"

struct cst_metric;
/* The same name and labels return the same metric. labels: NULL or `op="get",code="200"`. */
struct cst_metric *cst_metric_counter(const char *name, const char *labels, const char *help);
struct cst_metric *cst_metric_gauge(const char *name, const char *labels, const char *help);
/* Buckets for seconds: 0.5 ms … 60 s, a factor of two apart. */
struct cst_metric *cst_metric_seconds(const char *name, const char *labels, const char *help);

void cst_metric_add(struct cst_metric *m, int64_t n);
void cst_metric_set(struct cst_metric *m, int64_t value);
void cst_metric_max(struct cst_metric *m, int64_t value); /* keeps the larger */
void cst_metric_observe_ns(struct cst_metric *m, int64_t ns);
int64_t cst_metric_value(const struct cst_metric *m);
/* Estimate of a quantile (0..1) of a histogram, ns; 0 when it has no samples. */
int64_t cst_metric_quantile_ns(const struct cst_metric *m, double q);

void cst_metrics_write(struct cst_buf *out);	  /* Prometheus text */
void cst_metrics_write_json(struct cst_buf *out); /* {"name{labels}": value, …} */
