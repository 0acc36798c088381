#define CST_LOG_AREA "conflicts"
#include "base/log.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/cli.h"
#include "cli/conflict_push.h"
#include "cli/mount_options.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>

/* The options that mount has too are its members, so that its configuration files can be read (-c). */
struct conflicts_options {
	struct cst_mount_options m;
#define OPTION CST_OPTION_MEMBER
#define SECTION(title)
#include "cli/conflicts_options.def"
#undef OPTION
	struct {
#define OPTION CST_OPTION_GIVEN
#include "cli/conflicts_options.def"
#undef OPTION
#undef SECTION
	} given;
};

static const struct cst_option conflicts_rows[] = {
#define SECTION CST_OPTION_SECTION_ROW
#define OPTION(...) CST_OPTION_ROW(conflicts_options, __VA_ARGS__)
#include "cli/conflicts_options.def"
#undef OPTION
#define OPTION(...) CST_OPTION_ROW(cst_mount_options, __VA_ARGS__)
	OPTION(keep_dir, PATH, "", "DIR", 0, 0, NULL, 0, "Where the mount keeps them; by default as for cistern mount.")
		OPTION(config, PATH, "c conf config_file", "FILE", 0, 0, NULL, 0,
		       "Configuration file of the mount: its store and credentials are used, the command line goes before it.")
#include "cli/access_options.def"
#undef OPTION
#undef SECTION
};
static const struct cst_option_table conflicts_table = {conflicts_rows, CST_ARRAY_LEN(conflicts_rows),
							"cistern conflicts", false};

struct work {
	struct conflicts_options o;
	struct cst_option_set set;
	char *dir;
	struct cst_access access;
	struct cst_link link;
	bool linked;
};

static bool is_url(const struct cst_keep_record *r)
{
	return r->bucket && cst_url_is(r->bucket);
}

/* "oss://bucket/key" */
static void add_name(struct cst_buf *out, const struct cst_keep_record *r)
{
	CST_AUTO_BUF text = CST_BUF_INIT;
	cst_buf_printf(&text, "%s%s/%s", is_url(r) ? "" : "oss://", r->bucket ? r->bucket : "", r->key ? r->key : "");
	cst_text_printable(out, cst_buf_slice(&text));
}

/* ---- ls ---- */

static void add_age(struct cst_buf *out, int64_t seconds)
{
	static const struct {
		int64_t length;
		const char *unit;
	} units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
	seconds = cst_max(seconds, (int64_t)0);
	for (size_t i = 0; i < CST_ARRAY_LEN(units); i++) {
		if (seconds < units[i].length && units[i].length > 1)
			continue;
		cst_buf_printf(out, "%lld %s", (long long)(seconds / units[i].length), units[i].unit);
		return;
	}
}

static void add_text(struct cst_buf *out, const char *name, const char *value)
{
	cst_buf_printf(out, ", \"%s\": ", name);
	cst_text_json_string(out, cst_slice_of(value ? value : ""));
}

static void print_json(const struct cst_keep_record *r)
{
	CST_AUTO_BUF out = CST_BUF_INIT;
	char at[CST_TIME_TEXT];
	cst_time_iso(r->at, at);
	cst_buf_add_str(&out, "{\"id\": ");
	cst_text_json_string(&out, cst_slice_of(r->id));
	add_text(&out, "bucket", r->bucket);
	add_text(&out, "key", r->key);
	add_text(&out, "at", at);
	add_text(&out, "reason", r->reason);
	add_text(&out, "writer", r->writer);
	add_text(&out, "base_etag", r->base_etag);
	add_text(&out, "upload_id", r->upload_id);
	printf("%s, \"size\": %llu, \"parts\": %zu, \"size_in_parts\": %llu, \"crc64\": \"%llu\"}\n", out.data,
	       (unsigned long long)r->size, r->part_count, (unsigned long long)cst_conflict_in_store(r),
	       (unsigned long long)r->crc64);
}

