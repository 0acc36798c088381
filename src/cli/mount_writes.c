#define CST_LOG_AREA "mount"
#include "cli/mount_writes.h"

#include "base/log.h"
#include "base/text.h"
#include "base/units.h"
#include "publish/keep.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC 0x6d577274u
/* A write that finds no room keeps the buffer that it came in. Where room is scarce these are small, so that hundreds of writers don't hold more
 * in waiting than all uploads together. */
#define SCARCE (UINT64_C(128) << 20)
#define WRITE_SMALL (128u << 10)
#define WRITE_LARGE (1u << 20)

#define SETTLE_STEP CST_NS_PER_S /* a wait that was given up ends after that */
#define TELL_EVERY 10		 /* steps */

struct cst_mount_writes {
	uint32_t magic;
	struct cst_publish *publish;
	char *keep_dir, *writer;
	bool unmounted; /* atomic */
	bool given_up;	/* atomic */
};

static int refuse_keep_dir(struct cst_error *err, const char *dir, int code)
{
	cst_error_set(err, code, "can't use %s to keep conflicts in", dir);
	cst_error_why(err, "%s", strerror(code));
	cst_error_hint(err, "name another directory with keep_dir=DIR");
	return -code;
}

/* With all above it; its own mode is 0700, as the files of all mounts of this user may lie there. */
static int make_keep_dir(const char *dir, struct cst_error *err)
{
	CST_AUTO_FREE char *path = cst_xstrdup(dir);
	for (char *c = path + 1; *c != '\0'; c++) {
		if (*c != '/')
			continue;
		*c = '\0';
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			return refuse_keep_dir(err, dir, errno);
		*c = '/';
	}
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return refuse_keep_dir(err, dir, errno);
	if (access(path, R_OK | W_OK | X_OK) < 0)
		return refuse_keep_dir(err, dir, errno);
	return 0;
}

uint32_t cst_mount_writes_max_write(const struct cst_mount_plan *plan)
{
	if (plan->write == CST_FS_WRITE_NONE)
		return 0;
	return plan->o.upload_memory < SCARCE ? WRITE_SMALL : WRITE_LARGE;
}

int cst_mount_writes_open(struct cst_mount_writes **writes, const struct cst_mount_plan *plan,
			  struct cst_bucket *bucket, struct cst_error *err)
{
	const struct cst_mount_options *o = &plan->o;
	if (plan->write == CST_FS_WRITE_NONE)
		return 0;
	int rc = make_keep_dir(plan->keep_dir, err);
	if (rc != 0)
		return rc;
	char host[256] = "";
	(void)gethostname(host, sizeof(host) - 1);
	struct cst_mount_writes *w = CST_NEW(struct cst_mount_writes);
	w->magic = MAGIC;
	w->keep_dir = cst_xstrdup(plan->keep_dir);
	w->writer = cst_xasprintf("%s:%s", host, plan->mountpoint);
	struct cst_publish_config config = {.bucket = bucket,
					    .memory = o->upload_memory,
					    .part_size = o->upload_part_size,
					    .parallel = (unsigned)o->upload_concurrency,
					    .stream_parallel = (unsigned)o->parallel_count,
					    .verify_crc64 = o->enable_crc64,
					    .keep_dir = w->keep_dir,
					    .writer = w->writer};
	w->publish = cst_publish_new(&config, err);
	*writes = w;
	return w->publish ? 0 : -1;
}

void cst_mount_writes_close(struct cst_mount_writes *w)
{
	if (!w)
		return;
	CST_CHECK(w, MAGIC);
	if (w->publish)
		cst_publish_free(w->publish);
	free(w->keep_dir);
	free(w->writer);
	w->magic = 0;
	free(w);
}

struct cst_publish *cst_mount_writes_publish(const struct cst_mount_writes *w)
{
	return w ? w->publish : NULL;
}

/* ---- the end ---- */

static void tell_progress(const struct cst_mount_writes *w)
{
	struct cst_publish_stats p = {0};
	char size[CST_SIZE_TEXT];
	cst_publish_stats(w->publish, &p);
	cst_format_size(p.bytes_pending, size);
	cst_log_info(
		"waiting for %u files to be published, %s (%u requests under way); a second SIGTERM, or cistern umount --force, "
		"keeps them in %s instead",
		p.streams, size, p.requests_in_flight, w->keep_dir);
}

void cst_mount_writes_settle(struct cst_mount_writes *w, struct cst_fs *fs)
{
	if (!w)
		return;
	CST_CHECK(w, MAGIC);
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	int rc = -ETIMEDOUT;
	__atomic_store_n(&w->unmounted, true, __ATOMIC_SEQ_CST);
	for (unsigned step = 0; rc == -ETIMEDOUT && !__atomic_load_n(&w->given_up, __ATOMIC_SEQ_CST); step++) {
		if (step % TELL_EVERY == 1)
			tell_progress(w);
		err = (struct cst_error)CST_ERROR_INIT;
		rc = cst_fs_settle_writes(fs, cst_now() + SETTLE_STEP, &err);
	}
	if (rc != 0)
		cst_publish_stop(w->publish);
	if (rc != 0)
		cst_log_error("not everything that was written is in the store: %s",
			      rc == -ETIMEDOUT ? "the wait was ended" : cst_error_text(&err, text, sizeof(text)));
}

void cst_mount_writes_give_up(struct cst_mount_writes *w)
{
	if (w)
		__atomic_store_n(&w->given_up, true, __ATOMIC_SEQ_CST);
}

/* ---- requests ---- */

bool cst_mount_writes_is_target(struct cst_slice target)
{
	return cst_slice_starts(target, CST_SLICE("/writes"));
}

int cst_mount_writes_request(struct cst_mount_writes *w, struct cst_slice method, struct cst_slice target,
			     struct cst_buf *json)
{
	struct cst_publish_stats p = {0};
	if (cst_slice_is(method, "POST") && cst_slice_is(target, "/writes/give-up"))
		cst_mount_writes_give_up(w);
	if (w)
		cst_publish_stats(w->publish, &p);
	cst_buf_printf(json, "{\"pid\": %ld, \"unmounted\": %s, \"writers\": %u, \"pending\": %llu, \"keep_dir\": ",
		       (long)getpid(), w && __atomic_load_n(&w->unmounted, __ATOMIC_SEQ_CST) ? "true" : "false",
		       p.streams, (unsigned long long)p.bytes_pending);
	cst_text_json_string(json, cst_slice_of(w ? w->keep_dir : ""));
	cst_buf_add_str(json, ", \"writer\": ");
	cst_text_json_string(json, cst_slice_of(w ? w->writer : ""));
	cst_buf_add_str(json, "}\n");
	return 200;
}
