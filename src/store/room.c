#define CST_LOG_AREA "store"
#include "store/room.h"

#include "base/log.h"
#include "store/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>

#define NOTE ".move"
#define DIRECTORY ".dir"

struct room {
	char dir[64], note[64]; /* names in tmp/ */
	int tmp;		/* the new directory */
};

static void room_close(struct room *room)
{
	cst_close_fd(&room->tmp);
}

static int room_open(struct cst_store_backend *b, struct room *room)
{
	uint64_t serial = __atomic_add_fetch(&b->serial, 1, __ATOMIC_RELAXED);

	snprintf(room->dir, sizeof(room->dir), "%016" PRIx64 "-%" PRIx64 DIRECTORY, b->nonce, serial);
	snprintf(room->note, sizeof(room->note), "%016" PRIx64 "-%" PRIx64 NOTE, b->nonce, serial);
	room->tmp = cst_tree_make_dir(b->tmp, room->dir);
	return room->tmp < 0 ? room->tmp : 0;
}

/* -EOPNOTSUPP when the file system can't do that. */
static int by_exchange(struct cst_store_backend *b, const struct room *room, int parent, const char *leaf)
{
	int rc = 0;

	if (__atomic_load_n(&b->no_exchange, __ATOMIC_RELAXED))
		return -EOPNOTSUPP;
	if (linkat(parent, leaf, room->tmp, CST_KEYPATH_SELF, 0) != 0 || fsync(room->tmp) != 0 ||
	    renameat2(b->tmp, room->dir, parent, leaf, RENAME_EXCHANGE) != 0)
		rc = -errno;
	if (rc == 0)
		unlinkat(b->tmp, room->dir, 0);
	return rc == -EINVAL || rc == -ENOSYS || rc == -EPERM || rc == -EMLINK ? -EOPNOTSUPP : rc;
}

/* "INODE PATH" of the bucket and in it: descriptors have no names, and buckets may be renamed while nobody looks. */
static int write_note(struct cst_store_backend *b, const struct room *room, int bucket, const char *path)
{
	CST_AUTO_CLOSE int fd = openat(b->tmp, room->note, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	CST_AUTO_FREE char *text = NULL;
	struct stat st;
	int rc;

	if (fd < 0 || fstat(bucket, &st) != 0)
		return -errno;
	text = cst_xasprintf("%" PRIu64 " %s", (uint64_t)st.st_ino, path);
	rc = cst_tree_write_all(fd, text, strlen(text));
	if (rc == 0 && (fsync(fd) != 0 || fsync(b->tmp) != 0))
		rc = -errno;
	return rc;
}

static int by_steps(struct cst_store_backend *b, const struct room *room, int bucket, const char *path, int parent,
		    const char *leaf)
{
	int rc;

	/* Renaming onto another name of the same file does nothing. */
	unlinkat(room->tmp, CST_KEYPATH_SELF, 0);
	rc = write_note(b, room, bucket, path);
	if (rc == 0 && renameat(parent, leaf, room->tmp, CST_KEYPATH_SELF) != 0)
		rc = -errno;
	else if (rc == 0 && renameat(b->tmp, room->dir, parent, leaf) != 0) {
		rc = -errno;
		if (renameat(room->tmp, CST_KEYPATH_SELF, parent, leaf) != 0) {
			cst_log_error(
				"an object could not be moved back from .cistern/tmp/%s: the next start tries again",
				room->dir);
			return rc; /* the note stays */
		}
	}
	/* What is in the way of the note's removal must not make the next start undo what was done. */
	if (rc == 0 && fsync(parent) != 0)
		rc = -errno;
	unlinkat(b->tmp, room->note, 0);
	return rc;
}

int cst_room_make(struct cst_store_backend *b, int bucket, const char *path)
{
	const char *leaf;
	CST_AUTO_CLOSE int parent = cst_tree_parent(bucket, path, false, &leaf, NULL);
	CST_CLEANUP(room_close) struct room room = {.tmp = -1};
	struct stat st;
	int rc;

	if (parent < 0)
		return parent;
	if (fstatat(parent, leaf, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT ? 0 : -errno;
	if (S_ISDIR(st.st_mode))
		return 0;
	if (!S_ISREG(st.st_mode))
		return -ELOOP;
	rc = room_open(b, &room);
	if (rc)
		return rc;
	rc = by_exchange(b, &room, parent, leaf);
	if (rc == -EOPNOTSUPP) {
		__atomic_store_n(&b->no_exchange, true, __ATOMIC_RELAXED);
		rc = by_steps(b, &room, bucket, path, parent, leaf);
	}
	/* Never an object that has no other name: then the directory isn't empty, or a note is about it. */
	if (rc && faccessat(b->tmp, room.note, F_OK, AT_SYMLINK_NOFOLLOW) != 0)
		cst_tree_remove(b->tmp, room.dir);
	return rc == 0 && fsync(parent) != 0 ? -errno : rc;
}

/* ---- recovery ---- */

struct search {
	uint64_t ino;
	int fd;
};

static int find_bucket(void *arg, int dir, const char *name, unsigned char type)
{
	struct search *search = arg;
	struct stat st;

	if (type != DT_DIR || fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || st.st_ino != search->ino)
		return 0;
	search->fd = cst_tree_open(dir, name, O_RDONLY | O_DIRECTORY);
	return 1;
}

/* The object lies in tmp/NAME.dir/.%f and nothing has its name: back it goes. */
static int put_back(struct cst_store_backend *b, const char *note, int bucket, const char *path)
{
	CST_AUTO_FREE char *from =
		cst_xasprintf("%.*s%s/%s", (int)(strlen(note) - strlen(NOTE)), note, DIRECTORY, CST_KEYPATH_SELF);
	const char *leaf;
	CST_AUTO_CLOSE int parent = -1;
	struct stat st;

	if (fstatat(b->tmp, from, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT ? 0 : -errno;
	parent = cst_tree_parent(bucket, path, true, &leaf, NULL);
	if (parent < 0)
		return cst_steal_fd(&parent);
	if (fstatat(parent, leaf, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return 0; /* it never left */
	if (renameat(b->tmp, from, parent, leaf) != 0 || fsync(parent) != 0)
		return -errno;
	cst_log_warn("put an object back that was moved when the store was killed");
	return 0;
}

static int recover_entry(void *arg, int dir, const char *name, unsigned char type)
{
	struct cst_store_backend *b = arg;
	struct search search = {.fd = -1};
	char text[PATH_MAX + 32];
	const char *end = strrchr(name, '.');
	CST_AUTO_CLOSE int fd = -1;
	ssize_t n;
	char *path;
	int rc;

	if (type != DT_REG || !end || strcmp(end, NOTE) != 0)
		return 0;
	fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return -errno;
	text[n] = '\0';
	search.ino = strtoull(text, &path, 10);
	if (*path != ' ' || !path[1])
		return 0; /* it never was whole, so nothing was moved */
	cst_tree_each(b->dir, find_bucket, &search);
	if (search.fd < 0)
		return 0; /* the bucket has gone, and all in it */
	rc = put_back(b, name, search.fd, path + 1);
	close(search.fd);
	return rc;
}

int cst_room_recover(struct cst_store_backend *b)
{
	return cst_tree_each(b->tmp, recover_entry, b);
}