static void print_record(void *arg, const struct cst_keep_record *r)
{
	const struct work *w = arg;
	CST_AUTO_BUF name = CST_BUF_INIT;
	CST_AUTO_BUF age = CST_BUF_INIT;
	char size[CST_SIZE_TEXT];
	if (w->o.output == 1) {
		print_json(r);
		return;
	}
	add_name(&name, r);
	add_age(&age, (int64_t)time(NULL) - r->at);
	cst_format_size(r->size, size);
	printf("%s %11s %6s  %s (%s%s)\n", r->id, size, age.data, name.data, r->reason ? r->reason : "",
	       cst_conflict_in_store(r) > 0 ? "; part of it in an unfinished upload" : "");
}

static int list(struct work *w, const struct cst_option_list *args, struct cst_error *err)
{
	(void)args;
	int rc = cst_keep_each(w->dir, print_record, w, err);
	return rc == -ENOENT ? 0 : rc; /* no mount has kept anything there yet */
}

/* ---- get ---- */

static int refuse_parts(const struct cst_keep_record *r, struct cst_error *err)
{
	cst_error_set(err, ENOTSUP, "can't read %s", r->id);
	cst_error_why(
		err,
		"%llu of its %llu bytes lie in parts of an unfinished upload, which the store shows to nobody before it is completed",
		(unsigned long long)cst_conflict_in_store(r), (unsigned long long)r->size);
	cst_error_hint(
		err,
		"cistern conflicts push %s --current-as OTHER-KEY publishes it, and keeps the version that is there now",
		r->id);
	return -ENOTSUP;
}

static int write_all(int fd, const char *p, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, p, len);
		if (n < 0 && errno != EINTR)
			return -errno;
		p += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int write_file(const struct work *w, const char *path, const struct cst_conflict_data *data,
		      struct cst_error *err)
{
	bool out = strcmp(path, "-") == 0;
	int fd = out ? STDOUT_FILENO
		     : open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (w->o.force ? O_TRUNC : O_EXCL), 0666);
	int rc = fd < 0 ? -errno : write_all(fd, data->data, data->size);
	if (fd >= 0 && !out && fsync(fd) < 0 && rc == 0 && errno != EINVAL)
		rc = -errno;
	if (fd >= 0 && !out && close(fd) < 0 && rc == 0)
		rc = -errno;
	if (rc == 0)
		return 0;
	cst_error_set(err, -rc, "can't write %s", path);
	cst_error_why(err, "%s", strerror(-rc));
	if (rc == -EEXIST)
		cst_error_hint(err, "name another file, or --force to replace it");
	return rc;
}

static int get(struct work *w, const struct cst_option_list *args, struct cst_error *err)
{
	struct cst_keep_record r = {0};
	struct cst_conflict_data data = {0};
	int rc = cst_keep_read(w->dir, args->items[1], &r, err);
	if (rc == 0 && cst_conflict_in_store(&r) > 0)
		rc = refuse_parts(&r, err);
	if (rc == 0)
		rc = cst_conflict_map(w->dir, &r, &data, err);
	if (rc == 0)
		rc = write_file(w, args->items[2], &data, err);
	cst_conflict_unmap(&data);
	cst_keep_record_fini(&r);
	return rc;
}

/* ---- push, rm ---- */

static int link_to(struct work *w, const struct cst_keep_record *r, struct cst_error *err)
{
	CST_AUTO_FREE char *url = cst_xasprintf("%s%s", is_url(r) ? "" : "oss://", r->bucket ? r->bucket : "");
	if (w->linked) {
		cst_link_close(&w->link);
		cst_access_fini(&w->access);
	}
	w->linked = true;
	w->access = (struct cst_access){0};
	int rc = cst_url_parse(url, &w->access.url, err);
	if (rc != 0)
		return rc;
	cst_access_name(&w->access);
	rc = cst_access_resolve(&w->access, &w->o.m, false, err);
	return rc ? rc : cst_link_open(&w->link, &w->access, &w->o.m, err);
}

