#define CST_LOG_AREA "store"
#include "store/backend.h"

#include "base/clock.h"
#include "base/digest.h"
#include "base/log.h"
#include "store/room.h"
#include "store/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>

/* ---- buckets ---- */

bool cst_backend_is_bucket_name(struct cst_slice name)
{
	if (name.len < 3 || name.len > 63)
		return false;
	for (size_t i = 0; i < name.len; i++) {
		char c = name.data[i];
		bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');

		if (!plain && ((c != '-' && c != '.') || i == 0 || i == name.len - 1))
			return false;
		if (c == '.' && name.data[i - 1] == '.')
			return false;
	}
	return true;
}

int cst_backend_bucket(struct cst_store_backend *b, struct cst_slice name)
{
	char text[CST_BUCKET_NAME_MAX];

	CST_CHECK(b, CST_BACKEND_MAGIC);
	if (!cst_backend_is_bucket_name(name))
		return -ENOENT;
	memcpy(text, name.data, name.len);
	text[name.len] = '\0';
	return cst_tree_open(b->dir, text, O_RDONLY | O_DIRECTORY);
}

int cst_backend_make_bucket(struct cst_store_backend *b, const char *name)
{
	CST_CHECK(b, CST_BACKEND_MAGIC);
	if (mkdirat(b->dir, name, 0755) != 0)
		return -errno;
	return fsync(b->dir) == 0 ? 0 : -errno;
}

/* Removes empty directories only: a file that appears meanwhile makes it fail with ENOTEMPTY. */
static int remove_empty(void *arg, int dir, const char *name, unsigned char type)
{
	CST_AUTO_CLOSE int fd = -1;
	int rc;

	(void)arg;
	if (type != DT_DIR)
		return -ENOTEMPTY;
	fd = cst_tree_open(dir, name, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return cst_steal_fd(&fd);
	rc = cst_tree_each(fd, remove_empty, NULL);
	if (rc)
		return rc;
	return unlinkat(dir, name, AT_REMOVEDIR) == 0 ? 0 : -errno;
}

int cst_backend_remove_bucket(struct cst_store_backend *b, const char *name)
{
	CST_AUTO_CLOSE int fd = cst_backend_bucket(b, cst_slice_of(name));
	int rc;

	if (fd < 0)
		return cst_steal_fd(&fd);
	rc = cst_scan_any(fd, ".");
	if (rc)
		return rc < 0 ? rc : -ENOTEMPTY;
	pthread_rwlock_wrlock(&b->tree);
	rc = cst_tree_each(fd, remove_empty, NULL);
	if (rc == 0 && unlinkat(b->dir, name, AT_REMOVEDIR) != 0)
		rc = -errno;
	pthread_rwlock_unlock(&b->tree);
	if (rc)
		return rc;
	cst_tree_remove(b->uploads, name);
	return fsync(b->dir) == 0 ? 0 : -errno;
}

/* ---- reading ---- */

pthread_rwlock_t *cst_backend_stripe(struct cst_store_backend *b, struct cst_slice key)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < key.len; i++)
		hash = (hash ^ (uint8_t)key.data[i]) * UINT64_C(0x100000001b3);
	return &b->stripes[(hash ^ hash >> 32) % CST_BACKEND_STRIPES];
}

void cst_blob_close(struct cst_blob *blob)
{
	if (blob->fd >= 0)
		close(blob->fd);
	blob->fd = -1;
	cst_record_fini(&blob->record);
}

int cst_blob_open_path(struct cst_store_backend *b, int bucket, const char *path, struct cst_blob *blob)
{
	int rc;

	cst_blob_close(blob);
	blob->fd = cst_tree_open_file(bucket, path, &blob->st);
	if (blob->fd < 0)
		return blob->fd;
	rc = cst_record_load(&b->records, blob->fd, &blob->st, &blob->record);
	if (rc)
		cst_blob_close(blob);
	return rc;
}

int cst_blob_look(int bucket, const char *path, struct cst_blob *blob)
{
	cst_blob_close(blob);
	blob->fd = cst_tree_open(bucket, path, O_PATH);
	if (blob->fd < 0)
		return blob->fd;
	if (fstat(blob->fd, &blob->st) != 0)
		return -errno;
	cst_record_guess(&blob->st, &blob->record);
	return S_ISREG(blob->st.st_mode) ? 0 : -ENOENT;
}

