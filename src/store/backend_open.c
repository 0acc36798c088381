/* The life of a backend: its folders, its lock, what a crash left behind. */
#define CST_LOG_AREA "store"
#include "store/append.h"
#include "store/backend.h"

#include "base/clock.h"
#include "base/log.h"
#include "store/room.h"
#include "store/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>

/* Sorted pictures of directories: 36 bytes and a name for each file of theirs. */
#define SCAN_CACHE_BYTES (128u << 20)

static int refuse(struct cst_error *err, int code, const char *dir, const char *why, const char *hint)
{
	cst_error_set(err, code, "can't serve the directory %s", dir);
	cst_error_why(err, "%s", why);
	cst_error_hint(err, "%s", hint);
	return -code;
}

static int make_path(const char *dir)
{
	CST_AUTO_FREE char *copy = cst_xstrdup(dir);

	for (char *p = copy + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(copy, 0755) != 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return mkdir(copy, 0755) == 0 || errno == EEXIST ? 0 : -errno;
}

static int empty_entry(void *arg, int dir, const char *name, unsigned char type)
{
	CST_AUTO_CLOSE int fd = type == DT_REG ? cst_backend_hold(arg, dir, name) : -1;

	cst_backend_forget(arg, fd);
	return cst_tree_remove(dir, name);
}

/* Drops records that were being written; tells whether there are others. */
static int look_at_record(void *arg, int dir, const char *name, unsigned char type)
{
	bool *any = arg;

	(void)type;
	if (strchr(name, '.'))
		unlinkat(dir, name, 0);
	else
		*any = true;
	return 0;
}

/* An upload that was killed while it began or ended has no `upload` any more, only its parts. */
static int sweep_upload(void *arg, int dir, const char *name, unsigned char type)
{
	CST_AUTO_FREE char *path = cst_xasprintf("%s/upload", name);

	(void)arg;
	(void)type;
	return faccessat(dir, path, F_OK, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT ? cst_tree_remove(dir, name) : 0;
}

static int sweep_bucket(void *arg, int dir, const char *name, unsigned char type)
{
	CST_AUTO_CLOSE int fd = cst_tree_open(dir, name, O_RDONLY | O_DIRECTORY);

	(void)type;
	if (fd >= 0)
		cst_tree_each(fd, sweep_upload, arg);
	return 0;
}

static int open_system(struct cst_store_backend *b, const char *dir, struct cst_error *err)
{
	const char *hint = "the store needs to write into DIR/.cistern; check owner, permissions and free space";

	b->sys = cst_tree_make_dir(b->dir, ".cistern");
	if (b->sys < 0)
		return refuse(err, -b->sys, dir, strerror(-b->sys), hint);
	b->lock = openat(b->sys, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (b->lock < 0)
		return refuse(err, errno, dir, strerror(errno), hint);
	if (flock(b->lock, LOCK_EX | LOCK_NB) != 0)
		return refuse(err, EBUSY, dir, "another store serves it", "stop that one, or use another directory");
	b->tmp = cst_tree_make_dir(b->sys, "tmp");
	b->uploads = cst_tree_make_dir(b->sys, "uploads");
	b->appends = cst_tree_make_dir(b->sys, "appends");
	b->records.dir = cst_tree_make_dir(b->sys, "records");
	if (b->tmp < 0 || b->uploads < 0 || b->appends < 0 || b->records.dir < 0)
		return refuse(err, EIO, dir, "its folder .cistern can't be used", hint);
	return 0;
}

/* Writers first: readers that overlap without end (each commit reads `tree` while it syncs) would keep them out. */
static void init_locks(struct cst_store_backend *b)
{
	pthread_rwlockattr_t attr;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&b->tree, &attr);
	for (size_t i = 0; i < CST_BACKEND_STRIPES; i++)
		pthread_rwlock_init(&b->stripes[i], &attr);
	for (size_t i = 0; i < CST_BACKEND_UPLOAD_STRIPES; i++)
		pthread_rwlock_init(&b->uploads_stripes[i], &attr);
	pthread_rwlockattr_destroy(&attr);
}

int cst_backend_new(const char *dir, struct cst_store_backend **backend, struct cst_error *err)
{
	struct cst_store_backend *b = CST_NEW(struct cst_store_backend);
	int rc = make_path(dir);

	b->magic = CST_BACKEND_MAGIC;
	b->sys = b->tmp = b->uploads = b->appends = b->lock = b->records.dir = -1;
	init_locks(b);
	b->scans = cst_scan_cache_new(SCAN_CACHE_BYTES);
	b->dir = rc ? -1 : open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (b->dir < 0) {
		rc = refuse(err, rc ? -rc : errno, dir, strerror(rc ? -rc : errno),
			    "name a directory that can be written");
		cst_backend_free(b);
		return rc;
	}
	rc = open_system(b, dir, err);
	if (rc) {
		cst_backend_free(b);
		return rc;
	}
	if (getrandom(&b->nonce, sizeof(b->nonce), 0) != sizeof(b->nonce))
		b->nonce = (uint64_t)cst_wall();
	cst_tree_each(b->records.dir, look_at_record, &b->records.in_use);
	rc = cst_room_recover(b);
	if (rc) {
		rc = refuse(err, -rc, dir, "an object that was being moved when the store was killed can't be put back",
			    "see .cistern/tmp in it: make sure that the disk has room and can be written");
		cst_backend_free(b);
		return rc;
	}
	cst_tree_each(b->tmp, empty_entry, b);
	cst_append_recover(b);
	cst_tree_each(b->uploads, sweep_bucket, NULL);
	*backend = b;
	return 0;
}

void cst_backend_free(struct cst_store_backend *b)
{
	int *fds[] = {&b->dir, &b->sys, &b->tmp, &b->uploads, &b->appends, &b->lock, &b->records.dir};

	CST_CHECK(b, CST_BACKEND_MAGIC);
	for (size_t i = 0; i < CST_ARRAY_LEN(fds); i++)
		cst_close_fd(fds[i]);
	cst_scan_cache_free(b->scans);
	pthread_rwlock_destroy(&b->tree);
	for (size_t i = 0; i < CST_BACKEND_STRIPES; i++)
		pthread_rwlock_destroy(&b->stripes[i]);
	for (size_t i = 0; i < CST_BACKEND_UPLOAD_STRIPES; i++)
		pthread_rwlock_destroy(&b->uploads_stripes[i]);
	b->magic = 0;
	free(b);
}
