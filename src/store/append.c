#define CST_LOG_AREA "store"
#include "store/append.h"

#include "base/clock.h"
#include "base/log.h"
#include "store/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

#define NOTE_MAX 70000

struct note {
	struct cst_slice bucket, key;
	uint64_t ino, grown; /* of the object's file, and the size that it is to have */
	struct cst_record *old;
};

/* "BUCKET\0INODE\0GROWN\0KEYLEN\0KEY" and the record. */
static int write_note(struct cst_store_backend *b, const char *name, const struct note *n)
{
	CST_AUTO_BUF note = CST_BUF_INIT;
	CST_AUTO_CLOSE int fd = openat(b->appends, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	int rc;

	if (fd < 0)
		return -errno;
	cst_buf_add_slice(&note, n->bucket);
	cst_buf_printf(&note, "%c%" PRIu64 "%c%" PRIu64 "%c%zu%c", 0, n->ino, 0, n->grown, 0, n->key.len, 0);
	cst_buf_add_slice(&note, n->key);
	cst_record_encode(n->old, &note);
	rc = cst_tree_write_all(fd, note.data, note.len);
	if (rc == 0 && (fsync(fd) != 0 || fsync(b->appends) != 0))
		rc = -errno;
	if (rc)
		unlinkat(b->appends, name, 0);
	return rc;
}

/* The file becomes again what `old` says. */
static int put_back(struct cst_store_backend *b, int fd, struct cst_record *old)
{
	struct timespec mtime = {.tv_sec = old->mtime / CST_NS_PER_S, .tv_nsec = old->mtime % CST_NS_PER_S};
	struct stat st;

	if (ftruncate(fd, (off_t)old->size) != 0 ||
	    futimens(fd, (struct timespec[2]){{.tv_nsec = UTIME_OMIT}, mtime}) != 0 || fstat(fd, &st) != 0)
		return -errno;
	if (cst_record_store(&b->records, fd, old, &st) != 0 || fsync(fd) != 0)
		return -EIO;
	return 0;
}

static int grow(struct cst_store_backend *b, int fd, struct cst_staged *s, struct cst_record *record, uint64_t old_size)
{
	struct stat st;
	int rc;

	if (fstat(s->fd, &st) != 0 || lseek(fd, (off_t)old_size, SEEK_SET) < 0)
		return -errno;
	rc = cst_backend_copy_range(s->fd, 0, (uint64_t)st.st_size, fd);
	if (rc)
		return rc;
	/* Writes within a tick of a coarse clock would leave the time as it was. */
	if (futimens(fd, NULL) != 0 || fsync(fd) != 0 || fstat(fd, &st) != 0)
		return -errno;
	rc = cst_record_store(&b->records, fd, record, &st);
	if (rc == 0 && fsync(fd) != 0)
		rc = -errno;
	return rc;
}

/* The object's file, for writing. */
static int open_for_append(int bucket, struct cst_slice key, struct stat *st)
{
	CST_AUTO_BUF path = CST_BUF_INIT;
	CST_AUTO_CLOSE int fd = -1;
	int rc = cst_keypath_of(key, &path);

	if (rc)
		return rc;
	fd = cst_tree_open(bucket, path.data, O_RDWR | O_NONBLOCK | O_NOCTTY);
	if (fd == -EISDIR) {
		cst_buf_add_str(&path, "/" CST_KEYPATH_SELF);
		fd = cst_tree_open(bucket, path.data, O_RDWR | O_NONBLOCK | O_NOCTTY);
	}
	if (fd < 0)
		return cst_steal_fd(&fd);
	if (fstat(fd, st) != 0)
		return -errno;
	return S_ISREG(st->st_mode) ? cst_steal_fd(&fd) : -ENOENT;
}

int cst_blob_append_locked(struct cst_store_backend *b, int bucket, const char *bucket_name, struct cst_slice key,
			   struct cst_staged *s, struct cst_record *record)
{
	char name[40];
	CST_AUTO_RECORD old = CST_RECORD_INIT;
	CST_AUTO_CLOSE int fd = -1;
	struct note note = {.bucket = cst_slice_of(bucket_name), .key = key, .old = &old};
	struct stat added = {0};
	struct stat st = {0};
	int rc;

	CST_CHECK(b, CST_BACKEND_MAGIC);
	pthread_rwlock_rdlock(&b->tree);
	fd = open_for_append(bucket, key, &st);
	pthread_rwlock_unlock(&b->tree);
	if (fd < 0)
		return cst_steal_fd(&fd);
	if (fstat(s->fd, &added) != 0)
		return -errno;
	rc = cst_record_load(&b->records, fd, &st, &old);
	if (rc)
		return rc;
	note.ino = st.st_ino;
	note.grown = old.size + (uint64_t)added.st_size;
	snprintf(name, sizeof(name), "%016" PRIx64 "-%" PRIx64, b->nonce,
		 __atomic_add_fetch(&b->serial, 1, __ATOMIC_RELAXED));
	rc = write_note(b, name, &note);
	if (rc)
		return rc;
	rc = grow(b, fd, s, record, old.size);
	if (rc && put_back(b, fd, &old) != 0) {
		cst_log_error(
			"an append to an object of bucket %s failed half way and could not be undone; the next start tries "
			"again",
			bucket_name);
		return rc;
	}
	unlinkat(b->appends, name, 0);
	return rc;
}

/* ---- recovery ---- */

static bool cut_number(struct cst_slice *rest, uint64_t *value)
{
	struct cst_slice text = cst_slice_cut(rest, '\0');

	*value = 0;
	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] < '0' || text.data[i] > '9')
			return false;
		*value = *value * 10 + (uint64_t)(text.data[i] - '0');
	}
	return text.len > 0 && rest->data;
}

