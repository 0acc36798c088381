#include "cli/mount_stats.h"

#include "base/metrics.h"
#include "base/text.h"
#include "cli/mount_load.h"
#include "cli/mount_writes.h"

#include <string.h>

enum kind { COUNT, GAUGE }; /* what it is to Prometheus: only grows, or goes up and down */

struct field {
	const char *name;
	enum kind kind;
	uint64_t value;
	const char *help;
};

/* Takes one section after the other. */
struct sink {
	struct cst_buf *json; /* NULL: metrics */
};

static void put_metric(const char *title, const struct field *f)
{
	CST_AUTO_FREE char *name = cst_xasprintf("cistern_%s_%s%s", title, f->name, f->kind == COUNT ? "_total" : "");
	struct cst_metric *m =
		f->kind == COUNT ? cst_metric_counter(name, NULL, f->help) : cst_metric_gauge(name, NULL, f->help);
	cst_metric_set(m, (int64_t)f->value);
}

static void put_section(const struct sink *s, const char *title, const struct field *fields, size_t count)
{
	for (size_t i = 0; i < count && !s->json; i++)
		put_metric(title, &fields[i]);
	if (!s->json)
		return;
	cst_buf_printf(s->json, ", \"%s\": {", title);
	for (size_t i = 0; i < count; i++)
		cst_buf_printf(s->json, "%s\"%s\": %llu", i ? ", " : "", fields[i].name,
			       (unsigned long long)fields[i].value);
	cst_buf_add_char(s->json, '}');
}
#define PUT_SECTION(s, title, ...)                                    \
	do {                                                          \
		const struct field list[] = {__VA_ARGS__};            \
		put_section((s), (title), list, CST_ARRAY_LEN(list)); \
	} while (0)

static void add_text(struct cst_buf *out, const char *name, const char *value)
{
	cst_buf_printf(out, "\"%s\": ", name);
	cst_text_json_string(out, cst_slice_of(value ? value : ""));
}

/* ---- kernel and files ---- */

void cst_mount_passthrough_text(const struct cst_mount_view *v, struct cst_buf *out)
{
	struct cst_fuse_stats fuse = {0};
	struct cst_fs_stats fs = {0};
	if (!v->cache) {
		cst_buf_add_str(out, "off: the mount has no cache on disk");
		return;
	}
	cst_fuse_stats(v->fuse, &fuse);
	cst_fs_stats(v->fs, &fs);
	const char *text = fuse.passthrough ? fuse.passthrough : "off";
	bool on = strcmp(text, "on") == 0;
	if (!v->plan->o.passthrough)
		cst_buf_add_str(out, "off: by option");
	else if (v->plan->o.direct_io)
		cst_buf_add_str(out, "off: direct_io");
	else
		cst_buf_printf(out, "%s%s", on || strcmp(text, "off") == 0 ? "" : "off: ", text);
	if (on && fs.passthrough_error != 0)
		cst_buf_printf(out, " (last failure: %s)", strerror(-fs.passthrough_error));
}

static void put_kernel(const struct cst_mount_view *v, const struct sink *s)
{
	struct cst_fuse_stats f = {0};
	cst_fuse_stats(v->fuse, &f);
	PUT_SECTION(s, "kernel", {"protocol_major", GAUGE, f.kernel_major, "FUSE protocol of the kernel"},
		    {"protocol_minor", GAUGE, f.kernel_minor, "FUSE protocol of the kernel"},
		    {"max_background", GAUGE, f.max_background, "Buffered reads the kernel has under way at once"},
		    {"max_write", GAUGE, f.max_write, "Largest write, bytes"},
		    {"read_ahead_kb", GAUGE, f.read_ahead_kb, "Read-ahead of files that are opened now"},
		    {"requests", COUNT, f.requests, "Requests taken from the kernel"},
		    {"in_flight", GAUGE, f.in_flight, "Requests not answered yet"},
		    {"interrupts", COUNT, f.interrupts, "Requests that programs gave up"});
}