/* A key, or the URL of one in the bucket of the record. */
static int take_key(const struct work *w, const char *text, const char **key, struct cst_error *err)
{
	*key = text;
	if (!text || !cst_url_is(text))
		return 0;
	CST_AUTO_FREE char *start = cst_xasprintf("%s/", w->access.source);
	if (strncmp(text, start, strlen(start)) != 0) {
		cst_error_set(err, EINVAL, "%s is not in the same bucket", text);
		cst_error_hint(err, "name a key of %s", w->access.source);
		return -EINVAL;
	}
	*key = text + strlen(start);
	return 0;
}

static void say_upload_stays(const struct cst_keep_record *r, const struct cst_error *err)
{
	char text[CST_ERROR_TEXT_MAX];
	cst_cli_say("the upload %s of %s stays in the store: %s", r->upload_id, r->key,
		    cst_error_text(err, text, sizeof(text)));
}

static int push(struct work *w, const struct cst_option_list *args, struct cst_error *err)
{
	struct cst_keep_record r = {0};
	struct cst_conflict_push p = {.dir = w->dir, .record = &r};
	uint64_t size = 0;
	char text[CST_SIZE_TEXT];
	int rc = cst_keep_read(w->dir, args->items[1], &r, err);
	if (rc == 0)
		rc = link_to(w, &r, err);
	if (rc == 0)
		rc = take_key(w, w->o.as, &p.as, err);
	if (rc == 0)
		rc = take_key(w, w->o.current_as, &p.current_as, err);
	if (rc == 0)
		rc = cst_conflict_push(w->link.bucket, &p, &size, err);
	/* An upload that nobody completes now. It is published in any case. */
	if (rc == 0 && (p.as || r.part_count == 0) && cst_conflict_abort(w->link.bucket, &r, err) != 0)
		say_upload_stays(&r, err);
	if (rc == 0)
		rc = cst_keep_remove(w->dir, r.id, err);
	if (rc == 0) {
		cst_format_size(size, text);
		printf("published %s/%s, %s\n", w->access.source, p.as ? p.as : r.key, text);
	}
	cst_keep_record_fini(&r);
	return rc;
}

static int remove_one(struct work *w, const char *id, struct cst_error *err)
{
	struct cst_keep_record r = {0};
	int rc = cst_keep_read(w->dir, id, &r, err);
	bool upload = rc == 0 && r.upload_id && r.upload_id[0];
	if (rc == 0 && upload)
		rc = link_to(w, &r, err);
	if (rc == 0 && upload)
		rc = cst_conflict_abort(w->link.bucket, &r, err);
	if (rc != 0 && upload && w->o.force) {
		say_upload_stays(&r, err);
		rc = 0;
	}
	if (rc == 0)
		rc = cst_keep_remove(w->dir, id, err);
	cst_keep_record_fini(&r);
	return rc;
}

static int remove_all(struct work *w, const struct cst_option_list *args, struct cst_error *err)
{
	int rc = 0;
	for (size_t i = 1; i < args->count && rc == 0; i++)
		rc = remove_one(w, args->items[i], err);
	return rc;
}

/* ---- the command ---- */

static const struct action {
	const char *name;
	size_t min, max; /* arguments after it */
	int (*run)(struct work *w, const struct cst_option_list *args, struct cst_error *err);
} actions[] = {{"ls", 0, 0, list}, {"get", 2, 2, get}, {"push", 1, 1, push}, {"rm", 1, SIZE_MAX, remove_all}};

static int find_action(const struct cst_option_list *args, const struct action **found, struct cst_error *err)
{
	for (size_t i = 0; i < CST_ARRAY_LEN(actions); i++) {
		size_t count = args->count - 1;
		if (strcmp(args->items[0], actions[i].name) != 0)
			continue;
		*found = &actions[i];
		if (count >= actions[i].min && count <= actions[i].max)
			return 0;
		cst_error_set(err, EINVAL, "too %s arguments for %s", count < actions[i].min ? "few" : "many",
			      args->items[0]);
		cst_error_hint(err, "cistern conflicts ls, get ID FILE, push ID, rm ID...");
		return -EINVAL;
	}
	cst_error_set(err, EINVAL, "unknown action %s", args->items[0]);
	cst_error_hint(err, "one of ls, get, push, rm");
	return -EINVAL;
}

