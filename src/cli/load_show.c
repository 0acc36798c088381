#include "cli/load_show.h"

#include "base/clock.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/cli.h"
#include "cli/mount_load.h"

#include <string.h>
#include <sys/ioctl.h>

#define BAR_EVERY (200 * CST_NS_PER_MS)
#define LINE_EVERY (5 * CST_NS_PER_S)
#define RATE_EVERY (500 * CST_NS_PER_MS)
#define FAILURES_SHOWN 20
#define BAR_MIN 10
#define BAR_MAX 40

void cst_load_show_init(struct cst_load_show *s, enum cst_load_show_mode mode, FILE *report)
{
	*s = (struct cst_load_show){.mode = mode, .report = report, .started = cst_now()};
	if (mode == CST_SHOW_BAR && !isatty(STDERR_FILENO))
		s->mode = CST_SHOW_LINES;
}

/* ---- texts ---- */

static void add_time(struct cst_buf *out, double seconds)
{
	unsigned long s = (unsigned long)(seconds + 0.5);
	if (s >= 3600)
		cst_buf_printf(out, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
	else
		cst_buf_printf(out, "%lu:%02lu", s / 60, s % 60);
}

static void add_size(struct cst_buf *out, uint64_t bytes)
{
	char text[CST_SIZE_TEXT];
	cst_format_size(bytes, text);
	cst_buf_add_str(out, text);
}

/* "120/400 files 1.20GiB/3.40GiB 512.00MiB/s ETA 0:12" */
static void add_numbers(const struct cst_load_progress *p, double rate, struct cst_buf *out)
{
	uint64_t missing = p->bytes > p->bytes_done ? p->bytes - p->bytes_done : 0;
	cst_buf_printf(out, "%llu/%llu%s files ", (unsigned long long)p->objects_done, (unsigned long long)p->objects,
		       p->listed ? "" : "+");
	add_size(out, p->bytes_done);
	cst_buf_add_char(out, '/');
	add_size(out, p->bytes);
	if (!p->listed)
		cst_buf_add_char(out, '+');
	cst_buf_add_char(out, ' ');
	add_size(out, (uint64_t)rate);
	cst_buf_add_str(out, "/s");
	if (p->listed && rate >= 1 && missing > 0) {
		cst_buf_add_str(out, " ETA ");
		add_time(out, (double)missing / rate);
	}
	uint64_t bad = p->objects_failed + p->objects_refused;
	if (bad > 0)
		cst_buf_printf(out, " %llu failed", (unsigned long long)bad);
}

void cst_load_show_line(const struct cst_load_progress *p, double rate, unsigned columns, struct cst_buf *out)
{
	CST_AUTO_BUF numbers = CST_BUF_INIT;
	double part = p->bytes > 0 ? (double)p->bytes_done / (double)p->bytes : p->listed ? 1 : 0;
	add_numbers(p, rate, &numbers);
	int bar = (int)columns - (int)numbers.len - 10;
	if (bar >= BAR_MIN) {
		bar = cst_min(bar, BAR_MAX);
		int full = (int)(part * bar);
		cst_buf_add_char(out, '[');
		for (int i = 0; i < bar; i++)
			cst_buf_add_char(out, (char)(i < full ? '=' : i == full ? '>' : ' '));
		cst_buf_add_str(out, "] ");
	}
	/* Until all names are known a share would fall again. */
	if (p->listed)
		cst_buf_printf(out, "%3d %% ", (int)(part * 100));
	cst_buf_add_slice(out, cst_buf_slice(&numbers));
	if (columns > 1 && out->len >= columns) {
		out->len = columns - 1;
		out->data[out->len] = '\0';
	}
}

/* ---- drawing ---- */

static unsigned terminal_columns(void)
{
	struct winsize size;
	return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

void cst_load_show_clear(struct cst_load_show *s)
{
	if (s->on_line)
		fputs("\r\033[K", stderr);
	s->on_line = false;
}

static bool is_due(struct cst_load_show *s, bool finished)
{
	int64_t now = cst_now();
	if (s->mode == CST_SHOW_QUIET)
		return false;
	/* Lines and JSON begin after a while: what is done at once has its summary. */
	int64_t last = s->drawn ? s->drawn : s->mode == CST_SHOW_BAR ? 0 : s->started;
	bool due = now - last >= (s->mode == CST_SHOW_BAR ? BAR_EVERY : LINE_EVERY) ||
		   (finished && s->mode == CST_SHOW_BAR && s->on_line);
	if (due)
		s->drawn = now;
	return due;
}

/* A weighted mean of the last few seconds. */
static void measure_rate(struct cst_load_show *s, uint64_t bytes)
{
	int64_t now = cst_now();
	int64_t passed = now - (s->rate_at ? s->rate_at : s->started);
	if (passed < RATE_EVERY)
		return;
	/* What failed is no longer counted. */
	double fresh = (double)(bytes - cst_min(bytes, s->rate_bytes)) * (double)CST_NS_PER_S / (double)passed;
	s->rate = s->rate_at ? s->rate * 0.7 + fresh * 0.3 : fresh;
	s->rate_at = now;
	s->rate_bytes = bytes;
}

static void draw(struct cst_load_show *s, const char *line)
{
	if (s->mode == CST_SHOW_BAR)
		fprintf(stderr, "\r%s\033[K", line);
	else
		fprintf(stderr, "%s\n", line);
	fflush(stderr);
	s->on_line = s->mode == CST_SHOW_BAR;
}

void cst_load_show_progress(struct cst_load_show *s, const struct cst_load_progress *p)
{
	CST_AUTO_BUF line = CST_BUF_INIT;
	measure_rate(s, p->bytes_fetched);
	if (!is_due(s, p->finished))
		return;
	if (s->mode == CST_SHOW_JSON) {
		cst_load_progress_json(p, &line);
		printf("{\"event\": \"progress\", %s, \"rate\": %.0f}\n", line.data, s->rate);
		fflush(stdout);
		return;
	}
	cst_load_show_line(p, s->rate, s->mode == CST_SHOW_BAR ? terminal_columns() : 0, &line);
	draw(s, line.data);
}

void cst_load_show_metadata(struct cst_load_show *s, uint64_t dirs, uint64_t names, bool finished)
{
	CST_AUTO_BUF line = CST_BUF_INIT;
	if (!finished && !is_due(s, false))
		return;
	if (s->mode == CST_SHOW_QUIET)
		return;
	if (s->mode == CST_SHOW_JSON) {
		printf("{\"event\": \"metadata\", \"directories\": %llu, \"names\": %llu, \"finished\": %s}\n",
		       (unsigned long long)dirs, (unsigned long long)names, finished ? "true" : "false");
		fflush(stdout);
		return;
	}
	cst_buf_printf(&line, "%s: %llu directories, %llu names", finished ? "Metadata" : "Listing",
		       (unsigned long long)dirs, (unsigned long long)names);
	if (finished) {
		cst_load_show_clear(s);
		printf("%s.\n", line.data);
	} else {
		draw(s, line.data);
	}
}

void cst_load_show_failure(struct cst_load_show *s, const char *key, const char *why)
{
	CST_AUTO_BUF name = CST_BUF_INIT;
	s->failures++;
	cst_text_printable(&name, cst_slice_of(key));
	if (s->report)
		fprintf(s->report, "%s\t%s\n", name.data ? name.data : "", why);
	if (s->mode == CST_SHOW_JSON) {
		CST_AUTO_BUF json = CST_BUF_INIT;
		cst_text_json_string(&json, cst_slice_of(key));
		cst_buf_add_str(&json, ", \"error\": ");
		cst_text_json_string(&json, cst_slice_of(why));
		printf("{\"event\": \"failure\", \"key\": %s}\n", json.data);
	}
	if (s->shown >= FAILURES_SHOWN)
		return;
	s->shown++;
	cst_load_show_clear(s);
	/* Most reasons name it themselves. */
	if (name.data && strstr(why, name.data))
		fprintf(stderr, "cistern: %s\n", why);
	else
		fprintf(stderr, "cistern: %s: %s\n", name.data ? name.data : "", why);
}

/* ---- the end ---- */

static void add_count(struct cst_buf *out, uint64_t count, const char *what)
{
	if (count > 0)
		cst_buf_printf(out, ", %llu %s", (unsigned long long)count, what);
}

static void summary_text(const struct cst_load_progress *p, double seconds, struct cst_buf *out)
{
	uint64_t loaded = p->objects_done > p->objects_skipped ? p->objects_done - p->objects_skipped : 0;
	uint64_t missing = p->objects - cst_min(p->objects, p->objects_done);
	uint64_t known = p->objects_failed + p->objects_refused;
	cst_buf_printf(out, "Loaded %llu %s", (unsigned long long)loaded, loaded == 1 ? "file" : "files");
	add_count(out, p->objects_skipped, "were there already");
	add_count(out, p->objects_failed, "failed");
	add_count(out, p->objects_refused, "refused (no room, or the policy)");
	add_count(out, missing - cst_min(missing, known), "not reached");
	add_count(out, p->objects_vanished, "vanished meanwhile");
	cst_buf_add_str(out, "; ");
	add_size(out, p->bytes_fetched);
	cst_buf_add_str(out, " fetched in ");
	if (seconds < 10)
		cst_buf_printf(out, "%.1f s", seconds);
	else
		add_time(out, seconds);
	if (seconds > 0 && p->bytes_fetched > 0) {
		cst_buf_add_str(out, ", ");
		add_size(out, (uint64_t)((double)p->bytes_fetched / seconds));
		cst_buf_add_str(out, "/s");
	}
}

void cst_load_show_summary(struct cst_load_show *s, const struct cst_load_progress *p, bool cancelled)
{
	CST_AUTO_BUF text = CST_BUF_INIT;
	double seconds = (double)(cst_now() - s->started) / (double)CST_NS_PER_S;
	cst_load_show_clear(s);
	if (s->mode == CST_SHOW_JSON) {
		cst_load_progress_json(p, &text);
		printf("{\"event\": \"summary\", %s, \"seconds\": %.3f, \"cancelled\": %s}\n", text.data, seconds,
		       cancelled ? "true" : "false");
		return;
	}
	if (s->failures > s->shown)
		cst_cli_say("and %llu more; %s", (unsigned long long)(s->failures - s->shown),
			    s->report ? "the report lists all" : "--report FILE lists all");
	if (s->mode == CST_SHOW_QUIET)
		return;
	summary_text(p, seconds, &text);
	printf("%s.\n", text.data);
	if (cancelled)
		printf("Stopped before the end; the same command goes on where it was.\n");
}