static void put_files(const struct cst_mount_view *v, const struct sink *s)
{
	struct cst_fs_stats f = {0};
	cst_fs_stats(v->fs, &f);
	PUT_SECTION(s, "files", {"inodes", GAUGE, f.inodes, "Files and directories the kernel knows"},
		    {"open_files", GAUGE, f.open_files, "Open files"},
		    {"open_dirs", GAUGE, f.open_dirs, "Open directories"},
		    {"cached_dirs", GAUGE, f.cached_dirs, "Listings in memory"},
		    {"skipped_names", COUNT, f.skipped_names, "Keys that no file name can show"},
		    {"lookups", COUNT, f.lookups, "Names looked up"},
		    {"lookups_local", COUNT, f.lookups_local, "Names answered without asking the store"},
		    {"reads", COUNT, f.reads, "Reads the kernel asked for"},
		    {"bytes_read", COUNT, f.bytes_read, "Bytes the kernel asked for; passthrough ones it doesn't"},
		    {"looked_ahead", COUNT, f.looked_ahead, "Small files fetched ahead of their opening"});
	PUT_SECTION(s, "opens",
		    {"passthrough", COUNT, f.opens_passthrough, "Opens that the kernel serves from a cache file"},
		    {"page_cache", COUNT, f.opens_cached, "Opens through the page cache"},
		    {"direct_io", COUNT, f.opens_direct, "Opens around the page cache"});
}

/* ---- data ---- */

static void put_data(const struct cst_mount_view *v, const struct sink *s)
{
	struct cst_fetch_stats f = {0};
	cst_fetch_stats(v->fetch, &f);
	PUT_SECTION(s, "data", {"memory_limit", GAUGE, f.memory_limit, "Hard limit of the buffers, bytes"},
		    {"memory_used", GAUGE, f.memory_used, "Bytes of buffers in use"},
		    {"memory_peak", GAUGE, f.memory_peak, "Most bytes of buffers ever in use"},
		    {"bytes_read", COUNT, f.bytes_read, "Bytes given to readers"},
		    {"bytes_fetched", COUNT, f.bytes_fetched, "Bytes from the store"},
		    {"bytes_local", COUNT, f.bytes_local, "Bytes from the cache on disk"},
		    {"local_ranges", COUNT, f.local_ranges, "Reads of the cache on disk"},
		    {"local_failures", COUNT, f.local_failures, "Ranges fetched again because the cache's were bad"},
		    {"bytes_offered", COUNT, f.bytes_offered, "Bytes offered to the cache on disk"},
		    {"bytes_saved", COUNT, f.bytes_saved, "Bytes it took"},
		    {"fill_ranges", COUNT, f.fill_ranges, "Ranges fetched for the cache alone"},
		    {"hits", COUNT, f.hits, "Blocks that were in memory"},
		    {"misses", COUNT, f.misses, "Blocks that were not"},
		    {"prefetched_ranges", COUNT, f.prefetched_ranges, "Ranges fetched ahead of readers"},
		    {"waits_for_memory", COUNT, f.waits_for_memory, "Times a read waited for room"},
		    {"requests_in_flight", GAUGE, f.requests_in_flight, "Ranges being fetched"},
		    {"reads_waiting", GAUGE, f.reads_waiting, "Reads that wait for room"},
		    {"parallel", GAUGE, f.parallel, "Prefetching requests allowed at a time, as measured"});
}