static int prepare(struct work *w, struct cst_error *err)
{
	struct cst_log_config log = {.json = false};
	if (cst_log_parse_level(w->o.log_level, &log.level) != 0) {
		cst_error_set(err, EINVAL, "bad value \"%s\" for --log-level", w->o.log_level);
		cst_error_hint(err, "one of error, warn, info, debug, trace");
		return -EINVAL;
	}
	int rc = cst_log_init(&log, err);
	if (rc == 0 && w->o.m.config) {
		CST_AUTO_FREE char *path = cst_xstrdup(w->o.m.config);
		w->set.table = &cst_mount_table;
		rc = cst_option_parse_file(&w->set, path, err);
		w->set.table = &conflicts_table;
	}
	const char *dir = w->o.m.keep_dir;
	w->dir = dir && dir[0] ? cst_xstrdup(dir) : cst_mount_keep_dir_default();
	return rc;
}

static int run(int argc, char **argv)
{
	struct work *w = CST_NEW(struct work);
	const struct action *action = NULL;
	struct cst_error err = CST_ERROR_INIT;
	int status;
	if (cst_cli_parse(&cst_command_conflicts, &w->set, &w->o, sizeof(w->o), argc, argv, 1, SIZE_MAX, &status)) {
		int rc = prepare(w, &err);
		if (rc == 0)
			rc = find_action(&w->set.arguments, &action, &err);
		if (rc == 0)
			rc = action->run(w, &w->set.arguments, &err);
		if (rc != 0)
			status = cst_cli_fail(&err, rc == -EINVAL ? CST_EXIT_USAGE : CST_EXIT_FAILED);
	}
	cst_access_forget_secrets(&w->o.m);
	if (w->linked) {
		cst_link_close(&w->link);
		cst_access_fini(&w->access);
	}
	/* What only the table of mount knows came from a configuration file. */
	w->set.table = &conflicts_table;
	cst_option_set_fini(&w->set);
	w->set.table = &cst_mount_table;
	cst_option_set_fini(&w->set);
	free(w->dir);
	free(w);
	return status;
}

const struct cst_command cst_command_conflicts = {
	.name = "conflicts",
	.synopsis = "ls [--keep-dir DIR]\n"
		    "get ID FILE [--keep-dir DIR]\n"
		    "push ID [--as KEY | --current-as KEY] [--endpoint URL] [options]\n"
		    "rm ID... [--endpoint URL] [options]",
	.summary = "Files that a mount could not publish: list them, have them back, publish them after all",
	.description =
		"When somebody else has written an object while a program wrote it through a mount, closing the file fails with ESTALE (\"Stale file handle\"), "
		"the other's version stays, and the program's is kept: in a directory of the machine that wrote it (--keep-dir), as far as its parts are not "
		"in the store already. Files whose publishing was given up (cistern umount --force) are kept in the same way.\n\n"
		"ls writes a line for each: ID, size, age, name, reason. get writes one to FILE (- is standard output). push makes it the object's content, in "
		"place of the version that is there; --current-as KEY copies that one aside first, inside the store, and --as KEY publishes under another key "
		"instead. rm forgets it, and aborts its upload. After a push the copy is gone from the list.\n\n"
		"A large file's first parts are in an upload that was not completed. The store shows its bytes to nobody and can complete it under its own key alone: "
		"get and push --as can't work then, and say so; push --current-as keeps both versions. An upload that is neither pushed nor removed costs storage.",
	.examples =
		"cistern conflicts ls\n"
		"Lists what was kept.\n\n"
		"cistern conflicts get 20260102T030405-1f2e ./mine.csv\n"
		"Writes the kept version to a file.\n\n"
		"cistern conflicts push 20260102T030405-1f2e --current-as data/theirs.csv --endpoint https://oss-cn-hangzhou.aliyuncs.com\n"
		"Publishes it; the other version gets another name.\n",
	.words = "ls get push rm",
	.options = &conflicts_table,
	.run = run,
};