int cst_blob_open_locked(struct cst_store_backend *b, int bucket, struct cst_slice key, struct cst_blob *blob)
{
	CST_AUTO_BUF path = CST_BUF_INIT;
	int rc = cst_keypath_of(key, &path);

	CST_CHECK(b, CST_BACKEND_MAGIC);
	if (rc)
		return rc;
	pthread_rwlock_rdlock(&b->tree);
	rc = cst_blob_open_path(b, bucket, path.data, blob);
	if (rc == -EISDIR) {
		cst_buf_add_str(&path, "/" CST_KEYPATH_SELF);
		rc = cst_blob_open_path(b, bucket, path.data, blob);
	}
	pthread_rwlock_unlock(&b->tree);
	return rc == -EISDIR ? -ENOENT : rc;
}

int cst_blob_open(struct cst_store_backend *b, int bucket, struct cst_slice key, struct cst_blob *blob)
{
	pthread_rwlock_t *stripe = cst_backend_stripe(b, key);
	int rc;

	pthread_rwlock_rdlock(stripe);
	rc = cst_blob_open_locked(b, bucket, key, blob);
	pthread_rwlock_unlock(stripe);
	return rc;
}

/* ---- staging ---- */

int cst_staged_new(struct cst_store_backend *b, struct cst_staged *s)
{
	CST_CHECK(b, CST_BACKEND_MAGIC);
	snprintf(s->name, sizeof(s->name), "%016" PRIx64 "-%" PRIx64, b->nonce,
		 __atomic_add_fetch(&b->serial, 1, __ATOMIC_RELAXED));
	s->fd = openat(b->tmp, s->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	return s->fd >= 0 ? 0 : -errno;
}

void cst_staged_discard(struct cst_store_backend *b, struct cst_staged *s)
{
	struct stat st;

	if (s->fd < 0)
		return;
	if (s->name[0]) {
		if (fstat(s->fd, &st) == 0)
			cst_record_forget(&b->records, st.st_ino);
		unlinkat(b->tmp, s->name, 0);
	}
	close(s->fd);
	s->fd = -1;
}

int cst_staged_seal(struct cst_store_backend *b, struct cst_staged *s, struct cst_record *record)
{
	struct stat st;
	int rc;

	if (fstat(s->fd, &st) != 0)
		return -errno;
	rc = cst_record_store(&b->records, s->fd, record, &st);
	if (rc)
		return rc;
	return fsync(s->fd) == 0 ? 0 : -errno;
}

/* For file systems and kernels where copy_file_range() isn't had. */
static int copy_plain(int from, uint64_t offset, uint64_t len, int to)
{
	CST_AUTO_FREE char *chunk = cst_xmalloc(1 << 20);

	while (len) {
		ssize_t n = pread(from, chunk, cst_min(len, UINT64_C(1) << 20), (off_t)offset);
		int rc;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		rc = cst_tree_write_all(to, chunk, (size_t)n);
		if (rc)
			return rc;
		offset += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

int cst_backend_copy_range(int from, uint64_t offset, uint64_t len, int to)
{
	while (len) {
		loff_t in = (loff_t)offset;
		ssize_t n = copy_file_range(from, &in, to, NULL, cst_min(len, UINT64_C(1) << 30), 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP))
			return copy_plain(from, offset, len, to);
		if (n < 0)
			return -errno;
		if (n == 0) /* the end of the file, or a file system that gives nothing this way */
			return copy_plain(from, offset, len, to);
		offset += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

/* ---- records of files that go ---- */

int cst_backend_hold(struct cst_store_backend *b, int dir, const char *name)
{
	if (!__atomic_load_n(&b->records.in_use, __ATOMIC_ACQUIRE))
		return -1;
	return openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

void cst_backend_forget(struct cst_store_backend *b, int held)
{
	struct stat st;

	if (held >= 0 && fstat(held, &st) == 0 && S_ISREG(st.st_mode))
		cst_record_forget(&b->records, st.st_ino);
}

/* ---- changing the tree ---- */

/* Renames a staged file over a name, and forgets what was kept beside the file that had it. */
static int rename_over(struct cst_store_backend *b, const char *staged, int parent, const char *leaf)
{
	CST_AUTO_CLOSE int old = cst_backend_hold(b, parent, leaf);

	if (renameat(b->tmp, staged, parent, leaf) != 0)
		return -errno;
	cst_backend_forget(b, old);
	return fsync(parent) == 0 ? 0 : -errno;
}

/* To parent/leaf, or to parent/leaf/.%f where leaf is a directory. */
static int rename_into(struct cst_store_backend *b, const char *staged, int parent, const char *leaf)
{
	CST_AUTO_CLOSE int sub = -1;
	int rc = rename_over(b, staged, parent, leaf);

	if (rc != -EISDIR && rc != -ENOTEMPTY && rc != -EEXIST)
		return rc;
	sub = cst_tree_open(parent, leaf, O_RDONLY | O_DIRECTORY);
	if (sub < 0)
		return sub;
	return rename_over(b, staged, sub, CST_KEYPATH_SELF);
}

static int commit_once(struct cst_store_backend *b, int bucket, const char *path, const char *staged, size_t *blocker)
{
	const char *leaf;
	CST_AUTO_CLOSE int parent = -1;
	int rc;

	pthread_rwlock_rdlock(&b->tree);
	parent = cst_tree_parent(bucket, path, true, &leaf, blocker);
	rc = parent < 0 ? cst_steal_fd(&parent) : rename_into(b, staged, parent, leaf);
	pthread_rwlock_unlock(&b->tree);
	return rc;
}

static bool is_removed(int dir)
{
	struct stat st;

	return fstat(dir, &st) == 0 && st.st_nlink == 0;
}

int cst_blob_commit_locked(struct cst_store_backend *b, int bucket, struct cst_slice key, struct cst_staged *s)
{
	CST_AUTO_BUF path = CST_BUF_INIT;
	int rc = cst_keypath_of(key, &path);

	CST_CHECK(b, CST_BACKEND_MAGIC);
	/* Again: when a directory was pruned under us, or a file had to make room for a directory. */
	for (int i = 0; rc == 0 && i < 2 * CST_KEY_MAX; i++) {
		size_t blocker = 0;

		rc = commit_once(b, bucket, path.data, s->name, &blocker);
		if (rc == -ENOTDIR && blocker) {
			CST_AUTO_FREE char *file = cst_xstrndup(path.data, blocker);

			pthread_rwlock_wrlock(&b->tree);
			rc = cst_room_make(b, bucket, file);
			pthread_rwlock_unlock(&b->tree);
		} else if (rc == 0) {
			s->name[0] = '\0'; /* it is the object's file now */
			return 0;
		}
		if (rc == -ENOENT || rc == -ENOTDIR || rc == -EISDIR)
			rc = is_removed(bucket) ? -ESTALE : 0;
	}
	return rc ? rc : -EBUSY;
}

int cst_blob_delete_locked(struct cst_store_backend *b, int bucket, struct cst_slice key)
{
	CST_AUTO_BUF path = CST_BUF_INIT;
	const char *leaf;
	CST_AUTO_CLOSE int parent = -1;
	CST_AUTO_CLOSE int old = -1;
	struct stat st;
	int rc = cst_keypath_of(key, &path);

	CST_CHECK(b, CST_BACKEND_MAGIC);
	if (rc)
		return rc;
	pthread_rwlock_rdlock(&b->tree);
	for (int i = 0; i < 2 && rc == 0; i++) {
		parent = cst_tree_parent(bucket, path.data, false, &leaf, NULL);
		if (parent < 0)
			rc = cst_steal_fd(&parent);
		else if (fstatat(parent, leaf, &st, AT_SYMLINK_NOFOLLOW) != 0)
			rc = -errno;
		else if (!S_ISDIR(st.st_mode))
			break;
		else
			cst_buf_add_str(&path, "/" CST_KEYPATH_SELF);
		if (i == 0 && parent >= 0)
			close(cst_steal_fd(&parent));
	}
	if (rc == 0 && !S_ISREG(st.st_mode))
		rc = -ENOENT;
	if (rc == 0)
		old = cst_backend_hold(b, parent, leaf);
	if (rc == 0 && unlinkat(parent, leaf, 0) != 0)
		rc = -errno;
	if (rc == 0) {
		cst_backend_forget(b, old);
		if (fsync(parent) != 0)
			rc = -errno;
		cst_tree_prune(bucket, path.data);
	}
	pthread_rwlock_unlock(&b->tree);
	return rc;
}

int cst_blob_rewrite_locked(struct cst_store_backend *b, struct cst_blob *blob, struct cst_record *record, bool touch)
{
	struct stat st = blob->st;
	int64_t now = cst_wall();
	int rc;

	if (touch) {
		/* The record is right for both times, so a crash between the two steps drops nothing. */
		record->mtime_before = cst_record_time(&st.st_mtim);
		st.st_mtim = (struct timespec){.tv_sec = now / CST_NS_PER_S, .tv_nsec = now % CST_NS_PER_S};
	}
	rc = cst_record_store(&b->records, blob->fd, record, &st);
	if (rc)
		return rc;
	if (touch && futimens(blob->fd, (struct timespec[2]){{.tv_nsec = UTIME_OMIT}, st.st_mtim}) != 0)
		return -errno;
	blob->st = st;
	return fsync(blob->fd) == 0 ? 0 : -errno;
}