static void put_writes(const struct cst_mount_view *v, const struct sink *s)
{
	struct cst_publish_stats p = {0};
	struct cst_fs_stats f = {0};
	if (!v->writes)
		return;
	cst_publish_stats(cst_mount_writes_publish(v->writes), &p);
	cst_fs_stats(v->fs, &f);
	PUT_SECTION(s, "writes", {"open_writers", GAUGE, f.open_writers, "Files open for writing"},
		    {"writes", COUNT, f.writes, "Writes of programs"},
		    {"bytes_written", COUNT, p.bytes_written, "Bytes taken from programs"},
		    {"bytes_sent", COUNT, p.bytes_sent, "Bytes sent to the store"},
		    {"bytes_published", COUNT, p.bytes_published, "Bytes that readers of the bucket can see"},
		    {"bytes_pending", GAUGE, p.bytes_pending, "Bytes taken that they can't see yet"},
		    {"bytes_spilled", COUNT, p.bytes_spilled,
		     "Of them, those that waited on the disk (keep_dir) for want of room in memory"},
		    {"publications", COUNT, p.publications, "Times that a file's content was made visible"},
		    {"conflicts", COUNT, p.conflicts,
		     "Files that another writer's version stood in the way of: cistern conflicts"},
		    {"failures", COUNT, p.failures, "Publications that failed"},
		    {"puts", COUNT, p.puts, "Files sent in one request"},
		    {"parts", COUNT, p.parts, "Parts of uploads sent"},
		    {"part_copies", COUNT, p.part_copies, "Parts that the store copied from the version before"},
		    {"appends", COUNT, p.appends, "Appends to appendable objects"},
		    {"streams", GAUGE, p.streams, "Files being written or published"},
		    {"requests_in_flight", GAUGE, p.requests_in_flight, "Uploading requests now"},
		    {"writes_waiting", GAUGE, p.writes_waiting, "Writes that wait for room"},
		    {"memory_limit", GAUGE, p.memory_limit, "Hard limit of the buffers of uploads, bytes"},
		    {"memory_used", GAUGE, p.memory_used, "Bytes of these buffers in use"},
		    {"memory_peak", GAUGE, p.memory_peak, "Most bytes of these buffers ever in use"});
}

static void put_requests(const struct cst_mount_view *v, const struct sink *s)
{
	struct cst_bucket_stats b = {0};
	struct cst_http_client_stats h = {0};
	cst_bucket_stats(v->link->bucket, &b);
	cst_http_client_stats(v->link->http, &h);
	PUT_SECTION(s, "requests", {"get", COUNT, b.get, "GET requests for objects"},
		    {"head", COUNT, b.head, "HEAD requests"}, {"list", COUNT, b.list, "Listing requests"},
		    {"symlink", COUNT, b.symlink, "Requests for symbolic links"},
		    {"retries", COUNT, b.retries, "Requests sent again after a failure"},
		    {"throttled", COUNT, b.throttled, "Answers that asked to slow down"},
		    {"bytes_in", COUNT, b.bytes_in, "Bytes of bodies received"},
		    {"hedges", COUNT, b.hedges, "Second requests sent because the first was slow"},
		    {"hedge_wins", COUNT, b.hedge_wins, "Second requests that answered first"},
		    {"limited", COUNT, b.limited, "Requests that waited for origin_bandwidth or origin_requests"});
	PUT_SECTION(s, "connections", {"opened", COUNT, h.connects, "Connections made"},
		    {"tls_handshakes", COUNT, h.tls_handshakes, "TLS handshakes"},
		    {"calls", COUNT, h.calls, "HTTP requests"},
		    {"reused", COUNT, h.reused, "HTTP requests on a connection that was there"},
		    {"open", GAUGE, h.open, "Connections now"}, {"idle", GAUGE, h.idle, "Of them, without a request"},
		    {"waiting", GAUGE, h.waiting, "Requests that wait for a connection"});
}

/* ---- the cache on disk ---- */