static int parse_note(struct cst_slice text, struct note *n)
{
	struct cst_slice rest = text;
	uint64_t len;

	n->bucket = cst_slice_cut(&rest, '\0');
	if (!cut_number(&rest, &n->ino) || !cut_number(&rest, &n->grown) || !cut_number(&rest, &len) || len == 0 ||
	    len > rest.len)
		return -EBADMSG;
	n->key = (struct cst_slice){rest.data, len};
	return cst_record_decode((struct cst_slice){rest.data + len, rest.len - len}, n->old);
}

/* Is the file in the middle of this append? Not when the append was complete, and not when something else was put or
 * written there since: a note whose removal a power failure undid may be old. */
static bool is_half_done(struct cst_store_backend *b, int fd, const struct stat *st, const struct note *n)
{
	CST_AUTO_RECORD now = CST_RECORD_INIT;
	const struct cst_record *old = n->old;

	if (st->st_ino != n->ino || (uint64_t)st->st_size < old->size || (uint64_t)st->st_size > n->grown ||
	    cst_record_peek(&b->records, fd, st, &now) != 0)
		return false;
	if (now.type != CST_RECORD_APPENDABLE || now.size != old->size || now.crc64 != old->crc64)
		return false;
	return (uint64_t)st->st_size != old->size || cst_record_time(&st->st_mtim) != old->mtime;
}

static int recover_note(struct cst_store_backend *b, struct cst_slice text)
{
	CST_AUTO_RECORD old = CST_RECORD_INIT;
	CST_AUTO_CLOSE int bucket = -1;
	CST_AUTO_CLOSE int fd = -1;
	struct note note = {.old = &old};
	struct stat st = {0};

	if (parse_note(text, &note) != 0)
		return 0; /* it never was whole, so nothing was done */
	bucket = cst_backend_bucket(b, note.bucket);
	if (bucket < 0)
		return 0;
	fd = open_for_append(bucket, note.key, &st);
	if (fd < 0 || !is_half_done(b, fd, &st, &note))
		return 0;
	cst_log_warn("an append to an object of bucket %.*s was cut short: taking its %" PRId64 " bytes back",
		     (int)note.bucket.len, note.bucket.data, (int64_t)st.st_size - (int64_t)old.size);
	return put_back(b, fd, &old);
}

static int recover_entry(void *arg, int dir, const char *name, unsigned char type)
{
	struct cst_store_backend *b = arg;
	CST_AUTO_BUF note = CST_BUF_INIT;
	CST_AUTO_CLOSE int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n;

	(void)type;
	if (fd < 0)
		return 0;
	n = read(fd, cst_buf_room(&note, NOTE_MAX), NOTE_MAX);
	if (n > 0)
		note.len = (size_t)n;
	if (recover_note(b, cst_buf_slice(&note)) != 0)
		cst_log_error("an append that was cut short can't be undone: %s", strerror(errno));
	else
		unlinkat(dir, name, 0);
	return 0;
}

void cst_append_recover(struct cst_store_backend *b)
{
	cst_tree_each(b->appends, recover_entry, b);
}