static void add_level(const struct cst_cache_level_stats *l, unsigned number, struct cst_buf *out)
{
	const struct {
		const char *name;
		uint64_t value;
	} fields[] = {
		{"quota", l->quota},
		{"used", l->used},
		{"entries", l->entries},
		{"pinned", l->pinned},
		{"hits", l->hits},
		{"hit_bytes", l->hit_bytes},
		{"saved_bytes", l->saved_bytes},
		{"refused_bytes", l->refused_bytes},
		{"evicted", l->evicted},
		{"demoted", l->demoted},
		{"promoted", l->promoted},
		{"corrupt", l->corrupt},
		{"stops_high", l->stops_high},
		{"stops_low", l->stops_low},
	};
	cst_buf_printf(out, "%s{\"level\": %u, ", number ? ", " : "", number);
	add_text(out, "medium", cst_cli_medium_name(l->medium));
	cst_buf_add_str(out, ", ");
	add_text(out, "paths", l->paths);
	cst_buf_add_str(out, ", ");
	add_text(out, "state", l->state);
	cst_buf_printf(out, ", \"owner\": %s", l->owner ? "true" : "false");
	for (size_t i = 0; i < CST_ARRAY_LEN(fields); i++)
		cst_buf_printf(out, ", \"%s\": %llu", fields[i].name, (unsigned long long)fields[i].value);
	cst_buf_add_char(out, '}');
}

/* The cache keeps its metrics itself. */
static void add_cache(const struct cst_mount_view *v, const struct cst_cache_stats *c, struct cst_buf *out)
{
	static const char *const policies[] = {"s3fifo", "pin", "stream"};
	cst_buf_printf(
		out,
		", \"cache\": {\"policy\": \"%s\", \"finish\": %s, \"misses\": %llu, \"objects\": %llu, \"levels\": [",
		policies[v->plan->o.cache_policy], v->plan->o.cache_finish ? "true" : "false",
		(unsigned long long)c->misses, (unsigned long long)c->objects);
	for (unsigned i = 0; i < c->level_count; i++)
		add_level(&c->levels[i], i, out);
	cst_buf_add_str(out, "]}");
}

/* Where the bytes that readers got came from. Bytes fetched ahead that nobody has read yet count for the store. */
static void add_sources(const struct cst_mount_view *v, const struct cst_cache_stats *c, struct cst_buf *out)
{
	struct cst_fetch_stats f = {0};
	cst_fetch_stats(v->fetch, &f);
	uint64_t below = f.bytes_local + f.bytes_fetched;
	uint64_t memory = f.bytes_read > below ? f.bytes_read - below : 0;
	double all = (double)(memory + below), share = all > 0 ? 100.0 / all : 0;
	cst_buf_printf(
		out,
		", \"sources\": {\"memory\": {\"bytes\": %llu, \"percent\": %.1f}, \"origin\": {\"bytes\": %llu, "
		"\"percent\": %.1f}",
		(unsigned long long)memory, (double)memory * share, (unsigned long long)f.bytes_fetched,
		(double)f.bytes_fetched * share);
	for (unsigned i = 0; i < c->level_count; i++)
		cst_buf_printf(out, ", \"level%u\": {\"bytes\": %llu, \"percent\": %.1f}", i,
			       (unsigned long long)c->levels[i].hit_bytes, (double)c->levels[i].hit_bytes * share);
	cst_buf_add_char(out, '}');
}

/* ---- who keeps the mount ---- */

static void put_supervisor(const struct cst_mount_view *v, const struct sink *s)
{
	const struct cst_state_header *h = cst_keeper_header(v->keeper);
	struct cst_state_stats state;
	struct cst_fuse_stats fuse;
	int64_t now = cst_now();
	cst_state_stats(cst_keeper_state(v->keeper), &state);
	cst_fuse_stats(v->fuse, &fuse);
	PUT_SECTION(
		s, "supervisor",
		{"pid", GAUGE, (uint64_t)__atomic_load_n(&h->supervisor_pid, __ATOMIC_RELAXED),
		 "Process that keeps the mount"},
		{"file_system_pid", GAUGE, (uint64_t)h->serving_pid, "Process that serves it"},
		{"uptime_s", GAUGE, (uint64_t)((now - h->supervisor_started) / CST_NS_PER_S),
		 "Since the process that keeps the mount began"},
		{"file_system_uptime_s", GAUGE, (uint64_t)((now - h->serving_started) / CST_NS_PER_S),
		 "Since the process that serves it began"},
		{"mounted_s", GAUGE, (uint64_t)((now - h->mount_started) / CST_NS_PER_S), "Since the mount began"},
		{"restarts", COUNT, h->restarts, "Times that the process that serves was started again"},
		{"hangs", COUNT, h->hangs, "Of them, because it gave no sign of life"},
		{"takeovers", COUNT, __atomic_load_n(&h->takeovers, __ATOMIC_RELAXED),
		 "Times that the process that keeps the mount was started again"},
		{"upgrades", COUNT, h->upgrades, "Times that the program was replaced"},
		{"upgrades_begun", COUNT, h->upgrade_begun, "Times that it was tried"},
		{"upgrades_ended", COUNT, __atomic_load_n(&h->upgrade_ended, __ATOMIC_ACQUIRE),
		 "Times that that came to an end"},
		{"kept_records", GAUGE, state.records, "Files, directories and opens that a next process would know"},
		{"not_kept", GAUGE, state.on_heap, "Those that it wouldn't, for want of room"},
		{"inherited_opens", GAUGE, fuse.inherited_opens,
		 "Files that a process before this one has passed through to the cache"});
	if (!s->json)
		return;
	s->json->len--; /* the brace */
	cst_buf_printf(s->json, ", \"last_exit_at\": %lld, ", (long long)(h->died_at / CST_NS_PER_S));
	add_text(s->json, "last_exit", h->died_of);
	cst_buf_add_str(s->json, ", ");
	add_text(s->json, "upgrade_error", h->upgrade_error);
	cst_buf_add_char(s->json, '}');
}

/* ---- all of it ---- */

static void put_layers(const struct cst_mount_view *v, const struct sink *s)
{
	struct cst_cache_stats cache = {0};
	if (v->cache)
		cst_cache_stats(v->cache, &cache);
	put_supervisor(v, s);
	put_kernel(v, s);
	put_files(v, s);
	put_data(v, s);
	put_writes(v, s);
	if (s->json)
		add_sources(v, &cache, s->json);
	if (s->json && v->cache)
		add_cache(v, &cache, s->json);
	put_requests(v, s);
	if (!s->json)
		return;
	cst_buf_add_str(s->json, ", \"loads\": ");
	cst_mount_loads_json(v->loads, s->json);
}

void cst_mount_stats_metrics(const struct cst_mount_view *v)
{
	struct sink s = {NULL};
	put_layers(v, &s);
}

void cst_mount_stats_json(const struct cst_mount_view *v, struct cst_buf *out)
{
	struct sink s = {out};
	CST_AUTO_BUF passthrough = CST_BUF_INIT;
	cst_mount_passthrough_text(v, &passthrough);
	const struct {
		const char *name, *value;
	} texts[] = {
		{"mountpoint", v->plan->mountpoint},
		{"source", v->plan->access.source},
		{"store", cst_bucket_describe(v->link->bucket)},
		{"credentials", cst_credentials_source(v->link->credentials)},
		{"mode", cst_mount_plan_mode(v->plan)},
		{"passthrough", passthrough.data},
		{"version", CST_VERSION},
		{"log", v->log_name},
	};
	cst_buf_add_char(out, '{');
	for (size_t i = 0; i < CST_ARRAY_LEN(texts); i++) {
		add_text(out, texts[i].name, texts[i].value);
		cst_buf_add_str(out, ", ");
	}
	/* The process to send signals to, and since when there is the mount. */
	const struct cst_state_header *h = cst_keeper_header(v->keeper);
	cst_buf_printf(out, "\"pid\": %ld, \"uptime_s\": %lld", (long)h->supervisor_pid,
		       (long long)((cst_now() - h->mount_started) / CST_NS_PER_S));
	put_layers(v, &s);
	cst_buf_add_str(out, "}\n");
}
